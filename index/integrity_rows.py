"""Integrity of a collection: what its delta, deletions and segments say, and the indexes.

    delta       entries one by one: kind, order, commit, values that fit the columns, places
    deletions   chunks, ordinals, commits, and as many as the segment's record says
    segments    blocks and slack, directory, parts of the right sizes, values in their ranges
    rows        rowids, keys, hashes, postings, norms, entries of B-tree indexes, both ways

Only the last line is left out by `quick_check`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from xxhash import xxh3_64_intdigest

from m2mdb.index import maintenance, rules, zones
from m2mdb.index.collations import folded, folded_value
from m2mdb.index.collection import CHUNK_ROWS, CollectionView, decode_deletions, open_past
from m2mdb.index.column_parts import hash_parts
from m2mdb.index.description import (
    ABOUT,
    DESCRIPTION_KEY,
    FOOTER,
    decode_fields,
    describe_collection,
)
from m2mdb.index.drift import faults as drift_faults
from m2mdb.index.integrity_lists import list_faults
from m2mdb.index.keys import decode_rowid, index_key
from m2mdb.index.retention import load_ends
from m2mdb.index.salvage_rows import DeltaEntry
from m2mdb.index.schema import Column, IndexInfo
from m2mdb.index.secondary import values_at
from m2mdb.index.segment import TEXT_PREFIX, Segment, SegmentRecord
from m2mdb.index.slices import (
    SLICE_BYTES,
    SLICE_VALUES,
    Check,
    counted_numbers,
    joined,
    number_order,
    slices,
    taken,
    watched,
)
from m2mdb.index.text.options import parse_options
from m2mdb.index.values import norms_of
from m2mdb.pager.btree import BTree
from m2mdb.pager.errors import CorruptDatabaseError, DatabaseError, StatementInterruptedError
from m2mdb.pager.extent import Extent

if TYPE_CHECKING:
    from m2mdb.index.catalog import CollectionEntry
    from m2mdb.index.view import View
    from m2mdb.pager.pages import Pages

Report = Callable[[str], None]
VALUED = b"\xff"  # before the key of an entry that has a value, which none should: no key begins so
SHOWN = 3  # rows or entries that a fault names
VECTOR_ROWS = 8192  # that are compared at a time


def check_collection(
    view: View, pages: Pages, name: str, report: Report, *, quick: bool = False
) -> None:
    """Report every fault of one collection; `pages` are the view's, read from the disk."""
    entry = view.catalog.entry(name)
    where = f"collection {name}"
    _each(f"{where}, delta", report, _check_delta, view, entry, pages, report)
    _each(f"{where}, deletions", report, _check_ends, view, entry, pages, report)
    _check_numbers(view, entry, report)
    records = {**entry.records, **entry.past}
    damaged = {id_ for id_ in records if not _check_blocks(view, records[id_], where, report)}
    try:
        collection = view.collection(name)
    except DatabaseError as problem:
        report(f"{where}: {problem}")
        return
    for segment in collection.segments:
        if segment.id not in damaged:
            _each(f"{where}, segment {segment.id}", report, _check_living, collection, segment,
                  report, quick)  # fmt: skip
    for fault in drift_faults(collection):
        report(f"{where}, drift: {fault}")
    _check_past(collection, damaged, report, quick=quick)
    if quick:
        return
    _each(where, report, _check_rowids, collection, report)
    _each(where, report, _check_keys, collection, report)
    _each(where, report, _check_rules, collection, report)
    _each(where, report, _check_indexes, view, collection, report)


def _each(where: str, report: Report, action: Callable[..., None], *arguments: Any) -> None:
    """Run one check; what it cannot read is a fault, and the others go on."""
    try:
        action(*arguments)
    except StatementInterruptedError:
        raise
    except (DatabaseError, ValueError) as problem:
        report(f"{where}: {problem}")


# ------------------------------------------------------------------------- delta, deletions


