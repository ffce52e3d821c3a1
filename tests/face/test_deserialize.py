"""`deserialize` changes the database and leaves the connection as it is, as sqlite3's does."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import m2mdb
from m2mdb.backup import OF_THE_PROGRAM
from m2mdb.index.database import Database

NOT_OF_THE_PROGRAM = {
    "store", "autocommit", "_compute", "kernels", "noting", "ahead", "give_generated", "scrubs",
    "audit", "budget", "plans",
}  # fmt: skip
TEXTS = [("alpha",), ("Beta",), ("gamma",)]


class Lengths:
    """An encoder: a text's length and its first letter."""

    dimensions = 2
    model_id = "lengths"
    fingerprint = "1"

    def encode(self, texts: Any) -> np.ndarray:
        return np.array([[len(text), ord(text[0])] for text in texts], np.float32)


@pytest.fixture
def con() -> Iterator[m2mdb.Connection]:
    con = m2mdb.connect(
        ":memory:",
        autocommit=True,
        encoders={"lengths": Lengths()},
        tokenizers={"letters": list},
        clock=lambda: 86400.0,
    )
    con.execute("CREATE TABLE old (x INTEGER)")
    yield con
    con.close()


def other() -> bytes:
    with m2mdb.connect(":memory:", autocommit=True) as con:
        con.execute("CREATE TABLE t (x TEXT)")
        con.executemany("INSERT INTO t VALUES (?)", TEXTS)
        raw = con.serialize()
    con.close()
    return raw


def test_every_attribute_of_a_database_is_carried_over_or_its_own(con: m2mdb.Connection) -> None:
    database = con.database
    assert isinstance(database, Database)
    public = {name for name in vars(database) if not name.startswith("_")}
    assert public == set(OF_THE_PROGRAM) | (NOT_OF_THE_PROGRAM - {"_compute"})


def hooked(module: Any, con: Any) -> list[Any]:
    """The same for both libraries: what hooks say after `deserialize`."""
    said: list[str] = []
    con.create_function("twice", 1, lambda text: text * 2)
    con.create_collation("backwards", lambda a, b: (a < b) - (a > b))
    con.set_trace_callback(said.append)
    denied: set[str] = set()
    con.set_authorizer(
        lambda action, one, *_: (
            module.SQLITE_DENY
            if action == module.SQLITE_READ and one in denied
            else module.SQLITE_OK
        )
    )
    con.row_factory = lambda cursor, row: list(row)
    con.text_factory = bytes
    if module is sqlite3:
        with sqlite3.connect(":memory:") as twin:
            twin.execute("CREATE TABLE t (x TEXT)")
            twin.executemany("INSERT INTO t VALUES (?)", TEXTS)
        con.deserialize(twin.serialize())
    else:
        con.deserialize(other())
    said.clear()
    rows = con.execute("SELECT twice(x) FROM t ORDER BY x COLLATE backwards").fetchall()
    denied.add("t")
    with pytest.raises(module.DatabaseError, match=r"prohibited|not authorized"):
        con.execute("SELECT x FROM t")
    return [rows, said[0], con.isolation_level is None]


def test_hooks_stay_as_with_sqlite3(con: m2mdb.Connection) -> None:
    twin = sqlite3.connect(":memory:", isolation_level=None)
    assert hooked(m2mdb, con) == hooked(sqlite3, twin)
    twin.close()


def test_encoders_tokenizers_clock_and_author_stay(con: m2mdb.Connection) -> None:
    con.execute("PRAGMA author = 'Ada'")
    con.execute("PRAGMA secure_delete = on")
    con.deserialize(other())
    con.execute(
        "CREATE TABLE n (body TEXT FULLTEXT (tokenizer = 'letters'), "
        "e VECTOR(2) METRIC l2 FROM body ENCODER 'lengths')"
    )
    con.execute("INSERT INTO n (body) VALUES ('abc'), ('xyzzy')")
    assert con.execute("SELECT e FROM n WHERE body = 'abc'").fetchone()[0].tolist() == [3.0, 97.0]
    assert con.execute("SELECT date('now')").fetchall() == [("1970-01-02",)]
    assert con.execute("SELECT DISTINCT author FROM m2m_history").fetchall() == [("Ada",)]
    assert con.execute("PRAGMA secure_delete").fetchall() == [(1,)]
    assert con.encoder("lengths").model_id == "lengths"


def test_the_progress_handler_and_counters_stay(con: m2mdb.Connection) -> None:
    con.execute("INSERT INTO old VALUES (1), (2)")
    changes = con.total_changes
    stop = False
    con.set_progress_handler(lambda: stop)
    con.deserialize(other())
    assert con.total_changes == changes
    assert con.execute("SELECT total_changes()").fetchall() == [(changes,)]
    stop = True
    with pytest.raises(m2mdb.StatementInterruptedError):
        con.execute("SELECT count(*) FROM generate_series(1, 100000) WHERE value % 7 = 3")
    stop = False
    assert con.execute("SELECT count(*) FROM t").fetchall() == [(3,)]


def test_what_cannot_be_read_leaves_all_as_it_was(con: m2mdb.Connection) -> None:
    con.create_function("twice", 1, lambda number: number * 2)
    with pytest.raises(m2mdb.CorruptDatabaseError):
        con.deserialize(b"no database")
    con.execute("INSERT INTO old VALUES (4)")
    assert con.execute("SELECT twice(x) FROM old").fetchall() == [(8,)]


@pytest.mark.parametrize("level", ["", "DEFERRED", "IMMEDIATE", "EXCLUSIVE", "immediate", None])
def test_isolation_levels_are_taken_as_sqlite3_takes_them(level: str | None) -> None:
    both = m2mdb.connect(":memory:"), sqlite3.connect(":memory:")
    found: list[tuple[Any, ...]] = []
    for con in both:
        con.isolation_level = level
        con.execute("CREATE TABLE t (x INTEGER)")
        con.commit()
        con.execute("INSERT INTO t VALUES (1)")
        found.append((con.isolation_level, con.in_transaction))
        con.rollback()
        found[-1] += (con.execute("SELECT count(*) FROM t").fetchall(),)
        con.close()
    assert found[0] == found[1]
    if level is not None:
        con = m2mdb.connect(":memory:", isolation_level=level)
        assert con.isolation_level == level.upper()
        con.close()


def test_an_isolation_level_that_cannot_be_is_refused(con: m2mdb.Connection) -> None:
    wrong: tuple[Any, ...] = ("SERIALIZABLE", 5)
    for level in wrong:
        with pytest.raises(m2mdb.InterfaceError, match="isolation_level"):
            con.isolation_level = level
    assert con.isolation_level is None
