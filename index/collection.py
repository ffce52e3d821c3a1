"""A collection at one snapshot: its parts, its rows, and how a row is found.

Every read covers the delta and all segments. Both are *parts*: runs of rows with ordinals, some
of them ended. A row has one place, (part index, ordinal), at a given snapshot (S21).

Invariants
    L1  `parts()[0]` is the delta; the segments follow in the order of their ids.
    L2  A rowid is live in at most one part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from m2mdb.index.absent import opened, still_fits
from m2mdb.index.catalog import CollectionEntry
from m2mdb.index.column_parts import key_hash
from m2mdb.index.delta import DeltaMirror
from m2mdb.index.effort import EXACT, Effort
from m2mdb.index.schema import CollectionSchema, Column
from m2mdb.index.segment import SCALAR_PARTS, Segment
from m2mdb.index.slices import WATCHED_VALUES, Check, mapped, picked, pieced, slices
from m2mdb.index.values import timestamp_value
from m2mdb.index.verifying import verify_vectors
from m2mdb.index.zones import Zones, zones_of
from m2mdb.pager.errors import CorruptDatabaseError

if TYPE_CHECKING:
    from m2mdb.compute.backend import Backend
    from m2mdb.index.database import Database
    from m2mdb.index.found import Found
    from m2mdb.index.lexical import TextSearcher
    from m2mdb.index.masks import KeptMasks
    from m2mdb.index.prepared import Prepared
    from m2mdb.index.text.delta_postings import DeltaPostings
    from m2mdb.index.text.match_query import TextQuery
    from m2mdb.index.text.source import Source
    from m2mdb.wal.snapshot import Snapshot
    from m2mdb.wal.transaction import Transaction

    Pages: TypeAlias = Snapshot | Transaction

Place = tuple[int, int]
_DELETION = np.dtype([("ordinal", "<u4"), ("commit", "<u8")])
DELETION_SIZE = _DELETION.itemsize


class SegmentPart:
    """The rows of one segment at a snapshot."""

    __slots__ = ("_is_whole", "_live", "_view", "segment", "size")

    def __init__(self, view: CollectionView, segment: Segment) -> None:
        self._view = view
        self.segment = segment
        self.size = segment.rows
        self._is_whole = False
        self._live: np.ndarray | None = None

    @property
    def name(self) -> str:
        """For EXPLAIN."""
        return f"segment {self.segment.id}"

    @property
    def rowids(self) -> np.ndarray:
        """int64 (size,)."""
        return self.segment.rowids

    @property
    def live(self) -> np.ndarray | None:
        """bool (size,), or None when every row is live; not to be changed."""
        if self._live is None and not self._is_whole:
            view, segment = self._view, self.segment
            dead = view.dead(segment.id)
            killed = view.mirror.killed(segment.id, view.end)
            if dead is None and not killed:
                self._is_whole = True
                return None
            live = np.ones(self.size, bool) if dead is None else ~dead
            if killed:
                check_ordinal(view.schema.name, segment, max(killed))
                live[killed] = False
            self._live = live
        return self._live

    @property
    def live_count(self) -> int:
        """How many rows are live."""
        live = self.live
        return self.size if live is None else int(np.count_nonzero(live))

    def column_id(self, column_index: int) -> int:
        """The id by which the segment knows a column."""
        return self._view.schema.columns[column_index].id

    def check(self) -> None:
        """Raise where the statement is to stop."""
        self._view.check()

    @property
    def kept_masks(self) -> KeptMasks:
        """Masks of all rows, for conditions that depend on these alone."""
        return self.segment.masks

    def is_live(self, ordinal: int) -> bool:
        """Whether one row is live, without building the whole mask."""
        view, id_ = self._view, self.segment.id
        if view.mirror.is_killed(id_, ordinal, view.end):
            return False
        dead = view.dead(id_)
        return dead is None or not dead[ordinal]

    def value(self, column_index: int, ordinal: int) -> Any:
        """One Python value."""
        column = self._view.schema.columns[column_index]
        value = self.segment.value(column, ordinal)
        return None if value is None else _given(column, value)

    def few_values(self, column_index: int, ordinals: Sequence[int]) -> list[Any]:
        """Python values of a few rows."""
        column = self._view.schema.columns[column_index]
        if column.type == "TIMESTAMP":
            return [self.value(column_index, ordinal) for ordinal in ordinals]
        return self.segment.few_values(column, ordinals)

    def stored(self, column_index: int, ordinal: int) -> Any:
        """One value in stored form."""
        return self.segment.value(self._view.schema.columns[column_index], ordinal)

    def values(self, column_index: int, ordinals: np.ndarray | None = None) -> list[Any]:
        """Python values of some or all rows; the list may be shared: not to be changed."""
        column = self._view.schema.columns[column_index]
        if ordinals is not None and len(ordinals) * 16 < self.size:
            return [self.value(column_index, int(ordinal)) for ordinal in ordinals]
        if column.is_vector:
            verify_vectors(self.segment, column, self._view.check)
            return _vector_values(self, column_index, ordinals, self._view.check)
        check = self._view.check
        found = self.segment.values(column, check)
        if ordinals is not None:
            found = picked(found, ordinals, check)
        if column.type == "TIMESTAMP":
            found = mapped(found, lambda v: None if v is None else timestamp_value(v), check)
        return found

    def numbers(self, column_index: int) -> tuple[np.ndarray, np.ndarray | None] | None:
        """(values, bool NULL mask or None) of a numeric column; None for the other types.

        TIMESTAMP comes as int64 microseconds, BOOLEAN as u8.
        """
        column = self._view.schema.columns[column_index]
        if column.type not in SCALAR_PARTS:
            return None
        values, nulls = self.segment.numbers(column, self._view.check)
        return values, None if nulls is None else nulls.view(bool)

    def zones(self, column_index: int) -> Zones | None:
        """The zone map of a column, or None."""
        return zones_of(self.segment, self._view.schema.columns[column_index])

    def vectors(self, column_index: int, ordinals: np.ndarray) -> np.ndarray:
        """Copies of some vectors, (n, dimension)."""
        return self.segment.vector_rows(self._view.schema.columns[column_index], ordinals)

    def present(self, column_index: int) -> np.ndarray | None:
        """bool (size,): which rows have a vector; None when all have."""
        nulls = self.segment.nulls(self._view.schema.columns[column_index])
        return None if nulls is None else nulls == 0

    def matrix(self, column_index: int) -> np.ndarray | None:
        """All vectors, (size, dimension), where the map of them is verified; else None."""
        column = self._view.schema.columns[column_index]
        return self.segment.matrix(column) if self.segment.is_verified(column) else None


class DeltaPart:
    """The row versions of the delta before a snapshot's end."""

    __slots__ = ("_is_whole", "_live", "_present", "_rowids", "_view", "size")

    def __init__(self, view: CollectionView) -> None:
        self._view = view
        self.size = view.mirror.count_before(view.end)
        self._is_whole = False
        self._live: np.ndarray | None = None
        self._present: dict[int, np.ndarray | None] = {}  # by column; a version never changes
        self._rowids: np.ndarray | None = None

    @property
    def name(self) -> str:
        """For EXPLAIN."""
        return "delta"

    @property
    def rowids(self) -> np.ndarray:
        """int64 (size,), in the order in which the versions were written."""
        if self._rowids is None:
            self._rowids = self._view.mirror.rowids(self.size)
        return self._rowids

    @property
    def live(self) -> np.ndarray | None:
        """bool (size,), or None when every version is live."""
        if self._live is None and not self._is_whole:
            live = self._view.mirror.live(self.size, self._view.end)
            if live.all():
                self._is_whole = True
                return None
            self._live = live
        return self._live

    @property
    def live_count(self) -> int:
        """How many versions are live."""
        live = self.live
        return self.size if live is None else int(np.count_nonzero(live))

    def value(self, column_index: int, ordinal: int) -> Any:
        """One Python value."""
        column = self._view.schema.columns[column_index]
        value = self.stored(column_index, ordinal)
        return None if value is None else _given(column, value)

    def few_values(self, column_index: int, ordinals: Sequence[int]) -> list[Any]:
        """Python values of a few versions."""
        mirror, column = self._view.mirror, self._view.schema.columns[column_index]
        if column.is_vector or column.type == "TIMESTAMP":
            return [self.value(column_index, ordinal) for ordinal in ordinals]
        values = mirror.columns[column_index]
        return [values[ordinal] for ordinal in ordinals]

    def stored(self, column_index: int, ordinal: int) -> Any:
        """One value in stored form; a vector as a copied array."""
        growing = self._view.mirror.vectors.get(column_index)
        if growing is None:
            return self._view.mirror.columns[column_index][ordinal]
        return growing.matrix[ordinal].copy() if growing.present[ordinal] else None

    def values(self, column_index: int, ordinals: np.ndarray | None = None) -> list[Any]:
        """Python values of some or all versions."""
        if column_index in self._view.mirror.vectors:
            return _vector_values(self, column_index, ordinals, self._view.check)
        found = self._view.mirror.columns[column_index]
        picked = found[: self.size] if ordinals is None else [found[o] for o in ordinals.tolist()]
        if self._view.schema.columns[column_index].type == "TIMESTAMP":
            return [None if v is None else timestamp_value(v) for v in picked]
        return picked

    def numbers(self, column_index: int) -> tuple[np.ndarray, np.ndarray | None] | None:
        """As `SegmentPart.numbers`."""
        column = self._view.schema.columns[column_index]
        if column.type not in SCALAR_PARTS:
            return None
        values = self._view.mirror.columns[column_index][: self.size]
        _, dtype = SCALAR_PARTS[column.type]
        if None not in values:
            return np.array(values, dtype), None
        nulls = np.fromiter((v is None for v in values), bool, len(values))
        return np.array([0 if v is None else v for v in values], dtype), nulls

    def vectors(self, column_index: int, ordinals: np.ndarray) -> np.ndarray:
        """Copies of some vectors, (n, dimension)."""
        found: np.ndarray = self._view.mirror.vectors[column_index].matrix[ordinals]
        return found

    def present(self, column_index: int) -> np.ndarray | None:
        """bool (size,): which versions have a vector; None when all have."""
        try:
            return self._present[column_index]
        except KeyError:
            present = self._view.mirror.vectors[column_index].present[: self.size]
            found = self._present[column_index] = None if present.all() else present
            return found

    def matrix(self, column_index: int) -> np.ndarray | None:
        """All vectors, (size, dimension)."""
        return self._view.mirror.vectors[column_index].matrix[: self.size]

    def postings(self, column_index: int) -> DeltaPostings:
        """The inverted index of a FULLTEXT column."""
        return self._view.mirror.postings(column_index)


