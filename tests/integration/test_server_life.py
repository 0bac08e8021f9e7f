"""A server from its start to its orderly end, and what it loads."""

import subprocess
import sys

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from sealserve.client import Client
from sealserve.errors import DrainingError
from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.settings.errors import AddressError
from tests.support import http2
from tests.support.digits import Digits
from tests.support.raw import Message, RawClient, assert_error, assert_scores
from tests.support.serving import (
    HANG_SECONDS,
    SETTINGS,
    digits_registry,
    running,
    running_server,
    server_process,
)


def test_health_and_reflection_answer(raw: RawClient) -> None:
    health = health_pb2_grpc.HealthStub(raw.channel)
    for service in ("", "sealserve.v1.ModelService", "sealserve.v1.PredictionService"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=HANG_SECONDS)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    reflection = reflection_pb2_grpc.ServerReflectionStub(raw.channel)
    question = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = reflection.ServerReflectionInfo(iter([question]), timeout=HANG_SECONDS)
    names = {service.name for service in answer.list_services_response.service}
    assert {"sealserve.v1.ModelService", "sealserve.v1.PredictionService", "grpc.health.v1.Health"} <= names


def test_a_stopping_server_finishes_what_it_has_and_takes_no_more(digits_model: Digits) -> None:
    with (
        running(digits_registry(digits_model.estimator)) as server,
        RawClient(server.address) as raw,
        raw.conversation() as idle,
        raw.conversation() as busy,
    ):
        health = health_pb2_grpc.HealthStub(raw.channel).Watch(health_pb2.HealthCheckRequest(), timeout=HANG_SECONDS)
        assert next(health).status == health_pb2.HealthCheckResponse.SERVING
        begun = raw.item(2, digits_model.X[0])
        idle.send(raw.item(1, digits_model.X[1]))
        assert_scores(next(idle.answers)[1], digits_model.scores[1])
        busy.send(Message(item_id=2, header=begun.header))
        busy.send(raw.item(3, digits_model.X[3]))
        assert_scores(next(busy.answers)[1], digits_model.scores[3])

        stopped = server.begin_stop()
        assert next(health).status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(DrainingError):
            next(idle.answers)
        assert idle.call.code() is grpc.StatusCode.UNAVAILABLE
        with pytest.raises(DrainingError) as refused:
            raw.predict(raw.request(digits_model.X[0]))
        assert isinstance(refused.value.__cause__, grpc.RpcError)
        assert refused.value.__cause__.code() is grpc.StatusCode.UNAVAILABLE
        busy.send(raw.item(4, digits_model.X[0]))
        item_id, error = next(busy.answers)
        assert item_id == 4
        assert_error(error, DrainingError(1.0))
        assert not stopped.done()

        busy.send(Message(item_id=2, chunk=begun.chunk))
        item_id, scores = next(busy.answers)
        assert item_id == 2
        assert_scores(scores, digits_model.scores[0])
        with pytest.raises(DrainingError):
            next(busy.answers)
        assert busy.call.code() is grpc.StatusCode.UNAVAILABLE
        stopped.result(HANG_SECONDS)


def test_a_path_that_is_not_utf_8_harms_nothing_else(raw: RawClient, digits_server: str, digits_model: Digits) -> None:
    """Such a call stops grpcio's asyncio server permanently."""
    for path in (b"/x/\xff\xfe", b"\xff", b"/sealserve.v1.PredictionService/Predict\x80"):
        answer = http2.exchange(digits_server, http2.call(path, b""))
        assert answer, "the server speaks HTTP/2"
        assert_scores(raw.predict(raw.request(digits_model.X[0])), digits_model.scores[0])
        with Client(digits_server, timeout_seconds=HANG_SECONDS) as another:
            assert another.predict(digits_model.X[:1]) == digits_model.estimator.predict(digits_model.X[:1])


def test_a_port_in_use(digits_server: str) -> None:
    settings = SETTINGS.with_changes(address=digits_server)
    with pytest.raises(AddressError, match=digits_server), running_server(ModelRegistry([]), settings):
        pass


def test_a_serving_process_has_no_code_for_secret_keys(digits_model: Digits) -> None:
    with server_process() as (process, address):
        with Client(address, timeout_seconds=HANG_SECONDS) as client:
            assert client.predict(digits_model.X[:1]) == digits_model.estimator.predict(digits_model.X[:1])
        process.terminate()
        output, _ = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 0
    modules = set(output.split())
    assert {"sealserve_service.rpc.servicers", "sealserve_service.planning.planner"} <= modules
    assert not [name for name in modules if name.startswith(("sealserve.he.secret", "sealserve.secret_key"))]
    assert not {"sealserve.client", "sealserve.aio"} & modules


def test_the_sdk_does_not_import_the_service() -> None:
    code = "import sys, sealserve.client; print(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    modules = output.split()
    assert "sealserve.client" in modules
    assert not [name for name in modules if name.startswith(("sealserve_service", "sklearn"))]
