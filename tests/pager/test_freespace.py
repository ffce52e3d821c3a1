"""The free map: every page is used or free, and none is used again too soon."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from m2mdb.pager.btree import BTree
from m2mdb.pager.errors import CorruptDatabaseError, InternalError
from m2mdb.pager.freespace import FreeMap, decode_run, encode_run
from m2mdb.pager.page import Branch, Leaf
from m2mdb.pager.pages import Node

ROOT = 2


class EndPages:
    """Pages of the free map's tree: allocated at the end of the file, freed into the map (FM5)."""

    def __init__(self, page_size: int) -> None:
        self.page_size = page_size
        self.page_count = ROOT
        self.nodes: dict[int, Node] = {ROOT: Leaf([], [])}
        self.map = FreeMap()
        self.freed: list[int] = []  # of the tree itself
        self.commit = 0

    def get(self, page_number: int) -> Node:
        return self.nodes[page_number]

    def change(self, page_number: int) -> Node:
        self.nodes[page_number] = self.nodes[page_number].copy()
        return self.nodes[page_number]

    def put(self, page_number: int, node: Node) -> None:
        self.nodes[page_number] = node

    def allocate(self) -> int:
        return self.extend(1)

    def extend(self, count: int) -> int:
        self.page_count += count
        return self.page_count - count + 1

    def free(self, page_number: int) -> None:
        del self.nodes[page_number]
        self.freed.append(page_number)
        self.map.give(page_number, 1, self.commit + 1)


class EveryPageIsUsedOrFree(RuleBasedStateMachine):
    """Transactions with savepoints on a file whose pages are numbers only."""

    @initialize(page_size=st.sampled_from([512, 4096]))
    def create(self, page_size: int) -> None:
        self.pages = EndPages(page_size)
        self.tree = BTree(self.pages, ROOT)
        self.used: set[int] = set()
        self.freed: dict[int, int] = {}  # page -> commit that freed it
        self.oldest = 0  # commit of the oldest reader
        self.marks: list[tuple[int, Any]] = []
        self.usable = self.usable_now()
        self.start = self.state()

    def usable_now(self) -> Callable[[int, int, int], bool]:
        limit = self.oldest
        return lambda start, length, commit: commit <= limit

    def state(self) -> Any:
        pages = self.pages
        return dict(pages.nodes), pages.page_count, set(self.used), dict(self.freed)

    def restore(self, state: Any) -> None:
        nodes, self.pages.page_count, self.used, self.freed = state
        self.pages.nodes = dict(nodes)
        self.used, self.freed = set(self.used), dict(self.freed)

    @rule(
        count=st.sampled_from([1, 1, 1, 2, 5, 40]),
        times=st.integers(1, 30),
        every=st.sampled_from([0, 0, 7, 50]),
    )
    def take(self, count: int, times: int, every: int) -> None:
        """`every`: each so many'th page is blocked."""
        blocked = range(every, self.pages.page_count, every) if every else ()
        for _ in range(times):
            start = self.pages.map.take(count, self.usable, blocked)
            if start is None:
                usable = {p for p, c in self.freed.items() if c <= self.oldest}
                free = sorted(usable.difference(blocked))
                assert not any(
                    free[i + count - 1] - free[i] == count - 1 for i in range(len(free) + 1 - count)
                ), "there was room"
                start = self.pages.extend(count)
            else:
                assert not every or start // every == (start + count - 1) // every
                assert not every or start % every
            for page in range(start, start + count):
                assert self.freed.pop(page, 0) <= self.oldest
                assert page not in self.used
                self.used.add(page)

    @rule(seed=st.randoms(use_true_random=False), share=st.floats(0, 1), length=st.integers(1, 9))
    def give(self, seed: Any, share: float, length: int) -> None:
        for first in seed.sample(sorted(self.used), int(len(self.used) * share)):
            run = 0
            while run < length and first + run in self.used:
                self.used.discard(first + run)
                self.freed[first + run] = self.pages.commit + 1
                run += 1
            if run:
                self.pages.map.give(first, run, self.pages.commit + 1)

    @rule()
    def merge(self) -> None:
        self.pages.map.merge(self.usable)

    @rule()
    def savepoint(self) -> None:
        self.marks.append((self.pages.map.mark(), self.state()))

    @precondition(lambda self: self.marks)
    @rule()
    def rollback_to_savepoint(self) -> None:
        mark, state = self.marks.pop()
        self.pages.map.undo(mark)
        self.restore(state)

    @rule(fails=st.booleans())
    def rollback(self, fails: bool) -> None:
        if fails:
            self.flush()
        self.pages.map.undo(0)
        self.restore(self.start)
        self.begin()

    def flush(self) -> None:
        self.pages.freed.clear()
        self.pages.map.flush(self.tree)
        self.freed.update(dict.fromkeys(self.pages.freed, self.pages.commit + 1))

    @rule(reader_stays=st.booleans(), reload=st.booleans())
    def commit(self, reader_stays: bool, reload: bool) -> None:
        self.flush()
        assert self.pages.map.is_flushed
        self.pages.map.settle()
        loaded = FreeMap.load(self.tree, self.pages.page_count, "file")
        assert list(loaded) == list(self.pages.map)
        assert loaded.page_count == self.pages.map.page_count
        assert set(self.tree.pages_used()) == set(self.pages.nodes)
        if reload:
            self.pages.map = loaded
        self.pages.commit += 1
        if not reader_stays:
            self.oldest = self.pages.commit
        self.begin()

    def begin(self) -> None:
        self.marks.clear()
        self.usable = self.usable_now()
        self.start = self.state()

    @invariant()
    def all_pages_are_accounted_for(self) -> None:
        if not hasattr(self, "pages"):
            return
        free: set[int] = set()
        previous = 0
        for start, length, commit in self.pages.map:
            assert start >= previous, "FM1: runs overlap"
            previous = start + length
            for page in range(start, previous):
                assert self.freed[page] <= commit, "FM3: usable too soon"
                assert commit == self.freed[page] or commit <= self.oldest
            free.update(range(start, previous))
        assert free == set(self.freed)
        assert len(free) == self.pages.map.page_count
        assert free.isdisjoint(self.used) and free.isdisjoint(self.pages.nodes)
        every = free | self.used | set(self.pages.nodes) | {1}
        assert every == set(range(1, self.pages.page_count + 1))


