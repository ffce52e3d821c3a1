"""What the comparison with SQLite found, each with the statement that showed it."""

from __future__ import annotations

import sqlite3

import pytest

import m2mdb
from tests.query.conftest import Run


@pytest.fixture
def filled(run: Run) -> Run:
    """A table with a row of each kind of value."""
    run("CREATE TABLE t (id INTEGER PRIMARY KEY, a INTEGER NOT NULL DEFAULT 7, c TEXT, r REAL)")
    run("INSERT INTO t VALUES (1, 1, '1', 1.5), (2, 12, '12 ', NULL), (3, 3, NULL, -2.0)")
    return run


def test_a_comparison_is_a_rowid(filled: Run) -> None:
    """`id IN (1 = 1)` found no row: a boolean was nobody's rowid."""
    assert filled("SELECT id FROM t WHERE id IN ((1 IS DISTINCT FROM 42.0))") == [(1,)]
    assert filled("SELECT id FROM t WHERE id = (2 > 1)") == [(1,)]


def test_or_ignore_leaves_out_a_null_that_may_not_be(filled: Run) -> None:
    """It was IntegrityError."""
    filled("INSERT OR IGNORE INTO t (id, a) VALUES (4, NULL), (5, 5)")

    assert filled("SELECT id, a FROM t WHERE id > 3") == [(5, 5)]


def test_or_replace_takes_the_default_for_a_null_that_may_not_be(filled: Run) -> None:
    """It was IntegrityError."""
    filled("REPLACE INTO t (id, a) VALUES (3, NULL), (4, 4)")

    assert filled("SELECT id, a, r FROM t WHERE id > 2") == [(3, 7, None), (4, 4, None)]


def test_a_conflict_does_not_hide_a_null_that_may_not_be(filled: Run) -> None:
    """The row was updated, where SQLite refuses what could never be inserted."""
    with pytest.raises(m2mdb.IntegrityError, match="NOT NULL"):
        filled("INSERT INTO t (id, a) VALUES (1, NULL) ON CONFLICT (id) DO UPDATE SET c = 'x'")


def test_replace_counts_every_row(result: object) -> None:
    """REPLACE with the same key twice counted the last one alone."""
    assert callable(result)
    result("CREATE TABLE t (id INTEGER PRIMARY KEY, a INTEGER)")

    assert result("REPLACE INTO t VALUES (1, 1), (1, 2), (2, 3)").rowcount == 3


def test_in_a_query_converts_as_equality_does(filled: Run) -> None:
    """A text was never found in a query of integers."""
    assert filled("SELECT id FROM t WHERE c IN (SELECT a FROM t)") == [(1,), (2,)]
    assert filled("SELECT '3' IN (SELECT a FROM t), '3' IN (SELECT a + 0 FROM t)") == [
        (True, False)
    ]
    assert filled("SELECT id FROM t AS x WHERE c IN (SELECT a FROM t AS y WHERE y.id = x.id)") == [
        (1,), (2,)
    ]  # fmt: skip


def test_a_query_as_a_value_has_the_type_of_its_column(filled: Run) -> None:
    """`'1' = (SELECT a …)` compared a text with an integer."""
    assert filled("SELECT '1' = (SELECT a FROM t WHERE id = 1)") == [(True,)]
    assert filled(
        "SELECT id FROM t AS x WHERE '12' = (SELECT a FROM t AS y WHERE y.id = x.id)"
    ) == [(2,)]


def test_a_real_in_a_text_column_is_written_as_elsewhere(filled: Run) -> None:
    """It was '1e+308', 'inf' and '-0.0'; digits that 15 do not tell are kept."""
    filled("INSERT INTO t (id, c) VALUES (5, 1e308), (6, 9e999), (7, ?), (8, 0.1 + 0.2)", (-0.0,))

    assert filled("SELECT c FROM t WHERE id > 4") == [
        ("1.0e+308",), ("Inf",), ("0.0",), ("0.30000000000000004",)
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["inf", "nan", "1_0", "٣", "0x10", ""])
@pytest.mark.parametrize("column", ["a", "r"])
def test_what_python_alone_takes_for_a_number_is_none(filled: Run, column: str, text: str) -> None:
    """'inf' and '1_0' were stored as numbers."""
    with pytest.raises(m2mdb.DataError):
        filled(f"INSERT INTO t (id, {column}) VALUES (9, ?)", (text,))


