"""Outliers: rows very far from all others, which no mean or spread of the others may depend on.

One row at a thousand times the distance of the others moves the mean of a thousand by as much as
they are apart, and their standard deviation by thirty times that. What is made of all rows alike
(where bytes are taken around, how noise spreads, supers of lists) is made of the `usual` ones; in
ordinary data these are all.

Where all usual rows lie near their middle, and far from zero, what is made of them errs by their
lengths, which is more than they are apart: lists have a middle then, which is taken off them.

Invariants
    OU1 The given share of the rows or more are usual; where none is far, all are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from m2mdb.compute.hrm2.rotation import rotate

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Tick = Callable[[], None]

CHUNK_ROWS = 256  # that are compared at a time: the allocator would keep what all of them take
ASKED = 256  # rows of which the middle is found
SOME = 1024  # rows of very many that tell how far they are
MOST_SHARE, MOST_TIMES = 0.99, 4.0  # nearly all, and how many times their distance is far
FAR_FROM_ZERO = 16.0  # squared length of a middle, to the mean square of rows around it
TOO_FAR = 1e6  # the same, where float32 has few digits left of these
HALF_SHARE, HALF_TIMES = 0.5, 8.0  # the same where many may be far


def usual(rows: Floats, share: float = MOST_SHARE, times: float = MOST_TIMES) -> NDArray[np.bool_]:
    """Which rows are no further from the middle than some times what a share of them is.

    rows   float32[n, d], finite, lengths of 1e12 at most
    """
    if not len(rows):
        return np.ones(0, np.bool_)
    squares = _squares(rows, _middle(rows))
    near: NDArray[np.bool_] = squares <= _limit(squares, share, times)
    return near


def far_rows(rows: Floats, most: int, tick: Tick) -> NDArray[np.int64]:
    """Numbers of the rows, ascending, that are not usual; the farthest where these are too many.

    rows   as in `usual`; they may be more than memory holds
    tick   is called between chunks
    """
    some = rows[:: -(-len(rows) // SOME)]
    middle = _middle(some)
    limit = _limit(_squares(some, middle), MOST_SHARE, MOST_TIMES)
    found, squares = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    for start in range(0, len(rows), SOME):
        tick()
        own = _squares(rows[start : start + SOME], middle)
        far = np.flatnonzero(own > limit)
        found.append(far + start)
        squares.append(own[far])
    order = np.argsort(-np.concatenate(squares), kind="stable")[:most]
    return np.sort(np.concatenate(found)[order])


def middle_far_from_zero(rows: Floats) -> Floats | None:
    """The mean of rows that all lie near it and far from zero, float32[d]; None: they do not.

    rows   as in `usual`
    """
    some = rows[:: -(-len(rows) // SOME)]
    some = some[usual(some)]
    middle: Floats = some.mean(axis=0, dtype=np.float64).astype(np.float32)
    square, spread = float(np.square(middle).sum()), float(_squares(some, middle).mean())
    # nearer than float32 tells apart rows are no better off around it
    return middle if spread * FAR_FROM_ZERO < square < spread * TOO_FAR else None


def without_middle(
    rows: Floats, seed: int, rotated: tuple[Floats, ...], tick: Tick
) -> Floats | None:
    """The middle of such rows, rotated, which is taken off what has their width; or None.

    rotated  float32[any, width], by the seed: what it is taken off
    tick     is called between chunks
    """
    found = middle_far_from_zero(rows)
    if found is None:
        return None
    middle: Floats = rotate(found[None], rotated[0].shape[1], seed)[0]
    for each in rotated:
        for start in range(0, len(each), SOME):
            tick()
            each[start : start + SOME] -= middle
    return middle


def _middle(rows: Floats) -> Floats:
    middle: Floats = np.median(rows[:: -(-len(rows) // ASKED)], axis=0)
    return middle


def _squares(rows: Floats, middle: Floats) -> Floats:
    """Squared distances from the middle."""
    squares = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), CHUNK_ROWS):
        gaps = rows[start : start + CHUNK_ROWS] - middle
        squares[start : start + CHUNK_ROWS] = np.einsum("ij,ij->i", gaps, gaps)
    return squares


def _limit(squares: Floats, share: float, times: float) -> np.float32:
    """The most that the squared distance of a usual row is."""
    at = int(share * (len(squares) - 1))
    edge = np.partition(squares, at)[at]
    return np.float32(times * times) * edge if edge > 0 else np.float32(np.inf)  # all are alike
