"""Stability: conditions that depend on the row and on bound values alone, and keys for these.

The mask of such a condition may be kept: for equal values it is the same whenever it is asked for.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from m2mdb.query import extensions
from m2mdb.query.constants import walk
from m2mdb.query.nodes import (
    Between,
    Binary,
    Cast,
    Collate,
    ColumnRef,
    Expression,
    In,
    IsNull,
    JsonPath,
    Like,
    Literal,
    Parameter,
    Unary,
)

_STABLE = (
    Between, Binary, Cast, Collate, ColumnRef, In, IsNull, JsonPath, Like, Literal, Parameter,
    Unary,
)  # fmt: skip
MOST_ITEMS = 256  # of a list that is part of a key
MOST_CHARACTERS = 4096  # of a text


def parameters_of(node: Expression) -> tuple[int, ...] | None:
    """The parameters that a condition reads; None where it depends on more than these.

    Functions, collations and operators of the program are not looked into: they count as more.
    """
    found: list[int] = []
    for each in walk(node):
        if type(each) not in _STABLE:
            return None
        if isinstance(each, Collate) and extensions.collation(each.collation) is not None:
            return None
        if isinstance(each, Like):
            name = each.operator.lower()
            if any(extensions.function(name, count) is not None for count in (2, 3)):
                return None
        if isinstance(each, Parameter):
            found.append(each.index)
    return tuple(found)


def key_of(values: Sequence[Any], indexes: tuple[int, ...]) -> Hashable | None:
    """A key that differs where values differ in anything; None where there is none."""
    key = []
    for index in indexes:
        item = _item(values[index])
        if item is None:
            return None
        key.append(item)
    return tuple(key)


def _item(value: Any) -> Hashable | None:
    kind = type(value)
    if kind is int or kind is bool or value is None:
        return kind, value
    if kind is float:
        return kind, value.hex()  # -0.0 is not 0.0, and NaN is NaN
    if kind is str or kind is bytes:
        return (kind, value) if len(value) <= MOST_CHARACTERS else None
    if kind in (list, tuple) and len(value) <= MOST_ITEMS:
        items = [_item(each) for each in value]
        return None if None in items else (kind, tuple(items))
    return None
