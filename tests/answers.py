"""Which compiled calls answer: the steps, which always can, would hide one that never does."""

from __future__ import annotations

from typing import Any

import pytest


def noted_answers(monkeypatch: pytest.MonkeyPatch, kind: type[Any]) -> list[bool]:
    """Of each call of a kind's `answer` from now on, whether it gave one."""
    noted: list[bool] = []
    answer = kind.answer

    def noting(search: Any, *given: Any) -> Any:
        found = answer(search, *given)
        noted.append(found is not None)
        return found

    monkeypatch.setattr(kind, "answer", noting)
    return noted
