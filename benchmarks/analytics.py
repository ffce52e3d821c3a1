"""Scans, filters, groupings and joins over a million rows, beside sqlite3 on the same rows.

python benchmarks/analytics.py --count 1000000

Each statement is run once on a file that was just opened (its first ratio is printed apart), then
turn by turn with sqlite3, with other bounds each time, so that nothing that is kept of a turn helps
the next one; the answers of both must be the same. Point SELECT by key is measured as
well: what makes scans fast must not make it slow.
"""

from __future__ import annotations

import math
import os
import sqlite3
import sys
from typing import Any

import common  # sets the number of threads before NumPy loads
import numpy as np

import m2mdb

SCAN_GATE, POINT_GATE = 2.0, 0.1  # times sqlite3's speed
STATEMENTS = {
    "filter, count, sum, avg": "SELECT count(*), sum(n), avg(x) FROM t WHERE y > :low",
    "filter on a text": "SELECT count(*), max(x) FROM t WHERE topic = :topic AND x < :low",
    "no filter": "SELECT max(x), min(y), total(n) FROM t",
    "GROUP BY text": "SELECT topic, count(*), avg(x), max(n) FROM t WHERE y > :low GROUP BY topic",
    "GROUP BY integer": "SELECT n, sum(x) FROM t GROUP BY n",
    "GROUP BY two, computed": "SELECT topic, n % 10, sum(x * y) FROM t GROUP BY 1, 2",
    "join and group": "SELECT k.owner, count(*), sum(t.n) FROM t JOIN k ON k.name = t.topic "
    "WHERE t.y > :low + 0.6 GROUP BY k.owner",
}
FUNCTIONS = {  # without a gate: each row's text is taken apart in Python
    "json_extract": "SELECT sum(json_extract(m, '$.a')) FROM d",
    "two parts of a document": "SELECT max(m ->> 'a'), max(m ->> 'b') FROM d",
    "date": "SELECT count(*) FROM d WHERE date(s) > '2024-06-01'",
    "GROUP BY strftime": "SELECT strftime('%Y-%m', s), count(*) FROM d GROUP BY 1",
    "date with a modifier": "SELECT count(*) FROM d WHERE date(s, '+1 month') > '2024-06-01'",
    "unixepoch": "SELECT sum(unixepoch(s)) FROM d",
}
DOCUMENTS = "CREATE TABLE d (id INTEGER PRIMARY KEY, m TEXT, s TEXT)"
CREATE = "CREATE TABLE t (id INTEGER PRIMARY KEY, topic TEXT, n INTEGER, x REAL, y REAL)"
POINT = "SELECT topic, n FROM t WHERE id = ?"


def filled(folder: str, count: int) -> tuple[str, sqlite3.Connection]:
    """The path of our file, closed, and sqlite3 on the same rows."""
    random = np.random.default_rng(1)
    columns: dict[str, Any] = {
        "id": np.arange(count),
        "topic": [f"topic{number}" for number in random.integers(0, 40, count).tolist()],
        "n": random.integers(0, 1000, count),
        "x": random.standard_normal(count),
        "y": random.random(count),
    }
    owners = [(f"topic{number}", f"owner{number % 7}") for number in range(40)]
    path = os.path.join(folder, "analytics.m2m")
    with m2mdb.connect(path) as con:
        for store in (con, theirs := sqlite3.connect(os.path.join(folder, "analytics.sqlite"))):
            store.execute(CREATE)
            store.execute("CREATE TABLE k (name TEXT PRIMARY KEY, owner TEXT)")
            store.executemany("INSERT INTO k VALUES (?, ?)", owners)
        con.collection("t").add(columns)
    lists = [each if isinstance(each, list) else each.tolist() for each in columns.values()]
    theirs.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?)", zip(*lists, strict=True))
    theirs.commit()
    return path, theirs


