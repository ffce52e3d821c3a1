"""Compiled search of lists: one call from queries to their best rows, without the GIL.

    query --rotate--> table of the fast scan, bytes
          --route---> supers by distance; lists of the near ones by their 1-bit codes, and wave by
                      wave the best of these by distance
          --probe---> list after list: 1-bit codes, bounds; then 8-bit codes of rows that may enter

A kernel takes a *plan*: an int64 array of addresses and sizes, as unboxing 24 arrays would take
longer than routing. Who makes one (Searcher) keeps the arrays alive. It holds the arrays of
lists.Lists and routes.Routes, and scratch of one thread:

    ROTATED    float32[width]      the query, padded; rotated by the search
    SMALL      int8[width]         the same as bytes: value ~ byte * numbers[QUERY_SCALE]
    TABLE      uint8[4 * width]    sums of four signed coordinates, of 16 sign patterns a group
    TURNED     float32[width]      for the rotation
    SUPER_KEYS float32[supers]     distances of supers
    SUPER_ORDER  int32[supers]     supers, nearest first
    ESTIMATES  float32[32 * blocks of routes]  of D of each list, by its 1-bit code; infinite where
                                   the list is in order already ...
    OPENED     int32[blocks of routes]   ... and the blocks that have the codes
    WAVE_LISTS int32[lists]        lists that are brought in order together ...
    WAVE_KEYS  float32[lists]      ... by these
    DISTANCES  float32[lists]      D of lists.py, once a list is in order
    BUCKET     int32[BUCKETS + 1]  for the order of lists
    ORDER      int32[lists]        lists, nearest first, wave by wave
    BOUNDS     float32[32]         of a block; then of rows that are compared together:
               float32[TOGETHER]   their distances ...
               int32[TOGETHER]     ... and positions
    PENDING    int32[longest list] positions of rows whose bound lets them in ...
    PENDING_BOUNDS  float32        ... and the bounds
    BEST       int32[WANTED]       positions, nearest first
    NEARNESS   float32[WANTED]     their distances by 8-bit codes
    NUMBERS    float32[16]         see steps.py; from HARDNESS on it is the caller's
    COUNTS     int64[8]            see below
    LOG        int32[LOG_SIZE, 3]  of each row that came among the best: its position, the place of
                                   the list in the order, and its own place
    PLAIN      float32[width]      the query as it came, where rows are compared in place
    MIDDLE     float32[width]      of lists.Lists; zeros where these have none
    LIVE       uint32[blocks]      which codes are of rows that are there (`living`); 0: all are

Invariants
    K3  Each kernel has one explicit signature.
    K4  Equal distances keep the order of probing, which depends on file and query alone.
    K5  A search is a prefix of every longer one: what it did in its first lists does not depend on
        when it stops. (Calibration rests on this.) One whose number of lists is given (least =
        most) brings fewer lists in order: it is a prefix of those only that ask for as much.
    K6  A search that ends before `most` lists has found k rows at least.
    K7  Nothing outside of its arrays is read or written, even if codes, factors, centroids,
        positions, ordinals or 8-bit codes are overwritten meanwhile (WA2): places are compared with
        their bounds, and what places are worked out from (STARTS, scales and squares of centroids,
        routes) is memory of the Searcher's own.
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-call, no-any-return, return-value"

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit, types

from m2mdb.compute.hrm2 import simd as simd_module
from m2mdb.compute.hrm2.reference import (
    FEW_AHEAD,
    FEW_OPEN,
    LEAST_OPEN,
    LEAST_WAVE,
    MANY,
    OPEN_SHARE,
    SPREAD_SHARE,
    TOGETHER,
    WAVE,
)
from m2mdb.compute.hrm2.steps import (
    FAST,
    NEAR,
    QUERY_SQUARE,
    TABLE_LOW,
    TABLE_SCALE,
    bucket_order,
    by_bytes,
    count_below,
    cut,
    finite_range,
    insert,
    patience_for,
    prepare,
    rotate,
    scan_block,
    step,
)
from m2mdb.compute.loader import kernel_cache
from m2mdb.compute.pointers import (
    bytes_at,
    floats_at,
    halves_at,
    ints_at,
    longs_at,
    small_at,
)

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS_AHEAD = 32  # pending rows that are asked for before they are compared
simd: Any = simd_module
prefetch, bits_below, lowest_bit = simd.prefetch, simd.bits_below, simd.lowest_bit

# items of a plan: addresses of what is searched, see lists.Lists ...
CENTERS, CENTER_SCALES, CENTER_SQUARES, STARTS, CODES = 0, 1, 2, 3, 4
FACTORS, POSITIONS, BYTES8, SCALES, SQUARES = 5, 6, 7, 8, 9
ORDINALS = 10
# ... of routes.Routes and the rotation ...
SUPERS, SUPER_SCALES, SUPER_SQUARES, ROUTE_STARTS, ROUTE_CODES = 11, 12, 13, 14, 15
ROUTE_FACTORS, ROUTE_LISTS, SPREADS, FLIPS = 16, 17, 18, 19
# ... and of scratch
ROTATED, SMALL, TABLE, TURNED, SUPER_KEYS = 20, 21, 22, 23, 24
SUPER_ORDER, ESTIMATES, OPENED, WAVE_LISTS, WAVE_KEYS = 25, 26, 27, 28, 29
DISTANCES, BUCKET, ORDER, BOUNDS, PENDING = 30, 31, 32, 33, 34
PENDING_BOUNDS, BEST, NEARNESS, NUMBERS, COUNTS, LOG, PLAIN = 35, 36, 37, 38, 39, 40, 41
MIDDLE = 42
# sizes
LISTS, SUPER_COUNT, WIDTH, TURNS = 43, 44, 45, 46
KIND, WANTED, LOG_SIZE, ROWS = 47, 48, 49, 50
# vectors that are compared in the place of 8-bit codes: of which type, where, how many
IN_PLACE, VECTORS, HELD, DIMENSIONS, LIVE, PLAN_SIZE = 51, 52, 53, 54, 55, 56
BYTES_IN_LISTS, HALVES, SMALL_INTS = 0, 1, 2
# counts: what the search did
FOUND, PROBED, SCANNED, RERANKED, LOGGED = 0, 1, 2, 3, 4
OPEN_SUPERS, OPEN_BLOCKS = 5, 6  # and how much of the routes it has read

LOW_BITS, SIGN_BIT = np.uint32(0x7FFF), np.uint32(0x8000)  # of a float16
THIRTEEN, SIXTEEN = np.uint32(13), np.uint32(16)
WIDEN = np.float32(2.0**112)  # from the exponent of float16 to that of float32

INT, FLOAT = types.int64, types.float32
PLAN = types.Array(types.int64, 1, "C", readonly=True)
MASK = types.Array(types.uint8, 1, "C", readonly=True)
READ_FLOAT_ROWS = types.Array(types.float32, 2, "C", readonly=True)
LIMITS = types.UniTuple(INT, 6)


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


@step
def begin(plan: Any) -> None:
    """Rotate and prepare the query, and bring the supers in order."""
    width, supers = plan[WIDTH], plan[SUPER_COUNT]
    rotated, small = floats_at(plan[ROTATED]), small_at(plan[SMALL])
    numbers, counts = floats_at(plan[NUMBERS]), longs_at(plan[COUNTS])
    if plan[IN_PLACE] != BYTES_IN_LISTS:
        plain = floats_at(plan[PLAIN])
        for i in range(plan[DIMENSIONS]):
            plain[i] = rotated[i]
    rotate(rotated, floats_at(plan[FLIPS]), plan[TURNS], width, floats_at(plan[TURNED]))
    middle = floats_at(plan[MIDDLE])
    for i in range(width):
        rotated[i] -= middle[i]
    prepare(rotated, width, small, bytes_at(plan[TABLE]), numbers)
    codes, scales = bytes_at(plan[SUPERS]), floats_at(plan[SUPER_SCALES])
    squares, keys = floats_at(plan[SUPER_SQUARES]), floats_at(plan[SUPER_KEYS])
    every, order = ints_at(plan[WAVE_LISTS]), ints_at(plan[SUPER_ORDER])
    for each in range(supers):
        keys[each] = by_bytes(codes, scales, squares, each, small, width, numbers, plan[KIND])
        every[each] = each
    bucket_order(keys, every, supers, 0, order, ints_at(plan[BUCKET]))
    counts[OPEN_SUPERS] = counts[OPEN_BLOCKS] = 0


@step
def terms_of(plan: Any) -> Any:
    """What turns a sum of the table into <b, q>: its slope, and its level."""
    numbers = floats_at(plan[NUMBERS])
    root = np.float32(1.0) / np.float32(np.sqrt(np.float64(plan[WIDTH])))
    return numbers[TABLE_SCALE] * root, numbers[TABLE_LOW] * root


@step
def open_supers(plan: Any, wanted: int) -> None:
    """Estimate the distances of the lists of more supers, until so many are open.

    The blocks of their routes stand in OPENED in this order, and estimates beside them.
    """
    width, counts, order = plan[WIDTH], longs_at(plan[COUNTS]), ints_at(plan[SUPER_ORDER])
    starts, keys = longs_at(plan[ROUTE_STARTS]), floats_at(plan[SUPER_KEYS])
    codes, factors = bytes_at(plan[ROUTE_CODES]), floats_at(plan[ROUTE_FACTORS])
    table, opened = bytes_at(plan[TABLE]), ints_at(plan[OPENED])
    slope, level = terms_of(plan)
    limit, nothing = np.float32(np.inf), np.float32(0.0)
    at = counts[OPEN_BLOCKS]
    for turn in range(counts[OPEN_SUPERS], wanted):
        each = order[turn]
        later = order[min(turn + 1, wanted - 1)]
        skip = starts[later] - starts[each]
        terms = (keys[each], slope, level, nothing)
        for block in range(starts[each], starts[each + 1]):
            estimates = floats_at(plan[ESTIMATES] + 128 * at)
            scan_block(codes, block, block + skip, table, width, factors, terms, limit, estimates)
            opened[at] = block
            at += 1
    counts[OPEN_SUPERS], counts[OPEN_BLOCKS] = wanted, at


@step
def next_wave(plan: Any, ready: int, most: int) -> int:
    """Bring more lists in order, behind the `ready` first ones; how many are in order then.

    Those with the smallest estimates, at least half as many again: their distances by 8-bit
    codes, and how widely their rows are spread, give the order among them. The first wave is of
    the supers that are near, later ones of all.

    most  lists that will be probed, if that is known: few of them need less
    """
    counts, supers = longs_at(plan[COUNTS]), plan[SUPER_COUNT]
    soon = FEW_AHEAD * most
    near = min(max(LEAST_OPEN, supers // OPEN_SHARE), max(FEW_OPEN, soon))
    wanted = supers if ready else min(supers, near)
    if wanted > counts[OPEN_SUPERS]:
        open_supers(plan, wanted)
    estimates, slots = floats_at(plan[ESTIMATES]), 32 * counts[OPEN_BLOCKS]
    low, high = finite_range(estimates, slots)
    left = count_below(estimates, slots, np.float32(np.inf))
    limit = np.float32(np.inf)
    wave_size = min(WAVE, max(LEAST_WAVE, soon))
    wanted = max(wave_size, ready >> 1)
    if wanted + wave_size < left:
        limit = cut(estimates, slots, wanted, low, high)
    count = take_below(plan, limit)
    keys, wave = floats_at(plan[WAVE_KEYS]), ints_at(plan[WAVE_LISTS])
    distances, spreads = floats_at(plan[DISTANCES]), floats_at(plan[SPREADS])
    for i in range(count):
        each = wave[i]
        distance = by_bytes(
            bytes_at(plan[CENTERS]), floats_at(plan[CENTER_SCALES]),
            floats_at(plan[CENTER_SQUARES]), each, small_at(plan[SMALL]), plan[WIDTH],
            floats_at(plan[NUMBERS]), plan[KIND],
        )  # fmt: skip
        distances[each] = distance
        if plan[KIND] == NEAR:
            distance += np.float32(SPREAD_SHARE) * spreads[each]
        keys[i] = distance
    bucket_order(keys, wave, count, ready, ints_at(plan[ORDER]), ints_at(plan[BUCKET]))
    return ready + count


@step
def take_below(plan: Any, limit: Any) -> int:
    """Fill WAVE_LISTS with the lists whose estimates are below a limit, and ask for them.

    Their estimates become infinite: no later wave takes them again.
    """
    estimates, opened = floats_at(plan[ESTIMATES]), ints_at(plan[OPENED])
    numbers, wave = ints_at(plan[ROUTE_LISTS]), ints_at(plan[WAVE_LISTS])
    centers, width = bytes_at(plan[CENTERS]), plan[WIDTH]
    count = 0
    for at in range(longs_at(plan[COUNTS])[OPEN_BLOCKS]):
        bits = bits_below(estimates, 32 * at, limit)
        while bits:
            slot = lowest_bit(bits)
            bits &= bits - 1
            each = numbers[32 * opened[at] + slot]
            wave[count] = each
            count += 1
            estimates[32 * at + slot] = np.float32(np.inf)
            for line in range(0, width, 64):
                prefetch(centers, each * width + line)
    return count


@step
def scan_list(plan: Any, mask: Any, each: int, later: int, epsilon: Any, worst: Any) -> int:
    """Fill `pending` with the rows of a list whose bound is below `worst`; their number.

    The list `later` is asked for meanwhile: it is the next one, or the same where there is none.
    """
    width = plan[WIDTH]
    numbers, bounds = floats_at(plan[NUMBERS]), floats_at(plan[BOUNDS])
    codes, table, factors = bytes_at(plan[CODES]), bytes_at(plan[TABLE]), floats_at(plan[FACTORS])
    positions, ordinals = ints_at(plan[POSITIONS]), ints_at(plan[ORDINALS])
    pending, pending_bounds = ints_at(plan[PENDING]), floats_at(plan[PENDING_BOUNDS])
    starts = longs_at(plan[STARTS])
    base = floats_at(plan[DISTANCES])[each]
    reach = base if plan[KIND] == NEAR else numbers[QUERY_SQUARE]
    spread = epsilon * np.float32(np.sqrt(max(reach, np.float32(0.0))))
    slope, level = terms_of(plan)
    terms = (base, slope, level, spread)
    every = mask.shape[0] == 0
    whole, live = plan[LIVE] == 0, ints_at(plan[LIVE])
    few = worst < np.float32(np.inf)
    count = 0
    ahead, last = starts[later], starts[later + 1]
    for block in range(starts[each], starts[each + 1]):
        asked = min(ahead, last - 1) if later != each else block
        ahead += 1
        bits = scan_block(codes, block, asked, table, width, factors, terms, worst, bounds)
        ask_for_positions(plan, asked)
        bits &= np.int64(-1) if whole else np.int64(live[block])  # bits are 32, whatever its sign
        while bits:
            slot = lowest_bit(bits)
            bits &= bits - 1
            position = positions[32 * block + slot]
            if position < 0 or position >= plan[ROWS]:  # K7
                continue
            if not every:
                ordinal = ordinals[position]
                if ordinal < 0 or ordinal >= mask.shape[0] or not mask[ordinal]:
                    continue
            pending[count] = position
            pending_bounds[count] = bounds[slot]
            count += 1
            if few:
                ask_for(plan, position)
    if later != each:
        for block in range(ahead, last):  # it is longer than this one
            ask_for_block(plan, block)
    return count


@step
def ask_for_block(plan: Any, block: int) -> None:
    """Have a block of codes on its way to the cache, with what belongs to it."""
    size, codes, factors = 4 * plan[WIDTH], bytes_at(plan[CODES]), bytes_at(plan[FACTORS])
    for line in range(block * size, block * size + size, 64):
        prefetch(codes, line)
    for line in range(384 * block, 384 * block + 384, 64):
        prefetch(factors, line)
    ask_for_positions(plan, block)


@step
def ask_for_positions(plan: Any, block: int) -> None:
    """Have the positions of a block on their way to the cache."""
    positions = bytes_at(plan[POSITIONS])
    prefetch(positions, 128 * block)
    prefetch(positions, 128 * block + 64)


@step
def ask_for(plan: Any, position: int) -> None:
    """Have what `distance_of` reads on its way to the cache."""
    size, rows, number = plan[WIDTH], bytes_at(plan[BYTES8]), np.int64(position)
    if plan[IN_PLACE] != BYTES_IN_LISTS:
        size, rows = bytes_of(plan), bytes_at(plan[VECTORS])
        number = np.int64(ints_at(plan[ORDINALS])[position])
    for at in range(number * size, number * size + size, 64):
        prefetch(rows, at)
    prefetch(bytes_at(plan[SCALES]), 4 * position)
    prefetch(bytes_at(plan[SQUARES]), 4 * position)


@step
def ask_for_slots(plan: Any, start: int, stop: int) -> None:
    """Have the rows of some slots of codes on their way to the cache."""
    positions = ints_at(plan[POSITIONS])
    for slot in range(start, stop):
        position = positions[slot]
        if position >= 0 and position < plan[ROWS]:  # K7
            ask_for(plan, position)


@step
def slots_soon(plan: Any, k: int, each: int, later: int, count: int, asked: bool) -> Any:
    """Slots of the next list, if most of its rows will be let in, as far as can be seen; or none.

    count   rows of the list at hand that were let in; asked: by a k-th distance
    """
    starts = longs_at(plan[STARTS])
    blocks = starts[each + 1] - starts[each]
    is_likely = count >= 16 * blocks if asked else count < 4 * k
    if later == each or not is_likely:
        return np.int64(0), np.int64(0)
    return 32 * starts[later], 32 * starts[later + 1]


@step
def bytes_of(plan: Any) -> int:
    """Of a vector that is compared in place."""
    return plan[DIMENSIONS] * 2 if plan[IN_PLACE] == HALVES else plan[DIMENSIONS]


@step
def distance_in_place(plan: Any, position: int) -> Any:
    """A row's distance by its vector, float16 or int8."""
    d, query = plan[DIMENSIONS], floats_at(plan[PLAIN])
    ordinal = np.int64(ints_at(plan[ORDINALS])[position])
    if ordinal < 0 or ordinal >= plan[HELD]:  # K7
        return np.float32(np.inf)
    address, total = plan[VECTORS] + ordinal * bytes_of(plan), np.float32(0.0)
    if plan[IN_PLACE] == HALVES:
        halves = halves_at(address)
        for i in range(d):
            bits = np.uint32(halves[i])
            wide = ((bits & LOW_BITS) << THIRTEEN) | ((bits & SIGN_BIT) << SIXTEEN)
            total += np.uint32(wide).view(np.float32) * WIDEN * query[i]
    else:
        small = small_at(address)
        for i in range(d):
            total += np.float32(small[i]) * query[i]
    distance = np.float32(-2.0) * total * floats_at(plan[SCALES])[position]
    if plan[KIND] == NEAR:
        distance += floats_at(plan[NUMBERS])[QUERY_SQUARE] + floats_at(plan[SQUARES])[position]
    return np.float32(distance)


