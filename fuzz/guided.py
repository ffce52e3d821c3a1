"""Coverage-guided fuzzing of one target, with atheris where it is installed.

    python -m fuzz.guided page -max_total_time=60 -seed=1

atheris instruments the product's modules as they are imported, and libFuzzer keeps every input
that reaches something new. It never returns, so a round runs it as a process of its own and reads
what it printed at the end.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
_DONE = re.compile(r"stat::number_of_executed_units:\s*(\d+)")
_SLOW = 2  # seconds of real time after which libFuzzer reports an input
_MEMORY = 4096  # MiB


def is_available() -> bool:
    """Whether atheris is installed."""
    return importlib.util.find_spec("atheris") is not None


def guided(name: str, seed: int, seconds: float) -> int:
    """Executions of a target in so many seconds; AssertionError with the input of a finding."""
    with tempfile.TemporaryDirectory() as folder:
        call = [
            sys.executable, "-m", "fuzz.guided", name, folder, f"-max_total_time={int(seconds)}",
            f"-seed={seed % 2**31 + 1}", f"-timeout={_SLOW}", f"-rss_limit_mb={_MEMORY}",
            "-print_final_stats=1", f"-artifact_prefix={folder}/found-", "-max_len=16384",
        ]  # fmt: skip
        ran = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
        artifacts = sorted(Path(folder).glob("found-*"))
        shown = [f"{path.name}: {path.read_bytes().hex()}" for path in artifacts]
    assert ran.returncode == 0 and not artifacts, (
        f"atheris, target {name}, seed {seed}: {ran.stderr[-3000:]}\n{shown}"
    )
    counts = _DONE.findall(ran.stderr)
    assert counts, f"atheris, target {name}: no statistics in {ran.stderr[-1000:]}"
    return int(counts[-1])


def main() -> None:
    """Fuzz one target for ever, or for as long as libFuzzer's options say."""
    import atheris

    with atheris.instrument_imports(include=["m2mdb"]):
        from fuzz.targets import TARGETS
    target = TARGETS[sys.argv[1]]
    folder = Path(sys.argv[2])
    for number, data in enumerate(target.seeds[:200]):
        (folder / f"seed-{number}").write_bytes(data)
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    atheris.Setup([sys.argv[0], *sys.argv[3:], str(folder)], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
