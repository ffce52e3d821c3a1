"""Blocks of lists: what a search has to know of a long list to unpack only some of it.

Beside the lists of a segment stand three parts, for its lists of LEAST_BLOCKED postings or more:

    block_terms    u32[n]        numbers of the terms that have such a list, ascending
    block_starts   u32[n + 1]    the first of each list's blocks, and the end
    blocks         u32[3 * m]    of each block, POSTINGS of a list's postings or what is left:
                                 its last ordinal
                                 bytes of its ordinals, + bytes of its frequencies << 16
                                 its largest frequency (255: 255 or more), + << 8, 16 and 24 the
                                 shortest length of its rows that have the term once, twice, and
                                 more often

A length stands in a byte, rounded down: exact below 128, then in eight steps an octave; 255 where
no row has that frequency. Impacts grow with the frequency and fall with the length, so these give a
bound on a block's impacts whatever the statistics of a later snapshot are.

Absent in segments of older builds, and in those that have no such list.

Invariants
    T8  The parts follow from the lists and the lengths: the integrity check makes them again. A
        search checks only that they fit the list: a maximum that is wrong can hide a row from it,
        not crash it (M5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from m2mdb.index.slices import Check, slices, unchecked
from m2mdb.pager.errors import CorruptDatabaseError

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from m2mdb.index.text.packed import Postings

    Ints = NDArray[np.int64]
    Words = NDArray[np.uint32]

LEAST_BLOCKED = 1 << 10  # postings of a list that is worth unpacking in part
POSTINGS = 128  # of a block
STORED = 3  # u32 of a block
PARTS = ("block_terms", "block_starts", "blocks")
MOST_FREQUENCY = 255  # stored for larger ones too: their lists are unpacked whole
EXACT_LENGTHS = 128  # see `compute.text_blocks`
NO_ROW = 255
_SLICE = POSTINGS << 11  # postings between two checks for an interrupt
_OCTAVES = 15  # whose steps have a code below NO_ROW


def block_parts(
    postings: Postings,
    lengths: NDArray[np.uint32],
    check: Check = unchecked,
    least: int | None = None,
) -> dict[str, NDArray[np.uint32]]:
    """The parts of some lists, which are those of all terms; {} where none is long enough.

    check  called between slices of the work; it may raise
    least  postings of a list that is; None: LEAST_BLOCKED
    """
    terms = np.flatnonzero(postings.counts >= (LEAST_BLOCKED if least is None else least))
    if not len(terms):
        return {}
    ends = np.cumsum(postings.counts)[terms]
    counts = postings.counts[terms]
    blocks = -(-counts // POSTINGS)
    starts = np.concatenate(([0], np.cumsum(blocks)))
    words = np.empty((int(starts[-1]), STORED), np.uint32)
    for i in range(len(terms)):  # each at least LEAST_BLOCKED long: there are few
        first = int(ends[i] - counts[i])
        docs = postings.docs[first : int(ends[i])]
        frequencies = postings.frequencies[first : int(ends[i])]
        for some in slices(len(docs), _SLICE, check):
            own = words[starts[i] + some.start // POSTINGS : starts[i + 1]][: _SLICE // POSTINGS]
            before = int(docs[some.start - 1]) if some.start else -1
            _write_blocks(before, docs[some], frequencies[some], lengths, own)
    parts: tuple[NDArray[Any], ...] = (terms, starts, words.reshape(-1))
    return {name: part.astype("<u4") for name, part in zip(PARTS, parts, strict=True)}


def _write_blocks(
    before: int,
    docs: Ints,
    frequencies: Ints,
    lengths: NDArray[np.uint32],
    words: NDArray[np.uint32],
) -> None:
    """The blocks of a list, or of some of it that is behind the ordinal `before`."""
    first = np.arange(0, len(docs), POSTINGS)
    sizes = lengths[docs]
    more = frequencies > 1
    heads = np.diff(docs, prepend=before) - 1 << 1 | more
    extra = np.where(more, _size_of(frequencies - 2), 0)
    words[:, 0] = docs[np.append(first[1:], len(docs)) - 1]
    words[:, 1] = np.add.reduceat(_size_of(heads), first) | np.add.reduceat(extra, first) << 16
    bound = np.minimum(np.maximum.reduceat(frequencies, first), MOST_FREQUENCY).astype(np.int64)
    none = np.uint32(0xFFFFFFFF)
    for each, is_one in enumerate((~more, frequencies == 2, frequencies > 2)):
        shortest = np.minimum.reduceat(np.where(is_one, sizes, none), first)
        has = np.logical_or.reduceat(is_one, first)
        bound |= np.where(has, length_codes(shortest), NO_ROW) << (8 * each + 8)
    words[:, 2] = bound


def _size_of(numbers: Ints) -> Ints:
    """How many bytes packed numbers take (`packed.pack_numbers`)."""
    sizes = np.ones(len(numbers), np.int64)
    for size in range(1, 5):
        above = numbers >= 1 << 7 * size
        if not above.any():
            break
        sizes += above
    return sizes


def length_codes(lengths: NDArray[np.uint32]) -> Ints:
    """The byte that stands for each length, which `text_blocks.shortest` reads."""
    whole = lengths.astype(np.int64)
    octave = np.frexp(np.maximum(whole, 1).astype(np.float64))[1] - 8
    octave = np.clip(octave, 0, _OCTAVES)
    steps = EXACT_LENGTHS + 8 * octave + np.minimum((whole >> (octave + 4)) - 8, 7)
    found: Ints = np.where(whole < EXACT_LENGTHS, whole, np.minimum(steps, NO_ROW - 1))
    return found


class Blocks:
    """The parts of a segment, read."""

    __slots__ = ("_starts", "_terms", "_where", "_words")

    def __init__(self, terms: Words, starts: Words, words: Words, where: str) -> None:
        """Raises CorruptDatabaseError where their sizes disagree."""
        self._terms, self._starts, self._words, self._where = terms, starts, words, where
        if len(starts) != len(terms) + 1 or len(words) != STORED * int(starts[-1]) or starts[0]:
            raise CorruptDatabaseError(
                f"{where}: {len(words)} numbers of blocks, of {len(terms)} lists with "
                f"{len(starts)} starts"
            )

    def is_made_of(self, parts: dict[str, NDArray[np.uint32]]) -> bool:
        """Whether these are what `block_parts` gives (T8)."""
        own = (self._terms, self._starts, self._words)
        return all(
            name in parts and np.array_equal(parts[name], array)
            for name, array in zip(PARTS, own, strict=True)
        )

    @staticmethod
    def has_large(words: NDArray[Any]) -> bool:
        """Whether some frequency of a list has no byte of its own."""
        return bool((words[2::STORED] & 0xFF == MOST_FREQUENCY).any())

    def of(self, term_id: int, count: int) -> NDArray[Any] | None:
        """The blocks of a term's list of `count` postings; None where it has none."""
        at = int(np.searchsorted(self._terms, term_id))
        if at == len(self._terms) or self._terms[at] != term_id:
            return None
        start, stop = int(self._starts[at]), int(self._starts[at + 1])
        if stop - start != -(-count // POSTINGS) or STORED * stop > len(self._words):
            raise CorruptDatabaseError(
                f"{self._where}: blocks {start}..{stop} of a list of {count} rows"
            )
        return self._words[STORED * start : STORED * stop]
