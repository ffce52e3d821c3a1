"""Products by bytes: exact, the same without kernels, and used where they tell rows apart."""

from __future__ import annotations

import numpy as np
import pytest

from m2mdb.compute.hrm2 import products, training
from m2mdb.compute.hrm2.products import Columns, Points, coded, middle_of
from m2mdb.compute.loader import LOADER
from tests.compute.hrm2.conftest import SEED, clustered, same_without_kernels


@pytest.fixture(autouse=True)
def _loaded() -> None:
    assert LOADER.wait(), LOADER.error


@pytest.mark.parametrize("dimension", [1, 2, 3, 5, 64, 384, 1023, 1025, 2500])
@pytest.mark.parametrize("rows", [1, 5, 6, 7, 12])
def test_the_kernel_gives_what_the_matrix_product_gives(dimension: int, rows: int) -> None:
    """PR1, bit for bit; and both are the integers' sum, scaled."""
    rng = np.random.default_rng(dimension + rows)
    count = 1 + 13 * rows
    centers = (1e3 * rng.standard_normal((count, dimension))).astype(np.float32)
    some = coded((1e-3 * rng.standard_normal((rows, dimension))).astype(np.float32))
    columns = Columns(centers, np.zeros(dimension, np.float32))
    found = columns.times(some)[:, :count]
    assert np.array_equal(found, columns._by_matrix(some))
    theirs = columns._codes.astype(np.int64) - 128
    sums = (some.codes.astype(np.int64) - 128) @ theirs.T
    wanted = sums * columns.scales[:count].astype(np.float64) * some.scales[:, None]
    assert np.allclose(found, wanted, rtol=1e-6, atol=0)


def test_bytes_of_the_largest_values_do_not_overflow() -> None:
    """255 * 127 * 4,096 dimensions is within 32 bits."""
    ones = np.ones((7, 4096), np.float32)
    columns = Columns(-ones, np.zeros(4096, np.float32))
    assert np.allclose(columns.times(coded(ones))[:, :7], -4096, rtol=1e-5)


def test_products_are_near_those_of_float32() -> None:
    rows, centers = clustered(300, 100), clustered(70, 100, seed=2)
    middle = rows.mean(axis=0)
    points = Points(rows, middle).with_codes(lambda: None)
    found = points.times(Columns(centers, middle), slice(0, 300))[:, :70]
    wanted = (rows - middle) @ (centers - middle).T
    lengths = np.outer(*(np.linalg.norm(each - middle, axis=1) for each in (rows, centers)))
    assert (np.abs(found - wanted) < 0.01 * lengths).all()
    again = Points(rows, middle).times(Columns(centers, middle), slice(0, 300))[:, :70]
    assert np.array_equal(found, again)


def test_bytes_serve_where_they_tell_rows_apart() -> None:
    assert middle_of(clustered(3000, 64)) is not None
    assert middle_of(clustered(3000, 64) + np.float32(1000)) is not None, "the middle is taken off"
    assert middle_of(clustered(3000, 2)) is None, "neighbours are a few steps apart"
    assert middle_of(np.ones((50, 8), np.float32)) is None, "there are no neighbours"
    far = clustered(3000, 64)
    far[:1500] = 30 + 0.1 * far[:1500]
    assert middle_of(far) is None, "half of the rows lie close together"
    far = clustered(3000, 64)
    far[7] = 1e10
    assert middle_of(far) is not None, "the others are told apart"


@pytest.mark.parametrize("dimension", [2, 64])
def test_lists_are_the_same_with_and_without_kernels(
    dimension: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T1: of rows that bytes tell apart, and of such that they do not."""
    rows = clustered(6000, dimension)

    def made() -> list[np.ndarray]:
        router = training.train(rows, 60, SEED)
        assert (router.middle is None) == (dimension == 2)
        first, second = training.assign(router, rows, spill=True)
        assert second is not None
        return [router.centers, first, second]

    same_without_kernels(made, monkeypatch)


def test_rows_stand_in_the_list_that_float32_gives_nearly_always() -> None:
    rows = clustered(4000, 96)
    router = training.train(rows, 50, SEED)
    assert router.middle is not None
    ours = training.assign(router, rows, spill=True)
    plain = training.assign(router._replace(middle=None), rows, spill=True)
    for one, other in zip(ours, plain, strict=True):
        assert one is not None
        assert (one == other).mean() > 0.97


def test_a_processor_without_the_instruction_gets_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from m2mdb.compute.hrm2 import product_kernels

    rows, centers = clustered(100, 40), clustered(20, 40, seed=3)
    columns = Columns(centers, np.zeros(40, np.float32))
    before = columns.of(rows)[:, :20]
    monkeypatch.setattr(product_kernels, "multiply", None)
    assert np.array_equal(before, columns.of(rows))
    assert products.EXACT_COLUMNS * 128 * 128 <= 1 << 24
