"""What is wrong is told with its place, what was expected, and what was probably meant."""

from __future__ import annotations

import time

import pytest

from m2mdb.pager.errors import InterfaceError, ProgrammingError
from m2mdb.query.parser import MAX_LENGTH, parse, parse_script, split

MESSAGES = {
    "SEARCH notes NEAR ? KK 10": [
        'near "KK": expected',
        " K,",
        "FUSION",
        "WHERE",
        "did you mean K?",
        "(line 1, column 21)",
    ],
    "SELCT 1": ['near "SELCT": expected SELECT', "did you mean SELECT?", "(line 1, column 1)"],
    "SELECT a FORM notes": ['near "FORM"', "FROM", "did you mean FROM?", "(line 1, column 10)"],
    "SELECT a b FROM t": ['near "b": expected AS', "an operator"],
    "SELECT a\nFROM\n  t t2": ['near "t2"', "AS", "(line 3, column 5)"],
    "SELECT": ["incomplete statement: expected", "an expression", "(line 1, column 7)"],
    "SEARCH": ["incomplete statement: expected a name"],
    "SEARCH notes NEAR": ["incomplete statement: expected a value"],
    "SEARCH notes K ten": ['near "ten": expected a value'],
    "SELECT 1 +": ["incomplete statement: expected an expression"],
    "SELECT (1": ["incomplete statement", '")"'],
    "SELECT 1)": ['near ")"'],
    "CREATE TABLE t (a": ["incomplete statement", '","', '")"', "UNIQUE"],
    "INSERT INTO t VALUE (1)": ['near "VALUE"', "did you mean VALUES?"],
    "SEARCH notes FUSION rff": ['near "rff": expected RRF', "did you mean RRF?"],
    "SEARCH notes SCORE spat": ['near "spat": expected SIMILARITY or SPLAT', "mean SPLAT?"],
    "SEARCH n NEAR ? K 10 LIMIT 5": ["near LIMIT: K and LIMIT exclude each other", "column 22"],
    "SEARCH n NEAR ? K 10 K 5": ["near K: K stands twice", "column 22"],
    "SEARCH n WHERE a WHERE b": ["near WHERE: WHERE stands twice"],
    "SEARCH n MIN SCORE 1 MIN SCORE 2": ["near MIN SCORE: MIN SCORE stands twice"],
    "SEARCH n RECALL 0.9 EXACT": ["near EXACT: RECALL and EXACT exclude each other"],
    "SEARCH n K 1 RETURNING a EXACT": ['near "EXACT"'],
    "SELECT order FROM t": ['near "order"', 'ORDER is a reserved word: as a name it is written "'],
    "SELECT 1; SELECT 2": ["You can only execute one statement at a time"],
    "SELECT 1; '": ["You can only execute one statement at a time"],
    "": ["empty statement"],
    " ; -- x": ["empty statement"],
    "SELECT 'abc": ["unterminated string", "(line 1, column 8)"],
    "SELECT x'ab": ["unterminated string", "(line 1, column 8)"],
    'SELECT "abc': ["unterminated or empty quoted name"],
    "SELECT /* abc": ["unterminated comment", "(line 1, column 8)"],
    "SELECT [1, a]": ["malformed vector", "(line 1, column 8)"],
    "SELECT x'abc'": ["malformed blob literal: x'abc'"],
    "SELECT x'0g'": ["malformed blob literal: x'0g'"],
    "SELECT x'0 0 '": ["malformed blob literal"],
    "SELECT 0x11111111111111111": ["hex literal too big"],
    "SELECT 12abc": ['unrecognized token: "12abc"'],
    "SELECT @a": ['unrecognized token: "@"'],
    "SELECT `a`": ['unrecognized token: "`"'],
    "SELECT :": ["malformed parameter"],
    "SELECT ?0": ["parameter ?0 must be ?1 to ?32766"],
    "SELECT ?99999999999999999999": ["must be ?1 to ?32766"],
    "SELECT ?, :a": ["? and :name parameters cannot be mixed", "(line 1, column 11)"],
    "INSERT INTO t VALUES (1, 2), (3)": ["all rows of VALUES must have 2 values, not 1"],
    "INSERT INTO t (a) DEFAULT VALUES": ["DEFAULT VALUES takes no list of columns"],
    "VALUES (1) LIMIT 1": ["VALUES takes no ORDER BY and no LIMIT"],
    "CREATE TABLE t (a INT, UNIQUE (b))": ["UNIQUE (b): no such column: b", "column 24"],
    "CREATE INDEX i ON c USING a (b) USING d": ["USING stands twice"],
    "FEEDBACK n NEAR ? RELEVANT (1) RELEVANT (2)": ["RELEVANT stands twice"],
}


@pytest.mark.parametrize("sql", MESSAGES)
def test_message(sql: str) -> None:
    with pytest.raises(ProgrammingError) as caught:
        parse(sql)

    for part in MESSAGES[sql]:
        assert part in str(caught.value)


def test_a_statement_has_a_limit() -> None:
    parse("SELECT 1" + " " * (MAX_LENGTH - 10))
    with pytest.raises(ProgrammingError, match="1,000,000 is the limit"):
        parse("SELECT 1," + " " * MAX_LENGTH + "2")
    with pytest.raises(ProgrammingError, match="1,000,000 is the limit"):
        parse_script("SELECT 1; SELECT 1," + " " * MAX_LENGTH + "2")
    with pytest.raises(ProgrammingError, match="1,000,000 is the limit"):
        parse("SELECT " + "'x', " * MAX_LENGTH + "2")
    long = "it''s" * MAX_LENGTH
    assert parse(f"SELECT '{long}', x'{'ab' * MAX_LENGTH}'")
    assert parse_script(f"SELECT 1; SELECT '{long}'")


def test_a_script_may_be_longer_than_a_statement() -> None:
    script = "SELECT 'x';" * 100_000

    assert sum(1 for _ in split(script)) == 100_000


@pytest.mark.parametrize("wrong", [None, 1, b"SELECT 1", ["SELECT 1"]])
def test_a_statement_is_a_str(wrong: object) -> None:
    with pytest.raises(InterfaceError, match=f"not {type(wrong).__name__}"):
        parse(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT '" + "''" * 200_000,
        "SELECT [" + "1," * 200_000,
        "SELECT [" + "1 " * 200_000,
        "/*" * 200_000,
        "SELECT " + "9" * 500_000 + " 1",
        "SELECT " + "9" * 500_000 + "x",
        'SELECT "' + '""' * 200_000,
        "SELECT x'" + "a" * 500_001 + "'",
        " " * 500_000 + "$",
        "/*" + "*" * 500_000,
        "SELECT " + "." * 200_000,
    ],
    ids=lambda sql: sql[:12],
)
def test_cutting_is_linear(sql: str) -> None:
    """L3: no text makes a pattern backtrack."""
    start = time.process_time()
    with pytest.raises(ProgrammingError):
        parse(sql)

    assert time.process_time() - start < 1.0


def test_error_position_in_a_script_is_the_script_s() -> None:
    with pytest.raises(ProgrammingError, match=r"\(line 3, column 8\)"):
        parse_script("SELECT 1;\nSELECT 2;\nSELECT FROM t;")


@pytest.mark.parametrize("sql", ["SELECT id name FROM t", "SELECT * FROM notes n"])
def test_a_name_where_an_alias_could_stand_is_told_of_as(sql: str) -> None:
    with pytest.raises(ProgrammingError, match="an alias needs AS"):
        parse(sql)
