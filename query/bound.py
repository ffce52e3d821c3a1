"""Bound tables: `FROM :table`, an object of the program that has columns, read as a table.

Its columns are known when the statement is run, not when it is parsed, so such a statement is
planned anew for each run, inside `bound`.

    execute --bound(statement, bindings)--> plan --bound_view(slot)--> a view of the columns

What an object's columns are, the face says: `READ` is set by it (`m2mdb.language`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from m2mdb.pager.errors import InterfaceError, ProgrammingError
from m2mdb.query.binding import Parameters, gathered
from m2mdb.query.columnar import Column, ColumnPart
from m2mdb.query.lists import ListSchema
from m2mdb.query.nodes import Statement, TableParameter
from m2mdb.query.tree import nodes_of

Read = Callable[[Any, str], tuple[Sequence[str], Sequence[Column], int]]
READ: list[Read] = []  # one at most


class BoundView:
    """A bound table, with what selections and predicates ask of a collection's view."""

    __slots__ = ("_part", "schema")

    def __init__(self, schema: ListSchema, part: ColumnPart) -> None:
        self.schema = schema
        self._part = part

    def parts(self) -> tuple[ColumnPart, ...]:
        """The one part."""
        return (self._part,)

    def check(self) -> None:
        """Called between slices of long work; rows of the program have no connection to ask."""

    def count(self) -> int:
        """How many rows there are."""
        return self._part.size

    def place(self, rowid: int) -> tuple[int, int] | None:
        """Where a row is, or None."""
        return (0, rowid - 1) if 1 <= rowid <= self._part.size else None


_current: ContextVar[dict[int, BoundView] | None] = ContextVar("bound_tables", default=None)


@contextmanager
def bound(statement: Statement, parameters: Parameters) -> Iterator[Parameters]:
    """Within it the statement's bound tables are there; gives the parameters without them.

    Raises InterfaceError for a value that is no table, DataError for columns of unequal length;
    for a wrong number of parameters and a missing name what `bind` raises.
    """
    names = statement.parameter_names
    others: list[Any] = list(gathered(statement, parameters))
    views: dict[int, BoundView] = {}
    for index in {each.parameter.index for each in nodes_of(statement, TableParameter)}:
        if index < len(others):
            name = names[index] if names else ""
            views[index] = _read(others[index], name, f":{name}" if names else f"?{index + 1}")
            others[index] = None
    token = _current.set(views)
    try:
        yield dict(zip(names, others, strict=True)) if names else others
    finally:
        _current.reset(token)


def _read(value: Any, name: str, label: str) -> BoundView:
    if not READ:  # the language alone, as the engine's own tests use it
        raise InterfaceError(f"parameter {label}: nothing here reads tables")
    names, columns, count = READ[0](value, label)
    types = [column.type for column in columns]
    return BoundView(
        ListSchema(name, list(zip(names, types, strict=True))), ColumnPart(columns, count)
    )


def bound_view(index: int) -> BoundView:
    """The bound table of a parameter's slot.

    Raises ProgrammingError where a statement has no values, as in EXPLAIN without parameters.
    """
    found = (_current.get() or {}).get(index)
    if found is None:
        raise ProgrammingError(f"parameter {index + 1} stands for a table and is not bound")
    return found
