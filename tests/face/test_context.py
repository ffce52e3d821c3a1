"""Contexts: texts for a prompt, within a number of tokens, from what a search finds."""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import Any

import numpy as np
import pytest

import m2mdb
from m2mdb import aio
from m2mdb.context import sentence_ends

SCHEMA = (
    "id INTEGER PRIMARY KEY, body TEXT FULLTEXT, book TEXT, page INTEGER, "
    "e VECTOR(128) FROM body ENCODER 'hashing'"
)
ROWS = [
    (1, "The red apple is ripe. It fell from the tree. Nobody picked it up.", "fruit", 9),
    (2, "the RED apple is ripe; it fell from the tree, nobody picked it up", "copy", 1),
    (3, "A red pear. A red plum.", "fruit", 2),
    (4, "Red bicycles are fast.", "wheels", 5),
    (5, None, "fruit", 1),
    (6, "Snow on the hills, and no tree in sight.", "winter", 3),
]


def words(text: str) -> int:
    return len(text.split())


def characters(text: str) -> int:
    return len(text)


@pytest.fixture
def notes() -> m2mdb.Collection:
    con = m2mdb.connect(":memory:", autocommit=True)
    collection = con.create_collection("notes", SCHEMA)
    for id_, body, book, page in ROWS:
        collection.add({"id": id_, "body": body, "book": book, "page": page})
    return collection


def bare(number: int, passage: m2mdb.Passage) -> str:
    return ""


def test_text_source_and_score_stand_in_the_prompt(notes: m2mdb.Collection) -> None:
    found = notes.context("red apple tree", max_tokens=500, source=["book", "page"])

    first = found.passages[0]
    hit = notes.search("red apple tree")[0]
    assert (first.id, first.text, first.score) == (hit.id, hit["body"], hit.score)
    assert first.source == {"book": hit["book"], "page": hit["page"]}
    heading = f"[1] notes {first.id}, book {hit['book']}, page {hit['page']}"
    assert found.text.startswith(f"{heading} (score {hit.score:.4f})\n{hit['body']}\n\n[2] notes ")
    assert str(found) == found.text
    assert found.tokens == m2mdb.approximate_tokens(found.text)
    assert [each.tokens for each in found.passages] == [
        m2mdb.approximate_tokens(each.text) for each in found.passages
    ]
    scores = [each.score for each in found.passages]
    assert scores == sorted(scores, reverse=True)
    assert None not in [each.text for each in found.passages]


@pytest.mark.parametrize("count", [words, characters, m2mdb.approximate_tokens, None])
@pytest.mark.parametrize("order", ["score", "source"])
def test_it_is_never_more_than_was_asked_for(
    notes: m2mdb.Collection, count: Any, order: Any
) -> None:
    sizes = []
    for most in [*range(1, 60, 3), 100, 200, 400]:
        found = notes.context(
            "red apple tree", max_tokens=most, count=count, order=order, source="book"
        )
        counter = count or m2mdb.approximate_tokens
        assert found.tokens == (counter(found.text) if found.text else 0) <= most
        assert bool(found) == bool(found.text) == bool(len(found))
        sizes.append(len(found))
    assert sizes[0] == 0
    assert sizes[-1] == 4


def test_a_text_is_cut_where_a_sentence_ends(notes: m2mdb.Collection) -> None:
    search: dict[str, Any] = {"where": "id = 1", "heading": bare, "count": words}

    whole, two, one = (notes.context("apple", max_tokens=n, **search) for n in (14, 13, 9))

    assert [each.passages[0].text for each in (whole, two, one)] == [
        ROWS[0][1],
        "The red apple is ripe. It fell from the tree.",
        "The red apple is ripe.",
    ]
    assert [each.passages[0].is_cut for each in (whole, two, one)] == [False, True, True]
    titled = {**search, "heading": None}
    none = notes.context("apple", max_tokens=4, **titled)
    assert (none.text, none.passages, none.tokens, none.left_out) == ("", (), 0, 1)
    uncut = notes.context("apple", max_tokens=13, whole=True, **search)
    assert (uncut.text, uncut.left_out) == ("", 1)


LIST = "\n".join(f"- point {number} of the list" for number in range(40))
LONG = " ".join(f"word{number}" for number in range(60))


