"""The store: one database file opened by one connection.

    Store.open --> open --close--> closed
                    |  ^
          begin_read, begin_write, checkpoint

One reader or writer of the same process is as foreign to another store as one of another process:
locks belong to the open file (S1). A store is not for two threads at a time.

Invariants
    ST1 At most one transaction is open; it holds WRITER (TX1).
    ST2 After close or in a forked child every use is an InterfaceError (S5).
    ST3 A lock that an interrupt left behind, or a transaction that nobody holds any more, is given
        up at the next use.
    ST4 What a call holds is not given up while it runs: a busy handler or a signal handler that
        uses the store in the midst of it is refused.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING
from weakref import ref

from m2mdb.pager.errors import (
    DatabaseBusyError,
    InterfaceError,
    OperationalError,
    ProgrammingError,
    StaleSnapshotError,
)
from m2mdb.pager.os_fork import end_at_fork
from m2mdb.wal.attachment import Attachment
from m2mdb.wal.checkpoint import checkpoint, prepare_log
from m2mdb.wal.closing import detach
from m2mdb.wal.locks import ATTACH, CHECKPOINT, WRITER, BusyHandler
from m2mdb.wal.opening import attach, open_attached, opened
from m2mdb.wal.options import StoreOptions
from m2mdb.wal.snapshot import NO_MARK, Snapshot
from m2mdb.wal.transaction import Transaction
from m2mdb.wal.truncation import cut_file

if TYPE_CHECKING:
    from types import FrameType
    from typing import Self

    from m2mdb.pager.vfs import Vfs

__all__ = ["Store", "StoreOptions"]

_numbers = itertools.count(1)  # of the snapshots of this process
_CLOSED = "the database is closed"
_FORKED = "the database was opened before a fork; the child has to open it again"


class Store(Attachment):
    """A database file, open."""

    @classmethod
    def open(cls, vfs: Vfs, path: str, options: StoreOptions) -> Self:
        """Open a file, create it, or recover it.

        Raises OperationalError: absent, a directory, no permission, locked (DatabaseBusyError);
        CorruptDatabaseError: no database, truncated, without its log; NotSupportedError: of a
        newer format. A failed open changes nothing.
        """
        existed = not options.create or vfs.exists(path)
        file, alone = open_attached(vfs, path, options)
        store: Self | None = None
        try:
            store = cls(vfs, path, options, file)
            attach(store, options, alone=alone)
            opened(store)
        except BaseException:
            if store is not None:
                store._give_up()
            if not existed and alone and not file.size():
                with contextlib.suppress(OperationalError):
                    vfs.unlink(path)
            file.close()
            raise
        end_at_fork(store)
        return store

    def _give_up(self) -> None:
        self.refuse(_CLOSED)
        if self.log is not None:
            self.log.file.close()
        if self.shared is not None:
            self.shared.close()

    # -- reading -------------------------------------------------------------------------------

    def begin_read(self) -> Snapshot:
        """The newest commit, kept readable until the snapshot is closed."""
        if self.refusal or self.forgotten or self.unsettled:
            self._ready()
        marks, shared = self.marks, self.shared
        if marks is None or shared is None:
            return Snapshot(self, NO_MARK, in_file=self.in_file)
        self.unsettled = True
        while True:
            raw = self.refresh()
            number = next(_numbers)
            # It is there before its mark: whatever interrupts this, its finaliser tells of it.
            snapshot = Snapshot(self, number, in_file=self.in_file)
            try:
                marks.take(self.mark, number)
                if shared.look() == raw and (
                    self.index.end >= self.end.offset or self.extend_index_unprotected()
                ):
                    self.unsettled = False
                    return snapshot
            except BaseException:
                snapshot.close()
                self.unsettled = True
                marks.sweep()  # K3
                raise
            snapshot.close()
            self.unsettled = True

    # -- writing -------------------------------------------------------------------------------

    def begin_write(self, *, wait: bool = True) -> Transaction:
        """A transaction on the newest commit; waits for another writer (S13), or does not.

        Raises DatabaseBusyError after the timeout, or at once; OperationalError where the file must
        not be written.
        """
        self._ready()
        if self.open_transaction() is not None:
            raise InterfaceError(f"{self.path}: a transaction is open already")
        self.check_not_read_only()
        self.unsettled = True
        try:
            if wait:
                self.patience.wait(self._take_writer, self.writer_complaint)
            elif not self._take_writer():
                raise DatabaseBusyError(self.writer_complaint())
            transaction = Transaction(self)
            self.transaction = ref(transaction)
        except BaseException:
            self.transaction = None
            self.locks.drop(CHECKPOINT)  # K3: of a reset that was interrupted
            self.locks.drop(WRITER)
            raise
        self.unsettled = False
        return transaction

    def _take_writer(self) -> bool:
        """Try to have WRITER, with the newest end and a log that can be written."""
        if not self.try_writer():
            return False
        self.check_writable()
        self.refresh(writing=True)
        self.extend_index()
        if prepare_log(self):
            return True
        self.locks.drop(WRITER)
        return False

    def upgrade(self, snapshot: Snapshot) -> Transaction:
        """A transaction on what the snapshot shows; OperationalError where that is stale (S13)."""
        self._ready()
        self._check_newest(snapshot)
        transaction = self.begin_write()
        try:
            self._check_newest(snapshot)
        except BaseException:
            transaction.rollback()
            raise
        return transaction

    def _check_newest(self, snapshot: Snapshot) -> None:
        if self.shared is not None:
            self.refresh()
        if snapshot.commit != self.end.commit:
            raise StaleSnapshotError(
                f"{self.path}: stale snapshot of commit {snapshot.commit}: another connection has "
                f"committed {self.end.commit}; end the transaction and begin it again"
            )

    def checkpoint(self, mode: str = "passive", grace: float | None = None) -> tuple[int, int, int]:
        """Copy the log into the file: (busy, frames in the log, frames copied).

        mode   passive, full, restart or truncate (wal.checkpoint)
        grace  seconds to wait for readers, while nobody can write; None: the busy timeout
        """
        self._ready()
        if self.open_transaction() is not None:
            raise OperationalError(f"{self.path}: no checkpoint inside a transaction")
        self.check_not_read_only()
        return checkpoint(self, mode, grace)

    def cut(self, check: Callable[[], None] = lambda: None) -> tuple[int, str]:
        """Give back what stands behind the last page: bytes, and why not more (S18, S27).

        check  called between pieces of a long end of the file; it may raise
        """
        self._ready()
        if self.open_transaction() is not None:
            raise OperationalError(f"{self.path}: the file is not cut inside a transaction")
        self.check_not_read_only()
        self.refresh()
        return cut_file(self, check)

    # -- settings and figures ------------------------------------------------------------------

    @property
    def timeout(self) -> float:
        """Seconds to wait for another connection's lock."""
        return self.patience.timeout

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        self.patience.timeout = seconds

    @property
    def busy_handler(self) -> BusyHandler | None:
        """Asked instead of the timeout, with how often it was asked before; False gives up."""
        return self.patience.handler

    @busy_handler.setter
    def busy_handler(self, handler: BusyHandler | None) -> None:
        self.patience.handler = handler

    @property
    def closed(self) -> bool:
        """Whether the store can be used no more."""
        return bool(self.refusal)

    @property
    def last_commit(self) -> int:
        """The newest commit of any process."""
        self._ready()
        if self.shared is not None:
            self.refresh()
        return self.end.commit

    @property
    def log_bytes(self) -> int:
        """Bytes of the log's file; 0 where there is none."""
        self._ready()
        if self.shared is not None:
            self.refresh()
        return self.log.file.size() if self.log is not None and self.end.generation else 0

    def stats(self, *, without: object = None) -> dict[str, int]:
        """Figures for PRAGMAs and tests; marks are looked for under their locks.

        without  a snapshot that does not count as a reader
        """
        commit = self.last_commit
        number = without.number if isinstance(without, Snapshot) else NO_MARK
        self.unsettled = True
        marks = self.marks.live(without=number) if self.marks is not None else []
        self.unsettled = False
        log = self.log
        copied = self.backfill.generation == self.end.generation and log is not None
        oldest = min(marks, key=lambda mark: mark.commit, default=None)
        return {
            "commit": commit,
            "page_count": self.end.page_count,
            "generation": self.end.generation,
            "log_bytes": self.log_bytes,
            "log_frames": log.frame_count(self.end.offset) if log is not None else 0,
            "frames_copied": log.frame_count(self.backfill.offset) if log and copied else 0,
            "readers": len(marks),
            "oldest_commit": commit if oldest is None else oldest.commit,
            "oldest_pid": 0 if oldest is None else oldest.pid,
            "cached_pages": len(self.versions),
        }

    # -- the end -------------------------------------------------------------------------------

    def close(self) -> None:
        """Roll back what is open and leave the file; a second call does nothing."""
        if self.refusal:
            return
        self.check_not_within()
        transaction = self.open_transaction()
        if transaction is not None:
            transaction.rollback()
        try:
            try:
                if not self.immutable:
                    detach(self)
            finally:
                self.file.close()
                self._give_up()
        except BaseException:
            self.file.close()  # K3
            self._give_up()
            raise

    def abandon(self) -> None:
        """In a forked child: no unlock, no checkpoint, no unlink, no store to -shm (S5)."""
        if self.refusal:
            return
        self.refuse(_FORKED)
        self.file.abandon()
        if self.log is not None:
            self.log.file.abandon()
        self.shared = None
        self.marks = None

    def check_not_within(self) -> None:
        """Raise ProgrammingError inside a call of this store that holds locks (ST4).

        `unsettled` alone says that one runs or was interrupted; the stack says which.
        """
        if self.unsettled and _runs_below(sys._getframe(1), self):
            raise ProgrammingError(
                f"{self.path}: the connection is used inside one of its own calls, by a busy "
                f"handler or a signal handler; only other connections can be used there"
            )

    def _ready(self) -> None:
        """Refuse or go on; drop what a forgotten snapshot or an interrupt left (ST3)."""
        self.check_open()
        self.check_not_within()
        if self.unsettled and self.shared is not None:
            self.locks.drop(CHECKPOINT)
            if self.open_transaction() is None:
                self.locks.drop(WRITER)
                self.locks.shared(ATTACH)  # a cut of the file was interrupted
            if self.marks is not None:
                self.marks.sweep()
        self.unsettled = False
        while self.forgotten:
            number = self.forgotten[-1]
            if self.marks is not None:
                self.marks.drop(number)
            self.forgotten.pop()
        if self.transaction is not None and self.open_transaction() is None:
            self.locks.drop(WRITER)
            self.transaction = None

    def __repr__(self) -> str:
        return f"<Store {self.path!r}{' (closed)' if self.refusal else ''}>"


_HOLDING = {  # what holds locks while it runs, and by which name it knows its store
    Store.begin_read.__code__: "self",
    Store.begin_write.__code__: "self",
    Store.stats.__code__: "self",
    checkpoint.__code__: "store",
    cut_file.__code__: "store",
    Transaction.close.__code__: "store",
    Snapshot.close.__code__: "store",
}


def _runs_below(frame: FrameType | None, store: Store) -> bool:
    """Whether a call of the store that holds locks goes on further down the stack.

    The frames of this layer at the top are those of the new call.
    """
    entered = True
    while frame is not None:
        if entered:
            entered = frame.f_globals.get("__package__") == __package__
        elif frame.f_locals.get(_HOLDING.get(frame.f_code, "")) is store:
            return True
        frame = frame.f_back
    return False
