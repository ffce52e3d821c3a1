"""Every I/O point of small workloads, crashed, reopened and checked.

For each point several disks that a power loss may leave: the store must open, hold exactly a
state that the history allows, be sound, take one more commit and keep it over the next crash.
"""

from __future__ import annotations

import errno
from random import Random

import pytest

from m2mdb.pager.errors import OperationalError
from m2mdb.pager.io_errors import is_disk_full
from m2mdb.pager.sim_vfs import SimImage, SimVfs
from tests.sim.history import ROUNDS

pytest.importorskip("m2mdb.wal.store")

from tests.sim.store_runs import (
    SCRIPTS,
    Found,
    StoreRun,
    change,
    check,
    contents,
    open_store,
    value,
)

IMAGES = 4 * ROUNDS  # disks per I/O point
DOUBLE_EVERY = 29  # one image in so many is crashed again at every point of its recovery
MORE = (b"more", b"one more")


def run_script(name: str, **options: object) -> StoreRun:
    run = StoreRun(SimVfs(seed=len(name)), **options)
    SCRIPTS[name](run)
    return run


def recover(vfs: SimVfs, allowed: list[Found], where: object) -> Found:
    """Open, check, and give the state found, which must be an allowed one."""
    store = open_store(vfs)
    found = contents(store)
    assert found in allowed, f"{where}: {describe(found)} not in {[describe(a) for a in allowed]}"
    check(store)
    return found


def describe(state: Found) -> str:
    return ", ".join(f"{key.decode()}={text[:8]!r}+{len(text)}" for key, text in sorted(state))


def commit_more(vfs: SimVfs, found: Found) -> Found:
    """One more commit on a recovered machine."""
    store = open_store(vfs)
    transaction = store.begin_write()
    change(transaction, dict([MORE]))
    transaction.commit_now()
    after = frozenset({*((k, v) for k, v in found if k != MORE[0]), MORE})
    assert contents(store) == after
    return after


def survive(image: SimImage, allowed: list[Found], *, double: bool) -> None:
    """Recover on an image, commit, lose power again, recover again."""
    machine = image.vfs()
    found = recover(machine, allowed, image)
    recovery_points = machine.io_points
    after = commit_more(machine, found)
    rng = Random(image.point)
    for second in machine.crash_images(machine.io_points, rng, 2):
        recover(second.vfs(), [after], (image, second))
    if double:
        for point in range(recovery_points):
            for second in machine.crash_images(point, rng, 3):
                recover(second.vfs(), [found], (image, second))


@pytest.mark.parametrize("script", sorted(SCRIPTS))
@pytest.mark.parametrize("synchronous", ["full", "normal"])
def test_power_loss_at_every_point(script: str, synchronous: str) -> None:
    run = run_script(script, synchronous=synchronous)
    count = 0
    for point in range(run.vfs.io_points + 1):
        allowed = run.history.after_crash(point)
        for image in run.vfs.crash_images(point, Random(point), IMAGES):
            count += 1
            survive(image, allowed, double=count % DOUBLE_EVERY == 0)


@pytest.mark.parametrize("script", sorted(SCRIPTS))
@pytest.mark.parametrize("synchronous", ["full", "off"])
def test_kill_at_every_point(script: str, synchronous: str) -> None:
    run = run_script(script, synchronous=synchronous)
    for point in range(run.vfs.io_points + 1):
        machine = run.vfs.kill_image(point)
        found = recover(machine, run.history.after_kill(point), f"killed at {point}")
        after = commit_more(machine, found)
        for image in machine.crash_images(machine.io_points, Random(point), 2):
            recover(image.vfs(), [after], (point, image))


@pytest.mark.parametrize("once", [True, False])
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_an_error_at_the_nth_call_loses_nothing(script: str, error: int, once: bool) -> None:
    total = run_script(script).vfs.io_points
    for number in range(1, total + 1, max(1, 3 // ROUNDS)):
        vfs = SimVfs(number)
        vfs.fail("change", at_call=number, error=error, once=once)
        run: StoreRun | None = None
        try:
            run = StoreRun(vfs)
            SCRIPTS[script](run)
        except OperationalError:
            pass
        allowed = run.history.after_kill(vfs.io_points) if run else [frozenset()]
        vfs.clear_faults()
        machine = vfs.process_crash()
        found = recover(machine, allowed, f"errno {error} at call {number}")
        after = commit_more(machine, found)
        for image in machine.crash_images(machine.io_points, Random(number), 2):
            recover(image.vfs(), [after], (number, image))


def test_a_full_disk_refuses_the_commit_and_no_more() -> None:
    """S11: space is had before it is written, so that only the transaction is lost."""
    run = run_script("rows")
    used = sum(len(file.pages) for file in run.vfs.machine.disk.files.values()) * 4096
    for spare in (0, 8192, 65_536, 400_000):
        run.vfs.disk_size = used + spare
        with pytest.raises(OperationalError) as caught:
            for number in range(100):
                run.commit({b"fill%d" % number: value(number, 100_000)})
        assert is_disk_full(caught.value)
        assert contents(run.store) == frozenset(run.model.items())
        run.vfs.disk_size = None
        run.commit({b"again": b"%d" % spare})
        check(run.store)
        run.checkpoint("truncate")
        used = sum(len(file.pages) for file in run.vfs.machine.disk.files.values()) * 4096


@pytest.mark.parametrize("mode", ["some", "none", "revert", "keep"])
def test_a_failed_sync_poisons_every_process_until_one_recovers(mode: str) -> None:
    """S11."""
    run = run_script("rows")
    run.vfs.failed_sync = mode
    other_process = run.vfs.fork_process()
    other = open_store(other_process)
    run.vfs.fail("sync", path_end="-wal")

    with pytest.raises(OperationalError, match="unknown"):
        run.commit({b"doubtful": b"?"})
    for store in (run.store, other):
        with pytest.raises(OperationalError):
            store.begin_write()

    allowed = run.history.after_kill(run.vfs.io_points)
    run.store.close()
    other.close()
    machine = run.vfs.fork_process()
    found = recover(machine, allowed, mode)
    after = commit_more(machine, found)
    for image in machine.crash_images(machine.io_points, Random(1), 3):
        recover(image.vfs(), [after], image)
