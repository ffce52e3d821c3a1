"""Compiled fusion of two rankings by their ranks: the vectors' and the words'.

Each row gets weight / (constant + rank) from each side that has it. The vector side's rowids are
spread over a table of open places, in which those of the words are looked up.
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-call, no-any-return, no-untyped-def"
# mypy: disable-error-code="return-value, operator"

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import types

from m2mdb.compute.text_hits import INT_MATRIX
from m2mdb.compute.text_lists import FLOAT, FLOATS, INT, INTS, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

HASH = 0x9E3779B97F4A7C15 - (1 << 64)  # spreads rowids over a table
READ_LONGS = types.Array(types.int64, 1, "C", readonly=True)


@kernel(INT, FLOAT, INT, INT, INT, INT_MATRIX, FLOATS)
def _place(score: float, rowid: int, count: int, k: int, rows: Ints, scores: Floats) -> int:
    """Where a row belongs among the `count` best; k where nowhere. What is behind moves on."""
    at = count
    while at > 0 and (
        scores[at - 1] < score or (scores[at - 1] == score and rows[0, at - 1] > rowid)
    ):
        at -= 1
    for j in range(min(count, k - 1), at, -1):
        scores[j] = scores[j - 1]
        for part in range(3):
            rows[part, j] = rows[part, j - 1]
    return at


@kernel(INT, READ_LONGS, READ_LONGS, FLOATS, INTS, INT_MATRIX, FLOATS)
def fuse_ranks(
    vector: Ints, text: Ints, weights: Floats, room: Ints, rows: Ints, scores: Floats
) -> int:
    """The best rows of two rankings by reciprocal ranks; returns how many there are.

    vector, text  int64, the rowids of each side, best first, none twice
    weights       float64[3]: the constant k, and the weights of vector and text
    room          int64[3 * n], scratch; n is a power of two, at least twice as long as `vector`
    rows          int64[3, m], written: rowids, and their places in both sides, -1 where absent
    scores        float64[m], written: (score descending, rowid ascending)
    Twin          `query.fusion.fuse`, equal to the bit
    """
    k, size, count = np.int64(len(scores)), np.int64(len(room) // 3), np.int64(0)
    base = weights[0] + 1.0
    for i in range(size + len(vector)):
        room[i] = -1
    for i in range(len(vector)):
        at = (vector[i] * HASH >> 20) & (size - 1)
        while room[at] >= 0:
            at = (at + 1) & (size - 1)
        room[at] = i
    for j in range(len(text)):
        at = (text[j] * HASH >> 20) & (size - 1)
        while room[at] >= 0 and vector[room[at]] != text[j]:
            at = (at + 1) & (size - 1)
        i, score = room[at], 0.0
        if i >= 0:
            room[size + i] = j
            score = weights[1] / (base + np.float64(i))
        score += weights[2] / (base + np.float64(j))
        if count < k or not score < scores[k - 1]:
            place = _place(score, text[j], count, k, rows, scores)
            if place < k:
                scores[place] = score
                rows[0, place], rows[1, place], rows[2, place] = text[j], i, j
                count = min(count + 1, k)
    for i in range(len(vector)):
        score = weights[1] / (base + np.float64(i))
        if count == k and score < scores[k - 1]:
            break
        if room[size + i] < 0:
            place = _place(score, vector[i], count, k, rows, scores)
            if place < k:
                scores[place] = score
                rows[0, place], rows[1, place], rows[2, place] = vector[i], i, -1
                count = min(count + 1, k)
    return count
