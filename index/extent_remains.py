"""Remains of a segment: the rows of which every byte verifies.

An extent has a checksum a block of 64 KiB. A row is whole where each block verifies in which one
of its values lies, so a damaged block costs the rows that have a piece in it and no others. What
tells where the values lie is the directory in the first block, or its repetition at the end.

    checksum of the array holds      a block verifies by its entry
    it does not                      an entry that equals its block's hash is proof enough; where
                                     the array holds with the hashes of all blocks, all verify

Invariants
    XR1 No byte of a block that does not verify becomes part of a value.
    XR2 Nothing that the file holds is raised but CorruptDatabaseError: no directory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from xxhash import xxh3_64_intdigest

from m2mdb.index.description import ABOUT, FOOTER, FOOTER_MAGIC, decode_fields
from m2mdb.index.schema import VECTOR_DTYPES, Column
from m2mdb.index.segment import DTYPES, HEADER, MAGIC, PART, SCALAR_PARTS
from m2mdb.pager.errors import CorruptDatabaseError, OperationalError
from m2mdb.pager.extent import BLOCK_SHIFT, BLOCK_SIZE, ExtentDescriptor, block_count, padded

if TYPE_CHECKING:
    from m2mdb.pager.vfs import File

Bools = np.ndarray


class Part(NamedTuple):
    """Where a part lies in its extent."""

    extent: ExtentRemains
    offset: int
    dtype: np.dtype[Any]
    items: int


class ExtentRemains:
    """The blocks of one extent that verify."""

    def __init__(self, file: File, start: int, size: int, checksum: int | None = None) -> None:
        """`start` is a byte offset; `checksum` is the descriptor's, None where that is lost."""
        self.file = file
        self.start = start
        self.size = size
        self.good = self._verify(checksum)
        self._bad_before = np.concatenate(([0], np.cumsum(~self.good)))  # bad blocks before each

    def _verify(self, checksum: int | None) -> Bools:
        count = block_count(self.size)
        end = padded(self.size)
        raw = self._raw(end, 8 * count)
        stored = np.frombuffer(raw, "<u8")
        hashes = np.zeros(count, np.uint64)
        there = np.zeros(count, bool)
        for number in range(count):
            offset = number << BLOCK_SHIFT
            wanted = min(BLOCK_SIZE, end - offset)
            block = self._found(offset, wanted)
            there[number] = len(block) == wanted
            hashes[number] = xxh3_64_intdigest(block)
        if checksum is not None and there.all() and xxh3_64_intdigest(hashes.tobytes()) == checksum:
            return np.ones(count, bool)  # the array alone is damaged, if anything
        good: Bools = there & (hashes == stored)
        return good

    def _found(self, offset: int, size: int) -> bytes:
        """Some bytes, fewer where the file ends or the disk cannot read them."""
        try:
            return self.file.read_at(self.start + offset, size)
        except OperationalError:
            return b""

    def _raw(self, offset: int, size: int) -> bytes:
        """Some bytes, zeros where there are none; nothing is said of their blocks."""
        return self._found(offset, size).ljust(size, b"\0")

    def is_good(self, offset: int, size: int) -> bool:
        """Whether some bytes verify."""
        if offset < 0 or offset + size > self.size:
            return False
        if not size:
            return True
        return bool(self.good[offset >> BLOCK_SHIFT : (offset + size - 1 >> BLOCK_SHIFT) + 1].all())

    def good_ranges(self, starts: np.ndarray, stops: np.ndarray) -> Bools:
        """Which of many ranges of bytes verify."""
        inside = (starts >= 0) & (starts <= stops) & (stops <= self.size)
        first = np.where(inside, starts, 0) >> BLOCK_SHIFT
        last = np.where(inside & (stops > starts), stops - 1, np.where(inside, starts, 0))
        last = last >> BLOCK_SHIFT
        limit = len(self.good)
        bad = (
            self._bad_before[np.minimum(last + 1, limit)]
            - self._bad_before[np.minimum(first, limit)]
        )
        found: Bools = inside & ((bad == 0) | (stops == starts))
        return found

    def read(self, offset: int, size: int) -> bytes:
        """Some bytes; those of bad blocks are whatever is there, for who looks at the masks."""
        return self._raw(offset, size)

    @property
    def bad_blocks(self) -> list[int]:
        """The blocks that do not verify."""
        found: list[int] = np.flatnonzero(~self.good).tolist()
        return found


class Directory(NamedTuple):
    """What an extent says of itself."""

    rows: int
    parts: dict[tuple[str, int], tuple[int, np.dtype[Any], int]]
    size: int  # bytes up to the last part's end


