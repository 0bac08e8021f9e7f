"""What a service counts of its work, as Prometheus metrics.

A label's values are few whatever clients send: methods that there are, models that are served, layouts, status codes
and classes of errors. Nothing that a client has written becomes a label, and tenants are none: there may be many.

In one process the numbers are kept in memory. Several processes each write theirs into files of a
directory that they share (prometheus_client's multiprocess mode). They are named by the process's
number among the processes, not by its id: the process that replaces a dead one continues its
numbers.
"""

import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values
from prometheus_client.multiprocess import mark_process_dead

MODEL_INFO = "sealserve_model_info"

_PREFIX = "sealserve_"
_CALL_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


@dataclass(frozen=True)
class MetricsFiles:
    """The files in which one of several serving processes keeps its metrics.

    Attributes:
        directory: the one that all processes of the service share.
        number: the process's, from 0. A process that replaces another has the same.
    """

    directory: Path
    number: int

    def use(self) -> None:
        """Keep the metrics that this process makes from now on in these files."""
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(self.directory)  # the library asks nothing else
        values.ValueClass = values.MultiProcessValue(lambda: self.number)  # type: ignore[no-untyped-call]

    def remove_gauges(self) -> None:
        """Remove the values that were true only while the process lived; it has died."""
        mark_process_dead(self.number, str(self.directory))  # type: ignore[no-untyped-call]

    def remove_directory(self) -> None:
        """Remove the directory of a service that has ended, with the metrics of all its processes."""
        shutil.rmtree(self.directory, ignore_errors=True)  # other processes of the service may do the same


@dataclass
class Work:
    """What an item was, and the seconds spent on it.

    Attributes:
        load_seconds: checks, and all that is done as a ciphertext comes.
        arithmetic_seconds: from the last ciphertext to the last score.
        reply_seconds: its messages.
    """

    model: str
    layout: str
    rows: int
    ciphertexts: int
    load_seconds: float = 0.0
    arithmetic_seconds: float = 0.0
    reply_seconds: float = 0.0

    @property
    def seconds(self) -> float:
        """Those of checks and arithmetic, which the client is told of."""
        return self.load_seconds + self.arithmetic_seconds


