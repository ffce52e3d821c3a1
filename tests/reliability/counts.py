"""The table of counts in docs/reliability.md, made from the ledger."""

from __future__ import annotations

from typing import Any

from tests.reliability import ledger
from tests.reliability.campaigns import GOALS

DOCUMENT = ledger.ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- counts -->\n", "<!-- /counts -->"


def counts_table(lines: list[dict[str, Any]]) -> str:
    """Sums over all runs, with the seeds of each campaign and its last date."""
    out = ["| count | over all runs | aim |", "| --- | ---: | ---: |"]
    sums = ledger.sums(lines)
    for key in sorted(sums):
        if key != "failures":
            aim = f"{GOALS[key]:,}" if key in GOALS else ""
            out.append(f"| {key.replace('_', ' ')} | {sums[key]:,} | {aim} |")
    out += [
        "",
        "| campaign | runs | seeds | hours | last run |",
        "| --- | ---: | --- | ---: | --- |",
    ]
    for name in sorted({line["campaign"] for line in lines}):
        runs = [line for line in lines if line["campaign"] == name]
        seeds = ", ".join(str(seed) for seed in sorted({line["seed"] for line in runs}))
        hours = sum(line["seconds"] for line in runs) / 3600
        last = max(line["date"] for line in runs)
        out.append(f"| {name} | {len(runs)} | {seeds} | {hours:.2f} | {last} |")
    failed = [line for line in lines if "failure" in line]
    out += ["", f"Runs that found a failure: {len(failed)}."]
    out += [
        f"- {line['campaign']} seed {line['seed']} ({line['commit']}): {line['failure']}"
        for line in failed
    ]
    return "\n".join(out) + "\n"


def write_counts() -> None:
    """Put the ledger's counts into the document."""
    text = DOCUMENT.read_text("utf-8")
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    DOCUMENT.write_text(head + BEGIN + counts_table(ledger.read()) + END + tail, "utf-8")
