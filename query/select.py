"""SELECT: over one table, several that are joined, a query in FROM, or no table at all.

    source --WHERE--> selection --GROUP BY--> groups --HAVING--> --ORDER BY--> --LIMIT--> rows

Without grouping, rows are put in order and cut before the columns of the result are fetched.
`SELECT columns FROM c WHERE key = ?` has a plan of its own, `PointPlan`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from m2mdb.index.slices import emptied, mapped, picked, slices
from m2mdb.pager.errors import ProgrammingError
from m2mdb.query.access import KeyAccess, rowid_of
from m2mdb.query.affinity import truth
from m2mdb.query.aggregates import is_aggregate
from m2mdb.query.ast import Select
from m2mdb.query.binder import (
    Output,
    aliases_of,
    group_expression,
    order_expression,
    outputs_of,
    without_aliases,
)
from m2mdb.query.columnar import COLUMNAR_ROWS, ColumnarResult
from m2mdb.query.conditions import collation_of as fold_of_node
from m2mdb.query.conditions import folded
from m2mdb.query.constants import walk
from m2mdb.query.correlation import Level
from m2mdb.query.expression import compile_expression
from m2mdb.query.functions import SLICE, Bindings
from m2mdb.query.grouping import Grouping
from m2mdb.query.join import JoinSource
from m2mdb.query.joined import JoinedRows
from m2mdb.query.nearest_rows import NearestRows, plan_nearest
from m2mdb.query.nodes import ColumnRef, Expression, FunctionCall, Join, OrderItem, Source
from m2mdb.query.ordering import SortKey, array_order, distinct_rows, row_limit, sorted_order
from m2mdb.query.plan import Explained, Plan
from m2mdb.query.projection import Computed, Projection
from m2mdb.query.result import Result
from m2mdb.query.scope import RowScope, Subqueries
from m2mdb.query.selection import Selection
from m2mdb.query.sources import Context, TableSource, leaf_of
from m2mdb.query.vectors import is_distance

if TYPE_CHECKING:
    from m2mdb.index.collection import CollectionView
    from m2mdb.index.view import View
    from m2mdb.query.planning import Planner

Rows = Selection | JoinedRows


def source_of(source: Source | None, context: Context) -> TableSource | JoinSource:
    """What FROM says, planned but for its WHERE."""
    if isinstance(source, Join):
        return JoinSource(source, context)
    leaf = leaf_of(source, context)
    return TableSource(leaf, RowScope(leaf.schema, context.subqueries, name=leaf.name))


def plan_select(statement: Select, view: View, count: int, planner: Planner) -> Plan:
    """The plan of a SELECT; `planner` plans the queries inside it.

    Raises ProgrammingError: unknown names, misused aggregates, numbers out of range.
    """
    plan = SelectPlan(statement, view, count, planner)
    return plan.point() or plan


class SelectPlan(Plan):
    """A SELECT, compiled."""

    __slots__ = (
        "_counts_all", "_distinct", "_folds", "_grouped", "_limits", "_nearest", "_order",
        "_projection", "_scope", "_source",
    )  # fmt: skip

    def __init__(self, statement: Select, view: View, count: int, planner: Planner) -> None:
        super().__init__(count)
        subqueries = Subqueries(count)
        context = Context(view, planner, subqueries)
        source = self._source = source_of(statement.source, context)
        self.tables.extend(source.leaf.tables)
        scope = self._scope = source.scope
        names = [item.alias for item in statement.items if item.alias is not None]
        level = Level(self, scope, (view, planner, subqueries), names)
        source.resolve(level.resolve)
        for condition in source.conditions():
            refuse_aggregates(condition, "ON")
        outputs = outputs_of(statement.items, scope)
        for output in outputs:
            output.expression = level.resolve(output.expression)
        aliases = aliases_of(statement.items)
        where = _condition(statement, level, scope)
        source.restrict(where)
        keys = [
            level.resolve(group_expression(node, outputs, aliases, scope))
            for node in statement.group_by
        ]
        order = [
            ordered(item, level.resolve(order_expression(item, outputs, aliases, scope)))
            for item in statement.order_by
        ]
        having = statement.having
        if having is not None:
            having = level.resolve(without_aliases(having, aliases, scope))
        self._distinct = statement.distinct
        own = scope.sibling()
        self._folds = [fold_of_node(own, output.expression) for output in outputs]
        self._limits = self._compile_limits(statement, level)
        expressions = [output.expression for output in outputs] + [node for _, node in order]
        self._grouped: _GroupedWork | None = None
        self._projection: Projection | None = None
        self._order: tuple[list[OrderItem], Projection] | None = None
        self._counts_all = False
        self._nearest: NearestRows | None = None
        if keys or having is not None or any(map(has_aggregate, expressions)):
            self._grouped = _GroupedWork(scope, keys, outputs, having, order)
            is_plain = where is None and not keys and isinstance(source, TableSource)
            self._counts_all = is_plain and self._grouped.is_count
        else:
            self._plan_rows(outputs, order, statement.limit is not None)
        self.prepare_inner(subqueries, view, planner)

    def _plan_rows(
        self, outputs: list[Output], order: list[tuple[OrderItem, Expression]], is_limited: bool
    ) -> None:
        """What becomes of each row, where rows are not grouped."""
        self._projection = Projection(outputs, self._scope)
        if not self._distinct:
            self._nearest = plan_nearest(self._source, order, is_limited)
        if order:
            named = [Output("", node) for _, node in order]
            items = [item for item, _ in order]
            self._order = items, Projection(named, self._scope, collated=True)

    def _compile_limits(self, statement: Select, level: Level) -> list[tuple[str, Any]]:
        """LIMIT and OFFSET, which see no columns."""
        scope = RowScope(None, self._scope.subqueries)
        return [
            (name, compile_expression(level.resolve(node), scope))
            for name, node in (("LIMIT", statement.limit), ("OFFSET", statement.offset))
            if node is not None
        ]

    def columns(self) -> tuple[list[str], list[str | None]]:
        """Names and types of the result's columns."""
        if self._grouped is not None:
            return self._grouped.names, self._grouped.types
        assert self._projection is not None
        return self._projection.names, self._projection.types

    def point(self) -> Plan | None:
        """The plan for one row by its key, where the statement is that simple."""
        source, projection = self._source, self._projection
        if not isinstance(source, TableSource) or source.leaf.is_past or projection is None:
            return None
        access = source.access
        if type(access) is not KeyAccess or not access.is_exact:
            return None
        if self._order or self._distinct or self._limits or self.inner or not source.leaf.tables:
            return None
        if source.leaf.plan is not None:
            return None
        sources = projection.plain_sources
        return None if sources is None else PointPlan(self, access, sources)

    def run(self, view: View, bindings: Bindings) -> Result:
        """Execute."""
        bindings = self.bind_inner(view, bindings)
        names, types = self.columns()
        limit, offset = self._bound_limits(bindings)
        if self._counts_all and isinstance(self._source, TableSource):
            counted = [(self._source.open(view, bindings).count(),) * len(names)]
            return Result(names, _cut(counted, limit, offset), types=types)
        selection: Rows | None = None
        if self._nearest is not None and limit is not None:
            selection = self._nearest.select(view, bindings, limit + offset)
        if selection is None:
            selection = self._source.select(view, bindings)
        if self._grouped is not None:
            rows = self._grouped.run(selection, bindings)
        else:
            assert self._projection is not None
            selection, limit, offset = self._arranged(selection, bindings, limit, offset)
            is_large = len(selection) >= COLUMNAR_ROWS and not self._distinct
            if is_large and isinstance(selection, Selection):
                return ColumnarResult(names, self._projection.data(selection, bindings), types)
            rows = self._projection.rows(selection, bindings)
        if self._distinct:
            rows = distinct_rows(rows, self._folds, bindings.check)
        return Result(names, _cut(rows, limit, offset), types=types)

    def _ordering(self, selection: Rows, bindings: Bindings) -> np.ndarray:
        """The places of the rows in the order of ORDER BY."""
        assert self._order is not None
        items, projection = self._order
        sources = projection.plain_sources
        if len(items) == 1 and sources and isinstance(selection, Selection):
            numbers = selection.numbers(sources[0])
            if numbers is not None and numbers[1] is None:
                return array_order(numbers[0], items[0].descending, bindings.check)
        columns = projection.columns(selection, bindings)
        bindings.check()
        keys = [
            SortKey(values, item.descending, item.nulls_first)
            for item, values in zip(items, columns, strict=True)
        ]
        return sorted_order(keys, len(selection), bindings.check)

    def _arranged(
        self, selection: Rows, bindings: Bindings, limit: int | None, offset: int
    ) -> tuple[Rows, int | None, int]:
        """The rows in order, cut already unless DISTINCT comes behind; and what remains to cut."""
        if self._order is not None and len(selection) > 1:
            selection = selection.reordered(self._ordering(selection, bindings))
        if not self._distinct and (limit is not None or offset):
            stop = len(selection) if limit is None else offset + limit
            selection, limit, offset = selection.sliced(offset, stop), None, 0
        return selection, limit, offset

    def _bound_limits(self, bindings: Bindings) -> tuple[int | None, int]:
        """LIMIT, None for none, and OFFSET."""
        values = {name: row_limit(run((), bindings), name) for name, run in self._limits}
        return values.get("LIMIT"), values.get("OFFSET") or 0

    def explain(self, view: View) -> Explained:
        """The access, then what happens to its rows."""
        lines: Explained = self._source.explain(view)
        if self._nearest is not None:
            lines = [(0, self._nearest.describe(view))]
        if self._counts_all:
            depth, described = lines[0]
            lines[0] = depth, described.replace("SCAN", "COUNT", 1)
        if self._grouped is not None and self._grouped.has_keys:
            lines.append((0, "USE HASH TABLE FOR GROUP BY"))
        if self._order is not None or (self._grouped is not None and self._grouped.has_order):
            lines.append((0, "SORT FOR ORDER BY"))
        if self._distinct:
            lines.append((0, "USE HASH TABLE FOR DISTINCT"))
        return lines + self.explain_inner(view)


