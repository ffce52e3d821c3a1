"""INSERT: VALUES or a query, conflict clauses, RETURNING.

Rows are turned into columns and written at once; only ON CONFLICT … DO UPDATE, and DO NOTHING for
one of several keys, go row by row, because each row may meet one that was just written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from m2mdb.index.constraints import entry_of
from m2mdb.index.generated import source_of
from m2mdb.index.rules import compiled
from m2mdb.index.slices import Check, columns_of, emptied, kinds_of, listed, mapped, watched
from m2mdb.index.values import python_value, store_scalar
from m2mdb.index.view import WriteView
from m2mdb.pager.errors import (
    CheckFailedError,
    IntegrityError,
    ProgrammingError,
)
from m2mdb.query.affinity import truth
from m2mdb.query.ast import Insert
from m2mdb.query.binding import adapted
from m2mdb.query.columnar import Values, input_of
from m2mdb.query.conditions import Evaluator
from m2mdb.query.conflicts import Key, insert_until, keys_of
from m2mdb.query.correlation import Level
from m2mdb.query.dml import PlacedRows, WritePlan
from m2mdb.query.expression import compile_expression, literal_value
from m2mdb.query.functions import Bindings
from m2mdb.query.nodes import ColumnRef, Literal, OnConflict, Parameter
from m2mdb.query.placed_names import PlacedName, column_index, located
from m2mdb.query.plan import Explained, Plan
from m2mdb.query.result import Result
from m2mdb.query.rules import Rules
from m2mdb.query.scope import ROWID, RowScope, Slot, Subqueries

if TYPE_CHECKING:
    from m2mdb.index.collection import CollectionView
    from m2mdb.index.schema import CollectionSchema
    from m2mdb.index.view import View
    from m2mdb.query.planning import Planner

_MODES = {"replace": "replace", "ignore": "ignore"}  # of whole batches; others: "error"
_PLAIN = frozenset({str, bytes, bool, int, float, type(None)})


class InsertPlan(WritePlan):
    """INSERT, compiled."""

    __slots__ = (
        "_absent", "_all_names", "_mode", "_names", "_or_action", "_query", "_rows", "_slots",
        "_upsert",
    )  # fmt: skip

    def __init__(self, statement: Insert, view: View, count: int, planner: Planner) -> None:
        subqueries = Subqueries(count)
        super().__init__(statement.collection, statement.returning, (view, planner, subqueries))
        self._mode = _MODES.get(statement.or_action or "", "error")
        self._or_action = statement.or_action
        self._names = _column_names(self.schema, statement.columns)
        computed = self.schema.computed_defaults
        self._absent = [i for i in computed if self.schema.columns[i].name not in self._names]
        self._all_names = [*self._names, *[self.schema.columns[i].name for i in self._absent]]
        values_scope = RowScope(None, subqueries)
        self._query: Plan | None = None
        if statement.query is not None:
            self._query = planner(statement.query, view, count)
            self.tables.extend(self._query.all_tables())
            self._check_width(len(self._query.columns()[0]))
        for row in statement.rows:
            self._check_width(len(row))
        values = Level(self, values_scope, (view, planner, subqueries))
        self._rows = [[compile_expression(values.resolve(each), values_scope) for each in row]
                      for row in statement.rows]  # fmt: skip
        self._upsert: _Upsert | None = None
        conflict = statement.on_conflict
        if conflict is not None:
            if conflict.action == "nothing" and _covers_all_keys(self.schema, conflict.columns):
                self._mode = "ignore"
            else:
                self._upsert = _Upsert(self.schema, conflict, subqueries, self.level)
        self.prepare_inner(subqueries, view, planner)
        self._slots = None if self.inner else _slots(statement)

    def _check_width(self, width: int) -> None:
        if width != len(self._names):
            raise ProgrammingError(
                f"{width} values for {len(self._names)} columns of {self.schema.name}"
            )

    def written_names(self) -> set[str]:
        """The columns that get values, in lower case."""
        return {name.lower() for name in self._names}

    def values_at(self, view: View, bindings: Bindings) -> dict[str, list[Any]]:
        """What the query would give each column at this snapshot, by its name in lower case."""
        if self._query is None:
            return {}
        bindings = self.bind_inner(view, bindings.program_values(self.parameter_count))
        found = self._query.run(view, bindings.program_values(self.parameter_count))
        columns, count = _columns_of(found, bindings.check)
        if not count:
            return {}
        return dict(zip([name.lower() for name in self._names], columns, strict=True))

    def run(self, view: View, bindings: Bindings) -> Result:
        """Execute inside a writing statement."""
        assert isinstance(view, WriteView), "the executor runs writes in writing()"
        write = view
        bindings = self.bind_inner(view, bindings)
        if self._query is not None:
            found = self._query.run(view, bindings.program_values(self.parameter_count))
            columns, count = _columns_of(found, bindings.check)
            written = self._write(write, columns, count, bindings)
            _let_go(found, columns, bindings.check)
            return written
        count = len(self._rows)
        columns = [[row[at]((), bindings) for row in self._rows]
                   for at in range(len(self._names))]  # fmt: skip
        return self._write(write, columns, count, bindings)

    def _write(
        self, write: WriteView, columns: list[list[Any]], count: int, bindings: Bindings
    ) -> Result:
        if not count:
            return self.result(None, 0)
        columns = [*columns, *self._computed(count, bindings)]
        if self._upsert is not None:
            rows = [_plain(column) for column in columns]
            return self._write_in_turn(write, rows, bindings)
        given = dict(zip(self._all_names, columns, strict=True))
        given, count = self._without_nulls(given, count, write)
        written: np.ndarray = np.empty(0, np.int64)
        failed: IntegrityError | None = None
        while count:
            try:
                if self._or_action == "fail":
                    rows, failed = insert_until(write, self.name, given, count)
                    written = np.array(rows, np.int64)
                else:
                    written = write.insert(self.name, given, count, self._mode)
                break
            except CheckFailedError as failure:  # nothing is written yet (X1)
                if self._or_action != "ignore":
                    raise
                kept = [row for row in range(count) if row not in set(failure.rows)]
                given, count = _rows_of(given, kept), len(kept)
        if not count:
            return self.result([], 0)
        rowids = written if self._mode == "error" else written[written >= 0]
        last = int(rowids[-1]) if len(rowids) else None
        changed = count if self._mode == "replace" else len(rowids)
        if self.returning is None:
            return self.result(None, changed, last, failed)
        collection = write.collection(self.name)
        given_rowids = watched(listed(rowids, bindings.check), bindings.check)
        kept = [row for row in given_rowids if collection.place(row) is not None]
        returned = self.returning.rows(PlacedRows(collection, kept), bindings)
        return self.result(returned, changed, last, failed)

    def _computed(self, count: int, bindings: Bindings) -> list[list[Any]]:
        """The computed DEFAULTs of the columns that the statement does not name."""
        if not self._absent:
            return []
        rules = compiled(self.schema)
        assert isinstance(rules, Rules)
        return [rules.default_in(index, count, bindings) for index in self._absent]

    def _without_nulls(
        self, given: dict[str, list[Any]], count: int, write: WriteView
    ) -> tuple[dict[str, list[Any]], int]:
        """NULL in a NOT NULL column: OR IGNORE leaves the row out, OR REPLACE takes the default."""
        action = self._or_action
        if action not in ("ignore", "replace"):
            return given, count
        spared = np.zeros(count, bool)
        for index, column in enumerate(self.schema.columns):
            if not column.not_null:
                continue
            values = given.get(column.name)
            if column.generated is not None and values is None:
                values = given.get(self.schema.columns[source_of(self.schema, index)].name)
            if values is None:
                values = [column.default] * count
            elif action == "replace" and column.default is not None:
                values = [column.default if value is None else value for value in values]
                given = {**given, column.name: values}
            elif action == "replace" and column.default_text is not None:
                made = compiled(self.schema).default(index, count, write.database)
                values = [
                    new if value is None else value for value, new in zip(values, made, strict=True)
                ]
                given = {**given, column.name: values}
            spared |= [value is None for value in values]
        if action == "replace" or not spared.any():
            return given, count
        kept = np.flatnonzero(~spared).tolist()
        return _rows_of(given, kept), len(kept)

    def _write_in_turn(
        self, write: WriteView, columns: list[list[Any]], bindings: Bindings
    ) -> Result:
        """Insert or update row by row; RETURNING sees each as it was then."""
        assert self._upsert is not None
        returned: list[tuple[Any, ...]] = []
        count, last, failed = 0, None, None
        try:
            for rowid, is_new in self._upsert.run(write, self._all_names, columns, bindings):
                count, last = count + 1, rowid if is_new else last
                if self.returning is not None:
                    placed = PlacedRows(write.collection(self.name), [rowid])
                    returned += self.returning.rows(placed, bindings)
        except IntegrityError as failure:
            if self._or_action != "fail":
                raise
            failed = failure  # each row was checked before it was written (CF1)
        return self.result(returned, count, last, failed)

    def run_many(self, write: WriteView, rows: Sequence[Sequence[Any]]) -> Result | None:
        """All rows of parameters by one insertion; None where the statement is not so plain."""
        if self._slots is None or self._upsert is not None or self.returning is not None:
            return None
        check = write.database.check_interrupted
        given = columns_of(rows, len(rows[0]), check)
        columns: list[list[Any]] = []
        for slot in self._slots:
            if isinstance(slot, Parameter):
                columns.append(_adapted_column(given[slot.index], slot.index, check))
            else:
                columns.append([literal_value(slot)] * len(rows))
        written = self._write(write, columns, len(rows), self.bind_inner(write, Bindings()))
        emptied(check, *given, *columns)
        return written

    def explain(self, view: View) -> Explained:
        """Where the rows come from."""
        lines: Explained = [(0, f"INSERT INTO {self.schema.name}")]
        if self._query is None:
            lines.append((1, f"VALUES of {len(self._rows)} rows"))
        else:
            lines += [(depth + 1, text) for depth, text in self._query.explain(view)]
        if self._upsert is not None:
            lines.append((1, f"ON CONFLICT {self._upsert.target}: row by row"))
        return lines + self.explain_inner(view)


def _column_names(schema: CollectionSchema, names: Sequence[str] | None) -> list[str]:
    """The columns that values are given for, as the schema spells them: all but generated ones.

    Raises ProgrammingError: an unknown column, one named twice.
    """
    if names is None:
        return [column.name for column in schema.columns if column.generated is None]
    alias = "rowid" if schema.rowid_alias is None else schema.columns[schema.rowid_alias].name
    found: list[str] = []
    for given in names:
        with located(given):
            is_rowid = given.lower() == "rowid"
            name = alias if is_rowid else schema.columns[schema.column(given)].name
            if name in found:
                raise ProgrammingError(f"column {name} of {schema.name} is named twice")
        found.append(name)
    return found


def _slots(statement: Insert) -> list[Parameter | Literal] | None:
    """The values of the one row, where all are parameters and literals."""
    if len(statement.rows) != 1:
        return None
    found = [each for each in statement.rows[0] if isinstance(each, Parameter | Literal)]
    return found if len(found) == len(statement.rows[0]) else None


def _columns_of(found: Result, check: Check) -> tuple[list[Any], int]:
    """The columns of a query's rows, as arrays where they stand so, and how many rows there are."""
    if found.data is not None:
        return [input_of(column, check) for column in found.data], len(found.data[0])
    rows = found.rows
    return columns_of(rows, len(rows[0]) if rows else 0, check), len(rows)


