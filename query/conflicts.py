"""Conflict clauses: what OR FAIL, OR ROLLBACK, OR IGNORE and OR REPLACE make of a violation.

    ABORT     the statement is undone; what every statement does without a clause
    FAIL      the rows before the one that fails stay, then the error is raised
    IGNORE    the row is left as it was
    REPLACE   rows that stand in the way end; NULL in a NOT NULL column becomes its DEFAULT
    ROLLBACK  the transaction is undone

INSERT knows IGNORE and REPLACE for whole batches (`index.constraints`). What is here goes row by
row, as SQLite does, where a batch could not be written whole.

Invariants
    CF1 A row is checked before its first byte is written (X1 of `index.writer`), so that a
        violation can be caught and the rows before it are whole.
    CF2 The error of OR FAIL is raised when the statement has ended: `Result.failure` carries it
        there, and nothing is undone by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from m2mdb.index.constraints import entry_of
from m2mdb.index.rules import compiled
from m2mdb.index.values import store_scalar
from m2mdb.pager.errors import CheckFailedError, IntegrityError
from m2mdb.query.ast import Insert, Update

if TYPE_CHECKING:
    from m2mdb.index.collection import CollectionView
    from m2mdb.index.database import Database
    from m2mdb.index.schema import CollectionSchema, IndexInfo
    from m2mdb.index.view import WriteView

Key = tuple[tuple[int, ...], "IndexInfo | None"]  # columns, and their UNIQUE index if it is one
IN_TURN = ("fail", "ignore", "replace")  # of UPDATE
Given = dict[str, list[Any]]


def keys_of(schema: CollectionSchema) -> list[Key]:
    """What no two rows may share: a column's value, or those of several columns."""
    found: list[Key] = [
        ((index,), None) for index, column in enumerate(schema.columns) if column.is_key
    ]
    for info in schema.indexes:
        columns = schema.positions(info)
        if info.unique and columns not in (known for known, _ in found):
            found.append((columns, info))
    return found


def roll_back(database: Database, statement: object) -> None:
    """After a violation: OR ROLLBACK undoes the transaction, which the statement was part of."""
    if not isinstance(statement, Insert | Update) or statement.or_action != "rollback":
        return
    if database.in_transaction:
        database.rollback()


def _named(failure: IntegrityError, row: int) -> IntegrityError:
    """The failure of a batch of one row, by that row's place in the whole batch."""
    failure.args = (f"{str(failure).removesuffix('(row 0)')}(row {row})", *failure.args[1:])
    if isinstance(failure, CheckFailedError):
        failure.rows = [row]
    return failure


def insert_until(
    write: WriteView, name: str, given: Given, count: int
) -> tuple[list[int], IntegrityError | None]:
    """Insert the rows before the first that fails: their rowids, and why it failed.

    A batch is tried whole, then by halves, so that few tries find the row.
    """
    rowids: list[int] = []
    waiting = [(0, count)]
    while waiting:
        start, stop = waiting.pop()
        part = {each: values[start:stop] for each, values in given.items()}
        try:
            rowids += write.insert(name, part, stop - start).tolist()
        except IntegrityError as failure:  # CF1: nothing of this part is written
            if stop - start == 1:
                return rowids, _named(failure, start)
            middle = (start + stop) // 2
            waiting += [(middle, stop), (start, middle)]
    return rowids, None


class UpdateInTurn:
    """UPDATE OR IGNORE, REPLACE or FAIL."""

    __slots__ = ("_action", "_changed", "_keys", "_names", "_schema", "failure")

    def __init__(self, schema: CollectionSchema, changed: Sequence[int], action: str) -> None:
        """`changed`: the columns that are set."""
        self._schema = schema
        self._changed = list(changed)
        self._names = [schema.columns[index].name for index in changed]
        self._keys = [key for key in keys_of(schema) if not set(key[0]).isdisjoint(changed)]
        self._action = action
        self.failure: IntegrityError | None = None

    def run(
        self, write: WriteView, rowids: Sequence[int], columns: Sequence[Sequence[Any]]
    ) -> Iterator[int]:
        """Change the rows in the order of their rowids; the rowids of those, as they are then."""
        alias = self._schema.rowid_alias
        for rowid, *values in sorted(zip(rowids, *columns, strict=True), key=lambda row: row[0]):
            write.database.check_interrupted()
            if write.collection(self._schema.name).place(rowid) is None:
                continue  # a row before it has replaced it
            try:
                changed = self._one(write, rowid, values)
            except IntegrityError as failure:
                if self._action == "ignore":
                    continue
                if self._action == "replace":
                    raise
                self.failure = failure
                return
            if alias is not None and alias in self._changed:
                yield int(changed[self._changed.index(alias)])
            else:
                yield rowid

    def _one(self, write: WriteView, rowid: int, values: list[Any]) -> list[Any]:
        """Change one row; its values as they were written."""
        name = self._schema.name
        if self._action == "replace":
            values = self._without_nulls(write, values)
        changes = {each: [value] for each, value in zip(self._names, values, strict=True)}
        try:
            write.update(name, [rowid], changes)
        except CheckFailedError:
            raise
        except IntegrityError:
            others = self._in_the_way(write.collection(name), rowid, values)
            if self._action != "replace" or not others:
                raise
            write.delete(name, others)
            write.update(name, [rowid], changes)
        return values

    def _without_nulls(self, write: WriteView, values: list[Any]) -> list[Any]:
        """NULL for a NOT NULL column is its DEFAULT."""
        made = list(values)
        for at, index in enumerate(self._changed):
            column = self._schema.columns[index]
            if made[at] is not None or not column.not_null:
                continue
            if column.default_text is not None:
                (made[at],) = compiled(self._schema).default(index, 1, write.database)
            else:
                made[at] = column.default
        return made

    def _in_the_way(self, collection: CollectionView, rowid: int, values: list[Any]) -> list[int]:
        """The other rows that have a key which this one is to get."""
        place = collection.place(rowid)
        assert place is not None
        new = dict(zip(self._changed, values, strict=True))
        found = set()
        for columns, info in self._keys:
            key = tuple([
                store_scalar(self._schema.columns[index], new[index], self._schema.name)
                if index in new
                else collection.parts()[place[0]].stored(index, place[1])
                for index in columns
            ])  # fmt: skip
            if None in key:
                continue
            if info is None:
                other = collection.find(columns[0], key[0])
            else:
                other = entry_of(collection, info, key if len(columns) > 1 else key[0])
            if other is not None and other != rowid:
                found.add(other)
        return sorted(found)
