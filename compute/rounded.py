"""Similarities whose float32 is sure: sums in whatever order is fastest, where no order matters.

A score is a float32 made of a float64 sum, and that sum has one order of additions
(`numba_kernels.pairwise`), so that every backend gives the same. To keep that order takes four
times as long as to add as it comes. So a row's sum is first made as it comes; where all sums that
it may differ from by roundings give the same float32, that is the score, and the order was no
matter. Where they do not, some twenty of a million rows, the sum is made again in its order.

With u = 2^-53 and d terms: products of two float32 are exact in float64, so a sum of them errs, in
any order, with or without fused operations, by at most d * u * |row| |query|; two sums by twice
that. The square of the row's length errs by d * u of itself, and a quotient or a root by some u
more. A sum of squared differences has terms without sign, each of which errs by 3 u. So

    metric  what is rounded     two of it differ by at most
    cosine  cos                 3 (d + 8) u
    ip      dot                 2 (d + 8) u |row| |query|
    l2      |q - x|^2           2 (d + 8) u |q - x|^2

and 8 (d + 16) u, of 1 or of what it is relative to, surely is more. Rounding ascends, so where both
ends of such a range round to one float32, all of it does.

Invariants
    RO1 What `sure_similarity` gives rounds to the float32 that `numba_kernels.similarity` rounds to
        (its root, under l2), sign of zero included.
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-call, no-any-return"

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from m2mdb.compute import lanes as lanes_module
from m2mdb.compute.numba_kernels import COSINE, L2, similarity

lanes: Any = lanes_module  # its intrinsics are called otherwise than they are written
address_of = lanes.address_of
DOUBT = 2.0**-50  # 8 u
LEAST_TERMS = 16
SMALLEST_LENGTH = 1e-100  # of row and query, multiplied; below, errors may not be relative ones


def _quick(function: Any) -> Any:
    """A step whose sums may be made in any order; NaN and infinity keep their meaning."""
    fast = {"reassoc", "contract", "nsz"}
    return njit(function, nogil=True, fastmath=fast, error_model="numpy", boundscheck=False)


@_quick
def quick_products(row: Any, query: Any, count: int) -> Any:
    """Sums of row * query and of row * row, of float32 by pointers."""
    product, square = 0.0, 0.0
    for i in range(count):
        value = np.float64(row[i])
        product += value * np.float64(query[i])
        square += value * value
    return product, square


@_quick
def quick_squares(row: Any, query: Any, count: int) -> Any:
    """The sum of (row - query)^2, of float32 by pointers."""
    total = 0.0
    for i in range(count):
        gap = np.float64(row[i]) - np.float64(query[i])
        total += gap * gap
    return total


def _sure_similarity(kind: int, row: Any, query: Any, length: float) -> float:
    """The similarity of a row to a query, as far as its float32 tells it (RO1).

    row, query   float32 arrays of one length
    length       of the query, in float64
    Twin         numba_kernels.similarity
    """
    d = row.shape[0]
    doubt = DOUBT * (d + LEAST_TERMS)
    if kind == L2:
        far = quick_squares(address_of(row), address_of(query), d)
        low, high = math.sqrt(far * (1.0 - doubt)), math.sqrt(far * (1.0 + doubt))
        if far > SMALLEST_LENGTH and np.float32(low) == np.float32(high):
            return -far
        return similarity(kind, row, query, length)
    near, square = quick_products(address_of(row), address_of(query), d)
    both = math.sqrt(square) * length
    if kind == COSINE:
        near /= both
    else:
        doubt *= both
    is_told = np.float32(near - doubt) == np.float32(near + doubt)
    if both > SMALLEST_LENGTH and abs(near) > doubt and is_told:
        return max(min(near, 1.0), -1.0) if kind == COSINE else near
    return similarity(kind, row, query, length)


sure_similarity: Any = njit(_sure_similarity, nogil=True, error_model="numpy", boundscheck=False)
