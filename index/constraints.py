"""Constraints: NOT NULL, PRIMARY KEY, UNIQUE, checked before anything is written.

A batch is checked as one: against the rows that are there and against itself. What conflicts is
refused, ignored, or replaces the rows that it conflicts with, as SQLite's conflict clauses say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from m2mdb.index.column_parts import key_hashes
from m2mdb.index.schema import IndexInfo
from m2mdb.index.secondary import compared, compared_values, equal_rowids, values_at
from m2mdb.index.values import StoredColumn, VectorData, shown
from m2mdb.pager.btree import BTree
from m2mdb.pager.errors import IntegrityError

if TYPE_CHECKING:
    from m2mdb.index.collection import CollectionView

BULK = 64  # from so many keys on, one vectorised probe a segment is cheaper than single look-ups


class Conflicts:
    """What a batch conflicts with.

    dropped   batch rows that must not be written: an ignored one, or one that a later row of the
              same batch replaces
    replaced  rowids that end because a row of the batch takes their place
    ignoring  in mode "ignore", a key column each: the batch's values, the batch rows whose value
              is there already, and whether any row conflicts
    """

    __slots__ = ("dropped", "ignoring", "replaced")

    def __init__(self) -> None:
        self.dropped: set[int] = set()
        self.replaced: set[int] = set()
        self.ignoring: list[tuple[Sequence[Any], dict[int, int], bool]] = []


def check_not_null(view: CollectionView, stored: Sequence[StoredColumn]) -> None:
    """Raise IntegrityError where a NOT NULL or PRIMARY KEY column has no value."""
    for index, column in enumerate(view.schema.columns):
        if not (column.not_null or column.primary_key) or index == view.schema.rowid_alias:
            continue
        values = stored[index]
        if isinstance(values, VectorData):
            missing = values.present is not None and int(np.argmin(values.present))
            if values.present is None:
                continue
        elif None not in values:
            continue
        else:
            missing = values.index(None)
        raise IntegrityError(
            f"NOT NULL constraint failed: {view.schema.name}.{column.name} (row {missing})"
        )


def find_conflicts(
    view: CollectionView,
    stored: Sequence[StoredColumn],
    given: Sequence[int | None],
    mode: str,
    spared: frozenset[int] = frozenset(),
) -> Conflicts:
    """The conflicts of a batch; IntegrityError where mode is "error" and there is one.

    given   the rowids that the batch itself names, None where one will be assigned
    mode    "error" | "ignore" | "replace"
    spared  rowids that the batch rewrites, so that they conflict with nothing (UPDATE)
    """
    conflicts = Conflicts()
    alias = view.schema.rowid_alias
    if any(rowid is not None for rowid in given):
        name = "rowid" if alias is None else view.schema.columns[alias].name
        found = _existing_rowids(view, given)
        _judge(view, (name,), given, found, (mode, spared), conflicts)
    for index in view.schema.key_columns:
        values = stored[index]
        assert isinstance(values, list)
        found = _existing_keys(view, index, values)
        _judge(view, (view.schema.columns[index].name,), values, found, (mode, spared), conflicts)
    for info in view.schema.indexes:
        if info.unique and info.kind == "btree":
            values = compared_values(view.schema, info, stored)
            found = _existing_entries(view, info, values)
            _judge(view, info.columns, values, found, (mode, spared), conflicts)
    _drop_in_turn(conflicts)
    return conflicts


def _judge(
    view: CollectionView,
    columns: tuple[str, ...],
    values: Sequence[Any],
    existing: dict[int, int],
    rule: tuple[str, frozenset[int]],
    conflicts: Conflicts,
) -> None:
    """Apply the conflict mode to one key: `existing` maps batch rows to rowids."""
    mode, spared = rule
    existing = {row: rowid for row, rowid in existing.items() if rowid not in spared}
    doubles = _doubles(values, keep_last=mode == "replace")
    if mode == "error" and (existing or doubles):
        row = min([*existing, *doubles])
        names = ", ".join(f"{view.schema.name}.{name}" for name in columns)
        value = values[row]
        several = isinstance(value, tuple)
        said = f"({', '.join(map(shown, value))})" if several else shown(value)
        raise IntegrityError(f"UNIQUE constraint failed: {names} = {said} (row {row})")
    if mode == "ignore":
        conflicts.ignoring.append((values, existing, bool(existing or doubles)))
        return
    conflicts.dropped.update(doubles)
    conflicts.replaced.update(existing.values())


def _drop_in_turn(conflicts: Conflicts) -> None:
    """Drop what "ignore" ignores: a row that was itself dropped is nobody's double."""
    if not any(conflicting for _, _, conflicting in conflicts.ignoring):
        return
    keys = [(values, existing, set[Any]()) for values, existing, _ in conflicts.ignoring]
    for row in range(len(keys[0][0])):
        if any(row in existing or values[row] in seen for values, existing, seen in keys):
            conflicts.dropped.add(row)
            continue
        for values, _, seen in keys:
            if values[row] is not None:
                seen.add(values[row])


