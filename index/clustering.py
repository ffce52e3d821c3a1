"""Clustering: which segments get lists of a VECTOR column, and the extents that these stand in.

    CREATE INDEX ... USING hrm2     every segment that is large enough, now and whenever one is
                                    written: a bulk add, a flush, a merge
    OPTIMIZE                        every VECTOR column of every segment that is large enough
    a merge                         of segments one of which had lists: the new one has them too,
                                    trained anew or absorbed (`index.absorbing`)
    DROP INDEX                      the lists of the column go

Lists are an extent of their own, the last of a segment's, one for each column. So they are added
to a segment and taken from it without a byte of its rows being written.

Invariants
    CL1 An extent that holds lists holds those of one column and nothing of the rows.
    CL2 Segments that AS OF alone may read get no lists; those that had them when their last row
        ended keep them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from m2mdb.index import drift
from m2mdb.index.collection import open_segments
from m2mdb.index.description import ABOUT, describe_segment
from m2mdb.index.list_counts import KIND, LISTS, checked_lists, wanted_lists
from m2mdb.index.query_log import is_stale, known_queries
from m2mdb.index.scratch import Scratch
from m2mdb.index.segment import Segment, SegmentRecord, lay_out
from m2mdb.index.slices import pieces
from m2mdb.index.values import VectorData
from m2mdb.index.work import ListsWork
from m2mdb.pager.errors import ProgrammingError

if TYPE_CHECKING:
    from m2mdb.index.absorbing import Base
    from m2mdb.index.catalog import CollectionEntry
    from m2mdb.index.collection import CollectionView
    from m2mdb.index.schema import CollectionSchema, Column
    from m2mdb.index.segment import NamedPart
    from m2mdb.index.view import View, WriteView
    from m2mdb.pager.extent import ExtentDescriptor

HEAD = "h.head"  # the part by which lists are known
PREFIX = "h."


def checked_options(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options of an hrm2 index: `retrain`, "manual" or "auto", and `lists`, a number.

    Raises ProgrammingError for others.
    """
    for option, value in options.items():
        if option == LISTS:
            checked_lists(name, value)
            continue
        if option != "retrain":
            raise ProgrammingError(
                f"index {name}: hrm2 takes the options retrain and lists, not {option}"
            )
        if value not in ("auto", "manual"):
            raise ProgrammingError(
                f"index {name}: retrain is {value!r}, expected 'auto' or 'manual'"
            )
    return {key: value for key, value in options.items() if value != "manual"}


def declared_columns(schema: CollectionSchema) -> set[int]:
    """The columns whose segments get lists when they are written."""
    return {schema.column(info.column) for info in schema.indexes if info.kind == KIND}


def columns_with_lists(schema: CollectionSchema, segments: Iterable[Segment]) -> set[int]:
    """The columns of which a segment has lists."""
    columns = [(index, schema.columns[index].id) for index in schema.vector_columns]
    chosen = list(segments)
    return {index for index, id_ in columns if any(s.has(HEAD, id_) for s in chosen)}


def stored_vectors(segment: Segment, column: Column) -> VectorData:
    """All vectors of a segment."""
    nulls = segment.nulls(column)
    return VectorData(
        segment.matrix(column),
        segment.per_row("norms", column.id),
        None if nulls is None else nulls == 0,
    )


def add_lists(
    write: WriteView,
    entry: CollectionEntry,
    record: SegmentRecord,
    index: int,
    values: VectorData,
    base: Base | None = None,
) -> bool:
    """Give a segment lists of a column; both objects are the caller's to change.

    base  whose lists it takes; None: it gets new ones

    False where the values are too few for lists, or cannot have them.
    """
    from m2mdb.index import absorbing, hrm2

    column = entry.schema.columns[index]
    if len(values) < min(hrm2.LEAST_ROWS, hrm2.LEAST_BESIDE):
        return False
    siblings = open_segments(write.pages, entry)
    least = hrm2.least_rows((each for each in siblings if each.id != record.id), column)
    if len(values) < least:
        return False
    measured = write.database.kernels.name != "numpy"
    work = ListsWork(write.database, _task(entry, record, column), len(values))
    scratch = Scratch(write.database, work)
    wanted = wanted_lists(entry.schema, index)
    if base is not None:
        parts = absorbing.absorbed_parts(
            column, values, base, scratch, least, wanted, measured=measured
        )
        if parts:
            _add_extent(write, entry, record, parts)
            work.end()
        return bool(parts)
    queries = known_queries(write.database.audit, entry.id, column, siblings)
    parts = hrm2.lists_parts(
        column, values, measured=measured, scratch=scratch, queries=queries, least=least,
        wanted=wanted,
    )  # fmt: skip
    if not parts:
        return False
    _add_extent(write, entry, record, parts)
    work.end()
    return True


def _task(entry: CollectionEntry, record: SegmentRecord, column: Column) -> str:
    """What a build is called where it is told of (`index.work`)."""
    return f"lists of {entry.schema.name}.{column.name}, segment {record.id}"


def _add_extent(
    write: WriteView, entry: CollectionEntry, record: SegmentRecord, parts: list[NamedPart]
) -> None:
    description = describe_segment(entry, record.id, record.commit)
    buffers, size = lay_out(record.rows, parts, description)
    watched = pieces(buffers, write.database.check_interrupted)
    record.extents = (*record.extents, write.transaction.write_extent(watched, size))


