"""Samples that are trained on block by block: the same rows, lists as good, memory bounded."""

from __future__ import annotations

import tracemalloc
from functools import partial

import numpy as np
import pytest

from m2mdb.compute.hrm2 import lists as lists_module
from m2mdb.compute.hrm2 import training
from m2mdb.compute.hrm2.lists import never
from m2mdb.compute.hrm2.routes import routes_of
from m2mdb.compute.hrm2.sample import Streamed, Whole
from m2mdb.compute.hrm2.training import Router, assign, moved, train
from m2mdb.compute.loader import LOADER

WIDTH, LISTS = 32, 300


def made(count: int, seed: int = 3) -> np.ndarray:
    """Clusters of uneven size, far more of them than there are lists."""
    random = np.random.default_rng(seed)
    centers = random.standard_normal((2000, WIDTH))
    labels = (random.random(count) ** 2 * len(centers)).astype(int)
    rows: np.ndarray = centers[labels] + 0.6 * random.standard_normal((count, WIDTH))
    return rows.astype(np.float32)


ROWS = made(12_000)


def error(router: Router, rows: np.ndarray) -> float:
    """The mean squared distance of rows from the centroids of their lists."""
    gaps = rows - router.centers[assign(router, rows)[0]]
    return float(np.einsum("ij,ij->i", gaps, gaps).mean())


def keep(monkeypatch: pytest.MonkeyPatch, rows_of_list: float) -> None:
    """Let a block have so many rows a list."""
    monkeypatch.setattr(training, "SAMPLE_BYTES", int(rows_of_list * LISTS) * 4 * WIDTH)


def streamed(held: int, chosen: np.ndarray | None = None) -> Streamed:
    numbers = np.arange(len(ROWS)) if chosen is None else chosen
    return Streamed(ROWS, numbers, held, np.random.default_rng(1), never)


def test_blocks_hold_every_row_of_the_sample_once() -> None:
    chosen = np.sort(np.random.default_rng(2).choice(len(ROWS), 5001, replace=False))
    sample = streamed(1500, chosen)
    parts = [(some, points.rows) for some, points in sample.blocks()]
    assert [some.start for some, _ in parts] == [0, 1250, 2500, 3750]
    assert all(len(rows) == some.stop - some.start <= 1500 for some, rows in parts)
    every = np.concatenate([rows for _, rows in parts])
    key = np.lexsort(every.T)
    assert np.array_equal(every[key], ROWS[chosen][np.lexsort(ROWS[chosen].T)])
    assert np.array_equal(sample.at(np.array([7, 1251])).rows, every[[7, 1251]])
    assert np.array_equal(sample.some().rows, parts[0][1])


@pytest.mark.parametrize("held", [700, 4000, 12_000])
def test_groups_are_the_rows_of_each_label(held: int) -> None:
    sample = streamed(held)
    every = np.concatenate([points.rows for _, points in sample.blocks()])
    labels = np.random.default_rng(4).integers(0, 40, len(every)).astype(np.int32)
    labels[labels == 7] = 8  # one without rows, one with twice as many
    groups = list(sample.groups(labels, 41))
    assert len(groups) == 41
    for label, points in enumerate(groups):
        wanted = every[labels == label]
        if len(wanted) > held:
            assert len(points.rows) == held  # evenly chosen
        else:
            assert np.array_equal(points.rows, wanted)
        assert points.middle is None or points.coded is not None


def test_a_round_over_one_block_is_a_round_of_lloyd() -> None:
    """SA2."""
    router = train(ROWS, LISTS, 1)
    whole = moved(router, Whole(ROWS, never), 6, never)
    alone = moved(router, streamed(len(ROWS)), 6, never)
    assert np.array_equal(whole[1], alone[1])
    assert np.array_equal(whole[0].centers, alone[0].centers)


def test_centroids_are_the_means_of_what_they_have_seen() -> None:
    """By counts, whatever the number of blocks."""
    router = train(ROWS, LISTS, 1)
    sample = streamed(1500)
    after, first = moved(router, sample, 6, never)
    every = np.concatenate([points.rows for _, points in sample.blocks()])
    used = np.unique(first)
    means = training.means_of(every, first, router.centers)
    np.testing.assert_allclose(after.centers[used], means[used], atol=2e-4)
    others = np.setdiff1d(np.arange(len(means)), used)
    assert np.array_equal(after.centers[others], router.centers[others])


