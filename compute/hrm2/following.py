"""Following: which lists' centroids have fallen behind their rows, and where these lie now.

    rows of a list that stay, by their 8-bit codes --sum--> mean: where the centroid should be
    rows that come to it                           --------^
    |mean - centroid|^2 as a share of the rows' mean squared distance from the centroid

That share is what moving the centroid to the mean takes off the list's squared error, exactly. The
mean is that of the rows that are there, where a centroid that takes a step towards each row that
comes (c + eta (x - c)) remembers rows that went: it needs no state, and a list that changed much
moves as far as it has to. Lists that changed little stay as they are, with the codes of their rows.

Invariants
    FW1 Depends on the lists, on which rows stay and on the new rows alone: the same with compiled
        kernels and without, bit for bit.
    FW2 A centroid that 8-bit codes cannot tell from the mean of its rows stays.
    FW3 Lists that move are first lists of no more rows than a share of those that came or went;
        where nothing came or went none moves. Rows with their second code in one are coded anew,
        too: about as many again.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from m2mdb.compute.hrm2.lists import CHUNK_ROWS, Lists, never
from m2mdb.compute.loader import LOADER
from m2mdb.compute.ranking import readable

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from m2mdb.compute.hrm2.lists import Floats

    Doubles = NDArray[np.float64]
    Longs = NDArray[np.int64]
    Marks = NDArray[np.bool_]

SHARE = 0.1  # of a list's squared error that a move takes off; by chance it is 0.02, rarely 0.07
FEW = 16  # rows of a label
MOST_FOLLOWED = 0.5  # rows in lists that move, over those that came or went: they are coded anew


class Members(NamedTuple):
    """Rows that stay, in the order of their first lists.

    lists      int64[n], the first list of each
    positions  int64[n]
    squares    float64[n], squared distance from the centroid of it
    """

    lists: Longs
    positions: Longs
    squares: Doubles


class Behind(NamedTuple):
    """Of each list.

    rows   int64[lists], how many there are
    means  float32[lists, width], where they lie
    share  float64[lists], of their squared error that the centroid would take off there
    """

    rows: Longs
    means: Floats
    share: Doubles

    def followed(self, changed: int, others: Marks) -> Longs:
        """The lists whose centroids are to move, ascending: those farthest behind (FW3).

        One that alone has too many rows waits until more have changed, and holds back no other.

        changed  rows that came or went
        others   lists that do not move, whatever their rows do
        """
        most = MOST_FOLLOWED * changed
        order = np.argsort(-self.share, kind="stable")
        order = order[(self.share[order] > SHARE) & ~others[order] & (self.rows[order] <= most)]
        return np.sort(order[np.cumsum(self.rows[order]) <= most])


def residual_squares(f: Floats, e: Floats, width: int) -> Doubles:
    """Squared lengths of the residuals that codes with these factors stand for."""
    tilt = np.minimum(1, e * np.sqrt(width - 1) / np.maximum(f, np.float32(1e-30)))
    out: Doubles = (f.astype(np.float64) * np.sqrt(1 - tilt * tilt) / 2) ** 2
    return out


def behind(
    lists: Lists,
    centers: Floats,
    there: Members,
    new: tuple[Floats, Longs],
    turn: Callable[[Floats], Floats],
    tick: Callable[[], None] = never,
) -> Behind:
    """How far centroids are behind the rows of their lists.

    centers  float32[lists, width], as searches see them
    new      rows float32[n, width], and the list of each
    turn     rotates rows of the column's dimensions
    """
    count = len(centers)
    rows, labels = new
    sizes = np.bincount(there.lists, minlength=count) + np.bincount(labels, minlength=count)
    total = np.bincount(there.lists, there.squares, count)
    gaps = rows - centers[labels]
    total += np.bincount(labels, np.einsum("ij,ij->i", gaps, gaps), count)
    if lists.vectors is None:
        sums = _sums_of_codes(lists, there, count, tick)
    else:
        sums = turn(_sums_in_place(lists, there, count, tick))
    _add_few(sums, labels, rows)
    means = sums / np.maximum(1, sizes)[:, None].astype(np.float32)
    gaps = means - centers
    steps = lists.center_scales.astype(np.float64)
    gap = np.einsum("ij,ij->i", gaps, gaps) - centers.shape[1] * steps * steps  # FW2
    share = np.where(sizes > 0, gap * sizes, 0) / np.maximum(total, 1e-30)
    return Behind(sizes, means, share)


def _sums_of_codes(lists: Lists, there: Members, count: int, tick: Callable[[], None]) -> Floats:
    """float32[count, width]: sums of the rows of each list, as their 8-bit codes say."""
    sums = np.zeros((count, lists.width), np.float32)
    codes = readable(lists.bytes8.reshape(-1, lists.width))
    scales = readable(lists.scales)
    for start in range(0, len(there.lists), CHUNK_ROWS):
        tick()
        some = slice(start, start + CHUNK_ROWS)
        labels, positions = there.lists[some], there.positions[some]
        if LOADER.module is None:
            rows = codes[positions].astype(np.float32)
            rows -= np.float32(128)
            rows *= scales[positions, None]
            begins = np.flatnonzero(np.diff(labels, prepend=-1)).tolist()
            for begin, end in itertools.pairwise([*begins, len(labels)]):
                sums[labels[begin]] += rows[begin:end].sum(axis=0)  # row after row, as the kernel
        else:
            from m2mdb.compute.hrm2 import choosing

            choosing.sums(codes, scales, readable(positions), readable(labels), sums)
    return sums


def _sums_in_place(lists: Lists, there: Members, count: int, tick: Callable[[], None]) -> Floats:
    """float32[count, dimensions]: the same of vectors as they are stored, not rotated."""
    assert lists.vectors is not None, "rows are compared in place"
    sums = np.zeros((count, lists.vectors.shape[1]), np.float32)
    for start in range(0, len(there.lists), CHUNK_ROWS):
        tick()
        some = slice(start, start + CHUNK_ROWS)
        positions = there.positions[some]
        rows = lists.vectors[lists.ordinals[positions]].astype(np.float32)
        rows *= lists.scales[positions, None]
        _add_runs(sums, there.lists[some], rows)
    return sums


def _add_few(sums: Floats, labels: Longs, rows: Floats) -> None:
    """Add rows to the sums of their labels, few of which are equal: a first row of each at once."""
    order = np.argsort(labels, kind="stable")
    labels = labels[order]
    rank = np.arange(len(order)) - np.searchsorted(labels, labels)
    for each in range(min(FEW, int(rank.max(initial=-1)) + 1)):
        some = rank == each
        sums[labels[some]] += rows[order[some]]
    left = np.flatnonzero(rank >= FEW)
    for start in range(0, len(left), CHUNK_ROWS):
        some = left[start : start + CHUNK_ROWS]
        _add_runs(sums, labels[some], rows[order[some]])


def _add_runs(sums: Floats, labels: Longs, rows: Floats) -> None:
    """Add rows to the sums of their labels, which ascend."""
    begins = np.flatnonzero(np.diff(labels, prepend=-1))
    if len(begins):
        sums[labels[begins]] += np.add.reduceat(rows, begins, axis=0)
