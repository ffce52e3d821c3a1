"""Single statements: durable inserts, point SELECT and SEARCH overhead, beside sqlite3.

python benchmarks/statements.py --data FOLDER
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import common  # sets the number of threads before NumPy loads
import numpy as np
from ingest import m2m_file, sqlite_file


def per_second(count: int, work: Callable[[int], object]) -> float:
    """Calls per second of `work(i)`."""
    start = time.perf_counter()
    for i in range(count):
        work(i)
    return count / (time.perf_counter() - start)


def insert_rates(
    folder: str, data: common.Data, synchronous: str, count: int
) -> tuple[float, float, float]:
    """Rows per second, one commit a row: sqlite3, ours, ours with FULLTEXT."""
    path = os.path.join(folder, f"{synchronous}{time.monotonic_ns()}")
    con = sqlite_file(path + "s", synchronous.upper())

    def theirs(i: int) -> None:
        con.execute(
            "INSERT INTO notes VALUES (?, ?, ?)",
            (data.ids[i], data.texts[i], data.vectors[i].tobytes()),
        )
        con.commit()

    rates = [per_second(count, theirs)]
    con.close()
    for fulltext in (False, True):
        ours = m2m_file(f"{path}m{fulltext}", fulltext, synchronous)

        def insert(i: int, ours: Any = ours) -> None:
            ours.execute(
                "INSERT INTO notes VALUES (?, ?, ?)",
                (data.ids[i], data.texts[i], data.vectors[i]),
            )
            ours.commit()

        rates.append(per_second(count, insert))
        ours.close()
    return rates[0], rates[1], rates[2]


def select_rates(folder: str, data: common.Data) -> tuple[float, float]:
    """Cached point SELECTs per second over 20,000 rows."""
    theirs = sqlite_file(os.path.join(folder, "select.s"))
    rows = zip(data.ids[:20_000], data.texts, data.vectors, strict=False)
    with theirs:
        theirs.executemany(
            "INSERT INTO notes VALUES (?, ?, ?)", ((i, t, v.tobytes()) for i, t, v in rows)
        )
    ours = m2m_file(os.path.join(folder, "select.m"), False)
    ours.collection("notes").add(
        {
            "id": data.ids[:20_000],
            "body": data.texts[:20_000],
            "embedding": data.vectors[:20_000],
        }
    )
    ours.commit()
    keys = np.random.default_rng(3).permutation(20_000).tolist()
    sql = "SELECT id, body FROM notes WHERE id = ?"
    count = 10_000
    fast = per_second(count, lambda i: theirs.execute(sql, (data.ids[keys[i]],)).fetchone())
    slow = per_second(count, lambda i: ours.execute(sql, (data.ids[keys[i]],)).fetchone())
    theirs.close()
    ours.close()
    return fast, slow


def search_overhead(folder: str, data: common.Data) -> tuple[float, float, float]:
    """Seconds a SEARCH statement and a Collection.search cost over their kernels.

    The kernel is the scan alone; ranking its candidates counts as overhead.
    """
    count = min(2_000, len(data.ids))
    con = m2m_file(os.path.join(folder, f"search{time.monotonic_ns()}"), False)
    columns = {
        "id": data.ids[:count],
        "body": data.texts[:count],
        "embedding": data.vectors[:count],
    }
    notes = con.collection("notes")
    notes.add(columns)
    con.commit()
    query = np.ascontiguousarray(data.queries[0])
    kernels = con.engine().kernels
    rows = np.ascontiguousarray(data.vectors[:count])
    norms = np.linalg.norm(rows, axis=1).astype(np.float32)
    sql = "SEARCH notes NEAR ? K 10 RETURNING id, score"
    turns = 300

    kernel, statement, face = [], [], []
    for _ in range(turns):
        kernel.append(common.seconds(lambda: kernels.top_k(rows, norms, query, 10, "cosine")))
        statement.append(common.seconds(lambda: con.execute(sql, (query,)).fetchall()))
        face.append(common.seconds(lambda: notes.search(near=query, k=10, returning=["id"])))
    con.close()
    return (
        float(np.median(kernel)),
        float(np.median(statement) - np.median(kernel)),
        float(np.median(face) - np.median(kernel)),
    )


def main() -> int:
    """Run the turns and print the table."""
    options = common.arguments(__doc__ or "", 20_000, 3)
    data = common.Data(options.data, options.count)
    table = common.Table(f"statements, {data.name}")
    for _ in range(options.rounds):
        with common.workplace(options.folder) as folder:
            theirs, plain, text = insert_rates(folder, data, "full", 2_000)
            table.add("durable insert / sqlite3", plain / theirs, f"{plain:,.0f}/s", 0.5)
            table.add("... with FULLTEXT", text / theirs, f"{text:,.0f}/s", 0.4)
            theirs, plain, _ = insert_rates(folder, data, "off", 4_000)
            table.add("insert, synchronous off / sqlite3", plain / theirs, f"{plain:,.0f}/s", 0.1)
            theirs, ours = select_rates(folder, data)
            table.add("point SELECT / sqlite3", ours / theirs, f"{ours:,.0f}/s", 0.1)
            kernel, statement, face = search_overhead(folder, data)
            text_ = f"kernel {kernel * 1e6:.0f} us"
            table.add("SEARCH over its kernel, us", statement * 1e6, text_, 80, False)
            table.add("Collection.search over its kernel, us", face * 1e6, text_)
    return 0 if table.show() else 1


if __name__ == "__main__":
    raise SystemExit(main())
