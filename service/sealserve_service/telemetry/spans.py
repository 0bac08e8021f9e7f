"""Spans of OpenTelemetry: one for each call of a known caller, and one for each item of a stream.

A call without valid credentials has no span, and neither has a call of gRPC's health or reflection.
A stranger can therefore have nothing exported. Of the headers of other calls `traceparent` is read,
whose length is checked before anything else, and neither `tracestate` nor baggage. A caller's
header says which trace a call belongs to. `CallerSampler` says what its flag is worth.

An attribute of a span is a number, a name that this code or the operator has chosen, or the id of
the request, whose characters are checked. None is a feature, a score, a key or a token.
"""

import random
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler, SamplingResult
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    Tracer,
    TraceState,
    get_current_span,
    set_span_in_context,
)

import sealserve
from sealserve.v1 import keys_pb2, model_pb2, prediction_pb2
from sealserve_service.telemetry.metrics import Work

TRACEPARENT = "traceparent"
_TENANT = "sealserve.tenant"
_CHARACTERS = 55
_FORM = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})", re.ASCII)
_TRACE_ID_BITS = 128

# By the method as gRPC has it -> whether its items have spans of their own.
_TRACED = {
    f"/{service.full_name}/{method.name}": method.name == "StreamPredict"
    for file in (model_pb2, prediction_pb2, keys_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
# The statuses of a server that are its own faults: OpenTelemetry's conventions for RPCs.
_FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})


def sent_context(metadata: Iterable[tuple[str, str | bytes]]) -> SpanContext | None:
    """Return the span that a caller says it is in; None if it says none, or not in W3C's form.

    Two headers are as good as none.
    """
    values = [value for key, value in metadata if key == TRACEPARENT]
    if len(values) != 1 or not isinstance(values[0], str) or len(values[0]) != _CHARACTERS:
        return None
    if (form := _FORM.fullmatch(values[0])) is None:
        return None
    trace_id, span_id, flags = (int(digits, 16) for digits in form.groups())
    context = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags & TraceFlags.SAMPLED))
    return context if context.is_valid else None


class CallerSampler(Sampler):
    """Decides whether a call is recorded. Its items follow it.

    The flag of a caller decides only if the operator's sampler goes by it (`parentbased_...`), and
    only for a tenant of the file of identities. Otherwise the call is sampled as one that came
    without a header. The id of its trace decides nothing then: a caller could choose it.

    Args:
        operators: the sampler of OTEL_TRACES_SAMPLER.
    """

    def __init__(self, operators: Sampler) -> None:
        self._operators = operators

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Mapping[str, Any] | None = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Return the decision: see Sampler."""
        parent = get_current_span(parent_context).get_span_context()
        operators = self._operators
        if parent.is_valid and not parent.is_remote:
            operators = ALWAYS_ON if parent.trace_flags.sampled else ALWAYS_OFF
        elif not isinstance(operators, ParentBased) or _TENANT not in (attributes or {}):
            parent_context, trace_id = None, random.getrandbits(_TRACE_ID_BITS)
        return operators.should_sample(parent_context, trace_id, name, kind, attributes, links)

    def get_description(self) -> str:
        """Return what it is: see Sampler."""
        return f"CallerSampler({self._operators.get_description()})"


class Spans:
    """Begins the spans of calls.

    Args:
        provider: exports them; its sampler is replaced by a CallerSampler of it.
    """

    def __init__(self, provider: TracerProvider) -> None:
        provider.sampler = CallerSampler(provider.sampler)
        self._tracer = provider.get_tracer("sealserve", sealserve.__version__)

    def begin(self, method: str, tenant: str, metadata: Iterable[tuple[str, str | bytes]]) -> "CallSpan | None":
        """Begin the span of a call of an admitted caller.

        Args:
            method: the full name of the method, as the client has sent it.
            tenant: the caller's, as the file of identities names it; "" where there is no file.
            metadata: the headers of the call.

        Returns:
            The span; None if calls of the method have none.
        """
        if (is_stream := _TRACED.get(method)) is None:
            return None
        sent = sent_context(metadata)
        context = Context() if sent is None else set_span_in_context(NonRecordingSpan(sent), Context())
        name = method.lstrip("/")
        attributes = {"rpc.system.name": "grpc", "rpc.method": name} | ({_TENANT: tenant} if tenant else {})
        span = self._tracer.start_span(name, context, SpanKind.SERVER, attributes)
        return CallSpan(self._tracer, span, is_stream=is_stream)


class CallSpan:
    """The span of a call, and those of its items, which are its children.

    Args:
        tracer: makes the spans of items.
        span: the call's.
        is_stream: whether items have spans of their own; else their attributes are the call's.
    """

    def __init__(self, tracer: Tracer, span: Span, *, is_stream: bool) -> None:
        self._tracer = tracer
        self._span = span
        self._is_stream = is_stream

    def add_item(self, work: Work | None, refusal: str = "", limit: str = "") -> None:
        """Add an item that has ended, with its scores or with an error.

        Args:
            work: the item's; None if it did not begin.
            refusal: the class of the error; "" if it has its scores.
            limit: the quota, the capacity or the limit that refused it, if one did.
        """
        if not self._span.is_recording():
            return
        attributes: dict[str, Any] = {}
        if work is not None:
            facts = ("model", "layout", "rows", "ciphertexts", "load_seconds", "arithmetic_seconds", "reply_seconds")
            attributes |= {f"sealserve.{fact}": getattr(work, fact) for fact in facts}
        if refusal:
            attributes["error.type"] = refusal
        if limit:
            attributes["sealserve.limit"] = limit
        if not self._is_stream:
            self._span.set_attributes(attributes)
            return
        end = time.time_ns()
        seconds = 0.0 if work is None else time.perf_counter() - work.began
        item = self._tracer.start_span(
            "sealserve.item",
            set_span_in_context(self._span, Context()),
            attributes=attributes,
            start_time=end - round(1e9 * seconds),
        )
        if refusal:
            item.set_status(StatusCode.ERROR)
        item.end(end)

    def end(self, status: str, request_id: str, counts: Mapping[str, int], refusals: Sequence[str]) -> None:
        """End the call.

        Args:
            status: the name of its status.
            request_id: the id of the call's record.
            counts: numbers of the call, by their names.
            refusals: the classes of the errors of the call and its items.
        """
        if self._span.is_recording():
            self._span.set_attributes({f"sealserve.{name}": count for name, count in counts.items()})
            self._span.set_attributes({"rpc.response.status_code": status, "sealserve.request_id": request_id})
            if refusals:
                self._span.set_attribute("sealserve.refusals", list(refusals))
            if status != "OK":
                self._span.set_attribute("error.type", status)
            if status in _FAULTS:
                self._span.set_status(StatusCode.ERROR)
        self._span.end()