Part = SegmentPart | DeltaPart


def check_ordinal(collection: str, segment: Segment, ordinal: int) -> None:
    """Raise CorruptDatabaseError where the delta ends a row that its segment has not."""
    if ordinal >= segment.rows:
        raise CorruptDatabaseError(
            f"delta of {collection}: it ends row {ordinal} of segment {segment.id}, which has "
            f"{segment.rows} rows"
        )


def _given(column: Column, value: Any) -> Any:
    """A stored value as a reader gets it: moments as datetimes, vectors read-only."""
    if column.type == "TIMESTAMP":
        return timestamp_value(value)
    if column.is_vector:
        value.flags.writeable = False
    return value


def _vector_values(
    part: Part, column_index: int, ordinals: np.ndarray | None, check: Check
) -> list[Any]:
    chosen = np.arange(part.size) if ordinals is None else np.asarray(ordinals)
    present = part.present(column_index)
    found: list[Any] = []
    for some in slices(len(chosen), WATCHED_VALUES, check):
        matrix = part.vectors(column_index, chosen[some])
        matrix.flags.writeable = False
        found.extend(matrix)
    for row in [] if present is None else np.flatnonzero(~present[chosen]).tolist():
        found[row] = None
    return found


class HasPages(Protocol):
    """What gives a collection its pages; the pages of equal commits are equal."""

    database: Database
    pages: Pages


