"""Memory: what a process that searches holds, and what the file takes.

    python benchmarks/memory.py --count 100000 --dimension 768
    python benchmarks/memory.py --count 1000000 --dimension 768 --keep FOLDER

Makes --count vectors (low intrinsic dimension, clusters of uneven size), loads them with short
texts, runs OPTIMIZE and VACUUM, and searches in processes of their own: each first searches a tiny
file, so that imports and kernels are not counted, then opens the large one and searches it with
--queries queries at recall 0.95. Told is by how much its memory has grown, as the system says:

    anonymous   RssAnon: memory of our own: centroids in the order of the kernels, checksums of
                blocks, scratch, caches
    mapped      RssFile: pages of the file that are resident in the process

With a budget, pages beyond it are given back after each search; they stay in the system's cache of
the file, which belongs to no process and which it takes away from there as it needs memory.

    codes on disk   PRAGMA memory_budget = 4 MB: nothing but what one search touches stays
    codes in RAM    PRAGMA memory_budget so that 1-bit codes and centroids fit, and no rows
    no budget       what was touched stays

Gates at 1,000,000 x 768: 16 MB and 220 MB, anonymous and mapped together; the file over vectors and
UTF-8 bytes 1.5.

With --lists K nothing is searched: the file gets K lists in all (so many in each segment), and told
is what its routing layer takes, in bytes of parts that stand in the file: centroids and what
belongs to them, where lists begin, and which row stands where (ordinals). A packed table of 256
lists (row numbers, offsets and float32 centroids) takes 4.6 MB for 1,000,000 x 768: the gate. What
of lane and code belongs to which row (positions) is told beside it: it is part of the codes, and
holds the second lists of rows.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

import m2mdb
from benchmarks.common import Table, parser, workplace
from m2mdb.compute.loader import LOADER

K = 10
MB = 1e6
BATCH = 50_000
ROUTING = {
    "centroids": ("h.centers", "h.center_scales", "h.center_squares"),
    "where lists begin": ("h.starts",),
    "how long to probe": ("h.patience", "h.effort", "h.epsilon", "h.rules"),
    "which row stands where": ("h.ordinals",),
}
TEXT = "memory number %d of the benchmark"


def vectors(count: int, dimension: int, first: int = 0) -> np.ndarray:
    """Rows first .. first + count of a set that depends on nothing else."""
    fixed = np.random.default_rng(7)
    inner = max(16, dimension // 12)
    base = fixed.standard_normal((inner, dimension)).astype(np.float32)
    centers = fixed.standard_normal((2000, inner)).astype(np.float32)
    rng = np.random.default_rng([8, first])
    labels = (rng.random(count) ** 2 * len(centers)).astype(int)
    rows = centers[labels] + 0.6 * rng.standard_normal((count, inner), np.float32)
    return rows @ base + 0.3 * rng.standard_normal((count, dimension), np.float32)


def build(path: str, count: int, dimension: int) -> None:
    """The file, optimized and vacuumed."""
    con = m2mdb.connect(path, autocommit=True)
    con.execute(
        f"CREATE COLLECTION notes (id INTEGER PRIMARY KEY, body TEXT, v VECTOR({dimension}))"
    )
    for start in range(0, count, BATCH):
        ids = np.arange(start, min(start + BATCH, count))
        rows = vectors(len(ids), dimension, start)
        body = [TEXT % id_ for id_ in ids.tolist()]
        con.collection("notes").add({"id": ids, "body": body, "v": rows})
    start_time = time.process_time()
    con.execute("OPTIMIZE")
    print(f"OPTIMIZE: {time.process_time() - start_time:.0f} s CPU", flush=True)
    con.execute("VACUUM")
    con.close()


def memory() -> dict[str, int]:
    """Bytes of this process, anonymous and mapped."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(fields[name].split()[0]) << 10 for name in ("RssAnon", "RssFile")}


def searching(path: str, tiny: str, budget: int, queries: np.ndarray) -> dict[str, Any]:
    """Growth of this process by searches."""
    assert LOADER.wait(300), LOADER.error
    small = m2mdb.connect(tiny)
    for _ in range(30):
        small.collection("notes").search(near=queries[0], k=K, returning="id")
        small.execute("SEARCH notes NEAR ? K 10 RETURNING id", (queries[0],)).fetchall()
    before = memory()
    con = m2mdb.connect(path)
    con.execute(f"PRAGMA memory_budget = {budget}")
    notes, times, most = con.collection("notes"), [], 0
    for query in queries:
        start = time.perf_counter()
        notes.search(near=query, k=K, returning="id")
        times.append(time.perf_counter() - start)
        now = memory()
        most = max(most, sum(now.values()))
    grown = {name: value - before[name] for name, value in memory().items()}
    figures = con.execute(
        "SELECT sum(routing_bytes), sum(code_bytes), sum(refine_bytes), sum(lists) FROM m2m_lists"
    ).fetchone()
    return {
        **grown, "most": most - sum(before.values()), "time": statistics.median(times),
        "first": times[0], "figures": list(figures or ()),
    }  # fmt: skip


