"""Nodes of row values; see `query.rows`."""

from __future__ import annotations

from m2mdb.query.nodes import Expression


class RowValue(Expression):
    """`(a, b)`: stands only where the parser takes it apart, as in `(a, b) = (1, 2)`."""

    __slots__ = ("items",)

    def __init__(self, items: list[Expression], position: int) -> None:
        self.position = position
        self.items = items


class RowIn(Expression):
    """`(a, b) [NOT] IN (SELECT …)`.

    affinities  what each of the query's columns is converted by, once that is known
    """

    __slots__ = ("affinities", "negated", "operands", "values")

    def __init__(
        self,
        operands: list[Expression],
        values: Expression,
        negated: bool,
        position: int,
        affinities: list[str] | None = None,
    ) -> None:
        self.position = position
        self.operands = operands
        self.values = values
        self.negated = negated
        self.affinities = affinities


class SubqueryColumn(Expression):
    """One value of the row that `(SELECT a, b …)` gives: of `width`, the one at `index`."""

    __slots__ = ("index", "query", "width")

    def __init__(self, query: Expression, index: int, width: int, position: int) -> None:
        self.position = position
        self.query = query
        self.index = index
        self.width = width
