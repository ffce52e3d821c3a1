"""Platform: the system calls that differ between operating systems, one function each.

Linux is the tested platform. Another one needs its own bodies here: locks that belong to the open
file (macOS has F_OFD_SETLK since 10.15, Windows LockFileEx), a sync that reaches the disk
(macOS F_FULLFSYNC), allocation, and maps.

Invariants
    PL1 A lock belongs to the open file description: closing another descriptor of the same file
        leaves it alone, as POSIX's process locks would not.
    PL2 A map holds no descriptor of the file description that carries the locks.
    PL3 No descriptor is 0, 1 or 2: a stray print must not write into a database.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import struct
import sys

from m2mdb.pager.errors import NotSupportedError
from m2mdb.pager.io_errors import os_error

# struct flock: type, whence, start, length, pid (zero for locks of the open file description).
_pack_flock = struct.Struct("hhqqi4x").pack
_SET_LOCK: int | None = getattr(fcntl, "F_OFD_SETLK", None)
_fcntl = fcntl.fcntl
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_CHUNK_OF_ZEROS = 1 << 20  # bytes written at a time where the system cannot allocate

SHARED = fcntl.F_RDLCK
EXCLUSIVE = fcntl.F_WRLCK
UNLOCKED = fcntl.F_UNLCK

# File systems whose locks, maps or syncs cannot be trusted between machines (S29). 9p and
# virtiofs stay off the list: they mostly are a virtual machine's local disk.
# fmt: off
_NETWORK_FILE_SYSTEMS = frozenset(
    (
        "nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "ncp", "afs", "openafs", "coda", "ceph",
        "lustre", "beegfs", "gpfs", "panfs", "pvfs2", "orangefs", "glusterfs", "davfs",
        "fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.ceph-fuse", "fuse.s3fs", "fuse.rclone",
        "fuse.gcsfuse", "fuse.davfs2", "fuse.curlftpfs", "fuse.juicefs", "fuse.moosefs",
    )
)
# fmt: on


def open_descriptor(path: str, flags: int, mode: int = 0o644) -> int:
    """A close-on-exec descriptor above 2 (PL3)."""
    # O_NONBLOCK means nothing to a regular file, and keeps a FIFO from blocking us.
    fd = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK, mode)
    if fd > 2:
        return fd
    try:
        return _fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(fd)


def try_lock(fd: int, kind: int, offset: int, size: int) -> bool:
    """Take, convert or drop a byte-range lock of the open file (PL1); False when held elsewhere."""
    if _SET_LOCK is None:
        raise NotSupportedError("this system has no locks of open file descriptions (F_OFD_SETLK)")
    try:
        _fcntl(fd, _SET_LOCK, _pack_flock(kind, 0, offset, size, 0))
    except (BlockingIOError, PermissionError):
        return False
    return True


def sync_data(fd: int) -> None:
    """Wait until the file's bytes and its size are durable."""
    os.fdatasync(fd)


def rename_new(source: str, target: str) -> None:
    """Give a file another name in one step; FileExistsError where that name is taken.

    Where neither system nor file system can, a second name is given and the first one removed.
    """
    import ctypes

    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    number = errno.ENOSYS
    if rename is not None:
        paths = os.fsencode(source), os.fsencode(target)
        if not rename(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], ctypes.c_uint(_RENAME_NOREPLACE)):
            return
        number = ctypes.get_errno()
    if number not in (errno.ENOSYS, errno.EINVAL):
        raise OSError(number, os.strerror(number), target)
    os.link(source, target)
    os.unlink(source)


def allocate(fd: int, offset: int, size: int) -> None:
    """Reserve disk space for a range; where the system cannot, write zeros behind the end."""
    try:
        os.posix_fallocate(fd, offset, size)
        return
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
    end = os.fstat(fd).st_size
    while end < offset + size:
        count = os.pwrite(fd, bytes(min(_CHUNK_OF_ZEROS, offset + size - end)), end)
        if not count:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        end += count


def map_read_only(fd: int, path: str, size: int) -> mmap.mmap:
    """A shared read-only map of the first `size` bytes (PL2)."""
    if sys.version_info >= (3, 13):
        return mmap.mmap(fd, size, access=mmap.ACCESS_READ, trackfd=False)
    # Before 3.13 mmap keeps a duplicate of the descriptor, and a duplicate keeps the locks alive:
    # it gets a file description of its own.
    other = _reopen(fd, path)
    try:
        return mmap.mmap(other, size, access=mmap.ACCESS_READ)
    finally:
        os.close(other)


def _reopen(fd: int, path: str) -> int:
    """Another file description of the same file, also when its name is gone."""
    try:
        return open_descriptor(f"/proc/self/fd/{fd}", os.O_RDONLY)
    except FileNotFoundError:
        other = open_descriptor(path, os.O_RDONLY)
    if os.path.samestat(os.fstat(other), os.fstat(fd)):
        return other
    os.close(other)
    raise os_error(errno.ENOENT, path)


def is_network_file_system(path: str, device: int) -> bool:
    """Whether the path, which lies on `device`, is on a network file system (S29)."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    real = os.path.realpath(path)
    by_prefix, longest = "", -1
    for mount_device, mount_point, kind in _mounts():
        if mount_device == wanted:
            return kind in _NETWORK_FILE_SYSTEMS
        folder = mount_point.rstrip("/") + "/"
        if real.startswith(folder) and len(folder) >= longest:
            by_prefix, longest = kind, len(folder)
    return by_prefix in _NETWORK_FILE_SYSTEMS


def _mounts() -> list[tuple[str, str, str]]:
    """(device, mount point, file system) of each mount; empty where /proc is missing."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
            rows = [line.split(" ") for line in lines]
    except OSError:
        return []
    return [
        (row[2], row[4].replace("\\040", " "), row[row.index("-") + 1])
        for row in rows
        if "-" in row[6:]
    ]
