"""The compiled search against its NumPy twin and against exact search."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from m2mdb.compute.hrm2 import reference
from m2mdb.compute.hrm2.reference import Stop
from m2mdb.compute.hrm2.searcher import Searcher
from tests.compute.hrm2.conftest import SEED, Coded, clustered, coded, exact, unit

EVERYTHING = Stop(10, 1 << 30, 0, 1 << 30, 0.0)


def queries_for(small: Coded, count: int) -> np.ndarray:
    """Half near stored rows, half far from all of them."""
    rng = np.random.default_rng(8)
    near = small.rows[rng.integers(0, len(small.rows), count // 2)]
    near = near + 0.2 * rng.standard_normal(near.shape)
    far = rng.standard_normal((count - len(near), small.rows.shape[1]))
    out = np.concatenate((near, far)).astype(np.float32)
    return unit(out) if small.metric == "cosine" else out


def recall(found: Any, wanted: np.ndarray) -> float:
    return len(set(found.tolist()) & set(wanted.tolist())) / len(wanted)


@pytest.mark.parametrize(
    "stop", [EVERYTHING, Stop(5, 2, 2, 9, 1.5), Stop(1, 1, 0, 1, 0.0), Stop(10, 3, 4, 1000, 1.5)]
)
def test_kernel_and_twin_take_the_same_steps(small: Coded, stop: Stop) -> None:
    searcher = Searcher(small.lists, small.metric, SEED)
    padded = np.zeros(small.width, np.float32)
    for query in queries_for(small, 30):
        padded[: len(query)] = query
        twin = reference.search(
            small.lists, padded, small.metric, stop, wanted=stop.k + 6, epsilon=1.2, seed=SEED
        )
        found = searcher.search(query, stop, wanted=stop.k + 6, epsilon=1.2)
        # a bound or a distance within a rounding of another may fall to either side
        assert abs(found.probed - twin.probed) <= max(1, twin.probed // 4)
        assert np.allclose(found.nearness[: stop.k], twin.nearness[: stop.k], rtol=2e-3, atol=2e-3)
        shared = set(found.positions.tolist()) & set(twin.positions)
        assert len(shared) >= len(twin.positions) - 2


def test_probing_everything_finds_nearly_everything(small: Coded) -> None:
    searcher = Searcher(small.lists, small.metric, SEED)
    recalls = []
    for query in queries_for(small, 60):
        found = searcher.search(query, EVERYTHING, wanted=25, epsilon=3.0)
        recalls.append(recall(found.ordinals, exact(small.rows, query, small.metric, 10)))
    assert np.mean(recalls) > 0.995


def test_more_probes_find_more(small: Coded) -> None:
    searcher = Searcher(small.lists, small.metric, SEED)
    queries = queries_for(small, 60)
    means = []
    for probes in (1, 3, 8, 16):
        stop = Stop(10, probes, 0, probes, 0.0)
        found = [searcher.search(q, stop, wanted=20, epsilon=2.0) for q in queries]
        wanted = [exact(small.rows, q, small.metric, 10) for q in queries]
        means.append(np.mean([recall(f.ordinals, w) for f, w in zip(found, wanted, strict=True)]))
        assert all(f.probed == probes for f in found)
    assert means == sorted(means)
    assert means[-1] > 0.98


def test_a_mask_is_kept_and_rows_behind_it_are_still_found(small: Coded) -> None:
    searcher = Searcher(small.lists, small.metric, SEED)
    mask = np.random.default_rng(2).random(len(small.rows)) < 0.05
    allowed = np.flatnonzero(mask)
    for query in queries_for(small, 20):
        found = searcher.search(query, EVERYTHING, wanted=25, epsilon=3.0, mask=mask)
        assert mask[found.ordinals].all()
        best = allowed[exact(small.rows[allowed], query, small.metric, 10)]
        assert recall(found.ordinals, best) >= 0.9


def test_no_row_twice_and_the_same_answer_again(small: Coded) -> None:
    searcher = Searcher(small.lists, small.metric, SEED)
    stop = EVERYTHING._replace(k=40)
    for query in queries_for(small, 20):
        first = searcher.search(query, stop, wanted=40, epsilon=1.5)
        assert len(set(first.ordinals.tolist())) == len(first.ordinals) == 40
        again = searcher.search(query, stop, wanted=40, epsilon=1.5)
        assert first.ordinals.tolist() == again.ordinals.tolist()


@pytest.mark.parametrize("dimension", [2, 3, 17, 64, 65, 200, 1100])
def test_any_dimension(dimension: int) -> None:
    built = coded(clustered(400, dimension), "l2", 6)
    searcher = Searcher(built.lists, "l2", SEED)
    query = built.rows[7] + np.float32(0.01)
    found = searcher.search(query, EVERYTHING, wanted=25, epsilon=3.0)
    assert recall(found.ordinals, exact(built.rows, query, "l2", 10)) >= 0.9


def test_fewer_rows_than_wanted() -> None:
    built = coded(clustered(3, 8), "l2", 4)
    found = Searcher(built.lists, "l2", SEED).search(
        built.rows[0], EVERYTHING, wanted=20, epsilon=2.0
    )
    assert sorted(found.ordinals.tolist()) == [0, 1, 2]


def test_identical_rows_stand_by_position() -> None:
    built = coded(np.ones((90, 5), np.float32), "l2", 3)
    found = Searcher(built.lists, "l2", SEED).search(
        np.ones(5, np.float32), EVERYTHING, wanted=10, epsilon=2.0
    )
    assert len(set(found.ordinals.tolist())) == 10
