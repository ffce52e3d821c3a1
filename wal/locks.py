"""Locks: which byte ranges of the main file mean what, and how to wait for one.

The ranges lie beyond any data (S1); locks belong to the open file and vanish with its process.

    OPENING     one connection at a time finds out who is there
    ATTACH      shared while a connection is open; exclusive for recovery and the last close
    CHECKPOINT  one checkpoint at a time
    WRITER      one writer at a time
    READER i    exclusive while slot i's mark changes, shared while a snapshot lives by it

Order: OPENING, ATTACH, CHECKPOINT, WRITER, READER. A lock out of order is only ever *tried*: who
does not wait closes no circle.

Invariants
    K1  No wait is longer than the timeout, and none sleeps while it holds a lock out of order.
    K2  A busy error names the file, the lock, the process that took it last, and the time waited.
    K3  A call that is interrupted gives its locks up before it ends, also where the interrupt came
        while it did so: nobody is kept waiting until the connection is used again. What two
        interrupts leave is given up at the next use (ST3).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from m2mdb.pager.errors import DatabaseBusyError

if TYPE_CHECKING:
    from m2mdb.pager.vfs import File, Vfs

BASE = 1 << 62  # no file is as long
ATTACH = BASE
CHECKPOINT = BASE + 1
WRITER = BASE + 2
OPENING = BASE + 3
READER = BASE + 8
SLOTS = 126

_DELAYS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01)  # seconds; the last one repeats

BusyHandler = Callable[[int], bool]  # gets how often it was asked; False gives up


class Locks:
    """The locks of one open main file; with `enabled` false every one is had (nolock)."""

    __slots__ = ("_enabled", "_lock", "_unlock")

    def __init__(self, file: File, *, enabled: bool = True) -> None:
        self._enabled = enabled
        self._lock = file.lock
        self._unlock = file.unlock

    def exclusive(self, offset: int) -> bool:
        """Try to take or convert a lock; False when another holder prevents it."""
        return not self._enabled or self._lock(offset, 1, exclusive=True)

    def shared(self, offset: int) -> bool:
        """Try to take or convert a lock to shared."""
        return not self._enabled or self._lock(offset, 1, exclusive=False)

    def drop(self, offset: int) -> None:
        """Give a lock up."""
        if self._enabled:
            self._unlock(offset, 1)


class Patience:
    """How long to wait for a lock: a timeout, or the program's own handler."""

    __slots__ = ("handler", "timeout", "vfs")

    def __init__(self, vfs: Vfs, timeout: float) -> None:
        self.vfs = vfs
        self.timeout = timeout
        self.handler: BusyHandler | None = None

    def wait(self, attempt: Callable[[], bool], complaint: Callable[[], str]) -> None:
        """Repeat `attempt` until it succeeds.

        Raises DatabaseBusyError with `complaint()` when the time is over (K2).
        """
        if attempt():
            return
        start = self.vfs.monotonic()
        count = 0
        while True:
            self._pause(count, start, complaint)
            if attempt():
                return
            count += 1

    def _pause(self, count: int, start: float, complaint: Callable[[], str]) -> None:
        if self.handler is not None:
            if not self.handler(count):
                raise DatabaseBusyError(complaint())
            return
        waited = self.vfs.monotonic() - start
        if waited >= self.timeout:
            raise DatabaseBusyError(f"{complaint()}; waited {waited:.1f} s")
        delay = _DELAYS[min(count, len(_DELAYS) - 1)]
        self.vfs.sleep(min(delay, self.timeout - waited + 0.0001))
