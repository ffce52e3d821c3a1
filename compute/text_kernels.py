"""Compiled text search: the best rows for some posting lists, over all parts of a collection.

Lists, slots and the plan that holds them are described in `text_lists.py`, lists that are unpacked
as a search comes to them in `text_blocks.py`. All comes as addresses:

    parts     int64[parts, FIRST_LENGTHS + columns]: SIZE, MASK (address of u8, 0 = all), ROWIDS
              (int64), and the u32 lengths of each column
    scratch   addresses of what a search works in, and how much there is, see `compiled.Scratch`

A part is searched in windows of its ordinals. Lists are added to an accumulator a row, those with
the largest possible impact first, until the rows not met so far can be none of the best; then the
lists that are left are looked up for the rows that may be. Of a long list only those runs of
postings are added (`text_lists.order_list`) that bring a new row to the k-th best. Sums are in the
order of the lists' impacts; a row that comes through is summed again in the order of the clauses
where that may round to another float32.

Invariants
    M1  The rows and scores are those of scoring every row: nothing is dropped but what is below the
        k-th best by more than the rounding of sums and of float32 (SLACK).
    M2  A score is the float64 sum, column by column and in each in the order of the slots, rounded
        to float32 once: `index.text.search` sums in the same order (X6).
    M3  A kernel allocates nothing and reads what addresses name without checks (M4).
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-call, no-any-return, no-untyped-def"
# mypy: disable-error-code="return-value, operator"

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import types

from m2mdb.compute.pointers import bytes_at, doubles_at, ints_at, longs_at, words_at
from m2mdb.compute.text_blocks import POSTINGS, add_blocks, find_place, look_up_blocks
from m2mdb.compute.text_hits import HITS, INT_MATRIX, heap_hits, order_hits, push
from m2mdb.compute.text_lists import (
    BITMAP,
    BLOCKS,
    BY_IMPACT,
    CEILINGS,
    COLUMN_OF,
    COUNT,
    DOCS,
    FACTOR,
    FLOAT,
    FLOATS,
    FREQUENCIES,
    IMPACTS,
    INT,
    INTS,
    KIND,
    LENGTHS_FIRST,
    LIST,
    NORM,
    NORMS,
    PARTS,
    RUN,
    RUN_FREQUENCY,
    RUN_HEAD,
    RUN_LENGTH,
    RUN_STOP,
    RUN_WINDOW,
    RUN_WINDOWS,
    RUNS,
    TABLE,
    WEIGHTS,
    first_at_least,
    frequency_at,
    impact_of,
    is_even,
    kernel,
    place_in,
)  # fmt: skip
from m2mdb.compute.text_scratch import (
    AT,
    FIRST,
    HEAP_ROOT,
    HITS_FOUND,
    IMPACTS_AT,
    KEYS,
    LENGTHS_AT,
    LISTS,
    MASK_AT,
    NEXT_FIRST,
    NEXT_PART,
    NORMS_AT,
    ORDER,
    ORDERING,
    PART,
    PIECE,
    PROGRESS,
    PROGRESS_AT,
    REST,
    ROWS,
    SCAN_COST,
    SCRATCH,
    STAGE,
    STARTS,
    STOPS,
    SUMMING,
    SUMS,
    TAKEN,
    TAKING,
    TALLY,
    TOUCHED,
    TOUCHED_ROWS,
    UPPERS,
    WINDOW,
    WORK,
    K,
)  # fmt: skip

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]
    Query = tuple[Ints, Ints, Floats]
    Hits = tuple[NDArray[np.float32], Ints, Ints]

# a part
SIZE, MASK, ROWIDS, FIRST_LENGTHS = 0, 1, 2, LENGTHS_FIRST
TALLIES = 512  # sums are counted in so many steps of size
TINIEST = 1e-300
SLACK = 2.0**-20  # covers sums in another order, and rounding to float32
ORDER_SLACK = 2.0**-40  # covers sums of positive numbers in another order
HIT_COST = 8  # postings that are added in the time of moving a hit
CHUNK = 32 * POSTINGS  # postings of a list in blocks between two looks at the k-th best

QUERY = types.Tuple((INTS, INTS, FLOATS))  # plan, slots, boosts


# ------------------------------------------------------------------------- the k-th largest


@kernel(FLOAT, INTS, INT, INT, FLOAT)
def _kth_largest(scratch: Ints, count: int, k: int, least: float) -> float:
    """What k of the first `count` touched rows have or more, `least` where that says no more.

    The k-th largest sum or a little below: sums are counted by size, none is moved.
    """
    sums, touched = doubles_at(scratch[SUMS]), words_at(scratch[TOUCHED])
    tally = ints_at(scratch[TALLY])
    for i in range(TALLIES):
        tally[i] = 0
    low = max(least, 0.0)
    scale = (TALLIES - 1) / max(doubles_at(scratch[REST])[0] - low, TINIEST)
    for i in range(count):
        size = (sums[touched[i]] - low) * scale
        if size >= 0.0:
            tally[min(np.int64(size), TALLIES - 1)] += 1
    above, at = np.int64(0), np.int64(TALLIES)
    while at > 0 and above < k:
        at -= 1
        above += tally[at]
    return low + at / scale if above >= k else least


# ------------------------------------------------------------------------- a window


@kernel(FLOAT, INTS, INT, INT)
def _impact_at(row: Ints, i: int, ordinal: int) -> float:
    """The impact of the i-th posting of the list at hand, which is of row `ordinal`."""
    if row[IMPACTS_AT] != 0:
        return doubles_at(row[IMPACTS_AT])[i]
    length = np.float64(words_at(row[LENGTHS_AT])[ordinal])
    return impact_of(frequency_at(row[FREQUENCIES], row[KIND], i), length, row[NORMS_AT])


@kernel(INT, INTS, INTS, FLOAT, INT, INT)
def _add_list(row: Ints, scratch: Ints, weight: float, at: int, count: int) -> int:
    """Add one list to the sums of a window; returns how many rows are touched now.

    row     int64[WORK], the list at hand
    at      which of the ordered lists it is: its bounds in this window stand in STARTS and STOPS
    count   rows touched before
    """
    first, mask = row[FIRST], row[MASK_AT]
    docs, allowed = words_at(row[DOCS]), bytes_at(mask)
    sums, touched = doubles_at(scratch[SUMS]), words_at(scratch[TOUCHED])
    for i in range(longs_at(scratch[STARTS])[at], longs_at(scratch[STOPS])[at]):
        ordinal = docs[i]
        if mask != 0 and allowed[ordinal] == 0:
            continue
        added = weight * _impact_at(row, i, np.int64(ordinal))
        place = np.int64(ordinal) - first
        before = sums[place]
        sums[place] = before + added
        if before == 0.0:
            touched[count] = place
            count += 1
    return count


@kernel(INT, INTS, INTS, FLOAT, INT, INT)
def _look_up(row: Ints, scratch: Ints, weight: float, at: int, count: int) -> int:
    """Add one list to the sums of the rows that are still touched; returns how many those are."""
    first, docs = row[FIRST], words_at(row[DOCS])
    sums, touched = doubles_at(scratch[SUMS]), words_at(scratch[TOUCHED])
    start, stop = longs_at(scratch[STARTS])[at], longs_at(scratch[STOPS])[at]
    if row[BITMAP] != 0 and stop - start > count:
        for i in range(count):
            place = np.int64(touched[i])
            found = place_in(row[BITMAP], place + first)
            if found >= 0:
                sums[place] += weight * _impact_at(row, found, place + first)
        return count
    if stop - start < count * SCAN_COST:
        for i in range(start, stop):
            place = np.int64(docs[i]) - first
            if sums[place] != 0.0:
                sums[place] += weight * _impact_at(row, i, np.int64(docs[i]))
        return count
    for i in range(count):
        place = np.int64(touched[i])
        found = first_at_least(row[DOCS], start, stop, place + first)
        if found < stop and np.int64(docs[found]) == place + first:
            sums[place] += weight * _impact_at(row, found, place + first)
    return count


@kernel(FLOAT, FLOAT, FLOAT)
def _lowered(bound: float, baseline: float) -> float:
    """What a sum has to reach not to be below `bound` for certain (M1)."""
    return bound - (abs(bound) + abs(baseline)) * SLACK


@kernel(types.boolean, INTS, INTS)
def _is_ordered(row: Ints, scratch: Ints) -> bool:
    """Whether the list at hand is ordered by windows such as this search's."""
    if row[RUNS] == 0:
        return False
    runs = longs_at(row[RUNS])
    is_one = runs[RUN_WINDOWS] == 1 and row[FIRST] == 0
    return runs[RUN_WINDOW] == scratch[WINDOW] or (is_one and scratch[WINDOW] >= row[ROWS])


