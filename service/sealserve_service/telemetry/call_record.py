"""The record of one call: its id, its share of the metrics, its line in the log, and its span.

The id is the client's (metadata `x-request-id`), or a new one if the client has sent no usable one.
A call returns its id in its trailing metadata if the call fails, if one of its items fails, or if
the client has sent the id. Other calls do not return it: their clients have no use for it, and
sending it costs time.

The line holds the facts of a call and nothing of its payload. It is written at DEBUG for a call
that succeeded, at INFO for one that was refused, and at WARNING for one that failed by a fault of
the service. A stream has one line too, however many of its items are refused.
"""

import errno
import logging
import os
import re
import time
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING
from urllib.parse import unquote

import grpc
from google.protobuf.message import EncodeError
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from sealserve.errors import (
    InternalError,
    KeyNotFoundError,
    KeyStoreUnavailableError,
    LimitExceededError,
    ModelNotFoundError,
    ParameterSetNotOfferedError,
    QuotaExceededError,
    ResourceUnavailableError,
    ServiceError,
)
from sealserve.he._seal import RandomnessError
from sealserve.protocol.item import ItemHeader
from sealserve.v1 import keys_pb2, model_pb2, prediction_pb2
from sealserve_service.telemetry.metrics import Telemetry, Work

if TYPE_CHECKING:  # it loads OpenTelemetry
    from sealserve_service.telemetry.spans import CallSpan

REQUEST_ID = "x-request-id"
UNKNOWN_METHOD = "unknown"
SEVERAL = "several"
MAX_NAME_CHARACTERS = 100
_RETRY_SECONDS = 1.0
_NO_DESCRIPTOR = {errno.EMFILE, errno.ENFILE}
_NO_THREAD = "can't start new thread"  # CPython's text

