"""Copying: a whole database, as one commit left it, into a new file or another database.

    snapshot --> trees: all items, loaded into full leaves       --> NewFile (pager.new_file)
             --> extents: byte by byte                           --> transaction of the target

Nothing is copied that the snapshot does not name: the copy has no free page, and nothing of what
was deleted but the dead rows of segments. The source's mark keeps the snapshot readable for as
long as it takes, while others write.

A new file goes on with the source's commit numbers, and its past can be asked for as there. In
another database the copy is one commit among its own: what is copied counts as written then, and
AS OF cannot go behind it.

Invariants
    CO1 The copy holds the rows of exactly one commit; no writer of the source is kept waiting.
    CO2 A new file has its name when it is whole and durable, and not before.
    CO3 A target is replaced by one transaction: whoever reads it sees the old or the new content.
    CO4 A delta in another database is numbered anew from a random start, so that no mirror that a
        connection holds of an older content with the same id can be taken for one of it.
    CO5 No name is taken from a database that somebody has made there since: a path where nothing
        is gets one without replacing, an empty file is replaced under its own locks.
    CO6 A receipt in the target is pending until the bytes that the target held before are scrubbed
        too: what the copy frees is scrubbed, and receipts of equal digest key come along.
"""

from __future__ import annotations

import contextlib
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from m2mdb.index.catalog import (
    Catalog,
    CatalogItems,
    CollectionEntry,
    load_catalog,
    put_entry,
    put_kept,
    put_limits,
    put_past,
    put_quiet,
    put_segment,
)
from m2mdb.index.collection import decode_deletions, encode_deletions, open_segments
from m2mdb.index.description import DESCRIPTION_KEY, describe_collection
from m2mdb.index.drift import put_all as put_drift
from m2mdb.index.moving import replace_roots
from m2mdb.index.pagemap import roots_of
from m2mdb.index.receipts import ForgetState, StoredReceipt, load_receipts, load_state, put_receipts
from m2mdb.index.record import SEQUENCE
from m2mdb.index.statistics import put_all as put_statistics
from m2mdb.index.vacuum import free_pages, half_dead, vacuum
from m2mdb.pager.btree import BTree
from m2mdb.pager.errors import OperationalError
from m2mdb.pager.header import FLAG_OFFSET, FLAG_SIZE, LogFlag
from m2mdb.pager.new_file import NewFile
from m2mdb.wal.locks import ATTACH, OPENING, Locks
from m2mdb.wal.store import StoreOptions

if TYPE_CHECKING:
    from m2mdb.index.database import Database
    from m2mdb.index.segment import Segment, SegmentRecord
    from m2mdb.index.view import WriteView
    from m2mdb.pager.extent import ExtentDescriptor
    from m2mdb.pager.header import Header
    from m2mdb.pager.vfs import Vfs
    from m2mdb.wal.snapshot import Snapshot
    from m2mdb.wal.transaction import Transaction

    Sink = NewFile | Transaction

Tick = Callable[[int], None]  # hears how many pages were read since it was called last
_CHUNK = 1 << 20  # bytes of an extent that are read and written at once
_COMMIT = struct.Struct("<Q")
_COMMIT_AT = slice(1, 9)  # of an entry of the delta
_RANDOM_START = 6  # bytes: CO4
_SIDECARS = ("", "-wal", "-shm")


class Source:
    """The database at one commit, held until it is closed."""

    def __init__(self, database: Database) -> None:
        """Raises OperationalError inside a transaction that has written: it is no commit yet."""
        if database.is_writing:
            raise OperationalError(
                f"{database.path}: the open transaction has changes; commit before copying"
            )
        self.database = database
        self.snapshot: Snapshot = database.store.begin_read()
        try:
            header = self.snapshot.header()
            numbers = header.catalog_number, header.schema_number
            tree = BTree(self.snapshot, header.catalog_root)
            self.catalog: Catalog = load_catalog(tree, numbers, database.path, None)
            self.pages = self.snapshot.page_count - free_pages(self.snapshot)
        except BaseException:
            self.snapshot.close()
            raise

    def header(self) -> Header:
        """A copy of page 1."""
        return self.snapshot.header().copy()

    def close(self) -> None:
        """Let the snapshot go."""
        self.snapshot.close()


# ------------------------------------------------------------------------- a new file


