"""Correlation: what the expressions of a query name beyond its own FROM.

A name that no table of a query has may belong to the query around it. Before anything is
compiled, a `Level` (one SELECT, SEARCH, UPDATE or DELETE) goes through its expressions:

    a name of the query around     ->  OuterColumn     read from the row of that query
    a subquery that has such names ->  Correlated      run for each row of this level
    any other subquery             stays; it is run once, before the statement

A correlated subquery is planned once. To it the outer values are constants, so that a key or an
index is used for them; what it gives is kept for equal outer values during a run.

Invariants
    CR1 Every query inside one subquery (its tables in FROM, the sides of its UNION) shares one
        `Outer`, whose references are numbered in the order of their discovery.
    CR2 `OuterColumn(i)` reads `bindings.outer[i]` of the bindings that the subquery runs with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from m2mdb.pager.errors import PlacedFault, UnbuiltPlacedFault
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

if TYPE_CHECKING:
    from m2mdb.index.view import View
    from m2mdb.query.functions import Bindings
    from m2mdb.query.plan import Plan
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

    form  "scalar", "list" or "exists"
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
        self.references: list[ColumnRef] = []

    def column(self, reference: ColumnRef) -> OuterColumn | None:
        """The outer column that a name means; None where nobody around has it."""
        if not self.level.knows(reference):
            return None
        found = [_spelled(each) for each in self.references]
        spelled = _spelled(reference)
        if spelled not in found:
            found.append(spelled)
            self.references.append(reference)
        return OuterColumn(found.index(spelled), self.level.type_of(reference), reference.position)


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
        plan: Plan,
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

    def refuse_outer_aggregates(self, nodes: Iterable[Expression]) -> None:
        """Raise where an aggregate of resolved expressions is one of the query around.

        Such is, in SQL, one that names columns of that query and none of this. Raises
        ProgrammingError in a WHERE around, NotSupportedError elsewhere.
        """
        outer = self._planner.outer
        if outer is None:
            return
        for node in nodes:
            for call in _outer_aggregates(node):
                if outer.level.clause:
                    words = f"misuse of aggregate: {call.name}() in {outer.level.clause}"
                    raise PlacedFault(words, call.position)
                raise UnbuiltPlacedFault(
                    f"{call.name}() over columns of the query around belongs to the query around: "
                    "that is not built yet; write it there",
                    call.position,
                )

    def _replacement(self, node: Node) -> Node | None:
        if isinstance(node, ColumnRef):
            return self._column(node)
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

    def _subquery(self, node: Subquery, form: str) -> Expression:
        plan, outer = self._planned(node)
        width = len(plan.columns()[0])
        if form != "exists" and width != 1:
            raise PlacedFault(f"sub-select returns {width} columns - expected 1", node.position)
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


def _outer_aggregates(node: Expression) -> Iterator[FunctionCall]:
    """The aggregates that name columns of the query around and none of their own."""
    from m2mdb.query.aggregates import is_aggregate
    from m2mdb.query.constants import walk

    for call in walk(node):
        if isinstance(call, FunctionCall) and is_aggregate(call):
            kinds = {type(each) for argument in call.arguments for each in walk(argument)}
            if OuterColumn in kinds and ColumnRef not in kinds:
                yield call


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
