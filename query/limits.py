"""Limits of statements on an untrusted file (`pager.limits`): length, depth, parameters, rows.

A statement's text is limited by the grammar's own limits already (`parser`, `lexer`); a
connection to a file that came from someone else takes less.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from m2mdb.pager.errors import ProgrammingError
from m2mdb.pager.limits import FORMAT, UNTRUSTED
from m2mdb.query.lists import ListSchema
from m2mdb.query.nodes import Node

if TYPE_CHECKING:
    from m2mdb.index.database import Database
    from m2mdb.index.view import View
    from m2mdb.pager.limits import Limits
    from m2mdb.query.ast import Statement

_UNTRUSTED = "the limit on an untrusted file"
LIMITS = ListSchema(
    "m2m_limits",
    (
        ("name", "TEXT"), ("value", "INTEGER"), ("trusted", "INTEGER"), ("untrusted", "INTEGER"),
    ),
)  # fmt: skip


def limits_rows(view: View) -> list[tuple[Any, ...]]:
    """The rows of m2m_limits: each limit as it is here, and as it is on either kind of file."""
    here = view.database.store.options.limits
    return list(zip(here._fields, here, FORMAT, UNTRUSTED, strict=True))


def check_statement(database: Database, statement: Statement) -> None:
    """Raise ProgrammingError where a statement is larger than the database's limits allow."""
    limits = database.store.options.limits
    if limits is FORMAT:
        return
    length = statement.end - statement.position
    if length > limits.statement_length:
        raise ProgrammingError(
            f"statement of {length:,} characters: {limits.statement_length:,} is {_UNTRUSTED}"
        )
    if statement.parameter_count > limits.parameters:
        raise ProgrammingError(
            f"{statement.parameter_count} parameters: {limits.parameters:,} is {_UNTRUSTED}"
        )
    _check_depth(statement, limits)


def _check_depth(statement: Statement, limits: Limits) -> None:
    stack: list[tuple[object, int]] = [(statement, 1)]
    while stack:
        item, depth = stack.pop()
        if depth > limits.expression_depth:
            raise ProgrammingError(
                f"nested too deeply: {limits.expression_depth} levels are {_UNTRUSTED}"
            )
        if isinstance(item, Node):
            stack.extend((child, depth + 1) for child in item.children())
        elif isinstance(item, list | tuple):
            stack.extend((child, depth) for child in item)


def check_count(database: Database, count: int) -> None:
    """Raise ProgrammingError where a search asks for more rows than the limits allow."""
    limits = database.store.options.limits
    if count > limits.k:
        limit = "the largest that they may be" if limits is FORMAT else _UNTRUSTED
        raise ProgrammingError(f"K and OFFSET are {count:,}: {limits.k:,} is {limit}")
