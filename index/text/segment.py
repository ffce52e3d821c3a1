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
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from m2mdb.index.slices import SLICE_NUMBERS, SLICE_VALUES, Check, slices, unchecked, watched
from m2mdb.index.text.blocks import LEAST_BLOCKED, PARTS, Blocks, block_parts
from m2mdb.index.text.flat import FlatLists
from m2mdb.index.text.fuzzy import close_terms
from m2mdb.index.text.packed import PackedLists, Postings
from m2mdb.index.text.postings import FLAT, NULL_LENGTH, PART_TYPES, VERSION
from m2mdb.pager.errors import CorruptDatabaseError, NotSupportedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import ModuleType
    from typing import Any

    from numpy.typing import NDArray

    from m2mdb.compute.text_backend import Kernels

    Buffer = bytes | memoryview | NDArray[Any]
    Docs = NDArray[np.uint32]
    Keys = NDArray[np.uint64]
    Frequencies = NDArray[np.uint8] | NDArray[np.uint32]

TERMS_AT_ONCE = 256  # lists of a prefix that one step unpacks: some milliseconds
_REMEMBERED_TERMS = 1 << 14  # lists that are kept once found, unpacked and checked ...
REMEMBERED_BYTES = 64 << 20  # ... and how much they may be
FEW_SEARCHES = 16  # that ask for a long list before it is unpacked whole, at most
LEAST_ORDERED = 1 << 10  # postings of a list whose runs are worth knowing
MAPPED_SHARE = 64  # a list that one of so many rows has, or more, is worth a bitmap
ORDER_WINDOW = (
    1 << 17
)  # rows whose postings are ordered together; as many as a search sums up at once
_NO_DOCS = np.empty(0, np.uint32)
_NO_FREQUENCIES = np.empty(0, np.uint8)


def address(array: NDArray[Any]) -> int:
    """Where an array's items lie; the array has to be kept while that is used."""
    found: int = array.__array_interface__["data"][0]
    return found


def _bytes_of(arrays: tuple[NDArray[Any], ...]) -> int:
    """What a list takes that is remembered, not to speak of what it is a view of."""
    return sum([200 + (0 if array.base is not None else array.nbytes) for array in arrays])


def list_of(
    docs: NDArray[Any], frequencies: NDArray[Any], lengths: NDArray[np.uint32], lists: ModuleType
) -> tuple[NDArray[np.int64], Any]:
    """A list in arrays as `text_lists` takes it, and the arrays, which have to be kept."""
    docs = np.ascontiguousarray(docs, np.uint32)
    frequencies = np.ascontiguousarray(frequencies)
    kind = {1: lists.BYTES, 4: lists.WORDS, 8: lists.HALVES}[frequencies.dtype.itemsize]
    found = np.empty(lists.CHECKED, np.int64)
    found[: lists.LIST] = address(docs), address(frequencies), kind, len(docs), 0, 0, 0, 0
    lists.note_lengths(found, address(lengths))
    return found, (docs, frequencies)


