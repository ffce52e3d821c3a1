"""iterdump while other things happen, and deserialize of odd bytes."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

import m2mdb
from m2mdb.pager.memory_vfs import MemoryContent


@pytest.fixture
def db() -> Iterator[m2mdb.Connection]:
    con = m2mdb.connect(":memory:", autocommit=True, compute="numpy")
    con.execute("CREATE COLLECTION n (id INTEGER PRIMARY KEY, t TEXT)")
    con.collection("n").add({"id": list(range(3000)), "t": ["x" * 50] * 3000})
    yield con
    con.close()


@pytest.mark.parametrize(
    "change",
    [
        "DROP COLLECTION n",
        "CREATE COLLECTION other (id INTEGER)",
        "CREATE INDEX by_t ON n (t)",
        "INSERT INTO n VALUES (9999, 'z')",
        "PRAGMA keep_commits = 5",
        "COMMIT",
        "ROLLBACK",
    ],
)
def test_a_dump_in_a_transaction_notices_every_change(db: m2mdb.Connection, change: str) -> None:
    db.execute("BEGIN")
    db.execute("INSERT INTO n VALUES (5000, 'z')")
    dump = db.iterdump()
    next(dump)
    db.execute("SELECT count(*) FROM n")  # no change
    next(dump)

    db.execute(change)
    with pytest.raises(m2mdb.OperationalError, match="the transaction changed"):
        list(dump)
    db.rollback()

    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_threads_share_a_dump(db: m2mdb.Connection) -> None:
    whole = list(db.iterdump())
    dump = db.iterdump()
    parts: list[str] = []
    failures: list[BaseException] = []

    def read() -> None:
        try:
            parts.extend(dump)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert sorted(parts) == sorted(whole)


def test_a_dump_that_is_closed_reads_no_more(db: m2mdb.Connection) -> None:
    dump = db.iterdump()
    next(dump)
    assert db.execute("SELECT readers FROM m2m_stats").fetchall() != [(0,)]
    dump.close()

    assert db.execute("SELECT readers FROM m2m_stats").fetchall() == [(0,)]
    assert list(dump) == []


def test_deserialize_takes_any_view_of_bytes(db: m2mdb.Connection) -> None:
    raw = db.serialize()
    spread = bytearray(2 * len(raw))
    spread[::2] = raw

    db.deserialize(memoryview(spread)[::2])

    assert db.execute("SELECT count(*) FROM n").fetchall() == [(3000,)]


@pytest.mark.parametrize("steps", range(3))
def test_an_interrupt_between_segments_harms_no_file_in_memory(steps: int) -> None:
    content = MemoryContent(1)
    content.write(0, memoryview(b"a" * 100_000))
    capacity = content.capacity
    if steps > 0:  # what an interrupt inside `_add_segment` leaves behind
        content.segments.append(bytearray(10))
    if steps > 1:
        content.starts.append(capacity)

    content.write(capacity - 5, memoryview(b"b" * 300_000))
    content.allocate(content.size, 70_000)

    assert content.read(capacity - 6, 300_002) == b"\0" + b"b" * 300_000 + b"\0"
    assert len(content.starts) == len(content.segments)
    content.truncate(50_000)
    assert content.read(0, 200_000) == b"a" * 50_000
