"""Routing: the centroids of a segment's lists by themselves, without the codes behind them.

Drift and signals ask how far vectors are from the centroids, and nothing of the rows: they read
three parts of the lists' extent, some kilobytes a hundred lists, and check what they read as
`index.hrm2` does (HL2 there).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from m2mdb.compute.hrm2.lists import padded
from m2mdb.compute.hrm2.rotation import rotate
from m2mdb.index.hrm2 import AROUND, HEAD, LARGEST, MOST_DIMENSIONS, PREFIX, VERSIONS
from m2mdb.pager.errors import CorruptDatabaseError

if TYPE_CHECKING:
    from m2mdb.index.schema import Column
    from m2mdb.index.segment import Segment

_CHUNK = 512  # rows that are compared with all centroids at a time


class Routing(NamedTuple):
    """Centroids of the lists of one segment and column.

    centers  float32 (lists, width), rotated
    squares  float32 (lists,), their squared lengths
    seed     of the rotation
    error    mean squared distance of the rows from the centroids of their lists when these were
             trained; 0 where the file does not say it
    rows     that the lists lead to
    """

    centers: np.ndarray
    squares: np.ndarray
    seed: int
    error: float
    rows: int

    @property
    def width(self) -> int:
        """Dimensions of the rotated space."""
        return int(self.centers.shape[1])

    def products(self, rows: np.ndarray) -> np.ndarray:
        """float32 (n, lists) inner products for searched rows float32 (n, dimension)."""
        out: np.ndarray = rotate(rows, self.width, self.seed) @ self.centers.T
        return out

    def squared_distances(self, rows: np.ndarray) -> np.ndarray:
        """float32 (n, lists) for searched rows float32 (n, dimension)."""
        rotated = rotate(rows, self.width, self.seed)
        out: np.ndarray = rotated @ self.centers.T
        out *= -2
        out += self.squares
        out += np.einsum("ij,ij->i", rotated, rotated)[:, None]
        np.maximum(out, 0, out=out)
        return out

    def errors(self, rows: np.ndarray) -> np.ndarray:
        """float64 (n,): squared distance of searched rows from their nearest centroids."""
        out = np.empty(len(rows))
        for start in range(0, len(rows), _CHUNK):
            some = slice(start, start + _CHUNK)
            out[some] = self.squared_distances(rows[some]).min(axis=1)
        return out


def routing(segment: Segment, column: Column) -> Routing | None:
    """The centroids of a column's lists; None where the segment has none.

    Raises CorruptDatabaseError where they cannot be centroids.
    """
    if not segment.has(HEAD, column.id):
        return None

    def part(name: str, items: int) -> np.ndarray:
        array = segment.array(PREFIX + name, column.id)
        if len(array) != items:
            raise CorruptDatabaseError(
                f"segment {segment.id}, column {column.name}, part {PREFIX}{name}: {len(array)} "
                f"items, expected {items}"
            )
        return array

    version, seed, width, count, _, rows = part("head", 8).astype(np.int64).tolist()[:6]
    fits = version in VERSIONS and width == padded(column.dimension) and count >= 1
    if not fits or column.dimension > MOST_DIMENSIONS or not 1 <= rows <= segment.rows:
        raise CorruptDatabaseError(
            f"segment {segment.id}, column {column.name}: {count} lists of width {width}, version "
            f"{version}"
        )
    raw, scales = part("centers", count * width), part("center_scales", count)
    if not 0 <= float(scales.min()) <= float(scales.max()) <= LARGEST:
        raise CorruptDatabaseError(
            f"segment {segment.id}, column {column.name}: centroids beyond all numbers"
        )
    centers = raw.reshape(count, width).astype(np.float32)
    centers -= np.float32(128)
    centers *= scales[:, None]
    if version == AROUND:
        middle = part("middle", width)
        if not -LARGEST <= float(middle.min()) <= float(middle.max()) <= LARGEST:
            raise CorruptDatabaseError(
                f"segment {segment.id}, column {column.name}: a middle beyond all numbers"
            )
        centers += middle
    squares = np.einsum("ij,ij->i", centers, centers)
    return Routing(centers, squares, seed, stored_error(segment, column), rows)


def stored_error(segment: Segment, column: Column) -> float:
    """The baseline that lists were stored with; 0 where there is none."""
    if not segment.has(PREFIX + "error", column.id):
        return 0.0
    array = segment.array(PREFIX + "error", column.id)
    error = float(array[0]) if len(array) == 1 else -1.0
    if not 0 <= error < np.inf:
        raise CorruptDatabaseError(
            f"segment {segment.id}, column {column.name}: quantisation error {error}"
        )
    return error
