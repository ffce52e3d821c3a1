"""The parser: a statement's text to its tree.

    text --lexer--> tokens --driver, by tables.json--> actions --> Statement

`parse` is pure: equal texts give equal trees, and the newest are kept. Lark is not loaded:
the tables are made from grammar.lark at build time (tables.py).

Invariants
    Q1  A text that is no statement raises ProgrammingError (or NotSupportedError for a part that
        is not built yet) with its line and column, and no other error.
    Q2  A tree is at most MAX_DEPTH nodes deep, so that recursion over it is safe.
    Q3  An integer literal is within 64 bits; larger ones are floats, as in SQLite.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from m2mdb.pager.errors import InterfaceError, ProgrammingError
from m2mdb.query import expression_actions, schema_actions, statement_actions, tables
from m2mdb.query.ast import Statement
from m2mdb.query.driver import Driver, UnexpectedToken
from m2mdb.query.lexer import INTEGER_LIMIT, Lexer, Tokens
from m2mdb.query.nodes import Literal, Node
from m2mdb.query.syntax import SyntaxFault, placed
from m2mdb.query.tree import nodes_of

MAX_LENGTH = 1_000_000  # characters of a statement, without those of long texts and blobs
LONG_LITERAL = 256  # characters; a value is limited by its column, not by MAX_LENGTH
CACHED = 256  # trees that are kept, of texts of no more than MAX_CACHED_LENGTH characters
MAX_CACHED_LENGTH = 10_000
MAX_DEPTH = 200  # nodes; the binder and its closures take some three frames a node


def parse(sql: str) -> Statement:
    """The tree of one statement; a semicolon may follow it, another statement may not.

    The trees of up to CACHED texts are kept: a tree is shared, and not to be changed.
    """
    if type(sql) is str and (known := _cache.get(sql)) is not None:
        return known
    statement = _parse_one(sql)
    if len(sql) <= MAX_CACHED_LENGTH:
        if len(_cache) >= CACHED:
            _cache.clear()
        _cache[sql] = statement
    return statement


def _parse_one(sql: str) -> Statement:
    _check_type(sql)
    if len(sql) > MAX_LENGTH and (length := len(sql) - _literal_length(sql)) > MAX_LENGTH:
        raise ProgrammingError(_too_long(length))
    parser = _parser()
    statement, next_start = parser.statement(sql, 0)
    if statement is None:
        raise ProgrammingError("empty statement: expected SELECT, SEARCH, INSERT, …")
    if next_start >= 0 and parser.has_more(sql, next_start):
        raise ProgrammingError("You can only execute one statement at a time.")
    return statement


def split(sql: str) -> Iterator[str]:
    """The texts of a script's statements, without their semicolons."""
    _check_type(sql)
    lexer = _parser().lexer
    start = 0
    while start >= 0:
        try:
            tokens = lexer.cut(sql, start)
        except SyntaxFault as fault:
            raise fault.error(sql) from None
        if len(tokens.kinds) > 1:
            yield sql[tokens.starts[0] : tokens.ends[-2]]
        start = tokens.next_start


def parse_script(sql: str) -> list[Statement]:
    """The trees of all statements of a script; empty ones are left out."""
    return list(iterate_script(sql))


def iterate_script(sql: str) -> Iterator[Statement]:
    """The trees of a script's statements, each parsed when it is asked for."""
    _check_type(sql)
    parser = _parser()
    start = 0
    while start >= 0:
        statement, start = parser.statement(sql, start)
        if statement is not None:
            yield statement


