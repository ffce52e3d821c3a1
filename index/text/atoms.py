"""Atoms: the clauses of a match text in the columns that they are matched in.

An atom is one posting list per part and one weight, from statistics over all parts. Its kinds:

    term      the term's list
    prefix    all lists of the range made one: tf = their sum, df = rows that have any of them
    fuzzy     likewise over the terms within one edit; a term that is not the word counts half
    phrase    rows that have the phrase, by positions, or where a part has none, by reading again
              the texts that have all terms: tf = how often, weight = the sum of its terms'
              weights, as Lucene's

Invariants
    X9  Ordinals of a list are distinct and ascend; frequencies are whole or half numbers, so that
        their sums are exact whatever the order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from m2mdb.index.slices import SLICE_NUMBERS, Check, slices, watched
from m2mdb.index.text.match_query import FUZZY, PHRASE, PREFIX, TERM
from m2mdb.pager.errors import CorruptDatabaseError, ProgrammingError

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from m2mdb.index.text.match_query import Clause, TextQuery
    from m2mdb.index.text.source import Docs, Frequencies, Source, TextColumn

    Postings = tuple[Docs, Frequencies]
    Mask = NDArray[np.bool_] | None
    # (column number, part number, ordinals) -> the texts, None for NULL
    TextsOf = Callable[[int, int, NDArray[np.int64]], Sequence[str | None]]

_SPARSE = 32  # fewer postings than a part's size over this are summed without an array of its size
_NO_POSTINGS: Postings = (np.empty(0, np.uint32), np.empty(0, np.uint8))


class Atom:
    """A clause in a column: its list in each part, and its weight."""

    __slots__ = ("clause", "column", "lists", "weight")

    def __init__(self, clause: Clause, column: int, lists: list[Postings], weight: float) -> None:
        """Keep the parts; `column` is the column's number."""
        self.clause = clause
        self.column = column
        self.lists = lists
        self.weight = weight


def atoms_of(
    query: TextQuery,
    columns: Sequence[TextColumn],
    masks: Sequence[Mask] | None,
    texts_of: TextsOf | None,
) -> list[list[Atom]]:
    """For each written clause its atoms, in the order of the columns that it is matched in.

    Raises ProgrammingError for a field that is no FULLTEXT column.
    """
    _check_fields(query, columns)
    groups: dict[int, list[Atom]] = {}
    for number, column in enumerate(columns):
        for clause in query.clauses_for(column.analyzer):
            column.check()
            if clause.field is not None and clause.field.lower() != column.name.lower():
                continue
            atom = (
                _phrase_atom(clause, number, column, masks, texts_of)
                if clause.kind == PHRASE
                else _atom(clause, number, column)
            )
            groups.setdefault(clause.position, []).append(atom)
    return [groups[position] for position in sorted(groups)]


def _check_fields(query: TextQuery, columns: Sequence[TextColumn]) -> None:
    """Refuse a field that is no FULLTEXT column."""
    names = {column.name.lower() for column in columns}
    for written in query.written or ():
        if written.field is not None and written.field.lower() not in names:
            raise ProgrammingError(
                f"match text: no FULLTEXT column {written.field!r} at position "
                f"{written.position} of {query.text!r}"
            )


def _atom(clause: Clause, number: int, column: TextColumn) -> Atom:
    """The atom of a clause of one term."""
    term = clause.terms[0]
    if clause.kind == TERM:
        lists: list[Postings] = [source.postings(term, column.check) for source in column.sources]
    elif clause.kind == PREFIX:
        lists = [
            _combined(*source.prefix_postings(term, column.check), source.size, column.check)
            for source in column.sources
        ]
    else:
        assert clause.kind == FUZZY, clause.kind
        lists = [_fuzzy(source, term, column.check) for source in column.sources]
    weight = weight_of_term(column, sum([len(docs) for docs, _ in lists]))
    return Atom(clause, number, lists, weight * clause.boost * column.weight)


def _phrase_atom(
    clause: Clause,
    number: int,
    column: TextColumn,
    masks: Sequence[Mask] | None,
    texts_of: TextsOf | None,
) -> Atom:
    """The atom of a phrase; its lists hold only rows that may be found."""
    frequencies = {
        term: sum([source.document_frequency(term) for source in column.sources])
        for term in clause.terms
    }
    lists = [_NO_POSTINGS] * len(column.sources)
    if all(frequencies.values()):
        for part, source in enumerate(column.sources):
            mask = masks[part] if masks else None
            known = _by_positions(source, clause.terms, mask, column.check)
            if known is not None:
                lists[part] = known
                continue
            docs = _having_all(source, clause.terms, mask)
            if len(docs):
                assert texts_of is not None, "a phrase needs the texts"
                texts = texts_of(number, part, docs.astype(np.int64))
                lists[part] = _having_phrase(docs, texts, clause.terms, column)
    weight = sum([weight_of_term(column, frequencies[term]) for term in clause.terms])
    return Atom(clause, number, lists, weight * clause.boost * column.weight)


