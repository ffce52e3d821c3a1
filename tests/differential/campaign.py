"""Campaign: random scripts on m2mdb and on SQLite; counts `differential_statements`.

Half of the scripts run with thresholds so low that a few rows fill segments, and half with those
from which on columns are worked on as arrays. At a script's end come the checks of `metamorphic`.

A script makes tables and rows, then runs some hundred statements on both sides, many of them with
several sets of values, and in the end all its queries once more. The outcomes are compared; so are,
at the end, all rows. A difference that `differences` does not explain is raised with the script.
"""

from __future__ import annotations

import contextlib
import random
import sqlite3
import time
from collections import Counter
from unittest import mock

from m2mdb.index.database import Database
from m2mdb.pager.errors import Error
from m2mdb.pager.memory_vfs import MemoryVfs
from m2mdb.query import select, vectorised
from m2mdb.query.executor import execute
from m2mdb.wal.store import StoreOptions
from tests.differential import metamorphic
from tests.differential.compare import Outcome, own, same, theirs
from tests.differential.differences import explanation, half_done
from tests.differential.schemas import Table, make_table, value
from tests.differential.statements import FEATURES, Made, Statements
from tests.thresholds import small_thresholds

STATEMENTS = 120  # of a script
ROWS = 12  # INSERT statements before them


class Disagreement(AssertionError):
    """An unexplained difference."""


class Script:
    """One script on both sides."""

    def __init__(self, choose: random.Random) -> None:
        self.choose = choose
        self.counts: Counter[str] = Counter()
        self.log: list[tuple[str, dict[str, object]]] = []
        self.twin = sqlite3.connect(":memory:", isolation_level=None)
        self.twin.text_factory = _text
        # the Bloom filters of SQLite 3.40 beside such indexes leave out what RTRIM calls equal
        self.twin.execute("PRAGMA automatic_index = OFF")
        self.database = Database.open(
            MemoryVfs(), "m.m2m", StoreOptions(create=True), compute="numpy", autocommit=True
        )
        self.features = features(self.database)
        self.stopped = False

    def close(self) -> None:
        """Both sides."""
        self.twin.close()
        self.database.close()

    def check(self, made: Made) -> None:
        """Run a statement on both sides, with values of its own."""
        values = self.write.write.bound() if made.wanted else {}
        self.check_with(made, values)

    def check_with(self, made: Made, values: dict[str, object]) -> None:
        """Run a statement with these values on both sides."""
        if not made.is_query:
            self.log.append((made.sql, values))
        mine, other = own(self.database, made, values), theirs(self.twin, made, values)
        self.counts["differential_statements"] += 1
        if other.error:
            self.counts["differential_errors"] += 1
        if not made.is_query and half_done(made, mine, other):
            self.stopped = True
        elif not same(made, mine, other):
            self._explain(made, values, mine, other)
        elif self.database.in_transaction != self.twin.in_transaction:
            raise Disagreement(self._told(made, values, "in_transaction differs"))

    def _explain(
        self, made: Made, values: dict[str, object], mine: Outcome, other: Outcome
    ) -> None:
        found = explanation(made, mine, other)
        if found is None:
            shown = _shown(made, mine, other)
            raise Disagreement(self._told(made, values, shown))
        self.counts["differential_explained"] += 1
        if found.stops and not made.is_query:
            self.stopped = True

    def _told(self, made: Made, values: dict[str, object], shown: str) -> str:
        return f"{made.sql};\n-- {values}\n{shown}\n-- after:\n{self._before()}"

    def _before(self) -> str:
        return "\n".join(f"{sql};  -- {given}" for sql, given in self.log)

    def run(self, statements: int) -> None:
        """Tables, rows, statements, all rows again."""
        tables = [make_table(self.choose, name) for name in ("t", "u")]
        for table in tables:
            self.log.append((table.create(twin=False), {}))
            self.twin.execute(table.create(twin=True))
            execute(self.database, table.create(twin=False))
        self.write = Statements(self.choose, tables, self.features)
        for _ in range(ROWS):
            self.check(self.write.insert(first=True))
            if self.stopped:
                return
        queries: list[tuple[Made, dict[str, object]]] = []
        for _ in range(statements):
            made = self.write.statement()
            times = self.choose.choice((1, 2, 3)) if made.wanted and made.is_query else 1
            for _ in range(times):
                values = {f"p{at}": self._value(each) for at, each in enumerate(made.wanted)}
                if self.stopped:
                    return
                self.check_with(made, values)
                if made.is_query:
                    queries.append((made, values))
        if self.stopped:
            return
        for made, values in queries:
            self.check_with(made, values)
        for table in tables:
            self.check_with(Made(f"SELECT * FROM {table.name} ORDER BY id", [], ordered=True), {})
        self._metamorphic(tables)

    def _metamorphic(self, tables: list[Table]) -> None:
        """The statements against one another."""
        if self.database.in_transaction:
            execute(self.database, "COMMIT")
        try:
            found = metamorphic.Checks(self.choose, self.database, tables).run(3)
            if self.choose.random() < 0.2:
                found += sum(metamorphic.searches(self.choose, self.database))
        except metamorphic.Broken as error:
            raise Disagreement(f"{error}\n-- after:\n{self._before()}") from error
        self.counts["metamorphic_checks"] += found

    def _value(self, flavour: str) -> object:
        return value(self.choose, flavour)


