"""What a database holds and whether its indexes say the same: the oracle of the crash tests.

`read_state` gives all collections as a set; `verify` holds every index to the rows by brute force:
keys, UNIQUE columns, B-tree indexes, inverted lists and vector search, beside `integrity_check`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from m2mdb.index.collection import CollectionView
from m2mdb.index.database import Database
from m2mdb.index.integrity import check
from m2mdb.index.query_vectors import check_query_vector
from m2mdb.index.text.match_query import parse_match
from m2mdb.pager.errors import CorruptDatabaseError

WORDS = ("red", "green", "blue", "dark", "light", "mode")
NEAREST = 5  # rows of a vector search that are compared

Row = tuple[Any, ...]  # values in the order of the columns; a vector as bytes
State = frozenset[tuple[Any, ...]]  # ("index", collection, name, kind), ("row", collection, *Row)


def plain(value: Any) -> Any:
    """A value that can be compared and hashed."""
    return value.tobytes() if isinstance(value, np.ndarray) else value


def read_state(database: Database) -> State:
    """Everything, after a check that all of it is sound."""
    found: set[tuple[Any, ...]] = set()
    with database.reading() as view:
        faults = check(view)
        if faults:  # what a read would raise, said before it reads
            raise CorruptDatabaseError(f"integrity_check: {faults[:5]}")
        for name in view.names():
            collection = view.collection(name)
            columns = tuple(column.name for column in collection.schema.columns)
            found.add(("collection", name, columns))
            for info in collection.schema.indexes:
                found.add(("index", name, info.name, info.kind))
            rows = live_rows(collection)
            assert len(rows) == collection.count(), "count"
            found.update(("row", name, *row) for row in rows.values())
            verify(collection, rows, database)
    return frozenset(found)


def live_rows(collection: CollectionView) -> dict[int, Row]:
    """Rowid and values of each live row, read part by part without any index."""
    rows: dict[int, Row] = {}
    for part in collection.parts():
        live = part.live
        chosen = range(part.size) if live is None else np.flatnonzero(live).tolist()
        if not len(chosen):
            continue
        columns = [part.values(index) for index in range(len(collection.schema.columns))]
        rowids = part.rowids.tolist()
        for ordinal in chosen:
            assert rowids[ordinal] not in rows, f"rowid {rowids[ordinal]} is live twice"
            rows[rowids[ordinal]] = tuple([plain(column[ordinal]) for column in columns])
    return rows


def verify(collection: CollectionView, rows: dict[int, Row], database: Database) -> None:
    """Every index of a collection says what its rows say."""
    schema = collection.schema
    for at in schema.key_columns:
        _verify_key(collection, rows, at)
    for at, column in enumerate(schema.columns):
        if schema.btree_on(at) is not None:
            _verify_btree(collection, rows, at)
        if column.fulltext is not None:
            _verify_text(collection, rows, at)
        if column.is_vector:
            _verify_vectors(collection, rows, at, database)


def _verify_key(collection: CollectionView, rows: dict[int, Row], at: int) -> None:
    values = {row[at]: rowid for rowid, row in rows.items() if row[at] is not None}
    some = list(values.items())
    step = len(some) // 40 + 1  # all of a few, and some of many
    for value, rowid in some[::step]:
        assert collection.find(at, value) == rowid, f"key {value!r} of column {at}"
    for absent in ("absent", "k999"):
        assert collection.find(at, absent) is None


def _verify_btree(collection: CollectionView, rows: dict[int, Row], at: int) -> None:
    everything = collection.index_rowids(at)
    assert everything is not None
    expected = {rowid for rowid, row in rows.items() if row[at] is not None}
    assert set(everything.tolist()) == expected, f"index on column {at}"
    for value in sorted({row[at] for row in rows.values() if row[at] is not None})[:8]:
        some = collection.index_rowids(at, value, value)
        assert some is not None
        expected = {rowid for rowid, row in rows.items() if row[at] == value}
        assert set(some.tolist()) == expected, f"index on column {at}, value {value!r}"


def _verify_text(collection: CollectionView, rows: dict[int, Row], at: int) -> None:
    for word in WORDS:
        expected = {rowid for rowid, row in rows.items() if word in (row[at] or "").split()}
        hits = collection.match(parse_match(word), len(rows) + 1, column_index=at)
        assert set(hits.rowids.tolist()) == expected, f"text index of column {at}, {word!r}"


def _verify_vectors(
    collection: CollectionView, rows: dict[int, Row], at: int, database: Database
) -> None:
    column = collection.schema.columns[at]
    query = check_query_vector(column, np.linspace(1.0, 2.0, column.dimension), "test")
    rowids = [rowid for rowid, row in rows.items() if row[at] is not None]
    hits = collection.nearest(at, query, NEAREST, database.kernels)
    assert len(hits.rowids) == min(NEAREST, len(rowids)), f"vector search of column {at}"
    if not rowids:
        return
    matrix = np.array([np.frombuffer(rows[rowid][at], np.float32) for rowid in rowids])
    norms = np.linalg.norm(matrix, axis=1) * np.linalg.norm(query)
    cosines = dict(zip(rowids, (matrix @ query / norms).tolist(), strict=True))
    best = sorted(cosines.values(), reverse=True)[:NEAREST]
    assert np.allclose(np.sort(hits.scores)[::-1], best, atol=1e-5), f"vector search of {at}"
    own = [cosines[rowid] for rowid in hits.rowids.tolist()]
    assert np.allclose(hits.scores, own, atol=1e-5), f"vector search of column {at}: scores"