@step
def distance_of(plan: Any, position: int) -> Any:
    """A row's distance by its 8-bit code, or by its vector where there is none."""
    if plan[IN_PLACE] != BYTES_IN_LISTS:
        return distance_in_place(plan, position)
    return by_bytes(
        bytes_at(plan[BYTES8]), floats_at(plan[SCALES]), floats_at(plan[SQUARES]), position,
        small_at(plan[SMALL]), plan[WIDTH], floats_at(plan[NUMBERS]), plan[KIND],
    )  # fmt: skip


@step
def compare(plan: Any, k: int, turn: int, which: Any, state: Any) -> Any:
    """Compare pending rows by their 8-bit codes; the new state.

    Some rows together: whether one is among the best depends on what is read of it, and a wrong
    guess of that would wait for it before anything else is done.

    turn   of the list, for the log
    which  how many there are; the bound from which on they are left out; whether they were asked
           for already; and slots of codes, from one to another, whose rows are asked for meanwhile
    state  size and k-th distance of the best rows, when they changed last, rows compared, logged
    """
    size, worst, last, reranked, logged = state
    count, limit, asked, soon, end = which
    pending, bounds = ints_at(plan[PENDING]), floats_at(plan[PENDING_BOUNDS])
    best, nearness, log = ints_at(plan[BEST]), floats_at(plan[NEARNESS]), ints_at(plan[LOG])
    wanted, log_size = plan[WANTED], plan[LOG_SIZE]
    distances, rows = floats_at(plan[BOUNDS] + 128), ints_at(plan[BOUNDS] + 128 + 4 * TOGETHER)
    at = 0
    ahead = count if asked else 0
    while at < count:
        while ahead < min(count, at + ROWS_AHEAD):
            if bounds[ahead] < limit and bounds[ahead] < worst:
                ask_for(plan, pending[ahead])
            ahead += 1
        some = 0
        while at < count and some < TOGETHER:  # without a branch that depends on a bound
            rows[some] = pending[at]
            lets_in = (bounds[at] < limit) & (bounds[at] < worst)
            bounds[at] = np.float32(np.inf) if lets_in else bounds[at]
            some += int(lets_in)
            at += 1
        stop = min(end, soon + TOGETHER)
        ask_for_slots(plan, soon, stop)
        soon = stop
        for i in range(some):
            distances[i] = distance_of(plan, rows[i])
        reranked += some
        for i in range(some):
            distance = distances[i]
            if size == wanted and not distance < nearness[wanted - 1]:
                continue
            place = insert(rows[i], distance, size, wanted, best, nearness)
            if place < 0:
                continue
            size = min(size + 1, wanted)
            if place < k:
                last = turn
            if logged < log_size:
                log[3 * logged] = rows[i]
                log[3 * logged + 1] = turn
                log[3 * logged + 2] = place
                logged += 1
        if size >= k:
            worst = nearness[k - 1]
    return size, worst, last, reranked, logged


