"""What was lost, refused or misunderstood in silence: each case says what it did before."""

from __future__ import annotations

import decimal
import threading
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import m2mdb


def opened(**options: Any) -> m2mdb.Connection:
    return m2mdb.connect(":memory:", compute="numpy", autocommit=True, **options)


# Threads


def test_another_thread_interrupts_a_connection_that_checks_its_thread() -> None:
    """`interrupt` raised ProgrammingError: only the thread that was busy could call it."""
    con = opened(check_same_thread=True)
    con.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    con.collection("t").add({"id": np.arange(10_000)})
    running, stopped, raised = threading.Event(), threading.Event(), list[BaseException]()

    def waiting(value: int) -> int:
        running.set()
        stopped.wait(30)
        return value

    con.create_function("waiting", 1, waiting)

    def stop() -> None:
        running.wait(30)
        try:
            con.interrupt()
        except BaseException as error:
            raised.append(error)
        stopped.set()

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(m2mdb.StatementInterruptedError):
        con.execute("SELECT sum(waiting(id)) FROM t")
    thread.join()

    assert raised == []
    refused = list[type[BaseException]]()

    def use() -> None:
        try:
            con.execute("SELECT 1")
        except m2mdb.Error as error:
            refused.append(type(error))

    other = threading.Thread(target=use)
    other.start()
    other.join()
    assert refused == [m2mdb.ProgrammingError]
    con.close()
    with pytest.raises(m2mdb.InterfaceError, match="closed"):
        con.interrupt()


# Parameters


def test_executemany_takes_tables() -> None:
    """It said that parameter 1 stands for a table and is not bound."""
    con = opened()
    con.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT)")
    tables = [{"id": [1, 2], "a": ["x", "y"]}, {"a": ["z"], "id": [3]}]

    cursor = con.executemany("INSERT INTO t (id, a) SELECT id, a FROM ?", [(t,) for t in tables])

    assert cursor.rowcount == 3
    assert con.execute("SELECT * FROM t").fetchall() == [(1, "x"), (2, "y"), (3, "z")]
    con.executemany(
        "UPDATE t SET a = :a WHERE id IN (SELECT id FROM :ids)",
        [{"a": "p", "ids": {"id": [1]}}, {"a": "q", "ids": {"id": [2, 3]}}],
    )
    assert con.execute("SELECT a FROM t").fetchall() == [("p",), ("q",), ("q",)]
    with pytest.raises(m2mdb.IntegrityError):
        con.executemany(
            "INSERT INTO t (id, a) SELECT id, a FROM ?", [({"id": [4, 3], "a": ["no", "no"]},)]
        )
    with pytest.raises(m2mdb.IntegrityError):
        con.executemany("INSERT INTO t (id) SELECT id FROM ?", [({"id": [4]},), ({"id": [3]},)])
    assert con.execute("SELECT count(*) FROM t").fetchone() == (3,)
    con.close()


# Functions of the program

NO_VALUES: list[Any] = [
    {1}, frozenset(), (1, 2), [1.0, 2.0], {"a": 1}, object(), range(3), 1j, "\ud800", "a\udfff",
    np.array([object()]), np.array(["a"]), np.array([[1.0], [2.0]]), np.array([np.nan]),
    np.array([]),
]  # fmt: skip


@pytest.mark.parametrize("value", NO_VALUES, ids=repr)
def test_a_function_gives_values_only(value: Any) -> None:
    """Sets, lists, dicts, objects and lone surrogates were handed out."""
    con = opened()
    con.create_function("f", 0, lambda: value)

    class Agg:
        def step(self, *values: Any) -> None: ...

        def finalize(self) -> Any:
            return value

    con.create_aggregate("g", 1, Agg)

    for call in ("f()", "g(1)"):
        with pytest.raises(m2mdb.OperationalError) as caught:
            con.execute(f"SELECT {call}").fetchone()
        assert f"{call[0]}() gave {type(value).__name__}" in str(caught.value)
    assert con.execute("SELECT 1").fetchone() == (1,)
    con.close()


def test_a_function_gives_what_the_language_knows() -> None:
    own = uuid.UUID(int=5)
    con = opened()
    for value, expected in [
        (None, None), (5, 5), (0.5, 0.5), ("é", "é"), (b"\x00", b"\x00"), (True, 1),
        (float("nan"), None), (np.int32(4), 4), (own, str(own)), (decimal.Decimal("1.10"), "1.10"),
        (bytearray(b"x"), b"x"),
    ]:  # fmt: skip
        con.create_function("f", 0, lambda value=value: value)
        assert con.execute("SELECT f()").fetchone() == (expected,)
    con.create_function("f", 0, lambda: np.array([1.0, 2.0], np.float32))
    assert con.execute("SELECT f()").fetchone()[0].tolist() == [1.0, 2.0]
    con.close()


# Equal names


@pytest.mark.parametrize("method", ["fetchnumpy", "pl"])
def test_columns_of_one_name_are_told(method: str) -> None:
    """`fetchnumpy` kept the last of them, `pl` raised an error of Polars."""
    con = opened()
    cursor = con.execute("SELECT 1 AS a, 2 AS b, 3 AS a")

    with pytest.raises(m2mdb.DataError, match=rf"{method}\(\): several columns are named 'a'"):
        getattr(cursor, method)()

    assert cursor.fetchall() == [(1, 2, 3)]  # nothing was taken
    assert con.execute("SELECT 1 AS a, 2 AS A").fetchnumpy().keys() == {"a", "A"}
    con.close()


def test_a_key_that_stands_twice_in_a_line_is_told(tmp_path: Path) -> None:
    """The last value was taken; within a JSON value, where the language takes the first, too."""
    con = opened()
    con.execute("CREATE TABLE t (id INTEGER, j JSON)")
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": 1}\n{"id": 2, "j": {}, "id": 3}\n')

    with pytest.raises(m2mdb.DataError, match="line 2: the key 'id' stands twice"):
        con.execute("COPY t FROM ?", (str(path),))

    assert con.execute("SELECT count(*) FROM t").fetchone() == (0,)
    path.write_text('{"id": 1, "j": {"a": 1, "b": {"c": 5, "c": 6}, "a": 2}}\n')
    con.execute("COPY t FROM ?", (str(path),))
    found = con.execute("SELECT j ->> '$.a', j ->> '$.b.c' FROM t").fetchone()
    assert found == (1, 5)
    con.close()


def test_an_option_of_copy_that_stands_twice_is_told(tmp_path: Path) -> None:
    """The last one counted."""
    con = opened()
    con.execute("CREATE TABLE t (id INTEGER, s TEXT)")
    path = tmp_path / "a.csv"

    for options in ("delimiter = ',', delimiter = ';'", "format = csv, FORMAT = jsonl"):
        with pytest.raises(m2mdb.ProgrammingError, match=r"COPY: option \w+ is given twice"):
            con.execute(f"COPY t TO ? ({options})", (str(path),))

    assert not path.exists()
    con.close()


def test_a_condition_over_joined_rows_is_interrupted() -> None:
    """It was computed to its end, however many rows the join had."""
    con = opened()
    con.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    con.collection("t").add({"id": np.arange(100)})
    database = con.engine()
    asked: list[int] = []

    def counted() -> int:
        asked.append(1)
        if len(asked) == 10:
            database.interrupt()
        return 1

    con.create_function("counted", 0, counted)

    with pytest.raises(m2mdb.StatementInterruptedError):
        con.execute("SELECT count(*) FROM t AS a, t AS b WHERE counted() + a.id + b.id < 0")

    assert len(asked) < 5000  # of 10,000 rows
    con.close()
