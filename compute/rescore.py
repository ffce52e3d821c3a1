"""Rescoring: the final scores and the final order, the same whatever backend found the rows.

    candidates --similarities--> float64 --present--> (key, score, distance) --best_first--> answer

Metric by metric, with s the float64 similarity:

    metric  s           score                 distance (float32)    ordered by
    cosine  cos, 0 for a zero vector          1 - score             score
    ip      dot         dot                   -score                score
    l2      -|q - x|^2  1 / (1 + distance)    sqrt(-s)              distance, hence score

Invariants
    R1  A row's score depends on that row and the query alone: not on its position, on the rows
        beside it, or on how many there are. Identical rows therefore have identical scores.
    R2  The order is (key descending, id ascending), where the key is the score, or for l2 minus the
        distance. Scores are float32, those of l2 float64: near 1 float32 cannot tell small
        distances apart, and equal scores would seem out of order.
    R3  Memory is bounded: candidates beyond CHUNK_VALUES are gathered and ranked chunk by chunk.
    R4  Every sum is NumPy's pairwise one over a contiguous axis, of products that are rounded
        before they are added. The compiled kernel adds in that order, so that both forms give the
        same bits; it is used only where it was seen to.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from m2mdb.compute.loader import LOADER
from m2mdb.compute.topk import best_first

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

    from numpy.typing import NDArray

    Rows = NDArray[Any]
    Vector = NDArray[np.float32]
    Scores = NDArray[Any]  # float32, float64 for l2
    Doubles = NDArray[np.float64]
    Ids = NDArray[np.int64]
    Gather = Callable[[NDArray[np.int64]], Rows]

SMALLEST = 5e-324  # the smallest float64 above zero
CHUNK_VALUES = 1 << 18  # 2 MiB of float64 at a time
MOST_INSERTED = 256  # hits that the kernel orders, by insertion
KINDS = {"cosine": 0, "ip": 1, "l2": 2}  # as `numba_kernels` numbers them
PROBED_DIMENSIONS = (1, 7, 8, 31, 128, 129, 384, 1001)


class Ranked(NamedTuple):
    """Hits, best first: positions among the candidates given, and the final numbers."""

    positions: NDArray[np.intp]
    ids: Ids
    scores: Scores
    distances: Vector

    def keys(self, metric: str) -> Scores:
        """What the order was made by (R2), for merging ranked parts."""
        return -self.distances if metric == "l2" else self.scores


def similarities(rows: Rows, query: Vector, metric: str) -> Doubles:
    """Similarity of each row to the query in float64, row by row alone (R1).

    rows    float32, float16 or int8 [m, d]
    query   float32 [d]
    """
    target = query.astype(np.float64)
    if metric == "cosine":
        return _cosines(rows, target)
    wide = rows.astype(np.float64, order="C")
    if metric == "l2":
        wide -= target
        wide *= wide
        return _sums(wide) * -1.0
    wide *= target
    return _sums(wide)


def _cosines(rows: Rows, target: Doubles) -> Doubles:
    """Cosines, from one reduction over products with the query, squares, and the query's own."""
    count = rows.shape[0]
    terms = np.empty((2 * count + 1, target.shape[0]))
    wide = terms[:count]
    wide[...] = rows
    np.multiply(wide, wide, out=terms[count:-1])
    np.multiply(target, target, out=terms[-1])
    wide *= target
    sums = _sums(terms)
    dots, lengths = sums[:count], np.sqrt(sums[count:])
    dots /= np.maximum(lengths[:-1] * lengths[-1], SMALLEST)  # a zero vector's product stays 0
    return np.maximum(np.minimum(dots, 1.0), -1.0)


def _sums(terms: Doubles) -> Doubles:
    """The sum of each row (R4); never -0.0."""
    out: Doubles = np.add.reduce(terms, axis=1)
    out += 0.0
    return out


def present(similarity: Doubles, metric: str) -> tuple[Scores, Vector]:
    """Score and distance as a statement shows them: float32, but float64 scores for l2."""
    if metric == "cosine":
        scores = similarity.astype(np.float32)
        return scores, np.float32(1.0) - scores
    if metric == "l2":
        with np.errstate(over="ignore"):
            distances = np.sqrt(-similarity).astype(np.float32)
        return 1.0 / (1.0 + distances.astype(np.float64)), distances
    with np.errstate(over="ignore"):
        scores = similarity.astype(np.float32)
    return scores, np.float32(0.0) - scores