@pytest.mark.parametrize("rows_of_list", [4, 10])
def test_mini_batches_train_as_well_as_a_sample_that_is_kept(
    monkeypatch: pytest.MonkeyPatch, rows_of_list: int
) -> None:
    whole = error(train(ROWS, LISTS, 1), ROWS)
    keep(monkeypatch, rows_of_list)
    router = train(ROWS, LISTS, 1)
    ours = error(router, ROWS)
    monkeypatch.setattr(training, "SAMPLE_OF_LIST", rows_of_list)
    monkeypatch.setattr(training, "LEAST_SAMPLE", rows_of_list * LISTS)
    cut = error(train(ROWS, LISTS, 1), ROWS)
    assert ours < 1.02 * whole
    assert ours < 0.97 * cut
    sizes = np.bincount(assign(router, ROWS)[0], minlength=len(router.centers))
    assert np.percentile(sizes, 99) <= 4 * sizes.mean()


def test_mini_batches_depend_on_rows_and_seed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """T1."""
    keep(monkeypatch, 8)
    ours = [train(ROWS, LISTS, seed).centers for seed in (1, 1, 2)]
    assert np.array_equal(ours[0], ours[1])
    assert not np.array_equal(ours[0][: len(ours[2])], ours[2][: len(ours[0])])


def test_a_sample_takes_the_memory_of_a_block() -> None:
    """SA1: a block with its codes, numbers of rows, and what 1,024 rows become bytes in."""
    rows = np.random.default_rng(5).standard_normal((20_000, 256)).astype(np.float32)
    held, numbers = 1000, 6 * 8 * len(rows) + 2 * 1024 * 4 * 256
    sample = Streamed(rows, np.arange(len(rows)), held, np.random.default_rng(1), never)
    labels = np.random.default_rng(4).integers(0, 90, len(rows)).astype(np.int32)
    labels[:3000] = 5
    tracemalloc.start()
    read = grouped = 0
    for _, points in sample.blocks():
        read += len(points.rows)
        del points
    for points in sample.groups(labels, 90):
        grouped += len(points.rows)
        del points
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert read == len(rows)
    assert grouped == len(rows) - int(np.count_nonzero(labels == 5)) + held
    assert peak < 1.5 * held * 4 * 256 + numbers < rows.nbytes / 4


def test_training_on_blocks_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    keep(monkeypatch, 4)
    calls = 0

    def counted() -> None:
        nonlocal calls
        calls += 1

    train(ROWS, LISTS, 1, counted)
    every = calls
    assert every > 100
    for last in (3, every // 2):
        left = iter(range(last))
        with pytest.raises(StopIteration):
            train(ROWS, LISTS, 1, partial(next, left))


@pytest.mark.parametrize("rows", [np.ones((9000, 8), np.float32), np.eye(9000, 8, dtype="f4")])
def test_rows_that_are_alike_are_trained_on_too(
    monkeypatch: pytest.MonkeyPatch, rows: np.ndarray
) -> None:
    monkeypatch.setattr(training, "SAMPLE_BYTES", 1000 * 4 * 8)
    router = train(rows, 100, 1)
    assert len(router.centers) >= 1
    assert np.isfinite(router.centers).all()
    assert len(assign(router, rows)[0]) == len(rows)


def test_routes_leave_nothing_large_to_the_allocator() -> None:
    """What was freed in large pieces stayed the process's own: 25 MB of 4,000 lists by 768."""
    assert LOADER.wait(300), LOADER.error
    random = np.random.default_rng(6)
    centers = random.standard_normal((3000, 768)).astype(np.float32)
    first = np.arange(3000, dtype=np.int32)
    rows = centers + random.standard_normal(768).astype(np.float32)
    built = lists_module.build(rows, first, centers, first, None, "l2")
    tracemalloc.start()
    routes = routes_of(built, "l2")
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(routes.spreads) == len(centers)
    assert peak - kept < centers.nbytes / 3
