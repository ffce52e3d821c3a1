"""The command line: what it prints and how it exits."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import m2mdb
from m2mdb.cli import parameter, run

ROOT = Path(__file__).parent.parent.parent
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def file(path: Path, notes: m2mdb.Collection) -> str:
    notes.connection.close()
    return str(path)


def test_query_prints_a_table(file: str, capsys: Capture) -> None:
    assert run(["query", file, "SELECT id, stars FROM notes ORDER BY id LIMIT 2"]) == 0

    assert capsys.readouterr().out.splitlines() == [
        "id  stars",
        "──  ─────",
        "a       1",
        "b       2",
    ]


def test_query_as_json(file: str, capsys: Capture) -> None:
    assert run(["query", file, "SELECT id, embedding FROM notes WHERE id = 'b'", "--json"]) == 0

    assert json.loads(capsys.readouterr().out) == [{"id": "b", "embedding": [0.0, 1.0]}]


def test_query_takes_parameters(file: str, tmp_path: Path, capsys: Capture) -> None:
    np.save(tmp_path / "q.npy", np.array([0, 1], np.float32))
    search = "SEARCH notes NEAR ? MATCH ? WHERE stars < ? K 1 RETURNING id"

    code = run(
        ["query", file, search, "--param", f"@{tmp_path / 'q.npy'}", "--param", "green pear"]
        + ["--param", "3", "--json"]
    )
    assert code == 0
    assert json.loads(capsys.readouterr().out) == [{"id": "b"}]

    named = "SELECT id FROM notes WHERE topic = :topic AND stars = :stars"
    assert run(["query", file, named, "--param", "topic=fruit", "--param", "stars=2"]) == 0
    assert "b" in capsys.readouterr().out


def test_query_writes_and_commits(file: str, capsys: Capture) -> None:
    assert run(["query", file, "DELETE FROM notes WHERE stars > 1"]) == 0
    assert capsys.readouterr().out == "2 rows changed\n"

    con = m2mdb.connect(file)
    assert con.collection("notes").count() == 2
    con.close()


def test_query_creates_a_file_for_create_only(path: Path, capsys: Capture) -> None:
    assert run(["query", str(path), "SELECT 1"]) == 1
    assert "no such file" in capsys.readouterr().err
    assert not path.exists()

    assert run(["query", str(path), "CREATE COLLECTION t (a INTEGER)"]) == 0
    assert path.exists()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("1.5", 1.5),
        ("true", True),
        ("null", None),
        ('"5"', "5"),
        ("five", "five"),
        ("NaN", "NaN"),
        ("[1, 2.5]", [1, 2.5]),
        ('["a"]', '["a"]'),
        ('{"a": 1}', '{"a": 1}'),
    ],
)
def test_parameters_are_json_or_text(text: str, value: object) -> None:
    assert parameter(text) == value


BAD_ARRAYS: list[tuple[str, bytes | None, str]] = [
    ("absent.npy", None, "No such file"),
    ("text.txt", b"[1, 2]", "is no .npy file"),
    ("empty.npy", b"", "is no .npy file"),
    ("zip.npz", b"PK\x03\x04", "is no .npy file"),
    ("pickle.npy", pickle.dumps([1, 2]), "is no .npy file"),
    ("header.npy", b"\x93NUMPY\x01\x00", "damaged .npy file"),
    ("version.npy", b"\x93NUMPY\x09\x00" + b"x" * 99, "damaged .npy file"),
    ("garbage.npy", b"\x93NUMPY\x01\x00\x08\x00{{{{{{{{", "damaged .npy file"),
]


@pytest.mark.parametrize(("name", "content", "words"), BAD_ARRAYS)
def test_a_parameter_that_is_no_array_is_one_line(
    file: str, tmp_path: Path, capsys: Capture, name: str, content: bytes | None, words: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)

    assert run(["query", file, "SELECT ?", "--param", f"@{tmp_path / name}"]) == 1

    printed = capsys.readouterr().err
    assert printed.startswith(f"m2mdb: parameter @{tmp_path / name}: ")
    assert words in printed
    assert len(printed.splitlines()) == 1
    assert "allow" not in printed


def test_a_parameter_of_objects_or_texts_is_refused(
    file: str, tmp_path: Path, capsys: Capture
) -> None:
    np.save(tmp_path / "objects.npy", np.array([None, 1]), allow_pickle=True)
    np.save(tmp_path / "texts.npy", np.array(["a", "b"]))
    for name, words in (("objects", "holds Python objects"), ("texts", "holds <U1")):
        given = f"@{tmp_path / name}.npy"
        assert run(["query", file, "SELECT ?", "--param", given]) == 1
        printed = capsys.readouterr().err
        assert printed == f"m2mdb: parameter {given}: {words}; wanted are numbers\n"


def test_errors_exit_with_1_and_usage_with_2(file: str, capsys: Capture) -> None:
    assert run(["query", file, "SELECT nothing FROM notes"]) == 1
    assert capsys.readouterr().err.startswith("m2mdb: ")
    assert run(["query", file, "SELECT ?", "--param", "@absent.npy"]) == 1
    assert "absent.npy" in capsys.readouterr().err
    assert run(["query"]) == 2
    assert run(["no-such-command"]) == 2
    assert run([]) == 2
    assert run(["--help"]) == 0
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"m2mdb {m2mdb.__version__}"


def test_info(file: str, capsys: Capture) -> None:
    assert run(["info", file, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bytes"] == Path(file).stat().st_size
    assert found["commit"] >= 2
    assert [(c["name"], c["rows"]) for c in found["collections"]] == [("notes", 4)]
    assert found["collections"][0]["columns"]["embedding"] == "VECTOR(2) METRIC cosine"

    assert run(["info", file]) == 0
    printed = capsys.readouterr().out
    assert "id TEXT PRIMARY KEY, body TEXT FULLTEXT" in printed
    assert "commit" in printed


def test_check_finds_a_flipped_bit(file: str, capsys: Capture) -> None:
    assert run(["check", file]) == 0
    assert capsys.readouterr().out == f"{file}: ok\n"

    raw = bytearray(Path(file).read_bytes())
    raw[-4096 + 100] ^= 1
    Path(file).write_bytes(raw)

    assert run(["check", file, "--json"]) == 1


def test_a_file_that_may_only_be_read_is_read(file: str, capsys: Capture) -> None:
    Path(file).chmod(0o400)

    assert run(["check", file]) == 0
    assert run(["query", file, "SELECT count(*) FROM notes"]) == 0


def test_the_module_runs_and_survives_a_closed_pipe(file: str) -> None:
    command = f"{sys.executable} -m m2mdb query {file} 'SELECT * FROM notes' | head -c 1"

    found = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )

    assert found.returncode == 0
    assert found.stderr == ""


@pytest.mark.parametrize("command", ["query", "import"])
def test_help_explains_each_option_and_shows_examples(command: str, capsys: Capture) -> None:
    assert run([command, "--help"]) == 0

    printed = capsys.readouterr().out
    assert f"  m2mdb {command} notes.m2m" in printed
    options = re.findall(r"^  (--?\w[\w-]*|[A-Z]+)(.*)\n(.*)", printed, re.MULTILINE)
    assert len(options) >= 3
    for name, rest, following in options:
        assert len(rest.split("  ")) > 1 or following.startswith(" " * 20), name
    assert max(map(len, printed.splitlines())) <= 100


def test_what_could_not_be_checked_is_not_called_damaged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["check", str(tmp_path / "none.m2m")]) == 2
    assert run(["check", str(tmp_path)]) == 2
    assert "no such file" in capsys.readouterr().err
    (tmp_path / "text.m2m").write_text("no database" * 1000)
    assert run(["check", str(tmp_path / "text.m2m")]) == 1


def test_warmup_compiles_and_says_where(capsys: Capture) -> None:
    assert run(["warmup"]) == 0

    told = capsys.readouterr().out
    found = re.fullmatch(r"kernels are compiled and cached in (.+) \(\d+\.\d s\)\n", told)
    assert found is not None
    folder = Path(found[1])
    assert folder.is_dir() and list(folder.rglob("*.nbi"))
    assert folder.stat().st_mode & 0o077 == 0
