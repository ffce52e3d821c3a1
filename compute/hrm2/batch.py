"""Batches: many queries in one call, in an order in which neighbours share what they read.

    queries --rotate, table, supers--> kept --by nearest super--> probed one after another

A query's own lists are probed in its own order, as `kernels.search` probes them, so that it finds
what it finds alone. But queries near the same super-cluster follow each other: the codes, routes
and rows that one has read are in the processor's cache for the next. What it takes to know their
order, the first steps of every search, is kept instead of done twice.

Invariants
    BA1 Each query finds and counts what it does alone; the order of queries decides nothing.
    BA2 What is kept takes KEPT_BYTES at most, whatever the number of queries.
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-call, no-any-return, return-value"

from __future__ import annotations

from typing import Any

from numba import types

from m2mdb.compute.hrm2.kernels import (
    BEST,
    COUNTS,
    FOUND,
    LIMITS,
    MASK,
    NEARNESS,
    NUMBERS,
    OPEN_BLOCKS,
    OPEN_SUPERS,
    PLAIN,
    PLAN,
    READ_FLOAT_ROWS,
    SMALL,
    SUPER_COUNT,
    SUPER_KEYS,
    SUPER_ORDER,
    TABLE,
    WIDTH,
    begin,
    kernel,
    probe,
    take,
)
from m2mdb.compute.hrm2.steps import NUMBERS_SIZE, step
from m2mdb.compute.pointers import floats_at, ints_at, longs_at

FLOAT = types.float32
KEPT_BYTES = 1 << 22
LEAST = 512  # queries; among fewer neighbours are too few (measured in docs/hrm2.md)


def kept_size(width: int, supers: int) -> int:
    """Bytes that are kept of a query; see `keep`."""
    return 9 * width + 4 * NUMBERS_SIZE + 8 * supers


@step
def keep(plan: Any, at: int) -> None:
    """Have the next search write what is kept of it at an address, and read it there."""
    width = plan[WIDTH]
    plan[NUMBERS] = at
    plan[SUPER_KEYS] = at + 4 * NUMBERS_SIZE
    plan[SUPER_ORDER] = plan[SUPER_KEYS] + 4 * plan[SUPER_COUNT]
    plan[PLAIN] = plan[SUPER_ORDER] + 4 * plan[SUPER_COUNT]
    plan[TABLE] = plan[PLAIN] + 4 * width
    plan[SMALL] = plan[TABLE] + 4 * width


@step
def in_turn(plan: Any, place: int, size: int, count: int, order: Any, sizes: Any) -> None:
    """Order queries by their nearest super; those of one super as they came."""
    supers = plan[SUPER_COUNT]
    for each in range(supers + 1):
        sizes[each] = 0
    for each in range(count):
        keep(plan, place + each * size)
        sizes[ints_at(plan[SUPER_ORDER])[0] + 1] += 1
    for each in range(supers):
        sizes[each + 1] += sizes[each]
    for each in range(count):
        keep(plan, place + each * size)
        nearest = ints_at(plan[SUPER_ORDER])[0]
        order[sizes[nearest]] = each
        sizes[nearest] += 1


@kernel(
    types.void, PLAN, types.int64[::1], MASK, READ_FLOAT_ROWS, LIMITS, FLOAT, FLOAT,
    types.uint8[:, ::1], types.int32[::1], types.int32[::1], types.int32[:, ::1],
    types.float32[:, ::1], types.int64[:, ::1],
)  # fmt: skip
def search_in_turn(
    plan: Any, own: Any, mask: Any, queries: Any, limits: Any, factor: Any, epsilon: Any,
    kept: Any, order: Any, sizes: Any, positions: Any, nearness: Any, counts: Any,
) -> None:  # fmt: skip
    """Search many queries, each as `kernels.search` does.

    own       the plan again, for this call alone: it is written
    kept      uint8[n, kept_size]: so many queries are ordered at a time
    order     int32[n]; sizes int32[supers + 1]: scratch
    positions, nearness, counts  as in kernels.search_batch
    """
    size, numbers = kept.shape[1], floats_at(plan[NUMBERS])
    best, distances, done = ints_at(plan[BEST]), floats_at(plan[NEARNESS]), longs_at(plan[COUNTS])
    place = kept.ctypes.data
    for first in range(0, queries.shape[0], kept.shape[0]):
        count = min(kept.shape[0], queries.shape[0] - first)
        for each in range(count):
            keep(own, place + each * size)
            told = floats_at(own[NUMBERS])
            for i in range(NUMBERS_SIZE):
                told[i] = numbers[i]
            take(own, queries, first + each)
            begin(own)
        in_turn(own, place, size, count, order, sizes)
        for turn in range(count):
            each = first + order[turn]
            keep(own, place + order[turn] * size)
            done[OPEN_SUPERS] = done[OPEN_BLOCKS] = 0
            probe(own, mask, limits, factor, epsilon)
            for i in range(done[FOUND]):
                positions[each, i] = best[i]
                nearness[each, i] = distances[i]
            for i in range(4):
                counts[each, i] = done[i]
