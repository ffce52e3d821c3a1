"""DECAY and DIVERSITY against their formulas, with fusion, filters, MIN SCORE and the clock."""

from __future__ import annotations

import datetime
import functools
from typing import Any

import numpy as np
import pytest

import m2mdb
from m2mdb.index.database import Database
from m2mdb.pager.errors import DatabaseError, InterfaceError, ProgrammingError
from m2mdb.query.executor import execute, execute_many
from tests.query.conftest import opened

DAY = 86_400
NOW = 1_790_000_000
DIMENSION = 6
WORDS = "dark light mode page tree log".split()


@functools.cache
def built(metric: str = "cosine") -> tuple[Database, dict[int, tuple[Any, ...]]]:
    """Rows in a segment and the delta, some without time, some without vector, some deleted."""
    rng = np.random.default_rng(3)
    database = opened()
    execute(
        database,
        "CREATE COLLECTION notes (id INTEGER PRIMARY KEY, body TEXT FULLTEXT, created TIMESTAMP, "
        f"v VECTOR({DIMENSION}) METRIC {metric})",
    )
    rows: list[tuple[Any, ...]] = []
    for number in range(260):
        body = " ".join(rng.choice(WORDS, size=1 + number % 4))
        when = datetime.datetime.fromtimestamp(NOW - float(rng.uniform(-5, 90)) * DAY, datetime.UTC)
        vector = rng.standard_normal(DIMENSION).astype(np.float32)
        rows.append(
            (
                number,
                body,
                None if number % 9 == 0 else when,
                None if number % 7 == 0 else rows[-1][3] if number % 5 == 3 else vector,
            )
        )
    insert = "INSERT INTO notes VALUES (?, ?, ?, ?)"
    execute_many(database, insert, rows[:200])
    execute_many(database, insert, rows[200:])
    execute(database, "DELETE FROM notes WHERE id % 11 = 4")
    return database, {row[0]: row for row in rows if row[0] % 11 != 4}


