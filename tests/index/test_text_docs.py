"""The example in docs/text.md runs."""

from __future__ import annotations

import re
from pathlib import Path


def test_examples_of_the_page_run() -> None:
    page = Path(__file__).parents[2].joinpath("docs", "text.md").read_text(encoding="utf-8")

    examples = re.findall(r"```python\n(.*?)```", page, re.DOTALL)

    assert examples
    for example in examples:
        exec(compile(example, "docs/text.md", "exec"), {})
