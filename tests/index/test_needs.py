"""A file that is newer than the build is refused as that, and never as damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import m2mdb
from m2mdb import recovering
from m2mdb.index.catalog import collection_key
from m2mdb.index.needs import KEY, MOST_BYTES
from m2mdb.pager.btree import BTree

Change = Callable[[BTree], None]


def changed(path: Path, change: Change) -> Path:
    """A file with a row, and a catalog that is changed by hand."""
    with m2mdb.connect(path) as con:
        con.execute("CREATE TABLE t (x INTEGER)")
        con.execute("INSERT INTO t VALUES (1)")
        con.commit()
        database = con.database
        assert database is not None
        with database.writing() as write:
            change(write.catalog_tree())
            write.set_catalog(write.catalog.replaced(None))
    con.close()
    return path


def needs(raw: bytes) -> Change:
    return lambda tree: tree.put(KEY, raw)


def column_with(field: str) -> Change:
    def change(tree: BTree) -> None:
        key = collection_key(b"C", 1)
        fields = json.loads(tree.get(key) or b"")
        fields["columns"][0][field] = "x"
        tree.put(key, json.dumps(fields).encode())

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (needs(b'{"windows": "0.3.0", "geo": "0.4"}'),
         r"not damaged but newer: it needs geo \(m2mdb 0.4 or newer\), windows \(m2mdb 0.3.0"),
        (column_with("encrypted"), "does not know the field 'encrypted' of a column"),
        (lambda tree: tree.put(b"Z" + bytes(4), b"x"), "does not know the catalog's key"),
    ],
)  # fmt: skip
def test_a_newer_file_is_refused_by_what_it_needs(
    tmp_path: Path, change: Change, message: str
) -> None:
    path = changed(tmp_path / "x.m2m", change)
    before = path.read_bytes()
    with m2mdb.connect(path) as con:
        for statement in (
            "SELECT * FROM t", "INSERT INTO t VALUES (2)", "PRAGMA integrity_check", "VACUUM",
            "SELECT * FROM m2m_collections",
        ):  # fmt: skip
            with pytest.raises(m2mdb.NotSupportedError, match=message):
                con.execute(statement)
        with pytest.raises(m2mdb.NotSupportedError, match=message):
            con.serialize()
    con.close()
    with pytest.raises(m2mdb.NotSupportedError, match=message):
        m2mdb.connect(path, untrusted=True)
    assert path.read_bytes() == before


def test_a_newer_file_is_not_recovered_by_guessing(tmp_path: Path) -> None:
    path = changed(tmp_path / "x.m2m", needs(b'{"windows": "0.3.0"}'))
    with pytest.raises(m2mdb.NotSupportedError, match="windows"):
        recovering.recover(str(path), str(tmp_path / "y.m2m"))
    assert not (tmp_path / "y.m2m").exists()


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{", b'{"a": 3}', b"\xff", b'{"a": "' + b"x" * MOST_BYTES + b'"}']
)
def test_needs_that_cannot_be_are_damage(tmp_path: Path, raw: bytes) -> None:
    path = changed(tmp_path / "x.m2m", needs(raw))
    with m2mdb.connect(path) as con, pytest.raises(m2mdb.CorruptDatabaseError, match="needs"):
        con.execute("SELECT * FROM t")
    con.close()


def test_a_file_that_needs_nothing_is_read(tmp_path: Path) -> None:
    path = changed(tmp_path / "x.m2m", needs(b"{}"))
    with m2mdb.connect(path) as con:
        assert con.execute("SELECT * FROM t").fetchall() == [(1,)]
        con.execute("VACUUM INTO ?", (str(tmp_path / "copy.m2m"),))
    con.close()
    with m2mdb.connect(tmp_path / "copy.m2m") as con:
        assert con.execute("SELECT * FROM t").fetchall() == [(1,)]
    con.close()
