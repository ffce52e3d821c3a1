"""A small database on a simulated machine, what is forgotten in it, and what may be left."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import NamedTuple

import numpy as np

from m2mdb.index import scrubbing
from m2mdb.index.collection import CollectionView
from m2mdb.index.database import Database
from m2mdb.index.integrity import check
from m2mdb.index.schema import CollectionSchema, Column, IndexInfo
from m2mdb.index.view import View
from m2mdb.pager.sim_vfs import SimVfs
from m2mdb.wal.store import StoreOptions
from tests.forget.traces import (
    Needles,
    assert_gone,
    files_of,
    number_needles,
    text_needles,
    traces,
    vector_needles,
)

PATH = "d/notes.m2m"
DIMENSION = 8
COLUMNS = (
    Column("id", "TEXT", primary_key=True),
    Column("body", "TEXT", fulltext={}),
    Column("n", "INTEGER"),
    Column("v", "VECTOR", dimension=DIMENSION),
)
COUNT = 24
UNTOUCHED = 7  # is there whatever happens


def open_database(vfs: SimVfs, synchronous: str = "full") -> Database:
    options = StoreOptions(create=True, timeout=0.01, synchronous=synchronous)
    return Database.open(vfs, PATH, options, compute="numpy", autocommit=True)


def word(number: int, what: str) -> str:
    rng = Random(f"{number} {what}")
    return what + "".join(rng.choices("bcdfghjkmnpqrstvwxz", k=10))


def columns(numbers: list[int], version: str = "body") -> dict[str, list[object]]:
    return {
        "id": [word(number, "id") for number in numbers],
        "body": [f"common {word(number, version)}" for number in numbers],
        "n": [Random(f"{number} {version} n").getrandbits(60) | 1 << 60 for number in numbers],
        "v": [vector(number) for number in numbers],
    }


def vector(number: int) -> np.ndarray:
    return np.random.default_rng(number).standard_normal(DIMENSION).astype(np.float32)


def needles(numbers: list[int]) -> Needles:
    found: Needles = {}
    for number in numbers:
        for version in ("body", "newer"):
            found |= text_needles(word(number, version))
            found |= number_needles(Random(f"{number} {version} n").getrandbits(60) | 1 << 60)
        found |= text_needles(word(number, "id")) | vector_needles(vector(number), "f4")
    return found


def filled(vfs: SimVfs, synchronous: str = "full") -> Database:
    """Rows of a segment and of the delta, some of them with older versions."""
    database = open_database(vfs, synchronous)
    with database.writing() as write:
        write.create_collection(CollectionSchema("notes", COLUMNS))
        write.create_index("notes", IndexInfo("by_n", "n"))
    bulk, single = list(range(16)), list(range(16, COUNT))
    with database.writing() as write:
        write.insert("notes", columns(bulk), len(bulk))
    for number in single:
        with database.writing() as write:
            write.insert("notes", columns([number]), 1)
    for number in (2, 3, 18):
        update(database, number)
    with database.writing() as write:
        write.delete("notes", [rowid(write, 5)])
    return database


def rowid(view: View, number: int) -> int:
    found = view.collection("notes").find(0, word(number, "id"))
    assert found is not None
    return int(found)


def update(database: Database, number: int) -> None:
    values = columns([number], "newer")
    del values["id"]
    with database.writing() as write:
        write.update("notes", [rowid(write, number)], values)


def forget(database: Database, numbers: list[int]) -> int:
    """One statement, and so one transaction; returns the receipt's number."""
    with database.writing() as write:
        return write.forget("notes", [rowid(write, number) for number in numbers])


def ids(database: Database) -> set[str]:
    with database.reading() as view:
        collection = view.collection("notes")
        found = {collection.row(place, [0])[0] for place in places(collection)}
        assert not check(view)
    return found


def places(collection: CollectionView) -> Iterator[tuple[int, int]]:
    for rowids in collection.live_rowids():
        for each in rowids.tolist():
            place = collection.place(each)
            assert place is not None
            yield place


def statuses(database: Database) -> list[str]:
    with database.reading() as view:
        return [each.status for each in scrubbing.receipts(view)]


class Case(NamedTuple):
    """Which rows a script forgets, and what may be left."""

    gone: list[int]

    @property
    def before(self) -> set[str]:
        return {word(number, "id") for number in range(COUNT) if number not in DELETED}

    @property
    def after(self) -> set[str]:
        return self.before - {word(number, "id") for number in self.gone}

    @property
    def needles(self) -> Needles:
        return needles(self.gone + DELETED)


DELETED = [5]  # before, by DELETE: it goes with those that are forgotten
GONE = [2, 4, 18, 20]  # of the segment and of the delta, with older versions and without
CASE = Case(GONE)
BEFORE, AFTER = CASE.before, CASE.after


def settle(vfs: SimVfs, where: object, case: Case = CASE) -> None:
    """Open what a crash has left: the rows are those before or after, and then the bytes are."""
    database = open_database(vfs)
    found = ids(database)
    assert found in (case.before, case.after), (where, len(found))
    database.checkpoint("truncate")
    assert ids(database) == found, where
    if found == case.after:
        assert statuses(database) == ["done"], where
        assert_gone(files_of(vfs), case.needles)
    else:
        assert statuses(database) == [], where
        assert traces(files_of(vfs), needles(case.gone)), where
    update(database, UNTOUCHED)
    assert found == case.before or not traces(files_of(vfs), case.needles), where
    database.close()
