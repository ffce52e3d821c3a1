"""Metamorphic checks: statements that must agree with one another, whatever SQLite says.

partition    WHERE p, WHERE NOT p and WHERE p IS NULL share out all rows
vectorised   WHERE p finds the rows for which p, evaluated row by row, is true
grouped      GROUP BY over arrays gives what GROUP BY row by row gives
constants    an expression of literals, of bound values and of columns that hold them is one
indexed      a condition finds the same rows with an index and without
search       SEARCH with a filter gives the exact search of the rows that pass it
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np

from m2mdb.index.database import Database
from m2mdb.pager.errors import Error
from m2mdb.query import vectorised
from m2mdb.query.executor import execute
from tests.differential.expressions import Expressions, Field
from tests.differential.schemas import Table, literal, value
from tests.differential.statements import Statements

DIMENSION = 5


class Broken(AssertionError):
    """Two statements that must agree and do not."""


class Checks:
    """The checks of one database."""

    def __init__(self, choose: random.Random, database: Database, tables: list[Table]) -> None:
        self.choose = choose
        self.database = database
        self.tables = tables
        self.statements = Statements(choose, tables, frozenset())
        self.write = self.statements.write

    def run(self, rounds: int) -> int:
        """So many rounds of all checks; how many pairs of statements were compared."""
        count = 0
        for _ in range(rounds):
            for check in (self.partition, self.vectorised, self.grouped, self.constants):
                count += check()
        return count + self.indexed()

    def rows(self, sql: str, values: Any = ()) -> list[tuple[Any, ...]] | str:
        """A statement's rows, or the name of its error."""
        try:
            return execute(self.database, sql, values).rows
        except Error as error:
            return type(error).__name__

    def _condition(self) -> tuple[Table, str]:
        table = self.choose.choice(self.tables)
        self.write.begin(self.statements.fields_of(table))
        return table, self.write.condition(self.choose.randint(0, 3))

    def partition(self) -> int:
        """Every row is in one of the three."""
        table, condition = self._condition()
        parts = [
            self.rows(f"SELECT id FROM {table.name} WHERE {each}")
            for each in (condition, f"NOT ({condition})", f"({condition}) IS NULL")
        ]
        whole = self.rows(f"SELECT id FROM {table.name}")
        if any(isinstance(part, str) for part in parts):
            return 0  # a value that is refused
        found = sorted(row for part in parts for row in part)
        if found != sorted(whole):
            raise Broken(f"WHERE {condition} on {table.name}: {parts} of {whole}")
        return 1

    def vectorised(self) -> int:
        """The filter against the value of the same expression."""
        table, condition = self._condition()
        found = self.rows(f"SELECT id FROM {table.name} WHERE {condition}")
        told = self.rows(f"SELECT id, ({condition}) IS TRUE FROM {table.name}")
        if isinstance(found, str) or isinstance(told, str):
            return 0
        if sorted(found) != sorted((row[0],) for row in told if row[1]):
            raise Broken(f"WHERE {condition} on {table.name}: {found}, row by row {told}")
        return 1

    def grouped(self) -> int:
        """GROUP BY over arrays and in the loop."""
        made = self.statements.grouped()
        with mock.patch.object(vectorised, "LEAST_ROWS", 1):
            arrays = self.rows(made.sql)
        self.database.plans.clear()
        with mock.patch.object(vectorised, "LEAST_ROWS", 1 << 60):
            loop = self.rows(made.sql)
        self.database.plans.clear()
        if repr(arrays) != repr(loop) and not _same_errors(arrays, loop):
            raise Broken(f"{made.sql}: arrays {arrays}, loop {loop}")
        return 1

    def constants(self) -> int:
        """Literals, bound values and columns."""
        flavours = [self.choose.choice(("small", "wild", "real", "far", "text", "json", "blob"))
                    for _ in range(3)]  # fmt: skip
        values = [value(self.choose, each) for each in flavours]
        names = ["v0", "v1", "v2"]
        fields = [Field(name, each) for name, each in zip(names, flavours, strict=True)]
        expressions = Expressions(self.choose, frozenset())
        expressions.begin(fields)
        text = expressions.any(3)
        listed = ", ".join(f"{literal(self.choose, each)} AS {name}"
                           for each, name in zip(values, names, strict=True))  # fmt: skip
        bound = ", ".join(f":{name} AS {name}" for name in names)
        given = dict(zip(names, values, strict=True))
        outcomes = [
            self.rows(f"SELECT {text} FROM (SELECT {listed}) AS s"),
            self.rows(f"SELECT {text} FROM (SELECT {bound}) AS s", given),
            self.rows(f"SELECT {_with_values(text, names, given, self.choose)}"),
        ]
        if len({repr(each) for each in outcomes}) != 1:
            raise Broken(f"{text} of {given}: {outcomes}")
        return 1

    def indexed(self) -> int:
        """Conditions before and after an index is there."""
        table = self.choose.choice(self.tables)
        column = self.choose.choice(table.columns)
        self.write.begin([Field(column.name, column.flavour), Field("id", "small")])
        conditions = [self.write.plain_condition() for _ in range(8)]
        before = [self.rows(f"SELECT id FROM {table.name} WHERE {each}") for each in conditions]
        try:
            execute(self.database, f"CREATE INDEX metamorphic ON {table.name} ({column.name})")
        except Error:
            return 0  # there is one already
        after = [self.rows(f"SELECT id FROM {table.name} WHERE {each}") for each in conditions]
        execute(self.database, "DROP INDEX metamorphic")
        for condition, one, other in zip(conditions, before, after, strict=True):
            if one != other:
                raise Broken(f"WHERE {condition} on {table.name}: scan {one}, index {other}")
        return len(conditions)


