"""Text search: the rows that a match text finds, and the best of them.

Invariants
    X6  Scores are float64 sums in the order of columns, and of clauses in each, rounded to float32
        once, so they do not depend on how rows are spread over parts.
    X7  The result is the exact top k by (score descending, rowid ascending).
    X8  As Lucene's boolean query: with `+` clauses a row must have all of them, else one of the
        plain ones; it must have none of the `-` clauses. Of `"words"/n` it must have n in a column.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from m2mdb.index.slices import SLICE_NUMBERS, Check, number_order, slices
from m2mdb.index.text.atoms import atoms_of
from m2mdb.index.text.match_query import MUST, MUST_NOT
from m2mdb.pager.errors import ProgrammingError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from m2mdb.index.text.atoms import Atom, Mask, TextsOf
    from m2mdb.index.text.match_query import TextQuery
    from m2mdb.index.text.source import Docs, TextColumn

    Matches = tuple[NDArray[np.int64], NDArray[np.float32]]  # ordinals ascending, scores

_SPARSE = 32  # fewer postings than a part's size over this are summed without an array of its size
_SHORTLIST_BLOCKS = 32  # rows per block of the shortlist: its maxima are few and quick to find
TINY = 1e-20  # weights above it leave no float32 sum at zero


class TextHits:
    """The best rows of a text search, best first.

    sources, ordinals   int64: where each row stands
    rowids    int64
    scores    float32
    matches   if asked for: per source (ordinals int64 ascending, scores float32) of all matches
    """

    __slots__ = ("matches", "ordinals", "rowids", "scores", "sources")

    def __init__(
        self,
        sources: NDArray[np.int64],
        ordinals: NDArray[np.int64],
        rowids: NDArray[np.int64],
        scores: NDArray[np.float32],
        matches: list[Matches] | None,
    ) -> None:
        """Keep the arrays."""
        self.sources = sources
        self.ordinals = ordinals
        self.rowids = rowids
        self.scores = scores
        self.matches = matches

    def __len__(self) -> int:
        """How many rows were found, k at most."""
        return len(self.rowids)


def search_text(
    query: TextQuery,
    columns: Sequence[TextColumn],
    rowids: Sequence[NDArray[np.int64]],
    k: int,
    masks: Sequence[Mask] | None = None,
    texts_of: TextsOf | None = None,
    want_matches: bool = False,
) -> TextHits:
    """The best k rows for `query` over all sources.

    rowids     per source, the rowid of each ordinal
    masks      per source, which ordinals may be found (live and passing WHERE); None for all
    texts_of   reads texts again; called for phrases alone
    """
    if k < 1:
        raise ProgrammingError(f"K {k}: expected 1 or more")
    if not columns:
        raise ProgrammingError("MATCH: the collection has no FULLTEXT column")
    search = Search(query, columns, masks, texts_of)
    check = columns[0].check
    found: list[tuple[int, NDArray[np.int64], NDArray[np.float32]]] = []
    matches: list[Matches] = []
    for source in range(len(rowids)):
        check()
        if want_matches:
            matches.append(search.matches(source))
            found.append((source, *matches[-1]))
        else:
            found.append((source, *search.candidates(source, k)))
    return _best(found, rowids, k, matches if want_matches else None, check)


class Search:
    """One query at one snapshot: its atoms with their weights, and their sums per source."""

    def __init__(
        self,
        query: TextQuery,
        columns: Sequence[TextColumn],
        masks: Sequence[Mask] | None,
        texts_of: TextsOf | None,
    ) -> None:
        """Gather the lists of all atoms over all sources, then weigh them."""
        self._columns = columns
        self._masks = masks
        groups = atoms_of(query, columns, masks, texts_of)
        atoms = [atom for group in groups for atom in group]
        self._must = [group for group in groups if group[0].clause.occur == MUST]
        self._quorums = [group for group in groups if group[0].clause.quorum]
        self._is_selective = bool(self._must or self._quorums)
        self._must_not = [atom for atom in atoms if atom.clause.occur == MUST_NOT]
        scored = [atom for atom in atoms if atom.clause.occur != MUST_NOT]
        self.baseline = sum([a.weight * columns[a.column].variant.baseline for a in scored])
        self.scored = [
            [a for a in scored if a.column == column and any(len(docs) for docs, _ in a.lists)]
            for column in range(len(columns))
        ]
        # Then a row that matches has a positive sum, and without `+` every positive sum matches.
        self.is_compilable = all(atom.weight > TINY for group in self.scored for atom in group)
        self._is_positive = not self._is_selective and self.is_compilable

    # Sums

    def matches(self, part: int) -> Matches:
        """All matching ordinals of a source, ascending, and their scores."""
        ordinals, scores = self._sums(part)
        if ordinals is None:
            matching = np.flatnonzero(
                self._allowed(part, scores > 0 if self._is_positive else None)
            )
            return matching, self._rounded(scores[matching])
        allowed = self._allowed_of(part, ordinals)
        if allowed is not None:
            ordinals, scores = ordinals[allowed], scores[allowed]
        return ordinals, self._rounded(scores)

    def candidates(self, part: int, k: int) -> Matches:
        """The best k of `matches`, and what ties with the last of them; maybe some more."""
        size = self._columns[0].sources[part].size
        if not self._is_positive or self.baseline or size < 4 * _SHORTLIST_BLOCKS * k:
            return self.matches(part)
        ordinals, scores = self._sums(part)
        if ordinals is not None:
            allowed = self._allowed_of(part, ordinals)
            if allowed is not None:
                ordinals, scores = ordinals[allowed], scores[allowed]
            return ordinals, self._rounded(scores)
        rounded = scores.astype(np.float32)
        if self._must_not or (self._masks and self._masks[part] is not None):
            rounded *= self._allowed(part, None)
        # Each block's maximum is a row of its own, so the k-th of them bounds the k-th row.
        blocks = size // _SHORTLIST_BLOCKS
        maxima = rounded[: blocks * _SHORTLIST_BLOCKS].reshape(_SHORTLIST_BLOCKS, blocks).max(0)
        bound = np.partition(maxima, blocks - k)[blocks - k]
        best = np.flatnonzero(rounded >= bound if bound > 0 else rounded > 0)
        return best, rounded[best]

    def _rounded(self, scores: NDArray[np.float64]) -> NDArray[np.float32]:
        """Scores as they are given out (X6)."""
        return (scores + self.baseline if self.baseline else scores).astype(np.float32)

    def _sums(self, part: int) -> tuple[NDArray[np.int64] | None, NDArray[np.float64]]:
        """The sum of the impacts of each touched row: (ordinals, sums), or (None, sum of all)."""
        touched = [[a for a in group if len(a.lists[part][0])] for group in self.scored]
        count = sum([len(a.lists[part][0]) for group in touched for a in group])
        size = self._columns[0].sources[part].size
        ordinals = None
        if count * _SPARSE < size:
            lists = [a.lists[part][0] for group in touched for a in group]
            ordinals = _distinct(np.concatenate([np.empty(0, np.uint32), *lists]))
        total: NDArray[np.float64] | None = None
        for column, atoms in zip(self._columns, touched, strict=True):
            if atoms:
                added = _accumulate(column, part, atoms, ordinals)
                total = added if total is None else total + added
        if total is None:
            total = np.zeros(size if ordinals is None else len(ordinals))
        return None if ordinals is None else ordinals.astype(np.int64), total

    # Which rows may be found

    def allowed_masks(self) -> Sequence[Mask] | None:
        """The masks of rows that may be found, with what `+` and `-` clauses leave."""
        if not self._is_selective and not self._must_not:
            return self._masks
        return [self._allowed(part, None) for part in range(len(self._columns[0].sources))]

    def _allowed(self, part: int, positive: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
        """Which ordinals of a source match (X8) and pass the mask.

        `positive` is given where it says which rows have a term at all.
        """
        size = self._columns[0].sources[part].size
        allowed = np.ones(size, bool) if positive is None else positive
        for group in self._must:
            allowed &= _present([atom.lists[part][0] for atom in group], size)
        for group in self._quorums:
            allowed &= _has_quorum(group, part, size)
        if not self._is_selective and not self._is_positive:
            lists = [atom.lists[part][0] for group in self.scored for atom in group]
            allowed &= _present(lists, size)
        for atom in self._must_not:
            allowed[atom.lists[part][0]] = False
        mask = self._masks[part] if self._masks else None
        if mask is not None:
            allowed &= mask
        return allowed

    def _allowed_of(self, part: int, ordinals: NDArray[np.int64]) -> NDArray[np.bool_] | None:
        """`_allowed` of touched ordinals alone; None if all are."""
        if self._is_selective or self._must_not:
            return self._allowed(part, None)[ordinals]
        mask = self._masks[part] if self._masks else None
        return None if mask is None else mask[ordinals]


def _accumulate(
    column: TextColumn, part: int, atoms: list[Atom], ordinals: NDArray[np.uint32] | None
) -> NDArray[np.float64]:
    """The sum of the atoms' impacts for each ordinal of a source, in the order of the atoms (X6).

    For all of its ordinals, or for `ordinals` alone, which are ascending and hold all touched.
    """
    source = column.sources[part]
    base, slope = column.variant.norm(column.statistics)
    norms = source.norms(base, slope) if ordinals is None else None
    sums = np.zeros(source.size if ordinals is None else len(ordinals))
    for atom in atoms:
        all_docs, all_frequencies = atom.lists[part]
        for some in slices(len(all_docs), SLICE_NUMBERS, column.check):
            docs, frequencies = all_docs[some], all_frequencies[some].astype(np.float64)
            if norms is None:
                of_docs = source.lengths[docs].astype(np.float64) * slope + base
            else:
                of_docs = norms[docs]
            impacts = column.variant.impact(frequencies, of_docs)
            impacts *= atom.weight
            # X9: an ordinal stands in a list once, so that this adds to each of them
            sums[docs if ordinals is None else np.searchsorted(ordinals, docs)] += impacts
    return sums


def _distinct(docs: Docs) -> Docs:
    """The distinct ordinals, ascending; quicker than np.unique, which hashes."""
    docs.sort()
    is_first = np.ones(len(docs), bool)
    np.not_equal(docs[1:], docs[:-1], out=is_first[1:])
    return docs[is_first]


def _present(lists: list[Docs], size: int) -> NDArray[np.bool_]:
    """Which ordinals stand in one of the lists."""
    present = np.zeros(size, bool)
    for docs in lists:
        present[docs] = True
    return present


def _has_quorum(group: list[Atom], part: int, size: int) -> NDArray[np.bool_]:
    """Which ordinals have as many of a quorum's words as it wants, in one of the columns."""
    found = np.zeros(size, bool)
    for column in sorted({atom.column for atom in group}):
        atoms = [atom for atom in group if atom.column == column]
        counts = np.zeros(size, np.uint32)
        for atom in atoms:
            counts[atom.lists[part][0]] += np.uint32(1)
        found |= counts >= atoms[0].clause.quorum
    return found


def _best(
    found: list[tuple[int, NDArray[np.int64], NDArray[np.float32]]],
    rowids: Sequence[NDArray[np.int64]],
    k: int,
    matches: list[Matches] | None,
    check: Check,
) -> TextHits:
    """The best k of the candidates of all sources (X7)."""
    check()
    sources = np.repeat(
        np.array([source for source, _, _ in found], np.int64),
        [len(ordinals) for _, ordinals, _ in found],
    )
    if not len(sources):
        nothing = np.empty(0, np.int64)
        return TextHits(nothing, nothing, nothing, np.empty(0, np.float32), matches)
    ordinals = np.concatenate([ordinals for _, ordinals, _ in found])
    scores = np.concatenate([scores for _, _, scores in found])
    ids = np.concatenate([rowids[source][ordinals] for source, ordinals, _ in found])
    if len(scores) > k:
        bound = np.partition(scores, len(scores) - k)[len(scores) - k]
        kept = np.flatnonzero(scores >= bound)
        sources, ordinals, scores, ids = sources[kept], ordinals[kept], scores[kept], ids[kept]
    order = number_order(ids, check)
    order = order[number_order(-scores[order], check)][:k]
    check()
    return TextHits(sources[order], ordinals[order], ids[order], scores[order], matches)
