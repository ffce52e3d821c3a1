"""Terms of `query.predicate` for what is made of a column's values, against a constant.

CollatedCompare   texts under the column's collation: both sides are folded; where the column has a
                  dictionary, each of its values once
ComputedCompare   a function of the column, many values at a time (`query.column_ways`)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from m2mdb.index.dictionary import tested
from m2mdb.index.slices import SLICE_VALUES, slices
from m2mdb.query.affinity import NONE
from m2mdb.query.column_ways import ColumnWay, column_way
from m2mdb.query.comparison import DIRECT_OPERATORS, fold_of_type
from m2mdb.query.conditions import Evaluator, affinity_of, collation_of
from m2mdb.query.constants import is_constant
from m2mdb.query.expression import compile_expression
from m2mdb.query.functions import SLICE, Bindings
from m2mdb.query.nodes import Binary
from m2mdb.query.scope import RowScope

if TYPE_CHECKING:
    from m2mdb.index.collection import SegmentPart
    from m2mdb.query.predicate import Ordinals, Part, Term

TEXTS, CLOSURES = 1, 3  # the costs of a value a row and of a closure, as in `query.predicate`
_COMPLEMENT = {"=": "!=", "!=": "=", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}
_ABSENT = {type(None)}


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


def by_way(node: Binary, scope: RowScope, wanted: bool, closure: Callable[..., Term]) -> Term:
    """A comparison whose left side has a way by columns; `closure` makes the term of all others."""
    rows = closure(node, scope, wanted)
    own = scope.sibling()
    found = column_way(node.left, own)
    if found is None or node.operator not in DIRECT_OPERATORS or not is_constant(node.right):
        return rows
    if affinity_of(node.right, own) != NONE or collation_of(own, node.left, node.right):
        return rows
    source = own.sources[found[0]]
    symbol = node.operator if wanted else _COMPLEMENT[node.operator]
    if not isinstance(source, int) or source < 0:
        return rows
    return ComputedCompare(source, found[1], (symbol, compile_expression(node.right, own)), rows)


class ComputedCompare:
    """`function(column) operator constant`; NULL is never wanted."""

    __slots__ = ("_column", "_constant", "_fallback", "_symbol", "_way", "cost")

    def __init__(
        self, column: int, way: ColumnWay, comparison: tuple[str, Evaluator], fallback: Term
    ) -> None:
        """`fallback`: the same condition row by row."""
        self._column = column
        self._way = way
        self._symbol, self._constant = comparison
        self._fallback = fallback
        self.cost = CLOSURES  # it falls back to one, which may meet faults (V2)

    def mask(self, part: Part, rows: Ordinals, bindings: Bindings) -> np.ndarray:
        """For which of the rows (all, where None) it holds."""
        constant = self._constant((), bindings)
        if type(constant) is str:
            kinds: set[type] = {str}
        elif type(constant) is int or type(constant) is float:
            kinds = {int, float}
        else:
            return self._fallback.mask(part, rows, bindings)
        values, apply = part.values(self._column, rows), DIRECT_OPERATORS[self._symbol]
        passed = np.empty(len(values), bool)
        for some in slices(len(values), SLICE, bindings.check):
            found = self._way(values[some])
            if found is None or not set(map(type, found)) - _ABSENT <= kinds:
                return self._fallback.mask(part, rows, bindings)
            passed[some] = [value is not None and apply(value, constant) for value in found]
        return passed

    def blocks(self, part: SegmentPart, bindings: Bindings) -> None:
        """What a function gives, bounds do not tell."""