@kernel(INT, INTS, INTS, FLOAT, FLOAT, INT, FLOAT, FLOAT)
def _add_in_order(
    row: Ints, scratch: Ints, weight: float, rest: float, count: int, threshold: float,
    baseline: float,
) -> int:  # fmt: skip
    """Touch the rows of a list that may be among the best; returns how many are touched now.

    Rows touched before have this list in their sums already. Others are met run by run, as far as
    the largest impact of a run and the lists behind this one reach the k-th best (M1).

    rest    what the lists behind this one can add
    count   rows touched before
    """
    first, norms, mask, k = row[FIRST], row[NORMS_AT], row[MASK_AT], row[K]
    docs, order, runs = words_at(row[DOCS]), words_at(row[BY_IMPACT]), longs_at(row[RUNS])
    sums, touched = doubles_at(scratch[SUMS]), words_at(scratch[TOUCHED])
    allowed = bytes_at(mask)
    window = first // scratch[WINDOW]
    if window >= runs[RUN_WINDOWS]:
        return count
    first_run, known = RUN_HEAD + runs[RUN_WINDOWS] + 1, count
    for run in range(runs[RUN_HEAD + window], runs[RUN_HEAD + window + 1]):
        at = first_run + RUN * run
        upper = weight * impact_of(
            np.float64(runs[at + RUN_FREQUENCY]), np.float64(runs[at + RUN_LENGTH]), norms
        )
        if upper + rest < threshold:
            continue
        start = np.int64(0) if run == 0 else runs[at - RUN + RUN_STOP]
        even = is_even(row[KIND], runs[at + RUN_FREQUENCY], runs[at + RUN_LENGTH])
        for place in range(start, runs[at + RUN_STOP]):
            i = np.int64(order[place])
            ordinal = i if even else np.int64(docs[i])
            if mask != 0 and allowed[ordinal] == 0:
                continue
            within = ordinal - first
            if sums[within] == 0.0:
                sums[within] = upper if even else weight * _impact_at(row, i, ordinal)
                touched[count] = within
                count += 1
        if count >= k and count >= known + (known >> 2):
            threshold = max(
                threshold, _lowered(_kth_largest(scratch, count, k, threshold), baseline)
            )
            known = count
    return count


