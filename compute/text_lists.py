"""Posting lists as compiled kernels see them: rows of addresses, checked once, with their bounds.

A *list* is one row of LIST items; a *slot* is one term of one column, with a list in each part:

    DOCS, FREQUENCIES   addresses: u32 ordinals, ascending; frequencies of the dtype KIND
    KIND                BYTES (u8), WORDS (u32) or HALVES (float64, whole and half numbers)
    COUNT               postings, 0 where the part has none

    plan      TABLE     int64[slots, parts, LIST]
              CEILINGS  float64[slots, parts], the largest impact in each list
              WEIGHTS   float64[slots]
              COLUMN_OF int64[slots]
              NORMS     float64[columns, NORM]: BASE, SLOPE, VARIANT, SCALE, K1, DELTA, and FACTOR,
                        the column's own weight

A list that has been checked is remembered with the shortest length of a row for each frequency:
impacts fall with the length and grow with the frequency, so the largest impact in the list follows
from these whatever the statistics of a snapshot are.

Invariants
    M4  What a kernel reads of a file through addresses has been checked before: the bounds of the
        list, and that its ordinals ascend and are below the number of rows (T4).
"""


# mypy: disable-error-code="untyped-decorator, no-untyped-call, no-any-return, no-untyped-def"
# mypy: disable-error-code="misc, return-value, operator"

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

from m2mdb.compute.loader import kernel_cache

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]
    Bytes = NDArray[np.uint8]

# a list
DOCS, FREQUENCIES, KIND, COUNT, LIST = 0, 1, 2, 3, 4
BYTES, WORDS, HALVES = 0, 1, 2
# a plan
TABLE, CEILINGS, WEIGHTS, COLUMN_OF, NORMS, PARTS, COLUMNS, PLAN = 0, 1, 2, 3, 4, 5, 6, 7
# a column's norms
BASE, SLOPE, VARIANT, SCALE, K1, DELTA, FACTOR, NORM = 0, 1, 2, 3, 4, 5, 6, 7
RATIO, RAISED = 0.0, 1.0  # VARIANT: tf scale / (tf + norm), or that of BM25L
# a text segment, for `check_list`
(
    TERMS, TERM_BYTES, TERM_OFFSETS, TERM_COUNT, LIST_STARTS, POSTINGS, ALL_DOCS, ALL_FREQUENCIES,
    LENGTHS, ROWS, DOCUMENTS, SEGMENT,
) = range(12)  # fmt: skip
# what is remembered of a checked list: its row, and the shortest length with each frequency
FREQUENCIES_APART = 16  # frequencies from here on are one class
MOST = LIST + FREQUENCIES_APART + 1  # the largest frequency
CHECKED = MOST + 1
NO_LENGTH = 1 << 32  # longer than any
FOUND, ABSENT, ESCAPED, DAMAGED = 0, 1, 2, 3  # what `check_list` answers
ESCAPE = 255  # a u8 frequency that stands elsewhere

INT, FLOAT = types.int64, types.float64
INTS, FLOATS = types.int64[::1], types.float64[::1]
READ_BYTES = types.Array(types.uint8, 1, "C", readonly=True)


def _pointer_to(item: Any) -> Any:
    """An intrinsic that makes an address a pointer to items of a type; nothing is checked."""

    @intrinsic
    def pointer(typingctx, address):
        kind = types.CPointer(item)

        def codegen(context, builder, sig, args):
            return builder.inttoptr(args[0], context.get_value_type(kind))

        return kind(types.int64), codegen

    return pointer


bytes_at, words_at, halves_at = (
    _pointer_to(types.uint8),
    _pointer_to(types.uint32),
    _pointer_to(types.float64),
)
longs_at, offsets_at = _pointer_to(types.int64), _pointer_to(types.uint64)


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
    return halves_at(frequencies)[at]


@kernel(FLOAT, FLOAT, FLOAT, INT)
def impact_of(frequency: float, length: float, norms: int) -> float:
    """`Variant.impact`, of the column whose row of NORMS has the address `norms`."""
    column = halves_at(norms)
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


# ------------------------------------------------------------------------- lists of a file


@kernel(INT, INTS, READ_BYTES)
def _term_id(segment: Ints, term: Bytes) -> int:
    """The id of a term, -1 where the segment has it not, -2 where offsets cannot be."""
    blob, offsets = bytes_at(segment[TERMS]), words_at(segment[TERM_OFFSETS])
    low, high = np.int64(0), segment[TERM_COUNT]
    size = np.int64(len(term))
    while low < high:
        middle = (low + high) >> 1
        start, stop = np.int64(offsets[middle]), np.int64(offsets[middle + 1])
        if stop < start or stop > segment[TERM_BYTES]:
            return np.int64(-2)
        order = np.int64(0)
        shorter = min(size, stop - start)
        for i in range(shorter):
            order = np.int64(blob[start + i]) - np.int64(term[i])
            if order != 0:
                break
        if order == 0:
            order = (stop - start) - size
        if order == 0:
            return middle
        if order < 0:
            low = middle + 1
        else:
            high = middle
    return np.int64(-1)


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
    out[KIND] = BYTES
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
    halves_at(plan[CEILINGS])[at] = largest
    return largest
