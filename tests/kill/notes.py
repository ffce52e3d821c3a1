"""What the writers of a kill campaign do: operations that follow from a seed, and their model.

Writer `owner` commits operations 1, 2, 3 …; operation n follows from (seed, owner, n) and from what
the operations before it left. So whoever knows how many are done knows every row of that owner.
The last statement of each transaction puts n, the owner's count of rows and the sum of their
marks into `progress`: every snapshot can be checked without knowing any model.
"""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np

import m2mdb
from tests.kill.books import Book

DIMENSION = 8
BULK = 600  # rows; beyond the bound from which a batch is a segment of its own
MOST_ROWS = 1500  # of one owner; then a bulk delete comes
WORDS = 40
NUMBERS = 50
KEPT = 20  # commits that AS OF can read

SCHEMA = (
    "CREATE COLLECTION notes (id TEXT PRIMARY KEY, owner INTEGER, number INTEGER, "
    "tag TEXT UNIQUE, body TEXT FULLTEXT, embedding VECTOR(8) METRIC l2)",
    "CREATE INDEX by_number ON notes (number)",
    "CREATE COLLECTION progress (owner INTEGER PRIMARY KEY, done INTEGER, rows INTEGER, "
    "marks INTEGER)",
)

_KINDS = {
    "insert": 30,
    "add": 14,
    "bulk": 3,
    "update": 20,
    "upsert": 6,
    "delete": 10,
    "forget": 4,
    "sweep": 3,
    "mixed": 8,
    "side": 4,
    "index": 3,
    "book": 9,
}


def mark(owner: int, key: int, version: int) -> int:
    """A number that tells one version of one row from all others."""
    return (key * 1_000_003 + version * 7_919 + owner * 104_729 + 1) * 2_654_435_761 % (1 << 40)


def vector(owner: int, key: int, version: int) -> list[float]:
    """The row's vector: small numbers that float32 holds exactly."""
    base = key * 31 + version * 17 + owner * 7
    return [(base * (i + 3) * (i + 5)) % 97 - 48.5 for i in range(DIMENSION)]


def number(key: int, version: int) -> int:
    return (key * 7 + version) % NUMBERS


def word(key: int) -> str:
    return f"word{key % WORDS}"


def row(owner: int, key: int, version: int) -> tuple[Any, ...]:
    """All columns of a row."""
    return (
        f"{owner}-{key}",
        owner,
        number(key, version),
        f"t{owner}-{key}-{version}",
        f"{word(key)} version{version} of {owner} " + "filler " * (key % 5),
        vector(owner, key, version),
    )


