"""Roles of a kill campaign: writers, readers and checkpointers over the public interface.

Each is a function that works until it is killed. What it finds wrong is an AssertionError, what
the database refuses is that error; either ends the process, and the driver with it.
"""

from __future__ import annotations

import time
from pathlib import Path
from random import Random
from typing import Literal

import m2mdb
from tests.kill import notes
from tests.kill.processes import Board

Synchronous = Literal["full", "normal", "off"]
TIMEOUT = 120.0  # seconds; a lock that outlives its dead holder would show as a busy error
CHECKPOINTS = ("passive", "full", "restart", "truncate")


class Workplace:
    """One database, the board beside it, and the models as of what the driver knows."""

    def __init__(self, path: Path, board: Board, seed: int, synchronous: Synchronous) -> None:
        self.path = path
        self.copies = path.parent / "copies"
        self.copies.mkdir()
        self.board = board
        self.seed = seed
        self.synchronous = synchronous
        self.states = [notes.State(seed, owner) for owner in range(board.owners)]

    def catch_up(self) -> None:
        """Bring the models to what is acknowledged."""
        for state, done in zip(self.states, self.board.acknowledged(), strict=True):
            state.advance(done)

    def connect(self, slot: int, *, read_only: bool = False) -> m2mdb.Connection:
        """A connection; refused is failed."""
        self.board.enter(slot, "opening")
        return m2mdb.connect(
            self.path,
            timeout=TIMEOUT,
            compute="numpy",
            synchronous=self.synchronous,
            read_only=read_only,
        )

    def found(self, con: m2mdb.Connection, owner: int) -> notes.State:
        """The model of what the database holds of an owner, which is all that was acknowledged."""
        acknowledged = self.board.acknowledged()[owner]
        done = notes.progress(con)[owner][0]
        assert acknowledged <= done <= acknowledged + 1, (
            f"owner {owner}: {acknowledged} operations acknowledged, {done} found"
        )
        state = self.states[owner].copy()
        state.advance(done)
        return state


def write(place: Workplace, slot: int, owner: int, rng: Random) -> None:
    """Commit one operation after the other, with everything else that a writer may do between."""
    board = place.board
    restless = rng.random() < 0.4  # opens and closes all the time
    con = _begin(place, slot, owner)
    state = place.found(con, owner)
    board.acknowledge(owner, state.done)  # by whoever died before it could say so
    if rng.random() < 0.3:
        board.enter(slot, "checking")
        notes.check_own(con, state)
    while True:
        board.enter(slot, "changing")
        con.execute("BEGIN IMMEDIATE")
        state.step(con)
        board.enter(slot, "committing")
        con.commit()
        board.acknowledge(owner, state.done)
        board.enter(slot, "between")
        if rng.random() < (0.5 if restless else 0.03):
            board.enter(slot, "closing")
            con.close()
            con = _begin(place, slot, owner)
        elif rng.random() < 0.2:
            _pass_time(con, place, slot, state, rng)


def _begin(place: Workplace, slot: int, owner: int) -> m2mdb.Connection:
    con = place.connect(slot)
    if not notes.is_there(con):
        place.board.enter(slot, "creating")
        notes.create(con, place.board.owners)
    return con


def _pass_time(
    con: m2mdb.Connection, place: Workplace, slot: int, state: notes.State, rng: Random
) -> None:
    """What leaves the rows as they are."""
    kind = rng.randrange(9)
    if kind == 0:
        place.board.enter(slot, "checkpointing")
        con.execute(f"PRAGMA wal_checkpoint({rng.choice(CHECKPOINTS)})").fetchall()
    elif kind == 1:
        place.board.enter(slot, "optimizing")
        con.execute("OPTIMIZE notes")
    elif kind == 2:
        place.board.enter(slot, "changing")
        con.execute("BEGIN IMMEDIATE")
        state.copy().step(con)
        con.rollback()
    elif kind == 3:
        con.execute(f"PRAGMA synchronous = {rng.choice(('full', 'normal', 'off'))}")
    elif kind == 4:
        _be_refused(con, state)
    elif kind == 5:
        place.board.enter(slot, "vacuuming")
        con.execute(rng.choice(("VACUUM", "PRAGMA incremental_vacuum(20)"))).fetchall()
    elif kind == 6:
        place.board.enter(slot, "copying")
        _copy(con, place, slot, state, rng)
    elif kind == 7:
        con.execute(f"PRAGMA secure_delete = {rng.randrange(2)}")
        con.execute(f"PRAGMA journal_size_limit = {rng.choice((-1, 0, 100_000))}")
        con.execute(f"PRAGMA wal_autocheckpoint = {rng.choice((5, 50, 1000))}")
    else:
        place.board.enter(slot, "reading")
        notes.check_own(con, state)


