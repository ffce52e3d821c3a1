"""Error bounds: which rows a float32 scan must keep so that rescoring finds the true best.

A scan works in float32, in an order of summation that differs between backends. Rescoring
(`rescore.py`) works in float64, the same for every backend. The scan therefore returns a set of
candidates that surely holds the k best rows of the rescored order, ties included.

Let `s` be a row's similarity as rescored, and `t` what a scan computed. Each row has two numbers,

    lower <= s <= upper        (for a constant error e: t - e and t + e)

If T is the k-th largest `lower`, then k rows have s >= T, so a row with `upper < T` is in no top k.
`Query.threshold` gives T with what rounding of the final float32 score may add: rows whose scores
round to the same float32 are ties and are ordered by id, so they are kept too (B3).

The error, with u = 2^-24 and d dimensions: a float32 sum of d products, in any order, with or
without fused operations, errs by at most d*u/(1 - d*u) times the sum of their absolute values,
which by Cauchy and Schwarz is at most |q| |x|. The roundings of query, norm and quotient add a
few u more. With c = 1.01 * (d + 16) * u, for d <= 65536:

    metric  similarity      computed from              error e
    cosine  cos             unit query, stored norm    c
    ip      dot * 2^-10/|q| query of length 2^-10      c * 2^-10 * |x|
    l2      -|q - x|^2      differences                c * t          (relative)
    l2      -|q - x|^2      |x|^2 - 2qx + |q|^2        c * (|q| + |x|)^2

Underflow adds at most d * 2^-149, which the threshold subtracts. The query of `ip` is scaled down
so that no finite float32 row overflows the sum; `l2` treats sums near the largest float32 as
infinite.

Invariants
    B1  Norms are rounded from float64 (`row_norms`), so their relative error is at most u.
    B2  A cosine row's norm is 0 or within 1e-30 .. 1e38; beyond that the bound is not proven.
    B3  Every row that belongs to the final k best by (score, id) is among the candidates.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from m2mdb.pager.errors import ProgrammingError

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    Rows = NDArray[Any]
    Vector = NDArray[np.float32]

METRICS = ("cosine", "l2", "ip")
UNIT = 2.0**-24  # half the distance from 1 to the next float32
FLOAT32_MAX = 3.4028234663852886e38
TINY = 2.0**-149  # the smallest float32 above zero
IP_LENGTH = 2.0**-10  # keeps the dot product of a unit query with any float32 row finite
FAR = 1e37  # squared distances beyond this may have overflowed on the way
NORM_BLOCK_VALUES = 1 << 16  # 512 KiB of float64: stays in the L2 cache


class Query:
    """A query made ready for scans: scaled vector, its length and the error constants.

    `vector` is float32 and what a scan multiplies with; `scale` turns a computed similarity back
    into the natural one; `error` is c of the module's table; `spread` is the error a unit of row
    length, or of (|q| + |x|)^2 for l2; `norm` is the query's own length; `limits` make thresholds.
    """

    __slots__ = ("dimension", "error", "limits", "metric", "norm", "scale", "spread", "vector")

    def __init__(self, vector: Vector, metric: str) -> None:
        """Prepare `vector` for `metric`; ProgrammingError for an unknown metric."""
        if metric not in METRICS:
            raise ProgrammingError(f"metric {metric!r}: expected one of {', '.join(METRICS)}")
        wide = np.asarray(vector, np.float64)
        self.metric = metric
        self.dimension = wide.shape[0]
        self.error = 1.01 * (self.dimension + 16) * UNIT
        self.norm = math.sqrt(wide.dot(wide))
        self.scale = 1.0
        self.spread = self.error
        if metric == "l2":
            self.vector = np.ascontiguousarray(vector, np.float32)
        else:
            length = IP_LENGTH if metric == "ip" else 1.0
            factor = length / self.norm if self.norm > 0.0 else 0.0
            self.vector = (wide * factor).astype(np.float32)
        if metric == "ip":
            self.spread *= IP_LENGTH * (1.0 + 4.0 * UNIT)
            self.scale = self.norm / IP_LENGTH if self.norm > 0.0 else 1.0
        self.limits = self._limits()

    def _limits(self) -> tuple[float, float, float, float]:
        """Factor, subtrahend, and the k-th values below and above which float32 gives out."""
        if self.metric == "cosine":
            return 1.0, 2.0 * self.error, -math.inf, math.inf
        if self.metric == "l2":
            return 1.0 + 2.1 * self.error, 4.0 * self.dimension * TINY, -FAR, math.inf
        limit = FLOAT32_MAX / self.scale
        return 1.0, (self.dimension + 1.0 / self.scale) * 2.0 * TINY, -limit, limit

    def threshold(self, kth: float) -> float:
        """The least `upper` that a row must have to be kept, given the k-th largest `lower`.

        For cosine, and l2 from differences, scans use t itself for both: the error is added here.
        """
        factor, subtrahend, low, high = self.limits
        if kth < low or kth == -math.inf:
            return -math.inf
        least = min(kth, high) * factor - subtrahend
        return least - abs(least) * 2.0 * UNIT

    def natural(self, computed: Vector) -> Vector:
        """Computed similarities in the metric's own unit, infinite beyond float32."""
        if self.scale == 1.0:
            return computed
        with np.errstate(over="ignore", under="ignore"):
            return (computed * self.scale).astype(np.float32)


def row_norms(rows: Rows) -> Vector:
    """Euclidean length of each row, summed in float64 and rounded once (B1).

    rows    float32, float16 or int8 [n, d]
    """
    count, dimension = rows.shape
    out = np.empty(count, np.float32)
    step = max(1, NORM_BLOCK_VALUES // max(1, dimension))
    with np.errstate(over="ignore"):
        for start in range(0, count, step):
            wide = rows[start : start + step].astype(np.float64)
            out[start : start + step] = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    return out
