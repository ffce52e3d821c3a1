"""Joined rows: which row of each table stands together, and how they are found by hashing.

A join keeps, for each of its tables, the selection that the table's own WHERE left and an array
of places in it, one a joined row; a place of −1 stands for the row of NULLs of an outer join.
Values are fetched for whole columns, as those of a selection are.

Invariants
    JR1 All arrays of places of one JoinedRows have its length.
    JR2 Matches are ordered by the left row, then by the right one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Protocol

import numpy as np

from m2mdb.index.slices import (
    SLICE_NUMBERS,
    SLICE_VALUES,
    Check,
    joined,
    number_order,
    picked,
    slices,
    taken,
)
from m2mdb.query.comparison import rank

Places = np.ndarray  # int64, −1 = NULLs
Pairs = tuple[Places, Places]  # of the left row and of the right one
Numbers = tuple[np.ndarray, "np.ndarray | None"]


class Rows(Protocol):
    """The rows of one table: a Selection."""

    def __len__(self) -> int: ...

    def column(self, source: int) -> list[Any]:
        """The values of a column, or of the rowid."""
        ...

    def numbers(self, source: int) -> Numbers | None:
        """The values of a numeric column and its NULLs."""
        ...

    def codes(self, source: int) -> tuple[np.ndarray, list[str]] | None:
        """The codes of a TEXT column and what they stand for."""
        ...


class Layout:
    """How the columns of several tables are numbered one after the other.

    A source is the number of a column among those of all tables, or −1 − table for its rowid.
    """

    __slots__ = ("offsets",)

    def __init__(self, widths: Sequence[int]) -> None:
        self.offsets = [0]
        for width in widths:
            self.offsets.append(self.offsets[-1] + width)

    def source(self, table: int, column: int) -> int:
        """The source of a table's column, or of its rowid (−1)."""
        return -1 - table if column < 0 else self.offsets[table] + column

    def table(self, source: int) -> tuple[int, int]:
        """The table and the column of a source."""
        if source < 0:
            return -1 - source, -1
        table = next(i for i in range(len(self.offsets) - 1) if source < self.offsets[i + 1])
        return table, source - self.offsets[table]


class JoinedRows:
    """Rows of several tables side by side."""

    __slots__ = ("_check", "_count", "_layout", "_places", "_tables")

    def __init__(
        self,
        layout: Layout,
        tables: dict[int, Rows],
        places: dict[int, Places | None],
        count: int,
        check: Check,
    ) -> None:
        """`places` None: every row of the table, in its order; `check`: between long steps."""
        self._check = check
        self._layout = layout
        self._tables = tables
        self._places = places
        self._count = count

    @classmethod
    def of_one(cls, layout: Layout, table: int, rows: Rows, check: Check) -> JoinedRows:
        """The rows of one table alone."""
        return cls(layout, {table: rows}, {table: None}, len(rows), check)

    def __len__(self) -> int:
        return self._count

    def column(self, source: int) -> list[Any]:
        """The values of a column in order."""
        table, own = self._layout.table(source)
        places = self._places[table]
        values = self._tables[table].column(own)
        if places is None:
            return values
        if len(places) and int(places.min()) < 0:
            values = [*values, None]
        return picked(values, places, self._check)

    def numbers(self, source: int) -> Numbers | None:
        """The values of a numeric column and its NULLs; None for the other types."""
        table, own = self._layout.table(source)
        found = self._tables[table].numbers(own)
        places = self._places[table]
        if found is None or places is None:
            return found
        values, nulls = found
        self._check()
        absent = places < 0
        if not len(values):
            return np.zeros(len(places), values.dtype), absent
        some = taken(values, places, self._check)
        if nulls is not None:
            absent = absent | taken(nulls, places, self._check)
        return some, absent if absent.any() else None

    def codes(self, source: int) -> tuple[np.ndarray, list[str]] | None:
        """The codes of a TEXT column and what they stand for; −1 is NULL."""
        table, own = self._layout.table(source)
        found = self._tables[table].codes(own)
        places = self._places[table]
        if found is None or places is None:
            return found
        return taken(np.append(found[0], np.int32(-1)), places, self._check), found[1]

    def reordered(self, order: np.ndarray) -> JoinedRows:
        """Some of the rows, by their places in this order."""
        places: dict[int, Places | None] = {
            table: order if own is None else taken(own, order, self._check)
            for table, own in self._places.items()
        }
        return JoinedRows(self._layout, self._tables, places, len(order), self._check)

    def sliced(self, start: int, stop: int) -> JoinedRows:
        """The rows of a range of places."""
        if start == 0 and stop >= self._count:
            return self
        return self.reordered(np.arange(min(start, self._count), min(stop, self._count)))

    def beside(self, table: int, rows: Rows, pairs: tuple[Places, Places]) -> JoinedRows:
        """These rows with those of a further table; `pairs`: places here and there."""
        mine, theirs = pairs
        places: dict[int, Places | None] = {}
        for each, own in self._places.items():
            if own is None:
                places[each] = mine
            else:
                found = np.full(len(mine), -1, np.int64)
                if len(own):
                    found = taken(own, mine, self._check)
                    found[mine < 0] = -1
                places[each] = found
        places[table] = theirs
        tables = {**self._tables, table: rows}
        return JoinedRows(self._layout, tables, places, len(mine), self._check)


