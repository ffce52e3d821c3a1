"""B-tree indexes: entries (value, rowid) over all live rows of a collection.

The value is a tuple where the index has several columns: `indexed_values` makes them of columns.
Texts of columns with a collation stand in it folded (`index.collations`).
An entry is a key of `index.keys` with an empty value. The index is written in the same
transaction as the rows and can be rebuilt from them alone.

Invariants
    B1  A live row has exactly one entry in each index of its collection; no other row has one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from m2mdb.index.collations import folded, folded_value
from m2mdb.index.keys import (
    KEY_SIZE,
    decode_rowid,
    encode_rowid,
    encode_value,
    encode_values,
    successor,
)
from m2mdb.index.slices import (
    SLICE_VALUES,
    Check,
    emptied,
    mapped,
    rows_of,
    slices,
    unchecked,
    value_order,
    watched,
)
from m2mdb.pager.btree import BTree

if TYPE_CHECKING:
    from m2mdb.index.collection import CollectionView, Part, Place
    from m2mdb.index.schema import CollectionSchema, IndexInfo
    from m2mdb.index.values import StoredColumn
    from m2mdb.pager.pages import MutablePages, Pages

Bound = tuple[Any, bool]  # stored value or None, and whether the bound itself is left out


def indexed_values(
    schema: CollectionSchema,
    info: IndexInfo,
    stored: Sequence[StoredColumn],
    check: Check = unchecked,
) -> list[Any]:
    """What an index has of rows that stand in columns: a value each, or a tuple (see above).

    check  called between slices of many rows; it may raise
    """
    columns: list[list[Any]] = []
    for index in schema.positions(info):
        values = stored[index]
        assert isinstance(values, list)
        columns.append(folded(schema.columns[index].fold, values, check))
    return columns[0] if len(columns) == 1 else rows_of(columns, check)


def values_at(
    schema: CollectionSchema,
    info: IndexInfo,
    parts: Sequence[Part],
    places: Iterable[Place],
    check: Check = unchecked,
) -> list[Any]:
    """What an index has of rows that stand at places; `check` as in `indexed_values`."""
    positions, folds = schema.positions(info), schema.folds(info)
    if len(positions) == 1:
        at = positions[0]
        found = [parts[part].stored(at, ordinal) for part, ordinal in watched(places, check)]
        return folded(folds[0], found, check)
    rows = [
        tuple([parts[part].stored(index, ordinal) for index in positions])
        for part, ordinal in watched(places, check)
    ]
    return [folded_value(folds, row) for row in watched(rows, check)] if any(folds) else rows


def compared(value: Any) -> Any:
    """An indexed value as UNIQUE compares it: None, which equals nothing, where a part is NULL."""
    return None if isinstance(value, tuple) and None in value else value


def compared_values(
    schema: CollectionSchema,
    info: IndexInfo,
    stored: Sequence[StoredColumn],
    check: Check = unchecked,
) -> list[Any]:
    """`indexed_values` as UNIQUE compares them."""
    values = indexed_values(schema, info, stored, check)
    return values if len(info.columns) == 1 else mapped(values, compared, check)


def range_rowids(
    pages: Pages,
    info: IndexInfo,
    low: Bound,
    high: Bound,
    most: int | None = None,
    *,
    first: tuple[Any, ...] = (),
) -> np.ndarray | None:
    """Rowids, ascending, whose indexed value may lie between the bounds; None: more than `most`.

    first  what the columns before the one with the bounds equal, none of them NULL
    """
    before = b"".join(map(encode_value, first))
    bounded = low[0] is not None or high[0] is not None
    start: bytes | None = before + b"\x02" if bounded or not first else before  # behind NULL
    stop: bytes | None = successor(before) if before else None
    if low[0] is not None:
        start = before + encode_value(low[0])
        if low[1] and start.endswith(b"\x00\x00"):
            start = successor(start)
    if high[0] is not None:
        encoded = encode_value(high[0])
        stop = before + encoded if high[1] and not _is_cut(encoded) else successor(before + encoded)
    if len(start or b"") > KEY_SIZE or len(stop or b"") > KEY_SIZE:
        start, stop = (start or b"")[:KEY_SIZE], successor((stop or b"")[:KEY_SIZE])  # both cut
    entries = BTree(pages, info.root).scan(start, stop)
    limit = None if most is None else most + 1
    found = [decode_rowid(key) for key, _ in islice(entries, limit)]
    if most is not None and len(found) > most:
        return None
    rowids = np.array(found, np.int64)
    rowids.sort()
    return rowids


def rowids_by_columns(
    view: CollectionView,
    info: IndexInfo,
    first: tuple[Any, ...],
    bounds: tuple[Bound, Bound],
    most: int,
) -> list[int] | None:
    """Candidates, ascending, whose first columns equal `first`; None: more than `most`.

    bounds  of the column behind these, (None, False) where there is none
    """
    found = column_rowids(view, info, bounds, most, first)
    return None if found is None else found.tolist()


def column_rowids(
    view: CollectionView,
    info: IndexInfo,
    bounds: tuple[Bound, Bound],
    most: int | None,
    first: tuple[Any, ...] = (),
) -> np.ndarray | None:
    """`range_rowids` for values as the rows have them: folded by their columns' collations."""
    folds = view.schema.folds(info)
    (low, low_open), (high, high_open) = bounds
    fold = folds[len(first)] if len(first) < len(folds) else None
    if fold is not None:
        low, high = fold(low), fold(high)
    first = folded_value(folds, first)
    return range_rowids(
        view.view.pages, info, (low, low_open), (high, high_open), most, first=first
    )


