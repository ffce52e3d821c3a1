"""Posting lists as compiled kernels see them: rows of addresses, checked once, with their bounds.

A *list* is one row of LIST items; a *slot* is one term of one column, with a list in each part:

    DOCS, FREQUENCIES   addresses: u32 ordinals, ascending; frequencies of the dtype KIND
    KIND                BYTES (u8), WORDS (u32) or HALVES (float64, whole and half numbers)
    COUNT               postings, 0 where the part has none
    BY_IMPACT, RUNS     addresses, 0 for short lists: the postings (u32) by window, frequency and
                        length, see `order_list`, and its runs: how many rows a window has, how many
                        windows and runs there are (int64), the first run of each window and the
                        end, and of each run RUN numbers: its largest frequency, its shortest
                        length, and where it ends in BY_IMPACT. Of a run that `is_even`, BY_IMPACT
                        has the ordinals, of another the places in DOCS
    BITMAP              address, 0 for lists that few rows have: see `map_list`
    BLOCKS              address, 0 for lists that are unpacked: the state of its blocks, see
                        `text_blocks`

    plan      TABLE     int64[slots, parts, LIST]
              CEILINGS  float64[slots, parts], the largest impact in each list
              WEIGHTS   float64[slots]
              COLUMN_OF int64[slots]
              NORMS     float64[columns, NORM]: BASE, SLOPE, VARIANT, SCALE, K1, DELTA, and FACTOR,
                        the column's own weight
              IMPACTS   int64[slots, parts], addresses of float64[COUNT]: the impact of each
                        posting, which follows from the columns above; 0 where it is not kept

A list that has been checked is remembered with the shortest length of a row for each frequency:
impacts fall with the length and grow with the frequency, so the largest impact in the list follows
from these whatever the statistics of a snapshot are.

Invariants
    M4  What a kernel reads of a file through addresses has been checked before: the bounds of the
        list, and that its ordinals ascend and are below the number of rows (T4).
"""


# mypy: disable-error-code="untyped-decorator, no-untyped-call, no-any-return"
# mypy: disable-error-code="misc, return-value, operator"

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit, types

from m2mdb.compute.hrm2 import simd as simd_module
from m2mdb.compute.loader import kernel_cache
from m2mdb.compute.pointers import bytes_at, doubles_at, longs_at, offsets_at, words_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]
    Bytes = NDArray[np.uint8]

simd: Any = simd_module
bit_count = simd.bit_count

# a list
DOCS, FREQUENCIES, KIND, COUNT, BY_IMPACT, RUNS, BITMAP, BLOCKS, LIST = 0, 1, 2, 3, 4, 5, 6, 7, 8
RUN_FREQUENCY, RUN_LENGTH, RUN_STOP, RUN = 0, 1, 2, 3
RUN_WINDOW, RUN_WINDOWS, RUN_COUNT, RUN_HEAD = 0, 1, 2, 3
BYTES, WORDS, HALVES = 0, 1, 2
# a plan
TABLE, CEILINGS, WEIGHTS, COLUMN_OF, NORMS, PARTS, COLUMNS, IMPACTS, PLAN = range(9)
# a column's norms
BASE, SLOPE, VARIANT, SCALE, K1, DELTA, FACTOR, NORM = 0, 1, 2, 3, 4, 5, 6, 7
LENGTHS_FIRST = 3  # of a part: `text_kernels.FIRST_LENGTHS`
RATIO, RAISED = 0.0, 1.0  # VARIANT: tf scale / (tf + norm), or that of BM25L
# a text segment, for `check_list`
(
    TERMS, TERM_BYTES, TERM_OFFSETS, TERM_COUNT, LIST_STARTS, POSTINGS, ALL_DOCS, ALL_FREQUENCIES,
    LENGTHS, ROWS, DOCUMENTS, PACKED, PACKED_BYTES, IS_WIDE, SEGMENT,
) = range(15)  # fmt: skip
# what is remembered of a checked list: its row, and the shortest length with each frequency
FREQUENCIES_APART = 16  # frequencies from here on are one class
MOST = LIST + FREQUENCIES_APART + 1  # the largest frequency
CHECKED = MOST + 1
NO_LENGTH = 1 << 32  # longer than any
FINE_LENGTHS, LENGTH_CLASSES = 64, 64 + 16 * 26  # of a frequency's class; the first are exact
FREQUENCY_CLASSES = 4  # 1, 2, 3, and more
RUN_CLASSES = FREQUENCY_CLASSES * LENGTH_CLASSES
FOUND, ABSENT, ESCAPED, DAMAGED = 0, 1, 2, 3  # what `check_list` answers
IMPOSSIBLE = 1 << 40
ESCAPE = 255  # a u8 frequency that stands elsewhere, in lists that are not packed
MOST_BYTES = 5  # of a packed number

