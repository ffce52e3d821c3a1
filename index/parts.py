"""Parts: what a segment's directory may say of them, held against the rows and the extent.

Nothing of a part is read, and nothing is allocated for it, before its place, its type and its
number of items were found to be possible. So a kernel that is given a part's array and ordinals
below `rows` cannot reach beyond the array, whoever made the file.

    part                                  type                 items
    rowids commits ints reals bools       its own              rows
    nulls norms                           u8, f32              rows
    offsets                               u32 or u64           rows + 1, and then there is a blob
    vectors                               f32, f16 or i8       a multiple of rows
    hashes, hash_rows                     u64, u32             as many as each other, rows at most
    t.*                                   any                  `text.segment` checks their bytes
    h.*                                   below                `index.hrm2` checks their items
    zones                                 i64                  3 a block of ZONE_ROWS rows
    others                                any                  any: readers pass over them

Invariants
    PA1 Each part begins at a multiple of 64 bytes and ends within its extent.
    PA2 There is a part `rowids`: so a segment has no more rows than its extent has bytes for.
    PA3 The values of `nulls` and `bools` are 0 or 1, and those of `hash_rows` are ordinals.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from m2mdb.pager.errors import CorruptDatabaseError

if TYPE_CHECKING:
    from m2mdb.pager.extent import Extent

    Directory = Mapping[tuple[str, int], tuple[Extent, int, np.dtype[Any], int]]

_ALIGNMENT = 64
ZONE_ROWS = 1 << 14  # of one block of a zone map: a part of the format
_PER_ROW = {
    "rowids": "<i8",
    "commits": "<u8",
    "nulls": "|u1",
    "ints": "<i8",
    "reals": "<f8",
    "bools": "|u1",
    "norms": "<f4",
}
_KINDS: dict[str, tuple[str, ...]] = {
    **{name: (kind,) for name, kind in _PER_ROW.items()},
    "offsets": ("<u4", "<u8"),
    "blob": ("|u1",),
    "vectors": ("<f4", "<f2", "|i1"),
    "hashes": ("<u8",),
    "hash_rows": ("<u4",),
    "zones": ("<i8",),
    "h.head": ("<u4",),
    "h.centers": ("|u1",),
    "h.center_scales": ("<f4",),
    "h.center_squares": ("<f4",),
    "h.starts": ("<i8",),
    "h.codes": ("|u1",),
    "h.factors": ("<f4",),
    "h.positions": ("<u4",),
    "h.bytes8": ("|u1",),
    "h.scales": ("<f4",),
    "h.squares": ("<f4",),
    "h.ordinals": ("<u4",),
    "h.patience": ("<f4",),
    "h.effort": ("<f4",),
    "h.epsilon": ("<f4",),
    "h.rules": ("<f4",),
    "h.middle": ("<f4",),
    "h.queries": ("|u1",),
    "h.query_scales": ("<f4",),
    "h.error": ("<f4",),
    "h.trained": ("<f8",),
}


def check_part(
    name: str, kind: np.dtype[Any], offset: int, items: int, rows: int, where: str
) -> None:
    """Raise CorruptDatabaseError unless a directory's entry can be one of a segment of `rows`."""
    if offset % _ALIGNMENT:
        raise CorruptDatabaseError(f"{where}: part {name!r} begins at byte {offset}, not aligned")
    kinds = _KINDS.get(name)
    if kinds is None:
        return
    if kind.str not in kinds:
        raise CorruptDatabaseError(
            f"{where}: part {name!r} has items of {kind.str}, expected {' or '.join(kinds)}"
        )
    expected = rows if name in _PER_ROW else rows + 1 if name == "offsets" else items
    if name == "zones":
        expected = 3 * -(-rows // ZONE_ROWS)
    if items != expected or (name == "vectors" and items % rows):
        raise CorruptDatabaseError(f"{where}: part {name!r} has {items} items for {rows} rows")


def check_directory(directory: Directory, rows: int, where: str) -> None:
    """Raise CorruptDatabaseError where parts that belong together do not (PA2)."""
    if ("rowids", 0) not in directory:
        raise CorruptDatabaseError(f"{where}: no part says the rowids of its {rows} rows")
    for name, column in directory:
        if name == "offsets" and ("blob", column) not in directory:
            raise CorruptDatabaseError(f"{where}: column {column} has offsets and no bytes")
        if name in ("hashes", "hash_rows"):
            pair = [directory.get((one, column)) for one in ("hashes", "hash_rows")]
            counts = [None if found is None else found[3] for found in pair]
            if counts[0] != counts[1] or counts[0] is None or counts[0] > rows:
                raise CorruptDatabaseError(
                    f"{where}: column {column} has {counts[0]} key hashes and {counts[1]} ordinals "
                    f"for {rows} rows"
                )


def check_values(name: str, array: np.ndarray, rows: int, where: str) -> None:
    """Raise CorruptDatabaseError where a part's items are not what PA3 says."""
    if name in ("nulls", "bools", "hash_rows") and len(array):
        limit = rows if name == "hash_rows" else 2
        if int(array.max()) >= limit:
            raise CorruptDatabaseError(
                f"{where}: part {name!r} has the value {array.max()}, expected less than {limit}"
            )


def check_offsets(offsets: np.ndarray, where: str) -> None:
    """Raise CorruptDatabaseError where the bounds of values descend: values share no bytes."""
    if (offsets[1:] < offsets[:-1]).any():
        raise CorruptDatabaseError(f"{where} do not ascend")
