"""Collections with lists, small enough to be built in a moment."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import m2mdb
from m2mdb.compute.hrm2 import calibration
from m2mdb.compute.loader import LOADER
from m2mdb.index import hrm2, list_counts, merge_policy
from m2mdb.index.hrm2 import SegmentLists

ROWS = 2000
DIMENSION = 24
COUNTS = (
    "STORED_QUERIES", "MADE_QUERIES", "HALVED_QUERIES", "FREE_QUERIES", "FILTERED_QUERIES",
    "LEAST_QUERIES", "NOISY_QUERIES",
)  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def kernels() -> None:
    """Lists are searched by compiled kernels alone."""
    assert LOADER.wait(300), LOADER.error


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of a few hundred rows get lists, and few queries measure them."""
    make_small(monkeypatch)


@pytest.fixture
def tiny(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few hundred changed rows are merged."""
    monkeypatch.setattr(merge_policy, "LEAST_CHANGED", 200)


def make_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hrm2, "LEAST_ROWS", 300)
    monkeypatch.setattr(hrm2, "LEAST_MEASURED", 300)
    monkeypatch.setattr(list_counts, "LIST_ROWS", 30)
    monkeypatch.setattr("m2mdb.index.costs.ROW", 1.0)
    few_queries(monkeypatch)


def few_queries(monkeypatch: pytest.MonkeyPatch, count: int = 24) -> None:
    """How long to probe is measured on so many queries of a kind."""
    for name in COUNTS:
        if hasattr(calibration, name):
            monkeypatch.setattr(calibration, name, count)


def clustered(count: int, dimension: int = DIMENSION, seed: int = 1) -> np.ndarray:
    """Rows around centers of uneven weight."""
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((max(2, count // 60), dimension))
    labels = (rng.random(count) ** 2 * len(centers)).astype(int)
    rows: np.ndarray = centers[labels] + 0.5 * rng.standard_normal((count, dimension))
    return rows.astype(np.float32)


def like_stored(rows: np.ndarray, count: int, seed: int = 2) -> np.ndarray:
    """Queries near stored rows."""
    rng = np.random.default_rng(seed)
    near = rows[rng.integers(0, len(rows), count)].astype(np.float32)
    spread = rows.astype(np.float32).std()
    out: np.ndarray = near + 0.3 * spread * rng.standard_normal(near.shape)
    return out.astype(np.float32)


def unlike_stored(rows: np.ndarray, count: int, seed: int = 3) -> np.ndarray:
    """Queries off the distribution: sums and differences of distant rows."""
    rng = np.random.default_rng(seed)
    some = rows[rng.integers(0, len(rows), (3, count))].astype(np.float32)
    out: np.ndarray = 0.8 * some[0] + 0.8 * some[1] - 0.5 * some[2]
    return out


def filled(
    path: Path | str, rows: np.ndarray, declared: str = "", *, index: bool = True
) -> m2mdb.Connection:
    """A file whose collection `notes` has these vectors, numbered by `id` and `n`, with lists."""
    con = m2mdb.connect(str(path), autocommit=True)
    kind = {"float16": ", f16", "int8": ", i8"}.get(str(rows.dtype), "")
    con.execute(
        f"CREATE COLLECTION notes (id INTEGER PRIMARY KEY, n INTEGER, "
        f"v VECTOR({rows.shape[1]}{kind}) {declared})"
    )
    if index:
        con.execute("CREATE INDEX by_v ON notes USING hrm2 (v)")
    count = np.arange(len(rows))
    con.collection("notes").add({"id": count, "n": count, "v": rows})
    return con


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed file with ROWS vectors in one segment with lists."""
    path = tmp_path_factory.mktemp("built") / "m.m2m"
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        filled(path, clustered(ROWS)).close()
    return path


@pytest.fixture
def con(tmp_path: Path, built: Path, small: None) -> Iterator[m2mdb.Connection]:
    """A copy of the built file, open."""
    shutil.copy(built, tmp_path / "m.m2m")
    connection = m2mdb.connect(str(tmp_path / "m.m2m"), autocommit=True)
    yield connection
    if connection.database is not None:
        connection.close()


def found(con: m2mdb.Connection, query: np.ndarray, **options: Any) -> list[int]:
    """The ids of a search."""
    ids: list[int] = con.collection("notes").search(near=query, **options).ids.tolist()
    return ids


def recall(con: m2mdb.Connection, queries: np.ndarray, k: int, **options: object) -> float:
    """The mean share of the exact answer that searches find."""
    where = {name: options[name] for name in ("where", "params", "as_of") if name in options}
    shares = []
    for query in queries:
        exact = set(found(con, query, k=k, exact=True, **where))
        shares.append(len(exact & set(found(con, query, k=k, **options))) / max(1, len(exact)))
    return float(np.mean(shares))


def lists_of(con: m2mdb.Connection) -> list[int]:
    """How many lists each segment of `notes` has."""
    with con.engine().reading() as view:
        collection = view.collection("notes")
        column = collection.schema.columns[collection.schema.column("v")]
        found = [segment.lists(column) for segment in collection.segments]
    return [0 if lists is None else lists.count for lists in found]


def segment_lists(con: m2mdb.Connection) -> list[SegmentLists]:
    """The lists of `v`, a segment after the other."""
    with con.engine().reading() as view:
        collection = view.collection("notes")
        column = collection.schema.columns[collection.schema.column("v")]
        listed = [segment.lists(column) for segment in collection.segments]
    return [each for each in listed if each is not None]
