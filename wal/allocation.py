"""Allocation: which pages a transaction may write on.

    free map --take--> pages of the transaction <--- end of the file
    free map <--give-- pages freed, as of this transaction's commit

A run {start, length, freed by commit N} may be used when (S9)
    - no live snapshot is older than N, and N is not this transaction's own commit;
    - N's frame is synced (`off` waives this);
    - for an extent: no frame of its pages stands in the log, or a checkpoint or a recovery would
      copy it over the extent.

Invariants
    AL1 The map's changes behind the layer's `free_mark` do not count, and are undone before the
        map is used next: an undone statement swaps its layer and nothing else (S12).
    AL2 Pages of an extent that was undone stay unused until the transaction ends (S14): its bytes
        were written in place, and somebody may hold a view of them.
    AL3 The free map's own tree allocates at the end of the file only; VACUUM moves its pages down.
    AL4 What is freed while `scrub` is set, or under secure_delete, is used by nobody before it is
        zeros (S26): see `wal.scrub`.
    AL5 The last pages are given back only where an extent might use them: what is behind the last
        page may be taken by anyone, so it obeys S9 like a free run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m2mdb.pager.btree import BTree
from m2mdb.pager.errors import OperationalError
from m2mdb.pager.freespace import SCRUB, FreeMap

if TYPE_CHECKING:
    from m2mdb.pager.freespace import Usable
    from m2mdb.wal.attachment import Attachment
    from m2mdb.wal.layer import Layer
    from m2mdb.wal.snapshot import Snapshot

MOST_PAGES = (1 << 32) - 1  # a page number has 32 bits


class Allocator:
    """The pages of one transaction."""

    __slots__ = (
        "_base",
        "_burned",
        "_commit",
        "_floor",
        "_for_page",
        "_limit",
        "_map",
        "_store",
        "scrub",
    )

    def __init__(self, store: Attachment, base: Snapshot) -> None:
        self._store = store
        self._base = base
        self._commit = base.commit + 1
        self._map: FreeMap | None = None
        self.scrub = False  # what is freed from now on is to be scrubbed (AL4)
        self._limit = -1  # the newest commit whose freed pages may be used; -1: not known yet
        self._burned: list[tuple[int, int]] = []  # stretches that extents were given (AL2)
        self._floor = 0  # the last page at the file's end that an extent was given (AL2)
        # The map goes on where its last search ended when it is asked with the same object.
        self._for_page: Usable | None = None

    # -- the map -------------------------------------------------------------------------------

    def free_map(self, layer: Layer) -> FreeMap:
        """The free map as the layer has it (AL1)."""
        found = self._map
        if found is None:
            found = self._map = self._load()
        if found.mark() != layer.free_mark:
            found.undo(layer.free_mark)
        return found

    def _load(self) -> FreeMap:
        store, base = self._store, self._base
        if store.free_map is not None and store.free_map[0] == base.commit:
            return store.free_map[1]
        store.free_map = None
        tree = BTree(base, base.header().free_root)
        found = FreeMap.load(tree, base.page_count, store.path)
        store.free_map = (base.commit, found)
        return found

    @property
    def loaded(self) -> FreeMap | None:
        """The free map, if this transaction has used it."""
        return self._map

    # -- what may be used ----------------------------------------------------------------------

    def _newest_usable(self) -> int:
        store = self._store
        limit = store.oldest_commit()
        if store.synchronous != "off":
            limit = min(limit, max(store.end.synced, store.backfill.commit))
        self._limit = limit
        return limit

    def usable_for_page(self, start: int, length: int, commit: int) -> bool:
        """Whether a run may be used for tree pages (S9)."""
        limit = self._limit if self._limit >= 0 else self._newest_usable()
        if commit > limit:
            return False
        return not any(first < start + length and start < end for first, end in self._burned)

    def closed_to_extents(self) -> list[int]:
        """Pages whose frames stand in the log, ascending; they divide a run that is usable (S9)."""
        return sorted(self._store.index.frames)

    def usable_for_extent(self, start: int, length: int, commit: int) -> bool:
        """Whether all of a run may be used for an extent (S9)."""
        if not self.usable_for_page(start, length, commit):
            return False
        frames = self._store.index.frames
        if length < len(frames):
            return not any(page in frames for page in range(start, start + length))
        return not any(start <= page < start + length for page in frames)

    def usable_runs(self, layer: Layer) -> list[tuple[int, int, bool]]:
        """The free runs that may be used now: start, length, and whether an extent may lie there.

        Runs that touch and are alike are given as one.
        """
        found: list[tuple[int, int, bool]] = []
        for start, length, commit in self.free_map(layer):
            if not self.usable_for_page(start, length, commit):
                continue
            for_extent = self.usable_for_extent(start, length, commit)
            if found and sum(found[-1][:2]) == start and found[-1][2] == for_extent:
                found[-1] = (found[-1][0], found[-1][1] + length, for_extent)
            else:
                found.append((start, length, for_extent))
        return found

    # -- taking and giving ---------------------------------------------------------------------

    def claim(self, layer: Layer, start: int, count: int, *, for_extent: bool) -> None:
        """Take exactly these pages, which `usable_runs` has named."""
        free = self.free_map(layer)
        free.claim(start, count)
        if for_extent:
            self._burned.append((start, start + count))
        layer.free_mark = free.mark()

    def shrink(self, layer: Layer, most: int) -> int:
        """Give up to `most` usable free pages at the file's end back; returns how many (AL5)."""
        if self._floor:
            return 0
        free = self.free_map(layer)
        before = layer.page_count
        while most > before - layer.page_count and (run := free.last()) is not None:
            start, length, commit = run
            if start + length - 1 != layer.page_count:
                break
            frames = [page for page in self._store.index.frames if page >= start]
            first = max(start, max(frames, default=0) + 1, before - most + 1)
            if first > layer.page_count or not self.usable_for_page(first, 1, commit):
                break
            free.claim(first, start + length - first)
            layer.page_count = first - 1
        layer.free_mark = free.mark()
        return before - layer.page_count

    def page(self, layer: Layer) -> int:
        """A page for a tree."""
        free = self.free_map(layer)
        if len(free):
            if self._for_page is None:
                self._for_page = self.usable_for_page
            start = free.take(1, self._for_page)
            if start is not None:
                layer.free_mark = free.mark()
                return start
        return self.at_end(layer, 1)

    def extent(self, layer: Layer, count: int) -> int:
        """The first of neighbouring pages for an extent."""
        free = self.free_map(layer)
        if len(free):
            if self._for_page is None:
                self._for_page = self.usable_for_page
            start = free.take(count, self._for_page, self.closed_to_extents())
            if start is not None:
                self._burned.append((start, start + count))
                layer.free_mark = free.mark()
                return start
        first = self.at_end(layer, count)
        self._floor = first + count - 1
        return first

    def at_end(self, layer: Layer, count: int) -> int:
        """The first of new pages behind all others."""
        last = max(layer.page_count, self._floor)
        if last + count > MOST_PAGES:
            raise OperationalError(
                f"{self._store.path} is full: {last} pages, {count} more are wanted, "
                f"{MOST_PAGES} can be"
            )
        if last > layer.page_count:
            free = self.free_map(layer)
            free.give(layer.page_count + 1, last - layer.page_count, self._commit)
            layer.free_mark = free.mark()
        layer.page_count = last + count
        return last + 1

    def give(self, layer: Layer, start: int, count: int) -> None:
        """Pages are free as of this transaction's commit."""
        free = self.free_map(layer)
        scrub = SCRUB if self.scrub or self._store.secure_delete else 0
        free.give(start, count, self._commit | scrub)
        layer.free_mark = free.mark()

    def end_scrub(self, layer: Layer) -> None:
        """All pages that were to be scrubbed are zeros: free as of this transaction's commit."""
        free = self.free_map(layer)
        free.end_scrub(self._commit)
        layer.free_mark = free.mark()