def stale_lists(read: View, view: CollectionView) -> Iterator[tuple[Segment, int]]:
    """Segments and columns whose lists were measured by other queries than those now known."""
    audit = read.database.audit
    for segment in view.segments:
        for index in view.schema.vector_columns:
            column = view.schema.columns[index]
            if segment.has(HEAD, column.id) and is_stale(audit, view.entry.id, column, segment):
                yield segment, index


def recalibrate(
    write: WriteView,
    view: CollectionView,
    entry: CollectionEntry,
    wanted: Sequence[tuple[Segment, int]],
) -> list[SegmentRecord]:
    """Measure the lists of segments anew; the records of `entry` that changed.

    The lists themselves stay as they are; without compiled kernels their tables do too.
    """
    from m2mdb.index import absorbing, hrm2

    if write.database.kernels.name == "numpy":
        return []
    changed: dict[int, SegmentRecord] = {}
    for segment, index in wanted:
        write.database.check_interrupted()
        column = view.schema.columns[index]
        old = _extent_of(segment, column)
        if old is None:
            continue
        audit = write.database.audit
        queries = known_queries(audit, entry.id, column, view.segments)
        values = stored_vectors(segment, column)
        task = _task(entry, entry.records[segment.id], column)
        work = ListsWork(write.database, task, len(values))
        scratch = Scratch(write.database, work)
        parts = hrm2.recalibrated_parts(column, values, segment, queries, scratch)
        if segment.has(absorbing.TRAINED, column.id):
            trained = segment.array(absorbing.TRAINED, column.id)
            parts.append((absorbing.TRAINED, column.id, trained))
        record = changed.get(segment.id) or entry.records[segment.id].copy()
        record.extents = tuple(each for each in record.extents if each != old)
        _add_extent(write, entry, record, parts)
        write.transaction.free_extent(old)
        changed[segment.id] = record
        work.end()
    _replace(entry, changed)
    drift.settle(write, entry)
    return list(changed.values())


def without_lists(view: CollectionView, *, absorbed: bool = False) -> Iterator[tuple[Segment, int]]:
    """Segments and columns that may have lists and do not.

    absorbed  also those with lists that were trained for other rows (`index.absorbing`)
    """
    from m2mdb.index import absorbing, hrm2

    for segment in view.segments:
        for index in view.schema.vector_columns:
            column = view.schema.columns[index]
            if segment.has(HEAD, column.id):
                if absorbed and absorbing.is_changed(segment, column):
                    yield segment, index
                continue
            least = hrm2.least_rows(view.segments, column)
            if segment.rows < least:
                continue
            nulls = segment.nulls(column)
            if nulls is None or segment.rows - np.count_nonzero(nulls) >= least:
                yield segment, index


def lists_of_column(view: CollectionView, index: int) -> Iterator[tuple[Segment, int]]:
    """Segments that have lists of a column."""
    id_ = view.schema.columns[index].id
    return ((segment, index) for segment in view.segments if segment.has(HEAD, id_))


def absorbed_lists(view: CollectionView) -> Iterator[tuple[Segment, int]]:
    """Segments and columns with lists that were trained for other rows than are there."""
    for segment, index in without_lists(view, absorbed=True):
        if segment.has(HEAD, view.schema.columns[index].id):
            yield segment, index


def list_segments(
    write: WriteView,
    view: CollectionView,
    entry: CollectionEntry,
    wanted: Sequence[tuple[Segment, int]],
) -> list[SegmentRecord]:
    """Give segments lists of columns, in the place of those they have; the changed records.

    Where none can be made any more (too few vectors without a larger segment beside them), the old
    ones go all the same: FORGET counts on what they remember being gone.
    """
    changed: dict[int, SegmentRecord] = {}
    for segment, index in wanted:
        write.database.check_interrupted()
        record = changed.get(segment.id) or entry.records[segment.id].copy()
        old = _extent_of(segment, view.schema.columns[index])
        values = stored_vectors(segment, view.schema.columns[index])
        if add_lists(write, entry, record, index, values) or old is not None:
            changed[segment.id] = record
        if old is not None:
            record.extents = tuple(each for each in record.extents if each != old)
            write.transaction.free_extent(old)
    _replace(entry, changed)
    drift.settle(write, entry)
    return list(changed.values())


def drop_lists(
    write: WriteView, view: CollectionView, entry: CollectionEntry, index: int
) -> list[SegmentRecord]:
    """Free the lists of a column; the records of `entry` that changed."""
    changed: dict[int, SegmentRecord] = {}
    for segment in view.segments:
        found = _extent_of(segment, view.schema.columns[index])
        if found is not None:
            record = entry.records[segment.id].copy()
            record.extents = tuple(each for each in record.extents if each != found)
            write.transaction.free_extent(found)
            changed[segment.id] = record
    _replace(entry, changed)
    drift.settle(write, entry)
    return list(changed.values())


def _extent_of(segment: Segment, column: Column) -> ExtentDescriptor | None:
    """The extent of a column's lists (CL1)."""
    if not segment.has(HEAD, column.id):
        return None
    extent = segment.range_of(HEAD, column.id)[0]
    others = [
        name
        for name, id_ in segment.names()
        if segment.range_of(name, id_)[0] is extent
        and name != ABOUT
        and not (name.startswith(PREFIX) and id_ == column.id)
    ]
    return None if others else extent.descriptor


def _replace(entry: CollectionEntry, changed: dict[int, SegmentRecord]) -> None:
    for id_, record in changed.items():
        entry.records[id_] = record
        entry.segments.pop(id_, None)
    if changed:
        entry.opened = None
