"""Routes: centroids of lists with 1-bit codes of their own, by which a search finds its lists.

    centroids --group by nearest super--> 1-bit codes of the residuals, in blocks of each super

An estimate of the distance of every list in the supers that are near costs a scan of some blocks,
as those of rows do; only of the lists with the smallest estimates the 8-bit centroids are read.
Routes are made of Lists alone when a search makes them ready: no file holds them. What is large and
needed only meanwhile is not left to the allocator, which would keep as much of it for good.

Invariants
    R1  Every list has one code among the routes; supers own one list at least.
    R2  They depend on the lists alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from m2mdb.compute.hrm2.lists import BLOCK, coded, placed, to_bytes
from m2mdb.compute.hrm2.outliers import HALF_SHARE, HALF_TIMES, usual
from m2mdb.compute.memory import untouched_zeros

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from m2mdb.compute.hrm2.lists import Lists

    Bytes = NDArray[np.uint8]
    Floats = NDArray[np.float32]
    Ints = NDArray[np.int32]
    Longs = NDArray[np.int64]

ROUNDS = 3  # of regrouping
MOST_SPREAD = 16  # times the |r|^2 of others, that a code counts for in the spread of its list
CHUNK_ROWS = 256  # centroids, and
CHUNK_BLOCKS = 512  # blocks of codes that are looked at together


class Routes(NamedTuple):
    """Arrays as in Lists, with supers for lists and lists for rows.

    supers         uint8[supers * width]   the means of the centroids of each
    super_scales   float32[supers]
    super_squares  float32[supers]
    starts         int64[supers + 1]       first block of each super
    codes          uint8[blocks * 4 * width]
    factors        float32[blocks, 96]
    numbers        int32[blocks, 32]       lists, in the place of positions
    spreads        float32[lists]          mean |r|^2 of the rows of a list
    """

    supers: Bytes
    super_scales: Floats
    super_squares: Floats
    starts: Longs
    codes: Bytes
    factors: Floats
    numbers: Ints
    spreads: Floats


def routes_of(lists: Lists, metric: str) -> Routes:
    """The routes to lists."""
    count, width = len(lists.center_scales), lists.width
    centers = untouched_zeros((count, width), np.dtype(np.float32))
    centers += lists.centers.reshape(count, width)
    centers -= np.float32(128)
    centers *= lists.center_scales[:, None]
    owners, supers = _grouped(centers)
    every = np.arange(count, dtype=np.int32)
    starts, codes_of = placed(owners, every, len(supers))
    codes, factors, numbers = coded(centers, supers, codes_of, every, int(starts[-1]), metric)
    super_bytes, scales = to_bytes(supers)
    squares = np.einsum("ij,ij->i", supers, supers)
    flat = factors.reshape(-1, 3 * BLOCK)
    return Routes(
        super_bytes.ravel(),
        scales,
        squares,
        starts,
        codes.ravel(),
        flat,
        numbers,
        spreads_of(lists),
    )


def _grouped(centers: Floats) -> tuple[Ints, Floats]:
    """The super of each centroid, and the means of the supers.

    Begins with neighbours by number, which training has brought together. Those that are very far
    from all others are grouped by themselves: they would take the mean of any super with them.
    """
    near = usual(centers, HALF_SHARE, HALF_TIMES)
    if not near.all():
        both = np.empty(len(centers), np.int32)
        both[near], own = _grouped(centers[near])
        others, far = _grouped(centers[~near])
        both[~near] = others + np.int32(len(own))
        return both, np.concatenate((own, far))
    count = len(centers)
    supers = max(1, round(count**0.5))
    owners = (np.arange(count) * supers // count).astype(np.int32)
    for turn in range(ROUNDS + 1):
        used, owners = np.unique(owners, return_inverse=True)
        owners = owners.astype(np.int32)
        order = np.argsort(owners, kind="stable")
        sizes = np.bincount(owners, minlength=len(used))
        members = np.split(order, np.cumsum(sizes)[:-1])
        means = np.stack([centers[each].sum(axis=0) for each in members])
        means /= sizes[:, None].astype(np.float32)
        if turn < ROUNDS:
            half = np.einsum("ij,ij->i", means, means) / 2
            for start in range(0, count, CHUNK_ROWS):
                some = slice(start, start + CHUNK_ROWS)
                owners[some] = (centers[some] @ means.T - half).argmax(axis=1)
    return owners, means


def spreads_of(lists: Lists) -> Floats:
    """The mean |r|^2 of each list's codes, from their factors; of one without codes, of all.

    A row that is far from all the others of its list says nothing of these: no code counts for more
    than MOST_SPREAD times the first quartile of its block, or what that is in the median.
    """
    blocks = len(lists.factors)
    chunks = [slice(at, at + CHUNK_BLOCKS) for at in range(0, blocks, CHUNK_BLOCKS)]
    lows, sums_of, codes_of = np.empty(blocks, np.float32), np.empty(blocks), np.empty(blocks)
    for some in chunks:
        lows[some] = _first_quartiles(_squares(lists, some), lists.positions[some] >= 0)
    told = lows[np.isfinite(lows)]
    most = MOST_SPREAD * np.maximum(lows, np.median(told) if len(told) else 0)
    most = np.where(most > 0, most, np.float32(np.inf)).astype(np.float32)
    for some in chunks:
        sums_of[some] = np.minimum(_squares(lists, some), most[some, None]).sum(axis=1)
        codes_of[some] = (lists.positions[some] >= 0).sum(axis=1)
    owners = np.repeat(np.arange(len(lists.starts) - 1), np.diff(lists.starts))
    sums = np.bincount(owners, sums_of, len(lists.starts) - 1)
    codes = np.bincount(owners, codes_of, len(lists.starts) - 1)
    mean = sums.sum() / max(1, codes.sum())
    out: Floats = np.where(codes > 0, sums / np.maximum(1, codes), mean).astype(np.float32)
    return out


def _squares(lists: Lists, some: slice) -> NDArray[np.float64]:
    """|r|^2 of each code of some blocks; 0 where there is no code."""
    f, e = lists.factors[some, BLOCK : 2 * BLOCK], lists.factors[some, 2 * BLOCK :]
    tilt = np.minimum(1, e * np.sqrt(lists.width - 1) / np.maximum(f, np.float32(1e-30)))
    out: NDArray[np.float64] = f * f * (1 - tilt * tilt) / 4
    return out


def _first_quartiles(squares: NDArray[np.float64], there: NDArray[np.bool_]) -> Floats:
    """Of each block; infinite where it has no code."""
    ordered = np.sort(np.where(there, squares, np.float32(np.inf)), axis=1)
    first = np.maximum(there.sum(axis=1) - 1, 0) // 4
    out: Floats = np.take_along_axis(ordered, first[:, None], axis=1)[:, 0]
    return out


def codes_and_lengths(lists: Lists) -> tuple[Longs, Floats]:
    """Of each list: its codes, int64, and the mean length of their residuals, float32."""
    count, there = len(lists.starts) - 1, lists.positions >= 0
    f, e = lists.factors[:, BLOCK : 2 * BLOCK], lists.factors[:, 2 * BLOCK :]
    tilt = np.minimum(1, e * np.sqrt(lists.width - 1) / np.maximum(f, np.float32(1e-30)))
    lengths = np.where(there, f * np.sqrt(1 - tilt * tilt) / 2, 0).sum(axis=1)
    owners = np.repeat(np.arange(count), np.diff(lists.starts))
    codes = np.bincount(owners, there.sum(axis=1), count).astype(np.int64)
    sums = np.bincount(owners, lengths, count)
    return codes, (sums / np.maximum(1, codes)).astype(np.float32)
