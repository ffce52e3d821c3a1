"""Conditions: comparisons, IN, BETWEEN, LIKE, IS and the logic of three values, compiled.

Each `compile_…` turns a node into a closure over (row, bindings); `compile` is handed in and does
the operands. Affinities and collations are decided here, once, not per row.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

from m2mdb.index.collations import Fold
from m2mdb.index.slices import SLICE_VALUES, Check, slices
from m2mdb.pager.errors import DataError, ProgrammingError
from m2mdb.query import extensions
from m2mdb.query.affinity import (
    AFFINITIES,
    APPLY,
    COLLATED,
    NONE,
    Value,
    base_type,
    cast_type,
    shown,
    truth,
)
from m2mdb.query.binding import adapted
from m2mdb.query.comparison import (
    COMPARISONS,
    DIRECT_OPERATORS,
    both,
    conversions,
    fold_of,
    fold_of_type,
    member,
    member_set,
    rank,
)
from m2mdb.query.constants import children, is_constant
from m2mdb.query.correlation import (
    Converted,
    Correlated,
    OuterColumn,
    compile_correlated_in,
)
from m2mdb.query.functions import Bindings
from m2mdb.query.nodes import (
    Between,
    Binary,
    Cast,
    Collate,
    ColumnRef,
    Expression,
    In,
    IsNull,
    Like,
    Literal,
    Parameter,
    Subquery,
    Unary,
)
from m2mdb.query.pattern import glob, like, like_matcher
from m2mdb.query.row_nodes import RowIn, SubqueryColumn
from m2mdb.query.scope import Scope

Row = tuple[Any, ...]
_SCALARS = frozenset({type(None), bool, int, float, str, bytes, datetime.datetime})
Evaluator = Callable[[Row, Bindings], Value]
Compile = Callable[[Expression, Scope], Evaluator]

_PLAIN_TYPES: dict[str, tuple[type, ...]] = {
    "INTEGER": (int, float, bool),
    "REAL": (int, float, bool),
    "BOOLEAN": (int, float, bool),
    "TEXT": (str,),
    "BLOB": (bytes,),
}


def type_of(node: Expression, scope: Scope) -> str | None:
    """The column type of an expression that has one: a column, a CAST; None for all others."""
    slot = scope.replacement(node)
    if slot is not None:
        return slot.type
    if isinstance(node, ColumnRef):
        return scope.column(node).type
    if isinstance(node, Cast):
        type = cast_type(node.type_name)
        return type + _behind(node.operand, scope) if type in ("TEXT", "JSON") else type
    if isinstance(node, Unary) and node.operator == "+":
        return _behind(node.operand, scope) or None
    if isinstance(node, OuterColumn):
        return node.type
    if isinstance(node, Subquery | Correlated):
        return base_type(_subquery_type(node, scope))
    if isinstance(node, SubqueryColumn):
        return base_type(_column_type(node, scope))
    return _collated_type(node, scope) if isinstance(node, Collate) else None


def _collated_type(node: Collate, scope: Scope) -> str | None:
    """A type with the collation that is written behind it, where a column may have that."""
    type, behind = base_type(type_of(node.operand, scope)), f" COLLATE {node.collation.upper()}"
    is_known = behind in COLLATED and extensions.collation(node.collation) is None
    return f"{type or ''}{behind}" if is_known else type


def _behind(node: Expression, scope: Scope) -> str:
    """The collation that a column keeps behind CAST and `+`, as it stands behind a type."""
    type = type_of(node, scope) or ""
    return type[len(base_type(type) or "") :]


def _subquery_type(node: Subquery | Correlated, scope: Scope) -> str | None:
    """The type of the one column of a query that stands as a value."""
    if isinstance(node, Correlated):
        return node.plan.columns()[1][0] if node.form == "scalar" else None
    if node.exists:
        return None
    base: Any = getattr(scope, "base", scope)
    planned = base.subqueries.planned.get(id(node))
    return None if planned is None else planned[0].columns()[1][0]


def _column_type(node: SubqueryColumn, scope: Scope) -> str | None:
    """The type of one of the columns of a query that gives a row."""
    if isinstance(node.query, Correlated):
        return node.query.plan.columns()[1][node.index]
    base: Any = getattr(scope, "base", scope)
    planned = base.subqueries.planned.get(id(node.query))
    return None if planned is None else planned[0].columns()[1][node.index]


def affinity_of(node: Expression, scope: Scope) -> str:
    """The affinity of an expression in a comparison.

    Raises ProgrammingError: vectors cannot be compared.
    """
    type = type_of(node, scope)
    if type == "VECTOR":
        name = node.name if isinstance(node, ColumnRef) else "a vector"
        raise ProgrammingError(f"{name} is a VECTOR column and cannot be compared; use NEAR")
    return AFFINITIES.get(type or "", NONE)


def collation_of(scope: Scope, *nodes: Expression) -> Fold | None:
    """What the collation of a comparison does to its operands; None: nothing.

    It is that of the leftmost COLLATE anywhere in them, else that of the first column among them;
    a column is still one behind CAST and `+`.
    """
    for node in nodes:
        found = _leftmost_collate(node)
        if found is not None:
            return fold_of(found.collation)
    for node in nodes:
        own = _own_collation(node, scope)
        if own:
            return own[0]
    return None


def _own_collation(node: Expression, scope: Scope) -> tuple[Fold | None, ...]:
    """The collation of an expression that is a column; nothing for all others."""
    while scope.replacement(node) is None and (
        isinstance(node, Cast | Converted) or (isinstance(node, Unary) and node.operator == "+")
    ):
        node = node.operand
    if isinstance(node, ColumnRef | OuterColumn):
        return (fold_of_type(type_of(node, scope)),)
    return ()


def collation_of_column(column: ColumnRef, scope: Scope) -> Fold | None:
    """The collation that a column's keys and indexes go by."""
    return fold_of_type(scope.column(column).type)


