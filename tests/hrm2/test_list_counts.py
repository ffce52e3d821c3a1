"""`CREATE INDEX ... USING hrm2 (v) WITH (lists = n)`: how many lists each segment gets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import m2mdb
from m2mdb.index import catalog_check
from m2mdb.index.list_counts import LEAST_LIST_ROWS, MOST_LISTS, list_count, wanted_lists
from m2mdb.index.schema import Column, IndexInfo
from m2mdb.pager.errors import ProgrammingError
from m2mdb.recovering import recover
from tests.hrm2.conftest import ROWS, clustered, filled, found

VECTORS = clustered(ROWS)
INDEX = "CREATE INDEX by_v ON notes USING hrm2 (v) WITH (lists = {})"

pytestmark = pytest.mark.usefixtures("small")


def lists_of(con: m2mdb.Connection) -> list[int]:
    """How many lists each segment has, the oldest first."""
    return [n for (n,) in con.execute("SELECT lists FROM m2m_lists ORDER BY part").fetchall()]


def near(count: int, wanted: int) -> bool:
    """Long lists are split and empty ones left out, so that it is not the number itself."""
    return 0.8 * wanted <= count <= 1.25 * wanted


def add(con: m2mdb.Connection, first: int, rows: np.ndarray) -> None:
    ids = np.arange(first, first + len(rows))
    con.collection("notes").add({"id": ids, "n": ids, "v": rows})


def recall(con: m2mdb.Connection) -> float:
    """Of stored rows as queries, recall@10 at 0.95 asked."""
    shares = []
    for query in VECTORS[:: ROWS // 40]:
        exact = set(found(con, query, k=10, exact=True))
        shares.append(len(exact & set(found(con, query, k=10))) / len(exact))
    return float(np.mean(shares))


@pytest.mark.parametrize("wanted", [2, 8, 40])
def test_an_index_says_how_many_lists_there_are(tmp_path: Path, wanted: int) -> None:
    con = filled(tmp_path / "m.m2m", VECTORS, index=False)
    con.execute(INDEX.format(wanted))
    assert near(lists_of(con)[0], wanted)
    assert not near(list_count(ROWS), wanted) or wanted == list_count(ROWS)
    assert recall(con) >= 0.93
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    con.close()


def test_small_segments_have_lists_of_some_rows(tmp_path: Path) -> None:
    con = filled(tmp_path / "m.m2m", VECTORS, index=False)
    con.execute(INDEX.format(MOST_LISTS))
    assert near(lists_of(con)[0], ROWS // LEAST_LIST_ROWS)
    assert recall(con) >= 0.93
    con.close()
    assert list_count(600, 256) == 37
    assert list_count(5, 256) == 1
    assert list_count(1_000_000, 256) == 256


def test_every_build_asks_the_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bulk adds, OPTIMIZE, VACUUM, REINDEX, and merges that train and that absorb."""
    con = filled(tmp_path / "m.m2m", VECTORS[:600], index=False)
    con.execute(INDEX.format(8))
    assert near(lists_of(con)[0], 8)
    add(con, 600, VECTORS[600:])
    for statement in ("OPTIMIZE", "VACUUM", "REINDEX by_v"):
        con.execute(statement)
        assert [near(n, 8) for n in lists_of(con)] == [True], statement
    monkeypatch.setattr("m2mdb.index.merge_policy.LEAST_CHANGED", 20)
    monkeypatch.setattr("m2mdb.index.merge_policy.FLUSHED", 50)
    monkeypatch.setattr("m2mdb.index.writer.SEGMENT_ROWS", 50)
    before = con.execute("SELECT count(*) FROM m2m_segments").fetchone()
    for start in range(5000, 5400, 100):
        add(con, start, clustered(100, seed=start))
    assert all(n <= 20 for n in lists_of(con)), before
    con.execute("OPTIMIZE")
    assert [near(n, 8) for n in lists_of(con)] == [True]
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    con.close()
    again = m2mdb.connect(str(tmp_path / "m.m2m"), autocommit=True)
    add(again, 9000, VECTORS)
    again.execute("OPTIMIZE")
    assert [near(n, 8) for n in lists_of(again)] == [True]
    again.close()


