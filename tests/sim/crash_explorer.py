"""The crash explorer: every I/O point of a workload crashed, reopened, checked; and once more.

    workload --crash at each point--> image --recover--> checked --appends--> checked
                                        |                  |           |
                                        +-- crash at each of these points too: double images

A *level* says what a workload is, how a file of it is opened and read, and what more is done after
a recovery: `StoreLevel` here drives the log alone, `database_runs.DatabaseLevel` all of the engine.

Oracle: the state found is one that the history allows (every commit acknowledged as durable is
there, no half transaction), the file is sound, and what is committed after the recovery is kept
over the next crash as well.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any, Generic, Protocol, TypeVar

from m2mdb.pager.sim_vfs import SimImage, SimVfs
from m2mdb.wal.store import Store
from tests.sim.history import History
from tests.sim.store_runs import Found, StoreRun, change, check, contents, open_store, value
from tests.sim.store_scripts import STORE_SCRIPTS, random_script

State = TypeVar("State", bound=Hashable)
ALL_KINDS = 100  # images of one I/O point: as many as there are kinds of


@dataclass
class Counts:
    """What was done: the figures of a campaign."""

    crash_images: int = 0
    double_crash_images: int = 0
    io_errors_injected: int = 0
    points: set[tuple[Any, ...]] = field(default_factory=set)  # each I/O point visited

    def as_dict(self) -> dict[str, int]:
        """As a campaign gives them."""
        return {
            "crash_images": self.crash_images,
            "double_crash_images": self.double_crash_images,
            "io_points": len(self.points),
            "io_errors_injected": self.io_errors_injected,
        }


class Run(Protocol[State]):
    """A workload that has run."""

    vfs: SimVfs
    history: History[State]


class Level(Protocol[State]):
    """What is explored: the log alone, or the whole engine."""

    name: str

    def start(self, vfs: SimVfs, synchronous: str) -> Any:
        """A run on a new, open file."""
        ...

    def drive(self, run: Any, script: str) -> None:
        """Run a workload; `random-N` is drawn from the seed N."""
        ...

    def handle(self, run: Any) -> Any:
        """What is open after a workload has ended or failed, nothing pending; None: closed."""
        ...

    def store(self, handle: Any) -> Store:
        """The store below."""
        ...

    def open(self, vfs: SimVfs) -> Any:
        """Open the file; it is recovered where that is needed."""
        ...

    def look(self, handle: Any) -> State:
        """Everything that the file holds, after a check that all of it is sound."""
        ...

    def append(self, handle: Any, history: History[State], rng: Random) -> None:
        """Go on after a recovery: commits, perhaps a checkpoint or a close."""
        ...


class StoreLevel:
    """Workloads on a Store."""

    name = "store"

    def start(self, vfs: SimVfs, synchronous: str) -> StoreRun:
        """A run on an open, new store."""
        return StoreRun(vfs, synchronous=synchronous)

    def drive(self, run: StoreRun, script: str) -> None:
        """Run one of STORE_SCRIPTS, or a random one."""
        if script.startswith("random-"):
            random_script(int(script[7:]))(run)
        else:
            STORE_SCRIPTS[script](run)

    def handle(self, run: StoreRun) -> Store | None:
        """The run's store, unless it is closed."""
        return None if run.store.closed else run.store

    def store(self, handle: Store) -> Store:
        """Itself."""
        return handle

    def open(self, vfs: SimVfs) -> Store:
        """The store, recovered."""
        return open_store(vfs)

    def look(self, handle: Store) -> Found:
        """All items; trees, extents and free map are sound."""
        found = contents(handle)
        check(handle)
        return found

    def append(self, handle: Store, history: History[Found], rng: Random) -> None:
        """Two commits, one with an extent that may use freed pages; then one of several endings."""
        state = dict(history.states[-1])
        ending = rng.choice(("", "", "truncate", "passive", "close"))
        for changes in ({b"more": b"one more"}, {b"more": b"two", b"xx": value(7, 21_000)}):
            state.update(changes)
            transaction = handle.begin_write()
            change(transaction, dict(changes))
            history.begin(frozenset(state.items()))
            transaction.commit_now()
            history.acknowledge()
        if ending == "close":
            handle.close()
        elif ending:
            handle.checkpoint(ending)


