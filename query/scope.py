"""Scope: which names an expression may use, and where their values stand in a row.

A row is a tuple. A scope gives each column that is used a position in it, in the order of first
use, so that only those columns are fetched; `sources` says what stands where: a column's index,
ROWID, or the name of a computed column.

A subquery that does not depend on the row is run once, before the statement, and its value is
bound behind the program's parameters; one that does is a node of `query.correlation`.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from m2mdb.index.schema import CollectionSchema, hinted
from m2mdb.pager.errors import PlacedFault, ProgrammingError
from m2mdb.query.nodes import ColumnRef, Expression, Star, Subquery

ROWID = -1
Source = int | str
COMPUTED_TYPES = {"score": "REAL", "distance": "REAL", "bm25": "REAL", "rank": "INTEGER"}


class Slot(NamedTuple):
    """Where a value stands in a row, and its column type; None: any type.

    The type names a collation that is not BINARY: `TEXT COLLATE NOCASE` (`Column.value_type`).
    """

    position: int
    type: str | None


class Scope(Protocol):
    """The names that an expression may use."""

    def column(self, reference: ColumnRef) -> Slot:
        """The place of a name's value; ProgrammingError: no such column."""
        ...

    def replacement(self, node: Expression) -> Slot | None:
        """The place of a whole expression that was computed before, as a group's key was."""
        ...

    def subquery(self, node: Subquery, form: str) -> int:
        """The parameter that will hold a subquery's result: "scalar", "list" or "exists"."""
        ...


class Subqueries:
    """The subqueries of one statement, in the order of their parameters."""

    __slots__ = ("first", "found", "planned")

    def __init__(self, first: int) -> None:
        self.first = first
        self.found: list[tuple[Subquery, str]] = []
        self.planned: dict[int, object] = {}  # the plans that `query.correlation` made, by id

    def add(self, node: Subquery, form: str) -> int:
        """The parameter's index that the result will have; the same for the same node."""
        form = "exists" if node.exists else form
        for number, (known, its_form) in enumerate(self.found):
            if known is node and its_form == form:
                return self.first + number
        self.found.append((node, form))
        return self.first + len(self.found) - 1


class RowScope:
    """The columns of one collection, its rowid, and what the statement computes beside them."""

    __slots__ = ("_positions", "computed", "name", "schema", "sources", "subqueries")

    def __init__(
        self,
        schema: CollectionSchema | None,
        subqueries: Subqueries,
        *,
        name: str | None = None,
        computed: tuple[str, ...] = (),
    ) -> None:
        """`schema` None: no columns at all; `name`: what may stand before a column's point."""
        self.schema = schema
        self.name = (name or (schema.name if schema else "")).lower()
        self.computed = computed
        self.sources: list[Source] = []
        self._positions: dict[Source, int] = {}
        self.subqueries = subqueries

    def sibling(self) -> RowScope:
        """A scope of the same names whose row begins anew."""
        return type(self)(self.schema, self.subqueries, name=self.name, computed=self.computed)

    def position(self, source: Source) -> int:
        """The place of a source in the row, given at its first use."""
        found = self._positions.get(source)
        if found is None:
            found = self._positions[source] = len(self.sources)
            self.sources.append(source)
        return found

    def column(self, reference: ColumnRef) -> Slot:
        """The place of a name's value; ProgrammingError: no such column."""
        schema = self.schema
        if schema is None:
            before = "" if reference.table is None else f"{reference.table}."
            raise PlacedFault(f"no such column: {before}{reference.name}", reference.position)
        if reference.table is not None and reference.table.lower() != self.name:
            raise PlacedFault(
                f"no such column: {reference.table}.{reference.name}; the statement reads "
                f"{self.name or 'a query without a name'}",
                reference.position,
            )
        index = schema.position(reference.name)
        if index is not None:
            return Slot(self.position(index), schema.columns[index].value_type)
        lower = reference.name.lower()
        if lower == "rowid":
            return Slot(self.position(ROWID), "INTEGER")
        if lower in self.computed:
            return Slot(self.position(lower), COMPUTED_TYPES.get(lower))
        try:
            schema.column(reference.name)
        except ProgrammingError as problem:
            message = hinted(str(problem), reference.name, self.computed)
            raise PlacedFault(message, reference.position) from None
        raise AssertionError("column() found what position() did not")

    def has(self, reference: ColumnRef) -> bool:
        """Whether a name is one of this scope's, be it ambiguous."""
        if self.schema is None or not self.schema.columns:
            return False
        if reference.table is not None and reference.table.lower() != self.name:
            return False
        lower = reference.name.lower()
        return self.schema.position(lower) is not None or lower in ("rowid", *self.computed)

    def declared(self, reference: ColumnRef) -> str:
        """A column's name as it was declared; the name as written where it is no column."""
        index = None if self.schema is None else self.schema.position(reference.name)
        if index is None or self.schema is None:
            return reference.name
        return self.schema.columns[index].name

    def hides(self, name: str) -> bool:
        """Whether a column has this name, so that it goes before an alias."""
        return self.schema is not None and self.schema.position(name) is not None

    def spread(self, star: Star) -> list[tuple[str, Expression]]:
        """The names and references that `*` or `table.*` stands for.

        Raises ProgrammingError: no FROM, or another collection's star.
        """
        schema = self.schema
        if schema is None or not schema.columns:
            raise PlacedFault("* needs a collection in FROM", star.position)
        if star.table is not None and star.table.lower() != self.name:
            raise PlacedFault(f"no such collection in the statement: {star.table}", star.position)
        names = [schema.columns[index].name for index in schema.shown_columns]
        return [(name, ColumnRef(name, None, star.position)) for name in names]

    def expansion(self, reference: ColumnRef) -> Expression | None:
        """What a name stands for that is no single column; None for all others."""
        return None

    def replacement(self, node: Expression) -> Slot | None:
        """Nothing is computed before the row is read."""
        return None

    def subquery(self, node: Subquery, form: str) -> int:
        """The parameter that will hold a subquery's result."""
        return self.subqueries.add(node, form)
