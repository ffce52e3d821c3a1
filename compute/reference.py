"""The NumPy backend: the reference that every kernel is tested against, and always at hand.

    chunk of rows --similarities--> (lower, upper) --Collector.admit--> candidates above T

float32 rows are multiplied by BLAS in one call; float16 and int8 rows, and differences for l2, go
block by block through a float32 buffer that stays in the cache. `bound.py` says what `lower` and
`upper` mean, and why no row of the answer is lost.

Invariants
    N1  The threshold T never falls, and a candidate below it is dropped at the next `prune`.
    N2  Temporary memory is bounded: SPAN_ROWS floats a scan, BLOCK_VALUES floats a block.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from m2mdb.compute.backend import Candidates, Tick, untold
from m2mdb.compute.bound import Query, row_norms
from m2mdb.compute.topk import floor_of_groups
from m2mdb.pager.errors import ProgrammingError

if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

    from numpy.typing import NDArray

    from m2mdb.compute.backend import Collector

    Rows = NDArray[Any]
    Vector = NDArray[np.float32]
    Mask = NDArray[np.uint8] | NDArray[np.bool_]

BLOCK_VALUES = 1 << 16  # floats converted or subtracted at a time: 256 KiB, within the L2 cache
SPAN_ROWS = 1 << 16  # rows scored before a selection
SPARSE = 8  # a mask with fewer than 1 row in 8 is gathered, not scanned
SMALLEST_NORM = np.float32(1e-37)  # divides in place of 0, so that a zero vector scores 0
LARGEST_EXPANDED = 1e17  # lengths beyond this might overflow |x|^2 - 2qx + |q|^2
MANY_QUERIES = 64  # queries multiplied at a time
MANY_ROWS = 1 << 14  # rows scored for them before a selection: 4 MiB of scores
TICK_QUERIES = 8  # whose rows are chosen between two ticks
PRODUCTS_TOLD = 4  # matrix products between two ticks
PRODUCT_ROWS = 512  # rows of one matrix product: half a MiB at d = 256


def dots(rows: Rows, vector: Vector) -> Vector:
    """out[i] = rows[i] . vector in float32, for float32, float16 or int8 rows."""
    count = rows.shape[0]
    out = np.empty(count, np.float32)
    if rows.dtype == np.float32:
        return np.dot(rows, vector, out=out)
    step = max(1, BLOCK_VALUES // max(1, rows.shape[1]))
    block = np.empty((min(step, count), rows.shape[1]), np.float32)
    for start in range(0, count, step):
        part = rows[start : start + step]
        wide = block[: part.shape[0]]
        wide[...] = part
        np.dot(wide, vector, out=out[start : start + step])
    return out


def products(rows: Rows, vectors: Vector, tick: Tick = untold) -> Vector:
    """out[q, i] = rows[i] . vectors[q] in float32, for float32, float16 or int8 rows."""
    count = rows.shape[0]
    out = np.empty((vectors.shape[0], count), np.float32)
    for start in range(0, count, PRODUCT_ROWS):
        if not start % (PRODUCTS_TOLD * PRODUCT_ROWS):
            tick()
        part = rows[start : start + PRODUCT_ROWS].astype(np.float32, copy=False)
        np.matmul(vectors, part.T, out=out[:, start : start + PRODUCT_ROWS])
    return out


def squared_distances(rows: Rows, vector: Vector) -> Vector:
    """out[i] = |rows[i] - vector|^2 in float32, from differences: small ones keep their digits."""
    count = rows.shape[0]
    out = np.empty(count, np.float32)
    step = max(1, BLOCK_VALUES // max(1, rows.shape[1]))
    block = np.empty((min(step, count), rows.shape[1]), np.float32)
    for start in range(0, count, step):
        part = rows[start : start + step]
        delta = np.subtract(part, vector, out=block[: part.shape[0]])
        np.einsum("ij,ij->i", delta, delta, out=out[start : start + step])
    return out


def bounds(rows: Rows, norms: Vector | None, query: Query) -> tuple[Vector, Vector]:
    """(lower, upper) of each row's similarity, as `Query.threshold` wants them."""
    if query.metric != "l2":
        lengths = row_norms(rows) if norms is None else norms
        return _bounds_of(dots(rows, query.vector), lengths, query)
    if norms is not None and _is_expandable(norms, query):
        return _bounds_of(dots(rows, query.vector), norms, query)
    with np.errstate(over="ignore", under="ignore"):
        nearness = np.negative(squared_distances(rows, query.vector))
    return nearness, nearness


