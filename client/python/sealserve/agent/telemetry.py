"""Telemetry: each request is counted and logged, without anything that its caller has written."""

import logging
import time
from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from sealserve.agent.refusals import Refusal

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_PREFIX = "sealserve_agent_"
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_FAULTS = {"INTERNAL", "FAILED_PRECONDITION", "UNAVAILABLE"}

_logger = logging.getLogger(__name__)


class Telemetry:
    """The metrics of an agent, in a registry of their own. Labels are models that are served.

    Attributes:
        rows: counts rows that have predictions, by model.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.rows = Counter(f"{_PREFIX}rows", "Rows that have predictions.", ["model"], registry=self._registry)
        self._requests = Counter(
            f"{_PREFIX}requests", "Requests that have ended.", ["method", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            f"{_PREFIX}request_seconds",
            "How long requests took.",
            ["method"],
            buckets=_SECONDS,
            registry=self._registry,
        )

        # To look labels up takes longer than to count.
        self._of = lru_cache(
            lambda method, status: (self._requests.labels(method, status), self._seconds.labels(method))
        )

    def published(self) -> bytes:
        """Return the metrics in the form of Prometheus."""
        return generate_latest(self._registry)

    def end(self, method: str, began: float, refusal: Refusal | None = None) -> None:
        """Count and log the end of a request.

        Args:
            method: the name of the RPC, also of requests over REST.
            began: when, by time.perf_counter().
            refusal: what the caller was told, if the request failed.
        """
        seconds = time.perf_counter() - began
        status = "OK" if refusal is None else refusal.code.name
        ended, lasted = self._of(method, status)
        ended.inc()
        lasted.observe(seconds)
        level = logging.DEBUG if refusal is None else logging.WARNING if status in _FAULTS else logging.INFO
        if _logger.isEnabledFor(level):
            fields = {"method": method, "status": status, "milliseconds": round(1000 * seconds, 3)}
            if refusal is not None:
                fields["reason"] = refusal.reason
            _logger.log(level, "request", extra={"fields": fields})
