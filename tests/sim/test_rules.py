"""Rules that keep data, one by one, at the moments when breaking them would lose some.

The campaign finds a broken rule somewhere (`test_mutants.py`); here stands, by the rule's number,
what exactly must be on the disk, and every bug that the campaign has found.
"""

from __future__ import annotations

import errno
from random import Random

import pytest

from m2mdb.pager.errors import OperationalError
from m2mdb.pager.extent import ExtentDescriptor
from m2mdb.pager.sim_vfs import SimVfs
from tests.sim.crash_explorer import Explorer, StoreLevel
from tests.sim.database_oracle import read_state
from tests.sim.database_runs import DatabaseRun
from tests.sim.store_runs import (
    PATH,
    StoreRun,
    change,
    check,
    contents,
    open_store,
    rows,
    value,
)
from tests.thresholds import small_thresholds


def files_of(vfs: SimVfs) -> set[str]:
    return {name.removeprefix(PATH) for name in vfs.machine.disk.names}


# -- found by the campaign -----------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["some", "none", "keep"])
def test_s4_a_flag_whose_sync_failed_is_cleared_again_before_its_log_goes(mode: str) -> None:
    """S4, S11: the system shows the flag as clear, the disk has it set: it needs its log.

    Found by an EIO at the last sync of a close: the next clean close removed the log, and after a
    power loss the file was refused as copied without it.
    """
    run = StoreRun(SimVfs(3))
    run.vfs.failed_sync = mode
    run.commit({b"a": b"1"})
    before = run.vfs.io_points
    run.store.checkpoint("full")
    copied = run.vfs.io_points - before
    assert copied
    run.vfs.fail("sync", path_end=".m2m", at_call=1)
    run.store.close()
    assert files_of(run.vfs) >= {"", "-wal"}, "a close that failed leaves the log"
    run.vfs.clear_faults()

    open_store(run.vfs.fork_process()).close()

    assert files_of(run.vfs) == {""}
    for image in run.vfs.crash_images(run.vfs.io_points, Random(1), 10):
        assert contents(open_store(image.vfs())) == {(b"a", b"1")}, image


def test_s12_a_commit_is_not_refused_for_a_lock_that_could_not_be_given_up() -> None:
    """S12, ST3: the commit is published; WRITER is given up at the next use."""
    run = StoreRun(SimVfs(3))
    run.commit({b"a": b"1"})
    run.vfs.fail("unlock", error=errno.ENOLCK)

    run.commit({b"a": b"2"})

    other = open_store(run.vfs.fork_process(), timeout=0.0)
    with pytest.raises(OperationalError, match="locked"):
        other.begin_write()
    assert contents(run.store) == {(b"a", b"2")}
    other.begin_write().rollback()
    check(run.store)
    run.commit({b"b": value(1, 300)})


def test_a_batch_behind_a_single_row_is_no_fault_to_the_integrity_check() -> None:
    """The head's next rowid is that of the batch's segment, and newer than the delta's entry."""
    run = DatabaseRun(SimVfs(3))
    with small_thresholds():
        run.create()
        run.insert(1)
        run.insert(*range(10, 16))

    assert read_state(run.database) == run.history.states[-1]


# -- S3, S7, S8 ----------------------------------------------------------------------------------


def test_s3_recovery_may_be_crashed_at_every_point_and_so_may_what_follows_it() -> None:
    """S3: twice over one image of each point; what recovery has written it may write again."""
    explorer = Explorer(StoreLevel(), images=3, double_images=2)
    for _ in explorer.points("small_log", 1, "full", step=7):
        pass
    assert explorer.counts.double_crash_images > 20 * explorer.counts.crash_images / 3


@pytest.mark.parametrize("script", ["dead_writer", "refused"])
def test_s8_what_was_never_acknowledged_does_not_come_back_over_what_was(script: str) -> None:
    """S8: of a writer that died, and of a commit that failed and was taken back."""
    explorer = Explorer(StoreLevel(), images=6, one_everywhere=False)
    for _ in explorer.points(script, 2, "full", step=2):
        pass
    assert explorer.counts.crash_images > 50


def test_s7_normal_loses_commits_from_the_end_alone_and_off_none_to_a_dead_process() -> None:
    """S7: after a power loss a prefix; after a kill everything that was acknowledged."""
    lost = 0
    run = StoreRun(SimVfs(5), synchronous="normal")
    rows(run)
    for image in run.vfs.crash_images(run.vfs.io_points, Random(1), 50):
        found = contents(open_store(image.vfs()))
        assert found in run.history.states, image
        lost += found != run.history.states[-1]
    assert lost, "nothing waited for a sync"

    run = StoreRun(SimVfs(5), synchronous="off")
    rows(run)
    assert contents(open_store(run.vfs.process_crash())) == run.history.states[-1]


