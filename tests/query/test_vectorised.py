"""Grouping over arrays gives the very rows that grouping row by row gives, and SQLite's."""

from __future__ import annotations

import math
import sqlite3
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m2mdb.index.database import Database
from m2mdb.index.dictionary import dictionary_of
from m2mdb.pager.errors import DataError
from m2mdb.query import vectorised
from m2mdb.query.executor import execute
from tests.query.conftest import Run, opened

ROWS = 6000  # enough for dictionaries to be asked
COLUMNS = "i INTEGER, big INTEGER, r REAL, t TEXT, o INTEGER, s REAL"
# ruff: noqa: E501  # a list of statements a line
KEYS = ["i", "t", "o", "r", "i % 7", "i + o", "big", "i, t", "t, o, i", "t, r", "-i", "i * 2 - o"]
AGGREGATES = [
    "count(*)", "count(i)", "count(t)", "sum(i)", "sum(r)", "total(i)", "avg(r)", "avg(i)", "min(i)",
    "max(r)", "min(big)", "sum(i * o)", "sum(r * s)", "avg(i + r)", "sum(s - 1)", "max(i % 5)",
    "sum(1)", "total(2.5)", "count(1)", "sum(big % 100)", "max(-i)",
]  # fmt: skip
WHERE = ["", "WHERE t = 'd'", "WHERE i > 3 AND t IN ('a', 'b', 'zz')", "WHERE t LIKE '%B%'",
         "WHERE t NOT IN ('a', 'c')", "WHERE t > 'b' OR r < 0", "WHERE NOT t = 'a'",
         "WHERE i IS NULL", "WHERE r > 1e9", "WHERE t < 'b' AND o = 1",
         "WHERE t NOT LIKE 'a%'"]  # fmt: skip


def table(seed: int, rows: int) -> list[tuple[Any, ...]]:
    """Rows with NULLs, repeated values, large integers, signed zeros."""
    random = np.random.default_rng(seed)
    texts = ["a", "b", "c", "d", "Bé", "", "aB"]
    found = []
    for _ in range(rows):
        number = int(random.integers(-9, 10))
        found.append((
            None if random.random() < 0.1 else number,
            None if random.random() < 0.1 else int(random.integers(-3, 4)) * 2**53 + number,
            None if random.random() < 0.1 else float(random.choice([0.5, -0.5, 1e15, 0.1, 3.0])),
            None if random.random() < 0.1 else str(random.choice(texts)),
            int(random.random() < 0.3),
            float(random.standard_normal()),
        ))  # fmt: skip
    return found


def filled(rows: list[tuple[Any, ...]]) -> tuple[Database, sqlite3.Connection]:
    mine, theirs = opened(), sqlite3.connect(":memory:")
    execute(mine, f"CREATE TABLE t ({COLUMNS})")
    theirs.execute(f"CREATE TABLE t ({COLUMNS})")
    with mine.writing() as write:
        names = [each.split()[0] for each in COLUMNS.split(", ")]
        columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
        write.insert("t", columns, len(rows))
    theirs.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?, ?)", rows)
    return mine, theirs


@pytest.fixture(scope="module")
def twins() -> tuple[Database, sqlite3.Connection]:
    """The same rows, in a segment and in SQLite."""
    return filled(table(1, ROWS))


