"""The compiled search for each kind of processor that this one can imitate.

Numba is told to compile for less than the processor has; layouts do not depend on it, so the same
tests have to pass.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
KINDS = {
    "avx512 without vnni": ("skylake-avx512", "+avx512f,+avx512bw,+avx512vl,+avx2,+fma,+ssse3"),
    "avx2": ("haswell", "+avx2,+avx,+fma,+ssse3,+sse4.1,+sse4.2,+popcnt"),
    "ssse3": ("nehalem", "+ssse3,+sse4.1,+sse4.2,+popcnt"),
    "portable": ("x86-64", "-ssse3"),
}
WIDTHS = {"avx512 without vnni": 64, "avx2": 32, "ssse3": 16, "portable": 0}
has_features = sys.platform == "linux" and " avx512bw " in Path("/proc/cpuinfo").read_text()


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="imitates x86-64 processors")
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_answers_for_this_processor(kind: str, tmp_path: Path) -> None:
    if kind.startswith("avx512") and not has_features:
        pytest.skip("this processor has no AVX-512BW")
    name, features = KINDS[kind]
    environment = {
        **os.environ,
        "NUMBA_CPU_NAME": name,
        "NUMBA_CPU_FEATURES": features,
        "M2MDB_CACHE_DIR": str(tmp_path),
    }
    program = "from m2mdb.compute.hrm2 import simd; print(simd.WIDTH, simd.VNNI)"
    said = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == [str(WIDTHS[kind]), "False"]
    chosen = ["tests/compute/hrm2/test_search.py", "-k", "same_steps or any_dimension"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *chosen],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-3000:]
