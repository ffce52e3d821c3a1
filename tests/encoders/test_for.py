"""FOR: a text searches by its vector and by its plain words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import m2mdb
from m2mdb.encoders import HashingEncoder
from tests.encoders.conftest import Counting
from tests.encoders.test_generated import opened

BODIES = ["dark mode of the editor", "light theme", "the editor is dark", "c++ -not a term", None]


def filled(path: Path, encoder: Counting, columns: str) -> m2mdb.Collection:
    con = opened(path, encoder)
    notes = con.create_collection("notes", columns)
    notes.add({"body": BODIES})
    encoder.batches.clear()
    return notes


BOTH = "id INTEGER PRIMARY KEY, body TEXT FULLTEXT, e VECTOR(32) FROM body ENCODER 'mine'"
VECTORS = "id INTEGER PRIMARY KEY, body TEXT, e VECTOR(32) FROM body ENCODER 'mine'"
TEXTS = "id INTEGER PRIMARY KEY, body TEXT FULLTEXT, e VECTOR(32)"


def found(hits: Any) -> list[tuple[int, float]]:
    return list(zip(hits.ids.tolist(), hits.scores.tolist(), strict=True))


@pytest.mark.parametrize("text", ["dark editor", 'c++ -not: "dark* mode^2 ~', "π"])
def test_for_is_near_and_match(path: Path, encoder: Counting, text: str) -> None:
    notes = filled(path, encoder, BOTH)

    hits = notes.search(text)

    near = HashingEncoder(32).encode([text])[0]
    assert found(hits) == found(notes.search(near=near, match=m2mdb.match_text(text)))
    rows = notes.connection.execute("SEARCH notes FOR ? RETURNING id, score", (text,)).fetchall()
    assert rows == found(hits)
    assert encoder.batches == [[text], [text]]


def test_for_with_one_side_is_that_side(path: Path, tmp_path: Path, encoder: Counting) -> None:
    vectors = filled(path, encoder, VECTORS)
    texts = filled(tmp_path / "texts.m2m", encoder, TEXTS)
    near = HashingEncoder(32).encode(["dark editor"])[0]

    assert found(vectors.search("dark editor")) == found(vectors.search(near=near))
    assert found(texts.search("+dark -editor")) == found(texts.search(match="dark editor"))


def test_for_takes_the_other_clauses(path: Path, encoder: Counting) -> None:
    notes = filled(path, encoder, BOTH)
    near = HashingEncoder(32).encode(["dark"])[0]

    hits = notes.search("dark", where="id <> ?", params=(1,), k=2, fusion="weighted")

    wanted = notes.search(near=near, match="dark", where="id <> 1", k=2, fusion="weighted")
    assert found(hits) == found(wanted)
    assert notes.search("dark", signals=True).signals is None  # there are no lists


def test_explain_shows_both_sides(path: Path, encoder: Counting) -> None:
    con = filled(path, encoder, BOTH).connection

    lines = [row[-1] for row in con.execute("EXPLAIN SEARCH notes FOR ?", ("dark",))]
    analyzed = [row[-1] for row in con.execute("EXPLAIN ANALYZE SEARCH notes FOR 'dark'")]

    assert any("NEAR e" in line for line in lines)
    assert any("MATCH body" in line for line in lines)
    assert any("rrf of two sides" in line for line in lines)
    assert any("terms: dark" in line for line in analyzed)


@pytest.mark.parametrize("clause", ["NEAR ? FOR 'x'", "MATCH ? FOR 'x'"])
def test_for_excludes_near_and_match(path: Path, encoder: Counting, clause: str) -> None:
    notes = filled(path, encoder, BOTH)

    with pytest.raises(m2mdb.ProgrammingError, match="FOR excludes NEAR and MATCH"):
        notes.connection.execute(f"SEARCH notes {clause}", ("x",))
    with pytest.raises(m2mdb.ProgrammingError, match="FOR excludes NEAR and MATCH"):
        notes.search("x", match="y")


def test_for_needs_something_to_search(path: Path, encoder: Counting) -> None:
    con = opened(path, encoder)
    con.execute("CREATE COLLECTION bare (body TEXT, e VECTOR(3))")
    con.execute(
        "CREATE COLLECTION two (body TEXT, e VECTOR(32) FROM body ENCODER 'mine',"
        " f VECTOR(8) FROM body ENCODER 'hashing')"
    )

    for run in (con.collection("bare").search, lambda _: con.execute("SEARCH bare FOR 'x'")):
        with pytest.raises(m2mdb.ProgrammingError, match=r"ENCODER.* FULLTEXT column; bare"):
            run("x")
    with pytest.raises(m2mdb.ProgrammingError, match="one generated VECTOR column; two has e, f"):
        con.execute("SEARCH two FOR 'x'")


@pytest.mark.parametrize("text", [3, b"x", 0.5])
def test_for_takes_a_text(path: Path, encoder: Counting, text: Any) -> None:
    notes = filled(path, encoder, BOTH)

    with pytest.raises(m2mdb.InterfaceError, match="FOR takes a str"):
        notes.search(text)
    with pytest.raises(m2mdb.InterfaceError, match="FOR takes a str"):
        notes.connection.execute("SEARCH notes FOR ?", (text,))
    with pytest.raises(m2mdb.DataError, match="FOR of notes is NULL; expected a text"):
        notes.connection.execute("SEARCH notes FOR NULL")


def test_an_encoder_may_treat_queries_otherwise(path: Path) -> None:
    class Asymmetric(Counting):
        def encode_queries(self, texts: Any) -> Any:
            return self.encode(["query: " + text for text in texts])

    encoder = Asymmetric()
    notes = filled(path, encoder, VECTORS)

    notes.search("dark")

    assert encoder.batches == [["query: dark"]]


def test_an_authorizer_is_asked_of_both_sides(path: Path, encoder: Counting) -> None:
    con = filled(path, encoder, BOTH).connection
    asked: list[str | None] = []

    def authorizer(action: int, one: str | None, other: str | None, *rest: object) -> int:
        if action == m2mdb.SQLITE_READ:
            asked.append(other)
        return m2mdb.SQLITE_DENY if other == "e" else m2mdb.SQLITE_OK

    con.set_authorizer(authorizer)
    with pytest.raises(m2mdb.DatabaseError, match=r"notes\.e"):
        con.execute("SEARCH notes FOR 'dark' RETURNING id")
    assert "e" in asked
