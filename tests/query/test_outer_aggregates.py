"""Aggregates over columns of the query around: in SQL they belong to it."""

from __future__ import annotations

import sqlite3

import pytest

import m2mdb

TABLES = (
    "CREATE TABLE a (i INTEGER)",
    "CREATE TABLE b (j INTEGER)",
    "INSERT INTO a VALUES (1), (2), (3)",
    "INSERT INTO b VALUES (1), (2)",
)
OUTER = [
    "SELECT (SELECT sum(a.i) FROM b LIMIT 1) FROM a",
    "SELECT (SELECT sum(i) FROM b) FROM a",
    "SELECT (SELECT max(a.i)) FROM a",
    "SELECT (SELECT sum(a.i) + max(b.j) FROM b), count(*) FROM a",
    "SELECT (SELECT sum(DISTINCT a.i) FROM b) + 1 FROM a",
    "SELECT (SELECT j FROM b GROUP BY j HAVING sum(a.i) > 0) FROM a",
    "SELECT i, (SELECT 1 + count(a.i) FROM b) FROM a GROUP BY i",
    "SELECT i % 2, (SELECT group_concat(j) FROM b WHERE j < max(a.i)) FROM a GROUP BY i % 2",
    "SELECT i FROM a GROUP BY i HAVING (SELECT max(a.i) FROM b) > 1",
    "SELECT (SELECT (SELECT sum(a.i)) FROM b) FROM a",
    "SELECT (SELECT count(*) FROM b WHERE j = max(a.i)) FROM a",
    "SELECT (SELECT j FROM b WHERE j = (SELECT max(a.i - 1))) FROM a",
    "SELECT 2 IN (SELECT max(a.i) - j FROM b) FROM a",
]
MISUSED = [
    "SELECT i FROM a WHERE (SELECT sum(a.i) FROM b) > 1",
    "SELECT i FROM a WHERE i IN (SELECT max(i) FROM b)",
    "DELETE FROM a WHERE i < (SELECT sum(a.i) FROM b)",
    "UPDATE a SET i = 5 WHERE i < (SELECT sum(a.i) FROM b)",
]
EQUAL = [
    "SELECT (SELECT sum(a.i + b.j) FROM b) FROM a",
    "SELECT (SELECT sum(b.j) + a.i FROM b) FROM a",
    "SELECT (SELECT sum(1) FROM b WHERE b.j <= a.i) FROM a",
    "SELECT (SELECT group_concat(a.i, b.j) FROM b) FROM a",
    "SELECT i, (SELECT max(a.i, 2) FROM b LIMIT 1) FROM a",
    "SELECT sum((SELECT max(j) FROM b WHERE j <= i)) FROM a",
    "SELECT i FROM a WHERE i <= (SELECT count(*) FROM b WHERE j <= a.i)",
]  # fmt: skip


@pytest.fixture
def con() -> m2mdb.Connection:
    made = m2mdb.connect(":memory:", compute="numpy", autocommit=True)
    for statement in TABLES:
        made.execute(statement)
    return made


@pytest.mark.parametrize("statement", OUTER)
def test_an_aggregate_of_the_outer_query_is_its_own(con: m2mdb.Connection, statement: str) -> None:
    """It was computed over the inner query's rows, then refused."""
    theirs = sqlite3.connect(":memory:")
    for each in TABLES:
        theirs.execute(each)

    assert con.execute(statement).fetchall() == theirs.execute(statement).fetchall()
    theirs.close()


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT (SELECT m FROM (SELECT min(a.i) AS m FROM b)) FROM a",
        "SELECT (SELECT j - 1 FROM b WHERE j = 2 ORDER BY sum(a.i)) FROM a",
        "SELECT 1 FROM a ORDER BY (SELECT count(a.i) FROM b)",
    ],
)
def test_it_is_where_sqlite_refuses_it(con: m2mdb.Connection, statement: str) -> None:
    """In a query in FROM and in ORDER BY, too."""
    assert con.execute(statement).fetchall() == [(1,)]


def test_in_set_it_is_misused(con: m2mdb.Connection) -> None:
    with pytest.raises(m2mdb.ProgrammingError, match="misuse of aggregate"):
        con.execute("UPDATE a SET i = (SELECT sum(a.i) FROM b)")


@pytest.mark.parametrize("statement", MISUSED)
def test_in_where_it_is_misused_as_in_sqlite(con: m2mdb.Connection, statement: str) -> None:
    """It was computed over the inner query's rows."""
    theirs = sqlite3.connect(":memory:")
    for each in TABLES:
        theirs.execute(each)
    with pytest.raises(sqlite3.OperationalError, match="misuse of aggregate"):
        theirs.execute(statement)
    theirs.close()

    with pytest.raises(m2mdb.ProgrammingError, match=r"misuse of aggregate: \w+\(\) in WHERE"):
        con.execute(statement)


def test_in_the_condition_of_a_collection_it_is_misused(con: m2mdb.Connection) -> None:
    """It was computed over the inner query's rows."""
    with pytest.raises(m2mdb.ProgrammingError, match=r"misuse of aggregate: sum\(\) in WHERE"):
        con.collection("a").count("i < (SELECT sum(a.i) FROM b)")


@pytest.mark.parametrize("statement", EQUAL)
def test_aggregates_of_the_inner_query_are_as_in_sqlite(
    con: m2mdb.Connection, statement: str
) -> None:
    theirs = sqlite3.connect(":memory:")
    for each in TABLES:
        theirs.execute(each)

    assert con.execute(statement).fetchall() == theirs.execute(statement).fetchall()
    theirs.close()


@pytest.mark.parametrize("pattern", ["%", "a%", "%d %", "%%", "x%%%", "%5", "%-", "%l", "%y", "é%"])
def test_a_percent_at_the_end_of_a_format_is_as_in_sqlite(
    con: m2mdb.Connection, pattern: str
) -> None:
    """`printf('%')` was NULL."""
    theirs = sqlite3.connect(":memory:")

    found = con.execute("SELECT printf(?), format(?, 5)", (pattern, pattern)).fetchone()

    assert found == theirs.execute("SELECT printf(?), format(?, 5)", (pattern, pattern)).fetchone()
    theirs.close()
