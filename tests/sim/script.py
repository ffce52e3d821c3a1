"""Scripts: one exact interleaving, told as who goes how far.

    Script((0, before("lock", CHECKPOINT)), (1, END), (0, END))

lets process 0 go up to where it is about to take CHECKPOINT, then process 1 until it waits, parks
or ends, then process 0 again. A script that does not fit the run is an error: no race is missed
because the code has changed.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.sim.scheduler import KILL, Process
from tests.sim.steps import Step

Stop = Callable[[Step], bool]


def END(step: Step) -> bool:
    """No step: until the process waits, parks or ends."""
    return False


def before(kind: str, offset: int | None = None, path: str = "") -> Stop:
    """The step of a kind, at an offset, of a file whose path ends so."""

    def stop(step: Step) -> bool:
        return (
            step.kind == kind
            and (offset is None or step.offset == offset)
            and step.path.endswith(path)
        )

    return stop


class Script:
    """The policy that follows a script; behind its end, everything takes its course."""

    def __init__(self, *parts: tuple[int, Stop], kill_at: int = -1) -> None:
        """`kill_at`: the process dies where this part stops."""
        self._parts = parts
        self._kill_at = kill_at
        self._at = -1
        self.trace: list[str] = []

    def at_switch(self, candidates: list[Process], number: int) -> int | None:
        """The process of the next part."""
        if 0 <= self._at < len(self._parts) and self._at != self._kill_at:
            index, stop = self._parts[self._at]
            assert stop is END, f"process {index} did not come to the end of part {self._at}"
        self._at += 1
        if self._at >= len(self._parts):
            return candidates[0].index
        index = self._parts[self._at][0]
        found = [process.index for process in candidates]
        assert index in found, f"part {self._at}: process {index} cannot go on, {found} can"
        return index

    def at_point(self, process: Process, number: int, step: Step) -> int | None:
        """Whether the part ends before this step."""
        if self._at >= len(self._parts) or not self._parts[self._at][1](step):
            return None
        if self._at == self._kill_at:
            return KILL
        self._at += 1
        if self._at >= len(self._parts):
            return None
        index = self._parts[self._at][0]
        return None if index == process.index else index

    def done(self, process: Process, step: Step) -> None:
        """Kept to be looked at."""
        self.trace.append(f"{process.index} {step}")

    @property
    def is_done(self) -> bool:
        """Whether every part was followed."""
        last = len(self._parts) - 1
        return self._at > last or (self._at == last and self._parts[last][1] is END)
