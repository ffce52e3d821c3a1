"""Expressions give what SQLite gives, over literals and over rows."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, assume, given, settings

from m2mdb.pager.errors import DataError
from m2mdb.query.expression import compile_expression
from m2mdb.query.functions import Bindings
from m2mdb.query.scope import RowScope, Subqueries
from tests.query.sql_pairs import COLUMNS, SCHEMA, Pair, expressions, rows


@pytest.fixture(scope="module")
def twin() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:")
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
    connection.execute(f"CREATE TABLE row ({columns})")
    yield connection
    connection.close()


def evaluate(pair: Pair, row: tuple[object, ...]) -> object:
    scope = RowScope(SCHEMA, Subqueries(0))
    evaluator = compile_expression(pair[1], scope)
    used = tuple(row[int(source)] for source in scope.sources)
    return evaluator(used, Bindings())


def expected(twin: sqlite3.Connection, statement: str) -> object:
    try:
        return twin.execute(statement).fetchone()[0]
    except sqlite3.Error as error:
        return error


def plain(value: object) -> object:
    """A value as SQLite has it: booleans are integers, and reals are compared by their digits."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(f"{value:.14g}")
    return value


def check(mine: object, theirs: object, text: str) -> None:
    mine, theirs = plain(mine), plain(theirs)
    assert type(mine) is type(theirs) and mine == theirs, f"{text}: {mine!r}, SQLite {theirs!r}"


SETTINGS = settings(
    max_examples=800, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)  # fmt: skip


@SETTINGS
@given(pair=expressions(columns=False))
def test_constant_expressions_agree_with_sqlite(twin: sqlite3.Connection, pair: Pair) -> None:
    theirs = expected(twin, f"SELECT {pair[0]}")

    if isinstance(theirs, sqlite3.Error):
        with pytest.raises(DataError):
            evaluate(pair, ())
        return
    check(evaluate(pair, ()), theirs, pair[0])


@SETTINGS
@given(pair=expressions(columns=True), row=rows())
def test_row_expressions_agree_with_sqlite(
    twin: sqlite3.Connection, pair: Pair, row: tuple[object, ...]
) -> None:
    twin.execute("DELETE FROM row")
    twin.execute("INSERT INTO row VALUES (?, ?, ?, ?)", row)
    assume(twin.execute("SELECT * FROM row").fetchone() == row)

    theirs = expected(twin, f"SELECT {pair[0]} FROM row")

    if isinstance(theirs, sqlite3.Error):
        with pytest.raises(DataError):
            evaluate(pair, row)
        return
    check(evaluate(pair, row), theirs, pair[0])
