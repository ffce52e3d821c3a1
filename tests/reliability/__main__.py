"""One command for the long proof: `python -m tests.reliability --minutes N`.

    python -m tests.reliability --minutes 30 --seed 7          every campaign, its share of the time
    python -m tests.reliability --minutes 5 --only sim,kill    some of them
    python -m tests.reliability --sums                         what all runs counted so far
    python -m tests.reliability --document                     the same into docs/reliability.md

Each campaign's counts are added to docs/reliability.jsonl (`--ledger` names another file, `-`
none). The exit code is 1 where one failed; the others still run.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from tests.reliability import ledger
from tests.reliability.campaigns import CAMPAIGNS, GOALS, Entry
from tests.reliability.counts import write_counts


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked for; the exit code."""
    options = parse(arguments)
    if options.document:
        write_counts()
        return 0
    if options.sums:
        report(ledger.read(options.ledger or ledger.LEDGER))
        return 0
    chosen = choose(options.only)
    total = sum(each.share for each in chosen)
    failed = 0
    for each in chosen:
        line = run(each, options.minutes * 60 * each.share / total, options.seed)
        failed += "failure" in line
        if options.ledger is not None:
            ledger.append(line, options.ledger)
    if options.ledger is not None:
        report(ledger.read(options.ledger))
    return 1 if failed else 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options; `ledger` is a path or None."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="of all campaigns together")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="default: the time")
    parser.add_argument("--only", default="", help="names, separated by commas")
    parser.add_argument("--ledger", default=str(ledger.LEDGER), help="a file, or - for none")
    parser.add_argument("--sums", action="store_true", help="print the sums of the ledger only")
    parser.add_argument("--document", action="store_true", help="write them into the document")
    options = parser.parse_args(arguments)
    if not 0 < options.minutes < float("inf"):
        parser.error(f"--minutes {options.minutes} is not a time")
    options.ledger = None if options.ledger == "-" else Path(options.ledger)
    names = {each.name for each in CAMPAIGNS}
    wrong = [name for name in options.only.split(",") if name and name not in names]
    if wrong:
        parser.error(f"--only {wrong[0]}: known are {', '.join(sorted(names))}")
    return options


def choose(only: str) -> list[Entry]:
    """The campaigns of a list of names; all where it is empty."""
    names = set(filter(None, only.split(",")))
    return [each for each in CAMPAIGNS if not names or each.name in names]


def run(each: Entry, seconds: float, seed: int) -> dict[str, Any]:
    """Run one campaign; its line for the ledger, with the failure where there was one."""
    print(f"=== {each.name}: {each.proves} ({seconds:.0f} s, seed {seed})", flush=True)
    begun = time.monotonic()
    counts: dict[str, int] = {}
    failure = ""
    try:
        counts = each.load()(seconds, seed)
    except Exception as error:
        traceback.print_exc()
        failure = f"{type(error).__name__}: {error}"
    took = time.monotonic() - begun
    for key, value in sorted(counts.items()):
        print(f"    {key:24} {value:>14,}")
    print(f"    {'FAILED' if failure else 'ok'} after {took:.0f} s", flush=True)
    return ledger.entry(each.name, seed, took, counts, failure)


def report(lines: list[dict[str, Any]]) -> None:
    """Print the sums over all runs, beside what is aimed for."""
    print(f"=== all {len(lines)} runs so far")
    for key, value in sorted(ledger.sums(lines).items()):
        goal = f"  of {GOALS[key]:,}" if key in GOALS else ""
        print(f"    {key:24} {value:>14,}{goal}")


if __name__ == "__main__":
    sys.exit(main())