class CollectionView:
    """One collection at one snapshot (or in one transaction, at one statement)."""

    __slots__ = (
        "_parts", "end", "entry", "mirror", "prepared", "schema", "segments", "text_searchers",
        "view",
    )  # fmt: skip

    def __init__(
        self,
        view: HasPages,
        entry: CollectionEntry,
        mirror: DeltaMirror,
        end: int,
        segments: tuple[Segment, ...],
    ) -> None:
        """`end` is the sequence number before which the delta's entries count."""
        self.view = view
        self.entry = entry
        self.schema: CollectionSchema = entry.schema
        self.mirror = mirror
        self.end = end
        self.segments = segments
        self._parts: tuple[Part, ...] | None = None
        # what text searches share, by the column or None for all of them
        self.text_searchers: dict[int | None, TextSearcher] = {}
        self.prepared: dict[int, Prepared | None] = {}  # by column, see `index.prepared`

    def dead(self, segment: int) -> np.ndarray | None:
        """The mask of the rows that the deletions tree ends, or None."""
        record = self.entry.records[segment]
        if not record.deleted:
            return None
        found = self.entry.dead.get(segment)
        if found is None:
            found = load_dead(self.view.pages, self.entry, segment)
            self.entry.dead[segment] = found
        return found

    def parts(self) -> tuple[Part, ...]:
        """The delta and the segments (L1)."""
        if self._parts is None:
            self._parts = (DeltaPart(self), *(SegmentPart(self, s) for s in self.segments))
        return self._parts

    def moved_to(self, end: int) -> None:
        """The delta grew inside this view's own statement."""
        self.end = end
        self._parts = None
        self.text_searchers = {}
        self.prepared = {}

    def replace(self, entry: CollectionEntry, mirror: DeltaMirror, end: int) -> None:
        """The entry changed inside this view's own statement."""
        self.entry = entry
        self.schema = entry.schema
        self.mirror = mirror
        self.segments = open_segments(self.view.pages, entry)
        self.moved_to(end)

    def check(self) -> None:
        """Raise where the statement is to stop: called between slices of long work."""
        self.view.database.check_interrupted()

    def count(self) -> int:
        """How many rows are live."""
        return sum(part.live_count for part in self.parts())

    def place(self, rowid: int) -> Place | None:
        """Where a row is, or None."""
        entry = self.mirror.entry_of(rowid, self.end)
        if entry is not None:
            return 0, entry
        for index in range(len(self.segments) - 1, -1, -1):
            ordinal = self.segments[index].ordinal(rowid)
            if ordinal is not None and self._is_live(index, ordinal):
                return index + 1, ordinal
        return None

    def _is_live(self, segment_index: int, ordinal: int) -> bool:
        segment = self.segments[segment_index]
        if self.mirror.kills and self.mirror.is_killed(segment.id, ordinal, self.end):
            return False
        dead = self.dead(segment.id)
        return dead is None or not dead[ordinal]

    def find(self, column_index: int, value: Any) -> int | None:
        """The rowid of the row whose PRIMARY KEY or UNIQUE column has this stored value."""
        if column_index == self.schema.rowid_alias:
            return value if type(value) is int and self.place(value) is not None else None
        rowid = self.mirror.find(column_index, value, self.end)
        if rowid is not None or not self.segments:
            return rowid
        column, fold = self.schema.columns[column_index], self.mirror.folds[column_index]
        hash_ = key_hash(value if fold is None else (value := fold(value)))
        for index, segment in reversed(list(enumerate(self.segments))):
            for ordinal in segment.candidates(column.id, hash_):
                there = segment.value(column, ordinal)
                is_same = (there if fold is None else fold(there)) == value
                if is_same and self._is_live(index, ordinal):
                    return int(segment.rowids[ordinal])
        return None

    def row(self, place: Place, columns: Sequence[int]) -> tuple[Any, ...]:
        """Some Python values of the row at a place."""
        part = self.parts()[place[0]]
        ordinal = place[1]
        return tuple([part.value(column, ordinal) for column in columns])

    def rows(self, places: Sequence[Place], columns: Sequence[int]) -> list[tuple[Any, ...]]:
        """Some Python values of several rows."""
        if not columns:
            return [()] * len(places)
        return list(zip(*[self.column_at(column, places) for column in columns], strict=True))

    def column_at(self, column_index: int, places: Sequence[Place]) -> list[Any]:
        """The Python values of one column at some places."""
        parts = self.parts()
        if len(places) > WATCHED_VALUES:
            return pieced(places, partial(self.column_at, column_index), self.check)
        if len({index for index, _ in places}) == 1:
            ordinals = [ordinal for _, ordinal in places]
            return parts[places[0][0]].few_values(column_index, ordinals)
        return [parts[index].value(column_index, ordinal) for index, ordinal in places]

    def stored_row(self, place: Place) -> list[Any]:
        """All values of a row in stored form; vectors as arrays."""
        part = self.parts()[place[0]]
        return [part.stored(column, place[1]) for column in range(len(self.schema.columns))]

    def index_rowids(
        self,
        column_index: int,
        low: Any = None,
        high: Any = None,
        *,
        low_open: bool = False,
        high_open: bool = False,
        most: int | None = None,
    ) -> np.ndarray | None:
        """Candidates in rowid order from the B-tree index of a column.

        None where it has none, or more than `most`.

        A bound of None is open-ended; NULLs are never candidates of a range. The caller checks the
        rows, because long values share their key's prefix.
        """
        from m2mdb.index.secondary import column_rowids

        info = self.schema.btree_on(column_index)
        if info is None:
            return None
        return column_rowids(self, info, ((low, low_open), (high, high_open)), most)

    def nearest(
        self,
        column_index: int,
        query: np.ndarray,
        k: int,
        backend: Backend,
        masks: Sequence[np.ndarray | None] | None = None,
        *,
        effort: Effort = EXACT,
    ) -> Found:
        """The k rows nearest to a checked query; see `index.nearest`."""
        from m2mdb.index.nearest import nearest

        return nearest(self, column_index, query, k, backend, masks, effort=effort)

    def has_lists(self, column_index: int) -> bool:
        """Whether a segment has lists of a VECTOR column."""
        id_ = self.schema.columns[column_index].id
        return any(segment.has("h.head", id_) for segment in self.segments)

    def match(
        self,
        query: TextQuery,
        k: int,
        *,
        column_index: int | None = None,
        masks: Sequence[np.ndarray | None] | None = None,
        backend: Backend | None = None,
    ) -> Found:
        """The k best rows by BM25; see `index.lexical`."""
        from m2mdb.index.lexical import match

        return match(self, query, k, column_index=column_index, masks=masks, backend=backend)

    def text_source(self, part: int, source: Source) -> Source:
        """What a text search reads of a part: dead rows count until they are merged (S24)."""
        return source

    def live_rowids(self) -> Iterator[np.ndarray]:
        """The live rowids of each part."""
        for part in self.parts():
            live = part.live
            yield part.rowids if live is None else part.rowids[live]


