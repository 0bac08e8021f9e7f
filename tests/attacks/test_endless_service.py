"""Attack: a service that keeps a client waiting beyond its timeout, or fills its memory.

Messages that say nothing trickle in, items fail again and again shortly before the timeout, retry
delays are absurd, models change without end. Each attack runs against both clients. Against the old
behaviour (`messages_count`) the client waits until the service gives up.
"""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from sealserve import errors
from sealserve._codec import configurations, session
from sealserve._codec.session import Session
from sealserve._streaming import schedule
from sealserve._streaming.schedule import Schedule
from sealserve.aio import AsyncClient
from sealserve.client import Client
from sealserve.protocol import wire
from sealserve.v1 import errors_pb2, model_pb2, prediction_pb2
from tests.support.hostile_service import Method, abort, description, running_hostile

SECONDS = 0.6
GIVES_UP_SECONDS = 4.0  # when the service ends a stream by itself
HANG_SECONDS = 20.0
ROWS = np.full((3000, 2), 0.5)  # more than an item takes
Response = prediction_pb2.StreamPredictResponse
WINDOW = Response(window=prediction_pb2.Window(max_bytes_in_flight=1 << 30))
Predict = Callable[..., Any]


def with_client(address: str, rows: Any, model: str = "", seconds: float = SECONDS) -> Any:
    with Client(address, model=model, layout="row", timeout_seconds=seconds, connections=1) as client:
        return client.predict(rows)


def with_async_client(address: str, rows: Any, model: str = "", seconds: float = SECONDS) -> Any:
    async def predict() -> Any:
        async with AsyncClient(address, model=model, layout="row", timeout_seconds=seconds, connections=1) as client:
            return await client.predict(rows)

    return asyncio.run(predict())


BOTH = pytest.mark.parametrize("predict", [with_client, with_async_client], ids=["sync", "async"])


def first_item(requests: Iterator[Any]) -> int:
    """Wait for the first message of an item, and return the item's id."""
    item_id: int = next(request.item_id for request in requests if request.item_id)
    return item_id


def trickling(message: Callable[[int], Response]) -> Method:
    """A stream on which such messages come, made of the id of the first item."""

    def stream(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Response]:
        yield WINDOW
        item_id, end = first_item(requests), time.monotonic() + GIVES_UP_SECONDS
        while time.monotonic() < end and context.is_active():
            yield message(item_id)
            time.sleep(SECONDS / 10)
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "the service gave up")

    return stream


TRICKLES: dict[str, Callable[[int], Response]] = {
    "empty messages": lambda item_id: Response(),
    "windows": lambda item_id: WINDOW,
    "messages of unknown items": lambda item_id: Response(item_id=item_id + 10_000, done=prediction_pb2.ItemDone()),
    "messages of an item that say nothing": lambda item_id: Response(item_id=item_id),
    "groups without scores": lambda item_id: Response(item_id=item_id, scores=prediction_pb2.ScoreGroup()),
}


@pytest.fixture
def messages_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """The old behaviour: whatever arrives is progress."""
    receive = Schedule.receive

    def receive_as_progress(self: Schedule, stream: Any, response: Response, now: float) -> Any:
        stream.last_progress = stream.last_counted = now
        return receive(self, stream, response, now)

    monkeypatch.setattr(Schedule, "receive", receive_as_progress)


@BOTH
@pytest.mark.parametrize("what", TRICKLES)
def test_what_only_arrives_is_no_progress(what: str, predict: Predict) -> None:
    with running_hostile(StreamPredict=trickling(TRICKLES[what])) as (_, address), pytest.raises(errors.DeadlineError):
        predict(address, ROWS)


def silent(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Response]:
    """A stream that reads everything and answers nothing but the window."""
    yield WINDOW
    for _ in requests:
        pass


def over_at_once(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Response]:
    """A stream that ends before it has an item."""
    yield from ()


def without_window(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Response]:
    """A stream that sends nothing at all."""
    while context.is_active():
        time.sleep(SECONDS / 10)
    yield from ()


