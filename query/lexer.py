"""Tokens: a statement's text cut into the terminals of grammar.lark.

A keyword's terminal is the keyword in capitals; the others are NAME QUOTED STRING BLOB NUMBER
VECTOR PARAMETER, the operator classes, the marks (LPAR COMMA …) and $END, which closes the list.
The value of a token is what the tree needs of it: a node for literals and parameters, the name
without its quotes, else the text as written (`==` as `=`, `<>` as `!=`).

Invariants
    L1  Every character of the text is in a token, a blank or a comment, or is a SyntaxFault.
    L2  A statement ends at the first `;` outside strings and comments, or at the text's end.
    L3  Cutting takes time linear in the text: no pattern backtracks.
"""

from __future__ import annotations

import re

from m2mdb.query.nodes import Literal, Parameter, VectorLiteral
from m2mdb.query.syntax import SyntaxFault

END = "$END"
MAX_PARAMETERS = 32_766  # SQLite's limit
INTEGER_LIMIT = 2**63  # an INTEGER is less; an integer literal from here on is REAL

_DECIMAL = r"(?>[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++)(?:[eE][+-]?[0-9]++)?+"
_COMPONENT = rf"[+-]?{_DECIMAL}\s*+"
_PATTERN = re.compile(
    rf"""\s*+(?:
        ((?![xX]')[^\W\d]\w*+)                                           # 1 name, keyword
        |((?:0[xX][0-9a-fA-F]++|{_DECIMAL})(?!\w))                       # 2 number
        |(--[^\n]*+|/\*(?:[^*]++|\*(?!/))*+\*/)                          # 3 comment
        |(->>?|<->|<=>|<\#>|<[<=>]?|>[>=]?|\|\||!=|==|[-+/%*&|~=(),.;])(?<!/(?=\*))  # 4 symbol
        |'((?:[^']++|'')*+)'                                             # 5 string
        |(\?[0-9]*+(?!\w)|:[^\W\d]\w*+)                                     # 6 parameter
        |"((?:[^"]++|"")++)"                                             # 7 quoted name
        |\[\s*+((?:{_COMPONENT}(?:,\s*+{_COMPONENT})*+)?+)\]             # 8 vector
        |[xX]'([^']*+)'                                                  # 9 blob
        |(\Z)                                                            # 10 end
        |(/\*|[xX]'|\w++|\S)                                             # 11 none of these
    )""",
    re.VERBOSE,
)
_NAME, _NUMBER, _COMMENT, _SYMBOL = 1, 2, 3, 4
_STRING, _PARAMETER, _QUOTED, _VECTOR, _BLOB, _END = 5, 6, 7, 8, 9, 10

SYMBOLS = {
    "(": "LPAR", ")": "RPAR", ",": "COMMA", "*": "STAR", "=": "EQUAL", ".": "DOT",
    "==": "EQUALITY", "!=": "EQUALITY", "<>": "EQUALITY",
    "<": "COMPARISON", "<=": "COMPARISON", ">": "COMPARISON", ">=": "COMPARISON",
    "&": "BITS", "|": "BITS", "<<": "BITS", ">>": "BITS",
    "<->": "BITS", "<#>": "BITS", "<=>": "BITS",
    "+": "SIGN", "-": "SIGN", "/": "DIVISION", "%": "DIVISION",
    "||": "CONCATENATION", "->": "ARROW", "->>": "ARROW", "~": "TILDE",
}  # fmt: skip
_SPELLING = {"==": "=", "<>": "!="}


class Tokens:
    """The tokens of one statement, in parallel lists, and where the next statement begins."""

    __slots__ = ("ends", "kinds", "next_start", "parameters", "starts", "values")

    def __init__(self) -> None:
        self.kinds: list[str] = []
        self.values: list[object] = []
        self.starts: list[int] = []
        self.ends: list[int] = []
        self.parameters = Parameters()
        self.next_start = -1  # -1: the text has no more

    def add(self, kind: str, value: object, start: int, end: int) -> None:
        """One token more."""
        self.kinds.append(kind)
        self.values.append(value)
        self.starts.append(start)
        self.ends.append(end)


