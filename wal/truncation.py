"""Truncation: cutting the file behind its last page (S18, S27).

    smaller page count committed -> log copied, file synced -> file cut -> synced

A transaction gives free pages at the file's end back by committing a smaller page count
(`Transaction.shrink`). The bytes behind it stay until nobody can have them mapped: a view of what
was cut would end the process that looks at it.

Invariants
    TR1 The file is cut under ATTACH exclusive and WRITER: no other connection has a map of it.
    TR2 The header in the file names the page count, durably, before the file is cut to it: a crash
        leaves a file that is too long, never one that is too short.
    TR3 No snapshot needs what is cut: its pages were usable when they were given back (S9), and a
        snapshot that began later does not know them.
    TR4 What keeps the file from being cut is no error: it is cut by the last one that closes it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from m2mdb.wal.checkpoint import copy_all_frames, erase_leftover
from m2mdb.wal.frame import LOG_HEADER_SIZE
from m2mdb.wal.locks import ATTACH, CHECKPOINT, WRITER

if TYPE_CHECKING:
    from m2mdb.wal.attachment import Attachment

CUT_BYTES = 32 << 20  # that the system gives back by one call, in some milliseconds
_OTHERS = "another connection has the file open; the last one that closes it cuts it"
_SNAPSHOT = "a snapshot keeps the log from being copied"
_UNRECOVERED = "the log of an earlier process is recovered first, by the next commit"


def _unasked() -> None:
    """For who is not to be stopped."""


def cut_file(store: Attachment, check: Callable[[], None]) -> tuple[int, str]:
    """Cut the file behind its last page: bytes given back, and why not more (TR4).

    check  called before each CUT_BYTES are given back; it may raise, and the rest stays then
    """
    unsettled, store.unsettled = store.unsettled, True
    try:
        try:
            result = _cut_alone(store, check)
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
    store.locks.shared(ATTACH)


def _cut_alone(store: Attachment, check: Callable[[], None]) -> tuple[int, str]:
    if store.file.size() <= store.end.page_count * store.page_size:
        return 0, ""
    locks = store.locks
    if not (locks.exclusive(ATTACH) and locks.exclusive(CHECKPOINT) and store.try_writer()):
        return 0, _OTHERS
    store.check_writable()
    store.refresh(writing=True)
    shared, log = store.shared, store.log
    assert shared is not None
    if store.end.generation:
        assert log is not None
        if shared.unrecovered or not log.is_of(store.end.generation, store.end.salt):
            return 0, _UNRECOVERED
        store.extend_index()
        erase_leftover(store)
        if store.end.offset > LOG_HEADER_SIZE and not copy_all_frames(store):
            return 0, _SNAPSHOT
    return cut(store, check), ""


def cut(store: Attachment, check: Callable[[], None] = _unasked) -> int:
    """Cut what stands behind the last page; all of the log is in the file, synced (TR1, TR2)."""
    wanted = store.end.page_count * store.page_size
    size = store.file.size()
    header = store.read_header()
    if size <= wanted or header.page_count != store.end.page_count:
        return 0
    store.extents = {
        key: extent
        for key, extent in store.extents.items()
        if extent.descriptor.start_page <= store.end.page_count
    }
    for left in range(size - CUT_BYTES, wanted, -CUT_BYTES):
        check()
        store.file.truncate(left)
    check()
    store.file.truncate(wanted)
    store.sync_file()
    return size - wanted
