"""The timed read: the next message of a call, or an error once it has taken too long.

gRPC's own read blocks without a limit.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

from sealserve.errors import ItemTimeoutError

M = TypeVar("M")

LOOK_SECONDS = 1.0
"""How often a wait looks whether it has become shorter."""


def read_timed(
    messages: Iterator[M], readers: Executor, began: float, allowed_seconds: Callable[[], float]
) -> M | None:
    """Return the next message, or None at the end.

    Args:
        messages: of the call. It blocks until the next message arrives.
        readers: has a thread for the read, which ends with the call.
        began: when the time began to run, by time.monotonic().
        allowed_seconds: returns how long it may take, which depends on how scarce slots are now.

    Raises:
        ItemTimeoutError: it took too long.
        Exception: what the messages raised.
    """
    return wait_timed(readers.submit(next, messages, None), began, allowed_seconds)


def wait_timed(message: "Future[M | None]", began: float, allowed_seconds: Callable[[], float]) -> M | None:
    """Return a message that is being read; see `read_timed`."""
    while True:
        seconds = allowed_seconds()
        left = began + seconds - time.monotonic()
        try:
            return message.result(max(0.0, min(left, LOOK_SECONDS)))
        except TimeoutError:
            if left <= 0:
                raise ItemTimeoutError(seconds) from None
