"""How long the index layer's long work goes on after `interrupt()`: builds, merges, copies, checks.

python benchmarks/interrupts_index.py --folder F --make        the files, once
python benchmarks/interrupts_index.py --folder F --gaps        the longest times between two looks
python benchmarks/interrupts_index.py --folder F --rounds 10   latencies of random interrupts
python benchmarks/interrupts_index.py --folder F --seconds     what each kind of work takes

`--only ANALYZE,merge` takes the kinds whose name has one of these in it. Each kind of work runs on
a copy of a file of 1,000,000 rows (or 100,000 vectors of 384), so that none finds what another one
did. A gap is printed with the place of the look before it, of the look behind it, and where a
second thread saw the work in between. `cpu` is the processor time of the gap: on a busy machine the
gap is longer than it. A latency is the time from the call of `interrupt()` in another thread until
the work has raised; behind each the content is counted again.
"""

from __future__ import annotations

import gc
import os
import random
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import cache, partial
from types import FrameType
from typing import Any

import common  # sets the number of threads before NumPy loads
import numpy as np

import m2mdb
from m2mdb.compute.loader import LOADER

Work = Callable[[Any, str], object]  # a connection, and a folder for what is written beside it
MOST_MS = 50.0
SHOWN = 3  # gaps of a kind
SAMPLE_SECONDS = 0.002


def _words(generator: np.random.Generator, count: int) -> list[str]:
    return [f"word {number} of the list" for number in generator.integers(0, count, count)]


def _bodies(generator: np.random.Generator, count: int) -> list[str]:
    words = [f"w{number}" for number in range(20_000)]
    picks = np.minimum(generator.zipf(1.2, (count, 8)), len(words)) - 1
    return [" ".join([words[place] for place in row]) for row in picks.tolist()]


def _texts(con: Any, count: int, parts: int = 1, options: str = "") -> None:
    """t with keys, texts, numbers, in so many segments."""
    con.execute(
        f"CREATE TABLE t (k TEXT {'PRIMARY KEY' if parts > 1 else ''}, topic TEXT, word TEXT, "
        f"body TEXT {options}, n INTEGER, x REAL)"
    )
    generator = np.random.default_rng(1)
    for part in range(parts):
        size = count // parts
        con.collection("t").add({
            "k": [f"key {part} {number}" for number in range(size)],
            "topic": [f"topic{number}" for number in generator.integers(0, 40, size).tolist()],
            "word": _words(generator, size), "body": _bodies(generator, size),
            "n": generator.integers(0, count, size), "x": generator.standard_normal(size),
        })  # fmt: skip
        con.commit()


