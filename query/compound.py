"""UNION [ALL], EXCEPT, INTERSECT, and VALUES as a query.

Both sides run whole; their rows are compared as DISTINCT compares them, NULLs being equal. What is
not UNION ALL comes in the order of its values, as SQLite gives it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from m2mdb.index.collations import Fold, folded_value
from m2mdb.index.slices import SLICE_VALUES, distinct_values, emptied, picked, slices, watched
from m2mdb.pager.errors import PlacedFault
from m2mdb.query.affinity import base_type
from m2mdb.query.ast import Compound, Query, Values
from m2mdb.query.comparison import fold_of, fold_of_type, rank
from m2mdb.query.correlation import Level
from m2mdb.query.expression import compile_expression
from m2mdb.query.functions import Bindings
from m2mdb.query.nodes import Collate, ColumnRef, Expression, Literal
from m2mdb.query.ordering import SortKey, row_limit, sorted_order
from m2mdb.query.plan import Explained, Plan
from m2mdb.query.result import Result
from m2mdb.query.scope import RowScope, Subqueries

if TYPE_CHECKING:
    from m2mdb.index.view import View
    from m2mdb.query.planning import Planner

Row = tuple[Any, ...]
DEFAULT = object()  # the collation of a term of ORDER BY is the column's
_ORDINALS = {1: "1st", 2: "2nd", 3: "3rd"}


class ValuesPlan(Plan):
    """`VALUES (…), (…)` as a query."""

    __slots__ = ("_rows",)

    def __init__(self, statement: Values, view: View, count: int, planner: Planner) -> None:
        super().__init__(count)
        subqueries = Subqueries(count)
        scope = RowScope(None, subqueries)
        level = Level(self, scope, (view, planner, subqueries))
        self._rows = [
            [compile_expression(level.resolve(each), scope) for each in row]
            for row in statement.rows
        ]
        self.prepare_inner(subqueries, view, planner)

    def columns(self) -> tuple[list[str], list[str | None]]:
        """`column1`, `column2` … of any type."""
        width = len(self._rows[0])
        return [f"column{number}" for number in range(1, width + 1)], [None] * width

    def run(self, view: View, bindings: Bindings) -> Result:
        """Execute."""
        bindings = self.bind_inner(view, bindings)
        rows = [tuple([each((), bindings) for each in row]) for row in self._rows]
        names, types = self.columns()
        return Result(names, rows, types=types)

    def explain(self, view: View) -> Explained:
        """How many rows there are."""
        return [(0, f"VALUES of {len(self._rows)} rows"), *self.explain_inner(view)]


class CompoundPlan(Plan):
    """Two queries made one."""

    __slots__ = ("_left", "_limits", "_operator", "_order", "_right")

    def __init__(self, statement: Compound, view: View, count: int, planner: Planner) -> None:
        super().__init__(count)
        self._operator = statement.operator
        self._left = planner(statement.left, view, count)
        self._right = planner(statement.right, view, count)
        for side in (self._left, self._right):
            self.tables.extend(side.all_tables())
        if len(self._left.columns()[0]) != len(self._right.columns()[0]):
            raise PlacedFault(
                f"SELECTs to the left and right of {self._operator} do not have the same number of "
                f"result columns: {len(self._left.columns()[0])} and "
                f"{len(self._right.columns()[0])}",
                statement.right.position,
            )
        names = _names(statement, planner, (view, count))
        self._order = [
            (item, *_term(item.expression, number, names))
            for number, item in enumerate(statement.order_by, 1)
        ]
        subqueries = Subqueries(count)
        scope = RowScope(None, subqueries)
        level = Level(self, scope, (view, planner, subqueries))
        self._limits = [
            (name, compile_expression(level.resolve(node), scope))
            for name, node in (("LIMIT", statement.limit), ("OFFSET", statement.offset))
            if node is not None
        ]
        self.prepare_inner(subqueries, view, planner)

    def columns(self) -> tuple[list[str], list[str | None]]:
        """The left side's names; a type where both sides have the same."""
        names, types = self._left.columns()
        others = self._right.columns()[1]
        return names, [
            mine if base_type(mine) == base_type(other) else None
            for mine, other in zip(types, others, strict=True)
        ]

    def collations(self) -> list[tuple[Fold | None, ...]]:
        """The collation of each column: that of the leftmost side where it is a column, if any."""
        pairs = zip(_collations(self._left), _collations(self._right), strict=True)
        return [mine or theirs for mine, theirs in pairs]

    def run(self, view: View, bindings: Bindings) -> Result:
        """Execute."""
        bindings = self.bind_inner(view, bindings)
        count = self.parameter_count
        check = bindings.check
        left = self._left.run(view, bindings.program_values(count)).made(check)
        right = self._right.run(view, bindings.program_values(count)).made(check)
        folds = [each[0] if each else None for each in self.collations()]
        rows = _combined(self._operator, left, right, (folds, check))
        emptied(check, left, right)
        if self._order and len(rows) > 1:
            keys = [
                SortKey(
                    _column(rows, index, folds[index] if fold is DEFAULT else fold, check),
                    item.descending,
                    item.nulls_first,
                )
                for item, index, fold in self._order
            ]
            rows = picked(rows, sorted_order(keys, len(rows), check), check)
        values = {name: row_limit(run((), bindings), name) for name, run in self._limits}
        limit, offset = values.get("LIMIT"), values.get("OFFSET") or 0
        names, types = self.columns()
        return Result(names, rows[offset : None if limit is None else offset + limit], types=types)

    def explain(self, view: View) -> Explained:
        """The sides, and what is done with them."""
        lines: Explained = [(0, self._operator)]
        for side in (self._left, self._right):
            lines += [(depth + 1, text) for depth, text in side.explain(view)]
        if self._order:
            lines.append((0, "SORT FOR ORDER BY"))
        return lines + self.explain_inner(view)


