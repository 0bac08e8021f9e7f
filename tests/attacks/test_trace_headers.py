"""Trace headers: what a stranger's, or a tenant's, can make a service do, and what spans tell.

A service that takes OpenTelemetry's own propagator and sampler at their word reads headers of any
caller, and exports what a caller's flag, or the id that it chose for its trace, asks for. Here the
headers are checked before they are read, and only callers that are known have spans.

`test_traces.py` is about something else: what a service sees of a client.
"""

import contextlib
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    ParentBased,
    ParentBasedTraceIdRatio,
    Sampler,
    TraceIdRatioBased,
)
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from sealserve._codec.codec import RowCodec
from sealserve.client import Client
from sealserve.credentials import Credentials
from sealserve.errors import ModelNotFoundError, SealserveError
from sealserve.v1 import model_pb2
from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.telemetry.spans import CallerSampler, Spans, sent_context
from tests.support.identities import ALL, IdentitiesFile
from tests.support.observed_calls import CALLS, OPEN, PLAIN, VARIANTS, Faults
from tests.support.recording_service import RecordingService, described, recording_service
from tests.support.serving import HANG_SECONDS, SETTINGS, linear, registered_keys, running_server, served
from tests.support.span_records import SpanRecords, set_up

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GOOD = f"00-{TRACE_ID}-{SPAN_ID}-01"
# The least id of a trace: samplers that go by ids take it, however small the share is.
CHOSEN = f"00-{'8' * 16}{'0' * 15}1-{SPAN_ID}-01"
GET_MODEL = "/sealserve.v1.ModelService/GetModel"

HOSTILE = {
    "too long": f"{GOOD}-{'x' * 400}",
    "much too long": f"01-{TRACE_ID}-{SPAN_ID}-01-{'x' * 7000}",
    "a later version, with more": f"01-{TRACE_ID}-{SPAN_ID}-01-what-the-future-brings",
    "a later version": f"01-{TRACE_ID}-{SPAN_ID}-01",
    "no version": f"ff-{TRACE_ID}-{SPAN_ID}-01",
    "capitals": GOOD.upper(),
    "space around": f" {GOOD} ",
    "no trace": f"00-{'0' * 32}-{SPAN_ID}-01",
    "no span": f"00-{TRACE_ID}-{'0' * 16}-01",
    "too short": GOOD[:-1],
    "no hexadecimal digits": GOOD.replace("a", "g"),
    "a sign for a digit": f"00-+{TRACE_ID[1:]}-{SPAN_ID}-01",
    "an underscore": f"00-{TRACE_ID[:8]}_{TRACE_ID[9:]}-{SPAN_ID}-01",
    "other separators": GOOD.replace("-", "_"),
    "two in one": f"{GOOD},{GOOD}",
    "nothing": "",
}


def naive(header: str) -> bool:
    """Whether OpenTelemetry's own propagator goes by a header."""
    context = TraceContextTextMapPropagator().extract({"traceparent": header})
    return trace.get_current_span(context).get_span_context().is_valid


def test_headers_are_checked_before_they_are_read() -> None:
    assert sent_context([("traceparent", GOOD)]) is not None
    for header in (*HOSTILE.values(), *(GOOD[:place] + "\0" + GOOD[place + 1 :] for place in range(len(GOOD)))):
        assert sent_context([("traceparent", header)]) is None, header
    assert sent_context([("traceparent", GOOD), ("traceparent", GOOD)]) is None
    assert sent_context([("traceparent", GOOD.encode())]) is None
    assert sent_context([("Traceparent", GOOD), ("tracestate", "a=b")]) is None
    taken = {name for name, header in HOSTILE.items() if naive(header)}
    assert taken == {"too long", "a later version, with more", "a later version", "space around"} - {"too long"}


def test_no_flag_but_one_is_kept() -> None:
    for flags in range(256):
        context = sent_context([("traceparent", f"{GOOD[:-2]}{flags:02x}")])
        assert context is not None
        assert context.trace_flags == flags & 1
        assert not context.trace_state


