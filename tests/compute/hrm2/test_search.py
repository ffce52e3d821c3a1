"""The compiled search against its NumPy twin and against exact search."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from m2mdb.compute.hrm2 import reference
from m2mdb.compute.hrm2.reference import Stop
from m2mdb.compute.hrm2.searcher import KEPT_SIZES, Searcher
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


HARDNESS = np.array([0.5, 1, 2, 4, 40, 3, 3, 5, 5, 8, 13, 0, 0, 0, 1, 1, 1], np.float32)


@pytest.mark.parametrize(
    "stop",
    [EVERYTHING, Stop(5, 2, 2, 9, 1.5), Stop(1, 1, 0, 1, 0.0), Stop(10, 3, 4, 1000, 1.5),
     Stop(10, 2, 9, 1000, 1.5, HARDNESS), Stop(60, 2, 9, 1000, 1.0, HARDNESS, waits=True),
     Stop(10, 2, 9, 1000, 1.5, HARDNESS, ahead=2, waits=True)],
)  # fmt: skip
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


def test_hardness_is_told_when_there_are_k_rows(small: Coded) -> None:
    """And what it says holds: a number of lists, or how much of the factor."""
    searcher, k = Searcher(small.lists, small.metric, SEED), 60
    for query in queries_for(small, 10):
        done = found = 0
        while done < 2 or found < k:
            done += 1
            stop = Stop(k, done, 0, done, 0.0)
            nearness = searcher.search(query, stop, wanted=k, epsilon=1.3).nearness
            found = len(nearness)
        above = np.nextafter(nearness[k - 1], np.float32(np.inf))
        below = np.nextafter(nearness[k - 1], np.float32(-np.inf))
        for edge, number in ((above, done + 3), (below, done + 5)):
            told = [edge, 1e30, 1e30, 1e30, 1e30, done + 3, *[done + 5] * 5, *[0] * 6]
            stop = Stop(k, 2, 1, 1 << 30, 1.5, np.array(told, np.float32), waits=True)
            assert searcher.search(query, stop, wanted=k, epsilon=1.3).probed == number


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


def test_a_batch_finds_what_single_searches_find(small: Coded) -> None:
    searcher = Searcher(small.lists, small.metric, SEED)
    queries, stop = queries_for(small, 40), Stop(10, 2, 3, 1000, 1.5)
    mask = np.random.default_rng(2).random(len(small.rows)) < 0.5
    for allowed in (None, mask):
        batch = searcher.search_batch(queries, stop, wanted=18, epsilon=1.3, mask=allowed)
        for each, query in enumerate(queries):
            found = searcher.search(query, stop, wanted=18, epsilon=1.3, mask=allowed)
            count = len(found.ordinals)
            assert batch.ordinals[each, :count].tolist() == found.ordinals.tolist()
            assert (batch.ordinals[each, count:] == -1).all()
            assert batch.nearness[each, :count].tolist() == found.nearness.tolist()
            told = [count, found.probed, found.codes, found.reranked]
            assert batch.counts[each].tolist() == told


def test_threads_search_at_once_and_find_the_same(small: Coded) -> None:
    """H1"""
    searcher = Searcher(small.lists, small.metric, SEED)
    queries, stop = queries_for(small, 200), Stop(10, 2, 3, 1000, 1.5)
    alone = searcher.search_batch(queries, stop, wanted=18, epsilon=1.3)

    def work(_: int) -> tuple[np.ndarray, list[list[int]]]:
        batch = searcher.search_batch(queries, stop, wanted=18, epsilon=1.3)
        single = [searcher.search(q, stop, wanted=18, epsilon=1.3) for q in queries[:50]]
        return batch.ordinals, [found.ordinals.tolist() for found in single]

    with ThreadPoolExecutor(4) as pool:
        for ordinals, single in pool.map(work, range(8)):
            assert np.array_equal(ordinals, alone.ordinals)
            for row, found in zip(ordinals, single, strict=False):
                assert row[: len(found)].tolist() == found


def test_scratch_of_many_sizes_is_not_kept(small: Coded) -> None:
    """H3: and what comes after is found all the same."""
    searcher = Searcher(small.lists, small.metric, SEED)
    query, stop = queries_for(small, 1)[0], Stop(10, 2, 3, 1000, 1.5)
    alone = searcher.search(query, stop, wanted=18, epsilon=1.3).ordinals.tolist()
    watched = []
    for wanted in range(10, 60):
        searcher.search(query, stop, wanted=wanted, epsilon=1.3)
        searcher.trace(query, stop, wanted=wanted, epsilon=1.3)
        taken = [searcher.run(query, stop, wanted=wanted, epsilon=1.3) for _ in range(2)]
        for scratch in taken:
            watched.append(weakref.ref(scratch.nearness))
            searcher.give_back(scratch)
        del scratch, taken
    gc.collect()
    assert 2 <= sum(each() is not None for each in watched) <= 2 * KEPT_SIZES
    assert len(searcher._local.__dict__) <= KEPT_SIZES
    assert searcher.search(query, stop, wanted=18, epsilon=1.3).ordinals.tolist() == alone


def test_a_search_does_not_hold_the_lock_of_the_interpreter(small: Coded) -> None:
    searcher = Searcher(small.lists, small.metric, SEED)
    queries = np.tile(queries_for(small, 100), (80, 1))
    is_begun, ends = threading.Event(), []

    def work() -> None:
        is_begun.set()
        searcher.search_batch(queries, EVERYTHING, wanted=18, epsilon=1.3)
        ends.append(True)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(60)  # nobody takes the lock from a thread that holds it
    try:
        thread = threading.Thread(target=work)
        thread.start()
        is_begun.wait()
        assert not ends
    finally:
        sys.setswitchinterval(interval)
        thread.join()
    assert ends


@pytest.mark.parametrize("dimension", [2, 3, 17, 64, 65, 200, 1100])
def test_any_dimension(dimension: int) -> None:
    built = coded(clustered(400, dimension), "l2", 6)
    searcher = Searcher(built.lists, "l2", SEED)
    query = built.rows[7] + np.float32(0.01)
    found = searcher.search(query, EVERYTHING, wanted=25, epsilon=3.0)
    assert recall(found.ordinals, exact(built.rows, query, "l2", 10)) >= 0.9


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
@pytest.mark.parametrize("dimension", [1028, 2049, 4096])
def test_sums_of_many_groups_do_not_overflow(dimension: int, metric: str) -> None:
    """Sums of so many entries come near to 16 bits."""
    built = coded(clustered(300, dimension), metric, 5)
    searcher = Searcher(built.lists, metric, SEED)
    padded = np.zeros(built.width, np.float32)
    for row in (3, 77):
        # all coordinates large after the rotation would be the worst case; a stored row is near
        query = built.rows[row] * np.float32(1.01)
        found = searcher.search(query, EVERYTHING, wanted=18, epsilon=3.0)
        assert recall(found.ordinals, exact(built.rows, query, metric, 10)) >= 0.9
        padded[:dimension] = query
        twin = reference.search(
            built.lists, padded, metric, EVERYTHING, wanted=18, epsilon=3.0, seed=SEED
        )
        assert len(set(found.positions.tolist()) & set(twin.positions)) >= 16


def test_the_largest_sum_of_a_table_fits() -> None:
    """Coordinates all alike: the entry of four set bits is the largest there is."""
    for width in (64, 1024, 1088, 4096):
        prepared = reference.prepare(np.ones(width, np.float32))
        sums = prepared.table.reshape(-1, 16)[:, 15].astype(np.int64).sum()
        assert sums == 63 * width // 4 <= 65535
        value = prepared.table_scale * np.float32(sums) + prepared.table_low
        assert abs(value - width) < 0.01 * width


@pytest.mark.parametrize("kind", ["f2", "i1"])
def test_rows_of_other_types_are_found(kind: str) -> None:
    """Lists are made of float32; rows of 16-bit floats and of bytes are these numbers exactly."""
    stored = np.clip(np.rint(20 * clustered(1200, 48)), -127, 127).astype(kind)
    rows = stored.astype(np.float32)
    for metric in ("cosine", "l2", "ip"):
        built = coded(rows, metric, 12)
        searcher = Searcher(built.lists, metric, SEED)
        recalls = []
        for row in range(0, 1200, 60):
            query = built.rows[row]
            found = searcher.search(query, EVERYTHING, wanted=25, epsilon=3.0)
            recalls.append(recall(found.ordinals, exact(built.rows, query, metric, 10)))
        assert np.mean(recalls) > 0.98


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
