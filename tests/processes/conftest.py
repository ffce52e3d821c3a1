"""A file with a collection, and peers on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import m2mdb
from tests.processes.peers import Nursery, Peer


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """The process that peers are forked from."""
    found = Nursery(tmp_path_factory.mktemp("nursery"))
    yield found
    found.close()


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
def new_peer(nursery: Nursery) -> Iterator[Callable[..., Peer]]:
    """Starts another process for a path; all of them end with the test."""
    peers: list[Peer] = []

    def start(path: Path, *, as_nobody: bool = False) -> Peer:
        peers.append(nursery.peer(path, as_nobody=as_nobody))
        return peers[-1]

    yield start
    for each in peers:
        each.__exit__(None, None, None)


@pytest.fixture
def peer(path: Path, new_peer: Callable[..., Peer]) -> Peer:
    """Another process with an open connection `con` that waits for nobody."""
    found = new_peer(path)
    found.run("con = m2mdb.connect(path, timeout=0, compute='numpy')")
    return found
