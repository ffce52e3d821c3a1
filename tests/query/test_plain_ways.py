"""The quick ways of date and JSON functions give what the thorough ones give."""

from __future__ import annotations

import datetime
import json
import random
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

import m2mdb
from m2mdb.pager.errors import DataError
from m2mdb.query import jsonpath
from m2mdb.query.dates import TIME_FUNCTIONS
from m2mdb.query.plain_dates import MISSED, way_of

PATTERNS = ("%Y-%m", "%Y", "%d.%m.%Y", "%H:%M", "%F %T", "%Y%m%d", "", "%%%Y?%m? %H", "%Y-%m-",
            "%Sx%Y", "%H%M%S", "at %R", "%Y %m", "%d %H", "%dT%H")  # fmt: skip

NEWER = ("%F %T", "at %R")  # codes that SQLite 3.40 does not know


def _texts(choose: random.Random) -> str:
    year, month, day = choose.choice((0, 4, 100, 1582, 1900, 1969, 2000, 2023, 2024, 9999)), \
        choose.randint(0, 13), choose.choice((0, 1, 15, 28, 29, 30, 31, 32))  # fmt: skip
    text = f"{year:04d}-{month:02d}-{day:02d}"
    clock = f"{choose.randint(0, 25):02d}:{choose.choice((0, 9, 59, 60)):02d}"
    kind = choose.randrange(9)
    if kind > 1:
        text += choose.choice((" ", " ", "T", "  ", "_")) + clock
    if kind > 2:
        text += f":{choose.choice((0, 5, 59, 60)):02d}"
    if kind == 7:
        text += choose.choice((".5", "Z", "+01:30", " ", "\n"))
    return "-" + text if kind == 8 and choose.random() < 0.2 else text


def _moved(choose: random.Random) -> str:
    return choose.choice((
        f"{choose.choice(('+', '-', ''))}{choose.choice((0, 1, 11, 31, 400, 9999))} "
        f"{choose.choice(('day', 'days', 'month', 'years'))}",
        f"start of {choose.choice(('day', 'month', 'year'))}", f"weekday {choose.randrange(7)}",
    ))  # fmt: skip


def _now() -> datetime.datetime:
    return datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)


def _values(choose: random.Random) -> Any:
    kind = choose.randrange(10)
    if kind == 0:
        return choose.choice((None, "now", 1.5, True, b"2024-01-01", "٢٠٢٤-01-01", "2024-1-1"))
    if kind == 1:
        moment = datetime.datetime(choose.randint(1, 9999), 2, 28, 23, 59, 59, 999_999)
        zone = choose.choice((datetime.UTC, datetime.timezone(datetime.timedelta(hours=2)), None))
        return moment.replace(tzinfo=zone)
    if kind == 2:
        return choose.choice((0, -1, -62_167_219_200, -62_167_219_201, 253_402_300_799,
                              253_402_300_800, choose.randrange(-(10**11), 10**11)))  # fmt: skip
    return _texts(choose)


@pytest.mark.parametrize("name", ["date", "time", "datetime", "julianday", "unixepoch", "strftime"])
def test_plain_dates_are_those_of_the_thorough_way(name: str) -> None:
    choose = random.Random(name)
    function = TIME_FUNCTIONS[name][0]
    plain = 0
    for _ in range(4000):
        pattern = choose.choice(PATTERNS)
        modifiers = choose.choice(([], [], ["unixepoch"], [_moved(choose), _moved(choose)]))
        value = _values(choose)
        way = way_of(name, pattern, list(modifiers))
        assert way is not None
        found = way(value)
        if found is MISSED:
            continue
        plain += 1
        first = (pattern,) if name == "strftime" else ()
        wanted = function(_now, *first, value, *modifiers)
        assert (found, type(found)) == (wanted, type(wanted)), (name, pattern, value, modifiers)
    assert plain > 300


def test_what_is_not_plain_has_no_quick_way() -> None:
    assert way_of("strftime", "%j", []) is None and way_of("strftime", None, []) is None
    assert way_of("date", None, ["+1.5 days"]) is None
    assert way_of("date", None, ["+1 day", "+1 hour"]) is None
    assert way_of("date", None, ["unixepoch", "utc"]) is None


