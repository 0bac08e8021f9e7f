"""Traces: what client and service say of one call, in OpenTelemetry's spans, over real gRPC.

`tests/attacks/test_traces.py` is about something else: what a service sees of a client.
"""

import asyncio
import contextlib
import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind

from sealserve._rpc.cancellation import Cancellation
from sealserve._rpc.channel import open_aio_channel, open_channel
from sealserve._rpc.connections import Connections, call
from sealserve._rpc.methods import Methods
from sealserve._rpc.pieces import PiecesRequest
from sealserve.aio import AsyncClient
from sealserve.client import Client
from sealserve.credentials import Credentials
from sealserve.errors import (
    InputMismatchError,
    KeyStoreUnavailableError,
    ModelNotFoundError,
    ParameterError,
    QuotaExceededError,
    SealserveError,
)
from sealserve.v1 import keys_pb2, model_pb2, prediction_pb2
from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.keys.stores.memory import MemoryKeyStore
from sealserve_service.telemetry.spans import Spans
from tests.support.digits import Digits
from tests.support.identities import ALL, IdentitiesFile
from tests.support.programs import serve
from tests.support.raw import Message, RawClient
from tests.support.serving import (
    HANG_SECONDS,
    SETTINGS,
    digits_registry,
    linear,
    registered_keys,
    running_server,
    served,
)
from tests.support.span_records import SpanRecords, parent_id, set_up, span_id, status

ROWS = np.linspace(0, 1, 15).reshape(5, 3)
SERVICES = [
    service for file in (model_pb2, keys_pb2, prediction_pb2) for service in file.DESCRIPTOR.services_by_name.values()
]
PREDICT, STREAM = "sealserve.v1.PredictionService/Predict", "sealserve.v1.PredictionService/StreamPredict"


def three_features() -> ModelRegistry:
    return ModelRegistry([served("line", linear(np.ones((2, 3))))])


@pytest.fixture
def ours() -> Iterator[SpanRecords]:
    """The spans of the application that calls."""
    records = SpanRecords()
    with set_up(records.provider):
        yield records


@pytest.fixture
def theirs() -> SpanRecords:
    """The spans of the service."""
    return SpanRecords()


def pairs(ours: SpanRecords, theirs: SpanRecords) -> list[tuple[ReadableSpan, ReadableSpan]]:
    """Each call of the client with what the service says of it: its only child."""
    calls = ours.wait_for_all(SpanKind.CLIENT)
    answered = theirs.wait_for_all(SpanKind.SERVER, len(calls))
    by_parent = {parent_id(span): span for span in answered}
    assert len(by_parent) == len(answered) == len(calls) > 0
    return [(span, by_parent[span_id(span)]) for span in calls]


def in_a_loop(act: Callable[[AsyncClient], Any], address: str, **options: Any) -> None:
    """Act with an asynchronous client."""

    async def main() -> None:
        async with AsyncClient(address, **options) as client:
            await act(client)

    asyncio.run(main())


# Statuses


class DeadStore(MemoryKeyStore):
    """A key store that does not answer."""

    def __init__(self) -> None:
        super().__init__(1 << 20)

    def get(self, *_: Any) -> Any:
        raise KeyStoreUnavailableError(10 * HANG_SECONDS)  # so that nobody comes again

    def put(self, *_: Any) -> Any:
        raise KeyStoreUnavailableError(10 * HANG_SECONDS)  # so that nobody comes again


def _ok(client: Any) -> Any:
    return client.predict(ROWS[:1])


def _over_the_quota(client: Any) -> None:
    for _ in range(2):
        client.send(client.encrypt(ROWS[:1]))


async def _over_the_quota_later(client: AsyncClient) -> None:
    for _ in range(2):
        await client.send(await client.encrypt(ROWS[:1]))


def _registers(client: Any) -> Any:
    return client.register_key()