_METHODS = frozenset(
    f"/{service.full_name}/{method.name}"
    for file in (model_pb2, prediction_pb2, keys_pb2, health_pb2, reflection_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
)
_USABLE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_FAULTS_OF_THE_SERVICE = {
    InternalError.__name__,
    KeyStoreUnavailableError.__name__,
    ResourceUnavailableError.__name__,
}

CAPACITIES = frozenset(
    {
        "concurrent_calls",
        "deadline",
        "key_store_bytes",
        "server_bytes",
        "server_memory",
        "server_seconds",
        "server_streams",
        "server_uploads",
    }
)
"""The names in a QuotaExceededError that stand for the service's capacity, not a tenant's quota."""

_logger = logging.getLogger(__name__)

current_call: ContextVar["CallRecord"] = ContextVar("current_call")
"""The record of the call that this code serves: gRPC runs each call in a context of its own."""


class CallRecord:
    """What is known of a call, until its end is counted and logged.

    Args:
        method: the full name of the method, as the client has sent it.
        telemetry: counts the call.
        sent_id: the id that the client has given the call; "" if it has given none.
        peer: returns the client's address. It is asked only for a line in the log.

    Attributes:
        request_id: the client's id if that is usable, else a new one.
        returns_id: whether the client has use for the id of the call.
        client: the client's address if trusted proxies name it; "" otherwise.
        tenant: the tenant's name; "" until it is known.
        received_bytes, sent_bytes: of the messages of the call.
        span: of the call; None if traces are off, or if the call has none.
    """

    def __init__(
        self, method: str, telemetry: Telemetry, sent_id: str | bytes = "", peer: Callable[[], str] = str
    ) -> None:
        self.method = method
        self.returns_id = isinstance(sent_id, str) and _USABLE_ID.fullmatch(sent_id) is not None
        self.request_id = str(sent_id) if self.returns_id else os.urandom(16).hex()
        self.client = self.tenant = ""
        self.received_bytes = self.sent_bytes = 0
        self.span: CallSpan | None = None
        self._peer = peer
        self._telemetry = telemetry
        self._metrics = telemetry.methods[method if method in _METHODS else UNKNOWN_METHOD]
        self._model = self._layout = ""
        self._open_items = self._items = self._rows = 0
        self._refusals: Counter[str] = Counter()
        self._started = time.perf_counter()
        self._metrics.in_flight.inc()

    def begin_item(self, header: ItemHeader) -> None:
        """Count an item in flight, until `end_item` or the end of the call, and note its header."""
        self._note(header.model, header.layout.name if header.layout else "")
        self._open_items += 1
        self._telemetry.items_in_flight.inc()

    def end_item(self) -> None:
        """Count an item as no longer in flight."""
        self._open_items -= 1
        self._telemetry.items_in_flight.dec()

    def count_scored(self, work: Work) -> None:
        """Count an item that has its scores."""
        if (self._model, self._layout) != (work.model, work.layout):
            self._note(work.model, work.layout)
        self._items += 1
        self._rows += work.rows
        metrics = self._telemetry.offers[work.model, work.layout]
        metrics.items.inc()
        metrics.rows.inc(work.rows)
        metrics.ciphertexts.inc(work.ciphertexts)
        metrics.load_seconds.inc(work.load_seconds)
        metrics.arithmetic_seconds.inc(work.arithmetic_seconds)
        metrics.reply_seconds.inc(work.reply_seconds)
        metrics.duration_seconds.observe(time.perf_counter() - work.began)
        if self.span is not None:
            self.span.add_item(work)

    def refuse(self, error: Exception) -> ServiceError:
        """Count the call, or an item of it, as refused; return the error that the client may see.

        An error that is not a ServiceError is logged, and the client gets an InternalError that
        names the call. If memory, file descriptors or threads ran out, it gets a QuotaExceededError
        or a ResourceUnavailableError, which asks it to come again: others' calls end and free
        theirs.
        """
        refusal: ServiceError
        if isinstance(error, ServiceError):
            refusal = _shortened(error)
        elif isinstance(error, MemoryError | EncodeError):  # protobuf's, where it gets no memory
            _logger.error("request %s failed: out of memory", self.request_id, exc_info=error)
            refusal = QuotaExceededError("server_memory", _RETRY_SECONDS)
        elif resource := _missing_resource(error):
            _logger.error("request %s failed: no more %s", self.request_id, resource, exc_info=error)
            refusal = ResourceUnavailableError(resource, _RETRY_SECONDS)
        else:
            _logger.error("request %s failed", self.request_id, exc_info=error)
            refusal = InternalError(self.request_id)
        reason = type(refusal).__name__
        self.returns_id = True
        self._refusals[reason] += 1
        limit = _limit_of(refusal)
        is_quota = isinstance(refusal, QuotaExceededError) and limit not in CAPACITIES
        self._telemetry.refuse(reason, limit, self.tenant if is_quota else "")
        return refusal

    def refuse_item(self, error: Exception, work: Work | None) -> ServiceError:
        """Do what `refuse` does, for an item of a stream.

        Args:
            error: what has failed.
            work: the item's; None if it did not begin.
        """
        refusal = self.refuse(error)
        if self.span is not None:
            self.span.add_item(work, type(refusal).__name__, _limit_of(refusal))
        return refusal

    def end(self, context: grpc.ServicerContext) -> None:
        """Count and log the end of the call."""
        code: grpc.StatusCode | None = context.code()  # type: ignore[attr-defined]  # missing in the stubs
        unfailed = "OK" if context.is_active() else "CANCELLED"
        status = unfailed if code is None else str(code.name)
        seconds, metrics = time.perf_counter() - self._started, self._metrics
        if self._open_items:
            self._telemetry.items_in_flight.dec(self._open_items)
        metrics.in_flight.dec()
        metrics.seconds.observe(seconds)
        metrics.received_bytes.inc(self.received_bytes)
        metrics.sent_bytes.inc(self.sent_bytes)
        metrics.calls[status].inc()
        if self.span is not None:
            counts = {"items": self._items, "rows": self._rows, "open_items": self._open_items}
            sizes = {"received_bytes": self.received_bytes, "sent_bytes": self.sent_bytes}
            self.span.end(status, self.request_id, counts | sizes, sorted(self._refusals))
        if self._refusals.keys() & _FAULTS_OF_THE_SERVICE or status in ("INTERNAL", "UNKNOWN"):
            level = logging.WARNING
        elif self._refusals or status not in ("OK", "CANCELLED"):
            level = logging.INFO
        else:
            level = logging.DEBUG
        if _logger.isEnabledFor(level):
            _logger.log(level, "call", extra={"fields": self._facts(status, seconds)})

    def _note(self, model: str, layout: str) -> None:
        """Note a model and a layout; "" says nothing: it is the model that an empty name means."""
        if model and model != self._model:
            self._model = SEVERAL if self._model else model
        if layout and layout != self._layout:
            self._layout = SEVERAL if self._layout else layout

    def _facts(self, status: str, seconds: float) -> dict[str, object]:
        facts = {
            "request_id": self.request_id,
            "method": self.method[:MAX_NAME_CHARACTERS],
            "status": status,
            "milliseconds": round(1000 * seconds, 3),
            "peer": unquote(self._peer()).rpartition(":")[0],  # without the port
            "client": self.client,
            "tenant": self.tenant,
            "model": self._model[:MAX_NAME_CHARACTERS],
            "layout": self._layout,
            "items": self._items,
            "rows": self._rows,
            "received_bytes": self.received_bytes,
            "sent_bytes": self.sent_bytes,
            "refusals": dict(self._refusals),
        }
        return {name: fact for name, fact in facts.items() if fact not in ("", {})}


def _limit_of(refusal: ServiceError) -> str:
    """Return the name of the quota, the capacity or the limit that refused; all are this code's."""
    match refusal:
        case QuotaExceededError():
            return refusal.quota
        case LimitExceededError():
            return refusal.limit
        case ResourceUnavailableError():
            return refusal.resource
    return ""


def _missing_resource(error: Exception) -> str:
    """Return which resource of the system an error lacks, in words; "" if it is another error."""
    if isinstance(error, RandomnessError) or (isinstance(error, OSError) and error.errno in _NO_DESCRIPTOR):
        return "file descriptors"
    return "threads" if isinstance(error, RuntimeError) and str(error) == _NO_THREAD else ""


def _shortened(error: ServiceError) -> ServiceError:
    """Return the error with the names that it repeats cut short.

    The error of a failed call travels in HTTP/2 headers, and gRPC drops an answer whose headers
    exceed 16 KiB.
    """
    match error:
        case ModelNotFoundError():
            return ModelNotFoundError(error.model[:MAX_NAME_CHARACTERS])
        case ParameterSetNotOfferedError():
            return ParameterSetNotOfferedError(error.layout, error.parameter_set[:MAX_NAME_CHARACTERS])
        case KeyNotFoundError():
            return KeyNotFoundError(error.key_id[:MAX_NAME_CHARACTERS])
    return error
