"""Exploration: every schedule with few preemptions, each once, and random ones with more.

A schedule is the decisions that were not the default: at which step a process was preempted, and
by whom; and, where a choice is free (one waits, parks or ends), who was let go instead of the
next in turn. Preemptions are counted, free choices are not (as in CHESS).

    level 0, 1, ... bound     schedules with so many preemptions; each run queues its children

What is left out, and why that is sound:

    Commuting steps. A preemption before a step that commutes with every step of every other
        process leads where the preemption after it leads, with as many preemptions. Which objects
        are contended is learned from the runs; when a run finds another one, all begins anew, so
        that in the last round every schedule that was run touched these only. The one left out
        differs from one that was run by swaps of steps that commute, so it has no other end.
        The last step of a process is followed by a free choice, which is enumerated.
    Equal states. A state is what happened before what: each step's hash is made of its process's
        last one and of those that it depends on, and a state's hash is their sum. Two runs of
        equal sums have done the same steps in orders that differ by commuting ones (for hashes
        of 61 bits that do not collide), so the machine and every process are in the same state.
        Where such a state was reached with no more preemptions before, and the same process is
        to go on, all that can follow was or will be run from there; the run ends.
    Idle looks. Who waits is not let go before another process has changed something (SS2).

With `free_choices` false the next in turn is let go at a free switch and nobody else: the set of
schedules is then smaller, and named so where it is reported.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from tests.sim.scheduler import KILL, Process, Scheduler
from tests.sim.steps import WRITE, Access, Step

_MASK = (1 << 64) - 1

Decisions = tuple[tuple[int, int], ...]
Run = Callable[["Recorder"], Scheduler]  # runs one schedule by a policy; raises what it finds


class ContentionError(Exception):
    """A schedule came upon a contended object that is not known: all has to begin anew."""


class Contention:
    """Which objects several processes touch in ways that do not commute."""

    def __init__(self) -> None:
        self.contended: set[int] = set()
        self._seen: dict[int, list[int]] = {}  # object -> mask of processes, by class
        self._learned: set[tuple[Step, int]] = set()
        self._relevant: dict[Step, tuple[Access, ...]] = {}

    def learn(self, process: Process, step: Step) -> bool:
        """Take note of a step; whether it brought a contended object to light."""
        key = (step, process.index)
        if key in self._learned:
            return False
        self._learned.add(key)
        before = len(self.contended)
        for item, how in step.accesses:
            masks = self._seen.setdefault(item, [0, 0, 0])
            bit = 1 << process.index
            masks[how] |= bit
            if any(masks[other] & ~bit for other in range(3) if other != how or how == WRITE):
                self.contended.add(item)
        if len(self.contended) == before:
            return False
        self._relevant.clear()
        return True

    def relevant(self, step: Step) -> tuple[Access, ...]:
        """The accesses by which a step may fail to commute with one of another process."""
        found = self._relevant.get(step)
        if found is None:
            found = tuple([access for access in step.accesses if access[0] in self.contended])
            self._relevant[step] = found
        return found


class Recorder:
    """What the policies share: the state's hash and the contention."""

    scheduler: Scheduler  # of the run that goes on; given by who begins it

    def __init__(self, contention: Contention) -> None:
        self.contention = contention
        self.total = 0
        self.objects: dict[int, list[int]] = {}
        self.news = False  # another contended object was found

    def done(self, process: Process, step: Step) -> None:
        """Hash a step that was granted, and learn from it."""
        found = process.hash
        touched = []
        objects = self.objects
        for item, how in self.contention.relevant(step):
            state = objects.get(item)
            if state is None:
                state = objects[item] = [item, how, 0]
            if state[1] != how or how == WRITE:
                state[0] = hash((state[0], state[2]))
                state[1], state[2] = how, 0
            found = hash((found, item, how, state[0]))
            touched.append(state)
        found = hash((found, step.changes))
        for state in touched:
            state[2] = (state[2] + found) & _MASK
        process.hash = found
        self.total = (self.total + found) & _MASK
        if self.contention.learn(process, step):
            self.news = True

    def targets(self, process: Process) -> list[Process]:
        """Who may go instead."""
        return self.scheduler.candidates(process.index, but=process.index)

    def at_point(self, process: Process, number: int, step: Step) -> int | None:
        """Nobody goes instead."""
        return None

    def at_switch(self, candidates: list[Process], number: int) -> int | None:
        """The next in turn."""
        return candidates[0].index


class Drawn(Recorder):
    """A random schedule: preemptions at steps drawn beforehand, free choices drawn."""

    def __init__(
        self,
        contention: Contention,
        rng: Random,
        length: int,
        preemptions: int,
        mortal: frozenset[int] = frozenset(),
    ) -> None:
        """`length`: steps of a long run. One of the `mortal` may die at one of the steps drawn."""
        super().__init__(contention)
        self._rng = rng
        self._mortal = mortal if rng.random() < 0.5 else frozenset()
        self.learns = False
        self._at = sorted(rng.randrange(max(length, 1)) for _ in range(preemptions))

    def done(self, process: Process, step: Step) -> None:
        """The hash is not wanted; contention only while it is being learned."""
        if self.learns and self.contention.learn(process, step):
            self.news = True

    def at_point(self, process: Process, number: int, step: Step) -> int | None:
        """The first contended step from the next drawn one on is preempted."""
        if not self._at or number < self._at[0]:
            return None
        if step.changes and process.index in self._mortal:
            self._mortal = frozenset()
            self._at.pop(0)
            return KILL
        if not self.contention.relevant(step):
            return None
        targets = self.targets(process)
        if not targets:
            return None
        self._at.pop(0)
        return self._rng.choice(targets).index

    def at_switch(self, candidates: list[Process], number: int) -> int | None:
        """Anybody."""
        return self._rng.choice(candidates).index


