"""Marks: how a reader keeps its snapshot from being overwritten, and how others find out.

    free --lock exclusive, write, lock shared--> live --unlock--> free (what it said stays behind)

A reader that finds its own last mark still in its slot, and still right, needs no exclusive lock:
it takes the shared one and looks again.

Invariants
    MK1 A mark changes only under its slot's exclusive lock (S2).
    MK2 After the mark is live the reader looks at the end again, and retries if it moved (S2):
        whoever looked for marks before saw an end that is not newer than the mark.
    MK3 Within one store a slot is held once, for all its snapshots of that mark: the locks of one
        open file do not exclude each other.
    MK4 Whatever an interrupt leaves, a slot that no living snapshot holds is found by `sweep`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m2mdb.pager.errors import DatabaseBusyError
from m2mdb.wal.locks import READER, SLOTS
from m2mdb.wal.shared import Mark, SharedState

if TYPE_CHECKING:
    from m2mdb.wal.locks import Locks


class Marks:
    """The slots of one store; its snapshots are known by numbers."""

    __slots__ = ("_held", "_locks", "_preferred", "_shared", "_slot_of")

    def __init__(self, shared: SharedState, locks: Locks, first: int) -> None:
        """`first` is the slot to try first; stores should differ in it."""
        self._shared = shared
        self._locks = locks
        self._preferred = first % SLOTS
        self._slot_of: dict[int, int] = {}  # of each live snapshot of this store
        self._held: dict[bytes, int] = {}  # mark -> slot that this store holds for it

    def take(self, raw: bytes, snapshot: int) -> None:
        """Make a mark live for a snapshot. Raises DatabaseBusyError: all are taken, unfit."""
        slot = self._held.get(raw)
        if slot is None:
            slot = self._take_slot(raw)
        self._slot_of[snapshot] = slot

    def _take_slot(self, raw: bytes) -> int:
        slot = self._preferred
        if slot in self._slot_of.values() or not self._take(slot, raw):
            slot = self._any_slot(raw)
        self._held[raw] = slot
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
        own = self._slot_of.values()
        for step in range(1, SLOTS):
            slot = (self._preferred + step) % SLOTS
            if slot not in own and self._take(slot, raw):
                self._preferred = slot
                return slot
        return self._share(raw)

    def _share(self, raw: bytes) -> int:
        """All slots are taken: join the oldest mark that protects at least as much (S1)."""
        shared, locks = self._shared, self._locks
        wanted = shared.decode_mark(raw)
        own = self._slot_of.values()
        found = []
        for slot in range(SLOTS):
            mark = shared.decode_mark(shared.mark_bytes(slot))
            if protects(mark, wanted):
                found.append((mark.commit, slot, mark))
        for _, slot, mark in sorted(found):
            if slot in own:
                return slot  # live already, and nobody changes it
            if locks.shared(READER + slot):
                if shared.decode_mark(shared.mark_bytes(slot)) == mark:
                    return slot
                locks.drop(READER + slot)
        raise DatabaseBusyError(f"all {SLOTS} reader marks are taken")

    def drop(self, snapshot: int) -> None:
        """A snapshot ends; one that has no mark is no error."""
        slot = self._slot_of.pop(snapshot, None)
        if slot is not None and slot not in self._slot_of.values():
            self._forget(slot)
            self._locks.drop(READER + slot)

    def _forget(self, slot: int) -> None:
        self._held = {raw: held for raw, held in self._held.items() if held != slot}

    def sweep(self) -> None:
        """Give up every slot that no snapshot of this store holds: an interrupt may have left one.

        The lock of a slot is dropped after what says that it is held.
        """
        own = set(self._slot_of.values())
        self._held = {raw: held for raw, held in self._held.items() if held in own}
        for slot in range(SLOTS):
            if slot not in own:
                self._locks.drop(READER + slot)

    def live(self, *, others: bool = False, without: int = 0) -> list[Mark]:
        """The marks of all live snapshots, this store's too unless only `others` are asked for.

        One that only this store's snapshot of number `without` needs does not count. A slot is
        taken exclusively to find out whether it is dead; a dead one of another store is emptied,
        so that the next look is cheap.
        """
        try:
            return self._live(others, without)
        except BaseException:
            self.sweep()  # K3
            raise

    def _live(self, others: bool, without: int) -> list[Mark]:
        shared, locks = self._shared, self._locks
        own = self._slot_of.values()
        found = []
        for slot in shared.used_slots():
            if slot not in own and locks.exclusive(READER + slot):
                if slot != self._preferred:
                    shared.clear_mark(slot)
                locks.drop(READER + slot)
                continue
            if slot in own and (others or not self._is_needed(slot, without)):
                continue
            found.append(shared.decode_mark(shared.mark_bytes(slot)))
        return found

    def _is_needed(self, slot: int, without: int) -> bool:
        """Whether another snapshot of this store lives by a slot."""
        return any(at == slot for number, at in self._slot_of.items() if number != without)


def protects(mark: Mark, wanted: Mark) -> bool:
    """Whether a live mark keeps all that the wanted one would."""
    if not 0 <= mark.commit <= wanted.commit:
        return False
    if not wanted.end:
        return True
    return mark.end > 0 and mark.generation == wanted.generation
