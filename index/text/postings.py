"""Postings: the inverted lists of one FULLTEXT column of one segment, built and merged.

A column's lists are named byte arrays, *parts*, little-endian, stored in the segment's extent:

    part              type             content
    stats             u64[8]           version, size, documents, total length, terms, postings,
                                       1 where there are positions, 0
    terms             u8[]             all terms, ascending by bytes, one behind the other
    term_offsets      u32[terms + 1]   where each term begins in `terms`
    starts            u32 or u64       where each term's list begins in `lists`, and the end;
                      [terms + 1]      u64 where u32 is too small
    lists             u8[]             the lists, see `packed.py`
    lengths           u32[size]        terms of each document; NULL_LENGTH where the text is NULL

and, where some list is long, those of its blocks (`blocks.py`): block_terms, block_starts, blocks.

That is version 2. Version 1, which is read and merged, has no positions, and instead of `lists`:

    starts            u64[terms + 1]   where each term's list begins in `docs` and `freqs`
    docs              u32[postings]    ordinals, ascending within a list
    freqs             u8[postings]     how often the term stands in the document; 255 = see overflow
    overflow_at       u64[]            postings whose frequency is 255 or more, ascending
    overflow_freqs    u32[]            their frequencies

`size` counts ordinals, `documents` those whose text is not NULL, `total length` their terms. A
reader takes parts it does not know for later additions and leaves them.

Invariants
    T1  Terms ascend strictly, so a prefix is a range of terms and of lists.
    T2  A term has one list, not empty, whose ordinals ascend strictly and are below `size`.
    T3  Building is deterministic: the same texts give the same bytes, and merging segments gives
        the bytes that building from the kept texts in their new order gives (without positions,
        where one of the segments has none).
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

import numpy as np

from m2mdb.index.slices import (
    SLICE_NUMBERS,
    SLICE_VALUES,
    SORTED_NUMBERS,
    Check,
    array_of,
    joined,
    label_order,
    number_order,
    picked,
    slices,
    unchecked,
    value_order,
    watched,
)
from m2mdb.index.text.analysis import PLAIN, Analyzer
from m2mdb.index.text.blocks import block_parts
from m2mdb.index.text.packed import Postings, pack, ranges, runs_of
from m2mdb.pager.errors import CorruptDatabaseError, DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from m2mdb.index.text.segment import TextSegment

    Ints = NDArray[np.int64]
    Parts = dict[str, NDArray[Any]]

VERSION = 2
FLAT = 1  # the version whose lists are arrays
NULL_LENGTH = 0xFFFFFFFF
FREQUENCY_ESCAPE = 255
PART_TYPES: dict[str, np.dtype[Any]] = {
    "stats": np.dtype("<u8"),
    "terms": np.dtype("u1"),
    "term_offsets": np.dtype("<u4"),
    "starts": np.dtype("<u8"),
    "docs": np.dtype("<u4"),
    "freqs": np.dtype("u1"),
    "lengths": np.dtype("<u4"),
    "overflow_at": np.dtype("<u8"),
    "overflow_freqs": np.dtype("<u4"),
    "lists": np.dtype("u1"),
    "block_terms": np.dtype("<u4"),
    "block_starts": np.dtype("<u4"),
    "blocks": np.dtype("<u4"),
}
SLICE_TEXTS = 1 << 12  # analysed between two checks for an interrupt ...
SLICE_CHARACTERS = 1 << 18  # ... and how long they are together
_ORDINAL_BITS = 32  # of a key whose upper bits are the term
_ORDINAL = (1 << _ORDINAL_BITS) - 1
_NONE = np.empty(0, np.int64)


def build(
    texts: Sequence[str | None],
    analyzer: Analyzer = PLAIN,
    *,
    positions: bool = True,
    version: int = VERSION,
    blocks: bool = True,
    check: Check = unchecked,
) -> Parts:
    """The parts of a segment whose ordinal i has `texts[i]`; None is NULL.

    blocks whether long lists have them (T8); those of version 1 never do
    check  called between slices of the work; it may raise
    """
    terms, token_terms, token_docs, lengths = _term_columns(texts, analyzer, check)
    firsts = np.cumsum(lengths, dtype=np.int64) - lengths
    for some in slices(len(texts), SLICE_NUMBERS, check):
        if None in texts[some]:
            lengths[some][[text is None for text in texts[some]]] = NULL_LENGTH
    terms, ranks = _sort_terms(terms, check)
    counts = np.zeros(len(terms), np.int64)
    for some in slices(len(token_terms), SORTED_NUMBERS, check):
        token_terms[some] = own = ranks[token_terms[some]]
        counts += np.bincount(own, minlength=len(terms))
    order = label_order(token_terms, counts, check)
    has_positions = positions and version > FLAT
    found = _counted(token_terms, token_docs, order, firsts if has_positions else None, check)
    postings = found._replace(counts=_counts(found.counts, len(terms), check))
    parts = _parts(terms, postings, lengths, version, check)
    if blocks and version > FLAT:
        parts |= block_parts(postings, lengths, check)
    return parts


def _counted(
    terms: NDArray[np.uint32],
    docs: NDArray[np.uint32],
    order: Ints,
    firsts: Ints | None,
    check: Check,
) -> Postings:
    """The postings of tokens, which `order` brings in the order of their terms and rows.

    firsts  the first token of each row, where positions are wanted
    Instead of counts it has the term of each posting.
    """
    owners, rows, begins, positions = [_NONE], [_NONE], [_NONE], [_NONE]
    before = -1, -1
    for some in slices(len(order), SORTED_NUMBERS, check):
        tokens = order[some]
        term, doc = terms[tokens], docs[tokens].astype(np.int64)
        is_first = np.empty(len(tokens), bool)
        is_first[0] = (int(term[0]), int(doc[0])) != before
        np.not_equal(term[1:], term[:-1], out=is_first[1:])
        is_first[1:] |= doc[1:] != doc[:-1]
        before = int(term[-1]), int(doc[-1])
        first = np.flatnonzero(is_first)
        owners.append(term[first].astype(np.int64))
        rows.append(doc[first])
        begins.append(first + some.start)
        if firsts is not None:
            positions.append(tokens - firsts[doc])
    frequencies = joined([*begins, np.array([len(order)])], check)
    for some in slices(len(frequencies) - 1, SLICE_NUMBERS, check):
        frequencies[some] = np.diff(frequencies[some.start : some.stop + 1])
    places = None if firsts is None else joined(positions, check)
    return Postings(joined(owners, check), joined(rows, check), frequencies[:-1], places)


def _counts(owners: Ints, terms: int, check: Check) -> Ints:
    """How often each term stands among the owners, which ascend."""
    counts = np.zeros(terms, np.int64)
    for some in slices(len(owners), SLICE_NUMBERS, check):
        own = owners[some]
        first, last = int(own[0]), int(own[-1])
        counts[first : last + 1] += np.bincount(own - first)
    return counts


def _term_columns(
    texts: Sequence[str | None], analyzer: Analyzer, check: Check
) -> tuple[list[bytes], NDArray[np.uint32], NDArray[np.uint32], NDArray[np.uint32]]:
    """`analyzer.term_columns`, of slices of the texts, and how many terms each text has."""
    lengths = np.zeros(len(texts), np.uint32)
    ids: dict[bytes, int] = {}
    none = np.empty(0, np.uint32)
    tokens, docs = [none], [none]
    for some in _text_slices(texts, check):
        terms, token_terms, token_docs = analyzer.term_columns(texts[some])
        lengths[some] = np.bincount(token_docs, minlength=some.stop - some.start)
        known = [ids.setdefault(term, len(ids)) for term in terms]
        if known:
            tokens.append(np.array(known, np.uint32)[token_terms])
            docs.append(token_docs + np.uint32(some.start))
    return list(ids), joined(tokens, check), joined(docs, check), lengths


def _text_slices(texts: Sequence[str | None], check: Check) -> Iterator[slice]:
    """Slices of texts that have SLICE_CHARACTERS together at most, or are one text."""
    for some in slices(len(texts), SLICE_TEXTS, check):
        sizes = [len(text) if text else 0 for text in texts[some]]
        if sum(sizes) <= SLICE_CHARACTERS:
            yield some
            continue
        start, size = some.start, 0
        for number, own in enumerate(sizes, some.start):
            if size and size + own > SLICE_CHARACTERS:
                yield slice(start, number)
                check()
                start, size = number, 0
            size += own
        yield slice(start, some.stop)


def merge(
    segments: Sequence[TextSegment],
    ordinal_maps: Sequence[NDArray[np.int64]],
    size: int,
    check: Check = unchecked,
) -> Parts:
    """The parts of the segment that the kept rows of several segments make.

    `ordinal_maps[s][ordinal]` is the row's ordinal in the new segment of `size` rows, or -1 if the
    row is dropped; no new ordinal is given twice.

    check  called between slices of the work; it may raise
    """
    lengths = np.full(size, NULL_LENGTH, np.uint32)
    for segment, new_ordinals in zip(segments, ordinal_maps, strict=True):
        for some in slices(len(new_ordinals), SLICE_NUMBERS, check):
            kept = new_ordinals[some] >= 0
            lengths[new_ordinals[some][kept]] = segment.lengths[some][kept]
    has_positions = all(segment.has_positions for segment in segments)
    every_term, ids = _merged_terms(segments, check)
    bytes_of = np.zeros(len(every_term), np.int64)
    for segment, new in zip(segments, ids, strict=True):
        bytes_of[new] += segment.list_sizes()
    found: list[Postings] = []
    for first, last in runs_of(bytes_of, SORTED_NUMBERS):
        check()
        pieces = []
        for segment, new, new_ordinals in zip(segments, ids, ordinal_maps, strict=True):
            start, stop = np.searchsorted(new, (first, last)).tolist()
            own = segment.term_postings(start, stop, positions=has_positions, check=check)
            pieces.append(_moved(own, new[start:stop], new_ordinals, check))
        found.append(_merged(pieces, check))
    positions = None
    if has_positions:
        places = [piece.positions for piece in found if piece.positions is not None]
        positions = joined([_NONE, *places], check)
    docs = joined([_NONE, *[piece.docs for piece in found]], check)
    frequencies = joined([_NONE, *[piece.frequencies for piece in found]], check)
    owners = joined([_NONE, *[piece.counts for piece in found]], check)
    counts = _counts(owners, len(every_term), check)
    terms = every_term
    if not counts.all():
        used = zip(watched(every_term, check), counts.tolist(), strict=True)
        terms = [term for term, count in used if count]
    postings = Postings(counts[counts > 0], docs, frequencies, positions if has_positions else None)
    parts = _parts(terms, postings, lengths, VERSION, check)
    return parts | block_parts(postings, lengths, check)


def _moved(found: Postings, new_terms: Ints, new_ordinals: Ints, check: Check) -> Postings:
    """The postings of rows that are kept; instead of counts and docs: keys, ascending by term."""
    look = check if len(found.docs) > SORTED_NUMBERS else unchecked
    ordinals = new_ordinals[found.docs]
    key = np.repeat(new_terms, found.counts) << _ORDINAL_BITS | ordinals
    look()
    kept = ordinals >= 0
    if kept.all():
        return found._replace(counts=key)
    positions = found.positions
    if positions is not None:
        positions = positions[np.repeat(kept, found.frequencies)]
        look()
    return Postings(key[kept], ordinals[kept], found.frequencies[kept], positions)


def _merged(pieces: list[Postings], check: Check) -> Postings:
    """Postings of the same terms, in the order of their keys; terms instead of counts."""
    keys = np.concatenate([piece.counts for piece in pieces])
    frequencies = np.concatenate([piece.frequencies for piece in pieces])
    positions = None
    if all(piece.positions is not None for piece in pieces):
        positions = np.concatenate([piece.positions for piece in pieces])
    look = check if len(keys) > SORTED_NUMBERS else unchecked
    look()
    if not (keys[1:] > keys[:-1]).all():
        order = number_order(keys, look)
        look()
        if positions is not None:
            starts = np.cumsum(frequencies) - frequencies
            places = ranges(starts[order], frequencies[order])
            look()
            positions = positions[places]
        keys, frequencies = keys[order], frequencies[order]
        look()
    return Postings(keys >> _ORDINAL_BITS, keys & _ORDINAL, frequencies, positions)


def _merged_terms(segments: Sequence[TextSegment], check: Check) -> tuple[list[bytes], list[Ints]]:
    """All terms of some segments, ascending, and the number of each term of each of them."""
    vocabularies = [segment.vocabulary(check) for segment in segments]
    cuts: set[bytes] = set()
    for vocabulary in vocabularies:  # so no piece of any of them is longer than a slice
        cuts.update(vocabulary[SLICE_VALUES::SLICE_VALUES])
    starts = [0] * len(vocabularies)
    every: list[bytes] = []
    numbers: list[list[Ints]] = [[_NONE] for _ in vocabularies]
    for cut in [*sorted(cuts), None]:
        check()
        pieces = []
        for at, vocabulary in enumerate(vocabularies):
            start = starts[at]
            starts[at] = stop = (
                len(vocabulary) if cut is None else bisect_left(vocabulary, cut, start)
            )
            pieces.append(vocabulary[start:stop])
        terms = sorted(set().union(*pieces))
        ids = {term: number for number, term in enumerate(terms, len(every))}
        for own, piece in zip(numbers, pieces, strict=True):
            own.append(np.fromiter(map(ids.__getitem__, piece), np.int64, len(piece)))
        every += terms
    found = [joined(own, check) for own in numbers]
    for segment, ranks in zip(segments, found, strict=True):
        if (ranks[1:] <= ranks[:-1]).any():
            raise CorruptDatabaseError(f"{segment.where}: terms do not ascend")
    return every, found


def _sort_terms(terms: list[bytes], check: Check) -> tuple[list[bytes], NDArray[np.uint32]]:
    """The terms in ascending order, and the rank of each of the given ones."""
    order = array_of(value_order(list(range(len(terms))), terms, check), np.int64, check)
    ranks = np.empty(len(terms), np.uint32)
    for some in slices(len(order), SLICE_NUMBERS, check):
        ranks[order[some]] = np.arange(some.start, some.stop, dtype=np.uint32)
    return picked(terms, order, check), ranks


def _parts(
    terms: list[bytes],
    postings: Postings,
    lengths: NDArray[np.uint32],
    version: int,
    check: Check,
) -> Parts:
    """The parts, from lists in the order of the terms, none of them empty (T2)."""
    joins = [b"".join(terms[some]) for some in slices(len(terms), 4 * SLICE_VALUES, check)]
    blob = b"".join(joins)
    check()
    if len(blob) > 0xFFFFFFFF:
        raise DataError(f"text index: {len(blob)} bytes of terms in a segment, at most 2**32 - 1")
    has_text = lengths != NULL_LENGTH
    total_length = int(lengths[has_text].sum(dtype=np.uint64))
    stats = [version, len(lengths), int(has_text.sum()), total_length, len(terms)]
    stats += [len(postings.docs), int(postings.positions is not None), 0]
    offsets = np.zeros(len(terms) + 1, np.uint32)
    for some in slices(len(terms), SLICE_NUMBERS >> 2, check):
        sizes = np.fromiter(map(len, terms[some]), np.uint32, some.stop - some.start)
        offsets[some.start + 1 : some.stop + 1] = offsets[some.start] + np.cumsum(sizes)
    parts: Parts = {
        "stats": np.array(stats, np.uint64),
        "terms": np.frombuffer(blob, np.uint8),
        "term_offsets": offsets,
        "lengths": lengths,
    }
    parts = {name: part.astype(PART_TYPES[name], copy=False) for name, part in parts.items()}
    if version == FLAT:
        return {**parts, **_flat(postings)}
    packed, starts = pack(postings, check)
    is_wide = len(packed) > 0xFFFFFFFF
    return {**parts, "starts": starts.astype("<u8" if is_wide else "<u4"), "lists": packed}


def _flat(postings: Postings) -> Parts:
    """The lists as version 1 has them."""
    frequencies = postings.frequencies
    overflow = np.flatnonzero(frequencies >= FREQUENCY_ESCAPE)
    parts: Parts = {
        "starts": np.concatenate(([0], np.cumsum(postings.counts))),
        "docs": postings.docs,
        "freqs": np.minimum(frequencies, FREQUENCY_ESCAPE),
        "overflow_at": overflow,
        "overflow_freqs": frequencies[overflow],
    }
    return {name: part.astype(PART_TYPES[name], copy=False) for name, part in parts.items()}
