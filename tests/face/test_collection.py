"""Collection: rows and searches as objects."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import m2mdb


def test_add_returns_keys(con: m2mdb.Connection, notes: m2mdb.Collection) -> None:
    ids = notes.add([{"id": "e", "body": "plum"}, {"id": "f", "stars": 7}])

    assert ids.tolist() == ["e", "f"]
    plain = con.create_collection("plain", {"a": "TEXT"})
    assert plain.add({"a": ["x", "y"]}).tolist() == [1, 2]
    assert plain.add({"a": "z"}).dtype == np.int64
    keyed = con.create_collection("keyed", {"id": "INTEGER PRIMARY KEY", "a": "TEXT"})
    assert keyed.add({"id": [7, 3], "a": ["x", "y"]}).tolist() == [7, 3]
    assert keyed.add({"a": "z"}).tolist() == [8]


def row_of(notes: m2mdb.Collection, key: str) -> m2mdb.Row:
    """A row that is there."""
    found = notes.get(key)
    assert isinstance(found, m2mdb.Row)
    return found


def test_add_takes_defaults(notes: m2mdb.Collection) -> None:
    notes.add({"id": "e"})
    notes.add([{"id": "f"}, {"id": "g", "topic": "t"}])

    found = notes.get(["e", "f", "g"])
    assert [row and row.topic for row in found] == ["none", "none", "t"]


def test_an_empty_batch_adds_nothing(notes: m2mdb.Collection) -> None:
    assert notes.add([]).tolist() == []
    assert notes.add({"id": []}).tolist() == []
    assert notes.count() == 4


def test_conflicts(notes: m2mdb.Collection) -> None:
    rows = {"id": ["a", "e"], "body": ["new", "new"]}
    with pytest.raises(m2mdb.IntegrityError, match="a"):
        notes.add(rows)
    assert notes.count() == 4

    notes.add(rows, on_conflict="ignore")
    assert (notes.count(), row_of(notes, "a").body) == (5, "red apple")

    notes.add(rows, on_conflict="replace")
    assert (notes.count(), row_of(notes, "a").body) == (5, "new")
    with pytest.raises(m2mdb.ProgrammingError, match="on_conflict is 'update'"):
        notes.add(rows, on_conflict="update")  # type: ignore[arg-type]


def test_get(notes: m2mdb.Collection) -> None:
    row = notes.get("c")

    assert isinstance(row, m2mdb.Row)
    assert (row.id, row["body"], row.stars) == ("c", "red cherry", 3)
    np.testing.assert_array_equal(row["embedding"], np.array([0.8, 0.6], np.float32))
    assert notes.get("nobody") is None
    found = notes.get(["d", "nobody", "a"])
    assert [row and row.id for row in found] == ["d", None, "a"]
    assert notes.get([]) == []


def test_get_by_rowid_where_there_is_no_key(con: m2mdb.Connection) -> None:
    plain = con.create_collection("plain", {"a": "TEXT"})
    ids = plain.add({"a": ["x", "y"]})

    assert plain.get(ids[1]).a == "y"
    assert plain.get(99) is None
    with pytest.raises(m2mdb.DataError, match="not an integer"):
        plain.get("x")


def test_update(notes: m2mdb.Collection) -> None:
    assert notes.update("a", {"body": "blue plum", "embedding": [0.0, -1.0]}) == 1
    assert notes.update("nobody", {"body": "x"}) == 0
    assert notes.update("a", {}) == 1

    assert row_of(notes, "a").body == "blue plum"
    assert notes.search(match="plum").ids.tolist() == ["a"]
    assert "a" not in notes.search(match="apple").ids
    assert notes.search(near=[0.0, -1.0], k=1).ids.tolist() == ["a"]
    with pytest.raises(m2mdb.ProgrammingError, match="title"):
        notes.update("a", {"title": "x"})
    with pytest.raises(m2mdb.InterfaceError, match="values are list"):
        notes.update("a", ["x"])  # type: ignore[arg-type]


def test_delete(notes: m2mdb.Collection) -> None:
    assert notes.delete("a") == 1
    assert notes.delete("a") == 0
    assert notes.delete(["b", "nobody", "b"]) == 1
    assert notes.delete(where="stars > ?", params=(2,)) == 1
    assert [hit.id for hit in notes.search(near=[1.0, 0.0])] == ["d"]
    with pytest.raises(m2mdb.ProgrammingError, match="delete takes ids or where"):
        notes.delete()
    assert notes.delete(where="true") == 1
    assert notes.count() == 0


def test_count(notes: m2mdb.Collection) -> None:
    assert len(notes) == notes.count() == 4
    assert notes.count("topic = ?", ("fruit",)) == 3
    assert bool(notes)


def test_vector_search(notes: m2mdb.Collection) -> None:
    hits = notes.search(near=[1.0, 0.0], k=3)

    assert hits.ids.tolist() == ["a", "c", "b"]
    np.testing.assert_allclose(hits.scores, [1.0, 0.8, 0.0], atol=1e-6)
    assert hits[0].id == "a"
    assert hits[0]["body"] == "red apple"
    assert hits[0].score == pytest.approx(1.0)
    assert len(hits) == 3
    assert hits.keys() == ["id", "body", "topic", "stars", "score"]


def test_text_search(notes: m2mdb.Collection) -> None:
    hits = notes.search(match="red banana")

    assert sorted(hits.ids) == ["a", "c", "d"]
    assert hits[0].id == "d"
    assert (np.diff(hits.scores) <= 0).all()


def test_hybrid_search_with_a_filter(notes: m2mdb.Collection) -> None:
    hits = notes.search(near=[1.0, 0.0], match="red", where="topic = ?", params=("fruit",), k=2)
    assert hits.ids.tolist() == ["a", "b"]

    hits = notes.search(near=[1.0, 0.0], match="red", where="stars IS NULL")
    assert hits.ids.tolist() == ["d"]


def test_a_filter_may_hold_a_subquery_and_names(notes: m2mdb.Collection) -> None:
    best = "stars = (SELECT max(stars) FROM notes WHERE topic = :topic)"

    for topic, ids in (("fruit", ["b"]), ("tree", ["c"]), ("none", [])):
        hits = notes.search(near=[1.0, 0.0], where=best, params={"topic": topic})
        assert hits.ids.tolist() == ids
    with pytest.raises(m2mdb.ProgrammingError):
        notes.search(near=[1.0, 0.0], where="stars = 1 RETURNING id")
    with pytest.raises(m2mdb.ProgrammingError):
        notes.search(near=[1.0, 0.0], where="")


@pytest.mark.parametrize("fusion", ["rrf", "weighted", "vector_only", "bm25_only"])
def test_collection_and_statement_agree(
    con: m2mdb.Connection, notes: m2mdb.Collection, fusion: str
) -> None:
    query = [0.6, 0.8]
    rows = con.execute(
        f"SEARCH notes NEAR ? MATCH ? K 3 FUSION {fusion} RETURNING id, score", (query, "red pear")
    ).fetchall()

    hits = notes.search(near=query, match="red pear", k=3, fusion=fusion)

    assert [(hit.id, hit.score) for hit in hits] == rows


def test_search_options(notes: m2mdb.Collection) -> None:
    query = [1.0, 0.0]

    assert notes.search(near=query, k=2, offset=1).ids.tolist() == ["c", "b"]
    assert notes.search(near=query, min_score=0.5).ids.tolist() == ["a", "c"]
    hits = notes.search(near=query, match="red", k=1, returning=["id", "distance", "bm25"])
    assert hits.keys() == ["id", "distance", "bm25"]
    assert hits[0].distance == pytest.approx(0.0, abs=1e-6)
    assert hits.scores.shape == (1,)
    assert notes.search(near=query, exact=True, recall=0.9, k=1).ids.tolist() == ["a"]
    with pytest.raises(m2mdb.ProgrammingError, match="RECALL and PROBES exclude each other"):
        notes.search(near=query, recall=0.9, probes=3)
    assert len(notes.search(match="nothing here")) == 0
    assert notes.search(match="").ids.tolist() == []


def test_hit_id_is_the_primary_key_or_the_rowid(con: m2mdb.Connection) -> None:
    other = con.create_collection("o", {"slug": "TEXT PRIMARY KEY", "v": "VECTOR(2)"})
    other.add({"slug": ["x", "y"], "v": np.eye(2)})
    plain = con.create_collection("p", {"v": "VECTOR(2)", "a": "TEXT"})
    plain.add({"v": np.eye(2), "a": ["x", "y"]})

    assert other.search(near=[0, 1], k=1)[0].id == "y"
    hits = plain.search(near=[0, 1], k=1)
    assert hits[0].id == 2
    assert hits.ids.dtype == np.int64


def test_hits_are_a_sequence(notes: m2mdb.Collection) -> None:
    hits = notes.search(near=[1.0, 0.0], k=4)

    assert [hit.id for hit in hits[1:3]] == hits.ids[1:3].tolist()
    assert hits[-1].id == "d"
    assert hits == notes.search(near=[1.0, 0.0], k=4)
    with pytest.raises(IndexError):
        hits[4]
    shown = repr(hits)
    assert shown.startswith("<m2mdb.Hits: 4 hits>")
    assert "1.0000  'a'  'red apple'" in shown
    frame = hits.df()
    assert isinstance(frame, pd.DataFrame)
    assert frame["id"].tolist() == hits.ids.tolist()


def test_search_batch(notes: m2mdb.Collection) -> None:
    ids, scores = notes.search_batch(near=[[1.0, 0.0], [0.0, 1.0]], k=2)

    assert ids.tolist() == [["a", "c"], ["b", "c"]]
    assert scores.shape == (2, 2)
    ids, scores = notes.search_batch(
        near=np.array([[1.0, 0.0]]), k=3, where="id = ?", params=("b",)
    )
    assert ids.tolist() == [["b", None, None]]
    assert np.isnan(scores[0, 1:]).all()
    ids, scores = notes.search_batch(match=["apple", "none of it"], k=1)
    assert ids.tolist() == [["a"], [None]]
    ids, _ = notes.search_batch(near=np.empty((0, 2)), k=3)
    assert ids.shape == (0, 3)


def test_search_batch_pads_integer_keys_with_minus_one(con: m2mdb.Connection) -> None:
    plain = con.create_collection("p", {"v": "VECTOR(2)"})
    plain.add({"v": np.eye(2)})

    ids, scores = plain.search_batch(near=[[1.0, 0.0]], k=4)

    assert ids.dtype == np.int64
    assert ids.tolist() == [[1, 2, -1, -1]]
    assert np.isnan(scores[0, 2:]).all()


def test_calls_join_an_open_transaction(con: m2mdb.Connection, notes: m2mdb.Collection) -> None:
    notes.add({"id": "e"})
    assert not con.in_transaction

    con.execute("BEGIN")
    notes.add({"id": "f", "body": "unseen fig"})
    assert notes.search(match="fig").ids.tolist() == ["f"]
    con.rollback()

    assert notes.count() == 5
    assert notes.search(match="fig").ids.tolist() == []


def test_all_types_come_back(con: m2mdb.Connection) -> None:
    every = con.create_collection(
        "every",
        {
            "i": "INTEGER",
            "r": "REAL",
            "t": "TEXT",
            "b": "BLOB",
            "o": "BOOLEAN",
            "w": "TIMESTAMP",
            "j": "JSON",
            "f": "VECTOR(2)",
            "h": "VECTOR(2, f16)",
            "y": "VECTOR(2, i8)",
        },
    )
    moment = datetime.datetime(2024, 5, 6, 7, 8, 9, 1234, tzinfo=datetime.UTC)
    row: dict[str, Any] = {
        "i": -(2**63), "r": 0.1, "t": "ä\0b", "b": b"\0\xff", "o": True, "w": moment,
        "j": {"a": [1, None]}, "f": [1.5, 2.5], "h": np.array([1.5, 2.5], np.float16),
        "y": np.array([-128, 7], np.int8),
    }  # fmt: skip

    rowid = every.add(row)[0]
    every.add({"i": None})
    found = every.get(rowid)

    assert isinstance(found, m2mdb.Row)
    assert (found.i, found.r, found.t, found.b, found.o) == (-(2**63), 0.1, "ä\0b", b"\0\xff", True)
    assert found.w == moment
    assert found.j.replace(" ", "") == '{"a":[1,null]}'
    assert [found[name].dtype.name for name in "fhy"] == ["float32", "float16", "int8"]
    assert found.y.tolist() == [-128, 7]
    assert list(every.get(int(rowid) + 1) or ()) == [None] * 10


def test_what_is_not_built_yet_says_so(notes: m2mdb.Collection) -> None:
    for call in (
        lambda: notes.search(near=[1.0, 0.0], score="splat"),
        lambda: notes.feedback(near=[1.0, 0.0], relevant=["a"]),
    ):
        with pytest.raises(m2mdb.NotSupportedError):
            call()


@pytest.fixture
def two(con: m2mdb.Connection) -> m2mdb.Collection:
    """Three rows with two texts and two vectors each."""
    collection = con.create_collection(
        "two",
        {
            "id": "INTEGER PRIMARY KEY",
            "title": "TEXT FULLTEXT",
            "body": "TEXT FULLTEXT",
            "v": "VECTOR(2)",
            "w": "VECTOR(3)",
        },
    )
    collection.add(
        {
            "id": [1, 2, 3],
            "title": ["red", "green", "blue"],
            "body": ["green", "blue", "red"],
            "v": np.array([[1, 0], [0, 1], [1, 1]], np.float32),
            "w": np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]], np.float32),
        }
    )
    return collection


def test_a_dict_of_one_names_the_column(two: m2mdb.Collection) -> None:
    assert two.search(near={"v": [0, 1]}, k=1).ids.tolist() == [2]
    assert two.search(near={"W": [1, 0, 0]}, k=1).ids.tolist() == [3]
    assert two.search(match={"title": "green"}).ids.tolist() == [2]
    assert two.search(match={"body": "green"}).ids.tolist() == [1]
    assert sorted(two.search(match="green").ids.tolist()) == [1, 2]
    hits = two.search(near={"w": [0, 0, 1]}, match={"body": "red"}, where="id > ?", params=(1,))
    assert hits.ids.tolist()[0] == 3
    ids, _ = two.search_batch(near={"v": [[0, 1], [1, 0]]}, k=1)
    assert ids.tolist() == [[2], [1]]
    ids, _ = two.search_batch(match={"title": ["red", "blue"]}, k=1)
    assert ids.tolist() == [[1], [3]]


def test_a_column_that_cannot_be_searched_is_named(two: m2mdb.Collection) -> None:
    wrong: list[tuple[dict[str, Any], type[m2mdb.Error], str]] = [
        ({"near": [1, 0]}, m2mdb.ProgrammingError, r'several .*\(v, w\).*near={"v": vector}'),
        ({"near": {"v": [1, 0], "w": [1, 0, 0]}}, m2mdb.ProgrammingError, r"2 columns \(v, w\)"),
        ({"near": {}}, m2mdb.ProgrammingError, "0 columns"),
        ({"near": {"x": [1, 0]}}, m2mdb.ProgrammingError, "x"),
        ({"near": {"title": [1, 0]}}, m2mdb.ProgrammingError, "TEXT column is no VECTOR"),
        ({"near": {1: [1, 0]}}, m2mdb.InterfaceError, "column 1 is int"),
        ({"near": {"v": None}}, m2mdb.InterfaceError, "None"),
        ({"near": {"w": [1, 0]}}, m2mdb.DataError, "NEAR w of two"),
        ({"match": {"v": "red"}}, m2mdb.ProgrammingError, "not FULLTEXT"),
        ({"match": {"title": "a", "body": "b"}}, m2mdb.ProgrammingError, "2 columns"),
    ]
    for arguments, error, words in wrong:
        with pytest.raises(error, match=words):
            two.search(**arguments)
    with pytest.raises(m2mdb.ProgrammingError, match="near="):
        two.search_batch(near=[[1, 0]])


def test_a_matrix_of_one_row_is_a_query(notes: m2mdb.Collection) -> None:
    assert notes.search(near=np.array([[0.0, 1.0]]), k=1).ids.tolist() == ["b"]
    with pytest.raises(m2mdb.DataError, match=r"\(2, 2\)"):
        notes.search(near=np.eye(2))


def test_where_is_text(notes: m2mdb.Collection) -> None:
    where: Any = {"topic": "fruit"}
    for call in (
        lambda: notes.search(match="red", where=where),
        lambda: notes.search_batch(match=["red"], where=where),
        lambda: notes.count(where=where),
        lambda: notes.delete(where=where),
    ):
        with pytest.raises(
            m2mdb.InterfaceError, match=r'where is dict.*where="topic = \?".*params'
        ):
            call()
    assert notes.count() == 4


@pytest.mark.parametrize("schema", [["id"], ["id TEXT"], [("id",)], {"id": str}, {"id": None}, 5])
def test_a_schema_without_declarations_is_refused(con: m2mdb.Connection, schema: Any) -> None:
    with pytest.raises(m2mdb.InterfaceError, match="schema of kw"):
        con.create_collection("kw", schema)
    with pytest.raises(m2mdb.ProgrammingError, match="needs a column"):
        con.create_collection("kw", {})
    assert con.collections() == []


def test_hits_without_columns_are_as_many_as_their_ids(notes: m2mdb.Collection) -> None:
    found = notes.search(near=[1.0, 0.0], k=2, returning=[])

    assert len(found) == len(found.ids) == len(found.scores) == 2
    assert [tuple(hit) for hit in found] == [(), ()]
    assert found[0].id == found.ids[0]


@pytest.mark.parametrize(
    "typed",
    ["dark - mode", "- item one", 'he said "dark', "3 * 4", "5^x", "a ~ b", "note +", "user:dark"],
)
def test_what_a_person_types_can_be_matched(tmp_path: Path, typed: str) -> None:
    con = m2mdb.connect(tmp_path / "a.m2m")
    con.execute("CREATE TABLE n (id INTEGER PRIMARY KEY, body TEXT FULLTEXT)")
    notes = con.collection("n")
    notes.add({"id": [1], "body": ["dark mode item one he said 3 4 5 x a b note user wi-fi"]})
    with pytest.raises(m2mdb.ProgrammingError):
        notes.search(match=typed)
    assert notes.search(match=m2mdb.match_text(typed)).ids.tolist() == [1]
    with pytest.raises(m2mdb.InterfaceError):
        m2mdb.match_text(None)  # type: ignore[arg-type]
    con.close()
