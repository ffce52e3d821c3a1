"""Figures of lists, as the rows of `m2m_lists` and `m2m_drift` show them.

m2m_lists, a row for each segment and VECTOR column with lists:

    collection, column_name, part
    lists, rows, codes    rows that the lists lead to; codes in them, a row may have two
    mean, p99, longest    codes in a list
    gini                  0: all lists are as long as each other; near 1: few hold nearly all
    dead                  lists with less than an eighth of the mean
    routing_bytes         centroids with what belongs to them: what every search reads whole
    code_bytes            1-bit codes, their factors and positions: read list by list
    refine_bytes          8-bit codes and what belongs to them: read row by row
    error                 mean squared distance of rows from their centroids when these were trained

m2m_drift, a row for each VECTOR column with lists; see `index.drift`:

    collection, column_name, part (whose centroids measure)
    baseline, recent, ratio, alarm
    rows, since_commit     that were measured, and since when
    alarms, alarm_commit   how often the alarm was raised, and when last; NULL: never

All bytes are those of the file, which is where they are read from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from m2mdb.query.lists import ListSchema

if TYPE_CHECKING:
    from collections.abc import Iterator

    from m2mdb.index.collection import CollectionView
    from m2mdb.index.view import View

DEAD = 8  # a list with less than one part in so many of the mean is dead
_TEXT, _INTEGER, _REAL, _BOOLEAN = "TEXT", "INTEGER", "REAL", "BOOLEAN"
_ROUTING = ("centers", "center_scales", "center_squares", "starts", "patience", "effort",
            "epsilon", "rules", "middle")  # fmt: skip
_CODES = ("codes", "factors", "positions")
_REFINE = ("bytes8", "scales", "squares", "ordinals")

LISTS = ListSchema(
    "m2m_lists",
    (
        ("collection", _TEXT), ("column_name", _TEXT), ("part", _TEXT), ("lists", _INTEGER),
        ("rows", _INTEGER), ("codes", _INTEGER), ("mean", _REAL), ("p99", _REAL),
        ("longest", _INTEGER), ("gini", _REAL), ("dead", _INTEGER), ("routing_bytes", _INTEGER),
        ("code_bytes", _INTEGER), ("refine_bytes", _INTEGER), ("error", _REAL),
    ),
)  # fmt: skip
DRIFT = ListSchema(
    "m2m_drift",
    (
        ("collection", _TEXT), ("column_name", _TEXT), ("part", _TEXT), ("baseline", _REAL),
        ("recent", _REAL), ("ratio", _REAL), ("alarm", _BOOLEAN), ("rows", _INTEGER),
        ("since_commit", _INTEGER), ("alarms", _INTEGER), ("alarm_commit", _INTEGER),
    ),
)  # fmt: skip


def gini(sizes: np.ndarray) -> float:
    """How uneven sizes are: 2 sum(i s_i) / (n sum(s)) - (n + 1) / n, s ascending, i from 1."""
    total, count = float(sizes.sum()), len(sizes)
    if not total:
        return 0.0
    ranks = np.arange(1, count + 1)
    return float(2 * (ranks @ np.sort(sizes)) / (count * total) - (count + 1) / count)


def dead_lists(sizes: np.ndarray) -> np.ndarray:
    """Which lists are next to empty."""
    out: np.ndarray = sizes * DEAD < sizes.mean()
    return out


def list_rows(view: View, collection: CollectionView) -> Iterator[tuple[Any, ...]]:
    """The rows of `m2m_lists`."""
    from m2mdb.index.routing import stored_error

    schema = collection.schema
    for segment in collection.segments:
        for index in schema.vector_columns:
            column = schema.columns[index]
            found = segment.lists(column)
            if found is None:
                continue
            sizes = found.clusters()[0]
            counted = [
                sum(
                    segment.size_of(f"h.{n}", column.id)
                    for n in names
                    if segment.has(f"h.{n}", column.id)
                )
                for names in (_ROUTING, _CODES, _REFINE)
            ]
            yield (
                schema.name, column.name, f"segment {segment.id}", found.count, found.rows,
                int(sizes.sum()), float(sizes.mean()), float(np.percentile(sizes, 99)),
                int(sizes.max()), gini(sizes), int(dead_lists(sizes).sum()), *counted,
                stored_error(segment, column) or None,
            )  # fmt: skip


def drift_rows(view: View, collection: CollectionView) -> Iterator[tuple[Any, ...]]:
    """The rows of `m2m_drift`."""
    schema = collection.schema
    for index in schema.vector_columns:
        column = schema.columns[index]
        state = collection.entry.drift.get(column.id)
        if state is not None:
            yield (
                schema.name, column.name, f"segment {state.reference}", state.baseline,
                state.recent, state.ratio, state.is_alarm, state.rows, state.since, state.alarms,
                state.alarmed or None,
            )  # fmt: skip
