"""Selections: the rows that a statement found, and their values in columns.

Rows are held as ordinals of each part; `order` brings them into rowid order. Values are fetched
for whole columns, so that rows are made by one zip at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from m2mdb.index.dictionary import dictionary_of
from m2mdb.index.slices import joined, listed, number_order, picked, rises, rows_of, taken
from m2mdb.query.scope import ROWID

if TYPE_CHECKING:
    from m2mdb.index.collection import CollectionView
    from m2mdb.index.slices import Check


def _joined(arrays: Sequence[np.ndarray], check: Check) -> np.ndarray:
    """One array; one that is alone is shared."""
    return arrays[0] if len(arrays) == 1 else joined(arrays, check)


class Selection:
    """Some live rows of a collection, in an order: at first that of their rowids.

    rowids    int64, in order
    """

    __slots__ = ("_chosen", "_order", "_view", "rowids")

    def __init__(self, view: CollectionView, chosen: Sequence[np.ndarray]) -> None:
        """`chosen`: for each part of the view, the ordinals of its rows."""
        self._view = view
        self._chosen = chosen
        parts = view.parts()
        found = [
            part.rowids if len(rows) == part.size else taken(part.rowids, rows, view.check)
            for part, rows in zip(parts, chosen, strict=True)
            if len(rows)
        ]
        rowids = joined(found, view.check) if found else np.empty(0, np.int64)
        self._order: np.ndarray | None = None
        if not rises(rowids, view.check):
            self._order = number_order(rowids, view.check)
            rowids = taken(rowids, self._order, view.check)
        self.rowids: np.ndarray = rowids

    def __len__(self) -> int:
        return len(self.rowids)

    def origin(self) -> tuple[Any, Sequence[np.ndarray], np.ndarray | None]:
        """The view, the ordinals of each of its parts, and the order among them: None as they are.

        What `query.columnar` copies whole columns by.
        """
        return self._view, self._chosen, self._order

    def reordered(self, order: np.ndarray) -> Selection:
        """Some of the rows, by their places in this order, in a new one."""
        copy = object.__new__(Selection)
        copy._view = self._view
        copy._chosen = self._chosen
        check = self._view.check
        copy._order = order if self._order is None else taken(self._order, order, check)
        copy.rowids = taken(self.rowids, order, check)
        return copy

    def sliced(self, start: int, stop: int) -> Selection:
        """The rows from `start` to before `stop`."""
        if start == 0 and stop >= len(self):
            return self
        return self.reordered(np.arange(min(start, len(self)), min(stop, len(self))))

    def column(self, source: int) -> list[Any]:
        """The values of a column, or of ROWID, of all rows in order."""
        if source == ROWID:
            return listed(self.rowids, self._view.check)
        total = sum(map(len, self._chosen))
        if self._order is None or len(self._order) * 2 >= total:
            return self._whole_column(source)
        return self._picked_column(source)

    def numbers(self, source: int) -> tuple[np.ndarray, np.ndarray | None] | None:
        """The values of a numeric column in order, and which are NULL; None for other columns.

        TIMESTAMP comes as int64 microseconds, BOOLEAN as u8; what stands under a NULL means
        nothing.
        """
        if source == ROWID:
            return self.rowids, None
        values, masks = [], []
        for part, rows in zip(self._view.parts(), self._chosen, strict=True):
            if not len(rows):
                continue
            found = part.numbers(source)
            if found is None:
                return None
            is_whole = len(rows) == part.size
            self._view.check()
            values.append(found[0] if is_whole else found[0][rows])
            nulls = found[1]
            if nulls is None:
                masks.append(np.zeros(len(rows), bool))
            else:
                masks.append(nulls if is_whole else nulls[rows])
        if not values:
            return None
        whole, mask = _joined(values, self._view.check), _joined(masks, self._view.check)
        if self._order is not None:
            check = self._view.check
            whole, mask = taken(whole, self._order, check), taken(mask, self._order, check)
        return whole, mask if mask.any() else None

    def codes(self, source: int) -> tuple[np.ndarray, list[str]] | None:
        """The codes of a TEXT column in order, and what they stand for; −1 is NULL.

        None for other columns, and where the values are too many.
        """
        columns = self._view.schema.columns
        if source == ROWID or columns[source].type != "TEXT":
            return None
        known: dict[str, int] = {}
        found = []
        for part, rows in zip(self._view.parts(), self._chosen, strict=True):
            if not len(rows):
                continue
            dictionary = dictionary_of(part, source)
            if dictionary is None:
                return None
            codes, values = dictionary
            moved = [known.setdefault(value, len(known)) for value in values]
            some = codes if len(rows) == part.size else codes[rows]
            if moved != list(range(len(moved))):
                some = np.array([*moved, -1], np.int32)[some]
            found.append(some)
        if not found:
            return None
        check = self._view.check
        whole = _joined(found, check)
        return (whole if self._order is None else taken(whole, self._order, check)), list(known)

    def _whole_column(self, source: int) -> list[Any]:
        """All chosen rows' values, then put in order."""
        values: list[Any] = []
        for part, rows in zip(self._view.parts(), self._chosen, strict=True):
            if len(rows):
                values += part.values(source, None if len(rows) == part.size else rows)
        if self._order is None:
            return values
        return picked(values, self._order, self._view.check)

    def _picked_column(self, source: int) -> list[Any]:
        """The values of the few rows in the order, of many that were chosen."""
        assert self._order is not None
        starts = np.cumsum([0, *map(len, self._chosen)])
        values: list[Any] = [None] * len(self._order)
        for number, (part, rows) in enumerate(zip(self._view.parts(), self._chosen, strict=True)):
            places = np.flatnonzero(
                (self._order >= starts[number]) & (self._order < starts[number + 1])
            )
            if len(places):
                ordinals = rows[self._order[places] - starts[number]]
                found = part.values(source, ordinals)
                for place, value in zip(places.tolist(), found, strict=True):
                    values[place] = value
        return values

    def rows(self, sources: Sequence[int]) -> list[tuple[Any, ...]]:
        """The values of some columns as rows."""
        if not sources:
            return [()] * len(self)
        return rows_of([self.column(source) for source in sources], self._view.check)
