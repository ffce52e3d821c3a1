"""Options of a FULLTEXT column: `body TEXT FULLTEXT (stem = 'english', weight = 2.0)`.

variant     lucene (default), okapi, l, plus
k1, b       BM25's parameters; the variant's own by default
delta       of l and plus;  epsilon: of okapi
weight      factor on this column's scores when all columns are matched, 1 by default
tokenizer   unicode, or the name of one that connect() brings along
fold        true (default): case and accents are folded; 'case': case alone; false: neither
code        true: names are cut at their humps too (getUserName)
stem        a language of Snowball's stemmers
stop        a language whose stop words are left out, or those words
positions   true (default): phrases are found without reading texts; false: smaller lists

All from tokenizer to stop say how terms are made of texts (`analysis.py`): they cannot change in a
file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from m2mdb.index.text.analysis import UNICODE, Analyzer, analyzer_of
from m2mdb.index.text.bm25 import VARIANTS, Variant
from m2mdb.pager.errors import ProgrammingError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from m2mdb.index.text.analysis import Tokenizer

_NUMBERS = {"k1": 1e3, "b": 1.0, "delta": 1e3, "epsilon": 1e3, "weight": 1e6}  # and their maxima
_ANALYSIS = ("tokenizer", "fold", "code", "stem", "stop")
_TRUTHS = {"true": True, "on": True, "false": False, "off": False, "none": False}
LONGEST_WORDS = 10_000  # characters of a list of stop words


class TextOptions:
    """Checked options of a FULLTEXT column."""

    __slots__ = ("analysis", "positions", "variant", "weight")

    def __init__(
        self, variant: Variant, weight: float, analysis: dict[str, Any], *, positions: bool
    ) -> None:
        """Keep the ranking function, the column's weight, and what makes its analyzer."""
        self.positions = positions
        self.variant = variant
        self.weight = weight
        self.analysis = analysis

    def analyzer(self, tokenizers: Mapping[str, Tokenizer] | None = None) -> Analyzer:
        """The column's analyzer; errors as `analysis.analyzer_of`."""
        return analyzer_of(self.analysis, tokenizers)

    @property
    def is_lasting(self) -> bool:
        """Whether terms are made by this build alone, not by a library or by the program."""
        analysis = self.analysis
        return not any(analysis.get(name) for name in ("stem", "stop", "tokenizer"))


def parse_options(options: Mapping[str, object] | None) -> TextOptions:
    """Check the options; ProgrammingError for a wrong one."""
    given = {name.lower(): value for name, value in (options or {}).items()}
    analysis = _analysis({name: given.pop(name) for name in _ANALYSIS if name in given})
    positions = _truth("positions", given.pop("positions", True))
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
    return TextOptions(kind(**numbers), weight, analysis, positions=positions)


def _analysis(given: dict[str, object]) -> dict[str, Any]:
    """The options of the analyzer that say anything, in the types that `analyzer_of` takes."""
    found: dict[str, Any] = {}
    for name in ("tokenizer", "stem", "stop"):
        value = given.get(name)
        if value in (None, False, "", "none"):
            continue
        if not isinstance(value, str) or len(value) > LONGEST_WORDS:
            raise ProgrammingError(f"FULLTEXT option {name} = {value!r:.60}: expected a text")
        if (name, value) != ("tokenizer", UNICODE):
            found[name] = value
    if _truth("code", given.get("code", False)):
        found["code"] = True
    fold = given.get("fold", True)
    if fold != "case":
        fold = _truth("fold", fold, " or 'case'")
    if fold is not True:
        found["fold"] = fold
    _check_together(found)
    return found


def _check_together(analysis: dict[str, Any]) -> None:
    """Refuse options that contradict each other."""
    for name in ("fold", "code"):
        if name in analysis and "tokenizer" in analysis:
            raise ProgrammingError(
                f"FULLTEXT option {name} is of the tokenizer 'unicode', not of "
                f"{analysis['tokenizer']!r}"
            )
    for name in ("stem", "stop"):
        if name in analysis and analysis.get("fold") is False:
            raise ProgrammingError(f"FULLTEXT option {name} needs small letters: fold = 'case'")


def _truth(name: str, value: object, other: str = "") -> bool:
    """A value that is true or false, as statements and programs write it."""
    if isinstance(value, str) and value.lower() in _TRUTHS:
        return _TRUTHS[value.lower()]
    if isinstance(value, (bool, int)) and value in (0, 1):
        return bool(value)
    raise ProgrammingError(f"FULLTEXT option {name} = {value!r:.60}: expected true or false{other}")


def _number(name: str, value: object) -> float:
    """The option's value, a number in its bounds."""
    if name not in _NUMBERS:
        known = ", ".join(["variant", *_NUMBERS, *_ANALYSIS, "positions"])
        raise ProgrammingError(f"FULLTEXT option {name!r}: expected one of {known}")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ProgrammingError(f"FULLTEXT option {name} = {value!r}: expected a number")
    if not 0 <= value <= _NUMBERS[name]:
        raise ProgrammingError(
            f"FULLTEXT option {name} = {value!r}: expected 0 to {_NUMBERS[name]:g}"
        )
    return float(value)
