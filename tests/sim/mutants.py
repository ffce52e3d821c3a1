"""Mutants: the engine with one rule broken, to see that a schedule finds it.

Each names the rule, says how to plant it, and in which scenario it shows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from m2mdb.pager.errors import DatabaseError
from m2mdb.wal import attachment, checkpoint, closing, opening, shared, store
from m2mdb.wal.allocation import Allocator
from m2mdb.wal.attachment import Attachment
from m2mdb.wal.locks import ATTACH, READER, Locks, Patience
from m2mdb.wal.marks import Marks
from m2mdb.wal.shared import LogEnd, Mark, SharedState
from m2mdb.wal.snapshot import Snapshot
from m2mdb.wal.store import Store

Plant = Callable[[pytest.MonkeyPatch], None]


class Mutant(NamedTuple):
    """A broken rule."""

    rule: str
    plant: Plant
    scenario: str


def _no_second_look(patch: pytest.MonkeyPatch) -> None:
    """A reader trusts the end that it saw before its mark was live."""

    def begin_read(self: Store) -> Snapshot:
        assert self.marks is not None
        self.refresh()
        number = next(store._numbers)
        snapshot = Snapshot(self, number, in_file=self.in_file)
        self.marks.take(self.mark, number)
        self.extend_index_unprotected()
        return snapshot

    patch.setattr(Store, "begin_read", begin_read)


def _mark_without_lock(patch: pytest.MonkeyPatch) -> None:
    """A slot's mark is written under the shared lock only."""

    def take(self: Marks, slot: int, raw: bytes) -> bool:
        if not self._locks.shared(READER + slot):
            return False
        self._shared.set_mark(slot, raw)
        return True

    patch.setattr(Marks, "_take", take)


def _one_end(patch: pytest.MonkeyPatch) -> None:
    """The end is stored once: the second copy is not written, and not looked at."""

    def publish(self: SharedState, end: LogEnd) -> None:
        self.view[64:128] = shared.seal(shared._END.pack(*end))

    def decode(raw: bytes) -> Any:
        copied = shared.unseal(raw[128:])
        backfill = shared._BACKFILL.unpack(copied) if copied else (0, 0, 0)
        return LogEnd._make(shared._END.unpack(raw[:56])), shared.Backfill._make(backfill)

    patch.setattr(SharedState, "publish", publish)
    patch.setattr(SharedState, "decode", staticmethod(decode))


def _no_mending(patch: pytest.MonkeyPatch) -> None:
    """Nobody finishes the publication of a writer that died in it."""
    patch.setattr(SharedState, "mend", lambda self: None)


def _no_opening_lock(patch: pytest.MonkeyPatch) -> None:
    """Two may ask at once whether they are alone (O4)."""

    def attach(vfs: Any, path: str, options: Any, file: Any) -> bool:
        locks = Locks(file)
        alone = False

        def attempt() -> bool:
            nonlocal alone
            alone = locks.exclusive(ATTACH)
            return alone or locks.shared(ATTACH)

        Patience(vfs, options.timeout).wait(attempt, lambda: path)
        return alone

    patch.setattr(opening, "_attach", attach)


def _no_check_of_inode(patch: pytest.MonkeyPatch) -> None:
    """Whoever leaves removes log and -shm, alone or not."""

    def detach(left: Attachment) -> None:
        with contextlib.suppress(DatabaseError):
            closing._leave_whole(left)

    patch.setattr(store, "detach", detach)


def _no_erasing(patch: pytest.MonkeyPatch) -> None:
    """What a dead writer left behind the end stays (S8)."""
    patch.setattr(checkpoint, "erase_leftover", lambda store: None)


def _marks_overlooked_by_writers(patch: pytest.MonkeyPatch) -> None:
    """Freed pages are used again whoever still reads them (S9)."""
    patch.setattr(Attachment, "oldest_commit", lambda self: self.end.commit)


def _frames_overlooked(patch: pytest.MonkeyPatch) -> None:
    """An extent is put on pages that have frames in the log (S9)."""
    patch.setattr(Allocator, "closed_to_extents", lambda self: [])


def _unsynced_overlooked(patch: pytest.MonkeyPatch) -> None:
    """Pages that an unsynced commit freed are used again (S9)."""

    def newest_usable(self: Allocator) -> int:
        self._limit = self._store.oldest_commit()
        return self._limit

    patch.setattr(Allocator, "_newest_usable", newest_usable)


def _marks_overlooked_by_checkpoints(patch: pytest.MonkeyPatch) -> None:
    """All of the log is copied whoever reads the file (S10)."""
    patch.setattr(checkpoint, "_limit", lambda store: store.end.offset)


def _readers_overlooked_by_resets(patch: pytest.MonkeyPatch) -> None:
    """The log is begun anew whoever reads it (S10)."""
    patch.setattr(checkpoint, "_log_is_read", lambda store: False)


