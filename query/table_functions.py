"""Table functions: what stands in FROM as `name(arguments)`.

    json_each(json [, path])            a row for each element of an array or object
    json_tree(json [, path])            a row for the element and all below it, from the top
    generate_series(start [, stop [, step]])

Arguments may name columns of the tables before it in FROM, or of the query around; then the rows
are made for each of their rows (`query.join`, `Lateral`).

Invariants
    TF1 A row's `id` is the number of its element among all labels and values of the document, as
        SQLite 3.40 counts them; `parent` is that of the element around it.
    TF2 What NULL or an absent path gives is no rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from m2mdb.index.schema import closest
from m2mdb.index.slices import MANY_SLICES, SLICE_VALUES, Check, grow_old, slices, watched
from m2mdb.pager.errors import DataError, PlacedFault
from m2mdb.query.affinity import Value, to_integer, to_text
from m2mdb.query.functions import SLICE, Bindings
from m2mdb.query.jsonpath import MISSING, Step, load, sql_value, steps_of, type_of, walk
from m2mdb.query.lists import ListSchema, ListView

if TYPE_CHECKING:
    from m2mdb.query.conditions import Evaluator
    from m2mdb.query.join_scope import JoinScope
    from m2mdb.query.joined import JoinedRows
    from m2mdb.query.selection import Selection
    from m2mdb.query.sources import TableSource

LATERAL_SLICE = 256  # calls of one between two checks for an interrupt
MOST_ROWS = 10_000_000  # of one call; a table function's rows are held in memory
_JSON = (
    ("key", None), ("value", None), ("type", "TEXT"), ("atom", None), ("id", "INTEGER"),
    ("parent", "INTEGER"), ("fullkey", "TEXT"), ("path", "TEXT"),
)  # fmt: skip
Columns = list[list[Value]]


class TableFunction(NamedTuple):
    """A function that gives rows: its columns, the number of its arguments, and itself.

    It is called with a check for an interrupt, then with its arguments, and gives the columns.
    """

    columns: Sequence[tuple[str, str | None]]
    least: int
    most: int
    call: Callable[..., Columns]


def function_of(name: str, count: int, position: int) -> TableFunction:
    """The table function of a name.

    Raises ProgrammingError: there is none, or it takes another number of arguments.
    """
    found = FUNCTIONS.get(name.lower())
    if found is None:
        close = closest(name, FUNCTIONS)
        hint = f"; did you mean {close}?" if close else f"; there are {', '.join(FUNCTIONS)}"
        raise PlacedFault(f"no such table function: {name}{hint}", position)
    if not found.least <= count <= found.most:
        raise PlacedFault(f"wrong number of arguments to table function {name}()", position)
    return found


def schema_of(function: TableFunction, name: str) -> ListSchema:
    """The columns of its rows."""
    return ListSchema(name, list(function.columns))


# ------------------------------------------------------------------------- JSON


class _Element(NamedTuple):
    """A part of a document, and where it stands."""

    document: Any
    key: Value
    id: int
    parent: int | None
    fullkey: str
    path: str

    def row(self) -> tuple[Value, ...]:
        value = sql_value(self.document)
        atom = None if isinstance(self.document, dict | list) else value
        kind = type_of(self.document)
        return (self.key, value, kind, atom, self.id, self.parent, self.fullkey, self.path)


def _step_text(step: Step) -> str:
    """A step as `fullkey` has it."""
    if not isinstance(step, str):
        return f"[{step[1]}]"
    plain = step.isascii() and step.isalnum() and step[0].isalpha()
    return f".{step}" if plain else f'."{step}"'


def _children(element: _Element) -> Iterator[_Element]:
    """The elements directly inside one (TF1)."""
    document, number = element.document, element.id + 1
    if isinstance(document, dict):
        for label, value in document.items():
            fullkey = element.fullkey + _step_text(label)
            yield _Element(value, label, number + 1, element.id, fullkey, element.fullkey)
            number += 1 + _size(value)
    elif isinstance(document, list):
        for place, value in enumerate(document):
            fullkey = f"{element.fullkey}[{place}]"
            yield _Element(value, place, number, element.id, fullkey, element.fullkey)
            number += _size(value)


def _size(document: Any) -> int:
    """How many labels and values there are, itself among them."""
    count, waiting = 0, [document]
    while waiting:
        item = waiting.pop()
        count += 1
        if isinstance(item, dict):
            count += len(item)
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
    return count


def _root(text: Value, path: Value) -> _Element | None:
    """The element that a path means; None where there is none (TF2)."""
    if text is None or path is None:
        return None
    document = load(text)
    steps = steps_of(to_text(path) or "")
    element = _Element(document, None, 0, None, "$", "$")
    for step in steps:
        place = step if isinstance(step, str) else step[1]
        if not isinstance(step, str) and step[0] and isinstance(element.document, list):
            place = len(element.document) + step[1]
        found = next((each for each in _children(element) if each.key == place), None)
        if found is None or walk(element.document, (step,)) is MISSING:
            return None
        key = found.key if isinstance(step, str) else None
        element = found._replace(key=key, parent=None)
    return element


def _columned(rows: Iterator[tuple[Value, ...]], check: Check) -> Columns:
    """Rows of JSON by their columns, slice by slice: what is held of all is no list for each."""
    found: Columns = [[] for _ in _JSON]
    number = 0
    while some := list(islice(rows, SLICE)):
        if number:
            check()
            if number > MANY_SLICES:
                grow_old()
        number += 1
        for column, values in zip(found, zip(*some, strict=True), strict=True):
            column.extend(values)
    return found


def json_each(check: Check, text: Value, path: Value = "$") -> Columns:
    """The elements of an array or object; what is neither stands for itself."""
    root = _root(text, path)
    if root is None:
        return [[] for _ in _JSON]
    if not isinstance(root.document, dict | list):
        return [[value] for value in root._replace(key=None, path=root.fullkey).row()]
    return _columned((each._replace(parent=None).row() for each in _children(root)), check)


def _tree(root: _Element | None, check: Check) -> Iterator[tuple[Value, ...]]:
    waiting = [] if root is None else [root]
    while waiting:
        element = waiting.pop()
        yield element.row()
        waiting.extend(reversed(list(watched(_children(element), check))))


def json_tree(check: Check, text: Value, path: Value = "$") -> Columns:
    """The element and all below it, each before what is inside it."""
    return _columned(_tree(_root(text, path), check), check)


def generate_series(
    check: Check, start: Value, stop: Value = 2**32 - 1, step: Value = 1
) -> Columns:  # fmt: skip
    """The integers from start to stop; DataError where they are more than MOST_ROWS."""
    if start is None or stop is None or step is None:
        return [[]]
    first, last, by = to_integer(start) or 0, to_integer(stop) or 0, to_integer(step) or 1
    found = range(first, last + (1 if by > 0 else -1), by)
    if len(found) > MOST_ROWS:
        raise DataError(f"generate_series() would give {len(found):,} rows; {MOST_ROWS:,} at most")
    values: list[Value] = []
    for some in slices(len(found), SLICE_VALUES, check):
        values += found[some]
    return [values]


FUNCTIONS = {
    "json_each": TableFunction(_JSON, 1, 2, json_each),
    "json_tree": TableFunction(_JSON, 1, 2, json_tree),
    "generate_series": TableFunction((("value", "INTEGER"),), 1, 3, generate_series),
}


# ------------------------------------------------------------------------- for each row


class Lateral:
    """A table function whose arguments name columns of the tables before it in FROM."""

    __slots__ = ("_arguments", "_function", "_scope")

    def __init__(
        self, function: TableFunction, arguments: Sequence[Evaluator], scope: JoinScope
    ) -> None:
        """`arguments` were compiled in `scope`."""
        self._function = function
        self._arguments = list(arguments)
        self._scope = scope

    def select(
        self, before: JoinedRows, table: TableSource, bindings: Bindings
    ) -> tuple[Selection, tuple[np.ndarray, np.ndarray]]:
        """Those of its rows that pass the table's own WHERE, and their pairs with rows before it.

        Raises DataError where they are more than MOST_ROWS.
        """
        columns, owners = self._columns(before, bindings)
        view: Any = ListView(table.leaf.schema, (), bindings.check, columns)
        found = table.access.select(view, bindings, bindings.check)
        return found, (owners[found.rowids - 1], np.arange(len(found)))

    def _columns(self, before: JoinedRows, bindings: Bindings) -> tuple[Columns, np.ndarray]:
        """Its columns for all rows before it, and to which of these each of its rows belongs."""
        sources = [int(source) for source in self._scope.sources]  # of tables alone, so numbers all
        columns = [before.column(source) for source in sources]
        values = zip(*columns, strict=True) if columns else iter([()] * len(before))
        call, check = self._function.call, bindings.check
        found: Columns = [[] for _ in self._function.columns]
        counts: list[int] = []
        for place, row in enumerate(values):
            if place % LATERAL_SLICE == 0:
                check()
                if len(found[0]) > MANY_SLICES * SLICE_VALUES:
                    grow_old()
            made = call(check, *[evaluate(row, bindings) for evaluate in self._arguments])
            for column, own in zip(found, made, strict=True):
                column.extend(own)
            counts.append(len(made[0]))
            if len(found[0]) > MOST_ROWS:
                raise DataError(f"a table function gave more than {MOST_ROWS:,} rows")
        return found, np.repeat(np.arange(len(counts)), np.array(counts, np.int64))
