"""The hits of a compiled text search: gathered, the best of them kept, and brought in order.

    hits    scores float32[k], rowids int64[k], places int64[2, k]: parts and ordinals

They stand as they come until there are k of them, then as a heap with the worst in front. Which of
two is better their scores say, and where these are equal their rowids: no two hits are equal, so
the order does not depend on the one in which they came.
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-call, no-any-return, no-untyped-def"
# mypy: disable-error-code="return-value, operator"

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import types

from m2mdb.compute.pointers import longs_at
from m2mdb.compute.text_lists import INT, INTS, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Hits = tuple[NDArray[np.float32], Ints, Ints]

SCORES = types.float32[::1]
INT_MATRIX = types.int64[:, ::1]
HITS = types.Tuple((SCORES, INTS, INT_MATRIX))


@kernel(types.boolean, SCORES, INTS, INT, INT)
def _is_worse(scores: Any, rowids: Ints, one: int, other: int) -> bool:
    """Whether a hit stands behind another: by its score, then by its rowid."""
    if scores[one] != scores[other]:
        return scores[one] < scores[other]
    return rowids[one] > rowids[other]


@kernel(types.void, SCORES, INTS, INT_MATRIX, INT, INT)
def _swap(scores: Any, rowids: Ints, places: Ints, one: int, other: int) -> None:
    """Exchange two hits."""
    scores[one], scores[other] = scores[other], scores[one]
    rowids[one], rowids[other] = rowids[other], rowids[one]
    places[0, one], places[0, other] = places[0, other], places[0, one]
    places[1, one], places[1, other] = places[1, other], places[1, one]


@kernel(types.void, SCORES, INTS, INT_MATRIX, INT)
def _sift_hits(scores: Any, rowids: Ints, places: Ints, root: int) -> None:
    """Bring a hit to its place in the heap of hits (the worst first) below it."""
    at, size = np.int64(root), np.int64(len(scores))
    while True:
        child = 2 * at + 1
        if child >= size:
            return
        if child + 1 < size and _is_worse(scores, rowids, child + 1, child):
            child += 1
        if not _is_worse(scores, rowids, child, at):
            return
        _swap(scores, rowids, places, at, child)
        at = child


@kernel(types.void, HITS, INT, INT)
def order_hits(hits: Hits, found: int, keys: int) -> None:
    """Bring the first hits in order: by merging numbers of them, each hit is then moved once.

    keys   address of int64[2 * found], scratch
    """
    scores, rowids, places = hits
    start, goal = keys, keys + 8 * found
    order = longs_at(start)
    for i in range(found):
        order[i] = i
    run = 1
    while run < found:
        order, other = longs_at(start), longs_at(goal)
        for first in range(0, found, 2 * run):
            middle, end = min(first + run, found), min(first + 2 * run, found)
            left, right = first, middle
            for at in range(first, end):
                if right == end or (
                    left < middle and not _is_worse(scores, rowids, order[left], order[right])
                ):
                    other[at] = order[left]
                    left += 1
                else:
                    other[at] = order[right]
                    right += 1
        start, goal = goal, start
        run *= 2
    order = longs_at(start)
    for first in range(found):
        at = first
        while order[at] != first:  # round a ring, the hit of which comes to its end by swaps
            source = order[at]
            _swap(scores, rowids, places, at, source)
            order[at] = at
            at = source
        order[at] = at


@kernel(types.void, HITS, INT, types.float32, INT, INT, INT)
def push(hits: Hits, count: int, score: Any, rowid: int, part: int, ordinal: int) -> None:
    """Put a hit behind `count` others; they are a heap once there is no more room.

    Where there is none before, it takes the place of the worst.
    """
    scores, rowids, places = hits
    size = np.int64(len(scores))
    at = np.int64(0) if count == size else np.int64(count)
    scores[at], rowids[at] = score, rowid
    places[0, at], places[1, at] = part, ordinal
    if count == size:
        _sift_hits(scores, rowids, places, 0)
    elif count == size - 1:
        for root in range(size // 2 - 1, -1, -1):
            _sift_hits(scores, rowids, places, root)
