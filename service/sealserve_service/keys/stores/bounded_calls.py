"""Calls that end in time, whatever waits beneath them: name resolution, a token, an answer of one byte a second."""

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import ContextVar
from typing import TypeVar

Result = TypeVar("Result")

# When the bounded call that runs in this context is given up: seconds of the monotonic clock.
_end: ContextVar[float] = ContextVar("end", default=math.inf)


def refuse_late(*_: object) -> None:
    """Let a call go on to its next step, whatever that is, only while somebody waits for it.

    Raises:
        TimeoutError: it has been given up, so that what it would do now could contradict what was done since.
    """
    if time.monotonic() >= _end.get():
        raise TimeoutError


class BoundedCalls:
    """Runs each call on a thread of its own and gives up those that take too long.

    A call that is given up goes on until its own time-outs or `refuse_late` end it. At most max_calls are under way,
    those included, and no exit of the process waits for them.
    """

    def __init__(self, timeout_seconds: float, max_calls: int = 64) -> None:
        self._timeout_seconds = timeout_seconds
        self._slots = threading.Semaphore(max_calls)

    def run(self, call: Callable[[], Result]) -> Result:
        """Return what the call returns, or raise what it raises.

        Raises:
            TimeoutError: it took too long, or too many calls are under way.
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
