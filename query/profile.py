"""Profiles: rows and time of each step of a plan, gathered while EXPLAIN ANALYZE runs it.

A line of EXPLAIN that speaks of a step is a `Noted` text: it carries the object that does the
step. While the statement runs, that object notes its rows and its time in the Profile, which the
bindings of all its queries share; afterwards each line tells what was noted for its object. A run
that nobody profiles notes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from m2mdb.query.functions import Bindings

KEY = "profile"  # in Bindings.shared


class Noted(str):
    """A line of EXPLAIN with the object that it speaks of."""

    step: object

    @classmethod
    def of(cls, text: str, step: object) -> Noted:
        """The line."""
        line = cls(text)
        line.step = step
        return line


class Profile:
    """What the steps of one run have noted."""

    __slots__ = ("_notes", "_remarks", "clock", "whole")

    def __init__(self, clock: Callable[[], float], whole: object = None) -> None:
        """`clock` gives seconds; `whole` is the plan of the statement itself."""
        self.clock = clock
        self.whole = whole
        self._notes: dict[int, list[float]] = {}  # by id: runs, rows, seconds
        self._remarks: dict[int, Callable[[], str]] = {}

    def note(self, step: object, rows: int, start: float) -> None:
        """A step has given rows; it began at `start`."""
        found = self._notes.setdefault(id(step), [0, 0, 0.0])
        found[0] += 1
        found[1] += rows
        found[2] += self.clock() - start

    def remark(self, step: object, text: str | Callable[[], str]) -> None:
        """What is to be said of a step besides; of several runs the last one's.

        A callable is asked when the statement has ended: what it takes is not in its time.
        """
        self._remarks[id(step)] = (lambda: text) if isinstance(text, str) else text

    def told(self, text: str) -> str:
        """A line of EXPLAIN with what was noted for it."""
        step = id(getattr(text, "step", None))
        found = self._notes.get(step)
        if found is None:
            return str(text)
        runs, rows, seconds = found
        times = "" if runs == 1 else f" in {runs:.0f} runs"
        remark = self._remarks[step]() if step in self._remarks else ""
        told = f"{text} -> {rows:.0f} rows{times}, {seconds * 1000:.3f} ms"
        return f"{told}; {remark}" if remark else told


def profile_of(bindings: Bindings) -> Profile | None:
    """The profile of a run, or None."""
    found: Any = bindings.shared.get(KEY)
    return found if isinstance(found, Profile) else None


class CountedPages:
    """Pages that count how many are read of them; all else is theirs."""

    def __init__(self, pages: Any) -> None:
        self._pages = pages
        self.count = 0
        self.hot = 0  # of these, decoded already

    def get(self, page_number: int) -> Any:
        """As the pages give it."""
        self.count += 1
        self.hot += self._pages.is_decoded(page_number)
        return self._pages.get(page_number)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pages, name)
