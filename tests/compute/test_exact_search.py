"""Every backend finds the same answer, bit for bit: the one that rescoring all rows gives (B3)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m2mdb.compute.backend import Backend, Candidates, choose
from m2mdb.compute.bound import METRICS, row_norms
from m2mdb.compute.loader import LOADER
from m2mdb.compute.rescore import Ranked, rank, rank_gathered
from m2mdb.pager.errors import NotSupportedError, ProgrammingError

BACKENDS = ("numpy", "numba")
DTYPES = (np.float32, np.float16, np.int8)
Array = np.ndarray[Any, Any]


def backend(name: str) -> Backend:
    """The backend, with its kernels loaded."""
    if name == "numba":
        assert LOADER.wait(), LOADER.error
    return choose(name)


def answer(found: Candidates, rows: Array, ids: Array, query: Array, k: int, metric: str) -> Ranked:
    """The final answer from a scan's candidates."""
    ordinals = found.ordinals
    return rank_gathered(lambda part: rows[part], ordinals, ids[ordinals], query, k, metric)


def expected(rows: Array, ids: Array, query: Array, k: int, metric: str, mask: Any) -> Ranked:
    """The final answer from all rows that count."""
    live = np.arange(len(rows)) if mask is None else np.flatnonzero(mask)
    return rank(rows[live], ids[live], query, k, metric)


def assert_same(left: Ranked, right: Ranked) -> None:
    """Ids, scores and distances agree in every bit."""
    assert left.ids.tolist() == right.ids.tolist()
    assert left.scores.tobytes() == right.scores.tobytes()
    assert left.distances.tobytes() == right.distances.tobytes()