INT, FLOAT = types.int64, types.float64
INTS, FLOATS = types.int64[::1], types.float64[::1]
PAIR = types.UniTuple(types.int64, 2)
READ_BYTES = types.Array(types.uint8, 1, "C", readonly=True)


def kernel(*signature: Any) -> Callable[[Any], Any]:
    """Compile for one signature, without licence to reorder or contract sums (M2)."""

    def compiled(function: Any) -> Any:
        with kernel_cache():
            return njit(
                signature[0](*signature[1:]),
                nogil=True,
                error_model="numpy",
                boundscheck=False,
                cache=True,
            )(function)

    return compiled


# ------------------------------------------------------------------------- one posting


@kernel(FLOAT, INT, INT, INT)
def frequency_at(frequencies: int, kind: int, at: int) -> float:
    """A frequency of a list."""
    if kind == BYTES:
        return np.float64(bytes_at(frequencies)[at])
    if kind == WORDS:
        return np.float64(words_at(frequencies)[at])
    return doubles_at(frequencies)[at]


@kernel(FLOAT, FLOAT, FLOAT, INT)
def impact_of(frequency: float, length: float, norms: int) -> float:
    """`Variant.impact`, of the column whose row of NORMS has the address `norms`."""
    column = doubles_at(norms)
    norm = length * column[SLOPE] + column[BASE]
    if column[VARIANT] == RATIO:
        return frequency * column[SCALE] / (frequency + norm)
    raised = frequency / norm + column[DELTA]
    return frequency * column[SCALE] * raised / (column[K1] + raised)


@kernel(INT, INT, INT, INT, INT)
def first_at_least(docs: int, low: int, high: int, ordinal: int) -> int:
    """The first of a list's places low..high whose ordinal is not below `ordinal`."""
    items = words_at(docs)
    while low < high:
        middle = (low + high) >> 1
        if np.int64(items[middle]) < ordinal:
            low = middle + 1
        else:
            high = middle
    return low


@kernel(INT, INT, INT)
def place_in(bitmap: int, ordinal: int) -> int:
    """Which posting of a list that has a bitmap is of a row, -1 where none is."""
    pairs = longs_at(bitmap)
    at, bit = ordinal >> 6 << 1, np.int64(1) << (ordinal & 63)
    if pairs[at] & bit == 0:
        return np.int64(-1)
    return pairs[at + 1] + bit_count(pairs[at] & (bit - 1))


@kernel(types.void, INTS, INTS)
def map_list(checked: Ints, bitmap: Ints) -> None:
    """Make the bitmap of a list that has been checked: its posting of a row is found at once.

    bitmap    int64, all 0; written: for each 64 rows of the part a bit for each that the list has,
              and how many it has before them
    """
    docs = words_at(checked[DOCS])
    for at in range(checked[COUNT]):
        ordinal = np.int64(docs[at])
        bitmap[ordinal >> 6 << 1] |= np.int64(1) << (ordinal & 63)
    before = np.int64(0)
    for at in range(0, len(bitmap), 2):
        bitmap[at + 1] = before
        before += bit_count(bitmap[at])


# ------------------------------------------------------------------------- lists of a file


@kernel(INT, INTS, INT, READ_BYTES)
def _compare(segment: Ints, term_id: int, term: Bytes) -> int:
    """Below, at or above 0 as a term of the segment is to `term`; IMPOSSIBLE if it lies outside."""
    blob, offsets = bytes_at(segment[TERMS]), words_at(segment[TERM_OFFSETS])
    start, stop = np.int64(offsets[term_id]), np.int64(offsets[term_id + 1])
    if stop < start or stop > segment[TERM_BYTES]:
        return np.int64(IMPOSSIBLE)
    size = np.int64(len(term))
    for i in range(min(size, stop - start)):
        order = np.int64(blob[start + i]) - np.int64(term[i])
        if order != 0:
            return order
    return (stop - start) - size


