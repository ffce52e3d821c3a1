"""Columnar results: the columns of a large result as arrays, copied from the parts they stand in.

A result of many rows is kept so until somebody wants rows: an Arrow table, a data frame and NumPy
arrays are made from it without a Python object for a value. The copy is taken at the statement's
snapshot, so it outlives it; nothing of it points into the file.

    Numbers   values, NULL mask       INTEGER REAL BOOLEAN (u8) TIMESTAMP (int64 microseconds)
    Texts     offsets, bytes, mask    TEXT JSON BLOB
    Vectors   matrix, mask            VECTOR
    Values    a list                  all others: what is computed, system tables

Invariants
    CO1 `values()` gives the very list that the rows of the result would have been made of.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from m2mdb.index.collection import SegmentPart
from m2mdb.index.parts import check_offsets
from m2mdb.index.segment import SCALAR_PARTS
from m2mdb.index.slices import (
    SLICE_VALUES,
    Check,
    joined,
    listed,
    mapped,
    picked,
    rows_of,
    slices,
    taken,
    unchecked,
)
from m2mdb.index.values import timestamp_value, vector_slices
from m2mdb.index.verifying import verify_parts
from m2mdb.pager.errors import CorruptDatabaseError
from m2mdb.query.affinity import Value
from m2mdb.query.result import Result, base_types
from m2mdb.query.scope import ROWID

if TYPE_CHECKING:
    from m2mdb.query.selection import Selection

COPIED_BYTES = 1 << 23  # that one step copies: some milliseconds
COLUMNAR_ROWS = 4096  # results of fewer rows are rows at once
WHOLE_SHARE = 4  # the bytes of a column are copied where a quarter of its rows are wanted
GATHERED_BYTES = 1 << 19  # of texts that one step puts in another order: some milliseconds
_BYTES = ("TEXT", "JSON", "BLOB")


class Numbers:
    """The values of a numeric column."""

    __slots__ = ("array", "nulls", "type")

    def __init__(self, array: np.ndarray, nulls: np.ndarray | None, type: str) -> None:
        self.array = array
        self.nulls = nulls
        self.type = type

    def __len__(self) -> int:
        return len(self.array)

    def taken(self, order: np.ndarray, check: Check = unchecked) -> Numbers:
        """Some of the values, in an order."""
        nulls = None if self.nulls is None else taken(self.nulls, order, check)
        return Numbers(taken(self.array, order, check), nulls, self.type)

    def values(self, check: Check = unchecked) -> list[Value]:
        """Python values."""
        array = self.array.astype(bool) if self.type == "BOOLEAN" else self.array
        found = listed(array, check)
        if self.type == "TIMESTAMP":
            found = mapped(found, timestamp_value, check)
        return _with_nulls(found, self.nulls)


class Texts:
    """The values of a column of texts or blobs.

    offsets   int64 (rows + 1)
    blob      uint8, all values one after the other
    """

    __slots__ = ("blob", "nulls", "offsets", "type")

    def __init__(
        self, offsets: np.ndarray, blob: np.ndarray, nulls: np.ndarray | None, type: str
    ) -> None:
        self.offsets = offsets
        self.blob = blob
        self.nulls = nulls
        self.type = type

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def taken(self, order: np.ndarray, check: Check = unchecked) -> Texts:
        """Some of the values, in an order."""
        starts = taken(self.offsets, order, check)
        lengths = taken(np.diff(self.offsets), order, check)
        offsets = np.zeros(len(order) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        blob = np.empty(int(offsets[-1]), np.uint8)
        first = 0
        while first < len(order):
            check()
            limit = int(offsets[first]) + GATHERED_BYTES
            last = max(int(np.searchsorted(offsets, limit, "right")) - 1, first + 1)
            at, end = int(offsets[first]), int(offsets[last])
            shifts = np.repeat(starts[first:last] - offsets[first:last], lengths[first:last])
            blob[at:end] = self.blob[np.arange(at, end) + shifts]
            first = last
        nulls = None if self.nulls is None else taken(self.nulls, order, check)
        return Texts(offsets, blob, nulls, self.type)

    def values(self, check: Check = unchecked) -> list[Value]:
        """Python values."""
        found: list[Value] = []
        is_text = self.type != "BLOB"
        for some in slices(len(self), SLICE_VALUES, check):
            bounds = self.offsets[some.start : some.stop + 1]
            raw = self.blob[int(bounds[0]) : int(bounds[-1])].tobytes()
            pairs = itertools.pairwise((bounds - bounds[0]).tolist())
            whole: Any = raw.decode() if is_text and raw.isascii() else raw
            if is_text and whole is raw:
                found += [raw[start:stop].decode() for start, stop in pairs]
            else:
                found += [whole[start:stop] for start, stop in pairs]
        return _with_nulls(found, self.nulls)


class Vectors:
    """The values of a VECTOR column: (rows, dimension), zero where a row has none."""

    __slots__ = ("matrix", "present", "type")

    def __init__(self, matrix: np.ndarray, present: np.ndarray | None) -> None:
        self.matrix = matrix
        self.matrix.flags.writeable = False
        self.present = present
        self.type = "VECTOR"

    def __len__(self) -> int:
        return len(self.matrix)

    def taken(self, order: np.ndarray, check: Check = unchecked) -> Vectors:
        """Some of the vectors, in an order."""
        matrix = np.empty((len(order), *self.matrix.shape[1:]), self.matrix.dtype)
        for some in slices(len(order), max(1, COPIED_BYTES // max(1, matrix[:1].nbytes)), check):
            matrix[some] = self.matrix[order[some]]
        return Vectors(matrix, None if self.present is None else self.present[order])

    def values(self, check: Check = unchecked) -> list[Value]:
        """Read-only arrays."""
        rows: list[Value] = []
        for some in slices(len(self), SLICE_VALUES, check):
            rows.extend(self.matrix[some])
        absent = None if self.present is None else ~self.present
        return _with_nulls(rows, absent)


class Values:
    """The values of any column.

    is_own  nobody else has the list: who is done with the column may empty it
    """

    __slots__ = ("_list", "is_own", "type")

    def __init__(self, values: list[Value], type: str | None, *, is_own: bool = False) -> None:
        self._list = values
        self.is_own = is_own
        self.type = type

    def __len__(self) -> int:
        return len(self._list)

    def taken(self, order: np.ndarray, check: Check = unchecked) -> Values:
        """Some of the values, in an order."""
        return Values(picked(self._list, order, check), self.type)

    def values(self, check: Check = unchecked) -> list[Value]:
        """The list itself."""
        return self._list


Column = Numbers | Texts | Vectors | Values


class ColumnPart:
    """Rows that stand in columns, read as a part of a collection is (`index.collection`)."""

    __slots__ = ("_columns", "_lists", "live", "rowids", "size")

    def __init__(self, columns: Sequence[Column], size: int) -> None:
        self._columns = columns
        self._lists: dict[int, list[Value]] = {}
        self.size = size
        self.rowids = np.arange(1, size + 1, dtype=np.int64)
        self.live: np.ndarray | None = None

    def column(self, column_index: int) -> Column:
        """A whole column."""
        return self._columns[column_index]

    def values(self, column_index: int, ordinals: np.ndarray | None = None) -> list[Value]:
        """The values of some or all rows; the list may be shared."""
        found = self._lists.get(column_index)
        if found is None:
            found = self._lists[column_index] = self._columns[column_index].values()
        return found if ordinals is None else [found[row] for row in ordinals.tolist()]

    def numbers(self, column_index: int) -> tuple[np.ndarray, np.ndarray | None] | None:
        """Values and NULL mask of a column of numbers."""
        column = self._columns[column_index]
        return (column.array, column.nulls) if isinstance(column, Numbers) else None


def input_of(column: Column, check: Check) -> Any:
    """A column as it is inserted: an array or a matrix where there is no NULL, else a list.

    check  called between slices of the work; it may raise
    """
    if isinstance(column, Numbers) and column.nulls is None and column.type in ("INTEGER", "REAL"):
        return column.array
    if isinstance(column, Vectors) and column.present is None:
        return column.matrix
    return column.values(check)


class ColumnarResult(Result):
    """A result whose rows are made of its columns when they are first asked for."""

    __slots__ = ("_data", "_made")

    def __init__(
        self, columns: list[str], data: Sequence[Column], types: list[str | None] | None
    ) -> None:
        self._data: Sequence[Column] | None = data
        self._made: list[tuple[Any, ...]] | None = None
        self.columns = columns
        self.rowcount = -1
        self.lastrowid = None
        self.types = base_types(types)

    @property
    def data(self) -> Sequence[Column] | None:
        """The columns, until the rows are made."""
        return self._data

    @property
    def rows(self) -> list[tuple[Any, ...]]:
        """The rows; once they are made, the columns are gone."""
        return self.made()

    @rows.setter
    def rows(self, rows: list[tuple[Any, ...]]) -> None:
        self._made = rows
        self._data = None

    def made(self, check: Check = unchecked) -> list[tuple[Any, ...]]:
        """The rows; `check` is called between slices of the work, and may raise."""
        made = self._made
        if made is None:
            assert self._data is not None
            made = rows_of([column.values(check) for column in self._data], check)
            self.rows = made
        return made

    def __len__(self) -> int:
        return len(self.rows) if self._data is None else len(self._data[0])


def column_of(selection: Selection, source: int) -> Column:
    """The values of a column, or of ROWID, for the rows of a selection, in its order."""
    if source == ROWID:
        return Numbers(selection.rowids.copy(), None, "INTEGER")
    view, chosen, order = selection.origin()
    definition = view.schema.columns[source]
    check: Check = view.check
    pieces: list[Column] = [
        _piece(part, (source, definition), rows, check)
        for part, rows in zip(view.parts(), chosen, strict=True)
        if len(rows)
    ]
    column = pieces[0] if len(pieces) == 1 else _joined(pieces, definition.type, check)
    return column if order is None else column.taken(order, check)


def _piece(part: Any, wanted: tuple[int, Any], rows: np.ndarray, check: Check) -> Column:
    """The values of some rows of one part."""
    source, definition = wanted
    type: str | None = definition.type
    is_whole = len(rows) == part.size
    if isinstance(part, ColumnPart):
        column = part.column(source)
        return column if is_whole else column.taken(rows, check)
    if type == "VECTOR" and hasattr(part, "vectors"):
        present = part.present(source)
        matrix = part.vectors(source, rows[:1])
        matrix = np.empty((len(rows), *matrix.shape[1:]), matrix.dtype)
        for some in vector_slices(matrix, check):
            matrix[some] = part.vectors(source, rows[some])
        return Vectors(matrix, None if present is None else present[rows])
    numbers = part.numbers(source) if type in SCALAR_PARTS else None
    if numbers is not None:
        assert type is not None
        array, nulls = numbers
        if is_whole:
            return Numbers(array.copy(), None if nulls is None else nulls.copy(), type)
        return Numbers(array[rows], None if nulls is None else nulls[rows], type)
    if type in _BYTES and isinstance(part, SegmentPart) and len(rows) * WHOLE_SHARE >= part.size:
        assert type is not None
        texts = _stored_texts(part, definition)
        return texts if is_whole else texts.taken(rows, check)
    return Values(part.values(source, None if is_whole else rows), type)


def _stored_texts(part: SegmentPart, definition: Any) -> Texts:
    """All texts or blobs of a segment, as they are stored."""
    segment = part.segment
    verify_parts(segment, definition.id, part.check)
    offsets = segment.array("offsets", definition.id)
    blob = segment.array("blob", definition.id)
    where = f"segment {segment.id}: offsets of {definition.name}"
    if len(offsets) != segment.rows + 1 or int(offsets[-1]) != len(blob) or offsets[0] != 0:
        raise CorruptDatabaseError(f"{where} do not match its bytes")
    check_offsets(offsets, where)
    nulls = segment.nulls(definition)
    mask = None if nulls is None else nulls.astype(bool)
    copied = joined([blob], part.check)
    return Texts(offsets.astype(np.int64), copied, mask, definition.type)


def _joined(pieces: Sequence[Column], type: str | None, check: Check) -> Column:
    """The pieces of one column as one; of a kind where they are all of it, or can be."""
    if not pieces:
        return Values([], type)
    if type in _BYTES and any(isinstance(each, Texts) for each in pieces):
        assert type is not None
        pieces = [
            each if isinstance(each, Texts) else texts_of(each.values(check), type)
            for each in pieces
        ]
    if all(isinstance(each, Numbers) for each in pieces):
        arrays = [each.array for each in pieces if isinstance(each, Numbers)]
        nulls = _joined_masks([each.nulls for each in pieces if isinstance(each, Numbers)], pieces)
        assert type is not None
        return Numbers(np.concatenate(arrays), nulls, type)
    if all(isinstance(each, Vectors) for each in pieces):
        there = [each for each in pieces if isinstance(each, Vectors)]
        absent = [None if each.present is None else ~each.present for each in there]
        mask = _joined_masks(absent, pieces)
        matrix = np.concatenate([each.matrix for each in there])
        return Vectors(matrix, None if mask is None else ~mask)
    if all(isinstance(each, Texts) for each in pieces):
        texts = [each for each in pieces if isinstance(each, Texts)]
        starts = np.cumsum([0, *[int(each.offsets[-1]) for each in texts]])
        offsets = [each.offsets[1:] + start for each, start in zip(texts, starts, strict=False)]
        blob = np.concatenate([each.blob for each in texts])
        mask = _joined_masks([each.nulls for each in texts], pieces)
        assert type is not None
        return Texts(np.concatenate([np.zeros(1, np.int64), *offsets]), blob, mask, type)
    return Values([value for each in pieces for value in each.values(check)], type)


def _joined_masks(
    masks: Sequence[np.ndarray | None], pieces: Sequence[Column]
) -> np.ndarray | None:
    if all(mask is None for mask in masks):
        return None
    return np.concatenate(
        [
            np.zeros(len(piece), bool) if mask is None else mask
            for mask, piece in zip(masks, pieces, strict=True)
        ]
    )


def texts_of(values: Sequence[Value], type: str) -> Texts:
    """A column of texts or blobs from a list."""
    nulls = None
    if None in values:
        nulls = np.fromiter((value is None for value in values), bool, len(values))
    raws = [value.encode() if isinstance(value, str) else value or b"" for value in values]
    offsets = np.zeros(len(raws) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, raws), np.int64, len(raws)), out=offsets[1:])
    return Texts(offsets, np.frombuffer(b"".join(raws), np.uint8), nulls, type)


def _with_nulls(values: list[Value], nulls: np.ndarray | None) -> list[Value]:
    if nulls is not None:
        for place in np.flatnonzero(nulls).tolist():
            values[place] = None
    return values
