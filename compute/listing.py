"""Listing: codes of rows that grow, by which a search of lists finds them too (`delta_kernels`).

    lists that are searched --centre, signs--> Listing.extend(rows) as rows come in --> plan

Invariants
    DK1, DK2  as in `delta_kernels`
    LI1 A plan's arrays are kept by who keeps the plan: what has grown since stands in others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from m2mdb.compute.hrm2.lists import BLOCK, Lists, padded
from m2mdb.compute.hrm2.outliers import HALF_SHARE, HALF_TIMES, usual
from m2mdb.compute.hrm2.rotation import signs
from m2mdb.compute.ranking import readable
from m2mdb.compute.rescore import KINDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows = NDArray[Any]

_CHUNK = 1024  # rows that are widened at a time


def center_of(lists: Lists) -> NDArray[np.float32]:
    """float32[width]: the mean of the centroids of lists, rotated; without those far from all."""
    scales = lists.center_scales.astype(np.float64)
    centers = lists.centers.reshape(len(scales), -1).astype(np.float64) - 128.0
    centers *= scales[:, None]
    near = usual(centers.astype(np.float32), HALF_SHARE, HALF_TIMES)
    center: NDArray[np.float32] = centers[near].mean(axis=0).astype(np.float32)
    return center


class Listing:
    """Codes of rows around one centre, which rows are added to.

    count  rows that are coded
    fits   False where some row has a length that float32 cannot hold: then they are of no use
    """

    __slots__ = ("_arrays", "_capacity", "_center", "_flips", "_kind", "count", "fits", "seed",
                 "width")  # fmt: skip

    def __init__(self, metric: str, dimension: int, seed: int, center: Rows) -> None:
        """`seed` is that of the rotation of the lists, `center` float32[width], rotated."""
        self.seed, self.width = seed, padded(dimension)
        self.count, self.fits = 0, True
        self._kind = KINDS[metric]
        self._center = readable(np.asarray(center, np.float32))
        self._flips = readable(signs(self.width, seed))
        self._capacity = 0
        self._arrays = self._room(0)

    def extend(self, rows: Rows, count: int) -> None:
        """Code those of the first `count` rows that are not coded yet.

        rows  float32, float16 or int8; those before `self.count` are as they were
        """
        from m2mdb.compute.delta_kernels import listed

        if count > self._capacity and self.fits:
            self._grow(count)
        wide = np.empty(self.width)
        while self.count < count and self.fits:
            stop = min(count, self.count + _CHUNK)
            some = readable(np.ascontiguousarray(rows[self.count : stop], np.float32))
            found = listed(
                self._kind, some, self.count, wide, self._flips, self._center, self._arrays
            )
            self.fits = found == len(some)
            self.count += found

    def _room(self, capacity: int) -> tuple[Rows, Rows, Rows, Rows]:
        factors = np.zeros((capacity // BLOCK, 3, BLOCK), np.float32)
        factors[:, 0] = np.inf  # of lanes without a row
        codes = np.zeros(capacity * self.width // 8, np.uint8)
        bytes8 = np.zeros(capacity * self.width, np.uint8)
        return codes, factors.ravel(), bytes8, np.zeros((3, capacity), np.float32)

    def _grow(self, count: int) -> None:
        """Room for twice as many; plans go on reading the old arrays (LI1)."""
        capacity = -(-max(count, 2 * self._capacity) // BLOCK) * BLOCK
        larger = self._room(capacity)
        for old, new in zip(self._arrays[:3], larger[:3], strict=True):
            new[: len(old)] = old
        larger[3][:, : self._capacity] = self._arrays[3]
        self._arrays, self._capacity = larger, capacity

    def plan(self, count: int) -> tuple[NDArray[np.int64], tuple[Any, ...]]:
        """The plan of the first `count` rows, and what is to be kept for it (LI1)."""
        codes, factors, bytes8, numbers = self._arrays
        arrays = (codes, factors, bytes8, *numbers, self._center)
        plan = np.array([*(array.ctypes.data for array in arrays), count], np.int64)
        return readable(plan), (plan, self._arrays, self._center)


def listed_rows(
    rows: Rows, metric: str, seed: int, center: Rows
) -> tuple[Rows, Rows, tuple[Rows, Rows, Rows]]:
    """What `Listing` has of rows, row by row: the kernel's twin.

    Returns signs of the residuals, bool [n, width]; bytes, uint8 [n, width]; and h, f and e.
    """
    from m2mdb.compute.hrm2.lists import factors_of, to_bytes
    from m2mdb.compute.hrm2.rotation import rotate

    wide = rows.astype(np.float64)
    if metric == "cosine":
        lengths = np.sqrt(np.einsum("ij,ij->i", wide, wide))
        wide /= np.where(lengths > 0, lengths, 1)[:, None]
    turned = rotate(wide.astype(np.float32), len(center), seed)
    residual = turned - center
    h, f, e = factors_of(residual, np.broadcast_to(center, residual.shape), metric)
    return residual > 0, to_bytes(turned)[0], (h, f, e)


__all__ = ["Listing", "center_of", "listed_rows"]
