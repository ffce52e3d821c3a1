"""Short rounds of the campaign: some points of every workload, some calls of every kind.

`M2M_SIM_ROUNDS` makes them longer; the long round is `python -m tests.reliability --only sim`.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.sim.campaign import campaign
from tests.sim.crash_explorer import Counts, Explorer, Level, StoreLevel
from tests.sim.database_runs import DATABASE_SCRIPTS, DatabaseLevel
from tests.sim.history import ROUNDS
from tests.sim.io_faults import ERRORS, Injector, injections
from tests.sim.store_scripts import STORE_SCRIPTS

LEVELS: dict[str, Level[Any]] = {"store": StoreLevel(), "database": DatabaseLevel()}
CASES = [("store", script, 11) for script in STORE_SCRIPTS]
CASES += [("database", script, 97) for script in DATABASE_SCRIPTS]
FAULT_CASES = [("store", script, 97) for script in STORE_SCRIPTS]
FAULT_CASES += [("database", script, 997) for script in ("statements", "checkpoints", "upkeep")]


@pytest.mark.parametrize("synchronous", ["full", "normal"])
@pytest.mark.parametrize(("level", "script", "step"), CASES)
def test_crashes_of_a_workload(level: str, script: str, step: int, synchronous: str) -> None:
    """S3, S4, S7, S8, S14: every acknowledged commit, no half transaction, no wrong index."""
    explorer = Explorer(LEVELS[level], images=8, double=0.03, one_everywhere=False)
    for _ in explorer.points(script, len(script), synchronous, step=max(1, step // ROUNDS)):
        pass
    assert explorer.counts.crash_images > 0


@pytest.mark.parametrize("synchronous", ["full", "normal"])
@pytest.mark.parametrize(("level", "script", "step"), FAULT_CASES)
def test_errors_at_calls_of_a_workload(
    level: str, script: str, step: int, synchronous: str
) -> None:
    """S11: only PEP 249 errors, nothing acknowledged is lost, failed syncs poison everybody."""
    injector = Injector(LEVELS[level])
    faults = list(injections(LEVELS[level], script, 1, synchronous))
    assert {fault.kind for fault in faults} <= set(ERRORS)
    for fault in faults[len(script) :: max(1, step // ROUNDS)]:
        injector.inject(script, 1, synchronous, fault)
    assert injector.counts.io_errors_injected > 0


def test_a_campaign_does_all_kinds_of_work_and_counts_it() -> None:
    counts = campaign(1.0, 5)

    assert set(counts) == set(Counts().as_dict())
    assert all(counts.values()), counts


def test_a_round_visits_every_point_of_a_workload() -> None:
    counts = Counts()
    explorer = Explorer(StoreLevel(), counts, images=2, one_everywhere=False)

    visited = list(explorer.points("rows", 3, "full"))

    assert visited == list(range(len(visited)))
    assert counts.as_dict()["io_points"] == len(visited) > 25
