"""The hits of a compiled text search: gathered, the best of them kept, and brought in order.

    hits    scores float32[k], rowids int64[k], places int64[2, k]: parts and ordinals

They stand as they come until there are k of them, then as a heap with the worst in front. Which of
two is better their scores say, and where these are equal their rowids: no two hits are equal, so
the order does not depend on the one in which they came.

A million hits take a tenth of a second to order: it is done in calls of so many moves each, what
the next one goes on from being kept in `text_scratch`'s progress.
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-call, no-any-return, no-untyped-def"
# mypy: disable-error-code="return-value, operator"

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import types

from m2mdb.compute.pointers import longs_at
from m2mdb.compute.text_lists import INT, INTS, kernel
from m2mdb.compute.text_scratch import (
    HEAP_ROOT,
    IS_TURNED,
    LEFT,
    MERGED_RUN,
    MERGED_TO,
    PROGRESS,
    RIGHT,
    RING,
    RING_AT,
)

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


@kernel(INT, HITS, INT, INT, INT, INT, INT)
def _merge_hits(hits: Hits, found: int, source: int, goal: int, state: int, most: int) -> int:
    """Merge numbers of hits from MERGED_TO on, run by run; returns how far it came.

    source, goal  addresses of int64[found]
    most          how many are merged at most
    """
    scores, rowids, _ = hits
    order, other = longs_at(source), longs_at(goal)
    progress = longs_at(state)
    run, at = progress[MERGED_RUN], progress[MERGED_TO]
    left, right = progress[LEFT], progress[RIGHT]
    stop = min(np.int64(found), at + most)
    while at < stop:
        first = at & -(2 * run)
        middle, end = min(first + run, found), min(first + 2 * run, found)
        if at == first:
            left, right = first, middle
        upto = min(end, stop)
        while at < upto:
            if right == end or (
                left < middle and not _is_worse(scores, rowids, order[left], order[right])
            ):
                other[at] = order[left]
                left += 1
            else:
                other[at] = order[right]
                right += 1
            at += 1
    progress[MERGED_TO], progress[LEFT], progress[RIGHT] = at, left, right
    return at


@kernel(types.boolean, HITS, INT, INT, INT, INT)
def order_hits(hits: Hits, found: int, keys: int, state: int, most: int) -> bool:
    """Bring the first hits in order: by merging numbers of them, each hit is then moved once.

    keys   address of int64[2 * found], scratch
    state  address of the progress, its part of ordering all 0 at the first call, and behind the
           last
    most   moves of this call; False: there is more to do
    """
    scores, rowids, places = hits
    progress = longs_at(state)
    start, goal = keys, keys + 8 * found
    if progress[MERGED_RUN] == 0:
        order = longs_at(start)
        for i in range(found):
            order[i] = i
        progress[MERGED_RUN], progress[IS_TURNED] = 1, 0
    if progress[IS_TURNED]:
        start, goal = goal, start
    while progress[MERGED_RUN] < found:
        before = progress[MERGED_TO]
        at = _merge_hits(hits, found, start, goal, state, most)
        most -= at - before
        if at < found:
            return False
        start, goal = goal, start
        progress[IS_TURNED] = 1 - progress[IS_TURNED]
        progress[MERGED_RUN] *= 2
        progress[MERGED_TO] = 0
    order = longs_at(start)
    first, at = progress[RING], progress[RING_AT]
    while first < found:
        if most <= 0:
            progress[RING], progress[RING_AT] = first, at
            return False
        most -= 1
        source = order[at]
        order[at] = at
        if source == first:  # the end of a ring: all its hits have come to their places by swaps
            first += 1
            at = first
        else:
            _swap(scores, rowids, places, at, source)
            at = source
    for i in range(MERGED_RUN, PROGRESS):
        progress[i] = 0
    return True


@kernel(INT, HITS, INT, INT)
def heap_hits(hits: Hits, state: int, most: int) -> int:
    """Go on making a heap of k hits, by `most` of them; how many of `most` are left.

    HEAP_ROOT comes from k // 2, behind which hits have none below them, down to 0.
    """
    scores, rowids, places = hits
    progress = longs_at(state)
    root = progress[HEAP_ROOT]
    while root > 0 and most > 0:
        root -= 1
        most -= 1
        _sift_hits(scores, rowids, places, root)
    progress[HEAP_ROOT] = root
    return most


@kernel(types.void, HITS, INT, types.float32, INT, INT, INT)
def push(hits: Hits, count: int, score: Any, rowid: int, part: int, ordinal: int) -> None:
    """Put a hit behind `count` others; where there is no room, in the place of the worst.

    There they are a heap (`heap_hits`), and stay one.
    """
    scores, rowids, places = hits
    size = np.int64(len(scores))
    at = np.int64(0) if count == size else np.int64(count)
    scores[at], rowids[at] = score, rowid
    places[0, at], places[1, at] = part, ordinal
    if count == size:
        _sift_hits(scores, rowids, places, 0)
