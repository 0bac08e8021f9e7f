"""Calls of a busy service: when the next attempt is made, and the error when the time runs out.

Errors of gRPC itself are translated.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from sealserve._rpc import retry, status
from sealserve.errors import (
    CallError,
    DeadlineError,
    DrainingError,
    QuotaExceededError,
    SealserveError,
    UnauthenticatedError,
    UnavailableError,
)

TIMEOUT_SECONDS = 30.0
BUSY = QuotaExceededError("server_seconds", 0.1)
LATE = DeadlineError("the answer did not come within timeout_seconds")


class Clock:
    """Time that passes only while somebody sleeps, or an attempt lasts."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.naps: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(retry, "time", clock)
    return clock


def attempts(clock: Clock, ends: Iterator[object], given: list[float]) -> Callable[[float], object]:
    """A call whose attempts end as given, one after the other.

    An attempt that is late lasts as long as it may.
    """

    def act(left: float) -> object:
        given.append(left)
        end = next(ends)
        if isinstance(end, DeadlineError):
            clock.now += left
        if isinstance(end, SealserveError):
            raise end from ConnectionError("as gRPC says it")
        return end

    return act


def test_an_attempt_for_which_no_time_is_left_says_why_there_was_none(clock: Clock) -> None:
    """The error is that the service is busy, as it has said, not that the call came too late."""
    given: list[float] = []
    with pytest.raises(QuotaExceededError) as caught:
        retry.run_with_retries(attempts(clock, iter([BUSY, BUSY, LATE]), given), TIMEOUT_SECONDS)
    assert caught.value.retry_delay_seconds == 0.1
    assert isinstance(caught.value.__cause__, ConnectionError)
    assert len(given) == 3
    assert clock.now == pytest.approx(1000.0 + TIMEOUT_SECONDS)


def test_nor_does_the_end_of_the_time_hide_that_nothing_answers(clock: Clock) -> None:
    gone = UnavailableError("gone")
    with pytest.raises(UnavailableError):
        retry.run_with_retries(attempts(clock, iter([gone, LATE]), []), TIMEOUT_SECONDS, TIMEOUT_SECONDS)


def test_the_last_reason_is_the_one_that_is_said(clock: Clock) -> None:
    stopping = DrainingError(1.0)
    with pytest.raises(DrainingError):
        retry.run_with_retries(attempts(clock, iter([BUSY, stopping, LATE]), []), TIMEOUT_SECONDS)


def test_a_first_attempt_that_comes_too_late_is_just_that(clock: Clock) -> None:
    with pytest.raises(DeadlineError):
        retry.run_with_retries(attempts(clock, iter([LATE]), []), TIMEOUT_SECONDS)
    assert clock.naps == []


def test_no_attempt_is_made_after_the_time(clock: Clock) -> None:
    given: list[float] = []
    with pytest.raises(QuotaExceededError):
        retry.run_with_retries(attempts(clock, itertools.repeat(BUSY), given), TIMEOUT_SECONDS)
    assert min(given) > 0
    assert clock.now < 1000.0 + TIMEOUT_SECONDS


@pytest.mark.parametrize("luck", [0.0, 1.0], ids=["short", "long"])
def test_waits_grow_but_not_for_ever(clock: Clock, monkeypatch: pytest.MonkeyPatch, luck: float) -> None:
    """A client of a busy service asks again often enough not to starve, however late it is."""
    monkeypatch.setattr("random.uniform", lambda low, high: low + luck * (high - low))
    given: list[float] = []
    with pytest.raises(QuotaExceededError):
        retry.run_with_retries(attempts(clock, itertools.repeat(BUSY), given), TIMEOUT_SECONDS)
    longest = retry._MAX_GROWN_SECONDS * (1 + luck)
    assert clock.naps[0] == pytest.approx(0.1 * (1 + luck))
    assert clock.naps == sorted(clock.naps)
    assert clock.naps[-1] == pytest.approx(longest)
    assert given[-1] <= longest, "the time that is left has been used"


def test_no_wait_is_shorter_than_the_service_asks_for(clock: Clock) -> None:
    ends = iter([*[BUSY] * 12, QuotaExceededError("rows_per_minute", 9.0), "scores"])
    assert retry.run_with_retries(attempts(clock, ends, []), 60.0) == "scores"
    assert 9.0 <= clock.naps[-1] <= 18.0


GONE = UnavailableError("gone")


def budget(seconds: float, unanswered_seconds: float | None = None) -> retry.RetryBudget:
    return retry.RetryBudget(seconds, time.monotonic(), unanswered_seconds)


def test_a_budget_has_an_end_for_the_busy_and_one_for_the_silent() -> None:
    some = budget(60.0, 0.0)
    assert some.spend(BUSY) >= 0.1
    with pytest.raises(UnavailableError):
        some.spend(GONE)
    with pytest.raises(QuotaExceededError):
        budget(0.05).spend(BUSY)
    assert budget(60.0, 60.0).spend(GONE) < 1.0


def test_the_silent_are_waited_for_only_if_asked() -> None:
    assert not issubclass(UnavailableError, budget(60.0).retryable)
    assert issubclass(UnavailableError, budget(60.0, 1.0).retryable)
    with pytest.raises(UnavailableError):
        budget(60.0).spend(GONE)


# What gRPC says


class Failure:
    """A failed call, as gRPC raises it, without a typed error."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        """Its status."""
        return self._code

    def details(self) -> str:
        """Its text."""
        return self._details

    def trailing_metadata(self) -> Any:
        """None."""
        return None


@pytest.mark.parametrize(
    ("code", "details", "meaning"),
    [
        (grpc.StatusCode.UNAVAILABLE, "Socket closed", UnavailableError),
        (grpc.StatusCode.CANCELLED, "CANCELLED", UnavailableError),
        (grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 2", UnavailableError),
        (grpc.StatusCode.UNKNOWN, "Stream removed", UnavailableError),
        (grpc.StatusCode.INTERNAL, "Internal error from Core", UnavailableError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded!", QuotaExceededError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max", CallError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", DeadlineError),
        (grpc.StatusCode.UNAUTHENTICATED, "", UnauthenticatedError),
        (grpc.StatusCode.UNIMPLEMENTED, "Method not found!", CallError),
        (grpc.StatusCode.INTERNAL, "", CallError),
    ],
)
def test_a_bare_status_has_a_meaning(code: grpc.StatusCode, details: str, meaning: type[Exception]) -> None:
    assert type(status.typed_error(Failure(code, details))) is meaning