def exactly(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Rows in a form in which 1 and 1.0 differ."""
    return [tuple([(type(value).__name__, value) for value in row]) for row in rows]


def nearly(value: Any) -> Any:
    return float(f"{value:.11g}") if isinstance(value, float) and math.isfinite(value) else value


def check(mine: Database, theirs: sqlite3.Connection, statement: str) -> None:
    fast = execute(mine, statement).rows
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vectorised, "grouped", lambda *_: None)
        slow = execute(mine, statement).rows

    assert exactly(fast) == exactly(slow), statement
    assert [tuple(map(nearly, row)) for row in fast] == [
        tuple(map(nearly, row)) for row in theirs.execute(statement).fetchall()
    ], statement


def test_every_key_and_aggregate_agrees_with_the_loop(
    twins: tuple[Database, sqlite3.Connection],
) -> None:
    for key in KEYS:
        shown = ", ".join(AGGREGATES)
        check(*twins, f"SELECT {key}, {shown} FROM t GROUP BY {key} ORDER BY {key}")
    check(*twins, f"SELECT {', '.join(AGGREGATES)} FROM t")


def test_every_condition_agrees_with_the_loop(twins: tuple[Database, sqlite3.Connection]) -> None:
    for where in WHERE:
        check(*twins, f"SELECT t, count(*), sum(i), avg(s) FROM t {where} GROUP BY t ORDER BY t")
        check(*twins, f"SELECT count(*), sum(r), min(i), max(s) FROM t {where}")


def test_bare_columns_come_from_the_first_row(twins: tuple[Database, sqlite3.Connection]) -> None:
    check(*twins, "SELECT t, i, r, count(*) FROM t WHERE t IS NOT NULL GROUP BY t ORDER BY t")
    check(*twins, "SELECT t, s, min(s) FROM t GROUP BY t ORDER BY t")
    check(*twins, "SELECT o, rowid, max(i), count(*) FROM t GROUP BY o ORDER BY o")
    check(*twins, "SELECT t, sum(i) AS n FROM t GROUP BY t HAVING n > 10 AND max(s) > 1 ORDER BY n")


def test_joined_rows_are_grouped_over_arrays(twins: tuple[Database, sqlite3.Connection]) -> None:
    names = "(SELECT i AS i, count(*) AS n FROM t GROUP BY i)"
    check(*twins, f"SELECT t.t, count(*), sum(t.o), avg(t.s) FROM t LEFT JOIN {names} AS k "
          "ON k.i = t.o GROUP BY t.t ORDER BY t.t")  # fmt: skip
    check(*twins, "SELECT a.t, count(b.i), sum(b.i) FROM t AS a LEFT JOIN t AS b "
          "ON b.rowid = a.rowid + 1 AND b.o = 1 GROUP BY a.t ORDER BY a.t")  # fmt: skip


def test_arrays_are_used_and_not_only_asked_for(
    twins: tuple[Database, sqlite3.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    grouped = vectorised.grouped

    def watched(*given: Any) -> Any:
        found = grouped(*given)
        seen.append(found is not None)
        return found

    monkeypatch.setattr(vectorised, "grouped", watched)

    for statement in ("SELECT t, sum(r * s) FROM t WHERE o = 1 GROUP BY t",
                      "SELECT i % 3, o, count(*), avg(r) FROM t GROUP BY 1, 2",
                      "SELECT sum(i), max(r) FROM t"):  # fmt: skip
        execute(twins[0], statement)
    assert seen == [True, True, True]

    seen.clear()
    for statement in ("SELECT lower(t), count(*) FROM t GROUP BY 1",
                      "SELECT t COLLATE NOCASE, count(*) FROM t GROUP BY 1",
                      "SELECT t, group_concat(i) FROM t GROUP BY t",
                      "SELECT t, count(DISTINCT i) FROM t GROUP BY t"):  # fmt: skip
        execute(twins[0], statement)
    assert not any(seen)


def test_sums_beyond_64_bits_are_refused_as_row_by_row(run: Run) -> None:
    run("CREATE TABLE t (g INTEGER, n INTEGER)")
    run("INSERT INTO t VALUES " + ", ".join([f"(1, {2**62})"] * 100))

    with pytest.raises(DataError, match="overflow"):
        run("SELECT sum(n) FROM t")
    with pytest.raises(DataError, match="overflow"):
        run("SELECT g, sum(n) FROM t GROUP BY g")
    assert run("SELECT total(n), max(n), avg(n) FROM t") == [(100 * 2.0**62, 2**62, 2.0**62)]


def test_sums_are_exact_beyond_a_reals_integers(run: Run) -> None:
    run("CREATE TABLE t (g INTEGER, n INTEGER)")
    run("INSERT INTO t VALUES " + ", ".join(f"({i % 2}, {2**54 + i})" for i in range(100)))

    expected = [sum(2**54 + i for i in range(100) if i % 2 == g) for g in (0, 1)]
    assert run("SELECT sum(n) FROM t GROUP BY g") == [(each,) for each in expected]


def test_infinite_reals_add_up_as_row_by_row(run: Run) -> None:
    run("CREATE TABLE t (g INTEGER, r REAL)")
    run("INSERT INTO t VALUES " + ", ".join(["(1, 9e999), (2, 1.0)"] * 50 + ["(1, -9e999)"]))

    assert run("SELECT g, sum(r), total(r), avg(r), max(r) FROM t GROUP BY g") == [
        (1, None, None, None, math.inf), (2, 50.0, 50.0, 1.0, 1.0)
    ]  # fmt: skip


def test_a_column_of_many_values_is_grouped_row_by_row(run: Run) -> None:
    run("CREATE TABLE t (name TEXT)")
    run("INSERT INTO t VALUES " + ", ".join(f"('name {i % 3000}')" for i in range(6000)))

    found = run("SELECT name, count(*) FROM t GROUP BY name ORDER BY name")

    assert found == sorted((f"name {i}", 2) for i in range(3000))
    assert run("SELECT count(*) FROM t WHERE name = 'name 7'") == [(2,)]


def test_deleted_and_changed_rows_do_not_count(run: Run) -> None:
    run("CREATE TABLE t (id INTEGER PRIMARY KEY, g TEXT, n INTEGER)")
    rows = [(i, f"g{i % 5}", i) for i in range(5000)]
    run("INSERT INTO t VALUES " + ", ".join(map(str, rows)))
    run("SELECT g, count(*) FROM t GROUP BY g")  # codes are kept from now on
    run("DELETE FROM t WHERE g = 'g1'")
    run("UPDATE t SET g = 'new', n = 1 WHERE id % 100 = 0")
    run("INSERT INTO t VALUES (9000, NULL, 5)")

    assert run("SELECT g, count(*), sum(n) FROM t GROUP BY g") == [
        (None, 1, 5), ("g0", 950, sum(i for i in range(0, 5000, 5) if i % 100)),
        *[(f"g{g}", 1000, sum(range(g, 5000, 5))) for g in (2, 3, 4)], ("new", 50, 50),
    ]  # fmt: skip
    assert run("SELECT count(*) FROM t WHERE g = 'g1'") == [(0,)]
    assert run("SELECT count(*) FROM t WHERE g != 'g0'") == [(3050,)]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.integers(0, 1000), st.integers(64, 400), st.lists(st.sampled_from(KEYS), max_size=2),
    st.lists(st.sampled_from(AGGREGATES), min_size=1, max_size=4), st.sampled_from(WHERE),
)  # fmt: skip
def test_random_groupings_agree(
    seed: int, rows: int, keys: list[str], aggregates: list[str], where: str
) -> None:
    mine, theirs = filled(table(seed, rows))
    shown = ", ".join([*keys, *aggregates])
    behind = f" GROUP BY {', '.join(keys)} ORDER BY {', '.join(keys)}" if keys else ""
    check(mine, theirs, f"SELECT {shown} FROM t {where}{behind}")
    mine.close()
    theirs.close()


TEXTS = st.one_of(
    st.none(), st.text(max_size=4), st.text("ab\0é", min_size=5, max_size=18),
    st.sampled_from(["", "x" * 8, "x" * 9, "x" * 16, "x" * 63, "x" * 64, "\0", "\0\0"]),
)  # fmt: skip


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(TEXTS, min_size=1, max_size=30), st.integers(0, 9), st.booleans())
def test_codes_made_of_bytes_are_those_of_the_values(
    texts: list[str | None], seed: int, has_long: bool
) -> None:
    if has_long:
        texts = [*texts, "long" * 30]
    random = np.random.default_rng(seed)
    rows = [texts[i] for i in random.integers(0, len(texts), 1000).tolist()]
    database = opened()
    execute(database, "CREATE TABLE t (a TEXT)")
    with database.writing() as write:
        write.insert("t", {"a": rows}, len(rows))
    with database.reading() as view:
        part = view.collection("t").parts()[1]

        found = dictionary_of(part, 0)

    assert found is not None
    codes, values = found
    assert len(set(values)) == len(values)
    assert [None if code < 0 else values[code] for code in codes.tolist()] == rows
    database.close()


def test_texts_that_differ_in_most_rows_are_grouped_as_sqlite_groups_them() -> None:
    random = np.random.default_rng(9)
    words = [
        None if random.random() < 0.1 else f"wört {number}" if number % 3 else chr(70_000 + number)
        for number in random.integers(0, 20_000, 20_000).tolist()
    ]
    rows = [
        (number, number, 0.5, word, number % 2, float(number % 11))
        for number, word in enumerate(words)
    ]
    mine, theirs = filled(rows)
    for statement in (
        "SELECT t, count(*), count(t), max(i), sum(s) FROM t GROUP BY t",
        "SELECT t FROM t GROUP BY t HAVING count(*) > 2",
        "SELECT o, t, avg(i) FROM t WHERE i % 3 > 0 GROUP BY o, t",
        "SELECT max(i), t FROM t GROUP BY t ORDER BY 1 DESC LIMIT 9",
        "SELECT count(*), a.t FROM t AS a LEFT JOIN t AS b ON b.i = a.i + 9000 GROUP BY b.t, a.t",
        "SELECT count(t) FROM t",
    ):
        assert execute(mine, statement).rows == theirs.execute(statement).fetchall(), statement


def test_many_texts_are_grouped_by_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, _ = filled([(n, n, 0.5, f"text {n}", 0, 0.5) for n in range(ROWS)])
    monkeypatch.setattr("m2mdb.query.grouping._groups", None)  # what groups row by row
    rows = execute(mine, "SELECT t, count(*), sum(i) FROM t GROUP BY t").rows
    assert rows == sorted((f"text {n}", 1, n) for n in range(ROWS))
