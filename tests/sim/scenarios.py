"""Scenarios: small workloads of two to five processes, each from a state of a file.

image      the disk, made once and copied for each schedule
set-up     each process in turn opens its store, where opening is not what is looked at
prelude    what somebody else does then: commits, checkpoints, dies, fails
schedule   the processes, step by step
closing    in turn, where closing is not what is looked at
verdict    the witness
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import cache
from itertools import count
from random import Random
from typing import Any, NamedTuple

from m2mdb.pager.errors import DatabaseError, OperationalError
from m2mdb.pager.sim_disk import DiskState
from m2mdb.pager.sim_machine import Machine
from m2mdb.pager.sim_vfs import SimVfs
from m2mdb.wal import log
from m2mdb.wal.locks import ATTACH
from tests.sim.explorer import Contention, Drawn, Explorer, Recorder
from tests.sim.scheduler import Body, Policy, Process, Replay, Scheduler
from tests.sim.store_runs import Changes, change, contents
from tests.sim.witness import Witness, filled, open_store

EXTENT = 20_100  # bytes: an extent of five pages
LONG = 7000  # bytes: two overflow pages
LONGEST = 19_900  # bytes: five overflow pages, as many as an extent takes
ROW = 900  # bytes
_FIRST_SPACE = 24 << 10  # bytes of a new log: some commits, so that it grows, too
_COLLECT_EVERY = 400

Maker = Callable[[Witness], list[Body]]
Prelude = Callable[[Witness], None]


class Image(NamedTuple):
    """A machine's disk, and what was promised of the database on it."""

    disk: DiskState
    regions: dict[int, bytes]
    witness: Witness
    attached: int = 0  # the inode of a file that somebody has open


@cache
def image(state: str) -> Image:
    """`closed`: one file, with free pages. `crashed`: a log beside it, that was not copied."""
    vfs = SimVfs(5)
    store = open_store(vfs, create=True)

    def commit(changes: Changes) -> None:
        transaction = store.begin_write()
        change(transaction, changes)
        transaction.commit_now()

    commit({b"count": b"0", b"a": filled(1, ROW), b"b": filled(2, ROW), b"c": filled(3, ROW)})
    commit({key: filled(key[0], ROW) for key in (b"p", b"q", b"r")})
    commit({b"d": filled(4, ROW), b"gone": filled(5, EXTENT), b"l": filled(6, LONG)})
    commit({b"e": filled(7, EXTENT), b"gone too": filled(8, LONG)})
    commit({b"gone": None, b"gone too": None})
    if state == "crashed":
        store.close()
        store = open_store(vfs)
        commit({b"count": b"1", b"e": filled(9, EXTENT)})
        commit({b"count": b"2", b"l": filled(10, LONG)})
    witness = Witness(dict(contents(store)), store.last_commit)
    if state == "closed":
        store.close()
    return Image(vfs.machine.disk.copy(), regions_of(vfs.machine), witness)


def regions_of(machine: Machine) -> dict[int, bytes]:
    """The shared memory that has a name."""
    live = machine.disk.names.values()
    return {number: bytes(region) for number, region in machine.regions.items() if number in live}


@cache
def image_after(state: str, prelude: Prelude) -> Image:
    """The same with somebody attached, after a prelude."""
    start = image(state)
    machine = Machine(1, start.disk, start.regions)
    machine.pids = count(500)  # no process of a schedule draws the same salts
    witness = start.witness.fork()
    witness.scheduler = Scheduler(machine, Replay())
    keeper = open_store(witness.scheduler.face())
    prelude(witness)
    assert not keeper.closed
    inode = keeper.identity.inode
    return Image(machine.disk.copy(), regions_of(machine), witness.fork(), inode)


