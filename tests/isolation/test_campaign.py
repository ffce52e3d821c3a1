"""A short round of the isolation campaign, and a database that does not isolate."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.isolation import clients
from tests.isolation.campaign import campaign
from tests.isolation.checker import Anomaly, check
from tests.isolation.history import load


def test_every_read_of_many_processes_is_the_state_at_one_commit() -> None:
    """S2, S10, S13: three seconds of the campaign."""
    assert campaign(3.0, 1)["isolation_operations"] > 100


def test_a_client_that_sees_what_was_not_committed_is_found(tmp_path: Path) -> None:
    """Two sessions on one connection: the second reads what the first will roll back."""
    path = tmp_path / "cells.m2m"
    clients.create(path)
    writer = clients.Session(path, tmp_path, "1.0", Random(1))
    reader = clients.Session(path, tmp_path, "2.0", Random(2))
    whole = reader.con
    writer.begin()
    writer.con.execute("BEGIN IMMEDIATE")
    writer.change("r0")

    reader.con = writer.con
    reader.begin()
    reader.look("r0")
    reader.end("read")

    writer.con.rollback()
    writer.end("aborted")
    reader.con = whole
    writer.close()
    reader.close()
    with pytest.raises(Anomaly, match="dirty read"):
        check(clients.INITIAL, load(tmp_path))
