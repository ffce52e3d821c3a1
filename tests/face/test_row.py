"""Row: as sqlite3.Row, and with attributes."""

from __future__ import annotations

import sqlite3

import numpy as np
import pytest

from m2mdb.row import Names, Row, short


def row(**values: object) -> Row:
    return Row(Names(tuple(values)), tuple(values.values()))


def test_a_row_answers_to_positions_names_and_attributes() -> None:
    found = row(id=7, Body="text")

    assert (found[0], found[-1], found["id"], found["body"], found["BODY"]) == (
        7, "text", 7, "text", "text",
    )  # fmt: skip
    assert found.Body == found.body == "text"
    assert found[0:2] == (7, "text")
    assert list(found) == [7, "text"]
    assert found.keys() == ["id", "Body"]
    assert len(found) == 2
    assert "text" in found


def test_a_row_behaves_as_sqlite_s() -> None:
    con = sqlite3.connect(":memory:")
    con.row_factory = sqlite3.Row
    other = con.execute("SELECT 1 AS a, 2 AS B, 3 AS a").fetchone()
    mine = Row(Names(("a", "B", "a")), (1, 2, 3))

    assert mine.keys() == other.keys()
    assert (mine["a"], mine["A"], mine["b"]) == (other["a"], other["A"], other["b"])
    assert tuple(mine) == tuple(other)
    for absent in ("c", 3):
        for each in (mine, other):
            with pytest.raises(IndexError):
                each[absent]
    con.close()


def test_equality_is_of_names_and_values() -> None:
    assert row(a=1) == row(a=1)
    assert hash(row(a=1)) == hash(row(a=1))
    assert row(a=1) != row(b=1)
    assert row(a=1) != row(a=2)
    assert row(a=1) != (1,)
    assert row(v=np.ones(3)) == row(v=np.ones(3))
    assert row(v=np.ones(3)) != row(v=np.zeros(3))
    assert row(v=np.ones(3)) != row(v=None)


def test_an_unknown_name_is_told_with_the_known_ones() -> None:
    with pytest.raises(IndexError, match="no column 'title'; the columns are id, body"):
        row(id=1, body="x")["title"]
    with pytest.raises(AttributeError, match="no column 'title'"):
        _ = row(id=1, body="x").title
    assert not hasattr(row(id=1), "title")


def test_repr_is_short() -> None:
    shown = repr(row(id="a", body="x" * 1000, v=np.zeros(384, np.float32)))

    assert shown.startswith("Row(id='a', body='xxx")
    assert shown.endswith("…, v=<float32[384]>)")
    assert short(b"\0" * 1000, 10) == "b'\\x00\\x0…"
