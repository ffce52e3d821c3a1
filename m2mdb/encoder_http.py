"""Encoders behind an HTTP endpoint: OpenAI-compatible ones and Ollama, through urllib alone.

    texts --batches of batch_size--> POST --wait and try again--> vectors in the order of the texts

    endpoint         body                                  answer
    URL/embeddings   {"model", "input", "encoding_format"  {"data": [{"index", "embedding"}]}
                      and "dimensions" where it is asked}
    URL/api/embed    {"model", "input"}                    {"embeddings": [[…], …]}
    URL/api/tags     none: it is a GET                     {"models": [{"name", "digest"}]}

Tried again: no answer in time, no connection, an answer that breaks off, and the statuses in
RETRIED, up to `retries` times, after `backoff` seconds, doubled each time, or what the server says
in Retry-After, MAX_WAIT at most. Everything else is an OperationalError at once.

While it waits to try again, and before each request, an encoder looks whether the statement that
asks is to stop; a request that is on its way is waited for, `timeout` at most.

Where a call fails in the middle, the vectors that came are kept for the next call, which does not
ask for them again: whoever is paid by the text is paid once.

Invariants
    EH1 A batch's vectors are as many as its texts, of one dimension, in their order.
    EH2 The key stands in a header, in no message and no repr.
    EH3 What is kept is of calls that failed, KEPT_BYTES at most, and goes when it is asked for.
"""

from __future__ import annotations

import abc
import contextlib
import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.client import HTTPException, IncompleteRead
from typing import TYPE_CHECKING, Any

from m2mdb.encoder_registry import digest_of
from m2mdb.index.encoder import look
from m2mdb.pager.errors import DataError, InterfaceError, OperationalError

if TYPE_CHECKING:
    import numpy as np

    Vectors = np.ndarray[Any, np.dtype[np.float32]]
    Progress = Callable[[int, int], object]

RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
MAX_WAIT = 60.0  # seconds between two tries, whatever the server says
MAX_ANSWER = 1 << 30  # bytes that are read of an answer
CHUNK = 1 << 16  # bytes of an answer that are read between two looks at the clock
KEPT_BYTES = 64 << 20  # of vectors whose call failed later
SHOWN = 300  # characters of an answer in an error
LOOK_SECONDS = 0.02  # of a wait between two looks for an interrupt
BATCH_SIZE = 64  # texts of one request
TIMEOUT = 60.0  # seconds that a server has to answer
RETRIES = 4
BACKOFF = 0.5  # seconds before the second try
PROBE = "dimension"  # a text that is encoded to find the dimension


