"""A prepared search says what the search by steps says, to the bit, whatever happened before.

The steps (`nearest_by_steps`) are themselves held to the exact scores of every row elsewhere.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import m2mdb
from m2mdb.compute.loader import LOADER
from m2mdb.compute.numba_backend import NumbaBackend
from m2mdb.index import hrm2
from m2mdb.searching import NearShape
from tests.hrm2.conftest import make_small

Array = np.ndarray[Any, Any]
METRICS = ("cosine", "ip", "l2")
DTYPES = ("f32", "f16", "i8")
DIMENSION = 19
SEED = 20261121


@pytest.fixture(autouse=True, scope="module")
def kernels() -> None:
    assert LOADER.wait(300), LOADER.error


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of a few hundred rows get lists, which are searched whatever they cost."""
    make_small(monkeypatch)
    monkeypatch.setattr(hrm2, "LEAST_ROWS", 600)


def shown(hits: m2mdb.Hits) -> tuple[Any, ...]:
    return (
        hits.ids.tolist(), hits.ids.dtype, hits.scores.tobytes(), hits.scores.dtype, hits.keys(),
        [[plain(value) for value in hit] for hit in hits], [hit.id for hit in hits],
    )  # fmt: skip


def plain(value: Any) -> Any:
    return value.tobytes() if isinstance(value, np.ndarray) else value


def by_steps(monkeypatch: pytest.MonkeyPatch, search: Any) -> Any:
    """What a search gives where nothing is prepared."""
    with monkeypatch.context() as patch:
        patch.setattr(NumbaBackend, "ranking", lambda self: None)
        patch.setattr(NearShape, "hits_at_once", lambda self, connection, near: None)
        return search()


