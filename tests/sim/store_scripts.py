"""More workloads on a Store: several processes, dead writers, refused commits, and random ones.

Beside `store_runs.SCRIPTS`, which one process runs from start to end, these have what only several
processes or a failing disk bring about: checkpoints that a reader holds back, frames that a dead
writer left behind the end, a commit that was taken back.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable
from random import Random

from m2mdb.pager.errors import OperationalError
from m2mdb.pager.sim_machine import ProcessKilledError
from m2mdb.wal.store import Store
from tests.sim.store_runs import SCRIPTS, Changes, StoreRun, change, open_store, value

Script = Callable[[StoreRun], None]


def readers(run: StoreRun) -> None:
    """Checkpoints held back by a snapshot of another process; pages that it keeps from reuse."""
    other = open_store(run.vfs.fork_process(), **run.options)
    run.commit({b"e1": value(1, 30_000), b"a": b"1"})
    old = other.begin_read()
    run.commit({b"e1": None, b"a": b"2"})
    run.store.checkpoint("passive")
    run.commit({b"e2": value(2, 30_000)})
    old.close()
    run.checkpoint("passive")
    reader = other.begin_read()
    run.commit({b"e3": value(3, 25_000), b"a": value(4, 5000)})
    reader.close()
    run.checkpoint("restart")
    other.close()
    run.commit({b"e2": None, b"a": b"3"})
    run.reopen()


def dead_writer(run: StoreRun) -> None:
    """A writer dies between its frames and their publication; the next one goes on (S8)."""
    run.commit({b"e1": value(1, 30_000), b"a": b"1"})
    run.commit({b"e1": None})
    run.checkpoint("passive")
    run.commit({b"a": b"2"})
    for number in range(2):
        _die_in_commit(run, {b"a": b"dead", b"b%d" % number: value(number, 3000)})
        run.commit({b"e%d" % number: value(5 + number, 25_000)})
    _die_in_commit(run, {b"a": b"dead too"})
    run.store.begin_write().rollback()
    run.history.abandon()
    run.checkpoint("truncate")
    run.commit({b"a": b"3"})


def _die_in_commit(run: StoreRun, changes: Changes) -> None:
    victim = run.vfs.fork_process()
    store = open_store(victim, **run.options)
    transaction = store.begin_write()
    change(transaction, changes)
    after = dict(run.model)
    after.update({key: text for key, text in changes.items() if text is not None})
    run.history.begin(frozenset(after.items()))
    doom = victim.kill_at_call(1, "sync")
    doom.path_end = "-wal"
    try:
        transaction.commit_now()
    except (ProcessKilledError, ValueError):
        return  # ValueError: the dead process's shared memory is gone under its handlers
    run.model = after  # without a sync at commit nothing kills it
    run.history.acknowledge(durable=run.durable)
    run.vfs.machine.faults.remove(doom)
    store.close()


def refused(run: StoreRun) -> None:
    """Commits whose write fails, wholly or in part, are taken back and do not come back (S8)."""
    run.commit({b"a": b"1", b"e1": value(1, 25_000)})
    for number in range(4):
        fault = run.vfs.fail("write", error=errno.ENOSPC if number % 2 else errno.EIO)
        fault.path_end = "-wal"
        with contextlib.suppress(OperationalError):
            run.commit({b"a": b"refused", b"long": value(number, 9000)})
        run.vfs.machine.faults.remove(fault)
        run.commit({b"after%d" % number: value(number, 400), b"e1": value(number, 25_000)})
    run.checkpoint("full")


def small_log(run: StoreRun) -> None:
    """Automatic checkpoints and resets: the log begins anew every few commits."""
    run.store.wal_autocheckpoint = 3
    for number in range(7):
        run.commit({b"k%d" % (number % 3): value(number, 700), b"e": value(number, 22_000)})
        run.commit({b"k%d" % (number % 2): None})


def freed_pages(run: StoreRun) -> None:
    """Pages of extents and of trees are freed, and soon wanted by an extent (S9)."""
    run.commit({b"e1": value(1, 30_000)})
    run.checkpoint("restart")
    run.commit({b"e1": None})
    run.commit({b"e2": value(2, 30_000)})
    run.commit({b"k%03d" % i: value(i, 900) for i in range(60)})
    run.commit({b"k%03d" % i: None for i in range(60)})
    run.commit({b"e3": value(3, 40_000)})
    run.commit({b"e2": None, b"e3": None})
    run.commit({b"e4": value(4, 60_000)})


def random_script(seed: int) -> Script:
    """A workload drawn from a seed: two processes that commit, undo, checkpoint and reopen."""

    def script(run: StoreRun) -> None:
        rng = Random(seed)
        stores = [run.store, open_store(run.vfs.fork_process(), **run.options)]
        for _ in range(rng.randint(4, 12)):
            run.store = rng.choice(stores)
            kind = rng.random()
            if kind < 0.6:
                run.commit(_random_changes(run, rng))
            elif kind < 0.75:
                _random_transaction(run, rng)
            elif kind < 0.95:
                mode = rng.choice(("passive", "full", "restart", "truncate"))
                run.checkpoint(mode)
            else:
                stores = _reopened(run, stores, rng)
        for store in stores:
            store.close()

    return script


def _reopened(run: StoreRun, stores: list[Store], rng: Random) -> list[Store]:
    for store in rng.sample(stores, 2):
        store.close()
    run.closed()
    faces = [run.vfs, run.vfs.fork_process()]
    return [open_store(face, **run.options) for face in faces]


def _random_changes(run: StoreRun, rng: Random) -> Changes:
    changes: Changes = {}
    for _ in range(rng.choice((1, 1, 2, 5, 25))):
        key = b"r%02d" % rng.randrange(30)
        size = rng.choice((0, 20, 300, 2000))
        changes[key] = None if not size else value(rng.randrange(1000), size)
    if rng.random() < 0.4:
        size = rng.choice((21_000, 40_000, 70_000))
        changes[b"x%d" % rng.randrange(3)] = value(rng.randrange(1000), size)
    if rng.random() < 0.2:
        changes[b"x%d" % rng.randrange(3)] = None
    changes[b"count"] = b"%d" % len(run.history.states)  # every commit changes something
    return changes


def _random_transaction(run: StoreRun, rng: Random) -> None:
    """Statements, some of them undone, under savepoints; committed or not (S12, S14)."""
    transaction = run.store.begin_write()
    run.history.abandon()
    kept: Changes = {}
    outer = transaction.savepoint()
    for _ in range(rng.randint(1, 4)):
        changes = _random_changes(run, rng)
        token = transaction.begin_statement()
        change(transaction, changes)
        if rng.random() < 0.4:
            transaction.undo_statement(token)
        else:
            transaction.end_statement(token)
            kept.update(changes)
    if rng.random() < 0.3:
        transaction.rollback_to(outer)
        kept = {b"count": b"back to the savepoint %d" % len(run.history.states)}
        change(transaction, kept)
    transaction.release(outer)
    if rng.random() < 0.3:
        transaction.rollback()
    else:
        run.finish(transaction, kept)


STORE_SCRIPTS: dict[str, Script] = {
    **SCRIPTS,
    "readers": readers,
    "dead_writer": dead_writer,
    "refused": refused,
    "small_log": small_log,
    "freed_pages": freed_pages,
}
