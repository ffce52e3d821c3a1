"""OPTIMIZE: every collection in as few segments as its size allows, without dead rows.

    delta --flush--> segment
    segments of SEGMENT_BYTES together --merge, one commit a step--> one segment
    segments without lists, or whose lists absorbed rows --train, code, one commit a step--> lists
                (`index.clustering`)
    lists --measure by the connection's queries, one commit a step--> lists (`index.query_log`)

A step is a transaction of its own, so that a long OPTIMIZE never holds the writer lock for longer
than one merge, and what an interrupt or a crash leaves is a file whose first collections are
merged (S22). The groups are chosen once, at the start of a collection: what other writers add
meanwhile waits for the next OPTIMIZE.

Invariants
    O1  Rows, rowids and answers are the same before and after.
    O2  A segment that is alone and without dead rows is not written again; at most lists are
        added to it, or those that it has are measured anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from m2mdb.index import clustering, drift
from m2mdb.index.maintenance import SEGMENT_BYTES, bytes_of, flush, merge
from m2mdb.index.quiet import maintaining
from m2mdb.index.work import tell
from m2mdb.pager.errors import OperationalError, ProgrammingError

if TYPE_CHECKING:
    from m2mdb.index.catalog import CollectionEntry
    from m2mdb.index.database import Database


@dataclass(frozen=True, slots=True)
class Optimized:
    """What became of one collection."""

    collection: str
    segments_before: int
    segments_after: int
    rows: int


def optimize(database: Database, name: str | None = None) -> list[Optimized]:
    """Merge one collection's segments, or all collections', in steps that commit themselves.

    Raises OperationalError inside a transaction, ProgrammingError for an unknown collection.
    """
    if database.in_transaction:
        raise OperationalError("cannot OPTIMIZE inside a transaction")
    if database.store.read_only:
        raise OperationalError(f"{database.path} is open for reading only")
    with database.reading() as view:
        names = [name] if name is not None else view.names()
        if name is not None:
            view.collection(name)
    with database.audit.offering():
        return [report for each in names if (report := _optimize_one(database, each)) is not None]


def _optimize_one(database: Database, name: str) -> Optimized | None:
    """Flush and merge; None where another connection dropped the collection meanwhile."""
    try:
        stale = _stale(database, name)
        before, groups = _flush_and_group(database, name)
        for done, ids in enumerate(groups):
            database.check_interrupted()
            tell(database, f"segments of {name}: merging", done, len(groups))
            _merge_group(database, name, ids)
        if groups:
            tell(database, f"segments of {name}", len(groups), len(groups))
        for id_ in _without_lists(database, name):
            database.check_interrupted()
            _add_lists(database, name, id_)
        for id_ in stale:
            database.check_interrupted()
            _recalibrate(database, name, id_)
        _begin_drift_anew(database, name)
        with database.reading() as read:
            view = read.collection(name)
            return Optimized(view.schema.name, before, len(view.segments), view.count())
    except ProgrammingError:
        with database.reading() as read:
            if name in read.names():
                raise
        return None


def _flush_and_group(database: Database, name: str) -> tuple[int, list[list[int]]]:
    """Empty the delta; the segments before, and the groups that are worth a merge."""
    with maintaining(database) as write:
        view = write.collection(name)
        before = len(view.segments)
        flush(write, view)
        groups = groups_to_merge(view.entry, write.transaction.page_size)
    return before, groups


def groups_to_merge(entry: CollectionEntry, page_size: int) -> list[list[int]]:
    """Segments in the order of their ids, cut into groups of SEGMENT_BYTES (O2)."""
    groups: list[list[int]] = []
    size = 0
    for id_ in sorted(entry.records):
        own = bytes_of(entry.records[id_], page_size)
        if not groups or size + own > SEGMENT_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(id_)
        size += own
    return [ids for ids in groups if len(ids) > 1 or entry.records[ids[0]].deleted]


def _merge_group(database: Database, name: str, ids: list[int]) -> None:
    """One step: those of the group that are still there become one segment."""
    with maintaining(database) as write:
        view = write.collection(name)
        flush(write, view)
        left = [id_ for id_ in ids if id_ in view.entry.records]
        if len(left) > 1 or (left and view.entry.records[left[0]].deleted):
            merge(write, view, left, view.schema.vector_columns)


def _without_lists(database: Database, name: str) -> list[int]:
    """The segments that may have lists of a column and do not, or have absorbed rows since."""
    with database.reading() as read:
        found = clustering.without_lists(read.collection(name), absorbed=True)
        return sorted({segment.id for segment, _ in found})


def _add_lists(database: Database, name: str, id_: int) -> None:
    """One step: lists for a segment, if it is still there."""
    with maintaining(database) as write:
        view = write.collection(name)
        wanted = [
            found for found in clustering.without_lists(view, absorbed=True) if found[0].id == id_
        ]
        if wanted:
            entry = view.entry.copy()
            records = clustering.list_segments(write, view, entry, wanted)
            if records:
                write.replace_entry(view, entry, records)


def _stale(database: Database, name: str) -> list[int]:
    """The segments whose lists real queries are to measure anew."""
    with database.reading() as read:
        found = clustering.stale_lists(read, read.collection(name))
        return sorted({segment.id for segment, _ in found})


def _recalibrate(database: Database, name: str, id_: int) -> None:
    """One step: a segment's lists measured anew, if it is still there and was not written since."""
    with maintaining(database) as write:
        view = write.collection(name)
        wanted = [each for each in clustering.stale_lists(write, view) if each[0].id == id_]
        if wanted:
            entry = view.entry.copy()
            records = clustering.recalibrate(write, view, entry, wanted)
            if records:
                write.replace_entry(view, entry, records)


def _begin_drift_anew(database: Database, name: str) -> None:
    """All rows stand in lists that were trained with them now: nothing has come since."""
    with database.reading() as read:
        if not any(state.rows for state in read.collection(name).entry.drift.values()):
            return
    with maintaining(database) as write:
        view = write.collection(name)
        entry = view.entry.copy()
        drift.settle(write, entry, trained=True)
        write.replace_entry(view, entry)