def _reset_without_checkpoint_lock(patch: pytest.MonkeyPatch) -> None:
    """The log is begun anew while somebody may copy it (S10)."""

    def try_reset(store: Attachment) -> bool:
        store.refresh(writing=True)
        if checkpoint._copied(store) < store.end.offset or checkpoint._log_is_read(store):
            return False
        checkpoint.reset(store)
        return True

    patch.setattr(checkpoint, "_try_reset", try_reset)


def _stale_checkpoint(patch: pytest.MonkeyPatch) -> None:
    """The end is read before CHECKPOINT is had: SQLite's race of log and reset (S10)."""

    def passive(store: Attachment) -> int:
        store.extend_index()
        checkpoint.copy_frames(store, checkpoint._limit(store))
        return 0

    patch.setattr(checkpoint, "_passive", passive)


def _backfill_before_sync(patch: pytest.MonkeyPatch) -> None:
    """What is copied is said to be so before the file is synced (CP2)."""

    def copy(store: Attachment, limit: int) -> None:
        original(store, limit)

    original = checkpoint.copy_frames
    patch.setattr(checkpoint, "copy_frames", copy)
    patch.setattr(Attachment, "sync_file", lambda self: None)


def _snapshot_before_writer(patch: pytest.MonkeyPatch) -> None:
    """A writer sees the end first and takes WRITER after (S13)."""

    def take_writer(self: Store) -> bool:
        self.refresh()
        self.extend_index()
        return self.try_writer() and checkpoint.prepare_log(self)

    patch.setattr(Store, "_take_writer", take_writer)


def _poison_is_private(patch: pytest.MonkeyPatch) -> None:
    """A failed sync poisons one connection only (S11)."""

    def poison(self: Attachment, reason: str) -> None:
        self.poisoned = reason

    patch.setattr(Attachment, "poison", poison)


def _any_seal(patch: pytest.MonkeyPatch) -> None:
    """Records in -shm count without their checksums (S2)."""
    patch.setattr(shared, "unseal", lambda raw: raw[:-8])


def _forgotten_marks(patch: pytest.MonkeyPatch) -> None:
    """A snapshot in the file leaves no mark (S10)."""

    def conclude(self: Attachment) -> None:
        original(self)
        if self.in_file:
            self.mark = SharedState.encode_mark(Mark(0, 0, 1 << 40, 0))

    original = Attachment._conclude
    patch.setattr(attachment.Attachment, "_conclude", conclude)


MUTANTS = {
    "no second look": Mutant("S2", _no_second_look, "reset next"),
    "mark without lock": Mutant("S2", _mark_without_lock, "readers of one slot"),
    "one end": Mutant("S2", _one_end, "torn stores"),
    "no mending": Mutant("S2", _no_mending, "torn stores of the dying"),
    "any seal": Mutant("S2", _any_seal, "torn stores of the dying"),
    "no opening lock": Mutant("S3", _no_opening_lock, "two leave, one comes"),
    "leaving alone or not": Mutant("S3", _no_check_of_inode, "last close, opening"),
    "no erasing": Mutant("S8", _no_erasing, "a dead writer's frames"),
    "marks overlooked by writers": Mutant(
        "S9", _marks_overlooked_by_writers, "freed under a reader"
    ),
    "frames overlooked": Mutant("S9", _frames_overlooked, "freed frames in the log"),
    "unsynced overlooked": Mutant("S9", _unsynced_overlooked, "commits that are not synced"),
    "marks overlooked by checkpoints": Mutant(
        "S10", _marks_overlooked_by_checkpoints, "writer, checkpointer, reader"
    ),
    "readers overlooked by resets": Mutant(
        "S10", _readers_overlooked_by_resets, "writer, restart, reader"
    ),
    "reset without the checkpoint's lock": Mutant(
        "S10", _reset_without_checkpoint_lock, "reset next"
    ),
    "stale checkpoint": Mutant("S10", _stale_checkpoint, "two checkpointers"),
    "backfill before sync": Mutant("S10", _backfill_before_sync, "writer, restart, reader"),
    "marks of the file forgotten": Mutant("S10", _forgotten_marks, "reset next"),
    "poison is private": Mutant("S11", _poison_is_private, "poisoned"),
    "snapshot before writer": Mutant("S13", _snapshot_before_writer, "writers and a reader"),
}

# Those that `test_named_races.py` plants, too, and loses a race with.
DRIVEN = frozenset(
    (
        "no second look",
        "mark without lock",
        "no mending",
        "no erasing",
        "marks overlooked by writers",
        "frames overlooked",
        "unsynced overlooked",
        "marks overlooked by checkpoints",
        "readers overlooked by resets",
        "stale checkpoint",
        "marks of the file forgotten",
        "snapshot before writer",
    )
)
