"""Searches that leave no mark see what another process committed, and survive what it does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import m2mdb
from m2mdb.compute.loader import LOADER
from m2mdb.index.compiled import CompiledSearch
from tests.answers import noted_answers
from tests.processes.peers import Peer

DIMENSION, ROWS = 16, 3000


def test_s02_a_search_without_a_mark_sees_every_commit_of_another_process(
    tmp_path: Path, new_peer: Callable[..., Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert LOADER.wait(300), LOADER.error
    path = tmp_path / "notes.m2m"
    rows = np.random.default_rng(3).standard_normal((ROWS, DIMENSION)).astype(np.float32)
    con = m2mdb.connect(path, timeout=0)
    con.execute(f"CREATE TABLE notes (id INTEGER PRIMARY KEY, e VECTOR({DIMENSION}) METRIC l2)")
    con.collection("notes").add({"id": np.arange(ROWS), "e": rows})
    con.commit()
    con.execute("OPTIMIZE notes")
    con.commit()
    peer = new_peer(path)
    peer.run("import numpy as np; con = m2mdb.connect(path, timeout=0)")
    answered = noted_answers(monkeypatch, CompiledSearch)
    notes = con.collection("notes")
    for turn in range(12):
        query = rows[turn] + np.float32(0.001)
        lines = f"con.execute('UPDATE notes SET e = ? WHERE id = {turn}', (np.full({DIMENSION}, "
        peer.run(lines + f"{50 + turn}, np.float32),)); con.commit()")
        if turn % 4 == 3:  # what was searched before is freed, and written over
            peer.run("con.execute('OPTIMIZE notes'); con.commit(); con.execute('VACUUM')")
            peer.run("con.execute('CHECKPOINT truncate')")
        for _ in range(4):
            assert turn not in notes.search(near=query, k=5, probes=999, returning=[]).ids.tolist()
        far = np.full(DIMENSION, 50 + turn, np.float32)
        for _ in range(2):
            assert notes.search(near=far, k=1, probes=999, returning=[]).ids.tolist() == [turn]
    assert sum(answered) >= 20
    assert peer.run("answer = con.execute('CHECKPOINT restart').fetchone()[0]") == 0
    con.close()
