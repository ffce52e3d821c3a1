"""Recalibration: whether a table of patience still keeps its promises, or is measured anew.

    a merge that absorbs: rows that came + real queries --searched by the table, and exactly-->
        recall as promised: the table stays; less: it is measured anew

A table is measured on the rows that are there. Where rows come and go, centroids follow
(`compute.hrm2.following`) and no alarm of drift need ever stand; but rows that lie otherwise may
want many times the patience. So where as many rows came as are a LOOK of all, some of them say
whether what was promised is found; that takes some hundredths of what measuring anew does.

Invariants
    RC1 Depends on the lists, the rows and the queries alone.
    RC2 Without kernels, and for so few rows that nothing would be measured, the table stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from m2mdb.index import hrm2
from m2mdb.index.query_log import stored_queries

if TYPE_CHECKING:
    from m2mdb.compute.hrm2.lists import Lists
    from m2mdb.compute.hrm2.patience import Table
    from m2mdb.index.schema import Column
    from m2mdb.index.scratch import Scratch
    from m2mdb.index.segment import Segment
    from m2mdb.index.values import VectorData

LOOK = 0.25  # of the rows; when so many came since the last look, the table is looked at


def is_due(before: float, after: float, rows: int) -> bool:
    """Whether to look at a table: rows that came since training, before a merge and after it."""
    return int(before / (LOOK * rows)) < int(after / (LOOK * rows))


def table_kept(
    column: Column,
    values: VectorData,
    lists: Lists,
    base: Segment,
    come: np.ndarray,
    scratch: Scratch,
) -> Table:
    """The table of a base for lists that took rows in; or one measured anew, where it fails these.

    come  ordinals of the rows that came
    """
    old = base.lists(column)
    assert old is not None, "the base has lists"
    if len(lists.ordinals) < hrm2.LEAST_MEASURED or not hrm2.has_kernels(scratch.tick):
        return old.table
    from m2mdb.compute.hrm2 import checking
    from m2mdb.compute.hrm2.searcher import Searcher

    own, rows, chosen = hrm2.numbered(column, values, lists, scratch)
    known = [hrm2.searched_query(each, column.metric) for each in stored_queries(base, column)]
    asked = [each for each in known if each is not None and np.isfinite(each).all()]
    queries = np.stack(asked) if asked else None
    searcher = Searcher(own, column.metric, old.seed)
    numbers = np.searchsorted(chosen, come)
    if checking.keeps(searcher, rows, old.table, numbers, queries, scratch.tick):
        return old.table
    return hrm2.table_of(own, rows, column.metric, (scratch, queries), measured=True)