STATUSES: dict[str, tuple[Any, Any, type[SealserveError] | None]] = {
    "OK": (_ok, _ok, None),
    "NOT_FOUND": (_ok, _ok, ModelNotFoundError),
    "RESOURCE_EXHAUSTED": (_over_the_quota, _over_the_quota_later, QuotaExceededError),
    "UNAVAILABLE": (_registers, _registers, KeyStoreUnavailableError),
}


@pytest.mark.parametrize("is_async", [False, True], ids=["threads", "asyncio"])
@pytest.mark.parametrize("code", STATUSES)
def test_client_and_service_agree_on_the_status(
    code: str, is_async: bool, ours: SpanRecords, theirs: SpanRecords, tmp_path: Path
) -> None:
    act, act_later, error = STATUSES[code]
    file = IdentitiesFile(tmp_path / "identities.toml", clinic=f"{ALL}\nquota = {{ rows_per_minute = 1 }}", lab=ALL)
    tenant = "clinic" if code == "RESOURCE_EXHAUSTED" else "lab"
    options: dict[str, Any] = {"credentials": Credentials(token=file.token(tenant))}
    if code == "NOT_FOUND":
        options["model"] = "nothing"
    keys, models = None, three_features()
    if code == "UNAVAILABLE":
        keys = registered_keys(DeadStore())
        models = ModelRegistry([served("line", linear(np.ones((2, 3))), keys=keys, hiding_bits=20)])
    settings = SETTINGS.with_changes(identities=file.path)
    with running_server(models, settings, keys, spans=Spans(theirs.provider)) as address:
        try:
            if is_async:
                in_a_loop(act_later, address, **options)
            else:
                with Client(address, **options) as client:
                    act(client)
            raised: type[BaseException] | None = None
        except SealserveError as failure:
            raised = type(failure)
        found = pairs(ours, theirs)
    assert raised is error
    assert code in {status(span) for span, _ in found}
    for client_span, server_span in found:
        assert status(client_span) == status(server_span)
        assert client_span.name == server_span.name
        assert client_span.context.trace_id == server_span.context.trace_id
        # OpenTelemetry's conventions: what a caller has done wrong is no error of a service.
        assert client_span.status.is_ok is (status(client_span) == "OK")
        assert server_span.status.is_ok is (status(server_span) != "UNAVAILABLE")


def test_a_call_that_is_broken_off_is_cancelled_at_both_ends(ours: SpanRecords, theirs: SpanRecords) -> None:
    with running_server(three_features(), spans=Spans(theirs.provider)) as address, Client(address) as client:
        stream = client.stream(itertools.repeat(ROWS[0]))
        next(stream)
        stream.close()
        ended = {span.name: (span, other) for span, other in pairs(ours, theirs)}
    assert [status(span) for span in ended[STREAM]] == ["CANCELLED", "CANCELLED"]


# Streams


@pytest.mark.parametrize("is_async", [False, True], ids=["threads", "asyncio"])
def test_items_of_a_stream_are_children_of_its_call_and_that_of_the_callers_span(
    is_async: bool, ours: SpanRecords, theirs: SpanRecords
) -> None:
    tracer = ours.provider.get_tracer("application")

    async def drain(client: AsyncClient) -> None:
        assert len([each async for each in client.stream(ROWS)]) == len(ROWS)

    with running_server(three_features(), spans=Spans(theirs.provider)) as address:
        with tracer.start_as_current_span("application") as own:
            if is_async:
                in_a_loop(drain, address, connections=1)
            else:
                with Client(address, connections=1) as client:
                    assert len(list(client.stream(ROWS))) == len(ROWS)
        found = {span.name: (span, other) for span, other in pairs(ours, theirs)}
        theirs.wait_for(len(found) + len(ROWS))
    ours_of_stream, theirs_of_stream = found[STREAM]
    assert parent_id(ours_of_stream) == own.get_span_context().span_id
    items = [span for span in theirs.ended if span.name == "sealserve.item"]
    assert len(items) == len(ROWS)
    call = theirs_of_stream
    assert call.start_time is not None
    assert call.end_time is not None
    for item in items:
        assert parent_id(item) == span_id(call)
        assert item.context.trace_id == own.get_span_context().trace_id
        assert item.start_time is not None
        assert item.end_time is not None
        assert call.start_time <= item.start_time < item.end_time <= call.end_time
        assert item.attributes is not None
        assert (item.attributes["sealserve.model"], item.attributes["sealserve.rows"]) == ("line", 1)
    assert call.attributes is not None
    assert (call.attributes["sealserve.items"], call.attributes["sealserve.rows"]) == (len(ROWS), len(ROWS))


