"""Choosing: compiled and in NumPy, rows get the same lists."""

from __future__ import annotations

import numpy as np
import pytest

from m2mdb.compute.hrm2 import choosing, training
from tests.compute.hrm2.conftest import same_without_kernels


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
@pytest.mark.parametrize("count", [1, 2, 33, 300])
def test_kernels_choose_what_numpy_chooses(
    scale: float, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CH1: bit for bit, with equal centers and rows that are centers among them."""
    rng = np.random.default_rng(count)
    centers = (scale * rng.standard_normal((count, 24))).astype(np.float32)
    centers[-1] = centers[0]
    rows = (scale * rng.standard_normal((200, 24))).astype(np.float32)
    rows[:count] = centers[:200]
    squares = training._squares(centers)
    gram = centers @ centers.T

    def chosen() -> list[np.ndarray]:
        products = rows @ centers.T
        firsts = training._firsts(products.copy(), squares)
        return [firsts, *training._both(rows, products, squares, gram)]

    same_without_kernels(chosen, monkeypatch)


def test_lists_are_the_same_with_and_without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """T1"""
    assert choosing.firsts is not None
    rows = np.random.default_rng(1).standard_normal((6000, 16)).astype(np.float32)

    def made() -> list[np.ndarray]:
        router = training.train(rows, 60, 3)
        first, second = training.assign(router, rows, spill=True)
        assert second is not None
        return [router.centers, first, second]

    same_without_kernels(made, monkeypatch)
