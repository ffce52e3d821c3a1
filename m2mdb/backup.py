"""Backup: a database copied while it is used, to another connection, a file, or bytes.

    snapshot of one commit --> target's transaction       a connection, or a file that is there
                           --> new file, then its name    a path where nothing is
                           --> file in memory --> bytes   serialize

The copy is the state at the commit that was newest when it began; what others commit meanwhile is
not in it, and nobody waits for it but the two connections themselves.

Invariants
    BA1 A target that is there is replaced by one transaction, and a new file gets its name when it
        is whole: whatever stops a backup, there is no half copy.
    BA2 `progress` hears a remainder that never grows; the last one is 0.
    BA3 While `progress` runs, the target refuses every use: its transaction is the backup's.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from m2mdb.index.copying import Source, replace_content, write_file
from m2mdb.index.database import Database
from m2mdb.pager.errors import InterfaceError, OperationalError, ProgrammingError
from m2mdb.pager.memory_vfs import MemoryVfs
from m2mdb.wal.store import StoreOptions

if TYPE_CHECKING:
    from m2mdb.connection import Connection
    from m2mdb.pager.vfs import Vfs

Progress = Callable[[int, int, int], object]
STEP_DONE = 0  # what sqlite3 reports of a step: SQLITE_OK
ALL_DONE = 101  # and of the last one: SQLITE_DONE
_IN_MEMORY = "serialized.m2m"


class Steps:
    """Counts pages, and tells the program of each step."""

    def __init__(self, source: Database, total: int, pages: int, progress: Progress | None) -> None:
        self._source = source
        self._total = total
        self._step = pages if pages > 0 else total + 1
        self._progress = progress
        self._done = 0
        self._told = 0

    def tick(self, pages: int) -> None:
        """So many pages more were read."""
        self._source.check_interrupted()
        self._done = min(self._done + pages, self._total)
        while self._done - self._told >= self._step and self._done < self._total:
            self._told += self._step
            if self._progress is not None:
                self._progress(STEP_DONE, self._total - self._told, self._total)

    def end(self) -> None:
        """The copy is whole."""
        if self._progress is not None:
            self._progress(ALL_DONE, 0, self._total)


def check_arguments(pages: object, progress: object, name: object, sleep: object) -> None:
    """Raise InterfaceError, or OperationalError for another name than "main", as sqlite3 does."""
    if isinstance(pages, bool) or not isinstance(pages, int):
        raise InterfaceError(f"pages is {type(pages).__name__}, not int")
    if progress is not None and not callable(progress):
        raise InterfaceError(f"progress is {type(progress).__name__}, which cannot be called")
    if isinstance(sleep, bool) or not isinstance(sleep, (int, float)) or not sleep >= 0:
        raise InterfaceError(f"sleep is {sleep!r}, not a number of seconds from 0")
    check_name(name)


def check_name(name: object) -> None:
    """Raise InterfaceError for no str, OperationalError for another database than "main"."""
    if not isinstance(name, str):
        raise InterfaceError(f"name is {type(name).__name__}, not str")
    if name != "main":
        raise OperationalError(f"unknown database {name}; a connection has one, main")


def to_connection(
    source: Connection, other: Connection, pages: int, progress: Progress | None
) -> None:
    """Let another connection's database hold the source's newest commit (BA1)."""
    if other is source:
        raise ProgrammingError("the target of a backup cannot be the connection itself")
    with _both(source, other):
        database, into = source.engine(), other.engine()
        if into.in_transaction:
            raise OperationalError(f"the target {other.path} is in a transaction")
        if _is_one_file(database, into):
            raise ProgrammingError(f"source and target are both {other.path}")
        with _opened(database) as copied:
            told = None if progress is None else _refusing(other, progress)
            steps = Steps(database, copied.pages, pages, told)
            into.store.check_not_read_only()
            into.store.checkpoint("passive")  # so that space that is free can be used
            with into.writing() as write:
                replace_content(write, copied, steps.tick)
            into.commit()
            steps.end()


def _refusing(target: Connection, progress: Progress) -> Progress:
    """`progress`, with the target refused while it runs (BA3)."""

    def told(status: int, left: int, total: int) -> None:
        target.taken = f"a backup writes into {target.path}, and asks its `progress`"
        try:
            progress(status, left, total)
        finally:
            target.taken = ""

    return told


def _is_one_file(first: Database, second: Database) -> bool:
    one, other = first.store, second.store
    same_disk = one.vfs is other.vfs or one.vfs.name == other.vfs.name == "os"
    return same_disk and one.identity[:2] == other.identity[:2]


@contextlib.contextmanager
def _both(first: Connection, second: Connection) -> Iterator[None]:
    """Both connections' locks, in one order for all: two backups never wait for each other."""
    earlier, later = sorted((first, second), key=id)
    with earlier.lock, later.lock:
        yield


