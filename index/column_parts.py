"""Column parts: what a segment stores of a column's values, and the hashes of its keys.

Parts, their names and types are described in `index.segment`. Long columns are made slice by slice.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
from xxhash import xxh3_64_intdigest

from m2mdb.index.collations import each_folded
from m2mdb.index.schema import Column
from m2mdb.index.segment import SCALAR_PARTS, NamedPart
from m2mdb.index.slices import (
    SLICE_VALUES,
    Check,
    array_of,
    joined,
    number_order,
    slices,
    taken,
    unchecked,
)
from m2mdb.index.values import VectorData


def key_hash(value: Any) -> int:
    """The hash of a stored key value: an integer is its own."""
    if type(value) is str:
        return int(xxh3_64_intdigest(value.encode()))
    if isinstance(value, int):
        return value & 0xFFFFFFFFFFFFFFFF
    if isinstance(value, float):
        return int(xxh3_64_intdigest(struct.pack("<d", value + 0.0)))
    return int(xxh3_64_intdigest(bytes(value)))


def key_hashes(values: Iterable[Any], count: int, check: Check = unchecked) -> np.ndarray:
    """u64 hashes of `count` values that are not NULL; `check` is called between slices of them."""
    found = np.empty(count, np.uint64)
    hashes = map(key_hash, values)
    for some in slices(count, SLICE_VALUES, check):
        size = some.stop - some.start
        found[some] = np.fromiter(islice(hashes, size), np.uint64, size)
    return found


def column_parts(
    column: Column, values: list[Any] | VectorData, check: Check = unchecked
) -> Iterator[NamedPart]:
    """The parts of one column's values, without its indexes.

    check  called between slices of many values; it may raise
    """
    if isinstance(values, VectorData):
        if values.present is not None:
            yield "nulls", column.id, (~values.present).astype(np.uint8)
        values.measure(check)
        yield "norms", column.id, values.norms
        yield "vectors", column.id, values.matrix.reshape(-1)
        return
    nulls = nulls_of(values, check)
    if nulls is not None:
        yield "nulls", column.id, nulls
    if column.type in ("TEXT", "BLOB", "JSON"):
        yield from _bytes_parts(column, values, check)
        return
    name, dtype = SCALAR_PARTS[column.type]
    if nulls is None:
        yield name, column.id, array_of(values, dtype, check)
        return
    numbers = np.empty(len(values), dtype)
    for some in slices(len(values), 4 * SLICE_VALUES, check):
        numbers[some] = [0 if value is None else value for value in values[some]]
    yield name, column.id, numbers


def nulls_of(values: list[Any], check: Check) -> np.ndarray | None:
    """u8, 1 where a value is NULL; None where none is."""
    nulls: np.ndarray | None = None
    for some in slices(len(values), 4 * SLICE_VALUES, check):
        own = values[some]
        if None in own:
            if nulls is None:
                nulls = np.zeros(len(values), np.uint8)
            nulls[some] = [value is None for value in own]
    return nulls


def _bytes_parts(column: Column, values: list[Any], check: Check) -> Iterator[NamedPart]:
    lengths = np.zeros(len(values) + 1, np.int64)
    pieces: list[np.ndarray] = [np.empty(0, np.uint8)]
    for some in slices(len(values), SLICE_VALUES, check):
        piece, sizes = _piece(column, values[some])
        lengths[some.start + 1 : some.stop + 1] = np.fromiter(
            sizes, np.int64, some.stop - some.start
        )
        pieces.append(np.frombuffer(piece, np.uint8))
    blob = joined(pieces, check)
    ends = np.cumsum(lengths, out=lengths)
    yield "offsets", column.id, ends.astype("<u4" if len(blob) < 1 << 32 else "<u8")
    yield "blob", column.id, blob


def _piece(column: Column, values: list[Any]) -> tuple[bytes, Iterator[int]]:
    """The bytes of some values, and how many each has."""
    if column.type != "BLOB":
        texts = [value or "" for value in values]
        whole = "".join(texts)
        if whole.isascii():
            return whole.encode(), map(len, texts)
        values = [text.encode() for text in texts]
    raws = [value or b"" for value in values]
    return b"".join(raws), map(len, raws)


def hash_parts(column: Column, values: list[Any], check: Check = unchecked) -> Iterator[NamedPart]:
    """The sorted hashes of a hashed column's values, folded by its collation.

    check  as in `column_parts`
    """
    nulls = nulls_of(values, check)
    rows = np.arange(len(values), dtype=np.uint32)
    if nulls is not None:
        rows = rows[nulls == 0]
    present = (value for value in values if value is not None)
    hashes = key_hashes(each_folded(column.fold, present), len(rows), check)
    order = number_order(hashes, check)
    yield "hashes", column.id, taken(hashes, order, check)
    yield "hash_rows", column.id, taken(rows, order, check)