def goes_by(column: ColumnRef, node: Binary, scope: Scope) -> bool:
    """Whether a comparison goes by the collation of one of its columns, as keys and indexes do."""
    return collation_of(scope, node.left, node.right) is collation_of_column(column, scope)


def collation_of_row(node: RowIn, index: int, scope: Scope) -> Fold | None:
    """The collation of one operand of a row's IN: its own, else that of the query's column."""
    operand = node.operands[index]
    if _leftmost_collate(operand) is None and not _own_collation(operand, scope):
        return fold_of_type(_column_type(SubqueryColumn(node.values, index, 0, 0), scope))
    return collation_of(scope, operand)


def collation_of_membership(node: In, scope: Scope) -> Fold | None:
    """The collation of IN: the operand's, else that of the column that a query gives."""
    if _leftmost_collate(node.operand) is None and not _own_collation(node.operand, scope):
        if isinstance(node.values, Correlated):
            return fold_of_type(node.values.plan.columns()[1][0])
        if isinstance(node.values, Subquery):
            return fold_of_type(_subquery_type(node.values, scope))
    return collation_of(scope, node.operand)


def _leftmost_collate(node: Expression) -> Collate | None:
    """The first COLLATE of an expression; the outer one of two that stand in a row."""
    if isinstance(node, ColumnRef | Literal | Parameter):
        return None
    if isinstance(node, Collate):
        return node
    for child in children(node):
        if isinstance(child, Expression):
            found = _leftmost_collate(child)
            if found is not None:
                return found
    return None


def converted(evaluator: Evaluator, affinity: str, node: Expression) -> Evaluator:
    """The evaluator with an affinity applied to its value; a literal's is applied at once."""
    if affinity == NONE:
        return evaluator
    apply = APPLY[affinity]
    if isinstance(node, Literal):
        constant = apply(node.value)
        return lambda row, bindings: constant
    if isinstance(node, Parameter):
        index = node.index
        key = (index, affinity)
        return lambda row, bindings: bindings.once(key, lambda: apply(bindings[index]))
    return lambda row, bindings: apply(evaluator(row, bindings))


def folded(evaluator: Evaluator, fold: Callable[[Value], Value] | None) -> Evaluator:
    """The evaluator with a collation applied to its value."""
    if fold is None:
        return evaluator
    return lambda row, bindings: fold(evaluator(row, bindings))


def shaper(affinity: str, fold: Callable[[Value], Value] | None) -> Callable[[Value], Value]:
    """What an affinity and a collation do to a value."""
    apply = APPLY.get(affinity)
    if apply is None or fold is None:
        return apply or fold or (lambda value: value)
    return lambda value: fold(apply(value))


def compile_comparison(node: Binary, scope: Scope, compile: Compile) -> Evaluator:
    """`= != < <= > >= IS "IS NOT"`."""
    right_side = node.right.operand if isinstance(node.right, Collate) else node.right
    if node.operator in ("IS", "IS NOT") and isinstance(right_side, Literal):
        if type(right_side.value) is bool:
            return _truth_test(node, right_side.value, compile(node.left, scope))
        if right_side.value is None:
            return _null_test(compile(node.left, scope), node.operator == "IS NOT")
    one, other = conversions(affinity_of(node.left, scope), affinity_of(node.right, scope))
    fold = collation_of(scope, node.left, node.right)
    direct = None if fold else _direct(node, scope, other)
    if direct is not None:
        return direct
    left = folded(converted(compile(node.left, scope), one, node.left), fold)
    right = folded(converted(compile(node.right, scope), other, node.right), fold)
    apply = COMPARISONS[node.operator]
    return lambda row, bindings: apply(left(row, bindings), right(row, bindings))


