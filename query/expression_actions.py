"""Actions of the grammar's expressions and names: what each rule builds.

A function is named as its rule, or as the alias behind `->`, in grammar.lark. It is called with
the position of its first token and the rule's children: nodes, names, words as written.
"""

from __future__ import annotations

from m2mdb.query import rows
from m2mdb.query.lexer import INTEGER_LIMIT
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
    Query,
    Subquery,
    Unary,
)
from m2mdb.query.placed_names import PlacedName
from m2mdb.query.row_nodes import RowValue

ValueList = list[Expression] | Parameter | Subquery


def any_of(start: int, *operands: Expression) -> Expression:
    """A chain of OR as a tree of the least depth; OR is associative, in NULLs too."""
    return _balanced("OR", operands)


def all_of(start: int, *operands: Expression) -> Expression:
    """A chain of AND as a tree of the least depth."""
    return _balanced("AND", operands)


def _balanced(operator: str, operands: tuple[Expression, ...]) -> Expression:
    level = list(operands)
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        joined: list[Expression] = [Binary(operator, a, b, a.position) for a, b in pairs]
        level = joined + level[len(joined) * 2 :]
    return level[0]


def negation(start: int, operand: Expression) -> Expression:
    """`NOT operand`."""
    return Unary("NOT", operand, start)


def binary(start: int, left: Expression, operator: str, right: Expression) -> Expression:
    """An operator between two operands."""
    if isinstance(left, RowValue) or isinstance(right, RowValue):
        return rows.compared(operator, left, right, start)
    return Binary(operator, left, right, start)


def is_same(start: int, left: Expression, right: Expression) -> Expression:
    """`IS`, `IS NOT DISTINCT FROM`; IsNull where the right side is NULL."""
    if isinstance(left, RowValue) or isinstance(right, RowValue):
        return rows.compared("IS", left, right, start)
    if isinstance(right, Literal) and right.value is None:
        return IsNull(left, False, start)
    return Binary("IS", left, right, start)


def is_different(start: int, left: Expression, right: Expression) -> Expression:
    """`IS NOT`, `IS DISTINCT FROM`."""
    if isinstance(left, RowValue) or isinstance(right, RowValue):
        return rows.compared("IS NOT", left, right, start)
    if isinstance(right, Literal) and right.value is None:
        return IsNull(left, True, start)
    return Binary("IS NOT", left, right, start)


def is_null(start: int, operand: Expression) -> Expression:
    """`ISNULL`."""
    return IsNull(operand, False, start)


def is_not_null(start: int, operand: Expression) -> Expression:
    """`NOTNULL`, `NOT NULL`."""
    return IsNull(operand, True, start)


def like_operator(start: int, *words: str) -> tuple[str, bool]:
    """`[NOT] LIKE | GLOB`: the operator, and whether it is negated."""
    return words[-1].upper(), len(words) == 2


def like(
    start: int,
    operand: Expression,
    operator: tuple[str, bool],
    pattern: Expression,
    escape: Expression | None = None,
) -> Expression:
    """`operand [NOT] LIKE pattern [ESCAPE escape]`."""
    return Like(operator[0], operand, pattern, escape, operator[1], start)


def between(start: int, operand: Expression, low: Expression, high: Expression) -> Expression:
    """`operand BETWEEN low AND high`."""
    if isinstance(operand, RowValue):
        return rows.between(operand, low, high, False, start)
    return Between(operand, low, high, False, start)


def not_between(start: int, operand: Expression, low: Expression, high: Expression) -> Expression:
    """`operand NOT BETWEEN low AND high`."""
    if isinstance(operand, RowValue):
        return rows.between(operand, low, high, True, start)
    return Between(operand, low, high, True, start)


def in_list(start: int, operand: Expression, values: ValueList) -> Expression:
    """`operand IN values`."""
    if isinstance(operand, RowValue):
        return rows.member(operand, values, False, start)
    return In(operand, values, False, start)


def not_in_list(start: int, operand: Expression, values: ValueList) -> Expression:
    """`operand NOT IN values`."""
    if isinstance(operand, RowValue):
        return rows.member(operand, values, True, start)
    return In(operand, values, True, start)


