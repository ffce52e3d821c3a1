"""Giving free pages at the file's end back, and cutting the file behind its last page."""

from __future__ import annotations

import contextlib
from random import Random

import pytest

from m2mdb.pager.errors import InterfaceError, OperationalError
from m2mdb.pager.sim_machine import Call
from m2mdb.pager.sim_vfs import SimVfs
from m2mdb.wal.locks import ATTACH
from m2mdb.wal.store import Store
from tests.sim.store_runs import PATH, Found, change, check, contents, open_store, value

EVERYTHING = 1 << 32


def commit(store: Store, changes: dict[bytes, bytes | None], *, shrink: int = 0) -> int:
    """One transaction; returns how many pages it gave back."""
    transaction = store.begin_write()
    given = transaction.shrink(shrink)
    change(transaction, dict(changes))
    transaction.commit_now()
    return given


def with_free_end(vfs: SimVfs, *, checkpoint: bool = True) -> Store:
    """A file whose last pages are free, all of it in the file."""
    store = open_store(vfs)
    commit(store, {b"kept": b"1", b"long": value(1, 30_000)})
    commit(store, {b"e%d" % i: value(i, 25_000) for i in range(5)})
    commit(store, {b"e%d" % i: None for i in range(5)})
    if checkpoint:
        assert store.checkpoint("restart")[0] == 0
    return store


def page_count(store: Store) -> int:
    return store.stats()["page_count"]


def test_s27_the_end_is_given_back_and_the_file_cut() -> None:
    store = with_free_end(SimVfs(1))
    before, found = page_count(store), contents(store)

    given = commit(store, {}, shrink=EVERYTHING)

    assert given > 30
    assert page_count(store) == before - given
    assert store.file.size() == before * 4096
    assert store.cut() == (given * 4096, "")
    assert store.file.size() == page_count(store) * 4096
    assert contents(store) == found
    check(store)
    commit(store, {b"more": value(3, 60_000)})
    check(store)
    store.close()


def test_no_more_is_given_back_than_is_asked_for() -> None:
    store = with_free_end(SimVfs(2))
    before = page_count(store)

    assert commit(store, {}, shrink=4) == 4
    assert page_count(store) == before - 4
    check(store)


def test_a_statement_that_is_undone_gives_nothing_back() -> None:
    store = with_free_end(SimVfs(3))
    before = page_count(store)
    transaction = store.begin_write()
    token = transaction.begin_statement()
    assert transaction.shrink(EVERYTHING) > 0
    transaction.undo_statement(token)
    change(transaction, {b"x": b"y"})
    transaction.commit_now()

    assert page_count(store) == before
    check(store)


def test_s9_pages_that_a_snapshot_reads_are_not_given_back() -> None:
    """What is behind the last page may be taken at once: an older snapshot would read it."""
    vfs = SimVfs(4)
    store = open_store(vfs)
    commit(store, {b"kept": b"1"})
    commit(store, {b"end": value(1, 60_000)})
    reader = open_store(vfs.fork_process())
    snapshot = reader.begin_read()
    commit(store, {b"end": None})
    store.checkpoint("passive")

    assert commit(store, {b"a": b"b"}, shrink=EVERYTHING) == 0
    snapshot.close()
    assert commit(store, {b"a": b"c"}, shrink=EVERYTHING) > 10
    check(store)


def test_s9_pages_with_frames_in_the_log_are_not_given_back() -> None:
    """An extent may be written there next; a recovery would copy the old frame over it."""
    vfs = SimVfs(5)
    store = open_store(vfs)
    store.wal_autocheckpoint = 0
    commit(store, {b"k%03d" % i: value(i, 300) for i in range(200)})
    commit(store, {b"k%03d" % i: None for i in range(200)})
    before = page_count(store)
    commit(store, {}, shrink=EVERYTHING)
    commit(store, {b"extent": value(7, 400_000)})
    expected = contents(store)

    again = open_store(vfs.process_crash())

    assert contents(again) == expected
    check(again)
    assert before > 10


