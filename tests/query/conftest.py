"""A database in memory to run statements on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from m2mdb.index.database import Database
from m2mdb.pager.memory_vfs import MemoryVfs
from m2mdb.query.executor import Result, execute
from m2mdb.wal.store import StoreOptions

Run = Callable[..., list[tuple[Any, ...]]]


def opened() -> Database:
    """A new, empty database; every statement commits itself."""
    options = StoreOptions(create=True)
    return Database.open(MemoryVfs(), "m.m2m", options, compute="numpy", autocommit=True)


@pytest.fixture
def database() -> Iterator[Database]:
    """An empty database."""
    database = opened()
    yield database
    database.close()


@pytest.fixture
def run(database: Database) -> Run:
    """Runs a statement and gives its rows."""

    def run(statement: str, parameters: Any = ()) -> list[tuple[Any, ...]]:
        return execute(database, statement, parameters).rows

    return run


@pytest.fixture
def result(database: Database) -> Callable[..., Result]:
    """Runs a statement and gives its result."""
    return lambda statement, parameters=(): execute(database, statement, parameters)
