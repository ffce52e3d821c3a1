"""Workloads on the whole engine by its public statements, with plain dicts as their model.

Thresholds are lowered where a script says so, so that flushes, merges and bulk segments happen
within a few rows; `bulk` keeps the real ones. Oracle: `database_oracle`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import numpy as np

from m2mdb.connection import Connection
from m2mdb.index.database import Database
from m2mdb.pager.errors import IntegrityError, OperationalError
from m2mdb.pager.sim_vfs import SimVfs
from m2mdb.wal.store import Store, StoreOptions
from tests.sim.database_oracle import WORDS, Row, State, plain, read_state
from tests.sim.history import History
from tests.sim.newer_scripts import NEWER_SCRIPTS
from tests.sim.store_runs import was_taken_back
from tests.thresholds import small_thresholds

PATH = "d/notes.m2m"
CREATE = (
    "CREATE COLLECTION {} (id TEXT PRIMARY KEY, slug TEXT UNIQUE, body TEXT FULLTEXT, "
    "n INTEGER, e VECTOR(3))"
)
COLUMNS = ("id", "slug", "body", "n", "e")
INSERT = "INSERT INTO {} (id, slug, body, n, e) VALUES (?, ?, ?, ?, ?)"


def open_database(vfs: SimVfs, **options: Any) -> Database:
    wanted = StoreOptions(create=True, **options)
    return Database.open(vfs, PATH, wanted, compute="numpy", autocommit=True)


def make_row(number: int, key: str = "") -> tuple[Any, ...]:
    """A row in the order of COLUMNS; equal numbers make equal rows."""
    rng = Random(number)
    body = " ".join(rng.choice(WORDS) for _ in range(rng.randint(0, 5)))
    vector = np.array([rng.gauss(0, 1) for _ in range(3)], np.float32)
    return (
        key or f"k{number}",
        f"s{number}" if rng.random() < 0.8 else None,
        body if rng.random() < 0.9 else None,
        rng.choice((None, -1, 0, 1, 2, 3)),
        vector if rng.random() < 0.9 else None,
    )


class Model:
    """Collections as dicts: what must be there."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Row]] = {}
        # columns behind COLUMNS by their names, and what they hold in a row
        self.added: dict[str, dict[str, Callable[[Row], Any]]] = {}
        self.indexes: set[tuple[str, str, str, str]] = set()

    def copy(self) -> Model:
        other = Model()
        other.rows = {name: dict(rows) for name, rows in self.rows.items()}
        other.added = dict(self.added)  # whose values are replaced, never changed
        other.indexes = set(self.indexes)
        return other

    def state(self) -> State:
        found: set[tuple[Any, ...]] = set(self.indexes)
        for name, rows in self.rows.items():
            added = self.added.get(name, {})
            found.add(("collection", name, (*COLUMNS, *added)))
            found.update(
                ("row", name, *row, *(each(row) for each in added.values()))
                for row in rows.values()
            )
        return frozenset(found)


