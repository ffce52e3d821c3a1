"""Constraints: NOT NULL, PRIMARY KEY, UNIQUE, checked before anything is written.

A batch is checked as one: against the rows that are there and against itself. What conflicts is
refused, ignored, or replaces the rows that it conflicts with, as SQLite's conflict clauses say.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from m2mdb.index.collations import folded, folded_value
from m2mdb.index.column_parts import key_hashes, nulls_of
from m2mdb.index.schema import IndexInfo
from m2mdb.index.secondary import (
    compared,
    compared_values,
    equal_rowids,
    suspects,
    values_at,
)
from m2mdb.index.slices import (
    SLICE_NUMBERS,
    SLICE_VALUES,
    Check,
    distinct_values,
    emptied,
    slices,
    watched,
)
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
        elif nulls_of(values, view.check) is None:
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
    spared: Sequence[int] = (),
) -> Conflicts:
    """The conflicts of a batch; IntegrityError where mode is "error" and there is one.

    given   the rowids that the batch itself names, None where one will be assigned
    mode    "error" | "ignore" | "replace"
    spared  rowids that the batch rewrites, so that they conflict with nothing (UPDATE)
    """
    conflicts = Conflicts()
    alias = view.schema.rowid_alias
    if _names_any(given, view.check):
        name = "rowid" if alias is None else view.schema.columns[alias].name
        found = _existing_rowids(view, given)
        _judge(view, (name,), given, found, (mode, spared), conflicts)
    for index in view.schema.key_columns:
        column, given_values = view.schema.columns[index], stored[index]
        assert isinstance(given_values, list)
        values = folded(column.fold, given_values, view.check)
        found = _existing_keys(view, index, values)
        _judge(view, (column.name,), values, found, (mode, spared), conflicts, given_values)
    for info in view.schema.indexes:
        if info.unique and info.kind == "btree":
            values = compared_values(view.schema, info, stored, view.check)
            found = _existing_entries(view, info, values)
            _judge(view, info.columns, values, found, (mode, spared), conflicts)
    _drop_in_turn(conflicts, view.check)
    return conflicts


def _names_any(given: Sequence[int | None], check: Check) -> bool:
    """Whether a rowid is not None."""
    for some in slices(len(given), SLICE_NUMBERS, check):
        own = given[some]
        if own.count(None) < len(own):
            return True
    return False


def _judge(
    view: CollectionView,
    columns: tuple[str, ...],
    values: Sequence[Any],
    existing: dict[int, int],
    rule: tuple[str, Sequence[int]],
    conflicts: Conflicts,
    told: Sequence[Any] | None = None,
) -> None:
    """Apply the conflict mode to one key: `existing` maps batch rows to rowids.

    told  the values as an error tells them, where they were folded
    """
    mode, spared = rule
    check = view.check
    if existing and spared:
        own = distinct_values(spared, check)
        others = {row: rowid for row, rowid in watched(existing.items(), check) if rowid not in own}
        emptied(check, existing)
        existing = others
    doubles = _doubles(values, mode == "replace", check)
    if mode == "error" and (existing or doubles):
        row = min([*existing, *doubles])
        names = ", ".join(f"{view.schema.name}.{name}" for name in columns)
        value = values[row] if told is None else told[row]
        several = isinstance(value, tuple)
        said = f"({', '.join(map(shown, value))})" if several else shown(value)
        raise IntegrityError(f"UNIQUE constraint failed: {names} = {said} (row {row})")
    if mode == "ignore":
        conflicts.ignoring.append((values, existing, bool(existing or doubles)))
        return
    conflicts.dropped.update(watched(doubles, check))
    conflicts.replaced.update(watched(existing.values(), check))
    emptied(check, existing)


def _drop_in_turn(conflicts: Conflicts, check: Check) -> None:
    """Drop what "ignore" ignores: a row that was itself dropped is nobody's double."""
    if not any(conflicting for _, _, conflicting in conflicts.ignoring):
        return
    keys = [(values, existing, set[Any]()) for values, existing, _ in conflicts.ignoring]
    for row in watched(range(len(keys[0][0])), check):
        if any(row in existing or values[row] in seen for values, existing, seen in keys):
            conflicts.dropped.add(row)
            continue
        for values, _, seen in keys:
            if values[row] is not None:
                seen.add(values[row])


