"""connect(path, untrusted=True): limits, no map, and the whole check before the first row."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import m2mdb
from m2mdb.index.keys import index_key
from m2mdb.pager.btree import BTree
from m2mdb.pager.extent import Extent
from m2mdb.pager.limits import FORMAT, UNTRUSTED
from m2mdb.pager.os_vfs import OsFile
from tests.golden.make import describe

GOLDEN = Path(__file__).parent.parent / "golden"


def made(path: Path, *statements: Any) -> Path:
    """A file made by statements, each a text or (text, parameters)."""
    with m2mdb.connect(str(path), autocommit=True) as con:
        for statement in statements:
            text, parameters = (statement, ()) if isinstance(statement, str) else statement
            con.execute(text, parameters)
        con.close()
    return path


def opened(path: Path) -> m2mdb.Connection:
    return m2mdb.connect(str(path), autocommit=True, untrusted=True)


@pytest.mark.parametrize("name", ["types", "segments", "recovery", "empty"])
def test_a_good_file_says_the_same_without_a_map(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for suffix in (".m2m", ".m2m-wal"):
        if (GOLDEN / f"format1-{name}{suffix}").exists():
            shutil.copyfile(GOLDEN / f"format1-{name}{suffix}", tmp_path / f"x{suffix}")

    def refuse(*arguments: Any) -> Any:
        raise AssertionError("an untrusted file is not mapped")

    monkeypatch.setattr(OsFile, "map", refuse)
    wanted = json.loads((GOLDEN / f"format1-{name}.json").read_text("utf-8"))
    with opened(tmp_path / "x.m2m") as con:
        found = describe(con, [search[:2] for search in wanted["searches"]])
        con.execute("CREATE COLLECTION more (t TEXT FULLTEXT)")
        con.execute("INSERT INTO more VALUES ('written as any other')")
        con.close()

    assert found["collections"] == wanted["collections"]
    for search, right in zip(found["searches"], wanted["searches"], strict=True):
        assert [row[0] for row in search[2]] == [row[0] for row in right[2]]


def test_a_large_untrusted_file_is_searched_block_by_block(tmp_path: Path) -> None:
    rows = np.random.default_rng(3).standard_normal((3000, 64)).astype(np.float32)
    with m2mdb.connect(str(tmp_path / "x.m2m"), autocommit=True) as con:
        con.execute("CREATE COLLECTION c (id INTEGER PRIMARY KEY, v VECTOR(64), t TEXT FULLTEXT)")
        con.collection("c").add({"v": rows, "t": [f"word{i % 9} all" for i in range(3000)]})
        wanted = [con.collection("c").search(near=rows[i], k=5).ids.tolist() for i in (0, 1, 2999)]
        con.close()

    with opened(tmp_path / "x.m2m") as con:
        for compute in ("numpy", "numba"):
            con.execute(f"PRAGMA compute = {compute}")
            search = con.collection("c").search
            assert [search(near=rows[i], k=5).ids.tolist() for i in (0, 1, 2999)] == wanted
        assert len(con.execute("SEARCH c MATCH 'word3' K 500").fetchall()) == 333
        con.close()


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(m2mdb.OperationalError):
        opened(tmp_path / "x.m2m")

    assert list(tmp_path.iterdir()) == []


def test_a_fault_refuses_the_file_before_a_row_is_read(tmp_path: Path) -> None:
    path = made(
        tmp_path / "x.m2m",
        "CREATE COLLECTION c (n INTEGER)",
        "CREATE INDEX i ON c (n)",
        "INSERT INTO c VALUES (1), (2)",
    )
    with m2mdb.connect(str(path), autocommit=True) as con:
        with con.engine().writing() as write:
            info = write.collection("c").schema.indexes[0]
            BTree(write.transaction, info.root).delete(index_key(2, 2))
        con.close()

    with pytest.raises(m2mdb.CorruptDatabaseError, match=r"refused as untrusted: index i: 0 entr"):
        opened(path)

    with m2mdb.connect(str(path)) as con:  # it was closed again: nothing is locked
        assert con.execute("SELECT count(*) FROM c").fetchone() == (2,)
        con.close()


LONG = "n" * (UNTRUSTED.name_bytes + 1)
COLUMNS = ", ".join(f"c{i} TEXT" for i in range(UNTRUSTED.columns + 1))
INDEXES = [f"CREATE INDEX i{n} ON c (a)" for n in range(UNTRUSTED.indexes + 1)]


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        ([f"CREATE COLLECTION c ({COLUMNS})"], "101 columns of 'c', the limit is 100"),
        ([f"CREATE COLLECTION {LONG} (a TEXT)"], "256 bytes in a name of .*limit is 255"),
        ([f"CREATE COLLECTION c ({LONG} TEXT)"], "256 bytes in a name of 'c'"),
        (["CREATE COLLECTION c (a INTEGER)", *INDEXES], "101 indexes of 'c', the limit is 100"),
        (["CREATE COLLECTION c (v VECTOR(16385))"], "16385 dimensions of 'c', the limit is 16384"),
        (
            ["CREATE COLLECTION c (t TEXT)", ("INSERT INTO c VALUES (?)", ("x" * 1_000_001,))],
            "1000001 bytes in a value of c.t, the limit is 1000000",
        ),
        (
            ["CREATE COLLECTION c (b BLOB)", ("INSERT INTO c VALUES (?)", (bytes(1_000_001),))],
            "1000001 bytes in a value of c.b",
        ),
        (
            [
                "CREATE COLLECTION c (" + ", ".join(f"v{i} VECTOR(16384)" for i in range(98)) + ")",
                "INSERT INTO c (v1) VALUES " + ", ".join(["(NULL)"] * 41),
            ],
            "bytes of vectors in the delta of c, the limit is 256",
        ),
    ],
    ids=["columns", "name", "column name", "indexes", "dimension", "text", "blob", "null vectors"],
)
def test_what_is_beyond_a_limit_refuses_the_file(
    statements: list[Any], message: str, tmp_path: Path
) -> None:
    path = made(tmp_path / "x.m2m", *statements)

    with pytest.raises(m2mdb.CorruptDatabaseError, match=f"refused as untrusted: .*{message}"):
        opened(path)
    m2mdb.connect(str(path)).close()


def test_a_long_value_of_a_segment_refuses_the_file(tmp_path: Path) -> None:
    with m2mdb.connect(str(tmp_path / "x.m2m"), autocommit=True) as con:
        con.execute("CREATE COLLECTION c (t TEXT)")
        con.collection("c").add({"t": ["x" * 1_000_001, *["short"] * 600]})
        con.close()

    with pytest.raises(m2mdb.CorruptDatabaseError, match=r"1000001 bytes in a value of c\.t"):
        opened(tmp_path / "x.m2m")


@pytest.mark.parametrize(
    ("statement", "parameters", "message"),
    [
        ("SELECT 1" + " " * 100_000 + "+ 1", (), "statement of 100,0.. characters: 100,000 is"),
        ("SELECT " + "(" * 60 + "1" + ")" * 60 + " + 1", (), None),  # brackets are no nodes
        ("SELECT " + "1 + " * 60 + "1", (), "nested too deeply: 50 levels"),
        ("SELECT " + ", ".join(["?"] * 1001), (1,) * 1001, "1001 parameters: 1,000 is"),
        ("SEARCH c MATCH 'a' K 10001", (), "K and OFFSET are 10,001: 10,000 is"),
        ("SEARCH c MATCH 'a' K 1 OFFSET 10000", (), "K and OFFSET are 10,001"),
        ("SEARCH c MATCH 'a' K 10000", (), None),
    ],
)
def test_statements_have_limits_too(
    statement: str, parameters: tuple[int, ...], message: str | None, tmp_path: Path
) -> None:
    path = made(tmp_path / "x.m2m", "CREATE COLLECTION c (t TEXT FULLTEXT, v VECTOR(2))")
    with m2mdb.connect(str(path)) as con:
        con.execute(statement, parameters)
        con.close()

    with opened(path) as con:
        if message is None:
            con.execute(statement, parameters)
        else:
            with pytest.raises(m2mdb.ProgrammingError, match=message + ".*untrusted file"):
                con.execute(statement, parameters)
        con.close()


def test_the_calls_of_a_collection_have_the_same_limits(tmp_path: Path) -> None:
    path = made(tmp_path / "x.m2m", "CREATE COLLECTION c (t TEXT FULLTEXT, v VECTOR(2))")
    with opened(path) as con:
        collection = con.collection("c")
        for call in (
            lambda: collection.search(near=[1, 2], k=10_001),
            lambda: collection.search_batch(near=[[1, 2]], k=10_001),
            lambda: collection.search(near=[1, 2], where="NOT " * 60 + "t = 'a'"),
        ):
            with pytest.raises(m2mdb.ProgrammingError, match="untrusted file"):
                call()
        con.close()


def test_the_limits_are_tighter_than_the_formats() -> None:
    assert all(few < many for few, many in zip(UNTRUSTED, FORMAT, strict=True))


def test_a_file_that_changes_meanwhile_gives_no_byte_unhashed(tmp_path: Path) -> None:
    """E5: without a map the bytes that are given out are those that were hashed."""
    with m2mdb.connect(str(tmp_path / "x.m2m"), autocommit=True) as con:
        con.execute("CREATE COLLECTION c (t TEXT)")
        con.collection("c").add({"t": [f"text {i} " * 20 for i in range(3000)]})
        con.close()
    con = opened(tmp_path / "x.m2m")
    with con.engine().reading() as view:
        extent: Extent = view.collection("c").segments[0].extents[0]
        assert extent.all_verified
        place = (extent.descriptor.start_page - 1) * 4096 + 100_000
        good = extent.read(100_000, 50)
        assert extent.read(3 * 65536, 10)
        with open(tmp_path / "x.m2m", "r+b") as other:
            other.seek(place)
            other.write(b"!")
        with pytest.raises(m2mdb.CorruptDatabaseError, match="block 1: checksum"):
            extent.read(100_000, 50)
        with open(tmp_path / "x.m2m", "r+b") as other:
            other.seek(place)
            other.write(good[:1])
        assert extent.read(100_000, 50) == good
    con.close()


@pytest.mark.parametrize(
    ("statement", "parameters", "message"),
    [
        ("INSERT INTO c (t) VALUES (?)", ("a" * 1_000_001,), "1000001 bytes in a value of c.t"),
        ("UPDATE c SET t = ?", ("é" * 500_001,), "1000002 bytes in a value of c.t"),
        ("CREATE TABLE d ({})".format(", ".join(f"c{i}" for i in range(101))), (), "101 columns"),
        ("CREATE TABLE d (v VECTOR(16385))", (), "16385 dimensions of 'd'"),
        ("CREATE TABLE {} (a)".format("n" * 256), (), "256 bytes in a name"),
    ],
)
def test_nothing_is_written_that_would_be_refused_when_it_is_opened(
    statement: str, parameters: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    """Each was written and committed, and the file no longer opened as untrusted."""
    path = made(
        tmp_path / "x.m2m",
        "CREATE COLLECTION c (t TEXT FULLTEXT, v VECTOR(2))",
        "INSERT INTO c (t) VALUES ('short')",
    )
    with opened(path) as con:
        with pytest.raises(m2mdb.DatabaseError, match=f"untrusted file: {message}.*the limit is"):
            con.execute(statement, parameters)
        con.execute("INSERT INTO c (t) VALUES (?)", ("b" * 1_000_000,))
        con.commit()
        con.close()

    with opened(path) as con:
        assert con.execute("SELECT length(t) FROM c ORDER BY 1").fetchall() == [(5,), (1_000_000,)]
        assert con.execute("SELECT name FROM m2m_collections").fetchall() == [("c",)]
        con.close()
