"""Rules: where rows of a cluster are all as far from each other, lists are counted."""

from __future__ import annotations

import numpy as np
import pytest

from m2mdb.compute.hrm2 import patience, rules
from m2mdb.compute.hrm2.calibration import calibrate, measure
from m2mdb.compute.hrm2.fitting import LEVELS, Traced, fitted
from m2mdb.compute.hrm2.patience import KS, RECALLS, stop_for
from m2mdb.compute.hrm2.reference import HARD, MANY_LISTS
from m2mdb.compute.hrm2.rules import BY_NUMBER, RULES, USUAL, Point, chosen_rules
from m2mdb.compute.hrm2.searcher import Searcher
from m2mdb.compute.hrm2.truth import exact
from tests.compute.hrm2.conftest import SEED, coded, unit


def normal_clusters(count: int, clusters: int, dimension: int, seed: int) -> np.ndarray:
    """Rows of which those of a cluster are all nearly as far from each other."""
    rng = np.random.default_rng(4)
    centers = rng.standard_normal((clusters, dimension))
    rng = np.random.default_rng(seed)
    rows = centers[rng.integers(0, clusters, count)] + rng.standard_normal((count, dimension))
    return unit(rows.astype(np.float32))


def test_searches_for_many_rows_of_a_cluster_stop_early_and_find_what_is_asked() -> None:
    """Nearly every list of a cluster of 400 brings one of the 64 best."""
    built = coded(normal_clusters(16_000, 40, 160, 1), "cosine", 400)
    searcher = Searcher(built.lists, "cosine", SEED)
    table = calibrate(searcher, built.rows, 1)
    assert table.rules is not None
    assert (table.rules[:, RECALLS.index(0.9), :HARD] == 0).any()
    queries = normal_clusters(400, 40, 160, 2)
    usual = table._replace(rules=None)
    for k in (10, 64, 100):
        edges = exact(built.rows, queries, "cosine", k)[:, -1]
        lists = []
        for recall in (0.8, 0.9, 0.95, 0.99):
            stop, plain = stop_for(table, k, recall), stop_for(usual, k, recall)
            assert stop is not None
            assert plain is not None
            got = measure(searcher, built.rows, queries, edges, stop)
            assert got >= recall - 0.015, (k, recall, got)
            for each in (stop, plain):
                found = searcher.search_batch(
                    queries, each, wanted=k + patience.spare(k), epsilon=each.epsilon
                )
                lists.append(float(found.counts[:, 1].mean()))
        assert lists[0] < 0.7 * lists[6], (k, lists)
        assert lists[::2] == sorted(lists[::2]), (k, lists)
        # who knows nothing of rules searches longer
        assert all(ruled <= plain for ruled, plain in zip(lists[::2], lists[1::2], strict=True))


def point(usual: float, by_number: float) -> Point:
    """The same costs for every recall."""
    shape = len(RULES), len(RECALLS)
    costs = np.repeat([[usual], [by_number]], len(RECALLS), axis=1)
    return Point(
        np.zeros(HARD - 1), np.ones((*shape, HARD), np.float32), np.ones(len(RECALLS), np.float32),
        costs, np.exp2(costs),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("points", "expected"),
    [([(3.0, 2.5)], BY_NUMBER), ([(3.0, 2.95)], USUAL), ([(3.0, 2.5), (3.0, 3.2)], USUAL),
     ([(3.0, 2.5), (3.0, 3.0)], BY_NUMBER), ([(3.0, np.inf)], USUAL),
     ([(np.inf, np.inf)], USUAL), ([(np.inf, 3.0)], BY_NUMBER), ([], USUAL)],
)  # fmt: skip
def test_another_rule_has_to_save_a_good_deal_and_to_cost_nothing_at_any_k(
    points: list[tuple[float, float]], expected: int
) -> None:
    assert chosen_rules([point(*each) for each in points]).tolist() == [expected] * len(RECALLS)


def test_ranges_are_easy_up_to_the_last_that_likely_queries_have_a_share_of() -> None:
    ranges = np.repeat(np.arange(HARD), 20)
    likely = np.zeros(len(ranges), bool)
    assert rules.easy_ranges(ranges, likely) == 0
    likely[40:50] = True
    assert rules.easy_ranges(ranges, likely) == 3
    likely[100] = True
    assert rules.easy_ranges(ranges, likely) == 3
    likely[100:103] = True
    assert rules.easy_ranges(ranges, likely) == HARD


def test_patience_ascends_in_each_part_for_itself() -> None:
    """Six lists by number do not make harder queries wait for six lists without a row."""
    found_at = np.array([5, 5, 5, 1, 1, 9]).repeat(50)
    recalls = (found_at[:, None] <= np.arange(len(LEVELS))).astype(np.float64)
    hardness = np.arange(HARD).repeat(50).astype(np.float64)
    traced = Traced(hardness, recalls, np.zeros(len(found_at), np.int64), recalls)
    edges = np.arange(0.5, HARD - 1, dtype=np.float64)
    assert fitted(traced, edges, 3, 3).tolist() == LEVELS[[5, 5, 5, 1, 1, 9]].tolist()
    assert fitted(traced, edges, 3).tolist() == LEVELS[[5, 5, 5, 5, 5, 9]].tolist()


def test_between_points_and_beyond_them() -> None:
    """Fewer lists in order only between points that both have them, and of all rows."""
    table = patience.unmeasured_table()
    assert table.rules is not None
    table.patience[:] = 5
    table.rules[:, :, :2] = 0
    table.rules[1:, :, HARD] = 8
    for k, share, ahead in (
        (1, 1, 0),
        (5, 1, 0),
        (10, 1, 8),
        (64, 1, 8),
        (100, 1, 8),
        (64, 0.9, 0),
    ):
        stop = stop_for(table, k, 0.9, share)
        assert stop is not None
        assert stop.hardness is not None
        assert stop.waits
        assert stop.hardness[-HARD:].tolist() == [0, 0, 1, 1, 1, 1]
        assert stop.ahead == (ahead or MANY_LISTS)
    beyond = stop_for(table, KS[-1] + 1, 0.9)
    assert beyond is not None
    assert beyond.hardness is not None
    assert (beyond.hardness[-HARD:] == 1).all()
    assert beyond.ahead == MANY_LISTS
