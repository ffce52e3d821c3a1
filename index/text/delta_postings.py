"""DeltaPostings: the inverted lists of the rows in a collection's delta, in memory.

The delta numbers its entries 0, 1, 2, … and only appends, so lists are appended to as well, and a
snapshot that sees n entries reads each list up to entry n. One posting is one word:

    entry << 32 | frequency

Invariants
    X4  A view of n entries gives the same answers for ever, whatever is added behind them.
    X5  `truncate(n)` leaves exactly what adding the first n texts gives.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from typing import TYPE_CHECKING

import numpy as np

from m2mdb.index.slices import Check, unchecked, watched
from m2mdb.index.text.analysis import PLAIN, Analyzer
from m2mdb.index.text.fuzzy import CHARACTER_BYTES, is_close
from m2mdb.index.text.postings import NULL_LENGTH

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    Docs = NDArray[np.uint32]
    Frequencies = NDArray[np.uint32]

_NO_DOCS = np.empty(0, np.uint32)


class DeltaPostings:
    """The lists of one FULLTEXT column of the delta; appended to by one thread at a time."""

    __slots__ = (
        "_analyzer", "_document_counts", "_entry_terms", "_lengths", "_lists", "_total_lengths",
    )  # fmt: skip

    def __init__(self, analyzer: Analyzer = PLAIN) -> None:
        """An empty delta."""
        self._analyzer = analyzer
        self._lists: dict[bytes, array[int]] = {}
        self._entry_terms: list[tuple[bytes, ...]] = []
        self._lengths = array("I")
        self._document_counts = array("Q", (0,))  # of the first i entries, at i
        self._total_lengths = array("Q", (0,))

    def __len__(self) -> int:
        """How many entries have been added."""
        return len(self._entry_terms)

    def add(self, entry_number: int, text: str | None) -> None:
        """Append the text of the next entry, which must be number `len(self)`; None is NULL."""
        assert entry_number == len(self._entry_terms), "X4: the delta only appends"
        if text is None:
            self._note(NULL_LENGTH, 0, 0, ())
            return
        tokens = self._analyzer.terms(text)
        frequencies: dict[bytes, int] = {}
        for token in tokens:
            frequencies[token] = frequencies.get(token, 0) + 1
        lists = self._lists
        entry = entry_number << 32
        for term, frequency in frequencies.items():
            postings = lists.get(term)
            if postings is None:
                postings = lists[term] = array("Q")
            postings.append(entry | frequency)
        self._note(len(tokens), 1, len(tokens), tuple(frequencies))

    def extend(self, texts: Iterable[str | None]) -> None:
        """Append the texts of the next entries."""
        for entry_number, text in enumerate(texts, len(self._entry_terms)):
            self.add(entry_number, text)

    def truncate(self, entry_count: int) -> None:
        """Forget the entries from number `entry_count` on (X5)."""
        for terms in reversed(self._entry_terms[entry_count:]):
            for term in terms:
                postings = self._lists[term]
                postings.pop()
                if not postings:
                    del self._lists[term]
        del self._entry_terms[entry_count:]
        del self._lengths[entry_count:]
        del self._document_counts[entry_count + 1 :]
        del self._total_lengths[entry_count + 1 :]

    def view(self, entry_count: int) -> DeltaView:
        """What a snapshot of the first `entry_count` entries sees."""
        return DeltaView(self, entry_count)

    def _note(self, length: int, documents: int, tokens: int, terms: tuple[bytes, ...]) -> None:
        """Append to the statistics of entries."""
        self._lengths.append(length)
        self._document_counts.append(self._document_counts[-1] + documents)
        self._total_lengths.append(self._total_lengths[-1] + tokens)
        self._entry_terms.append(terms)


class DeltaView:
    """The first `size` entries of a delta, read as a TextSegment is; ordinals are entry numbers."""

    __slots__ = ("_delta", "document_count", "lengths", "size", "total_length")

    def __init__(self, delta: DeltaPostings, entry_count: int) -> None:
        """See `entry_count` entries of `delta`."""
        self._delta = delta
        self.size = entry_count
        self.document_count: int = delta._document_counts[entry_count]
        self.total_length: int = delta._total_lengths[entry_count]
        self.lengths: NDArray[np.uint32] = np.frombuffer(
            delta._lengths[:entry_count].tobytes(), np.uint32
        )

    def document_frequency(self, term: bytes) -> int:
        """How many entries have the term."""
        postings = self._delta._lists.get(term)
        return bisect_left(postings, self.size << 32) if postings else 0

    def postings(self, term: bytes, check: Check = unchecked) -> tuple[Docs, Frequencies]:
        """The entries that have the term, ascending, and how often each has it."""
        postings = self._delta._lists.get(term)
        if not postings:
            return _NO_DOCS, _NO_DOCS
        packed = np.frombuffer(postings[: bisect_left(postings, self.size << 32)], np.uint64)
        return (packed >> np.uint64(32)).astype(np.uint32), packed.astype(np.uint32)

    def prefix_postings(self, prefix: bytes, check: Check = unchecked) -> tuple[Docs, Frequencies]:
        """The lists of all terms with the prefix, one behind the other: entries may repeat."""
        terms = sorted(term for term in self._terms() if term.startswith(prefix))
        lists = [self.postings(term) for term in watched(terms, check)]
        if not lists:
            return _NO_DOCS, _NO_DOCS
        return np.concatenate([docs for docs, _ in lists]), np.concatenate([f for _, f in lists])

    def positions(self, term: bytes, check: Check = unchecked) -> None:
        """None: the delta's texts are read for a phrase."""
        return

    def fuzzy(self, term: bytes) -> list[bytes]:
        """The terms at most one edit away from `term`, itself included, ascending."""
        word = term.decode()
        return sorted(
            other
            for other in self._terms()
            if abs(len(other) - len(term)) <= CHARACTER_BYTES
            and is_close(word, other.decode())
            and self.document_frequency(other)
        )

    def vocabulary(self) -> list[bytes]:
        """All terms that these entries have, ascending."""
        return sorted(term for term in self._terms() if self.document_frequency(term))

    def document_frequencies(self) -> NDArray[np.int64]:
        """How many entries have each term, in the order of `vocabulary`."""
        return np.array([self.document_frequency(term) for term in self.vocabulary()], np.int64)

    def norms(self, base: float, slope: float) -> NDArray[np.float64]:
        """base + slope * length for each entry."""
        return self.lengths.astype(np.float64) * slope + base

    def _terms(self) -> list[bytes]:
        """The terms of the whole delta, in a list of its own, for additions may go on."""
        return list(self._delta._lists)
