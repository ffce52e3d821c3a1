"""What is said of a token that cannot stand where it stands.

near "KK": expected K, FUSION, WHERE, …; did you mean K?
"""

from __future__ import annotations

from m2mdb.query.lexer import END

MAX_SHOWN = 14  # expectations in a message

_VALUE = frozenset({"STRING", "BLOB", "NUMBER", "VECTOR", "PARAMETER", "NULL", "TRUE", "FALSE"})
_EXPRESSION = _VALUE | {
    "NAME", "QUOTED", "LPAR", "SIGN", "TILDE", "NOT", "CASE", "CAST", "EXISTS", "LIKE", "GLOB",
    "CURRENT_TIMESTAMP", "CURRENT_DATE", "CURRENT_TIME",
}  # fmt: skip
_OPERATORS = frozenset(
    {
        "EQUAL", "EQUALITY", "COMPARISON", "BITS", "SIGN", "STAR", "DIVISION", "CONCATENATION",
        "ARROW", "AND", "OR", "IS", "ISNULL", "NOTNULL", "NOT", "LIKE", "GLOB", "BETWEEN", "IN",
        "COLLATE",
    }
)  # fmt: skip
_SHOWN = {
    "NAME": "a name", "STRING": "a string", "BLOB": "a blob", "NUMBER": "a number",
    "VECTOR": "a vector", "PARAMETER": "a parameter", "SIGN": "a sign",
    "EQUALITY": '"<>"', "COMPARISON": '"<"', "BITS": '"&"', "DIVISION": '"/"',
    "CONCATENATION": '"||"', "ARROW": '"->>"', "STAR": '"*"', "EQUAL": '"="', "LPAR": '"("',
    "COMMA": '","', "RPAR": '")"', "DOT": '"."', END: "the end",
}  # fmt: skip


def unexpected(found: str, kind: str, expected: list[str], keywords: dict[str, int]) -> str:
    """The message for a token, its terminal, and the terminals that could have stood there."""
    if kind == END:
        where = "incomplete statement"
    else:
        where = f'near "{found if len(found) <= 40 else found[:40] + "…"}"'
    message = f"{where}: expected {_listed(expected, keywords)}"
    words = [terminal for terminal in expected if terminal in keywords]
    if kind in keywords and not keywords[kind] and "NAME" in expected:
        message += f'; {kind} is a reserved word: as a name it is written "{found}"'
    elif (near := _alike(found, words)) is not None:
        message += f"; did you mean {near}?"
    elif kind in ("NAME", "QUOTED") and "AS" in expected:
        message += "; an alias needs AS"
    return message


def _alike(found: str, words: list[str]) -> str | None:
    """The word that was probably meant."""
    if not found.isidentifier():
        return None
    from difflib import get_close_matches

    close = get_close_matches(found.upper(), words, n=1, cutoff=0.6)
    return close[0] if close else None


def _listed(expected: list[str], keywords: dict[str, int]) -> str:
    """The expectations in words: keywords, then kinds of things, then marks."""
    rest = list(expected)
    things = []
    if {"NAME", "NUMBER", "STRING", "LPAR", "CASE"} <= set(rest):
        things.append("an expression")
        rest = [terminal for terminal in rest if terminal not in _EXPRESSION]
    elif {"NUMBER", "STRING", "PARAMETER"} <= set(rest):
        things.append("a value")
        rest = [terminal for terminal in rest if terminal not in _VALUE and terminal != "SIGN"]
    if {"EQUALITY", "COMPARISON", "IS"} <= set(rest):
        things.append("an operator")
        rest = [terminal for terminal in rest if terminal not in _OPERATORS | {"DOT", "LPAR"}]
    words = [terminal for terminal in rest if terminal in keywords]
    marks = [text for terminal, text in _SHOWN.items() if terminal in rest]
    room = MAX_SHOWN - len(things) - len(marks)
    shown = [*words[:room], *things, *marks]
    if len(words) > room:
        return f"{', '.join(shown)}, …"
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} or {shown[-1]}"
