"""Recovery: from a file and the log that a crash left beside it to a file that is whole (S3).

    replay the log to its last commit -> keep it aside where commits behind it are lost
        -> copy all into the file -> sync
        -> new header with a new salt -> sync -> -shm anew

A torn tail is never appended to: the new salt makes everything that stands in the log void. One
who may only read applies the log in memory and says so in -shm; the first writer then recovers.
Recovery may be stopped at any point and begun again, for the old header stands until the file is
synced.

Invariants
    RE1 The log belongs to this file: uuid, page size, generation, and commits that overlap.
    RE2 The log reaches at least as far as the file: what was copied was synced in the log before.
    RE3 Nothing is written unless RE1 and RE2 hold.
    RE4 What recovery relies on is written again before it is synced: after a failed sync the
        system shows bytes that the disk has not, and calls them clean (S11).
    RE5 A commit has no more pages than stand in the file and in the log, and some that were taken
        and given back (`Limits.log_gap`): what a log says cannot fill the disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m2mdb.pager.errors import CorruptDatabaseError, NotSupportedError, OperationalError
from m2mdb.wal.checkpoint import write_again, write_pages
from m2mdb.wal.creation import new_salt
from m2mdb.wal.frame import LOG_HEADER_SIZE, FrameHeader, LogHeader, valid_frames
from m2mdb.wal.log import Log
from m2mdb.wal.logindex import LogIndex
from m2mdb.wal.lost_commits import keep_aside, look_behind
from m2mdb.wal.shared import Backfill, LogEnd

if TYPE_CHECKING:
    from m2mdb.pager.header import LogFlag
    from m2mdb.wal.attachment import Attachment


def recover(store: Attachment, flag: LogFlag | None) -> None:
    """Bring the file up to the log's last commit; ATTACH is held exclusively.

    `flag` is None where its sector is damaged.
    """
    _check_may_write(store)
    end = apply_log(store, flag)
    log = store.log
    assert log is not None
    keep_aside(store)
    write_again(store, end)
    copy_all(store, end)
    salt = new_salt(store)
    header = LogHeader(store.page_size, end.generation + 1, salt, end.commit, store.uuid)
    chain = log.restart(header)
    store.sync_log()
    fresh = LogEnd(
        header.generation, salt, LOG_HEADER_SIZE, end.commit, end.page_count, chain, end.commit
    )
    store.versions = store.versions.turned(store.index.frames)
    store.settle(fresh, Backfill(header.generation, LOG_HEADER_SIZE, end.commit))


def _check_may_write(store: Attachment) -> None:
    header = store.header
    assert header is not None
    what = f"{store.path} needs recovery and cannot be written: "
    if not header.is_writable:
        raise NotSupportedError(f"{what}its write format is {header.format_write}")
    if store.identity.links > 1:
        raise OperationalError(f"{what}it has {store.identity.links} hard links")
    if not store.no_lock and store.vfs.is_network(store.path):
        raise OperationalError(f"{what}it lies on a network file system")


def apply_log(store: Attachment, flag: LogFlag | None) -> LogEnd:
    """Index the log's commits and give their end (W1, W2, W3); nothing is written."""
    vfs = store.vfs
    store.log = Log(vfs.open(store.log_path, read_only=store.read_only), store.page_size)
    header = store.log.header()
    _check_belongs(store, header, flag)
    index = LogIndex(header.generation, header.base_commit)
    assert store.header is not None
    page_count, chain = store.header.page_count, header.checksum
    numbers: list[int] = []
    for frame in valid_frames(store.log.file, header):
        numbers.append(frame.page_number)
        if frame.page_count:
            index.add(numbers, index.end, store.log.frame_size, frame.commit)
            page_count, chain = frame.page_count, frame.checksum
            numbers = []
    _check_page_count(store, page_count, len(index.frames))
    if index.commit < store.header.commit:
        raise CorruptDatabaseError(
            f"{store.log_path} ends with commit {index.commit}, but {store.path} already holds "
            f"commit {store.header.commit}: the log is damaged or an older copy"
        )
    end = LogEnd(
        header.generation, header.salt, index.end, index.commit, page_count, chain, index.commit
    )
    look_behind(store, end)
    store.settle(end, Backfill(header.generation, LOG_HEADER_SIZE, header.base_commit))
    store.index = index
    return end


def _check_belongs(store: Attachment, log: LogHeader, flag: LogFlag | None) -> None:
    """RE1."""
    header = store.header
    assert header is not None
    if log.uuid != header.uuid or log.page_size != header.page_size:
        raise CorruptDatabaseError(
            f"{store.log_path} belongs to another database: uuid {log.uuid.hex()}, page size "
            f"{log.page_size}, expected {header.uuid.hex()}, {header.page_size}"
        )
    if flag is not None and log.generation < flag.generation:
        raise CorruptDatabaseError(
            f"{store.log_path} is older than {store.path}: generation {log.generation}, expected "
            f"{flag.generation} or a later one"
        )
    same = flag is not None and log.generation == flag.generation
    if flag is not None and same and log.salt != flag.salt:
        raise CorruptDatabaseError(
            f"{store.log_path} is not the log of {store.path}: salt {log.salt:#018x}, expected "
            f"{flag.salt:#018x}"
        )
    if header.commit < log.base_commit:
        raise CorruptDatabaseError(
            f"{store.path} is older than its log: it holds commit {header.commit}, the log begins "
            f"behind commit {log.base_commit}"
        )
    size, wanted = store.file.size(), header.page_count * header.page_size
    if header.commit == log.base_commit and size < wanted:
        raise CorruptDatabaseError(
            f"{store.path} is truncated: {size} bytes, expected {wanted} for its "
            f"{header.page_count} pages"
        )


def _check_page_count(store: Attachment, page_count: int, logged: int) -> None:
    """RE5."""
    pages = store.file.size() // store.page_size + logged
    if page_count > pages + store.options.limits.log_gap:
        raise CorruptDatabaseError(
            f"{store.log_path}: its last commit is of {page_count} pages, but file and log have "
            f"no more than {pages}"
        )


def copy_all(store: Attachment, end: LogEnd) -> None:
    """Copy the whole log into the file and sync it; the log's index is complete."""
    log = store.log
    assert log is not None
    if end.offset > LOG_HEADER_SIZE:
        store.sync_log()
        last = FrameHeader.decode(log.read_frame(end.offset - log.frame_size)[0])
        write_pages(store, LOG_HEADER_SIZE, end.offset, last)
    store.sync_file()
