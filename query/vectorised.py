"""Vectorised grouping: GROUP BY and aggregates over arrays, where columns and aggregates allow it.

    keys --> codes, a number a row, in the order of the keys' values (0 is NULL)
    codes of several keys --> one number a row
    aggregates --> bins: one pass of NumPy over each argument

What takes part: keys and arguments that are INTEGER, REAL, BOOLEAN or TIMESTAMP columns, TEXT
columns as keys, and sums, differences, products and remainders of numbers. All else is grouped row
by row (`query.grouping`), which gives the very same rows.

Invariants
    VG1 Reals are added one by one in the order of the rows, as the loop adds them.
    VG2 No integer is computed that 64 bits may not hold: then the loop does it, which knows better.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import count as counting
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from m2mdb.index.slices import (
    SLICE_NUMBERS,
    SLICE_VALUES,
    Check,
    distinct_numbers,
    emptied,
    kinds_of,
    listed,
    mapped,
    rows_of,
    slices,
    value_order,
)
from m2mdb.index.values import timestamp_value
from m2mdb.query.nodes import Binary, ColumnRef, Expression, Literal, Unary

if TYPE_CHECKING:
    from m2mdb.query.grouping import AggregateCall, GroupScope
    from m2mdb.query.scope import RowScope

LEAST_ROWS = 64  # below which the loop is as quick
ROOM = 1 << 16  # codes beside 4 a row before they are renumbered
SAFE = (1 << 63) - 1
EXACT = 1 << 53  # integers up to which a float64 holds each
_NUMBERS = ("INTEGER", "REAL")
_SIMPLE = ("count", "sum", "total", "avg", "min", "max")


class HasNumbers(Protocol):
    """What gives columns of numbers as arrays."""

    def numbers(self, source: int) -> tuple[np.ndarray, np.ndarray | None] | None:
        """The values of a numeric column and its NULLs; None for the others."""
        ...


class Rows(Protocol):
    """Rows that give columns as arrays: a Selection, or those of a join."""

    def __len__(self) -> int: ...

    def numbers(self, source: int) -> tuple[np.ndarray, np.ndarray | None] | None:
        """The values of a numeric column and its NULLs; None for the others."""
        ...

    def codes(self, source: int) -> tuple[np.ndarray, list[str]] | None:
        """The codes of a TEXT column and what they stand for; −1 is NULL."""
        ...

    def column(self, source: int) -> list[Any]:
        """The values of a column."""
        ...

    def reordered(self, order: np.ndarray) -> Any:
        """Some of the rows."""
        ...


class Array(NamedTuple):
    """The values of an expression: int64, float64 or u8, NULL where `nulls` says so."""

    values: np.ndarray
    nulls: np.ndarray | None
    type: str


class Codes(NamedTuple):
    """A key as numbers in the order of its values, and the values of some of the numbers."""

    codes: np.ndarray
    size: int
    decode: Callable[[np.ndarray], list[Any]]


def grouped(
    scope: GroupScope, keys: Sequence[Expression], rows: Any, check: Check
) -> list[tuple[Any, ...]] | None:
    """One row a group, ordered by the keys, as `Grouping.run` gives them; None: do it row by row.

    rows   what the grouping reads; only a Selection or the rows of a join have arrays
    check  called between slices of the work; it may raise
    """
    count = len(rows)
    if count < LEAST_ROWS or not hasattr(rows, "codes") or not _are_simple(scope):
        return None
    arguments = []
    for call in scope.aggregates:
        check()
        arguments.append(_argument(call, scope.base, rows, check))
    if any(found is None for found in arguments):
        return None
    coded = [_codes(key, scope.base, rows, check) for key in keys]
    known = [each for each in coded if each is not None]
    if len(known) != len(coded):
        return None
    bins = _Bins(known, count, check)
    columns: dict[tuple[str, int], list[Any]] = {}
    for index, values in enumerate(bins.keys()):
        columns["key", index] = values
    for index, (call, argument) in enumerate(zip(scope.aggregates, arguments, strict=True)):
        assert argument is not None
        check()
        found = bins.aggregate(call.name, argument if argument is not ALL else None)
        if found is None:
            return None
        columns["aggregate", index] = found
    if scope.bare:
        first = rows.reordered(bins.first())
        for index, computed in enumerate(scope.bare):
            assert computed.position is not None
            columns["bare", index] = first.column(scope.base.sources[computed.position])
    if not scope.layout:
        return [()] * bins.groups
    return rows_of([columns[where] for where in scope.layout], check)


ALL = Array(np.empty(0), None, "")  # the argument of count(*)


def _are_simple(scope: GroupScope) -> bool:
    """Whether all aggregates are of those that bins can do."""
    extremes = 0
    for call in scope.aggregates:
        if call.name not in _SIMPLE or call.distinct or call.is_extension:
            return False
        if len(call.arguments) > 1:
            return False
        extremes += call.name in ("min", "max")
    if any(computed.position is None for computed in scope.bare):
        return False
    return not scope.bare or extremes != 1


def _argument(call: AggregateCall, scope: RowScope, rows: Rows, check: Check) -> Array | None:
    """The argument of an aggregate as an array."""
    if call.star:
        return ALL
    node = call.node.arguments[0]
    if call.name == "count" and isinstance(node, ColumnRef):
        slot = scope.column(node)
        if slot.type == "TEXT":
            source = _source(scope, slot.position)
            found = rows.codes(source)
            if found is not None:
                return Array(found[0], found[0] < 0, "TEXT")
            absent = [value is None for value in rows.column(source)]
            return Array(np.zeros(len(absent), np.int32), np.array(absent, bool), "TEXT")
    found_array = evaluated(node, scope, rows)
    if found_array is None or (call.name != "count" and found_array.type not in _NUMBERS):
        return None
    return found_array


def _source(scope: RowScope, position: int) -> int:
    source = scope.sources[position]
    assert isinstance(source, int), "grouping reads stored columns only"
    return source


# ------------------------------------------------------------------------- expressions


def evaluated(node: Expression, scope: RowScope, rows: HasNumbers) -> Array | None:
    """A numeric expression over all rows; None where the loop must do it."""
    if isinstance(node, ColumnRef):
        slot = scope.column(node)
        if slot.type not in (*_NUMBERS, "BOOLEAN", "TIMESTAMP"):
            return None
        found = rows.numbers(_source(scope, slot.position))
        return None if found is None else Array(*found, slot.type)
    if isinstance(node, Literal):
        return _constant(node.value)
    if isinstance(node, Unary) and node.operator == "-":
        zero = _constant(0)
        operand = evaluated(node.operand, scope, rows)
        if operand is None or zero is None or operand.type == "REAL":
            return None
        return _combined("-", zero, operand)
    if not isinstance(node, Binary) or node.operator not in ("+", "-", "*", "%"):
        return None
    left = evaluated(node.left, scope, rows)
    right = None if left is None else evaluated(node.right, scope, rows)
    return None if left is None or right is None else _combined(node.operator, left, right)


def _constant(value: object) -> Array | None:
    if type(value) is int and -SAFE <= value <= SAFE:
        return Array(np.array(value, np.int64), None, "INTEGER")
    if type(value) is float and np.isfinite(value):
        return Array(np.array(value, np.float64), None, "REAL")
    return None


def _combined(operator: str, left: Array, right: Array) -> Array | None:
    """Two arrays by an operator; None where a result may not fit (VG2), or be no number."""
    if left.type not in _NUMBERS or right.type not in _NUMBERS:
        return None
    if operator == "%":
        return _remainder(left, right)
    is_real = "REAL" in (left.type, right.type)
    one, other = left.values, right.values
    if is_real:
        one, other = one.astype(np.float64), other.astype(np.float64)
    elif not _fits(operator, bound_of(left), bound_of(right)):
        return None
    with np.errstate(all="ignore"):
        values = one + other if operator == "+" else one - other
        if operator == "*":
            values = one * other
    nulls = _either(left.nulls, right.nulls)
    if is_real:
        odd = ~np.isfinite(values)
        if (odd if nulls is None else odd & ~nulls).any():
            return None
    return Array(values, nulls, "REAL" if is_real else "INTEGER")


def _remainder(left: Array, right: Array) -> Array | None:
    """`%` of integers by one that is not zero, with the sign of the left one."""
    if left.type == right.type == "INTEGER" and right.values.ndim == 0:
        divisor = int(right.values)
        if divisor not in (0, -1):
            return Array(np.fmod(left.values, divisor), left.nulls, "INTEGER")
    return None


def bound_of(array: Array) -> int:
    """The largest absolute value, NULLs' included."""
    values = array.values
    if not values.size:
        return 0
    return max(abs(int(values.min())), abs(int(values.max())))


