"""The interleaver: locks exclude, the order follows the seed, and missing locks are found."""

from __future__ import annotations

from random import Random

from m2mdb.pager.sim_vfs import SimVfs
from tests.sim.interleave import Interleaving

FAR = 1 << 62


def count_up(vfs: SimVfs, *, locked: bool) -> None:
    file = vfs.open("d/x", create=True)
    for _ in range(5):
        while locked and not file.lock(FAR, 1, exclusive=True):
            vfs.sleep(0.01)
        value = int.from_bytes(file.read_at(0, 8), "little")
        file.write_at(0, (value + 1).to_bytes(8, "little"))
        if locked:
            file.unlock(FAR, 1)


def total(seed: int, *, locked: bool) -> tuple[int, list[int]]:
    vfs = SimVfs(seed)
    interleaving = Interleaving(vfs, Random(seed))
    for _ in range(3):
        interleaving.add(lambda face: count_up(face, locked=locked))
    interleaving.run()
    value = int.from_bytes(vfs.open("d/x").read_at(0, 8), "little")
    return value, [operation.process for operation in vfs.log]


def test_locked_processes_lose_no_update() -> None:
    for seed in range(10):
        assert total(seed, locked=True)[0] == 15


def test_missing_locks_are_found() -> None:
    assert any(total(seed, locked=False)[0] < 15 for seed in range(5))


def test_the_seed_gives_the_order() -> None:
    assert total(3, locked=True) == total(3, locked=True)
    assert len({tuple(total(seed, locked=True)[1]) for seed in range(5)}) > 1
