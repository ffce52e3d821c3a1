"""The kinds of statements that `interrupts.py` interrupts, and the file that they work on."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import common  # sets the number of threads before NumPy loads
import numpy as np

import m2mdb
from m2mdb.compute.loader import LOADER

TOPICS = 40
STATEMENTS = {
    "ORDER BY integer": "SELECT id FROM t ORDER BY n LIMIT 5",
    "ORDER BY real DESC": "SELECT id FROM t ORDER BY x DESC LIMIT 5",
    "ORDER BY text": "SELECT id FROM t ORDER BY word LIMIT 5",
    "ORDER BY two keys": "SELECT id FROM t ORDER BY topic, x LIMIT 5",
    "ORDER BY three keys": "SELECT id FROM t ORDER BY topic DESC, n % 10, word LIMIT 5",
    "ORDER BY an expression": "SELECT id FROM t ORDER BY n * x LIMIT 5",
    "ORDER BY, all rows": "SELECT * FROM t ORDER BY n",
    "all rows": "SELECT * FROM t",
    "DISTINCT integer": "SELECT DISTINCT n FROM t",
    "DISTINCT text": "SELECT DISTINCT word FROM t",
    "DISTINCT two columns": "SELECT DISTINCT topic, n FROM t",
    "GROUP BY integer": "SELECT n, count(*), sum(x) FROM t GROUP BY n",
    "GROUP BY wide integer": "SELECT w, count(*), sum(x) FROM t GROUP BY w",
    "GROUP BY real": "SELECT x, count(*) FROM t GROUP BY x",
    "GROUP BY text": "SELECT topic, avg(x), max(n) FROM t GROUP BY topic",
    "GROUP BY many texts": "SELECT word, count(*), max(n) FROM t GROUP BY word",
    "GROUP BY two keys": "SELECT topic, n % 1000, sum(x) FROM t GROUP BY 1, 2 ORDER BY 3",
    "count(DISTINCT)": "SELECT count(DISTINCT word), count(DISTINCT n) FROM t",
    "group_concat": "SELECT length(group_concat(word)) FROM t",
    "sum of a product": "SELECT sum(x * y), min(n - w), avg(x) FROM t",
    "join by integer": "SELECT count(*) FROM t JOIN u ON u.n = t.w",
    "join by text": "SELECT count(*) FROM t JOIN u ON u.word = t.word",
    "join by two keys": "SELECT count(*) FROM t JOIN u ON u.n = t.n AND u.x = t.x",
    "join of many pairs": "SELECT count(*) FROM t JOIN k ON k.topic = t.topic",
    "join, all columns": "SELECT t.word, u.x FROM t JOIN u ON u.n = t.n",
    "LEFT JOIN": "SELECT count(u.n) FROM t LEFT JOIN u ON u.n = t.w",
    "cross join, range": "SELECT count(*) FROM t JOIN s ON t.x BETWEEN s.low AND s.high",
    "cross join, <>": "SELECT count(*) FROM s AS a JOIN s AS b ON a.low <> b.low AND a.id < b.id",
    "cross join, no condition": "SELECT count(*) FROM u, k",
    "IN a query": "SELECT count(*) FROM t WHERE n IN (SELECT w FROM t)",
    "IN a parameter": "SELECT count(*) FROM t WHERE w IN :many",
    "a correlated subquery": "SELECT count(*) FROM k WHERE (SELECT max(n) FROM t "
                             "WHERE t.topic = k.topic) > 5",
    "LIKE": "SELECT count(*) FROM t WHERE word LIKE '%77%'",
    "GLOB": "SELECT count(*) FROM t WHERE word GLOB '*7[0-9]7*'",
    "WHERE by row": "SELECT count(*) FROM t WHERE n * x + y > 1e9",
    "a function of Python": "SELECT count(*) FROM t WHERE odd(n)",
    "functions of texts": "SELECT max(length(upper(word) || substr(topic, 2))) FROM t",
    "UNION": "SELECT word, n FROM t UNION SELECT word, w FROM t",
    "UNION ALL": "SELECT word, n FROM t UNION ALL SELECT word, w FROM t ORDER BY 2",
    "INTERSECT": "SELECT n FROM t INTERSECT SELECT n FROM u",
    "EXCEPT": "SELECT n FROM t EXCEPT SELECT w FROM t",
    "a subquery in FROM": "SELECT count(*) FROM (SELECT word, n FROM t) AS a WHERE a.n > 50",
    "WITH": "WITH a AS (SELECT topic, n FROM t WHERE x > 0) SELECT count(*) FROM a, a AS b "
            "WHERE a.n = b.n",
    "json_each": "SELECT count(*) FROM j, json_each(j.body)",
    "json_each of one value": "SELECT count(*) FROM json_each(:list) WHERE value % 3 = 0",
    "JSON operators": "SELECT count(*) FROM j WHERE body ->> '$[1]' > 500",
    "generate_series": "SELECT count(*), sum(value) FROM generate_series(1, 3000000)",
    "MATCH, OR of frequent words": "SEARCH m MATCH 'word0 OR word1 OR word2 OR word3 OR word4' "
                                   "K 10",
    "MATCH, all rows": "SEARCH m MATCH 'word0 OR word1 OR word2' K 1000000",
    "MATCH, prefix": "SEARCH m MATCH 'word1*' K 10",
    "MATCH, fuzzy": "SEARCH m MATCH 'word111~1 word12~1' K 10",
    "MATCH, phrase": "SEARCH m MATCH '\"word0 word1\"' K 10",
    "MATCH, filtered": "SEARCH m MATCH 'word0 OR word1' WHERE id % 3 = 1 K 10",
    "UPDATE": "UPDATE t SET n = n + 1",
    "UPDATE of texts": "UPDATE t SET word = upper(word) WHERE n > 10",
    "DELETE": "DELETE FROM t WHERE n >= 0",
    "INSERT SELECT": "INSERT INTO t (topic, word, n) SELECT topic, word, n FROM t",
    "INSERT of a table": "INSERT INTO s SELECT id, low, high FROM :rows",
    "CREATE INDEX": "CREATE INDEX t_n ON t (n)",
    "CREATE INDEX bm25": "CREATE INDEX t_word ON t USING bm25 (word)",
    "ANALYZE": "ANALYZE",
    "UPDATE of vectors": "UPDATE v SET embedding = embedding",
    "UPDATE of a key": "UPDATE t SET id = id + 10000000",
    "DELETE of vectors": "DELETE FROM v WHERE rowid % 2 = 0",
    "INSERT SELECT of vectors": "INSERT INTO v SELECT embedding FROM v",
    "INSERT OR REPLACE": "INSERT OR REPLACE INTO t (id, topic, n) SELECT id, word, n FROM t",
    "FORGET": "FORGET FROM t WHERE n % 1000 = 0",
    "DROP TABLE": "DROP TABLE m",
}  # fmt: skip
WRITING = ("UPDATE", "DELETE", "INSERT", "CREATE", "ANALYZE", "ALTER", "FORGET", "DROP")
OWN_FILE = "own.m2m"  # that a backup writes


@dataclass(frozen=True)
class Kind:
    """Something that takes long: what is called of a connection."""

    work: Callable[[Any], object]
    opens: bool = False  # on a connection that has just been opened; else in a transaction
    writes: bool = False


def filled(folder: str, count: int, vectors: int, texts: int) -> str:
    """The path of a file with `count` rows in t, a fifth of them in u, vectors in v and h, texts
    in m, documents in j, and a few rows in s and k."""
    path = os.path.join(folder, f"interrupts-{count}-{vectors}-{texts}.m2m")
    if os.path.exists(path):
        return path
    making = path + ".making"
    random = np.random.default_rng(1)
    with m2mdb.connect(making, compute="numba") as con:
        con.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, topic TEXT, word TEXT, n INTEGER, "
                    "w INTEGER, x REAL, y REAL)")  # fmt: skip
        con.execute("CREATE TABLE u (word TEXT, n INTEGER, x REAL)")
        con.execute("CREATE TABLE s (id INTEGER PRIMARY KEY, low REAL, high REAL)")
        con.execute("CREATE TABLE k (topic TEXT, owner TEXT)")
        con.execute("CREATE TABLE j (body JSON)")
        con.execute("CREATE TABLE m (id INTEGER PRIMARY KEY, body TEXT FULLTEXT)")
        con.execute("CREATE TABLE d (body TEXT FULLTEXT)")
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
        lists = random.integers(0, 1000, (fifth, 5)).tolist()
        con.collection("j").add({"body": lists})
        con.collection("m").add({"body": common.Data(None, texts).texts})
        rows = _vectors(vectors)
        for name, kind in (("v", "f32"), ("h", "f16")):
            con.execute(f"CREATE TABLE {name} (embedding VECTOR(384, {kind}))")
            con.collection(name).add({"embedding": rows})
    con.close()
    os.replace(making, path)
    return path


def _vectors(count: int) -> np.ndarray:
    return np.random.default_rng(4).standard_normal((count, 384), np.float32)


def prepare(con: Any) -> None:
    """What the statements name besides tables, and what is loaded once a process."""
    con.create_function("odd", 1, lambda value: value % 2)
    con.execute("SELECT 1").arrow()
    con.execute("SELECT 1").df()
    assert LOADER.wait(), LOADER.error


def kinds(count: int, vectors: int, folder: str) -> dict[str, Kind]:
    """Each kind by its name; what it writes is rolled back by the caller."""
    rows = _vectors(vectors)
    bound: dict[str, Any] = {
        "many": np.random.default_rng(2).integers(0, 1 << 60, 300_000).tolist(),
        "list": str(list(range(count // 2))),
        "rows": {"id": np.arange(10_000, 10_000 + count), "low": np.zeros(count),
                 "high": np.ones(count)},
    }  # fmt: skip
    found: dict[str, Kind] = {}
    for name, statement in STATEMENTS.items():
        named = {key: value for key, value in bound.items() if f":{key}" in statement}
        writes = statement.startswith(WRITING)
        found[name] = Kind(partial(_executed, statement, named), writes=writes)
    everything = STATEMENTS["all rows"]
    queries = rows[:64] + np.float32(0.01)
    wide = rows.astype(np.float64)
    words = common.Data(None, vectors // 10).texts * 10
    near = partial(_search, "v", queries[0])
    found |= {
        "fetchall": Kind(lambda con: con.execute(everything).fetchall()),
        "fetchone of a join": Kind(lambda con: con.execute(STATEMENTS["join, all columns"])
                                   .fetchone()),
        "arrow()": Kind(lambda con: con.execute(everything).arrow()),
        "df()": Kind(lambda con: con.execute(everything).df()),
        "exact search": Kind(partial(near, exact=True)),
        "exact search, f16": Kind(partial(_search, "h", queries[0], exact=True)),
        "exact search, cold": Kind(partial(near, exact=True), opens=True),
        "search, cold": Kind(near, opens=True),
        "filtered search": Kind(partial(near, where="rowid % 3 = 0")),
        "a batch of 64, exact": Kind(partial(_batch, "v", queries, exact=True)),
        "a batch of 64, f16": Kind(partial(_batch, "h", queries, exact=True)),
        "a batch of 64, filtered": Kind(partial(_batch, "v", queries, exact=True,
                                                where="rowid % 3 = 0")),
        "a batch of 2,000": Kind(partial(_batch, "v", rows[:2000])),
        "ORDER BY <=>": Kind(lambda con: con.execute(
            "SELECT rowid FROM v ORDER BY embedding <=> ? LIMIT 20", (queries[0],))),
        "distances of all rows": Kind(lambda con: con.execute(
            "SELECT sum(embedding <=> ?) FROM v", (queries[0],))),
        "MATCH, cold": Kind(partial(_executed, STATEMENTS["MATCH, OR of frequent words"], {}),
                            opens=True),
        "sum, cold": Kind(partial(_executed, STATEMENTS["sum of a product"], {}), opens=True),
        "add vectors": Kind(lambda con: con.collection("v").add({"embedding": rows}), writes=True),
        "add float64 vectors": Kind(
            lambda con: con.collection("v").add({"embedding": wide}), writes=True),
        "add texts": Kind(lambda con: con.collection("d").add({"body": words}), writes=True),
        "add a million rows": Kind(partial(_add_rows, count), writes=True),
        "executemany": Kind(partial(_many, count), writes=True),
        "iterdump": Kind(_dump),
        "backup": Kind(partial(_backup, os.path.join(folder, OWN_FILE)), opens=True, writes=True),
    }  # fmt: skip
    return found


def _executed(statement: str, bound: dict[str, Any], con: Any) -> object:
    return con.execute(statement, bound)


def _search(name: str, query: np.ndarray, con: Any, **clauses: Any) -> object:
    return con.collection(name).search(near=query, k=10, **clauses)


def _batch(name: str, queries: np.ndarray, con: Any, **clauses: Any) -> object:
    return con.collection(name).search_batch(near=queries, k=10, **clauses)


def _add_rows(count: int, con: Any) -> object:
    values = np.arange(count, dtype=np.float64)
    return con.collection("s").add({"low": values, "high": values})


def _many(count: int, con: Any) -> object:
    rows: Iterator[tuple[float, str]] = ((number / 3, f"text {number}") for number in range(count))
    return con.executemany("INSERT INTO u (x, word) VALUES (?, ?)", rows)


def _dump(con: Any) -> object:
    return sum(map(len, itertools.islice(con.iterdump(), 300_000)))


def _backup(path: str, con: Any) -> object:
    if os.path.exists(path):
        os.remove(path)
    return con.backup(path)
