"""Aggregates over VECTOR columns: counted as any value, refused where values must be compared."""

from __future__ import annotations

import pytest

import m2mdb


@pytest.fixture
def con() -> m2mdb.Connection:
    found = m2mdb.connect(":memory:", autocommit=True)
    found.execute("CREATE COLLECTION notes (tag INTEGER, e VECTOR(4))")
    rows = [(at % 3, [1.0, 2.0, 3.0, at] if at % 5 else None) for at in range(600)]
    found.executemany("INSERT INTO notes VALUES (?, ?)", [*rows, (7, [1.0, 2.0, 3.0, 4.0])])
    return found


def test_count_passes_over_null_alone(con: m2mdb.Connection) -> None:
    assert con.execute("SELECT count(e) FROM notes").fetchall() == [(481,)]
    grouped = con.execute("SELECT tag, count(e) FROM notes GROUP BY tag ORDER BY tag")
    assert grouped.fetchall() == [(0, 160), (1, 160), (2, 160), (7, 1)]
    assert con.execute("SELECT count(e) FROM notes WHERE tag = 9").fetchall() == [(0,)]


@pytest.mark.parametrize("group", ["", " GROUP BY tag"])
@pytest.mark.parametrize(
    "call", ["count(DISTINCT e)", "min(e)", "max(e)", "sum(e)", "avg(e)", "group_concat(e)"]
)
def test_what_needs_an_order_or_a_number_is_a_data_error(
    con: m2mdb.Connection, call: str, group: str
) -> None:
    with pytest.raises(m2mdb.DataError, match=r"vector .* (cannot be compared|is not a)"):
        con.execute(f"SELECT {call} FROM notes{group}").fetchall()
    assert con.execute("SELECT count(*) FROM notes").fetchall() == [(601,)]
