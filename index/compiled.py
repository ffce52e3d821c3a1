"""Compiled searches: a search of a column that is one compiled call, for as long as nothing comes.

    Prepared --a search of its kind was made before--+--> CompiledSearch --query--> ids and scores
                                                     +--> HeldSearch     --query--> Answer
                                                                |
                                                                +--> None: it is to go by steps

Where all rows of a snapshot are found by lists and by codes of the delta, what remains of a search
is one call of `compute.search_kernels`: it looks whether the newest commit still is the one that it
was made for, searches, and looks again (`wal.watch`). It takes no snapshot and leaves no mark.
Who holds the snapshot, as he wants more of the rows than that, makes the same call and has nothing
to look for.

Invariants
    CS1 Both answer as `Prepared.nearest` does by steps, to the bit, or not at all.
    CS2 It belongs to one view of the newest commit and to settings of the connection; `is_current`
        says whether these are as they were, and the kernel whether the commit is.
    CS3 One call at a time: the connection's lock is held around `is_current` and the call; a
        HeldSearch is taken out of where it is kept by one step (RA2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from m2mdb.compute.ranking import Answer, readable
from m2mdb.wal.watch import WORD, watch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from m2mdb.compute.gathering import Gathered
    from m2mdb.compute.hrm2.searcher import Scratch
    from m2mdb.compute.ranking import RankPlan
    from m2mdb.index.database import Database
    from m2mdb.index.prepared import Probe
    from m2mdb.index.view import View

    Array = np.ndarray[Any, Any]

FLOAT = np.dtype(np.float32)
STRIDES = (4,)


class Searched(NamedTuple):
    """What a compiled search is made of.

    probes    segments whose lists are searched, each with scratch of its own
    plan      of the ranking
    mask      of the delta's rows, uint8; empty: all may be found
    gathered  codes by which rows are compared, and the number of the first row of their part
    """

    probes: Sequence[tuple[Probe, Scratch]]
    plan: RankPlan
    mask: Array
    gathered: Sequence[tuple[Gathered, int]] = ()


class _Call:
    """What the kernel takes, for a search of one k, and what it writes to."""

    __slots__ = ("_call", "_kept", "_kernel", "k", "out")

    def __init__(self, k: int, how: Searched) -> None:
        from m2mdb.compute import search_kernels

        self._kernel = search_kernels.search_whole
        self.k = k
        self.out = np.empty((4, k), np.int64)
        codes = [(each.parts_of_call(k), first) for each, first in how.gathered]
        size = sum(len(scratch.best) for _, scratch in how.probes)
        size += sum(most for (_, _, most, _), _ in codes)
        rank_plan, room = how.plan.parts_of_call()
        kept: list[Any] = [how, rank_plan, room, numbers := np.empty(size, np.int64)]
        call = np.zeros(search_kernels.CALL_SIZE, np.int64)
        call[search_kernels.RANKED :] = (
            _address(rank_plan), len(rank_plan), _address(room), len(room), _address(self.out), k,
            _address(numbers), _address(how.mask), len(how.mask), len(how.probes), len(codes),
        )  # fmt: skip
        items = [call]
        for probe, scratch in how.probes:
            item, reals = _probe_items(probe, scratch)
            items.append(item)
            kept += [item, reals]
        for (codes_plan, own_room, most, own), first in codes:
            items.append(np.array((_address(codes_plan), _address(own_room), most, first)))
            kept += [codes_plan, own_room, own]
        self._call = readable(np.concatenate(items))
        self._kept = kept


class HeldSearch(_Call):
    """A search of one k and effort of a column, while a snapshot holds what it reads."""

    __slots__ = ("_ids", "_scores")

    def __init__(self, k: int, how: Searched) -> None:
        super().__init__(k, how)
        self._ids, self._scores = np.empty(k, np.int64), np.empty(k)

    def answer(self, query: Array) -> Answer | None:
        """The best rows; None: it is to be made by steps.

        query  float32 (dimension,), checked by `query_vectors.check_query_vector`
        """
        count = self._kernel(self._call, query, self._ids, self._scores)
        if count < 0:
            return None
        out = self.out
        numbers, ids, scores, distances = (out if count == self.k else out[:, :count]).copy()
        return Answer(numbers, ids, scores.view(np.float64), distances.view(np.float64))


class CompiledSearch(_Call):
    """A search of one k and effort of a column, for the newest commit."""

    __slots__ = ("__weakref__", "_backend", "_database", "_expected", "_store", "_view")

    def __init__(self, view: View, k: int, how: Searched) -> None:
        """Of a view that a snapshot holds; `watch_again` has to be called before it is used."""
        super().__init__(k, how)
        self._view, self._database = view, view.database
        self._store, self._backend = view.database.store, view.database.kernels
        self._expected = np.zeros(0, np.int64)

    def watch_again(self) -> bool:
        """See what has to be, while a snapshot holds the view; False where a newer commit came."""
        found = watch(self._store, self._view.commit)
        if found is None:
            return False
        from m2mdb.compute import search_kernels as kernels

        self._expected = np.frombuffer(found.expected, np.int64)
        call = self._call.copy()
        call[kernels.STATE], call[kernels.WORDS] = found.address, len(found.expected) // WORD
        call[kernels.EXPECTED] = _address(self._expected)
        self._call = readable(call)
        return True

    def is_current(self, database: Database | None) -> bool:
        """Whether the connection is as it was, but for what the kernel looks at (CS2)."""
        store = self._store
        return (
            database is self._database
            and database.newest_view() is self._view
            and database.kernels is self._backend
            and database.budget is None
            and not database.audit.interval
            and not (store.unsettled or store.forgotten or store.refusal)
        )

    @property
    def call(self) -> Array:
        """What `search_kernels.search_whole` takes, as of the last `watch_again`."""
        return self._call

    def forget_interrupt(self) -> None:
        """An interrupt that came before is not for the search that follows."""
        self._database.forget_interrupt()

    def answer(self, query: Any) -> tuple[Array, Array] | None:
        """Rowids (int64) and scores (float64) of the best rows; None: it is to be made by steps.

        An interrupt that came before is not for it.

        query  anything; what is no contiguous float32 vector of the column is for the steps
        """
        if query.__class__ is not np.ndarray or query.dtype != FLOAT or query.strides != STRIDES:
            return None
        self._database.forget_interrupt()
        k = self.k
        ids, scores = np.empty(k, np.int64), np.empty(k)
        try:
            count = self._kernel(self._call, query, ids, scores)
        except TypeError:  # of an address that is no multiple of four
            return None
        if count == k:
            return ids, scores
        return (ids[:count], scores[:count]) if count >= 0 else None


def _probe_items(probe: Probe, scratch: Scratch) -> tuple[Array, Array]:
    """What a call says of a probe, and the numbers that it points to."""
    from m2mdb.compute.hrm2.searcher import tell_hardness

    stop = probe.stop
    tell_hardness(scratch, stop)
    reals = np.array((stop.factor, stop.epsilon), np.float32)
    mask = probe.mask
    items = np.array(
        (
            scratch.address, probe.number, 0 if mask is None else _address(mask),
            0 if mask is None else len(mask), probe.least, probe.budget, *stop.limits,
            _address(reals),
        ), np.int64,
    )  # fmt: skip
    return items, reals


def _address(array: Array) -> int:
    assert array.flags.c_contiguous and array.flags.aligned
    return array.ctypes.data if array.size else 0
