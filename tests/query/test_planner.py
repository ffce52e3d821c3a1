"""The planner's choices: the cheapest access, the smallest table first; and what EXPLAIN tells."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from m2mdb.index.database import Database
from m2mdb.query import access
from m2mdb.query.estimates import FEWEST
from m2mdb.query.executor import execute
from tests.query.conftest import Run, opened

# ruff: noqa: E501  # a statement a line
ROWS = 20_000
HALF, FEW = "SELECT count(*) FROM t WHERE half = 1", "SELECT id FROM t WHERE many = 77"


@pytest.fixture(scope="module")
def filled() -> Iterator[Database]:
    """A collection with an index that finds few rows, and one that finds half of them."""
    database = opened()
    execute(database, "CREATE TABLE t (id INTEGER PRIMARY KEY, half INTEGER, many INTEGER, x TEXT)")
    random = np.random.default_rng(5)
    columns = {
        "id": list(range(ROWS)),
        "half": random.integers(0, 2, ROWS).tolist(),
        "many": random.integers(0, 2000, ROWS).tolist(),
        "x": [f"x{i % 3000}" for i in range(ROWS)],
    }
    with database.writing() as write:
        write.insert("t", columns, ROWS)
    for column in ("half", "many", "x"):
        execute(database, f"CREATE INDEX by_{column} ON t ({column})")
    execute(database, "CREATE TABLE small (many INTEGER, name TEXT)")
    execute(database, "INSERT INTO small VALUES (3, 'three'), (77, 'seventy'), (5000, 'none')")
    yield database
    database.close()


@pytest.fixture
def run(filled: Database) -> Run:
    return lambda statement, parameters=(): execute(filled, statement, parameters).rows


def details(run: Run, statement: str, parameters: object = ()) -> list[str]:
    """The lines of EXPLAIN without figures."""
    return [re.sub(r"(, ~| ->).*", "", row[2]) for row in run(f"EXPLAIN {statement}", parameters)]


WAYS = [
    ("id = 5", "SEARCH t USING PRIMARY KEY (id=?)"),
    ("id = 5 AND many = 7", "SEARCH t USING PRIMARY KEY (id=?)"),
    ("id IN (1, 2)", "SEARCH t USING PRIMARY KEY (id IN (…))"),
    ("many = 7", "SEARCH t USING INDEX by_many (many=?)"),
    ("many IN (7, 8)", "SEARCH t USING INDEX by_many (many IN (…))"),
    ("many IN (SELECT many FROM small)", "SEARCH t USING INDEX by_many (many IN (…))"),
    ("many BETWEEN 7 AND 9", "SEARCH t USING INDEX by_many (many>=? AND many<=?)"),
    ("x = 'x5'", "SEARCH t USING INDEX by_x (x=?)"),
    ("many NOT IN (7)", "SCAN t"),
    ("many + 0 = 7", "SCAN t"),
    ("half = 1 OR many = 7", "SCAN t"),
]


@pytest.mark.parametrize(("where", "way"), WAYS)
def test_the_way_is_chosen_by_the_conditions(run: Run, where: str, way: str) -> None:
    assert details(run, f"SELECT * FROM t WHERE {where}")[0] == way
    found = run(f"SELECT id FROM t WHERE {where}")

    scanned = f"SELECT id FROM t WHERE NOT NOT ({where})".replace("many", "+many").replace(
        "SELECT +many", "SELECT many"
    )
    assert found == run(scanned)


def test_without_statistics_the_first_index_is_taken_and_given_up_where_it_finds_too_many(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    checked = access._checked

    def watched(view: Any, rowids: Any, condition: Any) -> Any:
        looked.append(len(rowids))
        return checked(view, rowids, condition)

    monkeypatch.setattr(access, "_checked", watched)

    assert "by_half" in details(run, "SELECT id FROM t WHERE half = 1 AND many = 77")[0]
    ((count,),) = run(HALF)
    assert count > ROWS / 3 and looked == [], "read no further than a scan would cost"
    assert len(run(FEW)) == looked[0] <= FEWEST


def test_with_statistics_the_best_index_is_taken_and_no_hopeless_one(
    filled: Database, run: Run
) -> None:
    both = "SELECT id FROM t WHERE half = 1 AND many = 77"
    before = run(both), run(HALF), run(FEW)
    execute(filled, "BEGIN")
    execute(filled, "ANALYZE")

    assert details(run, both)[0] == "SEARCH t USING INDEX by_many (many=?)"
    assert details(run, HALF)[0] == "SCAN t"
    assert details(run, "SELECT id FROM t WHERE half >= 1")[0] == "SCAN t"
    assert "by_many" in details(run, "SELECT id FROM t WHERE many > 1995")[0]
    assert details(run, "SELECT id FROM t WHERE many > 5")[0] == "SCAN t"
    assert (run(both), run(HALF), run(FEW)) == before
    about = run(f"EXPLAIN {HALF}")[0][2]
    shown = re.fullmatch(r"SCAN t, ~(\d+) of 20000 rows", about)
    assert shown is not None and abs(int(shown[1]) - before[1][0][0]) < 2
    execute(filled, "ROLLBACK")


def test_a_join_begins_with_the_table_that_is_far_smaller(run: Run) -> None:
    statement = "SELECT t.id FROM t JOIN small ON small.many = t.many WHERE small.name = 'seventy'"

    lines = details(run, statement)

    assert lines[:2] == ["SCAN small", "HASH JOIN t ON small.many = t.many"]
    assert sorted(run(statement)) == sorted(run(FEW))
    outer = "SELECT count(*) FROM t LEFT JOIN small ON small.many = t.many"
    assert details(run, outer)[0] == "SCAN t"
    assert run(outer) == [(ROWS,)]


def test_tables_are_taken_in_an_order_that_joins_them(run: Run) -> None:
    lines = details(
        run, "SELECT 1 FROM small AS a, t AS b, small AS c WHERE a.many = c.many AND c.name = b.x"
    )

    assert [line for line in lines if "JOIN" in line] == [
        "HASH JOIN c ON a.many = c.many", "HASH JOIN b ON c.name = b.x"
    ]  # fmt: skip


def test_explain_is_a_tree(run: Run) -> None:
    rows = run(
        "EXPLAIN WITH k AS (SELECT many FROM small) SELECT (SELECT count(*) FROM t WHERE t.many = k.many), "
        "(SELECT max(id) FROM t) FROM k UNION SELECT 1, 2 ORDER BY 1"
    )

    parents = {number: parent for number, parent, _ in rows}
    texts = {number: re.sub(", ~.*", "", text) for number, _, text in rows}
    shown = []
    for number in parents:
        depth, at = 0, parents[number]
        while at:
            depth, at = depth + 1, parents[at]
        shown.append("  " * depth + texts[number])
    assert shown == [
        "UNION",
        "  SCAN k",
        "    MATERIALIZE",
        "      SCAN small",
        "  SCALAR SUBQUERY",
        "    SCAN t",
        "  CORRELATED SCALAR SUBQUERY",
        "    SEARCH t USING INDEX by_many (many=?)",
        "  SCAN CONSTANT ROW",
        "SORT FOR ORDER BY",
    ]


def test_explain_analyze_tells_rows_and_times_of_each_step(run: Run) -> None:
    rows = run(
        "EXPLAIN ANALYZE SELECT small.name, (SELECT max(id) FROM t AS u WHERE u.many = t.many) FROM small "
        "JOIN t ON t.many = small.many WHERE t.half = 1"
    )

    texts = [row[2] for row in rows]
    count = len(run("SELECT 1 FROM small JOIN t ON t.many = small.many WHERE t.half = 1"))
    assert re.fullmatch(r"SCAN small.* -> 3 rows, \d+\.\d+ ms", texts[0])
    assert re.fullmatch(rf"HASH JOIN t ON .* -> {count} rows, \d+\.\d+ ms", texts[1])
    assert re.fullmatch(rf"SEARCH t USING INDEX by_half .* -> {count} rows, \d+\.\d+ ms", texts[2])
    assert re.fullmatch(r"CORRELATED SCALAR SUBQUERY -> 2 rows in 2 runs, \d+\.\d+ ms", texts[3])
    assert re.fullmatch(rf"ANALYZE: {count} rows in \d+\.\d+ ms, \d+ tree pages read", texts[-2])
    assert texts[-1].startswith("tiers: ")
    pages = int(re.findall(r"(\d+) tree pages", texts[-1])[0])
    assert pages >= 2, "the index was read"


def test_explain_analyze_of_a_change_is_told_and_done(run: Run) -> None:
    run("CREATE TABLE w (a INTEGER PRIMARY KEY)")
    run("INSERT INTO w VALUES (1), (2)")

    texts = [row[2] for row in run("EXPLAIN ANALYZE DELETE FROM w WHERE a = ?", (2,))]

    assert texts[0] == "DELETE FROM w"
    assert re.fullmatch(r"SEARCH w USING PRIMARY KEY \(a=\?\) -> 1 rows, \d+\.\d+ ms", texts[1])
    assert run("SELECT a FROM w") == [(1,)]
    run("DROP TABLE w")
