"""Text search over a collection: the delta's and the segments' inverted lists at one snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from m2mdb.compute.text_backend import text_kernels
from m2mdb.index.delta import indexable_text
from m2mdb.index.found import Found
from m2mdb.index.text.compiled import TextPlan
from m2mdb.index.text.options import parse_options
from m2mdb.index.text.search import search_text
from m2mdb.index.text.source import Source, TextColumn
from m2mdb.pager.errors import ProgrammingError

if TYPE_CHECKING:
    from m2mdb.compute.backend import Backend
    from m2mdb.index.collection import CollectionView
    from m2mdb.index.text.match_query import TextQuery
    from m2mdb.index.text.search import TextHits


def text_columns(view: CollectionView, columns: Sequence[int]) -> list[TextColumn]:
    """The sources and statistics of FULLTEXT columns at the view's snapshot."""
    found = []
    for index in columns:
        column = view.schema.columns[index]
        size = view.parts()[0].size
        sources: list[Source] = [view.mirror.postings(index).view(size)]
        sources.extend(segment.text(column) for segment in view.segments)
        sources = [view.text_source(part, source) for part, source in enumerate(sources)]
        options = parse_options(column.fulltext)
        analyzer = view.mirror.analyzer(index)
        made = TextColumn(column.name, sources, options.variant, options.weight, analyzer)
        made.check = view.check
        found.append(made)
    return found


class TextSearcher:
    """What text searches of some FULLTEXT columns at one snapshot share: sources, and the plan."""

    __slots__ = ("__weakref__", "_rowids", "_rows", "_view", "columns", "plan", "text_columns")

    def __init__(self, view: CollectionView, columns: Sequence[int]) -> None:
        self._view = view
        self.columns = columns
        self.text_columns = text_columns(view, columns)
        self._rowids = [part.rowids for part in view.parts()]
        self._rows = sum([len(rowids) for rowids in self._rowids])
        self.plan: TextPlan | None = None

    def search(
        self,
        query: TextQuery,
        k: int,
        masks: Sequence[np.ndarray | None] | None,
        backend: Backend | None,
    ) -> TextHits:
        """The best k rows; `masks` has one for each part."""
        if self.plan is None and backend is not None:
            kernels = text_kernels(backend, self._rows)
            if kernels is not None:
                self.plan = TextPlan(self.text_columns, self._rowids, kernels)
        if self.plan is not None:
            hits = self.plan.search(query, k, masks, self._texts_of)
            if hits is not None:
                return hits
        return search_text(query, self.text_columns, self._rowids, k, masks, self._texts_of)

    def _texts_of(self, column: int, source: int, ordinals: np.ndarray) -> list[str | None]:
        index = self.columns[column]
        kind = self._view.schema.columns[index].type
        values = self._view.parts()[source].values(index, ordinals)
        return [indexable_text(kind, value) for value in values]


def match(
    view: CollectionView,
    query: TextQuery,
    k: int,
    *,
    column_index: int | None = None,
    masks: Sequence[np.ndarray | None] | None = None,
    backend: Backend | None = None,
) -> Found:
    """The k rows with the best BM25 scores, equal ones by rowid.

    column_index  the column to search; None sums over all FULLTEXT columns
    backend       whose compiled kernels may be used; NumPy without one

    Raises ProgrammingError: no FULLTEXT column, or a field that is none.
    """
    searcher = view.text_searchers.get(column_index)
    if searcher is None:
        columns = view.schema.text_columns if column_index is None else (column_index,)
        if not columns or any(view.schema.columns[i].fulltext is None for i in columns):
            name = "" if column_index is None else f" {view.schema.columns[column_index].name}"
            raise ProgrammingError(
                f"MATCH needs a FULLTEXT column; {view.schema.name}{name} has none"
            )
        searcher = view.text_searchers[column_index] = TextSearcher(view, columns)
    hits = searcher.search(query, k, _allowed(view, masks), backend)
    return Found(hits.rowids, hits.sources, hits.ordinals, hits.scores)


def _allowed(
    view: CollectionView, masks: Sequence[np.ndarray | None] | None
) -> list[np.ndarray | None] | None:
    """The masks of live rows that pass; None where that is all of them."""
    found: list[np.ndarray | None] = []
    for number, part in enumerate(view.parts()):
        mask, live = masks[number] if masks else None, part.live
        found.append(live if mask is None else mask if live is None else mask & live)
    return None if all(mask is None for mask in found) else found
