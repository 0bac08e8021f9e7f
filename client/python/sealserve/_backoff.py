"""Which failures pass, and how long to wait before the next try. Neither gRPC nor a clock here."""

import random

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
