"""The record of a segment in the catalog: its rows, where its extents lie, and how many rows ended.

u32 segment, u32 extents, u64 rows, u64 deleted, i64 first rowid, i64 last rowid, u64 commit,
u64 version, then the extents' descriptors
"""

from __future__ import annotations

import struct

from m2mdb.pager.errors import CorruptDatabaseError
from m2mdb.pager.extent import ExtentDescriptor

RECORD = struct.Struct("<IIQQqqQQ")  # see SegmentRecord


class SegmentRecord:
    """What the catalog keeps of a segment; replaced whole when rows of it end."""

    __slots__ = (
        "commit", "deleted", "extents", "id", "max_rowid", "min_rowid", "newest_end", "rows",
        "version",
    )  # fmt: skip

    def __init__(self, id: int, rows: int, *, rowids: tuple[int, int], commit: int) -> None:
        self.id = id
        self.rows = rows
        self.deleted = 0
        self.min_rowid, self.max_rowid = rowids
        self.commit = commit
        self.version = 0  # grows with every change of the deletions, so that caches notice
        self.newest_end = 0  # of a kept segment: the commit that ended the last of its rows
        self.extents: tuple[ExtentDescriptor, ...] = ()

    def encode(self) -> bytes:
        """RECORD: id, extent count, rows, deleted, first and last rowid, commit, version."""
        head = RECORD.pack(
            self.id,
            len(self.extents),
            self.rows,
            self.deleted,
            self.min_rowid,
            self.max_rowid,
            self.commit,
            self.version,
        )
        return head + b"".join(extent.encode() for extent in self.extents)

    @classmethod
    def decode(cls, raw: bytes, where: str) -> SegmentRecord:
        """Raises CorruptDatabaseError where the counts cannot be."""
        if len(raw) < RECORD.size:
            raise CorruptDatabaseError(f"{where}: segment record of {len(raw)} bytes")
        id_, extents, rows, deleted, low, high, commit, version = RECORD.unpack_from(raw)
        size = ExtentDescriptor.SIZE
        if len(raw) != RECORD.size + extents * size or deleted > rows or not rows or high < low:
            raise CorruptDatabaseError(f"{where}: segment {id_} has an impossible record")
        record = cls(id_, rows, rowids=(low, high), commit=commit)
        record.deleted = deleted
        record.version = version
        record.extents = tuple(
            ExtentDescriptor.decode(raw[at : at + size])
            for at in range(RECORD.size, len(raw), size)
        )
        return record

    def copy(self) -> SegmentRecord:
        """A copy to change."""
        other = SegmentRecord(
            self.id, self.rows, rowids=(self.min_rowid, self.max_rowid), commit=self.commit
        )
        other.deleted = self.deleted
        other.version = self.version
        other.newest_end = self.newest_end
        other.extents = self.extents
        return other
