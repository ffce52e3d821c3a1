"""`integrity_check` finds what it says it finds: structures that disagree with the rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from m2mdb.index.database import Database
from m2mdb.index.integrity import check
from m2mdb.index.keys import index_key
from m2mdb.index.schema import CollectionSchema, Column, IndexInfo
from m2mdb.index.view import WriteView
from m2mdb.pager.btree import BTree
from m2mdb.pager.errors import DatabaseError
from m2mdb.pager.os_vfs import OsVfs
from m2mdb.wal.store import StoreOptions

Opener = Callable[[], Database]
COLUMNS = (
    Column("id", "TEXT", primary_key=True),
    Column("body", "TEXT", fulltext={}),
    Column("n", "INTEGER"),
    Column("v", "VECTOR", dimension=4),
)


def fill(database: Database, count: int = 600) -> None:
    with database.writing() as write:
        write.create_collection(CollectionSchema("notes", COLUMNS))
        write.create_index("notes", IndexInfo("by_n", "n"))
    for start, stop in ((0, count), (count, count + 20)):
        columns: dict[str, Any] = {
            "id": [f"k{i}" for i in range(start, stop)],
            "body": [f"word{i % 7} common" for i in range(start, stop)],
            "n": list(range(start, stop)),
            "v": np.random.default_rng(start).standard_normal((stop - start, 4)),
        }
        with database.writing() as write:
            write.insert("notes", columns, stop - start)


def drop_entry(write: WriteView) -> None:
    info = write.collection("notes").schema.indexes[0]
    BTree(write.transaction, info.root).delete(index_key(5, 6))


def add_entry(write: WriteView) -> None:
    info = write.collection("notes").schema.indexes[0]
    BTree(write.transaction, info.root).put(index_key(5, 99), b"")


def forget_deletions(write: WriteView) -> None:
    view = write.collection("notes")
    entry = view.entry.copy()
    record = entry.records[1].copy()
    record.deleted = 3
    record.version += 1
    entry.records[1] = record
    entry.dead.clear()
    write.replace_entry(view, entry, [record])


def leak_a_page(write: WriteView) -> None:
    from m2mdb.pager.page import Leaf

    write.transaction.put(write.transaction.allocate(), Leaf([], []))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop_entry, "index by_n: 0 entries without a row, 1 rows without an entry"),
        (add_entry, "index by_n: 1 entries without a row, 0 rows without an entry"),
        (forget_deletions, "deletions of segment 1: 0 rows, the record says 3"),
        (leak_a_page, "is neither used nor free"),
    ],
)
def test_a_disagreement_is_found(
    reopen: Opener, damage: Callable[[WriteView], None], message: str
) -> None:
    database = reopen()
    fill(database)
    with database.writing() as write:
        damage(write)

    with database.reading() as view:
        faults = check(view)

    assert any(message in fault for fault in faults), faults


def test_an_open_transaction_is_checked_as_it_will_be_committed(reopen: Opener) -> None:
    database = reopen()
    fill(database)
    database.begin()
    for step in range(4):
        with database.writing() as write:
            write.drop_collection("notes") if step % 2 == 0 else None
        if step % 2:
            fill(database)
        with database.reading() as view:
            assert check(view) == []
    database.commit()

    with database.reading() as view:
        assert check(view) == []


def test_every_flipped_bit_of_a_closed_file_is_found_or_changes_nothing(tmp_path: Any) -> None:
    path = str(tmp_path / "m.m2m")
    database = open_file(path)
    fill(database, 520)
    database.close()
    good = (tmp_path / "m.m2m").read_bytes()
    rng = np.random.default_rng(7)
    offsets = np.unique(np.concatenate([rng.integers(0, len(good), 120), np.arange(0, 200, 9)]))

    for offset in offsets.tolist():
        raw = bytearray(good)
        raw[offset] ^= 1 << int(rng.integers(0, 8))
        (tmp_path / "m.m2m").write_bytes(raw)

        if faults_of(path):
            continue
        assert 1024 <= offset < 4096, f"the flip at byte {offset} was not found"


def open_file(path: str) -> Database:
    return Database.open(OsVfs(), path, StoreOptions(create=True), compute="numpy", autocommit=True)


def faults_of(path: str) -> list[str]:
    try:
        database = open_file(path)
    except DatabaseError as problem:
        return [str(problem)]
    try:
        with database.reading() as view:
            return check(view)
    except DatabaseError as problem:
        return [str(problem)]
    finally:
        database.close()
