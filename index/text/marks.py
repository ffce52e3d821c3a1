"""Marks: where the words of a match text stand in a text, for highlights and snippets.

    text --pieces--> (start, stop, term) --clauses--> marks (start, stop)

A piece is a run of characters that the tokenizer does not part; its terms are made as they are for
the index, so what is marked is what was found: stems, folded words, pairs of Han, names in code.

Invariants
    X15 The terms of `term_spans(text)`, those left out apart, are `analyzer.terms(text)`: what a
        whole text gives and what its pieces give one by one is the same.
    X16 Marks ascend, do not overlap, and without them the text is as it was.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, NamedTuple

from m2mdb.index.text.fuzzy import is_close
from m2mdb.index.text.match_query import FUZZY, MUST_NOT, PHRASE, PREFIX
from m2mdb.index.text.tokenizer import is_cjk, pieces

if TYPE_CHECKING:
    from collections.abc import Sequence

    from m2mdb.index.text.analysis import Analyzer
    from m2mdb.index.text.match_query import Clause

_ENDS = ".!?\n。！？"  # of sentences


class TermSpan(NamedTuple):
    """A term, b"" where it is left out, and the characters that it was made of."""

    start: int
    stop: int
    term: bytes


class Mark(NamedTuple):
    """A place where a clause stands: its first and last term, and which clause it is."""

    first: int
    last: int
    clause: int


def term_spans(analyzer: Analyzer, text: str) -> list[TermSpan]:
    """The terms of a text in order, with the characters that each was made of (X15)."""
    if analyzer.has_own_tokenizer:
        return _own_spans(analyzer, text)
    found = []
    for start, stop in pieces(text, analyzer.folding):
        for begin, end in analyzer.parts_of(text, start, stop):
            found += _piece(analyzer, text[begin:end], begin)
    return found


def _piece(analyzer: Analyzer, piece: str, start: int) -> list[TermSpan]:
    """The terms of one piece."""
    tokens = analyzer.tokens(piece)
    size = len(piece)
    if len(tokens) > 1 and len(tokens) == size - 1 and all(map(is_cjk, piece)):
        bounds = [(start + i, start + i + 2) for i in range(len(tokens))]
    else:
        bounds = [(start, start + size)] * len(tokens)
    return [
        TermSpan(begin, end, analyzer.term(token))
        for (begin, end), token in zip(bounds, tokens, strict=True)
    ]


def _own_spans(analyzer: Analyzer, text: str) -> list[TermSpan]:
    """The terms of a tokenizer of the program, where their letters stand in the text."""
    found, at = [], 0
    folded = text.casefold()
    for token in analyzer.tokens(text):
        word = token.decode()
        start = text.find(word, at)
        if start < 0 and len(folded) == len(text):
            start = folded.find(word.casefold(), at)
        start, at = (at, at) if start < 0 else (start, start + len(word))
        found.append(TermSpan(start, at, analyzer.term(token)))
    return found


class Marker:
    """What a match text looks for in a column."""

    __slots__ = ("_analyzer", "_clauses")

    def __init__(self, clauses: Sequence[Clause], analyzer: Analyzer, column: str) -> None:
        """The clauses for the column of this name; those that must not match mark nothing."""
        self._analyzer = analyzer
        self._clauses = [
            clause
            for clause in clauses
            if clause.occur != MUST_NOT
            and (clause.field is None or clause.field.lower() == column.lower())
        ]

    def highlight(self, text: str, before: str, behind: str) -> str:
        """The text with `before` and `behind` around what was looked for (X16)."""
        spans = term_spans(self._analyzer, text)
        return _marked(text, 0, len(text), self._bounds(spans), (before, behind))

    def snippet(self, text: str, before: str, behind: str, gap: str, size: int) -> str:
        """The `size` terms of the text that have most of what was looked for, marked.

        `gap` stands where the text goes on; a text without a mark gives its beginning.
        """
        spans = term_spans(self._analyzer, text)
        kept = [span for span in spans if span.stop > span.start]
        first = self._first(text, kept, size)
        last = min(first + size, len(kept))
        start = kept[first].start if first else 0
        stop = kept[last - 1].stop if last < len(kept) else len(text)
        cut = _marked(text, start, stop, self._bounds(kept), (before, behind))
        return (gap if first else "") + cut + (gap if last < len(kept) else "")

    def _bounds(self, spans: Sequence[TermSpan]) -> list[tuple[int, int]]:
        """The characters to mark: those of a phrase are one mark, overlapping marks are one."""
        found: list[tuple[int, int]] = []
        for mark in sorted(self._marks(spans), key=lambda m: (spans[m.first].start, -m.last)):
            start, stop = spans[mark.first].start, spans[mark.last].stop
            if start >= stop:
                continue
            if found and start < found[-1][1]:
                found[-1] = (found[-1][0], max(found[-1][1], stop))
            else:
                found.append((start, stop))
        return found

    def _marks(self, spans: Sequence[TermSpan]) -> list[Mark]:
        """Every place where a clause stands, clause by clause."""
        places = [i for i, span in enumerate(spans) if span.term]  # phrases pass over stop words
        found = []
        for number, clause in enumerate(self._clauses):
            size = len(clause.terms) if clause.kind == PHRASE else 1
            for at in range(len(places) - size + 1):
                terms = [spans[place].term for place in places[at : at + size]]
                if _stands(clause, terms):
                    found.append(Mark(places[at], places[at + size - 1], number))
        return found

    def _first(self, text: str, spans: Sequence[TermSpan], size: int) -> int:
        """The first term of the window with the most clauses, then the most marks."""
        marks = sorted(self._marks(spans))
        firsts = [mark.first for mark in marks]
        best, window = (0, 0), (0, 0)
        for at, mark in enumerate(marks):
            inside = [
                each
                for each in marks[at : bisect_left(firsts, mark.first + size)]
                if each.last < mark.first + size
            ]
            score = len({each.clause for each in inside}), len(inside)
            if score > best:
                best, window = score, (mark.first, max(each.last for each in inside))
        # Otherwise what was found stands in the middle.
        start = max(0, window[0] - max(0, size - (window[1] - window[0] + 1)) // 2)
        start = max(0, min(start, len(spans) - size))
        for first in range(window[0], max(window[1] - size, 0), -1):
            between = text[spans[first - 1].stop : spans[first].start]
            if any(end in between for end in _ENDS):
                return min(first, max(0, len(spans) - size))  # a sentence begins there
        return start


def _stands(clause: Clause, terms: Sequence[bytes]) -> bool:
    """Whether a clause is what stands here."""
    if clause.kind == PREFIX:
        return terms[0].startswith(clause.terms[0])
    if clause.kind == FUZZY:
        return is_close(clause.terms[0].decode(), terms[0].decode())
    return tuple(terms) == clause.terms


def _marked(
    text: str, start: int, stop: int, bounds: Sequence[tuple[int, int]], around: tuple[str, str]
) -> str:
    """text[start:stop] with the marks that lie in it."""
    found, at = [], start
    for first, last in bounds:
        begin, end = max(first, start), min(last, stop)
        if begin < end:
            found += [text[at:begin], around[0], text[begin:end], around[1]]
            at = end
    return "".join([*found, text[at:stop]])