def _doubles(values: Sequence[Any], keep_last: bool, check: Check) -> list[int]:
    """Batch rows whose value stands in the batch again; one of each survives."""
    if len(values) < 2:
        return []
    present = 0
    differing: set[Any] = set()
    for some in slices(len(values), 4 * SLICE_VALUES, check):
        own = values[some]
        present += len(own) - own.count(None)
        differing.update(own)
    differing.discard(None)
    count = len(differing)
    emptied(check, differing)
    if count == present:
        return []
    seen: set[Any] = set()
    doubled: list[int] = []
    rows = range(len(values) - 1, -1, -1) if keep_last else range(len(values))
    for row in watched(rows, check):
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
    check = view.check
    wanted = np.empty(len(given), np.int64)
    known = np.empty(len(given), bool)
    for some in slices(len(given), SLICE_VALUES, check):
        wanted[some] = [0 if rowid is None else rowid for rowid in given[some]]
        known[some] = [rowid is not None for rowid in given[some]]
    found: dict[int, int] = {}
    for own in view.live_rowids():
        if not len(own):
            continue
        rowids = own if np.all(own[1:] > own[:-1]) else np.sort(own)  # as the delta's
        for some in slices(len(given), SLICE_NUMBERS >> 2, check):
            at = np.minimum(np.searchsorted(rowids, wanted[some]), len(rowids) - 1)
            rows = np.flatnonzero(known[some] & (rowids[at] == wanted[some])) + some.start
            found.update(zip(rows.tolist(), wanted[rows].tolist(), strict=True))
    return found


def _existing_keys(view: CollectionView, index: int, values: Sequence[Any]) -> dict[int, int]:
    if len(values) < BULK:
        found = {}
        for row, value in enumerate(values):
            rowid = None if value is None else view.find(index, value)
            if rowid is not None:
                found[row] = rowid
        return found
    return _probe_in_bulk(view, index, values)


def _probe_in_bulk(view: CollectionView, index: int, values: Sequence[Any]) -> dict[int, int]:
    """One sorted look-up a segment for all keys; only equal hashes are compared by value."""
    suspects: set[int] = set()
    column = view.schema.columns[index]
    present = (i for i, v in enumerate(watched(values, view.check)) if v is not None)
    rows = np.fromiter(present, np.int64)
    if view.segments:
        given = (v for v in watched(values, view.check) if v is not None)
        hashes = key_hashes(given, len(rows))
        for segment in view.segments:
            stored = segment.array("hashes", column.id)
            if len(stored):
                for some in slices(len(rows), SLICE_NUMBERS >> 2, view.check):
                    own = hashes[some]
                    at = np.minimum(np.searchsorted(stored, own), len(stored) - 1)
                    suspects.update(rows[some][stored[at] == own].tolist())
    if len(view.mirror):
        suspects.update(rows.tolist())
    found = {}
    for row in watched(suspects, view.check):
        rowid = view.find(index, values[row])
        if rowid is not None:
            found[row] = rowid
    return found


def _existing_entries(view: CollectionView, info: IndexInfo, values: list[Any]) -> dict[int, int]:
    """Rows with the same value by a UNIQUE B-tree index."""
    found: dict[int, int] = {}
    if BTree(view.view.pages, info.root).first() is None:
        return found
    rows: Iterable[int] = range(len(values))
    if len(values) >= BULK:
        rows = suspects(view.view.pages, info, values, view.check)
    for row in watched(rows, view.check):
        rowid = None if values[row] is None else entry_of(view, info, values[row])
        if rowid is not None:
            found[row] = rowid
    return found


def entry_of(view: CollectionView, info: IndexInfo, value: Any) -> int | None:
    """The rowid that a UNIQUE B-tree index has for a value, which is not NULL, or for a tuple.

    The value is as the row has it, or folded by its columns' collations.

    Keys of long values are cut, so that the rows' own values are compared.
    """
    if compared(value) is None:
        return None
    value = folded_value(view.schema.folds(info), value)
    for rowid in equal_rowids(view.view.pages, info, value):
        place = view.place(rowid)
        if place is not None:
            (there,) = values_at(view.schema, info, view.parts(), [place])
            if there == value:
                return rowid
    return None
