"""Zone maps: the rows of a scan with them are those without, whatever was done to the rows."""

from __future__ import annotations

import datetime
import math
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import m2mdb
from m2mdb.index import parts, writer, zones
from m2mdb.query import sparing
from tests.forget.traces import assert_gone, files_at, traces

LEAST, GREATEST = -(2**63), 2**63 - 1
TYPES = {"i": "INTEGER", "r": "REAL", "b": "BOOLEAN", "t": "TIMESTAMP", "s": "TEXT"}
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "ZONE_ROWS", 16)
    monkeypatch.setattr(writer, "SEGMENT_ROWS", 16)


def moment(seconds: int) -> datetime.datetime:
    return EPOCH + datetime.timedelta(seconds=seconds)


def connect(path: Path) -> m2mdb.Connection:
    return m2mdb.connect(str(path), autocommit=True)


@pytest.fixture
def con(tmp_path: Path) -> Iterator[m2mdb.Connection]:
    connection = connect(tmp_path / "z.m2m")
    columns = ", ".join(f"{name} {kind}" for name, kind in TYPES.items())
    connection.execute(f"CREATE COLLECTION c (id INTEGER PRIMARY KEY, {columns})")
    yield connection
    connection.close()


def fill(con: m2mdb.Connection, count: int = 200, start: int = 0) -> None:
    """Sorted integers and moments; every block has other bounds, one is NULL alone."""
    numbers = range(start, start + count)
    con.collection("c").add(
        {
            "id": [n + 1 for n in numbers],
            "i": [None if 32 <= n < 48 else n for n in numbers],
            "r": [n / 2 for n in numbers],
            "b": [n < 100 for n in numbers],
            "t": [moment(n) for n in numbers],
            "s": [f"s{n % 7}" for n in numbers],
        }
    )


def told(con: m2mdb.Connection, statement: str, values: Any = ()) -> str:
    return "\n".join(row[2] for row in con.execute(f"EXPLAIN ANALYZE {statement}", values))


def ids(con: m2mdb.Connection, where: str, values: Any = ()) -> list[int]:
    return [row[0] for row in con.execute(f"SELECT id FROM c WHERE {where} ORDER BY id", values)]


@pytest.mark.parametrize(
    ("where", "count", "expected"),
    [
        ("i < 20", 11, range(20)),
        ("i <= 19.5", 11, range(20)),
        ("i > 190", 11, range(191, 200)),
        ("i BETWEEN 60 AND 70", 11, range(60, 71)),
        ("NOT (i < 190)", 11, range(190, 200)),
        ("i IN (3, 5.0, 'x', NULL)", 12, [3, 5]),
        ("i IS NULL", 12, range(32, 48)),
        ("r = 17", 12, [34]),
        ("r < 5 OR r >= 99", 11, [*range(10), 198, 199]),
        ("b = FALSE AND i < 110", 12, range(100, 110)),
        ("t < ?", 12, range(10)),
        ("i > 180 AND s = 's3'", 11, [i for i in range(181, 200) if i % 7 == 3]),
        ("i > 180 AND s LIKE '%3'", 11, [i for i in range(181, 200) if i % 7 == 3]),
        ("i > 180 AND abs(r) > 95", 11, range(191, 200)),
        ("rowid < 10", 12, range(9)),
        ("i = 1e300", 13, []),
        ("i > NULL AND r < 5", 12, []),
    ],
)
def test_blocks_are_spared(con: m2mdb.Connection, where: str, count: int, expected: Any) -> None:
    fill(con)
    values = (moment(10),) if "?" in where else ()
    analyzed = told(con, f"SELECT id FROM c WHERE {where}", values)
    assert f"zone maps spare {count} of 13 blocks, {count // 13} of 1 segments" in analyzed
    assert [id_ - 1 for id_ in ids(con, where, values)] == list(expected)


def test_what_bounds_do_not_tell_is_scanned(con: m2mdb.Connection) -> None:
    fill(con)
    for where in ("i + 0 < 20", "i < 190", "i < 20 OR s = 's3'", "s < 's1'", "i NOT IN (1)"):
        analyzed = told(con, f"SELECT id FROM c WHERE {where}")
        assert "zone maps" not in analyzed, where


