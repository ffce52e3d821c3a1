"""The scheduler explores what it says, and the engine holds in every schedule looked at.

The exhaustive sets and the 100,000 random schedules are a campaign (`schedules.py`); here are some
of each, and the mutants that they must find.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from m2mdb.pager.sim_disk import DiskState
from m2mdb.pager.sim_machine import Machine
from tests.sim.explorer import Contention, Drawn, Explorer, Recorder
from tests.sim.history import ROUNDS
from tests.sim.mutants import DRIVEN, MUTANTS
from tests.sim.scenarios import FULL, SCENARIOS
from tests.sim.scheduler import DeadlockError, Policy, Process, Replay, Scheduler
from tests.sim.schedules import SHARDS, always, campaign, draw, exhaust
from tests.sim.steps import Step

pytestmark = pytest.mark.usefixtures("only_own_garbage")

FAR = 1 << 62
SAME = 8 * ROUNDS  # random schedules of each scenario
MUTANT_RUNS = 1500

# -- a toy: processes that count in a file ---------------------------------------------------------


def counting(
    found: list[int], *, locked: bool, processes: int = 2
) -> Callable[[Policy], Scheduler]:
    """A run of processes that each raise a number in a file by one."""

    def body(process: Process) -> None:
        file = process.vfs.open("d/x", create=True)
        process.ready()
        while locked and not file.lock(FAR, 1, exclusive=True):
            process.vfs.sleep(0.01)
        value = int.from_bytes(file.read_at(0, 8), "little")
        file.write_at(0, (value + 1).to_bytes(8, "little"))
        if locked:
            file.unlock(FAR, 1)

    def run(policy: Policy) -> Scheduler:
        scheduler = Scheduler(Machine(1, DiskState({}, {}), {}), policy)
        if isinstance(policy, Recorder):
            policy.scheduler = scheduler
        for _ in range(processes):
            scheduler.add(body)
        scheduler.run()
        if scheduler.whole:
            file = scheduler.face().open("d/x")
            found.append(int.from_bytes(file.read_at(0, 8), "little"))
        return scheduler

    return run


def explore(bound: int, *, locked: bool, processes: int = 2) -> tuple[Explorer, list[int]]:
    found: list[int] = []
    explorer = Explorer(
        counting(found, locked=locked, processes=processes),
        bound=bound,
    )
    assert explorer.explore()
    return explorer, found


def test_one_preemption_loses_an_update_and_none_does_not() -> None:
    assert set(explore(0, locked=False)[1]) == {2}
    assert set(explore(1, locked=False)[1]) == {1, 2}
    assert set(explore(1, locked=False, processes=3)[1]) == {1, 2, 3}


def test_locks_lose_nothing_in_any_schedule() -> None:
    explorer, found = explore(2, locked=True, processes=3)
    assert set(found) == {3}
    assert explorer.joined


def test_what_is_left_out_has_no_other_end() -> None:
    """Every schedule of two processes, written out, ends as one that was explored does."""
    ends: set[int] = set()
    for bits in range(1 << 5):
        found: list[int] = []
        run = counting(found, locked=False)
        run(_Bits(bits))
        ends |= set(found)
    assert ends == set(explore(3, locked=False)[1])


class _Bits(Replay):
    """At each step, the other one goes where the bit says so."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.seen = 0

    def at_point(self, process: Process, number: int, step: Step) -> int | None:
        self.seen += 1
        others = process.scheduler.candidates(process.index, but=process.index)
        return others[0].index if others and self.bits >> (self.seen - 1) & 1 else None


def test_who_waits_for_ever_is_found() -> None:
    def body(process: Process) -> None:
        file = process.vfs.open("d/x", create=True)
        process.ready()
        first, second = (FAR, FAR + 1) if process.index else (FAR + 1, FAR)
        for offset in (first, second):
            while not file.lock(offset, 1, exclusive=True):
                process.vfs.sleep(0.01)
        file.unlock(FAR, 2)

    def run(policy: Recorder) -> Scheduler:
        scheduler = Scheduler(Machine(1, DiskState({}, {}), {}), policy)
        policy.scheduler = scheduler
        for _ in range(2):
            scheduler.add(body)
        scheduler.run()
        return scheduler

    assert Explorer(run, bound=0).explore()
    with pytest.raises(DeadlockError):
        Explorer(run, bound=1).explore()


