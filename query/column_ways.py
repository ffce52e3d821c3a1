"""Column ways: functions of dates and JSON over the texts of a column, many at a time.

    date(column), strftime('…', column), unixepoch(column) …   plain texts (`query.plain_dates`)
    json_extract(column, '$.a'), column ->> 'a'                numbers and texts of documents

A way gives the values of a slice of the column, or None where any of them needs the closure of the
expression; so it never tells a fault, and needs none of the statement's bindings.

Invariants
    CW1 What a way gives is what the closure gives for each of the values.
    CW2 A slice of documents is decoded as one array, between its items a text that is drawn anew
        in each process: only where each of these stands where it was put is every document whole.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from m2mdb.pager.errors import ProgrammingError
from m2mdb.query import extensions
from m2mdb.query.affinity import Value
from m2mdb.query.dates import DAY, EPOCH, TIME_FUNCTIONS
from m2mdb.query.jsonpath import (
    MISSING,
    Step,
    quoted,
    scan_plainly,
    sql_value,
    steps_of,
    walk,
)
from m2mdb.query.nodes import ColumnRef, Expression, FunctionCall, JsonPath, Literal
from m2mdb.query.plain_dates import MISSED, PLAIN, Way, cut_of, way_of
from m2mdb.query.scope import Scope

ColumnWay = Callable[[Sequence[Value]], "list[Value] | None"]

_are_plain = re.compile(rf"(?:{PLAIN}\n)*", re.ASCII).fullmatch
_MARK = f'"{uuid.uuid4()}"'  # CW2
_BETWEEN = f",{_MARK},"
DECODED = 64  # documents at a time: of more the garbage collector would look at each
_NUMBERS_AND_TEXTS = {int, float, str, type(None)}


def column_way(node: Expression, scope: Scope) -> tuple[int, ColumnWay] | None:
    """The way of a function of one column and constants, and the column's place in the row."""
    found: tuple[Expression, ColumnWay] | None = None
    if scope.replacement(node) is not None:
        return None
    if isinstance(node, JsonPath):
        found = _arrow(node)
    elif isinstance(node, FunctionCall) and extensions.function(
        node.name, len(node.arguments)
    ) is None:  # fmt: skip
        found = _extract(node) if node.name == "json_extract" else _time(node)
    if found is None or not isinstance(found[0], ColumnRef):
        return None
    if scope.replacement(found[0]) is not None:
        return None
    return scope.column(found[0]).position, found[1]


# ------------------------------------------------------------------------- dates


def _time(node: FunctionCall) -> tuple[Expression, ColumnWay] | None:
    if node.name not in TIME_FUNCTIONS or node.name == "timediff":
        return None
    place = 1 if node.name == "strftime" else 0
    others = [each for at, each in enumerate(node.arguments) if at != place]
    if len(node.arguments) <= place or not all(isinstance(each, Literal) for each in others):
        return None
    constants = [each.value for each in others if isinstance(each, Literal)]
    pattern, modifiers = (constants[0] if place else None), constants[place:]
    way = way_of(node.name, pattern, modifiers)
    if way is None:
        return None
    if modifiers:
        return node.arguments[place], _each(way)
    return node.arguments[place], _plain(node.name, way, cut_of(node.name, pattern))


def _each(way: Way) -> ColumnWay:
    """One value after the other."""

    def run(values: Sequence[Value]) -> list[Value] | None:
        found: list[Any] = list(map(way, values))
        return None if any(each is MISSED for each in found) else found

    return run


def _plain(name: str, way: Way, cut: tuple[int, int] | None) -> ColumnWay:
    """Texts that are plain, looked at in one go; `cut`: what of their moments is asked for."""
    in_turn = _each(way)

    def run(values: Sequence[Value]) -> list[Value] | None:
        texts: list[Any] = list(values)
        try:
            joined = "\n".join(texts) + "\n"
        except TypeError:
            return in_turn(values)
        if joined.count("\n") != len(texts) or _are_plain(joined) is None:
            return in_turn(values)
        if name in ("unixepoch", "julianday"):
            seconds = np.array(texts, "datetime64[s]").astype(np.int64)
            wanted = seconds if name == "unixepoch" else (seconds * 1000 + EPOCH) / DAY
            found: list[Value] = wanted.tolist()
            return found
        if cut is None or (cut[1] > 10 and min(map(len, texts)) < 19):
            return in_turn(values)
        if "T" in joined:
            texts = joined.replace("T", " ").split("\n")[:-1]
        start, stop = cut
        return [text[start:stop] for text in texts]

    return run


# ------------------------------------------------------------------------- JSON


def _extract(node: FunctionCall) -> tuple[Expression, ColumnWay] | None:
    if len(node.arguments) != 2 or not isinstance(node.arguments[1], Literal):
        return None
    path = node.arguments[1].value
    try:
        steps = steps_of(path) if type(path) is str else None
    except ProgrammingError:  # a malformed path: the closure tells it
        return None
    return None if steps is None else _parts(node.arguments[0], steps)


def _arrow(node: JsonPath) -> tuple[Expression, ColumnWay] | None:
    path = node.path.value if isinstance(node.path, Literal) else None
    if node.operator != "->>" or type(path) is not str or path.startswith("$") or "." in path:
        return None
    return _parts(node.operand, (path,))


def _parts(node: Expression, steps: tuple[Step, ...]) -> tuple[Expression, ColumnWay] | None:
    """Numbers and texts at some steps of documents (see `jsonpath._reader`).

    None where a label would be escaped in a document, which may be done in several ways.
    """
    labels = [quoted(step) for step in steps if isinstance(step, str)]
    if any("\\" in each for each in labels):
        return None
    label = steps[0] if len(steps) == 1 and isinstance(steps[0], str) else None

    def run(values: Sequence[Value]) -> list[Value] | None:
        found: list[Value] = []
        for start in range(0, len(values), DECODED):
            some = read(values[start : start + DECODED])
            if some is None:
                return None
            found += some
        return found

    def read(values: Sequence[Value]) -> list[Value] | None:
        documents = _documents(values, labels)
        if documents is None:
            return None
        found: list[Any]
        if label is not None and set(map(type, documents)) == {dict}:
            found = [document.get(label, MISSING) for document in documents]
        else:
            found = [walk(document, steps) for document in documents]
        found = [None if each is MISSING else each for each in found]
        kinds = set(map(type, found))
        if kinds <= {str, type(None)}:
            return found
        if kinds <= _NUMBERS_AND_TEXTS or kinds <= _NUMBERS_AND_TEXTS | {bool}:
            return list(map(sql_value, found))
        return None

    return node, run


def _documents(values: Sequence[Any], labels: Sequence[str]) -> list[Any] | None:
    """The documents of texts, decoded without hooks; None where these might be missed (CW2)."""
    try:
        joined = "[" + _BETWEEN.join(values) + "]"
    except TypeError:
        return None
    if "\\" in joined:
        return None
    for label in labels:
        if any(text.count(label) > 1 for text in values):
            return None
    try:
        items, end = scan_plainly(joined, 0)
    except (StopIteration, ValueError, RecursionError):
        return None
    mark = _MARK[1:-1]
    if end != len(joined) or len(items) != 2 * len(values) - 1:
        return None
    return items[::2] if items[1::2] == [mark] * (len(values) - 1) else None
