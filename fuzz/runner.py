"""The fuzzer that always runs: changed seeds, one target after the other, by a seed.

An execution is one input to one target. A finding is an exception that is no error of PEP 249, an
input that takes more than a second of the processor's time, or memory beyond what is allowed; the
input's bytes are printed, and are all that is needed to see it again (`python -m fuzz --input`).

    every second of processor time a tick looks whether the same input is still running and, if
    so, stops it where it is; one that never comes back to Python is ended by faulthandler
"""

from __future__ import annotations

import base64
import contextlib
import faulthandler
import random
import resource
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from types import FrameType

from fuzz.target import LONGEST, Target

MEMORY = 4 << 30  # bytes of address space that a round may add
_CLOCK_LOOKS = 16  # inputs between two looks at the clock
_STUCK = 60.0  # seconds after which a process that does not come back ends itself


class Hang(BaseException):
    """An input has run for more than a second."""


class Finding(AssertionError):
    """What an input showed."""

    def __init__(self, target: str, data: bytes, problem: str) -> None:
        self.target = target
        self.data = data
        self.problem = problem
        shown = base64.b85encode(data).decode()
        super().__init__(
            f"{target}: {problem}\nsee it again: python -m fuzz --target {target} --input '{shown}'"
        )


class Watch:
    """Stops an input that runs for more than LONGEST (in the main thread)."""

    def __init__(self) -> None:
        self.count = 0  # inputs begun
        self._seen = -1

    def tick(self, number: int, frame: FrameType | None) -> None:
        """Called by the timer, twice in LONGEST."""
        faulthandler.dump_traceback_later(_STUCK, exit=True)
        if self._seen == -self.count:
            self._seen = self.count
            raise Hang
        self._seen = -self.count if self._seen == self.count else self.count

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        """While it watches."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGPROF, self.tick)
        signal.setitimer(signal.ITIMER_PROF, LONGEST, LONGEST)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGPROF, before)
            faulthandler.cancel_dump_traceback_later()


@contextlib.contextmanager
def bounded_memory(added: int = MEMORY) -> Iterator[None]:
    """Let no input take more than so many bytes: MemoryError is a finding."""
    try:
        with open("/proc/self/statm", encoding="ascii") as opened:
            used = int(opened.read().split()[0]) * resource.getpagesize()
    except OSError:  # no Linux: how much is used is not known
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = used + added
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def feed(target: Target, data: bytes) -> None:
    """One input; raises Finding."""
    started = time.thread_time()
    try:
        target(data)
    except Hang:
        raise Finding(target.name, data, f"it ran for more than {LONGEST} s") from None
    except (Exception, RecursionError) as problem:
        trace = "".join(traceback.format_exception(problem)[-6:])
        text = f"{type(problem).__name__}: {problem}\n{trace}"
        raise Finding(target.name, data, text) from problem
    taken = time.thread_time() - started
    if taken > LONGEST:
        raise Finding(target.name, data, f"it took {taken:.2f} s")


def rounds(target: Target, seed: int, seconds: float, watch: Watch) -> Iterator[Finding | int]:
    """Feed inputs for so many seconds; yields each finding, and at the end the executions."""
    choose = random.Random(f"{target.name} {seed}")
    make, run = target.make, feed
    count = 0
    for data in target.seeds:
        count += 1
        watch.count += 1
        try:
            run(target, data)
        except Finding as finding:
            yield finding
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(_CLOCK_LOOKS):
            count += 1
            watch.count += 1
            try:
                run(target, make(choose))
            except Finding as finding:
                yield finding
    yield count


def fuzz(
    targets: list[Target], seed: int, seconds: float, *, stop: bool = True
) -> dict[str, tuple[int, list[Finding]]]:
    """Executions and findings of each target, which share the seconds by their shares.

    `stop`: raise the first finding instead of gathering them.
    """
    found: dict[str, tuple[int, list[Finding]]] = {}
    watch = Watch()
    total = sum(target.share for target in targets)
    for target in targets:
        assert target.seeds, target.name  # made ahead of the watch: the grammar's take seconds
    with warnings.catch_warnings(), bounded_memory(), watch.on():
        warnings.simplefilter("ignore", RuntimeWarning)  # of numpy, on made numbers
        for target in targets:
            findings: list[Finding] = []
            count = 0
            for one in rounds(target, seed, seconds * target.share / total, watch):
                if isinstance(one, int):
                    count = one
                elif stop:
                    raise one
                else:
                    findings.append(one)
            found[target.name] = (count, findings)
    return found
