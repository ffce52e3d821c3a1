"""Calibration: the recall that is asked is the recall that is reached."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from m2mdb.compute.hrm2 import asking, calibration, fitting, patience
from m2mdb.compute.hrm2.calibration import calibrate, measure
from m2mdb.compute.hrm2.lists import never
from m2mdb.compute.hrm2.patience import KS, LEAST, Table, stop_for
from m2mdb.compute.hrm2.reference import EPSILON, MANY_LISTS, Stop
from m2mdb.compute.hrm2.searcher import Searcher
from m2mdb.compute.hrm2.truth import exact
from tests.compute.hrm2.conftest import SEED, coded, unit

ASKED = (0.8, 0.9, 0.95, 0.99)
TOLERANCE = 0.01


def low_dimensional(count: int, dimension: int, seed: int) -> np.ndarray:
    """Clusters of uneven weight along a few directions of their own, and some noise."""
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((60, dimension))
    labels = (rng.random(count) ** 2 * len(centers)).astype(int)
    axes = rng.standard_normal((len(centers), 6, dimension))
    along = rng.standard_normal((count, 6))
    rows: np.ndarray = centers[labels] + 0.4 * np.einsum("ij,ijk->ik", along, axes[labels])
    return (rows + 0.2 * rng.standard_normal(rows.shape)).astype(np.float32)


def reached(
    searcher: Searcher, rows: np.ndarray, queries: np.ndarray, table: Table
) -> dict[tuple[int, float], float]:
    """What is reached of each recall asked, for each k; 1 where every row is compared."""
    best = exact(rows, queries, searcher.metric, KS[-1])
    out = {}
    for k in KS:
        for asked in ASKED:
            stop = stop_for(table, k, asked)
            edges = best[:, k - 1]
            out[k, asked] = measure(searcher, rows, queries, edges, stop) if stop else 1.0
    return out


def error_of(asked: float, queries: int, k: int) -> float:
    """So many queries tell a mean only so well: two standard errors."""
    return float(2 * np.sqrt(asked * (1 - asked) / (queries * min(k, 10))))


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
def test_queries_of_all_kinds_reach_the_recall_that_is_asked(metric: str) -> None:
    rows = low_dimensional(9600, 40, 3)
    built = coded(rows[:9000], metric, 96)
    searcher = Searcher(built.lists, metric, SEED)
    table = calibrate(searcher, built.rows, 1)
    made = calibration.made_queries(searcher, built.rows, np.random.default_rng(77))
    made = asking.ready(made, metric)
    others = rows[9000:]
    for queries in (unit(others) if metric == "cosine" else others, made):
        for (k, asked), got in reached(searcher, built.rows, queries, table).items():
            error = error_of(asked, len(queries), k)
            assert got >= asked - TOLERANCE - error, (k, asked)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_queries_unrelated_to_the_rows_reach_the_recall_that_is_asked(metric: str) -> None:
    """Rows in many tight clusters, and noise: easier queries off the rows do not make up for it."""
    rng = np.random.default_rng(5)
    rows = rng.standard_normal((300, 64))[rng.integers(0, 300, 20_000)]
    rows += 0.3 * rng.standard_normal(rows.shape)
    built = coded(rows.astype(np.float32), metric, 400)
    searcher = Searcher(built.lists, metric, SEED)
    table = calibrate(searcher, built.rows, 1)
    queries = asking.ready(rng.standard_normal((500, 64)).astype(np.float32), metric)
    for (k, asked), got in reached(searcher, built.rows, queries, table).items():
        assert got >= asked - TOLERANCE - error_of(asked, len(queries), k), (k, asked, got)


@pytest.mark.parametrize("share", [0.6, 0.35, 0.1, 0.04])
def test_the_recall_is_reached_among_the_rows_that_pass(share: float) -> None:
    rows = low_dimensional(9600, 40, 3)
    built = coded(rows[:9000], "l2", 96)
    searcher = Searcher(built.lists, "l2", SEED)
    table = calibrate(searcher, built.rows, 1)
    made = calibration.made_queries(searcher, built.rows, np.random.default_rng(77))
    mask = np.random.default_rng(8).random(9000) < share
    for queries in (rows[9000:], made):
        best = exact(built.rows[mask], queries, "l2", KS[-1])
        for k in KS:
            for asked in (0.9, 0.95):
                stop = stop_for(table, k, asked, share)
                assert stop is not None
                got = measure(searcher, built.rows, queries, best[:, k - 1], stop, mask)
                error = error_of(asked, len(queries), k)
                assert got >= asked - TOLERANCE - error, (k, asked)


def test_patience_ascends_with_recall_and_hardness() -> None:
    """C1"""
    built = coded(low_dimensional(6000, 32, 6), "l2", 64)
    table = calibrate(Searcher(built.lists, "l2", SEED), built.rows, 1)
    assert table.rules is not None
    for at in range(len(patience.RECALLS) - 1):
        if (table.rules[:, at, :-1] == table.rules[:, at + 1, :-1]).all():
            assert (table.patience[:, :, at] <= table.patience[:, :, at + 1]).all()
    same = np.diff(table.rules[None, :, :, :-1], axis=3) == 0
    assert (np.diff(table.patience, axis=3)[np.broadcast_to(same, (2, *same.shape[1:]))] >= 0).all()
    assert (np.diff(table.edges, axis=2) >= 0).all()
    assert (table.patience >= 1).all()


def test_the_table_depends_on_the_seed_alone() -> None:
    """C2"""
    built = coded(low_dimensional(3000, 20, 4), "l2", 32)
    tables = [calibrate(Searcher(built.lists, "l2", SEED), built.rows, 9) for _ in range(2)]
    for one, other in zip(*tables, strict=True):
        assert one.tobytes() == other.tobytes()


def test_a_lower_recall_costs_less() -> None:
    built = coded(low_dimensional(9000, 40, 3), "l2", 96)
    searcher = Searcher(built.lists, "l2", SEED)
    table = calibrate(searcher, built.rows, 1)
    queries = calibration.made_queries(searcher, built.rows, np.random.default_rng(5))
    for k in KS:
        codes = []
        for asked in (0.8, 0.95, 0.99):
            stop = stop_for(table, k, asked)
            assert stop is not None
            found = searcher.search_batch(queries, stop, wanted=2 * k, epsilon=1.3)
            codes.append(found.counts[:, 2].sum())
        assert codes[0] <= codes[1] < codes[2], k


def test_easy_queries_cost_less_than_hard_ones() -> None:
    built = coded(low_dimensional(9000, 40, 3), "l2", 96)
    searcher = Searcher(built.lists, "l2", SEED)
    stop = stop_for(calibrate(searcher, built.rows, 1), 10, 0.95)
    assert stop is not None
    far = built.rows.mean(axis=0) + 1.5 * np.random.default_rng(1).standard_normal((50, 40))
    costs = [
        searcher.search_batch(queries.astype(np.float32), stop, wanted=20, epsilon=1.3).counts[:, 2]
        for queries in (built.rows[:50], far)
    ]
    assert 3 * costs[0].mean() < costs[1].mean()


def level_table(rows: list[list[float]]) -> Table:
    return patience.plain_table(np.array(rows, np.float32))


def test_a_stop_lies_between_those_of_the_points_around_it() -> None:
    """C1"""
    table = level_table([[1, 2, 3, 4, 5, 6], [10, 20, 30, 40, 50, 60], [4, 5, 6, 7, 8, 9]])
    for k, row in ((1, 0), (10, 1), (100, 2)):
        for recall, column in ((0.1, 0), (0.5, 0), (0.8, 1), (0.85, 2), (0.95, 3), (0.999, 5)):
            stop = stop_for(table, k, recall)
            assert stop is not None
            assert stop.k == k
            assert stop.patience == table.patience[0, row, column, 0]

    def patience(k: int, share: float = 1.0) -> int:
        stop = stop_for(table, k, 0.95, share)
        assert stop is not None
        return stop.patience

    assert 4 < patience(3) < 40
    assert patience(400) == 14
    assert [patience(10, share) for share in (1.0, 0.5, 0.1, 0.01)] == [40, 53, 101, 253]
    stops = [stop_for(table, k, 0.9) for k in (1, 10, 100, 1000)]
    assert [stop.factor for stop in stops if stop] == [1.5, 1.5, 1.0, 1.0]


def test_where_no_patience_suffices_every_row_is_compared() -> None:
    """Rows that differ by less than a step of their codes."""
    rng = np.random.default_rng(3)
    rows = 100 + 1e-3 * rng.standard_normal((2000, 24))
    built = coded(rows.astype(np.float32), "l2", 32)
    table = calibrate(Searcher(built.lists, "l2", SEED), built.rows, 1)
    assert all(stop_for(table, k, 0.95, share) is None for k in KS for share in (1, 0.2, 0.01))


def test_a_recall_that_bounds_cost_is_reached_by_looser_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a million rows the usual bounds leave out more than 0.99 may lose, as 0.2 here does."""
    rows = low_dimensional(9600, 40, 3)
    built, queries = coded(rows[:9000], "l2", 96), rows[9000:]
    searcher = Searcher(built.lists, "l2", SEED)
    monkeypatch.setattr(calibration, "EPSILONS", (0.2,))
    assert stop_for(calibrate(searcher, built.rows, 1), 10, 0.99) is None
    monkeypatch.setattr(calibration, "EPSILONS", (0.2, 1.7))
    table = calibrate(searcher, built.rows, 1)
    for (k, asked), got in reached(searcher, built.rows, queries, table).items():
        assert got >= asked - TOLERANCE - error_of(asked, len(queries), k), (k, asked)
    for k in KS:
        stop = stop_for(table, k, 0.99)
        assert stop is not None
        assert stop.epsilon == pytest.approx(1.7)
    assert (np.diff(table.epsilon, axis=2) >= 0).all()


