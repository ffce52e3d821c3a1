"""docs/reliability.md: each rule has its tests, and the counts are those of the ledger."""

from __future__ import annotations

import re

from tests.reliability import ledger
from tests.reliability.counts import DOCUMENT, counts_table

ROW = re.compile(r"^\| S(\d+) \| .* \| (.*) \|$", re.MULTILINE)


def test_each_rule_names_tests_that_name_it() -> None:
    rows = {int(number): files for number, files in ROW.findall(DOCUMENT.read_text("utf-8"))}
    assert sorted(rows) == list(range(1, 30))
    for number, files in rows.items():
        paths = re.findall(r"`([^`]+)`", files)
        assert paths, f"S{number}"
        texts = [(ledger.ROOT / path).read_text("utf-8") for path in paths]
        named = re.compile(rf"\bS{number}\b|_s0?{number}_")
        assert any(named.search(text) for text in texts), f"S{number}: {paths}"


def test_the_counts_are_the_ledger_s() -> None:
    text = DOCUMENT.read_text("utf-8")
    assert counts_table(ledger.read()) in text, "run `python -m tests.reliability --document`"
