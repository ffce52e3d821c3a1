"""The simulated machine: what its processes share, and what can happen to them.

Invariants
    SM1 Each call of a process passes `enter` first: time goes on, hooks run, faults strike.
    SM2 A killed process holds nothing and can do nothing more.
"""

from __future__ import annotations

import itertools
import os
import weakref
from collections.abc import Callable
from random import Random
from typing import Protocol

from m2mdb.pager.range_locks import RangeLocks
from m2mdb.pager.sim_disk import PAGE, DiskFile, DiskState, Operation
from m2mdb.pager.sim_images import Timeline

CHANGES = frozenset(("write", "truncate", "allocate", "sync", "create", "unlink", "rename"))
EPOCH = 1_700_000_000.0  # seconds since 1970 at which every simulated machine starts
TICK = 1e-5  # seconds that a call takes


class ProcessKilledError(BaseException):
    """The simulated process is dead; no `except Exception` brings it back."""


class Call:
    """A call that is about to be done, as `on_call` sees it."""

    __slots__ = ("kind", "offset", "path", "process", "size")

    def __init__(self, kind: str, path: str, process: int, offset: int, size: int) -> None:
        self.kind = kind
        self.path = path
        self.process = process
        self.offset = offset
        self.size = size

    def __repr__(self) -> str:
        name = os.path.basename(self.path)
        return f"<{self.kind} {name} [{self.offset}, +{self.size}) by {self.process}>"


class Fault:
    """What is to fail, and when."""

    __slots__ = ("calls_left", "error", "kinds", "once", "path_end", "process")

    def __init__(self, kinds: frozenset[str], at_call: int, error: int | None) -> None:
        self.kinds = kinds
        self.calls_left = at_call
        self.error = error  # None kills the process
        self.once = True
        self.path_end = ""
        self.process: int | None = None

    def strikes(self, kind: str, path: str, process: int) -> bool:
        """Count a call; whether this one fails."""
        if kind not in self.kinds or not path.endswith(self.path_end):
            return False
        if self.process is not None and process != self.process:
            return False
        self.calls_left -= 1
        return self.calls_left == 0 or (self.calls_left < 0 and not self.once)


class OpenFile(Protocol):
    """What a machine knows of a process's handle."""

    process: int
    inode: int

    def vanish(self) -> None:
        """The handle and its locks are gone, without a call."""
        ...


class OpenMemory(Protocol):
    """What a machine knows of a process's shared memory."""

    process: int

    def close(self) -> None:
        """Drop the mapping."""
        ...


class Mapped(bytearray):
    """The bytes behind a map; weakly referenced, to be brought up to date by later writes."""

    __slots__ = ("__weakref__",)


class Machine:
    """What all processes of one simulated machine share."""

    def __init__(self, seed: int, start: DiskState, regions: dict[int, bytes]) -> None:
        self.seed = seed
        self.rng = Random(seed)
        self.clock = 0.0
        self.timeline = Timeline(start)
        self.disk = start.copy()
        self.regions = {number: bytearray(region) for number, region in regions.items()}
        self.locks: dict[int, RangeLocks] = {}
        self.maps: dict[int, list[tuple[weakref.ref[Mapped], int]]] = {}
        self.numbers = itertools.count(max(start.files, default=0) + 1)
        self.pids = itertools.count(1000)
        self.open_files: weakref.WeakSet[OpenFile] = weakref.WeakSet()
        self.memories: weakref.WeakSet[OpenMemory] = weakref.WeakSet()
        self.dead: set[int] = set()
        self.faults: list[Fault] = []
        self.on_call: Callable[[Call], None] | None = None
        self.failed_sync = "some"
        self.disk_size: int | None = None
        self._shared: tuple[tuple[int, bytes], ...] = ()

    def enter(self, kind: str, path: str, process: int, offset: int = 0, size: int = 0) -> int:
        """Before each call: time, life, hook and faults. The errno to fail with, or 0."""
        self.clock += TICK
        if process in self.dead:
            raise ProcessKilledError(f"process {process} was killed")
        if self.on_call is not None:
            self.on_call(Call(kind, path, process, offset, size))
            if process in self.dead:
                raise ProcessKilledError(f"process {process} was killed")
        for fault in self.faults:
            if fault.strikes(kind, path, process):
                if fault.error is not None:
                    return fault.error
                self.kill(process)
                raise ProcessKilledError(f"process {process} was killed before {kind} of {path}")
        return 0

    def kill(self, process: int) -> None:
        """End a process: its locks and handles vanish, the page cache stays."""
        self.dead.add(process)
        for file in list(self.open_files):
            if file.process == process:
                file.vanish()
        for memory in list(self.memories):
            if memory.process == process:
                memory.close()  # its exception handlers must not write there any more

    def log(self, operation: Operation) -> None:
        """Do an operation on the disk, and write it down."""
        if self.regions:
            operation = operation._replace(shared=self.share())
        self.timeline.log.append(operation)
        self.disk.apply(operation)

    def share(self) -> tuple[tuple[int, bytes], ...]:
        """The content of the shared regions; the same object while nothing changes."""
        shared = tuple([(number, bytes(region)) for number, region in self.regions.items()])
        if shared != self._shared:
            self._shared = shared
        return self._shared

    def locks_of(self, inode: int) -> RangeLocks:
        """The lock table of a file."""
        table = self.locks.get(inode)
        if table is None:
            table = self.locks[inode] = RangeLocks()
        return table

    def room_for(self, file: DiskFile, offset: int, size: int) -> bool:
        """Whether the disk has space for a range of a file."""
        if self.disk_size is None:
            return True
        live = set(self.disk.names.values()) | {open_file.inode for open_file in self.open_files}
        used = sum(len(self.disk.files[n].pages) for n in live if n in self.disk.files)
        used += sum(len(self.regions[n]) // PAGE for n in live if n in self.regions)
        return (used + file.new_pages(offset, size)) * PAGE <= self.disk_size

    def refresh_maps(self, inode: int) -> None:
        """Show a change of a file in its maps, as a real shared map would."""
        file = self.disk.files[inode]
        alive = []
        for reference, offset in self.maps[inode]:
            mapped = reference()
            if mapped is not None:
                data = file.read(offset, len(mapped))
                mapped[: len(data)] = data
                alive.append((reference, offset))
        self.maps[inode] = alive
