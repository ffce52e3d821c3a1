"""Markers: what a search has looked for in a column, as a value of each hit's row."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from m2mdb.index.collection import CollectionView
    from m2mdb.index.text.marks import Marker
    from m2mdb.index.text.match_query import TextQuery

MARKER = "marker of "  # and the column's number: a source that no column's name can be


def marker_of(view: CollectionView, query: TextQuery | None, source: str, *columns: int) -> Marker:
    """What a source of MARKER is: the Marker of a column for the match text of the search.

    columns  those that the text is matched in, where it is not all FULLTEXT columns
    """
    from m2mdb.index.text.marks import Marker

    index = int(source[len(MARKER) :])
    analyzer = view.mirror.analyzer(index)
    is_searched = query is not None and (not columns or index in columns)
    clauses = query.clauses_for(analyzer) if is_searched and query is not None else ()
    return Marker(clauses, analyzer, view.schema.columns[index].name)
