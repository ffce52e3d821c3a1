"""Source and TextColumn: what a text search reads, a column's lists part by part.

A collection at a snapshot is its delta and its segments; each of these *parts* has a Source for
every FULLTEXT column. Statistics are sums over all sources, so a term weighs the same in each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from m2mdb.index.slices import Check, unchecked
from m2mdb.index.text.analysis import PLAIN, Analyzer
from m2mdb.index.text.bm25 import Lucene, Statistics, Variant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Docs = NDArray[np.uint32]
    Frequencies = NDArray[np.uint8] | NDArray[np.uint32] | NDArray[np.float64]


class Source(Protocol):
    """The lists of one column of one part; TextSegment and DeltaView are the two."""

    size: int
    document_count: int
    total_length: int
    lengths: NDArray[np.uint32]

    def document_frequency(self, term: bytes) -> int:
        """How many rows have the term, dead ones included (S24)."""
        ...

    def postings(self, term: bytes, check: Check = unchecked) -> tuple[Docs, Frequencies]:
        """The ordinals that have the term, ascending, and how often each has it."""
        ...

    def prefix_postings(self, prefix: bytes, check: Check = unchecked) -> tuple[Docs, Frequencies]:
        """The lists of all terms with the prefix, one behind the other."""
        ...

    def positions(self, term: bytes, check: Check = unchecked) -> NDArray[np.uint64] | None:
        """Where the term stands: ordinal << 32 | position, ascending; None if it is not known."""
        ...

    def fuzzy(self, term: bytes) -> list[bytes]:
        """The terms at most one edit away."""
        ...

    def vocabulary(self) -> list[bytes]:
        """All terms, ascending."""
        ...

    def document_frequencies(self) -> NDArray[np.int64]:
        """How many rows have each term of `vocabulary`."""
        ...

    def norms(self, base: float, slope: float) -> NDArray[np.float64]:
        """base + slope * length for each ordinal."""
        ...


class TextColumn:
    """A FULLTEXT column at a snapshot: its sources, one per part, and how it is ranked."""

    __slots__ = ("analyzer", "check", "name", "sources", "statistics", "variant", "weight")

    def __init__(
        self,
        name: str,
        sources: Sequence[Source],
        variant: Variant | None = None,
        weight: float = 1.0,
        analyzer: Analyzer = PLAIN,
    ) -> None:
        """Sum up the statistics of the sources, in the order of the collection's parts."""
        self.analyzer = analyzer
        self.check: Check = unchecked  # called between slices of a search; it may raise
        self.name = name
        self.sources = sources
        self.variant: Variant = variant or Lucene()
        self.weight = weight
        self.statistics = Statistics(
            sum([source.document_count for source in sources]),
            sum([source.total_length for source in sources]),
            self._frequencies,
        )

    def _frequencies(self) -> NDArray[np.int64]:
        """The document frequency of every term over all sources."""
        if len(self.sources) == 1:
            return self.sources[0].document_frequencies()
        total: dict[bytes, int] = {}
        for source in self.sources:
            counts = source.document_frequencies().tolist()
            for term, frequency in zip(source.vocabulary(), counts, strict=True):
                total[term] = total.get(term, 0) + frequency
        return np.array(list(total.values()), np.int64)
