"""Predicates: WHERE over whole parts of a collection, column by column.

`compile_predicate(node, scope)` gives a tree of terms. A term says, for some rows of a part, for
which of them the condition *is* a wanted truth; so NULL needs no array of its own: what is NULL is
neither true nor false, and NOT only swaps what is wanted.

    All    AND wanted true, OR wanted false     cheap terms first, each on the rows still undecided
    Any    OR wanted true, AND wanted false     likewise
    Compare, Null, Member, Match                one column against what does not depend on the row
    Rows   everything else                      the closure of `query.expression`, row by row

Invariants
    V1  The mask agrees with the closure of the same expression on every row.
    V2  A term with a closure sees live rows only, and only those that the terms before it left.
    V3  Zone maps spare only blocks of rows that do not pass, whatever the other terms say.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable, Sequence
from itertools import islice, repeat
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from m2mdb.index.dictionary import tested
from m2mdb.index.slices import SLICE_NUMBERS, SLICE_VALUES, slices
from m2mdb.query.affinity import NONE, Value, base_type, microseconds, truth
from m2mdb.query.bounds import may_hold, number_comparison
from m2mdb.query.collated import CollatedCompare, by_way
from m2mdb.query.comparison import DIRECT_OPERATORS, MIRRORED, conversions, member_set
from m2mdb.query.conditions import (
    Evaluator,
    affinity_of,
    chain,
    collation_of_column,
    converted,
    gatherer,
    goes_by,
    type_of,
)
from m2mdb.query.constants import is_constant
from m2mdb.query.correlation import Correlated
from m2mdb.query.expression import compile_expression
from m2mdb.query.functions import SLICE, Bindings
from m2mdb.query.nodes import (
    Between,
    Binary,
    ColumnRef,
    Expression,
    In,
    IsNull,
    Like,
    Literal,
    Unary,
)
from m2mdb.query.pattern import like_matcher
from m2mdb.query.scope import ROWID, RowScope
from m2mdb.query.sparing import (
    blocks_of_all,
    blocks_of_any,
    blocks_of_members,
    is_number,
    numbers_among,
    spared,
    sparing_said,
    windows,
    zones_at,
)
from m2mdb.query.stability import key_of, parameters_of

if TYPE_CHECKING:
    from m2mdb.index.collection import SegmentPart
    from m2mdb.index.masks import KeptMasks

Mask = np.ndarray
Ordinals = np.ndarray | None
_COMPLEMENT = {"=": "!=", "!=": "=", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}
_NUMERIC_TYPES = ("INTEGER", "REAL", "BOOLEAN", "TIMESTAMP")
_STRICT_TYPES = (*_NUMERIC_TYPES, "TEXT", "JSON", "BLOB")  # NUMERIC is any value


class Part(Protocol):
    """What a predicate reads of a part; see `index.collection`."""

    size: int

    @property
    def rowids(self) -> np.ndarray:
        """int64 (size,)."""
        ...

    @property
    def live(self) -> np.ndarray | None:
        """bool (size,), or None when every row is live."""
        ...

    def values(self, column_index: int, ordinals: Ordinals = None) -> list[Any]:
        """Python values; the list may be shared."""
        ...

    def numbers(self, column_index: int) -> tuple[np.ndarray, np.ndarray | None] | None:
        """Values and NULL mask of a numeric column."""
        ...


class Term(Protocol):
    """A condition and the truth that is wanted of it."""

    cost: int

    def mask(self, part: Part, rows: Ordinals, bindings: Bindings) -> Mask:
        """For which of the rows (all, where None) the condition is the wanted truth."""
        ...

    def blocks(self, part: SegmentPart, bindings: Bindings) -> Mask | None:
        """bool (blocks,): in which blocks of zone maps it may be; None: in each."""
        ...


class Filter:
    """A predicate with its values bound: what a search or a scan asks of each part."""

    __slots__ = ("_bindings", "_key", "_term")

    def __init__(self, term: Term, bindings: Bindings, key: Hashable | None = None) -> None:
        """`key` stands for the values that are bound, where nothing else matters to the mask."""
        self._term = term
        self._bindings = bindings
        self._key = key

    @property
    def key(self) -> Hashable | None:
        """What its masks depend on beside the rows; None where there is more."""
        return None if self._key is None else (self._term, self._key)

    def mask(self, part: Part) -> Mask:
        """bool (part.size,): the live rows that pass; not to be changed."""
        live = part.live
        kept: KeptMasks | None = None
        if self._key is not None:
            kept = getattr(part, "kept_masks", None)  # segments alone have them
        if kept is not None and (live is None or self._term.cost < CLOSURES):  # V2
            return kept.made((self._term, self._key), live, lambda: self._computed(part, None))
        return self._computed(part, live)

    def _computed(self, part: Part, live: np.ndarray | None) -> Mask:
        """The mask of all rows, or of the live ones; blocks that zone maps spare are not read."""
        blocks = spared(self._term, part, self._bindings)
        if blocks is None and live is None:
            return self._term.mask(part, None, self._bindings)
        mask = np.zeros(part.size, bool)
        for start, some in [(0, part)] if blocks is None else windows(part, blocks):
            own = mask[start : start + some.size]
            if live is None:
                own[:] = self._term.mask(some, None, self._bindings)
            else:
                rows = np.flatnonzero(live[start : start + some.size])
                own[rows[self._term.mask(some, rows, self._bindings)]] = True
        return mask

    def sparing(self, parts: Sequence[Part]) -> str:
        """What zone maps spare of a scan, for EXPLAIN ANALYZE; nothing where they spare none."""
        return sparing_said([spared(self._term, part, self._bindings) for part in parts])

    def chosen(self, part: Part, rows: np.ndarray) -> np.ndarray:
        """Those of some live rows, by ordinal, that pass."""
        found: np.ndarray = rows[self._term.mask(part, rows, self._bindings)]
        return found


class Predicate:
    """A compiled WHERE."""

    __slots__ = ("_parameters", "term")

    def __init__(self, term: Term, parameters: tuple[int, ...] | None = None) -> None:
        """`parameters`: see `stability.parameters_of`."""
        self.term = term
        self._parameters = parameters

    def bind(self, bindings: Bindings) -> Filter:
        """The predicate with the statement's values."""
        indexes = self._parameters
        return Filter(self.term, bindings, None if indexes is None else key_of(bindings, indexes))


