"""Sentences of the grammar, whole and changed, run on a small database.

Each is answered or refused within a tenth of a second, by a PEP 249 error alone; what is no
sentence is refused with its place and with what was expected there.
"""

from __future__ import annotations

import random
import re
import time

import pytest

from fuzz.grammar import grammar
from fuzz.targets.language import _OUTSIDE
from m2mdb import language as _language  # lends FROM :table its reader
from m2mdb.index.database import Database
from m2mdb.pager.errors import Error, ProgrammingError
from m2mdb.query.executor import execute
from m2mdb.query.parser import parse

assert _language
SECONDS = 0.1  # of this thread, so that a busy machine does not count
PLACED = re.compile(r"\(line \d+, column \d+\)$")
LEXICAL = re.compile(
    "unterminated|malformed|unrecognized token|hex literal|must be \\?1|cannot be mixed"
    "|stands twice|exclude each other|takes no|must have|no such column|not built|nested too"
    "|given twice|one statement at a time|empty statement|needs|row value misused"
)  # fmt: skip
WORDS = ["SELEC", "WERE", "FORM", "GROPU", "x", "1", ")", "(", ",", "AND", "'t'", "K", "NEAR", "??"]


def sentences(seed: int, count: int) -> list[str]:
    choose = random.Random(seed)
    return [grammar().sentence(choose, room=8 + choose.randint(0, 10)) for _ in range(count)]


def changed(sentence: str, choose: random.Random) -> str:
    words = sentence.split(" ")
    at = choose.randrange(len(words))
    words[at : at + choose.randint(0, 1)] = [choose.choice(WORDS)]
    return " ".join(words)


def timed(sql: str, database: Database) -> None:
    taken = []
    for _ in range(3):  # the collector of garbage may run in one of them
        begun = time.thread_time()
        try:
            statement = parse(sql)
            if any(word in sql.upper() for word in _OUTSIDE):
                return
            execute(database, statement, [1] * statement.parameter_count)
        except Error as error:
            assert str(error), sql
        finally:
            if database.in_transaction:
                database.rollback()
        taken.append(time.thread_time() - begun)
        if taken[-1] < SECONDS:
            return
    raise AssertionError(f"{sql}: {min(taken):.3f} s")


@pytest.mark.parametrize("seed", range(3))
def test_every_sentence_is_answered_or_refused_soon(database: Database, seed: int) -> None:
    execute(database, "CREATE TABLE c (n INTEGER PRIMARY KEY, t TEXT FULLTEXT, v VECTOR(2))")
    execute(database, "INSERT INTO c VALUES (1, 'red apple', [1, 2]), (2, NULL, NULL)")
    for sentence in sentences(seed, 40):
        timed(sentence, database)


def test_what_is_no_sentence_is_told_with_its_place() -> None:
    choose = random.Random(7)
    refused = 0
    for sentence in sentences(11, 300):
        sql = changed(sentence, choose)
        try:
            parse(sql)
        except ProgrammingError as error:
            message = str(error)
            if LEXICAL.search(message):
                continue
            refused += 1
            assert PLACED.search(message) and "expected" in message, (sql, message)
            assert message.startswith(('near "', "incomplete statement")), (sql, message)
        except Error as error:
            assert str(error)

    assert refused > 80


@pytest.mark.parametrize(
    ("sql", "hint"),
    [
        ("SELECT a FROM t WEHRE a = 1", "did you mean WHERE?"),
        ("SELECT a FROM t GROUP BY a HAVIN a", "did you mean HAVING?"),
        ("SELECT lengt('a')", "did you mean length()?"),
        ("SELECT json_extrac('{}', '$')", "did you mean json_extract()?"),
        ("SELECT stars FROM notes", "did you mean star?"),
        ("SELECT * FROM note", "did you mean notes?"),
        ("SELECT * FROM m2m_colums", "did you mean m2m_columns?"),
        ("WITH recent AS (SELECT 1) SELECT * FROM recnt", "did you mean recent?"),
        ("SEARCH notes NEAR [1, 0] RETURNING id, scor", "did you mean score?"),
        ("SEARCH notes NEAR embeding [1, 0]", "did you mean embedding?"),
        ("DROP INDEX by_strs", "did you mean by_star?"),
        ("REINDEX by_strs", "did you mean by_star?"),
        ("REINDEX note", "did you mean notes?"),
    ],
)
def test_what_was_perhaps_meant(database: Database, sql: str, hint: str) -> None:
    execute(
        database, "CREATE TABLE notes (id INTEGER PRIMARY KEY, star INTEGER, embedding VECTOR(2))"
    )
    execute(database, "CREATE INDEX by_star ON notes (star)")

    with pytest.raises(ProgrammingError) as caught:
        execute(database, sql)

    assert hint in str(caught.value)
