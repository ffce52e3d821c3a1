"""Columns that a segment was written without: added later, and not written anew for it.

ALTER … ADD COLUMN changes the schema alone. The column notes the first segment that has it
(`Column.since`); in older ones every row has the column's default, or NULL. Here such a segment
answers as if it had the parts: arrays that repeat one value take no memory of their own.

    column      in place of its parts
    numbers     one value for all rows, or `nulls` of ones
    texts       offsets that ascend evenly, the default's bytes once a row
    vectors     `nulls` of ones, zeros behind them: a vector column has no default

Inverted lists of a FULLTEXT column are written when it is added, as those of any index that comes
later (`index.ddl`). The next merge or rewrite of a segment writes its columns whole.

Invariants
    AB1 A part of an absent column is what `column_parts` would have made of the default.
    AB2 A segment written by or after the statement that adds a column has its parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from m2mdb.index.schema import VECTOR_DTYPES, CollectionSchema, Column
from m2mdb.index.segment import SCALAR_PARTS, Segment, SegmentRecord
from m2mdb.index.values import store_scalar

if TYPE_CHECKING:
    from m2mdb.pager.extent import Extent

_CHUNK_ROWS = 1024  # of zero vectors that are handed out at once


def absent_columns(schema: CollectionSchema, segment: int) -> tuple[Column, ...]:
    """The columns that a segment was written without."""
    return tuple(column for column in schema.columns if column.since > segment)


def opened(record: SegmentRecord, extents: list[Extent], where: str,
           schema: CollectionSchema) -> Segment:  # fmt: skip
    """A segment, with the columns that it was written without."""
    columns = absent_columns(schema, record.id)
    return AlteredSegment(record, extents, where, columns) if columns else Segment(
        record, extents, where
    )  # fmt: skip


def still_fits(segment: Segment, schema: CollectionSchema) -> bool:
    """Whether a segment that was opened under another schema answers for this one."""
    wanted = absent_columns(schema, segment.id)
    known = segment.absent if isinstance(segment, AlteredSegment) else ()
    if not wanted and not known:
        return True
    return [column.encode() for column in wanted] == [column.encode() for column in known]


class AlteredSegment(Segment):
    """A segment that some columns were added behind."""

    __slots__ = ("_by_id", "_defaults", "absent")

    def __init__(
        self, record: SegmentRecord, extents: list[Extent], where: str, columns: Sequence[Column]
    ) -> None:
        super().__init__(record, extents, where)
        self.absent = tuple(columns)
        self._by_id = {column.id: column for column in columns}
        self._defaults = {
            column.id: None if column.is_vector else store_scalar(column, column.default, where)
            for column in columns
        }

    def has(self, name: str, column: int) -> bool:
        """Whether there is such a part, or would be."""
        if super().has(name, column):
            return True
        absent = self._by_id.get(column)
        return absent is not None and name in self._names_of(absent)

    def _names_of(self, column: Column) -> tuple[str, ...]:
        """The parts that the column would have (AB1)."""
        names: tuple[str, ...]
        if column.is_vector:
            return ("nulls", "norms", "vectors")
        names = (SCALAR_PARTS[column.type][0],) if column.type in SCALAR_PARTS else (
            "offsets", "blob")  # fmt: skip
        return names if self._defaults[column.id] is not None else ("nulls", *names)

    def array(self, name: str, column: int) -> np.ndarray:
        """A part as a read-only array."""
        absent = self._by_id.get(column)
        if absent is None or super().has(name, column) or name not in self._names_of(absent):
            return super().array(name, column)
        found = self._arrays.get((name, column))
        if found is None:
            found = self._arrays[name, column] = self._made(name, absent)
        return found

    def size_of(self, name: str, column: int) -> int:
        """Bytes of a part."""
        if super().has(name, column):
            return super().size_of(name, column)
        return int(self.array(name, column).nbytes)

    def _made(self, name: str, column: Column) -> np.ndarray:
        """A part of an absent column."""
        rows, value = self.rows, self._defaults[column.id]
        if name == "nulls":
            return np.broadcast_to(np.uint8(1), rows)
        if name == "norms":
            return np.broadcast_to(np.float32(0), rows)
        if name == "vectors":
            zero = np.zeros((), VECTOR_DTYPES[column.dtype])
            return np.broadcast_to(zero, rows * column.dimension)
        if name in ("offsets", "blob"):
            raw = _bytes_of(value)
            if name == "blob":
                return np.frombuffer(raw * rows, np.uint8)
            wide = "<u4" if len(raw) * rows < 1 << 32 else "<u8"
            offsets = (np.arange(rows + 1, dtype=np.uint64) * np.uint64(len(raw))).astype(wide)
            offsets.flags.writeable = False
            return offsets
        dtype = np.dtype(SCALAR_PARTS[column.type][1])
        return np.broadcast_to(np.array(0 if value is None else value, dtype), rows)

    def value(self, column: Column, ordinal: int) -> Any:
        """One stored value."""
        if column.id in self._by_id:
            return self._defaults[column.id]
        return super().value(column, ordinal)

    def few_values(self, column: Column, ordinals: Sequence[int]) -> list[Any]:
        """The stored values of a few rows."""
        if column.id in self._by_id:
            return [self._defaults[column.id]] * len(ordinals)
        return super().few_values(column, ordinals)

    def values(self, column: Column, check: Callable[[], None] | None = None) -> list[Any]:
        """All stored values of a scalar column."""
        if column.id in self._by_id:
            return [self._defaults[column.id]] * self.rows
        return super().values(column, check)

    def vector_rows(self, column: Column, ordinals: np.ndarray) -> np.ndarray:
        """Copies of some vectors: zeros."""
        if column.id not in self._by_id:
            return super().vector_rows(column, ordinals)
        return np.zeros((len(ordinals), column.dimension), VECTOR_DTYPES[column.dtype])

    def matrix(self, column: Column) -> np.ndarray:
        """All vectors of a column, (rows, dimension), read-only."""
        if column.id not in self._by_id:
            return super().matrix(column)
        zero = np.zeros((1, column.dimension), VECTOR_DTYPES[column.dtype])
        return np.broadcast_to(zero, (self.rows, column.dimension))

    def is_verified(self, column: Column) -> bool:
        """There is nothing to verify."""
        return column.id in self._by_id or super().is_verified(column)

    def mapped_vectors(self, column: Column) -> tuple[np.ndarray, np.ndarray, int] | None:
        """No map has an absent column."""
        return None if column.id in self._by_id else super().mapped_vectors(column)

    def matrix_chunks(self, column: Column) -> Iterator[tuple[int, np.ndarray]]:
        """(first ordinal, rows) of all vectors."""
        if column.id not in self._by_id:
            yield from super().matrix_chunks(column)
            return
        for start in range(0, self.rows, _CHUNK_ROWS):
            count = min(_CHUNK_ROWS, self.rows - start)
            yield start, np.zeros((count, column.dimension), VECTOR_DTYPES[column.dtype])


def _bytes_of(value: Any) -> bytes:
    if value is None:
        return b""
    return value.encode() if isinstance(value, str) else bytes(value)