@pytest.mark.parametrize(
    "call",
    [
        "date(s)", "time(s)", "datetime(s)", "julianday(s)", "unixepoch(s)",
        *[f"strftime('{each}', s)" for each in PATTERNS if each not in NEWER],
        "strftime('%j %w', s)",
        "date(s, '+1 month')", "datetime(s, 'start of month', '-1 day')", "date(s, 'weekday 1')",
        "datetime(n, 'unixepoch')", "date(n, 'unixepoch')", "strftime('%s', s)", "date(s, :shift)",
    ],
)  # fmt: skip
def test_rows_get_what_sqlite3_gives(call: str) -> None:
    choose = random.Random(2)
    texts = [text for text in (_texts(choose) for _ in range(600)) if _is_there(text)]
    rows = [(text, choose.randrange(-(10**9), 10**10)) for text in texts + texts[:200]]
    found = []
    connections: tuple[Any, Any] = (m2mdb.connect(":memory:"), sqlite3.connect(":memory:"))
    for con in connections:
        con.execute("CREATE TABLE t (s TEXT, n INTEGER)")
        con.executemany("INSERT INTO t VALUES (?, ?)", rows)
        given = {"shift": "+2 days"} if ":shift" in call else {}
        cursor = con.execute(f"SELECT {call} FROM t", given)
        found.append(cursor.fetchall())
        con.close()

    assert found[0] == found[1]


def _is_there(text: str) -> bool:
    """Whether a date is one of the calendar: others differ from SQLite 3.40."""
    try:
        datetime.date.fromisoformat(text[:10])
    except ValueError:
        return False
    return text[11:13] < "24"


DOCUMENTS = (
    '{"a": 5, "b": "x", "c": [1, {"a": 2}], "d": 1.50}', '{"a": 1, "a": 2}', '{"b": {"a": 1}}',
    '{"a": {"b": 1.10}, "b": 2}', '{"\\u0061": 1, "a": 2}', '{"a": "a"}', '{"a": -0, "b": -0.0}',
    '{"a": 1e999}', '{"a": NaN}', '{"a": 12345678901234567890}', ' {"a": 1}', '{"a": 1} ',
    '{"a": 1', "", "[1, 2.50, [3]]", "5", '"a"', "null", '{"a": null, "b": true, "c": false}',
    '{"é": "ü", "a b": 1, "a.b": 2}', '{"a": "x\\ny"}', "[]", '{"a": [1.0]}', "[{}, {}]", "{a: 1}",
)  # fmt: skip
PATHS = ("$.a", "$.b", "$.a.b", "$.c[1].a", "$[0]", "$[1]", "$[#-1]", "$", '$."a b"', "$.é", "$.d",
         '$."a.b"', "$.c", "$.nothing")  # fmt: skip
LABELS = ("a", "b", "c", "d", "é", "a b", "nothing", "")


def _outcome(function: Callable[..., Any], *values: Any) -> Any:
    try:
        found = function(*values)
    except DataError as error:
        return str(error)
    return repr(found)


@pytest.mark.parametrize("document", [*DOCUMENTS, None, 5, 1.5, b"{}"])
def test_parts_of_documents_are_those_of_the_thorough_way(document: Any) -> None:
    for again in range(2):
        for path in PATHS:
            quick = jsonpath.extractor(path)
            assert quick is not None
            wanted = _outcome(jsonpath.json_extract, document, path)
            assert _outcome(quick, document) == wanted, (path, again)
        for label in LABELS:
            arrow = jsonpath.double_arrow_at(label)
            assert arrow is not None
            assert _outcome(arrow, document) == _outcome(jsonpath.double_arrow, document, label)
    assert jsonpath.extractor("a") is None and jsonpath.extractor(None) is None
    assert jsonpath.double_arrow_at("a.b") is None and jsonpath.double_arrow_at(3) is None


def test_a_document_that_was_read_is_not_changed_by_what_writes() -> None:
    """Several parts of one text are read of one document; json_set makes one of its own."""
    con = m2mdb.connect(":memory:")
    con.execute("CREATE TABLE t (j TEXT)")
    con.execute("INSERT INTO t VALUES (?)", (json.dumps({"a": {"b": 1}, "c": [1]}),))

    found = con.execute(
        "SELECT j -> '$.a', json_set(j, '$.a.b', 2), json_extract(j, '$.a'), j ->> 'c', "
        "json_remove(j, '$.c[0]'), json_extract(j, '$.c[0]'), json_patch(j, '{\"a\":null}'), "
        "json_extract(j, '$.a.b'), json_type(j, '$.a'), json_array_length(j, '$.c') FROM t"
    ).fetchone()

    assert found == (
        '{"b":1}', '{"a":{"b":2},"c":[1]}', '{"b":1}', "[1]", '{"a":{"b":1},"c":[]}', 1,
        '{"c":[1]}', 1, "object", 1,
    )  # fmt: skip


COLUMN_CALLS = (
    *[f"{name}(s)" for name in ("date", "time", "datetime", "julianday", "unixepoch")],
    *[f"strftime('{each}', s)" for each in PATTERNS], "strftime('%j', s)", "date(s, '+1 month')",
    "datetime(s, 'start of month')", "datetime(n, 'unixepoch')", "date(s, 'localtime')",
    *[f"json_extract(j, '{path}')" for path in PATHS], *[f"j ->> '{each}'" for each in LABELS],
    "json_extract(j, '$.a')", "j -> 'a'", "j ->> 0",
)  # fmt: skip


