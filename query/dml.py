"""UPDATE and DELETE, and what they share with INSERT: the target, and RETURNING."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from m2mdb.index.slices import emptied, watched
from m2mdb.index.view import WriteView
from m2mdb.pager.errors import IntegrityError, ProgrammingError
from m2mdb.query.ast import Delete, Update
from m2mdb.query.binder import Output, outputs_of
from m2mdb.query.conflicts import IN_TURN, UpdateInTurn
from m2mdb.query.correlation import Level
from m2mdb.query.functions import Bindings
from m2mdb.query.nodes import Expression, SelectItem
from m2mdb.query.placed_names import column_index, located
from m2mdb.query.plan import Explained, Plan
from m2mdb.query.planner import plan_access
from m2mdb.query.projection import Columns, Projection
from m2mdb.query.result import Result
from m2mdb.query.scope import ROWID, RowScope, Subqueries
from m2mdb.query.select import has_aggregate, refuse_aggregates
from m2mdb.query.system_tables import system_schema

if TYPE_CHECKING:
    from m2mdb.index.collection import CollectionView
    from m2mdb.index.schema import CollectionSchema
    from m2mdb.index.view import View
    from m2mdb.query.planning import Planner


class PlacedRows:
    """Rows by their rowids, in the order given, as they stand now."""

    __slots__ = ("_collection", "_places", "_rowids")

    def __init__(self, collection: CollectionView, rowids: Sequence[int]) -> None:
        self._collection = collection
        self._rowids = list(rowids)
        places = [collection.place(rowid) for rowid in watched(self._rowids, collection.check)]
        self._places = [place for place in places if place is not None]
        assert len(places) == len(self._places), "RETURNING reads rows that are there"

    def __len__(self) -> int:
        return len(self._rowids)

    def column(self, source: int) -> list[Any]:
        """The values of a column, or of ROWID."""
        if source == ROWID:
            return self._rowids
        parts = self._collection.parts()
        places = watched(self._places, self._collection.check)
        return [parts[part].value(source, ordinal) for part, ordinal in places]


def target_schema(view: View, name: str) -> CollectionSchema:
    """The schema of a collection that a statement writes to.

    Raises ProgrammingError: no such collection, or a system table.
    """
    with located(name):
        if system_schema(name) is not None:
            raise ProgrammingError(f"{name} is a system table and cannot be changed")
        return view.collection(name).schema


class Returning:
    """RETURNING of a writing statement."""

    __slots__ = ("_projection",)

    def __init__(self, items: Sequence[SelectItem], scope: RowScope, level: Level) -> None:
        outputs = outputs_of(items, scope)
        for output in outputs:
            output.expression = level.resolve(output.expression)
        if any(has_aggregate(output.expression) for output in outputs):
            raise ProgrammingError("RETURNING takes no aggregates")
        self._projection = Projection(outputs, scope)

    def columns(self) -> tuple[list[str], list[str | None]]:
        """Names and types of the columns."""
        return self._projection.names, self._projection.types

    def rows(self, rows: Columns, bindings: Bindings) -> list[tuple[Any, ...]]:
        """The columns of some rows."""
        return self._projection.rows(rows, bindings)


class WritePlan(Plan):
    """Base of INSERT, UPDATE and DELETE."""

    __slots__ = ("level", "name", "returning", "schema", "scope")

    def __init__(
        self,
        collection: str,
        returning: Sequence[SelectItem] | None,
        context: tuple[View, Planner, Subqueries],
    ) -> None:
        view, _, subqueries = context
        super().__init__(subqueries.first)
        self.schema = target_schema(view, collection)
        self.name = self.schema.name.lower()
        self.tables.append((self.name, self.schema))
        self.scope = RowScope(self.schema, subqueries)
        self.level = Level(self, self.scope, context)
        self.returning: Returning | None = None
        if returning is not None:
            self.returning = Returning(returning, self.scope, self.level)

    def condition(self, where: Expression | None) -> Expression | None:
        """WHERE, ready to be planned."""
        if where is None:
            return None
        self.level.clause = "WHERE"
        where = self.level.resolve(where)
        self.level.clause = ""
        refuse_aggregates(where, "WHERE")
        return where

    def columns(self) -> tuple[list[str], list[str | None]]:
        """Names and types of RETURNING's columns; nothing without it."""
        return ([], []) if self.returning is None else self.returning.columns()

    def result(
        self,
        rows: list[tuple[Any, ...]] | None,
        rowcount: int,
        lastrowid: int | None = None,
        failure: IntegrityError | None = None,
    ) -> Result:
        """The outcome; `rows` are RETURNING's, `failure` is OR FAIL's (CF2)."""
        if self.returning is None:
            found = Result(rowcount=rowcount, lastrowid=lastrowid)
        else:
            names, types = self.returning.columns()
            found = Result(names, rows or [], rowcount=rowcount, lastrowid=lastrowid, types=types)
        found.failure = failure
        return found


