"""Values: from what a program passes to what a column stores, and back.

`store_column` takes the values of one column for many rows and gives them in stored form (the
table in `index.schema`), or raises DataError that names collection, column, row and value before
anything is written. `python_value` gives back what a reader sees.

Invariants
    T1  A conversion loses nothing: 3.0 may become 3 in an INTEGER column, 3.5 is refused.
    T2  Vectors are stored as given (S20); f16 columns round, and overflow is refused.
    T3  No NaN, no infinity, and under cosine no zero vector is ever stored.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from m2mdb.compute.bound import row_norms
from m2mdb.index.schema import MAX_TEXT_BYTES, VECTOR_DTYPES, Column
from m2mdb.index.slices import (
    SLICE_BYTES,
    STORED_AS_GIVEN,
    Check,
    listed,
    slices,
    unchecked,
    watched,
)
from m2mdb.pager.errors import DataError

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
MICROSECOND = datetime.timedelta(microseconds=1)
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
LONGEST = 1e38  # above, a norm or its square may overflow float32 (bound.py B2)
SHORTEST = 1e-30  # below, the float32 products of cosine have lost their digits (bound.py B2)
MAX_CHARACTERS_UNCHECKED = MAX_TEXT_BYTES // 4  # UTF-8 takes at most four bytes a character


class VectorData:
    """The vectors of one column for some rows.

    matrix   (rows, dimension) of the column's dtype, C-contiguous
    norms    float32 (rows,), Euclidean; computed when first asked for
    present  bool (rows,), or None when no row is NULL; a NULL row of the matrix is zero
    """

    __slots__ = ("_norms", "matrix", "present")

    def __init__(
        self,
        matrix: np.ndarray,
        norms: np.ndarray | None = None,
        present: np.ndarray | None = None,
    ) -> None:
        self.matrix = matrix
        self._norms = norms
        self.present = present

    def __len__(self) -> int:
        return len(self.matrix)

    @property
    def norms(self) -> np.ndarray:
        """float32 (rows,)."""
        if self._norms is None:
            self._norms = norms_of(self.matrix)
        return self._norms

    def measure(self, check: Check) -> None:
        """Have the norms, `check` being called between slices of the work; it may raise."""
        if self._norms is None:
            self._norms = norms_of(self.matrix, check)

    def take(self, rows: np.ndarray | slice, check: Check = unchecked) -> VectorData:
        """Some of the rows, by their indexes or a slice; `check` as in `measure`."""
        self.measure(check)
        present = None if self.present is None else self.present[rows]
        if isinstance(rows, slice):
            return VectorData(self.matrix[rows], self.norms[rows], present)
        matrix = np.empty((len(rows), *self.matrix.shape[1:]), self.matrix.dtype)
        for some in vector_slices(matrix, check):
            np.take(self.matrix, rows[some], axis=0, out=matrix[some], mode="wrap")
        return VectorData(matrix, self.norms[rows], present)


def vector_slices(matrix: np.ndarray, check: Check) -> Iterator[slice]:
    """The slices of a matrix's rows, some milliseconds' work each; `check` before each."""
    return slices(len(matrix), max(1, (SLICE_BYTES >> 2) // max(1, matrix[:1].nbytes)), check)


StoredColumn = list[Any] | VectorData


def place_of(collection: str, column: Column, row: int | None) -> str:
    """Where a value stands, for messages."""
    tail = "" if row is None else f", row {row}"
    return f"column {column.name} of {collection}{tail}"


def shown(value: object) -> str:
    """A value for messages, cut to a readable length."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


# ------------------------------------------------------------------------- scalars


def _to_integer(value: Any) -> int:
    if isinstance(value, bool | np.bool_):
        return int(value)
    whole = isinstance(value, float | np.floating) and float(value).is_integer()
    if whole or isinstance(value, int | np.integer):
        number = int(value)
    elif isinstance(value, str):
        number = _integer_text(value)
    else:
        raise TypeError
    if not INT64_MIN <= number <= INT64_MAX:
        raise OverflowError("does not fit 64 bits")
    return number