class Parameters:
    """The slots of a statement's parameters: `?` and `?2`, or `:name`, never both."""

    __slots__ = ("count", "names")

    def __init__(self) -> None:
        self.count = 0
        self.names: dict[str, int] = {}

    def node(self, written: str, position: int) -> Parameter:
        """The node of one parameter, with its slot."""
        by_name = written[0] == ":"
        if self.count and by_name is not bool(self.names):
            raise SyntaxFault("? and :name parameters cannot be mixed", position)
        if by_name:
            index = self.names.setdefault(written[1:], self.count)
        else:
            index = self._number(written, position) - 1
        self.count = max(self.count, index + 1)
        if self.count > MAX_PARAMETERS:
            raise SyntaxFault(f"more than {MAX_PARAMETERS} parameters", position)
        return Parameter(index, written[1:] if by_name else None, position)

    def _number(self, written: str, position: int) -> int:
        if written == "?":
            return self.count + 1
        digits = written[1:].lstrip("0")
        if not digits or len(digits) > 5 or int(digits) > MAX_PARAMETERS:
            raise SyntaxFault(f"parameter {written[:20]} must be ?1 to ?{MAX_PARAMETERS}", position)
        return int(digits)


class Lexer:
    """Cuts statements; made once with the grammar's keywords."""

    __slots__ = ("_keywords",)

    def __init__(self, keywords: dict[str, int]) -> None:
        self._keywords = {word: word for word in keywords}
        self._keywords |= {word.lower(): word for word in keywords}

    def cut(self, text: str, start: int = 0) -> Tokens:
        """The tokens of the statement that begins at start, up to its `;` (L2)."""
        tokens = Tokens()
        kinds, values = tokens.kinds, tokens.values
        starts, ends = tokens.starts, tokens.ends
        keyword = self._keywords.get
        for match in _PATTERN.finditer(text, start):
            group = match.lastindex
            assert group is not None
            written: str = match[group]
            value: object = written
            first = match.start(group)
            if group == _NAME:
                kind = keyword(written) or self._word(written)
            elif group == _SYMBOL:
                if written == ";":
                    tokens.next_start = match.end()
                    tokens.add(END, "", first, first)
                    break
                kind = SYMBOLS[written]
                value = _SPELLING.get(written, written)
            elif group == _COMMENT:
                continue
            elif group == _END:
                tokens.add(END, "", first, first)
                break
            else:
                first = match.end() - len(match[0].lstrip())
                kind, value = _valued(group, written, first, tokens.parameters)
            kinds.append(kind)
            values.append(value)
            starts.append(first)
            ends.append(match.end())
        return tokens

    def _word(self, word: str) -> str:
        """The terminal of a word that is not written all in capitals or all in small letters."""
        return self._keywords.get(word.upper(), "NAME") if word.isascii() else "NAME"


def _valued(group: int, content: str, position: int, parameters: Parameters) -> tuple[str, object]:
    """Terminal and value of a token that is more than its text."""
    if group == _NUMBER:
        return "NUMBER", Literal(number(content, position), position)
    if group == _PARAMETER:
        return "PARAMETER", parameters.node(content, position)
    if group == _STRING:
        return "STRING", Literal(content.replace("''", "'"), position)
    if group == _QUOTED:
        return "QUOTED", content.replace('""', '"')
    if group == _VECTOR:
        components = content.split(",") if content else []
        return "VECTOR", VectorLiteral([float(part.strip()) for part in components], position)
    if group == _BLOB:
        return "BLOB", Literal(_blob(content, position), position)
    raise SyntaxFault(_unrecognized(content), position)


def number(written: str, position: int) -> int | float:
    """The value of a number; an integer of 2**63 is given as such, larger ones as floats."""
    if written[:2] in ("0x", "0X"):
        digits = written[2:].lstrip("0")
        if len(digits) > 16:
            raise SyntaxFault(f"hex literal too big: {written[:40]}", position)
        value = int(digits or "0", 16)
        return value - 2**64 if value >= INTEGER_LIMIT else value
    if not written.isdigit() or len(written) > 4000:
        return float(written)
    value = int(written)
    return value if value <= INTEGER_LIMIT else float(written)


def _blob(digits: str, position: int) -> bytes:
    if len(digits) % 2 or (digits and not digits.isalnum()):
        raise SyntaxFault(f"malformed blob literal: x'{digits[:40]}'", position)
    try:
        return bytes.fromhex(digits)
    except ValueError:
        raise SyntaxFault(f"malformed blob literal: x'{digits[:40]}'", position) from None


def _unrecognized(content: str) -> str:
    """What is wrong where no token begins."""
    if content == "/*":
        return "unterminated comment: /* without */"
    if content[-1] == "'":
        return "unterminated string: ' without a closing '"
    if content == '"':
        return 'unterminated or empty quoted name: " without a closing "'
    if content == "[":
        return "malformed vector: expected numbers in brackets, like [0.1, -2]"
    if content == ":":
        return "malformed parameter: expected a name behind :"
    shown = content if len(content) <= 40 else content[:40] + "…"
    return f'unrecognized token: "{shown}"'
