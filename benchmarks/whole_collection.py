"""What works through a whole collection: REEMBED, categorise, FORGET and OPTIMIZE, in seconds.

    PYTHONPATH=. python benchmarks/whole_collection.py [--rows 50000]

Texts are made: ten words each of 20,000, few of them frequent, and a number of its own; the encoder
is `hashing` in 128 dimensions, FULLTEXT is on. "encode" is what the encoder alone takes for them.
The kernels are loaded before anything is measured: the first time on a machine they are compiled.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import m2mdb
from m2mdb.compute.loader import LOADER
from m2mdb.encoders import HashingEncoder

DIMENSIONS = 128
WORDS = 20_000
BATCH = 5_000


class Other(HashingEncoder):
    """Another model, as REEMBED sees it."""

    model_id = "benchmarks/other"


def vocabulary() -> list[str]:
    """WORDS made-up words."""
    rng = random.Random(7)
    letters = "aeioulmnrst"
    return ["w" + "".join(rng.choices(letters, k=rng.randint(3, 9))) for _ in range(WORDS)]


def texts(words: list[str], count: int) -> list[str]:
    """`count` texts; the n-th word is met as often as the cube root of a uniform number says."""
    places = (WORDS * np.random.default_rng(7).random((count, 10)) ** 3).astype(int).tolist()
    return [" ".join(words[at] for at in row) + f" n{number}" for number, row in enumerate(places)]


def timed(name: str, work: Callable[[], object]) -> None:
    """Run, and say how long it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    print(f"{name}: {time.perf_counter() - wall:.2f} s, CPU {time.process_time() - cpu:.2f} s")


def measure(path: Path, rows: int) -> None:
    """All of it, in one file."""
    words = vocabulary()
    bodies = texts(words, rows)
    timed("encode", lambda: HashingEncoder(DIMENSIONS).encode(bodies))
    encoders = {"other": Other(DIMENSIONS)}
    with m2mdb.connect(path, encoders=encoders, autocommit=True) as con:
        notes = con.create_collection(
            "notes",
            "id INTEGER PRIMARY KEY, body TEXT FULLTEXT, category TEXT, "
            f"e VECTOR({DIMENSIONS}) FROM body ENCODER 'hashing'",
        )
        starts = range(0, rows, BATCH)
        timed("add", lambda: [notes.add({"body": bodies[at : at + BATCH]}) for at in starts])
        timed("REEMBED", lambda: con.execute("REEMBED notes USING 'other'").fetchall())
        classes = m2mdb.Categories({f"c{at}": words[at * 8 : at * 8 + 8] for at in range(10)})
        timed("categorise", lambda: notes.categorise(classes))
        timed("FORGET, a row", lambda: con.execute("FORGET FROM notes WHERE id = 77").fetchall())
        one_in_100 = "FORGET FROM notes WHERE id % 100 = 3"
        timed("FORGET, 1 %", lambda: con.execute(one_in_100).fetchall())
        con.execute("DELETE FROM notes WHERE id % 10 = 4")
        timed("OPTIMIZE, 10 % dead", lambda: con.execute("OPTIMIZE notes").fetchall())
        timed("OPTIMIZE again", lambda: con.execute("OPTIMIZE notes").fetchall())
        print(*con.execute("PRAGMA integrity_check").fetchall()[0])


def main() -> None:
    """Parse the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    arguments = parser.parse_args()
    LOADER.wait()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder) / "notes.m2m", arguments.rows)


if __name__ == "__main__":
    main()
