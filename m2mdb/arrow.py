"""Arrow, data frames and arrays: a result's columns in the forms that other programs read.

    Numbers  --> int64, double, bool, timestamp[us, UTC]     the array itself, no copy
    Texts    --> string, binary (large_… from 2 GiB on)      offsets and bytes themselves
    Vectors  --> fixed_size_list<float | halffloat | int8>   the matrix itself
    Values   --> as declared, else as the values are         one object at a time

pyarrow, pandas and Polars are extras, loaded when they are asked for.
"""

from __future__ import annotations

import datetime
import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from m2mdb.index.slices import Check, array_of, joined, kinds_of, slices, unchecked, watched
from m2mdb.index.slices import columns_of as transposed
from m2mdb.index.values import EPOCH, MICROSECOND
from m2mdb.pager.errors import CorruptDatabaseError, DataError, NotSupportedError
from m2mdb.query.affinity import type_name
from m2mdb.query.columnar import Column, Numbers, Texts, Values, Vectors

if TYPE_CHECKING:
    from m2mdb.query.result import Result

LARGE = 2**31 - 1  # bytes of texts that 32-bit offsets reach
SERIES_VALUES = 1 << 16  # that pandas takes at a time: some milliseconds
_NUMBERS = {"INTEGER": int, "REAL": float, "BOOLEAN": bool}
_DTYPES = {"INTEGER": np.int64, "REAL": np.float64, "BOOLEAN": np.uint8}


