"""Folders of the package mmap-ninja, as COPY reads and writes them: one VECTOR column.

    FOLDER/type.ninja           numpy, ragged or string; a folder without it is a numpy one
    FOLDER/dtype.ninja          NumPy's name of the numbers: float32, float16, int8 …; native order
    FOLDER/shape.ninja          uint64 little-endian an axis
    FOLDER/order.ninja          C or F
    FOLDER/data.ninja           the numbers; a single zero byte where there are none

A numpy folder is a matrix of shape (rows, dimension). A ragged one lays arrays of any lengths end
to end, shape (numbers,), and has four numpy folders of int64 beside the file of its kind:

    FOLDER/shapes_are_flat.ninja   int32: 1, each array has one axis
    FOLDER/starts, FOLDER/ends     (rows,): where each array begins and ends, in numbers
    FOLDER/shapes                  (rows, 1): each array's length
    FOLDER/flattened_shapes        (rows,): the same

so that it can say NULL: an array of no numbers. COPY TO writes a ragged folder where the option
`ragged` is true, otherwise a matrix, in which a row without a vector is an error.
"""

from __future__ import annotations

import math
import os
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from m2mdb.copy_arrays import as_stored, binary, matrix_of, vector_column
from m2mdb.index.schema import VECTOR_DTYPES
from m2mdb.pager.errors import DataError, ProgrammingError

if TYPE_CHECKING:
    from m2mdb.copy_arrays import Batch
    from m2mdb.index.schema import CollectionSchema
    from m2mdb.index.slices import Check
    from m2mdb.query.columnar import Column as Values

AXIS = struct.Struct("<Q")
FLAT = struct.Struct("<i")
NAME_MAX = 64  # bytes of a type, a dtype or an order: far beyond any of NumPy's names
AXES_MAX = 32  # NumPy's own limit once
BOUNDS = ("starts", "ends", "flattened_shapes")  # int64, one number a row
FILES = {f"{name}.ninja" for name in ("type", "dtype", "shape", "order", "data", "shapes_are_flat")}
FOLDERS = {*BOUNDS, "shapes"}


def is_ninja(folder: str) -> bool:
    """Whether a folder holds nothing but what this format has, so that it may be replaced."""
    with os.scandir(folder) as entries:
        for entry in entries:
            is_folder = entry.is_dir(follow_symlinks=False)
            if entry.name not in (FOLDERS if is_folder else FILES):
                return False
            if is_folder and not is_ninja(entry.path):
                return False
    return True


# Reading


def _small(path: Path, limit: int) -> bytes:
    """A file of a few bytes; DataError where it is longer, or not there."""
    try:
        with path.open("rb") as file:
            found = file.read(limit + 1)
    except FileNotFoundError as error:
        raise DataError(f"{path}: is missing, so {path.parent} is no mmap-ninja folder") from error
    if len(found) > limit:
        raise DataError(f"{path}: more than {limit} bytes, which no mmap-ninja folder has")
    return found


def _word(path: Path) -> str:
    found = _small(path, NAME_MAX).decode("utf-8", "replace").strip()
    if not re.fullmatch(r"\w+", found, re.ASCII):
        raise DataError(f"{path}: {found!r} is no name of a type, a dtype or an order")
    return found


def kind_of(folder: Path) -> str:
    """What a folder holds: numpy, ragged or string.

    Raises DataError: it is no mmap-ninja folder, or of another kind. OSError: it cannot be read.
    """
    if not folder.is_dir():
        folder.stat()  # raises where there is nothing
        raise DataError(f"{folder}: is a file; a mmap-ninja map is a folder with data.ninja in it")
    if not (folder / "data.ninja").exists():
        raise DataError(f"{folder}: has no data.ninja, so it is no mmap-ninja folder")
    kind = folder / "type.ninja"
    found = _word(kind) if kind.exists() else "numpy"
    if found not in ("numpy", "ragged", "string"):
        raise DataError(f"{kind}: {found!r} is none of numpy, ragged, string")
    return found


