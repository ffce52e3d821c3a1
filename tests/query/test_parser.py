"""Statements become the trees that ast.py describes."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2mdb.pager.errors import NotSupportedError, ProgrammingError
from m2mdb.query import ast
from m2mdb.query.ast import (
    Binary,
    ColumnRef,
    Expression,
    FunctionCall,
    In,
    Insert,
    IsNull,
    Literal,
    Parameter,
    Search,
    Select,
    Subquery,
    Unbuilt,
    VectorLiteral,
)
from m2mdb.query.parser import iterate_script, parse, parse_script, split
from tests.query.parser_samples import STATEMENTS


def expression(text: str) -> Any:
    """The tree of one expression."""
    statement = parse("SELECT " + text)
    assert isinstance(statement, Select)
    return statement.items[0].expression


def literal(value: Any) -> Literal:
    return Literal(value, 0)


@pytest.mark.parametrize("sql", STATEMENTS)
def test_every_statement_parses_with_comments_in_it(sql: str) -> None:
    first, _, rest = sql.partition(" ")
    commented = f"/* ; ' */ -- x ' \" ; \n {first} -- ;\n /* ; ' */\n{rest} -- '"

    statement = parse(sql)

    assert parse(commented) == statement
    assert statement.own_text() == sql.rstrip(";")
    assert repr(statement)


def test_the_clauses_of_search_stand_in_any_order() -> None:
    clauses = [
        "NEAR embedding ?", "MATCH body 'x'", "WHERE a = 1 AND k = 2", "K 10", "OFFSET 3",
        "FUSION rrf (k = 60)", "SCORE splat", "RECALL 0.9", "MIN SCORE 0.3", "DIVERSITY 0.5",
        "DECAY HALF LIFE 30 DAYS ON created", "TEMPERATURE 0.2 SEED 7", "AS OF 4",
    ]  # fmt: skip
    expected = parse("SEARCH notes " + " ".join(clauses) + " RETURNING id")

    for turn in range(1, len(clauses)):
        turned = clauses[turn:] + clauses[:turn]
        assert parse("SEARCH notes " + " ".join(turned) + " RETURNING id") == expected
    assert isinstance(expected, Search)
    assert (expected.near_column, expected.match_column) == ("embedding", "body")
    assert expected.k == literal(10)
    assert expected.offset == literal(3)
    assert expected.score == "splat"
    assert expected.recall == literal(0.9)
    assert expected.seed == literal(7)
    assert expected.as_of == literal(4)
    assert expected.fusion == ast.Fusion("rrf", [ast.Option("k", literal(60), 0)], 0)
    assert expected.decay == ast.Decay(literal(30), "DAYS", "created", 0)
    assert expected.returning is not None


def test_search_leaves_absent_clauses_empty() -> None:
    statement = parse("SEARCH notes FOR 'x'")

    assert isinstance(statement, Search)
    absent = {k: v for k, v in statement.fields().items() if v in (None, False)}
    assert statement.for_ == literal("x")
    assert {"k", "near", "match", "where", "fusion", "exact", "returning"} <= set(absent)


def test_insert_keeps_rows_conflict_and_returning() -> None:
    statement = parse(
        "INSERT INTO t (a, b) VALUES (1, ?), (NULL, x'00')"
        " ON CONFLICT (a) DO UPDATE SET b = excluded.b RETURNING a AS key"
    )

    assert isinstance(statement, Insert)
    assert statement.columns == ["a", "b"]
    assert statement.rows == [
        [literal(1), Parameter(0, None, 0)],
        [literal(None), literal(b"\0")],
    ]
    assert statement.on_conflict is not None
    assert statement.on_conflict.columns == ["a"]
    assert statement.on_conflict.assignments[0].value == ColumnRef("b", "excluded", 0)
    assert statement.returning is not None
    assert statement.returning[0].alias == "key"


def test_insert_forms() -> None:
    forms: Any = {
        sql: parse(sql)
        for sql in (
            "INSERT OR IGNORE INTO t VALUES (1)",
            "REPLACE INTO t VALUES (1)",
            "INSERT INTO t DEFAULT VALUES",
            "INSERT INTO t SELECT 1",
            "INSERT INTO t VALUES (1)",
        )
    }

    assert [form.or_action for form in forms.values()] == ["ignore", "replace", None, None, None]
    assert [form.columns for form in forms.values()] == [None, None, [], None, None]
    assert [len(form.rows) for form in forms.values()] == [1, 1, 1, 0, 1]
    assert [form.query is not None for form in forms.values()] == [False] * 3 + [True, False]


def test_create_sets_table_constraints_on_the_columns() -> None:
    statement: Any = parse(
        "CREATE TABLE t (Id TEXT, b DOUBLE PRECISION NOT NULL DEFAULT -1.5,"
        " v VECTOR(3, f16) METRIC l2, UNIQUE (B), PRIMARY KEY (id))"
    )

    identity, b, vector = statement.columns
    assert (identity.primary_key, identity.unique) == (True, False)
    assert (b.type_name, b.unique, b.not_null, b.default) == (
        "DOUBLE PRECISION", True, True, literal(-1.5),
    )  # fmt: skip
    assert (vector.type_name, vector.type_arguments, vector.metric) == ("VECTOR", [3, "f16"], "l2")


def test_labels_are_the_text_of_the_results() -> None:
    statement: Any = parse("SELECT a + 1 , count( * ), t.b, c AS d, 'x' FROM t")

    assert [item.label for item in statement.items] == ["a + 1", "count( * )", "b", "d", "'x'"]


def test_pragma_values_are_plain() -> None:
    values: Any = [
        parse(f"PRAGMA p {tail}") for tail in ("", "= -3", "= FULL", "('x')", "(1.5)", "= delete")
    ]

    assert [(v.value, v.form) for v in values] == [
        (None, ""), (-3, "="), ("FULL", "="), ("x", "("), (1.5, "("), ("delete", "="),
    ]  # fmt: skip


@pytest.mark.parametrize("sql", STATEMENTS)
def test_positions_lie_in_the_statement(sql: str) -> None:
    text = "  " + sql
    stack: list[Any] = [parse(text)]
    while stack:
        item = stack.pop()
        if isinstance(item, ast.Node):
            assert 2 <= item.position < len(text) or isinstance(item, ast.Statement)
            stack.extend(item.children())
        elif isinstance(item, list | tuple):
            stack.extend(item)


def test_position_and_line() -> None:
    statement: Any = parse("SELECT a,\n  wrong FROM t")
    reference = statement.items[1].expression

    assert ast.line_and_column(statement.text, reference.position) == (2, 3)


def test_parameters_by_position() -> None:
    statement = parse("SELECT ?, ?3, ?, ?1")
    items = statement.items if isinstance(statement, Select) else []

    assert [item.expression for item in items] == [Parameter(i, None, 0) for i in (0, 2, 3, 0)]
    assert (statement.parameter_count, statement.parameter_names) == (4, ())


def test_parameters_by_name() -> None:
    statement = parse("SEARCH n NEAR :q MATCH :text WHERE a = :q K :k")

    assert (statement.parameter_count, statement.parameter_names) == (3, ("q", "text", "k"))
    assert isinstance(statement, Search)
    assert statement.k == Parameter(2, "k", 0)


@pytest.mark.parametrize("sql", ["SELECT ?, :a", "SELECT :a, ?", "SELECT :a, ?1"])
def test_parameters_do_not_mix(sql: str) -> None:
    with pytest.raises(ProgrammingError, match="cannot be mixed"):
        parse(sql)


def test_in_forms() -> None:
    by_parameter, by_list = expression("a IN ?"), expression("a NOT IN (?)")
    by_query, empty = expression("a IN (SELECT 1)"), expression("a IN ()")

    assert isinstance(by_parameter, In)
    assert by_parameter.values == Parameter(0, None, 0)
    assert by_list.values == [Parameter(0, None, 0)]
    assert by_list.negated
    assert isinstance(by_query.values, Subquery)
    assert empty.values == []


def test_is_null_in_all_spellings() -> None:
    column = ColumnRef("a", None, 0)

    for text in ("a IS NULL", "a ISNULL", "a IS NOT DISTINCT FROM NULL"):
        assert expression(text) == IsNull(column, False, 0)
    for text in ("a IS NOT NULL", "a NOTNULL", "a NOT NULL", "a IS DISTINCT FROM NULL"):
        assert expression(text) == IsNull(column, True, 0)
    assert expression("a IS NOT 1") == Binary("IS NOT", column, literal(1), 0)
    assert expression("a == 1") == Binary("=", column, literal(1), 0)
    assert expression("a <> 1") == Binary("!=", column, literal(1), 0)


def test_numbers() -> None:
    numbers: dict[str, int | float] = {
        "0": 0, "007": 7, "1.": 1.0, ".5": 0.5, "1e3": 1000.0, "1.5E-2": 0.015,
        "0x1F": 31, "0xFFFFFFFFFFFFFFFF": -1, "9223372036854775807": 2**63 - 1,
        "9223372036854775808": float(2**63), "-9223372036854775808": -(2**63),
        "-9223372036854775809": -float(2**63), "99999999999999999999": 1e20, "- 5": -5,
        "0x00000000000000000001": 1, "1" + "0" * 400: float("inf"), "-2.5": -2.5,
    }  # fmt: skip
    for text, value in numbers.items():
        assert expression(text) == literal(value), text


def test_big_integer_is_settled_wherever_it_stands() -> None:
    statement: Any = parse("INSERT INTO t VALUES (9223372036854775808, 1 - 9223372036854775808)")

    assert statement.rows[0][0] == literal(float(2**63))
    assert statement.rows[0][1].right == literal(float(2**63))


@given(st.text())
def test_strings_survive(text: str) -> None:
    assert expression("'" + text.replace("'", "''") + "'") == literal(text)


@given(st.binary())
def test_blobs_survive(data: bytes) -> None:
    assert expression(f"x'{data.hex()}'") == literal(data)


@given(st.integers(-(2**63), 2**63 - 1))
def test_integers_survive(value: int) -> None:
    assert expression(str(value)) == literal(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_survive(value: float) -> None:
    found = expression(repr(value))

    assert found.value == value
    assert str(found.value) == str(value)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False)))
def test_vectors_survive(values: list[float]) -> None:
    assert expression(str(values)) == VectorLiteral(values, 0)


@given(st.text(min_size=1).filter(lambda name: name != ""))
def test_quoted_names_survive(name: str) -> None:
    assert expression('"' + name.replace('"', '""') + '"') == ColumnRef(name, None, 0)


def test_long_chains_are_shallow_trees() -> None:
    chain = " OR ".join(f"id = {i}" for i in range(5000))
    statement = parse("SELECT 1 WHERE " + chain)
    assert isinstance(statement, Select)

    leaves: list[Any] = []
    depth = unroll(statement.where, leaves)

    assert depth <= 14
    assert [leaf.right.value for leaf in leaves] == list(range(5000))


def unroll(node: Expression | None, leaves: list[Any]) -> int:
    """The depth of the ORs; leaves takes what they join, in order."""
    if isinstance(node, Binary) and node.operator == "OR":
        return 1 + max(unroll(node.left, leaves), unroll(node.right, leaves))
    leaves.append(node)
    return 0


def test_parentheses_may_nest_without_end() -> None:
    assert expression("(" * 20_000 + "1" + ")" * 20_000) == literal(1)


def test_deep_trees_are_refused_and_200_levels_are_not() -> None:
    parse("SELECT " + "NOT " * 190 + "1")
    for deep in ("NOT " * 300 + "1", "1" + " + 1" * 300, "abs(" * 300 + "1" + ")" * 300):
        with pytest.raises(ProgrammingError, match="nested too deeply: 200 levels"):
            parse("SELECT " + deep)


def test_scripts() -> None:
    script = " ; SELECT 'a;b' ; -- c;d\n SELECT 2;/*;*/;"

    statements = parse_script(script)

    assert list(split(script)) == ["SELECT 'a;b'", "SELECT 2"]
    assert [statement.own_text() for statement in statements] == ["SELECT 'a;b'", "SELECT 2"]
    assert parse_script(" ;; -- nothing") == []


def test_a_script_is_read_as_it_is_asked_for() -> None:
    statements = iterate_script("SELECT 1; SELEC 2")

    assert next(statements) == parse("SELECT 1")
    with pytest.raises(ProgrammingError, match=r"column 11"):
        next(statements)


def test_unbuilt_statements_name_themselves() -> None:
    keywords = {
        statement.keyword for statement in map(parse, STATEMENTS) if isinstance(statement, Unbuilt)
    }

    assert keywords == {
        "FEEDBACK", "ENERGY", "EXPLORE", "CONSOLIDATE", "UNDO",
    }  # fmt: skip


@pytest.mark.parametrize(
    "column", ["a INT REFERENCES b (c)",
               "a INT, FOREIGN KEY (a) REFERENCES b"],
)  # fmt: skip
def test_unbuilt_constraints_are_not_supported(column: str) -> None:
    with pytest.raises(NotSupportedError, match=r"not built yet \(line 1, column"):
        parse(f"CREATE TABLE t ({column})")


def test_functions_and_their_names() -> None:
    assert expression("COUNT(*)") == FunctionCall("count", [], True, False, 0)
    assert expression("min(DISTINCT a)").distinct
    assert expression("replace('a', 'b', 'c')").name == "replace"
    assert expression("k(1)").name == "k"


def test_equal_texts_share_one_tree() -> None:
    assert parse("SELECT 1 + 1") is parse("SELECT 1 + 1")


def test_parsing_a_search_is_quick() -> None:
    sql = (
        "SEARCH notes NEAR embedding ? MATCH 'dark mode' WHERE topic = 'ui' AND created > ?"
        " K 10 FUSION rrf (k = 60) RETURNING id, body, score -- "
    )
    best = 1.0
    for i in range(50):
        start = time.process_time()
        parse(sql + str(i))
        best = min(best, time.process_time() - start)

    assert best < 0.001