class DatabaseRun:
    """One process that works on a database by statements, and what it was promised."""

    def __init__(self, vfs: SimVfs, **options: Any) -> None:
        self.vfs = vfs
        self.options = options
        self.durable = options.get("synchronous", "full") == "full"
        self.model = Model()
        self.history: History[State] = History(vfs, self.model.state())
        self.inside = False  # a transaction
        self.may_be_busy = False  # locks fail
        self.connection = self._open()

    def _open(self) -> Connection:
        return Connection(open_database(self.vfs, **self.options), PATH)

    @property
    def database(self) -> Database:
        return self.connection.engine()

    # -- statements: each changes the model, and commits by itself outside a transaction

    def execute(self, statement: str, parameters: Any = (), *, steps: bool = False) -> None:
        """`steps`: it commits more than once, and may fail when its rows are gone already."""
        if not self.inside:
            self.history.begin(self.model.state())
        try:
            self.connection.execute(statement, parameters)
        except BaseException as error:
            if was_taken_back(error) and not steps:
                self.history.abandon()
            raise
        if not self.inside:
            self.history.acknowledge(durable=self.durable)

    def create(self, name: str = "notes", index: bool = True) -> None:
        self.model.rows[name] = {}
        self.execute(CREATE.format(name))
        if index:
            self.index(name, "n")

    def index(self, name: str, column: str, kind: str = "btree") -> None:
        self.model.indexes.add(("index", name, f"by_{column}_{name}", kind))
        self.execute(f"CREATE INDEX by_{column}_{name} ON {name} USING {kind} ({column})")

    def drop_index(self, name: str, column: str, kind: str = "btree") -> None:
        self.model.indexes.discard(("index", name, f"by_{column}_{name}", kind))
        self.execute(f"DROP INDEX by_{column}_{name}")

    def drop(self, name: str) -> None:
        del self.model.rows[name]
        self.model.indexes = {index for index in self.model.indexes if index[1] != name}
        self.execute(f"DROP COLLECTION {name}")

    def insert(self, *numbers: int, into: str = "notes") -> None:
        """Rows by one statement: a segment when they are many."""
        rows = [make_row(number) for number in numbers]
        for row in rows:
            self.model.rows[into][row[0]] = tuple(map(plain, row))
        groups = ", ".join(["(?, ?, ?, ?, ?)"] * len(rows))
        statement = f"INSERT INTO {into} (id, slug, body, n, e) VALUES {groups}"
        self.execute(statement, [value for row in rows for value in row])

    def update(self, number: int, *keys: int, into: str = "notes") -> None:
        """Give rows the text, number and vector of another one."""
        other = make_row(number)
        for key in keys:
            old = self.model.rows[into][f"k{key}"]
            new = (*old[:2], *map(plain, other[2:]))
            self.model.rows[into][f"k{key}"] = new
        wanted = [f"k{key}" for key in keys]
        statement = f"UPDATE {into} SET body = ?, n = ?, e = ? WHERE id IN ?"
        self.execute(statement, (*other[2:], wanted))

    def delete(self, *keys: int, into: str = "notes") -> None:
        for key in keys:
            del self.model.rows[into][f"k{key}"]
        self.execute(f"DELETE FROM {into} WHERE id IN ?", ([f"k{key}" for key in keys],))

    def duplicate(self, key: int, into: str = "notes") -> None:
        """A statement that fails in its last row and leaves nothing."""
        rows = [make_row(900), make_row(901), make_row(902, f"k{key}")]
        groups = ", ".join(["(?, ?, ?, ?, ?)"] * 3)
        statement = f"INSERT INTO {into} (id, slug, body, n, e) VALUES {groups}"
        try:
            self.connection.execute(statement, [value for row in rows for value in row])
        except IntegrityError:
            return
        raise AssertionError("a duplicate key was accepted")

    def forget(self, *keys: int, into: str = "notes") -> None:
        """Rows go with every byte of them."""
        for key in keys:
            del self.model.rows[into][f"k{key}"]
        wanted = ([f"k{key}" for key in keys],)
        self.execute(f"FORGET FROM {into} WHERE id IN ?", wanted, steps=True)

    def aside(self, statement: str) -> None:
        """A statement after which everything is as it was, in however many commits."""
        self.connection.execute(statement)

    # -- transactions

    def begin(self) -> None:
        self.connection.execute("BEGIN")
        self.inside = True
        self._before = self.model.copy()

    def commit(self) -> None:
        self.inside = False
        self.execute("COMMIT")

    def rollback(self) -> None:
        self.inside = False
        self.model = self._before
        self.connection.execute("ROLLBACK")

    def savepoint(self, name: str) -> Model:
        self.connection.execute(f"SAVEPOINT {name}")
        return self.model.copy()

    def rollback_to(self, name: str, model: Model) -> None:
        self.connection.execute(f"ROLLBACK TO {name}")
        self.model = model.copy()

    # -- upkeep

    def checkpoint(self, mode: str) -> None:
        result = self.connection.execute(f"CHECKPOINT {mode}").fetchone()
        assert result is not None
        if result[0] or result[1] != result[2]:
            assert self.may_be_busy
        else:
            self.history.floor()

    def reopen(self) -> None:
        self.connection.close()
        if PATH + "-wal" not in self.vfs.machine.disk.names:
            self.history.floor()
        elif not self.durable:
            raise OperationalError("the last connection has left its log")
        self.connection = self._open()


def statements(run: DatabaseRun) -> None:
    """Rows come and go one by one and in batches, over flushes and merges."""
    run.create()
    run.insert(1)
    run.insert(2, 3)
    run.update(50, 1, 3)
    run.insert(*range(10, 16))
    run.delete(2, 11)
    run.insert(*range(20, 25))
    run.update(51, 1, 12, 20)
    for number in range(30, 37):
        run.insert(number)
    run.duplicate(30)
    run.insert(*range(40, 46))
    run.delete(1, 3, 10, 12, 13, 14, 15)
    run.insert(1)


