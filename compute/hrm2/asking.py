"""Asking: the queries by which the recall of lists is measured.

    stored   a row, searched for among the others
    swapped  the centroid of a list with the residual of a row of another
    moved    a row with most of the difference of two others
    mixed    the mean of three rows of a list with more than half of such a difference
    halved   a point half way between two rows, all but equally near to it
    noisy    a row and noise that spreads as all rows do
    free     that noise alone, around the mean of the rows, of several lengths
    known    queries that were asked of the collection

They come in GROUPS, each of which has to reach a recall for itself (`fitting`); swapped, moved and
mixed are one, BETWEEN.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from m2mdb.compute.hrm2.outliers import usual

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from m2mdb.compute.hrm2.lists import Lists

    Floats = NDArray[np.float32]
    Rng = np.random.Generator

GROUPS = STORED, BETWEEN, HALVED, NOISY, FREE, KNOWN = range(6)  # of queries
MADE = BETWEEN, HALVED, NOISY, FREE
LIKELY = STORED, KNOWN  # what is asked in earnest
PARTS = 0.495, 0.505  # of one row of a halved query: all but equally near to it
LENGTHS = 0.8, 1.2  # of the noise of free queries, to the rows' spread: hard ones of each hardness
MEMBERS = 64  # of a list, for its centroid
SAMPLE = 8192  # rows that say how rows spread


class Queries(NamedTuple):
    """Queries that measure.

    vectors  float32[n, d]
    own      int64[n]: the row that a query is, and that it must not find; -1: none
    groups   int64[n]: of GROUPS
    """

    vectors: Floats
    own: NDArray[np.int64]
    groups: NDArray[np.int64]

    def and_also(self, other: Queries) -> Queries:
        """Both together."""
        vectors = np.concatenate((self.vectors, other.vectors))
        own = np.concatenate((self.own, other.own))
        return Queries(vectors, own, np.concatenate((self.groups, other.groups)))

    def first(self, each: int) -> Queries:
        """The first ones of every group, so many of each."""
        return self.at(self.places(each))

    def places(self, each: int) -> NDArray[np.intp]:
        """Where the first ones of every group stand."""
        return np.concatenate([np.flatnonzero(self.groups == g)[:each] for g in GROUPS])

    def at(self, places: NDArray[np.intp]) -> Queries:
        """Those that stand at some places."""
        return Queries(self.vectors[places], self.own[places], self.groups[places])


def of_rows(rows: Floats, count: int, rng: Rng) -> Queries:
    """Stored rows, no more than there are, each but once."""
    own = rng.permutation(len(rows))[:count]
    return Queries(np.ascontiguousarray(rows[own], np.float32), own, np.full(len(own), STORED))


def given(vectors: Floats, group: int) -> Queries:
    """Queries of a group that are no rows, float32[n, d]."""
    count = len(vectors)
    every = np.ascontiguousarray(vectors, np.float32)
    return Queries(every, np.full(count, -1), np.full(count, group))


def made(group: int, lists: Lists, rows: Floats, count: int, rng: Rng) -> Floats:
    """So many queries of one of MADE, off the distribution of the rows, float32[count, d]."""

    def some(count: int = count) -> Floats:
        return rows[rng.integers(0, len(rows), count)]

    if group == BETWEEN:
        out = _between(lists, rows, -(-count // 3), some, rng)[:count]
    elif group == HALVED:
        part = rng.uniform(*PARTS, (count, 1)).astype(np.float32)
        out = part * some() + (1 - part) * some()
    else:
        sample = some(min(len(rows), SAMPLE))
        sample = sample[usual(sample)]
        spread, middle = sample.std(axis=0), sample.mean(axis=0)
        noise = rng.standard_normal((count, rows.shape[1])) * spread
        if group == NOISY:
            out = some() + noise
        else:
            out = middle + rng.uniform(*LENGTHS, (count, 1)) * noise
    return out.astype(np.float32, copy=False)


def _between(
    lists: Lists, rows: Floats, count: int, some: Callable[[int], Floats], rng: Rng
) -> Floats:
    """Swapped, moved and mixed queries, in turns."""
    members = _Members(lists, rows)
    owners = rng.integers(0, len(lists.ordinals), (3, count))
    swapped = np.stack(
        [
            members.mean(at) + members.one(of, rng) - members.mean(of)
            for at, of in zip(*owners[:2].tolist(), strict=True)
        ]
    )
    moved = some(count) + np.float32(0.9) * (some(count) - some(count))
    mixed = np.stack(
        [np.mean([members.one(of, rng) for _ in range(3)], axis=0) for of in owners[2].tolist()]
    )
    mixed += np.float32(0.6) * (some(count) - some(count))
    out: Floats = np.stack((swapped, moved, mixed), axis=1).reshape(-1, rows.shape[1])
    return out


def ready(queries: Floats, metric: str) -> Floats:
    """As they are searched for: of length 1 under cosine."""
    if metric == "cosine":
        lengths = np.linalg.norm(queries, axis=1, keepdims=True)
        queries = queries / np.maximum(lengths, np.float32(1e-20))
    return np.ascontiguousarray(queries, np.float32)


class _Members:
    """Rows of the lists in which rows stand."""

    def __init__(self, lists: Lists, rows: Floats) -> None:
        self._lists = lists
        self._rows = rows
        self._list_of = np.empty(len(lists.ordinals), np.int64)
        for each, (start, end) in enumerate(zip(lists.starts[:-1], lists.starts[1:], strict=True)):
            block = lists.positions[start:end]
            self._list_of[block[block >= 0]] = each

    def _ordinals(self, position: int) -> NDArray[np.int32]:
        """Of the list in which a position stands."""
        each = self._list_of[position]
        block = self._lists.positions[self._lists.starts[each] : self._lists.starts[each + 1]]
        out: NDArray[np.int32] = self._lists.ordinals[block[block >= 0]]
        return out

    def mean(self, position: int) -> Floats:
        """The centroid of its list, nearly."""
        out: Floats = self._rows[self._ordinals(position)[:MEMBERS]].mean(axis=0)
        return out

    def one(self, position: int, rng: Rng) -> Floats:
        """A row of its list."""
        out: Floats = self._rows[rng.choice(self._ordinals(position))]
        return out
