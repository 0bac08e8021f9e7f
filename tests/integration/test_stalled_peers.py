"""Stalled peers: connections, calls and streams that fall silent or trickle.

Headers beyond the limits are refused.
"""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from sealserve._rpc.status import typed_error
from sealserve.errors import IdleTimeoutError, ItemTimeoutError, ServiceError
from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.settings import Settings
from tests.support import http2
from tests.support.certificates import Authority
from tests.support.digits import Digits
from tests.support.raw import Message, RawClient, assert_error, assert_scores
from tests.support.serving import HANG_SECONDS, SETTINGS, digits_registry, running_server, with_limits

SOON_SECONDS = 0.4
IMPATIENT = with_limits(item_timeout_seconds=SOON_SECONDS, idle_timeout_seconds=SOON_SECONDS)
METHODS = [
    "sealserve.v1.PredictionService/Predict",
    "sealserve.v1.ModelService/GetModel",
    "sealserve.v1.ModelService/ListModels",
    "sealserve.v1.ModelService/GetInputSteps",
    "grpc.health.v1.Health/Check",
    "grpc.health.v1.Health/Watch",
]


@pytest.fixture(scope="module")
def impatient_server(digits_model: Digits) -> Iterator[str]:
    with running_server(digits_registry(digits_model.estimator, IMPATIENT), IMPATIENT) as address:
        yield address


@pytest.fixture
def raw(impatient_server: str) -> Iterator[RawClient]:
    with RawClient(impatient_server) as raw:
        yield raw


@contextlib.contextmanager
def silence() -> Iterator[Callable[[], Iterator[bytes]]]:
    """Makes messages that never come."""
    end = threading.Event()

    def never() -> Iterator[bytes]:
        end.wait(HANG_SECONDS)
        yield from ()

    try:
        yield never
    finally:
        end.set()


def as_is(data: bytes) -> bytes:
    return data


def failure(raw: RawClient, method: str, messages: Iterator[bytes]) -> ServiceError:
    with pytest.raises(grpc.RpcError) as caught:
        list(raw.channel.stream_stream(f"/{method}", as_is, as_is)(messages, timeout=HANG_SECONDS))
    assert isinstance(caught.value, grpc.RpcError)
    error = typed_error(caught.value)
    assert isinstance(error, ServiceError)
    return error


# Calls


@pytest.mark.parametrize("method", METHODS)
def test_a_call_whose_request_does_not_come(raw: RawClient, digits_model: Digits, method: str) -> None:
    with silence() as never:
        assert_error(failure(raw, method, never()), ItemTimeoutError(SOON_SECONDS))
    assert_scores(raw.predict(raw.request(digits_model.X[0])), digits_model.scores[0])


@pytest.mark.parametrize("method", METHODS)
def test_a_call_that_ends_before_its_request(raw: RawClient, method: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(raw.channel.stream_stream(f"/{method}", as_is, as_is)(iter(()), timeout=HANG_SECONDS))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("method", "why"),
    [("Predict", b"the rest of the request did not come"), ("StreamPredict", b"nothing came on the stream")],
)
def test_a_request_that_trickles(
    impatient_server: str, raw: RawClient, digits_model: Digits, method: str, why: bytes
) -> None:
    """The bytes come one by one, and none of them is late."""
    request = raw.request(digits_model.X[0]).SerializeToString()
    message = b"\0" + len(request).to_bytes(4, "big") + request
    with http2.connected(impatient_server, HANG_SECONDS) as connection:
        connection.sendall(http2.opening(f"/sealserve.v1.PredictionService/{method}".encode()))
        trickle = threading.Thread(target=send_slowly, args=(connection, message))
        trickle.start()
        end = http2.answer(connection)
        connection.shutdown(socket.SHUT_RDWR)
        trickle.join()
    assert why in b"".join(payload for *_, payload in end)
    assert_scores(raw.predict(raw.request(digits_model.X[0])), digits_model.scores[0])


def send_slowly(connection: socket.socket, message: bytes) -> None:
    pause = threading.Event()
    with contextlib.suppress(OSError):
        for byte in message:
            connection.sendall(http2.frame(http2.DATA, 0, 1, bytes([byte])))
            pause.wait(0.02)