def _check_delta(view: View, entry: CollectionEntry, pages: Pages, report: Report) -> None:
    where = f"collection {entry.schema.name}, delta"
    rows = {id_: record.rows for id_, record in (*entry.records.items(), *entry.past.items())}
    next_rowid, commit = 0, 0  # the head's may be that of a segment written later
    for key, raw in BTree(pages, entry.delta_root).scan():
        found = DeltaEntry(key, raw)
        which = f"{where}, entry {found.sequence}"
        if found.sequence < entry.base_sequence:
            report(f"{which}: the log begins with {entry.base_sequence}")
        if not commit <= found.commit <= _newest(view):
            report(f"{which}: of commit {found.commit}, expected {commit} to {_newest(view)}")
        if found.next_rowid < next_rowid:
            report(f"{which}: next rowid {found.next_rowid}, before it was {next_rowid}")
        if not found.fits(entry.schema):
            report(f"{which}: its values do not fit the columns")
        for segment, ordinal in (found.ended, *(place for _, place in found.removed)):
            if segment and ordinal >= rows.get(segment, 0):
                report(f"{which}: it ends row {ordinal} of segment {segment}, which is not there")
        next_rowid, commit = max(next_rowid, found.next_rowid), max(commit, found.commit)


def _newest(view: View) -> int:
    """The newest commit that the view can have seen, its own included."""
    return int(getattr(view.pages, "new_commit", view.commit))


