"""Recover: every row whose bytes verify is saved, none is invented, and what is lost is told."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import m2mdb
from m2mdb.cli import run
from m2mdb.recovering import recover, text
from tests.face.salvage_model import Map, Model, Piece, plain, rows_of

Capture = pytest.CaptureFixture[str]
ROUNDS = int(os.environ.get("M2M_SALVAGE_ROUNDS", "10"))
PAGE = 4096


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model(tmp_path_factory.mktemp("salvage") / "model.m2m", 1)


@pytest.fixture(scope="module")
def map_(model: Model) -> Map:
    return Map(model.path)


def damage(raw: bytearray, rng: np.random.Generator) -> tuple[bytearray, np.ndarray]:
    """Damaged bytes, and which of them are as they were."""
    before = np.frombuffer(bytes(raw), np.uint8)
    kind = int(rng.integers(0, 5))
    pages = len(raw) // PAGE
    for _ in range(int(rng.integers(1, 8))):
        page = int(rng.integers(0, pages))
        if kind == 0:
            raw[int(rng.integers(0, len(raw)))] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            raw[page * PAGE : (page + 1) * PAGE] = bytes(PAGE)
        elif kind == 2:
            raw[page * PAGE : (page + 1) * PAGE] = rng.bytes(PAGE)
        elif kind == 3:  # the small pages, where the trees are
            low = int(rng.integers(0, 12))
            raw[low * PAGE + int(rng.integers(0, PAGE))] ^= 1 << int(rng.integers(0, 8))
        else:
            start = int(rng.integers(0, len(raw)))
            raw[start : start + int(rng.integers(1, 200_000))] = b""
            raw += bytes(len(before) - len(raw)) if rng.random() < 0.5 else b""
            break
    after = np.frombuffer(bytes(raw), np.uint8)[: len(before)]
    return raw, after == before[: len(after)]


def saved_rows(path: Path) -> dict[str, dict[int, Any]]:
    con = m2mdb.connect(path, compute="numpy")
    found = {c.name: rows_of(con, c.name) for c in con.collections()}
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    con.close()
    return found


def check_saved(
    model: Model, map_: Map, good: np.ndarray, path: Path, report: dict[str, Any]
) -> None:
    """Hold what was saved against what was there."""
    found = saved_rows(path)
    nameless = [name for name in found if name.startswith("recovered")]
    every = {(rowid, row) for versions in model.versions.values() for rowid, row in versions}
    for name, rows in found.items():
        versions = every if name in nameless else model.versions[name]
        for rowid, row in rows.items():
            assert (rowid, row) in versions, f"invented: {name} {rowid} {row}"
    whole = map_.whole(good)
    for name, rowid in whole:
        wanted = model.live[name][rowid]
        places = [found.get(name, {}), *(found[other] for other in nameless)]
        assert any(rows.get(rowid) == wanted for rows in places), f"missing: {name} {rowid}"
    for name, rows in found.items():
        if name in model.live and all(piece.is_whole(good) for piece in map_.changes[name]):
            assert set(rows) <= set(model.live[name]), f"deleted rows of {name} are back"
    told = {each["name"]: each for each in report["collections"]}
    assert {name: each["saved"] for name, each in told.items()} == {
        name: len(rows) for name, rows in found.items()
    }
    for name, live in model.live.items():
        lost = len(set(live) - set(found.get(name, {})))
        each = told.get(name)
        if lost and each is not None:
            told_of = each["lost"] + each["lost_entries"] + each["refused"]
            assert told_of >= lost or each["more_may_be_lost"], f"{lost} rows of {name} are untold"
        elif lost:
            assert report["collections_may_be_missing"]


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_what_verifies_is_saved_and_nothing_is_invented(
    model: Model, map_: Map, tmp_path: Path, seed: int
) -> None:
    raw, good = damage(bytearray(map_.raw), np.random.default_rng(seed))
    damaged = tmp_path / "damaged.m2m"
    damaged.write_bytes(raw)

    report = recover(str(damaged), str(tmp_path / "new.m2m"))

    check_saved(model, map_, good, tmp_path / "new.m2m", report)
    assert damaged.read_bytes() == raw
    assert sorted(os.listdir(tmp_path)) == ["damaged.m2m", "new.m2m"]
    assert text(report)


def test_a_file_that_is_whole_is_saved_whole(model: Model, tmp_path: Path, capsys: Capture) -> None:
    assert run(["recover", str(model.path), str(tmp_path / "new.m2m")]) == 0

    assert "nothing is damaged" in capsys.readouterr().out
    assert saved_rows(tmp_path / "new.m2m") == model.live
    pair = [m2mdb.connect(path) for path in (model.path, tmp_path / "new.m2m")]
    assert list(pair[0].iterdump()) == list(pair[1].iterdump())
    for con in pair:
        con.close()


@pytest.mark.parametrize("what", ["page 1", "catalog", "free map", "all three"])
def test_lost_roots_cost_no_row(model: Model, map_: Map, tmp_path: Path, what: str) -> None:
    raw = bytearray(map_.raw)
    pieces = {
        "page 1": [Piece(0, PAGE)],
        "catalog": map_.catalog,
        "free map": map_.free_map,
        "all three": [Piece(0, PAGE), *map_.catalog, *map_.free_map],
    }
    for start, stop in pieces[what]:
        raw[start:stop] = bytes(stop - start)
    (tmp_path / "damaged.m2m").write_bytes(raw)

    report = recover(str(tmp_path / "damaged.m2m"), str(tmp_path / "new.m2m"))

    found = saved_rows(tmp_path / "new.m2m")
    for name, live in model.live.items():
        assert found[name].items() >= live.items()
        if what != "all three":
            assert found[name] == live
    assert report["damage"] and report["complete"] is (what in ("page 1", "free map"))


@pytest.mark.parametrize("size", [PAGE, 5 * PAGE + 17, 40 * PAGE, -1, -PAGE])
def test_a_cut_file_gives_what_is_left(model: Model, map_: Map, tmp_path: Path, size: int) -> None:
    raw = map_.raw[:size]
    (tmp_path / "damaged.m2m").write_bytes(raw)
    good = np.ones(len(raw), bool)

    if size == PAGE:  # page 1 alone
        report = recover(str(tmp_path / "damaged.m2m"), str(tmp_path / "new.m2m"))
        assert report["collections"] == [] and "no collection was found" in text(report)
        return
    report = recover(str(tmp_path / "damaged.m2m"), str(tmp_path / "new.m2m"))

    check_saved(model, map_, good, tmp_path / "new.m2m", report)
    assert not report["complete"] or size == -1


# ------------------------------------------------------------------------- with a log


def left_open(tmp_path: Path) -> dict[int, Any]:
    """A file and its log as a kill leaves them, in tmp_path/left.m2m; its rows."""
    con = m2mdb.connect(tmp_path / "open.m2m", autocommit=True, compute="numpy")
    con.execute("CREATE TABLE t (a TEXT, n INTEGER)")
    con.executemany("INSERT INTO t VALUES (?, ?)", [(f"row {i}", i) for i in range(300)])
    con.execute("PRAGMA wal_checkpoint(truncate)")
    for i in range(20):
        con.execute("INSERT INTO t VALUES (?, ?)", (f"new {i}", 1000 + i))
        con.execute("DELETE FROM t WHERE n = ?", (i,))
        con.execute("UPDATE t SET a = 'changed' WHERE n = ?", (100 + i,))
    rows = rows_of(con, "t")
    for suffix in ("", "-wal"):
        shutil.copy(tmp_path / f"open.m2m{suffix}", tmp_path / f"left.m2m{suffix}")
    con.close()
    return rows


def test_the_log_counts_and_makes_up_for_pages_of_the_file(tmp_path: Path) -> None:
    rows = left_open(tmp_path)
    report = recover(str(tmp_path / "left.m2m"), str(tmp_path / "a.m2m"))
    assert report["complete"] and not report["damage"]
    assert saved_rows(tmp_path / "a.m2m") == {"t": rows}

    raw = bytearray((tmp_path / "left.m2m").read_bytes())
    log = (tmp_path / "left.m2m-wal").read_bytes()
    for at in range(512, len(log) - 32, PAGE + 32):
        number = int.from_bytes(log[at : at + 4], "little")
        raw[max(number - 1, 0) * PAGE :][:PAGE] = b""
        if number:
            raw[(number - 1) * PAGE : number * PAGE] = bytes(PAGE)
    raw[:PAGE] = bytes(PAGE)
    (tmp_path / "left.m2m").write_bytes(raw)
    report = recover(str(tmp_path / "left.m2m"), str(tmp_path / "b.m2m"))

    assert saved_rows(tmp_path / "b.m2m") == {"t": rows}


@pytest.mark.parametrize("seed", range(6))
def test_a_damaged_log_costs_changes_and_invents_none(tmp_path: Path, seed: int) -> None:
    rows = left_open(tmp_path)
    rng = np.random.default_rng(seed)
    log = bytearray((tmp_path / "left.m2m-wal").read_bytes())
    frames = log.rstrip(b"\0")
    at = int(rng.integers(0, 512 if seed % 4 == 0 else len(frames)))
    log[at] ^= 1 << int(rng.integers(0, 8))
    (tmp_path / "left.m2m-wal").write_bytes(log)

    report = recover(str(tmp_path / "left.m2m"), str(tmp_path / "new.m2m"))

    found = saved_rows(tmp_path / "new.m2m")["t"]
    texts = {"changed", *(f"row {i}" for i in range(300)), *(f"new {i}" for i in range(20))}
    for rowid, (a, n) in found.items():
        assert a in texts and n == (rowid - 1 if rowid <= 300 else 1000 + rowid - 301)
    assert found == rows or report["damage"]
    if at < 512:
        assert found == rows  # the frames tell themselves


def test_a_missing_log_is_told(tmp_path: Path) -> None:
    left_open(tmp_path)
    (tmp_path / "left.m2m-wal").unlink()

    report = recover(str(tmp_path / "left.m2m"), str(tmp_path / "new.m2m"))

    assert any("left.m2m-wal is missing" in each for each in report["damage"])
    assert len(saved_rows(tmp_path / "new.m2m")["t"]) == 300


def test_a_commit_that_was_never_whole_is_not_brought_back(tmp_path: Path) -> None:
    """Left-over frames of a failed commit verify one by one, and yet were never committed."""
    left_open(tmp_path)
    log = bytearray((tmp_path / "left.m2m-wal").read_bytes())
    size = PAGE + 32
    offsets = [at for at in range(512, len(log) - size + 1, size) if any(log[at : at + 4])]
    last = int.from_bytes(log[offsets[-1] + 8 : offsets[-1] + 16], "little")
    of_last = [at for at in offsets if int.from_bytes(log[at + 8 : at + 16], "little") == last]
    log[of_last[0] : of_last[0] + 32] = bytes(32)  # as the next writer does it (S8)
    (tmp_path / "left.m2m-wal").write_bytes(log)

    recover(str(tmp_path / "left.m2m"), str(tmp_path / "new.m2m"))

    found = saved_rows(tmp_path / "new.m2m")["t"]
    assert found[120][0] == "row 119", "the last commit changed it, and was erased"


# ------------------------------------------------------------------------- made-up names


def test_segments_without_a_description_are_saved_under_made_up_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of older builds have none: their segments tell numbers, texts and vectors apart."""
    with monkeypatch.context() as older:
        older.setattr("m2mdb.index.maintenance.describe_segment", lambda *_, **__: b"")
        model = Model(tmp_path / "a.m2m", 3, commits=4)
    map_ = Map(model.path)
    raw = bytearray(map_.raw)
    for start, stop in map_.catalog + map_.changes["notes"]:
        raw[start:stop] = bytes(stop - start)
    (tmp_path / "damaged.m2m").write_bytes(raw)

    report = recover(str(tmp_path / "damaged.m2m"), str(tmp_path / "new.m2m"))

    names = {each["name"] for each in report["collections"]}
    found = saved_rows(tmp_path / "new.m2m")
    assert {"people", "logs"} <= names and found["people"] == model.live["people"]
    rows = {row for name in names - {"people", "logs"} for row in found[name].items()}
    assert len(rows) >= 1600 and rows <= model.versions["notes"]
    assert report["collections_may_be_missing"]


