"""Match text: what stands behind MATCH, parsed into clauses.

    text    = { clause }                                  clauses are OR
    clause  = [ "+" | "-" ] [ field ":" ] atom [ "^" number ]
    atom    = word | word "*" | word "~" [ "1" ] | '"' words '"' [ "/" number ]

`+` must match, `-` must not; of `"words"/2` two must match, wherever they stand. A word is cut into
terms as the texts of a column are (`analysis.py`), for each column as its own: one of several terms
(`wi-fi`, a run of Han) is their OR, or their phrase if it must or must not match. Signs count at
the begin of a clause and suffixes at its end; elsewhere they part words as other punctuation
does. A word before a colon is a field if it is an identifier and the colon is followed by a word
or a quote; `10:30` and `http://x` are words. Inside quotes nothing but the closing quote counts.

Errors are ProgrammingError and name the position, from 1. A clause without any token (`...`) is
left out; a text without any clause matches nothing.
"""

from __future__ import annotations

import re
from math import ceil
from typing import TYPE_CHECKING

from m2mdb.index.text.analysis import PLAIN
from m2mdb.pager.errors import NotSupportedError, ProgrammingError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from m2mdb.index.text.analysis import Analyzer

TERM, PHRASE, PREFIX, FUZZY = "term", "phrase", "prefix", "fuzzy"
QUORUM = "quorum"  # of what is written alone: its clauses are terms
SHOULD, MUST, MUST_NOT = "should", "must", "must not"
_OCCURS = {"+": MUST, "-": MUST_NOT}
_MAX_BOOST = 1e6  # keeps every score a finite float32
_OPERATORS = "+-^~*:"
_SIGNS = re.compile(f'[{re.escape(_OPERATORS)}"]')


class Clause:
    """One condition of a match text.

    kind    TERM, PREFIX, FUZZY: `terms` has one; PHRASE: the terms in their order
    occur   SHOULD, MUST or MUST_NOT
    field   the FULLTEXT column named, None for all
    boost   factor on the score
    position   where the clause begins in the text, from 1
    quorum  of a column's clauses with this position, how many must match; 0: none needs to
    """

    __slots__ = ("boost", "field", "kind", "occur", "position", "quorum", "terms")

    def __init__(
        self,
        kind: str,
        terms: tuple[bytes, ...],
        *,
        occur: str = SHOULD,
        field: str | None = None,
        boost: float = 1.0,
        position: int = 1,
        quorum: int = 0,
    ) -> None:
        """Take the parts as they are."""
        self.kind = kind
        self.terms = terms
        self.occur = occur
        self.field = field
        self.boost = boost
        self.position = position
        self.quorum = quorum

    def __repr__(self) -> str:
        """The clause in the syntax that it was parsed from, nearly."""
        words = b" ".join(self.terms).decode()
        sign = {MUST: "+", MUST_NOT: "-"}.get(self.occur, "")
        field = f"{self.field}:" if self.field else ""
        boost = f"^{self.boost:g}" if self.boost != 1.0 else ""
        marked = {PHRASE: f'"{words}"', PREFIX: f"{words}*", FUZZY: f"{words}~1"}
        return f"{sign}{field}{marked.get(self.kind, words)}{boost}"


class Written:
    """One condition as it is written: a word or a quoted text, not cut into terms yet.

    quorum   how many of the words must match; below 1, which share of them
    """

    __slots__ = ("boost", "field", "kind", "occur", "position", "quorum", "text")

    def __init__(self, kind: str, text: str, occur: str, field: str | None, position: int) -> None:
        """Take the parts as they are; the parser adds boost and quorum."""
        self.kind = kind
        self.text = text
        self.occur = occur
        self.field = field
        self.position = position
        self.boost = 1.0
        self.quorum = 0.0


