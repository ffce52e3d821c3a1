"""A mix of adds, deletes, updates, OPTIMIZE and reopening, against brute force over a dict."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import m2mdb
from tests.hrm2.conftest import DIMENSION, clustered, filled, lists_of

STEPS = 16


class Model:
    """What has to be there: the vector and the mark of each id."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.supply = clustered(12_000, seed=seed)
        self.rows: dict[int, tuple[np.ndarray, int]] = {}
        self.next = 0

    def fresh(self, count: int) -> dict[str, object]:
        """The columns of so many new rows."""
        ids = np.arange(self.next, self.next + count)
        self.next += count
        vectors = self.supply[self.rng.integers(0, len(self.supply), count)]
        marks = self.rng.integers(0, 100, count)
        for id_, vector, mark in zip(ids.tolist(), vectors, marks.tolist(), strict=True):
            self.rows[id_] = (vector, mark)
        return {"id": ids, "n": marks, "v": vectors}

    def best(self, query: np.ndarray, k: int, limit: int) -> dict[int, float]:
        """Scores of the k best ids with a mark below the limit."""
        ids = [id_ for id_, (_, mark) in self.rows.items() if mark < limit]
        if not ids:
            return {}
        matrix = np.stack([self.rows[id_][0] for id_ in ids]).astype(np.float64)
        scores = -np.sqrt(((matrix - query) ** 2).sum(axis=1))
        order = np.argsort(-scores, kind="stable")[:k]
        return {ids[i]: float(scores[i]) for i in order}


def step(con: m2mdb.Connection, model: Model) -> None:
    """One change, the same in both."""
    rng, notes = model.rng, con.collection("notes")
    kind = rng.choice(
        ["bulk", "few", "delete", "update", "optimize"], p=[0.25, 0.2, 0.25, 0.2, 0.1]
    )
    if kind == "bulk":
        notes.add(model.fresh(int(rng.integers(520, 900))))
    elif kind == "few":
        notes.add(model.fresh(int(rng.integers(1, 30))))
    elif kind == "delete":
        limit = int(rng.integers(0, 100))
        con.execute("DELETE FROM notes WHERE n = ?", (limit,))
        model.rows = {id_: row for id_, row in model.rows.items() if row[1] != limit}
    elif kind == "update":
        con.execute("BEGIN")
        for id_ in rng.choice(sorted(model.rows), 20).tolist():
            vector = model.supply[rng.integers(0, len(model.supply))]
            con.execute("UPDATE notes SET v = ? WHERE id = ?", (vector, id_))
            model.rows[id_] = (vector, model.rows[id_][1])
        con.execute("COMMIT")
    else:
        con.execute("OPTIMIZE")


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.usefixtures("small")
def test_searches_are_right_after_any_mix_of_changes(tmp_path: Path, seed: int) -> None:
    model = Model(seed)
    con = filled(tmp_path / "m.m2m", np.zeros((0, DIMENSION), np.float32), "METRIC l2")
    con.collection("notes").add(model.fresh(1500))
    shares: list[float] = []
    for number in range(STEPS):
        step(con, model)
        if number % 6 == 5:
            con.close()
            con = m2mdb.connect(str(tmp_path / "m.m2m"), autocommit=True)
        for limit in (100, 40, 3):
            query = model.supply[model.rng.integers(0, len(model.supply))] + np.float32(0.1)
            k = int(model.rng.choice([1, 10, 40]))
            hits = con.collection("notes").search(
                near=query, k=k, where="n < ?", params=(limit,), returning="id, distance"
            )
            best = model.best(query, k, limit)
            got = {row["id"]: row["distance"] for row in hits}
            assert len(got) == len(hits) == len(best)
            for id_, distance in got.items():
                vector, mark = model.rows[id_]
                assert mark < limit
                assert distance == pytest.approx(np.linalg.norm(vector - query), rel=1e-4)
            edge = min(best.values(), default=0.0) - 1e-5
            shares.append(np.mean([-distance >= edge for distance in got.values()]) if got else 1.0)
    assert np.mean(shares) >= 0.95
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert any(lists_of(con))
    con.close()
