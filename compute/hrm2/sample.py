"""Sample: the rows that centroids are trained on, in as many blocks as memory wants.

    rows --at random, so many for a list--> one block that is kept           Whole
                                        --> blocks that are read as needed   Streamed

What a build keeps of a sample is bounded, and the rows that a centroid needs are not fewer where
vectors are long: fewer than about twenty and lists fit the sample, and not the rows. So a sample
that is too large is gone through in mini-batches (Sculley, WWW 2010): the lists of a block's rows
are those around the centroids as the blocks before have left them, and each centroid moves to the
mean of what it has seen, c <- c + (mean of the block's n - c) n / seen.

Invariants
    SA1 What is in memory of a sample is one block of `held` rows and a number a row.
    SA2 A Streamed sample of one block trains as a Whole one, to the last bit or two.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from m2mdb.compute.hrm2.products import Points, middle_of
from m2mdb.compute.memory import untouched_zeros

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from numpy.typing import NDArray

    Tick = Callable[[], None]
    Floats = NDArray[np.float32]
    Ints = NDArray[np.int32]

CHUNK_ROWS = 4096


class Whole:
    """A sample that is kept. Rows are known by their place in the sample."""

    __slots__ = ("_points", "count", "middle")

    def __init__(self, rows: Floats, tick: Tick) -> None:
        """`rows` is the sample, float32[n, d]."""
        self.count = len(rows)
        self.middle = middle_of(rows)
        self._points = Points(rows, self.middle).with_codes(tick)

    def some(self) -> Points:
        """A block of rows from all over the set."""
        return self._points

    def blocks(self) -> Iterator[tuple[slice, Points]]:
        """All rows, a block at a time, and their places."""
        yield slice(0, self.count), self._points

    def at(self, places: NDArray[Any]) -> Points:
        """The rows of some places."""
        return self._points.at(places)

    def groups(self, labels: Ints, count: int) -> Iterator[Points]:
        """For label 0, 1, ... the rows that have it."""
        for label in range(count):
            yield self._points.at(np.flatnonzero(labels == label))


class Streamed:
    """A sample that is read from the rows block by block; as Whole, which says what methods do."""

    __slots__ = ("_chosen", "_held", "_rows", "_tick", "count", "middle")

    def __init__(
        self,
        rows: Floats,
        chosen: NDArray[np.int64],
        held: int,
        rng: np.random.Generator,
        tick: Tick,
    ) -> None:
        """Some of the rows.

        rows    float32[n, d], of all
        chosen  which are the sample
        held    rows of a block at most
        """
        self._rows, self._held, self._tick = rows, held, tick
        self.count = len(chosen)
        self._chosen = rng.permutation(chosen)  # so that each block is of the whole set
        for some in self._slices():
            self._chosen[some].sort()  # and read from its beginning to its end
        self.middle = middle_of(self._read(self._chosen[next(self._slices())]))

    def some(self) -> Points:
        """The first block, with codes: it is gone through more than once."""
        first = self._read(self._chosen[next(self._slices())])
        return Points(first, self.middle).with_codes(self._tick)

    def blocks(self) -> Iterator[tuple[slice, Points]]:
        """Who goes through them lets go of each before the next is read (SA1)."""
        for some in self._slices():
            yield some, Points(self._read(self._chosen[some]), self.middle)

    def at(self, places: NDArray[Any]) -> Points:
        """A block of evenly chosen ones, where the places are more (SA1)."""
        if len(places) > self._held:
            places = places[np.arange(self._held) * len(places) // self._held]
        return Points(self._read(self._chosen[places]), self.middle)

    def groups(self, labels: Ints, count: int) -> Iterator[Points]:
        """Rows of as many labels at a time as a block holds."""
        order = np.argsort(labels, kind="stable")
        bounds = np.searchsorted(labels[order], np.arange(count + 1))
        label = 0
        while label < count:
            last = int(np.searchsorted(bounds, bounds[label] + self._held, side="right")) - 1
            last = max(label + 1, last)
            places = order[bounds[label] : bounds[last]]
            if last == label + 1:
                yield self.at(places).with_codes(self._tick)
            else:
                block = self._gathered(self._chosen[places])
                for each in range(label, last):
                    own = slice(*(bounds[each : each + 2] - bounds[label]).tolist())
                    yield Points(block[own].copy(), self.middle).with_codes(self._tick)
                del block  # before the next one is read (SA1)
            label = last

    def _slices(self) -> Iterator[slice]:
        blocks = -(-self.count // self._held)
        edges = [self.count * number // blocks for number in range(blocks + 1)]
        for start, end in pairwise(edges):
            yield slice(start, end)

    def _read(self, numbers: NDArray[np.int64]) -> Floats:
        """`rows[numbers]`."""
        out = untouched_zeros((len(numbers), self._rows.shape[1]), self._rows.dtype)
        for some in self._chunks(len(numbers)):
            out[some] = self._rows[numbers[some]]
        return out

    def _gathered(self, numbers: NDArray[np.int64]) -> Floats:
        """`rows[numbers]`, read in ascending order."""
        out = untouched_zeros((len(numbers), self._rows.shape[1]), self._rows.dtype)
        ascending = np.argsort(numbers, kind="stable")
        for some in self._chunks(len(numbers)):
            places = ascending[some]
            out[places] = self._rows[numbers[places]]
        return out

    def _chunks(self, count: int) -> Iterator[slice]:
        for start in range(0, count, CHUNK_ROWS):
            self._tick()
            yield slice(start, start + CHUNK_ROWS)


Sample = Whole | Streamed
