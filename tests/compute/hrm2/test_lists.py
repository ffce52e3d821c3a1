"""Codes and layout of lists: every row has its places, and what codes say of it is nearly right."""

from __future__ import annotations

import numpy as np
import pytest

from m2mdb.compute.hrm2 import rotation
from m2mdb.compute.hrm2.lists import BLOCK, SLOTS, padded, to_bytes
from m2mdb.compute.hrm2.reference import sums_of_block
from m2mdb.compute.hrm2.training import assign, train
from m2mdb.compute.loader import LOADER
from tests.compute.hrm2.conftest import SEED, Coded, clustered, coded, unit


@pytest.mark.parametrize("width", [64, 128, 192, 384, 448, 1024])
def test_the_rotation_is_orthogonal_and_its_forms_agree(width: int) -> None:
    rows = clustered(40, width)
    turned = rotation.transform(rows, SEED)
    assert np.allclose(turned @ turned.T, rows @ rows.T, rtol=1e-4, atol=1e-3)
    assert np.allclose(rotation.rotate(rows, width, SEED), turned, atol=1e-4)
    assert not np.allclose(turned, rotation.transform(rows, SEED + 1))


def test_the_rotation_spreads_a_single_coordinate() -> None:
    for width in (64, 192, 384):
        turned = rotation.transform(np.eye(width, dtype=np.float32)[:1], SEED)
        assert np.abs(turned).max() < 6 / np.sqrt(width)


def test_signs_are_those_of_splitmix64() -> None:
    """O1: the first bits of seed 5, worked out by hand once; a file depends on them."""
    state = (5 + 0x9E3779B97F4A7C15) % 2**64
    z = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    first = 1.0 if (z ^ (z >> 31)) >> 63 else -1.0
    assert rotation.signs(64, 5)[0, 0] == first
    assert rotation.signs(64, 5).tobytes() == rotation.signs(64, 5 + 2**64).tobytes()


def test_every_row_has_one_position_and_one_or_two_lists(small: Coded) -> None:
    """L1"""
    lists = small.lists
    assert sorted(lists.ordinals.tolist()) == list(range(len(small.rows)))
    stood = np.zeros(len(small.rows), int)
    for each in range(len(lists.center_scales)):
        block = lists.positions[lists.starts[each] : lists.starts[each + 1]].ravel()
        found = block[block >= 0]
        assert len(set(found.tolist())) == len(found), "once in a list"
        stood[found] += 1
    assert set(stood.tolist()) <= {1, 2}
    assert stood.mean() > 1.9


def test_empty_slots_can_never_be_found(small: Coded) -> None:
    lists = small.lists
    empty = lists.positions < 0
    assert empty.any()
    assert np.isinf(lists.factors.reshape(-1, 3, BLOCK)[:, 0][empty]).all()


def test_bytes_are_within_half_a_step(small: Coded) -> None:
    rows = rotation.rotate(small.rows, small.width, SEED)[small.lists.ordinals]
    stored = small.lists.bytes8.reshape(len(rows), -1).astype(np.float32) - 128
    error = np.abs(stored * small.lists.scales[:, None] - rows)
    assert (error <= small.lists.scales[:, None] * 0.501).all()


def test_a_zero_row_has_codes_too() -> None:
    codes, scales = to_bytes(np.zeros((2, 64), np.float32))
    assert (codes == 128).all()
    assert (scales > 0).all()


def test_estimates_are_unbiased_and_their_errors_as_stated(small: Coded) -> None:
    """The 1-bit estimate of |q - x|^2 (or -2 <q, x>) against the truth, in standard errors."""
    lists, width = small.lists, small.width
    centers = lists.centers.reshape(len(lists.center_scales), width).astype(np.float32) - 128
    centers *= lists.center_scales[:, None]
    rows = rotation.rotate(small.rows, width, SEED)[lists.ordinals]
    rng = np.random.default_rng(3)
    errors = []
    for query in unit(rng.standard_normal((20, width))):
        for each in range(0, len(centers), 5):
            for block in range(lists.starts[each], lists.starts[each + 1]):
                raw = lists.codes[block * 4 * width : (block + 1) * 4 * width].reshape(-1, 16)
                nibbles = np.concatenate((raw & 15, raw >> 4), axis=1).T[SLOTS]
                signs = (nibbles[:, :, None] >> np.arange(4) & 1).reshape(BLOCK, width) * 2.0 - 1
                products = signs @ query / np.sqrt(width)
                h, f, e = lists.factors[block].reshape(3, BLOCK)
                there = lists.positions[block] >= 0
                x = rows[lists.positions[block][there]]
                if small.metric == "ip":
                    base, truth, spread = -2 * query @ centers[each], -2 * x @ query, 1.0
                else:
                    base = ((query - centers[each]) ** 2).sum()
                    truth, spread = ((query - x) ** 2).sum(axis=1), np.sqrt(base)
                guess = base + h[there] - f[there] * products[there]
                errors.append((guess - truth) / (spread * e[there] + 1e-9))
    found = np.concatenate(errors)
    assert abs(found.mean()) < 0.15
    assert 0.5 < found.std() < 1.5


