"""The language: texts to trees, and trees to answers.

text       the bytes as text, to the parser, to the splitter of scripts, and as a MATCH text
sentence   a sentence of the grammar, with words changed, to the parser
statement  the same, run on a small database; what it changed is undone
match      a MATCH text, parsed and searched for
"""

from __future__ import annotations

import contextlib
import random

from fuzz.grammar import grammar
from fuzz.mutation import mutated
from fuzz.target import Target
from fuzz.targets.values import run_undone
from m2mdb.index.text.match_query import parse_match
from m2mdb.pager.errors import Error
from m2mdb.query.parser import parse, split

_PIECES = ["word", "+", "-", '"', "*", "^2", "~1", ":", "(", "é", "東京", " ", "t:", "^1e9", "~9"]
STATEMENTS = [
    "SELECT a, count(*) FROM t WHERE x = ? AND y LIKE 'a%' GROUP BY a HAVING count(*) > 1",
    "SEARCH notes NEAR [1, 2] MATCH 'red apple' WHERE n > 3 K 5 OFFSET 2 RETURNING id, score",
    "INSERT INTO c (a, b) VALUES (1, x'00'), (?, :name) ON CONFLICT (a) DO NOTHING",
    "INSERT INTO c (a) SELECT a FROM b JOIN d ON b.a = d.a ON CONFLICT (a) DO UPDATE SET b = 1",
    "CREATE COLLECTION c (id INTEGER PRIMARY KEY, t TEXT FULLTEXT (k1 = 1.5), v VECTOR(3, f16))",
    "UPDATE t SET a = a + 1, b = CASE WHEN a THEN 1 ELSE NULL END WHERE a BETWEEN 1 AND 2e3",
    "WITH x AS (SELECT 1) SELECT * FROM x UNION ALL VALUES (1, 2) ORDER BY 1 DESC LIMIT 1, 2",
    "EXPLAIN SELECT json ->> '$.a' FROM \"a b\" -- a comment\n",
    "PRAGMA user_version = 4; /* two */ BEGIN IMMEDIATE",
]


def run_text(data: bytes) -> None:
    """Parse, split, match."""
    text = data.decode("utf-8", "surrogateescape" if len(data) & 1 else "replace")
    for call in (lambda: list(split(text)), lambda: parse_match(text)):
        with contextlib.suppress(Error):
            call()
    parse(text)


def make_sentence(choose: random.Random) -> bytes:
    """A sentence, changed in half of the cases."""
    raw = grammar().sentence(choose, room=8 + int(choose.random() * 14)).encode()
    return raw if choose.random() < 0.5 else mutated([raw], choose)


def run_sentence(data: bytes) -> None:
    """Parse."""
    parse(data.decode("utf-8", "replace"))


def run_statement(data: bytes) -> None:
    """Run on a small database."""
    text = data.decode("utf-8", "replace")
    statement = parse(text)
    if statement.parameter_count > 100 or any(word in text.upper() for word in _OUTSIDE):
        return
    run_undone(text, [1] * statement.parameter_count)


_OUTSIDE = ("COPY", "INTO '", "VACUUM", "RANDOMBLOB", "ZEROBLOB")  # files, and memory by wish


def make_match(choose: random.Random) -> bytes:
    """Pieces of the match syntax."""
    count = int(choose.random() * 12)
    return "".join([_PIECES[int(choose.random() * len(_PIECES))] for _ in range(count)]).encode()


def run_match(data: bytes) -> None:
    """Parse, and search for one in eight."""
    text = data.decode("utf-8", "replace")
    parse_match(text)
    if len(data) % 8 == 0:
        run_undone("SEARCH c MATCH ? K 3", [text])


def text_seeds() -> list[bytes]:
    """Statements of every kind."""
    return [statement.encode() for statement in STATEMENTS]


def sentence_seeds() -> list[bytes]:
    """Statements; the grammar is read before the time of a round begins."""
    grammar()
    return text_seeds()


TARGETS = [
    Target("text", run_text, text_seeds, share=3.0),
    Target("sentence", run_sentence, sentence_seeds, share=2.0, make=make_sentence),
    Target("statement", run_statement, sentence_seeds, share=2.0, make=make_sentence),
    Target("match", run_match, lambda: [b"red +apple"], share=1.0, make=make_match),
]
