"""Starvation: a caller takes what others need, with calls that never bring what they announce.

As it was, a caller could hold every slot of the process, for a minute. That is what the settings
`AS_IT_WAS` give back.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2_grpc

from sealserve._rpc.status import typed_error
from sealserve.credentials import Credentials
from sealserve.errors import IdleTimeoutError, ItemTimeoutError, QuotaExceededError, ServiceError
from sealserve.v1 import keys_pb2_grpc, model_pb2, model_pb2_grpc
from sealserve_service.rpc import interceptor, timed_read
from sealserve_service.rpc.servicers.keys import MAX_UPLOADS
from sealserve_service.scoring import caller_slots
from tests.support import http2
from tests.support.digits import Digits
from tests.support.identities import ALL, IdentitiesFile
from tests.support.raw import Message, RawClient, assert_error, assert_scores
from tests.support.serving import (
    HANG_SECONDS,
    SETTINGS,
    digits_registry,
    registered_keys,
    running_server,
)
from tests.support.waiting import wait_until

SERVING = health_pb2.HealthCheckResponse.SERVING
PREDICT = b"/sealserve.v1.PredictionService/Predict"
SLOTS = 32
BURST = 330  # headers without bodies
WATCHES = 8  # of one caller, such as all probes of this machine
AS_IT_WAS = {"waiting_calls": 10_000, "open_streams": 10_000, "concurrent_uploads": MAX_UPLOADS}
CAPS: dict[str, dict[str, Any]] = {"as it was": AS_IT_WAS, "as it is": {}}
each_cap = pytest.mark.parametrize("caps", CAPS)


class Service:
    """A service with two tenants, one of which attacks the other."""

    def __init__(self, address: str, tokens: dict[str, str]) -> None:
        self.address = address
        self.tokens = tokens

    def metadata(self, tenant: str) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.tokens[tenant]}"),)

    def raw(self, tenant: str) -> RawClient:
        return RawClient(self.address, credentials=Credentials(token=self.tokens[tenant]))

    def opening(self, path: bytes, count: int, tenant: str = "mallory") -> bytes:
        return http2.opening(path, count, authorization=f"Bearer {self.tokens[tenant]}")


@contextlib.contextmanager
def serving(digits: Digits, directory: Path, **changes: Any) -> Iterator[Service]:
    identities = IdentitiesFile(directory / "identities.toml", clinic=ALL, mallory=ALL)
    tokens = {name: identities.token(name) for name in ("clinic", "mallory")}
    settings = SETTINGS.with_changes(identities=identities.path, max_concurrent_calls=SLOTS, **changes)
    with running_server(
        digits_registry(digits.estimator, settings), settings, registered_keys(quota=settings.quota)
    ) as address:
        yield Service(address, tokens)


@pytest.fixture
def never() -> Iterator[Callable[[], Iterator[Any]]]:
    """Makes messages that do not come before the test has ended."""
    over = threading.Event()

    def messages() -> Iterator[Any]:
        over.wait(HANG_SECONDS)
        yield from ()

    yield messages
    over.set()


def refusal(call: Any) -> ServiceError | None:
    """The typed error with which a call fails; None if it succeeds."""
    try:
        call()
    except grpc.RpcError as error:
        found = typed_error(error)
        assert isinstance(found, ServiceError), found
        return found
    except ServiceError as error:
        return error
    return None


def read_quietly(connection: Any, received: bytearray) -> None:
    with contextlib.suppress(OSError):
        while part := connection.recv(1 << 16):
            received += part


# Calls without bodies


@each_cap
def test_headers_without_bodies(caps: str, digits_model: Digits, tmp_path: Path) -> None:
    with (
        serving(digits_model, tmp_path, **CAPS[caps]) as service,
        service.raw("clinic") as clinic,
        http2.connected(service.address, HANG_SECONDS) as connection,
    ):
        request, received = clinic.request(digits_model.X[0]), bytearray()
        reader = threading.Thread(target=read_quietly, args=(connection, received))
        reader.start()
        connection.sendall(service.opening(PREDICT, BURST))
        wait_until(lambda: b"waiting_calls" in received or b"concurrent_calls" in received)
        errors = [refusal(lambda: clinic.predict(request)) for _ in range(10)]
        connection.shutdown(2)
        reader.join()
    if caps == "as it was":
        assert_error(errors[-1], QuotaExceededError("concurrent_calls", 1.0))
    else:
        assert errors == [None] * 10


def test_a_caller_has_so_many_waiting_calls_whatever_the_method(
    digits_model: Digits, tmp_path: Path, never: Callable[[], Iterator[Any]]
) -> None:
    """The refusal is typed and has a delay. When calls have ended, there is room again."""
    methods = [f"v1.{name}" for name in ("PredictionService/Predict", "ModelService/GetModel", "KeyService/ListKeys")]
    methods.append("v1.KeyService/DeleteKey")
    with serving(digits_model, tmp_path, waiting_calls=3) as service, contextlib.ExitStack() as stack:
        channel = stack.enter_context(grpc.insecure_channel(service.address))
        calls: list[Any] = [
            channel.stream_unary(f"/sealserve.{method}", bytes, bytes).future(
                never(), metadata=service.metadata("mallory")
            )
            for method in methods
        ]
        models = model_pb2_grpc.ModelServiceStub(channel)

        def refused_or_not() -> ServiceError | None:
            get = models.GetModel
            return refusal(lambda: get(model_pb2.GetModelRequest(), metadata=service.metadata("mallory")))

        wait_until(lambda: sum(call.done() for call in calls) == 1)
        (refused,) = (call for call in calls if call.done())
        assert_error(typed_error(refused.exception()), QuotaExceededError("waiting_calls", 1.0))
        assert_error(refused_or_not(), QuotaExceededError("waiting_calls", 1.0))
        next(call for call in calls if not call.done()).cancel()
        wait_until(lambda: refused_or_not() is None)


def test_a_probe_is_answered_while_there_is_no_room(digits_model: Digits, tmp_path: Path) -> None:
    """A service without a free slot is alive: it must not be restarted for that."""
    with (
        serving(digits_model, tmp_path, waiting_calls=SLOTS) as service,
        service.raw("clinic") as clinic,
        grpc.insecure_channel(service.address) as channel,
        http2.connected(service.address, HANG_SECONDS) as connection,
    ):
        request = clinic.request(digits_model.X[0])
        # More than there are slots: those that arrive while the clinic has one are refused.
        connection.sendall(service.opening(PREDICT, 2 * SLOTS))
        wait_until(lambda: refusal(lambda: clinic.predict(request)) is not None)
        probe = health_pb2_grpc.HealthStub(channel).Check
        assert probe(health_pb2.HealthCheckRequest(), timeout=HANG_SECONDS).status == SERVING


# Uploads


@each_cap
def test_stalled_uploads(caps: str, digits_model: Digits, tmp_path: Path, never: Callable[[], Iterator[Any]]) -> None:
    with (
        serving(digits_model, tmp_path, **CAPS[caps]) as service,
        grpc.insecure_channel(service.address) as channel,
    ):
        register = keys_pb2_grpc.KeyServiceStub(channel).RegisterKey
        calls = [register.future(never(), metadata=service.metadata("mallory")) for _ in range(3 * MAX_UPLOADS)]
        bound = MAX_UPLOADS if caps == "as it was" else MAX_UPLOADS // 4
        wait_until(lambda: sum(call.done() for call in calls) == len(calls) - bound)
        for call in calls:
            if call.done():
                assert_error(typed_error(call.exception()), QuotaExceededError("concurrent_uploads", 1.0))
        error = refusal(lambda: register(iter(()), metadata=service.metadata("clinic")))
    assert isinstance(error, QuotaExceededError) is (caps == "as it was"), error


def test_uploads_are_charged_as_requests(digits_model: Digits, tmp_path: Path) -> None:
    with (
        serving(digits_model, tmp_path, requests_per_minute=2) as service,
        grpc.insecure_channel(service.address) as channel,
    ):
        register = keys_pb2_grpc.KeyServiceStub(channel).RegisterKey
        errors = [refusal(lambda: register(iter(()), metadata=service.metadata("mallory"))) for _ in range(3)]
    assert not any(isinstance(error, QuotaExceededError) for error in errors[:2]), errors
    assert isinstance(errors[2], QuotaExceededError)
    assert errors[2].quota == "requests_per_minute"


# Streams


@each_cap
def test_idle_streams(caps: str, digits_model: Digits, tmp_path: Path) -> None:
    with serving(digits_model, tmp_path, **CAPS[caps]) as service, contextlib.ExitStack() as stack:
        mallory, clinic = (stack.enter_context(service.raw(name)) for name in ("mallory", "clinic"))
        item, request = clinic.item(1, digits_model.X[0]), clinic.request(digits_model.X[0])
        calls = [stack.enter_context(mallory.conversation()).call for _ in range(SLOTS + 1)]
        bound = SLOTS if caps == "as it was" else SLOTS // 4
        wait_until(lambda: sum(call.done() for call in calls) == len(calls) - bound)
        if caps == "as it was":
            assert_error(refusal(lambda: clinic.predict(request)), QuotaExceededError("concurrent_calls", 1.0))
            assert_error(refusal(lambda: clinic.stream([item])), QuotaExceededError("server_streams", 1.0))
        else:
            assert_scores(clinic.predict(request), digits_model.scores[0])
            assert_scores(clinic.stream([item])[1], digits_model.scores[0])


@each_cap
def test_streams_of_reflection(
    caps: str, digits_model: Digits, tmp_path: Path, never: Callable[[], Iterator[Any]]
) -> None:
    """GRPC's own service waits for its next request without a limit."""
    with (
        serving(digits_model, tmp_path, **CAPS[caps]) as service,
        service.raw("clinic") as clinic,
        grpc.insecure_channel(service.address) as channel,
    ):
        request = clinic.request(digits_model.X[0])
        reflect = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        calls = [reflect(never(), metadata=service.metadata("mallory")) for _ in range(SLOTS + 1)]
        bound = SLOTS if caps == "as it was" else SLOTS // 4
        wait_until(lambda: sum(call.done() for call in calls) == len(calls) - bound)
        error = refusal(lambda: clinic.predict(request))
    assert isinstance(error, QuotaExceededError) is (caps == "as it was"), error


