"""Pairs: the rows of two sides of a join for which conditions hold that are no equality of keys.

    all pairs --ranges of a sorted column, where a condition gives them--> candidates
    blocks of candidates --terms over arrays--> --the other terms, pair by pair--> pairs

A block of all pairs is a table of some left rows by some right ones: a column of the left side
stands in it as (rows, 1), one of the right side as (1, rows), and NumPy compares all pairs at once.
Texts are compared by their ranks among the texts of both sides.

What takes part: comparisons, BETWEEN, IS NULL, AND, OR and NOT over numbers, booleans, moments and
texts of declared columns, their sums, differences and products, and constants. All else is asked
pair by pair, of the pairs that are left.

Invariants
    PR1 A term over arrays is true for the very pairs for which its closure gives true.
    PR2 Besides what is found, a block of pairs is held at a time; what is found is limited.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple
from typing import Literal as OneOf

import numpy as np

from m2mdb.index.slices import (
    SLICE_NUMBERS,
    SLICE_VALUES,
    distinct_values,
    joined,
    kinds_of,
    mapped,
    number_order,
    slices,
    taken,
    value_order,
)
from m2mdb.pager.errors import OperationalError
from m2mdb.query.affinity import truth
from m2mdb.query.comparison import MIRRORED
from m2mdb.query.conditions import chain
from m2mdb.query.constants import walk
from m2mdb.query.expression import compile_expression
from m2mdb.query.functions import SLICE, Bindings
from m2mdb.query.join_scope import JoinScope
from m2mdb.query.joined import JoinedRows, Numbers, Pairs, Rows, expanded
from m2mdb.query.nodes import (
    Between,
    Binary,
    ColumnRef,
    Expression,
    IsNull,
    Literal,
    Node,
    Parameter,
    Unary,
)
from m2mdb.query.rewriting import rewritten
from m2mdb.query.vectorised import EXACT, Array, bound_of, evaluated

BLOCK_PAIRS = 1 << 17  # pairs that are asked at once: a millisecond
MOST_PAIRS = 1 << 28  # that a join may give: 4 GiB of places
LEAST_PAIRS = 1 << 10  # below which the closures are as quick
SORTED_PAIRS = 1 << 18  # from which a sort for ranges may pay
FEWER = 8  # times fewer candidates than pairs, for which it does
_COMPLEMENT = {"=": "!=", "!=": "=", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt,
    ">=": operator.ge,
}  # fmt: skip
_BOUNDS = ("<", "<=", ">", ">=")
_TEXTS = {str, type(None)}
_NUMBERS = ("INTEGER", "REAL", "BOOLEAN")
Index = Any  # of the rows of a side in a block: a slice with an axis beside it, or places


class Check:
    """Terms that joined rows must pass, asked row by row."""

    __slots__ = ("_evaluate", "_scope")

    def __init__(self, terms: Sequence[Expression], scope: JoinScope) -> None:
        self._scope = scope.sibling()
        self._evaluate = [compile_expression(term, self._scope) for term in terms]

    def passed(self, rows: JoinedRows, bindings: Bindings) -> np.ndarray:
        """The places of the rows that pass."""
        columns = []
        for source in self._scope.sources:
            assert isinstance(source, int), "joins read stored columns only"
            bindings.check()
            columns.append(rows.column(source))
        values = zip(*columns, strict=True) if columns else iter([()] * len(rows))
        evaluate = self._evaluate
        found: list[int] = []
        for start in range(0, len(rows), SLICE):
            bindings.check()
            found += [
                place
                for place, row in enumerate(islice(values, SLICE), start)
                if all(truth(each(row, bindings)) is True for each in evaluate)
            ]
        return np.array(found, np.int64)


class PairCheck:
    """The terms of a step that are no keys, asked of pairs of rows."""

    __slots__ = ("_checks", "_number", "_scope", "_terms")

    def __init__(self, terms: Sequence[Expression], scope: JoinScope, number: int) -> None:
        """`number`: the table that the step joins."""
        self._scope = scope
        self._number = number
        self._terms = list(terms)
        self._checks = [Check([term], scope) for term in terms]

    def passed(self, rows: JoinedRows, table: Rows, pairs: Pairs, bindings: Bindings) -> Pairs:
        """Those pairs for which all terms hold, in their order."""
        if not len(pairs[0]) or not self._terms:
            return pairs
        sides = self._sides(rows, table, bindings, len(pairs[0]))
        found = []
        for some in slices(len(pairs[0]), BLOCK_PAIRS, bindings.check):
            found.append(sides.passed((pairs[0][some], pairs[1][some])))
        return _joined(found, bindings.check)

    def every(self, rows: JoinedRows, table: Rows, bindings: Bindings) -> Pairs:
        """All pairs for which all terms hold, by the left row, then by the right one.

        Raises OperationalError: more than MOST_PAIRS.
        """
        whole = len(rows) * len(table)
        if not self._terms:
            _check_count(whole)
        sides = self._sides(rows, table, bindings, whole)
        ranges = sides.ranges() if whole >= SORTED_PAIRS else None
        blocks = sides.tiles() if ranges is None else sides.candidates(ranges)
        found: list[Pairs] = []
        total = 0
        for block in blocks:
            found.append(block)
            total += len(block[0])
            _check_count(total)
        mine, theirs = _joined(found, bindings.check)
        if ranges is None:
            return mine, theirs
        order = number_order(mine * len(table) + theirs, bindings.check)
        return taken(mine, order, bindings.check), taken(theirs, order, bindings.check)

    def _sides(self, rows: JoinedRows, table: Rows, bindings: Bindings, count: int) -> _Sides:
        """The two sides, with the terms for this run: parameters are constants."""

        def bound(node: Node) -> Node | None:
            return Literal(bindings[node.index], 0) if isinstance(node, Parameter) else None

        terms = [
            _Asked(rewritten(term, bound), check, count >= LEAST_PAIRS)
            for term, check in zip(self._terms, self._checks, strict=True)
        ]
        own = JoinedRows.of_one(self._scope.layout, self._number, table, bindings.check)
        return _Sides(self._scope, terms, (rows, own, table, self._number), bindings)


def _check_count(pairs: int) -> None:
    if pairs > MOST_PAIRS:
        raise OperationalError(
            f"a join of {pairs:,} rows or more: {MOST_PAIRS:,} is the most that one step may give"
        )


def _joined(found: Sequence[Pairs], check: Callable[[], None]) -> Pairs:
    if len(found) == 1:
        return found[0]
    if not found:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    return joined([a for a, _ in found], check), joined([b for _, b in found], check)


class _Asked:
    """A term, with the parameters' values; `is_array`: try it over arrays."""

    __slots__ = ("check", "is_array", "node")

    def __init__(self, node: Expression, check: Check, is_array: bool) -> None:
        self.node = node
        self.check = check
        self.is_array = is_array


