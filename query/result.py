"""Results: what a statement gives back to the program."""

from __future__ import annotations

from typing import Any

from m2mdb.index.slices import Check, unchecked
from m2mdb.pager.errors import IntegrityError
from m2mdb.query.affinity import COLLATED, base_type


def base_types(types: list[str | None] | None) -> list[str | None] | None:
    """Column types without their collations; the same list where there are none."""
    if types is None or not any(each is not None and each.endswith(COLLATED) for each in types):
        return types
    return [base_type(each) for each in types]


class Result:
    """The outcome of one statement.

    columns    the names of its columns, or None for a statement without rows
    rows       all rows, as tuples; they are copies that outlive the snapshot
    rowcount   rows changed by INSERT, UPDATE, DELETE; -1 for all others
    lastrowid  the rowid of the last inserted row; None where nothing was inserted
    types      the declared type of each column, None where it is computed; or None
    failure    the violation that ended an OR FAIL, to be raised when the statement has ended
    data       the columns as arrays, of a large result whose rows were not asked for yet; or None
    """

    __slots__ = ("columns", "failure", "lastrowid", "rowcount", "rows", "types")

    def __init__(
        self,
        columns: list[str] | None = None,
        rows: list[tuple[Any, ...]] | None = None,
        *,
        rowcount: int = -1,
        lastrowid: int | None = None,
        types: list[str | None] | None = None,
    ) -> None:
        self.columns = columns
        self.rows: list[tuple[Any, ...]] = [] if rows is None else rows
        self.rowcount = rowcount
        self.lastrowid = lastrowid
        self.types = base_types(types)
        self.failure: IntegrityError | None = None

    @property
    def data(self) -> Any:
        """Nothing: the rows are there; see `query.columnar`."""
        return None

    def made(self, check: Check = unchecked) -> list[tuple[Any, ...]]:
        """The rows; `check` is called between slices of the work of making them, and may raise."""
        return self.rows

    def __repr__(self) -> str:
        if self.columns is None:
            return f"<Result: {self.rowcount} rows changed>"
        return f"<Result: {len(self.rows)} rows of {', '.join(self.columns)}>"
