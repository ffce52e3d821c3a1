"""The kill campaign: processes that write, read and checkpoint one file, killed at any moment.

    python -m tests.kill.campaign SECONDS SEED

A *round* has up to six workers on one file. One after the other is killed, at a random moment or
once it enters a phase (opening, committing, checkpointing, closing, …), and replaced by another;
the living ones go on checking. Then all are killed, recovery itself is killed some times, and one
process compares everything with the models: rows, text, vectors, keys, indexes, integrity. Every
sixth round works on a bare `Store` (tests.kill.worker), which commits much faster.

Everything follows from the seed but the moments: those are the machine's. A failure says seed,
round and file, which is kept.
"""

from __future__ import annotations

import gc
import json
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

import m2mdb
from tests.kill import books, notes, roles, worker
from tests.kill.processes import Board, Worker

OWNERS = 3
ROUNDS_OF_A_FILE = 8
TARGETS = (
    "opening",
    "creating",
    "changing",
    "committing",
    "checkpointing",
    "optimizing",
    "vacuuming",
    "copying",
    "closing",
)
SYNCHRONOUS: tuple[roles.Synchronous, ...] = ("full", "normal", "off")
_WAITS = (0.02, 0.02, 0.05, 0.05, 0.2, 1.0)  # seconds; a kill comes within one of them
_PHASE_WAIT = 0.1  # seconds for a phase to be entered
_PATIENCE = 120.0  # seconds in which a writer must have committed something
_ROOT = Path(__file__).parent.parent.parent


def campaign(seconds: float, seed: int) -> dict[str, int]:
    """Rounds for about so long, in a process of their own that has no database open."""
    command = [sys.executable, "-m", "tests.kill.campaign", str(seconds), str(seed)]
    run = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, f"again: {' '.join(command[1:])}\n{run.stderr[-4000:]}"
    counts: dict[str, int] = json.loads(run.stdout)
    return counts


class Driver:
    """Rounds one after the other; never opens a database itself."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = Random(seed)
        self.kills: Counter[str] = Counter()
        self.acknowledged = 0
        self.files = 0

    def run(self, seconds: float) -> None:
        """Files until the time is over."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            folder = Path(tempfile.mkdtemp(prefix="m2m-kill-"))
            on_store = self.files % 6 == 5
            try:
                (self._store_file if on_store else self._file)(folder, end)
            except BaseException as error:
                error.add_note(f"seed {self.seed}, file {self.files}, kept in {folder}")
                raise
            shutil.rmtree(folder)
            self.files += 1

    # -- the public interface ------------------------------------------------------------------

    def _file(self, folder: Path, end: float) -> None:
        board = Board(folder, OWNERS, slots=8)
        synchronous = SYNCHRONOUS[self.files % 3]
        place = roles.Workplace(folder / "notes.m2m", board, self.seed + self.files, synchronous)
        for _ in range(ROUNDS_OF_A_FILE):
            if time.monotonic() >= end:
                break
            self._round(place)
        self.acknowledged += sum(board.acknowledged())
        board.close()

    def _round(self, place: roles.Workplace) -> None:
        rng = self.rng
        place.catch_up()
        begun = place.board.acknowledged()
        cast = ["write 0"]
        if rng.random() < 0.6:
            cast.append("write 1")
        if rng.random() < 0.3:
            cast.append("write 2")
        cast += ["read"] * rng.randrange(3) + ["checkpoint"] * (rng.random() < 0.6)
        workers = [self._start(place, slot, role) for slot, role in enumerate(cast)]
        try:
            for _ in range(rng.randint(4, 12)):
                slot = rng.choice([0, 0, *range(len(cast))])
                self._kill(workers[slot])
                place.catch_up()
                workers[slot] = self._start(place, slot, cast[slot])
            if rng.random() < 0.3:
                self._await_commits(place, begun)
        except BaseException:
            for each in workers:
                each.discard()
            raise
        rng.shuffle(workers)
        for each in workers:
            self.kills[each.kill()] += 1
        place.catch_up()
        self._verify(place)

    def _start(self, place: roles.Workplace, slot: int, role: str) -> Worker:
        seed = self.rng.getrandbits(60)
        name, _, owner = role.partition(" ")
        works: dict[str, Callable[[], None]] = {
            "write": lambda: roles.write(place, slot, int(owner), Random(seed)),
            "read": lambda: roles.read(place, slot, Random(seed)),
            "checkpoint": lambda: roles.checkpoint(place, slot, Random(seed)),
            "open": lambda: roles.open_and_close(place, slot),
            "verify": lambda: roles.verify(place, slot, Random(seed)),
        }
        return Worker(place.board, slot, works[name], f"{role} ({place.synchronous})")

    def _kill(self, victim: Worker) -> None:
        """Kill at a random moment, or a moment after it entered a phase that is wanted."""
        rng = self.rng
        if rng.random() < 0.5:
            time.sleep(rng.random() * rng.choice(_WAITS))
        else:
            wanted = rng.choice(TARGETS)
            deadline = time.monotonic() + _PHASE_WAIT
            while victim.board.phase(victim.slot) != wanted and time.monotonic() < deadline:
                time.sleep(0.0002)
            spin(rng)
        self.kills[victim.kill()] += 1

    def _await_commits(self, place: roles.Workplace, begun: list[int]) -> None:
        """Nobody waits for a lock of the dead: the first writer gets on."""
        deadline = time.monotonic() + _PATIENCE
        while place.board.acknowledged()[0] == begun[0]:
            assert time.monotonic() < deadline, f"writer 0 commits nothing after {begun}"
            time.sleep(0.001)

    def _verify(self, place: roles.Workplace) -> None:
        for _ in range(self.rng.randrange(4)):
            self._kill(self._start(place, 0, "open"))
        self._start(place, 0, "verify").await_end()

    # -- the bare store ------------------------------------------------------------------------

    def _store_file(self, folder: Path, end: float) -> None:
        board = Board(folder, 1, slots=1)
        path = str(folder / "store.m2m")
        for number in range(4 * ROUNDS_OF_A_FILE):
            if time.monotonic() >= end:
                break
            work = partial(store_writer, board, path, SYNCHRONOUS[number % 3])
            self._kill(Worker(board, 0, work, "store"))
            Worker(board, 0, lambda: store_verifier(board, path), "store verifier").await_end()
        self.acknowledged += sum(board.acknowledged())
        board.close()


