"""The database against a dict, brute force and a naive text search, step by step, with reopens.

Thresholds are lowered so that flushes, merges and bulk paths happen within a few rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from m2mdb.index.collection import CollectionView
from m2mdb.index.database import Database
from m2mdb.index.integrity import check
from m2mdb.index.query_vectors import check_query_vector
from m2mdb.index.schema import CollectionSchema, Column, IndexInfo
from m2mdb.index.text.match_query import parse_match
from m2mdb.pager.errors import IntegrityError
from m2mdb.pager.memory_vfs import MemoryVfs
from m2mdb.wal.store import StoreOptions
from tests.thresholds import small_thresholds

DIMENSION = 5
WORDS = ("red", "green", "blue", "dark", "light", "mode")
Row = tuple[str, int | None, np.ndarray | None]

keys = st.integers(0, 40).map(lambda n: f"k{n}")
texts = st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join)
numbers = st.none() | st.integers(-5, 5)
vectors = st.none() | st.integers(0, 30).map(
    lambda seed: np.random.default_rng(seed).standard_normal(DIMENSION).astype(np.float32)
)
rows = st.tuples(texts, numbers, vectors)


@pytest.fixture(autouse=True)
def small() -> Iterator[None]:
    with small_thresholds():
        yield


def rowids_of(view: CollectionView, keys: list[str]) -> list[int]:
    """Of rows that are there."""
    found = [rowid for key in keys if (rowid := view.find(0, key)) is not None]
    assert len(found) == len(keys)
    return found


def make_schema() -> CollectionSchema:
    return CollectionSchema(
        "notes",
        (
            Column("id", "TEXT", primary_key=True),
            Column("body", "TEXT", fulltext={}),
            Column("n", "INTEGER"),
            Column("e", "VECTOR", dimension=DIMENSION),
        ),
    )


class DatabaseAgreesWithDict(RuleBasedStateMachine):
    @initialize()
    def create(self) -> None:
        self.vfs = MemoryVfs()
        self.database = self.open()
        with self.database.writing() as write:
            write.create_collection(make_schema())
            write.create_index("notes", IndexInfo("by_n", "n"))
        self.model: dict[str, Row] = {}
        self.stack: list[dict[str, Row]] = []

    def open(self) -> Database:
        options = StoreOptions(create=True)
        return Database.open(self.vfs, "m.m2m", options, compute="numpy", autocommit=True)

    def teardown(self) -> None:
        if hasattr(self, "database"):
            self.database.close()

    # --------------------------------------------------------------- rules

    @rule(batch=st.dictionaries(keys, rows, min_size=1, max_size=9), mode=st.sampled_from(
        ["error", "ignore", "replace"]))  # fmt: skip
    def insert(self, batch: dict[str, Row], mode: str) -> None:
        columns: dict[str, Any] = {
            "id": list(batch),
            "body": [row[0] for row in batch.values()],
            "n": [row[1] for row in batch.values()],
            "e": [row[2] for row in batch.values()],
        }
        clash = any(key in self.model for key in batch)
        if mode == "error" and clash:
            with pytest.raises(IntegrityError), self.database.writing() as write:
                write.insert("notes", columns, len(batch), mode)
            return
        with self.database.writing() as write:
            rowids = write.insert("notes", columns, len(batch), mode)
        for (key, row), rowid in zip(batch.items(), rowids.tolist(), strict=True):
            assert (rowid == -1) == (mode == "ignore" and key in self.model)
            if mode == "replace" or key not in self.model:
                self.model[key] = row

    @rule(chosen=st.sets(keys, max_size=9), number=numbers, vector=vectors)
    def update(self, chosen: set[str], number: int | None, vector: np.ndarray | None) -> None:
        there = [key for key in sorted(chosen) if key in self.model]
        with self.database.writing() as write:
            view = write.collection("notes")
            rowids = rowids_of(view, there)
            values = {"n": [number] * len(there), "e": [vector] * len(there)}
            assert write.update("notes", rowids, values) == len(there)
        for key in there:
            self.model[key] = (self.model[key][0], number, vector)

    @rule(chosen=st.sets(keys, max_size=9))
    def delete(self, chosen: set[str]) -> None:
        there = [key for key in sorted(chosen) if key in self.model]
        with self.database.writing() as write:
            view = write.collection("notes")
            assert write.delete("notes", rowids_of(view, there)) == len(there)
        for key in there:
            del self.model[key]

    @precondition(lambda self: not self.stack)
    @rule()
    def begin(self) -> None:
        self.database.begin()
        self.stack.append(dict(self.model))

    @precondition(lambda self: 1 <= len(self.stack) < 4)
    @rule()
    def savepoint(self) -> None:
        self.database.savepoint(f"s{len(self.stack)}")
        self.stack.append(dict(self.model))

    @precondition(lambda self: len(self.stack) > 1)
    @rule()
    def rollback_to(self) -> None:
        self.database.rollback_to(f"s{len(self.stack) - 1}")
        self.model = dict(self.stack[-1])

    @precondition(lambda self: len(self.stack) > 1)
    @rule()
    def release(self) -> None:
        self.stack.pop()
        self.database.release(f"s{len(self.stack)}")

    @precondition(lambda self: self.stack)
    @rule(keep=st.booleans())
    def finish(self, keep: bool) -> None:
        if keep:
            self.database.commit()
        else:
            self.database.rollback()
            self.model = self.stack[0]
        self.stack = []

    @precondition(lambda self: not self.stack)
    @rule(checkpoint=st.booleans())
    def reopen(self, checkpoint: bool) -> None:
        if checkpoint:
            self.database.checkpoint("truncate")
        self.database.close()
        self.database = self.open()

    # --------------------------------------------------------------- what must hold

    @invariant()
    def rows_are_the_same(self) -> None:
        if not hasattr(self, "database"):
            return
        with self.database.reading() as view:
            notes = view.collection("notes")
            assert notes.count() == len(self.model)
            for number in range(41):
                key = f"k{number}"
                rowid = notes.find(0, key)
                assert (rowid is not None) == (key in self.model)
                if rowid is not None:
                    place = notes.place(rowid)
                    assert place is not None
                    found = notes.row(place, (0, 1, 2, 3))
                    assert found[:3] == (key, *self.model[key][:2])
                    stored, given = found[3], self.model[key][2]
                    assert (stored is None) == (given is None)
                    assert given is None or np.array_equal(stored, given)

    @invariant()
    def searches_are_the_same(self) -> None:
        if not hasattr(self, "database"):
            return
        with self.database.reading() as view:
            notes = view.collection("notes")
            ids = {notes.find(0, key): key for key in self.model}
            query = check_query_vector(notes.schema.columns[3], np.ones(DIMENSION), "notes")
            found = notes.nearest(3, query, 4, self.database.kernels)
            cosines = {
                rowid: float(np.dot(v, query) / np.linalg.norm(v) / np.linalg.norm(query))
                for rowid, key in ids.items()
                if (v := self.model[key][2]) is not None
            }
            best = sorted(cosines, key=lambda r: (-round(cosines[r], 5), r))[:4]
            assert np.allclose(found.scores, [cosines[r] for r in best], atol=1e-5)
            matching = {r for r, key in ids.items() if "dark" in self.model[key][0].split()}
            hits = notes.match(parse_match("dark"), 100)
            assert set(hits.rowids.tolist()) == matching
            low = notes.index_rowids(2, 2, None)
            assert low is not None
            expected = {r for r, key in ids.items() if (self.model[key][1] or 0) >= 2}
            assert set(low.tolist()) == expected

    @precondition(lambda self: not self.stack)
    @rule()
    def integrity(self) -> None:
        with self.database.reading() as view:
            assert check(view) == []


TestDatabaseAgreesWithDict = DatabaseAgreesWithDict.TestCase
TestDatabaseAgreesWithDict.settings = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
TestDatabaseAgreesWithDict = pytest.mark.usefixtures("small")(TestDatabaseAgreesWithDict)