def _same_errors(one: object, other: object) -> bool:
    return isinstance(one, str) and isinstance(other, str)


def _with_values(
    text: str, names: list[str], given: dict[str, object], choose: random.Random
) -> str:
    """The expression with its columns' names replaced by literals."""
    import re

    return re.sub(
        "|".join(rf"\b{name}\b" for name in names),
        lambda found: f"(+{literal(choose, given[found.group()])})",
        text,
    )


def searches(choose: random.Random, database: Database) -> Iterator[int]:
    """SEARCH with filters against NumPy over the rows that pass them."""
    execute(
        database,
        f"CREATE TABLE v (id INTEGER PRIMARY KEY, a INTEGER, c TEXT, e VECTOR({DIMENSION}))",
    )
    generator = np.random.default_rng(choose.getrandbits(32))
    table = Table("v")
    statements = Statements(choose, [table], frozenset())
    for row in range(choose.randint(20, 80)):
        vector = None if row % 9 == 4 else generator.normal(size=DIMENSION).astype(np.float32)
        given = (row, value(choose, "small"), value(choose, "text"), vector)
        execute(database, "INSERT INTO v VALUES (?, ?, ?, ?)", given)
    fields = [Field("id", "small"), Field("a", "small"), Field("c", "text")]
    for _ in range(10):
        statements.write.begin(fields)
        where = statements.write.condition(choose.randint(0, 2))
        k, query = choose.randint(1, 12), generator.normal(size=DIMENSION).astype(np.float32)
        try:
            passing = execute(database, f"SELECT id, e FROM v WHERE {where}").rows
            found = execute(
                database, f"SEARCH v NEAR ? WHERE {where} K {k} RETURNING id, distance", (query,)
            ).rows
            ordered = execute(
                database, f"SELECT id, e <=> ? FROM v WHERE {where} ORDER BY 2 LIMIT {k}", (query,)
            ).rows
        except Error:
            continue
        _check_search(where, found, passing, (query, k))
        _check_search(where, [row for row in ordered if row[1] is not None], passing, (query, k))
        yield 2


def _check_search(
    where: str,
    found: list[tuple[Any, ...]],
    passing: list[tuple[Any, ...]],
    asked: tuple[np.ndarray, int],
) -> None:
    """The hits are the nearest of the rows that pass, by distances that NumPy computes."""
    query, k = asked
    with_vectors = [row for row in passing if row[1] is not None]
    expected = sorted(
        1 - float(np.dot(e, query)) / float(np.linalg.norm(e) * np.linalg.norm(query))
        for _, e in with_vectors
    )[:k]
    ids = {row[0] for row in with_vectors}
    measured = [row[1] for row in found]
    if not {row[0] for row in found} <= ids or not np.allclose(measured, expected, atol=1e-5):
        raise Broken(f"SEARCH v WHERE {where} K {k}: {found}, expected {expected}")
