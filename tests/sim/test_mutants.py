"""Mutants: the engine with one rule broken; the crash explorer or the injector finds each one.

What is planted, and the workload in which it is found (f full, n normal; I by an I/O error,
D by a second crash):

    S3   recovery does not sync the file before it begins the log anew          rows f, D
    S3   recovery does not sync the new header of the log                       rows f, D
    S4   the new file is not synced before its page 1 is written                rows f
    S4   the folder is not synced after the file was made                       rows f
    S4   the log is not synced before the flag asks for it                      rows f
    S4   the folder is not synced after the log was made                        rows f
    S4   the flag is set, not synced, and a commit acknowledged                 rows f
    S4   the flag is cleared before the last close has copied the log           reopened f
    S4   the last close does not sync the file before it clears the flag        reopened f
    S4   the log is removed before the flag is cleared                          reopened f
    S4   a flag that may not be clear on the disk is not cleared again          reopened n, I
    S7   a commit in full does not sync the log                                 rows f
    S7   extents are not synced before the frame that names them                extents f
    S8   a dead writer's frames are not erased                                  dead_writer f
    S8   they are erased, and that is not synced                                dead_writer f
    S8   a commit whose write failed is not taken back                          refused f
    S9   pages are used again before the commit that freed them is synced       freed_pages n
    S9   an extent is written over pages that have frames in the log            freed_pages f
    S10  a checkpoint does not sync the log before it copies                    checkpoints n
    S10  the last close does not sync the log before it copies                  reopened n
    S10  a checkpoint does not sync the file before the log begins anew         small_log f
    S10  a reset does not sync the new header                                   small_log f
    S11  a sync that failed is tried again                                      rows f, I
    S11  a failed sync poisons one connection only                              rows f, I
    S11  recovery relies on bytes that a failed sync may have lost              rows f, I
    S11  a checkpoint that meets a full disk counts as done                     checkpoints f, I
    S12  a statement that failed leaves its changes                             statements f
    S14  ROLLBACK TO keeps what was changed since the savepoint                 savepoints f
    W1   frames count without their checksums                                   rows f

The syncs before a checkpoint's copy (the first two of S10) were once found by interleaved
processes alone. They are found by crashes since each file is lost while the others are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from m2mdb.pager.errors import OperationalError
from m2mdb.pager.header import LogFlag
from m2mdb.pager.sim_file import SimFile
from m2mdb.pager.sim_vfs import SimVfs
from m2mdb.wal import checkpoint, closing, commit, creation, frame, opening, recovery, store
from m2mdb.wal.allocation import Allocator
from m2mdb.wal.attachment import Attachment
from m2mdb.wal.frame import FrameHeader
from m2mdb.wal.shared import Backfill
from m2mdb.wal.transaction import Transaction
from tests.sim.crash_explorer import Explorer, Level, StoreLevel
from tests.sim.database_runs import DatabaseLevel
from tests.sim.io_faults import Injector, injections

pytestmark = pytest.mark.usefixtures("only_own_garbage")

Patch = pytest.MonkeyPatch
Plant = Callable[[Patch], None]


class Mutant(NamedTuple):
    """A broken rule, and where it shows."""

    rule: str
    plant: Plant
    script: str
    synchronous: str = "full"
    level: str = "store"
    by: str = "crash"  # or "double" or the kind of the calls that fail


def without(name: str, inside: Any, function: str) -> Plant:
    """While a function runs, a method of its store does nothing."""

    def plant(patch: Patch) -> None:
        original = getattr(inside, function)

        def mutated(attached: Attachment, *given: Any, **named: Any) -> Any:
            setattr(attached, name, lambda *_: None)
            try:
                return original(attached, *given, **named)
            finally:
                delattr(attached, name)

        patch.setattr(inside, function, mutated)

    return plant


def no_sync_of_a_commit(patch: Patch) -> None:
    original = commit._finish

    def finish(transaction: Transaction, *given: Any) -> None:
        attached: Any = transaction.store
        attached.sync_log = lambda: None
        try:
            original(transaction, *given)
        finally:
            del attached.sync_log

    patch.setattr(commit, "_finish", finish)


def no_sync_of_extents(patch: Patch) -> None:
    patch.setattr(commit, "_settle_extents", lambda transaction: None)


def no_sync_of_roots(patch: Patch) -> None:
    original = SimFile.sync

    def sync(file: SimFile) -> None:
        if file.read_at(0, 16) != bytes(16):  # the first page is there
            original(file)

    patch.setattr(SimFile, "sync", sync)


def no_sync_dir(end: str) -> Plant:
    def plant(patch: Patch) -> None:
        original = SimVfs.sync_dir

        def sync_dir(vfs: SimVfs, path: str) -> None:
            if not path.endswith(end):
                original(vfs, path)

        patch.setattr(SimVfs, "sync_dir", sync_dir)

    return plant


def flag_not_synced(patch: Patch) -> None:
    def set_flag(attached: Attachment, flag: LogFlag) -> None:
        attached.file.write_at(512, flag.encode())

    patch.setattr(creation, "set_flag", set_flag)


def flag_cleared_early(patch: Patch) -> None:
    original = recovery.copy_all

    def copy_all(attached: Attachment, *given: Any) -> None:
        closing._clear(attached)
        original(attached, *given)

    patch.setattr(closing, "copy_all", copy_all)


def log_removed_early(patch: Patch) -> None:
    original = closing._clear

    def clear(attached: Attachment) -> None:
        attached.vfs.unlink(attached.log_path)
        attached.vfs.sync_dir(attached.path)
        original(attached)

    patch.setattr(closing, "_clear", clear)


def flag_not_cleared_again(patch: Patch) -> None:
    patch.setattr(closing, "_clear_again", lambda attached: None)


def tail_not_erased(patch: Patch) -> None:
    patch.setattr(checkpoint, "erase_leftover", lambda attached: None)


def failed_commit_not_taken_back(patch: Patch) -> None:
    def take_back(transaction: Transaction, plan: Any, error: BaseException) -> None:
        shared = transaction.store.shared
        assert shared is not None
        shared.tail = False
        transaction.rollback()

    patch.setattr(commit, "_take_back", take_back)
    patch.setattr(checkpoint, "erase_leftover", lambda attached: None)


def reuse_before_sync(patch: Patch) -> None:
    def newest(allocator: Allocator) -> int:
        allocator._limit = allocator._store.oldest_commit()
        return allocator._limit

    patch.setattr(Allocator, "_newest_usable", newest)


def extents_over_frames(patch: Patch) -> None:
    patch.setattr(Allocator, "closed_to_extents", lambda self: [])


def sync_tried_again(patch: Patch) -> None:
    def sync(attached: Attachment, file: SimFile) -> None:
        try:
            file.sync()
        except OperationalError:
            file.sync()

    patch.setattr(Attachment, "_sync", sync)


def poison_alone(patch: Patch) -> None:
    def poison(attached: Attachment, reason: str) -> None:
        attached.poisoned = reason

    patch.setattr(Attachment, "poison", poison)


def not_written_again(patch: Patch) -> None:
    patch.setattr(recovery, "write_again", lambda attached, end: None)
    patch.setattr(closing, "write_again", lambda attached, end: None)


def full_disk_counts_as_done(patch: Patch) -> None:
    original = checkpoint.write_pages

    def write_pages(attached: Attachment, start: int, limit: int, last: FrameHeader) -> None:
        try:
            original(attached, start, limit, last)
        except OperationalError:
            generation = attached.end.generation
            assert attached.shared is not None
            attached.shared.publish_backfill(Backfill(generation, limit, last.commit))

    patch.setattr(checkpoint, "write_pages", write_pages)


def nothing_undone(patch: Patch) -> None:
    patch.setattr(Transaction, "undo_statement", lambda transaction, token: None)


def savepoint_kept(patch: Patch) -> None:
    patch.setattr(Transaction, "rollback_to", lambda transaction, token: None)


def no_checksums(patch: Patch) -> None:
    def continues(raw: bytes, salt: int, before: int) -> FrameHeader | None:
        found = FrameHeader.decode(raw)
        return found if found.salt == salt and found.page_number else None

    patch.setattr(frame, "continues", continues)


MUTANTS = {
    "recovery without a sync of the file": Mutant(
        "S3", without("sync_file", store, "attach"), "rows", by="double"
    ),
    "recovery without a sync of the header": Mutant(
        "S3", without("sync_log", opening, "recover"), "rows", by="double"
    ),
    "page 1 before the other pages are synced": Mutant("S4", no_sync_of_roots, "rows"),
    "no sync of the folder of a new file": Mutant("S4", no_sync_dir(".m2m"), "rows"),
    "no sync of the log before the flag": Mutant(
        "S4", without("sync_log", creation, "_create_log"), "rows"
    ),
    "no sync of the folder of a new log": Mutant("S4", no_sync_dir("-wal"), "rows"),
    "a flag that is not synced": Mutant("S4", flag_not_synced, "rows"),
    "a flag cleared early": Mutant("S4", flag_cleared_early, "reopened"),
    "a close without a sync of the file": Mutant(
        "S4", without("sync_file", closing, "copy_all"), "reopened"
    ),
    "a log removed before the flag is cleared": Mutant("S4", log_removed_early, "reopened"),
    "a flag that is not cleared again": Mutant(
        "S4", flag_not_cleared_again, "reopened", "normal", by="sync"
    ),
    "no sync at commit": Mutant("S7", no_sync_of_a_commit, "rows"),
    "no sync of extents": Mutant("S7", no_sync_of_extents, "extents"),
    "a tail that is not erased": Mutant("S8", tail_not_erased, "dead_writer"),
    "a tail that is erased and not synced": Mutant(
        "S8", without("sync_log", checkpoint, "erase_leftover"), "dead_writer"
    ),
    "a failed commit that is not taken back": Mutant("S8", failed_commit_not_taken_back, "refused"),
    "pages used before they are durably free": Mutant(
        "S9", reuse_before_sync, "freed_pages", "normal"
    ),
    "extents over pages with frames": Mutant("S9", extents_over_frames, "freed_pages"),
    "a checkpoint without a sync of the log": Mutant(
        "S10", without("sync_log", checkpoint, "copy_frames"), "checkpoints", "normal"
    ),
    "a close without a sync of the log": Mutant(
        "S10", without("sync_log", closing, "copy_all"), "reopened", "normal"
    ),
    "a checkpoint without a sync of the file": Mutant(
        "S10", without("sync_file", checkpoint, "copy_frames"), "small_log"
    ),
    "a reset without a sync": Mutant("S10", without("sync_log", checkpoint, "reset"), "small_log"),
    "a failed sync tried again": Mutant("S11", sync_tried_again, "rows", by="sync"),
    "a failed sync that poisons one": Mutant("S11", poison_alone, "rows", by="sync"),
    "recovery from lost bytes": Mutant("S11", not_written_again, "rows", by="sync"),
    "a full disk in a checkpoint ignored": Mutant(
        "S11", full_disk_counts_as_done, "checkpoints", by="write"
    ),
    "a statement that is not undone": Mutant("S12", nothing_undone, "savepoints"),
    "a savepoint that is not gone back to": Mutant(
        "S14", savepoint_kept, "savepoints", level="database"
    ),
    "frames without checksums": Mutant("W1", no_checksums, "rows"),
}
LEVELS: dict[str, Level[Any]] = {"store": StoreLevel(), "database": DatabaseLevel()}


def explore(mutant: Mutant) -> None:
    """Crash the mutant's workload at every point, or let its calls fail."""
    level = LEVELS[mutant.level]
    if mutant.by in ("crash", "double"):
        images = 1 if mutant.by == "double" else 100
        everywhere = mutant.by == "double"
        explorer = Explorer(level, images=images, double_images=8, one_everywhere=everywhere)
        step = 1 if mutant.by == "crash" and mutant.level == "store" else 4
        for _ in explorer.points(mutant.script, 1, mutant.synchronous, step=step):
            pass
        return
    for fault in injections(level, mutant.script, 1, mutant.synchronous):
        if fault.kind == mutant.by:
            Injector(level).inject(mutant.script, 1, mutant.synchronous, fault)


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_rule_is_found(name: str, monkeypatch: Patch) -> None:
    """S3, S4, S7, S8, S9, S10, S11, S12, S14."""
    mutant = MUTANTS[name]
    mutant.plant(monkeypatch)

    with pytest.raises(AssertionError) as found:
        explore(mutant)

    assert "seed 1" in str(found.value), "the finding says how to see it again"
