"""Options of a FULLTEXT column: `body TEXT FULLTEXT (variant = 'lucene', weight = 2.0)`.

variant     lucene (default), okapi, l, plus
k1, b       BM25's parameters; the variant's own by default
delta       of l and plus;  epsilon: of okapi
weight      factor on this column's scores when all columns are matched, 1 by default
tokenizer   unicode
stem, stop  a language; named by the format, not built yet
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m2mdb.index.text.bm25 import VARIANTS, Variant
from m2mdb.pager.errors import NotSupportedError, ProgrammingError

if TYPE_CHECKING:
    from collections.abc import Mapping

_NUMBERS = {"k1": 1e3, "b": 1.0, "delta": 1e3, "epsilon": 1e3, "weight": 1e6}  # and their maxima
_NOT_BUILT = ("stem", "stop")


class TextOptions:
    """Checked options of a FULLTEXT column."""

    __slots__ = ("variant", "weight")

    def __init__(self, variant: Variant, weight: float) -> None:
        """Keep the ranking function and the column's weight."""
        self.variant = variant
        self.weight = weight


def parse_options(options: Mapping[str, object] | None) -> TextOptions:
    """Check the options; ProgrammingError for a wrong one, NotSupportedError for a later one."""
    given = {name.lower(): value for name, value in (options or {}).items()}
    for name in _NOT_BUILT:
        if given.pop(name, None) not in (None, False, "", "none"):
            raise NotSupportedError(f"FULLTEXT option {name!r}: not built yet")
    tokenizer = given.pop("tokenizer", "unicode")
    if tokenizer != "unicode":
        raise NotSupportedError(f"FULLTEXT option tokenizer = {tokenizer!r}: expected 'unicode'")
    variant = given.pop("variant", "lucene")
    if not isinstance(variant, str) or variant.lower() not in VARIANTS:
        raise ProgrammingError(
            f"FULLTEXT option variant = {variant!r}: expected one of {', '.join(VARIANTS)}"
        )
    numbers = {name: _number(name, value) for name, value in given.items()}
    weight = numbers.pop("weight", 1.0)
    kind = VARIANTS[variant.lower()]
    unknown = sorted(set(numbers) - set(kind.PARAMETERS))
    if unknown:
        raise ProgrammingError(
            f"FULLTEXT option {unknown[0]!r}: variant {variant!r} has {', '.join(kind.PARAMETERS)}"
        )
    return TextOptions(kind(**numbers), weight)


def _number(name: str, value: object) -> float:
    """The option's value, a number in its bounds."""
    if name not in _NUMBERS:
        known = ", ".join(["variant", *_NUMBERS, "tokenizer", *_NOT_BUILT])
        raise ProgrammingError(f"FULLTEXT option {name!r}: expected one of {known}")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ProgrammingError(f"FULLTEXT option {name} = {value!r}: expected a number")
    if not 0 <= value <= _NUMBERS[name]:
        raise ProgrammingError(
            f"FULLTEXT option {name} = {value!r}: expected 0 to {_NUMBERS[name]:g}"
        )
    return float(value)
