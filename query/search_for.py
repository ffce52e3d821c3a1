"""FOR: one text for both sides of a search.

    SEARCH notes FOR 'dark mode'
        NEAR   the vector that the encoder of the generated VECTOR column makes of the text
        MATCH  its plain words, in all FULLTEXT columns

A collection with one of the two is searched by that alone. A text without a letter, a digit or a
symbol finds nothing, as MATCH '' does: an encoder makes a vector of it too, near to whatever.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Any

from m2mdb.pager.errors import InterfaceError, ProgrammingError

if TYPE_CHECKING:
    from m2mdb.index.schema import CollectionSchema
    from m2mdb.index.view import View
    from m2mdb.query.search import SearchRequest

# Letters, digits and symbols as emojis are; letters of some scripts are made of marks.
_SAYING = {
    "Ll", "Lm", "Lo", "Lt", "Lu", "Mc", "Me", "Mn", "Nd", "Nl", "No", "Sc", "So",
}  # fmt: skip
_MATCH_SYNTAX = str.maketrans(dict.fromkeys('"+-^~*:', " "))
_SIGNS = re.compile('["+^~*:-]')


def plain_words(text: str) -> str:
    """A text without any of the signs that MATCH knows."""
    return text.translate(_MATCH_SYNTAX) if _SIGNS.search(text) else text


def is_blank(text: str) -> bool:
    """Whether there is nothing in a text to search for: spaces and punctuation alone."""
    return not any(unicodedata.category(sign) in _SAYING for sign in text)


def sides(schema: CollectionSchema) -> tuple[int | None, bool]:
    """The generated column whose encoder FOR uses, and whether there is text to match.

    Raises ProgrammingError where there is neither, or several generated columns.
    """
    found = [index for index in schema.generated_columns if index in schema.near_columns]
    if len(found) > 1:
        names = ", ".join(schema.columns[index].name for index in found)
        raise ProgrammingError(
            f"FOR needs one generated VECTOR column; {schema.name} has {names}: "
            "use NEAR column with a vector of your own, and MATCH"
        )
    if not found and not schema.text_columns:
        raise ProgrammingError(
            f"FOR needs a generated VECTOR column (FROM … ENCODER …) or a FULLTEXT column; "
            f"{schema.name} has none"
        )
    return (found[0] if found else None), bool(schema.text_columns)


def settle(view: View, request: SearchRequest) -> bool:
    """Give a request with FOR its NEAR and MATCH, once; False where the text is blank, and has
    neither.

    Raises InterfaceError: not a str. ProgrammingError: `sides`, an encoder that is not there or
    is another. OperationalError: it fails.
    """
    text: Any = request.for_text
    if text is None or request.near is not None or request.match is not None:
        return True
    if not isinstance(text, str):
        raise InterfaceError(f"FOR takes a str, not {type(text).__name__}")
    schema = view.collection(request.collection).schema
    index, has_text = sides(schema)
    if is_blank(text):
        return False
    if index is not None:
        from m2mdb.index.generated import encode, matching

        column = schema.columns[index]
        encoder = matching(view.database, schema, column)
        request.near = encode(view.database, encoder, column, [text], is_query=True)[0]
        request.near_column = column.name
    if has_text:
        request.match = plain_words(text)
    return True
