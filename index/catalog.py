"""The catalog: which collections there are, and where their parts lie.

A B-tree at `header.catalog_root`. Numbers inside keys are big-endian u32:

    "!"                          what a reader has to know: `index.needs`
    "N"                          next collection id, u32
    "C" collection               JSON: name, columns, indexes, roots of the delta and the deletions
    "H" collection               HEAD: base sequence, next rowid, next segment, next column id
    "S" collection segment       SegmentRecord
    "P" collection segment       newest ending commit u64, SegmentRecord: versions that are kept
    "A" collection               LIMITS: commits of the last schema change and the last FORGET
    "D" collection column        how far new vectors lie from the lists: `index.drift`
    "T" collection column        what ANALYZE has counted: `index.statistics`
    "K"                          KEPT: keep_commits, the oldest commit that it reaches back to
    "Q"                          commits that do not count for keep_commits: `index.quiet`
    "W" commit                   when a commit was made, and by whom: `index.moments`

`catalog_number` in the header grows with every change here, `schema_number` with those that
change a schema; by them a reader knows whether what it holds is still true.

Invariants
    A1  A Catalog object is never changed: a change makes another one, so that undoing a statement
        is putting the old reference back (S12).
    A2  Every change of the tree raises `catalog_number` in the same transaction, but those of
        receipts ("F") and moments ("W"), which the catalog is loaded without.
    A3  Without "K", "Q", "A" and "P" nothing of the past is kept: a file that never asked for it
        has none of them.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Protocol

from m2mdb.index.catalog_check import check_catalog, check_description, check_fields
from m2mdb.index.drift import KIND as DRIFT_KIND
from m2mdb.index.drift import Drift, column_of_key
from m2mdb.index.drift import remove_all as remove_drift
from m2mdb.index.moments import AFTER as AFTER_MOMENTS
from m2mdb.index.moments import KIND as MOMENTS
from m2mdb.index.needs import KEY as NEEDS
from m2mdb.index.needs import check_needs, newer
from m2mdb.index.quiet import (
    QUIET_KEY,
    Ranges,
    count_back,
    decode_ranges,
    encode_ranges,
    with_commit,
)
from m2mdb.index.schema import Check, CollectionSchema, Column, IndexInfo, closest
from m2mdb.index.segment import Segment, SegmentRecord
from m2mdb.index.statistics import KIND as STATISTICS_KIND
from m2mdb.index.statistics import ColumnStatistics, statistics_key
from m2mdb.pager.btree import BTree
from m2mdb.pager.errors import CorruptDatabaseError, ProgrammingError

if TYPE_CHECKING:
    import numpy as np

HEAD = struct.Struct("<QQII")
LIMITS = struct.Struct("<QQ")
KEPT = struct.Struct("<QQ")
NEWEST_END = struct.Struct("<Q")
_WRONG = (ValueError, TypeError, AttributeError, ArithmeticError, RecursionError, ProgrammingError)
_OF_COLLECTIONS = (b"H", b"S", b"P", b"A", DRIFT_KIND, STATISTICS_KIND)
CHECKED = "checked"  # a field of the first column: readers without CHECK refuse it
_ID = struct.Struct(">I")
_SEGMENT_ID = struct.Struct(">II")


class CatalogItems(Protocol):
    """What items of the catalog are put into: its B-tree, or those of a copy that is being made."""

    def get(self, key: bytes, /) -> bytes | None:
        """The value of a key, or None."""

    def put(self, key: bytes, value: bytes, /) -> None:
        """Set the value of a key."""


class CollectionEntry:
    """One collection as the catalog describes it, with what was read of its segments."""

    __slots__ = (
        "base_sequence",
        "dead",
        "deletes_root",
        "delta_root",
        "drift",
        "forget_commit",
        "id",
        "next_column",
        "next_rowid",
        "next_segment",
        "opened",
        "past",
        "past_opened",
        "raw",
        "records",
        "schema",
        "schema_commit",
        "segments",
        "statistics",
    )

    def __init__(self, id: int, schema: CollectionSchema) -> None:
        self.id = id
        self.schema = schema
        self.delta_root = 0
        self.deletes_root = 0
        self.base_sequence = 0
        self.next_rowid = 1
        self.next_segment = 1
        self.next_column = 1
        self.raw = b""
        self.records: dict[int, SegmentRecord] = {}
        self.segments: dict[int, Segment] = {}  # opened ones; immutable once here
        self.opened: tuple[Segment, ...] | None = None  # all segments in the order of their ids
        self.dead: dict[int, np.ndarray] = {}  # bool masks of the deletions tree, by segment
        self.past: dict[int, SegmentRecord] = {}  # segments of ended versions alone, kept (S25)
        self.past_opened: tuple[Segment, ...] | None = None
        self.schema_commit = 0  # AS OF cannot go before these two
        self.forget_commit = 0
        self.drift: dict[int, Drift] = {}  # by column id
        self.statistics: dict[int, ColumnStatistics] = {}  # by column id

    def copy(self) -> CollectionEntry:
        """A copy to change; opened segments and masks come along."""
        other = CollectionEntry(self.id, self.schema)
        for field in CollectionEntry.__slots__:
            value = getattr(self, field)
            setattr(other, field, dict(value) if isinstance(value, dict) else value)
        return other

    def encode(self) -> bytes:
        """The "C" value."""
        import json

        schema = self.schema
        columns = [column.encode() for column in schema.columns]
        if schema.checks:
            columns[0][CHECKED] = True
        fields = {
            "name": schema.name,
            "columns": columns,
            "indexes": [index.encode() for index in schema.indexes],
            **({"checks": [check.encode() for check in schema.checks]} if schema.checks else {}),
            "delta_root": self.delta_root,
            "deletes_root": self.deletes_root,
        }
        return json.dumps(fields, separators=(",", ":")).encode()

    def encode_head(self) -> bytes:
        """The "H" value."""
        return HEAD.pack(self.base_sequence, self.next_rowid, self.next_segment, self.next_column)

    @classmethod
    def decode(cls, id: int, raw: bytes, where: str) -> CollectionEntry:
        """Raises CorruptDatabaseError where the description is not one."""
        import json

        try:
            fields = json.loads(raw)
            check_fields(fields["columns"], f"{where}: collection {id}")
            is_checked = fields["columns"][0].pop(CHECKED, False)
            columns = tuple(Column.decode(column) for column in fields["columns"])
            indexes = tuple(IndexInfo.decode(index) for index in fields["indexes"])
            checks = tuple(Check(**each) for each in fields.get("checks", ()))
            if is_checked and not checks:
                raise ValueError("its CHECKs are gone")
            entry = cls(id, CollectionSchema(str(fields["name"]), columns, indexes, checks))
            check_description(entry.schema, (fields["delta_root"], fields["deletes_root"]))
            entry.delta_root = fields["delta_root"]
            entry.deletes_root = fields["deletes_root"]
        except (LookupError, *_WRONG) as problem:
            raise CorruptDatabaseError(
                f"{where}: collection {id} has a damaged description: {problem}"
            ) from problem
        entry.raw = raw
        return entry


class Catalog:
    """All collections at one catalog number."""

    __slots__ = (
        "by_id", "by_name", "keep_commits", "kept_from", "next_id", "number", "quiet",
        "schema_number",
    )  # fmt: skip

    def __init__(self, number: int, schema_number: int) -> None:
        self.number = number
        self.schema_number = schema_number
        self.next_id = 1
        self.keep_commits = 0
        self.kept_from = 0  # nothing was kept for AS OF before this commit
        self.quiet: Ranges = ()  # commits that do not count for keep_commits
        self.by_id: dict[int, CollectionEntry] = {}
        self.by_name: dict[str, CollectionEntry] = {}

    def entry(self, name: str) -> CollectionEntry:
        """The collection of this name; ProgrammingError where there is none."""
        found = self.by_name.get(name) or self.by_name.get(name.lower())
        if found is None:
            close = closest(name, self.by_name)
            hint = f"; did you mean {self.by_name[close].schema.name}?" if close else ""
            raise ProgrammingError(f"no such collection: {name}{hint}")
        return found

    def oldest_commit(self, entry: CollectionEntry | None, newest: int) -> int:
        """The oldest commit that AS OF can name where `newest` is the newest one (S25).

        Versions that ended at that commit or before are of no use to anybody. Without an entry:
        as far as `keep_commits` goes; a collection's own past may begin later.
        """
        oldest = max(self.counted_back(newest), self.kept_from)
        if entry is None:
            return oldest
        return max(oldest, entry.schema_commit, entry.forget_commit)

    def counted_back(self, newest: int) -> int:
        """The oldest commit that `keep_commits` reaches, whenever it was set."""
        return count_back(self.quiet, self.keep_commits, newest)

    def index_owner(self, name: str) -> CollectionEntry | None:
        """The collection that has an index of this name."""
        for entry in self.by_id.values():
            if entry.schema.index(name) is not None:
                return entry
        return None

    def replaced(
        self, entry: CollectionEntry | None, *, removed: int = 0, schema_changed: bool = False
    ) -> Catalog:
        """This catalog with one entry put or removed, one number on (A1)."""
        other = Catalog(self.number + 1, self.schema_number + schema_changed)
        other.next_id = self.next_id
        other.keep_commits, other.kept_from = self.keep_commits, self.kept_from
        other.quiet = self.quiet
        other.by_id = dict(self.by_id)
        other.by_id.pop(removed, None)
        if entry is not None:
            other.by_id[entry.id] = entry
            other.next_id = max(self.next_id, entry.id + 1)
        other.by_name = {e.schema.name.lower(): e for e in other.by_id.values()}
        return other


def load_catalog(
    tree: BTree, numbers: tuple[int, int], where: str, known: Catalog | None
) -> Catalog:
    """Read the catalog; what equals the `known` one is taken from there, opened segments too.

    numbers  (catalog number, schema number) of the header
    """
    catalog = Catalog(*numbers)
    # between F and G: `index.receipts`; from W on: `index.moments`
    items = [*tree.scan(None, b"F"), *tree.scan(b"G", MOMENTS), *tree.scan(AFTER_MOMENTS)]
    if items and items[0][0] == NEEDS:
        check_needs(items.pop(0)[1], where)
    for key, raw in items:
        if key[:1] == b"C":
            entry = _load_entry(_key_number(key, 1, where), raw, where, known)
            catalog.by_id[entry.id] = entry
        elif key == b"N":
            (catalog.next_id,) = _unpacked(_ID, raw, key, where)
        elif key == b"K":
            catalog.keep_commits, catalog.kept_from = _unpacked(KEPT, raw, key, where)
        elif key == QUIET_KEY:
            catalog.quiet = decode_ranges(raw, where)
    for key, raw in items:
        kind = key[:1]
        if kind == b"C" or key in (b"N", b"K", QUIET_KEY):
            continue
        if kind not in _OF_COLLECTIONS:
            raise newer(where, f"the catalog's key {key[:32]!r}")
        owner = catalog.by_id.get(_key_number(key, 1, where))
        if owner is None:
            raise CorruptDatabaseError(f"{where}: catalog key {key!r} belongs to no collection")
        if kind == b"H":
            _load_head(owner, raw, where)
        elif kind == b"A":
            owner.schema_commit, owner.forget_commit = _unpacked(LIMITS, raw, key, where)
        elif kind == b"P":
            _load_past(owner, raw, where, known)
        elif kind == DRIFT_KIND:
            owner.drift[column_of_key(key, where)] = Drift.decode(raw, where)
        elif kind == STATISTICS_KIND:
            column = column_of_key(key, where)
            owner.statistics[column] = ColumnStatistics.decode(raw, where)
        else:
            _load_segment(owner, raw, where, known)
    catalog.by_name = {entry.schema.name.lower(): entry for entry in catalog.by_id.values()}
    check_catalog(catalog, where)
    return catalog


def _key_number(key: bytes, at: int, where: str) -> int:
    if len(key) < at + _ID.size:
        raise CorruptDatabaseError(f"{where}: catalog key {key!r} is too short")
    return int(_ID.unpack_from(key, at)[0])


def _unpacked(layout: struct.Struct, raw: bytes, key: bytes, where: str) -> tuple[Any, ...]:
    if len(raw) != layout.size:
        raise CorruptDatabaseError(f"{where}: catalog key {key!r} has a value of {len(raw)} bytes")
    return layout.unpack(raw)


def _load_entry(id: int, raw: bytes, where: str, known: Catalog | None) -> CollectionEntry:
    old = known.by_id.get(id) if known is not None else None
    if old is None or old.raw != raw:
        return CollectionEntry.decode(id, raw, where)
    entry = CollectionEntry(id, old.schema)
    entry.raw = raw
    entry.delta_root, entry.deletes_root = old.delta_root, old.deletes_root
    return entry


def _load_head(entry: CollectionEntry, raw: bytes, where: str) -> None:
    if len(raw) != HEAD.size:
        raise CorruptDatabaseError(f"{where}: collection {entry.id} has a head of {len(raw)} bytes")
    head = HEAD.unpack(raw)
    entry.base_sequence, entry.next_rowid, entry.next_segment, entry.next_column = head


def _load_segment(entry: CollectionEntry, raw: bytes, where: str, known: Catalog | None) -> None:
    record = SegmentRecord.decode(raw, where)
    entry.records[record.id] = record
    old = known.by_id.get(entry.id) if known is not None else None
    before = old.records.get(record.id) if old is not None else None
    if old is None or before is None or before.commit != record.commit:
        return
    if record.id in old.segments and before.extents == record.extents:
        entry.segments[record.id] = old.segments[record.id]
    if record.id in old.dead and before.encode() == raw:
        entry.dead[record.id] = old.dead[record.id]


def _load_past(entry: CollectionEntry, raw: bytes, where: str, known: Catalog | None) -> None:
    if len(raw) < NEWEST_END.size:
        raise CorruptDatabaseError(f"{where}: a kept segment has a record of {len(raw)} bytes")
    record = SegmentRecord.decode(raw[NEWEST_END.size :], where)
    (record.newest_end,) = NEWEST_END.unpack_from(raw)
    if record.deleted != record.rows:
        raise CorruptDatabaseError(
            f"{where}: kept segment {record.id} has {record.rows} rows, of which "
            f"{record.deleted} ended"
        )
    entry.past[record.id] = record
    old = known.by_id.get(entry.id) if known is not None else None
    if old is None or record.id not in old.segments:
        return
    before = old.past.get(record.id) or old.records.get(record.id)
    if before is not None and (before.commit, before.extents) == (record.commit, record.extents):
        entry.segments[record.id] = old.segments[record.id]


# ------------------------------------------------------------------------- changing


def collection_key(kind: bytes, id: int) -> bytes:
    """The key of a collection's "C" or "H" value."""
    return kind + _ID.pack(id)


