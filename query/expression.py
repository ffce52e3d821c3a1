"""Expressions: from the tree of a statement to closures over a row and the bound values.

`compile_expression(node, scope)` gives a function of (row, bindings): the row is a tuple whose
positions the scope gave out, the bindings hold the parameters' values. All names are resolved and
all affinities decided here, once; what remains per row is the work itself.

    Expression --compile_expression--> Evaluator --(row, bindings)--> value

Invariants
    X4  Compiling has no effect but on the scope; evaluating has none at all.
    X5  A chain of one operator is walked in a loop; other nesting may end in RecursionError,
        which the executor reports as ProgrammingError.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from m2mdb.pager.errors import DataError, PlacedFault
from m2mdb.query import arithmetic, extensions, jsonpath
from m2mdb.query.affinity import INT64_MAX, INT64_MIN, Value, cast, cast_type, truth
from m2mdb.query.aggregates import is_aggregate
from m2mdb.query.calls import applied, compile_call, function_names
from m2mdb.query.comparison import COMPARISONS, conversions
from m2mdb.query.conditions import (
    Evaluator,
    Row,
    affinity_of,
    collation_of,
    compile_between,
    compile_comparison,
    compile_in,
    compile_is_null,
    compile_like,
    compile_logic,
    compile_not,
    converted,
    folded,
    shaper,
)
from m2mdb.query.correlation import (
    Converted,
    Correlated,
    OuterColumn,
    compile_converted,
    compile_correlated,
    compile_outer,
)
from m2mdb.query.functions import Bindings
from m2mdb.query.nodes import (
    Between,
    Binary,
    Case,
    Cast,
    Collate,
    ColumnRef,
    Expression,
    FunctionCall,
    In,
    IsNull,
    JsonPath,
    Like,
    Literal,
    Parameter,
    Subquery,
    Unary,
    VectorLiteral,
)
from m2mdb.query.row_nodes import RowIn, RowValue, SubqueryColumn
from m2mdb.query.rows import compile_misused, compile_row_in, compile_subquery_column
from m2mdb.query.scope import Scope
from m2mdb.query.vectors import compile_distance, is_distance


def compile_expression(node: Expression, scope: Scope) -> Evaluator:
    """A closure that gives the expression's value for a row.

    Raises ProgrammingError: an unknown column, function or collation, a wrong number of
    arguments, nesting too deep.
    """
    slot = scope.replacement(node)
    if slot is not None:
        return _at(slot.position)
    return _COMPILERS[type(node)](node, scope)


def _at(position: int) -> Evaluator:
    return lambda row, bindings: row[position]


def _constant(value: Value) -> Evaluator:
    return lambda row, bindings: value


def literal_value(node: Literal) -> Value:
    """The value of a literal; an integer beyond 64 bits is a real, as in SQLite."""
    value = node.value
    if type(value) is int and not INT64_MIN <= value <= INT64_MAX:
        return float(value)
    return value


def _literal(node: Literal, scope: Scope) -> Evaluator:
    return _constant(literal_value(node))


def _parameter(node: Parameter, scope: Scope) -> Evaluator:
    index = node.index
    return lambda row, bindings: bindings[index]


def _column(node: ColumnRef, scope: Scope) -> Evaluator:
    return _at(scope.column(node).position)


def _vector(node: VectorLiteral, scope: Scope) -> Evaluator:
    wide = np.array(node.values, np.float64)
    with np.errstate(over="ignore"):
        vector = wide.astype(np.float32)
    for at in np.flatnonzero(np.isinf(vector) & np.isfinite(wide))[:1].tolist():
        raise DataError(f"vector literal: {wide[at]} at dimension {at} overflows float32")
    vector.flags.writeable = False
    return _constant(vector)


def _collate(node: Collate, scope: Scope) -> Evaluator:
    collation_of(scope, node)
    return compile_expression(node.operand, scope)


def _subquery(node: Subquery, scope: Scope) -> Evaluator:
    index = scope.subquery(node, "scalar")
    return lambda row, bindings: bindings[index]


def _correlated(node: Correlated, scope: Scope) -> Evaluator:
    return compile_correlated(node, scope, compile_expression)


def _converted(node: Converted, scope: Scope) -> Evaluator:
    return compile_converted(node, scope, compile_expression)


def _unary(node: Unary, scope: Scope) -> Evaluator:
    if node.operator == "NOT":
        return compile_not(node, scope, compile_expression)
    if node.operator == "-" and isinstance(node.operand, Literal):
        value = node.operand.value
        if type(value) is int:
            return _literal(Literal(-value, node.position), scope)
    operand = compile_expression(node.operand, scope)
    if node.operator == "+":
        return operand
    apply = arithmetic.negate if node.operator == "-" else arithmetic.bit_not
    return lambda row, bindings: apply(operand(row, bindings))


def _binary(node: Binary, scope: Scope) -> Evaluator:
    if node.operator in ("AND", "OR"):
        return compile_logic(node, scope, compile_expression)
    if node.operator in COMPARISONS:
        return compile_comparison(node, scope, compile_expression)
    if is_distance(node):
        return compile_distance(node, scope, compile_expression)
    return _arithmetic(node, scope)


def _arithmetic(node: Binary, scope: Scope) -> Evaluator:
    """A chain of operators that leans to the left, walked in a loop (X5)."""
    steps: list[tuple[Callable[[Value, Value], Value], Evaluator]] = []
    current: Expression = node
    while isinstance(current, Binary) and current.operator in arithmetic.BINARY:
        if scope.replacement(current) is not None:
            break
        right = compile_expression(current.right, scope)
        steps.append((arithmetic.BINARY[current.operator], right))
        current = current.left
    first = compile_expression(current, scope)
    if len(steps) == 1:
        apply, right = steps[0]
        return lambda row, bindings: apply(first(row, bindings), right(row, bindings))
    steps.reverse()

    def run(row: Row, bindings: Bindings) -> Value:
        value = first(row, bindings)
        for apply, right in steps:
            value = apply(value, right(row, bindings))
        return value

    return run


def _json_path(node: JsonPath, scope: Scope) -> Evaluator:
    operand = compile_expression(node.operand, scope)
    path = compile_expression(node.path, scope)
    apply = jsonpath.arrow if node.operator == "->" else jsonpath.double_arrow
    if node.operator == "->>" and isinstance(node.path, Literal):
        known = jsonpath.double_arrow_at(node.path.value)
        if known is not None:
            return lambda row, bindings: known(operand(row, bindings))
    return lambda row, bindings: apply(operand(row, bindings), path(row, bindings))


def _cast(node: Cast, scope: Scope) -> Evaluator:
    operand = compile_expression(node.operand, scope)
    type = cast_type(node.type_name)
    return lambda row, bindings: cast(operand(row, bindings), type)


def _case(node: Case, scope: Scope) -> Evaluator:
    otherwise = _constant(None)
    if node.otherwise is not None:
        otherwise = compile_expression(node.otherwise, scope)
    results = [compile_expression(result, scope) for _, result in node.whens]
    tests = [_case_test(node, condition, scope) for condition, _ in node.whens]
    pairs = list(zip(tests, results, strict=True))
    subject = _constant(None)
    if node.operand is not None:
        subject = compile_expression(node.operand, scope)

    def run(row: Row, bindings: Bindings) -> Value:
        value = subject(row, bindings)
        for test, result in pairs:
            if test(value, row, bindings):
                return result(row, bindings)
        return otherwise(row, bindings)

    return run


def _case_test(
    node: Case, condition: Expression, scope: Scope
) -> Callable[[Value, Row, Bindings], bool]:
    """Whether a WHEN applies, given the value behind CASE."""
    evaluator = compile_expression(condition, scope)
    if node.operand is None:
        return lambda value, row, bindings: truth(evaluator(row, bindings)) is True
    one, other = conversions(affinity_of(node.operand, scope), affinity_of(condition, scope))
    fold = collation_of(scope, node.operand, condition)
    shape = shaper(one, fold)
    right = folded(converted(evaluator, other, condition), fold)
    equal = COMPARISONS["="]
    return lambda value, row, bindings: equal(shape(value), right(row, bindings)) is True


def _call(node: FunctionCall, scope: Scope) -> Evaluator:
    if is_aggregate(node):
        raise PlacedFault(f"misuse of aggregate: {node.name}()", node.position)
    if node.star or node.distinct:
        mark = "*" if node.star else "DISTINCT"
        raise PlacedFault(f"wrong use of {mark} in function {node.name}()", node.position)
    count = len(node.arguments)
    own = extensions.function(node.name, count)
    if own is not None:
        return applied(own.call, [compile_expression(each, scope) for each in node.arguments])
    if extensions.known_name(node.name) and node.name not in function_names():
        message = f"wrong number of arguments to function {node.name}()"
        raise PlacedFault(message, node.position)
    return compile_call(node, scope, compile_expression)


def _in(node: In, scope: Scope) -> Evaluator:
    return compile_in(node, scope, compile_expression)


def _between(node: Between, scope: Scope) -> Evaluator:
    return compile_between(node, scope, compile_expression)


def _is_null(node: IsNull, scope: Scope) -> Evaluator:
    return compile_is_null(node, scope, compile_expression)


def _like(node: Like, scope: Scope) -> Evaluator:
    return compile_like(node, scope, compile_expression)


def _row_in(node: RowIn, scope: Scope) -> Evaluator:
    return compile_row_in(node, scope, compile_expression)


def _subquery_column(node: SubqueryColumn, scope: Scope) -> Evaluator:
    return compile_subquery_column(node, scope, compile_expression)


_COMPILERS: dict[type, Callable[..., Evaluator]] = {
    Between: _between,
    Binary: _binary,
    Case: _case,
    Cast: _cast,
    Collate: _collate,
    ColumnRef: _column,
    Converted: _converted,
    Correlated: _correlated,
    RowIn: _row_in,
    RowValue: compile_misused,
    SubqueryColumn: _subquery_column,
    FunctionCall: _call,
    In: _in,
    IsNull: _is_null,
    JsonPath: _json_path,
    Like: _like,
    Literal: _literal,
    OuterColumn: compile_outer,
    Parameter: _parameter,
    Subquery: _subquery,
    Unary: _unary,
    VectorLiteral: _vector,
}
