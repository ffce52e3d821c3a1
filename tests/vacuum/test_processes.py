"""VACUUM on a real disk while another process reads through its map."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

import m2mdb

READER = """
import sys
import m2mdb

con = m2mdb.connect(sys.argv[1], compute="numpy")
print("ready", flush=True)
rounds = 0
for line in sys.stdin:
    for _ in range(20):
        rows, total = con.execute("SELECT count(*), sum(length(body)) FROM t").fetchone()
        assert total == rows * 40, (rows, total)
        hits = con.execute("SEARCH t NEAR [1, 2, 3, 4] K 5 RETURNING id, distance").fetchall()
        assert len(hits) == 5
        rounds += 1
    print(rounds, flush=True)
con.close()
"""


def test_s18_a_reader_with_a_map_outlives_every_vacuum(tmp_path: Path) -> None:
    """S18: where the file were cut under its map, the reader would end by a signal."""
    path = tmp_path / "notes.m2m"
    con = m2mdb.connect(path, compute="numpy", autocommit=True)
    con.execute("CREATE COLLECTION t (id INTEGER PRIMARY KEY, body TEXT, v VECTOR(4))")
    add(con, 0)
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert reader.stdin is not None and reader.stdout is not None
    assert reader.stdout.readline() == "ready\n"
    for number in range(1, 6):
        reader.stdin.write("go\n")
        reader.stdin.flush()
        add(con, 2000 * number)
        con.execute("DELETE FROM t WHERE id < ?", (2000 * number - 500,))
        row = con.execute("VACUUM").fetchone()
        assert "another connection" in (row[3] or "another connection")
        assert reader.stdout.readline() == f"{20 * number}\n"
    reader.stdin.close()
    assert reader.wait(30) == 0

    before = path.stat().st_size
    pages_before, pages_after, given, remaining = con.execute("VACUUM").fetchone()

    assert (pages_after * 4096, remaining) == (path.stat().st_size, None)
    assert given == before - path.stat().st_size == (pages_before - pages_after) * 4096
    assert con.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert con.execute("SELECT count(*) FROM t").fetchone() == (2500,)
    con.close()


def add(con: m2mdb.Connection, first: int) -> None:
    ids = list(range(first, first + 2000))
    vectors = np.random.default_rng(first).standard_normal((2000, 4)).astype(np.float32)
    con.collection("t").add({"id": ids, "body": [f"{i:040d}" for i in ids], "v": vectors})
