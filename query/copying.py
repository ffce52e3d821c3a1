"""COPY: a collection to a file, or a file's rows into a collection, batch by batch.

    COPY c TO 'path'      view --batches of rowids--> columns --> FileWriter --> the file
    COPY c FROM 'path'    FileReader --> columns --> one writing statement, all rows or none

What a file's format is, and its bytes, are the face's matter: it registers FILES. A connection to
an untrusted file copies nothing, and the authorizer is asked for ATTACH with the path first.

Invariants
    CP1 COPY FROM is one statement: any error, of the file too, leaves no row of it.
    CP2 Memory is bounded by a batch, not by the collection or the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from m2mdb.index import generated
from m2mdb.index.slices import Check
from m2mdb.pager.errors import Error, OperationalError, ProgrammingError
from m2mdb.query.access import everything
from m2mdb.query.authorization import SQLITE_INSERT, SQLITE_READ, authorize_file
from m2mdb.query.columnar import Column, column_of
from m2mdb.query.functions import Bindings
from m2mdb.query.nodes import Literal, Option, Parameter
from m2mdb.query.placed_names import located
from m2mdb.query.result import Result
from m2mdb.query.selection import Selection

if TYPE_CHECKING:
    from m2mdb.index.collection import CollectionView
    from m2mdb.index.database import Database
    from m2mdb.index.schema import CollectionSchema
    from m2mdb.query.ast import Copy

BATCH_ROWS = 8192
BATCH_BYTES = 32 << 20  # of the vectors of a batch
WRITTEN_BYTES = 8 << 20  # of one that is written
MODES = ("error", "ignore", "replace")
Options = Mapping[str, Any]
Progress = Callable[[int, int | None], object]  # rows done, rows in all where that is known


class FileReader(Protocol):
    """The rows of a file in batches, as columns by their names."""

    total: int | None
    lines: list[int]  # of the last batch's rows; none where the format has no lines

    def batches(self, rows: int, check: Check) -> Iterator[tuple[Mapping[str, Any], int]]:
        """Columns of up to `rows` rows, and how many there are.

        check  called amid a batch that takes long to read; it may raise
        """
        ...


class FileWriter(Protocol):
    """A file to which rows are added."""

    columns: list[str]  # those that it takes

    def write(self, columns: list[Column], check: Check) -> None:
        """Add a batch; `check` is called amid one that takes long, and may raise."""
        ...


class Files(Protocol):
    """The formats; opening raises OperationalError, DataError for a file that is malformed."""

    def is_lasting(self, path: str) -> bool:
        """Whether it may be read twice: no pipe."""
        ...

    def open_reader(
        self, path: str, options: Options, schema: CollectionSchema
    ) -> AbstractContextManager[FileReader]:
        """A file to be read."""
        ...

    def open_writer(
        self, path: str, options: Options, schema: CollectionSchema, about: tuple[int, str]
    ) -> AbstractContextManager[FileWriter]:
        """A file to be written, in its place when the block ends well.

        `about`: how many rows it will have, and the database's path, which it must not replace.
        """
        ...


ROW = re.compile(r", row (\d+)(?=: )| \(row (\d+)\)$")  # how the engine names a batch's row
FILES: list[Files] = []  # one at most


def run_copy(database: Database, statement: Copy, bindings: Bindings) -> Result:
    """One COPY: a row with the number of rows.

    Raises ProgrammingError: no such collection, option or format. OperationalError: the file, or
    file access is forbidden. DataError and IntegrityError: rows that do not fit.
    """
    path = _value(statement.path, bindings)
    if not isinstance(path, str) or not path or "\0" in path:
        raise ProgrammingError(f"COPY {path!r}: expected the path of a file")
    options: dict[str, Any] = {}
    for each in statement.options:
        if each.name.lower() in options:
            raise ProgrammingError(f"COPY: option {each.name} is given twice")
        options[each.name.lower()] = _option(each, bindings)
    with database.reading() as view, located(statement.collection):
        view.collection(statement.collection)
    copy = copy_to if statement.is_export else copy_from
    count = copy(database, statement.collection, path, options)
    return Result(["rows"], [(count,)], rowcount=-1 if statement.is_export else count)


def _value(node: Any, bindings: Bindings) -> Any:
    return bindings[node.index] if isinstance(node, Parameter) else node.value


def _option(option: Option, bindings: Bindings) -> Any:
    if not isinstance(option.value, Literal | Parameter):
        raise ProgrammingError(f"COPY: option {option.name} takes one value")
    return _value(option.value, bindings)


def _refuse_untrusted(database: Database, path: str) -> None:
    if database.store.options.untrusted:
        raise OperationalError(
            f"COPY {path}: a connection to an untrusted file touches no other file"
        )


def _located(error: Error, path: str, unit: str, places: Sequence[int]) -> Error:
    """An error of a batch with the file's line or row, from 1, in place of the batch's own row.

    unit    "line" or "row"
    places  of each row of the batch
    """
    text = str(error)
    found = ROW.search(text)
    if found is not None:
        where = f"{unit} {places[int(found[1] or found[2])]}"
        text = text[: found.start()] + text[found.end() :]
    elif len(places) == 1:
        where = f"{unit} {places[0]}"
    else:
        where = f"{unit}s {places[0]} to {places[-1]}"
    return type(error)(f"{path}, {where}: {text}")


def copy_to(
    database: Database,
    collection: str,
    path: str,
    options: Options,
    progress: Progress | None = None,
) -> int:
    """Write all rows of a collection to a file; returns how many."""
    _refuse_untrusted(database, path)
    with database.reading() as view:
        found = view.collection(collection)
        schema = found.schema
        asked = [(SQLITE_READ, schema.name, column.name) for column in schema.columns]
        authorize_file(database, path, asked)
        total = found.count()
        done = 0
        with FILES[0].open_writer(path, options, schema, (total, database.path)) as writer:
            sources = [schema.column(name) for name in writer.columns]
            check = database.check_interrupted
            for batch in batches(found, batch_rows(schema, WRITTEN_BYTES), check):
                writer.write([column_of(batch, source) for source in sources], check)
                done += len(batch)
                if progress is not None:
                    progress(done, total)
        return done


def batch_rows(schema: CollectionSchema, most: int = BATCH_BYTES) -> int:
    """Rows of a batch: fewer where vectors are long, which have `most` bytes together."""
    numbers = sum(schema.columns[at].dimension for at in schema.vector_columns)
    return max(1, min(BATCH_ROWS, most // (4 * numbers) if numbers else BATCH_ROWS))


def batches(found: CollectionView, rows: int, check: Callable[[], None]) -> Iterator[Selection]:
    """All rows in rowid order, a few at a time."""
    view, chosen, order = everything(found, check).origin()
    starts = np.cumsum([0, *map(len, chosen)])
    total = int(starts[-1])
    for first in range(0, total, rows):
        check()
        last = min(first + rows, total)
        places = np.arange(first, last) if order is None else np.sort(order[first:last])
        bounds = np.searchsorted(places, starts)
        picked = [
            some[places[low:high] - start]
            for some, low, high, start in zip(
                chosen, bounds[:-1], bounds[1:], starts[:-1], strict=True
            )
        ]
        yield Selection(view, picked)


def _without_made(schema: CollectionSchema, columns: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a file without generated vectors whose texts stand beside them.

    A row's vector is its text's, whatever the file says (GE2); a vector whose text is not in the
    file is left, and refused.
    """
    given = {schema.column(name): values for name, values in columns.items()}
    for index in schema.generated_columns:
        made = schema.columns[index].generated
        if made is not None and schema.column(made["from"]) in given:
            given.pop(index, None)
    return {schema.columns[index].name: values for index, values in given.items()}


