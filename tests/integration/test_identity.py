"""Tenants over real sockets: a stranger learns nothing, a tenant sees only what is its own.

Tokens change while the service runs.
"""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from sealserve._rpc.channel import open_channel
from sealserve._rpc.connections import Connections, call
from sealserve._rpc.methods import Methods
from sealserve._rpc.status import typed_error
from sealserve.client import Client
from sealserve.credentials import Credentials
from sealserve.ei import EIClient
from sealserve.errors import (
    KeyNotFoundError,
    ModelNotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from sealserve.he.layouts import LAYOUTS
from sealserve.key_registry import KeyRegistry
from sealserve.protocol.item import ItemHeader
from sealserve.protocol.wire import header_to_proto
from sealserve.v1 import keys_pb2, model_pb2, prediction_pb2
from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.tenants import authenticator
from sealserve_service.tenants.identities import new_token
from tests.support import http2
from tests.support.digits import Digits
from tests.support.ei_user import EIUser
from tests.support.identities import ALL, IdentitiesFile
from tests.support.raw import RawClient, assert_error, assert_scores
from tests.support.serving import HANG_SECONDS, SETTINGS, linear, registered_keys, running_server, served

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Service:
    """A server of three models.

    The clinic may use digits and line, the lab all, the guest line only.
    """

    address: str
    file: IdentitiesFile
    credentials: dict[str, Credentials]

    def knows(self, credentials: Credentials) -> bool:
        try:
            with Client(self.address, model="line", credentials=credentials, timeout_seconds=HANG_SECONDS) as client:
                return bool(client.model.name == "line")
        except UnauthenticatedError:
            return False


@pytest.fixture
def service(digits_model: Digits, tmp_path: Path) -> Iterator[Service]:
    file = IdentitiesFile(
        tmp_path / "identities.toml",
        clinic='models = ["digits", "line"]\nlist_models = true',
        lab=ALL,
        guest='models = ["line"]',
    )
    credentials = {tenant: Credentials(token=file.token(tenant)) for tenant in ("clinic", "lab", "guest")}
    keys = registered_keys()
    registry = ModelRegistry(
        [
            served("digits", digits_model.estimator, input_step=1 / 16, keys=keys),
            served("line", linear([[1.0, -2.0]], [0.5]), keys=keys),
            served("secret", linear([[3.0, 4.0]]), input_step=1 / 16, keys=keys),
        ]
    )
    with running_server(registry, SETTINGS.with_changes(identities=file.path), keys) as address:
        yield Service(address, file, credentials)


def eventually(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + HANG_SECONDS
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def client_of(service: Service, credentials: Credentials, model: str = "line") -> Client:
    return Client(service.address, model=model, credentials=credentials, timeout_seconds=HANG_SECONDS)


def registry_of(service: Service, credentials: Credentials) -> KeyRegistry:
    return KeyRegistry(service.address, credentials=credentials, timeout_seconds=HANG_SECONDS)


# Strangers

METHODS = [
    *(
        f"{service.full_name}/{method.name}"
        for file in (model_pb2, prediction_pb2, keys_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ),
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "sealserve.v1.ModelService/NoSuchMethod",
    "no.such.Service/Method",
]


def failure(channel: grpc.Channel, method: str, *messages: bytes) -> Any:
    """How a call of a method with any bytes fails."""
    call = channel.stream_stream(f"/{method}", _as_is, _as_is)(iter(messages), timeout=HANG_SECONDS)
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    return caught.value


def _as_is(data: bytes) -> bytes:
    return data


def test_a_stranger_learns_nothing(service: Service) -> None:
    """Any method, with any credentials and messages, has the same answer."""
    refused = {
        "no token": Credentials(),
        "a wrong one": Credentials(token=new_token()),
        "an expired one": Credentials(token=service.file.token("lab", LONG_AGO)),
        "a revoked one": Credentials(token=service.file.token("lab", None, "revoked = true")),
    }
    good = service.file.token("lab")
    eventually(lambda: service.knows(Credentials(token=good)))  # and so the others
    answers = set()
    for credentials in refused.values():
        with open_channel(service.address, credentials) as channel:
            for method in METHODS:
                for messages in ((), (b"",), (b"\xff\xff",), (bytes(5 << 20),)):
                    error = failure(channel, method, *messages)
                    answers.add((error.code(), error.details(), tuple(error.initial_metadata()), _trailers(error)))
                    assert type(typed_error(error)) is UnauthenticatedError
    text = "the call has no valid credentials: send a valid token or client certificate"
    assert answers == {(grpc.StatusCode.UNAUTHENTICATED, text, (), ())}


def _trailers(error: Any) -> tuple[Any, ...]:
    return tuple(error.trailing_metadata())


def test_a_stranger_gets_the_same_bytes_from_every_method(service: Service) -> None:
    answers = {tuple(_answered(service.address, http2.call(f"/{method}".encode(), b"")) for method in METHODS)}
    (of_methods,) = answers
    assert len(set(of_methods)) == 1
    assert b"sealserve" not in of_methods[0]


def _answered(address: str, data: bytes) -> bytes:
    with http2.connected(address, HANG_SECONDS) as connection:
        connection.sendall(data)
        return b"".join(bytes([kind, flags]) + payload for kind, flags, _, payload in http2.answer(connection))


def test_a_stranger_is_refused_before_its_request_has_come(service: Service) -> None:
    for method in METHODS:
        with http2.connected(service.address, HANG_SECONDS) as connection:
            connection.sendall(http2.opening(f"/{method}".encode()))
            assert b"the call has no valid credentials" in b"".join(frame[3] for frame in http2.answer(connection))


def test_a_probe_of_this_machine_asks_for_health_only(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    request = health_pb2.HealthCheckRequest()
    with open_channel(service.address) as channel, open_channel(service.address, service.credentials["guest"]) as known:
        health = health_pb2_grpc.HealthStub(channel)
        assert health.Check(request, timeout=HANG_SECONDS).status == health_pb2.HealthCheckResponse.SERVING
        assert next(health.Watch(request, timeout=HANG_SECONDS)).status == health_pb2.HealthCheckResponse.SERVING

        monkeypatch.setattr(authenticator, "is_loopback", lambda _: False)  # as if from another machine
        with pytest.raises(grpc.RpcError) as caught:
            health.Check(request, timeout=HANG_SECONDS)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.RpcError) as caught:
            next(health.Watch(request, timeout=HANG_SECONDS))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        health = health_pb2_grpc.HealthStub(known)
        assert health.Check(request, timeout=HANG_SECONDS).status == health_pb2.HealthCheckResponse.SERVING
        assert next(health.Watch(request, timeout=HANG_SECONDS)).status == health_pb2.HealthCheckResponse.SERVING


def test_a_tenant_may_ask_for_the_services(service: Service) -> None:
    question = reflection_pb2.ServerReflectionRequest(list_services="")
    with open_channel(service.address, service.credentials["guest"]) as channel:
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        (answer,) = reflection.ServerReflectionInfo(iter([question]), timeout=HANG_SECONDS)
        assert len(answer.list_services_response.service) == 5
        assert failure(channel, "no.such.Service/Method", b"").code() is grpc.StatusCode.UNIMPLEMENTED


# Tenants


def test_a_tenant_predicts_with_its_models(service: Service, digits_model: Digits) -> None:
    with client_of(service, service.credentials["clinic"], "digits") as client:
        assert (
            client.predict(digits_model.X[:9]).tolist() == digits_model.estimator.predict(digits_model.X[:9]).tolist()
        )
        assert [model.name for model in client.models()] == ["digits", "line"]
    with client_of(service, service.credentials["guest"], "") as client:
        assert client.predict([[1.0, 0.5]]) == pytest.approx([0.5], abs=1e-2)


def test_a_foreign_model_is_not_there(service: Service) -> None:
    """It is not there even for one who knows all about it: the error is that of no such model."""
    lab, guest = service.credentials["lab"], service.credentials["guest"]
    with RawClient(service.address, "secret", lab) as raw, open_channel(service.address, guest) as channel:
        request = raw.request(np.array([0.25, 0.5]))
        message = raw.item(1, np.array([0.25, 0.5]))
        assert_scores(raw.predict(request), np.array([2.75]))
        for name in ("secret", "nix"):
            request.header.model = message.header.model = name
            predicted = failure(channel, "sealserve.v1.PredictionService/Predict", request.SerializeToString())
            assert predicted.code() is grpc.StatusCode.NOT_FOUND
            assert_error(typed_error(predicted), ModelNotFoundError(name))
            (*_, end) = channel.stream_stream(
                "/sealserve.v1.PredictionService/StreamPredict",
                prediction_pb2.StreamPredictRequest.SerializeToString,
                prediction_pb2.StreamPredictResponse.FromString,
            )(iter([message]), timeout=HANG_SECONDS)
            assert end.error.model_not_found.model == name
            with client_of(service, guest, name) as client, pytest.raises(ModelNotFoundError) as caught:
                client.predict([[0.25, 0.5]])
            expected = ModelNotFoundError(name)
            expected.served = ()  # the guest may not list them
            assert_error(caught.value, expected)


def test_permissions(service: Service) -> None:
    guest, clinic = service.credentials["guest"], service.credentials["clinic"]
    with client_of(service, guest) as client, pytest.raises(PermissionDeniedError) as caught:
        list(client.models())
    assert_error(caught.value, PermissionDeniedError("list_models"))
    assert isinstance(caught.value.__cause__, grpc.RpcError)
    assert caught.value.__cause__.code() is grpc.StatusCode.PERMISSION_DENIED
    with registry_of(service, clinic) as registry:
        with pytest.raises(PermissionDeniedError) as caught:
            registry.register(b"no matter what")
        assert_error(caught.value, PermissionDeniedError("register_keys"))
        assert list(registry.list()) == []


def test_a_foreign_key_is_not_there(service: Service, ei_user: EIUser) -> None:
    lab, clinic = service.credentials["lab"], service.credentials["clinic"]
    row = np.array([1.0, 0.5])
    with (
        registry_of(service, lab) as own,
        registry_of(service, clinic) as foreign,
        EIClient(service.address, model="line", client=ei_user.client, credentials=lab) as client,
        open_channel(service.address, clinic) as channel,
    ):
        record = own.register(ei_user.evaluation_keys)
        assert record.tenant == "lab"
        assert list(own.list()) == [record]
        asked: list[Callable[[], object]] = [
            lambda: foreign.get(record.key_id),
            lambda: foreign.delete(record.key_id),
        ]
        for ask in asked:
            with pytest.raises(KeyNotFoundError):
                ask()
        assert list(foreign.list()) == []

        model = client.model
        header = ItemHeader(
            model="line",
            config_id=model.config_id,
            layout=LAYOUTS["ei-slots"],
            parameter_set="ei-8192",
            row_count=1,
            ciphertext_count=1,
            key_id=record.key_id,
        )
        request = prediction_pb2.PredictRequest(header=header_to_proto(header), ciphertexts=ei_user.encrypt(row))
        connections = Connections(lambda: Methods(channel), lambda _: None)
        with pytest.raises(KeyNotFoundError) as caught:
            call(connections, "predict_serialized", request.SerializeToString(), HANG_SECONDS)
        assert_error(caught.value, KeyNotFoundError(record.key_id))
        assert isinstance(caught.value.__cause__, grpc.RpcError)
        assert caught.value.__cause__.code() is grpc.StatusCode.NOT_FOUND
        assert client.predict([row]) == pytest.approx([0.5], abs=1e-3)


# Tokens that change


def test_a_token_that_is_revoked_ends_its_streams(service: Service, digits_model: Digits) -> None:
    lab = service.credentials["lab"]
    with RawClient(service.address, "digits", lab) as raw, raw.conversation() as stream:
        stream.send(raw.item(1, digits_model.X[0]))
        assert_scores(next(stream.answers)[1], digits_model.scores[0])
        service.file.revoke_all()
        eventually(lambda: not service.knows(lab))
        stream.send(raw.item(2, digits_model.X[0]))
        with pytest.raises(UnauthenticatedError):
            next(stream.answers)
        assert stream.call.code() is grpc.StatusCode.UNAUTHENTICATED


def test_streams_outlive_changes_and_damage_of_the_file(
    service: Service, digits_model: Digits, caplog: pytest.LogCaptureFixture
) -> None:
    lab = service.credentials["lab"]
    with RawClient(service.address, "digits", lab) as raw, raw.conversation() as stream:
        stream.send(raw.item(1, digits_model.X[0]))
        assert_scores(next(stream.answers)[1], digits_model.scores[0])
        new = Credentials(token=service.file.token("lab"))
        eventually(lambda: service.knows(new))
        service.file.path.write_text("[tenants.")
        eventually(lambda: service.knows(lab) and "stays in force" in caplog.text)
        assert service.knows(new)
        stream.send(raw.item(2, digits_model.X[0]))
        assert_scores(next(stream.answers)[1], digits_model.scores[0])
        newer = Credentials(token=service.file.token("lab"))
        eventually(lambda: service.knows(newer))
        assert [record.levelno for record in caplog.records if "in force" in record.message] == [logging.ERROR]
        stream.send(raw.item(3, digits_model.X[0]))
        assert_scores(next(stream.answers)[1], digits_model.scores[0])


def test_a_model_that_is_taken_away(service: Service, digits_model: Digits, tmp_path: Path) -> None:
    clinic = service.credentials["clinic"]
    with RawClient(service.address, "digits", clinic) as raw, raw.conversation() as stream:
        stream.send(raw.item(1, digits_model.X[0]))
        assert_scores(next(stream.answers)[1], digits_model.scores[0])
        service.file.path.write_text(service.file.path.read_text().replace('"digits", ', ""))
        with client_of(service, clinic) as client:
            eventually(lambda: [model.name for model in client.models()] == ["line"])
        stream.send(raw.item(2, digits_model.X[0]))
        item_id, answer = next(stream.answers)
        assert item_id == 2
        assert_error(answer, ModelNotFoundError("digits"))
