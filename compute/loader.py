"""Loading the compiled kernels: in the background, cached on disk, and in nobody's way.

    idle --start--> compiling --the child is done--> importing --> ready
                        |                                |
                        +------- any error --------------+-----> failed: NumPy for good, one warning

Importing Numba takes a good part of a second and compiling takes seconds, so a thread does it
while NumPy answers. Compiling is left to a child process, which fills the cache on disk: it would
hold this interpreter's lock for much of the time. The cache folder is the user's own, one for each
version of m2mdb, of its kernels, of Python and Numba, and for each processor.

Invariants
    L1  Importing this module imports neither Numba nor logging, subprocess, tempfile or shutil.
    L2  Code is loaded only from a folder that belongs to this user and that no one else can write.
    L3  Nothing waits for the compiling child: not an exit of the interpreter, which leaves the
        child to finish the cache, and not a fork. Both wait for an import that is under way.
    L4  A forked child starts over, unless the kernels were ready; a lock or a thread of its parent
        never blocks it.
    L5  `numba.config.CACHE_DIR` is ours only while one of our kernels is decorated.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import contextmanager
from functools import cache
from stat import S_ISDIR, S_ISVTX
from typing import TYPE_CHECKING

from m2mdb.version import VERSION

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from types import ModuleType
    from typing import Any, TypeVar

    T = TypeVar("T")

KERNELS = "m2mdb.compute.numba_kernels"
LIST_KERNELS = "m2mdb.compute.hrm2.kernels"  # imported with them, so that all are there or none
TRACING_KERNELS = "m2mdb.compute.hrm2.tracing"
CHOOSING_KERNELS = "m2mdb.compute.hrm2.choosing"
PRODUCT_KERNELS = "m2mdb.compute.hrm2.product_kernels"
BEST_KERNELS = "m2mdb.compute.hrm2.best_kernels"
CODING_KERNELS = "m2mdb.compute.hrm2.coding_kernels"
BATCH_KERNELS = "m2mdb.compute.hrm2.batch"
TEXT_KERNELS = "m2mdb.compute.text_kernels"
RANKING_KERNELS = "m2mdb.compute.ranking_kernels"
NARROW_KERNELS = "m2mdb.compute.narrow_kernels"
SEARCH_KERNELS = "m2mdb.compute.search_kernels"
HYBRID_KERNELS = "m2mdb.compute.hybrid_kernels"
GATHERED_KERNELS = "m2mdb.compute.gathered_kernels"
SOURCES = (  # that compiled code is made of
    "numba_kernels.py", "lanes.py", "pointers.py", "rounded.py",
    "hrm2/kernels.py", "hrm2/steps.py", "hrm2/simd.py",
    "hrm2/reference.py", "hrm2/tracing.py", "hrm2/choosing.py", "hrm2/batch.py",
    "hrm2/product_kernels.py", "hrm2/best_kernels.py", "hrm2/coding_kernels.py",
    "narrow_kernels.py", "delta_kernels.py", "ranking_kernels.py", "search_kernels.py",
    "text_kernels.py", "text_lists.py", "text_hits.py", "text_scratch.py", "text_blocks.py",
    "rank_fusion.py", "hybrid_kernels.py", "gathered_kernels.py",
)  # fmt: skip
COMPLETE = "complete"  # the file in a cache folder that says every kernel is in it
IMPORT_SECONDS = 10.0  # longest that an exit or a fork waits for an import under way
CHILD_SECONDS = 600.0  # a compiling child is given up after this
WARM_PROGRAM = (
    "import sys; sys.path += [p for p in sys.argv[2:] if p not in sys.path]; "
    "from m2mdb.compute.warm import main; main(sys.argv[1])"
)


class Loader:
    """Brings in the module of compiled kernels once, and says where it stands."""

    def __init__(self) -> None:
        """Nothing is loaded until `start`."""
        self.module: ModuleType | None = None  # the kernels, once ready; read without a lock
        self.error: BaseException | None = None
        self._reset()

    def _reset(self) -> None:
        """Forget threads and locks, which a forked child does not have (L4)."""
        self._lock = threading.Lock()
        self._gate = threading.Lock()  # held while modules are imported
        self._done = threading.Event()
        self._started = False
        self._is_closing = False
        if self.module is not None or self.error is not None:
            self._started = True
            self._done.set()

    def start(self) -> None:
        """Begin to load in the background, unless that was done before."""
        if self._started:
            return
        with self._lock:
            if self._started or self._is_closing:
                return
            self._started = True
            _follow_forks_and_exit()
            threading.Thread(target=self._run, name="m2mdb-kernels", daemon=True).start()

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Load now, and return once the kernels are ready (True) or failed or late (False)."""
        self.start()
        self._done.wait(timeout_seconds)
        return self.module is not None

    def _run(self) -> None:
        """The thread's work: fill the cache where it is empty, then import."""
        try:
            child = self._guarded(_spawn_if_empty)
            if child is not None:
                _wait(child)
            self.module = self._guarded(_import_kernels)
        except BaseException as error:
            self._fail(error)
        finally:
            self._done.set()

    def _guarded(self, work: Callable[[], T]) -> T | None:
        """Do work that imports modules: not amid a fork, and not any more at exit (L3, L4)."""
        with self._gate:
            return None if self._is_closing else work()

    def _fail(self, error: BaseException) -> None:
        """Stay with NumPy for good, and say so once."""
        self.error = error
        is_absent = isinstance(error, ModuleNotFoundError) and error.name in ("numba", "llvmlite")
        if self._is_closing or is_absent:
            return
        import warnings

        try:
            warnings.warn(
                f"m2mdb: compiled kernels are not available, NumPy is used instead: {error!r}",
                RuntimeWarning,
                stacklevel=2,
            )
        except RuntimeWarning:  # raised where warnings are errors; nobody in this thread to tell
            return

    def before_fork(self) -> None:
        """Let an import under way end (L3), so that the child inherits no half-made module."""
        self._gate_is_mine = self._gate.acquire(timeout=IMPORT_SECONDS)

    def after_fork_in_parent(self) -> None:
        """Let imports go on."""
        if self._gate_is_mine:
            self._gate.release()

    def after_fork_in_child(self) -> None:
        """Start over (L4); a child that inherits a half-made import stays with NumPy."""
        if not self._gate_is_mine:
            self.error = RuntimeError("forked while the kernels were being imported")
        self._reset()

    def close(self) -> None:
        """At exit: begin no import, and wait for one under way (L3)."""
        self._is_closing = True
        if self._gate.acquire(timeout=IMPORT_SECONDS):
            self._gate.release()


