"""Rows whose values no other row and no other byte of a file has."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np

import m2mdb
from tests.forget.traces import (
    Needles,
    key_needles,
    number_needles,
    real_needles,
    text_needles,
    vector_needles,
)

DIMENSION = 24
SCHEMA = f"""
    id TEXT PRIMARY KEY, slug TEXT UNIQUE, body TEXT FULLTEXT, topic TEXT, n INTEGER, x REAL,
    raw BLOB, data JSON, created TIMESTAMP,
    v VECTOR({DIMENSION}), h VECTOR({DIMENSION}, f16), b VECTOR({DIMENSION}, i8)
"""
NAMES = ("id", "slug", "body", "topic", "n", "x", "raw", "data", "created", "v", "h", "b")
INSERT = f"INSERT INTO notes ({', '.join(NAMES)}) VALUES ({', '.join('?' * len(NAMES))})"
_LETTERS = np.array(list("bcdfghjkmnpqrstvwxz"))


class Row:
    """One version of a row: its values, and the needles that they leave."""

    def __init__(self, number: int, version: int = 0) -> None:
        self.rng = np.random.default_rng([number, version])
        self.number = number
        self.id = "id" + self.word()
        self.values: dict[str, Any] = {
            "id": self.id,
            "slug": "slug" + self.word(),
            "body": f"common words around {self.word()} and {self.word()}",
            "topic": "topic" + self.word(),
            "n": int(self.rng.integers(2**61, 2**62)),
            "x": float(self.rng.standard_normal()),
            "raw": self.rng.bytes(24),
            "data": json.dumps({"name": self.word(), "list": [self.word()]}),
            "created": int(self.rng.integers(2**58, 2**59)) // 1000,
            "v": self.rng.standard_normal(DIMENSION).astype(np.float32),
            "h": self.rng.standard_normal(DIMENSION).astype(np.float16),
            "b": self.rng.integers(-127, 127, DIMENSION).astype(np.int8),
        }

    def word(self) -> str:
        """Ten letters that no other row has."""
        return "".join(_LETTERS[self.rng.integers(0, len(_LETTERS), 10)])

    def updated(self, version: int) -> Row:
        """The row with other values under the same primary key."""
        other = Row(self.number, version)
        other.values["id"] = other.id = self.id
        return other

    def parameters(self) -> list[Any]:
        return [self.values[name] for name in NAMES]

    def needles(self) -> Needles:
        """Every form in which a value of the row may stand in a file."""
        values = self.values
        words = [values["id"], values["slug"], values["topic"], *values["body"].split()[-3::2]]
        decoded = json.loads(values["data"])
        words += [decoded["name"], *decoded["list"]]
        found: Needles = {"raw": values["raw"]}
        for word in words:
            found |= text_needles(word)
        found |= number_needles(values["n"]) | number_needles(values["created"])
        found |= real_needles(values["x"])
        found |= vector_needles(values["v"], "f4") | vector_needles(values["h"], "f2")
        found |= vector_needles(values["b"], "i1")
        return found | key_needles(self.id) | key_needles(values["slug"])

    def needles_beside_key(self) -> Needles:
        """Of a version whose primary key lives on in a newer one."""
        return {what: raw for what, raw in self.needles().items() if self.id not in what}


def create(connection: m2mdb.Connection) -> None:
    connection.execute(f"CREATE COLLECTION notes ({SCHEMA})")
    for column in ("topic", "n", "x", "raw", "created"):
        connection.execute(f"CREATE INDEX by_{column} ON notes ({column})")


def insert(connection: m2mdb.Connection, *rows: Row) -> None:
    """One statement a row: they go to the delta."""
    for row in rows:
        connection.execute(INSERT, row.parameters())


def insert_in_bulk(connection: m2mdb.Connection, rows: Iterable[Row]) -> None:
    """All at once: from 512 on they become a segment."""
    chosen = list(rows)
    columns: dict[str, Any] = {
        name: [row.values[name] for row in chosen] for name in NAMES if name not in "vhb"
    }
    for name in "vhb":
        columns[name] = np.stack([row.values[name] for row in chosen])
    connection.collection("notes").add(columns)


def update(connection: m2mdb.Connection, row: Row) -> None:
    names = NAMES[1:]
    sets = ", ".join(f"{name} = ?" for name in names)
    values = [row.values[name] for name in names]
    connection.execute(f"UPDATE notes SET {sets} WHERE id = ?", [*values, row.id])


def delete(connection: m2mdb.Connection, row: Row) -> None:
    connection.execute("DELETE FROM notes WHERE id = ?", [row.id])


def forget(connection: m2mdb.Connection, *rows: Row) -> dict[str, Any]:
    """FORGET, and its receipt by the names of its columns."""
    places = ", ".join("?" * len(rows))
    cursor = connection.execute(
        f"FORGET FROM notes WHERE id IN ({places})", [row.id for row in rows]
    )
    names = [column[0] for column in cursor.description or ()]
    (found,) = cursor.fetchall()
    return dict(zip(names, found, strict=True))


def assert_sound(connection: m2mdb.Connection, rows: Iterable[Row]) -> None:
    """Every structure agrees with the rows, and these are the rows."""
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    found = {
        each[0]: each[1:] for each in connection.execute("SELECT id, slug, topic, n FROM notes")
    }
    wanted = {row.id: tuple(row.values[name] for name in ("slug", "topic", "n")) for row in rows}
    assert found == wanted
