"""Flat lists: postings as version 1 of the format has them, in arrays that are read in place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from m2mdb.index.slices import Check, unchecked
from m2mdb.index.text.packed import Postings
from m2mdb.pager.errors import CorruptDatabaseError

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Docs = NDArray[np.uint32]
    Frequencies = NDArray[np.uint8] | NDArray[np.uint32]

ESCAPE = 255  # a frequency that stands elsewhere


class FlatLists:
    """The lists of a segment of version 1; see `postings.py` for its parts."""

    __slots__ = ("_documents", "_overflow_at", "_overflow_freqs", "_rows", "_where", "docs",
                 "freqs", "starts")  # fmt: skip
    has_positions = False

    def __init__(
        self, parts: dict[str, NDArray[Any]], rows: int, documents: int, where: str
    ) -> None:
        """`parts` by their names; `rows` bounds ordinals (T4)."""
        self.starts = parts["starts"]
        self.docs: Docs = parts["docs"]
        self.freqs: NDArray[np.uint8] = parts["freqs"]
        self._overflow_at = parts["overflow_at"]
        self._overflow_freqs = parts["overflow_freqs"]
        self._rows = rows
        self._documents = documents
        self._where = where
        first, last, count = self.starts[0], self.starts[-1], len(self.docs)
        if first != 0 or last != count:
            raise CorruptDatabaseError(f"{where}: lists span {first}..{last}, expected 0..{count}")

    def _bounds(self, first: int, last: int) -> tuple[int, int]:
        """Where the lists first..last stand (T4)."""
        start, stop = int(self.starts[first]), int(self.starts[last])
        if not 0 <= start <= stop <= len(self.docs):
            raise CorruptDatabaseError(
                f"{self._where}: a list at {start}..{stop} of {len(self.docs)} postings"
            )
        return start, stop

    def count(self, term_id: int) -> int:
        """How many rows have a term."""
        return len(self.one(term_id)[0])

    def one(self, term_id: int, check: Check = unchecked) -> tuple[Docs, Frequencies]:
        """The list of a term, checked."""
        start, stop = self._bounds(term_id, term_id + 1)
        docs = self.docs[start:stop]
        self._check_ordinals(docs)
        if (docs[1:] <= docs[:-1]).any():
            raise CorruptDatabaseError(f"{self._where}: ordinals of a list do not ascend")
        if not 0 < stop - start <= self._documents or not self.freqs[start:stop].all():
            raise CorruptDatabaseError(f"{self._where}: a list cannot be")
        return docs, self._frequencies(start, stop)

    def some(self, first: int, last: int, check: Check = unchecked) -> tuple[Docs, Frequencies]:
        """The lists of the terms first..last, one behind the other."""
        start, stop = self._bounds(first, last)
        docs = self.docs[start:stop]
        self._check_ordinals(docs)
        return docs, self._frequencies(start, stop)

    def counts(self) -> Ints:
        """How many rows have each term."""
        starts = self.starts.astype(np.int64)
        counts: Ints = starts[1:] - starts[:-1]
        if len(counts) and counts.min() < 0:
            raise CorruptDatabaseError(f"{self._where}: the starts of lists do not ascend")
        if len(counts) and counts.max() > self._documents:
            raise CorruptDatabaseError(f"{self._where}: a list is longer than there are texts")
        return counts

    def postings(
        self, first: int, last: int, *, positions: bool = False, check: Check = unchecked
    ) -> Postings:
        """The lists of the terms first..last; there are no positions."""
        docs, frequencies = self.some(first, last)
        check()
        starts = self.starts[first : last + 1].astype(np.int64)
        counts = starts[1:] - starts[:-1]
        if len(counts) and not 0 <= counts.min() <= counts.max() <= self._documents:
            raise CorruptDatabaseError(f"{self._where}: a list of {counts.max()} postings")
        return Postings(counts, docs.astype(np.int64), frequencies.astype(np.int64), None)

    def _frequencies(self, start: int, stop: int) -> Frequencies:
        """The frequencies of postings start..stop, large ones put in."""
        freqs = self.freqs[start:stop]
        if not len(self._overflow_at):
            return freqs
        first, last = np.searchsorted(self._overflow_at, (start, stop))
        if first >= last:
            return freqs
        places = self._overflow_at[first:last] - np.uint64(start)
        if places.max() >= stop - start or (freqs[places] != ESCAPE).any():
            raise CorruptDatabaseError(f"{self._where}: large frequencies are out of order")
        large = freqs.astype(np.uint32)
        large[places] = self._overflow_freqs[first:last]
        return large

    def _check_ordinals(self, docs: Docs) -> None:
        """Refuse ordinals that no row has (T4)."""
        if len(docs) and docs.max() >= self._rows:
            raise CorruptDatabaseError(f"{self._where}: ordinal {docs.max()} of {self._rows} rows")

    def faults(self) -> list[str]:
        """What does not hold beside the lists."""
        if len(self._overflow_at) != int((self.freqs == ESCAPE).sum()):
            return [f"{self._where}: large frequencies are missing"]
        return []
