"""Health that anyone may ask: the probes of strangers are answered, and nothing else changes.

A proxy that is trusted names the callers here, so that they are not of this machine.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sealserve._rpc.channel import open_channel
from sealserve.credentials import Credentials
from sealserve.v1 import model_pb2, model_pb2_grpc
from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.rpc import interceptor
from sealserve_service.rpc.interceptor import _MAX_STRANGERS_PROBES
from sealserve_service.tenants.authenticator import HEALTH
from tests.support.identities import ALL, IdentitiesFile
from tests.support.serving import HANG_SECONDS, SETTINGS, linear, running_server, served

CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
WHOLE = b""
MODELS = health_pb2.HealthCheckRequest(service="sealserve.v1.ModelService").SerializeToString()
KEYS = health_pb2.HealthCheckRequest(service="sealserve.v1.KeyService").SerializeToString()
SERVING = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING).SerializeToString()
STRANGER = (("x-forwarded-for", "192.0.2.7"),)

# What a stranger may try: a method, its messages, metadata.
TRIED: dict[str, tuple[str, Sequence[bytes], Sequence[tuple[str, str]]]] = {
    "a service's health": (CHECK, [MODELS], ()),
    "whether keys are served": (CHECK, [KEYS], ()),
    "a service that is not there": (CHECK, [health_pb2.HealthCheckRequest(service="x").SerializeToString()], ()),
    "no message": (CHECK, [], ()),
    "no such message": (CHECK, [b"\xff\xff"], ()),
    "a wrong token": (CHECK, [WHOLE], [("authorization", "Bearer x")]),
    "two tokens": (CHECK, [WHOLE], [("authorization", "Bearer x"), ("authorization", "Bearer y")]),
    "changes of health": (WATCH, [WHOLE], ()),
    "changes of a service's": (WATCH, [KEYS], ()),
    "all health": ("/grpc.health.v1.Health/List", [WHOLE], ()),
    "another method": ("/grpc.health.v1.Health/Chec", [WHOLE], ()),
    "models": ("/sealserve.v1.ModelService/ListModels", [b""], ()),
    "a prediction": ("/sealserve.v1.PredictionService/Predict", [b""], ()),
    "reflection": ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", [b""], ()),
    "a request id": (CHECK, [MODELS], [("x-request-id", "mine")]),
}

Answer = tuple[list[bytes], grpc.StatusCode, str, list[tuple[str, Any]]]


@contextmanager
def service(path: Path, *, is_public: bool = True, **changes: Any) -> Iterator[tuple[str, Credentials]]:
    file = IdentitiesFile(path / "identities.toml", clinic=ALL)
    credentials = Credentials(token=file.token("clinic"))
    settings = SETTINGS.with_changes(
        identities=file.path, trusted_proxies=("127.0.0.0/8",), public_health=is_public, **changes
    )
    with running_server(ModelRegistry([served("line", linear([[1.0]]))]), settings) as address:
        yield address, credentials


def asked(channel: grpc.Channel, method: str, messages: Sequence[bytes], *metadata: tuple[str, str]) -> Answer:
    """Call a method, and return all that comes back."""
    call = channel.stream_stream(method, _as_is, _as_is)(
        iter(messages), timeout=HANG_SECONDS, metadata=(*STRANGER, *metadata)
    )
    received = []
    try:
        for reply in call:
            received.append(reply)
            call.cancel()  # type: ignore[no-untyped-call]  # in the stubs; a watch has no end
    except grpc.RpcError:
        pass
    kept = [(key, value) for key, value in call.trailing_metadata() or () if key != "date"]
    return received, call.code(), call.details(), kept


def _as_is(data: bytes) -> bytes:
    return data


def test_a_stranger_learns_whether_the_server_serves_and_nothing_else(tmp_path: Path) -> None:
    with (
        service(tmp_path) as (address, _),
        service(tmp_path, is_public=False) as (closed_address, _),
        grpc.insecure_channel(address) as public,
        grpc.insecure_channel(closed_address) as closed,
    ):
        health = health_pb2_grpc.HealthStub(public)
        answer = health.Check(health_pb2.HealthCheckRequest(), metadata=STRANGER, timeout=HANG_SECONDS)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        found = asked(public, CHECK, [WHOLE], ("x-request-id", "mine"))
        assert found[0] == [SERVING]
        assert found[3] == [], "no request id: it would tell what service answers"
        received, code, text, metadata = asked(closed, CHECK, [WHOLE])
        assert (received, code) == ([], grpc.StatusCode.UNAUTHENTICATED)
        for name, (method, messages, extra) in TRIED.items():
            for channel in (public, closed):
                assert asked(channel, method, messages, *extra) == (received, code, text, metadata), name


def test_probes_of_anyone_must_not_be_those_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The attack on an exemption that is too wide: a stranger finds services, and watches them."""
    monkeypatch.setattr(interceptor, "is_local_probe", lambda method, *_: method.startswith(HEALTH))
    with service(tmp_path) as (address, _), grpc.insecure_channel(address) as channel:
        for name in ("a service's health", "changes of health"):
            method, messages, _ = TRIED[name]
            assert asked(channel, method, messages)[0] == [SERVING], name