def test_a_stream_of_reflection_ends(digits_model: Digits, tmp_path: Path, never: Callable[[], Iterator[Any]]) -> None:
    with (
        serving(digits_model, tmp_path, item_timeout_seconds=0.25) as service,
        grpc.insecure_channel(service.address) as channel,
    ):
        reflect = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        error = refusal(lambda: list(reflect(never(), metadata=service.metadata("mallory"), timeout=HANG_SECONDS)))
    assert_error(error, ItemTimeoutError(0.25))


def test_watches_of_health_are_streams(digits_model: Digits, tmp_path: Path) -> None:
    """They last for as long as their client likes."""
    with serving(digits_model, tmp_path) as service, contextlib.ExitStack() as stack:
        channel = stack.enter_context(grpc.insecure_channel(service.address))
        watch = health_pb2_grpc.HealthStub(channel).Watch
        calls = [watch(health_pb2.HealthCheckRequest(), timeout=HANG_SECONDS) for _ in range(WATCHES + 1)]
        for call in calls:
            stack.callback(call.cancel)
        wait_until(lambda: sum(call.done() for call in calls) == 1)
        (refused,) = (call for call in calls if call.done())
        assert_error(typed_error(refused), QuotaExceededError("open_streams", 1.0))
        next(call for call in calls if not call.done()).cancel()
        again: list[Any] = []

        def is_admitted() -> bool:
            again.append(watch(health_pb2.HealthCheckRequest(), timeout=HANG_SECONDS))
            stack.callback(again[-1].cancel)
            try:
                return bool(next(again[-1]).status)
            except grpc.RpcError:
                return False

        wait_until(is_admitted)


