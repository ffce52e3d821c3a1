"""Postings: the inverted lists of one FULLTEXT column of one segment, built and merged.

A column's lists are named byte arrays, *parts*, little-endian, stored in the segment's extent:

    part              type             content
    stats             u64[8]           version, size, documents, total length, terms, postings, 0, 0
    terms             u8[]             all terms, ascending by bytes, one behind the other
    term_offsets      u32[terms + 1]   where each term begins in `terms`
    starts            u64[terms + 1]   where each term's list begins in `docs` and `freqs`
    docs              u32[postings]    ordinals, ascending within a list
    freqs             u8[postings]     how often the term stands in the document; 255 = see overflow
    lengths           u32[size]        tokens of each document; NULL_LENGTH where the text is NULL
    overflow_at       u64[]            postings whose frequency is 255 or more, ascending
    overflow_freqs    u32[]            their frequencies

`size` counts ordinals, `documents` those whose text is not NULL, `total length` their tokens. A
reader takes parts it does not know for later additions (positions, block maxima) and leaves them.

Invariants
    T1  Terms ascend strictly, so a prefix is a range of terms and of postings.
    T2  A term has one list, not empty, whose ordinals ascend strictly and are below `size`.
    T3  Building is deterministic: the same texts give the same bytes, and merging segments gives
        the bytes that building from the kept texts in their new order gives.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from m2mdb.index.text.analysis import PLAIN, Analyzer
from m2mdb.pager.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray

    from m2mdb.index.text.segment import TextSegment

    Parts = dict[str, NDArray[Any]]

VERSION = 1
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
}
_ORDINAL_BITS = np.uint64(32)
_ORDINAL_MASK = np.uint64(0xFFFFFFFF)


def build(texts: Sequence[str | None], analyzer: Analyzer = PLAIN) -> Parts:
    """The parts of a segment whose ordinal i has `texts[i]`; None is NULL."""
    terms, token_terms, token_docs = analyzer.term_columns(texts)
    lengths = np.bincount(token_docs, minlength=len(texts)).astype(np.uint32)
    if None in texts:
        lengths[[text is None for text in texts]] = NULL_LENGTH
    terms, ranks = _sort_terms(terms)
    keys = ranks[token_terms] << _ORDINAL_BITS
    keys |= token_docs
    keys.sort()
    first = np.flatnonzero(
        np.concatenate((np.ones(min(1, len(keys)), bool), keys[1:] != keys[:-1]))
    )
    frequencies = np.diff(first, append=len(keys))
    return _parts(terms, keys[first], frequencies.astype(np.uint32), lengths)


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
    keys, frequencies = [np.empty(0, np.uint64)], [np.empty(0, np.uint32)]
    for segment, vocabulary, new_ordinals in zip(segments, vocabularies, ordinal_maps, strict=True):
        kept_rows = new_ordinals >= 0
        lengths[new_ordinals[kept_rows]] = segment.lengths[kept_rows]
        new_terms = np.array([term_ids[term] for term in vocabulary], np.uint64)
        docs, freqs = segment.all_postings()
        kept = kept_rows[docs]
        key = np.repeat(new_terms, segment.document_frequencies())[kept] << _ORDINAL_BITS
        key |= new_ordinals[docs[kept]].astype(np.uint64)
        keys.append(key)
        frequencies.append(freqs[kept].astype(np.uint32))
    all_keys = np.concatenate(keys)
    order = np.argsort(all_keys)
    return _drop_unused(
        list(term_ids), all_keys[order], np.concatenate(frequencies)[order], lengths
    )


def _drop_unused(
    terms: list[bytes],
    keys: NDArray[np.uint64],
    frequencies: NDArray[np.uint32],
    lengths: NDArray[np.uint32],
) -> Parts:
    """`_parts` without the terms that no kept row has any more (T2)."""
    used = np.zeros(len(terms), bool)
    used[keys >> _ORDINAL_BITS] = True
    if not used.all():
        new_ids = np.cumsum(used).astype(np.uint64) - np.uint64(1)
        keys = (new_ids[keys >> _ORDINAL_BITS] << _ORDINAL_BITS) | (keys & _ORDINAL_MASK)
        terms = [terms[term] for term in np.flatnonzero(used).tolist()]
    return _parts(terms, keys, frequencies, lengths)


def _sort_terms(terms: list[bytes]) -> tuple[list[bytes], NDArray[np.uint64]]:
    """The terms in ascending order, and the rank of each of the given ones."""
    order = sorted(range(len(terms)), key=terms.__getitem__)
    ranks = np.empty(len(terms), np.uint64)
    ranks[order] = np.arange(len(terms), dtype=np.uint64)
    return [terms[term] for term in order], ranks


def _parts(
    terms: list[bytes],
    keys: NDArray[np.uint64],
    frequencies: NDArray[np.uint32],
    lengths: NDArray[np.uint32],
) -> Parts:
    """The parts, from ascending distinct keys (term << 32 | ordinal) and their frequencies."""
    blob = b"".join(terms)
    if len(blob) > 0xFFFFFFFF:
        raise DataError(f"text index: {len(blob)} bytes of terms in a segment, at most 2**32 - 1")
    list_sizes = np.bincount((keys >> _ORDINAL_BITS).astype(np.int64), minlength=len(terms))
    starts = np.zeros(len(terms) + 1, np.uint64)
    np.cumsum(list_sizes, out=starts[1:])
    has_text = lengths != NULL_LENGTH
    overflow = np.flatnonzero(frequencies >= FREQUENCY_ESCAPE)
    total_length = int(lengths[has_text].sum(dtype=np.uint64))
    stats = [VERSION, len(lengths), int(has_text.sum()), total_length, len(terms), len(keys), 0, 0]
    offsets = np.fromiter(accumulate(map(len, terms), initial=0), np.uint32, len(terms) + 1)
    parts: Parts = {
        "stats": np.array(stats, np.uint64),
        "terms": np.frombuffer(blob, np.uint8),
        "term_offsets": offsets,
        "starts": starts,
        "docs": (keys & _ORDINAL_MASK).astype(np.uint32),
        "freqs": np.minimum(frequencies, FREQUENCY_ESCAPE).astype(np.uint8),
        "lengths": lengths,
        "overflow_at": overflow.astype(np.uint64),
        "overflow_freqs": frequencies[overflow],
    }
    return {name: part.astype(PART_TYPES[name], copy=False) for name, part in parts.items()}
