"""Arrays: .npy files that a command names, read without executing anything."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from m2mdb.pager.errors import DataError, OperationalError

MAGIC = b"\x93NUMPY"


def load_array(path: str, name: str, mmap_mode: Literal["r"] | None = None) -> np.ndarray[Any, Any]:
    """The array of a .npy file; `name` is what errors call it.

    Raises OperationalError where it cannot be read, DataError where it is no array of numbers.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(len(MAGIC))
    except OSError as error:
        raise OperationalError(f"{name}: {error.strerror or error}") from error
    if start != MAGIC:
        raise DataError(f"{name}: is no .npy file; numpy.save writes one")
    try:
        array: np.ndarray = np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
    except OSError as error:
        raise OperationalError(f"{name}: {error.strerror or error}") from error
    except Exception as error:
        found = str(error).partition("\n")[0]
        if "ickle" in found or "Python objects" in found:
            raise DataError(f"{name}: holds Python objects; wanted are numbers") from None
        raise DataError(f"{name}: is a damaged .npy file: {found}") from error
    if array.dtype.kind not in "biuf":
        raise DataError(f"{name}: holds {array.dtype}; wanted are numbers")
    return array
