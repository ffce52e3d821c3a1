"""Ordering: ORDER BY, DISTINCT and LIMIT over rows that are there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

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


def sorted_order(keys: Sequence[SortKey], count: int) -> np.ndarray:
    """The places of `count` rows in the order of the keys; equal rows keep theirs.

    Raises DataError: vectors have no order.
    """
    if len(keys) == 1:
        fast = _number_order(keys[0])
        if fast is not None:
            return fast
    order = list(range(count))
    for key in reversed(keys):
        order.sort(key=_comparable(key).__getitem__, reverse=key.descending)
    return np.array(order, np.int64)


def _number_order(key: SortKey) -> np.ndarray | None:
    """By NumPy where all values are numbers of one type."""
    kinds = set(map(type, key.values))
    if kinds not in ({int}, {float}):
        return None
    return array_order(
        np.array(key.values, np.int64 if kinds == {int} else np.float64), key.descending
    )


def array_order(values: np.ndarray, descending: bool) -> np.ndarray:
    """The places of numbers, none of them NULL, in their order; equal ones keep theirs."""
    if not descending:
        return np.argsort(values, kind="stable")
    return len(values) - 1 - np.argsort(values[::-1], kind="stable")[::-1]


def _comparable(key: SortKey) -> list[Any]:
    """The values in a form that Python compares as SQLite orders them."""
    if set(map(type, key.values)) in _LIKE_KINDS:
        return key.values
    nulls_low = key.nulls_first is None or key.nulls_first != key.descending
    for_null = (0 if nulls_low else NULLS_LAST_RANK, 0)
    return [for_null if value is None else sort_key(value) for value in key.values]


def distinct_rows(
    rows: list[tuple[Any, ...]], folds: Sequence[Callable[[Value], Value] | None] = ()
) -> list[tuple[Any, ...]]:
    """The rows without those that equal an earlier one; `folds`: each column's collation.

    Raises DataError: vectors cannot be compared.
    """
    if any(folds):
        found: dict[Any, tuple[Any, ...]] = {}
        for row in rows:
            for value in row:
                rank(value)
            pairs = zip(row, folds, strict=True)
            found.setdefault(tuple([v if fold is None else fold(v) for v, fold in pairs]), row)
        return list(found.values())
    try:
        return list(dict.fromkeys(rows))
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