def _fits(operator: str, one: int, other: int) -> bool:
    return (one * other if operator == "*" else one + other) <= SAFE


def _either(one: np.ndarray | None, other: np.ndarray | None) -> np.ndarray | None:
    if one is None or other is None:
        return other if one is None else one
    both: np.ndarray = np.logical_or(one, other)
    return both


# ------------------------------------------------------------------------- keys


def _codes(key: Expression, scope: RowScope, rows: Rows, check: Check) -> Codes | None:
    """A key of GROUP BY as codes."""
    check()
    if isinstance(key, ColumnRef):
        slot = scope.column(key)
        if slot.type == "TEXT":
            source = _source(scope, slot.position)
            found = rows.codes(source)
            if found is not None:
                return _text_codes(*found)
            return _many_text_codes(rows.column(source), check)
    array = evaluated(key, scope, rows)
    if array is None or array.values.ndim == 0:
        return None
    if array.values.dtype.kind == "f":
        return _unique_codes(array, check)
    return _whole_codes(array) or _unique_codes(array, check)


def _text_codes(codes: np.ndarray, values: list[str]) -> Codes:
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = np.zeros(len(values) + 1, np.int64)  # the last one, −1, is NULL
    ranks[order] = np.arange(1, len(values) + 1)
    ranked = [None, *[values[place] for place in order]]
    return Codes(ranks[codes], len(ranked), lambda some: [ranked[code] for code in some.tolist()])