def _cut(rows: list[tuple[Any, ...]], limit: int | None, offset: int) -> list[tuple[Any, ...]]:
    if limit is None and not offset:
        return rows
    return rows[offset : None if limit is None else offset + limit]


class PointPlan(Plan):
    """`SELECT columns FROM collection WHERE key = value`: the shortest way to one row."""

    __slots__ = ("_column", "_general", "_name", "_sources", "_value")

    def __init__(self, general: SelectPlan, access: KeyAccess, sources: list[int]) -> None:
        super().__init__(general.parameter_count)
        self.tables = general.tables
        self._general = general
        self._name = self.tables[0][0]
        self._column = access.column
        self._value = access.values
        self._sources = sources

    def run(self, view: View, bindings: Bindings) -> Result:
        """Find the rowid, its place, and the row."""
        collection: CollectionView = view.collection(self._name)
        rowid = rowid_of(collection, self._column, self._value(bindings)[0])
        place = None if rowid is None else collection.place(rowid)
        rows = [] if place is None else [collection.row(place, self._sources)]
        names, types = self._general.columns()
        return Result(names, rows, types=types)

    def columns(self) -> tuple[list[str], list[str | None]]:
        """Names and types of the result's columns."""
        return self._general.columns()

    def explain(self, view: View) -> Explained:
        """As the general plan, whose access this is."""
        return self._general.explain(view)