def _ordered(
    checked: NDArray[np.int64], lengths: NDArray[np.uint32], lists: ModuleType
) -> tuple[NDArray[Any], ...]:
    """Order the postings of a list by what they can add; the arrays have to be kept for it."""
    windows = -(-len(lengths) // ORDER_WINDOW)
    count = int(checked[lists.COUNT])
    most = lists.RUN_HEAD + windows + 1 + lists.RUN * min(count, windows * lists.RUN_CLASSES)
    order, runs = np.empty(count, np.uint32), np.empty(most, np.int64)
    counts = np.zeros(lists.RUN_CLASSES, np.int64)
    used = lists.order_list(checked, address(lengths), ORDER_WINDOW, counts, order, runs)
    runs = runs[:used].copy()
    checked[lists.BY_IMPACT], checked[lists.RUNS] = address(order), address(runs)
    return order, runs


def _mapped(checked: NDArray[np.int64], rows: int, lists: ModuleType) -> NDArray[np.int64]:
    """Make the bitmap of a list of a part of so many rows; it has to be kept for it."""
    bitmap = np.zeros(2 * -(-rows // 64), np.int64)
    lists.map_list(checked, bitmap)
    checked[lists.BITMAP] = address(bitmap)
    return bitmap


class TextSegment:
    """The lists of one column of one segment; immutable, shared by snapshots."""

    __slots__ = (
        "_addresses", "_asked", "_blocks", "_checked", "_known", "_known_bytes", "_lists", "_norms",
        "_term_offsets", "_terms", "document_count", "has_positions", "lengths", "size",
        "stored_bytes", "term_count", "total_length", "version", "where",
    )  # fmt: skip
    least_blocked: ClassVar[int] = LEAST_BLOCKED  # postings of a list that has blocks

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
        self._term_offsets = term_offsets.data
        self.lengths: NDArray[np.uint32] = self._part(parts, "lengths", self.size)
        self.stored_bytes = sum([np.frombuffer(part, np.uint8).nbytes for part in parts.values()])
        self._check_statistics(rows)
        self.version = version
        self._lists = self._lists_of(parts, posting_count, has_positions=bool(stats[6]))
        self.has_positions: bool = self._lists.has_positions
        self._blocks = self._blocks_of(parts)
        self._asked: dict[bytes, int] = {}  # postings unpacked for one search, by term
        self._known: dict[bytes, tuple[Docs, Frequencies]] = {}
        self._known_bytes = 0
        self._checked: dict[bytes, tuple[NDArray[np.int64] | None, Any]] = {}
        self._addresses: NDArray[np.int64] | None = None
        self._norms: tuple[tuple[float, float], NDArray[np.float64]] | None = None

    def _lists_of(
        self, parts: Mapping[str, Buffer], postings: int, *, has_positions: bool
    ) -> PackedLists | FlatLists:
        """The reader of the lists of this version."""
        count = self.term_count + 1
        if self.version > FLAT:
            is_wide = len(np.frombuffer(parts.get("starts", b""), np.uint8)) == 8 * count
            kind = np.dtype("<u8" if is_wide else "<u4")
            starts = self._part(parts, "starts", count, kind)
            bounds = self.size, self.document_count, has_positions
            return PackedLists(self._part(parts, "lists"), starts, bounds, self.where)
        overflow_at = self._part(parts, "overflow_at")
        arrays = {
            "starts": self._part(parts, "starts", count),
            "docs": self._part(parts, "docs", postings),
            "freqs": self._part(parts, "freqs", postings),
            "overflow_at": overflow_at,
            "overflow_freqs": self._part(parts, "overflow_freqs", len(overflow_at)),
        }
        return FlatLists(arrays, self.size, self.document_count, self.where)

    def _blocks_of(self, parts: Mapping[str, Buffer]) -> Blocks | None:
        """The blocks of the long lists, None where they are not known (T8)."""
        if self.version == FLAT or not len(np.frombuffer(parts.get("blocks", b""), np.uint8)):
            return None
        terms, starts, words = [self._part(parts, name) for name in PARTS]
        return Blocks(terms, starts, words, self.where)

    @property
    def has_blocks(self) -> bool:
        """Whether the blocks of long lists are known."""
        return self._blocks is not None

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
        self,
        parts: Mapping[str, Buffer],
        name: str,
        count: int | None = None,
        kind: np.dtype[Any] | None = None,
    ) -> NDArray[Any]:
        """The part as an array of its type, with `count` items if given (T4)."""
        dtype = kind or PART_TYPES[name]
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

    def vocabulary(self, check: Check = unchecked) -> list[bytes]:
        """All terms, ascending; `check` is called between slices of them, and may raise."""
        blob = bytes(self._terms)
        array = np.frombuffer(self._term_offsets, np.uint32)
        if (array[1:] < array[:-1]).any() or array[-1] > len(blob):
            raise CorruptDatabaseError(f"{self.where}: the offsets of terms do not ascend")
        found: list[bytes] = []
        for some in slices(self.term_count, 4 * SLICE_VALUES, check):
            offsets = array[some.start : some.stop + 1].tolist()
            found += [blob[start:stop] for start, stop in pairwise(offsets)]
        return found

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
        known = self._known.get(term)
        if known is not None:
            return len(known[0])
        term_id = self.term_id(term)
        return 0 if term_id < 0 else self._lists.count(term_id)

    def postings(self, term: bytes, check: Check = unchecked) -> tuple[Docs, Frequencies]:
        """The ordinals that have the term, ascending, and how often each has it."""
        found = self._known.get(term)
        if found is None:
            term_id = self.term_id(term)
            if term_id < 0:
                return _NO_DOCS, _NO_FREQUENCIES
            found = self._lists.one(term_id, check)
            self._note_bytes(_bytes_of(found))
            self._known[term] = found
        return found

    def _note_bytes(self, size: int) -> None:
        """Forget the lists that are remembered, where there would be too many."""
        known = len(self._known) + len(self._checked)
        if self._known_bytes + size > REMEMBERED_BYTES or known >= _REMEMBERED_TERMS:
            self._known.clear()
            self._checked.clear()
            self._known_bytes = 0
        self._known_bytes += size

    def positions(self, term: bytes, check: Check = unchecked) -> Keys | None:
        """Where the term stands: ordinal << 32 | position, ascending; None if it is not known."""
        if not self.has_positions:
            return None
        term_id = self.term_id(term)
        if term_id < 0:
            return _NO_DOCS.astype(np.uint64)
        found = self._lists.postings(term_id, term_id + 1, positions=True, check=check)
        assert found.positions is not None
        check()
        keys = np.repeat(found.docs, found.frequencies).astype(np.uint64)
        for some in slices(len(keys), SLICE_NUMBERS, check):
            keys[some] <<= np.uint64(32)
            keys[some] |= found.positions[some].astype(np.uint64)
        return keys

    def docs(self, term_id: int) -> tuple[Docs, Frequencies]:
        """`postings` by the term's id."""
        return self.postings(self.term(term_id))

    def prefix_postings(self, prefix: bytes, check: Check = unchecked) -> tuple[Docs, Frequencies]:
        """The lists of all terms with the prefix, one behind the other: ordinals may repeat.

        check  called between slices of them; it may raise
        """
        terms = self.prefix(prefix)
        if not terms:
            return _NO_DOCS, _NO_FREQUENCIES
        docs: list[Docs] = []
        frequencies: list[Frequencies] = []
        for some in slices(len(terms), TERMS_AT_ONCE, check):
            found = self._lists.some(terms[some].start, terms[some].stop, check)
            docs.append(found[0])
            frequencies.append(found[1])
        joined: Any = np.concatenate(frequencies)
        return np.concatenate(docs), joined

    def every_posting(self, *, positions: bool = False) -> Postings:
        """The lists of all terms; positions where they are wanted and known."""
        return self._lists.postings(0, self.term_count, positions=positions)

    def term_postings(
        self, first: int, last: int, *, positions: bool, check: Check = unchecked
    ) -> Postings:
        """The lists of the terms first..last; `check` as in `PackedLists.postings`."""
        return self._lists.postings(first, last, positions=positions, check=check)

    def list_sizes(self) -> NDArray[np.int64]:
        """About how much each term's list is: bytes, or postings."""
        starts = self._lists.starts.astype(np.int64)
        sizes: NDArray[np.int64] = starts[1:] - starts[:-1]
        return sizes

    def document_frequencies(self) -> NDArray[np.int64]:
        """How many rows have each term, in the order of `vocabulary`."""
        return self._lists.counts()

    def norms(self, base: float, slope: float) -> NDArray[np.float64]:
        """base + slope * length for each ordinal; the last one asked for is kept."""
        kept = self._norms
        if kept is None or kept[0] != (base, slope):
            norms = self.lengths.astype(np.float64) * slope + base
            kept = self._norms = ((base, slope), norms)
        return kept[1]

    # For compiled search

    def checked(
        self, term: bytes, lists: ModuleType, check: Check = unchecked
    ) -> tuple[NDArray[np.int64] | None, Any]:
        """The list of a term as `text_lists.check_list` describes it, checked and remembered.

        None where no row has the term. Beside it the arrays that have to be kept for it, if any.
        `check` is called between the steps of a long one; it may raise.
        """
        found = self._checked.get(term)
        if found is None:
            found = self._check(term, lists, check)
            self._note_bytes(_bytes_of(found[1] or ()))
            self._checked[term] = found
        return found

    def _check(
        self, term: bytes, lists: ModuleType, check: Check
    ) -> tuple[NDArray[np.int64] | None, Any]:
        """`checked`, looked up."""
        segment, spelled = self._segment_addresses(lists), np.frombuffer(term, np.uint8)
        out = np.empty(lists.CHECKED, np.int64)
        arrays: Any = None
        if self.version > FLAT:
            place = np.empty(4, np.int64)
            status = lists.find_packed(segment, spelled, place)
            if status == lists.FOUND:
                count = int(place[0])
                arrays = np.empty(count, np.uint32), np.empty(count, np.uint8)
                kind = lists.BYTES
                out[: lists.LIST] = address(arrays[0]), address(arrays[1]), kind, count, 0, 0, 0, 0
                status = lists.unpack_list(segment, place, out)
                if status == lists.FOUND and count >= LEAST_ORDERED:
                    check()
                    arrays += _ordered(out, self.lengths, lists)
                    if count * MAPPED_SHARE >= self.size:
                        check()
                        arrays += (_mapped(out, self.size, lists),)
        else:
            status = lists.check_list(segment, spelled, out)
        if status == lists.FOUND:
            return out, arrays
        if status == lists.ABSENT:
            return None, None
        docs, frequencies = self.postings(term)
        if status == lists.DAMAGED:  # which `postings` has said better, or else
            raise CorruptDatabaseError(f"{self.where}: the list of {term!r} is damaged")
        return list_of(docs, frequencies, self.lengths, lists)

    def opened(
        self, term: bytes, kernels: Kernels
    ) -> tuple[NDArray[np.int64], tuple[NDArray[Any], ...]] | None:
        """A long list that few searches have asked for, to be unpacked block by block.

        As `checked` gives it, for one search; None where `checked` has to be asked: once searches
        have unpacked as many postings as the list has, or FEW_SEARCHES have asked for it.
        Raises CorruptDatabaseError: its blocks cannot be.
        """
        if self._blocks is None or term in self._checked:
            return None
        lists, blocks = kernels.lists, kernels.blocks
        segment, spelled = self._segment_addresses(lists), np.frombuffer(term, np.uint8)
        place = np.empty(4, np.int64)
        if (
            lists.find_packed(segment, spelled, place) != lists.FOUND
            or place[0] < self.least_blocked
        ):
            return None
        count, unpacked = int(place[0]), self._asked.get(term, 0)
        if unpacked >= count:
            return None
        stored = self._blocks.of(int(place[3]), count)
        if stored is None or self._blocks.has_large(stored):
            return None
        docs, frequencies = np.empty(count, np.uint32), np.empty(count, np.uint8)
        state = np.empty(blocks.HEAD + blocks.BLOCK * (len(stored) // blocks.STORED + 1), np.int64)
        out = np.empty(lists.CHECKED, np.int64)
        out[: lists.LIST] = (
            address(docs), address(frequencies), lists.BYTES, count, 0, 0, 0, address(state)
        )  # fmt: skip
        if blocks.open_blocks(segment, place, address(stored), out) != lists.FOUND:
            raise CorruptDatabaseError(f"{self.where}: the blocks of {term!r} cannot be")
        return out, (state, docs, frequencies)

    def note_opened(self, term: bytes, count: int, unpacked: int) -> None:
        """A search has unpacked so many of the `count` postings of a list from `opened`."""
        if len(self._asked) > _REMEMBERED_TERMS:
            self._asked.clear()
        before = self._asked.get(term, 0)
        self._asked[term] = before + max(unpacked, -(-count // FEW_SEARCHES))

    def _segment_addresses(self, lists: ModuleType) -> NDArray[np.int64]:
        """What `check_list` reads of the segment: addresses and counts."""
        if self._addresses is None:
            found = np.zeros(lists.SEGMENT, np.int64)
            terms = np.frombuffer(self._terms, np.uint8)
            found[lists.TERMS], found[lists.TERM_BYTES] = address(terms), len(terms)
            offsets = np.frombuffer(self._term_offsets, np.uint32)
            found[lists.TERM_OFFSETS] = address(offsets)
            found[lists.TERM_COUNT] = self.term_count
            found[lists.LENGTHS], found[lists.ROWS] = address(self.lengths), self.size
            found[lists.DOCUMENTS] = self.document_count
            starts = self._lists.starts
            found[lists.LIST_STARTS], found[lists.IS_WIDE] = address(starts), starts.itemsize == 8
            if isinstance(self._lists, PackedLists):
                packed = self._lists.packed
                found[lists.PACKED], found[lists.PACKED_BYTES] = address(packed), len(packed)
            else:
                found[lists.POSTINGS] = len(self._lists.docs)
                found[lists.ALL_DOCS] = address(self._lists.docs)
                found[lists.ALL_FREQUENCIES] = address(self._lists.freqs)
            self._addresses = found
        return self._addresses

    # Integrity

    def faults(self, check: Check = unchecked) -> Iterator[str]:
        """Every invariant that does not hold, as text; reads everything.

        check  called between slices of the work; it may raise
        """
        terms = self.vocabulary(check)
        if any(one >= other for one, other in pairwise(watched(terms, check))):
            yield f"{self.where}: terms do not ascend"
        lengths = np.zeros(self.size, np.int64)
        for number, term in enumerate(watched(terms, check)):
            try:
                docs, frequencies = self._lists.one(number)
            except CorruptDatabaseError as error:
                yield f"{error} (term {term!r})"
                continue
            lengths[docs] += frequencies
        has_text = self.lengths != NULL_LENGTH
        if int(has_text.sum()) != self.document_count:
            yield f"{self.where}: {has_text.sum()} texts, expected {self.document_count}"
        total_length = int(self.lengths[has_text].sum(dtype=np.uint64))
        if total_length != self.total_length:
            yield f"{self.where}: {total_length} tokens, expected {self.total_length}"
        if not np.array_equal(lengths[has_text], self.lengths[has_text]):
            yield f"{self.where}: the lists have other lengths of texts than the index says"
        yield from self._lists.faults()
        if self._blocks is not None:
            try:
                found = self.term_postings(0, self.term_count, positions=False, check=check)
                expected = block_parts(found, self.lengths, check, self.least_blocked)
            except CorruptDatabaseError as error:
                yield str(error)
                return
            if not self._blocks.is_made_of(expected):
                yield f"{self.where}: the blocks of lists are not those of the lists"
