"""Trees in damaged and in hostile files: every call ends, and with nothing but DatabaseError."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from itertools import islice

import pytest

from m2mdb.pager.btree import BTree
from m2mdb.pager.errors import CorruptDatabaseError, DatabaseError
from m2mdb.pager.page import Branch, Leaf, OverflowPage, OverflowReference, TreeNode
from m2mdb.pager.pages import Node

ROOT = 2


class HostilePages:
    """Pages that somebody else wrote: no rule holds but what decoding a page checks."""

    def __init__(self, nodes: dict[int, Node], page_size: int = 512) -> None:
        self.page_size = page_size
        self.nodes = nodes
        self.count = max(nodes)

    def get(self, page_number: int) -> Node:
        if page_number not in self.nodes:
            raise CorruptDatabaseError(f"page {page_number} of the file: no page")
        return self.nodes[page_number]

    def change(self, page_number: int) -> Node:
        self.nodes[page_number] = self.get(page_number).copy()
        return self.nodes[page_number]

    def put(self, page_number: int, node: Node) -> None:
        self.nodes[page_number] = node

    def allocate(self) -> int:
        self.count += 1
        return self.count

    def free(self, page_number: int) -> None:
        self.get(page_number)
        del self.nodes[page_number]


def tree(**nodes: TreeNode) -> BTree:
    return BTree(HostilePages({int(name[1:]): node for name, node in nodes.items()}), ROOT)


def faults(damaged: BTree) -> list[str]:
    found: list[str] = []
    damaged.check(found.append)
    return found


def chained(length: int, **pieces: TreeNode) -> BTree:
    return tree(p2=Leaf([b"k"], [OverflowReference.of(3, length)]), **pieces)


PIECE = b"x" * 488
A, M, Z = Leaf([b"a"], [b""]), Leaf([b"m"], [b""]), Leaf([b"z"], [b""])

DAMAGED = [
    (tree(p2=Branch([b"k"], [2, 2])), r"page 2 .* used twice"),
    (tree(p2=Branch([b"k"], [3, 3]), p3=A), r"page 3 .* used twice"),
    (tree(p2=Branch([], [3]), p3=Branch([], [2])), r"page 2 .* used twice"),
    (tree(p2=Branch([b"k"], [3, 4]), p3=A, p4=M.copy()), None),
    (tree(p2=Branch([b"k"], [3, 4]), p3=M, p4=Z), r"page 3 .leaf.* b'm' is not below b'k'"),
    (tree(p2=Branch([b"k"], [3, 4]), p3=A, p4=A.copy()), r"page 4 .leaf.* b'a' is below .* b'k'"),
    (tree(p2=Branch([b"k"], [3, 4]), p3=A, p4=Leaf([], [])), r"page 4 .leaf.* it is empty"),
    (
        tree(p2=Branch([b"k"], [3, 4]), p3=A, p4=Branch([], [5]), p5=Z),
        r"page 5 .leaf.* depth 3, expected 2",
    ),
    (tree(p2=Branch([b"k"], [3, 9]), p3=A), r"page 9 .* no page"),
    (tree(p2=OverflowPage(0, b"x")), "page 2 .* no leaf and no branch"),
    (tree(p2=Leaf([b"b", b"a"], [b"", b""])), r"page 2 .leaf.* b'a' follows key b'b'"),
    (tree(p2=Leaf([b"b"], [b"", b""])), "1 keys, 2 values"),
    (tree(p2=Leaf([b"b"], [b""], 99)), "size 99, expected 7"),
    (tree(p2=Branch([b"b"], [3, 4], 99), p3=A, p4=M), "size 99, expected 11"),
    (chained(600, p3=OverflowPage(3, PIECE)), "page 3 comes back to it, 112 bytes are missing"),
    (chained(600, p3=OverflowPage(0, PIECE)), "page 0 ends too early, 112 bytes are missing"),
    (chained(2**63, p3=OverflowPage(4, PIECE), p4=OverflowPage(3, PIECE)), "comes back to it"),
    (chained(488, p3=OverflowPage(4, PIECE)), "page 4 follows the last byte"),
    (chained(600, p3=OverflowPage(4, b"x")), "page 3 holds 1 bytes, expected 488"),
    (chained(600, p3=A), "page 3 is no overflow page"),
    (chained(600, p3=OverflowPage(9, PIECE)), "page 9 of the file: no page"),
]


@pytest.mark.parametrize(("damaged", "message"), DAMAGED)
def test_a_check_names_page_and_reason(damaged: BTree, message: str | None) -> None:
    found = faults(damaged)

    if message is None:
        assert found == []
    else:
        assert re.search(message, "\n".join(found))


@pytest.mark.parametrize(
    "damaged",
    [
        tree(p2=Branch([b"k"], [2, 2])),
        tree(p2=Branch([], [3]), p3=Branch([b"c"], [2, 3])),
        tree(p2=OverflowPage(0, b"x")),
    ],
)
def test_a_descent_that_meets_no_leaf_is_damage(damaged: BTree) -> None:
    for attempt in (
        lambda: damaged.get(b"q"),
        lambda: damaged.put(b"q", b""),
        lambda: damaged.delete(b"q"),
        damaged.first,
        damaged.last,
        lambda: list(damaged.scan()),
        lambda: list(damaged.scan(reverse=True)),
        lambda: list(damaged.pages_used()),
        damaged.clear,
    ):
        with pytest.raises(CorruptDatabaseError, match=r"page [23]"):
            attempt()


def test_two_trees_with_a_page_in_common_are_found() -> None:
    pages = HostilePages({2: A, 3: Branch([b"k"], [2, 4]), 4: Z})
    seen: set[int] = set()
    found: list[str] = []

    BTree(pages, 2).check(found.append, seen)
    BTree(pages, 3).check(found.append, seen)

    assert len(found) == 1 and "page 2" in found[0] and "used twice" in found[0]


def random_node(generator: random.Random) -> Node:
    keys = sorted({generator.randbytes(generator.randrange(3)) for _ in range(6)})
    kind = generator.random()
    if kind < 0.5:
        return Branch(keys, [generator.randrange(2, 14) for _ in range(len(keys) + 1)])
    if kind < 0.85:
        values = [
            OverflowReference.of(generator.randrange(2, 14), generator.randrange(1, 2000))
            if generator.random() < 0.2
            else generator.randbytes(generator.randrange(60))
            for _ in keys
        ]
        return Leaf(keys, list[bytes](values))
    data = PIECE if generator.random() < 0.7 else PIECE[: generator.randrange(1, 488)]
    return OverflowPage(generator.randrange(0, 14), data)


@pytest.mark.parametrize("seed", range(400))
def test_a_hostile_file_gives_answers_or_errors_and_ends(seed: int) -> None:
    generator = random.Random(seed)
    pages = HostilePages({number: random_node(generator) for number in range(2, 14)})
    damaged = BTree(pages, ROOT)
    damaged.check(lambda fault: None)
    calls: list[Callable[[], object]] = [
        lambda: damaged.get(generator.randbytes(2)),
        lambda: list(islice(damaged.scan(), 10_000)),
        lambda: list(islice(damaged.scan(b"\x10", b"\xf0", reverse=True), 10_000)),
        damaged.first,
        damaged.last,
        lambda: list(damaged.pages_used()),
        lambda: damaged.put(generator.randbytes(2), generator.randbytes(300)),
        lambda: damaged.delete(generator.choice([*dict(damaged.scan()), b"k"])),
        lambda: damaged.delete(generator.choice([*dict(damaged.scan()), b"k"])),
    ]

    for _ in range(60):
        try:
            found = generator.choice(calls)()
        except DatabaseError:
            continue
        assert not isinstance(found, list) or len(found) < 10_000
