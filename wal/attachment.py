"""The attachment: what one connection holds of a database file while it has it open.

It knows the newest committed end that this process has seen, and what follows from it: the log's
index, the decoded pages, the mark that a snapshot of this end leaves.

    -shm --refresh--> end, backfill --turn (another generation)--> index, versions
                          |
                          +--> mark, in_file: whether a snapshot reads the file alone

Invariants
    AT1 `_raw` is set last: whatever an exception interrupts is done again at the next look (S12).
    AT2 The index is extended by who keeps the log from being reset (a live mark, WRITER or
        CHECKPOINT), or the extension is judged afterwards: a reset is published before the first
        frame is overwritten.
    AT3 Where the end is in the file, snapshots read no frame, and the log may be reset under them;
        until they end nothing newer is copied into the file (S10).
    AT4 A sync that failed is never tried again: the system calls pages clean that it has lost, and
        the second one succeeds (S11). `sync_is_open` outlives whatever stops the handling of it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol, TypeVar
from weakref import ref

from m2mdb.pager.errors import (
    CorruptDatabaseError,
    DatabaseBusyError,
    InterfaceError,
    NotSupportedError,
    OperationalError,
)
from m2mdb.pager.header import HEADER_SIZE, Header
from m2mdb.pager.page import decode_page
from m2mdb.wal.frame import FRAME_HEADER_SIZE, LOG_HEADER_SIZE
from m2mdb.wal.locks import CHECKPOINT, WRITER, Locks, Patience
from m2mdb.wal.log import Log
from m2mdb.wal.logindex import LogIndex
from m2mdb.wal.shared import Backfill, LogEnd, Mark, SharedState
from m2mdb.wal.versions import VersionCache

if TYPE_CHECKING:
    from collections.abc import Callable

    from m2mdb.pager.extent import Extent
    from m2mdb.pager.freespace import FreeMap
    from m2mdb.pager.pages import Node
    from m2mdb.pager.vfs import File, Identity, Vfs
    from m2mdb.wal.lost_commits import LostCommits
    from m2mdb.wal.marks import Marks
    from m2mdb.wal.options import StoreOptions


class OpenTransaction(Protocol):
    """What a store knows of its transaction."""

    is_open: bool

    def rollback(self) -> None:
        """Undo everything."""
        ...


_Read = TypeVar("_Read")

_LOOKS_BEFORE_MENDING = 50
_HEADER_READS = 20  # of a sector that is being overwritten
_UNTIL_CLOSED = "; nothing is written until every connection has closed it"
_LONGEST_PUBLICATION = 5.0  # seconds; it takes a microsecond unless its process is stopped


class Attachment:
    """A main file with its log, its shared state, and what is known of them."""

    marks: Marks | None  # None: immutable, nobody is to be kept from anything
    shared: SharedState | None

    def __init__(self, vfs: Vfs, path: str, options: StoreOptions, file: File) -> None:
        self.vfs = vfs
        self.path = path
        self.options = options
        self.log_path = path + "-wal"
        self.shm_path = path + "-shm"
        self.file = file
        self.identity: Identity = file.identity()
        self.locks = Locks(file, enabled=not options.no_lock and not options.immutable)
        self.patience = Patience(vfs, options.timeout)
        self.synchronous = options.synchronous
        self.wal_autocheckpoint = options.wal_autocheckpoint
        self.secure_delete = False  # what this connection frees is scrubbed at a checkpoint (S26)
        self.read_only = options.read_only
        self.immutable = options.immutable
        self.no_lock = options.no_lock
        self.cache_bytes = options.cache_bytes
        self.pid = vfs.process_id()
        self.shared = None
        self.marks = None
        self.log: Log | None = None
        self.header: Header | None = None  # as the file had it when it was opened
        self.page_size = options.page_size
        self.uuid = b""
        self.end = LogEnd(0, 0, LOG_HEADER_SIZE, 0, 1, 0, 0)
        self.backfill = Backfill(0, LOG_HEADER_SIZE, 0)
        self.in_file = True
        self.mark = b""
        self.index = LogIndex()
        self.versions = VersionCache(options.cache_bytes, options.page_size)
        self.extents: dict[tuple[int, int], Extent] = {}
        self.free_map: tuple[int, FreeMap] | None = None  # commit, and the runs as of it
        self.transaction: ref[OpenTransaction] | None = None
        self.forgotten: list[int] = []  # numbers of snapshots that were collected, not closed
        self.unsettled = False  # a call that takes locks runs, or was interrupted
        self.refusal = ""  # why nothing can be done any more: closed, forked
        self.checkpoint_error = ""  # why the last automatic checkpoint failed
        self.journal_size_limit = -1  # bytes that a log begun anew keeps; -1: all
        self.held_back = ""  # who keeps the log from being copied; whoever tells of it clears it
        self.lost: LostCommits | None = None  # behind the log that was applied at opening
        self.recovery_waits = False  # the disk is full: the log is applied in memory until a write
        self.frames_told = 0  # that were not copied when `held_back` was set last
        self.sync_is_open = False  # a sync was begun, and how it ended is not known (AT4)
        self.poisoned = ""  # why this connection refuses to write
        self._raw = b""
        self._on_network: bool | None = None

    # -- state ---------------------------------------------------------------------------------

    def check_open(self) -> None:
        """Raise InterfaceError after close or fork."""
        if self.refusal:
            raise InterfaceError(f"{self.path}: {self.refusal}")

    @property
    def seen(self) -> bytes:
        """The look at which `end` was seen (`SharedState.look`)."""
        return self._raw

    def open_transaction(self) -> OpenTransaction | None:
        """The transaction, unless it has ended or was lost."""
        found = None if self.transaction is None else self.transaction()
        return found if found is not None and found.is_open else None

    def refuse(self, reason: str) -> None:
        """From now on every use is an InterfaceError; caches are given up."""
        self.refusal = reason
        self.versions.young = _Refusing(f"{self.path}: {reason}")
        self.extents = {}
        self.free_map = None

    def set_format(self, header: Header) -> None:
        """The header says how to read the file."""
        self.header = header
        self.uuid = header.uuid
        if header.page_size != self.page_size:
            self.page_size = header.page_size
            self.versions = VersionCache(self.cache_bytes, header.page_size)

    def settle(self, end: LogEnd, backfill: Backfill) -> None:
        """What the database is, for one that has it alone."""
        self.end, self.backfill = end, backfill
        self.index = LogIndex(end.generation, end.commit)
        self._conclude()

    def _conclude(self) -> None:
        end, backfill = self.end, self.backfill
        copied = backfill.generation == end.generation and backfill.offset >= end.offset
        self.in_file = copied or end.offset == LOG_HEADER_SIZE
        mark = Mark(end.generation, 0 if self.in_file else end.offset, end.commit, self.pid)
        self.mark = SharedState.encode_mark(mark)

    # -- the committed end ---------------------------------------------------------------------

    def refresh(self, *, writing: bool = False) -> bytes:
        """See the newest end; returns the look at which it was seen. `writing`: WRITER is held."""
        assert self.shared is not None
        raw = self.shared.look()
        if raw != self._raw:
            raw = self._see(raw, writing)
        return raw

    def _see(self, raw: bytes, writing: bool) -> bytes:
        assert self.shared is not None
        while True:
            found = SharedState.decode(raw)
            if found is None:
                raw = self._agreed(writing)
                continue
            end, backfill = found
            if end.generation == self.index.generation or self._turn(end):
                break
            again = self.shared.look()
            if again == raw:
                self._skip_frames(end, backfill)
                break
            raw = again
        self.end, self.backfill = end, backfill
        self._conclude()
        self._raw = raw
        return raw

    def _agreed(self, writing: bool) -> bytes:
        """A look at which both ends agree; one that a dead writer left is mended (S2)."""
        shared = self.shared
        assert shared is not None
        start = self.vfs.monotonic()
        looks = 0
        while True:
            raw = shared.look()
            if shared.decode(raw) is not None:
                return raw
            if writing or self.transaction is not None:
                shared.mend()
                continue
            looks += 1
            if looks < _LOOKS_BEFORE_MENDING:
                continue
            if self.locks.exclusive(WRITER):
                shared.mend()
                self.locks.drop(WRITER)
            elif self.vfs.monotonic() - start > max(self.patience.timeout, _LONGEST_PUBLICATION):
                raise DatabaseBusyError(
                    f"{self.path}: process {shared.writer} has stopped while it publishes a commit"
                )
            else:
                self.vfs.sleep(0.001)

    def _turn(self, end: LogEnd) -> bool:
        """Go over to another generation of the log; False when that one is past already."""
        if self.log is None:
            self.log = Log(self.vfs.open(self.log_path, read_only=self.read_only), self.page_size)
        header = self._read_again(self.log.header)
        if header.uuid != self.uuid:
            raise CorruptDatabaseError(
                f"{self.log_path} belongs to another database: uuid {header.uuid.hex()}, "
                f"expected {self.uuid.hex()}"
            )
        if header.generation != end.generation:
            return False
        self.log.space = self.log.file.size()
        if self.index.commit == header.base_commit:
            self.versions = self.versions.turned(self.index.frames)
        else:
            self.versions = VersionCache(self.cache_bytes, self.page_size)
        self.index = LogIndex(end.generation, header.base_commit)
        return True

    def _skip_frames(self, end: LogEnd, backfill: Backfill) -> None:
        """The log has the header of a generation that is not published: its reset stopped there.

        All of the published one is in the file, or else the log is damaged.
        """
        older = end.generation < self.index.generation  # what never happens to one file
        if older or backfill.generation != end.generation or backfill.offset < end.offset:
            raise CorruptDatabaseError(
                f"header of log {self.log_path}: not of generation {end.generation}, whose frames "
                f"up to offset {end.offset} are not copied"
            )
        self.versions = VersionCache(self.cache_bytes, self.page_size)
        self.index = LogIndex(end.generation, end.commit)
        self.index.end = end.offset

    def extend_index(self) -> None:
        """Bring the index up to the end that was seen last (AT2)."""
        end = self.end
        if self.index.end < end.offset:
            assert self.log is not None
            self.index.extend(self.log.file, end.salt, end.offset, self.page_size)

    def extend_index_unprotected(self) -> bool:
        """The same where the log may be reset meanwhile; False when it was, then look again."""
        assert self.shared is not None
        damage: CorruptDatabaseError | None = None
        try:
            self.extend_index()
        except CorruptDatabaseError as error:
            damage = error
        found = SharedState.decode(self.shared.look())
        if found is not None and found[0].generation == self.end.generation:
            if damage is not None:
                raise damage
            return True
        self.index.commit = -1  # it may hold frames of the next generation: carry nothing over
        return False

    def published(self, end: LogEnd) -> None:
        """This store published an end of the generation that it knows.

        Where another one is newest by now, it is seen at the next look.
        """
        assert self.shared is not None
        raw = self.shared.look()
        found = SharedState.decode(raw)
        if found is not None and found[0] == end:
            self.end = end
            self.backfill = found[1]
            self._conclude()
            self._raw = raw

    def oldest_commit(self) -> int:
        """The oldest commit that a live snapshot of any process sees; the newest without any."""
        marks = self.marks.live() if self.marks is not None else []
        return min([mark.commit for mark in marks], default=self.end.commit)

    # -- pages ---------------------------------------------------------------------------------

    def read_node(self, page_number: int, place: int) -> Node:
        """Decode a page from a frame of the log, or from the file where `place` is 0."""
        size = self.page_size
        if page_number == 1 and not place:
            return self.read_header()
        if place:
            assert self.log is not None
            raw = self.log.file.read_at(place + FRAME_HEADER_SIZE, size)
            where = self.log_path
        else:
            raw = self.file.read_at((page_number - 1) * size, size)
            where = self.path
        if page_number == 1:
            return Header.decode(raw, where)
        return decode_page(raw, page_number, size, where)

    def read_header(self) -> Header:
        """The header's sector, which a checkpoint may be overwriting right now (CP6)."""
        return self._read_again(lambda: Header.decode(self.file.read_at(0, HEADER_SIZE), self.path))

    def _read_again(self, read: Callable[[], _Read]) -> _Read:
        """Read what another process may be overwriting; damage is believed when it stays."""
        for _ in range(_HEADER_READS):
            try:
                return read()
            except CorruptDatabaseError:
                self.vfs.sleep(0.001)
        return read()

    # -- refusals ------------------------------------------------------------------------------

    def check_not_read_only(self) -> None:
        """Raise OperationalError where the connection was opened for reading."""
        if self.read_only:
            raise OperationalError(f"{self.path} is open for reading only")

    def check_writable(self) -> None:
        """Raise unless the file may be written now."""
        self.check_healthy()
        assert self.header is not None
        if not self.header.is_writable:
            raise NotSupportedError(
                f"{self.path} has write format {self.header.format_write}; this build reads it only"
            )
        self.check_named()
        if self._on_network is None:
            self._on_network = self.vfs.is_network(self.path)
        if self._on_network and not self.no_lock:
            raise OperationalError(
                f"{self.path} lies on a network file system, whose locks are not to be trusted; "
                f"it is not written unless it is opened with nolock=1"
            )

    def check_named(self) -> None:
        """Raise OperationalError unless file and log have their names, and the file no other.

        Who opens the file by another name finds another log beside it, or none (S29).
        """
        found = self.vfs.identity(self.path)
        if found is None or found[:2] != self.identity[:2]:
            raise OperationalError(
                f"{self.path} was moved, removed or replaced while it was open; it is not written"
            )
        if self.shared is not None and not self.shared.belongs_to(self.identity):
            raise OperationalError(
                f"{self.shm_path} was filled for another file while {self.path} was open; it is "
                f"not written until all connections have closed it"
            )
        if found.links > 1:
            raise OperationalError(
                f"{self.path} has {found.links} hard links; a file of several names is not written"
            )
        if self.log is not None and self.end.generation:
            log = self.vfs.identity(self.log_path)
            if log is None or log[:2] != self.log.identity[:2]:
                raise OperationalError(
                    f"{self.log_path} was moved, removed or replaced while it was open; "
                    f"{self.path} is not written until all connections have closed it"
                )

    def check_healthy(self) -> None:
        """Raise OperationalError after a failed sync, of whatever process (S11)."""
        if self.sync_is_open:
            self.poison(f"whether {self.path} was synced is unknown{_UNTIL_CLOSED}")
        if self.poisoned:
            raise OperationalError(f"{self.path}: {self.poisoned}")
        if self.shared is not None and self.shared.poisoned:
            raise OperationalError(
                f"{self.path}: a sync failed; nothing is written until every connection has "
                f"closed the database and it is opened again"
            )

    def poison(self, reason: str) -> None:
        """After a failed sync nothing is trusted: every process refuses to write (S11)."""
        self.poisoned = reason
        if self.shared is not None:
            self.shared.poison()

    def sync_file(self) -> None:
        """Sync the main file; a failure poisons the database (S11)."""
        self._sync(self.file)

    def sync_log(self) -> None:
        """Sync the log; a failure poisons the database (S11).

        The frames of a commit under `off` become durable with it, so their extents go first (S7).
        """
        assert self.log is not None
        if self.shared is not None and self.shared.unsynced:
            self.sync_file()
        self._sync(self.log.file)

    def _sync(self, file: File) -> None:
        """AT4: an interrupt that takes the place of a failure does not hide it.

        After an interrupt without a failure the bytes are durable, or wait for the next sync.
        """
        outer = sys.exception()
        try:
            self.sync_is_open = True
            file.sync()
            self.sync_is_open = False
        except BaseException as error:
            failure = _failure_in(error, outer)
            if failure is not None:
                self.poison(f"{failure}{_UNTIL_CLOSED}")
            self.sync_is_open = False
            raise

    # -- locks ---------------------------------------------------------------------------------

    def try_writer(self) -> bool:
        """Try to take WRITER."""
        if not self.locks.exclusive(WRITER):
            return False
        assert self.shared is not None
        self.shared.writer = self.pid
        return True

    def writer_complaint(self) -> str:
        """Why WRITER is not to be had."""
        assert self.shared is not None
        if self.shared.unrecovered:
            return f"{self.path} is locked: it is recovered when nobody reads its old log any more"
        return f"{self.path} is locked: process {self.shared.writer} writes"

    def lock_writer(self) -> None:
        """Take WRITER; raises DatabaseBusyError naming who has it."""
        self.patience.wait(self.try_writer, self.writer_complaint)

    def lock_checkpoint(self) -> None:
        """Take CHECKPOINT; raises DatabaseBusyError naming who has it."""
        assert self.shared is not None
        shared = self.shared
        self.patience.wait(
            lambda: self.locks.exclusive(CHECKPOINT),
            lambda: f"{self.path} is locked: process {shared.checkpointer} checkpoints",
        )
        shared.checkpointer = self.pid


def _failure_in(error: BaseException, outer: BaseException | None) -> BaseException | None:
    """The I/O error that an exception is, or in whose place it came; `outer` is of long before."""
    found: BaseException | None = error
    while found is not None and found is not outer:
        if isinstance(found, (OSError, OperationalError)):
            return found
        found = found.__context__
    return None


class _Refusing(dict[int, tuple[int, "Node"]]):
    """What stands for the cached pages of a closed store: any look is an InterfaceError."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self._reason = reason

    def get(self, key: object, default: object = None) -> tuple[int, Node]:
        """No page."""
        raise InterfaceError(self._reason)