def _copy(
    con: m2mdb.Connection, place: Workplace, slot: int, state: notes.State, rng: Random
) -> None:
    """A copy made while others write is whole, or is not there."""
    path = place.copies / f"copy{slot}.m2m"
    path.unlink(missing_ok=True)
    if rng.random() < 0.5:
        con.execute("VACUUM INTO ?", (str(path),))
    else:
        con.backup(path)
    copy = m2mdb.connect(path, compute="numpy", timeout=TIMEOUT)
    notes.check_sums(copy, notes.progress(copy))
    notes.check_own(copy, state)
    copy.close()


def _be_refused(con: m2mdb.Connection, state: notes.State) -> None:
    """A statement that fails in its last row changes nothing."""
    if not state.rows:
        return
    key, version = next(iter(state.rows.items()))
    fresh = state.next_key
    try:
        con.collection("notes").add(
            {
                "id": [f"{state.owner}-{fresh}", f"{state.owner}-{fresh + 1}"],
                "owner": [state.owner] * 2,
                "tag": [f"t{state.owner}-{fresh}-0", f"t{state.owner}-{key}-{version}"],
            }
        )
    except m2mdb.IntegrityError:
        return
    raise AssertionError(f"owner {state.owner}: a second tag {key}-{version} was taken")


def read(place: Workplace, slot: int, rng: Random) -> None:
    """Every snapshot is whole, holds what was acknowledged before it, and none is older."""
    board = place.board
    con: m2mdb.Connection | None = None
    last = [0] * board.owners
    while True:
        if con is None:
            con = place.connect(slot, read_only=any(board.acknowledged()) and rng.random() < 0.5)
        board.enter(slot, "reading")
        before = board.acknowledged()
        con.execute("BEGIN")
        said = notes.progress(con)
        if said:
            after = board.acknowledged()
            for owner, (done, _, _) in said.items():
                least = max(before[owner], last[owner])
                assert least <= done <= after[owner] + 1, (owner, least, done, after[owner])
                last[owner] = done
            notes.check_sums(con, said)
            if rng.random() < 0.3:
                notes.check_past(con, rng)
            assert notes.progress(con) == said, "the snapshot changed"
        con.commit()
        if rng.random() < 0.1:
            board.enter(slot, "closing")
            con.close()
            con = None


def checkpoint(place: Workplace, slot: int, rng: Random) -> None:
    """Checkpoints of all modes, now waiting for long and now not."""
    con = place.connect(slot)
    while True:
        place.board.enter(slot, "checkpointing")
        con.execute(f"PRAGMA busy_timeout = {rng.choice((0, 5, 50))}")
        mode = rng.choice(CHECKPOINTS)
        busy, log, copied = con.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()[0]
        assert busy in (0, 1) and 0 <= copied <= log, (busy, log, copied)
        place.board.enter(slot, "between")
        time.sleep(rng.random() * 0.004)
        if rng.random() < 0.05:
            place.board.enter(slot, "closing")
            con.close()
            con = place.connect(slot)


def open_and_close(place: Workplace, slot: int) -> None:
    """Recover, look, leave whole; again and again."""
    while True:
        con = place.connect(slot)
        notes.progress(con)
        place.board.enter(slot, "closing")
        con.close()


def verify(place: Workplace, slot: int, rng: Random) -> None:
    """Everything that must hold when all others are dead."""
    con = place.connect(slot)
    place.board.enter(slot, "checking")
    if not notes.is_there(con):
        assert not any(place.board.acknowledged()), "what was acknowledged is gone"
        con.close()
        return
    states = [place.found(con, owner) for owner in range(place.board.owners)]
    notes.check_sums(con, notes.progress(con))
    for state in states:
        notes.check_own(con, state)
    notes.check_indexes(con, states, rng)
    notes.check_integrity(con)
    for state in states:  # one who wrote and died may still be acknowledged: it is there
        place.board.acknowledge(state.owner, state.done)
    if rng.random() < 0.7:
        place.board.enter(slot, "closing")
        con.close()
        beside = sorted(file.name for file in place.path.parent.glob(place.path.name + "*"))
        assert beside == [place.path.name], f"after the last close there are {beside}"
