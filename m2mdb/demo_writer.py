"""The child of the demo that writes until it is killed.

On standard output it says `commit N` before it commits transaction N and `done N` once the commit
has returned. What it said to be done must be there after it was killed.
"""

from __future__ import annotations

import sys

import numpy as np

from m2mdb.opening import connect

ROWS = 40  # rows of one transaction
DIMENSIONS = 256
LIMIT = 10_000  # transactions after which it gives up waiting to be killed


def rows_of(transaction: int) -> dict[str, object]:
    """The rows of a transaction: each can be told from its number alone."""
    numbers = range(transaction * ROWS, (transaction + 1) * ROWS)
    vectors = np.random.default_rng(transaction).standard_normal((ROWS, DIMENSIONS), np.float32)
    return {
        "id": list(numbers),
        "written_by": [transaction] * ROWS,
        "body": [f"row {number} of transaction {transaction}" for number in numbers],
        "embedding": vectors,
    }


def say(word: str, transaction: int) -> None:
    """One line to the parent, at once."""
    sys.stdout.write(f"{word} {transaction}\n")
    sys.stdout.flush()


def main(path: str, first: int) -> None:
    """Write transactions from number `first` on, until killed."""
    con = connect(path)
    journal = con.collection("journal")
    for transaction in range(first, first + LIMIT):
        con.execute("BEGIN")
        journal.add(rows_of(transaction))
        say("commit", transaction)
        con.commit()
        say("done", transaction)
