"""The simulated disk: what the page cache shows, and what a power loss may leave of it.

A file is pages of 4 KiB. `pages` is what a reader sees now. Each page that was changed since the
last sync has its history, and the disk may hold any version of it, sector by sector:

    history[page] = [as of the last sync, after the first write, ..., as a reader sees it now]
    sizes         = [as of the last sync, ..., now]

Names are kept alike: `durable_names` are those of the last `sync_dir` of their folder, and
`pending_names` the changes since then.

Invariants
    SD1 A page without history and not in `lost` is on the disk as `pages` shows it.
    SD2 A version is immutable and shared by all copies: copying a disk copies references only.
    SD3 `apply` is a function of the state and the operation: replaying a log gives the same disk.
"""

from __future__ import annotations

import os
from typing import NamedTuple

PAGE = 4096  # bytes, the unit of the page cache
SECTOR = 512  # bytes, the unit that a disk writes whole or not at all
ZERO_PAGE = bytes(PAGE)

Version = bytes | None  # None is a hole: it reads as zeros and takes no space


class Operation(NamedTuple):
    """One step that changes a disk, or makes it durable."""

    kind: str  # write truncate allocate sync failed_sync create unlink rename sync_dir
    path: str
    process: int
    inode: int = 0
    offset: int = 0
    size: int = 0
    data: bytes = b""
    target: str = ""  # rename: the new name
    keep_cache: bool = True  # failed_sync: readers go on seeing what the disk has not
    survivors: frozenset[int] = frozenset()  # failed_sync: pages that reached the disk
    shared: tuple[tuple[int, bytes], ...] = ()  # inode and content of each shared region just then

    def __str__(self) -> str:
        where = f" [{self.offset}, +{len(self.data) or self.size})" if self.inode else ""
        return f"{self.kind} {os.path.basename(self.path)}{where} by {self.process}"


