"""Rules that keep data, one by one, at the moments when breaking them would lose some.

The campaign finds a broken rule somewhere (`test_mutants.py`); here stands, by the rule's number,
what exactly must be on the disk, and every bug that the campaign has found.
"""

from __future__ import annotations

import errno
from random import Random

import pytest

from m2mdb.pager.errors import OperationalError
from m2mdb.pager.sim_vfs import SimVfs
from tests.sim.store_runs import PATH, StoreRun, check, contents, open_store, value


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
