"""How long to wait after a failure."""

import pytest

from sealserve import errors
from sealserve._rpc.retry import delay_seconds

BUSY = errors.QuotaExceededError("rows_per_minute", 1.0)
GONE = errors.UnavailableError("gone")


@pytest.mark.parametrize("error", [None, GONE, BUSY, errors.DrainingError(1.0), errors.DrainingError(-5.0)])
def test_delays_are_at_least_what_was_asked_for_and_never_nothing(error: errors.SealserveError | None) -> None:
    for failures in (1, 2, 10, 10_000):
        delays = [delay_seconds(error, failures) for _ in range(20)]
        assert min(delays) >= max(0.02, getattr(error, "retry_delay_seconds", 0.0))
        assert len(set(delays)) > 1, "not all clients at once"
        if error in (None, GONE):
            assert max(delays) <= 3.0
