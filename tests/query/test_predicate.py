"""Predicates over whole parts agree with the closure of the same expression (V1)."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m2mdb.index.schema import CollectionSchema, Column
from m2mdb.pager.errors import DataError, ProgrammingError
from m2mdb.query.affinity import microseconds, truth
from m2mdb.query.bounds import number_comparison
from m2mdb.query.expression import compile_expression
from m2mdb.query.functions import Bindings
from m2mdb.query.nodes import (
    Between,
    Binary,
    ColumnRef,
    Expression,
    In,
    IsNull,
    Like,
    Literal,
    Parameter,
    Unary,
)
from m2mdb.query.predicate import compile_predicate
from m2mdb.query.scope import RowScope, Subqueries
from tests.query.sql_pairs import SCHEMA, Pair, expressions, rows

SETTINGS = settings(max_examples=400, deadline=None, derandomize=True)
_DTYPES = {"INTEGER": np.int64, "REAL": np.float64, "BOOLEAN": np.uint8, "TIMESTAMP": np.int64}


class FakePart:
    """A part in memory with the arrays of its numeric columns."""

    def __init__(
        self, schema: CollectionSchema, rows: Sequence[tuple[Any, ...]], dead: Sequence[int] = ()
    ) -> None:
        self.schema = schema
        self.table = rows
        self.size = len(rows)
        self.rowids = np.arange(10, 10 + self.size, dtype=np.int64)
        self.live = None
        if dead:
            self.live = np.ones(self.size, bool)
            self.live[list(dead)] = False

    def values(self, column_index: int, ordinals: np.ndarray | None = None) -> list[Any]:
        chosen = range(self.size) if ordinals is None else ordinals.tolist()
        return [self.table[row][column_index] for row in chosen]

    def numbers(self, column_index: int) -> tuple[np.ndarray, np.ndarray | None] | None:
        dtype = _DTYPES.get(self.schema.columns[column_index].type)
        if dtype is None:
            return None
        values = self.values(column_index)
        nulls = np.array([value is None for value in values], bool)
        stored = [
            0 if v is None else microseconds(v) if isinstance(v, datetime.datetime) else v
            for v in values
        ]
        return np.array(stored, dtype), nulls if nulls.any() else None


def mask_of(node: Expression, part: FakePart, parameters: Sequence[object] = ()) -> list[bool]:
    predicate = compile_predicate(node, RowScope(part.schema, Subqueries(len(parameters))))
    mask = predicate.bind(Bindings(parameters)).mask(part)
    assert mask.dtype == bool and mask.shape == (part.size,)
    found: list[bool] = mask.tolist()
    return found


def by_rows(node: Expression, part: FakePart, parameters: Sequence[object] = ()) -> list[bool]:
    scope = RowScope(part.schema, Subqueries(len(parameters)))
    evaluate = compile_expression(node, scope)
    live = [True] * part.size if part.live is None else part.live.tolist()
    found = []
    for number, row in enumerate(part.table):
        values = [int(part.rowids[number]) if s == -1 else row[int(s)] for s in scope.sources]
        wanted = live[number] and truth(evaluate(tuple(values), Bindings(parameters)))
        found.append(bool(wanted))
    return found


def outcome(run: Any, *arguments: Any) -> object:
    try:
        return run(*arguments)
    except DataError:
        return DataError


@SETTINGS
@given(pair=expressions(columns=True), table=st.lists(rows(), min_size=1, max_size=5))
def test_any_predicate_agrees_with_its_closure(pair: Pair, table: list[tuple[Any, ...]]) -> None:
    part = FakePart(SCHEMA, table, dead=[0] if len(table) > 3 else [])

    expected = outcome(by_rows, pair[1], part)

    if expected is DataError:
        return  # a term may be spared by another, in either order
    assert mask_of(pair[1], part) == expected


INTERESTING = [
    0, 1, -1, 2, 2.5, -2.5, 1e300, -1e300, float("inf"), float("-inf"), 2**53, 2**53 + 1,
    float(2**53), 2**63 - 1, -(2**63), 2.0**63, -(2.0**63), 2**62 + 1, 0.1,
]  # fmt: skip


@pytest.mark.parametrize("symbol", ["=", "!=", "<", "<=", ">", ">="])
def test_numbers_compare_exactly(symbol: str) -> None:
    integers = np.array([v for v in INTERESTING if type(v) is int], np.int64)
    reals = np.array([v for v in INTERESTING if type(v) is float], np.float64)

    for values in (integers, reals):
        for constant in INTERESTING:
            found = number_comparison(values, symbol, constant)

            symbol_in_python = {"=": "=="}.get(symbol, symbol)
            wanted = [
                eval(f"a {symbol_in_python} b", {"a": v, "b": constant}) for v in values.tolist()
            ]
            assert found.tolist() == wanted, (symbol, constant)


NOTES = CollectionSchema(
    "notes",
    (
        Column("n", "INTEGER"), Column("flag", "BOOLEAN"), Column("at", "TIMESTAMP"),
        Column("t", "TEXT"), Column("v", "VECTOR", dimension=2),
    ),
)  # fmt: skip


def moment(day: int) -> datetime.datetime:
    return datetime.datetime(2024, 1, day, tzinfo=datetime.UTC)


TABLE = [
    (1, True, moment(1), "Ab", None),
    (2, False, moment(2), "ab", None),
    (None, None, None, None, None),
    (4, True, moment(4), "c", None),
]


def ref(name: str) -> ColumnRef:
    return ColumnRef(name, None, 0)


def compared(name: str, symbol: str, value: Any) -> Binary:
    return Binary(symbol, ref(name), Literal(value, 0), 0)


LEAVES: list[Expression] = [
    compared("n", ">", 1), compared("n", "=", 300), compared("flag", "=", 1),
    compared("flag", "<", 300), compared("flag", "!=", True), compared("at", ">=", "2024-01-02"),
    compared("t", "=", "ab"), compared("t", "!=", "ab"), compared("t", "<", "b"),
    compared("rowid", "<=", 11), compared("n", "=", None), compared("n", "<", "x"),
    Binary("<", Literal(1, 0), ref("n"), 0), IsNull(ref("t"), False, 0), IsNull(ref("n"), True, 0),
    In(ref("n"), [Literal(1, 0), Literal(2.0, 0)], False, 0),
    In(ref("t"), [Literal("c", 0), Literal(None, 0)], True, 0), In(ref("n"), [], False, 0),
    In(ref("at"), [Literal("2024-01-04", 0)], False, 0),
    Like("LIKE", ref("t"), Literal("A%", 0), None, False, 0),
    Like("LIKE", ref("t"), Literal("A%", 0), None, True, 0),
    Between(ref("n"), Literal(1, 0), Literal(3, 0), True, 0),
    IsNull(compared("n", ">", 1), False, 0), Literal(1, 0), Literal(None, 0), ref("flag"),
]  # fmt: skip


def trees() -> st.SearchStrategy[Expression]:
    return st.recursive(
        st.sampled_from(LEAVES),
        lambda inner: st.one_of(
            st.tuples(st.sampled_from(["AND", "OR"]), inner, inner).map(
                lambda args: Binary(*args, 0)
            ),
            inner.map(lambda node: Unary("NOT", node, 0)),
        ),
        max_leaves=6,
    )


@SETTINGS
@given(node=trees())
def test_conditions_of_every_type_agree_with_their_closures(node: Expression) -> None:
    for dead in ([], [1], [0, 1, 2, 3]):
        part = FakePart(NOTES, TABLE, dead)
        assert mask_of(node, part) == by_rows(node, part)


def test_a_parameter_takes_the_affinity_of_its_column() -> None:
    part = FakePart(NOTES, TABLE)
    parameter = Parameter(0, None, 0)

    assert mask_of(Binary("=", ref("n"), parameter, 0), part, ["2"]) == [False, True, False, False]
    assert mask_of(Binary(">", ref("at"), parameter, 0), part, [moment(2)])[3]
    assert mask_of(Binary(">", ref("at"), parameter, 0), part, ["2024-01-02T00:00"])[3]
    assert mask_of(In(ref("n"), parameter, False, 0), part, [(1, 4)]) == [True, False, False, True]
    assert mask_of(In(ref("n"), parameter, False, 0), part, [np.array([4])])[3]


def test_what_is_no_time_or_no_list_is_refused() -> None:
    part = FakePart(NOTES, TABLE)
    parameter = Parameter(0, None, 0)

    with pytest.raises(DataError, match="'yesterday' is not a time"):
        mask_of(Binary(">", ref("at"), parameter, 0), part, ["yesterday"])
    with pytest.raises(DataError, match=r"5\.5 is not a time"):
        mask_of(Binary(">", ref("at"), parameter, 0), part, [5.5])
    with pytest.raises(ProgrammingError, match="parameter 1 stands for a list and is bound to int"):
        mask_of(In(ref("n"), parameter, False, 0), part, [5])
    with pytest.raises(ProgrammingError, match="v is a VECTOR column"):
        mask_of(Binary("=", ref("v"), parameter, 0), part, [[1, 2]])
