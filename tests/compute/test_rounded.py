"""Sums in any order give the float32 that sums in their order give (RO1)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba")

from numba import njit

from m2mdb.compute.numba_kernels import COSINE, IP, L2, similarity
from m2mdb.compute.rounded import sure_similarity

KINDS = {"cosine": COSINE, "ip": IP, "l2": L2}


@njit
def both_of(kind: int, rows: Any, query: Any, length: float, out: Any) -> None:
    """Similarities of rows: in their order, and sure ones."""
    for i in range(rows.shape[0]):
        out[0, i] = similarity(kind, rows[i], query, length)
        out[1, i] = sure_similarity(kind, rows[i], query, length)


def compared(metric: str, rows: np.ndarray, query: np.ndarray) -> np.ndarray:
    """float64 [2, n], see `both_of`."""
    rows, query = (np.ascontiguousarray(array, np.float32).view() for array in (rows, query))
    rows.flags.writeable = query.flags.writeable = False
    wide = query.astype(np.float64)
    out = np.empty((2, len(rows)))
    both_of(KINDS[metric], rows, query, math.sqrt(np.add.reduce(wide * wide)), out)
    return out


def bits(metric: str, found: np.ndarray) -> np.ndarray:
    """The float32 that is shown of a similarity, as its bits."""
    shown = np.sqrt(-found) if metric == "l2" else found
    return shown.astype(np.float32).view(np.uint32)


@pytest.mark.parametrize("metric", KINDS)
@pytest.mark.parametrize("dimension", [1, 3, 8, 100, 129, 384, 640, 2051])
def test_random_rows(metric: str, dimension: int) -> None:
    random = np.random.default_rng(dimension)
    rows = random.standard_normal((3000, dimension))
    rows *= 10.0 ** random.integers(-12, 12, (3000, 1))
    found = compared(metric, rows, random.standard_normal(dimension))
    assert (bits(metric, found[0]) == bits(metric, found[1])).all()


@pytest.mark.parametrize("metric", KINDS)
def test_rows_of_few_digits_whose_sums_are_halves(metric: str) -> None:
    """Products that add to a number just between two float32, where each rounding tells."""
    random = np.random.default_rng(5)
    rows = random.integers(-3, 4, (4000, 48)).astype(np.float32)
    rows[:, 0] = 2.0**12
    rows[:, 1] = random.choice([2.0**-12, -(2.0**-12), 2.0**-13, 0.0], 4000)
    query = np.ones(48, np.float32)
    query[0] = 2.0**12
    found = compared(metric, rows, query)
    assert (bits(metric, found[0]) == bits(metric, found[1])).all()


@pytest.mark.parametrize("metric", KINDS)
@pytest.mark.parametrize("length", [0.0, 1e-45, 1e-40, 1e-30, 1e30, 3e38])
def test_extreme_rows(metric: str, length: float) -> None:
    """Rows of no length, subnormal and huge ones, orthogonal ones, the query itself."""
    query = np.array([1.0, -1.0, 0.5, 0.0, 3.0], np.float32)
    rows = np.zeros((8, 5))
    rows[0], rows[1, 0], rows[2, 3], rows[3] = length, length, length, query
    rows[4, :2], rows[5, :2], rows[6], rows[7] = length, -length, -query, query * (1 + 1e-7)
    for asked in (query, query * np.float32(1e-18), query * np.float32(1e17)):
        found = compared(metric, rows, asked)
        assert (bits(metric, found[0]) == bits(metric, found[1])).all()


def test_most_rows_are_not_added_twice() -> None:
    """A quick sum differs from the ordered one in its last digits for most rows: it was taken."""
    random = np.random.default_rng(9)
    found = compared("cosine", random.standard_normal((2000, 640)), random.standard_normal(640))
    assert (found[0] != found[1]).mean() > 0.3
