"""`.arrow()` of a million rows of an INTEGER, a REAL and a short TEXT column; sqlite3 beside it.

python benchmarks/arrow.py [--count 1000000] [--rounds 3] [--folder FOLDER]

The file is written once; each round opens it anew in this process, so that the first statement of
a round reads and verifies what the system has in its cache. Modules are loaded before.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

import m2mdb

QUERY = "SELECT id, x, s FROM t"
GATE_SECONDS = 0.3  # for a million rows of the three columns


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    found = work()
    return time.perf_counter() - start, found


def fill(folder: str, count: int) -> tuple[str, str]:
    """The same rows in a file of ours and one of sqlite3."""
    rng = np.random.default_rng(7)
    ids, reals = np.arange(count), rng.random(count)
    texts = [f"text {number}" for number in rng.integers(0, 10**6, count).tolist()]
    ours, theirs = os.path.join(folder, "a.m2m"), os.path.join(folder, "a.sqlite")
    con = m2mdb.connect(ours)
    con.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, x REAL, s TEXT)")
    con.collection("t").add({"id": ids, "x": reals, "s": texts})
    con.execute("CREATE TABLE v (v VECTOR(384))")
    con.collection("v").add({"v": rng.standard_normal((min(count, 100_000), 384), np.float32)})
    con.commit()
    con.close()
    other = sqlite3.connect(theirs)
    other.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, x REAL, s TEXT)")
    other.executemany(
        "INSERT INTO t VALUES (?, ?, ?)", zip(ids.tolist(), reals.tolist(), texts, strict=True)
    )
    other.commit()
    other.close()
    return ours, theirs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", default=None)
    options = parser.parse_args()
    times: dict[str, list[float]] = {}
    print(f"pyarrow {pa.__version__}, pandas {pd.__version__}, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        ours, theirs = fill(folder, options.count)
        for _ in range(options.rounds):
            con, other = m2mdb.connect(ours), sqlite3.connect(theirs)
            works: dict[str, Callable[[], Any]] = {
                "arrow, file just opened": lambda con=con: con.execute(QUERY).arrow(),
                "arrow, again": lambda con=con: con.execute(QUERY).arrow(),
                "arrow, ORDER BY x": lambda con=con: con.execute(QUERY + " ORDER BY x").arrow(),
                "arrow, half by WHERE": lambda con=con: con.execute(
                    QUERY + " WHERE x < 0.5"
                ).arrow(),
                "arrow, 100,000 vectors of 384": lambda con=con: con.execute(
                    "SELECT v FROM v"
                ).arrow(),
                "fetchnumpy": lambda con=con: con.execute(QUERY).fetchnumpy(),
                "df": lambda con=con: con.execute(QUERY).df(),
                "fetchall": lambda con=con: con.execute(QUERY).fetchall(),
                "sqlite3, fetchall": lambda other=other: other.execute(QUERY).fetchall(),
            }
            for name, work in works.items():
                taken, found = seconds(work)
                times.setdefault(name, []).append(taken)
                del found
            con.close()
            other.close()
    for name, taken_all in times.items():
        print(f"{name:32} {statistics.median(taken_all):8.3f} s  (worst {max(taken_all):.3f})")
    worst = statistics.median(times["arrow, file just opened"])
    is_met = worst <= GATE_SECONDS * options.count / 1_000_000
    print(f"gate {GATE_SECONDS} s for 1,000,000 rows: {'met' if is_met else 'missed'}")
    return 0 if is_met else 1


if __name__ == "__main__":
    raise SystemExit(main())
