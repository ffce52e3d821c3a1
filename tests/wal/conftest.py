"""What the tests of the log share: stores on several file systems, and a small model of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from m2mdb.pager.btree import BTree
from m2mdb.pager.os_vfs import OsVfs
from m2mdb.pager.sim_vfs import SimVfs
from m2mdb.pager.vfs import Vfs
from m2mdb.wal.snapshot import Snapshot
from m2mdb.wal.store import Store, StoreOptions
from m2mdb.wal.transaction import Transaction

TREE = 2  # root of the catalog's tree, which holds the rows of these tests


class Place:
    """A path on a file system, and the stores that were opened on it."""

    def __init__(self, vfs: Vfs, path: str) -> None:
        self.vfs = vfs
        self.path = path
        self.stores: list[Store] = []

    def open(self, vfs: Vfs | None = None, **options: Any) -> Store:
        """A store; it is created unless the options say otherwise."""
        options.setdefault("create", not options.get("read_only"))
        options.setdefault("timeout", 0.0)
        store = Store.open(vfs or self.vfs, self.path, StoreOptions(**options))
        self.stores.append(store)
        return store

    def close(self) -> None:
        for store in self.stores:
            store.close()


@pytest.fixture(params=["os", "sim"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A fresh path of the operating system, and one of the simulator."""
    if request.param == "os":
        found = Place(OsVfs(), str(tmp_path / "notes.m2m"))
    else:
        found = Place(SimVfs(7), "d/notes.m2m")
    yield found
    found.close()


@pytest.fixture
def sim() -> Place:
    """A fresh path of the simulator."""
    return Place(SimVfs(7), "d/notes.m2m")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Place]:
    """A fresh path of the operating system."""
    found = Place(OsVfs(), str(tmp_path / "notes.m2m"))
    yield found
    found.close()


def simulated(vfs: Vfs) -> SimVfs:
    """The file system of a test that runs on the simulator alone."""
    assert isinstance(vfs, SimVfs)
    return vfs


def put(store: Store, **rows: str | None) -> int:
    """Commit rows; None deletes. Returns the commit's number."""
    transaction = store.begin_write()
    change(transaction, **rows)
    return transaction.commit_now()


def change(transaction: Transaction, **rows: str | None) -> None:
    """Change rows inside a transaction."""
    tree = BTree(transaction, TREE)
    for key, value in rows.items():
        if value is None:
            tree.delete(key.encode())
        else:
            tree.put(key.encode(), value.encode())


def rows_of(pages: Snapshot | Transaction) -> dict[str, str]:
    """All rows that a snapshot or a transaction sees."""
    return {key.decode(): value.decode() for key, value in BTree(pages, TREE).scan()}


def read(store: Store) -> dict[str, str]:
    """All rows of the newest commit."""
    snapshot = store.begin_read()
    try:
        return rows_of(snapshot)
    finally:
        snapshot.close()


Opener = Callable[..., Store]
