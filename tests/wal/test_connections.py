"""Several connections in one process: they are as foreign to each other as processes are."""

from __future__ import annotations

import gc
import threading

import pytest

from m2mdb.pager.btree import BTree
from m2mdb.pager.errors import DatabaseBusyError, OperationalError, ProgrammingError
from m2mdb.pager.sim_vfs import SimVfs
from m2mdb.wal.store import StoreOptions
from tests.wal.conftest import TREE, Place, change, put, read, rows_of


def test_reader_keeps_its_snapshot_while_a_writer_commits(place: Place) -> None:
    writer, reader = place.open(), place.open()
    put(writer, a="1")
    snapshot = reader.begin_read()

    put(writer, a="2")

    assert rows_of(snapshot) == {"a": "1"}
    assert snapshot.commit == 1
    assert read(reader) == {"a": "2"}


def test_snapshots_of_one_store_keep_apart(place: Place) -> None:
    store = place.open()
    snapshots = []
    for number in range(6):
        put(store, a=str(number), **{f"k{number}": "x"})
        snapshots.append(store.begin_read())

    for number, snapshot in enumerate(snapshots):
        assert rows_of(snapshot)["a"] == str(number)
        assert len(rows_of(snapshot)) == number + 2
    assert store.stats()["readers"] == 6
    for snapshot in snapshots:
        snapshot.close()
        snapshot.close()
    assert store.stats()["readers"] == 0


def test_a_second_writer_is_told_who_holds_the_lock(place: Place) -> None:
    first, second = place.open(), place.open()
    first.begin_write()

    with pytest.raises(DatabaseBusyError, match=f"process {place.vfs.process_id()} writes"):
        second.begin_write()


def test_the_busy_timeout_is_waited_for(sim: Place) -> None:
    first, second = sim.open(), sim.open()
    transaction = first.begin_write()
    second.timeout = 3.0
    start = sim.vfs.monotonic()

    with pytest.raises(DatabaseBusyError, match=r"notes\.m2m is locked: .* waited 3\.0 s"):
        second.begin_write()

    assert 3.0 <= sim.vfs.monotonic() - start < 3.2
    transaction.rollback()
    second.begin_write()


def test_a_waiting_writer_goes_on_when_the_lock_is_free(disk: Place) -> None:
    first, second = disk.open(), disk.open(timeout=60.0)
    transaction = first.begin_write()
    change(transaction, a="1")
    begun = threading.Event()

    def write() -> None:
        begun.set()
        waiting = second.begin_write()
        assert rows_of(waiting) == {"a": "1"}, "S13: the snapshot is taken after the lock"
        change(waiting, b="2")
        waiting.commit_now()

    thread = threading.Thread(target=write)
    thread.start()
    begun.wait()
    transaction.commit_now()
    thread.join()

    assert read(first) == {"a": "1", "b": "2"}


def test_a_busy_handler_is_asked_instead_of_the_timeout(sim: Place) -> None:
    first, second = sim.open(), sim.open()
    transaction = first.begin_write()
    asked: list[int] = []

    def handler(count: int) -> bool:
        asked.append(count)
        if count == 4:
            transaction.rollback()
        return True

    second.busy_handler = handler
    second.begin_write().rollback()
    assert asked == [0, 1, 2, 3, 4]

    first.begin_write()
    second.busy_handler = lambda count: count < 2
    with pytest.raises(DatabaseBusyError):
        second.begin_write()


def test_a_stale_snapshot_is_not_upgraded(place: Place) -> None:
    """S13"""
    first, second = place.open(), place.open()
    put(first, a="1")
    snapshot = first.begin_read()
    put(second, a="2")

    with pytest.raises(OperationalError, match="stale snapshot of commit 1"):
        first.upgrade(snapshot)

    snapshot.close()
    put(second, a="3")
    snapshot = first.begin_read()
    transaction = first.upgrade(snapshot)
    change(transaction, b="4")
    assert transaction.commit_now() == 4
    assert rows_of(snapshot) == {"a": "3"}


def test_a_snapshot_that_grows_stale_while_it_waits_is_refused(sim: Place) -> None:
    """S13"""
    first, second = sim.open(), sim.open()
    put(first, a="1")
    snapshot = first.begin_read()
    transaction = second.begin_write()
    change(transaction, a="2")

    def handler(count: int) -> bool:
        transaction.commit_now()
        return True

    first.busy_handler = handler
    with pytest.raises(OperationalError, match="stale"):
        first.upgrade(snapshot)
    put(second, a="3")


def test_writers_alternate_and_lose_nothing(place: Place) -> None:
    stores = [place.open(wal_autocheckpoint=8) for _ in range(3)]
    for number in range(60):
        transaction = stores[number % 3].begin_write()
        tree = BTree(transaction, TREE)
        old = tree.get(b"count")
        tree.put(b"count", b"%d" % (int(old or b"0") + 1))
        transaction.commit_now()

    assert read(stores[0])["count"] == "60"
    assert {store.last_commit for store in stores} == {60}


def test_a_forgotten_snapshot_gives_its_mark_up_at_the_next_use(place: Place) -> None:
    """S5: its finaliser does nothing but tell the store."""
    store, other = place.open(), place.open()
    put(store, a="1")
    store.begin_read()
    gc.collect()
    assert store.forgotten

    assert read(store) == {"a": "1"}

    assert not store.forgotten
    assert other.stats()["readers"] == 0


def test_figures_of_the_store(place: Place) -> None:
    """S28"""
    store, reader = place.open(wal_autocheckpoint=0), place.open()
    assert store.log_bytes == 0
    put(store, a="1")
    snapshot = reader.begin_read()
    put(store, a="2")

    found = store.stats()

    assert found["commit"] == store.last_commit == 2
    assert (found["log_frames"], found["frames_copied"]) == (2, 0)
    assert (found["readers"], found["oldest_commit"]) == (1, 1)
    assert found["oldest_pid"] == place.vfs.process_id()
    assert found["log_bytes"] == store.log_bytes > 2 * 4096
    assert store.oldest_commit() == 1
    snapshot.close()
    assert store.oldest_commit() == 2


def test_many_readers_of_one_process_share_the_slots(disk: Place) -> None:
    """S1: 126 slots for any number of readers."""
    stores = [disk.open() for _ in range(140)]
    put(stores[0], a="1")

    snapshots = [store.begin_read() for store in stores]
    put(stores[0], a="2")

    assert all(rows_of(snapshot) == {"a": "1"} for snapshot in snapshots)
    assert stores[0].checkpoint("full")[0] == 1
    for snapshot in snapshots:
        snapshot.close()
    assert stores[0].checkpoint("full")[0] == 0


def test_options_are_checked() -> None:
    with pytest.raises(ProgrammingError, match="synchronous"):
        StoreOptions(synchronous="maybe")
    with pytest.raises(ProgrammingError, match="page_size"):
        StoreOptions(page_size=1000)
    assert StoreOptions(immutable=True, create=True).read_only
    assert not StoreOptions(immutable=True, create=True).create


def test_the_simulator_gives_each_process_its_own_number(sim: Place) -> None:
    vfs = sim.vfs
    assert isinstance(vfs, SimVfs)
    store, other = sim.open(), sim.open(vfs.fork_process())
    other.begin_write()

    with pytest.raises(DatabaseBusyError, match=f"process {other.pid} writes"):
        store.begin_write()
