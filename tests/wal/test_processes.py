"""Real processes at once: two writers, readers and a checkpointer keep a sum and its order."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from m2mdb.pager.btree import BTree
from m2mdb.pager.os_vfs import OsVfs
from m2mdb.wal.store import Store, StoreOptions
from tests.wal.conftest import TREE

ACCOUNTS = 50
START = 100
COMMITS = 120  # of each writer

PROGRAM = """
import sys
from random import Random
from tests.wal.test_processes import run
run(sys.argv[1], sys.argv[2], int(sys.argv[3]))
"""


def open_store(path: str, **options: Any) -> Store:
    return Store.open(OsVfs(), path, StoreOptions(timeout=60.0, **options))


def run(role: str, path: str, seed: int) -> None:
    """One process."""
    from random import Random

    store = open_store(path, wal_autocheckpoint=25)
    {"write": write, "read": look, "checkpoint": copy}[role](store, Random(seed))
    store.close()


def write(store: Store, rng: object) -> None:
    from random import Random

    assert isinstance(rng, Random)
    for _ in range(COMMITS):
        transaction = store.begin_write()
        tree = BTree(transaction, TREE)
        source, target = rng.sample(range(ACCOUNTS), 2)
        for account, change in ((source, -1), (target, 1)):
            key = b"a%03d" % account
            old = int((tree.get(key) or b"").rstrip(b"."))
            tree.put(key, b"%d" % (old + change) + b"." * rng.randint(0, 600))
        done = int(tree.get(b"done") or b"0")
        tree.put(b"done", b"%d" % (done + 1))
        transaction.commit_now()


def look(store: Store, rng: object) -> None:
    """Until all is done: the sum holds and the commits ascend."""
    commit, done = 0, 0
    while done < 2 * COMMITS:
        snapshot = store.begin_read()
        tree = BTree(snapshot, TREE)
        first = list(tree.scan())
        assert snapshot.commit >= commit
        commit = snapshot.commit
        amounts = [int(value.rstrip(b".")) for key, value in first if key[:1] == b"a"]
        assert sum(amounts) == ACCOUNTS * START
        done = int(tree.get(b"done") or b"0")
        assert list(tree.scan()) == first
        snapshot.close()


def copy(store: Store, rng: object) -> None:
    store.timeout = 0.01
    done = 0
    number = 0
    while done < 2 * COMMITS:
        store.checkpoint(("passive", "full", "restart", "truncate")[number % 4])
        number += 1
        snapshot = store.begin_read()
        done = int(BTree(snapshot, TREE).get(b"done") or b"0")
        snapshot.close()


def test_processes_at_once_keep_the_sum(tmp_path: Path) -> None:
    path = str(tmp_path / "notes.m2m")
    store = open_store(path, create=True)
    transaction = store.begin_write()
    for account in range(ACCOUNTS):
        BTree(transaction, TREE).put(b"a%03d" % account, b"%d" % START)
    transaction.commit_now()
    store.close()
    roles = ["write", "write", "read", "read", "checkpoint"]

    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, role, path, str(number)],
            cwd=Path(__file__).parent.parent.parent,
            stderr=subprocess.PIPE,
        )
        for number, role in enumerate(roles)
    ]
    errors = [process.communicate(timeout=120)[1].decode() for process in processes]

    assert errors == [""] * len(roles)
    store = open_store(path)
    assert store.last_commit == 1 + 2 * COMMITS
    look_at = store.begin_read()
    amounts = [
        int(value.rstrip(b".")) for key, value in BTree(look_at, TREE).scan() if key[:1] == b"a"
    ]
    assert sum(amounts) == ACCOUNTS * START
    look_at.close()
    store.close()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["notes.m2m"]