# -- S11 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["write", "allocate"])
def test_s11_a_full_disk_in_a_checkpoint_leaves_log_and_marks_as_they_were(kind: str) -> None:
    """S11: at each of its calls; the log still holds everything, and the next one copies it."""
    for number in range(1, 20):
        run = StoreRun(SimVfs(number))
        rows(run)
        reader = run.store.begin_read()
        before = run.store.stats()
        fault = run.vfs.fail(kind, at_call=number, error=errno.ENOSPC)
        try:
            run.store.checkpoint("passive")
        except OperationalError:
            assert run.store.stats() == before
        else:
            assert fault.calls_left > 0
            assert number > 1
            return
        run.vfs.clear_faults()
        for image in run.vfs.crash_images(run.vfs.io_points, Random(number), 6):
            assert contents(open_store(image.vfs())) == run.history.states[-1], image
        reader.close()
        run.commit({b"after": b"1"})
        run.checkpoint("truncate")
        check(run.store)
    raise AssertionError("a checkpoint of more calls than that")


def test_s11_space_is_had_before_it_is_written() -> None:
    """S11: in the log by zeros, for an extent by allocation; a full disk only rolls back."""
    run = StoreRun(SimVfs(5))
    run.commit({b"a": b"1"})
    for changes in ({b"x": value(1, 90_000)}, {b"y": value(2, 300_000)[:19_000]}):
        used = sum(len(file.pages) for file in run.vfs.machine.disk.files.values()) * 4096
        run.vfs.disk_size = used
        before = contents(run.store)
        transaction = run.store.begin_write()
        if len(changes.get(b"x", b"")):
            with pytest.raises(OperationalError, match="disk full"):
                change(transaction, dict(changes))
            transaction.rollback()
        else:
            for number in range(40):
                change(transaction, {b"y%d" % number: changes[b"y"]})
            with pytest.raises(OperationalError, match="disk full"):
                transaction.commit_now()
        assert contents(run.store) == before
        run.vfs.disk_size = None
        run.commit({b"a": run.model[b"a"] + b"+"})


# -- S12, S14 ------------------------------------------------------------------------------------


def test_s14_extents_that_were_rolled_back_to_a_savepoint_keep_their_pages_to_the_end() -> None:
    """S14: their bytes were written in place; a later extent lies elsewhere, also after a crash."""
    run = StoreRun(SimVfs(5))
    run.commit({b"e": value(1, 60_000)})
    run.commit({b"e": None})
    run.checkpoint("passive")
    transaction = run.store.begin_write()
    kept = {b"before": b"1", b"x1": value(2, 25_000)}
    change(transaction, dict(kept))
    token = transaction.savepoint()
    undone = [transaction.write_extent([value(3, 25_000)], 25_000) for _ in range(2)]
    transaction.rollback_to(token)
    written = transaction.write_extent([value(4, 25_000)], 25_000)
    taken = {page for each in undone for page in pages_of(each)}
    assert taken.isdisjoint(pages_of(written))
    transaction.rollback_to(token)
    change(transaction, {b"x2": value(5, 25_000)})

    run.finish(transaction, {**kept, b"x2": value(5, 25_000)})

    check(run.store)
    for point in range(run.vfs.io_points + 1):
        allowed = run.history.after_crash(point)
        for image in run.vfs.crash_images(point, Random(point), 3):
            store = open_store(image.vfs())
            assert contents(store) in allowed, image
            check(store)


def pages_of(extent: ExtentDescriptor) -> range:
    return range(extent.start_page, extent.start_page + extent.page_count)


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt, OperationalError])
def test_s12_any_exception_undoes_a_statement_and_no_more(error: type[BaseException]) -> None:
    """S12: the statement alone is undone; the commit that follows survives every crash."""
    run = StoreRun(SimVfs(5))
    run.commit({b"e": value(1, 30_000), b"a": b"1"})
    transaction = run.store.begin_write()
    change(transaction, {b"b": b"2"})
    token = transaction.begin_statement()
    with pytest.raises(error):
        change(transaction, {b"a": None, b"e": None, b"y": value(2, 30_000)})
        raise error
    transaction.undo_statement(token)

    run.finish(transaction, {b"b": b"2"})

    for image in run.vfs.crash_images(run.vfs.io_points, Random(1), 50):
        store = open_store(image.vfs())
        assert contents(store) == run.history.states[-1]
        check(store)
