"""Closing: the last connection leaves one file that is whole by itself (S4).

    ATTACH exclusive -> copy the log -> sync -> cut what is behind the last page
        -> clear the flag -> sync -> unlink -wal, -shm -> sync the folder

Who cannot get ATTACH exclusively is not the last one and just goes. Two that leave at once may
both fail to convert their shared lock: each then lets go of it and tries once more, so that one
of them is alone; what it knew of the log counts no more, and it recovers as if it opened the file.

Invariants
    CL1 After a failed sync nothing is checkpointed and the flag stays: whoever opens the file
        next recovers (S11).
    CL2 What fails here loses nothing: flag and log stay until all of the log is in the file.
    CL3 A first write that was stopped between setting the flag and publishing its log has left a
        whole file that calls for a log: the flag is cleared before that log is removed.
    CL4 A flag that reads as clear may not be so on the disk, where the sync after clearing it has
        failed: as long as a log lies there it is written and synced once more before that goes.
    CL5 Where -shm was filled for another file, what it says of the log is not this file's: log and
        flag stay as they are.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from m2mdb.pager.errors import CorruptDatabaseError, DatabaseError
from m2mdb.pager.header import FLAG_OFFSET, FLAG_SIZE, Header, LogFlag
from m2mdb.wal.checkpoint import write_again
from m2mdb.wal.creation import set_flag
from m2mdb.wal.locks import ATTACH
from m2mdb.wal.lost_commits import keep_aside
from m2mdb.wal.recovery import apply_log, copy_all
from m2mdb.wal.truncation import cut

if TYPE_CHECKING:
    from m2mdb.wal.attachment import Attachment


def detach(store: Attachment) -> None:
    """Leave the file; the last one makes it whole."""
    with contextlib.suppress(DatabaseError):  # CL2
        if store.locks.exclusive(ATTACH):
            _leave_whole(store)
            return
        store.locks.drop(ATTACH)
        if store.locks.exclusive(ATTACH) and not store.read_only:
            _leave_whole_again(store)


def _leave_whole(store: Attachment) -> None:
    """Nobody else was there meanwhile: what this store knows holds."""
    shared = store.shared
    assert shared is not None
    store.check_healthy()  # CL1
    if not shared.belongs_to(store.identity):
        return  # CL5
    store.refresh(writing=True)
    if store.read_only and (store.end.generation or _flag_is_needed(store)):
        store.vfs.unlink(store.shm_path)
        return
    if shared.unrecovered:
        _leave_whole_again(store)
        return
    if store.end.generation:
        if not store.in_file:
            store.extend_index()
            copy_all(store, store.end)
        cut(store)
        _clear(store)
    elif _flag_is_needed(store):  # CL3
        _clear(store)
    else:
        _clear_again(store)
    _remove(store)


def _flag_is_needed(store: Attachment) -> bool:
    """Whether the file's sector says that it needs a log; one that is torn may say so."""
    try:
        return LogFlag.decode(store.file.read_at(FLAG_OFFSET, FLAG_SIZE), store.path).needed
    except CorruptDatabaseError:
        return True


def _leave_whole_again(store: Attachment) -> None:
    """Others may have come and gone since ATTACH was let go."""
    if store.poisoned or store.sync_is_open or not _has_its_name(store):
        return
    store.set_format(Header.decode(store.file.read_at(0, FLAG_OFFSET), store.path))
    flag = LogFlag.decode(store.file.read_at(FLAG_OFFSET, FLAG_SIZE), store.path)
    if flag.needed:
        if store.log is not None:
            store.log.file.close()
        end = apply_log(store, flag)
        keep_aside(store)
        write_again(store, end)
        copy_all(store, end)
        cut(store)
        _clear(store)
    else:
        _clear_again(store)
    _remove(store)


def _has_its_name(store: Attachment) -> bool:
    found = store.vfs.identity(store.path)
    return found is not None and found[:2] == store.identity[:2]


def _clear(store: Attachment) -> None:
    """The file is whole: say so, durably."""
    set_flag(store, LogFlag(False, store.end.salt, store.end.generation))


def _clear_again(store: Attachment) -> None:
    """CL4: a log beside a clear flag was left by a close whose last sync may have failed."""
    if store.vfs.exists(store.log_path):
        flag = LogFlag.decode(store.file.read_at(FLAG_OFFSET, FLAG_SIZE), store.path)
        set_flag(store, flag)


def _remove(store: Attachment) -> None:
    """Remove log and -shm, unless the path is another file's by now and they may be its own."""
    vfs = store.vfs
    if not _has_its_name(store) and vfs.exists(store.path):
        return
    if store.log is not None or vfs.exists(store.log_path):
        vfs.unlink(store.log_path)
        vfs.unlink(store.shm_path)
        vfs.sync_dir(store.path)
    else:
        vfs.unlink(store.shm_path)
