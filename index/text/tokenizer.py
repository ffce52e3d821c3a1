"""Tokenizer: text to tokens, for one text or for a whole column at once.

A token is a run of letters, marks and numbers, folded:

    text --NFKC--> code point table --NFC--> UTF-8 --> byte table --> split at spaces

The code point table drops accents, folds case, writes decimal digits in ASCII and turns everything
that is no letter, mark or number into a space. The byte table does the same for ASCII, so a text
that is ASCII takes the last two steps alone. A `Folding` has both tables; there are three, for
columns that fold case and accents, case alone, or neither. Runs of Han, kana and Hangul, which have
no spaces between words, become overlapping pairs of characters (a run of one stays one). Tokens are
UTF-8.

Invariants
    X1  `tokenize(text)` and `token_columns([text])` give the same tokens: both cut the same bytes.
    X2  A token is never empty, holds no ASCII but letters and digits, and has MAX_TOKEN_BYTES at
        most; a longer one is cut at a character, in texts and in queries alike.
    X3  Folding is per code point after NFKC, so it does not depend on the text around a token.
"""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import count
from operator import add
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

MAX_TOKEN_BYTES = 255  # as Lucene's; no word is longer, and a blob of base64 is no term
_BATCH_BYTES = 8 << 20  # of text whose tokens exist as Python objects at one time
# Putting a run of combining marks in order takes quadratic time; no word has so many (UAX #15).
MARKS_KEPT = 30
LONGEST_UNBOUNDED = 500  # characters; below, the time is bounded anyway
_BETWEEN = b"\xff"  # between two texts: a byte that UTF-8 never has

# Code points that accents are made of; marks elsewhere (Indic vowels, kana) are part of the word.
_ACCENTS = (
    (0x0300, 0x036F), (0x0483, 0x0489), (0x0591, 0x05C7), (0x0610, 0x061A), (0x064B, 0x065F),
    (0x0670, 0x0670), (0x06D6, 0x06ED), (0x1AB0, 0x1AFF), (0x1DC0, 0x1DFF), (0x20D0, 0x20FF),
    (0xFE00, 0xFE0F), (0xFE20, 0xFE2F), (0xE0100, 0xE01EF),
)  # fmt: skip
# Letters whose stroke or ligature no decomposition removes.
_STROKES = {
    "ø": "o", "đ": "d", "ð": "d", "ħ": "h", "ı": "i", "ł": "l", "ŧ": "t", "æ": "ae", "œ": "oe",
    "þ": "th",
}  # fmt: skip
_CJK_CLASS = (
    "[\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3041-\u3096\u3099\u309a\u309d-\u309f"
    "\u30a1-\u30fa\u30fc-\u30ff\u3105-\u312f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uac00-\ud7a3\uf900-\ufaff\U0001b000-\U0001b16f\U00020000-\U0003fffd]"
)
_ASCII_WORD = re.compile("[0-9A-Za-z]+")
_PARTING, _WORD, _PAIRED, _JOINED = 0, 1, 2, 3  # kinds of characters
_cjk_run: re.Pattern[str] | None = None
_long_run: re.Pattern[str] | None = None


class Folding(dict[int, str]):
    """What each code point becomes, filled as code points are met; and each byte of ASCII."""

    LIMIT = 1 << 16  # entries kept: a file of every code point must not cost 100 MB
    __slots__ = ("accents", "byte_table", "case", "kinds")

    def __init__(self, *, case: bool, accents: bool) -> None:
        """Which of both are folded."""
        super().__init__()
        self.case = case
        self.accents = accents
        self.kinds: dict[str, int] = {}  # of characters, see `pieces`
        self.byte_table = bytes(map(self._byte, range(256)))

    def _byte(self, byte: int) -> int:
        """What a byte becomes: a letter, a digit, or the space between words."""
        if byte >= 0x80 or chr(byte).isalnum():
            return ord(chr(byte).lower()) if self.case and byte < 0x80 else byte
        return 32

    def __missing__(self, code: int) -> str:
        folded = _fold_code_point(code, self)
        if len(self) < self.LIMIT:
            self[code] = folded
        return folded


