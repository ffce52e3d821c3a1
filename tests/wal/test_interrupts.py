"""Interrupts outside commits: nothing stays locked, and nothing is lost (S12, ST3)."""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import partial

import pytest

from m2mdb.pager.sim_vfs import SimVfs
from m2mdb.wal.store import Store
from tests.sim.history import ROUNDS
from tests.wal.conftest import Place, put, read, simulated
from tests.wal.interrupts import interrupted

pytestmark = pytest.mark.usefixtures("only_own_garbage")


def read_once(store: Store) -> None:
    store.begin_read().close()


def write_nothing(store: Store) -> None:
    store.begin_write().rollback()


STEP = max(1, 7 // ROUNDS)  # lines or bytecodes from one interrupt to the next

ACTIONS: dict[str, Callable[[Store], object]] = {
    "read": read_once,
    "write": write_nothing,
    "passive": lambda store: store.checkpoint("passive"),
    "full": lambda store: store.checkpoint("full"),
    "restart": lambda store: store.checkpoint("restart"),
    "truncate": lambda store: store.checkpoint("truncate"),
    "figures": lambda store: store.stats(),
}


@pytest.mark.parametrize(
    ("action", "opcodes"),
    [*((name, False) for name in sorted(ACTIONS)), ("read", True), ("write", True)],
)
def test_an_interrupted_call_leaves_nothing_locked(action: str, opcodes: bool) -> None:
    """S12: at the store's next use whatever was left is given up."""
    at, step = 1, STEP
    while True:
        place = Place(SimVfs(5), "d/notes.m2m")
        store, other = place.open(wal_autocheckpoint=0), place.open()
        put(store, a="1", b="2")
        if at % 2:
            put(other, c="3")
        expected = read(other)
        struck = interrupted(partial(ACTIONS[action], store), at, opcodes=opcodes)
        gc.collect()
        if not struck:
            break
        where = f"{at}: {struck}"
        assert read(store) == expected, where
        store.stats()
        assert other.checkpoint("restart")[0] == 0, where
        put(other, d="4")
        put(store, e="5")
        expected.update(d="4", e="5")
        assert read(store) == read(other) == expected, where
        again = place.open(simulated(place.vfs).process_crash())
        assert read(again) == expected, where
        at += step


@pytest.mark.parametrize("opcodes", [False, True])
def test_an_interrupted_open_or_close_loses_nothing(opcodes: bool) -> None:
    """S12, S4"""
    at, step = 1, 5 * STEP if opcodes else STEP
    finished = 0
    while finished < 2:
        finished = 0
        place = Place(SimVfs(5), "d/notes.m2m")
        face = place.vfs
        assert isinstance(face, SimVfs)
        store = place.open()
        put(store, a="1")
        if at % 2:
            face = face.process_crash()
            store = place.open(face)
        finished += not interrupted(store.close, at, opcodes=opcodes)
        if at % 3:
            face = face.process_crash()
        finished += not interrupted(partial(place.open, face), at, opcodes=opcodes)
        gc.collect()
        again = place.open(face.process_crash())
        assert read(again) == {"a": "1"}, at
        put(again, b="2")
        again.close()
        at += step
