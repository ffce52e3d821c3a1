"""Joined rows: which row of each table stands together, and how they are found by hashing.

A join keeps, for each of its tables, the selection that the table's own WHERE left and an array
of places in it, one a joined row; a place of −1 stands for the row of NULLs of an outer join.
Values are fetched for whole columns, as those of a selection are.

Invariants
    JR1 All arrays of places of one JoinedRows have its length.
    JR2 Matches are ordered by the left row, then by the right one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from m2mdb.query.comparison import rank

Places = np.ndarray  # int64, −1 = NULLs
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

    __slots__ = ("_count", "_layout", "_places", "_tables")

    def __init__(
        self, layout: Layout, tables: dict[int, Rows], places: dict[int, Places | None], count: int
    ) -> None:
        """`places` None: every row of the table, in its order."""
        self._layout = layout
        self._tables = tables
        self._places = places
        self._count = count

    @classmethod
    def of_one(cls, layout: Layout, table: int, rows: Rows) -> JoinedRows:
        """The rows of one table alone."""
        return cls(layout, {table: rows}, {table: None}, len(rows))

    def __len__(self) -> int:
        return self._count

    def column(self, source: int) -> list[Any]:
        """The values of a column in order."""
        table, own = self._layout.table(source)
        places = self._places[table]
        values = self._tables[table].column(own)
        if places is None:
            return values
        return list(map([*values, None].__getitem__, places.tolist()))

    def numbers(self, source: int) -> Numbers | None:
        """The values of a numeric column and its NULLs; None for the other types."""
        table, own = self._layout.table(source)
        found = self._tables[table].numbers(own)
        places = self._places[table]
        if found is None or places is None:
            return found
        values, nulls = found
        absent = places < 0
        if not len(values):
            return np.zeros(len(places), values.dtype), absent
        picked = values[places]
        if nulls is not None:
            absent = absent | nulls[places]
        return picked, absent if absent.any() else None

    def codes(self, source: int) -> tuple[np.ndarray, list[str]] | None:
        """The codes of a TEXT column and what they stand for; −1 is NULL."""
        table, own = self._layout.table(source)
        found = self._tables[table].codes(own)
        places = self._places[table]
        if found is None or places is None:
            return found
        return np.append(found[0], np.int32(-1))[places], found[1]

    def reordered(self, order: np.ndarray) -> JoinedRows:
        """Some of the rows, by their places in this order."""
        places = {
            table: order if own is None else own[order] for table, own in self._places.items()
        }
        return JoinedRows(self._layout, self._tables, places, len(order))

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
                places[each] = own[mine] if len(own) else np.full(len(mine), -1, np.int64)
                if len(own) and len(mine):
                    places[each][mine < 0] = -1  # type: ignore[index]
        places[table] = theirs
        return JoinedRows(self._layout, {**self._tables, table: rows}, places, len(mine))


# ------------------------------------------------------------------------- matching


def matches_of_numbers(left: Numbers, right: Numbers) -> tuple[Places, Places]:
    """The pairs of equal numbers of one integer type; NULL equals nothing."""
    values, nulls = right
    candidates = np.arange(len(values)) if nulls is None else np.flatnonzero(~nulls)
    order = candidates[np.argsort(values[candidates], kind="stable")]
    found = values[order]
    mine, absent = left
    first = np.searchsorted(found, mine, "left")
    counts = np.searchsorted(found, mine, "right") - first
    if absent is not None:
        counts[absent] = 0
    total = int(counts.sum())
    rows = np.repeat(np.arange(len(mine)), counts)
    starts = np.cumsum(counts) - counts
    steps = np.arange(total) - np.repeat(starts, counts)
    return rows, order[np.repeat(first, counts) + steps]


def matches_of_values(
    left: Sequence[list[Any]], right: Sequence[list[Any]]
) -> tuple[Places, Places]:
    """The pairs of rows whose keys are all equal; NULL equals nothing.

    Raises DataError: a vector among the keys.
    """
    try:
        return _hashed(left, right)
    except TypeError:
        for column in (*left, *right):
            for value in column:
                rank(value)
        raise


def _hashed(left: Sequence[list[Any]], right: Sequence[list[Any]]) -> tuple[Places, Places]:
    table: dict[Any, list[int]] = {}
    for place, key in enumerate(zip(*right, strict=True)):
        if None not in key:
            table.setdefault(key, []).append(place)
    mine: list[int] = []
    theirs: list[int] = []
    for place, key in enumerate(zip(*left, strict=True)):
        found = table.get(key)
        if found is not None:
            theirs += found
            mine += [place] * len(found)
    return np.array(mine, np.int64), np.array(theirs, np.int64)


def with_unmatched(
    pairs: tuple[Places, Places], counts: tuple[int, int], kind: str
) -> tuple[Places, Places]:
    """The pairs and, beside NULLs, the rows of an outer join's sides that are in none (JR2)."""
    mine, theirs = pairs
    if kind in ("left", "full"):
        alone = np.ones(counts[0], bool)
        alone[mine] = False
        lonely = np.flatnonzero(alone)
        mine = np.concatenate([mine, lonely])
        theirs = np.concatenate([theirs, np.full(len(lonely), -1, np.int64)])
        order = np.argsort(mine, kind="stable")
        mine, theirs = mine[order], theirs[order]
    if kind in ("right", "full"):
        alone = np.ones(counts[1], bool)
        alone[theirs[theirs >= 0]] = False
        lonely = np.flatnonzero(alone)
        mine = np.concatenate([mine, np.full(len(lonely), -1, np.int64)])
        theirs = np.concatenate([theirs, lonely])
    return mine, theirs
