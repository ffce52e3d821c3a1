"""Masks that are kept: the same rows as without, whatever changes between searches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import m2mdb
from m2mdb.index import masks
from m2mdb.index.masks import KeptMasks
from m2mdb.query.stability import key_of

ROWS = 3000
CONDITIONS = (
    "n < ?", "n BETWEEN ? AND 2000", "topic = ?", "topic IN (?, 't3')", "topic > ?",
    "topic LIKE 't1%' AND n > ?", "topic = ? OR n IS NULL", "NOT (n < ?)", "n % 7 = ?",
    "CAST(n AS TEXT) = ?",
)  # fmt: skip


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((ROWS, 8)).astype(np.float32)


@pytest.fixture
def con(tmp_path: Path, vectors: np.ndarray) -> Iterator[m2mdb.Connection]:
    connection = m2mdb.connect(str(tmp_path / "m.m2m"), autocommit=True)
    connection.execute(
        "CREATE COLLECTION notes (id INTEGER PRIMARY KEY, n INTEGER, topic TEXT, v VECTOR(8))"
    )
    count = np.arange(ROWS)
    topics = [f"t{i % 13}" for i in range(ROWS)]
    numbers = [None if i % 17 == 0 else i for i in range(ROWS)]
    connection.collection("notes").add({"id": count, "n": numbers, "topic": topics, "v": vectors})
    yield connection
    connection.close()


def kept(con: m2mdb.Connection) -> int:
    with con.engine().reading() as view:
        return sum(len(segment.masks) for segment in view.collection("notes").segments)


def found(con: m2mdb.Connection, query: np.ndarray, where: str, *params: Any) -> list[int]:
    ids: list[int] = (
        con.collection("notes").search(near=query, where=where, params=params, k=ROWS).ids.tolist()
    )
    return ids


def selected(con: m2mdb.Connection, where: str, *params: Any) -> set[int]:
    """The same rows, by the primary key's look-up of each: no mask of a segment is asked for."""
    rows = con.execute(f"SELECT id FROM notes WHERE (id + 0 = id) AND ({where})", params)
    return {row[0] for row in rows}


VALUES = (0, 3, 3.0, "3", "t3", 1500, None, True, -0.0, 0.0)
STEP = st.tuples(st.sampled_from(CONDITIONS), st.sampled_from(VALUES), st.integers(0, 3))


@given(steps=st.lists(STEP, min_size=2, max_size=6))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_searches_find_the_rows_that_a_fresh_connection_finds(
    con: m2mdb.Connection, vectors: np.ndarray, tmp_path: Path, steps: list[tuple[str, Any, int]]
) -> None:
    for where, value, change in steps:
        if change == 1:
            con.execute("DELETE FROM notes WHERE id = (SELECT min(id) FROM notes)")
        elif change == 2:
            con.execute("UPDATE notes SET n = 3 WHERE id = (SELECT max(id) FROM notes)")
        fresh = m2mdb.connect(str(tmp_path / "m.m2m"))
        for _ in range(2):
            assert found(con, vectors[0], where, value) == found(fresh, vectors[0], where, value)
        assert set(found(con, vectors[0], where, value)) == selected(con, where, value)
        fresh.close()


def test_a_mask_is_made_once(con: m2mdb.Connection, vectors: np.ndarray) -> None:
    for times in range(3):
        assert len(found(con, vectors[times], "topic = ?", "t3")) == len(range(3, ROWS, 13))
    assert kept(con) == 1
    found(con, vectors[0], "topic = ?", "t4")
    found(con, vectors[0], "topic = 't3'")
    assert kept(con) == 3


@pytest.mark.parametrize(
    "where", ["random() IS NOT NULL", "n < (SELECT max(n) FROM notes)", "length(topic) = 2"]
)
def test_what_depends_on_more_is_not_kept(
    con: m2mdb.Connection, vectors: np.ndarray, where: str
) -> None:
    found(con, vectors[0], where)
    assert kept(con) == 0


def test_a_collation_of_the_program_is_asked_every_time(
    con: m2mdb.Connection, vectors: np.ndarray
) -> None:
    con.create_collation("odd", lambda a, b: (a > b) - (a < b))
    assert found(con, vectors[0], "topic COLLATE odd = 't3'")
    assert kept(con) == 0
    assert found(con, vectors[0], "topic COLLATE nocase = 'T3'")
    assert kept(con) == 1


def test_values_that_differ_in_anything_have_other_keys() -> None:
    values = [1, 1.0, True, "1", b"1", None, 0.0, -0.0, [1], (1,), [1.0], float("nan")]
    keys = [key_of([value], (0,)) for value in values]
    assert None not in keys
    assert len(set(keys)) == len(values)
    assert key_of([float("nan")], (0,)) == keys[-1]
    for value in (np.arange(3), {1}, "x" * 5000, list(range(1000)), object()):
        assert key_of([value], (0,)) is None
    assert key_of([object(), 5], (1,)) == key_of([7, 5], (1,))


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "MOST_BYTES", 1000)
    few, none = KeptMasks(400), KeptMasks(2000)
    for key in range(5):
        few.keep(key, np.zeros(400, bool))
        none.keep(key, np.zeros(2000, bool))
    assert len(few) == 2
    assert len(none) == 0
    assert few.get(3) is not None
    few.keep(9, np.zeros(400, bool))
    assert few.get(4) is None
    assert few.get(3) is not None
    found = few.get(9)
    assert found is not None
    assert not found.flags.writeable
