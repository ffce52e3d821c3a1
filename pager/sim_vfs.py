"""SimVfs: a simulated machine, on which a crash can be had at every step.

A machine has one disk, one clock and one source of randomness, all from a seed, and processes;
a SimVfs is one process's face of it. Every step that changes the disk or makes it durable is an
*I/O point* and stands in the log:

    vfs = SimVfs(seed=1)
    ...run a workload on vfs...
    for point in range(vfs.io_points + 1):
        for image in vfs.crash_images(point, random.Random(point)):
            machine = image.vfs()          # after the power loss: no locks, no shared memory
            ...open the database on it, check it...

What else can happen: `process_crash` (kill -9: the page cache survives, locks and maps do not),
`kill_image` (the same at any point of the log, on a machine of its own), `fail` (an errno at the
n-th call), `kill_at_call`, `disk_size` (ENOSPC), and `on_call`, which sees every call before it is
done and may run another process meanwhile.

Invariants (beside V1..V5 of `pager.vfs`)
    SV1 The same seed and the same calls give the same log, clock, random bytes and images.
    SV2 Locks belong to a File, and go with it or with its process; a killed process can do nothing.
    SV3 Shared memory is one region for all processes of a machine, and in no I/O point.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from random import Random

from m2mdb.pager.errors import OperationalError
from m2mdb.pager.io_errors import io_error, os_error
from m2mdb.pager.sim_disk import DiskState, Operation
from m2mdb.pager.sim_file import DEVICE, SimFile, SimSharedMemory
from m2mdb.pager.sim_images import Image
from m2mdb.pager.sim_machine import CHANGES, EPOCH, TICK, Call, Fault, Machine
from m2mdb.pager.vfs import Identity


class SimVfs:
    """One process of a simulated machine."""

    def __init__(self, seed: int = 0, *, machine: Machine | None = None) -> None:
        self.name = "sim"
        self.machine = machine or Machine(seed, DiskState({}, {}), {})
        self.pid = next(self.machine.pids)

    # -- the machine: log, crashes, faults ---------------------------------------------------

    @property
    def log(self) -> list[Operation]:
        """Every I/O point so far."""
        return self.machine.timeline.log

    @property
    def io_points(self) -> int:
        """How many I/O points there are so far."""
        return len(self.machine.timeline.log)

    def crash_images(self, at: int, rng: Random, count: int = 10) -> list[SimImage]:
        """Disks that a power loss during I/O point `at` can leave; different from each other.

        `at` = `io_points` is a crash after the last one. A call that had returned before I/O
        point `at` began is complete in every image, as far as it was synced.
        """
        images = self.machine.timeline.crash_images(at, rng, count)
        return [SimImage(image, self.machine.seed) for image in images]

    def kill_image(self, at: int) -> SimVfs:
        """Another machine, on which all processes were killed just before I/O point `at`.

        The page cache, the shared memory and what is not durable stay as they were.
        """
        state = self.machine.timeline.state_at(at).copy()
        regions = dict(self.log[at].shared if at < self.io_points else self.machine.share())
        return SimVfs(machine=Machine(self.machine.seed + at + 1, state, regions))

    def process_crash(self) -> SimVfs:
        """Kill this process (-9) and start another: the page cache survives, locks do not."""
        self.machine.kill(self.pid)
        return self.fork_process()

    def fork_process(self) -> SimVfs:
        """Another process on the same machine, with locks of its own."""
        return SimVfs(machine=self.machine)

    def fail(
        self,
        operation: str,
        *,
        at_call: int = 1,
        error: int = errno.EIO,
        once: bool = True,
        path_end: str = "",
    ) -> Fault:
        """Let the `at_call`-th call from now fail; with `once` False all later ones too.

        `operation` is a kind of call (write sync read lock allocate truncate create open unlink
        rename sync_dir share map), several of them, or `change` for all that change the disk.
        """
        names = operation.split()
        kinds = CHANGES | {"sync_dir"} if operation == "change" else frozenset(names)
        fault = Fault(kinds, at_call, error)
        fault.once = once
        fault.path_end = path_end
        self.machine.faults.append(fault)
        return fault

    def kill_at_call(self, at_call: int, operation: str = "change") -> Fault:
        """Kill this process just before its `at_call`-th such call from now."""
        fault = self.fail(operation, at_call=at_call)
        fault.error = None
        fault.process = self.pid
        return fault

    def clear_faults(self) -> None:
        """Let every call succeed again."""
        self.machine.faults.clear()

    @property
    def on_call(self) -> Callable[[Call], None] | None:
        """A hook that sees each call of every process before it is done."""
        return self.machine.on_call

    @on_call.setter
    def on_call(self, hook: Callable[[Call], None] | None) -> None:
        self.machine.on_call = hook

    on_io = on_call

    @property
    def disk_size(self) -> int | None:
        """Bytes that all files may take together; None is no limit."""
        return self.machine.disk_size

    @disk_size.setter
    def disk_size(self, size: int | None) -> None:
        self.machine.disk_size = size

    @property
    def failed_sync(self) -> str:
        """What a failing sync does to the pages that it covered.

        `some`    a random half reached the disk; all count as clean, readers see the new ones
        `none`    the same, but nothing reached the disk
        `revert`  nothing reached the disk, and readers see the old pages again
        `keep`    they stay pending: a later sync may bring them down
        """
        return self.machine.failed_sync

    @failed_sync.setter
    def failed_sync(self, mode: str) -> None:
        assert mode in ("some", "none", "revert", "keep"), mode
        self.machine.failed_sync = mode

    # -- Vfs ---------------------------------------------------------------------------------

    def _enter(self, kind: str, path: str, verb: str) -> None:
        number = self.machine.enter(kind, path, self.pid)
        if number:
            cause = os_error(number, path)
            raise io_error(cause, verb, path) from cause

    def open(self, path: str, *, create: bool = False, read_only: bool = False) -> SimFile:
        """Open a file; with `create` make it when absent."""
        machine = self.machine
        self._enter("open", path, "open")
        inode = machine.disk.names.get(path)
        if inode is None:
            if not create:
                cause = os_error(errno.ENOENT, path)
                raise io_error(cause, "open", path) from cause
            inode = self._create(path)
        return SimFile(machine, self.pid, path, inode, read_only=read_only)

    def _create(self, path: str) -> int:
        self._enter("create", path, "create")
        # The hook may have let another process create it.
        inode = self.machine.disk.names.get(path)
        if inode is None:
            inode = next(self.machine.numbers)
            self.machine.log(Operation("create", path, self.pid, inode))
        return inode

    def exists(self, path: str) -> bool:
        """Whether the path names a file."""
        self._enter("exists", path, "look at")
        return path in self.machine.disk.names

    def size(self, path: str) -> int:
        """Bytes in the file that the path names."""
        self._enter("size", path, "measure")
        inode = self.machine.disk.names.get(path)
        if inode is None:
            cause = os_error(errno.ENOENT, path)
            raise io_error(cause, "measure", path) from cause
        region = self.machine.regions.get(inode)
        return self.machine.disk.files[inode].size if region is None else len(region)

    def identity(self, path: str) -> Identity | None:
        """The file that the path names now, or None."""
        self._enter("identity", path, "look at")
        inode = self.machine.disk.names.get(path)
        return None if inode is None else Identity(DEVICE, inode, 1)

    def unlink(self, path: str) -> None:
        """Remove the name; absent is no error."""
        self._enter("unlink", path, "remove")
        if path in self.machine.disk.names:
            self.machine.log(Operation("unlink", path, self.pid))

    def resolve(self, path: str) -> str:
        """The path: the simulated disk has files only."""
        return path

    def rename(self, source: str, target: str, *, replace: bool = True) -> None:
        """Give the file another name, replacing `target`, or with `replace` false raising."""
        self._enter("rename", source, "rename")
        if source not in self.machine.disk.names:
            cause = os_error(errno.ENOENT, source)
            raise io_error(cause, "rename", source) from cause
        if not replace and target in self.machine.disk.names:
            cause = os_error(errno.EEXIST, target)
            raise io_error(cause, f"rename {source} to", target) from cause
        inode = self.machine.disk.names[source]
        operation = Operation("rename", source, self.pid, inode, target=target)
        self.machine.log(operation)

    def sync_dir(self, path: str) -> None:
        """Make durable the names in the folder that holds `path`."""
        self._enter("sync_dir", path, "sync the folder of")
        self.machine.log(Operation("sync_dir", path, self.pid))

    def shared_memory(self, path: str, size: int, *, create: bool) -> SimSharedMemory | None:
        """The region behind `path`, zero-filled when new; None when absent and not `create`."""
        self._enter("share", path, "share memory by")
        inode = self.machine.disk.names.get(path)
        if inode is None:
            if not create:
                return None
            inode = self._create(path)
        region = self.machine.regions.get(inode)
        if region is None:
            old = self.machine.disk.files[inode].read(0, size)
            region = self.machine.regions[inode] = bytearray(old + bytes(size - len(old)))
        if len(region) < size:
            raise OperationalError(
                f"cannot share memory by {path}: {len(region)} bytes, not {size}"
            )
        return SimSharedMemory(self.machine, self.pid, region)

    def scratch(self, path: str, size: int) -> memoryview:
        """So many writable zero bytes, of which a crash leaves nothing."""
        return memoryview(bytearray(size))

    def resident_bytes(self) -> int | None:
        """Nobody says."""
        return None

    def is_network(self, path: str) -> bool:
        """Never."""
        return False

    def process_id(self) -> int:
        """The simulated process."""
        return self.pid

    def now(self) -> float:
        """The simulated clock, seconds since 1970."""
        return EPOCH + self.machine.clock

    def monotonic(self) -> float:
        """The simulated clock; each look takes some of it."""
        self.machine.clock += TICK
        return self.machine.clock

    def sleep(self, seconds: float) -> None:
        """Advance the clock; other processes may run meanwhile, by `on_call`."""
        self.machine.enter("sleep", "", self.pid)
        self.machine.clock += seconds

    def random(self, size: int) -> bytes:
        """Bytes from the seed."""
        return self.machine.rng.randbytes(size)


class SimImage:
    """A disk after a crash; `vfs` starts a machine on it, as often as wanted."""

    __slots__ = ("_image", "_seed", "label", "point")

    def __init__(self, image: Image, seed: int) -> None:
        self._image = image
        self._seed = seed
        self.point = image.point
        self.label = image.label

    def vfs(self) -> SimVfs:
        """A fresh machine with this disk: no locks, no shared memory, nothing pending."""
        image = self._image
        seed = self._seed * 1_000_003 + self.point + 1
        return SimVfs(machine=Machine(seed, image.state(), image.regions))

    def __repr__(self) -> str:
        return f"<SimImage at I/O point {self.point}: {self.label}>"
