"""Plans: what is shared by all statements that read or write collections.

A plan is made once for a statement and runs many times. It remembers the schemas that it was made
for and holds while the view still has those very objects; a schema that was changed, rolled back
or made again is another object, so no number can be mistaken for it (S15).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from m2mdb.index.slices import SLICE_NUMBERS, slices
from m2mdb.pager.errors import ProgrammingError
from m2mdb.query.functions import Bindings
from m2mdb.query.profile import Noted, profile_of
from m2mdb.query.result import Result
from m2mdb.query.scope import Subqueries

if TYPE_CHECKING:
    from m2mdb.index.schema import CollectionSchema
    from m2mdb.index.view import View
    from m2mdb.query.ast import Query

Explained = list[tuple[int, str]]  # depth and text of each line


class Planned:
    """What was made for some schemas: whether it holds still, and its own subqueries."""

    __slots__ = ("correlated", "inner", "parameter_count", "tables")

    def __init__(self, parameter_count: int) -> None:
        self.parameter_count = parameter_count
        self.tables: list[tuple[str, CollectionSchema]] = []
        self.inner: list[tuple[Plan, str]] = []
        self.correlated: list[tuple[Plan, str]] = []  # those that are run for each row

    def is_valid(self, view: View) -> bool:
        """Whether the view still has the schemas that the plan was made for."""
        by_name = view.catalog.by_name
        for name, schema in self.tables:
            entry = by_name.get(name)
            if entry is None or entry.schema is not schema:
                return False
        return all(plan.is_valid(view) for plan, _ in self.inner)

    def all_tables(self) -> list[tuple[str, CollectionSchema]]:
        """The schemas that the plan and its subqueries were made for."""
        found = list(self.tables)
        for plan, _ in self.inner:
            found += plan.all_tables()
        return found

    def prepare_inner(self, subqueries: Subqueries, view: View, planner: QueryPlanner) -> None:
        """Plan the subqueries that compiling has found, but for those that have a plan already."""
        for node, form in subqueries.found:
            known: Any = subqueries.planned.get(id(node))
            plan = known[0] if known else planner(node.query, view, self.parameter_count)
            self.inner.append((plan, form))

    def bind_inner(self, view: View, bindings: Bindings) -> Bindings:
        """The bindings with the subqueries' values behind the program's."""
        bindings.view = view
        if not self.inner:
            return bindings
        given = bindings.program_values(self.parameter_count)
        for plan, form in self.inner:
            own = given.program_values(self.parameter_count)
            bindings.append(inner_value(plan, form, view, own))
        return bindings

    def explain_inner(self, view: View) -> Explained:
        """The lines of the subqueries."""
        lines: Explained = []
        for word, plans in (("", self.inner), ("CORRELATED ", self.correlated)):
            for plan, form in plans:
                lines.append((0, Noted.of(f"{word}{form.upper()} SUBQUERY", plan)))
                lines += [(depth + 1, text) for depth, text in plan.explain(view)]
        return lines


class Plan(Planned, ABC):
    """The plan of a whole statement: what can be run and explained."""

    __slots__ = ()

    @abstractmethod
    def run(self, view: View, bindings: Bindings) -> Result:
        """Execute; bindings hold the program's parameters only."""

    @abstractmethod
    def explain(self, view: View) -> Explained:
        """The lines of EXPLAIN."""

    @abstractmethod
    def columns(self) -> tuple[list[str], list[str | None]]:
        """Names and types of the result's columns."""


QueryPlanner = Callable[["Query", "View", int], Plan]


def inner_value(plan: Plan, form: str, view: View, bindings: Bindings) -> Any:
    """What a subquery gives as a value: its one value, a list, or whether it has rows."""
    profile = profile_of(bindings) if bindings.shared else None
    start = 0.0 if profile is None else profile.clock()
    result = plan.run(view, bindings)
    if profile is not None:
        profile.note(plan, len(result.made(bindings.check)), start)
    if form == "exists":
        return bool(result.made(bindings.check))
    if form in ("row", "rows"):  # of several columns, which were counted while planning
        rows = result.made(bindings.check)
        return list(rows) if form == "rows" else next(iter(rows), None)
    width = len(result.columns or ())
    if width != 1:
        raise ProgrammingError(f"sub-select returns {width} columns - expected 1")
    if form == "list":
        found: list[Any] = []
        rows = result.made(bindings.check)
        for some in slices(len(rows), SLICE_NUMBERS >> 1, bindings.check):
            found += [row[0] for row in rows[some]]
        return found
    rows = result.made(bindings.check)
    return rows[0][0] if rows else None
