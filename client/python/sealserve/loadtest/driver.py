"""LoadDriver: threads that load a service, at a rate or so many calls at a time."""

import gc
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from sealserve.errors import DrainingError, KeyStoreUnavailableError, QuotaExceededError, SealserveError
from sealserve.loadtest.ledger import EndedRequest, Ledger, Outcome
from sealserve.protocol.item import EncryptedReply

_PAUSE_SECONDS = 0.1  # after a failure: one user of many would not come back at once, either
_BUSY = (QuotaExceededError, DrainingError, KeyStoreUnavailableError)


class LoadDriver:
    """Makes calls in threads, one a caller, and records their outcomes.

    Args:
        callers: each sends an item and returns its reply.
        ledger: records the outcomes.
        seconds: how long calls are begun.
        warm_up_seconds: how long calls are begun before, uncounted.
        due_times: when calls are due, from -warm_up_seconds on: an open loop, in which calls that
            are due while all callers are busy are sent late and count as begun in time. None: a
            closed loop, in which every caller makes its next call when it has the answer to the one
            before.
    """

    def __init__(
        self,
        callers: Sequence[Callable[[], EncryptedReply]],
        ledger: Ledger,
        seconds: float,
        *,
        warm_up_seconds: float = 0.0,
        due_times: Iterator[float] | None = None,
    ) -> None:
        self._ledger = ledger
        self._seconds = seconds
        self._due_times = due_times
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._failure: Exception | None = None
        self._threads = [
            threading.Thread(target=self._run, args=(caller,), name="sealserve-load", daemon=True) for caller in callers
        ]
        # A pass of the garbage collector over all that is imported takes 0.1 s, in which nothing is
        # sent or received. It must not be counted as the service's time.
        gc.collect()
        gc.freeze()
        self._begin = time.perf_counter() + warm_up_seconds
        for thread in self._threads:
            thread.start()

    @property
    def now(self) -> float:
        """Seconds since the measurement began."""
        return time.perf_counter() - self._begin

    def wait(self, timeout_seconds: float) -> bool:
        """Wait until all calls have ended; False if the time is up before.

        Raises:
            Exception: a caller raised anything but a SealserveError.
        """
        end = time.monotonic() + timeout_seconds
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        if self._failure:
            raise self._failure
        return not any(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """Begin no more calls."""
        self._stopped.set()

    def _run(self, caller: Callable[[], EncryptedReply]) -> None:
        try:
            while (due := self._next_due()) is not None and not self._stopped.wait(max(0.0, due - self.now)):
                pause_seconds = self._call(caller, due)
                if self._due_times is None:
                    self._stopped.wait(max(0.0, min(pause_seconds, self._seconds - self.now)))
        except Exception as error:
            self._failure = error
            self.stop()

    def _next_due(self) -> float | None:
        if self._due_times is None:
            return now if (now := self.now) < self._seconds else None
        with self._lock:
            return next(self._due_times, None)

    def _call(self, caller: Callable[[], EncryptedReply], due: float) -> float:
        """Make a call that is due; return how long to wait before the next, in a closed loop."""
        begun = self.now
        try:
            reply = caller()
        except SealserveError as error:
            outcome = Outcome.REFUSED if isinstance(error, _BUSY) else Outcome.FAILED
            self._ledger.add(EndedRequest(due, begun, self.now, outcome, type(error).__name__))
            return error.retry_delay_seconds if isinstance(error, _BUSY) else _PAUSE_SECONDS
        self._ledger.add(
            EndedRequest(
                due,
                begun,
                self.now,
                Outcome.ANSWERED,
                row_count=reply.header.row_count,
                request_bytes=reply.request_bytes,
                reply_bytes=reply.reply_bytes,
                server_seconds=reply.server_seconds,
            )
        )
        return 0.0
