"""The virtual file system: the one seam through which the engine meets the operating system.

Three implementations: `os_vfs.OsVfs` (files), `memory_vfs.MemoryVfs` (nothing outlives the
process) and `sim_vfs.SimVfs` (records every write and sync and builds the images that a crash can
leave). pager, wal, index and query touch files, the clock and randomness through it alone.

Invariants
    V1  No call moves a position: offsets are given, in bytes from the start of the file.
    V2  `write_at` writes all bytes or raises; how many had reached the file is then unknown.
    V3  Bytes are durable once `sync` of their file has returned; a file's name once `sync_dir`
        of its folder has. After a failed `sync` nothing is known of any byte since the last one.
    V4  Locks belong to the open `File`, vanish with it or with its process, and never block.
    V5  Operating system errors leave as PEP 249 errors of `pager.errors` which name the path.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Identity(NamedTuple):
    """Which file a path or a handle means: equal identities are the same file."""

    device: int
    inode: int
    links: int


class SharedMemory(Protocol):
    """A small region that all processes with the database open see at once.

    `view` is writable and stays valid until `close`. It is no storage: it may be lost or stale
    after a crash, and nothing that recovery needs lies in it.
    """

    view: memoryview

    def close(self) -> None:
        """Drop the mapping; the file stays."""
        ...


class File(Protocol):
    """An open file. Offsets and sizes are bytes; no call moves a position."""

    path: str

    def read_at(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset`; fewer only at the end of the file."""
        ...

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill `buffer` from `offset`; returns the bytes read, fewer only at the end."""
        ...

    def write_at(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write all of `data` at `offset`, growing the file as needed."""
        ...

    def truncate(self, size: int) -> None:
        """Cut or grow (with zeros) the file to `size` bytes."""
        ...

    def allocate(self, offset: int, size: int) -> None:
        """Reserve disk space for a range, growing the file; raises when the disk is full."""
        ...

    def sync(self) -> None:
        """Wait until all bytes written so far are durable."""
        ...

    def size(self) -> int:
        """Bytes in the file now."""
        ...

    def identity(self) -> Identity:
        """The identity of the open file, whatever its path names by now."""
        ...

    def map(self, offset: int, size: int) -> memoryview:
        """A read-only view of a range that lies inside the file.

        `offset` is a multiple of 4096. The view stays readable until it is released or
        collected, even when the file was closed; it never keeps a lock alive.
        """
        ...

    def release(self, offset: int, size: int) -> None:
        """Give back the memory of mapped pages that lie within a range.

        Views of it stay; what is read of them later comes from the file again.
        """
        ...

    def lock(self, offset: int, size: int, *, exclusive: bool) -> bool:
        """Try to take or convert a byte-range lock; False when another holder prevents it.

        Never blocks. A lock that this File already holds on the range is converted. Failure leaves
        what was held before.
        """
        ...

    def unlock(self, offset: int, size: int) -> None:
        """Give up this File's locks on the range."""
        ...

    def close(self) -> None:
        """Close the handle and with it its locks; a second call does nothing."""
        ...

    def abandon(self) -> None:
        """In a forked child: close the descriptor without unlocking (S5)."""
        ...


class Vfs(Protocol):
    """Where files are. The one place that touches the operating system."""

    name: str

    def open(self, path: str, *, create: bool = False, read_only: bool = False) -> File:
        """Open a file; with `create` make it when absent.

        Raises OperationalError: absent, a directory, no permission.
        """
        ...

    def exists(self, path: str) -> bool:
        """Whether the path names a file."""
        ...

    def size(self, path: str) -> int:
        """Bytes in the file that the path names."""
        ...

    def identity(self, path: str) -> Identity | None:
        """The file that the path names now, or None."""
        ...

    def unlink(self, path: str) -> None:
        """Remove the name; absent is no error."""
        ...

    def resolve(self, path: str) -> str:
        """The path behind all links, where a file is or can be made.

        Raises OperationalError: links in a circle, a folder, a device or another special file.
        """
        ...

    def rename(self, source: str, target: str, *, replace: bool = True) -> None:
        """Give the file another name, in one step, replacing `target`.

        With `replace` false an OperationalError, caused by FileExistsError, where `target` exists.
        """
        ...

    def sync_dir(self, path: str) -> None:
        """Make durable the names in the folder that holds `path`."""
        ...

    def shared_memory(self, path: str, size: int, *, create: bool) -> SharedMemory | None:
        """The region behind `path`, zero-filled when new; None when absent and not `create`.

        Raises OperationalError when it cannot be created or opened for writing.
        """
        ...

    def scratch(self, path: str, size: int) -> memoryview:
        """So many writable zero bytes on the disk that holds `path`; they go with their last view.

        Nothing of them has a name, now or after a crash; the space is had (no store fails later).
        Raises OperationalError where it is not.
        """
        ...

    def resident_bytes(self) -> int | None:
        """Bytes of mapped files that this process has in memory; None where nobody says."""
        ...

    def is_network(self, path: str) -> bool:
        """Whether the path lies on a network file system (S29)."""
        ...

    def process_id(self) -> int:
        """The calling process; a simulated one has its own."""
        ...

    def now(self) -> float:
        """Wall clock, seconds since 1970."""
        ...

    def monotonic(self) -> float:
        """A clock for timeouts, seconds."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait; the simulator advances its clock instead."""
        ...

    def random(self, size: int) -> bytes:
        """Unpredictable bytes for salts and uuids; seeded in the simulator."""
        ...
