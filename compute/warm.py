"""The program of the child that compiles the kernels: `python -m m2mdb.compute.warm [FOLDER]`."""

from __future__ import annotations

import os
import sys

from m2mdb.compute.loader import compile_here, kernel_folder

NICENESS = 5  # the parent's searches go first


def main(folder: str | None = None) -> None:
    """Compile every kernel into the cache folder."""
    os.nice(NICENESS)
    compile_here(kernel_folder() if folder is None else folder)


if __name__ == "__main__":
    main(*sys.argv[1:2])
