"""Sparing: which blocks of a segment a scan may leave out, by its zone maps.

    zone maps --> each term: the blocks in which it may hold --> AND, OR --> windows of rows
    (`index.zones`)           (`query.predicate`)                              that are compared

A condition is asked before a row is read. What cannot be told from bounds is None: any block.

Invariants
    SP1 A block that is left out holds no row for which the condition is the wanted truth.
    SP2 Asking raises nothing that the scan would not: an error of a constant spares nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from m2mdb.index import parts
from m2mdb.index.collection import SegmentPart
from m2mdb.index.slices import SLICE_VALUES, Check, slices
from m2mdb.index.zones import Window, Zones, zones_of_rowids
from m2mdb.pager.errors import (
    CorruptDatabaseError,
    DatabaseError,
    StatementInterruptedError,
)
from m2mdb.query.bounds import may_hold
from m2mdb.query.scope import ROWID

if TYPE_CHECKING:
    from m2mdb.query.functions import Bindings
    from m2mdb.query.predicate import Term

Blocks = np.ndarray
MOST_MEMBERS = 64  # of an IN list that are held against each block; of more, the least and greatest
_WORTH = 4  # a scan is cut where it is spared at least one block in so many


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a constant can be held against bounds."""
    return isinstance(value, int | float) and value == value


def zones_at(part: SegmentPart, column: int) -> Zones | None:
    """The zone map of a column or of the rowid; None where there is none."""
    return zones_of_rowids(part.rowids) if column == ROWID else part.zones(column)


def spared(term: Term, part: object, bindings: Bindings) -> Blocks | None:
    """bool (blocks,): the blocks that a scan has to read; None: all, or too many to cut it.

    Raises CorruptDatabaseError where a map is damaged.
    """
    if not isinstance(part, SegmentPart) or 2 * part.size < parts.ZONE_ROWS:
        return None
    try:
        blocks = term.blocks(part, bindings)
    except (CorruptDatabaseError, StatementInterruptedError):
        raise
    except DatabaseError:
        return None
    if blocks is None:
        return None
    left = _left(blocks)
    return blocks if left * _WORTH >= len(blocks) else None


def blocks_of_all(found: Iterable[Blocks | None]) -> Blocks | None:
    """The blocks in which every term may hold."""
    all_: Blocks | None = None
    for blocks in found:
        if blocks is not None:
            all_ = blocks if all_ is None else all_ & blocks
            if not all_.any():
                break
    return all_


def blocks_of_any(found: Iterable[Blocks | None]) -> Blocks | None:
    """The blocks in which a term may hold; None where one of them may hold in each."""
    any_: Blocks | None = None
    for blocks in found:
        if blocks is None:
            return None
        any_ = blocks if any_ is None else any_ | blocks
    return any_


Members = list[int | float] | tuple[int | float, int | float]


def numbers_among(members: Iterable[Any], check: Check) -> Members:
    """The numbers among some values; of more than MOST_MEMBERS the least and the greatest.

    check  called between slices of many values; it may raise
    """
    listed = list(members)
    numbers: list[int | float] = []
    for some in slices(len(listed), SLICE_VALUES, check):
        numbers += [value for value in listed[some] if is_number(value)]
    if len(numbers) <= MOST_MEMBERS:
        return numbers
    least = min([min(numbers[some]) for some in slices(len(numbers), SLICE_VALUES, check)])
    return least, max([max(numbers[some]) for some in slices(len(numbers), SLICE_VALUES, check)])


def blocks_of_members(zones: Zones, numbers: Members) -> Blocks:
    """The blocks in which one of some values may stand, which `numbers_among` gave."""
    if isinstance(numbers, tuple):
        found = may_hold(zones, ">=", numbers[0])
        found &= may_hold(zones, "<=", numbers[1])
        return found
    found = np.zeros(len(zones.rows), bool)
    for number in numbers:
        found |= may_hold(zones, "=", number)
    return found


def _left(blocks: Blocks) -> int:
    """How many blocks are left out."""
    return len(blocks) - int(np.count_nonzero(blocks))


def windows(part: object, blocks: Blocks) -> Iterator[tuple[int, Window]]:
    """Each run of blocks that are to be read: its first ordinal and its rows."""
    assert isinstance(part, SegmentPart)
    edges = np.flatnonzero(np.diff(blocks.astype(np.int8), prepend=0, append=0))
    for first, last in edges.reshape(-1, 2).tolist():
        start, stop = first * parts.ZONE_ROWS, min(last * parts.ZONE_ROWS, part.size)
        yield start, Window(part, start, stop)


def sparing_said(found: Sequence[Blocks | None]) -> str:
    """How many segments and blocks of parts are left out, for EXPLAIN ANALYZE."""
    known = [blocks for blocks in found if blocks is not None]
    if not known:
        return ""
    whole = sum(not blocks.any() for blocks in known)
    left = sum(map(_left, known))
    count = sum(len(blocks) for blocks in known)
    return f"zone maps spare {left} of {count} blocks, {whole} of {len(known)} segments whole"
