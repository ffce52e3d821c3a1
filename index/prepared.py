"""Prepared: what the searches of a column need of a snapshot, made once and used by all of them.

    lists of segments --search--> candidates --+
    segments without lists --scan--> numbers --+--answer (one call)--> Found
    codes of the delta ------------------------+

It says the same as `index.nearest` does step by step, with the same scores in the same order, in
as little Python as may be. Kept by its CollectionView, it goes when that goes: with the next
commit, and within a transaction with the next statement.

Invariants
    PR1 Nothing here is changed by a search, but for what is kept for the next one of its kind.
    PR2 The rows of the delta are found by bounds that surely hold, so that they are found as a scan
        would find them. Beside lists one bound of two holds for all but a few rows in a million.
    PR3 What is read of an extent is verified before (S18): the kernel names rows that are not, and
        is called again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from m2mdb.compute.ranking import (
    MOST_INSERTED,
    NO_MASK,
    NO_NUMBERS,
    Answer,
    PartRows,
    RankPlan,
    Unverified,
    readable,
)
from m2mdb.index.audit import audit_of
from m2mdb.index.collection import SegmentPart
from m2mdb.index.compiled import CompiledSearch, HeldSearch, Searched
from m2mdb.index.found import Found, FoundMany
from m2mdb.index.gathered import gathered, known
from m2mdb.index.masks import MOST_GATHERED
from m2mdb.index.scanning import candidates_mask, part_arrays, scan_part
from m2mdb.index.schema import VECTOR_DTYPES

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence
    from types import ModuleType

    from m2mdb.compute.backend import Backend
    from m2mdb.compute.gathering import Gathered
    from m2mdb.compute.hrm2.reference import Stop
    from m2mdb.index.collection import CollectionView, Part
    from m2mdb.index.effort import Effort
    from m2mdb.index.hrm2 import SegmentLists
    from m2mdb.index.probing import Probing
    from m2mdb.index.view import View

    Masks = Sequence[np.ndarray | None] | None

LEAST_LISTED = 512  # rows of a delta that a batch finds by 1-bit codes: each query is rotated anew
KEPT_STEPS = 32  # of different k and efforts
MOST_TRIES = 40  # to make one call of a search under a condition: until there are codes
MOST_CANDIDATES = 4 * MOST_INSERTED  # of one query in a batch; those with more are searched alone
NEVER = 1 << 62
EASILY_SEARCHED = 1e23  # squared length of a query that lists take under l2 and ip (hrm2.LARGEST)


class Probe(NamedTuple):
    """A segment whose lists are searched.

    least   candidates, fewer than which are too few
    budget  lists, after which the search is to be a scan (`costs.is_spent`)
    """

    number: int
    lists: SegmentLists
    stop: Stop
    mask: np.ndarray | None
    least: int
    budget: int


class Steps(NamedTuple):
    """How a search goes: segments probed, then parts scanned; the mask of the delta."""

    probes: list[Probe]
    scans: list[int]
    delta: np.ndarray | None  # uint8; None: no row of it may be found


class Prepared:
    """A column of a snapshot, ready to be searched by compiled kernels."""

    __slots__ = (
        "_audit", "_column", "_compiled", "_filtered", "_gathered_bytes", "_held", "_index",
        "_kernels", "_listed", "_parts", "_plan", "_starts", "_steps", "_view",
    )  # fmt: skip

    def __init__(
        self, view: CollectionView, column_index: int, parts: list[PartRows], kernels: ModuleType
    ) -> None:
        """Use `prepared`."""
        self._view = view
        self._audit = audit_of(view)
        self._index = column_index
        self._column = view.schema.columns[column_index]
        self._kernels = kernels
        self._parts = view.parts()
        self._starts = [part.first for part in parts]
        self._steps: dict[tuple[int, Effort], Steps] = {}
        self._compiled: dict[tuple[int, Effort], CompiledSearch | None] = {}
        self._gathered_bytes = 0  # of codes that these keep alive
        self._filtered: dict[Hashable, CompiledSearch | int] = {}  # or how often it was tried
        self._held: dict[tuple[int, Effort], list[HeldSearch] | None] = {}
        delta, metric = self._parts[0], self._column.metric
        codes = None
        if delta.size:
            codes = (view.mirror.codes(column_index, delta.size, kernels), delta.size)
        dtype = np.dtype(VECTOR_DTYPES[self._column.dtype])
        self._listed: RankPlan | None = None
        self._plan = RankPlan(metric, self._column.dimension, dtype, parts, codes, kernels)

    def nearest(
        self, query: np.ndarray, k: int, masks: Masks, effort: Effort, backend: Backend
    ) -> Found:
        """As `index.nearest.nearest`; k is at most MOST_INSERTED."""
        steps = self._planned(k, effort) if masks is None else self._made(k, effort, masks)
        if self._audit is not None and self._audit.interval and steps.probes:
            self._audit.note(self._view, self._index, query, k, effort)
        if masks is None and not steps.scans:
            at_once = self._answered_at_once(query, k, effort, steps)
            if at_once is not None:
                return Found.numbered(at_once, self._starts)
        sources, numbers, scans = NO_NUMBERS, NO_NUMBERS, steps.scans
        used: list[tuple[SegmentLists, Any]] = []
        if steps.probes:
            sources, scans = self._probed(query, steps, used)
        if scans:
            numbers = self._scanned(query, k, masks, (scans, backend))
        delta = steps.delta
        plan = self._plan_for(steps)
        mask = NO_MASK if delta is None else delta
        answer = plan.answer(query, k, sources, numbers, mask)
        while isinstance(answer, Unverified):
            self._verify(answer.numbers)
            answer = plan.answer(query, k, sources, numbers, mask)
        for lists, scratch in used:
            lists.give_back(scratch)
        return Found.numbered(answer, self._starts)

    def _answered_at_once(
        self, query: np.ndarray, k: int, effort: Effort, steps: Steps
    ) -> Answer | None:
        """The answer by one call; None where it is to be made by steps, as the first one is."""
        held = self._held.get((k, effort))
        if held is None:
            if (k, effort) in self._held:
                self._held[k, effort] = [HeldSearch(k, self._searched_at_once(steps))]
            else:
                if len(self._held) >= KEPT_STEPS:
                    self._held.clear()
                self._held[k, effort] = None
            return None
        try:
            search = held.pop()  # RA2
        except IndexError:
            return None
        answer = search.answer(query)
        held.append(search)
        return answer

    def _searched_at_once(
        self, steps: Steps, masks: Masks = None, gathered: Sequence[tuple[Gathered, int]] = ()
    ) -> Searched:
        """What a search that scans no segment is made of, with scratch of its own."""
        delta = steps.delta
        plan = self._plan_for(steps)
        probes = []
        for probe in steps.probes:
            live = probe.mask if masks is None else None
            scratch = probe.lists.scratch(probe.stop, live=live)
            probes.append((probe._replace(mask=None) if scratch.knows_live else probe, scratch))
        return Searched(probes, plan, NO_MASK if delta is None else delta, gathered)

    def compiled(self, view: View, k: int, effort: Effort) -> CompiledSearch | None:
        """A search of all rows as one call, current as of now; None where there is none (yet).

        It is made when it is asked for a second time: a view may be gone by then.

        view  whose column this is; a snapshot holds it meanwhile
        """
        if view.database.newest_view() is not view:
            return None
        key = k, effort
        if key not in self._compiled:
            if len(self._compiled) >= KEPT_STEPS:
                self._compiled.clear()
            self._compiled[key] = None
            return None
        found = self._compiled[key]
        if found is None:
            steps = self._planned(k, effort)
            if steps.scans or k > MOST_INSERTED:
                return None
            found = CompiledSearch(view, k, self._searched_at_once(steps))
            self._compiled[key] = found
        return found if found.watch_again() else None

    def compiled_under(
        self, view: View, k: int, effort: Effort, masks: Sequence[np.ndarray], condition: Hashable
    ) -> CompiledSearch | None:
        """`compiled` for the rows that pass a condition; None where there is none (yet).

        masks      which pass, by part
        condition  what they depend on, beside the view
        """
        if view.database.newest_view() is not view or k > MOST_INSERTED:
            return None
        key = k, effort, condition
        found = self._filtered.get(key, 0)
        if isinstance(found, int):
            if found >= MOST_TRIES:
                return None
            if len(self._filtered) >= KEPT_STEPS:
                self._filtered.clear()
            self._filtered[key] = found + 1
            if not found:
                return None
            steps, codes = self._made(k, effort, masks), []
            for number in steps.scans:
                part = self._parts[number]
                assert isinstance(part, SegmentPart)
                own = known(part, self._index, masks[number])
                if own is None:
                    return None
                codes.append((own, self._starts[number]))
            found = CompiledSearch(view, k, self._searched_at_once(steps, masks, codes))
            size = sum(own.nbytes for own, _ in codes)
            self._gathered_bytes += size
            if self._gathered_bytes > MOST_GATHERED:
                self._filtered.clear()
                self._gathered_bytes = size
            self._filtered[key] = found
        return found if found.watch_again() else None

    def nearest_many(
        self, queries: np.ndarray, k: int, masks: Masks, effort: Effort, backend: Backend
    ) -> FoundMany:
        """`nearest` for each row of queries, float32 (m, dimension)."""
        steps = self._planned(k, effort) if masks is None else self._made(k, effort, masks)
        count = len(queries)
        again: set[int] = set()
        columns = self._probed_many(queries, steps, again)
        if steps.scans:
            columns += self._scanned_many(queries, k, masks, (steps.scans, backend), again)
        numbers = readable(np.hstack(columns)) if columns else np.empty((count, 0), np.int64)
        delta, scratch, address = steps.delta, None, 0
        plan = self._plan if delta is not None else self._plan.without_codes()
        if delta is not None and steps.probes and self._parts[0].size >= LEAST_LISTED:
            lists = steps.probes[-1].lists
            plan = self._plan_for(steps)
            scratch = lists.scratch(steps.probes[-1].stop, is_own=False)
            address = scratch.address
        mask = NO_MASK if delta is None else delta
        answer = plan.answer_many(queries, k, numbers, mask, address)
        while isinstance(answer, Unverified):
            self._verify(answer.numbers)
            answer = plan.answer_many(queries, k, numbers, mask, address)
        if scratch is not None:
            lists.give_back(scratch)
        if self._audit is not None and self._audit.interval and steps.probes:
            for each in sorted(set(range(count)) - again):
                self._audit.note(self._view, self._index, queries[each], k, effort)
        for each in sorted(again):  # E3
            found = self.nearest(queries[each], k, masks, effort, backend)
            size, (at, ids, scores, _) = len(found), (part[each] for part in answer)
            at[:], ids[:], scores[:] = -1, -1, np.nan
            at[:size], ids[:size] = found.numbers(self._starts), found.rowids
            scores[:size] = found.scores
        return FoundMany(answer, self._starts)

    # --------------------------------------------------------------- what is to be done

    def _planned(self, k: int, effort: Effort) -> Steps:
        """The steps of a search of all rows, kept for the next one."""
        found = self._steps.get((k, effort))
        if found is None:
            found = self._made(k, effort, None)
            if len(self._steps) >= KEPT_STEPS:
                self._steps.clear()
            self._steps[k, effort] = found
        return found

    def _made(self, k: int, effort: Effort, masks: Masks) -> Steps:
        """The steps of a search under masks."""
        probing = self._probing(k, effort)
        probes, scans = [], []
        for number, part in enumerate(self._parts):
            if not number or not part.size:
                continue
            assert isinstance(part, SegmentPart)
            mask = masks[number] if masks else None
            chosen = None if probing is None else probing.chosen(part, mask)
            if chosen is None:
                scans.append(number)
                continue
            assert probing is not None
            mask = None if chosen.mask is None else readable(chosen.mask)
            least = min(k, probing.findable(part, chosen))
            stop = chosen.stop
            budget = stop.most if stop.most > stop.least else NEVER
            probes.append(Probe(number, chosen.lists, stop, mask, least, budget))
        return Steps(probes, scans, self._delta_mask(masks))

    def _plan_for(self, steps: Steps) -> RankPlan:
        """How the delta's rows are found (PR2): beside lists by codes that are like theirs."""
        if steps.delta is None:
            return self._plan.without_codes()
        size = self._parts[0].size
        if not steps.probes or not size:
            return self._plan
        if self._listed is None:
            lists = steps.probes[0].lists
            listing = None
            if all(probe.lists.seed == lists.seed for probe in steps.probes):
                like = lists.seed, lists.lists
                listing = self._view.mirror.listing(self._index, size, like)
            self._listed = self._plan if listing is None else self._plan.listed(listing.plan(size))
        return self._listed

    def _probing(self, k: int, effort: Effort) -> Probing | None:
        """How lists are searched; None where there are none, or none may be searched."""
        if effort.is_exact or not self._view.has_lists(self._index):
            return None
        from m2mdb.index.probing import Probing

        probing = Probing(self._column, self._index, k, effort)
        return probing if probing.is_possible else None

    def _delta_mask(self, masks: Masks) -> np.ndarray | None:
        """The rows of the delta that may be found; empty for all, None for none."""
        part = self._parts[0]
        if not part.size:
            return NO_MASK
        mask = candidates_mask(part, self._index, masks[0] if masks else None)
        if mask is None:
            return NO_MASK
        return readable(mask.view(np.uint8)) if mask.any() else None

    # --------------------------------------------------------------- doing it

    def _probed(
        self, query: np.ndarray, steps: Steps, used: list[tuple[SegmentLists, Any]]
    ) -> tuple[np.ndarray, list[int]]:
        """Search lists; returns the sources of candidates, and which parts are to be scanned.

        used  is given the scratch in which the candidates stand
        """
        turned = self._searched(query)
        if turned is None:
            return NO_NUMBERS, sorted([*steps.scans, *(probe.number for probe in steps.probes)])
        found, scans = [], steps.scans
        for number, lists, stop, mask, least, budget in steps.probes:
            scratch = lists.run(turned, stop, mask)
            if scratch.counts[0] < least or scratch.counts[1] >= budget:  # E3
                lists.give_back(scratch)
                scans = sorted([*scans, number])
                continue
            used.append((lists, scratch))
            found += [number, scratch.address]
        return np.array(found, np.int64), scans

    def _probed_many(self, queries: np.ndarray, steps: Steps, again: set[int]) -> list[np.ndarray]:
        """Search lists for many queries; returns their candidates, -1 for none.

        again  is given the queries for which lists did not hold enough, or that are too long
        """
        if not steps.probes:
            return []
        turned = queries
        if self._column.metric == "cosine":
            turned = np.empty_like(queries)
            self._kernels.units(queries, turned)
        else:
            squares = np.einsum("ij,ij->i", queries, queries)
            again.update(np.flatnonzero(~(squares < EASILY_SEARCHED)).tolist())
            if again:
                turned = np.where((squares < EASILY_SEARCHED)[:, None], queries, np.float32(0))
        columns = []
        for number, lists, stop, mask, least, budget in steps.probes:
            found = lists.run_many(readable(turned), stop, mask)
            failed = (found.counts[:, 0] < least) | (found.counts[:, 1] >= budget)
            again.update(np.flatnonzero(failed).tolist())
            first = self._starts[number]
            columns.append(np.where(found.ordinals >= 0, found.ordinals + np.int64(first), -1))
        return columns

    def _scanned_many(
        self,
        queries: np.ndarray,
        k: int,
        masks: Masks,
        how: tuple[list[int], Backend],
        again: set[int],
    ) -> list[np.ndarray]:
        """Numbers of all rows of some parts that may belong to each answer, -1 for none.

        again  is given the queries which very many rows may answer
        """
        scans, backend = how
        columns = []
        for number in scans:
            part = self._parts[number]
            mask = candidates_mask(part, self._index, masks[number] if masks else None)
            if mask is not None and not mask.any():
                continue
            rows, norms = part_arrays(self._view, part, self._index)
            check = self._view.check
            found = backend.top_k_many(rows, norms, queries, k, self._column.metric, mask, check)
            ordinals = [each.ordinals for each in found]
            sizes = np.array(list(map(len, ordinals)))
            for each in np.flatnonzero(sizes > MOST_CANDIDATES).tolist():
                again.add(each)
                ordinals[each], sizes[each] = NO_NUMBERS, 0
            column = np.full((len(queries), int(sizes.max())), -1, np.int64)
            joined = np.concatenate(ordinals) + self._starts[number]
            column[np.arange(column.shape[1]) < sizes[:, None]] = joined
            columns.append(column)
        return columns

    def _searched(self, query: np.ndarray) -> np.ndarray | None:
        """The query as lists are searched for it; None where it is too long for them."""
        if self._column.metric == "cosine":
            turned = np.empty_like(query)
            self._kernels.unit(query, turned)
            return turned
        if np.vdot(query, query) < EASILY_SEARCHED:
            return query
        from m2mdb.index.hrm2 import searched_query

        return searched_query(query, self._column.metric)

    def _scanned(
        self, query: np.ndarray, k: int, masks: Masks, how: tuple[list[int], Backend]
    ) -> np.ndarray:
        """Numbers of all rows of some parts that may belong to the answer."""
        scans, backend = how
        collector, numbers = None, []
        for number in scans:
            part, first = self._parts[number], self._starts[number]
            codes = self._gathered(number, masks)
            near = None if codes is None else codes.reached(query, k)
            if near is not None:
                numbers.append(near + first)
                continue
            mask = candidates_mask(part, self._index, masks[number] if masks else None)
            if mask is None or mask.any():
                if collector is None:
                    collector = backend.collector(query, k, self._column.metric)
                scan_part(self._view, part, self._index, collector, mask, first)
        if collector is not None:
            numbers.append(collector.result().ordinals)
        if not numbers:
            return NO_NUMBERS
        return readable(numbers[0] if len(numbers) == 1 else np.concatenate(numbers))

    def _gathered(self, number: int, masks: Masks) -> Gathered | None:
        """Codes of the rows of a segment that pass, side by side; None where a scan is due."""
        part, mask = self._parts[number], masks[number] if masks else None
        if mask is None or not isinstance(part, SegmentPart):
            return None
        return gathered(self._view, part, self._index, mask, self._kernels)

    def _verify(self, numbers: np.ndarray) -> None:
        """PR3."""
        starts = np.array(self._starts)
        at = np.searchsorted(starts, numbers, "right") - 1
        for number, ordinal in zip(at.tolist(), (numbers - starts[at]).tolist(), strict=True):
            part = self._parts[number]
            assert isinstance(part, SegmentPart)
            part.segment.verify_vector(self._column, ordinal)


