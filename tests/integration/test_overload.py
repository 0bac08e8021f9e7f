"""An overloaded server, over a real socket: whom it refuses before it reads the request."""

import dataclasses
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from sealserve._rpc.channel import open_channel
from sealserve._rpc.status import typed_error
from sealserve.credentials import Credentials
from sealserve.errors import QuotaExceededError
from sealserve.protocol.item import ItemHeader
from sealserve_service.catalog.registry import ModelRegistry, ServedModel
from sealserve_service.engines.base import Engine, Scoring
from sealserve_service.settings import Settings
from sealserve_service.telemetry.metrics import Telemetry
from tests.support.digits import Digits
from tests.support.identities import ALL, IdentitiesFile
from tests.support.raw import RawClient, assert_scores
from tests.support.serving import HANG_SECONDS, SETTINGS, running_server, served

PREDICT = "/sealserve.v1.PredictionService/Predict"


class SlowEngine:
    """An engine that takes as long over an item as the test wants.

    It announces half of the time that a call has.
    """

    def __init__(self, engine: Engine, *, holds_gil: bool = True) -> None:
        self.holds_gil = holds_gil
        self.offer = dataclasses.replace(
            engine.offer, cost=dataclasses.replace(engine.offer.cost, server_seconds=HANG_SECONDS / 2)
        )
        self.begun, self.may_end = threading.Event(), threading.Event()
        self._engine = engine

    def begin(self, header: ItemHeader, owner: str) -> Scoring:
        return SlowScoring(self, self._engine.begin(header, owner))


class SlowScoring:
    def __init__(self, engine: SlowEngine, scoring: Scoring) -> None:
        self._engine = engine
        self._scoring = scoring

    def add(self, ciphertexts: Sequence[bytes]) -> None:
        self._engine.begun.set()
        assert self._engine.may_end.wait(HANG_SECONDS)
        self._scoring.add(ciphertexts)

    def finish(self) -> Iterator[Any]:
        return self._scoring.finish()


class BusyServer:
    """A server of the digits that scores an item until `ends`.

    Args:
        others: models that are served besides.
        credentials: the test's own.
    """

    def __init__(
        self,
        digits: Digits,
        settings: Settings = SETTINGS,
        others: Sequence[ServedModel] = (),
        credentials: Credentials | None = None,
    ) -> None:
        self.telemetry = Telemetry()
        self._digits = digits
        model = served("digits", digits.estimator, input_step=1 / 16)
        self._engine = SlowEngine(model.engines[0])
        models = ModelRegistry([ServedModel(model.model, (self._engine,)), *others])
        self._running = running_server(models, settings, telemetry=self.telemetry)
        self._credentials = credentials
        self._pool = ThreadPoolExecutor(1)

    def __enter__(self) -> "BusyServer":
        self.address = self._running.__enter__()
        self.raw = RawClient(self.address, "digits", self._credentials)
        self.request = self.raw.request(self._digits.X[0])
        self._answer = self._pool.submit(self.raw.predict, self.request)
        assert self._engine.begun.wait(HANG_SECONDS)
        return self

    def __exit__(self, *failure: object) -> None:
        self._engine.may_end.set()
        self._pool.shutdown()
        self.raw.channel.close()
        self._running.__exit__(None, None, None)

    def ends(self) -> None:
        """Let the item end, and see that it is right."""
        self._engine.may_end.set()
        assert_scores(self._answer.result(HANG_SECONDS), self._digits.scores[0])

    def refusal_of_silence(self, channel: grpc.Channel | None = None) -> grpc.RpcError:
        """Begin a call and send nothing: the answer does not depend on what would have come."""
        over = threading.Event()

        def never() -> Iterator[bytes]:
            over.wait(HANG_SECONDS)
            yield from ()

        start = time.monotonic()
        with pytest.raises(grpc.RpcError) as caught:
            (channel or self.raw.channel).stream_unary(PREDICT, bytes, bytes)(never(), timeout=HANG_SECONDS)
        over.set()
        assert time.monotonic() - start < HANG_SECONDS / 2, "it did not wait for a request"
        assert isinstance(caught.value, grpc.RpcError)
        return caught.value


def test_a_call_is_refused_unread_and_with_a_delay(digits_model: Digits) -> None:
    with BusyServer(digits_model) as server:
        error = typed_error(server.refusal_of_silence())
        assert isinstance(error, QuotaExceededError)
        assert error.quota == "server_seconds"
        assert error.retry_delay_seconds > 1
        with pytest.raises(QuotaExceededError) as caught:
            server.raw.predict(server.request)
        assert caught.value.quota == "server_seconds"
        server.ends()


def test_calls_that_are_refused_unread_are_counted(digits_model: Digits) -> None:
    with BusyServer(digits_model) as server:

        def counted(name: str, **labels: str) -> float | None:
            return server.telemetry.registry.get_sample_value(f"sealserve_{name}_total", labels)

        for _ in range(3):
            server.refusal_of_silence()
        server.ends()
    assert counted("refusals", reason="QuotaExceededError", limit="server_seconds", tenant="") == 3
    assert counted("calls", method=PREDICT, status="RESOURCE_EXHAUSTED") == 3
    assert counted("received_bytes", method=PREDICT) == len(server.request.SerializeToString())


def test_what_is_refused_unread_is_not_charged(digits_model: Digits) -> None:
    settings = SETTINGS.with_changes(requests_per_minute=2)
    with BusyServer(digits_model, settings) as server:
        for _ in range(5):
            server.refusal_of_silence()
        server.ends()
        assert_scores(server.raw.predict(server.request), digits_model.scores[0])


def test_others_than_those_that_want_a_turn_are_answered(digits_model: Digits) -> None:
    with BusyServer(digits_model) as server:
        with RawClient(server.address) as other:
            assert other.codec.model.name == "digits"
        with server.raw.conversation() as stream:
            stream.send(server.raw.item(1, digits_model.X[1]))
            with ThreadPoolExecutor(1) as pool:
                answer = pool.submit(next, stream.answers)
                server.ends()
                assert_scores(answer.result(HANG_SECONDS)[1], digits_model.scores[1])


def test_an_engine_that_needs_no_turn_is_not_refused(digits_model: Digits) -> None:
    """Nobody knows before a call is read which of the two models it is for."""
    model = served("elsewhere", digits_model.estimator, input_step=1 / 16)
    engine = SlowEngine(model.engines[0], holds_gil=False)
    engine.may_end.set()
    with (
        BusyServer(digits_model, others=[ServedModel(model.model, (engine,))]) as server,
        RawClient(server.address, "elsewhere") as elsewhere,
    ):
        assert_scores(elsewhere.predict(elsewhere.request(digits_model.X[1])), digits_model.scores[1])
        with pytest.raises(QuotaExceededError) as caught:
            server.raw.predict(server.request)
        assert caught.value.quota == "server_seconds"
        server.ends()


def test_a_stranger_does_not_learn_that_the_server_is_busy(digits_model: Digits, tmp_path: Path) -> None:
    file = IdentitiesFile(tmp_path / "identities.toml", alice=ALL)
    credentials = Credentials(token=file.token("alice"))
    settings = SETTINGS.with_changes(identities=file.path)
    with (
        BusyServer(digits_model, settings, credentials=credentials) as server,
        open_channel(server.address, None) as stranger,
    ):
        assert server.refusal_of_silence(stranger).code() is grpc.StatusCode.UNAUTHENTICATED
        assert server.refusal_of_silence().code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        server.ends()
