"""VisibleSource: the lists of a part as a moment of the past sees them.

The lists of a part hold every version that stands in it. Here they are cut down to the versions
that were visible then, statistics included; so BM25 as of a commit depends on nothing but the rows
as they stood, not on flushes and merges since.

Invariants
    X10 A search over visible sources is a search over an index of the visible rows alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from m2mdb.index.slices import Check, unchecked
from m2mdb.index.text.postings import NULL_LENGTH

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from m2mdb.index.text.source import Docs, Frequencies, Source


class VisibleSource:
    """A source without the rows that a mask leaves out; ordinals stay."""

    __slots__ = (
        "_counts", "_source", "_visible", "document_count", "lengths", "size", "total_length",
    )  # fmt: skip

    def __init__(self, source: Source, visible: NDArray[np.bool_]) -> None:
        """`visible`: bool (source.size,)."""
        self._source = source
        self._visible = visible
        self._counts: dict[bytes, int] | None = None
        self.size = source.size
        self.lengths = source.lengths
        counted = visible & (source.lengths != NULL_LENGTH)
        self.document_count = int(np.count_nonzero(counted))
        self.total_length = int(source.lengths[counted].sum(dtype=np.uint64))

    def document_frequency(self, term: bytes) -> int:
        """How many visible rows have the term."""
        return int(np.count_nonzero(self._visible[self._source.postings(term)[0]]))

    def postings(self, term: bytes, check: Check = unchecked) -> tuple[Docs, Frequencies]:
        """The visible ordinals that have the term, ascending, and how often each has it."""
        return self._cut(*self._source.postings(term, check))

    def prefix_postings(self, prefix: bytes, check: Check = unchecked) -> tuple[Docs, Frequencies]:
        """The lists of all terms with the prefix, one behind the other."""
        return self._cut(*self._source.prefix_postings(prefix, check))

    def positions(self, term: bytes, check: Check = unchecked) -> NDArray[np.uint64] | None:
        """Where visible rows have the term: ordinal << 32 | position, ascending, if it is known."""
        found = self._source.positions(term, check)
        return None if found is None else found[self._visible[found >> np.uint64(32)]]

    def _cut(self, docs: Docs, frequencies: Frequencies) -> tuple[Docs, Frequencies]:
        kept = self._visible[docs]
        return docs[kept], frequencies[kept]

    def fuzzy(self, term: bytes) -> list[bytes]:
        """The terms at most one edit away that a visible row has."""
        return [other for other in self._source.fuzzy(term) if self.document_frequency(other)]

    def vocabulary(self) -> list[bytes]:
        """All terms that a visible row has, ascending."""
        return list(self._frequencies())

    def document_frequencies(self) -> NDArray[np.int64]:
        """How many visible rows have each term of `vocabulary`."""
        return np.array(list(self._frequencies().values()), np.int64)

    def _frequencies(self) -> dict[bytes, int]:
        """The document frequency of every term with one; for the variants that need them all."""
        if self._counts is None:
            counts = {term: self.document_frequency(term) for term in self._source.vocabulary()}
            self._counts = {term: count for term, count in counts.items() if count}
        return self._counts

    def norms(self, base: float, slope: float) -> NDArray[np.float64]:
        """base + slope * length for each ordinal; those that the part keeps stay the present's."""
        return self.lengths.astype(np.float64) * slope + base
