"""Encoders by name: what `connect(path, encoders=…)` gave, and the built-in `hashing`.

    {"minilm": encoder}                                an object with the protocol of `Encoder`
    {"minilm": "sentence-transformers:all-MiniLM-L6-v2"}   by what it is made of, see SCHEMES
    {"minilm": function}                               any callable from a list of texts to a matrix
    ["fastembed:BAAI/bge-small-en-v1.5"]               each under its own name

A file names encoders, and only the program says what the names mean: opening a file that another
person wrote never loads a model, sends texts anywhere, or imports anything.

    scheme                 made by                                        extra
    sentence-transformers  encoder_models.SentenceTransformersEncoder     models
    fastembed              encoder_models.FastembedEncoder                fastembed
    ollama, openai         encoder_http.OllamaEncoder, OpenAIEncoder      none
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from m2mdb.pager.errors import DataError, InterfaceError, ProgrammingError

if TYPE_CHECKING:
    import numpy as np

    from m2mdb.index.encoder import Encoder

    Vectors = np.ndarray[Any, np.dtype[np.float32]]

Encoders = Mapping[str, Any] | Iterable[str]  # what `connect` takes
SCHEMES = {
    "sentence-transformers": ("m2mdb.encoder_models", "SentenceTransformersEncoder"),
    "fastembed": ("m2mdb.encoder_models", "FastembedEncoder"),
    "ollama": ("m2mdb.encoder_http", "OllamaEncoder"),
    "openai": ("m2mdb.encoder_http", "OpenAIEncoder"),
}


class FunctionEncoder:
    """Any callable from a list of texts to a matrix, as an encoder."""

    def __init__(
        self,
        function: Callable[[list[str]], Any],
        dimensions: int,
        model_id: str,
        fingerprint: str | None = None,
    ) -> None:
        """`model_id` is to change when the function does; so is `fingerprint`, which is made of
        `model_id` and `dimensions` where it is not given.

        Raises InterfaceError where `function` cannot be called.
        """
        if not callable(function):
            raise InterfaceError(f"an encoder's function is {type(function).__name__}")
        self.function = function
        self.dimensions = int(dimensions)
        self.model_id = model_id
        self.fingerprint = fingerprint or digest_of(model_id, self.dimensions)

    def encode(self, texts: Sequence[str]) -> Vectors:
        """What the function gives, as float32."""
        import numpy as np  # not before the first text: `import m2mdb` is light

        found: Vectors = np.asarray(self.function(list(texts)), np.float32)
        return found

    def __repr__(self) -> str:
        return f"FunctionEncoder({self.model_id!r}, dimensions={self.dimensions})"


def digest_of(*parts: object) -> str:
    """A fingerprint of what a model is said to be: 16 hexadecimal digits."""
    import xxhash

    return xxhash.xxh3_64_hexdigest("\0".join(map(str, parts)).encode())


def as_named(encoders: Encoders | None) -> dict[str, Any]:
    """What `connect` takes, by names.

    Raises InterfaceError for what can be no encoder.
    """
    if encoders is None:
        return {}
    if isinstance(encoders, str):
        raise InterfaceError(f"encoders are a dict or a list of names; wanted is [{encoders!r}]")
    if not isinstance(encoders, Mapping):
        encoders = {name: name for name in encoders}
    for name, each in encoders.items():
        if not isinstance(name, str):
            raise InterfaceError(f"an encoder's name is a str, not {name!r}")
        if isinstance(each, str):
            parts_of(each)
        elif not hasattr(each, "encode") and not callable(each):
            raise InterfaceError(
                f"encoder {name!r} is {type(each).__name__}; wanted is an encoder, a callable, or "
                f"a text such as 'sentence-transformers:NAME'"
            )
    return dict(encoders)


def parts_of(name: str) -> tuple[str, str]:
    """A scheme and what stands behind it.

    Raises ProgrammingError where the scheme is unknown.
    """
    scheme, _, model = name.partition(":")
    if name.lower() != "hashing" and (scheme not in SCHEMES or not model):
        raise ProgrammingError(
            f"unknown encoder {name!r}; built in is 'hashing', and NAME of a model in "
            + ", ".join(f"'{each}:NAME'" for each in SCHEMES)
        )
    return scheme, model


def open_encoder(name: str) -> Encoder:
    """An encoder by its scheme: `sentence-transformers:NAME` and so on.

    Raises ProgrammingError for an unknown scheme, NotSupportedError where its extra is missing.
    """
    scheme, model = parts_of(name)
    import importlib

    module, made_by = SCHEMES[scheme]
    made: Encoder = getattr(importlib.import_module(module), made_by)(model)
    return made


class Registry:
    """The encoders of a connection, those that are models opened when first asked for."""

    def __init__(self, given: dict[str, Any]) -> None:
        """`given` is looked at with each question, so that a program may add to it."""
        self.given = given
        self._opened: dict[tuple[str, int], tuple[Any, Encoder]] = {}
        self._lock = threading.Lock()

    def __call__(self, name: str, dimension: int) -> Encoder | None:
        """The encoder of a name, None where there is none; what has any dimension has this one."""
        given = self.given.get(name)
        if given is None and name.lower() != "hashing":
            return None
        if given is not None and not isinstance(given, str) and hasattr(given, "encode"):
            encoder: Encoder = given
            return encoder
        with self._lock:
            source, made = self._opened.get((name, dimension), (None, None))
            if made is None or source is not given:
                made = self._open(name, given, dimension)
                self._opened[name, dimension] = given, made
            return made

    def _open(self, name: str, given: Any, dimension: int) -> Encoder:
        if given is None or (isinstance(given, str) and given.lower() == "hashing"):
            from m2mdb.encoders import built_in

            return built_in("hashing", dimension)
        if isinstance(given, str):
            for (other, _), (source, made) in self._opened.items():
                if other == name and source is given:
                    return made  # a model has the dimension that it has
            return open_encoder(given)
        module, where = getattr(given, "__module__", ""), getattr(given, "__qualname__", name)
        return FunctionEncoder(given, dimension, f"{module}.{where}")

    def named(self, name: str, dimensions: int | None = None) -> Encoder:
        """`Connection.encoder`; a name with a scheme need not be registered, the program says it.

        Raises ProgrammingError where there is none, DataError for another dimension.
        """
        from m2mdb.encoders import DEFAULT_DIMENSIONS

        if name not in self.given and name.partition(":")[0] in SCHEMES:
            with self._lock:
                self.given[name] = name
        found = self(name, dimensions or DEFAULT_DIMENSIONS)
        if found is None:
            registered = ", ".join(repr(each) for each in self.given) or "none"
            raise ProgrammingError(
                f"unknown encoder {name!r}; built in is 'hashing', registered: {registered}"
            )
        if dimensions is not None and found.dimensions != dimensions:
            raise DataError(
                f"encoder {name!r} has dimension {found.dimensions}, wanted is {dimensions}"
            )
        return found
