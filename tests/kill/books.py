"""The newer parts of a collection, each writer's own: `book0`, `book1` …, and their model.

    CREATE COLLECTION book0 (id INTEGER PRIMARY KEY, body TEXT FULLTEXT,
                             e VECTOR(16) FROM body ENCODER 'hashing')

is made, filled, altered (columns added, renamed, dropped), given lists and their drift rows and
relieved of them, copied to a file and read back, and dropped. As in `notes`, an operation follows
from what it is given alone.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

import m2mdb
from m2mdb.compute.hrm2 import calibration
from m2mdb.encoders import built_in
from m2mdb.index import hrm2, list_counts

DIMENSION = 16
FIRST = 400  # rows of a new book: a segment, and enough for lists
MOST = 900
FORMATS = ("jsonl", "csv")
FEW = 12  # queries with which the calibration of lists is content here
COUNTS = (
    "STORED_QUERIES", "MADE_QUERIES", "HALVED_QUERIES", "FREE_QUERIES", "FILTERED_QUERIES",
    "LEAST_QUERIES", "NOISY_QUERIES",
)  # fmt: skip


def make_small() -> None:
    """Segments of a few hundred rows get lists, in a fraction of a second."""
    hrm2.LEAST_ROWS = hrm2.LEAST_MEASURED = 200
    list_counts.LIST_ROWS = 30
    for name in COUNTS:
        if hasattr(calibration, name):
            setattr(calibration, name, FEW)


def _folder(con: m2mdb.Connection) -> Path | None:
    """Where a campaign keeps copies, and removes what a killed process leaves."""
    folder = Path(con.path).parent / "copies"
    return folder if folder.is_dir() else None


def body(owner: int, key: int, version: int) -> str:
    """A row's text; equal ones come again, and are encoded once."""
    return f"page {key % 150} of {owner} in print {version} " + "leaf " * (key % 4)


