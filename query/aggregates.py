"""Aggregates: count, sum, total, avg, min, max and group_concat over the rows of a group.

A group's values are gathered as a list, NULLs left out, and reduced at once: `AGGREGATES[name]`
takes that list. `count(*)` takes the number of rows instead and is no entry here.
"""

from __future__ import annotations

from collections.abc import Callable

from m2mdb.index.slices import SLICE_NUMBERS, Check, kinds_of, slices, watched
from m2mdb.pager.errors import DataError, PlacedFault
from m2mdb.query import extensions
from m2mdb.query.affinity import INT64_MAX, INT64_MIN, Value, apply_numeric, to_number, to_text
from m2mdb.query.comparison import sort_key
from m2mdb.query.json_functions import group_array, group_object
from m2mdb.query.nodes import FunctionCall

_NUMBERS = {int, float}


def _numbers(values: list[Value]) -> list[int | float]:
    """The values as numbers; a text that is no numeral counts as 0.0."""
    if set(map(type, values)) <= _NUMBERS:
        return values
    result: list[int | float] = []
    for value in values:
        number = apply_numeric(value)
        if isinstance(number, str | bytes):
            number = float(to_number(number) or 0)
        found = to_number(number)
        result.append(0 if found is None else found)
    return result


def _sum(values: list[Value]) -> Value:
    if not values:
        return None
    numbers = _numbers(values)
    if float in set(map(type, numbers)):
        return _real(numbers)
    return _whole(sum(numbers))


def _whole(total: int | float) -> Value:
    if not INT64_MIN <= total <= INT64_MAX:
        raise DataError(f"integer overflow: sum() is {total}; total() gives it as a real")
    return total


def _real(numbers: list[int | float]) -> float | None:
    total = 0.0
    for number in numbers:
        total += number
    return None if total != total else total


def _total(values: list[Value]) -> Value:
    return _real(_numbers(values))


def _average(values: list[Value]) -> Value:
    if not values:
        return None
    total = _real(_numbers(values))
    return None if total is None else total / len(values)


def _least(values: list[Value]) -> Value:
    return _extreme(values, min)


def _greatest(values: list[Value]) -> Value:
    return _extreme(values, max)


def _extreme(values: list[Value], choose: Callable[..., Value]) -> Value:
    if not values:
        return None
    kinds = set(map(type, values))
    if kinds in ({str}, {int}, {float}, {bytes}):
        return choose(values)
    return choose(values, key=sort_key)


def _concatenate(values: list[Value]) -> Value:
    return ",".join(to_text(value) or "" for value in values) if values else None


AGGREGATES: dict[str, Callable[..., Value]] = {
    "avg": _average,
    "count": len,
    "group_concat": _concatenate,
    "json_group_array": group_array,
    "json_group_object": group_object,
    "max": _greatest,
    "min": _least,
    "string_agg": _concatenate,
    "sum": _sum,
    "total": _total,
}


def reduced(name: str, values: list[Value], check: Check) -> Value:
    """`AGGREGATES[name](values)`; `check` is called between slices of many values."""
    if len(values) <= SLICE_NUMBERS:
        return AGGREGATES[name](values)
    some = slices(len(values), SLICE_NUMBERS >> 2, check)
    if name in ("min", "max"):
        return AGGREGATES[name]([AGGREGATES[name](values[each]) for each in some])
    if name not in ("sum", "total", "avg"):
        check()
        return AGGREGATES[name](values)
    numbers: list[int | float] = []
    for each in some:
        numbers += _numbers(values[each])
    if name == "sum" and float not in kinds_of(numbers, check):
        return _whole(
            sum([sum(numbers[each]) for each in slices(len(numbers), SLICE_NUMBERS, check)])
        )
    total = 0.0
    for number in watched(numbers, check):  # one by one, as `_real` adds them
        total += number
    if total != total:
        return None
    return total / len(values) if name == "avg" else total


def joined(texts: list[Value], separators: list[Value]) -> Value:
    """`group_concat(text, separator)`: the separator of a row stands before its text."""
    parts: list[str] = []
    for text, separator in zip(texts, separators, strict=True):
        if text is None:
            continue
        if parts:
            parts.append(to_text(separator) or "")
        parts.append(to_text(text) or "")
    return "".join(parts) if parts else None


def is_aggregate(node: FunctionCall) -> bool:
    """Whether a call is of an aggregate; min and max are so with one argument only.

    Raises ProgrammingError: an aggregate with a wrong number of arguments.
    """
    count = len(node.arguments)
    if extensions.aggregate(node.name, count) is not None:
        return True
    if node.name not in AGGREGATES:
        return False
    if node.name in ("min", "max"):
        return count == 1
    if node.name == "count":
        wrong = count > 1 or (count == 0 and node.distinct)
    elif node.name in ("group_concat", "string_agg"):
        wrong = not 1 <= count <= 2 or (node.distinct and count == 2)
    elif node.name == "json_group_object":
        wrong = count != 2 or node.distinct
    else:
        wrong = count != 1
    if wrong or (node.star and node.name != "count"):
        message = f"wrong number of arguments to function {node.name}()"
        raise PlacedFault(message, node.position)
    return True
