"""Integrity: every page is reached once, and every structure says what the rows say.

`integrity_check` walks the whole file at one snapshot: all trees, the free map, all extents block
by block, and then the meaning: rowids, key hashes, B-tree indexes and inverted lists against the
rows. `quick_check` leaves out the meaning. Each fault is one line that names place and reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from m2mdb.index import maintenance
from m2mdb.index.collection import CollectionView, open_past
from m2mdb.index.keys import index_key
from m2mdb.index.retention import load_ends
from m2mdb.index.schema import Column
from m2mdb.index.segment import TEXT_PREFIX, Segment, SegmentRecord, hash_parts
from m2mdb.index.values import norms_of
from m2mdb.pager.btree import BTree
from m2mdb.pager.errors import DatabaseError
from m2mdb.pager.freespace import decode_run
from m2mdb.pager.header import FIRST_PAGE_SIZE
from m2mdb.wal.transaction import Transaction

if TYPE_CHECKING:
    from m2mdb.index.catalog import CollectionEntry
    from m2mdb.index.view import View

MAX_FAULTS = 100  # as many lines as SQLite gives before it stops
Report = Callable[[str], None]


class _Full(Exception):
    """Enough faults were found."""


def check(view: View, *, quick: bool = False) -> list[str]:
    """The faults of the database at the view's snapshot; an empty list where all is well."""
    faults: list[str] = []

    def report(fault: str) -> None:
        faults.append(fault)
        if len(faults) >= MAX_FAULTS:
            raise _Full

    try:
        _check_first_page(view, report)
        _check_pages(view, report)
        for name in view.names():
            _check_collection(view, name, report, quick=quick)
    except _Full:
        pass
    except DatabaseError as problem:  # a damaged page on the way to the rest
        faults.append(str(problem))
    return faults


# ------------------------------------------------------------------------- pages


def _check_first_page(view: View, report: Report) -> None:
    """Behind its two sectors, which have checksums, page 1 is zero."""
    file, size = view.database.store.file, view.pages.page_size - FIRST_PAGE_SIZE
    if file.read_at(FIRST_PAGE_SIZE, size) != bytes(size):
        report(f"page 1: bytes {FIRST_PAGE_SIZE} to {FIRST_PAGE_SIZE + size} are not zero")


def _check_pages(view: View, report: Report) -> None:
    """Every page belongs to exactly one tree, extent or free run."""
    pages = view.pages
    owners = np.zeros(pages.page_count + 1, np.uint8)
    owners[1] = 1
    is_whole = True
    for what, root in _trees(view):
        is_whole &= _check_tree(BTree(pages, root), what, owners, report)
    for entry in view.catalog.by_id.values():
        for record in (*entry.records.values(), *entry.past.values()):
            for extent in record.extents:
                what = f"segment {record.id} of {entry.schema.name}"
                _claim(owners, extent.start_page, extent.page_count, what, report)
    for start, length, _ in _free_runs(view):
        _claim(owners, start, length, "free run", report)
    unreached = (np.flatnonzero(owners[1:] == 0)[:10] + 1).tolist() if is_whole else []
    for number in unreached:
        report(f"page {number} of {pages.page_count} is neither used nor free")


def _free_runs(view: View) -> Iterator[tuple[int, int, int]]:
    """The free map; inside a transaction as it will be written at the commit."""
    if isinstance(view.pages, Transaction):
        yield from view.pages.free_runs()
        return
    for key, value in BTree(view.pages, view.header().free_root).scan():
        yield decode_run(key, value)


def _check_tree(tree: BTree, what: str, owners: np.ndarray, report: Report) -> bool:
    """Walk one tree and claim its pages; whether all of them could be read."""
    tree.check(lambda fault: report(f"{what}: {fault}"))
    try:
        for number in tree.pages_used():
            _claim(owners, number, 1, what, report)
    except DatabaseError:
        return False  # `check` has said why
    return True


def _trees(view: View) -> Iterator[tuple[str, int]]:
    header = view.header()
    yield "catalog", header.catalog_root
    yield "free map", header.free_root
    for entry in view.catalog.by_id.values():
        yield f"delta of {entry.schema.name}", entry.delta_root
        yield f"deletions of {entry.schema.name}", entry.deletes_root
        for info in entry.schema.indexes:
            if info.kind == "btree":
                yield f"index {info.name}", info.root


def _claim(owners: np.ndarray, start: int, length: int, what: str, report: Report) -> None:
    if not 1 <= start <= start + length <= len(owners):
        report(f"{what}: pages {start}..{start + length - 1} lie outside the file")
        return
    run = owners[start : start + length]
    if run.any():
        report(f"{what}: page {start + int(np.argmax(run > 0))} is used twice")
    run[:] = 1


# ------------------------------------------------------------------------- collections