def _text(raw: bytes) -> str:
    """SQLite cuts and joins bytes; what is no text is shown as m2mdb shows it."""
    return raw.decode("utf-8", "replace")


def _shown(made: Made, mine: Outcome, other: Outcome) -> str:
    """Both outcomes; of rows only those that differ."""
    sides = []
    for name, one, two in (("m2mdb ", mine, other), ("SQLite", other, mine)):
        said = f"{one.error}: {one.message}" if one.error else f"{len(one.rows)} rows"
        if not one.error:
            theirs = list(map(repr, two.rows))
            rows = [row for row in one.rows if repr(row) not in theirs] or one.rows[:9]
            said += f", rowcount {one.rowcount}, lastrowid {one.lastrowid}: {rows[:4]!r}"
        sides.append(f"{name} {said}")
    return "\n".join(sides)


_known: dict[str, frozenset[str]] = {}


def features(database: Database) -> frozenset[str]:
    """What of FEATURES is built."""
    if "" not in _known:
        execute(database, "CREATE TABLE t (id INTEGER PRIMARY KEY)")
        found = {"parameters"}
        for name, sql in FEATURES.items():
            with contextlib.suppress(Error):
                execute(database, sql)
                found.add(name)
        execute(database, "DROP TABLE t")
        _known[""] = frozenset(found)
    return _known[""]


def run(choose: random.Random, statements: int = STATEMENTS) -> Counter[str]:
    """One script; what it counted."""
    script = Script(choose)
    try:
        with contextlib.ExitStack() as stack:
            if choose.random() < 0.5:
                stack.enter_context(small_thresholds())
            if choose.random() < 0.5:
                stack.enter_context(mock.patch.object(vectorised, "LEAST_ROWS", 1))
                stack.enter_context(mock.patch.object(select, "COLUMNAR_ROWS", 1))
            script.run(statements)
    finally:
        script.close()
    return script.counts


def campaign(seconds: float, seed: int) -> dict[str, int]:
    """About so many seconds of scripts."""
    end = time.monotonic() + seconds
    counts: Counter[str] = Counter(differential_statements=0, differential_scripts=0)
    while time.monotonic() < end:
        number = seed * 1_000_003 + counts["differential_scripts"]
        try:
            counts += run(random.Random(number))
        except Disagreement as error:
            raise AssertionError(f"differential: run(random.Random({number})): {error}") from error
        counts["differential_scripts"] += 1
    return dict(counts)
