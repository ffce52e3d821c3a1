"""Planning a query: which planner it goes to, and what it may name beside collections.

A `Planner` is called with a query and gives its plan. It knows the tables of WITH that are in
sight and, for a subquery, the query around it (`query.correlation`); both are handed on to the
queries inside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from m2mdb.pager.errors import NotSupportedError, PlacedFault

if TYPE_CHECKING:
    from m2mdb.index.view import View
    from m2mdb.query.ast import Query
    from m2mdb.query.correlation import Outer
    from m2mdb.query.nodes import CommonTable
    from m2mdb.query.plan import Plan
    from m2mdb.query.result import Result

Dispatch = Callable[["Query", "View", int, "Planner"], "Plan"]


class Planner:
    """Plans queries at one place of a statement."""

    __slots__ = ("_dispatch", "common", "outer")

    def __init__(
        self,
        dispatch: Dispatch,
        common: dict[str, Common] | None = None,
        outer: Outer | None = None,
    ) -> None:
        """`dispatch` chooses the plan by the query's kind."""
        self._dispatch = dispatch
        self.common: dict[str, Common] = common or {}
        self.outer = outer

    def __call__(self, query: Query, view: View, count: int) -> Plan:
        """The plan of a query in a statement with `count` parameters."""
        return self._dispatch(query, view, count, self)

    def inside(self, outer: Outer) -> Planner:
        """The planner of a subquery."""
        return Planner(self._dispatch, self.common, outer)

    def with_tables(self, tables: Sequence[CommonTable], view: View, count: int) -> Planner:
        """The planner of what stands behind WITH; each table sees those before it.

        Raises ProgrammingError: a name that is given twice.
        """
        planner, seen = self, set()
        for table in tables:
            name = table.name.lower()
            if name in seen:
                raise PlacedFault(f"duplicate WITH table name: {table.name}", table.position)
            seen.add(name)
            known = dict(planner.common)
            known[name] = Common(table, planner, (view, count))
            planner = Planner(self._dispatch, known, self.outer)
        return planner


class Common:
    """One table of WITH: planned when it is first named, run once for each run of its statement."""

    __slots__ = ("_context", "_is_open", "_plan", "_planner", "_table", "is_correlated", "names")

    def __init__(self, table: CommonTable, planner: Planner, context: tuple[View, int]) -> None:
        self._table = table
        self._planner = planner
        self._context = context
        self._plan: Plan | None = None
        self._is_open = False
        self.is_correlated = False
        self.names: list[str] = []

    def plan(self, planner: Planner) -> Plan:
        """Its plan, for a query that `planner` plans.

        Raises ProgrammingError: it names itself; another number of columns than it lists.
        NotSupportedError: it reads an outer row, and is named from further inside.
        """
        if self._plan is None:
            self._plan = self._made()
        if self.is_correlated and planner.outer is not self._planner.outer:
            raise NotSupportedError(
                f"WITH table {self._table.name} reads the row of the query around it and is named "
                "in a subquery: that is not built yet"
            )
        return self._plan

    def _made(self) -> Plan:
        table = self._table
        if self._is_open:
            raise PlacedFault(f"circular reference: {table.name}", table.position)
        itself = dict(self._planner.common)
        itself[table.name.lower()] = self
        outer = self._planner.outer
        taken = 0 if outer is None else len(outer.references)
        planner = Planner(self._planner._dispatch, itself, outer)
        self._is_open = True
        try:
            plan = planner(table.query, *self._context)
        finally:
            self._is_open = False
        self.is_correlated = outer is not None and len(outer.references) > taken
        own = plan.columns()[0]
        if table.columns and len(table.columns) != len(own):
            raise PlacedFault(
                f"table {table.name} has {len(own)} values for {len(table.columns)} columns",
                table.position,
            )
        self.names = table.columns or own
        return plan

    def rows(self, view: View, bindings: Bindings) -> Result:
        """What it gives, run once for the statement's run unless it reads an outer row."""
        assert self._plan is not None
        if self.is_correlated:
            return self._plan.run(view, bindings)
        found = bindings.shared.get(self)
        if found is None:
            found = bindings.shared[self] = self._plan.run(view, bindings)
        return found


if TYPE_CHECKING:
    from m2mdb.query.functions import Bindings