def test_a_column_of_any_number_is_compared_row_by_row(filled: Run) -> None:
    """CAST AS NUMERIC in a query in FROM: comparing with a text raised TypeError."""
    assert filled("SELECT id FROM (SELECT id, CAST(c AS NUMERIC) AS n FROM t) WHERE n < 'x'") == [
        (1,), (2,)
    ]  # fmt: skip


def test_collate_counts_anywhere_in_an_operand(run: Run) -> None:
    """It counted only where it stood outermost."""
    assert run("SELECT 'a' || ('B' COLLATE NOCASE) = 'Ab', 'x' IS NOT (FALSE COLLATE NOCASE)") == [
        (True, False)
    ]


def test_equals_under_a_collation_are_one(run: Run) -> None:
    """DISTINCT and aggregates compared exactly; GROUP BY gave its key in lower case."""
    run("CREATE TABLE t (id INTEGER PRIMARY KEY, c TEXT)")
    run("INSERT INTO t VALUES (1, 'A'), (2, 'a'), (3, 'B'), (4, NULL)")

    assert run("SELECT DISTINCT c COLLATE NOCASE FROM t ORDER BY 1") == [(None,), ("A",), ("B",)]
    assert run("SELECT c COLLATE NOCASE, count(*) FROM t GROUP BY 1") == [
        (None, 1), ("A", 2), ("B", 1)
    ]  # fmt: skip
    assert run(
        "SELECT count(DISTINCT c COLLATE NOCASE), min(c COLLATE NOCASE), max(c COLLATE NOCASE), "
        "group_concat(DISTINCT c COLLATE NOCASE) FROM t"
    ) == [(2, "A", "B", "A,B")]


def test_each_bound_of_between_has_its_own_collation(run: Run) -> None:
    """A COLLATE of one bound counted for the other."""
    assert run("SELECT 'a' BETWEEN 'A' COLLATE NOCASE AND 'B'") == [(False,)]


def test_a_sum_of_texts_is_a_real(run: Run) -> None:
    """sum of 'a' was 0, an integer."""
    ((found,),) = run("SELECT sum(x) FROM (SELECT 'a' AS x)")

    assert found == 0.0 and type(found) is float


@pytest.mark.parametrize("kind", ["RIGHT", "FULL"])
def test_a_constant_where_spares_no_padded_row(filled: Run, kind: str) -> None:
    """WHERE without a column was asked of the first table alone, and padded rows passed."""
    rows = f"FROM t AS x {kind} JOIN t AS y ON y.id = x.id + 1"

    assert filled(f"SELECT y.id {rows} WHERE 0") == []
    assert filled(f"SELECT y.id {rows} WHERE ?", (None,)) == []
    assert filled(f"SELECT count(*) {rows} JOIN t AS z ON 1 = 2") == [(0,)]
    assert len(filled(f"SELECT y.id {rows} WHERE 1")) == (3 if kind == "RIGHT" else 4)


def test_groups_of_the_least_integer(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """GROUP BY over arrays raised OverflowError."""
    monkeypatch.setattr("m2mdb.query.vectorised.LEAST_ROWS", 1)
    run("CREATE TABLE t (id INTEGER PRIMARY KEY, a INTEGER)")
    run("INSERT INTO t (a) VALUES (?), (?), (?), (NULL)", (-(2**63), -(2**63) + 1, -(2**63)))

    assert run("SELECT a, count(*) FROM t GROUP BY a") == [
        (None, 1), (-(2**63), 2), (-(2**63) + 1, 1)
    ]  # fmt: skip


def test_coalesce_evaluates_what_it_needs(run: Run) -> None:
    """It evaluated all of its arguments, and so met an overflow that nobody asked for."""
    assert run("SELECT coalesce(1, abs(-9223372036854775808))") == [(1,)]


@pytest.mark.parametrize(
    "call",
    [
        "unixepoch('-4713-11-24', '+11 months')",
        "datetime('-4713-01-01 11:00', '+11 months')",
        "datetime('-4714-12-31', '+11 months')",
        "date('2023-02-30', '+1 month')",
        "date('2023-02-30', 'start of month')",
        "date('2023-02-30', '+1 day')",
        "datetime('2023-01-31 01:00+02:00', '-1 month')",
        "datetime('9999-12-31 24:00', '-1 month')",
    ],
)
def test_the_calendar_is_asked_of_the_day_that_was_given(call: str) -> None:
    """A day before the first moment was NULL, 2023-02-30 a day of March, before its modifier."""
    twin = sqlite3.connect(":memory:").execute(f"SELECT {call}").fetchone()

    assert m2mdb.connect(":memory:").execute(f"SELECT {call}").fetchone() == twin
