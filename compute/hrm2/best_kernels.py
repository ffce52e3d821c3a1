"""The smallest of very many numbers, compiled: what `truth` keeps of products.

    keep_best  of products in float32
    reach      of products of bytes: rows that may be among the k best, by bounds
    in_full    the k best of these, compared in float32

Invariants
    BK1 Which numbers are kept depends on the numbers alone; `truth` keeps the same in NumPy.
    BK2 Places behind `counts` are infinite.
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-call, no-any-return, return-value"

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from m2mdb.compute.hrm2 import kernels
from m2mdb.compute.hrm2 import simd as simd_module
from m2mdb.compute.hrm2.choosing import READ_FLOATS, kernel, step
from m2mdb.compute.hrm2.tracing import key_of
from m2mdb.compute.pointers import floats_at

READ_INTS = types.Array(types.int32, 1, "C", readonly=True)
FLOAT_ROWS, INT_ROWS = types.float32[:, ::1], types.int32[:, ::1]
ROW_NUMBERS = types.Tuple((READ_INTS, READ_FLOATS, READ_FLOATS, READ_FLOATS))
QUERY_NUMBERS = types.Tuple((READ_FLOATS, READ_FLOATS))
FOUND = types.Tuple(
    (types.float32[::1], FLOAT_ROWS, types.int64[::1], INT_ROWS, FLOAT_ROWS, types.int64[::1])
)
simd: Any = simd_module
bits_reaching, lowest_bit = simd.bits_reaching, simd.lowest_bit
BITS = 32  # that `bits_reaching` gives
PART = 64  # numbers that are looked at together: nearly always none is small enough


@step
def part(values: Any, count: int, k: int) -> Any:
    """Bring the k smallest of some numbers to the front; the largest of these. 1 <= k <= count."""
    low, high = 0, count - 1
    while low < high:
        middle = values[(low + high) >> 1]
        i, j = low, high
        while i <= j:
            while values[i] < middle:
                i += 1
            while values[j] > middle:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if k - 1 <= j:
            high = j
        elif k - 1 >= i:
            low = i
        else:
            break
    return values[k - 1]


@step
def take(costs: Any, first: int, last: int, kept: Any, count: int, limit: Any, k: int) -> Any:
    """Keep the costs below a limit; how many are kept then, and the limit."""
    for i in range(first, last):
        if costs[i] < limit:
            kept[count] = costs[i]
            count += 1
            if count == kept.shape[0]:
                limit = part(kept, count, k)
                for place in range(k, count):
                    kept[place] = np.inf
                count = k
    return count, limit


@kernel(
    types.float32[:, ::1], READ_FLOATS, types.boolean, types.int64, types.float32[:, ::1],
    types.int64[::1], types.float32[::1],
)  # fmt: skip
def keep_best(
    products: Any, squares: Any, is_near: bool, k: int, kept: Any, counts: Any, limits: Any
) -> None:
    """Take rows among the best of each query.

    products  float32[queries, rows]; becomes costs, see `truth`
    squares   float32[rows]
    kept      float32[queries, more than k]; counts int64[queries]: of them
    limits    float32[queries]: the k-th smallest when there were k the last time; infinite before
    """
    rows = products.shape[1]
    for query in range(products.shape[0]):
        costs, limit, count = products[query], limits[query], counts[query]
        if is_near:
            for i in range(rows):
                costs[i] = squares[i] - np.float32(2.0) * costs[i]
        else:
            for i in range(rows):
                costs[i] = -costs[i]
        for first in range(0, rows, PART):
            last = min(rows, first + PART)
            found = np.int32(0)
            for i in range(first, last):
                found += np.int32(costs[i] < limit)
            if found:
                count, limit = take(costs, first, last, kept[query], count, limit, k)
        counts[query], limits[query] = count, limit


@step
def settle(query: int, k: int, found: Any) -> None:
    """Make the limit of a query as small as it can be, and drop what lies beyond it.

    A query that is left with nearly all it had is given up: its count becomes -1.
    """
    limits, highs, high_counts, rows, lows, counts = found
    if high_counts[query] > k:
        limits[query] = part(highs[query], high_counts[query], k)
        high_counts[query] = k
    elif high_counts[query] == k:
        limits[query] = highs[query].max()
    left = 0
    for i in range(counts[query]):
        if lows[query, i] <= limits[query]:
            lows[query, left], rows[query, left] = lows[query, i], rows[query, i]
            left += 1
    counts[query] = left
    if 4 * left > 3 * rows.shape[1]:
        limits[query] = np.float32(-np.inf)
        counts[query] = -1


@step
def note(query: int, k: int, low: Any, high: Any, row: int, found: Any) -> None:
    """A row that may be among the k best of a query, by the bounds of its cost."""
    limits, highs, high_counts, rows, lows, counts = found
    if high < limits[query]:
        highs[query, high_counts[query]] = high
        high_counts[query] += 1
    rows[query, counts[query]], lows[query, counts[query]] = row, low
    counts[query] += 1
    if high_counts[query] == highs.shape[1] or counts[query] == rows.shape[1]:
        settle(query, k, found)


@kernel(FLOAT_ROWS, types.boolean, types.int64, ROW_NUMBERS, QUERY_NUMBERS, FOUND)
def reach(products: Any, is_near: bool, k: int, rows: Any, queries: Any, found: Any) -> None:
    """Find rows that may be among the k best of queries, by products of bytes.

    products  float32[rows, queries or more], <x', q'>
    rows      ordinals; |x|^2; the most that |x - x'| can be; |x|
    queries   |q'| and |q - q'|; 0 beyond the queries
    found     limits float32[queries], as many as products has columns: the k-th smallest upper
              bound; -inf beyond the queries. Upper bounds float32[queries, more than k], and how
              many; ordinals int32[queries, room], lower bounds float32 of these, and how many
    """
    ordinals, squares, errors, lengths = rows
    sizes, gaps = queries
    slope = np.float32(2.0) if is_near else np.float32(1.0)
    described = (
        floats_at(sizes.ctypes.data), floats_at(gaps.ctypes.data), floats_at(found[0].ctypes.data)
    )  # fmt: skip
    columns = products.shape[1]
    for row in range(products.shape[0]):
        line = floats_at(products.ctypes.data + 4 * columns * row)
        base = squares[row] if is_near else np.float32(0.0)
        error, length = errors[row], lengths[row]
        terms = (base, slope, error, length)
        for first in range(0, columns, BITS):
            bits = bits_reaching(line, described, first, terms)
            while bits:
                at = first + lowest_bit(bits)
                bits &= bits - 1
                margin = error * sizes[at] + length * gaps[at]
                low, high = base - slope * (line[at] + margin), base - slope * (line[at] - margin)
                note(at, k, low, high, ordinals[row], found)


@step
def length_of(rows: Any, ordinal: int) -> Any:
    """Of a row."""
    total = np.float32(0.0)
    for i in range(rows.shape[1]):
        total += rows[ordinal, i] * rows[ordinal, i]
    return np.float32(np.sqrt(total))


@kernels.kernel(
    types.void, kernels.READ_FLOAT_ROWS, kernels.READ_FLOAT_ROWS, types.boolean, types.float32,
    FOUND, FLOAT_ROWS,
)  # fmt: skip
def in_full(rows: Any, queries: Any, is_near: bool, rounding: Any, found: Any, best: Any) -> None:
    """The k best keys of each query that was not given up, in no order.

    rows      float32[n, d], by ordinal
    rounding  that is taken off a key, to the lengths of what is multiplied
    found     see `reach`; lower bounds are written over
    best      float32[queries, k]
    """
    chosen, costs, counts = found[3], found[4], found[5]
    for query in range(queries.shape[0]):
        if counts[query] >= 0:
            settle(query, best.shape[1], found)
        if counts[query] < best.shape[1]:
            continue
        slack = rounding * length_of(queries, query)
        for i in range(counts[query]):
            row = chosen[query, i]
            costs[query, i] = -key_of(rows, row, queries, query, is_near)
            if slack > np.float32(0.0):
                costs[query, i] += slack * length_of(rows, row)
        part(costs[query], counts[query], best.shape[1])
        for i in range(best.shape[1]):
            best[query, i] = -costs[query, i]