def _many_text_codes(values: list[Any], check: Check) -> Codes | None:
    """Texts of which too many differ to have codes already, by their ranks."""
    if not kinds_of(values, check) <= {str, type(None)}:
        return None
    known: dict[Any, int] = defaultdict(counting().__next__)  # codes in the order of first rows
    codes = np.empty(len(values), np.int64)
    for some in slices(len(values), 4 * SLICE_VALUES, check):
        codes[some] = list(map(known.__getitem__, values[some]))
    differing = list(known)
    ranks = np.zeros(len(differing), np.int64)
    places = list(range(len(differing)))
    if None in known:
        places.remove(known[None])
    order = value_order(places, differing, check)
    for some in slices(len(order), 4 * SLICE_VALUES, check):
        ranks[order[some]] = np.arange(some.start + 1, some.stop + 1)
    ranked = [None, *mapped(order, differing.__getitem__, check)]
    emptied(check, order, places, differing)
    known.clear()
    check()
    decode = ranked.__getitem__
    return Codes(ranks[codes], len(ranked), lambda some: list(map(decode, some.tolist())))


def _whole_codes(array: Array) -> Codes | None:
    """Whole numbers of a small range are codes themselves."""
    values, nulls = array.values, array.nulls
    present = values if nulls is None else values[~nulls]
    if not len(present):
        return Codes(np.zeros(len(values), np.int64), 1, lambda some: [None] * len(some))
    low, high = int(present.min()), int(present.max())
    if high - low > 4 * len(values) + ROOM:
        return None
    codes = values.astype(np.int64) - low + 1
    if nulls is not None:
        codes[nulls] = 0
    given = _given(array.type)
    return Codes(
        codes,
        high - low + 2,
        lambda some: [given(code + low - 1) if code else None for code in some.tolist()],
    )


def _unique_codes(array: Array, check: Check) -> Codes:
    """Numbers by their ranks."""
    values, nulls = array.values, array.nulls
    present = values if nulls is None else values[~nulls]
    found, inverse = distinct_numbers(present, check)
    codes = np.zeros(len(values), np.int64)
    codes[slice(None) if nulls is None else ~nulls] = inverse + 1
    given = _given(array.type)
    known = [None, *mapped(listed(found, check), given, check)]
    return Codes(codes, len(known), lambda some: [known[code] for code in some.tolist()])


def _given(type: str) -> Callable[[Any], Any]:
    """What a stored number is to a reader."""
    if type == "BOOLEAN":
        return bool
    return timestamp_value if type == "TIMESTAMP" else lambda value: value


# ------------------------------------------------------------------------- bins


def _quotient(value: Any, count: int) -> Any:
    return None if value is None or not count else value / count


def _value(value: Any, count: int) -> Any:
    return value if count else None


def _number_or_null(value: float) -> float | None:
    return None if value != value else value + 0.0


