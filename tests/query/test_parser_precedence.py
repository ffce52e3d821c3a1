"""Operators bind as SQLite binds them: sqlite3 itself is the judge.

A random expression without parentheses is evaluated by sqlite3 as it stands and as our tree
has it, with parentheses around every operation: the values must be the same, and what SQLite
does not parse we do not either.
"""

from __future__ import annotations

import random
import sqlite3
from typing import Any

import pytest

from m2mdb.pager.errors import ProgrammingError
from m2mdb.query.nodes import (
    Between,
    Binary,
    Collate,
    Expression,
    In,
    IsNull,
    JsonPath,
    Like,
    Literal,
    Unary,
)
from m2mdb.query.parser import parse

OPERATORS = [
    "||", "*", "/", "%", "+", "-", "&", "|", "<<", ">>", "<", "<=", ">", ">=", "=", "==", "<>",
    "!=", "AND", "OR", "IS", "IS NOT", "LIKE", "GLOB", "NOT LIKE", "NOT GLOB",
]  # fmt: skip
if sqlite3.sqlite_version_info >= (3, 39):
    OPERATORS += ["->", "->>", "IS DISTINCT FROM", "IS NOT DISTINCT FROM"]
OPERANDS = ["0", "1", "2", "3", "-1", "NULL", "'a'", "'1'", "'%'", "2.5", "TRUE", "'{\"a\":1}'"]
TESTS = ["ISNULL", "NOTNULL", "NOT NULL", "IS NULL", "IS NOT NULL", "IN (1, 2)", "NOT IN (1, NULL)"]


def written(node: Any) -> str:
    """The expression with parentheses around every operation."""
    parts = {
        Literal: lambda: literal(node.value),
        Unary: lambda: f"{node.operator} {written(node.operand)}",
        Binary: lambda: f"{written(node.left)} {node.operator} {written(node.right)}",
        JsonPath: lambda: f"{written(node.operand)} {node.operator} {written(node.path)}",
        Collate: lambda: f"{written(node.operand)} COLLATE {node.collation}",
        IsNull: lambda: f"{written(node.operand)} {'NOTNULL' if node.negated else 'ISNULL'}",
        In: lambda: f"{negated(node)} IN ({', '.join(map(written, node.values))})",
        Between: lambda: f"{negated(node)} BETWEEN {written(node.low)} AND {written(node.high)}",
        Like: lambda: f"{negated(node)} {node.operator} {written(node.pattern)}{escape(node)}",
    }
    return f"({parts[type(node)]()})"


def literal(value: Any) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return "NULL" if value is None else str(value)


def negated(node: Any) -> str:
    return written(node.operand) + (" NOT" if node.negated else "")


def escape(node: Like) -> str:
    return f" ESCAPE {written(node.escape)}" if node.escape is not None else ""


def random_expression(choose: random.Random) -> str:
    """Operands with operators between, before and behind them."""
    words: list[str] = []
    count = choose.randint(1, 8)
    for i in range(count):
        while choose.random() < 0.25:
            words.append(choose.choice(["-", "+", "~", "NOT", "NOT"]))
        words.append(choose.choice(OPERANDS))
        if choose.random() < 0.05:
            words.append("COLLATE NOCASE")
        while choose.random() < 0.1:
            words.append(choose.choice(TESTS))
        if i < count - 1:
            kind = choose.random()
            between = ["BETWEEN", "NOT BETWEEN", "AND", "AND", "AND", "ESCAPE"]
            words.append(choose.choice(OPERATORS if kind < 0.8 else between))
    return " ".join(words)


def value(connection: sqlite3.Connection, expression: str) -> str:
    """The value, or what is wrong; SYNTAX where SQLite does not parse it."""
    try:
        return repr(connection.execute("SELECT " + expression).fetchone()[0])
    except sqlite3.Error as error:
        wrong = str(error)
        return "SYNTAX" if "syntax error" in wrong or "incomplete" in wrong else "ERROR"


def tree(expression: str) -> Expression | None:
    statement: Any
    try:
        statement = parse("SELECT " + expression)
    except ProgrammingError:
        return None
    found: Expression = statement.items[0].expression
    return found


@pytest.mark.parametrize("seed", range(4))
def test_operators_bind_as_in_sqlite(seed: int) -> None:
    """The one difference: `a LIKE NOT b ESCAPE c` needs parentheses around NOT b."""
    connection = sqlite3.connect(":memory:")
    choose = random.Random(seed)
    agreed = refused = 0
    for _ in range(3000):
        expression = random_expression(choose)
        theirs, ours = value(connection, expression), tree(expression)
        if ours is None:
            listed = "NOT" in expression and "ESCAPE" in expression
            assert theirs == "SYNTAX" or listed, expression
            refused += theirs == "SYNTAX"
        else:
            again = value(connection, written(ours))
            # SQLite may skip an operand that fails, if a constant beside it decides.
            assert theirs == again or "ERROR" in (theirs, again), (expression, written(ours))
            agreed += theirs == again
    connection.close()
    assert agreed > 1500
    assert refused > 300


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("1 + NOT a = b", "1 + (NOT (a = b))"),
        ("NOT a = b AND c", "(NOT (a = b)) AND c"),
        ("a = b ISNULL + 1", "((a = b) ISNULL) + 1"),
        ("a IN (1) || b", "(a IN (1)) || b"),
        ("a BETWEEN 1 AND 2 AND 3", "(a BETWEEN 1 AND 2) AND 3"),
        ("a BETWEEN b = c AND d < e", "a BETWEEN (b = c) AND (d < e)"),
        ("a = b < c", "a = (b < c)"),
        ("a || b -> c", "(a || b) -> c"),
        ("-a COLLATE x", "(-a) COLLATE x"),
        ("- a * b", "(- a) * b"),
        ("a OR b AND c", "a OR (b AND c)"),
        ("a - b - c", "(a - b) - c"),
        ("a <-> b < 0.5", "(a <-> b) < 0.5"),
        ("a <=> b + c", "a <=> (b + c)"),
        ("a <#> ? - 1", "a <#> (? - 1)"),
        ("a IS NOT NOT b", "a IS NOT (NOT b)"),
        ("a LIKE b ESCAPE c = d", "(a LIKE b ESCAPE c) = d"),
    ],
)
def test_shapes(short: str, long: str) -> None:
    assert tree(short) is not None
    assert tree(short) == tree(long)
