"""Records: how the delta writes down one change.

The delta of a collection is a log in a B-tree: key = sequence number (u64 big-endian), value = one
entry. An entry is either a version of a row or a list of rows that end:

    offset  size  field
         0     1  kind            1 row version, 2 removal
         1     8  commit          the commit that writes this entry
         9     8  next rowid      the smallest rowid never given out, after this entry

    row version                               removal
    17  8  rowid                              17  16 n  n times: rowid i64, segment u32, ordinal u32
    25  4  segment   of the version that this one ends, 0 = of the delta or none
    29  4  ordinal
    33  2  column count n
    35  n  tags, one byte a column
        -  one 8-byte number or 4-byte length a column that is not NULL, in order
        -  the bytes of the columns that have a length, in order

    tag  0 NULL  1 int64  2 float64  3 boolean false  4 boolean true  5 text  6 bytes  7 vector

Columns stand in the order of the collection's columns. Numbers are little-endian.

Invariants
    R1  Sequence numbers only grow; an entry is never changed, only the whole log is emptied.
    R2  A segment's row that an entry ends is named by its place, never by its rowid alone: a
        primary key may be given again.
    R3  A version's values are of the types that its columns store, or NULL.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from m2mdb.pager.errors import CorruptDatabaseError

if TYPE_CHECKING:
    from m2mdb.index.schema import Column

ROW, REMOVAL = 1, 2
HEAD = struct.Struct("<BQQ")
ROW_HEAD = struct.Struct("<BQQqIIH")
REMOVED = struct.Struct("<qII")
SEQUENCE = struct.Struct(">Q")

NULL, INTEGER, REAL, FALSE, TRUE, TEXT, BYTES, VECTOR = range(8)
_CODES = {INTEGER: "q", REAL: "d", TEXT: "I", BYTES: "I", VECTOR: "I"}
_layouts: dict[bytes, struct.Struct] = {}

_STORED = {
    "INTEGER": int, "TIMESTAMP": int, "REAL": float, "TEXT": str, "JSON": str, "BLOB": bytes,
    "BOOLEAN": bool, "VECTOR": bytes,
}  # fmt: skip
_KNOWN_SHAPES = 1024

Place = tuple[int, int]  # segment id (0 = the delta or none), ordinal


def sequence_key(sequence: int) -> bytes:
    """The B-tree key of an entry."""
    return SEQUENCE.pack(sequence)


def layout_of(tags: bytes) -> struct.Struct:
    """The struct of the numbers and lengths behind these tags."""
    layout = _layouts.get(tags)
    if layout is None:
        if len(_layouts) > 4096:
            _layouts.clear()
        layout = struct.Struct("<" + "".join(_CODES.get(tag, "") for tag in tags))
        _layouts[tags] = layout
    return layout


def encode_row(
    commit: int, next_rowid: int, rowid: int, ended: Place, values: Sequence[Any]
) -> bytes:
    """A row version; `values` are stored scalars, and vectors as one-dimensional arrays."""
    tags = bytearray(len(values))
    numbers: list[Any] = []
    blobs: list[bytes] = []
    for i, value in enumerate(values):
        if value is None:
            continue
        kind = type(value)
        if kind is str:
            raw = value.encode()
            tags[i] = TEXT
        elif kind is int:
            tags[i] = INTEGER
            numbers.append(value)
            continue
        elif kind is np.ndarray:
            raw = value.tobytes()
            tags[i] = VECTOR
        elif kind is float:
            tags[i] = REAL
            numbers.append(value)
            continue
        elif kind is bool:
            tags[i] = TRUE if value else FALSE
            continue
        else:
            raw = bytes(value)
            tags[i] = BYTES
        numbers.append(len(raw))
        blobs.append(raw)
    shape = bytes(tags)
    head = ROW_HEAD.pack(ROW, commit, next_rowid, rowid, ended[0], ended[1], len(shape))
    return b"".join((head, shape, layout_of(shape).pack(*numbers), *blobs))


def decode_row(raw: bytes, where: str) -> tuple[int, Place, list[Any]]:
    """(rowid, the place it ends, values); vectors come as bytes.

    Raises CorruptDatabaseError where the lengths do not add up.
    """
    try:
        _, _, _, rowid, segment, ordinal, count = ROW_HEAD.unpack_from(raw)
        tags = raw[ROW_HEAD.size : ROW_HEAD.size + count]
        if tags and max(tags) > VECTOR:
            raise CorruptDatabaseError(f"{where}: a row version has a value of tag {max(tags)}")
        layout = layout_of(tags)
        numbers = iter(layout.unpack_from(raw, ROW_HEAD.size + count))
        at = ROW_HEAD.size + count + layout.size
        values: list[Any] = []
        for tag in tags:
            if tag in (INTEGER, REAL):
                values.append(next(numbers))
            elif tag == NULL:
                values.append(None)
            elif tag in (FALSE, TRUE):
                values.append(tag == TRUE)
            else:
                end = at + next(numbers)
                values.append(raw[at:end].decode() if tag == TEXT else raw[at:end])
                at = end
    except (struct.error, UnicodeDecodeError, StopIteration) as problem:
        raise CorruptDatabaseError(f"{where}: a row version is damaged: {problem}") from problem
    if at != len(raw) or len(values) != count:
        raise CorruptDatabaseError(f"{where}: a row version of {len(raw)} bytes describes {at}")
    return rowid, (segment, ordinal), values


class RowTypes:
    """The types that a collection's columns store, and which rows have been found to have them."""

    __slots__ = ("_known", "_names", "_wanted")

    def __init__(self, columns: Sequence[Column]) -> None:
        self._names = [column.name for column in columns]
        self._wanted = [(type(None), _STORED[column.type]) for column in columns]
        self._known: set[tuple[type, ...]] = set()

    def check(self, values: Sequence[Any], where: str) -> None:
        """Raise CorruptDatabaseError where a value is of another type than its column (R3)."""
        shape = tuple(map(type, values))
        if shape in self._known:
            return
        if len(shape) != len(self._wanted):
            raise CorruptDatabaseError(
                f"{where}: a row version has {len(shape)} columns, expected {len(self._wanted)}"
            )
        for name, found, wanted in zip(self._names, shape, self._wanted, strict=True):
            if found not in wanted:
                raise CorruptDatabaseError(f"{where}: {name} of a row version is {found.__name__}")
        if len(self._known) < _KNOWN_SHAPES:
            self._known.add(shape)


def encode_removal(commit: int, next_rowid: int, rows: Sequence[tuple[int, Place]]) -> bytes:
    """The end of some rows: (rowid, place) each."""
    packed = [REMOVED.pack(rowid, place[0], place[1]) for rowid, place in rows]
    return HEAD.pack(REMOVAL, commit, next_rowid) + b"".join(packed)


def decode_removal(raw: bytes, where: str) -> list[tuple[int, Place]]:
    """The rows that a removal ends."""
    if (len(raw) - HEAD.size) % REMOVED.size:
        raise CorruptDatabaseError(f"{where}: a removal entry has {len(raw)} bytes")
    found = REMOVED.iter_unpack(memoryview(raw)[HEAD.size :])
    return [(rowid, (segment, ordinal)) for rowid, segment, ordinal in found]
