"""Checkpoint: copying the log into the file, and beginning the log anew.

    passive   copy what no reader keeps from being copied; wait for nobody
    full      wait for the writer and for readers of older snapshots, then copy everything
    restart   and wait for readers of the log, then begin it anew
    truncate  and give its space back

    sync log -> pages to file -> header's sector -> sync file -> backfill     (copy)
    everything copied, no reader of the log -> new header -> sync -> publish  (reset)

Invariants
    CP1 CHECKPOINT is held from reading the end to the last write, and nothing newer than the
        oldest mark is copied (S10).
    CP2 Only frames that are synced are copied; the backfill is raised after the file is synced.
    CP3 A reset needs WRITER and CHECKPOINT, everything copied and synced, and no live mark that
        uses the log (S10). Marks are looked for after the complete backfill was published: who
        takes one later sees it and reads the file alone.
    CP4 Where a checkpoint fails, log and marks are as they were (S11).
    CP5 Between a new header and its publication anyone may die: the next writer compares the
        header with the end and begins the log once more.
    CP6 The header's sector is written while others may read it; they read again where it is torn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m2mdb.pager.errors import (
    CorruptDatabaseError,
    DatabaseBusyError,
    DatabaseError,
    OperationalError,
    ProgrammingError,
)
from m2mdb.pager.header import FLAG_OFFSET, Header, LogFlag
from m2mdb.wal.creation import new_salt
from m2mdb.wal.frame import (
    CHECKSUM_OFFSET,
    LOG_HEADER_SIZE,
    FrameHeader,
    LogHeader,
    frame_checksum,
)
from m2mdb.wal.locks import CHECKPOINT, WRITER, Patience
from m2mdb.wal.lost_commits import keep_aside, look_behind
from m2mdb.wal.shared import Backfill, LogEnd, SharedState

if TYPE_CHECKING:
    from collections.abc import Callable

    from m2mdb.wal.attachment import Attachment

MODES = ("passive", "full", "restart", "truncate")
_HELD_BACK = 10  # times the limit of an automatic checkpoint until a reader is named (S28)
_COPIED_AT_ONCE = 1 << 20  # bytes of neighbouring pages that one write takes

Result = tuple[int, int, int]  # busy, frames in the log, frames copied


def checkpoint(store: Attachment, mode: str, grace: float | None = None) -> Result:
    """Copy the log into the file; see the module for the modes.

    grace  seconds to wait for readers, while nobody can write; None: the busy timeout or handler

    busy is 1 where another connection kept it from going as far as the mode wants.
    """
    if mode not in MODES:
        raise ProgrammingError(f"checkpoint mode {mode!r} is not one of {MODES}")
    unsettled, store.unsettled = store.unsettled, True
    try:
        try:
            result = _checkpoint(store, mode, grace)
        except DatabaseBusyError:
            result = (1, *_counts(store))
        finally:
            _give_up(store)
    except BaseException:
        _give_up(store)  # K3
        raise
    store.unsettled = unsettled
    return result


def _give_up(store: Attachment) -> None:
    store.locks.drop(WRITER)
    store.locks.drop(CHECKPOINT)


def _checkpoint(store: Attachment, mode: str, grace: float | None) -> Result:
    store.refresh()
    if not store.end.generation:
        return 0, 0, 0
    if mode != "passive":
        store.lock_checkpoint()
    elif not store.locks.exclusive(CHECKPOINT):
        return (1, *_counts(store))
    store.check_healthy()
    store.check_named()  # S29: the log may be another file's by now
    if store.shared is not None and store.shared.unrecovered:
        return (1, *_counts(store))  # the first write recovers
    busy = _passive(store) if mode == "passive" else _waiting(store, mode, grace)
    return (busy, *_counts(store))


def autocheckpoint(store: Attachment) -> None:
    """A passive checkpoint when the log has grown long enough; its failure is not the commit's."""
    log = store.log
    limit = store.wal_autocheckpoint
    if not limit or store.in_file or log is None or log.frame_count(store.end.offset) < limit:
        return
    try:
        checkpoint(store, "passive")
        store.checkpoint_error = ""
        _name_reader(store, _HELD_BACK * limit)
    except DatabaseError as error:  # CP4: nothing is lost, and the next one tries again
        store.checkpoint_error = str(error)