@pytest.fixture(scope="module", params=["cosine", "l2", "ip"])
def notes(request: pytest.FixtureRequest) -> tuple[Database, dict[int, tuple[Any, ...]], str]:
    return (*built(request.param), request.param)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that statements see."""
    time = [float(NOW)]
    monkeypatch.setattr("m2mdb.pager.memory_vfs.MemoryVfs.now", lambda vfs: time[0])
    monkeypatch.setattr("m2mdb.pager.os_vfs.OsVfs.now", lambda vfs: time[0])
    return time


def query() -> np.ndarray:
    return np.random.default_rng(1).standard_normal(DIMENSION).astype(np.float32)


def factor(row: tuple[Any, ...], half_life: float, now: float = NOW) -> float:
    age = 0.0 if row[2] is None else max(0.0, now - row[2].timestamp())
    return float(2.0 ** (-age / half_life))


SIDES = {
    "NEAR ?": 1,
    "MATCH 'dark tree'": 0,
    "NEAR ? MATCH 'dark tree'": 1,
    "NEAR ? MATCH 'dark tree' FUSION weighted": 1,
    "NEAR ? MATCH 'dark tree' WHERE id % 2 = 0": 1,
}


@pytest.mark.parametrize("sides", SIDES)
def test_scores_halve_with_each_half_life(
    notes: tuple[Database, dict[int, tuple[Any, ...]], str], sides: str
) -> None:
    database, rows, _ = notes
    parameters = (query(),) * SIDES[sides]
    plain = execute(database, f"SEARCH notes {sides} K 500 RETURNING id, score", parameters).rows

    aged = execute(
        database,
        f"SEARCH notes {sides} DECAY HALF LIFE 30 DAYS ON created K 500 RETURNING id, score",
        parameters,
    ).rows

    expected = []
    for number, score in plain:
        half = factor(rows[number], 30 * DAY)
        expected.append((number, score * half if score >= 0 else score / half))
    expected.sort(key=lambda row: (-row[1], row[0]))
    assert len(aged) == len(plain)
    assert [row[1] for row in aged] == pytest.approx([row[1] for row in expected], rel=1e-9)
    assert {row[0] for row in aged} == {row[0] for row in expected}
    assert [row[0] for row in aged[:10]] == [row[0] for row in expected[:10]]
    floor = aged[len(aged) // 3][1]
    kept = execute(
        database,
        f"SEARCH notes {sides} DECAY HALF LIFE 30 DAYS ON created MIN SCORE ? K 500 "
        "RETURNING id, score",
        (*parameters, floor),
    ).rows
    assert kept == [row for row in aged if row[1] >= floor]


@pytest.mark.parametrize(
    ("text", "seconds"), [("2 WEEKS", 14 * DAY), ("12 hours", DAY / 2), ("? DAYS", 1.5 * DAY)]
)
def test_units_of_half_lives(text: str, seconds: float) -> None:
    database, rows = built()
    parameters = (1.5,) if "?" in text else ()

    found = execute(
        database,
        f"SEARCH notes MATCH 'dark' DECAY HALF LIFE {text} ON created RETURNING id, score, bm25",
        parameters,
    ).rows

    assert found
    for number, score, bm25 in found:
        assert score == pytest.approx(np.float32(bm25) * factor(rows[number], seconds), rel=1e-6)


def test_the_clock_is_that_of_the_files_system(clock: list[float]) -> None:
    database, rows = built()
    statement = (
        "SEARCH notes MATCH 'dark' DECAY HALF LIFE 1 DAY ON created RETURNING id, score, bm25"
    )
    clock[0] = NOW + 1000.0 * DAY

    for number, score, bm25 in execute(database, statement).rows:
        aged = bm25 * factor(rows[number], DAY, clock[0])
        assert score == pytest.approx(aged, rel=1e-5, abs=1e-300)


def reference(
    candidates: list[tuple[int, float]], rows: dict[int, tuple[Any, ...]], x: float, metric: str
) -> list[int]:
    """Maximal marginal relevance, straight from the formula."""
    scores = [score for _, score in candidates]
    low, spread = min(scores), max(scores) - min(scores)
    left = {number: ((score - low) / spread if spread else 1.0) for number, score in candidates}

    def likeness(one: int, other: int) -> float:
        a, b = rows[one][3], rows[other][3]
        if a is None or b is None:
            return 0.0
        a, b = a.astype(float), b.astype(float)
        if metric == "l2":
            return float(1 / (1 + np.linalg.norm(a - b)))
        return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))

    chosen: list[int] = []
    near = dict.fromkeys(left, 0.0)
    while left:
        best, most = -1, -np.inf
        for number, relevance in left.items():
            worth = (1 - x) * relevance - x * near[number]
            if worth > most + 1e-12:
                best, most = number, worth
        for number in left:
            alike = likeness(number, best)
            near[number] = max(near[number], alike) if chosen else alike
        chosen.append(best)
        del left[best]
    return chosen


@pytest.mark.parametrize("x", [0.2, 0.5, 0.9, 1.0])
def test_diversity_is_maximal_marginal_relevance(
    notes: tuple[Database, dict[int, tuple[Any, ...]], str], x: float
) -> None:
    database, rows, metric = notes
    clauses = "NEAR ? MATCH 'dark tree' WHERE id < 120"
    statement = f"SEARCH notes {clauses} K {{}} {{}} RETURNING id, score"
    every = execute(database, statement.format(500, ""), (query(),)).rows
    assert len(every) > 50

    found = execute(database, statement.format(15, f"DIVERSITY {x}"), (query(),)).rows

    scores = dict(every)
    assert [row[0] for row in found] == reference(every, rows, x, metric)[:15]
    assert all(score == scores[number] for number, score in found)
    paged = execute(database, statement.format(5, f"OFFSET 4 DIVERSITY {x}"), (query(),)).rows
    assert paged == found[4:9]
    floor = every[len(every) // 2][1]
    above = [row for row in every if row[1] >= floor]
    cut = execute(
        database, statement.format(15, f"MIN SCORE {floor!r} DIVERSITY {x}"), (query(),)
    ).rows
    assert [row[0] for row in cut] == reference(above, rows, x, metric)[:15]


def test_no_diversity_changes_nothing(
    notes: tuple[Database, dict[int, tuple[Any, ...]], str],
) -> None:
    database, _, _ = notes
    statement = "SEARCH notes NEAR ? MATCH 'log' RETURNING id, score, distance, bm25, rank"

    plain = execute(database, statement, (query(),)).rows

    diverse = statement.replace("RETURNING", "DIVERSITY 0 RETURNING")
    assert execute(database, diverse, (query(),)).rows == plain


def test_explain_tells_both_sides_and_their_candidates() -> None:
    database, _ = built()
    statement = (
        "SEARCH notes NEAR ? MATCH 'log' DIVERSITY 0.3 DECAY HALF LIFE 2 DAYS ON created K 30"
    )

    told = [row[2] for row in execute(database, "EXPLAIN ANALYZE " + statement, (query(),)).rows]

    text = "\n".join(told)
    assert "DECAY HALF LIFE ON created" in text
    assert "DIVERSITY OF v AMONG THE CANDIDATES" in text
    assert "depth 120 a side" in text
    (line,) = [line for line in told if line.startswith("candidates: ")]
    near, matched = [int(word) for word in line.split() if word.isdigit()][:2]
    assert near == 120
    assert 0 < matched <= 120


REFUSED = [
    ("NEAR ? DIVERSITY -0.1", "DIVERSITY is -0.1"),
    ("NEAR ? DIVERSITY 2", "DIVERSITY is 2"),
    ("NEAR ? DECAY HALF LIFE 0 DAYS ON created", "HALF LIFE is 0"),
    ("NEAR ? DECAY HALF LIFE -1 DAYS ON created", "HALF LIFE is -"),
    ("NEAR ? DECAY HALF LIFE 3 MONTHS ON created", "HALF LIFE in MONTHS"),
    ("NEAR ? DECAY HALF LIFE 3 DAYS ON body", "TEXT is no TIMESTAMP"),
    ("NEAR ? DECAY HALF LIFE 3 DAYS ON nothing", "no such column: nothing"),
]


@pytest.mark.parametrize(("clauses", "message"), REFUSED)
def test_bad_clauses_are_refused(clauses: str, message: str) -> None:
    database, _ = built()

    with pytest.raises(DatabaseError, match=message):
        execute(database, f"SEARCH notes {clauses}", (query(),))

    assert execute(database, "SEARCH notes MATCH 'dark' K 1 RETURNING id").rows


def test_collections_search_takes_decay_and_diversity(tmp_path: Any) -> None:
    _, rows = built()
    with m2mdb.connect(str(tmp_path / "notes.m2m")) as con:
        con.execute(
            "CREATE COLLECTION notes (id INTEGER PRIMARY KEY, body TEXT FULLTEXT, "
            f"created TIMESTAMP, v VECTOR({DIMENSION}))"
        )
        con.executemany("INSERT INTO notes VALUES (?, ?, ?, ?)", list(rows.values()))
        notes = con.collection("notes")
        for half_life in (30, 30.0, datetime.timedelta(days=30)):
            hits = notes.search(near=query(), decay={"created": half_life}, diversity=0.4, k=8)
            expected = con.execute(
                "SEARCH notes NEAR ? DECAY HALF LIFE 30 DAYS ON created DIVERSITY 0.4 K 8 "
                "RETURNING id, score",
                (query(),),
            ).fetchall()
            assert list(zip(hits.ids.tolist(), hits.scores.tolist(), strict=True)) == expected
        alone = notes.search(match="dark", diversity=0.5)
        assert alone.ids.tolist() != notes.search(match="dark").ids.tolist()
        wrongs: list[Any] = [{"created": 0}, {"created": True}, {}, {"body": 3}, {"created": "x"}]
        for wrong in wrongs:
            with pytest.raises(ProgrammingError):
                notes.search(near=query(), decay=wrong)
        with pytest.raises(InterfaceError, match="wanted is a dict"):
            notes.search(near=query(), decay=30)  # type: ignore[arg-type]
        with pytest.raises(ProgrammingError, match="DIVERSITY"):
            notes.search(near=query(), diversity=1.1)


def test_diversity_without_near_needs_one_vector_column() -> None:
    database = opened()
    execute(database, "CREATE TABLE two (body TEXT FULLTEXT, a VECTOR(2), b VECTOR(2))")
    execute(database, "INSERT INTO two VALUES ('x', [1, 0], [0, 1])")

    with pytest.raises(ProgrammingError, match="exactly one VECTOR column; two has a, b"):
        execute(database, "SEARCH two MATCH 'x' DIVERSITY 0.5")
