"""Real processes, killed at random moments: every acknowledged commit is there (S3, S8, S12).

M2M_KILL_ROUNDS sets the number of kills (20).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from m2mdb.pager.os_vfs import OsVfs
from m2mdb.wal.store import Store, StoreOptions
from tests.kill.worker import check, write
from tests.sim.store_runs import FREE_ROOT, RUN
from tests.wal.conftest import TREE

ROUNDS = int(os.environ.get("M2M_KILL_ROUNDS", "20"))
SWALLOWED_AFTER = 300  # commits
WORKER = Path(__file__).with_name("worker.py")


@contextmanager
def worker(path: Path, synchronous: str, mode: str = "") -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, str(WORKER), str(path), synchronous, mode]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def next_line(process: subprocess.Popen[bytes]) -> bytes:
    """What the worker says next."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        process.wait()
        assert process.stderr is not None
        pytest.fail(process.stderr.read().decode())
    return line


def acknowledged(process: subprocess.Popen[bytes], count: int) -> list[int]:
    """The next `count` commits that the worker acknowledges."""
    return [int(next_line(process)) for _ in range(count)]


def interrupt(process: subprocess.Popen[bytes]) -> int:
    """Send a SIGINT and wait until it was taken; the newest commit by then, or 0.

    One that strikes in a finaliser is swallowed by the interpreter.
    """
    os.kill(process.pid, signal.SIGINT)
    newest = 0
    for _ in range(SWALLOWED_AFTER):
        line = next_line(process)
        if line == b"interrupted\n":
            break
        newest = int(line)
    return newest


def rest_of(process: subprocess.Popen[bytes]) -> list[int]:
    """What the dead worker had acknowledged and nobody had read."""
    assert process.stdout is not None
    lines = process.stdout.read().split(b"\n")
    return [int(line) for line in lines[:-1]]


def spin(rng: Random) -> None:
    """Some steps of nothing, so that the kill comes at any moment of a commit."""
    for _ in range(rng.randrange(20_000)):
        pass


def open_store(path: Path) -> Store:
    return Store.open(OsVfs(), str(path), StoreOptions(timeout=60))


def pages_are_whole(store: Store) -> None:
    """Trees are sound, and every page has one use at most."""
    from m2mdb.pager.btree import BTree
    from m2mdb.pager.extent import ExtentDescriptor

    snapshot = store.begin_read()
    faults: list[str] = []
    used: list[int] = [1]
    for root in (TREE, FREE_ROOT):
        tree = BTree(snapshot, root)
        tree.check(faults.append)
        used += tree.pages_used()
    raw = BTree(snapshot, TREE).get(b"extent")
    if raw is not None:
        extent = ExtentDescriptor.decode(raw)
        used += range(extent.start_page, extent.start_page + extent.page_count)
    for key, value in BTree(snapshot, FREE_ROOT).scan():
        start, length = RUN.unpack(key)[0], int.from_bytes(value[:4], "little")
        used += range(start, start + length)
    snapshot.close()
    assert faults == []
    assert sorted(used) == list(range(1, store.end.page_count + 1))


@pytest.mark.parametrize("synchronous", ["full", "off"])
def test_every_acknowledged_commit_survives_kill_9(tmp_path: Path, synchronous: str) -> None:
    path = tmp_path / "notes.m2m"
    rng = Random(1 if synchronous == "full" else 2)
    for number in range(max(1, ROUNDS // 2)):
        with worker(path, synchronous) as process:
            newest = acknowledged(process, rng.randint(1, 60))[-1]
            spin(rng)
            process.kill()
            newest = max([newest, *rest_of(process)])
        store = open_store(path)
        found = check(store)
        assert newest <= found <= newest + 1, (number, newest, found)
        pages_are_whole(store)
        if number % 3 == 0:
            write(store, found + 1)
        if number % 2:
            store.close()


def test_others_go_on_when_a_writer_is_killed(tmp_path: Path) -> None:
    """S8: a living connection sees what was acknowledged, and what was not does not come back."""
    path = tmp_path / "notes.m2m"
    rng = Random(3)
    store = Store.open(OsVfs(), str(path), StoreOptions(create=True, timeout=60))
    for _ in range(max(1, ROUNDS // 4)):
        with worker(path, "full") as process:
            newest = acknowledged(process, rng.randint(1, 40))[-1]
            assert check(store) >= newest, "the second process sees it"
            spin(rng)
            process.kill()
            newest = max([newest, *rest_of(process)])
        found = check(store)
        assert newest <= found <= newest + 1
        write(store, found + 1)
        assert check(store) == found + 1
    store.close()
    assert not (tmp_path / "notes.m2m-wal").exists()
    again = open_store(path)
    assert check(again) == found + 1
    pages_are_whole(again)
    again.close()


@pytest.mark.parametrize("synchronous", ["full", "off"])
def test_ctrl_c_in_the_midst_of_commits_loses_nothing(tmp_path: Path, synchronous: str) -> None:
    """S12"""
    path = tmp_path / "notes.m2m"
    rng = Random(4)
    with worker(path, synchronous, "interrupt") as process:
        newest = acknowledged(process, 3)[-1]
        for _ in range(3 * ROUNDS):
            interrupt(process)
            newest = acknowledged(process, rng.randint(1, 4))[-1]
            spin(rng)
        process.kill()
        newest = max([newest, *rest_of(process)])
    store = open_store(path)
    assert newest <= check(store) <= newest + 1
    pages_are_whole(store)
    store.close()
