"""The awaitable twin of `connect`, `Connection`, `Cursor` and `Collection`, for asyncio.

    async with m2mdb.aio.connect("memory.m2m") as con:
        await con.execute("INSERT INTO notes (body) VALUES (?)", ("dark mode",))
        async for row in con.execute("SELECT body FROM notes"):
            ...
        await con.commit()

Every connection has one thread of its own, in which its calls run one after the other; the event
loop never waits for a disk or a kernel. Signatures are those of the plain classes. What is `with`
there is `async with` here, and what takes time is awaited; `collection.count()` stands for `len`.
A cancelled call interrupts its statement and has ended when CancelledError is raised (AI2 of
`m2mdb.aio_worker`): nothing of the statement is left, or, where that came too late, all of it.
"""

from __future__ import annotations

import os
from collections.abc import (
    AsyncIterator,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Mapping,
    Sequence,
)
from types import EllipsisType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import m2mdb.connection
import m2mdb.cursor
from m2mdb.aio_collection import Collection
from m2mdb.aio_worker import Worker
from m2mdb.opening import connect as open_connection
from m2mdb.pager.errors import InterfaceError

if TYPE_CHECKING:
    import numpy as np
    import pandas
    import polars
    import pyarrow

    from m2mdb.clock import Clock
    from m2mdb.cursor import Description, RowFactory
    from m2mdb.encoder_registry import Encoders
    from m2mdb.index.text.analysis import Tokenizer
    from m2mdb.query.binding import Parameters
    from m2mdb.query.extensions import Aggregate

    Array = np.ndarray[Any, Any]

T = TypeVar("T")
C = TypeVar("C", "Connection", "Cursor")

__all__ = ["Collection", "Connection", "Cursor", "Pending", "connect"]


class Pending(Generic[C]):
    """A call that gives a connection or a cursor: to be awaited, or entered with `async with`.

    Leaving the block closes what the call gave; a connection commits before it, or rolls back where
    the block raised. A cursor's call can be iterated at once.
    """

    __slots__ = ("_found", "_make")

    def __init__(self, make: Callable[[], Coroutine[Any, Any, C]]) -> None:
        self._make: Callable[[], Coroutine[Any, Any, C]] = make
        self._found: C | None = None

    def __await__(self) -> Generator[Any, None, C]:
        return self._make().__await__()

    async def __aenter__(self) -> C:
        self._found = found = await self
        return found

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        found = self._found
        if found is None or found.is_closed:
            return
        try:
            if isinstance(found, Connection) and kind is None:
                await found.commit()
        finally:
            await found.close()

    async def __aiter__(self) -> AsyncIterator[Any]:
        found = await self
        if not isinstance(found, Cursor):
            raise InterfaceError("a connection is no iterator")
        async for row in found:
            yield row


def connect(
    path: str | os.PathLike[str],
    timeout: float = 5.0,
    autocommit: bool = False,
    *,
    isolation_level: str | EllipsisType | None = ...,
    cached_statements: int = 128,
    read_only: bool = False,
    uri: bool = True,
    page_size: int = 4096,
    compute: str = "auto",
    encoders: Encoders | None = None,
    synchronous: Literal["full", "normal", "off"] = "full",
    untrusted: bool = False,
    detect_types: int = 0,
    tokenizers: Mapping[str, Tokenizer] | None = None,
    clock: Clock | None = None,
) -> Pending[Connection]:
    """Open a database; as `m2mdb.connect`, to be awaited or entered with `async with`.

    The block's end commits, or rolls back where the block raised, and then closes.
    """
    worker = Worker()

    def call() -> m2mdb.connection.Connection:
        return open_connection(
            path,
            timeout,
            autocommit,
            isolation_level=isolation_level,
            cached_statements=cached_statements,
            read_only=read_only,
            uri=uri,
            page_size=page_size,
            compute=compute,
            encoders=encoders,
            synchronous=synchronous,
            untrusted=untrusted,
            detect_types=detect_types,
            tokenizers=tokenizers,
            clock=clock,
        )

    async def opened() -> Connection:
        try:
            return Connection(await worker.run(call), worker)
        except BaseException:
            worker.close()
            raise

    return Pending(opened)


