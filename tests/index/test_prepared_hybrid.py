"""A hybrid search in compiled calls says what plain Python says of its sides, to the bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import m2mdb
from m2mdb.compute import text_backend
from m2mdb.compute.backend import choose
from m2mdb.compute.loader import LOADER
from m2mdb.compute.numba_backend import NumbaBackend
from m2mdb.query.fusion import Side, fuse
from tests.hrm2.conftest import make_small

Array = np.ndarray[Any, Any]
DIMENSION, SEED = 16, 20261121
WORDS = [f"w{n}" for n in range(40)]
DEPTH = 100


@pytest.fixture(autouse=True, scope="module")
def kernels() -> Any:
    assert LOADER.wait(300), LOADER.error
    found = text_backend.text_kernels(choose(), 1)
    assert found is not None
    return found.search


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch)


def reference(near: list[int], words: list[int]) -> list[tuple[float, int]]:
    """Reciprocal ranks as one writes them: (score, rowid), best first."""
    scores: dict[int, float] = {}
    for side in (near, words):
        for rank, row in enumerate(side, 1):
            scores[row] = scores.get(row, 0.0) + 1.0 / (60 + rank)
    return sorted(((score, row) for row, score in scores.items()), key=lambda x: (-x[0], x[1]))


sides = st.lists(st.integers(-(2**62), 2**62) | st.integers(0, 300), unique=True, max_size=256)
weights = st.sampled_from([0.0, 0.25, 1.0, 3.0])


@settings(max_examples=150, deadline=None)
@given(sides, sides, st.sampled_from([0.0, 1.0, 60.0]), weights, weights, st.integers(1, 300))
def test_ranks_are_fused_as_by_numpy(
    near: list[int], words: list[int], k: float, vector: float, text: float, most: int
) -> None:
    kernels = text_backend.loaded()
    assert kernels is not None
    wanted = fuse(
        "rrf",
        Side(np.array(near, np.int64), np.empty(len(near), np.float32)),
        Side(np.array(words, np.int64), np.empty(len(words), np.float32)),
        {"k": k, "vector": vector, "text": text},
    ).take(slice(0, most))
    rows, scores = np.empty((3, most), np.int64), np.empty(most)
    room = np.empty(3 * 512, np.int64)
    count = kernels.fusion.fuse_ranks(
        np.array(near, np.int64), np.array(words, np.int64), np.array([k, vector, text]), room,
        rows, scores,
    )  # fmt: skip
    assert rows[0, :count].tolist() == wanted.rowids.tolist()
    assert scores[:count].tobytes() == wanted.scores.tobytes()
    assert rows[1, :count].tolist() == wanted.vector_places.tolist()
    assert rows[2, :count].tolist() == wanted.text_places.tolist()


class Notes:
    """Rows in segments with lists and a delta; some have no vector, some no text."""

    def __init__(self, path: Path, key: str) -> None:
        self.rng = np.random.default_rng(SEED)
        self.path = str(path / f"{key}.m2m")
        self.con = m2mdb.connect(self.path, autocommit=True)
        self.con.execute(
            f"CREATE COLLECTION notes (id {key} PRIMARY KEY, body TEXT FULLTEXT, "
            f"e VECTOR({DIMENSION}))"
        )
        self.con.execute("CREATE INDEX near ON notes USING hrm2 (e)")
        self.notes = self.con.collection("notes")
        self.is_text = key == "TEXT"
        self.next = 0

    def add(self, count: int) -> None:
        ids = list(range(self.next, self.next + count))
        self.next += count
        vectors: list[Any] = list(self.rng.standard_normal((count, DIMENSION)).astype(np.float32))
        texts: list[Any] = [self.text() for _ in ids]
        for at in self.rng.integers(0, count, count // 9).tolist():
            vectors[at] = None
        for at in self.rng.integers(0, count, count // 9).tolist():
            texts[at] = None
        names = [f"id{n}" for n in ids] if self.is_text else ids
        self.notes.add({"id": names, "body": texts, "e": vectors})

    def text(self) -> str:
        picks = np.minimum(self.rng.zipf(1.3, 6), len(WORDS)) - 1
        return " ".join(WORDS[at] for at in picks.tolist())

    def delete(self, count: int) -> None:
        low = int(self.rng.integers(0, self.next))
        ids = range(low, low + count)
        self.notes.delete([f"id{n}" for n in ids] if self.is_text else list(ids))


@pytest.fixture(params=["INTEGER", "TEXT"])
def notes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Notes]:
    found = Notes(tmp_path, request.param)
    found.add(2100)
    found.delete(60)
    found.add(30)
    yield found
    found.con.close()


def shown(hits: m2mdb.Hits) -> Any:
    return hits.ids.tolist(), hits.scores.tobytes(), hits.keys(), [tuple(hit) for hit in hits]


def test_exact_sides_are_fused_as_plain_python_fuses_them(notes: Notes) -> None:
    """Before and after a reopen, of committed rows and inside a transaction."""
    for turn in range(40):
        if turn == 20:
            notes.con.close()
            notes.con = m2mdb.connect(notes.path, autocommit=True)
            notes.notes = notes.con.collection("notes")
        if turn == 30:
            notes.con.execute("BEGIN")
            notes.add(40)
            notes.delete(30)
        near = notes.rng.standard_normal(DIMENSION).astype(np.float32)
        text, search = notes.text(), notes.notes.search
        sides = [
            search(near=near, exact=True, k=DEPTH, returning=["rowid"]),
            search(match=text, k=DEPTH, returning=["rowid"]),
        ]
        wanted = reference(*[[row[0] for row in hits] for hits in sides])[3:15]
        hits = search(
            near=near, match=text, exact=True, k=12, offset=3, returning=["score", "rowid", "rank"]
        )
        assert [tuple(hit) for hit in hits] == [
            (score, row, rank) for rank, (score, row) in enumerate(wanted, 4)
        ]
    notes.con.execute("ROLLBACK")


def test_compiled_calls_say_what_the_steps_say(
    notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = notes.rng
    for turn in range(60):
        if turn % 10 == 5:
            notes.add(15)
            notes.delete(5)
        near: Any = rng.standard_normal(DIMENSION).astype(np.float32)
        text: Any = [notes.text(), '"w0 w1" +w2', "w1*", "nothing", ""][int(rng.choice(5, p=[
            0.6, 0.1, 0.1, 0.1, 0.1]))]  # fmt: skip
        if rng.random() < 0.3:
            near, text = {"e": near.tolist()}, {"body": text}
        options: dict[str, Any] = {
            "k": int(rng.integers(1, 30)), "offset": int(rng.choice([0, 0, 1, 5])),
            "recall": [None, 0.8, 0.99][int(rng.integers(3))],
            "fusion": [None, "rrf"][int(rng.integers(2))],
            "min_score": [None, None, 0.0125][int(rng.integers(3))],
            "returning": [None, [], ["id"], "body, e, score", ["rowid", "rank"], ["distance"],
                          ["bm25", "id"]][int(rng.integers(7))],
        }  # fmt: skip

        def search(near: Any = near, text: Any = text, options: dict[str, Any] = options) -> Any:
            hits = notes.notes.search(near=near, match=text, **options)
            rows = [[np.asarray(value, object).tolist() for value in hit] for hit in hits]
            return hits.ids.tolist(), hits.scores.tobytes(), hits.keys(), rows

        found = search()
        with monkeypatch.context() as patch:
            patch.setattr(NumbaBackend, "ranking", lambda self: None)
            assert repr(search()) == repr(found), (text, options)


def test_what_is_wrong_is_told_as_by_steps(notes: Notes) -> None:
    vector = np.ones(DIMENSION, np.float32)
    wrong: list[tuple[Any, Any, dict[str, Any], type[Exception]]] = [
        (vector[:3], "w1", {}, m2mdb.DataError),
        (vector * np.nan, "w1", {}, m2mdb.DataError),
        (vector * 0, "w1", {}, m2mdb.DataError),
        (vector, 5, {}, m2mdb.InterfaceError),
        (vector, '"open', {}, m2mdb.ProgrammingError),
        (vector, {"e": "w1"}, {}, m2mdb.ProgrammingError),
        ({"body": vector}, "w1", {}, m2mdb.ProgrammingError),
        (vector, "w1", {"k": 0}, m2mdb.ProgrammingError),
        (vector, "w1", {"recall": 2.0}, m2mdb.ProgrammingError),
        (vector, "w1", {"returning": ["none"]}, m2mdb.ProgrammingError),
        (vector, "w1", {"fusion": "none"}, m2mdb.ProgrammingError),
    ]
    for near, match, options, error in wrong:
        with pytest.raises(error):
            notes.notes.search(near=near, match=match, **options)
    assert len(notes.notes.search(near=vector, match="w1")) == 10


def test_another_connections_commit_is_seen(notes: Notes) -> None:
    vector = np.full(DIMENSION, 9, np.float32)
    notes.notes.search(near=vector, match="unheard", returning=[])
    key: Any = "new" if notes.is_text else 999_999
    with m2mdb.connect(notes.path, autocommit=True) as other:
        other.collection("notes").add({"id": key, "body": "unheard of", "e": vector})
    assert notes.notes.search(near=vector, match="unheard", k=1).ids.tolist() == [key]
