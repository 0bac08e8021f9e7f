"""The calls in flight: a limited number at a time, and no new ones once the server stops."""

import contextlib
import threading
from collections.abc import Callable, Iterator

from sealserve.errors import DrainingError, QuotaExceededError
from sealserve_service.scoring.caller_slots import RETRY_SECONDS, shortened


class CallsInFlight:
    """Counts the calls in flight, admits at most max_calls, and admits none after `stop_admitting`.

    When gRPC's own shutdown begins, it ends arriving calls with CANCELLED. The server therefore
    begins it only after the last call that was admitted here has ended.

    Attributes:
        stopping: set once no more calls are admitted.
    """

    def __init__(self, max_calls: int) -> None:
        self._max_calls = max_calls
        self.stopping = threading.Event()
        self._changed = threading.Condition()
        self._count = self._waiting_count = 0
        self._on_stop: list[Callable[[], None]] = []

    def check(self) -> None:
        """Check that a call would be admitted now.

        A unary call is checked before its request is read, which takes time, and again by `admit`.

        Raises:
            DrainingError: the server stops.
            QuotaExceededError: there are too many calls.
        """
        if self.stopping.is_set():
            raise DrainingError(RETRY_SECONDS)
        self._check_room()

    def _check_room(self) -> None:
        if self._count + self._waiting_count >= self._max_calls:
            raise QuotaExceededError("concurrent_calls", RETRY_SECONDS)

    @contextlib.contextmanager
    def admit(self) -> Iterator[None]:
        """Count a call while it is in the context.

        Raises:
            DrainingError, QuotaExceededError: as `check`.
        """
        with self._changed:
            self.check()
            self._count += 1
        try:
            yield
        finally:
            with self._changed:
                self._count -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def wait(self) -> Iterator[None]:
        """Count a call that waits for its request, and hold one of max_calls, in the context.

        The server's stop does not wait for it.

        Raises:
            QuotaExceededError: there are too many calls.
        """
        with self._changed:
            self._check_room()
            self._waiting_count += 1
        try:
            yield
        finally:
            with self._changed:
                self._waiting_count -= 1

    def shortened(self, seconds: float) -> float:
        """Return how long a call may wait now for what usually may take so many seconds."""
        return shortened(seconds, self._count + self._waiting_count, self._max_calls)

    @contextlib.contextmanager
    def calling_on_stop(self, action: Callable[[], None]) -> Iterator[None]:
        """Call `action` when the server stops, or at once if it stops already."""
        with self._changed:
            self._on_stop.append(action)
        try:
            if self.stopping.is_set():
                action()
            yield
        finally:
            with self._changed:
                self._on_stop.remove(action)

    def stop_admitting(self) -> None:
        """Admit no more calls."""
        with self._changed:
            if self.stopping.is_set():
                return
            self.stopping.set()
            actions = list(self._on_stop)
        for action in actions:
            action()

    def wait_until_none(self, timeout_seconds: float) -> None:
        """Wait until no call is in flight, or the time is up."""
        with self._changed:
            self._changed.wait_for(lambda: self._count == 0, timeout_seconds)