def compile_predicate(node: Expression, scope: RowScope) -> Predicate:
    """A predicate over the parts of the scope's collection.

    Raises what `compile_expression` raises.
    """
    return Predicate(_compile(node, scope, True), parameters_of(node))


def _compile(node: Expression, scope: RowScope, wanted: bool) -> Term:
    if isinstance(node, Binary):
        if node.operator in ("AND", "OR"):
            terms = [_compile(each, scope, wanted) for each in chain(node, node.operator)]
            terms.sort(key=lambda term: term.cost)
            return All(terms) if (node.operator == "AND") == wanted else AnyOf(terms)
        return _comparison(node, scope, wanted) or by_way(node, scope, wanted, Rows)
    if isinstance(node, Unary) and node.operator == "NOT":
        return _compile(node.operand, scope, not wanted)
    if isinstance(node, Between):
        return _between(node, scope, wanted)
    if isinstance(node, IsNull) and isinstance(node.operand, ColumnRef):
        return Null(column_index(node.operand, scope), node.negated != wanted)
    if isinstance(node, In):
        return _member(node, scope, wanted) or Rows(node, scope, wanted)
    if isinstance(node, Like):
        return _match(node, scope, wanted) or Rows(node, scope, wanted)
    return Rows(node, scope, wanted)


def column_index(node: ColumnRef, scope: RowScope) -> int:
    """The index of a column of the collection, or ROWID."""
    source = scope.sources[scope.column(node).position]
    assert isinstance(source, int), f"{source} is computed after WHERE"
    return source


def against_constant(node: Binary, scope: RowScope) -> tuple[ColumnRef, str, Evaluator] | None:
    """A comparison as (column, operator, constant), turned round if need be; None for others.

    The constant has the affinity that the comparison gives it; the column keeps its values.
    """
    left, right, symbol = node.left, node.right, node.operator
    if not isinstance(left, ColumnRef) and isinstance(right, ColumnRef):
        left, right, symbol = right, left, MIRRORED.get(symbol, "")
    if symbol not in DIRECT_OPERATORS or not isinstance(left, ColumnRef):
        return None
    if not goes_by(left, node, scope) or not is_constant(right):
        return None
    own, other = conversions(affinity_of(left, scope), affinity_of(right, scope))
    if own != NONE or type_of(left, scope) is None:
        return None
    return left, symbol, converted(compile_expression(right, scope), other, right)


