"""Correlation: what the expressions of a query name beyond its own FROM.

A name that no table of a query has may belong to the query around it. Before anything is
compiled, a `Level` (one SELECT, SEARCH, UPDATE or DELETE) goes through its expressions:

    a name of the query around     ->  OuterColumn     read from the row of that query
    a subquery that has such names ->  Correlated      run for each row of this level
    any other subquery             stays; it is run once, before the statement
    an aggregate over columns of the query around alone
                                   ->  OuterColumn     that query's aggregate, in SQL

A correlated subquery is planned once. To it the outer values are constants, so that a key or an
index is used for them; what it gives is kept for equal outer values during a run.

Invariants
    CR1 Every query inside one subquery (its tables in FROM, the sides of its UNION) shares one
        `Outer`, whose references are numbered in the order of their discovery.
    CR2 `OuterColumn(i)` reads `bindings.outer[i]` of the bindings that the subquery runs with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from m2mdb.pager.errors import PlacedFault
from m2mdb.query.affinity import AFFINITIES, APPLY, NONE
from m2mdb.query.comparison import conversions, member
from m2mdb.query.nodes import (
    Collate,
    ColumnRef,
    Expression,
    FunctionCall,
    In,
    Node,
    Subquery,
)
from m2mdb.query.rewriting import rewritten
from m2mdb.query.row_nodes import RowIn, SubqueryColumn

if TYPE_CHECKING:
    from m2mdb.index.view import View
    from m2mdb.query.functions import Bindings
    from m2mdb.query.plan import Plan, Planned
    from m2mdb.query.planning import Planner
    from m2mdb.query.scope import RowScope, Scope, Subqueries

Evaluator = Callable[[tuple[Any, ...], "Bindings"], Any]
KEPT_RESULTS = 100_000  # of one correlated subquery in one run, for equal outer values


class OuterColumn(Expression):
    """A column of the query around: a constant here."""

    __slots__ = ("index", "type")

    def __init__(self, index: int, type: str | None, position: int) -> None:
        self.index = index
        self.type = type
        self.position = position


class Correlated(Expression):
    """A subquery that is run for each row; `references` are what it reads of the row.

    form  "scalar", "list", "exists", "row" or "rows"
    """

    __slots__ = ("form", "plan", "references")

    def __init__(
        self, plan: Plan, form: str, references: Sequence[Expression], position: int
    ) -> None:
        self.plan = plan
        self.form = form
        self.references = list(references)
        self.position = position


class Converted(Expression):
    """An operand with an affinity applied: the left side of IN before a query's column."""

    __slots__ = ("affinity", "operand")

    def __init__(self, operand: Expression, affinity: str, position: int) -> None:
        self.operand = operand
        self.affinity = affinity
        self.position = position


class Outer:
    """What the queries inside one subquery have taken from the level around it (CR1)."""

    __slots__ = ("level", "references")

    def __init__(self, level: Level) -> None:
        self.level = level
        self.references: list[Expression] = []  # names, and aggregates of the level

    def column(self, reference: ColumnRef) -> OuterColumn | None:
        """The outer column that a name means; None where nobody around has it."""
        if not self.level.knows(reference):
            return None
        found = [
            _spelled(each) if isinstance(each, ColumnRef) else None for each in self.references
        ]
        spelled = _spelled(reference)
        if spelled not in found:
            found.append(spelled)
            self.references.append(reference)
        return OuterColumn(found.index(spelled), self.level.type_of(reference), reference.position)

    def aggregate(self, call: FunctionCall) -> OuterColumn:
        """An aggregate of the level around, or of one further out.

        Raises ProgrammingError: it is that level's, and stands in its WHERE.
        """
        if self.level.clause and self.level.owns_any(call):
            words = f"misuse of aggregate: {call.name}() in {self.level.clause}"
            raise PlacedFault(words, call.position)
        if call not in self.references:
            self.references.append(call)
        return OuterColumn(self.references.index(call), None, call.position)


def _spelled(reference: ColumnRef) -> tuple[str | None, str]:
    table = None if reference.table is None else reference.table.lower()
    return table, reference.name.lower()


