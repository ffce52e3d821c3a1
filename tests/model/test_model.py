"""The public face against its model; a short, fixed round (see campaign.py for long ones)."""

from __future__ import annotations

from tests.model.campaign import run


def test_the_face_agrees_with_its_model() -> None:
    assert run(seed=1, examples=25) > 300
