"""Columns: what `Collection.add` takes, brought to equal-length columns.

    dict of columns            every value is a sequence
    dict of scalars            one row: some value is no sequence (a str is none)
    sequence of dicts or Rows  a row each; a missing name takes the column's default
    pandas DataFrame           missing values are NULL
    Arrow                      anything with `__arrow_c_stream__`

Invariants
    A1  All columns that leave have `count` values, in the order of the rows.
    A2  Values are not judged here: the engine refuses what does not fit the column.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from m2mdb.index.generated import encode_ahead, may_encode_ahead
from m2mdb.index.schema import CollectionSchema
from m2mdb.pager.errors import DataError, InterfaceError, NotSupportedError
from m2mdb.query.binding import adapted
from m2mdb.query.columnar import Column, Numbers, Values, Vectors
from m2mdb.query.lists import ListSchema

if TYPE_CHECKING:
    from m2mdb.index.database import Database

Columns = dict[str, Any]
ARRAY_TYPES = (list, tuple, np.ndarray)


def to_columns(rows: Any, schema: CollectionSchema) -> tuple[Columns, int]:
    """The columns and the number of rows.

    Raises DataError for columns of unequal length, InterfaceError for what is no table.
    """
    if isinstance(rows, Mapping):
        return from_mapping(rows, schema)
    if isinstance(rows, (list, tuple)):
        return from_rows(rows, schema)
    if type(rows).__module__.split(".")[0] == "pandas":
        return from_frame(rows)
    if hasattr(rows, "__arrow_c_stream__"):
        return from_arrow(rows)
    if isinstance(rows, np.ndarray) and rows.dtype.names:
        return {name: rows[name] for name in rows.dtype.names}, len(rows)
    if isinstance(rows, Iterable) and not isinstance(rows, (str, bytes, np.ndarray)):
        return from_rows(list(rows), schema)
    raise InterfaceError(
        f"rows are {type(rows).__name__}; wanted is a dict of columns, a list of dicts, "
        "a DataFrame or an object with __arrow_c_stream__"
    )


def columns_ahead(database: Database, name: str, rows: Any) -> tuple[Columns, int]:
    """As `to_columns`, and their texts are encoded before the writer lock is taken (GE5)."""
    database.forget_interrupt()
    with database.reading() as view:
        schema = view.collection(name).schema
        columns, count = to_columns(rows, schema)
        for each in columns:
            schema.column(each)
    if may_encode_ahead(database, name):
        texts = {each.lower(): values for each, values in columns.items()}
        encode_ahead(database, name, texts)
    return columns, count


def from_mapping(rows: Mapping[str, Any], schema: CollectionSchema) -> tuple[Columns, int]:
    """A dict of columns, or one row as a dict of scalars."""
    if any(is_one_value(name, value, schema) for name, value in rows.items()):
        return one_row(rows, schema), 1
    columns: Columns = {}
    for name, value in rows.items():
        columns[name] = value if isinstance(value, ARRAY_TYPES) else as_sequence(name, value)
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise DataError(f"columns of {schema.name} differ in length: {shown}")
    return columns, next(iter(lengths.values()), 0)


def is_one_value(name: str, value: Any, schema: CollectionSchema) -> bool:
    """Whether a dict's value is one value of its column, so that the dict is one row."""
    if isinstance(value, (str, bytes, Mapping)) or not hasattr(value, "__len__"):
        return not isinstance(value, Iterable) or isinstance(value, (str, bytes, Mapping))
    position = schema.position(name)
    if position is None or not schema.columns[position].is_vector or len(value) == 0:
        return False
    if isinstance(value, np.ndarray):
        return value.ndim == 1 and value.dtype != object
    return isinstance(value, (list, tuple)) and isinstance(value[0], (int, float, np.number))


def one_row(row: Mapping[str, Any], schema: CollectionSchema) -> Columns:
    """Columns of one value each."""
    for name, value in row.items():
        position = schema.position(name)
        type_name = "" if position is None else schema.columns[position].type
        if isinstance(value, ARRAY_TYPES) and type_name not in ("", "VECTOR", "JSON"):
            single = next(key for key, item in row.items() if is_one_value(key, item, schema))
            raise DataError(
                f"columns of {schema.name} differ in length: {name} is a list of {len(value)}, "
                f"{single} is one value; give one row of scalars or equally long lists"
            )
    return {name: [value] for name, value in row.items()}


def as_sequence(name: str, value: Any) -> Any:
    """A column that is neither list nor array: a Series, an Arrow array, a generator."""
    if hasattr(value, "to_pylist"):
        return list(value.to_pylist())
    if type(value).__module__.split(".")[0] == "pandas":
        return series_values(value)
    if isinstance(value, Iterable):
        return list(value)
    raise InterfaceError(f"column {name} is {type(value).__name__}, which is no sequence")


