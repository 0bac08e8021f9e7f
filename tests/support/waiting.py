"""Waiting for a condition, with a bound."""

import time
from collections.abc import Callable

from tests.support.serving import HANG_SECONDS


def wait_until(condition: Callable[[], object], seconds: float = HANG_SECONDS) -> None:
    """Wait until a condition holds; fail if it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
