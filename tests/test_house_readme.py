"""The house: the README's example runs as printed, and its links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
DEMO_LINE = "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/m2mdb demo"
TEST_LINE = (
    'python3 -m venv .venv-test && .venv-test/bin/pip install -e ".[test]" && .venv-test/bin/pytest'
)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def block(marker: str) -> str:
    """The code block behind a marker."""
    found = re.search(rf"<!-- {marker} -->\n```\w*\n(.*?)```", README, re.DOTALL)
    assert found is not None, f"README.md has no {marker}"
    return found.group(1)


def run(*arguments: str, cwd: Path) -> str:
    program = f"import sys; sys.path.append({str(ROOT)!r}); "
    found = subprocess.run(
        [sys.executable, "-c", program + arguments[0], *arguments[1:]],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_the_two_lines_are_as_promised() -> None:
    assert block("line:demo").strip() == DEMO_LINE
    assert block("line:test").strip() == TEST_LINE


def test_the_example_runs_as_printed(tmp_path: Path) -> None:
    example = block("example")

    printed = run(f"exec({example!r})", cwd=tmp_path)

    assert len(example.strip().splitlines()) <= 15
    assert printed == block("output")
    assert list(tmp_path.iterdir()) == []


def test_the_quickstart_runs(tmp_path: Path) -> None:
    path = ROOT / "examples" / "quickstart.py"

    printed = run(
        f"import runpy; sys.argv = ['q', 'notes.m2m']; runpy.run_path({str(path)!r}, "
        "run_name='__main__')",
        cwd=tmp_path,
    )

    assert "n1  The user prefers dark mode" in printed
    assert "refused: " in printed
    assert "still 'ui'" in printed
    assert [file.name for file in tmp_path.iterdir()] == ["notes.m2m"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    targets = [target for target in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in target]

    assert [target for target in targets if not (page.parent / target).exists()] == []
