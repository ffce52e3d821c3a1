"""The campaign: VACUUM, VACUUM INTO and backups of random databases, crashed at every point."""

from __future__ import annotations

import contextlib
import errno
import time
from random import Random

from m2mdb.pager.errors import OperationalError
from m2mdb.pager.sim_vfs import SimVfs
from m2mdb.query.executor import execute
from tests.vacuum import test_crashes as crashes
from tests.vacuum.cases import everything, insert, opened

COUNTS = ("crash_images", "double_crash_images", "io_points", "io_errors_injected")


class _TimeIsOverError(Exception):
    """What was counted counts."""


class _Round:
    """One database and one kind of work on it, drawn from a seed."""

    def __init__(self, seed: int, counts: dict[str, int], deadline: float) -> None:
        self.rng = Random(seed)
        self.seed = seed
        self.counts = counts
        self.deadline = deadline
        self.work = self.rng.choice(crashes.WORKS)
        self.where = f"tests.vacuum.campaign, seed {seed}, {self.work.__name__}"

    def explore(self) -> None:
        """Every I/O point: images of a power loss, some of them crashed again, and a kill."""
        vfs = SimVfs(self.seed)
        start = self._run(vfs)
        for point in range(start, vfs.io_points + 1):
            self.counts["io_points"] += 1
            for image in vfs.crash_images(point, Random(f"{self.seed}/{point}"), 12):
                self._survive(image.vfs(), f"{self.where}, {image}")
                self.counts["crash_images"] += 1
                if self.rng.random() < 0.05:
                    self._again(image.vfs(), f"{self.where}, {image}")
            self._survive(vfs.kill_image(point), f"{self.where}, killed at {point}")

    def fail(self) -> None:
        """An error at one call of the work, once or from then on."""
        vfs = SimVfs(self.seed)
        call = self.rng.randrange(1, 80)
        error = self.rng.choice((errno.EIO, errno.ENOSPC, errno.EINTR, errno.EACCES))
        once = call % 2 == 0
        with contextlib.suppress(OperationalError):
            self._run(vfs, lambda: vfs.fail("change", at_call=call, error=error, once=once))
        vfs.clear_faults()
        self._survive(
            vfs.process_crash(), f"{self.where}, errno {error} at call {call}, once {once}"
        )
        self.counts["io_errors_injected"] += 1

    def _run(self, vfs: SimVfs, before_work: object = None) -> int:
        """Build, and do the work; returns the I/O point at which it began."""
        database = crashes.build(vfs, seed=self.seed)
        rng = self.rng
        for _ in range(rng.randrange(3)):
            first = rng.randrange(2000, 9000)
            insert(database, "more", rng, range(first, first + rng.choice((3, 520))), longest=60)
            execute(database, f"DELETE FROM more WHERE id >= {first} AND id % 3 > 0")
            execute(database, f"DELETE FROM more WHERE id >= {first} AND id < 9999")
        self.before = None
        if self.work is crashes.back_up:
            target = crashes.build(vfs, crashes.COPY, seed=self.seed + 1)
            self.before = everything(target)
            target.close()
        self.source = everything(database)
        start = vfs.io_points
        if callable(before_work):
            before_work()
        self.work(database)
        database.close()
        return start

    def _survive(self, vfs: SimVfs, where: str) -> int:
        """Recover, look at everything; the I/O points that it took."""
        if time.monotonic() > self.deadline:
            raise _TimeIsOverError
        database = opened(vfs)
        points = vfs.io_points
        assert everything(database) == self.source, where
        if self.work is not crashes.shrink and vfs.exists(crashes.COPY):
            copy = opened(vfs, crashes.COPY)
            assert everything(copy) in (self.before, self.source), where
            copy.close()
        else:
            assert self.before is None or self.work is crashes.shrink, f"{where}: no target"
        insert(database, "other", Random(3), range(10_000, 10_520), longest=10)
        execute(database, "DELETE FROM other WHERE id >= 10000")
        assert everything(database) == self.source, where
        database.close()
        return points

    def _again(self, vfs: SimVfs, where: str) -> None:
        """Crash at every point of the recovery."""
        opened(vfs).close()
        for point in range(vfs.io_points + 1):
            for image in vfs.crash_images(point, Random(f"{self.seed}//{point}"), 3):
                self._survive(image.vfs(), f"{where}, then {image}")
                self.counts["double_crash_images"] += 1


def campaign(seconds: float, seed: int) -> dict[str, int]:
    """Work for about so many seconds; AssertionError says how to see a failure again."""
    counts = dict.fromkeys(COUNTS, 0)
    deadline = time.monotonic() + seconds
    number = seed * 1000
    while time.monotonic() < deadline:
        try:
            _Round(number, counts, deadline).explore()
            for step in range(5):
                _Round(number + 500_000 + step, counts, deadline).fail()
        except _TimeIsOverError:
            break
        number += 1
    return counts
