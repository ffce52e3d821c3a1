"""Rows very far from all others: neither searches nor what is measured suffer from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from m2mdb.compute.hrm2 import calibration, patience, reference
from m2mdb.compute.hrm2.lists import padded
from m2mdb.compute.hrm2.products import middle_of
from m2mdb.compute.hrm2.reference import BUCKETS, Stop
from m2mdb.compute.hrm2.routes import routes_of, spreads_of
from m2mdb.compute.hrm2.searcher import Searcher
from m2mdb.compute.hrm2.truth import exact, exact_of
from m2mdb.compute.listing import center_of
from m2mdb.compute.loader import LOADER
from tests.compute.hrm2.conftest import SEED, Coded, clustered, coded
from tests.compute.hrm2.conftest import exact as exact_rows

if TYPE_CHECKING:
    from collections.abc import Callable

FAR = [(1, 1e2), (1, 1e5), (10, 1e3), (40, 1e8)]  # how many rows, and how many times the lengths


@pytest.fixture(autouse=True)
def _loaded() -> None:
    assert LOADER.wait(), LOADER.error


def with_far(rows: np.ndarray, count: int, times: float) -> np.ndarray:
    """The rows, and among them some that are so many times as long."""
    rng = np.random.default_rng(9)
    far = rng.standard_normal((count, rows.shape[1]))
    far *= times * np.linalg.norm(rows, axis=1).mean() / np.linalg.norm(far, axis=1)[:, None]
    far *= rng.uniform(0.8, 1.2, (count, 1))
    every = np.concatenate((rows, far)).astype(np.float32)
    return every[rng.permutation(len(every))]


def far_lists(count: int, times: float, metric: str = "l2", rows: int = 6000) -> Coded:
    return coded(with_far(clustered(rows, 40), count, times), metric, rows // 60)


KEYS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "even": lambda rng: rng.random(96),
    "one far": lambda rng: np.append(rng.random(95), 1e4),
    "one very far": lambda rng: np.append(1e16, rng.random(95)),
    "many far": lambda rng: np.concatenate((rng.random(60), 1e10 * rng.random(36))),
    "far on both sides": lambda rng: np.concatenate((rng.random(90), 1e9 * rng.normal(size=6))),
    "two crowds": lambda rng: np.concatenate((rng.random(50), 1e6 + rng.random(46))),
    "of all sizes": lambda rng: 10 ** rng.uniform(-30, 30, 96),
    "below zero": lambda rng: np.append(rng.random(95) - 7, 1e9),
    "alike": lambda rng: np.full(96, 3.0),
    "alike but one": lambda rng: np.append(np.full(95, 3.0), 1e9),
    "denormal": lambda rng: 1e-40 * rng.random(96),
    "one": lambda rng: rng.random(1),
}


@pytest.mark.parametrize("kind", KEYS)
def test_far_keys_leave_the_others_in_order(kind: str) -> None:
    """In the twin's order, bit for bit; no bucket of equal width holds the near ones together."""
    from m2mdb.compute.hrm2 import steps

    for seed in range(20):
        rng = np.random.default_rng(seed)
        keys = KEYS[kind](rng).astype(np.float32)
        items = rng.permutation(1000)[: len(keys)].astype(np.int32)
        order, buckets = np.full(len(keys) + 3, -1, np.int32), np.zeros(BUCKETS + 1, np.int32)
        steps.bucket_order(keys, items, len(keys), 3, order, buckets)
        twin = reference._bucket_order(keys)
        np.testing.assert_array_equal(order[3:], items[twin])
        assert sorted(twin.tolist()) == list(range(len(keys)))
        half = len(keys) // 2
        limit = np.sort(keys)[half]
        if np.ptp(keys) > 1e-30:
            assert np.count_nonzero(keys[twin[:half]] <= limit) >= 0.9 * half


@pytest.mark.parametrize("times", [1.0, 1e2, 1e6, 1e16, 1e30])
def test_a_cut_is_found_among_far_values(times: float) -> None:
    from m2mdb.compute.hrm2 import steps

    for seed in range(20):
        rng = np.random.default_rng(seed)
        values = rng.random(1500).astype(np.float32)
        values[rng.integers(0, 1500, 5)] *= np.float32(times)
        values[rng.integers(0, 1500, 2)] *= -np.float32(min(times, 1e6))
        values[rng.integers(0, 1500, 300)] = np.inf
        low, high = steps.finite_range(values, len(values))
        limit = steps.cut(values, len(values), 96, np.float32(low), np.float32(high))
        assert 96 <= np.count_nonzero(values < limit) <= 120
        assert limit == reference.cut(values, 96, np.float32(low), np.float32(high))


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 64, 2000])
def test_the_finite_range_is_that_of_numpy(count: int) -> None:
    """Of all signs and sizes, with zeros, denormal numbers and infinities among them."""
    from m2mdb.compute.hrm2 import steps

    for seed in range(10):
        rng = np.random.default_rng(seed)
        values = (rng.standard_normal(count) * 10.0 ** rng.integers(-44, 38, count)).astype(
            np.float32
        )
        values[rng.random(count) < 0.1] = rng.choice([0.0, -0.0, 1e-45, -3e38, 3e38])
        values[rng.random(count) < 0.1 * (seed % 4)] = np.inf
        if seed == 9:
            values[:] = np.inf
        finite = values[np.isfinite(values)]
        low, high = steps.finite_range(values, count)
        assert low == finite.min(initial=np.inf)
        assert high == finite.max(initial=-np.inf)


