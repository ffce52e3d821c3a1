"""Dictionaries: the few values of a TEXT column as numbers, for grouping without a loop a row.

A segment never changes, so its codes are made once for each connection and kept with it. A column
with many different values has none: its codes would cost more than they save.

Invariants
    DI1 `values[codes[i]]` is the value of row i, -1 stands for NULL; the values are distinct.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from m2mdb.index.collection import SegmentPart
from m2mdb.index.parts import check_offsets
from m2mdb.index.slices import SLICE_NUMBERS, distinct_numbers, joined, mapped, slices
from m2mdb.index.verifying import verify_parts
from m2mdb.index.zones import Window
from m2mdb.pager.errors import CorruptDatabaseError

if TYPE_CHECKING:
    from m2mdb.index.segment import Segment

Dictionary = tuple[np.ndarray, list[str]]  # int32 codes of all rows, and what they stand for

MOST_VALUES = 1 << 16  # of one dictionary
FEWEST_ROWS_EACH = 4  # rows a value in the mean, below which a dictionary does not pay
LEAST_TESTED = 4096  # rows of a part whose values are tested through a dictionary
LONGEST = 64  # bytes of a text that is compared by words
WORD = 8
UNSUITED = object()
KEPT_ROWS = 1 << 24  # codes of a larger segment are not kept


class HasValues(Protocol):
    """Any part: of a collection, or of a table in memory."""

    size: int

    def values(self, column_index: int) -> list[Any]:
        """The values of all rows."""
        ...


def dictionary_of(part: HasValues, column_index: int) -> Dictionary | None:
    """The codes of a TEXT column of a part; None where its values are too many."""
    if not isinstance(part, SegmentPart):
        return _made(part.values(column_index), lambda: None)
    kept: dict[int, Dictionary | None] = part.segment.dictionaries
    column_id = part.column_id(column_index)
    if column_id not in kept:
        made = _made_of_bytes(part.segment, column_id, part.check)
        if made is UNSUITED:
            made = _made(part.values(column_index), part.check)
        assert made is None or isinstance(made, tuple)
        if part.size > KEPT_ROWS:
            return made
        kept[column_id] = made
    return kept[column_id]


def _made_of_bytes(
    segment: Segment, column_id: int, check: Callable[[], None]
) -> Dictionary | object | None:
    """The codes of short texts from their bytes, eight at a time; UNSUITED for others.

    check  called between slices of the work; it may raise
    Two texts are equal where their lengths and all their words of eight bytes are.
    """
    verify_parts(segment, column_id, check)
    offsets, blob = segment.array("offsets", column_id), segment.array("blob", column_id)
    check_offsets(offsets, f"segment {segment.id}: offsets of column {column_id}")
    if len(offsets) != segment.rows + 1 or int(offsets[-1]) > len(blob):
        raise CorruptDatabaseError(f"segment {segment.id}: offsets of column {column_id}")
    starts = offsets[:-1].astype(np.int64)
    lengths = offsets[1:].astype(np.int64) - starts
    longest = int(lengths.max())
    if longest > LONGEST:
        return UNSUITED
    most = _most(segment.rows)
    check()
    padded = joined([blob, np.zeros(2 * WORD, np.uint8)], check)
    words = np.ndarray(len(padded) - WORD + 1, "<u8", padded, 0, (1,))  # one from each byte on
    codes = lengths.copy()
    found = np.empty(segment.rows, np.uint64)
    for at in range(0, longest, WORD):
        for some in slices(segment.rows, SLICE_NUMBERS, check):
            left = np.clip(lengths[some] - at, 0, WORD)
            own = words[np.where(left > 0, starts[some] + at, 0)]
            shift = (8 * (WORD - left)).astype(np.uint64) % np.uint64(64)
            found[some] = np.where(left > 0, (own << shift) >> shift, np.uint64(0))
        distinct, inverse = distinct_numbers(found, check)
        if len(distinct) > most:
            return None
        codes *= len(distinct)
        codes += inverse
        check()
        if at:
            codes = distinct_numbers(codes, check)[1].astype(np.int64)
    nulls = segment.array("nulls", column_id) if segment.has("nulls", column_id) else None
    if nulls is not None:
        codes = np.where(nulls != 0, -1, codes)
    known, inverse = distinct_numbers(codes, check)
    if len(known) > most + 1:
        return None
    first = np.zeros(len(known), np.int64)
    first[inverse[::-1]] = np.arange(segment.rows - 1, -1, -1)
    check()
    values = [
        str(blob[starts[row] : starts[row] + lengths[row]].tobytes(), "utf-8")
        for row in first.tolist()
    ]
    if len(known) and known[0] == -1:
        return (inverse - 1).astype(np.int32), values[1:]
    return inverse.astype(np.int32), values


def _most(rows: int) -> int:
    """How many values a dictionary of so many rows may have."""
    return min(MOST_VALUES, max(64, rows // FEWEST_ROWS_EACH))


def _made(values: list[Any], check: Callable[[], None]) -> Dictionary | None:
    most = _most(len(values))
    distinct: dict[Any, None] = {}
    for some in slices(len(values), SLICE_NUMBERS >> 2, check):
        distinct.update(dict.fromkeys(values[some]))
        if len(distinct) > most + 1:
            return None
    distinct.pop(None, None)
    if len(distinct) > most:
        return None
    codes: dict[Any, int] = {value: code for code, value in enumerate(distinct)}
    codes[None] = -1
    found = np.empty(len(values), np.int32)
    for some in slices(len(values), SLICE_NUMBERS >> 2, check):
        found[some] = list(map(codes.__getitem__, values[some]))
    return found, list(distinct)


def tested(
    part: object, column_index: int, rows: np.ndarray | None, test: Callable[[Any], bool]
) -> np.ndarray | None:
    """For which rows (all, where None) of a TEXT column a test holds, NULLs failing it.

    The test is made once for each value; None where there is no dictionary of the column.
    """
    if isinstance(part, Window):
        return tested(part.whole, column_index, part.placed(rows), test)
    if not isinstance(part, SegmentPart) or part.size < LEAST_TESTED:
        return None
    found = dictionary_of(part, column_index)
    if found is None:
        return None
    codes, values = found
    holds = np.zeros(len(values) + 1, bool)  # the last one, −1, is NULL
    holds[: len(values)] = mapped(values, test, part.check)
    passed: np.ndarray = holds[codes if rows is None else codes[rows]]
    return passed
