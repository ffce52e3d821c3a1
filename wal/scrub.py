"""Scrubbing: no byte of what was freed is left in the file or the log (S26).

    freed with the SCRUB bit, committed        nobody uses these pages, whoever opens the file
      -> copy the log into the file, begin it anew         as each checkpoint does
      -> overwrite the log, sync, cut it, sync             WRITER is held from here on
      -> overwrite the pages, sync
      -> commit: they are ordinary free pages

Anything may stop between two arrows: the bit stands in the free map until the last one, and all of
it is done again. Nothing waits for a reader: where one is in the way, the caller asks again later.

Invariants
    SB1 A page is overwritten only while WRITER is held, while no live snapshot is older than the
        newest commit, and while that commit is in the file, durably (S9): so nobody reads the page,
        and no crash brings a commit back that used it.
    SB2 The log is overwritten before the pages are: a recovery would copy its frames over them.
    SB3 The file is synced before the commit that frees the pages, also where every byte was zero
        already: whoever wrote the zeros may have died before its sync.
    SB4 The space behind the last page is overwritten like a free page: a transaction that was
        rolled back, or whose process died, may have written extents there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m2mdb.pager.errors import DatabaseBusyError
from m2mdb.pager.freespace import SCRUB
from m2mdb.wal.frame import LOG_HEADER_SIZE

if TYPE_CHECKING:
    from m2mdb.pager.vfs import File
    from m2mdb.wal.shared import Mark
    from m2mdb.wal.store import Store
    from m2mdb.wal.transaction import Transaction

_PAUSE = 0.002  # seconds between two looks for readers
_ZEROS = bytes(1 << 20)


def in_the_way(store: Store, *, others: bool = False) -> list[Mark]:
    """The live marks, or only those of `others`, that keep the store from being scrubbed now.

    They are of an older commit, or read frames of the log.
    """
    if store.marks is None:
        return []
    commit = store.last_commit
    live = store.marks.live(others=others)
    return [mark for mark in live if mark.end or mark.commit < commit]


def begin_scrub(store: Store, grace: float = 0.0) -> Transaction | None:
    """A transaction on a file that holds every commit, beside an empty and overwritten log.

    None where another connection is in the way and still is after `grace` seconds.
    Raises OperationalError where the file must not be written, or cannot.
    """
    start = store.vfs.monotonic()
    while True:
        store.checkpoint("passive")
        transaction = None if in_the_way(store) else _begin(store)
        if transaction is not None or store.vfs.monotonic() - start >= grace:
            return transaction
        store.vfs.sleep(_PAUSE)


def _begin(store: Store) -> Transaction | None:
    try:
        transaction = store.begin_write(wait=False)  # begins the log anew where it may
    except DatabaseBusyError:
        return None
    try:
        if store.end.offset == LOG_HEADER_SIZE and not in_the_way(store):  # SB1
            _wipe_log(store)
            return transaction
    except BaseException:
        transaction.rollback()
        raise
    transaction.rollback()
    return None


def _wipe_log(store: Store) -> None:
    """The log's header alone is left; the synced zeros are for those who read the disk itself."""
    log = store.log
    if log is None or not store.end.generation or log.file.size() <= LOG_HEADER_SIZE:
        return
    log.wipe()
    store.sync_log()
    log.cut()
    store.sync_log()


def zero_free_pages(transaction: Transaction, *, everything: bool) -> None:
    """Overwrite the pages to be scrubbed, and with `everything` all that is free (SB4).

    `transaction` is that of `begin_scrub`; after its commit the pages are ordinary free ones.
    """
    store = transaction.store
    size = store.page_size
    end = store.file.size()
    for start, length, freed in transaction.free_runs():
        first, last = (start - 1) * size, min((start - 1 + length) * size, end)
        if freed & SCRUB:
            _overwrite(store.file, first, last, always=True)
        elif everything:
            _overwrite(store.file, first, last, always=False)
    if everything:
        _overwrite(store.file, transaction.page_count * size, end, always=False)
    store.sync_file()  # SB3
    transaction.end_scrub()


def _overwrite(file: File, start: int, end: int, *, always: bool) -> None:
    """Zeros from `start` to `end`; what is zero already is written again only with `always`."""
    for offset in range(start, end, len(_ZEROS)):
        zeros = memoryview(_ZEROS)[: min(len(_ZEROS), end - offset)]
        if always or file.read_at(offset, len(zeros)) != zeros:
            file.write_at(offset, zeros)
