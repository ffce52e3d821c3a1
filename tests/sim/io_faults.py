"""I/O errors at the n-th call of every kind, once and for ever: nothing is lost, nothing is a lie.

A workload runs until the first error reaches it. Then the faults end, and it must hold that

    - the error was one of PEP 249,
    - the connection shows a state that was acknowledged (or is in doubt, and the error says so),
    - it can be written again, unless a sync or a write had failed and poisoned the database: then
      every process is refused (S11),
    - a power loss and a death of the process leave what was acknowledged, before and after,
    - closed and opened again the file is right.
"""

from __future__ import annotations

import contextlib
import errno
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any, NamedTuple

from m2mdb.pager.errors import CorruptDatabaseError, Error, OperationalError
from m2mdb.pager.sim_machine import Call
from m2mdb.pager.sim_vfs import SimVfs
from tests.sim.crash_explorer import Counts, Explorer, Level
from tests.sim.history import History

ERRORS: dict[str, tuple[int, ...]] = {
    "read": (errno.EIO, errno.EINTR),
    "write": (errno.EIO, errno.ENOSPC, errno.EINTR),  # a part may have been written
    "sync": (errno.EIO, errno.ENOSPC, errno.EINTR),  # the pages may be lost, and called clean
    "allocate": (errno.ENOSPC, errno.EIO),
    "truncate": (errno.EIO, errno.EACCES),
    "open": (errno.EACCES, errno.EMFILE),
    "create": (errno.EACCES, errno.ENOSPC),
    "unlink": (errno.EACCES, errno.EIO),
    "sync_dir": (errno.EIO,),
    "share": (errno.EACCES, errno.ENOSPC),
    "map": (errno.ENOMEM,),
    "lock": (errno.EAGAIN, errno.ENOLCK, errno.EIO),
    "unlock": (errno.ENOLCK,),
    "size": (errno.EIO,),
    "identity": (errno.EIO,),
    "exists": (errno.EACCES,),
}
POISONERS = frozenset(("sync", "write", "size"))  # kinds whose failure may leave the log unknown
SYNC_MODES = ("some", "none", "revert", "keep")


class Injection(NamedTuple):
    """Which call fails, how, and whether all later ones of its kind do too."""

    kind: str
    number: int  # of the call among those of its kind, from 1
    error: int
    once: bool

    def __str__(self) -> str:
        name = errno.errorcode[self.error]
        return f"{name} at {self.kind} {self.number}{'' if self.once else ' and ever after'}"


def injections(level: Level[Any], script: str, seed: int, synchronous: str) -> Iterator[Injection]:
    """Every call that a workload makes, with every error that it may meet."""
    vfs = SimVfs(seed)
    calls: Counter[str] = Counter()

    def count(call: Call) -> None:
        calls[call.kind] += 1

    vfs.on_call = count
    run = level.start(vfs, synchronous)
    level.drive(run, script)
    vfs.on_call = None
    for kind, errors in ERRORS.items():
        for number in range(1, calls[kind] + 1):
            for error in errors:
                for once in (True, False):
                    yield Injection(kind, number, error, once)


def kill_all(vfs: SimVfs) -> SimVfs:
    """Every process of the machine dies; a new one."""
    for file in list(vfs.machine.open_files):
        vfs.machine.kill(file.process)
    return vfs.process_crash()