class Level:
    """One query's expressions, made ready to be compiled."""

    __slots__ = (
        "_aliases", "_count", "_plan", "_planner", "_scope", "_subqueries", "_view", "clause",
    )  # fmt: skip

    def __init__(
        self,
        plan: Planned,
        scope: RowScope,
        context: tuple[View, Planner, Subqueries],
        aliases: Sequence[str] = (),
    ) -> None:
        """`aliases`: names of the result list, which go before those of the query around."""
        self._plan = plan
        self._scope = scope
        self._view, self._planner, self._subqueries = context
        self._count = self._subqueries.first
        self._aliases = {alias.lower() for alias in aliases}
        self.clause = ""  # the one that is being resolved, where it takes no aggregates

    def knows(self, reference: ColumnRef) -> bool:
        """Whether a name is a column here, or further out."""
        if self._scope.has(reference):
            return True
        outer = self._planner.outer
        return outer is not None and outer.level.knows(reference)

    def type_of(self, reference: ColumnRef) -> str | None:
        """The column type of a name that is known."""
        if self._scope.has(reference):
            scope = self._scope.sibling()
            whole = scope.expansion(reference)
            if whole is None:
                return scope.column(reference).type
            return next((scope.column(each).type for each in _columns(whole)), None)
        assert self._planner.outer is not None
        return self._planner.outer.level.type_of(reference)

    def resolve(self, node: Expression) -> Expression:
        """The expression with outer columns and correlated subqueries marked.

        Raises ProgrammingError: a subquery of several columns where one value is wanted.
        """
        return rewritten(node, self._replacement)

    def owns_any(self, call: FunctionCall) -> bool:
        """Whether one of the columns that an aggregate names is this level's."""
        return any(self._scope.has(each) for each in _columns(call))

    def _outer_aggregate(self, call: FunctionCall) -> OuterColumn | None:
        """The aggregate of the query around, where it names columns of it and none of this."""
        from m2mdb.query.aggregates import is_aggregate

        outer = self._planner.outer
        if outer is None or not is_aggregate(call) or self.owns_any(call):
            return None
        columns = _columns(call)
        if not columns or not all(map(outer.level.knows, columns)):
            return None
        return outer.aggregate(call)

    def _replacement(self, node: Node) -> Node | None:
        if isinstance(node, ColumnRef):
            return self._column(node)
        if isinstance(node, FunctionCall):
            return self._outer_aggregate(node)
        if isinstance(node, RowIn):
            return self._row_membership(node)
        if isinstance(node, SubqueryColumn):
            return self._subquery_column(node)
        if isinstance(node, In) and isinstance(node.values, Subquery):
            return self._membership(node, node.values)
        if isinstance(node, Subquery):
            return self._subquery(node, "exists" if node.exists else "scalar")
        return node if isinstance(node, OuterColumn | Correlated) else None

    def _column(self, node: ColumnRef) -> Expression:
        if self._scope.has(node):
            return self._scope.expansion(node) or node
        if node.table is None and node.name.lower() in self._aliases:
            return node
        outer = self._planner.outer
        found = None if outer is None else outer.column(node)
        return node if found is None else found

    def _membership(self, node: In, values: Subquery) -> Expression:
        made = In(
            self._left_side(self.resolve(node.operand), values),
            self._subquery(values, "list"),
            node.negated,
            node.position,
        )
        return node if made.operand is node.operand and made.values is values else made

    def _left_side(self, operand: Expression, values: Subquery) -> Expression:
        """The operand of IN with the affinity of the query's column, as in `operand = column`."""
        from m2mdb.query.conditions import affinity_of

        if isinstance(operand, Collate):
            inner = self._left_side(operand.operand, values)
            if inner is operand.operand:
                return operand
            return Collate(inner, operand.collation, operand.position)
        types = self._planned(values)[0].columns()[1]
        if len(types) != 1:
            return operand
        own = affinity_of(operand, self._scope.sibling())
        wanted = conversions(own, AFFINITIES.get(types[0] or "", NONE))[0]
        return operand if wanted == NONE else Converted(operand, wanted, operand.position)

    def _row_membership(self, node: RowIn) -> RowIn:
        """`(a, b) IN (SELECT …)`, with the affinities that `a = x` and `b = y` would have."""
        from m2mdb.query.conditions import affinity_of

        if node.affinities is not None:
            return node
        assert isinstance(node.values, Subquery)
        values = self._subquery(node.values, "rows", len(node.operands))
        types = self._planned(node.values)[0].columns()[1]
        operands, affinities = [], []
        scope = self._scope.sibling()
        for operand, type in zip(map(self.resolve, node.operands), types, strict=True):
            own, other = conversions(affinity_of(operand, scope), AFFINITIES.get(type or "", NONE))
            affinities.append(other)
            operands.append(operand if own == NONE else Converted(operand, own, operand.position))
        return RowIn(operands, values, node.negated, node.position, affinities)

    def _subquery_column(self, node: SubqueryColumn) -> SubqueryColumn:
        """One value of the row that a query gives."""
        if not isinstance(node.query, Subquery):
            return node
        made = self._subquery(node.query, "row", node.width)
        return SubqueryColumn(made, node.index, node.width, node.position)

    def _subquery(self, node: Subquery, form: str, expected: int = 1) -> Expression:
        plan, outer = self._planned(node)
        width = len(plan.columns()[0])
        if form != "exists" and width != expected:
            raise PlacedFault(
                f"sub-select returns {width} columns - expected {expected}", node.position
            )
        if not outer.references:
            return node
        if (plan, form) not in self._plan.correlated:
            self._plan.correlated.append((plan, form))
        references = [self.resolve(each) for each in outer.references]
        return Correlated(plan, form, references, node.position)

    def _planned(self, node: Subquery) -> tuple[Plan, Outer]:
        """The plan of a subquery, made once."""
        known: Any = self._subqueries.planned.get(id(node))
        if known is None:
            outer = Outer(self)
            plan = self._planner.inside(outer)(node.query, self._view, self._count)
            self._plan.tables.extend(plan.all_tables())
            known = self._subqueries.planned[id(node)] = plan, outer, node
        return known[0], known[1]


