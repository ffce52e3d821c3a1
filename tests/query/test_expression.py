"""Expressions that SQLite has not, or whose results are worth stating."""

from __future__ import annotations

import datetime
import sqlite3
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m2mdb.index.schema import CollectionSchema, Column
from m2mdb.pager.errors import DataError, ProgrammingError
from m2mdb.query.ast import Select
from m2mdb.query.expression import compile_expression
from m2mdb.query.functions import Bindings
from m2mdb.query.nodes import Expression
from m2mdb.query.parser import parse
from m2mdb.query.pattern import like_matcher
from m2mdb.query.scope import RowScope, Subqueries

UTC = datetime.UTC
SCHEMA = CollectionSchema(
    "t",
    (
        Column("n", "INTEGER"), Column("s", "TEXT"), Column("flag", "BOOLEAN"),
        Column("at", "TIMESTAMP"), Column("meta", "JSON"), Column("v", "VECTOR", dimension=2),
    ),
)  # fmt: skip
ROW = (
    3, "Dark Mode", True, datetime.datetime(2024, 1, 2, 3, 4, 5, 600, tzinfo=UTC),
    '{"a": {"b": [1, 2.5, null, true]}, "x.y": "dotted", "big": 123456789012345678901}',
    np.array([1, 2], np.float32),
)  # fmt: skip


def node_of(text: str) -> Expression:
    statement = parse(f"SELECT {text}")
    assert isinstance(statement, Select)
    expression = statement.items[0].expression
    assert isinstance(expression, Expression)
    return expression


