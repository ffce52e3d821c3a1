"""Lists that a search unpacks block by block, as it comes to them.

A list of a file whose blocks are known (`index.text.blocks`) has room for all its postings, and a
*state* that says which blocks are in it:

    RAW, TOTAL, ORDINALS, TIMES   address of the packed lists, postings, addresses of the room (u32
                                  and u8)
    UNPACKED, SPOILT              postings unpacked so far; whether a block was found damaged
    then for each block, and the end, BLOCK numbers:
    HEADS, MORES   bytes where its ordinals and its frequencies begin
    LAST           its last ordinal
    BOUND          its largest frequency and shortest lengths, as stored; READ where it is unpacked

Such a list belongs to one search. A block that is not what the state says is filled with ordinals
that may be read, and SPOILT is set: who searched then refuses the answer.

Invariants
    M5  No posting of a block is read before `have_block`; the state's bounds hold for the block
        (the integrity check compares them), so a block that is passed over has no row of the best.
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-call, no-any-return, operator"
# mypy: disable-error-code="return-value"

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import types

from m2mdb.compute.pointers import bytes_at, doubles_at, longs_at, words_at
from m2mdb.compute.text_lists import (
    BLOCKS,
    COUNT,
    DAMAGED,
    DOCS,
    FLOAT,
    FOUND,
    FREQUENCIES,
    FREQUENCIES_APART,
    INT,
    INTS,
    LIST,
    MOST,
    NO_LENGTH,
    PACKED,
    first_at_least,
    impact_of,
    kernel,
    number_at,
)
from m2mdb.compute.text_lists import ROWS as ALL_ROWS
from m2mdb.compute.text_scratch import (
    FIRST,
    LENGTHS_AT,
    MASK_AT,
    NORMS_AT,
    SCAN_COST,
    STARTS,
    STOPS,
    SUMS,
    TOUCHED,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

POSTINGS = 128  # of a block, but for the last of a list
STORED = 3  # u32 of a block in a file
NO_ROW = 255  # a stored length: no row has that frequency
EXACT_LENGTHS = 128  # stored as they are; longer ones in eight steps an octave, rounded down
CLASSES = 3  # frequencies 1, 2 and more, each with its shortest length
RAW, TOTAL, ORDINALS, TIMES, UNPACKED, SPOILT, HEAD = range(7)
HEADS, MORES, LAST, BOUND, BLOCK = range(5)
READ = 1 << 32  # of BOUND


@kernel(INT, INT)
def shortest(code: int) -> int:
    """The least length that a stored one stands for."""
    if code == NO_ROW:
        return np.int64(NO_LENGTH)
    if code < EXACT_LENGTHS:
        return code
    above = code - EXACT_LENGTHS
    return (8 + (above & 7)) << ((above >> 3) + 4)


@kernel(INT, INTS, INTS, INT, INTS)
def open_blocks(segment: Ints, place: Ints, stored: int, out: Ints) -> int:
    """Make ready the state of a list that `find_packed` has found; nothing is unpacked.

    stored  address of u32[STORED * blocks], as in the file
    out     as `check_list`'s; all of the list's row is there, the bounds are filled in
    Returns FOUND or DAMAGED
    """
    count, at = out[COUNT], place[1]
    words, state = words_at(stored), longs_at(out[BLOCKS])
    state[RAW], state[TOTAL] = segment[PACKED], count
    state[UNPACKED] = state[SPOILT] = 0
    state[ORDINALS], state[TIMES] = out[DOCS], out[FREQUENCIES]
    blocks, before = (count + POSTINGS - 1) // POSTINGS, np.int64(-1)
    for i in range(LIST, MOST + 1):
        out[i] = NO_LENGTH
    out[MOST] = 0
    for b in range(blocks):
        here, some = HEAD + BLOCK * b, min(POSTINGS, count - POSTINGS * b)
        last, bound = np.int64(words[STORED * b]), np.int64(words[STORED * b + 2])
        size = np.int64(words[STORED * b + 1]) & 0xFFFF
        if last - before < some or last >= segment[ALL_ROWS] or size < some:
            return DAMAGED
        state[here + HEADS], state[here + LAST], state[here + BOUND] = at, last, bound
        at, before = at + size, last
        out[MOST] = max(out[MOST], bound & 255)
        for each in range(CLASSES):
            kind = LIST + (each + 1 if each < CLASSES - 1 else FREQUENCIES_APART)
            out[kind] = min(out[kind], shortest((bound >> (8 * each + 8)) & 255))
    state[HEAD + BLOCK * blocks + HEADS] = at
    for b in range(blocks):
        state[HEAD + BLOCK * b + MORES] = at
        at += np.int64(words[STORED * b + 1]) >> 16
    state[HEAD + BLOCK * blocks + MORES] = at
    return FOUND if at <= place[2] and out[MOST] < 255 else DAMAGED


@kernel(types.boolean, INT, INT)
def _unpack(state_at: int, b: int) -> bool:
    """Unpack a block; False where it is not what the state says."""
    state = longs_at(state_at)
    here, begin = HEAD + BLOCK * b, POSTINGS * b
    some = min(POSTINGS, state[TOTAL] - begin)
    docs, times = words_at(state[ORDINALS]), bytes_at(state[TIMES])
    at, stop = state[here + HEADS], state[here + BLOCK + HEADS]
    last, most = state[here + LAST], state[here + BOUND] & 255
    ordinal = np.int64(-1) if b == 0 else state[here - BLOCK + LAST]
    for i in range(begin, begin + some):
        head, at = number_at(state[RAW], at, stop)
        ordinal += (head >> 1) + 1
        if head < 0 or ordinal > last:
            return False
        docs[i] = ordinal
        times[i] = 1 + (head & 1)
    if at != stop or ordinal != last:
        return False
    at, stop = state[here + MORES], state[here + BLOCK + MORES]
    for i in range(begin, begin + some):
        if times[i] > 1:
            more, at = number_at(state[RAW], at, stop)
            if more < 0 or more + 2 > most:
                return False
            times[i] = more + 2
    return at == stop


@kernel(types.void, INT, INT)
def have_block(state_at: int, b: int) -> None:
    """See that a block is unpacked (M5)."""
    state = longs_at(state_at)
    here = HEAD + BLOCK * b
    if state[here + BOUND] & READ:
        return
    if not _unpack(state_at, b):
        state[SPOILT] = 1
        docs, times = words_at(state[ORDINALS]), bytes_at(state[TIMES])
        stop = min(POSTINGS * (b + 1), state[TOTAL])
        for i in range(POSTINGS * b, stop):
            docs[i] = state[here + LAST] - (stop - 1 - i)
            times[i] = 1
    state[UNPACKED] += min(POSTINGS, state[TOTAL] - POSTINGS * b)
    state[here + BOUND] |= READ


@kernel(INT, INT, INT, INT, INT)
def block_at_least(state_at: int, low: int, high: int, ordinal: int) -> int:
    """The first of the blocks low..high whose last ordinal is not below `ordinal`; else `high`."""
    state = longs_at(state_at)
    while low < high:
        middle = (low + high) >> 1
        if state[HEAD + BLOCK * middle + LAST] < ordinal:
            low = middle + 1
        else:
            high = middle
    return low


@kernel(INT, INT, INT, INT, INT)
def place_at_least(state_at: int, low: int, high: int, ordinal: int) -> int:
    """As `text_lists.first_at_least`; unpacks one block at most."""
    blocks = (high + POSTINGS - 1) // POSTINGS
    b = block_at_least(state_at, low // POSTINGS, blocks, ordinal)
    if low >= high or b == blocks:
        return high
    have_block(state_at, b)
    start, stop = max(low, POSTINGS * b), min(high, POSTINGS * (b + 1))
    return first_at_least(longs_at(state_at)[ORDINALS], start, stop, ordinal)


@kernel(INT, INT, INT, INT, INT)
def find_place(list_at: int, low: int, high: int, ordinal: int) -> int:
    """The first of a list's places low..high whose ordinal is not below `ordinal`.

    list_at  address of the list's row, unpacked or not; the place that is found may be read
    """
    row = longs_at(list_at)
    if row[BLOCKS] != 0:
        return place_at_least(row[BLOCKS], low, high, ordinal)
    return first_at_least(row[DOCS], low, high, ordinal)


@kernel(FLOAT, INT, INT, INT)
def block_maximum(state_at: int, b: int, norms: int) -> float:
    """The largest impact that a posting of a block can have."""
    bound = longs_at(state_at)[HEAD + BLOCK * b + BOUND]
    largest = 0.0
    for each in range(CLASSES):
        length = shortest((bound >> (8 * each + 8)) & 255)
        if length < NO_LENGTH:
            frequency = each + 1 if each < CLASSES - 1 else bound & 255
            largest = max(largest, impact_of(np.float64(frequency), np.float64(length), norms))
    return largest


@kernel(FLOAT, INTS, INT, INT)
def _impact(row: Ints, i: int, ordinal: int) -> float:
    """The impact of the i-th posting of the list at hand, which is of row `ordinal`."""
    length, times = words_at(row[LENGTHS_AT])[ordinal], bytes_at(row[FREQUENCIES])[i]
    return impact_of(np.float64(times), np.float64(length), row[NORMS_AT])


@kernel(types.void, INTS, INTS, FLOAT, FLOAT, INT, INT, FLOAT)
def look_up_blocks(
    row: Ints, scratch: Ints, weight: float, rest: float, at: int, count: int, threshold: float
) -> None:
    """Add the list at hand to the sums of the touched rows that may still be among the best.

    rest    what the lists behind this one can add
    at      which of the ordered lists it is
    count   rows touched
    """
    state_at, first, docs = row[BLOCKS], row[FIRST], words_at(row[DOCS])
    sums, touched = doubles_at(scratch[SUMS]), words_at(scratch[TOUCHED])
    start, stop = longs_at(scratch[STARTS])[at], longs_at(scratch[STOPS])[at]
    if stop - start < count * SCAN_COST:
        for b in range(start // POSTINGS, (stop + POSTINGS - 1) // POSTINGS):
            have_block(state_at, b)
        for i in range(start, stop):
            place = np.int64(docs[i]) - first
            if sums[place] != 0.0:
                sums[place] += weight * _impact(row, i, np.int64(docs[i]))
        return
    blocks = (stop + POSTINGS - 1) // POSTINGS
    for i in range(count):
        place = np.int64(touched[i])
        b = block_at_least(state_at, start // POSTINGS, blocks, place + first)
        if b == blocks:
            continue
        most = weight * block_maximum(state_at, b, row[NORMS_AT])
        if sums[place] + most + rest < threshold:
            continue  # it falls out whether the list has it or not
        have_block(state_at, b)
        low, high = max(start, POSTINGS * b), min(stop, POSTINGS * (b + 1))
        found = first_at_least(row[DOCS], low, high, place + first)
        if found < high and np.int64(docs[found]) == place + first:
            sums[place] += weight * _impact(row, found, place + first)


@kernel(INT, INTS, INTS, FLOAT, INT, INT, INT, FLOAT)
def add_blocks(
    row: Ints, scratch: Ints, weight: float, start: int, stop: int, count: int, least: float
) -> int:
    """Touch the rows of those blocks that may hold one of the best; returns how many are touched.

    Rows touched before have this list in their sums already.

    start, stop  postings of the list at hand
    count        rows touched
    least        what a posting has to add
    """
    list_at, first, docs = row[BLOCKS], row[FIRST], words_at(row[DOCS])
    sums, touched = doubles_at(scratch[SUMS]), words_at(scratch[TOUCHED])
    allowed, is_masked = bytes_at(row[MASK_AT]), row[MASK_AT] != 0
    for b in range(start // POSTINGS, (stop + POSTINGS - 1) // POSTINGS):
        if weight * block_maximum(list_at, b, row[NORMS_AT]) < least:
            continue
        have_block(list_at, b)
        for i in range(max(start, POSTINGS * b), min(stop, POSTINGS * (b + 1))):
            ordinal = np.int64(docs[i])
            if is_masked and allowed[ordinal] == 0:
                continue
            place = ordinal - first
            if sums[place] == 0.0:
                sums[place] = weight * _impact(row, i, ordinal)
                touched[count] = place
                count += 1
    return count
