"""The metrics of a service's work, in the form of Prometheus.

A label takes few values, whatever clients send: existing methods, served models, layouts, status
codes, and classes of errors. Nothing that a client has written becomes a label. Tenants are no
label either: there may be many.

One process keeps its numbers in memory. Each of several processes writes its numbers into files of
a directory that all of them share (prometheus_client's multiprocess mode). The files are named by
the process's number among the processes, not by its process id: a process that replaces a dead one
continues its counts.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values
from prometheus_client.multiprocess import mark_process_dead

K = TypeVar("K")
V = TypeVar("V")

MODEL_INFO = "sealserve_model_info"

_PREFIX = "sealserve_"
_CALL_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_WAIT_SECONDS = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


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


@dataclass(kw_only=True)
class Work:
    """The size of an item, and the seconds spent on it.

    Attributes:
        load_seconds: spent on checks, and on all that is done when a ciphertext arrives.
        arithmetic_seconds: spent from the last ciphertext to the last score.
        reply_seconds: spent on the messages of the reply.
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
        """The seconds of checks and arithmetic, which the client is told."""
        return self.load_seconds + self.arithmetic_seconds


class Telemetry:
    """The metrics of a serving process, in a registry of their own. They need not be published.

    Args:
        process: the number of the process among those of the service.

    Attributes:
        methods: the metrics of a method, by its full name.
        offers: the metrics of the items of a model in a layout, by the names of both.
        refusals: the counters of refused calls and items, by the class of the error.
    """

    def __init__(self, process: int = 0) -> None:
        self.registry = CollectorRegistry()
        self.methods = _Bound(self._bind_method)
        self.offers = _Bound(self._bind_offer)
        self.refusals = _Bound[str, Counter](lambda reason: self._refusals.labels(reason))
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
            "items_waiting", "Items that are waiting for their turn: as many are scored at a time as there are cores."
        )
        self.wait_seconds = Histogram(
            f"{_PREFIX}wait_seconds",
            "How long items, or parts of items of streams, waited for their turn.",
            buckets=_WAIT_SECONDS,
            registry=self.registry,
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

    def publish_model(self, name: str, version: str) -> None:
        """Publish that a version of a model is served from now on, and no other version."""
        self.unpublish_model(name)
        self._versions[name] = version
        self._model_info.labels(name, version).set(1)

    def unpublish_model(self, name: str) -> None:
        """Publish that a model is no longer served, if it was."""
        if (version := self._versions.pop(name, None)) is not None:
            self._model_info.labels(name, version).set(0)

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(_PREFIX + name, help_text, labels, registry=self.registry)

    def _gauge(self, name: str, help_text: str, *labels: str) -> Gauge:
        return Gauge(_PREFIX + name, help_text, labels, registry=self.registry, multiprocess_mode="livesum")

    def _bind_method(self, method: str) -> "MethodMetrics":
        return MethodMetrics(
            in_flight=self._calls_in_flight.labels(method),
            seconds=self._call_seconds.labels(method),
            received_bytes=self._received_bytes.labels(method),
            sent_bytes=self._sent_bytes.labels(method),
            calls=_Bound(lambda status: self._calls.labels(method, status)),
        )

    def _bind_offer(self, offer: tuple[str, str]) -> "OfferMetrics":
        return OfferMetrics(
            items=self._items.labels(*offer),
            rows=self._rows.labels(*offer),
            ciphertexts=self._ciphertexts.labels(*offer),
            load_seconds=self._item_seconds.labels(*offer, "load"),
            arithmetic_seconds=self._item_seconds.labels(*offer, "arithmetic"),
            reply_seconds=self._item_seconds.labels(*offer, "reply"),
        )


class _Bound(dict[K, V]):
    """Metrics with bound labels, by the values of the labels; looking them up takes long."""

    def __init__(self, bind: Callable[[K], V]) -> None:
        super().__init__()
        self._bind = bind

    def __missing__(self, key: K) -> V:
        metrics = self[key] = self._bind(key)
        return metrics


@dataclass(frozen=True, kw_only=True)
class MethodMetrics:
    """The metrics of one method; `calls` counts ended calls, by the name of their status code."""

    in_flight: Gauge
    seconds: Histogram
    received_bytes: Counter
    sent_bytes: Counter
    calls: _Bound[str, Counter]


@dataclass(frozen=True, kw_only=True)
class OfferMetrics:
    """The metrics of the scored items of one model in one layout."""

    items: Counter
    rows: Counter
    ciphertexts: Counter
    load_seconds: Counter
    arithmetic_seconds: Counter
    reply_seconds: Counter
