"""The step scheduler: simulated processes as greenlets, one step at a time, in an order given.

    NEW --ready--> runnable <--woken-- asleep
                     |  ^--switch--^      ^
                     |--------------------'      sleep: a wait for somebody else
                     '--> parked --> done        parked: the body has ended but for its close

Every call to the Vfs and every load and store in `-shm` is a *step*. Before a step the policy may
let another process go first (a preemption) or kill the process; where one waits, parks or ends
the policy says who is next (a free switch). So a run is a function of the policy's decisions, and
`Replay` repeats it from them.

What is private is made so: each process draws random bytes from its own number, begins with the
same slot, and no timeout ends, so that what a process does depends on what it has seen alone.

Invariants
    SS1 Between two steps a process runs alone; a step is done whole once it was granted. A store
        of more than a word in -shm may be torn in two steps (`torn`).
    SS2 A process asleep is not let go before another one has changed something since its last
        look: its next look would see the same.
    SS3 Where all are asleep and nothing changes any more, that is a deadlock, and found.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Protocol

import greenlet

from m2mdb.pager.sim_machine import Call, Machine, ProcessKilledError
from m2mdb.pager.sim_vfs import SimVfs
from m2mdb.wal import opening
from tests.sim.steps import Step, release_of, step_of
from tests.sim.store_runs import PATH

KILL = -1  # a decision: the process dies before its step
MOST_STEPS = 20_000
_IDLE_ROUNDS = 60  # looks in vain after which all processes asleep are a deadlock
_EARLY = 2  # how often a sleeper may be let go before one that waits for nothing
_TORN = 24  # bytes of the first half of a torn store

NEW, RUNNABLE, ASLEEP, PARKED, DONE = range(5)

Body = Callable[["Process"], None]


class DeadlockError(AssertionError):
    """No process will ever go on."""


class Process:
    """One simulated process: its face of the machine, its greenlet and its state."""

    def __init__(self, scheduler: Scheduler, index: int, body: Body) -> None:
        self.scheduler = scheduler
        self.index = index
        self.vfs = ScheduledVfs(scheduler)
        self.body = body
        self.state = NEW
        self.error: BaseException | None = None
        self.hash = index + 1  # of its last step and all that this one depended on
        self.held: set[int] = set()  # offsets of the locks that it may hold
        self.changes = 0  # steps of its own that changed something
        self.seen = 0  # changes of others before its last look
        self.early = 0
        self.greenlet = greenlet.greenlet(self._live)

    def _live(self) -> None:
        try:
            self.body(self)
        except BaseException as error:
            if not self.dead and not self.scheduler.stopped:
                self.error = error
        self.state = DONE

    def ready(self) -> None:
        """The process is set up: from here on its steps are scheduled."""
        self.state = RUNNABLE
        self.scheduler.hub.switch()

    def park(self) -> None:
        """Wait until all others have done their work too; what follows is not scheduled."""
        self.state = PARKED
        self.scheduler.hub.switch()

    @property
    def dead(self) -> bool:
        """Whether it was killed."""
        return self.vfs.pid in self.scheduler.machine.dead

    @property
    def is_scheduled(self) -> bool:
        """Whether its steps are."""
        return self.state == RUNNABLE

    def __repr__(self) -> str:
        return f"<process {self.index}>"


class ScheduledVfs(SimVfs):
    """A process's face of the machine whose shared memory and randomness the scheduler knows."""

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__(machine=scheduler.machine)
        self.scheduler = scheduler
        self._draws = 0

    def shared_memory(self, path: str, size: int, *, create: bool) -> Any:
        """The region, each load and store of which is a step."""
        memory = super().shared_memory(path, size, create=create)
        if memory is None:
            return None
        machine = self.machine
        inode = machine.disk.names[path]
        region = machine.regions[inode]
        if not isinstance(region, Region):
            region = machine.regions[inode] = Region(region)
        region.scheduler = self.scheduler
        shown: Any = region  # it is no memoryview, and is sliced as one
        memory.view = shown
        return memory

    def random(self, size: int) -> bytes:
        """Bytes that depend on this process alone."""
        self._draws += 1
        return Random(self.pid * 1000 + self._draws).randbytes(size)


