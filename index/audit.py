"""Audit of recall: a sample of a connection's real queries, and what they really find.

    PRAGMA recall_audit = N    sample every N-th approximate search of this connection; 0: none
    PRAGMA recall_audit        a row for each column that was searched: what was found of the true
                               answers to the sampled queries, measured now
    OPTIMIZE                   calibrates lists by the sample, and stores it with them
                               (`index.query_log`); after PRAGMA recall_audit = 0 it forgets what
                               is stored

The sample lives in memory, MOST_SAMPLES queries of each column, the latest ones. A search copies
its query at most; it never writes.

Invariants
    AU1 A search finds the same with and without the audit.
    AU2 Without the audit a search pays for one comparison.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from m2mdb.index.effort import EXACT, Effort

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from m2mdb.compute.backend import Backend
    from m2mdb.index.collection import CollectionView
    from m2mdb.index.view import View

MOST_SAMPLES = 256  # queries of a column
SECONDS = 2.0  # that the measurements of one PRAGMA may take; each column gets its part of it
ERRORS = 2.0  # standard errors between the measured recall and its lower bound


class Sample(NamedTuple):
    """One search: its query as it was given, and what it asked for."""

    query: np.ndarray
    k: int
    effort: Effort


class _Searches:
    """What is known of one column."""

    __slots__ = ("count", "fresh", "samples")

    def __init__(self) -> None:
        self.count = 0
        self.fresh = 0  # samples since they were last offered
        self.samples: list[Sample] = []


class Audited(NamedTuple):
    """A row of PRAGMA recall_audit; the last three are None where nothing was measured.

    searches  approximate ones since the audit was set
    audited   sampled queries that were searched again
    recall    the share of the k nearest rows that these searches find, in the mean
    asked     the recall that was asked for, in the mean
    lower     ERRORS standard errors below the mean
    """

    collection: str
    column: str
    searches: int
    audited: int
    recall: float | None
    asked: float | None
    lower: float | None


class Audit:
    """The sample of one connection."""

    __slots__ = ("_columns", "forgets", "interval", "offers")

    def __init__(self) -> None:
        self.interval = 0
        self.offers = False  # while OPTIMIZE runs: lists are calibrated by the sample
        self.forgets = False  # the audit was ended: OPTIMIZE drops what is stored
        self._columns: dict[tuple[int, int], _Searches] = {}

    def set(self, interval: int) -> None:
        """Sample every so many searches from now on; 0 ends the audit and forgets the sample."""
        self.interval = interval
        self.forgets = not interval
        self._columns.clear()

    @contextmanager
    def offering(self) -> Iterator[None]:
        """Have the lists that are built or measured meanwhile be calibrated by the sample."""
        self.offers = True
        try:
            yield
            for known in self._columns.values():
                known.fresh = 0
        finally:
            self.offers = False

    def note(
        self, collection: CollectionView, index: int, query: np.ndarray, k: int, effort: Effort
    ) -> None:
        """An approximate search of a column; it is sampled where it is its turn."""
        key = collection.entry.id, collection.schema.columns[index].id
        known = self._columns.get(key)
        if known is None:
            known = self._columns[key] = _Searches()
        known.count += 1
        if known.count % self.interval == 0:
            if len(known.samples) >= MOST_SAMPLES:
                del known.samples[0]
            known.fresh += 1
            known.samples.append(Sample(np.array(query, np.float32), k, effort))

    def queries(self, collection: int, column: int) -> list[np.ndarray]:
        """The sampled queries of a column, by ids; the latest ones first."""
        known = self._columns.get((collection, column))
        return [] if known is None else [sample.query for sample in reversed(known.samples)]

    def has_fresh(self, collection: int, column: int) -> bool:
        """Whether there are queries that no OPTIMIZE has used yet."""
        known = self._columns.get((collection, column))
        return known is not None and known.fresh > 0

    def measured(self, view: View) -> list[Audited]:
        """Search the sampled queries again, and compare every row with them."""
        columns = list(self._known(view))
        backend = view.database.kernels
        clock = view.database.store.vfs.monotonic
        deadline = clock()
        interval, self.interval = self.interval, 0  # these searches are nobody's
        try:
            rows = []
            for collection, index, known in columns:
                deadline = max(deadline, clock()) + SECONDS / len(columns)
                rows.append(_measured(collection, index, known, (backend, clock, deadline)))
            return rows
        finally:
            self.interval = interval

    def _known(self, view: View) -> Iterator[tuple[CollectionView, int, _Searches]]:
        """What was searched and is still there, in the order of the collections."""
        for name in view.names():
            collection = view.collection(name)
            for index in collection.schema.vector_columns:
                key = collection.entry.id, collection.schema.columns[index].id
                if key in self._columns:
                    yield collection, index, self._columns[key]


def audit_of(collection: CollectionView) -> Audit | None:
    """The audit of the connection that a collection is seen by."""
    database = getattr(collection.view, "database", None)
    found: Audit | None = getattr(database, "audit", None)
    return found


def _measured(
    collection: CollectionView,
    index: int,
    known: _Searches,
    how: tuple[Backend, Callable[[], float], float],
) -> Audited:
    backend, clock, deadline = how
    column = collection.schema.columns[index]
    recalls: list[float] = []
    asked: list[float] = []
    for sample in reversed(known.samples):
        if sample.effort.probes is not None:
            continue  # it asked for no recall
        if recalls and clock() > deadline:
            break
        recall = _recall(collection, index, sample, backend)
        if recall is not None:
            recalls.append(recall)
            asked.append(sample.effort.recall)
    name = collection.schema.name
    if not recalls:
        return Audited(name, column.name, known.count, 0, None, None, None)
    mean = float(np.mean(recalls))
    error = _standard_error(recalls)
    lower = max(0.0, mean - ERRORS * error)
    return Audited(name, column.name, known.count, len(recalls), mean, float(np.mean(asked)), lower)


def _standard_error(recalls: list[float]) -> float:
    """Of their mean; as if one more query had missed half of its rows, so that it is never 0."""
    count = len(recalls) + 1
    return float(np.std([*recalls, 0.5])) / math.sqrt(count)


def _recall(
    collection: CollectionView, index: int, sample: Sample, backend: Backend
) -> float | None:
    """What a search finds now of the k nearest rows; None where there is no row.

    Rows whose scores equal that of the k-th count: which of them is found is a matter of rowids.
    """
    best = collection.nearest(index, sample.query, sample.k, backend, effort=EXACT)
    if not len(best):
        return None
    found = collection.nearest(index, sample.query, sample.k, backend, effort=sample.effort)
    hits = int(np.count_nonzero(found.scores >= best.scores[-1]))
    return min(hits, len(best)) / len(best)
