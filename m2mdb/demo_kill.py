"""The demo's kill: children write, are killed in mid-commit, and nothing acknowledged is lost.

Each round starts a child on the same file, waits until it has acknowledged some transactions, and
sends SIGKILL when it says that the next commit begins. The database is then reopened, which
recovers it, and checked: every row of every acknowledged transaction is there, the transaction
that was being committed is there whole or not at all, and `integrity_check` finds no fault.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from m2mdb.demo_writer import DIMENSIONS, ROWS, rows_of
from m2mdb.opening import connect

ROUNDS = 3
ACKNOWLEDGED = 12  # transactions that a child may finish before it is killed
PATIENCE_SECONDS = 60.0  # for a child to start and to write
PACKAGES = Path(__file__).parent.parent  # where the child finds m2mdb, installed or not
CHILD = """
import sys
sys.path.append(sys.argv[1])
from m2mdb.demo_writer import main
main(sys.argv[2], int(sys.argv[3]))
"""


def survive(path: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """All rounds; what happened, and the faults that were found."""
    con = connect(path)
    try:
        con.create_collection(
            "journal",
            {
                "id": "INTEGER PRIMARY KEY",
                "written_by": "INTEGER",
                "body": "TEXT FULLTEXT",
                "embedding": f"VECTOR({DIMENSIONS})",
            },
        )
    finally:
        con.close()
    rounds: list[dict[str, Any]] = []
    acknowledged: list[int] = []
    faults: list[str] = []
    first = 0
    for number in range(ROUNDS):
        outcome = kill_writer(path, first)
        acknowledged += outcome.pop("acknowledged")
        first = outcome["committing"] + 1
        outcome.update(compare(path, acknowledged, outcome["committing"]))
        if not outcome["killed"]:
            outcome["faults"].append("the writing child ended before it could be killed")
        faults += outcome["faults"]
        rounds.append(outcome)
        state = "complete" if outcome["unacknowledged_kept"] else "absent"
        say(
            f"kill {number + 1}: SIGKILL while transaction {outcome['committing']} committed; "
            f"reopened in {outcome['reopen_ms']:.0f} ms; {len(acknowledged) * ROWS} acknowledged "
            f"rows, {outcome['missing']} missing; the interrupted transaction is {state}; "
            f"integrity {outcome['integrity']}"
        )
    say("")
    return {"rounds": rounds, "acknowledged_rows": len(acknowledged) * ROWS, "faults": faults}


def kill_writer(path: Path, first: int) -> dict[str, Any]:
    """Start a child, kill it in mid-commit; the transactions that it acknowledged."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(PACKAGES), str(path), str(first)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    acknowledged: list[int] = []
    committing = first
    deadline = time.monotonic() + PATIENCE_SECONDS
    killed = False
    try:
        for line in child.stdout:
            word, _, transaction = line.partition(" ")
            if word == "done":
                acknowledged.append(int(transaction))
            elif word == "commit":
                committing = int(transaction)
                late = time.monotonic() > deadline
                if not killed and (len(acknowledged) >= ACKNOWLEDGED or late):
                    child.kill()
                    killed = True
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    return {"acknowledged": acknowledged, "committing": committing, "killed": killed}


def compare(path: Path, acknowledged: list[int], committing: int) -> dict[str, Any]:
    """Reopen and hold the file against what was acknowledged."""
    start = time.perf_counter()
    con = connect(path)
    try:
        journal = con.collection("journal")
        count = journal.count()
        reopen_ms = (time.perf_counter() - start) * 1000
        missing = sum(missing_rows(journal, transaction) for transaction in acknowledged)
        unacknowledged = ROWS - missing_rows(journal, committing)
        checked = [row[0] for row in con.execute("PRAGMA integrity_check")]
    finally:
        con.close()
    faults = []
    if missing:
        faults.append(f"{missing} acknowledged rows are missing")
    if committing not in acknowledged and unacknowledged not in (0, ROWS):
        faults.append(f"transaction {committing} is there in part: {unacknowledged} of {ROWS}")
    if checked != ["ok"]:
        faults += [f"integrity_check: {fault}" for fault in checked]
    return {
        "reopen_ms": round(reopen_ms, 1),
        "rows": count,
        "missing": missing,
        "unacknowledged_kept": unacknowledged == ROWS,
        "integrity": "ok" if checked == ["ok"] else "FAULTY",
        "faults": faults,
    }


def missing_rows(journal: Any, transaction: int) -> int:
    """How many rows of a transaction are absent or differ from what was written."""
    wanted = rows_of(transaction)
    columns: Any = wanted
    missing = 0
    for i, row in enumerate(journal.get(columns["id"])):
        same = (
            row is not None
            and row["body"] == columns["body"][i]
            and row["written_by"] == transaction
            and np.array_equal(row["embedding"], columns["embedding"][i])
        )
        missing += not same
    return missing
