"""List counts: how many lists so many vectors get, by themselves or as an index says.

    CREATE INDEX ... USING hrm2 (e)                     lists of 50 rows, longer in large segments
    CREATE INDEX ... USING hrm2 (e) WITH (lists = 256)  so many in each segment

A number of lists is that of each segment: a merge or OPTIMIZE brings most of a collection into one.
Smaller segments get fewer, so that a list has LEAST_LIST_ROWS rows or more in the mean. Training
splits lists that are long and leaves out empty ones, so that there are some more or fewer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from m2mdb.pager.errors import ProgrammingError

if TYPE_CHECKING:
    from m2mdb.index.schema import CollectionSchema

KIND = "hrm2"
LISTS = "lists"  # the option
LIST_ROWS = 50  # of a list, up to CROWD rows; then it grows by GROWTH
CROWD = 100_000
GROWTH = 0.4
LEAST_LISTS, MOST_LISTS = 2, 1 << 20  # that may be asked for
LEAST_LIST_ROWS = 16  # half a block of codes


def list_count(rows: int, wanted: int | None = None) -> int:
    """How many lists so many rows get; `wanted` is what an index says."""
    if wanted is not None:
        return max(1, min(wanted, rows // LEAST_LIST_ROWS))
    mean = LIST_ROWS * max(1.0, rows / CROWD) ** GROWTH
    return max(8, int(rows / mean))


def checked_lists(name: str, value: Any) -> int:
    """The option of an index; raises ProgrammingError where it is no number of lists."""
    if type(value) is not int or not LEAST_LISTS <= value <= MOST_LISTS:
        raise ProgrammingError(
            f"index {name}: lists is {value!r:.40}, expected an integer from {LEAST_LISTS} to "
            f"{MOST_LISTS:,}: how many lists each segment of the column gets"
        )
    return value


def wanted_lists(schema: CollectionSchema, index: int) -> int | None:
    """What the index of a VECTOR column says; None where it says nothing, or where there is none.

    A column that a REEMBED fills goes by the index of the column whose place it will take.
    """
    column = schema.columns[index]
    name = (column.generated or {}).get("replaces", column.name)
    for info in schema.indexes:
        if info.kind == KIND and info.column.lower() == name.lower():
            found: int | None = info.options.get(LISTS)
            return found
    return None