def segment_key(collection: int, segment: int) -> bytes:
    """The key of a segment's record."""
    return b"S" + _SEGMENT_ID.pack(collection, segment)


def put_entry(tree: CatalogItems, entry: CollectionEntry, *, described: bool) -> None:
    """Write an entry's head, and its description where that changed."""
    if described:
        entry.raw = entry.encode()
        tree.put(collection_key(b"C", entry.id), entry.raw)
        if _next_id(tree) <= entry.id:
            tree.put(b"N", _ID.pack(entry.id + 1))
    tree.put(collection_key(b"H", entry.id), entry.encode_head())


def _next_id(tree: CatalogItems) -> int:
    raw = tree.get(b"N")
    return int(_ID.unpack(raw)[0]) if raw is not None else 1


def put_segment(tree: CatalogItems, collection: int, record: SegmentRecord) -> None:
    """Write one segment's record."""
    tree.put(segment_key(collection, record.id), record.encode())


def past_key(collection: int, segment: int) -> bytes:
    """The key of a kept segment's record."""
    return b"P" + _SEGMENT_ID.pack(collection, segment)


def put_past(tree: CatalogItems, collection: int, record: SegmentRecord) -> None:
    """Write one kept segment's record."""
    tree.put(past_key(collection, record.id), NEWEST_END.pack(record.newest_end) + record.encode())