class State:
    """What one owner's first `done` operations leave."""

    def __init__(self, seed: int, owner: int) -> None:
        self.seed = seed
        self.owner = owner
        self.done = 0
        self.rows: dict[int, int] = {}  # key -> version
        self.next_key = 0
        self.side: int | None = None  # rows of the owner's own collection, where there is one
        self.has_index = False
        self.book: Book | None = None  # the owner's own collection of the newer parts

    def copy(self) -> State:
        new = State(self.seed, self.owner)
        new.done, new.next_key = self.done, self.next_key
        new.rows = dict(self.rows)
        new.side, new.has_index = self.side, self.has_index
        new.book = None if self.book is None else self.book.copy()
        return new

    def marks(self) -> int:
        return sum(mark(self.owner, key, version) for key, version in self.rows.items()) % (1 << 62)

    def new_keys(self, count: int) -> list[int]:
        keys = list(range(self.next_key, self.next_key + count))
        self.next_key += count
        return keys

    def some(self, rng: Random, most: int) -> list[int]:
        """Some keys that are there."""
        keys = list(self.rows)
        return rng.sample(keys, min(len(keys), rng.randint(1, most)))

    def advance(self, until: int) -> None:
        """Do operations on the model alone."""
        while self.done < until:
            self.step(None)

    def step(self, con: m2mdb.Connection | None) -> None:
        """The next operation, in the model and, inside its open transaction, in the database."""
        rng = Random((self.seed * 1_000_003 + self.owner) * 1_000_003 + self.done)
        kind = rng.choices(list(_KINDS), list(_KINDS.values()))[0]
        if len(self.rows) > MOST_ROWS:
            kind = "sweep"
        getattr(self, "_" + kind)(con, rng)
        self.done += 1
        if con is not None:
            con.execute(
                "UPDATE progress SET done = ?, rows = ?, marks = ? WHERE owner = ?",
                (self.done, len(self.rows), self.marks(), self.owner),
            )

    # -- operations ----------------------------------------------------------------------------

    def _insert(self, con: m2mdb.Connection | None, rng: Random) -> None:
        (key,) = self.new_keys(1)
        self.rows[key] = 0
        if con is not None:
            con.execute("INSERT INTO notes VALUES (?, ?, ?, ?, ?, ?)", row(self.owner, key, 0))

    def _add(self, con: m2mdb.Connection | None, rng: Random, count: int = 0) -> None:
        keys = self.new_keys(count or rng.randint(2, 40))
        self.rows.update(dict.fromkeys(keys, 0))
        if con is not None:
            columns = list(zip(*(row(self.owner, key, 0) for key in keys), strict=True))
            names = ("id", "owner", "number", "tag", "body", "embedding")
            con.collection("notes").add(dict(zip(names, map(list, columns), strict=True)))

    def _bulk(self, con: m2mdb.Connection | None, rng: Random) -> None:
        self._add(con, rng, BULK)

    def _update(self, con: m2mdb.Connection | None, rng: Random) -> None:
        for key in self.some(rng, 6):
            self.rows[key] += 1
            if con is not None:
                id_, _, *values = row(self.owner, key, self.rows[key])
                changed = con.execute(
                    "UPDATE notes SET number = ?, tag = ?, body = ?, embedding = ? WHERE id = ?",
                    (*values, id_),
                ).rowcount
                assert changed == 1, (id_, changed)

    def _upsert(self, con: m2mdb.Connection | None, rng: Random) -> None:
        for key in self.some(rng, 3):
            self.rows[key] += 1
            if con is not None:
                con.execute(
                    "INSERT OR REPLACE INTO notes VALUES (?, ?, ?, ?, ?, ?)",
                    row(self.owner, key, self.rows[key]),
                )

    def _delete(self, con: m2mdb.Connection | None, rng: Random) -> None:
        keys = self.some(rng, 8)
        for key in keys:
            del self.rows[key]
        if con is not None:
            deleted = con.collection("notes").delete([f"{self.owner}-{key}" for key in keys])
            assert deleted == len(keys), (keys, deleted)

    def _forget(self, con: m2mdb.Connection | None, rng: Random) -> None:
        keys = self.some(rng, 4)
        for key in keys:
            del self.rows[key]
        if con is not None and keys:
            receipt = con.collection("notes").forget([f"{self.owner}-{key}" for key in keys])
            assert receipt.rows == len(keys), (keys, receipt)

    def _sweep(self, con: m2mdb.Connection | None, rng: Random) -> None:
        bound = rng.randint(1, NUMBERS)
        gone = [key for key, version in self.rows.items() if number(key, version) < bound]
        for key in gone:
            del self.rows[key]
        if con is not None:
            deleted = con.execute(
                "DELETE FROM notes WHERE owner = ? AND number < ?", (self.owner, bound)
            ).rowcount
            assert deleted == len(gone), (bound, deleted, len(gone))

    def _mixed(self, con: m2mdb.Connection | None, rng: Random) -> None:
        """Statements around a savepoint that is rolled back."""
        self._insert(con, rng)
        if con is not None:
            undone = self.copy()
            con.execute("SAVEPOINT here")
            undone._delete(con, rng)
            undone._add(con, rng)
            con.execute("ROLLBACK TO here")
            con.execute("RELEASE here")
        rng = Random(self.done)  # what was undone must not matter
        self._update(con, rng)

    def _side(self, con: m2mdb.Connection | None, rng: Random) -> None:
        name = f"side{self.owner}"
        if self.side is not None:
            self.side = None
            if con is not None:
                con.execute(f"DROP COLLECTION {name}")
            return
        self.side = rng.choice((1, 20, BULK))
        if con is not None:
            con.execute(f"CREATE COLLECTION {name} (a INTEGER PRIMARY KEY, body TEXT FULLTEXT)")
            count = range(self.side)
            con.collection(name).add({"a": list(count), "body": [f"side {a}" for a in count]})

    def _index(self, con: m2mdb.Connection | None, rng: Random) -> None:
        name = f"extra{self.owner}"
        self.has_index = not self.has_index
        if con is not None:
            create = f"CREATE INDEX {name} ON notes (owner)"
            con.execute(create if self.has_index else f"DROP INDEX {name}")

    def _book(self, con: m2mdb.Connection | None, rng: Random) -> None:
        if self.book is None:
            self.book = Book(self.owner)
            self.book.begin(con)
        elif rng.random() < 0.1:
            if con is not None:
                con.execute(f"DROP COLLECTION {self.book.name}")
            self.book = None
        else:
            self.book.step(con, rng)


# -- what must hold ----------------------------------------------------------------------------


def is_there(con: m2mdb.Connection) -> bool:
    """Whether the collections were made."""
    found = con.execute("SELECT count(*) FROM m2m_collections WHERE name = 'progress'")
    return bool(found.fetchone()[0])


def create(con: m2mdb.Connection, owners: int) -> None:
    """Make the collections, in one transaction of whoever comes first."""
    con.execute("BEGIN IMMEDIATE")
    if not is_there(con):
        for statement in SCHEMA:
            con.execute(statement)
        con.execute(f"PRAGMA keep_commits = {KEPT}")
        for owner in range(owners):
            con.execute("INSERT INTO progress VALUES (?, 0, 0, 0)", (owner,))
    con.commit()


def progress(con: m2mdb.Connection, as_of: str = "") -> dict[int, tuple[int, int, int]]:
    """(operations done, rows, sum of marks) of each owner."""
    if not is_there(con):
        return {}
    rows = con.execute(f"SELECT owner, done, rows, marks FROM progress {as_of}").fetchall()
    return {owner: (done, count, marks) for owner, done, count, marks in map(tuple, rows)}


