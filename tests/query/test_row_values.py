"""Row values, beside sqlite3's."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator

import pytest

import m2mdb

VALUES = (None, 1, 2, "a")
OPERATORS = ("=", "==", "!=", "<>", "<", "<=", ">", ">=", "IS", "IS NOT")
TABLES = (
    "CREATE TABLE a (i INTEGER, t TEXT, r REAL)",
    "CREATE TABLE b (j INTEGER, u TEXT)",
    "INSERT INTO a VALUES (1, 'x', 0.5), (2, 'Y', NULL), (3, NULL, 2.0), (NULL, 'z', 1.0)",
    "INSERT INTO b VALUES (1, 'x'), (2, 'q'), (NULL, 'y'), (3, NULL), (5, '5')",
)
QUERIES = [
    "SELECT i FROM a WHERE (i, t) = (1, 'x')",
    "SELECT i, (i, t) < (2, 'Y'), (i, r, t) >= (2, 1.0, 'a') FROM a",
    "SELECT i, (i, t) IN (SELECT j, u FROM b), (i, t) NOT IN (SELECT j, u FROM b) FROM a",
    "SELECT i, (i, t COLLATE NOCASE) IN (VALUES (1, 'X'), (2, 'y')) FROM a",
    "SELECT i, (i, t) IN (SELECT j, u FROM b WHERE j <= a.i) FROM a",
    "SELECT i, (i, t) IN (SELECT j, u FROM b WHERE 0), (i, NULL) NOT IN (VALUES (1, 2)) FROM a",
    "SELECT i, (i, t) = (SELECT j, u FROM b WHERE j = a.i) FROM a",
    "SELECT i, (i, t) <> (SELECT j, u FROM b ORDER BY j DESC) FROM a",
    "SELECT i, (SELECT j, u FROM b WHERE j = 3) IS (3, NULL), (SELECT 1, 2) < (1, 3) FROM a",
    "SELECT i, (i, t) BETWEEN (1, 'a') AND (2, 'z'), (i, 1) NOT BETWEEN (1, 2) AND (3, 0) FROM a",
    "SELECT i, ('1', t) IN (SELECT j, u FROM b), (5, 5) IN (SELECT u, j FROM b) FROM a",
    "SELECT i, (i, t) IN (SELECT max(j), max(u) FROM b GROUP BY j % 2) FROM a",
    "SELECT i FROM a JOIN b ON (a.i, a.t) = (b.j, b.u)",
    "SELECT count(*) FROM a GROUP BY (i, t) = (1, 'x') HAVING (count(*), 1) > (1, 0)",
    "SELECT CASE WHEN (i, t) = (1, 'x') THEN 'first' ELSE 'other' END FROM a ORDER BY i",
    "SELECT (SELECT sum(a.i), 1) = (6, 1) FROM a",
]
REFUSED = [
    "SELECT (1, 2)", "SELECT (1, 2) = (1, 2, 3)", "SELECT (1, 2) = 1", "SELECT 1 + (1, 2)",
    "SELECT i FROM a ORDER BY (i, t)", "SELECT abs((1, 2))", "SELECT (1, 2) IN (SELECT 1)",
    "SELECT 1 IN (SELECT 1, 2)", "SELECT (1, 2) = (SELECT 1)", "SELECT (1, 2) LIKE 'a'",
    "UPDATE a SET (i, t) = (1, 2, 3)", "UPDATE a SET (i, t) = 1", "SELECT ((1, 2), 3) = (1, 2)",
    "UPDATE a SET (i, t) = (SELECT 1)", "SELECT -(1, 2)", "SELECT (1, 2) IS NULL",
]  # fmt: skip
CHANGES = [
    "UPDATE a SET (i, t) = (SELECT j, u FROM b WHERE j = a.i) WHERE i < 3",
    "UPDATE a SET (r, t) = (i + 1, t || 'k'), i = i + 10",
    "UPDATE a SET (r, t) = (SELECT 9, 'none' WHERE 0)",
    "UPDATE a SET (i) = (SELECT 7)",
    "DELETE FROM a WHERE (i, t) IN (SELECT j, u FROM b)",
    "INSERT INTO a SELECT j, u, (j, u) > (1, 'x') FROM b WHERE (j, u) <> (2, 'q')",
]


@pytest.fixture
def both() -> Iterator[tuple[m2mdb.Connection, sqlite3.Connection]]:
    con = m2mdb.connect(":memory:", compute="numpy", autocommit=True)
    twin = sqlite3.connect(":memory:", isolation_level=None)
    for statement in TABLES:
        con.execute(statement)
        twin.execute(statement)
    yield con, twin
    con.close()
    twin.close()


Both = tuple[m2mdb.Connection, sqlite3.Connection]


def plain(rows: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
    return [tuple(int(v) if isinstance(v, bool) else v for v in row) for row in rows]


def test_every_comparison_of_small_rows_is_sqlites(both: Both) -> None:
    """RV1."""
    con, twin = both
    for one, other in itertools.product(itertools.product(VALUES, repeat=2), repeat=2):
        outputs = ", ".join(f"(?1, ?2) {operator} (?3, ?4)" for operator in OPERATORS)
        sql = f"SELECT {outputs}, (?1, ?2) IN (VALUES (?3, ?4), (2, NULL))"
        found = plain(con.execute(sql, (*one, *other)).fetchall())
        assert found == twin.execute(sql, (*one, *other)).fetchall(), (one, other)


@pytest.mark.parametrize("sql", QUERIES)
def test_queries_give_what_sqlite_gives(both: Both, sql: str) -> None:
    con, twin = both

    assert plain(con.execute(sql).fetchall()) == twin.execute(sql).fetchall()


@pytest.mark.parametrize("sql", CHANGES)
def test_changes_leave_what_sqlite_leaves(both: Both, sql: str) -> None:
    con, twin = both
    con.execute(sql)
    twin.execute(sql)

    rows = "SELECT i, t, r FROM a ORDER BY rowid"
    assert con.execute(rows).fetchall() == twin.execute(rows).fetchall()


@pytest.mark.parametrize("sql", REFUSED)
def test_misused_rows_are_refused(both: Both, sql: str) -> None:
    con, twin = both
    with pytest.raises(sqlite3.OperationalError):
        twin.execute(sql)

    with pytest.raises(m2mdb.ProgrammingError, match=r"row value misused|sub-select returns"):
        con.execute(sql)


def test_a_list_of_rows_is_taken_beyond_sqlite(both: Both) -> None:
    con, _ = both
    sql = "SELECT i FROM a WHERE (i, t) IN ((1, 'x'), (2, 'Y'), (3, NULL))"

    assert con.execute(sql).fetchall() == [(1,), (2,)]


def test_a_composite_key_is_looked_up_by_a_row(both: Both) -> None:
    con, _ = both
    con.execute("CREATE TABLE k (a INTEGER, b TEXT, PRIMARY KEY (a, b))")

    ((_, _, detail),) = con.execute("EXPLAIN SELECT * FROM k WHERE (a, b) = (1, 'x')").fetchall()

    assert "(a=? AND b=?)" in detail


def test_an_authorizer_sees_the_columns_of_the_query_in_a_row(both: Both) -> None:
    con, _ = both
    con.set_authorizer(lambda action, one, two, *rest: 1 if two == "u" else 0)

    for sql in ("SELECT (1, 2) IN (SELECT j, u FROM b)", "SELECT (1, 2) = (SELECT j, u FROM b)"):
        with pytest.raises(m2mdb.OperationalError, match=r"prohibited|not authorized"):
            con.execute(sql)