def _integer_text(text: str) -> int:
    numeral = _numeral(text)
    if numeral.lstrip("+-").isdigit():
        return int(numeral)
    number = float(numeral)
    if not number.is_integer():
        raise ValueError
    return int(number)


_NUMERAL = re.compile(
    r"[ \t\n\v\f\r]*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)[ \t\n\v\f\r]*", re.ASCII
)


def _numeral(text: str) -> str:
    """The numeral that a text is; float() would take 'inf', 'nan' and '1_0' for one too."""
    found = _NUMERAL.fullmatch(text)
    if found is None:
        raise ValueError("no number")
    return found.group(1)


def _to_real(value: Any) -> float:
    if isinstance(value, str | int | float | np.number | np.bool_):
        number = float(_numeral(value) if isinstance(value, str) else value)
        if number != number:
            raise ValueError("is NaN")
        if isinstance(value, int) and int(number) != value:
            raise ValueError("REAL would round it")
        return number
    raise TypeError


def _to_text(value: Any) -> str:
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool | np.bool_):
        return str(int(value))
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        return _real_text(float(value))
    if type(value).__module__ in ("uuid", "decimal"):
        return str(value)
    raise TypeError


def _real_text(value: float) -> str:
    """A real as SQLite writes it, with 15 digits where they tell it whole, else with all (T1)."""
    if value in (float("inf"), float("-inf")):
        return "Inf" if value > 0 else "-Inf"
    text = f"{value + 0.0:.15g}"  # -0.0 is written as 0.0
    if float(text) != value:
        text = repr(value)
    mantissa, mark, exponent = text.partition("e")
    return text if "." in mantissa else f"{mantissa}.0{mark}{exponent}"


def _to_blob(value: Any) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise TypeError


def _to_boolean(value: Any) -> bool:
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, (int, np.integer)) and int(value) in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise TypeError


def _to_timestamp(value: Any) -> int:
    """Microseconds; a naive moment is UTC, a date its midnight, an int microseconds already."""
    if isinstance(value, np.datetime64):
        if np.isnat(value):
            raise ValueError("is NaT")
        return int(value.astype("datetime64[us]").astype(np.int64))
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        number = int(value)
        if not INT64_MIN <= number <= INT64_MAX:
            raise OverflowError("does not fit 64 bits")
        return number
    if isinstance(value, str):
        value = datetime.datetime.fromisoformat(value.strip())
    elif isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        value = datetime.datetime(value.year, value.month, value.day)
    if not isinstance(value, datetime.datetime):
        raise TypeError
    if value.tzinfo is None:
        value = value.replace(tzinfo=datetime.UTC)
    return int((value - EPOCH) // MICROSECOND)


def _to_json(value: Any) -> str:
    import json

    if isinstance(value, str):
        json.loads(value, parse_constant=refused_constant)  # SQLite too takes a text as JSON
        return value
    return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)


def refused_constant(name: str) -> Any:
    """What Python's json reads as a number and JSON does not know.

    Raises ValueError: NaN, Infinity and -Infinity.
    """
    raise ValueError(f"{name} is no JSON")


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, datetime.datetime | datetime.date):
        return value.isoformat()
    if type(value).__module__ in ("uuid", "decimal"):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "INTEGER": _to_integer,
    "REAL": _to_real,
    "TEXT": _to_text,
    "BLOB": _to_blob,
    "BOOLEAN": _to_boolean,
    "TIMESTAMP": _to_timestamp,
    "JSON": _to_json,
}
STORED_TYPES: dict[str, type] = {  # values of these types are stored as they are given
    "INTEGER": int,
    "REAL": float,
    "TEXT": str,
    "BLOB": bytes,
    "BOOLEAN": bool,
}