class UpdatePlan(WritePlan):
    """UPDATE: the new values are computed over the old rows, then written at once."""

    __slots__ = ("_access", "_changed", "_or_action", "_projection")

    def __init__(self, statement: Update, view: View, count: int, planner: Planner) -> None:
        subqueries = Subqueries(count)
        super().__init__(statement.collection, statement.returning, (view, planner, subqueries))
        self._or_action = statement.or_action
        self._access = plan_access(self.condition(statement.where), self.scope)
        assignments = {
            column_index(self.schema, each.column): each for each in statement.assignments
        }
        self._changed = list(assignments)
        for each in assignments.values():
            refuse_aggregates(each.value, "SET")
        resolve = self.level.resolve
        outputs = [Output(each.column, resolve(each.value)) for each in assignments.values()]
        self._projection = Projection(outputs, self.scope)
        self.prepare_inner(subqueries, view, planner)

    def written_names(self) -> set[str]:
        """The columns that get values, in lower case."""
        return {self.schema.columns[index].name.lower() for index in self._changed}

    def values_at(self, view: View, bindings: Bindings) -> dict[str, list[Any]]:
        """What the columns would get at this snapshot, by their names in lower case."""
        bindings = self.bind_inner(view, bindings.program_values(self.parameter_count))
        collection, check = view.collection(self.name), view.database.check_interrupted
        rows = self._access.select(collection, bindings, check)
        if not rows.column(ROWID):
            return {}
        columns = self._projection.columns(rows, bindings)
        names = [self.schema.columns[index].name.lower() for index in self._changed]
        return {name: list(values) for name, values in zip(names, columns, strict=True)}

    def run(self, view: View, bindings: Bindings) -> Result:
        """Execute inside a writing statement."""
        assert isinstance(view, WriteView), "the executor runs writes in writing()"
        write = view
        bindings = self.bind_inner(view, bindings)
        collection = view.collection(self.name)
        rows = self._access.select(collection, bindings, view.database.check_interrupted)
        rowids = rows.column(ROWID)
        if not rowids:
            return self.result(None, 0)
        columns = self._projection.columns(rows, bindings)
        if self._or_action in IN_TURN:
            return self._run_in_turn(write, rowids, columns, bindings)
        names = [self.schema.columns[index].name for index in self._changed]
        count = write.update(self.name, rowids, dict(zip(names, columns, strict=True)))
        returned = None
        if self.returning is not None:
            alias = self.schema.rowid_alias
            changed = rowids
            if alias in self._changed:
                changed = [int(value) for value in columns[self._changed.index(alias)]]
            placed = PlacedRows(view.collection(self.name), changed)
            returned = self.returning.rows(placed, bindings)
        emptied(bindings.check, rowids, *columns)
        return self.result(returned, count)

    def _run_in_turn(
        self, write: WriteView, rowids: list[int], columns: list[Any], bindings: Bindings
    ) -> Result:
        """OR IGNORE, OR REPLACE, OR FAIL: row by row."""
        returned: list[tuple[Any, ...]] = []
        count = 0
        update = UpdateInTurn(self.schema, self._changed, self._or_action or "")
        for rowid in update.run(write, rowids, columns):
            count += 1
            if self.returning is not None:
                placed = PlacedRows(write.collection(self.name), [rowid])
                returned += self.returning.rows(placed, bindings)
        return self.result(returned, count, failure=update.failure)

    def explain(self, view: View) -> Explained:
        """How the rows are found."""
        name = self.schema.name
        described = self._access.describe(name)
        return [(0, f"UPDATE {name}"), (1, described), *self.explain_inner(view)]


class DeletePlan(WritePlan):
    """DELETE."""

    __slots__ = ("_access",)

    def __init__(self, statement: Delete, view: View, count: int, planner: Planner) -> None:
        subqueries = Subqueries(count)
        super().__init__(statement.collection, statement.returning, (view, planner, subqueries))
        self._access = plan_access(self.condition(statement.where), self.scope)
        self.prepare_inner(subqueries, view, planner)

    def run(self, view: View, bindings: Bindings) -> Result:
        """Execute inside a writing statement."""
        assert isinstance(view, WriteView), "the executor runs writes in writing()"
        write = view
        bindings = self.bind_inner(view, bindings)
        collection = view.collection(self.name)
        rows = self._access.select(collection, bindings, view.database.check_interrupted)
        returned = None if self.returning is None else self.returning.rows(rows, bindings)
        rowids = rows.column(ROWID)
        count = write.delete(self.name, rowids) if rowids else 0
        emptied(bindings.check, rowids)
        return self.result(returned, count)

    def explain(self, view: View) -> Explained:
        """How the rows are found."""
        name = self.schema.name
        described = self._access.describe(name)
        return [(0, f"DELETE FROM {name}"), (1, described), *self.explain_inner(view)]
