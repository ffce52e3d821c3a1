"""An interrupt ends sorts, joins, groupings and sets at once; the connection is as it was."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import m2mdb
from tests.looks import at_each_look

ROWS = 40_000
MOST_SECONDS = 1.0  # generous: the machines of tests are shared; benchmarks/interrupts.py measures
STATEMENTS = [
    "SELECT id FROM t ORDER BY n LIMIT 5",
    "SELECT id FROM t ORDER BY word DESC, n LIMIT 5",
    "SELECT id FROM t ORDER BY n * x LIMIT 5",
    "SELECT DISTINCT word FROM t",
    "SELECT n, count(*), sum(x) FROM t GROUP BY n",
    "SELECT word, count(*), max(n) FROM t GROUP BY word HAVING max(n) > 3 ORDER BY 2",
    "SELECT count(DISTINCT word), length(group_concat(word)) FROM t",
    "SELECT count(*) FROM t JOIN u ON u.n = t.n",
    "SELECT count(*) FROM t JOIN u ON u.word = t.word",
    "SELECT count(*) FROM t LEFT JOIN u ON u.n = t.n AND u.x = t.x",
    "SELECT count(*) FROM t JOIN s ON t.x > s.x AND t.n <> s.n AND s.n < 3",
    "SELECT count(*) FROM t, s WHERE s.n < 2 AND t.word || s.n = 'nothing'",
    "SELECT count(*) FROM t WHERE n IN (SELECT n FROM u)",
    "SELECT count(*) FROM t WHERE word LIKE '%77%'",
    "SELECT word, n FROM t UNION SELECT word, n FROM u",
    "SELECT n FROM t EXCEPT SELECT n FROM u",
    "UPDATE t SET n = n + 1",
    "DELETE FROM t WHERE n >= 0",
    "INSERT INTO t (word, n) SELECT word, n FROM t",
    "CREATE INDEX t_n ON t (n)",
    "CREATE INDEX t_word ON t USING bm25 (word)",
]


@pytest.fixture(scope="module")
def con(tmp_path_factory: pytest.TempPathFactory) -> Iterator[m2mdb.Connection]:
    path: Path = tmp_path_factory.mktemp("interrupts") / "x.m2m"
    random = np.random.default_rng(1)
    with m2mdb.connect(path) as con:
        con.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, word TEXT, n INTEGER, x REAL)")
        con.execute("CREATE TABLE u (word TEXT, n INTEGER, x REAL)")
        con.execute("CREATE TABLE s (n INTEGER, x REAL)")
        columns: dict[str, Any] = {
            "word": [f"word {number}" for number in random.integers(0, ROWS, ROWS)],
            "n": random.integers(0, ROWS, ROWS),
            "x": random.standard_normal(ROWS),
        }
        con.collection("t").add(columns)
        con.collection("u").add({name: values[: ROWS // 2] for name, values in columns.items()})
        con.executemany("INSERT INTO s VALUES (?, ?)", [(n, n / 40 - 1) for n in range(80)])
        con.commit()
        yield con
    con.close()


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_statement_looks_for_an_interrupt_all_along(
    con: m2mdb.Connection, statement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = con.execute("SELECT count(*), sum(n) FROM t").fetchall()
    con.rollback()
    database, looks = con.database, [time.perf_counter()]
    assert database is not None
    at_each_look(database, monkeypatch, lambda: looks.append(time.perf_counter()))
    con.execute(statement)
    looks.append(time.perf_counter())
    con.rollback()
    monkeypatch.undo()

    assert max(np.diff(looks)) < MOST_SECONDS
    assert len(looks) > 8

    wanted = [4]  # of a run for which nothing is kept any more but what the first one kept

    def stop() -> None:
        wanted[0] -= 1
        if not wanted[0]:
            con.interrupt()  # as from another thread

    at_each_look(database, monkeypatch, stop)
    with pytest.raises(m2mdb.StatementInterruptedError):
        con.execute(statement)
    monkeypatch.undo()
    assert con.execute("SELECT count(*), sum(n) FROM t").fetchall() == before
    con.rollback()
    assert con.execute("SELECT count(*), sum(n) FROM t").fetchall() == before
