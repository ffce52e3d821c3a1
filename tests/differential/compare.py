"""What a statement did, on both sides, and whether that is the same.

An outcome is an error or rows with rowcount and lastrowid. Types are compared; a boolean is an
integer there. Reals may differ in their last digits (`differences`: "digits of reals").
"""

from __future__ import annotations

import math
import re
import sqlite3
from collections import Counter
from dataclasses import dataclass
from typing import Any

from m2mdb.index.database import Database
from m2mdb.pager.errors import Error
from m2mdb.query.executor import execute
from tests.differential.statements import Made

REAL_DIGITS = 1e-11
_NUMERAL = re.compile(r"[-+]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][-+]?\d+)?")


@dataclass(slots=True)
class Outcome:
    """Rows, or an error."""

    rows: list[tuple[Any, ...]]
    rowcount: int = -1
    lastrowid: int | None = None
    error: str = ""
    message: str = ""


def own(database: Database, made: Made, values: dict[str, object]) -> Outcome:
    """What m2mdb does."""
    try:
        result = execute(database, made.sql, values)
    except Error as error:
        return Outcome([], error=type(error).__name__, message=str(error))
    changed = -1 if made.is_query or result.columns is not None else result.rowcount
    return Outcome([tuple(map(plain, row)) for row in result.rows], changed, result.lastrowid)


def theirs(twin: sqlite3.Connection, made: Made, values: dict[str, object]) -> Outcome:
    """What SQLite does."""
    try:
        cursor = twin.execute(made.sql, values)
        rows = cursor.fetchall()
    except (sqlite3.Error, OverflowError) as error:
        return Outcome([], error=type(error).__name__, message=str(error))
    changed = -1 if made.is_query or cursor.description is not None else cursor.rowcount
    return Outcome(rows, changed, cursor.lastrowid)


def plain(value: Any) -> Any:
    """A value as SQLite has it."""
    if value is True or value is False:
        return int(value)
    return "integer" if value == "boolean" and type(value) is str else value


def same(made: Made, mine: Outcome, other: Outcome) -> bool:
    """Whether both did the same."""
    if mine.error or other.error:
        return bool(mine.error) == bool(other.error)
    if len(mine.rows) != len(other.rows):
        return False
    is_insert = made.sql.startswith(("INSERT", "REPLACE")) and " CONFLICT " not in made.sql
    if is_insert and mine.rowcount > 0 and mine.lastrowid != other.lastrowid:
        return False
    if mine.rowcount != other.rowcount and not made.sql.startswith(_UNCOUNTED):
        return False
    if made.ordered and same_rows(mine.rows, other.rows, made.loose):
        return True
    if made.ordered and not made.loose:
        return False
    if made.ordered and not _same_numbers(mine.rows, other.rows):
        return False
    return same_rows(*_remaining(mine.rows, other.rows, made.loose), made.loose)


_UNCOUNTED = ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "CREATE", "DROP")


def _same_numbers(mine: list[tuple[Any, ...]], other: list[tuple[Any, ...]]) -> bool:
    """In order, with 1 and 1.0 alike: ties of ORDER BY stand in any order."""
    return same_rows(mine, other, True)


def same_rows(mine: list[tuple[Any, ...]], other: list[tuple[Any, ...]], loose: bool) -> bool:
    """Row by row."""
    return all(
        len(one) == len(two) and all(_alike(a, b, loose) for a, b in zip(one, two, strict=True))
        for one, two in zip(mine, other, strict=True)
    )


def _remaining(
    mine: list[tuple[Any, ...]], other: list[tuple[Any, ...]], loose: bool
) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Both sides in one order, without the rows that are exactly the same on both."""
    key = _key if loose else _typed_key
    counts = Counter(map(repr, mine)) & Counter(map(repr, other))
    sides = []
    for rows in (mine, other):
        left, kept = counts.copy(), []
        for row in rows:
            if left[repr(row)]:
                left[repr(row)] -= 1
            else:
                kept.append(row)
        sides.append(sorted(kept, key=key))
    return sides[0], sides[1]


def _key(row: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """Sorts rows of values of any type; reals that are nearly the same by what stands behind."""
    return [
        (0, 0) if each is None
        else (1, each) if isinstance(each, int)
        else (1, float(f"{each:.9g}")) if isinstance(each, float)
        else (2, each) if isinstance(each, str)
        else (3, each)
        for each in row
    ]  # fmt: skip


def _typed_key(row: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """As `_key`, with 1 before 1.0."""
    return [(*key, type(each).__name__) for key, each in zip(_key(row), row, strict=True)]


def _alike(mine: Any, other: Any, loose: bool) -> bool:
    if type(mine) is not type(other):
        numbers = isinstance(mine, int | float) and isinstance(other, int | float)
        return loose and numbers and close(float(mine), float(other))
    if mine == other:
        return True
    if isinstance(mine, float):
        return close(mine, other)
    if isinstance(mine, str):
        return _alike_texts(mine, other)
    return False


def close(mine: float, other: float) -> bool:
    """Equal but for the last digits."""
    if math.isinf(mine) or math.isinf(other):
        return mine == other
    return math.isclose(mine, other, rel_tol=REAL_DIGITS, abs_tol=1e-300)


def _alike_texts(mine: str, other: str) -> bool:
    """Texts that differ in the last digits of reals alone."""
    mine = mine.replace("9e999", "Inf")  # what SQLite writes into JSON is no JSON
    if _NUMERAL.sub("#", mine) != _NUMERAL.sub("#", other):
        return False
    pairs = zip(_NUMERAL.findall(mine), _NUMERAL.findall(other), strict=True)
    return all(
        one == two or (_is_long(one + two) and close(float(one), float(two))) for one, two in pairs
    )


def _is_long(numerals: str) -> bool:
    """Whether numerals may be of reals with all their digits."""
    return "." in numerals or len(numerals) > 32
