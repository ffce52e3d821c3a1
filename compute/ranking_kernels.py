"""Compiled ranking: from the candidates of a search to its answer, in one call.

    candidates of lists, and numbers --similarity--> the k best by (key, rowid)
    codes of the delta --bound reaches the k-th--> similarity --> among the k best

Scores are those of `numba_kernels.similarity`, so the answer is `rescore.rank`'s to the bit (K4).

A *plan* tells where the rows of a snapshot lie: an int64 array of addresses and sizes. Who makes
one (`ranking.RankPlan`) keeps the arrays alive. It begins with what all parts share,

    KIND                   COSINE, IP or L2
    DIMENSION, DTYPE       of a row: ROW_FLOATS, ROW_HALVES or ROW_BYTES
    WIDTH, PANELS, CODED   bytes of a row's code, the codes, and how many rows of part 0 have one
    SCALES                 float64 of each code, ERRORS and LENGTHS
    LISTED                 a plan of `delta_kernels` of the same rows, 0: there is none

and then has for each part

    FIRST      number of its first row: rows are numbered through all parts
    ROWS       float32, float16 or int8 [n, DIMENSION]
    ROWIDS     int64 [n]
    VERIFIED   uint8, 1 for each block of the extent that may be read; 0 where all may
    OFFSET     bytes from the extent's start to the rows

Codes: a row x (of length 1 under cosine) is scale * code + rest, with code in -127..127. They stand
in panels as `hrm2.steps.products_of` reads them, as unsigned bytes, 128 added. With
e = |rest| and the query q = q' + rest' coded alike,

    <q, x>  <=  scale * scale' * <code, code'>  +  |q'| * e  +  |rest'| * |x|

by Cauchy and Schwarz. What rounding of float64 may add is far below what is added for it. So a row
that is left out surely is none of the k best.

Invariants
    K1  As in `numba_kernels`; these kernels call those and steps of `hrm2`.
    RK1 No byte of an extent is read before its block's bit is set: rows that are not verified are
        told, and nothing is ranked.
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-call, no-any-return, attr-defined"

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import carray, types

from m2mdb.compute import delta_kernels
from m2mdb.compute.delta_kernels import reaching, terms_for
from m2mdb.compute.hrm2 import kernels as list_kernels
from m2mdb.compute.hrm2 import simd as simd_module
from m2mdb.compute.hrm2.steps import GROUP, PANEL, products_of
from m2mdb.compute.numba_kernels import (
    COSINE,
    FLOATS,
    INT,
    INTS,
    IP,
    L2,
    READ_INTS,
    READ_MASK,
    READ_VECTOR,
    kernel,
    pairwise,
    step,
)
from m2mdb.compute.pointers import (
    bytes_at,
    doubles_at,
    floats_at,
    halves_at,
    ints_at,
    longs_at,
    small_at,
)
from m2mdb.compute.rounded import sure_similarity

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vector = NDArray[np.float32]
    Mask = NDArray[np.uint8]
    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

simd: Any = simd_module
prefetch = simd.prefetch
BEST, COUNTS, FOUND, ORDINALS = (
    list_kernels.BEST, list_kernels.COUNTS, list_kernels.FOUND, list_kernels.ORDINALS,
)  # fmt: skip
LIST_PLAN_SIZE = list_kernels.PLAN_SIZE

LISTED_SIZE, COUNT = delta_kernels.PLAN_SIZE, delta_kernels.COUNT
BLOCK, CHUNK = delta_kernels.BLOCK, delta_kernels.CHUNK
LISTED_ROOM = BLOCK * CHUNK // 2  # items of the scratch that hold rows of LISTED

# items of a plan
KIND, DIMENSION, DTYPE, WIDTH, PANELS, CODED, SCALES, ERRORS, LENGTHS = 0, 1, 2, 3, 4, 5, 6, 7, 8
LISTED, HEAD_SIZE = 9, 10
FIRST, ROWS, ROWIDS, VERIFIED, OFFSET, PART_SIZE = 0, 1, 2, 3, 4, 5
ROW_FLOATS, ROW_HALVES, ROW_BYTES = 0, 1, 2  # DTYPE
NUMBERS, IDS = 0, 1  # rows of `ints`
SCORES, DISTANCES = 0, 1  # rows of `reals`

BLOCK_SHIFT = 16  # of an extent's blocks under one checksum
STREAM = 4096  # bytes of codes that are asked for ahead
AHEAD = 2  # candidates that are asked for before they are compared
LARGEST = 127.0
OFFSET_BYTE = 128
WIDEN = np.float32(2.0**112)  # from the exponent of float16 to that of float32
SLACK = 1e-12  # relative: what float64 may err in a bound
GROWTH = 1.0 + 1e-6  # of lengths that are rounded up
FLOAT32_MAX = 3.4028234663852886e38
ROUNDING = 2.0**-22  # two steps of float32
TINY = 1e-44

INT_MATRIX = types.int64[:, ::1]
FLOAT_MATRIX = types.float64[:, ::1]
READ_ROWS = types.Array(types.float32, 2, "C", readonly=True)
READ_NUMBERS = types.Array(types.int64, 2, "C", readonly=True)
BYTES = types.uint8[::1]


def room_size(dimension: int, width: int) -> int:
    """float64 items of the scratch that `answer` takes: bounds, products, query, one row, rows."""
    return GROUP + GROUP // 2 + -(-width // 8) + -(-dimension // 2) + LISTED_ROOM


@step
def part_of(plan: Any, number: int) -> int:
    """The part that a row stands in, by its number through all parts."""
    part = (plan.shape[0] - HEAD_SIZE) // PART_SIZE - 1
    while part > 0 and plan[HEAD_SIZE + PART_SIZE * part + FIRST] > number:
        part -= 1
    return part


@step
def row_size(plan: Any) -> int:
    """Bytes of a row."""
    if plan[DTYPE] == ROW_FLOATS:
        return 4 * plan[DIMENSION]
    return 2 * plan[DIMENSION] if plan[DTYPE] == ROW_HALVES else plan[DIMENSION]


@step
def is_verified(plan: Any, part: int, ordinal: int) -> bool:
    """Whether a row may be read (RK1)."""
    at = HEAD_SIZE + PART_SIZE * part
    if plan[at + VERIFIED] == 0:
        return True
    verified, size = bytes_at(plan[at + VERIFIED]), row_size(plan)
    start = plan[at + OFFSET] + ordinal * size
    for block in range(start >> BLOCK_SHIFT, ((start + size - 1) >> BLOCK_SHIFT) + 1):
        if verified[block] == 0:
            return False
    return True


@step
def ask_for(plan: Any, part: int, ordinal: int) -> None:
    """Have a row on its way to the cache."""
    size = row_size(plan)
    rows = bytes_at(plan[HEAD_SIZE + PART_SIZE * part + ROWS] + ordinal * size)
    for at in range(0, size, 64):
        prefetch(rows, at)


@step
def row_at(plan: Any, part: int, ordinal: int, wide: Any) -> Any:
    """A row as float32: in its place, or widened to `wide`."""
    d = plan[DIMENSION]
    address = plan[HEAD_SIZE + PART_SIZE * part + ROWS] + ordinal * row_size(plan)
    if plan[DTYPE] == ROW_FLOATS:
        return carray(floats_at(address), (d,))
    if plan[DTYPE] == ROW_HALVES:
        halves = halves_at(address)
        for i in range(d):
            bits = np.uint32(halves[i])
            value = np.uint32((bits & np.uint32(0x7FFF)) << np.uint32(13)).view(np.float32) * WIDEN
            wide[i] = -value if bits & np.uint32(0x8000) else value
        return wide
    small = small_at(address)
    for i in range(d):
        wide[i] = np.float32(small[i])
    return wide


@step
def place(kind: int, near: float, number: int, rowid: int, count: int, best: Any) -> int:
    """Put a row where it belongs among the `count` best ones; returns how many there are then.

    best   (ints, reals), see `answer`
    """
    ints, reals = best
    k = ints.shape[1]
    if kind == L2:
        distance = np.float32(math.sqrt(-near))
        score = 1.0 / (1.0 + np.float64(distance))
    else:
        shown = np.float32(near)
        score = np.float64(shown)
        distance = np.float32(1.0 if kind == COSINE else 0.0) - shown
    far = np.float64(distance)
    at = count
    while at > 0:
        # equal scores of l2 may have distances that differ: it is ordered by those
        behind = reals[DISTANCES, at - 1] - far if kind == L2 else score - reals[SCORES, at - 1]
        if behind < 0.0 or (not behind > 0.0 and ints[IDS, at - 1] <= rowid):
            break
        at -= 1
    if at == k:
        return count
    count = min(count + 1, k)
    for j in range(count - 1, at, -1):
        ints[NUMBERS, j], ints[IDS, j] = ints[NUMBERS, j - 1], ints[IDS, j - 1]
        reals[SCORES, j], reals[DISTANCES, j] = reals[SCORES, j - 1], reals[DISTANCES, j - 1]
    ints[NUMBERS, at], ints[IDS, at] = number, rowid
    reals[SCORES, at], reals[DISTANCES, at] = score, far
    return count


@step
def widened(plan: Any, room: Any) -> Any:
    """Where a row of another dtype is widened to."""
    address = room.ctypes.data + 12 * GROUP + (plan[WIDTH] + 7) // 8 * 8
    return carray(floats_at(address), (plan[DIMENSION],))


@step
def compare(
    plan: Any, number: int, query: Any, length: float, wide: Any, count: int, best: Any
) -> int:
    """Compare a row in full and place it; returns how many of the best there are then."""
    part = part_of(plan, number)
    at = HEAD_SIZE + PART_SIZE * part
    ordinal = number - plan[at + FIRST]
    near = sure_similarity(plan[KIND], row_at(plan, part, ordinal, wide), query, length)
    return place(plan[KIND], near, number, longs_at(plan[at + ROWIDS])[ordinal], count, best)


@step
def least(kind: int, count: int, reals: Any) -> float:
    """The similarity below which no row comes among the k best, ties and rounding included."""
    k = reals.shape[1]
    if count < k:
        return -np.inf
    if kind == L2:
        far = reals[DISTANCES, k - 1] * (1.0 + ROUNDING) + TINY
        return -far * far
    return shown_as(reals[SCORES, k - 1])


@step
def shown_as(worst: float) -> float:
    """The similarity below which no row is shown as equal to one of similarity `worst`."""
    if worst > FLOAT32_MAX:
        return FLOAT32_MAX
    if worst < -FLOAT32_MAX:
        return -np.inf
    return worst - abs(worst) * ROUNDING - TINY


@step
def margin_of(kind: int, own: float, size: float, error: float) -> float:
    """How far a row's value may lie from its similarity.

    own, size  lengths of the query, 1 under cosine, and of the row
    error      of the product of both
    """
    if kind == L2:
        both = own + size
        return 2.0 * error + SLACK * both * both
    return error + SLACK * own * size


@step
def unread(plan: Any, sources: Any, numbers: Any, ints: Any) -> int:
    """How many candidates are not verified; as many as there is room for stand in `ints`."""
    missing, k = 0, ints.shape[1]
    for s in range(0, sources.shape[0], 2):
        part, lists = sources[s], longs_at(sources[s + 1])
        best, ordinals = ints_at(lists[BEST]), ints_at(lists[ORDINALS])
        first = plan[HEAD_SIZE + PART_SIZE * part + FIRST]
        for i in range(longs_at(lists[COUNTS])[FOUND]):
            ordinal = ordinals[best[i]]
            if missing < k and not is_verified(plan, part, ordinal):
                ints[NUMBERS, missing] = first + ordinal
                missing += 1
    for i in range(numbers.shape[0]):
        part = part_of(plan, numbers[i])
        ordinal = numbers[i] - plan[HEAD_SIZE + PART_SIZE * part + FIRST]
        if missing < k and not is_verified(plan, part, ordinal):
            ints[NUMBERS, missing] = numbers[i]
            missing += 1
    return missing


@step
def code_query(query: Any, width: int, factor: float, small: Any) -> Any:
    """Bytes of query * factor; their scale, the length of the rest, and the sum of the bytes."""
    d = query.shape[0]
    largest = 0.0
    for i in range(d):
        largest = max(largest, abs(np.float64(query[i])))
    scale = largest * factor / LARGEST
    total, rest = np.int64(0), 0.0
    for i in range(d):
        value = np.float64(query[i]) * factor
        byte = np.int64(np.rint(value / scale)) if scale > 0.0 else np.int64(0)
        small[i] = np.int8(byte)
        total += byte
        gap = value - scale * np.float64(byte)
        rest += gap * gap
    for i in range(d, width):
        small[i] = np.int8(0)
    return scale, math.sqrt(rest) * GROWTH, total


if simd.VNNI:

    @step
    def products_in_order(panels: Any, query: Any, width: int, products: Any) -> None:
        """`hrm2.steps.products_of` for one GROUP, its bytes read as they stand.

        For codes that no nearer cache holds any more: one stream, asked for ahead.
        """
        for p in range(GROUP // PANEL):
            a, b = simd.zero_i32(), simd.zero_i32()
            start, g = p * PANEL * width, 0
            while g + 8 <= width:
                at = start + PANEL * g
                prefetch(panels, at + STREAM)
                prefetch(panels, at + STREAM + 64)
                a = simd.dot_u8_i8(a, simd.load_u8(panels, at), simd.splat_4_bytes(query, g))
                b = simd.dot_u8_i8(
                    b, simd.load_u8(panels, at + 64), simd.splat_4_bytes(query, g + 4)
                )
                g += 8
            if g < width:
                at = start + PANEL * g
                a = simd.dot_u8_i8(a, simd.load_u8(panels, at), simd.splat_4_bytes(query, g))
            simd.store_i32(products, PANEL * p, simd.add(a, b))

else:

    @step
    def products_in_order(panels: Any, query: Any, width: int, products: Any) -> None:
        """`hrm2.steps.products_of` for one GROUP."""
        products_of(panels, GROUP, query, width, products)


@step
def scan_codes(
    plan: Any, mask: Any, query: Any, length: float, room: Any, count: int, best: Any
) -> int:
    """Bring rows of part 0 among the best by way of their codes; returns how many there are then.

    length   of the query
    best     (ints, reals), see `answer`
    """
    kind, width, coded, wide = plan[KIND], plan[WIDTH], plan[CODED], widened(plan, room)
    scales, errors = doubles_at(plan[SCALES]), doubles_at(plan[ERRORS])
    lengths, reals = doubles_at(plan[LENGTHS]), best[1]
    products = ints_at(room.ctypes.data + 8 * GROUP)
    small = small_at(room.ctypes.data + 12 * GROUP)
    own = 1.0 if kind == COSINE else length
    factor = 1.0 / length if kind == COSINE and length > 0.0 else 1.0
    scale, rest, total = code_query(query, width, factor, small)
    bias, coded_length = np.float64(OFFSET_BYTE * total), (own + rest) * GROWTH
    rowids = longs_at(plan[HEAD_SIZE + ROWIDS])
    limit = least(kind, count, reals)
    for first in range(0, coded, GROUP):
        products_in_order(bytes_at(plan[PANELS] + first * width), small, width, products)
        some = min(GROUP, coded - first)
        reached = 0
        for i in range(some):
            size = lengths[first + i]
            value = scale * scales[first + i] * (np.float64(products[i]) - bias)
            error = coded_length * errors[first + i] + rest * size
            if kind == L2:
                value = 2.0 * value - own * own - size * size
            room[i] = value + margin_of(kind, own, size, error)
            reached += room[i] >= limit
        if reached == 0:
            continue
        for i in range(some):
            if room[i] >= limit and (mask.shape[0] == 0 or mask[first + i]):
                near = sure_similarity(kind, row_at(plan, 0, first + i, wide), query, length)
                count = place(kind, near, first + i, rowids[first + i], count, best)
                limit = least(kind, count, reals)
    return count


@step
def scan_listed(
    plan: Any, how: Any, query: Any, length: float, room: Any, count: int, best: Any
) -> int:
    """`scan_codes` for a search of lists that has just ended: LISTED says which rows may reach.

    how   the plan of that search, whose scratch knows the query; and the mask
    """
    lists, mask = how
    kind, wide, reals = plan[KIND], widened(plan, room), best[1]
    coded = carray(longs_at(plan[LISTED]), (LISTED_SIZE,))
    rowids = longs_at(plan[HEAD_SIZE + ROWIDS])
    found = ints_at(room.ctypes.data + 8 * (room.shape[0] - LISTED_ROOM))
    terms = terms_for(coded, lists)
    for first in range(0, (coded[COUNT] + BLOCK - 1) // BLOCK, CHUNK):
        worst = farthest(kind, least(kind, count, reals))
        for i in range(reaching(coded, lists, terms, first, (worst, mask), found)):
            number = np.int64(found[i])
            near = sure_similarity(kind, row_at(plan, 0, number, wide), query, length)
            count = place(kind, near, number, rowids[number], count, best)
    return count


@step
def farthest(kind: int, limit: float) -> Any:
    """A similarity as the distance that lists have it for."""
    if kind == L2:
        return np.float32(-limit)
    return np.float32(2.0 * (1.0 - limit) if kind == COSINE else -2.0 * limit)


@kernel(
    INT, READ_INTS, READ_INTS, READ_INTS, READ_MASK, READ_VECTOR, FLOATS, INT_MATRIX,
    fastmath=False,
)  # fmt: skip
def answer(
    plan: Ints, sources: Ints, numbers: Ints, mask: Mask, query: Vector, room: Floats, out: Ints
) -> int:
    """The k best of all candidates and of the coded rows, by (key descending, rowid ascending).

    sources   pairs of a part and the address of the plan of a search of its lists, whose BEST rows
              are candidates
    numbers   further candidates; no row comes twice
    mask      uint8 of the coded rows, 1 = may be found; an empty one lets every row be found
    room      scratch, see `room_size`
    out       int64 [4, k]: `ints`, the rows NUMBERS and IDS, and float64 in the others: `reals`,
              the rows SCORES and DISTANCES; filled by insertion, so that k is to be small

    Returns how many rows there are, or minus the number of those that must be verified first:
    their numbers stand in NUMBERS (RK1).
    Twin      rescore.rank
    """
    missing = unread(plan, sources, numbers, out)
    if missing > 0:
        return -missing
    k, kind, wide = out.shape[1], plan[KIND], widened(plan, room)
    best = (out[:2], carray(doubles_at(out.ctypes.data + 16 * k), (2, k)))
    length = math.sqrt(pairwise(IP, query, query, 0, plan[DIMENSION]))
    count = 0
    for s in range(0, sources.shape[0], 2):
        part, lists = sources[s], longs_at(sources[s + 1])
        found, ordinals = ints_at(lists[BEST]), ints_at(lists[ORDINALS])
        first = plan[HEAD_SIZE + PART_SIZE * part + FIRST]
        rowids = longs_at(plan[HEAD_SIZE + PART_SIZE * part + ROWIDS])
        size, asked = longs_at(lists[COUNTS])[FOUND], 0
        for i in range(size):
            while asked < min(i + AHEAD + 1, size):
                ordinal = np.int64(ordinals[found[asked]])
                ask_for(plan, part, ordinal)
                prefetch(bytes_at(plan[HEAD_SIZE + PART_SIZE * part + ROWIDS]), 8 * ordinal)
                asked += 1
            ordinal = np.int64(ordinals[found[i]])
            near = sure_similarity(kind, row_at(plan, part, ordinal, wide), query, length)
            count = place(kind, near, first + ordinal, rowids[ordinal], count, best)
    for i in range(numbers.shape[0]):
        count = compare(plan, numbers[i], query, length, wide, count, best)
    if plan[CODED] > 0:
        if plan[LISTED] != 0 and sources.shape[0] > 0:
            lists = carray(longs_at(sources[sources.shape[0] - 1]), (LIST_PLAN_SIZE,))
            count = scan_listed(plan, (lists, mask), query, length, room, count, best)
        else:
            count = scan_codes(plan, mask, query, length, room, count, best)
    return count


@kernel(INT, READ_INTS, READ_NUMBERS, INTS, fastmath=False)
def unread_many(plan: Ints, numbers: Ints, missing: Ints) -> int:
    """How many of the candidates of a batch are not verified, as far as `missing` can name them."""
    count = 0
    for q in range(numbers.shape[0]):
        for i in range(numbers.shape[1]):
            number = numbers[q, i]
            if number < 0 or count == missing.shape[0]:
                continue
            part = part_of(plan, number)
            ordinal = number - plan[HEAD_SIZE + PART_SIZE * part + FIRST]
            if not is_verified(plan, part, ordinal):
                missing[count] = number
                count += 1
    return count


@step
def compare_all(plan: Any, numbers: Any, query: Any, length: float, wide: Any, best: Any) -> int:
    """Place the candidates of one query of a batch, -1 for none; returns how many are placed."""
    count, asked = 0, 0
    for i in range(numbers.shape[0]):
        while asked < min(i + AHEAD + 1, numbers.shape[0]):
            number = numbers[asked]
            if number >= 0:
                part = part_of(plan, number)
                ask_for(plan, part, number - plan[HEAD_SIZE + PART_SIZE * part + FIRST])
            asked += 1
        if numbers[i] >= 0:
            count = compare(plan, numbers[i], query, length, wide, count, best)
    return count


@kernel(
    types.void, READ_INTS, READ_NUMBERS, READ_MASK, READ_ROWS, FLOATS, types.int64[:, :, ::1],
    types.float64[:, :, ::1], fastmath=False,
)  # fmt: skip
def answer_many(
    plan: Ints, numbers: Ints, mask: Mask, queries: Vector, room: Floats, ints: Ints, reals: Floats
) -> None:
    """`answer` for many queries, whose candidates are verified.

    numbers   int64 [m, any]: candidates of each query, -1 for none
    queries   float32 [m, DIMENSION]
    ints      int64 [m, 2, k]; of rows that are not there nothing is written
    reals     float64 [m, 2, k]
    """
    wide = widened(plan, room)
    for q in range(queries.shape[0]):
        query, best = queries[q], (ints[q], reals[q])
        length = math.sqrt(pairwise(IP, query, query, 0, plan[DIMENSION]))
        count = compare_all(plan, numbers[q], query, length, wide, best)
        if plan[CODED] > 0:
            scan_codes(plan, mask, query, length, room, count, best)


@kernel(types.void, READ_VECTOR, types.float32[::1], fastmath=False)
def unit(query: Vector, out: Vector) -> None:
    """out = query over its length, in float64 and rounded once.

    Twin    index.hrm2.searched_query
    """
    length = math.sqrt(pairwise(IP, query, query, 0, query.shape[0]))
    for i in range(query.shape[0]):
        out[i] = np.float32(np.float64(query[i]) / length)


@kernel(types.void, READ_ROWS, types.float32[:, ::1], fastmath=False)
def units(queries: Vector, out: Vector) -> None:
    """`unit` for many queries."""
    for q in range(queries.shape[0]):
        unit(queries[q], out[q])


@kernel(types.void, INT, READ_ROWS, INT, INT, BYTES, FLOAT_MATRIX, fastmath=False)
def encode(kind: int, rows: Floats, start: int, width: int, panels: Mask, factors: Floats) -> None:
    """Code rows whose numbers are start, start + 1, ...; see the module's header.

    panels    uint8 [capacity * width], capacity a multiple of GROUP
    factors   float64 [3, capacity]: scales, lengths of the rests, lengths
    Twin      ranking.encoded
    """
    d = rows.shape[1]
    for r in range(rows.shape[0]):
        row, number = rows[r], start + r
        length = math.sqrt(pairwise(IP, row, row, 0, d))
        factor = 1.0
        if kind == COSINE:
            factor = 1.0 / length if length > 0.0 else 0.0
        largest = 0.0
        for i in range(d):
            largest = max(largest, abs(np.float64(row[i])))
        scale = largest * factor / LARGEST
        base = number // PANEL * PANEL * width + 4 * (number % PANEL)
        rest = 0.0
        for i in range(width):
            byte = np.int64(0)
            if i < d and scale > 0.0:
                value = np.float64(row[i]) * factor
                byte = np.int64(np.rint(value / scale))
                gap = value - scale * np.float64(byte)
                rest += gap * gap
            panels[base + i // 4 * 4 * PANEL + i % 4] = np.uint8(byte + OFFSET_BYTE)
        factors[0, number] = scale
        factors[1, number] = math.sqrt(rest) * GROWTH
        factors[2, number] = 1.0 if kind == COSINE else length
