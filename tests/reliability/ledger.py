"""The ledger: what every run counted, one JSON object a line, in docs/reliability.jsonl.

Keys of a line: campaign, seed, date (UTC), commit (of the repository), seconds, python, counts,
and `failure` where the run found one. Lines are only ever added; the sums are over all of them, and
a failure stays in the ledger with the commit that it was found on.
"""

from __future__ import annotations

import json
import platform
import subprocess
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LEDGER = ROOT / "docs" / "reliability.jsonl"


def repository_commit() -> str:
    """The commit that is checked out, with a plus where the tree has changes; '' without git."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--abbrev=10"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


def entry(
    campaign: str, seed: int, seconds: float, counts: dict[str, int], failure: str = ""
) -> dict[str, Any]:
    """One line of the ledger."""
    line: dict[str, Any] = {
        "campaign": campaign,
        "seed": seed,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        "commit": repository_commit(),
        "seconds": round(seconds),
        "python": platform.python_version(),
        "counts": dict(sorted(counts.items())),
    }
    if failure:
        line["failure"] = failure.splitlines()[0][:300]
    return line


def append(line: dict[str, Any], path: Path = LEDGER) -> None:
    """Add a line."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def read(path: Path = LEDGER) -> list[dict[str, Any]]:
    """All lines; none where there is no ledger yet."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]


def sums(lines: list[dict[str, Any]]) -> dict[str, int]:
    """Every count over all lines, and the failures that were found under `failures`."""
    total: Counter[str] = Counter()
    for line in lines:
        total.update(line["counts"])
        total["failures"] += "failure" in line
    return dict(total)