class Scenario(NamedTuple):
    """A workload, and how its schedules are explored."""

    name: str
    make: Maker
    state: str = "closed"
    prelude: Prelude | None = None
    late: bool = False  # the prelude comes after the set-up
    clean: bool = True  # the last close leaves one file
    doubtful: bool = False  # the outcome of a commit may stay unknown
    torn: bool = False  # stores in -shm are torn
    kills: int = 0
    mortal: frozenset[int] = frozenset()
    one_slot: bool = False  # all processes try the same slot first
    free_choices: bool = True
    bound: int = 2
    crash_every: int = 16  # one whole run in so many loses power, too

    def run(self, policy: Policy) -> Scheduler:
        """One schedule; raises what the witness finds."""
        log._FIRST_SPACE = _FIRST_SPACE
        prelude = self.prelude
        early = prelude is not None and not self.late
        start = image_after(self.state, prelude) if prelude and early else image(self.state)
        machine = Machine(1, start.disk, start.regions)
        machine.pids = count(1000, 18 if self.one_slot else 1)
        witness = start.witness.fork()
        witness.doubtful |= self.doubtful
        scheduler = Scheduler(machine, policy, torn=self.torn)
        witness.scheduler = scheduler
        if isinstance(policy, Recorder):
            policy.scheduler = scheduler
        for body in self.make(witness):
            scheduler.add(body)
        keeper, table = object(), machine.locks_of(start.attached)
        if start.attached:
            table.lock(keeper, ATTACH, 1, exclusive=False)

        def all_are_ready() -> None:
            table.drop(keeper)
            if prelude is not None and self.late:
                prelude(witness)

        scheduler.prelude = all_are_ready
        try:
            scheduler.run()
            if scheduler.whole:
                witness.settle(clean=self.clean)
                rng = Random(repr(scheduler.taken))
                if not rng.randrange(self.crash_every):
                    witness.crash(rng)
        except Exception as error:
            raise AssertionError(
                f"SCENARIOS[{self.name!r}].replay({dict(scheduler.taken)}): {error!r}"
            ) from error
        finally:
            log._FIRST_SPACE = _SPACE
        _collect_sometimes()
        return scheduler

    def replay(self, decisions: dict[int, int]) -> Scheduler:
        """The schedule of some decisions again."""
        return self.run(Replay(decisions))

    def drawn(self, contention: Contention, seed: int, length: int) -> Scheduler:
        """One random schedule with three preemptions."""
        rng = Random(f"{self.name} {seed}")
        return self.run(Drawn(contention, rng, length, 3, self.mortal))

    def contention(self, runs: int = 120) -> tuple[Contention, int]:
        """What random schedules find contended, and the longest one's steps."""
        found, longest = Contention(), 0
        for seed in range(runs):
            policy = Drawn(found, Random(seed), 250, 3, self.mortal)
            policy.learns = True
            longest = max(longest, self.run(policy).steps)
        return found, longest

    def explorer(self, contention: Contention | None = None) -> Explorer:
        """The exploration of all schedules up to the bound."""
        return Explorer(
            self.run,
            bound=self.bound,
            free_choices=self.free_choices,
            kills=self.kills,
            mortal=self.mortal,
            contention=contention,
        )


_SPACE = log._FIRST_SPACE
_runs = 0


def _collect_sometimes() -> None:
    """Greenlets and stores lie in cycles; collected seldom, and between runs alone."""
    global _runs
    _runs += 1
    if _runs % _COLLECT_EVERY == 0:
        gc.collect()


# -- bodies ----------------------------------------------------------------------------------------


def writer(witness: Witness, *changes: Changes, **options: Any) -> Body:
    """Commits, by a store that is open before and closed after."""
    durable = options.get("synchronous", "full") == "full"

    def body(process: Process) -> None:
        store = open_store(process.vfs, **options)
        process.ready()
        for each in changes:
            witness.commit(store, each, durable=durable)
        process.park()
        store.close()

    return body


def reader(witness: Witness, reads: int = 1, *, held: bool = False) -> Body:
    """Snapshots; `held`: one that was taken before, and is looked at first."""

    def body(process: Process) -> None:
        store = open_store(process.vfs)
        snapshot = store.begin_read() if held else None
        process.ready()
        if snapshot is not None:
            witness.look(snapshot, process)
            snapshot.close()
        seen = 0
        for _ in range(reads):
            seen = witness.read(store, process, seen)
        process.park()
        store.close()

    return body


def checkpointer(witness: Witness, *modes: str) -> Body:
    """Checkpoints."""

    def body(process: Process) -> None:
        store = open_store(process.vfs)
        process.ready()
        for mode in modes:
            busy, in_log, copied = store.checkpoint(mode)
            assert busy in (0, 1)
            assert busy or mode == "passive" or copied == in_log
        process.park()
        store.close()

    return body


