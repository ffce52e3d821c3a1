"""The witness: what was promised in a run of several processes, and whether it was kept.

Every commit's whole content is written down before it is asked for; a read must show exactly the
content of its commit, of one not older than the newest that was acknowledged before it began, and
not older than what its process has read before. After the run one more connection finds the newest
acknowledged commit, sound trees, no page with two uses, no lock and no sidecar left; and a power
loss at any moment leaves a commit that was then acknowledged, or a later one that was asked for.
"""

from __future__ import annotations

from random import Random
from typing import Any

from m2mdb.pager.btree import BTree
from m2mdb.pager.extent import Extent, ExtentDescriptor
from m2mdb.pager.sim_vfs import SimVfs
from m2mdb.wal.snapshot import Snapshot
from m2mdb.wal.store import Store, StoreOptions
from m2mdb.wal.transaction import Transaction
from tests.sim.scheduler import Process, Scheduler
from tests.sim.steps import step_of
from tests.sim.store_runs import PATH, TREE_ROOT, Changes, change, check, contents

FOREVER = 1e9  # seconds: who waits, waits

Rows = dict[bytes, bytes]


def open_store(vfs: SimVfs, **options: Any) -> Store:
    """A store whose waits have no end."""
    options.setdefault("timeout", FOREVER)
    options.setdefault("wal_autocheckpoint", 0)
    options.setdefault("cache_bytes", 1 << 20)
    return Store.open(vfs, PATH, StoreOptions(**options))