def copy_into(database: Database, path: str) -> int:
    """VACUUM INTO: a compact database of its own at `path`; returns its pages.

    Raises OperationalError inside a transaction, or where the file exists and is not empty.
    """
    if database.in_transaction:
        raise OperationalError("cannot VACUUM INTO inside a transaction")
    vfs = vfs_for_files(database.store.vfs)
    source = Source(database)
    try:
        return write_file(source, vfs, path, _tick_of(database), compact=True)
    finally:
        source.close()


def vfs_for_files(vfs: Vfs) -> Vfs:
    """Where files are written that are to stay: those of a database in memory are real ones."""
    if vfs.name != "memory":
        return vfs
    from m2mdb.pager.os_vfs import OsVfs

    return OsVfs()


def _tick_of(database: Database) -> Tick:
    return lambda pages: database.check_interrupted()


def write_file(source: Source, vfs: Vfs, path: str, tick: Tick, *, compact: bool) -> int:
    """The copy under its own name, once it is whole (CO2); returns its pages.

    compact  dead rows of segments are left out
    """
    path = vfs.resolve(path)
    _check_absent(vfs, path)
    draft = f"{path}-new-{vfs.random(4).hex()}"
    try:
        pages = _write_draft(source, vfs, draft, tick)
        if compact and any(map(half_dead, source.catalog.by_id.values())):
            pages = _compact(vfs, draft)
        _name(vfs, draft, path)
    except BaseException as error:
        for suffix in _SIDECARS:
            with contextlib.suppress(OperationalError):
                vfs.unlink(draft + suffix)
        if isinstance(error, OperationalError):  # of the file that was asked for, not of its draft
            error.args = (str(error).replace(draft, path), *error.args[1:])
        raise
    vfs.sync_dir(path)
    return pages


def _check_absent(vfs: Vfs, path: str) -> None:
    if vfs.exists(path) and vfs.size(path):
        raise _is_there(path)


def _is_there(path: str) -> OperationalError:
    return OperationalError(f"{path} exists and is not empty; nothing was written")


def _name(vfs: Vfs, draft: str, path: str) -> None:
    """Give the draft its name, unless somebody has made a database there meanwhile (CO5)."""
    if not vfs.exists(path):
        try:
            vfs.rename(draft, path, replace=False)
        except OperationalError as error:
            if isinstance(error.__cause__, FileExistsError):
                raise _is_there(path) from error
            raise
        return
    file = vfs.open(path)
    try:
        locks = Locks(file)
        if not (locks.exclusive(OPENING) and locks.exclusive(ATTACH)):
            raise OperationalError(f"another process has {path} open; nothing was written")
        found = vfs.identity(path)
        if file.size() or found is None or found[:2] != file.identity()[:2]:
            raise _is_there(path)
        vfs.rename(draft, path)
    finally:
        file.close()


def _write_draft(source: Source, vfs: Vfs, draft: str, tick: Tick) -> int:
    snapshot = source.snapshot
    file = vfs.open(draft, create=True)
    try:
        header = source.header()
        header.uuid = vfs.random(len(header.uuid))
        header.commit = snapshot.commit
        new = NewFile(file, snapshot.page_size, snapshot.commit)
        catalog = _Items()
        copier = _Copier(source, new, tick)
        for key, value in BTree(snapshot, header.catalog_root).scan():
            if key[:1] not in (b"C", b"H", b"S", b"P"):
                catalog.put(key, value)
        for entry in source.catalog.by_id.values():
            copier.copy(entry).write(catalog)
        BTree(new, header.catalog_root).bulk_load(sorted(catalog.items.items()))
        new.finish(header)
        return new.page_count
    finally:
        file.close()


def _compact(vfs: Vfs, path: str) -> int:
    """The draft without dead rows."""
    from m2mdb.index.database import Database

    database = Database.open(vfs, path, StoreOptions(), autocommit=True)
    try:
        pages = vacuum(database).pages_after
    finally:
        database.close()
    _check_closed(vfs, path)
    return pages


def _check_closed(vfs: Vfs, path: str) -> None:
    """Raise where the last close, which swallows its errors, has not made the file whole.

    It removes the log when the flag that says so is durable, and not before.
    """
    file = vfs.open(path, read_only=True)
    try:
        flag = LogFlag.decode(file.read_at(FLAG_OFFSET, FLAG_SIZE), path)
    finally:
        file.close()
    if flag.needed or vfs.exists(path + "-wal"):
        raise OperationalError(f"{path} could not be closed; nothing was written")


