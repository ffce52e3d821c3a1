"""Parquet, as COPY reads and writes it, with pyarrow (`pip install 'm2mdb[arrow]'`).

Types are those of `m2mdb.arrow`; a batch is a row group. JSON is a string column.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from m2mdb.arrow import extra, table
from m2mdb.columns import arrow_values
from m2mdb.copy_arrays import binary
from m2mdb.index.schema import VECTOR_DTYPES
from m2mdb.pager.errors import DataError
from m2mdb.query.columnar import Column, Values, Vectors

if TYPE_CHECKING:
    from m2mdb.index.schema import CollectionSchema
    from m2mdb.index.schema import Column as Definition
    from m2mdb.index.slices import Check

WHAT = "COPY of a Parquet file"


class ParquetReader:
    """The rows of a Parquet file."""

    def __init__(self, path: str, schema: CollectionSchema, options: Mapping[str, Any]) -> None:
        self._arrow = extra("pyarrow", "arrow", WHAT)
        parquet = extra("pyarrow.parquet", "arrow", WHAT)
        self._path = path
        self._bytes = binary(path, "rb")
        try:
            self._file = parquet.ParquetFile(self._bytes)
        except self._arrow.ArrowException as error:
            self._bytes.close()
            raise DataError(f"{path}: is no Parquet file: {error}") from error
        self.lines: list[int] = []
        self.total: int | None = self._file.metadata.num_rows

    def batches(self, rows: int, check: Check) -> Iterator[tuple[Mapping[str, Any], int]]:
        """See `query.copying.FileReader`."""
        try:
            for batch in self._file.iter_batches(rows):
                names = batch.schema.names
                columns = [arrow_values(column, self._arrow) for column in batch.columns]
                yield dict(zip(names, columns, strict=True)), batch.num_rows
        except self._arrow.ArrowException as error:
            raise DataError(f"{self._path}: is damaged: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._bytes.close()


class ParquetWriter:
    """A Parquet file of all columns."""

    def __init__(
        self, path: str, schema: CollectionSchema, options: Mapping[str, Any], rows: int
    ) -> None:
        self._parquet = extra("pyarrow.parquet", "arrow", WHAT)
        self._definitions = [schema.columns[index] for index in schema.shown_columns]
        self.columns = [column.name for column in self._definitions]
        self._path = path
        self._writer: Any = None

    def write(self, columns: list[Column], check: Check) -> None:
        """Add a batch."""
        pairs = zip(columns, self._definitions, strict=True)
        found = table(self.columns, [typed_column(each, definition) for each, definition in pairs])
        if self._writer is None:
            self._writer = self._parquet.ParquetWriter(self._path, found.schema)
        self._writer.write_table(found)

    def close(self) -> None:
        """Finish the file; one without rows has the columns all the same."""
        if self._writer is None:
            none = [Values([], definition.type) for definition in self._definitions]
            pairs = zip(none, self._definitions, strict=True)
            found = table(self.columns, [typed_column(each, column) for each, column in pairs])
            self._writer = self._parquet.ParquetWriter(self._path, found.schema)
        self._writer.close()


def typed_column(column: Column, definition: Definition) -> Column:
    """A batch of a column in the type of all batches: one without a vector has a matrix too."""
    if not definition.is_vector or isinstance(column, Vectors):
        return column
    found = column.values()
    matrix = np.zeros((len(found), definition.dimension), VECTOR_DTYPES[definition.dtype])
    present = np.array([value is not None for value in found], bool)
    for row in np.flatnonzero(present):
        matrix[row] = found[row]
    return Vectors(matrix, None if present.all() else present)
