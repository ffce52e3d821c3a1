"""AS OF and PRAGMA keep_commits against a list of snapshots, seed by seed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.past.campaign import campaign
from tests.past.history import History, small_thresholds


@pytest.fixture(autouse=True)
def thresholds() -> Iterator[None]:
    with small_thresholds():
        yield


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("keep", [0, 3, 14, 1000])
def test_s25_every_kept_commit_reads_as_it_stood(seed: int, keep: int) -> None:
    key = "INTEGER PRIMARY KEY" if seed % 3 == 2 else "TEXT PRIMARY KEY"
    history = History(seed * 10 + keep, keep=keep, key=key)

    for step in range(30):
        history.step()
        if step % 6 == 5:
            history.check()
    history.database.close()


def test_the_campaign_counts_what_it_compares() -> None:
    counts = campaign(0.01, 5)

    assert counts["as_of_histories"] == 1
    assert counts["as_of_commits"] >= 10
