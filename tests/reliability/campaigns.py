"""The campaigns: long rounds of proof, each a module with `campaign(seconds, seed)`.

A campaign works for about so many seconds, derives all it does from its seed, raises an
AssertionError that says how to see the failure again, and returns what it counted. A short round
of each is part of the ordinary tests; a long one is asked for by `python -m tests.reliability`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

Campaign = Callable[[float, int], dict[str, int]]


@dataclass(frozen=True, slots=True)
class Entry:
    """One campaign: where it is, its share of the time, and what it proves."""

    name: str
    module: str
    share: float
    proves: str

    def load(self) -> Campaign:
        """The function itself; its module is imported now."""
        function: Campaign = importlib.import_module(self.module).campaign
        return function


CAMPAIGNS = (
    Entry("sim", "tests.sim.campaign", 0.25, "every I/O point crashed, and crashed again"),
    Entry("schedules", "tests.sim.schedules", 0.2, "processes interleaved step by step"),
    Entry("kill", "tests.kill.campaign", 0.2, "real processes killed at random moments"),
    Entry("isolation", "tests.isolation.campaign", 0.1, "every read is one commit's state"),
    Entry("forget", "tests.forget.campaign", 0.05, "FORGET stopped anywhere: undone, or all gone"),
    Entry("vacuum", "tests.vacuum.campaign", 0.05, "VACUUM and copies stopped at every point"),
    Entry("model", "tests.model.campaign", 0.05, "the database against a dict"),
    Entry("past", "tests.past.campaign", 0.05, "AS OF reads each kept commit as it stood"),
    Entry("fuzz", "fuzz.campaign", 0.1, "damaged bytes and text into every decoder"),
    Entry("differential", "tests.differential.campaign", 0.1, "statements do what SQLite's do"),
    Entry("flips", "tests.hostile.campaign", 0.1, "single bits flipped in a closed file"),
)

GOALS = {
    "crash_images": 300_000,
    "double_crash_images": 50_000,
    "schedules_random": 100_000,
    "kills": 5_000,
    "isolation_operations": 1_000_000,
    "fuzz_executions": 10_000_000,
    "differential_statements": 1_000_000,
}