@dataclass
class Book:
    """One writer's book: each row's version and the columns that ALTER added, by their names."""

    owner: int
    rows: dict[int, int] = field(default_factory=dict)
    added: dict[str, dict[int, int | None]] = field(default_factory=dict)
    next_key: int = 0
    columns: int = 0  # that were added so far, for names that never come again
    has_lists: bool = False

    @property
    def name(self) -> str:
        """The collection's."""
        return f"book{self.owner}"

    def copy(self) -> Book:
        """A book that changes by itself."""
        added = {name: dict(values) for name, values in self.added.items()}
        counts = (self.next_key, self.columns, self.has_lists)
        return Book(self.owner, dict(self.rows), added, *counts)

    def expected(self) -> list[tuple[Any, ...]]:
        """All rows, without the vectors."""
        columns = list(self.added.values())
        return [
            (key, body(self.owner, key, version), *(column[key] for column in columns))
            for key, version in sorted(self.rows.items())
        ]

    # -- operations ----------------------------------------------------------------------------

    def step(self, con: m2mdb.Connection | None, rng: Random) -> None:
        """One operation, in the model and in the database."""
        kinds = [self._grow, self._shrink, self._revise, self._alter, self._lists, self._copy]
        if len(self.rows) > MOST:
            kinds = [self._shrink]
        rng.choice(kinds)(con, rng)

    def begin(self, con: m2mdb.Connection | None) -> None:
        """A new collection with its first rows."""
        if con is not None:
            con.execute(
                f"CREATE COLLECTION {self.name} (id INTEGER PRIMARY KEY, body TEXT FULLTEXT, "
                f"e VECTOR({DIMENSION}) FROM body ENCODER 'hashing')"
            )
        self._add(con, FIRST)

    def _add(self, con: m2mdb.Connection | None, count: int) -> None:
        keys = list(range(self.next_key, self.next_key + count))
        self.next_key += count
        self.rows.update(dict.fromkeys(keys, 0))
        for values in self.added.values():
            values.update(dict.fromkeys(keys, None))
        if con is not None:
            texts = [body(self.owner, key, 0) for key in keys]
            nothing = {name: [None] * count for name in self.added}
            con.collection(self.name).add({"id": keys, "body": texts, **nothing})

    def _grow(self, con: m2mdb.Connection | None, rng: Random) -> None:
        self._add(con, rng.choice((1, 5, 60)))

    def _shrink(self, con: m2mdb.Connection | None, rng: Random) -> None:
        """Rows go: most of a segment, so that its lists are written anew."""
        share, rest = rng.randint(2, 5), rng.randrange(2)
        gone = [key for key in self.rows if key % share == rest]
        for key in gone:
            del self.rows[key]
            for values in self.added.values():
                del values[key]
        if con is not None:
            deleted = con.execute(f"DELETE FROM {self.name} WHERE id % {share} = {rest}").rowcount
            assert deleted == len(gone), (self.owner, deleted, len(gone))

    def _revise(self, con: m2mdb.Connection | None, rng: Random) -> None:
        """Texts and what was added change: vectors with them."""
        for key in rng.sample(sorted(self.rows), min(len(self.rows), 4)):
            self.rows[key] += 1
            names = list(self.added)
            for name in names:
                self.added[name][key] = self.rows[key]
            changed: dict[str, Any] = {"body": body(self.owner, key, self.rows[key])}
            changed |= dict.fromkeys(names, self.rows[key])
            if con is not None:
                terms = ", ".join(f"{name} = :{name}" for name in changed)
                con.execute(f"UPDATE {self.name} SET {terms} WHERE id = {key}", changed)

    def _alter(self, con: m2mdb.Connection | None, rng: Random) -> None:
        """A column comes, with a default or NULL for the rows that are there, or another goes."""
        if len(self.added) < 3 and rng.random() < 0.6:
            self.columns += 1
            name, value = f"x{self.columns}", rng.choice((None, self.columns))
            self.added[name] = dict.fromkeys(self.rows, value)
            term = "" if value is None else f" DEFAULT {value}"
            statement = f"ADD COLUMN {name} INTEGER{term}"
        elif not self.added:
            return
        elif rng.random() < 0.5:
            self.columns += 1
            old, name = rng.choice(list(self.added)), f"y{self.columns}"
            self.added = {
                name if each == old else each: values for each, values in self.added.items()
            }
            statement = f"RENAME COLUMN {old} TO {name}"
        else:
            name = rng.choice(list(self.added))
            del self.added[name]
            statement = f"DROP COLUMN {name}"
        if con is not None:
            con.execute(f"ALTER COLLECTION {self.name} {statement}")

    def _lists(self, con: m2mdb.Connection | None, rng: Random) -> None:
        """An index with lists, or none; OPTIMIZE lays them anew."""
        self.has_lists = not self.has_lists
        if con is not None:
            create = f"CREATE INDEX lists{self.owner} ON {self.name} USING hrm2 (e)"
            con.execute(create if self.has_lists else f"DROP INDEX lists{self.owner}")

    def _copy(self, con: m2mdb.Connection | None, rng: Random) -> None:
        """All rows to a file and, when they are gone, back."""
        format, share = rng.choice(FORMATS), rng.randint(1, 3)
        if con is None:
            return
        with tempfile.TemporaryDirectory(prefix=self.name, dir=_folder(con)) as folder:
            path = f"{folder}/rows.{format}"
            con.execute(f"COPY {self.name} TO ?", (path,))
            con.execute(f"DELETE FROM {self.name} WHERE id % {share} = 0")
            con.execute(f"COPY {self.name} FROM ? (on_conflict = ignore)", (path,))

    # -- what must hold ------------------------------------------------------------------------

    def check(self, con: m2mdb.Connection) -> None:
        """Every row with its vector, and what searches by text and by vector find of them."""
        names = ", ".join(["id", "body", *self.added])
        found = con.execute(f"SELECT {names} FROM {self.name} ORDER BY id").fetchall()
        expected = self.expected()
        different = [
            pair for pair in zip(found, expected, strict=False) if tuple(pair[0]) != pair[1]
        ]
        counts = f"owner {self.owner}: {len(found)} rows, expected {len(expected)}"
        assert len(found) == len(expected) and not different, f"{counts}; {different[:2]}"
        if not expected:
            return
        texts = [row[1] for row in expected]
        vectors = con.execute(f"SELECT e FROM {self.name} ORDER BY id").fetchnumpy()["e"]
        encoder = built_in("hashing", DIMENSION)
        assert np.array_equal(vectors, encoder.encode(texts)), self.owner
        key, text = expected[len(expected) // 2][:2]
        search = f"SEARCH {self.name} NEAR ? K 1000 RETURNING id"
        hits = {id_ for (id_,) in con.execute(search, (vectors[len(expected) // 2],)).fetchall()}
        assert hits <= set(self.rows) and key in hits, (self.owner, key, text, len(hits))
        search = f"SEARCH {self.name} MATCH ? K 1000 RETURNING id"
        hits = {id_ for (id_,) in con.execute(search, (f"print {self.rows[key]}",)).fetchall()}
        assert hits <= set(self.rows) and key in hits, (self.owner, key, text)