def _name_reader(store: Attachment, bound: int) -> None:
    """Say who keeps the log from being copied, once it is long, and again when it has doubled."""
    frames, copied = _counts(store)
    left = frames - copied
    if left < bound:
        store.frames_told = 0
        return
    assert store.marks is not None
    older = [mark for mark in store.marks.live() if mark.commit < store.end.commit]
    if left < 2 * store.frames_told or not older:
        return
    oldest = min(older, key=lambda mark: mark.commit)
    store.frames_told = left
    store.held_back = (
        f"{store.path}: process {oldest.pid} reads commit {oldest.commit}, {store.end.commit} is "
        f"the newest: {left} pages of {store.log_path} wait to be copied until it ends"
    )


def _counts(store: Attachment) -> tuple[int, int]:
    """Frames in the log, and how many of them are copied."""
    if store.log is None:
        return 0, 0
    count = store.log.frame_count
    copied = store.backfill.offset if store.backfill.generation == store.end.generation else 0
    return count(store.end.offset), count(copied)


def _passive(store: Attachment) -> int:
    store.refresh()
    store.extend_index()
    copy_frames(store, _limit(store))
    return 0


def _waiting(store: Attachment, mode: str, grace: float | None) -> int:
    """The modes that wait; CHECKPOINT is held."""
    patience = store.patience if grace is None else Patience(store.vfs, grace)
    _passive(store)  # most of the work, before anybody is kept from writing
    try:
        store.lock_writer()
        store.refresh(writing=True)
        store.extend_index()
        erase_leftover(store)
        if not _wait(store, patience, lambda: _limit(store) >= store.end.offset, "older commit"):
            copy_frames(store, _limit(store))
            return 1
        copy_frames(store, store.end.offset)
        if mode == "full":
            return 0
        if not _wait(store, patience, lambda: not _log_is_read(store), "log"):
            return 1
        if store.end.offset > LOG_HEADER_SIZE:
            reset(store)
        if mode == "truncate":
            assert store.log is not None
            store.log.cut()
            store.sync_log()
        return 0
    finally:
        store.locks.drop(WRITER)


def _wait(store: Attachment, patience: Patience, condition: Callable[[], bool], what: str) -> bool:
    """Whether readers let the condition come true in time."""
    try:
        patience.wait(condition, lambda: f"{store.path}: another connection reads the {what}")
    except DatabaseBusyError:
        return False
    return True


# -- copying -----------------------------------------------------------------------------------


def _copied(store: Attachment) -> int:
    """Up to where the log is in the file."""
    backfill = store.backfill
    return backfill.offset if backfill.generation == store.end.generation else LOG_HEADER_SIZE


def _limit(store: Attachment) -> int:
    """Up to where the log may be copied (CP1)."""
    assert store.marks is not None
    end = store.end
    limit = end.offset
    for mark in store.marks.live():
        if mark.commit < 0 or mark.commit < end.commit:
            within = mark.end if mark.generation == end.generation and mark.commit >= 0 else 0
            limit = min(limit, within or _copied(store))
    return max(limit, _copied(store))


def copy_frames(store: Attachment, limit: int) -> None:
    """Copy the frames up to an end, make that durable and say so; CHECKPOINT is held."""
    start = _copied(store)
    if limit <= start:
        return
    log = store.log
    assert log is not None
    assert store.shared is not None
    last = FrameHeader.decode(log.read_frame(limit - log.frame_size)[0])
    if not last.is_commit or last.salt != store.end.salt:
        raise CorruptDatabaseError(f"log {store.log_path}: no commit frame before offset {limit}")
    if max(store.end.synced, store.backfill.commit) < last.commit:
        store.sync_log()  # CP2
    write_pages(store, start, limit, last)
    store.sync_file()
    store.check_healthy()  # S11: another process's sync of the same pages may have failed
    store.shared.publish_backfill(Backfill(store.end.generation, limit, last.commit))
    store.refresh()


