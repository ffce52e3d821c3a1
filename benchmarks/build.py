"""How fast vectors become searchable and durable: vectors a second of CPU, several builds in turn.

    python benchmarks/build.py --data FOLDER [--count 100000] [--rounds 5]

Each round makes a new file: `Collection.add` from arrays, OPTIMIZE (lists and codes), commit. That
is what `benchmarks/ann.py` counts as m2mdb's build, but for importing m2mdb and its compiled
kernels, which a process does once; it is printed beside. Without the wordnet data, random vectors
of unit length are built, which say nothing of the recall that measuring has to reach.
"""

from __future__ import annotations

import importlib
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import common  # sets the number of threads before NumPy loads
import numpy as np


def loaded() -> float:
    """Import m2mdb and its kernels; CPU seconds."""
    started = time.process_time()
    importlib.import_module("m2mdb")
    loader = importlib.import_module("m2mdb.compute.loader").LOADER
    if not loader.wait():
        raise SystemExit(f"no compiled kernels: {loader.error!r}")
    return time.process_time() - started


def built(rows: np.ndarray[Any, Any], folder: str) -> tuple[float, float]:
    """CPU seconds of adding rows and committing them, and of making their lists."""
    m2mdb = importlib.import_module("m2mdb")
    connection = m2mdb.connect(str(Path(folder) / "store.m2m"))
    connection.execute(
        f"CREATE COLLECTION notes (id INTEGER PRIMARY KEY, e VECTOR({rows.shape[1]}) METRIC cosine)"
    )
    started = time.process_time()
    connection.collection("notes").add({"id": np.arange(len(rows)), "e": rows})
    connection.commit()
    added = time.process_time()
    connection.execute("OPTIMIZE notes")
    connection.commit()
    connection.close()
    return added - started, time.process_time() - added


def main() -> int:
    """Build, turn by turn, and print each and the median."""
    options = common.arguments(__doc__ or "", 100_000, 5)
    data = common.Data(options.data, options.count)
    rows = data.vectors[: options.count]
    print(f"{data.name}: {len(rows):,} x {rows.shape[1]}; kernels loaded in {loaded():.2f} CPU s")
    rates = []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            adding, listing = built(rows, folder)
        rates.append(len(rows) / (adding + listing))
        print(f"  add {adding:.2f} s, lists {listing:.2f} s: {rates[-1]:,.0f} vectors a CPU second")
    print(f"median {statistics.median(rates):,.0f}, least {min(rates):,.0f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
