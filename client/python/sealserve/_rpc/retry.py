"""Retries: which failures may pass, and how long to wait before the next attempt. No gRPC here."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from sealserve.errors import (
    DeadlineError,
    DrainingError,
    IdleTimeoutError,
    KeyNotFoundError,
    KeyStoreUnavailableError,
    QuotaExceededError,
    SealserveError,
    StaleConfigError,
    UnavailableError,
)

BUSY = (QuotaExceededError, DrainingError, KeyStoreUnavailableError)
"""Errors of a service that may do later what it refuses now; each has a retry delay."""

BROKEN = (UnavailableError, DeadlineError, IdleTimeoutError)
"""Errors of one stream that another stream may not meet."""

CHANGED = (StaleConfigError, KeyNotFoundError)
"""Errors of an item whose model or key has changed: made anew, or once registered, it can go on."""

ON_ANOTHER_CONNECTION = (UnavailableError, DrainingError)
"""Errors that another connection, and so perhaps another process of the service, may not meet."""

MAX_CHANGES = 4
"""How often a client follows a change of the model: processes do not change at one instant."""

FIRST_CONTACT_SECONDS = 1.0
"""How long to look for a service that has never answered: enough if a process is just dying."""

_BREAK_SECONDS = 0.05
# What a wait grows to when the service asks for less: a few attempts a timeout, or a client could
# starve.
_MAX_GROWN_SECONDS = 2.0
_GROWTH = 1.5
_MAX_EXPONENT = 30


def delay_seconds(error: SealserveError | None, failures: int) -> float:
    """Return how long to wait after so many failures in a row, the last one with the error.

    The delays grow, and differ from client to client: otherwise clients that were refused together
    would come back together.
    """
    growth = _GROWTH ** min(failures - 1, _MAX_EXPONENT)
    if isinstance(error, BUSY):
        least = max(_BREAK_SECONDS, error.retry_delay_seconds)
        return max(least, min(least * growth, _MAX_GROWN_SECONDS)) * random.uniform(1.0, 2.0)  # noqa: S311  # no secret
    return min(_BREAK_SECONDS * growth, _MAX_GROWN_SECONDS) * random.uniform(0.5, 1.5)  # noqa: S311  # no secret


@dataclass
class RetryBudget:
    """How long to retry a call that fails in a way that may pass.

    Attributes:
        seconds: for all attempts together.
        began: when the first attempt began, by time.monotonic().
        unanswered_seconds: for as long as nothing answers at all; None if that is not to be
            retried.
    """

    seconds: float
    began: float
    unanswered_seconds: float | None = None
    _failures: int = 0
    _last_failure: SealserveError | None = None

    @property
    def retryable(self) -> tuple[type[SealserveError], ...]:
        """The errors to retry. The end of the time is one: `spend` raises the failure before it."""
        unanswered = () if self.unanswered_seconds is None else (UnavailableError,)
        return (*BUSY, *unanswered, DeadlineError)

    @property
    def seconds_left(self) -> float:
        """How long the next attempt may take."""
        return max(0.0, self.began + self.seconds - time.monotonic())

    def spend(self, failure: SealserveError) -> float:
        """Count a failure, and return how long to wait before the next attempt.

        Raises:
            SealserveError: the failure, if it does not pass or no time is left for another attempt.
                Where it says only that the time is up, the failure before it, if there is one.
        """
        if not isinstance(failure, self.retryable):
            raise failure
        if isinstance(failure, DeadlineError):
            raise failure if self._last_failure is None else self._last_failure
        self._last_failure = failure
        self._failures += 1
        delay = delay_seconds(failure, self._failures)
        seconds = self.seconds
        if isinstance(failure, UnavailableError):
            seconds = min(seconds, self.unanswered_seconds or 0.0)
        if time.monotonic() + delay >= self.began + seconds:
            raise failure
        return delay


T = TypeVar("T")


def run_with_retries(act: Callable[[float], T], seconds: float, unanswered_seconds: float | None = None) -> T:
    """Act, with the seconds that are left, and again after a delay when a failure may pass.

    Raises:
        SealserveError: what `RetryBudget.spend` raises.
    """
    budget = RetryBudget(seconds, time.monotonic(), unanswered_seconds)
    while True:
        try:
            return act(budget.seconds_left)
        except SealserveError as error:
            delay = budget.spend(error)
        time.sleep(delay)
