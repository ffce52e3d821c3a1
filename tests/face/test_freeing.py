"""What a long write made is freed in slices, with a look for an interrupt before each.

To free a million texts or tuples takes up to 100 milliseconds, and the end of a function frees all
lists that it holds at once. Counted are the blocks of memory that are freed between two looks.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import m2mdb
from m2mdb.index.slices import emptied
from tests.looks import at_each_look

ROWS = 100_000  # more than are stored as they are given
MOST_FREED = 40_000  # blocks between two looks: of 8,192 values, and what slices of columns hold
Work = Callable[[m2mdb.Connection], object]


def _many(con: m2mdb.Connection) -> object:
    rows: Iterator[tuple[float, str]] = ((n / 3, f"text {n}") for n in range(ROWS))
    return con.executemany("INSERT INTO u (x, word) VALUES (?, ?)", rows)


WORK: dict[str, Work] = {
    "UPDATE": lambda con: con.execute("UPDATE t SET n = n + 1"),
    "UPDATE of texts": lambda con: con.execute("UPDATE t SET word = upper(word) WHERE n > 10"),
    "UPDATE of a key": lambda con: con.execute("UPDATE t SET id = id + 1000000"),
    "DELETE": lambda con: con.execute("DELETE FROM t WHERE n >= 0"),
    "DELETE with an index": lambda con: con.execute("DELETE FROM i WHERE n >= 0"),
    "INSERT SELECT": lambda con: con.execute("INSERT INTO u SELECT x, word FROM t"),
    "INSERT of what is computed": lambda con: con.execute(
        "INSERT INTO u SELECT x * 3, upper(word) FROM t"
    ),
    "INSERT OR REPLACE": lambda con: con.execute(
        "INSERT OR REPLACE INTO t (id, word, n) SELECT id, word, n FROM t"
    ),
    "INSERT OR IGNORE": lambda con: con.execute(
        "INSERT OR IGNORE INTO t (id, word, n) SELECT id, word, n FROM t"
    ),
    "CREATE INDEX": lambda con: con.execute("CREATE INDEX t_n ON t (n)"),
    "executemany": _many,
}


@pytest.fixture(scope="module")
def con(tmp_path_factory: pytest.TempPathFactory) -> Iterator[m2mdb.Connection]:
    path: Path = tmp_path_factory.mktemp("freeing") / "x.m2m"
    with m2mdb.connect(path) as con:
        con.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, word TEXT, n INTEGER, x REAL)")
        con.execute("CREATE TABLE i (n INTEGER)")
        con.execute("CREATE INDEX i_n ON i (n)")
        con.execute("CREATE TABLE u (x REAL, word TEXT)")
        numbers = np.arange(ROWS) + 1000
        words = [f"word {number}" for number in numbers]
        con.collection("t").add({"word": words, "n": numbers, "x": numbers / 7})
        con.collection("i").add({"n": numbers[::4]})
        con.commit()
        yield con
    con.close()


@pytest.mark.parametrize("name", WORK)
def test_little_is_freed_between_two_looks(
    con: m2mdb.Connection, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks: list[int] = []

    def look() -> None:
        blocks.append(sys.getallocatedblocks())

    con.execute("BEGIN IMMEDIATE")
    gc.collect()  # of what other tests left
    gc.disable()
    with monkeypatch.context() as patched:
        at_each_look(con.database, patched, look)
        WORK[name](con)
        look()
    gc.enable()
    con.rollback()
    freed = -np.diff(blocks)
    assert freed.max() < MOST_FREED, blocks[int(np.argmax(freed)) :][:3]


def test_a_list_that_the_program_owns_is_left_as_it_is(con: m2mdb.Connection) -> None:
    words, numbers = [f"word {number}" for number in range(ROWS)], list(range(ROWS))
    rows = list(zip(numbers, words, strict=True))
    con.execute("BEGIN")
    con.collection("u").add({"x": numbers, "word": words})
    con.execute(
        "INSERT INTO u SELECT x, word FROM :given", {"given": {"x": numbers, "word": words}}
    )
    con.executemany("INSERT INTO u (x, word) VALUES (?, ?)", rows)
    assert con.execute("SELECT count(*), count(DISTINCT word) FROM u").fetchall() == [
        (3 * ROWS, ROWS)
    ]
    con.rollback()
    assert (len(words), len(numbers), len(rows)) == (ROWS, ROWS, ROWS)
    assert (words[-1], numbers[-1], rows[-1]) == (f"word {ROWS - 1}", ROWS - 1, rows[ROWS - 1])


def test_emptied_looks_before_each_slice() -> None:
    looks: list[Any] = []
    values = list(range(50_000))
    emptied(lambda: looks.append(len(values)), values, [])
    assert len(values) <= 8192
    assert looks == [50_000 - 8192 * number for number in range(len(looks))]
    assert len(looks) == 6