def extra(module: str, name: str, what: str) -> Any:
    """A module of an extra; NotSupportedError where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise NotSupportedError(f"{what} needs {module} (pip install 'm2mdb[{name}]')") from error


def columns_of(result: Result, start: int, check: Check = unchecked) -> list[Column]:
    """The columns of a result, from row `start` on.

    check  called between slices of the work; it may raise
    """
    data: Sequence[Column] | None = result.data
    if data is not None:
        if not start:
            return list(data)
        return [column.taken(np.arange(start, len(column)), check) for column in data]
    assert result.columns is not None
    types = result.types or [None] * len(result.columns)
    rows = result.rows[start:] if start else result.rows
    if not rows:
        return [typed([], type) for type in types]
    pairs = zip(transposed(rows, len(types), check), types, strict=True)
    return [typed(values, type, check) for values, type in pairs]


def typed(values: list[Any], type: str | None, check: Check = unchecked) -> Column:
    """A list as an array where all its values are of one kind that has one."""
    there = [value for value in watched(values, check) if value is not None]
    kinds: set[Any] = {each.__class__ for each in watched(there, check)}
    if len(kinds) == 1:
        kind = kinds.pop()
        wanted = next((name for name, each in _NUMBERS.items() if each is kind), None)
        if wanted is not None:
            nulls = None
            if len(there) < len(values):
                nulls = np.fromiter((value is None for value in values), bool, len(values))
                values = [0 if value is None else value for value in values]
            return Numbers(array_of(values, _DTYPES[wanted], check), nulls, wanted)
        if kind is datetime.datetime and type == "TIMESTAMP":
            nulls = np.fromiter((value is None for value in values), bool, len(values))
            moments = [
                0 if v is None else (v - EPOCH) // MICROSECOND for v in watched(values, check)
            ]
            return Numbers(np.array(moments, np.int64), nulls if nulls.any() else None, type)
        if kind is np.ndarray and len({(each.shape, each.dtype) for each in there}) == 1:
            return stacked(values, there[0], check)
    return Values(values, type)


def stacked(values: Sequence[Any], pattern: np.ndarray, check: Check = unchecked) -> Vectors:
    """Vectors of one shape as a matrix."""
    matrix = np.zeros((len(values), *pattern.shape), pattern.dtype)
    present = np.fromiter((value is not None for value in values), bool, len(values))
    for row, value in enumerate(watched(values, check)):
        if value is not None:
            matrix[row] = value
    return Vectors(matrix, None if present.all() else present)


# Arrow


def table(names: list[str], columns: list[Column], check: Check = unchecked) -> Any:
    """A pyarrow.Table of the columns.

    check  called between the columns; it may raise
    """
    pyarrow = extra("pyarrow", "arrow", "an Arrow table")
    found = []
    for column, name in zip(columns, names, strict=True):
        check()
        found.append(arrow_array(pyarrow, column, name))
    return pyarrow.Table.from_arrays(found, names)


def stream(
    names: list[str], columns: list[Column], check: Check, requested_schema: object = None
) -> object:
    """The columns as an Arrow C stream."""
    return table(names, columns, check).__arrow_c_stream__(requested_schema)


def arrow_array(pyarrow: Any, column: Column, name: str) -> Any:
    """One column as an Arrow array."""
    if isinstance(column, Numbers):
        return _arrow_numbers(pyarrow, column)
    if isinstance(column, Texts):
        return _arrow_texts(pyarrow, column, name)
    if isinstance(column, Vectors):
        return _arrow_vectors(pyarrow, column)
    return _arrow_values(pyarrow, column, name)


def _arrow_numbers(pyarrow: Any, column: Numbers) -> Any:
    if column.type == "TIMESTAMP":
        kind = pyarrow.timestamp("us", tz="UTC")
        return pyarrow.array(column.array.view("M8[us]"), kind, mask=column.nulls)
    array = column.array.view(bool) if column.type == "BOOLEAN" else column.array
    return pyarrow.array(array, mask=column.nulls)


def _validity(pyarrow: Any, there: np.ndarray | None) -> Any:
    if there is None:
        return None
    return pyarrow.py_buffer(np.packbits(there, bitorder="little"))


def _arrow_texts(pyarrow: Any, column: Texts, name: str) -> Any:
    is_large = int(column.offsets[-1]) > LARGE
    kinds = ("large_binary", "large_string") if is_large else ("binary", "string")
    kind = getattr(pyarrow, kinds[column.type != "BLOB"])()
    offsets = column.offsets if is_large else column.offsets.astype(np.int32)
    there = None if column.nulls is None else ~column.nulls
    buffers = [
        _validity(pyarrow, there),
        pyarrow.py_buffer(offsets),
        pyarrow.py_buffer(column.blob),
    ]
    found = pyarrow.Array.from_buffers(kind, len(column), buffers)
    if column.type != "BLOB":
        try:
            found.validate(full=True)
        except pyarrow.ArrowInvalid as error:
            raise CorruptDatabaseError(f"column {name} holds bytes that are no UTF-8") from error
    return found


def _arrow_vectors(pyarrow: Any, column: Vectors) -> Any:
    matrix = np.ascontiguousarray(column.matrix)
    numbers = pyarrow.array(matrix.reshape(-1))
    kind = pyarrow.list_(numbers.type, matrix.shape[1])
    buffers = [_validity(pyarrow, column.present)]
    return pyarrow.Array.from_buffers(kind, len(matrix), buffers, children=[numbers])


def _arrow_values(pyarrow: Any, column: Values, name: str) -> Any:
    values = column.values()
    kinds = {
        "INTEGER": pyarrow.int64(),
        "REAL": pyarrow.float64(),
        "BOOLEAN": pyarrow.bool_(),
        "TIMESTAMP": pyarrow.timestamp("us", tz="UTC"),
        "TEXT": pyarrow.string(),
        "JSON": pyarrow.string(),
        "BLOB": pyarrow.binary(),
    }
    for kind in (kinds.get(column.type or ""), None):
        try:
            return pyarrow.array(values, kind)
        except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError):
            continue
    found = ", ".join(sorted({type_name(value) for value in values if value is not None}))
    raise DataError(f"column {name} has values of several types ({found}); CAST it to one")


# NumPy, pandas, Polars


def arrays(
    names: list[str], columns: list[Column], check: Check = unchecked
) -> dict[str, np.ndarray]:
    """The columns as arrays, masked where there are NULLs.

    check  called between slices of the work; it may raise
    """
    return {name: numpy_array(column, check) for name, column in zip(names, columns, strict=True)}


def numpy_array(column: Column, check: Check = unchecked) -> np.ndarray:
    """One column as an array."""
    check()
    if isinstance(column, Numbers):
        array = column.array
        if column.type in ("BOOLEAN", "TIMESTAMP"):
            array = array.view(bool if column.type == "BOOLEAN" else "M8[us]")
        return array if column.nulls is None else np.ma.MaskedArray(array, column.nulls)
    if isinstance(column, Vectors):
        if column.present is None:
            return column.matrix
        mask = np.repeat(~column.present[:, None], column.matrix.shape[1], axis=1)
        return np.ma.MaskedArray(column.matrix, mask)
    values = column.values(check)
    array = array_of(values, object, check)
    if None in values:
        return np.ma.MaskedArray(array, [value is None for value in watched(values, check)])
    return array


def frame(names: list[str], columns: list[Column], check: Check = unchecked) -> Any:
    """A pandas.DataFrame of the columns; two may have one name.

    check  called between slices of the work; it may raise
    """
    pandas = extra("pandas", "pandas", "a data frame")
    made = {at: series(pandas, each, check) for at, each in enumerate(columns)}
    found = pandas.DataFrame(made, copy=False)
    found.columns = names
    return found


def series(pandas: Any, column: Column, check: Check = unchecked) -> Any:
    """One column as pandas takes it: NULL is NaN, NaT or None."""
    check()
    if isinstance(column, Numbers):
        array, nulls = column.array, column.nulls
        if column.type == "TIMESTAMP":
            moments = array.view("M8[us]")
            moments = moments if nulls is None else np.where(nulls, np.datetime64("NaT"), moments)
            return pandas.Series(moments).dt.tz_localize("UTC")
        if nulls is None:
            return joined([array.view(bool) if column.type == "BOOLEAN" else array], check)
        if column.type != "BOOLEAN":
            return np.where(nulls, np.nan, array)
    values = column.values(check)
    if len(values) <= SERIES_VALUES or kinds_of(values, check) - {type(None)} != {str}:
        return values
    kind = pandas.Series(["", None]).dtype  # what pandas makes of texts: in one go a tenth of a
    pieces = [  # second for a million
        pandas.Series(values[some], dtype=kind)
        for some in slices(len(values), SERIES_VALUES, check)
    ]
    return pandas.concat(pieces, ignore_index=True)


def polars_frame(names: list[str], columns: list[Column], check: Check = unchecked) -> Any:
    """A polars.DataFrame of the columns."""
    polars = extra("polars", "polars", "a Polars data frame")
    return polars.from_arrow(table(names, columns, check))
