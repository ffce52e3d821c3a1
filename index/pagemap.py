"""The page map: who owns each page of the file, and what points at it.

    catalog --> trees: root, and each other page with its parent
            --> extents of segments, those that are kept for the past too
    free map --> free runs

It is made by one walk over all trees at a snapshot or in a transaction, for who moves pages
(`index.vacuum`) or copies them.

Invariants
    PM1 A page that the walk did not reach has no owner: it is left where it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from m2mdb.pager.btree_move import TreeWalk

if TYPE_CHECKING:
    from m2mdb.index.catalog import Catalog, CollectionEntry
    from m2mdb.index.collection import Pages
    from m2mdb.index.segment import SegmentRecord
    from m2mdb.pager.extent import ExtentDescriptor

NO_OWNER, FIXED, TREE, ROOT, EXTENT = range(5)  # kinds of pages


class ExtentPlace(NamedTuple):
    """An extent and the segment that it belongs to."""

    collection: int
    segment: int
    descriptor: ExtentDescriptor

    @property
    def end(self) -> int:
        """Its last page."""
        return self.descriptor.start_page + self.descriptor.page_count - 1


class RootPlace(NamedTuple):
    """A tree's root and what names it: `delta`, `deletes`, or an index by its name."""

    collection: int
    what: str


class PageMap:
    """Kinds, parents and owners, by page number."""

    def __init__(self, pages: Pages, catalog: Catalog) -> None:
        """Walk all trees; CorruptDatabaseError where one is damaged."""
        count = pages.page_count + 1
        self.kinds = np.zeros(count, np.uint8)
        self.parents = np.zeros(count, np.uint32)
        self.extents: dict[int, ExtentPlace] = {}  # by start page
        self.roots: dict[int, RootPlace] = {}
        self.sparse: list[int] = []  # roots of trees whose leaves are far from full
        header = pages.header()
        self.kinds[1] = FIXED
        for root in (header.catalog_root, header.free_root):
            self._walk(pages, root)
            self.kinds[root] = FIXED
        for entry in catalog.by_id.values():
            for what, root in roots_of(entry):
                self.roots[root] = RootPlace(entry.id, what)
                self._walk(pages, root)
                self.kinds[root] = ROOT
            for record in records_of(entry):
                for descriptor in record.extents:
                    place = ExtentPlace(entry.id, record.id, descriptor)
                    self.extents[descriptor.start_page] = place
                    self.kinds[descriptor.start_page : place.end + 1] = EXTENT

    def _walk(self, pages: Pages, root: int) -> None:
        walk = TreeWalk(pages, root)
        for number, parent in walk:
            self.kinds[number] = TREE
            self.parents[number] = parent
        if walk.is_sparse:
            self.sparse.append(root)

    def extent_at(self, page_number: int) -> ExtentPlace | None:
        """The extent that begins at a page."""
        return self.extents.get(page_number)

    def tree_pages_above(self, boundary: int) -> list[int]:
        """Movable tree pages behind a boundary, descending."""
        found = np.flatnonzero(
            (self.kinds[boundary + 1 :] == TREE) | (self.kinds[boundary + 1 :] == ROOT)
        )
        pages: list[int] = (found[::-1] + boundary + 1).tolist()
        return pages


def roots_of(entry: CollectionEntry) -> Iterator[tuple[str, int]]:
    """The trees of a collection: what they are, and their roots."""
    yield "delta", entry.delta_root
    yield "deletes", entry.deletes_root
    for info in entry.schema.indexes:
        if info.kind == "btree":
            yield f"index {info.name}", info.root


def records_of(entry: CollectionEntry) -> list[SegmentRecord]:
    """The segments of a collection, those that are kept for the past behind the others."""
    return [*entry.records.values(), *entry.past.values()]