@kernel(INT, INTS, INTS, FLOAT, FLOAT, INT, FLOAT, FLOAT)
def _add_blocks(
    row: Ints, scratch: Ints, weight: float, rest: float, count: int, threshold: float,
    baseline: float,
) -> int:  # fmt: skip
    """`_add_in_order` of a list that is unpacked in blocks."""
    at, k = row[AT], row[K]
    start, stop = longs_at(scratch[STARTS])[at], longs_at(scratch[STOPS])[at]
    known = count
    while start < stop:
        end = min(stop, start + CHUNK - start % POSTINGS)
        count = add_blocks(row, scratch, weight, start, end, count, threshold - rest)
        start = end
        if count >= k and count >= known + (known >> 2):
            threshold = max(
                threshold, _lowered(_kth_largest(scratch, count, k, threshold), baseline)
            )
            known = count
    return count


@kernel(FLOAT, QUERY, INT)
def _weight(query: Query, i: int) -> float:
    """What the impacts of the i-th slot are multiplied by."""
    plan, slots, boosts = query
    slot = slots[i]
    column = longs_at(plan[COLUMN_OF])[slot]
    factor = doubles_at(plan[NORMS])[NORM * column + FACTOR]
    return doubles_at(plan[WEIGHTS])[slot] * boosts[i] * factor


