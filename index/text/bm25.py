"""BM25: the weight of a term and the impact of its frequency, in four variants.

A document's score is the sum over the query's terms of

    boost * weight(statistics, df) * impact(tf, norm)      where the term stands in the document
  + boost * weight(statistics, df) * baseline              for every term of the collection

with norm = base + slope * length. N documents of average length L, statistics over all sources of
the snapshot, dead rows included (S24).

    variant   weight                                  impact
    lucene    ln(1 + (N - df + 0.5) / (df + 0.5))     tf / (tf + k1 (1 - b + b length / L))
    okapi     ln((N - df + 0.5) / (df + 0.5)), or     (k1 + 1) tf / (tf + k1 (1 - b + b length / L))
              epsilon * its average if negative
    l         ln((N + 1) / (df + 0.5))                (k1 + 1) tf (c + delta) / (k1 + c + delta),
                                                      c = tf / (1 - b + b length / L)
    plus      ln((N + 1) / df)                        as okapi; baseline delta

lucene is what Lucene 8 and later compute but for their lossy lengths. The other three give the
numbers of the package rank-bm25, its defaults for the parameters included.
"""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


class Statistics:
    """What a column's rows have in common at a snapshot."""

    __slots__ = ("_frequencies", "average_length", "average_weight", "document_count")

    def __init__(
        self,
        document_count: int,
        total_length: int,
        frequencies: Callable[[], NDArray[np.int64]],
    ) -> None:
        """`frequencies` gives the document frequency of every term, for who needs them all."""
        self.document_count = document_count
        self.average_length = total_length / document_count if total_length else 1.0
        self.average_weight: float | None = None
        self._frequencies = frequencies

    def frequencies(self) -> NDArray[np.int64]:
        """The document frequency of every term."""
        return self._frequencies()


class Variant(Protocol):
    """A ranking function of the BM25 family. Pure: nothing is kept between calls."""

    PARAMETERS: ClassVar[tuple[str, ...]]

    def __init__(self, **parameters: float) -> None:
        """Take the parameters that are given, the usual ones for the others."""
        ...

    @property
    def baseline(self) -> float:
        """The impact of a term that the document has not."""
        ...

    def weight(self, statistics: Statistics, document_frequency: int) -> float:
        """The weight of a term that stands in `document_frequency` >= 1 documents."""
        ...

    def norm(self, statistics: Statistics) -> tuple[float, float]:
        """(base, slope) of norm = base + slope * length."""
        ...

    def impact(self, frequencies: Floats, norms: Floats) -> Floats:
        """The impact of each frequency in a document of each norm."""
        ...

    @property
    def constants(self) -> tuple[bool, float, float, float]:
        """(is that of BM25L, factor on tf, k1, delta): what `impact` is made of, for kernels."""
        ...


class Lucene:
    """Lucene's BM25 since version 8."""

    PARAMETERS: ClassVar[tuple[str, ...]] = ("k1", "b")
    baseline = 0.0

    def __init__(self, k1: float = 1.2, b: float = 0.75) -> None:
        """Take the parameters."""
        self.k1 = k1
        self.b = b

    def weight(self, statistics: Statistics, document_frequency: int) -> float:
        """ln(1 + (N - df + 0.5) / (df + 0.5)), always positive."""
        absent = statistics.document_count - document_frequency
        return log(1.0 + (absent + 0.5) / (document_frequency + 0.5))

    @property
    def constants(self) -> tuple[bool, float, float, float]:
        """See `Variant.constants`."""
        return False, 1.0, self.k1, 0.0

    def norm(self, statistics: Statistics) -> tuple[float, float]:
        """k1 (1 - b + b length / L)."""
        return self.k1 * (1.0 - self.b), self.k1 * self.b / statistics.average_length

    def impact(self, frequencies: Floats, norms: Floats) -> Floats:
        """tf / (tf + norm)."""
        return frequencies / (frequencies + norms)


