"""What a workload promised, and when: which states a crash at an I/O point may leave."""

from __future__ import annotations

import os
from collections.abc import Hashable
from typing import Generic, TypeVar

from m2mdb.pager.sim_vfs import SimVfs

State = TypeVar("State", bound=Hashable)

ROUNDS = int(os.environ.get("M2M_SIM_ROUNDS", "1"))  # multiplies the images of every I/O point


class History(Generic[State]):
    """The committed states of a run in order, each with the I/O points around its commit."""

    def __init__(self, vfs: SimVfs, empty: State) -> None:
        self.vfs = vfs
        self.states: list[State] = [empty]
        self.started = [0]
        self.acknowledged: list[int | None] = [0]
        self.floors: list[tuple[int, int]] = [(0, 0)]  # (I/O point, state durable from there on)
        self.abandoned: dict[int, int] = {}  # state -> I/O point from which it never comes back

    def begin(self, state: State) -> None:
        """A commit that leads to `state` is about to be asked for."""
        self.states.append(state)
        self.started.append(self.vfs.io_points)
        self.acknowledged.append(None)

    def acknowledge(self, *, durable: bool = True) -> None:
        """The commit has returned; `durable` promises that it outlives a power loss."""
        self.acknowledged[-1] = self.vfs.io_points
        if durable:
            self.floor()

    def abandon(self) -> None:
        """The newest commit, if it was not acknowledged, can come back no more (S8)."""
        last = len(self.states) - 1
        if self.acknowledged[last] is None:
            self.abandoned.setdefault(last, self.vfs.io_points)

    def floor(self) -> None:
        """All that was acknowledged so far is promised to outlive a power loss."""
        last = max(i for i, point in enumerate(self.acknowledged) if point is not None)
        self.floors.append((self.vfs.io_points, last))

    def after_crash(self, point: int) -> list[State]:
        """What a power loss during I/O point `point` may leave: a prefix, not below the floor."""
        floor = max(state for at, state in self.floors if at <= point)
        return self._between(floor, point)

    def after_kill(self, point: int) -> list[State]:
        """What the death of the process before I/O point `point` may leave."""
        done = [i for i, at in enumerate(self.acknowledged) if at is not None and at <= point]
        return self._between(max(done), point)

    def _between(self, oldest: int, point: int) -> list[State]:
        newest = max(i for i, start in enumerate(self.started) if start <= point)
        gone = {i for i, at in self.abandoned.items() if at <= point}
        return [self.states[i] for i in range(oldest, newest + 1) if i not in gone]