def silent(channel: grpc.Channel, host: str, count: int) -> list[Any]:
    """Begin checks of a stranger that never send their message."""
    calls = []
    for _ in range(count):
        outbox = _Silence()
        call = channel.stream_stream(CHECK, _as_is, _as_is)(
            outbox, timeout=HANG_SECONDS, metadata=(("x-forwarded-for", host),)
        )
        calls.append((call, outbox))
    return calls


class _Silence:
    """Requests that do not come until `end` is called."""

    def __init__(self) -> None:
        self._ended = threading.Event()

    def __iter__(self) -> "_Silence":
        return self

    def __next__(self) -> bytes:
        self._ended.wait(HANG_SECONDS)
        raise StopIteration

    def end(self) -> None:
        self._ended.set()


def test_silent_strangers_keep_nobody_out(tmp_path: Path) -> None:
    """One address has a quarter of the slots of strangers; they have none of callers."""
    with (
        service(tmp_path, max_concurrent_calls=8) as (address, credentials),
        grpc.insecure_channel(address) as channel,
        open_channel(address, credentials) as clinic,
    ):
        calls = silent(channel, "192.0.2.66", _MAX_STRANGERS_PROBES)
        try:
            assert asked(channel, CHECK, [WHOLE])[0] == [SERVING]
            models = model_pb2_grpc.ModelServiceStub(clinic)
            for _ in range(8):
                models.GetModel(model_pb2.GetModelRequest(), timeout=HANG_SECONDS, metadata=STRANGER)
            # None of them holds its slot for long, and what it learns is what any stranger learns.
            codes = {_code(call) for call, _ in calls}
        finally:
            for _, outbox in calls:
                outbox.end()
        assert codes == {grpc.StatusCode.UNAUTHENTICATED}


def _code(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError):
        list(call)
    code: grpc.StatusCode = call.code()
    return code


def test_a_stranger_who_sends_nothing_again_and_again_is_refused_early(tmp_path: Path) -> None:
    """Such calls are counted, as those of callers are, and only on their own address's account."""
    with service(tmp_path, empty_calls_per_minute=3.0) as (address, _), grpc.insecure_channel(address) as channel:
        for _ in range(5):
            assert asked(channel, CHECK, [])[1] is grpc.StatusCode.UNAUTHENTICATED
        assert asked(channel, CHECK, [WHOLE])[1] is grpc.StatusCode.UNAUTHENTICATED
        other = channel.unary_unary(CHECK, _as_is, _as_is)
        assert other(WHOLE, timeout=HANG_SECONDS, metadata=(("x-forwarded-for", "192.0.2.8"),)) == SERVING
