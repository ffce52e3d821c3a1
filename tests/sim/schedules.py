"""The campaign of schedules: the exhaustive sets, shard by shard, and random schedules.

    python -m tests.sim.schedules [--shards N] [NAME ...]     the exhaustive sets, whole

An exhaustive set is every schedule of a scenario with at most two preemptions, but for those that
`explorer` shows to be equal to one that is run. It is split into shards; `seed` names one. All
shards together are the set, for each runs the schedules of its own, and the first one those with
fewer preemptions than two, too.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random

from tests.sim.explorer import Contention, ContentionError, Explorer
from tests.sim.scenarios import SCENARIOS, Scenario

SHARDS = 4

Proceed = Callable[[], bool]


def always() -> bool:
    """There is time."""
    return True


def exhaust(
    scenario: Scenario,
    shard: int = 0,
    shards: int = 1,
    proceed: Proceed = always,
    learning: int = 120,
) -> tuple[int, bool, Explorer]:
    """Run a shard of a scenario's exhaustive set: (schedules run, whether all, the explorer)."""
    contention, _ = scenario.contention(learning)
    while True:
        explorer = scenario.explorer(contention)
        if not explorer.explore(range(scenario.bound), proceed):
            return (0 if shard else explorer.done), False, explorer
        base = explorer.done if shard else 0
        explorer.take_shard(shard, shards)
        try:
            whole = explorer.explore(range(scenario.bound, scenario.bound + 1), proceed)
        except ContentionError:
            continue
        return explorer.done - base, whole, explorer


def draw(seed: int, proceed: Proceed, most: int = 1 << 60) -> int:
    """Random schedules with three preemptions, of all scenarios in turn; how many."""
    known: dict[str, tuple[Contention, int]] = {}
    names = list(SCENARIOS)
    for number in range(most):
        if number and not proceed():
            return number
        scenario = SCENARIOS[names[number % len(names)]]
        if scenario.name not in known:
            known[scenario.name] = scenario.contention(40)
        contention, longest = known[scenario.name]
        scenario.drawn(contention, seed * 10_000_000 + number, longest)
    return most


def campaign(seconds: float, seed: int) -> dict[str, int]:
    """Half of the time for shard `seed` of the exhaustive sets, the rest for random ones.

    A failure says which call of `replay` repeats it.
    """
    start = time.monotonic()
    exhaustive = 0
    names = list(SCENARIOS)
    Random(seed // SHARDS).shuffle(names)
    with collected_seldom():
        for name in names:
            if time.monotonic() - start > seconds / 2:
                break
            done, _, _ = exhaust(
                SCENARIOS[name],
                seed % SHARDS,
                SHARDS,
                lambda: time.monotonic() - start < seconds / 2,
            )
            exhaustive += done
        drawn = draw(seed, lambda: time.monotonic() - start < seconds)
    return {"schedules_exhaustive": exhaustive, "schedules_random": drawn}


@contextmanager
def collected_seldom() -> Iterator[None]:
    """Without the collector's own rounds: `Scenario.run` collects now and then."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.collect()


def main() -> None:
    """Run exhaustive sets whole, and say how large they are."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--shard", type=int, default=0)
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("names", nargs="*", default=list(SCENARIOS))
    given = parser.parse_args()
    total = 0
    with collected_seldom():
        for name in given.names:
            start = time.process_time()
            done, _, found = exhaust(SCENARIOS[name], given.shard, given.shards)
            total += done
            print(
                f"{name}: {done} schedules, {found.joined} of them up to a known state; longest "
                f"{found.longest} steps; {time.process_time() - start:.0f} s",
                flush=True,
            )
    print(f"{total} schedules")


if __name__ == "__main__":
    main()
