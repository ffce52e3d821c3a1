"""Salvage: what can be read of a damaged database, collection by collection.

    free map ---> pages that hold nothing
    catalog ----> collections: schema, delta, deletions, segments
       |  damaged: what is left of it, then the descriptions in the deletions trees and in the
       |           segments, which are looked for page by page
       +--------> rows that verify, by `index.salvage_rows`

Where a branch is damaged the leaves below it are looked for among the pages that nothing else
uses. A leaf of a delta or of deletions does not say whose it is: it is given to the one collection
that misses leaves and whose columns or segments it fits. Where that is not one, a delta's leaves
become a collection of their own, with a made-up name, and deletions are not applied.

Invariants
    SV1 Nothing is written.
    SV2 What the file holds is never raised, but that nothing of it is a database.
    SV3 Pages of free runs are not looked at where the free map is whole: they hold the past.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from m2mdb.index.catalog import HEAD as CATALOG_HEAD
from m2mdb.index.catalog import KEPT, CollectionEntry
from m2mdb.index.collection import CHUNK_ROWS, DELETION_SIZE, decode_deletions
from m2mdb.index.description import DESCRIPTION_KEY, decode_fields
from m2mdb.index.extent_remains import (
    Directory,
    ExtentRemains,
    SegmentRemains,
    description_of,
    found_extent,
    known_extent,
)
from m2mdb.index.needs import KEY as NEEDS
from m2mdb.index.needs import check_needs
from m2mdb.index.salvage_names import Nameless, named
from m2mdb.index.salvage_rows import CollectionRemains, DeltaEntry, SegmentRows
from m2mdb.index.segment import SegmentRecord
from m2mdb.pager.btree_remains import TreeRemains, leaf_items, orphan_leaves
from m2mdb.pager.errors import CorruptDatabaseError, NotSupportedError
from m2mdb.pager.extent import BLOCK_SIZE, extent_page_count
from m2mdb.pager.freespace import decode_run
from m2mdb.wal.remains import Remains

if TYPE_CHECKING:
    from m2mdb.pager.extent import ExtentDescriptor
    from m2mdb.pager.vfs import Vfs

Ends = dict[int, dict[int, int]]
Leaves = list[tuple[int, dict[bytes, bytes]]]


class _Found:
    """A collection while it is put together."""

    def __init__(self, entry: CollectionEntry) -> None:
        self.entry = entry
        self.has_head = False
        self.is_partial = False  # some of its trees cannot be read
        self.extra: dict[int, tuple[ExtentRemains, Directory, int]] = {}  # segments found, commit
        self.replaced: set[int] = set()
        self.misses_delta = False
        self.misses_deletions = False
        self.entries: list[DeltaEntry] = []
        self.ends: Ends = {}
        self.segment_rows: dict[int, int] = {}


class Salvage:
    """A damaged file, read as far as it can be; `collections` has what is left."""

    def __init__(self, vfs: Vfs, path: str) -> None:
        """Raises as `Remains` does; `close` when the rows were read."""
        self.remains = Remains(vfs, path)
        self.damage: list[str] = list(self.remains.damage)
        self.collections: list[CollectionRemains] = []
        self.keep_commits = 0
        self.misses_segments = False  # there may be some of a collection that is found without
        try:
            self._taken: set[int] = set()
            self._in_extents = np.zeros(self.remains.page_count + 2, bool)
            self._free = self._free_pages()
            self._found: dict[int, _Found] = {}
            self._nameless = Nameless()
            self._read_catalog()
            self._read_trees(list(self._found.values()))
            if self.catalog_is_damaged or any(
                found.misses_delta or found.misses_deletions for found in self._found.values()
            ):
                self._look_for_lost()
            self._finish()
        except BaseException:
            self.close()
            raise

    @property
    def nothing_was_read(self) -> bool:
        """Whether neither page 1 nor the catalog's root can be read."""
        lost = f"page {self.remains.catalog_root}, catalog: "
        return self.remains.header is None and any(each.startswith(lost) for each in self.damage)

    def close(self) -> None:
        """Close the file."""
        self.remains.close()

    # --------------------------------------------------------------- trees

    def _tree(self, what: str, root: int) -> TreeRemains:
        tree = TreeRemains(self.remains, root, self._taken)
        self.damage += [f"page {lost.page}, {what}: {lost.reason}" for lost in tree.lost]
        self.damage += [f"page {page}, {what}: {reason}" for _, page, reason in tree.broken]
        return tree

    def _free_pages(self) -> np.ndarray:
        """Which pages are free; none where the free map is damaged (SV3)."""
        free = np.zeros(self.remains.page_count + 2, bool)
        tree = self._tree("free map", self.remains.free_root)
        if tree.is_whole:
            for key, value in tree.items.items():
                try:
                    start, length, _ = decode_run(key, value)
                except CorruptDatabaseError as error:
                    self.damage.append(f"free map: {error}")
                    continue
                free[start : start + length] = True
        return free

    def _read_catalog(self) -> None:
        tree = self._tree("catalog", self.remains.catalog_root)
        self.catalog_is_damaged = not tree.is_whole
        self._read_settings(tree.items)
        self._take_catalog(tree.items)

    def _read_settings(self, items: dict[bytes, bytes]) -> None:
        try:
            check_needs(items.get(NEEDS), self.remains.path)
        except CorruptDatabaseError as error:
            self.damage.append(str(error))
        kept = items.get(b"K", b"")
        if len(kept) == KEPT.size:
            self.keep_commits = KEPT.unpack(kept)[0]

    def _take_catalog(self, items: dict[bytes, bytes], *, is_orphan: bool = False) -> None:
        """Collections, then what belongs to them; of what is known already nothing is changed."""
        for key, raw in items.items():
            if key[:1] == b"C" and len(key) == 5:
                self._add_entry(int.from_bytes(key[1:], "big"), raw)
        for key, raw in items.items():
            kind = key[:1]
            found = self._found.get(int.from_bytes(key[1:5], "big")) if len(key) >= 5 else None
            if found is None:
                continue
            if kind == b"H" and len(raw) == CATALOG_HEAD.size and not found.has_head:
                entry = found.entry
                entry.base_sequence, entry.next_rowid = CATALOG_HEAD.unpack(raw)[:2]
                found.has_head = True
            elif kind in (b"S", b"P"):
                self._take_record(found, kind, raw, is_orphan=is_orphan)

    def _add_entry(self, id: int, raw: bytes) -> _Found | None:
        if id in self._found:
            return self._found[id]
        try:
            found = _Found(CollectionEntry.decode(id, raw, self.remains.path))
        except (CorruptDatabaseError, NotSupportedError) as error:
            self.damage.append(str(error))
            return None
        self._found[id] = found
        return found

    def _take_record(self, found: _Found, kind: bytes, raw: bytes, *, is_orphan: bool) -> None:
        try:
            record = SegmentRecord.decode(raw[8:] if kind == b"P" else raw, self.remains.path)
        except CorruptDatabaseError as error:
            self.damage.append(str(error))
            return
        entry = found.entry
        if record.id in entry.records or record.id in entry.past:
            return
        (entry.past if kind == b"P" else entry.records)[record.id] = record
        if not is_orphan:
            for extent in record.extents:
                self._in_extents[extent.start_page : extent.start_page + extent.page_count] = True

    def _read_trees(self, wanted: list[_Found]) -> None:
        """Deltas, deletions and indexes of some collections; the last only for their pages."""
        for found in wanted:
            entry = found.entry
            name = entry.schema.name
            if entry.delta_root:
                tree = self._tree(f"delta of {name}", entry.delta_root)
                found.misses_delta = tree.has_orphans
                self._take_delta(found, tree.items)
                found.is_partial |= not tree.is_whole
            if entry.deletes_root:
                tree = self._tree(f"deletions of {name}", entry.deletes_root)
                found.misses_deletions = tree.has_orphans
                found.is_partial |= not tree.is_whole
                self._take_ends(found.ends, tree.items)
            for info in entry.schema.indexes:
                if info.kind == "btree":
                    self._tree(f"index {info.name}, which is built anew", info.root)

    def _take_delta(self, found: _Found, items: dict[bytes, bytes]) -> None:
        for key, raw in items.items():
            try:
                entry = DeltaEntry(key, raw)
            except CorruptDatabaseError as error:
                self.damage.append(f"delta of {found.entry.schema.name}: {error}")
                found.is_partial = True
                continue
            if entry.fits(found.entry.schema):
                found.entries.append(entry)
            else:
                found.is_partial = True

    def _take_ends(self, ends: Ends, items: dict[bytes, bytes]) -> None:
        for key, raw in items.items():
            if len(key) == 8:
                known = ends.setdefault(int.from_bytes(key[:4], "big"), {})
                if len(raw) % DELETION_SIZE == 0:
                    known.update(decode_deletions(raw, "deletions").tolist())

    # --------------------------------------------------------------- looking for what is lost

    def _unused(self) -> Iterator[int]:
        """Pages that nothing that was found uses."""
        for number in range(2, self.remains.page_count + 1):
            if number not in self._taken and not (self._in_extents[number] or self._free[number]):
                yield number

    def _look_for_lost(self) -> None:
        leaves: Leaves = []
        chains: set[int] = set()
        lost: list[str] = []

        def lose(_: bytes, reason: str) -> None:
            lost.append(reason)

        for number, leaf in orphan_leaves(self.remains, list(self._unused())):
            if any(leaf.values):  # else it is of an index, which is built anew
                leaves.append((number, dict(leaf_items(self.remains, leaf, lose, chains))))
        self.damage += lost
        if self.catalog_is_damaged:
            for _, items in leaves:
                if _is_catalog(items):
                    self._take_catalog(items, is_orphan=True)
            known = set(self._found)
            for _, items in leaves:
                fields = decode_fields(items.get(DESCRIPTION_KEY, b""))
                if fields is not None and type(fields.get("id")) is int:
                    self._add_entry(fields["id"], json.dumps(fields).encode())
            self._read_trees([f for id_, f in self._found.items() if id_ not in known])
            self._look_for_segments()
            self._tell_unknown_pages()
        self._give_leaves([leaf for leaf in leaves if leaf[0] not in self._taken])

    def _look_for_segments(self) -> None:
        """Extents that begin with a segment's header, of which the catalog says nothing."""
        for number in list(self._unused()):
            found = found_extent(self.remains.file, self.remains.page_size, number)
            if found is None or ("rowids", 0) not in found[1].parts:
                continue
            extent, directory = found
            pages = extent_page_count(extent.size, self.remains.page_size)
            self._in_extents[number : number + pages] = True
            self._tell_blocks(extent)
            fields = description_of(extent, directory) or {}
            if fields.get("kept"):
                continue
            owner = self._owner(fields)
            if owner is None:
                self.misses_segments = True  # of whom this one is, is not known
                self._nameless.add_segment(extent, directory)
            elif fields["segment"] not in owner.entry.records:
                owner.extra[fields["segment"]] = extent, directory, int(fields.get("commit", 0))
                owner.replaced |= {each for each in fields.get("replaces", []) if type(each) is int}

    def _tell_unknown_pages(self) -> None:
        """Pages that hold something which nothing accounts for: segments may have been there."""
        unknown: list[list[int]] = []
        for number in self._unused():
            if self._is_page_or_empty(number):
                continue
            if unknown and unknown[-1][1] == number - 1:
                unknown[-1][1] = number
            else:
                unknown.append([number, number])
        for first, last in unknown:
            self.misses_segments = True
            where = f"page {first}" if first == last else f"pages {first} to {last}"
            self.damage.append(f"{where}: nothing there verifies; a segment may have been there")

    def _is_page_or_empty(self, number: int) -> bool:
        try:
            self.remains.get(number)
            return True
        except CorruptDatabaseError:
            size = self.remains.page_size
            return self.remains.file.read_at((number - 1) * size, size) == bytes(size)

    def _owner(self, fields: dict[str, Any]) -> _Found | None:
        """The collection that a segment's description names, made where it is not known."""
        id_ = fields.get("id")
        if type(id_) is not int or type(fields.get("segment")) is not int:
            return None
        found = self._found.get(id_)
        if found is None:
            made = {"indexes": [], "delta_root": 2, "deletes_root": 3, **fields}
            found = self._add_entry(id_, json.dumps(made).encode())
            if found is not None:
                found.entry.delta_root = found.entry.deletes_root = 0
                found.misses_delta = found.misses_deletions = True
                found.is_partial = True
        return found

    def _give_leaves(self, leaves: Leaves) -> None:
        """Leaves of deltas and deletions to the one collection that they can be of."""
        for found in self._found.values():
            found.segment_rows = {id_: record.rows for id_, record in found.entry.records.items()}
            found.segment_rows |= {id_: each[1].rows for id_, each in found.extra.items()}
        for number, items in leaves:
            entries = _delta_entries(items)
            if entries:
                owners = [f for f in self._found.values() if f.misses_delta and _fits(f, entries)]
                if len(owners) == 1:
                    owners[0].entries += entries
                elif owners or self.catalog_is_damaged:
                    self._nameless.add_entries(entries)
                continue
            ends: Ends = {}
            if not _is_ends(items):
                continue
            self._take_ends(ends, items)
            owners = [
                f for f in self._found.values() if f.misses_deletions and _has_places(f, ends)
            ]
            if len(owners) == 1:
                for segment, places in ends.items():
                    owners[0].ends.setdefault(segment, {}).update(places)
            elif owners or self.catalog_is_damaged:
                self.damage.append(f"page {number}: deletions of rows that cannot be told")

    # --------------------------------------------------------------- putting together

    def _finish(self) -> None:
        made = [self._collection(found) for _, found in sorted(self._found.items())]
        made += self._nameless.collections()
        for collection in made:
            collection.resolve()
        self.collections = named(made)

    def _collection(self, found: _Found) -> CollectionRemains:
        entry = found.entry
        made = CollectionRemains(entry.schema)
        made.next_rowid = entry.next_rowid
        made.base_sequence = entry.base_sequence if found.has_head else None
        made.is_unknown = found.is_partial or self.misses_segments
        if found.is_partial:
            made.notes.append(
                "not all changes can be read: rows may be back that were deleted, or older than "
                "they were"
            )
        made.ends = found.ends
        for each in found.entries:
            made.add_entry(each)
        for record in entry.records.values():
            if record.id not in found.replaced:
                self._add_segment(made, record)
        for id_, (extent, directory, commit) in found.extra.items():
            if id_ not in found.replaced:
                remains = SegmentRemains([(extent, directory)])
                made.segments.append(SegmentRows(id_, remains, None, commit))
        return made

    def _add_segment(self, made: CollectionRemains, record: SegmentRecord) -> None:
        where = f"segment {record.id} of {made.schema.name}"
        extents = [self._extent(descriptor) for descriptor in record.extents]
        for extent, _ in extents:
            self._tell_blocks(extent)
        try:
            remains = SegmentRemains(extents)
            if remains.rows != record.rows:
                raise CorruptDatabaseError(f"{remains.rows} rows, its record says {record.rows}")
        except CorruptDatabaseError as error:
            page = record.extents[0].start_page if record.extents else 0
            ended = len(made.ends.get(record.id, {}))
            self.damage.append(f"page {page}, {where}: {error}")
            made.lost += max(0, record.rows - ended)
            return
        made.segments.append(SegmentRows(record.id, remains, record, record.commit))

    def _extent(self, descriptor: ExtentDescriptor) -> tuple[ExtentRemains, Directory | None]:
        return known_extent(self.remains.file, self.remains.page_size, descriptor)

    def _tell_blocks(self, extent: ExtentRemains) -> None:
        size = self.remains.page_size
        first = extent.start // size + 1
        for number in extent.bad_blocks:
            start = first + number * BLOCK_SIZE // size
            end = min(first + ((number + 1) * BLOCK_SIZE - 1) // size, first + extent.size // size)
            self.damage.append(
                f"pages {start} to {end}, block {number} of the {len(extent.good)} of the extent "
                f"at page {first}: its checksum does not hold"
            )


# ------------------------------------------------------------------------- what a leaf is of


def _is_catalog(items: dict[bytes, bytes]) -> bool:
    kinds = {b"C": 5, b"H": 5, b"S": 9, b"P": 9, b"A": 5, b"D": 9, b"T": 9, b"W": 9}
    return all(
        key in (b"N", b"K", b"Q", NEEDS) or key[:1] == b"F" or len(key) == kinds.get(key[:1])
        for key in items
    )


def _delta_entries(items: dict[bytes, bytes]) -> list[DeltaEntry]:
    try:
        return [DeltaEntry(key, raw) for key, raw in items.items()]
    except CorruptDatabaseError:
        return []


def _fits(found: _Found, entries: list[DeltaEntry]) -> bool:
    base = found.entry.base_sequence if found.has_head else 0
    return all(entry.sequence >= base and entry.fits(found.entry.schema) for entry in entries)


def _is_ends(items: dict[bytes, bytes]) -> bool:
    """Whether the items are chunks of deletions."""
    for key, raw in items.items():
        if key == DESCRIPTION_KEY:
            continue
        if len(key) != 8 or len(raw) % DELETION_SIZE or not raw:
            return False
        chunk = int.from_bytes(key[4:], "big")
        ordinals = decode_deletions(raw, "deletions")["ordinal"].astype(np.int64)
        if (ordinals // CHUNK_ROWS != chunk).any() or (np.diff(ordinals) <= 0).any():
            return False
    return True


def _has_places(found: _Found, ends: Ends) -> bool:
    return all(
        segment in found.segment_rows and max(places, default=0) < found.segment_rows[segment]
        for segment, places in ends.items()
    )
