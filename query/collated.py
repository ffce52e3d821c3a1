"""A column of texts with a collation against a constant, over whole parts (see `query.predicate`).

Both are folded before they are compared; where the column has a dictionary, each of its values is
folded once, and not each row's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from m2mdb.index.dictionary import tested
from m2mdb.index.slices import SLICE_VALUES, slices
from m2mdb.query.comparison import DIRECT_OPERATORS, fold_of_type
from m2mdb.query.functions import Bindings

if TYPE_CHECKING:
    from m2mdb.index.collection import SegmentPart
    from m2mdb.query.conditions import Evaluator
    from m2mdb.query.predicate import Ordinals, Part, Term

TEXTS = 1  # the cost of a value a row, as in `query.predicate`


class CollatedCompare:
    """`column operator constant` under the column's collation; NULL is never wanted."""

    __slots__ = ("_column", "_constant", "_fallback", "_fold", "_symbol", "cost")

    def __init__(
        self, column: int, type: str | None, comparison: tuple[str, Evaluator], fallback: Term
    ) -> None:
        """`type` names the collation; `fallback`: the condition for constants that are no texts."""
        fold = fold_of_type(type)
        assert fold is not None, f"{type} has a collation"
        self._column = column
        self._fold = fold
        self._symbol, self._constant = comparison
        self._fallback = fallback
        self.cost = TEXTS

    def mask(self, part: Part, rows: Ordinals, bindings: Bindings) -> np.ndarray:
        """For which of the rows (all, where None) it holds."""
        constant = self._constant((), bindings)
        if constant is not None and type(constant) is not str:
            return self._fallback.mask(part, rows, bindings)
        if constant is None:
            return np.zeros(part.size if rows is None else len(rows), bool)
        test = self._test(self._fold(constant))
        found = tested(part, self._column, rows, test)
        if found is not None:
            return found
        values = part.values(self._column, rows)
        passed = np.empty(len(values), bool)
        for some in slices(len(values), SLICE_VALUES, bindings.check):
            passed[some] = [value is not None and test(value) for value in values[some]]
        return passed

    def _test(self, constant: Any) -> Callable[[Any], bool]:
        apply, fold = DIRECT_OPERATORS[self._symbol], self._fold
        return lambda value: apply(fold(value), constant)

    def blocks(self, part: SegmentPart, bindings: Bindings) -> None:
        """Zone maps are of numbers."""
