"""OsVfs: files of the operating system.

One `OsFile` is one descriptor: its locks are of the open file description, so two `OsFile`s of
one file in one process exclude each other exactly as two processes do.

Invariants (beside V1..V5 of `pager.vfs` and PL1..PL3 of `pager.os_platform`)
    OS1 After a fork the child has closed every descriptor before it runs any other code: a child
        that never heard of the database keeps no lock alive when its parent dies (S5).
    OS2 A finaliser closes the descriptor and does nothing else.
    OS3 `-wal` and `-shm` are created with the permissions of the file that they belong to.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import stat
import time
import weakref
from typing import TYPE_CHECKING

from m2mdb.pager.errors import InterfaceError, OperationalError
from m2mdb.pager.io_errors import io_error, os_error
from m2mdb.pager.os_platform import (
    EXCLUSIVE,
    SHARED,
    UNLOCKED,
    allocate,
    is_network_file_system,
    map_read_only,
    open_descriptor,
    rename_new,
    sync_data,
    try_lock,
)
from m2mdb.pager.vfs import Identity

if TYPE_CHECKING:
    from collections.abc import Callable

_pread = os.pread
_preadv = os.preadv
_pwrite = os.pwrite
_SIDE_FILES = ("-wal", "-shm")
_PERMISSIONS = 0o777
_NO_DESCRIPTOR = (1 << 31) - 1  # never open: each call with it fails with EBADF

_open_files: weakref.WeakSet[OsFile] = weakref.WeakSet()


class OsFile:
    """A file descriptor with the locks that hang on it."""

    __slots__ = ("__weakref__", "_fd", "_is_small", "_locked", "_map", "path")

    def __init__(self, fd: int, path: str) -> None:
        self._fd = fd
        self.path = path
        self._locked = False
        self._map: memoryview | None = None
        self._is_small = False  # whether huge pages of the map were declined
        _open_files.add(self)

    def read_at(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset`; fewer only at the end of the file."""
        try:
            data = _pread(self._fd, size, offset)
            if len(data) == size:
                return data
            return self._read_on(data, offset, size)
        except OSError as error:
            raise self._failure(error, "read") from error

    def _read_on(self, data: bytes, offset: int, size: int) -> bytes:
        parts = [data]
        done = len(data)
        while data and done < size:
            data = _pread(self._fd, size - done, offset + done)
            parts.append(data)
            done += len(data)
        return b"".join(parts)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill `buffer` from `offset`; returns the bytes read, fewer only at the end."""
        size = buffer.nbytes
        try:
            done = _preadv(self._fd, (buffer,), offset)
            if done == size or not done:
                return done
            rest = buffer.cast("B")
            while done < size:
                count = _preadv(self._fd, (rest[done:],), offset + done)
                if not count:
                    break
                done += count
            return done
        except OSError as error:
            raise self._failure(error, "read") from error

    def write_at(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write all of `data` at `offset`, growing the file as needed."""
        try:
            done = _pwrite(self._fd, data, offset)
            if done == len(data):
                return
            rest = memoryview(data).cast("B")
            while done < len(rest):
                count = _pwrite(self._fd, rest[done:], offset + done)
                if not count:
                    raise os_error(errno.EIO, self.path)  # it would take nothing for ever
                done += count
        except OSError as error:
            raise self._failure(error, "write") from error

    def truncate(self, size: int) -> None:
        """Cut or grow (with zeros) the file to `size` bytes."""
        try:
            os.ftruncate(self._fd, size)
        except OSError as error:
            raise self._failure(error, "truncate") from error

    def allocate(self, offset: int, size: int) -> None:
        """Reserve disk space for a range, growing the file; raises when the disk is full."""
        if not size:
            return
        try:
            allocate(self._fd, offset, size)
        except OSError as error:
            raise self._failure(error, "allocate space in") from error

    def sync(self) -> None:
        """Wait until all bytes written so far are durable."""
        try:
            sync_data(self._fd)
        except OSError as error:
            raise self._failure(error, "sync") from error

    def size(self) -> int:
        """Bytes in the file now."""
        try:
            # Nothing uses the position (V1), and a seek costs a third of a stat.
            return os.lseek(self._fd, 0, os.SEEK_END)
        except OSError as error:
            raise self._failure(error, "measure") from error

    def identity(self) -> Identity:
        """The identity of the open file, whatever its path names by now."""
        try:
            found = os.fstat(self._fd)
        except OSError as error:
            raise self._failure(error, "identify") from error
        return Identity(found.st_dev, found.st_ino, found.st_nlink)

    def map(self, offset: int, size: int) -> memoryview:
        """A read-only view of a range that lies inside the file.

        All views of a File are cut from one map of the whole file, which is made anew when the
        file has outgrown it: hundreds of extents do not cost hundreds of descriptors.
        """
        end = offset + size
        found = self.size()
        if offset < 0 or end > found:
            raise OperationalError(
                f"cannot map {self.path}: bytes {offset} to {end} of a file of {found}"
            )
        whole = self._map
        if whole is None or len(whole) < end:
            if not size:
                return memoryview(b"")
            try:
                whole = self._map = memoryview(map_read_only(self._fd, self.path, found))
                self._is_small = False
            except OSError as error:
                raise self._failure(error, "map") from error
        return whole[offset:end]

    def release(self, offset: int, size: int) -> None:
        """Give back the memory of mapped pages that lie within a range."""
        whole = self._map
        start = -(-offset // mmap.PAGESIZE) * mmap.PAGESIZE
        if (
            whole is None
            or not isinstance(whole.obj, mmap.mmap)
            or not hasattr(mmap, "MADV_DONTNEED")
        ):
            return
        end = min(offset + size, len(whole)) // mmap.PAGESIZE * mmap.PAGESIZE
        if start < end:
            if hasattr(mmap, "MADV_NOHUGEPAGE") and not self._is_small:
                self._is_small = True  # or 2 MiB would be resident for each page that is read
                with contextlib.suppress(OSError):  # a kernel without huge pages knows no advice
                    whole.obj.madvise(mmap.MADV_NOHUGEPAGE)
            whole.obj.madvise(mmap.MADV_DONTNEED, start, end - start)

    def lock(self, offset: int, size: int, *, exclusive: bool) -> bool:
        """Try to take or convert a byte-range lock; False when another holder prevents it."""
        self._locked = True
        try:
            return try_lock(self._fd, EXCLUSIVE if exclusive else SHARED, offset, size)
        except OSError as error:
            raise self._failure(error, "lock") from error

    def unlock(self, offset: int, size: int) -> None:
        """Give up this File's locks on the range."""
        try:
            try_lock(self._fd, UNLOCKED, offset, size)
        except OSError as error:
            raise self._failure(error, "unlock") from error

    def close(self) -> None:
        """Close the handle and with it its locks; a second call does nothing."""
        fd = self._fd
        if fd == _NO_DESCRIPTOR:
            return
        if self._locked:
            # A child that was forked by foreign means may share the description: without this it
            # would keep the locks alive.
            with contextlib.suppress(OSError):  # they go with the descriptor
                try_lock(fd, UNLOCKED, 0, 0)
        self.abandon()

    def abandon(self) -> None:
        """In a forked child: close the descriptor without unlocking (S5)."""
        fd, self._fd = self._fd, _NO_DESCRIPTOR
        self._map = None
        if fd != _NO_DESCRIPTOR:
            os.close(fd)

    def __del__(
        self, _close: Callable[[int], None] = os.close, _none: int = _NO_DESCRIPTOR
    ) -> None:
        # Bound here: when the interpreter ends, the module's own names are gone before this runs.
        fd = getattr(self, "_fd", _none)  # an interrupt can come before it is set
        if fd != _none:
            self._fd = _none
            _close(fd)

    def __repr__(self) -> str:
        return f"<OsFile {self.path!r}{' (closed)' if self._fd == _NO_DESCRIPTOR else ''}>"

    def _failure(self, cause: OSError, operation: str) -> InterfaceError | OperationalError:
        if self._fd == _NO_DESCRIPTOR:
            return InterfaceError(f"cannot {operation} {self.path}: the file is closed")
        return io_error(cause, operation, self.path)


def _abandon_all() -> None:
    """In a forked child: no descriptor, and so no lock, outlives the parent here (OS1)."""
    for file in list(_open_files):
        file.abandon()


os.register_at_fork(after_in_child=_abandon_all)


class OsSharedMemory:
    """A file mapped writable and shared."""

    __slots__ = ("_map", "view")

    def __init__(self, region: mmap.mmap) -> None:
        self._map = region
        self.view = memoryview(region)

    def close(self) -> None:
        """Drop the mapping; the file stays."""
        self.view.release()
        try:
            self._map.close()
        except BufferError:
            return  # a slice of the view still lives; the map goes with it


class OsVfs:
    """The operating system's files, clock and randomness."""

    __slots__ = ("_network", "name")

    def __init__(self) -> None:
        self.name = "os"
        self._network: dict[int, bool] = {}

    def open(self, path: str, *, create: bool = False, read_only: bool = False) -> OsFile:
        """Open a file; with `create` make it when absent.

        Raises OperationalError: absent, a directory, no permission.
        """
        flags = os.O_RDONLY if read_only else os.O_RDWR
        return OsFile(_open_regular(path, flags | (os.O_CREAT if create else 0)), path)

    def exists(self, path: str) -> bool:
        """Whether the path names a file."""
        return _stat(path) is not None

    def size(self, path: str) -> int:
        """Bytes in the file that the path names."""
        try:
            return os.stat(path).st_size
        except OSError as error:
            raise io_error(error, "measure", path) from error

    def identity(self, path: str) -> Identity | None:
        """The file that the path names now, or None."""
        found = _stat(path)
        return None if found is None else Identity(found.st_dev, found.st_ino, found.st_nlink)

    def unlink(self, path: str) -> None:
        """Remove the name; absent is no error."""
        try:
            os.unlink(path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise io_error(error, "remove", path) from error

    def resolve(self, path: str) -> str:
        """The path behind all links, where a file is or can be made (looked at, never opened)."""
        try:
            real = os.path.realpath(path)
        except ValueError as error:
            raise InterfaceError(f"{path!r} cannot be a path: {error}") from error
        found = _stat(real)
        if found is not None and not stat.S_ISREG(found.st_mode):
            raise OperationalError(f"cannot write {path}: {_kind(found)}")
        return real

    def rename(self, source: str, target: str, *, replace: bool = True) -> None:
        """Give the file another name, replacing `target`, or with `replace` false raising."""
        try:
            if replace:
                os.replace(source, target)
            else:
                rename_new(source, target)
        except FileExistsError as error:
            raise io_error(error, f"rename {source} to", target) from error
        except OSError as error:
            raise io_error(error, "rename", source) from error

    def sync_dir(self, path: str) -> None:
        """Make durable the names in the folder that holds `path`."""
        folder = os.path.dirname(path) or "."
        try:
            fd = open_descriptor(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise io_error(error, "sync the folder", folder) from error

    def shared_memory(self, path: str, size: int, *, create: bool) -> OsSharedMemory | None:
        """The region behind `path`, zero-filled when new; None when absent and not `create`.

        Raises OperationalError when it cannot be created or opened for writing.
        """
        if not create and _stat(path) is None:
            return None
        fd = _open_regular(path, os.O_RDWR | (os.O_CREAT if create else 0))
        try:
            if os.fstat(fd).st_size < size:
                # Allocated, not only grown: a store into a hole of a full disk is a SIGBUS.
                allocate(fd, 0, size)
            return OsSharedMemory(mmap.mmap(fd, size))
        except OSError as error:
            raise io_error(error, "share memory by", path) from error
        finally:
            os.close(fd)

    def scratch(self, path: str, size: int) -> memoryview:
        """So many writable zero bytes on the disk that holds `path`; they go with their views."""
        import tempfile  # here: connecting needs none of it

        try:
            with tempfile.TemporaryFile(dir=os.path.dirname(path) or ".", buffering=0) as file:
                allocate(file.fileno(), 0, size)
                return memoryview(mmap.mmap(file.fileno(), size))
        except OSError as error:
            raise io_error(error, f"take {size} bytes of scratch beside", path) from error

    def resident_bytes(self) -> int | None:
        """Bytes of mapped files that this process has in memory, libraries too; None if unknown."""
        try:
            with open("/proc/self/statm", "rb", buffering=0) as file:
                return int(file.read().split()[2]) * mmap.PAGESIZE
        except OSError:
            return None

    def is_network(self, path: str) -> bool:
        """Whether the path lies on a network file system (S29); asked once per device."""
        found = _stat(path) or _stat(os.path.dirname(path) or ".")
        if found is None:
            return False
        known = self._network.get(found.st_dev)
        if known is None:
            known = self._network[found.st_dev] = is_network_file_system(path, found.st_dev)
        return known

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


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise io_error(error, "look at", path) from error
    except ValueError as error:
        raise InterfaceError(f"{path!r} cannot be a path: {error}") from error


def _open_regular(path: str, flags: int) -> int:
    """A descriptor of a regular file; anything else is refused."""
    mode = _creation_mode(path) if flags & os.O_CREAT else None
    try:
        fd = open_descriptor(path, flags, 0o644 if mode is None else mode)
    except OSError as error:
        raise io_error(error, "open", path) from error
    except ValueError as error:
        raise InterfaceError(f"{path!r} cannot be a path: {error}") from error
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        os.close(fd)
        raise OperationalError(f"cannot open {path}: {_kind(found)}")
    if mode is not None and not found.st_size and found.st_mode & _PERMISSIONS != mode:
        os.fchmod(fd, mode)
    return fd


def _kind(found: os.stat_result) -> str:
    return "is a directory" if stat.S_ISDIR(found.st_mode) else "is not a regular file"


def _creation_mode(path: str) -> int | None:
    """The permissions for a new `-wal` or `-shm` (OS3); None for any other file."""
    if not path.endswith(_SIDE_FILES):
        return None
    owner = _stat(path[: -len(_SIDE_FILES[0])])
    return None if owner is None else owner.st_mode & _PERMISSIONS