def documents(count: int) -> list[tuple[int, str, str]]:
    """Rows with a document and a moment."""
    random = np.random.default_rng(2)
    moments = np.datetime64("2024-01-01T00:00:00") + random.integers(0, 31_536_000, count)
    texts = [text.replace("T", " ") for text in np.datetime_as_string(moments).tolist()]
    numbers = random.integers(0, 1000, count).tolist()
    return [
        (row, f'{{"a": {number}, "b": "x{row}", "c": [1, {number / 8}]}}', text)
        for row, (number, text) in enumerate(zip(numbers, texts, strict=True))
    ]


def functions(folder: str, count: int, rounds: int) -> common.Table:
    """Functions of dates and JSON over rows that nearly all differ."""
    rows, table = documents(count), common.Table(f"functions over {count} rows: times sqlite3's")
    theirs = sqlite3.connect(os.path.join(folder, "documents.sqlite"))
    with m2mdb.connect(os.path.join(folder, "documents.m2m")) as ours:
        for store in (ours, theirs):
            store.execute(DOCUMENTS)
        theirs.executemany("INSERT INTO d VALUES (?, ?, ?)", rows)
        columns: dict[str, Any] = dict(zip("ims", zip(*rows, strict=True), strict=True))
        ours.collection("d").add(
            {"id": list(columns["i"]), "m": list(columns["m"]), "s": list(columns["s"])}
        )
        for _ in range(rounds):
            for name, statement in FUNCTIONS.items():
                mine, found = timed(ours, statement, {})
                other, expected = timed(theirs, statement, {})
                assert near(found) == near(expected), statement
                table.add(name, other / mine, f"{mine / count * 1e6:.2f} us a row, sqlite3 "
                          f"{other / count * 1e6:.2f}")  # fmt: skip
    theirs.close()
    return table


def near(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Rows with reals cut to 10 digits: the order in which they are added may differ in a join."""
    shown = [
        tuple([float(f"{v:.10g}") if isinstance(v, float) and math.isfinite(v) else v for v in row])
        for row in rows
    ]
    return sorted(shown, key=repr)


def timed(con: Any, statement: str, values: dict[str, Any]) -> tuple[float, Any]:
    """Seconds of a statement, and its rows."""
    rows: list[Any] = []
    taken = common.seconds(lambda: rows.extend(con.execute(statement, values).fetchall()))
    return taken, rows


def main() -> int:
    """Print the ratios; 1 where a gate is missed."""
    given = common.arguments(__doc__ or "", 1_000_000, 7)
    with common.workplace(given.folder) as folder:
        path, theirs = filled(folder, given.count)
        ours = m2mdb.connect(path)
        table = common.Table(f"{given.count} rows: times sqlite3's speed")
        first = common.Table("the same, first run of each on a file just opened")
        for turn in range(given.rounds + 1):
            bound = {"low": 0.25 + turn / 100, "topic": f"topic{7 + turn}"}
            for name, statement in STATEMENTS.items():
                values = {key: value for key, value in bound.items() if f":{key}" in statement}
                mine, found = timed(ours, statement, values)
                other, expected = timed(theirs, statement, values)
                text = f"{mine * 1e3:.1f} ms, sqlite3 {other * 1e3:.1f} ms"
                assert near(found) == near(expected), statement
                if turn:
                    table.add(name, other / mine, text, SCAN_GATE)
                else:
                    first.add(name, other / mine, text)
        keys = np.random.default_rng(3).integers(0, given.count, 3000).tolist()
        for _ in range(given.rounds):
            mine = common.seconds(lambda: [ours.execute(POINT, (k,)).fetchone() for k in keys])
            other = common.seconds(lambda: [theirs.execute(POINT, (k,)).fetchone() for k in keys])
            text = f"{len(keys) / mine:.0f}/s, sqlite3 {len(keys) / other:.0f}/s"
            table.add("point SELECT by key", other / mine, text, POINT_GATE)
        ours.close()
        theirs.close()
        first.show()
        functions(folder, given.count, min(3, given.rounds)).show()
        return 0 if table.show() else 1


if __name__ == "__main__":
    sys.exit(main())
