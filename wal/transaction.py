"""Transactions: the one writer's view of the database, with its changes.

    Store.begin_write --> open --commit_now--> committed
                           |  ^-- begin/end/undo_statement, savepoint/release/rollback_to
                           +-----rollback, any failure of commit_now--> rolled back

Changed pages are decoded private copies until the commit encodes them: they stay in memory, all
of them (bulk data goes into extents, which are written at once, in place).

Invariants
    TX1 WRITER is held from begin_write until the transaction is committed or rolled back.
    TX2 All that a statement changed is in its layer: undoing it is one assignment (S12).
    TX3 An extent's pages were free; nothing names them before the commit frame (S7).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from m2mdb.pager.btree import BTree
from m2mdb.pager.errors import CorruptDatabaseError, InterfaceError, OperationalError
from m2mdb.pager.extent import ExtentDescriptor, extent_page_count
from m2mdb.pager.extent_writer import Settler, write_extent
from m2mdb.pager.header import Header
from m2mdb.wal.allocation import Allocator
from m2mdb.wal.checkpoint import autocheckpoint
from m2mdb.wal.commit import commit
from m2mdb.wal.layer import Layer
from m2mdb.wal.locks import WRITER
from m2mdb.wal.snapshot import NO_MARK, Snapshot, open_extent

if TYPE_CHECKING:
    from m2mdb.pager.extent import Extent
    from m2mdb.pager.extent_writer import Part
    from m2mdb.pager.pages import Node
    from m2mdb.wal.attachment import Attachment


class _FreedPage:
    """What stands for a page that the transaction has freed; it is not written."""

    def copy(self) -> _FreedPage:
        """Nothing to copy."""
        raise CorruptDatabaseError("a page is changed that this transaction has freed")

    def encode(self, page_number: int, page_size: int) -> bytes:
        """Nothing to write."""
        raise CorruptDatabaseError(f"page {page_number} is written after it was freed")


FREED = _FreedPage()


class Transaction:
    """The pages of the newest commit, with changes on top."""

    __slots__ = (
        "__weakref__",
        "_allocator",
        "_base",
        "_depth",
        "_extents",
        "_layer",
        "_marks",
        "_settler",
        "commit",
        "is_committed",
        "is_open",
        "new_commit",
        "page_size",
        "store",
        "unsynced_extents",
    )

    def __init__(self, store: Attachment) -> None:
        """At the newest end; the store holds WRITER and has extended its index."""
        self.store = store
        self._base = Snapshot(store, NO_MARK, in_file=False)
        self._allocator = Allocator(store, self._base)
        self._layer = Layer({}, (), self._base.page_count, 0)
        self._marks: list[Layer] = []  # by token; those from `_depth` on have ended
        self._settler: Settler | None = None
        self._depth = 0
        self._extents: dict[int, Extent] = {}  # by start page; this transaction's own (S15)
        self.commit = self._base.commit
        self.new_commit = self.commit + 1
        self.page_size = store.page_size
        self.is_open = True
        self.is_committed = False
        self.unsynced_extents = False

    # -- reading -------------------------------------------------------------------------------

    def get(self, page_number: int) -> Node:
        """The node with this transaction's changes; shared, not to be mutated."""
        layer = self._layer
        node = layer.nodes.get(page_number)
        if node is not None:
            return node
        if layer.below:
            node = layer.find(page_number)
            if node is not None:
                return node
        return self._base.get(page_number)

    def get_fresh(self, page_number: int) -> Node:
        """As `get`; what this transaction has not changed is read from the disk."""
        layer = self._layer
        node = layer.nodes.get(page_number) or layer.find(page_number)
        return node if node is not None else self._base.get_fresh(page_number)

    def header(self) -> Header:
        """Page 1 with this transaction's changes."""
        header = self.get(1)
        assert isinstance(header, Header)
        return header

    @property
    def page_count(self) -> int:
        """Pages of the database if it were committed now."""
        return self._layer.page_count

    @property
    def changed(self) -> bool:
        """Whether there is anything to commit."""
        layer = self._layer
        return bool(layer.nodes or layer.below or layer.free_mark)

    def extent(self, descriptor: ExtentDescriptor) -> Extent:
        """An extent, committed or this transaction's own (S15)."""
        if descriptor.commit != self.new_commit:
            return self._base.extent(descriptor)
        found = self._extents.get(descriptor.start_page)
        if found is None or found.descriptor != descriptor:
            found = self._extents[descriptor.start_page] = open_extent(self.store, descriptor)
        return found

    # -- changing pages ------------------------------------------------------------------------

    def change(self, page_number: int) -> Node:
        """The transaction's own copy of a page, to be mutated in place."""
        layer = self._layer
        node = layer.nodes.get(page_number)
        if node is None:
            self._check_open()
            node = layer.nodes[page_number] = self.get(page_number).copy()
        return node

    def put(self, page_number: int, node: Node) -> None:
        """Give a page new content; the transaction owns `node` from now on."""
        self._check_open()
        self._layer.nodes[page_number] = node

    def change_header(self) -> Header:
        """Page 1, to be mutated in place."""
        header = self.change(1)
        assert isinstance(header, Header)
        return header

    def allocate(self) -> int:
        """A page number for a new page; the caller must `put` it."""
        self._check_open()
        return self._allocator.page(self._layer)

    def free(self, page_number: int) -> None:
        """End the life of a page as of this transaction's commit."""
        self._check_open()
        layer = self._layer
        self._allocator.give(layer, page_number, 1)
        layer.nodes[page_number] = FREED

    # -- extents -------------------------------------------------------------------------------

    def allocate_extent(self, size: int) -> int:
        """Pages for an extent of `size` bytes of content: the first one's number.

        The space is had, so that a full disk fails here and only rolls back (S11).
        """
        self._check_open()
        store = self.store
        count = extent_page_count(size, self.page_size)
        start = self._allocator.extent(self._layer, count)
        store.file.allocate((start - 1) * self.page_size, count * self.page_size)
        return start

    def write_extent(self, parts: Iterable[Part], size: int, *, at: int = 0) -> ExtentDescriptor:
        """Write bytes in place, on pages that nothing uses; synced before the commit (S7).

        `at`: the first of free pages that `usable_runs` has named for it.
        """
        start = self._claim_extent(size, at) if at else self.allocate_extent(size)
        self.unsynced_extents = True
        self._extents.pop(start, None)
        if self.store.synchronous != "off":
            self._settler = self._settler or Settler(self.store.sync_file)
            parts = self._settler.parts(parts)
        return write_extent(self.store.file, self.page_size, start, self.new_commit, size, parts)

    def _claim_extent(self, size: int, start: int) -> int:
        self._check_open()
        count = extent_page_count(size, self.page_size)
        self._allocator.claim(self._layer, start, count, for_extent=True)
        self.store.file.allocate((start - 1) * self.page_size, count * self.page_size)
        return start

    def free_extent(self, descriptor: ExtentDescriptor) -> None:
        """End the life of an extent as of this transaction's commit."""
        self._check_open()
        self._allocator.give(self._layer, descriptor.start_page, descriptor.page_count)

    # -- for vacuum ----------------------------------------------------------------------------

    def usable_runs(self) -> list[tuple[int, int, bool]]:
        """Free runs that may be used now: start, length, whether an extent may lie there (S9)."""
        return self._allocator.usable_runs(self._layer)

    def allocate_at(self, page_number: int) -> None:
        """Take one page that `usable_runs` has named; the caller must `put` it."""
        self._check_open()
        self._allocator.claim(self._layer, page_number, 1, for_extent=False)

    def shrink(self, most: int) -> int:
        """Give up to `most` free pages at the file's end back; returns how many (S27)."""
        self._check_open()
        return self._allocator.shrink(self._layer, most)

    # -- statements and savepoints -------------------------------------------------------------

    def begin_statement(self) -> int:
        """A point to go back to; returns its token."""
        self._check_open()
        frozen = self._layer
        token = self._depth
        self._marks[token:] = (frozen,)
        self._layer = frozen.above()
        self._depth = token + 1
        return token

    def end_statement(self, token: int) -> None:
        """Keep what was changed since the token.

        Until another statement begins it can still be undone: for an interrupt that comes while
        it ends.
        """
        self._check_open()
        layer = self._layer
        if layer.below:
            kept = self._marks[token - 1].depth if token else 0
            self._layer = layer.joined(kept)
        self._depth = token

    def undo_statement(self, token: int) -> None:
        """Undo what was changed since the token (S12)."""
        if self.is_open:
            self._layer = self._marks[token]
            self._depth = token

    def savepoint(self) -> int:
        """A point to go back to, once or more; returns its token (S14)."""
        return self.begin_statement()

    def release(self, token: int) -> None:
        """Forget a savepoint and those after it; what was changed since stays."""
        self.end_statement(token)

    def rollback_to(self, token: int) -> None:
        """Undo what was changed since the savepoint, which stays (S14)."""
        self._check_open()
        self._layer = self._marks[token].above()
        self._depth = token + 1

    # -- the end -------------------------------------------------------------------------------

    def commit_now(self) -> int:
        """Make the changes durable as `synchronous` says; returns the newest commit's number.

        Without changes there is no commit. On any error before the commit frame is written the
        transaction is rolled back; after one it has ended in any case (TX1).
        """
        try:
            self._check_open()
            if not self.changed:
                self.rollback()
                return self.commit
            number = commit(self)
        except BaseException:
            self.rollback()
            raise
        autocheckpoint(self.store)
        return number

    def rollback(self) -> None:
        """Undo everything; on a transaction that has ended, nothing happens."""
        if self.is_open:
            self.close()

    def close(self) -> None:
        """The transaction has ended, by commit or rollback: give WRITER up."""
        store = self.store
        unsettled, store.unsettled = store.unsettled, True  # ST3
        try:
            self._end()
        except OperationalError:
            unsettled = True  # ST3: a commit that is published has not failed for that
        except BaseException:
            self._end()  # K3
            raise
        store.unsettled = unsettled

    def _end(self) -> None:
        """What may be done twice."""
        store = self.store
        self.is_open = False
        # The nodes are shared from now on (P1): no change may find them here.
        self._layer = Layer({}, (), self._layer.page_count, 0)
        store.transaction = None
        if not store.refusal:
            store.locks.drop(WRITER)

    def _check_open(self) -> None:
        if not self.is_open:
            raise InterfaceError(f"{self.store.path}: the transaction has ended")
        self.store.check_open()

    # -- for the commit ------------------------------------------------------------------------

    def final_nodes(self) -> dict[int, Node]:
        """All changed pages, those of the free map's tree included; freed ones left out."""
        layer = self._layer
        layer = self._layer = Layer(layer.all_nodes(), (), layer.page_count, layer.free_mark)
        if self._allocator.loaded is not None:
            free = self._allocator.free_map(layer)  # AL1: what was undone is out of it now
            free.flush(BTree(_FreeTreePages(self), self.header().free_root))
            layer.free_mark = free.mark()
            return {number: node for number, node in layer.nodes.items() if node is not FREED}
        return layer.nodes

    def free_runs(self) -> list[tuple[int, int, int]]:
        """The free runs (start, length, commit) as of now; the tree hears of them at the commit."""
        return list(self._allocator.free_map(self._layer))

    def scrub_freed(self) -> None:
        """What this transaction frees from now on is used by nobody before it is zeros (S26)."""
        self._allocator.scrub = True

    def end_scrub(self) -> None:
        """The pages to be scrubbed are zeros, durably: they are free as of this commit."""
        self._check_open()
        self._allocator.end_scrub(self._layer)

    def own_extents(self) -> dict[int, Extent]:
        """The extents that this transaction has written and opened."""
        return self._extents

    def settle_free_map(self) -> None:
        """The commit is published: the free map is the new commit's.

        Where an interrupt has stopped this step, the map is read from its tree again.
        """
        store = self.store
        known = store.free_map
        if known is None or known[0] != self.commit:
            return
        store.free_map = None
        if self._allocator.loaded is not None:
            known[1].settle()
        store.free_map = (self.new_commit, known[1])

    def __repr__(self) -> str:
        state = "open" if self.is_open else "ended"
        return f"<Transaction on commit {self.commit} of {self.store.path!r}, {state}>"


class _FreeTreePages:
    """The pages of the free map's own tree while it is flushed (AL3)."""

    def __init__(self, transaction: Transaction) -> None:
        self.page_size = transaction.page_size
        self.get = transaction.get
        self.change = transaction.change
        self.put = transaction.put
        self.free = transaction.free
        self._transaction = transaction

    def allocate(self) -> int:
        """A page at the end of the file."""
        transaction = self._transaction
        return transaction._allocator.at_end(transaction._layer, 1)
