"""Segments: immutable runs of rows, column by column, in one extent each.

    | magic "m2msegm1" | part count u32 | zero u32 | rows u64 | directory | part | part | ...

A directory entry (PART, 48 bytes) names a part, the column id it belongs to (0 = the rows
themselves), its dtype, its offset from the extent's start and its item count. Parts begin at
multiples of 64 bytes, so that kernels read them through the map. Rows are sorted by rowid; the
number of a row inside its segment is its ordinal. An index that is added later brings a further
extent of the same form.

    part         column  content
    rowids       0       int64, ascending
    commits      0       u64, the commit that wrote each version; absent when all are the segment's
    nulls        c       u8, 1 = NULL; absent when no row is NULL
    ints reals bools     int64 / float64 / u8, one a row: INTEGER, TIMESTAMP / REAL / BOOLEAN
    offsets blob c       u32 or u64 (rows + 1), and the bytes of all values: TEXT, BLOB, JSON
    vectors      c       rows x dimension, of the column's dtype, as given (S20); NULL rows zero
    norms        c       float32, Euclidean, beside the vectors
    hashes       c       u64 ascending: xxh3-64 of each key that is not NULL (int64 keys: the value)
    hash_rows    c       u32, the ordinals in that order
    t.*          c       the inverted lists of a FULLTEXT column, see `index.text.postings`
    zones        c       int64, least, greatest, NULLs of each block of rows: `index.zones`
    h.*          c       the lists of a VECTOR column, always in a further extent: `index.hrm2`
    about        0       what the segment is, and the directory again, see `index.description`

Invariants
    G1  rowids ascend, in a segment of rows that may be live strictly; in one of kept versions (see
        `index.retention`) a rowid may repeat. Every per-row part has one item a row.
    G2  A part's bytes are verified before anything is made of them (S18).
"""

from __future__ import annotations

import itertools
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from m2mdb.index.description import ABOUT, about_part, about_size
from m2mdb.index.masks import KeptMasks
from m2mdb.index.parts import check_directory, check_offsets, check_part, check_values
from m2mdb.index.schema import VECTOR_DTYPES, Column
from m2mdb.index.segment_record import SegmentRecord as SegmentRecord
from m2mdb.index.slices import listed, slices, unchecked
from m2mdb.index.verifying import verify_parts
from m2mdb.pager.errors import CorruptDatabaseError
from m2mdb.pager.extent import Extent

if TYPE_CHECKING:
    from m2mdb.index.hrm2 import SegmentLists
    from m2mdb.index.text.segment import TextSegment

MAGIC = b"m2msegm1"
HEADER = struct.Struct("<8sIIQ")
PART = np.dtype(
    [("name", "S20"), ("dtype", "S4"), ("column", "<u4"), ("flags", "<u4"), ("offset", "<u8"),
     ("count", "<u8")]
)  # fmt: skip
ALIGNMENT = 64  # a cache line, and the widest vector register
DTYPES = {b"<i8", b"<u8", b"<u4", b"<u2", b"|u1", b"|i1", b"<f8", b"<f4", b"<f2"}
DECODED_ROWS = 1 << 14  # of texts or blobs between two checks for an interrupt
VALUES_CACHED_BYTES = 64 << 20  # decoded Python values of one column kept per segment
WHOLE_BLOB_BYTES = 1 << 20  # a column's bytes that are verified whole at the first value read
TEXT_PREFIX = "t."

NamedPart = tuple[str, int, np.ndarray]


# ------------------------------------------------------------------------- building


SCALAR_PARTS = {
    "INTEGER": ("ints", "<i8"),
    "TIMESTAMP": ("ints", "<i8"),
    "REAL": ("reals", "<f8"),
    "BOOLEAN": ("bools", "|u1"),
}


def _booleans(flags: memoryview) -> Callable[[int], bool]:
    """What reads a BOOLEAN by its ordinal."""

    def read(ordinal: int) -> bool:
        return bool(flags[ordinal])

    return read


def _or_null(nulls: memoryview, given: Callable[[int], Any]) -> Callable[[int], Any]:
    """What reads a value by its ordinal where it is not NULL."""

    def read(ordinal: int) -> Any:
        return None if nulls[ordinal] else given(ordinal)

    return read