def value_list(start: int, *values: Expression) -> ValueList:
    """`(1, 2)`, for IN and RELEVANT."""
    return list(values)


def value_query(start: int, query: Query) -> ValueList:
    """`(SELECT …)` as the values of IN."""
    return Subquery(query, False, start)


def value_parameter(start: int, parameter: Parameter) -> ValueList:
    """`?` bound to a sequence."""
    return parameter


def json_path(start: int, operand: Expression, operator: str, path: Expression) -> Expression:
    """`operand -> path`, `operand ->> path`."""
    return JsonPath(operator, operand, path, start)


def collate(start: int, operand: Expression, name: str) -> Expression:
    """`operand COLLATE name`."""
    return Collate(operand, name, start)


def unary(start: int, operator: str, operand: Expression) -> Expression:
    """A sign; a minus before a number makes the number negative."""
    if operator == "-" and isinstance(operand, Literal):
        value = operand.value
        if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
            return Literal(-value, start)
    return Unary(operator, operand, start)


def column(start: int, *names: str) -> Expression:
    """`name`, `table.name`."""
    return ColumnRef(names[-1], names[0] if len(names) == 2 else None, start)


def call(start: int, name: str, *arguments: Expression) -> Expression:
    """`name(arguments)`."""
    return FunctionCall(name.lower(), list(arguments), False, False, start)


def call_distinct(start: int, name: str, *arguments: Expression) -> Expression:
    """`name(DISTINCT arguments)`."""
    return FunctionCall(name.lower(), list(arguments), False, True, start)


def call_star(start: int, name: str) -> Expression:
    """`count(*)`."""
    return FunctionCall(name.lower(), [], True, False, start)


def current_time(start: int, word: str) -> Expression:
    """CURRENT_TIMESTAMP, CURRENT_DATE, CURRENT_TIME."""
    return FunctionCall(word.lower(), [], False, False, start)


def case(start: int, whens: list[tuple[Expression, Expression]], *rest: Expression | None) -> Case:
    """`CASE WHEN … END`."""
    return Case(None, whens, rest[0], start)


def case_of(
    start: int,
    operand: Expression,
    whens: list[tuple[Expression, Expression]],
    otherwise: Expression | None,
) -> Case:
    """`CASE operand WHEN … END`."""
    return Case(operand, whens, otherwise, start)


def whens(start: int, *pairs: tuple[Expression, Expression]) -> list[tuple[Expression, Expression]]:
    """All WHEN of a CASE."""
    return list(pairs)


def when(start: int, condition: Expression, value: Expression) -> tuple[Expression, Expression]:
    """`WHEN condition THEN value`."""
    return condition, value


def otherwise(start: int, value: Expression | None = None) -> Expression | None:
    """`ELSE value`, or none."""
    return value


def cast(start: int, operand: Expression, type_: tuple[str, list[object]]) -> Expression:
    """`CAST(operand AS type)`."""
    return Cast(operand, type_[0], start)


def exists(start: int, query: Query) -> Expression:
    """`EXISTS (SELECT …)`."""
    return Subquery(query, True, start)


def row_value(start: int, *items: Expression) -> Expression:
    """`(a, b)`."""
    return RowValue(list(items), start)


def subquery(start: int, query: Query) -> Expression:
    """`(SELECT …)` as a value."""
    return Subquery(query, False, start)


def null(start: int) -> Expression:
    """NULL."""
    return Literal(None, start)


def true(start: int) -> Expression:
    """TRUE."""
    return Literal(True, start)


def false(start: int) -> Expression:
    """FALSE."""
    return Literal(False, start)


def signed_number(start: int, *parts: object) -> Literal:
    """A number with or without a sign, where no expression may stand."""
    literal = parts[-1]
    assert isinstance(literal, Literal)
    value = literal.value
    assert isinstance(value, int | float)
    if len(parts) == 2 and parts[0] == "-":
        value = -value
    return Literal(float(value) if value == INTEGER_LIMIT else value, start)


def names(start: int, *names: str) -> list[str]:
    """A list of names."""
    return list(names)


def placed_names(start: int, *names: str) -> list[str]:
    """A list of names that know their place."""
    return list(names)


def placed(start: int, name: str) -> PlacedName:
    """A name that is told with its place where it is unknown."""
    return PlacedName(name, start)
