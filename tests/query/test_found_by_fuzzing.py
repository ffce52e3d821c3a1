"""What fuzzing found in the language, with the inputs that showed it."""

from __future__ import annotations

import pytest

import m2mdb
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