def lay_out(rows: int, parts: list[NamedPart], description: bytes) -> tuple[list[Any], int]:
    """The buffers of a segment's extent in order, and their size in bytes.

    The part `about` with the description is the last one.
    """
    directory = np.zeros(len(parts) + 1, PART)
    at = HEADER.size + directory.nbytes
    about = np.zeros(about_size(description, at), np.uint8)
    body: list[Any] = []
    for entry, (name, column, array) in zip(directory, [*parts, (ABOUT, 0, about)], strict=True):
        padding = -at % ALIGNMENT
        entry["name"], entry["column"] = name.encode(), column
        entry["dtype"] = array.dtype.newbyteorder("<").str.encode()
        assert bytes(entry["dtype"]) in DTYPES, f"part {name} of dtype {array.dtype}"
        entry["offset"], entry["count"] = at + padding, len(array)
        if padding:
            body.append(bytes(padding))
        if len(array):
            body.append(np.ascontiguousarray(array).data.cast("B"))
        at += padding + array.nbytes
    head = HEADER.pack(MAGIC, len(directory), 0, rows) + directory.tobytes()
    body[-1] = about_part(description, head)
    return [head, *body], at


# ------------------------------------------------------------------------- reading


class Segment:
    """A segment as one snapshot sees its rows; deletions stand apart (`index.collection`)."""

    __slots__ = (
        "_arrays",
        "_directory",
        "_lists",
        "_matrices",
        "_readers",
        "_texts",
        "_values",
        "_views",
        "dictionaries",
        "extents",
        "masks",
        "record",
    )

    def __init__(self, record: SegmentRecord, extents: list[Extent], where: str) -> None:
        """Raises CorruptDatabaseError where a directory is damaged."""
        self.record = record
        self.extents = extents
        self._arrays: dict[tuple[str, int], np.ndarray] = {}
        self._values: dict[int, list[Any]] = {}
        self._readers: dict[int, Callable[[int], Any]] = {}
        self._texts: dict[int, TextSegment] = {}
        self._lists: dict[int, SegmentLists | None] = {}
        self._matrices: dict[int, np.ndarray] = {}
        self._views: dict[tuple[str, int], memoryview] = {}
        self.masks = KeptMasks(record.rows)
        self.dictionaries: dict[int, Any] = {}  # by column id, see `index.dictionary`
        self._directory: dict[tuple[str, int], tuple[Extent, int, np.dtype[Any], int]] = {}
        for extent in extents:
            self._read_directory(extent, f"{where}, segment {record.id}")
        check_directory(self._directory, record.rows, f"{where}, segment {record.id}")

    def _read_directory(self, extent: Extent, where: str) -> None:
        size = extent.descriptor.size
        if size < HEADER.size:
            raise CorruptDatabaseError(f"{where}: extent of {size} bytes has no directory")
        magic, count, _, rows = HEADER.unpack(extent.read(0, HEADER.size))
        end = HEADER.size + count * PART.itemsize
        if magic != MAGIC or rows != self.record.rows or end > size:
            raise CorruptDatabaseError(f"{where}: extent does not begin with this segment's header")
        entries = np.frombuffer(extent.read(HEADER.size, end - HEADER.size), PART)
        for name, dtype, column, _, offset, items in entries.tolist():
            if dtype not in DTYPES:
                raise CorruptDatabaseError(f"{where}: part {name!r} has dtype {dtype!r}")
            kind = np.dtype(dtype.decode())
            if offset < end or offset + items * kind.itemsize > size:
                raise CorruptDatabaseError(f"{where}: part {name!r} lies outside its extent")
            part = name.decode("ascii", "replace")
            check_part(part, kind, offset, items, rows, where)
            self._directory[part, column] = (extent, offset, kind, items)

    @property
    def id(self) -> int:
        """The segment's number in its collection."""
        return self.record.id

    @property
    def rows(self) -> int:
        """Rows stored, ended ones included."""
        return self.record.rows

    def has(self, name: str, column: int) -> bool:
        """Whether there is such a part."""
        return (name, column) in self._directory

    def names(self) -> list[tuple[str, int]]:
        """All parts."""
        return list(self._directory)

    def parts_of(self, extent: Extent) -> list[tuple[str, int]]:
        """The parts that are read from an extent."""
        return [key for key, found in self._directory.items() if found[0] is extent]

    def size_of(self, name: str, column: int) -> int:
        """Bytes of a part."""
        _, _, dtype, count = self._directory[name, column]
        return dtype.itemsize * count

    def range_of(self, name: str, column: int) -> tuple[Extent, int, int]:
        """Where a part lies that is there: its extent, offset and bytes."""
        extent, offset, dtype, count = self._directory[name, column]
        return extent, offset, count * dtype.itemsize

    def array(self, name: str, column: int) -> np.ndarray:
        """A part as a verified read-only array; KeyError-free: a missing part is corruption."""
        found = self._arrays.get((name, column))
        if found is None:
            if (name, column) not in self._directory:
                raise CorruptDatabaseError(
                    f"segment {self.id}: part {name} of column {column} is missing"
                )
            extent, offset, dtype, count = self._directory[name, column]
            found = extent.array(offset, dtype, count)
            check_values(name, found, self.rows, f"segment {self.id}, column {column}")
            self._arrays[name, column] = found
        return found

    def per_row(self, name: str, column: int) -> np.ndarray:
        """A part that has one item a row (G1)."""
        found = self.array(name, column)
        if len(found) != self.rows:
            raise CorruptDatabaseError(
                f"segment {self.id}: part {name} of column {column} has {len(found)} items "
                f"for {self.rows} rows"
            )
        return found

    def has_read(self, name: str, column: int) -> bool:
        """Whether a part was read, and thereby verified, already; or is not there."""
        return (name, column) in self._arrays or (name, column) not in self._directory

    def view(self, name: str, column: int, code: Literal["q", "Q", "I"]) -> memoryview:
        """A part as a memoryview of numbers, which bisect reads faster than an array."""
        found = self._views.get((name, column))
        if found is None:
            array = self.array(name, column)
            found = array.data.cast("B").cast(code) if len(array) else memoryview(b"")
            self._views[name, column] = found
        return found

    # --------------------------------------------------------------- rows

    @property
    def rowids(self) -> np.ndarray:
        """int64 (rows,), ascending."""
        return self.per_row("rowids", 0)

    def ordinal(self, rowid: int) -> int | None:
        """The ordinal of a rowid, dead or alive, or None."""
        record = self.record
        if not record.min_rowid <= rowid <= record.max_rowid:
            return None
        if record.max_rowid - record.min_rowid + 1 == record.rows:
            return rowid - record.min_rowid
        view = self.view("rowids", 0, "q")
        at = bisect_left(view, rowid)
        return at if at < len(view) and view[at] == rowid else None

    def commits(self) -> np.ndarray:
        """u64 (rows,): the commit that wrote each version."""
        if self.has("commits", 0):
            return self.per_row("commits", 0)
        return np.full(self.rows, self.record.commit, np.uint64)

    def ordinals(self, rowid: int) -> range:
        """The ordinals of all versions of a rowid, dead or alive."""
        view = self.view("rowids", 0, "q")
        return range(bisect_left(view, rowid), bisect_right(view, rowid))

    def candidates(self, column: int, hash_: int) -> list[int]:
        """Ordinals whose key has this hash."""
        hashes = self.view("hashes", column, "Q")
        at = bisect_left(hashes, hash_)
        if at == len(hashes) or hashes[at] != hash_:
            return []
        rows = self.view("hash_rows", column, "I")
        found = []
        while at < len(hashes) and hashes[at] == hash_:
            found.append(rows[at])
            at += 1
        return found

    def nulls(self, column: Column) -> np.ndarray | None:
        """u8 (rows,), 1 = NULL, or None when there is none."""
        return self.per_row("nulls", column.id) if self.has("nulls", column.id) else None

    def numbers(
        self, column: Column, check: Callable[[], None] = unchecked
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """The values of a numeric column and its NULLs; `check` as `values` takes it."""
        verify_parts(self, column.id, check)
        name, _ = SCALAR_PARTS[column.type]
        return self.per_row(name, column.id), self.nulls(column)

    def value(self, column: Column, ordinal: int) -> Any:
        """One stored value; a vector as a copied array."""
        values = self._values.get(column.id)
        if values is not None:
            return values[ordinal]
        return (self._readers.get(column.id) or self._reader(column))(ordinal)

    def few_values(self, column: Column, ordinals: Sequence[int]) -> list[Any]:
        """The stored values of a few rows."""
        values = self._values.get(column.id)
        if values is not None:
            return [values[ordinal] for ordinal in ordinals]
        reader = self._readers.get(column.id) or self._reader(column)
        return [reader(ordinal) for ordinal in ordinals]

    def _reader(self, column: Column) -> Callable[[int], Any]:
        """Reads one value of a column; what it needs is looked up and checked once."""
        reader: Callable[[int], Any]
        if column.is_vector:
            reader = partial(self._any_value, column)
        elif column.type == "BOOLEAN":
            flags = self.numbers(column)[0].data
            reader = _booleans(flags)
        elif column.type in SCALAR_PARTS:
            reader = self.numbers(column)[0].data.__getitem__
        else:
            reader = self._bytes_reader(column)
        found = self.nulls(column)
        if found is not None and not column.is_vector:
            nulls, given = found.data, reader
            reader = _or_null(nulls, given)
        self._readers[column.id] = reader
        return reader

    def _bytes_reader(self, column: Column) -> Callable[[int], str | bytes]:
        offsets = self.array("offsets", column.id)
        bounds = self.view("offsets", column.id, "I" if offsets.itemsize == 4 else "Q")
        extent, at, _, size = self._directory["blob", column.id]
        is_text = column.type != "BLOB"
        is_whole = 0 < size <= WHOLE_BLOB_BYTES
        blob = self.array("blob", column.id).data if is_whole else memoryview(b"")

        def value(ordinal: int) -> str | bytes:
            start, stop = bounds[ordinal], bounds[ordinal + 1]
            if not start <= stop <= size:
                raise self._disorder(column)
            raw = blob[start:stop] if is_whole else extent.read(at + start, stop - start)
            try:
                return str(raw, "utf-8") if is_text else bytes(raw)
            except UnicodeDecodeError:
                return self._decoded(raw, column)  # says where

        return value

    def _disorder(self, column: Column) -> CorruptDatabaseError:
        return CorruptDatabaseError(f"segment {self.id}: offsets of {column.name} do not ascend")

    def _any_value(self, column: Column, ordinal: int) -> Any:
        nulls = self.nulls(column)
        if nulls is not None and nulls[ordinal]:
            return None
        if column.is_vector:
            return self.vector_rows(column, np.array([ordinal]))[0]
        if column.type in SCALAR_PARTS:
            name, _ = SCALAR_PARTS[column.type]
            value = self.per_row(name, column.id)[ordinal].item()
            return bool(value) if column.type == "BOOLEAN" else value
        return self._bytes_value(column, ordinal)

    def _bytes_value(self, column: Column, ordinal: int) -> str | bytes:
        offsets = self.array("offsets", column.id)
        view = self.view("offsets", column.id, "I" if offsets.itemsize == 4 else "Q")
        start, stop = view[ordinal], view[ordinal + 1]
        extent, at, _, size = self._directory["blob", column.id]
        if not start <= stop <= size:
            raise self._disorder(column)
        raw = extent.read(at + start, stop - start)
        return raw if column.type == "BLOB" else self._decoded(raw, column)

    def _decoded(self, raw: bytes | memoryview, column: Column) -> str:
        try:
            return str(raw, "utf-8")
        except UnicodeDecodeError as problem:
            raise CorruptDatabaseError(
                f"segment {self.id}: column {column.name} holds bytes that are not UTF-8"
            ) from problem

    def values(self, column: Column, check: Callable[[], None] | None = None) -> list[Any]:
        """All stored values of a scalar column as a list that the caller must not change.

        check  called between slices of the work; it may raise
        """
        found = self._values.get(column.id)
        if found is not None:
            return found
        verify_parts(self, column.id, check or unchecked)
        if column.type in SCALAR_PARTS:
            name, _ = SCALAR_PARTS[column.type]
            array = self.per_row(name, column.id)
            given = array.view(bool) if column.type == "BOOLEAN" else array
            found = listed(given, check or unchecked)
            size = 8 * self.rows
        else:
            found = self._bytes_values(column, check)
            size = self.size_of("blob", column.id) + 60 * self.rows
        nulls = self.nulls(column)
        if nulls is not None:
            for ordinal in np.flatnonzero(nulls).tolist():
                found[ordinal] = None
            if check is not None:
                check()
        if size <= VALUES_CACHED_BYTES:
            self._values[column.id] = found
        return found

    def _bytes_values(self, column: Column, check: Callable[[], None] | None) -> list[Any]:
        offsets = self.array("offsets", column.id)
        blob = self.array("blob", column.id)
        if len(offsets) != self.rows + 1 or int(offsets[-1]) != len(blob) or offsets[0] != 0:
            raise CorruptDatabaseError(
                f"segment {self.id}: offsets of {column.name} do not match its bytes"
            )
        check_offsets(offsets, f"segment {self.id}: offsets of {column.name}")
        is_text = column.type != "BLOB"
        found: list[Any] = []
        for some in slices(self.rows, DECODED_ROWS, check or unchecked):
            bounds = offsets[some.start : some.stop + 1]
            raw = blob[int(bounds[0]) : int(bounds[-1])].tobytes()
            pairs = itertools.pairwise((bounds - bounds[0]).tolist())
            whole: Any = raw.decode() if is_text and raw.isascii() else raw
            if whole is raw and is_text:
                found += [self._decoded(raw[start:stop], column) for start, stop in pairs]
            else:
                found += [whole[start:stop] for start, stop in pairs]
        return found

    # --------------------------------------------------------------- vectors

    def vector_rows(self, column: Column, ordinals: np.ndarray) -> np.ndarray:
        """Copies of some vectors, (n, dimension); reads only the blocks they stand in."""
        extent, offset, dtype, _count = self._vectors(column)
        if len(ordinals) > 64 or self.is_verified(column):
            return np.asarray(self.matrix(column)[ordinals])
        width = column.dimension * dtype.itemsize
        raw = b"".join(extent.read(offset + int(o) * width, width) for o in ordinals)
        return np.frombuffer(raw, dtype).reshape(-1, column.dimension)

    def _vectors(self, column: Column) -> tuple[Extent, int, np.dtype[Any], int]:
        found = self._directory.get(("vectors", column.id))
        if found is None:
            raise CorruptDatabaseError(f"segment {self.id}: no vectors of {column.name}")
        if found[2] != np.dtype(VECTOR_DTYPES[column.dtype]):
            raise CorruptDatabaseError(f"segment {self.id}: vectors of {column.name}: {found[2]}")
        if found[3] != self.rows * column.dimension:
            raise CorruptDatabaseError(f"segment {self.id}: {found[3]} numbers in {column.name}")
        return found

    def matrix(self, column: Column) -> np.ndarray:
        """All vectors of a column, verified, (rows, dimension), read-only."""
        found = self._matrices.get(column.id)
        if found is None:
            self._vectors(column)
            found = self.array("vectors", column.id).reshape(self.rows, column.dimension)
            self._matrices[column.id] = found
        return found

    def is_verified(self, column: Column) -> bool:
        """Whether the vectors were verified already, so that the map may be read."""
        if column.id in self._matrices or ("vectors", column.id) in self._arrays:
            return True
        return self._vectors(column)[0].all_verified

    def mapped_vectors(self, column: Column) -> tuple[np.ndarray, np.ndarray, int] | None:
        """All vectors in the map, verified or not; None where there is no map.

        Returns (rows, dimension); uint8, not 0 for each block of the extent that may be read; and
        the offset of the first vector in the extent.
        """
        extent, offset, dtype, count = self._vectors(column)
        content = extent.content
        if content is None or not count:
            return None
        found = np.frombuffer(content, dtype, count, offset).reshape(self.rows, column.dimension)
        return found, np.frombuffer(extent.verified, np.uint8), offset

    def verify_vector(self, column: Column, ordinal: int) -> None:
        """Verify the blocks that a vector stands in."""
        extent, offset, dtype, _count = self._vectors(column)
        width = column.dimension * dtype.itemsize
        extent.verify(offset + ordinal * width, width)

    def matrix_chunks(self, column: Column) -> Iterator[tuple[int, np.ndarray]]:
        """(first ordinal, rows) of all vectors, each chunk verified; valid until the next one.

        For the first scan: bytes are hashed and used while they are in the processor's cache.
        """
        extent, offset, dtype, count = self._vectors(column)
        width = column.dimension * dtype.itemsize
        for start, chunk in extent.blocks(offset, count * dtype.itemsize, unit=width):
            rows = np.frombuffer(chunk, dtype).reshape(-1, column.dimension)
            yield (start - offset) // width, rows
        self.matrix(column)  # all its blocks are verified: from now on the map is read

    # --------------------------------------------------------------- text

    def text(self, column: Column) -> TextSegment:
        """The inverted lists of a FULLTEXT column."""
        found = self._texts.get(column.id)
        if found is None:
            from m2mdb.index.text.segment import TextSegment

            lists = {
                name[len(TEXT_PREFIX) :]: self.array(name, column.id)
                for name, id_ in self._directory
                if id_ == column.id and name.startswith(TEXT_PREFIX)
            }
            found = TextSegment(lists, f"segment {self.id}, text of {column.name}", self.rows)
            self._texts[column.id] = found
        return found

    # --------------------------------------------------------------- lists

    def lists(self, column: Column) -> SegmentLists | None:
        """The lists of a VECTOR column, or None where it has none here."""
        try:
            return self._lists[column.id]
        except KeyError:
            found = None
            if self.has("h.head", column.id):
                from m2mdb.index.hrm2 import SegmentLists

                found = SegmentLists(self, column)
            self._lists[column.id] = found
            return found
