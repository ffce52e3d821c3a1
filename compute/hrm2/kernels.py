"""Compiled search of lists: one call from queries to their best rows, without the GIL.

    query --rotate--> table of the fast scan, bytes
          --route---> lists by distance
          --probe---> list after list: 1-bit codes, bounds; then, nearest bound first, 8-bit codes
                      of the rows that may enter

A kernel takes a *plan*: an int64 array of addresses and sizes, as unboxing 24 arrays would take
longer than routing. Who makes one (Searcher) keeps the arrays alive. It holds the arrays of
lists.Lists, but centroids by panels (`panels_of`), and scratch of one thread:

    ROTATED    float32[width]      the query, padded; rotated by the search
    SMALL      int8[width]         the same as bytes: value ~ byte * numbers[QUERY_SCALE]
    TABLE      uint8[4 * width]    sums of four signed coordinates, of 16 sign patterns a group
    TURNED     float32[width]      for the rotation
    PRODUCTS   int32[lists, to the next GROUP]
    DISTANCES  float32[lists]      D of lists.py
    BUCKET     int32[BUCKETS + 1]  for the order of lists
    ORDER      int32[lists]        lists, nearest first
    BOUNDS     float32[32]         of a block
    PENDING    int32[longest list] positions of rows whose bound lets them in ...
    PENDING_BOUNDS  float32        ... and the bounds
    BEST       int32[WANTED]       positions, nearest first
    NEARNESS   float32[WANTED]     their distances by 8-bit codes
    NUMBERS    float32[16]         see steps.py; from HARDNESS on it is the caller's
    COUNTS     int64[8]            see below
    LOG        int32[LOG_SIZE, 3]  of each row that came among the best: its position, the place of
                                   the list in the order, and its own place

Invariants
    K3  Each kernel has one explicit signature.
    K4  Equal distances keep the order of probing, which depends on file and query alone.
    K5  A search is a prefix of every longer one: what it did in its first lists does not depend on
        when it stops. (Calibration rests on this.)
    K6  A search that ends before `most` lists has found k rows at least.
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-call, no-any-return, return-value"

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit, types

from m2mdb.compute.hrm2 import simd as simd_module
from m2mdb.compute.hrm2.steps import (
    BIAS,
    FAST,
    NEAR,
    QUERY_SCALE,
    QUERY_SQUARE,
    TABLE_LOW,
    TABLE_SCALE,
    bucket_order,
    dot8,
    insert,
    patience_for,
    prepare,
    rotate,
    route,
    scan_block,
    smallest,
    step,
)
from m2mdb.compute.loader import kernel_cache

if TYPE_CHECKING:
    from collections.abc import Callable

simd: Any = simd_module
bytes_at, small_at, ints_at = simd.bytes_at, simd.small_at, simd.ints_at
longs_at, floats_at, prefetch = simd.longs_at, simd.floats_at, simd.prefetch

# items of a plan: addresses of what is searched ...
CENTERS, CENTER_SCALES, CENTER_SQUARES, STARTS, CODES, FACTORS = 0, 1, 2, 3, 4, 5
POSITIONS, BYTES8, SCALES, SQUARES, ORDINALS, FLIPS = 6, 7, 8, 9, 10, 11
# ... and of scratch
ROTATED, SMALL, TABLE, TURNED, PRODUCTS, DISTANCES, BUCKET, ORDER = 12, 13, 14, 15, 16, 17, 18, 19
BOUNDS, PENDING, PENDING_BOUNDS, BEST, NEARNESS, NUMBERS, COUNTS, LOG = (
    20, 21, 22, 23, 24, 25, 26, 27,
)  # fmt: skip
# sizes
LISTS, WIDTH, TURNS, KIND, WANTED, LOG_SIZE, PLAN_SIZE = 28, 29, 30, 31, 32, 33, 34
# counts: what the search did
FOUND, PROBED, SCANNED, RERANKED, LOGGED = 0, 1, 2, 3, 4

AHEAD = 4  # pending rows that are asked for before they are compared

INT, FLOAT = types.int64, types.float32
PLAN = types.Array(types.int64, 1, "C", readonly=True)
MASK = types.Array(types.uint8, 1, "C", readonly=True)
READ_FLOAT_ROWS = types.Array(types.float32, 2, "C", readonly=True)
LIMITS = types.UniTuple(INT, 4)


def kernel(*signature: Any) -> Callable[[Any], Any]:
    """Compile a function for one signature: (result, argument, ...); cached in our own folder."""

    def compiled(function: Any) -> Any:
        with kernel_cache():
            return njit(
                signature[0](*signature[1:]),
                nogil=True,
                fastmath=FAST,
                error_model="numpy",
                boundscheck=False,
                cache=True,
            )(function)

    return compiled


@step
def begin(plan: Any) -> None:
    """Rotate and prepare the query, and bring the lists in order."""
    width, lists = plan[WIDTH], plan[LISTS]
    rotated, small = floats_at(plan[ROTATED]), small_at(plan[SMALL])
    numbers, distances = floats_at(plan[NUMBERS]), floats_at(plan[DISTANCES])
    rotate(rotated, floats_at(plan[FLIPS]), plan[TURNS], width, floats_at(plan[TURNED]))
    prepare(rotated, width, small, bytes_at(plan[TABLE]), numbers)
    route(
        bytes_at(plan[CENTERS]),
        floats_at(plan[CENTER_SCALES]),
        floats_at(plan[CENTER_SQUARES]),
        lists,
        small,
        width,
        numbers,
        plan[KIND],
        ints_at(plan[PRODUCTS]),
        distances,
    )
    bucket_order(distances, lists, ints_at(plan[ORDER]), ints_at(plan[BUCKET]))


@step
def scan_list(plan: Any, mask: Any, each: int, later: int, epsilon: Any, worst: Any) -> int:
    """Fill `pending` with the rows of a list whose bound is below `worst`; their number.

    The list `later` is asked for meanwhile: it is the next one.
    """
    width = plan[WIDTH]
    numbers, bounds = floats_at(plan[NUMBERS]), floats_at(plan[BOUNDS])
    codes, table, factors = bytes_at(plan[CODES]), bytes_at(plan[TABLE]), floats_at(plan[FACTORS])
    positions, ordinals = ints_at(plan[POSITIONS]), ints_at(plan[ORDINALS])
    pending, pending_bounds = ints_at(plan[PENDING]), floats_at(plan[PENDING_BOUNDS])
    starts = longs_at(plan[STARTS])
    base = floats_at(plan[DISTANCES])[each]
    reach = base if plan[KIND] == NEAR else numbers[QUERY_SQUARE]
    spread = epsilon * np.float32(np.sqrt(max(reach, np.float32(0.0))))
    root = np.float32(1.0) / np.float32(np.sqrt(np.float64(width)))
    terms = (base, numbers[TABLE_SCALE] * root, numbers[TABLE_LOW] * root, spread)
    every = mask.shape[0] == 0
    few = worst < np.float32(np.inf)
    count = 0
    skip = starts[later] - starts[each]
    for block in range(starts[each], starts[each + 1]):
        if not scan_block(codes, block, block + skip, table, width, factors, terms, worst, bounds):
            continue
        for s in range(32):
            if not bounds[s] < worst:
                continue
            position = positions[32 * block + s]
            if position < 0 or not (every or mask[ordinals[position]]):
                continue
            pending[count] = position
            pending_bounds[count] = bounds[s]
            count += 1
            if few:
                ask_for(plan, position)
    return count


@step
def ask_for(plan: Any, position: int) -> None:
    """Have what `distance_of` reads on its way to the cache."""
    width, bytes8 = plan[WIDTH], bytes_at(plan[BYTES8])
    for at in range(0, width, 64):
        prefetch(bytes8, position * width + at)
    prefetch(bytes_at(plan[SCALES]), 4 * position)
    prefetch(bytes_at(plan[SQUARES]), 4 * position)


@step
def distance_of(plan: Any, position: int) -> Any:
    """A row's distance by its 8-bit code."""
    width = plan[WIDTH]
    numbers = floats_at(plan[NUMBERS])
    product = dot8(bytes_at(plan[BYTES8]), position * width, small_at(plan[SMALL]), width)
    scale = np.float32(-2.0) * numbers[QUERY_SCALE]
    distance = (np.float32(product) - numbers[BIAS]) * scale * floats_at(plan[SCALES])[position]
    if plan[KIND] == NEAR:
        distance += numbers[QUERY_SQUARE] + floats_at(plan[SQUARES])[position]
    return np.float32(distance)


