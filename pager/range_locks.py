"""Range locks: byte-range locks between open files inside one process.

What the kernel does for `OsFile`, for the files of `MemoryVfs` and `SimVfs`: an owner's own locks
are split and converted, another's conflict when they overlap and one of the two is exclusive.
"""

from __future__ import annotations

import threading


class RangeLocks:
    """The locks on one file; an owner is any object, compared by identity."""

    __slots__ = ("_guard", "_held")

    def __init__(self) -> None:
        self._held: list[tuple[object, int, int, bool]] = []
        self._guard = threading.Lock()

    def lock(self, owner: object, offset: int, size: int, *, exclusive: bool) -> bool:
        """Take or convert a range for the owner; False, and nothing changed, on a conflict."""
        end = offset + size
        with self._guard:
            for holder, first, last, strong in self._held:
                if holder is not owner and first < end and offset < last and (exclusive or strong):
                    return False
            self._cut(owner, offset, end)
            self._held.append((owner, offset, end, exclusive))
            return True

    def unlock(self, owner: object, offset: int, size: int) -> None:
        """Give up the owner's locks on the range, splitting what reaches beyond it."""
        with self._guard:
            self._cut(owner, offset, offset + size)

    def drop(self, owner: object) -> None:
        """Give up all locks of the owner."""
        with self._guard:
            self._held = [held for held in self._held if held[0] is not owner]

    def held(self) -> list[tuple[object, int, int, bool]]:
        """(owner, start, end, exclusive) of each lock."""
        with self._guard:
            return list(self._held)

    def _cut(self, owner: object, offset: int, end: int) -> None:
        kept = []
        for held in self._held:
            holder, first, last, strong = held
            if holder is not owner or last <= offset or first >= end:
                kept.append(held)
                continue
            if first < offset:
                kept.append((owner, first, offset, strong))
            if last > end:
                kept.append((owner, end, last, strong))
        self._held = kept
