"""Truth: what an exact search finds, for the queries that recall is measured by.

    rows, queries less the rows' middle --BLAS--> products --the k-th best so far--> the k best keys

A *key* is what is sought of a row, the more the better: -|x - q|^2, or <x, q>. Nearly all products
lie beyond the k-th best key so far, so with kernels they are read once, while they are in the cache
(`best_kernels`); parting each chunk in NumPy took longer than the products themselves.

Invariants
    TH1 Keys are the same with and without kernels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from m2mdb.compute.hrm2.lists import never
from m2mdb.compute.loader import LOADER
from m2mdb.compute.ranking import readable

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Tick = Callable[[], None]

CHUNK_ROWS = 8192
PART_PRODUCTS = 1 << 18  # that stay in the second cache until they were looked at
MIDDLE_ROWS = 4096
ROUNDING = np.float32(1e-6)  # of a sum of products, by the lengths of what is multiplied
SPARE = 4  # times k keys are kept, and this many tens, before the k best of them are


def exact(rows: Floats, queries: Floats, metric: str, k: int, tick: Tick = never) -> Floats:
    """The k best keys of each query, [len(queries), k] in descending order.

    By BLAS in float32, from a point amid the rows, which leaves more digits to what lies far from
    zero; less what roundings may come to.
    """
    k = min(k, len(rows))
    is_near = metric != "ip"
    middle = rows[:: max(1, len(rows) // MIDDLE_ROWS)].mean(axis=0) if is_near else np.float32(0)
    queries = queries - middle
    best = _Best(len(queries), k, is_near=is_near)
    longest = np.float32(0)
    step = max(64, min(CHUNK_ROWS, PART_PRODUCTS // max(1, len(queries))))
    for start in range(0, len(rows), step):
        tick()
        some = rows[start : start + step] - middle
        squares = np.einsum("ij,ij->i", some, some)
        longest = max(longest, squares.max())
        best.add(queries @ some.T, squares)
    own = np.einsum("ij,ij->i", queries, queries)
    costs = best.costs()
    if is_near:
        costs += own[:, None]
    out: Floats = -np.sort(costs, axis=1)
    out -= ROUNDING * (np.sqrt(own) * np.sqrt(longest))[:, None]  # their product may be infinite
    return out


class _Best:
    """The k smallest costs of each query: |x|^2 - 2 <x, q>, or -<x, q>."""

    def __init__(self, queries: int, k: int, *, is_near: bool) -> None:
        self._k, self._is_near, self._has_kernels = k, is_near, LOADER.module is not None
        self._kept = np.full((queries, SPARE * (k + 10)), np.inf, np.float32)
        self._counts = np.zeros(queries, np.int64)
        self._limits = np.full(queries, np.inf, np.float32)

    def add(self, products: Floats, squares: Floats) -> None:
        """Take rows in; writes over their products with each query."""
        if self._has_kernels:
            from m2mdb.compute.hrm2 import best_kernels

            best_kernels.keep_best(
                products, readable(squares), self._is_near, self._k, self._kept, self._counts,
                self._limits,
            )  # fmt: skip
            return
        costs = squares - 2 * products if self._is_near else -products
        every = np.concatenate((self._kept[:, : self._k], costs), axis=1)
        every.partition(self._k - 1, axis=1)
        self._kept[:, : self._k] = every[:, : self._k]

    def costs(self) -> Floats:
        """float32[queries, k], in no order."""
        if self._has_kernels:
            self._kept.partition(self._k - 1, axis=1)  # what is not kept is infinite
        return self._kept[:, : self._k].copy()
