"""Keys: column values as bytes that compare like the values.

A B-tree index has one entry a row, with an empty value:

    | tag u8 | encoded value | rowid u64 big-endian, sign bit flipped |

    tag 1  NULL       nothing
    tag 2  number     INTEGER, BOOLEAN, TIMESTAMP: int64 big-endian, sign bit flipped
    tag 3  real       float64 big-endian; sign bit flipped, all bits flipped below zero
    tag 4  text       UTF-8, 00 written as 00 FF, ended by 00 00
    tag 5  blob       the same over the bytes

A value whose encoding is longer than PREFIX_SIZE is cut there and loses its end mark, so entries
are candidates: whoever reads a range checks the rows themselves. The key of several columns is
their encodings one after the other, all in all cut at KEY_SIZE; a tuple stands for such values.

Invariants
    K1  encode(a) < encode(b) where a < b, unless both were cut to the same prefix.
    K2  Equal tuples have equal encodings, and the encoding of their first values is a prefix of
        theirs, or cut to it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from m2mdb.pager.errors import CorruptDatabaseError

PREFIX_SIZE = 80  # a 512-byte test page still holds several keys; most values are shorter
KEY_SIZE = 1 + 2 * PREFIX_SIZE  # the most that one value takes, and so the most for several
_NUMBER = struct.Struct(">BQ")
_ROWID = struct.Struct(">Q")
_REAL = struct.Struct(">d")
SIGN = 1 << 63
MASK = (1 << 64) - 1


def encode_rowid(rowid: int) -> bytes:
    """Eight bytes that compare like the signed number."""
    return _ROWID.pack((rowid + SIGN) & MASK)


def decode_rowid(key: bytes) -> int:
    """The rowid at the end of an index key; CorruptDatabaseError where it is too short."""
    try:
        (number,) = _ROWID.unpack_from(key, len(key) - 8)
    except struct.error:
        raise CorruptDatabaseError(f"index: a key of {len(key)} bytes has no rowid") from None
    return int(number) - SIGN


def encode_value(value: Any) -> bytes:
    """The value part of a key: of a stored value, see `index.schema`, or of a tuple of them."""
    if type(value) is str:
        raw = value.encode()
        if len(raw) <= PREFIX_SIZE and b"\x00" not in raw:
            return b"\x04" + raw + b"\x00\x00"
    if isinstance(value, tuple):
        return b"".join(map(encode_value, value))[:KEY_SIZE]
    if value is None:
        return b"\x01"
    if isinstance(value, int):
        return _NUMBER.pack(2, (value + SIGN) & MASK)
    if isinstance(value, float):
        return b"\x03" + _encode_real(value)
    raw, tag = (value.encode(), b"\x04") if isinstance(value, str) else (bytes(value), b"\x05")
    if len(raw) <= PREFIX_SIZE:
        return tag + raw.replace(b"\x00", b"\x00\xff") + b"\x00\x00"
    return tag + raw[:PREFIX_SIZE].replace(b"\x00", b"\x00\xff")


def encode_values(values: Sequence[Any]) -> list[bytes]:
    """`encode_value` of each; tuples are of one length."""
    if not values or type(values[0]) is not tuple:
        return _encode_column(values)
    columns = [_encode_column(column) for column in zip(*values, strict=True)]
    return [b"".join(parts)[:KEY_SIZE] for parts in zip(*columns, strict=True)]


def _encode_column(values: Sequence[Any]) -> list[bytes]:
    kinds = set(map(type, values))
    if kinds == {int}:
        pack = _NUMBER.pack
        return [pack(2, value + SIGN) for value in values]
    return [encode_value(value) for value in values]


def _encode_real(value: float) -> bytes:
    (bits,) = _ROWID.unpack(_REAL.pack(value + 0.0))  # + 0.0 makes -0.0 equal 0.0
    return _ROWID.pack(bits ^ MASK if bits & SIGN else bits | SIGN)


def index_key(value: Any, rowid: int) -> bytes:
    """The key of one row in a B-tree index."""
    return encode_value(value) + encode_rowid(rowid)


def successor(prefix: bytes) -> bytes | None:
    """The smallest key above every key that begins with `prefix`; None where there is none."""
    stripped = prefix.rstrip(b"\xff")
    if not stripped:
        return None
    return stripped[:-1] + bytes([stripped[-1] + 1])
