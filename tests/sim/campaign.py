"""The long round of the simulator: crashes and I/O errors for as long as there is time.

Three kinds of work share the time: workloads on the log and on the whole engine are crashed at
every I/O point, and calls are made to fail. Each kind goes through all of its scripted workloads
first, in an order drawn from the seed, and visits every point (every call) of each; then it goes
on with random workloads and with other images of the same points. In the first round one image
of each point is crashed again at every point of its recovery and of the appends behind it, later
one in so many.

A failure names level, script, synchronous, seed and I/O point (or call): `Explorer.point` and
`Injector.inject` make it again from these.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from random import Random
from typing import Any

from tests.sim.crash_explorer import Counts, Explorer, Level, StoreLevel
from tests.sim.database_runs import DATABASE_SCRIPTS, DatabaseLevel
from tests.sim.io_faults import Injector, injections
from tests.sim.store_scripts import STORE_SCRIPTS

SYNCHRONOUS = ("full", "normal")
SHARES = {"store": 0.5, "database": 0.25, "errors": 0.25}  # of the time
RANDOM_SCRIPTS = 40  # between two rounds through the scripted ones
DOUBLE = 0.005  # share of the images that are crashed again everywhere, after the first round


def campaign(seconds: float, seed: int) -> dict[str, int]:
    """Work for about so many seconds, a little of each kind at least.

    Raises AssertionError on the first failure.
    """
    counts = Counts()
    work = {
        "store": _crashes(StoreLevel(), list(STORE_SCRIPTS), seed, counts),
        "database": _crashes(DatabaseLevel(), list(DATABASE_SCRIPTS), seed, counts),
        "errors": _errors(seed, counts),
    }
    used = dict.fromkeys(work, 0.0)
    end = time.monotonic() + seconds
    while time.monotonic() < end or not all(used.values()):
        kind = min(used, key=lambda name: used[name] / SHARES[name])
        start = time.process_time()
        next(work[kind])
        used[kind] += time.process_time() - start
    return counts.as_dict()


def _crashes(level: Level[Any], scripts: list[str], seed: int, counts: Counts) -> Iterator[None]:
    """Rounds without end: every point of every script, then random workloads."""
    rng = Random(f"{seed}/{level.name}")
    explorer = Explorer(level, counts)
    while True:
        round_seed = rng.randrange(1 << 30)
        tasks = [(script, synchronous) for script in scripts for synchronous in SYNCHRONOUS]
        rng.shuffle(tasks)
        for script, synchronous in tasks:
            for _ in explorer.points(script, round_seed, synchronous):
                yield
        explorer = Explorer(level, counts, double=DOUBLE, one_everywhere=False)
        for _ in range(RANDOM_SCRIPTS):
            script = f"random-{rng.randrange(1 << 30)}"
            for _ in explorer.points(script, round_seed, rng.choice(SYNCHRONOUS)):
                yield


def _errors(seed: int, counts: Counts) -> Iterator[None]:
    """Rounds without end: every call of every script, in an order drawn from the seed."""
    rng = Random(f"{seed}/errors")
    levels: list[tuple[Level[Any], list[str]]] = [
        (StoreLevel(), list(STORE_SCRIPTS)),
        (DatabaseLevel(), [name for name in DATABASE_SCRIPTS if name != "bulk"]),
    ]
    while True:
        round_seed = rng.randrange(1 << 30)
        for level, scripts in levels:
            injector = Injector(level, counts)
            for script in scripts:
                for synchronous in SYNCHRONOUS:
                    faults = list(injections(level, script, round_seed, synchronous))
                    rng.shuffle(faults)
                    for fault in faults:
                        injector.inject(script, round_seed, synchronous, fault)
                        yield
