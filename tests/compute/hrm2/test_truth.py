"""What an exact search finds: against float64, and the same with and without kernels."""

from __future__ import annotations

import numpy as np
import pytest

from m2mdb.compute.hrm2 import truth
from m2mdb.compute.hrm2.lists import never
from m2mdb.compute.hrm2.searcher import Searcher
from m2mdb.compute.loader import LOADER
from tests.compute.hrm2.conftest import SEED, clustered, coded, unit


@pytest.fixture(autouse=True)
def _loaded() -> None:
    assert LOADER.wait(), LOADER.error


def in_full(rows: np.ndarray, queries: np.ndarray, metric: str, k: int) -> np.ndarray:
    """The k best keys in float64."""
    wide, targets = rows.astype(np.float64), queries.astype(np.float64)
    if metric == "ip":
        keys = targets @ wide.T
    else:
        keys = -((targets[:, None] - wide[None]) ** 2).sum(axis=2)
    return -np.sort(-keys, axis=1)[:, :k]


@pytest.mark.parametrize("metric", ["l2", "ip"])
@pytest.mark.parametrize(("count", "k"), [(1, 1), (40, 40), (40, 100), (3000, 1), (3000, 101)])
def test_keys_are_those_of_float64(
    metric: str, count: int, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Less than their roundings; TH1: bit for bit without kernels."""
    rows, queries = clustered(max(2, count), 24)[:count] + 3, clustered(50, 24, seed=2) + 3
    found = truth.exact(rows, queries, metric, k)
    wanted = in_full(rows, queries, metric, k)
    assert found.shape == wanted.shape == (50, min(k, count))
    assert (found <= wanted + 1e-6 * np.abs(wanted)).all()
    assert np.allclose(found, wanted, rtol=1e-4, atol=2e-3)
    monkeypatch.setattr(LOADER, "module", None)
    assert np.array_equal(found, truth.exact(rows, queries, metric, k))


@pytest.mark.parametrize("order", ["nearest last", "nearest first", "equal"])
def test_the_order_of_rows_does_not_matter(order: str) -> None:
    rows, query = clustered(5000, 16), np.zeros((1, 16), np.float32)
    lengths = np.linalg.norm(rows, axis=1)
    rows = rows[np.argsort(-lengths if order == "nearest last" else lengths)]
    if order == "equal":
        rows = np.ones_like(rows)
    found = truth.exact(rows, query, "l2", 10)
    assert np.allclose(found, in_full(rows, query, "l2", 10), rtol=1e-4, atol=1e-4)


def test_parting_brings_the_smallest_to_the_front() -> None:
    from m2mdb.compute.hrm2 import best_kernels

    rng = np.random.default_rng(5)
    for _ in range(300):
        count = int(rng.integers(1, 60))
        k = int(rng.integers(1, count + 1))
        values = rng.integers(0, 1 + int(rng.integers(0, 40)), count).astype(np.float32)
        ordered = np.sort(values)
        assert best_kernels.part(values, count, k) == ordered[k - 1]
        assert np.array_equal(np.sort(values[:k]), ordered[:k])


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
@pytest.mark.parametrize("share", [1.0, 0.6])
@pytest.mark.parametrize("k", [1, 101])
def test_lists_tell_the_same_keys(metric: str, share: float, k: int) -> None:
    """TH1; none of the queries is left to the matrix product."""
    built = coded(clustered(9000, 40), metric, 90)
    searcher = Searcher(built.lists, metric, SEED)
    queries = np.concatenate((built.rows[:40], unit(clustered(30, 40, seed=8))))
    mask = None if share == 1 else np.random.default_rng(3).random(9000) < share
    if truth._has_products():
        bounds = truth._Bounds(searcher, queries, k)
        bounds.reach(None if mask is None else np.flatnonzero(mask[built.lists.ordinals]), never)
        assert not len(bounds.in_full(built.rows, queries)[1])
    found = truth.exact_of(searcher, built.rows, queries, k, mask)
    wanted = in_full(built.rows if mask is None else built.rows[mask], queries, metric, k)
    assert found.shape == wanted.shape
    assert np.allclose(found, wanted, rtol=2e-5, atol=1e-4)


def test_rows_that_codes_cannot_tell_apart_are_compared_in_full() -> None:
    rows = 5 + np.float32(1e-3) * clustered(9000, 40)
    rows[:100] = clustered(100, 40)
    built = coded(rows, "l2", 90)
    queries = rows[50:150]
    searcher = Searcher(built.lists, "l2", SEED)
    if truth._has_products():
        bounds = truth._Bounds(searcher, queries, 10)
        bounds.reach(None, never)
        assert len(bounds.in_full(rows, queries)[1]) >= 50
    found = truth.exact_of(searcher, rows, queries, 10)
    assert np.allclose(found, in_full(rows, queries, "l2", 10), rtol=1e-3, atol=3e-3)


def test_interrupts_are_looked_for() -> None:
    built = coded(clustered(9000, 40), "l2", 90)
    calls = []
    truth.exact_of(Searcher(built.lists, "l2", SEED), built.rows, built.rows[:500], 10,
                   tick=lambda: calls.append(1))  # fmt: skip
    assert len(calls) > 10
