"""Opening: what state a file is in, and how a connection joins it (S3, S4).

    OPENING is had: nobody else is about to open
    ATTACH exclusive was had: nobody else has the file
        first page all zero     new: create it                          (no log may lie there)
        flag clear              clean: a log that lies there is ignored
        flag needed, log there  recover; a reader applies the log in memory and changes nothing,
                                and so does a writer while the disk is full
        flag needed, no log     refused: copied without its log
      then -shm is filled and ATTACH is kept shared
    ATTACH shared was had: -shm says what there is

Invariants
    O1  ATTACH is taken before `-wal` is looked at, and the path's inode is compared after (S3).
    O2  An old -shm is ignored by the first (S3), and without one nobody joins.
    O3  An open that fails has changed no byte of any file and leaves none behind.
    O4  OPENING is held until all is done: whoever else holds ATTACH is attached, and not another
        one that waits to find out; and while we hold ATTACH too it cannot remove -shm.
    O5  -shm is made anew, under its name, by the first: an old one may still be mapped by those who
        have a file open that had this path before and was moved or replaced (S29).
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from m2mdb.pager.errors import CorruptDatabaseError, OperationalError
from m2mdb.pager.header import FIRST_PAGE_SIZE, FLAG_OFFSET, HEADER_SIZE, Header, LogFlag
from m2mdb.pager.io_errors import is_disk_full
from m2mdb.wal.creation import create_database, is_unborn, remove_name
from m2mdb.wal.frame import LOG_HEADER_SIZE
from m2mdb.wal.locks import ATTACH, OPENING, Locks, Patience
from m2mdb.wal.marks import Marks
from m2mdb.wal.recovery import apply_log, recover
from m2mdb.wal.shared import SHARED_SIZE, Backfill, LogEnd, SharedState

if TYPE_CHECKING:
    from m2mdb.pager.vfs import File, Vfs
    from m2mdb.wal.attachment import Attachment
    from m2mdb.wal.options import StoreOptions

_FIRST_PAGE = 4096  # bytes of the smallest first page
_REOPENINGS = 10  # how often a path may name another file before it is given up

_marks_begun = 0  # stores opened in this process: each begins with another slot


def open_attached(vfs: Vfs, path: str, options: StoreOptions) -> tuple[File, bool]:
    """The open main file with ATTACH held, and whether that is exclusive (O1)."""
    for _ in range(_REOPENINGS):
        file = _open(vfs, path, options)
        try:
            if options.immutable:
                return file, True
            alone = _attach(vfs, path, options, file)
            found = vfs.identity(path)
            if found is not None and found[:2] == file.identity()[:2]:
                return file, alone
        except BaseException:
            file.close()
            raise
        file.close()
    raise OperationalError(f"cannot open {path}: it is replaced again and again")


def _open(vfs: Vfs, path: str, options: StoreOptions) -> File:
    try:
        return vfs.open(path, create=options.create, read_only=options.immutable)
    except OperationalError as error:
        cause = error.__cause__
        denied = isinstance(cause, OSError) and not isinstance(
            cause, (FileNotFoundError, IsADirectoryError, NotADirectoryError)
        )
        if options.read_only and not options.immutable and denied:
            raise OperationalError(
                f"{error}; a reader leaves a mark that needs a writable file: a file that nobody "
                f"writes is opened with immutable=1"
            ) from cause
        raise


def _attach(vfs: Vfs, path: str, options: StoreOptions, file: File) -> bool:
    locks = Locks(file, enabled=not options.no_lock)
    alone = False

    def attempt() -> bool:
        nonlocal alone
        if not locks.exclusive(OPENING):
            return False
        alone = locks.exclusive(ATTACH)
        if not alone and locks.shared(ATTACH):
            # O4: whoever was in the way may be gone by now, and -shm with it
            alone = locks.exclusive(ATTACH)
            return True
        return alone

    Patience(vfs, options.timeout).wait(
        attempt, lambda: f"{path} is locked: another process opens, recovers or closes it"
    )
    return alone


def attach(store: Attachment, options: StoreOptions, *, alone: bool) -> None:
    """Learn the state of the file, and join or begin the shared one."""
    if not alone:
        _join(store)
        return
    _begin(store, options)
    if options.immutable:
        return
    try:
        _begin_shared(store)
        store.locks.shared(ATTACH)
    except BaseException:
        if store.shared is not None:  # O3
            with contextlib.suppress(OperationalError):
                store.vfs.unlink(store.shm_path)
        raise


def opened(store: Attachment) -> None:
    """The store is attached: let others open (O4)."""
    store.locks.drop(OPENING)


# -- alone -------------------------------------------------------------------------------------


def _begin(store: Attachment, options: StoreOptions) -> None:
    raw = store.file.read_at(0, _FIRST_PAGE)
    if raw.count(0) == len(raw):
        _begin_new(store, options)
        return
    header = Header.decode(raw[:HEADER_SIZE], store.path)
    store.set_format(header)
    flag: LogFlag | None = None
    damage: CorruptDatabaseError | None = None
    try:
        flag = LogFlag.decode(raw[FLAG_OFFSET:FIRST_PAGE_SIZE], store.path)
    except CorruptDatabaseError as error:
        damage = error
    if flag is not None and not flag.needed:
        _begin_clean(store, header)
    elif not store.vfs.exists(store.log_path):
        raise CorruptDatabaseError(
            f"{store.path} was copied without its log, or the log was removed: "
            f"{store.log_path} is missing, and the newest commits are in it"
        ) from damage
    elif options.read_only:
        apply_log(store, flag)
    else:
        _recover_or_wait(store, flag)


def _recover_or_wait(store: Attachment, flag: LogFlag | None) -> None:
    """Recover; on a full disk that is left to the first write, as where a reader comes first.

    What was copied already stands in the log too, from which it is read (S11).
    """
    try:
        recover(store, flag)
    except OperationalError as error:
        end, log = store.end, store.log
        if not is_disk_full(error) or store.poisoned or log is None or not end.generation:
            raise
        if not log.is_of(end.generation, end.salt):
            raise
        store.recovery_waits = True


def _begin_new(store: Attachment, options: StoreOptions) -> None:
    """S4: an all-zero first page and no log."""
    if not is_unborn(store):
        raise CorruptDatabaseError(
            f"{store.path} is not a database: its first page is empty, and among the "
            f"{store.file.size()} bytes of the file are some that no new database has"
        )
    if store.vfs.exists(store.log_path):
        raise CorruptDatabaseError(
            f"{store.path} is empty, but {store.log_path} is the log of a database that was there; "
            f"when nobody has that one open any more, remove the log to begin anew"
        )
    if options.read_only:
        raise CorruptDatabaseError(
            f"{store.path} is not a database: its first page is empty; opened for writing it "
            f"becomes one"
        )
    store.header = None
    header = create_database(store)
    store.set_format(header)
    _settle_without_log(store, header)


def _begin_clean(store: Attachment, header: Header) -> None:
    size, wanted = store.file.size(), header.page_count * header.page_size
    if size < wanted:
        raise CorruptDatabaseError(
            f"{store.path} is truncated: {size} bytes, expected {wanted} for its "
            f"{header.page_count} pages"
        )
    _settle_without_log(store, header)


def _settle_without_log(store: Attachment, header: Header) -> None:
    end = LogEnd(0, 0, LOG_HEADER_SIZE, header.commit, header.page_count, 0, header.commit)
    store.settle(end, Backfill(0, LOG_HEADER_SIZE, header.commit))


def _begin_shared(store: Attachment) -> None:
    """Make and fill -shm anew (O2, O5); S6: who cannot is refused."""
    vfs = store.vfs
    existed = vfs.exists(store.shm_path)
    try:
        if existed:
            remove_name(store, store.shm_path)
        memory = vfs.shared_memory(store.shm_path, SHARED_SIZE, create=True)
    except OperationalError as error:
        if not existed:
            with contextlib.suppress(OperationalError):
                vfs.unlink(store.shm_path)
        hint = "; a file that nobody writes is opened with immutable=1" if store.read_only else ""
        raise OperationalError(f"{error}{hint}") from error.__cause__
    assert memory is not None
    store.shared = SharedState(memory)
    store.shared.begin(store.identity, store.end, store.backfill)
    applied = store.read_only or store.recovery_waits
    store.shared.unrecovered = applied and store.end.generation > 0
    _begin_marks(store)
    store.refresh()


def _begin_marks(store: Attachment) -> None:
    global _marks_begun
    assert store.shared is not None
    _marks_begun += 1
    store.marks = Marks(store.shared, store.locks, store.pid * 7 + _marks_begun * 29)


# -- joining -----------------------------------------------------------------------------------


def _join(store: Attachment) -> None:
    memory = store.vfs.shared_memory(store.shm_path, SHARED_SIZE, create=False)
    if memory is None:
        raise OperationalError(
            f"cannot open {store.path}: it is open under another name, or {store.shm_path} was "
            f"removed; close all connections first"
        )
    store.shared = SharedState(memory)
    if not store.shared.belongs_to(store.identity):
        raise OperationalError(
            f"cannot open {store.path}: {store.shm_path} belongs to another file"
        )
    store.set_format(store.read_header())
    raw = store.shared.look()
    found = SharedState.decode(raw)
    if found is not None and not found[0].generation:
        store.settle(*found)
    _begin_marks(store)
    store.refresh()
