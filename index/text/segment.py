"""TextSegment: reads the inverted lists of one FULLTEXT column of one segment.

The parts (postings.py has their layout) come from a file, as views of it or as bytes. Sizes are
checked at once, a list when it is first read, so opening touches no list.

Invariants
    T4  No part, however wrong, makes a reader crash or read past an array: sizes agree, the bounds
        of a list lie inside it, and ordinals are below `size`; else CorruptDatabaseError.
    T5  Statistics count every row with a text, dead ones included, until a merge drops it (S24).
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from m2mdb.index.text.fuzzy import close_terms
from m2mdb.index.text.postings import FREQUENCY_ESCAPE, NULL_LENGTH, PART_TYPES, VERSION
from m2mdb.pager.errors import CorruptDatabaseError, NotSupportedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import ModuleType
    from typing import Any

    from numpy.typing import NDArray

    Buffer = bytes | memoryview | NDArray[Any]
    Docs = NDArray[np.uint32]
    Frequencies = NDArray[np.uint8] | NDArray[np.uint32]

_REMEMBERED_TERMS = 1 << 14  # lists whose bounds are kept once found and checked
_NO_DOCS = np.empty(0, np.uint32)
_NO_FREQUENCIES = np.empty(0, np.uint8)


def address(array: NDArray[Any]) -> int:
    """Where an array's items lie; the array has to be kept while that is used."""
    found: int = array.__array_interface__["data"][0]
    return found


def list_of(
    docs: NDArray[Any], frequencies: NDArray[Any], lengths: NDArray[np.uint32], lists: ModuleType
) -> tuple[NDArray[np.int64], Any]:
    """A list in arrays as `text_lists` takes it, and the arrays, which have to be kept."""
    docs = np.ascontiguousarray(docs, np.uint32)
    frequencies = np.ascontiguousarray(frequencies)
    kind = {1: lists.BYTES, 4: lists.WORDS, 8: lists.HALVES}[frequencies.dtype.itemsize]
    found = np.empty(lists.CHECKED, np.int64)
    found[: lists.LIST] = address(docs), address(frequencies), kind, len(docs)
    lists.note_lengths(found, address(lengths))
    return found, (docs, frequencies)


