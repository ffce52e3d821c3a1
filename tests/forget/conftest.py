"""A collection of every kind of value, and rows whose every value is unlike any other row's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import m2mdb
from tests.forget.rows import Row, create

Connect = Callable[..., m2mdb.Connection]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "notes.m2m")


@pytest.fixture
def connect(path: str) -> Iterator[Connect]:
    """Connections to one file that commit each statement; closed at the end."""
    opened: list[m2mdb.Connection] = []

    def connect_again(**options: Any) -> m2mdb.Connection:
        options = {"autocommit": True, "compute": "numpy", **options}
        opened.append(m2mdb.connect(path, **options))
        return opened[-1]

    yield connect_again
    for connection in opened:
        if connection.database is not None:
            connection.close()


@pytest.fixture
def con(connect: Connect) -> m2mdb.Connection:
    connection = connect()
    create(connection)
    return connection


@pytest.fixture
def row() -> Callable[[int], Row]:
    return Row