def evaluate(text: str, parameters: Sequence[object] = ()) -> Any:
    scope = RowScope(SCHEMA, Subqueries(len(parameters)))
    evaluator = compile_expression(node_of(text), scope)
    values = tuple(99 if source == -1 else ROW[int(source)] for source in scope.sources)
    return evaluator(values, Bindings(parameters))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("flag", True), ("flag = 1", True), ("flag = TRUE", True), ("flag IS TRUE", True),
        ("flag IS NOT FALSE", True), ("NULL IS TRUE", False), ("5 IS TRUE", True),
        ("NOT flag", False), ("flag + 1", 2), ("flag || ''", "1"), ("typeof(flag)", "boolean"),
        ("typeof(1 = 1)", "boolean"), ("rowid", 99), ("t.n + T.N", 6),
        ("at = '2024-01-02 03:04:05.0006'", True), ("at > '2024-01-02'", True),
        ("at BETWEEN '2024-01-01' AND '2024-02-01'", True), ("at IN ('2024-01-02', NULL)", None),
        ("'2024-06-01' > at", True), ("at < '2024-01-02T03:04:05.0006+01:00'", False),
        ("at || ''", "2024-01-02 03:04:05.000600"), ("CAST(at AS INTEGER)", 1704164645000600),
        ("CAST(1704164645000600 AS TIMESTAMP) = at", True), ("at IS NULL", False),
        ("CAST('2024-01-02' AS TIMESTAMP) < at", True), ("max(at, '2025')", "2025"),
        ("CASE at WHEN '2024-01-02 03:04:05.0006' THEN 1 ELSE 2 END", 1),
        ("meta->'a'", '{"b":[1,2.5,null,true]}'), ("meta->>'a.b'", "[1,2.5,null,true]"),
        ("meta->>'$.a.b[1]'", 2.5), ("meta->'$.a.b[#-1]'", "true"), ("meta->>'$.a.b[3]'", 1),
        ("meta->>'x.y'", "dotted"), ("meta->>'$.\"x.y\"'", "dotted"), ("meta->>'no.way'", None),
        ("meta->'a'->'b'->>0", 1), ("meta->'a'->'b'->-2", "null"),
        ("meta->>'big'", 1.2345678901234568e20),
        ("meta->>'$.a.b[2]'", None), ("json_array_length(meta, '$.a.b')", 4),
        ("json_type(meta, '$.a.b[3]')", "true"), ("json_valid('{')", 0),
        ("json(' [1, 2 ] ')", "[1,2]"),
        ("json_extract(meta, '$.a.b[0]', '$.none')", "[1,null]"),
        ("CAST('[1]' AS JSON)", "[1]"), ("-9223372036854775808", -(2**63)),
        ("9223372036854775807 + 1", 9223372036854775808.0), ("5 / 2", 2),
        ("-5 / 2", -2), ("5 / 0", None),
        ("5 % -3", 2), ("'a' IN ()", False), ("NULL IN ()", False), ("s LIKE '%MODE'", True),
        ("s LIKE 'dark%'", True), ("s LIKE '%k m%'", True), ("s LIKE 'd_rk mode'", True),
        ("s GLOB 'Dark*'", True), ("s LIKE 'dark!%' ESCAPE '!'", False),
        ("'a%' LIKE 'a!%' ESCAPE '!'", True),
        ("iif(n > 2, 'x', 'y')", "x"), ("s COLLATE NOCASE = 'DARK MODE'", True),
        ("'b' COLLATE NOCASE IN ('A', 'B')", True), ("quote(NULL)", "NULL"), ("hex('ä')", "C3A4"),
        ("x'4142' || 'c'", "ABc"), ("char(72, 105)", "Hi"), ("printf('%c', 'xyz')", "x"),
        ("upper('äb')", "äB"),
    ],
)  # fmt: skip
def test_value(text: str, value: object) -> None:
    found = evaluate(text)

    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("at > 5.5", DataError, "5.5 is not a time"),
        ("at + 1", DataError, "is not a number"),
        ("v = v", ProgrammingError, "v is a VECTOR column and cannot be compared"),
        ("v < 'x'", ProgrammingError, "use NEAR"),
        ("abs(v)", DataError, "is not a number"),
        ("v || 'x'", DataError, "vector"),
        ("max(v, v)", DataError, "cannot be compared"),
        ("CAST(n AS VECTOR(2))", ProgrammingError, "VECTOR"),
        ("v <=> 1", DataError, "is not a vector"),
        ("x.n", ProgrammingError, "no such column: x.n"),
        ("nope", ProgrammingError, "no such column: nope"),
        ("count(*)", ProgrammingError, "misuse of aggregate: count()"),
        ("max()", ProgrammingError, "wrong number of arguments"),
        ("sum(1, 2)", ProgrammingError, "wrong number of arguments"),
        ("abs(*)", ProgrammingError, "wrong use of *"),
        ("abs(DISTINCT n)", ProgrammingError, "DISTINCT"),
        ("s LIKE 'x' ESCAPE 'ab'", DataError, "ESCAPE takes one character"),
        ("n COLLATE french", ProgrammingError, "no such collation: french"),
        ("meta->>'$.a['", ProgrammingError, "malformed JSON path"),
        ("'nope'->'a'", DataError, "malformed JSON: 'nope'"),
        ("CAST('{' AS JSON)", DataError, "malformed JSON"),
        ("CAST('noon' AS TIMESTAMP)", DataError, "'noon' is not a time"),
        ("zeroblob(2000000000)", DataError, "the limit is"),
        ("printf('%9999999d', 1)", DataError, "exceeds the limit"),
        ("json('[1')", DataError, "malformed JSON"),
    ],
)
def test_error_names_the_value(text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        evaluate(text)

    assert message in str(caught.value)


def test_parameters_take_part_as_literals_do() -> None:
    assert evaluate("n = ?", ("3",)) is True
    assert evaluate("? = ?", ("3", 3)) is False
    assert evaluate("at = ?", (ROW[3],)) is True
    assert evaluate("n IN (?, ?)", (1, "3")) is True
    assert evaluate("n IN ?", ([1, 2],)) is False
    assert evaluate("n IN ?", ([1, None],)) is None
    assert evaluate("n NOT IN ?", ((),)) is True
    assert evaluate("s IN ?", ({"Dark Mode"},)) is True
    assert evaluate("v", ()).tolist() == [1, 2]


def test_one_moment_for_a_whole_statement() -> None:
    bindings = Bindings()
    scope = RowScope(SCHEMA, Subqueries(0))
    now = compile_expression(node_of("CURRENT_TIMESTAMP"), scope)
    day = compile_expression(node_of("CURRENT_DATE"), scope)

    assert now((), bindings) == now((), bindings)
    assert now((), bindings).startswith(day((), bindings))
    assert abs(bindings.moment - datetime.datetime.now(UTC)) < datetime.timedelta(minutes=5)


FORMATS = st.lists(
    st.one_of(
        st.sampled_from(["%d", "%5d", "%-5d|", "%05d", "%+d", "%x", "%X", "%o", "%s", "%10s",
                         "%.2s", "%q", "%Q", "%%", "%,d", "%i", "%u", "%w", "% d", "%*d"]),
        st.text(alphabet="ab '\"", max_size=3),
    ),
    max_size=5,
).map("".join)  # fmt: skip


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    FORMATS,
    st.lists(
        st.one_of(st.integers(-99999, 99999), st.sampled_from(["x", "it's", 'q"q']), st.none()),
        max_size=4,
    ),
)
def test_printf_agrees_with_sqlite(pattern: str, values: list[object]) -> None:
    marks = "".join(", ?" for _ in values)
    twin = sqlite3.connect(":memory:")

    theirs = twin.execute(f"SELECT printf(?{marks})", (pattern, *values)).fetchone()[0]

    assert evaluate(f"printf(?{marks})", (pattern, *values)) == theirs
    twin.close()


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(alphabet="aAbB%_İKk", max_size=6), st.text(alphabet="aAbBİKk\n", max_size=8))
def test_like_agrees_with_sqlite(pattern: str, text: str) -> None:
    twin = sqlite3.connect(":memory:")

    theirs = twin.execute("SELECT ? LIKE ?", (text, pattern)).fetchone()[0]

    assert like_matcher(pattern, None)(text) == bool(theirs)
    twin.close()


def test_a_pattern_of_many_runs_ends_soon() -> None:
    assert not like_matcher("%a" * 60 + "b", None)("a" * 3000)
    assert like_matcher("%a" * 60 + "%b", None)("a" * 3000 + "b")
