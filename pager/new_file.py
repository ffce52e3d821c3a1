"""A new file: pages and extents written one behind the other, page 1 last.

    | page 1 | catalog | free map | trees and extents, in the order in which they come |
       ^ written last, when all others are durable

It takes what a transaction takes (`MutablePages`, `write_extent`), so that whoever copies a
database need not know which of the two it writes to. Nothing of it is in a log: until page 1 is
there the file is no database, and it refuses to be opened as one.

Invariants
    NF1 Page 1 is written after all others are synced (S4).
    NF2 A page is written once, but for roots, which are empty until their tree is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from m2mdb.pager.errors import InternalError
from m2mdb.pager.extent import ExtentDescriptor, extent_page_count
from m2mdb.pager.extent_writer import Settler, write_extent
from m2mdb.pager.header import CATALOG_ROOT, FREE_ROOT
from m2mdb.pager.page import Leaf

if TYPE_CHECKING:
    from m2mdb.pager.extent_writer import Part
    from m2mdb.pager.header import Header
    from m2mdb.pager.pages import Node
    from m2mdb.pager.vfs import File


class NewFile:
    """The pages of a file that is being written; there is nothing to free or to change in it."""

    def __init__(self, file: File, page_size: int, commit: int) -> None:
        """An empty file; `commit` is the one that its extents are of."""
        self.page_size = page_size
        self.new_commit = commit
        self.page_count = FREE_ROOT
        self._file = file
        self._settler = Settler(file.sync)
        self._empty: dict[int, Node] = {}  # roots that are not loaded yet
        for root in (CATALOG_ROOT, FREE_ROOT):
            self.put(root, Leaf([], [], 0))

    def get(self, page_number: int) -> Node:
        """An empty root; whatever else was written is not read again."""
        found = self._empty.get(page_number)
        if found is None:
            raise InternalError(f"page {page_number} of {self._file.path} is written already")
        return found

    def change(self, page_number: int) -> Node:
        """Never: pages are put whole."""
        raise InternalError(f"page {page_number} of {self._file.path} is changed")

    def put(self, page_number: int, node: Node) -> None:
        """Write a page."""
        self._empty.pop(page_number, None)
        if type(node) is Leaf and not node.keys:
            self._empty[page_number] = node
        raw = node.encode(page_number, self.page_size)
        self._file.write_at((page_number - 1) * self.page_size, raw)
        self._settler.wrote(len(raw))

    def allocate(self) -> int:
        """The next page."""
        self.page_count += 1
        return self.page_count

    def free(self, page_number: int) -> None:
        """Never: nothing is written that is not needed."""
        raise InternalError(f"page {page_number} of {self._file.path} is freed")

    def write_extent(self, parts: Iterable[Part], size: int) -> ExtentDescriptor:
        """Write an extent on the next pages."""
        start = self.page_count + 1
        self.page_count += extent_page_count(size, self.page_size)
        settled = self._settler.parts(parts)
        return write_extent(self._file, self.page_size, start, self.new_commit, size, settled)

    def finish(self, header: Header) -> None:
        """Make it a database with this header, durably (NF1)."""
        header.page_count = self.page_count
        header.catalog_root, header.free_root = CATALOG_ROOT, FREE_ROOT
        self._file.sync()
        self._file.write_at(0, header.encode(1, self.page_size))
        self._file.sync()
