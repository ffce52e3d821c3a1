"""Records: the small codecs of the index layer.

row        an entry of the delta, of either kind
record     a segment's record, a chunk of deletions, a run of free pages: by the first byte
key        the key of a B-tree index
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fuzz.target import Target
from m2mdb.index.collection import decode_deletions, encode_deletions
from m2mdb.index.keys import decode_rowid, index_key, successor
from m2mdb.index.record import (
    RowTypes,
    decode_removal,
    decode_row,
    encode_removal,
    encode_row,
)
from m2mdb.index.schema import Column
from m2mdb.index.segment import SegmentRecord
from m2mdb.pager.extent import ExtentDescriptor
from m2mdb.pager.freespace import decode_run, encode_run

COLUMNS = (
    Column("a", "INTEGER"), Column("b", "REAL"), Column("c", "TEXT"), Column("d", "BLOB"),
    Column("e", "BOOLEAN"), Column("f", "VECTOR", dimension=2),
)  # fmt: skip


def run_row(data: bytes) -> None:
    """Decode as both kinds, and hold the values against columns."""
    if data[:1] == b"\2":
        for rowid, (segment, ordinal) in decode_removal(data, "fuzz"):
            assert -(2**63) <= rowid < 2**63 and 0 <= segment < 2**32 and 0 <= ordinal < 2**32
        return
    _, _, values = decode_row(data, "fuzz")
    RowTypes(COLUMNS).check(values, "fuzz")


def row_seeds() -> list[bytes]:
    """Rows with and without NULLs, and removals."""
    vector = np.array([1, 2], np.float32)
    rows: list[list[Any]] = [
        [1, 1.5, "text é", b"bytes", True, vector],
        [None] * 6,
        [-(2**63), float("inf"), "", b"", False, None],
        [7, None, "x" * 300, bytes(range(256)), None, vector],
        [1] * 40,
    ]
    found = [encode_row(3, 9, number, (number, 5), row) for number, row in enumerate(rows)]
    return [*found, encode_removal(3, 9, []), encode_removal(3, 9, [(1, (2, 3)), (4, (0, 0))])]


def run_record(data: bytes) -> None:
    """The codec that the first byte chooses; what is decoded encodes again."""
    kind, raw = data[:1], data[1:]
    if kind < b"\x55":
        record = SegmentRecord.decode(raw, "fuzz")
        assert SegmentRecord.decode(record.encode(), "fuzz").encode() == record.encode()
    elif kind < b"\xaa":
        entries = decode_deletions(raw, "fuzz")
        assert len(entries["ordinal"]) * 12 == len(raw)
    else:
        start, length, commit = decode_run(raw[:8], raw[8:])
        assert encode_run(start, length, commit) == (raw[:8], raw[8:])


def record_seeds() -> list[bytes]:
    """One of each, and one with several extents."""
    record = SegmentRecord(1, 10, rowids=(1, 10), commit=1)
    several = SegmentRecord(2, 600, rowids=(-5, 2**40), commit=77)
    several.deleted = 600
    several.extents = tuple(ExtentDescriptor(n, 3, 9000, n * n, 7) for n in range(2, 7))
    return [
        b"\0" + record.encode(),
        b"\0" + several.encode(),
        b"\x60" + encode_deletions({n * 3: 9 for n in range(40)}),
        b"\xbb" + b"".join(encode_run(40, 3, 9)),
    ]


def run_key(data: bytes) -> None:
    """The rowid of a key, and the key behind all with this beginning."""
    after = successor(data)
    assert after is None or after > data
    decode_rowid(data)


def key_seeds() -> list[bytes]:
    """Keys of every kind of value."""
    values = [None, 1, -1.5, "text\0x", b"\0\xff", "long" * 40, True]
    return [index_key(value, 7 - number) for number, value in enumerate(values)]


TARGETS = [
    Target("row", run_row, row_seeds, share=3.0),
    Target("record", run_record, record_seeds, share=2.0),
    Target("key", run_key, key_seeds, share=1.0),
]
