"""Mathematics: the functions of numbers that need more than arithmetic, with SQLite's results.

An argument that is no number, and no text of one, gives NULL, and so does what has no real value;
what grows beyond all reals is an infinity.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import SupportsFloat

import numpy as np

from m2mdb.query.affinity import Value, numeral


def number(value: Value) -> int | float | None:
    """A number or the number that a whole text is; else None."""
    found = numeral(value) if type(value) is str else value
    if isinstance(found, bool):
        return int(found)
    return found if isinstance(found, int | float) else None


def _by(
    apply: Callable[[float], float], ufunc: Callable[..., SupportsFloat]
) -> Callable[[Value], Value]:
    """A function of one real; `ufunc` is the same where Python's raises."""

    def run(value: Value) -> Value:
        found = number(value)
        if found is None:
            return None
        try:
            result = apply(float(found))
        except (ValueError, OverflowError):
            with np.errstate(all="ignore"):
                result = float(ufunc(float(found)))
        return None if result != result else result

    return run


def _whole(apply: Callable[[float], int]) -> Callable[[Value], Value]:
    """A function that gives whole numbers; an integer stays as it is."""

    def run(value: Value) -> Value:
        found = number(value)
        if found is None or type(found) is int:
            return found
        return found if math.isinf(found) else float(math.copysign(apply(found), found))

    return run


def _pair(ufunc: Callable[..., SupportsFloat]) -> Callable[[Value, Value], Value]:
    def run(left: Value, right: Value) -> Value:
        one, other = number(left), number(right)
        if one is None or other is None:
            return None
        with np.errstate(all="ignore"):
            result = float(ufunc(float(one), float(other)))
        return None if result != result else result

    return run


def _logarithm(apply: Callable[[float], float]) -> Callable[[Value], Value]:
    """Of positive numbers alone."""

    def run(value: Value) -> Value:
        found = number(value)
        return None if found is None or found <= 0 else apply(float(found))

    return run


_log10 = _logarithm(math.log10)


def _log_to(*values: Value) -> Value:
    """`log(x)` to the base 10, `log(base, x)`."""
    if len(values) == 1:
        return _log10(values[0])
    base, found = number(values[0]), number(values[1])
    if base is None or found is None or base <= 0 or found <= 0:
        return None
    below = math.log(base)
    result = math.log(found) / below if below > 0 else math.nan
    return None if result != result else result


MATHEMATICS: dict[str, tuple[Callable[..., Value], int, int | None]] = {
    "acos": (_by(math.acos, np.arccos), 1, 1),
    "acosh": (_by(math.acosh, np.arccosh), 1, 1),
    "asin": (_by(math.asin, np.arcsin), 1, 1),
    "asinh": (_by(math.asinh, np.arcsinh), 1, 1),
    "atan": (_by(math.atan, np.arctan), 1, 1),
    "atan2": (_pair(np.arctan2), 2, 2),
    "atanh": (_by(math.atanh, np.arctanh), 1, 1),
    "ceil": (_whole(math.ceil), 1, 1),
    "ceiling": (_whole(math.ceil), 1, 1),
    "cos": (_by(math.cos, np.cos), 1, 1),
    "cosh": (_by(math.cosh, np.cosh), 1, 1),
    "degrees": (_by(math.degrees, np.degrees), 1, 1),
    "exp": (_by(math.exp, np.exp), 1, 1),
    "floor": (_whole(math.floor), 1, 1),
    "ln": (_logarithm(math.log), 1, 1),
    "log": (_log_to, 1, 2),
    "log10": (_log10, 1, 1),
    "log2": (_logarithm(math.log2), 1, 1),
    "mod": (_pair(np.fmod), 2, 2),
    "pi": (lambda: math.pi, 0, 0),
    "pow": (_pair(np.power), 2, 2),
    "power": (_pair(np.power), 2, 2),
    "radians": (_by(math.radians, np.radians), 1, 1),
    "sin": (_by(math.sin, np.sin), 1, 1),
    "sinh": (_by(math.sinh, np.sinh), 1, 1),
    "sqrt": (_by(math.sqrt, np.sqrt), 1, 1),
    "tan": (_by(math.tan, np.tan), 1, 1),
    "tanh": (_by(math.tanh, np.tanh), 1, 1),
    "trunc": (_whole(math.trunc), 1, 1),
}
