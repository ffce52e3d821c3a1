"""The known differences from SQLite: each with its reason, and how it is told.

`docs/language.md` lists them for users under "Differences from SQLite"; a test holds the two lists
together. A difference that no entry explains fails the test.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from m2mdb.query.affinity import apply_numeric
from tests.differential.compare import Outcome, same
from tests.differential.statements import Made


@dataclass(frozen=True, slots=True)
class Difference:
    """A known difference.

    stops   the rows of both sides differ from now on, so the script ends here
    """

    name: str
    reason: str
    applies: Callable[[Made, Outcome, Outcome], bool]
    stops: bool = False


def _error(side: Outcome, *parts: str) -> bool:
    return bool(side.error) and any(part in side.message for part in parts)


def _order_of_evaluation(made: Made, mine: Outcome, other: Outcome) -> bool:
    """One side met a value that it refuses, which the other had no need to look at."""
    if bool(mine.error) == bool(other.error):
        return False
    met = mine if mine.error else other
    lazy = re.search(r"\b(AND|OR|CASE|coalesce|ifnull|iif|IN|BETWEEN|WHERE|HAVING|LIMIT|EXISTS|"
                     r"JOIN|ON|min|max|SELECT .*SELECT)\b", made.sql)  # fmt: skip
    return bool(lazy) and _error(met, *_REFUSED)


def _bytes_as_text(made: Made, mine: Outcome, other: Outcome) -> bool:
    """Bytes that SQLite took for a text, shown by a BLOB that was made of it."""
    shown = Outcome([tuple(map(_as_text, row)) for row in mine.rows])
    theirs = Outcome([tuple(map(_as_text, row)) for row in other.rows])
    return mine.rows != other.rows and _same_but(mine, other, shown, theirs, made)


def _as_text(value: object) -> object:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _numbers_of_texts(made: Made, mine: Outcome, other: Outcome) -> bool:
    """A TEXT column that SQLite gives as numbers, since IN compared it with some."""
    if not re.search(r"\bIN \(SELECT\b.*GROUP BY", made.sql, re.DOTALL):
        return False
    shown = Outcome([tuple(map(_as_number, row)) for row in mine.rows])
    return _same_but(mine, other, shown, other, made)


def _as_number(value: object) -> object:
    found = apply_numeric(value) if isinstance(value, str) else value
    return float(found) if isinstance(found, int) else found


def _same_but(mine: Outcome, other: Outcome, one: Outcome, two: Outcome, made: Made) -> bool:
    if mine.error or other.error or not made.is_query:
        return False
    return same(replace(made, loose=True), one, two)


_REFUSED = ("overflow", "malformed JSON", "ESCAPE", "JSON path", "JSON cannot hold")

DIFFERENCES = (
    Difference(
        "order of evaluation",
        "Which operand of AND, OR and of a list is looked at first is left open by both, so that "
        "a value that is refused (integer overflow, malformed JSON) may not be met.",
        _order_of_evaluation,
        stops=True,
    ),
    Difference(
        "sum of integers",
        "sum() is an error where the sum does not fit 64 bits; SQLite's is one where any sum on "
        "the way does not, which depends on the order of the rows.",
        lambda made, mine, other: "sum(" in made.sql and _error(other, "integer overflow"),
    ),
    Difference(
        "numbers in ORDER BY",
        "ORDER BY and GROUP BY take an integer that stands alone as the number of a column; SQLite "
        "takes what it folds to one, such as (+5), too.",
        lambda made, mine, other: _error(other, "BY term out of range"),
    ),
    Difference(
        "UNIQUE at the end",
        "UNIQUE holds at the end of a statement; SQLite looks at each row as it is changed, so "
        "that an UPDATE that only moves values about may fail.",
        lambda made, mine, other: made.sql.startswith("UPDATE") and not mine.error
        and _error(other, "UNIQUE constraint failed"),
        stops=True,
    ),
    Difference(
        "REAL columns are exact",
        "A whole number that REAL would round is refused with DataError; SQLite rounds it.",
        lambda made, mine, other: not made.is_query and mine.error == "DataError"
        and "would round" in mine.message and not other.error,
        stops=True,
    ),
    Difference(
        "the least integer",
        "A real of -2**63 is stored in an INTEGER column, which it fits; SQLite refuses it.",
        lambda made, mine, other: not mine.error
        and _error(other, "cannot store REAL value in INTEGER")
        and bool(made.wanted or "9223372036854775808" in made.sql),
        stops=True,
    ),
    Difference(
        "values before conflicts",
        "A value that its column refuses is DataError whatever becomes of the row; under OR IGNORE "
        "and ON CONFLICT SQLite may never look at it.",
        lambda made, mine, other: mine.error == "DataError" and "cannot store" in mine.message
        and bool(re.search("OR (IGNORE|FAIL|REPLACE)|DO NOTHING|DO UPDATE", made.sql)),
        stops=True,
    ),
    Difference(
        "rows of REPLACE",
        "RETURNING gives the rows that are there when the statement has ended: of several rows of "
        "one REPLACE with the same key the last.",
        lambda made, mine, other: bool(re.match("REPLACE|INSERT OR REPLACE", made.sql))
        and "RETURNING" in made.sql and len(mine.rows) < len(other.rows)
        and {row[0] for row in mine.rows} <= {row[0] for row in other.rows},
    ),
    Difference(
        "bytes as text",
        "Bytes that are no UTF-8 become U+FFFD where they become a text; SQLite keeps them.",
        _bytes_as_text,
    ),
    Difference(
        "texts in IN (SELECT …)",
        "A TEXT column stays a text; SQLite 3.40 gives it as a number where GROUP BY is by it and "
        "the statement asks whether it is IN a query of numbers.",
        _numbers_of_texts,
    ),
)  # fmt: skip


def half_done(made: Made, mine: Outcome, other: Outcome) -> bool:
    """Whether SQLite may have kept changes of a statement that failed.

    A STRICT table's check of types stops a statement without undoing what it did to rows before;
    here a failed statement undoes itself, and OR FAIL keeps rows before a violation alone. Values
    of all rows are converted before the first is written, so that a DataError comes before a
    violation, and OR FAIL and OR ROLLBACK do nothing where they do in SQLite.
    """
    clause = "OR FAIL" in made.sql or "OR ROLLBACK" in made.sql
    refused = "cannot store" in other.message or (
        clause and mine.error == "DataError" and bool(other.error)
    )
    return bool(mine.error) and refused


def explanation(made: Made, mine: Outcome, other: Outcome) -> Difference | None:
    """The known difference that this is, or None."""
    for each in DIFFERENCES:
        if each.applies(made, mine, other):
            return each
    return None
