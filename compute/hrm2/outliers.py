"""Outliers: rows very far from all others, which no mean or spread of the others may depend on.

One row at a thousand times the distance of the others moves the mean of a thousand by as much as
they are apart, and their standard deviation by thirty times that. What is made of all rows alike
(where bytes are taken around, how noise spreads, supers of lists) is made of the `usual` ones; in
ordinary data these are all.

Invariants
    OU1 The given share of the rows or more are usual; where none is far, all are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

CHUNK_ROWS = 256  # that are compared at a time: the allocator would keep what all of them take
ASKED = 256  # rows of which the middle is found
MOST_SHARE, MOST_TIMES = 0.99, 4.0  # nearly all, and how many times their distance is far
HALF_SHARE, HALF_TIMES = 0.5, 8.0  # the same where many may be far


def usual(rows: Floats, share: float = MOST_SHARE, times: float = MOST_TIMES) -> NDArray[np.bool_]:
    """Which rows are no further from the middle than some times what a share of them is.

    rows   float32[n, d], finite, lengths of 1e12 at most
    """
    if not len(rows):
        return np.ones(0, np.bool_)
    middle = np.median(rows[:: -(-len(rows) // ASKED)], axis=0)
    squares = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), CHUNK_ROWS):
        gaps = rows[start : start + CHUNK_ROWS] - middle
        squares[start : start + CHUNK_ROWS] = np.einsum("ij,ij->i", gaps, gaps)
    edge = np.partition(squares, int(share * (len(rows) - 1)))[int(share * (len(rows) - 1))]
    if not edge > 0:  # as good as all are alike
        return np.ones(len(rows), np.bool_)
    near: NDArray[np.bool_] = squares <= np.float32(times * times) * edge
    return near
