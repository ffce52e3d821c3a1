"""A log that is cut when it is begun anew, with the power lost at every point (S28, S10)."""

from __future__ import annotations

from random import Random

import pytest

from m2mdb.pager.sim_vfs import SimVfs
from tests.sim.store_runs import StoreRun, open_store, value
from tests.sim.test_crash_points import survive

IMAGES = 4  # disks per I/O point


def limited(run: StoreRun, limit: int) -> None:
    """Logs that grow, are begun anew and cut, by checkpoints and by writers of two processes."""
    run.store.journal_size_limit = limit
    run.commit({b"a": value(1, 40_000), b"b": b"1"})
    run.checkpoint("restart")
    run.commit({b"a": value(2, 3_000)})
    run.checkpoint("passive")
    run.commit({b"b": value(3, 60_000)})
    other = open_store(run.vfs.fork_process(), **run.options)
    reader = other.begin_read()
    run.commit({b"b": b"2", b"c": value(4, 9_000)})
    run.store.checkpoint("passive")
    reader.close()
    run.checkpoint("passive")
    run.store, other = other, run.store  # this one knows the length that the log had
    run.commit({b"c": b"3"})
    run.store, other = other, run.store
    run.commit({b"a": None})
    other.close()
    run.checkpoint("truncate")
    run.commit({b"d": b"4"})
    run.reopen()


@pytest.mark.parametrize("limit", [0, 30_000])
@pytest.mark.parametrize("synchronous", ["full", "normal"])
def test_s28_a_log_cut_by_its_limit_loses_nothing(synchronous: str, limit: int) -> None:
    run = StoreRun(SimVfs(limit + 1), synchronous=synchronous, page_size=4096)
    limited(run, limit)
    count = 0
    for point in range(run.vfs.io_points + 1):
        allowed = run.history.after_crash(point)
        for image in run.vfs.crash_images(point, Random(point), IMAGES):
            count += 1
            survive(image, allowed, double=count % 61 == 0)
