"""MemoryVfs: files that live in this process and nowhere else.

A file's bytes lie in segments, byte arrays which are never resized, so that a view of one stays
good while the file grows:

    starts    0 ........ 65536 ............. 1048576 ...
    segments  bytearray  bytearray           bytearray

Segment i covers the bytes from its start to the next one's; bytes behind the file's size are zero.
A range that is allocated at the end of the file is given a segment of its own, so that an extent
is mapped without a copy.

Invariants
    MV1 A segment is never resized, and never moved.
    MV2 Every byte of a segment behind the size of the file is zero.
    MV3 An interrupt between any two steps leaves segments for all of `capacity`; what there is
        beyond is dropped when the next segment is added.
"""

from __future__ import annotations

import errno
import itertools
import os
import time
from bisect import bisect_right
from collections.abc import Iterator

from m2mdb.pager.errors import InterfaceError, OperationalError
from m2mdb.pager.io_errors import io_error, os_error
from m2mdb.pager.range_locks import RangeLocks
from m2mdb.pager.vfs import Identity

_FIRST_SEGMENT = 1 << 16  # bytes; a segment for growth is a quarter of the file
_LARGEST_SPARE = 1 << 20  # bytes that a growing write may add beyond its need


class MemoryContent:
    """The bytes and the locks of one file, whatever its name."""

    __slots__ = ("capacity", "links", "locks", "number", "segments", "size", "starts")

    def __init__(self, number: int) -> None:
        self.number = number
        self.links = 1
        self.locks = RangeLocks()
        self.size = 0
        self.capacity = 0
        self.starts: list[int] = []
        self.segments: list[bytearray] = []

    def pieces(self, offset: int, end: int) -> Iterator[tuple[bytearray, int, int, int]]:
        """(segment, its first and last byte in the range, offset of the first in the range)."""
        index = bisect_right(self.starts, offset) - 1
        position = offset
        while position < end:
            start = self.starts[index]
            limit = self.starts[index + 1] if index + 1 < len(self.starts) else self.capacity
            stop = min(end, limit)
            yield self.segments[index], position - start, stop - start, position - offset
            position = stop
            index += 1

    def read(self, offset: int, size: int) -> bytes:
        """The bytes of a range, cut at the end of the file."""
        end = min(offset + size, self.size)
        if offset >= end:
            return b""
        parts = [bytes(memoryview(piece)[a:b]) for piece, a, b, _ in self.pieces(offset, end)]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Copy a range into a buffer."""
        target = buffer.cast("B")
        end = min(offset + target.nbytes, self.size)
        if offset >= end:
            return 0
        for piece, first, last, at in self.pieces(offset, end):
            target[at : at + last - first] = memoryview(piece)[first:last]
        return end - offset

    def write(self, offset: int, data: memoryview) -> None:
        """Put bytes at an offset."""
        end = offset + data.nbytes
        if end > self.capacity:
            spare = min(max(self.capacity // 4, _FIRST_SEGMENT), _LARGEST_SPARE)
            self._add_segment(self.capacity, end + spare)
        for piece, first, last, at in self.pieces(offset, end):
            piece[first:last] = data[at : at + last - first]
        self.size = max(self.size, end)

    def allocate(self, offset: int, size: int) -> None:
        """Make room for a range; at the end of the file in a segment of its own."""
        end = offset + size
        if end > self.capacity:
            if self.size <= offset < self.capacity:
                self._cut(offset)  # the unused rest of the last segment is given up
            if offset > self.capacity:
                self._add_segment(self.capacity, offset)
            self._add_segment(self.capacity, end)
        self.size = max(self.size, end)

    def truncate(self, size: int) -> None:
        """Cut the file or grow it with zeros."""
        if size > self.capacity:
            self._add_segment(self.capacity, size)
        for piece, first, last, _ in self.pieces(size, self.size):
            piece[first:last] = bytes(last - first)
        while self.starts and self.starts[-1] >= size:
            self.capacity = self.starts[-1]
            self.starts.pop()
            self.segments.pop()
        self.size = size

    def view(self, offset: int, size: int) -> memoryview:
        """A read-only view of a range, without a copy where one segment holds it."""
        pieces = list(self.pieces(offset, offset + size))
        if len(pieces) == 1:
            segment, first, last, _ = pieces[0]
            return memoryview(segment).toreadonly()[first:last]
        return memoryview(self.read(offset, size))

    def _cut(self, end: int) -> None:
        self.capacity = end
        while self.starts and self.starts[-1] >= end:
            self.starts.pop()
            self.segments.pop()

    def _add_segment(self, start: int, end: int) -> None:
        while self.starts and self.starts[-1] >= start:  # MV3: an interrupt left it
            self.starts.pop()
        del self.segments[len(self.starts) :]
        self.segments.append(bytearray(end - start))
        self.starts.append(start)
        self.capacity = end


class MemoryFile:
    """An open file of a MemoryVfs."""

    __slots__ = ("_content", "_owner", "_read_only", "path")

    def __init__(self, content: MemoryContent, path: str, *, read_only: bool) -> None:
        self.path = path
        self._owner = object()  # of the locks; not the file itself, so that it can be collected
        self._read_only = read_only
        self._content: MemoryContent | None = content

    def _open_content(self) -> MemoryContent:
        if self._content is None:
            raise InterfaceError(f"{self.path}: the file is closed")
        return self._content

    def _writable(self, operation: str) -> MemoryContent:
        content = self._open_content()
        if self._read_only:
            cause = os_error(errno.EBADF, self.path)
            raise io_error(cause, operation, self.path) from cause
        return content

    def read_at(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset`; fewer only at the end of the file."""
        return self._open_content().read(offset, size)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill `buffer` from `offset`; returns the bytes read, fewer only at the end."""
        return self._open_content().read_into(offset, buffer)

    def write_at(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write all of `data` at `offset`, growing the file as needed."""
        self._writable("write").write(offset, memoryview(data).cast("B"))

    def truncate(self, size: int) -> None:
        """Cut or grow (with zeros) the file to `size` bytes."""
        self._writable("truncate").truncate(size)

    def allocate(self, offset: int, size: int) -> None:
        """Make room for a range, growing the file."""
        self._writable("allocate space in").allocate(offset, size)

    def sync(self) -> None:
        """Nothing: no byte outlives the process."""
        self._open_content()

    def size(self) -> int:
        """Bytes in the file now."""
        return self._open_content().size

    def identity(self) -> Identity:
        """The identity of the open file, whatever its path names by now."""
        content = self._open_content()
        return Identity(0, content.number, content.links)

    def map(self, offset: int, size: int) -> memoryview:
        """A read-only view of a range that lies inside the file."""
        content = self._open_content()
        if offset < 0 or offset + size > content.size:
            raise OperationalError(
                f"cannot map {self.path}: bytes {offset} to {offset + size} "
                f"of a file of {content.size}"
            )
        return content.view(offset, size)

    def release(self, offset: int, size: int) -> None:
        """There is no other place for the bytes."""

    def lock(self, offset: int, size: int, *, exclusive: bool) -> bool:
        """Try to take or convert a byte-range lock; False when another holder prevents it."""
        content = self._writable("lock") if exclusive else self._open_content()
        return content.locks.lock(self._owner, offset, size, exclusive=exclusive)

    def unlock(self, offset: int, size: int) -> None:
        """Give up this File's locks on the range."""
        self._open_content().locks.unlock(self._owner, offset, size)

    def close(self) -> None:
        """Close the handle and with it its locks; a second call does nothing."""
        if self._content is not None:
            self._content.locks.drop(self._owner)
            self._content = None

    def abandon(self) -> None:
        """In a forked child: forget the file; the parent's locks are not in this memory."""
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_content"):  # an interrupt can come before it is set
            self.close()


