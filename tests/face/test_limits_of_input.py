"""Small things: Ctrl-C and full disks on the command line, files and numbers that are refused."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import m2mdb


def program(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


IMPORTING = """
import builtins, sys, m2mdb.__main__ as main
real = builtins.__import__
def interrupted(name, *rest):
    if name == "m2mdb.cli":
        raise KeyboardInterrupt
    return real(name, *rest)
builtins.__import__ = interrupted
sys.exit(main.main())
"""
EXITING = """
import atexit, os, signal, sys, m2mdb.__main__ as main
atexit.register(os.kill, os.getpid(), signal.SIGINT)
sys.exit(main.main())
"""


def test_ctrl_c_while_starting_is_one_line() -> None:
    done = program(IMPORTING, "--version")

    assert (done.returncode, done.stderr) == (1, "m2mdb: interrupted\n")


def test_ctrl_c_while_exiting_changes_nothing() -> None:
    done = program(EXITING, "--version")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("m2mdb ")


def test_output_to_a_full_disk_is_one_line(path: Path, tmp_path: Path) -> None:
    m2mdb.connect(path, compute="numpy").close()
    full = tmp_path / "full"  # a node of our own
    try:
        os.mknod(full, 0o600 | stat.S_IFCHR, os.makedev(1, 7))
        output = full.open("wb")
    except OSError as error:
        pytest.skip(f"no device node can be made here: {error}")

    for command in (["query", str(path), "SELECT 1"], ["dump", str(path)], ["check", str(path)]):
        arguments = [sys.executable, "-m", "m2mdb", *command]
        with full.open("wb") as output:
            done = subprocess.run(
                arguments, stdout=output, stderr=subprocess.PIPE, text=True, timeout=60, check=False
            )
        wanted = "m2mdb: cannot write the output: No space left on device\n"
        assert (done.returncode, done.stderr) == (1, wanted)


def test_an_empty_file_is_refused_as_untrusted(path: Path) -> None:
    path.write_bytes(b"")

    with pytest.raises(m2mdb.CorruptDatabaseError, match="untrusted: it is empty"):
        m2mdb.connect(path, untrusted=True)

    assert path.read_bytes() == b""
    assert os.listdir(path.parent) == [path.name]


def test_a_cut_header_is_said_to_be_cut() -> None:
    con = m2mdb.connect(":memory:", compute="numpy")
    raw = con.serialize()

    with pytest.raises(m2mdb.CorruptDatabaseError, match="cut short: 100 bytes, expected"):
        con.deserialize(raw[:100])
    con.close()


@pytest.mark.parametrize("value", ["1e20", "1.5", "-1", str(2**31), str(2**63), "'soon'"])
def test_busy_timeout_refuses_what_is_no_number_of_milliseconds(value: str) -> None:
    con = m2mdb.connect(":memory:", compute="numpy")

    with pytest.raises(m2mdb.ProgrammingError, match="milliseconds in 0"):
        con.execute(f"PRAGMA busy_timeout = {value}")
    assert con.execute("PRAGMA busy_timeout").fetchall() == [(5000,)]
    con.execute(f"PRAGMA busy_timeout = {2**31 - 1}")
    assert con.execute("PRAGMA busy_timeout").fetchall() == [(2**31 - 1,)]
    con.close()