@contextlib.contextmanager
def health_of_grpc() -> Iterator[str]:
    """The address of gRPC's health service as it comes, which ours was."""
    server = grpc.server(ThreadPoolExecutor(8))
    health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


@pytest.mark.parametrize("way", ["as it was", "as it is"])
def test_a_watch_whose_client_takes_no_reply(way: str, digits_server: str) -> None:
    """Its flow-control window is empty. As it was, the reply was sent under a lock.

    Every other call of the health service needs that lock, and so does gRPC's own thread, which
    serves all calls, when a watch ends.
    """
    window = http2.frame(http2.SETTINGS, 0, 0, (4).to_bytes(2, "big") + bytes(4))
    watch = http2.opening(b"/grpc.health.v1.Health/Watch").replace(http2.frame(http2.SETTINGS, 0, 0, b""), window, 1)
    with (
        contextlib.nullcontext(digits_server) if way == "as it is" else health_of_grpc() as address,
        http2.connected(address, HANG_SECONDS) as connection,
        grpc.insecure_channel(address) as channel,
    ):
        connection.sendall(watch + http2.frame(http2.DATA, http2.END_STREAM, 1, bytes(5)))
        http2_headers(connection)
        check = health_pb2_grpc.HealthStub(channel).Check
        if way == "as it is":
            assert check(health_pb2.HealthCheckRequest(), timeout=HANG_SECONDS).status == SERVING
        else:
            with pytest.raises(grpc.RpcError) as caught:
                check(health_pb2.HealthCheckRequest(), timeout=0.5)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def http2_headers(connection: Any) -> None:
    """Wait for the headers of the first reply on a connection; its message is held back."""
    received = b""
    while http2.HEADERS not in {kind for kind, *_ in http2.frames(received)}:
        received += connection.recv(1 << 16)


def test_messages_without_items_do_not_keep_a_stream_open(digits_model: Digits, tmp_path: Path) -> None:
    def nothing() -> Iterator[Message]:
        for _ in range(200):
            time.sleep(0.05)
            yield Message(item_id=1, cancel=True)

    with (
        serving(digits_model, tmp_path, idle_timeout_seconds=0.4) as service,
        service.raw("mallory") as mallory,
    ):
        call = mallory.predictions.StreamPredict(nothing(), timeout=HANG_SECONDS)
        with pytest.raises(IdleTimeoutError):
            list(mallory.answers(call))


