"""Another process that does what a test tells it, one thing at a time.

A test starts a `Peer`, which is this module run as a program, and asks it to run Python lines;
each is answered by what `answer` was set to, or by the exception's class and text. So a test says
itself how two processes interleave.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

_ROOT = Path(__file__).parent.parent.parent
_NOBODY = 65534  # a user who owns nothing


class PeerError(Exception):
    """What the peer's lines raised: class and text."""


class Peer:
    """A process with names of its own; `m2mdb` is imported, `path` is the test's file."""

    def __init__(self, path: Path, *, as_nobody: bool = False) -> None:
        command = [sys.executable, "-m", "tests.processes.peers", str(path), str(int(as_nobody))]
        self.process = subprocess.Popen(
            command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self.process.pid

    def tell(self, lines: str) -> None:
        """Let it run lines, and do not wait."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(lines) + "\n")
        self.process.stdin.flush()

    def hear(self) -> Any:
        """What the lines gave; raises PeerError with what they raised."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the peer has ended: {self.process.wait()}"
        answer, error = json.loads(line)
        if error is not None:
            raise PeerError(error)
        return answer

    def run(self, lines: str) -> Any:
        """Let it run lines; the value of `answer`."""
        self.tell(lines)
        return self.hear()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


def main() -> None:
    """Run what comes on standard input."""
    path, as_nobody = sys.argv[1:]
    import m2mdb

    with TemporaryDirectory() as folder:  # what is loaded later could not be read by nobody
        con = m2mdb.connect(Path(folder) / "warm.m2m")
        con.execute("CREATE TABLE t (x INTEGER)")
        con.execute("SELECT x FROM t").fetchall()
        con.close()
    if int(as_nobody):
        os.setgroups([])
        os.setgid(_NOBODY)
        os.setuid(_NOBODY)
    names: dict[str, Any] = {"m2mdb": m2mdb, "path": path, "os": os}
    for line in sys.stdin:
        names["answer"] = None
        error = None
        try:
            exec(json.loads(line), names)
        except Exception as raised:
            error = f"{type(raised).__name__}: {raised}"
        print(json.dumps([names["answer"], error]), flush=True)


if __name__ == "__main__":
    main()
