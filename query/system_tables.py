"""The system's tables: the state of the database as rows.

m2m_collections   name, rows, columns, segments, oldest_commit (that AS OF can name)
m2m_columns       collection, position, name, type, primary_key, unique_key, not_null,
                  default_value, metric, fulltext, generated_from, encoder, encoder_model,
                  encoder_fingerprint (NULL but for generated vector columns)
m2m_indexes       name, collection, column_name, kind, is_unique, options (as JSON, or NULL)
m2m_segments      collection, part, rows, live
m2m_clusters      collection, column_name, part, list, rows (codes in the list), spread (their mean
                  distance from the centroid), weight (share of all codes), is_dead (next to empty)
m2m_lists         of each segment and column with lists: query.list_figures
m2m_drift         how far the vectors that came lie from the lists: query.list_figures
m2m_history       what commits within reach changed, and
m2m_tiers         what of a part is warm or cold: query.history
m2m_statistics    collection, column_name, rows, nulls, distinct_values, low, high: of ANALYZE
m2m_stats         one row of figures: query.statistics
m2m_limits        name, value (here), trusted, untrusted: what `pager.limits` says
m2m_receipts      receipt, collection, rows, commit, digest, status, holders: of FORGET
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from m2mdb.query.functions import FUNCTIONS
from m2mdb.query.history import HISTORY, TIERS, history_rows, page_tier, tier_rows
from m2mdb.query.limits import LIMITS, limits_rows
from m2mdb.query.list_figures import DRIFT, LISTS, dead_lists, drift_rows, list_rows
from m2mdb.query.lists import ListSchema, ListView
from m2mdb.query.statistics import STATS, stats_row

if TYPE_CHECKING:
    from m2mdb.index.collection import CollectionView
    from m2mdb.index.view import View

Rows = Iterator[tuple[Any, ...]]
_TEXT, _INTEGER, _BOOLEAN = "TEXT", "INTEGER", "BOOLEAN"
_GENERATED = ("from", "encoder", "model", "fingerprint")  # of `Column.generated`


def _collections(view: View, collection: CollectionView) -> Rows:
    schema = collection.schema
    segments = len(collection.parts()) - 1
    oldest = view.oldest_commit(schema.name)
    yield schema.name, collection.count(), len(schema.columns), segments, oldest


def _columns(view: View, collection: CollectionView) -> Rows:
    quote = FUNCTIONS["quote"][0]
    for position, column in enumerate(collection.schema.columns):
        yield (
            collection.schema.name,
            position,
            column.name,
            column.declaration(),
            column.primary_key,
            column.unique,
            column.not_null,
            column.shown_default(quote),
            column.metric if column.is_vector else None,
            column.fulltext is not None,
            *[(column.generated or {}).get(key) for key in _GENERATED],
        )


def _indexes(view: View, collection: CollectionView) -> Rows:
    schema = collection.schema
    for info in schema.indexes:
        options = info.options
        if info.kind == "bm25":
            options = schema.columns[schema.column(info.column)].fulltext or {}
        yield (
            info.name, schema.name, ", ".join(info.columns), info.kind, info.unique,
            json.dumps(options) if options else None,
        )  # fmt: skip


def _statistics(view: View, collection: CollectionView) -> Rows:
    quote = FUNCTIONS["quote"][0]
    for column in collection.schema.columns:
        found = collection.entry.statistics.get(column.id)
        if found is not None:
            low, high = quote(found.low), quote(found.high)
            yield (
                collection.schema.name, column.name, found.rows, found.nulls, found.distinct,
                low, high,
            )  # fmt: skip


def _segments(view: View, collection: CollectionView) -> Rows:
    for part in collection.parts():
        yield collection.schema.name, part.name, part.size, part.live_count
    for record in collection.entry.past.values():
        yield collection.schema.name, f"kept segment {record.id}", record.rows, 0


def _clusters(view: View, collection: CollectionView) -> Rows:
    schema = collection.schema
    for segment in collection.segments:
        for index in schema.vector_columns:
            lists = segment.lists(schema.columns[index])
            if lists is None:
                continue
            name, part = schema.columns[index].name, f"segment {segment.id}"
            codes, spreads = lists.clusters()
            weights, dead = codes / max(1, int(codes.sum())), dead_lists(codes)
            figures = zip(codes, spreads, weights, dead, strict=True)
            for number, each in enumerate(figures):
                yield schema.name, name, part, number, *(figure.item() for figure in each)


_TABLES: dict[str, tuple[ListSchema, Callable[[View, CollectionView], Rows]]] = {
    "m2m_collections": (
        ListSchema(
            "m2m_collections",
            (
                ("name", _TEXT), ("rows", _INTEGER), ("columns", _INTEGER), ("segments", _INTEGER),
                ("oldest_commit", _INTEGER),
            ),
        ),
        _collections,
    ),
    "m2m_columns": (
        ListSchema(
            "m2m_columns",
            (
                ("collection", _TEXT), ("position", _INTEGER), ("name", _TEXT), ("type", _TEXT),
                ("primary_key", _BOOLEAN), ("unique_key", _BOOLEAN), ("not_null", _BOOLEAN),
                ("default_value", _TEXT), ("metric", _TEXT), ("fulltext", _BOOLEAN),
                ("generated_from", _TEXT), ("encoder", _TEXT), ("encoder_model", _TEXT),
                ("encoder_fingerprint", _TEXT),
            ),
        ),
        _columns,
    ),
    "m2m_indexes": (
        ListSchema(
            "m2m_indexes",
            (
                ("name", _TEXT), ("collection", _TEXT), ("column_name", _TEXT), ("kind", _TEXT),
                ("is_unique", _BOOLEAN), ("options", _TEXT),
            ),
        ),
        _indexes,
    ),
    "m2m_segments": (
        ListSchema(
            "m2m_segments",
            (("collection", _TEXT), ("part", _TEXT), ("rows", _INTEGER), ("live", _INTEGER)),
        ),
        _segments,
    ),
    "m2m_statistics": (
        ListSchema(
            "m2m_statistics",
            (
                ("collection", _TEXT), ("column_name", _TEXT), ("rows", _INTEGER),
                ("nulls", _INTEGER), ("distinct_values", _INTEGER), ("low", _TEXT),
                ("high", _TEXT),
            ),
        ),
        _statistics,
    ),
    "m2m_clusters": (
        ListSchema(
            "m2m_clusters",
            (
                ("collection", _TEXT), ("column_name", _TEXT), ("part", _TEXT), ("list", _INTEGER),
                ("rows", _INTEGER), ("spread", "REAL"), ("weight", "REAL"), ("is_dead", _BOOLEAN),
            ),
        ),
        _clusters,
    ),
    "m2m_lists": (LISTS, list_rows),
    "m2m_drift": (DRIFT, drift_rows),
    "m2m_history": (HISTORY, history_rows),
    "m2m_tiers": (TIERS, tier_rows),
}  # fmt: skip


_RECEIPTS = ListSchema(
    "m2m_receipts",
    (
        ("receipt", _INTEGER), ("collection", _TEXT), ("rows", _INTEGER), ("commit", _INTEGER),
        ("digest", _TEXT), ("status", _TEXT), ("holders", _TEXT),
    ),
)  # fmt: skip


def _receipts(view: View) -> Rows:
    from m2mdb.index.scrubbing import receipts

    for each in receipts(view):
        yield (
            each.number, each.collection, each.rows, each.commit, each.digest, each.status,
            each.holders,
        )  # fmt: skip


TABLE_NAMES = (*_TABLES, _RECEIPTS.name, STATS.name, LIMITS.name)


def system_schema(name: str) -> ListSchema | None:
    """The columns of a system table; None where the name is none's."""
    if name.lower() == _RECEIPTS.name:
        return _RECEIPTS
    if name.lower() == STATS.name:
        return STATS
    if name.lower() == LIMITS.name:
        return LIMITS
    found = _TABLES.get(name.lower())
    return None if found is None else found[0]


def system_view(view: View, name: str) -> ListView:
    """The rows of a system table at a view's snapshot."""
    if name.lower() == _RECEIPTS.name:
        return ListView(_RECEIPTS, list(_receipts(view)))
    if name.lower() == STATS.name:
        return ListView(STATS, [stats_row(view)])
    if name.lower() == LIMITS.name:
        return ListView(LIMITS, limits_rows(view))
    schema, rows_of = _TABLES[name.lower()]
    rows = [row for each in view.names() for row in rows_of(view, view.collection(each))]
    if schema is TIERS:
        rows.append(page_tier(view))
    return ListView(schema, rows)
