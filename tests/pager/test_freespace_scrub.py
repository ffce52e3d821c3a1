"""Runs that are to be scrubbed: nobody uses them, and nothing loses sight of them (S26)."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from m2mdb.pager.btree import BTree
from m2mdb.pager.freespace import SCRUB, FreeMap
from tests.pager.dict_pages import DictPages

Runs = list[tuple[int, int, int]]
runs = st.lists(st.tuples(st.integers(1, 5), st.integers(0, 3), st.booleans()), max_size=12)


def given_runs(free: FreeMap, wanted: list[tuple[int, int, bool]]) -> int:
    """Runs of (length, commit, to be scrubbed) one behind the other, with some gaps."""
    start = 10
    scrubbed = 0
    for number, (length, commit, scrub) in enumerate(wanted):
        free.give(start, length, commit | (SCRUB if scrub else 0))
        scrubbed += length * scrub
        start += length + (number % 3 == 2)
    return scrubbed


@settings(max_examples=100, deadline=None)
@given(runs)
def test_s26_no_search_gives_them_until_the_scrub_has_ended(
    wanted: list[tuple[int, int, bool]],
) -> None:
    free = FreeMap()
    scrubbed = given_runs(free, wanted)
    total = free.page_count
    assert free.scrub_count == scrubbed
    assert sum(length for _, length, freed in free if freed & SCRUB) == scrubbed

    def usable(start: int, length: int, commit: int) -> bool:
        return commit <= 1 << 62  # every commit that there can be

    free.merge(usable)
    mark = free.mark()
    taken = 0
    while free.take(1, usable) is not None:
        taken += 1
    assert taken == total - scrubbed

    free.undo(mark)
    assert (free.page_count, free.scrub_count) == (total, scrubbed)
    before: Runs = list(free)
    free.end_scrub(9)
    assert (free.page_count, free.scrub_count) == (total, 0)
    free.undo(mark)
    assert list(free) == before


@settings(max_examples=50, deadline=None)
@given(runs)
def test_s26_they_are_in_the_tree_and_read_again(wanted: list[tuple[int, int, bool]]) -> None:
    free = FreeMap()
    scrubbed = given_runs(free, wanted)
    pages = DictPages(4096)
    tree = BTree(pages, BTree.create(pages))

    free.flush(tree)

    found = FreeMap.load(tree, 1000, "test")
    assert list(found) == list(free)
    assert found.scrub_count == scrubbed
