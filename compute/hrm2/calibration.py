"""Calibration: how long a search has to probe for the recall that is asked.

Probing goes on while fewer lists were probed than

    factor * (the last list that changed the k best) + patience

so that a query whose neighbours lie together stops early and one between clusters goes on. Which
patience gives which recall is measured when lists are built, on queries of two kinds:

    like what is stored     a row, and a part of the difference of two others
    off its distribution    a third each: the centroid of a list with the residual of a row of
                            another; a row with most of the difference of two others; the mean of
                            three rows of a list with more than half of such a difference

The latter are of unlike difficulty, as real queries are: in the mean they tell what sentences need
that search short definitions. The table keeps the larger patience of both kinds. Where real
queries are known, they take the place of those made up.

A search is a prefix of every longer one (K5), so one long search of a query tells when any other
would have stopped, and with what.

Invariants
    C1  The table ascends with recall; patience between its points is taken from the next higher.
    C2  It depends on lists, rows, queries and seed alone.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

import numpy as np

from m2mdb.compute.hrm2.lists import never
from m2mdb.compute.hrm2.reference import Stop

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from m2mdb.compute.hrm2.lists import Lists
    from m2mdb.compute.hrm2.searcher import Searcher

    Floats = NDArray[np.float32]

EPSILON = 1.3  # standard errors taken off a 1-bit estimate
KS = (1, 10, 100)
FACTORS = (1.5, 1.5, 1.0)  # of many rows one always comes late
RECALLS = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99)
LEVELS = np.unique(np.rint(1.1 ** np.arange(64)).astype(np.int64))  # of patience: 1 to 405
NEAR_QUERIES = 48
FAR_QUERIES = 216
LEAST_QUERIES = 96  # of a kind, for the largest of KS: each has many neighbours
MARGIN = 0.002  # that a measured recall has to be above the one that is promised
CAUTION = (1.0, 1.2, 1.4)  # rows that real queries may miss for one that made-up ones miss
HIGHEST = 0.992  # asked of measurements: few queries tell no more, and bounds lose some rows
MEMBERS = 64  # of a list, for its centroid
LEAST = 2
CHUNK_ROWS = 8192


def spare(k: int) -> int:
    """How many candidates beyond k are kept for the comparison in full precision."""
    return max(8, k // 4)


def _between(k: int, values: Sequence[float]) -> float:
    """A value of each of KS, at k: by the logarithm of k; those of the ends beyond them."""
    if k >= KS[-1]:
        return values[-1]
    right = bisect_right(KS, k)
    low, high = KS[right - 1], KS[right]
    share = math.log(k / low) / math.log(high / low)
    return values[right - 1] + share * (values[right] - values[right - 1])


def stop_for(table: NDArray[np.float32], k: int, recall: float) -> Stop:
    """When to stop for a recall, by a table [len(KS), len(RECALLS)] of patience."""
    column = min(bisect_left(RECALLS, recall - 1e-9), len(RECALLS) - 1)
    patience = _between(k, table[:, column].tolist())
    if k > KS[-1]:
        patience *= (k / KS[-1]) ** 0.5
    return Stop(k, LEAST, round(patience + 0.5), 1 << 30, _between(k, FACTORS))


def queries_like(searcher: Searcher, rows: Floats, seed: int) -> tuple[Floats, Floats]:
    """Queries like stored rows, and queries off their distribution (in random order)."""
    rng = np.random.default_rng(seed)

    def some(count: int) -> Floats:
        return rows[rng.integers(0, len(rows), count)]

    a, b, c = some(NEAR_QUERIES), some(NEAR_QUERIES), some(NEAR_QUERIES)
    near = a + np.float32(0.25) * (b - c)
    third = FAR_QUERIES // 3
    members = _Members(searcher.lists, rows)
    owners = rng.integers(0, len(searcher.lists.ordinals), (3, third))
    swapped = np.stack(
        [
            members.mean(at) + members.one(of, rng) - members.mean(of)
            for at, of in zip(*owners[:2].tolist(), strict=True)
        ]
    )
    moved = some(third) + np.float32(0.9) * (some(third) - some(third))
    mixed = np.stack(
        [np.mean([members.one(of, rng) for _ in range(3)], axis=0) for of in owners[2].tolist()]
    )
    mixed += np.float32(0.6) * (some(third) - some(third))
    far = np.concatenate((swapped, moved, mixed)).astype(np.float32)
    return _ready(near, searcher.metric), _ready(rng.permutation(far), searcher.metric)


class _Members:
    """Rows of the lists in which rows stand."""

    def __init__(self, lists: Lists, rows: Floats) -> None:
        self._lists = lists
        self._rows = rows
        self._list_of = np.empty(len(lists.ordinals), np.int64)
        for each, (start, end) in enumerate(zip(lists.starts[:-1], lists.starts[1:], strict=True)):
            block = lists.positions[start:end]
            self._list_of[block[block >= 0]] = each

    def _ordinals(self, position: int) -> NDArray[np.int32]:
        """Of the list in which a position stands."""
        each = self._list_of[position]
        block = self._lists.positions[self._lists.starts[each] : self._lists.starts[each + 1]]
        out: NDArray[np.int32] = self._lists.ordinals[block[block >= 0]]
        return out

    def mean(self, position: int) -> Floats:
        """The centroid of its list, nearly."""
        out: Floats = self._rows[self._ordinals(position)[:MEMBERS]].mean(axis=0)
        return out

    def one(self, position: int, rng: np.random.Generator) -> Floats:
        """A row of its list."""
        out: Floats = self._rows[rng.choice(self._ordinals(position))]
        return out


def _ready(queries: Floats, metric: str) -> Floats:
    if metric == "cosine":
        lengths = np.linalg.norm(queries, axis=1, keepdims=True)
        queries = queries / np.maximum(lengths, np.float32(1e-20))
    return np.ascontiguousarray(queries, np.float32)


def exact(
    rows: Floats, queries: Floats, metric: str, k: int, tick: Callable[[], None] = never
) -> NDArray[np.float32]:
    """The k best keys of each query, [len(queries), k] in descending order (float32 by BLAS)."""
    k = min(k, len(rows))
    best = np.empty((len(queries), 0), np.float32)
    for start in range(0, len(rows), CHUNK_ROWS):
        tick()
        some = rows[start : start + CHUNK_ROWS]
        keys = -(queries @ some.T)
        if metric != "ip":
            keys *= 2
            keys += np.einsum("ij,ij->i", some, some)
        if keys.shape[1] > k:
            keys.partition(k - 1, axis=1)
        best = np.concatenate((best, keys[:, :k]), axis=1)
        if best.shape[1] > k:
            best.partition(k - 1, axis=1)
            best = best[:, :k]
    out: NDArray[np.float32] = -np.sort(best, axis=1)
    return out


def calibrate(
    searcher: Searcher,
    rows: Floats,
    seed: int,
    queries: Floats | None = None,
    tick: Callable[[], None] = never,
) -> NDArray[np.float32]:
    """The table of patience for lists over `rows`, float32[n, d], numbered as the ordinals.

    queries  real ones, float32[m, d], of length 1 under cosine; None where none are known
    """
    kinds = queries_like(searcher, rows, seed) if queries is None else (queries,)
    every = np.concatenate(kinds)
    best = exact(rows, every, searcher.metric, KS[-1], tick)
    table = np.zeros((len(KS), len(RECALLS)), np.float32)
    first = 0
    for kind in kinds:
        for row, k in enumerate(KS):
            tick()
            count = min(len(kind), LEAST_QUERIES) if k == KS[-1] else len(kind)
            if k <= best.shape[1]:
                edges = best[first : first + count, k - 1]
                recalls = _recalls(searcher, rows, kind[:count], edges, k)
                found = _patience(recalls, 1.0 if queries is not None else CAUTION[row])
                np.maximum(table[row], found, out=table[row])
        first += len(kind)
    return table


def _patience(recalls: NDArray[np.float64], caution: float) -> NDArray[np.float32]:
    """The smallest level for each of RECALLS."""
    wanted = np.minimum(1 - (1 - np.array(RECALLS)) / caution + MARGIN, HIGHEST)
    at = np.searchsorted(np.maximum.accumulate(recalls), wanted)
    return LEVELS[np.minimum(at, len(LEVELS) - 1)].astype(np.float32)


def _recalls(
    searcher: Searcher, rows: Floats, queries: Floats, edges: Floats, k: int
) -> NDArray[np.float64]:
    """Recall at each of LEVELS; `edges` is the k-th best key of each query."""
    factor = _between(k, FACTORS)
    stop = Stop(k, LEAST, int(LEVELS[-1]), 1 << 30, factor)
    hits = np.zeros(len(LEVELS))
    for query, edge in zip(queries, edges, strict=True):
        ordinals, lists, places = searcher.trace(query, stop, wanted=k + spare(k), epsilon=EPSILON)
        true = _keys(rows[ordinals], query, searcher.metric) >= _tolerant(edge)
        when = np.sort(lists[true])
        ends = _ends(np.unique(lists[places < k]), factor)
        hits += np.minimum(np.searchsorted(when, ends), k)
    return hits / (k * len(queries))


def _ends(changes: NDArray[np.int32], factor: float) -> NDArray[np.int64]:
    """How many lists a search probes at each level, by the lists that change its best rows."""
    last = np.concatenate(([0], changes))
    ends = np.ceil(factor * last + LEVELS[:, None]).astype(np.int64)
    np.maximum(ends, LEAST, out=ends)
    following = np.append(changes, np.iinfo(np.int32).max)
    chosen = (following >= ends).argmax(axis=1)
    out: NDArray[np.int64] = ends[np.arange(len(LEVELS)), chosen]
    return out


def _keys(rows: Floats, query: Floats, metric: str) -> Floats:
    keys: Floats = rows @ query
    if metric != "ip":
        keys = 2 * keys - np.einsum("ij,ij->i", rows, rows)
    return keys


def _tolerant(edge: np.float32) -> float:
    """The k-th best key, less what float32 sums differ by."""
    return float(edge) - 1e-5 * max(1.0, abs(float(edge)))


def measure(searcher: Searcher, rows: Floats, queries: Floats, edges: Floats, stop: Stop) -> float:
    """Recall@k over queries; rows that tie with the k-th best count."""
    hits = 0
    for query, edge in zip(queries, edges, strict=True):
        found = searcher.search(query, stop, wanted=stop.k + spare(stop.k), epsilon=EPSILON)
        keys = _keys(rows[found.ordinals], query, searcher.metric)
        hits += min(stop.k, int((keys >= _tolerant(edge)).sum()))
    return hits / (stop.k * len(queries))
