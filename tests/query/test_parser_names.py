"""Every word that is not reserved is a name, wherever a name may stand."""

from __future__ import annotations

from typing import Any

import pytest

from m2mdb.pager.errors import ProgrammingError
from m2mdb.query import tables
from m2mdb.query.nodes import Node
from m2mdb.query.parser import parse

KEYWORDS: dict[str, int] = tables.load()["keywords"]
NAMES = [word for word, is_name in KEYWORDS.items() if is_name] + ["TEXT", "VECTOR", "DAYS"]
RESERVED = [word for word, is_name in KEYWORDS.items() if not is_name]

PLACES = [
    "CREATE COLLECTION {} (a INT)",
    "CREATE COLLECTION IF NOT EXISTS {} ({} TEXT PRIMARY KEY, x INT) WITH ({} = {})",
    "CREATE COLLECTION t ({})",
    "CREATE COLLECTION t ({} INTEGER NOT NULL DEFAULT 1 UNIQUE, b TEXT, UNIQUE ({}))",
    "CREATE COLLECTION t (a INT, {} VECTOR(3) METRIC {}, PRIMARY KEY ({}))",
    "CREATE COLLECTION t (a VECTOR(3) FROM {} ENCODER 'x', {} TEXT FULLTEXT)",
    "CREATE INDEX {} ON {} ({}, {} DESC) USING {}",
    "CREATE INDEX IF NOT EXISTS {} ON {} USING {} ({})",
    "DROP COLLECTION {}",
    "DROP COLLECTION IF EXISTS {}",
    "DROP INDEX {}",
    "INSERT INTO {} VALUES (1)",
    "INSERT INTO {} ({}, {}) VALUES ({}, {}.{}) ON CONFLICT ({}) DO UPDATE SET {} = {} WHERE {}",
    "INSERT INTO {} ({}) VALUES (1) RETURNING {}, {} AS {}",
    "INSERT INTO {} SELECT {} FROM {}",
    "INSERT INTO {} DEFAULT VALUES",
    "SELECT {} FROM {}",
    "SELECT {}, {}.{}, {}.*, {} AS {}, max({}), {}({}), -{}, ({}), [1] AS {} FROM {} AS {}",
    "SELECT a FROM {} JOIN {} ON {}.{} = {} LEFT JOIN {} USING ({}) WHERE {}",
    "SELECT a FROM {}, (SELECT {}) AS {} WHERE {} > {} AND {} IS NULL OR NOT {} GROUP BY {}, {}"
    " HAVING {} ORDER BY {} DESC, {} NULLS FIRST, {} LIMIT {} OFFSET {}",
    "SELECT CASE {} WHEN {} THEN {} ELSE {} END, CASE WHEN {} THEN {} END, CAST({} AS INT)",
    "SELECT {} LIKE {} ESCAPE {}, {} BETWEEN {} AND {}, {} IN ({}, {}), {} IN (SELECT {}),"
    " {} COLLATE {}, {} -> {}, {} || {}, {} ISNULL, ({}) NOT NULL, EXISTS (SELECT {})",
    "SELECT 1 WHERE {}",
    "WITH {} AS (SELECT {}), {} ({}) AS (SELECT 1) SELECT * FROM {}",
    "WITH RECURSIVE {} AS (SELECT 1) SELECT 1",
    "UPDATE {} SET {} = {}, {} = {} + 1 WHERE {} = ? RETURNING {}",
    "DELETE FROM {} WHERE {} RETURNING {} AS {}",
    "SEARCH {} NEAR ? K 10",
    "SEARCH {} NEAR {} ? MATCH {} 'x' WHERE {} K 10 OFFSET 1",
    "SEARCH {} WHERE {} = {} NEAR {} ? RETURNING {}, {} AS {}",
    "SEARCH {} WHERE {} AND {}.{} FUSION rrf ({} = 1) DECAY HALF LIFE 30 {} ON {} RETURNING {}",
    "SEARCH {} MATCH {} ? WHERE {} AS OF 3",
    "SEARCH {} MATCH {} ? WHERE {} MIN SCORE 3",
    "SEARCH {} FOR ? WHERE NOT {} EXACT RETURNING {}.*",
    "SAVEPOINT {}",
    "RELEASE {}",
    "RELEASE SAVEPOINT {}",
    "ROLLBACK TO {}",
    "ROLLBACK TO SAVEPOINT {}",
    "PRAGMA {}",
    "PRAGMA {} = {}",
    "PRAGMA {}({})",
    "CHECKPOINT {}",
    "ALTER COLLECTION {} RENAME TO {}",
    "ALTER COLLECTION {} RENAME COLUMN {} TO {}",
    "ALTER COLLECTION {} ADD COLUMN {} INT",
    "ALTER COLLECTION {} DROP COLUMN {}",
    "FEEDBACK {} NEAR {} ? RELEVANT ({}, {}) IRRELEVANT ({})",
    "ENERGY {} NEAR {} ?",
    "EXPLORE {} K 5",
    "CONSOLIDATE {} DRY RUN",
    "UNDO {} TO 3",
    "OPTIMIZE {}",
    "ANALYZE {}",
    "REINDEX {}",
    "FORGET FROM {} WHERE {}",
    "REEMBED {} USING 'x'",
    "COPY {} TO 'x' ({} = 1)",
]


@pytest.mark.parametrize("word", NAMES)
def test_word_is_a_name_everywhere(word: str) -> None:
    """The tree is the one that quotes around the word give."""
    for place in PLACES:
        called = place.replace("{}({})", "f({})") if word == "CAST" else place
        bare, quotes = called.replace("{}", word), called.replace("{}", f'"{word}"')
        assert shape(parse(bare)) == shape(parse(quotes)), bare


def shape(item: Any) -> Any:
    """The tree as plain tuples, without places and labels, which are the text as written."""
    if isinstance(item, Node):
        skipped = ("label", "position", "text", "end")
        fields = [(k, shape(v)) for k, v in item.fields().items() if k not in skipped]
        return type(item).__name__, fields
    return [shape(part) for part in item] if isinstance(item, list | tuple) else item


@pytest.mark.parametrize("word", NAMES)
def test_all_names_at_once_in_one_table(word: str) -> None:
    """Two words beside each other, each of which could be a keyword."""
    for other in ("K", "FOR", "MATCH", "END", "KEY", word):
        parse(f"SELECT {word}, {other} FROM {word} WHERE {other} = {word} ORDER BY {other}")
        parse(f"SEARCH {word} NEAR {other} ? WHERE {word} = {other} K 3 RETURNING {other}, {word}")
        parse(f"INSERT INTO {word} ({other}, {word}) VALUES ({word}, {other})")
        parse(f"CREATE TABLE {word} ({word} TEXT, {other} INTEGER)")


@pytest.mark.parametrize("word", RESERVED)
def test_reserved_word_is_a_name_in_quotes_only(word: str) -> None:
    parse(f'SELECT "{word}" FROM "{word}"')
    with pytest.raises(ProgrammingError):
        parse(f"SELECT 1 FROM {word}")
    with pytest.raises(ProgrammingError, match=f'{word} is a reserved word: .* "{word.lower()}"'):
        parse(f"DELETE FROM {word.lower()}")


@pytest.mark.parametrize("word", ["ſelect", "ſet", "ıs"])
def test_letters_that_look_like_keywords_in_capitals_are_names(word: str) -> None:
    statement: Any = parse(f"SELECT {word} FROM t")

    assert statement.items[0].expression.name == word
