"""The language's own cost: parsing and planning, and `executemany`, beside sqlite3.

python benchmarks/language.py [--count 20000] [--rounds 5] [--only plan,many]

    plan   a SEARCH that is new, and one that is kept: from its text to a plan that is bound
    many   executemany and its commit, of one to five scalar columns, and with a vector of 384

Scans and point SELECTs are in analytics.py, `.arrow()` in arrow.py, durable inserts in
statements.py. sqlite3 is given its vectors as bytes that are made before the clock starts.
"""

from __future__ import annotations

import os
import sqlite3
import statistics
import sys
from functools import partial
from typing import Any

import common  # sets the number of threads before NumPy loads
import numpy as np

import m2mdb
from m2mdb.query import executor
from m2mdb.query.binding import bind

NEW_GATE, KEPT_GATE = 2_000, 20  # µs
SCALARS_GATE, VECTOR_GATE = 0.2, 0.5  # times sqlite3's rate
SEARCHES = {
    "NEAR": "SEARCH notes NEAR ? K {} RETURNING id, score",
    "NEAR, MATCH, WHERE": "SEARCH notes NEAR ? MATCH ? WHERE topic = ? AND stars > 3 K {} "
    "FUSION rrf RETURNING id, body, score",
    "NEAR, eight conditions": "SEARCH notes NEAR ? WHERE topic IN ('a', 'b', 'c') AND stars "
    "BETWEEN 1 AND 4 AND NOT (body LIKE '%x%' OR body IS NULL) AND id % 7 = 3 AND "
    "coalesce(topic, 'd') <> 'e' AND length(body) > 5 AND CASE WHEN stars > 2 THEN 1 ELSE 0 END "
    "K {} RETURNING id, upper(topic) AS topic, stars * 2 AS twice, score",
    "in FROM, grouped": "SELECT topic, avg(score) FROM (SEARCH notes NEAR ? K {}) GROUP BY topic "
    "ORDER BY 2 DESC LIMIT 5",
}
TYPES = ("INTEGER", "REAL", "TEXT", "INTEGER", "TEXT")
TURNS = 200


def planning(table: common.Table) -> None:
    """A turn of the time from a statement's text to its plan."""
    con = m2mdb.connect(":memory:")
    con.execute(
        "CREATE TABLE notes (id INTEGER PRIMARY KEY, topic TEXT, stars REAL, body TEXT FULLTEXT, "
        "v VECTOR(384))"
    )
    con.execute("INSERT INTO notes (topic, stars, body) VALUES ('a', 2, 'a text')")
    con.commit()
    database, vector = con.engine(), np.ones(384, np.float32)
    for name, text in SEARCHES.items():
        values = (vector, "text", "a")[: text.count("?")]
        new, kept = [], []
        for turn in range(TURNS):
            statement = text.format(10 + turn)
            for found in (new, kept):
                with database.reading() as view:
                    work = partial(_ready, database, statement, values, view)
                    found.append(common.seconds(work))
            database.plans.clear()
        taken = statistics.median(new) * 1e6
        worst = f"worst {max(new) * 1e6:.0f} us"
        table.add(f"new SEARCH {name}, us", taken, worst, NEW_GATE, least=False)
        worst = f"worst {max(kept) * 1e6:.0f} us"
        taken = statistics.median(kept) * 1e6
        table.add(f"kept SEARCH {name}, us", taken, worst, KEPT_GATE, least=False)
    con.close()


def _ready(database: Any, statement: str, values: tuple[Any, ...], view: Any) -> None:
    """What `execute` does of a statement before it runs it."""
    prepared = executor._prepared(database, statement)
    bind(prepared.statement, values)
    prepared.plan(view)


def columns(count: int) -> list[list[Any]]:
    """The five scalar columns, and the vectors."""
    random = np.random.default_rng(1)
    return [
        list(range(count)),
        random.random(count).tolist(),
        [f"text {number}" for number in random.integers(0, 10**6, count).tolist()],
        random.integers(-(10**6), 10**6, count).tolist(),
        [None if number < 10 else f"t{number}" for number in random.integers(0, 99, count)],
    ]


def filled(folder: str, name: str, types: tuple[str, ...], both: list[Any]) -> list[float]:
    """Seconds of ours and of sqlite3 to insert rows with one executemany and one commit."""
    declared = ", ".join(f"c{number} {type}" for number, type in enumerate(types))
    marks = ", ".join("?" * len(types))
    taken = []
    for module, rows in zip((m2mdb, sqlite3), both, strict=True):
        con: Any = module.connect(os.path.join(folder, f"{name}.{module.__name__}"))
        kind = declared if module is m2mdb else declared.replace("VECTOR(384)", "BLOB")
        con.execute(f"CREATE TABLE t ({kind})")
        con.execute("PRAGMA synchronous = full")
        con.commit()

        def work(con: Any = con, rows: Any = rows) -> None:
            con.executemany(f"INSERT INTO t VALUES ({marks})", rows)
            con.commit()

        taken.append(common.seconds(work))
        assert con.execute("SELECT count(*) FROM t").fetchone() == (len(rows),)
        con.close()
    return taken


def many(table: common.Table, folder: str, count: int, turn: int) -> None:
    """A turn of executemany."""
    made = columns(count)
    for width in range(1, len(TYPES) + 1):
        rows = list(zip(*made[:width], strict=True))
        ours, theirs = filled(folder, f"{turn}-{width}", TYPES[:width], [rows, rows])
        text = f"{count / ours:,.0f}/s, sqlite3 {count / theirs:,.0f}/s"
        table.add(f"executemany, {width} scalars", theirs / ours, text, SCALARS_GATE)
    vectors = np.random.default_rng(2).standard_normal((count, 384)).astype(np.float32)
    given = [
        list(zip(made[0], made[2], each, strict=True))
        for each in (list(vectors), [row.tobytes() for row in vectors])
    ]
    types = ("INTEGER", "TEXT", "VECTOR(384)")
    ours, theirs = filled(folder, f"{turn}-v", types, given)
    text = f"{count / ours:,.0f}/s, sqlite3 {count / theirs:,.0f}/s"
    table.add("executemany, with a vector of 384", theirs / ours, text, VECTOR_GATE)


def main() -> int:
    """Print the figures; 1 where a gate is missed."""
    parser = common.parser(__doc__ or "", 20_000, 5)
    parser.add_argument("--only", default="plan,many", help="plan, many or both")
    given = parser.parse_args()
    table = common.Table("the language's own cost; executemany as times sqlite3's rate")
    with common.workplace(given.folder) as folder:
        for turn in range(given.rounds):
            if "plan" in given.only:
                planning(table)
            if "many" in given.only:
                many(table, folder, given.count, turn)
    return 0 if table.show() else 1


if __name__ == "__main__":
    sys.exit(main())
