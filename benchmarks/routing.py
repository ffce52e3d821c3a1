"""What routing is worth: the questions that suites of routing memories ask, of m2mdb's lists.

python benchmarks/routing.py --data FOLDER [--count N]

codebook fidelity   mean 1 - cos of a vector to its list's centroid, beside faiss's k-means
                    with as many centroids
recall per probes   PROBES n: recall@10, and the share of the rows' codes that were compared
adaptive K          how many lists N rows get, and how long these are
imbalance           Gini of the list lengths, the longest beside the mean, dead lists; of even
                    data, and of data of which half lies in one place
threshold savings   RECALL r: codes compared beside PROBES that reaches the same recall
drift latency       rows of another kind until `m2m_drift` raises its alarm
"""

from __future__ import annotations

import os
from typing import Any

import ann
import common
import numpy as np

import m2mdb
from m2mdb.compute.loader import LOADER

Array = np.ndarray[Any, Any]
K = 10


def collection(folder: str, name: str, rows: Array) -> tuple[m2mdb.Connection, Any]:
    """A file with the rows, and with lists."""
    connection = m2mdb.connect(os.path.join(folder, f"{name}.m2m"))
    connection.execute(
        f"CREATE COLLECTION c (id INTEGER PRIMARY KEY, e VECTOR({rows.shape[1]}) METRIC cosine)"
    )
    found = connection.collection("c")
    found.add({"id": np.arange(len(rows)), "e": rows})
    connection.commit()
    connection.execute("CREATE INDEX lists ON c USING hrm2 (e)")
    connection.commit()
    return connection, found


def figures(connection: m2mdb.Connection, table: str) -> dict[str, Any]:
    """The only row of a system table; empty where it has none."""
    cursor = connection.execute(f"SELECT * FROM {table}")
    names = [each[0] for each in cursor.description]
    row = cursor.fetchone()
    return dict(zip(names, row, strict=True)) if row else {}


def fidelity(connection: m2mdb.Connection, rows: Array) -> None:
    """Quantisation error beside another k-means."""
    lists = figures(connection, "m2m_lists")
    print(f"codebook fidelity   {lists['lists']} lists, mean squared distance {lists['error']:.4f}")
    try:
        import faiss
    except ImportError:
        print("                    faiss is not installed: nothing to compare with")
        return
    means = faiss.Kmeans(rows.shape[1], lists["lists"], niter=20, seed=1)
    means.train(rows)
    distances, _ = means.index.search(rows, 1)
    print(f"                    faiss k-means, 20 rounds: {float(distances.mean()):.4f}")


def work_of(connection: m2mdb.Connection, query: Array, clause: str) -> int:
    """Codes that a search compares."""
    statement = f"EXPLAIN ANALYZE SEARCH c NEAR ? K {K} {clause} RETURNING id"
    text = "\n".join(str(row) for row in connection.execute(statement, (query,)))
    codes = [word for word in text.replace(",", " ").split() if word.startswith("codes")]
    if codes and "=" in codes[0]:
        return int(codes[0].split("=")[1].strip("'\")"))
    words = text.replace(",", " ").split()
    return int(words[words.index("codes") - 1]) if "codes" in words else 0


