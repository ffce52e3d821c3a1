"""Packed lists: postings and positions of all terms of a segment as one run of small numbers.

A list is a sequence of numbers, and so is the part `lists`, list behind list. A number is written
in groups of seven bits, the lowest first, one a byte; all bytes but its last have the highest bit.

    documents            how many rows have the term
    gap << 1 | more      for each row: ordinals passed over since the row before; 1 = more than once
    frequency - 2        for each row that has the term more than once
    gap                  where the index has positions, row by row, for each place: terms passed
                         over since the place before in the same text

So a frequent term takes a byte a row, and one a position. Who asks for a list remembers it.

Invariants
    T6  Ordinals and positions ascend however the bytes are: gaps are not negative. What is checked
        is that a list ends where the next begins, and its last ordinal is below the number of rows.
    T7  A sequence of lists has one packed form: the least bytes for each number.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from m2mdb.compute.text_backend import loaded
from m2mdb.index.slices import SORTED_NUMBERS, Check, joined, slices, unchecked
from m2mdb.pager.errors import CorruptDatabaseError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Words = NDArray[np.uint64]
    Bytes = NDArray[np.uint8]
    Frequencies = NDArray[np.uint8] | NDArray[np.uint32]

MOST_BYTES = 5  # of a number: 35 bits
LARGEST = 0xFFFFFFFF  # frequency or position


class Postings(NamedTuple):
    """The postings of some terms, one list behind the other.

    counts       int64, documents of each term
    docs         int64, ordinals, ascending within a term
    frequencies  int64
    positions    int64, those of each posting behind those of the posting before; None: not known
    """

    counts: Ints
    docs: Ints
    frequencies: Ints
    positions: Ints | None


def ranges(starts: Ints, counts: Ints) -> Ints:
    """start, start + 1, … of each pair, `count` numbers long, one run behind the other."""
    before = np.cumsum(counts) - counts
    found: Ints = np.arange(int(counts.sum()), dtype=np.int64) + np.repeat(starts - before, counts)
    return found


def gaps(values: Ints, counts: Ints) -> Ints:
    """In each run: the first value, then what lies between a value and the one before it."""
    found = np.empty(len(values), np.int64)
    found[:1] = values[:1]
    found[1:] = values[1:] - values[:-1] - 1
    firsts = (np.cumsum(counts) - counts)[counts > 0]
    found[firsts] = values[firsts]
    return found


def ungapped(found: Ints, counts: Ints, check: Check = unchecked) -> Ints:
    """The values that `gaps` was given; `check` is called between slices of many."""
    if len(counts) == 1:
        sums: Ints = np.cumsum(found + 1)
        sums -= 1
        return sums
    if len(found) <= 4 * SORTED_NUMBERS or len(counts) <= SORTED_NUMBERS:
        return _ungapped(found, counts)
    pieces: list[Ints] = []
    at = 0
    for some in slices(len(counts), SORTED_NUMBERS, check):
        end = at + int(counts[some].sum())
        pieces.append(_ungapped(found[at:end], counts[some]))
        at = end
    return joined(pieces, check)


def _ungapped(found: Ints, counts: Ints) -> Ints:
    sums = np.cumsum(found + 1)
    ends = np.cumsum(counts)
    before = np.where(ends > counts, sums[np.maximum(ends - counts, 1) - 1], 0) if len(sums) else 0
    found_values: Ints = sums - np.repeat(before, counts) - 1
    return found_values


def _within(numbers: Ints, starts: Ints, counts: Ints) -> Ints:
    """The numbers of some runs, one behind the other."""
    if len(starts) == 1:
        return numbers[int(starts[0]) : int(starts[0] + counts[0])]
    found: Ints = numbers[ranges(starts, counts)]
    return found


def runs_of(sizes: Ints, most: int) -> list[tuple[int, int]]:
    """Neighbouring things in runs of about `most` together: the first of each, and behind it."""
    ends = np.cumsum(sizes)
    if not len(ends):
        return []
    bounds = np.searchsorted(ends, np.arange(most, int(ends[-1]), most), "right")
    cuts = np.unique(np.concatenate(([0], bounds, bounds + 1, [len(ends)])))
    cuts = cuts[cuts <= len(ends)].tolist()
    return list(pairwise(cuts))


def pack(postings: Postings, check: Check = unchecked) -> tuple[Bytes, Ints]:
    """The bytes of the lists, and where each begins, with the end behind it.

    check  called between slices of the work; it may raise
    """
    counts, docs, frequencies, positions = postings
    if len(docs) <= SORTED_NUMBERS and (positions is None or len(positions) <= SORTED_NUMBERS):
        check()
        return _packed_run(postings)
    rows = np.concatenate(([0], np.cumsum(counts)))
    tokens = np.zeros_like(rows) if positions is None else _ends(frequencies, rows, check)
    packed: list[Bytes] = []
    starts: list[Ints] = []
    size = 0
    for first, last in runs_of(counts + np.diff(tokens), SORTED_NUMBERS):
        check()
        some = slice(int(rows[first]), int(rows[last]))
        places = None if positions is None else positions[int(tokens[first]) : int(tokens[last])]
        run = Postings(counts[first:last], docs[some], frequencies[some], places)
        if last - first == 1 and tokens[last] + rows[last] - rows[first] > SORTED_NUMBERS:
            found = joined(list(_packed_list(run, check)), check)
            begins = np.array([0, len(found)])
        else:
            found, begins = _packed_run(run)
        packed.append(found)
        starts.append(begins[:-1] + size)
        size += len(found)
    return joined(packed, check), np.append(joined(starts, check), size)


def _ends(frequencies: Ints, rows: Ints, check: Check) -> Ints:
    """How many tokens stand before each of some postings."""
    found, total = np.empty(len(rows), np.int64), 0
    for some in slices(len(frequencies), 2 * SORTED_NUMBERS, check):
        sums = np.cumsum(frequencies[some])
        first, last = np.searchsorted(rows, (some.start, some.stop))
        before = rows[first:last] - some.start
        found[first:last] = total + np.where(before > 0, sums[before - 1], 0)
        total += int(sums[-1])
    found[rows == len(frequencies)] = total
    return found


def _packed_run(postings: Postings) -> tuple[Bytes, Ints]:
    """`pack`, of lists that are not many."""
    counts, docs, frequencies, positions = postings
    more = frequencies > 1
    repeated = _sums(more, counts)
    tokens = _sums(frequencies, counts) if positions is not None else np.zeros_like(counts)
    sizes = 1 + counts + repeated + tokens
    first = np.cumsum(sizes) - sizes
    numbers = np.empty(int(sizes.sum()), np.uint64)
    numbers[first] = counts
    numbers[ranges(first + 1, counts)] = gaps(docs, counts) << 1 | more
    numbers[ranges(first + 1 + counts, repeated)] = frequencies[more] - 2
    if positions is not None:
        places = ranges(first + 1 + counts + repeated, tokens)
        numbers[places] = gaps(positions, frequencies)
    packed, begins = pack_numbers(numbers)
    return packed, np.append(begins[first], len(packed))


def _packed_list(postings: Postings, check: Check) -> Iterator[Bytes]:
    """`pack`, of one long list, piece by piece."""
    counts, docs, frequencies, positions = postings
    yield pack_numbers(counts.astype(np.uint64))[0]
    for some in slices(len(docs), SORTED_NUMBERS, check):
        before = docs[some.start - 1] if some.start else -1
        heads = np.diff(docs[some], prepend=before) - 1 << 1 | (frequencies[some] > 1)
        yield pack_numbers(heads.astype(np.uint64))[0]
    for some in slices(len(docs), SORTED_NUMBERS, check):
        own = frequencies[some]
        yield pack_numbers((own[own > 1] - 2).astype(np.uint64))[0]
    if positions is None:
        return
    at = 0
    for some in slices(len(docs), SORTED_NUMBERS, check):
        own = frequencies[some]
        end = at + int(own.sum())
        yield pack_numbers(gaps(positions[at:end], own).astype(np.uint64))[0]
        at = end


def _sums(values: NDArray[Any], counts: Ints) -> Ints:
    """The sum of each run of values."""
    sums = np.concatenate(([0], np.cumsum(values, dtype=np.int64)))
    ends = np.cumsum(counts)
    found: Ints = sums[ends] - sums[ends - counts]
    return found


def pack_numbers(numbers: Words) -> tuple[Bytes, Ints]:
    """The bytes of some numbers, and where each begins (T7)."""
    sizes = np.ones(len(numbers), np.int64)
    for size in range(1, MOST_BYTES):
        sizes += numbers >= np.uint64(1 << 7 * size)
    ends = np.cumsum(sizes)
    begins = ends - sizes
    found = np.empty(int(ends[-1]) if len(ends) else 0, np.uint8)
    for place in range(MOST_BYTES):
        some = np.flatnonzero(sizes > place)
        if not len(some):
            break
        group = (numbers[some] >> np.uint64(7 * place)) & np.uint64(127)
        group |= (sizes[some] > place + 1).astype(np.uint64) << np.uint64(7)
        found[begins[some] + place] = group.astype(np.uint8)
    return found, begins


def unpack_numbers(packed: Bytes, where: str, check: Check = unchecked) -> tuple[Ints, Ints]:
    """The numbers in some bytes, and where each begins; CorruptDatabaseError if they are cut.

    check  called between slices of many bytes; it may raise
    """
    if len(packed) <= 4 * SORTED_NUMBERS:
        return _unpacked(packed, where)
    numbers: list[Ints] = []
    begins: list[Ints] = []
    start = 0
    while start < len(packed):
        check()
        stop = min(start + 2 * SORTED_NUMBERS, len(packed))
        stop += _first_size(packed[stop - 1 :]) - 1  # to the end of a number
        found, starts = _unpacked(packed[start:stop], where)
        numbers.append(found)
        begins.append(starts + start)
        start = stop
    return joined(numbers, check), joined(begins, check)


def _unpacked(packed: Bytes, where: str) -> tuple[Ints, Ints]:
    kernels = loaded()
    if kernels is not None:
        numbers = np.empty(np.count_nonzero(packed < 128), np.int64)
        begins = np.empty_like(numbers)
        if kernels.lists.unpack_numbers(packed, numbers, begins):
            return numbers, begins
    ends = np.flatnonzero(packed < 128)
    if len(packed) and (not len(ends) or ends[-1] != len(packed) - 1):
        raise CorruptDatabaseError(f"{where}: a packed list is cut")
    begins = np.concatenate(([0], ends[:-1] + 1)) if len(ends) else ends
    sizes = ends - begins + 1
    if len(sizes) == len(packed):
        return packed.astype(np.int64), begins
    if sizes.max() > MOST_BYTES:
        raise CorruptDatabaseError(f"{where}: a packed number of {sizes.max()} bytes")
    numbers = packed[ends].astype(np.int64)
    for place in range(1, MOST_BYTES):  # from the last byte of a number to its first
        some = np.flatnonzero(sizes > place)
        if not len(some):
            break
        numbers[some] = numbers[some] << 7 | (packed[ends[some] - place] & 127)
    return numbers, begins


class PackedLists:
    """The lists of a segment, read from their bytes."""

    __slots__ = ("_documents", "_rows", "_where", "has_positions", "packed", "starts")

    def __init__(
        self, packed: Bytes, starts: NDArray[Any], bounds: tuple[int, int, bool], where: str
    ) -> None:
        """`starts`: u32 or u64, one more than there are terms.

        bounds   rows, which ordinals are below; documents; whether there are positions
        """
        self.packed = packed
        self.starts = starts
        rows, documents, self.has_positions = bounds
        self._rows = rows
        self._documents = documents
        self._where = where
        if starts[0] != 0 or starts[-1] != len(packed):
            raise CorruptDatabaseError(
                f"{where}: lists span {starts[0]}..{starts[-1]}, expected 0..{len(packed)}"
            )

    def _bytes(self, first: int, last: int) -> tuple[Bytes, Ints]:
        """The bytes of the lists first..last, and where each begins in them (T6)."""
        starts = self.starts[first : last + 1].astype(np.int64)
        if (starts[1:] <= starts[:-1]).any() or starts[0] < 0 or starts[-1] > len(self.packed):
            raise CorruptDatabaseError(
                f"{self._where}: a list at {starts[0]}..{starts[-1]} of {len(self.packed)} bytes"
            )
        return self.packed[starts[0] : starts[-1]], starts - starts[0]

    def count(self, term_id: int) -> int:
        """How many rows have a term."""
        packed, _ = self._bytes(term_id, term_id + 1)
        numbers, _ = unpack_numbers(packed[: _first_size(packed)], self._where)
        count = int(numbers[0])
        self._check_counts(numbers[:1])
        return count

    def counts(self) -> Ints:
        """How many rows have each term."""
        terms = len(self.starts) - 1
        if not terms:
            return np.empty(0, np.int64)
        packed, starts = self._bytes(0, terms)
        found = np.zeros(terms, np.int64)
        going = np.arange(terms)
        for place in range(MOST_BYTES):
            at = starts[going] + place
            if (at >= starts[going + 1]).any():
                raise CorruptDatabaseError(f"{self._where}: a packed list is cut")
            group = packed[at]
            found[going] |= (group & 127).astype(np.int64) << (7 * place)
            going = going[group >= 128]
            if not len(going):
                break
        self._check_counts(found)
        return found

    def _check_counts(self, counts: Ints) -> None:
        if len(counts) and not 1 <= counts.min() <= counts.max() <= self._documents:
            raise CorruptDatabaseError(
                f"{self._where}: a list of {counts.max()} rows, {self._documents} have a text"
            )

    def one(self, term_id: int, check: Check = unchecked) -> tuple[NDArray[np.uint32], Frequencies]:
        """The list of a term, checked; `check` as `postings` has it."""
        return self.some(term_id, term_id + 1, check)

    def some(
        self, first: int, last: int, check: Check = unchecked
    ) -> tuple[NDArray[np.uint32], Frequencies]:
        """The lists of the terms first..last, one behind the other; `check` as in `postings`."""
        found = self.postings(first, last, check=check)
        check()
        is_small = not len(found.frequencies) or found.frequencies.max() < 256
        kind: type[Any] = np.uint8 if is_small else np.uint32
        return found.docs.astype(np.uint32), found.frequencies.astype(kind)

    def faults(self) -> list[str]:
        """What does not hold beside the lists."""
        return []

    def postings(
        self, first: int, last: int, *, positions: bool = False, check: Check = unchecked
    ) -> Postings:
        """The lists of the terms first..last, checked (T4, T6); positions where they are wanted.

        check  called between steps over all of these lists; it may raise
        """
        if first >= last:
            none = np.empty(0, np.int64)
            return Postings(none, none, none, none if positions else None)
        packed, starts = self._bytes(first, last)
        numbers, begins = unpack_numbers(packed, self._where, check)
        at = np.searchsorted(begins, starts[:-1])
        if (begins[at] != starts[:-1]).any():
            self._fail("begins within a number")
        behind = np.append(at[1:], len(numbers))
        counts = numbers[at]
        self._check_counts(counts)
        check()
        at += 1
        if (at + counts > behind).any():
            self._fail("ends before its rows do")
        heads = _within(numbers, at, counts)
        at += counts
        check()
        docs = ungapped(heads >> 1, counts, check)
        if docs[np.cumsum(counts) - 1].max() >= self._rows:
            self._fail(f"has an ordinal that is not below {self._rows}")
        more = (heads & 1).astype(bool)
        repeated = _sums(more, counts)
        if (at + repeated > behind).any():
            self._fail("ends before its frequencies do")
        frequencies = np.ones(len(docs), np.int64)
        frequencies[more] = _within(numbers, at, repeated) + 2
        check()
        at += repeated
        tokens = _sums(frequencies, counts) if self.has_positions else 0
        if frequencies.max() > LARGEST or (at + tokens != behind).any():
            self._fail("does not end where it should")
        if not positions or not self.has_positions:
            return Postings(counts, docs, frequencies, None)
        places = ungapped(_within(numbers, at, behind - at), frequencies, check)
        if len(places) and places.max() > LARGEST:
            self._fail("has a position that no text has")
        return Postings(counts, docs, frequencies, places)

    def _fail(self, what: str) -> None:
        raise CorruptDatabaseError(f"{self._where}: a packed list {what}")


def _first_size(packed: Bytes) -> int:
    """How many bytes the first number has; all, where it has no end."""
    ends = np.flatnonzero(packed[: MOST_BYTES + 1] < 128)
    return int(ends[0]) + 1 if len(ends) else len(packed)
