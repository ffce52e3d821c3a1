"""Integrity of lists: every vector is where it belongs, and its codes are those of its values.

    places       each row with a vector has one position, which stands in one or two lists
    8-bit codes  against the vectors, rotated again
    1-bit codes  bits and factors against the 8-bit codes of rows and centroids

A rotation's sums may differ in their last bits from one processor to the next, and centroids are
stored in 8 bits alone, so numbers are compared with a tolerance: half a step of the codes that
take part. Codes of another vector, which is what staleness is, are farther off than that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from m2mdb.compute.hrm2.absorbing import mean_square
from m2mdb.compute.hrm2.lists import BLOCK, SLOTS, Lists
from m2mdb.compute.hrm2.rotation import rotate
from m2mdb.index.hrm2 import SegmentLists, searched_rows
from m2mdb.index.routing import stored_error
from m2mdb.index.slices import Check, slices, unchecked

if TYPE_CHECKING:
    from m2mdb.index.schema import Column
    from m2mdb.index.segment import Segment

CHUNK = 2048  # rows, or codes, that are compared at a time
STEP = 0.51  # of a code's step: how far a number may be from its code
ERROR = 0.1  # relative: the shorter residual is not always that of the first list
LOOSE = 1e-3  # relative, for sums of many numbers


def list_faults(
    segment: Segment, column: Column, check: Check = unchecked, *, quick: bool = False
) -> Iterator[str]:
    """What is wrong with the lists of a column, if it has any.

    check  called between slices of the work; it may raise

    Raises CorruptDatabaseError where the parts cannot be lists at all.
    """
    found = segment.lists(column)
    if found is None or quick:
        return
    yield from _place_faults(segment, column, found)
    yield from _error_faults(segment, column, found)
    check()
    yield from _row_faults(segment, column, found, check)
    yield from _code_faults(column, found, check)


def _place_faults(segment: Segment, column: Column, found: SegmentLists) -> Iterator[str]:
    lists = found.lists
    placed = np.zeros(segment.rows, np.int64)
    placed[lists.ordinals] += 1
    nulls = segment.nulls(column)
    expected = 1 if nulls is None else (nulls == 0).astype(np.int64)
    wrong = np.flatnonzero(placed != expected)
    if len(wrong):
        yield f"row {wrong[0]} stands {placed[wrong[0]]} times in the lists"
    there = lists.positions >= 0
    positions = lists.positions[there]
    times = np.bincount(positions, minlength=len(lists.ordinals))
    wrong = np.flatnonzero((times < 1) | (times > 2))
    if len(wrong):
        yield f"position {wrong[0]} has {times[wrong[0]]} codes"
    owners = np.broadcast_to(_owners(lists)[:, None], there.shape)[there]
    pairs = owners.astype(np.int64) * len(lists.ordinals) + positions
    if len(np.unique(pairs)) != len(pairs):
        yield "a row stands in one list twice"


def _error_faults(segment: Segment, column: Column, found: SegmentLists) -> Iterator[str]:
    """The baseline of drift, against the lengths of the shorter residual of each row."""
    stored = stored_error(segment, column)
    if not stored:
        return
    lists = found.lists
    error = mean_square(lists)
    scale = float(lists.squares.mean())
    if not abs(error - stored) <= ERROR * max(error, stored) + LOOSE * scale:
        yield f"the quantisation error is said to be {stored:.6g}, and is {error:.6g}"


def _owners(lists: Lists) -> np.ndarray:
    """The list of each block."""
    return np.repeat(np.arange(len(lists.starts) - 1), np.diff(lists.starts))


def _row_faults(
    segment: Segment, column: Column, found: SegmentLists, check: Check
) -> Iterator[str]:
    lists, matrix = found.lists, segment.matrix(column)
    width = lists.width
    for some in slices(len(lists.ordinals), CHUNK, check):
        ordinals = lists.ordinals[some]
        decoded, steps = None, np.zeros(len(ordinals), np.float32)
        if lists.vectors is None:
            numbers = np.arange(some.start, some.stop)
            decoded, steps = _decoded(lists.bytes8, lists.scales, numbers)
        with np.errstate(all="ignore"):  # what is not finite is said of the vectors
            rows = rotate(searched_rows(column, matrix, ordinals), width, found.seed)
            lengths = np.einsum("ij,ij->i", rows, rows)
            if lists.middle is not None:
                rows -= lists.middle
            squares = np.einsum("ij,ij->i", rows, rows)
            room = STEP * steps + 1e-5 * np.sqrt(lengths) + 1e-30
            slack = 1e-5 * np.sqrt(lengths * squares) if lists.middle is not None else 0
            wrong = np.zeros(len(ordinals), bool)
            if decoded is not None:
                wrong = (np.abs(decoded - rows) > room[:, None]).any(axis=1)
            wrong |= np.abs(squares - lists.squares[some]) > LOOSE * squares + slack + 1e-30
        if wrong.any():
            yield f"the 8-bit codes of row {ordinals[wrong.argmax()]} are not of its vector"
            return


def _decoded(
    raw: np.ndarray, scales: np.ndarray, numbers: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Some rows from their 8-bit codes, and the step of each one's code."""
    codes = raw.reshape(len(scales), -1)[numbers].astype(np.float32) - np.float32(128)
    steps = scales[numbers]
    return codes * steps[:, None], steps


