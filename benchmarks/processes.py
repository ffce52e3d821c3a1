"""Processes on one file: reopening after a kill at 1 GB, and four readers beside a writer.

python benchmarks/processes.py --folder FOLDER [--count ROWS] [--seconds N]

Reopening: a process fills a file of a gigabyte, commits on and is killed; the time is that from
`connect` to the first answered statement, recovery included, in a process that has imported all.
Once with the log that automatic checkpoints leave, once with one that a reader kept from being
copied.

Readers and writer: each process says what it did with its time: on the processor, ready to run and
waiting for one (the machine's cores are shared), syncing, and waiting for a lock of another
connection. What is bounded by the processor is on it or waits for it.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import common  # sets the number of threads before NumPy loads
import numpy as np

import m2mdb
from m2mdb.pager.os_vfs import OsFile, OsVfs

GIGABYTE = 1 << 30
DIMENSION = 1024
ROW_BYTES = DIMENSION * 4  # of a vector; a file of a gigabyte has GIGABYTE / ROW_BYTES of them
AT_ONCE = 20_000  # rows of one commit
READERS = 4
_fork = multiprocessing.get_context("fork")


# -- reopening -------------------------------------------------------------------------------------


def fill(path: str, size: int) -> None:
    """A closed file of at least `size` bytes."""
    con = m2mdb.connect(path, synchronous="normal")
    con.execute(
        "CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT FULLTEXT, "
        f"embedding VECTOR({DIMENSION}))"
    )
    con.execute("CREATE TABLE counters (id INTEGER PRIMARY KEY, value INTEGER, text TEXT)")
    con.commit()
    rng = np.random.default_rng(1)
    notes, first = con.collection("notes"), 0
    while os.path.getsize(path) < size:
        numbers = range(first, first + AT_ONCE)
        notes.add(
            {
                "id": list(numbers),
                "body": [f"note {number} of word{number % 997}" for number in numbers],
                "embedding": rng.standard_normal((AT_ONCE, DIMENSION), np.float32),
            }
        )
        first += AT_ONCE
    con.close()


def write_until_killed(path: str, told: Any, checkpoints: bool) -> None:
    """Commit single rows, and tell of each."""
    con = m2mdb.connect(path, synchronous="normal")
    if not checkpoints:
        con.execute("PRAGMA wal_autocheckpoint = 0")
    number = con.execute("SELECT coalesce(max(id), 0) FROM counters").fetchone()[0]
    text = "x" * 2000
    while True:
        number += 1
        con.execute("INSERT INTO counters VALUES (?, ?, ?)", (number, number, text))
        con.execute("UPDATE notes SET body = ? WHERE id = ?", (f"changed {number}", number))
        con.commit()
        told.value = number


def killed(path: str, log_bytes: int) -> tuple[int, int]:
    """Kill a writer once its log has some length: commits acknowledged, bytes of the log."""
    told = _fork.Value("q", 0)
    default = log_bytes == 0
    process = _fork.Process(target=write_until_killed, args=(path, told, default))
    process.start()
    start = time.monotonic()
    while True:
        time.sleep(0.01)
        log = os.path.getsize(path + "-wal") if os.path.exists(path + "-wal") else 0
        if told.value and (time.monotonic() > start + 3 if default else log >= log_bytes):
            break
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    return int(told.value), os.path.getsize(path + "-wal")


def in_child(work: Callable[[], Any]) -> Any:
    """What `work` returns in a forked process."""
    answers = _fork.SimpleQueue()
    process = _fork.Process(target=lambda: answers.put(work()))
    process.start()
    answer = answers.get()
    process.join()
    return answer


def reopen(path: str, acknowledged: int) -> tuple[float, float, float]:
    """Seconds from connect to the first answer: by the clock, on the processor; and to close."""
    start, on = time.perf_counter(), time.process_time()
    con = m2mdb.connect(path)
    newest = con.execute("SELECT id FROM counters WHERE id = ?", (acknowledged,)).fetchone()
    took, on = time.perf_counter() - start, time.process_time() - on
    assert newest == (acknowledged,), f"commit {acknowledged} is lost"
    start = time.perf_counter()
    con.close()
    return took, on, time.perf_counter() - start


def reopening(table: common.Table, folder: str, size: int, rounds: int) -> None:
    """Kill and reopen, with a short and a long log."""
    path = os.path.join(folder, "large.m2m")
    in_child(lambda: fill(path, size))
    gigabytes = os.path.getsize(path) / GIGABYTE
    for _ in range(rounds):
        for name, log_bytes in (("", 0), (", log of 64 MiB", 64 << 20)):
            acknowledged, log = killed(path, log_bytes)
            took, on, close = in_child(lambda number=acknowledged: reopen(path, number))
            text = (
                f"{on:.2f} s on the processor; {gigabytes:.2f} GiB, log of {log / 2**20:.0f} MiB; "
                f"close {close:.2f} s"
            )
            table.add(f"seconds to reopen{name}", took, text, 1.0, False)


# -- readers and a writer ------------------------------------------------------------------------


class Ledger:
    """What a process spends its time on."""

    def __init__(self) -> None:
        self.lock_waits = 0
        self.lock_seconds = 0.0
        self.sync_seconds = 0.0
        sleep, sync = OsVfs.sleep, OsFile.sync

        # The classes themselves are measured: the connection under test is the public one, which
        # takes no other file system, and what it waits for has no other seam.
        def counted_sleep(vfs: OsVfs, seconds: float) -> None:
            start = time.perf_counter()
            sleep(vfs, seconds)
            self.lock_waits += 1
            self.lock_seconds += time.perf_counter() - start

        def timed_sync(file: OsFile) -> None:
            start = time.perf_counter()
            sync(file)
            self.sync_seconds += time.perf_counter() - start

        OsVfs.sleep = counted_sleep
        OsFile.sync = timed_sync

    def now(self) -> dict[str, float]:
        """Seconds since the process began, by what they were spent on."""
        with open("/proc/self/schedstat", encoding="ascii") as line:
            on, ready, _ = map(int, line.read().split())
        return {
            "wall": time.perf_counter(),
            "processor": on / 1e9,
            "ready": ready / 1e9,
            "sync": self.sync_seconds,
            "lock": self.lock_seconds,
            "waits": self.lock_waits,
        }


def prepare(path: str, data: common.Data) -> None:
    """A small file in which everything is in memory."""
    con = m2mdb.connect(path)
    con.execute(
        "CREATE TABLE notes (id TEXT PRIMARY KEY, body TEXT FULLTEXT, "
        f"embedding VECTOR({common.DIMENSION}))"
    )
    count = min(len(data.ids), 20_000)
    con.collection("notes").add(
        {"id": data.ids[:count], "body": data.texts[:count], "embedding": data.vectors[:count]}
    )
    con.commit()
    con.close()


def reader(path: str, data: common.Data, number: int) -> Callable[[], None]:
    """Point queries, each on the newest commit; every hundredth time a search by vector."""
    con = m2mdb.connect(path)
    rng = random.Random(number)
    keys = data.ids[:20_000]

    def work() -> None:
        for _ in range(100):
            con.execute("SELECT body FROM notes WHERE id = ?", (rng.choice(keys),)).fetchone()
        con.execute("SEARCH notes NEAR ? K 10 RETURNING id", (rng.choice(data.queries),)).fetchall()

    return work


def writer(path: str, data: common.Data, number: int) -> Callable[[], None]:
    """Rows that are changed, a commit each."""
    con = m2mdb.connect(path, synchronous="normal")
    rng = random.Random(number)
    keys = data.ids[:2_000]

    def work() -> None:
        con.execute(
            "UPDATE notes SET body = ? WHERE id = ?", (rng.choice(data.texts), rng.choice(keys))
        )
        con.commit()

    return work


def run(role: Any, path: str, data: common.Data, number: int, seconds: float, gate: Any) -> Any:
    """One process: get warm, wait for the others, work."""
    ledger = Ledger()
    work = role(path, data, number)
    until = time.perf_counter() + 2.0
    while time.perf_counter() < until:
        work()
    gate.wait()
    before, done = ledger.now(), 0
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        work()
        done += 1
    after = ledger.now()
    gate.wait()
    return {name: after[name] - before[name] for name in after} | {"done": done}


def together(
    path: str, data: common.Data, readers: int, writers: int, seconds: float
) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """What readers and writers report of working at the same time."""
    gate = _fork.Barrier(readers + writers)
    answers = _fork.SimpleQueue()

    def begin(role: Any, number: int) -> Any:
        def work() -> None:
            answers.put((role is writer, run(role, path, data, number, seconds, gate)))

        process = _fork.Process(target=work)
        process.start()
        return process

    processes = [begin(reader, number) for number in range(readers)]
    processes += [begin(writer, 100 + number) for number in range(writers)]
    found = [answers.get() for _ in processes]
    for process in processes:
        process.join()
    return [each for is_writer, each in found if not is_writer], [
        each for is_writer, each in found if is_writer
    ]


def total(reports: list[dict[str, float]], name: str) -> float:
    return sum(report[name] for report in reports)


def rate(reports: list[dict[str, float]], of: str) -> float:
    """Units of work a second of something, all processes together."""
    return total(reports, "done") / (total(reports, of) / (len(reports) if of == "wall" else 1))


def describe(reports: list[dict[str, float]], unit: int) -> str:
    """The absolute figures of some processes."""
    wall = total(reports, "wall")
    shares = ", ".join(
        f"{name} {100 * total(reports, name) / wall:.1f} %"
        for name in ("processor", "ready", "sync", "lock")
    )
    return f"{unit * rate(reports, 'wall'):,.0f}/s; {shares}; {total(reports, 'waits'):.0f} waits"


def beside_each_other(table: common.Table, path: str, data: common.Data, seconds: float) -> None:
    """One turn: readers alone, the writer alone, both; where the time goes."""
    alone, _ = together(path, data, READERS, 0, seconds)
    _, writing = together(path, data, 0, 1, seconds)
    readers, writers = together(path, data, READERS, 1, seconds)
    for name, both, single, unit in (
        ("readers", readers, alone, 101),
        ("writer", writers, writing, 1),
    ):
        wall = total(both, "wall")
        bound = (total(both, "processor") + total(both, "ready")) / wall
        waiting = total(both, "lock") / wall
        text = describe(both, unit)
        table.add(f"{name}: rate together / alone", rate(both, "wall") / rate(single, "wall"), text)
        per_processor = rate(both, "processor") / rate(single, "processor")
        table.add(f"{name}: per processor second / alone", per_processor, describe(single, unit))
        table.add(f"{name}: on or ready for a processor", bound, "share of wall time", 0.9)
        table.add(f"{name}: waiting for a lock", waiting, "share of wall time", 0.02, False)
    used = total(readers + writers, "processor") / (seconds * (os.cpu_count() or 1))
    table.add("processors used by all five", used, f"of {os.cpu_count()} cores, which are shared")


def warm() -> None:
    """Import all that a process will need, before it is forked; no database stays open."""
    con = m2mdb.connect(":memory:", compute="numba")
    con.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT FULLTEXT, v VECTOR(4))")
    con.execute("INSERT INTO t VALUES (1, 'one', ?)", ([1.0, 2, 3, 4],))
    con.commit()
    con.execute("SELECT max(id) FROM t WHERE id = ?", (1,)).fetchone()
    con.execute("UPDATE t SET body = 'two' WHERE id = 1")
    con.execute("SEARCH t NEAR ? K 1", ([1.0, 2, 3, 4],)).fetchall()
    con.commit()
    con.close()


def main() -> int:
    """Run the turns and print the tables."""
    parser = common.parser(__doc__ or "", GIGABYTE // ROW_BYTES, 3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--only", choices=("reopen", "together"), help="one half")
    options = parser.parse_args()
    warm()
    good = True
    with common.workplace(options.folder or os.environ.get("TMPDIR")) as folder:
        if options.only != "together":
            table = common.Table("reopening after a kill")
            reopening(table, folder, options.count * ROW_BYTES, options.rounds)
            good &= table.show()
        if options.only != "reopen":
            data = common.Data(options.data, 20_000)
            table = common.Table(f"{READERS} readers and a writer in processes, {data.name}")
            path = os.path.join(folder, "shared.m2m")
            in_child(lambda: prepare(path, data))
            for _ in range(options.rounds):
                beside_each_other(table, path, data, options.seconds)
            good &= table.show()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