def put_limits(tree: CatalogItems, entry: CollectionEntry) -> None:
    """Write how far back the past of a collection can go."""
    limits = LIMITS.pack(entry.schema_commit, entry.forget_commit)
    tree.put(collection_key(b"A", entry.id), limits)


def put_kept(tree: BTree, catalog: Catalog) -> None:
    """Write how many commits are kept."""
    tree.put(b"K", KEPT.pack(catalog.keep_commits, catalog.kept_from))


def put_quiet(tree: BTree, catalog: Catalog) -> None:
    """Write which commits do not count for keep_commits."""
    if catalog.quiet:
        tree.put(QUIET_KEY, encode_ranges(catalog.quiet))
    else:
        tree.delete(QUIET_KEY)


def pass_over(tree: BTree, commit: int, where: str) -> bool:
    """Make the newest commit a quiet one, in a catalog's tree; False where none is kept anyway."""
    kept = tree.get(b"K")
    count = _unpacked(KEPT, kept, b"K", where)[0] if kept is not None else 0
    if count:
        ranges = decode_ranges(tree.get(QUIET_KEY) or b"", where)
        tree.put(QUIET_KEY, encode_ranges(with_commit(ranges, commit, count)))
    return bool(count)


def remove_entry(tree: BTree, entry: CollectionEntry) -> None:
    """Remove everything the catalog says of a collection."""
    for record in entry.records:
        tree.delete(segment_key(entry.id, record))
    for record in entry.past:
        tree.delete(past_key(entry.id, record))
    if entry.schema_commit or entry.forget_commit:
        tree.delete(collection_key(b"A", entry.id))
    remove_drift(tree, entry)
    for column in entry.statistics:
        tree.delete(statistics_key(entry.id, column))
    tree.delete(collection_key(b"H", entry.id))
    tree.delete(collection_key(b"C", entry.id))


def describe(catalog: Catalog) -> list[dict[str, Any]]:
    """The collections for people: names, columns, indexes, in the order of creation."""
    found = []
    for id_ in sorted(catalog.by_id):
        entry = catalog.by_id[id_]
        found.append(
            {
                "name": entry.schema.name,
                "columns": [(c.name, c.declaration()) for c in entry.schema.columns],
                "indexes": [(i.name, i.column, i.kind) for i in entry.schema.indexes],
                "segments": len(entry.records),
            }
        )
    return found