def test_updates_and_deletes_find_their_rows(con: m2mdb.Connection) -> None:
    fill(con)
    assert con.execute("UPDATE c SET i = 1000 WHERE i BETWEEN 60 AND 61").rowcount == 2
    assert con.execute("DELETE FROM c WHERE i < 10").rowcount == 10
    assert ids(con, "i = 1000") == [61, 62]
    assert ids(con, "i < 12") == [11, 12]
    con.execute("OPTIMIZE")
    assert ids(con, "i = 1000") == [61, 62]
    assert ids(con, "i < 12") == [11, 12]
    assert "zone maps spare" in told(con, "DELETE FROM c WHERE i = 1000")
    assert ids(con, "i = 1000") == []


def test_searches_take_their_masks_from_them(tmp_path: Path) -> None:
    con = connect(tmp_path / "v.m2m")
    con.execute("CREATE COLLECTION v (id INTEGER PRIMARY KEY, n INTEGER, v VECTOR(4))")
    vectors = np.random.default_rng(1).standard_normal((100, 4)).astype(np.float32)
    con.collection("v").add({"id": range(100), "n": range(100), "v": vectors})
    statement = "SEARCH v NEAR ? WHERE n BETWEEN 50 AND 60 K 100"
    assert "zone maps spare 6 of 7 blocks" in told(con, statement, (vectors[0],))
    found = con.collection("v").search(near=vectors[0], where="n BETWEEN 50 AND 60", k=100)
    assert sorted(found.ids.tolist()) == list(range(50, 61))
    con.close()


def test_the_past_is_read_by_the_maps_of_kept_segments(con: m2mdb.Connection) -> None:
    con.execute("PRAGMA keep_commits = 1000")
    fill(con)
    with con.engine().reading() as view:
        commit = view.commit
    con.execute("UPDATE c SET i = i + 1000 WHERE i < 50")
    con.execute("DELETE FROM c WHERE i > 150")
    con.execute("OPTIMIZE")
    assert "zone maps spare" in told(con, f"SELECT id FROM c AS OF {commit} WHERE i < 20")
    then = con.execute(f"SELECT id FROM c AS OF {commit} WHERE i < 20 ORDER BY id").fetchall()
    assert [row[0] for row in then] == list(range(1, 21))
    then = con.execute(f"SELECT count(*) FROM c AS OF {commit} WHERE i > 190").fetchone()
    assert then == (9,)
    assert ids(con, "i < 20") == []