class TextSegment:
    """The lists of one column of one segment; immutable, shared by snapshots."""

    __slots__ = (
        "_addresses", "_bounds", "_checked", "_docs", "_freqs", "_norms", "_overflow_at",
        "_overflow_freqs", "_starts", "_term_offsets", "_terms", "document_count", "lengths",
        "size", "stored_bytes", "term_count", "total_length", "where",
    )  # fmt: skip

    def __init__(
        self, parts: Mapping[str, Buffer], where: str = "text index", rows: int | None = None
    ) -> None:
        """Take the parts; `where` names the place in errors, `rows` is how many there are to be.

        Raises CorruptDatabaseError where parts are missing or their sizes disagree.
        """
        self.where = where
        stats = self._part(parts, "stats").tolist()
        if len(stats) != 8:
            raise CorruptDatabaseError(f"{where}: {len(stats)} statistics, expected 8")
        version, self.size, self.document_count, self.total_length = stats[:4]
        self.term_count, posting_count = stats[4:6]
        if version > VERSION:
            raise NotSupportedError(f"{where}: version {version}, this build reads {VERSION}")
        self._terms = self._part(parts, "terms").data
        term_offsets = self._part(parts, "term_offsets", self.term_count + 1)
        starts = self._part(parts, "starts", self.term_count + 1)
        self._term_offsets = term_offsets.data
        self._starts = starts.data
        self._docs = self._part(parts, "docs", posting_count)
        self._freqs = self._part(parts, "freqs", posting_count)
        self.lengths: NDArray[np.uint32] = self._part(parts, "lengths", self.size)
        self._overflow_at = self._part(parts, "overflow_at")
        self._overflow_freqs = self._part(parts, "overflow_freqs", len(self._overflow_at))
        if starts[0] != 0 or starts[-1] != posting_count:
            raise CorruptDatabaseError(
                f"{where}: lists span {starts[0]}..{starts[-1]}, expected 0..{posting_count}"
            )
        self.stored_bytes = sum([np.frombuffer(part, np.uint8).nbytes for part in parts.values()])
        self._check_statistics(rows)
        self._bounds: dict[bytes, tuple[int, int]] = {}
        self._checked: dict[bytes, tuple[NDArray[np.int64] | None, Any]] = {}
        self._addresses: NDArray[np.int64] | None = None
        self._norms: tuple[tuple[float, float], NDArray[np.float64]] | None = None

    def _check_statistics(self, rows: int | None) -> None:
        """T4, and that no ratio of the statistics is impossible."""
        if rows is not None and self.size != rows:
            raise CorruptDatabaseError(f"{self.where}: lists of {self.size} rows, expected {rows}")
        documents, total = self.document_count, self.total_length
        if documents > self.size or total > documents * NULL_LENGTH:
            raise CorruptDatabaseError(
                f"{self.where}: {documents} texts of {total} tokens in {self.size} rows"
            )

    def _part(
        self, parts: Mapping[str, Buffer], name: str, count: int | None = None
    ) -> NDArray[Any]:
        """The part as an array of its type, with `count` items if given (T4)."""
        dtype = PART_TYPES[name]
        if name not in parts:
            raise CorruptDatabaseError(f"{self.where}: part {name!r} is missing")
        raw = np.frombuffer(parts[name], np.uint8)
        if raw.nbytes % dtype.itemsize or count not in (None, raw.nbytes // dtype.itemsize):
            wanted = "whole items" if count is None else f"{count} items"
            raise CorruptDatabaseError(
                f"{self.where}: part {name!r} has {raw.nbytes} bytes, "
                f"expected {wanted} of {dtype.itemsize}"
            )
        array = raw.view(dtype)
        return array if array.flags.aligned else array.copy()

    # Terms

    def term(self, term_id: int) -> bytes:
        """The term of an id in 0..term_count."""
        return bytes(self._terms[self._term_offsets[term_id] : self._term_offsets[term_id + 1]])

    def term_id(self, term: bytes) -> int:
        """The id of a term, -1 if no row has it."""
        term_id = self._first_at_least(term)
        return term_id if term_id < self.term_count and self.term(term_id) == term else -1

    def prefix(self, prefix: bytes) -> range:
        """The ids of all terms that begin with `prefix` (T1)."""
        first = self._first_at_least(prefix)
        # 0xff stands in no UTF-8, so it is behind every term that begins with the prefix.
        return range(first, max(first, self._first_at_least(prefix + b"\xff")))

    def fuzzy(self, term: bytes) -> list[bytes]:
        """The terms at most one edit away from `term`, itself included, ascending."""
        return close_terms(
            np.frombuffer(self._terms, np.uint8),
            np.frombuffer(self._term_offsets, np.uint32).astype(np.int64),
            term,
        )

    def vocabulary(self) -> list[bytes]:
        """All terms, ascending."""
        blob = bytes(self._terms)
        offsets = self._term_offsets.tolist()
        if offsets != sorted(offsets) or offsets[-1] > len(blob):
            raise CorruptDatabaseError(f"{self.where}: the offsets of terms do not ascend")
        return [blob[start:stop] for start, stop in pairwise(offsets)]

    def _first_at_least(self, term: bytes) -> int:
        """The id of the first term that is not below `term`."""
        terms, offsets = self._terms, self._term_offsets
        low, high = 0, self.term_count
        while low < high:
            middle = (low + high) >> 1
            if bytes(terms[offsets[middle] : offsets[middle + 1]]) < term:
                low = middle + 1
            else:
                high = middle
        return low

    # Lists

    def document_frequency(self, term: bytes) -> int:
        """How many rows have the term (T5)."""
        start, stop = self._bounds.get(term) or self._find(term)
        return stop - start

    def postings(self, term: bytes) -> tuple[Docs, Frequencies]:
        """The ordinals that have the term, ascending, and how often each has it."""
        start, stop = self._bounds.get(term) or self._find(term)
        if start == stop:
            return _NO_DOCS, _NO_FREQUENCIES
        return self._docs[start:stop], self._frequencies(start, stop)

    def docs(self, term_id: int) -> tuple[Docs, Frequencies]:
        """`postings` by the term's id."""
        return self.postings(self.term(term_id))

    def prefix_postings(self, prefix: bytes) -> tuple[Docs, Frequencies]:
        """The lists of all terms with the prefix, one behind the other: ordinals may repeat."""
        terms = self.prefix(prefix)
        start, stop = self._starts[terms.start], self._starts[terms.stop]
        self._check_bounds(start, stop)
        docs = self._docs[start:stop]
        self._check_ordinals(docs)
        return docs, self._frequencies(start, stop)

    def all_postings(self) -> tuple[Docs, Frequencies]:
        """The lists of all terms, one behind the other."""
        self._check_ordinals(self._docs)
        return self._docs, self._frequencies(0, len(self._docs))

    def document_frequencies(self) -> NDArray[np.int64]:
        """How many rows have each term, in the order of `vocabulary`."""
        starts = np.frombuffer(self._starts, np.uint64).astype(np.int64)
        frequencies = starts[1:] - starts[:-1]
        if self.term_count and frequencies.min() < 0:
            raise CorruptDatabaseError(f"{self.where}: the starts of lists do not ascend")
        if self.term_count and frequencies.max() > self.document_count:
            raise CorruptDatabaseError(f"{self.where}: a list is longer than there are texts")
        return frequencies

    def norms(self, base: float, slope: float) -> NDArray[np.float64]:
        """base + slope * length for each ordinal; the last one asked for is kept."""
        kept = self._norms
        if kept is None or kept[0] != (base, slope):
            norms = self.lengths.astype(np.float64) * slope + base
            kept = self._norms = ((base, slope), norms)
        return kept[1]

    def _find(self, term: bytes) -> tuple[int, int]:
        """The bounds of the term's list, checked (T4), and remembered."""
        term_id = self.term_id(term)
        start = stop = 0
        if term_id >= 0:
            start, stop = self._starts[term_id], self._starts[term_id + 1]
            self._check_bounds(start, stop)
            docs = self._docs[start:stop]
            self._check_ordinals(docs)
            if (docs[1:] <= docs[:-1]).any():
                raise CorruptDatabaseError(f"{self.where}: ordinals of {term!r} do not ascend")
            if stop - start > self.document_count or not self._freqs[start:stop].all():
                raise CorruptDatabaseError(f"{self.where}: the list of {term!r} cannot be")
        if len(self._bounds) >= _REMEMBERED_TERMS:
            self._bounds.clear()
        self._bounds[term] = start, stop
        return start, stop

    def _frequencies(self, start: int, stop: int) -> Frequencies:
        """The frequencies of postings start..stop, large ones put in."""
        freqs = self._freqs[start:stop]
        if not len(self._overflow_at):
            return freqs
        first, last = np.searchsorted(self._overflow_at, (start, stop))
        if first >= last:
            return freqs
        places = self._overflow_at[first:last] - np.uint64(start)
        if places.max() >= stop - start:
            raise CorruptDatabaseError(f"{self.where}: large frequencies are out of order")
        large = freqs.astype(np.uint32)
        large[places] = self._overflow_freqs[first:last]
        return large

    def _check_bounds(self, start: int, stop: int) -> None:
        """Refuse a list that lies outside the postings (T4)."""
        if not 0 <= start <= stop <= len(self._docs):
            raise CorruptDatabaseError(
                f"{self.where}: a list at {start}..{stop} of {len(self._docs)} postings"
            )

    def _check_ordinals(self, docs: Docs) -> None:
        """Refuse ordinals that no row has (T4)."""
        if len(docs) and docs.max() >= self.size:
            raise CorruptDatabaseError(f"{self.where}: ordinal {docs.max()} of {self.size} rows")

    def checked(self, term: bytes, lists: ModuleType) -> tuple[NDArray[np.int64] | None, Any]:
        """The list of a term as `text_lists.check_list` describes it, checked and remembered.

        None where no row has the term. Beside it the arrays that have to be kept for it, if any.
        """
        found = self._checked.get(term)
        if found is None:
            out = np.empty(lists.CHECKED, np.int64)
            status = lists.check_list(
                self._segment_addresses(lists), np.frombuffer(term, np.uint8), out
            )
            found = (out, None)
            if status == lists.ABSENT:
                found = (None, None)
            elif status != lists.FOUND:
                docs, frequencies = self.postings(term)
                if status == lists.DAMAGED:  # which `postings` has said better, or else
                    raise CorruptDatabaseError(f"{self.where}: the list of {term!r} is damaged")
                found = list_of(docs, frequencies, self.lengths, lists)
            if len(self._checked) >= _REMEMBERED_TERMS:
                self._checked.clear()
            self._checked[term] = found
        return found

    def _segment_addresses(self, lists: ModuleType) -> NDArray[np.int64]:
        """What `check_list` reads of the segment: addresses and counts."""
        if self._addresses is None:
            found = np.zeros(lists.SEGMENT, np.int64)
            terms = np.frombuffer(self._terms, np.uint8)
            found[lists.TERMS], found[lists.TERM_BYTES] = address(terms), len(terms)
            offsets = np.frombuffer(self._term_offsets, np.uint32)
            found[lists.TERM_OFFSETS] = address(offsets)
            found[lists.TERM_COUNT] = self.term_count
            found[lists.LIST_STARTS] = address(np.frombuffer(self._starts, np.uint64))
            found[lists.POSTINGS] = len(self._docs)
            found[lists.ALL_DOCS] = address(self._docs)
            found[lists.ALL_FREQUENCIES] = address(self._freqs)
            found[lists.LENGTHS], found[lists.ROWS] = address(self.lengths), self.size
            found[lists.DOCUMENTS] = self.document_count
            self._addresses = found
        return self._addresses

    # Integrity

    def faults(self) -> Iterator[str]:
        """Every invariant that does not hold, as text; reads everything."""
        terms = self.vocabulary()
        if terms != sorted(set(terms)):
            yield f"{self.where}: terms do not ascend"
        for term in terms:
            try:
                if not self.document_frequency(term):
                    yield f"{self.where}: term {term!r} has no list"
            except CorruptDatabaseError as error:
                yield str(error)
        has_text = self.lengths != NULL_LENGTH
        if int(has_text.sum()) != self.document_count:
            yield f"{self.where}: {has_text.sum()} texts, expected {self.document_count}"
        total_length = int(self.lengths[has_text].sum(dtype=np.uint64))
        if total_length != self.total_length:
            yield f"{self.where}: {total_length} tokens, expected {self.total_length}"
        if len(self._overflow_at) != int((self._freqs == FREQUENCY_ESCAPE).sum()):
            yield f"{self.where}: large frequencies are missing"
