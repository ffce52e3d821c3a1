"""The steps of a compiled search, on pointers: they become part of the kernels that call them.

    rotate     the query, by signs and Hadamard transforms
    prepare    its bytes, and the table of the fast scan
    cut        an estimate that about so many lists are below
    order      lists by distance
    scan       1-bit codes of a block: lower bounds of 32 distances
    dot8       a row's 8-bit code times the query's bytes
    insert     into the best rows so far

Invariants
    K1  A step allocates nothing, raises nothing, and calls only steps.
    K2  Pointers are not checked: what they and the numbers beside them say, a plan has made sure.
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-call, no-any-return, return-value"

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from m2mdb.compute.hrm2 import simd as simd_module
from m2mdb.compute.hrm2.reference import (
    BUCKETS,
    CROWDED,
    FAR_SHARE,
    HALVINGS,
    HARD,
    LEAST_RANGE,
    MOST_ENTRY,
)

simd: Any = simd_module  # its functions are intrinsics: what calls them is no Python

# numbers: what the query is
QUERY_SCALE, QUERY_SQUARE, TABLE_SCALE, TABLE_LOW, BIAS = 0, 1, 2, 3, 4
# and from HARDNESS on how hard it may be: reference.Stop.hardness
HARDNESS, NUMBERS_SIZE = 5, 24

PANEL = 16  # vectors that are interleaved for `products_of`
GROUP = 4 * PANEL  # vectors of one turn of it
NEAR, PRODUCT = 0, 1  # distances |q - x|^2, or -2 <q, x>
FAST = {"reassoc", "contract", "nsz", "arcp"}
INFINITE_BITS = 0x7F800000  # of the infinite float32

if simd.WIDTH:
    WIDTH = simd.WIDTH
    add, sub, shuffle, load_u8 = simd.add, simd.sub, simd.shuffle, simd.load_u8
    as_u16, zero_u16, zero_i32 = simd.as_u16, simd.zero_u16, simd.zero_i32
    low_nibbles, high_nibbles = simd.low_nibbles, simd.high_nibbles
    high_bytes, shift_up_byte = simd.high_bytes, simd.shift_up_byte
    fold_lanes, splat_4_bytes = simd.fold_lanes, simd.splat_4_bytes
    dot_u8_i8, sum_lanes, store_i32 = simd.dot_u8_i8, simd.sum_lanes, simd.store_i32
    prefetch = simd.prefetch
    lower_bounds, store_bounds = simd.lower_bounds, simd.store_bounds
    which_below = simd.which_below


def step(function: Any) -> Any:
    """A helper whose code becomes part of the kernels that call it (K1)."""
    return njit(function, nogil=True, fastmath=FAST, error_model="numpy", boundscheck=False)


@step
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


@step
def rotate(x: Any, flips: Any, turns: int, width: int, other: Any) -> None:
    """Rotate a padded query in place; `other` is as long, and scratch.

    flips   float32, rows of `width` signs, two for each turn
    Twin    rotation.transform
    """
    power = 1
    while 2 * power <= width:
        power *= 2
    for turn in range(turns):
        row = 2 * turn * width
        for i in range(width):
            x[i] *= flips[row + i]
        hadamard(x, 0, power, other)
        if power < width:
            for i in range(width):
                x[i] *= flips[row + width + i]
            hadamard(x, width - power, power, other)


@step
def prepare(rotated: Any, width: int, small: Any, table: Any, numbers: Any) -> None:
    """Bytes and table of a rotated query, with their scales.

    Table sums are exact: four entries fit in a byte, and all that are added in 16 bits.
    """
    groups = width // 4
    largest = np.float32(1e-30)
    square = np.float32(0.0)
    for i in range(width):
        largest = max(largest, abs(rotated[i]))
        square += rotated[i] * rotated[i]
    scale = np.float32(127.0) / largest
    bias = np.int32(0)
    for i in range(width):
        value = np.int32(np.rint(rotated[i] * scale))
        small[i] = np.int8(value)
        bias += value
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
    most = np.float32(min(MOST_ENTRY, 65535 // groups))
    each = most / (np.float32(2.0) * widest)
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
            table[16 * g + i] = np.uint8(value * each + np.float32(0.5))
    numbers[TABLE_SCALE] = np.float32(1.0) / each
    numbers[TABLE_LOW] = low


if simd.VNNI:

    @step
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

    @step
    def products_of(panels: Any, lists: int, query: Any, width: int, products: Any) -> None:
        """Sums of byte * query of `lists` centroids, a multiple of GROUP.

        Lists stand side by side: no sum over a register's lanes is needed.
        """
        size = PANEL * width
        for first in range(0, lists, GROUP):
            at = first * width
            a, b, c, d = zero_i32(), zero_i32(), zero_i32(), zero_i32()
            for g in range(0, width, 4):
                four = splat_4_bytes(query, g)
                k = at + PANEL * g
                a = dot_u8_i8(a, load_u8(panels, k), four)
                b = dot_u8_i8(b, load_u8(panels, k + size), four)
                c = dot_u8_i8(c, load_u8(panels, k + 2 * size), four)
                d = dot_u8_i8(d, load_u8(panels, k + 3 * size), four)
            store_i32(products, first, a)
            store_i32(products, first + PANEL, b)
            store_i32(products, first + 2 * PANEL, c)
            store_i32(products, first + 3 * PANEL, d)

else:

    @step
    def dot8(rows: Any, at: int, query: Any, width: int) -> int:
        """Sum of byte * query over `width` elements from rows[at]."""
        total = np.int32(0)
        for k in range(width):
            total += np.int32(rows[at + k]) * np.int32(query[k])
        return total

    @step
    def products_of(panels: Any, lists: int, query: Any, width: int, products: Any) -> None:
        """Sums of byte * query of `lists` centroids, a multiple of GROUP."""
        for first in range(0, lists, PANEL):
            for i in range(PANEL):
                products[first + i] = 0
            for g in range(0, width, 4):
                at = first * width + PANEL * g
                for i in range(PANEL):
                    total = np.int32(0)
                    for j in range(4):
                        total += np.int32(panels[at + 4 * i + j]) * np.int32(query[g + j])
                    products[first + i] += total


@step
def by_bytes(
    codes: Any, scales: Any, squares: Any, each: int, small: Any, width: int, numbers: Any,
    kind: int,
) -> Any:  # fmt: skip
    """The query's distance from a vector by its 8-bit code."""
    product = np.float32(dot8(codes, each * width, small, width)) - numbers[BIAS]
    distance = product * (np.float32(-2.0) * numbers[QUERY_SCALE]) * scales[each]
    if kind == NEAR:
        distance += numbers[QUERY_SQUARE] + squares[each]
    return np.float32(distance)


