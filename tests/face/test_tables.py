"""Tables: aligned, on one line a row, and safe to print."""

from __future__ import annotations

import datetime
import json

import numpy as np
import pytest

from m2mdb.tables import Progress, as_json, cell, columns, table


def test_a_table_is_aligned() -> None:
    printed = table(
        ("id", "score", "名前"), [("a", 1.25, "東京"), ("bcd", 10, None), ("e", None, "x")]
    )

    assert printed.splitlines() == [
        "id   score  名前",
        "───  ─────  ────",
        "a     1.25  東京",
        "bcd     10  NULL",
        "e     NULL  x",
    ]


def test_a_table_without_rows_shows_its_names() -> None:
    assert table(("id", "body"), []) == "id  body\n──  ────"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "NULL"),
        (True, "true"),
        (0.1 + 0.2, "0.3"),
        (b"\x01\xff", "x'01ff'"),
        ("two\nlines\tand  more", "two lines and more"),
        ("x" * 100, "x" * 59 + "…"),
        (datetime.datetime(2024, 1, 2, 3, 4), "2024-01-02 03:04:00"),
        (np.arange(5, dtype=np.float32), "[0, 1, 2, …] float32(5)"),
        (np.arange(2, dtype=np.int8), "[0, 1]"),
    ],
)
def test_cells(value: object, shown: str) -> None:
    assert cell(value) == shown


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert "\x1b" not in table(("a\x1b[2J",), [("\x1b[31mred\x07",)])


def test_width_counts_columns() -> None:
    assert columns("e\u0301") == 1
    assert columns("東京") == 4


def test_json_takes_every_value() -> None:
    row = {
        "v": np.array([1.5, np.nan], np.float32),
        "b": b"\xff",
        "t": datetime.datetime(2024, 1, 2),
        "n": np.int64(3),
        "f": float("inf"),
        "s": "ü",
    }

    text = as_json([row])

    assert "ü" in text
    assert json.loads(text) == [
        {"v": [1.5, None], "b": "ff", "t": "2024-01-02T00:00:00", "n": 3, "f": None, "s": "ü"}
    ]


def test_progress_is_silent_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress("working:", 10)
    progress.add(10)
    progress.close()

    assert capsys.readouterr() == ("", "")
