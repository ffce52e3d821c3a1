"""Collations: how the texts of a column are compared.

    BINARY   by code points, the default
    NOCASE   as if the ASCII letters A to Z were small
    RTRIM    as if the spaces at the end were not there

A collation is a fold: what it makes of a text is compared by code points in its place. So equal
texts have one folded form, which is what key hashes, mirrors' look-ups and B-tree entries have of
a column with a collation, while its rows keep what was given.

Invariants
    CO1 A fold changes texts alone, and folding twice changes nothing more.
    CO2 What is in a file depends on these three alone: a program's own collations stand in
        expressions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from m2mdb.index.slices import Check, mapped, unchecked

Fold = Callable[[Any], Any]


def fold_nocase(value: Any) -> Any:
    """COLLATE NOCASE: ASCII letters in lower case."""
    if type(value) is not str:
        return value
    return value.lower() if value.isascii() else value.translate(_LOWER)


def fold_rtrim(value: Any) -> Any:
    """COLLATE RTRIM: without the spaces at the end."""
    return value.rstrip(" ") if type(value) is str else value


_LOWER = {letter: letter + 32 for letter in range(ord("A"), ord("Z") + 1)}
FOLDS: dict[str, Fold | None] = {"BINARY": None, "NOCASE": fold_nocase, "RTRIM": fold_rtrim}


def folded(fold: Fold | None, values: list[Any], check: Check = unchecked) -> list[Any]:
    """Values as they are compared; the same list where nothing folds them.

    check  called between slices of many values; it may raise
    """
    return values if fold is None else mapped(values, fold, check)


def each_folded(fold: Fold | None, values: Iterable[Any]) -> Iterable[Any]:
    """As `folded`, one after the other."""
    return values if fold is None else map(fold, values)


def folded_value(folds: Sequence[Fold | None], value: Any) -> Any:
    """A value of an index as it is compared: of one column, or a tuple of several."""
    if not any(folds):
        return value
    if not isinstance(value, tuple):
        return value if folds[0] is None else folds[0](value)
    pairs = zip(folds, value, strict=False)
    return tuple([one if fold is None else fold(one) for fold, one in pairs])