@step
def ascending(bits: Any) -> Any:
    """An int32 that is in the order of the float32 whose bits these are; and back."""
    return bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF))


@step
def finite_range(values: Any, count: int) -> Any:
    """The smallest value, and the largest that is finite.

    As integers of the same order: whether a float is NaN no loop over vectors would ask.
    """
    low, high = np.int32(INFINITE_BITS), np.int32(-INFINITE_BITS - 1)
    for i in range(count):
        each = ascending(np.float32(values[i]).view(np.int32))
        low = min(low, each)
        high = max(high, each if each < np.int32(INFINITE_BITS) else np.int32(-INFINITE_BITS - 1))
    low, high = ascending(low), ascending(high)
    return np.int32(low).view(np.float32), np.int32(high).view(np.float32)


@step
def count_below(values: Any, count: int, limit: Any) -> int:
    """How many values are below a limit."""
    below = np.int32(0)
    for i in range(count):
        below += np.int32(values[i] < limit)
    return below


@step
def cut(values: Any, count: int, wanted: int, low: Any, high: Any) -> Any:
    """A number that `wanted` values or a quarter more are below; infinity where there is none.

    low, high   between which it is sought
    """
    found, share, before, is_far = np.float32(np.inf), np.float32(0.5), count, True
    for _ in range(HALVINGS):
        middle = low + share * (high - low)
        below, share = count_below(values, count, middle), np.float32(0.5)
        if below < wanted:
            low, is_far = middle, False
        else:
            found = high = middle
            if below <= wanted + (wanted >> 2):
                break
            if is_far and below > before - (before >> 4):  # some are very far from all others
                share = np.float32(FAR_SHARE)
            before = below
    return found


