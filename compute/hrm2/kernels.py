"""Compiled search of lists: one call from a rotated query to the best rows, without the GIL.

    query --rotate--> table of the fast scan, bytes
          --route---> lists by distance
          --probe---> list after list: 1-bit codes, bound; 8-bit codes of rows that may enter

Scratch arrays belong to the caller and may be used again by the next search of one thread:

    rotated     float32[width]      the query, rotated
    small       int8[width]         the same as bytes: value ~ byte * numbers[QUERY_SCALE]
    table       uint8[4 * width]    sums of four signed coordinates, of 16 sign patterns a group
    order       int32[lists]        lists, nearest first
    distances   float32[lists]      their distances (D of lists.py)
    sums        uint16[32]          of a block
    bounds      float32[32]
    best        int32[wanted]       positions, nearest first
    nearness    float32[wanted]     their distances by 8-bit codes
    numbers     float32[8]          see below
    counts      int64[8]            see below
    turned      float32[width]      for the rotation
    buckets     int32[BUCKETS + 1]  for the order of lists

Invariants
    K1  A kernel allocates nothing, raises nothing and calls only kernels of this file.
    K2  Each kernel has one explicit signature.
    K3  Equal distances keep the order of probing, which depends on file and query alone.
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-call, no-any-return, return-value"

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit, types

from m2mdb.compute.hrm2 import simd as simd_module
from m2mdb.compute.loader import kernel_cache

if TYPE_CHECKING:
    from collections.abc import Callable

simd: Any = simd_module  # its functions are intrinsics: what calls them is no Python

# numbers: what the query is
QUERY_SCALE, QUERY_SQUARE, TABLE_SCALE, TABLE_LOW, EPSILON, BIAS = 0, 1, 2, 3, 4, 5
# counts: what the search did
FOUND, PROBED, CODES, RERANKED = 0, 1, 2, 3

BUCKETS = 1024
NEAR, PRODUCT = 0, 1  # distances |q - x|^2, or -2 <q, x>
FAST = {"reassoc", "contract", "nsz", "arcp"}

if simd.WIDTH:
    WIDTH = simd.WIDTH
    add, sub, shuffle, load_u8 = simd.add, simd.sub, simd.shuffle, simd.load_u8
    as_u16, zero_u16, zero_i32 = simd.as_u16, simd.zero_u16, simd.zero_i32
    low_nibbles, high_nibbles = simd.low_nibbles, simd.high_nibbles
    high_bytes, shift_up_byte = simd.high_bytes, simd.shift_up_byte
    fold_lanes, store_first_lane = simd.fold_lanes, simd.store_first_lane
    dot_u8_i8, sum_lanes = simd.dot_u8_i8, simd.sum_lanes

READ_BYTES = types.Array(types.uint8, 1, "C", readonly=True)
READ_FLOATS = types.Array(types.float32, 1, "C", readonly=True)
READ_INTS = types.Array(types.int32, 1, "C", readonly=True)
READ_LONGS = types.Array(types.int64, 1, "C", readonly=True)
READ_FLOAT_BLOCKS = types.Array(types.float32, 2, "C", readonly=True)
READ_INT_BLOCKS = types.Array(types.int32, 2, "C", readonly=True)
READ_SIGNS = types.Array(types.float32, 2, "C", readonly=True)
BYTES = types.uint8[::1]
SMALL = types.int8[::1]
FLOATS = types.float32[::1]
INTS = types.int32[::1]
SUMS = types.uint16[::1]
LONGS = types.int64[::1]
INT = types.int64
FLOAT = types.float32
LISTS = types.Tuple(
    (
        READ_BYTES,  # centers
        READ_FLOATS,  # center_scales
        READ_FLOATS,  # center_squares
        READ_LONGS,  # starts
        READ_BYTES,  # codes
        READ_FLOAT_BLOCKS,  # factors
        READ_INT_BLOCKS,  # positions
        READ_BYTES,  # bytes8
        READ_FLOATS,  # scales
        READ_FLOATS,  # squares
        READ_INTS,  # ordinals
    )
)
SCRATCH = types.Tuple(
    (FLOATS, SMALL, BYTES, INTS, FLOATS, SUMS, FLOATS, INTS, FLOATS, FLOATS, LONGS, FLOATS, INTS)
)


def inlined(function: Any) -> Any:
    """A helper whose code becomes part of the kernels that call it (K1)."""
    return njit(
        function,
        nogil=True,
        fastmath=FAST,
        error_model="numpy",
        boundscheck=False,
        inline="always",
    )


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


@inlined
def hadamard(x: Any, start: int, power: int, other: Any) -> None:
    """Normalised Walsh-Hadamard transform of x[start : start + power], in place.

    Every stage pairs neighbours and writes their sums and differences to the two halves (Pease's
    form), which vectorises alike for all of them; after as many stages as `power` has bits the
    order is the natural one again.
    Twin    rotation.hadamard
    """
    half = power >> 1
    scale = np.float32(1.0) / np.float32(np.sqrt(np.float64(power)))
    for i in range(power):
        x[start + i] *= scale
    left = power
    while left > 1:
        for i in range(half):
            a, b = x[start + 2 * i], x[start + 2 * i + 1]
            other[i] = a + b
            other[half + i] = a - b
        left >>= 1
        if left == 1:
            for i in range(power):
                x[start + i] = other[i]
            break
        for i in range(half):
            a, b = other[2 * i], other[2 * i + 1]
            x[start + i] = a + b
            x[start + half + i] = a - b
        left >>= 1


@inlined
def rotate(x: Any, flips: Any, other: Any) -> None:
    """Rotate a padded query in place; `other` is as long, and scratch.

    Twin    rotation.transform
    """
    width = x.shape[0]
    power = 1
    while 2 * power <= width:
        power *= 2
    for turn in range(flips.shape[0] // 2):
        for i in range(width):
            x[i] *= flips[2 * turn, i]
        hadamard(x, 0, power, other)
        if power < width:
            for i in range(width):
                x[i] *= flips[2 * turn + 1, i]
            hadamard(x, width - power, power, other)


@inlined
def prepare(rotated: Any, small: Any, table: Any, numbers: Any) -> None:
    """Bytes and table of a rotated query, with their scales.

    Table sums are exact in 16 bits: no entry is above 65535 / groups.
    """
    width = rotated.shape[0]
    groups = width // 4
    largest = np.float32(1e-30)
    square = np.float32(0.0)
    for i in range(width):
        largest = max(largest, abs(rotated[i]))
        square += rotated[i] * rotated[i]
    scale = np.float32(127.0) / largest
    for i in range(width):
        small[i] = np.int8(np.rint(rotated[i] * scale))
    bias = np.int32(0)
    for i in range(width):
        bias += np.int32(small[i])
    numbers[BIAS] = np.float32(128.0) * np.float32(bias)
    numbers[QUERY_SCALE] = largest / np.float32(127.0)
    numbers[QUERY_SQUARE] = square
    widest = np.float32(1e-30)
    low = np.float32(0.0)
    for g in range(groups):
        reach = (
            abs(rotated[4 * g])
            + abs(rotated[4 * g + 1])
            + abs(rotated[4 * g + 2])
            + abs(rotated[4 * g + 3])
        )
        widest = max(widest, reach)
        low -= reach
    most = np.float32(min(255, 65535 // groups))
    step = most / (np.float32(2.0) * widest)
    for g in range(groups):
        a, b, c, d = rotated[4 * g], rotated[4 * g + 1], rotated[4 * g + 2], rotated[4 * g + 3]
        base = abs(a) + abs(b) + abs(c) + abs(d) - a - b - c - d
        for i in range(16):
            value = base + np.float32(2.0) * (
                np.float32(i & 1) * a
                + np.float32((i >> 1) & 1) * b
                + np.float32((i >> 2) & 1) * c
                + np.float32((i >> 3) & 1) * d
            )
            table[16 * g + i] = np.uint8(value * step + np.float32(0.5))
    numbers[TABLE_SCALE] = np.float32(1.0) / step
    numbers[TABLE_LOW] = low


if simd.VNNI:

    @inlined
    def dot8(rows: Any, at: int, query: Any, width: int) -> int:
        """Sum of byte * query over `width` elements from rows[at]."""
        a, b = zero_i32(), zero_i32()
        k = 0
        while k + 128 <= width:
            a = dot_u8_i8(a, load_u8(rows, at + k), load_u8(query, k))
            b = dot_u8_i8(b, load_u8(rows, at + k + 64), load_u8(query, k + 64))
            k += 128
        if k < width:
            a = dot_u8_i8(a, load_u8(rows, at + k), load_u8(query, k))
        return sum_lanes(add(a, b))

else:

    @inlined
    def dot8(rows: Any, at: int, query: Any, width: int) -> int:
        """Sum of byte * query over `width` elements from rows[at]."""
        total = np.int32(0)
        for k in range(width):
            total += np.int32(rows[at + k]) * np.int32(query[k])
        return total


if simd.WIDTH:

    @inlined
    def scan_block(codes: Any, at: int, table: Any, sums: Any) -> None:
        """sums[s] = the table's entries of code SLOTS[s] of the block at codes[at], added.

        Bytes are added without widening: a 16-bit sum of two bytes, and one of the odd byte alone,
        which is subtracted in the end.
        """
        size = table.shape[0]
        low, low_odd, high, high_odd = zero_u16(), zero_u16(), zero_u16(), zero_u16()
        for g in range(0, size, WIDTH):
            code, entries = load_u8(codes, at + g), load_u8(table, g)
            x = as_u16(shuffle(entries, low_nibbles(code)))
            y = as_u16(shuffle(entries, high_nibbles(code)))
            low, low_odd = add(low, x), add(low_odd, high_bytes(x))
            high, high_odd = add(high, y), add(high_odd, high_bytes(y))
        low, high = sub(low, shift_up_byte(low_odd)), sub(high, shift_up_byte(high_odd))
        store_first_lane(sums, 0, fold_lanes(low))
        store_first_lane(sums, 8, fold_lanes(low_odd))
        store_first_lane(sums, 16, fold_lanes(high))
        store_first_lane(sums, 24, fold_lanes(high_odd))

else:

    @inlined
    def scan_block(codes: Any, at: int, table: Any, sums: Any) -> None:
        """sums[s] = the table's entries of code SLOTS[s] of the block at codes[at], added."""
        for s in range(32):
            sums[s] = 0
        for g in range(table.shape[0] // 16):
            for i in range(16):
                code = codes[at + 16 * g + i]
                slot = (i >> 1) + 8 * (i & 1)
                sums[slot] += table[16 * g + (code & 15)]
                sums[16 + slot] += table[16 * g + (code >> 4)]


@inlined
def bucket_order(distances: Any, order: Any, buckets: Any) -> None:
    """order = all lists, nearest first, as far as BUCKETS equal steps of distance tell them apart.

    A counting sort: a comparison sort of random numbers waits for the branches it mispredicts.
    Lists of one bucket stand by number (K3).
    """
    count = distances.shape[0]
    low, high = distances[0], distances[0]
    for each in range(count):
        low = min(low, distances[each])
        high = max(high, distances[each])
    step = np.float32(BUCKETS - 1) / max(high - low, np.float32(1e-30))
    for i in range(BUCKETS + 1):
        buckets[i] = 0
    for each in range(count):
        buckets[np.int32((distances[each] - low) * step) + 1] += 1
    for i in range(BUCKETS):
        buckets[i + 1] += buckets[i]
    for each in range(count):
        bucket = np.int32((distances[each] - low) * step)
        order[buckets[bucket]] = each
        buckets[bucket] += 1


@inlined
def route(
    centers: Any,
    center_scales: Any,
    center_squares: Any,
    small: Any,
    numbers: Any,
    kind: int,
    distances: Any,
) -> None:
    """Distances of all lists."""
    count, width = center_scales.shape[0], small.shape[0]
    bias = np.float32(numbers[BIAS])
    scale = np.float32(-2.0) * numbers[QUERY_SCALE]
    for each in range(count):
        product = np.float32(dot8(centers, each * width, small, width)) - bias
        distances[each] = product * scale * center_scales[each]
    if kind == NEAR:
        for each in range(count):
            distances[each] += numbers[QUERY_SQUARE] + center_squares[each]


@inlined
def insert(position: int, distance: np.float32, size: int, best: Any, nearness: Any) -> int:
    """Add a row to the sorted best ones, unless it is there; returns their new number."""
    wanted = best.shape[0]
    at = size
    while at > 0 and nearness[at - 1] > distance:
        at -= 1
    is_new = True
    i = at - 1
    while i >= 0 and nearness[i] == distance:  # its other code has the same distance
        if best[i] == position:
            is_new = False
        i -= 1
    if is_new and at < wanted:
        for j in range(min(size, wanted - 1), at, -1):
            best[j] = best[j - 1]
            nearness[j] = nearness[j - 1]
        best[at] = position
        nearness[at] = distance
        size = min(size + 1, wanted)
    return size


@kernel(types.void, LISTS, READ_BYTES, READ_SIGNS, INT, types.UniTuple(INT, 4), FLOAT, SCRATCH)
def search(
    lists: Any,
    mask: Any,
    flips: Any,
    kind: int,
    stop: tuple[int, int, int, int],
    factor: np.float32,
    scratch: Any,
) -> None:
    """Find the best rows of a query: `best`, `nearness` and `counts` of scratch.

    mask    uint8 by ordinal, 1 = may be found; an empty one lets every row be found
    kind    NEAR or PRODUCT
    stop    (k, least, patience, most): lists are probed while fewer than `least` were, or while
            fewer than factor * (the last that changed the k best) + patience were, at most `most`
    scratch[0] holds the query, padded, not rotated yet; numbers[EPSILON] how many standard
    errors of a 1-bit estimate its bound takes off
    """
    centers, center_scales, center_squares, starts, codes, factors = lists[:6]
    positions, bytes8, scales, squares, ordinals = lists[6:]
    rotated, small, table, order, distances, sums, bounds = scratch[:7]
    best, nearness, numbers, counts, turned, buckets = scratch[7:]
    k, least, patience, most = stop
    width = small.shape[0]
    wanted = best.shape[0]
    rotate(rotated, flips, turned)
    prepare(rotated, small, table, numbers)
    route(centers, center_scales, center_squares, small, numbers, kind, distances)
    bucket_order(distances, order, buckets)
    root = np.float32(1.0) / np.float32(np.sqrt(np.float64(width)))
    slope, level = numbers[TABLE_SCALE] * root, numbers[TABLE_LOW] * root
    scale = np.float32(-2.0) * numbers[QUERY_SCALE]
    bias = np.float32(numbers[BIAS])
    square = numbers[QUERY_SQUARE] if kind == NEAR else np.float32(0.0)
    size = 0
    scanned = 0
    reranked = 0
    worst = np.float32(np.inf)
    most = min(most, order.shape[0])
    last = 0
    done = 0
    while done < most:
        if done >= least and np.float32(done) >= factor * np.float32(last) + np.float32(patience):
            break
        each = order[done]
        base = distances[each]
        reach = base if kind == NEAR else numbers[QUERY_SQUARE]
        spread = numbers[EPSILON] * np.float32(np.sqrt(max(reach, np.float32(0.0))))
        for block in range(starts[each], starts[each + 1]):
            scan_block(codes, block * 4 * width, table, sums)
            below = np.int32(0)
            for s in range(32):
                product = slope * np.float32(sums[s]) + level
                bound = base + factors[block, s] - factors[block, 32 + s] * product
                bound -= spread * factors[block, 64 + s]
                bounds[s] = bound
                below += np.int32(bound < worst)
            if below == 0:
                continue
            for s in range(32):
                if not bounds[s] < worst:
                    continue
                position = positions[block, s]
                if position < 0 or (mask.shape[0] and not mask[ordinals[position]]):
                    continue
                product = np.float32(dot8(bytes8, position * width, small, width)) - bias
                distance = product * scale * scales[position] + square
                if kind == NEAR:
                    distance += squares[position]
                reranked += 1
                if size == wanted and not distance < nearness[wanted - 1]:
                    continue
                if size < k or distance < nearness[k - 1]:
                    last = done
                size = insert(position, distance, size, best, nearness)
                if size >= k:
                    worst = nearness[k - 1]
        scanned += starts[each + 1] - starts[each]
        done += 1
    counts[FOUND] = size
    counts[PROBED] = done
    counts[CODES] = 32 * scanned
    counts[RERANKED] = reranked