def open_map(folder: Path) -> np.ndarray[Any, Any]:
    """The array of a numpy folder, mapped, not read; the numbers of a ragged one.

    Raises DataError: the files do not fit each other. OSError: one cannot be read.
    """
    name, order = _word(folder / "dtype.ninja"), _word(folder / "order.ninja")
    try:
        dtype = np.dtype(name)
    except TypeError as error:
        raise DataError(f"{folder / 'dtype.ninja'}: {name!r} is no dtype of NumPy") from error
    if dtype.kind not in "biuf":
        raise DataError(f"{folder / 'dtype.ninja'}: holds {name}; wanted are numbers")
    if order not in ("C", "F"):
        raise DataError(f"{folder / 'order.ninja'}: {order!r} is neither C nor F")
    raw = _small(folder / "shape.ninja", AXES_MAX * AXIS.size)
    if len(raw) % AXIS.size:
        raise DataError(f"{folder / 'shape.ninja'}: {len(raw)} bytes are no axes of {AXIS.size}")
    shape = tuple(axis for (axis,) in AXIS.iter_unpack(raw))
    data = folder / "data.ninja"
    size, wanted = data.stat().st_size, math.prod(shape) * dtype.itemsize
    if size != wanted and not (wanted == 0 and size <= 1):  # no empty file can be mapped
        raise DataError(f"{data}: {size} bytes, expected {wanted} for {name} of shape {shape}")
    if wanted == 0:
        return np.zeros(shape, dtype)
    return np.memmap(data, dtype, "r", shape=shape, order="F" if order == "F" else "C")


class NinjaReader:
    """The rows of a numpy or a ragged folder."""

    def __init__(self, path: str, schema: CollectionSchema, options: Mapping[str, Any]) -> None:
        if "ragged" in options:
            raise ProgrammingError("COPY … FROM: ragged is an option of COPY … TO")
        self._column = vector_column(schema, options)
        self._folder = folder = Path(path)
        kind = kind_of(folder)
        if kind == "string":
            raise DataError(f"{path}: is a map of strings; wanted are vectors")
        self._numbers = open_map(folder)
        self._bounds = self._ragged_bounds() if kind == "ragged" else None
        if self._bounds is None:
            self._check_shape((len(self._numbers), self._column.dimension))
        self.lines: list[int] = []
        self.total: int | None = len(self._bounds or self._numbers)

    def _check_shape(self, wanted: tuple[int, ...]) -> None:
        if self._numbers.shape != wanted:
            raise DataError(
                f"{self._folder}: shape {self._numbers.shape}, expected (rows, {wanted[-1]})"
            )

    def _ragged_bounds(self) -> Bounds:
        flat = self._folder / "shapes_are_flat.ninja"
        if _small(flat, FLAT.size) not in (FLAT.pack(1), FLAT.pack(0)):
            raise DataError(f"{flat}: expected an int32 of 0 or 1")
        if _small(flat, FLAT.size) == FLAT.pack(0):
            raise DataError(f"{self._folder}: holds arrays of several axes; wanted are vectors")
        if self._numbers.ndim != 1:
            raise DataError(f"{self._folder}: shape {self._numbers.shape}, expected (numbers,)")
        starts, ends = (open_map(self._folder / name) for name in ("starts", "ends"))
        for name, found in (("starts", starts), ("ends", ends)):
            if found.ndim != 1 or found.dtype.kind not in "iu" or len(found) != len(starts):
                raise DataError(
                    f"{self._folder / name}: {found.dtype} of shape {found.shape}, expected "
                    f"an integer for each of {len(starts)} rows"
                )
        return Bounds(starts, ends)

    def batches(self, rows: int, check: Check) -> Iterator[Batch]:
        """See `query.copying.FileReader`."""
        for start in range(0, self.total or 0, rows):
            some = slice(start, start + rows)
            if self._bounds is None:
                found: Any = self._stored(np.array(self._numbers[some]), start)
            else:
                found = self._arrays(some)
            yield {self._column.name: found}, len(found)

    def _stored(self, matrix: np.ndarray[Any, Any], start: int) -> np.ndarray[Any, Any]:
        return as_stored(matrix, self._column, lambda row: f"{self._folder}, row {start + row + 1}")

    def _arrays(self, some: slice) -> list[np.ndarray[Any, Any] | None]:
        """Rows of a ragged map; None for an array of no numbers."""
        assert self._bounds is not None
        starts = self._bounds.starts[some].astype(np.int64)
        ends = self._bounds.ends[some].astype(np.int64)
        lengths = ends - starts
        dimension = self._column.dimension
        is_outside = (starts < 0) | (ends > len(self._numbers))
        wrong = np.flatnonzero(is_outside | ((lengths != dimension) & (lengths != 0)))
        if len(wrong):
            row = int(wrong[0])
            raise DataError(
                f"{self._folder}, row {some.start + row + 1}: numbers {starts[row]} to {ends[row]}"
                f" of {len(self._numbers)}, expected {dimension} of them, or none for NULL"
            )
        arrays: list[np.ndarray[Any, Any] | None] = [None] * len(starts)
        for row in np.flatnonzero(lengths).tolist():
            one = np.array(self._numbers[starts[row] : ends[row]])[None]
            arrays[row] = self._stored(one, some.start + row)[0]
        return arrays

    def close(self) -> None:
        """Let the maps go."""
        del self._numbers
        self._bounds = None


