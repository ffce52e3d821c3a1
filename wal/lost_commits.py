"""Lost commits: what is known of them when a log is applied, and the log that is kept aside (S3).

    the chain breaks at commit c + 1 --> a frame of commit c + 2 or later stands behind the break?
        no    a torn write: the log ends there, as it should
        yes   commits were published and are lost: opening goes on with commit c, and says so
                  who recovers          the log is copied to PATH-wal-damaged-<n> first
                  who only reads        the log stays as it is; on a full disk too (`wal.opening`)
                  untrusted             refused

`full` never leaves such a log behind a crash. `normal` and `off` may after a power failure, which
brings blocks to the disk in any order: what is told is true then too, those commits are lost.

Invariants
    LC1 A log with lost commits is never made void before all of it is kept aside, durably.
    LC2 A file that was kept aside is never overwritten; one of the same bytes is not written again.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple

from m2mdb.pager.errors import CorruptDatabaseError, OperationalError
from m2mdb.wal.stray_frames import lost_behind

if TYPE_CHECKING:
    from m2mdb.pager.vfs import File
    from m2mdb.wal.attachment import Attachment
    from m2mdb.wal.log import Log
    from m2mdb.wal.shared import LogEnd

_COPIED_AT_ONCE = 1 << 20  # bytes


class LostCommits(NamedTuple):
    """Commits that were published and cannot be read, by what stands behind them in the log."""

    log_path: str
    commit: int  # the last one that is there
    newest: int  # the last one that is known to be lost
    kept_as: str = ""  # where the log is kept

    @property
    def text(self) -> str:
        """What a person is told."""
        kept = f"; the log is kept as {self.kept_as}" if self.kept_as else ""
        count = self.newest - self.commit
        return (
            f"{self.log_path} is damaged behind commit {self.commit}: {count} later commits, up to "
            f"{self.newest} at least, are lost{kept}"
        )


def find_lost(log: Log, end: LogEnd) -> LostCommits | None:
    """The commits that are lost behind the end of a log that nobody writes."""
    newest = lost_behind(log.file, log.page_size, end.salt, end.offset, end.chain, end.commit)
    return LostCommits(log.file.path, end.commit, newest) if newest else None


def look_behind(store: Attachment, end: LogEnd) -> None:
    """Note what is lost behind a log that was applied; CorruptDatabaseError: it is untrusted."""
    assert store.log is not None
    store.lost = find_lost(store.log, end)
    if store.lost is not None and store.options.untrusted:
        raise CorruptDatabaseError(f"{store.path} is refused as untrusted: {store.lost.text}")


def keep_aside(store: Attachment) -> None:
    """Copy a log with lost commits to a name of its own, before it is made void (LC1)."""
    if store.lost is None or store.lost.kept_as:
        return
    assert store.log is not None
    vfs, source = store.vfs, store.log.file
    number = 1
    while vfs.exists(path := f"{store.log_path}-damaged-{number}"):
        if _is_copy(store, path):
            store.lost = store.lost._replace(kept_as=path)
            return
        number += 1
    try:
        target = vfs.open(path, create=True)
        try:
            _copy(source, target)
            target.sync()
        finally:
            target.close()
        vfs.sync_dir(path)
    except BaseException as error:
        with contextlib.suppress(OperationalError):
            vfs.unlink(path)
        if isinstance(error, OperationalError):
            raise OperationalError(
                f"{store.lost.text}; recovery would make the log void, and a copy of it cannot be "
                f"kept: {error}; until then it is only read"
            ) from error.__cause__
        raise
    store.lost = store.lost._replace(kept_as=path)


def _copy(source: File, target: File) -> None:
    offset = 0
    while chunk := source.read_at(offset, _COPIED_AT_ONCE):
        target.write_at(offset, chunk)
        offset += len(chunk)


def _is_copy(store: Attachment, path: str) -> bool:
    """Whether a file has the log's bytes (LC2)."""
    assert store.log is not None
    source = store.log.file
    if store.vfs.size(path) != source.size():
        return False
    file = store.vfs.open(path, read_only=True)
    try:
        for offset in range(0, source.size(), _COPIED_AT_ONCE):
            if file.read_at(offset, _COPIED_AT_ONCE) != source.read_at(offset, _COPIED_AT_ONCE):
                return False
        return True
    finally:
        file.close()
