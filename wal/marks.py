"""Marks: how a reader keeps its snapshot from being overwritten, and how others find out.

    free --lock exclusive, write, lock shared--> live --unlock--> free (what it said stays behind)

A reader that finds its own last mark still in its slot, and still right, needs no exclusive lock:
it takes the shared one and looks again.

Invariants
    MK1 A mark changes only under its slot's exclusive lock (S2).
    MK2 After the mark is live the reader looks at the end again, and retries if it moved (S2):
        whoever looked for marks before saw an end that is not newer than the mark.
    MK3 Within one store a slot is held once, and counted: its file's own locks do not exclude
        each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m2mdb.pager.errors import DatabaseBusyError
from m2mdb.wal.locks import READER, SLOTS
from m2mdb.wal.shared import Mark, SharedState

if TYPE_CHECKING:
    from m2mdb.wal.locks import Locks


class Marks:
    """The slots of one store."""

    __slots__ = ("_counts", "_locks", "_preferred", "_shared", "held")

    def __init__(self, shared: SharedState, locks: Locks, first: int) -> None:
        """`first` is the slot to try first; stores should differ in it."""
        self._shared = shared
        self._locks = locks
        self._preferred = first % SLOTS
        self._counts: dict[int, int] = {}
        self.held: dict[bytes, int] = {}  # mark -> slot that this store holds for it

    def take(self, raw: bytes) -> int:
        """Make a mark live; returns its slot. Raises DatabaseBusyError: all are taken, unfit."""
        slot = self.held.get(raw)
        if slot is None:
            slot = self._take_slot(raw)
        self._counts[slot] = self._counts.get(slot, 0) + 1
        return slot

    def _take_slot(self, raw: bytes) -> int:
        slot = self._preferred
        if slot in self._counts or not self._take(slot, raw):
            slot = self._any_slot(raw)
        self.held[raw] = slot
        return slot

    def _take(self, slot: int, raw: bytes) -> bool:
        locks, shared = self._locks, self._shared
        offset = READER + slot
        if shared.mark_bytes(slot) == raw:
            if not locks.shared(offset):
                return False
            if shared.mark_bytes(slot) == raw:
                return True
            locks.drop(offset)
        if not locks.exclusive(offset):
            return False
        shared.set_mark(slot, raw)
        if locks.shared(offset):
            return True
        locks.drop(offset)
        return False

    def _any_slot(self, raw: bytes) -> int:
        for step in range(1, SLOTS):
            slot = (self._preferred + step) % SLOTS
            if slot not in self._counts and self._take(slot, raw):
                self._preferred = slot
                return slot
        return self._share(raw)

    def _share(self, raw: bytes) -> int:
        """All slots are taken: join the oldest mark that protects at least as much (S1)."""
        shared, locks = self._shared, self._locks
        wanted = shared.decode_mark(raw)
        found = []
        for slot in range(SLOTS):
            mark = shared.decode_mark(shared.mark_bytes(slot))
            if slot not in self._counts and protects(mark, wanted):
                found.append((mark.commit, slot, mark))
        for _, slot, mark in sorted(found):
            if locks.shared(READER + slot):
                if shared.decode_mark(shared.mark_bytes(slot)) == mark:
                    return slot
                locks.drop(READER + slot)
        raise DatabaseBusyError(f"all {SLOTS} reader marks are taken")

    def drop(self, slot: int) -> None:
        """A snapshot that held the slot ends."""
        count = self._counts[slot] - 1
        if count:
            self._counts[slot] = count
            return
        for raw, held in list(self.held.items()):
            if held == slot:
                del self.held[raw]
        del self._counts[slot]
        self._locks.drop(READER + slot)

    def live(self) -> list[Mark]:
        """The marks of all live snapshots, this store's too.

        A slot is taken exclusively to find out whether it is dead; a dead one of another store is
        emptied, so that the next look is cheap.
        """
        shared, locks = self._shared, self._locks
        found = []
        for slot in shared.used_slots():
            if slot not in self._counts and locks.exclusive(READER + slot):
                if slot != self._preferred:
                    shared.clear_mark(slot)
                locks.drop(READER + slot)
                continue
            found.append(shared.decode_mark(shared.mark_bytes(slot)))
        return found


def protects(mark: Mark, wanted: Mark) -> bool:
    """Whether a live mark keeps all that the wanted one would."""
    if not 0 <= mark.commit <= wanted.commit:
        return False
    if not wanted.end:
        return True
    return mark.end > 0 and mark.generation == wanted.generation