# What is charged


def test_calls_that_bring_nothing_are_charged_as_requests(
    digits_model: Digits, tmp_path: Path, never: Callable[[], Iterator[Any]]
) -> None:
    """The attacker owes requests; the other tenant, of the same quota, does not."""
    changes = {"requests_per_minute": 2, "item_timeout_seconds": 0.2, "idle_timeout_seconds": 0.2}
    with (
        serving(digits_model, tmp_path, **changes) as service,
        service.raw("mallory") as mallory,
        service.raw("clinic") as clinic,
    ):
        request = clinic.request(digits_model.X[0])
        for error in [
            refusal(partial(bring_nothing, mallory, attack, never())) for attack in ("stall", "stall", "stream")
        ]:
            assert isinstance(error, ItemTimeoutError | IdleTimeoutError)
        error = refusal(lambda: bring_nothing(mallory, "stall", never()))
        assert isinstance(error, QuotaExceededError)
        assert error.quota == "requests_per_minute"
        assert 0 < error.retry_delay_seconds <= 60
        assert_scores(clinic.predict(request), digits_model.scores[0])


def bring_nothing(raw: RawClient, attack: str, messages: Iterator[Any]) -> None:
    if attack == "stall":
        raw.channel.stream_unary(PREDICT.decode(), bytes, bytes)(messages, timeout=HANG_SECONDS)
    else:
        list(raw.answers(raw.predictions.StreamPredict(messages, timeout=HANG_SECONDS)))


# Many callers


@pytest.mark.parametrize("is_shortened", [False, True], ids=["as it was", "as it is"])
def test_waits_are_shorter_while_slots_are_scarce(
    is_shortened: bool, digits_model: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many callers as slots: none of them exceeds its own bound."""
    monkeypatch.setattr(caller_slots, "_LEAST_WAIT_SECONDS", 0.2 if is_shortened else HANG_SECONDS)
    monkeypatch.setattr(timed_read, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(interceptor, "LOOK_SECONDS", 0.1)
    with (
        serving(digits_model, tmp_path, waiting_calls=SLOTS, item_timeout_seconds=HANG_SECONDS) as service,
        service.raw("clinic") as clinic,
        http2.connected(service.address, HANG_SECONDS) as connection,
    ):
        request, received = clinic.request(digits_model.X[0]), bytearray()
        reader = threading.Thread(target=read_quietly, args=(connection, received))
        reader.start()
        connection.sendall(service.opening(PREDICT, SLOTS + 1))
        wait_until(lambda: b"waiting_calls" in received)  # the last one is refused
        end = time.monotonic() + 3.0
        while refusal(lambda: clinic.predict(request)) is not None and time.monotonic() < end:
            time.sleep(0.05)
        error = refusal(lambda: clinic.predict(request))
        connection.shutdown(2)
        reader.join()
    assert (error is None) is is_shortened


# Addresses


@pytest.mark.parametrize("proxies", [(), ("127.0.0.0/8",)], ids=["none is trusted", "it is trusted"])
def test_strangers_behind_a_proxy_are_told_apart(proxies: tuple[str, ...], digits_model: Digits) -> None:
    """The proxy appends the address of its peer, whatever that has sent of its own."""
    settings = SETTINGS.with_changes(trusted_proxies=proxies, max_concurrent_calls=SLOTS)
    with (
        running_server(digits_registry(digits_model.estimator, settings), settings) as address,
        grpc.insecure_channel(address) as channel,
        http2.connected(address, HANG_SECONDS) as connection,
    ):
        models, received = model_pb2_grpc.ModelServiceStub(channel), bytearray()
        reader = threading.Thread(target=read_quietly, args=(connection, received))
        reader.start()
        connection.sendall(http2.opening(PREDICT, SLOTS // 2, x_forwarded_for="198.51.100.7, 192.0.2.1"))
        wait_until(lambda: b"waiting_calls" in received)

        def error_of(forwarded: str) -> ServiceError | None:
            metadata = (("x-forwarded-for", forwarded),)
            return refusal(lambda: models.GetModel(model_pb2.GetModelRequest(), metadata=metadata))

        assert_error(error_of("192.0.2.1"), QuotaExceededError("waiting_calls", 1.0))
        assert_error(error_of("192.0.2.2, 192.0.2.1"), QuotaExceededError("waiting_calls", 1.0))
        other = error_of("192.0.2.1, 198.51.100.7")
        connection.shutdown(2)
        reader.join()
    assert (other is None) is bool(proxies)
