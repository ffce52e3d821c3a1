"""Extents: raw bytes in neighbouring pages, written once and then read in place.

    |<-------------- size -------------->|      |                       |
    | block 0 | block 1 | ... | last one | pad  | checksum of each block | zeros |
    ^ start_page                          to 8    u64 each                 to the page's end

A block is 64 KiB; the last one is short and goes up to the padding's end. A descriptor names an
extent; it stands in a catalog row, which has a checksum of its own through its page:

    offset  size  field
         0     4  start_page
         4     4  page_count
         8     8  size        bytes of content
        16     8  checksum    xxh3-64 of the array of block checksums
        24     8  commit      that created the extent: start page and commit identify it (S15)

An extent never enters the log: it is written in place on free pages, and synced before the
commit frame that names it (S7). It is read through the map once its blocks are verified.

Invariants
    E1  No byte of a block leaves this module before the block's checksum held (S18); what is
        hashed is read by `read_into`, so that an I/O error is an exception and no signal.
    E2  An extent lies within the file when it is opened; every access lies within its content.
    E3  Nothing of an older content is left in an extent's pages: padding and slack are zero.
    E4  A bit of `verified` is set after its block's checksum held and never cleared; threads that
        verify the same block at once do the work twice and nothing else.
    E5  Without a map the bytes that are given out are the bytes that were hashed, each time: a
        file that somebody changes meanwhile gives an error, and no byte unseen.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from xxhash import xxh3_64_intdigest

from m2mdb.pager.errors import CorruptDatabaseError

if TYPE_CHECKING:
    import numpy.typing as npt

    from m2mdb.pager.vfs import File

BLOCK_SIZE = 65536  # bytes under one checksum: some 4 microseconds to verify
BLOCK_SHIFT = 16
SCAN_CHUNK = 4 * BLOCK_SIZE  # bytes that are hashed and used while they are in the L2 cache
_SPARE_BUFFERS: list[bytearray] = []  # of SCAN_CHUNK bytes, for verifying
_SPARES = 4


def _spare_buffer() -> bytearray:
    try:
        return _SPARE_BUFFERS.pop()
    except IndexError:
        return bytearray(SCAN_CHUNK)


class _DescriptorFields(NamedTuple):
    start_page: int
    page_count: int
    size: int  # bytes of content
    checksum: int
    commit: int


class ExtentDescriptor(_DescriptorFields):
    """Where an extent is, and what its bytes have to be."""

    __slots__ = ()

    FORMAT: ClassVar[Struct] = Struct("<IIQQQ")
    SIZE: ClassVar[int] = 32

    def encode(self) -> bytes:
        """Its 32 bytes."""
        return self.FORMAT.pack(*self)

    @classmethod
    def decode(cls, raw: bytes | memoryview) -> ExtentDescriptor:
        """The descriptor in the first 32 bytes of `raw`; Extent checks it against the file."""
        if len(raw) < cls.SIZE:
            raise CorruptDatabaseError(f"extent descriptor: {len(raw)} bytes, expected {cls.SIZE}")
        return cls(*cls.FORMAT.unpack_from(raw))


def padded(size: int) -> int:
    """Bytes of the content and its padding."""
    return size + 7 & ~7


def block_count(size: int) -> int:
    """Blocks of a content."""
    return padded(size) + BLOCK_SIZE - 1 >> BLOCK_SHIFT


def extent_page_count(size: int, page_size: int) -> int:
    """Pages that an extent of `size` bytes of content takes; at least one."""
    return max(1, -(-(padded(size) + 8 * block_count(size)) // page_size))


class Extent:
    """A committed extent, open for reading; shared by the threads of a process.

    Views and arrays are read-only and stay readable for as long as they are held; they show the
    extent's bytes for as long as the snapshot that gave the extent is open (S9).
    """

    __slots__ = (
        "__weakref__",
        "_checksums",
        "_content",
        "_file",
        "_kept",
        "_offset",
        "_page_size",
        "all_verified",
        "descriptor",
        "size",
        "verified",
        "where",
    )

    def __init__(
        self,
        file: File,
        descriptor: ExtentDescriptor,
        page_size: int,
        where: str,
        mapped: bool = True,
    ) -> None:
        """Raises CorruptDatabaseError when the extent does not lie within the file (E2)."""
        self.descriptor = descriptor
        self.where = where
        self.size = descriptor.size
        self._file = file
        self._page_size = page_size
        self._offset = (descriptor.start_page - 1) * page_size
        self._check_place()
        self.verified = bytearray(block_count(self.size))
        self.all_verified = not self.size
        self._checksums: list[int] | None = None
        self._content: memoryview | None = None
        self._kept = (-1, b"")  # without a map: start and bytes of the block that was read last
        if mapped and self.size:
            self._content = file.map(self._offset, self.size)

    def _check_place(self) -> None:
        start, count, size = self.descriptor[:3]
        expected = extent_page_count(size, self._page_size)
        if start < 2 or count != expected:
            raise self._error(f"{count} pages for {size} bytes, expected {expected}")
        end, found = self._offset + count * self._page_size, self._file.size()
        if end > found:
            raise self._error(f"it ends at byte {end} of a file of {found}")

    def _error(self, text: str) -> CorruptDatabaseError:
        return CorruptDatabaseError(
            f"extent at page {self.descriptor.start_page} of {self.where}: {text}"
        )

    # -------------------------------------------------------------------------- reading

    @property
    def content(self) -> memoryview | None:
        """The map of the content, or None where there is none.

        Whoever takes it looks at `verified` before each block that is read (E1).
        """
        return self._content

    def read(self, offset: int, size: int) -> bytes:
        """A copy of some bytes."""
        end = offset + size
        if not 0 <= offset <= end <= self.size:
            raise self._outside(offset, end)
        if self._content is None:
            return self._read_hashed(offset, end) if size else b""
        if not self.all_verified:
            self.verify(offset, size)
        return bytes(self._content[offset:end])

    def _read_hashed(self, offset: int, end: int) -> bytes:
        """Some bytes of blocks that are read and hashed for them (E5)."""
        start, kept = self._kept
        if start <= offset and end <= start + len(kept) and start >= 0:
            return kept[offset - start : end - start]
        start = offset & -BLOCK_SIZE
        stop = min(end + BLOCK_SIZE - 1 & -BLOCK_SIZE, padded(self.size))
        buffer = bytearray(stop - start)
        self._read_verified(start, memoryview(buffer))
        if len(buffer) <= BLOCK_SIZE:
            self._kept = (start, bytes(buffer))
        return bytes(memoryview(buffer)[offset - start : end - start])

    def view(self, offset: int, size: int) -> memoryview:
        """Some bytes in place, read-only; a copy where the file is not mapped."""
        if self._content is None:
            return memoryview(self.read(offset, size))
        end = offset + size
        if not 0 <= offset <= end <= self.size:
            raise self._outside(offset, end)
        if not self.all_verified:
            self.verify(offset, size)
        return self._content[offset:end]

    def array(self, offset: int, dtype: npt.DTypeLike, count: int) -> np.ndarray[Any, Any]:
        """`count` items from a byte offset as a read-only array; a view where that is possible."""
        if self.all_verified and self._content is not None and count > 0:
            try:
                return np.frombuffer(self._content, dtype, count, offset)
            except ValueError:
                pass  # it lies outside: said below
        size = count * np.dtype(dtype).itemsize
        if not count:
            return np.zeros(0, dtype)
        return np.frombuffer(self.view(offset, size), dtype, count)

    def blocks(
        self, offset: int, size: int, chunk: int = SCAN_CHUNK, unit: int = 1
    ) -> Iterator[tuple[int, memoryview]]:
        """Some bytes in chunks, (offset, bytes), each verified, in order; for the first scan.

        Bytes are hashed and handed out while they are in the processor's cache. A chunk is good
        until the next one is asked for. Chunks are cut at multiples of `unit` bytes from `offset`:
        no row is torn apart.
        """
        end = offset + size
        if not 0 <= offset <= end <= self.size:
            raise self._outside(offset, end)
        if self._content is not None and self._are_verified(offset, size):
            step = max(chunk // unit, 1) * unit
            for start in range(offset, end, step):
                yield start, self._content[start : min(start + step, end)]
        elif size:
            yield from self._read_blocks(offset, end, chunk, unit)

    def _read_blocks(
        self, offset: int, end: int, chunk: int, unit: int
    ) -> Iterator[tuple[int, memoryview]]:
        position = offset & -BLOCK_SIZE
        last = min(end + BLOCK_SIZE - 1 & -BLOCK_SIZE, padded(self.size))
        step = min(max(chunk & -BLOCK_SIZE, BLOCK_SIZE), last - position)
        buffer = memoryview(bytearray(unit + step))
        start = offset  # of the bytes not handed out yet; those before `position` end at `unit`
        while position < last:
            size = min(step, last - position)
            self._read_verified(position, buffer[unit : unit + size])
            stop = min(position + size, end)
            if stop < end:
                stop -= (stop - offset) % unit
            base = unit - position
            if stop > start:
                yield start, buffer[base + start : base + stop]
                start = stop
            position += size
            kept = position - start
            if 0 < kept < unit and position < last:
                buffer[unit - kept : unit] = bytes(buffer[base + start : base + position])

    def release(self, offset: int, size: int) -> None:
        """Give back the memory of the map's pages within a range; views of it stay good."""
        if self._content is not None and size > 0:
            self._file.release(self._offset + offset, size)

    # -------------------------------------------------------------------------- verifying

    def verify(self, offset: int, size: int) -> None:
        """Verify the blocks that hold some bytes; CorruptDatabaseError names a wrong one."""
        if self._are_verified(offset, size):
            return
        stop = block_count(offset + size)
        number = offset >> BLOCK_SHIFT
        buffer = memoryview(_spare_buffer())
        content_end = padded(self.size)
        while (number := self.verified.find(0, number, stop)) >= 0:
            position = number << BLOCK_SHIFT
            limit = min(stop << BLOCK_SHIFT, content_end)
            part = buffer[: min(limit - position, SCAN_CHUNK)]
            self._read_verified(position, part)
        spare = buffer.obj
        if isinstance(spare, bytearray) and len(_SPARE_BUFFERS) < _SPARES:
            _SPARE_BUFFERS.append(spare)

    def verify_all(self) -> None:
        """Verify every block, and that the slack behind the checksums is zero (E3)."""
        self.verify(0, self.size)
        self._block_checksums()
        used = padded(self.size) + 8 * len(self.verified)
        slack = self.descriptor.page_count * self._page_size - used
        if self._file.read_at(self._offset + used, slack) != bytes(slack):
            raise self._error(f"the {slack} bytes behind the checksums are not zero")

    def _are_verified(self, offset: int, size: int) -> bool:
        if self.all_verified or not size:
            return True
        last = offset + size - 1 >> BLOCK_SHIFT
        return self.verified.find(0, offset >> BLOCK_SHIFT, last + 1) < 0

    def _read_verified(self, position: int, buffer: memoryview) -> None:
        """Fill a buffer with whole blocks from the file and set their bits (E1, E4)."""
        checksums = self._checksums or self._block_checksums()
        verified = self.verified
        found = self._file.read_into(self._offset + position, buffer)
        if found != len(buffer):
            raise self._cut_short(position, found, len(buffer))
        number = position >> BLOCK_SHIFT
        for start in range(0, len(buffer), BLOCK_SIZE):
            if not verified[number] or self._content is None:  # E5
                checksum = xxh3_64_intdigest(buffer[start : start + BLOCK_SIZE])
                if checksum != checksums[number]:
                    raise self._error(
                        f"block {number}: checksum {checksum:#018x}, "
                        f"expected {checksums[number]:#018x}"
                    )
                verified[number] = 1
            number += 1
        self.all_verified = 0 not in verified

    def _block_checksums(self) -> list[int]:
        """The array of checksums, itself verified by the descriptor's."""
        if self._checksums is None:
            size = 8 * len(self.verified)
            at = padded(self.size)
            raw = self._file.read_at(self._offset + at, size)
            if len(raw) != size:
                raise self._cut_short(at, len(raw), size)
            checksum = xxh3_64_intdigest(raw)
            if checksum != self.descriptor.checksum:
                raise self._error(
                    f"array of block checksums: checksum {checksum:#018x}, "
                    f"expected {self.descriptor.checksum:#018x}"
                )
            self._checksums = np.frombuffer(raw, "<u8").tolist()
        return self._checksums

    def _outside(self, offset: int, end: int) -> CorruptDatabaseError:
        return self._error(f"bytes {offset} to {end} of a content of {self.size}")

    def _cut_short(self, offset: int, found: int, expected: int) -> CorruptDatabaseError:
        return self._error(f"{found} bytes from offset {offset}, expected {expected}")