def filled(seed: int, size: int) -> bytes:
    """A value that shows whose it is in each of its eight bytes."""
    return (b"%07d " % (seed % 10_000_000)) * (size // 8)


class Witness:
    """What the processes of one run were promised."""

    def __init__(self, rows: Rows, commit: int) -> None:
        """Of a database that holds `rows` as of `commit`, durably."""
        self.asked: dict[int, list[Rows]] = {commit: [rows]}  # contents that a commit may have
        self.ever: dict[int, list[Rows]] = {commit: [rows]}  # the same, as of any moment
        self.newest = commit  # acknowledged
        self.doubtful = False  # a failed sync or a death left the outcome of a commit unknown
        self.scheduler: Scheduler | None = None
        self._asked_at: list[tuple[int, int]] = [(0, commit)]  # I/O point, commit
        self._promised_at: list[tuple[int, int]] = [(0, commit)]

    def fork(self) -> Witness:
        """What was promised up to now, for another machine with the same disk."""
        other = Witness({}, self.newest)
        other.asked = {commit: rows.copy() for commit, rows in self.asked.items()}
        other.ever = {commit: rows.copy() for commit, rows in self.ever.items()}
        other.doubtful = self.doubtful
        other._asked_at = [(0, max(self.asked))]
        return other

    def _now(self) -> int:
        assert self.scheduler is not None
        return len(self.scheduler.machine.timeline.log)

    # -- what processes do -----------------------------------------------------------------------

    def commit(self, store: Store, changes: Changes, *, durable: bool = True) -> int:
        """One transaction on the newest commit, with the count of commits raised by one."""
        floor = self.newest
        transaction = store.begin_write()
        assert transaction.commit >= floor, f"began at {transaction.commit}, {floor} was promised"
        return self.finish(transaction, changes, durable=durable)

    def finish(self, transaction: Transaction, changes: Changes, *, durable: bool = True) -> int:
        """Change, and commit, a transaction that was begun."""
        rows = rows_of(transaction)
        self._judge(transaction.commit, rows, "a transaction")
        number = transaction.new_commit
        after = dict(rows)
        changes = {**changes, b"count": b"%d" % (int(rows[b"count"]) + 1)}
        for key, value in changes.items():
            if value is None:
                after.pop(key, None)
            else:
                after[key] = value
        change(transaction, changes)
        assert self.doubtful or number not in self.asked, f"commit {number} is asked for twice"
        self.asked.setdefault(number, []).append(after)
        self.ever.setdefault(number, []).append(after)
        self._asked_at.append((self._now(), number))
        assert transaction.commit_now() == number
        self.asked[number] = [after]
        self.newest = max(self.newest, number)
        if durable:
            self._promised_at.append((self._now(), number))
        return number

    def read(self, store: Store, process: Process | None = None, floor: int = 0) -> int:
        """One snapshot, read whole; then, while it is open, once more. Returns its commit."""
        floor = max(floor, self.newest)
        snapshot = store.begin_read()
        assert snapshot.commit >= floor, f"read {snapshot.commit}, {floor} was promised"
        self.look(snapshot, process)
        snapshot.close()
        return snapshot.commit

    def look(self, snapshot: Snapshot, process: Process | None = None) -> None:
        """All that a snapshot shows, and its extents again after others may have gone on."""
        extents: dict[bytes, Extent] = {}
        rows = rows_of(snapshot, extents)
        self._judge(snapshot.commit, rows, "a snapshot")
        for key, extent in extents.items():
            if process is not None:
                see(process, extent)
            found = bytes(extent.view(0, extent.size))
            assert found == rows[key], f"{key!r} has changed under a snapshot"
        if process is not None:
            assert rows_of(snapshot) == rows

    def _judge(self, commit: int, rows: Rows, what: str) -> None:
        _judge(self.asked, commit, rows, what)

    # -- afterwards ------------------------------------------------------------------------------

    def settle(self, *, clean: bool = True) -> None:
        """All processes have ended: nothing is lost, nothing is left."""
        scheduler = self.scheduler
        assert scheduler is not None
        machine = scheduler.machine
        face = scheduler.face()
        for number, table in machine.locks.items():
            assert not table.held(), f"locks of file {number} are left: {table.held()}"
        if clean:
            assert not face.exists(PATH + "-wal"), "the log is left"
            assert not face.exists(PATH + "-shm"), "the shared state is left"
        self.recovered(face, self.newest, max(self.asked), self.asked)

    def recovered(
        self,
        face: SimVfs,
        oldest: int,
        newest: int,
        contents_of: dict[int, list[Rows]],
        *,
        more: bool = False,
    ) -> None:
        """Open, and find a commit of a range, whole and sound; then commit once more."""
        store = open_store(face)
        commit = store.last_commit
        assert oldest <= commit <= newest, f"found {commit}, promised {oldest} to {newest}"
        snapshot = store.begin_read()
        _judge(contents_of, commit, rows_of(snapshot), "what is left")
        snapshot.close()
        check(store)
        if more:
            transaction = store.begin_write()
            change(transaction, {b"more": filled(commit, 800)})
            transaction.commit_now()
            check(store)
            found = dict(contents(store))
            assert found.pop(b"more") == filled(commit, 800)
        store.close()

    def crash(self, rng: Random, images: int = 2) -> int:
        """Lose power at a moment drawn, or after the end; returns how many disks were looked at."""
        return self.crash_at(rng.randint(0, self._now()), images, rng)

    def crash_at(self, at: int, images: int, rng: Random | None = None) -> int:
        """Lose power at an I/O point; returns how many disks were looked at."""
        scheduler = self.scheduler
        assert scheduler is not None
        oldest = max(commit for point, commit in self._promised_at if point <= at)
        newest = max(commit for point, commit in self._asked_at if point <= at)
        allowed = {
            commit: self.asked[commit] if commit <= oldest else rows
            for commit, rows in self.ever.items()
        }
        found = scheduler.face().crash_images(at, rng or Random(at), images)
        for image in found:
            try:
                self.recovered(image.vfs(), oldest, newest, allowed, more=True)
            except Exception as error:
                raise AssertionError(f"{image}: {error!r}") from error
        return len(found)


def _judge(contents_of: dict[int, list[Rows]], commit: int, rows: Rows, what: str) -> None:
    assert commit in contents_of, f"{what} of commit {commit}, that nobody has made"
    if rows not in contents_of[commit]:
        wanted = contents_of[commit][0]
        wrong = [key for key in rows.keys() | wanted if rows.get(key) != wanted.get(key)]
        raise AssertionError(f"{what} of commit {commit} shows other {sorted(wrong)}")


def rows_of(pages: Snapshot | Transaction, extents: dict[bytes, Extent] | None = None) -> Rows:
    """All rows, those in extents read and verified."""
    rows = {}
    for key, text in BTree(pages, TREE_ROOT).scan():
        if text[:1] == b"x":
            descriptor = ExtentDescriptor.decode(text[1:])
            extent = pages.extent(descriptor)
            rows[key] = extent.read(0, descriptor.size)
            if extents is not None:
                extents[key] = extent
        else:
            rows[key] = text[1:]
    return rows


def see(process: Process, extent: Extent) -> None:
    """A step at which the process reads an extent's pages through the map."""
    if process.is_scheduled:
        offset = (extent.descriptor.start_page - 1) * 4096
        step = step_of("read", PATH, offset, extent.size, grows=False)
        process.scheduler.point(process, step)
