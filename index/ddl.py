"""Schema changes: collections and indexes come and go, inside the transaction like all else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from m2mdb.index import clustering, generated, maintenance, retention, secondary
from m2mdb.index.catalog import CollectionEntry, remove_entry
from m2mdb.index.description import describe_segment, put_description
from m2mdb.index.list_counts import KIND, wanted_lists
from m2mdb.index.schema import (
    MAX_KEY_COLUMNS,
    CollectionSchema,
    Column,
    IndexInfo,
    check_name,
    hinted,
)
from m2mdb.index.segment import NamedPart, SegmentRecord, lay_out
from m2mdb.index.slices import (
    SLICE_VALUES,
    Check,
    distinct_values,
    handed_over,
    mapped,
    pieces,
    slices,
)
from m2mdb.pager.btree import BTree
from m2mdb.pager.errors import IntegrityError, ProgrammingError

if TYPE_CHECKING:
    from m2mdb.index.collection import CollectionView
    from m2mdb.index.view import WriteView

INDEX_KINDS = ("btree", "bm25", "hrm2")


def create_collection(write: WriteView, schema: CollectionSchema, next_rowid: int = 1) -> None:
    """Write a new, empty collection to the catalog."""
    if schema.name.lower() in write.catalog.by_name:
        raise ProgrammingError(f"collection {schema.name} already exists")
    if schema.name.lower().startswith("m2m_"):
        raise ProgrammingError(f"collection name {schema.name}: names with m2m_ are the system's")
    for column in schema.columns:
        if column.fulltext is not None:
            check_text_options(write, column.fulltext)
    generated.settle(write.database, schema, schema.columns)
    entry = CollectionEntry(write.catalog.next_id, schema)
    for number, column in enumerate(schema.columns, 1):
        column.id, column.since = number, 0
    entry.next_column = len(schema.columns) + 1
    entry.next_rowid = next_rowid
    entry.delta_root = BTree.create(write.transaction)
    entry.deletes_root = BTree.create(write.transaction)
    from m2mdb.index.catalog import put_entry

    put_entry(write.catalog_tree(), entry, described=True)
    retention.end_past(write, entry)
    put_description(write.transaction, entry)
    write.set_catalog(write.catalog.replaced(entry, schema_changed=True))


def check_text_options(write: WriteView, options: dict[str, Any]) -> None:
    """Refuse options of FULLTEXT that are unknown, or name what is not there."""
    from m2mdb.index.text.options import parse_options

    parse_options(options).analyzer(write.database.tokenizers)


def drop_collection(write: WriteView, name: str) -> None:
    """Free everything that a collection holds."""
    view = write.collection(name)
    entry, check = view.entry, write.database.check_interrupted
    for record in (*entry.records.values(), *entry.past.values()):
        for descriptor in record.extents:
            write.transaction.free_extent(descriptor)
    for root in (entry.delta_root, entry.deletes_root):
        BTree(write.transaction, root).destroy(check)
    for info in entry.schema.indexes:
        if info.kind == "btree":
            BTree(write.transaction, info.root).destroy(check)
    remove_entry(write.catalog_tree(), entry)
    write.set_catalog(write.catalog.replaced(None, removed=entry.id, schema_changed=True))
    write.forget_views()


def create_index(
    write: WriteView, collection: str, info: IndexInfo, options: dict[str, Any]
) -> None:
    """Build an index over the rows that are there."""
    check_name(info.name)
    view = write.collection(collection)
    columns = [view.schema.columns[index] for index in view.schema.positions(info)]
    column = columns[0]
    if write.catalog.index_owner(info.name) is not None:
        raise ProgrammingError(f"index {info.name} already exists")
    if column.is_hidden:
        raise ProgrammingError(
            f"index {info.name}: column {column.name} waits for the end of a REEMBED; "
            "an index on the column that it replaces stays with the name"
        )
    if info.kind not in INDEX_KINDS:
        raise ProgrammingError(
            f"index {info.name}: no such kind {info.kind}; known are {', '.join(INDEX_KINDS)}"
        )
    info.columns = tuple([each.name for each in columns])
    _check_columns(info)
    if info.kind == "bm25":
        _add_text_index(write, view, column, info, options)
        return
    if info.kind == KIND:
        info.options = clustering.checked_options(info.name, options)
    elif options:
        raise ProgrammingError(f"index {info.name}: {info.kind} takes no options")
    if info.kind == KIND:
        _add_lists(write, view, column, info)
    else:
        _add_btree(write, view, columns, info)


def _check_columns(info: IndexInfo) -> None:
    """Refuse what no index can have several of, too many, or one twice."""
    count = len(info.columns)
    if count > 1 and info.kind != "btree":
        raise ProgrammingError(
            f"index {info.name}: {info.kind} is over one column, not {count}; only btree takes more"
        )
    if count > MAX_KEY_COLUMNS:
        raise ProgrammingError(
            f"index {info.name} has {count} columns; the limit is {MAX_KEY_COLUMNS}"
        )
    for at, name in enumerate(info.columns):
        if name in info.columns[:at]:
            raise ProgrammingError(f"index {info.name}: column {name} stands twice")


def create_key(write: WriteView, collection: str, columns: Sequence[str], origin: str) -> None:
    """The B-tree index of a PRIMARY KEY or UNIQUE over several columns.

    origin  "primary" or "unique"
    """
    number = 1
    id_ = write.collection(collection).entry.id
    while write.catalog.index_owner(f"m2m_autoindex_{id_}_{number}") is not None:
        number += 1
    name = f"m2m_autoindex_{id_}_{number}"
    create_index(write, collection, IndexInfo(name, *columns, unique=True, origin=origin), {})


def _with_index(
    view: CollectionView, indexes: tuple[IndexInfo, ...], fulltext: dict[str, Any] | None = None
) -> CollectionEntry:
    """A copy of the entry whose schema has other indexes; columns are kept."""
    entry = view.entry.copy()
    columns = tuple(Column.decode(column.encode()) for column in view.schema.columns)
    for column in columns:
        if fulltext is not None and column.name in fulltext:
            column.fulltext = fulltext[column.name]
    entry.schema = CollectionSchema(view.schema.name, columns, indexes, view.schema.checks)
    return entry


def _add_btree(
    write: WriteView, view: CollectionView, columns: Sequence[Column], info: IndexInfo
) -> None:
    for column in columns:
        if column.is_vector:
            raise ProgrammingError(f"index {info.name}: a vector column cannot have a btree index")
    values: list[Any] = []
    rowids: list[int] = []
    parts = view.parts()
    for number, part in enumerate(parts):
        live = part.live
        chosen = np.arange(part.size) if live is None else np.flatnonzero(live)
        for some in slices(len(chosen), SLICE_VALUES, view.check):
            places = [(number, ordinal) for ordinal in chosen[some].tolist()]
            values.extend(secondary.values_at(view.schema, info, parts, places))
        rowids.extend(part.rowids[chosen].tolist())
    if info.unique and _has_equal(values, view.check):
        names = ", ".join(f"{view.schema.name}.{column.name}" for column in columns)
        verb = "has" if len(columns) == 1 else "have"
        raise IntegrityError(
            f"UNIQUE constraint failed: {names} {verb} equal values, "
            f"so the unique index {info.name} cannot be created"
        )
    info.root = BTree.create(write.transaction)
    pairs = handed_over(values, rowids)  # the fewer are left, the less the garbage collector sees
    check = write.database.check_interrupted
    secondary.add_entries(write.transaction, info, pairs, empty=True, check=check)
    entry = _with_index(view, (*view.schema.indexes, info))
    write.replace_entry(view, entry, schema_changed=True)
    write.forget_views()


def _has_equal(values: list[Any], check: Check) -> bool:
    """Whether some values are equal as UNIQUE compares them."""
    compared = mapped(values, secondary.compared, check)
    differing = distinct_values(compared, check)
    return len(differing) + max(0, compared.count(None) - 1) != len(compared)


def _add_text_index(
    write: WriteView,
    view: CollectionView,
    column: Column,
    info: IndexInfo,
    options: dict[str, Any],
) -> None:
    """FULLTEXT for a column that had none."""
    if column.fulltext is not None:
        raise ProgrammingError(f"column {column.name} of {view.schema.name} has a text index")
    add_text_lists(write, view, column, (*view.schema.indexes, info), options)


def add_text_lists(
    write: WriteView,
    view: CollectionView,
    column: Column,
    indexes: tuple[IndexInfo, ...],
    options: dict[str, Any],
) -> None:
    """Inverted lists for a column that has none: a further extent for every segment.

    indexes  of the collection's schema from now on
    """
    check_text_options(write, options)
    changed = {column.name: options}
    entry = _with_index(view, indexes, changed)
    retention.end_past(write, entry)
    records = []
    check = write.database.check_interrupted
    for segment in view.segments:
        parts: list[NamedPart] = maintenance.text_parts(
            entry.schema.columns[entry.schema.column(column.name)],
            segment.values(column, check),
            write.database.tokenizers,
            check=check,
        )
        record = entry.records[segment.id].copy()
        description = describe_segment(entry, segment.id, record.commit)
        buffers, size = lay_out(segment.rows, parts, description)
        written = write.transaction.write_extent(pieces(buffers, check), size)
        record.extents = (*record.extents, written)
        entry.records[segment.id] = record
        entry.segments.pop(segment.id, None)
        records.append(record)
    entry.opened = None
    write.replace_entry(view, entry, records, schema_changed=True)
    write.forget_views()


def _add_lists(write: WriteView, view: CollectionView, column: Column, info: IndexInfo) -> None:
    """Lists of a VECTOR column for every segment that is large enough and has none.

    Those that are there go where the index says how many there should be.
    """
    if not column.is_vector:
        raise ProgrammingError(
            f"index {info.name}: hrm2 indexes a VECTOR column, {column.name} is {column.type}"
        )
    index = view.schema.column(column.name)
    if index in clustering.declared_columns(view.schema):
        raise ProgrammingError(
            f"column {column.name} of {view.schema.name} has an hrm2 index already"
        )
    entry = _with_index(view, (*view.schema.indexes, info))
    wanted = [found for found in clustering.without_lists(view) if found[1] == index]
    if wanted_lists(entry.schema, index) is not None:
        wanted += clustering.lists_of_column(view, index)
    records = clustering.list_segments(write, view, entry, wanted)
    write.replace_entry(view, entry, records, schema_changed=True)
    write.forget_views()


def index_names(write: WriteView) -> list[str]:
    """The names of all indexes."""
    return [info.name for entry in write.catalog.by_id.values() for info in entry.schema.indexes]


def drop_index(write: WriteView, name: str, *, whatever: bool = False) -> None:
    """Remove an index; the inverted lists of a text index go with the next rewrite.

    whatever  also one that upholds a constraint, which is about to be built anew
    """
    owner = write.catalog.index_owner(name)
    if owner is None:
        raise ProgrammingError(hinted(f"no such index: {name}", name, index_names(write)))
    view = write.collection(owner.schema.name)
    info = view.schema.index(name)
    assert info is not None
    if info.origin and not whatever:
        raise ProgrammingError(
            f"index {info.name}, associated with a UNIQUE or PRIMARY KEY constraint of "
            f"{view.schema.name}, cannot be dropped"
        )
    left = tuple(index for index in view.schema.indexes if index is not info)
    records: list[SegmentRecord] = []
    if info.kind == "btree":
        BTree(write.transaction, info.root).destroy(write.database.check_interrupted)
        entry = _with_index(view, left)
    elif info.kind == KIND:
        entry = _with_index(view, left)
        records = clustering.drop_lists(write, view, entry, view.schema.column(info.column))
    else:
        entry = _with_index(view, left, {info.column: None})
        retention.end_past(write, entry)
    write.replace_entry(view, entry, records, schema_changed=True)
    write.forget_views()
