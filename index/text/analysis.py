"""Analysis: how a FULLTEXT column makes terms of its texts, and of what is searched in it.

    text --tokenizer--> tokens --stop, stem, fold--> terms

    tokenizer = 'unicode'   runs of letters and numbers (`tokenizer.py`); or one that the program
                            brought along: connect(..., tokenizers={"name": callable})
    fold = true             case and accents are folded; 'case': case alone; false: neither
    code = true             names are cut inside too: getUserName, get_user_name
    stem = 'english'        Snowball's stemmer of a language, from the package snowballstemmer
    stop = 'english'        words that are left out: of a language, or those in the option's text

Stemmers know words with their accents, so with `stem` or `stop` these are folded behind them.
Terms of prefixes are neither stemmed nor left out: `runn*` finds what begins so as it is held.

Invariants
    X13 What is indexed and what is searched go through the same Analyzer: equal options make equal
        ones, for ever, but for what libraries and the running Python change between versions.
    X14 A text gives the same terms alone and in a column: both ways end in one map of terms.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from m2mdb.index.text.stopwords import stop_words
from m2mdb.index.text.tokenizer import (
    CASE,
    EXACT,
    FOLDED,
    cut_token,
    fold_accents,
    token_columns,
    tokenize_bytes,
)
from m2mdb.pager.errors import DataError, NotSupportedError, ProgrammingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from m2mdb.index.text.tokenizer import Folding

    Tokenizer = Callable[[str], Iterable[str]]
    TokenColumns = tuple[list[bytes], NDArray[np.uint32], NDArray[np.uint32]]

UNICODE = "unicode"
FOLDS: dict[object, Folding] = {True: FOLDED, "case": CASE, False: EXACT}
TERMS_KEPT = 1 << 16  # terms whose stems are remembered by an analyzer
ANALYZERS_KEPT = 64
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_any_hump: re.Pattern[str] | None = None


class Analyzer:
    """Terms of texts, as the options of a column want them. Pure; shared by threads."""

    __slots__ = ("_is_code", "_terms", "_tokenizer", "folding", "name")

    def __init__(
        self,
        folding: Folding = FOLDED,
        *,
        code: bool = False,
        terms: TermMap | None = None,
        tokenizer: Tokenizer | None = None,
        name: str = UNICODE,
    ) -> None:
        """`terms` maps tokens to terms; `tokenizer`, called `name`, is the program's own."""
        self.folding = folding
        self._is_code = code
        self._terms = terms
        self._tokenizer = tokenizer
        self.name = name

    @property
    def has_own_tokenizer(self) -> bool:
        """Whether the program cuts the texts."""
        return self._tokenizer is not None

    def term(self, token: bytes) -> bytes:
        """The term of a token, b"" where it is left out."""
        return token if self._terms is None else self._terms[token]

    def parts_of(self, text: str, start: int, stop: int) -> list[tuple[int, int]]:
        """The bounds of text[start:stop], or of the parts of the name that stands there."""
        if not self._is_code:
            return [(start, stop)]
        cuts = [start, *(start + at for at in humps(text[start:stop])), stop]
        return list(pairwise(cuts))

    def terms(self, text: str) -> list[bytes]:
        """The terms of a text, in order."""
        tokens = self.tokens(text)
        if self._terms is None:
            return tokens
        known = self._terms
        return [term for token in tokens if (term := known[token])]

    def tokens(self, text: str) -> list[bytes]:
        """The tokens of a text before `stop` and `stem`: what a prefix is made of."""
        if self._tokenizer is not None:
            return self._own_tokens(text)
        return tokenize_bytes(split_names(text) if self._is_code else text, self.folding)

    def prefix_terms(self, text: str) -> list[bytes]:
        """The terms of a text that ends in a prefix: folded alone, whole words or not."""
        tokens = self.tokens(text)
        known = self._terms
        return tokens if known is None else [known.folded(token) for token in tokens]

    def term_columns(self, texts: Sequence[str | None]) -> TokenColumns:
        """All terms of many texts, as `tokenizer.token_columns` gives tokens (X14)."""
        if self._tokenizer is not None:
            columns = self._own_columns(texts)
        elif self._is_code:
            split = [None if text is None else split_names(text) for text in texts]
            columns = token_columns(split, self.folding)
        else:
            columns = token_columns(texts, self.folding)
        return columns if self._terms is None else _mapped(columns, self._terms)

    # A tokenizer of the program's own

    def _own_tokens(self, text: str) -> list[bytes]:
        """What the program's tokenizer makes of a text; ProgrammingError where it fails."""
        assert self._tokenizer is not None
        try:
            given = list(self._tokenizer(text))
        except Exception as error:
            raise ProgrammingError(f"tokenizer {self.name!r} failed: {error!r}") from error
        found = []
        for token in given:
            if not isinstance(token, str):
                raise ProgrammingError(
                    f"tokenizer {self.name!r} gave {token!r}; expected the tokens as str"
                )
            try:
                encoded = token.encode()
            except UnicodeEncodeError as error:
                raise DataError(
                    f"tokenizer {self.name!r} gave {token!r}, which is not valid Unicode"
                ) from error
            if encoded:
                found.append(cut_token(encoded))
        return found

    def _own_columns(self, texts: Sequence[str | None]) -> TokenColumns:
        """`token_columns` by the program's tokenizer."""
        ids: dict[bytes, int] = {}
        tokens: list[int] = []
        counts = np.zeros(len(texts), np.int64)
        for number, text in enumerate(texts):
            if text is not None:
                found = self._own_tokens(text)
                tokens += [ids.setdefault(token, len(ids)) for token in found]
                counts[number] = len(found)
        owners = np.repeat(np.arange(len(texts), dtype=np.uint32), counts)
        return list(ids), np.array(tokens, np.uint32), owners


