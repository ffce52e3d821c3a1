"""How far back AS OF goes, what it says beyond that, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import m2mdb
from m2mdb.index import maintenance
from m2mdb.index.catalog import put_past
from m2mdb.index.database import Database
from m2mdb.index.integrity import check
from m2mdb.pager.btree import BTree
from m2mdb.pager.errors import OperationalError, ProgrammingError
from m2mdb.pager.memory_vfs import MemoryVfs
from m2mdb.query.executor import execute
from m2mdb.wal.store import StoreOptions
from tests.past.history import small_thresholds

Run = Callable[..., list[tuple[Any, ...]]]
CREATE = "CREATE COLLECTION t (id TEXT PRIMARY KEY, n INTEGER, body TEXT FULLTEXT, e VECTOR(2))"


@pytest.fixture(autouse=True)
def thresholds() -> Iterator[None]:
    with small_thresholds():
        yield


def opened(vfs: MemoryVfs) -> Database:
    options = StoreOptions(create=True)
    return Database.open(vfs, "t.m2m", options, compute="numpy", autocommit=True)


def runner(database: Database) -> Run:
    return lambda statement, parameters=(): execute(database, statement, parameters).rows


@pytest.fixture
def vfs() -> MemoryVfs:
    return MemoryVfs()


@pytest.fixture
def database(vfs: MemoryVfs) -> Iterator[Database]:
    database = opened(vfs)
    run = runner(database)
    run(CREATE)
    run("CREATE INDEX by_n ON t (n)")
    run("PRAGMA keep_commits = 20")
    yield database
    if not database.store.closed:
        database.close()


@pytest.fixture
def run(database: Database) -> Run:
    return runner(database)


def commit_of(database: Database) -> int:
    with database.reading() as view:
        return view.commit


def kept_segments(run: Run) -> int:
    count: int = run("SELECT count(*) FROM m2m_segments WHERE part LIKE 'kept%'")[0][0]
    return count


def fill(run: Run, count: int = 12) -> None:
    """Rows, most of which move into segments."""
    for number in range(count):
        run("INSERT INTO t (id, n, body) VALUES (?, ?, 'red')", (f"k{number}", number))


def test_s25_the_pragma_says_how_far_back_the_past_goes(database: Database, run: Run) -> None:
    assert run("PRAGMA keep_commits") == [(20, 3, 3)]

    fill(run, 30)

    assert run("PRAGMA keep_commits") == [(20, 13, 33)]
    assert run("SELECT oldest_commit FROM m2m_collections") == [(13,)]
    assert run("SELECT count(*) FROM t AS OF 13") == [(10,)]


def test_s25_errors_name_the_commit_the_oldest_one_and_the_reason(
    database: Database, run: Run
) -> None:
    fill(run, 30)

    with pytest.raises(ProgrammingError, match=r"AS OF 99: there is no such commit yet.* is 33"):
        run("SELECT * FROM t AS OF 99")
    with pytest.raises(
        OperationalError, match=r"t AS OF 12: the oldest.* is 13; PRAGMA keep_commits is 20"
    ):
        run("SEARCH t MATCH 'red' AS OF 12")
    run("PRAGMA keep_commits = 1000")
    with pytest.raises(OperationalError, match=r"AS OF 12.* is 14; .* is 1000 since commit 14"):
        run("SELECT * FROM t AS OF ?", (12,))
    for value in (None, "x", 1.5, -1, True):
        with pytest.raises(ProgrammingError, match="expected the number of a commit"):
            run("SELECT * FROM t AS OF ?", (value,))
        with pytest.raises(ProgrammingError, match="expected the number of a commit"):
            run("SEARCH t MATCH 'red' AS OF ?", (value,))
    with pytest.raises(ProgrammingError, match="system table"):
        run("SELECT * FROM m2m_collections AS OF 20")
    for value in ("-1", "'many'", "1.5"):
        with pytest.raises(ProgrammingError, match="expected a number of commits"):
            run(f"PRAGMA keep_commits = {value}")


def test_s25_a_schema_change_ends_the_past_and_a_btree_index_does_not(
    database: Database, run: Run
) -> None:
    run("DROP INDEX by_n")
    run("CREATE COLLECTION plain (id TEXT PRIMARY KEY, body TEXT)")
    created = commit_of(database)
    run("INSERT INTO plain VALUES ('a', 'old')")
    run("UPDATE plain SET body = 'new'")
    run("CREATE INDEX by_body ON plain (body)")
    run("DROP INDEX by_body")

    assert run("SELECT body FROM plain AS OF ?", (created + 1,)) == [("old",)]
    with pytest.raises(OperationalError, match=f"its schema is that of commit {created}"):
        run("SELECT * FROM plain AS OF ?", (created - 1,))

    run("CREATE INDEX words ON plain USING bm25 (body)")
    changed = commit_of(database)
    with pytest.raises(
        OperationalError, match=f"{changed}; its schema is that of commit {changed}"
    ):
        run("SELECT body FROM plain AS OF ?", (created + 1,))
    run("UPDATE plain SET body = 'newer'")
    assert run("SEARCH plain MATCH 'new' AS OF ? RETURNING id", (changed,)) == [("a",)]
    run("DROP INDEX words")
    with pytest.raises(OperationalError, match="its schema"):
        run("SELECT * FROM plain AS OF ?", (changed,))
    assert run("SELECT count(*) FROM t AS OF ?", (created,)) == [(0,)]  # another's past goes on


def test_s25_a_schema_change_frees_what_was_kept(database: Database, run: Run) -> None:
    fill(run, 20)
    run("UPDATE t SET n = n + 1")
    run("OPTIMIZE")
    assert kept_segments(run)

    run("DROP COLLECTION t")
    run(CREATE)

    assert not kept_segments(run)
    assert run("PRAGMA integrity_check") == [("ok",)]


def test_s25_forget_ends_the_past(database: Database, run: Run) -> None:
    fill(run)
    before = commit_of(database)
    run("UPDATE t SET body = 'blue' WHERE id = 'k3'")
    run("FORGET FROM t WHERE id = 'k3'")

    with pytest.raises(OperationalError, match=r"commit \d+ forgot rows of it"):
        run("SELECT * FROM t AS OF ?", (before,))
    assert not kept_segments(run)
    after = commit_of(database)
    run("DELETE FROM t WHERE id = 'k4'")
    assert run("SELECT count(*) FROM t AS OF ?", (after,)) == [(11,)]
    assert run("PRAGMA integrity_check") == [("ok",)]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE t SET n = 0 WHERE id IN (SELECT id FROM t AS OF 5)",
        "DELETE FROM t WHERE n < (SELECT max(n) FROM t AS OF 5)",
        "INSERT INTO t (id) SELECT id FROM t AS OF 5",
        "EXPLAIN ANALYZE DELETE FROM t WHERE id IN (SELECT id FROM t AS OF 5)",
    ],
)
def test_a_statement_that_writes_cannot_read_the_past(run: Run, statement: str) -> None:
    fill(run)

    with pytest.raises(ProgrammingError, match=r"t AS OF 5: a statement that writes"):
        run(statement)

    assert run("SELECT count(*), sum(n) FROM t") == [(12, 66)]


def test_a_transaction_sees_the_past_as_others_do(database: Database, run: Run) -> None:
    fill(run, 10)
    before = commit_of(database)
    run("BEGIN")
    run("UPDATE t SET n = 100")
    run("DELETE FROM t WHERE id < 'k5'")
    run("SAVEPOINT s")
    run("INSERT INTO t (id, n) VALUES ('k0', -1)")

    assert run("SELECT count(*), sum(n) FROM t") == [(6, 499)]
    assert run("SELECT count(*), sum(n) FROM t AS OF ?", (before,)) == [(10, 45)]
    with pytest.raises(ProgrammingError, match="no such commit yet"):
        run("SELECT * FROM t AS OF ?", (before + 1,))
    run("ROLLBACK TO s")
    assert run("SELECT count(*), sum(n) FROM t AS OF ?", (before,)) == [(10, 45)]
    run("COMMIT")

    assert run("SELECT count(*), sum(n) FROM t AS OF ?", (before,)) == [(10, 45)]
    assert run("SELECT count(*), sum(n) FROM t AS OF ?", (before + 1,)) == [(5, 500)]


def test_with_nothing_kept_only_the_newest_commit_can_be_named(
    database: Database, run: Run
) -> None:
    fill(run)
    run("PRAGMA keep_commits = 0")
    newest = commit_of(database)

    assert run("SELECT count(*) FROM t AS OF ?", (newest,)) == [(12,)]
    run("BEGIN IMMEDIATE")
    assert run("SELECT count(*) FROM t AS OF ?", (newest,)) == [(12,)]
    run("DELETE FROM t WHERE id = 'k1'")
    with pytest.raises(OperationalError, match=f"{newest + 1}; PRAGMA keep_commits is 0"):
        run("SELECT count(*) FROM t AS OF ?", (newest,))
    run("ROLLBACK")
    assert run("SELECT count(*) FROM t AS OF ?", (newest,)) == [(12,)]


def test_the_pragma_belongs_to_the_transaction_and_to_the_file(
    database: Database, vfs: MemoryVfs, run: Run
) -> None:
    run("BEGIN")
    run("PRAGMA keep_commits = 7")
    run("SAVEPOINT s")
    run("PRAGMA keep_commits = 8")
    run("ROLLBACK TO s")
    assert run("PRAGMA keep_commits")[0][0] == 7
    run("ROLLBACK")
    assert run("PRAGMA keep_commits")[0][0] == 20
    before = commit_of(database)
    run("PRAGMA keep_commits = 20")
    assert commit_of(database) == before  # nothing to change, nothing to commit
    run("PRAGMA keep_commits = 9")
    database.close()

    again = opened(vfs)

    assert runner(again)("PRAGMA keep_commits")[0][0] == 9
    again.close()


def test_a_smaller_number_frees_at_once_and_a_larger_one_brings_nothing_back(
    database: Database, run: Run
) -> None:
    fill(run)
    for _ in range(3):
        run("UPDATE t SET n = n + 1")
    run("OPTIMIZE")
    assert kept_segments(run)

    run("PRAGMA keep_commits = 0")
    assert not kept_segments(run)
    lowered = commit_of(database)
    run("PRAGMA keep_commits = 1000")

    assert run("PRAGMA keep_commits") == [(1000, lowered + 1, lowered + 1)]
    assert run("PRAGMA integrity_check") == [("ok",)]


def test_a_file_that_keeps_nothing_has_nothing_of_it(vfs: MemoryVfs) -> None:
    """A3, H3: no key of the catalog, no kept segment, whatever is deleted and merged."""
    database = opened(vfs)
    run = runner(database)
    run(CREATE)
    fill(run, 40)
    for turn in range(5):
        run("UPDATE t SET n = n + 1 WHERE n % 3 = ?", (turn % 3,))
    run("DELETE FROM t WHERE n % 2 = 0")
    run("OPTIMIZE")

    with database.reading() as view:
        keys = {key[:1] for key, _ in BTree(view.pages, view.header().catalog_root).scan()}
    assert not keys & {b"K", b"P", b"A"}
    database.close()


def test_what_is_out_of_reach_goes(database: Database, run: Run) -> None:
    """The kept segments of a row that is updated for ever stay few and small."""
    run("PRAGMA keep_commits = 5")
    fill(run, 3)
    for number in range(300):
        run("UPDATE t SET n = ? WHERE id = 'k1'", (number,))

    kept = run("SELECT rows FROM m2m_segments WHERE part LIKE 'kept%'")
    assert sum(rows for (rows,) in kept) <= 30
    newest = commit_of(database)
    found = [run("SELECT n FROM t AS OF ? WHERE id = 'k1'", (newest - back,)) for back in range(6)]
    assert found == [[(299 - back,)] for back in range(6)]


def test_s21_a_rowid_that_is_given_again_has_one_row_at_each_commit(vfs: MemoryVfs) -> None:
    database = opened(vfs)
    run = runner(database)
    run("CREATE COLLECTION t (id INTEGER PRIMARY KEY, n INTEGER)")
    run("PRAGMA keep_commits = 100")
    known: dict[int, list[tuple[Any, ...]]] = {}
    for number in range(30):
        run("INSERT INTO t VALUES (1, ?), (?, 0)", (number, number + 100))
        known[commit_of(database)] = [(number,)]
        run("DELETE FROM t WHERE id = 1")
        known[commit_of(database)] = []
        if number % 7 == 6:
            run("OPTIMIZE")

    for commit, rows in known.items():
        assert run("SELECT n FROM t AS OF ? WHERE id = 1", (commit,)) == rows
        assert run("SELECT n FROM t AS OF ? WHERE rowid = 1", (commit,)) == rows
        assert run("SELECT n FROM t AS OF ? WHERE n > 0 OR id = 1", (commit,)) == rows
    database.close()


def test_s15_segments_whose_numbers_come_again_are_not_mixed_up(
    database: Database, run: Run
) -> None:
    """After a rollback the same segment ids and commit numbers are given once more."""
    fill(run, 20)
    run("OPTIMIZE")
    before = commit_of(database)
    texts = {}
    for body in ("first", "second"):
        run("BEGIN")
        run("UPDATE t SET body = ?", (body,))
        run("UPDATE t SET n = n + 1")
        with database.writing() as write:
            maintenance.flush(write, write.collection("t"))
        texts[body] = run("SELECT DISTINCT body FROM t AS OF ?", (before,))
        if body == "first":
            run("ROLLBACK")
    run("COMMIT")
    run("DELETE FROM t")

    assert texts == {"first": [("red",)], "second": [("red",)]}
    assert run("SELECT DISTINCT body FROM t AS OF ?", (before,)) == [("red",)]
    assert run("SELECT DISTINCT body FROM t AS OF ?", (before + 1,)) == [("second",)]
    assert run("PRAGMA integrity_check") == [("ok",)]


def test_a_snapshot_keeps_its_own_past(database: Database, vfs: MemoryVfs, run: Run) -> None:
    """Another connection drops what an open reader may still name."""
    fill(run)
    other = opened(vfs)
    read = runner(other)
    read("BEGIN")
    newest = read("PRAGMA keep_commits")[0][2]
    run("UPDATE t SET n = 1000")
    run("PRAGMA keep_commits = 0")
    run("OPTIMIZE")

    assert read("SELECT count(*) FROM t AS OF ?", (newest - 5,)) == [(7,)]
    with pytest.raises(ProgrammingError, match="no such commit yet"):
        read("SELECT * FROM t AS OF ?", (newest + 1,))
    read("COMMIT")
    with pytest.raises(OperationalError, match="keep_commits"):
        read("SELECT * FROM t AS OF ?", (newest - 5,))
    other.close()


def test_each_select_of_a_statement_has_its_own_commit(database: Database, run: Run) -> None:
    fill(run, 6)
    old = commit_of(database)
    run("UPDATE t SET n = n * 10")

    assert run("SELECT sum(n), (SELECT sum(n) FROM t AS OF ?) FROM t", (old,)) == [(150, 15)]
    assert run(
        "SELECT past.id FROM t AS OF ? AS past WHERE past.n IN (SELECT n FROM t)", (old,)
    ) == [("k0",)]
    assert run("SELECT n % 2 AS odd, count(*) FROM t AS OF ? GROUP BY odd", (old,)) == [
        (0, 3), (1, 3)
    ]  # fmt: skip
    assert run("SELECT of.n FROM t AS of WHERE of.id = 'k5'") == [(50,)]
    assert run("SELECT max(n) FROM (SELECT n FROM t AS OF ?)", (old,)) == [(5,)]
    plan = [line for _, _, line in run("EXPLAIN SELECT * FROM t AS OF 5 WHERE n = 3")]
    assert plan == ["SCAN t AS OF A COMMIT"]


def test_integrity_check_finds_damage_in_what_is_kept(
    database: Database, vfs: MemoryVfs, run: Run
) -> None:
    fill(run)
    run("UPDATE t SET n = n + 1")
    run("OPTIMIZE")
    assert kept_segments(run)
    with database.writing() as write:
        entry = write.collection("t").entry
        record = next(iter(entry.past.values())).copy()
        record.newest_end += 1
        put_past(write.catalog_tree(), entry.id, record)
        write.set_catalog(write.catalog.replaced(None))
    database.close()

    again = opened(vfs)
    with again.reading() as view:
        (fault,) = check(view)
    again.close()
    assert "kept segment" in fault
    assert "the record says" in fault


@pytest.mark.parametrize("way", ["VACUUM INTO", "VACUUM", "backup"])
def test_the_past_goes_where_the_file_goes(tmp_path: Path, way: str) -> None:
    con = m2mdb.connect(tmp_path / "here.m2m", compute="numpy", autocommit=True)
    con.execute(CREATE)
    con.execute("PRAGMA keep_commits = 500")
    known = {}
    for number in range(40):
        con.execute("INSERT OR REPLACE INTO t (id, n) VALUES (?, ?)", (f"k{number % 7}", number))
        known[con.commit_number] = con.execute("SELECT id, n FROM t ORDER BY id").fetchall()
    there = tmp_path / ("here.m2m" if way == "VACUUM" else "there.m2m")
    if way == "backup":
        con.backup(there)
    else:
        con.execute(way if way == "VACUUM" else f"VACUUM INTO '{there}'")
    con.close()

    copy = m2mdb.connect(there, compute="numpy")
    for commit, rows in known.items():
        found = copy.execute("SELECT id, n FROM t AS OF ? ORDER BY id", (commit,)).fetchall()
        assert found == rows, commit
    assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    copy.close()


def test_collection_search_as_of_and_the_commit_number(tmp_path: Path) -> None:
    con = m2mdb.connect(tmp_path / "past.m2m", compute="numpy")
    notes = con.create_collection(
        "notes", {"id": "TEXT PRIMARY KEY", "body": "TEXT FULLTEXT", "e": "VECTOR(2)"}
    )
    con.execute("PRAGMA keep_commits = 10")
    notes.add({"id": ["a", "b"], "body": ["red", "blue"], "e": np.eye(2, dtype=np.float32)})
    con.commit()
    old = con.commit_number
    notes.update("a", {"body": "blue", "e": [0.0, 1.0]})
    notes.delete("b")
    con.commit()

    assert con.commit_number == old + 2
    assert notes.search(near=[1, 0], as_of=old, k=1).ids.tolist() == ["a"]
    assert notes.search(near=[1, 0], as_of=old, k=1).scores.tolist() == [1.0]
    assert notes.search(match="blue", as_of=old).ids.tolist() == ["b"]
    both = notes.search(near=[0, 1], match="blue", where="body = 'blue'", as_of=old)
    assert both.ids.tolist() == ["b"]
    assert notes.search(match="blue").ids.tolist() == ["a"]
    with pytest.raises(m2mdb.ProgrammingError, match="no such commit yet"):
        notes.search(match="blue", as_of=old + 3)
    con.close()
