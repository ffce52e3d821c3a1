"""Signals of a search: how well a query fits what is stored, by the centroids alone.

Over the lists of a column, with s the similarity of the query to a list's centroid:

    qerr        cosine      1 - the largest cosine of the query and a centroid
                l2, ip      squared distance from the nearest centroid, over the mean squared
                            distance of the stored rows from theirs: 1 is as near as they are
    margin      cosine      the largest cosine less the second largest
                l2, ip      the same squared distances, the second smallest less the smallest
    confidence  1 / (1 + qerr)

The nearest centroid of all segments decides; the second one is of the same segment, as every
segment has a centroid of its own near each query. They are computed when somebody asks, from the
routing layer alone: a search does not need them, and nothing is written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from m2mdb.index.hrm2 import searched_query
from m2mdb.index.routing import Routing, routing

if TYPE_CHECKING:
    from m2mdb.index.collection import CollectionView
    from m2mdb.index.schema import Column


class Signals(NamedTuple):
    """What the centroids say of a query.

    confidence  in (0, 1]; qerr and margin >= 0
    part        whose centroid is the nearest, as m2m_lists names it
    list        its number there, as m2m_clusters has it
    """

    confidence: float
    margin: float
    qerr: float
    part: str
    list: int


def signals(collection: CollectionView, column_index: int, query: np.ndarray) -> Signals | None:
    """The signals of a checked query, float32 (dimension,).

    None where the column has no lists, or they are not searched for a vector so long.
    """
    column = collection.schema.columns[column_index]
    searched = searched_query(query, column.metric)
    if searched is None:
        return None
    best: Signals | None = None
    for segment in collection.segments:
        found = routing(segment, column)
        if found is None:
            continue
        qerr, margin, number = _of_segment(found, column, searched)
        if best is None or qerr < best.qerr:
            name = f"segment {segment.id}"
            best = Signals(1 / (1 + qerr), margin, qerr, name, number)
    return best


def _of_segment(found: Routing, column: Column, query: np.ndarray) -> tuple[float, float, int]:
    """qerr, margin and the nearest list."""
    if column.metric == "cosine":
        lengths = np.sqrt(np.maximum(found.squares, np.float32(1e-20)))
        gaps = 1 - found.products(query[None])[0].astype(np.float64) / lengths
        np.clip(gaps, 0, 2, out=gaps)
    else:
        gaps = found.squared_distances(query[None])[0].astype(np.float64)
        gaps /= max(found.error, 1e-12 * max(1.0, float(found.squares.max())))
    nearest = int(gaps.argmin())
    second = np.partition(gaps, 1)[1] if len(gaps) > 1 else gaps[nearest]
    return float(gaps[nearest]), float(second - gaps[nearest]), nearest
