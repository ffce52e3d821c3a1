"""Patterns: LIKE and GLOB, translated once per pattern to a compiled regular expression.

LIKE compares ASCII letters without case; `%` is any run, `_` any character. GLOB is exact; `*`,
`?` and `[a-z]`, `[^a-z]`. A run before a literal part takes the leftmost place where that part
matches and never looks back, so that no pattern takes exponential time.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from m2mdb.pager.errors import DataError
from m2mdb.query.affinity import Value, shown, to_text

MAX_PATTERN_CHARACTERS = 50_000  # SQLite's limit, in bytes there


def _join(runs: list[list[str]], flags: int) -> Callable[[str], bool]:
    """A matcher of the parts between wild runs; each part is a list of one-character patterns."""
    first, *rest = ["".join(run) for run in runs]
    if not rest:
        body = first
    else:
        middle = "".join(f"(?>.*?{part})" for part in rest[:-1] if part)
        body = first + middle + ".*" + rest[-1]
    matcher = re.compile(body, flags | re.DOTALL).fullmatch
    return lambda text: matcher(text) is not None


def _never(text: str) -> bool:
    return False


@lru_cache(maxsize=256)
def like_matcher(pattern: str, escape: str | None) -> Callable[[str], bool]:
    """Whether a text matches a LIKE pattern.

    Raises DataError: the pattern is too long.
    """
    _check_length(pattern)
    slow = _like_expression(pattern, escape)
    word = pattern.strip("%")
    if escape is not None or not word.isascii() or "%" in word or "_" in word:
        return slow
    return _word_matcher(word.lower(), pattern, slow)


def _word_matcher(word: str, pattern: str, slow: Callable[[str], bool]) -> Callable[[str], bool]:
    """A matcher of `word`, `word%`, `%word` or `%word%` that is fast on texts of ASCII alone."""
    if not word:
        return slow
    if not pattern.startswith("%"):
        size = len(word)
        if not pattern.endswith("%"):
            return lambda text: len(text) == size and text.isascii() and text.lower() == word
        return lambda text: text[:size].lower() == word if text.isascii() else slow(text)
    if pattern.endswith("%"):
        return lambda text: word in text.lower() if text.isascii() else slow(text)
    return lambda text: text.lower().endswith(word) if text.isascii() else slow(text)


def _like_expression(pattern: str, escape: str | None) -> Callable[[str], bool]:
    runs: list[list[str]] = [[]]
    characters = iter(pattern)
    for character in characters:
        if character == escape:
            following = next(characters, None)
            if following is None:
                return _never
            runs[-1].append(re.escape(following))
        elif character == "%":
            runs.append([])
        else:
            runs[-1].append("." if character == "_" else re.escape(character))
    return _join(runs, re.IGNORECASE | re.ASCII)


@lru_cache(maxsize=256)
def glob_matcher(pattern: str) -> Callable[[str], bool]:
    """Whether a text matches a GLOB pattern.

    Raises DataError: the pattern is too long.
    """
    _check_length(pattern)
    runs: list[list[str]] = [[]]
    index = 0
    while index < len(pattern):
        character = pattern[index]
        index += 1
        if character == "*":
            runs.append([])
        elif character == "?":
            runs[-1].append(".")
        elif character == "[":
            end = _set_end(pattern, index)
            if end < 0:
                return _never
            runs[-1].append(_set_pattern(pattern[index:end]))
            index = end + 1
        else:
            runs[-1].append(re.escape(character))
    return _join(runs, 0)


def _set_end(pattern: str, start: int) -> int:
    """Where the set that begins at `start` ends; -1 where it does not."""
    if pattern.startswith("^", start):
        start += 1
    return pattern.find("]", start + 1 if pattern.startswith("]", start) else start)


def _set_pattern(inside: str) -> str:
    """A set of characters; a range that runs backwards holds nothing."""
    negated = inside.startswith("^")
    inside = inside[negated:]
    parts: list[str] = []
    index = 0
    while index < len(inside):
        low = inside[index]
        if index + 2 < len(inside) and inside[index + 1] == "-":
            high = inside[index + 2]
            if low <= high:
                parts.append(f"{re.escape(low)}-{re.escape(high)}")
            index += 3
        else:
            parts.append(re.escape(low))
            index += 1
    if not parts:
        return "." if negated else "(?!)"
    return f"[{'^' if negated else ''}{''.join(parts)}]"


def _check_length(pattern: str) -> None:
    if len(pattern) > MAX_PATTERN_CHARACTERS:
        raise DataError(
            f"LIKE or GLOB pattern of {len(pattern)} characters; the limit is "
            f"{MAX_PATTERN_CHARACTERS}"
        )


def like(text: Value, pattern: Value, escape: Value = None) -> bool | None:
    """`text LIKE pattern ESCAPE escape`; NULL where one of them is NULL, no match for blobs.

    Raises DataError: ESCAPE is not one character.
    """
    if type(text) is bytes or type(pattern) is bytes:
        return False
    text, pattern = to_text(text), to_text(pattern)
    if text is None or pattern is None:
        return None
    if escape is not None:
        escape = to_text(escape)
        if len(escape) != 1:
            raise DataError(f"ESCAPE takes one character, not {shown(escape)}")
    return like_matcher(pattern, escape)(text)


def glob(text: Value, pattern: Value) -> bool | None:
    """`text GLOB pattern`; NULL where one of them is NULL, no match for blobs."""
    if type(text) is bytes or type(pattern) is bytes:
        return False
    text, pattern = to_text(text), to_text(pattern)
    return None if text is None or pattern is None else glob_matcher(pattern)(text)
