"""The log: the open file `-wal`, its space and its tail.

    | header | committed frames | unpublished or torn | older frames or zeros | end of the file
             ^ LOG_HEADER_SIZE  ^ end                                         ^ space

Space is had before it is needed: zeros are really written and synced, so that a full disk shows
before a commit begins (S11), and a commit's sync overwrites instead of growing, which is cheaper.

Invariants
    L1  Frames are written behind the committed end only, under WRITER.
    L2  What stands behind the end and continues the chain is zeroed and synced before any other
        byte of file or log is written (S8): the commit of a writer that died, or failed, must not
        come back over pages that were used again.
    L3  A header is written only when all that the old generation held is in the file, synced.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from m2mdb.pager.errors import OperationalError
from m2mdb.wal.frame import (
    CHECKSUM_OFFSET,
    FRAME_HEADER_SIZE,
    GENERATION_OFFSET,
    LOG_HEADER_SIZE,
    FrameHeader,
    LogHeader,
    continues,
    pack_generation,
)

if TYPE_CHECKING:
    from m2mdb.pager.vfs import File

_FIRST_SPACE = 256 << 10  # bytes
_LARGEST_STEP = 4 << 20  # bytes; until then the space is doubled
_ZEROS = bytes(1 << 20)
_NO_FRAME = bytes(FRAME_HEADER_SIZE)


class Log:
    """The open log of one store."""

    __slots__ = ("file", "frame_size", "identity", "page_size", "space")

    def __init__(self, file: File, page_size: int) -> None:
        self.file = file
        self.identity = file.identity()
        self.page_size = page_size
        self.frame_size = FRAME_HEADER_SIZE + page_size
        self.space = file.size()

    def header(self) -> LogHeader:
        """The header as it stands in the file; raises CorruptDatabaseError unless it is one."""
        return LogHeader.decode(self.file.read_at(0, LOG_HEADER_SIZE), self.file.path)

    def is_of(self, generation: int, salt: int) -> bool:
        """Whether the header in the file is that of a generation."""
        return self.file.read_at(GENERATION_OFFSET, 16) == pack_generation(generation, salt)

    def frame_count(self, end: int) -> int:
        """Frames before an end."""
        return max(0, end - LOG_HEADER_SIZE) // self.frame_size

    # -- space ---------------------------------------------------------------------------------

    def reserve(self, end: int) -> None:
        """Have space up to `end`; when the disk is full, nothing is changed (S11)."""
        if end <= self.space:
            return
        self.space = self.file.size()  # another process may have grown it
        if end <= self.space:
            return
        step = min(max(self.space, _FIRST_SPACE), _LARGEST_STEP)
        before = self.space
        try:
            self._write_zeros(before, max(end, before + step))
        except OperationalError:
            with contextlib.suppress(OperationalError):
                self.file.truncate(before)
            raise

    def _write_zeros(self, start: int, end: int) -> None:
        offset = start
        while offset < end:
            size = min(len(_ZEROS), end - offset)
            self.file.write_at(offset, _ZEROS[:size] if size < len(_ZEROS) else _ZEROS)
            offset += size
        self.space = end

    # -- the tail ------------------------------------------------------------------------------

    def has_leftover(self, end: int, salt: int, chain: int) -> bool:
        """Whether a frame stands behind the end that would count if the log were replayed."""
        raw = self.file.read_at(end, FRAME_HEADER_SIZE)
        if len(raw) < FRAME_HEADER_SIZE:
            return False
        found = FrameHeader.decode(raw)
        if found.salt != salt or not found.page_number:
            return False
        raw = self.file.read_at(end, self.frame_size)
        return len(raw) == self.frame_size and continues(raw, salt, chain) is not None

    def erase(self, end: int) -> None:
        """Make sure that nothing behind the end counts, once the log is synced (L2)."""
        if self.file.size() > end:
            self.file.write_at(end, _NO_FRAME)

    def rewrite(self, end: int) -> None:
        """Write what stands before the end again, for the next sync to bring it to the disk."""
        for offset in range(0, end, len(_ZEROS)):
            size = min(len(_ZEROS), end - offset)
            self.file.write_at(offset, self.file.read_at(offset, size))

    # -- generations ---------------------------------------------------------------------------

    def restart(self, header: LogHeader) -> int:
        """Begin a generation, durable once the log is synced (L3).

        Returns the checksum from which its chain goes on.
        """
        raw = header.encode()
        self.file.write_at(0, raw)
        return LogHeader.decode(raw, self.file.path).checksum

    def wipe(self) -> None:
        """Overwrite what older generations have left; for a log without frames."""
        self._write_zeros(LOG_HEADER_SIZE, max(self.file.size(), LOG_HEADER_SIZE))

    def shorten(self, size: int) -> None:
        """Give the space behind `size` bytes back; for a log without frames.

        Where the system refuses, the log stays as long as it is.
        """
        size = max(size, LOG_HEADER_SIZE)
        if self.file.size() > size:
            with contextlib.suppress(OperationalError):
                self.file.truncate(size)
        self.space = self.file.size()

    def cut(self) -> None:
        """Give all space but the header's back; for a log without frames."""
        self.file.truncate(LOG_HEADER_SIZE)
        self.space = LOG_HEADER_SIZE

    # -- frames --------------------------------------------------------------------------------

    def read_frame(self, offset: int) -> tuple[bytes, bytes, int]:
        """(header, page, checksum of the frame before) of a frame."""
        before = LOG_HEADER_SIZE - 8
        if offset > LOG_HEADER_SIZE:
            before = offset - self.frame_size + CHECKSUM_OFFSET
        raw = self.file.read_at(offset, self.frame_size)
        seed = self.file.read_at(before, 8)
        return raw[:FRAME_HEADER_SIZE], raw[FRAME_HEADER_SIZE:], int.from_bytes(seed, "little")
