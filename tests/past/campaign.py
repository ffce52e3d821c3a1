"""Campaign: random histories read AS OF each kept commit; counts `as_of_commits` compared."""

from __future__ import annotations

import time

from tests.past.history import History, small_thresholds

STEPS = 60
CHECK_EVERY = 6
KEPT = (0, 2, 5, 14, 1000)
KEYS = ("TEXT PRIMARY KEY", "TEXT PRIMARY KEY", "INTEGER PRIMARY KEY")


def run(seed: int) -> int:
    """One history; how many commits were compared. Its errors name the seed and the step."""
    compared = 0
    history = History(seed, keep=KEPT[seed % len(KEPT)], key=KEYS[seed % len(KEYS)])
    for step in range(STEPS):
        history.step()
        if step % CHECK_EVERY == CHECK_EVERY - 1:
            history.check()
            compared += history.commit - history.oldest + 1
    history.database.close()
    return compared


def campaign(seconds: float, seed: int) -> dict[str, int]:
    """About so many seconds of histories."""
    end = time.monotonic() + seconds
    counts = {"as_of_commits": 0, "as_of_histories": 0}
    with small_thresholds():
        while time.monotonic() < end:
            number = seed * 1_000_003 + counts["as_of_histories"]
            try:
                counts["as_of_commits"] += run(number)
            except Exception as error:
                raise AssertionError(f"past: run(seed={number}): {error}") from error
            counts["as_of_histories"] += 1
    return counts
