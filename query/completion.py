"""Completion: each side of a search measures what only the other one has found.

A side holds its best rows and no others, so that a row it does not hold may be next best or
nothing at all. FUSION adaptive asks: the vector side for the distance of every row that the text
side found, and the text side for the score of every row that the vector side found. What is still
absent then has no vector, or none of the words.

Invariants
    CO1 A completed side holds the rows it held, with the same scores, and is ordered as before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from m2mdb.index.found import Found

if TYPE_CHECKING:
    from collections.abc import Callable

    from m2mdb.index.collection import CollectionView

    Masks = list[np.ndarray | None] | None


class Searching(Protocol):
    """What both sides search; see `query.search`."""

    collection: CollectionView

    def measured(self, k: int, masks: Masks) -> Found:
        """The vector side for rows that are known."""
        ...

    def matching(self, k: int, masks: Masks) -> Found:
        """The text side."""
        ...


def completed(work: Searching, vector: Found, text: Found) -> tuple[Found, Found]:
    """Both sides, each with the rows of the other that it can measure."""
    collection = work.collection
    return (
        _with(vector, text, collection, work.measured),
        _with(text, vector, collection, work.matching),
    )


def _with(
    side: Found,
    other: Found,
    collection: CollectionView,
    search: Callable[[int, Masks], Found],
) -> Found:
    """A side and what it measures of the other's rows."""
    missing = ~np.isin(other.rowids, side.rowids)
    count = int(np.count_nonzero(missing))
    if not count:
        return side
    rows = other.take(missing)
    parts = np.broadcast_to(rows.parts, count)
    masks: list[np.ndarray | None] = []
    for number, part in enumerate(collection.parts()):
        mask = np.zeros(part.size, bool)
        mask[rows.ordinals[parts == number]] = True
        masks.append(mask)
    return _merged(side, search(count, masks))


def _merged(one: Found, other: Found) -> Found:
    """The hits of two searches of one side, best first, equal scores by rowid."""
    if not len(other):
        return one
    pairs = [
        (np.broadcast_to(each.parts, len(each)), each.ordinals, each.scores, each.distances)
        for each in (one, other)
        if len(each)
    ]
    rowids = np.concatenate((one.rowids, other.rowids))
    parts, ordinals, scores = (
        np.concatenate([pair[field] for pair in pairs]) for field in range(3)
    )
    distances = None
    if other.distances is not None:
        distances = np.concatenate([pair[3] for pair in pairs])
    order = np.lexsort((rowids, -scores.astype(np.float64)))
    merged = Found(rowids, parts, ordinals, scores, distances)
    return merged.take(order)