def rank(rows: Rows, ids: Ids, query: Vector, k: int, metric: str) -> Ranked:
    """The k best of the given candidate rows, with final scores and distances.

    rows    the candidates' vectors [m, d], in the order of `ids`
    ids     int64[m]; ties are ordered by them
    """
    scores, distances = present(similarities(rows, query, metric), metric)
    order = best_first(-distances if metric == "l2" else scores, ids, k)
    return Ranked(order, ids[order], scores[order], distances[order])


def rank_gathered(
    gather: Gather, ordinals: NDArray[np.int64], ids: Ids, query: Vector, k: int, metric: str
) -> Ranked:
    """Like `rank`, but fetches the rows by `gather(ordinals)`, a bounded chunk at a time (R3).

    `positions` of the result index `ordinals`.
    """
    step = max(256, CHUNK_VALUES // max(1, query.shape[0]))
    total = ordinals.shape[0]
    if total <= step:
        return rank(gather(ordinals), ids, query, k, metric)
    best: Ranked | None = None
    for start in range(0, total, step):
        stop = min(start + step, total)
        found = rank(gather(ordinals[start:stop]), ids[start:stop], query, k, metric)
        found = found._replace(positions=found.positions + start)
        best = found if best is None else _best_of(best, found, k, metric)
    assert best is not None
    return best


def rank_rows(
    rows: Rows, ordinals: NDArray[np.int64], ids: Ids, query: Vector, k: int, metric: str
) -> Ranked:
    """`rank` of some rows of an array that is in memory: rows[ordinals], with ids[ordinals].

    `positions` of the result index `ordinals`. float32 rows are not copied where kernels are
    loaded.
    """
    kernels = LOADER.module
    most = min(k, ordinals.shape[0])
    flags = rows.flags
    is_plain = rows.dtype == np.float32 and flags.c_contiguous and flags.aligned
    is_plain &= 0 < most <= MOST_INSERTED
    if kernels is None or not is_plain or not kernels_agree(kernels):
        return rank_gathered(lambda chosen: rows[chosen], ordinals, ids[ordinals], query, k, metric)
    positions, found = np.empty(most, np.int64), np.empty(most, np.int64)
    scores, distances = np.empty(most), np.empty(most, np.float32)
    out = (positions, found, scores, distances)
    wanted = np.ascontiguousarray(ordinals, np.int64)
    kernels.rank(KINDS[metric], rows, ids, wanted, query, out)
    shown = scores if metric == "l2" else scores.astype(np.float32)
    return Ranked(positions, found, shown, distances)


_agreeing: tuple[ModuleType | None, bool] = (None, False)


def kernels_agree(kernels: ModuleType) -> bool:
    """Whether the kernel adds as this NumPy does (R4): tried once, with the sums of a few rows."""
    global _agreeing
    if _agreeing[0] is not kernels:
        agrees = True
        for dimension in PROBED_DIMENSIONS:
            row, query = np.sin(np.arange(2.0 * dimension)).astype(np.float32).reshape(2, -1) * 1e3
            length = math.sqrt(_sums((query.astype(np.float64) ** 2)[None])[0])
            for metric, kind in KINDS.items():
                near = kernels.similarity(kind, row, query, length)
                agrees &= near == similarities(row[None], query, metric)[0]
        _agreeing = (kernels, agrees)
    return _agreeing[1]


def _best_of(left: Ranked, right: Ranked, k: int, metric: str) -> Ranked:
    """The k best of two ranked sets."""
    joined = Ranked(
        np.concatenate((left.positions, right.positions)),
        np.concatenate((left.ids, right.ids)),
        np.concatenate((left.scores, right.scores)),
        np.concatenate((left.distances, right.distances)),
    )
    order = best_first(joined.keys(metric), joined.ids, k)
    positions, ids, scores, distances = joined
    return Ranked(positions[order], ids[order], scores[order], distances[order])
