"""The isolation campaign: many processes on one file, and a checker of all that they saw.

    python -m tests.isolation.campaign SECONDS SEED

A round is three to six processes with two connections each, and one that checkpoints, for some
seconds; then their histories are checked (tests.isolation.checker). What each process chooses to
do follows from the seed; how they interleave is the machine's. A failure keeps the histories.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path
from random import Random

import m2mdb
from tests.isolation import clients
from tests.isolation.checker import check
from tests.isolation.history import load
from tests.kill.processes import Board, Worker

ROUND = 12.0  # seconds
_ROOT = Path(__file__).parent.parent.parent


def campaign(seconds: float, seed: int) -> dict[str, int]:
    """Rounds for about so long, in a process of their own that has no database open."""
    command = [sys.executable, "-m", "tests.isolation.campaign", str(seconds), str(seed)]
    run = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, f"again: {' '.join(command[1:])}\n{run.stderr[-4000:]}"
    counts: dict[str, int] = json.loads(run.stdout)
    return counts


def one_round(folder: Path, rng: Random, seconds: float) -> int:
    """One file from its beginning to its end; the operations checked."""
    path = folder / "cells.m2m"
    board = Board(folder, 1, slots=8)
    Worker(board, 0, partial(clients.create, path), "creator").await_end()
    until = time.monotonic() + seconds
    synchronous = rng.choice(("full", "normal", "off"))
    workers = []
    for number in range(1, rng.randint(3, 6) + 1):
        seed = rng.getrandbits(60)
        work = partial(clients.run, path, folder, number, seed, until, synchronous)
        workers.append(Worker(board, number, work, f"client {number}"))
    work = partial(clients.checkpoint, path, rng.getrandbits(60), until)
    workers.append(Worker(board, 0, work, "checkpointer"))
    for worker in workers:
        worker.await_end()
    left = sorted(name for name in os.listdir(folder) if name.startswith("cells"))
    assert left == ["cells.m2m"], f"after the last close there are {left}"
    Worker(board, 0, partial(clients.look_at_the_end, path, folder), "last look").await_end()
    board.close()
    return check(clients.INITIAL, load(folder))


def warm() -> None:
    """Load all that a client needs, so that a fork has it."""
    warnings.simplefilter("ignore", m2mdb.LongReaderWarning)  # readers are slow here
    with tempfile.TemporaryDirectory(prefix="m2m-isolation-") as name:
        folder = Path(name)
        clients.create(folder / "warm.m2m")
        clients.run(folder / "warm.m2m", folder, 1, 1, time.monotonic() + 0.2, "off")
        clients.look_at_the_end(folder / "warm.m2m", folder)


def main() -> None:
    """Run and print the counts."""
    seconds, seed = float(sys.argv[1]), int(sys.argv[2])
    warm()
    gc.collect()
    gc.freeze()
    rng = Random(seed)
    end = time.monotonic() + seconds
    operations = rounds = 0
    while not rounds or time.monotonic() < end:
        folder = Path(tempfile.mkdtemp(prefix="m2m-isolation-"))
        left = max(0.5, end - time.monotonic())
        try:
            operations += one_round(folder, rng, min(ROUND, 0.8 * left))
        except BaseException as error:
            error.add_note(f"seed {seed}, round {rounds}, histories kept in {folder}")
            raise
        shutil.rmtree(folder)
        rounds += 1
    print(f"{rounds} rounds", file=sys.stderr)
    print(json.dumps({"isolation_operations": operations}))


if __name__ == "__main__":
    main()
