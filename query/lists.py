"""Tables in memory: rows that are no collection's, read as one is.

`SELECT` without FROM, the system's tables and a query in FROM become a ListView: one part whose
columns are lists. It has what selections and predicates ask of a `CollectionView`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from m2mdb.index.schema import closest
from m2mdb.index.slices import Check, columns_of, counting_up, unchecked
from m2mdb.pager.errors import ProgrammingError
from m2mdb.query.affinity import base_type


class ListColumn:
    """A column's name and type; None: any type."""

    __slots__ = ("is_key", "name", "primary_key", "type", "unique", "value_type")

    def __init__(self, name: str, type: str | None) -> None:
        self.name = name
        self.type = base_type(type)
        self.value_type = type
        self.primary_key = False
        self.unique = False
        self.is_key = False


class ListSchema:
    """The columns of a table in memory."""

    __slots__ = ("_positions", "columns", "name", "rowid_alias", "shown_columns")

    def __init__(self, name: str, columns: Sequence[tuple[str, str | None]]) -> None:
        self.name = name
        self.columns = tuple(ListColumn(*column) for column in columns)
        self.shown_columns = tuple(range(len(self.columns)))  # what `*` stands for
        self.rowid_alias: int | None = None
        self._positions: dict[str, int] = {}
        for index, column in enumerate(self.columns):
            self._positions.setdefault(column.name.lower(), index)

    def position(self, name: str) -> int | None:
        """The index of a column by its name, or None."""
        return self._positions.get(name.lower())

    def column(self, name: str) -> int:
        """The index of a column by its name; ProgrammingError where there is none."""
        found = self.position(name)
        if found is None:
            where = f" in {self.name}" if self.name else ""
            close = closest(name, self._positions)
            hint = f"; did you mean {self.columns[self._positions[close]].name}?" if close else ""
            raise ProgrammingError(f"no such column: {name}{where}{hint}")
        return found

    def btree_on(self, column_index: int) -> None:
        """A table in memory has no index."""


class ListPart:
    """All rows of a table in memory."""

    __slots__ = ("_columns", "live", "rowids", "size")

    def __init__(self, columns: Sequence[list[Any]], size: int, check: Check) -> None:
        self._columns = columns
        self.size = size
        self.rowids = counting_up(1, size, check)
        self.live: np.ndarray | None = None

    def values(self, column_index: int, ordinals: np.ndarray | None = None) -> list[Any]:
        """The values of some or all rows; the list may be shared."""
        found = self._columns[column_index]
        return found if ordinals is None else [found[row] for row in ordinals.tolist()]

    def numbers(self, column_index: int) -> tuple[np.ndarray, np.ndarray | None] | None:
        """No column is an array."""
        return None


class ListView:
    """A table in memory."""

    __slots__ = ("_part", "check", "schema")

    def __init__(
        self,
        schema: ListSchema,
        rows: Sequence[tuple[Any, ...]],
        check: Check = unchecked,
        columns: Sequence[list[Any]] | None = None,
    ) -> None:
        """Of rows; or of `columns`, each a list, where these are there already.

        check  called between slices of long work; it may raise
        """
        self.schema = schema
        self.check = check
        if columns is None:
            columns = columns_of(rows, len(rows[0]) if rows else len(schema.columns), check)
        self._part = ListPart(columns, len(columns[0]) if columns else len(rows), check)

    def parts(self) -> tuple[ListPart, ...]:
        """The one part."""
        return (self._part,)

    def count(self) -> int:
        """How many rows there are."""
        return self._part.size

    def place(self, rowid: int) -> tuple[int, int] | None:
        """Where a row is, or None."""
        return (0, rowid - 1) if 1 <= rowid <= self._part.size else None


NO_TABLE = ListSchema("", ())
