"""Categories: by whole words, by centroids, or not at all."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

import m2mdb
from m2mdb import aio
from m2mdb.encoders import HashingEncoder

CLASSES = {
    "ui": ["dark mode", "font", "color"],
    "storage": ["disk", "back up"],
    "call": ["call", "phone"],
    "empty": [],
}


NAMED: dict[str, list[str]] = {"word": ["north"], "right": [], "up": []}


class Points:
    """Texts "x y" as the point (x, y)."""

    dimensions, model_id, fingerprint = 2, "tests/points", "1"

    def __init__(self) -> None:
        self.texts: list[str] = []

    def encode(self, texts: Any) -> Any:
        self.texts += texts
        return np.array([[float(word) for word in text.split()[:2]] for text in texts], np.float32)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("I like DARK mode", "ui"),
        ("a dark and gloomy mode", None),
        ("scallop dinner", None),
        ("Call me", "call"),
        ("the disk font", None),  # one word each
        ("fonts", None),
        ("font color disk", "ui"),
        ("font font disk", None),  # the same word again says nothing more
        ("we back up", "storage"),
        ("backup", None),
        ("", None),
    ],
)
def test_words_are_whole_and_the_most_wins(text: str, name: str | None) -> None:
    assert m2mdb.Categories(CLASSES).of(text) == name
    assert m2mdb.Categories(CLASSES, default="other").of(text) == (name or "other")


def test_words_are_compared_as_in_a_column() -> None:
    categories = m2mdb.Categories({"eat": ["Café", "naïve cook"]})
    assert categories.of("the cafe") == "eat"
    assert categories.of("NAIVE COOK") == "eat"
    exact = m2mdb.Categories({"eat": ["Café"]}, fold=False)
    assert exact.of("the Cafe") is None
    stemmed = m2mdb.Categories({"run": ["running"]}, stem="english")
    assert stemmed.of("he runs") == "run"
    assert stemmed.found("runs and running") == {"run": 1}


def test_the_order_of_definitions_changes_nothing() -> None:
    turned = dict(reversed(CLASSES.items()))
    for text in ("dark mode disk phone call", "font disk", "disk back up font"):
        assert m2mdb.Categories(CLASSES).of(text) == m2mdb.Categories(turned).of(text)


def test_centroids_decide_where_words_do_not_and_only_by_a_margin() -> None:
    points = Points()
    categories = m2mdb.Categories(NAMED, default="unsure", margin=0.3)
    categories.learn({"right": ["1 0", "1 0.1"]}, points)
    assert categories.of("1 0") == "unsure"  # one class is nobody's choice
    categories.learn({"up": ["0 1", "0.1 1"]}, points)

    assert categories.of_many(["2 0.2", "0 5", "1 1", "0 3 north", "0 0", None]) == [
        "right", "up", "unsure", "word", "unsure", "unsure",
    ]  # fmt: skip
    assert categories.learned == {"right": 2, "up": 2}
    with pytest.raises(m2mdb.ProgrammingError, match="is another model"):
        categories.learn({"up": ["x"]}, HashingEncoder(2))


def test_centroids_are_means_of_directions() -> None:
    rng = np.random.default_rng(5)
    vectors = rng.standard_normal((200, 6)) + np.repeat(np.eye(6)[:4] * 3, 50, axis=0)
    labels = [f"c{at // 50}" for at in range(200)]
    categories = m2mdb.Categories({}, margin=0.0)
    order = rng.permutation(200)
    for some in np.array_split(order, 7):
        categories.learn_vectors(vectors[some], [labels[at] for at in some])

    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    means = np.stack([unit[at * 50 : (at + 1) * 50].mean(axis=0) for at in range(4)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    expected = [f"c{at}" for at in (unit @ means.T).argmax(axis=1)]
    assert categories.by_centroids(vectors) == expected


def notes_of(con: m2mdb.Connection) -> m2mdb.Collection:
    return con.create_collection(
        "notes", "id INTEGER PRIMARY KEY, body TEXT, category TEXT, "
        "e VECTOR(2) FROM body ENCODER 'points'"
    )  # fmt: skip


def test_rows_are_categorised_when_they_are_added() -> None:
    points = Points()
    con = m2mdb.connect(":memory:", autocommit=True, encoders={"points": points})
    notes = notes_of(con)
    categories = m2mdb.Categories(NAMED, default="unsure")
    categories.learn({"right": ["1 0"], "up": ["0 1"]}, points)
    points.texts.clear()

    bodies = ["5 1", "1 7", "1 1", "0 2 north", None, "9 1"]
    notes.add({"body": bodies, "category": [*[None] * 5, "mine"]}, categories=categories)
    notes.add({"body": "1 9"}, categories=categories)
    notes.add([{"BODY": "9 2"}, {"id": 100}], categories=categories)

    found = [row[0] for row in con.execute("SELECT category FROM notes ORDER BY id")]
    assert found == ["right", "up", "unsure", "word", "unsure", "mine", "up", "right", "unsure"]
    assert len(points.texts) == len(set(points.texts)) == 7


def test_rows_that_are_there_are_categorised_on_demand() -> None:
    points = Points()
    con = m2mdb.connect(":memory:", autocommit=True, encoders={"points": points})
    notes = notes_of(con)
    bodies = ["1 0", "0 1", "8 1", "1 6", "1 1", "3 3 north", None]
    notes.add({"body": bodies, "category": ["right", "up", *[None] * 5]})
    categories = m2mdb.Categories({"word": ["north"]})
    assert categories.learn_from(notes) == 2
    points.texts.clear()

    assert notes.categorise(categories) == {"right": 1, "up": 1, "word": 1}

    classes = [row[0] for row in con.execute("SELECT category FROM notes ORDER BY id")]
    assert classes == ["right", "up", "right", "up", None, "word", None]
    assert points.texts == []  # the column's own vectors
    assert notes.categorise(categories) == {}
    con.execute("UPDATE notes SET category = 'wrong'")
    assert notes.categorise(categories, where="id <= ?", params=(3,)) == {"right": 2, "up": 1}
    assert notes.count("category = 'wrong'") == 4
    with con:
        con.execute("BEGIN")
        notes.categorise(m2mdb.Categories({}, default="x"), where="true")
        con.execute("ROLLBACK")
    assert notes.count("category = 'wrong'") == 4


def test_what_cannot_be() -> None:
    con = m2mdb.connect(":memory:", autocommit=True)
    notes = con.create_collection("notes", "body TEXT, category TEXT")
    with pytest.raises(m2mdb.InterfaceError, match="classes are list"):
        m2mdb.Categories(["a"])  # type: ignore[arg-type]
    with pytest.raises(m2mdb.InterfaceError, match="class 'a'"):
        m2mdb.Categories({"a": "word"})
    with pytest.raises(m2mdb.ProgrammingError, match=r"'\.\.\.' has no word"):
        m2mdb.Categories({"a": ["..."]})
    with pytest.raises(m2mdb.ProgrammingError, match="not k1"):
        m2mdb.Categories({}, k1=1)
    with pytest.raises(m2mdb.ProgrammingError, match="margin is 3"):
        m2mdb.Categories({}, margin=3)
    with pytest.raises(m2mdb.ProgrammingError, match="no such column: kind"):
        notes.add({"body": ["x"]}, categories=m2mdb.Categories({}, column="kind"))
    with pytest.raises(m2mdb.ProgrammingError, match="no such column: kind"):
        notes.categorise(m2mdb.Categories({}, column="kind"))
    with pytest.raises(m2mdb.ProgrammingError, match="exactly one VECTOR"):
        m2mdb.Categories({}).learn_from(notes)
    with pytest.raises(m2mdb.DataError, match="finite"):
        m2mdb.Categories({}).learn_vectors([[float("nan")]], ["a"])
    assert notes.count() == 0


def test_the_awaitable_twin() -> None:
    async def run() -> dict[str, int]:
        async with aio.connect(":memory:", autocommit=True) as con:
            notes = await con.create_collection("notes", "body TEXT, category TEXT")
            await notes.add({"body": ["Call me", "x"]}, categories=m2mdb.Categories(CLASSES))
            return await notes.categorise(m2mdb.Categories({}, default="rest"))

    assert asyncio.run(run()) == {"rest": 1}
