"""Encoders that run a model in this process: sentence-transformers and fastembed, as extras.

Neither library is imported before an encoder of it is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from m2mdb.encoder_registry import digest_of
from m2mdb.pager.errors import NotSupportedError

if TYPE_CHECKING:
    import numpy as np

    Vectors = np.ndarray[Any, np.dtype[np.float32]]

BATCH_SIZE = 64  # texts that a model sees at once


class SentenceTransformersEncoder:
    """`sentence-transformers:NAME`: a model by its name or folder, its vectors of unit length."""

    def __init__(self, model: str, *, batch_size: int = BATCH_SIZE, **options: Any) -> None:
        """`options` go to `SentenceTransformer`: device, revision, cache_folder, …

        Raises NotSupportedError where the extra is missing; what loading a model raises.
        """
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise _missing("sentence-transformers", model, "models") from error
        self.model: Any = SentenceTransformer(model, **options)
        self.model_id = f"sentence-transformers:{model}"
        self.batch_size = batch_size
        self.dimensions = _dimensions(self.model)
        self.fingerprint = self._digest()

    def _digest(self) -> str:
        """Of the weights: another revision under the same name is another model."""
        import xxhash

        hashed = xxhash.xxh3_64()
        for name, tensor in sorted(self.model.state_dict().items()):
            hashed.update(name.encode())
            hashed.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
        return digest_of("weights", hashed.hexdigest(), self.dimensions)

    def encode(self, texts: Sequence[str]) -> Vectors:
        """float32 of shape (len(texts), dimensions), of unit length."""
        return self._encode(list(texts))

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """As `encode`, with the prompt that the model has for queries, if it has one."""
        prompts = getattr(self.model, "prompts", None) or {}
        return self._encode(
            list(texts), **({"prompt_name": "query"} if prompts.get("query") else {})
        )

    def count_tokens(self, text: str) -> int:
        """The tokens that the model makes of a text, without those that it adds at its ends."""
        return len(self.model.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _encode(self, texts: list[str], **options: Any) -> Vectors:
        import numpy as np

        found = self.model.encode(
            texts, batch_size=self.batch_size, normalize_embeddings=True, convert_to_numpy=True,
            show_progress_bar=False, **options,
        )  # fmt: skip
        vectors: Vectors = np.asarray(found, np.float32).reshape(len(texts), self.dimensions)
        return vectors


def _dimensions(model: Any) -> int:
    """Values in a vector; versions of the library call the question differently."""
    ask = getattr(model, "get_embedding_dimension", None) or model.get_sentence_embedding_dimension
    return int(ask())


class FastembedEncoder:
    """`fastembed:NAME`: a model in ONNX, without PyTorch."""

    def __init__(self, model: str, *, batch_size: int = BATCH_SIZE, **options: Any) -> None:
        """`options` go to `TextEmbedding`: cache_dir, threads, …

        Raises NotSupportedError where the extra is missing; what loading a model raises.
        """
        try:
            from fastembed import TextEmbedding
        except ImportError as error:
            raise _missing("fastembed", model, "fastembed") from error
        self.model: Any = TextEmbedding(model, **options)
        self.model_id = f"fastembed:{model}"
        self.batch_size = batch_size
        self.dimensions = len(next(iter(self.model.embed(["dimension"]))))
        # the library names one file of weights for a model; it says nothing of its content
        self.fingerprint = digest_of("fastembed", model, self.dimensions)

    def encode(self, texts: Sequence[str]) -> Vectors:
        """float32 of shape (len(texts), dimensions)."""
        return self._stacked(self.model.embed(list(texts), batch_size=self.batch_size), len(texts))

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """As `encode`, as the model wants queries."""
        return self._stacked(self.model.query_embed(list(texts)), len(texts))

    def _stacked(self, rows: Any, count: int) -> Vectors:
        import numpy as np

        vectors: Vectors = np.array(list(rows), np.float32).reshape(count, self.dimensions)
        return vectors


def _missing(library: str, model: str, extra: str) -> NotSupportedError:
    return NotSupportedError(
        f"encoder '{library}:{model}' needs {library} (pip install 'm2mdb[{extra}]')"
    )