def _collations(plan: Plan) -> list[tuple[Fold | None, ...]]:
    """The collation of each column of a side; nothing for what is no column."""
    if isinstance(plan, CompoundPlan):
        return plan.collations()
    return [() if type is None else (fold_of_type(type),) for type in plan.columns()[1]]


def _combined(
    operator: str,
    left: list[Row],
    right: list[Row],
    context: tuple[Sequence[Fold | None], Callable[[], None]],
) -> list[Row]:
    """The rows of both sides by the operator, compared by the collations of their columns.

    Raises DataError: vectors cannot be compared.
    """
    folds, check = context
    if operator == "UNION ALL":
        return left + right
    if any(folds):
        return _combined_by_folds(operator, left, right, context)
    try:
        if operator == "UNION":
            return _sorted(_united(left, right, check), folds, check)
        others = distinct_values(right, check)
        wanted = operator == "INTERSECT"
        kept: list[Row] = []
        for some in slices(len(left), SLICE_VALUES, check):
            kept += [row for row in left[some] if (row in others) == wanted]
        del others
        return _sorted(list(watched(distinct_values(kept, check), check)), folds, check)
    except TypeError:
        for row in (*left, *right):
            for value in row:
                rank(value)
        raise


def _united(left: list[Row], right: list[Row], check: Callable[[], None]) -> list[Row]:
    """The rows of both sides, of equal ones the last.

    Each side has a dict of its own: one that grows over two million rows takes 50 milliseconds.
    """
    mine: dict[Row, Row] = {}
    theirs: dict[Row, Row] = {}
    for some in slices(len(right), SLICE_VALUES, check):
        theirs.update(zip(right[some], right[some], strict=True))
    for some in slices(len(left), SLICE_VALUES, check):
        own = [row for row in left[some] if row not in theirs]
        mine.update(zip(own, own, strict=True))
    found: list[Row] = []
    for known in (mine, theirs):
        found += watched(known.values(), check)
        known.clear()
        check()
    return found


def _combined_by_folds(
    operator: str,
    left: list[Row],
    right: list[Row],
    context: tuple[Sequence[Fold | None], Callable[[], None]],
) -> list[Row]:
    """As `_combined`, where a column has a collation."""
    folds, check = context

    def keyed(rows: list[Row]) -> dict[Row, Row]:
        found: dict[Row, Row] = {}
        for row in watched(rows, check):
            for value in row:
                rank(value)
            found[folded_value(folds, row)] = row
        return found

    mine, theirs = keyed(left), keyed(right)
    if operator == "UNION":
        for key, row in watched(theirs.items(), check):
            mine[key] = row
        kept = list(watched(mine.values(), check))
    else:
        wanted = operator == "INTERSECT"
        pairs = watched(mine.items(), check)
        kept = [row for key, row in pairs if (key in theirs) == wanted]
    return _sorted(kept, folds, check)


def _sorted(rows: list[Row], folds: Sequence[Fold | None], check: Callable[[], None]) -> list[Row]:
    """Rows in the order of their values."""
    width = len(rows[0]) if rows else 0
    keys = [SortKey(_column(rows, index, folds[index], check), False, None)
            for index in range(width)]  # fmt: skip
    order = sorted_order(keys, len(rows), check)
    emptied(check, *[key.values for key in keys])
    return picked(rows, order, check)


def _column(rows: Sequence[Row], index: int, fold: Any, check: Callable[[], None]) -> list[Any]:
    values: list[Any] = []
    for some in slices(len(rows), SLICE_VALUES, check):
        own = [row[index] for row in rows[some]]
        values += own if fold is None else map(fold, own)
    return values


Named = list[tuple[list[str], list[Expression | None]]]  # of each side: names and expressions


def _names(query: Query, planner: Planner, context: tuple[View, int]) -> Named:
    """What the columns of each side are called, from the left."""
    if isinstance(query, Compound):
        left = _names(query.left, planner, context)
        return left + _names(query.right, planner, context)
    names = planner(query, *context).columns()[0]
    items = getattr(query, "items", None)
    nodes: list[Expression | None] = [None] * len(names)
    if items is not None and len(items) == len(names):
        nodes = [each.expression if isinstance(each.expression, Expression) else None
                 for each in items]  # fmt: skip
    return [(names, nodes)]


def _term(node: Expression, number: int, sides: Named) -> tuple[int, Any]:
    """The column that a term of ORDER BY sorts by, and its collation's fold: DEFAULT, the column's.

    Raises ProgrammingError: it is no column of the result.
    """
    fold: Any = DEFAULT
    if isinstance(node, Collate):
        fold, node = fold_of(node.collation), node.operand
    width = len(sides[0][0])
    if isinstance(node, Literal) and type(node.value) is int:
        if not 1 <= node.value <= width:
            raise PlacedFault(
                f"ORDER BY {node.value} is out of range - should be between 1 and {width}",
                node.position,
            )
        return node.value - 1, fold
    for names, nodes in sides:
        if isinstance(node, ColumnRef) and node.table is None:
            lower = [name.lower() for name in names]
            if node.name.lower() in lower:
                return lower.index(node.name.lower()), fold
        for index, each in enumerate(nodes):
            if each is not None and each == node:
                return index, fold
    ordinal = _ORDINALS.get(number, f"{number}th")
    raise PlacedFault(
        f"{ordinal} ORDER BY term does not match any column in the result set", node.position
    )
