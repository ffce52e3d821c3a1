"""Generated vector columns: rows have their texts' vectors, and texts are encoded once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import m2mdb
from m2mdb.encoders import HashingEncoder
from tests.encoders.conftest import DIMENSIONS, Counting

SCHEMA = "body TEXT, tag INTEGER, embedding VECTOR(32) FROM body ENCODER 'mine'"


def opened(path: Path | str, encoder: Counting | None, **options: Any) -> m2mdb.Connection:
    encoders = {} if encoder is None else {"mine": encoder}
    return m2mdb.connect(path, encoders=encoders, autocommit=True, **options)


def notes_of(con: m2mdb.Connection) -> m2mdb.Collection:
    return con.create_collection("notes", SCHEMA)


def rows_of(con: m2mdb.Connection) -> list[tuple[Any, ...]]:
    rows = con.execute("SELECT rowid, body, embedding FROM notes ORDER BY rowid").fetchall()
    return [(row[0], row[1], None if row[2] is None else row[2].tobytes()) for row in rows]


def by_hand(text: str | None) -> bytes | None:
    return None if text is None else HashingEncoder(DIMENSIONS).encode([text])[0].tobytes()


def assert_all_are_their_texts(con: m2mdb.Connection) -> None:
    for rowid, body, embedding in rows_of(con):
        assert embedding == by_hand(body), rowid


@pytest.mark.parametrize("count", [1, 7, 600, 1500])
def test_a_batch_is_encoded_once_and_each_text_once(
    path: Path, encoder: Counting, count: int
) -> None:
    con = opened(path, encoder)
    notes = notes_of(con)
    bodies = [None if i % 5 == 3 else f"text {i % 100}" for i in range(count)]

    notes.add({"body": bodies})

    assert encoder.batches == [list(dict.fromkeys(b for b in bodies if b is not None))]
    assert_all_are_their_texts(con)
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_text_that_is_stored_is_not_encoded_again(path: Path, encoder: Counting) -> None:
    con = opened(path, encoder)
    notes = notes_of(con)
    notes.add({"body": [f"segment {i}" for i in range(600)]})
    notes.add({"body": ["delta"]})
    encoder.batches.clear()
    con.close()

    con = opened(path, encoder)
    con.execute("INSERT INTO notes (body) VALUES ('segment 3'), ('delta'), ('new'), ('segment 3')")
    con.collection("notes").add({"body": [f"segment {i}" for i in range(500, 700)]})

    assert encoder.texts == ["new", *[f"segment {i}" for i in range(600, 700)]]
    assert_all_are_their_texts(con)


def test_a_forgotten_text_is_encoded_again(path: Path, encoder: Counting) -> None:
    con = opened(path, encoder)
    notes_of(con).add({"body": ["kept", "secret"]})
    con.collection("notes").forget(where="body = 'secret'")
    con.execute("VACUUM")
    encoder.batches.clear()

    con.collection("notes").add({"body": ["kept", "secret"]})

    assert encoder.texts == ["secret"]


def test_an_update_of_the_source_encodes_anew_and_others_do_not(
    path: Path, encoder: Counting
) -> None:
    con = opened(path, encoder)
    notes = notes_of(con)
    ids = notes.add({"body": ["one", "two", "three"], "tag": [1, 2, 3]})
    encoder.batches.clear()

    con.execute("UPDATE notes SET tag = tag + 1")
    assert encoder.batches == []

    con.execute("UPDATE notes SET body = 'changed' WHERE tag = 2")
    notes.update(ids[1], {"body": None})
    con.execute("UPDATE notes SET body = body")
    assert encoder.texts == ["changed"]
    assert_all_are_their_texts(con)
    assert [row[1] for row in rows_of(con)] == ["changed", None, "three"]


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO notes (body, embedding) VALUES ('a', ?)",
        "UPDATE notes SET embedding = ?",
    ],
)
def test_a_given_value_is_an_error(path: Path, encoder: Counting, statement: str) -> None:
    con = opened(path, encoder)
    notes = notes_of(con)
    notes.add({"body": ["one"]})

    with pytest.raises(m2mdb.ProgrammingError, match="embedding of notes is generated from body"):
        con.execute(statement, (np.ones(32, np.float32),))
    with pytest.raises(m2mdb.ProgrammingError, match="embedding of notes is generated from body"):
        notes.add({"body": "two", "embedding": np.ones(32, np.float32)})
    assert len(notes) == 1
    assert_all_are_their_texts(con)


def test_an_insert_without_names_leaves_the_column_out(path: Path, encoder: Counting) -> None:
    con = opened(path, encoder)
    notes_of(con)

    con.execute("INSERT INTO notes VALUES ('one', 7)")
    con.executemany("INSERT INTO notes VALUES (?, ?)", [("two", 8), (None, 9)])

    assert encoder.batches == [["one"], ["two"]]
    assert_all_are_their_texts(con)


def test_create_needs_the_encoder_in_the_right_dimension(path: Path) -> None:
    con = opened(path, Counting(16))

    with pytest.raises(m2mdb.DataError, match="'mine' has dimension 16, the column 32"):
        notes_of(con)
    with pytest.raises(m2mdb.ProgrammingError, match=r"encoders=\{'nobody': encoder\}"):
        con.create_collection("notes", SCHEMA.replace("mine", "nobody"))
    assert con.collections() == []


def test_hashing_is_always_there_in_the_dimension_of_the_column(path: Path) -> None:
    con = opened(path, None)
    con.create_collection("notes", SCHEMA.replace("mine", "hashing"))
    con.execute("INSERT INTO notes (body) VALUES ('one')")
    con.close()

    con = opened(path, None)
    con.execute("INSERT INTO notes (body) VALUES ('two')")

    assert_all_are_their_texts(con)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"model_id": "tests/counting-2"}, r"tests/counting-1 .*tests/counting-2"),
        ({"fingerprint": "ffff"}, r"0123456789abcdef.*ffff"),
        ({"dimensions": 16}, r"dimension 16, the column 32"),
    ],
)
def test_another_model_is_refused_when_writing_and_by_for(
    path: Path, encoder: Counting, change: dict[str, Any], found: str
) -> None:
    con = opened(path, encoder)
    notes_of(con).add({"body": ["one"], "tag": [1]})
    con.close()
    con = opened(path, Counting(**change))

    for statement in (
        "INSERT INTO notes (body) VALUES ('two')",
        "UPDATE notes SET body = 'two'",
        "SEARCH notes FOR 'two'",
    ):
        with pytest.raises(m2mdb.DatabaseError, match=found):
            con.execute(statement)
    con.execute("UPDATE notes SET tag = 2")
    con.execute("INSERT INTO notes (body) VALUES (NULL)")
    assert_all_are_their_texts(con)


def test_a_file_is_read_and_searched_by_near_without_its_encoder(
    path: Path, encoder: Counting
) -> None:
    con = opened(path, encoder)
    notes_of(con).add({"body": ["one", "two", "three"]})
    con.close()
    con = opened(path, None)

    near = HashingEncoder(DIMENSIONS).encode(["two"])
    assert con.collection("notes").search(near=near, k=1)[0]["body"] == "two"
    assert con.execute("SEARCH notes NEAR ? K 1", (near[0],)).fetchone()[0] == "two"
    with pytest.raises(m2mdb.ProgrammingError, match="encoder 'mine' is not there"):
        con.execute("INSERT INTO notes (body) VALUES ('four')")
    with pytest.raises(m2mdb.ProgrammingError, match="encoder 'mine' is not there"):
        con.collection("notes").search("two")
    assert con.execute("DELETE FROM notes WHERE body = 'one'").rowcount == 1


ANSWERS: list[tuple[Callable[[Any], Any], str]] = [
    (lambda texts: np.ones((len(texts), 31), np.float32), r"shape \(2, 31\); expected \(2, 32\)"),
    (lambda texts: np.ones((1, 32), np.float32), r"shape \(1, 32\)"),
    (lambda texts: np.ones((len(texts), 32), np.int32), "int32 array"),
    (lambda texts: [[0.5] * 32] * len(texts), "gave list"),
    (lambda texts: None, "gave NoneType"),
    (lambda texts: np.full((len(texts), 32), np.nan, np.float32), "not finite for text 0"),
    (lambda texts: np.full((len(texts), 32), 1e300), "not finite for text 0"),
    (lambda texts: np.eye(len(texts), 32, -1, np.float32), "a zero vector.* for text 0"),
]


@pytest.mark.parametrize(("answer", "found"), ANSWERS)
def test_what_an_encoder_gives_is_checked(
    path: Path, encoder: Counting, answer: Callable[[Any], Any], found: str
) -> None:
    con = opened(path, encoder)
    notes = notes_of(con)
    notes.add({"body": ["kept"]})
    encoder.answer = answer

    with pytest.raises(m2mdb.DataError, match=found):
        notes.add({"body": ["one", None, "two"]})

    encoder.answer = None
    assert [row[1] for row in rows_of(con)] == ["kept"]
    notes.add({"body": ["one", "two"]})
    assert_all_are_their_texts(con)


def test_what_an_encoder_raises_is_an_operational_error_from_it(
    path: Path, encoder: Counting
) -> None:
    con = opened(path, encoder)
    notes = notes_of(con)
    encoder.answer = ValueError("no such model")

    with pytest.raises(m2mdb.OperationalError, match="ValueError: no such model") as caught:
        notes.add({"body": ["one"]})
    assert caught.value.__cause__ is encoder.answer
    with pytest.raises(m2mdb.OperationalError, match="ValueError: no such model"):
        notes.search("one")
    assert len(notes) == 0


def test_an_encoder_may_not_use_its_connection(path: Path, encoder: Counting) -> None:
    con = opened(path, encoder)
    notes = notes_of(con)
    notes.add({"body": ["kept"]})

    def answer(texts: Any) -> Any:
        con.execute("INSERT INTO notes (body) VALUES (NULL)")

    encoder.answer = answer
    for run in (notes.search, lambda text: notes.add({"body": [text]})):
        with pytest.raises(m2mdb.OperationalError, match="its encoder 'mine' is running"):
            run("new")

    encoder.answer = None
    assert [row[1] for row in rows_of(con)] == ["kept"]
    notes.add({"body": ["new"]})
    assert_all_are_their_texts(con)


@pytest.mark.parametrize(
    ("column", "found"),
    [
        ("e VECTOR(8) FROM nothing ENCODER 'hashing'", "no such column: nothing"),
        ("e VECTOR(8) FROM n ENCODER 'hashing'", "n, which is INTEGER; wanted is TEXT"),
        ("e VECTOR(8, i8) FROM b ENCODER 'hashing'", "f32 or f16"),
        ("e TEXT FROM b ENCODER 'hashing'", "belongs to VECTOR columns"),
        ("e VECTOR(8) FROM b ENCODER 'hashing' (model = 'x')", "both or none"),
        ("e VECTOR(8) FROM b ENCODER 'hashing' (model = 'x', fingerprint = 1)", "a text"),
    ],
)
def test_what_cannot_be_generated_is_refused(path: Path, column: str, found: str) -> None:
    con = opened(path, None)

    with pytest.raises(m2mdb.ProgrammingError, match=found):
        con.execute(f"CREATE COLLECTION c (b TEXT, n INTEGER, {column})")
    con.execute("CREATE COLLECTION c (e VECTOR(8, f16) METRIC l2 FROM b ENCODER 'hashing', b TEXT)")
    con.execute("INSERT INTO c VALUES ('source behind its column')")
    assert con.execute("SELECT e FROM c").fetchone()[0].dtype == np.float16


def test_m2m_columns_knows_generated_columns(path: Path, encoder: Counting) -> None:
    con = opened(path, encoder)
    notes_of(con)

    found = con.execute(
        "SELECT name, generated_from, encoder, encoder_model, encoder_fingerprint FROM m2m_columns"
    ).fetchall()

    assert found[0] == ("body", None, None, None, None)
    assert found[2] == ("embedding", "body", "mine", "tests/counting-1", "0123456789abcdef")


# ------------------------------------------------------------------------- alter


def test_the_source_may_be_renamed_but_not_dropped(path: Path, encoder: Counting) -> None:
    con = opened(path, encoder)
    notes_of(con).add({"body": ["one"]})

    con.execute("ALTER COLLECTION notes RENAME COLUMN body TO text")
    con.execute("INSERT INTO notes (text) VALUES ('two')")
    with pytest.raises(m2mdb.ProgrammingError, match="embedding is generated from it"):
        con.execute("ALTER COLLECTION notes DROP COLUMN text")
    con.execute("ALTER COLLECTION notes RENAME COLUMN text TO body")
    assert_all_are_their_texts(con)
    con.execute("ALTER COLLECTION notes DROP COLUMN embedding")
    con.execute("ALTER COLLECTION notes DROP COLUMN body")
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.parametrize("count", [0, 3, 700])
def test_a_column_that_is_added_is_filled(path: Path, encoder: Counting, count: int) -> None:
    con = opened(path, encoder)
    con.create_collection("notes", "body TEXT, tag INTEGER")
    bodies = [None if i == 2 else f"text {i % 90}" for i in range(count)]
    con.collection("notes").add({"body": bodies, "tag": list(range(count))})

    con.execute("ALTER COLLECTION notes ADD COLUMN embedding VECTOR(32) FROM body ENCODER 'mine'")

    assert_all_are_their_texts(con)
    assert [row[1] for row in rows_of(con)] == bodies
    assert len(encoder.texts) == len(set(encoder.texts))
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    con.close()
    assert_all_are_their_texts(opened(path, None))


# ------------------------------------------------------------------------- differential


texts = st.one_of(st.none(), st.text(max_size=6), st.sampled_from(["a", "b", "dark mode"]))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["add", "update", "delete"]), st.lists(texts, max_size=4),
                          st.integers(1, 12)), max_size=8))  # fmt: skip
def test_a_generated_column_equals_encoding_by_hand(
    steps: list[tuple[str, list[str | None], int]],
) -> None:
    encoder = Counting()
    con, plain = opened(":memory:", encoder), opened(":memory:", None)
    notes = notes_of(con)
    other = plain.create_collection("notes", "body TEXT, tag INTEGER, embedding VECTOR(32)")

    def vectors(bodies: list[str | None]) -> list[Any]:
        return [None if b is None else HashingEncoder(32).encode([b])[0] for b in bodies]

    for what, bodies, row in steps:
        if what == "add":
            notes.add({"body": bodies})
            other.add({"body": bodies, "embedding": vectors(bodies)})
        elif what == "delete":
            assert notes.delete(row) == other.delete(row)
        elif bodies:
            values = {"body": bodies[0], "embedding": vectors(bodies[:1])[0]}
            assert notes.update(row, {"body": bodies[0]}) == other.update(row, values)

    assert rows_of(con) == rows_of(plain)
    near = HashingEncoder(32).encode(["dark mode"])
    assert list(notes.search(near=near)) == list(other.search(near=near))