class Bounds:
    """Where the arrays of a ragged map begin and end, in numbers."""

    def __init__(self, starts: np.ndarray[Any, Any], ends: np.ndarray[Any, Any]) -> None:
        self.starts = starts
        self.ends = ends

    def __len__(self) -> int:
        return len(self.starts)

    def __bool__(self) -> bool:
        return True


# Writing


class NinjaMap:
    """A numpy folder that grows by rows, in C order; its shape is told when it is closed."""

    def __init__(self, folder: Path, dtype: np.dtype[Any], axes: tuple[int, ...] = ()) -> None:
        self._folder = folder
        self._axes = axes
        self._dtype = dtype
        self.rows = 0
        folder.mkdir()
        self._file = binary(str(folder / "data.ninja"), "wb")

    def write(self, rows: np.ndarray[Any, Any]) -> None:
        """Add rows of the map's axes."""
        self._file.write(np.ascontiguousarray(rows, self._dtype).tobytes())
        self.rows += len(rows)

    def close(self, kind: str = "numpy") -> None:
        """Write what describes the numbers."""
        if not self.rows:
            self._file.write(b"\0")  # as NumPy does: no empty file can be mapped
        self._file.close()
        shape = (self.rows, *self._axes)
        for name, content in (
            ("type", kind.encode()),
            ("dtype", self._dtype.name.encode()),
            ("shape", b"".join(AXIS.pack(axis) for axis in shape)),
            ("order", b"C"),
        ):
            (self._folder / f"{name}.ninja").write_bytes(content)


class NinjaWriter:
    """A numpy folder, or a ragged one."""

    def __init__(
        self, path: str, schema: CollectionSchema, options: Mapping[str, Any], rows: int
    ) -> None:
        self._column = column = vector_column(schema, options)
        self.columns = [column.name]
        self._is_ragged = options.get("ragged", False)
        if self._is_ragged not in (True, False):
            raise ProgrammingError(f"COPY: ragged is {self._is_ragged!r}, not true or false")
        dtype = np.dtype(VECTOR_DTYPES[column.dtype])
        self._folder = folder = Path(path)
        axes = () if self._is_ragged else (column.dimension,)
        self._numbers = NinjaMap(folder, dtype, axes)
        self._bounds: dict[str, NinjaMap] = {}
        if self._is_ragged:
            integer = np.dtype(np.int64)
            self._bounds = {name: NinjaMap(folder / name, integer) for name in BOUNDS}
            self._bounds["shapes"] = NinjaMap(folder / "shapes", integer, (1,))

    def write(self, columns: list[Values], check: Check) -> None:
        """Add a batch."""
        if not self._is_ragged:
            self._numbers.write(matrix_of(columns[0], self._column))
            return
        found = columns[0].values()
        lengths = np.array([0 if row is None else len(row) for row in found], np.int64)
        ends = self._numbers.rows + np.cumsum(lengths)
        present = [row for row in found if row is not None]
        if present:
            self._numbers.write(np.concatenate(present))
        self._bounds["starts"].write(ends - lengths)
        self._bounds["ends"].write(ends)
        self._bounds["flattened_shapes"].write(lengths)
        self._bounds["shapes"].write(lengths[:, None])

    def close(self) -> None:
        """Finish the folder."""
        for each in self._bounds.values():
            each.close()
        if self._is_ragged:
            (self._folder / "shapes_are_flat.ninja").write_bytes(FLAT.pack(1))
        self._numbers.close("ragged" if self._is_ragged else "numpy")