def copy_all_frames(store: Attachment) -> bool:
    """Copy the whole log; False where a snapshot prevents it. CHECKPOINT and WRITER are held."""
    copy_frames(store, _limit(store))
    return _copied(store) >= store.end.offset


def write_pages(store: Attachment, start: int, limit: int, last: FrameHeader) -> None:
    """Write the newest version before `limit` of each page with a frame from `start` on."""
    index = store.index
    places = {}
    for page_number in index.frames:
        place = index.place(page_number, limit)
        if place >= start and page_number <= last.page_count:  # others were given back (S27)
            places[page_number] = place
    _make_room(store, last.page_count)
    places.pop(1, None)
    run: list[bytes] = []
    first = 0
    at_once = _COPIED_AT_ONCE // store.page_size
    for page_number in sorted(places):
        if run and (page_number != first + len(run) or len(run) == at_once):
            store.file.write_at((first - 1) * store.page_size, b"".join(run))
            run = []
        if not run:
            first = page_number
        run.append(_verified_page(store, page_number, places[page_number]))
    if run:
        store.file.write_at((first - 1) * store.page_size, b"".join(run))
    _write_header(store, limit, last)


def _make_room(store: Attachment, page_count: int) -> None:
    """Have space for all pages before the first one is written (S11)."""
    size = store.file.size()
    wanted = page_count * store.page_size
    if size < wanted:
        store.file.allocate(size, wanted - size)


def _verified_page(store: Attachment, page_number: int, place: int) -> bytes:
    """The page in a frame; raises CorruptDatabaseError unless its checksum holds."""
    assert store.log is not None
    raw, page, before = store.log.read_frame(place)
    found = FrameHeader.decode(raw)
    checksum = frame_checksum(raw[:CHECKSUM_OFFSET], page, before)
    if checksum != found.checksum or found.page_number != page_number:
        raise CorruptDatabaseError(
            f"frame at offset {place} of {store.log_path}: page {found.page_number}, checksum "
            f"{checksum:#018x}, expected page {page_number}, {found.checksum:#018x}"
        )
    if found.salt != store.end.salt:  # a chain of another log may hold too
        raise CorruptDatabaseError(
            f"frame at offset {place} of {store.log_path}: salt {found.salt:#018x}, expected "
            f"{store.end.salt:#018x}"
        )
    return page


def _write_header(store: Attachment, limit: int, last: FrameHeader) -> None:
    """Write the header's sector as of a commit; never the flag's (S4)."""
    place = store.index.place(1, limit)
    if place:
        _verified_page(store, 1, place)
    newest = store.read_node(1, place)
    assert isinstance(newest, Header)
    header = newest.copy()
    header.page_count = last.page_count
    header.commit = last.commit
    store.file.write_at(0, header.encode())


# -- beginning the log anew --------------------------------------------------------------------


def _log_is_read(store: Attachment) -> bool:
    """Whether a live snapshot may read frames of the log (CP3)."""
    assert store.marks is not None
    return any(mark.end or mark.commit < 0 for mark in store.marks.live())


def reset(store: Attachment) -> None:
    """Begin the next generation of the log; all conditions of CP3 hold."""
    log, shared, end = store.log, store.shared, store.end
    assert log is not None
    assert shared is not None
    _check_published(store, shared)
    salt = new_salt(store)
    header = LogHeader(store.page_size, end.generation + 1, salt, end.commit, store.uuid)
    try:
        chain = log.restart(header)
        store.sync_log()
    except OperationalError as error:
        store.poison(f"{error}; which generation the log has is unknown")
        raise
    fresh = LogEnd(
        header.generation, salt, LOG_HEADER_SIZE, end.commit, end.page_count, chain, end.commit
    )
    shared.publish(fresh)
    shared.publish_backfill(Backfill(header.generation, LOG_HEADER_SIZE, end.commit))
    if store.journal_size_limit >= 0:
        # Only now: until the new generation is published others read frames of the old one, and
        # this process may die between the two.
        log.shorten(store.journal_size_limit)
    store.refresh(writing=True)