class _GroupedWork:
    """What happens behind a grouping: HAVING, the result list, ORDER BY."""

    __slots__ = (
        "_grouping", "_having", "_order", "_outputs", "_pick", "has_keys", "is_count", "names",
        "types",
    )  # fmt: skip

    def __init__(
        self,
        scope: RowScope,
        keys: Sequence[Expression],
        outputs: Sequence[Output],
        having: Expression | None,
        order: Sequence[tuple[OrderItem, Expression]],
    ) -> None:
        for key in keys:
            refuse_aggregates(key, "GROUP BY")
        self._grouping = Grouping(scope.sibling(), keys)
        groups = self._grouping.scope
        computed = [Computed(output.expression, groups) for output in outputs]
        self._outputs = [each.evaluate for each in computed]
        places = [each.position for each in computed if each.position is not None]
        # results that only repeat keys and aggregates are picked without a call for each
        self._pick = itemgetter(*places) if 1 < len(places) == len(computed) else None
        self._having = None if having is None else compile_expression(having, groups)
        self._order = [
            (item, folded(compile_expression(node, groups), fold_of_node(groups, node)))
            for item, node in order
        ]
        self.has_keys = bool(keys)
        self.names = [output.name for output in outputs]
        self.types = [_group_type(output.expression, groups.base) for output in outputs]
        self.is_count = having is None and all(
            isinstance(output.expression, FunctionCall)
            and output.expression.name == "count"
            and not output.expression.arguments
            for output in outputs
        )

    @property
    def has_order(self) -> bool:
        """Whether the groups are sorted."""
        return bool(self._order)

    def run(self, selection: Rows, bindings: Bindings) -> list[tuple[Any, ...]]:
        """The rows of the result, in order, not yet cut."""
        groups, check = self._grouping.run(selection, bindings), bindings.check
        having = self._having
        if having is not None:
            chosen: list[tuple[Any, ...]] = []
            for some in slices(len(groups), SLICE, check):
                chosen += [group for group in groups[some] if truth(having(group, bindings))]
            groups = chosen
        if self._order and len(groups) > 1:
            keys = [
                SortKey(_applied(run, groups, bindings), item.descending, item.nulls_first)
                for item, run in self._order
            ]
            groups = picked(groups, sorted_order(keys, len(groups), check), check)
        rows: list[tuple[Any, ...]] = []
        if self._pick is not None:
            rows = mapped(groups, self._pick, check)
        else:
            for some in slices(len(groups), SLICE, check):
                rows += [
                    tuple([run(group, bindings) for run in self._outputs]) for group in groups[some]
                ]
        emptied(check, groups)
        return rows


