"""Words: which names of a statement need quotes.

RESERVED is the committed list of the words of SELECT and of the statements that change rows; a
test holds it to the grammar. Every other word, keyword or not, is a name wherever one may stand.
"""

from __future__ import annotations

RESERVED = frozenset(
    """
    ALL AND AS BETWEEN CASE COLLATE CONSTRAINT CURRENT_DATE CURRENT_TIME CURRENT_TIMESTAMP
    DELETE DISTINCT ELSE ESCAPE EXCEPT EXISTS FALSE FROM GLOB GROUP HAVING IN INSERT INTERSECT
    INTO IS ISNULL JOIN LIKE LIMIT NOT NOTNULL NULL ON OR ORDER RETURNING SELECT SET THEN TRUE
    UNION UPDATE USING VALUES WHEN WHERE
    """.split()
)


def quoted(name: str) -> str:
    """The name as a statement writes it: in quotes only if it needs them."""
    plain = name.replace("_", "a")
    is_word = plain.isascii() and plain.isalnum() and not plain[0].isdigit()
    if is_word and name.upper() not in RESERVED:
        return name
    return '"' + name.replace('"', '""') + '"'
