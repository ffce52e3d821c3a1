"""B+tree: a sorted map of byte strings in the pages of a snapshot or a transaction.

    root (branch)   | key 1 | key 2 |            a key is not greater than any key to its right
                   /        |        \\
    branches      ...      ...       ...
                 /   \\
    leaves   | cells |-| cells |   ...           all at one depth; cells are (key, value)

Keys are ordered as bytes. Branches hold the shortest separators that tell their children apart.
Leaves have no links to their neighbours: the next leaf is found from the root by the separator
that ends the one before, which a copy-on-write tree keeps true at no cost, and which makes a scan
safe while the tree changes (it sees each change to the part that it has not reached).

Invariants
    T1  The root's page number never changes; all leaves are at the same depth.
    T2  Keys ascend strictly; child i of a branch holds the keys in key[i - 1] <= key < key[i].
    T3  No leaf but the root is empty; every branch has a child.
    T4  A value stands beside its key if it fits into three quarters of a page and, with its key,
        into an empty leaf; else in an overflow chain that is freed with the cell.
    T5  Every page that a change allocates is reachable from the root, or was freed.
    T6  Whatever the file holds, a call ends: descents are bounded, and a scan's separators ascend.
    T7  A scan gives no more than the file holds: no key twice, and no overflow page twice.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, cast

from m2mdb.pager.btree_bulk import load
from m2mdb.pager.btree_shape import (
    MAX_DEPTH,
    append_leaf,
    depth_error,
    find_path,
    shrink,
    split_leaf,
)
from m2mdb.pager.btree_walk import check_tree, tree_pages
from m2mdb.pager.errors import CorruptDatabaseError, DataError
from m2mdb.pager.overflow import free_chain, read_chain, write_chain
from m2mdb.pager.page import CELL_SIZE, PAGE_HEADER_SIZE, Branch, Leaf, OverflowReference

if TYPE_CHECKING:
    from m2mdb.pager.pages import MutablePages, Pages

LOOKED_PAGES = 256  # freed between two looks for an interrupt
_LEVELS = range(MAX_DEPTH)
Item = tuple[bytes, bytes]
Run = tuple[list[bytes], list[bytes]]


class BTree:
    """A tree by its root page; holds nothing but the pages, so it is cheap to make.

    `put`, `put_ascending`, `delete`, `bulk_load`, `clear` and `destroy` need MutablePages.
    """

    __slots__ = ("_capacity", "_get", "_pages", "root")

    def __init__(self, pages: Pages | MutablePages, root: int) -> None:
        self._pages = cast("MutablePages", pages)
        self._get = pages.get
        self._capacity = pages.page_size - PAGE_HEADER_SIZE
        self.root = root

    @staticmethod
    def create(pages: MutablePages) -> int:
        """Make an empty tree; returns its root."""
        root = pages.allocate()
        pages.put(root, Leaf([], [], 0))
        return root

    # -------------------------------------------------------------------------- reading

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, or None."""
        leaf = self._leaf(key)[1]
        keys = leaf.keys
        index = bisect_left(keys, key)
        if index < len(keys) and keys[index] == key:
            value = leaf.values[index]
            return value if type(value) is bytes else self._long_value(value)
        return None

    def first(self) -> Item | None:
        """The item with the least key."""
        return next(self.scan(), None)

    def last(self) -> Item | None:
        """The item with the greatest key."""
        get = self._get
        number = self.root
        for _ in _LEVELS:
            node = get(number)
            if type(node) is not Branch:
                break
            number = node.children[-1]
        if type(node) is Leaf and node.keys:
            value = node.values[-1]
            return node.keys[-1], value if type(value) is bytes else self._long_value(value)
        return next(self.scan(reverse=True), None)

    def scan(
        self, start: bytes | None = None, stop: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[Item]:
        """Items with start <= key < stop in the order of their keys, or in reverse."""
        for keys, values in self.runs(start, stop, reverse=reverse):
            yield from zip(keys, values, strict=True)

    def runs(
        self, start: bytes | None = None, stop: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[Run]:
        """What `scan` yields, as (keys, values) lists of a leaf each; the caller owns the lists."""
        if reverse:
            return self._runs_backward(start, stop)
        return self._runs_forward(start or b"", stop)

    def _leaf(self, key: bytes) -> tuple[int, Leaf]:
        """The leaf where a key belongs, and its page number."""
        get = self._get
        number = self.root
        for _ in _LEVELS:
            node = get(number)
            if type(node) is not Branch:
                break
            number = node.children[bisect_right(node.keys, key)]
        if type(node) is Leaf:
            return number, node
        raise depth_error(self.root, number)

    def _runs_forward(self, start: bytes, stop: bytes | None) -> Iterator[Run]:
        key: bytes | None = start
        seen: set[int] = set()
        while key is not None:
            _, leaf, following = self._leaf_and_following(key)
            keys = leaf.keys
            first = bisect_left(keys, key)
            end = len(keys)
            if following is not None and end and keys[-1] >= following:
                raise self._disorder(keys[-1], following)
            if stop is not None and (following is None or following >= stop):
                end = bisect_left(keys, stop)
                following = None
            if first < end:
                yield keys[first:end], self._values(leaf, first, end, seen)
            key = following

    def _leaf_and_following(self, key: bytes) -> tuple[int, Leaf, bytes | None]:
        """The leaf where a key belongs, its page number first, and the separator that ends it."""
        following: bytes | None = None
        number = self.root
        for _ in _LEVELS:
            node = self._get(number)
            if type(node) is not Branch:
                break
            index = bisect_right(node.keys, key)
            if index < len(node.keys):
                following = node.keys[index]
            number = node.children[index]
        if type(node) is Leaf:
            return number, node, following
        raise depth_error(self.root, number)

    def _runs_backward(self, start: bytes | None, stop: bytes | None) -> Iterator[Run]:
        seen: set[int] = set()
        while True:
            leaf, beginning = self._leaf_before(stop)
            keys = leaf.keys
            if beginning is not None and keys and keys[0] < beginning:
                raise self._disorder(keys[0], beginning)
            end = len(keys) if stop is None else bisect_left(keys, stop)
            first = 0 if start is None else bisect_left(keys, start)
            if first < end:
                values = self._values(leaf, first, end, seen)
                values.reverse()
                yield keys[first:end][::-1], values
            if beginning is None or (start is not None and beginning <= start):
                return
            stop = beginning

    def _leaf_before(self, stop: bytes | None) -> tuple[Leaf, bytes | None]:
        """The leaf with the greatest keys below `stop`, and the separator that begins it."""
        beginning: bytes | None = None
        number = self.root
        for _ in _LEVELS:
            node = self._get(number)
            if type(node) is not Branch:
                break
            index = len(node.keys) if stop is None else bisect_left(node.keys, stop)
            if index:
                beginning = node.keys[index - 1]
            number = node.children[index]
        if type(node) is Leaf:
            return node, beginning
        raise depth_error(self.root, number)

    def _values(self, leaf: Leaf, first: int, end: int, seen: set[int]) -> list[bytes]:
        values = leaf.values[first:end]
        if leaf.has_references:
            return [v if type(v) is bytes else self._long_value(v, seen) for v in values]
        return values

    def _long_value(self, reference: bytes, seen: set[int] | None = None) -> bytes:
        assert type(reference) is OverflowReference, "a value is bytes or a reference"
        return read_chain(self._pages, reference, seen)

    def _disorder(self, key: bytes, bound: bytes) -> CorruptDatabaseError:
        """T7: a leaf whose keys lie outside of the separators that led to it."""
        return CorruptDatabaseError(
            f"tree at page {self.root}: key {key[:32]!r} of a leaf is on the wrong side of "
            f"separator {bound[:32]!r}"
        )

    # -------------------------------------------------------------------------- changing

    def put(self, key: bytes, value: bytes) -> None:
        """Set the value of a key, new or not.

        Raises DataError when the key is longer than a fifth of a page.
        """
        self._put_cell(key, self._cell(key, value))

    def put_ascending(self, items: Iterable[Item]) -> None:
        """`put` of items whose keys ascend: each leaf is looked for once for all that go there."""
        waiting = iter(items)
        item = next(waiting, None)
        while item is not None:
            number, leaf, following = self._leaf_and_following(item[0])
            is_own, index = False, 0
            while item is not None and (following is None or item[0] < following):
                key, cell = item[0], self._cell(*item)
                item = next(waiting, None)
                keys = leaf.keys
                index = bisect_left(keys, key, index)
                is_there = index < len(keys) and keys[index] == key
                if is_there or leaf.size + CELL_SIZE + len(key) + len(cell) > self._capacity:
                    self._put_cell(key, cell)
                    break  # the leaf may be divided now
                if not is_own:
                    leaf, is_own = cast("Leaf", self._pages.change(number)), True
                leaf.insert(index, key, cell)

    def _put_cell(self, key: bytes, cell: bytes) -> None:
        """Set what stands in the leaf beside a key."""
        number, leaf = self._leaf(key)
        keys = leaf.keys
        index = bisect_left(keys, key)
        if index < len(keys) and keys[index] == key:
            self._replace(number, index, cell)
            return
        size = CELL_SIZE + len(key) + len(cell)
        if leaf.size + size <= self._capacity:
            leaf = cast("Leaf", self._pages.change(number))
            leaf.insert(index, key, cell)
            return
        path, number, is_rightmost = find_path(self._pages, self.root, key)
        if is_rightmost and keys and index == len(keys):
            append_leaf(self._pages, self.root, path, number, Leaf([key], [cell]))
            return
        leaf = cast("Leaf", self._pages.change(number))
        leaf.insert(index, key, cell)
        split_leaf(self._pages, self.root, path, number, leaf)

    def _cell(self, key: bytes, value: bytes) -> bytes:
        """The value as it will stand in a leaf."""
        size = len(value)
        page_size = self._pages.page_size
        if len(key) * 5 > page_size:
            raise DataError(
                f"a key of {len(key)} bytes, at most {page_size // 5} fit pages of {page_size}"
            )
        if size * 4 > page_size * 3 or CELL_SIZE + len(key) + size > self._capacity:
            return write_chain(self._pages, bytes(value))
        return value if type(value) is bytes else bytes(value)

    def _replace(self, number: int, index: int, cell: bytes) -> None:
        leaf = cast("Leaf", self._pages.change(number))
        key, old = leaf.keys[index], leaf.values[index]
        leaf.replace(index, cell)
        if type(old) is OverflowReference:
            free_chain(self._pages, old)
        if leaf.size > self._capacity:
            path, number, _ = find_path(self._pages, self.root, key)
            split_leaf(self._pages, self.root, path, number, leaf)

    def delete(self, key: bytes) -> bool:
        """Remove a key; whether it was there."""
        number, leaf = self._leaf(key)
        index = bisect_left(leaf.keys, key)
        if index == len(leaf.keys) or leaf.keys[index] != key:
            return False
        leaf = cast("Leaf", self._pages.change(number))
        old = leaf.values[index]
        leaf.remove(index)
        if type(old) is OverflowReference:
            free_chain(self._pages, old)
        if leaf.size * 4 < self._capacity and number != self.root:
            path, number, _ = find_path(self._pages, self.root, key)
            shrink(self._pages, self.root, path, number)
        return True

    def bulk_load(self, items: Iterable[Item]) -> None:
        """Fill an empty tree with items whose keys ascend; leaves are filled to the brim."""
        load(self._pages, self.root, ((key, self._cell(key, value)) for key, value in items))

    def clear(self) -> None:
        """Remove all items; frees all pages but the root."""
        for number in list(self.pages_used()):
            if number != self.root:
                self._pages.free(number)
        self._pages.put(self.root, Leaf([], [], 0))

    def destroy(self, look: Callable[[], None] | None = None) -> None:
        """Free all pages, the root too; `look` is called between some of them, and may raise."""
        numbers: list[int] = []
        for number in self.pages_used():
            numbers.append(number)
            if look is not None and not len(numbers) % LOOKED_PAGES:
                look()
        for done, number in enumerate(numbers, 1):
            self._pages.free(number)
            if look is not None and not done % LOOKED_PAGES:
                look()

    # -------------------------------------------------------------------------- inspecting

    def pages_used(self) -> Iterator[int]:
        """The numbers of all pages: the root, branches, leaves, overflow pages.

        Raises CorruptDatabaseError where the tree is damaged.
        """
        return tree_pages(self._pages, self.root)

    def check(self, report: Callable[[str], None], seen: set[int] | None = None) -> int:
        """Report every fault of the tree; returns the number of items found.

        `seen` collects page numbers over several trees: a page in it is reported as used twice.
        What reading a page raises goes through, but for CorruptDatabaseError.
        """
        return check_tree(self._pages, self.root, report, set() if seen is None else seen)