def open_segments(pages: Pages, entry: CollectionEntry) -> tuple[Segment, ...]:
    """All segments of a collection in the order of their ids, opened once per entry."""
    if entry.opened is None:
        for id_, record in entry.records.items():
            known = entry.segments.get(id_)
            if known is None or not still_fits(known, entry.schema):
                where = f"collection {entry.schema.name}"
                extents = [pages.extent(descriptor) for descriptor in record.extents]
                entry.segments[id_] = opened(record, extents, where, entry.schema)
        entry.opened = tuple(entry.segments[id_] for id_ in sorted(entry.records))
    return entry.opened


def open_past(pages: Pages, entry: CollectionEntry) -> tuple[Segment, ...]:
    """The kept segments of a collection in the order of their ids, opened once per entry (S25)."""
    if entry.past_opened is None:
        where = f"collection {entry.schema.name}, past"
        for id_, record in entry.past.items():
            if id_ not in entry.segments:
                extents = [pages.extent(each) for each in record.extents]
                entry.segments[id_] = opened(record, extents, where, entry.schema)
        entry.past_opened = tuple(entry.segments[id_] for id_ in sorted(entry.past))
    return entry.past_opened


# ------------------------------------------------------------------------- deletions


def deletion_key(segment: int, chunk: int) -> bytes:
    """The key of one chunk of a segment's deletions; a chunk is CHUNK_ROWS ordinals."""
    return segment.to_bytes(4, "big") + chunk.to_bytes(4, "big")


