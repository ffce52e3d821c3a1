"""REINDEX: the indexes of a collection written anew from its rows alone.

    B-tree indexes      a new tree from the live rows
    FULLTEXT, bm25      new inverted lists for each segment, in an extent of their own
    hrm2                the lists go and are trained again
    keys                the sorted hashes of a segment belong to its rows; OPTIMIZE writes both anew

Everything happens in one transaction; what an index answers is the same afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m2mdb.index import clustering, ddl
from m2mdb.index.list_counts import KIND
from m2mdb.index.schema import hinted
from m2mdb.index.segment import TEXT_PREFIX, Segment
from m2mdb.pager.errors import ProgrammingError

if TYPE_CHECKING:
    from m2mdb.index.schema import IndexInfo
    from m2mdb.index.view import WriteView
    from m2mdb.pager.extent import Extent


def reindex(write: WriteView, name: str | None) -> None:
    """Write indexes anew: all, those of a collection, or the one of this name.

    Raises ProgrammingError: there is neither a collection nor an index of this name.
    """
    if name is None:
        for each in write.names():
            _collection(write, each)
        return
    if name.lower() in write.catalog.by_name:
        _collection(write, name)
        return
    owner = write.catalog.index_owner(name)
    if owner is None:
        known = (*write.names(), *ddl.index_names(write))
        raise ProgrammingError(hinted(f"no such collection or index: {name}", name, known))
    info = owner.schema.index(name)
    assert info is not None
    _index(write, owner.schema.name, info)


def _collection(write: WriteView, name: str) -> None:
    schema = write.collection(name).schema
    for info in schema.indexes:
        _index(write, schema.name, info)
    declared = {info.column.lower() for info in schema.indexes if info.kind == "bm25"}
    for at in schema.text_columns:
        if schema.columns[at].name.lower() not in declared:
            _texts(write, schema.name, schema.columns[at].name)


def _index(write: WriteView, name: str, info: IndexInfo) -> None:
    write.database.check_interrupted()
    if info.kind == "bm25":
        _texts(write, name, info.column)
    elif info.kind == KIND:
        _lists(write, name, info)
    else:
        _tree(write, name, info)


def _tree(write: WriteView, name: str, info: IndexInfo) -> None:
    """Another tree in the place of the old one; the schema names its root."""
    options = dict(info.options)
    ddl.drop_index(write, info.name, whatever=True)
    ddl.create_index(write, name, info.unbuilt(), options)


def _lists(write: WriteView, name: str, info: IndexInfo) -> None:
    """Lists of vectors, trained again where they were."""
    view = write.collection(name)
    index = view.schema.column(info.column)
    entry = view.entry.copy()
    dropped = clustering.drop_lists(write, view, entry, index)
    write.replace_entry(view, entry, dropped)
    write.forget_views()
    view = write.collection(name)
    entry = view.entry.copy()
    wanted = [found for found in clustering.without_lists(view) if found[1] == index]
    write.replace_entry(view, entry, clustering.list_segments(write, view, entry, wanted))
    write.forget_views()


def _texts(write: WriteView, name: str, column_name: str) -> None:
    """Inverted lists anew; those of an earlier extent that holds nothing else are freed."""
    view = write.collection(name)
    column = view.schema.columns[view.schema.column(column_name)]
    assert column.fulltext is not None
    entry = view.entry.copy()
    changed = []
    for segment in view.segments:
        record = entry.records[segment.id].copy()
        alone = [extent for extent in segment.extents if _is_text_alone(segment, extent, column.id)]
        if not alone:
            continue
        for extent in alone:
            write.transaction.free_extent(extent.descriptor)
        freed = {extent.descriptor.start_page for extent in alone}
        record.extents = tuple(e for e in record.extents if e.start_page not in freed)
        entry.records[segment.id] = record
        entry.segments.pop(segment.id, None)
        changed.append(record)
    entry.opened = None
    write.replace_entry(view, entry, changed)
    write.forget_views()
    view = write.collection(name)
    ddl.add_text_lists(write, view, column, view.schema.indexes, dict(column.fulltext))


def _is_text_alone(segment: Segment, extent: Extent, column: int) -> bool:
    """Whether an extent holds the inverted lists of a column and nothing of the rows."""
    parts = segment.parts_of(extent)
    return bool(parts) and all(
        name.startswith(TEXT_PREFIX) and id_ == column for name, id_ in parts if name != "about"
    )