def _truth_test(node: Binary, wanted: bool, operand: Evaluator) -> Evaluator:
    """`x IS TRUE` asks whether x is true, not whether it is 1."""
    if node.operator == "IS":
        return lambda row, bindings: truth(operand(row, bindings)) is wanted
    return lambda row, bindings: truth(operand(row, bindings)) is not wanted


def _direct(node: Binary, scope: Scope, affinity: str) -> Evaluator | None:
    """A column against a literal of its own type: Python's operator, no checks of the types.

    Columns are strict, so that the column's values need none.
    """
    if not isinstance(node.left, ColumnRef) or not isinstance(node.right, Literal):
        return None
    apply = DIRECT_OPERATORS.get(node.operator)
    constant = node.right.value if affinity == NONE else APPLY[affinity](node.right.value)
    position, type = scope.column(node.left)
    if apply is None or not isinstance(constant, _PLAIN_TYPES.get(type or "", ())):
        return None

    def run(row: Row, bindings: Bindings) -> Value:
        value = row[position]
        return None if value is None else apply(value, constant)

    return run


def compile_logic(node: Binary, scope: Scope, compile: Compile) -> Evaluator:
    """A chain of AND or of OR: evaluated from the left until it is decided."""
    operands = [compile(operand, scope) for operand in chain(node, node.operator)]
    decisive = node.operator == "OR"

    def run(row: Row, bindings: Bindings) -> bool | None:
        result: bool | None = not decisive
        for operand in operands:
            value = truth(operand(row, bindings))
            if value is decisive:
                return decisive
            if value is None:
                result = None
        return result

    return run


def chain(node: Expression, operator: str) -> list[Expression]:
    """The operands of a chain of one logical operator, from the left."""
    operands: list[Expression] = []
    waiting = [node]
    while waiting:
        current = waiting.pop()
        if isinstance(current, Binary) and current.operator == operator:
            waiting += (current.right, current.left)
        else:
            operands.append(current)
    return operands


def compile_not(node: Unary, scope: Scope, compile: Compile) -> Evaluator:
    """`NOT operand`."""
    operand = compile(node.operand, scope)

    def run(row: Row, bindings: Bindings) -> bool | None:
        value = truth(operand(row, bindings))
        return None if value is None else not value

    return run


def _negated(evaluator: Evaluator, negated: bool) -> Evaluator:
    if not negated:
        return evaluator

    def run(row: Row, bindings: Bindings) -> bool | None:
        value = evaluator(row, bindings)
        return None if value is None else not value

    return run


def compile_is_null(node: IsNull, scope: Scope, compile: Compile) -> Evaluator:
    """`IS NULL` and `IS NOT NULL`."""
    return _null_test(compile(node.operand, scope), node.negated)


def _null_test(operand: Evaluator, negated: bool) -> Evaluator:
    if negated:
        return lambda row, bindings: operand(row, bindings) is not None
    return lambda row, bindings: operand(row, bindings) is None


def compile_between(node: Between, scope: Scope, compile: Compile) -> Evaluator:
    """`operand [NOT] BETWEEN low AND high`: the operand is evaluated once."""
    affinity = affinity_of(node.operand, scope)
    operand = compile(node.operand, scope)
    fold_low = collation_of(scope, node.operand, node.low)
    fold_high = collation_of(scope, node.operand, node.high)
    own_low, low_affinity = conversions(affinity, affinity_of(node.low, scope))
    own_high, high_affinity = conversions(affinity, affinity_of(node.high, scope))
    low = folded(converted(compile(node.low, scope), low_affinity, node.low), fold_low)
    high = folded(converted(compile(node.high, scope), high_affinity, node.high), fold_high)
    at_least, at_most = COMPARISONS[">="], COMPARISONS["<="]
    for_low, for_high = shaper(own_low, fold_low), shaper(own_high, fold_high)

    def run(row: Row, bindings: Bindings) -> bool | None:
        value = operand(row, bindings)
        return both(
            at_least(for_low(value), low(row, bindings)),
            at_most(for_high(value), high(row, bindings)),
        )

    return _negated(run, node.negated)