@step
def bucket_order(keys: Any, items: Any, count: int, first: int, order: Any, buckets: Any) -> None:
    """order[first:] = items, smallest key first, as far as BUCKETS equal steps tell them apart.

    A counting sort: a comparison sort of random numbers waits for the branches it mispredicts.
    Items of one bucket keep their order (K3). Where a bucket is CROWDED, as some keys are very far
    from all others, its items are brought in order by themselves.
    """
    low, high = finite_range(keys, count)
    each_step = np.float32(BUCKETS - 1) / max(high - low, np.float32(LEAST_RANGE))
    for i in range(BUCKETS + 1):
        buckets[i] = 0
    for each in range(count):
        buckets[np.int32((keys[each] - low) * each_step) + 1] += 1
    most = np.int32(0)
    for i in range(BUCKETS):
        most = max(most, buckets[i + 1])
    for i in range(BUCKETS):
        buckets[i + 1] += buckets[i]
    for each in range(count):
        bucket = np.int32((keys[each] - low) * each_step)
        order[first + buckets[bucket]] = items[each]
        buckets[bucket] += 1
    if most > max(CROWDED, count >> 5):
        finer(keys, items, count, (low, high, each_step), first, order, buckets)


@step
def finer(
    keys: Any, items: Any, count: int, within: Any, first: int, order: Any, buckets: Any
) -> None:
    """Bring the items of the first crowded bucket, and the next, in order, while there is one.

    within   the smallest key, the largest, and how many buckets there are to a unit
    """
    low, high, each_step = within
    start, most = np.int32(0), max(CROWDED, count >> 5)
    while True:
        crowded, before = 0, start
        while crowded < BUCKETS and buckets[crowded] - before <= most:
            before = buckets[crowded]
            crowded += 1
        if crowded == BUCKETS:
            break
        least, last = high, low
        for each in range(count):
            key = keys[each]
            if low <= key and key <= high:
                bucket = np.int32((key - low) * each_step)
                if bucket == crowded or bucket == crowded + 1:
                    least, last = min(least, key), max(last, key)
        low, high, start = least, last, before
        if not high - low > np.float32(LEAST_RANGE):
            break
        each_step = np.float32(BUCKETS - 1) / (high - low)
        for i in range(BUCKETS + 1):
            buckets[i] = 0
        for each in range(count):
            if low <= keys[each] and keys[each] <= high:
                buckets[np.int32((keys[each] - low) * each_step) + 1] += 1
        buckets[0] = start
        for i in range(BUCKETS):
            buckets[i + 1] += buckets[i]
        for each in range(count):
            if low <= keys[each] and keys[each] <= high:
                bucket = np.int32((keys[each] - low) * each_step)
                order[first + buckets[bucket]] = items[each]
                buckets[bucket] += 1