@pytest.mark.parametrize("header", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_header_changes_nothing_of_a_call(header: str) -> None:
    records = SpanRecords()
    with (
        running_server(three_features(), spans=Spans(records.provider)) as address,
        grpc.insecure_channel(address) as channel,
    ):
        ask(channel, ("traceparent", header), ("tracestate", "a=" + "b" * 500), ("baggage", "patient=Jane"))
        (span,) = records.wait_for(1)
    assert span.parent is None
    assert f"{span.context.trace_id:032x}" != TRACE_ID


def three_features() -> ModelRegistry:
    return ModelRegistry([served("line", linear(np.ones((2, 3))))])


def ask(channel: grpc.Channel, *headers: tuple[str, str]) -> None:
    """Ask for the model, with headers."""
    get_model = channel.unary_unary(GET_MODEL, model_pb2.GetModelRequest.SerializeToString, bytes)
    get_model(model_pb2.GetModelRequest(), metadata=headers, timeout=HANG_SECONDS)


# Whose flag makes a service export


def test_a_stranger_has_nothing_exported(tmp_path: Path) -> None:
    """Neither refused calls nor probes of health leave a span, whatever their headers say."""
    file = IdentitiesFile(tmp_path / "identities.toml", lab=ALL)
    token = file.token("lab")
    settings, records = SETTINGS.with_changes(identities=file.path, public_health=True), SpanRecords()
    with (
        running_server(three_features(), settings, spans=Spans(records.provider)) as address,
        grpc.insecure_channel(address) as channel,
    ):
        methods = GET_MODEL, "/no/Method", "/sealserve.v1.PredictionService/Predict", "/grpc.health.v1.Health/Check"
        for method, authorization in itertools.product(methods, ("", "Bearer wrong")):
            headers = [("traceparent", GOOD), *([("authorization", authorization)] if authorization else [])]
            with contextlib.suppress(grpc.RpcError):
                call = channel.unary_unary(method, bytes, bytes)
                call(b"", metadata=tuple(headers), timeout=HANG_SECONDS)
        for method in methods:  # a tenant's calls: only those of this service's own methods
            with contextlib.suppress(grpc.RpcError):
                headers = [("traceparent", GOOD), ("authorization", f"Bearer {token}")]
                call = channel.unary_unary(method, bytes, bytes)
                call(b"", metadata=tuple(headers), timeout=HANG_SECONDS)
        spans = records.wait_for(2)
    assert {span.name for span in spans} == {GET_MODEL[1:], "sealserve.v1.PredictionService/Predict"}
    assert len(spans) == 2
    assert {(span.attributes or {}).get("sealserve.tenant") for span in spans} == {"lab"}


def exported(operators: Sampler, header: str, tenant: str, *, is_naive: bool = False) -> bool:
    """Whether a call with a header is exported. A naive service only has the operator's sampler."""
    records = SpanRecords(operators)
    spans = Spans(records.provider)
    if is_naive:
        spans._tracer.sampler = operators  # type: ignore[attr-defined]
    span = spans.begin(GET_MODEL, tenant, [("traceparent", header)])
    assert span is not None
    span.end("OK", "1", {}, [])
    return bool(records.ended)


NEVER, RARELY = ParentBased(ALWAYS_OFF), 1e-9


@pytest.mark.parametrize(
    ("operators", "header"),
    [(NEVER, GOOD), (ParentBasedTraceIdRatio(RARELY), GOOD), (TraceIdRatioBased(RARELY), CHOSEN)],
    ids=["the flag", "the flag, for a share", "an id of the share"],
)
def test_where_nobody_is_known_no_caller_decides_what_is_exported(operators: Sampler, header: str) -> None:
    assert not exported(operators, header, tenant="")
    assert exported(operators, header, tenant="", is_naive=True), "as it would be"


def test_a_known_tenants_flag_decides_for_its_own_calls_if_the_operator_says_so() -> None:
    unsampled = f"{GOOD[:-1]}0"
    assert exported(NEVER, GOOD, "lab"), "OTEL_TRACES_SAMPLER=parentbased_always_off"
    assert not exported(ParentBased(ALWAYS_ON), unsampled, "lab"), "the default: it may leave its calls out"
    assert not exported(ALWAYS_OFF, GOOD, "lab")
    assert exported(ALWAYS_ON, unsampled, "lab")
    assert not exported(TraceIdRatioBased(RARELY), CHOSEN, "lab"), "ids that a tenant chooses decide nothing"


def test_items_follow_their_call() -> None:
    sampler = CallerSampler(TraceIdRatioBased(0.5))
    for number in range(50):
        records = SpanRecords(sampler._operators)
        call = Spans(records.provider).begin("/sealserve.v1.PredictionService/StreamPredict", "", [])
        assert call is not None
        for _ in range(5):
            call.add_item(None, "AnError")
        call.end("OK", str(number), {}, [])
        assert len(records.ended) in (0, 6)


# What spans tell


SECRETIVE = "\x1b]0;owned\x07 patient=Jane \u202e"


def values(records: SpanRecords) -> Iterator[str]:
    """All texts of spans: names, attributes, events and descriptions."""
    for span in records.ended:
        yield span.name
        yield span.status.description or ""
        yield from map(repr, span.events)
        for key, value in (span.attributes or {}).items():
            yield "=".join((key, str(value)))


def test_spans_hold_no_feature_no_score_no_key_no_token_and_no_text_of_a_caller(tmp_path: Path) -> None:
    file = IdentitiesFile(tmp_path / "identities.toml", lab=ALL)
    token = file.token("lab")
    settings, ours, theirs = SETTINGS.with_changes(identities=file.path), SpanRecords(), SpanRecords()
    keys = registered_keys()
    models = ModelRegistry([served("line", linear(np.array([[0.3, 0.7, 0.9]])), keys=keys, hiding_bits=20)])
    row = np.array([[0.123456789, 0.987654321, 0.555555555]])
    credentials = Credentials(token=token)
    with (
        set_up(ours.provider),
        running_server(models, settings, keys, spans=Spans(theirs.provider)) as address,
        Client(address, credentials=credentials) as client,
    ):
        score = client.predict(row)[0]
        scores = [result for _, result in client.stream(np.repeat(row, 3, 0))]
        with pytest.raises(ModelNotFoundError), Client(address, credentials=credentials, model="Jane Doe") as lost:
            lost.predict(row)
        codec: RowCodec = client._run(client._session.codec_of_model(1))
        with grpc.insecure_channel(address) as channel:
            headers = ("authorization", f"Bearer {token}"), ("x-request-id", "Jane Doe; drop")
            ask(channel, *headers, ("traceparent", GOOD), ("tracestate", "patient=Jane"))
        theirs.wait_for(len(ours.of_kind(SpanKind.CLIENT)) + len(scores) + 1)
    found = [*values(ours), *values(theirs)]
    assert len(found) > 50
    text = "\n".join(found)
    for secret in (
        token,
        codec.key_id,
        "Jane",
        "patient",
        "drop",
        *(repr(float(x)) for x in [*row[0], *np.ravel(score)]),
    ):
        assert secret not in text, secret
    assert not re.search(r"[^\n -~]", text), "only characters that can be printed"
    names = {each.partition("=")[0] for each in found if "=" in each}
    assert names == {
        *("rpc.system.name", "rpc.method", "rpc.response.status_code", "error.type", "server.address"),
        *(f"sealserve.{name}" for name in ("tenant", "request_id", "model", "layout", "rows", "ciphertexts", "items")),
        *(f"sealserve.{name}" for name in ("load_seconds", "arithmetic_seconds", "reply_seconds", "open_items")),
        *(f"sealserve.{name}" for name in ("received_bytes", "sent_bytes", "refusals")),
    }


def test_a_service_cannot_write_into_the_spans_of_a_client() -> None:
    """Neither its texts nor its names of models come there."""
    records = SpanRecords()

    def hostile(_: Any) -> grpc.StatusCode:
        return grpc.StatusCode.PERMISSION_DENIED

    with (
        set_up(records.provider),
        recording_service(described(OPEN, layout="row"), hostile) as service,
        Client(service.address, timeout_seconds=HANG_SECONDS) as client,
        pytest.raises(SealserveError),
    ):
        client.predict(np.zeros((1, 3)))
    text = "\n".join(values(records))
    assert "PERMISSION_DENIED" in text
    assert not re.search(r"[^\n -~]", text)


# What a client sends depends on nothing that it decrypts


class HeadersToo(RecordingService):
    """Records the headers of calls, too: their names and lengths, and the flag."""

    def handlers(self) -> Any:
        """The methods, which note the headers first."""
        return [_Noting(handler, self) for handler in super().handlers()]


class _Noting(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the stubs only
    def __init__(self, handler: Any, service: RecordingService) -> None:
        self._handler, self._service = handler, service

    def service(self, details: Any) -> Any:
        found = self._handler.service(details)
        if found is not None:
            sent = sorted((key, len(value)) for key, value in details.invocation_metadata)
            flags = [value[-2:] for key, value in details.invocation_metadata if key == "traceparent"]
            self._service.trace.append(("headers", *sent, *flags))
        return found


@pytest.mark.parametrize("call", ["predict, a row", "predict, items", "stream, array", "send"])
def test_a_traced_client_looks_the_same_whatever_it_decrypts(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.recording_service.RecordingService", HeadersToo)
    model, records = described(OPEN, layout="row"), SpanRecords()
    seen = dict[str, Any]()
    for name, (spoil, reply) in {"plain": PLAIN, **VARIANTS}.items():
        answer = Faults("none", reply)
        with set_up(records.provider), recording_service(model, answer) as service:
            answer.service = service
            with contextlib.suppress(SealserveError), Client(service.address, timeout_seconds=HANG_SECONDS) as client:
                CALLS[call](client, model, spoil)
        seen[name] = service.trace
    headers = [event for event in seen["plain"] if event[0] == "headers"]
    assert headers
    assert all(("traceparent", 55) in event and event[-1] == "01" for event in headers)
    assert {name for name, trace_ in seen.items() if trace_ != seen["plain"]} == set()


def test_the_header_of_a_call_is_random() -> None:
    """Ids of traces are the tracer's, and no function of rows."""
    records = SpanRecords()
    with set_up(records.provider), running_server(three_features()) as address, Client(address) as client:
        for _ in range(4):
            client.predict(np.zeros((1, 3)))
    ids = [span.context.trace_id for span in records.ended]
    assert len(set(ids)) == len(ids) >= 5
