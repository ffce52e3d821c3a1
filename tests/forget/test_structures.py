"""Each structure that is registered to forget has a byte-search test of its name (S26)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import m2mdb
from m2mdb.index import forgetting
from tests.forget.rows import Row, delete, forget, insert, insert_in_bulk, update
from tests.forget.traces import assert_gone, files_at, text_needles, traces

Fill = Callable[[m2mdb.Connection], tuple[list[Row], dict[str, bytes]]]


def fill_delta(con: m2mdb.Connection) -> tuple[list[Row], dict[str, bytes]]:
    row = Row(1)
    insert(con, row, Row(2))
    return [row], row.needles()


def fill_segments(con: m2mdb.Connection) -> tuple[list[Row], dict[str, bytes]]:
    rows = [Row(number) for number in range(600)]
    insert_in_bulk(con, rows)
    return rows[5:7], rows[5].needles() | rows[6].needles()


def fill_kept_versions(con: m2mdb.Connection) -> tuple[list[Row], dict[str, bytes]]:
    con.execute("PRAGMA keep_commits = 1000")
    row, deleted = Row(1), Row(2)
    insert(con, row, deleted, Row(3))
    con.execute("OPTIMIZE")
    update(con, row.updated(1))
    delete(con, deleted)
    con.execute("OPTIMIZE")
    return [row, deleted], row.needles() | row.updated(1).needles() | deleted.needles()


def fill_separators(con: m2mdb.Connection) -> tuple[list[Row], dict[str, bytes]]:
    """Leaves end in the middle of runs of keys that are to be forgotten."""
    gone: list[Row] = []
    for number in range(320):
        row, (group, place) = Row(number), divmod(number, 32)
        row.values["topic"] = f"k{group:02}{'zqwkvj' if place > 20 else 'a'}{place:03}" + "x" * 60
        insert(con, row)
        gone += [row] * (place > 20)
    return gone, text_needles("zqwkvj")


def fill_statistics(con: m2mdb.Connection) -> tuple[list[Row], dict[str, bytes]]:
    """The least and the most frequent text of a column is that of the rows to be forgotten."""
    rows = [Row(number) for number in range(4)]
    for row in rows[:3]:
        row.values["topic"] = "aaa zqwkvj"
    insert(con, *rows)
    con.execute("ANALYZE")
    return rows[:3], text_needles("zqwkvj")


FILLED: dict[str, Fill] = {
    "delta": fill_delta,
    "kept versions": fill_kept_versions,
    "segments": fill_segments,
    "separators": fill_separators,
    "statistics": fill_statistics,
}


def test_s26_every_structure_has_its_test() -> None:
    assert sorted(FILLED) == sorted(each.name for each in forgetting.STRUCTURES)


@pytest.mark.parametrize("name", sorted(FILLED))
def test_s26_a_structure_forgets(con: m2mdb.Connection, path: str, name: str) -> None:
    rows, needles = FILLED[name](con)
    con.execute("CHECKPOINT truncate")
    assert traces(files_at(path), needles), "the search bites"

    assert forget(con, *rows)["status"] == "done"

    assert_gone(files_at(path), needles)
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.parametrize("name", sorted(FILLED))
def test_s26_without_its_part_the_bytes_stay(
    con: m2mdb.Connection, path: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above would fail if the structure did nothing."""
    rows, needles = FILLED[name](con)
    con.execute("CHECKPOINT truncate")
    parts = tuple(each for each in forgetting.STRUCTURES if each.name != name)
    monkeypatch.setattr(forgetting, "STRUCTURES", parts)

    forget(con, *rows)

    con.execute("CHECKPOINT truncate")
    assert traces(files_at(path), needles)
