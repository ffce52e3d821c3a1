"""Verifying: the checksums of many vectors, an interrupt being looked for meanwhile.

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


def verify_vectors(segment: Segment, column: Column, check: Check) -> None:
    """Have all vectors of a column verified; `check` is called between their chunks.

    Raises CorruptDatabaseError where a block is not what was written. Without a map the matrix is
    read as one, later.
    """
    if not segment.is_verified(column) and segment.mapped_vectors(column) is not None:
        for _ in segment.matrix_chunks(column):
            check()