class DiskFile:
    """A file's bytes: as the page cache has them, and every version that the disk may have."""

    __slots__ = ("history", "lost", "pages", "size", "sizes")

    def __init__(self, pages: dict[int, bytes] | None = None, size: int = 0) -> None:
        self.pages = {} if pages is None else pages
        self.size = size
        self.sizes = [size]
        self.history: dict[int, list[Version]] = {}
        self.lost: dict[int, Version] = {}

    def copy(self) -> DiskFile:
        """A copy of its own, sharing the versions (SD2)."""
        other = DiskFile(self.pages.copy(), self.size)
        other.sizes = self.sizes.copy()
        other.history = {page: versions.copy() for page, versions in self.history.items()}
        other.lost = self.lost.copy()
        return other

    def read(self, offset: int, size: int) -> bytes:
        """The bytes of a range as the page cache has them, cut at the end of the file."""
        end = min(offset + size, self.size)
        if offset >= end:
            return b""
        pages = self.pages
        first, last = offset // PAGE, (end - 1) // PAGE
        begin = offset - first * PAGE
        if first == last:
            return pages.get(first, ZERO_PAGE)[begin : begin + end - offset]
        whole = b"".join([pages.get(page, ZERO_PAGE) for page in range(first, last + 1)])
        return whole[begin : begin + end - offset]

    def write(self, offset: int, data: bytes) -> None:
        """Put bytes into the page cache."""
        end = offset + len(data)
        for page in range(offset // PAGE, (end + PAGE - 1) // PAGE):
            start = page * PAGE
            first, last = max(offset, start), min(end, start + PAGE)
            piece = data[first - offset : last - offset]
            if last - first < PAGE:
                old = self.pages.get(page, ZERO_PAGE)
                piece = old[: first - start] + piece + old[last - start :]
            self._record(page, piece)
        if data and end > self.size:
            self._resize(end)

    def truncate(self, size: int) -> None:
        """Cut the file or grow it with a hole."""
        if size < self.size:
            for page in [page for page in self.pages if page * PAGE >= size]:
                self._record(page, None)
            page, rest = divmod(size, PAGE)
            if rest and page in self.pages:
                self._record(page, self.pages[page][:rest] + bytes(PAGE - rest))
        if size != self.size:
            self._resize(size)

    def allocate(self, offset: int, size: int) -> None:
        """Give a range space on the disk."""
        for page in range(offset // PAGE, (offset + size + PAGE - 1) // PAGE):
            self.pages.setdefault(page, ZERO_PAGE)
        if offset + size > self.size:
            self._resize(offset + size)

    def sync(self) -> None:
        """Make all that the page cache holds durable."""
        self.history.clear()
        self.sizes = [self.size]

    def fail_sync(self, survivors: frozenset[int], *, keep_cache: bool) -> None:
        """Call the changed pages clean, though only `survivors` have reached the disk."""
        for page, versions in self.history.items():
            if page in survivors or versions[-1] is None:
                continue
            if keep_cache:
                self.lost[page] = versions[0]
            elif versions[0] is None:
                self.pages.pop(page, None)
            else:
                self.pages[page] = versions[0]
        self.history.clear()

    def new_pages(self, offset: int, size: int) -> int:
        """How many pages a write or an allocation of the range would add."""
        wanted = range(offset // PAGE, (offset + size + PAGE - 1) // PAGE)
        return sum(page not in self.pages for page in wanted)

    def _record(self, page: int, new: Version) -> None:
        versions = self.history.get(page)
        if versions is None:
            old = self.lost.pop(page) if page in self.lost else self.pages.get(page)
            self.history[page] = [old, new]
        else:
            versions.append(new)
        if new is None:
            self.pages.pop(page, None)
        else:
            self.pages[page] = new

    def _resize(self, size: int) -> None:
        self.size = size
        self.sizes.append(size)


class DiskState:
    """All files and names of a machine at one moment."""

    __slots__ = ("durable_names", "files", "names", "pending_names", "shared")

    def __init__(self, files: dict[int, DiskFile], names: dict[str, int]) -> None:
        self.files = files
        self.names = names
        self.durable_names = names.copy()
        self.pending_names: list[Operation] = []
        self.shared: tuple[tuple[int, bytes], ...] = ()

    def copy(self) -> DiskState:
        """A copy of its own."""
        other = DiskState({n: file.copy() for n, file in self.files.items()}, self.names.copy())
        other.durable_names = self.durable_names.copy()
        other.pending_names = self.pending_names.copy()
        other.shared = self.shared
        return other

    def apply(self, operation: Operation) -> None:
        """Do one operation (SD3)."""
        self.shared = operation.shared
        kind = operation.kind
        if kind == "write":
            self.files[operation.inode].write(operation.offset, operation.data)
        elif kind == "sync":
            self.files[operation.inode].sync()
        elif kind == "allocate":
            self.files[operation.inode].allocate(operation.offset, operation.size)
        elif kind == "truncate":
            self.files[operation.inode].truncate(operation.size)
        elif kind == "failed_sync":
            file = self.files[operation.inode]
            file.fail_sync(operation.survivors, keep_cache=operation.keep_cache)
        elif kind == "sync_dir":
            self._sync_names(os.path.dirname(operation.path))
        else:
            if kind == "create":
                self.files[operation.inode] = DiskFile()
            change_names(self.names, operation)
            self.pending_names.append(operation)

    def _sync_names(self, folder: str) -> None:
        pending = []
        for operation in self.pending_names:
            if os.path.dirname(operation.path) == folder:
                change_names(self.durable_names, operation)
            else:
                pending.append(operation)
        self.pending_names = pending


def change_names(names: dict[str, int], operation: Operation) -> None:
    """Do a create, unlink or rename on a table of names."""
    if operation.kind == "unlink":
        names.pop(operation.path, None)
    elif operation.kind == "create":
        names[operation.path] = operation.inode
    else:
        names.pop(operation.path, None)
        names[operation.target] = operation.inode