@BOTH
@pytest.mark.parametrize("stream", [silent, over_at_once, without_window])
def test_the_clients_own_messages_are_no_progress(stream: Method, predict: Predict) -> None:
    """The service makes it send a keep-alive each hundredth of a second, or open new streams.

    A stream that ends while grpc.aio begins to write is a broken connection to it.
    """
    ends = (errors.DeadlineError, errors.UnavailableError) if stream is over_at_once else errors.DeadlineError
    impatient = description()
    impatient.limits.idle_timeout.seconds, impatient.limits.idle_timeout.nanos = 0, 1
    with running_hostile(impatient, StreamPredict=stream) as (_, address), pytest.raises(ends):
        predict(address, ROWS)


@BOTH
@pytest.mark.usefixtures("messages_count")
@pytest.mark.slow
def test_it_kept_a_client_waiting_when_it_was_progress(predict: Predict) -> None:
    with (
        running_hostile(StreamPredict=trickling(TRICKLES["empty messages"])) as (_, address),
        pytest.raises(errors.CallError, match="the service gave up"),
    ):
        predict(address, ROWS)


@BOTH
@pytest.mark.parametrize("rows", [ROWS, ROWS[:1]], ids=["streams", "a call"])
@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (errors.QuotaExceededError("rows_per_minute", 0.0), 2**63 - 1),
        (errors.DrainingError(0.0), 2**63 - 1),
        (errors.KeyStoreUnavailableError(0.0), -(2**63)),
    ],
    ids=["endless quota", "endless end", "negative"],
)
def test_an_absurd_retry_delay_is_no_wait_and_no_crash(
    error: errors.ServiceError, seconds: int, rows: Any, predict: Predict
) -> None:
    """A lock cannot wait for 2^63 seconds: a stream's reader used to die of an OverflowError."""
    detail = wire.error_to_proto(error)
    getattr(detail, str(detail.WhichOneof("detail"))).retry_delay.seconds = seconds

    def stream(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Response]:
        yield WINDOW
        for request in requests:
            if request.HasField("header"):
                yield Response(item_id=request.item_id, error=detail)

    def call(request: Any, context: grpc.ServicerContext) -> Any:
        abort(context, "busy", detail)

    began = time.monotonic()
    with running_hostile(StreamPredict=stream, Predict=call) as (_, address), pytest.raises(type(error)):
        predict(address, rows)
    assert time.monotonic() - began < HANG_SECONDS


@BOTH
def test_items_that_break_shortly_before_the_timeout_do_not_extend_it_for_ever(predict: Predict) -> None:
    attempts = list[float]()

    def stream(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Response]:
        yield WINDOW
        first_item(requests)
        attempts.append(time.monotonic())
        time.sleep(SECONDS * 0.8)
        context.abort(grpc.StatusCode.UNAVAILABLE, "gone")

    with (
        running_hostile(StreamPredict=stream) as (_, address),
        pytest.raises((errors.UnavailableError, errors.DeadlineError)),
    ):
        predict(address, ROWS)
    assert 1 <= len(attempts) <= 5


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("rows", [ROWS, ROWS[:1]], ids=["streams", "a call"])
@pytest.mark.parametrize("detail", ["stale_config", "key_not_found"])
def test_a_model_that_changes_without_end_is_an_error(detail: str, rows: Any, predict: Predict) -> None:
    changed = errors_pb2.Error(message="changed")
    getattr(changed, detail).SetInParent()

    def stream(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Response]:
        yield WINDOW
        for request in requests:
            if request.HasField("header"):
                yield Response(item_id=request.item_id, error=changed)

    def call(request: Any, context: grpc.ServicerContext) -> Any:
        time.sleep(SECONDS / 4)
        abort(context, "changed", changed)

    with (
        running_hostile(StreamPredict=stream, Predict=call) as (service, address),
        pytest.raises((errors.StaleConfigError, errors.KeyNotFoundError, errors.TransportError)),
    ):
        predict(address, rows)
    # The delays let an item meet 18 changes in its 0.6 s, and a batch lasts up to twice that.
    assert len(service.headers) <= 2 * 18 * 6
    assert len(service.calls) < 200