def copy_from(
    database: Database,
    collection: str,
    path: str,
    options: Options,
    progress: Progress | None = None,
) -> int:
    """Add the rows of a file to a collection; returns how many were added or replaced."""
    _refuse_untrusted(database, path)
    mode = str(options.get("on_conflict", "error")).lower()
    if mode not in MODES:
        raise ProgrammingError(f"COPY: on_conflict is {mode!r}, not one of {', '.join(MODES)}")
    try:
        _encode_ahead(database, collection, path, options)
        return _copy_rows(database, collection, path, (options, mode), progress)
    finally:
        database.ahead.clear()


def _encode_ahead(database: Database, collection: str, path: str, options: Options) -> None:
    """Encode the texts of a file before the writer lock is taken (GE5); so it is read twice.

    A pipe cannot be: its texts are encoded inside the statement, as is what is beyond
    `generated.AHEAD_BYTES` of vectors.
    """
    if not generated.may_encode_ahead(database, collection) or not FILES[0].is_lasting(path):
        return
    with database.reading() as view:
        schema = view.collection(collection).schema
    authorize_file(database, path, [(SQLITE_INSERT, schema.name, None)])
    sources = {generated.source_of(schema, index) for index in schema.generated_columns}
    names = {schema.columns[index].name.lower() for index in sources}
    check = database.check_interrupted
    with FILES[0].open_reader(path, options, schema) as reader:
        for columns, _ in reader.batches(batch_rows(schema), check):
            check()
            texts = {name.lower(): values for name, values in columns.items()}
            texts = {name: values for name, values in texts.items() if name in names}
            generated.encode_ahead(database, collection, texts)


def _copy_rows(
    database: Database,
    collection: str,
    path: str,
    how: tuple[Options, str],
    progress: Progress | None,
) -> int:
    """`copy_from` inside the statement; `how`: the options, and on_conflict."""
    options, mode = how
    with database.writing() as write:
        schema = write.collection(collection).schema
        authorize_file(database, path, [(SQLITE_INSERT, schema.name, None)])
        added = read = 0
        check = database.check_interrupted
        with FILES[0].open_reader(path, options, schema) as reader:
            for columns, count in reader.batches(batch_rows(schema), check):
                check()
                for name in columns:
                    schema.column(name)
                given = dict(columns) if database.give_generated else _without_made(schema, columns)
                try:
                    rowids = write.insert(schema.name, given, count, mode)
                except Error as error:
                    lines = reader.lines or range(read + 1, read + count + 1)
                    raise _located(error, path, "line" if reader.lines else "row", lines) from error
                added += int(np.count_nonzero(rowids >= 0))
                read += count
                if progress is not None:
                    progress(read, reader.total)
    return added
