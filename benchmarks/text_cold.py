"""First searches of a process: words whose lists nobody has unpacked yet.

Texts are pairs of WordNet glosses, as many as --count says. Each turn is a new process that opens
the file, waits for the kernels, and asks the same queries twice, one a call: the OR of all words of
a text, the ten best, ids and scores. The first search, the first hundred, and the hundred again are
timed, and how much memory the process has grown by since it opened the file.

    python benchmarks/text_cold.py --data FOLDER [--count N] [--rounds N] [--keep FILE]

--keep names a file that is built where it is absent, and used where it is there.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

from common import parser, workplace  # its environment comes before NumPy's threads
from text import load

import m2mdb
from m2mdb.compute.loader import LOADER

FIRST = 100


def resident() -> int:
    """Bytes of this process that are its own: pages of the file are not counted."""
    with open("/proc/self/statm") as lines:
        fields = [int(field) for field in lines.read().split()]
    return (fields[1] - fields[2]) * os.sysconf("SC_PAGE_SIZE")


def build(path: str, texts: list[str], count: int) -> None:
    """A file of `count` texts, each two glosses."""
    con = m2mdb.connect(path)
    con.execute("CREATE COLLECTION notes (id INTEGER PRIMARY KEY, body TEXT FULLTEXT)")
    size = len(texts)
    con.collection("notes").add(
        {
            "id": list(range(count)),
            "body": [
                f"{texts[i % size]} {texts[(i * 7919 + i // size) % size]}" for i in range(count)
            ],
        }
    )
    con.commit()
    con.close()


def turn(path: str, data: str) -> None:
    """One process: prints its figures."""
    _, _, queries = load(data, 1)
    words = [m2mdb.match_text(text) for text, _ in queries[:FIRST]]
    con = m2mdb.connect(path)
    notes = con.collection("notes")
    assert LOADER.wait()
    notes.search(match="zzz", k=1, returning=[])
    before, spent = resident(), []
    for _ in range(2):
        for word in words:
            start = time.perf_counter()
            notes.search(match=word, k=10, returning=[])
            spent.append(time.perf_counter() - start)
        if len(spent) == FIRST:
            grown = resident() - before
    figures = [spent[0], sum(spent[:FIRST]), statistics.median(spent[:FIRST]), sum(spent[FIRST:])]
    print(*[f"{figure * 1e3:.3f}" for figure in figures], f"{grown / 2**20:.1f}")


def main() -> None:
    options = parser((__doc__ or "").partition("\n\n")[0], 1_000_000, 3)
    options.add_argument("--keep", help="a file of an earlier run, or for a later one")
    options.add_argument("--turn", help="of the program itself: measure this file")
    given = options.parse_args()
    if given.turn:
        turn(given.turn, given.data)
        return
    with workplace(given.folder) as folder:
        path = given.keep or os.path.join(folder, "cold.m2m")
        if not os.path.exists(path):
            _, texts, _ = load(given.data, 100_000)
            build(path, texts, given.count)
        print("ms: the first search, the first hundred, their median, the hundred again; MiB grown")
        for _ in range(given.rounds):
            again = [sys.executable, __file__, "--data", given.data, "--turn", path]
            print(subprocess.run(again, check=True, capture_output=True, text=True).stdout.strip())


if __name__ == "__main__":
    main()