def _comparison(node: Binary, scope: RowScope, wanted: bool) -> Term | None:
    """A column against a constant; None for anything else."""
    found = against_constant(node, scope)
    if found is None:
        return None
    column, symbol, constant = found
    kind, test = type_of(column, scope), (symbol if wanted else _COMPLEMENT[symbol], constant)
    if base_type(kind) not in _STRICT_TYPES:
        return None
    compare = Compare if base_type(kind) == kind else CollatedCompare
    return compare(column_index(column, scope), kind, test, Rows(node, scope, wanted))


def _between(node: Between, scope: RowScope, wanted: bool) -> Term:
    """Two comparisons; they must share no work, so only for an operand that is a column."""
    if not isinstance(node.operand, ColumnRef):
        return Rows(node, scope, wanted)
    low = Binary(">=", node.operand, node.low, node.position)
    high = Binary("<=", node.operand, node.high, node.position)
    both = Binary("AND", low, high, node.position)
    return _compile(both, scope, wanted != node.negated)


def _member(node: In, scope: RowScope, wanted: bool) -> Term | None:
    if not isinstance(node.operand, ColumnRef) or collation_of_column(node.operand, scope):
        return None
    if isinstance(node.values, list) and not all(map(is_constant, node.values)):
        return None
    if isinstance(node.values, Correlated):
        return None
    gather = gatherer(node, scope, compile_expression)
    affinity = affinity_of(node.operand, scope)
    column = column_index(node.operand, scope)
    fallback = Rows(node, scope, wanted)
    return Member((column, type_of(node.operand, scope)), (gather, affinity),
                  node.negated != wanted, fallback)  # fmt: skip


def _match(node: Like, scope: RowScope, wanted: bool) -> Term | None:
    """`text column LIKE 'pattern'`."""
    pattern = node.pattern
    if node.operator != "LIKE" or node.escape is not None or not isinstance(pattern, Literal):
        return None
    if not isinstance(node.operand, ColumnRef) or not isinstance(pattern.value, str):
        return None
    if base_type(type_of(node.operand, scope)) not in ("TEXT", "JSON"):
        return None
    matches = like_matcher(pattern.value, None)
    return Match(column_index(node.operand, scope), matches, node.negated != wanted)


def values_of(part: Part, source: int, rows: Ordinals) -> list[Any]:
    """The values of a column or of the rowid; the list may be shared."""
    if source != ROWID:
        return part.values(source, rows)
    found: list[Any] = (part.rowids if rows is None else part.rowids[rows]).tolist()
    return found


def _count(part: Part, rows: Ordinals) -> int:
    return part.size if rows is None else len(rows)


def _picked(array: np.ndarray, rows: Ordinals) -> np.ndarray:
    return array if rows is None else array[rows]


class All:
    """Every term holds."""

    __slots__ = ("cost", "terms")

    def __init__(self, terms: Sequence[Term]) -> None:
        self.terms = terms
        self.cost = max(term.cost for term in terms)

    def mask(self, part: Part, rows: Ordinals, bindings: Bindings) -> Mask:
        """Each term sees the rows that passed those before it (V2)."""
        mask = np.ones(_count(part, rows), bool)
        return _narrowed(self.terms, mask, part, rows, bindings)

    def blocks(self, part: SegmentPart, bindings: Bindings) -> Mask | None:
        """Those in which each may hold."""
        return blocks_of_all(term.blocks(part, bindings) for term in self.terms)


def _narrowed(
    terms: Sequence[Term], mask: Mask, part: Part, rows: Ordinals, bindings: Bindings
) -> Mask:
    """The mask, and every term on what it still holds."""
    for term in terms:
        left = np.flatnonzero(mask)
        if not len(left):
            break
        if len(left) == len(mask):
            mask = term.mask(part, rows, bindings)
        elif term.cost == CHEAP:
            mask = mask & term.mask(part, rows, bindings)
        else:
            some = left if rows is None else rows[left]
            mask[left] = term.mask(part, some, bindings)
    return mask


class AnyOf:
    """At least one term holds."""

    __slots__ = ("cost", "terms")

    def __init__(self, terms: Sequence[Term]) -> None:
        self.terms = terms
        self.cost = max(term.cost for term in terms)

    def mask(self, part: Part, rows: Ordinals, bindings: Bindings) -> Mask:
        """Each term sees the rows that those before it did not take."""
        mask = np.zeros(_count(part, rows), bool)
        for term in self.terms:
            left = np.flatnonzero(~mask)
            if not len(left):
                break
            some = left if rows is None else rows[left]
            if len(left) == len(mask):
                mask = term.mask(part, rows, bindings)
            else:
                mask[left] = term.mask(part, some, bindings)
        return mask

    def blocks(self, part: SegmentPart, bindings: Bindings) -> Mask | None:
        """Those in which one may hold."""
        return blocks_of_any(term.blocks(part, bindings) for term in self.terms)