def sweep(connection: m2mdb.Connection, notes: Any, rows: Array, queries: Array) -> None:
    """PROBES and RECALL beside each other."""
    edges = ann.edges_of(rows, queries, K)
    some = queries[:: max(1, len(queries) // 100)]  # kinds of queries stand one after the other
    points: list[tuple[float, float]] = []  # recall and codes of PROBES
    for title, options in (
        ("recall per probes", [("probes", n) for n in (1, 2, 4, 8, 16, 32, 64, 128)]),
        ("threshold savings", [("recall", r) for r in (0.8, 0.9, 0.95, 0.99)]),
    ):
        for name, value in options:
            found = [
                notes.search(near=query, k=K, returning=[], **{name: value}).ids
                for query in queries
            ]
            reached = ann.recall(rows, queries, edges, found, K, None)
            work = np.mean([work_of(connection, q, f"{name.upper()} {value}") for q in some])
            saved = ""
            if name == "probes":
                points.append((reached, float(work)))
            elif points[0][0] <= reached <= points[-1][0]:
                fixed = np.exp(
                    np.interp(reached, [p[0] for p in points], [np.log(p[1]) for p in points])
                )
                saved = f"; PROBES takes {fixed:,.0f} for that recall"
            print(
                f"{title:19} {name} {value:<5} recall {reached:.4f}  codes {work:8,.0f} "
                f"({work / len(rows):.2%} of the rows{saved})"
            )


def adaptive(folder: str, rows: Array) -> None:
    """Lists by rows."""
    for count in sorted({5_000, 10_000, 20_000, 50_000, len(rows)}):
        if count > len(rows):
            continue
        connection, _ = collection(folder, f"k{count}", rows[:count])
        lists = figures(connection, "m2m_lists") or {"lists": 0, "mean": 0.0}
        print(
            f"adaptive K          {count:7,} rows: {lists['lists']:5} lists of {lists['mean']:6.1f}"
        )
        connection.close()


def imbalance(folder: str, rows: Array) -> None:
    """Lengths of lists; half the rows in one place make it hard."""
    random = np.random.default_rng(5)
    heap = rows[:1] + 0.05 * random.standard_normal((len(rows) // 2, rows.shape[1]), np.float32)
    uneven = np.concatenate([rows[: len(rows) // 2], heap])
    for name, some in (("even", rows), ("half in one place", uneven)):
        connection, _ = collection(folder, name.split()[0], np.ascontiguousarray(some, np.float32))
        lists = figures(connection, "m2m_lists")
        print(
            f"imbalance           {name}: Gini {lists['gini']:.3f}, p99 "
            f"{lists['p99'] / lists['mean']:.1f} and longest "
            f"{lists['longest'] / lists['mean']:.1f} times the mean, {lists['dead']} dead lists"
        )
        connection.close()


def drift(folder: str, rows: Array) -> None:
    """Rows of another kind, a thousand at a time, until the alarm."""
    half = len(rows) // 2
    random = np.random.default_rng(6)
    for kind, more in (
        ("of the same kind", rows[half : half + 20_000]),
        ("of no kind", random.standard_normal((20_000, rows.shape[1]), np.float32)),
    ):
        connection, notes = collection(folder, kind.replace(" ", ""), rows[:half])
        state: dict[str, Any] = {}
        added = 0
        while added < len(more) and not state.get("alarm"):
            part = more[added : added + 1000]
            notes.add({"id": np.arange(half + added, half + added + len(part)), "e": part})
            connection.commit()
            added += len(part)
            state = figures(connection, "m2m_drift")
        ratio = state.get("ratio") or float("nan")
        print(
            f"drift latency       {added:6,} rows {kind}: alarm {bool(state.get('alarm'))}, "
            f"error {ratio:.2f} times the baseline"
        )
        connection.close()


def main() -> int:
    """All of it, on one set of rows."""
    options = common.parser(__doc__ or "", 50_000, 1).parse_args()
    if not LOADER.wait():
        raise SystemExit(f"no compiled kernels: {LOADER.error!r}")
    data = common.Data(options.data, options.count)
    rows = data.vectors / np.linalg.norm(data.vectors, axis=1, keepdims=True)
    queries = np.ascontiguousarray(data.queries[:: max(1, len(data.queries) // 300)])
    print(f"{data.name}, {len(rows):,} rows of {rows.shape[1]}, {len(queries)} queries")
    with common.workplace(options.folder) as folder:
        connection, notes = collection(folder, "all", rows)
        fidelity(connection, rows)
        sweep(connection, notes, rows, queries)
        connection.close()
        adaptive(folder, rows)
        imbalance(folder, rows)
        drift(folder, rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
