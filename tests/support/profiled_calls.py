"""Profiled calls: which functions run, to compare the paths that values take."""

import gc
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def calls_of(act: Callable[[], object]) -> list[str]:
    """The functions that are called, NumPy's included, in order."""
    calls: list[str] = []

    def observe(frame: FrameType, event: str, argument: Any) -> None:
        calls.append(argument.__name__ if event == "c_call" else f"{event} {frame.f_code.co_name}:{frame.f_lineno}")

    gc.collect()
    gc.disable()  # a collection calls finalizers of what earlier tests left
    sys.setprofile(observe)
    try:
        act()
    finally:
        sys.setprofile(None)
        gc.enable()
    return calls
