"""How a B+tree changes its shape: splits, merges, the root that stays where it is.

A path is the way from the root to a page: (page number of a branch, index of the child taken)
for each branch passed. The functions here take the pages, the root's number and such a path.

Invariants (beside T1.. of `pager.btree`)
    TS1 The root keeps its page number: when it splits, its content moves into new pages below it;
        when it has one child left, the child's content moves up into it.
    TS2 A split gives each side about half the bytes; an append at the tree's right end leaves the
        full page as it is and opens a new one.
    TS3 A node below a quarter of a page is merged with a neighbour where the two fit into three
        quarters of a page, so that the next insertion does not split them again.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING

from m2mdb.pager.errors import CorruptDatabaseError
from m2mdb.pager.page import CELL_SIZE, CHILD_SIZE, ENTRY_SIZE, PAGE_HEADER_SIZE, Branch, Leaf

if TYPE_CHECKING:
    from m2mdb.pager.pages import MutablePages, Node, Pages

MAX_DEPTH = 40  # pages from root to leaf; 32-bit page numbers need fewer
Path = list[tuple[int, int]]


def depth_error(root: int, page_number: int) -> CorruptDatabaseError:
    """The error of a descent that met something else than branches and a leaf."""
    return CorruptDatabaseError(
        f"tree at page {root}: page {page_number} is no leaf, and no branch within "
        f"{MAX_DEPTH} pages from the root"
    )


def find_path(pages: Pages, root: int, key: bytes) -> tuple[Path, int, bool]:
    """The path to the leaf where a key belongs, its number, and whether it is the rightmost."""
    path: Path = []
    page_number = root
    is_rightmost = True
    for _ in range(MAX_DEPTH):
        node = pages.get(page_number)
        if type(node) is Leaf:
            return path, page_number, is_rightmost
        if type(node) is not Branch:
            break
        index = bisect_right(node.keys, key)
        is_rightmost = is_rightmost and index == len(node.keys)
        path.append((page_number, index))
        page_number = node.children[index]
    raise depth_error(root, page_number)


def separator(left: bytes, right: bytes) -> bytes:
    """The shortest key that is greater than `left` and not greater than `right`."""
    for index, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return right[: index + 1]
    return right[: len(left) + 1]


# ------------------------------------------------------------------------------ growing


def append_leaf(pages: MutablePages, root: int, path: Path, number: int, leaf: Leaf) -> None:
    """Open a new rightmost leaf behind the rightmost leaf at `number` (TS2)."""
    last = pages.get(number)
    assert type(last) is Leaf, "an append goes behind a leaf"
    _adopt(pages, root, path, [separator(last.keys[-1], leaf.keys[0])], [leaf])


def split_leaf(pages: MutablePages, root: int, path: Path, number: int, leaf: Leaf) -> None:
    """Divide a leaf, the transaction's own, whose cells do not fit its page any more."""
    keys, values = leaf.keys, leaf.values
    sizes = [CELL_SIZE + len(k) + len(v) for k, v in zip(keys, values, strict=True)]
    starts = _cuts(sizes, pages.page_size - PAGE_HEADER_SIZE)
    stops = [*starts[1:], len(keys)]
    pieces = [
        Leaf(keys[start:stop], values[start:stop])
        for start, stop in zip(starts, stops, strict=True)
    ]
    pages.put(number, pieces[0])
    separators = [separator(keys[start - 1], keys[start]) for start in starts[1:]]
    _adopt(pages, root, path, separators, pieces[1:])


def _cuts(sizes: list[int], capacity: int) -> list[int]:
    """Where pieces begin: two of about equal size if that fits, else up to three."""
    ends = list(accumulate(sizes))
    total = ends[-1]
    middle = bisect_left(ends, total / 2)
    candidates = [middle, middle + 1] if middle else [1]
    cut = min(candidates, key=lambda index: abs(2 * ends[index - 1] - total))
    left = ends[cut - 1]
    if cut < len(sizes) and max(left, total - left) <= capacity:
        return [0, cut]
    starts, base = [0], 0
    for index, end in enumerate(ends):
        if end - base > capacity:
            base = ends[index - 1]
            starts.append(index)
    return starts


