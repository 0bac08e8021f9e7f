"""Calls in vain: a caller opens hundreds of calls anew each second, and brings nothing with them.

As it was, each refusal of such a call took a thread, and the threads competed with other tenants'
calls for the GIL. `as_it_was` gives that back. Without a bound for calls that bring nothing, a
quarter of all streams was opened for the caller each time.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sealserve._rpc.status import typed_error
from sealserve.client import Client
from sealserve.credentials import Credentials
from sealserve.errors import ModelNotFoundError, QuotaExceededError, ServiceError
from sealserve.v1 import model_pb2, model_pb2_grpc
from sealserve_service.rpc import interceptor
from sealserve_service.rpc.threads import CallThreads
from sealserve_service.settings import Settings
from sealserve_service.telemetry.metrics import Telemetry
from tests.support import http2
from tests.support.digits import Digits
from tests.support.identities import ALL, IdentitiesFile
from tests.support.raw import Message, RawClient, assert_scores, chunk
from tests.support.serving import HANG_SECONDS, SETTINGS, digits_registry, registered_keys, running_server
from tests.support.waiting import wait_until

SLOTS = 32
OWN_SLOTS = SLOTS // 4
OPENED = 100  # at once, on one connection
STREAMS, CALLERS = 64, 256  # of an honest client
STREAM = b"/sealserve.v1.PredictionService/StreamPredict"
PREDICT = b"/sealserve.v1.PredictionService/Predict"
UPLOAD = b"/sealserve.v1.KeyService/RegisterKey"
UNKNOWN = b"/sealserve.v1.PredictionService/Nothing"
UNBOUNDED = 1e9

each_way = pytest.mark.parametrize("way", ["as it was", "as it is"])


@pytest.fixture
def _way(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if way == "as it was":
        monkeypatch.setattr(interceptor, "_EARLY_SECONDS", 0.0)


class Threads:
    """Counts the calls that took a thread."""

    def __init__(self) -> None:
        self.taken = 0


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Threads:
    counted, submit = Threads(), CallThreads.submit

    def counting(pool: CallThreads, *args: Any, **kwargs: Any) -> Any:
        counted.taken += pool._name == "call"
        return submit(pool, *args, **kwargs)

    monkeypatch.setattr(CallThreads, "submit", counting)
    return counted


class Service:
    """A service with two tenants, one of which attacks the other."""

    def __init__(self, address: str, tokens: dict[str, str], telemetry: Telemetry) -> None:
        self.address = address
        self.tokens = tokens
        self._telemetry = telemetry

    def raw(self, tenant: str) -> RawClient:
        return RawClient(self.address, credentials=Credentials(token=self.tokens[tenant]))

    @contextlib.contextmanager
    def opened(self, path: bytes, still_open: int, token: str = "", **metadata: str) -> Iterator[Counter[str]]:
        """Open calls on one connection; give how those ended that have, once so many have not."""
        fields = metadata or {"authorization": f"Bearer {token or self.tokens['mallory']}"}
        opening = http2.opening(path, OPENED, **fields).removeprefix(http2.PREFACE)
        settings = http2.frame(http2.SETTINGS, 0, 0, b"")
        ends = http2.Ends()
        with http2.connected(self.address, HANG_SECONDS) as connection:
            connection.sendall(http2.literal_preface() + opening.removeprefix(settings))
            while len(ends.by_stream) < OPENED - still_open:
                part = connection.recv(1 << 16)
                assert part, "the connection is closed"
                ends.receive(part)
            yield Counter(ends.by_stream.values())

    def wait_until_idle(self, path: bytes) -> None:
        """Wait until all calls of a method have ended."""
        labels = {"method": path.decode()}
        wait_until(lambda: not self._telemetry.registry.get_sample_value("sealserve_calls_in_flight", labels))


@contextlib.contextmanager
def serving(digits: Digits, directory: Path, **changes: Any) -> Iterator[Service]:
    identities = IdentitiesFile(directory / "identities.toml", clinic=ALL, mallory=ALL)
    tokens = {name: identities.token(name) for name in ("clinic", "mallory")}
    settings = SETTINGS.with_changes(
        **{"identities": identities.path, "max_concurrent_calls": SLOTS, "empty_calls_per_minute": UNBOUNDED} | changes
    )
    models, telemetry = digits_registry(digits.estimator, settings), Telemetry()
    with running_server(models, settings, registered_keys(quota=settings.quota), telemetry) as address:
        yield Service(address, tokens, telemetry)


# What is refused


@each_way
@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize(
    ("path", "held", "status"),
    [
        (STREAM, OWN_SLOTS, "RESOURCE_EXHAUSTED"),
        (PREDICT, OWN_SLOTS, "RESOURCE_EXHAUSTED"),
        (UPLOAD, 2, "RESOURCE_EXHAUSTED"),
        (UNKNOWN, 0, "UNIMPLEMENTED"),
    ],
    ids=["streams", "calls without bodies", "uploads", "an unknown method"],
)
def test_calls_beyond_what_a_caller_may_hold_take_no_thread(
    way: str, path: bytes, held: int, status: str, digits_model: Digits, tmp_path: Path, threads: Threads
) -> None:
    with serving(digits_model, tmp_path) as service, service.raw("clinic") as clinic:
        request = clinic.request(digits_model.X[0])
        with service.opened(path, held):  # the first that are refused have threads
            threads.taken = 0
            with service.opened(path, 0) as ends:
                assert ends == {status: OPENED}
                assert threads.taken == (OPENED if way == "as it was" else 0)
                assert_scores(clinic.predict(request), digits_model.scores[0])


@each_way
@pytest.mark.usefixtures("_way")
def test_calls_of_strangers_take_no_thread(way: str, digits_model: Digits, tmp_path: Path, threads: Threads) -> None:
    with serving(digits_model, tmp_path) as service, service.raw("clinic") as clinic:
        for _ in range(2):
            threads.taken = 0
            with service.opened(STREAM, 0, token="sealserve-unknown") as ends:  # nobody's
                assert ends == {"UNAUTHENTICATED": OPENED}
        assert threads.taken == (OPENED if way == "as it was" else 0)
        assert_scores(clinic.predict(clinic.request(digits_model.X[0])), digits_model.scores[0])


# What is counted


@pytest.mark.parametrize(
    ("path", "held"),
    [(STREAM, OWN_SLOTS), (PREDICT, OWN_SLOTS), (UPLOAD, 2)],
    ids=["streams", "calls without bodies", "uploads"],
)
@each_way
def test_a_caller_of_many_empty_calls_may_hold_none(
    way: str, path: bytes, held: int, digits_model: Digits, tmp_path: Path, threads: Threads
) -> None:
    """A stream that is opened takes two threads, and a reply that says so: more than a refusal."""
    bound = UNBOUNDED if way == "as it was" else 1.5 * held
    with (
        serving(digits_model, tmp_path, empty_calls_per_minute=bound) as service,
        service.raw("clinic") as clinic,
        service.raw("mallory") as mallory,
    ):
        request = clinic.request(digits_model.X[0])
        for _ in range(2):
            with service.opened(path, held):
                pass
            service.wait_until_idle(path)
        if way == "as it is":
            with pytest.raises(grpc.RpcError) as caught:
                mallory.models.GetModel(model_pb2.GetModelRequest())
            error = typed_error(caught.value)
            assert isinstance(error, QuotaExceededError)
            assert error.quota == "empty_calls_per_minute"
            assert 0 < error.retry_delay_seconds <= 60
        threads.taken = 0
        with service.opened(path, held if way == "as it was" else 0) as ends:
            assert_scores(clinic.predict(request), digits_model.scores[0])
        if way == "as it was":
            assert ends == {"RESOURCE_EXHAUSTED": OPENED - held}
        else:
            assert threads.taken == 1, "the clinic's"
            # Those of a caller that still goes on are broken off.
            assert ends.keys() <= {"RESOURCE_EXHAUSTED", "CANCELLED"}
            assert ends["CANCELLED"] > OPENED / 2


def test_those_behind_a_proxy_are_told_apart(digits_model: Digits, threads: Threads) -> None:
    """An address of many empty calls is refused early, and others that the proxy names are not."""
    settings = SETTINGS.with_changes(
        trusted_proxies=("127.0.0.0/8",), max_concurrent_calls=SLOTS, empty_calls_per_minute=OWN_SLOTS / 2
    )
    telemetry = Telemetry()
    with running_server(digits_registry(digits_model.estimator, settings), settings, telemetry=telemetry) as address:
        service = Service(address, {}, telemetry)
        with service.opened(STREAM, OWN_SLOTS, x_forwarded_for="192.0.2.1"):
            pass
        service.wait_until_idle(STREAM)
        threads.taken = 0
        with (
            service.opened(STREAM, 0, x_forwarded_for="198.51.100.7, 192.0.2.1") as ends,
            grpc.insecure_channel(address) as channel,
        ):
            assert ends.keys() <= {"RESOURCE_EXHAUSTED", "CANCELLED"}
            assert threads.taken == 0
            get = model_pb2_grpc.ModelServiceStub(channel).GetModel
            get(model_pb2.GetModelRequest(), metadata=(("x-forwarded-for", "192.0.2.2"),), timeout=HANG_SECONDS)


# What is not refused


def test_honest_clients_are_not_refused(digits_model: Digits, tmp_path: Path) -> None:
    """64 streams at once, and then 256 callers, all of one tenant and on one connection."""
    defaults = Settings()
    bounds = {
        name: getattr(defaults, name) for name in ("max_concurrent_calls", "empty_calls_per_minute", "open_streams")
    }
    with (
        serving(digits_model, tmp_path, **bounds) as service,
        service.raw("clinic") as clinic,
        Client(service.address, credentials=Credentials(token=service.tokens["clinic"])) as client,
        contextlib.ExitStack() as streams,
        ThreadPoolExecutor(CALLERS) as callers,
    ):
        for _ in range(STREAMS):
            streams.enter_context(clinic.conversation())
        streams.close()  # they have brought nothing
        service.wait_until_idle(STREAM)
        item = clinic.item(1, digits_model.X[0])
        conversations = [streams.enter_context(clinic.conversation()) for _ in range(STREAMS)]
        for conversation in conversations:
            conversation.send(item)
        for conversation in conversations:
            _, scores = next(conversation.answers)
            assert_scores(scores, digits_model.scores[0])
        with service.opened(STREAM, 0, token="sealserve-unknown"):  # from here on, calls begin early
            pass
        rows = digits_model.X[:CALLERS]
        for scores, right in zip(
            callers.map(client.decision_function, rows[:, None]), digits_model.scores, strict=False
        ):
            assert_scores(scores, right[None])


@each_way
@pytest.mark.usefixtures("_way")
def test_calls_that_begin_early_are_answered_alike(
    way: str, digits_model: Digits, tmp_path: Path, threads: Threads
) -> None:
    """Single replies, streams of replies, typed errors with their ids, and cancelled calls."""
    with (
        serving(digits_model, tmp_path) as service,
        service.raw("clinic") as clinic,
        service.opened(STREAM, 0, token="sealserve-unknown"),
    ):
        threads.taken = 0
        rows = digits_model.X[:3]
        assert_scores(clinic.predict(clinic.request(rows[0])), digits_model.scores[0])
        answers = clinic.stream([clinic.item(number, row) for number, row in enumerate(rows, 1)])
        for number, right in enumerate(digits_model.scores[:3], 1):
            assert_scores(answers[number], right)
        with pytest.raises(grpc.RpcError) as caught:
            clinic.models.GetModel(
                model_pb2.GetModelRequest(model="none"), metadata=(("x-request-id", "mine"),), timeout=HANG_SECONDS
            )
        assert isinstance(typed_error(caught.value), ModelNotFoundError)
        failed: Any = caught.value
        assert dict(failed.trailing_metadata())["x-request-id"] == "mine"
        assert isinstance(clinic.stream([Message(item_id=1, chunk=chunk(0, b""))])[1], ServiceError)
        watch = health_pb2_grpc.HealthStub(clinic.channel).Watch(health_pb2.HealthCheckRequest(), timeout=HANG_SECONDS)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()
        with clinic.conversation() as conversation:
            conversation.send(clinic.item(1, rows[0]))
            assert_scores(next(conversation.answers)[1], digits_model.scores[0])
        for path in (STREAM, b"/grpc.health.v1.Health/Watch"):
            service.wait_until_idle(path)
    assert threads.taken == 6
