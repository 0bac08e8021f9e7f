"""Callers who wait for their turn, over a real socket: their order, and those who give up."""

import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import grpc
import pytest

from sealserve._rpc.status import typed_error
from sealserve.errors import DrainingError, QuotaExceededError
from sealserve.v1 import prediction_pb2
from sealserve_service.catalog.registry import ModelRegistry, ServedModel
from sealserve_service.telemetry.metrics import Telemetry
from tests.support.digits import Digits
from tests.support.raw import Message, RawClient, assert_scores, chunk
from tests.support.serving import HANG_SECONDS, SETTINGS, RunningServer, running, served
from tests.support.stepped_engine import SteppedEngine
from tests.support.waiting import wait_until

STREAM = "/sealserve.v1.PredictionService/StreamPredict"
ITEM_SECONDS = 0.02
MAX_WAIT = 2.5 * ITEM_SECONDS  # of the items before, the one that is computed should have ended


class Service:
    """A service of the digits whose engine computes one item at a time, when it is told to."""

    def __init__(self, server: RunningServer, digits: Digits, engine: SteppedEngine, telemetry: Telemetry) -> None:
        self.server, self.digits, self.engine, self.telemetry = server, digits, engine, telemetry
        self.raw = RawClient(server.address)
        self.requests = [self.raw.request(row) for row in digits.X[:8]]
        self.pool = ThreadPoolExecutor(32)

    def close(self) -> None:
        self.engine.end()
        self.pool.shutdown()
        self.raw.channel.close()

    def asks(self, number: int) -> "Future[Any]":
        """Ask for the scores of a row; returns once the row is computed, waits or is refused."""
        before = self.arrived
        asked = self.pool.submit(self.raw.predict, self.requests[number])
        wait_until(lambda: self.arrived > before or asked.done())
        return asked

    def occupy(self) -> "Future[Any]":
        """Ask for the scores of row 0, which are computed for longer than announced."""
        asked = self.asks(0)
        time.sleep(2 * ITEM_SECONDS)
        return asked

    def begins(self, number: int, timeout: float = HANG_SECONDS) -> Any:
        """The same as a call that can be cancelled; returns once the row is computed or waits."""
        before = self.arrived
        call = self.raw.predictions.Predict.future(self.requests[number], timeout=timeout)
        wait_until(lambda: self.arrived > before)
        return call

    @property
    def waiting(self) -> float:
        return self.measured("items_waiting")

    @property
    def arrived(self) -> float:
        return len(self.engine.begun) + self.waiting

    def measured(self, name: str, **labels: str) -> float:
        value = self.telemetry.registry.get_sample_value(f"sealserve_{name}", labels)
        assert value is not None
        return value


@pytest.fixture
def service(digits_model: Digits) -> Iterator[Service]:
    model, telemetry = served("digits", digits_model.estimator, input_step=1 / 16), Telemetry()
    engine = SteppedEngine(model.engines[0], ITEM_SECONDS)
    models = ModelRegistry([ServedModel(model.model, (engine,))])
    with running(
        models, SETTINGS.with_changes(max_wait=MAX_WAIT, max_concurrent_calls=64), telemetry=telemetry
    ) as server:
        made = Service(server, digits_model, engine, telemetry)
        yield made
        made.close()


def test_rows_wait_for_their_turn_and_what_would_wait_for_too_long_is_refused(service: Service) -> None:
    asked = [service.occupy(), *(service.asks(number) for number in (1, 2, 3))]
    assert (len(service.engine.begun), service.waiting) == (1, 3)
    refused = service.asks(4).exception(HANG_SECONDS)
    assert isinstance(refused, QuotaExceededError)
    assert refused.quota == "server_seconds"
    for number, answer in enumerate(asked):
        assert not any(later.done() for later in asked[number:]), "one at a time, in order"
        if number < 3:
            service.engine.step()
        else:
            service.engine.end()
        assert_scores(answer.result(HANG_SECONDS), service.digits.scores[number])
    assert service.measured("wait_seconds_count", model="digits", layout="row") == 4


def test_a_caller_that_gives_up_frees_its_place(service: Service) -> None:
    service.occupy()
    calls = [service.begins(number) for number in (1, 2, 3)]
    assert isinstance(service.asks(4).exception(HANG_SECONDS), QuotaExceededError)
    calls[1].cancel()
    wait_until(lambda: service.waiting == 2)
    last = service.asks(5)
    assert not last.done()
    service.engine.step(3)
    assert service.waiting == 0, "no turn was spent on the one that gave up"
    service.engine.end()
    assert_scores(last.result(HANG_SECONDS), service.digits.scores[5])
    assert len(service.engine.begun) == 4


