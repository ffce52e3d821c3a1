"""Hybrid search in three compiled calls: nearest rows, best texts, and both fused by their ranks.

    prepared.nearest --rowids, best first--+
                                           +--rank_fusion.fuse_ranks--> Joined
    text_searchers.search -----rowids------+

It says the same as `query.search` does step by step for FUSION rrf, with the same scores in the
same order. What both sides need of a snapshot is kept by the CollectionView (`index.prepared`,
`index.lexical`).

Invariants
    PH1 Rows, scores and order are those of `query.fusion.fuse`, to the bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from m2mdb.compute.text_backend import text_kernels
from m2mdb.index.lexical import match
from m2mdb.index.prepared import MOST_INSERTED, prepared

if TYPE_CHECKING:
    from m2mdb.compute.backend import Backend
    from m2mdb.index.collection import CollectionView
    from m2mdb.index.effort import Effort
    from m2mdb.index.found import Found
    from m2mdb.index.text.match_query import TextQuery

MOST_DEPTH = MOST_INSERTED  # rows of a side; more go by steps
_SLOTS = 2 * MOST_DEPTH


class Sides(NamedTuple):
    """What is searched, and how it is fused.

    near, match  columns by index; match is None for all FULLTEXT columns
    depth        rows of each side that take part
    weights      float64 [3]: the constant k of rrf, the weights of the vector and the text side
    effort       of the vector side
    """

    near: int
    match: int | None
    depth: int
    weights: np.ndarray
    effort: Effort


class Joined(NamedTuple):
    """The fused ranking: rows int64 [3, m], rowids and places in both sides (-1: absent); scores.

    scores   float64 [m]
    sides    what the vector side and the text side have found
    """

    rows: np.ndarray
    scores: np.ndarray
    sides: tuple[Found, Found]

    def places(self, start: int, stop: int) -> list[tuple[int, int]]:
        """(part, ordinal) of the hits from one place to before another."""
        known = [side.places for side in self.sides]
        near, words = self.rows[1:, start:stop].tolist()
        return [known[0][i] if i >= 0 else known[1][j] for i, j in zip(near, words, strict=True)]


def hybrid(
    view: CollectionView,
    sides: Sides,
    query: np.ndarray,
    text: TextQuery,
    stop: int,
    backend: Backend,
) -> Joined | None:
    """The best `stop` rows of both rankings fused; None where that is to go by steps.

    query  float32 (dimension,), checked by `query_vectors.check_query_vector`
    """
    rows = sum([part.size for part in view.parts()])
    depth = min(sides.depth, rows)
    ranking, kernels = backend.ranking(), text_kernels(backend, rows)
    if ranking is None or kernels is None or not 0 < depth <= MOST_DEPTH:
        return None
    ready = prepared(view, sides.near, ranking)
    if ready is None:
        return None
    near = ready.nearest(query, depth, None, sides.effort, backend)
    words = match(view, text, depth, column_index=sides.match, backend=backend)
    stop = min(stop, len(near) + len(words))
    room = np.empty(3 * _SLOTS, np.int64)
    found, scores = np.empty((3, stop), np.int64), np.empty(stop)
    count = kernels.fusion.fuse_ranks(near.rowids, words.rowids, sides.weights, room, found, scores)
    return Joined(found[:, :count], scores[:count], (near, words))


__all__ = ["MOST_DEPTH", "Joined", "Sides", "hybrid"]
