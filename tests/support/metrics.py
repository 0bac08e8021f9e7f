"""Metrics as Prometheus reads them."""

import os
import socket
import time
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from sealserve_service.telemetry.endpoint import ProcessMetrics, Published
from sealserve_service.telemetry.metrics import Telemetry
from tests.support.serving import HANG_SECONDS

Labels = frozenset[tuple[str, str]]


class Metrics:
    """The samples of one scrape."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.samples: dict[tuple[str, Labels], float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                key = (sample.name, frozenset(sample.labels.items()))
                assert key not in self.samples, "a sample comes once"
                self.samples[key] = sample.value

    def __call__(self, name: str, **labels: str) -> float:
        """Return a sample's value: 0 if there is none."""
        return self.samples.get((f"sealserve_{name}", frozenset(labels.items())), 0.0)

    def labelled(self, name: str) -> dict[Labels, float]:
        """Return all samples of a name, by their labels."""
        return {labels: value for (found, labels), value in self.samples.items() if found == f"sealserve_{name}"}


def free_address() -> str:
    """An address of loopback at which nothing listens, for a service's metrics."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def scraped(url: str) -> Metrics:
    """Ask an endpoint."""
    with urllib.request.urlopen(url, timeout=HANG_SECONDS) as response:  # noqa: S310  # our own
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        return Metrics(response.read().decode())


def scraped_until(url: str, condition: Callable[[Metrics], bool]) -> Metrics:
    """Ask an endpoint until the condition holds.

    The end of a call is counted when its client has the answer already.
    """
    end = time.monotonic() + HANG_SECONDS
    while not condition(metrics := scraped(url)):
        assert time.monotonic() < end, f"it did not happen in time:\n{metrics.text}"
        time.sleep(0.02)
    return metrics


def everything() -> str:
    """Each metric that the service has, with samples."""
    telemetry = Telemetry()
    telemetry.publish_model("a", "1", "OK")
    telemetry.count_failed_load("a")
    telemetry.refuse("QuotaExceededError", "rows_per_minute", "clinic")
    telemetry.publish_certificate_expiry(datetime.now(UTC))
    telemetry.waits["a", "row"].observe(0.1)
    telemetry.offers["a", "row"].rows.inc()
    telemetry.methods["/sealserve.v1.PredictionService/Predict"].calls["OK"].inc()
    telemetry.key_store["get"].failures.inc()
    return generate_latest(Published(telemetry.registry, ProcessMetrics(lambda: {"0": os.getpid()}))).decode()