def naming_new_ones_without_end() -> dict[str, Any]:
    """A service whose every answer names a configuration that it has never named before.

    It gives up after four hundred.
    """
    numbers, described = itertools.count(), description()

    def describe(request: Any, context: grpc.ServicerContext) -> Any:
        response = model_pb2.GetModelResponse(model=described)
        response.model.config_id = request.config_id or f"{next(numbers)}"
        return response

    def stale(context: grpc.ServicerContext) -> errors_pb2.Error:
        if (number := next(numbers)) > 400:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "the service gave up")
        return errors_pb2.Error(stale_config=errors_pb2.StaleConfig(current_config_id=f"{number}"))

    def stream(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Response]:
        yield WINDOW
        for request in requests:
            if request.HasField("header"):
                yield Response(item_id=request.item_id, error=stale(context))

    return {
        "GetModel": describe,
        "StreamPredict": stream,
        "Predict": lambda request, context: abort(context, "stale", stale(context)),
    }


@pytest.fixture(params=[False, True], ids=["the product", "without bounds"])
def has_no_bounds(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """A client that keeps all descriptions and makes no pauses: the switch to worse behaviour."""
    if request.param:
        monkeypatch.setattr(configurations, "MAX_CONFIGURATIONS", 10**9)
        monkeypatch.setattr(schedule, "change_delay_seconds", lambda changes: 0.0)
        monkeypatch.setattr(session, "change_delay_seconds", lambda changes: 0.0)
    return bool(request.param)


@BOTH
@pytest.mark.parametrize(
    "rows", [pytest.param(ROWS, id="streams", marks=pytest.mark.slow), pytest.param(ROWS[:1], id="a call")]
)
def test_configurations_that_are_named_at_will_fill_no_memory_and_end(
    rows: Any, predict: Predict, has_no_bounds: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients, make = list[Session](), Session.__init__

    def kept(self: Session, *args: Any, **options: Any) -> None:
        make(self, *args, **options)
        clients.append(self)

    monkeypatch.setattr(Session, "__init__", kept)
    ends = errors.CallError if has_no_bounds else (errors.StaleConfigError, errors.DeadlineError)
    with running_hostile(**naming_new_ones_without_end()) as (service, address), pytest.raises(ends):
        predict(address, rows, seconds=HANG_SECONDS if has_no_bounds else 1.0 if len(rows) > 1 else 3.0)
    (client,) = clients
    assert len(client._secret_keys) == 1
    assert len(service.headers) > 8
    assert (len(client.versions) > 8) == has_no_bounds
    if not has_no_bounds:
        items = -(-len(rows) // 512)
        assert len(service.headers) <= 25 * 2 * items, "in each of two attempts, ever more slowly"


@BOTH
def test_all_calls_of_a_prediction_have_one_timeout(predict: Predict) -> None:
    """Each answer takes three quarters of it: first contact, and a call that finds it stale."""
    stale = errors_pb2.Error(stale_config=errors_pb2.StaleConfig(current_config_id="new"))

    def call(request: Any, context: grpc.ServicerContext) -> Any:
        time.sleep(SECONDS * 0.75)
        abort(context, "stale", stale)

    with running_hostile(Predict=call) as (service, address), pytest.raises(errors.DeadlineError):
        predict(address, ROWS[:1])
    assert service.calls.count("Predict") <= 2, "it was five times as long"


@BOTH
@pytest.mark.parametrize("extra", [0, 1], ids=["a piece too long", "a piece too many"])
def test_a_reply_fills_no_memory(extra: int, predict: Predict) -> None:
    """A piece of 8 MB, in place of two polynomials of 16 KB; or more pieces than there are."""
    scores = prediction_pb2.EncryptedScores()
    scores.residues.c0 = scores.residues.c1 = bytes(64 if extra else 4 << 20)
    sent = list[int]()

    def stream(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Response]:
        yield WINDOW
        item_id = first_item(requests)
        for index in range(1000):
            if not context.is_active():
                return
            sent.append(index)
            group = prediction_pb2.ScoreGroup(first_index=index, scores=[scores])
            yield Response(item_id=item_id, scores=group)
            time.sleep(0.01)

    with running_hostile(StreamPredict=stream) as (_, address), pytest.raises(errors.ReplyError):
        predict(address, ROWS, seconds=HANG_SECONDS)
    assert len(sent) < 1000


@BOTH
def test_a_service_that_describes_another_model_is_refused(predict: Predict) -> None:
    """A chain of names would send the client from one description to the next."""
    with (
        running_hostile(description(name="other")) as (service, address),
        pytest.raises(errors.ParameterError, match="'other' in place of 'asked'"),
    ):
        predict(address, ROWS, model="asked")
    assert service.calls == ["GetModel"]