class _Followed(Recorder):
    """One run of the exploration: the decisions of its schedule, then the defaults."""

    def __init__(self, explorer: Explorer, decisions: Decisions, used: int) -> None:
        super().__init__(explorer.contention)
        self._explorer = explorer
        self._decisions = decisions
        self._given = dict(decisions)
        self._last = decisions[-1][0] if decisions else -1
        self.used = used
        self.kills = sum(target == KILL for _, target in decisions)
        self.joined = False  # it came to a state that another run has come to

    def at_point(self, process: Process, number: int, step: Step) -> int | None:
        """Follow the schedule; behind it, end where the state is known, or queue children."""
        if number <= self._last:
            return self._given.get(number)
        explorer = self._explorer
        may_die = self.kills < explorer.kills and process.index in explorer.mortal
        if may_die and step.changes and self.used < explorer.bound:
            explorer.offer(self, number, KILL, self.used + 1, process.index)
        if explorer.reduced and not self.contention.relevant(step):
            return None
        if explorer.reduced and not self._is_new(process.index):
            self.joined = True
            self.scheduler.stopped = True
            self.scheduler.hub.switch()
        if self.used < explorer.bound:
            for other in self.targets(process):
                explorer.offer(self, number, other.index, self.used + 1)
        return None

    def _is_new(self, index: int) -> bool:
        key = hash((self.total, self.scheduler.shape(), index))
        visited = self._explorer.visited
        if visited.get(key, 99) <= self.used:
            return False
        visited[key] = self.used
        return True

    def at_switch(self, candidates: list[Process], number: int) -> int | None:
        """Follow the schedule; behind it, the first, and the others as children of this level."""
        if number <= self._last:
            return self._given.get(number, candidates[0].index)
        explorer = self._explorer
        if explorer.free_choices:
            for other in candidates[1:]:
                explorer.offer(self, number, other.index, self.used)
        if not explorer.claim(self, candidates[0].index, self.used):
            self.joined = True
            return None
        return candidates[0].index

    def state(self) -> tuple[int, int]:
        """The hash of the state before the next step."""
        return self.total, self.scheduler.shape()

    def child(self, number: int, target: int) -> Decisions:
        """This schedule with one more decision."""
        return (*self._decisions, (number, target))


class Explorer:
    """All schedules of a scenario with at most `bound` preemptions."""

    def __init__(
        self,
        run: Run,
        *,
        bound: int = 2,
        free_choices: bool = True,
        kills: int = 0,
        mortal: frozenset[int] = frozenset(),
        contention: Contention | None = None,
    ) -> None:
        self._run = run
        self.bound = bound
        self.free_choices = free_choices
        self.kills = kills
        self.mortal = mortal
        self.reduced = True  # False: nothing is left out, to see that nothing is lost by it
        self.contention = contention or Contention()
        self.rounds = 0  # times that it was begun anew, for more was contended than was known
        self._reset()

    def _reset(self) -> None:
        self.visited: dict[int, int] = {}
        self.levels: list[list[Decisions]] = [[] for _ in range(self.bound + 1)]
        self.levels[0].append(())
        self.done = 0  # schedules that were run, to their ends or to a known state
        self.joined = 0  # of these, to a known state
        self.ends: set[int] = set()  # the states that whole runs have ended in
        self.steps = 0
        self.longest = 0
        self.rounds += 1

    def claim(self, run: _Followed, target: int, used: int, process: int = -1) -> bool:
        """Whether a state, from which `target` goes on, is reached for the first time.

        Where a run came to the state by a step of the target's own, it went on from there, too.
        """
        if not self.reduced:
            return True
        key = hash((*run.state(), target, process, "go"))
        if self.visited.get(key, 99) <= used:
            return False
        if self.visited.get(hash((*run.state(), target)), 99) <= used:
            return False
        self.visited[key] = used
        return True

    def offer(self, run: _Followed, number: int, target: int, used: int, process: int = -1) -> None:
        """Queue a schedule unless it leads to a state that was reached before."""
        if self.claim(run, target, used, process):
            self.levels[used].append(run.child(number, target))

    def take_shard(self, shard: int, shards: int) -> None:
        """Of the last level, whose parents have been run, keep every so manieth schedule.

        The states that the others lead to count as known: another shard runs them.
        """
        self.levels[self.bound] = sorted(self.levels[self.bound])[shard::shards]

    def explore(
        self, levels: range | None = None, proceed: Callable[[], bool] = lambda: True
    ) -> bool:
        """Run the levels' schedules; False when `proceed` ended it before the last.

        Raises ContentionError where the levels do not begin with 0 and something new is contended.
        """
        wanted = range(self.bound + 1) if levels is None else levels
        while self._explore(wanted, proceed):
            if wanted.start:
                raise ContentionError
            self._reset()
        return not any(self.levels[level] for level in wanted)

    def _explore(self, levels: range, proceed: Callable[[], bool]) -> bool:
        """Whether something new was found contended."""
        for level in levels:
            queue = self.levels[level]
            while queue:
                if not proceed():
                    return False
                if self._one(queue.pop(), level):
                    return True
        return False

    def _one(self, decisions: Decisions, level: int) -> bool:
        policy = _Followed(self, decisions, level)
        scheduler = self._run(policy)
        self.done += 1
        self.joined += policy.joined
        if not policy.joined:
            self.ends.add(policy.total)
        self.steps += scheduler.steps
        self.longest = max(self.longest, scheduler.steps)
        return policy.news