def spin(rng: Random) -> None:
    """Some steps of nothing."""
    for _ in range(rng.randrange(20_000)):
        pass


def store_writer(board: Board, path: str, synchronous: str) -> None:
    """Commit through the log alone, as tests.kill.worker does."""
    board.enter(0, "opening")
    store = worker.open_to_write(path, synchronous)
    while True:
        board.enter(0, "changing")
        number = worker.last(store) + 1
        worker.write(store, number)
        board.acknowledge(0, number)


def store_verifier(board: Board, path: str) -> None:
    """What was acknowledged is there, and all that belongs to it."""
    board.enter(0, "opening")
    store = worker.open_to_write(path, "full")
    acknowledged = board.acknowledged()[0]
    found = worker.check(store)
    assert acknowledged <= found <= acknowledged + 1, (acknowledged, found)
    board.acknowledge(0, found)
    if found % 2:
        board.enter(0, "closing")
        store.close()


def warm() -> None:
    """Load and run once all that a worker will need, so that a fork has it."""
    warnings.simplefilter("ignore", m2mdb.LongReaderWarning)  # readers are slow here
    books.make_small()
    con = m2mdb.connect(":memory:", compute="numpy")
    notes.create(con, 1)
    state = notes.State(1, 0)
    for _ in range(120):
        con.execute("BEGIN")
        state.step(con)
        con.commit()
    con.execute("OPTIMIZE notes")
    con.execute("VACUUM")
    con.execute("PRAGMA wal_checkpoint(passive)")
    con.serialize()
    notes.check_past(con, Random(1))
    notes.check_sums(con, notes.progress(con))
    notes.check_own(con, state)
    notes.check_indexes(con, [state], Random(1))
    notes.check_integrity(con)
    con.close()


def main() -> None:
    """Run and print the counts, by phase to standard error."""
    seconds, seed = float(sys.argv[1]), int(sys.argv[2])
    warm()
    gc.collect()
    gc.freeze()
    driver = Driver(seed)
    driver.run(seconds)
    print(dict(driver.kills.most_common()), f"{driver.files} files", file=sys.stderr)
    kills = sum(driver.kills.values())
    print(json.dumps({"kills": kills, "acknowledged_commits": driver.acknowledged}))


if __name__ == "__main__":
    main()
