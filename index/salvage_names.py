"""Names for rows whose collection is not known, made up from what the rows say of themselves.

    segments of one layout whose rowids do not overlap      one collection
    leaves of deltas with values of the same kinds           one collection

Columns are c1, c2, … in their order. A segment tells numbers, booleans and vectors apart, and texts
by their index or by being UTF-8 throughout; TIMESTAMP comes as INTEGER, JSON as TEXT. A delta's
vector comes as a BLOB: neither its type nor its dimension is said.

Invariants
    SN1 Rows of which it is not certain that they belong together are kept apart: nothing is lost
        for having the same rowid.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from m2mdb.index.extent_remains import Directory, ExtentRemains, SegmentRemains
from m2mdb.index.record import BYTES, FALSE, INTEGER, REAL, TEXT, TRUE, VECTOR
from m2mdb.index.salvage_rows import CollectionRemains, DeltaEntry, SegmentRows
from m2mdb.index.schema import VECTOR_DTYPES, CollectionSchema, Column
from m2mdb.index.segment import TEXT_PREFIX
from m2mdb.pager.errors import CorruptDatabaseError, ProgrammingError

_TYPES = {
    INTEGER: "INTEGER", REAL: "REAL", FALSE: "BOOLEAN", TRUE: "BOOLEAN", TEXT: "TEXT",
    BYTES: "BLOB", VECTOR: "BLOB",
}  # fmt: skip
_PARTS = {"ints": "INTEGER", "reals": "REAL", "bools": "BOOLEAN"}
_DTYPES = {np.dtype(code): name for name, code in VECTOR_DTYPES.items()}


class Nameless:
    """Segments and entries that nobody claims."""

    def __init__(self) -> None:
        self._segments: list[tuple[ExtentRemains, Directory]] = []
        self._groups: list[tuple[list[str], dict[int, DeltaEntry]]] = []

    def add_segment(self, extent: ExtentRemains, directory: Directory) -> None:
        """A segment that says nothing of its collection."""
        self._segments.append((extent, directory))

    def add_entries(self, entries: list[DeltaEntry]) -> None:
        """The entries of one leaf of a delta."""
        kinds = _kinds(entries)
        if kinds is None:
            return
        for known, group in self._groups:
            merged = _merged(known, kinds)
            if merged is not None and not any(entry.sequence in group for entry in entries):
                known[:] = merged
                group.update({entry.sequence: entry for entry in entries})
                return
        self._groups.append((kinds, {entry.sequence: entry for entry in entries}))

    def collections(self) -> list[CollectionRemains]:
        """The collections that were made up; their names are given by `named`."""
        made: list[CollectionRemains] = []
        for kinds, group in self._groups:
            if not kinds:
                continue  # removals alone
            columns = [Column(f"c{i}", kind or "BLOB", id=i) for i, kind in enumerate(kinds, 1)]
            collection = CollectionRemains(_schema(columns), is_named=False)
            collection.is_unknown = True
            for entry in group.values():
                collection.add_entry(entry)
            made.append(collection)
        return made + self._from_segments()

    def _from_segments(self) -> list[CollectionRemains]:
        made: list[tuple[Any, CollectionRemains]] = []
        for number, (extent, directory) in enumerate(self._segments, 1):
            try:
                remains = SegmentRemains([(extent, directory)])
            except CorruptDatabaseError:
                continue
            columns = _columns(remains)
            layout = [(c.id, c.type, c.dimension, c.dtype) for c in columns]
            rows = SegmentRows(number, remains, None, 0)
            for known, collection in made:
                if known == layout and not _overlap(collection, rows):
                    collection.segments.append(rows)
                    break
            else:
                collection = CollectionRemains(_schema(columns), is_named=False)
                collection.is_unknown = True
                collection.segments.append(rows)
                made.append((layout, collection))
        return [collection for _, collection in made]


def _schema(columns: list[Column]) -> CollectionSchema:
    return CollectionSchema("recovered", tuple(columns))


def _overlap(collection: CollectionRemains, rows: SegmentRows) -> bool:
    return any(np.isin(rows.rowids, known.rowids).any() for known in collection.segments)


def _kinds(entries: list[DeltaEntry]) -> list[str] | None:
    """The type of each column, "" where all is NULL; None where the rows are not of one kind."""
    kinds: list[str] = []
    for entry in entries:
        if entry.values is None:
            continue
        merged = _merged(kinds, [_TYPES.get(tag, "") for tag in entry.tags])
        if merged is None:
            return None
        kinds = merged
    return kinds


def _merged(left: list[str], right: list[str]) -> list[str] | None:
    if not left or not right:
        return left or right
    if len(left) != len(right):
        return None
    if any(a and b and a != b for a, b in zip(left, right, strict=True)):
        return None
    return [a or b for a, b in zip(left, right, strict=True)]


def _columns(remains: SegmentRemains) -> list[Column]:
    """The columns that a segment's parts show."""
    ids = sorted({id_ for _, id_ in remains.parts if id_})
    names = {id_: {name for name, column in remains.parts if column == id_} for id_ in ids}
    columns = []
    for id_ in ids:
        found = _PARTS.get(next(iter(names[id_] & set(_PARTS)), ""))
        if found is not None:
            columns.append(Column(f"c{id_}", found, id=id_))
        elif "vectors" in names[id_]:
            part = remains.parts["vectors", id_]
            columns.append(
                Column(f"c{id_}", "VECTOR", id=id_, dimension=part.items // remains.rows,
                       dtype=_DTYPES.get(part.dtype, "f32"), metric="l2")
            )  # fmt: skip
        elif "blob" in names[id_]:
            is_text = any(name.startswith(TEXT_PREFIX) for name in names[id_])
            column = Column(f"c{id_}", "BLOB", id=id_)
            if is_text or _is_text(remains, column):
                column = Column(f"c{id_}", "TEXT", id=id_)
            columns.append(column)
    return columns


def _is_text(remains: SegmentRemains, column: Column) -> bool:
    """Whether all values that verify are UTF-8."""
    whole = np.flatnonzero(remains.whole(column))
    try:
        for start in range(0, len(whole), 4096):
            for value in remains.values(column, whole[start : start + 4096]):
                if value is not None:
                    value.decode()
    except UnicodeDecodeError:
        return False
    return True


def named(made: list[CollectionRemains]) -> list[CollectionRemains]:
    """The collections under names of which each is there once."""
    taken: set[str] = set()
    for collection in made:
        name = collection.schema.name
        number = 1
        while (candidate := _candidate(collection, name, number)).lower() in taken:
            number += 1
        taken.add(candidate.lower())
        if candidate != name:
            schema = collection.schema
            try:
                collection.schema = CollectionSchema(
                    candidate, schema.columns, schema.indexes, schema.checks
                )
            except ProgrammingError:  # a name that is too long
                collection.schema = CollectionSchema(f"recovered_{number}", schema.columns)
    return made


def _candidate(collection: CollectionRemains, name: str, number: int) -> str:
    if not collection.is_named:
        return f"recovered_{number}"
    return name if number == 1 else f"{name}_{number}"
