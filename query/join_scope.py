"""The names of a join: columns of several tables, USING and NATURAL among them.

A name without a table must belong to one table alone, unless USING has made the columns of that
name one. `*` gives each merged column once, at the place of the first table that has it.
"""

from __future__ import annotations

from collections.abc import Sequence

from m2mdb.index.schema import closest
from m2mdb.pager.errors import PlacedFault
from m2mdb.query.joined import Layout
from m2mdb.query.nodes import ColumnRef, Expression, FunctionCall, Star
from m2mdb.query.scope import RowScope, Slot, Subqueries
from m2mdb.query.sources import Leaf

PIN = "\0"  # before a table's number, where a reference names the table and no alias can


class Merged:
    """Columns that USING has made one: of which tables, and whether any of them may be missing."""

    __slots__ = ("is_padded", "tables")

    def __init__(self, table: int) -> None:
        self.tables = [table]
        self.is_padded = False


class JoinScope(RowScope):
    """The columns of all tables of a FROM."""

    __slots__ = ("layout", "leaves", "merged")

    def __init__(
        self, leaves: Sequence[Leaf], merged: dict[str, Merged], subqueries: Subqueries
    ) -> None:
        super().__init__(None, subqueries)
        self.leaves = leaves
        self.merged = merged
        self.layout = Layout([len(leaf.schema.columns) for leaf in leaves])

    def sibling(self) -> JoinScope:
        """A scope of the same names whose row begins anew."""
        return JoinScope(self.leaves, self.merged, self.subqueries)

    def owners(self, reference: ColumnRef) -> list[int]:
        """The tables that have a column of a name; those that share it by USING count as one."""
        table = reference.table
        if table is not None and table.startswith(PIN):
            return [int(table[1:])]
        found = [
            number
            for number, leaf in enumerate(self.leaves)
            if (table is None or table.lower() == leaf.name)
            and leaf.schema.position(reference.name) is not None
        ]
        merged = self.merged.get(reference.name.lower())
        if table is None and merged is not None and set(found) <= set(merged.tables):
            return merged.tables[:1]
        return found

    def place(self, reference: ColumnRef) -> tuple[int, int]:
        """The table and the column (−1: the rowid) that a name means.

        Raises ProgrammingError: it is nobody's, or of several tables.
        """
        owners = self.owners(reference)
        if len(owners) == 1:
            column = self.leaves[owners[0]].schema.position(reference.name)
            return owners[0], -1 if column is None else column
        shown = f"{reference.table}.{reference.name}" if reference.table else reference.name
        if owners:
            raise PlacedFault(f"ambiguous column name: {shown}", reference.position)
        if reference.name.lower() == "rowid":
            tables = self._named(reference.table)
            if len(tables) == 1:
                return tables[0], -1
            if tables:
                raise PlacedFault(f"ambiguous column name: {shown}", reference.position)
        raise PlacedFault(f"no such column: {shown}{self._hint(reference)}", reference.position)

    def _named(self, table: str | None) -> list[int]:
        """The tables that a name before a point may mean."""
        return [
            number
            for number, leaf in enumerate(self.leaves)
            if table is None or leaf.name == table.lower()
        ]

    def _hint(self, reference: ColumnRef) -> str:
        tables = self._named(reference.table)
        if not tables:
            return "; the statement reads " + ", ".join(
                leaf.name or "a query without a name" for leaf in self.leaves
            )
        names = [column.name for number in tables for column in self.leaves[number].schema.columns]
        spelled = {name.lower(): name for name in names}
        close = closest(reference.name, spelled)
        return f"; did you mean {spelled[close]}?" if close else ""

    def column(self, reference: ColumnRef) -> Slot:
        """The place of a name's value; ProgrammingError: no such column, or of several tables."""
        table, column = self.place(reference)
        position = self.position(self.layout.source(table, column))
        if column < 0:
            return Slot(position, "INTEGER")
        return Slot(position, self.leaves[table].schema.columns[column].value_type)

    def has(self, reference: ColumnRef) -> bool:
        """Whether a name is one of this scope's, be it ambiguous."""
        if self.owners(reference):
            return True
        return reference.name.lower() == "rowid" and bool(self._named(reference.table))

    def declared(self, reference: ColumnRef) -> str:
        """A column's name as it was declared; the name as written where it is no column."""
        owners = self.owners(reference)
        if not owners:
            return reference.name
        schema = self.leaves[owners[0]].schema
        column = schema.position(reference.name)
        return reference.name if column is None else str(schema.columns[column].name)

    def hides(self, name: str) -> bool:
        """Whether a column has this name, so that it goes before an alias."""
        return any(leaf.schema.position(name) is not None for leaf in self.leaves)

    def pinned(self, table: int, name: str, position: int) -> ColumnRef:
        """A reference to a table's column, whatever else has the name."""
        return ColumnRef(name, f"{PIN}{table}", position)

    def expansion(self, reference: ColumnRef) -> Expression | None:
        """The first value that is not NULL, where an outer join's USING may pad either side."""
        merged = self.merged.get(reference.name.lower())
        if reference.table is not None or merged is None or not merged.is_padded:
            return None
        return self._coalesced(merged, reference.name, reference.position)

    def _coalesced(self, merged: Merged, name: str, position: int) -> Expression:
        each = [self.pinned(table, name, position) for table in merged.tables]
        return FunctionCall("coalesce", list(each), False, False, position)

    def spread(self, star: Star) -> list[tuple[str, Expression]]:
        """The names and references that `*` or `table.*` stands for."""
        tables = self._named(star.table)
        if not tables:
            names = ", ".join(leaf.name or "a query without a name" for leaf in self.leaves)
            raise PlacedFault(
                f"no such collection in the statement: {star.table}; it reads {names}",
                star.position,
            )
        found: list[tuple[str, Expression]] = []
        for table in tables:
            schema = self.leaves[table].schema
            for column in [schema.columns[index] for index in schema.shown_columns]:
                merged = self.merged.get(column.name.lower())
                if star.table is None and merged is not None and table in merged.tables:
                    if table != merged.tables[0]:
                        continue
                    if merged.is_padded:
                        whole = self._coalesced(merged, column.name, star.position)
                        found.append((column.name, whole))
                        continue
                found.append((column.name, self.pinned(table, column.name, star.position)))
        return found
