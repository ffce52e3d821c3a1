"""What fuzzing found in the language, with the inputs that showed it."""

from __future__ import annotations

import sqlite3

import numpy as np
import pytest

import m2mdb
from m2mdb.query import bound
from m2mdb.query.parser import parse


@pytest.fixture
def con() -> m2mdb.Connection:
    return m2mdb.connect(":memory:", autocommit=True)


def test_a_vector_literal_may_hold_any_blank() -> None:
    r"""`\s` matches U+001E, which float() does not take: "[1,\x1e2]" was a ValueError."""
    assert parse("SEARCH c NEAR [1,\x1e2,\x1f -3\x1c]")


@pytest.mark.parametrize("places", [30, 10**9, 2**63 - 1])
@pytest.mark.parametrize("value", [1.5, -123456.75, 4503599627370495.5, 1e-300, 0.0])
def test_round_to_more_places_than_there_are(
    con: m2mdb.Connection, value: float, places: int
) -> None:
    """round(1.5, 1000000000) was decimal.InvalidOperation."""
    assert con.execute("SELECT round(?, ?)", (value, places)).fetchone() == (
        pytest.approx(value, rel=1e-14),
    )


@pytest.mark.parametrize("sql", ["SELECT hex(?)", "SELECT CAST(? AS BLOB)"])
def test_a_text_with_surrogates_has_no_bytes(con: m2mdb.Connection, sql: str) -> None:
    r"""hex("\udcff") was UnicodeEncodeError."""
    with pytest.raises(m2mdb.DataError, match="not valid Unicode"):
        con.execute(sql, ("\udcff\ud800",))


@pytest.mark.parametrize("offset", [7, 2**62, 2**63 - 1])
def test_an_offset_behind_all_rows_gives_none(con: m2mdb.Connection, offset: int) -> None:
    """OFFSET 9223372036854775807 was ValueError: Maximum allowed size exceeded."""
    con.execute("CREATE COLLECTION c (n INTEGER)")
    con.execute("INSERT INTO c VALUES (1), (2)")

    for limit in (1, 2**63 - 1, -1):
        found = con.execute("SELECT * FROM c WHERE n > 0 LIMIT ? OFFSET ?", (limit, offset))
        assert found.fetchall() == []


@pytest.mark.parametrize("path", ["a", "", "a.b", "[0]"])
@pytest.mark.parametrize(
    "call", ["json_set(?, ?, 5)", "json_remove(?, ?)", "json_extract(?, ?)", "json_type(?, ?)"]
)
def test_a_json_path_begins_with_a_dollar(con: m2mdb.Connection, call: str, path: str) -> None:
    """json_set('{"a":1}', 'a', 5) took "a" for the whole document and gave 5."""
    with pytest.raises(m2mdb.ProgrammingError, match="malformed JSON path"):
        con.execute(f"SELECT {call}", ('{"a":1}', path))


@pytest.mark.parametrize(
    "path", [r'$."\q"', r'$."\u12"', '$."a\nb"', f"$.a[{'9' * 5000}]", f"$.a[#-{'9' * 5000}]"]
)
@pytest.mark.parametrize(
    "sql",
    [
        "SELECT json_extract(j, {}) FROM c",
        "SELECT count(*) FROM c WHERE json_extract(j, {}) > 1",
        "SELECT j ->> {} FROM c",
        "SELECT json_set(j, {}, 5) FROM c",
        "SELECT count(*) FROM c, json_each(j, {})",
    ],
)
def test_a_json_path_that_python_cannot_read_is_malformed(
    con: m2mdb.Connection, sql: str, path: str
) -> None:
    """It was a ValueError of json.loads() or int()."""
    con.execute("CREATE COLLECTION c (j JSON)")
    con.execute("""INSERT INTO c VALUES ('{"a": [1]}')""")
    for text, given in ((sql.format(f"'{path}'"), ()), (sql.format("?"), (path,))):
        with pytest.raises(m2mdb.ProgrammingError, match=r"malformed JSON path .* at character"):
            con.execute(text, given)


@pytest.mark.parametrize("kind", ["f", "e", "g"])
def test_printf_takes_a_negative_precision(con: m2mdb.Connection, kind: str) -> None:
    """printf('%.*f', -5, 1.5) was ValueError: invalid format string."""
    sql = f"SELECT printf('%.*{kind}', -5, 1.5)"

    assert con.execute(sql).fetchone() == sqlite3.connect(":memory:").execute(sql).fetchone()


def test_a_list_that_is_bound_may_hold_scalars_of_numpy(con: m2mdb.Connection) -> None:
    """IN ? over list(ids) was DataError: vector np.int64(1) cannot be compared."""
    con.execute("CREATE COLLECTION c (id INTEGER PRIMARY KEY, x REAL, s TEXT)")
    con.execute("INSERT INTO c VALUES (1, 0.5, 'a'), (2, 1.5, 'b'), (3, 2.5, 'c')")

    for sql, listed in (
        ("id IN ?", list(np.array([1, 3]))),
        ("x IN ?", [np.float64(0.5), np.float32(2.5)]),
        ("s IN ?", [np.str_("a"), "c"]),
        ("x + 0.0 IN ?", [np.float64(0.5), 2.5]),
    ):
        assert con.execute(f"SELECT id FROM c WHERE {sql}", (listed,)).fetchall() == [(1,), (3,)]
    with pytest.raises(m2mdb.InterfaceError, match="type 'object' is not supported"):
        con.execute("SELECT id FROM c WHERE id IN ?", ([object()],))


@pytest.mark.parametrize("text", ["NaN", "Infinity", "[1, NaN]", '{"a": -Infinity}'])
def test_a_json_column_holds_no_nan(con: m2mdb.Connection, text: str) -> None:
    """A JSON column took NaN, of which json_valid says 0; CAST took it too."""
    con.execute("CREATE COLLECTION c (j JSON)")

    for sql in ("INSERT INTO c VALUES (?)", "SELECT CAST(? AS JSON)"):
        with pytest.raises(m2mdb.DataError, match="is no JSON"):
            con.execute(sql, (text,))
    assert con.execute("SELECT count(*) FROM c").fetchone() == (0,)


def test_a_bound_table_where_nothing_reads_tables(
    con: m2mdb.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The language without its face raised IndexError."""
    table = {"a": [1]}
    assert con.execute("SELECT * FROM ?", (table,)).fetchall() == [(1,)]
    monkeypatch.setattr(bound, "READ", [])

    with pytest.raises(m2mdb.InterfaceError, match=r"parameter \?1: nothing here reads tables"):
        con.execute("SELECT * FROM ?", (table,))
    assert con.execute("SELECT 1").fetchone() == (1,)