class MemorySharedMemory:
    """A region that all who ask for the same name see."""

    __slots__ = ("view",)

    def __init__(self, region: bytearray) -> None:
        self.view = memoryview(region)

    def close(self) -> None:
        """Drop this view; the region stays."""
        self.view.release()


class MemoryVfs:
    """Files shared by all who hold this object; no folders, any string is a name."""

    __slots__ = ("_files", "_numbers", "_regions", "name")

    def __init__(self) -> None:
        self.name = "memory"
        self._files: dict[str, MemoryContent] = {}
        self._regions: dict[str, bytearray] = {}
        self._numbers = itertools.count(1)

    def open(self, path: str, *, create: bool = False, read_only: bool = False) -> MemoryFile:
        """Open a file; with `create` make it when absent."""
        content = self._files.get(path)
        if content is None:
            if not create:
                cause = os_error(errno.ENOENT, path)
                raise io_error(cause, "open", path) from cause
            content = self._files[path] = MemoryContent(next(self._numbers))
        return MemoryFile(content, path, read_only=read_only)

    def exists(self, path: str) -> bool:
        """Whether the path names a file."""
        return path in self._files or path in self._regions

    def size(self, path: str) -> int:
        """Bytes in the file that the path names."""
        if path in self._regions:
            return len(self._regions[path])
        content = self._files.get(path)
        if content is None:
            cause = os_error(errno.ENOENT, path)
            raise io_error(cause, "measure", path) from cause
        return content.size

    def identity(self, path: str) -> Identity | None:
        """The file that the path names now, or None."""
        content = self._files.get(path)
        return None if content is None else Identity(0, content.number, content.links)

    def unlink(self, path: str) -> None:
        """Remove the name; absent is no error."""
        self._regions.pop(path, None)
        content = self._files.pop(path, None)
        if content is not None:
            content.links -= 1

    def resolve(self, path: str) -> str:
        """The path: there are no links and no folders."""
        return path

    def rename(self, source: str, target: str, *, replace: bool = True) -> None:
        """Give the file another name, replacing `target`, or with `replace` false raising."""
        if source not in self._files:
            cause = os_error(errno.ENOENT, source)
            raise io_error(cause, "rename", source) from cause
        if not replace and self.exists(target):
            cause = os_error(errno.EEXIST, target)
            raise io_error(cause, f"rename {source} to", target) from cause
        if source == target:
            return
        self.unlink(target)
        self._files[target] = self._files.pop(source)

    def sync_dir(self, path: str) -> None:
        """Nothing: no name outlives the process."""

    def shared_memory(self, path: str, size: int, *, create: bool) -> MemorySharedMemory | None:
        """The region behind `path`, zero-filled when new; None when absent and not `create`."""
        region = self._regions.get(path)
        if region is None:
            if not create:
                return None
            region = self._regions[path] = bytearray(size)
        if len(region) < size:
            raise OperationalError(
                f"cannot share memory by {path}: {len(region)} bytes, not {size}"
            )
        return MemorySharedMemory(region)

    def scratch(self, path: str, size: int) -> memoryview:
        """So many writable zero bytes."""
        return memoryview(bytearray(size))

    def resident_bytes(self) -> int | None:
        """Nobody says."""
        return None

    def is_network(self, path: str) -> bool:
        """Never."""
        return False

    def process_id(self) -> int:
        """The calling process."""
        return os.getpid()

    def now(self) -> float:
        """Wall clock, seconds since 1970."""
        return time.time()

    def monotonic(self) -> float:
        """A clock for timeouts, seconds."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    def random(self, size: int) -> bytes:
        """Unpredictable bytes for salts and uuids."""
        return os.urandom(size)
