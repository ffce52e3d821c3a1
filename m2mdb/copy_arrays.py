"""Matrices as COPY reads and writes them: .npy and .fvecs, one VECTOR column.

    npy    NumPy's header, then the rows of the column's own dtype
    fvecs  for each row int32 dimension, then its numbers as float32; little-endian, no header

Neither can say NULL: a row without a vector is an error. A collection of several VECTOR columns
needs the option `column`; the other columns take their defaults when rows are read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np

from m2mdb.arrays import load_array
from m2mdb.index.schema import VECTOR_DTYPES
from m2mdb.pager.errors import DataError, ProgrammingError

if TYPE_CHECKING:
    from m2mdb.index.schema import CollectionSchema, Column
    from m2mdb.query.columnar import Column as Values

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
    if len(schema.vector_columns) != 1:
        raise ProgrammingError(
            f"{schema.name} has {len(schema.vector_columns)} VECTOR columns; "
            "name one: (column = 'embedding')"
        )
    return schema.columns[schema.vector_columns[0]]


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
        self.total: int | None = len(self._array)

    def batches(self, rows: int) -> Iterator[Batch]:
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

    def write(self, columns: list[Values]) -> None:
        """Add a batch."""
        self._file.write(np.ascontiguousarray(matrix_of(columns[0], self._column)).tobytes())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class FvecsReader:
    """Rows that each say their dimension."""

    def __init__(self, path: str, schema: CollectionSchema, options: Mapping[str, Any]) -> None:
        self._column = vector_column(schema, options)
        self._path = path
        self._file = binary(path, "rb")
        self._width = 4 * (self._column.dimension + 1)
        size = os.fstat(self._file.fileno()).st_size
        if size % self._width:
            self._file.close()
            raise DataError(
                f"{path}: {size} bytes are no whole rows of dimension {self._column.dimension}"
            )
        self.total: int | None = size // self._width

    def batches(self, rows: int) -> Iterator[Batch]:
        """See `query.copying.FileReader`."""
        dimension, first = self._column.dimension, 0
        while raw := self._file.read(rows * self._width):
            numbers = np.frombuffer(raw, "<i4").reshape(-1, dimension + 1)
            wrong = np.flatnonzero(numbers[:, 0] != dimension)
            if len(wrong):
                raise DataError(
                    f"{self._path}, row {first + int(wrong[0]) + 1}: dimension "
                    f"{numbers[wrong[0], 0]}, expected {dimension}"
                )
            yield {self._column.name: numbers[:, 1:].view("<f4").copy()}, len(numbers)
            first += len(numbers)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class FvecsWriter:
    """Rows that each say their dimension."""

    def __init__(
        self, path: str, schema: CollectionSchema, options: Mapping[str, Any], rows: int
    ) -> None:
        self._column = vector_column(schema, options)
        self.columns = [self._column.name]
        self._file = binary(path, "wb")

    def write(self, columns: list[Values]) -> None:
        """Add a batch."""
        matrix = matrix_of(columns[0], self._column)
        rows = np.empty((len(matrix), matrix.shape[1] + 1), "<i4")
        rows[:, 0] = matrix.shape[1]
        rows[:, 1:] = matrix.astype("<f4").view("<i4")
        self._file.write(rows.tobytes())

    def close(self) -> None:
        """Close the file."""
        self._file.close()