class _Items:
    """What is put into the catalog of a new file, which is loaded at the end."""

    def __init__(self) -> None:
        self.items: dict[bytes, bytes] = {}

    def get(self, key: bytes) -> bytes | None:
        """A value that was put."""
        return self.items.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        """Set a value."""
        self.items[key] = value


# ------------------------------------------------------------------------- another database


def replace_content(write: WriteView, source: Source, tick: Tick) -> None:
    """Let a database hold what the source holds, in the open statement (CO3, CO6)."""
    receipts = _Receipts(source, write)
    if receipts.state is not None:
        write.transaction.scrub_freed()
    for name in write.names():
        write.drop_collection(name)
    transaction, new = write.transaction, write.transaction.new_commit
    tree = write.catalog_tree()
    copier = _Copier(source, transaction, tick)
    copier.newest = new
    for entry in source.catalog.by_id.values():
        copier.copy(entry).write(tree)
    receipts.write(tree, new)
    header = transaction.change_header()
    theirs = source.header()
    header.application_id, header.user_version = theirs.application_id, theirs.user_version
    numbers = write.catalog.number + 1, write.catalog.schema_number + 1
    catalog = load_catalog(tree, numbers, write.database.path, None)
    catalog.next_id = max(write.catalog.next_id, source.catalog.next_id)
    catalog.keep_commits = source.catalog.keep_commits
    catalog.kept_from = new if catalog.keep_commits else 0
    catalog.quiet = ()
    put_kept(tree, catalog)
    put_quiet(tree, catalog)
    write.set_catalog(catalog)
    write.forget_views()


class _Receipts:
    """The receipts of the target with those of the source, all of them pending anew (CO6)."""

    def __init__(self, source: Source, write: WriteView) -> None:
        self.state, self.stored = _receipts_in(write.transaction, write.database.path)
        theirs, stored = _receipts_in(source.snapshot, source.database.path)
        if theirs is None:
            return
        if self.state is None:
            self.state, self.stored = theirs, stored
        elif self.state.digest_key == theirs.digest_key:
            # Rows that came back may be forgotten again: equal ones are counted.
            known = Counter((each.collection_id, each.digest) for each in self.stored)
            for each in stored:
                known[each.collection_id, each.digest] -= 1
                if known[each.collection_id, each.digest] < 0:
                    self._append(each)

    def _append(self, receipt: StoredReceipt) -> None:
        assert self.state is not None
        number = self.state.next_number
        self.stored.append(receipt._replace(number=number))
        self.state = self.state._replace(next_number=number + 1)

    def write(self, tree: BTree, newest: int) -> None:
        """Write them to the catalog of the target, which reaches commit `newest` by it."""
        if self.state is not None:
            pending = [
                each._replace(commit=min(each.commit, newest), done=0) for each in self.stored
            ]
            put_receipts(tree, self.state._replace(pending=len(pending)), pending)


def _receipts_in(
    pages: Snapshot | Transaction, where: str
) -> tuple[ForgetState | None, list[StoredReceipt]]:
    root = pages.header().catalog_root
    return load_state(BTree(pages, root), where), load_receipts(pages, root, where)


class _Copied:
    """One collection as it stands in the copy, to be written to its catalog."""

    def __init__(self, entry: CollectionEntry) -> None:
        self.entry = entry

    def write(self, catalog: CatalogItems) -> None:
        """Put all that the catalog says of it."""
        entry = self.entry
        put_entry(catalog, entry, described=True)
        for record in entry.records.values():
            put_segment(catalog, entry.id, record)
        for record in entry.past.values():
            put_past(catalog, entry.id, record)
        if entry.schema_commit or entry.forget_commit:
            put_limits(catalog, entry)
        put_drift(catalog, entry)
        put_statistics(catalog, entry)