def decode_directory(raw: bytes, limit: int) -> Directory | None:
    """The header and directory at the start of `raw`; None where there is none."""
    if len(raw) < HEADER.size:
        return None
    magic, count, _, rows = HEADER.unpack_from(raw)
    end = HEADER.size + count * PART.itemsize
    if magic != MAGIC or end > len(raw):
        return None
    parts: dict[tuple[str, int], tuple[int, np.dtype[Any], int]] = {}
    size = end
    for name, dtype, column, _, offset, items in np.frombuffer(
        raw, PART, count, HEADER.size
    ).tolist():
        if dtype not in DTYPES:
            return None
        kind = np.dtype(dtype.decode())
        if offset < end or offset + items * kind.itemsize > limit:
            return None
        parts[name.decode("ascii", "replace"), column] = offset, kind, items
        size = max(size, offset + items * kind.itemsize)
    return Directory(rows, parts, size)


def known_extent(
    file: File, page_size: int, descriptor: ExtentDescriptor
) -> tuple[ExtentRemains, Directory | None]:
    """An extent that the catalog names."""
    start = (descriptor.start_page - 1) * page_size
    extent = ExtentRemains(file, start, descriptor.size, descriptor.checksum)
    raw = extent.read(0, min(HEADER.size, extent.size))
    if len(raw) == HEADER.size and raw.startswith(MAGIC):
        end = HEADER.size + HEADER.unpack(raw)[1] * PART.itemsize
        if extent.is_good(0, end):
            return extent, decode_directory(extent.read(0, end), extent.size)
    return extent, _repeated(extent)


def _repeated(extent: ExtentRemains) -> Directory | None:
    """The directory that stands at the end of the content."""
    at = extent.size - FOOTER.size
    if at < 0 or not extent.is_good(at, FOOTER.size):
        return None
    _, size, magic = FOOTER.unpack(extent.read(at, FOOTER.size))
    if magic != FOOTER_MAGIC or not extent.is_good(at - size, size):
        return None
    return decode_directory(extent.read(at - size, size), extent.size)


def found_extent(file: File, page_size: int, page: int) -> tuple[ExtentRemains, Directory] | None:
    """The extent that begins at a page, if one does and its first block verifies."""
    start = (page - 1) * page_size
    limit = file.size() - start
    raw = file.read_at(start, HEADER.size)
    if not raw.startswith(MAGIC) or len(raw) < HEADER.size:
        return None
    end = HEADER.size + HEADER.unpack(raw)[1] * PART.itemsize
    if end > min(limit, 1 << 28):
        return None
    directory = decode_directory(file.read_at(start, end), limit)
    if directory is None:
        return None
    extent = ExtentRemains(file, start, directory.size)
    return (extent, directory) if extent.is_good(0, end) else None


def description_of(extent: ExtentRemains, directory: Directory) -> dict[str, Any] | None:
    """What a segment says of itself; None where it cannot be read, or is of an older build."""
    part = directory.parts.get((ABOUT, 0))
    if part is None or not extent.is_good(part[0], part[2]):
        return None
    raw = extent.read(part[0], part[2])
    size = FOOTER.unpack_from(raw, len(raw) - FOOTER.size)[0] if len(raw) >= FOOTER.size else 0
    return decode_fields(raw[:size])


