"""Campaign: the model machine with many seeds; counts `model_steps`."""

from __future__ import annotations

import time

from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model import machine
from tests.thresholds import small_thresholds

EXAMPLES = 20  # of one seed, between two looks at the clock
STEPS = 40


def run(seed: int, examples: int) -> int:
    """Machines of one seed; how many steps they took. A failure is raised in its shortest form."""
    chosen = settings(
        max_examples=examples,
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    before = machine.steps
    with small_thresholds():
        run_state_machine_as_test(_seeded(seed), settings=chosen)
    return machine.steps - before


def _seeded(number: int) -> type[machine.FaceAgreesWithDict]:
    """The machine with a seed of its own."""
    derived = type("FaceAgreesWithDict", (machine.FaceAgreesWithDict,), {})
    return seed(number)(derived)


def campaign(seconds: float, seed: int) -> dict[str, int]:
    """About so many seconds of machines."""
    end = time.monotonic() + seconds
    counts = {"model_steps": 0, "model_seeds": 0}
    while time.monotonic() < end:
        number = seed * 1_000_003 + counts["model_seeds"]
        try:
            counts["model_steps"] += run(number, EXAMPLES)
        except Exception as error:
            raise AssertionError(
                f"model: run(seed={number}, examples={EXAMPLES}): {error}"
            ) from error
        counts["model_seeds"] += 1
    return counts
