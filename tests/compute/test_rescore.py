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
from m2mdb.compute.loader import LOADER
from m2mdb.compute.rescore import present, rank, rank_gathered, rank_rows, similarities

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


def both_forms(
    rows: np.ndarray[Any, Any],
    ordinals: np.ndarray[Any, Any],
    ids: np.ndarray[Any, Any],
    query: np.ndarray[Any, Any],
    k: int,
    metric: str,
) -> list[rescore.Ranked]:
    """What the compiled kernel gives, and what NumPy gives."""
    kernels = LOADER.module
    assert kernels is not None and rescore.kernels_agree(kernels)
    found = [rank_rows(rows, ordinals, ids, query, k, metric)]
    LOADER.module = None
    try:
        return [*found, rank_rows(rows, ordinals, ids, query, k, metric)]
    finally:
        LOADER.module = kernels


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from((1, 2, 7, 8, 9, 64, 100, 127, 128, 129, 136, 257, 384, 1000, 1537)),
    st.sampled_from(METRICS),
    st.sampled_from((1.0, 1e-22, 1e16)),
    st.sampled_from((1, 10, 40, 100)),
)
def test_the_kernel_ranks_to_the_bit_as_numpy_does(
    seed: int, dimension: int, metric: str, scale: float, k: int
) -> None:
    """R4."""
    assert LOADER.wait()
    random = np.random.default_rng(seed)
    rows = (random.standard_normal((60, dimension)) * scale).astype(np.float32)
    rows[3] = rows[7] = rows[40]
    rows[5], rows[9] = 0.0, -rows[3]
    query = rows[3] if seed % 2 else (random.standard_normal(dimension) * scale).astype(np.float32)
    ids = random.permutation(60)
    ordinals = random.permutation(60)[:40]

    compiled, reference = both_forms(rows, ordinals, ids, query, k, metric)

    for left, right in zip(map(np.asarray, compiled), map(np.asarray, reference), strict=True):
        assert left.dtype == right.dtype and left.tobytes() == right.tobytes()


def test_the_kernel_orders_infinite_scores_and_zeros_as_numpy_does() -> None:
    """R2, R4."""
    assert LOADER.wait()
    rows = np.array([[3e38], [1e38], [-3e38], [0.0], [-0.0], [2e38], [-1e38]], np.float32)
    ids = np.array([5, 6, 1, 3, 2, 4, 0])

    for metric in METRICS:
        for value in (3e38, -3e38, 0.0, -0.0):
            query = np.array([value], np.float32)
            compiled, reference = both_forms(rows, np.arange(7), ids, query, 7, metric)

            assert compiled.ids.tolist() == reference.ids.tolist()
            assert compiled.scores.tobytes() == reference.scores.tobytes()
            assert compiled.distances.tobytes() == reference.distances.tobytes()


def test_a_numpy_that_adds_in_another_order_is_not_mixed_with_the_kernel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """R4: scores then come from NumPy alone."""
    assert LOADER.wait()
    rows = rows_of(6, 20, 384, np.float32)

    def backwards(terms: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        sums: np.ndarray[Any, Any] = np.add.reduce(terms[:, ::-1].copy(), axis=1)
        return sums + 0.0

    monkeypatch.setattr(rescore, "_agreeing", (None, False))
    monkeypatch.setattr(rescore, "_sums", backwards)
    assert LOADER.module is not None and not rescore.kernels_agree(LOADER.module)

    found = rank_rows(rows, np.arange(20), np.arange(20), rows[2], 5, "cosine")

    wanted = rank(rows, np.arange(20), rows[2], 5, "cosine")
    assert found.scores.tobytes() == wanted.scores.tobytes()


@pytest.mark.parametrize("metric", METRICS)
def test_the_kernel_adds_as_numpy_in_every_dimension(metric: str) -> None:
    assert LOADER.wait(300), LOADER.error
    kernels: Any = LOADER.module
    for dimension in (*range(1, 300), 384, 640, 768, 1000, 1024, 1537, 5001):
        row, query = rows_of(dimension, 2, dimension, np.float32)
        length = math.sqrt(np.add.reduce(query.astype(np.float64)[None] ** 2, axis=1)[0])
        near = kernels.similarity(rescore.KINDS[metric], row, query, length)
        assert near == similarities(row[None], query, metric)[0], dimension
