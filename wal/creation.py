"""Creation: of a database file, and of its log at the first write (S4).

    file   pages 2, 3 -> sync -> page 1 -> sync -> sync folder        under ATTACH exclusive
    log    header, zeros -> sync -> sync folder -> flag -> sync -> first frame     under WRITER

Page 1 is written last: until it is there, the file counts as new. The flag is durable before the
first frame, so that a file whose newest commits stand in a log says so.

Invariants
    CR1 Where the flag is clear a log that lies there is of no use: it is begun anew, from nothing.
    CR2 A file becomes a database only where it is empty, or where creation was stopped in it: one
        that begins with zeros and goes on in another way is somebody's.
    CR3 A log is begun in a file of its own, not in one that lies there: that may be the log of a
        database which had this path before and is open still, under another one or none (S29).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m2mdb.pager.errors import OperationalError
from m2mdb.pager.header import CATALOG_ROOT, FLAG_OFFSET, FLAG_SIZE, FREE_ROOT, Header, LogFlag
from m2mdb.pager.page import Leaf
from m2mdb.wal.frame import LOG_HEADER_SIZE, LogHeader
from m2mdb.wal.log import Log
from m2mdb.wal.options import PAGE_SIZES
from m2mdb.wal.shared import LogEnd

if TYPE_CHECKING:
    from m2mdb.wal.attachment import Attachment

_PAGES_OF_A_NEW_FILE = 3


def is_unborn(store: Attachment) -> bool:
    """Whether a file without a first page holds nothing but what creation writes (CR2).

    Creation may have been stopped anywhere, and may have had another page size. Where it was
    stopped by a power failure, a file of just its length may hold anything behind page 1.
    """
    size = store.file.size()
    lengths = [_PAGES_OF_A_NEW_FILE * page_size for page_size in PAGE_SIZES]
    if size in lengths:
        return True
    if size > lengths[-1]:
        return False
    raw = store.file.read_at(0, size)
    return any(_is_begun(raw, page_size) for page_size in PAGE_SIZES)


def _is_begun(raw: bytes, page_size: int) -> bool:
    """Whether bytes are zeros and, in their places, empty roots."""
    for start in range(0, len(raw), page_size):
        page = raw[start : start + page_size]
        number = start // page_size + 1
        if page.count(0) == len(page):
            continue
        if number not in (CATALOG_ROOT, FREE_ROOT):
            return False
        if page != Leaf([], []).encode(number, page_size)[: len(page)]:
            return False
    return True


def create_database(store: Attachment) -> Header:
    """Make the file a database without rows; ATTACH is held exclusively."""
    before = store.file.size()
    try:
        return _write_database(store)
    except BaseException:
        # A page 1 that was written and not synced must not be taken for a durable one.
        store.file.truncate(0)
        store.file.truncate(before)
        raise


def _write_database(store: Attachment) -> Header:
    size = store.page_size
    header = Header(size, store.vfs.random(16))
    header.page_count = _PAGES_OF_A_NEW_FILE
    trees = b"".join([Leaf([], []).encode(root, size) for root in (CATALOG_ROOT, FREE_ROOT)])
    file = store.file
    file.allocate(0, _PAGES_OF_A_NEW_FILE * size)
    file.write_at(size, trees)
    file.sync()
    file.write_at(0, header.encode(1, size))
    file.sync()
    store.vfs.sync_dir(store.path)
    return header


def new_salt(store: Attachment) -> int:
    """A salt that no earlier generation had."""
    return int.from_bytes(store.vfs.random(8), "little")


def ensure_log(store: Attachment) -> Log:
    """The log, made at the first write; WRITER is held."""
    if store.end.generation:
        assert store.log is not None
        return store.log
    return _create_log(store)


def _create_log(store: Attachment) -> Log:
    shared = store.shared
    assert shared is not None
    end = store.end
    flag = LogFlag.decode(store.file.read_at(FLAG_OFFSET, FLAG_SIZE), store.path)
    generation = flag.generation + 1
    salt = new_salt(store)
    header = LogHeader(store.page_size, generation, salt, end.commit, store.uuid)
    if store.vfs.exists(store.log_path):
        set_flag(store, LogFlag(False, flag.salt, flag.generation))  # CR1: durably so
        remove_name(store, store.log_path)
    log, store.log = store.log, None
    if log is not None:
        log.file.close()  # of an attempt that failed
    log = store.log = Log(store.vfs.open(store.log_path, create=True), store.page_size)
    log.file.truncate(0)  # CR1
    log.space = 0
    raw = header.encode()
    log.file.write_at(0, raw)
    log.reserve(LOG_HEADER_SIZE + log.frame_size)
    store.sync_log()
    store.vfs.sync_dir(store.log_path)
    set_flag(store, LogFlag.needed_for(salt, generation))
    chain = LogHeader.decode(raw, store.log_path).checksum
    shared.publish(
        LogEnd(generation, salt, LOG_HEADER_SIZE, end.commit, end.page_count, chain, end.synced)
    )
    store.refresh(writing=True)
    return log


def remove_name(store: Attachment, path: str) -> None:
    """Remove the name of a log or -shm that is to be made anew (CR3).

    Where the folder does not let the process do that, the old file is used again.
    """
    try:
        store.vfs.unlink(path)
    except OperationalError as error:
        if not isinstance(error.__cause__, PermissionError):
            raise


def set_flag(store: Attachment, flag: LogFlag) -> None:
    """Write the flag's sector, durably (S4)."""
    try:
        store.file.write_at(FLAG_OFFSET, flag.encode())
    except OperationalError as error:
        store.poison(f"{error}; whether the file needs its log is unknown")
        raise
    store.sync_file()
