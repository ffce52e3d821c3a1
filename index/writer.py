"""Writing rows: INSERT, UPDATE and DELETE on one collection inside a statement.

Few rows go to the delta, an entry each; from SEGMENT_ROWS on a batch becomes a segment at once,
written one time to its place. A row that is updated keeps its rowid and gets a new version; the
place of the old one ends.

Invariants
    X1  Everything is checked before the first byte is written.
    X2  A mirror that this transaction adds to belongs to it until it commits (D2).
    X3  The newest `next rowid` stands in the delta's last entry or, when it is empty, in the head.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from operator import lt
from typing import TYPE_CHECKING, Any

import numpy as np

from m2mdb.index import generated, maintenance, merge_policy, rules, secondary
from m2mdb.index.collection import CollectionView, Place
from m2mdb.index.constraints import check_not_null, find_conflicts
from m2mdb.index.limits import check_values
from m2mdb.index.record import encode_removal, encode_row, sequence_key
from m2mdb.index.schema import Column
from m2mdb.index.slices import (
    SLICE_VALUES,
    STORED_AS_GIVEN,
    Check,
    array_of,
    distinct_values,
    emptied,
    grow_old,
    listed,
    mapped,
    number_order,
    picked,
    slices,
    watched,
)
from m2mdb.index.values import (
    INT64_MAX,
    StoredColumn,
    VectorData,
    store_column,
    store_scalar,
)
from m2mdb.pager.btree import BTree
from m2mdb.pager.errors import DataError, OperationalError

if TYPE_CHECKING:
    from m2mdb.index.view import WriteView

SEGMENT_ROWS = 512  # below, an entry a row costs less than an extent and its sync
REMOVAL_BATCH = 128  # rows named by one removal entry: 2 KiB
APPENDED = 256  # entries of the delta between two looks for an interrupt
NOWHERE: Place = (0, 0)
ROWID = Column("rowid", "INTEGER")  # the name under which a batch gives its rowids


class CollectionWriter:
    """Writes to one collection within one statement of a transaction."""

    __slots__ = ("_gives_hidden", "_write", "name", "view")

    def __init__(self, write: WriteView, name: str, *, gives_hidden: bool = False) -> None:
        """Raises ProgrammingError where there is no such collection, or no such tokenizer.

        gives_hidden  hidden columns may be given values: it is REEMBED that writes
        """
        self._gives_hidden = gives_hidden
        self._write = write
        self.view: CollectionView = write.collection(name)
        self.name = self.view.schema.name
        for column in self.view.schema.text_columns:
            self.view.mirror.analyzer(column)  # a flush needs it, and is too late to refuse

    # --------------------------------------------------------------- INSERT

    def insert(self, columns: dict[str, Any], count: int, on_conflict: str) -> np.ndarray:
        """Add `count` rows given as columns; returns their rowids, -1 where one was ignored.

        A column "rowid" names the rows, as loading a dump does; NULL is assigned.
        """
        named: list[int | None] | None = None
        key = next((name for name in columns if name.lower() == ROWID.name), None)
        if key is not None:
            columns = dict(columns)
            named = self._named_rowids(columns, columns.pop(key), count)
        stored = self._store(columns, count)
        check_values(self.view.schema, stored, self._write.database.store.options.limits)
        check_not_null(self.view, stored)
        rowids, given, next_rowid = self._assign_rowids(stored, count, named)
        rules.check_rows(self.view, stored, rowids, self._write.database.check_interrupted)
        conflicts = find_conflicts(self.view, stored, given, on_conflict)
        check = self._write.database.check_interrupted
        if conflicts.replaced:
            replaced = array_of(list(watched(conflicts.replaced, check)), np.int64, check)
            gone = listed(replaced[number_order(replaced, check)], check)
            self._end(gone)
            emptied(check, gone)
        if conflicts.dropped:
            dropped = array_of(list(watched(conflicts.dropped, check)), np.int64, check)
            stays = np.ones(count, bool)
            stays[dropped] = False
            keep = np.flatnonzero(stays)
            self._store_rows(rowids[keep], take_rows(stored, keep, check), next_rowid)
            rowids[dropped] = -1
        else:
            self._store_rows(rowids, stored, next_rowid)
        existing = [rows for _, rows, _ in conflicts.ignoring]
        emptied(check, conflicts.replaced, conflicts.dropped, *existing)
        self._let_go([*stored, given])
        return rowids

    def check(self, columns: dict[str, Any], count: int) -> None:
        """Check rows that are not written yet, and perhaps will not be."""
        stored = self._store(columns, count)
        rowids, _, _ = self._assign_rowids(stored, count)
        rules.check_rows(self.view, stored, rowids, self._write.database.check_interrupted)

    def _named_rowids(
        self, columns: dict[str, Any], values: Any, count: int
    ) -> list[int | None] | None:
        """The rowids given as such; an INTEGER PRIMARY KEY, which is the rowid, takes them."""
        schema = self.view.schema
        if schema.rowid_alias is None:
            named = store_column(ROWID, values, count, self.name)
            assert isinstance(named, list)
            return named
        alias = schema.columns[schema.rowid_alias].name
        if any(name.lower() == alias.lower() for name in columns):
            raise DataError(f"{self.name}: rowid and {alias}, which is the rowid, are both given")
        columns[alias] = values
        return None

    def _store(self, columns: dict[str, Any], count: int) -> list[StoredColumn]:
        """All columns in stored form, absent ones filled with their default or NULL."""
        schema = self.view.schema
        given: dict[int, Any] = {}
        for name, values in columns.items():
            given[schema.column(name)] = values
        if len(given) != len(columns):
            raise DataError(f"a column of {self.name} is given twice: {', '.join(columns)}")
        generated.refuse_given(self._write.database, schema, given)
        stored: list[StoredColumn] = []
        check = self._write.database.check_interrupted
        for index, column in enumerate(schema.columns):
            check()
            if index in given:
                stored.append(store_column(column, given[index], count, self.name, check))
            elif column.is_vector:
                stored.append(store_column(column, [None] * count, count, self.name, check))
            elif column.default_text is not None:
                made = rules.compiled(schema).default(index, count, self._write.database)
                stored.append(store_column(column, made, count, self.name, check))
            else:
                default = store_scalar(column, column.default, self.name)
                stored.append([default] * count)
        self._generate(stored, [i for i in schema.generated_columns if i not in given])
        return stored

    def _generate(self, stored: list[StoredColumn], wanted: list[int]) -> None:
        """Encode the sources of generated columns, whose place in `stored` is kept."""
        schema = self.view.schema
        for index in wanted:
            texts = stored[generated.source_of(schema, index)]
            stored[index] = generated.vectors_for(self._write, self.view, index, texts)

    def _let_go(self, stored: Sequence[StoredColumn | Sequence[int | None]]) -> None:
        """Free what `_store` or `_updated_columns` made; shorter columns may be the caller's own.

        An interrupt is looked for meanwhile: that is to be done within the statement.
        """
        for values in stored:
            if isinstance(values, list) and len(values) > STORED_AS_GIVEN:
                emptied(self._write.database.check_interrupted, values)

    def _assign_rowids(
        self, stored: list[StoredColumn], count: int, named: list[int | None] | None = None
    ) -> tuple[np.ndarray, Sequence[int | None], int]:
        """(rowids, those that were given, the next free rowid)."""
        alias = self.view.schema.rowid_alias
        first = self.next_rowid()
        if alias is None and named is None:
            self._check_rowids_left(first + count - 1)
            return np.arange(first, first + count, dtype=np.int64), (), first + count
        given = stored[alias] if alias is not None else named
        assert isinstance(given, list)
        rowids: list[int] = []
        check = self._write.database.check_interrupted
        for rowid in watched(given, check):
            if rowid is None:
                self._check_rowids_left(first)
                rowids.append(first)
                first += 1
            else:
                rowids.append(rowid)
                first = max(first, min(rowid + 1, INT64_MAX))
        if alias is not None:
            stored[alias] = rowids
        return array_of(rowids, np.int64, check), given, first

    def _check_rowids_left(self, last: int) -> None:
        if last >= INT64_MAX:
            raise OperationalError(f"collection {self.name} has no rowid left below 2**63 - 1")

    def next_rowid(self) -> int:
        """The smallest rowid never given out (X3)."""
        return max(self.view.mirror.next_rowid, self.view.entry.next_rowid)

    def _store_rows(self, rowids: np.ndarray, stored: list[StoredColumn], next_rowid: int) -> None:
        """Write new rows, their places and index entries."""
        if not len(rowids):
            return
        unlisted = False
        if len(rowids) >= SEGMENT_ROWS and not merge_policy.joins_delta(self.view, stored):
            if not np.all(rowids[1:] > rowids[:-1]):
                check = self._write.database.check_interrupted
                order = number_order(rowids, check)
                rowids, stored = rowids[order], take_rows(stored, order, check)
            unlisted = maintenance.add_segments(self._write, self.view, rowids, stored, next_rowid)
        else:
            self._append(rowids, stored, [NOWHERE] * len(rowids), next_rowid)
        for info in self.view.schema.indexes:
            if info.kind == "btree":
                check = self._write.database.check_interrupted
                values = secondary.indexed_values(self.view.schema, info, stored, check)
                pairs = zip(values, rowids.tolist(), strict=True)
                secondary.add_entries(self._write.transaction, info, pairs, check=check)
        maintenance.after_write(self._write, self.view, unlisted=unlisted)

    def _append(
        self,
        rowids: np.ndarray,
        stored: Sequence[StoredColumn],
        ended: list[Place],
        next_rowid: int,
    ) -> None:
        """Row versions at the end of the delta."""
        transaction = self._write.transaction
        mirror = self._write.own_mirror(self.view)
        tree = BTree(transaction, self.view.entry.delta_root)
        columns = [
            vector_list(values) if isinstance(values, VectorData) else values for values in stored
        ]
        commit = transaction.new_commit
        mirror.intact = False
        mirror.next_rowid = next_rowid
        sequence = mirror.end
        for row, rowid in enumerate(rowids.tolist()):
            if not row % APPENDED:
                self._write.database.check_interrupted()
            values = [column[row] for column in columns]
            raw = encode_row(commit, next_rowid, rowid, ended[row], values)
            tree.put(sequence_key(sequence), raw)
            mirror.add_row((sequence, commit), rowid, ended[row], values)
            mirror.bytes_used += len(raw)
            sequence += 1
        mirror.intact = True
        self.view.moved_to(mirror.end)

    # --------------------------------------------------------------- DELETE

    def delete(self, rowids: Sequence[int]) -> int:
        """End rows; rowids that name no row are passed over. Returns how many ended."""
        count = self._end(rowids)
        if count:
            maintenance.after_write(self._write, self.view)
        return count

    def _end(self, rowids: Sequence[int]) -> int:
        """As `delete`; maintenance is left to the caller, whose statement goes on."""
        check = self._write.database.check_interrupted
        wanted: Collection[int] = rowids
        if not _ascends(rowids, check):
            wanted = distinct_values(rowids, check)
        pairs = watched(zip(wanted, self._places(wanted), strict=True), check)
        found = [(rowid, place) for rowid, place in pairs if place]
        if not found:
            return 0
        self._remove_index_entries(found)
        logged = found
        if len(found) >= SEGMENT_ROWS:
            logged = [(rowid, place) for rowid, place in watched(found, check) if place[0] == 0]
            maintenance.end_in_bulk(self._write, self.view, found)
        self._append_removals(logged)
        count = len(found)
        emptied(check, found)
        return count

    def _places(self, rowids: Collection[int]) -> list[Place | None]:
        """Where rows are, an interrupt being looked for meanwhile."""
        check, place_of = self._write.database.check_interrupted, self.view.place
        if len(rowids) > STORED_AS_GIVEN:
            grow_old()  # else a full collection that is due looks at all that was selected
        return [place_of(rowid) for rowid in watched(rowids, check)]

    def _append_removals(self, found: list[tuple[int, Place]]) -> None:
        if not found:
            return
        transaction = self._write.transaction
        mirror = self._write.own_mirror(self.view)
        tree = BTree(transaction, self.view.entry.delta_root)
        next_rowid = self.next_rowid()
        mirror.intact = False
        for start in range(0, len(found), REMOVAL_BATCH):
            self._write.database.check_interrupted()
            rows = [
                (rowid, self.log_place(place)) for rowid, place in found[start:][:REMOVAL_BATCH]
            ]
            raw = encode_removal(transaction.new_commit, next_rowid, rows)
            tree.put(sequence_key(mirror.end), raw)
            mirror.bytes_used += len(raw)
            mirror.next_rowid = next_rowid
            mirror.add_removal((mirror.end, transaction.new_commit), rows)
        mirror.intact = True
        self.view.moved_to(mirror.end)

    def log_place(self, place: Place) -> Place:
        """A place as the log names it: by segment id, or NOWHERE for the delta (R2)."""
        return NOWHERE if place[0] == 0 else (self.view.segments[place[0] - 1].id, place[1])

    def _remove_index_entries(self, found: list[tuple[int, Place]]) -> None:
        for info in self.view.schema.indexes:
            if info.kind != "btree":
                continue
            check = self._write.database.check_interrupted
            places = (place for _, place in found)
            values = secondary.values_at(self.view.schema, info, self.view.parts(), places, check)
            pairs = zip(values, (rowid for rowid, _ in found), strict=True)
            secondary.remove_entries(self._write.transaction, info, pairs, check)
            emptied(check, values)

    # --------------------------------------------------------------- UPDATE

    def update(self, rowids: Sequence[int], changes: dict[str, Any]) -> int:
        """Give rows new values, one per row and changed column; returns how many rows there were.

        The rowid stays, unless the INTEGER PRIMARY KEY itself is changed.
        """
        schema = self.view.schema
        check = self._write.database.check_interrupted
        places = self._places(rowids)
        live = [i for i, place in enumerate(watched(places, check)) if place is not None]
        if not live:
            return 0
        changed = {schema.column(name): values for name, values in changes.items()}
        kept_rowids = mapped(live, rowids.__getitem__, check)
        kept_places = mapped(live, places.__getitem__, check)
        stored = self._updated_columns(kept_places, changed, live)
        check_values(schema, stored, self._write.database.store.options.limits)
        check_not_null(self.view, stored)
        alias = schema.rowid_alias
        moved = alias is not None and alias in changed
        given = stored[alias] if alias is not None and moved else ()
        assert isinstance(given, list | tuple)
        rules.check_rows(self.view, stored, array_of(kept_rowids, np.int64, check), check)
        find_conflicts(self.view, stored, given, "error", kept_rowids)
        count = len(live)
        if moved:
            self._move_rows(kept_rowids, stored)
        else:
            self._rewrite(kept_rowids, kept_places, stored, set(changed))
        emptied(check, places, live, kept_rowids, kept_places)
        self._let_go(stored)
        return count

    def _updated_columns(
        self, places: list[Place], changed: dict[int, Any], live: list[int]
    ) -> list[StoredColumn]:
        """All columns of the rows in stored form, the changed ones new."""
        schema = self.view.schema
        parts = self.view.parts()
        if not self._gives_hidden:
            generated.refuse_given(self._write.database, schema, changed)
        stored: list[StoredColumn] = []
        for index, column in enumerate(schema.columns):
            self._write.database.check_interrupted()
            if index in changed:
                values = changed[index]
                check = self._write.database.check_interrupted
                whole = len(live) == len(values)
                picked = values if whole else mapped(live, values.__getitem__, check)
                stored.append(store_column(column, picked, len(live), self.name, check))
            else:
                check = self._write.database.check_interrupted
                old = [parts[at].stored(index, row) for at, row in watched(places, check)]
                if column.is_vector:
                    stored.append(store_column(column, old, len(old), self.name, check))
                else:
                    stored.append(old)
        self._generate(stored, [
            i for i in schema.generated_columns
            if i not in changed and generated.source_of(schema, i) in changed
        ])  # fmt: skip
        return stored

    def _move_rows(self, rowids: list[int], stored: list[StoredColumn]) -> None:
        """An INTEGER PRIMARY KEY changed: the rows end, and begin under their new rowids."""
        self.delete(rowids)
        new_rowids, _, next_rowid = self._assign_rowids(stored, len(rowids))
        self._store_rows(new_rowids, stored, next_rowid)

    def _rewrite(
        self,
        rowids: list[int],
        places: list[Place],
        stored: list[StoredColumn],
        changed: set[int],
    ) -> None:
        transaction = self._write.transaction
        for info in self.view.schema.indexes:
            if info.kind != "btree" or changed.isdisjoint(self.view.schema.positions(info)):
                continue
            check = self._write.database.check_interrupted
            old = secondary.values_at(self.view.schema, info, self.view.parts(), places, check)
            secondary.remove_entries(transaction, info, zip(old, rowids, strict=True), check)
            new = secondary.indexed_values(self.view.schema, info, stored, check)
            secondary.add_entries(transaction, info, zip(new, rowids, strict=True), check=check)
            emptied(check, old)
        check = self._write.database.check_interrupted
        array = array_of(rowids, np.int64, check)
        if len(rowids) < SEGMENT_ROWS or merge_policy.joins_delta(self.view, stored):
            ended = [self.log_place(place) for place in places]
            self._append(array, stored, ended, self.next_rowid())
            maintenance.after_write(self._write, self.view)
            return
        found = list(watched(zip(rowids, places, strict=True), check))
        self._append_removals([pair for pair in watched(found, check) if pair[1][0] == 0])
        maintenance.end_in_bulk(self._write, self.view, found)
        emptied(check, found)
        if not np.all(array[1:] > array[:-1]):
            order = number_order(array, check)
            array, stored = array[order], take_rows(stored, order, check)
        unlisted = maintenance.add_segments(
            self._write, self.view, array, stored, self.next_rowid()
        )
        maintenance.after_write(self._write, self.view, unlisted=unlisted)


def _ascends(rowids: Sequence[int], check: Check) -> bool:
    """Whether each rowid is greater than the one before it, so that none stands twice."""
    if len(rowids) < SEGMENT_ROWS:
        return False  # as quickly looked up
    for some in slices(len(rowids) - 1, SLICE_VALUES, check):
        if not all(map(lt, rowids[some], rowids[some.start + 1 : some.stop + 1])):
            return False
    return True


def take_rows(stored: Sequence[StoredColumn], rows: np.ndarray, check: Check) -> list[StoredColumn]:
    """Some rows of all columns, in the given order.

    check  called between slices of the work; it may raise
    """
    return [
        values.take(rows, check) if isinstance(values, VectorData) else picked(values, rows, check)
        for values in stored
    ]


def vector_list(values: VectorData) -> list[np.ndarray | None]:
    """Vectors as a list of arrays, None for NULL."""
    rows = list(values.matrix)
    if values.present is None:
        return rows
    return [row if there else None for row, there in zip(rows, values.present, strict=True)]
