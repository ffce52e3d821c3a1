"""What holds where a death, an interrupt or an error strikes at the worst moment."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

import pytest

from m2mdb.pager.btree import BTree
from m2mdb.pager.errors import CorruptDatabaseError, OperationalError
from m2mdb.pager.os_vfs import OsVfs
from m2mdb.pager.sim_machine import Call, ProcessKilledError
from m2mdb.pager.sim_vfs import SimVfs
from m2mdb.wal.frame import LOG_HEADER_SIZE
from m2mdb.wal.locks import SLOTS
from m2mdb.wal.marks import Marks
from m2mdb.wal.shared import LogEnd, SharedState
from m2mdb.wal.store import Store, StoreOptions
from m2mdb.wal.transaction import Transaction
from tests.sim.store_runs import PATH, change, check, contents, open_store, value
from tests.wal.conftest import simulated
from tests.wal.interrupts import interrupted


def commit(store: Store, changes: dict[bytes, bytes | None]) -> None:
    """One transaction."""
    transaction = store.begin_write()
    change(transaction, changes)
    transaction.commit_now()


def test_a_first_write_that_dies_leaves_a_file_that_opens() -> None:
    """S4: the last one to close clears a flag whose log was never published."""
    for at in range(1, 12):
        vfs = SimVfs(at)
        open_store(vfs).close()
        first, second = open_store(vfs.fork_process()), open_store(vfs.fork_process())
        simulated(first.vfs).kill_at_call(at)
        with pytest.raises((ProcessKilledError, ValueError)):
            commit(first, {b"a": b"1"})
            vfs.machine.kill(first.pid)
            raise ProcessKilledError
        vfs.clear_faults()
        second.close()
        again = open_store(vfs.fork_process())
        assert len(contents(again)) in (0, 1)
        again.close()


def test_a_reader_that_closes_last_leaves_flag_and_log() -> None:
    """S4, S6: what a dead first writer left is not for a reader to mend."""
    vfs = SimVfs(1)
    open_store(vfs).close()
    writer = open_store(vfs.fork_process())
    reader = Store.open(vfs.fork_process(), PATH, StoreOptions(read_only=True))
    simulated(writer.vfs).kill_at_call(9)
    with pytest.raises((ProcessKilledError, ValueError)):
        commit(writer, {b"a": b"1"})
    vfs.clear_faults()
    reader.close()
    again = open_store(vfs.fork_process())
    check(again)


def test_a_half_read_log_keeps_no_page_over_its_reset() -> None:
    """S15, S16: pages stay cached only where all frames of the commit before are known."""
    vfs = SimVfs(1)
    writer = open_store(vfs.fork_process(), wal_autocheckpoint=0)
    rows = {b"k%04d" % number: value(number, 1500) for number in range(900)}
    commit(writer, dict(rows))
    writer.checkpoint("truncate")
    commit(writer, {b"z": b"1"})
    reader = open_store(vfs.fork_process(), wal_autocheckpoint=0, cache_bytes=256 << 20)
    contents(reader)
    commit(writer, {key: value(number + 5000, 1500) for number, key in enumerate(rows)})
    simulated(reader.vfs).fail("read", at_call=2, path_end="-wal")
    with pytest.raises(OperationalError):
        contents(reader)
    vfs.clear_faults()
    assert writer.checkpoint("restart")[0] == 0
    commit(writer, {b"z": b"2"})

    assert contents(reader) == contents(writer)


@pytest.mark.parametrize("second_dies", [False, True])
def test_the_commit_of_a_dead_writer_stays_dead_whoever_dies_next(second_dies: bool) -> None:
    """S8: a frame that was zeroed and not synced is not gone."""
    vfs = SimVfs(1)
    first, second, third = [open_store(vfs.fork_process(), wal_autocheckpoint=0) for _ in range(3)]
    commit(first, {b"row": b"1"})
    with pytest.MonkeyPatch.context() as patch, pytest.raises((ProcessKilledError, ValueError)):

        def die(shared: SharedState, end: LogEnd) -> None:
            vfs.machine.kill(first.pid)
            raise ProcessKilledError

        patch.setattr(SharedState, "publish", die)
        commit(first, {b"ext": value(1, 40000)})
    if second_dies:
        simulated(second.vfs).kill_at_call(1, "sync")
        with pytest.raises((ProcessKilledError, ValueError)):
            second.begin_write()
        vfs.clear_faults()
    start = vfs.io_points
    commit(third, {b"other": value(2, 40000)})
    for point in range(start, vfs.io_points + 1):
        for image in vfs.crash_images(point, Random(point), 8):
            store = open_store(image.vfs())
            check(store)
            # until the third commits anything, the first one's commit may still come back
            assert {key for key, _ in contents(store)} in (
                {b"row"},
                {b"row", b"ext"},
                {b"row", b"other"},
            )


@pytest.mark.parametrize("before", ["poison", "_failure_in", "_failure"])
def test_a_sync_that_failed_is_not_tried_again_after_an_interrupt(before: str) -> None:
    """S11: the second sync succeeds, and the disk has not what the first one lost."""
    vfs = SimVfs(1)
    vfs.failed_sync = "none"
    store = open_store(vfs)
    commit(store, {b"a": b"1"})
    vfs.fail("sync", path_end="-wal")
    struck = False

    def strike(frame: FrameType, event: str, arg: object) -> None:
        nonlocal struck
        name = "io_error" if before == "_failure" else before
        if frame.f_code.co_name == name and not struck:
            struck = True
            raise KeyboardInterrupt

    sys.settrace(strike)
    try:
        with pytest.raises((KeyboardInterrupt, OperationalError)):
            commit(store, {b"b": b"2"})
    finally:
        sys.settrace(None)
    assert struck
    with pytest.raises(OperationalError):
        commit(store, {b"c": b"3"})


def test_an_interrupt_after_a_sync_poisons_nothing() -> None:
    """S12: Ctrl-C while the disk is busy comes when the sync has ended; the commit has happened."""
    vfs = SimVfs(1)
    store = open_store(vfs)
    commit(store, {b"a": b"1"})
    transaction = store.begin_write()
    change(transaction, {b"b": b"2"})
    assert store.log is not None
    file = store.log.file

    class Interrupted:
        def __getattr__(self, name: str) -> object:
            return getattr(file, name)

        def sync(self) -> None:
            assert store.log is not None
            store.log.file = file
            file.sync()
            raise KeyboardInterrupt

    stopping: Any = Interrupted()
    store.log.file = stopping
    try:
        raise OSError("an error of the program that it handles with a commit")
    except OSError:
        with pytest.raises(KeyboardInterrupt):
            transaction.commit_now()
    assert contents(store) == {(b"a", b"1"), (b"b", b"2")}
    commit(store, {b"c": b"3"})


def test_an_interrupt_after_the_commit_goes_back_to_no_older_end() -> None:
    """S10, S12: once WRITER is given up, another one's commit may be the newest."""
    vfs = SimVfs(1)
    first, second = open_store(vfs.fork_process()), open_store(vfs.fork_process())
    commit(first, {b"a": b"1"})
    transaction = first.begin_write()
    change(transaction, {b"a": b"2"})
    close = Transaction.close

    def struck(ended: Transaction) -> None:
        close(ended)
        if ended is transaction:
            patch.undo()
            commit(second, {b"b": b"of the second"})
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Transaction, "close", struck)
        transaction.commit_now()

    expected = {(b"a", b"2"), (b"b", b"of the second")}
    assert contents(first) == contents(second) == expected
    commit(first, {b"c": b"3"})
    expected.add((b"c", b"3"))
    assert contents(first) == contents(second) == expected
    first.close()
    second.close()
    assert contents(open_store(vfs.fork_process())) == expected


