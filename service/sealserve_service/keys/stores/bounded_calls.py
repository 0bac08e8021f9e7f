"""Bounded calls: they end in time, even if name resolution, a token or an answer is slow."""

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import ContextVar
from typing import TypeVar

Result = TypeVar("Result")

# When the bounded call that runs in this context is given up, in time.monotonic() seconds.
_end: ContextVar[float] = ContextVar("end", default=math.inf)


def refuse_late(*_: object) -> None:
    """Refuse the next step of a call that has been given up.

    Raises:
        TimeoutError: nobody waits for the call any more: its next step could contradict what was
            done since.
    """
    if time.monotonic() >= _end.get():
        raise TimeoutError


class BoundedCalls:
    """Runs each call on a thread of its own, and gives up a call that takes too long.

    A call that is given up continues until its own time-outs or `refuse_late` end it. At most
    max_calls are under way, including these. The exit of the process does not wait for them.
    """

    def __init__(self, timeout_seconds: float, max_calls: int = 64) -> None:
        self._timeout_seconds = timeout_seconds
        self._slots = threading.Semaphore(max_calls)

    def run(self, call: Callable[[], Result]) -> Result:
        """Return what the call returns, or raise what it raises.

        Raises:
            TimeoutError: the call took too long, or too many calls are under way.
        """
        end = time.monotonic() + self._timeout_seconds
        if not self._slots.acquire(timeout=self._timeout_seconds):
            raise TimeoutError
        future: Future[Result] = Future()

        def run() -> None:
            _end.set(end)  # a thread has a context of its own
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)
            finally:
                self._slots.release()

        threading.Thread(target=run, name="bounded-call", daemon=True).start()
        return future.result(max(0.0, end - time.monotonic()))
