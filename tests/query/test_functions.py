"""Functions that the standard library's SQLite lacks or has otherwise, and examples of the others.

`tests/differential` compares what both have, over random arguments.
"""

from __future__ import annotations

import datetime
import math

import pytest

import m2mdb
from m2mdb.query.calls import function_names
from tests.query.conftest import Run

VALUES = [
    ("date('2024-01-31', '+1 month')", "2024-03-02"),
    ("date('1999-02-30')", "1999-03-02"),
    ("datetime('2024-01-01 24:00')", "2024-01-02 00:00:00"),
    ("datetime('2024-05-06T07:08:09+02:00')", "2024-05-06 05:08:09"),
    ("datetime('2024-05-06 07:08:09.25', 'subsec')", "2024-05-06 07:08:09.250"),
    ("unixepoch('1970-01-01 00:00:01.5', 'subsec')", 1.5),
    ("unixepoch('1969-12-31 23:59:59.5')", -1),
    ("strftime('%F %T %R', '2024-05-06 17:08:09')", "2024-05-06 17:08:09 17:08"),
    ("strftime('%e|%k|%l|%I|%p|%P', '2024-05-06 07:08:09')", " 6| 7| 7|07|AM|am"),
    ("strftime('%G-%V %u %U %g', '2024-12-30')", "2025-01 1 52 25"),
    ("strftime('%G-%V', '2021-01-03')", "2020-53"),
    ("strftime('%y', '2024-01-01')", None),
    ("timediff('2024-03-01', '2024-01-31')", "+0000-00-30 00:00:00.000"),
    ("timediff('2024-01-31', '2024-03-01')", "-0000-01-01 00:00:00.000"),
    ("timediff('2024-02-29 12:00', '2023-02-28 11:59:59.5')", "+0001-00-01 00:00:00.500"),
    ("datetime('2023-02-28 11:59:59', '+0001-00-01 00:00:00.000')", "2024-02-29 11:59:59"),
    ("date('2024-01-01', 'sometime')", None),
    ("json_array(1, 'a', NULL, 2.5, json('[1]'), json_object('k', 1 = 1))",
     '[1,"a",null,2.5,[1],{"k":1}]'),
    ("json_set('{\"a\":1}', '$.b.c', json('{}'), '$.a', 'x')", '{"a":"x","b":{"c":{}}}'),
    ("json_insert('[1,2]', '$[#]', 3, '$[0]', 9)", "[1,2,3]"),
    ("json_replace('{\"a\":1}', '$.a', 2, '$.b', 3)", '{"a":2}'),
    ("json_remove('[1,2,3]', '$[0]', '$[#-1]')", "[2]"),
    ("json_patch('{\"a\":{\"b\":1,\"c\":2}}', '{\"a\":{\"b\":null},\"d\":3}')",
     '{"a":{"c":2},"d":3}'),
    ("json_quote(json('[1.50]'))", "[1.50]"),
    ("json_quote(9e999)", "9e999"),
    ("json('{\"n\":1.10, \"e\":1e5}')", '{"n":1.10,"e":1e5}'),
    ("json('[-0, -0.50]')", "[-0,-0.50]"),
    ("json_extract('[-0]', '$[0]')", 0),
    ("json_extract('{\"a\":1,\"a\":2}', '$.a')", 1),
    ("json_valid('NaN')", 0),
    ("json_valid('[Infinity]')", 0),
    ("json_array([1, 2.5])", "[[1.0,2.5]]"),
    ("unhex('4d 32', ' ')", b"M2"),
    ("unhex('4d3')", None),
    ("octet_length('aé')", 3),
    ("concat('a', NULL, 1)", "a1"),
    ("concat_ws('-', 'a', NULL, 'b')", "a-b"),
    ("soundex('Robert')", "R163"),
    ("iif(0, 1, 1, 2, 3)", 2),
    ("iif(0, 1)", None),
    ("atanh(1)", math.inf),
    ("pow(0, -1)", math.inf),
    ("ceil(7)", 7),
    ("trunc(-1.5)", -1.0),
    ("sqrt(-1)", None),
    ("log(9e999, 9e999)", None),
    ("atan2(CAST('-0' AS REAL), -3)", -math.pi),
    ("log(1, 5)", None),
    ("printf('%.2f', -1.625)", "-1.63"),
    ("printf('%!.15g', -16.0)", "-16.0"),
    ("quote(degrees(1))", "5.72957795130823228646e+01"),
    ("length(randomblob(5))", 5),
    ("like('a%', 'Abc')", True),
    ("glob('a*', 'Abc')", False),
    ("max('a' COLLATE NOCASE, 'B')", "B"),
    ("nullif('a', 'A' COLLATE NOCASE)", None),
    ("'a' || 'b' COLLATE NOCASE = 'AB'", True),
    ("coalesce(1, abs(-9223372036854775808))", 1),
]  # fmt: skip