@step
def next_nearest(plan: Any, first: int, count: int) -> None:
    """Bring the pending row with the smallest bound to place `first`, and ask for it."""
    pending, bounds = ints_at(plan[PENDING]), floats_at(plan[PENDING_BOUNDS])
    at = smallest(bounds, first, count)
    position, bound = pending[at], bounds[at]
    pending[at], bounds[at] = pending[first], bounds[first]
    pending[first], bounds[first] = position, bound
    ask_for(plan, position)


@step
def probe(plan: Any, mask: Any, limits: Any, factor: Any, epsilon: Any) -> None:
    """Scan lists in their order until the stop rule says that the best rows are known."""
    k, least, constant, most = limits
    patience = np.float32(constant)
    order, counts, starts = ints_at(plan[ORDER]), longs_at(plan[COUNTS]), longs_at(plan[STARTS])
    pending, pending_bounds = ints_at(plan[PENDING]), floats_at(plan[PENDING_BOUNDS])
    best, nearness, log = ints_at(plan[BEST]), floats_at(plan[NEARNESS]), ints_at(plan[LOG])
    wanted, log_size = plan[WANTED], plan[LOG_SIZE]
    most = min(most, plan[LISTS])
    worst = np.float32(np.inf)
    size, scanned, reranked, logged, last, done = 0, 0, 0, 0, 0, 0
    while done < most:
        if done == least:
            patience = patience_for(floats_at(plan[NUMBERS]), worst)
        limit = factor * np.float32(last) + patience
        if done >= least and size >= k and np.float32(done) >= limit:
            break
        each = order[done]
        later = order[min(done + 1, most - 1)]
        count = scan_list(plan, mask, each, later, epsilon, worst)
        ready = 0
        for turn in range(count):
            while ready < min(turn + AHEAD, count):
                next_nearest(plan, ready, count)
                ready += 1
            if not pending_bounds[turn] < worst:
                break
            position = pending[turn]
            distance = distance_of(plan, position)
            reranked += 1
            if size == wanted and not distance < nearness[wanted - 1]:
                continue
            place = insert(position, distance, size, wanted, best, nearness)
            if place < 0:
                continue
            size = min(size + 1, wanted)
            if place < k:
                last = done
            if logged < log_size:
                log[3 * logged] = position
                log[3 * logged + 1] = done
                log[3 * logged + 2] = place
                logged += 1
            if size >= k:
                worst = nearness[k - 1]
        scanned += starts[each + 1] - starts[each]
        done += 1
    counts[FOUND] = size
    counts[PROBED] = done
    counts[SCANNED] = 32 * scanned
    counts[RERANKED] = reranked
    counts[LOGGED] = logged