def _doubles(values: Sequence[Any], *, keep_last: bool) -> list[int]:
    """Batch rows whose value stands in the batch again; one of each survives."""
    if len(values) < 2:
        return []
    present = [v for v in values if v is not None]
    if len(set(present)) == len(present):
        return []
    seen: set[Any] = set()
    doubled: list[int] = []
    rows = range(len(values) - 1, -1, -1) if keep_last else range(len(values))
    for row in rows:
        if values[row] is not None:
            if values[row] in seen:
                doubled.append(row)
            seen.add(values[row])
    return doubled


def _existing_rowids(view: CollectionView, given: Sequence[int | None]) -> dict[int, int]:
    if len(given) < BULK:
        return {
            row: rowid
            for row, rowid in enumerate(given)
            if rowid is not None and view.place(rowid) is not None
        }
    wanted = np.array([0 if rowid is None else rowid for rowid in given], np.int64)
    known = np.array([rowid is not None for rowid in given])
    found: dict[int, int] = {}
    for rowids in view.live_rowids():
        if len(rowids):
            for row in np.flatnonzero(known & np.isin(wanted, rowids)).tolist():
                found[row] = int(wanted[row])
    return found


def _existing_keys(view: CollectionView, index: int, values: list[Any]) -> dict[int, int]:
    if len(values) < BULK:
        found = {}
        for row, value in enumerate(values):
            rowid = None if value is None else view.find(index, value)
            if rowid is not None:
                found[row] = rowid
        return found
    return _probe_in_bulk(view, index, values)


def _probe_in_bulk(view: CollectionView, index: int, values: list[Any]) -> dict[int, int]:
    """One sorted look-up a segment for all keys; only equal hashes are compared by value."""
    suspects: set[int] = set()
    column = view.schema.columns[index]
    rows = np.fromiter((i for i, v in enumerate(values) if v is not None), np.int64)
    if view.segments:
        hashes = key_hashes((v for v in values if v is not None), len(rows))
        for segment in view.segments:
            stored = segment.array("hashes", column.id)
            if len(stored):
                at = np.minimum(np.searchsorted(stored, hashes), len(stored) - 1)
                suspects.update(rows[stored[at] == hashes].tolist())
    if len(view.mirror):
        suspects.update(rows.tolist())
    found = {}
    for row in suspects:
        rowid = view.find(index, values[row])
        if rowid is not None:
            found[row] = rowid
    return found


def _existing_entries(view: CollectionView, info: IndexInfo, values: list[Any]) -> dict[int, int]:
    """Rows with the same value by a UNIQUE B-tree index."""
    found: dict[int, int] = {}
    if BTree(view.view.pages, info.root).first() is None:
        return found
    for row, value in enumerate(values):
        rowid = None if value is None else entry_of(view, info, value)
        if rowid is not None:
            found[row] = rowid
    return found


def entry_of(view: CollectionView, info: IndexInfo, value: Any) -> int | None:
    """The rowid that a UNIQUE B-tree index has for a value, which is not NULL, or for a tuple.

    Keys of long values are cut, so that the rows' own values are compared.
    """
    if compared(value) is None:
        return None
    for rowid in equal_rowids(view.view.pages, info, value):
        place = view.place(rowid)
        if place is not None:
            (there,) = values_at(view.schema, info, view.parts(), [place])
            if there == value:
                return rowid
    return None