@pytest.mark.parametrize(
    ("text", "most", "kept"),
    [
        (LIST, 20, "\n".join(LIST.split("\n")[:3])),
        (LONG, 20, " ".join(LONG.split()[:20])),
        (f"{LONG}.", 20, " ".join(LONG.split()[:20])),
        (f"{LONG}\n{LONG}", 70, LONG),
        ("The red apple is ripe.", 4, "The red apple is"),
    ],
)
def test_a_text_without_a_sentence_is_cut_at_a_line_and_then_at_a_word(
    notes: m2mdb.Collection, text: str, most: int, kept: str
) -> None:
    notes.add({"id": 50, "body": text, "book": "unended", "page": 1})
    options: dict[str, Any] = {"heading": bare, "count": words, "where": "id = 50"}
    found = notes.context("point word7 apple", max_tokens=most, **options)
    assert (found.text, found.left_out) == (kept, 0)
    assert found.passages[0].is_cut
    whole = notes.context("point word7 apple", max_tokens=most, whole=True, **options)
    assert (whole.text, whole.left_out) == ("", 1)


def test_no_stub_of_a_text_stands_beside_others(notes: m2mdb.Collection) -> None:
    notes.add({"id": 50, "body": "zebra crossing", "book": "a", "page": 1})
    notes.add({"id": 51, "body": f"zebra {LONG}", "book": "b", "page": 1})
    options: dict[str, Any] = {"heading": bare, "count": words, "where": "id >= 50"}
    stub = notes.context("zebra crossing", max_tokens=10, **options)
    assert (stub.text, stub.left_out) == ("zebra crossing", 1)
    more = notes.context("zebra crossing", max_tokens=30, **options)
    assert [each.id for each in more.passages] == [50, 51]
    assert more.tokens == 30


def test_han_texts_are_cut_between_characters() -> None:
    con = m2mdb.connect(":memory:", autocommit=True)
    notes = con.create_collection("notes", SCHEMA)
    notes.add({"id": 1, "body": "猫" * 50})
    found = notes.context("猫", max_tokens=12, count=characters, heading=bare)
    assert found.text == "猫" * 12


def test_a_source_that_is_null_is_not_named(notes: m2mdb.Collection) -> None:
    notes.add({"id": 60, "body": "A zebra.", "book": None, "page": 3})
    found = notes.context("zebra", max_tokens=100, k=1, source=["book", "page"])
    assert found.text.startswith("[1] notes 60, page 3 (score ")
    assert found.passages[0].source == {"book": None, "page": 3}


@pytest.mark.parametrize("blank", ["", "   ", "\n", "?!", "…", " - "])
def test_a_blank_query_finds_nothing(notes: m2mdb.Collection, blank: str) -> None:
    notes.add([{"id": 70, "body": ""}, {"id": 71, "body": "  "}])
    assert (notes.context(blank, max_tokens=100).text, len(notes.search(blank))) == ("", 0)
    for clause in ("", "K 3", "FUSION weighted", "FUSION vector_only", "EXACT", "MIN SCORE -1"):
        statement = f"SEARCH notes FOR ? {clause}"
        assert notes.connection.execute(statement, (blank,)).fetchall() == []
        notes.connection.execute(f"EXPLAIN ANALYZE {statement}", (blank,)).fetchall()
    assert notes.search(blank, signals=True).signals is None
    con = m2mdb.connect(":memory:", autocommit=True)
    alone = con.create_collection("alone", "body TEXT, e VECTOR(8) FROM body ENCODER 'hashing'")
    alone.add({"body": ["", "a"]})
    assert len(alone.search(blank)) == 0
    assert len(alone.search("a")) == 2


def test_near_duplicates_are_dropped(notes: m2mdb.Collection) -> None:
    found = notes.context("red apple tree", max_tokens=500)
    every = notes.context("red apple tree", max_tokens=500, duplicates=None)

    ids = [each.id for each in found.passages]
    assert len({1, 2} & set(ids)) == 1
    assert found.duplicates == 1
    assert {each.id for each in every.passages} >= {1, 2}
    assert every.duplicates == 0


def test_the_order_of_the_sources(notes: m2mdb.Collection) -> None:
    found = notes.context(
        "red apple tree", max_tokens=500, order="source", source=["book", "page"], duplicates=None
    )

    places = [(each.source["book"], each.source["page"]) for each in found.passages]
    assert places == sorted(places)
    assert [line[:3] for line in found.text.splitlines() if line.startswith("[")] == [
        f"[{number}]" for number in range(1, len(places) + 1)
    ]


def test_it_takes_what_a_search_takes(notes: m2mdb.Collection) -> None:
    con = notes.connection
    near = con.encoder("hashing", 128).encode(["bicycles"])[0]
    assert notes.context(near=near, k=1, max_tokens=99).passages[0].id == 4
    assert notes.context(match="snow", max_tokens=99).passages[0].id == 6
    best = notes.search("red", k=1).scores[0]
    found = notes.context("red", max_tokens=99, min_score=best, duplicates=None)
    assert all(each.score >= best for each in found.passages)
    assert len(notes.context("red", max_tokens=500, where="book = ?", params=("fruit",))) == 2
    assert notes.context("red apple", max_tokens=99, diversity=0.5).passages
    with pytest.raises(TypeError):
        notes.context("red", max_tokens=99, colour="blue")