class Injector:
    """Runs one level's workloads with faults."""

    def __init__(self, level: Level[Any], counts: Counts | None = None) -> None:
        self.level = level
        self.counts = counts or Counts()
        self._explorer = Explorer(level, Counts())

    def inject(self, script: str, seed: int, synchronous: str, fault: Injection) -> None:
        """Run a workload with one fault, and check all that must hold after it."""
        rng = Random(f"{seed}/{script}/{synchronous}/{fault}")
        where = f"{self.level.name} {script}, {synchronous}, seed {seed}, {fault}"
        vfs = SimVfs(seed)
        vfs.failed_sync = rng.choice(SYNC_MODES)
        strike = vfs.fail(fault.kind, at_call=fault.number, error=fault.error, once=fault.once)
        run, problem = self._drive(vfs, script, synchronous, where, fault)
        assert strike.calls_left <= 0, f"{where}: the call was not made"
        self.counts.io_errors_injected += 1
        vfs.clear_faults()
        if run is None:
            self._go_on(kill_all(vfs), [frozenset()], rng, where)
            return
        where = f"{where} ({problem or 'nothing was raised'})"
        try:
            self._after(run, (fault, problem), rng, where)
        except Error as error:
            raise AssertionError(f"{where}: afterwards {error!r}") from error

    def _drive(
        self, vfs: SimVfs, script: str, synchronous: str, where: str, fault: Injection
    ) -> tuple[Any, str]:
        """The run, None where it could not begin, and what it met."""
        run = None
        try:
            run = self.level.start(vfs, synchronous)
            run.may_be_busy = fault.kind in ("lock", "unlock")
            self.level.drive(run, script)
        except Error as error:
            return run, str(error)  # without its traceback, which holds transactions
        except Exception as error:
            raise AssertionError(f"{where}: {error!r} reached the caller") from error
        return run, ""

    def _after(self, run: Any, met: tuple[Injection, str], rng: Random, where: str) -> None:
        """On the same connection; then after a crash, or after a clean close."""
        fault, problem = met
        vfs, history = run.vfs, run.history
        handle = self.level.handle(run)
        allowed = history.after_kill(vfs.io_points)
        if handle is not None:
            found = self._look(handle, run, fault, allowed[-1])
            assert found in allowed, f"{where}: the connection shows another state"
            store = self.level.store(handle)
            poisoned = bool(store.poisoned or (store.shared and store.shared.poisoned))
            if poisoned:
                assert fault.kind in POISONERS, f"{where}: poisoned: {store.poisoned}"
                self._refused(vfs, store, where)
                if run.durable:
                    allowed = history.after_crash(vfs.io_points)
            else:
                assert fault.kind != "sync" or not problem, f"{where}: a failed sync poisons"
                store.synchronous = "full"
                history = History(vfs, found)
                self.level.append(handle, history, rng)
                allowed = history.after_crash(vfs.io_points)
        images = vfs.crash_images(vfs.io_points, rng, 3)
        after = history.after_crash(vfs.io_points)
        for image in images:
            self._explorer.recover(image.vfs(), after, f"{where}, then {image}")
        if not run.durable:
            allowed = after  # what a failed sync dropped may be a commit that waited for it
        if handle is not None and rng.random() < 0.5:
            store.close()
        self._only_opened(vfs.kill_image(vfs.io_points), allowed, rng, where)
        self._go_on(kill_all(vfs), allowed, rng, where)

    def _only_opened(self, vfs: SimVfs, allowed: list[Any], rng: Random, where: str) -> None:
        """In a new process: open, look, close; power may be lost at any point of that."""
        where = f"{where}, then opened"
        handle, found = self._explorer.recover(vfs, allowed, where)
        self.level.store(handle).close()
        points = range(vfs.io_points)
        for point in (*rng.sample(points, min(len(points), 4)), vfs.io_points):
            for image in vfs.crash_images(point, rng, 2):
                after = [found] if point == vfs.io_points else allowed
                self._explorer.recover(image.vfs(), after, f"{where}, {image}")

    def _look(self, handle: Any, run: Any, fault: Injection, newest: Any) -> Any:
        """What the connection shows.

        Commits that waited for a sync may be gone from the cache after it failed: then reading
        says so.
        """
        try:
            return self.level.look(handle)
        except CorruptDatabaseError:
            if fault.kind != "sync" or run.durable or run.vfs.failed_sync != "revert":
                raise
            return newest

    def _refused(self, vfs: SimVfs, store: Any, where: str) -> None:
        """S11: no process writes or checkpoints."""
        stores = [store]
        with contextlib.suppress(CorruptDatabaseError):  # see `_look`
            stores.append(self.level.store(self.level.open(vfs.fork_process())))
        for each in stores:
            before = vfs.io_points
            for action in (each.begin_write, each.checkpoint):
                try:
                    result = action()
                except OperationalError:
                    continue
                # Without a log there is nothing to be copied, and nothing was.
                nothing = result == (0, 0, 0) and vfs.io_points == before
                assert nothing, f"{where}: {action} in a poisoned database"
        for other in stores[1:]:
            other.close()

    def _go_on(self, vfs: SimVfs, allowed: list[Any], rng: Random, where: str) -> None:
        """In a new process: open, look, commit, lose power, look again."""
        handle, found = self._explorer.recover(vfs, allowed, f"{where}, then reopened")
        history = History(vfs, found)
        self.level.append(handle, history, rng)
        for image in vfs.crash_images(vfs.io_points, rng, 2):
            allowed = history.after_crash(vfs.io_points)
            self._explorer.recover(image.vfs(), allowed, f"{where}, reopened, then {image}")
