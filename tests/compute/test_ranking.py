"""One call ranks candidates and finds coded rows, and gives what NumPy gives for every row."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m2mdb.compute import ranking, rescore
from m2mdb.compute.bound import METRICS
from m2mdb.compute.loader import LOADER
from m2mdb.compute.ranking import (
    NO_MASK,
    NO_NUMBERS,
    Answer,
    Codes,
    PartRows,
    RankPlan,
    Unverified,
    encoded,
    readable,
)

Array = np.ndarray[Any, Any]
DTYPES = (np.float32, np.float16, np.int8)
DIMENSIONS = (1, 2, 3, 7, 8, 9, 31, 64, 100, 127, 128, 129, 384, 385)
LENGTHS = {np.float32: (1e-12, 1.0, 20.0, 1e15), np.float16: (0.01, 1.0, 20.0), np.int8: (20.0,)}


@pytest.fixture(autouse=True, scope="module")
def kernels() -> Any:
    assert LOADER.wait(300), LOADER.error
    found = ranking.ranking_kernels()
    assert found is not None
    return found


class Case:
    """Seeded rows in two parts, many of them alike, and a query that may be one of them."""

    def __init__(self, seed: int, metric: str, dtype: Any) -> None:
        rng = self.rng = np.random.default_rng(seed)
        self.metric, self.dtype = metric, np.dtype(dtype)
        dimension, count = int(rng.choice(DIMENSIONS)), int(rng.integers(1, 300))
        rows = rng.standard_normal((count, dimension)) * float(rng.choice(LENGTHS[dtype]))
        if rng.random() < 0.4:
            rows = rows[rng.integers(0, max(1, count // 6), count)]
        self.rows: Array = np.ascontiguousarray(
            np.clip(rows, -127, 127) if dtype is np.int8 else rows
        )
        self.rows = self.rows.astype(dtype)
        self.rows[~self.rows.any(axis=1), 0] = 1
        query = rng.standard_normal(dimension) * float(rng.choice((1e-9, 1.0, 1e9)))
        self.query = query.astype(np.float32)
        if rng.random() < 0.3:
            self.query = self.rows[0].astype(np.float32)
        self.ids = rng.permutation(count).astype(np.int64) * 3 - 50
        self.k = int(rng.integers(1, 40))
        self.cut = int(rng.integers(0, count + 1))  # rows of the first part
        self.mask = rng.random(count) < rng.choice((1.0, 0.6, 0.05))

    def plan(self, *, coded: bool, verified: Array | None = None) -> RankPlan:
        kernels = ranking.ranking_kernels()
        assert kernels is not None
        cut, codes = self.cut, Codes(self.metric, self.rows.shape[1], kernels)
        for stop in (cut // 3, cut // 2, cut):  # as a delta grows
            codes.extend(self.rows, stop)
        parts = [
            PartRows(0, self.rows[:cut], self.ids[:cut]),
            PartRows(cut, self.rows[cut:], self.ids[cut:], verified),
        ]
        both = (codes, cut) if coded else None
        return RankPlan(self.metric, self.rows.shape[1], self.dtype, parts, both, kernels)

    def wanted(self, chosen: Array) -> Answer:
        found = rescore.rank(self.rows[chosen], self.ids[chosen], self.query, self.k, self.metric)
        scores, distances = found.scores.astype(float), found.distances.astype(float)
        return Answer(chosen[found.positions], found.ids, scores, distances)


def same(left: Any, right: Answer) -> bool:
    return isinstance(left, Answer) and all(
        np.array_equal(one, other) for one, other in zip(left, right, strict=True)
    )


cases = st.builds(
    Case, st.integers(0, 2**32 - 1), st.sampled_from(METRICS), st.sampled_from(DTYPES)
)


@settings(max_examples=300, deadline=None)
@given(cases)
def test_candidates_are_ranked_as_numpy_ranks_them(case: Case) -> None:
    chosen = case.rng.permutation(np.flatnonzero(case.mask)).astype(np.int64)

    found = case.plan(coded=False).answer(case.query, case.k, NO_NUMBERS, readable(chosen), NO_MASK)

    assert same(found, case.wanted(chosen))


@settings(max_examples=400, deadline=None)
@given(cases)
def test_codes_lose_no_row_of_the_answer(case: Case) -> None:
    cut = case.cut
    others = np.flatnonzero(case.mask[cut:]).astype(np.int64) + cut
    masks = [(NO_MASK, np.arange(cut))]
    if cut:
        masks.append((readable(case.mask[:cut].view(np.uint8)), np.flatnonzero(case.mask[:cut])))
    for mask, passing in masks:
        found = case.plan(coded=True).answer(case.query, case.k, NO_NUMBERS, readable(others), mask)

        assert same(found, case.wanted(np.concatenate((passing, others))))


@settings(max_examples=100, deadline=None)
@given(cases)
def test_a_batch_gives_what_its_queries_give_alone(case: Case) -> None:
    rows, k = len(case.rows), case.k
    queries = np.stack([case.query, -case.query, case.rows[-1].astype(np.float32)])
    numbers = np.full((3, rows), -1, np.int64)
    for each in numbers:
        some = case.cut + np.flatnonzero(case.rng.random(rows - case.cut) < 0.5)
        each[: len(some)] = some
    plan = case.plan(coded=True)

    found = plan.answer_many(readable(queries), k, readable(numbers), NO_MASK)

    assert isinstance(found, Answer)
    for q, query in enumerate(queries):
        alone = plan.answer(query, k, NO_NUMBERS, readable(numbers[q][numbers[q] >= 0]), NO_MASK)
        assert isinstance(alone, Answer)
        size = len(alone.ids)
        for one, many in zip(alone, found, strict=True):
            assert np.array_equal(one, many[q, :size])
        assert (found.ids[q, size:] == -1).all() and np.isnan(found.scores[q, size:]).all()


@settings(max_examples=100, deadline=None)
@given(cases)
def test_codes_are_those_of_the_twin(case: Case) -> None:
    kernels = ranking.ranking_kernels()
    assert kernels is not None
    codes = Codes(case.metric, case.rows.shape[1], kernels)
    codes.extend(case.rows, len(case.rows))
    bytes_, factors = encoded(case.rows, case.metric)

    assert np.allclose(codes.factors[:, : len(case.rows)], factors, rtol=1e-9, atol=0)
    panels = codes.panels.reshape(-1, codes.width // 4, ranking.PANEL, 4).transpose(0, 2, 1, 3)
    found = panels.reshape(-1, codes.width)[: len(case.rows), : case.rows.shape[1]]
    assert (np.abs(found.astype(int) - 128 - bytes_) <= 1).all()


def test_rows_that_are_not_verified_are_told_and_not_read() -> None:
    case = Case(5, "cosine", np.float32)
    case.cut = 0
    rows = np.random.default_rng(1).standard_normal((2000, 384)).astype(np.float32)
    case.rows, case.ids, case.k = rows, np.arange(2000), 4
    case.query = (rows[3] + rows[7]).astype(np.float32)
    verified = np.zeros(1 + rows.nbytes // 65536, np.uint8)
    chosen = readable(np.array([3, 41, 1900, 1999], np.int64))
    plan = case.plan(coded=False, verified=verified)
    edges = {int(n): (n * 1536 >> 16, (n * 1536 + 1535) >> 16) for n in chosen}

    rounds = 0
    while isinstance(found := plan.answer(case.query, 4, NO_NUMBERS, chosen, NO_MASK), Unverified):
        rounds += 1
        assert all(not verified[list(edges[n])].all() for n in found.numbers.tolist())
        batch = plan.answer_many(readable(case.query[None]), 4, readable(chosen[None]), NO_MASK)
        assert isinstance(batch, Unverified) and set(batch.numbers) == set(found.numbers)
        verified[list(edges[int(found.numbers[0])])] = 1

    assert rounds == 3  # two of the rows share a block
    assert same(found, case.wanted(chosen))


def test_threads_share_a_plan() -> None:
    case = Case(9, "cosine", np.float32)
    rng = np.random.default_rng(2)
    case.rows = rng.standard_normal((3000, 64)).astype(np.float32)
    case.ids, case.cut, case.k = np.arange(3000), 3000, 10
    plan, queries = case.plan(coded=True), rng.standard_normal((40, 64)).astype(np.float32)
    alone = [plan.answer(query, 10, NO_NUMBERS, NO_NUMBERS, NO_MASK) for query in queries]
    wrong: list[int] = []

    def search() -> None:
        for _ in range(20):
            for number, query in enumerate(queries):
                found = plan.answer(query, 10, NO_NUMBERS, NO_NUMBERS, NO_MASK)
                expected = alone[number]
                assert isinstance(expected, Answer)
                if not same(found, expected):
                    wrong.append(number)

    threads = [threading.Thread(target=search) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not wrong
