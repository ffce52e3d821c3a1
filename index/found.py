"""Found: the rows that one side of a search has found, best first."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

import numpy as np

from m2mdb.index.slices import SLICE_VALUES, Check, slices

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from m2mdb.compute.ranking import Answer


class Found:
    """Hits of a vector or text search, in columns.

    rowids     int64 (m,)
    parts      int64 (m,), the index into `CollectionView.parts()`; an int where all have one
    ordinals   int64 (m,), the row's number in its part
    scores     (m,), higher is better: float32's values, float64's under l2
    distances  (m,), float32's values, or None for a text search
    """

    __slots__ = ("_numbered", "_ordinals", "_parts", "distances", "rowids", "scores")

    def __init__(
        self,
        rowids: np.ndarray,
        parts: np.ndarray | int,
        ordinals: np.ndarray,
        scores: np.ndarray,
        distances: np.ndarray | None = None,
    ) -> None:
        self.rowids = rowids
        self._parts = parts
        self._ordinals = ordinals
        self.scores = scores
        self.distances = distances
        self._numbered: tuple[np.ndarray, Sequence[int]] | None = None

    def __len__(self) -> int:
        return len(self.rowids)

    @classmethod
    def numbered(cls, answer: Answer, starts: Sequence[int]) -> Found:
        """Hits whose parts and ordinals are worked out when they are asked for.

        starts  number of the first row of each part
        """
        found = cls.__new__(cls)
        numbers, found.rowids, found.scores, found.distances = answer
        found._numbered = numbers, starts
        return found

    @classmethod
    def nothing(cls) -> Found:
        """No hit."""
        none = np.empty(0, np.int64)
        return cls(none, none, none, np.empty(0, np.float32), np.empty(0, np.float32))

    def numbers(self, starts: Sequence[int]) -> np.ndarray:
        """int64 (m,), numbers through all parts."""
        if self._numbered is not None:
            return self._numbered[0]
        found: np.ndarray = np.array(starts, np.int64)[self.parts] + self.ordinals
        return found

    def _place(self) -> None:
        """Work parts and ordinals out from numbers."""
        if self._numbered is not None:
            numbers, starts = self._numbered
            firsts = np.array(starts)
            parts = np.searchsorted(firsts, numbers, "right") - 1
            self._parts, self._ordinals = parts, numbers - firsts[parts]
            self._numbered = None

    @property
    def parts(self) -> np.ndarray | int:
        """Where each row stands: index of its part."""
        self._place()
        return self._parts

    @property
    def ordinals(self) -> np.ndarray:
        """Where each row stands: its number in its part."""
        self._place()
        return self._ordinals

    @property
    def places(self) -> list[tuple[int, int]]:
        """(part, ordinal) of each hit, as `CollectionView.rows` takes them."""
        if self._numbered is not None:
            numbers, starts = self._numbered
            found = []
            for number in numbers.tolist():
                part = bisect_right(starts, number) - 1
                found.append((part, number - starts[part]))
            return found
        ordinals, parts = self._ordinals.tolist(), self._parts
        if isinstance(parts, int):
            return [(parts, ordinal) for ordinal in ordinals]
        return list(zip(parts.tolist(), ordinals, strict=True))

    def placed(self, start: int, stop: int, check: Check) -> list[tuple[int, int]]:
        """`between(start, stop).places`; `check` is called between slices of them."""
        if stop - start <= SLICE_VALUES:
            return self.places[start:stop]
        made: list[tuple[int, int]] = []
        for some in slices(stop - start, SLICE_VALUES, check):
            made += self.between(start + some.start, start + some.stop).places
        return made

    def between(self, start: int, stop: int) -> Found:
        """The hits from one place to before another."""
        chosen = slice(start, max(start, stop))
        found = Found.__new__(Found)
        found.rowids, found.scores = self.rowids[chosen], self.scores[chosen]
        found.distances = None if self.distances is None else self.distances[chosen]
        found._numbered = None
        if self._numbered is not None:
            numbers, starts = self._numbered
            found._numbered = numbers[chosen], starts
            return found
        found._parts = self._parts if isinstance(self._parts, int) else self._parts[chosen]
        found._ordinals = self._ordinals[chosen]
        return found

    def take(self, chosen: np.ndarray) -> Found:
        """Some of the hits, by index or mask."""
        parts, distances = self.parts, self.distances
        return Found(
            self.rowids[chosen],
            parts if isinstance(parts, int) else parts[chosen],
            self.ordinals[chosen],
            self.scores[chosen],
            None if distances is None else distances[chosen],
        )


class FoundMany:
    """Hits of many vector searches, in matrices of k columns.

    rowids     int64 (queries, k), -1 where no row is
    scores     float64 (queries, k), NaN there
    """

    __slots__ = ("_numbers", "_starts", "rowids", "scores")

    def __init__(self, answer: Answer, starts: Sequence[int]) -> None:
        """`starts`: number of the first row of each part."""
        self._numbers = answer.numbers
        self._starts = np.array(starts)
        self.rowids = np.ascontiguousarray(answer.ids)
        self.scores = np.ascontiguousarray(answer.scores)

    def by_part(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """(part, where its rows stand in `rowids` laid flat, their ordinals) for each part."""
        numbers = self._numbers.ravel()
        there = np.flatnonzero(numbers >= 0)
        parts = np.searchsorted(self._starts, numbers[there], "right") - 1
        for part in np.unique(parts).tolist():
            places = there[parts == part]
            yield part, places, numbers[places] - self._starts[part]