def _plain(column: Any) -> Any:
    """A column whose items are Python's, where it is an array of numbers."""
    return column.tolist() if isinstance(column, np.ndarray) and column.ndim == 1 else column


def _let_go(found: Result, columns: list[Any], check: Check) -> None:
    """Free what `_columns_of` made of a query's rows, and these where nobody else has them."""
    if found.data is None:
        emptied(check, found.rows, *columns)
        return
    for column, values in zip(found.data, columns, strict=True):
        if isinstance(values, list) and (not isinstance(column, Values) or column.is_own):
            emptied(check, values)


def _adapted_column(values: list[Any], index: int, check: Check) -> list[Any]:
    """One parameter's values of all rows, as `binding.adapted` gives each."""
    if kinds_of(values, check) <= _PLAIN:
        return values  # the column itself refuses integers beyond 64 bits and NaN
    return mapped(values, lambda value: adapted(value, index), check)


def _rows_of(given: dict[str, list[Any]], kept: list[int]) -> dict[str, list[Any]]:
    """Some rows of all columns."""
    return {name: [values[at] for at in kept] for name, values in given.items()}


def _wanted_keys(schema: CollectionSchema, names: Sequence[str] | None) -> list[Key]:
    """The keys over just these columns, in any order; all without names."""
    keys = keys_of(schema)
    if names is None:
        return keys
    wanted = {column_index(schema, name) for name in names}
    found = [key for key in keys if set(key[0]) == wanted]
    if not found or len(wanted) != len(names):
        with located(names[0]):
            raise ProgrammingError(
                f"ON CONFLICT ({', '.join(names)}) does not match any PRIMARY KEY or UNIQUE "
                f"constraint of {schema.name}"
            )
    return found


