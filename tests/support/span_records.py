"""Spans of OpenTelemetry, recorded in memory."""

import contextlib
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler
from opentelemetry.trace import SpanKind

from tests.support.waiting import wait_until


class _Begun(SpanProcessor):
    """Counts the spans that have begun."""

    def __init__(self) -> None:
        self.count = 0

    def on_start(self, span: object, parent_context: object = None) -> None:
        """Count one more."""
        self.count += 1


class SpanRecords:
    """A tracer provider and the spans that have ended."""

    def __init__(self, sampler: Sampler | None = None) -> None:
        self._memory, self._begun = InMemorySpanExporter(), _Begun()
        self.provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.provider.add_span_processor(self._begun)
        self.provider.add_span_processor(SimpleSpanProcessor(self._memory))

    @property
    def ended(self) -> list[ReadableSpan]:
        """The spans that have ended."""
        return list(self._memory.get_finished_spans())

    def of_kind(self, kind: SpanKind) -> list[ReadableSpan]:
        """The spans of a kind that have ended."""
        return [span for span in self.ended if span.kind is kind]

    def wait_for(self, count: int) -> list[ReadableSpan]:
        """Wait for so many: a client has its answer before the service has counted the call."""
        wait_until(lambda: len(self.ended) >= count)
        return self.ended

    def wait_for_all(self, kind: SpanKind, count: int = 0) -> list[ReadableSpan]:
        """Wait for all spans to end, at least so many of a kind, and return those of the kind."""
        wait_until(lambda: len(self.ended) == self._begun.count and len(self.of_kind(kind)) >= count)
        return self.of_kind(kind)


@contextlib.contextmanager
def set_up(provider: trace.TracerProvider) -> Iterator[None]:
    """Do what an application does once, for a while: have OpenTelemetry use a provider."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trace, "get_tracer_provider", lambda: provider)
        yield


def span_id(span: ReadableSpan) -> int:
    """The id of a span."""
    return int(span.context.span_id)


def parent_id(span: ReadableSpan) -> int | None:
    """The id of the span that it is a child of."""
    return None if span.parent is None else span.parent.span_id


def status(span: ReadableSpan) -> object:
    """The name of the status of a call."""
    return (span.attributes or {}).get("rpc.response.status_code")
