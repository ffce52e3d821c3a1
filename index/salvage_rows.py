"""Salvaged rows: which versions of a damaged collection's rows are the ones to keep.

    delta entries, by sequence --> the newest version of each rowid, ends of places, ends of rowids
    segments                   --> rows all of whose bytes verify
    deletions                  --> ends of places

A version is kept unless an end of it can be read. An end is of a place (segment, ordinal), or of
a rowid at a commit, before which no version of it was written that still counts: so a row stays
deleted even where the entry is lost that its deletion names. Of several versions that are left
the one of the newest commit counts.

Invariants
    SR1 A row that is given is a version that was committed, bit for bit.
    SR2 No rowid is given twice.
    SR3 A row is counted as lost where its segment says that it was there, nothing says that it
        ended, and its bytes do not verify.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from m2mdb.index.record import (
    BYTES,
    FALSE,
    HEAD,
    INTEGER,
    NULL,
    REAL,
    REMOVAL,
    ROW,
    ROW_HEAD,
    SEQUENCE,
    TEXT,
    TRUE,
    VECTOR,
    decode_removal,
    decode_row,
)
from m2mdb.index.schema import VECTOR_DTYPES, CollectionSchema, Column
from m2mdb.index.values import store_scalar
from m2mdb.pager.errors import CorruptDatabaseError

if TYPE_CHECKING:
    from m2mdb.index.extent_remains import SegmentRemains
    from m2mdb.index.segment import SegmentRecord

WINDOW_ROWS = 4096
WINDOW_BYTES = 16 << 20
TAGS = {
    "INTEGER": {INTEGER}, "TIMESTAMP": {INTEGER}, "REAL": {REAL}, "BOOLEAN": {FALSE, TRUE},
    "TEXT": {TEXT}, "JSON": {TEXT}, "BLOB": {BYTES}, "VECTOR": {VECTOR},
}  # fmt: skip

Batch = tuple[np.ndarray, dict[str, list[Any]]]


class DeltaEntry:
    """One entry of a delta that could be read."""

    __slots__ = ("commit", "ended", "next_rowid", "removed", "rowid", "sequence", "tags", "values")

    def __init__(self, key: bytes, raw: bytes) -> None:
        """Raises CorruptDatabaseError where it is no entry."""
        if len(key) != SEQUENCE.size or len(raw) < HEAD.size:
            raise CorruptDatabaseError("no delta entry")
        (self.sequence,) = SEQUENCE.unpack(key)
        kind, self.commit, self.next_rowid = HEAD.unpack_from(raw)
        self.values: list[Any] | None = None
        self.removed: list[tuple[int, tuple[int, int]]] = []
        self.tags = b""
        self.rowid = 0
        self.ended = (0, 0)
        if kind == ROW:
            self.rowid, self.ended, self.values = decode_row(raw, "delta")
            self.tags = raw[ROW_HEAD.size : ROW_HEAD.size + len(self.values)]
        elif kind == REMOVAL:
            self.removed = decode_removal(raw, "delta")
        else:
            raise CorruptDatabaseError("no delta entry")

    def fits(self, schema: CollectionSchema) -> bool:
        """Whether the values could be a row of a collection; vectors become arrays."""
        if self.values is None:
            return True
        if len(self.values) != len(schema.columns):
            return False
        for at, column in enumerate(schema.columns):
            tag = self.tags[at]
            if tag == NULL:
                continue
            if tag not in TAGS[column.type]:
                return False
            if column.is_vector:
                wanted = np.dtype(VECTOR_DTYPES[column.dtype])
                value = self.values[at]
                if len(value) != column.dimension * wanted.itemsize:
                    return False
        return True


class SegmentRows:
    """A segment of a damaged collection, and what is decided of its rows."""

    def __init__(
        self, id: int, remains: SegmentRemains, record: SegmentRecord | None, commit: int
    ) -> None:
        self.id = id
        self.remains = remains
        self.record = record
        known = None if record is None else (record.min_rowid, record.max_rowid)
        self.rowids, self.known = remains.rowids(known)
        self.commits = remains.commits(commit)
        self.kept = np.zeros(remains.rows, bool)


class CollectionRemains:
    """One collection, as far as it could be found."""

    def __init__(self, schema: CollectionSchema, *, is_named: bool = True) -> None:
        self.schema = schema
        self.is_named = is_named  # the schema is the one it had
        self.next_rowid = 1
        self.base_sequence: int | None = None
        self.entries: dict[int, DeltaEntry] = {}
        self.ends: dict[int, dict[int, int]] = {}  # segment: ordinal: commit that ended it
        self.segments: list[SegmentRows] = []
        self.lost = 0  # rows that were there and cannot be read
        self.missing = 0  # delta entries that were there: each a row or an end of rows
        self.is_unknown = False  # more may be lost than is counted
        self.notes: list[str] = []
        self._rows: dict[int, DeltaEntry] = {}

    # --------------------------------------------------------------- deciding

    def add_entry(self, entry: DeltaEntry) -> None:
        """Take a delta entry."""
        if self.base_sequence is None or entry.sequence >= self.base_sequence:
            self.entries.setdefault(entry.sequence, entry)

    def resolve(self) -> None:
        """Decide which versions are kept."""
        ended = self._replay()
        for segment in self.segments:
            for ordinal, commit in self.ends.get(segment.id, {}).items():
                if ordinal < segment.remains.rows and segment.known[ordinal]:
                    rowid = int(segment.rowids[ordinal])
                    ended[rowid] = max(ended.get(rowid, 0), commit)
        self._rows = {
            rowid: entry
            for rowid, entry in self._rows.items()
            if entry.commit >= ended.get(rowid, 0)
        }
        newest = dict(ended)
        for rowid, entry in self._rows.items():
            newest[rowid] = max(newest.get(rowid, 0), entry.commit + 1)  # a tie is the delta's
        for segment in self.segments:
            self._choose(segment, newest)
        self._drop_doubles()
        self._count_missing()

    def _replay(self) -> dict[int, int]:
        """Go through the delta; the commits before which no version of a rowid counts."""
        ended: dict[int, int] = {}
        for sequence in sorted(self.entries):
            entry = self.entries[sequence]
            self.next_rowid = max(self.next_rowid, entry.next_rowid)
            if entry.values is not None:
                self._rows[entry.rowid] = entry
                if entry.ended[0]:
                    self._end(entry.ended, entry.commit)
            for rowid, place in entry.removed:
                if place[0]:
                    self._end(place, entry.commit)
                else:
                    self._rows.pop(rowid, None)
                    ended[rowid] = max(ended.get(rowid, 0), entry.commit)
        return ended

    def _end(self, place: tuple[int, int], commit: int) -> None:
        self.ends.setdefault(place[0], {}).setdefault(place[1], commit)

    def _choose(self, segment: SegmentRows, newest: dict[int, int]) -> None:
        """The rows of a segment that are kept, and those that are lost (SR3)."""
        remains = segment.remains
        alive = np.ones(remains.rows, bool)
        ends = [ordinal for ordinal in self.ends.get(segment.id, {}) if ordinal < remains.rows]
        alive[ends] = False
        if newest:
            rowids = np.fromiter(newest, np.int64, len(newest))
            for ordinal in np.flatnonzero(alive & np.isin(segment.rowids, rowids)).tolist():
                limit = newest.get(int(segment.rowids[ordinal]), 0)
                if segment.known[ordinal] and int(segment.commits[ordinal]) < limit:
                    alive[ordinal] = False
        whole = segment.known.copy()
        for column in self.schema.columns:
            if column.since <= segment.id:
                whole &= remains.whole(column)
        segment.kept = alive & whole
        self.lost += int(np.count_nonzero(alive & ~whole))

    def _drop_doubles(self) -> None:
        """SR2: of one rowid in several segments the newest commit counts."""
        kept = [segment for segment in self.segments if segment.kept.any()]
        if not kept:
            return
        rowids = np.concatenate([segment.rowids[segment.kept] for segment in kept])
        if len(np.unique(rowids)) == len(rowids):
            return
        commits = np.concatenate([segment.commits[segment.kept] for segment in kept])
        places = np.concatenate([np.full(s.kept.sum(), i) for i, s in enumerate(kept)])
        ordinals = np.concatenate([np.flatnonzero(segment.kept) for segment in kept])
        order = np.lexsort((places, commits, rowids))
        last = np.append(rowids[order][1:] != rowids[order][:-1], True)
        for at in order[~last].tolist():
            kept[int(places[at])].kept[int(ordinals[at])] = False

    def _count_missing(self) -> None:
        if not self.entries:
            return
        first = min(self.entries) if self.base_sequence is None else self.base_sequence
        self.missing += max(self.entries) + 1 - first - len(self.entries)

    # --------------------------------------------------------------- giving

    @property
    def count(self) -> int:
        """How many rows are kept."""
        return len(self._rows) + sum(int(s.kept.sum()) for s in self.segments)

    def batches(self) -> Iterator[Batch]:
        """The kept rows, some at a time: rowids, and the stored values of each column."""
        entries = list(self._rows.values())
        for start in range(0, len(entries), WINDOW_ROWS):
            some = entries[start : start + WINDOW_ROWS]
            rowids = np.array([entry.rowid for entry in some], np.int64)
            yield (
                rowids,
                {
                    column.name: [_value(entry, at, column) for entry in some]
                    for at, column in enumerate(self.schema.columns)
                },
            )
        for segment in self.segments:
            size = sum(extent.size for extent in segment.remains.extents)
            step = max(1, min(WINDOW_ROWS, WINDOW_BYTES * segment.remains.rows // (size + 1)))
            chosen = np.flatnonzero(segment.kept)
            for start in range(0, len(chosen), step):
                rows = chosen[start : start + step]
                yield (
                    segment.rowids[rows],
                    {
                        column.name: _segment_values(segment, column, rows)
                        for column in self.schema.columns
                    },
                )


def _segment_values(segment: SegmentRows, column: Column, rows: np.ndarray) -> list[Any]:
    """Stored values of some rows; of a column that was added later, its default."""
    if column.since <= segment.id:
        return segment.remains.values(column, rows)
    value = None if column.is_vector else store_scalar(column, column.default, "a segment")
    return [value] * len(rows)


def _value(entry: DeltaEntry, at: int, column: Column) -> Any:
    assert entry.values is not None, "a row version"
    value = entry.values[at]
    if value is not None and column.is_vector:
        return np.frombuffer(value, VECTOR_DTYPES[column.dtype])
    return value
