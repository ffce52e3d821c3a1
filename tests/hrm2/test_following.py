"""Lists of a file follow rows that lie elsewhere and elsewhere; undone, reopened, forgotten."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import m2mdb
from m2mdb.compute.hrm2 import following
from m2mdb.compute.hrm2.absorbing import decoded_centers, mean_square
from m2mdb.index import absorbing
from tests.hrm2.conftest import DIMENSION, filled, found, lists_of, recall, segment_lists

COUNT, STEP = 1200, 150
PACE = 0.03  # by which each coordinate of a centre moves in a step, at most


class Stream:
    """Rows around centres that move, the oldest of which are deleted."""

    def __init__(self, metric: str = "cosine") -> None:
        rng = np.random.default_rng(5)
        self.metric = metric
        self.centers = 3 * rng.standard_normal((12, DIMENSION))
        self.ways = rng.uniform(-1, 1, self.centers.shape)
        self.rng = np.random.default_rng(6)
        self.steps = 0
        self.rows = self.some(COUNT)

    def some(self, count: int) -> np.ndarray:
        labels = self.rng.integers(0, len(self.centers), count)
        at = self.centers + 3 * PACE * self.steps * self.ways
        rows: np.ndarray = at[labels] + 0.5 * self.rng.standard_normal((count, DIMENSION))
        return rows.astype(np.float32)

    def opened(self, path: Path, dtype: str = "f32") -> m2mdb.Connection:
        kind = {"f32": np.float32, "f16": np.float16, "i8": np.int8}[dtype]
        return filled(path, self.stored(self.rows, kind), f"METRIC {self.metric}")

    @staticmethod
    def stored(rows: np.ndarray, kind: type) -> np.ndarray:
        return (
            np.clip(np.rint(9 * rows), -127, 127).astype(kind)
            if kind is np.int8
            else (rows.astype(kind))
        )

    def step(self, con: m2mdb.Connection, kind: type = np.float32) -> None:
        self.steps += 1
        came = self.some(STEP)
        first = (self.steps - 1) * STEP
        ids = np.arange(first + COUNT, first + COUNT + STEP)
        notes = con.collection("notes")
        notes.add({"id": ids, "n": ids, "v": self.stored(came, kind)})
        notes.delete(list(range(first, first + STEP)))
        self.rows = np.concatenate((self.rows[STEP:], came))


def centroids(con: m2mdb.Connection) -> list[bytes]:
    return [decoded_centers(each.lists).tobytes() for each in segment_lists(con)]


def error(con: m2mdb.Connection) -> float:
    """The mean squared distance of rows from their centroids, in the largest segment."""
    with con.engine().reading() as view:
        collection = view.collection("notes")
        column = collection.schema.columns[collection.schema.column("v")]
        largest = max(collection.segments, key=lambda each: each.rows)
        listed = largest.lists(column)
    assert listed is not None
    return mean_square(listed.lists)


def is_sound(con: m2mdb.Connection) -> bool:
    return con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("metric", "dtype"),
    [("cosine", "f32"), ("ip", "f16"), ("l2", "i8")],
)
def test_a_stream_that_moves_is_found_as_in_a_new_file(
    tmp_path: Path, metric: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m2mdb.index.drift.ALARM", 1e9)  # which would keep rows apart
    kind = {"f32": np.float32, "f16": np.float16, "i8": np.int8}[dtype]
    errors = []
    for share in (0.1, 2.0):
        monkeypatch.setattr(following, "SHARE", share)
        stream = Stream(metric)
        con = stream.opened(tmp_path / f"{share}.m2m", dtype)
        for number in range(16):  # two turn-overs
            stream.step(con, kind)
            if number % 8 == 7:
                assert is_sound(con)
        queries = stream.some(40)
        assert len(lists_of(con)) == 1
        assert recall(con, queries, 10) >= 0.93
        errors.append(error(con))
        con.execute("OPTIMIZE")
        errors.append(error(con))
        con.close()
    followed, fresh, stayed, _ = errors
    assert followed < 1.25 * fresh
    assert stayed > 1.25 * followed


@pytest.mark.usefixtures("tiny")
def test_centroids_are_the_same_again_after_a_rollback_and_in_another_file(
    tmp_path: Path,
) -> None:
    stream, other = Stream(), Stream()
    con, twin = stream.opened(tmp_path / "a.m2m"), other.opened(tmp_path / "b.m2m")
    for each, rows in ((con, stream), (twin, other)):
        for _ in range(6):
            rows.step(each)
    before = centroids(con)
    assert before == centroids(twin)
    con.execute("BEGIN")
    for _ in range(6):
        stream.step(con)
    assert centroids(con) != before
    con.execute("ROLLBACK")
    assert centroids(con) == before
    assert is_sound(con)
    queries = stream.some(10)
    answers = [found(con, query, k=10) for query in queries]
    con.close()
    again = m2mdb.connect(str(tmp_path / "a.m2m"), autocommit=True)
    assert centroids(again) == before
    assert [found(again, query, k=10) for query in queries] == answers
    assert [found(twin, query, k=10) for query in queries] == answers
    again.close()
    twin.close()


@pytest.mark.usefixtures("tiny")
def test_the_past_keeps_its_centroids_and_copies_have_them(tmp_path: Path) -> None:
    stream = Stream()
    con = stream.opened(tmp_path / "m.m2m")
    con.execute("PRAGMA keep_commits = 1000")
    (commit,) = con.execute("SELECT last_commit FROM m2m_stats").fetchone()
    queries = stream.some(10)
    exact = [found(con, query, k=10, exact=True) for query in queries]
    for _ in range(8):
        stream.step(con)
    assert [found(con, query, k=10, exact=True, as_of=commit) for query in queries] == exact
    assert recall(con, queries, 10, as_of=commit) >= 0.9
    con.backup(str(tmp_path / "same.m2m"))
    with m2mdb.connect(str(tmp_path / "same.m2m"), autocommit=True) as same:
        assert centroids(same) == centroids(con)
    con.execute("VACUUM INTO ?", (str(tmp_path / "copy.m2m"),))
    copy = m2mdb.connect(str(tmp_path / "copy.m2m"), autocommit=True)
    assert recall(copy, queries, 10) >= 0.93
    assert is_sound(copy)
    copy.close()
    con.close()


@pytest.mark.usefixtures("tiny")
def test_no_centroid_remembers_a_row_that_was_forgotten(tmp_path: Path) -> None:
    """A few rows far from the others pull a centroid; after FORGET nothing tells of them."""
    stream = Stream("l2")
    con = stream.opened(tmp_path / "m.m2m")
    far = np.zeros((12, DIMENSION), np.float32)
    far[:, 3] = 90 + np.arange(12)
    ids = np.arange(50_000, 50_012)
    con.collection("notes").add({"id": ids, "n": ids, "v": far})
    for _ in range(4):
        stream.step(con)
    assert largest_centroid(con) > 20
    con.execute("FORGET FROM notes WHERE id >= 50000")
    assert largest_centroid(con) < 20
    with con.engine().reading() as view:
        collection = view.collection("notes")
        column = collection.schema.columns[collection.schema.column("v")]
        assert not any(absorbing.is_changed(each, column) for each in collection.segments)
    assert is_sound(con)
    con.close()


def largest_centroid(con: m2mdb.Connection) -> float:
    return max(
        float(np.linalg.norm(np.frombuffer(raw, np.float32).reshape(-1, 64), axis=1).max())
        for raw in centroids(con)
    )
