"""The simulator bites: a small correct log survives every crash, and each planted bug is found."""

from __future__ import annotations

import struct
from random import Random

import pytest
import xxhash

from m2mdb.pager.sim_vfs import SimVfs
from tests.sim.history import History

RECORD = struct.Struct("<IQ")  # length of the text, checksum of the text


class ToyLog:
    """Texts in a file, each appended with length and checksum, synced, then acknowledged."""

    def __init__(self, vfs: SimVfs, bugs: frozenset[str]) -> None:
        self.bugs = bugs
        new = not vfs.exists("d/toy")
        self.file = vfs.open("d/toy", create=True)
        if new and "no sync_dir" not in bugs:
            vfs.sync_dir("d/toy")
        self.texts: list[bytes] = []
        self.end = 0
        self._replay()

    def _replay(self) -> None:
        raw = self.file.read_at(0, self.file.size())
        while self.end + RECORD.size <= len(raw):
            size, checksum = RECORD.unpack_from(raw, self.end)
            text = raw[self.end + RECORD.size :][:size]
            if not size or (
                "no checksum" not in self.bugs
                and (len(text) < size or xxhash.xxh3_64_intdigest(text) != checksum)
            ):
                break
            self.texts.append(text)
            self.end += RECORD.size + size
        if "torn tail kept" not in self.bugs:
            self.file.truncate(self.end)
        self.file.sync()

    def append(self, text: bytes) -> None:
        record = RECORD.pack(len(text), xxhash.xxh3_64_intdigest(text)) + text
        end = self.file.size() if "torn tail kept" in self.bugs else self.end
        if "header last" in self.bugs:
            self.file.write_at(end + RECORD.size, text)
            self.file.write_at(end, record[: RECORD.size])
        else:
            self.file.write_at(end, record)
        self.end = end + len(record)
        if "no sync" not in self.bugs:
            self.file.sync()


def explore(bugs: frozenset[str]) -> str:
    """Crash at every point, and once more in the second run; the first wrong finding, or ''."""
    vfs = SimVfs(1)
    history: History[tuple[bytes, ...]] = History(vfs, ())
    log = ToyLog(vfs, bugs)
    for number in range(4):
        text = bytes([65 + number]) * (700 + 3000 * number)
        history.begin((*history.states[-1], text))
        log.append(text)
        history.acknowledge()
    for point in range(vfs.io_points + 1):
        for image in vfs.crash_images(point, Random(point), 12):
            machine = image.vfs()
            found = ToyLog(machine, bugs)
            if tuple(found.texts) not in history.after_crash(point):
                return f"{image}"
            found.append(b"more")
            expected = [*found.texts, b"more"]
            for second in machine.crash_images(machine.io_points, Random(point), 3):
                if ToyLog(second.vfs(), bugs).texts != expected:
                    return f"{image}, then {second}"
    return ""


def test_a_correct_log_survives_every_crash() -> None:
    assert explore(frozenset()) == ""
    assert explore(frozenset({"header last"})) == ""


@pytest.mark.parametrize("bug", ["no sync", "no sync_dir", "no checksum", "torn tail kept"])
def test_each_planted_bug_is_found(bug: str) -> None:
    assert explore(frozenset({bug})) != ""


def test_without_a_checksum_no_order_of_writes_helps() -> None:
    assert explore(frozenset({"no checksum", "header last"})) != ""
