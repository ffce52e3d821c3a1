"""The real system calls: short reads and writes, interrupted and failing ones, under a workload.

The simulator keeps the contract of a Vfs; here it is kept by `OsVfs` over a system that does not
make it easy.
"""

from __future__ import annotations

import errno
import gc
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

import m2mdb.pager.os_platform as platform
import m2mdb.pager.os_vfs as module
from m2mdb.pager.errors import Error
from m2mdb.pager.os_vfs import OsVfs
from m2mdb.wal.store import Store, StoreOptions
from tests.sim.store_runs import Changes, Found, change, check, contents, value

pytestmark = pytest.mark.usefixtures("only_own_garbage")

COMMITS: list[Changes] = [
    {b"a": b"1", b"long": value(1, 9000)},
    {b"k%02d" % i: value(i, 700) for i in range(12)},
    {b"x": value(2, 40_000)},
    {b"k%02d" % i: None for i in range(0, 12, 2)},
    {b"x": value(3, 25_000), b"long": None},
]
CALLS: list[tuple[Any, str]] = [  # that OsVfs makes, and where it finds them
    (module, "_pread"),
    (module, "_pwrite"),
    (os, "fdatasync"),
    (os, "posix_fallocate"),
    (platform, "_fcntl"),
    (os, "ftruncate"),
    (os, "fsync"),
    (os, "unlink"),
]


def open_store(path: Path) -> Store:
    return Store.open(OsVfs(), str(path), StoreOptions(create=True, timeout=0.0))


def states() -> list[Found]:
    """After each commit, from none on."""
    model: dict[bytes, bytes] = {}
    found: list[Found] = [frozenset()]
    for changes in COMMITS:
        for key, text in changes.items():
            if text is None:
                model.pop(key)
            else:
                model[key] = text
        found.append(frozenset(model.items()))
    return found


def work(path: Path, done: list[int]) -> None:
    """All commits; `done` counts those that were acknowledged."""
    store = open_store(path)
    for changes in COMMITS:
        transaction = store.begin_write()
        change(transaction, dict(changes))
        transaction.commit_now()
        done.append(1)
        if len(done) == 3:
            store.checkpoint("restart")
        if len(done) == 4:
            store.close()
            store = open_store(path)
    store.close()


def test_short_reads_and_writes_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = Random(1)

    def less(size: int) -> int:
        return rng.choice((size, rng.randint(1, size))) if size else 0

    monkeypatch.setattr(module, "_pread", lambda fd, size, at: os.pread(fd, less(size), at))
    monkeypatch.setattr(
        module, "_pwrite", lambda fd, data, at: os.pwrite(fd, bytes(data)[: less(len(data))], at)
    )
    monkeypatch.setattr(
        module,
        "_preadv",
        lambda fd, parts, at: os.preadv(fd, [parts[0].cast("B")[: less(parts[0].nbytes)]], at),
    )
    for name in range(5):
        work(tmp_path / f"{name}.m2m", [])
        store = open_store(tmp_path / f"{name}.m2m")
        assert contents(store) == states()[-1]
        check(store)
        store.close()


class Failing:
    """A system call that fails at its n-th use, once or from then on."""

    def __init__(self, real: Callable[..., Any], at: int, error: int, *, once: bool) -> None:
        self.real = real
        self.left = at
        self.error = error
        self.once = once

    def __call__(self, *given: Any, **named: Any) -> Any:
        self.left -= 1
        if self.left == 0 or (self.left < 0 and not self.once):
            raise OSError(self.error, os.strerror(self.error))
        return self.real(*given, **named)


@pytest.mark.parametrize(("where", "name"), CALLS, ids=[name for _, name in CALLS])
def test_only_errors_of_pep_249_leave_and_nothing_acknowledged_is_lost(
    where: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S11, V5: at some of the calls of each kind, once and for ever."""
    rng = Random(name)
    real = getattr(where, name)
    counter = Failing(real, -1, 0, once=True)
    monkeypatch.setattr(where, name, counter)
    work(tmp_path / "whole.m2m", [])
    calls = -1 - counter.left
    assert calls > 0
    for round_number in range(6):
        path = tmp_path / f"{round_number}.m2m"
        at, once = rng.randint(1, calls), round_number % 2 == 0
        error = (errno.EIO, errno.EINTR, errno.ENOSPC)[round_number // 2]
        monkeypatch.setattr(where, name, Failing(real, at, error, once=once))
        done: list[int] = []
        try:
            work(path, done)
        except Error as problem:
            del problem
        monkeypatch.setattr(where, name, real)
        gc.collect()  # the store dies without a close
        store = open_store(path)
        found = contents(store)
        allowed = states()[len(done) : len(done) + 2]
        assert found in allowed, f"{name} {at} of {calls}, {errno.errorcode[error]}, once {once}"
        check(store)
        transaction = store.begin_write()
        change(transaction, {b"more": b"1"})
        transaction.commit_now()
        store.close()
        assert sorted(each.name for each in tmp_path.glob(f"{round_number}.m2m*")) == [path.name]
