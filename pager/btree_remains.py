"""Remains: what is left of a B+tree of which pages are damaged.

Every page that verifies is taken, and of its items those that lie between the separators that lead
to it: a page that is older than its parent may hold keys that have moved on.

    lost leaf      its items are gone
    lost branch    the leaves below it are still somewhere: `orphan_leaves` finds them, by
                   themselves, without knowing which tree they were of

Invariants
    TR1 A page is visited once over all trees that share `taken`, so a walk ends.
    TR2 Nothing that a file holds is raised: it is told in `lost` and `broken`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from m2mdb.pager.btree_shape import MAX_DEPTH
from m2mdb.pager.errors import DatabaseError
from m2mdb.pager.overflow import chain
from m2mdb.pager.page import Branch, Leaf, OverflowReference

if TYPE_CHECKING:
    from m2mdb.pager.pages import Pages

Items = dict[bytes, bytes]


class LostPage(NamedTuple):
    """A page of a tree that could not be read."""

    page: int
    reason: str
    below: bool  # it may have been a branch: leaves below it are lost to the tree


class TreeRemains:
    """The items of one tree that could be read, and what could not."""

    def __init__(self, pages: Pages, root: int, taken: set[int]) -> None:
        """Walk the tree; the pages found are added to `taken`."""
        self.items: Items = {}
        self.lost: list[LostPage] = []
        self.broken: list[tuple[bytes, int, str]] = []  # key, page, why its value is lost
        self._pages = pages
        self._taken = taken
        self._leaf_depth = 0
        self._failed: list[tuple[int, str, int]] = []
        self._walk(root)
        for page, reason, depth in self._failed:
            below = not self._leaf_depth or depth < self._leaf_depth
            self.lost.append(LostPage(page, reason, below))

    @property
    def is_whole(self) -> bool:
        """Whether nothing is lost."""
        return not self.lost and not self.broken

    @property
    def has_orphans(self) -> bool:
        """Whether leaves of the tree may be somewhere below a lost branch."""
        return any(lost.below for lost in self.lost)

    def _walk(self, root: int) -> None:
        waiting: list[tuple[int, int, bytes | None, bytes | None]] = [(root, 1, None, None)]
        while waiting:
            number, depth, low, high = waiting.pop()
            if number in self._taken:
                self._failed.append((number, "it is part of something else", depth))
                continue
            self._taken.add(number)
            try:
                node = self._pages.get(number)
            except DatabaseError as error:
                self._failed.append((number, str(error), depth))
                continue
            if type(node) is Leaf:
                self._leaf_depth = self._leaf_depth or depth
                self._take(number, node, low, high)
            elif type(node) is Branch and depth < MAX_DEPTH:
                bounds = [low, *node.keys, high]
                for index in range(len(node.children) - 1, -1, -1):
                    child = node.children[index]
                    waiting.append((child, depth + 1, bounds[index], bounds[index + 1]))
            else:
                self._failed.append((number, "it is no page of a tree's inside", depth))

    def _take(self, number: int, leaf: Leaf, low: bytes | None, high: bytes | None) -> None:
        def lose(key: bytes, reason: str) -> None:
            self.broken.append((key, number, reason))

        for key, value in leaf_items(self._pages, leaf, lose, self._taken):
            if (low is None or key >= low) and (high is None or key < high):
                self.items[key] = value


def leaf_items(
    pages: Pages, leaf: Leaf, lose: Callable[[bytes, str], None], taken: set[int]
) -> Iterator[tuple[bytes, bytes]]:
    """The items of a leaf, long values read; `lose` is told of those that cannot be."""
    for key, value in zip(leaf.keys, leaf.values, strict=True):
        if type(value) is not OverflowReference:
            yield key, value
            continue
        pieces = []
        try:
            for _, piece in chain(pages, value, taken):
                pieces.append(piece.data)
        except DatabaseError as error:
            lose(key, str(error))
            continue
        yield key, b"".join(pieces)


def orphan_leaves(pages: Pages, numbers: Iterable[int]) -> Iterator[tuple[int, Leaf]]:
    """Those of some pages that are leaves, in order."""
    for number in numbers:
        try:
            node = pages.get(number)
        except DatabaseError:
            continue
        if type(node) is Leaf and node.keys:
            yield number, node
