"""Values: what a program binds, brought to columns, expressions and back.

An input says Python values: a byte of kind and what follows, see `values_of`. They are stored in
columns of every type, and bound to statements that pass them through functions.
"""

from __future__ import annotations

import datetime
from functools import cache
from struct import Struct, error
from typing import Any

import numpy as np

from fuzz.seeded import SeededVfs, open_database
from fuzz.target import Target
from m2mdb.index.database import Database
from m2mdb.index.schema import Column
from m2mdb.index.values import store_column
from m2mdb.pager.errors import Error
from m2mdb.query.executor import execute

_I64, _F64 = Struct("<q"), Struct("<d")
COLUMNS = [
    *[Column(name, name) for name in
      ("INTEGER", "REAL", "TEXT", "BLOB", "BOOLEAN", "TIMESTAMP", "JSON")],
    *[Column("v", "VECTOR", dimension=2, dtype=dtype, metric=metric)
      for dtype, metric in (("f32", "cosine"), ("f16", "l2"), ("i8", "ip"))],
]  # fmt: skip
STATEMENTS = [
    "SELECT ?1 + ?2, ?1 || ?2, ?1 % ?2, ?1 << ?2, -?1, ~?2",
    "SELECT ?1 = ?2, ?1 < ?2, ?1 LIKE ?2, ?1 GLOB ?2, ?1 IN (?2, 1), ?1 IS ?2",
    "SELECT substr(?1, ?2), substr(?1, ?2, ?2), instr(?1, ?2), replace('aab', ?1, ?2)",
    "SELECT round(?1, ?2), abs(?1), printf(?1, ?2), hex(?1), quote(?1), typeof(?1), length(?1)",
    "SELECT CAST(?1 AS INTEGER), CAST(?1 AS REAL), CAST(?2 AS TIMESTAMP), CAST(?2 AS JSON)",
    "SELECT ?1 -> ?2, ?1 ->> ?2, json_extract(?1, ?2)",
    "SELECT upper(?1), trim(?1, ?2), char(?2), unicode(?1), coalesce(?1, ?2), max(?1, ?2)",
    "SELECT * FROM c WHERE n > ?1 OR t = ?2 OR t LIKE ?1 ORDER BY n LIMIT 3",
    "SELECT * FROM c WHERE n BETWEEN ?1 AND ?2 LIMIT ?1 OFFSET ?2",
    "SEARCH c NEAR ?1 MATCH ?2 K 3",
    "SEARCH c NEAR v ?1 WHERE n < ?2 K 2",
    "SEARCH c MATCH ?1 K ?2",
    "SEARCH c NEAR ?1 K 2 MIN SCORE ?2",
    "INSERT INTO c (t, n) VALUES (?1, ?2)",
    "INSERT INTO c (v, j) VALUES (?1, ?2)",
    "UPDATE c SET t = ?1, m = ?2 WHERE n = 2",
]


def values_of(data: bytes, most: int = 4) -> list[Any]:
    """The values that an input says; what is cut off says None."""
    found: list[Any] = []
    at = 0
    while at < len(data) and len(found) < most:
        kind, at = data[at] % 16, at + 1
        try:
            value, at = _value(kind, data, at)
        except error:
            value, at = None, len(data)
        found.append(value)
    return found


def _value(kind: int, data: bytes, at: int) -> tuple[Any, int]:
    if kind < 4:
        number = _I64.unpack_from(data, at)[0]
        moment = datetime.datetime.fromtimestamp(number % 10**10, datetime.UTC)
        return (number, number * 2**40, bool(number & 1), moment)[kind], at + 8
    if kind < 7:
        real = _F64.unpack_from(data, at)[0]
        with np.errstate(all="ignore"):
            return (real, np.float32(real), [real, 1.0])[kind - 4], at + 8
    size = (data[at] if at < len(data) else 0) % 40
    raw = data[at + 1 : at + 1 + size]
    after = at + 1 + size
    if kind < 10:
        return raw.decode("utf-8", ("replace", "surrogateescape", "ignore")[kind - 7]), after
    if kind == 10:
        return raw, after
    if kind == 11:
        return np.frombuffer(raw[: len(raw) & -4], np.float32), after
    if kind == 12:
        return np.frombuffer(raw, np.int8), after
    if kind == 13:
        return [1.0, float("nan")] if size & 1 else (1, "x"), after
    if kind == 14:
        return {"a": raw}, after
    return None, at


@cache
def database() -> Database:
    """A small database; what statements change in it is undone."""
    found = open_database(SeededVfs(), create=True)
    execute(
        found,
        "CREATE COLLECTION c (t TEXT FULLTEXT, n INTEGER, m TIMESTAMP, j JSON, v VECTOR(2), "
        "u TEXT UNIQUE)",
    )
    execute(found, "CREATE INDEX by_n ON c (n)")
    for number in range(5):
        execute(found, "INSERT INTO c VALUES (?, ?, NULL, '[1]', ?, ?)",
                (f"red apple {number}", number, [1, number], f"u{number}"))  # fmt: skip
    return found


def run_values(data: bytes) -> None:
    """Store in every column; bind to the statement that the last byte chooses."""
    values = values_of(data)
    for column in COLUMNS:
        try:
            store_column(column, values, len(values), "fuzz")
        except Error:
            continue
    statement = STATEMENTS[data[-1] % len(STATEMENTS)] if data else "SELECT 1"
    run_undone(statement, values[:2])


def run_undone(statement: str, parameters: Any) -> None:
    """Run a statement, and undo what it did."""
    found = database()
    found.begin()
    try:
        execute(found, statement, parameters)
    finally:
        if found.in_transaction:
            found.rollback()


def value_seeds() -> list[bytes]:
    """Two values of each kind, for each statement."""
    pieces = [
        b"\0" + _I64.pack(7), b"\1" + _I64.pack(2**61), b"\2" + _I64.pack(1), b"\3" + _I64.pack(99),
        b"\4" + _F64.pack(1.5), b"\4" + _F64.pack(float("nan")), b"\6" + _F64.pack(2.0),
        b"\x07\x05%d %s", b"\x07\x03$.a", b"\x07\x08{\"a\": 1}", b"\x08\x02\xff\xfe", b"\x0a\x02ab",
        b"\x0b\x08" + np.array([1, 2], np.float32).tobytes(), b"\x0c\x02\x01\x02", b"\x0f",
        b"\x07\x09red appl*", b"\x07\x04\xe2\x82\xac!",
    ]  # fmt: skip
    return [
        pieces[(n * 7) % len(pieces)] + pieces[(n * 5 + 3) % len(pieces)] + bytes([n])
        for n in range(4 * len(STATEMENTS))
    ]


TARGETS = [Target("values", run_values, value_seeds, share=2.0)]