@step
def probe(plan: Any, mask: Any, limits: Any, factor: Any, epsilon: Any) -> None:
    """Scan lists in their order until the stop rule says that the best rows are known."""
    k, least, constant, most, ahead, waits = limits
    patience, is_told = np.float32(constant), False
    order, counts, starts = ints_at(plan[ORDER]), longs_at(plan[COUNTS]), longs_at(plan[STARTS])
    bounds = floats_at(plan[PENDING_BOUNDS])
    most = min(most, plan[LISTS])
    known = most if least >= most else min(ahead, plan[LISTS])
    state = (0, np.float32(np.inf), 0, 0, 0)
    scanned, done, ready = 0, 0, 0
    while done < most:
        size, worst, last = state[0], state[1], state[2]
        is_full = done >= least and size >= k
        if not is_told and (is_full or (done == least and waits == 0)):
            patience, share = patience_for(floats_at(plan[NUMBERS]), worst)
            factor, is_told = factor * share, True
        if is_full and np.float32(done) >= factor * np.float32(last) + patience:
            break
        if done == ready:
            ready = next_wave(plan, ready, known)
            if done == ready:
                break
            for block in range(starts[order[done]], starts[order[done] + 1]):
                ask_for_block(plan, block)
        asked = worst < np.float32(np.inf)  # by scan_list
        each, later = order[done], order[min(done + 1, ready - 1)]
        latest = factor * np.float32(done) + patience  # whatever this list brings
        if done + 1 >= most or (is_full and np.float32(done + 1) >= latest):
            later = each
        count = scan_list(plan, mask, each, later, epsilon, worst)
        soon, end = slots_soon(plan, k, each, later, count, asked)
        if count > MANY:  # those with the smallest bounds first: they tell what to leave out
            low, high = finite_range(bounds, count)
            limit = cut(bounds, count, max(MANY >> 1, count >> 2), low, high)
            state = compare(plan, k, done, (count, limit, asked, 0, 0), state)
        if count:
            which = (count, np.float32(np.inf), asked, soon, end)
            state = compare(plan, k, done, which, state)
        scanned += starts[each + 1] - starts[each]
        done += 1
    counts[FOUND] = state[0]
    counts[PROBED] = done
    counts[SCANNED] = 32 * scanned
    counts[RERANKED] = state[3]
    counts[LOGGED] = state[4]


