"""Recall through `Collection.search`: RECALL is a promise, EXACT is exact."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import m2mdb
from m2mdb.compute.hrm2 import calibration
from tests.hrm2.conftest import (
    ROWS,
    clustered,
    filled,
    found,
    like_stored,
    recall,
    unlike_stored,
)

COUNT, WIDTH = 20_000, 32
QUERIES = 120


def test_a_batch_probes_as_many_lists_as_it_is_told(con: m2mdb.Connection) -> None:
    """As `search` does, with a filter and without; and refuses what it refuses."""
    queries, notes = like_stored(clustered(ROWS), 20), con.collection("notes")
    for where in (None, "n < 300"):
        for probes in (1, 3, 10**30):
            ids, scores = notes.search_batch(near=queries, k=5, probes=probes, where=where)
            for at, query in enumerate(queries):
                hits = notes.search(near=query, k=5, probes=probes, where=where)
                assert ids[at].tolist() == hits.ids.tolist()
                assert scores[at].tolist() == hits.scores.tolist()
    one, all_of = (notes.search_batch(near=queries, k=5, probes=n)[0] for n in (1, 10**30))
    assert (one != all_of).any()
    wrong: Any
    for wrong in (0, -1, 1.5, "3", True):
        with pytest.raises(m2mdb.ProgrammingError, match="PROBES"):
            notes.search_batch(near=queries, probes=wrong)


@pytest.fixture(scope="module")
def large(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[m2mdb.Connection, np.ndarray]]:
    rows = clustered(COUNT, WIDTH)
    connection = filled(tmp_path_factory.mktemp("recall") / "m.m2m", rows)
    yield connection, rows
    connection.close()


@pytest.mark.parametrize("asked", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("k", [1, 10, 100])
def test_a_search_finds_the_recall_that_is_asked(
    large: tuple[m2mdb.Connection, np.ndarray], k: int, asked: float
) -> None:
    con, rows = large
    count = QUERIES if k < 100 else 30
    for queries in (like_stored(rows, count), unlike_stored(rows, count)):
        noise = 2 * (asked * (1 - asked) / QUERIES) ** 0.5 if k == 1 else 0.0
        assert recall(con, queries, k, recall=asked) >= asked - 0.02 - noise


def test_without_a_word_the_recall_is_095(large: tuple[m2mdb.Connection, np.ndarray]) -> None:
    con, rows = large
    for query in like_stored(rows, 20):
        assert found(con, query) == found(con, query, recall=0.95)


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.usefixtures("small")
def test_every_dtype_and_metric(tmp_path: Path, dtype: str, metric: str) -> None:
    rows = clustered(1500)
    stored = np.rint(rows * 30).clip(-127, 127) if dtype == "int8" else rows
    stored = stored.astype(dtype)
    con = filled(tmp_path / "m.m2m", stored, f"METRIC {metric}")
    queries = like_stored(stored, 30)

    assert recall(con, queries, 10, recall=0.99) >= 0.97
    wide = stored.astype(np.float64)
    for query in queries[:10]:
        products = wide @ query.astype(np.float64)
        if metric == "cosine":
            products /= np.linalg.norm(wide, axis=1)
        keys = -((wide - query) ** 2).sum(axis=1) if metric == "l2" else products
        best = np.argsort(-keys, kind="stable")[:10]
        assert set(found(con, query, k=10, exact=True)) == set(best.tolist())
        assert set(found(con, query, k=10, recall=1.0)) == set(best.tolist())
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    con.close()


def test_scores_are_those_of_an_exact_search(con: m2mdb.Connection) -> None:
    for query in like_stored(clustered(2000), 20):
        hits = con.collection("notes").search(near=query, k=20, returning="id, score, distance")
        exact = con.collection("notes").search(
            near=query, k=2000, exact=True, returning="id, score, distance"
        )
        known = {row["id"]: (row["score"], row["distance"]) for row in exact}
        assert all(known[row["id"]] == (row["score"], row["distance"]) for row in hits)
        assert hits.scores.tolist() == sorted(hits.scores.tolist(), reverse=True)


def test_more_probes_find_more(con: m2mdb.Connection) -> None:
    queries = unlike_stored(clustered(2000), 40)
    recalls = [recall(con, queries, 10, probes=probes) for probes in (1, 4, 16, 10**30)]
    assert recalls == sorted(recalls)
    assert recalls[0] < 0.9 < 0.98 < recalls[-1]


def test_the_same_file_gives_the_same_answer(con: m2mdb.Connection, tmp_path: Path) -> None:
    queries = unlike_stored(clustered(2000), 30)
    before = [found(con, query, k=20, recall=0.8) for query in queries]
    assert before == [found(con, query, k=20, recall=0.8) for query in queries]
    batch, _ = con.collection("notes").search_batch(queries, k=20, recall=0.8)
    assert before == batch.tolist()

    again = m2mdb.connect(str(tmp_path / "m.m2m"))
    assert before == [found(again, query, k=20, recall=0.8) for query in queries]
    again.close()


def test_a_build_depends_on_the_rows_alone(tmp_path: Path, small: None) -> None:
    answers = []
    for name in ("a.m2m", "b.m2m"):
        con = filled(tmp_path / name, clustered(800))
        with con.engine().reading() as view:
            segment = view.collection("notes").segments[0]
            parts = [
                (name, segment.array(name, column).tobytes())
                for name, column in segment.names()
                if name.startswith("h.")
            ]
        answers.append(parts)
        con.close()
    assert len(answers[0]) == 17
    assert answers[0] == answers[1]


def test_every_way_to_search_uses_the_bounds_of_the_table(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By steps, in one compiled call, in a batch and after reopening: the same answer."""
    rows = clustered(4000)
    queries = unlike_stored(rows, 24)
    answers = {}
    for epsilon in (0.0, 2.5):
        monkeypatch.setattr(calibration, "EPSILONS", (epsilon,))
        path = tmp_path / f"{epsilon}.m2m"
        filled(path, rows).close()
        con = m2mdb.connect(str(path))
        with con.engine().reading() as view:
            collection = view.collection("notes")
            lists = collection.segments[0].lists(collection.schema.columns[2])
            assert lists is not None
            assert (lists.table.epsilon == np.float32(epsilon)).all()
        turns = [[found(con, query, k=10, recall=0.8) for query in queries] for _ in range(4)]
        together = con.collection("notes").search_batch(near=queries, k=10, recall=0.8)
        turns.append(together[0].tolist())
        assert all(turn == turns[0] for turn in turns)
        answers[epsilon] = turns[0]
        con.close()
    assert answers[0.0] != answers[2.5], "bounds without slack lose rows"
