"""S12: an interrupt at any line of a statement, a commit or a rollback leaves all or nothing.

After each strike the connection goes on, another one can write at once, and what is stored is the
state before the operation or after it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from m2mdb.index import delta, maintenance, writer
from m2mdb.index.database import Database
from m2mdb.index.integrity import check
from m2mdb.index.schema import CollectionSchema, Column
from m2mdb.pager.sim_vfs import SimVfs
from m2mdb.wal.store import StoreOptions

STRUCK = ("/wal/transaction", "/wal/commit", "index/database", "index/view", "index/writer",
          "index/maintenance", "index/delta", "pager/freespace")  # fmt: skip
STEP = 5  # every fifth line is struck; the sweep of all takes minutes
Rows = set[int]


class Strike:
    """Raises KeyboardInterrupt at the n-th line that runs in the struck modules."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.count = 0
        self.where = ""

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        name = frame.f_code.co_filename
        if frame.f_code.co_name == "__del__" or not any(part in name for part in STRUCK):
            return None
        if event == "line":
            self.count += 1
            if self.count == self.at:
                self.where = f"{name}:{frame.f_lineno}"
                raise KeyboardInterrupt
        return self


def open_database(vfs: SimVfs, autocommit: bool) -> Database:
    options = StoreOptions(create=True, timeout=0.01)
    return Database.open(vfs, "d/n.m2m", options, autocommit=autocommit, compute="numpy")


def insert(database: Database, ids: range | list[int]) -> None:
    with database.writing() as write:
        columns = {"id": list(ids), "t": [f"x{i}" for i in ids]}
        write.insert("c", columns, len(ids))


def rows_of(database: Database) -> Rows:
    with database.reading() as view:
        collection = view.collection("c")
        return {i for i in range(1, 120) if collection.place(i) is not None}


def one_statement(database: Database) -> None:
    insert(database, [5])


def statements_and_commit(database: Database) -> None:
    insert(database, [5])
    with database.writing() as write:
        write.delete("c", [10])
    database.commit()


def bulk_and_commit(database: Database) -> None:
    insert(database, range(30, 37))
    database.commit()


def savepoints(database: Database) -> None:
    insert(database, [5])
    database.savepoint("s")
    insert(database, range(30, 37))
    database.rollback_to("s")
    insert(database, [6])
    database.commit()


@pytest.mark.parametrize(
    ("operation", "autocommit", "after"),
    [
        (one_statement, True, {5}),
        (statements_and_commit, False, {5, -10}),
        (bulk_and_commit, False, set(range(30, 37))),
        (savepoints, False, {5, 6}),
    ],
)
def test_an_interrupt_leaves_all_or_nothing(
    operation: Callable[[Database], None],
    autocommit: bool,
    after: Rows,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(delta, "FLUSH_ROWS", 7)
    monkeypatch.setattr(maintenance, "FLUSH_ROWS", 7)
    monkeypatch.setattr(writer, "SEGMENT_ROWS", 5)
    before = {1, 2, 3, *range(10, 16)}
    done = {row for row in before | after if row > 0 and -row not in after}
    at = 1
    while strike(operation, autocommit, at, before, done):
        at += STEP
    assert at > 100


def strike(
    operation: Callable[[Database], None], autocommit: bool, at: int, before: Rows, done: Rows
) -> bool:
    vfs = SimVfs(3)
    database = open_database(vfs.fork_process(), True)
    with database.writing() as write:
        columns = (Column("id", "INTEGER", primary_key=True), Column("t", "TEXT"))
        write.create_collection(CollectionSchema("c", columns))
    insert(database, [1, 2, 3])
    insert(database, range(10, 16))
    database.autocommit = autocommit
    other = open_database(vfs.fork_process(), True)
    trace = Strike(at)
    sys.settrace(trace)
    try:
        operation(database)
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)

    database.rollback()
    found = rows_of(database)
    assert found in (before, done), trace.where
    insert(other, [100])
    insert(database, [101])
    database.commit()
    for one in (database, other):
        assert rows_of(one) == found | {100, 101}, trace.where
        with one.reading() as view:
            assert check(view) == [], trace.where
        one.close()
    return bool(trace.where)
