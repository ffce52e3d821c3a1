"""Moving: extents and tree pages of one transaction, from the file's end to free places.

Which free places there are is known at the start; what a move frees may be used by a later
transaction only (S9). Extents are placed first, the longest first, each into the shortest free
place that holds it; tree pages then fill what is left.

Invariants
    MO1 A page is moved once in a transaction, to a lower place or, to make room, to a longer one.
    MO2 The catalog names every new place when `finish` returns.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import TYPE_CHECKING

from m2mdb.index.catalog import put_entry, put_past, put_segment
from m2mdb.index.description import put_description
from m2mdb.index.pagemap import ROOT, TREE, ExtentPlace, PageMap
from m2mdb.index.schema import CollectionSchema, IndexInfo
from m2mdb.pager.btree_move import move_page
from m2mdb.pager.errors import CorruptDatabaseError

if TYPE_CHECKING:
    from m2mdb.index.catalog import CollectionEntry
    from m2mdb.index.view import WriteView
    from m2mdb.pager.extent import ExtentDescriptor

_CHUNK = 1 << 20  # bytes that are read and written at once


class _Holes:
    """The free places of one kind, found by length and by position."""

    def __init__(self, runs: list[tuple[int, int]]) -> None:
        self.by_length = sorted((length, start) for start, length in runs)

    def shortest(self, count: int) -> int:
        """Take `count` pages from the shortest place that has them: the first one, or 0."""
        at = bisect_left(self.by_length, (count, 0))
        if at == len(self.by_length):
            return 0
        length, start = self.by_length[at]
        self._take(length, start, count)
        return start

    def ascending(self) -> list[tuple[int, int]]:
        """(start, length) of all places, by their position."""
        return sorted((start, length) for length, start in self.by_length)

    def take_at(self, start: int, count: int) -> None:
        """Take the first pages of a place."""
        length = next(length for length, at in self.by_length if at == start)
        self._take(length, start, count)

    def _take(self, length: int, start: int, count: int) -> None:
        del self.by_length[bisect_left(self.by_length, (length, start))]
        if length > count:
            insort(self.by_length, (length - count, start + count))


class Mover:
    """The moves of one transaction, at most `most` pages of them, or one extent."""

    def __init__(self, write: WriteView, pages: PageMap, boundary: int, most: int) -> None:
        """What stands behind page `boundary` is to move before it."""
        self.write = write
        self.transaction = write.transaction
        self.pages = pages
        self.boundary = boundary
        self.most = most
        self.moved = 0
        runs = [
            (start, min(length, boundary - start + 1), fits)
            for start, length, fits in self.transaction.usable_runs()
            if start <= boundary
        ]
        self.long = _Holes([(start, length) for start, length, fits in runs if fits])
        self.small = _Holes([(start, length) for start, length, fits in runs if not fits])
        self._places: dict[int, int] = {}  # tree pages: old -> new
        self._roots: dict[int, dict[str, int]] = {}  # of collections: what -> new root
        self._extents: dict[ExtentPlace, ExtentDescriptor] = {}

    @property
    def is_full(self) -> bool:
        """Whether nothing more may be moved."""
        return self.moved >= self.most

    # -- what to move --------------------------------------------------------------------------

    def empty_behind(self, *, make_room: bool) -> None:
        """Move what stands behind the boundary before it; where that fails, make room for it."""
        waiting = [place for place in self.pages.extents.values() if place.end > self.boundary]
        waiting.sort(key=lambda place: -place.descriptor.page_count)
        left = False
        for place in waiting:
            if self._is_within_limit(place):
                start = self.long.shortest(place.descriptor.page_count)
                if start:
                    self._move_extent(place, start)
                else:
                    left = True
        for number in self.pages.tree_pages_above(self.boundary):
            new = 0 if self.is_full else self.small.shortest(1) or self.long.shortest(1)
            if not new:
                break
            self._move_page(number, new)
        if left and make_room and not self.is_full:
            any(self._make_room(start, length) for start, length in self.long.ascending())

    def _is_within_limit(self, place: ExtentPlace) -> bool:
        """Whether an extent is within the limit, or the first one to be moved (VA3)."""
        return not self.moved or self.moved + place.descriptor.page_count <= self.most

    def _make_room(self, start: int, length: int) -> bool:
        """Let a free place grow by what stands behind it; whether something was moved."""
        behind = start + length
        if behind > self.boundary or behind in self._places:
            return False
        if self.pages.kinds[behind] in (TREE, ROOT):
            self._slide_pages(start, behind, length)
            return True
        place = self.pages.extents.get(behind)
        if place is None or place in self._extents or not self._is_within_limit(place):
            return False
        if place.descriptor.page_count <= length:
            self.long.take_at(start, place.descriptor.page_count)
            self._move_extent(place, start)
        else:
            self._move_extent(place, 0)
        return True

    def _slide_pages(self, start: int, behind: int, length: int) -> None:
        """Tree pages in a row behind a free place move to its beginning."""
        kinds = self.pages.kinds
        for step in range(min(length, len(kinds) - behind)):
            if self.is_full or kinds[behind + step] not in (TREE, ROOT):
                return
            if behind + step in self._places:
                return
            self.long.take_at(start + step, 1)
            self._move_page(behind + step, start + step)

    # -- moving --------------------------------------------------------------------------------

    def _move_extent(self, place: ExtentPlace, start: int) -> None:
        """Copy an extent to a free place, or with 0 to wherever there is room; free the old one."""
        old = place.descriptor
        new = self.transaction.write_extent(self._bytes_of(old), old.size, at=start)
        if new.checksum != old.checksum:
            raise CorruptDatabaseError(
                f"extent at page {old.start_page} of {self.write.database.path}: its copy has "
                f"checksum {new.checksum:#018x}, expected {old.checksum:#018x}"
            )
        self.transaction.free_extent(old)
        self._extents[place] = new
        self.moved += old.page_count

    def _bytes_of(self, descriptor: ExtentDescriptor) -> Iterator[bytes]:
        extent = self.transaction.extent(descriptor)
        for at in range(0, descriptor.size, _CHUNK):
            self.write.database.check_interrupted()
            yield extent.read(at, min(_CHUNK, descriptor.size - at))

    def _move_page(self, number: int, new: int) -> None:
        """Move a tree page to a free place."""
        self.transaction.allocate_at(new)
        parent = int(self.pages.parents[number])
        move_page(self.transaction, self._places.get(parent, parent), number, new)
        self._places[number] = new
        self.moved += 1
        if self.pages.kinds[number] == ROOT:
            collection, what = self.pages.roots[number]
            self._roots.setdefault(collection, {})[what] = new

    # -- telling the catalog -------------------------------------------------------------------

    def finish(self) -> None:
        """Write the new places of extents and roots to the catalog (MO2)."""
        changed = {place.collection for place in self._extents} | set(self._roots)
        for id_ in sorted(changed):
            self._replace(self.write.catalog.by_id[id_].copy())
        if changed:
            self.write.forget_views()

    def _replace(self, entry: CollectionEntry) -> None:
        write = self.write
        tree = write.catalog_tree()
        for place, new in self._extents.items():
            if place.collection == entry.id:
                _replace_extent(entry, place, new)
        for id_ in {place.segment for place in self._extents if place.collection == entry.id}:
            if id_ in entry.records:
                put_segment(tree, entry.id, entry.records[id_])
            else:
                put_past(tree, entry.id, entry.past[id_])
        roots = self._roots.get(entry.id, {})
        if roots:
            replace_roots(entry, roots)
        put_entry(tree, entry, described=bool(roots))
        if roots:
            put_description(self.transaction, entry)
        write.set_catalog(write.catalog.replaced(entry, schema_changed=bool(roots)))


def _replace_extent(entry: CollectionEntry, place: ExtentPlace, new: ExtentDescriptor) -> None:
    records = entry.records if place.segment in entry.records else entry.past
    record = records[place.segment].copy()
    record.extents = tuple(new if old == place.descriptor else old for old in record.extents)
    records[place.segment] = record
    entry.segments.pop(place.segment, None)
    entry.opened = entry.past_opened = None


def replace_roots(entry: CollectionEntry, roots: dict[str, int]) -> None:
    """Another schema object, so that plans and mirrors made for the old roots are void (S15)."""
    entry.delta_root = roots.get("delta", entry.delta_root)
    entry.deletes_root = roots.get("deletes", entry.deletes_root)
    indexes = []
    for info in entry.schema.indexes:
        fields = info.encode()
        fields["root"] = roots.get(f"index {info.name}", info.root)
        indexes.append(IndexInfo.decode(fields))
    entry.schema = CollectionSchema(
        entry.schema.name, entry.schema.columns, tuple(indexes), entry.schema.checks
    )
