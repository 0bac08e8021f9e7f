"""The arithmetic of a load: due times, and what counts as how long."""

import numpy as np
import pytest

from sealserve.loadtest.ledger import EndedRequest, Ledger, Outcome, due_times, quantiles


def answered(due: float, begun: float, ended: float, **numbers: float) -> EndedRequest:
    return EndedRequest(due, begun, ended, Outcome.ANSWERED, **numbers)  # type: ignore[arg-type]  # ints where it wants them


def test_due_times_are_evenly_spaced_from_the_warm_up_on() -> None:
    assert list(due_times(4.0, -0.5, 1.0)) == [-0.5, -0.25, 0.0, 0.25, 0.5, 0.75]
    assert list(due_times(4.0, 0.0, 0.0)) == []


def test_due_times_at_random_have_the_rate_and_are_repeatable() -> None:
    times = np.array(list(due_times(100.0, 0.0, 50.0, seed=1)))
    assert len(times) == pytest.approx(5000, rel=0.06)
    gaps = np.diff(times)
    assert (gaps > 0).all()
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.1), "as of a Poisson process"
    assert list(due_times(100.0, 0.0, 50.0, seed=1)) == times.tolist()


def test_a_quantile_is_one_that_was_measured_and_never_too_small() -> None:
    ledger = Ledger()
    for number in range(1, 101):
        ledger.add(answered(0.0, 0.0, number / 1000))
    found = ledger.summary()["latency_ms"]
    assert found == pytest.approx({"p50": 51, "p90": 91, "p99": 100, "p99.9": 100, "max": 100})
    assert quantiles(type(ledger._delays)("d")) == {}


def test_latency_counts_from_the_due_time() -> None:
    """One answer takes a second; ten are due behind it, a tenth apart, and are sent late.

    None of them was quick.
    """
    ledger = Ledger()
    ledger.add(answered(0.0, 0.0, 1.0))
    for number in range(1, 11):
        ledger.add(answered(number / 10, 1.0, 1.0 + number / 1000))
    summary = ledger.summary()
    assert summary["latency_ms"]["p50"] == pytest.approx(505)
    assert summary["sent_late_ms"]["max"] == pytest.approx(900)
    assert summary["seconds"] == pytest.approx(1.01)


def test_what_warms_up_does_not_count() -> None:
    ledger = Ledger()
    ledger.add(answered(-0.1, -0.1, 5.0, row_count=3))
    assert ledger.summary(2.0)["sent"] == 0
    assert ledger.summary(2.0)["seconds"] == 2.0


def test_refusals_and_failures_are_counted_by_type_and_have_times_of_their_own() -> None:
    ledger = Ledger()
    ledger.add(answered(0.0, 0.0, 0.5, row_count=8, request_bytes=800, reply_bytes=80, server_seconds=0.25))
    for _ in range(3):
        ledger.add(EndedRequest(0.0, 0.0, 0.001, Outcome.REFUSED, "QuotaExceededError"))
    ledger.add(EndedRequest(0.0, 0.0, 2.0, Outcome.FAILED, "DeadlineError"))
    summary = ledger.summary(4.0)
    assert (summary["sent"], summary["answered"]) == (5, 1)
    assert (summary["refused"], summary["failed"]) == ({"QuotaExceededError": 3}, {"DeadlineError": 1})
    assert (summary["rows_per_second"], summary["answered_per_second"]) == (2.0, 0.25)
    assert (summary["request_bytes_a_row"], summary["reply_bytes_a_row"]) == (100, 10)
    assert (summary["latency_ms"]["max"], summary["server_ms"]["max"]) == (500, 250)
    assert (summary["refusal_ms"]["p50"], summary["failure_ms"]["p50"]) == (1, 2000)


def test_the_live_view_shows_what_is_new() -> None:
    ledger = Ledger()
    ledger.add(answered(0.0, 0.0, 0.5))
    assert ledger.take_recent().latency_ms["p99"] == 500
    ledger.add(EndedRequest(0.0, 0.0, 1.0, Outcome.REFUSED, "DrainingError"))
    ledger.add(answered(0.0, 0.0, 0.1))
    recent = ledger.take_recent()
    assert (recent.answered, recent.refused, recent.failed) == (1, 1, 0)
    assert recent.latency_ms["max"] == pytest.approx(100)
    assert ledger.take_recent().latency_ms == {}