def check_sums(
    con: m2mdb.Connection, said: dict[int, tuple[int, int, int]], as_of: str = ""
) -> None:
    """Rows agree with what the same snapshot says of them: no half transaction, none twice."""
    found = {owner: [0, 0] for owner in said}
    for owner, tag in con.execute(f"SELECT owner, tag FROM notes {as_of}").fetchall():
        _, key, version = tag[1:].split("-")
        found[owner][0] += 1
        found[owner][1] += mark(owner, int(key), int(version))
    for owner, (done, rows, marks) in said.items():
        count, sum_ = found[owner]
        assert (count, sum_ % (1 << 62)) == (rows, marks), (
            f"owner {owner} at operation {done}: {count} rows, expected {rows}; marks "
            f"{sum_ % (1 << 62)}, expected {marks}"
        )


def check_past(con: m2mdb.Connection, rng: Random) -> None:
    """A commit that is kept can be read whole (S25); FORGET ends what was before it (S26)."""
    newest = con.commit_number
    oldest = max(
        number
        for (number,) in con.execute(
            "SELECT oldest_commit FROM m2m_collections WHERE name IN ('notes', 'progress')"
        ).fetchall()
    )
    assert 0 <= oldest <= newest, (oldest, newest)  # commits of maintenance do not count as kept
    as_of = f"AS OF {rng.randint(oldest, newest)}"
    check_sums(con, progress(con, as_of), as_of)


def check_own(con: m2mdb.Connection, state: State) -> None:
    """Every row of one owner, all columns, and what it created."""
    owner = state.owner
    found = con.execute(
        "SELECT id, owner, number, tag, body, embedding FROM notes WHERE owner = ?", (owner,)
    ).fetchall()
    rows = {each[0]: (*each[:5], each[5].tolist()) for each in found}
    wanted = {}
    for key, version in state.rows.items():
        each = row(owner, key, version)
        wanted[each[0]] = each
    assert rows == wanted, _difference(rows, wanted, state)
    names = {name for (name,) in con.execute("SELECT name FROM m2m_collections").fetchall()}
    assert (f"side{owner}" in names) == (state.side is not None), (owner, state.done, names)
    if state.side is not None:
        name = f"side{owner}"
        assert con.collection(name).count() == state.side
    assert (f"book{owner}" in names) == (state.book is not None), (owner, state.done, names)
    if state.book is not None:
        state.book.check(con)
    indexes = {name for (name,) in con.execute("SELECT name FROM m2m_indexes").fetchall()}
    assert (f"extra{owner}" in indexes) == state.has_index, (owner, state.done, indexes)


def _difference(rows: dict[str, Any], wanted: dict[str, Any], state: State) -> str:
    missing = sorted(set(wanted) - set(rows))
    extra = sorted(set(rows) - set(wanted))
    changed = [key for key in rows if key in wanted and rows[key] != wanted[key]]
    return (
        f"owner {state.owner} after {state.done} operations: missing {missing[:5]} of "
        f"{len(missing)}, too many {extra[:5]} of {len(extra)}, different {changed[:5]}"
    )


def check_indexes(con: m2mdb.Connection, states: list[State], rng: Random) -> None:
    """Text, vectors, the unique key and the B-tree index say what the rows say."""
    everything = [
        (state.owner, key, version) for state in states for key, version in state.rows.items()
    ]
    wanted = rng.randrange(WORDS)
    hits = con.execute("SEARCH notes MATCH ? K 100000 RETURNING id", (f"word{wanted}",)).fetchall()
    expected = {f"{owner}-{key}" for owner, key, _ in everything if key % WORDS == wanted}
    assert {id_ for (id_,) in hits} == expected and len(hits) == len(expected), wanted
    value = rng.randrange(NUMBERS)
    found = con.execute("SELECT id FROM notes WHERE number = ?", (value,)).fetchall()
    expected = {f"{owner}-{key}" for owner, key, v in everything if number(key, v) == value}
    assert {id_ for (id_,) in found} == expected and len(found) == len(expected), value
    if not everything:
        return
    owner, key, version = rng.choice(everything)
    tag = f"t{owner}-{key}-{version}"
    found = con.execute("SELECT id FROM notes WHERE tag = ?", (tag,)).fetchall()
    assert [tuple(each) for each in found] == [(f"{owner}-{key}",)], tag
    query = np.array(vector(owner, key, version), np.float32)
    matrix = np.array([vector(*each) for each in everything], np.float32)
    nearest = np.sort(np.sqrt(((matrix - query) ** 2).sum(axis=1)))[:5]
    hits = con.execute("SEARCH notes NEAR ? K 5 RETURNING id, distance", (query,)).fetchall()
    assert np.allclose([distance for _, distance in hits], nearest, atol=1e-3), (tag, hits)


def check_integrity(con: m2mdb.Connection) -> None:
    found = [line for (line,) in con.execute("PRAGMA integrity_check").fetchall()]
    assert found == ["ok"], found