class TermMap(dict[bytes, bytes]):
    """What each token becomes: its term, or b"" where it is left out; filled as tokens are met."""

    __slots__ = ("_fold", "_stem", "_stop")

    def __init__(
        self, stop: frozenset[bytes], stem: Callable[[str], str] | None, *, fold: bool
    ) -> None:
        """`fold`: whether accents go, behind the stemmer."""
        super().__init__()
        self._stop = stop
        self._stem = stem
        self._fold = fold

    def __missing__(self, token: bytes) -> bytes:
        term = b""
        if token not in self._stop:
            term = token if self._stem is None else self._stem(token.decode()).encode()
            term = self.folded(term)
        if len(self) < TERMS_KEPT:
            self[token] = term
        return term

    def folded(self, token: bytes) -> bytes:
        """The token without accents, where they are folded."""
        return cut_token(fold_accents(token)) if self._fold else token


PLAIN = Analyzer()


_kept: dict[tuple[tuple[str, Any], ...], Analyzer] = {}  # with the terms that they know


def analyzer_of(
    options: Mapping[str, Any], tokenizers: Mapping[str, Tokenizer] | None = None
) -> Analyzer:
    """The analyzer of checked options (`options.parse_options`), `tokenizers` by their names.

    Those without a tokenizer of the program's own are made once.

    Raises ProgrammingError: a tokenizer that is not there, an unknown language.
    NotSupportedError: the package of stemmers is not installed.
    """
    if not options:
        return PLAIN
    if "tokenizer" in options:
        return _analyzer_of(options, tokenizers)
    key = tuple(sorted(options.items()))
    found = _kept.get(key)
    if found is None:
        if len(_kept) >= ANALYZERS_KEPT:
            _kept.clear()
        found = _kept[key] = _analyzer_of(options, None)
    return found


def _analyzer_of(
    options: Mapping[str, Any], tokenizers: Mapping[str, Tokenizer] | None
) -> Analyzer:
    """`analyzer_of`, made anew."""
    name = options.get("tokenizer", UNICODE)
    fold, stem, stop = options.get("fold", True), options.get("stem"), options.get("stop")
    tokenizer = None
    if name != UNICODE:
        tokenizer = (tokenizers or {}).get(name)
        if tokenizer is None:
            raise ProgrammingError(
                f"tokenizer {name!r} is not known to this connection; bring it along: "
                f"connect(path, tokenizers={{{name!r}: callable}})"
            )
    folds_behind = fold is True and tokenizer is None
    terms = None
    if stem or stop:
        left_out = _left_out(stop, tokenizer) if stop else frozenset()
        terms = TermMap(left_out, stemmer(stem) if stem else None, fold=folds_behind)
        fold = "case"
    folding = FOLDS[fold]
    code = bool(options.get("code"))
    if folding is FOLDED and not code and tokenizer is None:
        return PLAIN
    return Analyzer(folding, code=code, terms=terms, tokenizer=tokenizer, name=name)


def _left_out(stop: str, tokenizer: Tokenizer | None) -> frozenset[bytes]:
    """The tokens of a stop list; words that a tokenizer cuts in two are none."""
    found = set()
    analyzer = Analyzer(CASE, tokenizer=tokenizer)
    for word in stop_words(stop):
        tokens = analyzer.tokens(word)
        if len(tokens) == 1:
            found.add(tokens[0])
    return frozenset(found)


def stemmer(language: str) -> Callable[[str], str]:
    """Snowball's stemmer of a language.

    Raises NotSupportedError without the package, ProgrammingError for a language it has not.
    """
    try:
        import snowballstemmer
    except ImportError as error:
        raise NotSupportedError(
            "FULLTEXT option stem needs snowballstemmer (pip install 'm2mdb[text]')"
        ) from error
    languages = snowballstemmer.algorithms()
    if language.lower() not in languages:
        raise ProgrammingError(
            f"FULLTEXT option stem = {language!r}: expected one of {', '.join(languages)}"
        )
    stem: Callable[[str], str] = snowballstemmer.stemmer(language.lower()).stemWord
    return stem


def _mapped(columns: TokenColumns, terms_of: TermMap) -> TokenColumns:
    """The columns with every token made its term; those that are left out go."""
    tokens, token_ids, owners = columns
    ids: dict[bytes, int] = {}
    new_ids = np.empty(len(tokens), np.int64)
    for number, token in enumerate(tokens):
        term = terms_of[token]
        new_ids[number] = ids.setdefault(term, len(ids)) if term else -1
    mapped = new_ids[token_ids]
    kept = mapped >= 0
    return list(ids), mapped[kept].astype(np.uint32), owners[kept]


def split_names(text: str) -> str:
    """A text with a space at each hump of a name: getUserName, HTTPServer, größerAls."""
    return _hump_in(text).sub(" ", text)


def humps(text: str) -> list[int]:
    """Where `split_names` puts a space."""
    return [found.start() for found in _hump_in(text).finditer(text)]


def _hump_in(text: str) -> re.Pattern[str]:
    """The pattern that finds humps in a text."""
    global _any_hump
    if text.isascii():
        return _HUMP
    if _any_hump is None:
        upper = "".join(map(chr, filter(lambda code: chr(code).isupper(), range(0x110000))))
        small = "".join(map(chr, filter(lambda code: chr(code).islower(), range(0x110000))))
        _any_hump = re.compile(
            f"(?<=[{small}0-9])(?=[{upper}])|(?<=[{upper}])(?=[{upper}][{small}])"
        )
    return _any_hump
