"""Estimates: what a way to the rows costs, and how many rows a condition leaves.

    scan        rows x SCAN of the condition's kind: NumPy, a value a row, a pattern, a closure
    look-up     candidates x LOOKUP: an index entry, its place, the row's values

in microseconds, as both took over 300,000 rows on one core. An index is read no further than the
scan would cost, and then given up for the scan: so the better way is found without statistics at
twice its cost at most. With those of ANALYZE a hopeless index is not begun, and of several the
one with the fewest rows is taken. What a parameter will be is not known while a plan is made: any
of the column's values, in the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from m2mdb.index.values import store_scalar
from m2mdb.pager.errors import Error
from m2mdb.query.functions import Bindings
from m2mdb.query.scope import ROWID

if TYPE_CHECKING:
    from m2mdb.index.collection import CollectionView
    from m2mdb.index.statistics import ColumnStatistics
    from m2mdb.query.conditions import Evaluator
    from m2mdb.query.predicate import Term

LOOKUP = 2.0
SCAN = (0.002, 0.05, 0.2, 0.5)  # by the cost class of a term: see `query.predicate`
FEWEST = 64  # candidates that are always looked up
UNKNOWN_EQUAL, UNKNOWN_RANGE, UNKNOWN_OTHER = 0.05, 0.3, 0.5  # shares where nothing is known

Comparison = tuple[int, str, "Evaluator"]


def scan_cost(term: Term | None) -> float:
    """Microseconds a row of a scan; the first term of AND sees all rows, the others a part."""
    if term is None:
        return 0.0
    inner: Sequence[Term] | None = getattr(term, "terms", None)
    if inner is None:
        return SCAN[term.cost]
    costs = sorted(scan_cost(each) for each in inner)
    return costs[0] + sum(costs[1:]) * UNKNOWN_RANGE


def most_candidates(rows: int, term: Term | None) -> int:
    """How many candidates cost what the scan costs."""
    return max(FEWEST, int(rows * scan_cost(term) / LOOKUP))


class Figures:
    """What is known of a collection while a plan is made: its rows, and what ANALYZE counted."""

    __slots__ = ("_by_index", "_columns", "_name", "rows")

    def __init__(self, view: CollectionView) -> None:
        schema = view.schema
        self.rows = view.count()
        self._name = schema.name
        self._columns = schema.columns
        statistics = getattr(view.entry, "statistics", {})
        self._by_index: dict[int, ColumnStatistics] = {
            index: statistics[column.id]
            for index, column in enumerate(schema.columns)
            if column.id in statistics
        }

    @property
    def has_statistics(self) -> bool:
        """Whether ANALYZE has been here."""
        return bool(self._by_index)

    def share(self, comparisons: Sequence[Comparison]) -> float:
        """The share of the rows that comparisons of one column with constants leave."""
        column = comparisons[0][0]
        known = self._by_index.get(column)
        equal = [each for each in comparisons if each[1] == "="]
        if equal and (column == ROWID or self._columns[column].is_key):
            return 1 / max(1, self.rows)
        if known is None:
            return UNKNOWN_EQUAL if equal else UNKNOWN_RANGE
        if equal:
            return known.equal_share(self._constant(column, equal[0][2]))
        low = high = None
        for _, symbol, constant in comparisons:
            if symbol in (">", ">="):
                low = self._constant(column, constant)
            elif symbol in ("<", "<="):
                high = self._constant(column, constant)
        if low is None and high is None:
            return UNKNOWN_RANGE
        return known.range_share(low, high)

    def _constant(self, column: int, evaluate: Evaluator) -> Any:
        """A constant in stored form, where it is known already; None for a parameter."""
        try:
            value = evaluate((), Bindings())
            return store_scalar(self._columns[column], value, self._name)
        except (Error, LookupError, AssertionError, TypeError):
            return None  # bound later, or of another kind: then any value is as likely