def _check_collection(view: View, name: str, report: Report, *, quick: bool) -> None:
    try:
        collection = view.collection(name)
    except DatabaseError as problem:
        report(f"collection {name}: {problem}")
        return
    for segment in collection.segments:
        where = f"collection {name}, segment {segment.id}"
        try:
            for extent in segment.extents:
                extent.verify_all()
            _check_segment(collection, segment, where, report, quick=quick)
        except DatabaseError as problem:
            report(f"{where}: {problem}")
    _check_past(collection, report, quick=quick)
    if quick:
        return
    try:
        _check_rowids(collection, report)
        _check_keys(collection, report)
        _check_indexes(view, collection.entry, collection, report)
    except DatabaseError as problem:
        report(f"collection {name}: {problem}")


def _check_past(collection: CollectionView, report: Report, *, quick: bool) -> None:
    """Kept segments: as living ones, and every row ended behind the commit that wrote it (H2)."""
    entry, pages = collection.entry, collection.view.pages
    for id_, record in entry.past.items():
        where = f"collection {entry.schema.name}, kept segment {id_}"
        try:
            (segment,) = (each for each in open_past(pages, entry) if each.id == id_)
            for extent in segment.extents:
                extent.verify_all()
            _check_rows(collection, segment, record, where, report, quick=quick)
            ends = load_ends(pages, entry, record)
            if int(ends.max()) != record.newest_end:
                report(f"{where}: ended by {ends.max()}, the record says {record.newest_end}")
            if (segment.commits() > ends).any():
                report(f"{where}: a row ended before it was written")
        except DatabaseError as problem:
            report(f"{where}: {problem}")


def _check_segment(
    collection: CollectionView, segment: Segment, where: str, report: Report, *, quick: bool
) -> None:
    record = collection.entry.records[segment.id]
    if (np.diff(segment.rowids) == 0).any():
        report(f"{where}: a rowid stands there twice")
    collection.dead(segment.id)
    _check_rows(collection, segment, record, where, report, quick=quick)


def _check_rows(
    collection: CollectionView,
    segment: Segment,
    record: SegmentRecord,
    where: str,
    report: Report,
    *,
    quick: bool,
) -> None:
    rowids = segment.rowids
    if (np.diff(rowids) < 0).any():
        report(f"{where}: rowids do not ascend")
    if (int(rowids[0]), int(rowids[-1])) != (record.min_rowid, record.max_rowid):
        report(f"{where}: rowids {rowids[0]}..{rowids[-1]}, the record says "
               f"{record.min_rowid}..{record.max_rowid}")  # fmt: skip
    if quick:
        return
    for index, column in enumerate(collection.schema.columns):
        if column.is_vector:
            _check_norms(segment, column, where, report)
            continue
        values = segment.values(column)
        expected: list[Any] = []
        if index in collection.schema.key_columns:
            expected += hash_parts(column, values)
        if column.fulltext is not None:
            expected += maintenance.text_parts(column, values)
        for part, id_, array in expected:
            if not segment.has(part, id_) or not np.array_equal(segment.array(part, id_), array):
                kind = "text index" if part.startswith(TEXT_PREFIX) else "key hashes"
                report(f"{where}: {kind} of {column.name} ({part}) differ from the rows")


def _check_norms(segment: Segment, column: Column, where: str, report: Report) -> None:
    matrix, norms = segment.matrix(column), segment.per_row("norms", column.id)
    for start in range(0, segment.rows, 8192):
        some = slice(start, start + 8192)
        if not np.array_equal(norms_of(matrix[some]), norms[some]):
            report(f"{where}: norms of {column.name} differ from the vectors")
            return


def _check_rowids(collection: CollectionView, report: Report) -> None:
    """A rowid is live in at most one part (L2)."""
    arrays = list(collection.live_rowids())
    joined = np.concatenate(arrays)
    if len(np.unique(joined)) != len(joined):
        report(f"collection {collection.schema.name}: a rowid is live twice")


def _check_keys(collection: CollectionView, report: Report) -> None:
    for index in collection.schema.key_columns:
        values: list[Any] = []
        for part in collection.parts():
            live = part.live
            found = part.values(index)
            values += found if live is None else [found[i] for i in np.flatnonzero(live)]
        present = [value for value in values if value is not None]
        if len(set(present)) != len(present):
            name = collection.schema.columns[index].name
            report(f"collection {collection.schema.name}: equal keys in {name}")


def _check_indexes(
    view: View, entry: CollectionEntry, collection: CollectionView, report: Report
) -> None:
    """B1: the entries of each B-tree index are those of the live rows."""
    for info in entry.schema.indexes:
        if info.kind != "btree":
            continue
        index = entry.schema.column(info.column)
        expected = set()
        for part in collection.parts():
            live = part.live
            chosen = np.arange(part.size) if live is None else np.flatnonzero(live)
            rowids = part.rowids[chosen].tolist()
            stored = (part.stored(index, ordinal) for ordinal in chosen.tolist())
            expected |= {index_key(v, r) for v, r in zip(stored, rowids, strict=True)}
        found = {key for key, _ in BTree(view.pages, info.root).scan()}
        if found != expected:
            report(
                f"index {info.name}: {len(found - expected)} entries without a row, "
                f"{len(expected - found)} rows without an entry"
            )