@kernel(INT, INTS, INT, FLOAT, FLOAT)
def _keep(scratch: Ints, count: int, rest: float, threshold: float) -> int:
    """Drop the touched rows that stay below the threshold; returns how many are left."""
    sums, touched = doubles_at(scratch[SUMS]), words_at(scratch[TOUCHED])
    kept = np.int64(0)
    for i in range(count):
        place = touched[i]
        if sums[place] + rest < threshold:
            sums[place] = 0.0
        else:
            touched[kept] = place
            kept += 1
    return kept


@kernel(FLOAT, QUERY, INTS, INT, INT)
def _exact(query: Query, parts: Ints, part: int, ordinal: int) -> float:
    """The score of one row, in the order of the columns and clauses (M2)."""
    plan, slots, _ = query
    total, subtotal = 0.0, 0.0
    column_before = np.int64(-1)
    table, columns = longs_at(plan[TABLE]), longs_at(plan[COLUMN_OF])
    for i in range(len(slots)):
        slot = slots[i]
        at = (slot * plan[PARTS] + part) * LIST
        count = table[at + COUNT]
        if count == 0:
            continue
        column = columns[slot]
        if column != column_before:
            total += subtotal
            subtotal = 0.0
            column_before = column
        docs = table[at + DOCS]
        found = find_place(plan[TABLE] + 8 * at, 0, count, ordinal)
        if found < count and np.int64(words_at(docs)[found]) == ordinal:
            length = np.float64(words_at(parts[FIRST_LENGTHS + column])[ordinal])
            frequency = frequency_at(table[at + FREQUENCIES], table[at + KIND], found)
            impact = impact_of(frequency, length, plan[NORMS] + 8 * NORM * column)
            subtotal += impact * _weight(query, i)
    return total + subtotal


# ------------------------------------------------------------------------- a search


@kernel(INT, QUERY, INTS, INT)
def _order_lists(query: Query, scratch: Ints, part: int) -> int:
    """Order the lists of a part by what they can add at most; returns how many there are.

    ORDER gets their places in `slots`, UPPERS the most, REST the sum of it from each list on.
    """
    plan, slots, _ = query
    order, rest = longs_at(scratch[ORDER]), doubles_at(scratch[REST])
    uppers = doubles_at(scratch[UPPERS])
    table, ceilings = longs_at(plan[TABLE]), doubles_at(plan[CEILINGS])
    count = np.int64(0)
    for i in range(len(slots)):
        at = slots[i] * plan[PARTS] + part
        if table[at * LIST + COUNT] == 0:
            continue
        upper = ceilings[at] * _weight(query, i)
        place = count
        while place > 0 and uppers[place - 1] < upper:
            uppers[place] = uppers[place - 1]
            order[place] = order[place - 1]
            place -= 1
        uppers[place] = upper
        order[place] = i
        count += 1
    rest[count] = 0.0
    for i in range(count - 1, -1, -1):
        rest[i] = rest[i + 1] + uppers[i]
    return count


