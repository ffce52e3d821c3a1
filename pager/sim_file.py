"""Files and shared memory of a simulated process.

Invariants
    SF1 A write that fails may have written any part of its data, in whole sectors, or all (V2).
    SF2 A map shows every later write, as a real shared map does: an extent that is overwritten
        under a reader is seen to change.
"""

from __future__ import annotations

import errno
import weakref

from m2mdb.pager.errors import InterfaceError, OperationalError
from m2mdb.pager.io_errors import io_error, os_error
from m2mdb.pager.sim_disk import SECTOR, DiskFile, Operation
from m2mdb.pager.sim_machine import CHANGES, Machine, Mapped
from m2mdb.pager.vfs import Identity

DEVICE = 1  # every simulated file's device number


class SimFile:
    """An open file of a simulated process."""

    __slots__ = (
        "__weakref__",
        "_file",
        "_machine",
        "_owner",
        "_read_only",
        "inode",
        "path",
        "process",
    )

    def __init__(
        self, machine: Machine, process: int, path: str, inode: int, *, read_only: bool
    ) -> None:
        self.path = path
        self.process = process
        self.inode = inode
        self._machine = machine
        self._file: DiskFile | None = machine.disk.files[inode]
        self._read_only = read_only
        self._owner = object()  # of the locks; not the file itself, so that it can be collected
        machine.open_files.add(self)

    def _enter(self, kind: str, offset: int = 0, size: int = 0) -> DiskFile:
        """The file, after all that may prevent the call; raises what a fault asks for."""
        machine = self._machine
        number = machine.enter(kind, self.path, self.process, offset, size)
        if self._file is None:
            raise InterfaceError(f"cannot {kind} {self.path}: the file is closed")
        if self._read_only and kind in CHANGES and kind != "sync":
            number = errno.EBADF
        if number:
            raise os_error(number, self.path)
        return self._file

    def _log(self, kind: str, offset: int = 0, size: int = 0, data: bytes = b"") -> None:
        operation = Operation(kind, self.path, self.process, self.inode, offset, size, data)
        self._machine.log(operation)
        if self.inode in self._machine.maps:
            self._machine.refresh_maps(self.inode)

    def read_at(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset`; fewer only at the end of the file."""
        try:
            return self._enter("read", offset, size).read(offset, size)
        except OSError as error:
            raise io_error(error, "read", self.path) from error

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill `buffer` from `offset`; returns the bytes read, fewer only at the end."""
        data = self.read_at(offset, buffer.nbytes)
        buffer.cast("B")[: len(data)] = data
        return len(data)

    def write_at(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write all of `data` at `offset`; when it fails, any part of it may have been written."""
        raw = bytes(data)
        try:
            file = self._enter("write", offset, len(raw))
        except OSError as error:
            rng = self._machine.rng
            done = rng.choice((len(raw), rng.randint(0, len(raw) // SECTOR) * SECTOR))
            if done and not self._read_only:
                self._log("write", offset, data=raw[:done])
            raise io_error(error, "write", self.path) from error
        if not self._machine.room_for(file, offset, len(raw)):
            cause = os_error(errno.ENOSPC, self.path)
            raise io_error(cause, "write", self.path) from cause
        if raw:
            self._log("write", offset, data=raw)

    def truncate(self, size: int) -> None:
        """Cut or grow (with zeros) the file to `size` bytes."""
        try:
            self._enter("truncate", 0, size)
        except OSError as error:
            raise io_error(error, "truncate", self.path) from error
        self._log("truncate", size=size)

    def allocate(self, offset: int, size: int) -> None:
        """Reserve disk space for a range, growing the file; raises when the disk is full."""
        if not size:
            return
        try:
            file = self._enter("allocate", offset, size)
            if not self._machine.room_for(file, offset, size):
                raise os_error(errno.ENOSPC, self.path)
        except OSError as error:
            raise io_error(error, "allocate space in", self.path) from error
        self._log("allocate", offset, size)

    def sync(self) -> None:
        """Wait until all bytes written so far are durable."""
        try:
            self._enter("sync")
        except OSError as error:
            self._fail_sync()
            raise io_error(error, "sync", self.path) from error
        self._log("sync")

    def _fail_sync(self) -> None:
        """What a failed sync does to the pages that it covered (`SimVfs.failed_sync`)."""
        machine = self._machine
        mode = machine.failed_sync
        if mode == "keep" or self._file is None:
            return
        changed = sorted(self._file.history)
        kept = [page for page in changed if mode == "some" and machine.rng.random() < 0.5]
        operation = Operation("failed_sync", self.path, self.process, self.inode)
        machine.log(operation._replace(keep_cache=mode != "revert", survivors=frozenset(kept)))
        if self.inode in machine.maps:
            machine.refresh_maps(self.inode)

    def size(self) -> int:
        """Bytes in the file now."""
        try:
            return self._enter("size").size
        except OSError as error:
            raise io_error(error, "measure", self.path) from error

    def identity(self) -> Identity:
        """The identity of the open file, whatever its path names by now."""
        try:
            self._enter("identity")
        except OSError as error:
            raise io_error(error, "identify", self.path) from error
        links = sum(inode == self.inode for inode in self._machine.disk.names.values())
        return Identity(DEVICE, self.inode, links)

    def map(self, offset: int, size: int) -> memoryview:
        """A read-only view of a range that lies inside the file; later writes show in it."""
        try:
            file = self._enter("map", offset, size)
        except OSError as error:
            raise io_error(error, "map", self.path) from error
        if offset < 0 or offset + size > file.size:
            raise OperationalError(
                f"cannot map {self.path}: bytes {offset} to {offset + size} "
                f"of a file of {file.size}"
            )
        mapped = Mapped(file.read(offset, size))
        self._machine.maps.setdefault(self.inode, []).append((weakref.ref(mapped), offset))
        return memoryview(mapped).toreadonly()

    def release(self, offset: int, size: int) -> None:
        """There is no other place for the bytes."""

    def lock(self, offset: int, size: int, *, exclusive: bool) -> bool:
        """Try to take or convert a byte-range lock; False when another holder prevents it."""
        try:
            self._enter("lock", offset, size)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False  # so the system says that another holder is in the way
            raise io_error(error, "lock", self.path) from error
        if exclusive and self._read_only:
            cause = os_error(errno.EBADF, self.path)
            raise io_error(cause, "lock", self.path) from cause
        locks = self._machine.locks_of(self.inode)
        return locks.lock(self._owner, offset, size, exclusive=exclusive)

    def unlock(self, offset: int, size: int) -> None:
        """Give up this File's locks on the range."""
        try:
            self._enter("unlock", offset, size)
        except OSError as error:
            raise io_error(error, "unlock", self.path) from error
        self._machine.locks_of(self.inode).unlock(self._owner, offset, size)

    def close(self) -> None:
        """Close the handle and with it its locks; a second call does nothing."""
        if self._file is not None:
            self._machine.enter("close", self.path, self.process)
            self.vanish()

    def abandon(self) -> None:
        """Close the descriptor; its locks go with it, for no other process has it."""
        self.vanish()

    def vanish(self) -> None:
        """The handle and its locks are gone, without a call."""
        self._file = None
        self._machine.locks_of(self.inode).drop(self._owner)
        self._machine.open_files.discard(self)

    def __del__(self) -> None:
        if self._file is not None:
            self._machine.locks_of(self.inode).drop(self._owner)

    def __repr__(self) -> str:
        return f"<SimFile {self.path!r} of process {self.process}>"


class SimSharedMemory:
    """A region that all processes of the machine see."""

    __slots__ = ("__weakref__", "process", "view")

    def __init__(self, machine: Machine, process: int, region: bytearray) -> None:
        self.process = process
        self.view = memoryview(region)
        machine.memories.add(self)

    def close(self) -> None:
        """Drop this view; the region stays."""
        self.view.release()
