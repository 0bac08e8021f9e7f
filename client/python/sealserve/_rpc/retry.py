"""Retries: which errors are temporary, and how long to wait before the next attempt. No gRPC."""

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
    ResourceUnavailableError,
    SealserveError,
    StaleConfigError,
    UnavailableError,
)

BUSY = (QuotaExceededError, DrainingError, KeyStoreUnavailableError, ResourceUnavailableError)
"""Errors of a service that may accept later what it refuses now. Each has a retry delay."""

BROKEN = (UnavailableError, DeadlineError, IdleTimeoutError)
"""Errors that end one stream, while another stream may succeed."""

CHANGED = (StaleConfigError, KeyNotFoundError)
"""Errors of an item whose model has changed, or whose key the service has lost.

The item succeeds once it is made anew, or once the key is registered again.
"""

ON_ANOTHER_CONNECTION = (UnavailableError, DrainingError)
"""Errors after which to use another connection, which may reach another process of the service."""

MAX_LOSSES = 4
"""How often an item is sent again because the service has lost its key."""

FIRST_CONTACT_SECONDS = 1.0
"""How long to try to reach a service that has never answered: enough for one process to end."""

_BREAK_SECONDS = 0.05
_ELSEWHERE_SECONDS = 0.01
# A service that asks for more time than it takes to start again means all of its replicas.
_BRIEF_SECONDS = 10.0
# The longest delay, unless the service asks for more. It leaves a few attempts within a timeout, so
# that a client gets its turn.
_MAX_GROWN_SECONDS = 2.0
_GROWTH = 1.5
_MAX_EXPONENT = 30
# A change is no overload: another attempt may succeed at once.
_FREE_CHANGES = 2
_CHANGE_SECONDS = 0.002


def delay_seconds(error: SealserveError | None, failures: int) -> float:
    """Return how long to wait after so many failures in a row, of which `error` is the last.

    The delays grow. They are random, because clients that were refused together would otherwise
    retry together.
    """
    growth = _GROWTH ** min(failures - 1, _MAX_EXPONENT)
    # What stops asks for time until it is there again. Another connection may reach another
    # replica, which answers now. If all stop, the delays soon grow to what was asked for.
    first = _ELSEWHERE_SECONDS if isinstance(error, DrainingError) else _BREAK_SECONDS
    usual = min(first * growth, _MAX_GROWN_SECONDS) * random.uniform(0.5, 1.5)  # noqa: S311  # no secret
    if not isinstance(error, BUSY):
        return usual
    least = max(_BREAK_SECONDS, error.retry_delay_seconds)
    asked = max(least, min(least * growth, _MAX_GROWN_SECONDS)) * random.uniform(1.0, 2.0)  # noqa: S311  # no secret
    is_brief = isinstance(error, DrainingError) and least <= _BRIEF_SECONDS
    return min(usual, asked) if is_brief else asked


def change_delay_seconds(changes: int) -> float:
    """Return how long to wait after so many changes in a row that one item has met.

    There is no delay after the first two: a model has changed, or replicas of a service serve two
    versions of it. From the third change on the delays grow, so that a service that never agrees
    with its own descriptions is asked ever less often.
    """
    if changes <= _FREE_CHANGES:
        return 0.0
    growth = _GROWTH ** min(changes - _FREE_CHANGES - 1, _MAX_EXPONENT)
    return min(_CHANGE_SECONDS * growth, _MAX_GROWN_SECONDS) * random.uniform(0.5, 1.5)  # noqa: S311  # no secret


def goes_on(changes: int) -> bool:
    """Tell whether to go to the configuration that a replica names, though it was tried before.

    The other choice is to stay with the present one. Replicas that take turns could always answer
    for the other one: the client goes to the new version when the old replica has its turn. The
    choices are those of the Thue-Morse sequence, which keeps step with no order of turns.

    Args:
        changes: how many changes came before.
    """
    return changes.bit_count() % 2 == 0


@dataclass
class RetryBudget:
    """How long to retry a call that fails temporarily.

    Attributes:
        seconds: the time for all attempts together.
        began: when the first attempt began, by time.monotonic().
        unanswered_seconds: the time for all attempts while nothing answers; None: such a failure is
            not retried.
    """

    seconds: float
    began: float
    unanswered_seconds: float | None = None
    _failures: int = 0
    _last_failure: SealserveError | None = None

    @property
    def retryable(self) -> tuple[type[SealserveError], ...]:
        """The types of error that `spend` does not raise at once.

        DeadlineError is one of them, so that `spend` can raise the failure before it instead.
        """
        unanswered = () if self.unanswered_seconds is None else (UnavailableError,)
        return (*BUSY, *unanswered, DeadlineError)

    @property
    def seconds_left(self) -> float:
        """How long the next attempt may take."""
        return max(0.0, self.began + self.seconds - time.monotonic())

    def spend(self, failure: SealserveError) -> float:
        """Count a failure, and return how long to wait before the next attempt.

        Raises:
            SealserveError: the failure, if it is not to be retried or no time is left for another
                attempt. If it is a DeadlineError, the failure before it, if there is one.
        """
        if not isinstance(failure, self.retryable):
            raise failure
        if isinstance(failure, DeadlineError):
            raise _given_up(failure if self._last_failure is None else self._last_failure)
        self._last_failure = failure
        self._failures += 1
        delay = delay_seconds(failure, self._failures)
        seconds = self.seconds
        if isinstance(failure, UnavailableError):
            seconds = min(seconds, self.unanswered_seconds or 0.0)
        if time.monotonic() + delay >= self.began + seconds:
            raise _given_up(failure)
        return delay


def _given_up(failure: SealserveError) -> SealserveError:
    """Return what to raise after the last attempt.

    A service refuses an item at once if its turn would come after the call's deadline. To the
    caller this is a deadline that passed, not a quota.
    """
    if isinstance(failure, QuotaExceededError) and failure.quota == "deadline":
        return DeadlineError("the answer could not come within timeout_seconds")
    return failure


T = TypeVar("T")


def run_with_retries(act: Callable[[float], T], seconds: float, unanswered_seconds: float | None = None) -> T:
    """Call a function with the seconds that are left, and again after each temporary failure.

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
