"""Vectors for the tests of HRM2: clusters of uneven size, and queries off their distribution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pytest

from m2mdb.compute.hrm2 import lists as lists_module
from m2mdb.compute.hrm2.lists import Lists
from m2mdb.compute.hrm2.rotation import rotate
from m2mdb.compute.hrm2.training import assign, train
from m2mdb.compute.loader import LOADER

SEED = 5


class Coded(NamedTuple):
    """A built set of lists, and the rows that it was built from."""

    rows: np.ndarray
    lists: Lists
    metric: str
    width: int


def clustered(count: int, dimension: int, seed: int = 1) -> np.ndarray:
    """Rows around centers of uneven weight."""
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((max(2, count // 60), dimension))
    labels = (rng.random(count) ** 2 * len(centers)).astype(int)
    rows: np.ndarray = centers[labels] + 0.5 * rng.standard_normal((count, dimension))
    return rows.astype(np.float32)


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1."""
    out: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return out.astype(np.float32)


def coded(rows: np.ndarray, metric: str, count: int, *, spill: bool = True) -> Coded:
    """Train, assign, rotate and code."""
    if metric == "cosine":
        rows = unit(rows)
    router = train(rows, count, SEED)
    first, second = assign(router, rows, spill=spill)
    width = lists_module.padded(rows.shape[1])
    built = lists_module.build(
        rotate(rows, width, SEED),
        np.arange(len(rows), dtype=np.int32),
        rotate(router.centers, width, SEED),
        first,
        second,
        metric,
    )
    return Coded(rows, built, metric, width)


def exact(rows: np.ndarray, query: np.ndarray, metric: str, k: int) -> np.ndarray:
    """Rows of the k best, by brute force in float64."""
    wide, target = rows.astype(np.float64), query.astype(np.float64)
    keys = wide @ target if metric == "ip" else -((wide - target) ** 2).sum(axis=1)
    return np.argsort(-keys, kind="stable")[:k]


def same_without_kernels(
    made: Callable[[], Sequence[np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is made by compiled kernels is made by NumPy, bit for bit."""
    compiled = made()
    monkeypatch.setattr(LOADER, "module", None)
    for one, other in zip(compiled, made(), strict=True):
        assert np.array_equal(one, other)


@pytest.fixture(params=["cosine", "l2", "ip"], scope="session")
def small(request: pytest.FixtureRequest) -> Coded:
    return coded(clustered(1500, 50), request.param, 16)
