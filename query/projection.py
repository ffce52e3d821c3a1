"""Projections: expressions evaluated over the rows of a selection, by columns.

A plain column is handed on as the list it is fetched as; the others are computed row by row over
the columns that they use.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any, Protocol

from m2mdb.index.slices import emptied, rows_of
from m2mdb.query.affinity import Value
from m2mdb.query.binder import Output
from m2mdb.query.column_ways import column_way
from m2mdb.query.columnar import Column, Values, column_of
from m2mdb.query.conditions import Evaluator, collation_of, folded, type_of
from m2mdb.query.expression import compile_expression
from m2mdb.query.functions import SLICE, Bindings
from m2mdb.query.nodes import ColumnRef, Expression
from m2mdb.query.scope import RowScope, Scope
from m2mdb.query.selection import Selection


class Columns(Protocol):
    """What has rows and gives their values by columns."""

    def __len__(self) -> int: ...

    def column(self, source: Any) -> list[Any]:
        """The values of a source for all rows."""
        ...


def fetched_columns(rows: Columns, sources: Sequence[Any], bindings: Bindings) -> list[list[Any]]:
    """The values of some sources for all rows, an interrupt being looked for between them."""
    found = []
    for source in sources:
        bindings.check()
        found.append(rows.column(source))
    return found


class Computed:
    """An expression compiled in a scope: a plain column, or a closure."""

    __slots__ = ("_way", "evaluate", "position")

    def __init__(self, node: Expression, scope: Scope, *, collated: bool = False) -> None:
        """`collated`: apply the expression's COLLATE to the values."""
        fold = collation_of(scope, node) if collated else None
        self.evaluate: Evaluator = folded(compile_expression(node, scope), fold)
        slot = scope.replacement(node)
        if slot is None and isinstance(node, ColumnRef):
            slot = scope.column(node)
        self.position: int | None = None if slot is None or fold else slot.position
        self._way = column_way(node, scope) if fold is None and slot is None else None

    def values(self, columns: Sequence[list[Any]], count: int, bindings: Bindings) -> list[Value]:
        """The value for each of the rows that stand in columns."""
        if self.position is not None:
            return columns[self.position]
        evaluate = self.evaluate
        if not columns:
            return [evaluate((), bindings) for _ in range(count)]
        if self._way is not None:
            return self._by_column(columns, count, bindings)
        rows = zip(*columns, strict=True)
        values: list[Value] = []
        for _ in range(0, count, SLICE):
            bindings.check()
            values += [evaluate(row, bindings) for row in islice(rows, SLICE)]
        return values

    def _by_column(
        self, columns: Sequence[list[Any]], count: int, bindings: Bindings
    ) -> list[Value]:
        """As `values`, slice by slice of the one column, or row by row where a slice wants that."""
        assert self._way is not None
        evaluate, (position, way) = self.evaluate, self._way
        values: list[Value] = []
        for start in range(0, count, SLICE):
            bindings.check()
            found = way(columns[position][start : start + SLICE])
            if found is None:
                rows = zip(*[column[start : start + SLICE] for column in columns], strict=True)
                found = [evaluate(row, bindings) for row in rows]
            values += found
        return values


class Projection:
    """A result list, or the keys of ORDER BY, over one collection's rows."""

    __slots__ = ("_computed", "_scope", "names", "types")

    def __init__(
        self, outputs: Sequence[Output], scope: RowScope, *, collated: bool = False
    ) -> None:
        self._scope = scope.sibling()
        self._computed = [
            Computed(output.expression, self._scope, collated=collated) for output in outputs
        ]
        self.names = [output.name for output in outputs]
        self.types = [type_of(output.expression, self._scope) for output in outputs]

    @property
    def plain_sources(self) -> list[int] | None:
        """The stored columns of the outputs, where all are such; else None."""
        found = []
        for computed in self._computed:
            if computed.position is None:
                return None
            source = self._scope.sources[computed.position]
            if not isinstance(source, int) or source < 0:
                return None
            found.append(source)
        return found

    def columns(self, rows: Columns, bindings: Bindings) -> list[list[Value]]:
        """The outputs, by columns."""
        fetched = fetched_columns(rows, self._scope.sources, bindings)
        count = len(rows)
        found = [computed.values(fetched, count, bindings) for computed in self._computed]
        if isinstance(rows, Selection):  # which makes a new list for each
            given = {computed.position for computed in self._computed}
            used = [values for place, values in enumerate(fetched) if place not in given]
            emptied(bindings.check, *used)
        return found

    def data(self, rows: Selection, bindings: Bindings) -> list[Column]:
        """The outputs, by columns, as arrays where they are stored as such."""
        whole: Columns = rows
        sources = self._scope.sources
        copied: dict[int, Column] = {}
        for place in {each.position for each in self._computed if each.position is not None}:
            source = sources[place]
            if isinstance(source, int):
                bindings.check()
                copied[place] = column_of(rows, source)
        needs_values = any(computed.position not in copied for computed in self._computed)
        fetched = fetched_columns(whole, sources, bindings) if needs_values else []
        found: list[Column] = []
        for computed, type in zip(self._computed, self.types, strict=True):
            at = computed.position
            if at is not None and at in copied:
                found.append(copied[at])
            else:
                values = computed.values(fetched, len(rows), bindings)
                found.append(Values(values, type, is_own=at is None))
        return found

    def rows(self, rows: Columns, bindings: Bindings) -> list[tuple[Any, ...]]:
        """The outputs, by rows."""
        if not len(rows):
            return []
        if not self._computed:
            return [()] * len(rows)
        return rows_of(self.columns(rows, bindings), bindings.check)
