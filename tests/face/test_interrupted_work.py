"""Whatever look an interrupt meets: the statement has done nothing, and the connection goes on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import m2mdb
import m2mdb.aio

ROWS = 6_000
WORDS = ["red", "green", "blue", "grey"]
Work = Callable[[m2mdb.Connection], object]


def _rows(count: int) -> Iterator[tuple[str, int]]:
    return ((f"new {number}", number) for number in range(count))


def _table() -> dict[str, Any]:
    return {"word": [f"given {n}" for n in range(ROWS)], "n": np.arange(ROWS)}


def _queries() -> np.ndarray:
    return np.random.default_rng(5).standard_normal((70, 16), np.float32)


def _batch(con: m2mdb.Connection, **clauses: Any) -> Any:
    found = con.collection("v").search_batch(near=_queries(), k=5, exact=True, **clauses)
    return found[0].tolist()


WRITES: dict[str, Work] = {
    "UPDATE": lambda con: con.execute("UPDATE t SET n = n + 1 WHERE n >= 0"),
    "UPDATE of a key": lambda con: con.execute("UPDATE t SET id = id + 100000"),
    "UPDATE OF texts": lambda con: con.execute("UPDATE t SET word = upper(word)"),
    "DELETE": lambda con: con.execute("DELETE FROM t WHERE n % 2 = 0"),
    "DELETE of all": lambda con: con.execute("DELETE FROM t"),
    "INSERT SELECT": lambda con: con.execute("INSERT INTO t (word, n) SELECT word, n FROM t"),
    "INSERT OR REPLACE": lambda con: con.execute(
        "INSERT OR REPLACE INTO t (id, word, n) SELECT id + 50, word, n FROM t"
    ),
    "INSERT OR IGNORE": lambda con: con.execute(
        "INSERT OR IGNORE INTO t (id, word, n) SELECT id + 50, word, n FROM t"
    ),
    "INSERT of a table": lambda con: con.execute(
        "INSERT INTO t (word, n) SELECT word, n FROM :given", {"given": _table()}
    ),
    "executemany": lambda con: con.executemany(
        "INSERT INTO t (word, n) VALUES (?, ?)", _rows(ROWS)
    ),
    "add": lambda con: con.collection("t").add(_table()),
    "CREATE INDEX": lambda con: con.execute("CREATE INDEX t_word ON t (word)"),
}
READS: dict[str, Work] = {
    "generate_series": lambda con: con.execute(
        "SELECT count(*), sum(value), max(value) FROM generate_series(1, 300000)"
    ).fetchall(),
    "json_each": lambda con: con.execute("SELECT count(*) FROM j, json_each(j.body)").fetchall(),
    "json_each of one value": lambda con: con.execute(
        "SELECT sum(value) FROM json_each(?)", (json.dumps(list(range(20_000))),)
    ).fetchall(),
    "IN a parameter": lambda con: con.execute(
        "SELECT count(*) FROM t WHERE n IN :many", {"many": list(range(20_000))}
    ).fetchall(),
    "UNION": lambda con: con.execute(
        "SELECT word, n FROM t UNION SELECT word, id FROM t"
    ).fetchall(),
    "fetchall": lambda con: con.execute("SELECT * FROM t").fetchall(),
    "fetchnumpy": lambda con: sorted(con.execute("SELECT word, n FROM t").fetchnumpy()),
    "MATCH": lambda con: con.execute(
        "SEARCH m MATCH 'red OR gre* OR \"green blue\" OR grey~1' K 2000 RETURNING id, body, score"
    ).fetchall(),
    "a batch": _batch,
    "a filtered batch": lambda con: _batch(con, where="id % 40 = 0"),
    "distances": lambda con: con.execute(
        "SELECT sum(embedding <=> ?) FROM v", (_queries()[0],)
    ).fetchall(),
    "iterdump": lambda con: list(con.iterdump()),
    "serialize": lambda con: len(con.serialize()),
}


@pytest.fixture
def path(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A copy of the filled file."""
    original: Path = request.getfixturevalue("original")
    path = tmp_path_factory.mktemp("copy") / "x.m2m"
    path.write_bytes(original.read_bytes())
    return path


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("original") / "x.m2m"
    random = np.random.default_rng(1)
    with m2mdb.connect(path) as con:
        con.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, word TEXT UNIQUE, n INTEGER)")
        con.execute("CREATE INDEX t_n ON t (n)")
        con.execute("DROP INDEX IF EXISTS none")
        con.execute("CREATE TABLE j (body JSON)")
        con.execute("CREATE TABLE m (id INTEGER PRIMARY KEY, body TEXT FULLTEXT)")
        con.execute("CREATE TABLE v (id INTEGER PRIMARY KEY, embedding VECTOR(16))")
        con.collection("t").add({"word": [f"w {n}" for n in range(ROWS)], "n": np.arange(ROWS)})
        con.collection("j").add({"body": random.integers(0, 9, (3000, 5)).tolist()})
        picks = random.integers(0, len(WORDS), (ROWS, 6)).tolist()
        con.collection("m").add({"body": [" ".join([WORDS[i] for i in row]) for row in picks]})
        con.collection("v").add({"embedding": random.standard_normal((ROWS, 16), np.float32)})
    con.close()
    return path


