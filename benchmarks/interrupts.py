"""How long a statement goes on after `interrupt()`, for each kind of work over many rows.

python benchmarks/interrupts.py --count 1000000 --rounds 10
python benchmarks/interrupts.py --gaps       the longest time between two looks, one run each

Each statement is begun and interrupted by another thread after a random part of the time that it
takes undisturbed; printed is how long it then went on: from the moment for which the interrupt was
meant, waiting for the interpreter included, until its error was raised. Behind each interrupt the
connection answers a query, and has the rows that it had.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import common  # sets the number of threads before NumPy loads
import numpy as np

import m2mdb

MOST_MS = 50.0
LONGEST = 4.0  # seconds of a run, after which it is interrupted as well
QUERIES = {
    "ORDER BY integer": "SELECT id FROM t ORDER BY n LIMIT 5",
    "ORDER BY real DESC": "SELECT id FROM t ORDER BY x DESC LIMIT 5",
    "ORDER BY text": "SELECT id FROM t ORDER BY word LIMIT 5",
    "ORDER BY two keys": "SELECT id FROM t ORDER BY topic, x LIMIT 5",
    "ORDER BY an expression": "SELECT id FROM t ORDER BY n * x LIMIT 5",
    "all rows": "SELECT * FROM t",
    "DISTINCT integer": "SELECT DISTINCT n FROM t",
    "DISTINCT text": "SELECT DISTINCT word FROM t",
    "GROUP BY integer": "SELECT n, count(*), sum(x) FROM t GROUP BY n",
    "GROUP BY wide integer": "SELECT w, count(*), sum(x) FROM t GROUP BY w",
    "GROUP BY real": "SELECT x, count(*) FROM t GROUP BY x",
    "GROUP BY text": "SELECT topic, avg(x), max(n) FROM t GROUP BY topic",
    "GROUP BY many texts": "SELECT word, count(*), max(n) FROM t GROUP BY word",
    "count(DISTINCT)": "SELECT count(DISTINCT word), count(DISTINCT n) FROM t",
    "group_concat": "SELECT length(group_concat(word)) FROM t",
    "sum of a product": "SELECT sum(x * y), min(n - w), avg(x) FROM t",
    "join by integer": "SELECT count(*) FROM t JOIN u ON u.n = t.w",
    "join by text": "SELECT count(*) FROM t JOIN u ON u.word = t.word",
    "join by two keys": "SELECT count(*) FROM t JOIN u ON u.n = t.n AND u.x = t.x",
    "join of many pairs": "SELECT count(*) FROM t JOIN k ON k.topic = t.topic",
    "LEFT JOIN": "SELECT count(u.n) FROM t LEFT JOIN u ON u.n = t.w",
    "cross join, range": "SELECT count(*) FROM t JOIN s ON t.x BETWEEN s.low AND s.high",
    "cross join, <>": "SELECT count(*) FROM s AS a JOIN s AS b ON a.low <> b.low AND a.id < b.id",
    "cross join, no condition": "SELECT count(*) FROM t, s",
    "IN a query": "SELECT count(*) FROM t WHERE n IN (SELECT w FROM t)",
    "IN a parameter": "SELECT count(*) FROM t WHERE w IN :many",
    "WHERE on a text": "SELECT count(*) FROM t WHERE word LIKE '%77%'",
    "WHERE by row": "SELECT count(*) FROM t WHERE n * x + y > 1e9",
    "UNION": "SELECT word, n FROM t UNION SELECT word, w FROM t",
    "EXCEPT": "SELECT n FROM t EXCEPT SELECT w FROM t",
    "subquery in FROM": "SELECT count(*) FROM (SELECT word, n FROM t) AS a WHERE a.n > 50",
    "UPDATE": "UPDATE t SET n = n + 1",
    "DELETE": "DELETE FROM t WHERE n >= 0",
    "INSERT SELECT": "INSERT INTO t (topic, word, n) SELECT topic, word, n FROM t",
    "CREATE INDEX": "CREATE INDEX t_n ON t (n)",
    "CREATE INDEX bm25": "CREATE INDEX t_word ON t USING bm25 (word)",
    "ANALYZE": "ANALYZE",
}  # fmt: skip
TOPICS = 40


def filled(folder: str, count: int) -> str:
    """The path of a file with `count` rows in t, a fifth of them in u, and a few in s and k."""
    path = os.path.join(folder, f"interrupts{count}.m2m")
    if os.path.exists(path):
        return path
    random = np.random.default_rng(1)
    with m2mdb.connect(path) as con:
        con.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, topic TEXT, word TEXT, n INTEGER, "
                    "w INTEGER, x REAL, y REAL)")  # fmt: skip
        con.execute("CREATE TABLE u (word TEXT, n INTEGER, x REAL)")
        con.execute("CREATE TABLE s (id INTEGER PRIMARY KEY, low REAL, high REAL)")
        con.execute("CREATE TABLE k (topic TEXT, owner TEXT)")
        numbers = random.integers(0, count, count)
        reals = random.standard_normal(count)
        words = [f"word {number} of the list" for number in random.integers(0, count, count)]
        con.collection("t").add({
            "topic": [f"topic{number}" for number in random.integers(0, TOPICS, count).tolist()],
            "word": words, "n": numbers, "w": random.integers(0, 1 << 60, count), "x": reals,
            "y": random.random(count),
        })  # fmt: skip
        fifth = count // 5
        con.collection("u").add({"word": words[:fifth], "n": numbers[:fifth], "x": reals[:fifth]})
        lows = random.standard_normal(2000)
        con.collection("s").add({"low": lows, "high": lows + 1e-4})
        owners = [(f"topic{number % TOPICS}", f"owner{number}") for number in range(200)]
        con.executemany("INSERT INTO k VALUES (?, ?)", owners)
    return path


def works(con: Any, vectors: np.ndarray, texts: list[str]) -> dict[str, Callable[[], object]]:
    """Each kind of work by its name; what it writes is rolled back by the caller."""
    many = np.random.default_rng(2).integers(0, 1 << 60, 300_000).tolist()
    found: dict[str, Callable[[], object]] = {
        name: partial(con.execute, statement, {"many": many} if ":many" in statement else ())
        for name, statement in QUERIES.items()
    }
    notes, batch = con.collection("v"), {"embedding": vectors}
    queries = vectors[:64] + np.float32(0.01)
    found["exact search"] = lambda: notes.search(near=queries[0], k=10, exact=True)
    found["exact search, f16"] = lambda: con.collection("h").search(near=queries[0], k=10)
    found["batch of 64"] = lambda: notes.search_batch(near=queries, k=10, exact=True)
    found["filtered search"] = lambda: notes.search(near=queries[0], k=10, where="rowid % 3 = 0")
    found["add vectors"] = lambda: notes.add(batch)
    found["add texts"] = lambda: con.collection("d").add({"body": texts})
    found["add a million rows"] = lambda: con.collection("s").add(
        {"low": np.arange(1e6), "high": np.arange(1e6)}
    )
    return found


class Watch:
    """The longest time between two looks for an interrupt."""

    def __init__(self, database: Any) -> None:
        self._database = database
        self._given = database.check_interrupted
        self._last = 0.0
        self.longest = 0.0

    def _look(self) -> None:
        now = time.perf_counter()
        self.longest = max(self.longest, now - self._last)
        self._last = now
        self._given()

    def run(self, work: Callable[[], object]) -> float:
        """Seconds that the work took; `longest` is the gap."""
        self._database.check_interrupted = self._look
        self.longest, start = 0.0, time.perf_counter()
        self._last = start
        try:
            work()
        finally:
            del self._database.check_interrupted
        end = time.perf_counter()
        self.longest = max(self.longest, end - self._last)
        return end - start


def interrupted(con: Any, work: Callable[[], object], delay: float) -> float | None:
    """Seconds that the work went on behind an interrupt after `delay`; None: it had ended."""
    meant = [0.0]
    ended = threading.Event()

    def interrupt() -> None:
        if not ended.wait(max(0.0, meant[0] - time.perf_counter())):
            con.interrupt()

    thread = threading.Thread(target=interrupt)
    meant[0] = time.perf_counter() + delay
    thread.start()
    try:
        work()
    except m2mdb.StatementInterruptedError:
        return time.perf_counter() - meant[0]
    finally:
        ended.set()
        thread.join()
    return None


def measured(con: Any, work: Callable[[], object], rounds: int) -> tuple[float, list[float]]:
    """Seconds of an undisturbed run, and the latencies in ms of the interrupts that hit."""
    random = np.random.default_rng(3)
    before = con.execute("SELECT count(*) FROM t").fetchall()
    con.rollback()
    con.execute("BEGIN IMMEDIATE")
    start = time.perf_counter()
    interrupted(con, work, LONGEST)
    whole = time.perf_counter() - start
    con.rollback()
    latencies = []
    for _ in range(rounds):
        con.execute("BEGIN IMMEDIATE")
        found = interrupted(con, work, random.random() * whole)
        if found is not None:
            latencies.append(found * 1000)
            assert con.execute("SELECT count(*) FROM t").fetchall() == before
        con.rollback()
    return whole, latencies


def main() -> int:
    """Print the latencies; 1 where one in a hundred is above 50 ms."""
    parser = common.parser(__doc__ or "", 1_000_000, 10)
    parser.add_argument("--gaps", action="store_true", help="one run each, the longest gap")
    parser.add_argument("--vectors", type=int, default=100_000, help="rows with 384 numbers")
    parser.add_argument("--parts", type=int, default=1, help="each n-th kind alone, from --part on")
    parser.add_argument("--part", type=int, default=0)
    parser.add_argument("--only", default="", help="of the kinds whose name has this in it")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = options.folder or stack.enter_context(common.workplace(None))
        path = filled(folder, options.count)
        random = np.random.default_rng(4)
        vectors = random.standard_normal((options.vectors, 384), np.float32)
        texts = common.Data(None, options.vectors // 10).texts * 10
        with m2mdb.connect(path, compute="numba") as con:
            for name, kind in (("v", "f32"), ("h", "f16")):
                con.execute(f"CREATE TABLE IF NOT EXISTS {name} (embedding VECTOR(384, {kind}))")
                if not con.execute(f"SELECT count(*) FROM {name}").fetchone()[0]:
                    con.collection(name).add({"embedding": vectors})
            con.execute("CREATE TABLE IF NOT EXISTS d (body TEXT FULLTEXT)")
            con.commit()
            return report(con, works(con, vectors, texts), options)


def report(con: Any, kinds: dict[str, Callable[[], object]], options: Any) -> int:
    """Run and print all kinds."""
    every: list[float] = []
    for number, (name, work) in enumerate(kinds.items()):
        if options.only not in name or number % options.parts != options.part:
            continue
        if options.gaps:
            con.execute("BEGIN IMMEDIATE")
            watch = Watch(con.database)
            whole = watch.run(partial(interrupted, con, work, LONGEST))
            con.rollback()
            print(f"{name:26} {whole * 1000:8.0f} ms, longest gap {watch.longest * 1000:7.1f} ms",
                  flush=True)  # fmt: skip
            continue
        whole, latencies = measured(con, work, options.rounds)
        every += latencies
        median, worst = np.percentile(latencies, [50, 100]) if latencies else (0.0, 0.0)
        shown = ",".join(f"{each:.1f}" for each in latencies)
        print(f"{name:26} {whole * 1000:8.0f} ms, went on {median:6.1f} ms, at most {worst:6.1f} "
              f"({len(latencies)}: {shown})", flush=True)  # fmt: skip
    if not every:
        return 0
    p50, p99, most = np.percentile(every, [50, 99, 100])
    print(f"{len(every)} interrupts: p50 {p50:.1f} ms, p99 {p99:.1f}, at most {most:.1f}")
    return int(p99 > MOST_MS)


if __name__ == "__main__":
    sys.exit(main())
