"""The awaitable twin: the same calls, typed the same, and cancelled ones that leave nothing."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import m2mdb
from m2mdb import aio


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


def test_the_block_of_connect_commits_or_rolls_back_and_closes(tmp_path: Path) -> None:
    path = tmp_path / "a.m2m"

    async def main() -> None:
        async with aio.connect(path) as con:
            await con.execute("CREATE TABLE t (a INTEGER)")
            await con.execute("INSERT INTO t VALUES (1)")
        assert con.is_closed
        with pytest.raises(KeyError):
            async with aio.connect(path) as con:
                await con.execute("INSERT INTO t VALUES (2)")
                raise KeyError
        assert con.is_closed
        async with aio.connect(path) as con:  # closed within: nothing is left to do
            await con.execute("INSERT INTO t VALUES (3)")
            await con.close()

    run(main)
    with m2mdb.connect(path) as plain:
        assert plain.execute("SELECT a FROM t").fetchall() == [(1,)]
        plain.execute("INSERT INTO t VALUES (4)")
    assert plain.execute("SELECT a FROM t").fetchall() == [(1,), (4,)]
    plain.close()


def test_statements_cursors_and_transactions(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.connect(tmp_path / "a.m2m", compute="numpy") as con:
            await con.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, s TEXT)")
            async with con:
                cursor = await con.executemany(
                    "INSERT INTO t (s) VALUES (?)", [("a",), ("b",), ("c",)]
                )
                assert cursor.rowcount == 3
                assert con.in_transaction
            assert not con.in_transaction
            with pytest.raises(KeyError):
                async with con:
                    await con.execute("DELETE FROM t")
                    raise KeyError
            cursor = con.cursor()
            await cursor.execute("SELECT id, s FROM t ORDER BY id")
            assert [column[0] for column in cursor.description or ()] == ["id", "s"]
            assert await cursor.fetchone() == (1, "a")
            assert await cursor.fetchmany() == [(2, "b")]
            assert await cursor.fetchall() == [(3, "c")]
            found = [row async for row in con.execute("SELECT s FROM t WHERE id > ?", (1,))]
            assert found == [("b",), ("c",)]
            async with con.execute("SELECT :n + 1", {"n": 4}) as cursor:
                assert await cursor.fetchone() == (5,)
            assert cursor.is_closed
            con.row_factory = m2mdb.Row
            async for row in await con.execute("SELECT s FROM t WHERE id = 2"):
                assert row["s"] == "b"
            assert con.total_changes == 6  # a statement that is undone has counted, as in sqlite3
            with pytest.raises(m2mdb.ProgrammingError):
                await con.execute("SELEC 1")
        assert con.is_closed
        with pytest.raises(m2mdb.InterfaceError):
            await con.execute("SELECT 1")

    run(main)


def test_collections() -> None:
    async def main() -> None:
        async with aio.connect(":memory:", compute="numpy") as con:
            notes = await con.create_collection(
                "notes", {"id": "TEXT PRIMARY KEY", "body": "TEXT FULLTEXT", "v": "VECTOR(2)"}
            )
            ids = await notes.add({"id": ["a", "b"], "body": ["red", "blue"], "v": np.eye(2)})
            assert ids.tolist() == ["a", "b"]
            assert [each.name for each in await con.collections()] == ["notes"]
            row = await notes.get("a")
            assert row is not None
            assert row.body == "red"
            assert await notes.update("a", {"body": "green"}) == 1
            assert (await notes.search(match="green")).ids.tolist() == ["a"]
            keys, scores = await notes.search_batch(near=np.eye(2), k=1)
            assert keys.tolist() == [["a"], ["b"]]
            assert scores.shape == (2, 1)
            assert await notes.count("id > ?", ("a",)) == 1
            receipt = await notes.forget("a")
            assert await notes.has_forgotten(receipt, ["a"])
            assert await notes.delete(where="true") == 1
            assert (await (await con.collection("notes")).schema()).name == "notes"
            with pytest.raises(m2mdb.NotSupportedError):
                await notes.feedback(near=[1.0, 0.0])

    run(main)


def test_copies_and_hooks(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.connect(":memory:", compute="numpy") as con:
            await con.executescript("CREATE TABLE t (a TEXT); INSERT INTO t VALUES ('x')")
            await con.commit()
            await con.create_function("twice", 1, lambda text: text * 2)
            async with con.execute("SELECT twice(a) FROM t") as cursor:
                assert await cursor.fetchall() == [("xx",)]
            told: list[str] = []
            await con.set_trace_callback(told.append)
            await con.execute("SELECT 1")
            assert told == ["SELECT 1"]
            await con.set_trace_callback(None)
            await con.backup(tmp_path / "copy.m2m")
            lines = [line async for line in con.iterdump()]
            assert any("INSERT" in line for line in lines)
            async with aio.connect(":memory:", compute="numpy") as other:
                await other.deserialize(await con.serialize())
                table = await (await other.execute("SELECT a FROM t")).arrow()
                assert table.to_pydict() == {"a": ["x"]}
                await other.backup(con)
            await con.set_autocommit(True)
            assert con.autocommit
            assert await con.commit_number() > 0

    run(main)


def test_calls_run_in_one_thread_of_their_connection() -> None:
    async def main() -> None:
        async with aio.connect(":memory:", compute="numpy") as con:
            threads: set[int] = set()
            await con.create_function("where_am_i", 0, lambda: threads.add(threading.get_ident()))
            await asyncio.gather(*[con.execute("SELECT where_am_i()") for _ in range(20)])
            assert len(threads) == 1
            assert threads != {threading.get_ident()}

    run(main)


def test_the_loop_goes_on_while_a_statement_runs() -> None:
    async def main() -> None:
        async with aio.connect(":memory:", compute="numpy") as con:
            gate = threading.Event()
            await con.create_function("wait", 0, lambda: gate.wait(20))
            waiting = asyncio.ensure_future(con.execute("SELECT wait()"))
            ticks = 0
            while ticks < 5:
                await asyncio.sleep(0)
                ticks += 1
            assert not waiting.done()
            gate.set()
            assert await (await waiting).fetchone() == (1,)

    run(main)


async def slow_rows(con: aio.Connection, started: threading.Event) -> None:
    """A table, and a function whose call says that a statement is running."""

    def slow(value: int) -> int:
        started.set()
        time.sleep(0.0002)  # a scan of seconds, which an interrupt ends at its next slice
        return value

    await con.execute("CREATE TABLE t (a INTEGER)")
    await con.executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(40_000)])
    await con.commit()
    await con.create_function("slow", 1, slow)


def test_cancelling_interrupts_the_statement_and_keeps_the_connection() -> None:
    async def main() -> None:
        async with aio.connect(":memory:", compute="numpy") as con:
            started = threading.Event()
            await slow_rows(con, started)
            task = asyncio.ensure_future(con.execute("UPDATE t SET a = slow(a) + 1"))
            while not started.is_set():
                await asyncio.sleep(0.001)
            queued = asyncio.ensure_future(con.execute("DELETE FROM t"))
            await asyncio.sleep(0)
            begin = time.monotonic()
            queued.cancel()
            task.cancel()
            for each in (task, queued):
                with pytest.raises(asyncio.CancelledError):
                    await each
            assert time.monotonic() - begin < 4
            found = await (await con.execute("SELECT count(*), sum(a) FROM t")).fetchone()
            assert found == (40_000, sum(range(40_000)))
            assert not con.in_transaction

    run(main)


def test_a_timeout_interrupts_the_statement() -> None:
    async def main() -> None:
        async with aio.connect(":memory:", compute="numpy") as con:
            await slow_rows(con, threading.Event())
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(con.execute("SELECT max(slow(a)) FROM t"), 0.05)
            assert await (await con.execute("SELECT 1")).fetchone() == (1,)

    run(main)


def test_an_opening_that_fails_lets_its_thread_go(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(m2mdb.OperationalError):
            await aio.connect(tmp_path / "none" / "a.m2m")
        with pytest.raises(m2mdb.InterfaceError, match="no iterator"):
            async for _ in aio.connect(":memory:"):
                pass

    run(main)


TWINS = [
    (m2mdb.Connection, aio.Connection),
    (m2mdb.Cursor, aio.Cursor),
    (m2mdb.Collection, aio.Collection),
]
LEFT_OUT = {
    "Connection": {
        "encoder", "engine", "disown", "read", "reading", "write", "run", "run_whole", "run_many",
        "run_script", "tell", "warn_of_loss", "tell_of_lost_commits", "within_one",
    },
    "Cursor": {"keep"},
    "Collection": set[str](),
}  # fmt: skip


@pytest.mark.parametrize(("plain", "twin"), TWINS)
def test_signatures_are_those_of_the_plain_classes(plain: type, twin: type) -> None:
    names = {name for name, each in inspect.getmembers(plain, inspect.isfunction)}
    names = {name for name in names if not name.startswith("_")} - LEFT_OUT[plain.__name__]

    assert names - set(dir(twin)) == set()
    for name in names - {"cursor", "backup", "get"}:
        theirs = inspect.signature(getattr(twin, name))
        assert list(theirs.parameters.values()) == list(
            inspect.signature(getattr(plain, name)).parameters.values()
        ), name
    connect = inspect.signature(m2mdb.connect).parameters
    assert dict(inspect.signature(aio.connect).parameters) == {
        name: each for name, each in connect.items() if name != "check_same_thread"
    }


def test_pending_calls_are_awaitable() -> None:
    pending = aio.connect(":memory:", compute="numpy")

    assert isinstance(pending, Awaitable)

    async def main() -> None:
        con = await pending
        assert repr(con).startswith("<m2mdb.aio.Connection")
        await con.close()

    run(main)