@kernel(INT, INTS, READ_BYTES)
def _term_id(segment: Ints, term: Bytes) -> int:
    """The id of a term, -1 where the segment has it not, -2 where offsets cannot be."""
    low, high = np.int64(0), segment[TERM_COUNT]
    while low < high:
        middle = (low + high) >> 1
        order = _compare(segment, middle, term)
        if order == IMPOSSIBLE:
            return np.int64(-2)
        if order < 0:
            low = middle + 1
        else:
            high = middle
    if low == segment[TERM_COUNT]:
        return np.int64(-1)
    order = _compare(segment, low, term)
    if order == IMPOSSIBLE:
        return np.int64(-2)
    return low if order == 0 else np.int64(-1)


@kernel(types.void, INTS, INT)
def note_lengths(checked: Ints, lengths: int) -> None:
    """Fill in the shortest lengths, and the largest frequency, of a list whose row is there."""
    sizes, docs = words_at(lengths), words_at(checked[DOCS])
    for i in range(LIST, CHECKED):
        checked[i] = NO_LENGTH
    most = 0.0
    for at in range(checked[COUNT]):
        frequency = frequency_at(checked[FREQUENCIES], checked[KIND], at)
        most = max(most, frequency)
        place = LIST + min(np.int64(np.ceil(frequency)), FREQUENCIES_APART)
        checked[place] = min(checked[place], np.int64(sizes[docs[at]]))
    checked[MOST] = np.int64(np.ceil(most))


@kernel(INT, FLOAT, INT)
def _run_class(frequency: float, length: int) -> int:
    """The class of a posting: large frequencies first, and in each the short texts."""
    rank = FREQUENCY_CLASSES - min(max(np.int64(np.ceil(frequency)), 1), FREQUENCY_CLASSES)
    place = length
    if length >= FINE_LENGTHS:
        shift = 0
        while length >> (shift + 1) >= FINE_LENGTHS:
            shift += 1
        place = FINE_LENGTHS + 16 * shift + ((length >> (shift + 2)) & 15)
    return rank * LENGTH_CLASSES + place


@kernel(types.boolean, INT, INT, INT)
def is_even(kind: int, frequency: int, length: int) -> bool:
    """Whether all postings of a run have the frequency and the length that stand for it."""
    return kind != HALVES and frequency < FREQUENCY_CLASSES and length < FINE_LENGTHS


@kernel(INT, INTS, INT, INT, INTS, types.uint32[::1], INTS)
def order_list(
    checked: Ints, lengths: int, window: int, counts: Ints, order: Any, runs: Ints
) -> int:
    """Order a list that has been checked by what its postings can add; returns the items of `runs`.

    lengths   address of the lengths of the part's rows
    window    rows of a window: each is ordered by itself
    counts    int64[RUN_CLASSES], scratch, all 0 before and after
    order     u32[COUNT], written
    runs      int64, written: RUN_HEAD + windows + 1 + RUN * min(COUNT, windows * RUN_CLASSES) items
    """
    sizes, docs, count = words_at(lengths), words_at(checked[DOCS]), checked[COUNT]
    windows = np.int64(docs[count - 1]) // window + 1
    found, start, first_run = np.int64(0), np.int64(0), RUN_HEAD + windows + 1
    for each in range(windows):
        runs[RUN_HEAD + each] = found
        stop = first_at_least(checked[DOCS], start, count, (each + 1) * window)
        for at in range(start, stop):
            frequency = frequency_at(checked[FREQUENCIES], checked[KIND], at)
            counts[_run_class(frequency, np.int64(sizes[docs[at]]))] += 1
        ends = start
        for kind in range(RUN_CLASSES):
            if counts[kind]:
                some = counts[kind]
                counts[kind] = found
                ends += some
                place = first_run + RUN * found
                runs[place + RUN_FREQUENCY] = ends - some  # until it is known: where to write next
                runs[place + RUN_LENGTH], runs[place + RUN_STOP] = NO_LENGTH, ends
                found += 1
        for at in range(start, stop):
            length = np.int64(sizes[docs[at]])
            kind = _run_class(frequency_at(checked[FREQUENCIES], checked[KIND], at), length)
            place = first_run + RUN * counts[kind]
            order[runs[place + RUN_FREQUENCY]] = at
            runs[place + RUN_FREQUENCY] += 1
            runs[place + RUN_LENGTH] = min(runs[place + RUN_LENGTH], length)
        for run in range(runs[RUN_HEAD + each], found):
            place = first_run + RUN * run
            most = 0.0
            begin = start if run == runs[RUN_HEAD + each] else runs[place - RUN + RUN_STOP]
            for at in range(begin, runs[place + RUN_STOP]):
                most = max(most, frequency_at(checked[FREQUENCIES], checked[KIND], order[at]))
            runs[place + RUN_FREQUENCY] = np.int64(np.ceil(most))
            if is_even(checked[KIND], runs[place + RUN_FREQUENCY], runs[place + RUN_LENGTH]):
                for at in range(begin, runs[place + RUN_STOP]):
                    order[at] = docs[order[at]]
        for at in range(start, stop):
            frequency = frequency_at(checked[FREQUENCIES], checked[KIND], at)
            counts[_run_class(frequency, np.int64(sizes[docs[at]]))] = 0
        start = stop
    runs[RUN_HEAD + windows] = found
    runs[RUN_WINDOW], runs[RUN_WINDOWS], runs[RUN_COUNT] = window, windows, found
    return first_run + RUN * found