@kernel(FLOAT, QUERY, INTS, INT, INTS)
def _load_list(query: Query, parts: Ints, i: int, row: Ints) -> float:
    """Make the i-th slot's list the one at hand; returns its weight."""
    plan, slots, _ = query
    table = longs_at(plan[TABLE])
    slot = slots[i]
    at = (slot * plan[PARTS] + row[PART]) * LIST
    for item in range(LIST):
        row[item] = table[at + item]
    column = longs_at(plan[COLUMN_OF])[slot]
    row[NORMS_AT] = plan[NORMS] + 8 * NORM * column
    row[LENGTHS_AT], row[MASK_AT] = parts[FIRST_LENGTHS + column], parts[MASK]
    row[ROWS] = parts[SIZE]
    row[IMPACTS_AT] = longs_at(plan[IMPACTS])[at // LIST]
    return _weight(query, i)


@kernel(INT, QUERY, INTS, INTS, INTS, FLOAT, FLOAT)
def _window(
    query: Query, parts: Ints, scratch: Ints, row: Ints, threshold: float, baseline: float
) -> int:
    """Sum up a window; the rows that may be among the best are left in TOUCHED.

    row         int64[WORK]: FIRST, PART, LISTS and K are filled in
    threshold   without the baseline
    """
    k = row[K]
    order, rest = longs_at(scratch[ORDER]), doubles_at(scratch[REST])
    starts, stops = longs_at(scratch[STARTS]), longs_at(scratch[STOPS])
    touched = np.int64(0)
    is_open = True  # whether rows that no list has touched yet may be among the best
    for at in range(row[LISTS]):
        if starts[at] == stops[at]:
            continue
        if touched >= k and (is_open or stops[at] - starts[at] > touched):
            threshold = max(
                threshold, _lowered(_kth_largest(scratch, touched, k, threshold), baseline)
            )
        if is_open and rest[at] < threshold:
            is_open = False
        weight = _load_list(query, parts, order[at], row)
        if row[BLOCKS] != 0:
            row[AT] = at
            touched = _keep(scratch, touched, rest[at], threshold)
            look_up_blocks(row, scratch, weight, rest[at + 1], at, touched, threshold)
            if is_open:
                touched = _add_blocks(
                    row, scratch, weight, rest[at + 1], touched, threshold, baseline
                )
        elif is_open and _is_ordered(row, scratch):
            touched = _keep(scratch, touched, rest[at], threshold)
            touched = _look_up(row, scratch, weight, at, touched)
            touched = _add_in_order(
                row, scratch, weight, rest[at + 1], touched, threshold, baseline
            )
        elif is_open:
            touched = _add_list(row, scratch, weight, at, touched)
        else:
            touched = _keep(scratch, touched, rest[at], threshold)
            touched = _look_up(row, scratch, weight, at, touched)
    if touched > k:
        threshold = max(threshold, _lowered(_kth_largest(scratch, touched, k, threshold), baseline))
    return _keep(scratch, touched, 0.0, threshold)


@kernel(INT, QUERY, INT_MATRIX, INTS, FLOAT, HITS, INT)
def _take_rows(
    query: Query, parts: Ints, scratch: Ints, baseline: float, hits: Hits, room: int
) -> int:
    """Take rows that a window left as hits, till k are there for the first time; the room left."""
    scores, rowids, _ = hits
    progress = longs_at(scratch[PROGRESS_AT])
    part, first = progress[NEXT_PART], progress[NEXT_FIRST]
    sums, touched = doubles_at(scratch[SUMS]), words_at(scratch[TOUCHED])
    ids = longs_at(parts[part, ROWIDS])
    gap = abs(baseline) * ORDER_SLACK
    low, high = baseline - gap, baseline + gap
    k, found, at = np.int64(len(scores)), progress[HITS_FOUND], progress[TAKEN]
    was_full = found == k
    push_cost = HIT_COST
    while was_full and k >> (push_cost // HIT_COST) > 0:  # the depth of the heap
        push_cost += HIT_COST
    while at < progress[TOUCHED_ROWS] and room > 0 and (was_full or found < k):
        place = np.int64(touched[at])
        at += 1
        room -= 1
        total = sums[place]
        sums[place] = 0.0
        ordinal = first + place
        score = np.float32(total * (1.0 - ORDER_SLACK) + low)
        if score != np.float32(total * (1.0 + ORDER_SLACK) + high):
            score = np.float32(_exact(query, parts[part], part, ordinal) + baseline)
        rowid = ids[ordinal]
        is_tied = found == k and score == scores[0] and rowid > rowids[0]
        if is_tied or (found == k and score < scores[0]):
            continue
        push(hits, found, score, rowid, part, ordinal)
        room -= push_cost
        found = min(found + 1, k)
    if found == k and not was_full:
        progress[HEAP_ROOT] = k // 2
    progress[HITS_FOUND], progress[TAKEN] = found, at
    return room


@kernel(INT, QUERY, INT_MATRIX, INTS, INTS, FLOAT, HITS, INT)
def _search_part(
    query: Query, parts: Ints, scratch: Ints, row: Ints, baseline: float, hits: Hits, room: int
) -> int:
    """Go on with a part; the room that is left once all of it is done, -1 if it is not."""
    plan, slots, _ = query
    scores = hits[0]
    progress = longs_at(scratch[PROGRESS_AT])
    part, k, window = progress[NEXT_PART], np.int64(len(scores)), scratch[WINDOW]
    order, rest = longs_at(scratch[ORDER]), doubles_at(scratch[REST])
    starts, stops = longs_at(scratch[STARTS]), longs_at(scratch[STOPS])
    table, size = longs_at(plan[TABLE]), parts[part, SIZE]
    lists = _order_lists(query, scratch, part)
    row[PART], row[LISTS], row[K] = part, lists, k
    if progress[STAGE] == SUMMING and progress[NEXT_FIRST] == 0:
        for i in range(lists):
            stops[i] = 0
    while progress[NEXT_FIRST] < size:
        if room <= 0:
            return -1
        if progress[HEAP_ROOT] > 0:
            room = HIT_COST * heap_hits(hits, scratch[PROGRESS_AT], room // HIT_COST + 1)
            continue
        if progress[STAGE] == SUMMING:
            threshold = -1.0
            if progress[HITS_FOUND] == k:
                threshold = _lowered(np.float64(scores[0]) - baseline, baseline)
            if lists == 0 or rest[0] < threshold:
                break
            end = min(progress[NEXT_FIRST] + window, size)
            for i in range(lists):
                at = (slots[order[i]] * plan[PARTS] + part) * LIST
                starts[i] = stops[i]
                stops[i] = table[at + COUNT]
                if end < size:
                    stops[i] = find_place(plan[TABLE] + 8 * at, starts[i], stops[i], end)
                room -= stops[i] - starts[i]
            row[FIRST] = progress[NEXT_FIRST]
            count = _window(query, parts[part], scratch, row, threshold, baseline)
            progress[STAGE], progress[TAKEN], progress[TOUCHED_ROWS] = TAKING, 0, count
            room = max(room, 1)
        room = _take_rows(query, parts, scratch, baseline, hits, room)
        if progress[TAKEN] == progress[TOUCHED_ROWS]:
            progress[STAGE] = SUMMING
            progress[NEXT_FIRST] += window
    progress[STAGE], progress[NEXT_FIRST] = SUMMING, 0
    progress[NEXT_PART] += 1
    return max(room, 0)


@kernel(INT, QUERY, INTS, INT_MATRIX, FLOAT, HITS)
def best(query: Query, scratch: Ints, parts: Ints, baseline: float, hits: Hits) -> int:
    """The best rows for the sum of some slots, best first; returns how many there are.

    Below 0: that was a piece of the work, and the same call goes on with it. A search that is given
    up before its end leaves a scratch that no other can use.

    query     plan; slots int64[n], in the order of the columns, and of the clauses in each; boosts
              float64[n]: boost times weight is positive
    baseline  what every row has beside, see `bm25.Variant.baseline`
    hits      written: scores float32[k], (score descending, rowid ascending); rowids int64[k];
              places int64[2, k], parts and ordinals
    Twin      `index.text.search.search_text`, equal to the bit
    """
    progress = longs_at(scratch[PROGRESS_AT])
    row = scratch[SCRATCH : SCRATCH + WORK]
    room = scratch[PIECE]
    while progress[STAGE] != ORDERING and progress[NEXT_PART] < query[0][PARTS]:
        room = _search_part(query, parts, scratch, row, baseline, hits, room)
        if room < 0:
            return -1
    progress[STAGE] = ORDERING
    found = progress[HITS_FOUND]
    if not order_hits(hits, found, scratch[KEYS], scratch[PROGRESS_AT], room // HIT_COST + 1):
        return -1
    for i in range(PROGRESS):
        progress[i] = 0
    return found