def _adopt(
    pages: MutablePages,
    root: int,
    path: Path,
    separators: list[bytes],
    nodes: list[Leaf] | list[Branch],
) -> None:
    """Give new nodes their pages and enter them to the right of the child that the path takes."""
    numbers = []
    for node in nodes:
        numbers.append(pages.allocate())
        pages.put(numbers[-1], node)
    if not path:
        first = pages.allocate()
        pages.put(first, pages.get(root).copy())
        pages.put(root, Branch(separators, [first, *numbers]))
        return
    parent_number, index = path.pop()
    parent = pages.change(parent_number)
    assert type(parent) is Branch, "a path goes through branches"
    is_append = index == len(parent.keys)
    for key, number in zip(separators, numbers, strict=True):
        parent.insert(index, key, number)
        index += 1
    if parent.size > pages.page_size - PAGE_HEADER_SIZE:
        _split_branch(pages, root, path, parent_number, parent, is_append)


def _split_branch(
    pages: MutablePages, root: int, path: Path, number: int, branch: Branch, is_append: bool
) -> None:
    keys, children = branch.keys, branch.children
    middle = len(keys) - 2
    if not is_append:
        ends = list(accumulate([ENTRY_SIZE + len(key) for key in keys]))
        middle = min(max(bisect_left(ends, ends[-1] / 2), 1), len(keys) - 2)
    right = Branch(keys[middle + 1 :], children[middle + 1 :])
    pages.put(number, Branch(keys[:middle], children[: middle + 1]))
    _adopt(pages, root, path, [keys[middle]], [right])


# ------------------------------------------------------------------------------ shrinking


def shrink(pages: MutablePages, root: int, path: Path, number: int) -> None:
    """Put a node right that has lost an item: free it when empty, merge it when small (TS3)."""
    node = pages.get(number)
    assert isinstance(node, Leaf | Branch), "a tree has leaves and branches"
    if not path:
        _lift(pages, root)
    elif not (node.children if isinstance(node, Branch) else node.keys):
        pages.free(number)
        _drop_child(pages, root, path)
    elif node.size < (pages.page_size - PAGE_HEADER_SIZE) // 4:
        _merge(pages, root, path)


def _lift(pages: MutablePages, root: int) -> None:
    """Move the only child of the root into it, as often as there is only one."""
    for _ in range(MAX_DEPTH):
        node = pages.get(root)
        if type(node) is not Branch or len(node.children) > 1:
            return
        if not node.children:
            pages.put(root, Leaf([], [], 0))
            return
        child_number = node.children[0]
        child = pages.get(child_number)
        if child_number == root or not isinstance(child, Leaf | Branch):
            break
        pages.put(root, child.copy())
        pages.free(child_number)
    raise depth_error(root, root)


def _drop_child(pages: MutablePages, root: int, path: Path) -> None:
    """Take the child that the path takes out of its parent; its page is free already."""
    parent_number, index = path.pop()
    parent = pages.change(parent_number)
    assert type(parent) is Branch, "a path goes through branches"
    parent.remove(index)
    shrink(pages, root, path, parent_number)


def _merge(pages: MutablePages, root: int, path: Path) -> None:
    """Join the node at the end of the path with the neighbour before or behind it, if one fits."""
    parent_number, index = path[-1]
    parent = pages.get(parent_number)
    assert type(parent) is Branch, "a path goes through branches"
    limit = (pages.page_size - PAGE_HEADER_SIZE) * 3 // 4
    for left in (index - 1, index):
        if not 0 <= left < len(parent.keys):
            continue
        left_number, right_number = parent.children[left : left + 2]
        key = parent.keys[left]
        size = _joined_size(pages.get(left_number), key, pages.get(right_number))
        if 0 < size <= limit:
            _join(pages, left_number, key, right_number)
            pages.free(right_number)
            path[-1] = (parent_number, left + 1)
            _drop_child(pages, root, path)
            return


def _joined_size(left: Node, key: bytes, right: Node) -> int:
    """Bytes that two neighbours need in one page; 0 when they are of different kinds."""
    if type(left) is Leaf and type(right) is Leaf:
        return left.size + right.size
    if type(left) is Branch and type(right) is Branch:
        return left.size + right.size - CHILD_SIZE + ENTRY_SIZE + len(key)
    return 0


def _join(pages: MutablePages, left_number: int, key: bytes, right_number: int) -> None:
    left = pages.change(left_number)
    right = pages.get(right_number)
    if type(left) is Leaf and type(right) is Leaf:
        left.keys += right.keys
        left.values += right.values
        left.size += right.size
        left.has_references |= right.has_references
    elif type(left) is Branch and type(right) is Branch:
        left.keys += [key, *right.keys]
        left.size = _joined_size(left, key, right)
        left.children += right.children