class Explorer(Generic[State]):
    """Crashes one level's workloads and counts what it has seen."""

    def __init__(
        self,
        level: Level[State],
        counts: Counts | None = None,
        *,
        images: int = ALL_KINDS,
        double: float = 0.0,
        double_images: int = 2,
        one_everywhere: bool = True,
    ) -> None:
        """What is done with the images of one point.

        images          of one point, at most
        double          the share of them that is crashed again at every point that follows
        double_images   of one such point, at most
        one_everywhere  of each point one image is, whatever the share
        """
        self.level = level
        self.counts = Counts() if counts is None else counts
        self.images = images
        self.double = double
        self.double_images = double_images
        self.one_everywhere = one_everywhere

    def points(self, script: str, seed: int, synchronous: str, *, step: int = 1) -> Iterator[int]:
        """Crash a workload at every point, the one behind the last too; gives each when done."""
        run = self.level.start(SimVfs(seed), synchronous)
        self.level.drive(run, script)
        name = (self.level.name, script, synchronous)
        for point in range(seed % step, run.vfs.io_points + 1, step):
            self.point(run, point, name, seed)
            yield point

    def point(self, run: Run[State], point: int, name: tuple[str, str, str], seed: int) -> None:
        """All images of one I/O point; the seed and the name make it again."""
        rng = Random(f"{seed}/{name}/{point}")
        where = f"{name}, seed {seed}"
        killed = run.vfs.kill_image(point)
        self.recover(killed, run.history.after_kill(point), f"{where}, killed at {point}")
        allowed = run.history.after_crash(point)
        images = run.vfs.crash_images(point, rng, self.images)
        chosen = rng.randrange(len(images)) if self.one_everywhere else -1
        for number, image in enumerate(images):
            everywhere = number == chosen or rng.random() < self.double
            self.counts.crash_images += 1
            self.survive(image, allowed, rng, f"{where}, {image}", everywhere=everywhere)
        self.counts.points.add((*name, point))

    def survive(
        self, image: SimImage, allowed: list[State], rng: Random, where: str, *, everywhere: bool
    ) -> None:
        """Recover on an image, go on, and crash again: at every point, or behind the last.

        The points are those of the recovery and of what is appended after it.
        """
        machine = image.vfs()
        handle, found = self.recover(machine, allowed, where)
        history = History(machine, found)
        try:
            self.level.append(handle, history, rng)
        except Exception as error:
            raise AssertionError(f"{where}: after the recovery: {error!r}") from error
        last = machine.io_points
        points = range(last + 1) if everywhere else range(last, last + rng.randint(0, 1))
        for point in points:
            allowed = history.after_crash(point)
            seconds = machine.crash_images(point, rng, ALL_KINDS)
            for second in rng.sample(seconds, min(len(seconds), self.double_images)):
                self.counts.double_crash_images += 1
                self.recover(second.vfs(), allowed, f"{where}, then {second}")

    def recover(self, vfs: SimVfs, allowed: list[State], where: str) -> tuple[Any, State]:
        """Open and check; the state found must be an allowed one."""
        try:
            handle = self.level.open(vfs)
            found = self.level.look(handle)
        except Exception as error:
            raise AssertionError(f"{where}: {error!r}") from error
        assert found in allowed, f"{where}: {_difference(found, allowed)}"
        return handle, found


def _difference(found: Any, allowed: list[Any]) -> str:
    """What the state found has, and lacks, of the nearest allowed one."""
    if not allowed:
        return "no state is allowed"
    nearest = min(allowed, key=lambda state: len(state ^ found))
    more, less = sorted(map(repr, found - nearest)), sorted(map(repr, nearest - found))
    short = [[text[:120] for text in side[:5]] for side in (more, less)]
    return f"none of {len(allowed)} states; {short[0]} too much, {short[1]} missing"
