"""Query log: real queries that are stored with the lists of a column, which they calibrate.

    connection's sample (`index.audit`) --OPTIMIZE--> parts of the lists' extent
    lists that are built later: a flush, a merge --take over--> what its siblings have

Real queries are often unlike what is stored, in ways that no made-up query is. So the ones that
OPTIMIZE was given stay with the lists: every later build is calibrated by them too. They are
MOST_QUERIES at most, the latest first, with 8 bits a value.

    h.queries        u8[m * dimension]: byte = round(value / scale) + 128
    h.query_scales   f32[m]

Queries are no rows: FORGET of a row leaves them. `PRAGMA recall_audit = 0` and then OPTIMIZE takes
them out of the file; with `PRAGMA secure_delete` their bytes are overwritten too.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from m2mdb.compute.hrm2.lists import to_bytes
from m2mdb.pager.errors import CorruptDatabaseError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from m2mdb.index.audit import Audit
    from m2mdb.index.schema import Column
    from m2mdb.index.segment import NamedPart, Segment

QUERIES, SCALES = "h.queries", "h.query_scales"
MOST_QUERIES = 256
_LARGEST = 1e12  # as `hrm2.LARGEST`


def query_parts(column: Column, queries: np.ndarray | None) -> list[NamedPart]:
    """The parts of queries, float32 (m, dimension); none where there are no queries."""
    if queries is None or not len(queries):
        return []
    codes, scales = to_bytes(queries[:MOST_QUERIES])
    return [(QUERIES, column.id, codes.ravel()), (SCALES, column.id, scales)]


def stored_queries(segment: Segment, column: Column) -> np.ndarray:
    """The queries that are stored with a segment's lists, float32 (m, dimension).

    Raises CorruptDatabaseError where the parts cannot be queries.
    """
    if not segment.has(QUERIES, column.id):
        return np.empty((0, column.dimension), np.float32)
    codes, scales = segment.array(QUERIES, column.id), segment.array(SCALES, column.id)
    where = f"segment {segment.id}, column {column.name}, part {QUERIES}"
    count = len(scales)
    if not 0 < count <= MOST_QUERIES or len(codes) != count * column.dimension:
        raise CorruptDatabaseError(f"{where}: {len(codes)} bytes of {count} queries")
    if not (float(scales.min()) >= 0 and float(scales.max()) <= _LARGEST):
        raise CorruptDatabaseError(f"{where}: scales from {scales.min()} to {scales.max()}")
    values: np.ndarray = codes.reshape(count, -1).astype(np.float32) - np.float32(128)
    values *= scales[:, None]
    return values


def known_queries(
    audit: Audit, collection: int, column: Column, segments: Iterable[Segment]
) -> np.ndarray | None:
    """The queries to calibrate lists by, float32 (m, dimension) as they are searched, or None.

    segments  of the collection; what is stored with their lists is taken over
    """
    if audit.offers and audit.forgets:
        return None
    found = audit.queries(collection, column.id) if audit.offers else []
    rows: dict[bytes, np.ndarray] = {}  # by their codes: what is stored has been rounded
    every = itertools.chain(found, *(stored_queries(each, column) for each in segments))
    for query in every:
        row = _searched(query, column) if query.any() else None
        if row is not None and len(rows) < MOST_QUERIES:
            rows.setdefault(to_bytes(row[None])[0].tobytes(), row)
    return np.stack(list(rows.values())) if rows else None


def _searched(query: np.ndarray, column: Column) -> np.ndarray | None:
    from m2mdb.index.hrm2 import searched_query

    return searched_query(query, column.metric)


def is_stale(audit: Audit, collection: int, column: Column, segment: Segment) -> bool:
    """Whether OPTIMIZE has to measure the lists of a segment anew: there are other queries."""
    if audit.forgets:
        return segment.has(QUERIES, column.id)
    return audit.has_fresh(collection, column.id)
