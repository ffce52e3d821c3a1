"""Walking a whole B+tree: which pages it has, and whether it is sound.

Invariants
    TW1 A walk visits a page once, whatever the file holds, so it ends.
    TW2 A check reports faults and goes on; it raises nothing that the file caused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from m2mdb.pager.btree_shape import MAX_DEPTH
from m2mdb.pager.errors import CorruptDatabaseError
from m2mdb.pager.overflow import chain
from m2mdb.pager.page import Branch, Leaf, OverflowReference

if TYPE_CHECKING:
    from m2mdb.pager.pages import Pages

Report = Callable[[str], None]


def tree_pages(pages: Pages, root: int) -> Iterator[int]:
    """The numbers of all pages of a tree; raises CorruptDatabaseError where it is damaged."""
    seen: set[int] = set()
    pieces: set[int] = set()
    waiting = [(root, 1)]
    while waiting:
        number, depth = waiting.pop()
        node = pages.get(number)
        if number in seen or depth > MAX_DEPTH:
            raise CorruptDatabaseError(f"tree at page {root}: page {number} is used twice")
        seen.add(number)
        yield number
        if type(node) is Branch:
            waiting += [(child, depth + 1) for child in reversed(node.children)]
        elif type(node) is Leaf:
            yield from _chain_pages(pages, node, pieces)
        else:
            raise CorruptDatabaseError(f"tree at page {root}: page {number} is no leaf or branch")


def _chain_pages(pages: Pages, leaf: Leaf, seen: set[int]) -> Iterator[int]:
    if leaf.has_references:
        for value in leaf.values:
            if type(value) is OverflowReference:
                yield from [number for number, _ in chain(pages, value, seen)]


def check_tree(pages: Pages, root: int, report: Report, seen: set[int]) -> int:
    """Report every fault of a tree; returns the number of items found."""
    walk = _Check(pages, root, report, seen)
    walk.visit(root, None, None, 1)
    return walk.items


class _Check:
    """One check of one tree."""

    def __init__(self, pages: Pages, root: int, report: Report, seen: set[int]) -> None:
        self.pages = pages
        self.root = root
        self.report = report
        self.seen = seen
        self.items = 0
        self.leaf_depth = 0

    def fault(self, number: int, kind: str, reason: str) -> None:
        self.report(f"page {number} ({kind} of the tree at page {self.root}): {reason}")

    def visit(self, number: int, low: bytes | None, high: bytes | None, depth: int) -> None:
        """Check a page and all below it; its keys are to lie in low <= key < high."""
        if number in self.seen:
            self.fault(number, "page", "it is used twice")
            return
        self.seen.add(number)
        try:
            node = self.pages.get(number)
        except CorruptDatabaseError as error:
            self.fault(number, "page", str(error))
            return
        if type(node) is Leaf:
            self.check_keys(number, "leaf", node.keys, low, high)
            self.check_leaf(number, node, depth)
        elif type(node) is Branch and depth < MAX_DEPTH:
            self.check_keys(number, "branch", node.keys, low, high)
            self.check_branch(number, node)
            bounds = [low, *node.keys, high]
            for index, child in enumerate(node.children):
                self.visit(child, bounds[index], bounds[index + 1], depth + 1)
        else:
            self.fault(number, "page", f"it is no leaf and no branch, at depth {depth}")

    def check_keys(
        self, number: int, kind: str, keys: list[bytes], low: bytes | None, high: bytes | None
    ) -> None:
        """T2: order, and the parent's separators."""
        for left, right in pairwise(keys):
            if left >= right:
                self.fault(number, kind, f"key {_shown(right)} follows key {_shown(left)}")
        if keys and low is not None and keys[0] < low:
            self.fault(number, kind, f"key {_shown(keys[0])} is below separator {_shown(low)}")
        if keys and high is not None and keys[-1] >= high:
            self.fault(number, kind, f"key {_shown(keys[-1])} is not below {_shown(high)}")

    def check_leaf(self, number: int, leaf: Leaf, depth: int) -> None:
        """T1, T3, counts and sizes, and the overflow chains."""
        if depth != (self.leaf_depth or depth):
            self.fault(number, "leaf", f"depth {depth}, expected {self.leaf_depth}")
        self.leaf_depth = self.leaf_depth or depth
        self.items += len(leaf.keys)
        if not leaf.keys and number != self.root:
            self.fault(number, "leaf", "it is empty")
        if len(leaf.values) != len(leaf.keys):
            self.fault(number, "leaf", f"{len(leaf.keys)} keys, {len(leaf.values)} values")
        expected = Leaf(leaf.keys, leaf.values)
        if leaf.size != expected.size or leaf.has_references < expected.has_references:
            self.fault(number, "leaf", f"size {leaf.size}, expected {expected.size}")
        for value in leaf.values:
            if type(value) is OverflowReference:
                self.check_chain(number, value)

    def check_branch(self, number: int, branch: Branch) -> None:
        """Counts and sizes."""
        if len(branch.children) != len(branch.keys) + 1:
            count = len(branch.children)
            self.fault(number, "branch", f"{len(branch.keys)} keys, {count} children")
        expected = Branch(branch.keys, branch.children).size
        if branch.size != expected:
            self.fault(number, "branch", f"size {branch.size}, expected {expected}")

    def check_chain(self, number: int, reference: OverflowReference) -> None:
        """The chain's own structure, and that no page of it is used elsewhere."""
        try:
            for piece_number, _ in chain(self.pages, reference):
                if piece_number in self.seen:
                    self.fault(piece_number, "overflow page", "it is used twice")
                    return  # the rest of the chain was walked before
                self.seen.add(piece_number)
        except CorruptDatabaseError as error:
            self.fault(number, "leaf", str(error))


def _shown(key: bytes) -> str:
    return repr(key) if len(key) <= 32 else f"{key[:32]!r}… ({len(key)} bytes)"
