"""How long a statement goes on after `interrupt()`, for each kind of work over many rows.

python benchmarks/interrupts.py --folder F --seconds 80    again and again, until nothing is left
python benchmarks/interrupts.py --folder F --table         what was measured, as a table
python benchmarks/interrupts.py --folder F --writes        those kinds alone that write
python benchmarks/interrupts.py --folder F --gaps          the longest time between two looks
python benchmarks/interrupts.py --folder F --gaps --where  and the lines at which it passed

Each statement is begun and interrupted by another thread after a random part of the time that it
takes undisturbed; measured is how long it then went on: from the moment for which the interrupt was
meant, waiting for the interpreter included, until its error was raised, the statement being undone
by then. Beside it stands the processor time of the thread in that while: on a busy machine the rest
is waiting for a turn. What writes does so in a transaction that is rolled back. Behind each
interrupt the connection answers a query, and has the rows that it had. The figures are kept in a
file of the folder, to which each run adds; `--log` names another one.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import common  # sets the number of threads before NumPy loads
import interrupt_kinds
import numpy as np
from interrupt_kinds import Kind

import m2mdb

MOST_MS = 50.0
LONGEST = 12.0  # seconds of a run, after which it is interrupted as well
SAMPLED = 0.004  # seconds between two looks at where the time of a gap passes
FEWEST = 5  # rounds of a kind before `--seconds` may end a run


class Watch:
    """The longest time between two looks for an interrupt, and where it passed."""

    def __init__(self, database: Any) -> None:
        self._database = database
        self._given = database.check_interrupted
        self._last = 0.0
        self._lines: list[str] = []
        self.longest = 0.0
        self.gaps: list[tuple[float, list[str]]] = []

    def _look(self) -> None:
        self._note()
        self._given()

    def _note(self) -> None:
        now = time.perf_counter()
        gap = now - self._last
        self.longest = max(self.longest, gap)
        if gap * 1000 > MOST_MS / 4:
            self.gaps.append((gap, self._lines))
        self._lines = []
        self._last = now

    def sample(self, _: int, frame: FrameType | None) -> None:
        """Note the innermost lines of the library that run."""
        found: list[str] = []
        while frame is not None and len(found) < 3:
            name = frame.f_code.co_filename
            if "interrupt" not in os.path.basename(name):
                found.append(f"{'/'.join(name.split('/')[-2:])}:{frame.f_lineno}")
            frame = frame.f_back
        self._lines.append(" < ".join(found))

    def run(self, con: Any, work: Callable[[Any], object]) -> float:
        """Seconds that the work took; `longest` is the gap."""
        self._database.check_interrupted = self._look
        self.longest, start = 0.0, time.perf_counter()
        self._last = start
        end = start

        def watched(con: Any) -> object:
            nonlocal end
            try:
                return work(con)
            finally:  # what is made is dropped after that
                end = time.perf_counter()
                self._note()

        try:
            interrupted(con, watched, LONGEST)
        finally:
            del self._database.check_interrupted
        return end - start


@contextlib.contextmanager
def begun(con: Any, path: str, kind: Kind) -> Iterator[Any]:
    """A connection for one run; nothing of the run is kept."""
    if kind.opens:
        with contextlib.closing(m2mdb.connect(path, compute="numba")) as fresh:
            interrupt_kinds.prepare(fresh)
            yield fresh
        return
    con.execute("BEGIN IMMEDIATE")
    try:
        yield con
    finally:
        con.rollback()


def interrupted(
    con: Any, work: Callable[[Any], object], delay: float
) -> tuple[float, float] | None:
    """Seconds that the work went on behind an interrupt after `delay`, and those that it computed;
    None: it had ended."""
    meant, used = [0.0], [0.0]
    ended = threading.Event()
    clock = time.pthread_getcpuclockid(threading.get_ident())

    def interrupt() -> None:
        if not ended.wait(max(0.0, meant[0] - time.perf_counter())):
            con.interrupt()
            used[0] = time.clock_gettime(clock)

    thread = threading.Thread(target=interrupt)
    meant[0] = time.perf_counter() + delay
    thread.start()
    try:
        work(con)
    except m2mdb.StatementInterruptedError:
        return time.perf_counter() - meant[0], time.thread_time() - used[0]
    finally:
        ended.set()
        thread.join()
    return None


class Log:
    """The latencies in ms that were measured, by kind; a line of the file for each.

    latencies   from the interrupt until the error
    computed    processor time of these, where it was measured
    seconds     that the statement takes undisturbed
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self.latencies: dict[str, list[float]] = {}
        self.computed: dict[str, list[float]] = {}
        self.seconds: dict[str, float] = {}
        if os.path.exists(path):
            with open(path, encoding="utf-8") as lines:
                for line in lines:
                    name, latency, whole, *computed = json.loads(line)
                    self._note(name, latency, whole, *computed)

    def _note(self, name: str, latency: float, whole: float, computed: float | None = None) -> None:
        self.latencies.setdefault(name, []).append(latency)
        if computed is not None:
            self.computed.setdefault(name, []).append(computed)
        self.seconds[name] = whole

    def add(self, name: str, found: tuple[float, float], whole: float) -> None:
        """One interrupt, in seconds, of a statement that takes `whole` seconds."""
        latency, computed = (round(each * 1000, 3) for each in found)
        self._note(name, latency, whole, computed)
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps([name, latency, round(whole, 3), computed]) + "\n")

    def table(self) -> int:
        """Print it; 1 where an interrupt took more than 50 ms."""
        print("| statement | takes, ms | interrupts | p50, ms | p99 | at most | computed, at most |"
              "\n| --- | ---: | ---: | ---: | ---: | ---: | ---: |")  # fmt: skip
        for name, found in self.latencies.items():
            print(_line(name, f"{self.seconds[name] * 1000:,.0f}", found, self.computed.get(name)))
        every = [latency for found in self.latencies.values() for latency in found]
        if every:
            computed = [latency for found in self.computed.values() for latency in found]
            print(_line("all", "", every, computed))
        return int(max(every, default=0.0) > MOST_MS)


