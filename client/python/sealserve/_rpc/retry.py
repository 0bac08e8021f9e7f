"""Which failures pass, and how long to wait before the next try. Neither gRPC nor a clock here."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

from sealserve import errors
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
"""Errors of a service that may do later what it does not now; each has a retry delay."""

BROKEN = (UnavailableError, DeadlineError, IdleTimeoutError)
"""Errors of a stream that another one does not share."""

CHANGED = (StaleConfigError, KeyNotFoundError)
"""Errors of an item that was made for what is no longer so: made anew, or with its key there again, it can go on."""

ELSEWHERE = (UnavailableError, DrainingError)
"""Errors that another connection, hence perhaps another process of the service, may not share."""

FIRST_CONTACT_SECONDS = 1.0
"""How long to look for a service that has never answered: long enough if one of its processes is just dying."""

_BREAK_SECONDS = 0.05
# What a wait grows to when the service asks for less: a few attempts a timeout, or a client could starve.
_MAX_GROWN_SECONDS = 2.0
_GROWTH = 1.5
_MAX_EXPONENT = 30


def delay_seconds(error: SealserveError | None, failures: int) -> float:
    """Return how long to wait after so many failures in a row, the last one with the error.

    Ever longer, and not all clients at once: else those that were refused together come back together.
    """
    growth = _GROWTH ** min(failures - 1, _MAX_EXPONENT)
    if isinstance(error, BUSY):
        least = max(_BREAK_SECONDS, error.retry_delay_seconds)
        return max(least, min(least * growth, _MAX_GROWN_SECONDS)) * random.uniform(1.0, 2.0)  # noqa: S311  # no secret
    return min(_BREAK_SECONDS * growth, _MAX_GROWN_SECONDS) * random.uniform(0.5, 1.5)  # noqa: S311  # no secret


T = TypeVar("T")


class Patience:
    """How long to go on with something that fails in a way that may pass.

    Args:
        seconds: for all attempts together.
        unanswered_seconds: for as long as nothing answers at all; by default that is no error that passes.
    """

    def __init__(self, seconds: float, unanswered_seconds: float | None = None) -> None:
        unanswered = () if unanswered_seconds is None else (errors.UnavailableError,)
        # The end of the time passes to who says why there was none: see `delay_seconds`.
        self.passing = (*BUSY, *unanswered, errors.DeadlineError)
        self._failure: errors.SealserveError | None = None
        now = time.monotonic()
        self._end = now + seconds
        self._unanswered_end = now + min(seconds, unanswered_seconds or 0.0)
        self._failures = 0

    @property
    def seconds_left(self) -> float:
        """For the next attempt."""
        return max(0.0, self._end - time.monotonic())

    def delay_seconds(self, error: errors.SealserveError) -> float:
        """Return how long to wait after a failure.

        Raises:
            SealserveError: the error, when no time is left for another attempt; if that is all that it says, the one
                before.
        """
        if isinstance(error, errors.DeadlineError):
            raise error if self._failure is None else self._failure
        self._failure = error
        self._failures += 1
        delay = delay_seconds(error, self._failures)
        end = self._unanswered_end if isinstance(error, errors.UnavailableError) else self._end
        if time.monotonic() + delay >= end:
            raise error
        return delay


def retried(act: Callable[[float], T], patience: Patience) -> T:
    """Act, with the seconds that are left, and again after a delay when a failure may pass.

    Raises:
        SealserveError: what the last attempt raised.
    """
    while True:
        try:
            return act(patience.seconds_left)
        except patience.passing as error:
            time.sleep(patience.delay_seconds(error))
