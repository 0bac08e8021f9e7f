"""Ledger: the requests of a load test in numbers: due times, outcomes and latencies. No I/O.

Times are in seconds since the measurement began. Requests that are due before that, at less than 0,
are the warm-up.
"""

import math
import threading
from array import array
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}


class Outcome(Enum):
    """The outcome of a request."""

    ANSWERED = "answered"
    REFUSED = "refused"  # by a service that is busy and may answer later
    FAILED = "failed"


@dataclass(frozen=True)
class EndedRequest:
    """A request that has ended.

    Attributes:
        due: the time at which it should have been sent.
        begun: the time at which it was sent: later than `due` if all callers were busy.
        ended: the time of its answer or its error.
        reason: the name of the error's type; "" for an answer.
        server_seconds: the time that the service says it took.
    """

    due: float
    begun: float
    ended: float
    outcome: Outcome
    reason: str = ""
    row_count: int = 0
    request_bytes: int = 0
    reply_bytes: int = 0
    server_seconds: float = 0.0


def due_times(rate: float, start: float, end: float, *, seed: int | None = None) -> Iterator[float]:
    """Yield the times at which requests are due, whatever the outcomes of earlier ones (open loop).

    Args:
        rate: requests a second.
        start: the time of the first request.
        end: the time at which the load ends.
        seed: the seed of random arrivals, as of many independent users (a Poisson process). By
            default arrivals are evenly spaced.
    """
    if seed is None:
        count = math.ceil((end - start) * rate)
        yield from (start + number / rate for number in range(count))
        return
    generator, due = np.random.default_rng(seed), start
    while (due := due + generator.exponential(1 / rate)) < end:
        yield due


def quantiles(seconds: "array[float]") -> dict[str, float]:
    """Return QUANTILES of times, in milliseconds; {} if there are no times.

    Each is a time that was measured. If a quantile lies between two, it is the greater one.
    """
    if not seconds:
        return {}
    values = np.quantile(np.frombuffer(seconds), list(QUANTILES.values()), method="higher")
    return dict(zip(QUANTILES, (1e3 * values).tolist(), strict=True))


@dataclass(frozen=True)
class RecentOutcomes:
    """The outcomes since a live view was last refreshed.

    Attributes:
        answered, refused, failed: the number of requests with each outcome.
        latency_ms: quantiles of the latencies of answers.
    """

    answered: int
    refused: int
    failed: int
    latency_ms: dict[str, float]


class Ledger:
    """Figures of all requests, with a few numbers kept of each. Threads may share a ledger."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latencies: dict[Outcome, array[float]] = {outcome: array("d") for outcome in Outcome}
        self._server_seconds, self._delays = array("d"), array("d")
        self._reasons: dict[Outcome, defaultdict[str, int]] = {outcome: defaultdict(int) for outcome in Outcome}
        self._rows = self._request_bytes = self._reply_bytes = 0
        self._last_end = 0.0
        self._reported = dict.fromkeys(Outcome, 0)

    def add(self, ended: EndedRequest) -> None:
        """Record a request, unless it belongs to the warm-up."""
        if ended.due < 0:
            return
        with self._lock:
            # From the due time: waiting to be sent is waiting for the service, too.
            self._latencies[ended.outcome].append(ended.ended - ended.due)
            self._delays.append(ended.begun - ended.due)
            self._last_end = max(self._last_end, ended.ended)
            if ended.outcome is Outcome.ANSWERED:
                self._server_seconds.append(ended.server_seconds)
                self._rows += ended.row_count
                self._request_bytes += ended.request_bytes
                self._reply_bytes += ended.reply_bytes
            else:
                self._reasons[ended.outcome][ended.reason] += 1

    def take_recent(self) -> RecentOutcomes:
        """Return the outcomes since the last call."""
        with self._lock:
            new = {outcome: times[self._reported[outcome] :] for outcome, times in self._latencies.items()}
            self._reported = {outcome: len(times) for outcome, times in self._latencies.items()}
        answered, refused, failed = (len(new[outcome]) for outcome in Outcome)
        return RecentOutcomes(answered, refused, failed, quantiles(new[Outcome.ANSWERED]))

    def summary(self, seconds: float = 0.0) -> dict[str, Any]:
        """Return all figures, for JSON.

        Args:
            seconds: for how long requests were sent. If the last answer came later, the time until
                then counts.
        """
        with self._lock:
            seconds = max(seconds, self._last_end)
            count = {outcome: len(times) for outcome, times in self._latencies.items()}
            answered = count[Outcome.ANSWERED]
            return {
                "seconds": seconds,
                "sent": sum(count.values()),
                "answered": answered,
                "refused": dict(self._reasons[Outcome.REFUSED]),
                "failed": dict(self._reasons[Outcome.FAILED]),
                "sent_per_second": _per(sum(count.values()), seconds),
                "answered_per_second": _per(answered, seconds),
                "rows_per_second": _per(self._rows, seconds),
                "request_bytes_a_row": _per(self._request_bytes, self._rows),
                "reply_bytes_a_row": _per(self._reply_bytes, self._rows),
                "latency_ms": quantiles(self._latencies[Outcome.ANSWERED]),
                "server_ms": quantiles(self._server_seconds),
                "refusal_ms": quantiles(self._latencies[Outcome.REFUSED]),
                "failure_ms": quantiles(self._latencies[Outcome.FAILED]),
                "sent_late_ms": quantiles(self._delays),
            }


def _per(amount: float, base: float) -> float:
    return amount / base if base else 0.0
