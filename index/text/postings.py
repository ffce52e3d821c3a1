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

from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from m2mdb.index.slices import Check, slices, unchecked
from m2mdb.index.text.analysis import PLAIN, Analyzer
from m2mdb.index.text.packed import Postings, pack, ranges
from m2mdb.pager.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence
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
}
SLICE_TEXTS = 1 << 12  # analysed between two checks for an interrupt
_TOKEN_BITS = 36  # of a key whose upper bits are the term: tokens of a batch
_ORDINAL_BITS = np.uint64(32)


def build(
    texts: Sequence[str | None],
    analyzer: Analyzer = PLAIN,
    *,
    positions: bool = True,
    version: int = VERSION,
    check: Check = unchecked,
) -> Parts:
    """The parts of a segment whose ordinal i has `texts[i]`; None is NULL.

    check  called between slices of the work; it may raise
    """
    terms, token_terms, token_docs = _term_columns(texts, analyzer, check)
    check()
    lengths = np.bincount(token_docs, minlength=len(texts)).astype(np.uint32)
    firsts = np.cumsum(lengths, dtype=np.int64) - lengths
    if None in texts:
        lengths[[text is None for text in texts]] = NULL_LENGTH
    terms, ranks = _sort_terms(terms)
    check()
    order, by_term = _by_term(ranks[token_terms], len(terms))
    check()
    docs = token_docs[order].astype(np.int64)
    is_first = np.ones(len(order), bool)
    is_first[1:] = (by_term[1:] != by_term[:-1]) | (docs[1:] != docs[:-1])
    first = np.flatnonzero(is_first)
    postings = Postings(
        np.bincount(by_term[first], minlength=len(terms)),
        docs[first],
        np.diff(first, append=len(order)),
        order - firsts[docs] if positions and version > FLAT else None,
    )
    check()
    return _parts(terms, postings, lengths, version)


def _term_columns(
    texts: Sequence[str | None], analyzer: Analyzer, check: Check
) -> tuple[list[bytes], NDArray[np.uint32], NDArray[np.uint32]]:
    """`analyzer.term_columns`, of slices of the texts."""
    if len(texts) <= SLICE_TEXTS:
        return analyzer.term_columns(texts)
    ids: dict[bytes, int] = {}
    tokens, docs = [], []
    for some in slices(len(texts), SLICE_TEXTS, check):
        terms, token_terms, token_docs = analyzer.term_columns(texts[some])
        known = [ids.setdefault(term, len(ids)) for term in terms]
        if known:
            tokens.append(np.array(known, np.uint32)[token_terms])
            docs.append(token_docs + np.uint32(some.start))
    if not tokens:
        return [], np.empty(0, np.uint32), np.empty(0, np.uint32)
    return list(ids), np.concatenate(tokens), np.concatenate(docs)


def _by_term(token_terms: NDArray[np.uint64], terms: int) -> tuple[Ints, Ints]:
    """The tokens in the order of their terms, else as they came; and the term of each."""
    if len(token_terms) >> _TOKEN_BITS or terms >> (63 - _TOKEN_BITS):
        order = np.argsort(token_terms, kind="stable")
        return order, token_terms[order].astype(np.int64)
    keys = token_terms << np.uint64(_TOKEN_BITS)
    keys |= np.arange(len(keys), dtype=np.uint64)
    keys.sort()  # many times quicker than to sort stably by the terms alone
    tokens = (keys & np.uint64((1 << _TOKEN_BITS) - 1)).astype(np.int64)
    return tokens, (keys >> np.uint64(_TOKEN_BITS)).astype(np.int64)


def merge(
    segments: Sequence[TextSegment], ordinal_maps: Sequence[NDArray[np.int64]], size: int
) -> Parts:
    """The parts of the segment that the kept rows of several segments make.

    `ordinal_maps[s][ordinal]` is the row's ordinal in the new segment of `size` rows, or -1 if the
    row is dropped; no new ordinal is given twice.
    """
    vocabularies = [segment.vocabulary() for segment in segments]
    term_ids = {term: number for number, term in enumerate(sorted(set().union(*vocabularies)))}
    lengths = np.full(size, NULL_LENGTH, np.uint32)
    has_positions = all(segment.has_positions for segment in segments)
    none = np.empty(0, np.int64)
    keys, frequencies, positions = [np.empty(0, np.uint64)], [none], [none]
    for segment, vocabulary, new_ordinals in zip(segments, vocabularies, ordinal_maps, strict=True):
        kept_rows = new_ordinals >= 0
        lengths[new_ordinals[kept_rows]] = segment.lengths[kept_rows]
        new_terms = np.array([term_ids[term] for term in vocabulary], np.uint64)
        found = segment.every_posting(positions=has_positions)
        kept = kept_rows[found.docs]
        key = np.repeat(new_terms, found.counts)[kept] << _ORDINAL_BITS
        key |= new_ordinals[found.docs[kept]].astype(np.uint64)
        keys.append(key)
        frequencies.append(found.frequencies[kept])
        if has_positions:
            assert found.positions is not None
            positions.append(found.positions[np.repeat(kept, found.frequencies)])
    all_keys, all_frequencies = np.concatenate(keys), np.concatenate(frequencies)
    order = np.argsort(all_keys)
    new_positions = None
    if has_positions:
        starts = np.cumsum(all_frequencies) - all_frequencies
        new_positions = np.concatenate(positions)[ranges(starts[order], all_frequencies[order])]
    all_keys = all_keys[order]
    counts = np.bincount((all_keys >> _ORDINAL_BITS).astype(np.int64), minlength=len(term_ids))
    terms = [term for term, count in zip(term_ids, counts.tolist(), strict=True) if count]
    docs = (all_keys & np.uint64(0xFFFFFFFF)).astype(np.int64)
    postings = Postings(counts[counts > 0], docs, all_frequencies[order], new_positions)
    return _parts(terms, postings, lengths, VERSION)


def _sort_terms(terms: list[bytes]) -> tuple[list[bytes], NDArray[np.uint64]]:
    """The terms in ascending order, and the rank of each of the given ones."""
    order = sorted(range(len(terms)), key=terms.__getitem__)
    ranks = np.empty(len(terms), np.uint64)
    ranks[order] = np.arange(len(terms), dtype=np.uint64)
    return [terms[term] for term in order], ranks


def _parts(
    terms: list[bytes], postings: Postings, lengths: NDArray[np.uint32], version: int
) -> Parts:
    """The parts, from lists in the order of the terms, none of them empty (T2)."""
    blob = b"".join(terms)
    if len(blob) > 0xFFFFFFFF:
        raise DataError(f"text index: {len(blob)} bytes of terms in a segment, at most 2**32 - 1")
    has_text = lengths != NULL_LENGTH
    total_length = int(lengths[has_text].sum(dtype=np.uint64))
    stats = [version, len(lengths), int(has_text.sum()), total_length, len(terms)]
    stats += [len(postings.docs), int(postings.positions is not None), 0]
    offsets = np.fromiter(accumulate(map(len, terms), initial=0), np.uint32, len(terms) + 1)
    parts: Parts = {
        "stats": np.array(stats, np.uint64),
        "terms": np.frombuffer(blob, np.uint8),
        "term_offsets": offsets,
        "lengths": lengths,
    }
    parts = {name: part.astype(PART_TYPES[name], copy=False) for name, part in parts.items()}
    if version == FLAT:
        return {**parts, **_flat(postings)}
    packed, starts = pack(postings)
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