def test_the_decisions_give_the_run() -> None:
    contention, longest = FULL.contention(20)
    first = FULL.drawn(contention, 4, longest)
    again = FULL.replay(dict(first.taken))
    assert again.steps == first.steps
    assert again.taken == first.taken
    assert [str(o) for o in again.machine.timeline.log] == [
        str(o) for o in first.machine.timeline.log
    ]


# -- the engine ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_random_schedules(name: str) -> None:
    """S1, S2, S3, S8, S9, S10, S13: three preemptions anywhere, and a death where one is meant."""
    scenario = SCENARIOS[name]
    contention, longest = scenario.contention(6)
    for seed in range(SAME):
        scenario.drawn(contention, seed, longest)


@pytest.mark.parametrize("name", ["two after a dead writer", "last close, opening"])
def test_every_schedule_with_one_preemption(name: str) -> None:
    """S3, S8."""
    scenario = SCENARIOS[name]._replace(bound=1)
    done, whole, explorer = exhaust(scenario, learning=20)
    assert whole
    assert done > explorer.joined > 0


@pytest.mark.parametrize(
    ("name", "bound"),
    [("two after a dead writer", 2), ("last close, opening", 1)],
)
def test_what_is_left_out_ends_as_what_is_run(name: str, bound: int) -> None:
    """Preempted before every step, and run to the end each time: there is no other end."""
    scenario = SCENARIOS[name]._replace(bound=bound, crash_every=1 << 30)
    contention, _ = scenario.contention(20)
    reduced = scenario.explorer(contention)
    assert reduced.explore()
    every = scenario.explorer(reduced.contention)
    every.reduced = False
    if bound > 1:
        every.explore(range(1))
        every.levels[1] = every.levels[1][:: 9 // ROUNDS or 1]
    assert every.explore()
    assert every.ends <= reduced.ends
    if bound == 1:
        assert every.ends == reduced.ends
    assert every.joined == 0 < reduced.joined


def test_shards_together_are_the_set() -> None:
    """Each schedule of the last level is in one shard."""
    scenario = SCENARIOS["two after a dead writer"]
    whole, parts = scenario.explorer(), [scenario.explorer() for _ in range(3)]
    for explorer in (whole, *parts):
        explorer.explore(range(2))
    for shard, explorer in enumerate(parts):
        explorer.take_shard(shard, 3)
    together = [each for explorer in parts for each in explorer.levels[2]]
    assert sorted(together) == sorted(whole.levels[2])


def test_the_campaign_counts() -> None:
    found = campaign(0.0, SHARDS * 3 + 1)
    assert set(found) == {"schedules_exhaustive", "schedules_random"}
    assert found["schedules_random"] > 0
    assert draw(1, always, most=3) == 3


@pytest.mark.parametrize("name", [n for n in sorted(MUTANTS) if ROUNDS > 1 or n not in DRIVEN])
def test_a_broken_rule_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """S2, S3, S8, S9, S10, S11, S13: the engine with the rule broken fails in some schedule."""
    mutant = MUTANTS[name]
    scenario = SCENARIOS[mutant.scenario]
    contention, longest = scenario.contention(20)
    mutant.plant(monkeypatch)
    with pytest.raises(AssertionError, match="replay"):
        for seed in range(MUTANT_RUNS):
            scenario.drawn(contention, seed, longest)


def test_random_schedules_follow_their_seed() -> None:
    contention = Contention()
    runs = []
    for _ in range(2):
        policy = Drawn(contention, Random(3), 100, 3)
        runs.append(FULL.run(policy).taken)
    assert runs[0] == runs[1]
