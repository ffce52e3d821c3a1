"""Fixtures of the face's tests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import m2mdb


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.m2m"


@pytest.fixture
def con(path: Path) -> Iterator[m2mdb.Connection]:
    connection = m2mdb.connect(path, compute="numpy")
    yield connection
    with contextlib.suppress(m2mdb.InterfaceError):
        connection.close()


@pytest.fixture
def notes(con: m2mdb.Connection) -> m2mdb.Collection:
    """Four notes with vectors of two dimensions."""
    collection = con.create_collection(
        "notes",
        {
            "id": "TEXT PRIMARY KEY",
            "body": "TEXT FULLTEXT",
            "topic": "TEXT DEFAULT 'none'",
            "stars": "INTEGER",
            "embedding": "VECTOR(2) METRIC cosine",
        },
    )
    collection.add(
        {
            "id": ["a", "b", "c", "d"],
            "body": ["red apple", "green pear", "red cherry", "yellow banana"],
            "topic": ["fruit", "fruit", "tree", "fruit"],
            "stars": [1, 2, 3, None],
            "embedding": [[1.0, 0.0], [0.0, 1.0], [0.8, 0.6], [-1.0, 0.0]],
        }
    )
    return collection
