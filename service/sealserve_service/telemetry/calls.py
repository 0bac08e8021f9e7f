"""Calls, all alike: each has an id, is counted, and leaves a line in the log when it ends.

The id is the client's (metadata `x-request-id`), or one is made. A call returns it in its trailing metadata if it fails
or one of its items does, or if the client has sent it: for others it is worth nothing, and not free.

The line has a call's facts and nothing of its payload. A call that went well is logged at DEBUG, one that was refused
at INFO, one that failed by a fault on the service's side at WARNING. A stream has one line too, however many of its
items are refused.
"""

import contextlib
import logging
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any
from urllib.parse import unquote

import grpc
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from sealserve.errors import InternalError, KeyStoreUnavailableError, ServiceError
from sealserve.protocol.item import ItemHeader
from sealserve.v1 import keys_pb2, model_pb2, prediction_pb2
from sealserve_service.telemetry.metrics import Telemetry, Work

REQUEST_ID = "x-request-id"
UNKNOWN_METHOD = "unknown"
SEVERAL = "several"
MAX_NAME_CHARACTERS = 100

_METHODS = frozenset(
    f"/{service.full_name}/{method.name}"
    for file in (model_pb2, prediction_pb2, keys_pb2, health_pb2, reflection_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
)
_GOOD_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_OUR_FAULTS = {InternalError.__name__, KeyStoreUnavailableError.__name__}

_logger = logging.getLogger(__name__)
_current: ContextVar["Call"] = ContextVar("call")  # gRPC runs each call in a context of its own


def current() -> "Call":
    """Return the call on whose behalf this code runs.

    Raises:
        LookupError: on no call's.
    """
    return _current.get()


def request_id() -> str:
    """Return the current call's id; a new one if there is no call."""
    call = _current.get(None)
    return call.request_id if call else _new_id()


class Call:
    """What is known of a call, until its end is counted and logged.

    Args:
        sent_id: the id that the client has given it, if that is a good one.
        peer: says where it comes from; asked only for a line in the log.

    Attributes:
        request_id: the client's, if it has sent a good one.
        tenant: its name; "" until it is known.
    """

    def __init__(self, method: str, telemetry: Telemetry, sent_id: str = "", peer: Callable[[], str] = str) -> None:
        self.method = method
        self.request_id = sent_id or _new_id()
        self._sent_id = sent_id
        self.tenant = ""
        self._peer = peer
        self._telemetry = telemetry
        self._label = method if method in _METHODS else UNKNOWN_METHOD
        self._model = self._layout = ""
        self._open_items = self._items = self._rows = 0
        self._received_bytes = self._sent_bytes = 0
        self._refusals: Counter[str] = Counter()
        self._started = time.perf_counter()
        telemetry.call_began(self._label)

    @property
    def returns_id(self) -> bool:
        """Whether the client has a use for the id of a call that has gone well."""
        return bool(self._sent_id or self._refusals)

    def received(self, data: bytes) -> bytes:
        """Count a message and return it."""
        self._received_bytes += len(data)
        return data

    def sent(self, data: bytes) -> bytes:
        """Count a message and return it."""
        self._sent_bytes += len(data)
        return data

    def asks(self, header: ItemHeader) -> None:
        """Note what an item wants, before it is known whether there is such a thing."""
        self._note(header.model, header.layout.name if header.layout else "")

    def item_began(self) -> None:
        """Count an item in flight: until it ends, or the call does."""
        self._open_items += 1
        self._telemetry.items_in_flight.inc()

    def item_ended(self) -> None:
        """Count an item out of flight."""
        self._open_items -= 1
        self._telemetry.items_in_flight.dec()

    def scored(self, work: Work) -> None:
        """Count an item that has its scores."""
        self._note(work.model, work.layout)
        self._items += 1
        self._rows += work.rows
        self._telemetry.scored(work)

    def refused(self, error: ServiceError) -> None:
        """Count the call, or an item of it, as refused."""
        self._refusals[type(error).__name__] += 1
        self._telemetry.refused(error)

    def end(self, status: str) -> None:
        """Count and log the end, with the name of a gRPC status code."""
        seconds = time.perf_counter() - self._started
        self._telemetry.items_in_flight.dec(self._open_items)
        self._telemetry.call_ended(self._label, status, seconds, self._received_bytes, self._sent_bytes)
        level = self._level(status)
        if _logger.isEnabledFor(level):
            _logger.log(level, "call", extra={"fields": self._facts(status, seconds)})

    def _note(self, model: str, layout: str) -> None:
        self._model = model if self._model in ("", model) else SEVERAL
        self._layout = layout if self._layout in ("", layout) else SEVERAL

    def _level(self, status: str) -> int:
        if self._refusals.keys() & _OUR_FAULTS or status in ("INTERNAL", "UNKNOWN"):
            return logging.WARNING
        return logging.INFO if self._refusals or status not in ("OK", "CANCELLED") else logging.DEBUG

    def _facts(self, status: str, seconds: float) -> dict[str, object]:
        facts = {
            "request_id": self.request_id,
            "method": self.method[:MAX_NAME_CHARACTERS],
            "status": status,
            "milliseconds": round(1000 * seconds, 3),
            "peer": unquote(self._peer()).rpartition(":")[0],  # without the port
            "tenant": self.tenant,
            "model": self._model[:MAX_NAME_CHARACTERS],
            "layout": self._layout,
            "items": self._items,
            "rows": self._rows,
            "received_bytes": self._received_bytes,
            "sent_bytes": self._sent_bytes,
            "refusals": dict(self._refusals),
        }
        return {name: fact for name, fact in facts.items() if fact not in ("", {})}


class Calls(grpc.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Puts a Call around every call: the first interceptor, so that it sees what the others refuse.

    They have to hand on handlers of streams of bytes, as `gate` does.
    """

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def intercept_service(
        self, continuation: Callable[[Any], Any], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        """Put a Call around a call's handler."""
        method, handler = handler_call_details.method, continuation(handler_call_details)
        encode = handler.response_serializer

        def gathered(stream: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
            with self._running(method, context) as call:
                return call.sent(encode(handler.stream_unary(map(call.received, stream), context)))

        def streamed(stream: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            with self._running(method, context) as call:
                for reply in handler.stream_stream(map(call.received, stream), context):
                    yield call.sent(encode(reply))

        def watched(stream: Iterator[bytes], context: grpc.ServicerContext, send: Callable[[Any], None]) -> None:
            call = self._began(method, context)
            if not context.add_callback(lambda: call.end(_status(context))):  # it has ended before it began
                call.end("CANCELLED")
                return
            handler.stream_stream(
                map(call.received, stream),
                context,
                lambda reply: send(None if reply is None else call.sent(encode(reply))),
            )

        if not handler.response_streaming:
            return grpc.stream_unary_rpc_method_handler(gathered)
        if getattr(handler.stream_stream, "experimental_non_blocking", False):
            watched.experimental_non_blocking = True  # type: ignore[attr-defined]
            return grpc.stream_stream_rpc_method_handler(watched)
        return grpc.stream_stream_rpc_method_handler(streamed)

    def _began(self, method: str, context: grpc.ServicerContext) -> Call:
        call = Call(method, self._telemetry, _sent_id(context), context.peer)
        _current.set(call)
        return call

    @contextlib.contextmanager
    def _running(self, method: str, context: grpc.ServicerContext) -> Iterator[Call]:
        call, status = self._began(method, context), "CANCELLED"  # what a stream is that nobody reads to its end
        try:
            yield call
            status = _status(context)
            if call.returns_id:
                context.set_trailing_metadata(((REQUEST_ID, call.request_id),))
        except Exception:
            status = _status(context, "UNKNOWN")
            if status != "UNAUTHENTICATED":  # who calls so learns nothing of what answers
                set_before = context.trailing_metadata() or ()
                context.set_trailing_metadata((*set_before, (REQUEST_ID, call.request_id)))
            raise
        finally:
            call.end(status)


def _new_id() -> str:
    return os.urandom(16).hex()


def _status(context: grpc.ServicerContext, otherwise: str = "OK") -> str:
    """Return the name of a call's status code, which it has from its end on if that is not a good one."""
    code = context.code()  # type: ignore[attr-defined]  # missing in the stubs
    if code is None:
        return otherwise if context.is_active() else "CANCELLED"
    return str(code.name)


def _sent_id(context: grpc.ServicerContext) -> str:
    """Return the id that the client has given its call; "" if it has not, or not a good one."""
    sent = next((value for key, value in context.invocation_metadata() if key == REQUEST_ID), "")
    return sent if isinstance(sent, str) and _GOOD_ID.fullmatch(sent) else ""