class TextQuery:
    """A parsed match text, whose clauses are made for each analyzer that a column has."""

    __slots__ = ("_made", "text", "written")

    def __init__(self, text: str, written: Sequence[Written] | None) -> None:
        """Keep the text and what is written there; None: nothing but words."""
        self.text = text
        self.written = written
        self._made: list[tuple[Analyzer, tuple[Clause, ...]]] = []

    @property
    def clauses(self) -> tuple[Clause, ...]:
        """The clauses for a column without options."""
        return self.clauses_for(PLAIN)

    def clauses_for(self, analyzer: Analyzer) -> tuple[Clause, ...]:
        """The clauses in order; equal plain terms are one, their boosts added.

        Raises NotSupportedError for a required or excluded prefix of several words.
        """
        for known, clauses in self._made:
            if known is analyzer:
                return clauses
        clauses = self._plain(analyzer) if self.written is None else self._signed(analyzer)
        self._made.append((analyzer, clauses))
        return clauses

    def _plain(self, analyzer: Analyzer) -> tuple[Clause, ...]:
        boosts: dict[bytes, float] = {}
        for term in analyzer.terms(self.text):
            boosts[term] = boosts.get(term, 0.0) + 1.0
        return tuple([Clause(TERM, (term,), boost=boost) for term, boost in boosts.items()])

    def _signed(self, analyzer: Analyzer) -> tuple[Clause, ...]:
        assert self.written is not None
        return _merged(
            [clause for written in self.written for clause in _clauses_of(written, analyzer, self)]
        )

    def __repr__(self) -> str:
        """The clauses in the syntax of match text."""
        return f"<TextQuery {' '.join(map(repr, self.clauses))}>"


def parse_match(text: str) -> TextQuery:
    """Parse what stands behind MATCH; ProgrammingError if it is malformed."""
    if is_plain(text):
        return plain(text)
    query = TextQuery(text, _Parser(text).clauses())
    query.clauses_for(PLAIN)  # what cannot be matched at all is refused here
    return query


def is_plain(text: str) -> bool:
    """Whether a match text has words alone, and none of the signs."""
    return _SIGNS.search(text) is None


def plain(text: str) -> TextQuery:
    """The OR of all words of `text`, whatever characters it has: what FOR matches."""
    return TextQuery(text, None)


def _merged(clauses: list[Clause]) -> tuple[Clause, ...]:
    """The clauses with equal plain terms made one, as scoring them twice would."""
    kept: list[Clause] = []
    seen: dict[tuple[bytes, str | None], Clause] = {}
    for clause in clauses:
        if clause.kind == TERM and clause.occur == SHOULD and not clause.quorum:
            key = (clause.terms[0], clause.field)
            if key in seen:
                seen[key].boost += clause.boost
                continue
            seen[key] = clause
        kept.append(clause)
    return tuple(kept)


def _clauses_of(written: Written, analyzer: Analyzer, query: TextQuery) -> list[Clause]:
    """The clauses that a written condition is for an analyzer; none where no term is left."""
    if written.kind == PREFIX:
        terms = analyzer.prefix_terms(written.text)
    else:
        terms = analyzer.terms(written.text)
    quorum = 0
    if written.kind == QUORUM:
        terms = list(dict.fromkeys(terms))
        wanted = written.quorum if written.quorum >= 1 else ceil(written.quorum * len(terms))
        quorum = min(int(wanted), len(terms))
    return [
        Clause(
            kind,
            some,
            occur=written.occur,
            field=written.field,
            boost=written.boost,
            position=written.position,
            quorum=quorum,
        )
        for kind, some in _shapes(written, terms, query)
    ]


def _shapes(
    written: Written, terms: list[bytes], query: TextQuery
) -> list[tuple[str, tuple[bytes, ...]]]:
    """The (kind, terms) of the clauses that the terms make."""
    kind, occur = written.kind, written.occur
    if kind == QUORUM:
        return [(TERM, (term,)) for term in terms]
    if len(terms) <= 1:
        return [(TERM if kind == PHRASE else kind, (term,)) for term in terms]
    if kind == PHRASE or (kind == TERM and occur != SHOULD):
        return [(PHRASE, tuple(terms))]
    if occur != SHOULD:
        raise NotSupportedError(
            f"match text: a required or excluded {kind} of several words at position "
            f"{written.position} of {query.text!r}"
        )
    kinds = [TERM] * (len(terms) - 1) + [PREFIX] if kind == PREFIX else [kind] * len(terms)
    return [(kind, (term,)) for kind, term in zip(kinds, terms, strict=True)]


