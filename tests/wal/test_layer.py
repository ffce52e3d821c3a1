"""Layers of a transaction: what joins, what stays apart, and what is found in both."""

from __future__ import annotations

from m2mdb.pager.page import Leaf
from m2mdb.wal.layer import Layer


def layers(*sizes: int) -> Layer:
    """Frozen layers of so many changed pages each, the newest last; page 1 is in all of them."""
    layer = Layer({}, (), 10, 0)
    for number, size in enumerate(sizes):
        layer = layer.above()
        for page in range(1, size + 1):
            layer.nodes[page] = Leaf([b"%d" % number], [b""])
    return layer


def test_an_empty_layer_adds_no_depth() -> None:
    assert Layer({}, (), 10, 0).depth == 0
    layer = layers(3)
    assert layer.depth == 1
    assert layer.above().depth == 1
    assert layer.above().above().below == (layer.nodes,)


def test_joining_keeps_what_a_savepoint_goes_back_to() -> None:
    """The newest version of each page is found before and after."""
    layer = layers(40, 3, 3, 3)
    for kept in range(4):
        joined = layer.joined(kept)
        assert joined.below[len(joined.below) - kept :] == layer.below[3 - kept :]
        assert joined.all_nodes() == layer.all_nodes()
        assert joined.page_count == layer.page_count
    assert layer.joined(3) is layer, "all of them belong to a savepoint"
    assert len(layer.joined(0).below) < 3
    assert joined.find(40) is layer.find(40) is not None
    assert layer.find(41) is None


def test_a_small_layer_does_not_copy_a_large_one() -> None:
    layer = layers(4000, 1)
    assert layer.joined(0) is layer