CHUNK_ROWS = 256  # a full chunk takes 3 KiB, one overflow-free cell of a 4 KiB page


def load_dead(pages: Pages, entry: CollectionEntry, segment: int) -> np.ndarray:
    """The bool mask of the rows of a segment that the deletions tree ends.

    Raises CorruptDatabaseError where the tree and the segment's record disagree.
    """
    from m2mdb.pager.btree import BTree

    record = entry.records[segment]
    mask = np.zeros(record.rows, bool)
    tree = BTree(pages, entry.deletes_root)
    where = f"collection {entry.schema.name}, deletions of segment {segment}"
    for _, raw in tree.scan(deletion_key(segment, 0), deletion_key(segment + 1, 0)):
        ordinals = decode_deletions(raw, where)["ordinal"]
        if len(ordinals) and int(ordinals.max()) >= record.rows:
            raise CorruptDatabaseError(f"{where}: ordinal {ordinals.max()} of {record.rows} rows")
        mask[ordinals] = True
    if np.count_nonzero(mask) != record.deleted:
        raise CorruptDatabaseError(
            f"{where}: {np.count_nonzero(mask)} rows, the record says {record.deleted}"
        )
    return mask


def decode_deletions(raw: bytes, where: str) -> np.ndarray:
    """One chunk: (ordinal, ending commit) ascending."""
    if len(raw) % _DELETION.itemsize:
        raise CorruptDatabaseError(f"{where}: a chunk of {len(raw)} bytes")
    return np.frombuffer(raw, _DELETION)


def encode_deletions(entries: dict[int, int]) -> bytes:
    """The bytes of one chunk."""
    return np.array(sorted(entries.items()), _DELETION).tobytes()
