"""A long round of fuzzing, for the ledger: executions of all targets, none of which may fail."""

from __future__ import annotations

from fuzz.guided import guided, is_available
from fuzz.runner import fuzz
from fuzz.targets import TARGETS

GUIDED_SHARE = 0.2  # of the time, where atheris is installed
GUIDED_LEAST = 30.0  # seconds: instrumenting the product takes some of them


def counts(seconds: float, seed: int) -> dict[str, int]:
    """Executions by target; those of atheris under `guided NAME`.

    Raises AssertionError with the input of the first finding.
    """
    found: dict[str, int] = {}
    left = seconds
    if is_available() and seconds * GUIDED_SHARE >= GUIDED_LEAST:
        name = sorted(TARGETS)[seed % len(TARGETS)]
        found[f"guided {name}"] = guided(name, seed, seconds * GUIDED_SHARE)
        left -= seconds * GUIDED_SHARE
    for name, (count, _) in fuzz(list(TARGETS.values()), seed, left).items():
        found[name] = count
    return found


def campaign(seconds: float, seed: int) -> dict[str, int]:
    """`fuzz_executions` in about so many seconds."""
    return {"fuzz_executions": sum(counts(seconds, seed).values())}
