"""HRM2: the lists of a segment's vectors, as parts of an extent of their own.

    vectors --unit length under cosine--> train, assign, rotate, code --> parts --> extent
    extent --> parts --checked--> Lists, table of patience --> Searcher

A segment with LEAST_ROWS vectors or more, or LEAST_BESIDE beside such a one, may have lists for a
column: centroids, 1-bit and 8-bit codes, and how long a search has to probe for a recall. All
belong to the segment alone, so a segment with lists is as immutable as one without, and rewriting
it makes them anew. They stand in a further extent of the segment, one for each column, and come and
go without the rows.

    part              items
    h.head            u32[8]: version, seed of the rotation, width, lists, blocks of codes, rows,
                      points of k and of recall in the table
    h.centers ...     the arrays of `compute.hrm2.lists.Lists`, by their names; positions and
                      ordinals as u32 (2**32 - 1: no code); in version 2, which is that of columns
                      of float16 and int8, neither bytes8 nor scales: the segment has the vectors
    h.patience        f32: the points of k, those of recall, then the patience of the hardest
                      queries, k by k; for readers that know no h.effort
    h.effort          f32: how many shares, points of k, points of recall and ranges of hardness;
                      the first three of these; then the first three arrays of `patience.Table`;
                      absent in older files
    h.middle          f32[width]: what was taken off all rotated rows and centroids, in version 3
    h.epsilon, h.rules    f32: the fourth and the fifth array of it; absent in older files
    h.queries, h.query_scales   real queries, see `index.query_log`; absent where there are none
    h.error           f32[1]: mean squared distance of the rows from their first lists' centroids
                      when these were trained, the baseline of `index.drift`; absent in older files
    h.trained         what these were trained for, where other rows came since: `index.absorbing`

Invariants
    HL1 Every row that is not NULL stands in the lists.
    HL2 No kernel is given an array, or a number to index one by, that was not checked here: shapes
        agree, blocks and rows are within their arrays, floats are finite and so small that no sum
        or product of a search leaves float32.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from m2mdb.compute.hrm2 import calibration, patience
from m2mdb.compute.hrm2.lists import BLOCK, InPlace, Lists, padded
from m2mdb.compute.hrm2.lists import build as build_lists
from m2mdb.compute.hrm2.outliers import without_middle
from m2mdb.compute.hrm2.reference import HARD, MANY_LISTS, Stop
from m2mdb.compute.hrm2.rotation import rotate
from m2mdb.compute.hrm2.routes import codes_and_lengths
from m2mdb.compute.hrm2.spilling import sparing
from m2mdb.compute.hrm2.training import assign, train
from m2mdb.compute.loader import LOADER
from m2mdb.index.costs import Size, budgeted
from m2mdb.index.list_counts import list_count
from m2mdb.index.needs import newer
from m2mdb.index.query_log import query_parts
from m2mdb.index.schema import VECTOR_DTYPES
from m2mdb.index.scratch import Scratch
from m2mdb.pager.errors import CorruptDatabaseError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from m2mdb.compute.hrm2.searcher import Found, FoundBatch, Searcher
    from m2mdb.compute.hrm2.searcher import Scratch as ListScratch
    from m2mdb.index.effort import Effort
    from m2mdb.index.schema import Column
    from m2mdb.index.segment import NamedPart, Segment
    from m2mdb.index.values import VectorData

PREFIX = "h."
HEAD = "h.head"
VERSIONS = VERSION, IN_PLACE, AROUND = 1, 2, 3  # with 8-bit codes; without; with, around a middle
SEED = 0x6D326D
LEAST_ROWS = 2048  # fewer are scanned in the time that a search of lists takes to begin
LEAST_BESIDE = 512  # the same beside a segment with lists, where a search has begun already
MOST_DIMENSIONS = 4096  # the rotation of a build is a matrix of so many squared
LARGEST = 1e12  # length of a vector under l2 and ip; see HL2
SMALLEST = 1e-2  # of the longest one: how recall is measured has tolerances for no shorter ones
LEAST_MEASURED = 8192  # rows for which it pays to measure how long to probe; fewer: cautiously
TICK_SECONDS = 0.02  # of waiting for kernels between two looks for an interrupt
WAIT_SECONDS = 120.0  # that a build waits for the kernels that measure its table
KEPT_STOPS = 256  # of one set of lists; all go when there are more
STEPS, MOST_STEPS = 4, 80  # to half of the rows that pass; what is planned is planned for a step
MOST_EPSILON = 100.0  # of a table: beyond it no bound leaves any row out
_LARGEST_SQUARE = 1e26
_LARGEST_FACTOR = 1e17
_LARGEST_TERM = 1e31
_CHUNK, _BLOCKS = 8192, 512


# ------------------------------------------------------------------------- building


def least_rows(segments: Iterable[Segment], column: Column) -> int:
    """Vectors, fewer than which get no lists beside these segments."""
    beside = any(each.rows >= LEAST_ROWS and each.has(HEAD, column.id) for each in segments)
    return min(LEAST_ROWS, LEAST_BESIDE) if beside else LEAST_ROWS


def lists_parts(
    column: Column,
    values: VectorData,
    *,
    measured: bool = True,
    scratch: Scratch | None = None,
    queries: np.ndarray | None = None,
    least: int | None = None,
    wanted: int | None = None,
) -> list[NamedPart]:
    """The lists of a column's values as parts; none where they would be of no use.

    least     vectors, fewer than which get none; None: LEAST_ROWS
    wanted    how many lists its index asks for; None: as many as the rows are worth
    measured  whether compiled kernels may be waited for, to measure how long to probe
    scratch   where large arrays stand meanwhile; without it in memory
    queries   real ones, to measure by and to store (`index.query_log`)
    """
    scratch = scratch or Scratch()
    chosen = np.arange(len(values)) if values.present is None else np.flatnonzero(values.present)
    if len(chosen) < (least or LEAST_ROWS) or not is_searchable(column, values, chosen):
        return []
    rows = _rows_in(scratch, column, values.matrix, chosen)
    width = padded(column.dimension)
    scratch.stage("training")
    router = train(rows, list_count(len(rows), wanted), SEED, scratch.tick)
    scratch.stage("assigning")
    first, second = assign(router, rows, spill=True, tick=scratch.tick)
    error = mean_error(scratch, router.centers, rows, first)
    if second is not None:
        second = sparing(rows, router.centers, first, second, scratch.tick)
    numbers = np.arange(len(rows), dtype=np.int32)
    scratch.stage("coding")
    rotated = scratch.array((len(rows), width), np.float32)
    for some in scratch.chunks(len(rows), 16 * width):  # a product takes longer than a copy
        rotated[some] = rotate(rows[some], width, SEED)
    centers = rotate(router.centers, width, SEED)
    narrow = in_place(column, values)
    middle = None
    if narrow is None and column.metric != "ip":
        middle = without_middle(rows, SEED, (rotated, centers), scratch.tick)
    built_from = narrow
    if narrow is not None and len(chosen) < len(values):
        built_from = InPlace(narrow.vectors[chosen], narrow.scales[chosen])
    lists = build_lists(
        rotated, numbers, centers, first, second, column.metric, scratch.array, scratch.tick,
        built_from,
    )._replace(middle=middle)  # fmt: skip
    del rotated
    table = table_of(lists, rows, column.metric, (scratch, queries), measured=measured)
    vectors = None if narrow is None else narrow.vectors
    lists = lists._replace(ordinals=chosen[lists.ordinals].astype(np.int32), vectors=vectors)
    return parts_of(column, lists, table, error) + query_parts(column, queries)


def in_place(column: Column, values: VectorData) -> InPlace | None:
    """What rows are compared by in the place of 8-bit codes; None for a column of float32.

    A vector of half the bytes, or a quarter, needs none: it would stand in the file nearly twice.
    """
    if values.matrix.dtype == np.float32:
        return None
    return InPlace(values.matrix, _scales_in_place(column, values.norms))


def _scales_in_place(column: Column, norms: np.ndarray) -> np.ndarray:
    """float32: what makes each stored vector the one that is searched."""
    if column.metric != "cosine":
        return np.ones(len(norms), np.float32)
    scales = np.zeros(len(norms), np.float32)
    np.divide(np.float32(1), norms, out=scales, where=norms > 0)
    return scales


def is_searchable(column: Column, values: VectorData, chosen: np.ndarray) -> bool:
    """Whether some values of a column, one at least, can be searched by lists."""
    if column.dimension > MOST_DIMENSIONS:
        return False
    if column.metric == "cosine":
        return True
    return SMALLEST <= float(values.norms[chosen].max()) <= LARGEST


def recalibrated_parts(
    column: Column,
    values: VectorData,
    segment: Segment,
    queries: np.ndarray | None,
    scratch: Scratch,
) -> list[NamedPart]:
    """The lists that a segment has of a column, with a table measured anew.

    queries  real ones, to measure by and to store; None where none are known
    scratch  where large arrays stand meanwhile
    """
    found = segment.lists(column)
    assert found is not None, "the segment has lists"
    lists, rows, _ = numbered(column, values, found.lists, scratch)
    table = table_of(lists, rows, column.metric, (scratch, queries), measured=True)
    name = PREFIX + "error"
    error = float(segment.array(name, column.id)[0]) if segment.has(name, column.id) else None
    return parts_of(column, found.lists, table, error) + query_parts(column, queries)


def numbered(
    column: Column, values: VectorData, lists: Lists, scratch: Scratch
) -> tuple[Lists, np.ndarray, np.ndarray]:
    """Lists of rows that are numbered on; these rows as they are searched; and their ordinals."""
    chosen = np.sort(lists.ordinals).astype(np.int64)
    rows = _rows_in(scratch, column, values.matrix, chosen)
    numbers = np.searchsorted(chosen, lists.ordinals).astype(np.int32)
    if lists.vectors is not None and len(chosen) < len(lists.vectors):
        lists = lists._replace(vectors=lists.vectors[chosen])
    return lists._replace(ordinals=numbers), rows, chosen


def _rows_in(
    scratch: Scratch, column: Column, matrix: np.ndarray, chosen: np.ndarray
) -> np.ndarray:
    """`searched_rows` in scratch; the matrix itself where it is what is searched."""
    is_whole = len(chosen) == len(matrix) and matrix.dtype == np.float32
    if is_whole and column.metric != "cosine":
        return matrix
    out = scratch.array((len(chosen), matrix.shape[1]), np.float32)
    for some in scratch.chunks(len(chosen), 8 * matrix.shape[1]):
        out[some] = searched_rows(column, matrix, chosen[some])
    return out


def mean_error(scratch: Scratch, centers: np.ndarray, rows: np.ndarray, first: np.ndarray) -> float:
    """The mean squared distance of rows from the centroids of their lists: quantisation error."""
    total = 0.0
    for some in scratch.chunks(len(rows), 8 * rows.shape[1]):
        gap = rows[some] - centers[first[some]]
        total += float(np.einsum("ij,ij->i", gap, gap).sum(dtype=np.float64))
    return total / max(1, len(rows))


def searched_rows(column: Column, matrix: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """float32 (chosen, dimension): rows as they are searched, of length 1 under cosine."""
    out = np.empty((len(chosen), matrix.shape[1]), np.float32)
    for start in range(0, len(chosen), _CHUNK):
        some = matrix[chosen[start : start + _CHUNK]]
        if column.metric == "cosine":
            wide = some.astype(np.float64)
            lengths = np.sqrt(np.einsum("ij,ij->i", wide, wide))
            wide /= np.where(lengths > 0, lengths, 1)[:, None]
            some = wide
        out[start : start + _CHUNK] = some
    return out


def searched_query(query: np.ndarray, metric: str) -> np.ndarray | None:
    """A checked query as lists are searched for it; None where it is too long for them (HL2)."""
    wide = query.astype(np.float64)
    length = float(np.sqrt(np.add.reduce(wide * wide)))  # as `ranking_kernels.unit` adds
    if metric == "cosine":
        return (wide / length).astype(np.float32)
    return query if length <= LARGEST else None


def table_of(
    lists: Lists,
    rows: np.ndarray,
    metric: str,
    how: tuple[Scratch, np.ndarray | None],
    *,
    measured: bool,
) -> patience.Table:
    """The table of patience: measured, or where there are no kernels a cautious one.

    how  where large arrays stand, and real queries
    """
    scratch, queries = how
    if measured and len(rows) >= LEAST_MEASURED and has_kernels(scratch.tick):
        from m2mdb.compute.hrm2.searcher import Searcher

        searcher = Searcher(lists, metric, SEED)
        scratch.stage("measuring")
        return calibration.calibrate(searcher, rows, SEED, queries, tick=scratch.tick)
    return patience.cautious_table(len(lists.center_scales))


def has_kernels(tick: Callable[[], None]) -> bool:
    """Wait for the compiled kernels; whether there are any."""
    for _ in range(round(WAIT_SECONDS / TICK_SECONDS)):
        tick()
        if LOADER.wait(TICK_SECONDS):
            return True
        if LOADER.error is not None:
            break
    return False


_POINTS = (patience.SHARES, patience.KS, patience.RECALLS)
_EFFORT_HEAD = np.array([*map(len, _POINTS), HARD, *itertools.chain(*_POINTS)], np.float32)


def parts_of(
    column: Column, lists: Lists, table: patience.Table, error: float | None
) -> list[NamedPart]:
    """Lists and their table as parts; `error` is the quantisation error, if it is known."""
    points = (patience.KS, patience.RECALLS)
    version = VERSION if lists.middle is None else AROUND
    version = version if lists.vectors is None else IN_PLACE
    head = np.array(
        [version, SEED, lists.width, len(lists.center_scales), len(lists.positions),
         len(lists.ordinals), len(points[0]), len(points[1])], np.uint32,
    )  # fmt: skip
    hardest = table.patience[0, :, :, -1]
    flat = np.concatenate([*points, hardest.ravel()]).astype(np.float32)
    arrays: dict[str, Any] = {**lists._asdict(), "patience": flat}
    arrays["effort"] = np.concatenate([_EFFORT_HEAD, *(each.ravel() for each in table[:3])])
    arrays["epsilon"] = table.epsilon.ravel()
    if table.rules is not None:
        arrays["rules"] = table.rules.ravel()
    arrays["factors"] = lists.factors.ravel()
    arrays["positions"] = lists.positions.ravel().view(np.uint32)
    arrays["ordinals"] = lists.ordinals.view(np.uint32)
    if lists.vectors is not None:
        del arrays["bytes8"], arrays["scales"], arrays["vectors"]
    if error is not None:
        arrays["error"] = np.array([min(error, 1e30)], np.float32)
    there = [each for each in arrays.items() if each[1] is not None]
    return [(HEAD, column.id, head), *((PREFIX + name, column.id, array) for name, array in there)]


# ------------------------------------------------------------------------- reading


class SegmentLists:
    """The lists of one segment and column, checked (HL2)."""

    __slots__ = ("_row_bytes", "_searcher", "_stops", "lists", "metric", "seed", "table")

    def __init__(self, segment: Segment, column: Column) -> None:
        """Raises CorruptDatabaseError where the parts cannot be lists."""
        reader = _Reader(segment, column)
        self.metric = column.metric
        self.seed, self.lists = reader.lists()
        self.table = reader.table()
        self._searcher: Searcher | None = None
        self._stops: dict[tuple[int, float, int], Stop | None] = {}
        self._row_bytes = column.dimension * np.dtype(VECTOR_DTYPES[column.dtype]).itemsize

    @property
    def count(self) -> int:
        """How many lists there are."""
        return len(self.lists.center_scales)

    @property
    def rows(self) -> int:
        """Rows that the lists lead to."""
        return len(self.lists.ordinals)

    def stop(self, k: int, matches: int, effort: Effort) -> Stop | None:
        """When to stop probing for k rows where so many pass a mask, and what probing may cost.

        None: every row must be compared, to find the recall or because it is faster.
        """
        if effort.probes is not None:
            most = min(effort.probes, self.count)
            return Stop(k, most, 0, most, 0.0)
        if matches <= k:
            return None
        step = min(MOST_STEPS, round(STEPS * math.log2(max(1.0, self.rows / matches))))
        key = k, effort.recall, step
        try:
            return self._stops[key]
        except KeyError:
            if len(self._stops) >= KEPT_STOPS:
                self._stops.clear()
            found = self._stops[key] = self._planned(k, effort.recall, 2 ** (-step / STEPS))
            return found

    def _planned(self, k: int, recall: float, share: float) -> Stop | None:
        found = patience.stop_for(self.table, k, recall, share)
        if found is None:
            return None
        size = Size(self.count, self.lists.width, self.rows, self._row_bytes)
        return budgeted(found, size, patience.work_for(self.table, k, recall, share), share)

    def clusters(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each list: its codes, and the mean length of their residuals (float32)."""
        return codes_and_lengths(self.lists)

    def search(self, query: np.ndarray, stop: Stop, mask: np.ndarray | None) -> Found:
        """Candidates of a `searched_query`; the kernels are loaded."""
        wanted = stop.k + patience.spare(stop.k)
        return self._ready().search(query, stop, wanted=wanted, epsilon=stop.epsilon, mask=mask)

    def run(self, query: np.ndarray, stop: Stop, mask: np.ndarray | None) -> ListScratch:
        """As `search`; what was found stays in scratch, which has to be given back."""
        wanted = stop.k + patience.spare(stop.k)
        return self._ready().run(query, stop, wanted=wanted, epsilon=stop.epsilon, mask=mask)

    def scratch(self, stop: Stop, *, is_own: bool = True, live: Any = None) -> ListScratch:
        """What `run` searches in, for one caller alone: for good, or until `give_back`."""
        lists, wanted = self._ready(), stop.k + patience.spare(stop.k)
        return lists.own_scratch(wanted, live) if is_own else lists.borrow(wanted)

    def run_many(self, queries: np.ndarray, stop: Stop, mask: np.ndarray | None) -> FoundBatch:
        """Candidates of each of the `searched_query`s, float32 (m, dimension)."""
        wanted = stop.k + patience.spare(stop.k)
        return self._ready().search_batch(
            queries, stop, wanted=wanted, epsilon=stop.epsilon, mask=mask
        )

    def give_back(self, scratch: ListScratch) -> None:
        """What `run` gave is not needed any more."""
        self._ready().give_back(scratch)

    def _ready(self) -> Searcher:
        searcher = self._searcher
        if searcher is None:
            from m2mdb.compute.hrm2.searcher import Searcher

            searcher = self._searcher = Searcher(self.lists, self.metric, self.seed)
        return searcher


