"""The cache of decoded pages, shared by the snapshots of one store.

Two generations, so that neither a hit nor an eviction costs a linked list:

    put --> | young |  --full-->  | old |  --young full again-->  dropped
                ^-------- hit -------'

A key says which version of a page it is: wal.store makes it of page number and place, in the log
or in the file, so that an entry never goes stale.

Invariants
    C1  Only committed pages get in (S15), and nobody mutates them (P1).
    C2  No more than `capacity` nodes are held, each a page's worth of bytes and its objects.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from m2mdb.pager.pages import Node

DECODED_FACTOR = 3  # bytes that a node takes for each byte of its page, about, small cells
_SMALLEST_GENERATION = 16  # nodes


class NodeCache:
    """Nodes by the version of their page, bounded in number."""

    __slots__ = ("_generation", "_old", "_young")

    def __init__(self, size: int, page_size: int) -> None:
        """`size` bytes, about."""
        self._generation = max(size // (page_size * DECODED_FACTOR) // 2, _SMALLEST_GENERATION)
        self._young: dict[Hashable, Node] = {}
        self._old: dict[Hashable, Node] = {}

    @property
    def capacity(self) -> int:
        """Nodes that fit."""
        return 2 * self._generation

    def __len__(self) -> int:
        return len(self._young.keys() | self._old.keys())

    def get(self, key: Hashable) -> Node | None:
        """The node of a version, or None."""
        node = self._young.get(key)
        if node is None:
            node = self._old.get(key)
            if node is not None:
                self.put(key, node)
        return node

    def put(self, key: Hashable, node: Node) -> None:
        """Keep a node, and drop those that were not asked for lately."""
        if len(self._young) >= self._generation:
            self._old = self._young
            self._young = {}
        self._young[key] = node

    def clear(self) -> None:
        """Forget everything."""
        self._young = {}
        self._old = {}
