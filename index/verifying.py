"""Verifying: the checksums of long columns, an interrupt being looked for meanwhile.

The first reading of a column compares the checksum of each of its blocks, which takes about as long
as to read it. Who scans does that while it goes (`index.scanning`); who wants the whole matrix does
it here first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from m2mdb.index.schema import Column
    from m2mdb.index.segment import Segment
    from m2mdb.index.slices import Check

READ_PARTS = ("offsets", "blob", "ints", "reals", "bools", "nulls")  # of a column, those it has
VERIFIED_BYTES = 1 << 20  # between two looks: a millisecond, or what the disk takes for them


def verify_vectors(segment: Segment, column: Column, check: Check) -> None:
    """Have all vectors of a column verified; `check` is called between their chunks.

    Raises CorruptDatabaseError where a block is not what was written. Without a map the matrix is
    read as one, later.
    """
    if not segment.is_verified(column) and segment.mapped_vectors(column) is not None:
        for _ in segment.matrix_chunks(column):
            check()


def verify_parts(segment: Segment, column_id: int, check: Check) -> None:
    """Have the values of a column verified that are to be read; `check` is called between pieces.

    The first reading of a long column waits for the disk. Raises CorruptDatabaseError where a block
    is not what was written. Without a map a part is read as one, later.
    """
    for name in READ_PARTS:
        if segment.has_read(name, column_id):
            continue
        extent, start, size = segment.range_of(name, column_id)
        if extent.content is None or extent.all_verified:
            continue
        for at in range(start, start + size, VERIFIED_BYTES):
            check()
            extent.verify(at, min(VERIFIED_BYTES, start + size - at))
