"""B-tree indexes: entries (value, rowid) over all live rows of a collection.

An entry is a key of `index.keys` with an empty value. The index is written in the same
transaction as the rows and can be rebuilt from them alone.

Invariants
    B1  A live row has exactly one entry in each index of its collection; no other row has one.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from m2mdb.index.keys import decode_rowid, encode_value, index_key, successor
from m2mdb.pager.btree import BTree

if TYPE_CHECKING:
    from m2mdb.index.schema import IndexInfo
    from m2mdb.pager.pages import MutablePages, Pages

Bound = tuple[Any, bool]  # stored value or None, and whether the bound itself is left out


def range_rowids(
    pages: Pages, info: IndexInfo, low: Bound, high: Bound, most: int | None = None
) -> np.ndarray | None:
    """Rowids, ascending, whose indexed value may lie between the bounds; None: more than `most`."""
    start: bytes | None = b"\x02"  # behind NULL
    stop: bytes | None = None
    if low[0] is not None:
        start = encode_value(low[0])
        if low[1] and start.endswith(b"\x00\x00"):
            start = successor(start)
    if high[0] is not None:
        encoded = encode_value(high[0])
        stop = encoded if high[1] and not _is_cut(encoded) else successor(encoded)
    entries = BTree(pages, info.root).scan(start, stop)
    limit = None if most is None else most + 1
    found = [decode_rowid(key) for key, _ in islice(entries, limit)]
    if most is not None and len(found) > most:
        return None
    rowids = np.array(found, np.int64)
    rowids.sort()
    return rowids


def _is_cut(encoded: bytes) -> bool:
    """Whether a longer value may share this key prefix."""
    return encoded[0] >= 4 and not encoded.endswith(b"\x00\x00")


def equal_rowids(pages: Pages, info: IndexInfo, value: Any) -> list[int]:
    """Rowids whose indexed value may equal `value`, which is not NULL."""
    encoded = encode_value(value)
    tree = BTree(pages, info.root)
    return [decode_rowid(key) for key, _ in tree.scan(encoded, successor(encoded))]


def add_entries(
    pages: MutablePages, info: IndexInfo, rows: Iterable[tuple[Any, int]], *, empty: bool = False
) -> None:
    """Index (stored value, rowid) pairs; `empty` says that the index has no entry yet."""
    tree = BTree(pages, info.root)
    keys = [index_key(value, rowid) for value, rowid in rows]
    if len(keys) > 1:
        keys.sort()
    if empty:
        tree.bulk_load((key, b"") for key in keys)
        return
    for key in keys:
        tree.put(key, b"")


def remove_entries(pages: MutablePages, info: IndexInfo, rows: Iterable[tuple[Any, int]]) -> None:
    """Take (stored value, rowid) pairs out of the index."""
    tree = BTree(pages, info.root)
    for key in sorted(index_key(value, rowid) for value, rowid in rows):
        tree.delete(key)