FOLDED = Folding(case=True, accents=True)
CASE = Folding(case=True, accents=False)
EXACT = Folding(case=False, accents=False)


def tokenize(text: str) -> list[str]:
    """The tokens of `text`, in order."""
    return [token.decode() for token in tokenize_bytes(text)]


def tokenize_bytes(text: str, folding: Folding = FOLDED) -> list[bytes]:
    """The tokens of `text` in UTF-8, in order: the form that indexes hold."""
    folded = _encode(text, folding).translate(folding.byte_table)
    tokens = folded.split()
    if len(folded) > MAX_TOKEN_BYTES and max(map(len, tokens), default=0) > MAX_TOKEN_BYTES:
        return [cut_token(token) for token in tokens]
    return tokens


def cut_token(token: bytes) -> bytes:
    """The token, no longer than MAX_TOKEN_BYTES (X2)."""
    if len(token) <= MAX_TOKEN_BYTES:
        return token
    return token[:MAX_TOKEN_BYTES].decode("utf-8", "ignore").encode()


def fold_accents(token: bytes) -> bytes:
    """A token without accents."""
    if token.isascii():
        return token
    import unicodedata

    return unicodedata.normalize("NFC", token.decode().translate(FOLDED)).encode()


def fold(text: str, folding: Folding = FOLDED) -> str:
    """`text` with accents dropped, case folded, CJK runs in pairs and separators as spaces.

    ASCII characters are left as they are: the byte table folds them.
    """
    import unicodedata

    global _long_run
    if len(text) > LONGEST_UNBOUNDED:
        if _long_run is None:
            _long_run = re.compile(rf"([^\w\s]{{{MARKS_KEPT}}})[^\w\s]+")
        text = _long_run.sub(r"\1", text)
    folded = unicodedata.normalize("NFKC", text).translate(folding)
    if folded.isascii():
        return folded
    # What a dropped character parted may compose now.
    return _cjk().sub(_pairs, unicodedata.normalize("NFC", folded))


def token_columns(
    texts: Sequence[str | None], folding: Folding = FOLDED
) -> tuple[list[bytes], NDArray[np.uint32], NDArray[np.uint32]]:
    """All tokens of many texts: (terms, term of each token, text of each token).

    `terms` are the distinct tokens in no given order; the two arrays hold an index into it and an
    index into `texts` for each token, in the order of the texts. A None has no tokens.
    """
    term_ids: defaultdict[bytes, int] = defaultdict(count(1).__next__)
    term_ids[_BETWEEN] = 0
    ids: list[NDArray[np.uint32]] = []
    for tokens in _token_batches(texts, folding):
        ids.append(np.fromiter(map(term_ids.__getitem__, tokens), np.uint32, len(tokens)))
    tokens_of_all = np.concatenate(ids) if ids else np.empty(0, np.uint32)
    is_token = tokens_of_all != 0
    text_of_token = np.cumsum(~is_token, dtype=np.uint32)[is_token]
    terms = list(term_ids)[1:]
    kept = tokens_of_all[is_token] - np.uint32(1)
    if terms and max(map(len, terms)) > MAX_TOKEN_BYTES:
        terms, kept = _cut_terms(terms, kept)
    return terms, kept, text_of_token


def _cut_terms(
    terms: list[bytes], tokens: NDArray[np.uint32]
) -> tuple[list[bytes], NDArray[np.uint32]]:
    """The same with long terms cut, and those that became equal made one (X2)."""
    term_ids: defaultdict[bytes, int] = defaultdict(count().__next__)
    new_ids = np.array([term_ids[cut_token(term)] for term in terms], np.uint32)
    return list(term_ids), new_ids[tokens]


