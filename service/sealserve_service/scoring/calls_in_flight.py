"""The calls in flight: a limited number at a time, and no new ones once the server stops."""

import contextlib
import threading
from collections.abc import Callable, Iterator

from sealserve.errors import DrainingError, QuotaExceededError
from sealserve_service.scoring.caller_slots import RETRY_SECONDS, WAITING_CALLS, CallerSlots, shortened
from sealserve_service.tenants.quota import Quota


class CallsInFlight:
    """Counts the calls in flight, admits at most max_calls, and admits none after `stop_admitting`.

    When gRPC's own shutdown begins, it ends arriving calls with CANCELLED. The server therefore
    begins it only after the last call that was admitted here has ended.

    Args:
        max_calls: in flight, together with those that wait for their request.
        waiting_calls: the latter. The server's stop does not wait for them.

    Attributes:
        count: of calls in flight.
        stopping: set once no more calls are admitted.
    """

    def __init__(self, max_calls: int, waiting_calls: CallerSlots | None = None) -> None:
        self._max_calls = max_calls
        self._waiting_calls = waiting_calls or CallerSlots(WAITING_CALLS, max_calls, Quota())
        self.stopping = threading.Event()
        self._changed = threading.Condition()
        self.count = 0
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
        if self.count + self._waiting_calls.held_count >= self._max_calls:
            raise QuotaExceededError("concurrent_calls", RETRY_SECONDS)

    @contextlib.contextmanager
    def admit(self) -> Iterator[None]:
        """Count a call while it is in the context.

        Raises:
            DrainingError, QuotaExceededError: as `check`.
        """
        with self._changed:
            self.check()
            self.count += 1
        try:
            yield
        finally:
            with self._changed:
                self.count -= 1
                self._changed.notify_all()

    def shortened(self, seconds: float) -> float:
        """Return how long a call may wait now for what usually may take so many seconds."""
        return shortened(seconds, self.count + self._waiting_calls.held_count, self._max_calls)

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
            self._changed.wait_for(lambda: self.count == 0, timeout_seconds)
