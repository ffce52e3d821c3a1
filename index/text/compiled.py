"""Compiled search: what the searches of one snapshot share, and the call of the kernel.

    match text --> slots of its terms --> text_kernels.best --> hits
                        |
                    TextPlan: one table of lists, weights and largest impacts a snapshot

A term of a column gets a *slot* when it is searched for at a snapshot: where its list lies
in each part, its weight, and the largest impact in each list. Phrases, prefixes and fuzzy words get
slots for one search, of lists that are made for it. So a search for known words is a dictionary
look-up a word, and one call. A plan belongs to a CollectionView and goes with it.

What the kernel does not take (weights of zero or below, which `^0` and okapi give) is left to
`search_text`, whose every answer the kernel gives bit by bit.

Invariants
    X11 A plan holds every array whose address stands in its table.
    X12 Between two searches a plan holds SLOTS_KEPT slots at most, 72 bytes a slot and part, and
        lists of HELD_BYTES, which it shares with the segments that unpacked them. Impacts of
        lists take IMPACT_BYTES at most; those of further lists are worked out by each search.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from m2mdb.index.slices import unchecked
from m2mdb.index.text.atoms import weight_of_term
from m2mdb.index.text.postings import FLAT
from m2mdb.index.text.search import TINY, Search, TextHits
from m2mdb.index.text.segment import ORDER_WINDOW, TextSegment, address, list_of
from m2mdb.pager.errors import CorruptDatabaseError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType
    from typing import Any

    from numpy.typing import NDArray

    from m2mdb.compute.text_backend import Kernels
    from m2mdb.index.slices import Check
    from m2mdb.index.text.atoms import Atom, Mask, TextsOf
    from m2mdb.index.text.match_query import TextQuery
    from m2mdb.index.text.source import Source, TextColumn

    Ints = NDArray[np.int64]
    Opened = tuple[TextSegment, bytes, tuple[NDArray[Any], ...]]  # a list of a part, its arrays
    Slots = tuple[list[int], list[float]]  # slots in the order of the columns, and their boosts

SLOTS_KEPT = 1 << 14
HELD_BYTES = 128 << 20
IMPACT_BYTES = 32 << 20
LARGEST_WINDOW = ORDER_WINDOW  # rows summed at a time: 1.5 MB, which stay in the processor's cache
SPARE_SCRATCHES = 4
TALLIES = 512  # as `text_kernels`'
PROGRESS = 16  # as `text_scratch`', or more
FIRST_SLOTS = 64
PIECE = 1 << 20  # postings of one call, or their worth in hits: some milliseconds


class Scratch:
    """What one search at a time works in; `numbers` is `text_kernels`' scratch."""

    __slots__ = ("_arrays", "boosts", "k", "lists", "numbers", "query", "slots", "window", "words")

    def __init__(self, window: int, lists: int, k: int) -> None:
        """Room for windows of `window` rows, `lists` lists and the k best."""
        self.window = window
        self.lists = lists
        self.k = k
        # in the order of text_kernels: SUMS, TOUCHED, ORDER, STARTS, STOPS, REST, UPPERS, TALLY,
        # KEYS and PROGRESS_AT
        self._arrays: list[NDArray[Any]] = [
            np.zeros(window),
            np.empty(window, np.uint32),
            *[np.empty(lists, np.int64) for _ in range(3)],
            np.empty(lists + 1),
            np.empty(lists),
            np.empty(TALLIES, np.int32),
            np.empty(2 * k, np.int64),
            np.zeros(PROGRESS, np.int64),
        ]
        slots, boosts = np.empty(lists, np.int64), np.empty(lists)
        self._arrays += [slots, boosts]
        self.slots = slots.view(np.uint8).data.cast("q")  # of a query
        self.boosts = boosts.view(np.uint8).data.cast("d")
        rows_room = np.zeros(32, np.int64)
        self.numbers = np.concatenate(
            [np.array([*map(address, self._arrays[:-2]), window, PIECE], np.int64), rows_room]
        )
        # in the order of hybrid_kernels: PLAN, COUNT, SLOTS, BOOSTS, SCRATCH, SCRATCH_SIZE
        numbers = self.numbers
        self.words = np.array(
            (0, 0, address(slots), address(boosts), address(numbers), len(numbers)), np.int64
        )
        self.query = self.words.view(np.uint8).data.cast("q")


_spare: list[Scratch] = []  # taken and put back by single steps: threads never share one


