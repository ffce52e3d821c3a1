"""Arithmetic: the operators on numbers, bits and texts, with SQLite's rules.

Integers stay integers while they fit 64 bits and become reals beyond; division cuts towards zero
and by zero gives NULL; a NaN is NULL (X1, X2 of `query.affinity`). NULL in, NULL out.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable

from m2mdb.query.affinity import INT64_MAX, INT64_MIN, Value, to_integer, to_number, to_text


def _fits(value: int) -> bool:
    return INT64_MIN <= value <= INT64_MAX


def _real(value: float) -> float | None:
    return None if value != value else value


def _make(
    apply: Callable[[int | float, int | float], int | float],
) -> Callable[[Value, Value], Value]:
    """An operator whose integer result falls back to reals when it overflows."""

    def run(left: Value, right: Value) -> Value:
        left, right = to_number(left), to_number(right)
        if left is None or right is None:
            return None
        result = apply(left, right)
        if type(result) is int:
            return result if _fits(result) else apply(float(left), float(right))
        return _real(result)

    return run


add = _make(operator.add)
subtract = _make(operator.sub)
multiply = _make(operator.mul)


def divide(left: Value, right: Value) -> Value:
    """`/`: integers cut towards zero; by zero NULL."""
    left, right = to_number(left), to_number(right)
    if left is None or right is None or right == 0:
        return None
    if type(left) is int and type(right) is int:
        quotient = abs(left) // abs(right)
        quotient = quotient if (left < 0) == (right < 0) else -quotient
        return quotient if _fits(quotient) else float(quotient)
    try:
        return _real(left / right)
    except OverflowError:
        return math.inf if (left < 0) == (right < 0) else -math.inf


def remainder(left: Value, right: Value) -> Value:
    """`%`: of the integer parts, with the sign of the left; real where an operand is real."""
    above, below = to_integer(left), to_integer(right)
    if above is None or not below:
        return None
    rest = abs(above) % abs(below)
    rest = -rest if above < 0 else rest
    is_whole = type(to_number(left)) is int and type(to_number(right)) is int
    return rest if is_whole else float(rest)


def concatenate(left: Value, right: Value) -> Value:
    """`||`: the texts of both."""
    if type(left) is str and type(right) is str:
        return left + right
    left, right = to_text(left), to_text(right)
    return None if left is None or right is None else left + right


def _bits(apply: Callable[[int, int], int]) -> Callable[[Value, Value], Value]:
    def run(left: Value, right: Value) -> Value:
        left, right = to_integer(left), to_integer(right)
        return None if left is None or right is None else apply(left, right)

    return run


def _signed(value: int) -> int:
    """The low 64 bits as a signed integer."""
    return ((value + 2**63) & (2**64 - 1)) - 2**63


def _shift(value: int, count: int) -> int:
    """To the left by `count` bits, to the right where it is negative, keeping the sign."""
    if count < 0:
        return value >> min(-count, 64)
    return _signed(value << count) if count < 64 else 0


bit_and = _bits(operator.and_)
bit_or = _bits(operator.or_)
shift_left = _bits(_shift)
shift_right = _bits(lambda value, count: _shift(value, -count))


def negate(value: Value) -> Value:
    """Unary minus."""
    number = to_number(value)
    if number is None:
        return None
    return float(-number) if number == INT64_MIN else -number


def bit_not(value: Value) -> Value:
    """`~`."""
    number = to_integer(value)
    return None if number is None else ~number


BINARY: dict[str, Callable[[Value, Value], Value]] = {
    "+": add,
    "-": subtract,
    "*": multiply,
    "/": divide,
    "%": remainder,
    "||": concatenate,
    "&": bit_and,
    "|": bit_or,
    "<<": shift_left,
    ">>": shift_right,
}
