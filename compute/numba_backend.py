"""The Numba backend: compiled scans, and NumPy's answers until they are loaded.

    a large search, and then another --> loader.start()
    not loaded: NumPy scans              ready: kernels scan

float32 rows go to the kernels as they lie in memory, float16 and int8 rows through a float32 block
that stays in the cache; what no kernel takes (rows out of line, missing norms) goes to a NumPy
collector beside.

Invariants
    G1  No call waits for the loader.
    G2  State lives in the collector: collectors of several threads share nothing. The arrays of
        one that has gone are its successor's.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from m2mdb.compute.backend import Candidates, Tick, untold
from m2mdb.compute.bound import Query
from m2mdb.compute.loader import LOADER
from m2mdb.compute.ranking import ranking_kernels
from m2mdb.compute.reference import NumpyBackend, NumpyCollector, check_rows
from m2mdb.compute.rescore import KINDS
from m2mdb.pager.errors import NotSupportedError

if TYPE_CHECKING:
    from types import ModuleType

    from numpy.typing import NDArray

    from m2mdb.compute.backend import Backend, Collector

    Rows = NDArray[Any]
    Vector = NDArray[np.float32]
    Mask = NDArray[np.uint8] | NDArray[np.bool_]

LARGE_VALUES = 4_000_000  # values a search reads before compiled kernels are worth loading
LARGEST_EXPANDED = 1e17  # a longer query's l2 is computed from differences
FEW_QUERIES = 48  # BLAS is as fast from here on
BLOCK_ROWS = 1024  # rows scored before a selection: one query reads them once
WIDENED_VALUES = 1 << 16  # of float16 or int8 rows at a time: 256 KiB stay in the L2 cache
SCANNED_VALUES = 1 << 25  # products of one call for several queries: some milliseconds
BLOCK_VALUES = 3 << 15  # the same for several queries, in values: 384 KiB stay in the L2 cache
MOST_SPARED = 1024  # k up to which the arrays of a collector are kept for the next one
SPARE_STATES = 4
NO_MASK = np.empty(0, np.uint8)
NO_NORMS = np.empty(0, np.float32)


def _is_ready(rows: Rows, norms: Vector | None, metric: str) -> bool:
    """True if the kernels can read these rows where they lie."""
    return rows.dtype == np.float32 and _is_plain(rows, norms, metric)


def _is_plain(rows: Rows, norms: Vector | None, metric: str) -> bool:
    """True if the kernels can read these rows once they are float32."""
    flags = rows.flags
    is_known = rows.dtype in (np.float32, np.float16, np.int8)
    is_in_line = flags.c_contiguous and flags.aligned
    return is_known and is_in_line and (norms is not None or metric == "l2")


_spare: dict[int, Any] = {}  # by k; taken out by one step, which no other thread comes between


def _state_for(k: int, query: Query) -> tuple[Any, ...]:
    """The arrays of a search that begins, see `numba_kernels`."""
    state: tuple[Any, ...] | None = _spare.pop(k, None)
    if state is None:
        capacity = 4 * k + 2 * BLOCK_ROWS
        state = (
            np.empty(BLOCK_ROWS, np.int64),
            np.empty(BLOCK_ROWS, np.float32),
            np.empty(BLOCK_ROWS, np.float32),
            np.empty(k, np.float32),
            np.empty(capacity, np.int64),
            np.empty(capacity, np.float32),
            np.empty(2, np.int64),
            np.empty(7),
        )
    counts, limits = state[6], state[7]
    counts[0] = counts[1] = 0
    limits[0], limits[1], limits[2], limits[3] = query.limits
    limits[4], limits[5], limits[6] = query.spread, query.norm, -math.inf
    return state


class NumbaCollector:
    """Candidates of one query by compiled kernels, as `backend.Collector` promises."""

    __slots__ = ("_k", "_kernels", "_kind", "_rest", "_state", "query")

    def __init__(self, query: Query, k: int, kernels: ModuleType) -> None:
        """Collect the k best rows for `query`; k below 1 counts as 1."""
        self.query = query
        self._kernels = kernels
        self._kind = KINDS[query.metric]
        self._k = max(1, k)
        self._rest: NumpyCollector | None = None  # what no kernel takes
        self._state = _state_for(self._k, query)

    def __del__(self, spare: dict[int, Any] = _spare) -> None:
        state = getattr(self, "_state", None)
        if state is None or self._k > MOST_SPARED or len(spare) >= SPARE_STATES:
            return
        if state[4].shape[0] == 4 * self._k + 2 * BLOCK_ROWS:  # it did not have to grow
            spare[self._k] = state

    def scan(
        self, rows: Rows, norms: Vector | None, mask: Mask | None, first_ordinal: int = 0
    ) -> None:
        """Consider a chunk of rows; see `backend.Collector.scan`."""
        check_rows(rows, self.query)
        kind = self._kind
        if not _is_plain(rows, norms, self.query.metric):
            if self._rest is None:
                self._rest = NumpyCollector(self.query, self._k)
            self._rest.scan(rows, norms, mask, first_ordinal)
            return
        if norms is not None and kind == self._kernels.L2 and self.query.norm < LARGEST_EXPANDED:
            kind = self._kernels.EXPANDED
        lengths = NO_NORMS if norms is None else norms
        live = NO_MASK if mask is None else mask.view(np.uint8)
        self._scan(kind, rows, lengths, live, first_ordinal)

    def _scan(self, kind: int, rows: Rows, norms: Vector, live: Mask, first: int) -> None:
        """Run the kernel over the rows, making room for candidates as it asks."""
        start, (count, dimension) = 0, rows.shape
        run, wide = self._kernels.scan, None
        if rows.dtype != np.float32:
            size = max(1, WIDENED_VALUES // max(1, dimension))
            block = np.empty((min(size, count), dimension), np.float32)
            wide = block, block.view(np.uint32)
            from m2mdb.compute import narrow_kernels

            run = narrow_kernels.scan_bytes
            if rows.dtype == np.float16:
                rows, run = rows.view(np.uint16), narrow_kernels.scan_halves
        while start < count:
            state = self._state if wide is None else (wide, self._state)
            start = run(kind, rows, norms, live, self.query.vector, (start, first), state)
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


def _scan_few(
    queries: list[Query],
    rows: Vector,
    beside: tuple[Vector, Mask],
    k: int,
    kernels: ModuleType,
    tick: Tick,
) -> list[Candidates]:
    """Candidates of a few queries, which share the reading of rows."""
    norms, mask = beside
    count = len(queries)
    size = max(16, BLOCK_VALUES // max(1, rows.shape[1]))
    capacity = 4 * k + 2 * size
    kinds = {"cosine": kernels.COSINE, "ip": kernels.IP}
    longest = max(query.norm for query in queries)
    is_expanded = norms.shape[0] == rows.shape[0] and longest < LARGEST_EXPANDED
    kind = kinds.get(queries[0].metric, kernels.EXPANDED if is_expanded else kernels.L2)
    vectors = np.stack([query.vector for query in queries])
    limits = [(*query.limits, query.spread, query.norm, -math.inf) for query in queries]
    ordinals = np.empty((count, capacity), np.int64)
    uppers = np.empty((count, capacity), np.float32)
    counts = np.zeros((count, 2), np.int64)
    fixed = (
        np.empty(size, np.int64),
        np.empty((count, size), np.float32),
        np.empty((count, size), np.float32),
        np.empty((count, k), np.float32),
    )
    bounds = np.array(limits)
    step = max(size, SCANNED_VALUES // (count * max(1, rows.shape[1])))
    start, states = 0, (*fixed, ordinals, uppers, counts, bounds)
    while start < rows.shape[0]:
        tick()
        stop = min(rows.shape[0], start + step)  # of all rows, so that numbers are theirs
        while start < stop:
            start = kernels.scan_many(
                kind, rows[:stop], norms[:stop], mask[:stop], vectors, (start, 0), states
            )
            if start < stop:
                ordinals = np.concatenate((ordinals, np.empty_like(ordinals)), axis=1)
                uppers = np.concatenate((uppers, np.empty_like(uppers)), axis=1)
                states = (*fixed, ordinals, uppers, counts, bounds)
    found = []
    for q, query in enumerate(queries):
        kernels.prune(kernels.single(q, states))
        kept = int(counts[q, kernels.KEPT])
        scores = query.natural(uppers[q, :kept].copy())
        found.append(Candidates(ordinals[q, :kept].copy(), scores))
    return found


class WatchingCollector(NumpyCollector):
    """NumPy's collector, which notices that searches here are worth compiled kernels.

    They are loaded from the next search on: a process that searches once shall not share its
    processor with an import that it never uses.
    """

    __slots__ = ("_backend", "_values")

    def __init__(self, query: Query, k: int, backend: NumbaBackend) -> None:
        """Collect the k best rows for `query`; k below 1 counts as 1."""
        super().__init__(query, k)
        self._backend = backend
        self._values = 0

    def scan(
        self, rows: Rows, norms: Vector | None, mask: Mask | None, first_ordinal: int = 0
    ) -> None:
        """Consider a chunk of rows; see `backend.Collector.scan`."""
        self._values += rows.size
        if self._values >= LARGE_VALUES:
            self._backend.wants_kernels = True
        super().scan(rows, norms, mask, first_ordinal)


class NumbaBackend(NumpyBackend):
    """Compiled scans once they are loaded, NumPy's before (G1)."""

    name = "numba"

    def __init__(self, *, is_eager: bool) -> None:
        """Load the kernels at the first use (eager) or at the second large one."""
        self._is_eager = is_eager
        self.wants_kernels = is_eager

    def searches_lists(self) -> bool:
        """See `backend.Backend.searches_lists`; kernels are loaded from the second call on."""
        if LOADER.module is not None:
            return True
        if self.wants_kernels:
            LOADER.start()
        self.wants_kernels = True
        return False

    def ranking(self) -> ModuleType | None:
        """See `backend.Backend.ranking`."""
        return ranking_kernels()

    def collector(self, query: Vector, k: int, metric: str) -> Collector:
        """See `backend.Backend.collector`."""
        prepared = Query(query, metric)
        kernels = LOADER.module
        if kernels is not None:
            return NumbaCollector(prepared, k, kernels)
        if self.wants_kernels:
            LOADER.start()
        return WatchingCollector(prepared, k, self)

    def top_k_many(
        self,
        rows: Rows,
        norms: Vector | None,
        queries: Rows,
        k: int,
        metric: str,
        mask: Mask | None = None,
        tick: Tick = untold,
    ) -> list[Candidates]:
        """See `backend.Backend.top_k_many`: kernels for a few queries, BLAS for many."""
        kernels = LOADER.module
        if kernels is None:
            if self.wants_kernels:
                LOADER.start()
            self.wants_kernels |= rows.size * len(queries) >= LARGE_VALUES
        elif 0 < len(queries) <= FEW_QUERIES and _is_ready(rows, norms, metric):
            prepared = [Query(query, metric) for query in queries]
            check_rows(rows, prepared[0])
            lengths = NO_NORMS if norms is None else norms
            live = NO_MASK if mask is None else mask.view(np.uint8)
            return _scan_few(prepared, rows, (lengths, live), max(1, k), kernels, tick)
        return super().top_k_many(rows, norms, queries, k, metric, mask, tick)


_AUTOMATIC = NumbaBackend(is_eager=False)
_EXPLICIT = NumbaBackend(is_eager=True)


def automatic() -> Backend:
    """The backend that loads compiled kernels once a large search is followed by another."""
    return _AUTOMATIC


def explicit() -> Backend:
    """The backend that loads compiled kernels at its first use; NotSupportedError without Numba."""
    from importlib.util import find_spec

    if find_spec("numba") is None:
        raise NotSupportedError("compute backend 'numba': the package numba is not installed")
    return _EXPLICIT