@pytest.mark.parametrize(("count", "times"), FAR)
def test_few_lists_hold_what_is_near(count: int, times: float) -> None:
    """The order of lists is as good as without far rows; and the twin's."""
    rows, queries = clustered(6000, 40), clustered(40, 40, seed=4)
    found = []
    for built in (coded(with_far(rows, 0, 1), "l2", 100), far_lists(count, times)):
        searcher, stop = Searcher(built.lists, "l2", SEED), Stop(10, 8, 0, 8, 0.0)
        outcome = [searcher.search(q, stop, wanted=18, epsilon=2.0) for q in queries]
        wanted = [exact_rows(built.rows, q, "l2", 10) for q in queries]
        both = zip(outcome, wanted, strict=True)
        found.append(sum(len(np.intersect1d(one.ordinals, best)) for one, best in both))
        asked = np.zeros(padded(40), np.float32)
        for query, one in zip(queries[:10], outcome, strict=False):
            asked[:40] = query
            twin = reference.search(
                built.lists, asked, "l2", stop, wanted=18, epsilon=2.0, seed=SEED
            )
            assert len(set(one.positions[:10].tolist()) & set(twin.positions[:10])) >= 9
    assert found[1] >= 0.9 * found[0]
    assert found[0] > 250


@pytest.mark.parametrize(("count", "times"), FAR)
def test_far_rows_have_supers_of_their_own_and_no_say_in_spreads(count: int, times: float) -> None:
    built = far_lists(count, times)
    routes = routes_of(built.lists, "l2")
    lengths = np.sqrt(built.lists.center_squares)
    is_far = lengths > 10 * np.median(lengths)
    assert is_far.any()
    for each in range(len(routes.super_scales)):
        block = routes.numbers[routes.starts[each] : routes.starts[each + 1]]
        assert len(np.unique(is_far[block[block >= 0]])) == 1
    assert np.linalg.norm(center_of(built.lists)) < 3 * np.median(lengths)
    plain = spreads_of(coded(clustered(6000, 40), "l2", 100).lists)
    assert spreads_of(built.lists)[~is_far].max() < 20 * plain.max()


def test_a_far_row_in_a_list_of_near_ones_does_not_put_it_last() -> None:
    built = coded(clustered(3000, 40), "l2", 30)
    factors = built.lists.factors.copy()
    before = spreads_of(built.lists)
    factors[0, [32, 64]] = 1e6  # f and e of one code
    after = spreads_of(built.lists._replace(factors=factors))
    assert after[0] < 2 * before[0]
    np.testing.assert_array_equal(after[1:], before[1:])


@pytest.mark.parametrize(("count", "times"), FAR)
def test_bytes_are_taken_around_the_others(count: int, times: float) -> None:
    rows = clustered(6000, 40)
    plain, middle = middle_of(rows), middle_of(with_far(rows, count, times))
    assert plain is not None
    assert middle is not None
    assert np.linalg.norm(middle - plain) < 0.2 * rows.std(axis=0).sum()


@pytest.mark.parametrize("metric", ["l2", "ip"])
@pytest.mark.parametrize(("count", "times"), FAR)
def test_exact_answers_are_exact_beside_far_rows(metric: str, count: int, times: float) -> None:
    """No row beyond the k-th best may count as found, nor may one of the k best not."""
    rows = with_far(clustered(9000, 40), count, times)
    queries = clustered(30, 40, seed=3)
    k = count + 10  # of which `count` are far under ip
    wide = rows.astype(np.float64)
    keys = queries.astype(np.float64) @ wide.T
    if metric == "l2":
        keys = -((queries[:, None].astype(np.float64) - wide[None]) ** 2).sum(axis=2)
    order = np.argsort(-keys, axis=1)[:, :k]
    wanted = np.take_along_axis(keys, order, axis=1)
    lengths = np.linalg.norm(wide, axis=1)[order]
    lengths = np.maximum.accumulate(lengths, axis=1) if metric == "l2" else lengths
    slack = 4e-6 * np.linalg.norm(queries, axis=1)[:, None] * lengths + 4e-6 * np.abs(wanted)
    found = [exact(rows, queries, metric, k)]
    built = coded(rows, metric, 150)
    found.append(exact_of(Searcher(built.lists, metric, SEED), built.rows, queries, k))
    for each in found:
        assert (each <= wanted + 1e-7 * np.abs(wanted)).all()
        assert (each >= wanted - slack).all()


@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_noise_spreads_as_the_others_do(metric: str) -> None:
    built = far_lists(10, 1e5, metric)
    made = calibration.made_queries(
        Searcher(built.lists, metric, SEED), built.rows, np.random.default_rng(1)
    )
    free = np.linalg.norm(made[-calibration.FREE_QUERIES :], axis=1)
    usual = np.linalg.norm(clustered(6000, 40), axis=1)
    assert free.max() < 3 * usual.max()


@pytest.mark.parametrize(
    ("count", "times", "metric"),
    [(1, 1e2, "l2"), (10, 1e3, "l2"), (40, 1e8, "l2"), (6, 1e3, "ip"), (6, 1e5, "ip")],
)
def test_a_recall_takes_no_more_than_without_far_rows(
    count: int, times: float, metric: str
) -> None:
    """Under ip the far ones that look the query's way are among the best of all."""
    rows, queries = clustered(9000, 40), clustered(500, 40, seed=6)
    codes = []
    for every in (rows, with_far(rows, count, times)):
        built = coded(every, metric, 150)
        searcher = Searcher(built.lists, metric, SEED)
        stop = patience.stop_for(calibration.calibrate(searcher, built.rows, SEED), 10, 0.95)
        assert stop is not None
        edges = exact(built.rows, queries, metric, 10)[:, -1]
        assert calibration.measure(searcher, built.rows, queries, edges, stop) > 0.94
        found = searcher.search_batch(queries, stop, wanted=18, epsilon=stop.epsilon)
        codes.append(found.counts[:, 2].mean())
    assert codes[1] < 2 * codes[0]