def _token_batches(texts: Sequence[str | None], folding: Folding) -> Iterator[list[bytes]]:
    """The tokens of all texts, with `_BETWEEN` between two texts, in bounded lists."""
    batch: list[bytes] = []
    size = 0
    for number, text in enumerate(texts, 1):
        encoded = _encode(text, folding) if text else b""
        batch.append(encoded)
        size += len(encoded)
        if size >= _BATCH_BYTES or number == len(texts):
            if number < len(texts):
                batch.append(b"")  # so that the next batch begins with a new text
            yield from _split((b" " + _BETWEEN + b" ").join(batch).translate(folding.byte_table))
            batch = []
            size = 0


def _split(folded: bytes) -> Iterator[list[bytes]]:
    """The tokens of folded bytes, a bounded number at a time, cut only at spaces."""
    start = 0
    while len(folded) - start > 2 * _BATCH_BYTES:
        stop = folded.find(b" ", start + _BATCH_BYTES)
        if stop < 0:
            break
        yield folded[start:stop].split()
        start = stop
    yield folded[start:].split() if start else folded.split()


def _encode(text: str, folding: Folding) -> bytes:
    """The bytes that the byte table and split() make tokens of."""
    return text.encode() if text.isascii() else fold(text, folding).encode()


def is_cjk(character: str) -> bool:
    """Whether a character is one of those that are cut into pairs."""
    return _cjk().fullmatch(character) is not None


def _cjk() -> re.Pattern[str]:
    """The pattern of a run of Han, kana and Hangul."""
    global _cjk_run
    if _cjk_run is None:
        _cjk_run = re.compile(_CJK_CLASS + "+")
    return _cjk_run


def pieces(text: str, folding: Folding = FOLDED) -> list[tuple[int, int]]:
    """The runs of `text` whose tokens are those of the whole, as (start, stop) in characters."""
    if text.isascii():
        return [found.span() for found in _ASCII_WORD.finditer(text)]
    found: list[tuple[int, int]] = []
    start, kind = 0, _PARTING
    for at, character in enumerate(text):
        its_kind = _kind(character, folding)
        if its_kind == _JOINED:
            its_kind = kind
        if its_kind != kind:
            if kind != _PARTING:
                found.append((start, at))
            start, kind = at, its_kind
    if kind != _PARTING:
        found.append((start, len(text)))
    return found


def _kind(character: str, folding: Folding) -> int:
    """What a character is to `pieces`."""
    known = folding.kinds.get(character)
    if known is None:
        folded = fold(character, folding).encode().translate(folding.byte_table).decode()
        known = _PARTING if folded else _JOINED
        if folded.strip():
            known = _PAIRED if is_cjk(folded.strip()[0]) else _WORD
        if len(folding.kinds) < folding.LIMIT:
            folding.kinds[character] = known
    return known


def _pairs(run: re.Match[str]) -> str:
    """A run of CJK characters as overlapping pairs between spaces."""
    characters = run.group()
    if len(characters) == 1:
        return f" {characters} "
    return f" {' '.join(map(add, characters, characters[1:]))} "


def _fold_code_point(code: int, folding: Folding) -> str:
    """What one code point of NFKC text becomes (X3)."""
    import unicodedata

    if code < 0x80:
        return chr(code)
    if code == 0x200B:  # a zero width space does part words, other format characters do not
        return " "
    if unicodedata.category(chr(code)) == "Cf":
        return ""
    pieces = []
    text = chr(code).casefold() if folding.case else chr(code)
    for character in unicodedata.normalize("NFKD", text):
        category = unicodedata.category(character)
        if category == "Nd":
            pieces.append(str(unicodedata.decimal(character)))
        elif category[0] == "M" and _is_accent(ord(character)):
            pieces.append("" if folding.accents else character)
        elif folding.accents:
            pieces.append(_STROKES.get(character, character) if category[0] in "LNM" else " ")
        else:
            pieces.append(character if category[0] in "LNM" else " ")
    return unicodedata.normalize("NFC", "".join(pieces))


def _is_accent(code: int) -> bool:
    """Whether the mark is an accent on a letter, not a part of the word's spelling."""
    return any(first <= code <= last for first, last in _ACCENTS)
