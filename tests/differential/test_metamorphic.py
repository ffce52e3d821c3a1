"""The metamorphic checks hold on random tables, and see what is wrong."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from m2mdb.index.database import Database
from m2mdb.pager.errors import Error
from m2mdb.query import predicate, vectorised
from m2mdb.query.executor import execute
from tests.differential import metamorphic
from tests.differential.schemas import make_table
from tests.differential.statements import Statements
from tests.query.conftest import opened


def filled(seed: int) -> tuple[Database, metamorphic.Checks]:
    """A database with a table of random rows."""
    choose, database = random.Random(seed), opened()
    table = make_table(choose, "t")
    execute(database, table.create(twin=False))
    statements = Statements(choose, [table], frozenset())
    for _ in range(12):
        made = statements.insert(first=True)
        try:
            execute(database, made.sql)
        except Error:  # a key that is there already, a value that does not fit
            continue
    return database, metamorphic.Checks(choose, database, [table])


@pytest.mark.parametrize("seed", range(6))
def test_statements_agree_with_one_another(seed: int) -> None:
    database, checks = filled(seed)

    assert checks.run(12) > 20
    database.close()


@pytest.mark.parametrize("seed", range(3))
def test_a_filtered_search_is_the_search_of_the_filtered_rows(seed: int) -> None:
    database = opened()

    assert sum(metamorphic.searches(random.Random(seed), database)) > 4
    database.close()


def broken(seeds: range) -> bool:
    """Whether the checks of some seed find something."""
    for seed in seeds:
        database, checks = filled(seed)
        try:
            checks.run(12)
        except metamorphic.Broken:
            return True
        finally:
            database.close()
    return False


def test_a_wrong_null_test_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = predicate.Null.mask
    monkeypatch.setattr(predicate.Null, "mask", lambda *given: np.zeros_like(right(*given)))

    assert broken(range(8))


def test_a_wrong_sum_of_arrays_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = vectorised.grouped

    def wrong(*given: Any) -> Any:
        found = right(*given)
        return found and found[:-1]

    monkeypatch.setattr(vectorised, "grouped", wrong)

    assert broken(range(60))
