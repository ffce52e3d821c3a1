"""The checker: every read is the state at one commit, inside its window, and sessions go forward.

Every committed transaction raised the cell `version` by one, inside itself: so versions are the
order of the commits, and replaying the writes gives the state at each. All values written differ;
a value tells the span of versions in which its cell held it. For each transaction

    reads       the spans of all that it found, before writes of its own, have versions in common
    window      [newest version acknowledged before its begin, newest version begun before its end];
                of one that committed version v: v - 1 alone, the state that it was written on
    forward     not before the version that the session saw or wrote last

must have a version in common. What it wrote itself it finds, on top of that state; what was
rolled back nobody finds.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from itertools import accumulate
from typing import Any

from tests.isolation.history import Operation, Transaction

EVER = 1 << 62


class Anomaly(AssertionError):
    """Something that a serial order of the transactions cannot explain."""


class Spans:
    """Which versions a value was there: from the one that wrote it to the one before the next."""

    def __init__(self, initial: dict[str, Any], commits: list[Transaction]) -> None:
        self._span: dict[tuple[str, Any], list[int]] = {}
        self._now = dict(initial)
        for key, value in initial.items():
            self._span[key, value] = [0, EVER]
        for commit in commits:
            for key, value in effects(commit.operations, self._now).items():
                self._put(key, value, commit)

    def _put(self, key: str, value: Any, commit: Transaction) -> None:
        if (key, value) in self._span:
            raise Anomaly(f"the value {value!r} of {key} was written twice: {commit}")
        self._span[key, self._now[key]][1] = commit.version - 1
        self._span[key, value] = [commit.version, EVER]
        self._now[key] = value

    def of(self, key: str, value: Any) -> tuple[int, int] | None:
        """(first, last) version, or None for what no commit has written."""
        found = self._span.get((key, value))
        return None if found is None else (found[0], found[1])


def effects(operations: list[Operation], base: dict[str, Any]) -> dict[str, Any]:
    """What a transaction's writes leave of a state."""
    own = Overlay()
    for operation in operations:
        own.apply(operation)
    return own.on(base)


class Overlay:
    """A transaction's own writes: cells set, and elements appended to what stands below."""

    def __init__(self) -> None:
        self._set: dict[str, Any] = {}
        self._added: dict[str, str] = {}
        self._kept: tuple[dict[str, Any], dict[str, str]] = {}, {}

    def apply(self, operation: Operation) -> None:
        kind = operation[0]
        if kind == "w":
            self._set[operation[1]] = operation[2]
            self._added.pop(operation[1], None)
        elif kind == "a":
            key, element = operation[1:]
            self._added[key] = f"{self._added.get(key, '')},{element}"
        elif kind == "s":
            self._kept = dict(self._set), dict(self._added)
        elif kind == "z":
            self._set, self._added = self._kept
            self._kept = dict(self._set), dict(self._added)

    def on(self, base: dict[str, Any]) -> dict[str, Any]:
        """The cells that are changed, with their values."""
        found = dict(self._set)
        for key, added in self._added.items():
            found[key] = found.get(key, base[key]) + added
        return found

    def below(self, key: str, value: Any, where: object) -> Any:
        """What the state below must have held for this to be found; None: anything."""
        added = self._added.get(key, "")
        if key in self._set:
            if value != self._set[key] + added if added else value != self._set[key]:
                raise Anomaly(f"own write lost: {key} is {value!r}: {where}")
            return None
        if added:
            if not value.endswith(added):
                raise Anomaly(f"own append lost: {key} is {value!r}, not …{added}: {where}")
            return value[: -len(added)]
        return value


class Windows:
    """What a transaction may see, by the clock."""

    def __init__(self, commits: list[Transaction]) -> None:
        ends = sorted((each.end, each.version) for each in commits)
        begins = sorted((each.begin, each.version) for each in commits)
        self._ends = [time for time, _ in ends]
        self._acknowledged = list(accumulate((version for _, version in ends), max))
        self._begins = [time for time, _ in begins]
        self._begun = list(accumulate((version for _, version in begins), max))

    def newest_before(self, begin: int) -> int:
        """The newest version acknowledged before a moment."""
        at = bisect.bisect_left(self._ends, begin)
        return self._acknowledged[at - 1] if at else 0

    def newest_begun(self, end: int) -> int:
        """The newest version that had begun by a moment."""
        at = bisect.bisect_right(self._begins, end)
        return self._begun[at - 1] if at else 0


def check(initial: dict[str, Any], history: Iterable[Transaction]) -> int:
    """Check a whole history; how many operations it has. Raises Anomaly."""
    transactions = list(history)
    commits = sorted(
        (each for each in transactions if each.outcome == "committed"),
        key=lambda each: each.version,
    )
    _check_order(commits)
    spans = Spans(initial, commits)
    windows = Windows(commits)
    last: dict[str, int] = {}
    operations = 0
    for each in transactions:
        seen = _check_transaction(each, spans, windows, last.get(each.session, 0))
        last[each.session] = seen
        operations += sum(1 for operation in each.operations if operation[0] in "rSwa")
    return operations


def _check_order(commits: list[Transaction]) -> None:
    """One commit a version, and none that began after a later one had ended."""
    for number, each in enumerate(commits, 1):
        if each.version < number:
            raise Anomaly(f"lost update: version {each.version} was committed twice: {each}")
        if each.version > number:
            raise Anomaly(f"version {number} was seen by version {each.version} and by none else")
    earliest_end = EVER
    for each in reversed(commits):
        if each.begin > earliest_end:
            raise Anomaly(f"committed before one that had ended when it began: {each}")
        earliest_end = min(earliest_end, each.end)


def _check_transaction(each: Transaction, spans: Spans, windows: Windows, last: int) -> int:
    """The version that the session has seen after it."""
    first, newest = 0, EVER
    own = Overlay()
    for operation in each.operations:
        kind = operation[0]
        if kind not in "rS":
            own.apply(operation)
            continue
        found = operation[1].items() if kind == "S" else [operation[1:]]
        for key, value in found:
            below = own.below(key, value, each)
            if below is None:
                continue
            span = spans.of(key, below)
            if span is None:
                raise Anomaly(f"dirty read: no commit left {value!r} in {key}: {each}")
            first, newest = max(first, span[0]), min(newest, span[1])
            if first > newest:
                raise Anomaly(f"no one commit has all this; {key} is of {span}: {each}")
    if each.outcome == "committed":
        if not first <= each.version - 1 <= newest:
            raise Anomaly(f"written on {each.version - 1}, but read {first}..{newest}: {each}")
        if each.version <= last:
            raise Anomaly(f"backwards: the session had seen {last} before: {each}")
        return each.version
    least, most = windows.newest_before(each.begin), windows.newest_begun(each.end)
    if newest < least:
        raise Anomaly(f"stale read: of {first}..{newest}, {least} was acknowledged: {each}")
    if first > most:
        raise Anomaly(f"read of {first}, the newest one begun is {most}: {each}")
    if newest < last:
        raise Anomaly(f"backwards: of {first}..{newest}, the session had seen {last}: {each}")
    return max(first, least, last)
