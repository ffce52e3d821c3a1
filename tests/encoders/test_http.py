"""Encoders behind HTTP: batches, order, time limits, retries, what a server may get wrong."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import m2mdb
from m2mdb.encoder_http import MAX_WAIT, HttpEncoder, OllamaEncoder, OpenAIEncoder
from m2mdb.encoders import HashingEncoder
from tests.encoders.server import Endpoint

TEXTS = [f"text {i}" for i in range(10)]


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    found = Endpoint()
    yield found
    found.close()


def patient(encoder: HttpEncoder) -> tuple[Any, list[float]]:
    """An encoder that waits for nothing, and the seconds that it would have waited."""
    waits: list[float] = []
    encoder.sleep = waits.append
    return encoder, waits


def openai(endpoint: Endpoint, **options: Any) -> Any:
    return patient(OpenAIEncoder("small", endpoint.url + "/v1", **options))[0]


def ollama(endpoint: Endpoint, **options: Any) -> Any:
    return patient(OllamaEncoder("minilm", endpoint.url, **options))[0]


@pytest.mark.parametrize("make", [openai, ollama])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_texts_go_in_batches_and_come_back_in_order(
    endpoint: Endpoint, make: Any, batch_size: int
) -> None:
    done: list[tuple[int, int]] = []
    encoder = make(
        endpoint, batch_size=batch_size, progress=lambda count, of: done.append((count, of))
    )

    vectors = encoder.encode(TEXTS)

    assert vectors.dtype == np.float32
    assert np.array_equal(vectors, HashingEncoder(8).encode(TEXTS))
    batches = [body["input"] for _, body, _ in endpoint.requests][
        1:
    ]  # the first finds the dimension
    assert batches == [TEXTS[i : i + batch_size] for i in range(0, 10, batch_size)]
    assert done[-1] == (10, 10)
    assert len(done) == len(batches)
    assert encoder.encode([]).shape == (0, 8)


def test_dimension_and_key_are_said_to_an_openai_server(endpoint: Endpoint) -> None:
    encoder = openai(endpoint, dimensions=8, key="secret")

    encoder.encode(["one"])

    ((path, body, headers),) = endpoint.requests
    assert path == "/v1/embeddings"
    assert body == {"model": "small", "input": ["one"], "encoding_format": "float", "dimensions": 8}
    assert headers["Authorization"] == "Bearer secret"
    assert "secret" not in repr(encoder)


def test_the_key_of_the_environment_goes_to_openai_alone(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "of the environment")

    openai(endpoint, dimensions=8).encode(["one"])

    assert "Authorization" not in endpoint.requests[0][2]
    assert OpenAIEncoder("small")._headers["Authorization"] == "Bearer of the environment"


@pytest.mark.parametrize("failure", [429, 500, 503, "hang up"])
def test_what_passes_is_tried_again_with_longer_and_longer_waits(
    endpoint: Endpoint, failure: Any
) -> None:
    url = endpoint.url + "/v1"
    encoder, waits = patient(OpenAIEncoder("small", url, dimensions=8, backoff=0.5))
    endpoint.failures = [failure, failure, failure]

    assert encoder.encode(["one"]).shape == (1, 8)
    assert waits == [0.5, 1.0, 2.0]


def test_the_server_says_how_long_to_wait_within_reason(endpoint: Endpoint) -> None:
    url = endpoint.url + "/v1"
    encoder, waits = patient(OpenAIEncoder("small", url, dimensions=8, backoff=0.5))
    endpoint.failures = [(429, "7"), (429, "86400"), (503, "Wed, 21 Oct 2026 07:28:00 GMT")]

    encoder.encode(["one"])

    assert waits == [7.0, MAX_WAIT, 2.0]


def test_a_server_that_stays_away_is_an_operational_error(endpoint: Endpoint) -> None:
    encoder = openai(endpoint, dimensions=8, retries=2)
    endpoint.failures = [503] * 3

    with pytest.raises(m2mdb.OperationalError, match=r"HTTP 503 .*out of order, after 3 tries"):
        encoder.encode(["one"])
    assert len(endpoint.requests) == 3


@pytest.mark.parametrize("status", [400, 401, 404])
def test_what_does_not_pass_is_not_tried_again(endpoint: Endpoint, status: int) -> None:
    encoder = openai(endpoint, dimensions=8, key="secret")
    endpoint.failures = [status]

    with pytest.raises(m2mdb.OperationalError, match=rf"openai:small.*HTTP {status}") as caught:
        encoder.encode(["one"])
    assert len(endpoint.requests) == 1
    assert "secret" not in str(caught.value)


def test_a_server_that_does_not_answer_in_time(endpoint: Endpoint) -> None:
    encoder = openai(endpoint, dimensions=8, timeout=0.05, retries=1)
    endpoint.failures = ["hang", "hang"]

    with pytest.raises(m2mdb.OperationalError, match=r"timed out.* after 2 tries"):
        encoder.encode(["one"])


def test_no_server_at_all() -> None:
    with socket.socket() as bound:  # that never listens: the port is taken, and refuses
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"

        with pytest.raises(m2mdb.OperationalError, match=r"refused.*, after one try"):
            OllamaEncoder("minilm", url, retries=0).encode(["one"])


@pytest.mark.parametrize(
    "answer",
    [
        {"data": []},
        {"data": [{"index": 1, "embedding": [1.0] * 8}]},
        {"data": [{"index": 0, "embedding": None}]},
        {"data": [{"index": 0, "embedding": []}]},
        {"data": [{"index": 0, "embedding": ["x"] * 8}]},
        {"data": [{"embedding": [1.0] * 8}]},
        {"data": 3},
        {"error": "none"},
        [],
        None,
    ],
)
def test_an_answer_without_the_vectors_is_a_data_error(endpoint: Endpoint, answer: Any) -> None:
    encoder = openai(endpoint, dimensions=8)
    endpoint.answer = json.dumps(answer).encode()

    with pytest.raises(m2mdb.DataError, match="gave"):
        encoder.encode(["one"])


def test_an_answer_of_another_dimension_or_no_json(endpoint: Endpoint) -> None:
    encoder = openai(endpoint, dimensions=8)
    endpoint.answer = {"data": [{"index": 0, "embedding": [1.0] * 7}]}
    with pytest.raises(m2mdb.DataError, match=r"gave \[7\] dimensions; wanted 8"):
        encoder.encode(["one"])
    endpoint.answer = b"<html>"
    with pytest.raises(m2mdb.OperationalError, match="no JSON: <html>"):
        encoder.encode(["one"])


def test_ollamas_fingerprint_is_that_of_the_model_it_has(endpoint: Endpoint) -> None:
    first = ollama(endpoint).fingerprint
    assert ollama(endpoint).fingerprint == first

    endpoint.digest = "sha256:2"
    assert ollama(endpoint).fingerprint != first
    with pytest.raises(m2mdb.OperationalError, match="has no model 'other'"):
        _ = OllamaEncoder("other", endpoint.url).fingerprint


@pytest.mark.parametrize(
    "options", [{"url": "file:///etc/passwd"}, {"batch_size": 0}, {"timeout": 0}, {"retries": -1}]
)
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(m2mdb.InterfaceError):
        OllamaEncoder("minilm", **options)


def test_a_column_of_a_server(endpoint: Endpoint, tmp_path: Path) -> None:
    con = m2mdb.connect(
        tmp_path / "notes.m2m", encoders={"local": ollama(endpoint)}, autocommit=True
    )
    notes = con.create_collection(
        "notes", "body TEXT FULLTEXT, e VECTOR(8) FROM body ENCODER 'local'"
    )
    notes.add({"body": TEXTS})
    endpoint.requests.clear()

    assert notes.search("text 3", k=1)[0]["body"] == "text 3"
    assert len(endpoint.requests) == 1
    endpoint.failures = [500] * 9
    with pytest.raises(m2mdb.OperationalError, match="HTTP 500"):
        notes.add({"body": ["new"]})
    assert len(notes) == 10

    endpoint.failures, endpoint.digest = [], "sha256:2"
    con.close()
    con = m2mdb.connect(
        tmp_path / "notes.m2m", encoders={"local": ollama(endpoint)}, autocommit=True
    )
    with pytest.raises(m2mdb.ProgrammingError, match="cannot be compared"):
        con.execute("INSERT INTO notes VALUES ('new')")
