"""The searcher: lists made ready for the compiled search, with scratch for each thread.

Invariants
    H1  Scratch belongs to one thread: searches of one Searcher may run in several at once.
    H2  Arrays that kernels read are contiguous and read-only; where they are not, they are copied.
    H3  Scratch is kept for at most KEPT_SIZES numbers of wanted rows: all goes when there are more.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from m2mdb.compute.hrm2 import batch, kernels
from m2mdb.compute.hrm2.living import Living
from m2mdb.compute.hrm2.reference import BUCKETS, HARD, TOGETHER, TOLD
from m2mdb.compute.hrm2.rotation import ROUNDS, signs
from m2mdb.compute.hrm2.routes import routes_of
from m2mdb.compute.hrm2.steps import HARDNESS, NEAR, NUMBERS_SIZE, PRODUCT

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from m2mdb.compute.hrm2.lists import Lists
    from m2mdb.compute.hrm2.reference import Stop

NO_MASK = np.empty(0, np.uint8)
NO_MASK.flags.writeable = False
LOG_ROWS = 1 << 14
KEPT_SIZES = 8


class Found(NamedTuple):
    """Candidates of one query, nearest first by their 8-bit codes.

    positions  int32
    ordinals   int32, what the builder called the rows
    nearness   float32: |q - x|^2, or -2 <q, x>
    probed     lists; codes scanned; rows compared by 8-bit codes
    """

    positions: NDArray[np.int32]
    ordinals: NDArray[np.int32]
    nearness: NDArray[np.float32]
    probed: int
    codes: int
    reranked: int


class FoundBatch(NamedTuple):
    """Candidates of many queries, a row for each.

    ordinals  int32[m, wanted], nearest first; -1 where no more were found
    nearness  float32[m, wanted]; infinite there
    counts    int64[m, 4]: found, lists probed, codes scanned, rows compared by 8-bit codes
    """

    ordinals: NDArray[np.int32]
    nearness: NDArray[np.float32]
    counts: NDArray[np.int64]


class Searcher:
    """Searches one set of lists."""

    def __init__(self, lists: Lists, metric: str, seed: int) -> None:
        """`seed` is that of the rotation that the lists were coded with."""
        self.lists = lists
        self.metric, self.seed = metric, seed
        routes = routes_of(lists, metric)
        own = lists._replace(  # K7
            starts=lists.starts.copy(),
            center_scales=lists.center_scales.copy(),
            center_squares=lists.center_squares.copy(),
        )
        self._vectors = None if own.vectors is None else np.ascontiguousarray(own.vectors)
        self._arrays = [np.ascontiguousarray(array) for array in (*own[:-2], *routes)]
        self._routes = routes
        self._arrays.append(np.ascontiguousarray(signs(lists.width, seed)))
        self._middle = np.zeros(lists.width, np.float32)
        if lists.middle is not None:
            self._middle[:] = lists.middle
        self._longest = 32 * int(np.diff(lists.starts).max(initial=1))
        self._local = threading.local()
        self._living: Living | None = None
        self._spare: dict[int, list[Scratch]] = {}  # of `run`, by how many are wanted

    def search(
        self,
        query: NDArray[np.float32],
        stop: Stop,
        *,
        wanted: int,
        epsilon: float,
        mask: NDArray[np.bool_] | None = None,
    ) -> Found:
        """The `wanted` best rows that the probed lists hold.

        query    float32[d]; of length 1 under cosine
        stop     when probing ends, see kernels.search
        epsilon  standard errors that a 1-bit bound takes off its estimate
        mask     by ordinal, which rows may be found
        """
        scratch = self._scratch(wanted)
        self._run(scratch, query, stop, epsilon, mask)
        found, probed, codes, reranked = scratch.counts[:4].tolist()
        positions = scratch.best[:found].copy()
        nearness = scratch.nearness[:found].copy()
        return Found(positions, self.lists.ordinals[positions], nearness, probed, codes, reranked)

    def run(
        self,
        query: NDArray[np.float32],
        stop: Stop,
        *,
        wanted: int,
        epsilon: float,
        mask: NDArray[np.bool_] | None = None,
    ) -> Scratch:
        """As `search`, but what was found stays in the scratch: the caller's until `give_back`."""
        scratch = self.borrow(wanted)
        self._run(scratch, query, stop, epsilon, mask)
        return scratch

    def borrow(self, wanted: int) -> Scratch:
        """Scratch that is the caller's until `give_back`."""
        try:
            return self._spare[wanted].pop()  # H1: one step, so that it is nobody else's
        except (KeyError, IndexError):
            return self._new_scratch(wanted, logs=False)

    def give_back(self, scratch: Scratch) -> None:
        """The scratch of `run` or `borrow` may serve the next search."""
        spare, wanted = self._spare, len(scratch.best)
        if wanted not in spare and len(spare) >= KEPT_SIZES:  # H3
            spare.clear()
        spare.setdefault(wanted, []).append(scratch)

    def search_batch(
        self,
        queries: NDArray[np.float32],
        stop: Stop,
        *,
        wanted: int,
        epsilon: float,
        mask: NDArray[np.bool_] | None = None,
    ) -> FoundBatch:
        """Search many queries in one call; each finds what `search` finds.

        Of many those near the same super-cluster are searched after each other (`batch`).

        queries  float32[m, d]
        """
        scratch = self._scratch(wanted)
        tell_hardness(scratch, stop)
        rows = _readable(np.asarray(queries, np.float32))
        positions = np.full((len(rows), wanted), -1, np.int32)
        nearness = np.full((len(rows), wanted), np.inf, np.float32)
        counts = np.zeros((len(rows), 4), np.int64)
        limits = stop.limits
        readable_mask = NO_MASK if mask is None else _readable(mask.view(np.uint8))
        how = (readable_mask, rows, limits, stop.factor, epsilon)
        if len(rows) < batch.LEAST:
            kernels.search_batch(scratch.plan, *how, positions, nearness, counts)
        else:
            supers = len(self._routes.super_scales)
            size = batch.kept_size(self.lists.width, supers)
            kept = np.empty((min(len(rows), max(1, batch.KEPT_BYTES // size)), size), np.uint8)
            order, sizes = np.empty(len(kept), np.int32), np.empty(supers + 1, np.int32)
            batch.search_in_turn(
                scratch.plan, scratch.plan.copy(), *how, kept, order, sizes,
                positions, nearness, counts,
            )  # fmt: skip
        ordinals = np.where(positions >= 0, self.lists.ordinals[positions], np.int32(-1))
        return FoundBatch(ordinals, nearness, counts)

    def trace(
        self,
        query: NDArray[np.float32],
        stop: Stop,
        *,
        wanted: int,
        epsilon: float,
        mask: NDArray[np.bool_] | None = None,
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
        """What came among the best in the course of a search, in that order.

        Returns ordinals, the place of the list that had each in the order of lists, and the place
        that each took among the best.
        """
        scratch = self._scratch(wanted, logs=True)
        self._run(scratch, query, stop, epsilon, mask)
        log = scratch.log[: int(scratch.counts[kernels.LOGGED])]
        return self.lists.ordinals[log[:, 0]], log[:, 1].copy(), log[:, 2].copy()

    def tracing_scratch(self, wanted: int) -> Scratch:
        """This thread's scratch with a log, whose plan `tracing` takes."""
        return self._scratch(wanted, logs=True)

    def _run(
        self,
        scratch: Scratch,
        query: NDArray[np.float32],
        stop: Stop,
        epsilon: float,
        mask: NDArray[np.bool_] | None,
    ) -> None:
        dimensions = len(query)
        tell_hardness(scratch, stop)
        scratch.rotated[:dimensions] = query
        scratch.rotated[dimensions:] = 0
        kernels.search(
            scratch.plan,
            NO_MASK if mask is None else _readable(mask.view(np.uint8)),
            stop.limits,
            stop.factor,
            epsilon,
        )

    def _scratch(self, wanted: int, *, logs: bool = False) -> Scratch:
        """This thread's scratch (H1)."""
        kept: Any = self._local.__dict__
        key = (wanted, logs)
        found: Scratch | None = kept.get(key)
        if found is None:
            if len(kept) >= KEPT_SIZES:  # H3
                kept.clear()
            found = kept[key] = self._new_scratch(wanted, logs=logs)
        return found

    def own_scratch(self, wanted: int, live: NDArray[np.bool_] | None = None) -> Scratch:
        """Scratch that no other search uses (H1).

        live  rows that are there, by ordinal: searches in it find no other, where it `knows_live`
        """
        scratch = self._new_scratch(wanted, logs=False)
        if live is None:
            return scratch
        if self._living is None:
            self._living = Living(self.lists, len(live))
        words = self._living.words(live)
        if words is None:
            return scratch
        items = scratch.plan.copy()
        items[kernels.LIVE] = words.ctypes.data
        items.flags.writeable = False
        kept = [*scratch.kept, words]
        return scratch._replace(plan=items, address=items.ctypes.data, kept=kept, knows_live=True)

    def _new_scratch(self, wanted: int, *, logs: bool) -> Scratch:
        width, count = self.lists.width, len(self.lists.center_scales)
        supers, blocks = len(self._routes.super_scales), len(self._routes.numbers)
        log_size = LOG_ROWS if logs else 0
        rotated, best = np.zeros(width, np.float32), np.zeros(wanted, np.int32)
        nearness, counts = np.zeros(wanted, np.float32), np.zeros(8, np.int64)
        log = np.zeros((log_size, 3), np.int32)
        numbers = np.zeros(NUMBERS_SIZE, np.float32)
        arrays: list[NDArray[Any]] = [
            rotated,
            np.zeros(width, np.int8),
            np.zeros(4 * width, np.uint8),
            np.zeros(width, np.float32),
            np.zeros(supers, np.float32),
            np.zeros(supers, np.int32),
            np.zeros(32 * blocks, np.float32),
            np.zeros(blocks, np.int32),
            np.zeros(count, np.int32),
            np.zeros(count, np.float32),
            np.zeros(count, np.float32),
            np.zeros(BUCKETS + 1, np.int32),
            np.zeros(count, np.int32),
            np.zeros(32 + 2 * TOGETHER, np.float32),
            np.zeros(self._longest, np.int32),
            np.zeros(self._longest, np.float32),
            best,
            nearness,
            numbers,
            counts,
            log,
            np.zeros(width, np.float32),
            self._middle,
        ]
        plan = np.empty(kernels.PLAN_SIZE, np.int64)
        addresses = [array.ctypes.data for array in (*self._arrays, *arrays)]
        plan[: len(addresses)] = addresses
        kind = PRODUCT if self.metric == "ip" else NEAR
        rows = len(self.lists.ordinals)
        sizes = (count, supers, width, ROUNDS, kind, wanted, log_size, rows)
        plan[len(addresses) :] = (*sizes, *_in_place(self._vectors), 0)
        plan.flags.writeable = False
        hardness, address = numbers[HARDNESS : HARDNESS + TOLD], plan.ctypes.data
        return Scratch(rotated, best, nearness, counts, log, hardness, plan, arrays, address)


def _in_place(vectors: NDArray[Any] | None) -> tuple[int, int, int, int]:
    """What a plan says of vectors that are compared in the place of 8-bit codes."""
    if vectors is None:
        return kernels.BYTES_IN_LISTS, 0, 0, 0
    kind = kernels.HALVES if vectors.dtype == np.float16 else kernels.SMALL_INTS
    return kind, vectors.ctypes.data, len(vectors), vectors.shape[1]


class Scratch(NamedTuple):
    """Arrays of one thread; `plan` holds the addresses of all of them."""

    rotated: NDArray[np.float32]
    best: NDArray[np.int32]
    nearness: NDArray[np.float32]
    counts: NDArray[np.int64]
    log: NDArray[np.int32]
    hardness: NDArray[np.float32]
    plan: NDArray[np.int64]
    kept: list[NDArray[Any]]
    address: int  # of the plan
    knows_live: bool = False  # what it finds are rows that are there


def tell_hardness(scratch: Scratch, stop: Stop) -> None:
    """Say how patience depends on hardness; without a table it is the same for all."""
    if stop.hardness is not None:
        scratch.hardness[:] = stop.hardness
    else:
        scratch.hardness[HARD - 1 : 2 * HARD - 1] = stop.patience
        scratch.hardness[2 * HARD - 1 :] = 1


def _readable(array: NDArray[Any]) -> NDArray[Any]:
    """The array as kernels take it (H2)."""
    if array.flags.c_contiguous and array.flags.aligned and not array.flags.writeable:
        return array
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view
