"""FORGET stopped at every I/O point, and readers of other processes (S26).

After a crash a row is there as it was, or every byte of it goes with the next checkpoint. What a
receipt calls done, no power loss brings back. `tests/forget/campaign.py` goes on for longer.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from random import Random

import pytest

from m2mdb.index import scrubbing, writer
from m2mdb.index.database import Database
from m2mdb.pager.errors import OperationalError
from m2mdb.pager.sim_vfs import SimVfs
from m2mdb.wal import scrub
from m2mdb.wal.shared import Mark
from m2mdb.wal.store import Store
from tests.forget.scripts import (
    AFTER,
    BEFORE,
    DELETED,
    GONE,
    columns,
    filled,
    forget,
    ids,
    needles,
    open_database,
    settle,
    statuses,
    update,
    word,
)
from tests.forget.traces import assert_gone, files_of, traces
from tests.sim.history import ROUNDS

IMAGES = 2 * ROUNDS  # disks per I/O point
STEP = max(1, 6 // ROUNDS)  # the default round leaves I/O points out


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(writer, "SEGMENT_ROWS", 8)
    yield


@pytest.mark.parametrize("synchronous", ["full", "normal"])
def test_s26_power_loss_at_every_point(synchronous: str) -> None:
    vfs = SimVfs(seed=26)
    database = filled(vfs, synchronous)
    database.checkpoint("full")  # what `normal` may lose is not the subject
    start = vfs.io_points
    forget(database, GONE)
    assert statuses(database) == ["done"]
    end = vfs.io_points
    database.close()

    for point in range(start + len(synchronous) % STEP, vfs.io_points + 1, STEP):
        for image in vfs.crash_images(point, Random(point), IMAGES):
            machine = image.vfs()
            if point >= end:  # done is done, on the disk as it lies there
                assert_gone(files_of(machine), needles(GONE + DELETED))
            settle(machine, image)


def test_s26_power_loss_twice() -> None:
    """And at every point of a recovery and of the scrub that follows it."""
    vfs = SimVfs(seed=27)
    database = filled(vfs)
    start = vfs.io_points
    forget(database, GONE)
    end = vfs.io_points

    for point in range(start, end + 1, 3 * STEP):
        for image in vfs.crash_images(point, Random(point), 1):
            machine = image.vfs()
            settle(machine, image)
            for second_point in range(point % 5, machine.io_points + 1, 5):
                for second in machine.crash_images(second_point, Random(second_point), 1):
                    settle(second.vfs(), (image, second))


def test_s26_death_of_the_process_at_every_point() -> None:
    vfs = SimVfs(seed=28)
    database = filled(vfs)
    start = vfs.io_points
    forget(database, GONE)

    for point in range(start, vfs.io_points + 1, max(1, STEP // 2)):
        settle(vfs.kill_image(point), f"killed at {point}")


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_s26_an_error_at_every_call(error: int) -> None:
    """FORGET fails, or stands with a receipt that is pending until a later moment."""
    counted = SimVfs(seed=29)
    database = filled(counted)
    calls = counted.io_points
    forget(database, GONE)
    calls = counted.io_points - calls
    outcomes = set()
    for number in range(1, calls + 1, STEP):
        vfs = SimVfs(seed=29)
        database = filled(vfs)
        vfs.fail("change", at_call=number, error=error, once=True)
        try:
            forget(database, GONE)
            outcomes.add(statuses(database)[0])
        except OperationalError:
            outcomes.add("failed")
        vfs.clear_faults()
        settle(vfs.process_crash(), f"errno {error} at call {number}")
    assert outcomes == {"failed", "pending", "done"} or outcomes == {"failed", "pending"}


def test_s26_a_reader_in_another_process_is_waited_for() -> None:
    vfs = SimVfs(seed=30)
    database = filled(vfs)
    other = open_database(vfs.fork_process())
    other.begin()
    assert len(ids(other)) == len(BEFORE)

    forget(database, GONE)

    with database.reading() as view:
        (receipt,) = scrubbing.receipts(view)
    assert receipt.status == "pending"
    assert receipt.holders == f"process {other.store.pid} reads commit {other.store.end.commit}"
    database.close()
    assert ids(other) == BEFORE
    other.rollback()
    other.close()
    assert_gone(files_of(vfs), needles(GONE + DELETED))


def test_s26_a_reader_that_was_killed_is_not_waited_for() -> None:
    vfs = SimVfs(seed=31)
    database = filled(vfs)
    reader = vfs.fork_process()
    other = open_database(reader)
    other.begin()
    ids(other)
    forget(database, GONE)
    assert statuses(database) == ["pending"]

    reader.process_crash()
    database.checkpoint("passive")

    assert statuses(database) == ["done"]
    assert_gone(files_of(vfs), needles(GONE + DELETED))


def test_s26_another_writer_is_not_waited_for() -> None:
    """The scrub needs WRITER; whoever has it ends, and completes it."""
    vfs = SimVfs(seed=32)
    database = filled(vfs)
    other = open_database(vfs.fork_process())
    other.begin()
    ids(other)
    forget(database, GONE)
    other.rollback()
    other.begin("immediate")

    database.checkpoint("passive")
    assert statuses(database) == ["pending"]
    with other.writing() as write:
        write.insert("notes", columns([100]), 1)
    other.commit()

    assert statuses(database) == ["done"]
    assert ids(database) == AFTER | {word(100, "id")}
    assert_gone(files_of(vfs), needles(GONE + DELETED))


@pytest.mark.parametrize("what", ["commits", "reads the log", "holds WRITER"])
def test_s26_somebody_comes_between_the_look_and_the_lock(
    monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Who is in the way is looked for once more when WRITER is held (SB1)."""
    vfs = SimVfs(seed=34)
    database = filled(vfs)
    other = open_database(vfs.fork_process())
    ids(other)
    look = scrub.in_the_way
    looks = 0
    held: list[object] = []

    def look_and_let_somebody_come(store: Store, **options: bool) -> list[Mark]:
        nonlocal looks
        found = look(store, **options)
        looks += 1
        if looks == 1:
            held.append(come(other, what))
        return found

    monkeypatch.setattr(scrubbing, "GRACE", 0.0)
    monkeypatch.setattr(scrub, "in_the_way", look_and_let_somebody_come)

    forget(database, GONE)

    assert looks >= 1
    monkeypatch.undo()
    assert statuses(database) == ["pending"]
    other.rollback()
    held.clear()
    other.close()
    assert statuses(database) == ["done"]
    assert ids(database) == AFTER
    assert_gone(files_of(vfs), needles(GONE + DELETED))


def come(other: Database, what: str) -> object:
    """A commit that completes nothing, a reader of it, or a writer."""
    if what == "holds WRITER":
        other.begin("immediate")
        return None
    transaction = other.store.begin_write()
    transaction.change_header().user_version = 7
    transaction.commit_now()
    return other.store.begin_read() if what == "reads the log" else None


def test_s26_rows_written_while_it_is_pending_stay() -> None:
    """Neither the pages that are to be scrubbed nor the newer rows are mistaken."""
    vfs = SimVfs(seed=33)
    database = filled(vfs)
    reader = open_database(vfs.fork_process())
    reader.begin()
    assert ids(reader) == BEFORE
    forget(database, GONE)
    newer = list(range(200, 230))

    with database.writing() as write:
        write.insert("notes", columns(newer), len(newer))
    for number in newer[::3]:
        update(database, number)
    assert ids(reader) == BEFORE
    reader.close()
    database.checkpoint("truncate")

    assert statuses(database) == ["done"]
    assert ids(database) == AFTER | {word(number, "id") for number in newer}
    assert_gone(files_of(vfs), needles(GONE + DELETED))
    assert traces(files_of(vfs), needles(newer))