def _is_cut(encoded: bytes) -> bool:
    """Whether a longer value may share this key prefix."""
    return encoded[0] >= 4 and not encoded.endswith(b"\x00\x00")


def equal_rowids(pages: Pages, info: IndexInfo, value: Any) -> list[int]:
    """Rowids whose indexed value may equal `value`, which is not NULL."""
    encoded = encode_value(value)
    tree = BTree(pages, info.root)
    return [decode_rowid(key) for key, _ in tree.scan(encoded, successor(encoded))]


def suspects(
    pages: Pages, info: IndexInfo, values: Sequence[Any], check: Check = unchecked
) -> list[int]:
    """Which of many values, by their places, may equal an indexed one; None equals nothing.

    Values and entries are walked side by side, so that a leaf is looked at once.
    """
    wanted: list[tuple[bytes, int]] = []
    for some in slices(len(values), SLICE_VALUES, check):
        own = values[some]
        present = [value for value in own if value is not None]
        places = (some.start + at for at, value in enumerate(own) if value is not None)
        wanted += zip(encode_values(present), places, strict=True)
    wanted.sort()
    tree, found, at = BTree(pages, info.root), [], 0
    while at < len(wanted):
        check()
        keys = next((keys for keys, _ in tree.runs(wanted[at][0]) if keys), None)
        if keys is None:
            break  # all entries are smaller
        place = 0
        while at < len(wanted) and wanted[at][0] <= keys[-1]:
            encoded, row = wanted[at]
            place = bisect_left(keys, encoded, place)
            if keys[place].startswith(encoded):
                found.append(row)
            at += 1
    return found


def add_entries(
    pages: MutablePages,
    info: IndexInfo,
    rows: Iterable[tuple[Any, int]],
    *,
    empty: bool = False,
    check: Check = unchecked,
) -> None:
    """Index (stored value, rowid) pairs; `empty` says that the index has no entry yet.

    check  called between slices of many rows; it may raise
    """
    tree = BTree(pages, info.root)
    keys = _sorted_keys(rows, check)
    if empty or tree.first() is None:
        tree.bulk_load((key, b"") for key in watched(keys, check))
        return
    tree.put_ascending((key, b"") for key in watched(keys, check))


def remove_entries(
    pages: MutablePages, info: IndexInfo, rows: Iterable[tuple[Any, int]], check: Check = unchecked
) -> None:
    """Take (stored value, rowid) pairs out of the index; `check` as in `add_entries`."""
    tree = BTree(pages, info.root)
    for key in watched(_sorted_keys(rows, check), check):
        tree.delete(key)


def _sorted_keys(rows: Iterable[tuple[Any, int]], check: Check) -> Iterator[bytes]:
    """The keys in order; what was given is let go: the garbage collector would look at it."""
    waiting, keys = iter(rows), []
    while some := list(islice(waiting, SLICE_VALUES)):
        check()
        encoded = encode_values([value for value, _ in some])
        keys += [key + encode_rowid(row[1]) for key, row in zip(encoded, some, strict=True)]
    if len(keys) <= SLICE_VALUES:
        keys.sort()
        yield from keys
        return
    order = value_order(list(range(len(keys))), keys, check)
    runs = [
        list(map(keys.__getitem__, order[some])) for some in slices(len(order), SLICE_VALUES, check)
    ]
    emptied(check, order)
    del keys
    runs.reverse()
    while runs:
        yield from runs.pop()
