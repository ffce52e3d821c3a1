"""Lists of float16 and int8 columns have no 8-bit codes: rows are compared by their vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import m2mdb
from m2mdb.index import hrm2
from tests.hrm2.conftest import clustered, like_stored

DTYPES = {"f16": np.float16, "i8": np.int8}
CASES = [(dtype, metric) for dtype in DTYPES for metric in ("cosine", "ip", "l2")]


def filled(path: Path, dtype: str, metric: str) -> tuple[m2mdb.Connection, np.ndarray]:
    """1,200 rows with lists, a few without a vector, and queries."""
    rows = np.clip(np.rint(clustered(1400) * 9), -127, 127).astype(DTYPES[dtype])
    vectors: list[Any] = list(rows[:1200])
    vectors[7] = vectors[700] = None
    con = m2mdb.connect(path, autocommit=True)
    con.execute(f"CREATE COLLECTION n (id INTEGER PRIMARY KEY, e VECTOR({rows.shape[1]}, {dtype}) "
                f"METRIC {metric})")  # fmt: skip
    con.execute("CREATE INDEX near ON n USING hrm2 (e)")
    con.collection("n").add({"id": np.arange(1200), "e": vectors})
    return con, rows[1200:]


def recall(con: m2mdb.Connection, queries: np.ndarray) -> float:
    notes, shared = con.collection("n"), 0
    for query in queries:
        exact = notes.search(near=query, k=10, exact=True).ids.tolist()
        shared += len(set(notes.search(near=query, k=10).ids.tolist()) & set(exact))
    return shared / (10 * len(queries))


def parts_of(con: m2mdb.Connection) -> set[str]:
    with con.engine().reading() as view:
        names = [name for each in view.collection("n").segments for name, _ in each.names()]
    return {name for name in names if name.startswith("h.")}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("dtype", "metric"), CASES)
def test_rows_are_found_by_their_own_vectors(dtype: str, metric: str, tmp_path: Path) -> None:
    con, more = filled(tmp_path / "a.m2m", dtype, metric)
    queries = like_stored(more.astype(np.float32), 30)
    assert "h.codes" in parts_of(con) and not parts_of(con) & {"h.bytes8", "h.scales"}
    assert recall(con, queries) >= 0.9

    notes = con.collection("n")
    notes.delete(list(range(100, 200)))
    notes.add({"id": np.arange(2000, 2200), "e": more})
    for start in range(3000, 3600, 200):  # which a merge absorbs
        notes.add({"id": np.arange(start, start + 200), "e": more[::-1]})
    con.close()
    con = m2mdb.connect(tmp_path / "a.m2m", autocommit=True)

    assert recall(con, queries) >= 0.9
    assert not parts_of(con) & {"h.bytes8", "h.scales"}
    ids, _ = con.collection("n").search_batch(queries, k=10)
    alone = [con.collection("n").search(near=query, k=10).ids.tolist() for query in queries]
    assert ids.tolist() == alone
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    con.close()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("dtype", "metric"), CASES)
def test_lists_of_older_files_are_searched_and_absorbed(
    dtype: str, metric: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr(hrm2, "in_place", lambda column, values: None)
        con, more = filled(tmp_path / "a.m2m", dtype, metric)
        con.close()
    con = m2mdb.connect(tmp_path / "a.m2m", autocommit=True)
    queries = like_stored(more.astype(np.float32), 30)
    assert {"h.bytes8", "h.scales"} <= parts_of(con)
    assert recall(con, queries) >= 0.9

    con.collection("n").add({"id": np.arange(2000, 2200), "e": more})
    con.collection("n").add({"id": np.arange(3000, 3400), "e": np.concatenate((more, more))})

    assert recall(con, queries) >= 0.9
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    con.execute("OPTIMIZE")
    assert not parts_of(con) & {"h.bytes8", "h.scales"}
    assert recall(con, queries) >= 0.9
    con.close()