class Telemetry:
    """The metrics of a serving process, in a registry of their own that nobody has to publish.

    Args:
        process: the process's place among those of the service.
    """

    def __init__(self, process: int = 0) -> None:
        self.registry = CollectorRegistry()
        self._methods: dict[str, _Method] = {}
        self._offers: dict[tuple[str, str], _Offer] = {}
        self._versions: dict[str, str] = {}

        self._calls = self._counter("calls", "Calls that have ended.", "method", "status")
        self._call_seconds = Histogram(
            f"{_PREFIX}call_seconds",
            "How long calls took; a stream lasts as long as its client wants.",
            ["method"],
            buckets=_CALL_SECONDS,
            registry=self.registry,
        )
        self._calls_in_flight = self._gauge("calls_in_flight", "Calls that have begun and not ended.", "method")
        self._received_bytes = self._counter("received_bytes", "Bytes of messages received.", "method")
        self._sent_bytes = self._counter("sent_bytes", "Bytes of messages sent.", "method")
        self._refusals = self._counter("refusals", "Calls and items that were refused, by class of error.", "reason")

        self.items_in_flight = self._gauge("items_in_flight", "Items that have begun and not ended.")
        self.items_waiting = self._gauge(
            "items_waiting", "Items that are waiting for their turn: one is scored at a time."
        )
        self.held_bytes = self._gauge("held_bytes", "Bytes of the ciphertexts of items in flight.")
        self._items = self._counter("items", "Items scored.", "model", "layout")
        self._rows = self._counter("rows", "Rows scored.", "model", "layout")
        self._ciphertexts = self._counter("ciphertexts", "Ciphertexts of the items scored.", "model", "layout")
        self._item_seconds = self._counter(
            "item_seconds",
            "Time spent on the items scored: load (checks, and all that is done as a ciphertext comes), arithmetic "
            "(from the last ciphertext to the last score), reply (its messages).",
            *("model", "layout", "stage"),
        )

        self.key_cache_hits = self._counter("key_cache_hits", "Keys that were there when they were needed.")
        self.key_cache_misses = self._counter("key_cache_misses", "Keys that had to be loaded.")
        self.key_cache_evictions = self._counter("key_cache_evictions", "Keys that had to make room for others.")
        self.key_cache_bytes = self._gauge("key_cache_bytes", "Memory of the keys that are ready for use.")
        self.registered_keys = self._counter("registered_keys", "Keys registered, also those registered before.")
        self.registered_key_bytes = self._counter("registered_key_bytes", "Bytes of the keys registered.")

        self._model_info = Gauge(
            MODEL_INFO,
            "The models that are served.",
            ["model", "version"],
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        started = self._gauge("process_start_time_seconds", "When a process began, in Unix time.", "process")
        started.labels(str(process)).set(time.time())

    def call_began(self, method: str) -> None:
        """Count a call in flight."""
        self._method(method).in_flight.inc()

    def call_ended(self, method: str, status: str, seconds: float, received_bytes: int, sent_bytes: int) -> None:
        """Count a call that has ended, with the name of a gRPC status code."""
        counts = self._method(method)
        counts.in_flight.dec()
        counts.seconds.observe(seconds)
        counts.received_bytes.inc(received_bytes)
        counts.sent_bytes.inc(sent_bytes)
        if status not in counts.calls:
            counts.calls[status] = self._calls.labels(method, status)
        counts.calls[status].inc()

    def refused(self, error: Exception) -> None:
        """Count a call or an item that was refused."""
        self._refusals.labels(type(error).__name__).inc()

    def scored(self, work: Work) -> None:
        """Count an item that has its scores."""
        counts = self._offer(work.model, work.layout)
        counts.items.inc()
        counts.rows.inc(work.rows)
        counts.ciphertexts.inc(work.ciphertexts)
        counts.load_seconds.inc(work.load_seconds)
        counts.arithmetic_seconds.inc(work.arithmetic_seconds)
        counts.reply_seconds.inc(work.reply_seconds)

    def model_served(self, name: str, version: str) -> None:
        """Say that a version of a model is served from now on, and no other of it."""
        self.model_dropped(name)
        self._versions[name] = version
        self._model_info.labels(name, version).set(1)

    def model_dropped(self, name: str) -> None:
        """Say that a model is served no longer, if it was."""
        if (version := self._versions.pop(name, None)) is not None:
            self._model_info.labels(name, version).set(0)

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(_PREFIX + name, help_text, labels, registry=self.registry)

    def _gauge(self, name: str, help_text: str, *labels: str) -> Gauge:
        return Gauge(_PREFIX + name, help_text, labels, registry=self.registry, multiprocess_mode="livesum")

    def _method(self, method: str) -> "_Method":
        if method not in self._methods:
            self._methods[method] = _Method(
                self._calls_in_flight.labels(method),
                self._call_seconds.labels(method),
                self._received_bytes.labels(method),
                self._sent_bytes.labels(method),
            )
        return self._methods[method]

    def _offer(self, model: str, layout: str) -> "_Offer":
        key = (model, layout)
        if key not in self._offers:
            stages = (self._item_seconds.labels(*key, stage) for stage in ("load", "arithmetic", "reply"))
            self._offers[key] = _Offer(
                self._items.labels(*key), self._rows.labels(*key), self._ciphertexts.labels(*key), *stages
            )
        return self._offers[key]


@dataclass
class _Method:
    """The metrics of one method: found once, as finding them costs more than counting."""

    in_flight: Gauge
    seconds: Histogram
    received_bytes: Counter
    sent_bytes: Counter
    calls: dict[str, Counter] = field(default_factory=dict)


@dataclass
class _Offer:
    """The metrics of one model in one layout."""

    items: Counter
    rows: Counter
    ciphertexts: Counter
    load_seconds: Counter
    arithmetic_seconds: Counter
    reply_seconds: Counter
