"""Processes of a kill campaign: forked warm, watched through a board outside the database.

The driver has everything imported and no database open; a worker is a fork of it, which costs a
few milliseconds instead of a start of Python. Whatever a worker must not lose it says outside:

    acknowledged   a file of u64, one an owner: the newest operation whose COMMIT has returned
    phases         shared memory, one byte a worker: what it is doing, so that kills hit it there
"""

from __future__ import annotations

import contextlib
import gc
import mmap
import os
import signal
import struct
import time
import traceback
from collections.abc import Callable
from pathlib import Path

PHASES = (
    "starting",
    "opening",
    "creating",
    "checking",
    "changing",
    "committing",
    "between",
    "reading",
    "checkpointing",
    "optimizing",
    "vacuuming",
    "copying",
    "closing",
)
_PHASE = {name: number for number, name in enumerate(PHASES)}
_WORD = struct.Struct("<Q")
_PATIENCE = 180.0  # seconds until a process that should end is called hanging


class Board:
    """What workers say outside the database; it survives every one of them."""

    def __init__(self, folder: Path, owners: int, slots: int) -> None:
        self.owners = owners
        self.errors = folder / "errors"
        self._file = os.open(folder / "acknowledged", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        os.pwrite(self._file, bytes(_WORD.size * owners), 0)
        self._phases = mmap.mmap(-1, slots)

    def close(self) -> None:
        os.close(self._file)
        self._phases.close()

    def acknowledge(self, owner: int, done: int) -> None:
        """The commit of an operation has returned."""
        os.pwrite(self._file, _WORD.pack(done), owner * _WORD.size)

    def acknowledged(self) -> list[int]:
        """The newest acknowledged operation of each owner."""
        raw = os.pread(self._file, self.owners * _WORD.size, 0)
        return [word for (word,) in _WORD.iter_unpack(raw)]

    def enter(self, slot: int, phase: str) -> None:
        self._phases[slot] = _PHASE[phase]

    def phase(self, slot: int) -> str:
        return PHASES[self._phases[slot]]


class Worker:
    """A forked process with its slot on the board."""

    def __init__(self, board: Board, slot: int, work: Callable[[], None], what: str) -> None:
        self.board = board
        self.slot = slot
        self.what = what
        board.enter(slot, "starting")
        self.pid = os.fork()
        if not self.pid:
            self._be(work)

    def _be(self, work: Callable[[], None]) -> None:
        """In the child: work, and leave without the parent's clean-up."""
        status = 1
        try:
            gc.disable()
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            work()
            status = 0
        except BaseException:
            line = f"{self.what}, pid {os.getpid()}:\n{traceback.format_exc()}\n"
            fd = os.open(self.board.errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.write(fd, line.encode())
        finally:
            os._exit(status)

    def kill(self) -> str:
        """SIGKILL; the phase that it was in. AssertionError where it had ended by itself."""
        os.kill(self.pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        assert status == -signal.SIGKILL, self._complaint(status)
        return self.board.phase(self.slot)

    def discard(self) -> None:
        """Kill it, alive or not; for the end of a round that has failed already."""
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)

    def await_end(self) -> None:
        """Wait until it ends by itself, well."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"{self.what} hangs while {self.board.phase(self.slot)}")
            time.sleep(0.0005)
        code = os.waitstatus_to_exitcode(status)
        assert code == 0, self._complaint(code)

    def _complaint(self, status: int) -> str:
        said = self.board.errors.read_text() if self.board.errors.exists() else "said nothing"
        return f"{self.what} ended with {status}: {said}"
