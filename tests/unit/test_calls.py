"""What gRPC's failures mean, and for how long to try again."""

from typing import Any

import grpc
import pytest

from sealserve import errors
from sealserve._backoff import delay_seconds
from sealserve._calls import Patience, translated


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
        (grpc.StatusCode.UNAVAILABLE, "Socket closed", errors.UnavailableError),
        (grpc.StatusCode.CANCELLED, "CANCELLED", errors.UnavailableError),
        (grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 2", errors.UnavailableError),
        (grpc.StatusCode.UNKNOWN, "Stream removed", errors.UnavailableError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded!", errors.QuotaExceededError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max", errors.CallError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", errors.DeadlineError),
        (grpc.StatusCode.UNAUTHENTICATED, "", errors.UnauthenticatedError),
        (grpc.StatusCode.UNIMPLEMENTED, "Method not found!", errors.CallError),
        (grpc.StatusCode.INTERNAL, "", errors.CallError),
    ],
)
def test_a_bare_status_has_a_meaning(code: grpc.StatusCode, details: str, meaning: type[Exception]) -> None:
    assert type(translated(Failure(code, details))) is meaning


BUSY = errors.QuotaExceededError("rows_per_minute", 1.0)
GONE = errors.UnavailableError("gone")


def test_patience_has_an_end_for_the_busy_and_one_for_the_silent() -> None:
    patience = Patience(60.0, 0.0)
    assert 1.0 <= patience.delay_seconds(BUSY) <= 2.0
    with pytest.raises(errors.UnavailableError):
        patience.delay_seconds(GONE)
    with pytest.raises(errors.QuotaExceededError):
        Patience(0.5).delay_seconds(BUSY)
    assert Patience(60.0, 60.0).delay_seconds(GONE) < 1.0


def test_the_silent_are_waited_for_only_if_asked() -> None:
    assert not issubclass(errors.UnavailableError, Patience(60.0).passing)
    assert issubclass(errors.UnavailableError, Patience(60.0, 1.0).passing)


@pytest.mark.parametrize("error", [None, GONE, BUSY, errors.DrainingError(1.0), errors.DrainingError(-5.0)])
def test_delays_are_at_least_what_was_asked_for_and_never_nothing(error: errors.SealserveError | None) -> None:
    for failures in (1, 2, 10, 10_000):
        delays = [delay_seconds(error, failures) for _ in range(20)]
        assert min(delays) >= max(0.02, getattr(error, "retry_delay_seconds", 0.0))
        assert len(set(delays)) > 1, "not all clients at once"
        if error in (None, GONE):
            assert max(delays) <= 3.0