def store_scalar(column: Column, value: Any, collection: str, row: int | None = None) -> Any:
    """One value in stored form.

    Raises DataError (it does not fit) naming value, type and place.
    """
    if value is None:
        return None
    try:
        stored = CONVERTERS[column.type](value)
    except (TypeError, ValueError, OverflowError, RecursionError) as problem:
        detail = f": {problem}" if str(problem) and not isinstance(problem, TypeError) else ""
        raise DataError(
            f"{place_of(collection, column, row)}: cannot store {type(value).__name__} "
            f"{shown(value)} in a {column.type} column{detail}"
        ) from problem
    if isinstance(stored, str | bytes):
        _check_length(stored, column, collection, row)
    return stored


def _check_length(value: str | bytes, column: Column, collection: str, row: int | None) -> None:
    place = place_of(collection, column, row)
    try:
        size = len(value)
        if isinstance(value, str) and not value.isascii():
            size = len(value.encode())
    except UnicodeEncodeError as problem:
        raise DataError(f"{place}: text {shown(value)} is not valid Unicode: {problem}") from None
    if size > MAX_TEXT_BYTES:
        raise DataError(f"{place}: value of {size} bytes; the limit is {MAX_TEXT_BYTES} bytes")


def store_column(
    column: Column, values: Any, count: int, collection: str, check: Check = unchecked
) -> StoredColumn:
    """The values of one column for `count` rows in stored form.

    check  called between slices of many values; it may raise
    Raises DataError: a value does not fit, or the lengths differ.
    """
    if column.is_vector:
        return store_vectors(column, values, count, collection, check)
    if isinstance(values, np.ndarray):
        values = list(values if values.dtype.kind == "M" else listed(values, check))
    if len(values) != count:
        raise DataError(
            f"column {column.name} of {collection}: {len(values)} values for {count} rows"
        )
    if count <= STORED_AS_GIVEN:
        return _stored(column, values if type(values) is list else list(values), 0, collection)
    stored: list[Any] = []
    for some in slices(count, STORED_AS_GIVEN, check):
        stored += _stored(column, list(values[some]), some.start, collection)
    return stored


def _stored(column: Column, values: list[Any], first: int, collection: str) -> list[Any]:
    """Scalars in stored form; `first` is the number of the first row, for messages."""
    wanted = STORED_TYPES.get(column.type)
    kinds = set(map(type, values))
    if wanted is not None and kinds <= {wanted, type(None)}:
        present = values if kinds <= {wanted} else [each for each in values if each is not None]
        if _is_in_range(wanted, present):
            if wanted in (str, bytes):
                _check_lengths(present, (values, first), column, collection)
            return values
    return [store_scalar(column, value, collection, row) for row, value in enumerate(values, first)]


def _is_in_range(kind: type, present: list[Any]) -> bool:
    """Whether all of these fit, at C speed; where they may not, each is looked at by itself."""
    if kind is int and present:
        return bool(min(present) >= INT64_MIN and max(present) <= INT64_MAX)
    if kind is float:
        total = sum(present)  # a sum that is a number has no NaN among its terms
        return bool(total == total)
    return True


def _check_lengths(
    present: list[Any], rows: tuple[list[Any], int], column: Column, collection: str
) -> None:
    """Refuse what is too long or not Unicode, at C speed where all is well.

    present   the values that are not NULL
    rows      all values, and the number of the first one's row
    """
    if not present:
        return
    if max(map(len, present)) <= MAX_CHARACTERS_UNCHECKED:
        if column.type == "BLOB":
            return
        try:
            "".join(present).encode()
            return
        except UnicodeEncodeError:
            pass
    for row, value in enumerate(*rows):
        if value is not None:
            _check_length(value, column, collection, row)


def python_value(column: Column, value: Any) -> Any:
    """What a reader gets for a stored scalar: TIMESTAMP as an aware UTC datetime."""
    if column.type == "TIMESTAMP" and value is not None:
        return timestamp_value(value)
    return value


def timestamp_value(microseconds: int) -> datetime.datetime | int:
    """An aware UTC datetime; the number itself where it lies outside datetime's years."""
    try:
        return EPOCH + datetime.timedelta(microseconds=microseconds)
    except OverflowError:
        return microseconds


# ------------------------------------------------------------------------- vectors