def weight_of_term(column: TextColumn, document_frequency: int) -> float:
    """The weight of a term, 0 if no row has it."""
    if not document_frequency:
        return 0.0
    if document_frequency > column.statistics.document_count:  # of a prefix, in a damaged file
        raise CorruptDatabaseError(
            f"text of {column.name}: {document_frequency} rows have a term, of "
            f"{column.statistics.document_count} with a text"
        )
    return column.variant.weight(column.statistics, document_frequency)


def _having_all(source: Source, terms: tuple[bytes, ...], mask: Mask) -> Docs:
    """The ordinals that have every one of the terms and pass the mask."""
    lists = sorted([source.postings(term)[0] for term in set(terms)], key=len)
    docs = lists[0]
    for other in lists[1:]:
        docs = np.intersect1d(docs, other, assume_unique=True)
    return docs if mask is None else docs[mask[docs]]


def _by_positions(
    source: Source, phrase: tuple[bytes, ...], mask: Mask, check: Check
) -> Postings | None:
    """The rows that have a phrase, and how often, from positions; None where there are none."""
    found: NDArray[np.uint64] | None = None
    order = sorted(range(len(phrase)), key=lambda i: source.document_frequency(phrase[i]))
    known: dict[bytes, NDArray[np.uint64]] = {}
    for place in order:
        check()
        term = phrase[place]
        keys = known.get(term)
        if keys is None:
            keys = source.positions(term, check)
            if keys is None:
                return None
            known[term] = keys
        # Where the phrase would begin; a term that stands too early to belong to one begins none.
        check()
        begins = keys[(keys & np.uint64(0xFFFFFFFF)) >= place] - np.uint64(place)
        if found is None:
            found = begins
        elif len(begins):
            there = np.empty(len(found), bool)
            for some in slices(len(found), SLICE_NUMBERS, check):
                at = np.minimum(np.searchsorted(begins, found[some]), len(begins) - 1)
                there[some] = begins[at] == found[some]
            found = found[there]
        if not len(begins) or not len(found):
            return _NO_POSTINGS
    assert found is not None, "a phrase has terms"
    docs, counts = np.unique(found >> np.uint64(32), return_counts=True)
    if mask is not None:
        docs, counts = docs[mask[docs]], counts[mask[docs]]
    return docs.astype(np.uint32), counts.astype(np.uint32)


def _having_phrase(
    docs: Docs, texts: Sequence[str | None], phrase: tuple[bytes, ...], column: TextColumn
) -> Postings:
    """Those ordinals whose texts have the phrase, and how often."""
    terms = column.analyzer.terms
    counts = [
        phrase_count(terms(text), phrase) if text else 0 for text in watched(texts, column.check)
    ]
    frequencies = np.array(counts, np.uint32)
    return docs[frequencies > 0], frequencies[frequencies > 0]


def weighted_counts(places: NDArray[Any], weights: NDArray[Any], size: int) -> NDArray[np.float64]:
    """The sum of the weights at each place in 0..size, added one by one in the order given."""
    return np.asarray(np.bincount(places, weights, size), np.float64)  # as it is, not copied


def _combined(docs: Docs, frequencies: Frequencies, size: int, check: Check) -> Postings:
    """One list of several: each ordinal once, with the sum of its frequencies."""
    if len(docs) * _SPARSE < size:
        ordinals, places = np.unique(docs, return_inverse=True)
        return ordinals, weighted_counts(places, frequencies, len(ordinals))
    sums = np.zeros(size)
    for some in slices(len(docs), SLICE_NUMBERS << 1, check):  # X9: whatever the order
        sums += weighted_counts(docs[some], frequencies[some], size)
    ordinals = np.flatnonzero(sums).astype(np.uint32)
    return ordinals, sums[ordinals]


def _fuzzy(source: Source, term: bytes, check: Check) -> Postings:
    """The rows with a term within one edit; other terms than the word itself count half."""
    docs, frequencies = [], []
    for other in source.fuzzy(term):
        check()
        found, counts = source.postings(other, check)
        docs.append(found)
        frequencies.append(counts * (1.0 if other == term else 0.5))
    if not docs:
        return _NO_POSTINGS
    return _combined(np.concatenate(docs), np.concatenate(frequencies), source.size, check)


def phrase_count(terms: list[bytes], phrase: tuple[bytes, ...]) -> int:
    """How often `terms` have the phrase, overlaps included."""
    count, size = 0, len(phrase)
    try:
        at = terms.index(phrase[0])
        while True:
            count += tuple(terms[at : at + size]) == phrase
            at = terms.index(phrase[0], at + 1)
    except ValueError:
        return count