def test_few_queries_make_no_search_a_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be shown by so few is met by patience."""
    built = coded(low_dimensional(9000, 40, 3), "l2", 96)
    searcher = Searcher(built.lists, "l2", SEED)
    for name in ("STORED", "MADE", "HALVED", "NOISY", "FREE"):
        monkeypatch.setattr(calibration, f"{name}_QUERIES", 1)
    monkeypatch.setattr(calibration, "HELPINGS", 1)
    table = calibrate(searcher, built.rows, 1)
    assert all(stop_for(table, k, asked) is not None for k in KS for asked in ASKED)


def test_queries_that_are_too_few_to_tell_are_followed_by_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built = coded(low_dimensional(9000, 40, 3), "l2", 96)
    searcher, asked = Searcher(built.lists, "l2", SEED), []
    plain = calibration._Measuring.traced

    def watched(self: calibration._Measuring, *how: Any) -> list[fitting.Traced]:
        found = plain(self, *how)
        asked.append((self.k, len(found[0].groups), self.epsilon))
        return found

    monkeypatch.setattr(calibration._Measuring, "traced", watched)
    calibrate(searcher, built.rows, 1)
    first = [count for k, count, epsilon in asked if k == 1 and epsilon == EPSILON]
    assert len(first) > 2, "the first helping, others, and those among a tenth of the rows"
    assert sum(first[:-1]) > 1000


@pytest.mark.parametrize("ahead", [MANY_LISTS, patience.FEW_LISTS])
def test_a_trace_tells_what_shorter_searches_find_and_do(ahead: int) -> None:
    """K5, TR1: the table is read off one long search of each query, for every rule."""
    built = coded(low_dimensional(6000, 32, 6), "l2", 64)
    searcher = Searcher(built.lists, "l2", SEED)
    queries = calibration.made_queries(searcher, built.rows, np.random.default_rng(2))[:90]
    passing = np.random.default_rng(3).random(len(built.rows)) < 0.3
    for mask in (None, passing):
        among = built.rows if mask is None else built.rows[mask]
        for k in KS:
            edges = exact(among, queries, "l2", k)[:, -1]
            measuring = calibration._Measuring(searcher, built.rows, mask, k)
            measuring.ahead = ahead
            _, told, probed = measuring.measured(queries, np.full(len(queries), -1), edges)
            for at, factor in enumerate(measuring.factors.tolist()):
                for level in (0, 5, 12):
                    patient = int(fitting.LEVELS[level])
                    stop = Stop(k, LEAST, patient, 1 << 30, factor, ahead=ahead, waits=True)
                    got = measure(searcher, built.rows, queries, edges, stop, mask)
                    assert abs(got - told[:, at, level].mean()) < 0.003, (k, factor, level)
                    found = searcher.search_batch(
                        queries, stop, wanted=k + patience.spare(k), epsilon=EPSILON, mask=mask
                    )
                    same = found.counts[:, 1] == probed[:, at, level]
                    assert same.mean() > 0.95, (k, factor, level)


def test_a_trace_sees_true_neighbours_pushed_out_by_copies_of_others() -> None:
    """TR1: a dozen copies whose codes look nearer take all places that a search keeps."""
    rng = np.random.default_rng(12)
    rows = low_dimensional(300, 40, 3)[rng.integers(0, 300, 9000)]
    built = coded(rows, "l2", 96)
    searcher = Searcher(built.lists, "l2", SEED)
    queries = rows.mean(axis=0) + rows.std(axis=0) * rng.standard_normal((1500, 40))
    queries = queries.astype(np.float32)
    for k in (1, 10):
        edges = exact(built.rows, queries, "l2", k)[:, -1]
        measuring = calibration._Measuring(searcher, built.rows, None, k)
        _, told, _ = measuring.measured(queries, np.full(len(queries), -1), edges)
        for level in (10, len(fitting.LEVELS) - 1):
            patient = int(fitting.LEVELS[level])
            stop = Stop(k, LEAST, patient, 1 << 30, float(measuring.factors[0]), waits=True)
            got = measure(searcher, built.rows, queries, edges, stop)
            assert abs(got - told[:, 0, level].mean()) < 0.0005, (k, level)


def test_a_trace_tells_hardness_and_leaves_the_query_itself_out() -> None:
    """TR1, TR2: what a search of LEAST lists finds without the row that the query is."""
    built = coded(low_dimensional(6000, 32, 6), "l2", 64)
    searcher = Searcher(built.lists, "l2", SEED)
    own = np.arange(0, 6000, 300)
    passing = np.random.default_rng(3).random(len(built.rows)) < 0.5
    for k in (1, 10):
        measuring = calibration._Measuring(searcher, built.rows, passing, k)
        before = measuring.mask.copy()
        edges = np.full(len(own), -1, np.float32)
        hardness, _, _ = measuring.measured(built.rows[own], own, edges)
        assert np.array_equal(measuring.mask, before)
        for at, row in enumerate(own.tolist()):
            mask = passing.copy()
            mask[row] = False
            stop = Stop(k, LEAST, 0, LEAST, 0.0)
            found = searcher.search(built.rows[row], stop, wanted=k + 8, epsilon=EPSILON, mask=mask)
            nearness = found.nearness
            if len(nearness) >= k:
                assert hardness[at] == nearness[k - 1]


def test_the_work_of_searches_is_what_they_do() -> None:
    """TR1: read off one search, of all recalls."""
    built = coded(low_dimensional(9000, 40, 3), "l2", 96)
    searcher = Searcher(built.lists, "l2", SEED)
    table = calibrate(searcher, built.rows, 1)
    queries = calibration.made_queries(searcher, built.rows, np.random.default_rng(2))[:40]
    passing = np.random.default_rng(3).random(len(built.rows)) < 0.1
    for share, mask in ((0, None), (1, passing)):
        calibration._measure_work(searcher, table, queries, (share, mask))
        for row, k in enumerate(KS):
            for column, recall in enumerate(patience.RECALLS):
                stop = stop_for(table, k, recall, patience.WORK_SHARES[share])
                assert stop is not None
                wanted = k + patience.spare(k)
                found = searcher.search_batch(
                    queries, stop, wanted=wanted, epsilon=stop.epsilon, mask=mask
                )
                expected = np.maximum(1, found.counts[:, 1:].mean(axis=0))
                assert np.allclose(table.work[share, row, column], expected), (share, k, recall)


def test_a_stored_row_is_searched_for_among_the_others() -> None:
    built = coded(low_dimensional(6000, 32, 6), "l2", 64)
    searcher = Searcher(built.lists, "l2", SEED)
    queries = calibration.queries_for(searcher, built.rows, 4)
    stored = np.flatnonzero(queries.groups == 0)
    assert (queries.own[stored] >= 0).all()
    assert (queries.own[queries.groups != 0] == -1).all()
    best = calibration._best(searcher, built.rows, queries.first(20), None, never)
    for at in stored[:20]:
        own = int(queries.own[at])
        others = np.delete(built.rows, own, axis=0)
        for k in KS:
            expected = exact(others, built.rows[own : own + 1], "l2", k)[0, -1]
            assert np.isclose(best[k][at], expected, atol=1e-3)


def test_known_queries_take_the_place_of_made_up_ones() -> None:
    built = coded(low_dimensional(6000, 32, 6), "l2", 64)
    searcher = Searcher(built.lists, "l2", SEED)
    known = np.ascontiguousarray(built.rows[::50])
    assert len(known) >= calibration.ENOUGH
    easy, usual = calibrate(searcher, built.rows, 1, known), calibrate(searcher, built.rows, 1)
    groups = calibration.queries_for(searcher, built.rows, 1, known).groups
    assert set(groups.tolist()) == {asking.STORED, asking.KNOWN}
    assert easy.patience.sum() < usual.patience.sum()
    got = reached(searcher, built.rows, built.rows[7::20], easy)
    assert all(value >= asked - 0.03 for (_, asked), value in got.items())


def test_a_few_known_queries_come_beside_the_made_up_ones() -> None:
    built = coded(low_dimensional(3000, 20, 4), "l2", 32)
    queries = calibration.queries_for(Searcher(built.lists, "l2", SEED), built.rows, 1,
                                      built.rows[:9])  # fmt: skip
    counts = np.bincount(queries.groups).tolist()
    names = "MADE", "HALVED", "NOISY", "FREE"
    made = [getattr(calibration, f"{name}_QUERIES") for name in names]
    assert counts == [calibration.STORED_QUERIES, *made, 9]


@pytest.mark.slow
def test_real_sentences_reach_the_recall_that_is_asked() -> None:
    """Sentences that search short definitions, and half of them as known queries."""
    folder = Path(os.environ.get("M2M_DATA") or "/nowhere")
    if not (folder / "vectors.f16.npy").exists():
        pytest.skip("needs the wordnet vectors in $M2M_DATA")
    rows = unit(np.load(folder / "vectors.f16.npy").astype(np.float32))
    queries = np.load(folder / "query_vectors.f32.npy")
    built = coded(rows, "cosine", 1000)
    searcher = Searcher(built.lists, "cosine", SEED)
    for known in (None, queries[1::8]):
        table = calibrate(searcher, rows, 1, known)
        got = reached(searcher, rows, queries[::10], table)
        assert all(value >= asked - TOLERANCE for (_, asked), value in got.items()), got
