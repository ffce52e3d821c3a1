"""The checker finds each kind of anomaly, planted into histories that are right without it."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from tests.isolation.checker import Anomaly, check
from tests.isolation.history import Operation, Transaction

INITIAL: dict[str, Any] = {"version": 0, "r0": 0, "r1": 0, "l0": "0"}


def commit(
    version: int, *operations: Operation, session: str = "w", at: int | None = None
) -> Transaction:
    begin = 100 * version if at is None else at
    return Transaction(
        session,
        begin,
        begin + 50,
        "committed",
        version,
        [*operations, ["r", "version", version - 1], ["w", "version", version]],
    )


def look(begin: int, end: int, *operations: Operation, session: str = "r") -> Transaction:
    return Transaction(session, begin, end, "read", 0, list(operations))


ORDERLY = [
    commit(1, ["w", "r0", 11], ["w", "r1", 12]),
    commit(2, ["r", "r0", 11], ["w", "r0", 21], ["r", "r0", 21]),
    commit(3, ["a", "l0", "31"], ["r", "l0", "0,31"]),
    commit(4, ["s"], ["w", "r0", 40], ["z"], ["r", "r0", 21], ["a", "l0", "41"]),
]

STALE_WRITE = Transaction("x", 500, 550, "committed", 5, [["r", "r0", 11], ["w", "version", 5]])


def test_a_serial_history_is_right() -> None:
    reads = [
        look(10, 20, ["r", "r0", 0]),
        look(120, 130, ["r", "r0", 0], ["r", "r1", 0]),
        look(125, 135, ["r", "r0", 11], ["r", "r1", 12]),
        look(500, 510, ["S", {"version": 4, "r0": 21, "r1": 12, "l0": "0,31,41"}]),
    ]

    assert check(INITIAL, ORDERLY + reads) == 24


@pytest.mark.parametrize(
    ("planted", "said"),
    [
        (look(260, 270, ["r", "r0", 11]), "stale read"),
        (look(10, 20, ["r", "r0", 11]), "newest one begun"),
        (look(500, 510, ["r", "r0", 40]), "dirty read"),
        (look(500, 510, ["r", "r0", 99]), "dirty read"),
        (look(120, 230, ["r", "r0", 11], ["r", "r1", 0]), "no one commit"),
        (look(120, 230, ["r", "r0", 11], ["r", "r0", 21]), "no one commit"),
        (look(120, 230, ["S", {"r0": 21, "version": 1}]), "no one commit"),
        (look(320, 330, ["r", "l0", "0,41"]), "dirty read"),
        (commit(4, ["r", "r0", 21], ["w", "r0", 51], session="x"), "lost update"),
        (commit(6, ["w", "r0", 61], session="x"), "by none else"),
        (STALE_WRITE, "written on 4"),
        (commit(5, ["w", "r0", 51], ["r", "r0", 21], session="x"), "own write lost"),
        (commit(5, ["a", "l0", "51"], ["r", "l0", "0,31,41"], session="x"), "own append lost"),
        (commit(5, ["w", "r0", 11], session="x"), "written twice"),
        (commit(5, session="x", at=10), "had ended when it began"),
    ],
)
def test_a_planted_anomaly_is_found(planted: Transaction, said: str) -> None:
    with pytest.raises(Anomaly, match=said):
        check(INITIAL, [*ORDERLY, planted])


def test_a_session_that_goes_backwards_is_found() -> None:
    there = look(125, 135, ["r", "r0", 11])
    back = look(136, 140, ["r", "r0", 0])

    assert check(INITIAL, [*ORDERLY, there, back._replace(session="another")])
    with pytest.raises(Anomaly, match="backwards"):
        check(INITIAL, [*ORDERLY, there, back])


# -- anomalies planted into long random histories ------------------------------------------------


def serial_history(rng: Random, count: int) -> list[Transaction]:
    """Transactions one after the other, of several sessions, on a few cells."""
    state = dict(INITIAL)
    history = []
    version = 0
    for number in range(count):
        session = f"s{rng.randrange(4)}"
        begin = 1_000 * number
        operations: list[Operation] = [
            ["r", key, state[key]] for key in rng.choices(list(state), k=3)
        ]
        if rng.random() < 0.5:
            version += 1
            for key in ("version", rng.choice(("r0", "r1"))):
                state[key] = version if key == "version" else 1_000_000 + version
                operations.append(["w", key, state[key]])
            state["l0"] += f",{version}"
            operations.append(["a", "l0", str(version)])
            history.append(
                Transaction(session, begin, begin + 900, "committed", version, operations)
            )
        else:
            history.append(Transaction(session, begin, begin + 900, "read", 0, operations))
    return history


def make_stale(history: list[Transaction], rng: Random) -> None:
    """A read sees the state of before the last commits."""
    reads = [at for at, each in enumerate(history) if each.outcome == "read" and at > 100]
    at = rng.choice(reads)
    old = next(each for each in reversed(history[: at - 60]) if each.outcome == "committed")
    history[at] = history[at]._replace(operations=[["r", "version", old.version]])


def lose_an_update(history: list[Transaction], rng: Random) -> None:
    """Two commit the same version."""
    commits = [at for at, each in enumerate(history) if each.outcome == "committed"]
    at = rng.choice(commits[1:])
    history[at] = history[at]._replace(version=history[at].version - 1)


def take_half(history: list[Transaction], rng: Random) -> None:
    """A commit's write is missing from what later reads are explained by."""
    commits = [at for at, each in enumerate(history[:-50]) if each.outcome == "committed"]
    at = rng.choice(commits)
    operations = [each for each in history[at].operations if each[0] != "a"]
    history[at] = history[at]._replace(operations=operations)


@pytest.mark.parametrize("plant", [make_stale, lose_an_update, take_half])
def test_anomalies_in_long_histories_are_found(
    plant: Callable[[list[Transaction], Random], None],
) -> None:
    for seed in range(20):
        rng = Random(seed)
        history = serial_history(rng, 300)
        assert check(INITIAL, history) > 900

        plant(history, rng)

        with pytest.raises(Anomaly):
            check(INITIAL, history)
