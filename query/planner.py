"""The planner: chooses how a statement gets at its rows.

From the conditions that WHERE joins by AND it takes, in this order, a key (rowid, PRIMARY KEY,
UNIQUE) against constants, an index of several columns of which two are used, an equality on a
B-tree index, a list of values, a range on one; else all rows are scanned. Where ANALYZE has
counted, of several indexes the one that leaves the fewest rows is taken, and none that would cost
more than the scan (`query.estimates`). The whole WHERE is checked whatever is taken (C1 of
`query.access`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from m2mdb.query.access import (
    Access,
    Bound,
    ColumnsAccess,
    Evaluator,
    IndexAccess,
    IndexListAccess,
    KeyAccess,
)
from m2mdb.query.affinity import APPLY, NONE, Value
from m2mdb.query.conditions import affinity_of, chain, gatherer
from m2mdb.query.constants import is_constant
from m2mdb.query.correlation import Correlated
from m2mdb.query.estimates import UNKNOWN_EQUAL, UNKNOWN_OTHER, Figures, most_candidates
from m2mdb.query.expression import compile_expression
from m2mdb.query.functions import Bindings
from m2mdb.query.nodes import Between, Binary, ColumnRef, Expression, In
from m2mdb.query.predicate import (
    Predicate,
    against_constant,
    column_index,
    compile_predicate,
)
from m2mdb.query.scope import ROWID, RowScope

if TYPE_CHECKING:
    from m2mdb.index.schema import IndexInfo

Comparison = tuple[int, str, Evaluator]


def plan_access(
    where: Expression | None,
    scope: RowScope,
    *,
    with_indexes: bool = True,
    figures: Figures | None = None,
) -> Access:
    """The way to the rows for which `where` holds; without indexes where the past is read.

    figures  what is known of the collection, for choosing and for EXPLAIN

    Raises ProgrammingError: an unknown column or function, a misused aggregate.
    """
    if where is None:
        everything = Access(None)
        everything.estimate = None if figures is None else float(figures.rows)
        return everything
    predicate = compile_predicate(where, scope)
    terms = [each for term in chain(where, "AND") for each in _split_between(term)]
    comparisons = list(_comparisons(terms, scope))
    access = _key_access(terms, comparisons, scope, predicate)
    if access is None and with_indexes:
        access = _index_access(terms, comparisons, scope, (predicate, figures))
    found = access or Access(predicate)
    if figures is not None:
        _estimate(found, figures, comparisons, len(terms))
    return found


def _estimate(access: Access, figures: Figures, comparisons: list[Comparison], terms: int) -> None:
    """How many rows an access probably gives, and what EXPLAIN says of it."""
    share = 1.0
    columns = dict.fromkeys(column for column, _, _ in comparisons)
    for column in columns:
        share *= figures.share([each for each in comparisons if each[0] == column])
    share *= UNKNOWN_OTHER ** (terms - len(comparisons))
    access.estimate = figures.rows * share
    if figures.has_statistics:
        access.remark += f", ~{round(access.estimate)} of {figures.rows} rows"


def _key_access(
    terms: list[Expression], comparisons: list[Comparison], scope: RowScope, predicate: Predicate
) -> Access | None:
    """A look-up by a key."""
    for column, symbol, constant in comparisons:
        label = _key_label(column, scope)
        if symbol == "=" and label is not None:
            access = KeyAccess(predicate, column, _single(constant), f"{label}=?)")
            access.is_exact = len(terms) == 1
            return access
    for term in terms:
        found = _value_list(term, scope)
        if found is not None and _key_label(found[0], scope) is not None:
            column, values = found
            return KeyAccess(predicate, column, values, f"{_key_label(column, scope)} IN (…))")
    return None


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


def _value_list(
    term: Expression, scope: RowScope
) -> tuple[int, Callable[[Bindings], list[Value]]] | None:
    """`column IN (constants)` as the column and what gives its values."""
    if not isinstance(term, In) or term.negated or not isinstance(term.operand, ColumnRef):
        return None
    if isinstance(term.values, list) and not all(map(is_constant, term.values)):
        return None
    if isinstance(term.values, Correlated):
        return None
    column = column_index(term.operand, scope)
    gather = gatherer(term, scope, compile_expression)
    affinity = affinity_of(term.operand, scope)
    if affinity == NONE:
        return column, gather
    apply = APPLY[affinity]
    return column, lambda bindings: [apply(value) for value in gather(bindings)]


def _index_access(
    terms: list[Expression],
    comparisons: list[Comparison],
    scope: RowScope,
    context: tuple[Predicate, Figures | None],
) -> Access | None:
    """The B-tree index that promises most, of those that an equality, a list or a range can use."""
    predicate, figures = context
    found = [
        *_by_columns(comparisons, scope, predicate),
        *_by_equality(comparisons, scope, predicate),
        *_by_list(terms, scope, predicate),
        *_by_range(comparisons, scope, predicate),
    ]
    if not found:
        return None
    if figures is None or not figures.has_statistics:
        return found[0][0]
    shares = [_share(figures, some) if some else UNKNOWN_EQUAL for _, some in found]
    best = min(range(len(found)), key=shares.__getitem__)
    if shares[best] * figures.rows > most_candidates(figures.rows, predicate.term):
        return None
    return found[best][0]


Choice = tuple[Access, list[Comparison]]  # an access, and what it goes by


def _indexed(column: int, scope: RowScope) -> IndexInfo | None:
    schema = scope.schema
    return schema.btree_on(column) if schema is not None and column != ROWID else None


def _share(figures: Figures, comparisons: list[Comparison]) -> float:
    """The share of the rows that comparisons leave, the columns being independent."""
    share = 1.0
    for column in dict.fromkeys(column for column, _, _ in comparisons):
        share *= figures.share([each for each in comparisons if each[0] == column])
    return share


def _by_columns(
    comparisons: list[Comparison], scope: RowScope, predicate: Predicate
) -> list[Choice]:
    """Indexes of several columns of which two or more are used, the most used first."""
    schema = scope.schema
    equal = {column: constant for column, symbol, constant in comparisons if symbol == "="}
    found: list[tuple[int, Choice]] = []
    for info in getattr(schema, "indexes", ()) if equal else ():
        if info.kind != "btree" or len(info.columns) < 2 or schema is None:
            continue
        positions = schema.positions(info)
        count = next((at for at, each in enumerate(positions) if each not in equal), len(positions))
        low = high = None
        shown: list[str] = []
        if 0 < count < len(positions):
            low, high, shown = _range(positions[count], comparisons)
        used = positions[: count + bool(shown)]
        if len(used) < 2:
            continue
        label = " AND ".join([
            *[f"{name}=?" for name in info.columns[:count]],
            *[info.columns[count] + each for each in shown],
        ])  # fmt: skip
        label = f"INDEX {info.name} ({label})"
        constants = [equal[index] for index in positions[:count]]
        access = ColumnsAccess(predicate, info, constants, (low, high), label)
        by = [each for each in comparisons if each[0] in used]
        found.append((2 * count + bool(shown), (access, by)))
    found.sort(key=lambda each: -each[0])
    return [choice for _, choice in found]


def _by_equality(
    comparisons: list[Comparison], scope: RowScope, predicate: Predicate
) -> Iterator[Choice]:
    for column, symbol, constant in comparisons:
        info = _indexed(column, scope)
        if info is not None and symbol == "=":
            bound: Bound = (constant, False)
            label = f"INDEX {info.name} ({info.column}=?)"
            access = IndexAccess(predicate, column, (bound, bound), label)
            yield access, [(column, symbol, constant)]


def _by_list(terms: list[Expression], scope: RowScope, predicate: Predicate) -> Iterator[Choice]:
    for term in terms:
        found = _value_list(term, scope)
        info = None if found is None else _indexed(found[0], scope)
        if found is not None and info is not None:
            label = f"INDEX {info.name} ({info.column} IN (…))"
            yield IndexListAccess(predicate, found[0], found[1], label), []


def _by_range(
    comparisons: list[Comparison], scope: RowScope, predicate: Predicate
) -> Iterator[Choice]:
    for column in dict.fromkeys(column for column, _, _ in comparisons):
        info = _indexed(column, scope)
        if info is None:
            continue
        low, high, shown = _range(column, comparisons)
        if low is not None or high is not None:
            label = f"INDEX {info.name} ({' AND '.join(info.column + each for each in shown)})"
            access = IndexAccess(predicate, column, (low, high), label)
            yield access, [each for each in comparisons if each[0] == column and each[1] != "="]


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
