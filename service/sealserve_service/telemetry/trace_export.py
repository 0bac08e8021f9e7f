"""The export of spans, configured by OpenTelemetry's own variables (OTEL_...).

Spans wait in a queue of bounded length for a thread that exports them. What finds the queue full
pushes the oldest span out: a collector that does not answer costs spans, and no call waits for it.

The tracer provider is not the process's global one. Libraries that look for that one, such as
Azure's, would add spans with names of blobs.
"""

import contextlib
import os
import threading
from collections.abc import Iterator
from importlib.metadata import entry_points

from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

import sealserve
from sealserve.errors import InputError
from sealserve_service.telemetry.spans import Spans

# From the end of the last call: a process has little time to end.
_LAST_SPANS_SECONDS = 0.5
_NAMELESS = "unknown_service"  # what OpenTelemetry calls a service that has no name
_PROTOCOLS = {"grpc": "otlp_proto_grpc", "http/protobuf": "otlp_proto_http"}
_PROTOCOL_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


@contextlib.contextmanager
def exported_spans(exporter: str) -> Iterator[Spans]:
    """Export the spans of calls while the context lasts.

    Args:
        exporter: otlp or console.

    Raises:
        InputError: its protocol is unknown, or not installed, or a variable cannot be used.
    """
    try:
        provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(_exporter(exporter)))
    except InputError:
        raise
    except Exception as error:  # of a variable with a wrong value; the library promises no type of error
        raise InputError(f"a variable of OpenTelemetry (OTEL_...) cannot be used: {error}") from error
    try:
        yield Spans(provider)
    finally:
        ending = threading.Thread(target=provider.shutdown, name="spans", daemon=True)
        with contextlib.suppress(RuntimeError):  # the system refuses a thread
            ending.start()
            ending.join(_LAST_SPANS_SECONDS)


def _exporter(name: str) -> SpanExporter:
    if name == "otlp":
        protocol = next((text for variable in _PROTOCOL_VARIABLES if (text := os.environ.get(variable))), "grpc")
        if protocol not in _PROTOCOLS:
            raise InputError(f"{_PROTOCOL_VARIABLES[0]}: it is {' or '.join(_PROTOCOLS)}")
        name = _PROTOCOLS[protocol]
    found = entry_points(group="opentelemetry_traces_exporter", name=name)
    if not found:
        raise InputError(f"OTEL_TRACES_EXPORTER: install opentelemetry-exporter-{name.replace('_', '-')}")
    (entry,) = found
    exporter: SpanExporter = entry.load()()
    return exporter


def _resource() -> Resource:
    """Return what OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say; by default its own name."""
    said, own = Resource.create(), {SERVICE_VERSION: sealserve.__version__}
    if str(said.attributes[SERVICE_NAME]).startswith(_NAMELESS):
        own[SERVICE_NAME] = "sealserve"
    return said.merge(Resource(own))
