"""SEARCH against brute force: sides, fusion, filters, defaults, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m2mdb.index.database import Database
from m2mdb.pager.errors import (
    DatabaseError,
    DataError,
    InterfaceError,
    NotSupportedError,
    ProgrammingError,
)
from m2mdb.query.executor import execute, execute_many
from m2mdb.query.search import SearchRequest, returned_columns, run_search
from tests.query.conftest import Run, opened

DIMENSION = 8
WORDS = "dark light mode page tree log search vector text row".split()
DELTA_ROWS, SEGMENT_ROWS = 60, 600


class Model:
    """The rows as Python has them, and SEARCH done the simple way."""

    def __init__(self, metric: str) -> None:
        self.metric = metric
        self.rows: dict[int, tuple[str, str, int, np.ndarray | None]] = {}

    def vector_side(self, query: np.ndarray) -> list[tuple[int, float, float]]:
        """(rowid, score, distance), best first."""
        found = []
        for rowid, (_, _, _, vector) in self.rows.items():
            if vector is None:
                continue
            a, b = query.astype(np.float64), vector.astype(np.float64)
            if self.metric == "cosine":
                score = float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
                distance = 1 - score
            elif self.metric == "l2":
                distance = float(np.linalg.norm(a - b))
                score = 1 / (1 + distance)
            else:
                score, distance = float(a @ b), -float(a @ b)
            found.append((rowid, score, distance))
        return sorted(found, key=lambda hit: (-np.float32(hit[1]), hit[0]))


def build(metric: str) -> tuple[Database, Model]:
    """A collection with a segment, a delta, deleted and updated rows, and NULL vectors."""
    rng = np.random.default_rng(7)
    database = opened()
    execute(
        database,
        "CREATE COLLECTION notes (id TEXT PRIMARY KEY, body TEXT FULLTEXT, topic TEXT, n INTEGER, "
        f"v VECTOR({DIMENSION}) METRIC {metric})",
    )
    model = Model(metric)
    count = SEGMENT_ROWS + DELTA_ROWS
    vectors = rng.standard_normal((count, DIMENSION)).astype(np.float32)
    vectors[31:34] = vectors[30]
    rows: list[tuple[Any, ...]] = []
    for number in range(count):
        body = " ".join(rng.choice(WORDS, size=1 + number % 5))
        topic = ("ui", "db", "ai")[number % 3]
        vector = None if number % 10 == 9 else vectors[number]
        rows.append((f"k{number}", body, topic, number, vector))
        model.rows[number + 1] = (body, topic, number, vector)
    insert = "INSERT INTO notes VALUES (?, ?, ?, ?, ?)"
    execute_many(database, insert, rows[:SEGMENT_ROWS])
    execute_many(database, insert, rows[SEGMENT_ROWS:])
    execute(database, "DELETE FROM notes WHERE n % 11 = 3")
    execute(database, "UPDATE notes SET topic = 'moved' WHERE n % 13 = 5")
    for rowid, (body, _, n, vector) in list(model.rows.items()):
        if n % 11 == 3:
            del model.rows[rowid]
        elif n % 13 == 5:
            model.rows[rowid] = (body, "moved", n, vector)
    return database, model


@pytest.fixture(scope="module", params=["cosine", "l2", "ip"])
def built(request: pytest.FixtureRequest) -> tuple[Database, Model]:
    return build(request.param)


@pytest.fixture(scope="module")
def cosine() -> tuple[Database, Model]:
    return build("cosine")


def query_vector(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(DIMENSION).astype(np.float32)


CONDITIONS: dict[str | None, Callable[[Any], bool]] = {
    None: lambda row: True,
    "topic = 'ui'": lambda row: row[1] == "ui",
    "n > 600": lambda row: row[2] > 600,
    "topic = 'moved' AND n < 100": lambda row: row[1] == "moved" and row[2] < 100,
    "id = 'k7'": lambda row: row[2] == 7,
    "n < 0": lambda row: False,
    "body LIKE '%tree%' OR n % 50 = 1": lambda row: "tree" in row[0] or row[2] % 50 == 1,
}


@pytest.mark.parametrize("where", CONDITIONS, ids=str)
@pytest.mark.parametrize(("k", "offset"), [(1, 0), (10, 0), (7, 5), (5000, 0)])
def test_near_gives_the_nearest_rows(
    built: tuple[Database, Model], where: str | None, k: int, offset: int
) -> None:
    database, model = built
    query = query_vector(k)
    clause = f"WHERE {where}" if where else ""

    rows = execute(
        database,
        f"SEARCH notes NEAR v ? {clause} K {k} OFFSET {offset} "
        "RETURNING rowid, score, distance, rank, n, bm25",
        (query,),
    ).rows

    passing = [hit for hit in model.vector_side(query) if CONDITIONS[where](model.rows[hit[0]])]
    expected = passing[offset : offset + k]
    assert [row[0] for row in rows] == [hit[0] for hit in expected]
    for number, (row, hit) in enumerate(zip(rows, expected, strict=True)):
        assert row[1] == pytest.approx(hit[1], abs=2e-6, rel=2e-6)
        assert row[2] == pytest.approx(hit[2], abs=2e-6, rel=2e-6)
        assert row[3:] == (offset + number + 1, model.rows[hit[0]][2], None)


def text_side(database: Database, text: str) -> dict[int, float]:
    rows = execute(
        database, "SEARCH notes MATCH ? K 100000 RETURNING rowid, bm25, score, distance", (text,)
    ).rows
    assert all(row[1] == row[2] and row[3] is None for row in rows)
    assert rows == sorted(rows, key=lambda row: (-row[1], row[0]))
    return {row[0]: row[1] for row in rows}


def test_match_finds_exactly_the_rows_with_a_term(cosine: tuple[Database, Model]) -> None:
    database, model = cosine

    found = text_side(database, "tree log")

    wanted = {r for r, row in model.rows.items() if {"tree", "log"} & set(row[0].split())}
    assert set(found) == wanted


def ranks(ordered: list[int], depth: int) -> dict[int, int]:
    return {rowid: rank for rank, rowid in enumerate(ordered[:depth], 1)}


@pytest.mark.parametrize("where", CONDITIONS, ids=str)
@pytest.mark.parametrize(("k", "offset", "depth"), [(10, 0, None), (3, 4, 20), (1000, 0, None)])
def test_rrf_adds_reciprocal_ranks(
    built: tuple[Database, Model], where: str | None, k: int, offset: int, depth: int | None
) -> None:
    database, model = built
    query, text = query_vector(3), "tree vector"
    passes = {rowid for rowid, row in model.rows.items() if CONDITIONS[where](row)}
    clause = f"WHERE {where}" if where else ""
    fusion = "" if depth is None else f"FUSION rrf (k = 10, depth = {depth})"

    rows = execute(
        database,
        f"SEARCH notes {fusion} NEAR ? MATCH ? {clause} K ? OFFSET ? "
        "RETURNING rowid, score, distance, bm25",
        (query, text, k, offset),
    ).rows

    used = depth or max(100, 4 * (k + offset))
    vector = [hit for hit in model.vector_side(query) if hit[0] in passes]
    bm25 = {r: score for r, score in text_side(database, text).items() if r in passes}
    constant = 60 if depth is None else 10
    fused: dict[int, float] = {}
    for ordered in ([hit[0] for hit in vector], list(bm25)):
        for rowid, rank in ranks(ordered, used).items():
            fused[rowid] = fused.get(rowid, 0.0) + 1 / (constant + rank)
    expected = sorted(fused.items(), key=lambda item: (-item[1], item[0]))[offset : offset + k]
    matches = len({hit[0] for hit in vector} | set(bm25))
    assert len(rows) == max(0, min(k, matches - offset))
    assert [row[0] for row in rows] == [rowid for rowid, _ in expected]
    assert [row[1] for row in rows] == pytest.approx([score for _, score in expected])
    distances = {hit[0]: hit[2] for hit in vector}
    for rowid, _, distance, relevance in rows:
        assert (distance is None) == (rowid not in distances), "Y3"
        assert distance is None or distance == pytest.approx(distances[rowid], abs=2e-6, rel=2e-6)
        assert relevance == bm25.get(rowid), "Y3"


def test_weighted_adds_normalised_scores(built: tuple[Database, Model]) -> None:
    database, model = built
    query, text = query_vector(5), "dark mode"

    rows = execute(
        database,
        "SEARCH notes NEAR ? MATCH ? FUSION weighted (vector = 0.25, text = 0.75) K 12 "
        "RETURNING rowid, score",
        (query, text),
    ).rows

    vector = model.vector_side(query)[:100]
    bm25 = dict(list(text_side(database, text).items())[:100])
    scores = {hit[0]: hit[1] for hit in vector}
    low, high = min(scores.values()), max(scores.values())
    shapes: dict[str, Callable[[float], float]] = {
        "cosine": lambda score: (1 + score) / 2,
        "l2": lambda score: score,
        "ip": lambda score: (score - low) / (high - low),
    }
    shaped = shapes[model.metric]
    best = max(bm25.values())
    fused = {
        rowid: (0.25 * shaped(scores[rowid]) if rowid in scores else 0)
        + 0.75 * bm25.get(rowid, 0) / best
        for rowid in scores.keys() | bm25.keys()
    }
    expected = sorted(fused.items(), key=lambda item: (-item[1], item[0]))[:12]
    assert [row[1] for row in rows] == [pytest.approx(score, abs=1e-5) for _, score in expected]
    assert {row[0] for row in rows} == {rowid for rowid, _ in expected}


def test_one_side_alone_of_two(cosine: tuple[Database, Model]) -> None:
    database, _ = cosine
    query = query_vector(9)

    both = "SEARCH notes NEAR ? MATCH 'tree' FUSION {} K 9 RETURNING rowid, score"
    vector = execute(database, both.format("vector_only"), (query,)).rows
    text = execute(database, both.format("bm25_only"), (query,)).rows

    near = "SEARCH notes NEAR ? K 9 RETURNING rowid, score"
    assert vector == execute(database, near, (query,)).rows
    match = "SEARCH notes MATCH 'tree' K 9 RETURNING rowid, score"
    assert text == execute(database, match).rows


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 50), st.floats(-1, 1), st.integers(1, 30))
def test_min_score_filters_what_would_be_found(seed: int, least: float, k: int) -> None:
    database, _ = _shared()
    query = query_vector(seed)
    statement = "SEARCH notes NEAR ? K ? {} RETURNING rowid, score"

    rows = execute(database, statement.format("MIN SCORE ?"), (query, k, least)).rows

    every = execute(database, statement.format(""), (query, k)).rows
    assert rows == [row for row in every if row[1] >= least]


_built: list[tuple[Database, Model]] = []


def _shared() -> tuple[Database, Model]:
    if not _built:
        _built.append(build("cosine"))
    return _built[0]


def test_equal_scores_come_in_the_order_of_their_rowids(cosine: tuple[Database, Model]) -> None:
    database, model = cosine
    twins = [rowid for rowid in range(31, 35) if rowid in model.rows]
    vector = model.rows[twins[0]][3]
    assert vector is not None

    rows = execute(
        database, f"SEARCH notes NEAR ? K {len(twins)} RETURNING rowid, score", (vector,)
    ).rows

    with_vector = [rowid for rowid in twins if model.rows[rowid][3] is not None]
    assert [row[0] for row in rows][: len(with_vector)] == with_vector


def test_the_default_result_is_all_columns_but_vectors_then_score(run: Run, result: Any) -> None:
    run("CREATE TABLE t (id TEXT PRIMARY KEY, v VECTOR(2), body TEXT FULLTEXT)")
    run("INSERT INTO t VALUES ('a', [1, 0], 'x')")

    found = result("SEARCH t NEAR [1, 0]")

    assert found.columns == ["id", "body", "score"]
    assert found.rows == [("a", "x", 1.0)]
    assert found.rowcount == -1
    every = result("SEARCH t NEAR [2, 0] RETURNING *, upper(id) AS u, score")
    assert every.columns == ["id", "v", "body", "u", "score"]
    assert every.rows[0][1].tolist() == [1, 0] and every.rows[0][3:] == ("A", 1.0)


def test_k_is_ten_unless_given(cosine: tuple[Database, Model]) -> None:
    database, _ = cosine
    query = query_vector(1)

    assert len(execute(database, "SEARCH notes NEAR ?", (query,)).rows) == 10
    assert len(execute(database, "SEARCH notes NEAR ? LIMIT 4", (query,)).rows) == 4
    assert len(execute(database, "SEARCH notes NEAR ? K (SELECT 3)", (query,)).rows) == 3


def test_an_empty_collection_is_searched(run: Run) -> None:
    run("CREATE TABLE t (v VECTOR(2), body TEXT FULLTEXT)")

    assert run("SEARCH t NEAR [1, 0]") == []
    assert run("SEARCH t MATCH 'x'") == []
    assert run("SEARCH t NEAR [1, 0] MATCH 'x' WHERE body = 'y'") == []
    with pytest.raises(DataError):
        run("SEARCH t NEAR [1, 0, 0]")


def test_a_query_takes_arrays_lists_and_bytes(run: Run) -> None:
    run("CREATE TABLE t (id TEXT, v VECTOR(2) METRIC l2)")
    run("INSERT INTO t VALUES ('a', ?), ('b', ?)", ([1.0, 0.0], np.array([0, 1], np.float64)))
    run("INSERT INTO t VALUES ('c', ?)", (np.array([3, 3], "<f4").tobytes(),))

    for query in ([3, 2], (3.0, 2.0), np.array([3, 2]), np.array([3, 2], "<f4").tobytes()):
        assert run("SEARCH t NEAR ? K 1", (query,)) == [("c", 0.5)]
    assert run("SEARCH t NEAR (SELECT v FROM t WHERE id = 'b') K 1 RETURNING id") == [("b",)]


REFUSED: list[tuple[str, tuple[Any, ...], type[Exception], str]] = [
    ("SEARCH nothing NEAR ?", ([1, 0],), ProgrammingError, "no such collection: nothing"),
    ("SEARCH t NEAR x ?", ([1, 0],), ProgrammingError, "no such column: x in t"),
    ("SEARCH t NEAR body ?", ([1, 0],), ProgrammingError, "a TEXT column is no VECTOR"),
    ("SEARCH t MATCH v 'x'", (), ProgrammingError, "the column is not FULLTEXT"),
    ("SEARCH two NEAR ?", ([1, 0],), ProgrammingError, "exactly one VECTOR column; two has a, b"),
    ("SEARCH two MATCH 'x'", (), ProgrammingError, "MATCH needs a FULLTEXT column; two has none"),
    ("SEARCH t NEAR ?", ([1, 0, 0],), DataError, "NEAR v of t: vector has 3 dimensions, the column "
     "has 2"),
    ("SEARCH t NEAR ?", ([1, float("nan")],), DataError, "nan at dimension 1"),
    ("SEARCH t NEAR ?", ([float("inf"), 0],), DataError, "inf at dimension 0"),
    ("SEARCH t NEAR ?", ([0, 0],), DataError, "zero vector has no direction"),
    ("SEARCH t NEAR ?", ("text",), DataError, "is not a vector of numbers"),
    ("SEARCH t NEAR ?", (b"123",), DataError, "3 bytes"),
    ("SEARCH t NEAR ?", (None,), DataError, "NEAR of t is NULL"),
    ("SEARCH t MATCH ?", (None,), DataError, "MATCH of t is NULL"),
    ("SEARCH t MATCH ?", (5,), InterfaceError, "MATCH takes a str, not int"),
    ("SEARCH t MATCH '\"open'", (), ProgrammingError, "position"),
    ("SEARCH t NEAR ? K 0", ([1, 0],), ProgrammingError, "K is 0; expected a positive integer"),
    ("SEARCH t NEAR ? K ?", ([1, 0], -3), ProgrammingError, "K is -3"),
    ("SEARCH t NEAR ? K ?", ([1, 0], "many"), ProgrammingError, "K is 'many'"),
    ("SEARCH t NEAR ? K ?", ([1, 0], None), ProgrammingError, "K is None"),
    ("SEARCH t NEAR ? OFFSET ?", ([1, 0], -1), ProgrammingError, "OFFSET is -1"),
    ("SEARCH t NEAR ? RECALL ?", ([1, 0], 1.5), ProgrammingError, "RECALL is 1.5"),
    ("SEARCH t NEAR ? PROBES ?", ([1, 0], 0), ProgrammingError, "PROBES is 0"),
    ("SEARCH t NEAR ? MIN SCORE ?", ([1, 0], "x"), ProgrammingError, "MIN SCORE is 'x'"),
    ("SEARCH t NEAR ? FUSION bm25_only", ([1, 0],), ProgrammingError, "needs MATCH"),
    ("SEARCH t NEAR ? MATCH 'x' FUSION rrf (z = 1)", ([1, 0],), ProgrammingError, "option 'z'"),
    ("SEARCH t NEAR ? MATCH 'x' FUSION rrf (k = 'a')", ([1, 0],), ProgrammingError, "a number"),
    ("SEARCH t NEAR ? MATCH 'x' FUSION best", ([1, 0],), ProgrammingError, ""),
    ("SEARCH t NEAR ? WHERE score > 1", ([1, 0],), ProgrammingError, "no such column: score"),
    ("SEARCH t NEAR ? WHERE v = 1", ([1, 0],), ProgrammingError, "VECTOR column"),
    ("SEARCH t NEAR ? WHERE nope = 1", ([1, 0],), ProgrammingError, "no such column: nope"),
    ("SEARCH t NEAR ? RETURNING nope", ([1, 0],), ProgrammingError, "no such column: nope"),
    ("SEARCH t NEAR ? RETURNING energy", ([1, 0],), NotSupportedError, "energy"),
    ("SEARCH t NEAR ? RETURNING count(*)", ([1, 0],), ProgrammingError, "aggregate"),
    ("SEARCH t NEAR ? SCORE splat", ([1, 0],), NotSupportedError, "splat"),
    ("SEARCH t FOR 'x' MATCH 'y'", (), ProgrammingError, "FOR excludes"),
    ("SEARCH t NEAR ? AS OF 300", ([1, 0],), ProgrammingError, "no such commit yet"),
    ("SEARCH t NEAR ? TEMPERATURE 0.2", ([1, 0],), NotSupportedError, "TEMPERATURE"),
    ("SEARCH t NEAR ? DIVERSITY 1.5", ([1, 0],), ProgrammingError, "DIVERSITY is 1.5"),
    ("SEARCH t NEAR ? DECAY HALF LIFE 3 DAYS ON body", ([1, 0],), ProgrammingError, "no TIMESTAMP"),
    ("SEARCH t", (), ProgrammingError, ""),
]  # fmt: skip


@pytest.mark.parametrize(("statement", "parameters", "error", "message"), REFUSED)
def test_bad_searches_are_refused_and_the_database_stays_usable(
    run: Run, statement: str, parameters: tuple[Any, ...], error: type[Exception], message: str
) -> None:
    run("CREATE TABLE t (id TEXT PRIMARY KEY, body TEXT FULLTEXT, v VECTOR(2))")
    run("CREATE TABLE two (a VECTOR(2), b VECTOR(2))")
    run("INSERT INTO t VALUES ('a', 'x', [1, 0])")

    with pytest.raises(error) as caught:
        run(statement, parameters)

    assert message in str(caught.value)
    assert isinstance(caught.value, DatabaseError | InterfaceError)
    assert run("SEARCH t NEAR [1, 0] RETURNING id") == [("a",)]


def test_a_request_needs_no_parser(cosine: tuple[Database, Model]) -> None:
    database, model = cosine
    query = query_vector(2)

    with database.reading() as view:
        hits = run_search(view, SearchRequest("notes", near=query, k=5))
        names, sources = returned_columns(view.collection("notes").schema, None)
        rows = hits.rows(sources)
        ids = hits.ids

    assert names == ["id", "body", "topic", "n", "score"]
    assert hits.rowids.tolist() == [hit[0] for hit in model.vector_side(query)[:5]]
    assert [row[0] for row in rows] == ids.tolist()
    assert [row[4] for row in rows] == hits.scores.tolist()
    with pytest.raises(ProgrammingError, match="unknown clause"):
        SearchRequest("notes", near=query, frobnicate=1)


def test_explain_tells_what_a_search_does(run: Run) -> None:
    run("CREATE TABLE t (id TEXT PRIMARY KEY, body TEXT FULLTEXT, v VECTOR(2) METRIC l2)")
    run("INSERT INTO t VALUES ('a', 'x', [1, 0]), ('b', 'y', [0, 1])")

    plan = run("EXPLAIN SEARCH t NEAR ? MATCH ? WHERE id > 'a' RECALL 0.9")
    analyzed = run("EXPLAIN ANALYZE SEARCH t NEAR ? MATCH ? WHERE id > 'a'", ([1, 0], "y"))

    assert plan == [
        (1, 0, "SEARCH t"),
        (2, 1, "NEAR v: exact scan of 2 rows, l2 of f32, backend numpy"),
        (3, 2, "an exact scan satisfies every RECALL and PROBES"),
        (4, 1, "MATCH body: BM25 over inverted lists"),
        (5, 1, "FILTER t BEFORE RANKING"),
        (6, 1, "FUSION rrf of two sides"),
    ]
    details = [row[2] for row in analyzed]
    assert any(detail.startswith("ANALYZE: 1 rows in") for detail in details)
    assert {"1 of 2 rows pass WHERE", "terms: y", "depth 100 a side"} <= set(details)
