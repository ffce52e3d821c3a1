"""Truth: what an exact search finds, for the queries that recall is measured by.

    exact      rows, queries --BLAS--> products --the k-th best so far--> the k best keys
    exact_of   8-bit codes of lists, queries --products of bytes--> bounds of keys --> rows that may
               be among the k best --float32, term by term--> the k best keys

A *key* is what is sought of a row, the more the better: -|x - q|^2, or <x, q>. Nearly all rows lie
beyond the k-th best so far, so with kernels their products are read once, while they are in the
cache (`best_kernels`). By Cauchy and Schwarz <x, q> is within |x - x'| |q'| + |x| |q - q'| of <x',
q'>, the product of bytes, which takes a fifth of the time (`product_kernels`); some hundred rows of
100,000 are left. Where there is no such kernel, or there are no 8-bit codes, or queries are left
with too many rows (which their codes cannot tell apart), `exact` serves.

Invariants
    TH1 Keys of `exact` are the same with and without kernels; those of `exact_of` are the same but
        for roundings of float32, which `exact` takes off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from m2mdb.compute.hrm2.lists import never
from m2mdb.compute.hrm2.outliers import usual
from m2mdb.compute.hrm2.products import Coded, Columns
from m2mdb.compute.hrm2.rotation import rotate
from m2mdb.compute.loader import LOADER
from m2mdb.compute.ranking import readable

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from numpy.typing import NDArray

    from m2mdb.compute.hrm2.searcher import Searcher

    Floats = NDArray[np.float32]
    Tick = Callable[[], None]

CHUNK_ROWS = 8192
PART_PRODUCTS = 1 << 18  # that stay in the second cache until they were looked at
MIDDLE_ROWS = 4096
ROUNDING = np.float32(1e-6)  # of a sum of products, by the lengths of what is multiplied
HALF_STEP = np.float32(0.5005)  # of an 8-bit code, that a coordinate is off by
CANDIDATES = 4096  # of a query that may be left; more, and it is given up
LOOK_PARTS = 16  # between two looks at how many queries were given up
SPARE = 4  # times k keys are kept, and this many tens, before the k best of them are


def exact(rows: Floats, queries: Floats, metric: str, k: int, tick: Tick = never) -> Floats:
    """The k best keys of each query, [len(queries), k] in descending order.

    By BLAS in float32, from a point amid the rows, which leaves more digits to what lies far from
    zero; less what roundings of a row's products may come to, which one more product says.
    """
    k = min(k, len(rows))
    is_near = metric != "ip"
    middle = np.float32(0)
    if is_near:
        some = rows[:: max(1, len(rows) // MIDDLE_ROWS)]
        middle = some[usual(some)].mean(axis=0)
    asked = np.empty((len(queries), queries.shape[1] + 1), np.float32)
    np.subtract(queries, middle, out=asked[:, :-1])
    own = np.einsum("ij,ij->i", asked[:, :-1], asked[:, :-1])
    asked[:, -1] = -ROUNDING * np.sqrt(own)
    best = _Best(len(queries), k, is_near=is_near)
    step = max(64, min(CHUNK_ROWS, PART_PRODUCTS // max(1, len(queries))))
    room = np.empty((min(step, len(rows)), asked.shape[1]), np.float32)
    for start in range(0, len(rows), step):
        tick()
        some = room[: len(rows[start : start + step])]
        np.subtract(rows[start : start + step], middle, out=some[:, :-1])
        squares = np.einsum("ij,ij->i", some[:, :-1], some[:, :-1])
        some[:, -1] = np.sqrt(squares) / (2 if is_near else 1)  # a key has twice the product
        best.add(asked @ some.T, squares)
    costs = best.costs()
    if is_near:
        costs += own[:, None]
    out: Floats = -np.sort(costs, axis=1)
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


def exact_of(
    searcher: Searcher,
    rows: Floats,
    queries: Floats,
    k: int,
    mask: NDArray[np.bool_] | None = None,
    tick: Tick = never,
) -> Floats:
    """As `exact`, of those rows of some lists that pass a mask.

    rows   float32[n, d], by ordinal, of length 1 under cosine; mask bool[n]
    """
    lists = searcher.lists
    chosen = None if mask is None else np.flatnonzero(mask[lists.ordinals])
    count = len(lists.ordinals) if chosen is None else len(chosen)
    left = np.arange(len(queries))
    out = np.empty((len(queries), min(k, count)), np.float32)
    if _has_products() and lists.vectors is None and count > CANDIDATES > 8 * k:
        bounds = _Bounds(searcher, queries, k)
        bounds.reach(chosen, tick)
        out, left = bounds.in_full(rows, queries)
    if len(left):
        among = rows if mask is None else rows[mask]
        out[left] = exact(among, queries[left], searcher.metric, k, tick)
    return out


def _has_products() -> bool:
    """Whether there are kernels, and one that multiplies bytes."""
    if LOADER.module is None:
        return False
    from m2mdb.compute.hrm2 import product_kernels

    return product_kernels.multiply is not None


class _Bounds:
    """Rows of lists that may be among the k best of queries."""

    def __init__(self, searcher: Searcher, queries: Floats, k: int) -> None:
        self._searcher, self._k = searcher, k
        width = searcher.lists.width
        turned = rotate(queries, width, searcher.seed)
        if searcher.lists.middle is not None:
            turned -= searcher.lists.middle
        self._columns = Columns(turned, np.zeros(width, np.float32))
        size = len(self._columns.scales)
        sizes, gaps = np.zeros((2, size), np.float32)
        bytes_ = self._columns.values()
        sizes[: len(queries)] = np.sqrt(np.einsum("ij,ij->i", bytes_, bytes_))
        bytes_ -= turned
        gaps[: len(queries)] = np.sqrt(np.einsum("ij,ij->i", bytes_, bytes_))
        gaps += 4 * ROUNDING * sizes
        self._numbers = readable(sizes), readable(gaps)
        limits = np.full(size, -np.inf, np.float32)
        limits[: len(queries)] = np.inf
        self._found: Any = (
            limits,
            np.full((len(queries), SPARE * (k + 10)), np.inf, np.float32),
            np.zeros(len(queries), np.int64),
            np.zeros((len(queries), CANDIDATES), np.int32),
            np.zeros((len(queries), CANDIDATES), np.float32),
            np.zeros(len(queries), np.int64),
        )

    def reach(self, chosen: NDArray[np.intp] | None, tick: Tick) -> None:
        """Look at the rows of some positions, or of all."""
        from m2mdb.compute.hrm2 import best_kernels

        lists, counts = self._searcher.lists, self._found[5]
        codes = lists.bytes8.reshape(-1, lists.width)
        is_near, root = self._searcher.metric != "ip", np.float32(np.sqrt(lists.width))
        total = len(lists.ordinals) if chosen is None else len(chosen)
        step = max(64, PART_PRODUCTS // len(self._columns.scales))
        for number, start in enumerate(range(0, total, step)):
            tick()
            if not number % LOOK_PARTS and 2 * np.count_nonzero(counts < 0) > len(counts):
                counts[:] = -1
                return
            part = slice(start, start + step)
            some: Any = part if chosen is None else chosen[part]
            scales, squares = lists.scales[some], lists.squares[some]
            numbers = (lists.ordinals[some], squares, HALF_STEP * root * scales, np.sqrt(squares))
            best_kernels.reach(
                self._columns.times(Coded(codes[some], scales)), is_near, self._k,
                tuple(readable(each) for each in numbers), self._numbers, self._found,
            )  # fmt: skip

    def in_full(self, rows: Floats, queries: Floats) -> tuple[Floats, NDArray[np.intp]]:
        """The k best keys of each query, and which queries were given up."""
        from m2mdb.compute.hrm2 import best_kernels

        is_near = self._searcher.metric != "ip"
        best = np.zeros((len(queries), self._k), np.float32)
        rounding = np.float32(0) if is_near else ROUNDING
        best_kernels.in_full(
            readable(rows), readable(queries), is_near, rounding, self._found, best
        )
        out: Floats = -np.sort(-best, axis=1)
        if is_near:
            out += 4 * ROUNDING * out
        return out, np.flatnonzero(self._found[5] < 0)