def test_a_column_that_was_added_later_is_scanned(con: m2mdb.Connection) -> None:
    fill(con)
    con.execute("ALTER COLLECTION c ADD COLUMN late INTEGER DEFAULT 7")
    assert len(ids(con, "late = 7")) == 200
    assert ids(con, "late < 7") == []
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_file_without_maps_is_scanned(
    con: m2mdb.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr(zones, "zone_parts", lambda *_: [])
        fill(con)
    assert "zone maps" not in told(con, "SELECT id FROM c WHERE i < 20")
    assert ids(con, "i < 20") == list(range(1, 21))
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    con.execute("DELETE FROM c WHERE id = 200")
    con.execute("OPTIMIZE")
    assert "zone maps spare" in told(con, "SELECT id FROM c WHERE i < 20")


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("column", ["i", "r", "b", "t"])
def test_the_check_finds_a_wrong_map(
    con: m2mdb.Connection, monkeypatch: pytest.MonkeyPatch, column: str, place: int
) -> None:
    made = zones._made

    def wrong(values: np.ndarray, nulls: np.ndarray | None) -> np.ndarray:
        found = made(values, nulls)
        found[3 + place] += 1
        return found

    with monkeypatch.context() as hostile:
        hostile.setattr(zones, "_made", wrong)
        fill(con)
    for pragma in ("integrity_check", "quick_check"):
        faults = [row[0] for row in con.execute(f"PRAGMA {pragma}")]
        assert any(f"zone map of {column} differs" in fault for fault in faults)
    con.execute("SELECT count(*) FROM c WHERE i < 20").fetchall()  # no map makes a scan fail


@pytest.mark.parametrize("length", [0, 3, 38, 40, 42])
def test_a_map_of_another_length_does_not_open(
    con: m2mdb.Connection, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    def wrong(values: np.ndarray, nulls: np.ndarray | None) -> np.ndarray:
        return np.zeros(length, np.int64)

    monkeypatch.setattr(zones, "_made", wrong)
    with pytest.raises(m2mdb.DatabaseError, match=f"'zones' has {length} items for 200 rows"):
        fill(con)
        ids(con, "i < 20")


def test_an_untrusted_file_with_a_wrong_map_is_refused(
    con: m2mdb.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as hostile:
        hostile.setattr(zones, "_made", lambda values, nulls: np.zeros(39, np.int64))
        fill(con)
    with pytest.raises(m2mdb.DatabaseError, match="zone map of"):
        m2mdb.connect(str(tmp_path / "z.m2m"), untrusted=True)


def test_a_forgotten_value_is_in_no_map(con: m2mdb.Connection, tmp_path: Path) -> None:
    fill(con)
    secret = 0x7A51_33C7_0DDB_A11
    con.execute("UPDATE c SET i = ?, r = ? WHERE id = 120", (secret, -8.125e77))
    con.execute("OPTIMIZE")
    con.execute("CHECKPOINT truncate")
    needles = {"i": struct.pack("<q", secret), "r": struct.pack("<d", -8.125e77)}
    path = str(tmp_path / "z.m2m")
    assert len(traces(files_at(path), needles)) >= 2
    with con.engine().reading() as view:
        (segment,) = view.collection("c").segments
        column = segment.array("zones", view.collection("c").schema.columns[1].id)
        assert secret in column.tolist(), "it is the greatest of its block"
    con.execute("FORGET FROM c WHERE id = 120")
    assert_gone(files_at(path), needles)
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_an_error_of_a_constant_is_that_of_the_scan(con: m2mdb.Connection) -> None:
    fill(con)
    wrong = "abs(-9223372036854775808)"
    assert ids(con, f"i = -5 AND r > {wrong}") == []
    with pytest.raises(m2mdb.DatabaseError):
        ids(con, f"i < 20 AND r > {wrong}")
    assert ids(con, "i < 2") == [1, 2]


# ------------------------------------------------------------------------- against sqlite3

INTEGERS = st.one_of(
    st.integers(-40, 40), st.sampled_from([LEAST, LEAST + 1, GREATEST - 1, GREATEST, 2**53 + 1])
)
REALS = st.one_of(
    st.integers(-40, 40).map(float),
    st.sampled_from([-0.0, 0.0, math.inf, -math.inf, 0.5, 2.0**53, 2.0**63, 5e-324]),
)
ROW = st.tuples(st.none() | INTEGERS, st.none() | REALS, st.none() | st.booleans())
NUMBER = st.one_of(INTEGERS, REALS.filter(lambda value: value == value))
SIMPLE = st.one_of(
    st.tuples(st.sampled_from("irb"), st.sampled_from(["=", "!=", "<", "<=", ">", ">="]),
              NUMBER.map(lambda value: (value,))),
    st.tuples(st.sampled_from("irb"), st.sampled_from(["BETWEEN", "NOT BETWEEN"]),
              st.tuples(NUMBER, NUMBER)),
    st.tuples(st.sampled_from("irb"), st.sampled_from(["IN", "NOT IN"]),
              st.lists(st.none() | NUMBER, min_size=1, max_size=4).map(tuple)),
    st.tuples(st.sampled_from("irb"), st.sampled_from(["IS NULL", "IS NOT NULL"]),
              st.just(())),
    st.tuples(st.just("id"), st.sampled_from(["<", ">="]), st.integers(0, 300).map(
        lambda value: (value,))),
)  # fmt: skip
Condition = tuple[str, tuple[Any, ...]]


def condition(simple: tuple[str, str, tuple[Any, ...]]) -> Condition:
    column, operator, values = simple
    if "BETWEEN" in operator:
        return f"{column} {operator} ? AND ?", values
    if "IN" in operator:
        return f"{column} {operator} ({', '.join('?' * len(values))})", values
    return f"{column} {operator} {'?' if values else ''}", values


def joined(one: Condition, other: Condition, word: str, negated: bool) -> Condition:
    text = f"({one[0]}) {word} ({other[0]})"
    return (f"NOT ({text})" if negated else text), (*one[1], *other[1])


CONDITIONS: st.SearchStrategy[Condition] = st.recursive(
    SIMPLE.map(condition),
    lambda inner: st.builds(joined, inner, inner, st.sampled_from(["AND", "OR"]), st.booleans()),
    max_leaves=4,
)
STEPS = st.one_of(
    st.tuples(st.just("add"), st.lists(ROW, min_size=1, max_size=80), st.booleans()),
    st.tuples(st.just("insert"), ROW),
    st.tuples(st.just("delete"), CONDITIONS),
    st.tuples(st.just("update"), CONDITIONS, ROW),
    st.tuples(st.sampled_from(["optimize", "reopen", "vacuum"])),
)


class Both:
    """The same statements in m2mdb and in sqlite3."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.own = connect(path)
        self.other = sqlite3.connect(":memory:", isolation_level=None)
        columns = "(id INTEGER PRIMARY KEY, i INTEGER, r REAL, b BOOLEAN)"
        self.own.execute(f"CREATE COLLECTION c {columns}")
        self.other.execute(f"CREATE TABLE c {columns}")
        self.next = 1

    def step(self, name: str, *arguments: Any) -> None:
        if name in ("add", "insert"):
            rows = list(arguments[0]) if name == "add" else [arguments[0]]
            if name == "add" and arguments[1]:
                rows.sort(key=lambda row: (row[0] is not None, row[0] or 0))
            ids = list(range(self.next, self.next + len(rows)))
            self.next += len(rows)
            whole = [(id_, *row) for id_, row in zip(ids, rows, strict=True)]
            self.other.executemany("INSERT INTO c VALUES (?, ?, ?, ?)", whole)
            if name == "insert":
                self.own.executemany("INSERT INTO c VALUES (?, ?, ?, ?)", whole)
            else:
                columns = list(zip(*whole, strict=True))
                self.own.collection("c").add(
                    {key: list(values) for key, values in zip(("id", *"irb"), columns, strict=True)}
                )
        elif name in ("delete", "update"):
            where, values = arguments[0]
            statement, given_ = f"DELETE FROM c WHERE {where}", values
            if name == "update":
                statement = f"UPDATE c SET i = ?, r = ?, b = ? WHERE {where}"
                given_ = (*arguments[1], *values)
            count = self.other.execute(statement, given_).rowcount
            assert self.own.execute(statement, given_).rowcount == count
        elif name == "reopen":
            self.own.close()
            self.own = connect(self.path)
        else:
            self.own.execute(name.upper())

    def compare(self, where: str, values: tuple[Any, ...]) -> None:
        statement = f"SELECT id, i, r, b FROM c WHERE {where} ORDER BY id"
        expected = self.other.execute(statement, values).fetchall()
        assert self.own.execute(statement, values).fetchall() == expected
        counted = f"SELECT count(*) FROM c WHERE {where}"
        assert self.own.execute(counted, values).fetchall() == [(len(expected),)]

    def close(self) -> None:
        assert self.own.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        self.own.close()
        self.other.close()


@given(steps=st.lists(STEPS, min_size=1, max_size=8), asked=st.lists(CONDITIONS, max_size=6))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_rows_are_those_of_sqlite(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Any], asked: list[Condition]
) -> None:
    both = Both(tmp_path_factory.mktemp("zones") / "z.m2m")
    for step in steps:
        both.step(*step)
        for where, values in asked:
            both.compare(where, values)
    both.close()


@given(rows=st.lists(ROW, min_size=4, max_size=120), where=CONDITIONS, ordered=st.booleans())
@settings(max_examples=40, deadline=None)
def test_no_block_with_a_row_is_spared(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], where: Condition, ordered: bool
) -> None:
    """As above, each block counted: also where too few are spared to cut the scan."""
    both = Both(tmp_path_factory.mktemp("zones") / "z.m2m")
    both.step("add", rows, ordered)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sparing, "_WORTH", 1 << 30)
        both.compare(*where)
        both.close()
