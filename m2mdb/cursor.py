"""Cursor: runs statements and hands out their rows (PEP 249).

Results are copies made at one snapshot, so a cursor holds no lock and no mark while it is read.

Invariants
    F1  A fetch needs a result set: before `execute`, after a statement that gives no rows, and
        after `close` it raises InterfaceError.
    F2  A failed `execute` leaves the cursor without a result set and the database as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from m2mdb.pager.errors import DataError, InterfaceError, ProgrammingError
from m2mdb.row import Names

if TYPE_CHECKING:
    import numpy as np
    import pandas
    import polars
    import pyarrow

    from m2mdb.connection import Connection
    from m2mdb.index.slices import Check
    from m2mdb.query.binding import Parameters
    from m2mdb.query.columnar import Column
    from m2mdb.query.result import Result

T = TypeVar("T")
RowFactory = Callable[["Cursor", tuple[Any, ...]], Any]
Description = tuple[tuple[str, str | None, None, None, None, None, None], ...]

# The first words are psycopg's: clients that know no driver, as JupySQL, tell by them that a
# statement gives no rows.
NO_RESULTS = "no results to fetch: the last statement gave no result set"


class Cursor:
    """A statement's run and its rows; made by `Connection.cursor` or `Connection.execute`."""

    __slots__ = (
        "__weakref__",
        "_connection",
        "_names",
        "_next",
        "_result",
        "_rows",
        "arraysize",
        "lastrowid",
        "row_factory",
        "rowcount",
    )

    def __init__(self, connection: Connection) -> None:
        self._connection: Connection | None = connection
        self._names: Names | None = None
        self._result: Result | None = None
        self._rows: list[tuple[Any, ...]] | None = None
        self._next = 0
        self.arraysize = 1
        self.lastrowid: int | None = None
        self.row_factory: RowFactory | None = connection.row_factory
        self.rowcount = -1

    @property
    def connection(self) -> Connection:
        """The connection that the cursor belongs to."""
        return self._opened()

    @property
    def description(self) -> Description | None:
        """A 7-tuple a column: name, type code, then None; None where there are no rows."""
        result = self._result
        if result is None or result.columns is None:
            return None
        from m2mdb.dbapi import column_codes

        codes = column_codes(result, len(result.columns))
        return tuple(
            (name, code, None, None, None, None, None)
            for name, code in zip(result.columns, codes, strict=True)
        )

    @property
    def names(self) -> Names:
        """The column names of the result set, as rows use them."""
        if self._names is None:
            assert self._result is not None and self._result.columns is not None
            self._names = Names(tuple(self._result.columns))
        return self._names

    @property
    def rownumber(self) -> int | None:
        """The 0-based position of the next row; None where there are no rows."""
        return self._next if self._has_rows() else None

    def execute(self, statement: str, parameters: Parameters = (), /) -> Cursor:
        """Run one statement; `?` takes a sequence, `:name` a mapping.

        Raises what the statement raises; the database is then as it was before it (F2).
        """
        connection = self._opened()
        self._clear()
        self.keep(connection.run(statement, parameters))
        return self

    def executemany(self, statement: str, parameters: Iterable[Parameters], /) -> Cursor:
        """Run an INSERT, UPDATE or DELETE once for each item; `rowcount` is the sum.

        Raises ProgrammingError for a statement that gives rows.
        """
        connection = self._opened()
        self._clear()
        self.keep(connection.run_many(statement, parameters))
        return self

    def executescript(self, script: str, /) -> Cursor:
        """Run the statements of a script one after the other; their rows are dropped."""
        connection = self._opened()
        self._clear()
        connection.run_script(script)
        return self

    def fetchone(self) -> Any:
        """The next row, or None after the last one."""
        rows = self._fetchable()
        position = self._next
        if position >= len(rows):
            return None
        self._next = position + 1
        row = rows[position]
        return row if self.row_factory is None else self.row_factory(self, row)

    def fetchmany(self, size: int | None = None) -> list[Any]:
        """Up to `size` next rows; without it, `arraysize`."""
        rows = self._fetchable()
        count = self.arraysize if size is None else size
        if count < 0:
            raise ProgrammingError(f"fetchmany: size {count} is negative")
        return self._take(rows, min(len(rows), self._next + count))

    def fetchall(self) -> list[Any]:
        """All rows that are left."""
        rows = self._fetchable()
        return self._take(rows, len(rows))

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        rows = self._rows
        if rows is None and self._has_rows():
            rows = self._fetchable()
        if rows is None or self._next >= len(rows):
            self._opened()
            raise StopIteration
        return self.fetchone()

    @property
    def has_made_rows(self) -> bool:
        """Whether a fetch takes no time: the rows of a large result are made at the first one."""
        return self._rows is not None or not self._has_rows()

    @property
    def is_closed(self) -> bool:
        """Whether it, or its connection, was closed."""
        return self._connection is None or self._connection.database is None

    # Arrays

    def arrow(self) -> pyarrow.Table:
        """All rows that are left, as an Arrow table.

        Vectors are fixed-size lists. A large result is handed over without a Python object for a
        value, and without a copy but the one that was taken from the file. Raises
        NotSupportedError without pyarrow (`pip install 'm2mdb[arrow]'`), DataError for a computed
        column whose values have several types.
        """
        from m2mdb.arrow import table

        return self._made_of_columns(table)

    def df(self) -> pandas.DataFrame:
        """All rows that are left, as a pandas data frame; errors as `arrow` raises them."""
        from m2mdb.arrow import frame

        found: pandas.DataFrame = self._made_of_columns(frame)
        return found

    def pl(self) -> polars.DataFrame:
        """All rows that are left, as a Polars data frame; errors as `arrow` raises them.

        Raises DataError where two columns have one name, too.
        """
        from m2mdb.arrow import polars_frame

        self._check_names("pl")
        found: polars.DataFrame = self._made_of_columns(polars_frame)
        return found

    def fetchnumpy(self) -> dict[str, np.ndarray[Any, Any]]:
        """All rows that are left, as an array for each column, by its name.

        A column with NULLs is a masked array; texts, blobs and mixed values are objects; vectors
        are a matrix. Raises DataError where two columns have one name.
        """
        from m2mdb.arrow import arrays

        self._check_names("fetchnumpy")
        found: dict[str, np.ndarray[Any, Any]] = self._made_of_columns(arrays)
        return found

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The rows that are left as an Arrow stream, which leaves the cursor where it is."""
        from m2mdb.arrow import stream

        return self._watched(lambda check: stream(*self._columns(check), check, requested_schema))

    def _columns(self, check: Check) -> tuple[list[str], list[Column]]:
        """The names of the columns, and the values of the rows that are left."""
        self._opened()
        if not self._has_rows():
            raise InterfaceError(NO_RESULTS)
        from m2mdb.arrow import columns_of

        result = self._result
        assert result is not None and result.columns is not None
        return list(result.columns), columns_of(result, self._next, check)

    def _made_of_columns(self, make: Callable[[list[str], list[Column], Check], Any]) -> Any:
        """What is made of the rows that are left, which are taken then."""

        def made(check: Check) -> Any:
            names, columns = self._columns(check)
            found = make(names, columns, check)
            self._next += len(columns[0]) if columns else 0
            return found

        return self._watched(made)

    def _check_names(self, method: str) -> None:
        """Raise DataError where two columns have one name: one of them would be lost."""
        names = self._result.columns if self._result is not None else None
        for at, name in enumerate(names or ()):
            if names is not None and name in names[:at]:
                raise DataError(
                    f"{method}(): several columns are named {name!r}; name them apart with AS"
                )

    def setinputsizes(self, sizes: Sequence[Any], /) -> None:
        """PEP 249 asks for it; sizes need not be announced here."""

    def setoutputsize(self, size: int, column: int | None = None, /) -> None:
        """PEP 249 asks for it; values are never cut."""

    def close(self) -> None:
        """Drop the rows; any later use raises InterfaceError, a second close too."""
        self._opened()
        self._clear()
        self._connection = None

    def __enter__(self) -> Cursor:
        self._opened()
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection is not None:
            self._clear()
            self._connection = None

    def __repr__(self) -> str:
        if self._connection is None:
            return "<m2mdb.Cursor closed>"
        result = self._result
        if result is None or result.columns is None:
            return "<m2mdb.Cursor without rows>"
        count = len(result.data[0] if self._rows is None else self._rows)
        return f"<m2mdb.Cursor row {self._next} of {count}>"

    def _opened(self) -> Connection:
        connection = self._connection
        if connection is None:
            raise InterfaceError("the cursor is closed")
        connection.engine()
        return connection

    def _clear(self) -> None:
        self._result = self._rows = self._names = None
        self._next = 0
        self.rowcount = -1

    def keep(self, result: Result) -> None:
        """Make a statement's outcome the cursor's own."""
        connection = self._connection
        assert connection is not None
        if connection.detect_types or connection.text_factory is not str:
            from m2mdb.adapters import convert

            convert(result, connection.detect_types, connection.text_factory)
        self._result = result
        self.rowcount = result.rowcount
        if result.lastrowid is not None:
            self.lastrowid = result.lastrowid
        if result.columns is not None:
            self._rows = None if result.data is not None else result.rows

    def _fetchable(self) -> list[tuple[Any, ...]]:
        rows, connection = self._rows, self._connection
        if rows is None or connection is None or connection.database is None or connection.thread:
            self._opened()
            if rows is None:
                result = self._result
                if result is None or result.columns is None:
                    raise InterfaceError(NO_RESULTS)
                rows = self._rows = self._watched(result.made)  # of the columns, only now
        return rows

    def _watched(self, make: Callable[[Check], T]) -> T:
        """What `make` gives, which may be interrupted, unless the connection runs a statement."""
        from m2mdb.index.slices import unchecked

        connection = self._opened()
        if not connection.lock.acquire(blocking=False):
            return make(unchecked)
        try:
            database = connection.engine()
            database.forget_interrupt()
            return make(database.check_interrupted)
        finally:
            connection.lock.release()

    def _has_rows(self) -> bool:
        return self._result is not None and self._result.columns is not None

    def _take(self, rows: list[tuple[Any, ...]], stop: int) -> list[Any]:
        taken = rows[self._next : stop]
        self._next = stop
        factory = self.row_factory
        return taken if factory is None else [factory(self, row) for row in taken]
