"""Spans: one for each call of a connection, if the application has set up OpenTelemetry.

An application has done so if it has a tracer provider of its own when the connection opens. It is
asked then and not at each call. Without one the methods of a connection are gRPC's own, and
OpenTelemetry is not imported.

A call tells the service the id of its span, and whether it is sampled: the header `traceparent` of
W3C's Trace Context, which always has the same length. It sends no baggage and no `tracestate`. A
span has the names of the method and of the status, and nothing that the service has written.
"""

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Self

import grpc

from sealserve import __version__

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

TRACEPARENT = "traceparent"
_SAMPLED = 1


class CallSpans:
    """Makes the spans of the calls over one connection.

    Args:
        tracer: the application's.
        address: of the service, as the caller gave it.
        sends_ids: whether the service is told the ids.
    """

    def __init__(self, tracer: "Tracer", address: str, *, sends_ids: bool) -> None:
        self._tracer = tracer
        self._address = address
        self._sends_ids = sends_ids

    @classmethod
    def of_application(cls, address: str) -> Self | None:
        """Return those of the application's tracer provider; None if it has set up none."""
        trace: Any = sys.modules.get("opentelemetry.trace")
        if trace is None:
            return None
        provider = trace.get_tracer_provider()
        if isinstance(provider, (trace.ProxyTracerProvider, trace.NoOpTracerProvider)):
            return None
        from opentelemetry.propagate import get_global_textmap

        # What OTEL_PROPAGATORS says. Its propagators themselves would send baggage, too.
        sends_ids = TRACEPARENT in get_global_textmap().fields
        return cls(provider.get_tracer("sealserve", __version__), address, sends_ids=sends_ids)

    def unary(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """Return a method of a single response that makes spans."""

        def call(*requests: Any, metadata: tuple[tuple[str, str], ...] = (), **options: Any) -> Any:
            span = self._begin(name)
            with _ended_by_failure(span):
                response = method(*requests, metadata=self._with_ids(metadata, span), **options)
            _end(span, grpc.StatusCode.OK)
            return response

        return call

    def unary_async(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """Do what `unary` does, for asyncio."""

        async def call(*requests: Any, metadata: tuple[tuple[str, str], ...] = (), **options: Any) -> Any:
            span = self._begin(name)
            with _ended_by_failure(span):
                response = await method(*requests, metadata=self._with_ids(metadata, span), **options)
            _end(span, grpc.StatusCode.OK)
            return response

        return call

    def stream(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """Return a method of streamed responses that makes spans, which end with its calls."""

        def call(*requests: Any, metadata: tuple[tuple[str, str], ...] = (), **options: Any) -> Any:
            span = self._begin(name)
            with _ended_by_failure(span):
                begun = method(*requests, metadata=self._with_ids(metadata, span), **options)
            begun.add_done_callback(lambda ended: _end(span, _code_of_ended(ended)))
            return begun

        return call

    def _begin(self, name: str) -> "Span":
        from opentelemetry.trace import SpanKind

        attributes = {"rpc.system.name": "grpc", "rpc.method": name, "server.address": self._address}
        return self._tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes)

    def _with_ids(self, metadata: tuple[tuple[str, str], ...], span: "Span") -> tuple[tuple[str, str], ...]:
        context = span.get_span_context()
        if not (self._sends_ids and context.is_valid):
            return metadata
        flags = context.trace_flags & _SAMPLED
        return (*metadata, (TRACEPARENT, f"00-{context.trace_id:032x}-{context.span_id:016x}-{flags:02x}"))


@contextlib.contextmanager
def _ended_by_failure(span: "Span") -> Iterator[None]:
    """End the span if the call raises. What raises nothing leaves it open."""
    try:
        yield
    except BaseException as error:
        _end(span, _code_of(error))
        raise


def _code_of(error: BaseException) -> grpc.StatusCode:
    """Return the status of a call that has raised: gRPC's, or CANCELLED if nobody waits for it.

    A call that could not begin, such as one over a closed channel, has no status: it is UNKNOWN.
    """
    if not isinstance(error, grpc.RpcError):
        return grpc.StatusCode.UNKNOWN if isinstance(error, Exception) else grpc.StatusCode.CANCELLED
    failed: Any = error
    code: grpc.StatusCode = failed.code()
    return code


def _code_of_ended(call: Any) -> grpc.StatusCode:
    code: Any = call.code()
    if inspect.iscoroutine(code):  # asyncio's, which has nothing to wait for once the call has ended
        try:
            code.send(None)
        except StopIteration as end:
            code = end.value
        else:
            code.close()
            code = None
    return code if isinstance(code, grpc.StatusCode) else grpc.StatusCode.UNKNOWN


def _end(span: "Span", code: grpc.StatusCode) -> None:
    from opentelemetry.trace import StatusCode

    span.set_attribute("rpc.response.status_code", code.name)
    if code is not grpc.StatusCode.OK:
        span.set_attribute("error.type", code.name)
        span.set_status(StatusCode.ERROR)
    span.end()