CHEAP, TEXTS, PATTERNS, CLOSURES = range(4)  # a NumPy loop; a value a row; a pattern; a closure


class Compare:
    """`column operator constant`; NULL is never wanted."""

    __slots__ = ("_column", "_constant", "_fallback", "_symbol", "_type", "cost")

    def __init__(
        self, column: int, type: str | None, comparison: tuple[str, Evaluator], fallback: Rows
    ) -> None:
        self._column = column
        self._type = type
        self._symbol, self._constant = comparison
        self._fallback = fallback
        self.cost = CHEAP if column == ROWID or type in _NUMERIC_TYPES else TEXTS

    def mask(self, part: Part, rows: Ordinals, bindings: Bindings) -> Mask:
        """Compared at once where the constant is of the column's kind."""
        constant = self._constant((), bindings)
        if constant is None:
            return np.zeros(_count(part, rows), bool)
        if self.cost == CHEAP:
            found = self._compare_numbers(part, rows, constant)
        else:
            found = self._compare_values(part, rows, constant, bindings.check)
        return self._fallback.mask(part, rows, bindings) if found is None else found

    def blocks(self, part: SegmentPart, bindings: Bindings) -> Mask | None:
        """Those whose bounds the constant lies within, or beyond."""
        zones = zones_at(part, self._column) if self.cost == CHEAP else None
        constant = None if zones is None else self._constant((), bindings)
        if zones is None or constant is None:
            return None
        if self._type == "TIMESTAMP":
            constant = microseconds(constant)
        return may_hold(zones, self._symbol, constant) if is_number(constant) else None

    def _compare_numbers(self, part: Part, rows: Ordinals, constant: Value) -> Mask | None:
        if self._type == "TIMESTAMP":
            constant = microseconds(constant)
        if not isinstance(constant, int | float):
            return None
        if self._column == ROWID:
            return number_comparison(_picked(part.rowids, rows), self._symbol, constant)
        numbers = part.numbers(self._column)
        if numbers is None:
            return None
        values, nulls = numbers
        mask = number_comparison(_picked(values, rows), self._symbol, constant)
        return mask if nulls is None else mask & ~_picked(nulls, rows)

    def _compare_values(
        self, part: Part, rows: Ordinals, constant: Value, check: Callable[[], None]
    ) -> Mask | None:
        wanted = bytes if self._type == "BLOB" else str
        if type(constant) is not wanted:
            return None
        if self._type == "TEXT":
            compare = DIRECT_OPERATORS[self._symbol]
            found = tested(part, self._column, rows, lambda value: compare(value, constant))
            if found is not None:
                return found
        values = part.values(self._column, rows)
        passed = np.empty(len(values), bool)
        apply = DIRECT_OPERATORS[self._symbol]
        for some in slices(len(values), SLICE_VALUES << 2, check):
            if self._symbol == "=":
                passed[some] = list(map(operator.eq, values[some], repeat(constant)))
            else:
                own = values[some]
                passed[some] = [value is not None and apply(value, constant) for value in own]
        return passed


class Null:
    """`column IS NULL`, or IS NOT NULL."""

    __slots__ = ("_column", "_wanted", "cost")

    def __init__(self, column: int, wanted: bool) -> None:
        self._column = column
        self._wanted = wanted
        self.cost = CHEAP

    def mask(self, part: Part, rows: Ordinals, bindings: Bindings) -> Mask:
        """By the column's NULL mask where it has one."""
        count = _count(part, rows)
        if self._column == ROWID:
            return np.full(count, not self._wanted)
        numbers = part.numbers(self._column)
        if numbers is not None:
            nulls = numbers[1]
            if nulls is None:
                return np.full(count, not self._wanted)
            return np.array(_picked(nulls, rows) == self._wanted, bool)
        values = part.values(self._column, rows)
        found = np.fromiter(map(operator.is_, values, repeat(None)), bool, count)
        return found if self._wanted else ~found

    def blocks(self, part: SegmentPart, bindings: Bindings) -> Mask | None:
        """Those with a NULL, or with anything else."""
        zones = zones_at(part, self._column)
        if zones is None:
            return None
        return np.asarray(zones.nulls > 0 if self._wanted else zones.nulls < zones.rows)


