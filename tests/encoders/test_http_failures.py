"""Endpoints that fail in the middle of long work: what is kept, what is said, what is paid twice.

A real server on this machine fails at the n-th request of a REEMBED, or of an add, of many. Texts
that it has given vectors for are counted, as a program that pays for them would count.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import m2mdb
from m2mdb.encoder_http import HttpEncoder, OllamaEncoder, OpenAIEncoder
from m2mdb.encoders import HashingEncoder
from m2mdb.index import generated, reembedding
from m2mdb.pager.errors import InterfaceError
from tests.encoders.server import Endpoint

ROWS = 60
BATCH = 4  # texts of a request
SIZE = 8
BODIES = [f"text number {at} of many" for at in range(ROWS)]


def shorter(content: bytes) -> bytes:
    """The answer with vectors of another dimension."""
    answer = json.loads(content)
    if "data" in answer:
        answer["data"] = [{**each, "embedding": each["embedding"][1:]} for each in answer["data"]]
    else:
        answer["embeddings"] = [each[1:] for each in answer["embeddings"]]
    return json.dumps(answer).encode()


FAILURES = [
    pytest.param([500] * 9, r"HTTP 500 .*out of order, after 2 tries", id="500"),
    pytest.param([(429, "0")] * 9, r"HTTP 429 .*after 2 tries", id="429"),
    pytest.param([401], r"HTTP 401", id="401"),
    pytest.param([lambda content: b"<html>"], r"no JSON: <html>", id="garbage"),
    pytest.param([lambda content: b'{"data": 3, "embeddings": 3}'], r"gave no vectors", id="shape"),
    pytest.param([shorter], r"gave \[7\] dimensions; wanted 8", id="dimension"),
    pytest.param(["break off"] * 9, r"IncompleteRead.* after 2 tries", id="breaks off"),
    pytest.param(["hang up"] * 9, r"after 2 tries", id="hangs up"),
    pytest.param(["hang"] * 9, r"timed out.* after 2 tries", id="hangs"),
    pytest.param(["drip"] * 9, r"timed out.* after 2 tries", id="drips"),
]


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    found = Endpoint(SIZE)
    yield found
    found.close()


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reembedding, "FIRST_TEXTS", 16)
    monkeypatch.setattr(reembedding, "MOST_TEXTS", 16)
    monkeypatch.setattr(generated, "ENCODED_TEXTS", 24)


def encoder_of(endpoint: Endpoint, scheme: str, **options: Any) -> HttpEncoder:
    options = {"batch_size": BATCH, "timeout": 0.15, "retries": 1, "dimensions": SIZE, **options}
    encoder: HttpEncoder = (
        OpenAIEncoder("small", endpoint.url + "/v1", key="secret", **options)
        if scheme == "openai"
        else OllamaEncoder("minilm", endpoint.url, **options)
    )
    encoder.sleep = lambda seconds: None
    return encoder


def opened(path: Path, encoder: HttpEncoder) -> m2mdb.Connection:
    return m2mdb.connect(path, encoders={"remote": encoder}, autocommit=True)


def assert_said(error: m2mdb.Error, endpoint: Endpoint, place: str) -> None:
    """The message names the endpoint, where among the texts it was, and no key."""
    said = str(error)
    assert endpoint.url in said
    assert place in said
    assert "secret" not in said


def assert_vectors(con: m2mdb.Connection, count: int) -> None:
    rows = con.execute("SELECT body, e FROM notes ORDER BY rowid").fetchall()
    assert [body for body, _ in rows] == BODIES[:count]
    if rows:
        np.testing.assert_array_equal([e for _, e in rows], HashingEncoder(SIZE).encode(BODIES))
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def writing_beside(path: Path, endpoint: Endpoint) -> None:
    """Let another connection, which waits for nobody, write during each request."""

    def write() -> None:
        with m2mdb.connect(path, timeout=0, autocommit=True) as other:
            other.execute("INSERT INTO marks VALUES (1)")

    endpoint.during = write


@pytest.mark.parametrize(("scheme", "again"), [("openai", True), ("ollama", False)])
@pytest.mark.parametrize(("failures", "said"), FAILURES)
def test_a_reembed_goes_on_and_pays_for_no_text_twice(
    tmp_path: Path, endpoint: Endpoint, scheme: str, failures: list[Any], said: str, again: bool
) -> None:
    path = tmp_path / "notes.m2m"
    con = opened(path, encoder_of(endpoint, scheme))
    con.execute("CREATE COLLECTION marks (a INTEGER)")
    con.create_collection("notes", "body TEXT, e VECTOR(16) FROM body ENCODER 'hashing'")
    con.collection("notes").add({"body": BODIES})
    before = con.execute("SELECT rowid, body, e FROM notes").fetchall()
    assert con.execute("REEMBED notes USING 'hashing'").fetchall()[0][2] == 0
    encoder = encoder_of(endpoint, scheme)
    assert encoder.fingerprint and encoder.dimensions == SIZE
    con.close()
    con = opened(path, encoder)
    endpoint.served.clear()
    writing_beside(path, endpoint)
    endpoint.failures = [200] * 5 + failures

    with pytest.raises(m2mdb.DatabaseError, match=said) as caught:
        con.execute("REEMBED notes USING 'remote'")

    assert_said(caught.value, endpoint, "at texts 5 to 8 of 16")
    assert not con.in_transaction
    assert len(endpoint.served) == 20
    assert [
        (rowid, body, e.tobytes())
        for rowid, body, e in con.execute("SELECT rowid, body, e FROM notes")
    ] == [(rowid, body, e.tobytes()) for rowid, body, e in before]
    assert con.execute("SELECT count(e_next) FROM notes").fetchone() == (20,)
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]

    endpoint.failures = []
    if again:
        con.close()
        con = opened(path, encoder_of(endpoint, scheme))
    assert con.execute("REEMBED notes USING 'remote'").fetchall()[0][2:] == (40, 40, SIZE)
    paid = [text for text in endpoint.served if text in BODIES]
    assert sorted(paid) == sorted(BODIES)
    assert_vectors(con, ROWS)
    (marks,) = con.execute("SELECT count(*) FROM marks").fetchone() or (0,)
    assert marks >= 15


@pytest.mark.parametrize("scheme", ["openai", "ollama"])
@pytest.mark.parametrize(("failures", "said"), FAILURES)
def test_an_add_leaves_no_row_and_the_next_try_asks_for_the_rest_alone(
    tmp_path: Path, endpoint: Endpoint, scheme: str, failures: list[Any], said: str
) -> None:
    path = tmp_path / "notes.m2m"
    con = opened(path, encoder_of(endpoint, scheme))
    con.execute("CREATE COLLECTION marks (a INTEGER)")
    notes = con.create_collection(
        "notes", f"body TEXT, e VECTOR({SIZE}) FROM body ENCODER 'remote'"
    )
    assert len(notes.add({"body": []})) == 0
    endpoint.served.clear()
    writing_beside(path, endpoint)
    notes.add({"body": [None]})
    con.execute("DELETE FROM notes")
    endpoint.failures = [200] * 10 + failures  # in the second call of the encoder, of 24 texts

    with pytest.raises(m2mdb.DatabaseError, match=said) as caught:
        notes.add({"body": BODIES})

    assert_said(caught.value, endpoint, "of 24")
    assert not con.in_transaction
    assert len(notes) == 0
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    con.execute("INSERT INTO marks VALUES (2)")

    endpoint.failures = []
    notes.add({"body": BODIES})
    paid = [text for text in endpoint.served if text in BODIES]
    assert sorted(paid) == sorted(BODIES)
    assert_vectors(con, ROWS)


@pytest.mark.parametrize("failure", [500, (429, "0"), "break off", "hang up", "hang"])
def test_what_recovers_is_no_error(tmp_path: Path, endpoint: Endpoint, failure: Any) -> None:
    con = opened(tmp_path / "notes.m2m", encoder_of(endpoint, "openai"))
    notes = con.create_collection(
        "notes", f"body TEXT, e VECTOR({SIZE}) FROM body ENCODER 'remote'"
    )
    endpoint.failures = [200, 200, failure] * 4

    notes.add({"body": BODIES})

    assert sorted(endpoint.served) == sorted(BODIES)
    assert_vectors(con, ROWS)


def test_what_is_kept_of_a_failed_call_has_a_bound_and_is_given_once(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m2mdb.encoder_http.KEPT_BYTES", 6 * 4 * SIZE)
    encoder = encoder_of(endpoint, "openai")
    endpoint.failures = [200, 200, 401]

    with pytest.raises(m2mdb.OperationalError, match="at texts 9 to 12 of 60"):
        encoder.encode(BODIES)

    assert len(encoder._kept) == 6
    endpoint.served.clear()
    found = encoder.encode([*BODIES, BODIES[0]])
    np.testing.assert_array_equal(found, HashingEncoder(SIZE).encode([*BODIES, BODIES[0]]))
    assert len(endpoint.served) == ROWS + 1 - 7
    assert not encoder._kept


def test_a_number_that_is_no_float_and_a_truth_value(endpoint: Endpoint) -> None:
    encoder = encoder_of(endpoint, "ollama")
    for number in ("1" + "0" * 400, "true"):
        row = f"[{', '.join([number] * SIZE)}]"
        endpoint.answer = f'{{"embeddings": [{row}]}}'.encode()
        with pytest.raises(m2mdb.DataError, match=r"encoder ollama:minilm: http.* gave"):
            encoder.encode(["one"])


def test_a_key_that_no_header_can_have_is_refused_and_not_shown() -> None:
    with pytest.raises(InterfaceError, match="'Authorization' has characters") as caught:
        OpenAIEncoder("small", key="secret\n")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("by", ["interrupt", "progress handler"])
def test_an_interrupt_ends_the_wait_between_two_tries(
    tmp_path: Path, endpoint: Endpoint, by: str
) -> None:
    encoder = OpenAIEncoder("small", endpoint.url + "/v1", dimensions=SIZE, backoff=50)
    with opened(tmp_path / "x.m2m", encoder) as con:
        con.execute(f"CREATE TABLE notes (body TEXT, e VECTOR({SIZE}) FROM body ENCODER 'remote')")
        endpoint.failures += [503]
        slept: list[float] = []

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            if len(slept) == 3 and by == "interrupt":
                con.interrupt()  # as from another thread

        encoder.nap = sleep
        if by == "progress handler":
            con.set_progress_handler(lambda: len(slept) == 3, 1)
        with pytest.raises(m2mdb.StatementInterruptedError):
            con.execute("INSERT INTO notes (body) VALUES ('one')")
        assert len(slept) == 3
        assert max(slept) < 0.05
        con.set_progress_handler(None, 1)
        assert con.execute("SELECT count(*) FROM notes").fetchall() == [(0,)]
        con.execute("INSERT INTO notes (body) VALUES ('one')")
        assert con.execute("SELECT count(*) FROM notes WHERE e IS NOT NULL").fetchall() == [(1,)]
    con.close()
