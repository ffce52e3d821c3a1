"""Moving pages of a B+tree: to another place in the file, without another change.

    parent ---> page          parent ------------> copy
                               page (free)

What points at a page is one other page of its tree: a branch at its children, a leaf at the first
overflow page of a value, an overflow page at the next one. Only the root is pointed at from
outside; who moves it tells the tree's owner.

Invariants
    BM1 A walk names each page once, after its parent, whatever the file holds.
    BM2 A move changes the moved page and its parent, and frees the old place as any page is freed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from m2mdb.pager.btree_shape import MAX_DEPTH
from m2mdb.pager.errors import CorruptDatabaseError
from m2mdb.pager.overflow import chain
from m2mdb.pager.page import PAGE_HEADER_SIZE, Branch, Leaf, OverflowPage, OverflowReference

if TYPE_CHECKING:
    from m2mdb.pager.pages import MutablePages, Pages


class TreeWalk:
    """One walk over a tree: its pages with their parents, and how full its leaves are."""

    def __init__(self, pages: Pages, root: int) -> None:
        self.pages = pages
        self.root = root
        self.page_count = 0
        self.leaves = 0
        self.leaf_bytes = 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """(page, parent), the root with parent 0; CorruptDatabaseError where it is damaged."""
        seen: set[int] = set()
        waiting = [(self.root, 0, 1)]
        while waiting:
            number, parent, depth = waiting.pop()
            if number in seen or depth > MAX_DEPTH:
                raise CorruptDatabaseError(f"tree at page {self.root}: page {number} is used twice")
            seen.add(number)
            yield from self._one(number, parent)
            node = self.pages.get(number)
            if type(node) is Branch:
                waiting += [(child, number, depth + 1) for child in reversed(node.children)]

    @property
    def is_sparse(self) -> bool:
        """Whether the leaves hold less than two thirds of what they could."""
        capacity = self.pages.page_size - PAGE_HEADER_SIZE
        return self.leaves > 2 and self.leaf_bytes * 3 < self.leaves * capacity * 2

    def _one(self, number: int, parent: int) -> Iterator[tuple[int, int]]:
        """A page, and the overflow pages of a leaf."""
        node = self.pages.get(number)
        if type(node) not in (Branch, Leaf):
            raise CorruptDatabaseError(
                f"tree at page {self.root}: page {number} is no leaf or branch"
            )
        self.page_count += 1
        yield number, parent
        if type(node) is not Leaf:
            return
        self.leaves += 1
        self.leaf_bytes += node.size
        if not node.has_references:
            return
        for value in node.values:
            if type(value) is OverflowReference:
                before = number
                for piece, _ in list(chain(self.pages, value)):
                    self.page_count += 1
                    yield piece, before
                    before = piece


def move_page(pages: MutablePages, parent: int, old: int, new: int) -> None:
    """Move a page to `new`, which is allocated; `parent` is 0 for a root.

    Raises CorruptDatabaseError where the parent does not point at the page.
    """
    pages.put(new, pages.get(old).copy())
    if parent and not _redirect(pages, parent, old, new):
        raise CorruptDatabaseError(f"page {parent} does not lead to page {old}")
    pages.free(old)


def _redirect(pages: MutablePages, parent: int, old: int, new: int) -> bool:
    node = pages.change(parent)
    if type(node) is Branch:
        if old not in node.children:
            return False
        node.children[node.children.index(old)] = new
        return True
    if type(node) is OverflowPage:
        if node.next != old:
            return False
        node.next = new
        return True
    if type(node) is Leaf:
        for index, value in enumerate(node.values):
            if type(value) is OverflowReference and value.first_page == old:
                node.replace(index, OverflowReference.of(new, value.length))
                return True
    return False
