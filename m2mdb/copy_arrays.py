"""Matrices as COPY reads and writes them: .npy, .fvecs, .ivecs and .bvecs, one VECTOR column.

    npy    NumPy's header, then the rows of the column's own dtype
    fvecs  for each row int32 dimension, then its numbers as float32; little-endian, no header
    ivecs  the same with int32 numbers
    bvecs  the same with uint8 numbers

None can say NULL: a row without a vector is an error, and so are numbers that the file's or the
column's dtype cannot hold. A collection of several VECTOR columns needs the option `column`; the
other columns take their defaults when rows are read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np

from m2mdb.arrays import load_array
from m2mdb.index.schema import VECTOR_DTYPES
from m2mdb.pager.errors import DataError, ProgrammingError

if TYPE_CHECKING:
    from m2mdb.index.schema import CollectionSchema, Column
    from m2mdb.index.slices import Check
    from m2mdb.query.columnar import Column as Values

EXACT_MAX = 2.0**53  # float64 tells integers up to this from their neighbours
Batch = tuple[Mapping[str, Any], int]


def vector_column(schema: CollectionSchema, options: Mapping[str, Any]) -> Column:
    """The VECTOR column that a matrix is of.

    Raises ProgrammingError: there is none, or none is named among several.
    """
    if "column" in options:
        column = schema.columns[schema.column(str(options["column"]))]
        if not column.is_vector:
            raise ProgrammingError(f"COPY: {column.name} is {column.type}, not VECTOR")
        return column
    if len(schema.near_columns) != 1:
        raise ProgrammingError(
            f"{schema.name} has {len(schema.near_columns)} VECTOR columns; "
            "name one: (column = 'embedding')"
        )
    return schema.columns[schema.near_columns[0]]


def matrix_of(values: Values, column: Column) -> np.ndarray:
    """The vectors of a batch; DataError where a row has none."""
    found = values.values()
    missing = next((row for row, value in enumerate(found) if value is None), None)
    if missing is not None:
        raise DataError(f"{column.name} is NULL in a row, which this format cannot say")
    matrix = getattr(values, "matrix", None)
    return np.stack(found) if matrix is None else matrix


def binary(path: str, mode: Literal["rb", "wb"]) -> IO[bytes]:
    """A file of bytes, to be closed by whoever has it."""
    return Path(path).open(mode)


class NpyReader:
    """The rows of a matrix, mapped, not read."""

    def __init__(self, path: str, schema: CollectionSchema, options: Mapping[str, Any]) -> None:
        self._column = vector_column(schema, options)
        self._array = load_array(path, path, "r")
        if self._array.ndim != 2 or self._array.shape[1] != self._column.dimension:
            raise DataError(
                f"{path}: shape {self._array.shape}, expected (rows, {self._column.dimension})"
            )
        self.lines: list[int] = []
        self.total: int | None = len(self._array)

    def batches(self, rows: int, check: Check) -> Iterator[Batch]:
        """See `query.copying.FileReader`."""
        for start in range(0, len(self._array), rows):
            some = np.array(self._array[start : start + rows])
            yield {self._column.name: some}, len(some)

    def close(self) -> None:
        """Let the map go."""
        del self._array


class NpyWriter:
    """A matrix, row by row."""

    def __init__(
        self, path: str, schema: CollectionSchema, options: Mapping[str, Any], rows: int
    ) -> None:
        self._column = column = vector_column(schema, options)
        self.columns = [column.name]
        dtype = np.dtype(VECTOR_DTYPES[column.dtype])
        self._file = binary(path, "wb")
        header = {
            "descr": np.lib.format.dtype_to_descr(dtype),
            "fortran_order": False,
            "shape": (rows, column.dimension),
        }
        np.lib.format.write_array_header_1_0(self._file, header)

    def write(self, columns: list[Values], check: Check) -> None:
        """Add a batch."""
        self._file.write(np.ascontiguousarray(matrix_of(columns[0], self._column)).tobytes())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def whole_numbers(
    matrix: np.ndarray, dtype: np.dtype[Any], place: Callable[[int], str]
) -> np.ndarray:
    """Numbers as integers of a dtype; DataError where one is not whole or beyond them.

    place   what an error calls a row, by its index
    """
    limits = np.iinfo(dtype)
    exact = matrix.astype(np.float64)  # which holds the limits of int32, as float32 does not
    fits = (exact >= limits.min) & (exact <= limits.max) & (exact == np.trunc(exact))
    wrong = np.argwhere(~fits)
    if len(wrong):
        row, at = wrong[0]
        raise DataError(
            f"{place(int(row))}: {matrix[row, at]} is no whole number of "
            f"{limits.min} to {limits.max}"
        )
    return matrix.astype(dtype)


def as_stored(matrix: np.ndarray, column: Column, place: Callable[[int], str]) -> np.ndarray:
    """Numbers of a file as the column takes them.

    An i8 column takes whole numbers alone, and no float32 is an integer that it cannot hold.
    """
    if column.dtype == "i8" and matrix.dtype != np.int8:
        return whole_numbers(matrix, np.dtype(np.int8), place)
    if column.dtype != "i8" and matrix.dtype.kind in "iu":
        with np.errstate(over="ignore"):  # what f16 cannot hold is told below
            kept = matrix.astype(VECTOR_DTYPES[column.dtype])
        exact = matrix.astype(np.float64)
        wrong = np.argwhere((kept.astype(np.float64) != exact) | (np.abs(exact) > EXACT_MAX))
        if len(wrong):
            row, at = wrong[0]
            raise DataError(f"{place(int(row))}: {matrix[row, at]} is no {column.dtype} number")
        return kept
    return matrix


def vecs_row(number: str, dimension: int) -> np.dtype[Any]:
    """A row of a .fvecs, .ivecs or .bvecs file, by its numbers' dtype."""
    return np.dtype([("dimension", "<i4"), ("numbers", number, (dimension,))])


