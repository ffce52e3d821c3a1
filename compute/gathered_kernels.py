"""Gathered rows: 8-bit codes of the rows that pass a condition, and which of them may be the best.

    codes of the rows that pass --bounds--> those that k others do not surely beat --> numbers

The codes and their bound are those of `ranking_kernels`: similarity = value +- margin, by Cauchy
and Schwarz. With T the k-th largest lower bound so far, a row whose upper bound is below T is none
of the k best; what is left is ranked in full by who asked.

A *plan* is an int64 array of addresses and sizes:

    KIND, DIMENSION, WIDTH    as in `ranking_kernels`
    PANELS, CODED             the codes, and how many there are
    SCALES, ERRORS, LENGTHS   float64 of each code
    LIVE                      uint8 of each code, 1 = may be found; 0: all may
    ORDINALS                  int64 of each code: the row's number, which is what is returned

Invariants
    K1  As in `numba_kernels`; these kernels call those and steps of `ranking_kernels`.
    GK1 Every row that belongs to the k best by (score, rowid) is among those returned, ties and
        rounding of scores included (B3).
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-call, no-any-return, attr-defined"

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from m2mdb.compute.hrm2.steps import GROUP
from m2mdb.compute.numba_kernels import (
    COSINE,
    FLOATS,
    INT,
    INTS,
    IP,
    L2,
    READ_INTS,
    READ_VECTOR,
    kernel,
    pairwise,
    rise,
    sink,
    step,
)
from m2mdb.compute.pointers import bytes_at, doubles_at, ints_at, longs_at, small_at
from m2mdb.compute.ranking_kernels import (
    GROWTH,
    OFFSET_BYTE,
    ROUNDING,
    TINY,
    code_query,
    margin_of,
    products_in_order,
    shown_as,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vector = NDArray[np.float32]
    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

# items of a plan
KIND, DIMENSION, WIDTH, PANELS, CODED, SCALES, ERRORS, LENGTHS, LIVE, ORDINALS = range(10)
PLAN_SIZE = 10


def room_size(width: int, k: int, most: int) -> int:
    """float64 items of the scratch of `reached`: bounds, products, query, the k best, bounds."""
    return GROUP + GROUP // 2 + -(-width // 8) + k + most


@step
def add_to_heap(heap: Any, size: int, k: int, value: float) -> int:
    """Add a value to the min-heap of the k largest; returns its size."""
    if size < k:
        rise(heap, size, value)
        return size + 1
    if value > heap[0]:
        sink(heap, k, value)
    return size


@step
def least_beside(kind: int, worst: float) -> float:
    """The similarity below which no row is shown as equal to one of similarity `worst`.

    As `ranking_kernels.least` has it of scores.
    """
    if kind == L2:
        far = math.sqrt(max(0.0, -worst)) * (1.0 + ROUNDING) + TINY
        return -far * far * (1.0 + ROUNDING)
    return shown_as(worst)


@step
def prune(numbers: Any, uppers: Any, count: int, limit: float) -> int:
    """Drop rows that fell below the limit, keeping the order of the rest."""
    kept = 0
    for i in range(count):
        if uppers[i] >= limit:
            numbers[kept], uppers[kept] = numbers[i], uppers[i]
            kept += 1
    return kept


@step
def reach(plan: Any, query: Any, length: float, k: int, scratch: int, out: Any) -> int:
    """The rows that may be among the k best; how many, or -1 where there is no room for them.

    length   of the query
    scratch  address of `room_size` float64
    out      (numbers, most): where int64 are written, and how many at most; more than k + GROUP
    """
    numbers, most = out
    room = doubles_at(scratch)
    kind, width, coded = plan[KIND], plan[WIDTH], plan[CODED]
    scales, errors = doubles_at(plan[SCALES]), doubles_at(plan[ERRORS])
    lengths, live = doubles_at(plan[LENGTHS]), bytes_at(plan[LIVE])
    products, small = ints_at(scratch + 8 * GROUP), small_at(scratch + 12 * GROUP)
    behind = scratch + 12 * GROUP + (width + 7) // 8 * 8
    heap, uppers = doubles_at(behind), doubles_at(behind + 8 * k)
    own = 1.0 if kind == COSINE else length
    factor = 1.0 / length if kind == COSINE and length > 0.0 else 1.0
    scale, rest, total = code_query(query, width, factor, small)
    bias, coded_length = np.float64(OFFSET_BYTE * total), (own + rest) * GROWTH
    every = plan[LIVE] == 0
    heaped, count, limit = 0, 0, -np.inf
    for first in range(0, coded, GROUP):
        products_in_order(bytes_at(plan[PANELS] + first * width), small, width, products)
        some = min(GROUP, coded - first)
        hits = 0
        for i in range(some):
            size = lengths[first + i]
            value = scale * scales[first + i] * (np.float64(products[i]) - bias)
            error = coded_length * errors[first + i] + rest * size
            if kind == L2:
                value = 2.0 * value - own * own - size * size
            room[i] = value + margin_of(kind, own, size, error)
            hits += room[i] >= limit
        if hits == 0:
            continue
        if count + GROUP > most:
            count = prune(numbers, uppers, count, limit)
            if count + GROUP > most:
                return -1
        for i in range(some):
            if room[i] >= limit and (every or live[first + i]):
                size = lengths[first + i]
                error = coded_length * errors[first + i] + rest * size
                lower = room[i] - 2.0 * margin_of(kind, own, size, error)
                numbers[count], uppers[count] = first + i, room[i]
                count += 1
                heaped = add_to_heap(heap, heaped, k, lower)
                if heaped == k:
                    limit = least_beside(kind, heap[0])
    count = prune(numbers, uppers, count, limit)
    ordinals = longs_at(plan[ORDINALS])
    for i in range(count):
        numbers[i] = ordinals[numbers[i]]
    return count


@kernel(INT, READ_INTS, READ_VECTOR, INT, FLOATS, INTS, fastmath=False)
def reached(plan: Ints, query: Vector, k: int, room: Floats, numbers: Ints) -> int:
    """`reach` for a query on its own.

    query    float32 [DIMENSION]; not of length 0 under cosine
    room     scratch, see `room_size`
    numbers  int64 [most], written; most > k + GROUP
    """
    length = math.sqrt(pairwise(IP, query, query, 0, plan[DIMENSION]))
    out = longs_at(numbers.ctypes.data), numbers.shape[0]
    return reach(plan, query, length, k, room.ctypes.data, out)


__all__ = ["PLAN_SIZE", "reach", "reached", "room_size"]