@pytest.mark.parametrize("then", ["full", "checkpoint", "normal", "recovery"])
def test_what_off_left_unsynced_is_synced_before_it_becomes_durable(then: str) -> None:
    """S7: of a durable commit, or a checkpoint, `off` before it must not take the extents away."""
    vfs = SimVfs(1)
    store = open_store(vfs, wal_autocheckpoint=0)
    commit(store, {b"a": b"1"})
    store.synchronous = "off"
    commit(store, {b"big": value(1, 60000)})
    start = vfs.io_points
    if then == "recovery":
        vfs = vfs.process_crash()
        start = vfs.io_points
        open_store(vfs).close()
    elif then == "checkpoint":
        store.checkpoint("full")
    else:
        store.synchronous = then
        commit(store, {b"after": b"1"})
        if then == "normal":
            store.checkpoint("full")
    for point in range(start + 1, vfs.io_points + 1):
        for image in vfs.crash_images(point, Random(point), 4):
            again = open_store(image.vfs())
            found = {key for key, _ in contents(again)}
            assert b"a" in found
            if point == vfs.io_points:
                assert b"big" in found
            again.close()


@pytest.mark.parametrize("at", [4096, 8192 + 5, 3 * 4096, 3 * 65536 - 1, 400_000])
def test_a_file_that_only_begins_with_zeros_is_left_alone(tmp_path: Path, at: int) -> None:
    """S4, S3: it is somebody's; refusing it changes no byte."""
    path = tmp_path / "vectors.f32"
    content = bytes(at) + b"precious" * 5
    path.write_bytes(content)

    with pytest.raises(CorruptDatabaseError, match="not a database"):
        Store.open(OsVfs(), str(path), StoreOptions(create=True))

    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("page_size", [4096, 65536])