class VecsReader:
    """Rows that each say their dimension."""

    def __init__(
        self, number: str, path: str, schema: CollectionSchema, options: Mapping[str, Any]
    ) -> None:
        self._column = vector_column(schema, options)
        self._path = path
        self._row = vecs_row(number, self._column.dimension)
        self._file = binary(path, "rb")
        size = os.fstat(self._file.fileno()).st_size
        if size % self._row.itemsize:
            self._file.close()
            raise DataError(
                f"{path}: {size} bytes are no whole rows of dimension {self._column.dimension}"
            )
        self.lines: list[int] = []
        self.total: int | None = size // self._row.itemsize

    def batches(self, rows: int, check: Check) -> Iterator[Batch]:
        """See `query.copying.FileReader`."""
        dimension, first = self._column.dimension, 0
        while raw := self._file.read(rows * self._row.itemsize):
            if len(raw) % self._row.itemsize:
                raise DataError(f"{self._path}: ends within a row; it was cut while it was read")
            found = np.frombuffer(raw, self._row)
            place = partial(self._place, first)
            wrong = np.flatnonzero(found["dimension"] != dimension)
            if len(wrong):
                row = int(wrong[0])
                raise DataError(
                    f"{place(row)}: dimension {found['dimension'][row]}, expected {dimension}"
                )
            yield {self._column.name: as_stored(found["numbers"], self._column, place)}, len(found)
            first += len(found)

    def _place(self, first: int, row: int) -> str:
        return f"{self._path}, row {first + row + 1}"

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class VecsWriter:
    """Rows that each say their dimension."""

    def __init__(
        self,
        number: str,
        path: str,
        schema: CollectionSchema,
        options: Mapping[str, Any],
        rows: int,
    ) -> None:
        self._column = vector_column(schema, options)
        self.columns = [self._column.name]
        self._row = vecs_row(number, self._column.dimension)
        self._number = np.dtype(number)
        self._written = 0
        self._file = binary(path, "wb")

    def write(self, columns: list[Values], check: Check) -> None:
        """Add a batch."""
        matrix = matrix_of(columns[0], self._column)
        if self._number.kind != "f":
            matrix = whole_numbers(matrix, self._number, self._place)
        rows = np.empty(len(matrix), self._row)
        rows["dimension"] = self._column.dimension
        rows["numbers"] = matrix
        self._file.write(rows.tobytes())
        self._written += len(matrix)

    def _place(self, row: int) -> str:
        return f"{self._column.name}, row {self._written + row + 1}"

    def close(self) -> None:
        """Close the file."""
        self._file.close()