class Okapi:
    """rank_bm25.BM25Okapi."""

    PARAMETERS: ClassVar[tuple[str, ...]] = ("k1", "b", "epsilon")
    baseline = 0.0

    def __init__(self, k1: float = 1.5, b: float = 0.75, epsilon: float = 0.25) -> None:
        """Take the parameters."""
        self.k1 = k1
        self.b = b
        self.epsilon = epsilon

    def weight(self, statistics: Statistics, document_frequency: int) -> float:
        """ln((N - df + 0.5) / (df + 0.5)); negative ones become epsilon times the average."""
        total = statistics.document_count
        weight = log(total - document_frequency + 0.5) - log(document_frequency + 0.5)
        if weight >= 0:
            return weight
        if statistics.average_weight is None:
            frequencies = statistics.frequencies()
            weights = np.log(total - frequencies + 0.5) - np.log(frequencies + 0.5)
            statistics.average_weight = float(np.sort(weights).mean())
        return self.epsilon * statistics.average_weight

    @property
    def constants(self) -> tuple[bool, float, float, float]:
        """See `Variant.constants`."""
        return False, self.k1 + 1.0, self.k1, 0.0

    def norm(self, statistics: Statistics) -> tuple[float, float]:
        """k1 (1 - b + b length / L)."""
        return self.k1 * (1.0 - self.b), self.k1 * self.b / statistics.average_length

    def impact(self, frequencies: Floats, norms: Floats) -> Floats:
        """(k1 + 1) tf / (tf + norm)."""
        return frequencies * (self.k1 + 1.0) / (frequencies + norms)


class L:
    """rank_bm25.BM25L."""

    PARAMETERS: ClassVar[tuple[str, ...]] = ("k1", "b", "delta")
    baseline = 0.0

    def __init__(self, k1: float = 1.5, b: float = 0.75, delta: float = 0.5) -> None:
        """Take the parameters."""
        self.k1 = k1
        self.b = b
        self.delta = delta

    def weight(self, statistics: Statistics, document_frequency: int) -> float:
        """ln((N + 1) / (df + 0.5))."""
        return log(statistics.document_count + 1) - log(document_frequency + 0.5)

    @property
    def constants(self) -> tuple[bool, float, float, float]:
        """See `Variant.constants`."""
        return True, self.k1 + 1.0, self.k1, self.delta

    def norm(self, statistics: Statistics) -> tuple[float, float]:
        """1 - b + b length / L."""
        return 1.0 - self.b, self.b / statistics.average_length

    def impact(self, frequencies: Floats, norms: Floats) -> Floats:
        """(k1 + 1) tf (c + delta) / (k1 + c + delta), c = tf / norm."""
        raised = frequencies / norms + self.delta
        return frequencies * (self.k1 + 1.0) * raised / (self.k1 + raised)


class Plus:
    """rank_bm25.BM25Plus, whose every document has delta for every term."""

    PARAMETERS: ClassVar[tuple[str, ...]] = ("k1", "b", "delta")

    def __init__(self, k1: float = 1.5, b: float = 0.75, delta: float = 1.0) -> None:
        """Take the parameters."""
        self.k1 = k1
        self.b = b
        self.baseline = delta

    def weight(self, statistics: Statistics, document_frequency: int) -> float:
        """ln((N + 1) / df)."""
        return log((statistics.document_count + 1) / document_frequency)

    @property
    def constants(self) -> tuple[bool, float, float, float]:
        """See `Variant.constants`."""
        return False, self.k1 + 1.0, self.k1, 0.0

    def norm(self, statistics: Statistics) -> tuple[float, float]:
        """k1 (1 - b + b length / L)."""
        return self.k1 * (1.0 - self.b), self.k1 * self.b / statistics.average_length

    def impact(self, frequencies: Floats, norms: Floats) -> Floats:
        """(k1 + 1) tf / (tf + norm)."""
        return frequencies * (self.k1 + 1.0) / (norms + frequencies)


VARIANTS: dict[str, type[Variant]] = {"lucene": Lucene, "okapi": Okapi, "l": L, "plus": Plus}