def test_equal_rows_give_equal_contexts() -> None:
    texts: list[str] = []
    for seed in (1, 2):
        con = m2mdb.connect(":memory:", autocommit=True)
        collection = con.create_collection("notes", SCHEMA)
        rows = list(ROWS)
        random.Random(seed).shuffle(rows)
        collection.add([dict(zip(("id", "body", "book", "page"), row, strict=True))
                        for row in rows])  # fmt: skip
        texts.append(collection.context("red apple tree", max_tokens=40).text)
    assert texts[0] == texts[1]


def test_the_encoder_may_count_tokens() -> None:
    class Model:
        dimensions, model_id, fingerprint = 8, "tests/counts", "1"

        def encode(self, texts: Any) -> Any:
            return np.ones((len(texts), 8), np.float32)

        def count_tokens(self, text: str) -> int:
            return 2 * len(text)

    con = m2mdb.connect(":memory:", autocommit=True, encoders={"mine": Model()})
    notes = con.create_collection("notes", "body TEXT, e VECTOR(8) FROM body ENCODER 'mine'")
    notes.add({"body": ["abc"]})

    assert notes.context("x", max_tokens=500, heading=bare).tokens == 6
    assert notes.context("x", max_tokens=500, heading=bare, count=len).tokens == 3


@pytest.mark.parametrize(
    ("options", "error", "words_"),
    [
        ({"max_tokens": 0}, m2mdb.ProgrammingError, "max_tokens is 0"),
        ({"max_tokens": 1.5}, m2mdb.InterfaceError, "max_tokens is float"),
        ({"max_tokens": 9, "count": 3}, m2mdb.InterfaceError, "count is int"),
        ({"max_tokens": 9, "count": str}, m2mdb.DataError, "expected a number of tokens"),
        ({"max_tokens": 9, "heading": "#"}, m2mdb.InterfaceError, "heading is str"),
        ({"max_tokens": 99, "heading": lambda n, p: n}, m2mdb.DataError, "heading gave int"),
        ({"max_tokens": 9, "order": "best"}, m2mdb.ProgrammingError, "order is 'best'"),
        ({"max_tokens": 9, "duplicates": 2}, m2mdb.ProgrammingError, "duplicates is 2"),
        ({"max_tokens": 9, "text": "page"}, m2mdb.ProgrammingError, "page of notes is INTEGER"),
        ({"max_tokens": 9, "source": "no"}, m2mdb.ProgrammingError, "no such column: no"),
    ],
)
def test_what_cannot_be(
    notes: m2mdb.Collection, options: dict[str, Any], error: type[Exception], words_: str
) -> None:
    with pytest.raises(error, match=words_):
        notes.context("red", **options)
    assert notes.context("red", max_tokens=99)


def test_which_column_has_the_texts() -> None:
    con = m2mdb.connect(":memory:", autocommit=True)
    plain = con.create_collection("plain", "id TEXT PRIMARY KEY, a TEXT, v VECTOR(2)")
    plain.add({"id": "x", "a": "one", "v": [1.0, 0.0]})
    assert plain.context(near=[1, 0], max_tokens=50).passages[0].text == "one"
    con.execute("ALTER COLLECTION plain ADD COLUMN b TEXT DEFAULT 'two'")
    with pytest.raises(m2mdb.ProgrammingError, match="which column has the texts"):
        plain.context(near=[1, 0], max_tokens=50)
    assert plain.context(near=[1, 0], max_tokens=50, text="b").passages[0].text == "two"


def test_where_sentences_end() -> None:
    text = 'One. Two! "Three?" Pi is 3.14 or so… 四。五\n\nsix'
    cuts = [0, *sentence_ends(text)]
    pieces = [text[a:b].strip() for a, b in itertools.pairwise(cuts)]
    assert pieces == ["One.", "Two!", '"Three?"', "Pi is 3.14 or so…", "四。", "五", "six"]
    assert sentence_ends("") == []


def test_tokens_without_a_model() -> None:
    assert m2mdb.approximate_tokens("") == 0
    assert m2mdb.approximate_tokens("dark mode") == 2
    assert m2mdb.approximate_tokens("extraordinary 12345, 東京!") == 3 + 2 + 1 + 2 + 1


def test_the_awaitable_twin() -> None:
    async def run() -> m2mdb.Context:
        async with aio.connect(":memory:", autocommit=True) as con:
            notes = await con.create_collection("notes", SCHEMA)
            await notes.add({"id": [1], "body": ["A red plum."]})
            return await notes.context("plum", max_tokens=50)

    assert asyncio.run(run()).passages[0].text == "A red plum."
