"""Calibration: the recall that is asked is the recall that is reached."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from m2mdb.compute.hrm2 import calibration
from m2mdb.compute.hrm2.calibration import KS, RECALLS, calibrate, measure, stop_for
from m2mdb.compute.hrm2.searcher import Searcher
from tests.compute.hrm2.conftest import SEED, coded, unit

ASKED = (0.8, 0.9, 0.95, 0.99)
TOLERANCE = 0.01


def low_dimensional(count: int, dimension: int, seed: int) -> np.ndarray:
    """Clusters of uneven weight along a few directions of their own, and some noise."""
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((60, dimension))
    labels = (rng.random(count) ** 2 * len(centers)).astype(int)
    axes = rng.standard_normal((len(centers), 6, dimension))
    along = rng.standard_normal((count, 6))
    rows: np.ndarray = centers[labels] + 0.4 * np.einsum("ij,ijk->ik", along, axes[labels])
    return (rows + 0.2 * rng.standard_normal(rows.shape)).astype(np.float32)


def reached(
    searcher: Searcher, rows: np.ndarray, queries: np.ndarray, table: np.ndarray
) -> dict[tuple[int, float], float]:
    """What is reached of each recall asked, for each k."""
    best = calibration.exact(rows, queries, searcher.metric, KS[-1])
    return {
        (k, asked): measure(searcher, rows, queries, best[:, k - 1], stop_for(table, k, asked))
        for k in KS
        for asked in ASKED
    }


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
def test_queries_of_both_kinds_reach_the_recall_that_is_asked(metric: str) -> None:
    built = coded(low_dimensional(9000, 40, 3), metric, 96)
    searcher = Searcher(built.lists, metric, SEED)
    table = calibrate(searcher, built.rows, 1)
    assert (np.diff(table, axis=1) >= 0).all(), "C1"
    near, far = calibration.queries_like(searcher, built.rows, 77)
    for queries in (near, far):
        for (k, asked), got in reached(searcher, built.rows, queries, table).items():
            # so many queries tell a mean only so well
            error = 2 * np.sqrt(asked * (1 - asked) / (len(queries) * min(k, 10)))
            assert got >= asked - TOLERANCE - error, (k, asked)


def test_the_table_depends_on_the_seed_alone() -> None:
    """C2"""
    built = coded(low_dimensional(3000, 20, 4), "l2", 32)
    tables = [calibrate(Searcher(built.lists, "l2", SEED), built.rows, 9) for _ in range(2)]
    assert tables[0].tobytes() == tables[1].tobytes()


def test_a_lower_recall_costs_less() -> None:
    built = coded(low_dimensional(9000, 40, 3), "l2", 96)
    searcher = Searcher(built.lists, "l2", SEED)
    table = calibrate(searcher, built.rows, 1)
    queries = calibration.queries_like(searcher, built.rows, 5)[1]
    for k in KS:
        codes = [
            sum(
                searcher.search(query, stop_for(table, k, asked), wanted=2 * k, epsilon=1.3).codes
                for query in queries
            )
            for asked in (0.8, 0.95, 0.99)
        ]
        assert codes[0] <= codes[1] < codes[2], k


def test_a_stop_lies_between_those_of_the_points_around_it() -> None:
    """C1"""
    table = np.array([[1, 2, 3, 4, 5, 6], [10, 20, 30, 40, 50, 60], [4, 5, 6, 7, 8, 9]], np.float32)
    for k, row in ((1, 0), (10, 1), (100, 2)):
        for recall, column in ((0.1, 0), (0.5, 0), (0.8, 1), (0.85, 2), (0.95, 3), (0.999, 5)):
            stop = stop_for(table, k, recall)
            assert stop.k == k
            assert stop.patience == round(table[row, column] + 0.5)
    assert stop_for(table, 3, 0.95).patience in range(20, 25)
    assert stop_for(table, 400, 0.95).patience == 14
    assert [stop_for(table, k, 0.9).factor for k in (1, 10, 100, 1000)] == [1.5, 1.5, 1.0, 1.0]


def test_a_trace_tells_what_shorter_searches_find() -> None:
    """K5: the table is read off one long search of each query."""
    built = coded(low_dimensional(6000, 32, 6), "l2", 64)
    searcher = Searcher(built.lists, "l2", SEED)
    queries = calibration.queries_like(searcher, built.rows, 2)[1]
    for k in KS:
        edges = calibration.exact(built.rows, queries, "l2", k)[:, -1]
        told = calibration._recalls(searcher, built.rows, queries, edges, k)
        for level in (0, 5, 12):
            stop = stop_for(np.zeros((len(KS), len(RECALLS)), np.float32), k, 0.9)
            stop = stop._replace(patience=int(calibration.LEVELS[level]))
            got = measure(searcher, built.rows, queries, edges, stop)
            assert abs(got - told[level]) < 0.003, (k, level)


def test_known_queries_take_the_place_of_made_up_ones() -> None:
    built = coded(low_dimensional(6000, 32, 6), "l2", 64)
    searcher = Searcher(built.lists, "l2", SEED)
    stored = np.ascontiguousarray(built.rows[::20])
    easy = calibrate(searcher, built.rows, 1, stored)
    assert (easy <= calibrate(searcher, built.rows, 1)).all()
    assert easy.sum() < calibrate(searcher, built.rows, 1).sum()
    got = reached(searcher, built.rows, built.rows[7::20], easy)
    assert all(value >= asked - 0.03 for (_, asked), value in got.items())


@pytest.mark.slow
def test_real_sentences_reach_the_recall_that_is_asked() -> None:
    """Sentences that search short definitions, and half of them as known queries."""
    folder = Path(os.environ.get("M2M_DATA") or "/nowhere")
    if not (folder / "vectors.f16.npy").exists():
        pytest.skip("needs the wordnet vectors in $M2M_DATA")
    rows = unit(np.load(folder / "vectors.f16.npy").astype(np.float32))
    queries = np.load(folder / "query_vectors.f32.npy")
    built = coded(rows, "cosine", 1000)
    searcher = Searcher(built.lists, "cosine", SEED)
    for known in (None, queries[1::8]):
        table = calibrate(searcher, rows, 1, known)
        got = reached(searcher, rows, queries[::10], table)
        assert all(value >= asked - TOLERANCE for (_, asked), value in got.items()), got
