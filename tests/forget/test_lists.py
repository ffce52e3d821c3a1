"""FORGET over segments with lists: no code of a row stays, in no precision (S26)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import m2mdb
from m2mdb.compute.hrm2.lists import padded
from m2mdb.compute.hrm2.rotation import rotate
from m2mdb.index import clustering, hrm2, list_counts, merge_policy, writer
from tests.forget.rows import DIMENSION, Row, forget, insert_in_bulk
from tests.forget.traces import assert_gone, assert_kept, files_at, traces
from tests.hrm2.conftest import few_queries

VECTORS = ("v", "h", "b")
Needles = dict[str, bytes]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hrm2, "LEAST_ROWS", 300)
    few_queries(monkeypatch, 9)


def code_needles(con: m2mdb.Connection, row: Row) -> Needles:
    """The codes that the lists have of a row, and what they were made of."""
    found: Needles = {}
    with con.engine().reading() as view:
        collection = view.collection("notes")
        segment = collection.segments[0]
        ordinal = row.number
        assert segment.value(collection.schema.columns[0], ordinal) == row.id
        for name in VECTORS:
            column = collection.schema.columns[collection.schema.column(name)]
            lists = segment.lists(column)
            assert lists is not None
            width = lists.lists.width
            position = int(np.flatnonzero(lists.lists.ordinals == ordinal)[0])
            code = lists.lists.bytes8[position * width : (position + 1) * width].tobytes()
            if lists.lists.vectors is None:  # else there is no such code
                found[f"8-bit codes of {name}, their head"] = code[:16]
                found[f"8-bit codes of {name}, their tail"] = code[-16:]
            rows = hrm2.searched_rows(column, segment.matrix(column), np.array([ordinal]))
            assert width == padded(DIMENSION)
            rotated = rotate(rows, width, lists.seed)[0]
            for kind in ("<f4", "<f2"):
                found[f"{name} as it is searched in {kind}"] = rows[0].astype(kind).tobytes()[:16]
                found[f"{name} rotated in {kind}"] = rotated.astype(kind).tobytes()[:16]
    return found


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("declared", [True, False])
def test_s26_lists_forget(con: m2mdb.Connection, path: str, declared: bool) -> None:
    rows = [Row(number) for number in range(600)]
    insert_in_bulk(con, rows)
    if declared:
        for name in VECTORS:
            con.execute(f"CREATE INDEX lists_{name} ON notes USING hrm2 ({name})")
    else:
        con.execute("OPTIMIZE")
    gone, kept = rows[5:9], rows[10]
    needles: Needles = {}
    for row in gone:
        codes = code_needles(con, row)
        needles |= {f"row {row.number}, {what}": raw for what, raw in codes.items()}
        needles |= row.needles()
    con.execute("CHECKPOINT truncate")
    found = traces(files_at(path), needles)
    coded = {each.split(", ")[1] for each in needles if each.endswith("their head")}
    assert coded, "columns of float32 have such codes"
    for name in coded:
        assert any(f"{name}, their head" in line for line in found), "it bites"

    assert forget(con, *gone)["status"] == "done"

    assert_gone(files_at(path), needles)
    with con.engine().reading() as view:
        collection = view.collection("notes")
        (segment,) = collection.segments
        for name in VECTORS:
            lists = segment.lists(collection.schema.columns[collection.schema.column(name)])
            assert lists is not None
            assert lists.rows == len(rows) - len(gone)
    assert_kept(files_at(path), [kept.values["v"].tobytes()])
    hits = con.collection("notes").search(near={"v": kept.values["v"]}, k=1)
    assert hits.ids.tolist() == [kept.id]
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_absorbed_lists_that_cannot_be_made_anew_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FO1: their centroids remember rows that came to them and have died since."""
    for module, name, value in (
        (hrm2, "LEAST_ROWS", 300), (hrm2, "LEAST_BESIDE", 60), (list_counts, "LIST_ROWS", 10),
        (merge_policy, "LEAST_CHANGED", 10), (merge_policy, "amplification", lambda schema: 3),
        (merge_policy, "LEAST_APART", 10), (merge_policy, "FULL", 1),
        (merge_policy, "FLUSHED", 50), (writer, "SEGMENT_ROWS", 50),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)
    normal = np.random.default_rng(1).standard_normal
    con = m2mdb.connect(tmp_path / "absorbed.m2m", autocommit=True)
    con.execute("CREATE COLLECTION n (id INTEGER PRIMARY KEY, e VECTOR(16) METRIC l2)")
    con.execute("CREATE INDEX near ON n USING hrm2 (e)")
    rows = con.collection("n")
    rows.add({"id": np.arange(1, 601), "e": normal((600, 16)).astype(np.float32)})
    rows.add({"id": np.arange(1001, 1121), "e": normal((120, 16)).astype(np.float32)})
    con.execute("DELETE FROM n WHERE id BETWEEN 1001 AND 1025")
    rows.add({"id": np.arange(2001, 2071), "e": 9 + normal((70, 16)).astype(np.float32)})
    con.execute("DELETE FROM n WHERE id < 1000")  # the large segment goes
    rows.add({"id": [3001, 3002], "e": normal((2, 16)).astype(np.float32)})
    assert _absorbed(con) > 0
    rows.forget(3001)
    assert _absorbed(con) == 0
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert len(rows.search(near=normal(16), k=5, returning=[]).ids) == 5
    con.close()


def _absorbed(con: m2mdb.Connection) -> int:
    with con.engine().reading() as view:
        return len(list(clustering.absorbed_lists(view.collection("n"))))