# ------------------------------------------------------------------------- wrong input


def test_wrong_input_is_one_line(model: Model, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "text").write_bytes(b"no database" * 5000)
    (tmp_path / "empty").write_bytes(b"")
    shutil.copy(model.path, tmp_path / "copy.m2m")
    copy, new = str(tmp_path / "copy.m2m"), str(tmp_path / "new.m2m")
    newer = bytearray((tmp_path / "copy.m2m").read_bytes())
    newer[13:14] = b"2"
    from xxhash import xxh3_64_intdigest

    newer[504:512] = xxh3_64_intdigest(bytes(newer[:504])).to_bytes(8, "little")
    (tmp_path / "newer.m2m").write_bytes(newer)
    before = sorted(os.listdir(tmp_path))

    for arguments, words in [
        ([str(tmp_path / "absent"), new], "no such file"),
        ([str(tmp_path), new], "directory"),
        ([str(tmp_path / "text"), new], "no page of any size"),
        ([str(tmp_path / "empty"), new], "no page of any size"),
        ([str(tmp_path / "newer.m2m"), new], "this build reads up to format 1"),
        ([copy, copy], "exists"),
        ([copy, str(tmp_path / "text")], "exists"),
        ([copy, str(tmp_path / "no" / "new")], "no such file"),
    ]:
        assert run(["recover", *arguments]) == 2
        printed = capsys.readouterr()
        assert words in printed.err and len(printed.err.splitlines()) == 1, (arguments, printed)
        assert sorted(os.listdir(tmp_path)) == before
    assert run(["recover", copy]) == 2


def test_an_interrupted_recovery_leaves_nothing(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("m2mdb.recovering._insert", interrupted)
    assert run(["recover", str(model.path), str(tmp_path / "new.m2m")]) == 1

    assert os.listdir(tmp_path) == []


def test_the_report_is_json_and_exits_with_1_where_something_is_damaged(
    map_: Map, tmp_path: Path, capsys: Capture
) -> None:
    raw = bytearray(map_.raw)
    raw[-1] ^= 1
    raw[3 * PAGE + 50] ^= 1
    (tmp_path / "damaged.m2m").write_bytes(raw)

    code = run(["recover", str(tmp_path / "damaged.m2m"), str(tmp_path / "new.m2m"), "--json"])

    report = json.loads(capsys.readouterr().out)
    assert code == 1 and report["damage"]
    assert {each["name"] for each in report["collections"]} == {"notes", "people", "logs"}
    assert plain(np.zeros(1, np.int8)) == b"\0"