def _rows(choose: random.Random, size: int, kind: str) -> list[tuple[Any, ...]]:
    """Rows that are plain, nearly plain, or of anything."""
    rows = []
    for _ in range(size):
        text: str | None = f"2024-{choose.randint(1, 12):02d}-{choose.randint(1, 28):02d}"
        document: str | None = json.dumps({"a": choose.randrange(99), "b": "x", "d": 1.5})
        if kind != "days" and choose.random() < 0.9:
            clock = f"{choose.randrange(24):02d}:05:{choose.randrange(60):02d}"
            text = f"{text}{choose.choice(' T')}{clock}"
        if kind == "any" and choose.random() < 0.1:
            text, document = _texts(choose), choose.choice(VALID)
        if kind == "nulls" and choose.random() < 0.1:
            text = document = None
        rows.append((text, choose.randrange(-(10**9), 10**10), document))
    return rows


VALID = [each for each in DOCUMENTS if jsonpath.json_valid(each)]


@pytest.mark.parametrize("kind", ["days", "moments", "nulls", "any"])
def test_columns_get_what_each_row_gets(kind: str) -> None:
    """Row by row and by columns: in results, groups, aggregates and conditions."""
    choose = random.Random(kind)
    con = m2mdb.connect(":memory:", autocommit=True)
    con.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, s TEXT, n INTEGER, j TEXT)")
    rows = _rows(choose, 3000, kind)
    con.executemany("INSERT INTO t (s, n, j) VALUES (?, ?, ?)", rows)

    for call in choose.sample(COLUMN_CALLS, 6):
        alone = [con.execute(f"SELECT {call} FROM t WHERE id = {at}").fetchone()[0]
                 for at in range(1, 3001, 37)]  # fmt: skip
        together = [row[0] for row in con.execute(f"SELECT {call} FROM t").fetchall()]
        assert [repr(each) for each in together[::37]] == [repr(each) for each in alone], call
        for operator in ("<", "!="):
            for constant in ("2024-06", 20, 1_710_000_000.5, None):
                told = con.execute(f"SELECT id FROM t WHERE {call} {operator} ?", (constant,))
                where = f"iif(1, {call}, 0) {operator} ?"
                slow = con.execute(f"SELECT id FROM t WHERE {where}", (constant,))
                assert told.fetchall() == slow.fetchall(), (call, operator, constant)
        groups = con.execute(f"SELECT {call}, count(*) FROM t GROUP BY 1").fetchall()
        assert sum(row[1] for row in groups) == 3000
        assert {repr(row[0]) for row in groups} == {repr(each) for each in together}


@pytest.mark.parametrize("label", ['a"b', "c\\d", "e\nf"])
def test_labels_that_documents_escape_are_read_row_by_row(label: str) -> None:
    """It was TypeError: 'NoneType' object is not callable."""
    con = m2mdb.connect(":memory:", autocommit=True)
    con.execute("CREATE TABLE t (j TEXT)")
    con.executemany("INSERT INTO t VALUES (?)", [(json.dumps({label: n % 3}),) for n in range(90)])
    calls = [f"j ->> '{label}'"]
    if label.isprintable():
        calls.append(f"json_extract(j, '$.{label}')")

    for call in calls:
        found = con.execute(f"SELECT {call} FROM t").fetchall()
        assert found == [(n % 3,) for n in range(90)]
        assert con.execute(f"SELECT count(*) FROM t WHERE {call} > 0").fetchone() == (60,)
        groups = con.execute(f"SELECT {call}, count(*) FROM t GROUP BY 1").fetchall()
        assert sorted(groups) == [(0, 30), (1, 30), (2, 30)]


@pytest.mark.parametrize(
    "odd",
    [
        ("[1", "2]"), ('{"a": 1},{"a": 2}',), ('{"a": 1', '"b": 2}'), ("",), ("1,", "2"),
        ('{"a": NaN}',), ('{"a": 1} 5',), ("],[",),
    ],
)  # fmt: skip
def test_documents_that_are_none_are_told_among_many(odd: tuple[str, ...]) -> None:
    """CW2: texts that together would be JSON, as an array of them, are none each."""
    con = m2mdb.connect(":memory:", autocommit=True)
    con.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, j TEXT)")
    rows = [('{"a": 1}',)] * 20 + [(each,) for each in odd] + [('{"a": 1}',)] * 20
    con.executemany("INSERT INTO t (j) VALUES (?)", rows)

    for sql in ("SELECT json_extract(j, '$.a') FROM t", "SELECT id FROM t WHERE j ->> 'a' = 1",
                "SELECT sum(j ->> 'a') FROM t"):  # fmt: skip
        with pytest.raises(m2mdb.DataError, match="malformed JSON"):
            con.execute(sql).fetchall()
    con.execute(f"DELETE FROM t WHERE id > 20 AND id <= {20 + len(odd)}")
    assert con.execute("SELECT sum(j ->> 'a'), count(*) FROM t").fetchone() == (40, 40)
