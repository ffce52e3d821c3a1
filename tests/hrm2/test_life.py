"""The life of lists: how they come, what changes around them, and how they go."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import m2mdb
from m2mdb.index import hrm2, merge_policy
from m2mdb.pager.errors import ProgrammingError
from m2mdb.recovering import recover
from tests.hrm2.conftest import (
    ROWS,
    clustered,
    filled,
    found,
    like_stored,
    lists_of,
    recall,
    unlike_stored,
)

ROWS_AT = clustered(ROWS)
QUERIES = np.concatenate([like_stored(ROWS_AT, 12), unlike_stored(ROWS_AT, 12)])


def assert_sound(con: m2mdb.Connection, least: float = 0.93) -> None:
    """Everything fits, and searches find what they should."""
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert recall(con, QUERIES, 10, recall=0.95) >= least


# ------------------------------------------------------------------------- how they come


def test_a_bulk_add_makes_none_where_no_index_says_so(tmp_path: Path, small: None) -> None:
    con = filled(tmp_path / "m.m2m", ROWS_AT, index=False)
    assert lists_of(con) == [0]
    con.execute("OPTIMIZE")
    assert lists_of(con)[0] > 10
    assert_sound(con)
    con.close()


def test_create_index_gives_lists_to_the_segments_that_are_there(
    tmp_path: Path, small: None
) -> None:
    con = filled(tmp_path / "m.m2m", ROWS_AT, index=False)
    con.collection("notes").add({"id": [ROWS], "n": [ROWS], "v": ROWS_AT[:1]})
    con.execute("CREATE INDEX by_v ON notes USING hrm2 (v)")
    assert lists_of(con)[0] > 10
    assert con.execute("SELECT kind FROM m2m_indexes").fetchall() == [("hrm2",)]
    assert_sound(con)
    with pytest.raises(ProgrammingError, match="has an hrm2 index already"):
        con.execute("CREATE INDEX twice ON notes USING hrm2 (v)")
    con.close()


def test_what_an_index_made_is_undone_with_it(tmp_path: Path, small: None) -> None:
    con = filled(tmp_path / "m.m2m", ROWS_AT, index=False)
    con.execute("BEGIN")
    con.execute("CREATE INDEX by_v ON notes USING hrm2 (v)")
    assert lists_of(con)[0] > 10
    con.execute("ROLLBACK")
    assert lists_of(con) == [0]
    assert_sound(con, 1.0)
    con.close()


def test_few_rows_and_many_dimensions_get_none(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    con = filled(tmp_path / "few.m2m", clustered(600)[:520], index=True)
    assert lists_of(con)[0] > 0
    con.close()
    monkeypatch.setattr(hrm2, "LEAST_ROWS", 521)
    con = filled(tmp_path / "fewer.m2m", clustered(600)[:520])
    assert lists_of(con) == [0]
    con.execute("OPTIMIZE")
    assert lists_of(con) == [0]
    con.close()
    monkeypatch.setattr(hrm2, "LEAST_ROWS", 300)
    monkeypatch.setattr(hrm2, "MOST_DIMENSIONS", 23)
    con = filled(tmp_path / "many.m2m", clustered(600))
    assert lists_of(con) == [0]
    con.close()


def test_without_kernels_a_build_is_cautious(tmp_path: Path, small: None) -> None:
    con = m2mdb.connect(str(tmp_path / "m.m2m"), autocommit=True)
    con.execute("PRAGMA compute = numpy")
    con.execute("CREATE COLLECTION notes (id INTEGER PRIMARY KEY, n INTEGER, v VECTOR(24))")
    con.execute("CREATE INDEX by_v ON notes USING hrm2 (v)")
    count = np.arange(ROWS)
    con.collection("notes").add({"id": count, "n": count, "v": ROWS_AT})
    assert lists_of(con)[0] > 10
    assert recall(con, QUERIES[:5], 10) == 1.0
    con.execute("PRAGMA compute = numba")
    assert_sound(con)
    con.close()


def test_nulls_stand_in_no_list(tmp_path: Path, small: None) -> None:
    con = filled(tmp_path / "m.m2m", ROWS_AT)
    rows = [None if i % 3 == 0 else ROWS_AT[i] for i in range(900)]
    ids = np.arange(ROWS, ROWS + 900)
    con.collection("notes").add({"id": ids, "n": ids, "v": rows})
    assert all(lists_of(con))
    assert found(con, ROWS_AT[4], k=2)[:2] == [4, ROWS + 4]
    assert len(found(con, ROWS_AT[4], k=5000)) == ROWS + 600
    assert_sound(con)
    con.close()


# ------------------------------------------------------------------------- changes


def test_deletes_updates_and_new_rows_after_optimize(con: m2mdb.Connection) -> None:
    con.execute("OPTIMIZE")
    con.execute("DELETE FROM notes WHERE n % 5 = 0")
    con.execute("UPDATE notes SET v = ? WHERE n = 7", (ROWS_AT[1],))
    moved = np.arange(11, 600, 7)
    con.executemany("UPDATE notes SET v = ? WHERE n = ?", [(ROWS_AT[0], int(n)) for n in moved])
    con.collection("notes").add({"id": [9001], "n": [9001], "v": [ROWS_AT[10]]})
    assert found(con, ROWS_AT[10], k=1) == [9001]
    assert {1, 7} <= set(found(con, ROWS_AT[1], k=3, recall=0.99))
    assert not any(i % 5 == 0 for query in QUERIES for i in found(con, query, k=50) if i < 9000)
    for query in QUERIES:
        assert len(found(con, query, k=30)) == 30
    assert_sound(con)
    con.execute("OPTIMIZE")
    assert len(lists_of(con)) == 1
    assert lists_of(con)[0] > 10
    assert_sound(con)


def test_a_merge_of_segments_with_lists_has_lists(tmp_path: Path, small: None) -> None:
    con = filled(tmp_path / "m.m2m", ROWS_AT[:1000])
    con.execute("DROP INDEX by_v")
    assert lists_of(con) == [0]
    con.execute("OPTIMIZE")
    for start in (1000, 1500):
        count = np.arange(start, start + 500)
        con.collection("notes").add({"id": count, "n": count, "v": ROWS_AT[start : start + 500]})
        con.execute("OPTIMIZE")
    assert len(lists_of(con)) == 1
    assert lists_of(con)[0] > 10
    assert_sound(con)
    con.close()


def test_a_flush_of_an_indexed_collection_makes_lists(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m2mdb.index.maintenance.FLUSH_ROWS", 400)
    con = filled(tmp_path / "m.m2m", ROWS_AT[:600])
    con.execute("BEGIN")
    for i in range(600, 1010):
        con.execute("INSERT INTO notes VALUES (?, ?, ?)", (i, i, ROWS_AT[i]))
    con.execute("COMMIT")
    assert len(lists_of(con)) == 2
    assert all(lists_of(con))
    assert_sound(con)
    con.close()


def test_a_segment_absorbs_what_came_and_loses_what_went(con: m2mdb.Connection) -> None:
    segments = "SELECT rows, live FROM m2m_segments WHERE part LIKE 'segment%'"
    numbers = np.arange(ROWS, ROWS + 600)
    con.collection("notes").add({"id": numbers, "n": numbers, "v": ROWS_AT[:600]})
    assert con.execute(segments).fetchall() == [(ROWS + 600, ROWS + 600)]
    con.execute("DELETE FROM notes WHERE n < 100")  # few rows: they wait
    assert con.execute(segments).fetchall() == [(ROWS + 600, ROWS + 500)]
    con.execute("DELETE FROM notes WHERE n < 620")
    left = ROWS - 620 + 600
    assert con.execute(segments).fetchall() == [(left, left)]
    assert len(lists_of(con)) == 1
    assert lists_of(con)[0] > 10
    assert_sound(con)


def test_a_segment_that_is_too_large_to_be_copied_waits(
    con: m2mdb.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge_policy, "ABSORB_BYTES", 100_000)
    con.execute("DELETE FROM notes WHERE n < ?", (ROWS // 2,))
    segments = "SELECT rows, live FROM m2m_segments WHERE part LIKE 'segment%'"
    assert con.execute(segments).fetchall() == [(ROWS, ROWS // 2)]
    assert_sound(con)


def test_a_segment_loses_its_dead_rows_where_it_cannot_be_copied_with_the_others(
    con: m2mdb.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    segments = "SELECT rows, live FROM m2m_segments WHERE part LIKE 'segment%' ORDER BY rows"
    monkeypatch.setattr(merge_policy, "ABSORB_BYTES", 100_000)
    monkeypatch.setattr(merge_policy, "FLUSHED", 512)
    numbers = np.arange(ROWS, ROWS + 600)
    con.collection("notes").add({"id": numbers, "n": numbers, "v": ROWS_AT[:600]})
    assert con.execute(segments).fetchall() == [(600, 600), (ROWS, ROWS)]
    with con.engine().reading() as snapshot:
        record = min(snapshot.collection("notes").entry.records.items())[1]
    size = sum(extent.page_count for extent in record.extents)
    size *= con.execute("PRAGMA page_size").fetchone()[0]
    monkeypatch.setattr(merge_policy, "ABSORB_BYTES", int(0.9 * size))  # not all of its rows
    con.execute("DELETE FROM notes WHERE n < 620")
    assert con.execute(segments).fetchall() == [(600, 600), (ROWS - 620, ROWS - 620)]
    assert len(lists_of(con)) == 2
    assert_sound(con)
    monkeypatch.setattr(merge_policy, "ABSORB_BYTES", 2 * size)
    con.execute("DELETE FROM notes WHERE n >= ?", (ROWS + 550,))
    con.collection("notes").add({"id": numbers + 600, "n": numbers, "v": ROWS_AT[600:1200]})
    left = ROWS - 620 + 550 + 600
    assert con.execute(segments).fetchall() == [(left, left)]
    assert_sound(con)


def test_a_small_segment_beside_one_with_lists_gets_its_own(
    con: m2mdb.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge_policy, "ABSORB_BYTES", 100_000)  # the large one stays as it is
    monkeypatch.setattr(merge_policy, "FLUSHED", 512)
    monkeypatch.setattr(hrm2, "LEAST_ROWS", 1000)
    con.execute("DELETE FROM notes WHERE n < 20")
    rows, notes = clustered(700, seed=7), con.collection("notes")
    for undone in (True, False):
        con.execute("BEGIN")
        for start in range(0, 600, 60):  # by way of the delta
            ids = np.arange(ROWS + start, ROWS + start + 60)
            notes.add({"id": ids, "n": ids, "v": rows[start : start + 60]})
        con.execute("ROLLBACK" if undone else "COMMIT")
        assert [count > 0 for count in lists_of(con)] == [True] * (1 if undone else 2)
        assert_sound(con)
    con.close()
    con = m2mdb.connect(str(tmp_path / "m.m2m"), autocommit=True)
    assert [count > 0 for count in lists_of(con)] == [True, True]
    assert recall(con, like_stored(rows[:600], 30), 10) >= 0.95
    con.execute("DROP INDEX by_v")
    con.collection("notes").add({"id": (ids := np.arange(9000, 9600)), "n": ids, "v": rows[:600]})
    assert lists_of(con) == [0, 0, 0]
    con.close()


def test_dropping_the_index_gives_its_pages_back(con: m2mdb.Connection) -> None:
    before = con.execute("PRAGMA freelist_count").fetchone()[0]
    con.execute("DROP INDEX by_v")
    assert lists_of(con) == [0]
    freed = con.execute("PRAGMA freelist_count").fetchone()[0] - before
    assert freed * con.execute("PRAGMA page_size").fetchone()[0] > ROWS * 64
    assert_sound(con, 1.0)


# ------------------------------------------------------------------------- filters


@pytest.mark.parametrize("share", [0.5, 0.05, 0.001])
@pytest.mark.parametrize("k", [1, 10, 100])
def test_a_filtered_search_finds_what_there_is(con: m2mdb.Connection, share: float, k: int) -> None:
    limit = int(ROWS * share)
    options = {"where": "n * 7 % 2000 < ?", "params": (limit,)}
    for query in QUERIES:
        assert len(found(con, query, k=k, **options)) == min(k, limit)
    assert recall(con, QUERIES, k, **options) >= (0.93 if k > 1 else 0.8)


def test_a_filter_that_goes_with_the_clusters(con: m2mdb.Connection) -> None:
    """All rows near the query fail it."""
    exact = found(con, QUERIES[0], k=ROWS, exact=True)
    marks = [(int(rank >= 1500), id_) for rank, id_ in enumerate(exact)]
    con.executemany("UPDATE notes SET n = ? WHERE id = ?", marks)
    con.execute("OPTIMIZE")
    hits = found(con, QUERIES[0], k=20, where="n = 1")
    assert len(hits) == 20
    assert len(set(hits) & set(exact[1500:1520])) >= 15


def test_probes_with_a_filter_still_give_k_rows(con: m2mdb.Connection) -> None:
    for query in QUERIES[:10]:
        assert len(found(con, query, k=40, probes=1, where="n < 1000")) == 40
        assert len(found(con, query, k=40, probes=1, where="n < 7")) == 7


# ------------------------------------------------------------------------- EXPLAIN, tables


def test_explain_says_what_was_probed(con: m2mdb.Connection) -> None:
    def lines(statement: str) -> str:
        rows = con.execute(statement, (ROWS_AT[3],)).fetchall()
        return "\n".join(row[2] for row in rows)

    count = lists_of(con)[0]
    assert f"NEAR v: {count} lists of {ROWS} rows" in lines("EXPLAIN SEARCH notes NEAR ? K 5")
    ran = lines("EXPLAIN ANALYZE SEARCH notes NEAR ? K 5 RECALL 0.9")
    assert f" of {count} lists probed" in ran
    assert "expected recall 0.9" in ran
    assert "3 of" in lines("EXPLAIN ANALYZE SEARCH notes NEAR ? K 5 PROBES 3")
    assert f"exact scan of {ROWS} rows" in lines("EXPLAIN SEARCH notes NEAR ? K 5 EXACT")
    assert f"{ROWS} rows compared" in lines("EXPLAIN ANALYZE SEARCH notes NEAR ? K 5 EXACT")
    few = lines("EXPLAIN ANALYZE SEARCH notes NEAR ? K 5 WHERE n < 3")
    assert "scanned, 3 rows compared" in few


def test_clusters_are_a_table(con: m2mdb.Connection) -> None:
    rows = con.execute("SELECT list, rows, spread FROM m2m_clusters").fetchall()
    assert [row[0] for row in rows] == list(range(lists_of(con)[0]))
    assert ROWS < sum(row[1] for row in rows) <= 2 * ROWS
    assert all(row[2] > 0 for row in rows if row[1] > 2)
    assert con.execute("SELECT * FROM m2m_clusters WHERE collection = 'no'").fetchall() == []


# ------------------------------------------------------------------------- the rest of the file


def test_s25_the_past_is_searched_by_lists_too(con: m2mdb.Connection) -> None:
    con.execute("PRAGMA keep_commits = 100")
    commit = con.execute("PRAGMA keep_commits").fetchone()[2]
    before = [set(found(con, query, k=10, exact=True)) for query in QUERIES]
    con.execute("DELETE FROM notes WHERE n % 2 = 0")
    for optimized in (False, True):
        if optimized:
            con.execute("OPTIMIZE")
        shares = [
            len(set(found(con, query, k=10, as_of=commit)) & exact) / 10
            for query, exact in zip(QUERIES, before, strict=True)
        ]
        assert np.mean(shares) >= 0.93
        assert_sound(con)
    con.execute("DELETE FROM notes")
    shares = [
        len(set(found(con, query, k=10, as_of=commit)) & exact) / 10
        for query, exact in zip(QUERIES, before, strict=True)
    ]
    assert np.mean(shares) >= 0.93
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_s27_vacuum_and_backup_carry_lists(con: m2mdb.Connection, tmp_path: Path) -> None:
    con.execute("DELETE FROM notes WHERE n < 50")
    con.execute("OPTIMIZE")
    answers = [found(con, query, k=20, recall=0.8) for query in QUERIES]
    lists = lists_of(con)
    con.execute("VACUUM")
    assert_sound(con)
    assert [found(con, query, k=20, recall=0.8) for query in QUERIES] == answers
    con.execute("VACUUM INTO ?", (str(tmp_path / "into.m2m"),))
    con.backup(str(tmp_path / "backup.m2m"))
    for name in ("into.m2m", "backup.m2m"):
        copy = m2mdb.connect(str(tmp_path / name))
        assert lists_of(copy) == lists
        assert [found(copy, query, k=20, recall=0.8) for query in QUERIES] == answers
        assert_sound(copy)
        copy.close()


def test_a_dump_says_the_index_and_loading_it_makes_lists(
    con: m2mdb.Connection, tmp_path: Path
) -> None:
    script = list(con.iterdump())
    assert any("USING hrm2 (v)" in statement for statement in script)
    copy = m2mdb.connect(str(tmp_path / "copy.m2m"), autocommit=True)
    copy.executescript("\n".join(script))
    copy.execute("OPTIMIZE")
    assert copy.execute("SELECT name, kind FROM m2m_indexes").fetchall() == [("by_v", "hrm2")]
    assert lists_of(copy)[0] > 10
    assert_sound(copy)
    copy.close()


@pytest.mark.parametrize("damage", ["none", "lists", "directory of the lists", "catalog"])
def test_recover_takes_the_rows_and_makes_lists_anew(
    con: m2mdb.Connection, tmp_path: Path, damage: str
) -> None:
    with con.engine().reading() as view:
        segment = view.collection("notes").segments[0]
        extent, at, _ = segment.range_of("h.codes" if damage == "lists" else "h.head", 3)
        start = (extent.descriptor.start_page - 1) * view.pages.page_size
        root = (view.header().catalog_root - 1) * view.pages.page_size
    con.execute("CHECKPOINT truncate")
    con.close()
    path = tmp_path / "m.m2m"
    raw = bytearray(path.read_bytes())
    place = {"lists": start + at, "directory of the lists": start + 20, "catalog": root + 60}
    if damage in place:
        raw[place[damage]] ^= 0x10
    path.write_bytes(raw)

    report = recover(str(path), str(tmp_path / "new.m2m"))

    saved = m2mdb.connect(str(tmp_path / "new.m2m"), autocommit=True)
    assert saved.execute("SELECT count(*) FROM notes").fetchone()[0] == ROWS, report
    assert saved.execute("SELECT name, kind FROM m2m_indexes").fetchall() == [("by_v", "hrm2")]
    saved.execute("OPTIMIZE")
    assert lists_of(saved)[0] > 10
    assert_sound(saved)
    saved.close()