def from_rows(rows: Sequence[Any], schema: CollectionSchema) -> tuple[Columns, int]:
    """A sequence of dicts or Rows; a name that a row lacks takes the column's default."""
    names: dict[str, None] = {}
    for number, row in enumerate(rows):
        if not hasattr(row, "keys"):
            raise InterfaceError(f"row {number} is {type(row).__name__}; wanted is a dict")
        names.update(dict.fromkeys(row.keys()))
    known = [row.keys() for row in rows]  # a Row's `in` would look at its values
    columns: Columns = {}
    for name in names:
        position = schema.position(name)
        column = None if position is None else schema.columns[position]
        default = None if column is None else column.default
        if column is not None and column.default_text is not None:
            lacking = next((at for at, keys in enumerate(known) if name not in keys), None)
            if lacking is not None:
                raise DataError(
                    f"row {lacking} lacks {name}, whose DEFAULT ({column.default_text}) is "
                    "computed: give it in all rows or in none"
                )
        columns[name] = [
            row[name] if name in keys else default for row, keys in zip(rows, known, strict=True)
        ]
    return columns, len(rows)


def from_frame(frame: Any) -> tuple[Columns, int]:
    """A pandas DataFrame, or a Series of dicts; the frame's index is no column."""
    if not hasattr(frame, "columns"):
        raise InterfaceError(f"rows are pandas {type(frame).__name__}; wanted is a DataFrame")
    names = [str(name) for name in frame.columns]
    return {name: series_values(frame.iloc[:, i]) for i, name in enumerate(names)}, len(frame)


def series_values(series: Any) -> Any:
    """The values of a pandas Series, missing ones as None."""
    missing = series.isna().to_numpy()
    kind = getattr(series.dtype, "kind", "O")
    if kind in "iufb" and isinstance(series.dtype, np.dtype) and not missing.any():
        return series.to_numpy()
    if kind == "M":
        values = list(series.dt.to_pydatetime()) if not missing.any() else series.tolist()
    else:
        values = series.tolist()
    return [None if absent else value for value, absent in zip(values, missing, strict=True)]


def read_table(value: Any, label: str) -> tuple[list[str], list[Column], int]:
    """A value that a statement has as `FROM :table`: names, columns and rows (`query.bound`).

    Raises InterfaceError where it is no table, DataError where its columns differ in length
    or a real is NaN.
    """
    schema: Any = ListSchema(f"the table bound to {label}", ())
    columns, count = to_columns(value, schema)
    for name, values in columns.items():
        if isinstance(values, np.ndarray) and values.dtype.kind == "f" and values.ndim == 1:
            wrong = np.flatnonzero(np.isnan(values))
            if len(wrong):
                raise DataError(
                    f"column {name} of {schema.name}, row {wrong[0]}: NaN is no value; "
                    "pass None for NULL"
                )
    return list(columns), [stored_column(columns[name]) for name in columns], count


def stored_column(values: Any) -> Column:
    """A column as results have it: an array of one kind where it is one, else a list."""
    if isinstance(values, np.ndarray) and values.ndim == 2 and values.dtype.kind in "fi":
        return Vectors(values.copy(), None)
    kind = values.dtype.kind if isinstance(values, np.ndarray) else ""
    if kind and kind in "iu" and values.dtype != np.uint64:
        return Numbers(values.astype(np.int64), None, "INTEGER")
    if kind == "f":
        return Numbers(values.astype(np.float64), None, "REAL")
    if kind == "b":
        return Numbers(values.astype(np.uint8), None, "BOOLEAN")
    is_listed = isinstance(values, np.ndarray) and kind != "M"
    return Values([adapted(each, 0) for each in (values.tolist() if is_listed else values)], None)


def from_arrow(stream: Any) -> tuple[Columns, int]:
    """An Arrow stream; fixed-size lists of floats become a matrix without a copy per value."""
    try:
        import pyarrow
    except ImportError as error:
        raise NotSupportedError(
            f"rows are {type(stream).__name__}: reading Arrow needs pyarrow "
            "(pip install 'm2mdb[arrow]')"
        ) from error
    try:
        table = pyarrow.RecordBatchReader.from_stream(stream).read_all()
    except pyarrow.ArrowException as error:
        raise DataError(f"rows are {type(stream).__name__}, which fails: {error}") from error
    names = table.column_names
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"rows are {type(stream).__name__} with several columns {twice!r}")
    columns = {
        name: arrow_values(table.column(i).combine_chunks(), pyarrow)
        for i, name in enumerate(names)
    }
    return columns, table.num_rows


def arrow_values(array: Any, pyarrow: Any) -> Any:
    """One Arrow column as a NumPy array where it has no NULL, else as a list.

    Raises DataError: a value that Python's type cannot hold.
    """
    kinds = pyarrow.types
    if array.null_count == 0:
        if kinds.is_integer(array.type) or kinds.is_floating(array.type):
            return array.to_numpy(zero_copy_only=False)
        if kinds.is_fixed_size_list(array.type) and kinds.is_primitive(array.type.value_type):
            width = array.type.list_size
            flat = array.flatten()
            if flat.null_count == 0:
                return flat.to_numpy(zero_copy_only=False).reshape(len(array), width)
    try:
        return array.to_pylist()
    except (OverflowError, ValueError) as error:  # times beyond datetime's, bytes that are no text
        raise DataError(f"a value of Arrow's {array.type} is none of Python's: {error}") from error
