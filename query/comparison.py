"""Comparison: the order of values across storage classes, and three-valued logic.

    NULL  <  numbers and booleans  <  timestamps  <  text  <  blob

Text compares by code points, which is the order of its UTF-8 bytes. A comparison with NULL is
NULL (None); IS and IS NOT never are. Vectors have no order: DataError.

Invariants
    X3  `sort_key` orders any two values as `compare` does; None comes first.
"""

from __future__ import annotations

import datetime
import operator
from collections.abc import Callable
from typing import Any

from m2mdb.index.collations import FOLDS
from m2mdb.index.slices import SLICE_VALUES, slices
from m2mdb.pager.errors import DataError, ProgrammingError
from m2mdb.query import extensions
from m2mdb.query.affinity import APPLY, NONE, NUMERIC, TEXT, TIME, Value, shown, type_name

_RANKS: dict[type, int] = {
    type(None): 0,
    int: 1,
    float: 1,
    bool: 1,
    datetime.datetime: 2,
    str: extensions.TEXT_RANK,
    extensions.Collated: extensions.TEXT_RANK,
    bytes: 4,
}
_DIRECT = frozenset({int, float, str, bytes, bool, datetime.datetime})


def rank(value: Value) -> int:
    """The place of a value's storage class in the order.

    Raises DataError for a vector.
    """
    found = _RANKS.get(type(value))
    if found is None:
        hint = "; a list of values goes with IN ?" if isinstance(value, list | tuple) else ""
        raise DataError(f"{type_name(value)} {shown(value)} cannot be compared{hint}")
    return found


def sort_key(value: Value) -> tuple[int, Any]:
    """A key that sorts as SQLite orders values (X3)."""
    return (rank(value), 0 if value is None else value)


def compare(left: Value, right: Value) -> int:
    """-1, 0 or 1 for two values that are not NULL."""
    one, other = rank(left), rank(right)
    if one != other:
        return -1 if one < other else 1
    return int(left > right) - int(left < right)


def _ordered(apply: Callable[[Any, Any], bool]) -> Callable[[Value, Value], bool | None]:
    """A comparison operator; values of one type go straight to Python's."""

    def run(left: Value, right: Value) -> bool | None:
        if left is None or right is None:
            return None
        kind = type(left)
        if kind is type(right) and kind in _DIRECT:
            return apply(left, right)
        return apply(compare(left, right), 0)

    return run


def same(left: Value, right: Value) -> bool:
    """`left IS right`: equal, or both NULL."""
    if left is None or right is None:
        return left is right
    return compare(left, right) == 0


COMPARISONS: dict[str, Callable[[Value, Value], bool | None]] = {
    "=": _ordered(operator.eq),
    "!=": _ordered(operator.ne),
    "<": _ordered(operator.lt),
    "<=": _ordered(operator.le),
    ">": _ordered(operator.gt),
    ">=": _ordered(operator.ge),
    "IS": same,
    "IS NOT": lambda left, right: not same(left, right),
}
DIRECT_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
MIRRORED = {"=": "=", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


def conversions(left: str, right: str) -> tuple[str, str]:
    """The affinity to apply to each operand before a comparison; NONE for none.

    A number's or a moment's affinity reaches across to the other operand; text's does so only
    where the other has none.
    """
    if TIME in (left, right):
        return (NONE if left == TIME else TIME), (NONE if right == TIME else TIME)
    if NUMERIC in (left, right):
        return (NONE if left == NUMERIC else NUMERIC), (NONE if right == NUMERIC else NUMERIC)
    if left == TEXT and right == NONE:
        return NONE, TEXT
    if right == TEXT and left == NONE:
        return TEXT, NONE
    return NONE, NONE


def both(left: bool | None, right: bool | None) -> bool | None:
    """AND of two truths."""
    if left is False or right is False:
        return False
    return None if left is None or right is None else True


def either(left: bool | None, right: bool | None) -> bool | None:
    """OR of two truths."""
    if left is True or right is True:
        return True
    return None if left is None or right is None else False


def member(value: Value, values: list[Value]) -> bool | None:
    """`value IN (values)`, with the values converted already."""
    if not values:
        return False
    if value is None:
        return None
    if any(item is not None and compare(value, item) == 0 for item in values):
        return True
    return None if None in values else False


def member_set(
    values: list[Value], affinity: str, check: Callable[[], None] = lambda: None
) -> tuple[frozenset[Value], bool]:
    """The values of an IN list, converted, as a set, and whether NULL is among them.

    check  called between slices of a long list; it may raise
    Raises DataError: a value that cannot be compared.
    """
    apply = APPLY.get(affinity)
    members: set[Value] = set()
    for some in slices(len(values), SLICE_VALUES, check):
        own = values[some] if apply is None else list(map(apply, values[some]))
        for value in own:
            rank(value)
        members.update(own)
    has_null = None in members
    members.discard(None)
    return frozenset(members), has_null


def fold_of(collation: str) -> Callable[[Value], Value] | None:
    """What a collation does to a value before it is compared; None for BINARY.

    Raises ProgrammingError: no such collation.
    """
    own = extensions.collation(collation)
    if own is not None:
        return own
    upper = collation.upper()
    if upper not in FOLDS:
        raise ProgrammingError(f"no such collation: {collation}; known are {', '.join(FOLDS)}")
    return FOLDS[upper]


def fold_of_type(type: str | None) -> Callable[[Value], Value] | None:
    """What the collation of a column type does; None for BINARY (`Column.value_type`)."""
    return None if type is None else FOLDS[type.partition(" COLLATE ")[2] or "BINARY"]
