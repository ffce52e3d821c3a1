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
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from m2mdb.compute.topk import best_first

if TYPE_CHECKING:
    from collections.abc import Callable
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
    wide = rows.astype(np.float64, order="C")
    target = query.astype(np.float64)
    if metric == "l2":
        wide -= target
        return _products(wide, wide) * -1.0
    dots: Doubles = np.einsum("ij,j->i", wide, target)
    if metric == "ip":
        return dots
    lengths = np.sqrt(_products(wide, wide)) * np.sqrt(_products(target[None], target[None]))
    dots /= np.maximum(lengths, SMALLEST)  # a zero vector's product is 0, and stays so
    return np.maximum(np.minimum(dots, 1.0), -1.0)


def _products(left: Doubles, right: Doubles) -> Doubles:
    """Dot product of each row of `left` with the same row of `right`."""
    out: Doubles = np.einsum("ij,ij->i", left, right)
    return out


def present(similarity: Doubles, metric: str) -> tuple[Scores, Vector]:
    """Score and distance as a statement shows them: float32, but float64 scores for l2."""
    if metric == "l2":
        with np.errstate(over="ignore"):
            distances = np.sqrt(-similarity).astype(np.float32)
        return 1.0 / (1.0 + distances.astype(np.float64)), distances
    with np.errstate(over="ignore"):
        scores = similarity.astype(np.float32)
    return scores, np.float32(1.0 if metric == "cosine" else 0.0) - scores


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