def _check_ends(view: View, entry: CollectionEntry, pages: Pages, report: Report) -> None:
    where = f"collection {entry.schema.name}, deletions"
    records = {**entry.records, **entry.past}
    counts = dict.fromkeys(records, 0)
    for key, raw in BTree(pages, entry.deletes_root).scan():
        if key == DESCRIPTION_KEY:
            if decode_fields(raw) != decode_fields(describe_collection(entry)):
                report(f"{where}: the collection's description is not that of the catalog")
            continue
        segment, chunk = int.from_bytes(key[:4], "big"), int.from_bytes(key[4:], "big")
        record = records.get(segment)
        if len(key) != 8 or record is None:
            report(f"{where}: key {key.hex()} is of no segment")
            continue
        found = decode_deletions(raw, f"{where} of segment {segment}")
        ordinals, commits = found["ordinal"].astype(np.int64), found["commit"]
        counts[segment] += len(found)
        if (ordinals // CHUNK_ROWS != chunk).any() or (ordinals >= record.rows).any():
            report(f"{where} of segment {segment}: chunk {chunk} has ordinals that are not its own")
        elif (np.diff(ordinals) <= 0).any():
            report(f"{where} of segment {segment}: the ordinals of chunk {chunk} do not ascend")
        if len(commits) and int(commits.max()) > _newest(view):
            report(f"{where} of segment {segment}: ended by commit {commits.max()}, which is to be")
    for id_, count in counts.items():
        if count != records[id_].deleted:
            report(
                f"deletions of segment {id_}: {count} rows, the record says {records[id_].deleted} "
                f"(collection {entry.schema.name})"
            )


def _check_numbers(view: View, entry: CollectionEntry, report: Report) -> None:
    """What the catalog counts up is behind all that there is."""
    where = f"catalog, collection {entry.schema.name}"
    for id_, record in (*entry.records.items(), *entry.past.items()):
        if id_ >= entry.next_segment:
            report(f"{where}: segment {id_} is there, the next one would be {entry.next_segment}")
        if max(record.commit, *(e.commit for e in record.extents)) > _newest(view):
            report(f"{where}: segment {id_} is of commit {record.commit}, which is to be")
    last = max((column.id for column in entry.schema.columns), default=0)
    if last >= entry.next_column:
        report(f"{where}: column id {last} is there, the next one would be {entry.next_column}")
    if entry.id >= view.catalog.next_id:
        report(f"{where}: its id is {entry.id}, the next one would be {view.catalog.next_id}")


# ------------------------------------------------------------------------- segments


def _check_blocks(view: View, record: SegmentRecord, where: str, report: Report) -> bool:
    """Every block of the extents, from the disk; whether all verify."""
    store = view.pages.store
    is_whole = True
    for extent in record.extents:
        try:
            page_size = view.pages.page_size
            opened = Extent(store.file, extent, page_size, store.path, mapped=False)
            for start in range(0, extent.size, SLICE_BYTES):
                view.database.check_interrupted()
                opened.verify(start, min(SLICE_BYTES, extent.size - start))
            opened.verify_all()
        except StatementInterruptedError:
            raise
        except DatabaseError as problem:
            report(f"{where}, segment {record.id}: {problem}")
            is_whole = False
    return is_whole


def _check_past(
    collection: CollectionView, damaged: set[int], report: Report, *, quick: bool
) -> None:
    """Kept segments: as living ones, and every row ended behind the commit that wrote it (H2)."""
    entry, pages = collection.entry, collection.view.pages
    for id_, record in entry.past.items():
        if id_ in damaged:
            continue
        where = f"collection {entry.schema.name}, kept segment {id_}"
        try:
            (segment,) = (each for each in open_past(pages, entry) if each.id == id_)
            _check_rows(collection, segment, record, where, report, quick=quick)
            ends = load_ends(pages, entry, record)
            if int(ends.max()) != record.newest_end:
                report(f"{where}: ended by {ends.max()}, the record says {record.newest_end}")
            if (segment.commits() > ends).any():
                report(f"{where}: a row ended before it was written")
        except StatementInterruptedError:
            raise
        except DatabaseError as problem:
            report(f"{where}: {problem}")


def _check_living(
    collection: CollectionView, segment: Segment, report: Report, quick: bool
) -> None:
    record = collection.entry.records[segment.id]
    where = f"collection {collection.schema.name}, segment {segment.id}"
    if (np.diff(segment.rowids) == 0).any():
        report(f"{where}: a rowid stands there twice")
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
    check = collection.check
    rowids = segment.rowids
    if (np.diff(rowids) < 0).any():
        report(f"{where}: rowids do not ascend")
    if (int(rowids[0]), int(rowids[-1])) != (record.min_rowid, record.max_rowid):
        report(f"{where}: rowids {rowids[0]}..{rowids[-1]}, the record says "
               f"{record.min_rowid}..{record.max_rowid}")  # fmt: skip
    if segment.has("commits", 0) and int(segment.commits().max()) > record.commit:
        report(f"{where}: a row is of commit {segment.commits().max()}, the record says "
               f"{record.commit}")  # fmt: skip
    _check_about(collection, segment, where, report)
    for index, column in enumerate(collection.schema.columns):
        check()
        _check_values(segment, column)
        if column.is_vector:
            for fault in list_faults(segment, column, check, quick=quick):
                report(f"{where}: lists of {column.name}: {fault}")
        if not zones.is_true(segment, column):
            report(f"{where}: the zone map of {column.name} differs from its values")
        if quick:
            continue
        if column.is_vector:
            _check_norms(segment, column, where, report, check)
            continue
        values = segment.values(column, check)
        expected: list[Any] = []
        is_hashed = index in collection.schema.hashed_columns and segment.has("hashes", column.id)
        if is_hashed or index in collection.schema.key_columns:
            expected += hash_parts(column, values, check)
        if column.fulltext is not None:
            if parse_options(column.fulltext).is_lasting:
                text = segment.text(column)
                expected += maintenance.text_parts(column, values, like=text, check=check)
            else:  # another version of the library, or of the program, may cut texts otherwise
                for fault in segment.text(column).faults(check):
                    report(f"{where}: text index of {column.name}: {fault}")
        for part, id_, array in expected:
            if not segment.has(part, id_) or not np.array_equal(segment.array(part, id_), array):
                kind = "text index" if part.startswith(TEXT_PREFIX) else "key hashes"
                report(f"{where}: {kind} of {column.name} ({part}) differ from the rows")


def _check_about(collection: CollectionView, segment: Segment, where: str, report: Report) -> None:
    """What the segment says of itself; those of older builds say nothing."""
    if not segment.has(ABOUT, 0):
        return
    raw = segment.array(ABOUT, 0).tobytes()
    size = FOOTER.unpack_from(raw, len(raw) - FOOTER.size)[0] if len(raw) >= FOOTER.size else 0
    fields = decode_fields(raw[:size])
    said = None if fields is None else (fields.get("id"), fields.get("segment"))
    if said != (collection.entry.id, segment.id):
        report(f"{where}: it describes itself as (collection, segment) {said}, expected "
               f"{(collection.entry.id, segment.id)}")  # fmt: skip


def _check_values(segment: Segment, column: Column) -> None:
    """Parts of the right sizes and with a type's values, which reading them says."""
    segment.nulls(column)
    if column.is_vector:
        segment.matrix(column)
    elif column.type in ("TEXT", "JSON", "BLOB"):
        offsets = segment.array("offsets", column.id)
        size = segment.size_of("blob", column.id)
        ascend = bool((offsets[1:] >= offsets[:-1]).all())
        if len(offsets) != segment.rows + 1 or not ascend or offsets[0] or offsets[-1] != size:
            raise CorruptDatabaseError(f"offsets of {column.name} do not match its {size} bytes")
    else:
        segment.numbers(column)


def _check_norms(
    segment: Segment, column: Column, where: str, report: Report, check: Check
) -> None:
    matrix, norms = segment.matrix(column), segment.per_row("norms", column.id)
    nulls = segment.nulls(column)
    for some in slices(segment.rows, VECTOR_ROWS, check):
        if not np.array_equal(norms_of(matrix[some]), norms[some]):
            report(f"{where}: norms of {column.name} differ from the vectors")
            return
        if not np.isfinite(norms[some]).all():
            report(f"{where}: {column.name} has a vector that is not finite")
            return
        if nulls is not None and matrix[some][nulls[some] != 0].any():
            report(f"{where}: a NULL of {column.name} has numbers")
            return


# ------------------------------------------------------------------------- rows and indexes


def _check_rowids(collection: CollectionView, report: Report) -> None:
    """A rowid is live in at most one part (L2), and was given out."""
    every = joined(list(collection.live_rowids()), collection.check)
    where = f"collection {collection.schema.name}"
    unique, counts = counted_numbers(every, collection.check)
    if len(unique) != len(every):
        report(f"{where}: a rowid is live twice: {_shown(unique[counts > 1].tolist())}")
    following = max(collection.mirror.next_rowid, collection.entry.next_rowid)
    if len(unique) and unique[-1] >= following and following < 2**63 - 1:
        report(f"{where}: rowid {unique[-1]} is there, the next one would be {following}")


def _shown(values: list[Any]) -> str:
    more = ", …" if len(values) > SHOWN else ""
    return ", ".join(map(str, values[:SHOWN])) + more


def _add_values(differing: set[Any], values: list[Any], check: Check) -> int:
    """Add values that are not None to a set; how many there were."""
    present = 0
    for some in slices(len(values), SLICE_VALUES, check):
        own = values[some]
        present += len(own) - own.count(None)
        differing.update(own)
    differing.discard(None)
    return present


def _check_keys(collection: CollectionView, report: Report) -> None:
    for index in collection.schema.key_columns:
        present = 0
        differing: set[Any] = set()
        for part in collection.parts():
            found = part.values(index, None if part.live is None else np.flatnonzero(part.live))
            keys = folded(collection.schema.columns[index].fold, found, collection.check)
            present += _add_values(differing, keys, collection.check)
        if len(differing) != present:
            name = collection.schema.columns[index].name
            report(f"collection {collection.schema.name}: equal keys in {name}")
    for index, column in enumerate(collection.schema.columns):
        if not column.not_null:
            continue
        for part in collection.parts():
            values = watched(part.values(index), collection.check)
            nulls = [i for i, value in enumerate(values) if value is None]
            if nulls and any(part.live is None or part.live[i] for i in nulls):
                report(f"collection {collection.schema.name}: NULL in {column.name}, {part.name}")


def _check_rules(collection: CollectionView, report: Report) -> None:
    """Every live row passes every CHECK, where the query layer is there to say so (RU1)."""
    if not collection.schema.checks or not rules.has_language():
        return
    try:
        rules.check_parts(collection, collection.check)
    except StatementInterruptedError:
        raise
    except DatabaseError as problem:
        report(f"collection {collection.schema.name}: {problem}")


def _check_indexes(view: View, collection: CollectionView, report: Report) -> None:
    """B1: the entries of each B-tree index are those of the live rows."""
    check = collection.check
    for info in collection.schema.indexes:
        if info.kind != "btree":
            continue
        items = BTree(view.pages, info.root)
        found = (VALUED + key if value else key for key, value in items.scan())
        if not _are_same(_expected_keys(collection, info), found, check):
            _tell_difference(info, items, set(_expected_keys(collection, info)), report, check)
        if info.unique:
            _check_unique(collection, info, report)


def _expected_keys(collection: CollectionView, info: IndexInfo) -> Iterator[bytes]:
    """The keys that an index should have, in no order."""
    parts = collection.parts()
    for number, part in enumerate(parts):
        live = part.live
        chosen = np.arange(part.size) if live is None else np.flatnonzero(live)
        for some in slices(len(chosen), SLICE_VALUES, collection.check):
            rowids = part.rowids[chosen[some]].tolist()
            places = [(number, ordinal) for ordinal in chosen[some].tolist()]
            stored = values_at(collection.schema, info, parts, places)
            yield from map(index_key, stored, rowids)


def _tell_difference(
    info: IndexInfo, items: BTree, expected: set[bytes], report: Report, check: Check
) -> None:
    """Report what an index has and should not have, and the other way round."""
    found = {key for key, _ in watched(items.scan(), check)}
    extra, missing = found - expected, expected - found
    if extra or missing:
        which = _shown([_rowid(key) for key in sorted(extra | missing)])
        report(
            f"index {info.name}: {len(extra)} entries without a row, "
            f"{len(missing)} rows without an entry (rowid {which})"
        )
    if any(value for _, value in watched(items.scan(), check)):
        report(f"index {info.name}: an entry has a value")


def _are_same(some: Iterator[bytes], others: Iterator[bytes], check: Check) -> bool:
    """Whether two sets of keys are the same, by 64 bits of each."""
    hashes = [
        np.fromiter(map(xxh3_64_intdigest, watched(keys, check)), np.uint64)
        for keys in (some, others)
    ]
    one, other = [taken(each, number_order(each, check), check) for each in hashes]
    return np.array_equal(one, other)


def _rowid(key: bytes) -> str:
    return str(decode_rowid(key)) if len(key) > 8 else key.hex()


def _check_unique(collection: CollectionView, info: IndexInfo, report: Report) -> None:
    """No two live rows have an equal value under a UNIQUE index."""
    present, check = 0, collection.check
    differing: set[Any] = set()
    folds = collection.schema.folds(info)
    for part in collection.parts():
        live = itertools.repeat(True) if part.live is None else part.live.tolist()
        columns = [part.values(index) for index in collection.schema.positions(info)]
        rows = watched(zip(*columns, strict=True), check)
        keys = [
            None if None in row else folded_value(folds, row)
            for row, there in zip(rows, live, strict=False)
            if there
        ]
        present += _add_values(differing, keys, check)
    if len(differing) != present:
        report(f"index {info.name}: it is UNIQUE, and rows have equal values")
