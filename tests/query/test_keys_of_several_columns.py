"""PRIMARY KEY (a, b), UNIQUE (a, b) and indexes of several columns, beside sqlite3's."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest

import m2mdb
from m2mdb.index.keys import KEY_SIZE, encode_value, index_key, successor
from m2mdb.index.schema import MAX_KEY_COLUMNS
from m2mdb.pager.errors import DataError, IntegrityError, ProgrammingError

KEYED = "CREATE TABLE t (a INTEGER, b TEXT, c REAL, PRIMARY KEY (a, b), UNIQUE (b, c))"


@pytest.fixture
def con() -> Any:
    with m2mdb.connect(":memory:", autocommit=True) as con:
        yield con


def is_sound(con: m2mdb.Connection) -> bool:
    return con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def plan(con: m2mdb.Connection, sql: str) -> str:
    return str(con.execute(f"EXPLAIN {sql}").fetchall()[0][2])


# ------------------------------------------------------------------------- keys


def test_k2_equal_tuples_have_equal_keys_and_their_first_values_are_a_prefix() -> None:
    choose = random.Random(5)
    texts = ["", "a", "a\0", "a\0b", "é", "x" * 79, "x" * 80, "x" * 81, "x" * 500]
    for _ in range(3000):
        values = tuple(
            choose.choice([None, choose.randint(-9, 9), choose.choice(texts), b"\0\xff", 0.5])
            for _ in range(choose.randint(2, 5))
        )
        key = encode_value(values)
        assert len(key) <= KEY_SIZE
        for count in range(1, len(values)):
            prefix = encode_value(values[:count])
            assert key.startswith(prefix)
            end = successor(prefix)
            assert end is None or prefix <= index_key(values, 7) < end


def test_k1_pairs_are_ordered_as_their_keys() -> None:
    pairs = [(a, b) for a in ("", "a", "ab", "b", "\0") for b in (-5, 0, 3, 1000)]

    assert sorted(pairs) == sorted(pairs, key=encode_value)


# ------------------------------------------------------------------------- constraints


def test_a_second_row_with_the_key_is_refused_by_name(con: m2mdb.Connection) -> None:
    con.execute(KEYED)
    con.execute("INSERT INTO t VALUES (1, 'x', 0.5), (1, 'y', 0.5), (2, 'x', 1.5)")

    with pytest.raises(IntegrityError, match=r"^UNIQUE constraint failed: t\.a, t\.b = \(1, 'x'\)"):
        con.execute("INSERT INTO t VALUES (3, 'z', 0.5), (1, 'x', 9)")
    with pytest.raises(IntegrityError, match=r"^UNIQUE constraint failed: t\.b, t\.c"):
        con.execute("UPDATE t SET c = 1.5, a = 7 WHERE a = 1 AND b = 'x'")
    with pytest.raises(IntegrityError, match=r"^NOT NULL constraint failed: t\.a"):
        con.execute("INSERT INTO t VALUES (NULL, 'q', 1)")

    assert con.execute("SELECT count(*) FROM t").fetchall() == [(3,)]
    assert is_sound(con)


def test_null_in_unique_is_distinct(con: m2mdb.Connection) -> None:
    con.execute("CREATE TABLE t (a INTEGER, b INTEGER, UNIQUE (a, b))")
    con.execute("INSERT INTO t VALUES (1, NULL), (1, NULL), (NULL, NULL), (NULL, NULL), (1, 2)")

    with pytest.raises(IntegrityError):
        con.execute("UPDATE t SET b = 2 WHERE rowid = 1")

    assert con.execute("SELECT count(*) FROM t").fetchall() == [(5,)]


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT, PRIMARY KEY (a, b))", "more than one pri"),
        ("CREATE TABLE t (a INTEGER, b TEXT, PRIMARY KEY (a, q))", "no such column: q"),
        ("CREATE TABLE t (a INTEGER, apple TEXT, UNIQUE (a, aple))", "did you mean apple"),
        ("CREATE TABLE t (a INTEGER, b TEXT, UNIQUE (a, A))", "column A stands twice"),
        ("CREATE TABLE t (a INTEGER, v VECTOR(2), UNIQUE (a, v))", "a vector column"),
        ("CREATE UNIQUE INDEX i ON n (x, x)", "column x stands twice"),
        ("CREATE INDEX i ON n USING bm25 (x, y)", "only btree takes more"),
        ("CREATE INDEX i ON n (x, nope)", "no such column: nope"),
        ("INSERT INTO n VALUES (1, 2) ON CONFLICT (x, y) DO NOTHING", "does not match any PRIMARY"),
    ],
)
def test_wrong_keys_are_refused_and_nothing_is_made(
    con: m2mdb.Connection, sql: str, message: str
) -> None:
    con.execute("CREATE TABLE n (x INTEGER, y INTEGER)")

    with pytest.raises(ProgrammingError, match=message):
        con.execute(sql)

    assert [row[0] for row in con.execute("SELECT name FROM m2m_collections")] == ["n"]
    assert con.execute("SELECT * FROM m2m_indexes").fetchall() == []


def test_a_key_has_no_more_columns_than_the_limit(con: m2mdb.Connection) -> None:
    columns = [f"c{i}" for i in range(MAX_KEY_COLUMNS + 1)]
    declared = ", ".join(f"{name} INTEGER" for name in columns)
    con.execute(f"CREATE TABLE t ({declared}, UNIQUE ({', '.join(columns[:-1])}))")

    with pytest.raises(ProgrammingError, match="the limit is 16"):
        con.execute(f"CREATE INDEX i ON t ({', '.join(columns)})")


def test_conflict_clauses_by_the_key(con: m2mdb.Connection) -> None:
    twin = sqlite3.connect(":memory:")
    for each in (con, twin):
        each.execute(KEYED)
        each.execute("INSERT INTO t VALUES (1, 'x', 0.5), (1, 'y', 0.5), (2, 'x', 1.5)")
        for sql in (
            "INSERT INTO t VALUES (1, 'x', 9.5) ON CONFLICT (b, a) DO UPDATE SET c = excluded.c",
            "INSERT INTO t VALUES (1, 'x', 7.5), (4, 'q', 0) ON CONFLICT (a, b) DO NOTHING",
            "INSERT INTO t VALUES (2, 'x', 9.5), (5, 'x', 9.5), (6, 'w', 0) ON CONFLICT DO NOTHING",
            "INSERT OR REPLACE INTO t VALUES (1, 'y', 9.5), (9, 'x', 9.5)",
            "INSERT OR IGNORE INTO t VALUES (9, 'x', 1), (9, 'y', 1), (9, 'y', 2)",
        ):
            each.execute(sql)

    rows = "SELECT a, b, c FROM t ORDER BY a, b"
    assert con.execute(rows).fetchall() == twin.execute(rows).fetchall()
    assert is_sound(con)


@pytest.mark.parametrize("seed", range(4))
def test_random_changes_leave_what_sqlite_has(con: m2mdb.Connection, seed: int) -> None:
    choose = random.Random(seed)
    twin = sqlite3.connect(":memory:", isolation_level=None)
    long = "k" * 90
    for each in (con, twin):
        each.execute("CREATE TABLE t (a INTEGER, b TEXT, c INTEGER, UNIQUE (a, b))")
        each.execute("CREATE UNIQUE INDEX i ON t (b, c, a)")
    for _ in range(120):
        a, c = choose.randint(0, 6), choose.randint(0, 6)
        b = choose.choice(["", "x", "X", long, long + "1", long + "2", None])
        other = choose.randint(0, 6)
        sql, values = choose.choice([
            ("INSERT INTO t VALUES (?, ?, ?)", (a, b, c)),
            ("INSERT OR REPLACE INTO t VALUES (?, ?, ?)", (a, b, c)),
            ("INSERT OR IGNORE INTO t VALUES (?, ?, ?), (?, ?, ?)", (a, b, c, other, b, c)),
            ("INSERT INTO t VALUES (?, ?, ?) ON CONFLICT (a, b) DO UPDATE SET c = c + 1",
             (a, b, c)),
            ("UPDATE t SET a = ? WHERE b = ? AND a = ?", (other, b, a)),
            ("DELETE FROM t WHERE a = ? AND b = ? AND c < ?", (a, b, c)),
        ])  # fmt: skip
        outcomes = []
        for each in (con, twin):
            try:
                each.execute(sql, values)
                outcomes.append(True)
            except (IntegrityError, sqlite3.IntegrityError):
                outcomes.append(False)
        assert outcomes[0] == outcomes[1], (sql, values)
        for query in ("a = ? AND b = ?", "b = ? AND c >= ? AND c < 5", "b = ? AND c = ?"):
            given = (a, b) if query.startswith("a") else (b, c)
            read = f"SELECT a, b, c FROM t WHERE {query} ORDER BY a, b, c"
            assert con.execute(read, given).fetchall() == twin.execute(read, given).fetchall()
    assert is_sound(con)


def test_rollback_and_savepoints_undo_keys(con: m2mdb.Connection) -> None:
    con.execute(KEYED)
    con.execute("BEGIN")
    con.execute("INSERT INTO t VALUES (1, 'x', 0.5)")
    con.execute("SAVEPOINT s")
    con.execute("INSERT INTO t VALUES (2, 'x', 1.5)")
    con.execute("ROLLBACK TO s")
    con.execute("INSERT INTO t VALUES (2, 'x', 1.5)")
    con.execute("ROLLBACK")

    con.execute("INSERT INTO t VALUES (1, 'x', 0.5)")
    assert con.execute("SELECT count(*) FROM t").fetchall() == [(1,)]
    assert is_sound(con)


# ------------------------------------------------------------------------- the planner


def test_an_index_of_several_columns_is_used_for_a_prefix_and_a_range(
    con: m2mdb.Connection,
) -> None:
    con.execute(KEYED)
    con.execute("CREATE INDEX i ON t (c, a, b)")

    assert "(a=? AND b=?)" in plan(con, "SELECT * FROM t WHERE b = 'x' AND a = 1")
    assert "(b=? AND c>?)" in plan(con, "SELECT * FROM t WHERE b = 'x' AND c > 1")
    assert "i (c=? AND a>=? AND a<=?)" in plan(
        con, "SELECT * FROM t WHERE c = 1 AND a BETWEEN 2 AND 5"
    )
    assert "(a=?)" in plan(con, "SELECT * FROM t WHERE a = 1")
    assert "SCAN" in plan(con, "SELECT * FROM t WHERE upper(b) = 'X'")


@pytest.mark.parametrize("rows", [40, 3000])
def test_rows_by_the_index_are_those_of_a_scan(con: m2mdb.Connection, rows: int) -> None:
    """C1, with long texts that share the cut part of their keys."""
    choose = random.Random(rows)
    con.execute("CREATE TABLE t (a REAL, b TEXT, c BOOLEAN, d TIMESTAMP, e BLOB)")
    texts = ["", "a", "y" * 79, "y" * 80, "y" * 81, "y" * 200, "y" * 200 + "z", "é\0f"]
    made = [
        (choose.choice([None, 0.5, -0.0, 0.0, 2.0**60]), choose.choice([None, *texts]),
         choose.choice([None, True, False]), choose.randint(0, 3), choose.choice([b"", b"\xff"]))
        for _ in range(rows)
    ]  # fmt: skip
    con.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?)", made)
    con.execute("CREATE INDEX i ON t (b, a, c, e)")
    con.execute("CREATE INDEX j ON t (d, b)")
    for _ in range(80):
        b, c = choose.choice([None, *texts, 5]), choose.choice([None, True, 0, 1, 2.5, "x"])
        a = choose.choice([None, 0, 0.5, 2**60, 2**60 + 1, "0.5"])
        condition, values = choose.choice([
            ("b = ? AND a = ?", (b, a)), ("b = ? AND a >= ?", (b, a)), ("b = ? AND a < ?", (b, a)),
            ("b = ? AND a = 0.5 AND c = ?", (b, c)), ("b = ? AND a = 0 AND c IS ?", (b, c)),
            ("d = '1970-01-01 00:00:00.000002' AND b > ?", (b,)),
        ])  # fmt: skip
        way = plan(con, f"SELECT * FROM t WHERE {condition}")
        assert "INDEX" in way
        found = con.execute(f"SELECT rowid FROM t WHERE {condition}", values).fetchall()
        scanned = con.execute(f"SELECT rowid FROM t WHERE 1 AND ({condition}) OR 0", values)
        assert found == scanned.fetchall(), (condition, values)


# ------------------------------------------------------------------------- life of the key


def test_a_key_outlives_everything(tmp_path: Path) -> None:
    path = str(tmp_path / "t.m2m")
    with m2mdb.connect(path, autocommit=True) as con:
        con.execute("PRAGMA keep_commits = 50")
        con.execute(KEYED)
        con.executemany("INSERT INTO t VALUES (?, ?, ?)", [(i, f"b{i}", i) for i in range(900)])
        before = con.execute("SELECT last_commit FROM m2m_stats").fetchall()[0][0]
        con.execute("DELETE FROM t WHERE a = 5")
        con.execute("INSERT INTO t VALUES (5, 'b5', 77)")
        past = f"SELECT c FROM t AS OF {before} WHERE a = 5 AND b = 'b5'"
        assert con.execute(past).fetchall() == [(5.0,)]
        con.execute("FORGET FROM t WHERE a = 6 AND b = 'b6'")
        con.execute("OPTIMIZE t")
        con.execute("REINDEX t")
        con.execute("VACUUM")
        con.execute(f"VACUUM INTO '{tmp_path / 'copy.m2m'}'")
        dump = "\n".join(con.iterdump())
    with m2mdb.connect(":memory:", autocommit=True) as loaded:
        loaded.executescript(dump)
        assert "\n".join(loaded.iterdump()) == dump
    for name in ("t.m2m", "copy.m2m"):
        for untrusted in (False, True):
            with m2mdb.connect(str(tmp_path / name), autocommit=True, untrusted=untrusted) as con:
                assert is_sound(con)
                info = con.execute("PRAGMA table_info(t)").fetchall()
                assert [row[5] for row in info] == [1, 2, 0]
                with pytest.raises(IntegrityError):
                    con.execute("INSERT INTO t VALUES (5, 'b5', 0)")
                assert con.execute("SELECT c FROM t WHERE a = 5 AND b = 'b5'").fetchall() == [(77,)]
                assert con.execute("SELECT c FROM t WHERE a = 6 AND b = 'b6'").fetchall() == []


def test_alter_follows_keys_and_refuses_to_break_them(con: m2mdb.Connection) -> None:
    con.execute(KEYED)
    con.execute("INSERT INTO t VALUES (1, 'x', 0.5)")
    con.execute("ALTER TABLE t RENAME COLUMN b TO name")
    con.execute("ALTER TABLE t RENAME TO u")

    with pytest.raises(ProgrammingError, match=r"PRIMARY KEY \(a, name\)"):
        con.execute("ALTER TABLE u DROP COLUMN a")
    with pytest.raises(ProgrammingError, match=r"UNIQUE \(name, c\)"):
        con.execute("ALTER TABLE u DROP COLUMN c")
    (name,) = con.execute("SELECT name FROM m2m_indexes WHERE column_name = 'a, name'").fetchall()[
        0
    ]
    with pytest.raises(ProgrammingError, match="cannot be dropped"):
        con.execute(f"DROP INDEX {name}")
    with pytest.raises(IntegrityError, match=r"u\.a, u\.name"):
        con.execute("INSERT INTO u VALUES (1, 'x', 0.75)")
    con.execute(KEYED)
    con.execute("DROP TABLE u")
    con.execute("INSERT INTO t VALUES (1, 'x', 0.5)")
    assert is_sound(con)


def test_equal_rows_refuse_a_unique_index(con: m2mdb.Connection) -> None:
    con.execute("CREATE TABLE t (a INTEGER, b TEXT)")
    con.execute("INSERT INTO t VALUES (1, 'x'), (1, 'x'), (1, NULL), (1, NULL)")

    with pytest.raises(IntegrityError, match=r"t\.a, t\.b have equal values"):
        con.execute("CREATE UNIQUE INDEX i ON t (a, b)")

    con.execute("DELETE FROM t WHERE rowid = 2")
    con.execute("CREATE UNIQUE INDEX i ON t (a, b)")
    assert is_sound(con)


# ------------------------------------------------------------------------- Collection


def test_rows_by_tuples(con: m2mdb.Connection) -> None:
    con.execute(KEYED)
    notes = con.collection("t")
    ids = notes.add([{"a": i % 5, "b": f"b{i}", "c": i / 2} for i in range(20)])
    key = (3, "b8")

    assert notes.get(key) == notes.get(int(ids[8]))
    assert notes.get([key, (3, "none")]) == [notes.get(key), None]
    assert notes.update(key, {"c": -1.0}) == 1
    assert con.execute("SELECT c FROM t WHERE a = 3 AND b = 'b8'").fetchall() == [(-1.0,)]
    assert notes.delete([key, (4, "b9"), (0, "none")]) == 2
    assert notes.delete((0, "b0")) == 1
    receipt = notes.forget((1, "b1"))
    assert notes.has_forgotten(receipt, int(ids[1]))
    replaced = {"a": 2, "b": "b2", "c": 5.0}
    notes.add([replaced], on_conflict="replace")
    assert con.execute("SELECT c FROM t WHERE a = 2 AND b = 'b2'").fetchall() == [(5.0,)]
    assert len(notes) == 16


@pytest.mark.parametrize("key", [(1,), (1, "x", 2), (None, "x"), ("q", "x"), (1, None)])
def test_wrong_tuples_are_refused(con: m2mdb.Connection, key: Any) -> None:
    con.execute(KEYED)

    with pytest.raises(DataError):
        con.collection("t").get(key)


def test_a_batch_is_looked_up_as_its_rows_one_by_one() -> None:
    choose = random.Random(8)
    long = "x" * 90

    def row() -> tuple[Any, ...]:
        text = choose.choice(["", "\0", "a", "é", long + "1", long + "2", "z" * 200])
        return (
            choose.choice([None, *range(-60, 60)]),
            choose.choice([None, f"{text}{choose.randint(0, 9)}"]),
            choose.choice([None, 0.0, -0.0, choose.random()]),
        )

    with m2mdb.connect(":memory:", autocommit=True) as con:
        con.execute("CREATE TABLE t (a INTEGER, b TEXT, c REAL, UNIQUE (a, b), UNIQUE (c, a))")
        seen: list[set[Any]] = [set(), set()]
        count = 0
        for size in (300, 64, 700, 100, 2000):
            rows = [row() for _ in range(size)]
            for a, b, c in rows:
                keys = [
                    None if None in key else key for key in ((a, b), (c if c is None else c + 0, a))
                ]
                if any(key in known for key, known in zip(keys, seen, strict=True) if key):
                    continue
                count += 1
                for key, known in zip(keys, seen, strict=True):
                    known.add(key)
            con.executemany("INSERT OR IGNORE INTO t VALUES (?, ?, ?)", rows)
            assert con.execute("SELECT count(*) FROM t").fetchone() == (count,)
        assert is_sound(con)
        taken = con.execute(
            "SELECT a, b, c FROM t WHERE a IS NOT NULL AND b IS NOT NULL"
        ).fetchall()
        batch = [(1000 + n, "new", None) for n in range(200)]
        batch[150] = (*taken[7][:2], None)
        with pytest.raises(IntegrityError, match=r"UNIQUE constraint failed: t.a, t.b .*row 150"):
            con.executemany("INSERT INTO t VALUES (?, ?, ?)", batch)
