"""Checking: whether searches by a table still find as much as it promises.

    some rows, each sought among the others, and real queries --> searches by the table
                                                              --> exact answers: the recall of both

Measuring a table anew takes thirty times as long; so it is done where this fails.

Invariants
    CK1 Depends on lists, rows, table and queries alone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from m2mdb.compute.hrm2.calibration import keys_of, tolerant
from m2mdb.compute.hrm2.patience import spare, stop_for
from m2mdb.compute.hrm2.truth import exact_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from m2mdb.compute.hrm2.patience import Table
    from m2mdb.compute.hrm2.searcher import Searcher

    Floats = NDArray[np.float32]

ASKED = 96  # rows, and real queries, that are searched for
K = 10
PROMISED = (0.8, 0.9, 0.95, 0.98)  # recalls that are looked at; so few queries tell no higher one
ERRORS = 1.5  # standard errors that a mean may be below what was promised


def keeps(
    searcher: Searcher,
    rows: Floats,
    table: Table,
    own: NDArray[np.int64],
    queries: Floats | None,
    tick: Callable[[], None],
) -> bool:
    """Whether some rows, and real queries, are answered as the table promises.

    rows     float32[n, d], numbered as the ordinals, of length 1 under cosine
    own      numbers of rows, some of which are searched for among the others
    queries  float32[m, d], or None
    """
    if len(rows) <= K + 1:
        return True
    own = own[np.arange(min(ASKED, len(own))) * len(own) // max(1, min(ASKED, len(own)))]
    groups = [(rows[own], own)] if len(own) else []
    if queries is not None and len(queries):
        some = queries[:: -(-len(queries) // ASKED)]
        groups.append((some, np.full(len(some), -1)))
    return all(_reaches(searcher, rows, table, *group, tick) for group in groups)


def _reaches(
    searcher: Searcher,
    rows: Floats,
    table: Table,
    queries: Floats,
    own: NDArray[np.int64],
    tick: Callable[[], None],
) -> bool:
    """The same of one group; `own` is the row that each query is and may not find, or -1."""
    stops = [(each, stop_for(table, K, each)) for each in PROMISED]
    best = exact_of(searcher, rows, np.ascontiguousarray(queries), K + 1, None, tick)
    mask = np.ones(len(rows), np.bool_)
    recalls = np.ones((len(queries), len(stops)))
    for at, (query, row) in enumerate(zip(queries, own.tolist(), strict=True)):
        tick()
        edge = best[at, K - 1]
        if row >= 0:
            mask[row] = False
            itself = keys_of(rows[row : row + 1], query, searcher.metric)[0]
            edge = best[at, K] if itself >= tolerant(edge) else edge
        for column, (_, stop) in enumerate(stops):
            if stop is None:  # every row is compared
                continue
            found = searcher.search(
                query, stop, wanted=K + spare(K), epsilon=stop.epsilon, mask=mask
            )
            keys = keys_of(rows[found.ordinals], query, searcher.metric)
            recalls[at, column] = min(K, int((keys >= tolerant(edge)).sum())) / K
        if row >= 0:
            mask[row] = True
    errors = recalls.std(axis=0) / math.sqrt(len(queries))
    promised = np.array([each for each, _ in stops])
    return bool((recalls.mean(axis=0) + ERRORS * errors >= promised).all())
