"""Layers: the changes of a transaction, so that a statement is undone by one assignment (S12).

A transaction works in one layer. A statement or savepoint freezes it and puts a new one on top:

    below[-1] ... below[1] below[0] <- nodes         what a reader of the transaction looks through
    |<--------- frozen ----------->|   changed in place

Undoing goes back to the frozen layer, as an object: no exception, wherever it strikes, can leave
it half done. Ending keeps the upper layer and forgets the frozen one; dicts that no savepoint
needs are then joined by size into new ones, so that a transaction of n changed pages has some
log n of them, and each page is copied log n times.

Invariants
    LA1 A frozen dict is never changed; nor is a node in it: `change` copies it once per layer.
    LA2 The state of a transaction is one reference to a layer: pages, page count, and the length
        of the free map's journal, behind which the map's changes do not count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from m2mdb.pager.pages import Node

Nodes = dict[int, "Node"]

_JOINED_FACTOR = 4  # a dict is joined to one at most so many times smaller


class Layer:
    """Changed pages, on top of frozen ones."""

    __slots__ = ("below", "free_mark", "nodes", "page_count")

    def __init__(
        self, nodes: Nodes, below: tuple[Nodes, ...], page_count: int, free_mark: int
    ) -> None:
        self.nodes = nodes
        self.below = below
        self.page_count = page_count
        self.free_mark = free_mark

    def above(self) -> Layer:
        """A new layer on this one, which is frozen from now on."""
        below = (self.nodes, *self.below) if self.nodes else self.below
        return Layer({}, below, self.page_count, self.free_mark)

    @property
    def depth(self) -> int:
        """How many dicts of this layer, once frozen, a layer on it looks through."""
        return len(self.below) + bool(self.nodes)

    def joined(self, kept: int) -> Layer:
        """The same changes in fewer dicts; the last `kept` of `below` belong to a savepoint."""
        below = self.below
        owned = len(below) - kept
        if not owned:
            return self
        nodes = self.nodes
        at = 0
        while at < owned and len(below[at]) <= _JOINED_FACTOR * len(nodes):
            nodes = {**below[at], **nodes}
            at += 1
        return Layer(nodes, below[at:], self.page_count, self.free_mark) if at else self

    def find(self, page_number: int) -> Node | None:
        """The newest changed version of a page that is not in `nodes`."""
        for nodes in self.below:
            node = nodes.get(page_number)
            if node is not None:
                return node
        return None

    def all_nodes(self) -> Nodes:
        """Every changed page in its newest version."""
        if not self.below:
            return self.nodes
        merged: Nodes = {}
        for nodes in reversed(self.below):
            merged.update(nodes)
        merged.update(self.nodes)
        return merged
