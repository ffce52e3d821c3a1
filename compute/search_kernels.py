"""A whole search in one compiled call: from a query as the program has it to ids and scores.

    the end of the log is as it was? --> query --search of lists--> candidates --similarity-->
    --> the best --> and is it still? --> ids, scores

What it finds is what `hrm2.kernels.search` and `ranking_kernels.answer` find one after the other,
to the bit: it is made of their steps. Whatever is not plain (a query that must be refused, rows
that are to be verified first, lists that did not hold enough) it leaves to them: it returns why.

A *call* is an int64 array of addresses and sizes; who makes one (`index.compiled`) keeps alive what
it points to:

    STATE      words of shared memory that change with every commit, ...
    EXPECTED   ... what they have to be, ...
    WORDS      ... and how many there are; 0: nothing ever changes
    RANKED     a plan of `ranking_kernels`, of RANKED_SIZE items
    ROOM       float64, scratch, ROOM_SIZE items, see `ranking_kernels.room_size`
    OUT        int64 [4, K], scratch: as `ranking_kernels.answer` fills it
    NUMBERS    int64, scratch: all candidates, by number
    MASK       uint8 of the coded rows, 1 = may be found; MASK_SIZE 0: every row
    PROBES     how many lists are searched
    GATHERED   how many times rows are found by codes that stand side by side

and then for each list

    LISTS      a plan of `hrm2.kernels`
    PART       which part they belong to
    ROWS_MASK  uint8 by ordinal, 1 = may be found; ROWS_MASK_SIZE 0: every row
    LEAST      candidates, fewer than which are too few
    BUDGET     lists, after which the search is to be a scan
    K_WANTED, LEAST_LISTS, PATIENCE, MOST_LISTS, LISTS_AHEAD, WAITS    limits of
               `hrm2.kernels.search`
    REALS      float32 [2]: its factor and epsilon

and for each set of gathered rows

    CODES      a plan of `gathered_kernels`
    CODES_ROOM scratch of `gathered_kernels.reach`
    MOST       candidates that there is room for
    FROM       number of the first row of its part

Invariants
    K1  As in `numba_kernels`; these kernels call those and steps of `hrm2` and `ranking_kernels`.
    SK1 Between two looks at STATE that find what is expected, nothing that was read of a mapped
        extent was overwritten (WA1). Until the second look it may be: it gives no address (K7).
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-call, no-any-return, attr-defined"

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import carray, types

from m2mdb.compute import gathered_kernels
from m2mdb.compute.gathered_kernels import reach
from m2mdb.compute.hrm2 import kernels as list_kernels
from m2mdb.compute.hrm2 import simd as simd_module
from m2mdb.compute.hrm2.kernels import begin, probe
from m2mdb.compute.hrm2.steps import prepare, rotate
from m2mdb.compute.numba_kernels import (
    COSINE,
    FLOATS,
    INT,
    INTS,
    IP,
    READ_INTS,
    READ_MASK,
    READ_VECTOR,
    kernel,
    pairwise,
)
from m2mdb.compute.pointers import bytes_at, doubles_at, floats_at, ints_at, longs_at, small_at
from m2mdb.compute.ranking_kernels import (
    CODED,
    DIMENSION,
    FIRST,
    HEAD_SIZE,
    KIND,
    LISTED,
    PART_SIZE,
    READ_NUMBERS,
    READ_ROWS,
    ROWIDS,
    ROWS,
    ask_for,
    compare,
    compare_all,
    is_verified,
    part_of,
    row_size,
    scan_codes,
    scan_listed,
    step,
    widened,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vector = NDArray[np.float32]
    Ints = NDArray[np.int64]
    Mask = NDArray[np.uint8]
    Floats = NDArray[np.float64]

simd: Any = simd_module
prefetch, fence = simd.prefetch, simd.fence
BEST, COUNTS, FOUND, PROBED = (
    list_kernels.BEST, list_kernels.COUNTS, list_kernels.FOUND, list_kernels.PROBED,
)  # fmt: skip
ORDINALS, ROTATED, WIDTH = list_kernels.ORDINALS, list_kernels.ROTATED, list_kernels.WIDTH
FLIPS, TURNED, TURNS = list_kernels.FLIPS, list_kernels.TURNED, list_kernels.TURNS
SMALL, TABLE, NUMBERS_AT = list_kernels.SMALL, list_kernels.TABLE, list_kernels.NUMBERS
LIST_PLAN_SIZE, GATHERED_PLAN_SIZE = list_kernels.PLAN_SIZE, gathered_kernels.PLAN_SIZE

# items of a call
STATE, EXPECTED, WORDS, RANKED, RANKED_SIZE, ROOM, ROOM_SIZE = 0, 1, 2, 3, 4, 5, 6
OUT, K, NUMBERS, MASK, MASK_SIZE, PROBES, GATHERED, CALL_SIZE = 7, 8, 9, 10, 11, 12, 13, 14
# and for each probe
LISTS, PART, ROWS_MASK, ROWS_MASK_SIZE, LEAST, BUDGET = 0, 1, 2, 3, 4, 5
K_WANTED, LEAST_LISTS, PATIENCE, MOST_LISTS, LISTS_AHEAD, WAITS = 6, 7, 8, 9, 10, 11
REALS, PROBE_SIZE = 12, 13
# and for each set of gathered rows
CODES, CODES_ROOM, MOST, FROM, GATHERED_SIZE = 0, 1, 2, 3, 4
# why a search is to be made by steps
CHANGED, UNFIT, TOO_FEW, UNVERIFIED = -1, -2, -3, -4

AHEAD = 4  # candidates that are asked for before they are compared
SMALLEST_SQUARE, LARGEST_SQUARE = 1e-29, 1e35  # of a cosine's query; others are looked at twice
LONGEST_SQUARE = 0.99e23  # of another one: beyond, lists are not searched (EASILY_SEARCHED)


@step
def is_as_expected(call: Any) -> bool:
    """Whether no commit came."""
    state, expected = longs_at(call[STATE]), longs_at(call[EXPECTED])
    differ = np.int64(0)
    for i in range(call[WORDS]):
        differ |= state[i] ^ expected[i]
    return differ == 0


@step
def hand_over(query: Any, length: float, kind: int, lists: Any) -> None:
    """The query as lists are searched for it; `ranking_kernels.unit` to the bit."""
    rotated, d = floats_at(lists[ROTATED]), query.shape[0]
    if kind == COSINE:
        for i in range(d):
            rotated[i] = np.float32(np.float64(query[i]) / length)
    else:
        for i in range(d):
            rotated[i] = query[i]
    for i in range(d, lists[WIDTH]):
        rotated[i] = np.float32(0.0)


@step
def candidates(call: Any, ranked: Any, query: Any, length: float) -> int:
    """Search lists and codes; fills NUMBERS and returns how many there are, or why there are none.

    length  of the query
    """
    numbers, size = longs_at(call[NUMBERS]), 0
    for each in range(call[PROBES]):
        at = CALL_SIZE + PROBE_SIZE * each
        lists = carray(longs_at(call[at + LISTS]), (LIST_PLAN_SIZE,))
        mask = carray(bytes_at(call[at + ROWS_MASK]), (call[at + ROWS_MASK_SIZE],))
        reals = floats_at(call[at + REALS])
        limits = (
            call[at + K_WANTED], call[at + LEAST_LISTS], call[at + PATIENCE], call[at + MOST_LISTS],
            call[at + LISTS_AHEAD], call[at + WAITS],
        )  # fmt: skip
        hand_over(query, length, ranked[KIND], lists)
        begin(lists)
        probe(lists, mask, limits, reals[0], reals[1])
        counts = longs_at(lists[COUNTS])
        if counts[FOUND] < call[at + LEAST] or counts[PROBED] >= call[at + BUDGET]:
            return TOO_FEW
        best, ordinals = ints_at(lists[BEST]), ints_at(lists[ORDINALS])
        first = ranked[HEAD_SIZE + PART_SIZE * call[at + PART] + FIRST]
        for i in range(counts[FOUND]):
            numbers[size] = first + ordinals[best[i]]
            size += 1
    for each in range(call[GATHERED]):
        at = CALL_SIZE + PROBE_SIZE * call[PROBES] + GATHERED_SIZE * each
        plan = carray(longs_at(call[at + CODES]), (GATHERED_PLAN_SIZE,))
        out = longs_at(call[NUMBERS] + 8 * size), call[at + MOST]
        found = reach(plan, query, length, call[K], call[at + CODES_ROOM], out)
        if found < 0:
            return TOO_FEW
        for i in range(size, size + found):
            numbers[i] += call[at + FROM]
        size += found
    return size


@step
def ask_for_start(ranked: Any, number: int) -> None:
    """Have the first bytes of a row, and its rowid, on their way to the cache.

    Asked of all rows before the first is read, they have pages found and memory at work by then:
    64 rows of 640 float32 at random places take 8 us that way, and 14 without.
    """
    part = part_of(ranked, number)
    at = HEAD_SIZE + PART_SIZE * part
    ordinal = number - ranked[at + FIRST]
    prefetch(bytes_at(ranked[at + ROWS]), ordinal * row_size(ranked))
    prefetch(bytes_at(ranked[at + ROWIDS]), 8 * ordinal)


@step
def ask_for_row(ranked: Any, number: int) -> None:
    """Have a row on its way to the cache."""
    part = part_of(ranked, number)
    ask_for(ranked, part, number - ranked[HEAD_SIZE + PART_SIZE * part + FIRST])


@kernel(INT, READ_INTS, READ_VECTOR, INTS, FLOATS, fastmath=False)
def search_whole(call: Ints, query: Vector, ids: Ints, scores: Floats) -> int:
    """The best rows for a query; how many there are, or why it is to be searched for by steps.

    ids, scores   of K items; what stands in OUT then says more
    """
    ranked = carray(longs_at(call[RANKED]), (call[RANKED_SIZE],))
    kind, k = ranked[KIND], call[K]
    if query.shape[0] != ranked[DIMENSION]:
        return UNFIT
    square = pairwise(IP, query, query, 0, ranked[DIMENSION])
    if not (SMALLEST_SQUARE < square < LARGEST_SQUARE):
        return UNFIT
    if kind != COSINE and not square < LONGEST_SQUARE:
        return UNFIT
    if not is_as_expected(call):
        return CHANGED
    fence()
    length = math.sqrt(square)
    size = candidates(call, ranked, query, length)
    fence()
    if not is_as_expected(call):  # what the numbers say is true (SK1)
        return CHANGED
    if size < 0:
        return size
    numbers = longs_at(call[NUMBERS])
    for i in range(size):
        part = part_of(ranked, numbers[i])
        first = ranked[HEAD_SIZE + PART_SIZE * part + FIRST]
        if not is_verified(ranked, part, numbers[i] - first):
            return UNVERIFIED
    room = carray(doubles_at(call[ROOM]), (call[ROOM_SIZE],))
    ints = carray(longs_at(call[OUT]), (2, k))
    reals = carray(doubles_at(call[OUT] + 16 * k), (2, k))
    wide = widened(ranked, room)
    count = 0
    for i in range(size):
        ask_for_start(ranked, numbers[i])
    for i in range(min(size, AHEAD)):
        ask_for_row(ranked, numbers[i])
    for i in range(size):
        if i + AHEAD < size:
            ask_for_row(ranked, numbers[i + AHEAD])
        count = compare(ranked, numbers[i], query, length, wide, count, (ints, reals))
    if ranked[CODED] > 0:
        mask = carray(bytes_at(call[MASK]), (call[MASK_SIZE],))
        if ranked[LISTED] != 0 and call[PROBES] > 0:
            at = CALL_SIZE + PROBE_SIZE * (call[PROBES] - 1)
            lists = carray(longs_at(call[at + LISTS]), (LIST_PLAN_SIZE,))
            best = (ints, reals)
            count = scan_listed(ranked, (lists, mask), query, length, room, count, best)
        else:
            count = scan_codes(ranked, mask, query, length, room, count, (ints, reals))
    for i in range(count):
        ids[i], scores[i] = ints[1, i], reals[0, i]
    fence()
    return count if is_as_expected(call) else CHANGED


@kernel(
    types.void, READ_INTS, INT, READ_NUMBERS, READ_MASK, READ_ROWS, FLOATS,
    types.Tuple((types.int64[:, :, ::1], types.float64[:, :, ::1])), fastmath=False,
)  # fmt: skip
def answer_many_listed(
    plan: Ints, lists_at: int, numbers: Ints, mask: Mask, queries: Vector, room: Floats,
    out: tuple[Ints, Floats],
) -> None:  # fmt: skip
    """`ranking_kernels.answer_many` beside lists: rows of part 0 are found by LISTED.

    out       its ints and reals
    lists_at  address of a plan of `hrm2.kernels` whose scratch nobody else uses; its lists were
              coded with the signs of LISTED (DK1)
    """
    wide, kind, (ints, reals) = widened(plan, room), plan[KIND], out
    lists = carray(longs_at(lists_at), (LIST_PLAN_SIZE,))
    width, rotated = lists[WIDTH], floats_at(lists[ROTATED])
    for q in range(queries.shape[0]):
        query, best = queries[q], (ints[q], reals[q])
        square = pairwise(IP, query, query, 0, plan[DIMENSION])
        length = math.sqrt(square)
        count = compare_all(plan, numbers[q], query, length, wide, best)
        if kind != COSINE and not square < LONGEST_SQUARE:
            scan_codes(plan, mask, query, length, room, count, best)
            continue
        hand_over(query, length, kind, lists)
        turned = floats_at(lists[TURNED])
        rotate(rotated, floats_at(lists[FLIPS]), lists[TURNS], width, turned)
        table = bytes_at(lists[TABLE])
        prepare(rotated, width, small_at(lists[SMALL]), table, floats_at(lists[NUMBERS_AT]))
        scan_listed(plan, (lists, mask), query, length, room, count, best)
