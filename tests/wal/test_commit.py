"""Commit: whatever stops it, it has happened or it has not, for everybody (S7, S8, S11, S12)."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable
from random import Random

import pytest

from m2mdb.pager.btree import BTree
from m2mdb.pager.errors import OperationalError
from m2mdb.pager.extent import ExtentDescriptor
from m2mdb.pager.sim_machine import Call, ProcessKilledError
from m2mdb.pager.sim_vfs import SimVfs
from m2mdb.wal.frame import LOG_HEADER_SIZE, LogHeader, valid_frames
from m2mdb.wal.store import Store
from m2mdb.wal.transaction import Transaction
from tests.wal.conftest import TREE, Place, change, put, read, simulated
from tests.wal.interrupts import interrupted

OLD = {"a": "old", "b": "old"}
NEW = {"a": "new", "c": "new"}


def prepared(place: Place, synchronous: str, autocheckpoint: int) -> tuple[Store, Transaction]:
    """A store with a commit in its log, and a transaction that changes rows and an extent."""
    store = place.open(synchronous=synchronous, wal_autocheckpoint=autocheckpoint)
    put(store, **OLD)
    transaction = store.begin_write()
    change(transaction, a="new", b=None, c="new")
    descriptor = transaction.write_extent([b"e" * 9000], 9000)
    transaction.free_extent(descriptor)
    return store, transaction


def settle(place: Place, store: Store, transaction: Transaction, struck: str) -> None:
    """After the interrupt: all see the old rows or all see the new ones, and all goes on."""
    transaction.rollback()
    face = simulated(place.vfs).fork_process()
    other = place.open(face)
    seen = read(other)
    assert seen in (OLD, NEW), struck
    try:
        assert read(store) == seen, struck
        put(store, more="1")
    except OperationalError as error:
        assert "unknown" in str(error), struck
    else:
        seen = {**seen, "more": "1"}
        assert read(other) == seen
        put(other, **seen, last="1")
        seen["last"] = "1"
        assert read(store) == seen
    simulated(place.vfs).machine.kill(simulated(place.vfs).process_id())
    face.machine.kill(face.pid)
    again = place.open(face.fork_process())
    assert read(again) == seen, struck
    again.close()


def fresh(seed: int = 3) -> Place:
    return Place(SimVfs(seed), "d/notes.m2m")


@pytest.mark.parametrize("autocheckpoint", [0, 1])
@pytest.mark.parametrize("synchronous", ["full", "off"])
@pytest.mark.parametrize(("opcodes", "step"), [(False, 1), (True, 13)])
def test_an_interrupt_anywhere_in_commit_loses_nothing(
    synchronous: str, autocheckpoint: int, opcodes: bool, step: int
) -> None:
    """S12: before the frames it is rolled back, from the frames on it is finished."""
    at, outcomes = 1, set()
    while True:
        place = fresh()
        store, transaction = prepared(place, synchronous, autocheckpoint)
        struck = interrupted(transaction.commit_now, at, opcodes=opcodes)
        if not struck:
            break
        outcomes.add(store.end.commit)
        settle(place, store, transaction, f"{at}: {struck}")
        at += step

    assert outcomes == {1, 2}
    assert at > 100


@pytest.mark.parametrize("synchronous", ["full", "normal", "off"])
def test_an_interrupt_before_any_call_to_the_system_loses_nothing(synchronous: str) -> None:
    """S12"""
    outcomes = set()
    for number in range(1, 1000):
        place = fresh()
        store, transaction = prepared(place, synchronous, 1)
        left = number
        struck = ""

        def interrupt(call: Call) -> None:
            nonlocal left, struck
            left -= 1
            if left == 0:
                struck = repr(call)
                raise KeyboardInterrupt(struck)

        simulated(place.vfs).on_call = interrupt
        with contextlib.suppress(KeyboardInterrupt):
            transaction.commit_now()
        simulated(place.vfs).on_call = None
        if not struck:
            break
        settle(place, store, transaction, struck)
        outcomes.add(number)

    assert len(outcomes) > 10


def test_an_interrupt_of_the_first_commit_leaves_a_file_that_opens() -> None:
    """S4, S12: the log is created by the first write."""
    for at in range(1, 2000, 3):
        place = fresh()
        store = place.open()
        transaction = store.begin_write()
        change(transaction, a="1")
        struck = interrupted(transaction.commit_now, at)
        if not struck:
            return
        transaction.rollback()
        assert read(store) in ({}, {"a": "1"})
        put(store, b="2")
        face = simulated(place.vfs).process_crash()
        again = place.open(face)
        assert read(again) in ({"b": "2"}, {"a": "1", "b": "2"})
    pytest.fail("the commit never came to its end")


# -- S8 ----------------------------------------------------------------------------------------


def frames_that_count(vfs: SimVfs) -> int:
    """How many commits a replay of the log would find."""
    file = vfs.open("d/notes.m2m-wal")
    header = LogHeader.decode(file.read_at(0, LOG_HEADER_SIZE), "x")
    return sum(bool(frame.page_count) for frame in valid_frames(file, header))


def die_before_publishing(place: Place, action: Callable[[Store], object]) -> None:
    """A process that writes its frames and dies in the sync behind them."""
    face = simulated(place.vfs).fork_process()
    store = place.open(face)
    count = 0

    def watch(call: Call) -> None:
        nonlocal count
        if call.process == face.pid and call.kind == "sync" and call.path.endswith("-wal"):
            face.machine.kill(face.pid)

    face.on_call = watch
    with pytest.raises((ProcessKilledError, ValueError)):
        action(store)
    face.on_call = None


def test_an_unpublished_commit_of_a_dead_writer_does_not_come_back(sim: Place) -> None:
    """S8: it would come back over pages that were used again since."""
    store = sim.open()
    put(store, a="1")
    die_before_publishing(sim, lambda other: put(other, a="of the dead"))
    assert frames_that_count(simulated(sim.vfs)) == 2

    transaction = store.begin_write()

    assert frames_that_count(simulated(sim.vfs)) == 1
    descriptor = transaction.write_extent([b"e" * 30_000], 30_000)
    transaction.rollback()
    assert descriptor
    for image in simulated(sim.vfs).crash_images(simulated(sim.vfs).io_points, Random(1), 5):
        assert read(sim.open(image.vfs())) == {"a": "1"}


def test_an_unpublished_commit_does_not_come_back_over_a_checkpoint(sim: Place) -> None:
    """S8: also when the next to take WRITER is a checkpoint."""
    store = sim.open()
    put(store, a="1")
    die_before_publishing(sim, lambda other: put(other, a="of the dead"))

    store.checkpoint("full")

    assert frames_that_count(simulated(sim.vfs)) == 1
    assert read(sim.open(simulated(sim.vfs).process_crash())) == {"a": "1"}


def test_the_extent_written_after_a_dead_writer_survives_a_power_loss(sim: Place) -> None:
    """S8: the erasure is durable before the first byte of an extent is written."""
    store = sim.open()
    put(store, **{f"k{number}": "." * 900 for number in range(30)})
    die_before_publishing(
        sim, lambda other: put(other, **{f"k{number}": "dead" * 200 for number in range(30)})
    )
    vfs = sim.vfs
    assert isinstance(vfs, SimVfs)
    before = vfs.io_points

    transaction = store.begin_write()
    transaction.write_extent([b"e" * 30_000], 30_000)

    kinds = [(op.kind, op.path[-4:]) for op in vfs.log[before:]]
    erased = kinds.index(("write", "-wal"))
    assert kinds[erased + 1] == ("sync", "-wal")
    assert ("write", ".m2m") not in kinds[:erased]


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_a_commit_whose_write_fails_is_taken_back(sim: Place, error: int) -> None:
    """S8: a part of its frames may have reached the log, even all of them."""
    store = sim.open()
    put(store, a="1")
    vfs = sim.vfs
    assert isinstance(vfs, SimVfs)
    for number in range(8):
        transaction = store.begin_write()
        change(transaction, **{f"k{i}": "." * 1500 for i in range(10)})
        vfs.fail("write", path_end="-wal", error=error)

        with pytest.raises(OperationalError):
            transaction.commit_now()

        vfs.clear_faults()
        assert read(store) == {"a": "1"}
        assert frames_that_count(vfs) == 1, number
    put(store, a="2")
    assert read(sim.open(vfs.process_crash())) == {"a": "2"}


# -- S7, S11 -----------------------------------------------------------------------------------


@pytest.mark.parametrize("synchronous", ["full", "normal", "off"])
def test_syncs_stand_in_their_order(sim: Place, synchronous: str) -> None:
    """S7: extents before the frame that names them, the log at commit in full."""
    store = sim.open(synchronous=synchronous)
    put(store, a="1")
    vfs = sim.vfs
    assert isinstance(vfs, SimVfs)
    transaction = store.begin_write()
    BTree(transaction, TREE).put(b"x", transaction.write_extent([b"e" * 9], 9).encode())
    before = vfs.io_points

    transaction.commit_now()

    kinds = [f"{op.kind} {op.path[-4:]}" for op in vfs.log[before:]]
    assert (
        kinds
        == {
            "full": ["sync .m2m", "write -wal", "sync -wal"],
            "normal": ["sync .m2m", "write -wal"],
            "off": ["write -wal"],
        }[synchronous]
    )


def test_one_write_takes_all_frames_of_a_commit(sim: Place) -> None:
    store = sim.open()
    put(store, a="1")
    vfs = sim.vfs
    assert isinstance(vfs, SimVfs)
    transaction = store.begin_write()
    change(transaction, **{f"k{i:03}": "." * 900 for i in range(100)})
    before = vfs.io_points

    transaction.commit_now()

    assert [op.kind for op in vfs.log[before:]].count("write") == 1


@pytest.mark.parametrize(
    ("name", "path_end", "action"),
    [
        ("log", "-wal", lambda store: put(store, b="2")),
        ("extent", ".m2m", lambda store: [write_extent(store)]),
        ("checkpoint", ".m2m", lambda store: store.checkpoint("passive")),
        ("checkpointed log", "-wal", lambda store: store.checkpoint("passive")),
        ("reset", "-wal", lambda store: store.checkpoint("restart")),
    ],
)
def test_a_failed_sync_poisons_the_database(
    sim: Place, name: str, path_end: str, action: Callable[[Store], object]
) -> None:
    """S11: until all have left and one has recovered."""
    synchronous = "normal" if name == "checkpointed log" else "full"
    store = sim.open(synchronous=synchronous)
    vfs = sim.vfs
    assert isinstance(vfs, SimVfs)
    other = sim.open(vfs.fork_process())
    put(store, a="1")
    vfs.fail("sync", path_end=path_end)

    with pytest.raises(OperationalError):
        action(store)

    for each in (store, other):
        with pytest.raises(OperationalError, match="sync"):
            each.begin_write()
        with pytest.raises(OperationalError, match="sync"):
            each.checkpoint("passive")
        assert read(each) == {"a": "1"}, "reading goes on"
    store.close()
    with pytest.raises(OperationalError):
        sim.open(vfs.fork_process()).begin_write()
    sim.close()
    again = sim.open(vfs.fork_process())
    assert read(again).get("a") == "1"
    put(again, c="3")
    again.close()


def write_extent(store: Store) -> ExtentDescriptor:
    transaction = store.begin_write()
    try:
        descriptor = transaction.write_extent([b"e" * 9000], 9000)
        BTree(transaction, TREE).put(b"x", descriptor.encode())
        transaction.commit_now()
    finally:
        transaction.rollback()
    return descriptor


def test_a_full_disk_only_rolls_back(sim: Place) -> None:
    """S11: log and extents have their space before a byte is written."""
    store = sim.open()
    put(store, a="1")
    vfs = sim.vfs
    assert isinstance(vfs, SimVfs)
    used = sum(len(file.pages) for file in vfs.machine.disk.files.values()) * 4096
    vfs.disk_size = used + 16_384

    with pytest.raises(OperationalError, match="disk full"):
        put(store, **{f"k{i:04}": "." * 1500 for i in range(300)})
    transaction = store.begin_write()
    with pytest.raises(OperationalError, match="disk full"):
        transaction.write_extent([b"e" * 100_000], 100_000)
    transaction.rollback()

    assert read(store) == {"a": "1"}
    put(store, a="2")
    assert read(store) == {"a": "2"}
    assert store.checkpoint("passive")[0] == 0


def test_a_full_disk_in_a_checkpoint_leaves_the_log(sim: Place) -> None:
    """S11"""
    store = sim.open(wal_autocheckpoint=0)
    put(store, **{f"k{i:04}": "." * 1500 for i in range(60)})
    vfs = sim.vfs
    assert isinstance(vfs, SimVfs)
    rows = read(store)
    vfs.disk_size = 1
    reader = store.begin_read()

    with pytest.raises(OperationalError, match="disk full"):
        store.checkpoint("passive")

    assert store.stats()["frames_copied"] == 0
    assert store.stats()["readers"] == 1
    reader.close()
    assert read(store) == rows
    vfs.disk_size = None
    assert store.checkpoint("truncate")[0] == 0
    assert read(store) == rows


def test_a_failing_automatic_checkpoint_is_not_the_commits_failure(sim: Place) -> None:
    store = sim.open(wal_autocheckpoint=1)
    vfs = sim.vfs
    assert isinstance(vfs, SimVfs)
    put(store, a="1")
    vfs.fail("write", path_end=".m2m", error=errno.ENOSPC)

    assert put(store, a="2") == 2

    assert "disk full" in store.checkpoint_error
    vfs.clear_faults()
    put(store, a="3")
    assert store.checkpoint_error == ""
