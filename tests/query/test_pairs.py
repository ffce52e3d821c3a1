"""Joins by conditions that are no equality give what SQLite gives, over arrays and pair by pair."""

from __future__ import annotations

import sqlite3
from typing import Any

import numpy as np
import pytest

from m2mdb.index.database import Database
from m2mdb.pager.errors import OperationalError, StatementInterruptedError
from m2mdb.query import pairs
from m2mdb.query.executor import execute
from tests.query.conftest import opened

COLUMNS = "i INTEGER, big INTEGER, r REAL, t TEXT, o INTEGER"
SIDES = ["a.i", "b.i", "a.big", "b.big", "a.r", "b.r", "a.i + b.o", "a.r * b.i", "a.i - b.i",
         "a.r - b.r", "b.big - a.big", "-a.i", "3", "0.5", "a.i % 3", "abs(a.i)", "b.rowid",
         "?"]  # fmt: skip
TEXTS = ["a.t", "b.t", "'b'", "'B'", "''", "upper(a.t)", "b.t COLLATE NOCASE"]
SYMBOLS = ["<", "<=", ">", ">=", "=", "<>", "IS", "IS NOT"]
JOINS = ["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "CROSS JOIN"]
Random = np.random.Generator


def pick(random: Random, values: list[str]) -> str:
    return values[int(random.integers(len(values)))]


def condition(random: Random, depth: int) -> str:
    """Terms of both sides, mixed with some that arrays cannot tell."""
    shape = random.integers(10)
    if depth and shape < 4:
        word = "AND" if shape < 2 else "OR"
        return f"({condition(random, depth - 1)} {word} {condition(random, depth - 1)})"
    if depth and shape == 4:
        return f"NOT ({condition(random, depth - 1)})"
    if shape == 5:
        negated = pick(random, ["", "NOT "])
        first, low, high = (pick(random, SIDES) for _ in range(3))
        return f"{first} {negated}BETWEEN {low} AND {high}"
    if shape == 6:
        return pick(random, ["a.r IS NULL", "b.t IS NOT NULL", "a.t LIKE 'a%'", "b.i IN (1, 2)",
                             "length(a.t) > b.i", "a.i", "NULL", "a.t < b.i"])  # fmt: skip
    if shape == 7:
        return f"{pick(random, TEXTS)} {pick(random, SYMBOLS)} {pick(random, TEXTS)}"
    return f"{pick(random, SIDES)} {pick(random, SYMBOLS)} {pick(random, SIDES)}"


def value(random: Random, column: int) -> Any:
    if random.random() < 0.15:
        return None
    number = int(random.integers(-4, 5))
    near = [2**53, 2**53 + 1, -(2**62), 2**62, number]  # where reals and integers meet
    texts = ["a", "b", "B", "", "aé", "b" * 9]
    return [number, near[number % 5], float(number) / 2, texts[number % 6], number % 2][column]


def filled(random: Random, count: int) -> tuple[Database, sqlite3.Connection]:
    mine, theirs = opened(), sqlite3.connect(":memory:")
    for name, rows in (("a", count), ("b", count + 7), ("c", 5)):
        for run in (lambda s: execute(mine, s), theirs.execute):
            run(f"CREATE TABLE {name} ({COLUMNS})")
        for _ in range(rows):
            row = [value(random, column) for column in range(5)]
            statement = f"INSERT INTO {name} VALUES (?, ?, ?, ?, ?)"
            execute(mine, statement, row)
            theirs.execute(statement, row)
    return mine, theirs


@pytest.fixture(params=["arrays", "ranges", "small blocks"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which way small tables are joined."""
    monkeypatch.setattr(pairs, "LEAST_PAIRS", 0)
    if request.param != "arrays":
        monkeypatch.setattr(pairs, "SORTED_PAIRS", 0)
        monkeypatch.setattr(pairs, "FEWER", 0)
        monkeypatch.setattr(pairs, "BLOCK_PAIRS", 64 if request.param == "ranges" else 7)
    return str(request.param)


@pytest.mark.parametrize("seed", range(3))
def test_random_conditions_join_as_sqlite_joins(way: str, seed: int) -> None:
    random = np.random.default_rng([seed, *way.encode()])
    mine, theirs = filled(random, 20)
    for _ in range(120):
        term = " AND ".join(condition(random, 2) for _ in range(int(random.integers(1, 3))))
        join = pick(random, JOINS)
        statement = f"SELECT a.rowid, b.rowid FROM a {join} b ON {term}"
        if random.random() < 0.2:
            left = "c LEFT JOIN a ON c.i < a.i"
            statement = f"SELECT a.rowid, b.rowid, c.rowid FROM {left} {join} b ON {term}"
        values = [1] * statement.count("?")
        found = sorted(execute(mine, statement, values).rows, key=repr)
        assert found == sorted(theirs.execute(statement, values).fetchall(), key=repr), statement


def test_ranges_and_all_pairs_give_the_same_rows_in_the_same_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mine, _ = filled(np.random.default_rng(7), 60)
    statements = [
        "SELECT a.rowid, b.rowid FROM a JOIN b ON a.r BETWEEN b.i AND b.i + 1",
        "SELECT a.rowid, b.rowid FROM a JOIN b ON b.r > a.r AND b.r <= a.r + 1 AND a.t <> b.t",
        "SELECT a.rowid, b.rowid FROM a LEFT JOIN b ON a.t < b.t AND a.i < b.i",
        "SELECT a.rowid, b.rowid FROM a JOIN b ON a.i > b.r AND a.i BETWEEN b.i AND b.t",
    ]
    monkeypatch.setattr(pairs, "LEAST_PAIRS", 1 << 60)
    closures = [execute(mine, each).rows for each in statements]
    monkeypatch.setattr(pairs, "LEAST_PAIRS", 0)
    tiles = [execute(mine, each).rows for each in statements]
    monkeypatch.setattr(pairs, "SORTED_PAIRS", 0)
    monkeypatch.setattr(pairs, "FEWER", 0)
    assert closures == tiles == [execute(mine, each).rows for each in statements]
    assert all(closures)


def test_comparisons_of_columns_are_asked_by_arrays(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, theirs = filled(np.random.default_rng(9), 20)
    monkeypatch.setattr(pairs.Check, "passed", None)  # what asks pair by pair
    for term in ("a.i < b.i + 1 OR NOT a.r BETWEEN b.r AND ?", "a.t < b.t AND b.t <> 'b'",
                 "a.r - b.r > 0.5 AND a.i IS NOT NULL"):  # fmt: skip
        statement = f"SELECT count(*) FROM a LEFT JOIN b ON {term}"
        values = [2] * statement.count("?")
        assert execute(mine, statement, values).rows == theirs.execute(statement, values).fetchall()


def test_a_join_of_too_many_rows_is_refused_before_memory_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pairs, "MOST_PAIRS", 100)
    mine, _ = filled(np.random.default_rng(7), 20)
    for statement in (
        "SELECT count(*) FROM a, b",
        "SELECT count(*) FROM a JOIN b ON a.o < b.i + 9",
    ):
        with pytest.raises(OperationalError, match="100 is the most"):
            execute(mine, statement)
    assert execute(mine, "SELECT count(*) FROM a, c").rows == [(100,)]


def test_texts_of_a_query_that_gives_numbers_too_are_compared_pair_by_pair(way: str) -> None:
    mine, theirs = filled(np.random.default_rng(8), 20)
    statement = (
        "SELECT count(*) FROM (SELECT t FROM a UNION ALL SELECT i FROM a) AS a JOIN b ON a.t < b.t"
    )
    assert execute(mine, statement).rows == theirs.execute(statement).fetchall()


def test_an_interrupt_ends_a_join_of_many_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = opened()
    for name in ("a", "b"):
        execute(mine, f"CREATE TABLE {name} (x REAL, y REAL)")
        with mine.writing() as write:
            numbers = np.random.default_rng(1).random(20_000)
            write.insert(name, {"x": numbers, "y": numbers}, len(numbers))
    looks = 0

    def check() -> None:
        nonlocal looks
        looks += 1
        if looks == 40:
            raise StatementInterruptedError("interrupted")

    with monkeypatch.context() as patch, pytest.raises(StatementInterruptedError):
        patch.setattr(mine, "check_interrupted", check)
        execute(mine, "SELECT count(*) FROM a JOIN b ON a.x * b.y < 0.000001")
    assert execute(mine, "SELECT count(*) FROM a").rows == [(20_000,)]
