"""Absorbing: a merged segment takes the lists of its largest source, without training.

    sources --ordinal maps--> rows of the base keep their codes; the others are assigned and coded
    centroids of the base --> follow the rows of their lists (`compute.hrm2.following`)
    table of patience, real queries of the base --> taken over; the table as long as rows that came
        are found as it promises (`index.recalibration`)
    h.trained   f64[4]: rows when the centroids were trained, rows that came and rows that went
                since, mean squared distance of the first from their centroids; absent where no row
                did, or in older files

Training and measuring a table takes fifty times as long a row. It is due where there are GROWN
times as many rows as the lists were made for, or as few. Lists that grow long are split on the way
(`compute.hrm2.absorbing`). Where an alarm of drift says that rows lie elsewhere, nothing is
absorbed: `index.merge_policy` leaves the segment alone.

Invariants
    AL1 What absorbs is trained anew in time: a merge beyond GROWN or MOST_GROWN has no base.
    AL2 `h.error` is that of the rows that are there, from the nearer of their lists;
        the baseline of drift stays the trained one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from m2mdb.compute.hrm2 import absorbing
from m2mdb.compute.hrm2.rotation import rotate
from m2mdb.index import hrm2, recalibration
from m2mdb.index.hrm2 import HEAD
from m2mdb.index.list_counts import list_count
from m2mdb.index.query_log import QUERIES, SCALES
from m2mdb.index.routing import stored_error
from m2mdb.index.scratch import Scratch
from m2mdb.index.values import VectorData
from m2mdb.pager.errors import CorruptDatabaseError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from m2mdb.index.schema import CollectionSchema, Column
    from m2mdb.index.segment import NamedPart, Segment
    from m2mdb.index.values import StoredColumn

TRAINED = "h.trained"
GROWN = 1.5  # times the rows that centroids were trained for: longer lists cost a tenth more
MOST_GROWN = 4.0  # the same where training anew is more than a commit may do


class Trained(NamedTuple):
    """For which rows centroids were trained, and what became of these."""

    rows: float
    came: float
    went: float
    error: float


class Base(NamedTuple):
    """The source whose lists a merged segment takes; the new ordinal of each row, -1: none."""

    segment: Segment
    numbers: np.ndarray


def trained(segment: Segment, column: Column) -> Trained:
    """What a segment's lists of a column were trained for.

    Raises CorruptDatabaseError where the part cannot say it.
    """
    if not segment.has(TRAINED, column.id):
        rows = float(segment.array(HEAD, column.id)[5])
        return Trained(rows, 0.0, 0.0, stored_error(segment, column))
    array = segment.array(TRAINED, column.id)
    good = len(array) == len(Trained._fields) and np.isfinite(array).all() and array.min() >= 0
    if not good:
        raise CorruptDatabaseError(
            f"segment {segment.id}, column {column.name}, part {TRAINED}: {array.tolist()[:8]}"
        )
    return Trained(*array.tolist())


def is_changed(segment: Segment, column: Column) -> bool:
    """Whether rows came or went since the lists were trained."""
    found = trained(segment, column)
    return found.came + found.went > 0


def bases_for(
    schema: CollectionSchema,
    chosen: Sequence[Segment],
    maps: Sequence[np.ndarray],
    stored: Sequence[StoredColumn],
    trained_bytes: int,
) -> dict[int, Base]:
    """By column, the source whose lists a merged segment takes; others are trained (AL1).

    maps           of each source the new ordinals of its rows
    stored         the columns of the merged segment
    trained_bytes  vectors of so many bytes may be trained where lists hardly fit
    """
    found = {}
    for index in schema.vector_columns:
        values = stored[index]
        assert isinstance(values, VectorData)
        sources = [Base(*each) for each in zip(chosen, maps, strict=True)]
        base = _base_for(schema.columns[index], sources, values, trained_bytes)
        if base is not None:
            found[index] = base
    return found


def _base_for(
    column: Column, sources: Sequence[Base], values: VectorData, trained_bytes: int
) -> Base | None:
    present = np.ones(len(values), bool) if values.present is None else values.present
    able = [each for each in sources if each.segment.has(HEAD, column.id)]
    if not able:
        return None
    stay = [int(np.count_nonzero(present[base.numbers[base.numbers >= 0]])) for base in able]
    at = int(np.argmax(stay))
    rows = int(np.count_nonzero(present))
    may_train = rows * values.matrix[:1].nbytes <= trained_bytes
    limit = MOST_GROWN if rows < hrm2.LEAST_MEASURED or not may_train else GROWN
    fitting = trained(able[at].segment, column).rows
    fits = fitting / limit <= rows <= fitting * limit
    return able[at] if fits and stay[at] * 2 >= rows else None


def absorbed_parts(
    column: Column,
    values: VectorData,
    base: Base,
    scratch: Scratch,
    least: int,
    wanted: int | None = None,
    *,
    measured: bool = True,
) -> list[NamedPart]:
    """The lists of a column's values as parts, around the base's centroids, which follow the rows.

    None where there are fewer than `least`, where a build would make none, or where rows are not
    what these lists can hold. `wanted` is how many lists the column's index asks for.
    `measured`: a table that no longer keeps its promises may be measured anew.
    """
    found = base.segment.lists(column)
    assert found is not None, "the base has lists"
    present = np.ones(len(values), bool) if values.present is None else values.present
    chosen = np.flatnonzero(present)
    stay = np.zeros(len(values), bool)
    stay[base.numbers[base.numbers >= 0]] = True
    if len(chosen) < least or not hrm2.is_searchable(column, values, chosen):
        return []
    come = np.flatnonzero(present & ~stay)

    def turned(rows: np.ndarray) -> np.ndarray:
        out = rotate(rows, found.lists.width, found.seed)
        return out if found.lists.middle is None else out - found.lists.middle

    def rotated(ordinals: np.ndarray) -> np.ndarray:
        out = scratch.array((len(ordinals), found.lists.width), np.float32)
        for some in scratch.chunks(len(ordinals), 8 * found.lists.width):
            out[some] = turned(hrm2.searched_rows(column, values.matrix, ordinals[some]))
        return out

    lists = absorbing.absorb(
        found.lists,
        absorbing.Staying(base.numbers.astype(np.int32), rotated, turned),
        absorbing.Coming(rotated(come), come.astype(np.int32)),
        len(chosen) / list_count(len(chosen), wanted),
        column.metric,
        scratch.array,
        scratch.tick,
    )
    if lists.vectors is not None:
        in_place = hrm2.in_place(column, values)
        assert in_place is not None, "old lists of this column are compared in place"
        scales = in_place.scales[lists.ordinals]
        lists = lists._replace(vectors=in_place.vectors, scales=scales)
    before = trained(base.segment, column)
    went = len(found.lists.ordinals) + len(come) - len(lists.ordinals)
    after = before._replace(came=before.came + len(come), went=before.went + went)
    table = found.table
    if measured and recalibration.is_due(before.came, after.came, len(chosen)):
        table = recalibration.table_kept(column, values, lists, base.segment, come, scratch)
    parts = hrm2.parts_of(column, lists, table, absorbing.mean_square(lists))
    parts.append((TRAINED, column.id, np.array(after, np.float64)))
    for name in (QUERIES, SCALES):
        if base.segment.has(name, column.id):
            parts.append((name, column.id, base.segment.array(name, column.id)))
    return parts
