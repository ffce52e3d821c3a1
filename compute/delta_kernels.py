"""Coded rows of the delta beside lists: which of them a search of lists has to compare in full.

    rows as they come --rotate--> 1-bit codes around one centre, 8-bit codes     `listed`
    query of a search of lists, rotated already --1-bit bound--> --8-bit bound--> rows    `reaching`

A search that has probed lists knows the k-th best row so far, and its scratch has the query's
table, bytes and coordinates. With these a thousand rows are scanned in a microsecond: blocks of 32
by the fast scan of `hrm2.steps`, and of the rows whose 1-bit bound reaches that row the 8-bit
codes. The second bound holds for every row. The first takes off SURE standard errors of

    a code     e sqrt(D) or e |q|, as in `hrm2.lists`; TABLE_TILT of it are to spare
    the table  f times what rounding its entries errs, sqrt(groups / 12) steps over sqrt(width): it
               goes with |q|, and where all rows lie near one point far from zero it is most of all

and what float32 may err.

A *plan* is an int64 array of addresses and sizes:

    CODES, FACTORS    as in `hrm2.lists`, of one list whose centroid is the centre
    BYTES8            uint8 [rows, width]: byte = round(value / scale) + 128
    SCALES, SQUARES   float32 [rows]: of these bytes, and |x|^2
    RESTS             float32 [rows]: length of what the bytes leave out, rounded up
    CENTER            float32 [width], rotated
    COUNT             rows that are scanned

Invariants
    K1  As in `numba_kernels`; these kernels call those and steps of `hrm2`.
    DK1 Rows are rotated by the signs that the lists of the search were coded with, and the scratch
        that is given is that of a search of these lists, which has just ended.
    DK2 What stands in a lane is never changed: who reads fewer rows may read on meanwhile.
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-call, no-any-return, attr-defined"

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import types

from m2mdb.compute.hrm2 import kernels as list_kernels
from m2mdb.compute.hrm2 import simd as simd_module
from m2mdb.compute.hrm2.steps import (
    NEAR,
    QUERY_SCALE,
    QUERY_SQUARE,
    TABLE_LOW,
    TABLE_SCALE,
    by_bytes,
    rotate,
    scan_block,
    step,
)
from m2mdb.compute.numba_kernels import COSINE, FLOATS, INT, IP, READ_VECTOR, kernel, pairwise
from m2mdb.compute.pointers import bytes_at, floats_at, small_at

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vector = NDArray[np.float32]
    Bytes = NDArray[np.uint8]

simd: Any = simd_module
lowest_bit, prefetch = simd.lowest_bit, simd.prefetch
BOUNDS, NUMBERS, ROTATED = list_kernels.BOUNDS, list_kernels.NUMBERS, list_kernels.ROTATED
SMALL, TABLE, WIDTH = list_kernels.SMALL, list_kernels.TABLE, list_kernels.WIDTH
LIST_KIND = list_kernels.KIND

# items of a plan
CODES, FACTORS, BYTES8, SCALES, SQUARES, RESTS, CENTER, COUNT = 0, 1, 2, 3, 4, 5, 6, 7
PLAN_SIZE = 8
BLOCK = 32
CHUNK = 16  # blocks that are scanned at once
SURE = 4.5  # standard errors of a 1-bit estimate that its bound takes off: see docs/hrm2.md
TABLE_TILT = 3e-3  # squared: what the table may err for nothing, of what a code could err at most
ENTRIES = 48  # squared step of the table over its variance in <b, q>: 12 * width / groups
SLACK = np.float32(1e-5)  # relative: what float32 may err in squared lengths
GROWTH = np.float32(1.0 + 1e-5)  # of lengths that are rounded up
LONGEST, SHORTEST = 1e12, 1e-10  # lengths of rows under l2 and ip that float32 has squares of

BYTES = types.uint8[::1]
ROWS = types.Array(types.float32, 2, "C", readonly=True)
VECTORS = types.float32[:, ::1]
VECTOR = types.float32[::1]
CODED = types.Tuple((BYTES, VECTOR, BYTES, VECTORS))


@step
def slot_of(lane: int) -> int:
    """Where the factors of a lane stand; SLOTS of `hrm2.lists` the other way round."""
    return lane // 16 * 16 + lane % 16 // 2 + lane % 2 * 8


@step
def lane_of(slot: int) -> int:
    """The lane whose factors stand at a slot."""
    return slot // 16 * 16 + slot % 8 * 2 + slot % 16 // 8


@step
def terms_for(coded: Any, lists: Any) -> Any:
    """What the bounds of all rows need of the query: (base, slope, level, spread), (rest, length).

    lists   the plan of the search of lists that has just ended (DK1)
    """
    width, numbers, query = lists[WIDTH], floats_at(lists[NUMBERS]), floats_at(lists[ROTATED])
    center, small = floats_at(coded[CENTER]), small_at(lists[SMALL])
    near, product, rest = np.float32(0.0), np.float32(0.0), np.float32(0.0)
    far = np.float32(0.0)
    scale = numbers[QUERY_SCALE]
    for i in range(width):
        gap = query[i] - center[i]
        near += gap * gap
        product += query[i] * center[i]
        far += center[i] * center[i]
        left = query[i] - scale * np.float32(small[i])
        rest += left * left
    is_near = lists[LIST_KIND] == NEAR
    square, table = numbers[QUERY_SQUARE], numbers[TABLE_SCALE]
    base = near if is_near else np.float32(-2.0) * product
    base -= SLACK * (square + far if is_near else np.float32(np.sqrt(square * far)))
    reach = near if is_near else square
    root = np.float32(1.0) / np.float32(np.sqrt(np.float64(width)))
    spread = np.float32(SURE) * np.float32(np.sqrt(reach))
    spared = reach * np.float32(TABLE_TILT / (width - 1))
    unspared = max(np.float32(0.0), table * table / np.float32(ENTRIES) - spared)
    level = numbers[TABLE_LOW] * root + SLACK * np.float32(np.sqrt(square))
    level += np.float32(SURE) * np.float32(np.sqrt(unspared))
    terms = base, table * root, level, spread
    rest = np.float32(np.sqrt(rest)) * GROWTH
    return terms, (rest, (np.float32(np.sqrt(square)) + rest) * GROWTH)


@step
def reaching(coded: Any, lists: Any, terms: Any, first: int, how: Any, found: Any) -> int:
    """Rows of CHUNK blocks that may be nearer than a distance, written to `found`; their number.

    terms   from `terms_for`
    how     the distance, float32 as lists have it; a mask, uint8 by row, 1 = may be found: an empty
            one lets every row be found
    found   int32 [BLOCK * CHUNK]
    """
    worst, mask = how
    width, bounds, table = lists[WIDTH], floats_at(lists[BOUNDS]), bytes_at(lists[TABLE])
    codes, factors, bytes8 = (
        bytes_at(coded[CODES]), floats_at(coded[FACTORS]), bytes_at(coded[BYTES8]),
    )  # fmt: skip
    size, every, pending = coded[COUNT], mask.shape[0] == 0, 0
    for block in range(first, min(first + CHUNK, (size + BLOCK - 1) // BLOCK)):
        bits = scan_block(codes, block, block + 1, table, width, factors, terms[0], worst, bounds)
        while bits:
            row = BLOCK * block + lane_of(lowest_bit(bits))
            bits &= bits - 1
            if row < size and (every or mask[row]):
                found[pending] = row
                pending += 1
                for line in range(row * width, row * width + width, 64):
                    prefetch(bytes8, line)
    rest, length = terms[1]
    scales, squares = floats_at(coded[SCALES]), floats_at(coded[SQUARES])
    rests, numbers, small = floats_at(coded[RESTS]), floats_at(lists[NUMBERS]), lists[SMALL]
    count = 0
    for i in range(pending):
        row = np.int64(found[i])
        distance = by_bytes(
            bytes8, scales, squares, row, small_at(small), width, numbers, lists[LIST_KIND]
        )
        square = squares[row]
        slack = length * rests[row] + rest * np.float32(np.sqrt(square))
        distance -= np.float32(2.0) * slack + SLACK * (numbers[QUERY_SQUARE] + square)
        if distance <= worst:
            found[count] = row
            count += 1
    return count


@step
def code_signs(kind: int, number: int, x: Any, center: Any, codes: Any, factors: Any) -> None:
    """The 1-bit code and the factors of a rotated row around the centre, in its own lane."""
    width = center.shape[0]
    root = np.float32(1.0) / np.float32(np.sqrt(np.float64(width)))
    block, lane = number // BLOCK, number % BLOCK
    shift, at = 4 * (lane // 16), block * 4 * width + lane % 16
    whole, along, turned = np.float32(0.0), np.float32(0.0), np.float32(0.0)
    square, far = np.float32(0.0), np.float32(0.0)
    for i in range(width):
        gap = x[i] - center[i]
        whole += gap * gap
        square += x[i] * x[i]
        far += center[i] * center[i]
        along += abs(gap)
        if gap > np.float32(0.0):
            turned += center[i]
            codes[at + 16 * (i // 4)] |= np.uint8(1 << (shift + i % 4))
        else:
            turned -= center[i]
    whole = max(np.float32(np.sqrt(whole)), np.float32(1e-20))
    along = max(along * root / whole, np.float32(1e-6))
    slope = np.float32(2.0) * whole / along
    tilt = max(np.float32(0.0), np.float32(1.0) - along * along) + np.float32(TABLE_TILT)
    first = 96 * block + slot_of(lane)
    factors[first + 32] = slope
    factors[first + 64] = slope * np.float32(np.sqrt(tilt / np.float32(width - 1)))
    factors[first] = np.float32(0.0)
    if kind != IP:
        slack = SLACK * (square + slope * np.float32(np.sqrt(far)))
        factors[first] = whole * whole + slope * turned * root - slack


@kernel(INT, INT, ROWS, INT, FLOATS, ROWS, READ_VECTOR, CODED)
def listed(
    kind: int,
    rows: Vector,
    start: int,
    wide: Vector,
    flips: Vector,
    center: Vector,
    out: tuple[Bytes, Vector, Bytes, Vector],
) -> int:
    """Code rows whose numbers are start, start + 1, ...; how many have lengths that fit.

    kind      COSINE, IP or L2
    rows      float32 [n, dimension]
    wide      float64, scratch; at least `width` items
    flips     float32 [2 * turns, width], signs of the rotation
    center    float32 [width]
    out       codes uint8 [capacity * width / 8], factors float32 [capacity * 3], bytes8 uint8
              [capacity * width], float32 [3, capacity]: scales, squares, rests; capacity is a
              multiple of BLOCK

    Rows that do not fit are the last of all: the caller then leaves these codes alone.
    Twin      listing.listed_rows
    """
    codes, factors, bytes8, numbers = out
    d, width = rows.shape[1], center.shape[0]
    x, other = floats_at(wide.ctypes.data), floats_at(wide.ctypes.data + 4 * width)
    for r in range(rows.shape[0]):
        row, number = rows[r], start + r
        length = math.sqrt(pairwise(IP, row, row, 0, d))
        if kind != COSINE and (length > LONGEST or 0.0 < length < SHORTEST):
            return r
        factor = 1.0
        if kind == COSINE:
            factor = 1.0 / length if length > 0.0 else 0.0
        for i in range(d):
            x[i] = np.float32(np.float64(row[i]) * factor)
        for i in range(d, width):
            x[i] = np.float32(0.0)
        rotate(x, floats_at(flips.ctypes.data), flips.shape[0] // 2, width, other)
        largest, square = np.float32(1e-30), np.float32(0.0)
        for i in range(width):
            largest = max(largest, abs(x[i]))
            square += x[i] * x[i]
        scale, rest = largest / np.float32(127.0), np.float32(0.0)
        for i in range(width):
            byte = np.float32(np.rint(x[i] / scale))
            bytes8[number * width + i] = np.uint8(np.int32(byte) + 128)
            gap = x[i] - byte * scale
            rest += gap * gap
        numbers[0, number], numbers[1, number] = scale, square
        numbers[2, number] = np.float32(np.sqrt(rest)) * GROWTH
        code_signs(kind, number, x, center, codes, factors)
    return rows.shape[0]


__all__ = ["PLAN_SIZE", "listed", "reaching", "terms_for"]
