"""FORGET over segments with lists: no code of a row stays, in no precision (S26)."""

from __future__ import annotations

import numpy as np
import pytest

import m2mdb
from m2mdb.compute.hrm2.lists import padded
from m2mdb.compute.hrm2.rotation import rotate
from m2mdb.index import hrm2
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
    for name in VECTORS:
        assert any(f"8-bit codes of {name}, their head" in line for line in found), "it bites"

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