class Region(bytearray):
    """The bytes of `-shm`: a slice that is loaded or stored is a step."""

    scheduler: Scheduler

    def __getitem__(self, key: Any) -> Any:
        scheduler = self.scheduler
        process = scheduler.current
        if process is not None and type(key) is slice:
            start, stop, _ = key.indices(len(self))
            if scheduler.torn and (start, stop) == (64, 224):
                return b"".join([self[64:128], self[128:192], self[192:224]])
            scheduler.touch(process, "load", start, stop - start)
        return bytearray.__getitem__(self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        scheduler = self.scheduler
        process = scheduler.current
        if process is not None and type(key) is slice:
            start, stop, _ = key.indices(len(self))
            scheduler.touch(process, "store", start, stop - start)
            if scheduler.torn and 8 < stop - start <= 64:
                middle = start + _TORN
                bytearray.__setitem__(self, slice(start, middle), value[:_TORN])
                scheduler.touch(process, "store", start, stop - start)
                bytearray.__setitem__(self, slice(middle, stop), value[_TORN:])
                return
        bytearray.__setitem__(self, key, value)

    def release(self) -> None:
        """A memoryview has this; the region stays."""


class Policy(Protocol):
    """Who decides which process takes the next step."""

    def at_point(self, process: Process, number: int, step: Step) -> int | None:
        """Before a step: the process to go instead, KILL, or None to let this one go on."""
        ...

    def at_switch(self, candidates: list[Process], number: int) -> int | None:
        """Whom to let go, the first being the default; None ends the run here."""
        ...

    def done(self, process: Process, step: Step) -> None:
        """A step was granted."""
        ...


class Replay:
    """Decisions by the number of the step; whatever is not decided takes its course."""

    def __init__(self, decisions: dict[int, int] | None = None) -> None:
        self.decisions = decisions or {}

    def at_point(self, process: Process, number: int, step: Step) -> int | None:
        """As decided."""
        return self.decisions.get(number)

    def at_switch(self, candidates: list[Process], number: int) -> int | None:
        """As decided, or the first."""
        return self.decisions.get(number, candidates[0].index)

    def done(self, process: Process, step: Step) -> None:
        """Nothing is kept."""


class Scheduler:
    """One run of some processes on one machine."""

    def __init__(self, machine: Machine, policy: Policy, *, torn: bool = False) -> None:
        self.machine = machine
        self.policy = policy
        self.torn = torn
        self.processes: list[Process] = []
        self.current: Process | None = None
        self.hub = greenlet.getcurrent()
        self.steps = 0
        self.changes = 0
        self.asleep = 0
        self.stopped = False  # the policy has ended the run, or an error has
        self.whole = False  # all processes have come to their ends
        self.prelude: Callable[[], None] = lambda: None  # done when all are ready
        self.taken: list[tuple[int, int]] = []  # decisions that were not the default
        self._next: int | None = None
        machine.on_call = self._before_call

    def add(self, body: Body) -> Process:
        """A process that will run `body`."""
        process = Process(self, len(self.processes), body)
        self.processes.append(process)
        return process

    def outside(self, body: Body) -> None:
        """A process that is not scheduled runs to its end; its death is no error."""
        process = Process(self, len(self.processes), body)
        self._go(process)
        if process.error is not None:
            raise process.error

    def face(self) -> ScheduledVfs:
        """A process that is not scheduled."""
        return ScheduledVfs(self)

    # -- steps ---------------------------------------------------------------------------------

    def _before_call(self, call: Call) -> None:
        process = self.current
        if process is None:
            return
        if call.kind == "lock":
            process.held.add(call.offset)
        elif call.kind == "unlock":
            process.held.discard(call.offset)
        if process.state != RUNNABLE:
            return
        if call.kind == "close":
            held = frozenset(() if call.path.endswith("-wal") else process.held)
            self.point(process, release_of("close", call.path, held))
            return
        if call.kind == "sleep":
            self._sleep(process)
            return
        grows = call.kind == "write" and self._grows(call)
        self.point(process, step_of(call.kind, call.path, call.offset, call.size, grows=grows))

    def _grows(self, call: Call) -> bool:
        disk = self.machine.disk
        number = disk.names.get(call.path)
        return number is None or call.offset + call.size > disk.files[number].size

    def touch(self, process: Process, kind: str, start: int, size: int) -> None:
        """A load or a store in -shm."""
        if self.machine.dead and process.dead:
            raise ProcessKilledError(f"{process} was killed")
        if process.state == RUNNABLE:
            self.point(process, step_of(kind, "-shm", start, size, grows=False))

    def point(self, process: Process, step: Step) -> None:
        """A process is about to take a step."""
        number = self.steps
        self.steps = number + 1
        if number > MOST_STEPS:
            self.stopped = True
            process.error = DeadlockError(f"{number} steps, and no end")
            self.hub.switch()
        target = self.policy.at_point(process, number, step)
        if target is not None:
            self.taken.append((number, target))
            if target == KILL:
                self._kill(process)
            self._next = target
            self.hub.switch()
        if step.changes:
            self.changes += 1
            process.changes += 1
        self.policy.done(process, step)

    def _kill(self, process: Process) -> None:
        self.changes += 1
        self.policy.done(process, release_of("kill", PATH, frozenset(process.held)))
        self.machine.kill(process.vfs.pid)
        raise ProcessKilledError(f"{process} was killed")

    def _sleep(self, process: Process) -> None:
        process.state = ASLEEP
        self.asleep += 1
        self.hub.switch()

    def is_woken(self, process: Process) -> bool:
        """Whether somebody else has changed something since the sleeper looked (SS2)."""
        return self.changes - process.changes != process.seen

    # -- the run -------------------------------------------------------------------------------

    def candidates(self, last: int, *, but: int = -1) -> list[Process]:
        """Who may be let go: those that wait for nothing first, in turn from `last`."""
        count = len(self.processes)
        order = [self.processes[(last + i) % count] for i in range(1, count + 1)]
        found = [p for p in order if p.state == RUNNABLE and p.index != but]
        if self.asleep:
            sure = not found and but < 0
            woken = [p for p in order if p.state == ASLEEP and p.index != but and self.is_woken(p)]
            found += [p for p in woken if sure or p.early < _EARLY]
        return found

    def shape(self) -> int:
        """What the processes asleep add to the state: who, and who may be let go."""
        if not self.asleep:
            return 0
        return hash(
            tuple(
                [(p.index, p.early, self.is_woken(p)) for p in self.processes if p.state == ASLEEP]
            )
        )

    def run(self) -> None:
        """Run all processes to their ends; raises the first error."""
        try:
            self._set_up()
            if not self.stopped:
                self._schedule()
            for process in self.processes:
                if not self.stopped and process.state == PARKED:
                    self._go(process)
            self.whole = not self.stopped
        finally:
            self.stopped = True
            self._end()
        for process in self.processes:
            if process.error is not None:
                raise process.error

    def _set_up(self) -> None:
        for process in self.processes:
            self._go(process)
        self.prelude()

    def _go(self, process: Process) -> None:
        self.current = process
        opening._marks_begun = 0  # each process has its own
        process.greenlet.switch()
        self.current = None
        if process.error is not None:
            self.stopped = True

    def _schedule(self) -> None:
        last, idle = len(self.processes) - 1, 0
        while not self.stopped:
            target, self._next = self._next, None
            if target is None or target == KILL:
                found = self.candidates(last)
                if not found:
                    idle += 1
                    found = [p for p in self.processes if p.state == ASLEEP]
                    if not found:
                        return
                    if idle > _IDLE_ROUNDS:
                        raise DeadlockError(f"{found} wait for ever, after {self.taken}")
                    found = [found[idle % len(found)]]
                else:
                    idle = 0
                target = self._choose(found)
                if target is None:
                    return
            last = target
            self._wake(self.processes[target])
            self._go(self.processes[target])

    def _choose(self, found: list[Process]) -> int | None:
        number = self.steps
        self.steps = number + 1
        target = self.policy.at_switch(found, number)
        if target is None:
            self.stopped = True
        elif target != found[0].index:
            self.taken.append((number, target))
        return target

    def _wake(self, process: Process) -> None:
        if process.state == ASLEEP:
            self.asleep -= 1
            process.state = RUNNABLE
            process.seen = self.changes - process.changes
            if any(p.state == RUNNABLE and p is not process for p in self.processes):
                process.early += 1

    def _end(self) -> None:
        """Nothing of a run that was stopped goes on."""
        self.machine.on_call = None
        for process in self.processes:
            if process.state != DONE:
                self.machine.dead.add(process.vfs.pid)
                self.current = process
                process.greenlet.throw(greenlet.GreenletExit)
        self.current = None
