"""FUSION adaptive: its formula, and that both sides measure every candidate."""

from __future__ import annotations

import numpy as np
import pytest

from m2mdb.pager.errors import ProgrammingError
from m2mdb.query.executor import execute, execute_many
from m2mdb.query.fusion import Side, fuse, vector_weight
from tests.query.conftest import opened

WORDS = "dark light mode page tree log search vector text row".split()


def side(rowids: list[int], scores: list[float]) -> Side:
    return Side(np.array(rowids, np.int64), np.array(scores, np.float32))


def test_the_weight_of_vectors_falls_with_the_spread_of_the_text_side() -> None:
    assert vector_weight(side([1, 2, 3], [4, 4, 4])) == 1.0
    assert vector_weight(side([1, 2, 3], [4, 0.4, 0.4])) == 0.3
    assert vector_weight(side([1, 2], [4, 3])) == pytest.approx(0.15 / 0.26)
    assert vector_weight(side([], [])) == vector_weight(side([7], [2.0])) == 0.3


def test_adaptive_adds_what_both_sides_measured() -> None:
    vector = side([1, 2, 3], [0.9, 0.5, 0.1])
    text = side([3, 2], [4.0, 3.0])

    fused = fuse("adaptive", vector, text)

    weight = vector_weight(text)
    expected = {1: weight, 2: weight * 0.5 + 0.75, 3: 1.0}
    order = sorted(expected, key=lambda row: (-expected[row], row))
    assert fused.rowids.tolist() == order
    assert fused.scores == pytest.approx([expected[row] for row in order])
    only = fuse("adaptive", vector, text, {"vector": 0.0})
    assert only.rowids.tolist() == [3, 2, 1]
    with pytest.raises(ProgrammingError, match="unknown option 'k'"):
        fuse("adaptive", vector, text, {"k": 60.0})


def test_each_side_measures_what_the_other_has_found() -> None:
    rng = np.random.default_rng(4)
    database = opened()
    execute(
        database,
        "CREATE COLLECTION notes (id INTEGER PRIMARY KEY, body TEXT FULLTEXT, v VECTOR(8))",
    )
    rows = []
    for number in range(900):
        vector = None if number % 8 == 7 else rng.standard_normal(8).astype(np.float32)
        rows.append((number, " ".join(rng.choice(WORDS, size=2 + number % 4)), vector))
    insert = "INSERT INTO notes VALUES (?, ?, ?)"
    execute_many(database, insert, rows[:700])
    execute_many(database, insert, rows[700:])
    execute(database, "DELETE FROM notes WHERE id % 10 = 3")
    query = rng.standard_normal(8).astype(np.float32)
    condition = "WHERE id % 3 > 0"

    def ranked(clauses: str, k: int) -> dict[int, float]:
        found = execute(
            database,
            f"SEARCH notes {clauses} {condition} K {k} RETURNING id, score",
            (query,) if "?" in clauses else (),
        )
        return dict(found.rows)

    cosines, words = ranked("NEAR ? EXACT", 900), ranked("MATCH 'dark tree'", 900)
    candidates = {*list(cosines)[:100], *list(words)[:100]}
    seen = [cosines[row] for row in candidates if row in cosines]
    low, high = min(seen), max(seen)
    best = list(words.values())
    weight = vector_weight(side(list(words)[:100], best[:100]))
    expected = {
        row: words.get(row, 0.0) / best[0]
        + (weight * (cosines[row] - low) / (high - low) if row in cosines else 0.0)
        for row in candidates
    }
    order = sorted(expected, key=lambda row: (-expected[row], row))[:25]

    found = execute(
        database,
        f"SEARCH notes NEAR ? MATCH 'dark tree' {condition} FUSION adaptive K 25 EXACT "
        "RETURNING id, score, distance, bm25",
        (query,),
    ).rows

    assert [row[0] for row in found] == order
    for number, score, distance, bm25 in found:
        assert score == pytest.approx(expected[number], abs=1e-6)
        assert (bm25 or 0.0) == pytest.approx(words.get(number, 0.0))
        assert (distance is None) == (number not in cosines)