def _scratch(window: int, lists: int, k: int) -> Scratch:
    """A scratch that is large enough."""
    try:
        found = _spare.pop()
    except IndexError:
        found = None
    if found is None or found.window < window or found.lists < lists or found.k < k:
        known = found or Scratch(1, 16, 16)
        found = Scratch(max(window, known.window), max(lists, known.lists), max(k, known.k))
    return found


class TextPlan:
    """The slots of some FULLTEXT columns at a snapshot; used by one thread at a time."""

    __slots__ = (
        "_ceilings", "_column_of", "_count", "_held", "_held_bytes", "_impact_bytes", "_impacts",
        "_kernels", "_lists", "_masked_parts", "_masks", "_norms", "_parts", "_passing", "_plan",
        "_plan_address", "_rowids", "_slots", "_table", "_weights", "_weights_by_slot", "_window",
        "columns",
    )  # fmt: skip

    def __init__(
        self,
        columns: Sequence[TextColumn],
        rowids: Sequence[NDArray[np.int64]],
        kernels: Kernels,
        window: int = LARGEST_WINDOW,
    ) -> None:
        """`rowids` as `search_text` takes them; at most `window` rows are summed at a time."""
        self.columns = columns
        self._kernels = kernels
        self._lists = kernels.lists
        self._rowids = [np.ascontiguousarray(ids, np.int64) for ids in rowids]
        self._held: list[Any] = []  # X11
        self._held_bytes = self._impact_bytes = 0
        self._passing: list[tuple[int, list[Opened]]] = []  # slots of the search at hand
        self._masks: list[NDArray[np.bool_] | None] = []
        self._masked_parts: Ints | None = None
        self._slots: list[dict[bytes, int]] = [{} for _ in columns]
        self._count = 0
        self._table: Ints
        self._impacts: Ints
        self._ceilings: NDArray[np.float64]
        self._weights: NDArray[np.float64]
        self._column_of: Ints
        self._weights_by_slot: list[float]
        sizes = [source.size for source in columns[0].sources]
        self._window = max(1, min(window, max(sizes, default=1)))
        self._norms = np.zeros((len(columns), kernels.lists.NORM))
        lengths = []
        for number, column in enumerate(columns):
            self._norms[number] = _norms_of(column, kernels.lists)
            lengths.append([np.ascontiguousarray(s.lengths, np.uint32) for s in column.sources])
        self._held.append(lengths)
        self._parts = np.array(
            [
                [
                    sizes[part],
                    0,
                    address(self._rowids[part]),
                    *[address(of[part]) for of in lengths],
                ]
                for part in range(len(sizes))
            ],
            np.int64,
        ).reshape(len(sizes), kernels.search.FIRST_LENGTHS + len(columns))
        self._resize(FIRST_SLOTS)

    def _resize(self, capacity: int) -> None:
        """Tables of another size, with the slots that are there."""
        parts, count = len(self._parts), self._count
        table = np.zeros((capacity, parts, self._lists.LIST), np.int64)
        ceilings, weights = np.zeros((capacity, parts)), np.zeros(capacity)
        impacts = np.zeros((capacity, parts), np.int64)
        column_of = np.zeros(capacity, np.int64)
        weights_by_slot = [0.0] * capacity
        if count:
            table[:count], ceilings[:count] = self._table[:count], self._ceilings[:count]
            impacts[:count] = self._impacts[:count]
            weights[:count], column_of[:count] = self._weights[:count], self._column_of[:count]
            weights_by_slot[:count] = self._weights_by_slot[:count]
        self._table, self._ceilings, self._weights = table, ceilings, weights
        self._column_of, self._weights_by_slot = column_of, weights_by_slot
        self._impacts = impacts
        arrays = (table, ceilings, weights, column_of, self._norms)
        sizes = (parts, len(self.columns))
        self._plan = np.array([*map(address, arrays), *sizes, address(impacts)], np.int64)
        self._plan_address = address(self._plan)

    # Slots

    @property
    def slot_count(self) -> int:
        """How many slots there are."""
        return self._count

    def _new_slot(self, number: int, weight: float) -> int:
        """An empty slot of a column."""
        slot = self._count
        if slot == len(self._weights):
            self._resize(2 * slot)
        self._table[slot] = self._impacts[slot] = 0
        self._weights[slot] = self._weights_by_slot[slot] = weight
        self._column_of[slot] = number
        self._count = slot + 1
        return slot

    def _slot_of(self, number: int, term: bytes) -> int:
        """The slot of a term of a column, -1 where no part has it.

        Long lists that few searches have asked for are unpacked block by block: such a slot is for
        the search at hand alone.
        """
        column, kernels = self.columns[number], self._lists
        frequency, lists = 0, []
        passing: list[Opened] = []
        for part, source in enumerate(column.sources):
            if not source.document_count:
                continue
            if (
                isinstance(source, TextSegment)
                and (opened := source.opened(term, self._kernels)) is not None
            ):
                frequency += int(opened[0][kernels.COUNT])
                lists.append((part, opened[0]))
                passing.append((source, term, opened[1]))
                continue
            checked, held = checked_list(source, term, kernels, column.check)
            if checked is not None:
                frequency += int(checked[kernels.COUNT])
                lists.append((part, checked))
                if held is not None:
                    self._held.append(held)
                    self._held_bytes += sum([array.nbytes for array in held])
        slot = -1
        column.check()
        if lists:
            slot = self._new_slot(number, weight_of_term(column, frequency))
            for part, checked in lists:
                kernels.place_list(self._plan, checked, slot, part, number)
                if not passing:
                    self._keep_impacts(slot, part, int(checked[kernels.COUNT]))
        if passing:
            self._passing.append((slot, passing))
        else:
            self._slots[number][term] = slot
        return slot

    def _let_pass(self) -> bool:
        """Give up the slots of the search at hand (X11); whether all blocks it read could be."""
        blocks, can_be = self._kernels.blocks, True
        for slot, lists in self._passing:
            self._table[slot] = 0
            for source, term, (state, docs, _) in lists:
                source.note_opened(term, len(docs), int(state[blocks.UNPACKED]))
                can_be = can_be and not state[blocks.SPOILT]
        self._passing.clear()
        return can_be

    def _keep_impacts(self, slot: int, part: int, count: int) -> None:
        """Have the impacts of a list ready for the searches that follow, if there is room."""
        if self._impact_bytes + 8 * count <= IMPACT_BYTES:
            impacts = np.empty(count)
            self._lists.note_impacts(self._plan, self._parts[part], slot, part, impacts)
            self._impacts[slot, part] = address(impacts)
            self._held.append(impacts)
            self._impact_bytes += impacts.nbytes

    def _slot_for(self, atom: Atom, held: list[Any]) -> int:
        """A slot for the lists of an atom, which `held` keeps."""
        column, kernels = self.columns[atom.column], self._lists
        # The atom's weight has its boost and the column's in it already.
        slot = self._new_slot(atom.column, atom.weight)
        for part, (docs, frequencies) in enumerate(atom.lists):
            if len(docs):
                lengths = column.sources[part].lengths
                checked, arrays = list_of(docs, frequencies, lengths, kernels)
                held.append(arrays)
                kernels.place_list(self._plan, checked, slot, part, atom.column)
        return slot

    # Searching

    def search(
        self,
        query: TextQuery,
        k: int,
        masks: Sequence[Mask] | None,
        texts_of: TextsOf | None,
    ) -> TextHits | None:
        """As `search_text`; None where that has to do it."""
        self._let_pass()
        if self._count > SLOTS_KEPT or self._held_bytes > HELD_BYTES:
            self._slots = [{} for _ in self.columns]
            self._count = self._held_bytes = self._impact_bytes = 0
            del self._held[1:]
        if query.written is not None:
            return self._search_atoms(query, k, masks, texts_of)
        slots, boosts = [], []
        for number, column in enumerate(self.columns):
            known, weights = self._slots[number], self._weights_by_slot
            for clause in query.clauses_for(column.analyzer):
                term = clause.terms[0]
                slot = known.get(term)
                if slot is None:
                    column.check()
                    slot = self._slot_of(number, term)
                    weights = self._weights_by_slot
                if slot >= 0:
                    if weights[slot] * clause.boost * column.weight <= TINY:
                        return None
                    slots.append(slot)
                    boosts.append(clause.boost)
            if column.variant.baseline:
                return self._search_atoms(query, k, masks, texts_of)
        return self._best(slots, boosts, 0.0, k, masks)

    def ready(self, text: str, k: int) -> Scratch | None:
        """Scratch whose `words` are what `hybrid_kernels` takes for a text of words alone.

        None where some word has no slot yet, or the kernel does not take it: `search` does then.
        It is to be given back.
        """
        slots: list[int] = []
        boosts: list[float] = []
        for number, column in enumerate(self.columns):
            known, weights = self._slots[number], self._weights_by_slot
            counts: dict[bytes, float] = {}
            for term in column.analyzer.terms(text):
                counts[term] = counts.get(term, 0.0) + 1.0
            for term, boost in counts.items():
                slot = known.get(term)
                if slot is None:
                    return None
                if slot >= 0:
                    if weights[slot] * boost * column.weight <= TINY:
                        return None
                    slots.append(slot)
                    boosts.append(boost)
        scratch = _scratch(self._window, len(slots), k)
        all_slots, all_boosts, query = scratch.slots, scratch.boosts, scratch.query
        for at, slot in enumerate(slots):  # an item at a time: to assign a list takes longer
            all_slots[at], all_boosts[at] = slot, boosts[at]
        query[0], query[1] = self._plan_address, len(slots)
        return scratch

    @staticmethod
    def give_back(scratch: Scratch) -> None:
        """The scratch of `ready` may serve the next search."""
        if len(_spare) < SPARE_SCRATCHES:
            _spare.append(scratch)

    def parts_in_memory(self, masks: Sequence[Mask]) -> Ints | None:
        """The parts as the kernel takes them; None where lists are read in the file, or scores
        have a baseline.

        masks  of each part: the rows that may be found; None: all. Those of the first call stay
        """
        if self._masked_parts is not None:
            return self._masked_parts
        for column in self.columns:
            flat = [isinstance(s, TextSegment) and s.version == FLAT for s in column.sources]
            if column.variant.baseline or any(flat):
                return None
        parts = self._parts.copy()
        held = [None if mask is None else np.ascontiguousarray(mask, bool) for mask in masks]
        for part, mask in enumerate(held):
            if mask is not None:
                parts[part, self._kernels.search.MASK] = address(mask)
        self._masks, self._masked_parts = held, parts  # X11
        return parts

    def _search_atoms(
        self,
        query: TextQuery,
        k: int,
        masks: Sequence[Mask] | None,
        texts_of: TextsOf | None,
    ) -> TextHits | None:
        """`search` for clauses of every kind."""
        search = Search(query, self.columns, masks, texts_of)
        if not search.is_compilable:
            return None
        count = self._count
        held: list[Any] = []
        try:
            slots = [self._slot_for(atom, held) for group in search.scored for atom in group]
            allowed = search.allowed_masks()
            factors = self._norms[:, self._lists.FACTOR].copy()
            self._norms[:, self._lists.FACTOR] = 1.0
            try:
                return self._best(slots, [1.0] * len(slots), search.baseline, k, allowed)
            finally:
                self._norms[:, self._lists.FACTOR] = factors
        finally:
            self._count = count

    def _best(
        self,
        slots: list[int],
        boosts: list[float],
        baseline: float,
        k: int,
        masks: Sequence[Mask] | None,
    ) -> TextHits:
        """Call the kernel."""
        scores, rowids = np.empty(k, np.float32), np.empty(k, np.int64)
        places = np.empty((2, k), np.int64)
        parts = self._parts
        held: list[Any] = []
        if masks is not None:
            for part, mask in enumerate(masks):
                if mask is not None:
                    if parts is self._parts:
                        parts = parts.copy()
                    held.append(np.ascontiguousarray(mask, bool))
                    parts[part, self._kernels.search.MASK] = address(held[-1])
        scratch = _scratch(self._window, len(slots), k)
        query = self._plan, np.array(slots, np.int64), np.array(boosts, np.float64)
        hits = scores, rowids, places
        self.columns[0].check()
        best = self._kernels.search.best
        while (count := best(query, scratch.numbers, parts, baseline, hits)) < 0:
            self.columns[0].check()  # a search that ends here keeps its scratch to itself
        self.give_back(scratch)
        if self._passing and not self._let_pass():
            raise CorruptDatabaseError(
                f"text of {', '.join([column.name for column in self.columns])}: a block of a list "
                "is damaged"
            )
        return TextHits(places[0, :count], places[1, :count], rowids[:count], scores[:count], None)


def checked_list(
    source: Source, term: bytes, lists: ModuleType, check: Check = unchecked
) -> tuple[Ints | None, Any]:
    """The list of a term as a plan takes it, None where there is none; and what it needs kept."""
    if isinstance(source, TextSegment):
        return source.checked(term, lists, check)
    docs, frequencies = source.postings(term)
    return list_of(docs, frequencies, source.lengths, lists) if len(docs) else (None, None)


def _norms_of(column: TextColumn, lists: ModuleType) -> list[float]:
    """A row of `text_lists.NORMS`."""
    base, slope = column.variant.norm(column.statistics)
    is_raised, scale, k1, delta = column.variant.constants
    variant = lists.RAISED if is_raised else lists.RATIO
    return [base, slope, variant, scale, k1, delta, column.weight]