def savepoints(run: DatabaseRun) -> None:
    """Transactions with savepoints, undone statements, rows and segments that are taken back."""
    run.create()
    run.insert(*range(6))
    run.begin()
    run.insert(10)
    kept = run.savepoint("a")
    run.update(50, 1, 2)
    run.insert(*range(20, 27))
    run.duplicate(3)
    run.rollback_to("a", kept)
    run.delete(4)
    run.connection.execute("RELEASE a")
    run.insert(*range(30, 36))
    run.commit()
    run.begin()
    run.delete(*range(4))
    run.insert(*range(40, 46))
    run.rollback()
    run.insert(*range(40, 43))


def schema(run: DatabaseRun) -> None:
    """Collections and indexes come and go, inside transactions too."""
    run.create("notes", index=False)
    run.insert(*range(6))
    run.index("notes", "n")
    run.index("notes", "slug", "bm25")
    run.create("other")
    run.insert(1, 2, into="other")
    run.drop_index("notes", "n")
    run.insert(8)
    run.drop_index("notes", "slug", "bm25")
    run.begin()
    run.index("notes", "n")
    run.drop("other")
    run.create("third")
    run.insert(*range(7), into="third")
    run.rollback()
    run.begin()
    run.create("third")
    run.insert(*range(7), into="third")
    run.drop("notes")
    run.commit()
    run.update(50, 1, into="other")
    run.drop("third")


def checkpoints(run: DatabaseRun) -> None:
    """Each mode of checkpoint between statements, and clean closes."""
    run.create()
    for number, mode in enumerate(("passive", "full", "restart", "truncate")):
        run.insert(*range(number * 10, number * 10 + 6))
        run.insert(number * 10 + 7)
        run.checkpoint(mode)
        run.update(60 + number, number * 10, number * 10 + 7)
    run.reopen()
    run.delete(0, 1, 10)
    run.reopen()
    run.insert(80)


def upkeep(run: DatabaseRun) -> None:
    """OPTIMIZE over several segments with dead rows, and automatic checkpoints."""
    run.create()
    run.database.store.wal_autocheckpoint = 4
    run.insert(*range(6))
    run.insert(*range(10, 16))
    run.delete(1, 2, 11)
    run.insert(20)
    run.aside("OPTIMIZE notes")
    run.insert(*range(30, 36))
    run.delete(*range(30, 36))


def vacuum(run: DatabaseRun) -> None:
    """The file shrinks: all at once, and by steps."""
    run.create()
    run.insert(*range(6))
    run.insert(*range(10, 22))
    run.delete(*range(10, 20))
    run.delete(0, 1, 2)
    run.aside("VACUUM")
    run.insert(30)
    run.insert(*range(40, 46))
    run.delete(*range(40, 46))
    run.aside("PRAGMA incremental_vacuum(3)")
    run.insert(31)
    run.aside("PRAGMA incremental_vacuum")
    run.checkpoint("truncate")
    run.insert(50)


def forgetting(run: DatabaseRun) -> None:
    """Rows are forgotten from delta and segments, and what is freed is overwritten."""
    run.aside("PRAGMA secure_delete = on")
    run.create()
    run.insert(*range(6))
    run.insert(10, 11)
    run.forget(1, 10)
    run.insert(*range(20, 26))
    run.delete(20, 21)
    run.checkpoint("full")
    run.forget(0, 22)
    run.forget(2, 3, 4, 5, 11, 23, 24, 25)
    run.insert(30)


def past(run: DatabaseRun) -> None:
    """Older versions are kept, over flushes and merges, and then no more."""
    run.aside("PRAGMA keep_commits = 3")
    run.create()
    run.insert(*range(6))
    run.update(50, 1, 2)
    run.insert(*range(10, 16))
    run.delete(3, 11)
    for number in range(20, 26):
        run.insert(number)
    run.insert(*range(30, 36))
    run.aside("OPTIMIZE notes")
    run.aside("PRAGMA keep_commits = 0")
    run.delete(1, 2)
    run.insert(*range(40, 46))


def bulk(run: DatabaseRun) -> None:
    """Segments of the real size: 520 rows at once, most of them deleted at once."""
    run.create()
    run.insert(*range(520))
    run.update(600, 5, 6, 7)
    run.delete(*range(513))
    run.insert(700)