def routing_layer(path: str, lists: int, *, packed: bool) -> bool:
    """Lists anew, so many in all; bytes of what leads to their rows.

    packed  whether the gate of the packed table applies
    """
    con = m2mdb.connect(path, autocommit=True)
    for (name,) in con.execute("SELECT name FROM m2m_indexes WHERE kind = 'hrm2'").fetchall():
        con.execute(f"DROP INDEX {name}")
    (segments,) = con.execute("SELECT count(*) FROM m2m_segments WHERE rows > 2047").fetchone()
    each = max(2, lists // segments)
    con.execute(f"CREATE INDEX routed ON notes USING hrm2 (v) WITH (lists = {each})")
    sizes: dict[str, int] = {}
    with con.engine().reading() as view:
        for segment in view.collection("notes").segments:
            for part, column in segment.names():
                sizes[part] = sizes.get(part, 0) + segment.range_of(part, column)[2]
    figures = con.execute("SELECT sum(lists), sum(rows), sum(codes) FROM m2m_lists").fetchone()
    print("{} lists of {} rows, {} codes".format(*(figures or ())))
    con.close()
    table = Table("Routing layer, in MB of the file")
    for name, parts in ROUTING.items():
        table.add(name, sum(sizes.get(part, 0) for part in parts) / MB, "")
    whole = sum(sizes.get(part, 0) for parts in ROUTING.values() for part in parts)
    table.add("routing layer", whole / MB, "", 4.6 if packed else None, least=False)
    table.add("beside the codes: positions", sizes["h.positions"] / MB, "")
    return table.show()


def recall(path: str, queries: np.ndarray) -> float:
    """Mean recall against EXACT."""
    notes = m2mdb.connect(path).collection("notes")
    shares = []
    for query in queries:
        exact = set(notes.search(near=query, k=K, exact=True, returning="id").ids.tolist())
        found = notes.search(near=query, k=K, returning="id").ids.tolist()
        shares.append(len(exact & set(found)) / K)
    return float(np.mean(shares))


def child(*arguments: Any) -> Any:
    """One call of `searching` or `recall` in a process of its own."""
    command = [sys.executable, __file__, "--child", json.dumps(arguments)]
    out = subprocess.run(command, capture_output=True, text=True, check=False)
    if out.returncode:
        raise SystemExit(out.stderr)
    return json.loads(out.stdout)


def work(kind: str, count: int, dimension: int, *arguments: Any) -> Any:
    """What a child does."""
    queries = vectors(count, dimension, -1 & 0xFFFFFF)
    if kind == "recall":
        assert LOADER.wait(300), LOADER.error
        return recall(arguments[0], queries)
    path, tiny, budget = arguments
    return searching(path, tiny, budget, queries)


def main() -> bool:
    options_parser = parser(__doc__ or "", 100_000, 1)
    options_parser.add_argument("--dimension", type=int, default=768)
    options_parser.add_argument("--queries", type=int, default=300)
    options_parser.add_argument("--keep", default=None, help="folder of files, made where absent")
    options_parser.add_argument("--lists", type=int, default=0, help="in all segments together")
    options_parser.add_argument("--child", default=None)
    options = options_parser.parse_args()
    if options.child:
        print(json.dumps(work(*json.loads(options.child))))
        return True
    with workplace(options.folder) as made:
        folder = options.keep or made
        return run(options, folder)


def run(options: Any, folder: str) -> bool:
    """Build what is not there, measure, and compare with the gates."""
    count, dimension = options.count, options.dimension
    path, tiny = f"{folder}/{count}x{dimension}.m2m", f"{folder}/tiny{dimension}.m2m"
    assert LOADER.wait(300), LOADER.error
    for each, rows in ((tiny, 9000), (path, count)):
        if not Path(each).exists():
            build(each, rows, dimension)
    if options.lists:
        return routing_layer(path, options.lists, packed=(count, dimension) == (1_000_000, 768))
    raw = count * 4 * dimension + sum(len(TEXT % i) for i in range(count))
    ratio = Path(path).stat().st_size / raw
    base = [options.queries, dimension]
    disk = child("search", *base, path, tiny, 4_000_000)
    routing, codes, refine, lists = disk["figures"]
    ram = child("search", *base, path, tiny, int(codes + routing + 4e6))
    free = child("search", *base, path, tiny, 0)
    print(f"{count} x {dimension}: {lists} lists; centroids {routing / MB:.1f} MB, 1-bit codes "
          f"{codes / MB:.1f} MB, 8-bit codes {refine / MB:.1f} MB in the file")  # fmt: skip
    for name, found in (("codes on disk", disk), ("codes in RAM", ram), ("no budget", free)):
        print(f"  {name:14} anonymous {found['RssAnon'] / MB:6.1f} MB, mapped "
              f"{found['RssFile'] / MB:7.1f} MB, most {found['most'] / MB:7.1f} MB, search "
              f"{found['time'] * 1e6:6.0f} us, first {found['first']:.2f} s")  # fmt: skip
    is_large = (count, dimension) == (1_000_000, 768)
    table = Table("Memory of a process that searches, in MB; the file over its content")
    for name, found, gate in (("codes on disk", disk, 16.0), ("codes in RAM", ram, 220.0)):
        total = (found["RssAnon"] + found["RssFile"]) / MB
        table.add(name, total, "", gate if is_large else None, least=False)
    table.add("file over vectors and text", ratio, "", 1.5, least=False)
    share = child("recall", min(100, options.queries), dimension, path)
    table.add("recall at 0.95", share, "", 0.94)
    return table.show()


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