class Connection:
    """An open database whose calls are awaited; see `m2mdb.Connection`."""

    __slots__ = ("_worker", "plain")

    def __init__(self, plain: m2mdb.connection.Connection, worker: Worker) -> None:
        """`plain` is the connection that does the work; nothing else may use it meanwhile."""
        self.plain = plain
        self._worker = worker
        worker.connection = plain

    async def _run(self, call: Callable[[], T]) -> T:
        return await self._worker.run(call)

    # Statements

    def cursor(
        self, factory: Callable[[m2mdb.connection.Connection], m2mdb.cursor.Cursor] | None = None
    ) -> Cursor:
        """A new cursor."""
        return Cursor(self.plain.cursor(factory or m2mdb.cursor.Cursor), self._worker)

    def _cursor(self, call: Callable[[], m2mdb.cursor.Cursor]) -> Pending[Cursor]:
        async def run() -> Cursor:
            return Cursor(await self._run(call), self._worker)

        return Pending(run)

    def execute(self, statement: str, parameters: Parameters = (), /) -> Pending[Cursor]:
        """A new cursor on which the statement has run."""
        return self._cursor(lambda: self.plain.execute(statement, parameters))

    def executemany(self, statement: str, parameters: Iterable[Parameters], /) -> Pending[Cursor]:
        """A new cursor on which the statement has run for each of the parameters."""
        return self._cursor(lambda: self.plain.executemany(statement, parameters))

    def executescript(self, script: str, /) -> Pending[Cursor]:
        """A new cursor on which the statements of the script have run."""
        return self._cursor(lambda: self.plain.executescript(script))

    async def iterdump(self, *, filter: str | None = None) -> AsyncIterator[str]:
        """The statements that build an equal database."""
        lines = iter(self.plain.iterdump(filter=filter))
        while (line := await self._run(lambda: next(lines, None))) is not None:
            yield line

    async def commit(self) -> None:
        """End the open transaction and keep its changes; without one, do nothing."""
        await self._run(self.plain.commit)

    async def rollback(self) -> None:
        """End the open transaction and undo its changes; without one, do nothing."""
        await self._run(self.plain.rollback)

    async def close(self) -> None:
        """Roll back what is open, close the file and let the thread go."""
        await self._run(self.plain.close)
        self._worker.close()

    @property
    def is_closed(self) -> bool:
        """Whether it was closed."""
        return self.plain.database is None

    # Settings

    @property
    def path(self) -> str:
        """The database file."""
        return self.plain.path

    @property
    def row_factory(self) -> RowFactory | None:
        """What makes rows, or None for tuples."""
        return self.plain.row_factory

    @row_factory.setter
    def row_factory(self, value: RowFactory | None) -> None:
        self.plain.row_factory = value

    @property
    def text_factory(self) -> Callable[[bytes], Any]:
        """What makes texts of UTF-8."""
        return self.plain.text_factory

    @text_factory.setter
    def text_factory(self, value: Callable[[bytes], Any]) -> None:
        self.plain.text_factory = value

    @property
    def total_changes(self) -> int:
        """Rows changed since the connection was made."""
        return self.plain.total_changes

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self.plain.in_transaction

    @property
    def autocommit(self) -> bool:
        """Whether each statement commits itself."""
        return self.plain.autocommit

    async def set_autocommit(self, value: bool) -> None:
        """As assigning to `autocommit`: True commits what is open."""

        def assign() -> None:
            self.plain.autocommit = value

        await self._run(assign)

    async def commit_number(self) -> int:
        """The newest commit that a read sees now, as `AS OF` names it."""
        return await self._run(lambda: self.plain.commit_number)

    def interrupt(self) -> None:
        """Stop the statement that is running; it raises and changes nothing."""
        self.plain.interrupt()

    async def create_function(
        self,
        name: str,
        narg: int,
        func: Callable[..., Any] | None,
        *,
        deterministic: bool = False,
    ) -> None:
        """Let statements call a function of the program; it runs in the connection's thread."""
        await self._run(
            lambda: self.plain.create_function(name, narg, func, deterministic=deterministic)
        )

    async def create_aggregate(
        self, name: str, n_arg: int, aggregate_class: Callable[[], Aggregate] | None, /
    ) -> None:
        """Let statements use an aggregate of the program."""
        await self._run(lambda: self.plain.create_aggregate(name, n_arg, aggregate_class))

    async def create_collation(
        self, name: str, callable: Callable[[str, str], int] | None, /
    ) -> None:
        """Let COLLATE name two texts' order."""
        await self._run(lambda: self.plain.create_collation(name, callable))

    async def set_authorizer(self, authorizer_callback: Callable[..., int] | None) -> None:
        """Ask before a statement is planned."""
        await self._run(lambda: self.plain.set_authorizer(authorizer_callback))

    async def set_progress_handler(
        self, progress_handler: Callable[[], Any] | None, n: int = 1
    ) -> None:
        """Ask while a statement runs."""
        await self._run(lambda: self.plain.set_progress_handler(progress_handler, n))

    async def set_work_handler(self, handler: Callable[[str, int, int], object] | None) -> None:
        """Tell how far a build of lists or an OPTIMIZE is, in the connection's thread."""
        await self._run(lambda: self.plain.set_work_handler(handler))

    async def set_trace_callback(self, trace_callback: Callable[[str], object] | None) -> None:
        """Tell of each statement before it runs."""
        await self._run(lambda: self.plain.set_trace_callback(trace_callback))

    async def set_busy_handler(self, handler: Callable[[int], bool] | None) -> None:
        """Ask `handler` where another connection has a lock."""
        await self._run(lambda: self.plain.set_busy_handler(handler))

    # Copies

    async def backup(
        self,
        target: Connection | m2mdb.connection.Connection | str | os.PathLike[str],
        *,
        pages: int = -1,
        progress: Callable[[int, int, int], object] | None = None,
        name: str = "main",
        sleep: float = 0.250,
    ) -> None:
        """Copy the database to another connection or a file."""
        other = target.plain if isinstance(target, Connection) else target
        await self._run(
            lambda: self.plain.backup(other, pages=pages, progress=progress, name=name, sleep=sleep)
        )

    async def serialize(self, *, name: str = "main") -> bytes:
        """The bytes of a file that holds the database as its newest commit left it."""
        return await self._run(lambda: self.plain.serialize(name=name))

    async def deserialize(
        self, data: bytes | bytearray | memoryview, /, *, name: str = "main"
    ) -> None:
        """Leave the database, and go on with one in memory that holds these bytes."""
        await self._run(lambda: self.plain.deserialize(data, name=name))

    # Collections

    async def collection(self, name: str) -> Collection:
        """A collection by its name; ProgrammingError where there is none."""
        return Collection(await self._run(lambda: self.plain.collection(name)), self._worker)

    async def collections(self) -> list[Collection]:
        """All collections, in the order of their names."""
        return [Collection(each, self._worker) for each in await self._run(self.plain.collections)]

    async def create_collection(
        self,
        name: str,
        schema: str | Mapping[str, str] | Sequence[tuple[str, str]],
        *,
        if_not_exists: bool = False,
    ) -> Collection:
        """Create a collection from its columns and return it."""
        made = await self._run(
            lambda: self.plain.create_collection(name, schema, if_not_exists=if_not_exists)
        )
        return Collection(made, self._worker)

    async def __aenter__(self) -> Connection:
        self.plain.engine()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Commit, or roll back where the block raised; the connection stays open."""
        if not self.is_closed:
            await (self.commit() if kind is None else self.rollback())

    def __repr__(self) -> str:
        return repr(self.plain).replace("m2mdb.", "m2mdb.aio.", 1)


class Cursor:
    """A statement's run and its rows, awaited; see `m2mdb.Cursor`."""

    __slots__ = ("_worker", "plain")

    def __init__(self, plain: m2mdb.cursor.Cursor, worker: Worker) -> None:
        self.plain = plain
        self._worker = worker

    async def _rows(self, call: Callable[[], T]) -> T:
        """What a fetch gives; in the thread where rows have to be made first."""
        return call() if self.plain.has_made_rows else await self._worker.run(call)

    async def execute(self, statement: str, parameters: Parameters = (), /) -> Cursor:
        """Run one statement."""
        await self._worker.run(lambda: self.plain.execute(statement, parameters))
        return self

    async def executemany(self, statement: str, parameters: Iterable[Parameters], /) -> Cursor:
        """Run an INSERT, UPDATE or DELETE once for each item."""
        await self._worker.run(lambda: self.plain.executemany(statement, parameters))
        return self

    async def executescript(self, script: str, /) -> Cursor:
        """Run the statements of a script one after the other."""
        await self._worker.run(lambda: self.plain.executescript(script))
        return self

    async def fetchone(self) -> Any:
        """The next row, or None after the last one."""
        return await self._rows(self.plain.fetchone)

    async def fetchmany(self, size: int | None = None) -> list[Any]:
        """Up to `size` next rows; without it, `arraysize`."""
        return await self._rows(lambda: self.plain.fetchmany(size))

    async def fetchall(self) -> list[Any]:
        """All rows that are left."""
        return await self._rows(self.plain.fetchall)

    async def arrow(self) -> pyarrow.Table:
        """All rows that are left, as an Arrow table."""
        return await self._worker.run(self.plain.arrow)

    async def df(self) -> pandas.DataFrame:
        """All rows that are left, as a pandas data frame."""
        return await self._worker.run(self.plain.df)

    async def pl(self) -> polars.DataFrame:
        """All rows that are left, as a Polars data frame."""
        return await self._worker.run(self.plain.pl)

    async def fetchnumpy(self) -> dict[str, Array]:
        """All rows that are left, as an array for each column."""
        return await self._worker.run(self.plain.fetchnumpy)

    def setinputsizes(self, sizes: Sequence[Any], /) -> None:
        """PEP 249 asks for it; sizes need not be announced here."""

    def setoutputsize(self, size: int, column: int | None = None, /) -> None:
        """PEP 249 asks for it; values are never cut."""

    async def close(self) -> None:
        """Drop the rows; any later use raises InterfaceError."""
        self.plain.close()

    @property
    def is_closed(self) -> bool:
        """Whether it, or its connection, was closed."""
        return self.plain.is_closed

    @property
    def description(self) -> Description | None:
        """A 7-tuple a column; None where there are no rows."""
        return self.plain.description

    @property
    def rowcount(self) -> int:
        """Rows changed; -1 where the statement changes none."""
        return self.plain.rowcount

    @property
    def lastrowid(self) -> int | None:
        """The rowid of the last inserted row."""
        return self.plain.lastrowid

    @property
    def rownumber(self) -> int | None:
        """The 0-based position of the next row; None where there are no rows."""
        return self.plain.rownumber

    @property
    def arraysize(self) -> int:
        """Rows that `fetchmany` gives without a size."""
        return self.plain.arraysize

    @arraysize.setter
    def arraysize(self, value: int) -> None:
        self.plain.arraysize = value

    @property
    def row_factory(self) -> RowFactory | None:
        """What makes rows, or None for tuples."""
        return self.plain.row_factory

    @row_factory.setter
    def row_factory(self, value: RowFactory | None) -> None:
        self.plain.row_factory = value

    def __aiter__(self) -> Cursor:
        return self

    async def __anext__(self) -> Any:
        row = await self._rows(lambda: next(self.plain, _END))
        if row is _END:
            raise StopAsyncIteration
        return row

    async def __aenter__(self) -> Cursor:
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self.is_closed:
            self.plain.close()

    def __repr__(self) -> str:
        return repr(self.plain).replace("m2mdb.", "m2mdb.aio.", 1)


_END = object()
