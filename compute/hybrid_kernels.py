"""A whole hybrid search in one compiled call: from a query and words to ids and scores.

    slots of words --text_kernels.best-------> rowids --+
    query ----------search_kernels.search_whole--> ids -+--rank_fusion.fuse_ranks--> ids, scores

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
    PARTS        int64 [PART_COUNT, PART_WIDTH], as `text_kernels.best` takes them

The *words* of a query are an int64 array as well, as a tuple of arrays takes three times as long to
hand over:

    PLAN                   of `text_lists`
    COUNT, SLOTS, BOOSTS   int64 and float64 [COUNT]
    SCRATCH, SCRATCH_SIZE  int64 [SCRATCH_SIZE], as `text_kernels.best` takes it

Invariants
    K1  As in `numba_kernels`; this kernel calls those of `text_kernels` and `search_kernels`.
    HK1 No list of words lies in a mapped extent: what a commit may overwrite under this search
        gives no address (K7).
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-call, no-any-return, attr-defined"

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import carray

from m2mdb.compute.numba_kernels import (
    FLOATS,
    INT,
    INTS,
    READ_INTS,
    READ_VECTOR,
    kernel,
)
from m2mdb.compute.pointers import doubles_at, floats_at, longs_at
from m2mdb.compute.rank_fusion import fuse_ranks
from m2mdb.compute.search_kernels import search_whole
from m2mdb.compute.text_kernels import best
from m2mdb.compute.text_lists import PLAN as PLAN_SIZE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vector = NDArray[np.float32]
    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

DEPTH, NEAR_IDS, NEAR_SCORES, WORD_IDS, WORD_SCORES, PLACES = 0, 1, 2, 3, 4, 5
WEIGHTS, ROOM, ROOM_SIZE, ROWS, PARTS, PART_COUNT, PART_WIDTH, CALL_SIZE = range(6, 14)
PLAN, COUNT, SLOTS, BOOSTS, SCRATCH, SCRATCH_SIZE = 0, 1, 2, 3, 4, 5


@kernel(INT, READ_INTS, READ_INTS, READ_VECTOR, INTS, INTS, FLOATS, fastmath=False)
def search_both(
    call: Ints, near: Ints, query: Vector, words: Ints, ids: Ints, scores: Floats
) -> int:
    """The best rows of both rankings fused by their ranks; how many there are.

    near     a call of `search_whole`, whose K is DEPTH
    query    float32 [dimension]
    words    of the query
    ids      int64 [MOST], written; scores float64 [MOST], written

    Below 0: as `search_whole`, why the search is to be made by steps.
    """
    depth = call[DEPTH]
    found_scores = carray(floats_at(call[WORD_SCORES]), (depth,))
    with_words = carray(longs_at(call[WORD_IDS]), (depth,))
    places = carray(longs_at(call[PLACES]), (2, depth))
    asked = (
        carray(longs_at(words[PLAN]), (PLAN_SIZE,)),
        carray(longs_at(words[SLOTS]), (words[COUNT],)),
        carray(doubles_at(words[BOOSTS]), (words[COUNT],)),
    )
    scratch = carray(longs_at(words[SCRATCH]), (words[SCRATCH_SIZE],))
    parts = carray(longs_at(call[PARTS]), (call[PART_COUNT], call[PART_WIDTH]))
    found = np.int64(-1)
    while found < 0:
        found = best(asked, scratch, parts, 0.0, (found_scores, with_words, places))
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
