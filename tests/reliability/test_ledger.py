"""The command that runs the campaigns: what it counts, and that it does not hide a failure."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.reliability import __main__ as command
from tests.reliability import ledger
from tests.reliability.campaigns import CAMPAIGNS, GOALS, Entry


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two campaigns, one of which fails for odd seeds."""
    good, bad = ModuleType("good_campaign"), ModuleType("bad_campaign")

    def count(seconds: float, seed: int) -> dict[str, int]:
        return {"kills": 10, "seeds": seed}

    def fail(seconds: float, seed: int) -> dict[str, int]:
        assert seed % 2 == 0, f"seed {seed}: a row was lost\nand more"
        return {"kills": 1}

    vars(good).update(campaign=count)
    vars(bad).update(campaign=fail)
    monkeypatch.setitem(sys.modules, "good_campaign", good)
    monkeypatch.setitem(sys.modules, "bad_campaign", bad)
    entries = (Entry("good", "good_campaign", 1, "x"), Entry("bad", "bad_campaign", 1, "y"))
    monkeypatch.setattr(command, "CAMPAIGNS", entries)


def test_counts_are_summed_over_runs(two: None, tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    for seed in ("2", "4"):
        code = command.main(["--minutes", "0.01", "--seed", seed, "--ledger", str(path)])
        assert code == 0
    assert ledger.sums(ledger.read(path)) == {"kills": 22, "seeds": 6, "failures": 0}


def test_a_failure_is_kept_and_the_others_still_run(two: None, tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    assert command.main(["--minutes", "0.01", "--seed", "3", "--ledger", str(path)]) == 1
    lines = ledger.read(path)
    assert [line["campaign"] for line in lines] == ["good", "bad"]
    assert lines[1]["failure"] == "AssertionError: seed 3: a row was lost"
    assert ledger.sums(lines)["failures"] == 1


def test_only_the_named_run(two: None, tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    command.main(["--minutes", "0.01", "--seed", "3", "--only", "good", "--ledger", str(path)])
    assert [line["campaign"] for line in ledger.read(path)] == ["good"]
    with pytest.raises(SystemExit):
        command.main(["--only", "nobody"])


def test_the_kept_ledger_is_readable() -> None:
    for line in ledger.read():
        assert line["campaign"] in {each.name for each in CAMPAIGNS}
        assert all(isinstance(value, int) for value in line["counts"].values())
    assert all(isinstance(goal, int) for goal in GOALS.values())