class Notes:
    """A collection that random statements change, and random searches of it."""

    def __init__(self, path: Path, metric: str, dtype: str, key: str, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.path = str(path / f"{metric}{dtype}{key}.m2m")
        self.dtype = dtype
        self.is_text = key == "TEXT"
        self.con = m2mdb.connect(self.path, autocommit=True)
        self.con.execute("PRAGMA keep_commits = 40")
        self.con.execute(
            f"CREATE COLLECTION notes (id {key} PRIMARY KEY, n INTEGER, word TEXT, "
            f"e VECTOR({DIMENSION}, {dtype}) METRIC {metric})"
        )
        self.con.execute("CREATE INDEX near ON notes USING hrm2 (e)")
        self.other = m2mdb.connect(self.path, autocommit=True)
        self.next = 0
        self.old: list[Array] = []

    def close(self) -> None:
        self.other.close()
        self.con.close()

    def vectors(self, count: int) -> Array:
        """Random ones, a few of them twice, some near to others."""
        found = self.rng.standard_normal((count, DIMENSION)) * 8
        if self.old:
            stored = self.old[int(self.rng.integers(len(self.old)))]
            again = self.rng.integers(0, count, count // 4)
            found[again] = stored[self.rng.integers(0, len(stored), len(again))]
        if self.dtype == "i8":
            found = np.clip(np.rint(found), -127, 127)
            found[np.abs(found).sum(axis=1) == 0, 0] = 1
        self.old.append(found)
        kinds = {"f32": np.float32, "f16": np.float16, "i8": np.int8}
        return found.astype(kinds[self.dtype])

    def add(self, con: m2mdb.Connection, count: int) -> None:
        numbers = list(range(self.next, self.next + count))
        self.next += count
        vectors: list[Any] = list(self.vectors(count))
        for at in self.rng.integers(0, count, count // 10).tolist():
            vectors[at] = None
        ids = [f"id{n}" for n in numbers] if self.is_text else numbers
        words: list[Any] = [None if n % 7 == 0 else f"w{n % 5}" for n in numbers]
        con.collection("notes").add({"id": ids, "n": numbers, "word": words, "e": vectors})

    def change(self, con: m2mdb.Connection) -> None:
        """One random statement."""
        low = int(self.rng.integers(0, max(1, self.next)))
        kind = self.rng.random()
        if kind < 0.45 or self.next < 50:
            self.add(con, int(self.rng.choice([1, 3, 30, 200])))
        elif kind < 0.6:
            self.add(con, int(self.rng.choice([520, 700])))
        elif kind < 0.75:
            con.execute("DELETE FROM notes WHERE n BETWEEN ? AND ?", (low, low + 20))
        elif kind < 0.85:
            vector = self.vectors(1)[0]
            con.execute("UPDATE notes SET e = ? WHERE n BETWEEN ? AND ?", (vector, low, low + 3))
        elif kind < 0.92:
            con.execute("UPDATE notes SET e = NULL WHERE n = ?", (low,))
        else:
            con.execute("UPDATE notes SET word = 'changed' WHERE n > ?", (low,))

    def query(self) -> Array:
        found = self.rng.standard_normal(DIMENSION) * 8
        if self.old and self.rng.random() < 0.4:
            stored = self.old[int(self.rng.integers(len(self.old)))]
            found = stored[int(self.rng.integers(len(stored)))]
        vector: Array = found.astype(np.float32)
        return vector if vector.any() else np.ones_like(vector)

    def options(self) -> dict[str, Any]:
        """Random clauses of a search."""
        choice = self.rng.choice
        found: dict[str, Any] = {"k": int(choice([1, 3, 10, 10, 10, 40, 300, 5000]))}
        low = int(self.rng.integers(0, max(1, self.next)))
        more: list[dict[str, Any]] = [
            {}, {}, {}, {"exact": True}, {"recall": 0.5}, {"recall": 0.99}, {"probes": 2},
            {"where": "n % 3 = 0"}, {"where": "n > ?", "params": (low,)}, {"where": "n < 0"},
            {"where": "word = 'w3'", "probes": 3}, {"offset": 4}, {"min_score": 0.2},
            {"offset": 3, "min_score": 0.1, "returning": ["n", "score", "distance", "rank"]},
            {"returning": []}, {"returning": "rowid, word, e"}, {"returning": ["id", "bm25"]},
        ]  # fmt: skip
        return {**found, **more[int(self.rng.integers(len(more)))]}

    def check(self, monkeypatch: pytest.MonkeyPatch, searches: int = 6) -> None:
        notes = self.con.collection("notes")
        for _ in range(searches):
            query, options = self.query(), self.options()
            if self.rng.random() < 0.15 and not self.con.in_transaction:
                newest = self.con.commit_number
                options["as_of"] = max(0, newest - int(self.rng.integers(0, 30)))

            def search(query: Array = query, options: dict[str, Any] = options) -> Any:
                try:
                    return shown(notes.search(near=query, **options))
                except m2mdb.Error as error:
                    return repr(error)

            assert search() == by_steps(monkeypatch, search), options
            assert search() == search(), options
        queries = np.stack([self.query() for _ in range(4)])
        for options in ({}, {"exact": True}, {"where": "n % 2 = 0"}):

            def batch(options: dict[str, Any] = options) -> Any:
                ids, scores = notes.search_batch(queries, k=7, **options)
                return ids.tolist(), ids.dtype, scores.tobytes(), scores.shape

            assert batch() == by_steps(monkeypatch, batch)
        statement = "SEARCH notes NEAR ? K 8 RETURNING id, score, distance, n"

        def said() -> Any:
            return self.con.execute(statement, (queries[0],)).fetchall()

        assert said() == by_steps(monkeypatch, said)


CASES = [
    (*case, "TEXT" if number % 2 else "INTEGER")
    for number, case in enumerate(itertools.product(METRICS, DTYPES))
]


@pytest.fixture(params=CASES, ids="-".join)
def notes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Notes]:
    metric, dtype, key = request.param
    found = Notes(tmp_path, metric, dtype, key, SEED)
    yield found
    found.close()


def test_searches_agree_after_anything(notes: Notes, monkeypatch: pytest.MonkeyPatch) -> None:
    notes.check(monkeypatch)  # of nothing
    for turn in range(14):
        kind = notes.rng.random()
        if kind < 0.25:
            notes.change(notes.other)  # another connection commits
            notes.check(monkeypatch)
        elif kind < 0.5:
            notes.con.execute("BEGIN")
            notes.check(monkeypatch, 2)
            for _ in range(2):
                notes.change(notes.con)
                notes.check(monkeypatch, 3)  # of rows that are not committed
            notes.con.execute("ROLLBACK" if kind < 0.35 else "COMMIT")
            notes.check(monkeypatch, 3)
        else:
            notes.change(notes.con)
            notes.check(monkeypatch, 3)
        if turn == 9:
            notes.con.execute("OPTIMIZE notes")
            notes.check(monkeypatch)


def test_a_search_sees_what_another_connection_committed_just_before(tmp_path: Path) -> None:
    notes = Notes(tmp_path, "cosine", "f32", "INTEGER", SEED)
    notes.add(notes.con, 900)
    mine = notes.con.collection("notes")
    for turn in range(30):
        vector = np.zeros(DIMENSION, np.float32)
        vector[turn % DIMENSION] = 1
        vector[(turn + 1) % DIMENSION] = turn
        mine.search(near=vector, k=1)
        key = 10_000 + turn

        notes.other.execute("INSERT INTO notes VALUES (?, 0, '', ?)", (key, vector))

        assert mine.search(near=vector, k=1, returning=[]).ids.tolist() == [key]
        notes.other.execute("DELETE FROM notes WHERE id = ?", (key,))
        assert key not in mine.search(near=vector, k=10, returning=[]).ids
    notes.close()


def test_a_column_that_older_rows_are_without_is_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = Notes(tmp_path, "cosine", "f32", "INTEGER", SEED)
    notes.add(notes.con, 700)
    notes.con.execute("ALTER COLLECTION notes ADD COLUMN other VECTOR(2)")
    mine, rows = notes.con.collection("notes"), np.eye(2, dtype=np.float32)
    assert len(mine.search(near={"other": rows[0]}, k=5)) == 0
    mine.add({"id": [90_000, 90_001], "other": rows})

    def search() -> Any:
        return shown(mine.search(near={"other": rows[1]}, k=5, returning="n, score"))

    assert mine.search(near={"other": rows[1]}, k=5).ids.tolist() == [90_001, 90_000]
    assert search() == by_steps(monkeypatch, search)
    notes.close()


def test_a_search_that_is_kept_notices_another_schema(tmp_path: Path) -> None:
    notes = Notes(tmp_path, "cosine", "f32", "INTEGER", SEED)
    notes.add(notes.con, 50)
    mine, vector = notes.con.collection("notes"), np.ones(DIMENSION, np.float32)
    assert mine.search(near=vector, k=3).keys() == ["id", "n", "word", "score"]
    assert mine.search(near=vector, k=3, returning="word").keys() == ["word"]

    notes.other.execute("ALTER COLLECTION notes RENAME COLUMN word TO noun")

    assert mine.search(near=vector, k=3).keys() == ["id", "n", "noun", "score"]
    with pytest.raises(m2mdb.ProgrammingError, match="word"):
        mine.search(near=vector, k=3, returning="word")
    notes.other.execute("DROP COLLECTION notes")
    with pytest.raises(m2mdb.ProgrammingError, match="notes"):
        mine.search(near=vector, k=3)
    notes.other.execute("CREATE COLLECTION notes (e VECTOR(2) METRIC l2)")
    with pytest.raises(m2mdb.DataError, match="2"):
        mine.search(near=vector, k=3)
    mine.add({"e": np.eye(2, dtype=np.float32)})
    assert mine.search(near=vector[:2], k=3).ids.tolist() == [1, 2]
    notes.close()


@pytest.mark.parametrize(
    "clauses",
    [{"k": 0}, {"k": True}, {"k": -1}, {"offset": -1}, {"probes": 0}, {"recall": 0.0},
     {"recall": 1.5}, {"min_score": float("nan")}, {"returning": ["none"]}, {"returning": [1]},
     {"near": {"n": 1}}, {"near": {"word": "x"}}, {"near": None}, {"near": {"e": None}}],
)  # fmt: skip
def test_wrong_clauses_are_refused_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clauses: dict[str, Any]
) -> None:
    notes = Notes(tmp_path, "cosine", "f32", "INTEGER", SEED)
    notes.add(notes.con, 20)
    mine = notes.con.collection("notes")
    options = {"near": np.ones(DIMENSION, np.float32), **clauses}

    def search() -> str:
        with pytest.raises(m2mdb.Error) as caught:
            mine.search(**options)
        return repr(caught.value)

    mine.search(near=np.ones(DIMENSION, np.float32), k=1)
    assert search() == search() == by_steps(monkeypatch, search)
    assert len(mine.search(near=np.ones(DIMENSION, np.float32), k=1)) == 1
    notes.close()


def test_a_statement_searches_what_it_has_written_itself(tmp_path: Path) -> None:
    notes = Notes(tmp_path, "cosine", "f32", "INTEGER", SEED)
    notes.add(notes.con, 30)
    database, vector = notes.con.engine(), np.arange(1, DIMENSION + 1, dtype=np.float32)
    columns = {"id": [500], "n": [1], "word": [""], "e": vector[None]}
    with database.writing() as view:

        def nearest() -> list[int]:
            collection = view.collection("notes")
            found = collection.nearest(3, vector, 1, database.kernels)
            return [int(rowid) for rowid in found.rowids]

        assert nearest() != [500]
        view.insert("notes", columns, 1)
        assert nearest() == [500]
        view.delete("notes", [500])
        assert nearest() != [500]
    notes.close()


def test_a_damaged_vector_is_told_when_it_is_a_candidate(tmp_path: Path) -> None:
    notes = Notes(tmp_path, "cosine", "f32", "INTEGER", SEED)
    rows = np.random.default_rng(1).standard_normal((4000, DIMENSION)).astype(np.float32)
    rows[:, 0] += np.where(np.arange(4000) < 2000, 30, -30)  # no candidate of one half is another's
    mine = notes.con.collection("notes")
    mine.add({"id": np.arange(4000), "e": rows})
    found = [mine.search(near=row, k=1, returning=[]).ids[0] for row in rows[:1000]]
    notes.close()
    whole = Path(notes.path).read_bytes()
    at = whole.index(rows[3900].tobytes())
    Path(notes.path).write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])

    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    nearest = np.argsort(-(unit[:1000] @ unit.T), axis=1)[:, :16]  # more than are candidates
    is_far = (nearest < 3000).all(axis=1)  # from the damaged block
    far = int(np.flatnonzero(is_far & (found == np.arange(1000)))[0])

    with m2mdb.connect(notes.path) as con:
        mine = con.collection("notes")
        assert mine.search(near=rows[far], k=1, returning=[]).ids.tolist() == [far]
        with pytest.raises(m2mdb.CorruptDatabaseError, match="checksum"):
            mine.search(near=rows[3900], k=1, returning=[])
        assert mine.search(near=rows[far], k=1, returning=[]).ids.tolist() == [far]


