"""A file with a collection, and peers on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import m2mdb
from tests.processes.peers import Peer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A closed database with one collection of three rows."""
    found = tmp_path / "notes.m2m"
    con = m2mdb.connect(found)
    con.execute("CREATE TABLE t (x INTEGER PRIMARY KEY, body TEXT FULLTEXT)")
    con.execute("INSERT INTO t VALUES (1, 'one'), (2, 'two'), (3, 'three')")
    con.commit()
    con.close()
    return found


@pytest.fixture
def con(path: Path) -> Iterator[m2mdb.Connection]:
    """A connection to it that waits for nobody."""
    found = m2mdb.connect(path, timeout=0)
    yield found
    if found.database is not None:
        found.close()


@pytest.fixture
def peer(path: Path) -> Iterator[Peer]:
    """Another process with an open connection `con` that waits for nobody."""
    with Peer(path) as found:
        found.run("con = m2mdb.connect(path, timeout=0)")
        yield found