def _applied(
    run: Callable[[tuple[Any, ...], Bindings], Any], groups: Sequence[Any], bindings: Bindings
) -> list[Any]:
    """An expression's value for each group."""
    found: list[Any] = []
    for some in slices(len(groups), SLICE, bindings.check):
        found += [run(group, bindings) for group in groups[some]]
    return found


def _condition(statement: Select, level: Level, scope: RowScope) -> Expression | None:
    """WHERE, its names resolved and aliases replaced, ready to be planned."""
    if statement.where is None:
        return None
    level.clause = "WHERE"
    where = level.resolve(without_aliases(statement.where, aliases_of(statement.items), scope))
    level.clause = ""
    refuse_aggregates(where, "WHERE")
    return where


def ordered(item: OrderItem, node: Expression) -> tuple[OrderItem, Expression]:
    """A term of ORDER BY; a distance that is NULL is behind all others, as in pgvector."""
    if is_distance(node) and item.nulls_first is None:
        item = OrderItem(item.expression, item.descending, item.descending, item.position)
    return item, node


def _group_type(node: Expression, scope: RowScope) -> str | None:
    return scope.column(node).type if isinstance(node, ColumnRef) else None


def has_aggregate(node: Expression) -> bool:
    """Whether an aggregate stands anywhere in an expression."""
    return any(isinstance(each, FunctionCall) and is_aggregate(each) for each in walk(node))


def refuse_aggregates(node: Expression, clause: str) -> None:
    """Raise ProgrammingError where an aggregate stands where there is no group yet."""
    for each in walk(node):
        if isinstance(each, FunctionCall) and is_aggregate(each):
            raise ProgrammingError(f"misuse of aggregate: {each.name}() in {clause}")
