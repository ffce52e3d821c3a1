"""AS OF after a power loss and after a kill: what was kept is kept."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from m2mdb.pager.sim_vfs import SimVfs
from tests.past.history import History, small_thresholds

STEPS = 24


@pytest.fixture(autouse=True)
def thresholds() -> Iterator[None]:
    with small_thresholds():
        yield


def go_on(history: History, vfs: SimVfs, point: int) -> None:
    """Recover, look at every kept commit, go on and look again."""
    acknowledged = max(commit for points, commit in history.acknowledged if points <= point)
    found = history.moved_to(vfs)
    assert found.commit >= acknowledged, f"{found.why(found.commit)}, crash at point {point}"
    found.check()
    for _ in range(3):
        found.step()
    found.check()
    found.database.close()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_s25_a_crash_takes_nothing_of_the_past(seed: int) -> None:
    machine = SimVfs(seed)
    history = History(seed, keep=9, vfs=machine)
    started = machine.io_points
    for _ in range(STEPS):
        history.step()
    rng = Random(seed)

    for point in rng.sample(range(started, machine.io_points), 5):
        for image in machine.crash_images(point, rng, 2):
            go_on(history, image.vfs(), point)
    for point in rng.sample(range(started, machine.io_points), 3):
        go_on(history, machine.kill_image(point), point)