def _import_kernels() -> ModuleType:
    """Import Numba and the kernels."""
    import importlib

    if _settings().DISABLE_JIT:
        raise RuntimeError("NUMBA_DISABLE_JIT is set")
    importlib.import_module(LIST_KERNELS)
    importlib.import_module(TRACING_KERNELS)
    importlib.import_module(CHOOSING_KERNELS)
    importlib.import_module(PRODUCT_KERNELS)
    importlib.import_module(BEST_KERNELS)
    importlib.import_module(CODING_KERNELS)
    importlib.import_module(BATCH_KERNELS)
    importlib.import_module(TEXT_KERNELS)
    importlib.import_module(RANKING_KERNELS)
    importlib.import_module(NARROW_KERNELS)
    importlib.import_module(SEARCH_KERNELS)
    importlib.import_module(HYBRID_KERNELS)
    importlib.import_module(GATHERED_KERNELS)
    return importlib.import_module(KERNELS)


@contextmanager
def kernel_cache() -> Iterator[None]:
    """Point Numba's cache to our folder while one of our kernels is decorated (L5)."""
    settings = _settings()
    before = settings.CACHE_DIR
    settings.CACHE_DIR = kernel_folder()
    try:
        yield
    finally:
        settings.CACHE_DIR = before


def _settings() -> Any:
    """Numba's configuration module."""
    from numba import config

    return config


_folder: str | None = None


def kernel_folder() -> str:
    """The folder of compiled kernels for this version and processor; made if it is not there.

    M2MDB_CACHE_DIR, else XDG_CACHE_HOME/m2mdb, else ~/.cache/m2mdb; a temporary folder of this
    user where none of these can be written.
    """
    global _folder
    if _folder is None or not os.path.isdir(_folder):
        name = _folder_name()
        for base in _bases():
            path = os.path.join(base, name)
            if _is_usable(path):
                _folder = path
                break
        else:
            _folder = _private_folder()
    return _folder


