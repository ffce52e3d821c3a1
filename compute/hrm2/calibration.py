"""Calibration: how long a search has to probe for the recall that is asked.

Probing goes on while fewer lists were probed than

    FACTOR * (the last list that changed the k best) + patience

so that a query whose neighbours lie together stops early and one between clusters goes on. Which
patience gives which recall is measured when an index is built: on rows of its own with noise, as
queries like what is stored are, and on mixtures of distant rows, as queries off the distribution
are (real ones often are). The table keeps the larger of the two.

Invariants
    C1  The table ascends with recall; patience between its points is taken from the next higher.
    C2  It depends on lists, rows and seed alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from m2mdb.compute.hrm2.reference import Stop

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from m2mdb.compute.hrm2.searcher import Searcher

    Floats = NDArray[np.float32]

FACTOR = 1.5
EPSILON = 1.3  # standard errors taken off a 1-bit estimate
KS = (1, 10, 100)
RECALLS = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99)
LEVELS = (0, 1, 2, 3, 4, 5, 6, 8, 10, 13, 17, 22, 29, 38, 50, 66, 87, 115, 150, 200, 300, 500)
QUERIES = 192  # of each kind
MARGIN = 0.002  # that a measured recall has to be above the one that is promised
NOISE = 0.5
LEAST = 2


def spare(k: int) -> int:
    """How many candidates beyond k are kept for the comparison in full precision."""
    return max(8, k // 4)


def stop_for(table: NDArray[np.float32], k: int, recall: float) -> Stop:
    """When to stop for a recall, by a table [len(KS), len(RECALLS)] of patience."""
    column = min(int(np.searchsorted(RECALLS, recall - 1e-9)), len(RECALLS) - 1)
    wanted = table[:, column]
    patience = float(np.interp(np.log(k), np.log(KS), wanted))
    if k > KS[-1]:
        patience *= (k / KS[-1]) ** 0.5
    return Stop(k, LEAST, round(patience + 0.5), 1 << 30, FACTOR)


def queries_like(rows: Floats, metric: str, seed: int) -> tuple[Floats, Floats]:
    """Queries like stored rows, and queries off their distribution."""
    rng = np.random.default_rng(seed)
    chosen = rows[rng.integers(0, len(rows), (4, QUERIES))]
    near = chosen[0] + NOISE * (chosen[1] - chosen[2]) * 0.5
    far = chosen[0] + 0.9 * (chosen[1] - chosen[2])
    return _ready(near, metric), _ready(far, metric)


def _ready(queries: Floats, metric: str) -> Floats:
    if metric == "cosine":
        lengths = np.linalg.norm(queries, axis=1, keepdims=True)
        queries = queries / np.maximum(lengths, np.float32(1e-20))
    return np.ascontiguousarray(queries, np.float32)


def exact(rows: Floats, queries: Floats, metric: str, k: int) -> NDArray[np.float32]:
    """The k best keys of each query, [len(queries), k] in descending order (float32 by BLAS)."""
    k = min(k, len(rows))
    best = np.empty((len(queries), 0), np.float32)
    for start in range(0, len(rows), 32_768):
        some = rows[start : start + 32_768]
        keys = queries @ some.T
        if metric != "ip":
            keys = 2 * keys - np.einsum("ij,ij->i", some, some)
        if keys.shape[1] > k:
            keys = -np.partition(-keys, k - 1, axis=1)[:, :k]
        best = np.concatenate((best, keys), axis=1)
        if best.shape[1] > k:
            best = -np.partition(-best, k - 1, axis=1)[:, :k]
    return -np.sort(-best, axis=1)


def calibrate(searcher: Searcher, rows: Floats, seed: int) -> NDArray[np.float32]:
    """The table of patience for lists over `rows`, float32[n, d], numbered as the ordinals."""
    table = np.zeros((len(KS), len(RECALLS)), np.float32)
    for queries in queries_like(rows, searcher.metric, seed):
        best = exact(rows, queries, searcher.metric, KS[-1])
        for row, k in enumerate(KS):
            if k <= best.shape[1]:
                found = _patience(searcher, rows, queries, best[:, k - 1], k)
                np.maximum(table[row], found, out=table[row])
    return table


def _patience(
    searcher: Searcher, rows: Floats, queries: Floats, least: Floats, k: int
) -> NDArray[np.float32]:
    """The smallest level for each of RECALLS; `least` is the k-th best key of each query."""
    known: dict[int, float] = {}

    def recall(level: int) -> float:
        if level not in known:
            stop = Stop(k, LEAST, LEVELS[level], 1 << 30, FACTOR)
            known[level] = measure(searcher, rows, queries, least, stop)
        return known[level]

    out = np.empty(len(RECALLS), np.float32)
    low = 0
    for column, wanted in enumerate(RECALLS):
        high = len(LEVELS) - 1
        while low < high:
            middle = (low + high) // 2
            if recall(middle) >= min(wanted + MARGIN, 0.998):
                high = middle
            else:
                low = middle + 1
        out[column] = LEVELS[low]
    return out


def measure(searcher: Searcher, rows: Floats, queries: Floats, least: Floats, stop: Stop) -> float:
    """Recall@k over queries; rows that tie with the k-th best count."""
    hits = 0
    for query, edge in zip(queries, least, strict=True):
        found = searcher.search(query, stop, wanted=stop.k + spare(stop.k), epsilon=EPSILON)
        some = rows[found.ordinals]
        keys = some @ query
        if searcher.metric != "ip":
            keys = 2 * keys - np.einsum("ij,ij->i", some, some)
        hits += min(stop.k, int((keys >= edge - 1e-5 * max(1.0, abs(edge))).sum()))
    return hits / (stop.k * len(queries))
