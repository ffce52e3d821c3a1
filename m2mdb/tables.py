"""Tables: rows as aligned text or as JSON, and progress on a terminal."""

from __future__ import annotations

import datetime
import json
import math
import sys
import time
import unicodedata
from collections.abc import Sequence
from typing import Any

CELL_WIDTH = 60  # characters of a text that a table shows
PROGRESS_SECONDS = 0.1  # between two updates of a progress line


def cell(value: Any, width: int = CELL_WIDTH) -> str:
    """One value as a table shows it: on one line, and not too wide."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, bytes):
        return cut(f"x'{value[: width // 2].hex()}'", width)
    if isinstance(value, datetime.datetime):
        return value.isoformat(sep=" ")
    if hasattr(value, "shape"):
        start = ", ".join(f"{item:.3g}" for item in value.ravel()[:3].tolist())
        return f"[{start}, …] {value.dtype}({value.size})" if value.size > 3 else f"[{start}]"
    return cut(" ".join(str(value)[: width * 8].split()), width)


def cut(text: str, width: int) -> str:
    """The text, or its start and an ellipsis, in at most `width` columns."""
    if columns(text) <= width:
        return text
    while columns(text) > width - 1:
        text = text[:-1]
    return text + "…"


def columns(text: str) -> int:
    """How many columns a terminal gives a text; control characters are shown as one."""
    if text.isascii():
        return len(text)
    return sum(
        0
        if unicodedata.combining(character)
        else 2
        if unicodedata.east_asian_width(character) in "WF"
        else 1
        for character in text
    )


def table(names: Sequence[str], rows: Sequence[Sequence[Any]], width: int = CELL_WIDTH) -> str:
    """Rows under their column names; numbers stand right."""
    cells = [[printable(cell(value, width)) for value in row] for row in rows]
    widths = [
        max([columns(printable(name)), *(columns(row[i]) for row in cells)])
        for i, name in enumerate(names)
    ]
    right = [
        all(isinstance(row[i], (int, float)) or row[i] is None for row in rows)
        for i in range(len(names))
    ]
    lines = [
        [printable(name) for name in names],
        ["─" * size for size in widths],
        *cells,
    ]
    return "\n".join(
        "  ".join(
            pad(text, size, to_right)
            for text, size, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )


def pad(text: str, width: int, to_right: bool) -> str:
    """The text filled with spaces to `width` columns."""
    space = " " * (width - columns(text))
    return space + text if to_right else text + space


def printable(text: str) -> str:
    """The text with control characters replaced: a database's content drives no terminal."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else "�" for character in text)


def plain(value: Any) -> Any:
    """A value as JSON has it: arrays as lists, blobs in hex, times in ISO form, NaN as null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    return value


def as_json(value: Any) -> str:
    """The value as JSON text, indented, any language's letters as they are."""
    return json.dumps(plain(value), ensure_ascii=False, indent=2)


class Progress:
    """A line on stderr that says how far a task is; silent where stderr is no terminal."""

    def __init__(self, label: str, total: int = 0) -> None:
        self.label = label
        self.total = total
        self.done = 0
        self._shown = 0.0
        self._active = sys.stderr.isatty()

    def add(self, count: int = 1) -> None:
        """Say that `count` more are done."""
        self.done += count
        now = time.monotonic()
        if self._active and now - self._shown >= PROGRESS_SECONDS:
            self._shown = now
            of_total = f" of {self.total:,}" if self.total else ""
            line = f"\r{self.label} {self.done:,}{of_total}\x1b[K"
            print(line, end="", file=sys.stderr, flush=True)

    def at(self, label: str, done: int, total: int) -> None:
        """Say how far a task is, as a connection's work handler hears it."""
        self.label, self.done, self.total = f"{label}:", done, total
        self.add(0)

    def close(self) -> None:
        """Clear the line."""
        if self._active and self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