def _columns(node: Expression) -> list[ColumnRef]:
    from m2mdb.query.constants import walk

    return [each for each in walk(node) if isinstance(each, ColumnRef)]


# ------------------------------------------------------------------------- evaluating


def compile_outer(node: OuterColumn, scope: Scope) -> Evaluator:
    """A closure that gives an outer column's value (CR2)."""
    index = node.index
    return lambda row, bindings: bindings.outer[index]


def compile_converted(
    node: Converted, scope: Scope, compile: Callable[[Expression, Scope], Evaluator]
) -> Evaluator:
    """A closure that gives the operand with the affinity applied."""
    operand, apply = compile(node.operand, scope), APPLY[node.affinity]
    return lambda row, bindings: apply(operand(row, bindings))


def compile_correlated(
    node: Correlated, scope: Scope, compile: Callable[[Expression, Scope], Evaluator]
) -> Evaluator:
    """A closure that runs the subquery with the row's values, or finds what it gave for them."""
    references = [compile(each, scope) for each in node.references]
    plan, form, memo = node.plan, node.form, ("correlated", id(node))

    def run(row: tuple[Any, ...], bindings: Bindings) -> Any:
        values = tuple([evaluate(row, bindings) for evaluate in references])
        kept: dict[Any, Any] = bindings.once(memo, dict)
        key = (values, tuple(map(type, values)))
        try:
            if key in kept:
                return kept[key]
        except TypeError:  # a vector is no key
            return _inner(plan, form, values, bindings)
        found = _inner(plan, form, values, bindings)
        if len(kept) < KEPT_RESULTS:
            kept[key] = found
        return found

    return run


def _inner(plan: Plan, form: str, values: tuple[Any, ...], bindings: Bindings) -> Any:
    from m2mdb.query.plan import inner_value

    view = bindings.view
    assert view is not None, "a plan with a correlated subquery binds the view"
    view.database.check_interrupted()
    own = bindings.program_values(plan.parameter_count)
    own.outer = values
    return inner_value(plan, form, view, own)


def compile_correlated_in(
    operand: Evaluator,
    values: Evaluator,
    shape: Callable[[Any], Any] | None,
) -> Evaluator:
    """`operand IN (correlated subquery)`; `shape` converts each of its values."""

    def run(row: tuple[Any, ...], bindings: Bindings) -> bool | None:
        listed = values(row, bindings)
        if shape is not None:
            listed = [shape(value) for value in listed]
        return member(operand(row, bindings), listed)

    return run