def _folder_name() -> str:
    """A name that differs wherever compiled code may differ."""
    import hashlib
    from importlib import import_module
    from importlib.metadata import version

    binding = import_module("llvmlite.binding")
    here = os.path.abspath(__file__)
    source = b""
    for name in SOURCES:
        with open(os.path.join(os.path.dirname(here), name), "rb") as file:
            source += file.read()
    parts = [
        here,
        binding.get_host_cpu_name(),
        binding.get_host_cpu_features().flatten(),
        os.environ.get("NUMBA_CPU_NAME", ""),
        os.environ.get("NUMBA_CPU_FEATURES", ""),
        version("numba"),
        sys.version,
    ]
    digest = hashlib.sha256("\n".join(parts).encode() + source).hexdigest()[:16]
    return f"kernels-{VERSION}-{digest}"


def _bases() -> Iterator[str]:
    """Folders to try for the cache, best first."""
    given = os.environ.get("M2MDB_CACHE_DIR")
    if given:
        yield os.path.abspath(given)
    cache = os.environ.get("XDG_CACHE_HOME", "")
    yield os.path.join(cache if os.path.isabs(cache) else os.path.expanduser("~/.cache"), "m2mdb")
    import tempfile

    yield os.path.join(tempfile.gettempdir(), f"m2mdb-{os.getuid()}")


def _is_usable(path: str) -> bool:
    """Make the folder if needed; True if it is ours alone to write (L2) and can be written."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        os.makedirs(path, mode=0o700, exist_ok=True)
        status, above = os.lstat(path), os.stat(os.path.dirname(path))
        if status.st_uid != os.getuid() or status.st_mode & 0o022 or not S_ISDIR(status.st_mode):
            return False
        if above.st_mode & 0o002 and not above.st_mode & S_ISVTX:
            return False
        probe = os.path.join(path, f".probe-{os.getpid()}-{threading.get_ident()}")
        os.close(os.open(probe, os.O_CREAT | os.O_WRONLY, 0o600))
        os.unlink(probe)
    except OSError:
        return False
    return True


def _private_folder() -> str:
    """A new temporary folder for this process alone, removed at its exit."""
    import atexit
    import shutil
    import tempfile

    path = tempfile.mkdtemp(prefix="m2mdb-kernels-")
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def _can_spawn() -> bool:
    """True if this program is a plain Python, not one embedded or frozen, that can be run anew."""
    program = os.path.basename(sys.executable or "").lower()
    return "python" in program and not getattr(sys, "frozen", False)


def _spawn_if_empty() -> subprocess.Popen[bytes] | None:
    """Start the child that compiles, if kernels are missing; None if there is no need or no way."""
    folder = kernel_folder()
    if os.path.exists(os.path.join(folder, COMPLETE)) or not _can_spawn():
        return None
    import subprocess

    paths = [os.path.abspath(path) for path in sys.path]
    return subprocess.Popen(
        [sys.executable, "-P", "-c", WARM_PROGRAM, folder, *paths],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _wait(child: subprocess.Popen[bytes]) -> None:
    """Wait for the compiling child; RuntimeError if it fails or takes too long."""
    import subprocess

    try:
        status = child.wait(CHILD_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        status = child.wait()
    if status != 0:
        raise RuntimeError(f"compiling the kernels ended with exit status {status}")


def compile_here(folder: str) -> None:
    """Compile into the folder in this process; others that would do the same wait for us."""
    import fcntl

    global _folder
    _folder = folder
    with open(os.path.join(folder, "lock"), "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _import_kernels()
        with open(os.path.join(folder, COMPLETE), "wb"):
            pass


def warm() -> float:
    """Compile the kernels now if need be, and load them; returns the seconds it took."""
    started = time.perf_counter()
    folder = kernel_folder()
    if not os.path.exists(os.path.join(folder, COMPLETE)):
        compile_here(folder)
    LOADER.wait()
    if LOADER.error is not None:
        raise LOADER.error
    return time.perf_counter() - started


LOADER = Loader()


@cache
def _follow_forks_and_exit() -> None:
    """Have LOADER follow forks and the interpreter's exit, from its first start on.

    What Numba imports and follows forks itself is imported first. At a fork, the last to register
    is asked first: LOADER waits before any of their locks is taken, which an import may need.
    """
    import atexit
    import concurrent.futures.thread
    import logging

    assert logging and concurrent.futures.thread
    os.register_at_fork(
        before=LOADER.before_fork,
        after_in_parent=LOADER.after_fork_in_parent,
        after_in_child=LOADER.after_fork_in_child,
    )
    atexit.register(LOADER.close)
