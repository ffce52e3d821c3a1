"""Merged columns: what the rows of several segments are as the columns of a new one.

    keep    of each source segment, the ordinals of its rows that stay
    order   of these rows, one segment behind the other: the place of each in the new segment
    maps    of each source segment, the new ordinal of each old one, -1 where the row is gone

All is made slice by slice; `check` is called between slices, and may raise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from m2mdb.index.schema import VECTOR_DTYPES, Column
from m2mdb.index.segment import TEXT_PREFIX, NamedPart, Segment
from m2mdb.index.slices import SLICE_NUMBERS, Check, joined, picked, slices, taken
from m2mdb.index.values import StoredColumn, VectorData

if TYPE_CHECKING:
    from m2mdb.index.scratch import Scratch


def inverse_of(order: np.ndarray, check: Check) -> np.ndarray:
    """int64: where each of 0, 1, … stands in an order of them."""
    position = np.empty(len(order), np.int64)
    for some in slices(len(order), SLICE_NUMBERS, check):
        position[order[some]] = np.arange(some.start, some.stop)
    return position


def ordinal_maps(
    chosen: Sequence[Segment], keep: Sequence[np.ndarray], order: np.ndarray, check: Check
) -> list[np.ndarray]:
    """For each source segment: new ordinal of each old one, -1 where the row is gone."""
    position = inverse_of(order, check)
    maps, start = [], 0
    for segment, kept in zip(chosen, keep, strict=True):
        check()
        mapping = np.full(segment.rows, -1, np.int64)
        mapping[kept] = position[start : start + len(kept)]
        maps.append(mapping)
        start += len(kept)
    return maps


def merged_column(
    column: Column,
    chosen: Sequence[Segment],
    keep: Sequence[np.ndarray],
    order: np.ndarray,
    scratch: Scratch,
) -> StoredColumn:
    """One column's values of the rows in `keep` of each segment, put in order.

    scratch  where vectors stand that are too many for memory; its `tick` is the check
    """
    check = scratch.tick
    if not column.is_vector:
        values: list[Any] = []
        for segment, kept in zip(chosen, keep, strict=True):
            found = segment.values(column, check)
            is_whole = len(kept) == len(found)
            for some in slices(len(kept), SLICE_NUMBERS, check):
                values += found[some] if is_whole else picked(found, kept[some], check)
        is_ordered = bool((order[1:] > order[:-1]).all())
        return values if is_ordered else picked(values, order, check)
    matrix = _merged_matrix(column, chosen, keep, order, scratch)
    norms = [s.per_row("norms", column.id)[k] for s, k in zip(chosen, keep, strict=True)]
    nulls = [s.nulls(column) for s in chosen]
    present = None
    if any(n is not None for n in nulls):
        masks = [
            np.ones(len(k), bool) if n is None else n[k] == 0
            for n, k in zip(nulls, keep, strict=True)
        ]
        present = joined(masks, check)[order]
    return VectorData(matrix, taken(joined(norms, check), order, check), present)


class MergedColumns(Sequence[StoredColumn]):
    """All columns, each made when it is asked for; vectors are kept, other values are not."""

    def __init__(
        self,
        columns: Sequence[Column],
        chosen: Sequence[Segment],
        keep: Sequence[np.ndarray],
        order: np.ndarray,
        scratch: Scratch,
    ) -> None:
        """As `merged_column` takes them."""
        self._columns = columns
        self._rows = chosen, keep, order
        self._scratch = scratch
        self._vectors: dict[int, StoredColumn] = {}

    def __len__(self) -> int:
        return len(self._columns)

    @overload
    def __getitem__(self, at: int) -> StoredColumn: ...
    @overload
    def __getitem__(self, at: slice) -> list[StoredColumn]: ...
    def __getitem__(self, at: int | slice) -> StoredColumn | list[StoredColumn]:
        if isinstance(at, slice):
            return [self[each] for each in range(*at.indices(len(self)))]
        found = self._vectors.get(at)
        if found is None:
            found = merged_column(self._columns[at], *self._rows, self._scratch)
            if self._columns[at].is_vector:
                self._vectors[at] = found
        return found


def _merged_matrix(
    column: Column,
    chosen: Sequence[Segment],
    keep: Sequence[np.ndarray],
    order: np.ndarray,
    scratch: Scratch,
) -> np.ndarray:
    """The vectors of the rows in `keep`, put in order chunk by chunk.

    Those of the segment that gives most go to their places without a copy in between: where a
    place is another segment's it gets one of them first.
    """
    position = inverse_of(order, scratch.tick)
    matrix = scratch.array((len(order), column.dimension), VECTOR_DTYPES[column.dtype])
    starts = np.cumsum([0, *map(len, keep)])
    for at in np.argsort([-len(kept) for kept in keep], kind="stable").tolist():
        source, kept, places = chosen[at].matrix(column), keep[at], position[starts[at] :]
        if len(kept) * 2 > len(order):
            taken_from = np.zeros(len(order), np.int64)
            taken_from[places[: len(kept)]] = kept
            for some in scratch.chunks(len(order), source[:1].nbytes):
                np.take(source, taken_from[some], axis=0, out=matrix[some], mode="clip")
            continue
        for some in scratch.chunks(len(kept), source[:1].nbytes):
            matrix[places[some]] = source[kept[some]]
    return matrix


def merged_text(
    column: Column, chosen: Sequence[Segment], maps: Sequence[np.ndarray], check: Check
) -> list[NamedPart]:
    """The inverted lists of the rows that `maps` give a new ordinal."""
    from m2mdb.index.text import postings

    size = sum(int(np.count_nonzero(mapping >= 0)) for mapping in maps)
    merged = postings.merge([segment.text(column) for segment in chosen], list(maps), size, check)
    return [(TEXT_PREFIX + name, column.id, part) for name, part in merged.items()]
