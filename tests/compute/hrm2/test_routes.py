"""Routes: every list is reached, in nearly the order of its distance."""

from __future__ import annotations

import numpy as np
import pytest

from m2mdb.compute.hrm2 import kernels, reference
from m2mdb.compute.hrm2.lists import BLOCK
from m2mdb.compute.hrm2.reference import Stop
from m2mdb.compute.hrm2.rotation import transform
from m2mdb.compute.hrm2.routes import routes_of, spreads_of
from m2mdb.compute.hrm2.searcher import Searcher
from tests.compute.hrm2.conftest import SEED, Coded, clustered, coded

METRICS = ["cosine", "l2", "ip"]


@pytest.fixture(scope="module", params=METRICS)
def many(request: pytest.FixtureRequest) -> Coded:
    """More lists than two waves."""
    return coded(clustered(6000, 40), request.param, 700)


def order_of(built: Coded, query: np.ndarray) -> np.ndarray:
    """The lists of a compiled search that probes all of them, in its order."""
    searcher = Searcher(built.lists, built.metric, SEED)
    count = len(built.lists.center_scales)
    scratch = searcher.run(query, Stop(1, count, 0, count, 0.0), wanted=4, epsilon=1.3)
    at = kernels.ORDER - len(searcher._arrays)
    order: np.ndarray = scratch.kept[at].copy()
    return order


def test_every_list_has_one_route(many: Coded) -> None:
    """R1"""
    routes = routes_of(many.lists, many.metric)
    numbers = routes.numbers[routes.numbers >= 0]
    assert np.array_equal(np.sort(numbers), np.arange(len(many.lists.center_scales)))
    assert (np.diff(routes.starts) > 0).all()
    assert len(routes.super_scales) == len(routes.starts) - 1 > 5
    assert np.isposinf(routes.factors[:, :BLOCK][routes.numbers < 0]).all()


def test_routes_depend_on_the_lists_alone(many: Coded) -> None:
    """R2"""
    one, two = routes_of(many.lists, many.metric), routes_of(many.lists, many.metric)
    for name in one._fields:
        assert np.array_equal(getattr(one, name), getattr(two, name)), name


def test_every_list_is_probed_once_whatever_the_waves(many: Coded) -> None:
    rng = np.random.default_rng(3)
    for query in rng.standard_normal((5, 40)).astype(np.float32):
        order = order_of(many, query)
        assert np.array_equal(np.sort(order), np.arange(len(order)))


def test_the_first_lists_are_those_of_the_twin(many: Coded) -> None:
    rng = np.random.default_rng(4)
    routes = routes_of(many.lists, many.metric)
    padded = np.zeros(many.width, np.float32)
    kept = []
    for query in many.rows[rng.integers(0, len(many.rows), 100)]:
        padded[:40] = query
        prepared = reference.prepare(transform(padded[None], SEED)[0])
        twin, distances = reference.list_order(many.lists, routes, prepared, many.metric)
        order = order_of(many, query)
        # a wave's end or a bucket's may fall to either side of a rounding
        assert len(set(order[:90].tolist()) & set(twin[:110].tolist())) >= 88
        keys = distances if many.metric == "ip" else distances + 0.5 * routes.spreads
        best = np.argsort(keys, kind="stable")[:20]
        kept.append(len(set(order[:40].tolist()) & set(best.tolist())))
    assert min(kept) >= 14  # 1-bit estimates choose a wave, and lose one of the best now and then
    assert sum(kept) >= 0.98 * 20 * len(kept)


def test_spreads_are_mean_squares_of_residuals() -> None:
    built = coded(clustered(900, 40), "l2", 12, spill=False)
    lists = built.lists
    codes = lists.bytes8.reshape(len(lists.ordinals), -1).astype(np.float32) - 128
    rows = codes * lists.scales[:, None]
    centers = lists.centers.reshape(len(lists.center_scales), -1).astype(np.float32) - 128
    centers *= lists.center_scales[:, None]
    spreads = spreads_of(lists)
    for each in range(len(centers)):
        block = lists.positions[lists.starts[each] : lists.starts[each + 1]]
        members = rows[block[block >= 0]]
        squares = ((members - centers[each]) ** 2).sum(axis=1)
        assert np.isclose(spreads[each], squares.mean(), rtol=0.05)


def test_one_list_has_a_route() -> None:
    built = coded(np.ones((40, 5), np.float32), "l2", 1)
    found = Searcher(built.lists, "l2", SEED).search(
        np.ones(5, np.float32), Stop(3, 1, 0, 1, 0.0), wanted=3, epsilon=2.0
    )
    assert found.probed == 1
    assert len(found.ordinals) == 3


def test_a_search_of_few_lists_brings_few_in_order_and_finds_nearly_the_same(many: Coded) -> None:
    """PROBES: the twin's lists, of the routes of the near supers alone."""
    searcher = Searcher(many.lists, many.metric, SEED)
    at = kernels.COUNTS - len(searcher._arrays)
    routes = routes_of(many.lists, many.metric)
    supers, lists = len(routes.super_scales), len(many.lists.center_scales)
    padded, few, shared = np.zeros(many.width, np.float32), Stop(10, 5, 0, 5, 0.0), []
    assert supers > reference.FEW_OPEN
    for query in many.rows[np.random.default_rng(5).integers(0, len(many.rows), 60)]:
        padded[:40] = query
        scratch = searcher.run(query, few, wanted=18, epsilon=1.3)
        assert scratch.kept[at][kernels.OPEN_SUPERS] == reference.FEW_OPEN
        prepared = reference.prepare(transform(padded[None], SEED)[0])
        twin, _ = reference.list_order(many.lists, routes, prepared, many.metric, 5)
        assert np.array_equal(np.sort(twin), np.arange(lists))
        order = scratch.kept[kernels.ORDER - len(searcher._arrays)][:5].tolist()
        every = order_of(many, query)[:5].tolist()
        assert len(set(order) & set(twin[:7].tolist())) >= 4
        shared.append(len(set(order) & set(every)))
        searcher.give_back(scratch)
    assert np.mean(shared) > 4.5
