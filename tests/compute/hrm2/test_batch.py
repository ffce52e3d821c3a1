"""Batches: every query finds what it finds alone, whatever stands beside it."""

from __future__ import annotations

import numpy as np
import pytest

from m2mdb.compute.hrm2 import batch
from m2mdb.compute.hrm2.reference import Stop
from m2mdb.compute.hrm2.searcher import Searcher
from tests.compute.hrm2.conftest import SEED, clustered, coded, unit

EPSILON = 1.3


def queries_for(rows: np.ndarray, count: int, metric: str) -> np.ndarray:
    """Rows, noise, and the same query again and again."""
    rng = np.random.default_rng(count)
    noise = rng.standard_normal((count, rows.shape[1])).astype(np.float32)
    queries = np.where(rng.random((count, 1)) < 0.5, rows[rng.integers(0, len(rows), count)], noise)
    queries[::7] = queries[0]
    return unit(queries) if metric == "cosine" else np.ascontiguousarray(queries, np.float32)


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
@pytest.mark.parametrize("count", [1, 15, 16, 200])
@pytest.mark.parametrize("kept", [1, 40_000, batch.KEPT_BYTES])
def test_a_query_finds_in_a_batch_what_it_finds_alone(
    metric: str, count: int, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BA1, BA2: in one go or in parts of a few queries, under a mask and without."""
    monkeypatch.setattr(batch, "KEPT_BYTES", kept)
    monkeypatch.setattr(batch, "LEAST", 16)
    built = coded(clustered(3000, 50), metric, 40)
    searcher = Searcher(built.lists, metric, SEED)
    queries = queries_for(built.rows, count, metric)
    hardness = np.array([0.1, 0.5, 1, 2, 40, 1, 2, 3, 5, 8, 13, 0, 0, 0.5, 1, 1, 1], np.float32)
    for mask in (None, np.random.default_rng(3).random(3000) < 0.2):
        stops = [Stop(10, 2, 5, 1 << 30, 1.5), Stop(3, 2, 13, 1 << 30, 1.5, hardness)]
        for stop in (*stops, stops[1]._replace(k=18, ahead=2, waits=True)):
            together = searcher.search_batch(queries, stop, wanted=18, epsilon=EPSILON, mask=mask)
            for at, query in enumerate(queries):
                alone = searcher.search(query, stop, wanted=18, epsilon=EPSILON, mask=mask)
                found = len(alone.ordinals)
                assert together.counts[at].tolist() == [
                    found, alone.probed, alone.codes, alone.reranked,
                ]  # fmt: skip
                assert np.array_equal(together.ordinals[at, :found], alone.ordinals)
                assert np.array_equal(together.nearness[at, :found], alone.nearness)
                assert (together.ordinals[at, found:] == -1).all()


def test_no_query_is_a_batch_too() -> None:
    built = coded(clustered(500, 20), "l2", 8)
    searcher = Searcher(built.lists, "l2", SEED)
    found = searcher.search_batch(
        np.empty((0, 20), np.float32), Stop(5, 2, 5, 1 << 30, 1.5), wanted=13, epsilon=EPSILON
    )
    assert found.ordinals.shape == (0, 13)
