"""The planner: chooses how a statement gets at its rows.

From the conditions that WHERE joins by AND it takes, in this order, a key (rowid, PRIMARY KEY,
UNIQUE) against constants, an equality on a B-tree index, a range on one; else all rows are
scanned. The whole WHERE is checked whatever is taken (C1 of `query.access`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from m2mdb.query.access import Access, Bound, Evaluator, IndexAccess, KeyAccess
from m2mdb.query.affinity import APPLY, NONE, Value
from m2mdb.query.conditions import affinity_of, chain, gatherer
from m2mdb.query.constants import is_constant
from m2mdb.query.correlation import Correlated
from m2mdb.query.expression import compile_expression
from m2mdb.query.functions import Bindings
from m2mdb.query.nodes import Between, Binary, ColumnRef, Expression, In
from m2mdb.query.predicate import against_constant, column_index, compile_predicate
from m2mdb.query.scope import ROWID, RowScope

Comparison = tuple[int, str, Evaluator]


def plan_access(where: Expression | None, scope: RowScope, *, with_indexes: bool = True) -> Access:
    """The way to the rows for which `where` holds; without indexes where the past is read.

    Raises ProgrammingError: an unknown column or function, a misused aggregate.
    """
    if where is None:
        return Access(None)
    predicate = compile_predicate(where, scope)
    terms = [each for term in chain(where, "AND") for each in _split_between(term)]
    comparisons = list(_comparisons(terms, scope))
    for column, symbol, constant in comparisons:
        label = _key_label(column, scope)
        if symbol == "=" and label is not None:
            access = KeyAccess(predicate, column, _single(constant), f"{label}=?)")
            access.is_exact = len(terms) == 1
            return access
    for term in terms:
        found = _key_list(term, scope)
        if found is not None:
            column, values = found
            return KeyAccess(predicate, column, values, f"{_key_label(column, scope)} IN (…))")
    found_index = _index_access(comparisons, scope, predicate) if with_indexes else None
    return found_index or Access(predicate)


def _single(constant: Evaluator) -> Callable[[Bindings], list[Value]]:
    return lambda bindings: [constant((), bindings)]


def _split_between(term: Expression) -> list[Expression]:
    """BETWEEN as its two comparisons."""
    if not isinstance(term, Between) or term.negated:
        return [term]
    return [
        Binary(">=", term.operand, term.low, term.position),
        Binary("<=", term.operand, term.high, term.position),
    ]


def _comparisons(terms: list[Expression], scope: RowScope) -> list[Comparison]:
    """Those of the conditions that compare a column with a constant."""
    found = []
    for term in terms:
        if isinstance(term, Binary):
            parts = against_constant(term, scope)
            if parts is not None:
                column, symbol, constant = parts
                found.append((column_index(column, scope), symbol, constant))
    return found


def _key_label(column: int, scope: RowScope) -> str | None:
    """How EXPLAIN calls a look-up by a column, up to its name; None where it is no key."""
    schema = scope.schema
    if column == ROWID:
        return "ROWID (rowid"
    assert schema is not None
    definition = schema.columns[column]
    if definition.primary_key:
        return f"PRIMARY KEY ({definition.name}"
    return f"UNIQUE ({definition.name}" if definition.unique else None


def _key_list(
    term: Expression, scope: RowScope
) -> tuple[int, Callable[[Bindings], list[Value]]] | None:
    """`key IN (constants)` as the column and what gives its values."""
    if not isinstance(term, In) or term.negated or not isinstance(term.operand, ColumnRef):
        return None
    column = column_index(term.operand, scope)
    if _key_label(column, scope) is None:
        return None
    if isinstance(term.values, list) and not all(map(is_constant, term.values)):
        return None
    if isinstance(term.values, Correlated):
        return None
    gather = gatherer(term, scope, compile_expression)
    affinity = affinity_of(term.operand, scope)
    if affinity == NONE:
        return column, gather
    apply = APPLY[affinity]
    return column, lambda bindings: [apply(value) for value in gather(bindings)]


def _index_access(
    comparisons: list[Comparison], scope: RowScope, predicate: Any
) -> IndexAccess | None:
    """A B-tree index that an equality or a range can use."""
    schema = scope.schema
    assert schema is not None or not comparisons
    for column, symbol, constant in comparisons:
        info = schema.btree_on(column) if schema is not None and column != ROWID else None
        if info is not None and symbol == "=":
            bound: Bound = (constant, False)
            label = f"INDEX {info.name} ({info.column}=?)"
            return IndexAccess(predicate, column, (bound, bound), label)
    for column, _, _ in comparisons:
        info = schema.btree_on(column) if schema is not None and column != ROWID else None
        if info is not None:
            low, high, shown = _range(column, comparisons)
            if low is not None or high is not None:
                label = f"INDEX {info.name} ({' AND '.join(info.column + each for each in shown)})"
                return IndexAccess(predicate, column, (low, high), label)
    return None


def _range(
    column: int, comparisons: list[Comparison]
) -> tuple[Bound | None, Bound | None, list[str]]:
    """The first lower and the first upper bound of a column, and how they are shown."""
    low: Bound | None = None
    high: Bound | None = None
    shown = []
    for its_column, symbol, constant in comparisons:
        if its_column != column:
            continue
        if symbol in (">", ">=") and low is None:
            low = (constant, symbol == ">")
            shown.append(f"{symbol}?")
        elif symbol in ("<", "<=") and high is None:
            high = (constant, symbol == "<")
            shown.append(f"{symbol}?")
    return low, high, sorted(shown, reverse=True)