class Looks:
    """Counts the looks for an interrupt; at one of them there is one."""

    def __init__(self, con: m2mdb.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.stop = 0
        self._con = con
        database = con.database
        assert database is not None
        given = database.check_interrupted

        def look() -> None:
            self.count += 1
            if self.count == self.stop:
                database.interrupt()  # as con.interrupt() of another thread
            given()

        monkeypatch.setattr(database, "check_interrupted", look)

    def run(self, work: Work, stop: int = 0) -> Any:
        """What the work gives, interrupted at its `stop`th look."""
        self.count, self.stop = 0, stop
        return work(self._con)


def _content(con: m2mdb.Connection) -> tuple[Any, ...]:
    rows = con.execute("SELECT id, word, n FROM t ORDER BY id").fetchall()
    by_index = con.execute("SELECT count(*) FROM t WHERE n = 7").fetchall()
    return rows, by_index, con.total_changes


def _some(looks: int) -> list[int]:
    """The first look, the last one, and some between."""
    return sorted({1, 2, max(1, looks // 3), max(1, 2 * looks // 3), max(1, looks - 1), looks})


@pytest.mark.parametrize("name", WRITES)
def test_an_interrupted_write_leaves_nothing_behind(
    path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = WRITES[name]
    with m2mdb.connect(path) as con:
        if name == "INSERT SELECT":
            con.execute("CREATE TABLE u (word TEXT, n INTEGER)")
            work = _insert_into_another
        con.execute("DELETE FROM t WHERE id > 5500")
        con.commit()
        looks = Looks(con, monkeypatch)
        for _ in range(2):  # of the second one: nothing is kept any more but what the first kept
            con.execute("BEGIN")
            con.execute("INSERT INTO t (id, word, n) VALUES (-5, 'mine', 7)")
            _content(con)
            looks.run(work)
            count = looks.count
            con.rollback()
            before = _content(con)[:2]
        assert count > 4
        for stop in _some(count):
            con.execute("BEGIN")
            con.execute("INSERT INTO t (id, word, n) VALUES (-5, 'mine', 7)")
            mine = _content(con)
            with pytest.raises(m2mdb.StatementInterruptedError):
                looks.run(work, stop)
            assert con.in_transaction, "only the statement is undone"
            assert _content(con) == mine
            con.rollback()
            assert _content(con)[:2] == before
        assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        con.rollback()
    con.close()
    with m2mdb.connect(path) as con:
        assert _content(con)[:2] == before
        work(con)  # and it can be done
        con.commit()
        assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    con.close()


def _insert_into_another(con: m2mdb.Connection) -> object:
    return con.execute("INSERT INTO u SELECT word, n FROM t")


@pytest.mark.parametrize("name", READS)
def test_an_interrupted_read_can_be_asked_again(
    path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = READS[name]
    with m2mdb.connect(path, compute="numpy") as con:
        wanted = work(con)
        looks = Looks(con, monkeypatch)
        assert looks.run(work) == wanted
        count = looks.count
        assert count > 3
        for stop in _some(count):
            with pytest.raises(m2mdb.StatementInterruptedError):
                looks.run(work, stop)
            assert looks.run(work) == wanted
    con.close()


def test_a_fetch_that_was_interrupted_is_made_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with m2mdb.connect(path) as con:
        wanted = con.execute("SELECT id, word FROM t").fetchall()
        cursor = con.execute("SELECT id, word FROM t")
        looks = Looks(con, monkeypatch)
        with pytest.raises(m2mdb.StatementInterruptedError):
            looks.run(lambda _: cursor.fetchall(), 2)
        assert cursor.fetchone() == wanted[0]
        assert cursor.fetchall() == wanted[1:]
    con.close()


def test_a_fetch_beside_a_running_statement_is_not_stopped_in_its_place(path: Path) -> None:
    with m2mdb.connect(path, check_same_thread=False) as con:
        cursor = con.execute("SELECT id, word FROM t")
        fetched: list[int] = []

        def fetch() -> None:  # in another thread, in the midst
            con.interrupt()
            fetched.append(len(cursor.fetchall()))

        con.create_function("stop", 1, lambda value: _in_thread(fetch) if value == 3 else 0)
        with pytest.raises(m2mdb.StatementInterruptedError):
            con.execute("SELECT sum(stop(n)) FROM t, (SELECT 1 UNION SELECT 2) AS two").fetchall()
        assert fetched[0] == ROWS
    con.close()


def _in_thread(work: Callable[[], None]) -> int:
    import threading

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return 0


PROGRAM = """
import sys
import m2mdb
con = m2mdb.connect(sys.argv[1])
con.execute("INSERT INTO t (id, word, n) VALUES (-5, 'mine', 7)")
print("begun", flush=True)
try:
    while True:
        con.execute("UPDATE t SET n = n + 1")
except KeyboardInterrupt:
    pass
rows = con.execute("SELECT count(*), count(DISTINCT n - id) FROM t WHERE id > 0").fetchall()
con.commit()
print(rows, con.execute("PRAGMA integrity_check").fetchall(), flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="signals are sent otherwise there")
def test_a_keyboard_interrupt_undoes_the_statement_alone(path: Path) -> None:
    for delay in (0.05, 0.11, 0.23):
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(path)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=path.parent,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            time.sleep(delay)  # somewhere in a statement; any place will do
            process.send_signal(signal.SIGINT)
            told = process.stdout.read()
        assert process.returncode == 0
        assert told == f"[({ROWS}, 1)] [('ok',)]\n"
        with m2mdb.connect(path) as con:
            assert con.execute("SELECT word, id FROM t WHERE id = -5").fetchall() == [("mine", -5)]
            con.execute("DELETE FROM t WHERE id = -5")
        con.close()


def test_cancelling_stops_what_a_task_waits_for(path: Path) -> None:
    async def run() -> tuple[float, Any, Any]:
        async with m2mdb.aio.connect(path) as con:
            task = asyncio.ensure_future(
                con.execute("SELECT count(*) FROM generate_series(1, 9000000) WHERE value % 7 = 3")
            )
            await asyncio.sleep(0.05)
            start = time.perf_counter()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            waited = time.perf_counter() - start
            cursor = await con.execute("SELECT count(*) FROM t")
            return waited, await cursor.fetchall(), con.in_transaction

    waited, rows, _ = asyncio.run(run())
    assert waited < 1.0  # generous: the machines of tests are shared
    assert rows == [(ROWS,)]
