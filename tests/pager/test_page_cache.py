"""The cache of nodes."""

from __future__ import annotations

from m2mdb.pager.cache import NodeCache
from m2mdb.pager.page import Leaf


def node() -> Leaf:
    return Leaf([], [])


def test_a_cache_holds_no_more_than_its_capacity() -> None:
    cache = NodeCache(4 << 20, 4096)

    for number in range(5000):
        cache.put((number, 0), node())

    assert len(cache) <= cache.capacity <= (4 << 20) // 4096


def test_nodes_that_are_asked_for_stay() -> None:
    cache = NodeCache(1 << 20, 4096)
    kept = node()
    cache.put((0, 0), kept)

    for number in range(1, 1000):
        cache.put((number, 0), node())
        assert cache.get((0, 0)) is kept

    assert cache.get((1, 0)) is None
    cache.clear()
    assert cache.get((0, 0)) is None and len(cache) == 0
