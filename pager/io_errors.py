"""I/O errors: how an operating system's refusal becomes an error of `pager.errors` (V5).

The OSError stays reachable as `__cause__`, so that a caller can tell a full disk (`is_disk_full`)
from a broken one.
"""

from __future__ import annotations

import errno
import os

from m2mdb.pager.errors import OperationalError

_REASONS = {
    errno.EISDIR: "is a directory",
    errno.ENOENT: "no such file or folder",
    errno.ENOTDIR: "a part of the path is not a folder",
    errno.ENOSPC: "disk full",
    errno.EDQUOT: "disk full (quota)",
    errno.EROFS: "read-only file system",
    errno.EBADF: "not open for this operation",
    errno.EIO: "input/output error",
}


def io_error(cause: OSError, operation: str, path: str) -> OperationalError:
    """The error for a failed call; the caller raises it `from cause`."""
    number = cause.errno or 0
    reason = _REASONS.get(number) or os.strerror(number).lower()
    return OperationalError(f"cannot {operation} {path}: {reason}")


def os_error(number: int, path: str) -> OSError:
    """The OSError that the system would raise for an errno."""
    return OSError(number, os.strerror(number), path)


def is_disk_full(error: BaseException) -> bool:
    """Whether an error of a Vfs means that disk or quota are full."""
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)
