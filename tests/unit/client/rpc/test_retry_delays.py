"""How long to wait after a failure."""

import itertools

import pytest

from sealserve import errors
from sealserve._rpc.retry import change_delay_seconds, delay_seconds, goes_on

BUSY = errors.QuotaExceededError("rows_per_minute", 1.0)
GONE = errors.UnavailableError("gone")


@pytest.mark.parametrize("error", [None, GONE, BUSY, errors.QuotaExceededError("q", -5.0)])
def test_delays_are_at_least_what_was_asked_for_and_never_nothing(error: errors.SealserveError | None) -> None:
    for failures in (1, 2, 10, 10_000):
        delays = [delay_seconds(error, failures) for _ in range(20)]
        assert min(delays) >= max(0.02, getattr(error, "retry_delay_seconds", 0.0))
        assert len(set(delays)) > 1, "not all clients at once"
        if error in (None, GONE):
            assert max(delays) <= 3.0


def test_another_replica_is_asked_soon_and_one_that_is_alone_ever_later() -> None:
    """Before, a stream stood still for the 1 to 2 s that the stopping replica asked for."""
    for asked in (-5.0, 0.0, 1.0):
        delays = [[delay_seconds(errors.DrainingError(asked), failures) for _ in range(50)] for failures in range(1, 6)]
        assert min(map(min, delays)) >= 0.005
        assert sum(map(max, delays)) <= 0.25, "five attempts, of which each may reach the same replica again"
    assert min(delay_seconds(errors.DrainingError(1.0), 15) for _ in range(50)) >= 0.95
    assert max(delay_seconds(errors.DrainingError(1.0), 10_000) for _ in range(50)) <= 4.0
    assert delay_seconds(errors.DrainingError(60.0), 1) >= 60.0
    assert len({delay_seconds(errors.DrainingError(1.0), 1) for _ in range(20)}) > 1, "not all clients at once"


def test_two_changes_are_followed_at_once_and_others_after_growing_delays() -> None:
    assert [change_delay_seconds(changes) for changes in (1, 2)] == [0.0, 0.0]
    delays = [min(change_delay_seconds(changes) for _ in range(20)) for changes in (3, 8, 13, 18, 10_000)]
    assert all(later >= 3 * earlier for earlier, later in itertools.pairwise(delays[:4]))
    assert 0.001 <= delays[0] <= 0.003
    assert 1.0 <= delays[-1] <= 3.0


@pytest.mark.parametrize("period", range(1, 9))
def test_no_order_in_which_replicas_take_turns_keeps_a_client_from_its_answer(period: int) -> None:
    """Each order of two versions, from each place in it; the client begins with either."""
    worst = 0
    for order in itertools.product((0, 1), repeat=period):
        for start in range(period):
            turns = itertools.islice(itertools.cycle(order), start, None)
            mine, is_first = 0, True
            for changes, replica in enumerate(turns):
                if replica == mine:
                    worst = max(worst, changes)
                    break
                if is_first or goes_on(changes):
                    mine, is_first = replica, False
                assert changes < 3 * period + 3
    assert worst >= 1
