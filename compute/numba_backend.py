"""The Numba backend: compiled scans, and NumPy's answers until they are loaded.

    large scan --> loader.start()        not loaded: NumPy scans, ready: kernels scan

float32 rows go to the kernels as they lie in memory; what no kernel takes (other dtypes, missing
norms) goes to a NumPy collector beside.

Invariants
    G1  No call waits for the loader.
    G2  State lives in the collector: collectors of several threads share nothing.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from m2mdb.compute.backend import Candidates
from m2mdb.compute.bound import Query
from m2mdb.compute.loader import LOADER
from m2mdb.compute.reference import NumpyBackend, NumpyCollector, check_rows
from m2mdb.pager.errors import NotSupportedError

if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

    from numpy.typing import NDArray

    from m2mdb.compute.backend import Backend, Collector

    Rows = NDArray[Any]
    Vector = NDArray[np.float32]
    Mask = NDArray[np.uint8] | NDArray[np.bool_]

LARGE_VALUES = 4_000_000  # values a search reads before compiled kernels are worth loading
LARGEST_EXPANDED = 1e17  # a longer query's l2 is computed from differences
NO_MASK = np.empty(0, np.uint8)
NO_NORMS = np.empty(0, np.float32)


class NumbaCollector:
    """Candidates of one query by compiled kernels, as `backend.Collector` promises."""

    __slots__ = ("_k", "_kernels", "_kind", "_rest", "_state", "query")

    def __init__(self, query: Query, k: int, kernels: ModuleType) -> None:
        """Collect the k best rows for `query`; k below 1 counts as 1."""
        self.query = query
        self._kernels = kernels
        kinds = {"cosine": kernels.COSINE, "ip": kernels.IP, "l2": kernels.L2}
        self._kind: int = kinds[query.metric]
        self._k = max(1, k)
        self._rest: NumpyCollector | None = None  # what no kernel takes
        size: int = kernels.BLOCK
        capacity = 4 * self._k + 4 * size
        self._state = (
            np.empty(size, np.int64),
            np.empty(size, np.float32),
            np.empty(size, np.float32),
            np.empty(self._k, np.float32),
            np.empty(capacity, np.int64),
            np.empty(capacity, np.float32),
            np.zeros(2, np.int64),
            np.array((*query.limits, query.spread, query.norm, -math.inf)),
        )

    def scan(
        self, rows: Rows, norms: Vector | None, mask: Mask | None, first_ordinal: int = 0
    ) -> None:
        """Consider a chunk of rows; see `backend.Collector.scan`."""
        check_rows(rows, self.query)
        kind = self._kind
        is_ready = rows.dtype == np.float32 and rows.flags.c_contiguous and rows.flags.aligned
        if not is_ready or (norms is None and kind != self._kernels.L2):
            if self._rest is None:
                self._rest = NumpyCollector(self.query, self._k)
            self._rest.scan(rows, norms, mask, first_ordinal)
            return
        if norms is not None and kind == self._kernels.L2 and self.query.norm < LARGEST_EXPANDED:
            kind = self._kernels.EXPANDED
        lengths = NO_NORMS if norms is None else norms
        live = NO_MASK if mask is None else mask.view(np.uint8)
        self._scan(kind, rows, lengths, live, first_ordinal)

    def _scan(self, kind: int, rows: Vector, norms: Vector, live: Mask, first: int) -> None:
        """Run the kernel over float32 rows, making room for candidates as it asks."""
        start, count = 0, rows.shape[0]
        while start < count:
            start = self._kernels.scan(
                kind, rows, norms, live, self.query.vector, (start, first), self._state
            )
            if start < count:
                self._grow()

    def _grow(self) -> None:
        """Double the room for candidates."""
        places, lower, upper, heap, ordinals, uppers, counts, limits = self._state
        self._state = (
            places,
            lower,
            upper,
            heap,
            np.concatenate((ordinals, np.empty_like(ordinals))),
            np.concatenate((uppers, np.empty_like(uppers))),
            counts,
            limits,
        )

    def result(self) -> Candidates:
        """The candidates so far; see `backend.Collector.result`."""
        self._kernels.prune(self._state)
        _, _, _, _, ordinals, uppers, counts, _ = self._state
        kept = int(counts[self._kernels.KEPT])
        mine = Candidates(ordinals[:kept].copy(), self.query.natural(uppers[:kept].copy()))
        if self._rest is None:
            return mine
        other = self._rest.result()
        return Candidates(
            np.concatenate((mine.ordinals, other.ordinals)),
            np.concatenate((mine.scores, other.scores)),
        )


class WatchingCollector(NumpyCollector):
    """NumPy's collector, which has the kernels loaded once it has seen enough to read."""

    __slots__ = ("_values",)

    def __init__(self, query: Query, k: int) -> None:
        """Collect the k best rows for `query`; k below 1 counts as 1."""
        super().__init__(query, k)
        self._values = 0

    def scan(
        self, rows: Rows, norms: Vector | None, mask: Mask | None, first_ordinal: int = 0
    ) -> None:
        """Consider a chunk of rows; see `backend.Collector.scan`."""
        self._values += rows.size
        if self._values >= LARGE_VALUES:
            LOADER.start()
        super().scan(rows, norms, mask, first_ordinal)


class NumbaBackend(NumpyBackend):
    """Compiled scans once they are loaded, NumPy's before (G1)."""

    name = "numba"

    def __init__(self, *, is_eager: bool) -> None:
        """Load the kernels at the first use (eager) or at the first large one."""
        self._is_eager = is_eager

    def collector(self, query: Vector, k: int, metric: str) -> Collector:
        """See `backend.Backend.collector`."""
        prepared = Query(query, metric)
        kernels = LOADER.module
        if kernels is not None:
            return NumbaCollector(prepared, k, kernels)
        if self._is_eager:
            LOADER.start()
        return WatchingCollector(prepared, k)


_AUTOMATIC = NumbaBackend(is_eager=False)
_EXPLICIT = NumbaBackend(is_eager=True)


def automatic() -> Backend:
    """The backend that loads compiled kernels when a search is large enough to want them."""
    return _AUTOMATIC


def explicit() -> Backend:
    """The backend that loads compiled kernels at its first use; NotSupportedError without Numba."""
    from importlib.util import find_spec

    if find_spec("numba") is None:
        raise NotSupportedError("compute backend 'numba': the package numba is not installed")
    return _EXPLICIT