class SegmentRemains:
    """The rows of one segment, some of which may not verify."""

    def __init__(self, extents: list[tuple[ExtentRemains, Directory | None]]) -> None:
        """Raises CorruptDatabaseError where no directory of them can be read."""
        self.extents = [extent for extent, _ in extents]
        self.parts: dict[tuple[str, int], Part] = {}
        self.rows = 0
        self._numbers: dict[tuple[str, int], tuple[np.ndarray, Bools] | None] = {}
        self._places: dict[int, tuple[np.ndarray, np.ndarray, Bools] | None] = {}
        for extent, directory in extents:
            if directory is None:
                continue
            self.rows = self.rows or directory.rows
            for key, (offset, dtype, count) in directory.parts.items():
                self.parts.setdefault(key, Part(extent, offset, dtype, count))
        if not self.rows or ("rowids", 0) not in self.parts:
            raise CorruptDatabaseError("its directory cannot be read")

    def numbers(self, name: str, column: int) -> tuple[np.ndarray, Bools] | None:
        """A part with an item a row, and which items verify; None where there is none."""
        key = name, column
        if key not in self._numbers:
            self._numbers[key] = self._read_numbers(name, column)
        return self._numbers[key]

    def _read_numbers(self, name: str, column: int) -> tuple[np.ndarray, Bools] | None:
        part = self.parts.get((name, column))
        if part is None or part.items != self.rows:
            return None
        width = part.dtype.itemsize
        starts = part.offset + np.arange(self.rows, dtype=np.int64) * width
        raw = part.extent.read(part.offset, part.items * width)
        return np.frombuffer(raw, part.dtype), part.extent.good_ranges(starts, starts + width)

    def rowids(self, known: tuple[int, int] | None) -> tuple[np.ndarray, Bools]:
        """Rowids and which are known; `known`: the record's first and last one.

        Where no rowid is left out between those two, each follows from its ordinal.
        """
        if known is not None and known[1] - known[0] + 1 == self.rows:
            return np.arange(known[0], known[1] + 1, dtype=np.int64), np.ones(self.rows, bool)
        found = self.numbers("rowids", 0)
        if found is None:
            return np.zeros(self.rows, np.int64), np.zeros(self.rows, bool)
        return found

    def commits(self, commit: int) -> np.ndarray:
        """u64 commit of each row; where it cannot be read, that of the segment."""
        found = self.numbers("commits", 0)
        if found is None:
            return np.full(self.rows, commit, np.uint64)
        return np.where(found[1], found[0], np.uint64(commit)).astype(np.uint64)

    def whole(self, column: Column) -> Bools:
        """Which rows have all bytes of a column's value."""
        nulls = self._nulls(column)
        good: Bools = np.ones(self.rows, bool) if nulls is None else nulls[1].copy()
        if column.is_vector:
            good &= self._whole_vectors(column)
            return good
        if column.type in SCALAR_PARTS:
            found = self.numbers(SCALAR_PARTS[column.type][0], column.id)
            good &= found[1] if found is not None else False
            return good
        bounds = self._bounds(column)
        good &= bounds[2] if bounds is not None else False
        return good

    def _nulls(self, column: Column) -> tuple[np.ndarray, Bools] | None:
        return self.numbers("nulls", column.id)

    def _whole_vectors(self, column: Column) -> Bools:
        part = self.parts.get(("vectors", column.id))
        wanted = np.dtype(VECTOR_DTYPES[column.dtype])
        if part is None or part.dtype != wanted or part.items != self.rows * column.dimension:
            return np.zeros(self.rows, bool)
        width = column.dimension * wanted.itemsize
        starts = part.offset + np.arange(self.rows, dtype=np.int64) * width
        return part.extent.good_ranges(starts, starts + width)

    def _bounds(self, column: Column) -> tuple[np.ndarray, np.ndarray, Bools] | None:
        """Where each value of a text or blob begins and ends in its extent, and which verify."""
        if column.id not in self._places:
            self._places[column.id] = self._read_bounds(column)
        return self._places[column.id]

    def _read_bounds(self, column: Column) -> tuple[np.ndarray, np.ndarray, Bools] | None:
        offsets = self.parts.get(("offsets", column.id))
        blob = self.parts.get(("blob", column.id))
        if offsets is None or blob is None or offsets.items != self.rows + 1:
            return None
        width = offsets.dtype.itemsize
        raw = offsets.extent.read(offsets.offset, offsets.items * width)
        values = np.frombuffer(raw, offsets.dtype).astype(np.int64)
        at = offsets.offset + np.arange(self.rows + 1, dtype=np.int64) * width
        known = offsets.extent.good_ranges(at, at + width)
        starts, stops = values[:-1], values[1:]
        good = known[:-1] & known[1:] & (starts >= 0) & (starts <= stops) & (stops <= blob.items)
        starts = np.where(good, starts, 0) + blob.offset
        stops = np.where(good, stops, 0) + blob.offset
        good &= blob.extent.good_ranges(starts, stops)
        return starts, stops, good

    def values(self, column: Column, chosen: np.ndarray) -> list[Any]:
        """The stored values of rows that are whole in this column; vectors as arrays."""
        nulls = self._nulls(column)
        is_null = np.zeros(len(chosen), bool) if nulls is None else nulls[0][chosen] != 0
        if column.is_vector:
            found = self._vectors(column, chosen)
        elif column.type in SCALAR_PARTS:
            numbers = self.numbers(SCALAR_PARTS[column.type][0], column.id)
            assert numbers is not None, "the column is whole in these rows"
            picked = numbers[0][chosen]
            found = (picked.astype(bool) if column.type == "BOOLEAN" else picked).tolist()
        else:
            found = self._bytes(column, chosen)
        for at in np.flatnonzero(is_null).tolist():
            found[at] = None
        return found

    def _vectors(self, column: Column, chosen: np.ndarray) -> list[Any]:
        part = self.parts["vectors", column.id]
        width = column.dimension * part.dtype.itemsize
        if not len(chosen):
            return []
        first, last = int(chosen.min()), int(chosen.max())
        raw = part.extent.read(part.offset + first * width, (last - first + 1) * width)
        matrix = np.frombuffer(raw, part.dtype).reshape(-1, column.dimension)
        return list(matrix[chosen - first])

    def _bytes(self, column: Column, chosen: np.ndarray) -> list[Any]:
        bounds = self._bounds(column)
        assert bounds is not None, "the column is whole in these rows"
        if not len(chosen):
            return []
        starts, stops = bounds[0][chosen].tolist(), bounds[1][chosen].tolist()
        extent = self.parts["blob", column.id].extent
        first = min(starts)
        raw = extent.read(first, max(stops) - first)
        found = [
            raw[start - first : stop - first] for start, stop in zip(starts, stops, strict=True)
        ]
        return found if column.type == "BLOB" else [_text(each) for each in found]


def _text(raw: bytes) -> str:
    """A text; one that is not UTF-8 keeps its bytes as surrogates, which no column takes."""
    return raw.decode(errors="surrogateescape")