def test_the_sum_of_a_block_adds_the_right_entries() -> None:
    rng = np.random.default_rng(4)
    nibbles = rng.integers(0, 16, (32, 16))
    codes = (nibbles[:16] | nibbles[16:] << 4).T.astype(np.uint8).ravel()
    table = rng.integers(0, 256, (16, 16)).astype(np.uint8)
    wanted = [sum(int(table[g, nibbles[i, g]]) for g in range(16)) for i in range(32)]
    assert sums_of_block(codes, table).tolist() == [wanted[i] for i in SLOTS]


@pytest.mark.parametrize("count", [1, 2, 3, 40, 5000])
def test_training_takes_any_number_of_rows(count: int) -> None:
    """T2"""
    rows = clustered(count, 12)
    router = train(rows, 30, SEED)
    assert len(router.centers) == router.owned[-1] <= max(1, min(30, count))
    assert np.isfinite(router.centers).all()
    first, second = assign(router, rows, spill=True)
    assert second is not None
    assert (first >= 0).all()
    assert (first < len(router.centers)).all()
    assert (first != second).all()


def test_training_is_deterministic() -> None:
    """T1"""
    rows = clustered(3000, 20)
    one, again = train(rows, 40, 9), train(rows, 40, 9)
    for field in ("supers", "centers", "owned", "near"):
        assert np.array_equal(getattr(one, field), getattr(again, field))


def test_rows_stand_in_the_list_that_is_nearest_to_most_of_them() -> None:
    rows = clustered(4000, 24)
    router = train(rows, 50, SEED)
    first, _ = assign(router, rows)
    gaps = ((rows[:, None] - router.centers[None]) ** 2).sum(axis=2)
    assert (gaps.argmin(axis=1) == first).mean() > 0.97


def test_identical_rows_are_coded_and_padded_widths_fit() -> None:
    assert [padded(d) for d in (1, 2, 64, 65, 384, 4096)] == [64, 64, 64, 128, 384, 4096]
    built = coded(np.ones((100, 3), np.float32), "l2", 4).lists
    assert np.isfinite(built.factors[built.positions.repeat(3, axis=0).reshape(-1, 96) >= 0]).all()


def test_the_second_list_has_the_smallest_cost_of_spilling() -> None:
    """|x - c|^2 + <x - c, u>^2 with u the direction of the residual to the first list."""
    rows = clustered(3000, 24)
    router = train(rows, 60, SEED)
    first, second = assign(router, rows, spill=True)
    assert second is not None
    residual = rows - router.centers[first]
    direction = residual / np.linalg.norm(residual, axis=1, keepdims=True)
    gaps = rows[:, None] - router.centers[None]
    costs = (gaps**2).sum(axis=2) + np.einsum("ijk,ik->ij", gaps, direction) ** 2
    costs[np.arange(len(rows)), first] = np.inf
    assert (costs.argmin(axis=1) == second).mean() > 0.97


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
@pytest.mark.parametrize("dimension", [3, 64, 200])
def test_kernels_code_what_numpy_codes(
    metric: str, dimension: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CO1: rows that are their centroids, too."""
    assert LOADER.wait(), LOADER.error
    rows = clustered(900, dimension)
    rows[:5] = rows[0]
    compiled = coded(rows, metric, 30).lists
    alone = coded(rows[:1], metric, 1).lists
    monkeypatch.setattr(LOADER, "module", None)
    for one, other in ((compiled, coded(rows, metric, 30)), (alone, coded(rows[:1], metric, 1))):
        for field in ("starts", "codes", "positions", "bytes8", "scales", "ordinals"):
            assert np.array_equal(getattr(one, field), getattr(other.lists, field)), field
        # h may be the small difference of terms as large as the largest factors
        largest = np.abs(other.lists.factors[np.isfinite(other.lists.factors)]).max()
        assert np.allclose(one.factors, other.lists.factors, rtol=1e-4, atol=1e-6 * largest)
