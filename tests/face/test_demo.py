"""The demo: it ends well, and says so where it does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import m2mdb
from m2mdb import demo, demo_kill, demo_writer
from m2mdb.cli import run

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A demo over a folder of two hundred docstrings, with one kill."""
    folder = tmp_path / "library"
    folder.mkdir()
    lines = [
        f'def parse_{i}():\n    """Parse argument {i} of the command line."""' for i in range(200)
    ]
    (folder / "cli.py").write_text("\n".join(lines))
    monkeypatch.setattr(demo, "standard_library", lambda: folder)
    monkeypatch.setattr(demo, "SEARCHES", ({"text": "parse arguments"},))
    monkeypatch.setattr(demo_kill, "ROUNDS", 1)
    monkeypatch.setattr(demo_kill, "ACKNOWLEDGED", 2)


@pytest.mark.usefixtures("small")
def test_a_small_demo_ends_well(path: Path, capsys: Capture) -> None:
    assert run(["demo", "--path", str(path), "--json"]) == 0

    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is True
    assert report["build"]["rows"] == 200
    assert len(report["searches"][0]["hits"]) == demo.SHOWN
    assert report["kill"]["acknowledged_rows"] >= 2 * demo_writer.ROWS
    assert report["kill"]["rounds"][0]["killed"] is True
    assert path.exists()
    con = m2mdb.connect(path)
    assert con.collection("docs").count() == 200
    con.close()


@pytest.mark.usefixtures("small")
def test_it_prints_tables_and_leaves_nothing(tmp_path: Path, capsys: Capture) -> None:
    before = set(tmp_path.iterdir())

    assert run(["demo"]) == 0

    printed = capsys.readouterr().out
    assert "SEARCH docs NEAR ? MATCH 'parse arguments' K 5" in printed
    assert "SIGKILL" in printed
    assert "0 missing" in printed
    assert "all is as it should be" in printed
    assert set(tmp_path.iterdir()) == before


@pytest.mark.usefixtures("small")
def test_an_existing_file_is_left_alone(path: Path, capsys: Capture) -> None:
    path.write_text("mine")

    assert run(["demo", "--path", str(path)]) == 1

    assert "exists" in capsys.readouterr().err
    assert path.read_text() == "mine"


@pytest.mark.usefixtures("small")
def test_a_lost_row_is_found_and_told(
    path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill = demo_kill.kill_writer

    def kill_and_lose(path: Path, first: int) -> dict[str, Any]:
        outcome = kill(path, first)
        con = m2mdb.connect(path)
        con.collection("journal").delete(outcome["acknowledged"][0] * demo_writer.ROWS)
        con.close()
        return outcome

    monkeypatch.setattr(demo_kill, "kill_writer", kill_and_lose)

    assert run(["demo", "--path", str(path)]) == 1
    assert "WRONG: 1 acknowledged rows are missing" in capsys.readouterr().out


@pytest.mark.slow
def test_the_whole_demo_takes_less_than_a_minute(path: Path, capsys: Capture) -> None:
    assert run(["demo", "--path", str(path), "--json"]) == 0

    report = json.loads(capsys.readouterr().out)
    assert report["build"]["rows"] > 5000
    assert report["seconds"] < 60