def test_a_stream_that_is_broken_off_while_an_item_waits_is_no_fault(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    first = service.occupy()
    request = service.requests[1]
    item = Message(item_id=1, header=request.header, chunk=chunk(0, *request.ciphertexts))
    never_ends = threading.Event()

    def messages() -> Iterator[Message]:
        yield item
        never_ends.wait(HANG_SECONDS)

    call = service.raw.predictions.StreamPredict(messages(), timeout=HANG_SECONDS)
    wait_until(lambda: service.waiting == 1)
    call.cancel()
    wait_until(lambda: service.waiting == 0)
    never_ends.set()
    service.engine.end()
    assert_scores(first.result(HANG_SECONDS), service.digits.scores[0])
    wait_until(lambda: service.measured("calls_in_flight", method=STREAM) == 0)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_a_deadline_that_passes_while_a_row_waits_frees_its_place(service: Service) -> None:
    """The items before it take longer than they say."""
    first = service.occupy()
    late = service.begins(1, timeout=1.0)
    assert late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    wait_until(lambda: service.waiting == 0)
    service.engine.end()
    assert_scores(first.result(HANG_SECONDS), service.digits.scores[0])
    assert len(service.engine.begun) == 1


def test_a_deadline_that_cannot_be_met_is_refused_at_once(service: Service) -> None:
    service.occupy()
    with pytest.raises(grpc.RpcError) as caught:
        service.raw.predictions.Predict(service.requests[1], timeout=0.5 * ITEM_SECONDS)
    assert isinstance(caught.value, grpc.RpcError)
    if caught.value.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:  # a busy machine was late itself
        refusal = typed_error(caught.value)
        assert isinstance(refusal, QuotaExceededError)
        assert refusal.quota == "deadline"
    assert service.waiting == 0


def test_a_stream_waits_and_frees_its_place_when_it_ends(service: Service) -> None:
    service.occupy()
    item = service.raw.item(1, service.digits.X[1])
    with service.raw.conversation() as stream:
        for number in range(5):  # of one stream one item at a time waits
            stream.send(prediction_pb2.StreamPredictRequest(item_id=number + 1, header=item.header, chunk=item.chunk))
        wait_until(lambda: service.waiting == 1)
    wait_until(lambda: service.waiting == 0)
    answer = service.asks(2)
    service.engine.step()
    service.engine.end()
    assert_scores(answer.result(HANG_SECONDS), service.digits.scores[2])
    assert len(service.engine.begun) == 2


def test_a_short_item_of_a_stream_has_one_turn(service: Service) -> None:
    service.engine.end()
    with service.raw.conversation() as stream:
        stream.send(service.raw.item(1, service.digits.X[1]))
        assert_scores(next(stream.answers)[1], service.digits.scores[1])
    assert service.measured("wait_seconds_count", model="digits", layout="row") == 1


def test_rows_that_wait_are_answered_by_a_server_that_stops(service: Service) -> None:
    asked = [service.occupy(), *(service.asks(number) for number in (1, 2))]
    stopped = service.server.begin_stop()
    wait_until(lambda: isinstance(service.asks(4).exception(HANG_SECONDS), DrainingError))
    assert not any(answer.done() for answer in asked)
    service.engine.end()
    for number, answer in enumerate(asked):
        assert_scores(answer.result(HANG_SECONDS), service.digits.scores[number])
    stopped.result(HANG_SECONDS)


def test_calls_that_bring_nothing_keep_no_place(service: Service) -> None:
    """Headers without a body: otherwise they would make good rows wait, or have them refused."""
    service.occupy()
    over = threading.Event()

    def never() -> Iterator[bytes]:
        over.wait(HANG_SECONDS)
        yield from ()

    path = "/sealserve.v1.PredictionService/Predict"
    silent = service.raw.channel.stream_unary(path, bytes, bytes)
    calls = [service.pool.submit(partial(silent, never(), timeout=HANG_SECONDS)) for _ in range(10)]
    wait_until(lambda: service.measured("calls_in_flight", method=path) == 11)
    assert service.waiting == 0
    assert not service.asks(1).done()
    service.engine.step()
    over.set()
    for call in calls:
        assert call.exception(HANG_SECONDS) is not None