class Member:
    """`column IN (constants)`, or NOT IN."""

    __slots__ = ("_affinity", "_column", "_fallback", "_gather", "_type", "_wanted", "cost")

    def __init__(
        self,
        column: tuple[int, str | None],
        values: tuple[Callable[[Bindings], list[Value]], str],
        wanted: bool,
        fallback: Rows,
    ) -> None:
        self._column, self._type = column
        self._gather, self._affinity = values
        self._wanted = wanted
        self._fallback = fallback
        self.cost = TEXTS

    def mask(self, part: Part, rows: Ordinals, bindings: Bindings) -> Mask:
        """By one set for the whole run of the statement."""
        members, has_null = self._members(bindings)
        if not members and not has_null:
            return np.full(_count(part, rows), not self._wanted)
        wanted = self._wanted
        if self._type == "TEXT" and (wanted or not has_null):
            known = tested(part, self._column, rows, lambda value: (value in members) is wanted)
            if known is not None:
                return known
        values = values_of(part, self._column, rows)
        found = np.empty(len(values), bool)
        for some in slices(len(values), SLICE_NUMBERS >> 2, bindings.check):
            found[some] = list(map(members.__contains__, values[some]))
        if self._wanted:
            return found
        if has_null:
            return np.zeros(len(values), bool)
        found |= np.fromiter(map(operator.is_, values, repeat(None)), bool, len(values))
        negated: np.ndarray = np.logical_not(found)
        return negated

    def _members(self, bindings: Bindings) -> tuple[frozenset[Value], bool]:
        """The values, and whether there is a NULL among them."""
        found: tuple[frozenset[Value], bool] = bindings.once(
            self, lambda: member_set(self._gather(bindings), self._affinity, bindings.check)
        )
        return found

    def blocks(self, part: SegmentPart, bindings: Bindings) -> Mask | None:
        """Those whose bounds a value lies within."""
        is_column = self._column == ROWID or self._type in ("INTEGER", "REAL", "BOOLEAN")
        zones = zones_at(part, self._column) if self._wanted and is_column else None
        if zones is None:
            return None
        members, key = self._members(bindings)[0], (self, "numbers")
        return blocks_of_members(
            zones, bindings.once(key, lambda: numbers_among(members, bindings.check))
        )


class Match:
    """`text column LIKE pattern`, or NOT LIKE."""

    __slots__ = ("_column", "_matches", "_wanted", "cost")

    def __init__(self, column: int, matches: Callable[[str], bool], wanted: bool) -> None:
        self._column = column
        self._matches = matches
        self._wanted = wanted
        self.cost = PATTERNS

    def mask(self, part: Part, rows: Ordinals, bindings: Bindings) -> Mask:
        """One match a row."""
        matches, wanted = self._matches, self._wanted
        known = tested(part, self._column, rows, lambda value: matches(value) is wanted)
        if known is not None:
            return known
        values = part.values(self._column, rows)
        found: list[bool] = []
        for start in range(0, len(values), SLICE):
            bindings.check()
            some = values[start : start + SLICE]
            found += [value is not None and matches(value) is wanted for value in some]
        return np.array(found, bool)

    def blocks(self, part: SegmentPart, bindings: Bindings) -> None:
        """Zone maps are of numbers."""


class Rows:
    """Any condition, by its closure."""

    __slots__ = ("_evaluate", "_sources", "_wanted", "cost")

    def __init__(self, node: Expression, scope: RowScope, wanted: bool) -> None:
        own = scope.sibling()
        self._evaluate = compile_expression(node, own)
        self._sources = [source for source in own.sources if isinstance(source, int)]
        assert len(self._sources) == len(own.sources), "WHERE reads stored columns only"
        self._wanted = wanted
        self.cost = CLOSURES

    def mask(self, part: Part, rows: Ordinals, bindings: Bindings) -> Mask:
        """One call a row; once for all where no column is read."""
        evaluate, wanted = self._evaluate, self._wanted
        count = _count(part, rows)
        if not count:
            return np.zeros(0, bool)
        if not self._sources:
            return np.full(count, truth(evaluate((), bindings)) is wanted)
        columns = [values_of(part, source, rows) for source in self._sources]
        rows_left = zip(*columns, strict=True)
        found: list[bool] = []
        for _ in range(0, count, SLICE):
            bindings.check()
            found += [truth(evaluate(row, bindings)) is wanted for row in islice(rows_left, SLICE)]
        return np.array(found, bool)

    def blocks(self, part: SegmentPart, bindings: Bindings) -> None:
        """What a closure finds, bounds do not tell."""
