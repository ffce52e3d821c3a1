"""ALTER: a collection or a column gets another name, columns come and go.

Each is a change of the schema inside the transaction, and no segment is written anew:

    RENAME TO, RENAME COLUMN   names; what lies on disk knows a column by its id (C1)
    ADD COLUMN                 the delta becomes a segment, older segments answer with the default
                               (`index.absent`); FULLTEXT adds an extent of inverted lists to each
    DROP COLUMN                the delta becomes a segment, the parts in segments stay unread until
                               a merge or FORGET writes these anew

Columns that come and go end the past of the collection (S25); names do not.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from m2mdb.index import drift, generated, maintenance, retention, rules
from m2mdb.index.absent import AlteredSegment
from m2mdb.index.ddl import add_text_lists
from m2mdb.index.schema import Check, CollectionSchema, Column, IndexInfo
from m2mdb.index.statistics import statistics_key
from m2mdb.index.values import store_scalar
from m2mdb.pager.errors import IntegrityError, ProgrammingError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from m2mdb.index.catalog import CollectionEntry
    from m2mdb.index.collection import CollectionView
    from m2mdb.index.view import WriteView


def rename_collection(write: WriteView, name: str, new_name: str) -> None:
    """Give a collection another name.

    Raises ProgrammingError: it is taken, the system's, or no name.
    """
    view = write.collection(name)
    taken = write.catalog.by_name.get(new_name.lower())
    if taken is not None and taken.id != view.entry.id:
        raise ProgrammingError(
            f"cannot rename {view.schema.name}: collection {taken.schema.name} already exists"
        )
    if new_name.lower().startswith("m2m_"):
        raise ProgrammingError(f"collection name {new_name}: names with m2m_ are the system's")
    schema = view.schema
    checks = tuple([
        each._replace(text=rules.language().moved(schema, each.text, new_name))
        for each in schema.checks
    ])  # fmt: skip
    _replace(write, view, CollectionSchema(new_name, schema.columns, schema.indexes, checks))


def rename_column(write: WriteView, collection: str, name: str, new_name: str) -> None:
    """Give a column another name; its indexes follow.

    Raises ProgrammingError: no such column, the new name is taken or computed.
    """
    view = write.collection(collection)
    index = view.schema.column(name)
    old = view.schema.columns[index].name
    columns = [copy.copy(column) for column in view.schema.columns]
    columns[index].name = new_name
    indexes = [copy.copy(info) for info in view.schema.indexes]
    for info in indexes:
        names = [new_name if each.lower() == old.lower() else each for each in info.columns]
        info.columns = tuple(names)
    for column in columns:
        generated.renamed(column, old, new_name)
    checks = [_renamed(view.schema, each, old, new_name) for each in view.schema.checks]
    _replace(write, view, _schema(view, columns, indexes, checks))


def _renamed(schema: CollectionSchema, check: Check, old: str, new: str) -> Check:
    """A CHECK after one of the columns got another name."""
    column = new if (check.column or "").lower() == old.lower() else check.column
    return check._replace(text=rules.language().renamed(schema, check.text, old, new),
                          column=column)  # fmt: skip


def add_column(
    write: WriteView, collection: str, column: Column, checks: Sequence[Check] = ()
) -> None:
    """Add a column at the end; rows that are there have its default, or NULL.

    checks  its own, which the rows must pass

    Raises ProgrammingError: the name is taken, a key, a default that is computed. IntegrityError:
    NOT NULL without a default, a CHECK that is false for a row.
    """
    view = write.collection(collection)
    where = f"column {column.name} of {view.schema.name}"
    if column.is_key:
        kind = "PRIMARY KEY" if column.primary_key else "UNIQUE"
        raise ProgrammingError(f"{where}: cannot add a {kind} column")
    if column.default_text is not None:
        raise ProgrammingError(f"{where}: cannot add a column with non-constant default")
    options, column.fulltext = column.fulltext, None
    default = None if column.is_vector else store_scalar(column, column.default, view.schema.name)
    if column.not_null and default is None and view.count():
        raise IntegrityError(
            f"{where}: cannot add a NOT NULL column with default value NULL to rows that are there"
        )
    every = (*view.schema.checks, *checks)
    schema = _schema(view, [*view.schema.columns, column], view.schema.indexes, every)
    generated.settle(write.database, schema, [column])
    maintenance.flush(write, view)
    entry = view.entry.copy()
    column.id = entry.next_column
    column.since = entry.next_segment
    entry.next_column += 1
    entry.schema = schema
    retention.end_past(write, entry)
    reopen(entry)
    write.replace_entry(view, entry, schema_changed=True)
    write.forget_views()
    if options is not None:
        view = write.collection(collection)
        added = view.schema.columns[view.schema.column(column.name)]
        add_text_lists(write, view, added, view.schema.indexes, options)
    if column.generated is not None and not column.is_hidden:
        generated.fill(write, collection, column)
    if checks:
        rules.check_parts(write.collection(collection), write.database.check_interrupted)


def drop_column(write: WriteView, collection: str, name: str) -> None:
    """Take a column away.

    Raises ProgrammingError: a key, the only one, or one that an index is on.
    """
    view = write.collection(collection)
    index = view.schema.column(name)
    column = view.schema.columns[index]
    where = f"cannot drop column {column.name} of {view.schema.name}"
    if column.is_key:
        raise ProgrammingError(f"{where}: {'PRIMARY KEY' if column.primary_key else 'UNIQUE'}")
    generated.check_droppable(view.schema, column.name)
    if len(view.schema.columns) == 1:
        raise ProgrammingError(f"{where}: no other columns exist")
    for info in view.schema.indexes:
        if info.has(column.name):
            if info.origin:
                kind = "PRIMARY KEY" if info.origin == "primary" else "UNIQUE"
                raise ProgrammingError(f"{where}: {kind} ({', '.join(info.columns)})")
            raise ProgrammingError(f"{where}: index {info.name} is on it; DROP INDEX comes first")
    checks = [each for each in view.schema.checks if not _is_of(each, column)]
    for each in checks:
        if index in rules.language().names(view.schema, each.text):
            raise ProgrammingError(f"{where}: CHECK ({each.title}) reads it")
    gone = [other for other in view.schema.columns if generated.goes_with(other, column)]
    columns = [other for other in view.schema.columns if other not in gone]
    schema = _schema(view, columns, view.schema.indexes, checks)
    maintenance.flush(write, view)
    entry = view.entry.copy()
    entry.schema = schema
    retention.end_past(write, entry)
    reopen(entry)
    drift.settle(write, entry)
    for other in gone:
        if entry.statistics.pop(other.id, None) is not None:
            write.catalog_tree().delete(statistics_key(entry.id, other.id))
    write.replace_entry(view, entry, schema_changed=True)
    write.forget_views()


def _is_of(check: Check, column: Column) -> bool:
    """Whether a CHECK stands at this column, and so goes with it."""
    return (check.column or "").lower() == column.name.lower()


def _schema(
    view: CollectionView,
    columns: Sequence[Column],
    indexes: Sequence[IndexInfo],
    checks: Sequence[Check],
) -> CollectionSchema:
    """The collection's schema with other columns; what refuses them refuses the statement."""
    return CollectionSchema(view.schema.name, tuple(columns), tuple(indexes), tuple(checks))


def _replace(write: WriteView, view: CollectionView, schema: CollectionSchema) -> None:
    """Only names have changed."""
    entry = view.entry.copy()
    entry.schema = schema
    reopen(entry)
    write.replace_entry(view, entry, schema_changed=True)
    write.forget_views()


def reopen(entry: CollectionEntry) -> None:
    """Let segments that answer for absent columns be opened under the new schema."""
    entry.opened = entry.past_opened = None
    for id_, segment in list(entry.segments.items()):
        if isinstance(segment, AlteredSegment):
            del entry.segments[id_]