class _Reader:
    """Takes the parts of one column's lists, and refuses what kernels must not see."""

    def __init__(self, segment: Segment, column: Column) -> None:
        self._segment = segment
        self._column = column
        head = self._array("head", 8).astype(np.int64).tolist()
        version, self.seed, self.width, self.count, self.blocks, self.rows = head[:6]
        self._points = (head[6], head[7])
        if version > AROUND:
            where = f"segment {segment.id}, column {column.name}"
            raise newer(where, f"lists of version {version}, it reads {AROUND}")
        self._in_place, self._is_around = version == IN_PLACE, version == AROUND
        is_wide = column.dtype == "f32"
        may_be_around = is_wide and column.metric != "ip"
        may_be_other = may_be_around if self._is_around else self._in_place and not is_wide
        self._expect("head", version == VERSION or may_be_other, f"lists of version {version}")
        width = padded(column.dimension)
        self._expect("head", self.width == width, f"a width of {self.width}, expected {width}")
        fits = 1 <= self.rows <= segment.rows and column.dimension <= MOST_DIMENSIONS
        self._expect("head", fits, f"{self.rows} rows of {column.dimension} dimensions")
        self._expect("head", 1 <= self.count <= self.rows, f"{self.count} lists")
        most = 2 * self.rows + self.count  # a row has two codes at most, a block one at least
        self._expect("head", 1 <= self.blocks <= most, f"{self.blocks} blocks")

    def _expect(self, part: str, holds: bool, found: str) -> None:
        if not holds:
            raise CorruptDatabaseError(
                f"segment {self._segment.id}, column {self._column.name}, part {PREFIX}{part}: "
                f"{found}"
            )

    def _array(self, name: str, items: int) -> np.ndarray:
        """A verified part with that many items."""
        array = self._segment.array(PREFIX + name, self._column.id)
        self._expect(name, len(array) == items, f"{len(array)} items, expected {items}")
        return array

    def _floats(self, name: str, items: int, low: float, high: float) -> np.ndarray:
        """A verified part of numbers in a range; NaN is in none."""
        array = self._array(name, items)
        if len(array):
            smallest, largest = float(array.min()), float(array.max())
            is_within = low <= smallest and largest <= high
            self._expect(name, is_within, f"numbers from {smallest} to {largest}")
        return array

    def lists(self) -> tuple[int, Lists]:
        """The seed and the arrays that a search reads."""
        count, blocks, rows, width = self.count, self.blocks, self.rows, self.width
        positions, ordinals = self._positions(), self._ordinals()
        bytes8, scales, vectors = self._refining(ordinals)
        return self.seed, Lists(
            self._array("centers", count * width),
            self._floats("center_scales", count, 0, LARGEST),
            self._floats("center_squares", count, 0, _LARGEST_SQUARE),
            self._starts(),
            self._array("codes", blocks * 4 * width),
            self._factors(positions),
            positions,
            bytes8,
            scales,
            self._floats("squares", rows, 0, _LARGEST_SQUARE),
            ordinals,
            vectors,
            self._floats("middle", width, -LARGEST, LARGEST) if self._is_around else None,
        )

    def _refining(self, ordinals: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """8-bit codes and their scales; or none, scales of vectors, and these."""
        if not self._in_place:
            scales = self._floats("scales", self.rows, 0, LARGEST)
            return self._array("bytes8", self.rows * self.width), scales, None
        norms = self._segment.per_row("norms", self._column.id)[ordinals]
        fits = bool(np.isfinite(norms).all() and (norms >= 0).all())
        self._expect("ordinals", fits, "rows whose lengths are no numbers")
        matrix = self._segment.matrix(self._column)
        return np.empty(0, np.uint8), _scales_in_place(self._column, norms), matrix

    def _starts(self) -> np.ndarray:
        starts = self._array("starts", self.count + 1)
        ascend = bool((starts[1:] >= starts[:-1]).all())
        is_whole = int(starts[0]) == 0 and int(starts[-1]) == self.blocks
        self._expect("starts", ascend and is_whole, f"blocks that are not 0 to {self.blocks}")
        return starts

    def _positions(self) -> np.ndarray:
        positions = self._array("positions", self.blocks * BLOCK).view(np.int32)
        low, high = int(positions.min()), int(positions.max())
        is_within = low >= -1 and 0 <= high < self.rows
        self._expect("positions", is_within, f"positions {low} to {high} of {self.rows} rows")
        return positions.reshape(-1, BLOCK)

    def _factors(self, positions: np.ndarray) -> np.ndarray:
        """Finite where there is a code; infinite and without slope where there is none."""
        factors = self._array("factors", self.blocks * 3 * BLOCK).reshape(-1, 3, BLOCK)
        for start in range(0, len(factors), _BLOCKS):  # no large arrays: their memory stays
            some = factors[start : start + _BLOCKS]
            h, slopes = some[:, 0], some[:, 1:]
            empty = positions[start : start + _BLOCKS] < 0
            # a slope without a code would count in the spread of its list
            nothing = np.isposinf(h) & (slopes == 0).all(axis=1)
            good = np.where(empty, nothing, np.abs(h) <= _LARGEST_TERM).all()
            good &= ((slopes >= 0) & (slopes <= _LARGEST_FACTOR)).all()  # NaN is in neither
            self._expect("factors", bool(good), "numbers that no code has")
        return factors.reshape(-1, 3 * BLOCK)

    def _ordinals(self) -> np.ndarray:
        raw = self._array("ordinals", self.rows)
        self._check_rows("ordinals", raw)
        ordinals: np.ndarray = raw.view(np.int32)
        return ordinals

    def _check_rows(self, part: str, ordinals: np.ndarray) -> None:
        """Ordinals of the segment, each once, and of no NULL."""
        rows = self._segment.rows
        if not len(ordinals):
            return
        self._expect(part, ordinals.max() < rows, f"row {ordinals.max()} of {rows}")
        marks = np.zeros(rows, bool)
        marks[ordinals] = True
        if np.count_nonzero(marks) < len(ordinals):
            self._expect(part, False, f"row {int(np.bincount(ordinals).argmax())} twice")
        nulls = self._segment.nulls(self._column)
        if nulls is not None:
            self._expect(part, not marks[nulls != 0].any(), "a row that is NULL")

    def table(self) -> patience.Table:
        """The table of patience; a cautious one where its points are not those of this version."""
        ks, recalls = self._points
        self._expect("head", max(ks, recalls) <= 1000, f"{ks} times {recalls} points")
        array = self._floats("patience", ks + recalls + ks * recalls, 0, 1e9)
        points = np.array([*patience.KS, *patience.RECALLS], np.float32)
        is_known = (ks, recalls) == (len(patience.KS), len(patience.RECALLS))
        if not is_known or not np.array_equal(array[: ks + recalls], points):
            return patience.cautious_table(self.count)
        found = None
        if self._segment.has(PREFIX + "effort", self._column.id):
            found = self._effort()
        if found is not None:
            return found
        return patience.plain_table(np.maximum(1, array[ks + recalls :].reshape(ks, recalls)))

    def _effort(self) -> patience.Table | None:
        """The whole table; None where its points are not those of this version."""
        size = len(_EFFORT_HEAD)
        array = self._segment.array(PREFIX + "effort", self._column.id)
        if not np.array_equal(array[:size], _EFFORT_HEAD):
            return None
        shapes = patience.TABLE_SHAPES[:3]
        counts = [math.prod(shape) for shape in shapes]
        array = self._floats("effort", size + sum(counts), -1e31, 1e31)
        shaped = zip(np.split(array[size:], np.cumsum(counts)[:-1]), shapes, strict=True)
        arrays = [np.array(part.reshape(shape)) for part, shape in shaped]
        table = patience.Table(arrays[0], arrays[1], arrays[2], self._epsilon(), self._rules())
        for name, values in (("patience", table.patience), ("work", table.work)):
            low, high = float(values.min()), float(values.max())
            self._expect("effort", low >= 1 and high <= 1e9, f"{name} from {low} to {high}")
        return table

    def _epsilon(self) -> np.ndarray:
        """What bounds take off by recall; files of older versions have one for all."""
        shape = patience.TABLE_SHAPES[3]
        if not self._segment.has(PREFIX + "epsilon", self._column.id):
            return np.full(shape, patience.EPSILONS[0], np.float32)
        found = self._floats("epsilon", math.prod(shape), 0, MOST_EPSILON)
        return np.array(found.reshape(shape))

    def _rules(self) -> np.ndarray | None:
        """When searches of each recall end; None: as those of older versions do."""
        if not self._segment.has(PREFIX + "rules", self._column.id):
            return None
        shape = patience.RULES_SHAPE
        found = np.array(self._floats("rules", math.prod(shape), 0, MANY_LISTS).reshape(shape))
        fits = bool((found[:, :, :-1] <= 1).all() and (found[:, :, -1] >= 1).all())
        self._expect("rules", fits, "shares beyond 1, or no lists")
        return found
