"""Frames: how the pages that one commit changed stand in the write-ahead log.

    | log header | frame | frame | ...

    log header  offset  size  field
                     0    16  magic          b"m2mdb log 1" and five zero bytes
                    16     4  page_size      of the database
                    20     4  zero
                    24     8  generation     raised by each reset of the log
                    32     8  salt           drawn anew for each generation
                    40     8  base_commit    all commits up to this one are in the file itself
                    48    16  uuid           of the database
                    64   440  zero
                   504     8  checksum       xxh3-64 of bytes 0..504; the chain begins with it

    frame            0     4  page_number    1-based
                     4     4  page_count     pages of the database after this commit; 0 = goes on
                     8     8  commit          number of the commit that the frame belongs to
                    16     8  salt            the log header's, or the frame is left over
                    24     8  checksum        xxh3-64 of bytes 0..24 and the page, seeded with the
                                              checksum of the frame before (the log header's first)
                    32     -  page            page_size bytes

All numbers are little-endian. The log header is one sector, so that it is overwritten whole or
not at all.

Invariants
    W1  A frame counts only while its salt and the checksum chain up to it hold.
    W2  Frames behind the last commit frame are no commit and are never shown to anyone.
    W3  Commit numbers in a log ascend by one from base_commit + 1; all frames of a commit bear it.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple, Self

from xxhash import xxh3_64_intdigest

from m2mdb.pager.errors import CorruptDatabaseError
from m2mdb.pager.header import LARGEST_NUMBER

if TYPE_CHECKING:
    from m2mdb.pager.vfs import File

LOG_HEADER_SIZE = 512
FRAME_HEADER_SIZE = 32
GENERATION_OFFSET = 24  # of generation and salt in the log header
CHECKSUM_OFFSET = 24  # of a frame's checksum in its header
READ_CHUNK = 1 << 20  # bytes, about, that a walk through the log reads at a time

_MAGIC = b"m2mdb log 1".ljust(16, b"\0")
_FIELDS = Struct("<16sI4xQQQ16s")
_CHECKED = 504
_CHECKSUM = Struct("<Q")
_HEAD = Struct("<IIQQ")  # the bytes of a frame's header that its checksum covers
_FRAME = Struct("<IIQQQ")

pack_head = _HEAD.pack
pack_generation = Struct("<QQ").pack
pack_checksum = _CHECKSUM.pack
unpack_checksum = _CHECKSUM.unpack


class LogHeader(NamedTuple):
    """Which database and which of its generations a log belongs to."""

    page_size: int
    generation: int
    salt: int
    base_commit: int
    uuid: bytes
    checksum: int = 0  # known of a decoded header; `encode` does not look at it

    def encode(self) -> bytes:
        """The log's first sector."""
        assert self.page_size >= 512, "a page is a sector at least"
        fields = _FIELDS.pack(_MAGIC, *self[:5]).ljust(_CHECKED, b"\0")
        return fields + _CHECKSUM.pack(xxh3_64_intdigest(fields))

    @classmethod
    def decode(cls, raw: bytes, where: str) -> Self:
        """The header in a log's first sector; raises CorruptDatabaseError unless there is one."""
        if len(raw) < LOG_HEADER_SIZE:
            raise CorruptDatabaseError(
                f"log {where}: {len(raw)} bytes, expected a header of {LOG_HEADER_SIZE}"
            )
        magic, page_size, generation, salt, base_commit, uuid = _FIELDS.unpack_from(raw)
        if magic != _MAGIC:
            raise CorruptDatabaseError(f"log {where}: begins with {magic!r}, expected {_MAGIC!r}")
        found = xxh3_64_intdigest(raw[:_CHECKED])
        stored = _CHECKSUM.unpack_from(raw, _CHECKED)[0]
        if found != stored:
            raise CorruptDatabaseError(
                f"header of log {where}: checksum {found:#018x}, expected {stored:#018x}"
            )
        if max(generation, base_commit) > LARGEST_NUMBER:
            raise CorruptDatabaseError(
                f"header of log {where}: generation {generation}, base commit {base_commit}, "
                f"expected at most {LARGEST_NUMBER}"
            )
        return cls(page_size, generation, salt, base_commit, uuid, stored)


class FrameHeader(NamedTuple):
    """The 32 bytes before a page in the log."""

    page_number: int
    page_count: int
    commit: int
    salt: int
    checksum: int

    def encode(self) -> bytes:
        """The header's bytes."""
        assert self.page_number > 0, "W1: page 0 has no frame"
        return _FRAME.pack(*self)

    @classmethod
    def decode(cls, raw: bytes | memoryview) -> Self:
        """The header at the start of `raw`; what it says is judged by `continues`."""
        return cls._make(_FRAME.unpack_from(raw))

    @property
    def is_commit(self) -> bool:
        """Whether a commit ends with this frame."""
        return self.page_count > 0


class Found(NamedTuple):
    """A frame that counts, and where it stands."""

    offset: int
    page_number: int
    page_count: int
    commit: int
    checksum: int


def frame_checksum(head: bytes, page: bytes, before: int) -> int:
    """The checksum of a frame behind one whose checksum was `before`."""
    return xxh3_64_intdigest(head + page, before)


def continues(raw: bytes | memoryview, salt: int, before: int) -> FrameHeader | None:
    """The header of the whole frame `raw` if it continues the chain, else None (W1)."""
    header = FrameHeader.decode(raw)
    if header.salt != salt or not header.page_number:
        return None
    head = bytes(raw[:CHECKSUM_OFFSET])
    if frame_checksum(head, bytes(raw[FRAME_HEADER_SIZE:]), before) != header.checksum:
        return None
    return header


def valid_frames(file: File, header: LogHeader) -> Iterator[Found]:
    """The frames of a log that count, in order, up to the last commit frame and beyond (W2).

    Stops at the first frame that breaks the chain (W1) or the sequence of commits (W3).
    """
    size = FRAME_HEADER_SIZE + header.page_size
    per_chunk = max(1, READ_CHUNK // size)
    offset, before, commit = LOG_HEADER_SIZE, header.checksum, header.base_commit
    inside = False
    while True:
        chunk = memoryview(file.read_at(offset, size * per_chunk))
        for start in range(0, len(chunk) - size + 1, size):
            found = continues(chunk[start : start + size], header.salt, before)
            if found is None or found.commit != commit + (not inside):
                return
            yield Found(offset + start, found[0], found[1], found[2], found[4])
            before, commit = found.checksum, found.commit
            inside = not found.page_count
        if len(chunk) < size * per_chunk:
            return
        offset += size * per_chunk