def test_s18_the_file_is_cut_under_attach_exclusive_and_writer_alone() -> None:
    """S18: no other connection may have a map of what is cut."""
    vfs = SimVfs(6)
    store = with_free_end(vfs)
    other = open_store(vfs.fork_process())
    commit(store, {}, shrink=EVERYTHING)
    size = store.file.size()
    held: list[bool] = []

    def look(call: Call) -> None:
        if call.kind == "truncate" and call.path == PATH:
            probe = vfs.machine.locks_of(store.identity.inode)
            held.append(not probe.lock(object(), ATTACH, 1, exclusive=False))

    vfs.on_call = look
    bytes_cut, reason = store.cut()
    assert (bytes_cut, store.file.size()) == (0, size)
    assert "another connection" in reason
    assert held == []

    other.close()
    assert store.cut()[0] > 0
    assert held == [True]
    vfs.on_call = None
    newest = open_store(vfs.fork_process())
    commit(newest, {b"after": b"the cut"})
    assert contents(store) == contents(newest)


def test_a_cut_is_refused_inside_a_transaction_for_readers_and_when_closed() -> None:
    vfs = SimVfs(7)
    store = with_free_end(vfs)
    transaction = store.begin_write()
    with pytest.raises(OperationalError, match="inside a transaction"):
        store.cut()
    transaction.rollback()
    store.close()
    with pytest.raises(InterfaceError):
        store.cut()
    reader = open_store(vfs, read_only=True)
    with pytest.raises(OperationalError, match="reading only"):
        reader.cut()


def test_a_snapshot_of_its_own_keeps_the_log_from_being_cut_away() -> None:
    """TR2: while a snapshot holds the log back the header names the longer file."""
    store = with_free_end(SimVfs(8))
    snapshot = store.begin_read()
    commit(store, {b"kept": b"2"}, shrink=EVERYTHING)
    size = store.file.size()

    assert store.cut() == (0, "a snapshot keeps the log from being copied")
    assert store.file.size() == size
    snapshot.close()
    assert store.cut()[0] > 0
    check(store)


@pytest.mark.parametrize("synchronous", ["full", "normal"])
def test_power_loss_at_every_point_of_a_cut(synchronous: str) -> None:
    """TR2: the smaller page count is durable before the file is shorter."""
    vfs = SimVfs(9)
    store = with_free_end(vfs)
    expected: Found = contents(store)
    store.synchronous = synchronous
    start = vfs.io_points
    given = commit(store, {}, shrink=EVERYTHING)
    assert given > 0
    assert store.cut()[0] == given * 4096
    commit(store, {b"after": value(5, 40_000)})
    after = contents(store)
    store.close()

    for point in range(start, vfs.io_points + 1):
        for image in vfs.crash_images(point, Random(point), 5):
            machine = image.vfs()
            again = open_store(machine)
            assert contents(again) in (expected, after), image
            check(again)
            commit(again, {b"more": value(6, 30_000)})
            check(again)
            again.close()


@pytest.mark.parametrize("kind", ["truncate", "sync", "write", "lock"])
def test_a_cut_that_fails_leaves_a_right_file(kind: str) -> None:
    for number in range(1, 12):
        vfs = SimVfs(number)
        store = with_free_end(vfs)
        expected = contents(store)
        commit(store, {}, shrink=EVERYTHING)
        vfs.fail(kind, at_call=number)
        with contextlib.suppress(OperationalError):
            store.cut()
        vfs.clear_faults()
        again = open_store(vfs.process_crash())
        assert contents(again) == expected
        check(again)
        commit(again, {b"more": b"1"})
        again.close()


def test_the_last_close_cuts_what_a_dead_process_left_behind() -> None:
    vfs = SimVfs(10)
    store = with_free_end(vfs)
    count = page_count(store)
    transaction = store.begin_write()
    transaction.write_extent([value(1, 200_000)], 200_000)
    assert store.file.size() > count * 4096

    vfs = vfs.process_crash()
    again = open_store(vfs)
    found = contents(again)
    commit(again, {b"one": b"more"})
    again.close()

    assert vfs.size(PATH) == count * 4096
    last = open_store(vfs)
    assert contents(last) == found | {(b"one", b"more")}
    check(last)