def _check_published(store: Attachment, shared: SharedState) -> None:
    """CP3: all that is published is copied. Raises OperationalError; the log is as it was.

    What was known before a wait holds only if both locks were kept all the while.
    """
    end = store.end
    found = shared.decode(shared.look())
    if (
        found is None
        or found[0] != end
        or found[1] != store.backfill
        or _copied(store) < end.offset
    ):
        raise OperationalError(
            f"{store.log_path} is not begun anew: it was changed while this connection held its "
            f"locks, behind commit {end.commit}"
        )


def prepare_log(store: Attachment) -> bool:
    """What a writer owes the log before it writes anything; WRITER is held.

    Erases what a dead writer left behind the end (S8), finishes a reset that somebody died in
    (CP5), and begins the log anew where that is possible. False when that has to be done and a
    checkpoint or a reader is in the way: give WRITER up and come again.
    """
    end, log = store.end, store.log
    if log is None or not end.generation:
        return True
    assert store.shared is not None
    if store.shared.unrecovered:
        return _recover_late(store)
    if not log.is_of(end.generation, end.salt):
        if _copied(store) != end.offset:
            raise CorruptDatabaseError(
                f"header of log {store.log_path}: not of generation {end.generation}, whose frames "
                f"up to offset {end.offset} are not copied"
            )
        return _try_reset(store)
    erase_leftover(store)
    if _copied(store) >= end.offset > LOG_HEADER_SIZE:
        _try_reset(store)
    return True


def _recover_late(store: Attachment) -> bool:
    """A reader came first and could not recover: do it now, without its readers (S3)."""
    shared = store.shared
    assert shared is not None
    try:
        if not store.locks.exclusive(CHECKPOINT):
            return False
        end = store.end
        if _limit(store) < end.offset:
            return False
        look_behind(store, end)
        keep_aside(store)
        write_again(store, end)
        if end.offset > LOG_HEADER_SIZE:
            copy_frames(store, end.offset)
        else:
            store.sync_file()
        if _log_is_read(store):
            return False
        reset(store)
        shared.unrecovered = False
        return True
    finally:
        store.locks.drop(CHECKPOINT)


def write_again(store: Attachment, end: LogEnd) -> None:
    """Log and flag as they are, so that the next syncs bring them to the disk (RE4).

    The extents that the log names go first, for some of its commits may be of `off` (S7).
    """
    assert store.log is not None
    store.sync_file()
    store.log.rewrite(end.offset)
    store.sync_log()
    store.file.write_at(FLAG_OFFSET, LogFlag.needed_for(end.salt, end.generation).encode())


def _try_reset(store: Attachment) -> bool:
    """Begin the log anew unless somebody checkpoints or reads it (CP3)."""
    try:
        if not store.locks.exclusive(CHECKPOINT):
            return False
        store.refresh(writing=True)
        if _copied(store) < store.end.offset or _log_is_read(store):
            return False
        reset(store)
        return True
    finally:
        store.locks.drop(CHECKPOINT)


def erase_leftover(store: Attachment) -> None:
    """Zero a frame behind the end that would count (S8); WRITER is held.

    One that is zeroed already may not be so on the disk: `tail` says so until a sync has ended.
    """
    end, log, shared = store.end, store.log, store.shared
    assert shared is not None
    if log is None or not end.generation:
        return
    if shared.tail or log.has_leftover(end.offset, end.salt, end.chain):
        shared.tail = True
        try:
            log.erase(end.offset)
            store.sync_log()
        except OperationalError as error:
            store.poison(f"{error}; what stands behind the log's end is unknown")
            raise
        shared.tail = False