def test_lists_that_were_there_go_where_the_index_says_how_many(con: m2mdb.Connection) -> None:
    con.execute("DROP INDEX by_v")
    con.execute("OPTIMIZE")
    assert near(lists_of(con)[0], list_count(ROWS))
    con.execute(INDEX.format(12))
    assert near(lists_of(con)[0], 12)
    con.execute("DROP INDEX by_v")
    con.execute("CREATE INDEX by_v ON notes USING hrm2 (v)")
    assert near(lists_of(con)[0], list_count(ROWS))


def test_an_index_that_is_rolled_back_leaves_the_lists(con: m2mdb.Connection) -> None:
    con.execute("DROP INDEX by_v")
    con.execute("OPTIMIZE")
    before = con.execute("SELECT * FROM m2m_lists").fetchall()
    con.execute("BEGIN")
    con.execute(INDEX.format(12))
    assert near(lists_of(con)[0], 12)
    con.execute("ROLLBACK")
    assert con.execute("SELECT * FROM m2m_lists").fetchall() == before
    assert con.execute("SELECT * FROM m2m_indexes").fetchall() == []


REFUSED = {
    "1": "lists is 1,", "0": "lists is 0,", "-4": "lists is -4", "2.5": "lists is 2.5",
    "'many'": "lists is 'many'", "1048577": "from 2 to 1,048,576", "TRUE": "lists is ",
    "NULL": "lists is ",
}  # fmt: skip


def test_what_is_no_number_of_lists_is_refused(con: m2mdb.Connection) -> None:
    con.execute("DROP INDEX by_v")
    for value, told in REFUSED.items():
        with pytest.raises(ProgrammingError) as caught:
            con.execute(INDEX.format(value))
        assert told in str(caught.value)
        assert "by_v" in str(caught.value)
        assert con.execute("SELECT count(*) FROM m2m_indexes").fetchone() == (0,)
    con.execute(INDEX.format(8))


def test_the_option_is_told_dumped_and_recovered(tmp_path: Path) -> None:
    con = filled(tmp_path / "m.m2m", VECTORS, index=False)
    con.execute(INDEX.format("8, retrain = 'auto'"))
    (options,) = con.execute("SELECT options FROM m2m_indexes WHERE name = 'by_v'").fetchone()
    assert json.loads(options) == {"lists": 8, "retrain": "auto"}
    script = list(con.iterdump())
    assert any("WITH (lists = 8, retrain = 'auto')" in each for each in script)
    con.execute("VACUUM INTO ?", (str(tmp_path / "into.m2m"),))
    con.close()
    recover(str(tmp_path / "m.m2m"), str(tmp_path / "new.m2m"))
    loaded = m2mdb.connect(str(tmp_path / "loaded.m2m"), autocommit=True)
    loaded.executescript("\n".join(script))
    loaded.close()
    for name in ("into", "new", "loaded"):
        copy = m2mdb.connect(str(tmp_path / f"{name}.m2m"), autocommit=True)
        assert copy.execute("SELECT options FROM m2m_indexes").fetchall() == [(options,)], name
        copy.execute("OPTIMIZE")
        assert near(lists_of(copy)[0], 8), name
        copy.close()


def test_a_column_that_takes_anothers_place_goes_by_its_index() -> None:
    from m2mdb.index.schema import CollectionSchema

    def vector(name: str, **replaced: str) -> Column:
        generated = {"from": "body", "encoder": "e", "model": "m", "fingerprint": "f", **replaced}
        return Column(name, "VECTOR", dimension=4, generated=generated)

    index = IndexInfo("by_v", "V", kind="hrm2", options={"lists": 9})
    columns = (Column("body", "TEXT"), vector("v"), vector("w", replaces="v"), vector("x"))
    schema = CollectionSchema("c", columns, (index,))
    assert [wanted_lists(schema, at) for at in (1, 2, 3)] == [9, 9, None]


def test_a_file_with_another_number_is_damaged(con: m2mdb.Connection) -> None:
    with con.engine().reading() as view:
        schema = view.collection("notes").schema
    for value in (1, 0, -1, 2.0, "8", None, True, MOST_LISTS + 1):
        index = IndexInfo("by_v", "v", kind="hrm2", options={"lists": value})
        with pytest.raises(ValueError, match="lists of index 'by_v'"):
            catalog_check._check_index(schema, index)
    catalog_check._check_index(schema, IndexInfo("by_v", "v", kind="hrm2", options={"lists": 8}))
