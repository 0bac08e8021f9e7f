"""Unexpected faults: each RPC ends with the same typed error, and the next call is answered."""

import hashlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from sealserve._rpc.status import typed_error
from sealserve.errors import InternalError
from sealserve.he.layouts import LAYOUTS
from sealserve.protocol.key_record import KeyHeader, KeyKind
from sealserve.protocol.wire import key_header_to_proto
from sealserve.secret_key import SecretKey
from sealserve.v1 import keys_pb2, keys_pb2_grpc, model_pb2, model_pb2_grpc, prediction_pb2
from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.keys.registered_keys import RegisteredKeys
from sealserve_service.keys.stores.memory import MemoryKeyStore
from sealserve_service.rpc.servicers import keys as key_servicer
from sealserve_service.rpc.servicers import models as model_servicer
from sealserve_service.scoring.item import ScoringItem
from sealserve_service.scoring.table import ItemTable
from sealserve_service.telemetry import call_record
from sealserve_service.tenants.authenticator import Authenticator
from tests.support.digits import Digits
from tests.support.ei_user import EIUser
from tests.support.raw import Message, RawClient
from tests.support.registered_keys import record_of
from tests.support.serving import HANG_SECONDS, digits_registry, registered_keys, running_server
from tests.support.step_models import served_with_steps

LOG_TEXT = "a text that only the log may hold"
KEY = b"some bytes"
TIMEOUT = {"timeout": HANG_SECONDS}


@dataclass(frozen=True)
class Service:
    """A server with a model and a key, ways to call it, and what there is to send."""

    raw: RawClient
    keys: Any
    key_id: str
    row: Any
    evaluation_keys: bytes

    def upload(self) -> Iterator[keys_pb2.RegisterKeyRequest]:
        data = self.evaluation_keys
        header = KeyHeader(
            key_id=hashlib.sha256(data).hexdigest(),
            kind=KeyKind.EVALUATION_KEYS,
            parameter_set="ei-8192",
            byte_count=len(data),
        )
        yield keys_pb2.RegisterKeyRequest(header=key_header_to_proto(header))
        for offset in range(0, len(data), 1 << 20):
            chunk = keys_pb2.KeyChunk(offset=offset, data=data[offset : offset + (1 << 20)])
            yield keys_pb2.RegisterKeyRequest(chunk=chunk)


def public_key() -> keys_pb2.PutKeyRequest:
    """A public encryption key, for PutKey: evaluation keys are too long for it."""
    parameter_set = LAYOUTS["row"].private_parameter_sets[0]
    data = SecretKey.generate(parameter_set).public_encryption_key
    header = KeyHeader(
        key_id=hashlib.sha256(data).hexdigest(),
        kind=KeyKind.PUBLIC_ENCRYPTION_KEY,
        parameter_set=parameter_set.name,
        byte_count=len(data),
    )
    return keys_pb2.PutKeyRequest(header=key_header_to_proto(header), data=data)


@pytest.fixture(scope="module")
def service(digits_model: Digits, ei_user: EIUser) -> Iterator[Service]:
    store = MemoryKeyStore(64 << 20)
    record = store.put(record_of(KEY, "anonymous"), KEY)
    models = digits_registry(digits_model.estimator)
    with (
        running_server(models, keys=registered_keys(store)) as address,
        RawClient(address) as raw,
    ):
        keys = keys_pb2_grpc.KeyServiceStub(raw.channel)
        yield Service(raw, keys, record.key_id, digits_model.X[0], ei_user.evaluation_keys)


def answered(call: Any) -> Any:
    """Read the whole answer to a stream and return the call."""
    for answer in call:
        assert not answer.HasField("error"), answer
    return call


def stream(service: Service, metadata: Any) -> Any:
    messages: list[Message] = [service.raw.item(1, service.row), service.raw.item(2, service.row)]
    return answered(service.raw.predictions.StreamPredict(iter(messages), metadata=metadata, **TIMEOUT))


def unary(method: Callable[[Service], Any], request: Callable[[Service], Any]) -> Callable[[Service, Any], Any]:
    """Return what calls a method with one reply and returns the call."""

    def send(service: Service, metadata: Any) -> Any:
        return method(service).with_call(request(service), metadata=metadata, **TIMEOUT)[1]

    return send


def get_input_steps(_: Service, metadata: Any) -> Any:
    """Get the steps of a model, of a service of its own: that of digits has none."""
    served = served_with_steps()
    request = model_pb2.GetInputStepsRequest(model=served.model.name, steps_id=served.model.steps_id)
    with running_server(ModelRegistry([served])) as address, grpc.insecure_channel(address) as channel:
        call = model_pb2_grpc.ModelServiceStub(channel).GetInputSteps(request, metadata=metadata, **TIMEOUT)
        assert b"".join(answer.piece for answer in call) == served.steps
        return call


