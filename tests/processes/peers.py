"""Other processes that do what a test tells them, one thing at a time.

A test gets a `Peer` from the `Nursery`, a process that has everything imported, no database open,
and forks one for each connection to its socket. The peer runs Python lines; each message is
answered by what `answer` was set to, or by the exception's class and text. So a test says itself
how two processes interleave.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

_ROOT = Path(__file__).parent.parent.parent
_NOBODY = 65534  # a user who owns nothing


class PeerError(Exception):
    """What the peer's lines raised: class and text."""


class Nursery:
    """The process that peers are forked from."""

    def __init__(self, folder: Path) -> None:
        self._path = str(folder / "nursery")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.processes.peers", self._path],
            cwd=_ROOT,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def peer(self, path: Path, *, as_nobody: bool = False) -> Peer:
        """A new process, of another user on demand."""
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self._path)
        return Peer(connection, path, as_nobody)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


class Peer:
    """A process with names of its own; `m2mdb` and `os` are imported, `path` is the test's file."""

    def __init__(self, connection: socket.socket, path: Path, as_nobody: bool) -> None:
        self._connection = connection
        self._stream = connection.makefile("rw", encoding="utf-8")
        self.tell(json.dumps([str(path), as_nobody]))
        self.pid = int(self.hear())

    def tell(self, lines: str) -> None:
        """Let it run lines, and do not wait."""
        self._stream.write(json.dumps(lines) + "\n")
        self._stream.flush()

    def hear(self) -> Any:
        """What the lines gave; raises PeerError with what they raised."""
        line = self._stream.readline()
        assert line, f"the peer {self.pid} has ended"
        answer, error = json.loads(line)
        if error is not None:
            raise PeerError(error)
        return answer

    def run(self, lines: str) -> Any:
        """Let it run lines; the value of `answer`."""
        self.tell(lines)
        return self.hear()

    def kill(self) -> None:
        """SIGKILL, and wait until nothing is left of it."""
        try:
            while True:
                os.kill(self.pid, signal.SIGKILL)
                time.sleep(0.0005)
        except ProcessLookupError:
            return

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        self._stream.close()
        self._connection.close()


def serve(path: str) -> None:
    """Fork a peer for each connection."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the dead vanish at once
    print("ready", flush=True)
    while True:
        connection, _ = server.accept()
        if not os.fork():
            server.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            obey(connection)
            os._exit(0)
        connection.close()


def obey(connection: socket.socket) -> None:
    """In a peer: run what comes."""
    import m2mdb

    stream = connection.makefile("rw", encoding="utf-8")
    path, as_nobody = json.loads(json.loads(stream.readline()))
    if as_nobody:
        os.setgroups([])
        os.setgid(_NOBODY)
        os.setuid(_NOBODY)
    names: dict[str, Any] = {"m2mdb": m2mdb, "path": path, "os": os, "answer": os.getpid()}
    error = None
    while True:
        stream.write(json.dumps([names["answer"], error]) + "\n")
        stream.flush()
        line = stream.readline()
        if not line:
            return
        names["answer"] = error = None
        try:
            exec(json.loads(line), names)
        except Exception as raised:
            error = f"{type(raised).__name__}: {raised}"


def warm() -> None:
    """Load what a peer needs: nobody could not read it later."""
    import m2mdb

    with TemporaryDirectory() as folder:
        con = m2mdb.connect(Path(folder) / "warm.m2m", compute="numpy")
        con.execute("CREATE TABLE t (x INTEGER PRIMARY KEY, body TEXT FULLTEXT)")
        con.execute("INSERT INTO t VALUES (1, 'one')")
        con.commit()
        con.execute("SELECT x, body FROM t").fetchall()
        con.execute("SELECT * FROM m2m_stats").fetchall()
        con.execute("CHECKPOINT truncate")
        con.close()


if __name__ == "__main__":
    warm()
    serve(sys.argv[1])
