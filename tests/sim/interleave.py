"""Several simulated processes, one step at a time, in an order drawn from a seed.

Each process runs in a thread of its own, but one at a time: before each call to its Vfs it hands
the baton to whoever the seed names. So every interleaving of reads, writes, locks and syncs can
be had, and had again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from random import Random

from m2mdb.pager.sim_machine import Call, ProcessKilledError
from m2mdb.pager.sim_vfs import SimVfs

Body = Callable[[SimVfs], None]


class _Runner:
    """One process: its thread, its turn, and what it ended with."""

    def __init__(self, vfs: SimVfs, body: Body) -> None:
        self.vfs = vfs
        self.body = body
        self.turn = threading.Semaphore(0)
        self.thread = threading.Thread(target=lambda: None)
        self.finished = False
        self.error: BaseException | None = None


class Interleaving:
    """Runs bodies on one machine; a call is kept by its process with probability `stay`."""

    def __init__(self, vfs: SimVfs, rng: Random, *, stay: float = 0.5) -> None:
        self._machine_face = vfs
        self._rng = rng
        self._stay = stay
        self._runners: list[_Runner] = []
        self._done = threading.Event()

    def add(self, body: Body) -> SimVfs:
        """A process that will run `body` with its own face of the machine, which is returned."""
        runner = _Runner(self._machine_face.fork_process(), body)
        self._runners.append(runner)
        return runner.vfs

    def run(self) -> None:
        """Run all to their ends; raises the first error, but for the death of a process."""
        self._machine_face.on_call = self._before_call
        for runner in self._runners:
            runner.thread = threading.Thread(target=self._live, args=(runner,), daemon=True)
            runner.thread.start()
        self._rng.choice(self._runners).turn.release()
        self._done.wait()
        for runner in self._runners:
            runner.thread.join()
        self._machine_face.on_call = None
        for runner in self._runners:
            if runner.error is not None and not isinstance(runner.error, ProcessKilledError):
                raise runner.error

    def _live(self, runner: _Runner) -> None:
        runner.turn.acquire()
        try:
            runner.body(runner.vfs)
        except BaseException as error:
            runner.error = error
        runner.finished = True
        waiting = [other for other in self._runners if not other.finished]
        if waiting:
            self._rng.choice(waiting).turn.release()
        else:
            self._done.set()

    def _before_call(self, call: Call) -> None:
        here = threading.current_thread()
        mine = [runner for runner in self._runners if runner.thread is here]
        if not mine or (call.kind != "sleep" and self._rng.random() < self._stay):
            return
        others = [r for r in self._runners if not r.finished and r is not mine[0]]
        if others:
            self._rng.choice(others).turn.release()
            mine[0].turn.acquire()