@kernel(INT, INTS, READ_BYTES, INTS)
def check_list(segment: Ints, term: Bytes, out: Ints) -> int:
    """Find the list of a term in a segment, and see that it may be read (T4).

    out     int64[CHECKED]: the list, the shortest length with each frequency, the largest one
    Returns FOUND, ABSENT, ESCAPED (found, but some frequencies stand elsewhere) or DAMAGED
    """
    found = _term_id(segment, term)
    if found < 0:
        return ABSENT if found == -1 else DAMAGED
    starts = offsets_at(segment[LIST_STARTS])
    start, stop = np.int64(starts[found]), np.int64(starts[found + 1])
    if start < 0 or stop <= start or stop > segment[POSTINGS]:
        return DAMAGED
    if stop - start > segment[DOCUMENTS]:
        return DAMAGED
    out[DOCS] = segment[ALL_DOCS] + 4 * start
    out[FREQUENCIES] = segment[ALL_FREQUENCIES] + start
    out[KIND], out[BY_IMPACT], out[RUNS], out[BITMAP], out[BLOCKS] = BYTES, 0, 0, 0, 0
    out[COUNT] = stop - start
    docs, frequencies = words_at(out[DOCS]), bytes_at(out[FREQUENCIES])
    before = np.int64(-1)
    status = FOUND
    for at in range(stop - start):
        ordinal = np.int64(docs[at])
        if ordinal <= before or ordinal >= segment[ROWS] or frequencies[at] == 0:
            return DAMAGED
        if frequencies[at] == ESCAPE:
            status = ESCAPED
        before = ordinal
    if status == FOUND:
        note_lengths(out, segment[LENGTHS])
    return status


@kernel(PAIR, INT, INT, INT)
def number_at(packed: int, at: int, stop: int) -> tuple[int, int]:
    """The number that begins at a byte, and the byte behind it; (-1, ...) where it is cut."""
    raw = bytes_at(packed)
    value = np.int64(0)
    for group in range(MOST_BYTES):
        if at >= stop:
            return np.int64(-1), at
        byte = np.int64(raw[at])
        at += 1
        value |= (byte & 127) << (7 * group)
        if byte < 128:
            return value, at
    return np.int64(-1), at


@kernel(types.boolean, READ_BYTES, INTS, INTS)
def unpack_numbers(packed: Bytes, numbers: Ints, begins: Ints) -> bool:
    """Unpack as many numbers as there is room for; False where they are not all the bytes.

    numbers, begins   int64[n], written: the numbers, and where each begins
    Twin              `index.text.packed.unpack_numbers`
    """
    at = np.int64(0)
    stop = np.int64(len(packed))
    for i in range(len(numbers)):
        begins[i] = at
        value = np.int64(0)
        for group in range(MOST_BYTES + 1):
            if at >= stop or group == MOST_BYTES:
                return False
            byte = np.int64(packed[at])
            at += 1
            value |= (byte & 127) << (7 * group)
            if byte < 128:
                break
        numbers[i] = value
    return at == stop