def _bounds_of(products: Vector, lengths: Vector, query: Query) -> tuple[Vector, Vector]:
    """Bounds from products with the query's vector (overwrites them)."""
    if query.metric == "cosine":
        products /= np.maximum(lengths, SMALLEST_NORM)
        return products, products
    return (_around if query.metric == "ip" else _expanded)(products, lengths, query)


def _around(products: Vector, lengths: Vector, query: Query) -> tuple[Vector, Vector]:
    """Bounds of inner products, whose error grows with the row's length."""
    error = lengths * np.float32(query.spread)
    return products - error, products + error


def _is_expandable(norms: Vector, query: Query) -> bool:
    """True if no length comes near the overflow of the expanded distance."""
    largest = float(norms.max()) if norms.shape[0] else 0.0
    return largest < LARGEST_EXPANDED and query.norm < LARGEST_EXPANDED


def _expanded(products: Vector, lengths: Vector, query: Query) -> tuple[Vector, Vector]:
    """Bounds of minus the squared distance, from |x|^2 - 2qx + |q|^2 (overwrites `products`)."""
    products *= np.float32(2.0)
    products -= lengths * lengths
    products -= np.float32(query.norm * query.norm)
    error = lengths + np.float32(query.norm)
    error *= error
    error *= np.float32(query.spread)
    return products - error, np.minimum(products + error, np.float32(0.0))


def check_rows(rows: Rows, query: Query) -> None:
    """Raise ProgrammingError unless the rows have the query's dimension."""
    if rows.ndim != 2 or rows.shape[1] != query.dimension:
        raise ProgrammingError(
            f"rows of shape {rows.shape}: expected (n, {query.dimension}) as the query has"
        )


