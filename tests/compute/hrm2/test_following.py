"""Following: centroids move to where the rows of their lists lie, and only as far as that pays."""

from __future__ import annotations

import numpy as np
import pytest

from m2mdb.compute.hrm2 import following
from m2mdb.compute.hrm2.absorbing import Coming, Staying, absorb, decoded_centers, mean_square
from m2mdb.compute.hrm2.following import Behind, Members
from m2mdb.compute.hrm2.lists import InPlace, Lists, build
from m2mdb.compute.hrm2.rotation import rotate
from m2mdb.compute.hrm2.training import assign, nearest, train
from m2mdb.compute.loader import LOADER

WIDTH = 64
CLUSTERS = 20
NONE = np.zeros(0, np.int64)


@pytest.fixture(scope="module", autouse=True)
def kernels() -> None:
    assert LOADER.wait(300), LOADER.error


def around(centers: np.ndarray, count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(centers), count)
    rows: np.ndarray = centers[labels] + 0.3 * rng.standard_normal((count, WIDTH))
    return rows.astype(np.float32)


def middles(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((CLUSTERS, WIDTH))


def listed(rows: np.ndarray, lists: int = CLUSTERS, metric: str = "l2") -> Lists:
    router = train(rows, lists)
    first, second = assign(router, rows, spill=True)
    return build(rows, np.arange(len(rows), dtype=np.int32), router.centers, first, second, metric)


def members_of(lists: Lists, rows: np.ndarray, stays: np.ndarray) -> Members:
    """The rows that stay, in the lists nearest to them; `rows` by position."""
    centers = decoded_centers(lists)
    first = nearest(rows, centers).astype(np.int64)
    order = np.argsort(first, kind="stable")
    order = order[stays[order]]
    gaps = rows[order].astype(np.float64) - centers[first[order]]
    return Members(first[order], order.astype(np.int64), (gaps**2).sum(axis=1))


def turned(rows: np.ndarray) -> np.ndarray:
    return rows


def figures(lists: Lists, there: Members, new: np.ndarray) -> Behind:
    centers = decoded_centers(lists)
    labels = nearest(new, centers).astype(np.int64) if len(new) else NONE
    return following.behind(lists, centers, there, (new, labels), turned)


@pytest.mark.parametrize("new", [0, 1, 350])
def test_means_and_shares_are_those_of_the_rows(new: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against NumPy in float64; FW1: bit for bit the same without kernels."""
    monkeypatch.setattr(following, "CHUNK_ROWS", 100)  # lists that stand in two chunks
    lists = listed(around(middles(), 900, 2))
    rows = (lists.bytes8.reshape(-1, WIDTH).astype(np.float32) - 128) * lists.scales[:, None]
    stays = np.random.default_rng(4).random(900) < 0.8
    there = members_of(lists, rows, stays)
    came = around(middles() + 0.2, new, 5)
    found = figures(lists, there, came)
    centers = decoded_centers(lists).astype(np.float64)
    labels = nearest(came, decoded_centers(lists)) if new else NONE
    for each in range(len(centers)):
        mine = np.concatenate((rows[there.positions[there.lists == each]], came[labels == each]))
        assert found.rows[each] == len(mine)
        if not len(mine):
            assert found.share[each] <= 0
            continue
        wide = mine.astype(np.float64)
        assert np.allclose(found.means[each], wide.mean(axis=0), atol=1e-6)
        before = ((wide - centers[each]) ** 2).sum()
        after = ((wide - wide.mean(axis=0)) ** 2).sum()
        assert found.share[each] == pytest.approx((before - after) / before, abs=0.03)
        assert found.share[each] <= (before - after) / before + 1e-6
    monkeypatch.setattr(LOADER, "module", None)
    plain = figures(lists, there, came)
    for name in Behind._fields:
        assert np.array_equal(getattr(found, name), getattr(plain, name)), name


@pytest.mark.parametrize("dtype", [np.float16, np.int8])
def test_rows_in_place_are_summed_before_they_are_rotated(dtype: type) -> None:
    rows = np.rint(20 * around(middles(), 600, 2)).astype(dtype)
    wide = rows[:, :40].astype(np.float32)
    lengths = np.linalg.norm(wide, axis=1)
    searched = rotate(wide / lengths[:, None], WIDTH, 7)
    narrow = InPlace(rows[:, :40], (1 / lengths).astype(np.float32))
    router = train(searched, CLUSTERS)
    first, second = assign(router, searched, spill=True)
    ordinals = np.arange(600, dtype=np.int32)
    lists = build(searched, ordinals, router.centers, first, second, "cosine", in_place=narrow)
    by_position = searched[lists.ordinals]
    there = members_of(lists, by_position, np.arange(600) % 3 > 0)
    centers = decoded_centers(lists)
    none = (searched[:0], NONE)
    found = following.behind(lists, centers, there, none, lambda some: rotate(some, WIDTH, 7))
    for each in np.flatnonzero(found.rows).tolist():
        mine = by_position[there.positions[there.lists == each]]
        assert np.allclose(found.means[each], mine.mean(axis=0), atol=1e-5)


@pytest.mark.parametrize("far", [0.0, 50.0])
def test_a_centroid_that_codes_cannot_tell_from_the_mean_stays(far: float) -> None:
    """FW2: rows that are all alike, or nearly so far from zero."""
    rows = np.full((400, WIDTH), 1 + far, np.float32)
    rows += np.float32(1e-4) * np.random.default_rng(3).standard_normal(rows.shape)
    lists = listed(rows.astype(np.float32), 4)
    wide = (lists.bytes8.reshape(-1, WIDTH).astype(np.float32) - 128) * lists.scales[:, None]
    there = members_of(lists, wide, np.ones(400, bool))
    found = figures(lists, there, rows[:40])
    assert not len(found.followed(10_000, np.zeros(len(found.rows), bool)))


def test_the_lists_farthest_behind_move_as_far_as_the_change_pays() -> None:
    """FW3"""
    share = np.array([0.5, 0.01, 0.3, 0.9, 0.2, 0.0, -3.0, 0.4])
    rows = np.array([100, 10, 100, 50, 100, 10, 10, 400])
    found = Behind(rows, np.zeros((8, WIDTH), np.float32), share)
    others = np.zeros(8, bool)
    cases = {0: [], 100: [3], 300: [0, 3], 600: [0, 2, 3], 2000: [0, 2, 3, 4, 7]}
    for changed, expected in cases.items():
        assert found.followed(changed, others).tolist() == expected, changed
    others[3] = True
    assert found.followed(250, others).tolist() == [0]


def absorbed(
    old: Lists, rows: np.ndarray, went: int, came: np.ndarray, metric: str, mean: float = 45.0
) -> Lists:
    """Without the first rows, which `old` calls by their numbers, and with those that came."""
    count = len(rows)
    numbers = np.arange(count, dtype=np.int32) - went
    numbers[:went] = -1
    names = np.arange(count - went, count - went + len(came), dtype=np.int32)
    there = Staying(numbers, lambda each: rows[each + went], turned)
    return absorb(old, there, Coming(came, names), mean, metric)


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
def test_lists_follow_clusters_that_move(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three turn-overs: centroids that stay fall behind, those that follow do not."""

    def after(share: float) -> tuple[Lists, np.ndarray]:
        monkeypatch.setattr(following, "SHARE", share)
        way = np.random.default_rng(8).standard_normal((CLUSTERS, WIDTH)) / WIDTH**0.5
        rows = unit(around(middles(), 900, 2), metric)
        lists = listed(rows, 60, metric)
        for step in range(1, 28):
            came = unit(around(middles() + 0.1 * step * way, 100, 100 + step), metric)
            lists = absorbed(lists, rows, 100, came, metric, 15.0)
            rows = np.concatenate((rows[100:], came))
        return lists, rows

    stayed, _ = after(2.0)
    followed, rows = after(0.1)
    fresh = listed(rows, 60, metric)
    assert sorted(followed.ordinals.tolist()) == list(range(900))
    assert mean_square(followed) < 1.1 * mean_square(fresh)
    assert mean_square(stayed) > 1.3 * mean_square(fresh)
    again, _ = after(0.1)
    for name in set(Lists._fields) - {"vectors"}:
        assert np.array_equal(getattr(followed, name), getattr(again, name)), name


def unit(rows: np.ndarray, metric: str) -> np.ndarray:
    lengths = np.linalg.norm(rows, axis=1)[:, None] if metric == "cosine" else np.float32(1)
    out: np.ndarray = (rows / lengths).astype(np.float32)
    return out


def test_only_lists_that_fell_behind_move(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others keep their centroids, to a rounding, under their numbers."""
    monkeypatch.setattr("m2mdb.compute.hrm2.absorbing.MOST_RENEWED", 1000)  # none is split
    rows = around(middles(), 900, 2)
    old = listed(rows)
    came = around(middles()[:2] + 0.5, 90, 9)
    now = absorbed(old, rows, 200, came, "l2")
    before, after = decoded_centers(old), decoded_centers(now)
    assert before.shape == after.shape
    moves = np.abs(after - before).max(axis=1)
    moved = moves > 1e-6
    assert 1 <= moved.sum() <= 6
    near = np.unique(nearest(came, before))
    assert set(np.flatnonzero(moved)) <= set(near)
    assert mean_square(now) < mean_square(old) * 1.3
    same = absorbed(old, rows, 0, came[:0], "l2")
    assert np.abs(decoded_centers(same) - before).max() < 1e-6
