"""LoadDriver: threads that load a service, at a rate or with a number of callers."""

import gc
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from sealserve._rpc.retry import BUSY
from sealserve.errors import ReplyError, SealserveError
from sealserve.loadtest.ledger import EndedRequest, Ledger, Outcome
from sealserve.protocol.item import EncryptedReply

_PAUSE_SECONDS = 0.1  # after a failure: a real user would not retry at once, either


class LoadDriver:
    """Makes calls in threads, one a caller, and records their outcomes.

    Args:
        callers: functions that each send an item and return its reply.
        ledger: records the outcomes.
        seconds: for how long calls are begun.
        warm_up_seconds: for how long calls are begun before that, without being counted.
        due_times: the seconds at which calls are due, from -warm_up_seconds on. This is an open
            loop: calls that are due while all callers are busy are sent late, and their latency
            counts from when they were due. None: a closed loop, in which each caller makes its next
            call when its last one is answered.
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
        # The garbage collector takes 0.1 s to go through all that is imported. Nothing is sent or
        # received meanwhile, which must not count as the service's time.
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
        """Wait until all calls have ended. Return False if the timeout ends first.

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
        """Make a call that is due. Return the seconds to wait before the next, in a closed loop."""
        begun = self.now
        try:
            reply = caller()
        except SealserveError as error:
            outcome = Outcome.REFUSED if isinstance(error, BUSY) else Outcome.FAILED
            self._ledger.add(EndedRequest(due, begun, self.now, outcome, type(error).__name__))
            if isinstance(error, ReplyError):  # no pause, as the service must not learn what it decrypts to
                return 0.0
            return error.retry_delay_seconds if isinstance(error, BUSY) else _PAUSE_SECONDS
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
