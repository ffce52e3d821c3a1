"""The nearest rows: `SELECT … ORDER BY embedding <=> ? LIMIT n` answered by a vector search.

    one table, WHERE or none, one ORDER BY of a distance, ascending, LIMIT
      --> search of n + OFFSET rows by NEAR, WHERE before ranking --> the SELECT's own order of them

The operator has to be the column's metric. As SEARCH does, it finds 0.95 of the exact answer in the
mean where segments have lists, and all of it elsewhere. A row without a vector comes behind all
others; so where the search gives fewer rows than were asked for, all rows are looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from m2mdb.query.constants import is_constant
from m2mdb.query.expression import compile_expression
from m2mdb.query.functions import Bindings
from m2mdb.query.nodes import Binary, ColumnRef, Expression, OrderItem
from m2mdb.query.profile import Noted, profile_of
from m2mdb.query.search import SearchRequest, run_search
from m2mdb.query.search_profile import profiled_search
from m2mdb.query.selection import Selection
from m2mdb.query.sources import TableSource
from m2mdb.query.vectors import METRICS, vector

if TYPE_CHECKING:
    from m2mdb.index.schema import Column
    from m2mdb.index.view import View

MOST = 10_000  # rows that are searched for; beyond, all distances are sorted


class NearestRows:
    """The search that gives the first rows of an ORDER BY."""

    __slots__ = ("_column", "_operator", "_query", "_source", "_view_name")

    def __init__(
        self, source: TableSource, column: Column, operator: str, query: Expression
    ) -> None:
        self._source = source
        self._column = column
        self._operator = operator
        self._query = compile_expression(query, source.scope.sibling())
        self._view_name = source.leaf.tables[0][0]

    def select(self, view: View, bindings: Bindings, wanted: int) -> Selection | None:
        """The nearest rows, by rowid; None where the search cannot say which they are."""
        query = vector(self._query((), bindings))
        if query is None or len(query) != self._column.dimension or not 0 < wanted <= MOST:
            return None
        if self._column.metric == "cosine" and not query.any():
            return None
        predicate = self._source.access.predicate
        request = SearchRequest(
            self._view_name,
            near=query.astype(np.float32),
            near_column=self._column.name,
            where=None if predicate is None else predicate.bind(bindings),
            k=wanted,
        )
        profile = profile_of(bindings)
        if profile is not None:
            hits = profiled_search(profile, self, view, request)
        else:
            hits = run_search(view, request)
        if len(hits) < wanted:
            return None
        chosen: list[list[int]] = [[] for _ in hits.collection.parts()]
        for part, ordinal in hits.places:
            chosen[part].append(ordinal)
        return Selection(hits.collection, [np.array(sorted(each), np.int64) for each in chosen])

    def describe(self, view: View) -> str:
        """One line for EXPLAIN."""
        title, name = self._source.leaf.title, self._column.name
        filtered = "" if self._source.access.predicate is None else " WITH FILTER"
        rows = view.collection(self._view_name).count()
        line = f"SEARCH {title} BY {name} {self._operator} OF {rows} rows{filtered}"
        return Noted.of(line, self)


def plan_nearest(
    source: object, order: Sequence[tuple[OrderItem, Expression]], has_limit: bool
) -> NearestRows | None:
    """The search for an ORDER BY, or None where it is of another form."""
    if not has_limit or len(order) != 1 or not isinstance(source, TableSource):
        return None
    leaf = source.leaf
    item, node = order[0]
    if leaf.is_past or leaf.plan is not None or len(leaf.tables) != 1:
        return None
    if item.descending or item.nulls_first or not isinstance(node, Binary):
        return None
    left, right = node.left, node.right
    if not isinstance(left, ColumnRef):
        left, right = right, left
    if node.operator not in METRICS or not isinstance(left, ColumnRef) or not is_constant(right):
        return None
    index = leaf.schema.position(left.name)
    column = None if index is None else leaf.schema.columns[index]
    if column is None or not column.is_vector or column.metric != METRICS[node.operator]:
        return None
    return NearestRows(source, column, node.operator, right)
