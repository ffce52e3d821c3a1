"""Gathered: which searches under a kept mask compare its rows by codes that stand side by side.

    kept mask --search, search, ...--> the rows that pass are coded --search--> candidates

To code a row takes as long as to compare it some twenty times, so codes are made for a mask that
was searched under before (GATHER_AFTER, the oftener the more rows), and only of so many rows as
MOST_CODES holds. Which rows are found does not depend on it (GA1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from m2mdb.compute.gathering import Gathered, codes_size
from m2mdb.index.costs import MOST_CODES
from m2mdb.index.masks import MOST_GATHERED
from m2mdb.index.scanning import part_arrays

if TYPE_CHECKING:
    from types import ModuleType

    from m2mdb.index.collection import CollectionView, SegmentPart
    from m2mdb.index.masks import KeptMask

GATHER_AFTER = 4  # searches that compared the rows of a mask, and one more
GATHER_ROWS = 512  # for so many rows


def gathered(
    view: CollectionView,
    part: SegmentPart,
    column_index: int,
    mask: np.ndarray | None,
    kernels: ModuleType,
) -> Gathered | None:
    """The codes of the rows that pass, live ones allowed; None where a scan is due.

    mask  as `query.predicate.Filter.mask` gave it
    """
    kept = None if mask is None else part.kept_masks.of(mask)
    if kept is None:
        return None
    column_id = part.column_id(column_index)
    if column_id not in kept.gathered:
        kept.searches += 1
        if kept.searches >= GATHER_AFTER:
            _gather(view, part, column_index, kept, kernels)
    return known(part, column_index, mask)


def known(part: SegmentPart, column_index: int, mask: np.ndarray | None) -> Gathered | None:
    """`gathered` where they are made already."""
    kept = None if mask is None else part.kept_masks.of(mask)
    found = None if kept is None else kept.gathered.get(part.column_id(column_index))
    if found is not None:
        found.allow(part.live)
    return found


def _gather(
    view: CollectionView,
    part: SegmentPart,
    column_index: int,
    kept: KeptMask,
    kernels: ModuleType,
) -> None:
    """Code the rows of a mask, if it is time; note where they are too many."""
    column = view.schema.columns[column_index]
    present = part.present(column_index)
    mask = kept.mask if present is None else kept.mask & present
    count = int(np.count_nonzero(mask))
    size = codes_size(count, column.dimension)  # more than the codes, where these are short
    if count * column.dimension > MOST_CODES or size > MOST_GATHERED:
        kept.gathered[column.id] = None
    elif kept.searches >= GATHER_AFTER + count // GATHER_ROWS:
        part.kept_masks.make_room(size)
        matrix, _ = part_arrays(view, part, column_index)
        rows = np.flatnonzero(mask)
        made = Gathered(column.metric, matrix, rows, kernels, view.check)
        kept.gathered[column.id] = made


__all__ = ["gathered", "known"]
