"""Products of rows and centroids by 8-bit integers, where these tell rows apart.

    rows less their middle --a scale each--> bytes        Coded
    centroids less it      --a scale each--> bytes, by 16 in panels        Columns
    <x, c>  ~  scale of x * scale of c * sum of products of bytes

A build compares each row with some thousand centroids. Sums of bytes are five times as fast as
those of float32 where a processor has an instruction for them, and they are exact: the same lists
come of the same rows whatever the processor and whether kernels are loaded. On 100,000 real
sentence vectors the bytes are off by 1/10,000 of the squared distance of neighbours. Where they are
off by more than 1/FINE of it (few dimensions, or rows that lie close together and far from the
others), `middle_of` says so, and float32 serves.

Invariants
    PR1 A product depends on row, centroid and middle alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from m2mdb.compute.hrm2.lists import to_bytes
from m2mdb.compute.hrm2.outliers import usual
from m2mdb.compute.loader import LOADER
from m2mdb.compute.ranking import readable

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from numpy.typing import NDArray

    Tick = Callable[[], None]
    Bytes = NDArray[np.uint8]
    Floats = NDArray[np.float32]

FINE = 30  # times the squared error of bytes, that neighbours are apart at least
ASKED, PROBED = 4096, 256  # rows among which, and of which, neighbours are sought
ROUNDING = np.float32(3e-6)  # of squares: rows that are no further apart may be the same
MOST_SAME = 0.5  # of pairs: where more are, some rows are so far that all others seem one
NEAREST = 0.02  # of rows, that may be nearer to each other
OFF = 0.05  # squared distance of two means, to the mean of rows from theirs, that tells of outliers
PANEL, TILE_PANELS = 16, 4  # columns of a panel; panels that are multiplied together
CHUNK_ROWS = 1024  # that become bytes at a time, in the cache
EXACT_COLUMNS = 1024  # dimensions whose products of bytes float32 sums exactly: below 2^24


def middle_of(rows: Floats) -> Floats | None:
    """The mean of rows, if bytes around it tell neighbours apart; None where they do not.

    rows  float32[n, d]
    """
    some = rows[:: max(1, len(rows) // ASKED)][:ASKED]
    some = some[usual(some)]  # bytes need not tell apart what is far from all
    middle: Floats = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    own = some.mean(axis=0, dtype=np.float64).astype(np.float32)
    spread, gap = np.square(some - own).sum(axis=1).mean(), middle - own
    if gap @ gap > OFF * spread:  # others have taken it with them
        middle = own
    some = some - middle
    codes, scales = to_bytes(some)
    gaps = (codes.astype(np.float32) - 128) * scales[:, None] - some
    error = float(np.einsum("ij,ij->i", gaps, gaps).mean(dtype=np.float64))
    squares = np.einsum("ij,ij->i", some, some)
    step = max(1, len(some) // PROBED)
    apart = squares[::step, None] + squares - 2 * (some[::step] @ some.T)
    same = apart <= ROUNDING * squares[::step, None]  # or as good as
    if same.mean() > MOST_SAME:
        return None
    apart[same] = np.inf
    nearest = apart.min(axis=1)
    nearest = np.sort(nearest[np.isfinite(nearest)])
    if not len(nearest) or FINE * error > nearest[int(NEAREST * len(nearest))]:
        return None
    return middle


class Coded(NamedTuple):
    """Rows less their middle, as bytes.

    codes   uint8[n, d], d padded to a multiple of 4: round(value / scale) + 128
    scales  float32[n]
    """

    codes: Bytes
    scales: Floats


class Points(NamedTuple):
    """Rows, and what their products with centroids are made of.

    rows    float32[n, d]
    middle  of `middle_of`; None: the products are those of float32
    coded   bytes of all rows, where they are asked for more often than once
    """

    rows: Floats
    middle: Floats | None = None
    coded: Coded | None = None

    def with_codes(self, tick: Tick) -> Points:
        """The same with bytes of all rows, if bytes are what is multiplied."""
        if self.middle is None:
            return self
        count, width = self.rows.shape
        codes = np.empty((count, width + -width % 4), np.uint8)
        scales = np.empty(count, np.float32)
        for start in range(0, count, CHUNK_ROWS):
            tick()
            some = slice(start, start + CHUNK_ROWS)
            codes[some], scales[some] = coded(self.around(some))
        return self._replace(coded=Coded(codes, scales))

    def at(self, chosen: NDArray[Any]) -> Points:
        """Some of them."""
        ours = self.coded
        ours = None if ours is None else Coded(ours.codes[chosen], ours.scales[chosen])
        return Points(self.rows[chosen], self.middle, ours)

    def around(self, chosen: NDArray[Any] | slice) -> Floats:
        """Some rows less the middle; the rows where there is none."""
        some: Floats = self.rows[chosen]
        return some if self.middle is None else some - self.middle

    def times(self, columns: Columns, chosen: NDArray[Any] | slice) -> Floats:
        """float32[rows, columns.count or more]: the products of some rows and all columns."""
        if self.coded is None:
            return columns.of(self.around(chosen))
        return columns.times(Coded(self.coded.codes[chosen], self.coded.scales[chosen]))


def coded(rows: Floats) -> Coded:
    """Rows less their middle as bytes."""
    return Coded(*to_bytes(_padded(rows)))


def _padded(rows: Floats) -> Floats:
    left = -rows.shape[1] % 4
    return np.pad(rows, ((0, 0), (0, left))) if left else rows


class Columns:
    """Centroids that rows are multiplied with, made ready once.

    squares  float32[n], |c - middle|^2
    scales   float32[n or more], of the bytes, if these serve; 0 beyond
    """

    __slots__ = ("_bias", "_codes", "_middle", "_panels", "_plain", "count", "scales", "squares")

    def __init__(self, centers: Floats, middle: Floats | None) -> None:
        """`middle` as `middle_of` says: None: products are those of float32."""
        self.count, self._middle = len(centers), middle
        self._plain = centers
        self.squares: Floats = np.einsum("ij,ij->i", centers, centers)
        self.scales: Floats = np.zeros(0, np.float32)
        if middle is None:
            return
        plain = _padded(centers - middle)
        self.squares = np.einsum("ij,ij->i", plain, plain)
        self._codes, scales = to_bytes(plain)
        size = -(-self.count // (PANEL * TILE_PANELS)) * PANEL * TILE_PANELS
        signed = np.zeros((size, plain.shape[1]), np.int8)
        signed[: self.count] = self._codes ^ 128
        self.scales = np.zeros(size, np.float32)
        self.scales[: self.count] = scales
        self._bias = -128 * signed.sum(axis=1, dtype=np.int32)
        parts = signed.reshape(size // PANEL, PANEL, -1, 4).transpose(0, 2, 1, 3)
        self._panels = np.ascontiguousarray(parts)

    def values(self) -> Floats:
        """float32[count, d]: what the bytes stand for."""
        return (self._codes.astype(np.float32) - 128) * self.scales[: self.count, None]

    def with_each_other(self) -> Floats:
        """float32[count, count]: products of all pairs."""
        if self._middle is None:
            return self._plain @ self._plain.T
        return self.times(Coded(self._codes, self.scales[: self.count]))[:, : self.count]

    def of(self, rows: Floats) -> Floats:
        """As `times`, of rows less the middle that are no bytes yet."""
        if self._middle is None:
            return rows @ self._plain.T
        return self.times(coded(rows))

    def times(self, rows: Coded) -> Floats:
        """float32[rows, count or more]: the products; what is beyond `count` is nothing."""
        if LOADER.module is not None:
            from m2mdb.compute.hrm2 import product_kernels

            if product_kernels.multiply is not None:
                out = np.empty((len(rows.scales), len(self.scales)), np.float32)
                product_kernels.multiply(
                    readable(rows.codes), readable(rows.scales), readable(self._panels),
                    readable(self._bias), readable(self.scales), out,
                )  # fmt: skip
                return out
        return self._by_matrix(rows)

    def _by_matrix(self, rows: Coded) -> Floats:
        """The twin of `product_kernels.multiply`: float32 has no sum that it would round."""
        total = np.zeros((len(rows.scales), self.count), np.int64)
        for start in range(0, rows.codes.shape[1], EXACT_COLUMNS):
            some = slice(start, start + EXACT_COLUMNS)
            ours = rows.codes[:, some].astype(np.float32) - 128
            theirs = self._codes[:, some].astype(np.float32) - 128
            total += (ours @ theirs.T).astype(np.int64)
        product = total.astype(np.float32)
        product *= self.scales[: self.count]
        product *= rows.scales[:, None]
        return product
