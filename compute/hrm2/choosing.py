"""Choosing: the lists of rows from products of rows and centroids, compiled.

A build spends nearly half of an assignment in passes over these products in NumPy. Here a row's
products are read while they are in the first cache. Numbers are added and rounded one by one as
NumPy does it, so that what is chosen is the same, whether the kernels were loaded or not.

Invariants
    CH1 The same lists as `training` chooses in NumPy, bit for bit: no term is fused or reordered.
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-call, no-any-return, return-value"

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types

from m2mdb.compute.loader import kernel_cache

EXACT = {"nnan", "nsz"}  # lets a minimum be found in registers; rounds nothing otherwise (CH1)
READ_FLOATS = types.Array(types.float32, 1, "C", readonly=True)
READ_ROWS = types.Array(types.float32, 2, "C", readonly=True)
READ_CODES = types.Array(types.uint8, 2, "C", readonly=True)
READ_LONGS = types.Array(types.int64, 1, "C", readonly=True)
LEAST_LENGTH = np.float32(1e-20)


def step(function: Any) -> Any:
    """A helper that becomes part of the kernels (CH1)."""
    return njit(function, nogil=True, fastmath=EXACT, error_model="numpy", boundscheck=False)


def kernel(*signature: Any) -> Any:
    """Compile a function for one signature, cached in our own folder (CH1)."""

    def compiled(function: Any) -> Any:
        with kernel_cache():
            return njit(
                types.void(*signature), nogil=True, fastmath=EXACT, error_model="numpy",
                boundscheck=False, cache=True,
            )(function)  # fmt: skip

    return compiled


@step
def first_least(costs: Any, count: int) -> int:
    """The place of the smallest of some numbers, the first of equal ones."""
    least = costs[0]
    for j in range(count):
        least = min(least, costs[j])
    for j in range(count):
        if costs[j] == least:
            return j
    return 0


@kernel(types.float32[:, ::1], READ_FLOATS, types.int32[::1])
def firsts(products: Any, squares: Any, best: Any) -> None:
    """best[i] = the center nearest to row i.

    products  float32[rows, centers or more], <x, c>; becomes |x - c|^2 but for |x|^2
    squares   float32[centers], |c|^2
    Twin      training._firsts
    """
    for i in range(products.shape[0]):
        costs = products[i]
        for j in range(squares.shape[0]):
            costs[j] = squares[j] - np.float32(2.0) * costs[j]
        best[i] = first_least(costs, squares.shape[0])


@kernel(
    types.float32[:, ::1], READ_FLOATS, READ_FLOATS, READ_ROWS, types.float32[::1],
    types.int32[::1], types.int32[::1],
)  # fmt: skip
def seconds(
    products: Any, squares: Any, lengths: Any, gram: Any, costs: Any, best: Any, second: Any
) -> None:
    """The nearest center of each row, and the second list of spilling.

    products  float32[rows, centers or more], <x, c>
    squares   float32[centers], |c|^2; lengths float32[rows], |x|^2
    gram      float32[centers, centers], <b, c>
    costs     float32[centers], scratch
    Twin      training._firsts, training.second_best
    """
    for i in range(products.shape[0]):
        along = products[i]
        for j in range(costs.shape[0]):
            costs[j] = squares[j] - np.float32(2.0) * along[j]
        first = first_least(costs, costs.shape[0])
        best[i] = first
        length = np.sqrt(max(lengths[i] + costs[first], LEAST_LENGTH))
        product = lengths[i] - along[first]
        for j in range(costs.shape[0]):
            turned = (product - (along[j] - gram[first, j])) / length
            costs[j] += turned * turned
        costs[first] = np.float32(np.inf)
        second[i] = first_least(costs, costs.shape[0])


@kernel(READ_CODES, READ_FLOATS, READ_LONGS, READ_LONGS, types.float32[:, ::1])
def sums(codes: Any, scales: Any, positions: Any, labels: Any, out: Any) -> None:
    """Adds rows to the sums of their labels, run by run of equal labels.

    codes, scales  8-bit codes, row by row
    positions      of the rows; labels: where each goes
    Twin           following._sums_of_codes
    """
    width = codes.shape[1]
    run = np.zeros(width, np.float32)
    for at in range(positions.shape[0]):
        row, scale = codes[positions[at]], scales[positions[at]]
        if at == 0 or labels[at] != labels[at - 1]:
            for j in range(width):
                run[j] = (np.float32(row[j]) - np.float32(128)) * scale
        else:
            for j in range(width):
                run[j] += (np.float32(row[j]) - np.float32(128)) * scale
        if at + 1 == positions.shape[0] or labels[at + 1] != labels[at]:
            total = out[labels[at]]
            for j in range(width):
                total[j] += run[j]