def random_statements(seed: int) -> Callable[[DatabaseRun], None]:
    """A workload drawn from a seed."""

    def script(run: DatabaseRun) -> None:
        rng = Random(seed)
        run.create()
        run.database.store.wal_autocheckpoint = rng.choice((0, 3, 1000))
        fresh = iter(range(1000, 2000))
        for _ in range(rng.randint(4, 14)):
            kind = rng.random()
            if kind < 0.7:
                _random_statement(run, rng, fresh)
            elif kind < 0.85:
                _random_transaction(run, rng, fresh)
            elif kind < 0.92:
                run.checkpoint(rng.choice(("passive", "full", "restart", "truncate")))
            elif kind < 0.97:
                run.aside(rng.choice(("VACUUM", "PRAGMA incremental_vacuum(4)", "OPTIMIZE notes")))
            else:
                run.reopen()

    return script


def _random_statement(run: DatabaseRun, rng: Random, fresh: Iterator[int]) -> None:
    there = [int(key[1:]) for key in run.model.rows["notes"]]
    kind = rng.random()
    if kind < 0.5 or len(there) < 4:
        run.insert(*(next(fresh) for _ in range(rng.choice((1, 2, 5, 8)))))
    elif kind < 0.75:
        run.update(next(fresh), *rng.sample(there, rng.randint(1, 4)))
    elif kind < 0.8 and not run.inside:
        run.forget(*rng.sample(there, rng.randint(1, 3)))
    else:
        run.delete(*rng.sample(there, rng.randint(1, min(len(there), 7))))


def _random_transaction(run: DatabaseRun, rng: Random, fresh: Iterator[int]) -> None:
    run.begin()
    for _ in range(rng.randint(1, 3)):
        _random_statement(run, rng, fresh)
        kept = run.savepoint("s")
        _random_statement(run, rng, fresh)
        if rng.random() < 0.5:
            run.rollback_to("s", kept)
        run.connection.execute("RELEASE s")
    if rng.random() < 0.3:
        run.rollback()
    else:
        run.commit()


DATABASE_SCRIPTS: dict[str, Callable[[DatabaseRun], None]] = {
    "statements": statements,
    "savepoints": savepoints,
    "schema": schema,
    "checkpoints": checkpoints,
    "upkeep": upkeep,
    "vacuum": vacuum,
    "forgetting": forgetting,
    "past": past,
    "bulk": bulk,
    **NEWER_SCRIPTS,
}
REAL_THRESHOLDS = frozenset(("bulk",))


class DatabaseLevel:
    """Workloads on the whole engine; see `crash_explorer.Level`."""

    name = "database"

    def start(self, vfs: SimVfs, synchronous: str) -> DatabaseRun:
        """A run on an open, new database."""
        return DatabaseRun(vfs, synchronous=synchronous)

    def drive(self, run: DatabaseRun, script: str) -> None:
        """Run one of DATABASE_SCRIPTS, or a random one."""
        if script in REAL_THRESHOLDS:
            DATABASE_SCRIPTS[script](run)
            return
        with small_thresholds():
            if script.startswith("random-"):
                random_statements(int(script[7:]))(run)
            else:
                DATABASE_SCRIPTS[script](run)

    def handle(self, run: DatabaseRun) -> Database | None:
        """The run's database after its script has ended or failed; None where it is closed."""
        if run.connection.database is None or run.database.store.closed:
            return None
        run.connection.rollback()
        return run.database

    def store(self, handle: Database) -> Store:
        """The store of a database."""
        return handle.store

    def open(self, vfs: SimVfs) -> Database:
        """The database, recovered."""
        return open_database(vfs)

    def look(self, handle: Database) -> State:
        """Everything in it, all indexes held to the rows."""
        return read_state(handle)

    def append(self, handle: Database, history: History[State], rng: Random) -> None:
        """A row and then a segment, into a collection that may have to be made first."""
        state = set(history.states[-1])
        first = 3000 + sum(item[0] == "row" for item in state)  # no earlier append has used it
        name = "notes" if ("collection", "notes", COLUMNS) in state else "extra"
        with small_thresholds():
            connection = Connection(handle, PATH)
            if ("collection", name, COLUMNS) not in state:
                state.add(("collection", name, COLUMNS))
                history.begin(frozenset(state))
                connection.execute(CREATE.format(name))
                history.acknowledge()
            for numbers in ((first,), range(first + 1, first + 7)):
                rows = [make_row(number) for number in numbers]
                state.update(("row", name, *map(plain, row)) for row in rows)
                groups = ", ".join(["(?, ?, ?, ?, ?)"] * len(rows))
                history.begin(frozenset(state))
                statement = f"INSERT INTO {name} (id, slug, body, n, e) VALUES {groups}"
                connection.execute(statement, [value for row in rows for value in row])
                history.acknowledge()
        ending = rng.choice(("", "", "truncate", "passive", "close"))
        if ending == "close":
            connection.close()
        elif ending:
            handle.checkpoint(ending)