def _rotated(
    column: Column, found: SegmentLists, positions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rows at some positions as lists know them, and the step of each one's code."""
    lists = found.lists
    if lists.vectors is None:
        return _decoded(lists.bytes8, lists.scales, positions)
    with np.errstate(all="ignore"):
        rows = searched_rows(column, lists.vectors, lists.ordinals[positions])
        turned = rotate(rows, lists.width, found.seed)
    return turned, np.zeros(len(positions), np.float32)


def _code_faults(column: Column, found: SegmentLists, check: Check) -> Iterator[str]:
    lists = found.lists
    owners = _owners(lists)
    blocks = max(1, CHUNK // BLOCK)
    for some in slices(len(lists.positions), blocks, check):
        start = some.start
        there = lists.positions[some] >= 0
        block, slot = np.nonzero(there)
        rows, row_steps = _rotated(column, found, lists.positions[some][there])
        centers, steps = _decoded(lists.centers, lists.center_scales, owners[start + block])
        wrong = _differ(
            lists, found.metric, (start + block, slot), (rows, centers), row_steps + steps
        )
        if wrong.any():
            at = int(wrong.argmax())
            yield (
                f"the 1-bit code of position {lists.positions[start + block[at], slot[at]]} in "
                f"list {owners[start + block[at]]} is not of its vector"
            )
            return


def _differ(
    lists: Lists,
    metric: str,
    places: tuple[np.ndarray, np.ndarray],
    values: tuple[np.ndarray, np.ndarray],
    steps: np.ndarray,
) -> np.ndarray:
    """Which codes cannot be of their row and centroid; `steps` of the 8-bit codes of the two."""
    block, slot = places
    rows, centers = values
    width = lists.width
    residual = rows - centers
    signs = _signs(lists, block, SLOTS[slot])
    room = STEP * steps
    wrong = ((signs != (residual > 0)) & (np.abs(residual) > room[:, None] + 1e-6)).any(axis=1)
    h, f, e = (lists.factors[block, index * BLOCK + slot] for index in range(3))
    tilt = np.minimum(1, e * np.sqrt(width - 1) / np.maximum(f, np.float32(1e-30)))
    length = f * np.sqrt(1 - tilt * tilt) / 2
    size = np.sqrt(np.einsum("ij,ij->i", residual, residual))
    reach = room * np.sqrt(width) + LOOSE * (np.abs(rows).max(axis=1) * np.sqrt(width) + size)
    wrong |= np.abs(length - size) > reach
    if metric == "ip":
        wrong |= h != 0
    else:
        along = np.where(signs, centers, -centers).sum(axis=1) / np.sqrt(width)
        expected = length * length + f * along
        wrong |= np.abs(h - expected) > f * reach + LOOSE * (length * length + np.abs(f * along))
    out: np.ndarray = wrong
    return out


def _signs(lists: Lists, block: np.ndarray, lane: np.ndarray) -> np.ndarray:
    """bool (codes, width): the bits of codes, lane by lane of their blocks."""
    width = lists.width
    groups = lists.codes.reshape(-1, width // 4, 16)[block, :, lane % 16]
    nibbles = np.where((lane < 16)[:, None], groups & 15, groups >> 4)
    out: np.ndarray = (nibbles[:, :, None] >> np.arange(4, dtype=np.uint8) & 1).astype(bool)
    return out.reshape(len(block), width)
