"""A server on this machine that speaks both protocols, and fails as it is told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from m2mdb.encoders import HashingEncoder


class Endpoint:
    """What was asked, and what is to be answered.

    failures   of the next requests: a status, (status, Retry-After), "hang up", "hang", "break off"
               in the middle of the answer, "drip" it slowly, or a callable that spoils the answer
    served     texts whose vectors were given: what a program would have paid for
    during     called while a request waits for its answer
    answer     given in place of vectors where it is set: JSON, or bytes as they are
    """

    def __init__(self, dimensions: int = 8) -> None:
        self.encoder = HashingEncoder(dimensions)
        self.requests: list[tuple[str, Any, dict[str, str]]] = []
        self.failures: list[Any] = []
        self.served: list[str] = []
        self.during: Callable[[], object] = lambda: None
        self.answer: Any = None
        self.digest = "sha256:1"
        self.released = threading.Event()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.reply(None)

            def do_POST(self) -> None:
                size = int(self.headers["Content-Length"])
                self.reply(json.loads(self.rfile.read(size)))

            def reply(self, body: Any) -> None:
                endpoint.requests.append((self.path, body, dict(self.headers)))
                endpoint.during()
                failure = endpoint.failures.pop(0) if endpoint.failures else None
                if failure == "hang":
                    endpoint.released.wait(10)
                if failure in ("hang", "hang up"):
                    self.close_connection = True
                    return
                spoil = failure if callable(failure) or isinstance(failure, str) else None
                if spoil is not None:
                    failure = None
                status, after = failure if isinstance(failure, tuple) else (failure or 200, None)
                content = endpoint.content(self.path, body) if status == 200 else b"out of order"
                if callable(spoil):
                    content = spoil(content)
                elif spoil is None and status == 200 and body is not None:
                    endpoint.served += body["input"]
                self.send_response(status)
                if after is not None:
                    self.send_header("Retry-After", after)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if spoil == "drip":
                    self.drip(content)
                    return
                self.wfile.write(content[: len(content) // 2] if spoil == "break off" else content)
                self.close_connection = True

            def drip(self, content: bytes) -> None:
                for at in range(len(content)):
                    try:
                        self.wfile.write(content[at : at + 1])
                        self.wfile.flush()
                    except OSError:  # the client has had enough
                        break
                    if endpoint.released.wait(0.02):
                        break
                self.close_connection = True

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def content(self, path: str, body: Any) -> bytes:
        """The answer to a request."""
        if self.answer is not None:
            return (
                self.answer if isinstance(self.answer, bytes) else json.dumps(self.answer).encode()
            )
        if path == "/api/tags":
            found: Any = {"models": [{"name": "minilm:latest", "digest": self.digest}]}
        else:
            rows = self.encoder.encode(body["input"]).tolist()
            found = {"embeddings": rows}
            if path == "/v1/embeddings":
                data = [{"index": at, "embedding": row} for at, row in enumerate(rows)]
                found = {"data": data[::-1]}  # in any order: the index says which it is
        return json.dumps(found).encode()

    def close(self) -> None:
        """Let go of what hangs, and stop."""
        self.released.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
