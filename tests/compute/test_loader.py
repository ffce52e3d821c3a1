"""The loader: what is imported when, where the cache lies, and that it holds up nobody."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from m2mdb.compute import loader, numba_backend
from m2mdb.compute.backend import choose
from m2mdb.compute.loader import COMPLETE, Loader

SLOWEST_EXIT_SECONDS = 30.0


def run(program: str, folder: Path | None = None) -> str:
    """The output of a program in a fresh interpreter, which must end well and in time."""
    environment = dict(os.environ)
    if folder is not None:
        environment["M2MDB_CACHE_DIR"] = str(folder)
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=SLOWEST_EXIT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.fixture
def fresh_folder() -> Iterator[None]:
    """Forget which cache folder this process uses, before and after."""
    before, loader._folder = loader._folder, None
    yield
    loader._folder = before


def test_importing_the_backend_loads_no_numba() -> None:
    heavy = "numba", "llvmlite", "subprocess", "tempfile", "shutil", "concurrent.futures", "logging"
    program = (
        "import sys, numpy; before = set(sys.modules)\n"
        "import m2mdb.compute.backend as backend, m2mdb.compute.rescore\n"
        "rows = numpy.ones((9, 4), 'f4')\n"
        "backend.choose('auto').top_k(rows, None, rows[0], 2, 'l2')\n"
        f"print(sorted(set({heavy!r}) & (set(sys.modules) - before)))"
    )

    assert run(program) == "[]\n"


def test_the_second_large_search_starts_loading_and_small_ones_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started = []
    idle = Loader()
    monkeypatch.setattr(idle, "start", lambda: started.append(1))
    monkeypatch.setattr(numba_backend, "LOADER", idle)
    rows = np.ones((1000, 16), np.float32)
    backend = numba_backend.NumbaBackend(is_eager=False)
    for _ in range(3):
        backend.top_k(rows, None, rows[0], 3, "l2")
    assert not started

    monkeypatch.setattr(numba_backend, "LARGE_VALUES", 3 * rows.size)
    collector = backend.collector(rows[0], 3, "l2")
    for _ in range(3):
        collector.scan(rows, None, None, 0)
    assert not started
    backend.collector(rows[0], 3, "l2")
    assert started

    started.clear()
    numba_backend.NumbaBackend(is_eager=True).top_k(rows, None, rows[0], 3, "l2")
    assert started


def test_two_processes_may_warm_one_cache_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "kernels"
    folder.mkdir(mode=0o700)
    command = [sys.executable, "-m", "m2mdb.compute.warm", str(folder)]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(2)]
    for process in both:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors

    files = sorted(path.name for path in folder.rglob("*"))
    assert COMPLETE in files
    assert sum(name.endswith(".nbc") for name in files) > 5
    assert sum(name.endswith(".nbc") for name in files) == sum(
        name.endswith(".nbi") for name in files
    )

    program = (
        "import os, sys; from m2mdb.compute import loader\n"
        f"loader._folder = {str(folder)!r}\n"
        "assert loader.LOADER.wait(), loader.LOADER.error\n"
        "kernels = loader.LOADER.module\n"
        "print(sum(sum(f.stats.cache_misses.values()) for f in vars(kernels).values()"
        " if hasattr(f, 'stats')))"
    )
    assert run(program) == "0\n"
    assert sorted(path.name for path in folder.rglob("*")) == files


@pytest.mark.usefixtures("fresh_folder")
def test_the_cache_is_private_and_outside_the_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("M2MDB_CACHE_DIR", str(tmp_path / "given"))

    folder = Path(loader.kernel_folder())

    assert folder.parent == tmp_path / "given"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.usefixtures("fresh_folder")
def test_a_cache_folder_that_cannot_be_written_gives_way_to_a_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("M2MDB_CACHE_DIR", str(tmp_path / "file" / "below"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    folder = Path(loader.kernel_folder())

    assert folder.parent == tmp_path / f"m2mdb-{os.getuid()}"


@pytest.mark.usefixtures("fresh_folder")
def test_a_folder_that_others_may_write_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("M2MDB_CACHE_DIR", str(tmp_path / "given"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    planted = Path(loader.kernel_folder())
    planted.chmod(0o777)
    loader._folder = None

    assert Path(loader.kernel_folder()).parent == tmp_path / "cache" / "m2mdb"


def test_an_error_leaves_numpy_for_good_with_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError("no kernels today")

    monkeypatch.setattr(loader, "_import_kernels", fail)
    broken = Loader()
    monkeypatch.setattr(numba_backend, "LOADER", broken)
    rows = np.ones((10, 4), np.float32)

    with pytest.warns(RuntimeWarning, match="no kernels today") as seen:
        assert not broken.wait()
        assert not broken.wait()

    assert len(seen) == 1
    assert len(choose("numba").top_k(rows, None, rows[0], 3, "l2").ordinals) >= 3


def test_an_error_is_survived_where_warnings_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "_import_kernels", lambda: 1 // 0)
    broken = Loader()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not broken.wait()

    assert isinstance(broken.error, ZeroDivisionError)


def test_a_missing_numba_is_passed_over_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ModuleNotFoundError("No module named 'numba'", name="numba")

    monkeypatch.setattr(loader, "_import_kernels", missing)
    broken = Loader()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not broken.wait()

    assert isinstance(broken.error, ModuleNotFoundError)


@pytest.mark.usefixtures("fresh_folder")
def test_a_compiling_child_that_fails_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("M2MDB_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(loader, "WARM_PROGRAM", "raise SystemExit(3)")
    broken = Loader()

    with pytest.warns(RuntimeWarning, match="exit status 3"):
        assert not broken.wait()


def test_an_exit_does_not_wait_for_the_compiling_child(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    program = (
        "import threading\n"
        "from m2mdb.compute import loader\n"
        f"loader.WARM_PROGRAM = {f'open({str(gate)!r}).read()'!r}\n"
        "started, wait = threading.Event(), loader._wait\n"
        "loader._wait = lambda child: (started.set(), wait(child))\n"
        "loader.LOADER.start()\n"
        "started.wait()\n"
        "print('leaving')"
    )

    assert run(program, tmp_path / "cache") == "leaving\n"

    with gate.open("w"):  # lets the child go
        pass


def test_an_exit_amid_the_import_is_clean() -> None:
    loader.warm()
    for pause in ("pass", "loader.LOADER.wait(0.05)", "loader.LOADER.wait(0.2)"):
        program = f"from m2mdb.compute import loader; loader.LOADER.start(); {pause}"
        assert run(program) == ""


def test_a_forked_child_can_search_and_load() -> None:
    loader.warm()
    program = (
        "import os, warnings, numpy\n"
        "from m2mdb.compute import loader\n"
        "from m2mdb.compute.backend import choose\n"
        "warnings.simplefilter('ignore', DeprecationWarning)\n"
        "loader.LOADER.start()\n"
        "for ready in (False, True):\n"
        "    if ready: assert loader.LOADER.wait()\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        rows = numpy.ones((100, 8), 'f4')\n"
        "        found = choose('numba').top_k(rows, None, rows[0], 2, 'l2')\n"
        "        os._exit(0 if len(found.ordinals) == 100 and loader.LOADER.wait(20) else 1)\n"
        "    assert os.waitpid(child, 0)[1] == 0\n"
        "print('done')"
    )

    assert run(program) == "done\n"


def test_warm_says_how_long_it_took_and_leaves_the_kernels_loaded() -> None:
    seconds = loader.warm()

    assert seconds >= 0.0
    assert loader.LOADER.module is not None
    assert os.path.exists(os.path.join(loader.kernel_folder(), COMPLETE))


def test_numba_settings_of_the_program_are_left_alone() -> None:
    loader.warm()
    import numba

    config: Any = numba.config
    before = config.CACHE_DIR
    with loader.kernel_cache():
        assert loader.kernel_folder() == config.CACHE_DIR

    assert before == config.CACHE_DIR
