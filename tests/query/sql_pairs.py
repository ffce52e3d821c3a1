"""Expressions as pairs of SQL text and tree, for comparing with SQLite without a parser.

The row that they read is COLUMNS: what SQLite stores under the same declared types.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from m2mdb.index.schema import CollectionSchema, Column
from m2mdb.query.nodes import (
    Between,
    Binary,
    Case,
    Cast,
    Collate,
    ColumnRef,
    Expression,
    FunctionCall,
    In,
    IsNull,
    Like,
    Literal,
    Unary,
)

Pair = tuple[str, Expression]
COLUMNS = {"i": "INTEGER", "r": "REAL", "t": "TEXT", "b": "BLOB"}
SCHEMA = CollectionSchema("row", tuple(Column(name, kind) for name, kind in COLUMNS.items()))

TEXTS = st.one_of(
    st.sampled_from(
        ["", "a", "A", "abc", "Abc", "12", " 12", "12 ", "1.5", "1e3", "12abc", "-3", ".5", "5."]
    ),
    st.text(alphabet="abAB01 .-%_*?[é", max_size=6),
)
INTEGERS = st.one_of(
    st.integers(-5, 5),
    st.sampled_from([2**53, 2**53 + 1, -(2**53) - 1, 2**62, 2**63 - 1, -(2**63) + 1]),
)
REALS = st.sampled_from(
    [0.0, 1.0, -1.0, 0.5, 1.5, -2.5, 12.0, 1e3, 1e20, -1e20, 9007199254740993.0]
)
BLOBS = st.sampled_from([b"", b"a", b"12", b"\x01"])


def _literal(value: Any) -> Pair:
    node = Literal(value, 0)
    if value is None:
        return "NULL", node
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'", node
    if isinstance(value, bytes):
        return f"x'{value.hex()}'", node
    if isinstance(value, int | float) and value < 0:
        return f"({value!r})", Unary("-", Literal(-value, 0), 0)
    return repr(value), node


def literals() -> st.SearchStrategy[Pair]:
    """NULL, integers, reals, texts and blobs."""
    return st.one_of(st.none(), INTEGERS, REALS, TEXTS, BLOBS).map(_literal)


def _binary(args: tuple[str, Pair, Pair]) -> Pair:
    operator, (left, one), (right, other) = args
    return f"({left} {operator} {right})", Binary(operator, one, other, 0)


def _unary(args: tuple[str, Pair]) -> Pair:
    operator, (text, node) = args
    return f"({operator} {text})", Unary(operator, node, 0)


def _is_null(args: tuple[Pair, bool]) -> Pair:
    (text, node), negated = args
    return f"({text} IS {'NOT ' if negated else ''}NULL)", IsNull(node, negated, 0)


def _between(args: tuple[Pair, Pair, Pair, bool]) -> Pair:
    (text, node), (low, one), (high, other), negated = args
    word = "NOT BETWEEN" if negated else "BETWEEN"
    return f"({text} {word} {low} AND {high})", Between(node, one, other, negated, 0)


def _in(args: tuple[Pair, list[Pair], bool]) -> Pair:
    (text, node), values, negated = args
    listed = ", ".join(value for value, _ in values)
    word = "NOT IN" if negated else "IN"
    return f"({text} {word} ({listed}))", In(node, [each for _, each in values], negated, 0)


def _like(args: tuple[str, Pair, Pair, bool]) -> Pair:
    operator, (text, node), (pattern, other), negated = args
    word = f"NOT {operator}" if negated else operator
    return f"({text} {word} {pattern})", Like(operator, node, other, None, negated, 0)


def _case(args: tuple[Pair | None, list[tuple[Pair, Pair]], Pair | None]) -> Pair:
    operand, whens, otherwise = args
    text = "(CASE " + (operand[0] if operand else "")
    text += "".join(f" WHEN {when[0]} THEN {then[0]}" for when, then in whens)
    text += (f" ELSE {otherwise[0]}" if otherwise else "") + " END)"
    pairs = [(when[1], then[1]) for when, then in whens]
    node = Case(operand[1] if operand else None, pairs, otherwise[1] if otherwise else None, 0)
    return text, node


def _cast(args: tuple[Pair, str]) -> Pair:
    (text, node), name = args
    return f"CAST({text} AS {name})", Cast(node, name, 0)


def _collate(args: tuple[Pair, str]) -> Pair:
    (text, node), name = args
    return f"({text} COLLATE {name})", Collate(node, name, 0)


def _call(args: tuple[str, list[Pair]]) -> Pair:
    name, values = args
    if name == "substr":  # SQLite cuts its numbers to 32 bits
        small: Pair = ("100", Literal(100, 0))
        values = [values[0], *(_binary(("%", value, small)) for value in values[1:])]
    listed = ", ".join(text for text, _ in values)
    node = FunctionCall(name, [each for _, each in values], False, False, 0)
    return f"{name}({listed})", node


FUNCTIONS = {
    1: ["abs", "lower", "upper", "length", "trim", "ltrim", "rtrim", "hex", "quote", "unicode",
        "sign", "round"],
    2: ["substr", "instr", "coalesce", "ifnull", "nullif", "min", "max", "trim"],
    3: ["substr", "replace", "coalesce", "min", "max"],
}  # fmt: skip


def _extend(inner: st.SearchStrategy[Pair]) -> st.SearchStrategy[Pair]:
    flag = st.booleans()
    operators = ["+", "-", "*", "/", "%", "||", "&", "|", "<<", ">>"]
    comparisons = ["=", "!=", "<", "<=", ">", ">=", "IS", "IS NOT"]
    names = st.sampled_from(["INTEGER", "REAL", "TEXT", "NUMERIC", "BLOB"])
    calls = [
        st.tuples(st.sampled_from(found), st.lists(inner, min_size=count, max_size=count))
        for count, found in FUNCTIONS.items()
    ]
    return st.one_of(
        st.tuples(st.sampled_from(operators), inner, inner).map(_binary),
        st.tuples(st.sampled_from(comparisons), inner, inner).map(_binary),
        st.tuples(st.sampled_from(comparisons), inner, inner).map(_binary),
        st.tuples(st.sampled_from(["AND", "OR"]), inner, inner).map(_binary),
        st.tuples(st.sampled_from(["-", "+", "~", "NOT"]), inner).map(_unary),
        st.tuples(inner, flag).map(_is_null),
        st.tuples(inner, inner, inner, flag).map(_between),
        st.tuples(inner, st.lists(inner, min_size=1, max_size=3), flag).map(_in),
        st.tuples(st.sampled_from(["LIKE", "GLOB"]), inner, inner, flag).map(_like),
        st.tuples(
            st.none() | inner,
            st.lists(st.tuples(inner, inner), min_size=1, max_size=2),
            st.none() | inner,
        ).map(_case),
        st.tuples(inner, names).map(_cast),
        st.tuples(inner, st.sampled_from(["NOCASE", "RTRIM", "BINARY"])).map(_collate),
        *[strategy.map(_call) for strategy in calls],
    )


def expressions(*, columns: bool) -> st.SearchStrategy[Pair]:
    """Expressions over literals and, if wanted, the columns of COLUMNS."""
    names = st.sampled_from(sorted(COLUMNS)).map(lambda name: (name, ColumnRef(name, None, 0)))
    leaves = st.one_of(literals(), names) if columns else literals()
    return st.recursive(leaves, _extend, max_leaves=8)


def rows() -> st.SearchStrategy[tuple[object, ...]]:
    """Values of COLUMNS."""
    return st.tuples(st.none() | INTEGERS, st.none() | REALS, st.none() | TEXTS, st.none() | BLOBS)
