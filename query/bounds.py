"""Bounds: exact comparison of stored numbers with a constant.

An int64 and a float64 do not convert to each other without loss, so the constant is moved to the
nearest number of the column's kind and the operator with it: `x > 2.5` on integers is `x >= 3`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from m2mdb.query.affinity import INT64_MAX, INT64_MIN

if TYPE_CHECKING:
    from m2mdb.index.zones import Zones

_APPLY: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def integer_bound(symbol: str, constant: int | float) -> tuple[str, int] | bool:
    """The same comparison with an int64; a bool where all integers compare alike."""
    if isinstance(constant, float):
        if math.isinf(constant):
            constant = 2**64 if constant > 0 else -(2**64)
        elif not constant.is_integer():
            if symbol in ("=", "!="):
                return symbol == "!="
            below = symbol in ("<", "<=")
            return ("<=", math.floor(constant)) if below else (">=", math.ceil(constant))
        else:
            constant = int(constant)
    if constant > INT64_MAX:
        return symbol in ("<", "<=", "!=")
    if constant < INT64_MIN:
        return symbol in (">", ">=", "!=")
    return symbol, int(constant)


def real_bound(symbol: str, constant: int | float) -> tuple[str, float] | bool:
    """The same comparison with a float64; a bool where all reals compare alike."""
    nearest = float(constant)
    if nearest == constant:
        return symbol, nearest
    if symbol in ("=", "!="):
        return symbol == "!="
    if symbol in ("<", "<="):
        return ("<" if nearest > constant else "<="), nearest
    return (">" if nearest < constant else ">="), nearest


def number_comparison(values: np.ndarray, symbol: str, constant: int | float) -> np.ndarray:
    """bool (n,): `value symbol constant` for int64, float64 or uint8 values, exactly."""
    is_real = values.dtype.kind == "f"
    moved = real_bound(symbol, constant) if is_real else integer_bound(symbol, constant)
    if isinstance(moved, bool):
        return np.full(len(values), moved)
    symbol, bound = moved
    if values.dtype.kind == "u" and not 0 <= bound <= 255:
        values = values.astype(np.int64)
    result: np.ndarray = _APPLY[symbol](values, bound)
    return result


def may_hold(zones: Zones, symbol: str, constant: int | float) -> np.ndarray:
    """bool (blocks,): whether a value of a block may pass `value symbol constant`, NULLs never."""
    low, high = zones.low, zones.high
    is_real = low.dtype.kind == "f"
    moved = real_bound(symbol, constant) if is_real else integer_bound(symbol, constant)
    filled = zones.nulls < zones.rows
    if isinstance(moved, bool):
        return filled & moved
    symbol, bound = moved
    apply = _APPLY[symbol]
    if symbol == "=":
        may = (low <= bound) & (high >= bound)
    elif symbol == "!=":
        may = (low != bound) | (high != bound)
    else:
        may = apply(low if symbol in ("<", "<=") else high, bound)
    if is_real:
        may |= np.isnan(low) | np.isnan(high)
    found: np.ndarray = may & filled
    return found