# ------------------------------------------------------------------------- matching


def matches_of_numbers(left: Numbers, right: Numbers, check: Check) -> tuple[Places, Places]:
    """The pairs of equal numbers of one integer type; NULL equals nothing."""
    values, nulls = right
    candidates = np.arange(len(values)) if nulls is None else np.flatnonzero(~nulls)
    order = candidates[number_order(values[candidates], check)]
    found = taken(values, order, check)
    mine, absent = left
    first, counts = np.empty(len(mine), np.int64), np.empty(len(mine), np.int64)
    for some in slices(len(mine), SLICE_NUMBERS >> 2, check):
        first[some] = np.searchsorted(found, mine[some], "left")
        counts[some] = np.searchsorted(found, mine[some], "right")
    counts -= first
    if absent is not None:
        counts[absent] = 0
    return expanded(first, counts, order, check)


def expanded(
    first: np.ndarray, counts: np.ndarray, order: np.ndarray, check: Check
) -> tuple[Places, Places]:
    """For each left row the `counts` places of `order` from `first` on."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    mine, theirs = np.empty(total, np.int64), np.empty(total, np.int64)
    row = 0
    while row < len(counts):
        check()
        at = int(ends[row] - counts[row])
        last = max(int(np.searchsorted(ends, at + SLICE_NUMBERS, "right")), row + 1)
        own, end = counts[row:last], int(ends[last - 1])
        starts = ends[row:last] - own
        mine[at:end] = np.repeat(np.arange(row, last), own)
        steps = np.arange(at, end) - np.repeat(starts - first[row:last], own)
        theirs[at:end] = order[steps]
        row = last
    return mine, theirs


def matches_of_values(
    left: Sequence[list[Any]], right: Sequence[list[Any]], check: Check
) -> tuple[Places, Places]:
    """The pairs of rows whose keys are all equal; NULL equals nothing.

    check  called between slices of the work; it may raise
    Raises DataError: a vector among the keys.
    """
    try:
        return _hashed(left, right, check)
    except TypeError:
        for column in (*left, *right):
            for value in column:
                rank(value)
        raise


def _hashed(
    left: Sequence[list[Any]], right: Sequence[list[Any]], check: Check
) -> tuple[Places, Places]:
    table = _table_of(right, check)
    pieces: list[tuple[Places, Places]] = []
    mine: list[int] = []
    theirs: list[int] = []
    waiting = enumerate(_keys(left))
    for _ in slices(len(left[0]), SLICE_VALUES, check):
        for place, key in islice(waiting, SLICE_VALUES):
            found = table.get(key)
            if type(found) is int:
                theirs.append(found)
                mine.append(place)
            elif found is not None:
                theirs += found
                mine += [place] * len(found)
            if len(mine) > SLICE_NUMBERS:
                check()
                pieces.append((np.array(mine, np.int64), np.array(theirs, np.int64)))
                mine, theirs = [], []
    check()
    pieces.append((np.array(mine, np.int64), np.array(theirs, np.int64)))
    if len(pieces) == 1:
        return pieces[0]
    return joined([a for a, _ in pieces], check), joined([b for _, b in pieces], check)


def _keys(columns: Sequence[list[Any]]) -> Iterator[Any]:
    """The key of each row: a value, or a tuple of several."""
    return iter(columns[0]) if len(columns) == 1 else zip(*columns, strict=True)


def _table_of(columns: Sequence[list[Any]], check: Check) -> dict[Any, Any]:
    """The place of each key, a list where it has several; no key with a NULL.

    Lists only where they are needed: of millions of them the garbage collector looks at each.
    """
    table: dict[Any, Any] = {}
    waiting = enumerate(_keys(columns))
    is_single = len(columns) == 1
    for _ in slices(len(columns[0]), SLICE_VALUES, check):
        for place, key in islice(waiting, SLICE_VALUES):
            if key is None or (not is_single and None in key):
                continue
            known = table.setdefault(key, place)
            if known is not place:
                if type(known) is list:
                    known.append(place)
                else:
                    table[key] = [known, place]
    return table


def with_unmatched(
    pairs: tuple[Places, Places], counts: tuple[int, int], kind: str, check: Check
) -> tuple[Places, Places]:
    """The pairs and, beside NULLs, the rows of an outer join's sides that are in none (JR2)."""
    mine, theirs = pairs
    if kind in ("left", "full"):
        alone = np.ones(counts[0], bool)
        alone[mine] = False
        lonely = np.flatnonzero(alone)
        mine = np.concatenate([mine, lonely])
        theirs = np.concatenate([theirs, np.full(len(lonely), -1, np.int64)])
        order = number_order(mine, check)
        mine, theirs = taken(mine, order, check), taken(theirs, order, check)
    if kind in ("right", "full"):
        alone = np.ones(counts[1], bool)
        alone[theirs[theirs >= 0]] = False
        lonely = np.flatnonzero(alone)
        mine = np.concatenate([mine, np.full(len(lonely), -1, np.int64)])
        theirs = np.concatenate([theirs, lonely])
    return mine, theirs
