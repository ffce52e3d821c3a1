"""DictPages: pages in a dict, with the rules of MutablePages held by assertions."""

from __future__ import annotations

from m2mdb.pager.errors import CorruptDatabaseError
from m2mdb.pager.page import TreeNode, decode_page
from m2mdb.pager.pages import Node


class DictPages:
    """Shared nodes of the last commit, and private ones of the transaction that is open."""

    def __init__(self, page_size: int = 4096) -> None:
        self.page_size = page_size
        self.committed: dict[int, Node] = {}
        self.private: dict[int, Node] = {}
        self.freed: set[int] = set()  # in this transaction
        self.free_pages: list[int] = []  # by earlier ones
        self.allocated: set[int] = set()  # without content so far
        self.page_count = 1

    def get(self, page_number: int) -> Node:
        node = self.private.get(page_number) or self.committed.get(page_number)
        if node is None or page_number in self.freed:
            raise CorruptDatabaseError(f"page {page_number} of the dict: no page")
        return node

    def change(self, page_number: int) -> Node:
        assert page_number not in self.freed
        node = self.private.get(page_number)
        if node is None:
            node = self.private[page_number] = self.committed[page_number].copy()
        return node

    def put(self, page_number: int, node: Node) -> None:
        assert page_number not in self.freed
        assert page_number in self.allocated or page_number in self.numbers()
        self.allocated.discard(page_number)
        self.private[page_number] = node

    def allocate(self) -> int:
        if self.free_pages:
            number = self.free_pages.pop()
        else:
            self.page_count += 1
            number = self.page_count
        assert number not in self.numbers()
        self.allocated.add(number)
        return number

    def free(self, page_number: int) -> None:
        assert page_number in self.numbers(), f"page {page_number} is free already"
        assert page_number not in self.allocated
        self.freed.add(page_number)

    def numbers(self) -> set[int]:
        return (self.committed.keys() | self.private.keys()) - self.freed

    def images(self) -> dict[int, bytes]:
        return {n: self.get(n).encode(n, self.page_size) for n in sorted(self.numbers())}

    def commit(self) -> None:
        """Through bytes and back; what was freed can be used again."""
        assert not self.allocated, "a page was allocated and given no content"
        nodes = self.decoded(self.images())
        self.free_pages += self.freed
        self.committed = dict(nodes)
        self.private = {}
        self.freed = set()

    def decoded(self, images: dict[int, bytes]) -> dict[int, TreeNode]:
        return {n: decode_page(raw, n, self.page_size, "the dict") for n, raw in images.items()}
