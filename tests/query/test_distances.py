"""`<->`, `<#>`, `<=>` in expressions, and ORDER BY a distance as a search."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import m2mdb
from m2mdb.query import nearest_rows
from m2mdb.query.search import SearchRequest, run_search
from tests.query.conftest import Run

METRICS = {"<->": "l2", "<#>": "ip", "<=>": "cosine"}
ROWS, DIMENSION = 120, 6


def measured(operator: str, vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    dots: np.ndarray = vectors @ query
    lengths: np.ndarray = np.linalg.norm(vectors, axis=1) * np.linalg.norm(query)
    if operator == "<->":
        return np.array(np.sqrt(np.square(vectors - query).sum(axis=1)))
    return np.negative(dots) if operator == "<#>" else np.array(1 - dots / lengths)


@pytest.fixture
def vectors(run: Run) -> np.ndarray:
    """A table with a column of each metric, all of the same vectors; every tenth row has none."""
    columns = ", ".join(f"{name} VECTOR({DIMENSION}) METRIC {name}" for name in METRICS.values())
    run(f"CREATE TABLE t (id INTEGER PRIMARY KEY, a INTEGER, {columns})")
    found = np.random.default_rng(3).normal(size=(ROWS, DIMENSION)).astype(np.float32)
    for row, each in enumerate(found):
        given = None if row % 10 == 9 else each
        run("INSERT INTO t VALUES (?, ?, ?, ?, ?)", (row, row % 7, given, given, given))
    return found


@pytest.mark.parametrize("operator", METRICS)
def test_a_distance_is_what_numpy_says(run: Run, vectors: np.ndarray, operator: str) -> None:
    query = np.arange(DIMENSION, dtype=np.float32) - 2

    found = run(f"SELECT {METRICS[operator]} {operator} ? FROM t ORDER BY id", (query,))

    for row, expected in enumerate(measured(operator, vectors, query)):
        value = found[row][0]
        assert value is None if row % 10 == 9 else value == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("operator", METRICS)
@pytest.mark.parametrize("where", ["", "WHERE a IN (1, 2, 5)"])
@pytest.mark.parametrize("limit", ["LIMIT 7", "LIMIT 5 OFFSET 4", "LIMIT 0", "LIMIT 300", ""])
def test_order_by_a_distance_gives_the_nearest(
    run: Run, vectors: np.ndarray, operator: str, where: str, limit: str
) -> None:
    query = np.ones(DIMENSION, np.float32)
    column = METRICS[operator]
    distances = measured(operator, vectors, query)
    ids = [row for row in range(ROWS) if not where or row % 7 in (1, 2, 5)]
    ids.sort(key=lambda row: (row % 10 == 9, distances[row] if row % 10 != 9 else 0, row))
    numbers = [int(word) for word in limit.split() if word.isdigit()]
    start = numbers[1] if len(numbers) == 2 else 0
    expected = ids[start : start + numbers[0]] if numbers else ids

    found = run(f"SELECT id FROM t {where} ORDER BY {column} {operator} ? {limit}", (query,))
    by_alias = run(
        f"SELECT id, ? {operator} {column} AS d FROM t {where} ORDER BY d ASC {limit}", (query,)
    )

    assert [row[0] for row in found] == expected == [row[0] for row in by_alias]


def test_it_is_planned_as_a_search(run: Run, vectors: np.ndarray) -> None:
    def plan(sql: str) -> str:
        return "\n".join(str(row) for row in run(f"EXPLAIN {sql}"))

    assert "SEARCH t BY cosine <=> OF 120 rows" in plan(
        "SELECT id FROM t ORDER BY cosine <=> ? LIMIT 10"
    )
    assert "WITH FILTER" in plan("SELECT id FROM t WHERE a = 1 ORDER BY l2 <-> ? LIMIT 10")
    for other in (
        "ORDER BY cosine <=> ?",  # no LIMIT
        "ORDER BY l2 <=> ? LIMIT 10",  # another metric
        "ORDER BY cosine <=> ? DESC LIMIT 10",
        "ORDER BY cosine <=> ? NULLS FIRST LIMIT 10",
        "ORDER BY cosine <=> ip LIMIT 10",
        "ORDER BY cosine <=> ?, id LIMIT 10",
    ):
        assert "SCAN t" in plan(f"SELECT id FROM t {other}")


def test_the_search_is_used(run: Run, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[object] = []

    def seen(view: Any, request: SearchRequest) -> object:
        used.append(request)
        return run_search(view, request)

    monkeypatch.setattr(nearest_rows, "run_search", seen)

    run("SELECT id FROM t ORDER BY cosine <=> ? LIMIT 3", (np.ones(DIMENSION, np.float32),))
    run("SELECT id FROM t ORDER BY cosine <=> ? LIMIT 3", (np.zeros(DIMENSION, np.float32),))
    run("SELECT id FROM t ORDER BY cosine <=> NULL LIMIT 3")

    assert len(used) == 1


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("[1, 2] <-> [4, 6]", 5.0),
        ("[1, 2] <#> '[3, 4]'", -11.0),
        ("[1, 0] <=> [0, 2]", 1.0),
        ("[1, 0] <=> [0, 0]", None),
        ("NULL <-> [1]", None),
        ("x'0000803f00000040' <-> [1, 2]", 0.0),
        ("([1, 2] <-> [4, 6]) * 2 < 10.5", True),
    ],
)
def test_distances_of_constants(run: Run, expression: str, value: object) -> None:
    assert run(f"SELECT {expression}") == [(value,)]


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("[1, 2] <-> [1, 2, 3]", "vectors of 2 and 3 components"),
        ("[1, 2] <=> 'x'", "text 'x' is not a vector"),
        ("1 <#> [1]", "integer 1 is not a vector"),
        ("'[1, \"a\"]' <-> [1, 2]", "is not a vector"),
        ("'[[1]]' <-> [1]", "is not a vector"),
    ],
)
def test_what_is_no_vector_is_refused(run: Run, expression: str, message: str) -> None:
    with pytest.raises(m2mdb.DataError, match=message):
        run(f"SELECT {expression}")


def test_a_subquery_gives_the_query_vector(run: Run, vectors: np.ndarray) -> None:
    found = run(
        "SELECT id FROM t WHERE id != 3 ORDER BY l2 <-> (SELECT l2 FROM t WHERE id = 3) LIMIT 2"
    )

    distances = measured("<->", vectors, vectors[3])
    ids = [row for row in np.argsort(distances, kind="stable").tolist() if row % 10 != 9]
    assert [row[0] for row in found] == ids[1:3]
