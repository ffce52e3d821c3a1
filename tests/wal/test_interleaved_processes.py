"""Processes on one file, interleaved at every call by a seed: nothing is lost, nothing is torn.

Writers move amounts between accounts and extents, readers hold snapshots over commits and
checkpoints, checkpointers run in every mode, connections come and go. At every snapshot the sum is
what it was, the commits ascend, and what a snapshot has shown once it shows to its end.
"""

from __future__ import annotations

import os
from functools import partial
from random import Random
from typing import Any

import pytest

from m2mdb.pager.btree import BTree
from m2mdb.pager.extent import ExtentDescriptor
from m2mdb.pager.sim_file import SimSharedMemory
from m2mdb.pager.sim_machine import Machine
from m2mdb.pager.sim_vfs import SimVfs
from m2mdb.wal.shared import LogEnd, SharedState
from m2mdb.wal.snapshot import Snapshot
from m2mdb.wal.store import Store, StoreOptions
from m2mdb.wal.transaction import Transaction
from tests.sim.interleave import Body, Interleaving
from tests.wal.conftest import TREE

PATH = "d/notes.m2m"
ACCOUNTS = 24
START = 100
SEEDS = 12 * int(os.environ.get("M2M_SIM_ROUNDS", "1"))


@pytest.fixture(autouse=True)
def switches_at_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let another process run, or this one die, before each step in shared memory too."""

    def step(shared: SharedState) -> None:
        memory = shared._memory
        assert isinstance(memory, SimSharedMemory)
        MACHINES[0].enter("shm", "", memory.process)

    for name in ("look", "publish_backfill", "set_mark", "mark_bytes", "used_slots"):
        original = getattr(SharedState, name)

        def stepping(self: SharedState, *given: Any, original: Any = original) -> Any:
            step(self)
            return original(self, *given)

        monkeypatch.setattr(SharedState, name, stepping)

    def publish(self: SharedState, end: LogEnd) -> None:
        before = self.look()[:64]
        step(self)
        publish_both(self, end)
        after = bytes(self.view[128:192])
        self.view[128:192] = before
        step(self)
        self.view[128:192] = after

    publish_both = SharedState.publish
    monkeypatch.setattr(SharedState, "publish", publish)


MACHINES: list[Machine] = []


def open_store(vfs: SimVfs, **options: Any) -> Store:
    return Store.open(vfs, PATH, StoreOptions(timeout=1e6, **options))


def prepare(vfs: SimVfs) -> None:
    store = open_store(vfs, create=True)
    transaction = store.begin_write()
    tree = BTree(transaction, TREE)
    for account in range(ACCOUNTS):
        tree.put(b"a%03d" % account, b"%d " % START + b"." * 300)
    transaction.commit_now()
    store.close()


def amount(row: bytes | None) -> int:
    assert row is not None
    return int(row.split()[0])


def move(transaction: Transaction, rng: Random) -> None:
    tree = BTree(transaction, TREE)
    source, target = rng.sample(range(ACCOUNTS), 2)
    for account, change in ((source, -1), (target, 1)):
        key = b"a%03d" % account
        tree.put(key, b"%d " % (amount(tree.get(key)) + change) + b"." * rng.randint(200, 700))


def replace_extent(transaction: Transaction, rng: Random) -> None:
    tree = BTree(transaction, TREE)
    key = b"x%d" % rng.randint(0, 2)
    old = tree.get(key)
    if old is not None:
        transaction.free_extent(ExtentDescriptor.decode(old))
    fill = bytes([transaction.new_commit % 256])
    size = rng.choice((3000, 9000, 70_000))
    tree.put(key, transaction.write_extent([fill * size], size).encode())


def check(snapshot: Snapshot) -> tuple[int, ...]:
    """The amounts, after a look at all that must hold."""
    amounts = []
    for key, row in BTree(snapshot, TREE).scan():
        if key[:1] == b"a":
            amounts.append(amount(row))
            continue
        descriptor = ExtentDescriptor.decode(row)
        content = snapshot.extent(descriptor).read(0, descriptor.size)
        assert content == bytes([descriptor.commit % 256]) * descriptor.size
    assert sum(amounts) == ACCOUNTS * START
    assert len(amounts) == ACCOUNTS
    return tuple(amounts)


def write(vfs: SimVfs, rng: Random, **options: Any) -> None:
    store = open_store(vfs, **options)
    for _ in range(10):
        transaction = store.begin_write()
        move(transaction, rng)
        if rng.random() < 0.5:
            replace_extent(transaction, rng)
        if rng.random() < 0.2:
            token = transaction.begin_statement()
            replace_extent(transaction, rng)
            BTree(transaction, TREE).put(b"a000", b"0")
            transaction.undo_statement(token)
        before = transaction.commit
        if rng.random() < 0.15:
            transaction.rollback()
        else:
            assert transaction.commit_now() == before + 1
        if rng.random() < 0.1:
            store.close()
            store = open_store(vfs, **options)
    store.close()


def look(vfs: SimVfs, rng: Random) -> None:
    store = open_store(vfs, read_only=rng.random() < 0.3)
    newest = 0
    for _ in range(8):
        snapshot = store.begin_read()
        assert snapshot.commit >= newest, "commits ascend"
        newest = snapshot.commit
        first = check(snapshot)
        later = store.begin_read() if rng.random() < 0.5 else None
        for _ in range(rng.randint(0, 6)):
            vfs.sleep(0.001)
        assert check(snapshot) == first, "a snapshot does not change"
        if later is not None:
            check(later)
            later.close()
        snapshot.close()
        if rng.random() < 0.2:
            store.close()
            store = open_store(vfs, read_only=rng.random() < 0.3)
    store.close()


def copy(vfs: SimVfs, rng: Random) -> None:
    store = open_store(vfs)
    for _ in range(6):
        store.timeout = rng.choice((0.0, 0.01))
        busy, _, _ = store.checkpoint(rng.choice(("passive", "full", "restart", "truncate")))
        assert busy in (0, 1)
        for _ in range(rng.randint(0, 4)):
            vfs.sleep(0.001)
    store.close()


def mortal(body: Body) -> Body:
    """What a killed process raises while it unwinds is no finding."""

    def live(face: SimVfs) -> None:
        try:
            body(face)
        except ValueError:
            if face.pid not in face.machine.dead:
                raise

    return live


def run(seed: int, *, deaths: bool = False, **options: Any) -> SimVfs:
    vfs = SimVfs(seed)
    MACHINES[:] = [vfs.machine]
    prepare(vfs)
    rng = Random(seed)
    interleaving = Interleaving(vfs, rng, stay=rng.choice((0.3, 0.7, 0.9, 0.97)))
    faces = []
    for number in range(2):
        body_rng, reader_rng = Random(seed * 31 + number), Random(seed * 37 + number)
        options["wal_autocheckpoint"] = body_rng.choice((0, 3, 8, 1000))
        faces.append(interleaving.add(mortal(partial(write, rng=body_rng, **options))))
        interleaving.add(mortal(partial(look, rng=reader_rng)))
    faces.append(interleaving.add(mortal(partial(copy, rng=Random(seed * 41)))))
    if deaths:
        for face in faces[1:]:
            face.kill_at_call(rng.randint(30, 600), "write sync lock read truncate unlink shm")
    interleaving.run()
    return vfs


def finish(vfs: SimVfs) -> None:
    """Look, reading only; write once more; close cleanly: one file is left."""
    face = vfs.fork_process()
    reader = open_store(face, read_only=True)
    store = open_store(face)
    for each in (reader, store):
        snapshot = each.begin_read()
        check(snapshot)
        snapshot.close()
    transaction = store.begin_write()
    move(transaction, Random(1))
    transaction.commit_now()
    reader.close()
    store.close()
    assert not face.exists(PATH + "-wal")
    assert not face.exists(PATH + "-shm")


@pytest.mark.parametrize("synchronous", ["full", "normal", "off"])
@pytest.mark.parametrize("seed", range(SEEDS))
def test_processes_keep_the_sum(seed: int, synchronous: str) -> None:
    vfs = run(seed, synchronous=synchronous)

    finish(vfs)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_processes_that_die_leave_nothing_half_done(seed: int) -> None:
    """S2, S8: marks of the dead are dead, and their unpublished commits do not come back."""
    vfs = run(1000 + seed, deaths=True, synchronous="full")

    finish(vfs)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_power_is_lost_while_processes_work(seed: int) -> None:
    """S3, S7, S10: whatever the disk has, it is some commit, whole."""
    vfs = run(2000 + seed, synchronous="full" if seed % 2 else "normal")
    rng = Random(seed)

    for _ in range(12):
        for image in vfs.crash_images(rng.randint(60, vfs.io_points), rng, 2):
            machine = image.vfs()
            MACHINES[:] = [machine.machine]
            finish(machine)
