"""Ordering: ORDER BY, DISTINCT and LIMIT over rows that are there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from m2mdb.index.slices import (
    SLICE_VALUES,
    array_of,
    counting_up,
    distinct_values,
    emptied,
    kinds_of,
    listed,
    number_order,
    slices,
    taken,
    value_order,
)
from m2mdb.pager.errors import DataError
from m2mdb.query.affinity import Value, apply_numeric, shown
from m2mdb.query.comparison import rank, sort_key

_LIKE_KINDS = ({int}, {float}, {str}, {bytes}, {bool})
NULLS_LAST_RANK = 9  # behind every storage class


class SortKey:
    """One key of ORDER BY: its values, and which way it goes."""

    __slots__ = ("descending", "nulls_first", "values")

    def __init__(self, values: list[Value], descending: bool, nulls_first: bool | None) -> None:
        """`nulls_first` None: SQLite's default, NULLs are the smallest."""
        self.values = values
        self.descending = descending
        self.nulls_first = nulls_first


def sorted_order(keys: Sequence[SortKey], count: int, check: Callable[[], None]) -> np.ndarray:
    """The places of `count` rows in the order of the keys; equal rows keep theirs.

    check  called between slices of the work; it may raise
    Raises DataError: vectors have no order.
    """
    order: np.ndarray | None = None
    for key in reversed(keys):
        kinds = kinds_of(key.values, check)
        if kinds in ({int}, {float}):
            values = array_of(key.values, np.int64 if kinds == {int} else np.float64, check)
            if order is None:
                order = array_order(values, key.descending, check)
            else:
                ordered_values = taken(values, order, check)
                order = taken(order, array_order(ordered_values, key.descending, check), check)
            continue
        places = listed(counting_up(0, count, check) if order is None else order, check)
        comparable = _comparable(key, kinds, check)
        ordered = value_order(places, comparable, check, descending=key.descending)
        order = array_of(ordered, np.int64, check)
        emptied(check, places, ordered)
    return np.arange(count) if order is None else order


def array_order(values: np.ndarray, descending: bool, check: Callable[[], None]) -> np.ndarray:
    """The places of numbers, none of them NULL, in their order; equal ones keep theirs."""
    if not descending:
        return number_order(values, check)
    return len(values) - 1 - number_order(values[::-1], check)[::-1]


def _comparable(key: SortKey, kinds: set[type], check: Callable[[], None]) -> list[Any]:
    """The values in a form that Python compares as SQLite orders them."""
    if kinds in _LIKE_KINDS:
        return key.values
    nulls_low = key.nulls_first is None or key.nulls_first != key.descending
    for_null = (0 if nulls_low else NULLS_LAST_RANK, 0)
    found: list[Any] = []
    for some in slices(len(key.values), SLICE_VALUES, check):
        found += [for_null if value is None else sort_key(value) for value in key.values[some]]
    return found


def distinct_rows(
    rows: list[tuple[Any, ...]],
    folds: Sequence[Callable[[Value], Value] | None],
    check: Callable[[], None],
) -> list[tuple[Any, ...]]:
    """The rows without those that equal an earlier one; `folds`: each column's collation.

    check  called between slices of the work; it may raise
    Raises DataError: vectors cannot be compared.
    """
    if any(folds):
        found: dict[Any, tuple[Any, ...]] = {}
        for some in slices(len(rows), SLICE_VALUES, check):
            for row in rows[some]:
                for value in row:
                    rank(value)
                pairs = zip(row, folds, strict=True)
                found.setdefault(tuple([v if fold is None else fold(v) for v, fold in pairs]), row)
        return list(found.values())
    try:
        return list(distinct_values(rows, check))
    except TypeError:
        for row in rows:
            for value in row:
                rank(value)
        raise


def row_limit(value: Value, name: str) -> int | None:
    """LIMIT or OFFSET as a number; None: no limit.

    Raises DataError: no integer.
    """
    number = apply_numeric(value)
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if not isinstance(number, int):
        raise DataError(f"{name} is {shown(value)}; expected an integer")
    return None if number < 0 else int(number)
