"""A random history of one collection, kept twice: by the database and as a list of dicts.

`History(seed)` derives everything from its seed. `step()` runs one transaction, or upkeep, and
notes what the rows are right after its commit; `check(commit)` compares what AS OF says of a
commit with that: rows, predicates, keys, order, counts, vectors by brute force, texts by a naive
BM25 over the rows of that commit alone.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from m2mdb.index import maintenance
from m2mdb.index.database import Database
from m2mdb.index.integrity import check as integrity_check
from m2mdb.pager.errors import OperationalError, ProgrammingError
from m2mdb.pager.memory_vfs import MemoryVfs
from m2mdb.pager.sim_vfs import SimVfs
from m2mdb.pager.vfs import Vfs
from m2mdb.query.executor import execute
from m2mdb.wal.store import StoreOptions
from tests import thresholds

DIMENSION = 4
WORDS = ("red", "green", "blue", "dark", "light", "mode")
K1, B = 1.2, 0.75
Row = tuple[int | None, str | None, tuple[float, ...] | None]  # n, body, e
Rows = dict[Any, Row]
small_thresholds = partial(thresholds.small_thresholds, tier_base=4)


class History:
    """One database and what it has been."""

    def __init__(
        self, seed: int, *, keep: int = 12, key: str = "TEXT PRIMARY KEY", vfs: Vfs | None = None
    ) -> None:
        self.seed = seed
        self.random = np.random.default_rng(seed)
        self.is_text = key.startswith("TEXT")
        self.vfs = vfs or MemoryVfs()
        self.database = self.open()
        self.keep = keep
        self.known: dict[int, Rows] = {}
        self.acknowledged: list[tuple[int, int]] = []  # I/O points, and the commit that they keep
        self.rows: Rows = {}
        self.quiet: set[int] = set()  # commits that do not count for keep_commits
        self.done = "create"
        self.sql(
            f"CREATE COLLECTION notes (id {key}, n INTEGER, body TEXT FULLTEXT, "
            f"e VECTOR({DIMENSION}))"
        )
        self.sql("CREATE INDEX by_n ON notes (n)")
        self.sql(f"PRAGMA keep_commits = {keep}")
        self.floors = [self.commit]  # nothing before these is known when they are there
        self.note()

    def moved_to(self, vfs: Vfs) -> History:
        """The same history, going on with what a crash has left on another machine."""
        other = object.__new__(History)
        other.__dict__.update(self.__dict__)
        other.random = np.random.default_rng(self.seed + 1)
        other.vfs = vfs
        other.done = "crash"
        other.database = other.open()
        newest = other.commit
        other.floors = [commit for commit in self.floors if commit <= newest]
        other.quiet = {commit for commit in self.quiet if commit <= newest}
        other.acknowledged = []
        other.known = {number: rows for number, rows in self.known.items() if number <= newest}
        other.rows = dict(other.expected(newest))
        return other

    def open(self) -> Database:
        options = StoreOptions(create=True)
        return Database.open(self.vfs, "d/h.m2m", options, compute="numpy", autocommit=True)

    def sql(self, statement: str, parameters: Any = ()) -> list[tuple[Any, ...]]:
        return execute(self.database, statement, parameters).rows

    @property
    def commit(self) -> int:
        with self.database.reading() as view:
            return view.commit

    @property
    def oldest(self) -> int:
        with self.database.reading() as view:
            return view.oldest_commit("notes")

    def reach(self, newest: int) -> int:
        """The oldest commit that keep_commits lets AS OF name."""
        commit, left = newest, self.keep
        while self.keep:
            while commit in self.quiet:
                commit -= 1
            if not left:
                break
            commit, left = commit - 1, left - 1
        return commit

    def note(self) -> None:
        """The rows are these from the newest commit on; a crash from here on keeps it."""
        self.known[self.commit] = dict(self.rows)
        if isinstance(self.vfs, SimVfs):
            self.acknowledged.append((self.vfs.io_points, self.commit))

    def expected(self, commit: int) -> Rows:
        """The rows right after a commit; upkeep commits too, and changes none."""
        return self.known[max(number for number in self.known if number <= commit)]

    # --------------------------------------------------------------- values

    def chance(self, probability: float) -> bool:
        return bool(self.random.random() < probability)

    def key(self) -> Any:
        number = int(self.random.integers(0, 24))
        return f"k{number:02}" if self.is_text else number

    def row(self) -> Row:
        n = None if self.chance(0.1) else int(self.random.integers(-5, 6))
        words = self.random.choice(WORDS, int(self.random.integers(0, 5))).tolist()
        body = None if self.chance(0.1) else " ".join(words)
        vector = tuple(self.random.standard_normal(DIMENSION).astype(np.float32).tolist())
        return n, body, None if self.chance(0.15) else vector

    def some_keys(self, most: int) -> list[Any]:
        """Keys that are there."""
        keys = sorted(self.rows)
        count = min(len(keys), int(self.random.integers(1, most + 1)))
        return [keys[i] for i in self.random.choice(len(keys), count, False)] if keys else []

    # --------------------------------------------------------------- statements

    def insert(self) -> None:
        verb = "INSERT OR REPLACE" if self.chance(0.5) else "INSERT OR IGNORE"
        batch = {self.key(): self.row() for _ in range(int(self.random.choice([1, 2, 3, 9])))}
        places = ", ".join(["(?, ?, ?, ?)"] * len(batch))
        values = [each for key, row in batch.items() for each in (key, *map(bound, row))]
        self.sql(f"{verb} INTO notes VALUES {places}", values)
        for key, row in batch.items():
            if verb.endswith("REPLACE") or key not in self.rows:
                self.rows[key] = row

    def update(self) -> None:
        n, body, vector = self.row()
        keys = self.some_keys(9)
        self.sql(
            "UPDATE notes SET n = ?, body = ?, e = ? WHERE id IN ?",
            (n, body, bound(vector), keys),
        )
        self.rows.update(dict.fromkeys(keys, (n, body, vector)))

    def move_key(self) -> None:
        """A row gets another primary key."""
        new = self.key()
        for old in self.some_keys(1):
            if new not in self.rows:
                self.sql("UPDATE notes SET id = ? WHERE id = ?", (new, old))
                self.rows[new] = self.rows.pop(old)

    def delete(self) -> None:
        keys = self.some_keys(int(self.random.choice([1, 2, 8, 24])))
        self.sql("DELETE FROM notes WHERE id IN ?", (keys,))
        for key in keys:
            del self.rows[key]

    def change(self) -> None:
        """One statement."""
        changes = (self.insert, self.insert, self.update, self.move_key, self.delete)
        changes[self.random.integers(len(changes))]()

    # --------------------------------------------------------------- steps

    def step(self) -> None:
        """One transaction or one piece of upkeep, committed."""
        steps = (self.one, self.several, self.undone, self.upkeep, self.forget)
        chosen = steps[self.random.choice(len(steps), p=[0.58, 0.15, 0.1, 0.15, 0.02])]
        self.done = chosen.__name__
        before = self.commit + (chosen == self.forget)
        chosen()
        if chosen == self.forget or (chosen == self.upkeep and self.done != "flush"):
            self.quiet.update(range(before + 1, self.commit + 1))
        elif self.commit > before + 1:  # behind it a scrub that a crash had stopped
            self.known[before + 1] = dict(self.rows)
            self.quiet.update(range(before + 2, self.commit + 1))
        self.note()

    def one(self) -> None:
        self.change()

    def several(self) -> None:
        """A transaction with savepoints; what it reads AS OF is what others read."""
        before, commit = dict(self.rows), self.commit
        self.sql("BEGIN")
        for _ in range(int(self.random.integers(1, 4))):
            self.change()
            self.sql("SAVEPOINT s")
            kept = dict(self.rows)
            self.change()
            if self.chance(0.5):
                self.sql("ROLLBACK TO s")
                self.rows = kept
            self.sql("RELEASE s")
        if self.keep:
            self.compare(commit, before)
        self.sql("COMMIT")

    def undone(self) -> None:
        before = dict(self.rows)
        self.sql("BEGIN")
        self.change()
        self.change()
        self.sql("ROLLBACK")
        self.rows = before

    def forget(self) -> None:
        """Rows go for ever, and so does what was before."""
        keys = self.some_keys(3)
        before = self.commit
        self.sql("FORGET FROM notes WHERE id IN ?", (keys,))
        for key in keys:
            del self.rows[key]
        self.known[before + 1] = dict(self.rows)
        if self.keep:
            self.floors.append(before + 1)

    def upkeep(self) -> None:
        what = self.random.choice(["OPTIMIZE", "CHECKPOINT truncate", "reopen", "flush", "VACUUM"])
        self.done = str(what)
        if what == "reopen":
            self.database.close()
            self.database = self.open()
        elif what == "flush":
            with self.database.writing() as write:
                maintenance.flush(write, write.collection("notes"))
        else:
            self.sql(str(what))

    # --------------------------------------------------------------- comparing

    def check(self) -> None:
        """Every commit that is kept, those just out of reach, the present and the file."""
        newest, oldest = self.commit, self.oldest
        floors = [commit for commit in self.floors if commit <= newest]
        assert oldest == max(self.reach(newest), *floors), self.why(newest)
        for commit in range(oldest, newest + 1):
            self.compare(commit, self.expected(commit))
        for commit, error in ((oldest - 1, OperationalError), (newest + 1, ProgrammingError)):
            try:
                self.sql("SELECT * FROM notes AS OF ?", (commit,))
            except error:
                continue
            raise AssertionError(f"{self.why(commit)}: could be read")
        found = self.sql("SELECT id, n, body FROM notes ORDER BY id")
        assert found == [(key, *self.rows[key][:2]) for key in sorted(self.rows)], self.why(-1)
        with self.database.reading() as view:
            assert integrity_check(view) == [], self.why(newest)

    def why(self, commit: int) -> str:
        return f"History({self.seed}), after {self.done}, AS OF {commit}"

    def compare(self, commit: int, rows: Rows) -> None:
        """What AS OF a commit gives, against the rows that there were."""
        why = self.why(commit)
        everything = self.sql("SELECT id, n, body, e FROM notes AS OF ? ORDER BY id", (commit,))
        assert len(everything) == len(rows), why
        for (key, n, body, e), wanted in zip(everything, sorted(rows), strict=True):
            assert (key, n, body) == (wanted, *rows[wanted][:2]), why
            assert (None if e is None else tuple(e.tolist())) == rows[wanted][2], why
        assert self.sql("SELECT count(*) FROM notes AS OF ?", (commit,)) == [(len(rows),)], why
        bound = int(self.random.integers(-5, 6))
        found = self.sql(
            "SELECT id, n FROM notes AS OF ? WHERE n >= ? ORDER BY n DESC, id", (commit, bound)
        )
        numbers = [(key, row[0]) for key, row in rows.items()]
        passing = [(key, n) for key, n in numbers if n is not None and n >= bound]
        assert found == sorted(passing, key=lambda each: (-each[1], each[0])), why
        for key in (self.key(), self.key()):
            found = self.sql("SELECT id, n FROM notes AS OF ? WHERE id = ?", (commit, key))
            assert found == ([(key, rows[key][0])] if key in rows else []), why
        self._compare_near(commit, rows, bound, why)
        self._compare_match(commit, rows, why)

    def _compare_near(self, commit: int, rows: Rows, bound: int, why: str) -> None:
        query = self.random.standard_normal(DIMENSION).astype(np.float32)
        scores = {}
        for key, (n, _, vector) in rows.items():
            if vector is not None and n is not None and n >= bound:
                array = np.array(vector)
                lengths = np.linalg.norm(array) * np.linalg.norm(query)
                scores[key] = float(array @ query / lengths)
        found = self.sql(
            "SEARCH notes NEAR ? WHERE n >= ? K 4 EXACT AS OF ? RETURNING id, score",
            (query, bound, commit),
        )
        best = sorted(scores, key=lambda key: -scores[key])[:4]
        assert np.allclose([s for _, s in found], [scores[key] for key in best], atol=1e-6), why
        assert all(abs(scores[key] - score) < 1e-6 for key, score in found), why

    def _compare_match(self, commit: int, rows: Rows, why: str) -> None:
        terms = self.random.choice(WORDS, 2, False).tolist()
        found = self.sql(
            "SEARCH notes MATCH ? K 100 AS OF ? RETURNING id, score", (" ".join(terms), commit)
        )
        wanted = naive_bm25({key: row[1] for key, row in rows.items()}, terms)
        assert dict(found).keys() == wanted.keys(), why
        assert all(math.isclose(wanted[key], score, rel_tol=1e-5) for key, score in found), why
        scores = [score for _, score in found]
        assert scores == sorted(scores, reverse=True), why


def bound(value: Any) -> Any:
    """A value as a statement takes it."""
    return list(value) if isinstance(value, tuple) else value


def naive_bm25(bodies: dict[Any, str | None], terms: list[str]) -> dict[Any, float]:
    """Lucene's BM25 over these texts and no others."""
    texts = {key: body.split() for key, body in bodies.items() if body is not None}
    average = sum(map(len, texts.values())) / max(1, len(texts)) or 1.0
    scores: dict[Any, float] = {}
    for term in terms:
        count = sum(term in words for words in texts.values())
        weight = math.log(1 + (len(texts) - count + 0.5) / (count + 0.5))
        for key, words in texts.items():
            often = words.count(term)
            if often:
                norm = K1 * (1 - B + B * len(words) / average)
                scores[key] = scores.get(key, 0.0) + weight * often / (often + norm)
    return scores
