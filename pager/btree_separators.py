"""Separators that say nothing of keys that are gone.

A branch keeps the separator that was right when a page was split. It is a prefix of a key of that
time, and stays when the key is deleted. To forget a key its tree's separators are made anew from
the keys that are there:

    ... last key of the left child | separator | first key of the right child ...

Invariants
    TN1 Afterwards each separator is the shortest there is between the keys on its two sides, so
        it is a prefix of a key in the tree.
    TN2 No separator grows, so no branch outgrows its page: the old one lies between the same two
        keys, begins with what they have in common, and is longer than that.
    TN3 Only branches with another separator are changed.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from m2mdb.pager.btree_shape import MAX_DEPTH, depth_error, separator
from m2mdb.pager.page import Branch, Leaf

if TYPE_CHECKING:
    from m2mdb.pager.pages import MutablePages

_Bounds = tuple[bytes, bytes]  # the first and the last key below a page


def renew_separators(pages: MutablePages, root: int) -> None:
    """Make every separator of a tree anew from the keys that are in it (TN1).

    Reads the whole tree. Raises CorruptDatabaseError where it is damaged.
    """
    node = pages.get(root)
    if type(node) is Branch:
        _renew(pages, root, root, MAX_DEPTH)


def _renew(pages: MutablePages, root: int, number: int, levels: int) -> _Bounds:
    node = pages.get(number)
    if type(node) is Leaf and node.keys:
        return node.keys[0], node.keys[-1]
    if type(node) is not Branch or not levels or len(node.children) != len(node.keys) + 1:
        raise depth_error(root, number)
    bounds = [_renew(pages, root, child, levels - 1) for child in node.children]
    keys = [separator(left[1], right[0]) for left, right in pairwise(bounds)]
    if keys != node.keys:
        pages.put(number, Branch(keys, list(node.children)))
    return bounds[0][0], bounds[-1][1]