class _Ranges(NamedTuple):
    """Candidates: for each row of one side the places `first` to before `first + counts`.

    order     the sorted side's rows in the order of its column
    is_right  whether the right side is the sorted one
    left      the terms that the ranges do not answer
    """

    first: np.ndarray
    counts: np.ndarray
    order: np.ndarray
    is_right: bool
    left: list[_Asked]


class _Bound(NamedTuple):
    """`column symbol other`, the column of one side, the other expression of the other one."""

    column: ColumnRef
    is_right: bool
    symbol: str
    other: Expression
    term: _Asked


class _Sides:
    """Two sides of a join, their columns fetched once, and the terms between them."""

    __slots__ = (
        "_bindings", "_number", "_numbers", "_own", "_ranks", "_rows", "_scope", "_table", "_terms",
    )  # fmt: skip

    def __init__(
        self,
        scope: JoinScope,
        terms: list[_Asked],
        sides: tuple[JoinedRows, JoinedRows, Rows, int],
        bindings: Bindings,
    ) -> None:
        self._scope = scope.sibling()
        self._terms = terms
        self._rows, self._own, self._table, self._number = sides
        self._bindings = bindings
        self._numbers: dict[int, Numbers | None] = {}
        self._ranks: dict[str, int] | None = None

    # ----------------------------------------------------------------- blocks

    def tiles(self) -> Iterator[Pairs]:
        """What passes of all pairs, block by block."""
        count, width = len(self._rows), len(self._table)
        across = min(width, BLOCK_PAIRS)
        for start in range(0, count, max(1, BLOCK_PAIRS // max(1, across))):
            stop = min(count, start + max(1, BLOCK_PAIRS // max(1, across)))
            for low in range(0, width, BLOCK_PAIRS):
                self._bindings.check()
                yield self._tile((start, stop), (low, min(width, low + across)))

    def _tile(self, mine: tuple[int, int], theirs: tuple[int, int]) -> Pairs:
        block = _Block(self, (slice(*mine), None), (None, slice(*theirs)))
        shape = mine[1] - mine[0], theirs[1] - theirs[0]
        mask, left = self._masked(self._terms, block, shape)
        if mask is None:
            mine_found = np.repeat(np.arange(*mine), shape[1])
            pairs = mine_found, np.tile(np.arange(*theirs), shape[0])
        else:
            rows, columns = np.nonzero(mask)
            pairs = rows + mine[0], columns + theirs[0]
        return self._asked(left, pairs)

    def passed(self, pairs: Pairs, terms: list[_Asked] | None = None) -> Pairs:
        """Those of some pairs for which terms hold; None: all of them."""
        block = _Block(self, pairs[0], pairs[1])
        asked = self._terms if terms is None else terms
        mask, left = self._masked(asked, block, pairs[0].shape)
        if mask is not None:
            pairs = pairs[0][mask], pairs[1][mask]
        return self._asked(left, pairs)

    def _masked(
        self, terms: list[_Asked], block: _Block, shape: tuple[int, ...]
    ) -> tuple[np.ndarray | None, list[_Asked]]:
        """For which pairs of a block the terms hold that arrays can tell; the other terms."""
        mask: np.ndarray | None = None
        left = []
        for term in terms:
            found = self._holds(term.node, True, block) if term.is_array else None
            if found is None:
                left.append(term)
                continue
            mask = found if mask is None else mask & found
        return (None if mask is None else np.broadcast_to(mask, shape)), left

    def _asked(self, terms: list[_Asked], pairs: Pairs) -> Pairs:
        """Those of the pairs for which the terms hold, one after the other."""
        for term in terms:
            if not len(pairs[0]):
                break
            beside = self._rows.beside(self._number, self._table, pairs)
            passed = term.check.passed(beside, self._bindings)
            pairs = pairs[0][passed], pairs[1][passed]
        return pairs

    # ----------------------------------------------------------------- terms over arrays

    def _holds(self, node: Expression, wanted: bool, block: _Block) -> np.ndarray | None:
        """For which pairs a condition is the wanted truth; None where arrays cannot tell."""
        if isinstance(node, Unary) and node.operator == "NOT":
            return self._holds(node.operand, not wanted, block)
        if isinstance(node, Between):
            low = Binary(">=", node.operand, node.low, node.position)
            high = Binary("<=", node.operand, node.high, node.position)
            both = Binary("AND", low, high, node.position)
            return self._holds(both, wanted != node.negated, block)
        if isinstance(node, IsNull) and isinstance(node.operand, ColumnRef):
            operand = self._operand(node.operand, block)
            if operand is None:
                return None
            nulls = operand.nulls
            absent = np.zeros(operand.values.shape, bool) if nulls is None else nulls
            return absent if node.negated != wanted else ~absent
        if not isinstance(node, Binary):
            return None
        if node.operator in ("AND", "OR"):
            whole: np.ndarray | None = None
            join = operator.and_ if (node.operator == "AND") == wanted else operator.or_
            for each in chain(node, node.operator):
                found = self._holds(each, wanted, block)
                if found is None:
                    return None
                whole = found if whole is None else join(whole, found)
            return whole
        return self._compared(node, wanted, block)

    def _compared(self, node: Binary, wanted: bool, block: _Block) -> np.ndarray | None:
        if node.operator not in _COMPARE:
            return None
        left = self._operand(node.left, block)
        right = None if left is None else self._operand(node.right, block)
        if left is None or right is None or not _are_comparable(left, right):
            return None
        symbol = node.operator if wanted else _COMPLEMENT[node.operator]
        mask: np.ndarray = _COMPARE[symbol](left.values, right.values)
        for nulls in (left.nulls, right.nulls):
            if nulls is not None:
                mask = mask & ~nulls
        return mask

    def _operand(self, node: Expression, block: _Block) -> Array | None:
        """One side of a comparison over a block's pairs."""
        if isinstance(node, Literal) and type(node.value) is str:
            return Array(np.array(self._known_ranks()[node.value]), None, "TEXT")
        if isinstance(node, ColumnRef) and self._scope.column(node).type == "TEXT":
            found = block.numbers(self._source(node))
            return None if found is None else Array(*found, "TEXT")
        return evaluated(node, self._scope, block)

    def _source(self, node: ColumnRef) -> int:
        source = self._scope.sources[self._scope.column(node).position]
        assert isinstance(source, int)
        return source

    # ----------------------------------------------------------------- columns

    def is_right(self, source: int) -> bool:
        """Whether a source is a column of the table that the step joins."""
        return self._scope.layout.table(source)[0] == self._number

    def numbers(self, source: int) -> Numbers | None:
        """A column of one side: numbers and NULLs, or the ranks of texts; None for the others."""
        if source not in self._numbers:
            self._bindings.check()
            side = self._side(source)
            if self._type(source) == "TEXT":
                self._numbers[source] = self._text_ranks(side.column(source))
            else:
                self._numbers[source] = side.numbers(source)
        return self._numbers[source]

    def _side(self, source: int) -> JoinedRows:
        return self._own if self.is_right(source) else self._rows

    def _type(self, source: int) -> str | None:
        table, column = self._scope.layout.table(source)
        return None if column < 0 else self._scope.leaves[table].schema.columns[column].type

    def _text_ranks(self, values: list[Any]) -> Numbers | None:
        """The ranks of texts; NULL has the rank 0, and is marked."""
        known = self._known_ranks()
        if not kinds_of(values, self._bindings.check) <= _TEXTS:
            return None
        found = np.empty(len(values), np.int64)
        for some in slices(len(values), 4 * SLICE_VALUES, self._bindings.check):
            found[some] = list(map(known.__getitem__, values[some]))
        nulls = found == 0
        return found, nulls if nulls.any() else None

    def _known_ranks(self) -> dict[Any, int]:
        """The rank of each text of the terms' columns and constants."""
        if self._ranks is None:
            check = self._bindings.check
            differing: dict[Any, None] = {}
            for node in [each for term in self._terms for each in walk(term.node)]:
                if isinstance(node, Literal) and type(node.value) is str:
                    differing[node.value] = None
                elif isinstance(node, ColumnRef) and self._scope.column(node).type == "TEXT":
                    source = self._source(node)
                    values = self._side(source).column(source)
                    if kinds_of(values, check) <= _TEXTS:  # a query in FROM may give others
                        differing.update(distinct_values(values, check))
            differing.pop(None, None)
            texts = list(differing)
            order = value_order(list(range(len(texts))), texts, check)
            ranked = [None, *mapped(order, texts.__getitem__, check)]
            self._ranks = dict(zip(ranked, range(len(ranked)), strict=True))
        return self._ranks

    # ----------------------------------------------------------------- ranges

    def ranges(self) -> _Ranges | None:
        """The fewest candidates that sorting one column gives; None where that does not pay."""
        best: _Ranges | None = None
        bounds = [each for term in self._terms for each in self._bounds_of(term)]
        for place in dict.fromkeys(self._scope.place(each.column) for each in bounds):
            own = [each for each in bounds if self._scope.place(each.column) == place]
            found = self._ranges_of(own)
            if found is not None and (best is None or found.counts.sum() < best.counts.sum()):
                best = found
        if best is None or int(best.counts.sum()) * FEWER > len(self._rows) * len(self._table):
            return None
        return best

    def _bounds_of(self, term: _Asked) -> list[_Bound]:
        """A term as bounds of a column by what stands on the other side."""
        node = term.node
        pieces: list[Expression] = [node]
        if isinstance(node, Between) and not node.negated:
            pieces = [
                Binary(">=", node.operand, node.low, node.position),
                Binary("<=", node.operand, node.high, node.position),
            ]
        found = []
        for each in pieces:
            if not isinstance(each, Binary) or each.operator not in _BOUNDS:
                continue
            for column, symbol, other in (
                (each.left, each.operator, each.right),
                (each.right, MIRRORED[each.operator], each.left),
            ):
                if isinstance(column, ColumnRef):
                    is_right = self._scope.place(column)[0] == self._number
                    if self._sides_of(other) == {not is_right}:
                        found.append(_Bound(column, is_right, symbol, other, term))
        return found

    def _sides_of(self, node: Expression) -> set[bool]:
        """Which sides' columns an expression reads: True is the right one."""
        refs = [each for each in walk(node) if isinstance(each, ColumnRef)]
        return {self._scope.place(each)[0] == self._number for each in refs}

    def _ranges_of(self, bounds: list[_Bound]) -> _Ranges | None:
        """The candidates by the bounds of one column."""
        check = self._bindings.check
        column, is_right = bounds[0].column, bounds[0].is_right
        block = _Block(self, slice(None), slice(None))
        values = self._operand(column, block)
        if values is None:
            return None
        there = np.arange(len(values.values))
        if values.nulls is not None:
            there = there[~values.nulls]
        order = taken(there, number_order(values.values[there], check), check)
        ordered = taken(values.values, order, check)
        count = len(self._rows) if is_right else len(self._table)
        first, last = np.zeros(count, np.int64), np.full(count, len(order))
        used: list[_Asked] = []
        for bound in bounds:
            other = self._operand(bound.other, block)
            if other is None or not _are_comparable(values, other):
                continue
            used.append(bound.term)
            side: OneOf["left", "right"] = "left" if bound.symbol in (">=", "<") else "right"
            for some in slices(count, SLICE_NUMBERS >> 2, check):
                found = np.searchsorted(ordered, other.values[some], side)
                if bound.symbol in (">", ">="):
                    first[some] = np.maximum(first[some], found)
                else:
                    last[some] = np.minimum(last[some], found)
            if other.nulls is not None:
                last[other.nulls] = 0
        if not used:
            return None
        counts = np.maximum(last - first, 0)
        # a BETWEEN of which one bound alone was of use is asked again
        answered = [t for t in used if used.count(t) == 1 + isinstance(t.node, Between)]
        left = [term for term in self._terms if term not in answered]
        return _Ranges(first, counts, order, is_right, left)

    def candidates(self, ranges: _Ranges) -> Iterator[Pairs]:
        """What passes of the candidates, block by block; not in order."""
        ends = np.cumsum(ranges.counts)
        row, check = 0, self._bindings.check
        while row < len(ends):
            check()
            before = int(ends[row] - ranges.counts[row])
            stop = max(int(np.searchsorted(ends, before + BLOCK_PAIRS, "right")), row + 1)
            if int(ends[stop - 1]) > before:
                own, sorted_rows = expanded(
                    ranges.first[row:stop], ranges.counts[row:stop], ranges.order, check
                )
                own += row
                pairs = (own, sorted_rows) if ranges.is_right else (sorted_rows, own)
                yield self.passed(pairs, ranges.left)
            row = stop


class _Block:
    """Some pairs, as rows of which arrays are read (see `vectorised.Rows`)."""

    __slots__ = ("_mine", "_sides", "_theirs")

    def __init__(self, sides: _Sides, mine: Index, theirs: Index) -> None:
        self._sides = sides
        self._mine = mine
        self._theirs = theirs

    def numbers(self, source: int) -> Numbers | None:
        """A column over the pairs; it need not have all their axes' lengths."""
        found = self._sides.numbers(source)
        if found is None:
            return None
        index = self._theirs if self._sides.is_right(source) else self._mine
        return found[0][index], None if found[1] is None else found[1][index]


def _are_comparable(left: Array, right: Array) -> bool:
    """Whether NumPy compares two arrays as the language does."""
    if left.type not in _NUMBERS or right.type not in _NUMBERS:
        return left.type == right.type
    for one, other in ((left, right), (right, left)):
        if one.values.dtype.kind == "f" and other.values.dtype.kind != "f":
            return bound_of(other) <= EXACT
    return True
