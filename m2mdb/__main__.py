"""`python -m m2mdb` and the console script `m2mdb`."""

from __future__ import annotations

import signal
import sys


def main() -> int:
    """Run the command line; returns the exit code.

    Ctrl-C is one line and exit code 1 from here on, and when all is done it changes nothing more.
    """
    try:
        from m2mdb.cli import run

        code = run(sys.argv[1:])
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return code
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        print("m2mdb: interrupted", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
