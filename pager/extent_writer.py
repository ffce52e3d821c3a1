"""Writing an extent: one pass over the parts, hashed on the way, in bounded memory.

    parts --> hash of each 64 KiB block --> file, large parts straight from the caller's memory
                                       \\--> checksums behind the content

Invariants (beside E1.. of `pager.extent`)
    EW1 Not a byte is written outside the pages that the size asks for, whatever the parts hold.
    EW2 Small parts are gathered, and of large ones what does not fill a huge page; the rest is
        written from where it is, and not copied.
    EW3 Beside a Settler, SETTLED_BYTES and one part at most wait for the sync at the end.
    EW4 What is written of large parts ends where huge pages of the file end. What a system caches
        of a file in the pages it was written by, it maps in such pages: searches read at places all
        over an extent, and find those of a huge page without walking tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from xxhash import xxh3_64, xxh3_64_intdigest

from m2mdb.pager.errors import InternalError
from m2mdb.pager.extent import BLOCK_SIZE, ExtentDescriptor, extent_page_count, padded

if TYPE_CHECKING:
    from m2mdb.pager.vfs import File

Part = bytes | bytearray | memoryview | np.ndarray[Any, Any]

SETTLED_BYTES = 32 << 20  # 10 to 20 milliseconds of a fast disk
_GATHERED = 4 * BLOCK_SIZE  # bytes of small parts that are written at once
_PIECE = 2 << 20  # bytes of large parts that are written at once: a huge page (EW4)


def write_extent(
    file: File, page_size: int, start_page: int, commit: int, size: int, parts: Iterable[Part]
) -> ExtentDescriptor:
    """Write an extent whose parts come to `size` bytes on its pages, which the caller reserved.

    Its pages are extent_page_count(size, page_size) from `start_page`. The caller syncs (S7).
    Raises InternalError when the parts come to another size.
    """
    writer = _Writer(file, (start_page - 1) * page_size, size)
    for part in parts:
        writer.add(_raw(part))
    page_count = extent_page_count(size, page_size)
    checksum = writer.finish(page_count * page_size)
    return ExtentDescriptor(start_page, page_count, size, checksum, commit)


class Settler:
    """Syncs a file now and then while much is written to it.

    The sync of a gigabyte takes the system a second or more, in which no interrupt is looked for;
    what is synced on the way is as durable, and the sync at the end finds little left to do.
    """

    __slots__ = ("_sync", "_waiting")

    def __init__(self, sync: Callable[[], None]) -> None:
        """`sync` makes all durable that was written; it may raise."""
        self._sync = sync
        self._waiting = 0

    def wrote(self, size: int) -> None:
        """So many bytes more were written."""
        self._waiting += size
        if self._waiting >= SETTLED_BYTES:
            self._waiting = 0
            self._sync()

    def parts(self, parts: Iterable[Part]) -> Iterator[Part]:
        """The parts of an extent; when the next one is asked for, the last one is written."""
        for part in parts:
            yield part
            self.wrote(len(part) if isinstance(part, bytes | bytearray) else part.nbytes)


def _raw(part: Part) -> memoryview:
    """The bytes of a part, without a copy if they lie in one row."""
    if isinstance(part, np.ndarray):
        return np.ascontiguousarray(part).reshape(-1).view(np.uint8).data
    view = memoryview(part)
    return view.cast("B") if view.nbytes else memoryview(b"")


class _Writer:
    """One extent on its way to the file."""

    def __init__(self, file: File, offset: int, size: int) -> None:
        self.file = file
        self.start = offset
        self.offset = offset  # of the next byte to be written
        self.missing = size  # bytes of content still to come
        self.padding = padded(size) - size
        self.gathered = bytearray()
        self.hasher = xxh3_64()
        self.hashed = 0  # bytes of the open block that the hasher has
        self.checksums: list[int] = []

    def add(self, data: memoryview) -> None:
        """Hash and write a part."""
        size = len(data)
        self.missing -= size
        if self.missing < 0:
            raise InternalError(f"extent: the parts are {-self.missing} bytes too long")
        if size < BLOCK_SIZE:
            self.append(data)
            self.hash(data)
            return
        start = 0
        while start < size:
            place = self.offset + len(self.gathered)
            piece = data[start : start + _PIECE - place % _PIECE]
            start += len(piece)
            self.hash(piece)
            if len(piece) == _PIECE:
                self.flush()  # small parts
                self.file.write_at(self.offset, piece)
                self.offset += _PIECE
                continue
            self.gathered += piece
            if (place + len(piece)) % _PIECE == 0:
                self.flush()

    def finish(self, total: int) -> int:
        """Write padding, checksums and slack, `total` bytes in all; returns their checksum."""
        if self.missing:
            raise InternalError(f"extent: the parts are {self.missing} bytes too short")
        padding = memoryview(bytes(self.padding))
        self.append(padding)
        self.hash(padding)
        if self.hashed:
            self.checksums.append(self.hasher.intdigest())
        array = np.array(self.checksums, "<u8").tobytes()
        self.append(memoryview(array))
        end = self.start + total
        self.append(memoryview(bytes(end - self.offset - len(self.gathered))))
        self.flush()
        return xxh3_64_intdigest(array)

    def append(self, data: memoryview) -> None:
        """Gather a small part."""
        self.gathered += data
        if len(self.gathered) >= _GATHERED:
            self.flush()

    def flush(self) -> None:
        """Write what was gathered."""
        if self.gathered:
            self.file.write_at(self.offset, self.gathered)
            self.offset += len(self.gathered)
            self.gathered = bytearray()

    def hash(self, data: memoryview) -> None:
        """Take the next bytes into the block checksums."""
        size = len(data)
        done = 0
        if self.hashed:
            done = min(BLOCK_SIZE - self.hashed, size)
            self.hasher.update(data[:done])
            self.hashed += done
            if self.hashed == BLOCK_SIZE:
                self.checksums.append(self.hasher.intdigest())
                self.hasher.reset()
                self.hashed = 0
        while size - done >= BLOCK_SIZE:
            self.checksums.append(xxh3_64_intdigest(data[done : done + BLOCK_SIZE]))
            done += BLOCK_SIZE
        if done < size:
            self.hasher.update(data[done:])
            self.hashed = size - done