def store_vectors(
    column: Column, values: Any, count: int, collection: str, check: Check = unchecked
) -> VectorData:
    """The vectors of `count` rows: a matrix, or a sequence of arrays, lists, bytes and None.

    check  called between slices of many vectors; it may raise
    Raises DataError: wrong dimension, ragged, NaN, infinity, overflow in f16, other than int8 in
    an i8 column, a zero vector under cosine.
    """
    if count == 1:
        single = _plain_vector(column, values)
        if single is not None:
            return VectorData(single)
    if isinstance(values, np.ndarray) and values.dtype != object:
        matrix, present = _matrix_of(column, values, count, collection), None
    else:
        matrix, present = _stack(column, values, count, collection, check)
    matrix = cast_matrix(column, matrix, collection, check)
    norms = norms_of(matrix, check)
    _check_finite(column, matrix, norms, collection)
    if column.metric == "cosine":
        _check_nonzero(column, norms, present, collection)
    return VectorData(matrix, norms, present)


def _plain_vector(column: Column, values: Any) -> np.ndarray | None:
    """One float32 vector of the right length and of moderate norm, which needs no more checks."""
    vector = values[0] if len(values) == 1 else None
    if (
        column.dtype != "f32"
        or type(vector) is not np.ndarray
        or vector.dtype != np.float32
        or vector.shape != (column.dimension,)
        or not 1e-20 < float(np.dot(vector, vector)) < 1e30
    ):
        return None
    return np.ascontiguousarray(vector[None, :])


def _matrix_of(column: Column, values: np.ndarray, count: int, collection: str) -> np.ndarray:
    where = f"column {column.name} of {collection}"
    if values.ndim == 1 and count == 1:
        values = values[None, :]
    if values.ndim != 2 or len(values) != count:
        raise DataError(
            f"{where}: an array of shape {values.shape} for {count} rows; expected "
            f"({count}, {column.dimension})"
        )
    if values.shape[1] != column.dimension:
        raise DataError(
            f"{where}: vectors have {values.shape[1]} dimensions, the column has {column.dimension}"
        )
    return values


def _stack(
    column: Column, values: Sequence[Any], count: int, collection: str, check: Check
) -> tuple[np.ndarray, np.ndarray | None]:
    if len(values) != count:
        raise DataError(
            f"column {column.name} of {collection}: {len(values)} vectors for {count} rows"
        )
    kind: type[np.number[Any]] = np.int8 if column.dtype == "i8" else np.float32
    if column.dtype == "f16" and all(
        isinstance(v, np.ndarray) and v.dtype == np.float16 for v in values if v is not None
    ):
        kind = np.float16
    matrix = np.zeros((count, column.dimension), kind)
    present = np.ones(count, bool)
    for row, value in enumerate(watched(values, check)):
        if value is None:
            present[row] = False
        else:
            matrix[row] = vector_of(column, value, place_of(collection, column, row))
    return matrix, None if present.all() else present


