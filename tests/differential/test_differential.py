"""Random scripts do here what they do on SQLite; the list of what differs is the documented one."""

from __future__ import annotations

import random
import re
import sqlite3
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.differential import campaign, differences
from tests.differential.compare import Outcome, same
from tests.differential.statements import Made
from tests.reliability.ledger import ROOT

NEEDED = (3, 40, 1)  # `RETURNING`, STRICT, `IS DISTINCT FROM`, and this JSON

pytestmark = pytest.mark.skipif(
    sqlite3.sqlite_version_info < NEEDED, reason="SQLite is older than what is compared with"
)


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False))
def test_short_scripts_agree(choose: random.Random) -> None:
    campaign.run(choose, 12)


def test_a_short_campaign_agrees_and_counts() -> None:
    counts = campaign.campaign(2.0, 5)

    assert counts["differential_statements"] > 100 and counts["differential_errors"] > 0
    assert counts.get("differential_explained", 0) < counts["differential_statements"] / 50


def test_every_known_difference_is_documented() -> None:
    text = (ROOT / "docs" / "language.md").read_text("utf-8")
    section = text.split("## Differences from SQLite")[1].split("\n## ")[0]
    listed = re.findall(r"^\| ([^|]+?) \|", section, re.MULTILINE)

    for known in differences.DIFFERENCES:
        assert known.reason
        assert known.name in listed, known.name


@pytest.mark.parametrize(
    ("mine", "theirs", "agree"),
    [
        ([(1,)], [(1,)], True),
        ([(1,)], [(1.0,)], False),
        ([(1,), (2,)], [(2,), (1,)], True),
        ([(1,)], [(1,), (1,)], False),
        ([("1",)], [(1,)], False),
        ([(None,)], [(0,)], False),
        ([(0.1 + 0.2,)], [(0.3,)], True),
        ([(0.3001,)], [(0.3,)], False),
        ([("x1.50000000000001y",)], [("x1.5y",)], True),
        ([("x1.6y",)], [("x1.5y",)], False),
        ([("a",)], [("A",)], False),
        ([(b"a",)], [("a",)], False),
        ([(float("inf"),)], [(1e308,)], False),
    ],
)
def test_the_comparison_sees_differences(mine: list[Any], theirs: list[Any], agree: bool) -> None:
    made = Made("SELECT x", [])

    assert same(made, Outcome(mine), Outcome(theirs)) is agree
    assert not same(made, Outcome(mine), Outcome([], error="OperationalError"))


IN_QUERY = "SELECT c, c IN (SELECT id FROM t) FROM u GROUP BY c"


@pytest.mark.parametrize(
    ("sql", "mine", "theirs", "name"),
    [
        ("SELECT CAST(x AS BLOB)", b"\xef\xbf\xbd-1", b"\xa9-1", "bytes as text"),
        ("SELECT CAST(x AS BLOB)", b"\xef\xbf\xbd-1", b"\xa9-2", None),
        ("SELECT CAST(x AS BLOB)", b"a", b"b", None),
        (IN_QUERY, "9223372036854775808", 9223372036854775808.0, "texts in IN (SELECT …)"),
        (IN_QUERY, "0", 0, "texts in IN (SELECT …)"),
        (IN_QUERY, "0", 1, None),
        ("SELECT c FROM u GROUP BY c", "0", 0, None),
    ],
)
def test_a_difference_is_told_from_a_fault(sql: str, mine: Any, theirs: Any, name: Any) -> None:
    found = differences.explanation(Made(sql, []), Outcome([(mine,)]), Outcome([(theirs,)]))

    assert (found and found.name) == name


def test_a_wrong_result_is_raised_with_the_script(monkeypatch: pytest.MonkeyPatch) -> None:
    from m2mdb.query import functions

    wrong = {**functions.FUNCTIONS, "length": (lambda value: 7, 1, 1)}
    monkeypatch.setattr("m2mdb.query.calls.FUNCTIONS", wrong)

    with pytest.raises(AssertionError, match=r"differential: run\(random.Random\(\d+\)\)"):
        campaign.campaign(5.0, 5)