class Parser:
    """Lexer, driver and actions, put together once."""

    __slots__ = ("_driver", "_keywords", "lexer")

    def __init__(self) -> None:
        data = tables.load()
        self._keywords: dict[str, int] = data["keywords"]
        self.lexer = Lexer(self._keywords)
        self._driver = Driver(
            data, vars(expression_actions) | vars(statement_actions) | vars(schema_actions)
        )

    def statement(self, text: str, start: int) -> tuple[Statement | None, int]:
        """The statement that begins at start, None if it is empty, and where the next begins."""
        try:
            tokens = self.lexer.cut(text, start)
            if len(tokens.kinds) == 1:
                return None, tokens.next_start
            statement = self._tree(text, tokens)
        except SyntaxFault as fault:
            raise fault.error(text) from None
        return statement, tokens.next_start

    def has_more(self, text: str, start: int) -> bool:
        """Whether there is anything but blanks, comments and semicolons behind start."""
        try:
            while start >= 0:
                tokens = self.lexer.cut(text, start)
                if len(tokens.kinds) > 1:
                    return True
                start = tokens.next_start
        except SyntaxFault:
            return True
        return False

    def _tree(self, text: str, tokens: Tokens) -> Statement:
        position, end = tokens.starts[0], tokens.ends[-2]
        if end - position > MAX_LENGTH:
            length = end - position - _long_tokens(tokens)
            if length > MAX_LENGTH:
                raise SyntaxFault(_too_long(length), position)
        try:
            statement = self._driver.run(text, tokens)
        except UnexpectedToken as unexpected:
            raise ProgrammingError(self._explain(text, tokens, unexpected.index)) from None
        assert isinstance(statement, Statement)
        if len(tokens.kinds) > MAX_DEPTH:
            _check_depth(statement)
        if str(INTEGER_LIMIT) in text:
            _settle_integers(statement)
        statement.text = text
        statement.end = end
        statement.parameter_count = tokens.parameters.count
        statement.parameter_names = tuple(tokens.parameters.names)
        return statement

    def _explain(self, text: str, tokens: Tokens, index: int) -> str:
        from m2mdb.query.expectation import unexpected

        expected = self._driver.expected(tokens.kinds, index)
        start, kind = tokens.starts[index], tokens.kinds[index]
        found = text[start : tokens.ends[index]]
        message = unexpected(found, kind, expected, self._keywords)
        return placed(message, text, start)


_QUOTED = re.compile(r"'(?:[^']++|'')*+'")
_made: list[Parser] = []
_cache: dict[str, Statement] = {}


def _parser() -> Parser:
    if not _made:
        _made.append(Parser())
    return _made[0]


def lexer() -> Lexer:
    """What cuts statements into tokens."""
    return _parser().lexer


def _check_type(sql: object) -> None:
    if not isinstance(sql, str):
        raise InterfaceError(f"a statement is a str, not {type(sql).__name__}")


def _too_long(length: int) -> str:
    return f"statement of {length:,} characters beside its values: {MAX_LENGTH:,} is the limit"


def _literal_length(sql: str) -> int:
    """Characters of long texts and blobs, before anything is cut into tokens."""
    lengths = [found.end() - found.start() for found in _QUOTED.finditer(sql)]
    return sum(length for length in lengths if length >= LONG_LITERAL)


def _long_tokens(tokens: Tokens) -> int:
    spans = zip(tokens.kinds, tokens.starts, tokens.ends, strict=True)
    lengths = [end - start for kind, start, end in spans if kind in ("STRING", "BLOB")]
    return sum(length for length in lengths if length >= LONG_LITERAL)


def _check_depth(statement: Statement) -> None:
    """Q2, without recursion."""
    stack: list[tuple[object, int]] = [(statement, 1)]
    while stack:
        item, depth = stack.pop()
        if isinstance(item, Node):
            if depth > MAX_DEPTH:
                message = f"nested too deeply: {MAX_DEPTH} levels are the limit"
                raise SyntaxFault(message, item.position)
            stack.extend((child, depth + 1) for child in item.children())
        elif isinstance(item, list | tuple):
            stack.extend((child, depth) for child in item)


def _settle_integers(statement: Statement) -> None:
    """Q3: an integer of 2**63 that no minus took in is a float."""
    for literal in nodes_of(statement, Literal):
        if literal.value == INTEGER_LIMIT:
            literal.value = float(INTEGER_LIMIT)
