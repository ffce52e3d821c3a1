"""What is freed between two looks for an interrupt is a piece of what a statement made.

To free the rows of a million groups, or the lists of a table function, takes as long as many other
steps: so it is done in pieces as well. Objects are counted, not time.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import m2mdb
from m2mdb import arrow
from m2mdb.index import slices
from tests.looks import Counted, at_each_look

ROWS = 30_000
PIECE = 1000  # rows that are freed between two looks, instead of many more
SETS = {
    "GROUP BY": "SELECT word, count(*), max(n) FROM t GROUP BY word",
    "GROUP BY, computed": "SELECT word, count(*) + 1, max(n) FROM t GROUP BY word",
    "EXCEPT": "SELECT word, n FROM t EXCEPT SELECT word, n + 1 FROM t",
    "INTERSECT": "SELECT word, n FROM t INTERSECT SELECT word, n + 1 FROM t",
    "UNION": "SELECT word, n FROM t UNION SELECT word, n FROM t",
}
FUNCTIONS = {
    "generate_series": f"SELECT count(*), max(value) FROM generate_series(1, {ROWS})",
    "json_each": "SELECT count(*), max(e.value) FROM j, json_each(j.body) AS e",
    "json_tree": "SELECT count(*), max(e.atom) FROM j, json_tree(j.body) AS e",
}


@pytest.fixture(scope="module")
def con(tmp_path_factory: pytest.TempPathFactory) -> Iterator[m2mdb.Connection]:
    path: Path = tmp_path_factory.mktemp("freed") / "x.m2m"
    with m2mdb.connect(path, compute="numpy") as con:
        con.execute("CREATE TABLE t (word TEXT, n INTEGER)")
        con.execute("CREATE TABLE j (body JSON)")
        words: list[str | None] = [f"word {number}" for number in range(ROWS)]
        words[7] = None
        con.collection("t").add({"word": words, "n": np.arange(1000, 1000 + ROWS)})
        con.collection("j").add({"body": np.arange(ROWS).reshape(-1, 10).tolist()})
        con.commit()
        yield con
    con.close()


def freed(con: m2mdb.Connection, statement: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many memory blocks are given back from the first look to the next one, …, to the end."""
    cursor = con.cursor()
    wanted = con.execute(statement).fetchall()
    blocks: list[int] = []
    monkeypatch.setattr(slices, "SLICE_VALUES", PIECE)
    at_each_look(con.database, monkeypatch, lambda: blocks.append(sys.getallocatedblocks()))
    gc.collect()
    gc.disable()
    try:
        cursor.execute(statement)
        blocks.append(sys.getallocatedblocks())
    finally:
        gc.enable()
        monkeypatch.undo()
    assert cursor.fetchall() == wanted
    return [-int(change) for change in np.diff(blocks)]


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_freed_in_pieces_and_little_of_it_behind_the_last_look(
    con: m2mdb.Connection, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = freed(con, SETS[name], monkeypatch)
    assert max(counts) < 3 * ROWS // 2
    assert counts[-1] < ROWS // 3


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_table_function_makes_no_list_of_rows_to_be_freed_at_once(
    con: m2mdb.Connection, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert max(freed(con, FUNCTIONS[name], monkeypatch)[:-1]) < ROWS // 3


def test_a_selection_of_many_rows_looks_between_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    from m2mdb.query.access import everything
    from m2mdb.query.lists import ListSchema, ListView

    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1

    monkeypatch.setattr(slices, "SLICE_NUMBERS", 100)
    view: Any = ListView(ListSchema("", [("n", "INTEGER")]), (), look, [list(range(10_000))])
    assert looks >= 100  # numbers of rows

    looks = 0
    chosen = everything(view, look)

    assert looks >= 300  # ordinals, rowids, whether these rise
    assert chosen.rowids.tolist() == list(range(1, 10_001))
    chosen.rowids[0] = 9  # they are its own
    assert view.parts()[0].rowids[0] == 1


def test_a_data_frame_is_made_in_pieces(
    con: m2mdb.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = "SELECT word, n, n * 0.5, n % 2 = 1, nullif(word, 'word 3') AS other FROM t"
    whole = con.execute(query).df()
    rows = con.execute(query).fetchall()
    whole_looks, looks = Counted(), Counted()
    with monkeypatch.context() as patched:
        at_each_look(con.database, patched, whole_looks)
        con.execute(query).df()
    at_each_look(con.database, monkeypatch, looks)
    monkeypatch.setattr(arrow, "SERIES_VALUES", PIECE)
    cut = con.execute(query).df()

    assert looks.count - whole_looks.count >= 2 * (ROWS // PIECE)
    pd.testing.assert_frame_equal(cut, whole)
    plain = pd.DataFrame(rows, columns=cut.columns)
    assert [str(dtype) for dtype in cut.dtypes] == [str(dtype) for dtype in plain.dtypes]
    pd.testing.assert_frame_equal(cut, plain)
    cut.iloc[0, 1] = -1
    assert con.execute(query).fetchone() == rows[0]