class _Bins:
    """The rows by their groups, and what is computed of each group."""

    __slots__ = ("_check", "_chosen", "_codes", "_count", "_keys", "_size", "groups")

    def __init__(self, keys: Sequence[Codes], count: int, check: Check) -> None:
        self._keys = keys
        self._check = check
        self._count = count
        self._codes: np.ndarray | None = None
        self._size = 1
        for key in keys:
            if self._codes is None:
                self._codes, self._size = key.codes, key.size
            else:
                self._join(key)
        self._chosen = np.zeros(1, np.int64)
        if self._codes is not None:
            check()
            self._chosen = np.flatnonzero(np.bincount(self._codes, minlength=self._size))
        self.groups = len(self._chosen)

    def _join(self, key: Codes) -> None:
        """One more key; numbers grow as the product and are brought back where they are many."""
        assert self._codes is not None
        if self._size * key.size > 4 * self._count + ROOM:
            self._renumber()
            if self._size * key.size > 4 * self._count + ROOM:
                self._codes = self._codes * key.size + key.codes
                self._size *= key.size
                self._renumber()
                return
        self._codes = self._codes * key.size + key.codes
        self._size *= key.size

    def _renumber(self) -> None:
        """Codes without gaps; what they stood for is found through their first rows."""
        assert self._codes is not None
        inverse: np.ndarray = distinct_numbers(self._codes, self._check)[1]
        self._codes = inverse
        self._size = int(inverse.max()) + 1

    def first(self) -> np.ndarray:
        """The place of the first row of each group."""
        if self._codes is None:
            return np.zeros(1, np.int64)
        places = np.zeros(self._size, np.int64)
        places[self._codes[::-1]] = np.arange(self._count - 1, -1, -1)
        return places[self._chosen]

    def keys(self) -> list[list[Any]]:
        """The values of each key, group by group."""
        if not self._keys:
            return []
        places = self.first()
        found: list[list[Any]] = [[] for _ in self._keys]
        for some in slices(len(places), SLICE_VALUES, self._check):
            for key, values in zip(self._keys, found, strict=True):
                values.extend(key.decode(key.codes[places[some]]))
        return found

    def aggregate(self, name: str, argument: Array | None) -> list[Any] | None:
        """An aggregate of each group; None where the loop must do it."""
        codes = self._codes
        if argument is None:
            return self._counted(codes)
        values, nulls = argument.values, argument.nulls
        if values.ndim == 0:
            values = np.broadcast_to(values, self._count)
        if nulls is not None:
            present = ~nulls
            values = values[present]
            codes = None if codes is None else codes[present]
        counts = self._counted(codes, len(values))
        if name == "count":
            return counts
        if name in ("min", "max"):
            found = self._extremes(values, codes, name == "min")
        elif name == "sum" and argument.type == "INTEGER":
            whole = self._whole_sums(values, codes)
            if whole is None:
                return None
            found = whole
        else:
            found = self._real_sums(values, codes)
            if name == "total":
                return found
            if name == "avg":
                found = self._paired(found, counts, _quotient)
        return self._paired(found, counts, _value)

    def _paired(
        self, found: list[Any], counts: list[int], call: Callable[[Any, int], Any]
    ) -> list[Any]:
        """A value of each group from what was found and its number of values."""
        made: list[Any] = []
        for some in slices(len(found), SLICE_VALUES, self._check):
            made += map(call, found[some], counts[some])
        return made

    def _counted(self, codes: np.ndarray | None, count: int | None = None) -> list[int]:
        if codes is None:
            return [self._count if count is None else count]
        self._check()
        return listed(np.bincount(codes, minlength=self._size)[self._chosen], self._check)

    def _real_sums(self, values: np.ndarray, codes: np.ndarray | None) -> list[Any]:
        """Sums as reals, one value after the other (VG1); what is no number is NULL."""
        self._check()
        with np.errstate(all="ignore"):
            sums: np.ndarray = np.zeros(1)
            if codes is None and len(values):
                sums = np.cumsum(values, dtype=np.float64)[-1:]
            elif codes is not None:
                sums = np.bincount(codes, weights=values, minlength=self._size)[self._chosen]
        self._check()
        return mapped(listed(sums, self._check), _number_or_null, self._check)

    def _whole_sums(self, values: np.ndarray, codes: np.ndarray | None) -> list[int] | None:
        """Sums of integers; None where one might not fit (VG2)."""
        if not len(values):
            return [0] * self.groups
        most = max(abs(int(values.min())), abs(int(values.max()))) * len(values)
        if most > SAFE:
            return None
        if codes is None:
            return [int(values.sum())]
        if most < EXACT:
            exact = np.bincount(codes, weights=values, minlength=self._size)[self._chosen]
            return listed(exact.astype(np.int64), self._check)
        whole = np.zeros(self._size, np.int64)
        for some in slices(len(values), SLICE_NUMBERS, self._check):
            np.add.at(whole, codes[some], values[some])
        return listed(whole[self._chosen], self._check)

    def _extremes(self, values: np.ndarray, codes: np.ndarray | None, least: bool) -> list[Any]:
        """The least or the greatest value of each group; any value where it has none."""
        if codes is None:
            if not len(values):
                return [None]
            return [(values.min() if least else values.max()).item()]
        if values.dtype.kind == "f":
            start: Any = np.inf if least else -np.inf
        else:
            bounds = np.iinfo(values.dtype)
            start = bounds.max if least else bounds.min
        found = np.full(self._size, start, values.dtype)
        choose = np.minimum if least else np.maximum
        for some in slices(len(values), SLICE_NUMBERS, self._check):
            choose.at(found, codes[some], values[some])
        return listed(found[self._chosen], self._check)
