"""The binder: result lists, aliases and ORDER BY terms, resolved against a scope.

A result list becomes Outputs: a name and an expression each, stars spread out. An alias may stand
in WHERE, GROUP BY, HAVING and ORDER BY; there it is replaced by its expression. In ORDER BY it
goes before a column of that name, elsewhere the column goes before it, as in SQLite.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from m2mdb.pager.errors import ProgrammingError
from m2mdb.query.nodes import (
    Collate,
    ColumnRef,
    Expression,
    Literal,
    Node,
    OrderItem,
    SelectItem,
    Star,
    Subquery,
)
from m2mdb.query.rewriting import rewritten
from m2mdb.query.scope import RowScope


class Output:
    """One column of a result: its name and what gives it."""

    __slots__ = ("expression", "name")

    def __init__(self, name: str, expression: Expression) -> None:
        self.name = name
        self.expression = expression


Aliases = Mapping[str, Expression]


def outputs_of(items: Sequence[SelectItem], scope: RowScope) -> list[Output]:
    """The columns of a result list.

    Raises ProgrammingError: a star without a collection, or of another one.
    """
    found: list[Output] = []
    for item in items:
        expression = item.expression
        if isinstance(expression, Star):
            found.extend(Output(name, node) for name, node in scope.spread(expression))
        else:
            found.append(Output(item.alias or _name(item, expression, scope), expression))
    return found


def _name(item: SelectItem, expression: Expression, scope: RowScope) -> str:
    """A column's own name as it was declared; else the expression as it was written."""
    if isinstance(expression, ColumnRef):
        return scope.declared(expression)
    return item.label


def aliases_of(items: Sequence[SelectItem]) -> Aliases:
    """The expressions that have an alias, by its name in lower case."""
    found: dict[str, Expression] = {}
    for item in items:
        if item.alias is not None and isinstance(item.expression, Expression):
            found.setdefault(item.alias.lower(), item.expression)
    return found


def without_aliases(node: Expression, aliases: Aliases, scope: RowScope) -> Expression:
    """The expression with aliases replaced, where no column has their name."""
    if not aliases:
        return node
    known = {name: expression for name, expression in aliases.items() if not scope.hides(name)}

    def replace(each: Node) -> Node | None:
        if isinstance(each, ColumnRef):
            return each if each.table is not None else known.get(each.name.lower(), each)
        return each if isinstance(each, Subquery) else None

    return rewritten(node, replace)


def order_expression(
    item: OrderItem, outputs: Sequence[Output], aliases: Aliases, scope: RowScope
) -> Expression:
    """What a term of ORDER BY sorts by: a column's number, an alias, or any expression.

    Raises ProgrammingError: a number without a column.
    """
    node = item.expression
    collation: Collate | None = None
    if isinstance(node, Collate):
        collation = node
        node = collation.operand
    if isinstance(node, Literal) and type(node.value) is int:
        node = _numbered(node.value, outputs, "ORDER BY")
    elif isinstance(node, ColumnRef) and node.table is None and node.name.lower() in aliases:
        node = aliases[node.name.lower()]
    else:
        node = without_aliases(node, aliases, scope)
    return node if collation is None else Collate(node, collation.collation, collation.position)


def group_expression(
    node: Expression, outputs: Sequence[Output], aliases: Aliases, scope: RowScope
) -> Expression:
    """What a term of GROUP BY groups by.

    Raises ProgrammingError: a number without a column.
    """
    if isinstance(node, Literal) and type(node.value) is int:
        return _numbered(node.value, outputs, "GROUP BY")
    return without_aliases(node, aliases, scope)


def _numbered(number: int, outputs: Sequence[Output], clause: str) -> Expression:
    if not 1 <= number <= len(outputs):
        raise ProgrammingError(
            f"{clause} {number} is out of range - should be between 1 and {len(outputs)}"
        )
    return outputs[number - 1].expression
