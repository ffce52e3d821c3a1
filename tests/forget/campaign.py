"""FORGET crashed at every I/O point, for as long as it is given (S26).

python -m tests.reliability --only forget --minutes 5
"""

from __future__ import annotations

import time
from random import Random
from unittest.mock import patch

from m2mdb.index import writer
from m2mdb.pager.sim_vfs import SimVfs
from tests.forget.scripts import COUNT, DELETED, UNTOUCHED, Case, filled, forget, settle, statuses
from tests.forget.traces import assert_gone, files_of

KEYS = ("crash_images", "double_crash_images", "io_points")


def campaign(seconds: float, seed: int) -> dict[str, int]:
    """Machine after machine, each from its own seed, every point of FORGET crashed and reopened."""
    counts = dict.fromkeys(KEYS, 0)
    deadline = time.monotonic() + seconds
    rng = Random(f"forget {seed}")
    with patch.object(writer, "SEGMENT_ROWS", 8):
        while time.monotonic() < deadline:
            _one_machine(rng.randrange(1 << 32), deadline, counts)
    return counts


def _one_machine(seed: int, deadline: float, counts: dict[str, int]) -> None:
    rng = Random(seed)
    synchronous = rng.choice(["full", "normal"])
    rows = [number for number in range(COUNT) if number not in (*DELETED, UNTOUCHED)]
    case = Case(rng.sample(rows, rng.randint(1, len(rows))))
    vfs = SimVfs(seed=seed)
    database = filled(vfs, synchronous)
    database.checkpoint("full")
    start = vfs.io_points
    forget(database, case.gone)
    assert statuses(database) == ["done"], f"seed {seed}"
    end = vfs.io_points
    database.close()
    points = list(range(start, vfs.io_points + 1))
    rng.shuffle(points)
    for point in points:
        if time.monotonic() > deadline:
            return
        where = f"machine {seed}, synchronous {synchronous}, I/O point {point}"
        _one_point((vfs, case), point, where, counts, is_done=point >= end)


def _one_point(
    run: tuple[SimVfs, Case], point: int, where: str, counts: dict[str, int], *, is_done: bool
) -> None:
    rng = Random(where)
    vfs, case = run
    counts["io_points"] += 1
    for number, image in enumerate(vfs.crash_images(point, rng, 3)):
        machine = image.vfs()
        if is_done:
            assert_gone(files_of(machine), case.needles)
        settle(machine, f"{where}, image {number}: {image}", case)
        counts["crash_images"] += 1
        second_point = rng.randrange(machine.io_points + 1)
        for second in machine.crash_images(second_point, rng, 1):
            again = f"{where}, image {number}, crashed again at {second_point}"
            settle(second.vfs(), again, case)
            counts["double_crash_images"] += 1
