"""The catalog: descriptions of collections, heads and segment records, as one reads them.

An input is a list of (key, value), each with its length: u16, key, u32, value. `load_catalog`
reads it as it reads the tree.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Any, cast

from fuzz.target import Target
from m2mdb.index.catalog import (
    CollectionEntry,
    collection_key,
    describe,
    load_catalog,
    segment_key,
)
from m2mdb.index.delta import DeltaMirror
from m2mdb.index.schema import CollectionSchema, Column, IndexInfo
from m2mdb.index.segment import SegmentRecord
from m2mdb.index.text.options import parse_options
from m2mdb.pager.btree import BTree
from m2mdb.pager.extent import ExtentDescriptor

_KEY, _VALUE = Struct("<H"), Struct("<I")


def packed(items: list[tuple[bytes, bytes]]) -> bytes:
    """The input that stands for these items."""
    return b"".join(_KEY.pack(len(k)) + k + _VALUE.pack(len(v)) + v for k, v in items)


def unpacked(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The items of an input; lengths that are too long are cut."""
    at = 0
    while at + 2 <= len(data):
        size = _KEY.unpack_from(data, at)[0] % 64
        key = data[at + 2 : at + 2 + size]
        at += 2 + size
        if at + 4 > len(data):
            return
        size = _VALUE.unpack_from(data, at)[0] % 65536
        yield key, data[at + 4 : at + 4 + size]
        at += 4 + size


class ItemTree:
    """What `load_catalog` needs of a tree."""

    def __init__(self, items: list[tuple[bytes, bytes]]) -> None:
        self.items = sorted(dict(items).items())

    def scan(
        self, start: bytes | None = None, stop: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """The items in order."""
        for key, value in self.items:
            if (start is None or key >= start) and (stop is None or key < stop):
                yield key, value


def run_catalog(data: bytes) -> None:
    """Load, describe, and make of each collection what a connection makes of it."""
    tree = ItemTree(list(unpacked(data)))
    catalog = load_catalog(cast("BTree", tree), (1, 1), "fuzz", None)
    load_catalog(cast("BTree", tree), (2, 1), "fuzz", catalog)
    describe(catalog)
    for entry in catalog.by_id.values():
        entry.encode()
        entry.encode_head()
        if sum(column.dimension for column in entry.schema.columns) < 4096:
            DeltaMirror(entry.schema, entry.base_sequence, entry.next_rowid)
        for column in entry.schema.columns:
            column.declaration()
            if column.fulltext is not None:
                parse_options(column.fulltext)
        for index in entry.schema.indexes:
            assert entry.schema.position(index.column) is not None


def entry_items(number: int, schema: CollectionSchema, segments: int) -> list[tuple[bytes, bytes]]:
    """A collection as the catalog has it."""
    entry = CollectionEntry(number, schema)
    entry.delta_root, entry.deletes_root, entry.next_segment = 4, 5, segments + 1
    items = [
        (collection_key(b"C", number), entry.encode()),
        (collection_key(b"H", number), entry.encode_head()),
    ]
    for segment in range(1, segments + 1):
        record = SegmentRecord(segment, 9, rowids=(1, 9), commit=2)
        record.extents = (ExtentDescriptor(40 * number + 2 * segment, 1, 900, 7, 2),)
        items.append((segment_key(number, segment), record.encode()))
    return items


def catalog_seeds() -> list[bytes]:
    """Catalogs of none, one and two collections, with every option of a column."""
    options: dict[str, Any] = {"variant": "okapi", "k1": 1.5, "weight": 2}
    wide = CollectionSchema(
        "notes",
        (
            Column("id", "TEXT", id=1, primary_key=True, not_null=True),
            Column("n", "INTEGER", id=2, unique=True, default=-3, type_name="BIGINT"),
            Column("b", "BLOB", id=3, default=b"\0\xff"),
            Column("body", "TEXT", id=4, fulltext=options),
            Column("tags", "JSON", id=5, fulltext={}),
            Column("v", "VECTOR", id=6, dimension=3, dtype="f16", metric="l2"),
        ),
        (IndexInfo("by_n", "n", root=6), IndexInfo("t", "body", kind="bm25")),
    )
    small = CollectionSchema("x", (Column("a", "REAL"),))
    one = (b"N", (2).to_bytes(4, "big"))
    return [
        packed([]),
        packed([one, *entry_items(1, small, 0)]),
        packed([one, *entry_items(1, wide, 2)]),
        packed([one, *entry_items(1, wide, 1), *entry_items(2, small, 3)]),
    ]


TARGETS = [Target("catalog", run_catalog, catalog_seeds, share=2.0)]