@contextlib.contextmanager
def _opened(database: Database) -> Iterator[Source]:
    database.forget_interrupt()
    source = Source(database)
    try:
        yield source
    finally:
        source.close()


def to_path(
    source: Connection, path: str | os.PathLike[str], pages: int, progress: Progress | None
) -> None:
    """Write the source's newest commit to a file, new or there (BA1)."""
    from m2mdb.opening import connect, target

    wanted = target(path)
    if wanted.mode == "memory":
        raise InterfaceError(f"a backup to {os.fspath(path)!r} would be gone at once")
    if wanted.mode == "ro" or wanted.immutable:
        raise OperationalError(f"{wanted.path} is to be opened for reading only")
    if os.path.exists(wanted.path) and os.path.getsize(wanted.path):
        with contextlib.closing(connect(path, autocommit=True)) as other:
            to_connection(source, other, pages, progress)
        return
    if wanted.mode == "rw":
        raise OperationalError(f"{wanted.path} does not exist, and mode=rw makes no new file")
    with source.lock:
        database = source.engine()
        with _opened(database) as copied:
            steps = Steps(database, copied.pages, pages, progress)
            write_file(copied, _files(), wanted.path, steps.tick, compact=False)
            steps.end()


def _files() -> Vfs:
    from m2mdb.pager.os_vfs import OsVfs

    return OsVfs()


def serialize(source: Connection) -> bytes:
    """The bytes of a file that holds the source's newest commit."""
    vfs = MemoryVfs()
    with source.lock:
        database = source.engine()
        with _opened(database) as copied:
            steps = Steps(database, copied.pages, -1, None)
            write_file(copied, vfs, _IN_MEMORY, steps.tick, compact=False)
    file = vfs.open(_IN_MEMORY)
    return file.read_at(0, file.size())


def deserialize(connection: Connection, data: object) -> None:
    """Let the connection go over to a database in memory that holds these bytes."""
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise InterfaceError(f"the data is {type(data).__name__}, not bytes")
    if isinstance(data, memoryview) and not data.c_contiguous:
        data = data.tobytes()
    with connection.lock:
        old = connection.engine()
        if old.in_transaction:
            raise OperationalError("cannot deserialize inside a transaction")
        vfs = MemoryVfs()
        vfs.open(_IN_MEMORY, create=True).write_at(0, data)
        options = StoreOptions(
            synchronous=old.store.synchronous,
            timeout=old.store.timeout,
            untrusted=old.store.options.untrusted,
        )
        fresh = Database.open(
            vfs, _IN_MEMORY, options, compute=old.compute, autocommit=old.autocommit
        )
        _carry_over(old, fresh)
        if options.untrusted:
            from m2mdb.opening import admit

            admit(fresh)
        connection.database, connection.path = fresh, ":memory:"
        connection.conditions.clear()
        connection.shapes.clear()
        connection.filtered.clear()
        old.close()


OF_THE_PROGRAM = (
    "author", "calling", "changes", "clock", "encoders", "extensions", "last_rowid", "progress",
    "tokenizers", "total_changes", "work",
)  # fmt: skip
_OF_THE_STORE = ("busy_handler", "journal_size_limit", "secure_delete", "wal_autocheckpoint")


def _carry_over(old: Database, fresh: Database) -> None:
    """What the program has given the connection goes with it to the new database, as sqlite3's."""
    for name in OF_THE_PROGRAM:
        setattr(fresh, name, getattr(old, name))
    for name in _OF_THE_STORE:
        setattr(fresh.store, name, getattr(old.store, name))
    if old.audit.interval:
        fresh.audit.set(old.audit.interval)
    if old.budget is not None:
        from m2mdb.index.residence import Budget

        fresh.budget = Budget(fresh, old.budget.limit)