def _covers_all_keys(schema: CollectionSchema, names: Sequence[str] | None) -> bool:
    return names is None or len(_wanted_keys(schema, names)) == len(keys_of(schema))


class _UpsertScope(RowScope):
    """The row that is there, and as `excluded.x` the one that could not be inserted."""

    __slots__ = ()

    def column(self, reference: ColumnRef) -> Slot:
        """`excluded.x` stands at a position of its own."""
        if reference.table is None or reference.table.lower() != "excluded":
            return super().column(reference)
        assert self.schema is not None
        index = column_index(self.schema, PlacedName(reference.name, reference.position))
        position = self.position(f"excluded {index}")
        return Slot(position, self.schema.columns[index].value_type)


class _Upsert:
    """ON CONFLICT (column) DO UPDATE SET … [WHERE …], or DO NOTHING."""

    __slots__ = ("_assignments", "_keys", "_schema", "_scope", "_where", "target")

    def __init__(
        self,
        schema: CollectionSchema,
        conflict: OnConflict,
        subqueries: Subqueries,
        level: Level,
    ) -> None:
        self._schema = schema
        self._keys = _wanted_keys(schema, conflict.columns)
        columns = [index for key, _ in self._keys for index in key]
        self.target = f"({', '.join(schema.columns[index].name for index in columns)})"
        self._scope = _UpsertScope(schema, subqueries)
        self._assignments: list[tuple[str, Evaluator]] | None = None
        self._where: Evaluator | None = None
        if conflict.action == "update":
            self._assignments = [
                (schema.columns[column_index(schema, each.column)].name,
                 compile_expression(level.resolve(each.value), self._scope))
                for each in conflict.assignments
            ]  # fmt: skip
            if conflict.where is not None:
                self._where = compile_expression(level.resolve(conflict.where), self._scope)

    def run(
        self, write: WriteView, names: list[str], columns: list[list[Any]], bindings: Bindings
    ) -> Iterator[tuple[int, bool]]:
        """Insert or update each row in turn; the rowids of those, and whether they are new."""
        for row in zip(*columns, strict=True):
            write.database.check_interrupted()
            given = dict(zip(names, row, strict=True))
            self._check_nulls(given)
            if self._schema.checks:
                one = {name: [value] for name, value in given.items()}
                write.check_rows(self._schema.name, one, 1)
            collection = write.collection(self._schema.name)
            existing = self._existing(collection, given)
            if existing is None:
                one = {name: [value] for name, value in given.items()}
                (rowid,) = write.insert(self._schema.name, one, 1, "error").tolist()
                yield rowid, True
            elif self._assignments is not None:
                changed = self._update(write, collection, existing, (given, bindings))
                if changed is not None:
                    yield changed, False

    def _check_nulls(self, given: dict[str, Any]) -> None:
        """NULL in a NOT NULL column is an error even where the row would not be inserted."""
        for column in self._schema.columns:
            if column.generated is not None:
                continue  # it is NULL where its source is, which the writer refuses
            if column.not_null and given.get(column.name, column.default) is None:
                raise IntegrityError(
                    f"NOT NULL constraint failed: {self._schema.name}.{column.name}"
                )

    def _existing(self, collection: CollectionView, given: dict[str, Any]) -> int | None:
        """The rowid of the row that the new one conflicts with, or None."""
        for columns, info in self._keys:
            stored = tuple([self._stored(index, given) for index in columns])
            if None in stored:
                continue
            if info is None:
                rowid = collection.find(columns[0], stored[0])
            else:
                rowid = entry_of(collection, info, stored if len(columns) > 1 else stored[0])
            if rowid is not None:
                return rowid
        return None

    def _stored(self, index: int, given: dict[str, Any]) -> Any:
        column = self._schema.columns[index]
        value = given.get(column.name, column.default)
        return store_scalar(column, value, self._schema.name)

    def _update(
        self,
        write: WriteView,
        collection: CollectionView,
        rowid: int,
        context: tuple[dict[str, Any], Bindings],
    ) -> int | None:
        """Change the row that is there; its rowid afterwards, None where WHERE spares it."""
        given, bindings = context
        assert self._assignments is not None
        place = collection.place(rowid)
        assert place is not None
        row = tuple([
            self._value(collection, place, source, (rowid, given)) for source in self._scope.sources
        ])  # fmt: skip
        if self._where is not None and not truth(self._where(row, bindings)):
            return None
        changes = {name: [run(row, bindings)] for name, run in self._assignments}
        write.update(self._schema.name, [rowid], changes)
        alias = self._schema.rowid_alias
        if alias is not None and self._schema.columns[alias].name in changes:
            return int(changes[self._schema.columns[alias].name][0])
        return rowid

    def _value(
        self,
        collection: CollectionView,
        place: tuple[int, int],
        source: int | str,
        row: tuple[int, dict[str, Any]],
    ) -> Any:
        rowid, given = row
        if source == ROWID:
            return rowid
        if isinstance(source, int):
            return collection.row(place, (source,))[0]
        column = self._schema.columns[int(source.split()[1])]
        value = given.get(column.name, column.default)
        if column.is_vector:
            return value
        return python_value(column, store_scalar(column, value, self._schema.name))
