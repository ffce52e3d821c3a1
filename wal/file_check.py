"""Checking a file beside its trees: page 1, the log flag, and the log frame by frame.

    page 1    header sector, flag sector, zeros
    flag      says that a log is needed while one is in use, and which
    log       header, and each frame up to the committed end: chain, commit numbers, its page;
              commits that are lost behind it, where it is not recovered

Nothing is written. Others go on meanwhile: a log that is begun anew while its frames are read is
read again, and a sector that is being overwritten too.

Invariants
    FC1 A fault is told only if it is there when nobody has changed the log since.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from m2mdb.pager.errors import CorruptDatabaseError, DatabaseError
from m2mdb.pager.header import FIRST_PAGE_SIZE, FLAG_OFFSET, FLAG_SIZE, HEADER_SIZE, Header, LogFlag
from m2mdb.pager.page import decode_page
from m2mdb.wal.frame import LOG_HEADER_SIZE, LogHeader, valid_frames
from m2mdb.wal.lost_commits import find_lost

if TYPE_CHECKING:
    from m2mdb.wal.attachment import Attachment
    from m2mdb.wal.log import Log
    from m2mdb.wal.shared import LogEnd

_READINGS = 5  # of what others may be changing

Report = Callable[[str], None]


def check_file(store: Attachment, report: Report, look: Callable[[], None] = lambda: None) -> None:
    """Report what is wrong with page 1, the flag and the log.

    look  called between frames of the log; it may raise
    """
    faults: list[str] = []
    for _ in range(_READINGS):
        faults = []
        end, backfill = store.end, store.backfill
        _check_first_page(store, faults)
        if end.generation and store.log is not None:
            if not _reset_was_stopped(store, end):
                _check_log(store.log, end, faults, look)
            _check_behind(store, end, faults)
        if not faults:
            return
        if store.shared is not None:
            store.refresh()
        if (store.end, store.backfill) == (end, backfill):
            break  # FC1: nobody has changed anything
        store.vfs.sleep(0.001)
    for fault in faults:
        report(fault)


def _check_first_page(store: Attachment, faults: list[str]) -> None:
    try:
        store.read_header()
    except DatabaseError as error:
        faults.append(f"page 1 (header): {error}")
    try:
        size = store.page_size - FIRST_PAGE_SIZE
        rest = store.file.read_at(FIRST_PAGE_SIZE, size)
        if rest != bytes(size):
            faults.append(
                f"page 1: bytes {FIRST_PAGE_SIZE} to {FIRST_PAGE_SIZE + size} are not zero"
            )
        flag = LogFlag.decode(store.file.read_at(FLAG_OFFSET, FLAG_SIZE), store.path)
    except DatabaseError as error:
        faults.append(f"page 1 (log flag): {error}")
        return
    generation = store.end.generation
    if flag.needed and not generation and _first_write_was_stopped(store, flag):
        return
    if flag.needed != bool(generation):
        said = "needed" if flag.needed else "not needed"
        faults.append(f"page 1 (log flag): the log is {said}, but generation {generation} is read")
    elif flag.needed and flag.generation > generation:
        faults.append(
            f"page 1 (log flag): generation {flag.generation}, expected up to {generation}"
        )
    elif flag.needed and flag.generation == generation and flag.salt != store.end.salt:
        faults.append(f"page 1 (log flag): salt {flag.salt:#018x}, expected {store.end.salt:#018x}")


def _first_write_was_stopped(store: Attachment, flag: LogFlag) -> bool:
    """Whether the flag names a log that was made and has no frame yet (S4).

    It is no fault: nothing was published, and the next first write makes the log once more.
    """
    try:
        file = store.vfs.open(store.log_path, read_only=True)
    except DatabaseError:
        return False
    try:
        header = LogHeader.decode(file.read_at(0, LOG_HEADER_SIZE), store.log_path)
        wanted = (flag.generation, flag.salt, store.uuid)
        is_its = (header.generation, header.salt, header.uuid) == wanted
        return is_its and next(iter(valid_frames(file, header)), None) is None
    except DatabaseError:
        return False
    finally:
        file.close()


def _reset_was_stopped(store: Attachment, end: LogEnd) -> bool:
    """Whether the log has the header of a generation that is not published (CP5).

    It is no fault: all is in the file, and the next writer begins the log once more. The frames
    that stand there cannot be compared with a header that is gone.
    """
    assert store.log is not None
    try:
        header = store.log.header()
    except DatabaseError:
        return False
    backfill = store.backfill
    copied = backfill.generation == end.generation and backfill.offset >= end.offset
    wanted = (store.page_size, end.generation + 1, end.commit, store.uuid)
    return copied and (header[0], header[1], header[3], header[4]) == wanted


def _check_log(log: Log, end: LogEnd, faults: list[str], look: Callable[[], None]) -> None:
    try:
        raw = log.file.read_at(0, LOG_HEADER_SIZE)
        header = LogHeader.decode(raw, log.file.path)
    except DatabaseError as error:
        faults.append(str(error))
        return
    if (header.generation, header.salt) != (end.generation, end.salt):
        faults.append(
            f"header of log {log.file.path}: generation {header.generation}, expected "
            f"{end.generation}"
        )
        return
    reached, commit = LOG_HEADER_SIZE, header.base_commit
    for frame in valid_frames(log.file, header):
        if frame.offset >= end.offset:
            break
        look()
        reached = frame.offset + log.frame_size
        commit = frame.commit
        _check_frame(log, frame.offset, frame.page_number, faults)
    if reached < end.offset:
        faults.append(
            f"log {log.file.path}: the frame at byte {reached} does not continue commit {commit}; "
            f"there are frames up to byte {end.offset}"
        )


def _check_behind(store: Attachment, end: LogEnd, faults: list[str]) -> None:
    """What is lost behind a log that is not recovered yet; behind another one a writer works."""
    assert store.log is not None
    if store.shared is None or store.shared.unrecovered:
        lost = find_lost(store.log, end)
        if lost is not None:
            faults.append(lost.text)


def _check_frame(log: Log, offset: int, page_number: int, faults: list[str]) -> None:
    """The page in a frame is one: the chain says only that it is as it was written."""
    where = f"log {log.file.path}, frame at byte {offset}"
    _, page, _ = log.read_frame(offset)
    try:
        if page_number == 1:
            Header.decode(page[:HEADER_SIZE], where)
        else:
            decode_page(page, page_number, log.page_size, where)
    except CorruptDatabaseError as error:
        faults.append(str(error))
