"""The metrics of a service's work, in the form of Prometheus.

A label takes few values, whatever clients send: existing methods, served models, layouts, status
codes, classes of errors, names of limits. Nothing that a client has written becomes a label. A
tenant is one of the file of identities, and only where its own quota refused it: the first
MAX_TENANTS of them have a label of their own.

One process keeps its numbers in memory. Each of several processes writes its numbers into files of
a directory that all of them share (prometheus_client's multiprocess mode). The files are named by
the process's number among the processes, not by its process id: a process that replaces a dead one
continues its counts.
"""

import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeVar

import grpc
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values
from prometheus_client.multiprocess import mark_process_dead

import sealserve
from sealserve.errors import KeyStoreUnavailableError

_Mode = Literal["livesum", "livemax", "livemin"]
K = TypeVar("K")
V = TypeVar("V")

MODEL_INFO = "sealserve_model_info"
MODEL_VERDICT = "sealserve_model_verdict"
MAX_TENANTS = 100
OTHER_TENANTS = "(others)"

_PREFIX = "sealserve_"
_CALL_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_ITEM_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_STORE_SECONDS = (0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
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
        began: when the item began, by time.perf_counter().
    """

    model: str
    layout: str
    rows: int
    ciphertexts: int
    load_seconds: float = 0.0
    arithmetic_seconds: float = 0.0
    reply_seconds: float = 0.0
    began: float = field(default_factory=time.perf_counter)

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
        refusals: the counters of refused calls and items, by the class of the error, the limit and
            the tenant; see `refuse`.
        waits: the seconds that items of a model in a layout waited for turns, by the names of both.
        key_store: the metrics of a call of the key store, by its name.
    """

    def __init__(self, process: int = 0) -> None:
        self.registry = CollectorRegistry()
        self.methods = _Bound(self._bind_method)
        self.offers = _Bound(self._bind_offer)
        self.refusals = _Bound[tuple[str, str, str], Counter](lambda labels: self._refusals.labels(*labels))
        self.waits = _Bound[tuple[str, str], Histogram](lambda offer: self._wait_seconds.labels(*offer))
        self.key_store = _Bound(self._bind_key_store)
        self._described: dict[str, tuple[str, str]] = {}
        self._tenants = set[str]()
        self._process = str(process)

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
        self._refusals = self._counter(
            "refusals",
            "Calls and items that were refused, by class of error; the quota, capacity or limit that refused them; and "
            "the tenant whose own quota it is.",
            *("reason", "limit", "tenant"),
        )

        self.items_in_flight = self._gauge("items_in_flight", "Items that have begun and not ended.")
        self.items_waiting = self._gauge(
            "items_waiting", "Items that are waiting for their turn: as many are scored at a time as there are cores."
        )
        self._wait_seconds = Histogram(
            f"{_PREFIX}wait_seconds",
            "How long items, or parts of items of streams, waited for their turn.",
            ["model", "layout"],
            buckets=_WAIT_SECONDS,
            registry=self.registry,
        )
        self._item_duration = Histogram(
            f"{_PREFIX}item_duration_seconds",
            "How long scored items took from their header to their last score, with all waits.",
            ["model", "layout"],
            buckets=_ITEM_SECONDS,
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
        self.ready_zero_bytes = self._gauge("ready_zero_bytes", "Memory of encryptions of zero that are ready for use.")
        self.registered_keys = self._counter("registered_keys", "Keys registered, also those registered before.")
        self.registered_key_bytes = self._counter("registered_key_bytes", "Bytes of the keys registered.")

        self._key_store_seconds = Histogram(
            f"{_PREFIX}key_store_seconds",
            "How long calls of the key store took, also those that failed.",
            ["operation"],
            buckets=_STORE_SECONDS,
            registry=self.registry,
        )
        self._key_store_failures = self._counter(
            "key_store_failures", "Calls that the key store did not answer, or not in time.", "operation"
        )

        self._model_info = self._gauge("model_info", "The models that are served.", "model", "version", mode="livemax")
        self._model_verdict = self._gauge(
            "model_verdict",
            "The verdict on the predictions of each model that is served.",
            *("model", "verdict"),
            mode="livemax",
        )
        self._failed_loads = self._counter(
            "model_load_failures", "Versions of models that could not be loaded while the service ran.", "model"
        )
        self._ready = self._gauge("ready", "Whether a process serves and has not been told to stop.", "process")
        self._stopping = self._gauge("stopping", "Whether a process has been told to stop.", "process")
        started = self._gauge("process_start_time_seconds", "When a process began, in Unix time.", "process")
        started.labels(self._process).set(time.time())
        self.publish_state(is_ready=False, is_stopping=False)
        build = self._gauge("build_info", "The program that serves.", "version", "python", "grpc", mode="livemax")
        build.labels(sealserve.__version__, platform.python_version(), grpc.__version__).set(1)

    def refuse(self, reason: str, limit: str = "", tenant: str = "") -> None:
        """Count a refused call or item.

        Args:
            reason: the class of the error.
            limit: the name of the quota, the capacity or the limit that is exceeded.
            tenant: the tenant if it is its own quota, as the file of identities names it.
        """
        if tenant and tenant not in self._tenants:
            if len(self._tenants) < MAX_TENANTS:
                self._tenants.add(tenant)
            else:
                tenant = OTHER_TENANTS
        self.refusals[reason, limit, tenant].inc()

    def publish_model(self, name: str, version: str, verdict: str = "none") -> None:
        """Publish that a version of a model is served from now on, and no other version."""
        self.unpublish_model(name)
        self._described[name] = version, verdict
        self._model_info.labels(name, version).set(1)
        self._model_verdict.labels(name, verdict).set(1)

    def unpublish_model(self, name: str) -> None:
        """Publish that a model is no longer served, if it was."""
        if (described := self._described.pop(name, None)) is not None:
            version, verdict = described
            self._model_info.labels(name, version).set(0)
            self._model_verdict.labels(name, verdict).set(0)

    def count_failed_load(self, name: str) -> None:
        """Count a version of a model that cannot be loaded."""
        self._failed_loads.labels(name).inc()

    def publish_certificate_expiry(self, time_of_expiry: datetime) -> None:
        """Publish when the certificates that are served need others."""
        self._certificate_expiry.set(time_of_expiry.timestamp())

    @cached_property
    def _certificate_expiry(self) -> Gauge:
        # Made where there are certificates only: else it would say that they have expired.
        return self._gauge(
            "certificate_expiry_time_seconds",
            "When the first certificate of the service's chain expires, in Unix time.",
            mode="livemin",
        )

    def publish_state(self, *, is_ready: bool, is_stopping: bool) -> None:
        """Publish whether this process is ready for calls, and whether it has been told to stop."""
        self._ready.labels(self._process).set(is_ready)
        self._stopping.labels(self._process).set(is_stopping)

    @contextmanager
    def key_store_call(self, operation: str) -> Iterator[None]:
        """Measure a call of the key store."""
        metrics, began = self.key_store[operation], time.perf_counter()
        try:
            yield
        except KeyStoreUnavailableError:
            metrics.failures.inc()
            raise
        finally:
            metrics.seconds.observe(time.perf_counter() - began)

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(_PREFIX + name, help_text, labels, registry=self.registry)

    def _gauge(self, name: str, help_text: str, *labels: str, mode: _Mode = "livesum") -> Gauge:
        return Gauge(_PREFIX + name, help_text, labels, registry=self.registry, multiprocess_mode=mode)

    def _bind_method(self, method: str) -> "MethodMetrics":
        return MethodMetrics(
            in_flight=self._calls_in_flight.labels(method),
            seconds=self._call_seconds.labels(method),
            received_bytes=self._received_bytes.labels(method),
            sent_bytes=self._sent_bytes.labels(method),
            calls=_Bound(lambda status: self._calls.labels(method, status)),
        )

    def _bind_key_store(self, operation: str) -> "KeyStoreMetrics":
        return KeyStoreMetrics(
            seconds=self._key_store_seconds.labels(operation), failures=self._key_store_failures.labels(operation)
        )

    def _bind_offer(self, offer: tuple[str, str]) -> "OfferMetrics":
        return OfferMetrics(
            items=self._items.labels(*offer),
            rows=self._rows.labels(*offer),
            ciphertexts=self._ciphertexts.labels(*offer),
            load_seconds=self._item_seconds.labels(*offer, "load"),
            arithmetic_seconds=self._item_seconds.labels(*offer, "arithmetic"),
            reply_seconds=self._item_seconds.labels(*offer, "reply"),
            duration_seconds=self._item_duration.labels(*offer),
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
class KeyStoreMetrics:
    """The metrics of one kind of call of the key store."""

    seconds: Histogram
    failures: Counter


@dataclass(frozen=True, kw_only=True)
class OfferMetrics:
    """The metrics of the scored items of one model in one layout."""

    items: Counter
    rows: Counter
    ciphertexts: Counter
    load_seconds: Counter
    arithmetic_seconds: Counter
    reply_seconds: Counter
    duration_seconds: Histogram
