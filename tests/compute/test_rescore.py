"""Final scores: what they mean, and that nothing but the row and the query decides them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m2mdb.compute import rescore
from m2mdb.compute.bound import METRICS, row_norms
from m2mdb.compute.rescore import present, rank, rank_gathered, similarities

DTYPES = (np.float32, np.float16, np.int8)


def rows_of(seed: int, count: int, dimension: int, dtype: Any) -> np.ndarray[Any, Any]:
    """Seeded rows that every dtype can hold."""
    return (np.random.default_rng(seed).standard_normal((count, dimension)) * 20).astype(dtype)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from((1, 2, 3, 7, 8, 9, 17, 127, 128, 129, 384, 1000, 4096)),
    st.sampled_from(DTYPES),
    st.sampled_from(METRICS),
)
def test_a_row_has_one_score_wherever_it_stands(
    seed: int, dimension: int, dtype: Any, metric: str
) -> None:
    rows = rows_of(seed, 40, dimension, dtype)
    query = rows_of(seed + 1, 1, dimension, np.float32)[0]
    alone = [similarities(row[None], query, metric).tobytes() for row in rows]

    order = np.random.default_rng(seed).permutation(40)
    for chosen in (np.arange(40), order, order[:7], np.repeat(order[:2], 9)):
        together = similarities(rows[chosen], query, metric)

        assert [value.tobytes() for value in together] == [alone[i] for i in chosen]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(DTYPES), st.sampled_from(METRICS))
def test_scores_and_distances_are_what_the_metric_says(seed: int, dtype: Any, metric: str) -> None:
    rows = rows_of(seed, 5, 23, dtype)
    query = rows_of(seed + 1, 1, 23, np.float32)[0]

    scores, distances = present(similarities(rows, query, metric), metric)

    for row, score, distance in zip(rows.astype(float).tolist(), scores, distances, strict=True):
        pairs = list(zip(row, query.astype(float).tolist(), strict=True))
        dot = math.fsum(x * q for x, q in pairs)
        far = math.sqrt(math.fsum((x - q) ** 2 for x, q in pairs))
        lengths = math.hypot(*row) * math.hypot(*query.astype(float).tolist())
        cosine = dot / lengths if lengths else 0.0
        wanted = {"cosine": cosine, "l2": 1 / (1 + far), "ip": dot}[metric]
        apart = {"cosine": 1 - cosine, "l2": far, "ip": -dot}[metric]
        assert score == pytest.approx(wanted, rel=1e-6, abs=1e-6)
        assert distance == pytest.approx(apart, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_ranking_in_chunks_gives_what_ranking_at_once_gives(
    metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.repeat(rows_of(1, 500, 8, np.float32), 4, axis=0)
    ids = np.random.default_rng(2).permutation(2000)
    query = rows[5]
    whole = rank(rows, ids, query, 30, metric)
    monkeypatch.setattr(rescore, "CHUNK_VALUES", 1)
    sizes = []

    def gather(ordinals: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        sizes.append(len(ordinals))
        picked: np.ndarray[Any, Any] = rows[ordinals]
        return picked

    parts = rank_gathered(gather, np.arange(2000), ids, query, 30, metric)

    assert max(sizes) == 256
    for left, right in zip(whole, parts, strict=True):
        assert np.array_equal(np.asarray(left), np.asarray(right))
    assert ids[parts.positions].tolist() == parts.ids.tolist()


def test_identical_vectors_are_at_distance_zero_and_equal_scores_go_by_id() -> None:
    rows = np.repeat(rows_of(3, 1, 384, np.float32), 6, axis=0)
    rows[3:] *= np.float32(2.0)
    ids = np.array([9, 4, 7, 1, 8, 2])

    found = rank(rows, ids, rows[0], 6, "cosine")

    assert found.ids.tolist() == [1, 2, 4, 7, 8, 9]
    assert found.scores.tolist() == [1.0] * 6
    assert found.distances.tolist() == [0.0] * 6


def test_small_distances_are_told_apart_where_scores_are_not() -> None:
    rows = np.array([[3e-20], [1e-20], [2e-20]], np.float32)

    found = rank(rows, np.array([1, 2, 3]), np.zeros(1, np.float32), 3, "l2")

    assert found.ids.tolist() == [2, 3, 1]
    assert found.scores.tolist() == [1.0] * 3


def test_an_inner_product_beyond_float32_is_infinite_and_goes_by_id() -> None:
    rows = np.array([[1e30], [2e30], [-1e30]], np.float32)

    found = rank(rows, np.array([5, 6, 1]), np.array([1e30], np.float32), 3, "ip")

    assert found.ids.tolist() == [5, 6, 1]
    assert found.scores.tolist() == [math.inf, math.inf, -math.inf]


def test_no_candidates_give_no_hits() -> None:
    for metric in METRICS:
        empty = np.empty((0, 4), np.float32)
        found = rank(empty, np.empty(0, np.int64), np.ones(4, np.float32), 5, metric)
        assert [len(column) for column in found] == [0, 0, 0, 0]


def test_norms_are_rounded_once() -> None:
    rows = rows_of(4, 50, 384, np.float32)
    exact = [math.hypot(*row) for row in rows.astype(float).tolist()]

    assert row_norms(rows).tolist() == pytest.approx(exact, rel=2**-23)
    assert row_norms(rows[:0]).shape == (0,)
