"""The B+tree against a dict and sorted keys."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from m2mdb.pager.btree import BTree
from m2mdb.pager.errors import DataError, InternalError
from m2mdb.pager.page import Branch, Leaf
from tests.pager.dict_pages import DictPages


def sound(pages: DictPages, root: int) -> int:
    """Check a tree that is all there is in its pages; returns its number of items."""
    faults: list[str] = []
    seen: set[int] = set()
    count = BTree(pages, root).check(faults.append, seen)
    assert faults == []
    used = list(BTree(pages, root).pages_used())
    assert len(used) == len(set(used)), "a page is used twice"
    assert set(used) == seen == pages.numbers(), "T5: reachable or freed"
    return count


KEYS = st.one_of(
    st.binary(max_size=6),
    st.integers(0, 300).map(lambda n: n.to_bytes(4, "big")),
    st.integers(0, 40).map(lambda n: b"long" * 20 + bytes([n])),
)
VALUES = st.one_of(st.binary(max_size=12), st.integers(0, 1800).map(lambda n: (b"%d " % n * n)[:n]))


class TreeAgreesWithDict(RuleBasedStateMachine):
    """Every step on the tree and on a dict."""

    @initialize(size=st.sampled_from([512, 1024, 4096]))
    def create(self, size: int) -> None:
        self.pages = DictPages(size)
        self.tree = BTree(self.pages, BTree.create(self.pages))
        self.model: dict[bytes, bytes] = {}

    @rule(key=KEYS, value=VALUES)
    def put(self, key: bytes, value: bytes) -> None:
        self.tree.put(key, value)
        self.model[key] = value

    @rule(start=st.integers(0, 300), count=st.integers(1, 60), value=VALUES)
    def put_many(self, start: int, count: int, value: bytes) -> None:
        for number in range(start, start + count):
            self.put(number.to_bytes(4, "big"), value)

    @rule(seed=st.integers(0, 99), share=st.floats(0, 1))
    def delete_many(self, seed: int, share: float) -> None:
        keys = sorted(self.model)
        generator = random.Random(seed)
        for key in generator.sample(keys, int(len(keys) * share)):
            assert self.tree.delete(key)
            del self.model[key]

    @rule(key=KEYS)
    def delete(self, key: bytes) -> None:
        assert self.tree.delete(key) == (self.model.pop(key, None) is not None)

    @rule(key=KEYS)
    def get(self, key: bytes) -> None:
        assert self.tree.get(key) == self.model.get(key)

    @rule(start=st.none() | KEYS, stop=st.none() | KEYS, reverse=st.booleans())
    def scan(self, start: bytes | None, stop: bytes | None, reverse: bool) -> None:
        expected = [
            (key, self.model[key])
            for key in sorted(self.model, reverse=reverse)
            if (start is None or key >= start) and (stop is None or key < stop)
        ]
        assert list(self.tree.scan(start, stop, reverse=reverse)) == expected

    @rule()
    def commit_and_reload(self) -> None:
        self.pages.commit()

    @rule()
    def clear(self) -> None:
        self.tree.clear()
        self.model.clear()
        assert self.pages.numbers() == {self.tree.root}

    @precondition(lambda self: not self.model)
    @rule(keys=st.sets(KEYS, max_size=120), value=VALUES)
    def bulk_load(self, keys: set[bytes], value: bytes) -> None:
        self.model = dict.fromkeys(sorted(keys), value)
        self.tree.bulk_load(self.model.items())

    @invariant()
    def agrees(self) -> None:
        if hasattr(self, "tree"):
            assert sound(self.pages, self.tree.root) == len(self.model)
            ends = [min(self.model), max(self.model)] if self.model else [None, None]
            found = [item and item[0] for item in (self.tree.first(), self.tree.last())]
            assert found == ends

    def teardown(self) -> None:
        if hasattr(self, "tree"):
            self.pages.commit()
            assert dict(self.tree.scan()) == self.model
            self.tree.destroy()
            assert self.pages.numbers() == set()


TestTreeAgreesWithDict = TreeAgreesWithDict.TestCase
TestTreeAgreesWithDict.settings = settings(
    max_examples=150, stateful_step_count=30, deadline=None, derandomize=True
)


def filled(pages: DictPages, keys: Iterator[int] | range, size: int = 20) -> BTree:
    tree = BTree(pages, BTree.create(pages))
    for number in keys:
        tree.put(number.to_bytes(8, "big"), b"%d" % number + b"v" * size)
    return tree


@pytest.mark.parametrize("page_size", [512, 4096])
@pytest.mark.parametrize("prefix", [b"", b"long" * 20])  # fifty keys a branch, or three
@pytest.mark.parametrize("seed", range(3))
def test_random_operations_agree_with_a_dict(page_size: int, prefix: bytes, seed: int) -> None:
    generator = random.Random(seed)
    pages = DictPages(page_size)
    tree = BTree(pages, BTree.create(pages))
    model: dict[bytes, bytes] = {}

    for step in range(6000):
        key = prefix + b"%d" % generator.randrange(1500) * generator.randrange(1, 4)
        if generator.random() < (0.7 if step % 3000 < 1500 else 0.3):
            model[key] = b"x" * int(generator.paretovariate(0.7) % (2 * page_size))
            tree.put(key, model[key])
        else:
            assert tree.delete(key) == (model.pop(key, None) is not None)
        if step % 500 == 0:
            sound(pages, tree.root)
            pages.commit()

    assert sound(pages, tree.root) == len(model)
    assert list(tree.scan()) == sorted(model.items())
    for key in list(model):
        assert tree.delete(key)
    sound(pages, tree.root)
    assert pages.numbers() == {tree.root}


@pytest.mark.parametrize("seed", range(6))
def test_ascending_batches_agree_with_a_dict(seed: int) -> None:
    choose = random.Random(seed)
    pages, model = DictPages(choose.choice((512, 4096))), dict[bytes, bytes]()
    root = BTree.create(pages)
    tree = BTree(pages, root)
    for _ in range(30):
        low, size = choose.randrange(1 << 16), choose.choice((1, 5, 60, 600))
        span = choose.choice((1 << 4, 1 << 10, 1 << 16))
        batch: dict[bytes, bytes] = {}
        for _ in range(size):
            key = f"{low + choose.randrange(span):06d}{'x' * choose.randrange(4)}".encode()
            batch[key] = bytes(choose.choice((0, 0, 3, 40, 700)))
        tree.put_ascending(sorted(batch.items()))
        model |= batch
        for key in choose.sample(sorted(model), min(len(model), choose.randrange(80))):
            assert tree.delete(key)
            del model[key]
        assert list(tree.scan()) == sorted(model.items())
        assert sound(pages, root) == len(model)


def test_an_ascending_batch_that_fails_keeps_the_tree_sound() -> None:
    pages = DictPages(512)
    root = BTree.create(pages)
    tree = BTree(pages, root)
    tree.put_ascending((b"%04d" % i, b"") for i in range(0, 2000, 2))

    with pytest.raises(DataError, match="at most 102 fit"):
        tree.put_ascending([(b"0001", b""), (b"0003", b""), (b"0005" * 50, b"")])

    assert sound(pages, root) == 1002


def test_appended_leaves_are_full_and_only_the_last_one_changes() -> None:
    pages = DictPages()
    tree = filled(pages, range(5000))
    pages.commit()

    tree.put((5000).to_bytes(8, "big"), b"new")

    assert len(pages.private) == 1
    leaves = [n for n in pages.committed.values() if isinstance(n, Leaf)]
    assert sum(leaf.size for leaf in leaves) > 0.95 * len(leaves) * 4072


def test_bulk_loaded_leaves_are_full() -> None:
    pages = DictPages()
    tree = BTree(pages, BTree.create(pages))

    tree.bulk_load((n.to_bytes(8, "big"), b"v" * 20) for n in range(50_000))

    leaves = [n for n in pages.private.values() if isinstance(n, Leaf)]
    assert sound(pages, tree.root) == 50_000
    assert sum(leaf.size for leaf in leaves) > 0.98 * len(leaves) * 4072


@pytest.mark.parametrize("count", [0, 1, 2, 3, 10, 26, 27, 130, 700, 2000])
def test_bulk_loaded_trees_are_sound_at_every_depth(count: int) -> None:
    pages = DictPages(512)
    tree = BTree(pages, BTree.create(pages))
    items = [(b"%05d" % n + b"k" * 90, b"v" * (n % 7 * 90)) for n in range(count)]

    tree.bulk_load(items)
    pages.commit()

    assert sound(pages, tree.root) == count
    assert list(tree.scan()) == items
    branches = [n for n in pages.committed.values() if isinstance(n, Branch)]
    assert all(len(branch.children) > 1 for branch in branches)


def test_bulk_load_refuses_keys_that_do_not_ascend_and_a_tree_that_is_not_empty() -> None:
    pages = DictPages()
    tree = BTree(pages, BTree.create(pages))

    with pytest.raises(InternalError, match="key b'a' after key b'b'"):
        tree.bulk_load([(b"b", b""), (b"a", b"")])
    tree.put(b"a", b"")
    with pytest.raises(InternalError, match="not empty"):
        tree.bulk_load([(b"b", b"")])


def test_rows_of_a_third_of_a_page_stand_two_and_two() -> None:
    pages = DictPages()

    tree = filled(pages, range(100), size=1600)

    assert len(pages.numbers()) <= 50 + 2
    assert sound(pages, tree.root) == 100


def test_a_cell_may_fill_a_leaf_of_its_own() -> None:
    pages = DictPages(512)
    tree = BTree(pages, BTree.create(pages))

    for number in (5, 1, 9, 3, 7, 0, 2):
        tree.put(b"%d" % number * 90, b"v" * 380)

    assert sound(pages, tree.root) == 7
    assert not any(node.has_references for node in pages.private.values() if type(node) is Leaf)


def test_keys_up_to_a_fifth_of_a_page_fit_and_no_longer_ones() -> None:
    pages = DictPages(512)
    tree = BTree(pages, BTree.create(pages))

    for number in range(300):
        tree.put(b"%04d" % (number * 7919 % 10_000) + b"k" * 98, b"")
    with pytest.raises(DataError, match="a key of 103 bytes, at most 102"):
        tree.put(b"k" * 103, b"")

    assert sound(pages, tree.root) == 300


def test_a_long_value_is_replaced_and_deleted_with_its_pages() -> None:
    pages = DictPages(512)
    tree = BTree(pages, BTree.create(pages))

    tree.put(b"a", b"x" * 100_000)
    assert tree.get(b"a") == b"x" * 100_000
    assert len(pages.numbers()) > 200
    tree.put(b"a", b"short")
    assert pages.numbers() == {tree.root}
    tree.put(b"a", b"y" * 5000)
    tree.delete(b"a")

    assert pages.numbers() == {tree.root}


def test_shrinking_gives_the_pages_back_and_lifts_the_root() -> None:
    pages = DictPages(512)
    tree = filled(pages, range(3000))
    before = len(pages.numbers())

    for number in range(3000):
        if number % 20:
            tree.delete(number.to_bytes(8, "big"))

    assert sound(pages, tree.root) == 150
    assert len(pages.numbers()) < before / 5


def test_a_scan_goes_on_while_the_tree_changes() -> None:
    pages = DictPages(512)
    tree = filled(pages, range(0, 2000, 2))
    found = []

    for key, _ in tree.scan():
        number = int.from_bytes(key, "big")
        found.append(number)
        tree.delete(key)
        if number < 4000:
            tree.put((number + 2001).to_bytes(8, "big"), b"new")

    assert found[:1000] == list(range(0, 2000, 2))
    assert found == sorted(found)


def test_the_root_keeps_its_number() -> None:
    pages = DictPages(512)
    tree = filled(pages, range(2000))

    assert isinstance(pages.get(tree.root), Branch)
    for number in range(2000):
        tree.delete(number.to_bytes(8, "big"))

    assert isinstance(pages.get(tree.root), Leaf)
    assert tree.first() is None and tree.last() is None
