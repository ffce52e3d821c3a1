"""Pages: what the B+tree reads and changes, and what a snapshot or a transaction provides.

The pager defines the protocol, the write-ahead log implements it (S16): `wal.snapshot.Snapshot`
reads, `wal.transaction.Transaction` reads and changes. Tests of the tree use `DictPages`.

A page in memory is a *node*: the decoded page, with Python lists that bisect at C speed. Nodes
that `get` returns are shared and never mutated; `change` hands out the transaction's private copy.
Encoding happens once per commit, not once per change.

Invariants
    P1  A node from `get` is never mutated; only one from `change` or given to `put` is.
    P2  `change` and `put` are undone as one when their statement or savepoint is undone.
    P3  A freed page is not handed out again inside the transaction that freed it (S9).
"""

from __future__ import annotations

from typing import Protocol, Self


class Node(Protocol):
    """A decoded page."""

    def copy(self) -> Self:
        """A private copy: its own lists, sharing the immutable items."""
        ...

    def encode(self, page_number: int, page_size: int) -> bytes:
        """Exactly `page_size` bytes, header and checksum included, unused bytes zero."""
        ...


class Pages(Protocol):
    """The pages of one snapshot."""

    page_size: int

    def get(self, page_number: int) -> Node:
        """The node as this snapshot sees it; shared, not to be mutated.

        Raises CorruptDatabaseError where checksum, page number or structure fail.
        """
        ...


class MutablePages(Pages, Protocol):
    """The pages of a transaction that writes."""

    def change(self, page_number: int) -> Node:
        """The transaction's own copy of a page, to be mutated in place."""
        ...

    def put(self, page_number: int, node: Node) -> None:
        """Give a page new content; the transaction owns `node` from now on."""
        ...

    def allocate(self) -> int:
        """A page number for a new page; the caller must `put` it."""
        ...

    def free(self, page_number: int) -> None:
        """End the life of a page as of this transaction's commit."""
        ...