RPCS: dict[str, tuple[Callable[[Service, Any], Any], tuple[object, str]]] = {
    "ModelService/GetModel": (
        unary(lambda service: service.raw.models.GetModel, lambda _: model_pb2.GetModelRequest()),
        (model_servicer, "model_to_proto"),
    ),
    "ModelService/ListModels": (
        unary(lambda service: service.raw.models.ListModels, lambda _: model_pb2.ListModelsRequest()),
        (model_servicer, "model_to_proto"),
    ),
    "ModelService/GetInputSteps": (get_input_steps, (ModelRegistry, "get")),
    "PredictionService/Predict": (
        unary(lambda service: service.raw.predictions.Predict, lambda service: service.raw.request(service.row)),
        (ScoringItem, "score"),
    ),
    "PredictionService/StreamPredict": (stream, (ItemTable, "receive")),
    "KeyService/RegisterKey": (
        unary(lambda service: service.keys.RegisterKey, lambda service: service.upload()),
        (RegisteredKeys, "finish"),
    ),
    "KeyService/PutKey": (
        unary(lambda service: service.keys.PutKey, lambda _: public_key()),
        (RegisteredKeys, "finish"),
    ),
    "KeyService/GetKey": (
        unary(lambda service: service.keys.GetKey, lambda service: keys_pb2.GetKeyRequest(key_id=service.key_id)),
        (key_servicer, "key_to_proto"),
    ),
    "KeyService/ListKeys": (
        unary(lambda service: service.keys.ListKeys, lambda _: keys_pb2.ListKeysRequest()),
        (key_servicer, "key_to_proto"),
    ),
    "KeyService/DeleteKey": (
        unary(lambda service: service.keys.DeleteKey, lambda service: keys_pb2.DeleteKeyRequest(key_id=service.key_id)),
        (MemoryKeyStore, "delete"),
    ),
}
"""By name: what makes the call, and what to break in the middle of it."""


def failure(send: Callable[[Service, Any], Any], service: Service, *metadata: tuple[str, str]) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        send(service, metadata)
    return caught.value


def logged(caplog: pytest.LogCaptureFixture, request_id: str) -> tuple[list[logging.LogRecord], dict[str, Any]]:
    """The logged faults of a call, and the facts of its own line, which follows the answer."""
    end = time.monotonic() + HANG_SECONDS
    while time.monotonic() < end:
        records = list(caplog.records)
        ends = [record for record in records if record.name == call_record.__name__ and record.msg == "call"]
        for ended in ends:
            if ended.__dict__["fields"]["request_id"] == request_id:
                assert ended.levelname == "WARNING"
                faults = [record for record in records if record.getMessage() == f"request {request_id} failed"]
                return faults, ended.__dict__["fields"]
        time.sleep(0.01)
    raise AssertionError("the call has left no line")


def assert_internal_error(error: Any, request_id: str) -> None:
    """Check status, text, details and trailing metadata of a failed call."""
    assert error.code() is grpc.StatusCode.INTERNAL
    assert LOG_TEXT not in error.details()
    detail = typed_error(error)
    assert isinstance(detail, InternalError)
    assert detail.request_id == request_id
    assert dict(error.trailing_metadata())[call_record.REQUEST_ID] == request_id


def test_every_rpc_is_here() -> None:
    services = {name for file in (model_pb2, prediction_pb2, keys_pb2) for name in file.DESCRIPTOR.services_by_name}
    methods = {
        f"{name}/{method.name}"
        for file in (model_pb2, prediction_pb2, keys_pb2)
        for name, service in file.DESCRIPTOR.services_by_name.items()
        for method in service.methods
    }
    assert len(services) == 3
    assert set(RPCS) == methods


@pytest.mark.parametrize("name", RPCS)
def test_a_fault_in_the_middle_of_a_call(
    service: Service, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    send, (owner, attribute) = RPCS[name]

    def broken(*_: object) -> Any:
        raise ZeroDivisionError(LOG_TEXT)

    with monkeypatch.context() as patch, caplog.at_level(logging.DEBUG, "sealserve_service"):
        patch.setattr(owner, attribute, broken)
        assert_internal_error(failure(send, service, (call_record.REQUEST_ID, "find-me")), "find-me")
        error = failure(send, service)
        made = dict(error.trailing_metadata())[call_record.REQUEST_ID]
        assert_internal_error(error, made)
        for request_id in ("find-me", made):
            (fault,), facts = logged(caplog, request_id)
            assert fault.levelname == "ERROR"
            assert fault.exc_info is not None
            assert isinstance(fault.exc_info[1], ZeroDivisionError)
            assert facts["method"] == f"/sealserve.v1.{name}"
            assert (facts["status"], facts["refusals"]) == ("INTERNAL", {"InternalError": 1})
    assert send(service, ()).code() is grpc.StatusCode.OK


def test_a_fault_while_a_caller_is_authenticated(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also later, at a message of a stream; another one then finds the same service."""
    whole: Any = Authenticator.authenticate
    send, _ = RPCS["PredictionService/StreamPredict"]
    for calls_before in (0, 1):
        count = iter(range(100))

        def broken(*_: object, count: Iterator[int] = count, calls_before: int = calls_before) -> Any:
            if next(count) >= calls_before:
                raise ZeroDivisionError(LOG_TEXT)
            return whole(*_)

        with monkeypatch.context() as patch:
            patch.setattr(Authenticator, "authenticate", broken)
            assert_internal_error(failure(send, service, (call_record.REQUEST_ID, "find-me")), "find-me")
    assert send(service, ()).code() is grpc.StatusCode.OK


def test_a_fault_before_the_method_is_called(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Any:
        raise RuntimeError(LOG_TEXT)

    send, _ = RPCS["ModelService/GetModel"]
    with monkeypatch.context() as patch:
        patch.setattr("sealserve_service.rpc.interceptor.CallInterceptor._receive_request", broken)
        assert_internal_error(failure(send, service, (call_record.REQUEST_ID, "find-me")), "find-me")
    assert send(service, ()).code() is grpc.StatusCode.OK