def test_an_item_that_is_refused_has_a_span_that_says_why(digits_model: Digits, theirs: SpanRecords) -> None:
    with (
        running_server(digits_registry(digits_model.estimator), spans=Spans(theirs.provider)) as address,
        RawClient(address) as raw,
    ):
        good = raw.item(1, digits_model.X[0])
        begun, short = Message(item_id=2, header=good.header), Message(item_id=3, header=good.header)
        short.header.ciphertext_count += 1
        raw.stream([good, begun, short])
        items = [span for span in theirs.wait_for(5) if span.name == "sealserve.item"]
    said = [(item.status.is_ok, (item.attributes or {}).get("error.type")) for item in items]
    assert sorted(said, key=str) == sorted(
        [(True, None), (False, InputMismatchError.__name__), (False, InputMismatchError.__name__)], key=str
    )
    assert {"sealserve.rows" in (item.attributes or {}) for item in items} == {True, False}, "one never began"


def test_an_item_in_a_call_of_its_own_has_one_span(ours: SpanRecords, theirs: SpanRecords) -> None:
    with running_server(three_features(), spans=Spans(theirs.provider)) as address, Client(address) as client:
        client.predict(ROWS[:1])
        ((_, predicted),) = [pair for pair in pairs(ours, theirs) if pair[0].name == PREDICT]
        assert [span.name for span in theirs.ended].count("sealserve.item") == 0
    said: Any = predicted.attributes
    assert (said["sealserve.model"], said["sealserve.layout"], said["sealserve.rows"]) == ("line", "row", 1)
    assert said["sealserve.arithmetic_seconds"] > 0
    assert "sealserve.tenant" not in said, "nobody is known here"


# Other ways to call


def test_a_call_that_another_thread_may_end_has_a_span(ours: SpanRecords, theirs: SpanRecords) -> None:
    """The agent calls so."""
    with running_server(three_features(), spans=Spans(theirs.provider)) as address:
        connections = Connections(lambda: Methods(open_channel(address)), lambda each: each.channel.close())
        call(connections, "get_model", model_pb2.GetModelRequest(), HANG_SECONDS, cancellation=Cancellation())
        request = model_pb2.GetModelRequest(model="nothing")
        with pytest.raises(ModelNotFoundError):
            call(connections, "get_model", request, HANG_SECONDS, cancellation=Cancellation())
        assert [status(span) for pair in pairs(ours, theirs) for span in pair] == ["OK"] * 2 + ["NOT_FOUND"] * 2
        connections.close()


def requests() -> dict[str, tuple[Any, ...]]:
    """A request of each method, by its name in Methods."""
    return {
        "get_model": (model_pb2.GetModelRequest(),),
        "list_models": (model_pb2.ListModelsRequest(),),
        "get_input_steps": (PiecesRequest(model_pb2.GetInputStepsRequest(), 1),),
        "get_key": (keys_pb2.GetKeyRequest(),),
        "list_keys": (keys_pb2.ListKeysRequest(),),
        "delete_key": (keys_pb2.DeleteKeyRequest(),),
        "register_key": ([],),
        "predict_serialized": (b"",),
        "stream_predict": (iter(()),),
        "stream_predict_serialized": (iter(()),),
    }


