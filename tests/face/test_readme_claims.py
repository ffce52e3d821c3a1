"""What the README says beside its example, sentence by sentence."""

from __future__ import annotations

import datetime
import shutil
from pathlib import Path
from typing import Any

import pytest

import m2mdb

README = (Path(__file__).parent.parent.parent / "README.md").read_text("utf-8")


def test_columns_convert_without_loss_and_refuse_the_rest(con: m2mdb.Connection) -> None:
    con.execute("CREATE COLLECTION t (n INTEGER DEFAULT 5, w TIMESTAMP)")
    moment = datetime.datetime(2024, 1, 2, 3, 4, 5)
    con.execute("INSERT INTO t VALUES (?, ?)", ("77", moment))
    con.execute("INSERT INTO t VALUES (?, ?)", (2.0, 1_000_000))

    assert con.execute("SELECT n, w FROM t").fetchall() == [
        (77, moment.replace(tzinfo=datetime.UTC)),
        (2, datetime.datetime(1970, 1, 1, 0, 0, 1, tzinfo=datetime.UTC)),
    ]
    refused: list[tuple[str, Any]] = [("n", "abc"), ("n", 2.5), ("w", 1.5), ("n", b"7")]
    for column, value in refused:
        with pytest.raises(m2mdb.DataError):
            con.execute(f"INSERT INTO t ({column}) VALUES (?)", (value,))


def test_the_files_beside_and_copies(path: Path, tmp_path: Path) -> None:
    con = m2mdb.connect(path)
    con.create_collection("t", {"a": "INTEGER"}).add({"a": [1, 2]})
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "memory.m2m", "memory.m2m-shm", "memory.m2m-wal",
    ]  # fmt: skip

    (tmp_path / "alone").mkdir()
    shutil.copy(path, tmp_path / "alone")
    with pytest.raises(m2mdb.CorruptDatabaseError, match="without its log"):
        m2mdb.connect(tmp_path / "alone" / path.name)
    (tmp_path / "whole").mkdir()
    for file in tmp_path.glob("memory.m2m*"):
        shutil.copy(file, tmp_path / "whole")
    copy = m2mdb.connect(tmp_path / "whole" / path.name)
    assert copy.collection("t").count() == 2
    copy.close()
    con.close()

    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["memory.m2m"]
    shutil.copy(path, tmp_path / "closed.m2m")
    copy = m2mdb.connect(tmp_path / "closed.m2m")
    assert copy.collection("t").count() == 2
    copy.close()


def test_the_differences_from_sqlite3(con: m2mdb.Connection) -> None:
    con.execute("CREATE COLLECTION t (a INTEGER)")
    assert con.in_transaction
    with pytest.raises(m2mdb.InterfaceError, match="no results to fetch"):
        con.cursor().fetchone()
    with pytest.raises(m2mdb.ProgrammingError, match="no such collection: nothing"):
        con.execute("SELECT * FROM nothing")
    assert con.execute("SELECT 1 = 1").fetchone()[0] is True
    for name in ("isolation_level", "create_function", "set_authorizer", "total_changes"):
        assert hasattr(con, name)
        assert f"`{name}`" in README
    assert (con.isolation_level, con.autocommit) == ("DEFERRED", False)
    con.close()
    for use in (con.close, con.commit, lambda: con.execute("SELECT 1")):
        with pytest.raises(m2mdb.InterfaceError, match="is closed"):
            use()


def test_what_is_not_built_says_so(con: m2mdb.Connection) -> None:
    con.execute("CREATE COLLECTION t (x INTEGER, body TEXT FULLTEXT)")

    with pytest.raises(m2mdb.NotSupportedError, match="not built yet"):
        con.execute("WITH RECURSIVE c AS (SELECT x FROM t) SELECT x FROM c")


def test_what_is_built_and_what_an_alias_needs(con: m2mdb.Connection) -> None:
    con.execute("CREATE COLLECTION t (x INTEGER, body TEXT FULLTEXT)")
    con.execute("INSERT INTO t (x) VALUES (1), (1), (2)")

    grouped = "SELECT x AS y, count(*) FROM t GROUP BY x HAVING count(*) > 1"
    assert con.execute(grouped).fetchall() == [(1, 2)]
    assert con.execute("SELECT DISTINCT x FROM t ORDER BY x").fetchall() == [(1,), (2,)]
    with pytest.raises(m2mdb.ProgrammingError, match="expected AS"):
        con.execute("SELECT x y FROM t")
    names = "SEARCH t MATCH 'red' RETURNING score, distance, bm25, rank"
    assert con.execute(names).fetchall() == []
    con.execute("CREATE COLLECTION pairs (id INTEGER PRIMARY KEY, x INTEGER)")
    con.execute("INSERT INTO pairs (x) VALUES (1), (1), (2)")
    earlier = "SELECT 1 FROM pairs AS q WHERE q.x = p.x AND q.id < p.id"
    twice = f"SELECT x FROM pairs AS p WHERE EXISTS ({earlier})"
    assert con.execute(twice).fetchall() == [(1,)]
    joined = "SELECT a.x FROM t AS a JOIN pairs AS b ON a.x = b.x UNION SELECT 7 ORDER BY 1"
    assert con.execute(joined).fetchall() == [(1,), (2,), (7,)]