@pytest.mark.parametrize(("expression", "value"), VALUES)
def test_value(run: Run, expression: str, value: object) -> None:
    ((found,),) = run(f"SELECT {expression}")

    assert found == value and type(found) is type(value)


def test_now_is_one_moment_of_the_statement(run: Run) -> None:
    now = datetime.datetime.now(datetime.UTC)

    ((one, other, day, stamp),) = run(
        "SELECT julianday('now'), julianday(), date('now'), CURRENT_TIMESTAMP"
    )

    assert one == other and stamp.startswith(day)
    assert abs(one - (now.timestamp() / 86400 + 2440587.5)) < 1 / 1440


def test_a_timestamp_column_is_a_time_value(run: Run) -> None:
    run("CREATE TABLE t (id INTEGER PRIMARY KEY, seen TIMESTAMP, e VECTOR(2))")
    run("INSERT INTO t VALUES (1, '2024-05-06 07:08:09.5', [1, 2]), (2, NULL, NULL)")

    found = run("SELECT date(seen), strftime('%f', seen, '+1 day'), json_array(seen, e) FROM t")

    assert found == [
        ("2024-05-06", "09.500", '["2024-05-06 07:08:09.500000",[1.0,2.0]]'),
        (None, None, "[null,null]"),
    ]


def test_json_aggregates_keep_nulls_and_json(run: Run) -> None:
    run("CREATE TABLE t (id INTEGER PRIMARY KEY, k TEXT, v JSON)")
    run("INSERT INTO t VALUES (1, 'a', '[1]'), (2, 'b', NULL), (3, NULL, '2')")

    assert run("SELECT json_group_array(v), json_group_object(k, json(v)) FROM t") == [
        ('["[1]",null,"2"]', '{"a":[1],"b":null}')
    ]
    assert run("SELECT json_group_array(v), json_group_object(k, v) FROM t WHERE id > 9") == [
        ("[]", "{}")
    ]


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("lenght('a')", r"no such function: lenght; did you mean length\(\)\?"),
        ("stftime('%Y')", r"did you mean strftime\(\)\?"),
        ("zzz(1)", r"no such function: zzz \(line 1, column 8\)$"),
        ("1 + sum(1, 2)", r"arguments to function sum\(\) \(line 1, column 12\)$"),
        ("substr('a')", r"wrong number of arguments to function substr\(\)"),
        ("json_object('a')", "even number of arguments"),
        ("json_array(x'00')", "JSON cannot hold BLOB values"),
        ("likelihood(1, 2)", "between 0.0 and 1.0"),
        ("json_remove('[]', [1, 2])", "is not a text"),
        ("json_extract('[]', [1, 2], '$')", "is not a text"),
    ],
)
def test_wrong_calls_are_explained(run: Run, expression: str, message: str) -> None:
    with pytest.raises(m2mdb.Error, match=message):
        run(f"SELECT {expression}")


def test_every_function_can_be_called_or_says_why_not(run: Run) -> None:
    for name in function_names():
        for count in range(4):
            arguments = ", ".join(["'1'"] * count)
            try:
                run(
                    f"SELECT {name}({arguments})" if count or name[:8] != "current_" else "SELECT 1"
                )
            except m2mdb.Error as error:
                assert str(error)


def test_a_document_that_is_nested_too_deep_is_refused(run: Run) -> None:
    for text in ("[" * 100_000, "[" * 700 + "]" * 700, '{"a":' * 600 + "1" + "}" * 600):
        try:
            run("SELECT json(?)", (text,))
        except m2mdb.DataError as error:
            assert "JSON" in str(error)
