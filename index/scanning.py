"""Scanning: which rows of a part a search may find, and their vectors for a kernel.

Invariants
    E1, E2  as in `index.nearest`
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from m2mdb.index.collection import SegmentPart
from m2mdb.index.slices import slices
from m2mdb.index.verifying import verify_vectors

if TYPE_CHECKING:
    from m2mdb.compute.backend import Collector
    from m2mdb.index.collection import CollectionView, Part
    from m2mdb.index.schema import Column

SCANNED_BYTES = 1 << 24  # of vectors between two checks for an interrupt: some milliseconds
SCANNED_MASK = 1 << 24  # rows of a mask between two checks
SPARSE = 16  # a mask with fewer rows than one in SPARSE is gathered, not scanned


def candidates_mask(part: Part, column_index: int, mask: np.ndarray | None) -> np.ndarray | None:
    """Which rows of a part a search may find (E1); None for all."""
    for other in (part.live, part.present(column_index)):
        if other is not None:
            mask = other if mask is None else mask & other
    return mask


def part_arrays(
    view: CollectionView, part: Part, column_index: int
) -> tuple[np.ndarray, np.ndarray]:
    """Verified vectors and norms of a part."""
    column = view.schema.columns[column_index]
    if isinstance(part, SegmentPart):
        verify_vectors(part.segment, column, view.check)
        return part.segment.matrix(column), part.segment.per_row("norms", column.id)
    growing = view.mirror.vectors[column_index]
    return growing.matrix[: part.size], growing.norms(part.size)


def scan_part(
    view: CollectionView,
    part: Part,
    column_index: int,
    collector: Collector,
    mask: np.ndarray | None,
    first: int,
) -> None:
    """Have the collector consider the rows of a part, numbered from `first`.

    mask  from `candidates_mask`
    """
    column = view.schema.columns[column_index]
    passing = part.size if mask is None else int(np.count_nonzero(mask))
    is_dense = passing * SPARSE >= part.size
    if isinstance(part, SegmentPart) and is_dense and not part.segment.is_verified(column):
        _scan_first_time(view, part, column, collector, mask, first)
        return
    matrix, norms = part_arrays(view, part, column_index)
    step = max(1, SCANNED_BYTES // max(1, matrix[:1].nbytes))
    if mask is not None:  # rows that do not pass are not read
        step = min(SCANNED_MASK, step * part.size // max(1, passing))
    if len(matrix) <= step:
        collector.scan(matrix, norms, mask, first)
        return
    for some in slices(len(matrix), step, view.check):
        chosen = None if mask is None else mask[some]
        collector.scan(matrix[some], norms[some], chosen, first + some.start)


def _scan_first_time(
    view: CollectionView,
    part: SegmentPart,
    column: Column,
    collector: Collector,
    mask: np.ndarray | None,
    first: int,
) -> None:
    """E2."""
    norms = part.segment.per_row("norms", column.id)
    for start, rows in part.segment.matrix_chunks(column):
        view.check()
        stop = start + len(rows)
        chosen = None if mask is None else mask[start:stop]
        collector.scan(rows, norms[start:stop], chosen, first + start)
