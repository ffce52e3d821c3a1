"""Snapshots: the database as one commit left it, for as long as the snapshot is open.

    Store.begin_read --> open --close--> closed

A page is in the newest frame before the snapshot's end, or else in the file. Nobody writes over
either while the snapshot's mark is live (S2, S9, S10).

Invariants
    SN1 Nodes are shared and never mutated (P1).
    SN2 A finaliser does no I/O: a snapshot that was forgotten is given to its store, which drops
        the mark at its next use (S5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m2mdb.pager.errors import CorruptDatabaseError, InterfaceError
from m2mdb.pager.extent import Extent
from m2mdb.pager.header import Header

if TYPE_CHECKING:
    from m2mdb.pager.extent import ExtentDescriptor
    from m2mdb.pager.pages import Node
    from m2mdb.wal.attachment import Attachment

NO_MARK = 0  # number of a snapshot that needs none
_EXTENTS_KEPT = 16384  # open extents of a store


class Snapshot:
    """The pages of one commit, read-only."""

    __slots__ = (
        "_end",
        "_frames",
        "_in_file",
        "_index",
        "_number",
        "_older",
        "_versions",
        "commit",
        "is_open",
        "page_count",
        "page_size",
        "store",
    )

    def __init__(self, store: Attachment, number: int, *, in_file: bool) -> None:
        """Of the newest end that the store has seen; its mark is known by `number`."""
        self.store = store
        self._number = number
        self.is_open = True
        self._older: dict[int, tuple[int, Node]] | None = None
        end = store.end
        self.commit = end.commit
        self.page_count = end.page_count
        self.page_size = store.page_size
        self._end = end.offset
        self._index = store.index
        self._frames = store.index.frames
        self._in_file = in_file
        self._versions = store.versions

    @property
    def number(self) -> int:
        """By which the store knows its mark; NO_MARK where it needs none."""
        return self._number

    def get(self, page_number: int) -> Node:
        """The node as this snapshot sees it; shared, not to be mutated."""
        offsets = self._frames.get(page_number)
        if offsets is None:
            place = 0
        else:
            place = offsets[-1]
            if place >= self._end:
                place = self._index.place(page_number, self._end)
        found = self._versions.young.get(page_number)
        if found is not None and found[0] == place:
            return found[1]
        return self._load(page_number, place)

    def is_decoded(self, page_number: int) -> bool:
        """Whether `get` finds the node in memory."""
        offsets = self._frames.get(page_number)
        place = 0 if offsets is None else self._index.place(page_number, self._end)
        return self._versions.find(page_number, place) is not None

    def get_fresh(self, page_number: int) -> Node:
        """As `get`, read from the disk whatever is kept in memory: for `integrity_check`."""
        offsets = self._frames.get(page_number)
        place = 0 if offsets is None else self._index.place(page_number, self._end)
        if not 0 < page_number <= self.page_count:
            raise CorruptDatabaseError(
                f"page {page_number} of {self.store.path}: expected 1 to {self.page_count}"
            )
        return self.store.read_node(page_number, 0 if self._in_file else place)

    def _load(self, page_number: int, place: int) -> Node:
        if not self.is_open:
            raise InterfaceError(f"{self.store.path}: the snapshot is closed")
        older = self._older
        if older is not None:
            found = older.get(page_number)
            if found is not None and found[0] == place:
                return found[1]
        node = self._versions.find(page_number, place)
        if node is None:
            if not 0 < page_number <= self.page_count:
                raise CorruptDatabaseError(
                    f"page {page_number} of {self.store.path}: expected 1 to {self.page_count}"
                )
            # AT3: the frame says which version it is, but the log may be overwritten by now
            node = self.store.read_node(page_number, 0 if self._in_file else place)
            self._keep(page_number, place, node)
        return node

    def _keep(self, page_number: int, place: int, node: Node) -> None:
        versions = self._versions
        versions.put(page_number, place, node)
        kept = versions.young.get(page_number)
        if kept is None or kept[1] is not node:
            if self._older is None:
                self._older = {}
            self._older[page_number] = (place, node)

    def header(self) -> Header:
        """Page 1 as of this snapshot; its page count and commit are the last checkpoint's."""
        header = self.get(1)
        assert isinstance(header, Header)
        return header

    def extent(self, descriptor: ExtentDescriptor) -> Extent:
        """A committed extent, open for reading; one object per store and extent (S15)."""
        store = self.store
        key = (descriptor.start_page, descriptor.commit)
        found = store.extents.get(key)
        if found is not None and found.descriptor == descriptor:
            return found
        store.check_open()
        self._check_extent(descriptor)
        found = open_extent(store, descriptor)
        if len(store.extents) >= _EXTENTS_KEPT:
            store.extents = {}
        store.extents[key] = found
        return found

    def _check_extent(self, descriptor: ExtentDescriptor) -> None:
        end = descriptor.start_page + descriptor.page_count - 1
        if descriptor.commit > self.commit or end > self.page_count:
            raise CorruptDatabaseError(
                f"extent at page {descriptor.start_page} of {self.store.path}: of commit "
                f"{descriptor.commit} and up to page {end}, expected up to commit {self.commit} "
                f"and page {self.page_count}"
            )

    def close(self) -> None:
        """End the snapshot; a second call does nothing."""
        self.is_open = False
        store = self.store
        if self._number and store.marks is not None and not store.refusal:
            unsettled, store.unsettled = store.unsettled, True
            try:
                store.marks.drop(self._number)
            except BaseException:
                store.marks.sweep()  # K3
                raise
            store.unsettled = unsettled
        self._number = NO_MARK

    def __del__(self) -> None:
        number = getattr(self, "_number", NO_MARK)
        if number:
            self.store.forgotten.append(number)

    def __repr__(self) -> str:
        state = "" if self.is_open else " (closed)"
        return f"<Snapshot of commit {self.commit} of {self.store.path!r}{state}>"


def open_extent(store: Attachment, descriptor: ExtentDescriptor) -> Extent:
    """An extent of the store's file; raises CorruptDatabaseError unless it lies in it (S18)."""
    mapped = not store.options.untrusted
    return Extent(store.file, descriptor, store.page_size, store.path, mapped)