@kernel(types.void, PLAN, MASK, LIMITS, FLOAT, FLOAT)
def search(plan: Any, mask: Any, limits: Any, factor: Any, epsilon: Any) -> None:
    """Find the best rows of the query in ROTATED: BEST, NEARNESS and COUNTS.

    mask     uint8 by ordinal, 1 = may be found; an empty one lets every row be found
    limits   of reference.Stop. Lists are probed while fewer than `least` were, or fewer than k rows
             were found, or while fewer than factor * (the last that changed the k best) + patience
             were, at most `most`. What these are once `least` were, and where it `waits` k rows
             were found, NUMBERS says: it depends on how near the k-th best row is by then
    epsilon  how many standard errors of a 1-bit estimate its bound takes off
    """
    begin(plan)
    probe(plan, mask, limits, factor, epsilon)


@step
def take(plan: Any, queries: Any, each: int) -> None:
    """Make a query the one that is searched."""
    rotated, dimensions = floats_at(plan[ROTATED]), queries.shape[1]
    for i in range(dimensions):
        rotated[i] = queries[each, i]
    for i in range(dimensions, plan[WIDTH]):
        rotated[i] = np.float32(0.0)


@kernel(
    types.void,
    PLAN,
    MASK,
    READ_FLOAT_ROWS,
    LIMITS,
    FLOAT,
    FLOAT,
    types.int32[:, ::1],
    types.float32[:, ::1],
    types.int64[:, ::1],
)
def search_batch(
    plan: Any,
    mask: Any,
    queries: Any,
    limits: Any,
    factor: Any,
    epsilon: Any,
    positions: Any,
    nearness: Any,
    counts: Any,
) -> None:
    """Search many queries, each as `search` does.

    positions, nearness   BEST and NEARNESS of each query
    counts                its first four COUNTS
    """
    best, distances, done = ints_at(plan[BEST]), floats_at(plan[NEARNESS]), longs_at(plan[COUNTS])
    for each in range(queries.shape[0]):
        take(plan, queries, each)
        begin(plan)
        probe(plan, mask, limits, factor, epsilon)
        for i in range(done[FOUND]):
            positions[each, i] = best[i]
            nearness[each, i] = distances[i]
        for i in range(4):
            counts[each, i] = done[i]