def compile_in(node: In, scope: Scope, compile: Compile) -> Evaluator:
    """`operand [NOT] IN (…)`: constants become a set once per run of the statement."""
    affinity = affinity_of(node.operand, scope)
    fold = collation_of_membership(node, scope)
    operand = folded(compile(node.operand, scope), fold)
    if isinstance(node.values, list) and not all(map(is_constant, node.values)):
        items = [folded(compile(value, scope), fold) for value in node.values]
        return _negated(_in_row(operand, items, affinity), node.negated)
    if isinstance(node.values, Correlated):
        values, shape = compile(node.values, scope), shaper(affinity, fold)
        return _negated(compile_correlated_in(operand, values, shape), node.negated)
    gather = gatherer(node, scope, compile)
    key = (id(node), affinity)

    def make(bindings: Bindings) -> tuple[frozenset[Value], bool]:
        listed = gather(bindings)
        return member_set([fold(value) for value in listed] if fold else listed, affinity)

    def run(row: Row, bindings: Bindings) -> bool | None:
        members, has_null = bindings.once(key, lambda: make(bindings))
        value = operand(row, bindings)
        if value is None:
            return None if members or has_null else False
        rank(value)
        return True if value in members else None if has_null else False

    return _negated(run, node.negated)


def _in_row(operand: Evaluator, items: list[Evaluator], affinity: str) -> Evaluator:
    """IN a list that depends on the row."""
    apply = APPLY.get(affinity)

    def run(row: Row, bindings: Bindings) -> bool | None:
        listed = [item(row, bindings) for item in items]
        if apply is not None:
            listed = [apply(value) for value in listed]
        return member(operand(row, bindings), listed)

    return run


def gatherer(node: In, scope: Scope, compile: Compile) -> Callable[[Bindings], list[Value]]:
    """What gives the values of an IN list that does not depend on the row."""
    values = node.values
    if isinstance(values, list):
        items = [compile(value, scope) for value in values]
        return lambda bindings: [item((), bindings) for item in items]
    if isinstance(values, Subquery):
        index = scope.subquery(values, "list")
        return lambda bindings: list(bindings[index])
    assert isinstance(values, Parameter), values
    index = values.index
    return lambda bindings: sequence_of(bindings[index], index, bindings.check)


def sequence_of(value: Any, index: int, check: Check) -> list[Value]:
    """The values of a parameter that stands for a list.

    check  called between slices of them; it may raise
    Raises ProgrammingError: it is bound to no sequence. DataError: an item is no scalar.
    """
    if hasattr(value, "tolist") and getattr(value, "ndim", 1) == 1:
        value = value.tolist()
    if not isinstance(value, list | tuple | set | frozenset | range):
        raise ProgrammingError(
            f"parameter {index + 1} stands for a list and is bound to "
            f"{type(value).__name__} {shown(value)}; expected a list, tuple, set or array"
        )
    listed = list(value)
    for some in slices(len(listed), SLICE_VALUES, check):
        for at, item in enumerate(listed[some], some.start):
            if isinstance(item, list | tuple | dict):
                raise DataError(f"parameter {index + 1}: {shown(item)} in the list is no scalar")
            if type(item) not in _SCALARS:  # NumPy's, dates, UUIDs, the program's types
                listed[at] = adapted(item, index)
    return listed


def compile_like(node: Like, scope: Scope, compile: Compile) -> Evaluator:
    """`LIKE [ESCAPE]` and `GLOB`; a literal pattern is translated once."""
    operand = compile(node.operand, scope)
    pattern = compile(node.pattern, scope)
    if node.operator == "GLOB":
        return _negated(
            lambda row, bindings: glob(operand(row, bindings), pattern(row, bindings)),
            node.negated,
        )
    if node.escape is None:
        return _negated(_simple_like(node, operand, pattern), node.negated)
    escape = compile(node.escape, scope)

    def run(row: Row, bindings: Bindings) -> bool | None:
        mark = escape(row, bindings)
        if mark is None:
            return None
        return like(operand(row, bindings), pattern(row, bindings), mark)

    return _negated(run, node.negated)


def _simple_like(node: Like, operand: Evaluator, pattern: Evaluator) -> Evaluator:
    if not isinstance(node.pattern, Literal) or not isinstance(node.pattern.value, str):
        return lambda row, bindings: like(operand(row, bindings), pattern(row, bindings))
    matches = like_matcher(node.pattern.value, None)
    text = node.pattern.value

    def run(row: Row, bindings: Bindings) -> bool | None:
        value = operand(row, bindings)
        return matches(value) if type(value) is str else like(value, text)

    return run
