"""The free map: which pages of the file nothing uses, and since which commit.

A run is a row of neighbouring free pages that were freed by one commit. On disk the runs are a
B+tree at the header's `free_root`:

    key    u64 start page, big-endian (so that keys ascend as pages do)
    value  u32 length in pages, u64 number of the commit that freed them (little-endian); its top
           bit says that the pages are to be scrubbed: nobody uses them before they are zeros

In memory they are a dict and a sorted list of starts, loaded once and kept from commit to commit.

    take ---> the caller's        \\
    give <--- freed by the caller  >  journal  --flush-->  tree   (undo: back along the journal)

Invariants
    FM1 Runs do not overlap; used pages and free pages together are all pages of the file.
    FM2 Whether a run may be used again is S9's matter: the caller's `usable` says so of each run.
    FM3 Neighbouring runs become one only when the same commit freed them, or, in `merge`, when
        both are usable; the later commit is kept. Nothing is ever usable sooner than its run was.
    FM4 The journal has a change's old value before the change is made, so that `undo` restores the
        map wherever an exception struck (S12).
    FM5 The tree of the free map takes its own pages from the end of the file only; what it frees
        is given to this map while it is flushed, and flushed in a further round.
    FM6 A run with the SCRUB bit was freed by a commit beyond all commits, so that no `usable` ever
        allows it; `end_scrub` alone makes it an ordinary run (S26).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator, Sequence
from struct import Struct
from typing import TYPE_CHECKING

from m2mdb.pager.errors import CorruptDatabaseError, InternalError

if TYPE_CHECKING:
    from m2mdb.pager.btree import BTree

Usable = Callable[[int, int, int], bool]  # of a run: start page, length in pages, freeing commit

SCRUB = 1 << 63  # in the commit of a run: its pages are zeroed before anything else (FM6)
_KEY = Struct(">Q")
_VALUE = Struct("<IQ")
_SMALL_RUN = 8  # pages; single pages come from such runs first and leave long ones to extents
_RUNS_COMPARED = 32  # usable runs that the search for a small one looks at
_FLUSH_ROUNDS = 100  # each round's tree frees fewer pages than the one before


def encode_run(start: int, length: int, commit: int) -> tuple[bytes, bytes]:
    """Key and value of a run in the tree."""
    return _KEY.pack(start), _VALUE.pack(length, commit)


def decode_run(key: bytes, value: bytes) -> tuple[int, int, int]:
    """Start, length and freeing commit; raises CorruptDatabaseError unless it is a run."""
    if len(key) != _KEY.size or len(value) != _VALUE.size:
        raise CorruptDatabaseError(
            f"free map: an entry of {len(key)} and {len(value)} bytes, "
            f"expected {_KEY.size} and {_VALUE.size}"
        )
    (start,) = _KEY.unpack(key)
    length, commit = _VALUE.unpack(value)
    if start < 2 or not length:
        raise CorruptDatabaseError(f"free map: {length} free pages from page {start}")
    return start, length, commit


def scrub_pages(run: tuple[int, int] | None) -> int:
    """How many pages of a run (length, commit) are to be scrubbed."""
    return run[0] if run is not None and run[1] & SCRUB else 0


class FreeMap:
    """The free runs as of the newest commit, with the changes of the open transaction.

    Not for two transactions at a time: there is one writer.
    """

    __slots__ = (
        "_flushed",
        "_hint",
        "_journal",
        "_runs",
        "_starts",
        "_usable",
        "page_count",
        "scrub_count",
    )

    def __init__(self) -> None:
        self.page_count = 0  # of free pages
        self.scrub_count = 0  # of those, pages that are to be scrubbed
        self._runs: dict[int, tuple[int, int]] = {}  # start -> length, commit
        self._starts: list[int] = []
        self._journal: list[tuple[int, tuple[int, int] | None]] = []
        self._flushed = 0  # entries of the journal that the tree has
        self._usable: Usable | None = None
        self._hint = 0  # no run before it holds a page that `_usable` allows

    @classmethod
    def load(cls, tree: BTree, page_count: int, where: str) -> FreeMap:
        """The runs in a tree, of a file of so many pages; CorruptDatabaseError by FM1."""
        found = cls()
        end = 0
        for key, value in tree.scan():
            start, length, commit = decode_run(key, value)
            if start < end or start + length > page_count + 1:
                raise CorruptDatabaseError(
                    f"free map of {where}: pages {start} to {start + length - 1}, "
                    f"expected within {max(end, 2)} to {page_count}"
                )
            end = start + length
            found._runs[start] = (length, commit)
            found.page_count += length
            found.scrub_count += scrub_pages((length, commit))
        found._starts = list(found._runs)
        return found

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        """The runs in order: start, length, freeing commit."""
        return iter([(start, *self._runs[start]) for start in self._starts])

    def __len__(self) -> int:
        return len(self._runs)

    # -------------------------------------------------------------------------- taking, giving

    def take(self, count: int, usable: Usable, blocked: Sequence[int] = ()) -> int | None:
        """The first of `count` neighbouring pages, now no longer free; None: there are not so many.

        blocked  pages that may not be among them, ascending

        Asking again with the same function object goes on where the last search ended, so one
        object has to give the same answers all its life.
        """
        if usable is not self._usable:
            self._usable, self._hint = usable, 0
        is_page = count == 1 and not blocked
        start = self._find_page(usable) if is_page else self._find_stretch(count, usable, blocked)
        if start is not None:
            self.claim(start, count)
        return start

    def _find_page(self, usable: Usable) -> int | None:
        runs, starts = self._runs, self._starts
        best: int | None = None
        compared = best_length = 0
        for index in range(bisect_left(starts, self._hint), len(starts)):
            start = starts[index]
            length, commit = runs[start]
            if not usable(start, length, commit):
                continue
            if best is None:
                self._hint = start
            if best is None or length < best_length:
                best, best_length = start, length
            compared += 1
            if length <= _SMALL_RUN:
                return start
            if compared == _RUNS_COMPARED:
                break
        if best is None:
            self._hint = starts[-1] + 1 if starts else 0
        return best

    def _find_stretch(self, count: int, usable: Usable, blocked: Sequence[int]) -> int | None:
        """The start of the shortest stretch that is long enough, the first of several.

        So what is short leaves the long stretches whole for what is long.
        """
        best: int | None = None
        best_length = 0
        for start, end in self._stretches(usable, blocked):
            if end - start >= count and (best is None or end - start < best_length):
                best, best_length = start, end - start
        return best

    def _stretches(self, usable: Usable, blocked: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Start and end of usable pages without a gap, of one run or of several that touch."""
        first = end = 0
        for start in self._starts:
            length, commit = self._runs[start]
            if not usable(start, length, commit):
                continue
            if start != end:
                yield first, end
                first = start
            end = start + length
            at, last = bisect_left(blocked, start), bisect_left(blocked, end)
            for page in blocked[at:last]:
                yield first, page
                first = page + 1
        yield first, end

    def claim(self, first: int, count: int) -> None:
        """Take exactly these pages, of one run or of several that touch.

        Raises InternalError when one of them is not free.
        """
        starts = self._starts
        index = bisect_right(starts, first) - 1
        end = first + count
        while index >= 0 and index < len(starts) and starts[index] <= first < end:
            start = starts[index]
            after = start + self._runs[start][0]
            if after <= first:
                break
            if after >= end:
                self._claim(start, first, end)
                return
            self._claim(start, first, after)
            first = after
            index = bisect_right(starts, first) - 1
        raise InternalError(f"page {first} is claimed, which is not free")

    def _claim(self, start: int, first: int, end: int) -> None:
        """Take pages out of one run."""
        length, commit = self._runs[start]
        after = start + length
        self._set(start, (first - start, commit) if start < first else None)
        if after > end:
            self._set(end, (after - end, commit))

    def last(self) -> tuple[int, int, int] | None:
        """The run with the highest pages: start, length, freeing commit."""
        if not self._starts:
            return None
        start = self._starts[-1]
        return (start, *self._runs[start])

    def give(self, start: int, length: int, commit: int) -> None:
        """Pages become free as of a commit.

        Raises InternalError when one of them is free already.
        """
        runs, starts = self._runs, self._starts
        index = bisect_right(starts, start)
        before = starts[index - 1] if index else 0
        following = starts[index] if index < len(starts) else 0
        after = start + length
        if before and before + runs[before][0] > start:
            raise InternalError(f"page {start} is freed twice, now by commit {commit}")
        if following and following < after:
            raise InternalError(f"page {following} is freed twice, now by commit {commit}")
        if before and runs[before] == (start - before, commit):
            self._set(before, None)
            start = before
        if following == after and runs[following][1] == commit:
            after += runs[following][0]
            self._set(following, None)
        self._set(start, (after - start, commit))
        self._hint = min(self._hint, start)

    def merge(self, usable: Usable) -> None:
        """Join runs that touch and are both usable (FM3)."""
        previous: tuple[int, int, int] | None = None
        for start, length, commit in self:
            if not usable(start, length, commit):
                previous = None
                continue
            if previous is not None and previous[0] + previous[1] == start:
                self._set(start, None)
                joined = (previous[1] + length, max(previous[2], commit))
                self._set(previous[0], joined)
                previous = (previous[0], *joined)
            else:
                previous = (start, length, commit)

    def end_scrub(self, commit: int) -> None:
        """The pages that were to be scrubbed are zeros: they are free as of a commit (FM6)."""
        for start, length, freed in self:
            if freed & SCRUB:
                self._set(start, None)
                self.give(start, length, commit)

    def _set(self, start: int, run: tuple[int, int] | None) -> None:
        old = self._runs.get(start)
        self._journal.append((start, old))
        if run is None:
            del self._starts[bisect_left(self._starts, start)]
            del self._runs[start]
        else:
            if old is None:
                insort(self._starts, start)
            self._runs[start] = run
        self.page_count += (run[0] if run else 0) - (old[0] if old else 0)
        self.scrub_count += scrub_pages(run) - scrub_pages(old)

    # -------------------------------------------------------------------------- transactions

    def mark(self) -> int:
        """A place in the journal, for `undo`."""
        return len(self._journal)

    def undo(self, mark: int) -> None:
        """Restore the map as it was at a mark; the tree goes back with its pages (P2)."""
        self._flushed = 0
        if mark == len(self._journal):
            return
        runs = dict(self._runs)
        for start, old in reversed(self._journal[mark:]):
            if old is None:
                runs.pop(start, None)
            else:
                runs[start] = old
        self._starts = sorted(runs)
        self._runs = runs
        self.page_count = sum([length for length, _ in runs.values()])
        self.scrub_count = sum(map(scrub_pages, runs.values()))
        self._hint = 0
        del self._journal[mark:]

    def settle(self) -> None:
        """The transaction is committed, flushed before: its changes cannot be undone any more."""
        assert self._flushed == len(self._journal), "FM1: a commit without its free pages"
        self._journal.clear()
        self._flushed = 0
        self._usable = None

    @property
    def is_flushed(self) -> bool:
        """Whether the tree has every change."""
        return self._flushed == len(self._journal)

    def flush(self, tree: BTree) -> None:
        """Write the changes to the tree, and those that writing makes, until there are none (FM5).

        The pages of `tree` allocate at the end of the file, and give to this map what they free.
        """
        for _ in range(_FLUSH_ROUNDS):
            limit = len(self._journal)
            for start in sorted({start for start, _ in self._journal[self._flushed :]}):
                self._write(tree, start)
            self._flushed = limit
            if self._flushed == len(self._journal):
                return
        raise InternalError(f"free map: not at rest after {_FLUSH_ROUNDS} rounds")

    def _write(self, tree: BTree, start: int) -> None:
        run = self._runs.get(start)
        key = _KEY.pack(start)
        if run is None:
            tree.delete(key)
            return
        value = _VALUE.pack(*run)
        if tree.get(key) != value:
            tree.put(key, value)