@kernel(types.void, PLAN, MASK, LIMITS, FLOAT, FLOAT)
def search(plan: Any, mask: Any, limits: Any, factor: Any, epsilon: Any) -> None:
    """Find the best rows of the query in ROTATED: BEST, NEARNESS and COUNTS.

    mask     uint8 by ordinal, 1 = may be found; an empty one lets every row be found
    limits   (k, least, patience, most): lists are probed while fewer than `least` were, or fewer
             than k rows were found, or while fewer than factor * (the last that changed the k best)
             + patience were, at most `most`. What patience is once `least` were, NUMBERS says:
             it depends on how near the k-th best row is by then
    epsilon  how many standard errors of a 1-bit estimate its bound takes off
    """
    begin(plan)
    probe(plan, mask, limits, factor, epsilon)


@step
def take(plan: Any, queries: Any, each: int) -> None:
    """Make a query the one that is searched."""
    rotated, dimensions = floats_at(plan[ROTATED]), queries.shape[1]
    for i in range(dimensions):
        rotated[i] = queries[each, i]
    for i in range(dimensions, plan[WIDTH]):
        rotated[i] = np.float32(0.0)


@kernel(
    types.void,
    PLAN,
    MASK,
    READ_FLOAT_ROWS,
    LIMITS,
    FLOAT,
    FLOAT,
    types.int32[:, ::1],
    types.float32[:, ::1],
    types.int64[:, ::1],
)
def search_batch(
    plan: Any,
    mask: Any,
    queries: Any,
    limits: Any,
    factor: Any,
    epsilon: Any,
    positions: Any,
    nearness: Any,
    counts: Any,
) -> None:
    """Search many queries, each as `search` does.

    positions, nearness   BEST and NEARNESS of each query
    counts                its first four COUNTS
    """
    best, distances, done = ints_at(plan[BEST]), floats_at(plan[NEARNESS]), longs_at(plan[COUNTS])
    for each in range(queries.shape[0]):
        take(plan, queries, each)
        begin(plan)
        probe(plan, mask, limits, factor, epsilon)
        for i in range(done[FOUND]):
            positions[each, i] = best[i]
            nearness[each, i] = distances[i]
        for i in range(4):
            counts[each, i] = done[i]