def _vectors(con: Any, count: int, parts: int = 1, index: str = "") -> None:
    """v with vectors around centres, as embeddings have them."""
    con.execute("CREATE TABLE v (id INTEGER PRIMARY KEY, e VECTOR(384))")
    generator = np.random.default_rng(2)
    centers = generator.standard_normal((500, 384), np.float32)
    for _ in range(parts):
        picks = generator.integers(0, 500, count // parts)
        noise = generator.standard_normal((len(picks), 384), np.float32)
        con.collection("v").add({"e": centers[picks] + noise})
        con.commit()
    if index:
        con.execute(index)
        con.commit()


MAKERS: dict[str, Callable[[Any, int], None]] = {
    "texts": _texts,
    "texts2": partial(_texts, parts=2, options="FULLTEXT"),
    "vectors": lambda con, count: _vectors(con, count // 10),
    "vectors4": lambda con, count: _vectors(con, count // 10, 4),
    "lists": lambda con, count: _vectors(con, count // 10, 1, "CREATE INDEX i ON v USING hrm2 (e)"),
}


def _sql(*statements: str) -> Work:
    def work(con: Any, folder: str) -> None:
        for statement in statements:
            found = con.execute(statement.replace("FOLDER", folder))
            if found.description is not None:
                found.fetchall()

    return work


@cache
def _new_rows(count: int) -> dict[str, Any]:
    return {
        "k": [f"new {number}" for number in range(count)], "n": np.arange(count),
        "word": [f"word {number}" for number in range(count)],
    }  # fmt: skip


def _add(con: Any, folder: str) -> None:
    con.collection("t").add(_new_rows(1_000_000))


def _begin_and_add(con: Any, folder: str) -> None:
    con.execute("BEGIN IMMEDIATE")
    _add(con, folder)


def _backup(con: Any, folder: str) -> None:
    with m2mdb.connect(os.path.join(folder, "backup.m2m")) as other:
        con.backup(other)


def _delete_half(con: Any, folder: str) -> None:
    """Untimed: VACUUM has something to move."""
    con.execute("DELETE FROM t WHERE n % 2 = 0")
    con.commit()
    con.execute("OPTIMIZE")


def _exported(kind: str) -> Work:
    def prepare(con: Any, folder: str) -> None:
        con.execute(f"COPY t TO '{folder}/given.{kind}'")
        con.execute("CREATE TABLE u (k TEXT UNIQUE, topic TEXT, word TEXT, body TEXT, n INTEGER, "
                    "x REAL)")  # fmt: skip
        con.commit()

    return prepare


# name: the file, the work, what comes before it
CASES: dict[str, tuple[str, Work, Work | None]] = {
    "ANALYZE": ("texts", _sql("ANALYZE"), None),
    "CREATE INDEX bm25": ("texts", _sql("CREATE INDEX i ON t USING bm25 (body)"), None),
    "CREATE INDEX bm25 distinct": ("texts", _sql("CREATE INDEX i ON t USING bm25 (word)"), None),
    "CREATE INDEX btree text": ("texts", _sql("CREATE INDEX i ON t (word)"), None),
    "CREATE INDEX btree number": ("texts", _sql("CREATE INDEX i ON t (n)"), None),
    "CREATE INDEX btree unique": ("texts", _sql("CREATE UNIQUE INDEX i ON t (k, n)"), None),
    "DROP INDEX": ("texts", _sql("DROP INDEX i"), _sql("CREATE INDEX i ON t (n)")),
    "CREATE INDEX hrm2": ("vectors", _sql("CREATE INDEX i ON v USING hrm2 (e)"), None),
    "OPTIMIZE merge texts": ("texts2", _sql("OPTIMIZE"), None),
    "OPTIMIZE merge deleted": ("texts2", _sql("OPTIMIZE"), _sql("DELETE FROM t WHERE n % 7 = 0")),
    "OPTIMIZE vectors": ("vectors4", _sql("OPTIMIZE"), None),
    "OPTIMIZE lists": ("lists", _sql("OPTIMIZE"), _sql("DELETE FROM v WHERE id % 7 = 0")),
    "VACUUM": ("texts2", _sql("VACUUM"), _delete_half),
    "VACUUM vectors": ("vectors4", _sql("VACUUM"), _sql("OPTIMIZE")),
    "FORGET texts": ("texts2", _sql("FORGET FROM t WHERE n % 1000 = 0"), None),
    "FORGET vectors": ("lists", _sql("FORGET FROM v WHERE id % 1000 = 0"), None),
    "integrity_check texts": ("texts2", _sql("PRAGMA integrity_check"), None),
    "integrity_check btree": ("texts", _sql("PRAGMA integrity_check"),
                              _sql("CREATE INDEX i ON t (word)")),
    "integrity_check lists": ("lists", _sql("PRAGMA integrity_check"), None),
    "add rows with keys": ("texts2", _add, lambda con, folder: _new_rows(1_000_000)),
    "COPY TO csv": ("texts", _sql("COPY t TO 'FOLDER/t.csv'"), None),
    "COPY TO jsonl": ("texts", _sql("COPY t TO 'FOLDER/t.jsonl'"), None),
    "COPY TO parquet": ("texts", _sql("COPY t TO 'FOLDER/t.parquet'"), None),
    "COPY TO npy": ("vectors", _sql("COPY v TO 'FOLDER/v.npy'"), None),
    "COPY FROM csv": ("texts", _sql("COPY u FROM 'FOLDER/given.csv'"), _exported("csv")),
    "COPY FROM jsonl": ("texts", _sql("COPY u FROM 'FOLDER/given.jsonl'"), _exported("jsonl")),
    "COPY FROM parquet": ("texts", _sql("COPY u FROM 'FOLDER/given.parquet'"),
                          _exported("parquet")),
    "backup": ("texts2", _backup, None),
    "VACUUM INTO": ("texts2", _sql("VACUUM INTO 'FOLDER/into.m2m'"), None),
    "ALTER": ("texts", _sql("ALTER TABLE t ADD COLUMN y INTEGER DEFAULT 3"), None),
    "DROP TABLE": ("texts2", _sql("DROP TABLE t"), None),
    "rollback of an add": ("texts2", lambda con, folder: con.rollback(), _begin_and_add),
    "commit of an add": ("texts2", lambda con, folder: con.commit(), _begin_and_add),
}  # fmt: skip


class Watch:
    """The times between two looks for an interrupt, and where they were."""

    def __init__(self, database: Any) -> None:
        self._database = database
        self._given = database.check_interrupted
        self._last: tuple[float, float, str] = (0.0, 0.0, "")
        self._main = threading.get_ident()
        self._ended = threading.Event()
        self._samples: list[tuple[float, str]] = []
        self.looks = 0
        self._collections: list[tuple[float, float]] = []  # of garbage: when, and how long
        self.found: list[tuple[float, float, str, str, float]] = []

    def _mark(self, place: str) -> None:
        now, used = time.perf_counter(), time.thread_time()
        last, before, where = self._last
        self.found.append((now - last, used - before, where, place, now))
        if len(self.found) > 1000:
            self.found = sorted(self.found, reverse=True)[:SHOWN]
        self._last = (time.perf_counter(), used, place)

    def _collected(self, phase: str, _: Any) -> None:
        now = time.perf_counter()
        if phase == "start":
            self._collections.append((now, 0.0))
        elif self._collections:
            self._collections[-1] = (now, now - self._collections[-1][0])

    def _look(self) -> None:
        self.looks += 1
        self._mark(_place(sys._getframe(1)))
        self._given()

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            frame = sys._current_frames().get(self._main)
            if frame is not None:
                self._samples.append((time.perf_counter(), _place(frame, 2)))

    def run(self, work: Callable[[], object]) -> float:
        """Seconds that the work took; `found` has the longest gaps."""
        self._database.check_interrupted = self._look
        sampler = threading.Thread(target=self._sample)
        sampler.start()
        gc.callbacks.append(self._collected)
        start = time.perf_counter()
        self._last = (start, time.thread_time(), "begin")
        try:
            work()
        finally:
            end = time.perf_counter()
            self._mark("end")
            gc.callbacks.remove(self._collected)
            self._ended.set()
            sampler.join()
            del self._database.check_interrupted
        self.found = sorted(self.found, reverse=True)[:SHOWN]
        return end - start

    def between(self, gap: tuple[float, float, str, str, float]) -> str:
        """Where the work was seen in a gap."""
        seen = Counter(where for when, where in self._samples if gap[4] - gap[0] <= when <= gap[4])
        garbage = sum([took for at, took in self._collections if gap[4] - gap[0] <= at <= gap[4]])
        said = f"garbage {garbage * 1000:.0f} ms; " if garbage > 0.005 else ""
        return said + "; ".join(f"{where} x{count}" for where, count in seen.most_common(4))


def _place(frame: FrameType | None, most: int = 3) -> str:
    """File and line of the innermost frames of the project."""
    found: list[str] = []
    while frame is not None and len(found) < most:
        name = frame.f_code.co_filename
        if not name.endswith(("interrupts_index.py", "threading.py")):
            found.append(f"{os.path.basename(name)}:{frame.f_lineno}")
        frame = frame.f_back
    return "<".join(found)


class Place:
    """A copy of a case's file, with a connection to it."""

    def __init__(self, folder: str, name: str) -> None:
        kind, self.work, prepare = CASES[name]
        self.folder = os.path.join(folder, "work")
        shutil.rmtree(self.folder, ignore_errors=True)
        os.makedirs(self.folder)
        path = os.path.join(self.folder, "x.m2m")
        shutil.copy(os.path.join(folder, f"{kind}.m2m"), path)
        self.con = m2mdb.connect(path, compute="numba")
        self.is_transaction = name in ("rollback of an add", "commit of an add")
        if prepare is not None:
            prepare(self.con, self.folder)
        if not self.is_transaction:
            self.con.commit()
        self.con.execute("SELECT 1").fetchall()
        if not LOADER.wait():  # else their import, in a thread of its own, would be measured
            raise RuntimeError(f"the compiled kernels: {LOADER.error}")

    def run(self) -> None:
        """The work."""
        self.work(self.con, self.folder)

    def counts(self) -> list[Any]:
        """How many rows each table has."""
        names = [
            name for (name,) in self.con.execute("SELECT name FROM m2m_collections").fetchall()
        ]
        found = [self.con.execute(f"SELECT count(*) FROM {name}").fetchall() for name in names]
        self.con.rollback()
        return [names, found]

    def close(self) -> None:
        """Close, and remove the files."""
        self.con.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def interrupted(place: Place, delay: float) -> float | None:
    """Seconds from the interrupt to the error; None where the work had ended before."""
    said = [0.0]
    ended = threading.Event()

    def interrupt() -> None:
        if not ended.wait(delay):
            said[0] = time.perf_counter()
            place.con.interrupt()

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        place.run()
    except m2mdb.StatementInterruptedError:
        return time.perf_counter() - said[0]
    finally:
        ended.set()
        thread.join()
    return None


def show_gaps(folder: str, name: str, rounds: int) -> float:
    """Print the longest gaps of the best of some runs; in ms."""
    best: tuple[float, float, Watch] | None = None
    for _ in range(rounds):
        place = Place(folder, name)
        watch = Watch(place.con.database)
        whole = watch.run(place.run)
        place.close()
        if best is None or watch.found[0][0] < best[0]:
            best = watch.found[0][0], whole, watch
    assert best is not None
    longest, whole, watch = best
    print(f"{name:28} {whole * 1000:8.0f} ms, {watch.looks:6} looks, longest {longest * 1000:.1f}",
          flush=True)  # fmt: skip
    for gap in watch.found:
        if gap[0] > 0.015:
            print(f"    {gap[0] * 1000:7.1f} ms, cpu {gap[1] * 1000:7.1f}: {gap[2]} -> {gap[3]}\n"
                  f"            seen {watch.between(gap)}", flush=True)  # fmt: skip
    return longest * 1000


def latencies(folder: str, name: str, rounds: int, limit: float) -> list[float]:
    """The ms of random interrupts that hit; on one copy, as each leaves it as it was."""
    place = Place(folder, name)
    before = place.counts()
    start = time.perf_counter()
    interrupted(place, limit)
    whole = time.perf_counter() - start
    place.con.rollback()
    found: list[float] = []
    generator = random.Random(name)
    until = time.perf_counter() + limit * rounds
    while len(found) < rounds and time.perf_counter() < until:
        if place.con.in_transaction:
            place.con.rollback()
        hit = interrupted(place, generator.random() * whole)
        place.con.rollback()
        if hit is not None:
            found.append(hit * 1000)
            assert place.counts() == before, name
        else:  # it has done its work: again on a new copy
            place.close()
            place = Place(folder, name)
    place.close()
    return found


def main() -> int:
    """Print what was asked for; 1 where a figure is above 50 ms."""
    parser = common.parser(__doc__ or "", 1_000_000, 1)
    parser.add_argument("--make", action="store_true", help="make the files")
    parser.add_argument("--gaps", action="store_true", help="the longest gaps, best of --rounds")
    parser.add_argument("--seconds", action="store_true", help="the shortest of --rounds runs")
    parser.add_argument("--only", default="", help="of the kinds, by parts of their names")
    parser.add_argument("--limit", type=float, default=4.0, help="seconds of an undisturbed run")
    options = parser.parse_args()
    folder = options.folder or "/tmp"
    if options.make:
        for kind, maker in MAKERS.items():
            path = os.path.join(folder, f"{kind}.m2m")
            if not os.path.exists(path):
                with m2mdb.connect(path + ".new", compute="numba") as con:
                    maker(con, options.count)
                con.close()
                os.rename(path + ".new", path)
        return 0
    wanted = options.only.split(",")
    worst = 0.0
    every: list[float] = []
    for name in CASES:
        if not any(part in name for part in wanted):
            continue
        if options.gaps:
            worst = max(worst, show_gaps(folder, name, options.rounds))
        elif options.seconds:
            print(f"{name:28} {shortest(folder, name, options.rounds) * 1000:8.0f} ms", flush=True)
        else:
            found = latencies(folder, name, options.rounds, options.limit)
            every += found
            p50, p99, most = np.percentile(found or [0.0], [50, 99, 100])
            print(f"{name:28} {len(found):4} interrupts: p50 {p50:.1f} ms, p99 {p99:.1f}, "
                  f"at most {most:.1f}", flush=True)  # fmt: skip
    if every:
        p50, p99, worst = np.percentile(every, [50, 99, 100])
        print(f"{len(every)} interrupts: p50 {p50:.1f} ms, p99 {p99:.1f}, at most {worst:.1f}")
    return int(worst > MOST_MS)


def shortest(folder: str, name: str, rounds: int) -> float:
    """Seconds of the shortest of some runs."""
    found = []
    for _ in range(rounds):
        place = Place(folder, name)
        found.append(common.seconds(place.run))
        place.close()
    return min(found)


if __name__ == "__main__":
    sys.exit(main())