def visitor(witness: Witness, changes: Changes | None) -> Body:
    """Opens, reads, writes where there is something to write, and closes."""

    def body(process: Process) -> None:
        process.ready()
        store = open_store(process.vfs)
        seen = witness.read(store, process)
        if changes is not None:
            witness.commit(store, changes)
        witness.read(store, process, seen)
        store.close()

    return body


def leaver(witness: Witness, changes: Changes | None = None) -> Body:
    """Was there before, writes where there is something to write, and closes."""

    def body(process: Process) -> None:
        store = open_store(process.vfs)
        process.ready()
        if changes is not None:
            witness.commit(store, changes)
        store.close()

    return body


def refused(witness: Witness) -> Body:
    """Reads, and is refused to write and to checkpoint (S11)."""

    def body(process: Process) -> None:
        store = open_store(process.vfs)
        process.ready()
        seen = witness.read(store, process)
        try:
            store.begin_write()
        except OperationalError:
            pass
        else:
            raise AssertionError("a poisoned database is written")
        try:
            store.checkpoint("full")
        except OperationalError:
            pass
        else:
            raise AssertionError("a poisoned database is checkpointed")
        witness.read(store, process, seen)
        store.close()

    return body


# -- preludes --------------------------------------------------------------------------------------


def _outside(witness: Witness, *changes: Changes, mode: str = "") -> None:
    """Somebody else commits, checkpoints and leaves."""

    def body(process: Process) -> None:
        store = open_store(process.vfs)
        for each in changes:
            witness.commit(store, each)
        if mode:
            assert store.checkpoint(mode)[0] == 0
        store.close()

    assert witness.scheduler is not None
    witness.scheduler.outside(body)


def logged(witness: Witness) -> None:
    """A log with two commits."""
    _outside(witness, {b"a": filled(21, ROW)}, {b"b": filled(22, ROW)})


def copied(witness: Witness) -> None:
    """A log that is copied whole: the next writer begins it anew."""
    _outside(witness, {b"a": filled(21, ROW)}, {b"b": filled(22, ROW)}, mode="full")


def freed(witness: Witness) -> None:
    """An extent that is free as of the newest commit."""
    _outside(witness, {b"e": None, b"a": filled(25, ROW)})


def freed_frames(witness: Witness) -> None:
    """Free pages that have frames in the log, as many as an extent takes."""
    _outside(witness, {b"l": filled(24, LONGEST)}, {b"l": None})


def died(witness: Witness) -> None:
    """A writer that has died between its frames and their publication (S8)."""
    logged(witness)

    def body(process: Process) -> None:
        store = open_store(process.vfs)
        witness.commit(store, {b"c": filled(29, ROW)})
        assert store.log is not None
        store.log.reserve(store.log.space + 1)  # the next sync is the commit's own
        process.vfs.kill_at_call(1, "sync").path_end = "-wal"
        witness.commit(store, {b"b": filled(26, ROW), b"f": filled(27, EXTENT)})
        raise AssertionError("the writer lives")

    witness.doubtful = True
    assert witness.scheduler is not None
    witness.scheduler.outside(body)


def poisoned(witness: Witness) -> None:
    """A sync of the log that has failed (S11)."""
    logged(witness)

    def body(process: Process) -> None:
        store = open_store(process.vfs)
        process.vfs.fail("sync", path_end="-wal")
        try:
            witness.commit(store, {b"b": filled(28, ROW)})
        except DatabaseError:
            store.close()
        else:
            raise AssertionError("the sync has not failed")

    witness.doubtful = True
    assert witness.scheduler is not None
    witness.scheduler.outside(body)


# -- the scenarios ---------------------------------------------------------------------------------

_A: Changes = {b"a": filled(31, ROW), b"q": filled(33, ROW), b"e": filled(32, EXTENT)}
_B: Changes = {b"b": filled(41, ROW), b"l": filled(42, LONG)}
_TWO: Changes = {b"f": filled(71, EXTENT), b"g": filled(72, EXTENT)}
_ROW_A: Changes = {b"a": filled(51, ROW)}
_ROW_B: Changes = {b"b": filled(61, ROW)}


