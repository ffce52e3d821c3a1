"""Access: how a statement gets at its rows, chosen from WHERE.

    Rows by rowid or key      `id = ?`, `rowid IN (…)`: one look-up a value
    Rows by index             B-tree ranges of candidates, each checked against all of WHERE
    Scan                      every part, its mask by `query.predicate`

Whatever the way, the rows found are those of a scan with the whole WHERE, in rowid order; a way
that a bound value does not suit (a text for a number's index) falls back to the scan.

Invariants
    C1  A statement finds the same rows by every access.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from m2mdb.index.secondary import rowids_by_columns
from m2mdb.index.slices import counting_up
from m2mdb.query.affinity import Value, microseconds
from m2mdb.query.comparison import rank
from m2mdb.query.estimates import most_candidates
from m2mdb.query.functions import Bindings
from m2mdb.query.predicate import Filter, Predicate
from m2mdb.query.profile import Noted, profile_of
from m2mdb.query.scope import ROWID
from m2mdb.query.selection import Selection

if TYPE_CHECKING:
    from m2mdb.index.collection import CollectionView
    from m2mdb.index.schema import Column, IndexInfo

Evaluator = Callable[[tuple[Any, ...], Bindings], Value]
SPARSE = 32  # rows of a join's other side are looked up while they are fewer than one in SPARSE


def everything(view: CollectionView, check: Callable[[], None]) -> Selection:
    """All live rows."""
    chosen = []
    for part in view.parts():
        check()
        live = part.live
        chosen.append(counting_up(0, part.size, check) if live is None else np.flatnonzero(live))
    return Selection(view, chosen)


def scanned(view: CollectionView, condition: Filter, check: Callable[[], None]) -> Selection:
    """The rows that pass, by looking at all."""
    chosen = []
    for part in view.parts():
        check()
        chosen.append(np.flatnonzero(condition.mask(part)))
    return Selection(view, chosen)


class Access:
    """A plan to find rows; `select` runs it."""

    __slots__ = ("estimate", "predicate", "remark")

    def __init__(self, predicate: Predicate | None) -> None:
        """`predicate` None: no WHERE."""
        self.predicate = predicate
        self.estimate: float | None = None  # of its rows
        self.remark = ""  # for EXPLAIN: what statistics say

    def select(
        self, view: CollectionView, bindings: Bindings, check: Callable[[], None]
    ) -> Selection:
        """The rows, in rowid order."""
        profile = profile_of(bindings) if bindings.shared else None
        if profile is None:
            return self._selected(view, bindings, check)
        start = profile.clock()
        found = self._selected(view, bindings, check)
        profile.note(self, len(found), start)
        return found

    def _selected(
        self, view: CollectionView, bindings: Bindings, check: Callable[[], None]
    ) -> Selection:
        if self.predicate is None:
            return everything(view, check)
        condition = self.predicate.bind(bindings)
        rowids = self._candidates(view, bindings)
        if rowids is None:
            found = scanned(view, condition, check)
            profile = profile_of(bindings) if bindings.shared else None
            if profile is not None:
                profile.remark(self, condition.sparing(view.parts()))
            return found
        return _checked(view, rowids, condition)

    def looked_up(
        self, view: CollectionView, column: int, values: Sequence[Value], bindings: Bindings
    ) -> Selection | None:
        """The rows that also have one of some values in a column; None: it is not worth it."""
        profile = profile_of(bindings) if bindings.shared else None
        start = 0.0 if profile is None else profile.clock()
        found = looked_up(view, column, values, self.predicate, bindings)
        if profile is not None and found is not None:
            profile.note(self, len(found), start)
        return found

    def _candidates(self, view: CollectionView, bindings: Bindings) -> Sequence[int] | None:
        """Rowids among which all wanted rows are; None: every row may be one."""
        return None

    def _most_candidates(self, view: CollectionView) -> int:
        """How many candidates cost what the scan costs."""
        term = None if self.predicate is None else self.predicate.term
        return most_candidates(view.count(), term)

    def describe(self, name: str) -> str:
        """One line for EXPLAIN."""
        return Noted.of(f"{self._way(name)}{self.remark}", self)

    def _way(self, name: str) -> str:
        return f"SCAN {name}"


def _checked(view: CollectionView, rowids: Sequence[int], condition: Filter | None) -> Selection:
    """Those of some rows that exist and pass."""
    parts = view.parts()
    found: list[list[int]] = [[] for _ in parts]
    for rowid in rowids:
        place = view.place(rowid)
        if place is not None:
            found[place[0]].append(place[1])
    chosen = []
    for part, ordinals in zip(parts, found, strict=True):
        rows = np.array(sorted(set(ordinals)), np.int64)
        passing = condition is not None and len(rows)
        chosen.append(condition.chosen(part, rows) if condition and passing else rows)
    return Selection(view, chosen)


class KeyAccess(Access):
    """Look-ups by the rowid, the PRIMARY KEY or a UNIQUE column."""

    __slots__ = ("_label", "column", "is_exact", "values")

    def __init__(
        self,
        predicate: Predicate | None,
        column: int,
        values: Callable[[Bindings], list[Value]],
        label: str,
    ) -> None:
        """`column` may be ROWID; `values` gives what its value may be."""
        super().__init__(predicate)
        self.column = column
        self.values = values
        self.is_exact = False  # WHERE is this one equality and nothing else
        self._label = label

    def _candidates(self, view: CollectionView, bindings: Bindings) -> Sequence[int] | None:
        rowids = []
        for value in self.values(bindings):
            rowid = rowid_of(view, self.column, value)
            if rowid is not None:
                rowids.append(rowid)
        return rowids

    def _way(self, name: str) -> str:
        return f"SEARCH {name} USING {self._label}"


def looked_up(
    view: CollectionView,
    column: int,
    values: Sequence[Value],
    predicate: Predicate | None,
    bindings: Bindings,
) -> Selection | None:
    """The rows with one of these values in a column that is a key or has an index, and that pass.

    None where the column is neither, or has too many such rows for looking them up one by one.
    """
    schema = view.schema
    wanted = dict.fromkeys(value for value in values if value is not None)
    rowids: list[int] = []
    if column in (ROWID, schema.rowid_alias) or schema.columns[column].is_key:
        found = (rowid_of(view, column, value) for value in wanted)
        rowids = [rowid for rowid in found if rowid is not None]
    elif schema.btree_on(column) is None:
        return None
    else:
        found_rows = _by_index(view, column, wanted, view.count() // SPARSE)
        if found_rows is None:
            return None
        rowids = found_rows
    condition = None if predicate is None else predicate.bind(bindings)
    return _checked(view, rowids, condition)


def _by_index(
    view: CollectionView, column: int, values: Iterable[Value], most: int
) -> list[int] | None:
    """Candidates of an index for some values; None where they are too many, or of another kind."""
    rowids: list[int] = []
    for value in values:
        if value is not None:
            some = _equal_rowids(view, column, value, most - len(rowids))
            if some is None:
                return None
            rowids += some
    return rowids


def _equal_rowids(view: CollectionView, column: int, value: Value, most: int) -> list[int] | None:
    """Candidates of an index for one value; None where the index does not suit it, or too many."""
    bound: Bound = (lambda row, bindings: value, False)
    empty = Bindings()
    low = _bound_value(view.schema.columns[column], bound, empty, upper=False)
    high = _bound_value(view.schema.columns[column], bound, empty, upper=True)
    if low is UNSUITED or high is UNSUITED:
        return None
    found = view.index_rowids(column, low, high, most=max(most, 0))
    return None if found is None else found.tolist()


def rowid_of(view: CollectionView, column: int, value: Value) -> int | None:
    """The rowid of the row with a key's value, or None; a value of another kind is nobody's.

    Raises DataError for what is no value, such as a list.
    """
    if column == ROWID or column == view.schema.rowid_alias:
        if type(value) is int or type(value) is bool:
            return int(value)
        rank(value)
        is_whole = type(value) is float and value.is_integer() and abs(value) < 2.0**63
        return int(value) if is_whole else None
    if type(value) is not str:
        rank(value)
    stored = stored_key(view.schema.columns[column], value)
    return None if stored is None else view.find(column, stored)


def stored_key(column: Column, value: Value) -> Any:
    """A value as a column stores it; None where no stored value equals it."""
    kind = column.type
    if kind in ("TEXT", "JSON"):
        return value if type(value) is str else None
    if kind == "BLOB":
        return value if type(value) is bytes else None
    if kind == "TIMESTAMP":
        return None if value is None else microseconds(value)
    if not isinstance(value, int | float):
        return None
    if kind == "REAL":
        return float(value) if float(value) == value else None
    if isinstance(value, float):
        if not value.is_integer() or abs(value) >= 2.0**63:
            return None
        value = int(value)
    if kind == "BOOLEAN":
        return bool(value) if value in (0, 1) else None
    return value


Bound = tuple[Evaluator, bool]  # its value, and whether the bound itself is left out


class IndexAccess(Access):
    """A range of a B-tree index."""

    __slots__ = ("_column", "_high", "_label", "_low")

    def __init__(
        self,
        predicate: Predicate,
        column: int,
        bounds: tuple[Bound | None, Bound | None],
        label: str,
    ) -> None:
        super().__init__(predicate)
        self._column = column
        self._low, self._high = bounds
        self._label = label

    def _candidates(self, view: CollectionView, bindings: Bindings) -> Sequence[int] | None:
        column = view.schema.columns[self._column]
        low = _bound_value(column, self._low, bindings, upper=False)
        high = _bound_value(column, self._high, bindings, upper=True)
        if low is NOTHING or high is NOTHING:
            return []
        if low is UNSUITED or high is UNSUITED:
            return None
        rowids = view.index_rowids(
            self._column,
            low,
            high,
            low_open=self._low is not None and self._low[1] and type(low) is not int,
            high_open=self._high is not None and self._high[1] and type(high) is not int,
            most=self._most_candidates(view),
        )
        return None if rowids is None else rowids.tolist()

    def _way(self, name: str) -> str:
        return f"SEARCH {name} USING {self._label}"


class IndexListAccess(Access):
    """Some values of a B-tree index: `column IN (…)`."""

    __slots__ = ("_column", "_label", "_values")

    def __init__(
        self,
        predicate: Predicate,
        column: int,
        values: Callable[[Bindings], list[Value]],
        label: str,
    ) -> None:
        super().__init__(predicate)
        self._column = column
        self._values = values
        self._label = label

    def _candidates(self, view: CollectionView, bindings: Bindings) -> Sequence[int] | None:
        most = self._most_candidates(view)
        values = dict.fromkeys(self._values(bindings))
        if len(values) > most:
            return None
        return _by_index(view, self._column, values, most)

    def _way(self, name: str) -> str:
        return f"SEARCH {name} USING {self._label}"


class ColumnsAccess(Access):
    """A B-tree index of several columns: its first ones equal, perhaps a range of the next."""

    __slots__ = ("_bounds", "_equal", "_info", "_label")

    def __init__(
        self,
        predicate: Predicate,
        info: IndexInfo,
        equal: Sequence[Evaluator],
        bounds: tuple[Bound | None, Bound | None],
        label: str,
    ) -> None:
        """`equal`: what its first columns equal, in its order; `bounds`: of the column behind."""
        super().__init__(predicate)
        self._info = info
        self._equal = list(equal)
        self._bounds = bounds
        self._label = label

    def _candidates(self, view: CollectionView, bindings: Bindings) -> Sequence[int] | None:
        columns = [view.schema.columns[index] for index in view.schema.positions(self._info)]
        first = []
        for column, evaluate in zip(columns, self._equal, strict=False):
            bound: Bound = (evaluate, False)
            low = _bound_value(column, bound, bindings, upper=False)
            high = _bound_value(column, bound, bindings, upper=True)
            if low is UNSUITED or high is UNSUITED:
                return None
            if low is NOTHING or low is None or low != high:
                return []  # NULL, or what no value of the column equals
            first.append(low)
        bounds = []
        for bound_, upper in zip(self._bounds, (False, True), strict=True):
            value = None
            if bound_ is not None:
                value = _bound_value(columns[len(first)], bound_, bindings, upper=upper)
            if value is NOTHING:
                return []
            if value is UNSUITED:
                return None
            bounds.append((value, bound_ is not None and bound_[1] and type(value) is not int))
        most = self._most_candidates(view)
        return rowids_by_columns(view, self._info, tuple(first), (bounds[0], bounds[1]), most)

    def _way(self, name: str) -> str:
        return f"SEARCH {name} USING {self._label}"


NOTHING, UNSUITED = object(), object()
_KINDS: dict[str, tuple[type, ...]] = {"TEXT": (str,), "JSON": (str,), "BLOB": (bytes,)}


def _bound_value(column: Column, bound: Bound | None, bindings: Bindings, *, upper: bool) -> Any:
    """A bound in stored form: None without one, NOTHING for NULL, UNSUITED for another kind.

    A bound of an integer column may be wider than asked for; the rows are checked anyway.
    """
    if bound is None:
        return None
    value = bound[0]((), bindings)
    if value is None:
        return NOTHING
    if column.type == "TIMESTAMP":
        return microseconds(value)
    if not isinstance(value, _KINDS.get(column.type, (int, float))):
        return UNSUITED
    if not isinstance(value, int | float):
        return value
    if column.type == "REAL":
        nearest = float(value)
        return nearest if nearest == value else math.nextafter(nearest, math.inf if upper
                                                               else -math.inf)  # fmt: skip
    if not -(2**63) <= value < 2**63:
        return UNSUITED
    return math.floor(value) if upper else math.ceil(value)
