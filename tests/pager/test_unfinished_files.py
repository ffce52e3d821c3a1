"""A file whose making was interrupted is collected without a word."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from m2mdb.pager.memory_vfs import MemoryFile
from m2mdb.pager.os_vfs import OsFile


@pytest.mark.parametrize("kind", [OsFile, MemoryFile])
@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_before_the_first_attribute_is_no_second_error(kind: Any) -> None:
    kind.__new__(kind).__del__()

    kind.__new__(kind)
    gc.collect()