def _all() -> list[Scenario]:
    every = Scenario
    return [
        every(
            "first writes",
            lambda w: [writer(w, _A), writer(w, _ROW_B), reader(w)],
        ),
        every(
            "writers and a reader",
            lambda w: [writer(w, _A), writer(w, _B), reader(w)],
            prelude=logged,
        ),
        every(
            "writer, checkpointer, reader",
            lambda w: [writer(w, _A), checkpointer(w, "passive"), reader(w, 2)],
            prelude=logged,
        ),
        every(
            "writer, restart, reader",
            lambda w: [writer(w, _A), checkpointer(w, "restart"), reader(w, 2)],
            prelude=logged,
        ),
        every(
            "two checkpointers",
            lambda w: [writer(w, _ROW_A), checkpointer(w, "truncate"), checkpointer(w, "passive")],
            prelude=logged,
        ),
        every(
            "reset next",
            lambda w: [writer(w, _A), checkpointer(w, "passive"), reader(w)],
            prelude=copied,
        ),
        every(
            "reset next, two writers",
            lambda w: [writer(w, _ROW_A), writer(w, _ROW_B), reader(w)],
            prelude=copied,
        ),
        every(
            "a dead writer's frames",
            lambda w: [writer(w, _A), checkpointer(w, "full"), reader(w)],
            prelude=died,
            crash_every=2,
        ),
        every(
            "two after a dead writer",
            lambda w: [writer(w, _A), writer(w, _ROW_B)],
            prelude=died,
            crash_every=2,
        ),
        every(
            "freed under a reader",
            lambda w: [writer(w, _TWO), checkpointer(w, "passive"), reader(w, 0, held=True)],
            prelude=freed,
            late=True,
        ),
        every(
            "freed frames in the log",
            lambda w: [writer(w, _TWO), checkpointer(w, "passive"), reader(w)],
            prelude=freed_frames,
        ),
        every(
            "freed by one, used by another",
            lambda w: [
                writer(w, {b"e": None, b"l": None}),
                writer(w, _TWO),
                reader(w, 2),
            ],
        ),
        every(
            "readers of one slot",
            lambda w: [writer(w, {b"e": None}, _TWO), reader(w), reader(w)],
            prelude=logged,
            one_slot=True,
        ),
        every(
            "commits that are not synced",
            lambda w: [
                writer(w, {b"e": None}, _TWO, synchronous="normal"),
                checkpointer(w, "passive"),
            ],
            prelude=logged,
            crash_every=1,
        ),
        every(
            "two open a crashed file",
            lambda w: [visitor(w, _ROW_A), visitor(w, None)],
            state="crashed",
        ),
        every(
            "three open a crashed file",
            lambda w: [visitor(w, _ROW_A), visitor(w, None), visitor(w, None)],
            state="crashed",
        ),
        every(
            "last close, opening",
            lambda w: [leaver(w, _ROW_A), visitor(w, _ROW_B)],
        ),
        every(
            "two leave, one comes",
            lambda w: [leaver(w), leaver(w, _ROW_A), visitor(w, None)],
            prelude=logged,
        ),
        every(
            "poisoned",
            lambda w: [refused(w), leaver(w), reader(w)],
            prelude=poisoned,
            late=True,
            clean=False,
        ),
        every(
            "a writer dies",
            lambda w: [writer(w, _A), writer(w, _ROW_B), reader(w)],
            prelude=logged,
            kills=1,
            mortal=frozenset((0,)),
            doubtful=True,
        ),
        every(
            "a checkpointer dies",
            lambda w: [writer(w, _ROW_A), checkpointer(w, "restart"), reader(w)],
            prelude=logged,
            kills=1,
            mortal=frozenset((1,)),
        ),
        every(
            "torn stores",
            lambda w: [writer(w, _ROW_A), checkpointer(w, "passive"), reader(w)],
            prelude=logged,
            torn=True,
        ),
        every(
            "torn stores of the dying",
            lambda w: [writer(w, _ROW_A), reader(w), writer(w, _ROW_B)],
            prelude=logged,
            torn=True,
            kills=1,
            mortal=frozenset((0,)),
            doubtful=True,
        ),
        every(
            "two writers, a checkpointer, two readers",
            lambda w: [
                writer(w, _A),
                writer(w, _ROW_B),
                checkpointer(w, "restart"),
                reader(w),
                reader(w),
            ],
            prelude=logged,
            free_choices=False,
        ),
    ]


SCENARIOS = {scenario.name: scenario for scenario in _all()}
FULL = SCENARIOS["two writers, a checkpointer, two readers"]