def test_a_creation_that_was_stopped_is_begun_again(page_size: int) -> None:
    """S4: whatever of it reached the disk, and whatever page size the next one wants."""
    vfs = SimVfs(1)
    open_store(vfs, page_size=page_size).close()
    for point in range(vfs.io_points + 1):
        for image in vfs.crash_images(point, Random(point), 6):
            store = open_store(image.vfs())
            assert not contents(store)
            store.close()


def test_an_open_that_fails_leaves_no_shared_state(tmp_path: Path) -> None:
    """S3: where filling -shm fails, it goes again."""
    path = tmp_path / "notes.m2m"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(OperationalError):

        def fail(marks: Marks, *rest: object) -> None:
            raise OperationalError("no")

        patch.setattr(Marks, "__init__", fail)
        Store.open(OsVfs(), str(path), StoreOptions(create=True))
    assert [found.name for found in tmp_path.iterdir()] in ([], ["notes.m2m"])


def test_one_connection_keeps_more_snapshots_than_there_are_slots() -> None:
    """S1: where all slots are its own, a snapshot joins an older one that keeps as much."""
    vfs = SimVfs(1)
    writer = open_store(vfs.fork_process(), wal_autocheckpoint=0, timeout=0.0)
    reader = open_store(vfs.fork_process())
    commit(writer, {b"a": b"start"})
    held = []
    for number in range(SLOTS + 20):
        commit(writer, {b"a": b"%d" % number})
        held.append(reader.begin_read())
    writer.checkpoint("passive")
    for snapshot in held[: SLOTS + 5]:
        snapshot.close()
    writer.checkpoint("restart")
    commit(writer, {b"a": b"newest"})

    for number, snapshot in enumerate(held):
        if number >= SLOTS + 5:
            assert BTree(snapshot, 2).get(b"a") == b"v%d" % number
            snapshot.close()
    assert writer.checkpoint("restart")[0] == 0


def test_a_store_that_outlives_the_interpreter_goes_without_a_word(tmp_path: Path) -> None:
    """S5: a finaliser closes its descriptor, even when the modules are gone already."""
    program = (
        "import builtins, sys\n"
        "from m2mdb.pager.os_vfs import OsVfs\n"
        "from m2mdb.wal.store import Store, StoreOptions\n"
        "store = Store.open(OsVfs(), sys.argv[1], StoreOptions(create=True))\n"
        "builtins.kept = (store, store.begin_read())\n"
    )
    arguments = [sys.executable, "-c", program, str(tmp_path / "notes.m2m")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_log_header_that_is_read_while_it_is_written_is_read_again() -> None:
    """S10: the system copies the sector of a reset without a lock that a reader would wait for."""
    vfs = SimVfs(1)
    writer, reader = open_store(vfs.fork_process()), open_store(vfs.fork_process())
    commit(writer, {b"a": b"1"})
    assert writer.log is not None
    file = writer.log.file
    whole = file.read_at(0, LOG_HEADER_SIZE)
    file.write_at(40, b"torn")
    slept = 0

    def finish_writing(call: Call) -> None:
        nonlocal slept
        slept += call.kind == "sleep"
        if slept == 3:
            slept += 1
            file.write_at(0, whole)

    vfs.on_call = finish_writing
    assert contents(reader) == {(b"a", b"1")}
    vfs.on_call = None


@pytest.mark.parametrize("opcodes", [False, True])
def test_an_interrupted_commit_locks_nobody_out(opcodes: bool) -> None:
    """S12, ST3: whoever holds the transaction, WRITER is free when the store is used again."""
    at, step = 1, 7 if opcodes else 1
    while True:
        vfs = SimVfs(1)
        store, other = [open_store(vfs.fork_process(), timeout=0.0) for _ in range(2)]
        commit(store, {b"a": b"1"})
        transaction = store.begin_write()
        change(transaction, {b"a": b"2"})
        struck = interrupted(transaction.commit_now, at, opcodes=opcodes)
        if not struck:
            break
        if transaction.is_open:
            assert "commit_now" in struck, "it has not begun"
        found = contents(store)
        assert found in ({(b"a", b"1")}, {(b"a", b"2")}), struck
        if not transaction.is_open:
            commit(other, {b"b": b"3"})
            assert contents(store) == contents(other) == {*found, (b"b", b"3")}, struck
        transaction.rollback()
        commit(store, {b"c": b"4"})
        at += step


def test_an_interrupted_checkpoint_gives_writer_up_at_once() -> None:
    """S12: without another use of the store, others can write."""
    at = 1
    while True:
        vfs = SimVfs(1)
        store, other = [open_store(vfs.fork_process(), timeout=0.0) for _ in range(2)]
        commit(store, {b"a": b"1"})
        struck = interrupted(partial(store.checkpoint, "restart"), at)
        if not struck:
            break
        if not struck.startswith(("checkpoint:", "Store.checkpoint:", "Locks.drop:")):
            commit(other, {b"b": b"2"})
        at += 1
