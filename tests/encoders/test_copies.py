"""Generated columns in every way a database is copied: no encoder is asked for what is stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import m2mdb
from m2mdb.index.catalog import CollectionEntry
from m2mdb.loading import dump, load
from m2mdb.recovering import recover
from tests.encoders.conftest import Counting
from tests.encoders.test_generated import SCHEMA, assert_all_are_their_texts, opened, rows_of


@pytest.fixture
def filled(path: Path, encoder: Counting) -> Path:
    """600 rows in a segment, and a few in the delta, one of them without a text."""
    con = opened(path, encoder)
    notes = con.create_collection("notes", SCHEMA)
    notes.add({"body": [f"text {i}" for i in range(600)]})
    notes.add({"body": ["delta", None, "text 3"]})
    con.execute("ALTER COLLECTION notes RENAME COLUMN body TO words")
    con.execute("ALTER COLLECTION notes RENAME COLUMN words TO body")
    con.close()
    encoder.batches.clear()
    return path


def assert_is_a_copy(copy: Path, source: Path, encoder: Counting) -> None:
    """Equal rows, readable without the encoder, writable with it, and whole."""
    bare = opened(copy, None)
    original = opened(source, None)
    assert rows_of(bare) == rows_of(original)
    assert bare.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    columns = "SELECT * FROM m2m_columns"
    assert bare.execute(columns).fetchall() == original.execute(columns).fetchall()
    bare.close()
    original.close()
    assert encoder.batches == []
    con = opened(copy, encoder)
    con.execute("INSERT INTO notes (body) VALUES ('text 599'), ('quite new')")
    assert_all_are_their_texts(con)
    assert encoder.texts == ["quite new"]
    with pytest.raises(m2mdb.ProgrammingError, match="generated from body"):
        con.execute("UPDATE notes SET embedding = embedding")
    con.close()


def test_dump_and_load(filled: Path, encoder: Counting, tmp_path: Path) -> None:
    con = opened(filled, None)
    dump(con, [], str(tmp_path / "notes.sql"))
    con.close()

    load(str(tmp_path / "copy.m2m"), str(tmp_path / "notes.sql"))

    assert_is_a_copy(tmp_path / "copy.m2m", filled, encoder)


def test_iterdump_and_executescript(filled: Path, encoder: Counting, tmp_path: Path) -> None:
    con = opened(filled, None)
    script = "\n".join(con.iterdump())
    con.close()

    copy = opened(tmp_path / "copy.m2m", None)
    copy.executescript(script)
    copy.close()

    assert_is_a_copy(tmp_path / "copy.m2m", filled, encoder)


def test_a_dump_of_given_vectors_is_of_its_transaction_alone(path: Path, encoder: Counting) -> None:
    con = opened(path, encoder)
    con.create_collection("notes", SCHEMA)
    give = "INSERT INTO notes (body, embedding) VALUES ('one', ?)"
    vector = [1.0] + [0.0] * 31

    con.execute("BEGIN")
    con.execute("PRAGMA give_generated = on")
    assert con.execute("PRAGMA give_generated").fetchall() == [(1,)]
    con.execute(give, (vector,))
    con.execute("INSERT INTO notes (body) VALUES ('two')")
    with pytest.raises(m2mdb.DataError, match="dimension"):
        con.execute(give, ([1.0],))
    con.execute("COMMIT")

    assert con.execute("PRAGMA give_generated").fetchall() == [(0,)]
    with pytest.raises(m2mdb.ProgrammingError, match="generated from body"):
        con.execute(give, (vector,))
    assert encoder.batches == [["two"]]
    stored = con.execute("SELECT embedding FROM notes WHERE body = 'one'").fetchone()[0]
    assert stored.tolist() == vector


def test_backup(filled: Path, encoder: Counting, tmp_path: Path) -> None:
    con, copy = opened(filled, None), opened(tmp_path / "copy.m2m", None)
    con.backup(copy)
    con.close()
    copy.close()

    assert_is_a_copy(tmp_path / "copy.m2m", filled, encoder)


def test_vacuum_into(filled: Path, encoder: Counting, tmp_path: Path) -> None:
    con = opened(filled, None)
    con.execute("VACUUM INTO ?", (str(tmp_path / "copy.m2m"),))
    con.close()

    assert_is_a_copy(tmp_path / "copy.m2m", filled, encoder)


@pytest.mark.parametrize("statement", ["VACUUM", "OPTIMIZE", "REINDEX"])
def test_a_file_that_is_tidied_up_stays_the_same(
    filled: Path, encoder: Counting, tmp_path: Path, statement: str
) -> None:
    con = opened(filled, None)
    con.execute("DELETE FROM notes WHERE rowid % 2 = 0 AND body <> 'text 599'")
    before: list[Any] = rows_of(con)

    con.execute(statement)

    assert rows_of(con) == before
    con.close()
    copy = tmp_path / "copy.m2m"
    copy.write_bytes(filled.read_bytes())
    assert_is_a_copy(copy, filled, encoder)


def test_forget(filled: Path, encoder: Counting, tmp_path: Path) -> None:
    con = opened(filled, None)
    con.execute("FORGET FROM notes WHERE body = 'text 7'")
    con.close()
    copy = tmp_path / "copy.m2m"
    copy.write_bytes(filled.read_bytes())

    assert b"text 7\0" not in copy.read_bytes()
    assert_is_a_copy(copy, filled, encoder)


@pytest.mark.parametrize("is_damaged", [False, True])
def test_recover(filled: Path, encoder: Counting, tmp_path: Path, is_damaged: bool) -> None:
    damaged = tmp_path / "damaged.m2m"
    content = bytearray(filled.read_bytes())
    if is_damaged:  # the catalog's root, so that the descriptions have to do
        con = opened(filled, None)
        root = con.read(lambda view: view.header().catalog_root)
        con.close()
        content[(root - 1) * 4096 + 100 : (root - 1) * 4096 + 200] = bytes(100)
    damaged.write_bytes(content)

    recover(str(damaged), str(tmp_path / "copy.m2m"))

    assert_is_a_copy(tmp_path / "copy.m2m", filled, encoder)


def test_a_file_without_generated_columns_says_nothing_of_them(path: Path) -> None:
    con = opened(path, None)
    con.execute("CREATE COLLECTION c (body TEXT, embedding VECTOR(4))")

    encoded = con.read(lambda view: [each.encode() for each in view.collection("c").schema.columns])

    assert all("generated" not in fields for fields in encoded)
    assert "give_generated" not in "\n".join(con.iterdump())


@pytest.mark.parametrize(
    "change",
    [
        {"from": "nothing"},
        {"from": 3},
        {"fingerprint": None},
        {"more": "fields"},
        {"encoder": ["mine"]},
    ],
)
def test_a_damaged_description_is_told_as_such(filled: Path, change: dict[str, Any]) -> None:
    con = opened(filled, None)
    raw = con.read(lambda view: view.collection("notes").entry.encode())
    fields = json.loads(raw)
    assert CollectionEntry.decode(1, raw, "notes.m2m").schema.generated_columns == (2,)

    fields["columns"][2]["generated"].update(change)

    for damaged in (fields, {**fields, "columns": fields["columns"][1:]}):
        with pytest.raises(m2mdb.CorruptDatabaseError, match="damaged description"):
            CollectionEntry.decode(1, json.dumps(damaged).encode(), "notes.m2m")
