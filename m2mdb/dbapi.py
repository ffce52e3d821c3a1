"""PEP 249's module globals, type objects and constructors.

A type code in `Cursor.description` is the name of the column's type ("TEXT", "INTEGER", …); the
type objects compare equal to the names that they stand for: `description[0][1] == STRING`.
"""

from __future__ import annotations

import datetime
from typing import Any

apilevel = "2.0"
threadsafety = 2
paramstyle = "qmark"

Date = datetime.date
Time = datetime.time
Timestamp = datetime.datetime
Binary = bytes


class TypeObject:
    """A set of type codes under one of PEP 249's names."""

    __slots__ = ("codes", "name")

    def __init__(self, name: str, *codes: str) -> None:
        self.name = name
        self.codes = frozenset(codes)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, TypeObject):
            return self.codes == other.codes
        return other in self.codes

    def __hash__(self) -> int:
        return hash(self.codes)

    def __repr__(self) -> str:
        return f"m2mdb.{self.name}"


STRING = TypeObject("STRING", "TEXT", "JSON")
BINARY = TypeObject("BINARY", "BLOB", "VECTOR", "TENSOR")
NUMBER = TypeObject("NUMBER", "INTEGER", "REAL", "BOOLEAN")
DATETIME = TypeObject("DATETIME", "TIMESTAMP")
ROWID = TypeObject("ROWID", "ROWID")


def DateFromTicks(ticks: float) -> datetime.date:
    """The local date of a time in seconds since 1970."""
    return datetime.date.fromtimestamp(ticks)


def TimeFromTicks(ticks: float) -> datetime.time:
    """The local time of day of a time in seconds since 1970."""
    return datetime.datetime.fromtimestamp(ticks).time()


def TimestampFromTicks(ticks: float) -> datetime.datetime:
    """The local date and time of a time in seconds since 1970."""
    return datetime.datetime.fromtimestamp(ticks)


def type_code(value: object) -> str | None:
    """The type code of a value that a column gave; None for NULL."""
    return _CODES.get(type(value).__name__)


_CODES = {
    "str": "TEXT",
    "int": "INTEGER",
    "float": "REAL",
    "bool": "BOOLEAN",
    "bytes": "BLOB",
    "datetime": "TIMESTAMP",
    "ndarray": "VECTOR",
}


def column_codes(result: Any, count: int) -> list[str | None]:
    """The type code of each column: as the result declares it, else by its first value."""
    declared = getattr(result, "types", None)
    codes: list[str | None] = list(declared) if declared else [None] * count
    for column in range(count):
        if codes[column] is None:
            values = (row[column] for row in result.rows)
            codes[column] = next((type_code(value) for value in values if value is not None), None)
    return codes