TestEveryPageIsUsedOrFree = EveryPageIsUsedOrFree.TestCase
TestEveryPageIsUsedOrFree.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, derandomize=True
)


@pytest.mark.parametrize("seed", range(4))
def test_every_page_is_used_or_free_on_a_long_walk(seed: int) -> None:
    generator = random.Random(seed)
    walk = EveryPageIsUsedOrFree()
    walk.create(512)

    for _ in range(400):
        step = generator.random()
        if step < 0.4:
            walk.take(
                generator.choice([1, 1, 2, 7, 40]),
                generator.randrange(1, 30),
                generator.choice([0, 0, 9]),
            )
        elif step < 0.7:
            walk.give(generator, generator.random() / 3, generator.randrange(1, 9))
        elif step < 0.75:
            walk.savepoint()
        elif step < 0.8 and walk.marks:
            walk.rollback_to_savepoint()
        elif step < 0.83:
            walk.rollback(generator.random() < 0.5)
        elif step < 0.95:
            walk.commit(generator.random() < 0.5, generator.random() < 0.3)
        else:
            walk.merge()
        walk.all_pages_are_accounted_for()

    assert len(walk.pages.nodes) > 3


def always(start: int, length: int, commit: int) -> bool:
    return True


def filled(*runs: tuple[int, int, int]) -> FreeMap:
    free = FreeMap()
    for run in runs:
        free.give(*run)
    return free


def test_single_pages_come_from_small_runs_first() -> None:
    free = filled((10, 500, 1), (600, 2, 1), (700, 300, 1))

    assert [free.take(1, always) for _ in range(3)] == [600, 601, 700]
    assert len(free) == 2 and free.page_count == 799


def test_of_many_long_runs_the_first_is_cut() -> None:
    free = filled(*((n, 50, 1) for n in range(10, 6010, 60)), (9000, 1, 1))

    assert [free.take(1, always) for _ in range(3)] == [10, 11, 12]


def test_an_extent_may_span_runs_that_touch() -> None:
    free = filled((10, 3, 1), (13, 4, 2), (17, 2, 3))

    assert free.take(8, always) == 10
    assert list(free) == [(18, 1, 3)]


def test_an_extent_takes_the_shortest_stretch_that_holds_it() -> None:
    free = filled((10, 500, 1), (600, 30, 1), (640, 20, 1), (700, 20, 2))

    assert [free.take(n, always) for n in (20, 20, 20, 40, 471)] == [640, 700, 600, 10, None]
    assert list(free) == [(50, 460, 1), (620, 10, 1)]