def test_a_transaction_searches_its_own_snapshot(tmp_path: Path) -> None:
    notes = Notes(tmp_path, "ip", "f32", "INTEGER", SEED)
    notes.add(notes.con, 900)
    mine, vector = notes.con.collection("notes"), np.ones(DIMENSION, np.float32) * 100
    before = mine.search(near=vector, k=5).ids.tolist()
    notes.con.execute("BEGIN")
    assert mine.search(near=vector, k=5).ids.tolist() == before

    notes.other.execute("INSERT INTO notes VALUES (99999, 0, '', ?)", (vector,))

    assert mine.search(near=vector, k=5).ids.tolist() == before
    notes.con.execute("COMMIT")
    assert mine.search(near=vector, k=5).ids[0] == 99999
    notes.close()


@pytest.mark.parametrize("metric", METRICS)
def test_a_query_beyond_float32_when_squared_gives_its_answer_without_a_warning(
    metric: str,
) -> None:
    """Programs turn NumPy's warnings into errors; a search is not to be ended by them."""
    rows = np.random.default_rng(SEED).standard_normal((700, DIMENSION)).astype(np.float32)
    query = rows[3] * np.float32(1e37)
    with m2mdb.connect(":memory:") as con:
        notes = con.create_collection("notes", {"e": f"VECTOR({DIMENSION}) METRIC {metric}"})
        notes.add({"e": rows})
        with np.errstate(all="raise"):
            found = notes.search(near=query, k=5)
            ids, scores = notes.search_batch(near=query[None], k=5)
        exact = notes.search(near=query, k=5, exact=True)
    assert found.ids.tolist() == exact.ids.tolist() == ids[0].tolist()
    assert found.scores.tolist() == exact.scores.tolist() == scores[0].tolist()