def test_more_stalled_calls_than_the_server_has_room_for(raw: RawClient, digits_model: Digits) -> None:
    """They are refused in the end, not served for ever; then there is room again."""
    with silence() as never:
        calls = [
            raw.channel.stream_stream(f"/{METHODS[0]}", as_is, as_is)(never(), timeout=HANG_SECONDS)
            for _ in range(SETTINGS.max_concurrent_calls + 20)
        ]
        codes = {call.code() for call in calls}
    assert codes <= {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert_scores(raw.predict(raw.request(digits_model.X[0])), digits_model.scores[0])


# Streams


def test_a_stream_without_items_ends(raw: RawClient) -> None:
    with raw.conversation() as stream:
        with pytest.raises(IdleTimeoutError) as caught:
            next(stream.answers)
        assert_error(caught.value, IdleTimeoutError(SOON_SECONDS))
        assert stream.call.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_stream_that_falls_silent_ends(raw: RawClient, digits_model: Digits) -> None:
    with raw.conversation() as stream:
        stream.send(raw.item(1, digits_model.X[0]))
        assert_scores(next(stream.answers)[1], digits_model.scores[0])
        with pytest.raises(IdleTimeoutError):
            next(stream.answers)


def test_an_item_that_stalls_ends_and_its_stream_after_it(raw: RawClient, digits_model: Digits) -> None:
    with raw.conversation() as stream:
        stream.send(Message(item_id=1, header=raw.item(1, digits_model.X[0]).header))
        item_id, error = next(stream.answers)
        assert item_id == 1
        assert_error(error, ItemTimeoutError(SOON_SECONDS))
        with pytest.raises(IdleTimeoutError):
            next(stream.answers)


# Connections


@pytest.fixture(params=["plaintext", "TLS"])
def hasty_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a server that gives a connection half a second to begin."""
    files: dict[str, Any] = {}
    if request.param == "TLS":
        files["tls_certificate"], files["tls_private_key"] = Authority("a").issue("service").write(tmp_path)
    settings = Settings(address=SETTINGS.address, handshake_timeout_seconds=0.5, **files)
    with running_server(ModelRegistry([]), settings) as address:
        yield address


CLIENT_HELLO = bytes.fromhex("160301 0200 01 0001fc 0303")  # and 506 more bytes, which do not come


@pytest.mark.parametrize(
    "sent", [b"", b"P", CLIENT_HELLO, http2.PREFACE], ids=["nothing", "a byte", "hello", "preface"]
)
def test_a_connection_that_does_not_begin_is_closed(hasty_server: str, sent: bytes) -> None:
    with http2.connected(hasty_server, HANG_SECONDS) as connection:
        connection.sendall(sent)
        assert closed(connection)


def closed(connection: socket.socket) -> bool:
    """Wait until the server closes a connection; an error if it does not."""
    try:
        while connection.recv(1 << 16):
            pass
    except ConnectionError:
        pass
    return True


# Headers


@pytest.mark.parametrize(
    "metadata",
    [
        [("bomb", "x" * 100_000)],
        [("bomb", "x" * 17_000)],
        [(f"bomb-{number}", "x" * 100) for number in range(1000)],
        [("bomb-bin", b"\0" * 50_000)],
        [("authorization", "Bearer " + "x" * 50_000)],
    ],
    ids=["one long", "one over the limit", "many", "binary", "a token"],
)
def test_headers_beyond_the_limit(
    digits_server: str, digits_model: Digits, metadata: list[tuple[str, str | bytes]]
) -> None:
    with RawClient(digits_server) as raw:
        request = raw.request(digits_model.X[0])
        with pytest.raises(grpc.RpcError) as caught:
            raw.predictions.Predict(request, timeout=HANG_SECONDS, metadata=metadata)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert_scores(raw.predict(request), digits_model.scores[0])


def test_headers_within_the_limit_are_never_refused(digits_server: str, digits_model: Digits) -> None:
    """By itself gRPC refuses some calls from half of its limit on, at random."""
    with RawClient(digits_server) as raw:
        request = raw.request(digits_model.X[0])
        for _ in range(40):
            raw.predictions.Predict(request, timeout=HANG_SECONDS, metadata=[("long", "x" * 15_000)])