if simd.WIDTH:

    @step
    def entries_of(codes: Any, at: int, table: Any, g: int) -> Any:
        """The table's entries for a register of codes: of the low nibbles, and of the high ones."""
        code, entries = load_u8(codes, at), load_u8(table, g)
        return shuffle(entries, low_nibbles(code)), shuffle(entries, high_nibbles(code))

    @step
    def scan_block(
        codes: Any, block: int, later: int, table: Any, width: int, factors: Any, terms: Any,
        limit: Any, bounds: Any,
    ) -> int:  # fmt: skip
        """Which lower bounds of a block are below the limit, as bits; if any, all are written.

        The block `later` is asked for meanwhile. bounds[s] is that of code SLOTS[s]. Four entries
        are added as bytes, and these without widening: a 16-bit sum of two bytes, and one of the
        odd byte alone, which is subtracted in the end.
        """
        size = 4 * width
        at = block * size
        ahead = (later - block) * size
        for line in range(0, 384, 64):
            prefetch(factors, 96 * later + line // 4)
        low, low_odd, high, high_odd = zero_u16(), zero_u16(), zero_u16(), zero_u16()
        for g in range(0, size, 4 * WIDTH):
            a, b, c, d = g, g + WIDTH, g + 2 * WIDTH, g + 3 * WIDTH
            for line in range(g, g + 4 * WIDTH, 64):
                prefetch(codes, at + ahead + line)
            x, y = entries_of(codes, at + a, table, a)
            x2, y2 = entries_of(codes, at + b, table, b)
            x3, y3 = entries_of(codes, at + c, table, c)
            x4, y4 = entries_of(codes, at + d, table, d)
            x, y = as_u16(add(add(x, x2), add(x3, x4))), as_u16(add(add(y, y2), add(y3, y4)))
            low, low_odd = add(low, x), add(low_odd, high_bytes(x))
            high, high_odd = add(high, y), add(high_odd, high_bytes(y))
        low, high = sub(low, shift_up_byte(low_odd)), sub(high, shift_up_byte(high_odd))
        sums = (fold_lanes(low), fold_lanes(low_odd), fold_lanes(high), fold_lanes(high_odd))
        found = lower_bounds(sums, factors, 96 * block, terms)
        bits = which_below(found, limit)
        if bits:
            store_bounds(bounds, 0, found)
        return bits

else:

    @step
    def scan_block(
        codes: Any, block: int, later: int, table: Any, width: int, factors: Any, terms: Any,
        limit: Any, bounds: Any,
    ) -> int:  # fmt: skip
        """Which lower bounds of a block are below the limit, as bits; all are written."""
        base, slope, level, spread = terms
        at = 4 * width * block
        for s in range(32):
            bounds[s] = np.float32(0.0)
        for g in range(width // 4):
            for i in range(16):
                code = codes[at + 16 * g + i]
                slot = (i >> 1) + 8 * (i & 1)
                bounds[slot] += np.float32(table[16 * g + (code & 15)])
                bounds[16 + slot] += np.float32(table[16 * g + (code >> 4)])
        bits = np.int64(0)
        first = 96 * block
        for s in range(32):
            bound = base + factors[first + s]
            bound -= factors[first + 32 + s] * (slope * bounds[s] + level)
            bounds[s] = bound - spread * factors[first + 64 + s]
            bits |= np.int64(bounds[s] < limit) << s
        return bits


@step
def patience_for(numbers: Any, worst: Any) -> Any:
    """How patient a search is whose k-th best distance after its first lists is `worst`.

    Returns patience, and the share of its factor that holds.
    """
    at = 0
    while at < HARD - 1 and worst > numbers[HARDNESS + at]:
        at += 1
    return numbers[HARDNESS + HARD - 1 + at], numbers[HARDNESS + 2 * HARD - 1 + at]


@step
def insert(position: int, distance: Any, size: int, wanted: int, best: Any, nearness: Any) -> int:
    """Add a row to the sorted best ones; its place, or -1 where it was among them already."""
    at = 0
    for i in range(size):  # no branch that depends on a distance
        at += int(nearness[i] <= distance)
    i = at - 1
    while i >= 0 and nearness[i] == distance:  # its other code has the same distance
        if best[i] == position:
            return -1
        i -= 1
    for j in range(min(size, wanted - 1), at, -1):
        best[j] = best[j - 1]
    for j in range(min(size, wanted - 1), at, -1):
        nearness[j] = nearness[j - 1]
    best[at] = position
    nearness[at] = distance
    return at
