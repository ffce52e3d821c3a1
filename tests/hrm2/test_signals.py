"""Signals: confidence, margin and qerr of a query, against their formulas by NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import m2mdb
from m2mdb.compute.hrm2.rotation import matrix
from m2mdb.index.routing import routing
from m2mdb.pager.errors import DataError
from tests.hrm2.conftest import ROWS, clustered, filled, like_stored, unlike_stored

THERE = clustered(ROWS)


def centroids(con: m2mdb.Connection) -> list[tuple[np.ndarray, float]]:
    """Centroids of each segment as vectors, and the mean squared distance of its rows."""
    out = []
    with con.engine().reading() as view:
        collection = view.collection("notes")
        column = collection.schema.columns[collection.schema.column("v")]
        for segment in collection.segments:
            found = routing(segment, column)
            if found is not None:
                back = matrix(found.width, found.seed)[: column.dimension]
                out.append((found.centers @ back.T, found.error))
    return out


def naive(sets: list[tuple[np.ndarray, float]], query: np.ndarray, metric: str) -> list[float]:
    """qerr and margin, by the definition."""
    best = [np.inf, 0.0]
    for centers, error in sets:
        if metric == "cosine":
            lengths = np.linalg.norm(centers, axis=1) * np.linalg.norm(query)
            gaps = np.sort(1 - centers @ query / lengths)
        else:
            gaps = np.sort(((centers - query) ** 2).sum(axis=1) / error)
        if gaps[0] < best[0]:
            best = [gaps[0], gaps[1] - gaps[0]]
    return best


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
@pytest.mark.usefixtures("small")
def test_signals_are_what_their_formulas_say(tmp_path: Path, metric: str) -> None:
    con = filled(tmp_path / "m.m2m", THERE, f"METRIC {metric}")
    numbers = np.arange(ROWS, ROWS + 700)
    con.collection("notes").add({"id": numbers, "n": numbers, "v": clustered(700, seed=5)})
    sets = centroids(con)
    assert len(sets) == 2
    parts = set()
    for query in (*like_stored(THERE, 10), *unlike_stored(THERE, 10)):
        hits = con.collection("notes").search(near=query, k=3, signals=True)
        assert hits.signals is not None
        qerr, margin = naive(sets, query, metric)
        assert hits.signals.qerr == pytest.approx(qerr, rel=1e-3, abs=1e-5)
        assert hits.signals.margin == pytest.approx(margin, rel=2e-2, abs=2e-4)
        assert hits.signals.confidence == pytest.approx(1 / (1 + hits.signals.qerr))
        parts.add(hits.signals.part)
        listed = con.execute(
            "SELECT count(*) FROM m2m_clusters WHERE part = ? AND list = ?",
            (hits.signals.part, hits.signals.list),
        ).fetchone()
        assert listed == (1,)
    assert len(parts) >= 1
    con.close()


def test_queries_off_the_stored_rows_have_less_confidence(con: m2mdb.Connection) -> None:
    def mean(queries: np.ndarray) -> float:
        notes = con.collection("notes")
        found = [notes.search(near=q, k=1, signals=True).signals for q in queries]
        return float(np.mean([each.confidence for each in found if each is not None]))

    near, far = mean(like_stored(THERE, 20)), mean(unlike_stored(THERE, 20))
    assert 0 < far < near <= 1


def test_they_are_computed_when_asked_and_not_without_lists(
    con: m2mdb.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = con.collection("notes")
    with monkeypatch.context() as patch:
        patch.setattr("m2mdb.index.signals.signals", None)
        assert notes.search(near=THERE[0], k=1).signals is None
    hits = notes.search(near=THERE[0], k=2, signals=True)
    assert hits[:1].signals is None
    con.execute("DROP INDEX by_v")
    assert notes.search(near=THERE[0], k=1, signals=True).signals is None
    with pytest.raises(DataError):
        notes.search(near=THERE[0][:3], k=1, signals=True)
    assert notes.search(near=THERE[0], k=1, signals=True).ids.tolist() == [0]


@pytest.mark.usefixtures("small")
def test_a_vector_that_lists_are_not_searched_for_has_none(tmp_path: Path) -> None:
    con = filled(tmp_path / "m.m2m", THERE, "METRIC l2")
    query = np.full(THERE.shape[1], 1e14, np.float32)
    assert con.collection("notes").search(near=query, k=1, signals=True).signals is None
    con.close()


def test_explain_analyze_has_a_line_of_them(con: m2mdb.Connection) -> None:
    rows = con.execute("EXPLAIN ANALYZE SEARCH notes NEAR ? K 5", (THERE[3],)).fetchall()
    (line,) = [row[2] for row in rows if "signals" in row[2]]
    found = con.collection("notes").search(near=THERE[3], k=5, signals=True).signals
    assert found is not None
    assert f"confidence {found.confidence:.3f}" in line
    assert f"(segment 1, list {found.list})" in line
    rows = con.execute("EXPLAIN SEARCH notes NEAR ? K 5", (THERE[3],)).fetchall()
    assert not any("signals" in row[2] for row in rows)