class NumpyCollector:
    """Candidates of one query, as `backend.Collector` promises."""

    __slots__ = ("_best", "_k", "_limit", "_ordinals", "_pending", "_threshold", "_uppers", "query")

    def __init__(self, query: Query, k: int) -> None:
        """Collect the k best rows for `query`; k below 1 counts as 1."""
        self.query = query
        self._k = max(1, k)
        self._threshold = -math.inf
        self._best: Vector = np.empty(0, np.float32)  # the k largest `lower` so far
        self._ordinals: list[NDArray[np.int64]] = []
        self._uppers: list[Vector] = []
        self._pending = 0
        self._limit = 8 * self._k + 4096

    def scan(
        self, rows: Rows, norms: Vector | None, mask: Mask | None, first_ordinal: int = 0
    ) -> None:
        """Consider a chunk of rows; see `backend.Collector.scan`."""
        check_rows(rows, self.query)
        count = rows.shape[0]
        live = None if mask is None else mask.view(np.bool_)
        if live is not None and np.count_nonzero(live) * SPARSE < count:
            self._scan_sparse(rows, norms, np.flatnonzero(live), first_ordinal)
            return
        for start in range(0, count, SPAN_ROWS):
            stop = min(start + SPAN_ROWS, count)
            lower, upper = bounds(
                rows[start:stop], None if norms is None else norms[start:stop], self.query
            )
            part = None if live is None else live[start:stop]
            self.admit(lower, upper, part, first_ordinal + start, None)

    def _scan_sparse(
        self, rows: Rows, norms: Vector | None, chosen: NDArray[np.intp], first_ordinal: int
    ) -> None:
        """Score the chosen rows alone, gathered block by block."""
        step = max(64, BLOCK_VALUES // max(1, rows.shape[1]))
        for start in range(0, chosen.shape[0], step):
            part = chosen[start : start + step]
            lengths = None if norms is None else norms[part]
            lower, upper = bounds(rows[part], lengths, self.query)
            self.admit(lower, upper, None, first_ordinal, part)

    def admit(
        self,
        lower: Vector,
        upper: Vector,
        live: NDArray[np.bool_] | None,
        first_ordinal: int,
        places: NDArray[np.intp] | None,
    ) -> None:
        """Keep rows that may belong to the answer; row i is first_ordinal + (places[i] or i)."""
        size = lower.shape[0]
        if self._threshold == -math.inf and size > 4 * self._k:
            seen = lower if live is None else np.where(live, lower, np.float32(-np.inf))
            self._raise_threshold(floor_of_groups(seen, self._k))
        keep = upper >= np.float32(self._threshold)
        if live is not None:
            keep &= live
        found = np.flatnonzero(keep)
        if found.shape[0] == 0:
            return
        self._uppers.append(upper[found])
        self._ordinals.append((found if places is None else places[found]) + first_ordinal)
        self._pending += found.shape[0]
        best = np.concatenate((self._best, lower[found]))
        if best.shape[0] > self._k:
            best = np.partition(best, best.shape[0] - self._k)[-self._k :]
        self._best = best
        if best.shape[0] == self._k:
            self._raise_threshold(float(best.min()))
        if self._pending > self._limit:
            self._prune()

    def _raise_threshold(self, kth: float) -> None:
        """Take the k-th largest `lower` known so far into account (N1)."""
        if kth > -math.inf:
            self._threshold = max(self._threshold, self.query.threshold(kth))

    def _prune(self) -> None:
        """Drop the candidates that fell below the threshold."""
        uppers = np.concatenate(self._uppers)
        keep = uppers >= np.float32(self._threshold)
        self._uppers = [uppers[keep]]
        self._ordinals = [np.concatenate(self._ordinals)[keep]]
        self._pending = self._uppers[0].shape[0]
        self._limit = max(self._limit, 2 * self._pending)

    def result(self) -> Candidates:
        """The candidates so far; see `backend.Collector.result`."""
        if not self._uppers:
            return Candidates(np.empty(0, np.int64), np.empty(0, np.float32))
        self._prune()
        return Candidates(self._ordinals[0], self.query.natural(self._uppers[0]))


class NumpyBackend:
    """Every scan in NumPy and its BLAS."""

    name = "numpy"

    def searches_lists(self) -> bool:
        """See `backend.Backend.searches_lists`: this backend compares every row."""
        return False

    def ranking(self) -> ModuleType | None:
        """See `backend.Backend.ranking`: this backend compiles nothing."""
        return None

    def collector(self, query: Vector, k: int, metric: str) -> Collector:
        """See `backend.Backend.collector`."""
        return NumpyCollector(Query(query, metric), k)

    def top_k(
        self,
        rows: Rows,
        norms: Vector | None,
        query: Vector,
        k: int,
        metric: str,
        mask: Mask | None = None,
    ) -> Candidates:
        """See `backend.Backend.top_k`."""
        collector = self.collector(query, k, metric)
        collector.scan(rows, norms, mask)
        return collector.result()

    def top_k_many(
        self,
        rows: Rows,
        norms: Vector | None,
        queries: Rows,
        k: int,
        metric: str,
        mask: Mask | None = None,
        tick: Tick = untold,
    ) -> list[Candidates]:
        """See `backend.Backend.top_k_many`."""
        prepared = [Query(query, metric) for query in queries]
        for query in prepared:
            check_rows(rows, query)
        batches = (
            _Batch(prepared[start : start + MANY_QUERIES], k).scan(rows, norms, mask, tick)
            for start in range(0, len(prepared), MANY_QUERIES)
        )
        return [found for batch in batches for found in batch]


class _Batch:
    """Up to MANY_QUERIES queries of one metric, which share the reading of rows."""

    def __init__(self, queries: list[Query], k: int) -> None:
        """Collect the k best rows of each query."""
        self._queries = queries
        self._metric = queries[0].metric
        self._collectors = [NumpyCollector(query, k) for query in queries]
        self._vectors = np.stack([query.vector for query in queries])

    def scan(
        self, rows: Rows, norms: Vector | None, mask: Mask | None, tick: Tick
    ) -> list[Candidates]:
        """Each query's candidates among all rows."""
        live = None if mask is None else mask.view(np.bool_)
        chosen = None
        if live is not None and np.count_nonzero(live) * SPARSE < rows.shape[0]:
            chosen, live = np.flatnonzero(live), None
        count = rows.shape[0] if chosen is None else chosen.shape[0]
        for start in range(0, count, MANY_ROWS):
            part: Any = slice(start, min(start + MANY_ROWS, count))
            places = None if chosen is None else chosen[part]
            block = rows[part] if places is None else rows[places]
            lengths = None if norms is None else norms[part if places is None else places]
            first = start if places is None else 0
            self._admit(block, lengths, None if live is None else live[part], (first, places), tick)
        return [collector.result() for collector in self._collectors]

    def _admit(
        self,
        rows: Rows,
        norms: Vector | None,
        live: NDArray[np.bool_] | None,
        numbers: tuple[int, NDArray[np.intp] | None],
        tick: Tick,
    ) -> None:
        """Score a block of rows for all queries, and let each collector choose."""
        first, places = numbers
        lengths = row_norms(rows) if norms is None else norms
        if self._metric == "l2" and not all(_is_expandable(lengths, q) for q in self._queries):
            for collector in self._collectors:
                tick()
                lower, upper = bounds(rows, None, collector.query)
                collector.admit(lower, upper, live, first, places)
            return
        scores = products(rows, self._vectors, tick)
        for number, (collector, row) in enumerate(zip(self._collectors, scores, strict=True)):
            if not number % TICK_QUERIES:
                tick()
            lower, upper = _bounds_of(row, lengths, collector.query)
            collector.admit(lower, upper, live, first, places)


NUMPY = NumpyBackend()