def vector_of(column: Column, value: Any, place: str) -> np.ndarray:
    """One vector as a one-dimensional array of the right length, not yet checked for NaN.

    Raises DataError: no array of numbers, or another dimension.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        width = 1 if column.dtype == "i8" else 4
        if len(value) != width * column.dimension:
            raise DataError(
                f"{place}: {len(value)} bytes; a vector of {column.dimension} dimensions has "
                f"{width * column.dimension} bytes (little-endian)"
            )
        return np.frombuffer(value, "|i1" if width == 1 else "<f4")
    try:
        array = np.asarray(value)
        if array.dtype == object and not any(each is None for each in array.flat):
            array = array.astype(np.float64)
        if array.dtype.kind not in "fiu":
            raise TypeError
    except (TypeError, ValueError, OverflowError) as problem:
        raise DataError(
            f"{place}: {type(value).__name__} {shown(value)} is not a vector of numbers"
        ) from problem
    if array.ndim != 1 or len(array) != column.dimension:
        found = f"{len(array)} dimensions" if array.ndim == 1 else f"shape {array.shape}"
        raise DataError(f"{place}: vector has {found}, the column has {column.dimension}")
    if column.dtype == "i8" and array.dtype != np.int8:
        array = _to_int8(array, place)
    elif array.dtype == np.float64 and _overflows_float32(array):
        raise DataError(f"{place}: {shown(value)} overflows float32")
    return array


def _overflows_float32(array: np.ndarray) -> bool:
    with np.errstate(over="ignore"):
        return bool((np.isinf(array.astype(np.float32)) & np.isfinite(array)).any())


def _to_int8(array: np.ndarray, place: str) -> np.ndarray:
    """Only a list of small integers may become int8; an array must be int8 already."""
    if array.dtype.kind not in "iu" or array.min() < -128 or array.max() > 127:
        raise DataError(f"{place}: an i8 column takes int8 values, not {array.dtype}")
    return array.astype(np.int8)


def cast_matrix(column: Column, matrix: np.ndarray, collection: str, check: Check) -> np.ndarray:
    """A C-contiguous matrix of the column's dtype; T2. `check` as in `store_vectors`."""
    where = f"column {column.name} of {collection}"
    wanted = np.dtype(VECTOR_DTYPES[column.dtype])
    if matrix.dtype == wanted and matrix.flags.c_contiguous:
        return matrix
    if matrix.dtype.kind not in "fiu":
        raise DataError(f"{where}: an array of {matrix.dtype} is not a matrix of numbers")
    if column.dtype == "i8" and matrix.dtype != wanted:
        raise DataError(f"{where}: an i8 column takes int8 values, not {matrix.dtype}")
    cast = np.empty(matrix.shape, wanted)
    for some in vector_slices(cast, check):
        own = matrix[some]
        with np.errstate(over="ignore", invalid="ignore"):
            cast[some] = own
        if matrix.dtype.kind != "f" or matrix.dtype == wanted:
            continue
        lost = np.isinf(cast[some]) & np.isfinite(own)
        if lost.any():
            row, at = (int(i) for i in np.argwhere(lost)[0])
            raise DataError(
                f"{where}, row {row + some.start}: {own[row, at]} at dimension {at} overflows "
                f"{column.dtype}"
            )
    return cast


def norms_of(matrix: np.ndarray, check: Check = unchecked) -> np.ndarray:
    """Euclidean norms, float32 (rows,), as the kernels' error bounds expect them.

    check  called between slices of many vectors; it may raise
    """
    found = [row_norms(matrix[some]) for some in vector_slices(matrix, check)]
    return found[0] if len(found) == 1 else np.concatenate([np.empty(0, np.float32), *found])


def _check_finite(column: Column, matrix: np.ndarray, norms: np.ndarray, collection: str) -> None:
    if matrix.dtype.kind != "f" or np.isfinite(norms).all():
        return
    for row in np.flatnonzero(~np.isfinite(norms)):
        bad = np.flatnonzero(~np.isfinite(matrix[row]))
        if len(bad):
            raise DataError(
                f"{place_of(collection, column, int(row))}: {matrix[row, bad[0]]} at dimension "
                f"{bad[0]}; vectors hold finite numbers only"
            )
        raise DataError(
            f"{place_of(collection, column, int(row))}: the vector's norm overflows float32"
        )


def _check_nonzero(
    column: Column, norms: np.ndarray, present: np.ndarray | None, collection: str
) -> None:
    if norms.max(initial=0.0) > LONGEST:
        row = int(np.argmax(norms))
        raise DataError(
            f"{place_of(collection, column, row)}: norm {norms[row]:g}; under cosine the limit "
            f"is {LONGEST:g}"
        )
    zero = norms < SHORTEST
    if present is not None:
        zero &= present
    if zero.any():
        row = int(np.flatnonzero(zero)[0])
        raise DataError(
            f"{place_of(collection, column, row)}: a zero vector (norm {norms[row]:g}) has no "
            "direction, so cosine cannot rank it; use METRIC l2 or ip, or NULL"
        )