class _Parser:
    """One pass over a match text."""

    def __init__(self, text: str) -> None:
        """Begin at the first character."""
        self._text = text
        self._at = 0

    def clauses(self) -> list[Written]:
        """All clauses of the text."""
        found: list[Written] = []
        while self._skip_space():
            found.append(self._clause())
        return found

    def _fail(self, message: str, at: int) -> NoReturn:
        """Raise a ProgrammingError that names a position."""
        raise ProgrammingError(f"match text: {message} at position {at + 1} of {self._text!r}")

    def _peek(self, at: int) -> str:
        """The character at an index, empty behind the end."""
        return self._text[at : at + 1]

    def _skip_space(self) -> bool:
        """Go to the next character that is no space; False at the end."""
        text, end = self._text, len(self._text)
        while self._at < end and text[self._at].isspace():
            self._at += 1
        return self._at < end

    def _clause(self) -> Written:
        """The clause that begins here."""
        start = self._at
        occur = _OCCURS.get(self._peek(start), SHOULD)
        if occur != SHOULD:
            self._at += 1
            self._expect_operand(start)
        field = self._field()
        if self._peek(self._at) == '"':
            written = Written(PHRASE, self._quoted(), occur, field, start + 1)
            self._quorum(written)
        else:
            word, word_end = self._word(), self._at
            kind = self._suffix()
            if not word or (kind != TERM and not PLAIN.terms(word)):
                self._fail(f"{self._peek(word_end)!r} without a word before it", word_end)
            written = Written(kind, word, occur, field, start + 1)
        written.boost = self._boost()
        return written

    def _quorum(self, written: Written) -> None:
        """What `/2` or `/0.5` behind quotes makes of their words."""
        if self._peek(self._at) != "/":
            return
        start = self._at
        self._at += 1
        digits = self._number()
        try:
            quorum = float(digits)
        except ValueError:
            self._fail("'/' without a number behind it", start)
        if quorum <= 0 or (quorum > 1 and not quorum.is_integer()):
            self._fail(f"'/{digits}': expected a whole number, or a share below 1,", start)
        if written.occur != SHOULD:
            self._fail("'/' behind words that have a sign", start)
        self._expect_end()
        written.kind, written.quorum = QUORUM, quorum

    def _expect_operand(self, operator_at: int) -> None:
        """Refuse a sign that stands alone or before another operator."""
        following = self._peek(self._at)
        if not following or following.isspace() or following in _OPERATORS:
            self._fail(f"{self._text[operator_at]!r} without a word behind it", operator_at)

    def _field(self) -> str | None:
        """The field that the clause names, if it names one."""
        text, stop = self._text, self._at
        while stop < len(text) and (text[stop].isalnum() or text[stop] == "_"):
            stop += 1
        name, following = text[self._at : stop], self._peek(stop + 1)
        if self._peek(stop) != ":" or not name.isidentifier():
            return None
        if following != '"' and not following.isalnum():
            return None
        self._at = stop + 1
        return name

    def _quoted(self) -> str:
        """The text between the quote here and the next."""
        start = self._at
        stop = self._text.find('"', start + 1)
        if stop < 0:
            self._fail("a quote that is never closed", start)
        self._at = stop + 1
        if self._peek(self._at) in ("*", "~"):
            raise NotSupportedError(
                f"match text: {self._peek(self._at)!r} behind a phrase at position {self._at + 1} "
                f"of {self._text!r}"
            )
        return self._text[start + 1 : stop]

    def _word(self) -> str:
        """The characters up to a space, a quote or a suffix."""
        text, start = self._text, self._at
        while (
            self._at < len(text) and not text[self._at].isspace() and text[self._at] not in '"^~*'
        ):
            self._at += 1
        return text[start : self._at]

    def _suffix(self) -> str:
        """The kind that `*` or `~1` behind a word makes it."""
        operator = self._peek(self._at)
        if operator == "*":
            self._at += 1
            self._expect_end()
            return PREFIX
        if operator == "~":
            self._at += 1
            start = self._at
            distance = self._number()
            if distance not in ("", "0", "1"):
                raise NotSupportedError(
                    f"match text: fuzzy distance {distance} at position {start + 1} of "
                    f"{self._text!r}; this build has ~1"
                )
            self._expect_end()
            return TERM if distance == "0" else FUZZY
        return TERM

    def _boost(self) -> float:
        """The number behind `^`, 1 without one."""
        if self._peek(self._at) != "^":
            return 1.0
        start = self._at
        self._at += 1
        digits = self._number()
        try:
            boost = float(digits)
        except ValueError:
            self._fail("'^' without a number behind it", start)
        if boost > _MAX_BOOST:
            self._fail(f"a boost above {_MAX_BOOST:g}", start)
        self._expect_end()
        return boost

    def _number(self) -> str:
        """The digits and points from here on."""
        start = self._at
        while self._peek(self._at) and self._peek(self._at) in "0123456789.":
            self._at += 1
        return self._text[start : self._at]

    def _expect_end(self) -> None:
        """Refuse a clause that goes on behind its suffix."""
        following = self._peek(self._at)
        if following and not following.isspace() and following != "^":
            self._fail(f"unexpected {following!r} behind a suffix", self._at)