@kernel(INT, INTS, READ_BYTES, INTS)
def find_packed(segment: Ints, term: Bytes, out: Ints) -> int:
    """Find the packed list of a term (`index.text.packed`).

    out     int64[4]: how many rows have the term, the bytes from the first of them to the end, and
            the term's number
    Returns FOUND, ABSENT or DAMAGED
    """
    found = _term_id(segment, term)
    if found < 0:
        return ABSENT if found == -1 else DAMAGED
    if segment[IS_WIDE]:
        wide = offsets_at(segment[LIST_STARTS])
        at, stop = np.int64(wide[found]), np.int64(wide[found + 1])
    else:
        narrow = words_at(segment[LIST_STARTS])
        at, stop = np.int64(narrow[found]), np.int64(narrow[found + 1])
    if at < 0 or stop <= at or stop > segment[PACKED_BYTES]:
        return DAMAGED
    count, at = number_at(segment[PACKED], at, stop)
    if count < 1 or count > segment[DOCUMENTS] or count > stop - at:
        return DAMAGED
    out[0], out[1], out[2], out[3] = count, at, stop, found
    return FOUND


@kernel(INT, INTS, INTS, INTS)
def unpack_list(segment: Ints, place: Ints, out: Ints) -> int:
    """Unpack a list that `find_packed` has found.

    out     as `check_list`'s; the list's row is filled in: its arrays, u32 and u8, are written
    Returns FOUND, ESCAPED (a frequency is too large for a byte) or DAMAGED
    """
    packed, at, stop = segment[PACKED], place[1], place[2]
    docs, frequencies = words_at(out[DOCS]), bytes_at(out[FREQUENCIES])
    ordinal = np.int64(-1)
    for i in range(place[0]):
        head, at = number_at(packed, at, stop)
        if head < 0:
            return DAMAGED
        ordinal += (head >> 1) + 1
        if ordinal >= segment[ROWS]:
            return DAMAGED
        docs[i] = ordinal
        frequencies[i] = 1 + (head & 1)
    for i in range(place[0]):
        if frequencies[i] > 1:
            more, at = number_at(packed, at, stop)
            if more < 0:
                return DAMAGED
            if more + 2 > 255:
                return ESCAPED
            frequencies[i] = more + 2
    note_lengths(out, segment[LENGTHS])
    return FOUND


@kernel(FLOAT, INTS, INT)
def ceiling(checked: Ints, norms: int) -> float:
    """The largest impact in a list: impacts fall with the length and grow with the frequency."""
    largest = 0.0
    for i in range(FREQUENCIES_APART + 1):
        length = checked[LIST + i]
        if length < NO_LENGTH:
            frequency = i if i < FREQUENCIES_APART else checked[MOST]
            largest = max(largest, impact_of(np.float64(frequency), np.float64(length), norms))
    return largest


@kernel(FLOAT, INTS, INTS, INT, INT, INT)
def place_list(plan: Ints, checked: Ints, slot: int, part: int, column: int) -> float:
    """Write a checked list into the tables of a plan; returns its ceiling."""
    at = slot * plan[PARTS] + part
    row = longs_at(plan[TABLE])
    for i in range(LIST):
        row[at * LIST + i] = checked[i]
    largest = ceiling(checked, plan[NORMS] + 8 * NORM * column)
    doubles_at(plan[CEILINGS])[at] = largest
    return largest


@kernel(types.void, INTS, INTS, INT, INT, FLOATS)
def note_impacts(plan: Ints, parts: Ints, slot: int, part: int, impacts: Floats) -> None:
    """Work out the impact of each posting of a list that is placed.

    parts    row of the part, as `text_kernels` takes it: addresses of lengths from LENGTHS_FIRST on
    impacts  float64[COUNT], written
    """
    row = longs_at(plan[TABLE] + 8 * LIST * (slot * plan[PARTS] + part))
    column = longs_at(plan[COLUMN_OF])[slot]
    norms, sizes = plan[NORMS] + 8 * NORM * column, words_at(parts[LENGTHS_FIRST + column])
    docs = words_at(row[DOCS])
    for i in range(row[COUNT]):
        impacts[i] = impact_of(
            frequency_at(row[FREQUENCIES], row[KIND], i), np.float64(sizes[docs[i]]), norms
        )
