"""The smallest of very many numbers, compiled: what `truth` keeps of products.

Invariants
    BK1 Which numbers are kept depends on the numbers alone; `truth` keeps the same in NumPy.
    BK2 Places behind `counts` are infinite.
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-call, no-any-return, return-value"

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from m2mdb.compute.hrm2.choosing import READ_FLOATS, kernel, step

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
