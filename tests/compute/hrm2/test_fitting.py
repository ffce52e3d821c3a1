"""Fitting: what is uncertain makes a search patient, and what bounds cost is told from it."""

from __future__ import annotations

import numpy as np

from m2mdb.compute.hrm2 import fitting
from m2mdb.compute.hrm2.fitting import LEVELS, Traced, fitted, hardness_edges, in_doubt, is_cut
from m2mdb.compute.hrm2.patience import RECALLS, UNREACHED
from m2mdb.compute.hrm2.reference import HARD

HIGH = len(RECALLS) - 1


def traced(found_at: np.ndarray, groups: np.ndarray | None = None, k: int = 1) -> Traced:
    """Queries each of which finds all k rows at a level, and none before; -1: never."""
    at = np.arange(len(LEVELS))
    recalls = (found_at[:, None] <= at) & (found_at[:, None] >= 0)
    hardness = np.linspace(0, 1, len(found_at))
    numbers = np.zeros(len(found_at), np.int64) if groups is None else groups
    lists = np.broadcast_to(LEVELS.astype(np.float64), recalls.shape)
    return Traced(hardness, recalls.astype(np.float64), numbers, lists)


def test_what_is_found_late_but_always_is_reached() -> None:
    """However few the queries are: uncertainty alone makes no search a scan."""
    for count in (1, 2, 7, 60):
        late = traced(np.full(count, len(LEVELS) - 1))
        for column in range(len(RECALLS)):
            patience = fitted(late, hardness_edges(late.hardness), column)
            assert (patience < UNREACHED).all()
            assert patience[-1] == LEVELS[-1]


def test_what_is_never_found_is_unreached() -> None:
    rng = np.random.default_rng(1)
    never = traced(np.where(rng.random(300) < 0.2, -1, 3))
    edges = hardness_edges(never.hardness)
    assert (fitted(never, edges, HIGH) == UNREACHED).all()
    assert (fitted(never, edges, 0) < UNREACHED).all()


def test_a_search_does_not_go_on_for_what_it_cannot_find() -> None:
    """One of 300 queries finds nothing; the others' patience is enough."""
    found_at = np.full(300, 4)
    found_at[150] = -1
    some = traced(found_at)
    patience = fitted(some, hardness_edges(some.hardness), HIGH)
    assert (patience == LEVELS[4]).all()


def test_each_group_reaches_the_recall_for_itself() -> None:
    """Ninety in a hundred queries are easy; the others find nothing before the tenth level."""
    groups = np.where(np.arange(1000) % 10, 0, 1)
    some = traced(np.where(groups, 10, 0), groups)
    edges = hardness_edges(some.hardness)
    at = np.searchsorted(LEVELS, fitted(some, edges, RECALLS.index(0.9)))
    reached = some.recalls[np.arange(1000), at[np.searchsorted(edges, some.hardness)]]
    assert reached[groups == 1].mean() >= 0.9
    assert len(at) == HARD


def test_bounds_may_cost_half_of_what_a_recall_may_lose() -> None:
    lost = np.zeros(1000, np.int64)
    lost[:6] = -1
    some = traced(lost)
    assert is_cut(some, HIGH, 1)
    assert not is_cut(some, RECALLS.index(0.98), 1)
    assert not is_cut(traced(lost[6:]), HIGH, 1)


def test_few_queries_are_in_doubt_and_many_are_not() -> None:
    rng = np.random.default_rng(2)
    groups = np.repeat([0, 1], [60, 600])
    assert in_doubt(traced(rng.integers(0, 20, 660), groups)) == [0]


def test_a_query_whose_rows_are_found_one_by_one_tells_more() -> None:
    """Ten rows of a query, each found or not for itself, and all of them or none."""
    rng = np.random.default_rng(3)
    at = np.arange(len(LEVELS))
    late = rng.integers(0, 20, (60, 10))
    recalls = (late[:, :, None] <= at).mean(axis=1)
    some = Traced(np.linspace(0, 1, 60), recalls, np.zeros(60, np.int64), recalls)
    assert in_doubt(some) == []
    assert in_doubt(traced(late[:, 0])) == [0]


def test_helpings_join() -> None:
    one, other = traced(np.zeros(3, np.int64)), traced(np.ones(5, np.int64))
    both = one.and_also(other)
    assert [len(part) for part in both] == [8, 8, 8, 8]
    assert fitting.finds_more(traced(np.full(4, -1)), traced(np.zeros(4, np.int64)))


def test_a_goal_is_three_errors_above_the_least_for_a_recall_and_no_less_than_it() -> None:
    """Few queries ask for more than a recall, very many for the recall itself."""
    rng = np.random.default_rng(4)
    for count in (100, 1_000, 40_000):
        some = traced(rng.integers(0, 20, count))
        for recall, least in ((0.5, 0.49), (0.9, 0.89), (0.98, 0.97), (0.99, 0.985)):
            error = (least * (1 - least) / count) ** 0.5
            (goal,) = fitting.goals_of(some, recall, 3.0).values()
            assert abs(goal - max(recall, least + 3 * error)) < 1e-9
            assert fitting.goals_of(some, recall, 0.0) == {0: recall}


def test_more_queries_are_asked_where_they_lower_a_goal_that_binds() -> None:
    """Not of a group that finds all with ease, or of which bounds leave out too much."""
    rng = np.random.default_rng(5)
    groups = np.repeat([0, 1, 2, 3], [200, 200, 200, 4000])
    found_at = rng.integers(0, 20, 4600)
    found_at[groups == 1] = 0
    found_at[(groups == 2) & (rng.random(4600) < 0.4)] = -1
    some = traced(found_at, groups)
    some = some._replace(hardness=rng.random(4600))
    edges = hardness_edges(some.hardness)
    wanted = fitting.too_few(some, edges, lambda _: 200)
    assert 0 in wanted
    assert 2 not in wanted
    assert 3 not in wanted
    assert fitting.too_few(some, edges, lambda _: 0) == [
        group for group in in_doubt(some) if group != 2
    ]


def test_queries_far_off_the_rows_have_a_range_for_themselves() -> None:
    """Those that are no harder than others share theirs."""
    rng = np.random.default_rng(6)
    near, far = rng.random(500), 1.5 + rng.random(100)
    is_far = np.repeat([False, True], [500, 100])
    edges = hardness_edges(np.concatenate((near, far)), is_far)
    assert (np.diff(edges) > 0).all()
    assert edges[-2] < 1 < 1.5 < edges[-1] < np.quantile(far, 0.15)
    every = np.concatenate((near, far - 1.5))
    assert np.array_equal(hardness_edges(every, is_far), hardness_edges(every))
    for none in (np.zeros(600, bool), np.ones(600, bool)):
        assert np.array_equal(hardness_edges(every, none), hardness_edges(every))