@st.composite
def searches(draw: st.DrawFn) -> dict[str, Any]:
    """Rows, ids, norms, a query, k and a mask; often with duplicates, often clustered."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dimension = draw(st.sampled_from((1, 2, 3, 17, 384)))
    count = draw(st.sampled_from((0, 1, 2, 5, 63, 64, 65, 257, 1000, 5000)))
    dtype = draw(st.sampled_from(DTYPES))
    rows = rng.standard_normal((count, dimension)) * 20
    shape = draw(st.sampled_from(("spread", "duplicates", "identical", "close", "far")))
    if shape == "duplicates" and count:
        rows = rows[rng.integers(0, max(1, count // 4), count)]
    elif shape == "identical" and count:
        rows[:] = rows[0]
    elif shape == "close":
        rows = rows * 1e-4 + 10
    elif shape == "far" and dtype is np.float32:
        rows = rows + 10_000
    stored = np.clip(rows, -127, 127).astype(dtype) if dtype is np.int8 else rows.astype(dtype)
    query = rng.standard_normal(dimension).astype(np.float32)
    if count and draw(st.booleans()):
        query = stored[rng.integers(count)].astype(np.float32)
    density = draw(st.sampled_from((None, 0.0, 0.03, 0.5, 1.0)))
    return {
        "rows": stored,
        "ids": rng.permutation(count).astype(np.int64),
        "norms": row_norms(stored) if draw(st.booleans()) else None,
        "query": query,
        "k": draw(st.sampled_from((1, 2, 10, 100, 7000))),
        "mask": None if density is None else (rng.random(count) < density).astype(np.uint8),
        "metric": draw(st.sampled_from(METRICS)),
    }


@settings(max_examples=250, deadline=None)
@given(searches())
def test_every_backend_gives_the_answer_of_rescoring_all_rows(case: dict[str, Any]) -> None:
    rows, ids, query, k, metric = (case[name] for name in ("rows", "ids", "query", "k", "metric"))
    wanted = expected(rows, ids, query, k, metric, case["mask"])

    for name in BACKENDS:
        found = backend(name).top_k(rows, case["norms"], query, k, metric, case["mask"])

        assert len(np.unique(found.ordinals)) == len(found.ordinals)
        assert_same(answer(found, rows, ids, query, k, metric), wanted)


@settings(max_examples=60, deadline=None)
@given(searches(), st.integers(1, 700))
def test_a_collector_may_be_fed_in_chunks_of_a_reused_buffer(
    case: dict[str, Any], size: int
) -> None:
    rows, ids, query, k, metric = (case[name] for name in ("rows", "ids", "query", "k", "metric"))
    norms, mask = case["norms"], case["mask"]
    buffer = np.empty((size, rows.shape[1]), rows.dtype)

    for name in BACKENDS:
        collector = backend(name).collector(query, k, metric)
        for start in range(0, len(rows), size):
            part = slice(start, start + size)
            chunk = buffer[: len(rows[part])]
            chunk[...] = rows[part]
            collector.scan(
                chunk,
                None if norms is None else norms[part],
                None if mask is None else mask[part],
                start,
            )

        found = answer(collector.result(), rows, ids, query, k, metric)
        assert_same(found, expected(rows, ids, query, k, metric, mask))


@settings(max_examples=60, deadline=None)
@given(searches(), st.integers(1, 40))
def test_a_batch_gives_what_single_searches_give(case: dict[str, Any], batch: int) -> None:
    rows, ids, k, metric = (case[name] for name in ("rows", "ids", "k", "metric"))
    rng = np.random.default_rng(batch)
    queries = rng.standard_normal((batch, rows.shape[1])).astype(np.float32)
    queries[0] = case["query"]

    for name in BACKENDS:
        many = backend(name).top_k_many(rows, case["norms"], queries, k, metric, case["mask"])

        assert len(many) == batch
        for query, found in zip(queries, many, strict=True):
            wanted = expected(rows, ids, query, k, metric, case["mask"])
            assert_same(answer(found, rows, ids, query, k, metric), wanted)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e-12, 1e12, 1e18, 1e30])
@pytest.mark.parametrize("name", BACKENDS)
def test_extreme_lengths_neither_overflow_nor_lose_rows(
    name: str, scale: float, metric: str
) -> None:
    rng = np.random.default_rng(7)
    for dimension in (3, 384, 4096):
        rows = (rng.standard_normal((300, dimension)) * scale).astype(np.float32)
        rows[100:200] = rows[:100]
        query = (rng.standard_normal(dimension) * scale).astype(np.float32)
        ids = np.arange(300)[::-1].copy()
        for norms in (row_norms(rows), None):
            found = backend(name).top_k(rows, norms, query, 10, metric)

            result = answer(found, rows, ids, query, 10, metric)
            assert_same(result, expected(rows, ids, query, 10, metric, None))
            assert not np.isnan(result.scores).any()
            if metric == "cosine":
                assert np.isfinite(result.scores).all()
                assert len(found.ordinals) < 300


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("name", BACKENDS)
def test_lengths_from_tiny_to_huge_may_stand_side_by_side(name: str, metric: str) -> None:
    rng = np.random.default_rng(8)
    rows = rng.standard_normal((2000, 17)) * 10.0 ** rng.integers(-18, 19, (2000, 1))
    rows = rows.astype(np.float32)
    ids = rng.permutation(2000)

    for scale in (1e-18, 1.0, 1e18):
        query = (rng.standard_normal(17) * scale).astype(np.float32)
        found = backend(name).top_k(rows, row_norms(rows), query, 10, metric)

        result = answer(found, rows, ids, query, 10, metric)
        assert_same(result, expected(rows, ids, query, 10, metric, None))


@pytest.mark.parametrize("name", BACKENDS)
def test_ties_across_the_boundary_are_settled_by_id(name: str) -> None:
    rng = np.random.default_rng(1)
    rows = np.repeat(rng.standard_normal((3, 384)), 400, axis=0).astype(np.float32)
    ids = rng.permutation(1200)
    query = rows[0]
    for metric in METRICS:
        found = backend(name).top_k(rows, row_norms(rows), query, 10, metric)
        result = answer(found, rows, ids, query, 10, metric)

        best = np.flatnonzero((rows == rows[found.ordinals[0]]).all(axis=1))
        assert result.ids.tolist() == sorted(ids[best])[:10]


@pytest.mark.parametrize("name", BACKENDS)
def test_a_zero_query_or_row_scores_zero_under_cosine(name: str) -> None:
    rows = np.zeros((20, 3), np.float32)
    rows[5] = 1.0
    one = np.ones(3, np.float32)

    found = backend(name).top_k(rows, row_norms(rows), one, 2, "cosine")
    assert answer(found, rows, np.arange(20), one, 2, "cosine").scores.tolist() == [1.0, 0.0]

    found = backend(name).top_k(rows, row_norms(rows), one * 0, 2, "cosine")
    assert answer(found, rows, np.arange(20), one * 0, 2, "cosine").ids.tolist() == [0, 1]


@pytest.mark.parametrize("name", BACKENDS)
def test_arguments_may_be_read_only_and_are_left_alone(name: str) -> None:
    rng = np.random.default_rng(2)
    rows = rng.standard_normal((500, 17)).astype(np.float32)
    norms, query, mask = row_norms(rows), rows[3].copy(), (rows[:, 0] > 0).astype(np.uint8)
    for array in (rows, norms, query, mask):
        array.flags.writeable = False
    before = [array.tobytes() for array in (rows, norms, query, mask)]

    for metric in METRICS:
        backend(name).top_k(rows, norms, query, 5, metric, mask)
        backend(name).top_k_many(rows, norms, rows[:7], 5, metric, mask)

    assert [array.tobytes() for array in (rows, norms, query, mask)] == before


@pytest.mark.parametrize("name", BACKENDS)
def test_unaligned_and_strided_rows_are_taken(name: str) -> None:
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((500, 17)).astype(np.float32)
    raw = np.frombuffer(b"x" + rows.tobytes(), np.uint8)[1:].view(np.float32).reshape(rows.shape)
    strided = np.repeat(rows, 2, axis=1)[:, ::2]

    for same in (raw, strided):
        for metric in METRICS:
            found = backend(name).top_k(same, row_norms(rows), rows[3], 5, metric)
            wanted = expected(rows, np.arange(500), rows[3], 5, metric, None)
            assert_same(answer(found, rows, np.arange(500), rows[3], 5, metric), wanted)


@pytest.mark.parametrize("name", BACKENDS)
def test_threads_search_side_by_side(name: str) -> None:
    rng = np.random.default_rng(4)
    rows = rng.standard_normal((20_000, 32)).astype(np.float32)
    norms, ids, chosen = row_norms(rows), np.arange(20_000), backend(name)

    def search(i: int) -> Ranked:
        metric = METRICS[i % 3]
        found = chosen.top_k(rows, norms, rows[i], 10, metric)
        return answer(found, rows, ids, rows[i], 10, metric)

    with ThreadPoolExecutor(8) as pool:
        for i, result in enumerate(pool.map(search, range(120))):
            assert_same(result, expected(rows, ids, rows[i], 10, METRICS[i % 3], None))


def test_a_wrong_name_metric_or_shape_is_refused_with_the_allowed_ones() -> None:
    with pytest.raises(ProgrammingError, match=r"numpi.*auto, numpy, numba"):
        choose("numpi")
    for name in ("cupy", "vulkan"):
        with pytest.raises(NotSupportedError, match=name):
            choose(name)
    rows, query = np.zeros((3, 4), np.float32), np.zeros(5, np.float32)
    for name in BACKENDS:
        with pytest.raises(ProgrammingError, match="cosine, l2, ip"):
            backend(name).top_k(rows, None, query, 1, "euclid")
        with pytest.raises(ProgrammingError, match=r"\(3, 4\).*\(n, 5\)"):
            backend(name).top_k(rows, None, query, 1, "l2")
