"""Filling an empty B+tree from sorted items, level by level from the leaves.

Invariants
    TB1 Keys ascend strictly, or nothing reaches the root: InternalError.
    TB2 Every node but the last of its level is full; the last branch has at least two children.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from m2mdb.pager.btree_shape import separator
from m2mdb.pager.errors import InternalError
from m2mdb.pager.page import CELL_SIZE, CHILD_SIZE, ENTRY_SIZE, PAGE_HEADER_SIZE, Branch, Leaf

if TYPE_CHECKING:
    from m2mdb.pager.pages import MutablePages

Entry = tuple[bytes, int]  # the separator before a page, and the page


def load(pages: MutablePages, root: int, cells: Iterable[tuple[bytes, bytes]]) -> None:
    """Fill the empty tree at `root` with cells (key, value or reference)."""
    node = pages.get(root)
    if type(node) is not Leaf or node.keys:
        raise InternalError(f"bulk load into the tree at page {root}, which is not empty")
    entries: list[Entry] = []
    leaf = Leaf([], [], 0)
    previous = b""
    capacity = pages.page_size - PAGE_HEADER_SIZE
    for key, value in cells:
        if key <= previous and (entries or leaf.keys):
            raise InternalError(f"bulk load: key {key!r} after key {previous!r}")
        size = CELL_SIZE + len(key) + len(value)
        if leaf.size + size > capacity and leaf.keys:
            _close_leaf(pages, entries, leaf)
            leaf = Leaf([], [], 0)
            entries.append((separator(previous, key), 0))
        leaf.insert(len(leaf.keys), key, value)
        previous = key
    if not entries:
        pages.put(root, leaf)
        return
    _close_leaf(pages, entries, leaf)
    _build_branches(pages, root, entries)


def _close_leaf(pages: MutablePages, entries: list[Entry], leaf: Leaf) -> None:
    """Give the newest leaf its page; its separator stands at the end of `entries` already."""
    before = entries.pop()[0] if entries else b""
    entries.append((before, pages.allocate()))
    pages.put(entries[-1][1], leaf)


def _build_branches(pages: MutablePages, root: int, entries: list[Entry]) -> None:
    """Put levels of branches over the entries until one branch, the root, holds them all."""
    capacity = pages.page_size - PAGE_HEADER_SIZE
    while True:
        groups = _groups(entries, capacity)
        if len(groups) == 1:
            pages.put(root, _branch(groups[0]))
            return
        entries = []
        for group in groups:
            entries.append((group[0][0], pages.allocate()))
            pages.put(entries[-1][1], _branch(group))


def _groups(entries: list[Entry], capacity: int) -> list[list[Entry]]:
    """The entries in runs that fit a branch each."""
    groups: list[list[Entry]] = []
    size = capacity
    for entry in entries:
        size += ENTRY_SIZE + len(entry[0])
        if size > capacity:
            groups.append([])
            size = CHILD_SIZE
        groups[-1].append(entry)
    if len(groups[-1]) == 1 and len(groups) > 1:
        groups[-1].insert(0, groups[-2].pop())
    return groups


def _branch(group: list[Entry]) -> Branch:
    return Branch([key for key, _ in group[1:]], [number for _, number in group])