class HttpEncoder(abc.ABC):
    """What both protocols share: batches, time limits, retries."""

    scheme = ""

    def __init__(
        self,
        model: str,
        url: str,
        *,
        dimensions: int | None = None,
        fingerprint: str | None = None,
        headers: dict[str, str] | None = None,
        batch_size: int = BATCH_SIZE,
        timeout: float = TIMEOUT,
        retries: int = RETRIES,
        backoff: float = BACKOFF,
        progress: Progress | None = None,
    ) -> None:
        """Nothing is asked of the server before it is needed.

        dimensions   of the vectors; without it, one text is encoded to find out
        fingerprint  without it, made of the model, the protocol and the dimension, as a server
                     does not say what its model is; Ollama's is the digest of the model
        timeout, backoff   seconds
        progress     called with (texts done, texts in all) after each request; it may raise

        Raises InterfaceError for a url that is not http(s), or sizes below 1.
        """
        if not url.startswith(("http://", "https://")):
            raise InterfaceError(f"encoder {model!r}: url {url!r} is not http:// or https://")
        if batch_size < 1 or retries < 0 or not timeout > 0 or backoff < 0:
            raise InterfaceError(
                f"encoder {model!r}: batch_size {batch_size}, retries {retries}, timeout "
                f"{timeout}, backoff {backoff}: expected numbers above 0"
            )
        self.model = model
        self.model_id = f"{self.scheme}:{model}"
        self.url = url.rstrip("/")
        self.batch_size = batch_size
        self.timeout = timeout
        self.retries = retries
        self.backoff = backoff
        self.progress = progress
        # Attributes, as tests wait for nothing: the whole wait between tries, which is made of ...
        self.sleep: Callable[[float], object] = self._rest
        self.nap: Callable[[float], object] = time.sleep  # ... slices, see _rest
        self._headers = {"Content-Type": "application/json", **(headers or {})}
        for name, value in self._headers.items():
            if any(ord(each) < 32 or ord(each) > 255 for each in name + value):
                raise InterfaceError(  # without the value, which may be a key (EH2)
                    f"encoder {model!r}: header {name!r} has characters that no header can have"
                )
        self._kept: dict[str, np.ndarray[Any, Any]] = {}
        self._lock = threading.Lock()
        self._asked = dimensions
        self._dimensions = dimensions
        self._fingerprint = fingerprint

    @property
    def dimensions(self) -> int:
        """Values in one vector; OperationalError where the server has to be asked and fails."""
        if self._dimensions is None:
            self._dimensions = len(self._batch([PROBE])[0])
        return self._dimensions

    @property
    def fingerprint(self) -> str:
        """What was given, or a digest of what the model is said to be."""
        if self._fingerprint is None:
            self._fingerprint = self._identity()
        return self._fingerprint

    def _identity(self) -> str:
        return digest_of(self.scheme, self.model, self.dimensions)

    def encode(self, texts: Sequence[str]) -> Vectors:
        """float32 of shape (len(texts), dimensions).

        Raises OperationalError where the server fails, DataError for an answer of another shape.
        """
        import numpy as np

        vectors = np.empty((len(texts), self.dimensions), np.float32)
        known = self.take_kept(texts)
        missing = [at for at, text in enumerate(texts) if text not in known]
        for at, text in enumerate(texts):
            if text in known:
                vectors[at] = known[text]
        done = 0
        try:
            for start in range(0, len(missing), self.batch_size):
                look()
                places = missing[start : start + self.batch_size]
                vectors[places] = self._checked([texts[at] for at in places], places, len(texts))
                done += len(places)
                if self.progress is not None:
                    self.progress(len(texts) - len(missing) + done, len(texts))
        except BaseException:
            known.update((texts[at], vectors[at].copy()) for at in missing[:done])
            self.keep(known)
            raise
        return vectors

    def keep(self, vectors: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Keep vectors by their texts for the next call (EH3); beyond KEPT_BYTES they are lost."""
        most = KEPT_BYTES // (4 * self.dimensions)
        with self._lock:
            for text, vector in vectors.items():
                if len(self._kept) >= most:
                    return
                self._kept[text] = vector

    def take_kept(self, texts: Sequence[str]) -> dict[str, np.ndarray[Any, Any]]:
        """What failed calls have left of these texts, float32 each; it is not kept any longer."""
        with self._lock:
            if not self._kept:
                return {}
            return {text: self._kept.pop(text) for text in set(texts) if text in self._kept}

    def _checked(self, texts: list[str], places: list[int], count: int) -> Vectors:
        """The vectors of one request, and where among all texts it failed."""
        import numpy as np

        try:
            found = self._batch(texts)
            if any(len(each) != self.dimensions for each in found):
                sizes = sorted({len(each) for each in found})
                raise self._wrong(f"gave {sizes} dimensions; wanted {self.dimensions}")
            try:
                with np.errstate(over="ignore"):
                    return np.array(found, np.float32)
            except OverflowError:
                raise self._wrong("gave a number beyond all floats") from None
        except (OperationalError, DataError) as error:
            if count <= self.batch_size:
                raise
            place = f"texts {places[0] + 1} to {places[-1] + 1} of {count}"
            raise type(error)(f"{error}, at {place}") from error.__cause__

    def _batch(self, texts: list[str]) -> list[list[float]]:
        """The vectors of one request (EH1)."""
        answer = self._request(texts)
        try:
            found = self._vectors(answer)
            is_whole = all(
                isinstance(each, list) and each and all(type(x) in (int, float) for x in each)
                for each in found
            )
        except (KeyError, TypeError, ValueError):
            raise self._wrong(f"gave no vectors: {str(answer)[:SHOWN]}") from None
        if len(found) != len(texts) or not is_whole:
            raise self._wrong(f"gave {len(found)} vectors for {len(texts)} texts")
        return found

    @abc.abstractmethod
    def _request(self, texts: list[str]) -> Any:
        """The server's answer to some texts."""

    @abc.abstractmethod
    def _vectors(self, answer: Any) -> list[list[float]]:
        """The vectors that stand in an answer."""

    # --------------------------------------------------------------- one request

    def _ask(self, path: str, body: dict[str, Any] | None) -> Any:
        """The JSON that the server answers; OperationalError where it does not, in all tries."""
        waits = self._waits()
        while True:
            cause: Exception
            after: str | None = None
            try:
                return self._try(path, body)
            except urllib.error.HTTPError as error:
                if error.code not in RETRIED:
                    raise self._failed(path, _said(error)) from error
                problem, cause, after = _said(error), error, error.headers.get("Retry-After")
            except (OSError, HTTPException) as error:  # URLError, timeouts, TLS, what breaks off
                problem, cause = str(error) or type(error).__name__, error
            wait = next(waits, None)
            if wait is None:
                tries = f"{self.retries + 1} tries" if self.retries else "one try"
                raise self._failed(path, f"{problem}, after {tries}") from cause
            with contextlib.suppress(ValueError):  # a date: the own waits do
                wait = max(wait, float(after or 0))
            self.sleep(min(wait, MAX_WAIT))

    def _rest(self, seconds: float) -> None:
        """Wait, and meanwhile look whether to stop.

        In slices, as nothing wakes a sleep: an interrupt is a flag that another thread sets, a
        progress handler's wish to stop is known only when it is asked, and both come by look().
        """
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            look()
            self.nap(min(left, LOOK_SECONDS))
        look()

    def _waits(self) -> Iterator[float]:
        for number in range(self.retries):
            yield self.backoff * 2**number

    def _try(self, path: str, body: dict[str, Any] | None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, self._headers)
        with urllib.request.urlopen(request, timeout=self.timeout) as response:
            raw = self._read(path, response)
        try:
            return json.loads(raw)
        except (ValueError, RecursionError):
            shown = raw[:SHOWN].decode("utf-8", "replace")
            raise self._failed(path, f"the answer is no JSON: {shown}") from None

    def _read(self, path: str, response: Any) -> bytes:
        """All bytes of an answer, within `timeout` from its head on, however slowly they come."""
        started = time.monotonic()
        chunks: list[bytes] = []
        size = 0
        while chunk := response.read1(CHUNK):
            chunks.append(chunk)
            size += len(chunk)
            if size > MAX_ANSWER:
                raise self._failed(path, f"the answer has more than {MAX_ANSWER} bytes")
            if time.monotonic() - started > self.timeout:
                raise TimeoutError(f"timed out after {size} bytes")
        if response.length:  # http.client says nothing of it where a size is given to read
            raise IncompleteRead(b"".join(chunks), response.length)
        return b"".join(chunks)

    def _wrong(self, problem: str) -> DataError:
        return DataError(f"encoder {self.model_id}: {self.url} {problem}")

    def _failed(self, path: str, problem: str) -> OperationalError:
        return OperationalError(f"encoder {self.model_id}: {self.url}{path}: {problem}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model!r}, url={self.url!r})"


def _said(error: urllib.error.HTTPError) -> str:
    """A status with the beginning of what the server says of it."""
    try:
        text = error.read(SHOWN * 4).decode("utf-8", "replace")[:SHOWN].strip()
    except (OSError, HTTPException):
        text = ""
    return f"HTTP {error.code} {error.reason}" + (f": {text}" if text else "")


class OpenAIEncoder(HttpEncoder):
    """`openai:MODEL`: any server with POST /embeddings as OpenAI's: vLLM, llama.cpp, TEI, …"""

    scheme = "openai"

    def __init__(
        self,
        model: str,
        url: str = "https://api.openai.com/v1",
        *,
        key: str | None = None,
        **options: Any,
    ) -> None:
        """`key` goes into the header Authorization; without it that of OPENAI_API_KEY does, to
        OpenAI's own url alone. Options are those of HttpEncoder.
        """
        if key is None and url.startswith("https://api.openai.com/"):
            key = os.environ.get("OPENAI_API_KEY")
        headers = dict(options.pop("headers", None) or {})
        if key:
            headers["Authorization"] = f"Bearer {key}"
        super().__init__(model, url, headers=headers, **options)

    def _request(self, texts: list[str]) -> Any:
        body: dict[str, Any] = {"model": self.model, "input": texts, "encoding_format": "float"}
        if self._asked is not None:
            body["dimensions"] = self._asked
        return self._ask("/embeddings", body)

    def _vectors(self, answer: Any) -> list[list[float]]:
        data = answer["data"]
        if sorted(each["index"] for each in data) != list(range(len(data))):
            raise ValueError
        return [each["embedding"] for each in sorted(data, key=lambda each: each["index"])]


class OllamaEncoder(HttpEncoder):
    """`ollama:MODEL`: a model of an Ollama server, whose digest is the fingerprint."""

    scheme = "ollama"

    def __init__(self, model: str, url: str = "http://localhost:11434", **options: Any) -> None:
        """Options are those of HttpEncoder; `dimensions` is compared, the model has its own."""
        super().__init__(model, url, **options)

    def _identity(self) -> str:
        """The model's digest, as the server lists it; another build of it is another model."""
        wanted = {self.model, self.model if ":" in self.model else f"{self.model}:latest"}
        answer = self._ask("/api/tags", None)
        models = answer.get("models") if isinstance(answer, dict) else None
        for each in models if isinstance(models, list) else ():
            if isinstance(each, dict) and each.get("name") in wanted and each.get("digest"):
                return digest_of(each["digest"], self.dimensions)
        raise self._failed("/api/tags", f"the server has no model {self.model!r}")

    def _request(self, texts: list[str]) -> Any:
        return self._ask("/api/embed", {"model": self.model, "input": texts})

    def _vectors(self, answer: Any) -> list[list[float]]:
        found: list[list[float]] = answer["embeddings"]
        return found