def prepared(view: CollectionView, column_index: int, kernels: ModuleType) -> Prepared | None:
    """A column of a view made ready; None where its rows are not in memory."""
    try:
        return view.prepared[column_index]
    except KeyError:
        found = view.prepared[column_index] = _prepared(view, column_index, kernels)
        return found


def _prepared(view: CollectionView, column_index: int, kernels: ModuleType) -> Prepared | None:
    parts: list[PartRows] = []
    first = 0
    for part in view.parts():
        rows = _part_rows(view, part, column_index, first)
        if rows is None:
            return None
        parts.append(rows)
        first += part.size
    return Prepared(view, column_index, parts, kernels)


def _part_rows(view: CollectionView, part: Part, column_index: int, first: int) -> PartRows | None:
    present = part.present(column_index) if part.size else None
    if not part.size or (present is not None and not present.any()):
        return PartRows(first, None, None)  # no row of it is ever a candidate
    rowids = readable(part.rowids)
    if not isinstance(part, SegmentPart):
        return PartRows(first, view.mirror.vectors[column_index].matrix[: part.size], rowids)
    found = part.segment.mapped_vectors(view.schema.columns[column_index])
    if found is None:
        return None
    matrix, verified, offset = found
    return PartRows(first, matrix, rowids, verified, offset)


__all__ = ["MOST_INSERTED", "Prepared", "prepared"]
