"""Merge policy of collections with lists: which segments a write makes one, and when.

Each part beside the largest costs a search a start of its own, and dead rows stand in the lists
until they are left out. So segments are merged as often as writing pays for it: every row that was
added, or ended, since a segment was written pays for copying COPYING microseconds' worth of rows.

    segments by size:   s0 >= s1 >= s2 ...   and the delta
    group of si:        si, and of those after it the smallest ones, as many as a commit copies
    merged:             the first group where
                        (dead rows + delta + rows of the others than si) * amplification >= its rows

A second segment makes a search half as long again, and is copied itself whenever rows join it. So
a delta of LATE rows goes into s0 even where that takes FULL times the amplification: some hundred
thousand rows stay one segment. Beyond that there are one or two more as long as a commit can copy
all, then several of about ABSORB_BYTES, each rid of its dead rows by itself. Lists are absorbed
(`index.absorbing`); without them a merge is one of `index.maintenance`'s size tiers.

Invariants
    MP1 A commit copies ABSORB_BYTES of live rows at most, and trains MERGE_BYTES at most.
    MP2 Fewer than LEAST_CHANGED changed rows merge nothing: the delta holds them well.
    MP3 A segment whose centroids do not fit what comes, by an alarm of drift, takes none of it: its
        table of patience would promise too much. OPTIMIZE ends that, or `retrain = 'auto'`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from m2mdb.index import absorbing, clustering
from m2mdb.index.delta import FLUSH_BYTES
from m2mdb.index.schema import VECTOR_DTYPES
from m2mdb.index.values import VectorData

if TYPE_CHECKING:
    from collections.abc import Sequence

    from m2mdb.index.catalog import CollectionEntry
    from m2mdb.index.collection import CollectionView
    from m2mdb.index.schema import CollectionSchema
    from m2mdb.index.segment import SegmentRecord
    from m2mdb.index.values import StoredColumn

ABSORB_BYTES = 3 << 29  # what a bulk load makes one segment of, and its lists; of 384 float32
LEAST_CHANGED = 512
LEAST_APART = 2048  # the same for groups without the largest segment
FLUSHED = 4096  # rows of the delta; its scan takes 2 us a thousand, a segment more 25
LATE = 2560  # rows of the delta, from which on it goes into the largest segment if it may
FULL = 4  # times the amplification
COPYING = 100.0  # microseconds that a changed row pays for
COPIED_ROW, COPIED_BYTE, COPIED_VALUE, COPIED_TEXT = 1.0, 1e-3, 0.5, 8.0  # what copying takes
MOST_AMPLIFICATION = 40
LEAST_AMPLIFICATION = 3


class _Part(NamedTuple):
    id: int
    live: int
    dead: int
    size: int  # bytes of the live rows


def applies(entry: CollectionEntry) -> bool:
    """Whether a collection has lists, or is to have them."""
    return any(len(record.extents) > 1 for record in entry.records.values()) or bool(
        clustering.declared_columns(entry.schema)
    )


def amplification(schema: CollectionSchema) -> int:
    """How many rows may be copied for one that changed."""
    cost = COPIED_ROW
    for column in schema.columns:
        if column.is_vector:
            size = np.dtype(VECTOR_DTYPES[column.dtype]).itemsize
            cost += COPIED_BYTE * size * column.dimension
        else:
            cost += COPIED_TEXT if column.fulltext is not None else COPIED_VALUE
    return int(min(MOST_AMPLIFICATION, max(LEAST_AMPLIFICATION, COPYING / cost)))


def kept_apart(entry: CollectionEntry) -> set[int]:
    """The segments that take nothing in (MP3)."""
    return {state.reference for state in entry.drift.values() if state.is_alarm}


def pending_rows(view: CollectionView) -> int:
    """Rows that the delta adds or ends."""
    return len(view.mirror) + sum(map(len, view.mirror.kills.values()))


def due(
    view: CollectionView,
    page_size: int,
    most: int,
    coming: int = 0,
    *,
    full: bool = False,
    unlisted: bool = False,
) -> list[int] | None:
    """The segments that are to be one with the delta; none of them: a flush alone; None: nothing.

    most      bytes of segments that may be trained anew (MP1)
    coming    rows that are about to be a segment by themselves
    full      whether the delta cannot stay one
    unlisted  whether a batch waits for this as a segment without lists
    """
    entry, delta = view.entry, pending_rows(view) + coming
    apart = kept_apart(entry)
    parts = [_part(record, page_size) for id_, record in entry.records.items() if id_ not in apart]
    parts.sort(key=lambda part: (-part.live, part.id))
    if (
        delta + sum(part.dead + part.live for part in parts) - (parts[0].live if parts else 0)
        < LEAST_CHANGED
    ):
        return [] if full else None
    is_full = full or len(view.mirror) + coming >= FLUSHED
    is_late = is_full or unlisted or len(view.mirror) + coming >= LATE
    for at in range(len(parts)):
        factor = amplification(entry.schema) * (FULL if is_late and not at else 1)
        chosen = _group(parts, at)
        rows = delta + sum(part.live for part in chosen)
        changed = rows - parts[at].live + sum(part.dead for part in chosen)
        size = sum(part.size for part in chosen)
        least = LEAST_APART if at else LEAST_CHANGED
        is_due = changed >= least and rows <= changed * factor and size <= ABSORB_BYTES
        if is_due and (size <= most or _absorbs(view, chosen, rows)):
            return [part.id for part in chosen]
    return [] if is_full else None


def joins_delta(view: CollectionView, stored: Sequence[StoredColumn]) -> bool:
    """Whether a batch becomes entries of the delta, beside lists, in the place of a segment.

    stored  its columns; so many rows, and bytes, that the delta holds them
    """
    coming = len(stored[0])
    if len(view.mirror) + coming >= FLUSHED:
        return False
    if not any(len(record.extents) > 1 for record in view.entry.records.values()):
        return False
    size = view.mirror.bytes_used
    for values in stored:
        if isinstance(values, VectorData):
            size += values.matrix.nbytes
        else:
            size += sum(len(each) if isinstance(each, (str, bytes)) else 8 for each in values)
    return size < FLUSH_BYTES


def _part(record: SegmentRecord, page_size: int) -> _Part:
    live = record.rows - record.deleted
    size = sum(extent.page_count for extent in record.extents) * page_size
    return _Part(record.id, live, record.deleted, size * live // max(1, record.rows))


def _group(parts: list[_Part], at: int) -> list[_Part]:
    """The smallest of the parts after one, as many as can be copied with it; that one last."""
    chosen, size = [], parts[at].size
    for part in reversed(parts[at + 1 :]):
        size += part.size
        if size > ABSORB_BYTES:
            break
        chosen.append(part)
    return [*chosen, parts[at]]


def _absorbs(view: CollectionView, chosen: list[_Part], rows: int) -> bool:
    """Whether the largest of the chosen segments, the last one, can take the rows of all."""
    largest = chosen[-1]
    segment = next(each for each in view.segments if each.id == largest.id)
    columns = clustering.columns_with_lists(view.schema, [segment])
    wanted = clustering.columns_with_lists(view.schema, view.segments)
    if columns != wanted | clustering.declared_columns(view.schema) or largest.live * 2 < rows:
        return False
    for index in columns:
        trained = absorbing.trained(segment, view.schema.columns[index]).rows
        if not trained <= rows * absorbing.MOST_GROWN <= trained * absorbing.MOST_GROWN**2:
            return False
    return True
