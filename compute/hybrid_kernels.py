"""A whole hybrid search in one compiled call: from a query and words to ids and scores.

    slots of words --text_kernels.best-------> rowids --+
    query ----------search_kernels.search_whole--> ids -+--text_kernels.fuse_ranks--> ids, scores

The words come first: what they read is true if the vector side, which looks at the end of the log
before and behind its own search, finds no commit (SK1).

A *call* is an int64 array of addresses and sizes; who makes one (`index.compiled_hybrid`) keeps
alive what it points to:

    DEPTH        rows of each side that take part
    NEAR_IDS     int64 [DEPTH], scratch, and NEAR_SCORES float64 [DEPTH]
    WORD_IDS     int64 [DEPTH], scratch, WORD_SCORES float32 [DEPTH], PLACES int64 [2, DEPTH]
    WEIGHTS      float64 [3], as `fuse_ranks` takes them
    ROOM         int64 [ROOM_SIZE], scratch, as `fuse_ranks` takes it
    ROWS         int64 [3, MOST], scratch; MOST is the length of the longest answer

Invariants
    K1  As in `numba_kernels`; this kernel calls those of `text_kernels` and `search_kernels`.
    HK1 No list of words lies in a mapped extent: what a commit may overwrite under this search
        gives no address (K7).
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-call, no-any-return, attr-defined"

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import carray, types

from m2mdb.compute.numba_kernels import (
    FLOATS,
    INT,
    INT_MATRIX,
    INTS,
    READ_INTS,
    READ_VECTOR,
    kernel,
)
from m2mdb.compute.pointers import doubles_at, floats_at, longs_at
from m2mdb.compute.search_kernels import search_whole
from m2mdb.compute.text_kernels import QUERY, best, fuse_ranks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vector = NDArray[np.float32]
    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

WORK = types.Tuple((INTS, INT_MATRIX))
ANSWER = types.Tuple((INTS, FLOATS))
DEPTH, NEAR_IDS, NEAR_SCORES, WORD_IDS, WORD_SCORES, PLACES = 0, 1, 2, 3, 4, 5
WEIGHTS, ROOM, ROOM_SIZE, ROWS, CALL_SIZE = 6, 7, 8, 9, 10


@kernel(INT, READ_INTS, READ_INTS, READ_VECTOR, QUERY, WORK, ANSWER, fastmath=False)
def search_both(
    call: Ints, near: Ints, query: Vector, words: Any, work: Any, answer: tuple[Ints, Floats]
) -> int:
    """The best rows of both rankings fused by their ranks; how many there are.

    near     a call of `search_whole`, whose K is DEPTH
    query    float32 [dimension]
    words    a query of `text_kernels.best`
    work     scratch and parts as that takes them
    answer   written: ids int64 [MOST], scores float64 [MOST]

    Below 0: as `search_whole`, why the search is to be made by steps.
    """
    depth = call[DEPTH]
    ids, scores = answer
    found_scores = carray(floats_at(call[WORD_SCORES]), (depth,))
    with_words = carray(longs_at(call[WORD_IDS]), (depth,))
    places = carray(longs_at(call[PLACES]), (2, depth))
    found = best(words, work[0], work[1], 0.0, (found_scores, with_words, places))
    nearest = carray(longs_at(call[NEAR_IDS]), (depth,))
    count = search_whole(near, query, nearest, carray(doubles_at(call[NEAR_SCORES]), (depth,)))
    if count < 0:
        return count
    weights = carray(doubles_at(call[WEIGHTS]), (3,))
    room = carray(longs_at(call[ROOM]), (call[ROOM_SIZE],))
    rows = carray(longs_at(call[ROWS]), (3, ids.shape[0]))
    total = fuse_ranks(nearest[:count], with_words[:found], weights, room, rows, scores)
    for i in range(total):
        ids[i] = rows[0, i]
    return total
