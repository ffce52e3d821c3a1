"""Separators made anew: sound, never longer, and of keys that are there (S26)."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m2mdb.pager.btree import BTree
from m2mdb.pager.btree_separators import renew_separators
from m2mdb.pager.errors import CorruptDatabaseError
from m2mdb.pager.page import Branch, Leaf
from tests.pager.dict_pages import DictPages


def separators(pages: DictPages, root: int) -> Iterator[bytes]:
    node = pages.get(root)
    if isinstance(node, Branch):
        yield from node.keys
        for child in node.children:
            yield from separators(pages, child)


def size_of(pages: DictPages, number: int) -> int:
    node = pages.get(number)
    assert isinstance(node, Branch | Leaf)
    return node.size


@settings(max_examples=60, deadline=None)
@given(
    st.sets(st.binary(min_size=1, max_size=40), max_size=200),
    st.integers(1, 90),
    st.integers(0, 1 << 30),
)
def test_s26_separators_are_prefixes_of_keys_that_are_there(
    keys: set[bytes], percent: int, seed: int
) -> None:
    rng = Random(seed)
    pages = DictPages(512)
    tree = BTree(pages, BTree.create(pages))
    order = sorted(keys)
    rng.shuffle(order)
    for key in order:
        tree.put(key, b"value")
    left = {key for key in order if rng.randrange(100) >= percent}
    for key in order:
        if key not in left:
            tree.delete(key)
    sizes = {number: size_of(pages, number) for number in tree.pages_used()}

    renew_separators(pages, tree.root)

    faults: list[str] = []
    tree.check(faults.append)
    assert not faults
    assert {key for key, _ in tree.scan()} == left
    for separator in separators(pages, tree.root):
        assert any(key.startswith(separator) for key in left)
    for number, size in sizes.items():
        assert size_of(pages, number) <= size


def test_s26_a_prefix_of_a_deleted_key_goes() -> None:
    pages = DictPages(512)
    tree = BTree(pages, BTree.create(pages))
    keys = [b"%c%s%02d" % (97 + n // 20, b"secret" if 5 < n % 20 < 15 else b"open", n % 20)
            for n in range(200)]  # fmt: skip
    for key in keys:
        tree.put(key, b"x" * 8)
    for key in keys:
        if b"secret" in key:
            tree.delete(key)
    assert any(b"secret" in separator for separator in separators(pages, tree.root))

    renew_separators(pages, tree.root)

    assert not any(b"secret" in separator for separator in separators(pages, tree.root))
    assert tree.get(keys[0]) == b"x" * 8


def test_s26_an_empty_tree_and_a_single_leaf_stay() -> None:
    pages = DictPages(512)
    tree = BTree(pages, BTree.create(pages))
    renew_separators(pages, tree.root)
    tree.put(b"a", b"1")
    renew_separators(pages, tree.root)

    assert list(tree.scan()) == [(b"a", b"1")]


def test_s26_a_damaged_tree_is_an_error() -> None:
    pages = DictPages(512)
    root = pages.allocate()
    pages.put(root, Branch([b"k"], [root, root]))

    with pytest.raises(CorruptDatabaseError):
        renew_separators(pages, root)

    leaf = pages.allocate()
    pages.put(leaf, Leaf([], []))
    pages.put(root, Branch([b"k"], [leaf, leaf]))
    with pytest.raises(CorruptDatabaseError):
        renew_separators(pages, root)
