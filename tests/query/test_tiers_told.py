"""EXPLAIN ANALYZE tells what was in memory, and what a search inside a statement has done."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import m2mdb

ROWS, DIMENSION = 3000, 96


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A closed file: one segment of vectors and texts."""
    con = m2mdb.connect(str(tmp_path / "tiers.m2m"), compute="numpy", autocommit=True)
    con.execute(f"CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT, v VECTOR({DIMENSION}))")
    vectors = np.random.default_rng(4).standard_normal((ROWS, DIMENSION)).astype(np.float32)
    texts = [f"row {number}" for number in range(ROWS)]
    con.collection("t").add({"id": np.arange(ROWS), "body": texts, "v": vectors})
    con.execute("CREATE INDEX by_body ON t (body)")
    con.close()
    return tmp_path / "tiers.m2m"


def told(con: m2mdb.Connection, sql: str, *values: object) -> list[str]:
    return [row[2] for row in con.execute(f"EXPLAIN ANALYZE {sql}", values)]


def tiers(con: m2mdb.Connection, sql: str, *values: object) -> str:
    (line,) = [text for text in told(con, sql, *values) if text.startswith("tiers: ")]
    return line


def sizes(con: m2mdb.Connection, content: str) -> dict[str, int]:
    found = con.execute(
        "SELECT tier, bytes FROM m2m_tiers WHERE content = ? AND tier <> 'hot'", (content,)
    )
    return dict(found.fetchall())


def test_vectors_are_read_once_and_then_warm(path: Path) -> None:
    con = m2mdb.connect(str(path), compute="numpy")
    query = np.ones(DIMENSION, np.float32)
    whole = ROWS * DIMENSION * 4

    first = tiers(con, "SEARCH t NEAR ? K 3 RETURNING score", query)
    again = tiers(con, "SEARCH t NEAR ? K 3 RETURNING score", query)

    read = re.search(r"vectors ([\d.]+) MB", first)
    assert read and float(read[1]) == pytest.approx(whole / 1e6, abs=0.1)
    assert ", 0 B read, " in again
    warm = re.search(r"([\d.]+) MB warm", again)
    assert warm and float(warm[1]) >= round(sizes(con, "vectors")["warm"] / 1e6, 1)
    con.close()


def test_what_nobody_reads_stays_cold(path: Path) -> None:
    con = m2mdb.connect(str(path), compute="numpy")

    line = tiers(con, "SELECT count(*) FROM t WHERE id > 5")

    assert "vectors" not in line
    cold = re.search(r"([\d.]+) MB cold$", line)
    assert cold and float(cold[1]) >= round(sizes(con, "vectors")["cold"] / 1e6, 1) > 1
    con.close()


def test_tree_pages_are_read_once_and_then_hot(path: Path) -> None:
    con = m2mdb.connect(str(path), compute="numpy")
    look_up = "SELECT id FROM t WHERE body BETWEEN 'row 17' AND 'row 171'"

    found = [re.search(r"tiers: (\d+) of (\d+) tree pages hot", tiers(con, look_up)) for _ in "ab"]

    counts = [(int(each[1]), int(each[2])) for each in found if each]
    assert counts[0][0] < counts[0][1]
    assert counts[1][0] == counts[1][1] == counts[0][1]
    con.close()


def test_a_statement_that_writes_and_one_without_a_table(path: Path) -> None:
    con = m2mdb.connect(str(path), compute="numpy")

    written = tiers(con, "UPDATE t SET body = 'x' WHERE id = 3")
    con.commit()
    alone = told(con, "SELECT 1")

    assert "tree pages" not in written and "warm" in written
    assert not any("tiers" in text for text in alone)
    assert con.execute("SELECT body FROM t WHERE id = 3").fetchone() == ("x",)
    con.close()


def test_a_search_within_a_statement_tells_its_work(path: Path) -> None:
    con = m2mdb.connect(str(path), compute="numpy")
    query = np.ones(DIMENSION, np.float32)
    done = f"; segment 1: scanned, {ROWS} rows compared"

    nested = told(con, "SELECT count(*) FROM (SEARCH t NEAR ? K 20)", query)
    ordered = told(con, "SELECT id FROM t ORDER BY v <=> ? LIMIT 4", query)
    whole = told(con, "SEARCH t NEAR ? K 20", query)

    assert [re.sub(r"\d+\.\d+ ms", "T", text) for text in nested if text.startswith("SEARCH")] == [
        f"SEARCH t -> 20 rows, T{done}"
    ]
    assert re.fullmatch(rf"SEARCH t BY v <=> OF {ROWS} rows -> 4 rows, \S+ ms{done}", ordered[0])
    assert re.fullmatch(r"SEARCH t -> 20 rows, \S+ ms", whole[0])
    assert f"segment 1: scanned, {ROWS} rows compared" in whole
    con.close()