class _Copier:
    """Copies collections into a sink."""

    def __init__(self, source: Source, sink: Sink, tick: Tick) -> None:
        self.source = source
        self.sink = sink
        self.tick = tick
        self.newest = 0  # commits count as this one at the latest; 0: all stay as they are

    def copy(self, old: CollectionEntry) -> _Copied:
        """Copy trees and extents; what names them is for the catalog."""
        entry = old.copy()
        entry.segments, entry.opened, entry.past_opened = {}, None, None
        if self.newest:
            random = self.source.database.store.vfs.random(_RANDOM_START)
            entry.base_sequence, entry.past = int.from_bytes(random, "little"), {}
            entry.schema_commit = self.newest if self.source.catalog.keep_commits else 0
            entry.forget_commit = 0
            entry.drift = {
                column: state._replace(
                    since=min(state.since, self.newest), alarmed=min(state.alarmed, self.newest)
                )
                for column, state in old.drift.items()
            }
        shift = entry.base_sequence - old.base_sequence
        roots = {what: BTree.create(self.sink) for what, _ in roots_of(old)}
        replace_roots(entry, roots)
        open_segments(self.source.snapshot, old)
        for records in (entry.records, entry.past):
            for id_, record in records.items():
                records[id_] = self._record(record, old.segments.get(id_))
        entry.raw = entry.encode()
        for what, root in roots_of(old):
            items = self._items(root)
            if what == "delta" and self.newest:
                items = self._renumbered(items, shift)
            elif what == "deletes":
                items = self._deletions(items, entry)
            BTree(self.sink, roots[what]).bulk_load(items)
        return _Copied(entry)

    # -- trees ---------------------------------------------------------------------------------

    def _items(self, root: int) -> Iterator[tuple[bytes, bytes]]:
        for keys, values in BTree(self.source.snapshot, root).runs():
            self.tick(1 + sum(map(len, values)) // self.sink.page_size)
            yield from zip(keys, values, strict=True)

    def _renumbered(
        self, items: Iterator[tuple[bytes, bytes]], shift: int
    ) -> Iterator[tuple[bytes, bytes]]:
        """CO4, and no commit that the target has not reached."""
        for key, value in items:
            (sequence,) = SEQUENCE.unpack(key)
            (commit,) = _COMMIT.unpack(value[_COMMIT_AT])
            head = value[:1] + _COMMIT.pack(min(commit, self.newest))
            yield SEQUENCE.pack(sequence + shift), head + value[_COMMIT_AT.stop :]

    def _deletions(
        self, items: Iterator[tuple[bytes, bytes]], entry: CollectionEntry
    ) -> Iterator[tuple[bytes, bytes]]:
        """The chunks, and the collection's own description behind them."""
        where = f"deletions of {entry.schema.name}"
        for key, value in items:
            if key == DESCRIPTION_KEY:
                continue
            if self.newest and int.from_bytes(key[:4], "big") in entry.records:
                ended = decode_deletions(value, where).tolist()
                yield key, encode_deletions({at: min(commit, self.newest) for at, commit in ended})
            elif not self.newest:
                yield key, value
        yield DESCRIPTION_KEY, describe_collection(entry)

    # -- extents -------------------------------------------------------------------------------

    def _record(self, old: SegmentRecord, segment: Segment | None) -> SegmentRecord:
        record = old.copy()
        changed: ExtentDescriptor | None = None
        at = size = 0
        if self.newest:
            record.commit = min(old.commit, self.newest)
            assert segment is not None
            if segment.has("commits", 0):
                extent, at, size = segment.range_of("commits", 0)
                changed = extent.descriptor
        record.extents = tuple(
            self._extent(each, (at, at + size) if each == changed else (0, 0))
            for each in old.extents
        )
        return record

    def _extent(self, descriptor: ExtentDescriptor, commits: tuple[int, int]) -> ExtentDescriptor:
        """Copy an extent; the numbers between two bytes of it are commits."""
        return self.sink.write_extent(self._parts(descriptor, commits), descriptor.size)

    def _parts(self, descriptor: ExtentDescriptor, commits: tuple[int, int]) -> Iterator[bytes]:
        extent = self.source.snapshot.extent(descriptor)
        start, stop = commits
        at = 0
        while at < descriptor.size:
            edge = next((edge for edge in (start, stop) if at < edge), descriptor.size)
            size = min(_CHUNK, edge - at, descriptor.size - at)
            raw = extent.read(at, size)
            if start <= at < stop:
                raw = np.minimum(np.frombuffer(raw, "<u8"), np.uint64(self.newest)).tobytes()
            self.tick(-(-size // self.sink.page_size))
            yield raw
            at += size
