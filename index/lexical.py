"""Text search over a collection: the delta's and the segments' inverted lists at one snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from m2mdb.index.delta import indexable_text
from m2mdb.index.found import Found
from m2mdb.index.text.options import parse_options
from m2mdb.index.text.search import search_text
from m2mdb.index.text.source import Source, TextColumn
from m2mdb.pager.errors import ProgrammingError

if TYPE_CHECKING:
    from m2mdb.index.collection import CollectionView
    from m2mdb.index.text.match_query import TextQuery


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
        found.append(TextColumn(column.name, sources, options.variant, options.weight))
    return found


def match(
    view: CollectionView,
    query: TextQuery,
    k: int,
    *,
    column_index: int | None = None,
    masks: Sequence[np.ndarray | None] | None = None,
) -> Found:
    """The k rows with the best BM25 scores, equal ones by rowid.

    column_index  the column to search; None sums over all FULLTEXT columns

    Raises ProgrammingError: no FULLTEXT column, or a field that is none.
    """
    columns = view.schema.text_columns if column_index is None else (column_index,)
    if not columns or any(view.schema.columns[i].fulltext is None for i in columns):
        name = "" if column_index is None else f" {view.schema.columns[column_index].name}"
        raise ProgrammingError(f"MATCH needs a FULLTEXT column; {view.schema.name}{name} has none")
    parts = view.parts()
    allowed = []
    for number, part in enumerate(parts):
        mask = masks[number] if masks else None
        live = part.live
        if live is not None:
            mask = live if mask is None else mask & live
        allowed.append(mask)

    def texts_of(column: int, source: int, ordinals: np.ndarray) -> list[str | None]:
        index = columns[column]
        kind = view.schema.columns[index].type
        values = parts[source].values(index, ordinals)
        return [indexable_text(kind, value) for value in values]

    hits = search_text(
        query,
        text_columns(view, columns),
        [part.rowids for part in parts],
        k,
        allowed,
        texts_of,
    )
    return Found(hits.rowids, hits.sources, hits.ordinals, hits.scores)