async def ask_all(address: str) -> None:
    """Call each method once, with asyncio."""
    methods = Methods(open_aio_channel(address))
    for name, arguments in requests().items():
        with contextlib.suppress(grpc.RpcError, ParameterError):
            begun = getattr(methods, name)(*arguments, timeout=HANG_SECONDS)
            if name.startswith("stream"):
                assert [each async for each in begun]
            else:
                await begun
    await methods.channel.close()


@pytest.mark.parametrize("is_async", [False, True], ids=["threads", "asyncio"])
def test_each_method_has_a_span_of_its_own_name(is_async: bool, ours: SpanRecords, theirs: SpanRecords) -> None:
    keys = registered_keys()
    with running_server(three_features(), keys=keys, spans=Spans(theirs.provider)) as address:
        if is_async:
            asyncio.run(ask_all(address))
        else:
            methods = Methods(open_channel(address))
            for name, arguments in requests().items():
                with contextlib.suppress(grpc.RpcError, ParameterError):
                    begun = getattr(methods, name)(*arguments, timeout=HANG_SECONDS)
                    assert not name.startswith("stream") or list(begun)
            methods.channel.close()
        found = pairs(ours, theirs)
    assert len(found) == len(requests())
    for client_span, server_span in found:
        assert client_span.name == server_span.name
        assert status(client_span) == status(server_span)
    methods_of_service = {f"{s.full_name}/{m.name}" for s in SERVICES for m in s.methods}
    assert {span.name for span, _ in found} == methods_of_service - {"sealserve.v1.KeyService/PutKey"}


# What travels


class HeaderSpans(Spans):
    """Remembers the headers of calls, too."""

    def __init__(self, records: SpanRecords) -> None:
        super().__init__(records.provider)
        self.headers = list[list[tuple[str, str | bytes]]]()

    def begin(self, method: str, tenant: str, metadata: Any) -> Any:
        """Begin a span."""
        self.headers.append(list(metadata))
        return super().begin(method, tenant, metadata)


def test_a_call_brings_one_header_and_no_baggage(ours: SpanRecords, theirs: SpanRecords) -> None:
    spans = HeaderSpans(theirs)
    token = context.attach(baggage.set_baggage("patient", "Jane"))
    try:
        with running_server(three_features(), spans=spans) as address, Client(address) as client:
            client.predict(ROWS[:1])
            list(client.stream(ROWS))
    finally:
        context.detach(token)
    assert len(spans.headers) >= 3
    for headers in spans.headers:
        assert {key for key, _ in headers} == {"user-agent", "traceparent"}
        (sent,) = [value for key, value in headers if key == "traceparent"]
        assert len(sent) == 55
    assert len({value for headers in spans.headers for key, value in headers if key == "traceparent"}) == len(
        spans.headers
    )


