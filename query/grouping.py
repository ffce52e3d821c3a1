"""Grouping: GROUP BY, HAVING and aggregates, by hashing.

    rows --keys--> groups --aggregates--> one row a group --HAVING, result list, ORDER BY-->

A group's row holds what the expressions behind the grouping use: keys, aggregates and *bare*
columns. A bare column takes its value from the group's row with the least or greatest value where
there is exactly one min() or max(), else from its first row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

from m2mdb.index.slices import (
    SLICE_VALUES,
    columns_of,
    mapped,
    picked,
    slices,
    watched,
)
from m2mdb.query import extensions, vectorised
from m2mdb.query.affinity import Value, to_text
from m2mdb.query.aggregates import AGGREGATES, is_aggregate, joined, reduced
from m2mdb.query.calls import compile_piece
from m2mdb.query.comparison import rank, sort_key
from m2mdb.query.conditions import collation_of
from m2mdb.query.expression import compile_expression
from m2mdb.query.functions import SLICE, Bindings
from m2mdb.query.json_functions import JSON_AGGREGATES
from m2mdb.query.nodes import ColumnRef, Expression, FunctionCall, Subquery
from m2mdb.query.ordering import SortKey, sorted_order
from m2mdb.query.projection import Columns, Computed, fetched_columns
from m2mdb.query.scope import RowScope, Slot


class AggregateCall:
    """One aggregate: its arguments, compiled over the rows of a group."""

    __slots__ = ("_fold", "_make", "arguments", "distinct", "name", "node", "star")

    def __init__(self, node: FunctionCall, scope: RowScope) -> None:
        self.node = node
        self.name = node.name
        self.star = node.star or not node.arguments
        self.distinct = node.distinct
        self.arguments = [Computed(each, scope) for each in node.arguments]
        self._fold = collation_of(scope, *node.arguments[:1])
        if node.name in JSON_AGGREGATES:
            place = JSON_AGGREGATES[node.name]
            self.arguments[place] = _piece(node.arguments[place], scope)
        self._make = extensions.aggregate(node.name, len(node.arguments))

    @property
    def is_extension(self) -> bool:
        """Whether the program has made it."""
        return self._make is not None

    def reduce(
        self, values: Sequence[list[Value]], places: Sequence[int], check: Callable[[], None]
    ) -> Value:
        """The aggregate over some of the rows, whose arguments stand in columns.

        check  called between slices of a large group; it may raise
        """
        if len(places) > SLICE_VALUES:
            check()
        if self._make is not None:
            rows = [tuple([column[place] for column in values]) for place in places]
            if self.distinct:
                rows = list(dict.fromkeys(rows))
            return extensions.reduced(self._make, rows)
        if self.star:
            return len(places)
        picked = [_picked(column, places, check) for column in values]
        if self.name in JSON_AGGREGATES:
            if self.distinct:
                picked = [list(dict.fromkeys(picked[0]))]
            return AGGREGATES[self.name](*picked)
        if len(picked) == 2:
            return joined(picked[0], picked[1])
        present = picked[0]
        try:
            has_null = None in present
        except ValueError:  # vectors, which have no truth of their own when compared
            has_null = True
        if has_null:
            present = [value for value in watched(present, check) if value is not None]
        fold = self._fold
        if self.distinct:
            present = distinct_values(present, fold, check)
        if fold is not None and present and self.name in ("min", "max"):
            choose = min if self.name == "min" else max
            return choose(present, key=lambda value: sort_key(fold(value)))
        if len(present) > SLICE_VALUES and self.name in ("group_concat", "string_agg"):
            return ",".join(mapped(present, to_text, check))
        return reduced(self.name, present, check)


def _picked(column: list[Value], places: Sequence[int], check: Callable[[], None]) -> list[Value]:
    """The values at some places."""
    if len(places) <= SLICE_VALUES:
        return [column[place] for place in places]
    return mapped(places, column.__getitem__, check)


def distinct_values(
    values: Sequence[Value], fold: Callable[[Value], Value] | None, check: Callable[[], None]
) -> list[Value]:
    """The values without those that equal an earlier one under a collation.

    Raises DataError: vectors cannot be compared.
    """
    found: dict[Value, Value] = {}
    for start in range(0, len(values), SLICE_VALUES):
        if start:
            check()
        for value in values[start : start + SLICE_VALUES]:
            rank(value)
            found.setdefault(value if fold is None else fold(value), value)
    return list(found.values())


def _piece(node: Expression, scope: RowScope) -> Computed:
    """An argument as a piece of JSON text."""
    computed = Computed(node, scope)
    computed.evaluate, computed.position = compile_piece(node, scope, compile_expression), None
    return computed


class GroupScope:
    """The names behind a grouping: keys, aggregates and bare columns (see `query.scope.Scope`)."""

    __slots__ = ("_keys", "_places", "aggregates", "bare", "base", "layout")

    def __init__(self, base: RowScope, keys: Sequence[Expression]) -> None:
        self.base = base
        self._keys = keys
        self.aggregates: list[AggregateCall] = []
        self.bare: list[Computed] = []
        self.layout: list[tuple[str, int]] = []  # what stands at each position of a group's row
        self._places: dict[tuple[str, int], int] = {}

    def _slot(self, kind: str, index: int, type: str | None) -> Slot:
        where = (kind, index)
        position = self._places.get(where)
        if position is None:
            position = self._places[where] = len(self.layout)
            self.layout.append(where)
        return Slot(position, type)

    def replacement(self, node: Expression) -> Slot | None:
        """Keys and aggregates are computed by the grouping."""
        for index, key in enumerate(self._keys):
            if self._same(node, key):
                type = self.base.column(key).type if isinstance(key, ColumnRef) else None
                return self._slot("key", index, type)
        if not isinstance(node, FunctionCall) or not is_aggregate(node):
            return None
        for index, call in enumerate(self.aggregates):
            if call.node == node:
                return self._slot("aggregate", index, None)
        self.aggregates.append(AggregateCall(node, self.base))
        return self._slot("aggregate", len(self.aggregates) - 1, None)

    def _same(self, node: Expression, key: Expression) -> bool:
        if isinstance(node, ColumnRef) and isinstance(key, ColumnRef):
            return self.base.column(node).position == self.base.column(key).position
        return node == key

    def column(self, reference: ColumnRef) -> Slot:
        """A bare column."""
        slot = self.base.column(reference)
        for index, computed in enumerate(self.bare):
            if computed.position == slot.position:
                return self._slot("bare", index, slot.type)
        self.bare.append(Computed(reference, self.base))
        return self._slot("bare", len(self.bare) - 1, slot.type)

    def subquery(self, node: Subquery, form: str) -> int:
        """As outside of the grouping."""
        return self.base.subquery(node, form)


class Grouping:
    """The work between the rows and the groups' rows."""

    __slots__ = ("_folds", "_keys", "_plain_keys", "scope")

    def __init__(self, scope: RowScope, keys: Sequence[Expression]) -> None:
        """Compile the expressions behind the grouping in `scope` before `run`."""
        self.scope = GroupScope(scope, keys)
        self._keys = [Computed(key, scope) for key in keys]
        self._folds = [collation_of(scope, key) for key in keys]
        # a key that is computed, or has a collation, may be no number although it looks like one
        self._plain_keys = None if any(self._folds) else keys

    def run(self, rows: Columns, bindings: Bindings) -> list[tuple[Any, ...]]:
        """One row a group, ordered by the keys; without keys, one row for all."""
        if self._plain_keys is not None:
            arrays = vectorised.grouped(self.scope, self._plain_keys, rows, bindings.check)
            if arrays is not None:
                return arrays
        base, count = self.scope.base, len(rows)
        columns, check = fetched_columns(rows, base.sources, bindings), bindings.check
        keys = [key.values(columns, count, bindings) for key in self._keys]
        groups = _groups(
            [
                values if fold is None else mapped(values, fold, check)
                for values, fold in zip(keys, self._folds, strict=True)
            ],
            count,
            check,
        )
        arguments = [
            [each.values(columns, count, bindings) for each in call.arguments]
            for call in self.scope.aggregates
        ]
        bare = [each.values(columns, count, bindings) for each in self.scope.bare]
        result = []
        for number, places in enumerate(groups):
            if not number % SLICE:
                check()
            aggregates = [
                call.reduce(values, places, check)
                for call, values in zip(self.scope.aggregates, arguments, strict=True)
            ]
            chosen = self._chosen(places, arguments, aggregates)
            parts = {
                "key": [column[places[0]] for column in keys] if places else [],
                "aggregate": aggregates,
                "bare": [None if chosen is None else column[chosen] for column in bare],
            }
            result.append(tuple([parts[kind][index] for kind, index in self.scope.layout]))
        return result

    def _chosen(
        self,
        places: Sequence[int],
        arguments: Sequence[Sequence[list[Value]]],
        aggregates: Sequence[Value],
    ) -> int | None:
        """The row of a group that its bare columns are taken from."""
        extremes = [
            index for index, call in enumerate(self.scope.aggregates) if call.name in ("min", "max")
        ]
        if len(extremes) == 1:
            wanted, values = aggregates[extremes[0]], arguments[extremes[0]][0]
            for place in places:
                if values[place] is not None and values[place] == wanted:
                    return place
        return places[0] if places else None


def _groups(
    keys: Sequence[list[Value]], count: int, check: Callable[[], None]
) -> list[Sequence[int]]:
    """The places of the rows of each group, the groups in the order of their keys."""
    if not keys:
        return [range(count)]
    found: dict[Any, list[int]] = {}
    try:
        waiting = enumerate(zip(*keys, strict=True))
        for _ in slices(count, SLICE_VALUES, check):
            for place, key in islice(waiting, SLICE_VALUES):
                found.setdefault(key, []).append(place)
    except TypeError:
        for column in keys:
            for value in column:
                rank(value)
        raise
    columns = columns_of(list(found), len(keys), check)
    sort_keys = [SortKey(column, False, None) for column in columns]
    order = sorted_order(sort_keys, len(found), check)
    return picked(list(found.values()), order, check)
