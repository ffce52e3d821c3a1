"""Interrupts at every step: between any two lines or bytecodes, as Ctrl-C comes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

LAYERS = ("/wal/", "/pager/btree", "/pager/freespace", "/pager/page", "/pager/extent")


class Interrupter:
    """Raises once, at the `at`-th line or bytecode that runs in the layers under test."""

    def __init__(self, at: int, *, opcodes: bool = False) -> None:
        self.left = at
        self.opcodes = opcodes
        self.struck = ""

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Any:
        if "/tests/" in frame.f_code.co_filename:
            return None
        if not any(layer in frame.f_code.co_filename for layer in LAYERS):
            return None
        if frame.f_code.co_name == "__del__":
            return None  # the interpreter swallows what a finaliser raises
        frame.f_trace_opcodes = self.opcodes
        frame.f_trace_lines = not self.opcodes
        return self._step

    def _step(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == ("opcode" if self.opcodes else "line"):
            self.left -= 1
            if self.left == 0:
                self.struck = f"{frame.f_code.co_qualname}:{frame.f_lineno}"
                raise KeyboardInterrupt(self.struck)
        return self._step


def interrupted(action: Callable[[], object], at: int, *, opcodes: bool = False) -> str:
    """Run an action with an interrupt; where it struck, or '' when the action had ended before."""
    interrupter = Interrupter(at, opcodes=opcodes)
    before = sys.gettrace()
    sys.settrace(interrupter)
    try:
        action()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return interrupter.struck