def test_no_header_is_sent_where_the_application_wants_none(
    ours: SpanRecords, theirs: SpanRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OTEL_PROPAGATORS=none."""
    spans = HeaderSpans(theirs)
    monkeypatch.setattr(propagate, "get_global_textmap", lambda: CompositePropagator([]))
    with running_server(three_features(), spans=spans) as address, Client(address) as client:
        client.predict(ROWS[:1])
        theirs.wait_for(2)
    assert not any(key == "traceparent" for headers in spans.headers for key, _ in headers)
    assert {span.parent for span in theirs.ended} == {None}
    assert ours.of_kind(SpanKind.CLIENT)


# Off


def test_without_a_provider_calls_are_grpcs_own() -> None:
    channel = open_channel("127.0.0.1:1")
    methods = Methods(channel)
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    for name in ("get_model", "stream_predict", "predict_serialized", "stream_predict_serialized"):
        assert type(getattr(methods, name)).__module__ == "grpc._channel", name
    channel.close()


OFF = """
import sys
import numpy as np
from sealserve import Client
with Client(sys.argv[1]) as client:
    client.predict(np.zeros((1, 64)))
    list(client.stream(np.zeros((2, 64))))
print(*(name for name in sys.modules if name.startswith("opentelemetry")))
"""


def test_neither_end_loads_opentelemetry_unless_it_is_wanted(digits_model: Digits) -> None:
    """The service's own process is asked at its end."""
    code = "import tests.support.serving as s; s._serve_digits()"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout
        address = service.stdout.readline().strip()
        found = subprocess.run([sys.executable, "-c", OFF, address], capture_output=True, text=True, check=True)
        service.terminate()
        modules = service.stdout.read().split()
    assert found.stdout.strip() == ""
    assert "sealserve_service.telemetry.call_record" in modules
    assert [name for name in modules if name.startswith("opentelemetry")] == []


# Export


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """An OpenTelemetry collector, as far as a service needs one."""

    def __init__(self) -> None:
        self.requests = list[trace_service_pb2.ExportTraceServiceRequest]()

    def Export(self, request: Any, _: grpc.ServicerContext) -> Any:  # noqa: N802  # named in its protos
        """Take spans."""
        self.requests.append(request)
        return trace_service_pb2.ExportTraceServiceResponse()

    @property
    def spans(self) -> list[Any]:
        """All spans so far."""
        return [span for r in self.requests for each in r.resource_spans for s in each.scope_spans for span in s.spans]


@pytest.fixture
def collector() -> Iterator[tuple[Collector, str]]:
    """A collector, and its address."""
    server, servicer = grpc.server(ThreadPoolExecutor(2)), Collector()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer, f"http://127.0.0.1:{port}"
    server.stop(0).wait()


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    path = tmp_path / "line.npz"
    np.savez(path, coef=np.ones((2, 3)), intercept=np.zeros(2))
    return path


def test_a_service_exports_by_the_standard_variables_and_what_is_left_when_it_ends(
    collector: tuple[Collector, str], model_file: Path
) -> None:
    servicer, url = collector
    variables = {
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_ENDPOINT": url,
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
        "OTEL_BSP_SCHEDULE_DELAY": "600000",  # only the end exports
    }
    with (
        serve(f"--model={model_file}", "--input-range=0,1", **variables) as program,
        Client(program.address) as client,
    ):
        client.predict(ROWS[:1])
        assert servicer.spans == []
        program.process.terminate()
        assert program.process.wait(HANG_SECONDS) == 0
    assert {span.name for span in servicer.spans} == {"sealserve.v1.ModelService/GetModel", PREDICT}
    (resource,) = [each.resource for request in servicer.requests for each in request.resource_spans]
    said = {each.key: each.value.string_value for each in resource.attributes}
    assert (said["service.name"], said["deployment.environment.name"]) == ("sealserve", "test")


@contextlib.contextmanager
def black_hole() -> Iterator[str]:
    """The address of one who takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def test_a_collector_that_never_answers_delays_no_call_and_no_end(model_file: Path) -> None:
    with black_hole() as address:
        variables = {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{address}"}
        variables |= {"OTEL_BSP_SCHEDULE_DELAY": "10", "OTEL_BSP_MAX_QUEUE_SIZE": "8"}
        variables |= {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4"}
        with (
            serve(f"--model={model_file}", "--input-range=0,1", **variables) as program,
            Client(program.address, timeout_seconds=5.0) as client,
        ):
            for _ in range(20):
                client.predict(ROWS[:1])
            program.process.terminate()
            assert program.process.wait(10.0) == 0


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "smoke"}, "grpc or http/protobuf"),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
            "install opentelemetry-exporter-otlp-proto-http",
        ),
    ],
)
def test_what_cannot_export_does_not_start(variables: dict[str, str], said: str, model_file: Path) -> None:
    command = [sys.executable, "-m", "sealserve.cli.main", "serve", "--model", str(model_file), "--input-range=0,1"]
    ended = subprocess.run(
        [*command, "--address=127.0.0.1:0", "--weights=open"],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=HANG_SECONDS,
    )
    assert ended.returncode != 0
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