def test_blocked_pages_divide_a_run_and_leave_both_sides() -> None:
    free = filled((10, 50, 1), (60, 40, 2))

    assert free.take(45, always, [5, 30, 90, 200]) == 31
    assert free.take(20, always, [30, 90]) == 10
    assert free.take(15, always, [30, 90]) is None
    assert free.take(1, always, [30, 90]) == 91
    assert free.take(14, always, [30]) == 76
    assert list(free) == [(30, 1, 1), (90, 1, 2), (92, 8, 2)]


def test_runs_of_one_commit_become_one_on_both_sides() -> None:
    free = filled((10, 2, 4), (14, 2, 4), (12, 2, 4))

    assert list(free) == [(10, 6, 4)]
    assert list(filled((10, 2, 4), (12, 2, 5))) == [(10, 2, 4), (12, 2, 5)]


@pytest.mark.parametrize("run", [(8, 3), (10, 1), (12, 1), (14, 9), (5, 50)])
def test_a_page_freed_twice_is_our_bug_and_changes_nothing(run: tuple[int, int]) -> None:
    free = filled((7, 1, 2), (10, 5, 1), (21, 1, 2))

    with pytest.raises(InternalError, match="freed twice"):
        free.give(*run, 2)

    assert list(free) == [(7, 1, 2), (10, 5, 1), (21, 1, 2)]


def test_an_exception_in_mid_change_is_undone() -> None:
    free = filled((10, 5, 1), (20, 5, 1), (30, 5, 1))
    mark = free.mark()
    before = list(free)

    class Struck(dict[int, tuple[int, int]]):
        def __delitem__(self, key: int) -> None:
            raise KeyboardInterrupt

    free._runs = Struck(free._runs)
    with pytest.raises(KeyboardInterrupt):
        free.take(3, always)
    free.undo(mark)

    assert list(free) == before
    assert free.page_count == 15
    assert free.take(3, always) == 10


def test_a_flush_that_failed_is_done_again_whole() -> None:
    pages = EndPages(4096)
    pages.page_count = 99
    tree = BTree(pages, ROOT)
    pages.map.give(10, 5, 1)
    pages.map.give(30, 5, 1)
    root = pages.nodes[ROOT].copy()

    pages.put(ROOT, Branch([b"k"], [77, 78]))
    with pytest.raises(KeyError):
        pages.map.flush(tree)
    assert not pages.map.is_flushed
    pages.put(ROOT, root)
    pages.map.undo(pages.map.mark())
    pages.map.flush(tree)

    assert list(FreeMap.load(tree, 99, "file")) == [(10, 5, 1), (30, 5, 1)]


def test_a_search_for_a_page_goes_on_where_the_last_one_ended() -> None:
    free = filled(*((n, 1, 1 if n > 9000 else 9) for n in range(2, 10_000, 2)))
    asked = []

    def usable(start: int, length: int, commit: int) -> bool:
        asked.append(start)
        return commit <= 1

    found = [free.take(1, usable) for _ in range(600)]

    assert found[:500] == [*range(9002, 10_000, 2), None]
    assert len(asked) < 6000


def test_a_search_finds_what_was_given_before_the_last_place() -> None:
    free = filled((10, 5, 1), (20, 5, 1))

    found = [free.take(1, always) for _ in range(6)]
    free.give(4, 2, 1)

    assert [*found, free.take(1, always)] == [10, 11, 12, 13, 14, 20, 4]


@given(st.integers(2, 2**64 - 1), st.integers(1, 2**32 - 1), st.integers(0, 2**64 - 1))
def test_runs_survive_encode_and_decode(start: int, length: int, commit: int) -> None:
    assert decode_run(*encode_run(start, length, commit)) == (start, length, commit)


@pytest.mark.parametrize(
    "entries",
    [
        [(b"short", b"v" * 12)],
        [(encode_run(5, 1, 1)[0], b"v")],
        [encode_run(1, 1, 1)],
        [encode_run(5, 0, 1)],
        [encode_run(5, 3, 1), encode_run(7, 1, 1)],
        [encode_run(99, 2, 1)],
        [encode_run(2**63, 1, 1)],
    ],
)
def test_a_damaged_free_map_is_refused(entries: list[tuple[bytes, bytes]]) -> None:
    pages = EndPages(4096)
    tree = BTree(pages, ROOT)
    for key, value in entries:
        tree.put(key, value)

    with pytest.raises(CorruptDatabaseError, match="free map"):
        FreeMap.load(tree, 99, "file")