def _line(name: str, takes: str, found: list[float], computed: list[float] | None) -> str:
    p50, p99, most = np.percentile(found, [50, 99, 100])
    used = f"{max(computed):.1f}" if computed else ""
    return f"| {name} | {takes} | {len(found):,} | {p50:.1f} | {p99:.1f} | {most:.1f} | {used} |"


class Runs:
    """The kinds, run on one file."""

    def __init__(self, con: Any, path: str, log: Log) -> None:
        self._con = con
        self._path = path
        self._log = log
        self._rows = con.execute("SELECT count(*), sum(n) FROM t").fetchall()
        con.rollback()

    def measure(self, name: str, kind: Kind, rounds: int, until: float) -> None:
        """Interrupt a kind until there are so many figures, or the time is over."""
        left = rounds - len(self._log.latencies.get(name, ()))
        if left <= 0:
            return
        random = np.random.default_rng([3, len(self._log.latencies.get(name, ())), *name.encode()])
        whole = self._log.seconds.get(name)
        if whole is None:
            with begun(self._con, self._path, kind) as con:
                start = time.perf_counter()
                interrupted(con, kind.work, LONGEST)
                whole = time.perf_counter() - start
        for number in range(4 * left):  # a statement may end sooner than the time drawn
            if left <= 0 or (time.perf_counter() > until and number >= FEWEST):
                return
            with begun(self._con, self._path, kind) as con:
                found = interrupted(con, kind.work, random.random() * whole)
                if found is not None:
                    self._log.add(name, found, whole)
                    left -= 1
                    assert con.execute("SELECT count(*), sum(n) FROM t").fetchall() == self._rows

    def gaps(self, name: str, kind: Kind, *, where: bool) -> None:
        """Print the longest gap of one run; `where`: and the lines in the gaps."""
        with begun(self._con, self._path, kind) as con:
            watch = Watch(con.database)
            if where:
                signal.signal(signal.SIGALRM, watch.sample)
                signal.setitimer(signal.ITIMER_REAL, SAMPLED, SAMPLED)
            try:
                whole = watch.run(con, kind.work)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        print(f"{name:28} {whole * 1000:8.0f} ms, longest gap {watch.longest * 1000:7.1f} ms",
              flush=True)  # fmt: skip
        if where:
            for gap, lines in sorted(watch.gaps, key=lambda each: -each[0])[:6]:
                print(f"    {gap * 1000:7.1f} ms")
                for line in dict.fromkeys(lines):
                    print(f"        {lines.count(line):3} {line}", flush=True)


def main() -> int:
    """Measure what is left, or print the table; 1 where an interrupt took more than 50 ms."""
    parser = common.parser(__doc__ or "", 1_000_000, 200)
    parser.add_argument("--gaps", action="store_true", help="one run each, the longest gap")
    parser.add_argument("--where", action="store_true", help="the lines in the gaps")
    parser.add_argument("--table", action="store_true", help="what was measured, nothing more")
    parser.add_argument("--writes", action="store_true", help="the kinds that write, alone")
    parser.add_argument("--vectors", type=int, default=100_000, help="rows with 384 numbers")
    parser.add_argument("--texts", type=int, default=1_000_000, help="rows with a text index")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin nothing after these")
    parser.add_argument("--log", default="interrupts.jsonl", help="file of the folder")
    parser.add_argument("--first", type=int, default=0, help="the kind to begin with")
    parser.add_argument("--only", default="", help="of the kinds whose names have one of these "
                        "in them, between bars")  # fmt: skip
    options = parser.parse_args()
    until = time.perf_counter() + options.seconds
    with contextlib.ExitStack() as stack:
        folder = options.folder or stack.enter_context(common.workplace(None))
        log = Log(os.path.join(folder, options.log))
        if options.table:
            return log.table()
        path = interrupt_kinds.filled(folder, options.count, options.vectors, options.texts)
        con = stack.enter_context(m2mdb.connect(path, compute="numba"))
        interrupt_kinds.prepare(con)
        runs = Runs(con, path, log)
        kinds = interrupt_kinds.kinds(options.count, options.vectors, folder)
        for number, (name, kind) in enumerate(kinds.items()):
            wanted = any(part in name for part in options.only.split("|"))
            wanted = wanted and (kind.writes or not options.writes)
            if not wanted or number < options.first or time.perf_counter() > until:
                continue
            if options.gaps:
                runs.gaps(name, kind, where=options.where)
            else:
                runs.measure(name, kind, options.rounds, until)
        return 0 if options.gaps else log.table()


if __name__ == "__main__":
    sys.exit(main())
