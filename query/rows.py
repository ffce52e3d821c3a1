"""Row values: `(a, b) = (1, 2)`, `(a, b) < (…)`, `(a, b) IN (…)`, as SQLite has them.

The parser takes rows apart: a comparison of rows becomes one of their values, in which each value
stands once or twice. Only IN a query keeps the row (`RowIn`), and of a query that gives a row each
value is a `SubqueryColumn`.

    (a, b) = (c, d)     a = c AND b = d
    (a, b) <> (c, d)    a <> c OR b <> d
    (a, b) < (c, d)     a < c OR (a = c AND b < d)

Invariants
    RV1 A comparison is NULL where, and only where, the first values that are not equal, in order,
        have a NULL among them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m2mdb.pager.errors import PlacedFault
from m2mdb.query.affinity import APPLY, Value
from m2mdb.query.nodes import (
    Binary,
    Expression,
    In,
    Parameter,
    Subquery,
    Unary,
)
from m2mdb.query.row_nodes import RowIn, RowValue, SubqueryColumn
from m2mdb.query.syntax import SyntaxFault

if TYPE_CHECKING:
    from m2mdb.query.conditions import Compile, Evaluator, Row
    from m2mdb.query.functions import Bindings
    from m2mdb.query.scope import Scope

_OF_ALL = {"=": "AND", "IS": "AND", "!=": "OR", "IS NOT": "OR"}
_ORDERS = ("<", "<=", ">", ">=")
MISUSED = "row value misused"


def compared(operator: str, left: Expression, right: Expression, position: int) -> Expression:
    """A comparison where at least one side is a row.

    Raises SyntaxFault: the other is none, or of another length; an operator that takes no rows.
    """
    if operator not in (*_OF_ALL, *_ORDERS):
        raise SyntaxFault(f"{MISUSED}: {operator} takes single values", position)
    sides = _sides(left, right, position)
    if operator in _OF_ALL:
        each: list[Expression] = [Binary(operator, a, b, position) for a, b in sides]
        return _chain(_OF_ALL[operator], each, position)
    strict = operator[0]
    *before, (a, b) = sides
    found: Expression = Binary(operator, a, b, position)
    for a, b in reversed(before):
        equal = Binary("AND", Binary("=", a, b, position), found, position)
        found = Binary("OR", Binary(strict, a, b, position), equal, position)
    return found


def between(
    operand: Expression, low: Expression, high: Expression, negated: bool, position: int
) -> Expression:
    """`(a, b) BETWEEN (…) AND (…)`."""
    whole = Binary(
        "AND", compared(">=", operand, low, position), compared("<=", operand, high, position),
        position,
    )  # fmt: skip
    return Unary("NOT", whole, position) if negated else whole


def member(
    operand: RowValue,
    values: list[Expression] | Parameter | Subquery,
    negated: bool,
    position: int,
) -> Expression:
    """`(a, b) IN (SELECT …)`, or IN a list of rows, which SQLite does not take."""
    if isinstance(values, Subquery):
        return RowIn(operand.items, values, negated, position)
    if isinstance(values, Parameter):
        raise SyntaxFault(f"{MISUSED}: IN ? takes one value", position)
    if not values:
        return In(operand.items[0], [], negated, position)
    each = [compared("=", operand, value, position) for value in values]
    whole = _chain("OR", each, position)
    return Unary("NOT", whole, position) if negated else whole


def spread(value: Expression, width: int, position: int) -> list[Expression]:
    """The values of a row, or of the row that a query gives.

    Raises SyntaxFault: it has another number of values.
    """
    if isinstance(value, RowValue) and len(value.items) == width:
        return value.items
    if isinstance(value, Subquery) and not value.exists:
        return [SubqueryColumn(value, index, width, position) for index in range(width)]
    count = len(value.items) if isinstance(value, RowValue) else 1
    few = "1 value" if count == 1 else f"{count} values"
    raise SyntaxFault(f"{MISUSED}: {few} where {width} are wanted", position)


def _sides(
    left: Expression, right: Expression, position: int
) -> list[tuple[Expression, Expression]]:
    row = left if isinstance(left, RowValue) else right
    assert isinstance(row, RowValue)
    width = len(row.items)
    pairs = zip(spread(left, width, position), spread(right, width, position), strict=True)
    return list(pairs)


def _chain(operator: str, items: list[Expression], position: int) -> Expression:
    """A tree of the least depth."""
    level = items
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        joined: list[Expression] = [Binary(operator, a, b, position) for a, b in pairs]
        level = joined + level[len(joined) * 2 :]
    return level[0]


# ------------------------------------------------------------------------- evaluating


def compile_misused(node: RowValue, scope: Scope) -> Evaluator:
    """A row where one value is wanted: ProgrammingError."""
    raise PlacedFault(MISUSED, node.position)


def _bound_at(slot: int) -> Evaluator:
    """What a subquery gave that is bound at a place behind the program's values."""

    def run(row: Row, bindings: Bindings) -> Value:
        return bindings[slot]

    return run


def compile_subquery_column(node: SubqueryColumn, scope: Scope, compile: Compile) -> Evaluator:
    """One value of a query's first row; NULL where it gives none."""
    index = node.index
    if isinstance(node.query, Subquery):
        row_of = _bound_at(scope.subquery(node.query, "row"))
    else:
        row_of = compile(node.query, scope)

    def run(row: Row, bindings: Bindings) -> Value:
        found = row_of(row, bindings)
        return None if found is None else found[index]

    return run


def compile_row_in(node: RowIn, scope: Scope, compile: Compile) -> Evaluator:
    """`(a, b) [NOT] IN (SELECT …)`: the query's rows become a set once per run."""
    from m2mdb.query.conditions import collation_of_row, folded, shaper

    folds = [collation_of_row(node, index, scope) for index in range(len(node.operands))]
    operands = [
        folded(compile(operand, scope), fold)
        for operand, fold in zip(node.operands, folds, strict=True)
    ]
    affinities = node.affinities or ["" for _ in operands]
    shapes = [shaper(a if a in APPLY else "", f) for a, f in zip(affinities, folds, strict=True)]
    once: object = None
    if isinstance(node.values, Subquery):
        slot, once = scope.subquery(node.values, "rows"), ("rows", id(node))
        rows_of = _bound_at(slot)
    else:
        rows_of = compile(node.values, scope)

    def shaped(row: Row, bindings: Bindings) -> tuple[frozenset[Row], list[Row]]:
        """The rows without NULL, and those with one."""
        found = [
            tuple([shape(value) for shape, value in zip(shapes, each, strict=True)])
            for each in rows_of(row, bindings)
        ]
        whole = frozenset(each for each in found if None not in each)
        return whole, [each for each in found if None in each]

    def run(row: Row, bindings: Bindings) -> bool | None:
        if once is None:
            whole, open_ = shaped(row, bindings)
        else:
            whole, open_ = bindings.once(once, lambda: shaped(row, bindings))
        value = tuple([operand(row, bindings) for operand in operands])
        if None not in value and value in whole:
            found: bool | None = True
        else:
            candidates = open_ if None not in value else [*whole, *open_]
            found = None if any(_maybe(value, each) for each in candidates) else False
        return found if found is None else found != node.negated

    return run


def _maybe(one: Row, other: Row) -> bool:
    """Whether two rows differ in nothing but NULLs."""
    return all(a is None or b is None or a == b for a, b in zip(one, other, strict=True))
