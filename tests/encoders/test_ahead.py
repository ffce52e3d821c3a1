"""Encoding ahead: while an encoder works for an insertion, others can write (GE5)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import m2mdb
from m2mdb.encoders import HashingEncoder
from tests.encoders.conftest import Counting
from tests.encoders.test_generated import assert_all_are_their_texts, opened

SCHEMA = "body TEXT, tag INTEGER UNIQUE, embedding VECTOR(32) FROM body ENCODER 'mine'"
Insertion = Callable[[m2mdb.Connection], object]


def by_values(con: m2mdb.Connection) -> object:
    return con.execute("INSERT INTO notes (body, tag) VALUES ('one', 1), (?, 2), (?, 3)",
                       ("two", None))  # fmt: skip


def by_position(con: m2mdb.Connection) -> object:
    return con.execute("INSERT INTO notes VALUES (:a, 1), ('two', 2), (:b, 3)",
                       {"a": "one", "b": None})  # fmt: skip


def by_many(con: m2mdb.Connection) -> object:
    rows: list[tuple[str | None, int]] = [("one", 1), ("two", 2), (None, 3)]
    return con.executemany("INSERT INTO notes (body, tag) VALUES (?, ?)", rows)


def by_named_many(con: m2mdb.Connection) -> object:
    rows: list[dict[str, Any]] = [{"b": "one", "t": 1}, {"b": "two", "t": 2}, {"b": None, "t": 3}]
    return con.executemany("INSERT INTO notes (tag, body) VALUES (:t, :b)", rows)


def by_add(con: m2mdb.Connection) -> object:
    return con.collection("notes").add({"BODY": ["one", "two", None], "tag": [1, 2, 3]})


def by_rows(con: m2mdb.Connection) -> object:
    rows = [{"body": "one", "tag": 1}, {"body": "two", "tag": 2}, {"tag": 3}]
    return con.collection("notes").add(iter(rows))


WAYS = [by_values, by_position, by_many, by_named_many, by_add, by_rows]


@pytest.fixture
def con(path: Path, encoder: Counting) -> m2mdb.Connection:
    found = opened(path, encoder)
    found.create_collection("notes", SCHEMA)
    return found


@pytest.mark.parametrize("insertion", WAYS)
@pytest.mark.parametrize("autocommit", [True, False])
def test_others_write_while_the_encoder_sleeps(
    path: Path, encoder: Counting, con: m2mdb.Connection, insertion: Insertion, autocommit: bool
) -> None:
    con.close()
    con = m2mdb.connect(path, encoders={"mine": encoder}, autocommit=autocommit)
    asleep, wake = threading.Event(), threading.Event()
    other = m2mdb.connect(path, timeout=0, autocommit=True)

    def slow(texts: Any) -> Any:
        asleep.set()
        assert wake.wait(20)
        return HashingEncoder(32).encode(texts)

    encoder.answer = slow
    failed: list[BaseException] = []

    def insert() -> None:
        try:
            insertion(con)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=insert)
    thread.start()
    try:
        assert asleep.wait(20)
        other.execute("INSERT INTO notes (tag) VALUES (99)")
        assert other.execute("SELECT count(*) FROM notes").fetchone() == (1,)
    finally:
        wake.set()
        thread.join()

    assert not failed
    con.commit()
    assert encoder.batches == [["one", "two"]]
    assert other.execute("SELECT count(*) FROM notes").fetchone() == (4,)
    assert_all_are_their_texts(con)


@pytest.mark.parametrize("insertion", WAYS)
def test_each_text_is_encoded_once_and_one_that_is_stored_is_not(
    con: m2mdb.Connection, encoder: Counting, insertion: Insertion
) -> None:
    con.execute("INSERT INTO notes (body, tag) VALUES ('one', 11)")
    encoder.batches.clear()

    insertion(con)

    assert encoder.batches == [["two"]]
    assert_all_are_their_texts(con)


def test_a_text_that_another_adds_meanwhile_is_there_once_more(
    path: Path, con: m2mdb.Connection, encoder: Counting
) -> None:
    other = opened(path, Counting())

    def slow(texts: Any) -> Any:
        other.execute("INSERT INTO notes (body, tag) VALUES ('one', 20)")
        return HashingEncoder(32).encode(texts)

    encoder.answer = slow
    by_values(con)

    assert_all_are_their_texts(con)
    assert con.execute("SELECT count(*) FROM notes").fetchone() == (4,)


def test_a_collection_that_changes_meanwhile_encodes_again(
    path: Path, con: m2mdb.Connection, encoder: Counting
) -> None:
    finer = Counting(48, "tests/finer", "5")
    con.encoders["finer"] = finer
    other = m2mdb.connect(path, encoders={"mine": Counting(), "finer": finer}, autocommit=True)

    def slow(texts: Any) -> Any:
        if not finer.batches:
            other.execute("INSERT INTO notes (body, tag) VALUES ('old', 20)")
            other.execute("REEMBED notes USING 'finer'")
        return HashingEncoder(32).encode(texts)

    encoder.answer = slow
    by_add(con)

    rows = con.execute("SELECT body, embedding FROM notes WHERE body IS NOT NULL").fetchall()
    assert len(rows) == 3
    for text, vector in rows:
        np.testing.assert_array_equal(vector, HashingEncoder(48).encode([text])[0])


@pytest.mark.parametrize("insertion", WAYS)
def test_what_fails_ahead_leaves_nothing(
    con: m2mdb.Connection, encoder: Counting, insertion: Insertion
) -> None:
    encoder.answer = TimeoutError("too slow")
    with pytest.raises(m2mdb.OperationalError, match="too slow"):
        insertion(con)
    assert not con.in_transaction
    assert con.engine().ahead == {}
    encoder.answer = None
    insertion(con)
    encoder.batches.clear()
    with pytest.raises(m2mdb.IntegrityError):
        insertion(con)

    assert con.engine().ahead == {}
    assert con.execute("SELECT count(*) FROM notes").fetchone() == (3,)
    assert encoder.batches == []


def test_a_statement_that_is_refused_sends_no_text(
    con: m2mdb.Connection, encoder: Counting
) -> None:
    con.set_authorizer(
        lambda action, *rest: (
            m2mdb.SQLITE_DENY if action == m2mdb.SQLITE_INSERT else m2mdb.SQLITE_OK
        )
    )
    for insertion in (by_values, by_position, by_many, by_named_many):
        with pytest.raises(m2mdb.DatabaseError):
            insertion(con)
    con.set_authorizer(None)
    with pytest.raises(m2mdb.ProgrammingError, match="no such column"):
        con.execute("INSERT INTO notes (body, nothing) VALUES ('secret', 1)")
    with pytest.raises(m2mdb.ProgrammingError, match="no such column"):
        con.collection("notes").add({"body": ["secret"], "nothing": [1]})
    with pytest.raises(m2mdb.ProgrammingError):
        con.execute("INSERT INTO notes (body) VALUES (?, ?)", ("secret", 1))

    assert encoder.batches == []


def test_inside_a_transaction_it_is_as_before(con: m2mdb.Connection, encoder: Counting) -> None:
    con.execute("BEGIN")
    by_values(con)
    con.execute("ROLLBACK")
    assert con.execute("SELECT count(*) FROM notes").fetchone() == (0,)
    assert encoder.batches == [["one", "two"]]


def test_upserts_ask_once_for_all_rows(con: m2mdb.Connection, encoder: Counting) -> None:
    by_values(con)
    encoder.batches.clear()

    con.executemany(
        "INSERT INTO notes (body, tag) VALUES (?, ?) ON CONFLICT (tag) DO UPDATE SET "
        "body = excluded.body",
        [(f"again {at}", at) for at in range(6)],
    )

    assert encoder.batches == [[f"again {at}" for at in range(6)]]
    assert_all_are_their_texts(con)


def test_texts_beyond_what_is_made_ahead(
    con: m2mdb.Connection, encoder: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    from m2mdb.index import generated

    monkeypatch.setattr(generated, "AHEAD_BYTES", 4 * 32 * 2)
    con.collection("notes").add({"body": list("abcde"), "tag": list(range(5))})

    assert encoder.batches == [["a", "b"], ["c", "d", "e"]]
    assert_all_are_their_texts(con)
