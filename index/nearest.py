"""Vector search over a collection: the delta and all segments, one ranking.

    part without lists, or EXACT --scan--------------------> candidates --+
    segment with lists (`index.probing`) --probe, re-rank--> candidates --+--rank--> Found

Candidates of a scan are all rows that may belong to the answer; those of lists are as many as the
recall that is asked for takes. What follows is the same for both: scores in float64 and the order
by (score, rowid), so that a row that was found has the same score and place whoever found it.

Invariants
    E1  Rows that are dead, masked out or without a vector are never candidates.
    E2  The first scan of a segment hashes each chunk and uses it while it is in the processor's
        cache; later scans read the map (S18).
    E3  A part gives min(k, rows that may be found) candidates at least: where probing found
        fewer, the part is scanned.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from m2mdb.compute.rescore import rank_gathered, rank_rows
from m2mdb.index.audit import audit_of
from m2mdb.index.collection import SegmentPart
from m2mdb.index.effort import EXACT, Effort, PartWork
from m2mdb.index.found import Found
from m2mdb.index.prepared import MOST_INSERTED, prepared
from m2mdb.index.scanning import candidates_mask, part_arrays, scan_part

if TYPE_CHECKING:
    from m2mdb.compute.backend import Backend, Candidates, Collector
    from m2mdb.index.collection import CollectionView
    from m2mdb.index.probing import Probing

Masks = Sequence[np.ndarray | None]


def nearest(
    view: CollectionView,
    column_index: int,
    query: np.ndarray,
    k: int,
    backend: Backend,
    masks: Masks | None = None,
    *,
    effort: Effort = EXACT,
    works: list[PartWork] | None = None,
) -> Found:
    """The k rows nearest to `query`, best first, equal scores by rowid.

    query   float32 (dimension,), checked by `query_vectors.check_query_vector`
    masks   bool per part of `view.parts()`, which rows pass WHERE; None for all
    effort  how much of the true answer the lists of segments have to find
    works   is given what each part has done
    """
    kernels = backend.ranking()
    if kernels is not None and works is None and 0 < k <= MOST_INSERTED:
        ready = prepared(view, column_index, kernels)
        if ready is not None:
            return ready.nearest(query, k, masks, effort, backend)
    return nearest_by_steps(
        view, column_index, query, k, backend, masks, effort=effort, works=works
    )


def nearest_by_steps(
    view: CollectionView,
    column_index: int,
    query: np.ndarray,
    k: int,
    backend: Backend,
    masks: Masks | None = None,
    *,
    effort: Effort = EXACT,
    works: list[PartWork] | None = None,
) -> Found:
    """As `nearest`, without what is prepared: the twin, and for what no kernel takes."""
    column = view.schema.columns[column_index]
    parts = view.parts()
    probing = _probing(view, column_index, k, backend, effort)
    searched = None if probing is None else probing.prepared(query)
    if searched is not None and works is None:
        audit = audit_of(view)
        if audit is not None and audit.interval:
            audit.note(view, column_index, query, k, effort)
    collector: Collector | None = None
    numbers: list[np.ndarray] = []
    first = 0
    for number, part in enumerate(parts):
        start, first = first, first + part.size
        if not part.size:
            continue
        mask, found = masks[number] if masks else None, None
        if searched is not None and probing is not None and isinstance(part, SegmentPart):
            found = probing.candidates(part, searched, mask, works)
        if found is not None:
            if len(found):
                numbers.append(found + start)
            continue
        mask = candidates_mask(part, column_index, mask)
        if mask is None or mask.any():
            if collector is None:
                collector = backend.collector(query, k, column.metric)
            scan_part(view, part, column_index, collector, mask, start)
        if works is not None:
            rows = part.size if mask is None else int(np.count_nonzero(mask))
            works.append(PartWork(part.name, rows))
    if collector is not None:
        numbers.append(collector.result().ordinals)
    if not numbers:
        return Found.nothing()
    joined = numbers[0] if len(numbers) == 1 else np.concatenate(numbers)
    return _rank(view, column_index, query, k, joined)


def _probing(
    view: CollectionView, column_index: int, k: int, backend: Backend, effort: Effort
) -> Probing | None:
    """How lists are searched; None where there are none, or none may be searched."""
    if effort.is_exact or not view.has_lists(column_index) or not backend.searches_lists():
        return None
    from m2mdb.index.probing import Probing

    return Probing(view.schema.columns[column_index], column_index, k, effort)


def nearest_many(
    view: CollectionView,
    column_index: int,
    queries: np.ndarray,
    k: int,
    backend: Backend,
    masks: Masks | None = None,
    *,
    effort: Effort = EXACT,
) -> list[Found]:
    """`nearest` for every row of `queries`, sharing each reading of the vectors."""
    if _probing(view, column_index, k, backend, effort) is not None:
        return [nearest(view, column_index, q, k, backend, masks, effort=effort) for q in queries]
    column = view.schema.columns[column_index]
    parts = view.parts()
    gathered: list[list[tuple[int, Candidates]]] = [[] for _ in queries]
    first = 0
    for number, part in enumerate(parts):
        if part.size:
            mask = candidates_mask(part, column_index, masks[number] if masks else None)
            if mask is None or mask.any():
                matrix, norms = part_arrays(view, part, column_index)
                found = backend.top_k_many(
                    matrix, norms, queries, k, column.metric, mask, view.check
                )
                for kept, candidates in zip(gathered, found, strict=True):
                    kept.append((first, candidates))
        first += part.size
    results = []
    for query, kept in zip(queries, gathered, strict=True):
        ordinals = [candidates.ordinals + start for start, candidates in kept]
        joined = np.concatenate(ordinals) if ordinals else np.empty(0, np.int64)
        results.append(_rank(view, column_index, query, k, joined))
    return results


def _rank(
    view: CollectionView, column_index: int, query: np.ndarray, k: int, numbers: np.ndarray
) -> Found:
    """Final scores and order of candidates, numbered through all parts."""
    if not len(numbers):
        return Found.nothing()
    parts = view.parts()
    filled = [at for at, part in enumerate(parts) if part.size]
    if len(filled) == 1:
        return _rank_in_part(view, column_index, query, k, (filled[0], numbers))
    starts = list(accumulate((part.size for part in parts), initial=0))
    first = bisect_right(starts, numbers.min().item()) - 1
    if numbers.max() < starts[first + 1]:
        return _rank_in_part(view, column_index, query, k, (first, numbers - starts[first]))
    return _rank_over_parts(view, column_index, query, k, np.sort(numbers))


def _rank_in_part(
    view: CollectionView,
    column_index: int,
    query: np.ndarray,
    k: int,
    candidates: tuple[int, np.ndarray],
) -> Found:
    """`_rank` of candidates that stand in one part: its index, and their ordinals in it."""
    at, ordinals = candidates
    part, metric = view.parts()[at], view.schema.columns[column_index].metric
    matrix = part.matrix(column_index)
    if matrix is not None:
        found = rank_rows(matrix, ordinals, part.rowids, query, k, metric)
    else:
        ids = part.rowids[ordinals]
        found = rank_gathered(
            lambda chosen: part.vectors(column_index, chosen), ordinals, ids, query, k, metric
        )
    return Found(found.ids, at, ordinals[found.positions], found.scores, found.distances)


def _rank_over_parts(
    view: CollectionView, column_index: int, query: np.ndarray, k: int, numbers: np.ndarray
) -> Found:
    """`_rank` of candidates, ascending, that stand in several parts."""
    parts = view.parts()
    starts = np.cumsum([0, *(part.size for part in parts)])
    of_part = np.searchsorted(starts, numbers, "right") - 1
    ordinals = numbers - starts[of_part]
    bounds = np.searchsorted(numbers, starts)
    rowids = np.empty(len(numbers), np.int64)
    for index, part in enumerate(parts):
        some = slice(int(bounds[index]), int(bounds[index + 1]))
        if some.start < some.stop:
            rowids[some] = part.rowids[ordinals[some]]

    def gather(positions: np.ndarray) -> np.ndarray:
        groups = []
        for index in np.unique(of_part[positions]).tolist():
            chosen = positions[of_part[positions] == index]
            groups.append(parts[index].vectors(column_index, ordinals[chosen]))
        return groups[0] if len(groups) == 1 else np.concatenate(groups)

    metric = view.schema.columns[column_index].metric
    ranked = rank_gathered(gather, np.arange(len(numbers)), rowids, query, k, metric)
    best = ranked.positions
    return Found(ranked.ids, of_part[best], ordinals[best], ranked.scores, ranked.distances)
