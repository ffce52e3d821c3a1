"""Tier hits: what a statement found in memory, and what it brought there, for EXPLAIN ANALYZE.

    tree pages   hot: decoded already in this connection; else read from log or file
    segments     bytes in blocks that were verified before (warm), that the statement verified
                 (read from the file or the system's cache of it, told by content), and that
                 nobody has read yet (cold); the contents are those of m2m_tiers

Warm bytes are those the statement could read without the file; which of them it read is told by
the lines of its steps. What memory_budget has given back counts as warm here: the file's pages may
have to be read again, the checksums need not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m2mdb.query.history import tiers_of

if TYPE_CHECKING:
    from m2mdb.index.view import View
    from m2mdb.query.plan import Plan

_KILO, _MEGA = 1000, 1_000_000


class TierHits:
    """Warm bytes by content before a statement, to be compared with those after it."""

    def __init__(self, plan: Plan, view: View) -> None:
        """`plan` says which collections count; its own EXPLAIN has not looked into them yet."""
        names = {name for each in _plans(plan) for name, _ in each.tables}
        self._view = view
        self._names = sorted(names & set(view.catalog.by_name))
        self._before = self._tiers()

    def _tiers(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for name in self._names:
            for segment in self._view.collection(name).segments:
                for content, (warm, cold) in tiers_of(segment).items():
                    sizes = found.setdefault(content, [0, 0])
                    sizes[0] += warm
                    sizes[1] += cold
        return found

    def said(self, pages: int | None, hot: int) -> str:
        """The line, empty where nothing was read; `hot` of so many tree pages were decoded."""
        told = [f"{hot} of {pages} tree pages hot"] if pages else []
        after = self._tiers()
        if after:
            warm = sum(sizes[0] for sizes in self._before.values())
            read = {
                content: sizes[0] - self._before.get(content, [0, 0])[0]
                for content, sizes in sorted(after.items())
            }
            came = [f"{content} {_bytes(size)}" for content, size in read.items() if size > 0]
            detail = f" ({', '.join(came)})" if came else ""
            told.append(f"{_bytes(warm)} warm")
            told.append(f"{_bytes(sum(max(0, size) for size in read.values()))} read{detail}")
            told.append(f"{_bytes(sum(sizes[1] for sizes in after.values()))} cold")
        return f"tiers: {', '.join(told)}" if told else ""


def _plans(plan: Plan) -> list[Plan]:
    """A plan and those of its subqueries."""
    found = [plan]
    for inner, _ in (*plan.inner, *plan.correlated):
        found += _plans(inner)
    return found


def _bytes(size: int) -> str:
    if size < _KILO:
        return f"{size} B"
    return f"{size / _KILO:.0f} KB" if size < _MEGA else f"{size / _MEGA:.1f} MB"
