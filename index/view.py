"""Views: the whole database at one snapshot, and inside one writing statement.

A `View` reads; a `WriteView` belongs to an open transaction and adds what writes. Both hand out
collections by name. Views of equal commits are equal, so the database keeps the last one and gives
it new pages instead of building it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from m2mdb.index import ddl
from m2mdb.index.catalog import Catalog, CollectionEntry, put_entry, put_segment, segment_key
from m2mdb.index.collection import CollectionView, open_segments
from m2mdb.index.delta import DeltaMirror
from m2mdb.index.description import put_description
from m2mdb.index.limits import check_catalog
from m2mdb.index.schema import Check, CollectionSchema, Column, IndexInfo
from m2mdb.index.segment import SegmentRecord
from m2mdb.index.writer import CollectionWriter
from m2mdb.pager.btree import BTree
from m2mdb.pager.errors import ProgrammingError

if TYPE_CHECKING:
    from m2mdb.index.database import Database
    from m2mdb.index.past import PastView
    from m2mdb.pager.header import Header
    from m2mdb.wal.snapshot import Snapshot
    from m2mdb.wal.transaction import Transaction


class View:
    """All collections at one commit."""

    __slots__ = ("_collections", "_past", "catalog", "commit", "database", "pages")

    def __init__(self, database: Database, pages: Snapshot | Transaction, catalog: Catalog) -> None:
        self.database = database
        self.pages = pages
        self.catalog = catalog
        self.commit = pages.commit
        self._collections: dict[str, CollectionView] = {}
        self._past: dict[str, PastView] | None = None  # the last one of each collection

    @property
    def schema_number(self) -> int:
        """Grows whenever a schema changes; plans made under another number are void."""
        return self.catalog.schema_number

    def header(self) -> Header:
        """The header page as of this snapshot."""
        return self.pages.header()

    def names(self) -> list[str]:
        """The collections in the order of their creation."""
        return [self.catalog.by_id[id_].schema.name for id_ in sorted(self.catalog.by_id)]

    def collection(self, name: str) -> CollectionView:
        """A collection by its name; ProgrammingError where there is none."""
        found = self._collections.get(name)
        if found is None:
            entry = self.catalog.entry(name)
            mirror, end = self.database.mirror_for(entry, self)
            found = CollectionView(self, entry, mirror, end, open_segments(self.pages, entry))
            self._collections[name] = found
        return found

    def collection_as_of(self, name: str, commit: Any) -> PastView:
        """A collection as it stood right after a commit; errors as `index.past` raises them."""
        from m2mdb.index.past import check_reach, commit_number, past_view

        number = commit_number(commit)
        known = (self._past or {}).get(name)
        if known is not None and known.as_of == number:
            check_reach(self, known, number)
            return known
        found = past_view(self, name, number)
        self._past = {**(self._past or {}), name: found}
        return found

    def oldest_commit(self, name: str | None = None) -> int:
        """The oldest commit that AS OF can name, of one collection or as `keep_commits` goes."""
        from m2mdb.index.past import newest_commit

        entry = None if name is None else self.catalog.entry(name)
        return self.catalog.oldest_commit(entry, newest_commit(self))


class WriteView(View):
    """A statement that writes; everything it does is undone together."""

    __slots__ = ("transaction",)

    def __init__(self, database: Database, transaction: Transaction, catalog: Catalog) -> None:
        super().__init__(database, transaction, catalog)
        self.transaction = transaction

    def collection_as_of(self, name: str, commit: Any) -> PastView:
        """Raises ProgrammingError: a statement that writes reads the present."""
        raise ProgrammingError(
            f"{name} AS OF {commit}: a statement that writes cannot read the past; read first"
        )

    def set_keep_commits(self, count: int) -> None:
        """Keep the row versions that end within the next `count` commits."""
        from m2mdb.index.retention import set_keep_commits

        set_keep_commits(self, count)

    # --------------------------------------------------------------- rows

    def insert(
        self, name: str, columns: dict[str, Any], count: int, on_conflict: str = "error"
    ) -> np.ndarray:
        """Add rows given as columns; returns their rowids, -1 where a row was ignored.

        on_conflict  "error" (IntegrityError), "ignore" or "replace"
        """
        if not count:
            self.collection(name)
            return np.empty(0, np.int64)
        return CollectionWriter(self, name).insert(columns, count, on_conflict)

    def check_rows(self, name: str, columns: dict[str, Any], count: int) -> None:
        """Raise IntegrityError where a CHECK is false for rows, whether they will be written."""
        CollectionWriter(self, name).check(columns, count)

    def update(self, name: str, rowids: Sequence[int], values: dict[str, Any]) -> int:
        """Give rows new values, one per rowid in each changed column."""
        return CollectionWriter(self, name).update(rowids, values)

    def delete(self, name: str, rowids: Sequence[int]) -> int:
        """End rows; returns how many there were."""
        return CollectionWriter(self, name).delete(rowids)

    def forget(self, name: str, rowids: Sequence[int]) -> int:
        """Forget rows with every trace of them; returns the receipt's number (S26)."""
        from m2mdb.index.forgetting import forget

        return forget(self, name, rowids)

    # --------------------------------------------------------------- schema

    def create_collection(self, schema: CollectionSchema, next_rowid: int = 1) -> None:
        """A new collection; ProgrammingError where the name is taken.

        next_rowid  the first rowid that is given out; those before it were another file's
        """
        ddl.create_collection(self, schema, next_rowid)

    def drop_collection(self, name: str) -> None:
        """Remove a collection with its rows and indexes."""
        ddl.drop_collection(self, name)

    def create_index(
        self, collection: str, info: IndexInfo, options: dict[str, Any] | None = None
    ) -> None:
        """Index a column: kind "btree" or "bm25"; ProgrammingError, IntegrityError (UNIQUE)."""
        ddl.create_index(self, collection, info, options or {})

    def create_key(self, collection: str, columns: Sequence[str], origin: str) -> None:
        """PRIMARY KEY (`origin` "primary") or UNIQUE ("unique") over several columns."""
        ddl.create_key(self, collection, columns, origin)

    def drop_index(self, name: str) -> None:
        """Remove an index; ProgrammingError where there is none of this name."""
        ddl.drop_index(self, name)

    def rename_collection(self, name: str, new_name: str) -> None:
        """ALTER … RENAME TO; ProgrammingError where the name is taken."""
        from m2mdb.index import alter

        alter.rename_collection(self, name, new_name)

    def rename_column(self, collection: str, name: str, new_name: str) -> None:
        """ALTER … RENAME COLUMN; ProgrammingError where the name is taken."""
        from m2mdb.index import alter

        alter.rename_column(self, collection, name, new_name)

    def add_column(self, collection: str, column: Column, checks: Sequence[Check] = ()) -> None:
        """ALTER … ADD COLUMN; ProgrammingError for a key, IntegrityError for NOT NULL alone."""
        from m2mdb.index import alter

        alter.add_column(self, collection, column, checks)

    def drop_column(self, collection: str, name: str) -> None:
        """ALTER … DROP COLUMN; ProgrammingError for a key, or one with an index."""
        from m2mdb.index import alter

        alter.drop_column(self, collection, name)

    def analyze(self, name: str) -> None:
        """Count a collection's columns for the planner."""
        from m2mdb.index.statistics import analyze

        analyze(self, name)

    def reindex(self, name: str | None) -> None:
        """Write indexes anew: all, a collection's, or one; ProgrammingError: no such name."""
        from m2mdb.index.reindex import reindex

        reindex(self, name)

    # --------------------------------------------------------------- for the writers

    def catalog_tree(self) -> BTree:
        """The catalog's tree inside this transaction."""
        return BTree(self.transaction, self.transaction.header().catalog_root)

    def own_mirror(self, view: CollectionView) -> DeltaMirror:
        """The mirror of a collection, now this transaction's until it commits (X2)."""
        view.mirror.owner = self.transaction
        return view.mirror

    def replace_entry(
        self,
        view: CollectionView,
        entry: CollectionEntry,
        records: Sequence[SegmentRecord] = (),
        *,
        schema_changed: bool = False,
    ) -> None:
        """Write a changed entry and make it the one that this transaction sees (A1, A2)."""
        tree = self.catalog_tree()
        put_entry(tree, entry, described=schema_changed)
        if schema_changed:
            put_description(self.transaction, entry)
        for record in records:
            put_segment(tree, entry.id, record)
        self.set_catalog(self.catalog.replaced(entry, schema_changed=schema_changed))
        mirror = view.mirror
        fresh = mirror.base != entry.base_sequence or mirror.schema is not entry.schema
        if fresh:
            mirror = self.database.new_mirror(entry, self.transaction)
            mirror.read(BTree(self.transaction, entry.delta_root), entry.schema.name)
        view.replace(entry, mirror, mirror.end)

    def forget_segment(self, entry: CollectionEntry, segment: int) -> None:
        """Remove a segment's record from the catalog's tree."""
        self.catalog_tree().delete(segment_key(entry.id, segment))

    def set_catalog(self, catalog: Catalog) -> None:
        """Make a catalog the transaction's, and raise the header's numbers (A2)."""
        if catalog.schema_number != self.catalog.schema_number:
            check_catalog(catalog, self.database.store.options.limits)
        header = self.transaction.change_header()
        header.catalog_number = catalog.number
        header.schema_number = catalog.schema_number
        self.catalog = catalog
        self.database.set_transaction_catalog(catalog)

    def forget_views(self) -> None:
        """Build the collections' views again when they are asked for next."""
        self._past = None
        self._collections.clear()
