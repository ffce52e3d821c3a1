"""Connection: one database opened by one program, with transactions (PEP 249).

    outside a transaction --first writing statement, BEGIN--> in a transaction
    in a transaction --commit(), rollback(), leaving `with con:`, close()--> outside

Without autocommit the first writing statement opens the transaction; a Collection call outside of
one is a transaction of its own in both modes.

Invariants
    N1  One thread at a time is inside the engine: `lock` is held around each use.
    N2  A closed connection, or one inherited through fork, does nothing but raise InterfaceError.
    N3  `close` rolls back what was not committed.
    N4  A finalizer does no I/O: it warns of an open transaction and lets the handles go (S5).
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from m2mdb.cursor import Cursor, RowFactory
from m2mdb.declarations import declarations_of
from m2mdb.encoder_registry import Registry, as_named
from m2mdb.hooks import Hooks
from m2mdb.isolation import DEFERRED, checked_level
from m2mdb.pager import errors

if TYPE_CHECKING:
    from types import FrameType

    from m2mdb.collection import Collection
    from m2mdb.dumping import Dump
    from m2mdb.encoder_registry import Encoders
    from m2mdb.index.database import Database, Reading
    from m2mdb.index.encoder import Encoder
    from m2mdb.index.view import View, WriteView
    from m2mdb.language import Language
    from m2mdb.query.binding import Parameters
    from m2mdb.query.result import Result

T = TypeVar("T")

_language: Language | None = None
_open: weakref.WeakSet[Connection] = weakref.WeakSet()


def language() -> Language:
    """The parser and the executor, loaded at the first statement."""
    global _language
    if _language is None:
        from m2mdb.language import Language

        _language = Language()
    return _language


class Connection(Hooks):
    """An open database; made by `m2mdb.connect`. Threads may share it, one at a time."""

    Warning = errors.Warning
    LongReaderWarning = errors.LongReaderWarning
    LostCommitsWarning = errors.LostCommitsWarning
    Error = errors.Error
    InterfaceError = errors.InterfaceError
    DatabaseError = errors.DatabaseError
    CorruptDatabaseError = errors.CorruptDatabaseError
    DataError = errors.DataError
    OperationalError = errors.OperationalError
    DatabaseBusyError = errors.DatabaseBusyError
    StaleSnapshotError = errors.StaleSnapshotError
    IntegrityError = errors.IntegrityError
    CheckFailedError = errors.CheckFailedError
    InternalError = errors.InternalError
    ProgrammingError = errors.ProgrammingError
    NotSupportedError = errors.NotSupportedError

    def __init__(
        self,
        database: Database,
        path: str,
        *,
        encoders: Encoders | None = None,
        thread: int | None = None,
        detect_types: int = 0,
    ) -> None:
        """`thread`: the only thread that may use the connection, None for any."""
        self.path = path
        self.lock = threading.RLock()
        self.row_factory: RowFactory | None = None
        self._total_changes = 0
        self._level = DEFERRED
        self.encoders = as_named(encoders)
        self.registry = Registry(self.encoders)
        database.encoders = self.registry
        calling = weakref.WeakMethod(self._calling)  # a connection that is dropped ends at once

        def guarded(what: str, call: Callable[..., T], /) -> Callable[..., T]:
            guard = calling()
            return call if guard is None else guard(what, call)

        database.calling = guarded
        self.conditions: dict[Any, Any] = {}  # compiled ones of `Collection.search`
        self.shapes: dict[Any, Any] = {}  # searches of it, checked but for their vectors
        self.filtered: dict[Any, Any] = {}  # the same under a condition
        self.database: Database | None = database  # None: closed, or inherited through fork
        self.thread = thread
        self.taken = ""  # why the connection is refused: what has it calls the program back
        self.taken_by = 0  # the one thread that it is refused; 0: every thread
        self.trace: Callable[[str], object] | None = None
        self.text_factory: Callable[[bytes], Any] = str
        self.detect_types = detect_types
        self._inherited: Database | None = None
        self._pid = os.getpid()
        self._warned = False
        _open.add(self)

    # The engine

    def engine(self) -> Database:
        """The database, where this thread and process may use it (N2).

        Raises InterfaceError when closed or in a forked child, ProgrammingError in a thread that
        `check_same_thread` forbids, in a busy handler or signal handler that runs inside a call of
        this connection which holds locks, and in the `progress` of a backup into it.
        """
        database = self.database
        settled = database is not None and not (database.store.unsettled or self.taken)
        if database is not None and settled and self.thread is None:
            return database
        database = self._allowed()
        database.store.check_not_within()
        if self.taken and self.taken_by in (0, threading.get_ident()):
            raise errors.ProgrammingError(f"the connection cannot be used now: {self.taken}")
        return database

    def _allowed(self) -> Database:
        """The database, where thread and process allow it."""
        database = self._present()
        if self.thread is not None and self.thread != threading.get_ident():
            raise errors.ProgrammingError(
                f"the connection to {self.path} was made in thread {self.thread} and used in "
                f"thread {threading.get_ident()} with check_same_thread=True"
            )
        return database

    def _present(self) -> Database:
        """The database, where it is open and of this process, for any thread."""
        database = self.database
        if self._inherited is not None:
            raise errors.InterfaceError(
                f"the connection to {self.path} belongs to process {self._pid} and was inherited "
                f"by process {os.getpid()} through fork; connect anew in the child"
            )
        if database is None:
            raise errors.InterfaceError(f"the connection to {self.path} is closed")
        return database

    def disown(self) -> None:
        """In a forked child: from now on refuse; nothing is closed, the parent goes on (S5)."""
        self.database, self._inherited = None, self.database

    def read(self, action: Callable[[View], T]) -> T:
        """What `action` finds at the newest snapshot, or in the open transaction."""
        with self.lock, self.reading() as view:
            return action(view)

    @property
    def total_changes(self) -> int:
        """Rows that were inserted, changed or deleted since the connection was opened."""
        return self._total_changes

    @total_changes.setter
    def total_changes(self, count: int) -> None:
        self._total_changes = count
        if self.database is not None:
            self.database.total_changes = count

    def reading(self) -> Reading:
        """The view of a call, with the lock held: an interrupt that came before is not for it."""
        database = self.engine()
        database.forget_interrupt()
        return database.reading()

    def write(self, action: Callable[[WriteView], T]) -> T:
        """What `action` does, all or nothing; committed at once outside a transaction."""
        return self._whole(lambda database: _writing(database, action))

    def run(self, statement: str, parameters: Parameters = ()) -> Result:
        """The result of one statement."""
        with self.lock:
            database = self.engine()
            if database.store.held_back or database.store.lost is not None:
                self._warn(database, done=False)
            if self.trace is not None:
                self.tell(statement, parameters)
            try:
                result = (_language or language()).run(database, statement, parameters)
            except errors.IntegrityError as failure:
                self.total_changes += failure.kept_rows
                raise
            if result.rowcount > 0:
                self.total_changes += result.rowcount
            if database.store.held_back or database.store.lost is not None:
                self._warn(database, done=True)
            return result

    def run_whole(self, statement: str, parameters: Parameters = ()) -> Result:
        """As `run`, and committed at once outside a transaction."""
        return self._whole(lambda _: self.run(statement, parameters))

    def run_many(self, statement: str, parameters: Iterable[Parameters]) -> Result:
        """The summed result of a statement run once for each of the parameters."""
        with self.lock:
            database = self.engine()
            if self.trace is not None:
                parameters = list(parameters)
                for each in parameters:
                    self.tell(statement, each)
            try:
                result = language().run_many(database, statement, parameters)
            except errors.IntegrityError as failure:
                self.total_changes += failure.kept_rows
                raise
            self.total_changes += max(0, result.rowcount)
            return result

    def run_script(self, script: str) -> None:
        """Run the statements of a script one after the other."""
        with self.lock:
            self.engine()
            for statement in language().split(script):
                self.run(statement)

    def within_one(self, action: Callable[[Database], T]) -> T:
        """What `action` does, all or nothing; committed at once outside a transaction."""
        return self._whole(action)

    def _whole(self, action: Callable[[Database], T]) -> T:
        with self.lock:
            database = self.engine()
            database.forget_interrupt()
            if database.in_transaction:
                return action(database)
            if database.store.held_back or database.store.lost is not None:
                self._warn(database, done=False)
            try:
                result = action(database)
                if database.in_transaction:
                    database.commit()
            except BaseException:
                if database.in_transaction:
                    database.rollback()
                raise
            if database.store.held_back or database.store.lost is not None:
                self._warn(database, done=True)
            return result

    def _warn(self, database: Database, *, done: bool) -> None:
        """Give the warnings that wait.

        Where they are errors and something is `done`, one of them would deny a commit: the next
        statement raises it instead, before it does anything.
        """
        store = database.store
        held_back, lost = store.held_back, store.lost
        try:
            if held_back:
                self._tell_who_holds_back(database)
            self.tell_of_lost_commits()
        except (errors.LongReaderWarning, errors.LostCommitsWarning) as warning:
            if not done:
                raise
            if isinstance(warning, errors.LongReaderWarning):
                store.held_back = held_back
            else:
                store.lost = lost

    def _tell_who_holds_back(self, database: Database) -> None:
        """Warn of a snapshot that keeps the log from being copied (S28)."""
        text, database.store.held_back = database.store.held_back, ""
        warnings.warn(text, errors.LongReaderWarning, stacklevel=_outside())

    def tell_of_lost_commits(self) -> None:
        """Warn of commits that a damaged log has lost, once for each time that it was applied."""
        store = self.engine().store
        lost, store.lost = store.lost, None
        if lost is not None:
            warnings.warn(lost.text, errors.LostCommitsWarning, stacklevel=_outside())

    # PEP 249 and sqlite3

    def cursor(self, factory: Callable[[Connection], Cursor] = Cursor) -> Cursor:
        """A new cursor."""
        self.engine()
        return factory(self)

    def execute(self, statement: str, parameters: Parameters = (), /) -> Cursor:
        """A new cursor on which the statement has run."""
        cursor = Cursor(self)
        cursor.keep(self.run(statement, parameters))
        return cursor

    def executemany(self, statement: str, parameters: Iterable[Parameters], /) -> Cursor:
        """A new cursor on which the statement has run for each of the parameters."""
        return Cursor(self).executemany(statement, parameters)

    def executescript(self, script: str, /) -> Cursor:
        """A new cursor on which the statements of the script have run."""
        return Cursor(self).executescript(script)

    def iterdump(self, *, filter: str | None = None) -> Dump:
        """The statements that build an equal database, one after the other, as sqlite3's.

        They show the database as it is when the first one is asked for. `filter` is a LIKE
        pattern of the collections wanted.
        """
        from m2mdb.dumping import Dump

        return Dump(self, filter)

    def commit(self) -> None:
        """End the open transaction and keep its changes; without one, do nothing."""
        with self.lock:
            database = self.engine()
            if database.in_transaction:
                self.tell("COMMIT", ())
                database.commit()
            if database.store.held_back:
                self._warn(database, done=True)

    def rollback(self) -> None:
        """End the open transaction and undo its changes; without one, do nothing."""
        with self.lock:
            database = self.engine()
            if database.in_transaction:
                self.tell("ROLLBACK", ())
                database.rollback()

    def close(self) -> None:
        """Roll back what is open and close the file (N3).

        Raises InterfaceError where it is closed already.
        """
        with self.lock:
            database = self.engine()
            try:
                if database.in_transaction:
                    database.rollback()
            finally:
                self.database = None
                _open.discard(self)
                database.close()

    def set_busy_handler(self, handler: Callable[[int], bool] | None) -> None:
        """Ask `handler` instead of waiting for the timeout where another connection has a lock.

        It gets how often it was asked for this lock before, and does the waiting itself; where it
        returns a false value, `DatabaseBusyError` names the process that holds the lock. None: the
        timeout counts again. Setting the timeout (`PRAGMA busy_timeout`) leaves the handler.
        It may use other connections; this one is in the midst of a call and raises
        `ProgrammingError` there, except for `interrupt`.
        """
        if handler is not None and not callable(handler):
            raise errors.InterfaceError(f"the busy handler {handler!r} is not callable")
        with self.lock:
            self.engine().store.busy_handler = handler

    def interrupt(self) -> None:
        """Stop the statement that is running; it raises and changes nothing.

        Where no statement runs, nothing happens. Any thread may call it, whatever
        `check_same_thread` says, and so may a handler of a signal that comes meanwhile.
        """
        database = self._present()
        if not self._is_held_here() and self.lock.acquire(blocking=False):
            self.lock.release()
        else:
            database.interrupt()

    def _is_held_here(self) -> bool:
        """Whether this thread is in the midst of a call: in a signal handler or a callback."""
        try:
            threading.Condition(self.lock).notify(0)  # refuses whoever does not hold the lock
        except RuntimeError:
            return False
        return True

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self.engine().in_transaction

    @property
    def commit_number(self) -> int:
        """The newest commit that a read sees now, as `AS OF` names it; inside a transaction the
        one that it began from.
        """
        return self.read(lambda view: view.commit)

    @property
    def autocommit(self) -> bool:
        """Whether each statement commits itself; setting True commits what is open."""
        return self.engine().autocommit

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        with self.lock:
            database = self.engine()
            if value and database.in_transaction:
                database.commit()
            database.autocommit = bool(value)

    @property
    def isolation_level(self) -> str | None:
        """sqlite3's older name of autocommit: None with it, else the level that was set.

        The first statement that writes takes the writer's lock at once, so that all levels are
        what IMMEDIATE is in sqlite3.
        """
        return None if self.autocommit else self._level

    @isolation_level.setter
    def isolation_level(self, value: str | None) -> None:
        level = checked_level(value)
        self.autocommit = level is None
        self._level = DEFERRED if level is None else level

    def __enter__(self) -> Connection:
        self.engine()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> Literal[False]:
        if self.database is not None:
            if kind is None:
                self.commit()
            else:
                self.rollback()
        return False

    def __del__(self) -> None:
        if getattr(self, "database", None) is not None:
            self.warn_of_loss("was dropped")

    def warn_of_loss(self, event: str) -> None:
        """Warn, once, where a transaction is open that nothing will commit."""
        database = self.database
        if database is None or not database.in_transaction or self._warned:
            return
        self._warned = True
        warnings.warn(
            f"the connection to {self.path} {event} with an open transaction, which is "
            "rolled back; call commit() or close()",
            ResourceWarning,
            source=self,
            stacklevel=1,
        )

    def __repr__(self) -> str:
        if self._inherited is not None:
            return f"<m2mdb.Connection {self.path!r} of process {self._pid}>"
        if self.database is None:
            return f"<m2mdb.Connection {self.path!r} closed>"
        state = "in a transaction" if self.database.in_transaction else "idle"
        return f"<m2mdb.Connection {self.path!r} {state}>"

    # Copies

    def backup(
        self,
        target: Connection | str | os.PathLike[str],
        *,
        pages: int = -1,
        progress: Callable[[int, int, int], object] | None = None,
        name: str = "main",
        sleep: float = 0.250,
    ) -> None:
        """Copy the database, as its newest commit left it, to another connection or a file.

        target    a Connection, whose content is replaced by one transaction; or a path
        pages     after so many pages `progress` is called; below 1: once, at the end
        progress  called with (status, pages that remain, pages in all): status 0, at the end 101;
                  it may read from this connection, and the target refuses every use there
        name      "main"
        sleep     as in sqlite3, and without effect: one snapshot is held, nothing is tried again

        Raises OperationalError: either connection is in a transaction, or the target cannot be
        written; ProgrammingError: the target is the source.
        """
        from m2mdb import backup

        backup.check_arguments(pages, progress, name, sleep)
        if isinstance(target, Connection):
            backup.to_connection(self, target, pages, progress)
        else:
            backup.to_path(self, target, pages, progress)

    def serialize(self, *, name: str = "main") -> bytes:
        """The bytes of a file that holds the database as its newest commit left it."""
        from m2mdb import backup

        backup.check_name(name)
        return backup.serialize(self)

    def deserialize(self, data: bytes | bytearray | memoryview, /, *, name: str = "main") -> None:
        """Leave the database, and go on with one in memory that holds these bytes.

        What the program has given the connection stays: hooks, functions, encoders, PRAGMAs.
        Raises CorruptDatabaseError where they are no database; then nothing has changed.
        """
        from m2mdb import backup

        backup.check_name(name)
        backup.deserialize(self, data)

    # Collections

    def collection(self, name: str) -> Collection:
        """A collection by its name; ProgrammingError where there is none."""
        from m2mdb.collection import Collection
        from m2mdb.searching import checked_name

        name = checked_name(name)
        return Collection(self, self.read(lambda view: view.collection(name).schema.name))

    def collections(self) -> list[Collection]:
        """All collections, in the order of their names."""
        from m2mdb.collection import Collection

        return [Collection(self, name) for name in self.read(lambda view: sorted(view.names()))]

    def create_collection(
        self,
        name: str,
        schema: str | Mapping[str, str] | Sequence[tuple[str, str]],
        *,
        if_not_exists: bool = False,
    ) -> Collection:
        """Create a collection from its columns and return it.

        `schema` is what stands in the parentheses of CREATE COLLECTION, or column names with
        their declarations: `{"id": "TEXT PRIMARY KEY", "embedding": "VECTOR(384)"}`.
        """
        from m2mdb.collection import Collection, quoted

        named = quoted(name)
        if not isinstance(schema, str):
            pairs = declarations_of(name, schema)
            schema = ", ".join(f"{quoted(column)} {declared}" for column, declared in pairs)
        clause = "IF NOT EXISTS " if if_not_exists else ""
        self.run_whole(f"CREATE COLLECTION {clause}{named} ({schema})")
        return Collection(self, name)

    def encoder(self, name: str, dimensions: int | None = None) -> Encoder:
        """A registered encoder by its name, the built-in `hashing`, or `scheme:NAME` of a model.

        Raises ProgrammingError where there is none of that name, DataError where its dimension
        is not the one wanted.
        """
        return self.registry.named(name, dimensions)


def _outside() -> int:
    """The `stacklevel` of whoever called this package, for a warning given by the caller."""
    frame: FrameType | None = sys._getframe(1)
    level = 0
    while frame is not None and frame.f_globals.get("__package__", "") == __package__:
        frame = frame.f_back
        level += 1
    return level + 1


def _writing(database: Database, action: Callable[[WriteView], T]) -> T:
    with database.writing() as view:
        return action(view)


def _after_fork_in_child() -> None:
    for connection in list(_open):
        connection.disown()


def _at_exit() -> None:
    """Warn while warnings still work: a finalizer that runs later finds half of Python gone."""
    for connection in list(_open):
        connection.warn_of_loss("was left at exit")


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
