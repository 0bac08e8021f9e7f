"""The calls in flight: so many at most, and in the orderly end no new ones."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future

from sealserve.errors import DrainingError, QuotaExceededError

RETRY_SECONDS = 1.0


class Drain:
    """Counts calls in flight, up to max_calls and, once begun, lets no more in.

    gRPC's own shutdown ends calls that arrive while it begins with CANCELLED: it comes after this.
    """

    def __init__(self, max_calls: int) -> None:
        self._max_calls = max_calls
        self.begun: Future[None] = Future()
        self._changed = threading.Condition()
        self._calls = 0
        self._to_wake: list[Callable[[], None]] = []

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """Be a call in flight.

        Raises:
            DrainingError: the end has begun.
            QuotaExceededError: there are too many.
        """
        with self._changed:
            if self.begun.done():
                raise DrainingError(RETRY_SECONDS)
            if self._calls >= self._max_calls:
                raise QuotaExceededError("concurrent_calls", RETRY_SECONDS)
            self._calls += 1
        try:
            yield
        finally:
            with self._changed:
                self._calls -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def heard(self, wake: Callable[[], None]) -> Iterator[None]:
        """Have `wake` called when the end begins, or at once if it has."""
        with self._changed:
            self._to_wake.append(wake)
        try:
            if self.begun.done():
                wake()
            yield
        finally:
            with self._changed:
                self._to_wake.remove(wake)

    def begin(self) -> None:
        """Refuse what comes from now on."""
        with self._changed:
            if self.begun.done():
                return
            self.begun.set_result(None)
            to_wake = list(self._to_wake)
        for wake in to_wake:
            wake()

    def wait(self, timeout_seconds: float) -> None:
        """Wait until no call is in flight, or the time is up."""
        with self._changed:
            self._changed.wait_for(lambda: self._calls == 0, timeout_seconds)
