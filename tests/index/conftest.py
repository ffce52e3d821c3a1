"""A database on a simulated or a real disk, and small collections."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from m2mdb.compute import text_backend
from m2mdb.compute.backend import choose
from m2mdb.compute.loader import LOADER
from m2mdb.compute.text_backend import Kernels
from m2mdb.index.database import Database
from m2mdb.pager.memory_vfs import MemoryVfs
from m2mdb.wal.store import StoreOptions

Opener = Callable[[], Database]


@pytest.fixture
def reopen() -> Iterator[Opener]:
    """Opens the same file in memory each time; what was open before is closed first."""
    vfs = MemoryVfs()
    opened: list[Database] = []

    def open_again() -> Database:
        for database in opened:
            database.close()
        opened[:] = [
            Database.open(vfs, "m.m2m", StoreOptions(create=True), compute="numpy", autocommit=True)
        ]
        return opened[0]

    yield open_again
    for database in opened:
        database.close()


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    """The compiled kernels of text searches."""
    assert LOADER.wait(300), LOADER.error
    found = text_backend.text_kernels(choose(), 1)
    assert found is not None
    return found
