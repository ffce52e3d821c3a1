"""Zone maps: the least and greatest value and the NULLs of each block of a numeric column.

    zones    column c   i64, three a block of ZONE_ROWS rows: least, greatest, how many are NULL

A scan asks the map first and compares only the blocks in which its condition may hold. REAL bounds
are the bits of a float64, TIMESTAMP's are microseconds, BOOLEAN's 0 and 1. The map is made of the
same values as the column, when a segment is written; a segment's own rows never change, and rows
that end leave it wider than what is live, never wrong. Segments of fewer rows than a fourth of a
block, and those of older files, have none: they are compared whole.

Invariants
    ZM1 A value of a block that is not NULL lies within its bounds; bounds of NULLs alone are
        crossed (least > greatest), and a bound that is NaN says nothing.
    ZM2 A map has three numbers for each block of the segment, or the segment does not open.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from m2mdb.index import parts
from m2mdb.index.slices import Check, slices, unchecked

if TYPE_CHECKING:
    from m2mdb.index.collection import SegmentPart
    from m2mdb.index.schema import Column
    from m2mdb.index.segment import NamedPart, Segment

ZONES = "zones"
SLICE_ROWS = 16 * parts.ZONE_ROWS  # of which a map is made between two looks for an interrupt
_FEWEST = 4  # a map is written from a fourth of a block on: less is compared as fast as it is read
_NUMBERS = {"INTEGER": "ints", "TIMESTAMP": "ints", "REAL": "reals", "BOOLEAN": "bools"}


class Zones:
    """The map of one column: an item for each block.

    low high  int64 or float64
    nulls     int64, how many rows are NULL
    rows      int64, how many rows there are
    """

    __slots__ = ("high", "low", "nulls", "rows")

    def __init__(
        self, low: np.ndarray, high: np.ndarray, nulls: np.ndarray | None, rows: int
    ) -> None:
        """`nulls` None: no row is NULL; `rows` of the segment."""
        self.low = low
        self.high = high
        self.rows = np.full(len(low), parts.ZONE_ROWS, np.int64)
        self.rows[-1] = rows - (len(low) - 1) * parts.ZONE_ROWS
        self.nulls = np.zeros(len(low), np.int64) if nulls is None else nulls


def zone_parts(
    column: Column, written: Sequence[NamedPart], rows: int, check: Check = unchecked
) -> list[NamedPart]:
    """The map of a column from the parts that are written of it; none where it gets none.

    check  called between slices of many rows; it may raise
    """
    if column.type not in _NUMBERS or rows * _FEWEST < parts.ZONE_ROWS:
        return []
    arrays = {name: array for name, _, array in written}
    values, nulls = arrays[_NUMBERS[column.type]], arrays.get("nulls")
    made = [
        _made(values[some], None if nulls is None else nulls[some])
        for some in slices(len(values), SLICE_ROWS, check)
    ]
    return [(ZONES, column.id, np.concatenate(made))]


def _made(values: np.ndarray, nulls: np.ndarray | None) -> np.ndarray:
    """i64, three numbers a block."""
    starts = np.arange(0, len(values), parts.ZONE_ROWS)
    found = np.zeros((len(starts), 3), "<i8")
    if values.dtype.kind == "u":
        values = values.astype(np.int64)
    low = high = values
    if nulls is not None:
        absent = nulls != 0
        is_real = values.dtype.kind == "f"
        least, greatest = (-np.inf, np.inf) if is_real else (-(2**63), 2**63 - 1)
        low, high = np.where(absent, greatest, values), np.where(absent, least, values)
        found[:, 2] = np.add.reduceat(absent, starts, dtype=np.int64)
    bounds = np.minimum.reduceat(low, starts), np.maximum.reduceat(high, starts)
    for place, bound in enumerate(bounds):
        found[:, place] = bound.view("<i8")
    return found.reshape(-1)


def zones_of(segment: Segment, column: Column) -> Zones | None:
    """The map of a column of a segment; None where there is none.

    Raises CorruptDatabaseError where its bytes are damaged.
    """
    if column.type not in _NUMBERS or not segment.has(ZONES, column.id):
        return None
    numbers = segment.array(ZONES, column.id).reshape(-1, 3).T
    low, high = numbers[0], numbers[1]
    if column.type == "REAL":
        low, high = np.ascontiguousarray(numbers[:2]).view("<f8")
    return Zones(low, high, numbers[2], segment.rows)


def zones_of_rowids(rowids: np.ndarray) -> Zones:
    """What a map of a segment's rowids would be: they ascend."""
    starts = np.arange(0, len(rowids), parts.ZONE_ROWS)
    ends = np.minimum(starts + parts.ZONE_ROWS, len(rowids)) - 1
    return Zones(rowids[starts], rowids[ends], None, len(rowids))


def is_true(segment: Segment, column: Column) -> bool:
    """Whether a column's map is that of its values; so if it has none (ZM1)."""
    said = zones_of(segment, column)
    if said is None:
        return True
    made = _made(*segment.numbers(column)).reshape(-1, 3).T
    bounds = np.ascontiguousarray(made[:2])
    is_real = column.type == "REAL"
    low, high = bounds.view("<f8") if is_real else bounds
    return (
        np.array_equal(said.low, low, equal_nan=is_real)
        and np.array_equal(said.high, high, equal_nan=is_real)
        and np.array_equal(said.nulls, made[2])
    )


class Window:
    """Neighbouring rows of a segment, read as a part of their own with ordinals from 0 on."""

    __slots__ = ("size", "start", "whole")

    def __init__(self, whole: SegmentPart, start: int, stop: int) -> None:
        self.whole = whole
        self.start = start
        self.size = stop - start

    @property
    def rowids(self) -> np.ndarray:
        """int64 (size,)."""
        return self.whole.rowids[self.start : self.start + self.size]

    @property
    def live(self) -> np.ndarray | None:
        """bool (size,), or None when every row of the segment is live."""
        live = self.whole.live
        return None if live is None else live[self.start : self.start + self.size]

    def placed(self, ordinals: np.ndarray | None) -> np.ndarray:
        """Ordinals of the segment in place of the window's own; all of them for None."""
        if ordinals is None:
            return np.arange(self.start, self.start + self.size)
        return ordinals + self.start

    def values(self, column_index: int, ordinals: np.ndarray | None = None) -> list[Any]:
        """Python values of some or all rows."""
        return self.whole.values(column_index, self.placed(ordinals))

    def numbers(self, column_index: int) -> tuple[np.ndarray, np.ndarray | None] | None:
        """As `SegmentPart.numbers`."""
        found = self.whole.numbers(column_index)
        if found is None:
            return None
        some = slice(self.start, self.start + self.size)
        values, nulls = found
        return values[some], None if nulls is None else nulls[some]
