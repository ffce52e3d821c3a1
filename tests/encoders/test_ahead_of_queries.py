"""Encoding ahead of UPDATE, INSERT … SELECT and COPY: others can write meanwhile (GE5)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import m2mdb
from m2mdb.encoders import HashingEncoder
from tests.encoders.conftest import Counting
from tests.encoders.test_ahead import SCHEMA
from tests.encoders.test_generated import assert_all_are_their_texts, opened

Write = Callable[[m2mdb.Connection], object]


def by_update(con: m2mdb.Connection) -> object:
    return con.execute("UPDATE notes SET body = body || ? WHERE tag < 3", (" again",))


def by_many_updates(con: m2mdb.Connection) -> object:
    rows = [(" again", 1), (" again", 2), (" again", 70)]
    return con.executemany("UPDATE notes SET body = body || ? WHERE tag = ?", rows)


def by_subquery(con: m2mdb.Connection) -> object:
    return con.execute(
        "UPDATE notes SET body = body || (SELECT max(word) FROM words) "
        "WHERE tag IN (SELECT tag FROM words)"
    )


def by_select(con: m2mdb.Connection) -> object:
    return con.execute(
        "INSERT INTO notes (body, tag) SELECT body || :w, tag + 10 FROM notes WHERE tag < 3",
        {"w": " again"},
    )


def by_replace(con: m2mdb.Connection) -> object:
    return con.execute(
        "INSERT OR REPLACE INTO notes (body, tag) "
        "SELECT body || ' again', tag FROM notes WHERE tag < 3"
    )


def by_copy(con: m2mdb.Connection) -> object:
    place = Path(con.engine().store.path).with_name("notes.csv")
    place.write_text("body,tag\none again,11\ntwo again,12\none again,13\n")
    return con.execute("COPY notes FROM ?", (str(place),))


WAYS = [by_update, by_many_updates, by_subquery, by_select, by_replace, by_copy]


@pytest.fixture
def con(path: Path, encoder: Counting) -> m2mdb.Connection:
    found = opened(path, encoder)
    found.create_collection("notes", SCHEMA)
    found.execute("CREATE COLLECTION words (word TEXT, tag INTEGER)")
    found.execute("INSERT INTO words VALUES (' a', 1), (' again', 2)")
    found.execute("INSERT INTO notes (body, tag) VALUES ('one', 1), ('two', 2), ('three', 3)")
    encoder.batches.clear()
    return found


@pytest.mark.parametrize("write", WAYS)
def test_others_write_while_the_encoder_sleeps(
    path: Path, encoder: Counting, con: m2mdb.Connection, write: Write
) -> None:
    asleep, wake = threading.Event(), threading.Event()
    other = m2mdb.connect(path, timeout=0, autocommit=True)
    failed: list[BaseException] = []

    def slow(texts: Any) -> Any:
        asleep.set()
        assert wake.wait(20)
        return HashingEncoder(32).encode(texts)

    def work() -> None:
        try:
            write(con)
        except BaseException as error:
            failed.append(error)

    encoder.answer = slow
    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert asleep.wait(20)
        other.execute("INSERT INTO notes (tag) VALUES (99)")
    finally:
        wake.set()
        thread.join()

    assert not failed
    assert [sorted(batch) for batch in encoder.batches] == [["one again", "two again"]]
    assert_all_are_their_texts(con)
    assert con.execute("SELECT count(*) FROM notes WHERE body LIKE '% again'").fetchone()[0] >= 2
    assert con.engine().ahead == {}


def test_a_text_that_another_changes_meanwhile_is_encoded_inside(
    path: Path, encoder: Counting, con: m2mdb.Connection
) -> None:
    other = opened(path, Counting())

    def slow(texts: Any) -> Any:
        if "one again" in texts:
            other.execute("UPDATE notes SET body = 'uno' WHERE tag = 1")
        return HashingEncoder(32).encode(texts)

    encoder.answer = slow
    by_update(con)

    assert encoder.batches == [["one again", "two again"], ["uno again"]]
    assert_all_are_their_texts(con)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE notes SET body = 'none' WHERE tag = 77",
        "UPDATE notes SET tag = tag + 100",
        "INSERT INTO notes (tag) SELECT tag + 100 FROM notes",
        "INSERT INTO notes (body, tag) SELECT body, tag + 100 FROM notes WHERE tag > 70",
        "UPDATE notes SET body = NULL",
    ],
)
def test_what_makes_no_text_encodes_nothing(
    encoder: Counting, con: m2mdb.Connection, statement: str
) -> None:
    con.execute(statement)

    assert encoder.batches == []
    assert_all_are_their_texts(con)


@pytest.mark.parametrize("write", WAYS)
def test_a_failing_encoder_leaves_all_as_it_was(
    encoder: Counting, con: m2mdb.Connection, write: Write
) -> None:
    before = con.execute("SELECT body, tag FROM notes ORDER BY tag").fetchall()

    def broken(texts: Any) -> Any:
        raise ValueError("no answer")

    encoder.answer = broken
    with pytest.raises(m2mdb.Error, match="no answer"):
        write(con)

    assert con.execute("SELECT body, tag FROM notes ORDER BY tag").fetchall() == before
    assert con.engine().ahead == {}
    encoder.answer = None
    write(con)
    assert_all_are_their_texts(con)


def test_an_interrupt_is_seen_between_calls_as_long_as_the_encoder_wants_them() -> None:
    """Eight thousand texts at once kept `interrupt()` waiting for most of a second."""
    calls: list[int] = []
    connections: list[m2mdb.Connection] = []

    class Eager(m2mdb.HashingEncoder):
        texts_a_call = 10

        def encode(self, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
            calls.append(len(texts))
            if len(texts) == 10:
                connections[0].interrupt()
            return super().encode(texts)

    con = m2mdb.connect(":memory:", autocommit=True, encoders={"e": Eager(8)})
    connections.append(con)
    con.execute("CREATE COLLECTION t (body TEXT, e VECTOR(8) FROM body ENCODER 'e')")
    calls.clear()
    for count in (95, 25):
        with pytest.raises(m2mdb.StatementInterruptedError):
            con.collection("t").add({"body": [f"text {count} {n}" for n in range(count)]})
    assert calls == [10, 10]
    assert con.execute("SELECT count(*) FROM t").fetchall() == [(0,)]
    assert m2mdb.HashingEncoder(8).texts_a_call == 256
    con.close()


class Interrupted:
    """An encoder during whose second call an interrupt comes."""

    dimensions, model_id, fingerprint, texts_a_call = 2, "m", "f", 2

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.kept: dict[str, np.ndarray] = {}
        self.con: m2mdb.Connection | None = None

    def encode(self, texts: list[str]) -> np.ndarray:
        self.calls.append(texts)
        if len(self.calls) == 2:
            assert self.con is not None
            self.con.interrupt()
        return np.ones((len(texts), 2), np.float32)

    def keep(self, made: dict[str, np.ndarray]) -> None:
        self.kept.update(made)


def test_what_was_encoded_before_an_interrupt_is_kept_for_the_next_try() -> None:
    encoder = Interrupted()
    with m2mdb.connect(":memory:", autocommit=True, encoders={"e": encoder}) as con:
        con.execute("CREATE COLLECTION t (body TEXT, v VECTOR(2) FROM body ENCODER 'e')")
        encoder.con = con
        with pytest.raises(m2mdb.OperationalError, match="interrupt"):
            con.collection("t").add({"body": list("abcdef")})
        assert encoder.calls == [["a", "b"], ["c", "d"]]
        assert sorted(encoder.kept) == list("abcd")
        assert con.execute("SELECT count(*) FROM t").fetchone() == (0,)
