"""Greedy callers: a tenant asks for many good rows at once, and another one for a single row.

As it was, items waited in the order in which they came, whoever had sent them. `AS_IT_WAS` gives
that back: all callers count as one.
"""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sealserve.credentials import Credentials
from sealserve.errors import QuotaExceededError
from sealserve_service.catalog.registry import ModelRegistry, ServedModel
from sealserve_service.scoring.turns import Turns, Waiter
from sealserve_service.telemetry.metrics import Telemetry
from tests.support.digits import Digits
from tests.support.identities import ALL, IdentitiesFile
from tests.support.raw import RawClient, assert_scores
from tests.support.serving import HANG_SECONDS, SETTINGS, running_server, served
from tests.support.stepped_engine import SteppedEngine
from tests.support.waiting import wait_until

ITEM_SECONDS = 0.02
ROWS = 10  # of the greedy tenant

each_way = pytest.mark.parametrize("way", ["as it was", "as it is"])


class Service:
    """A service with two tenants, and an engine that computes one item at a time."""

    def __init__(
        self,
        address: str,
        tokens: dict[str, str],
        row: NDArray[np.float64],
        engine: SteppedEngine,
        telemetry: Telemetry,
    ) -> None:
        self.engine = engine
        self._telemetry = telemetry
        self.clients = {
            name: RawClient(address, credentials=Credentials(token=token)) for name, token in tokens.items()
        }
        self.requests = {name: client.request(row) for name, client in self.clients.items()}
        self._pool = ThreadPoolExecutor(2 * ROWS)

    def close(self) -> None:
        self.engine.end()
        self._pool.shutdown()
        for client in self.clients.values():
            client.channel.close()

    def asks(self, tenant: str) -> "Future[Any]":
        """Ask for the scores of a row; returns once it is computed, waits or is refused."""
        before = self.arrived
        asked = self._pool.submit(self.clients[tenant].predict, self.requests[tenant])
        wait_until(lambda: self.arrived > before or asked.done())
        return asked

    @property
    def arrived(self) -> float:
        waiting = self._telemetry.registry.get_sample_value("sealserve_items_waiting")
        return len(self.engine.begun) + (waiting or 0.0)


@pytest.fixture
def serving(digits_model: Digits, tmp_path: Path) -> Iterator[Callable[[float], Service]]:
    with contextlib.ExitStack() as closing:

        def serve(max_wait: float) -> Service:
            identities = IdentitiesFile(tmp_path / "identities.toml", clinic=ALL, greedy=ALL)
            tokens = {name: identities.token(name) for name in ("clinic", "greedy")}
            model, telemetry = served("digits", digits_model.estimator, input_step=1 / 16), Telemetry()
            engine = SteppedEngine(model.engines[0], ITEM_SECONDS)
            settings = SETTINGS.with_changes(identities=identities.path, max_wait=max_wait, max_concurrent_calls=64)
            models = ModelRegistry([ServedModel(model.model, (engine,))])
            address = closing.enter_context(running_server(models, settings, telemetry=telemetry))
            service = Service(address, tokens, digits_model.X[0], engine, telemetry)
            closing.callback(service.close)
            return service

        yield serve


@pytest.fixture
def _way(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if way == "as it was":
        take, makes_wait = Turns.take, Turns.makes_wait
        monkeypatch.setattr(
            Turns,
            "take",
            lambda turns, engine, waiter, *args, **how: take(turns, engine, Waiter("", waiter.call_back), *args, **how),
        )
        monkeypatch.setattr(Turns, "makes_wait", lambda turns, _: makes_wait(turns, ""))


@each_way
@pytest.mark.usefixtures("_way")
def test_a_row_does_not_wait_behind_all_those_of_another_tenant(
    way: str, serving: Callable[[float], Service], digits_model: Digits
) -> None:
    service = serving(HANG_SECONDS / 2)
    for _ in range(ROWS):
        service.asks("greedy")
    answer = service.asks("clinic")
    service.engine.step(2)
    assert ("clinic" in service.engine.begun) is (way == "as it is"), service.engine.begun
    service.engine.end()
    assert_scores(answer.result(HANG_SECONDS), digits_model.scores[0])


@each_way
@pytest.mark.usefixtures("_way")
def test_a_row_is_not_refused_because_another_tenant_asks_for_many(
    way: str, serving: Callable[[float], Service], digits_model: Digits
) -> None:
    service = serving(2 * ITEM_SECONDS)
    asked = [service.asks("greedy") for _ in range(ROWS)]
    refused = [item for item in asked if item.done()]
    assert len(refused) > ROWS // 2
    assert all(isinstance(item.exception(), QuotaExceededError) for item in refused)
    answer = service.asks("clinic")
    assert answer.done() is (way == "as it was")
    service.engine.end()
    if way == "as it was":
        assert isinstance(answer.exception(), QuotaExceededError)
    else:
        assert_scores(answer.result(HANG_SECONDS), digits_model.scores[0])


@each_way
@pytest.mark.usefixtures("_way")
def test_a_row_does_not_wait_for_the_streams_of_another_tenant(
    way: str, serving: Callable[[float], Service], digits_model: Digits
) -> None:
    """The items of streams are never refused: as it was, they kept every row out."""
    service = serving(2 * ITEM_SECONDS)
    greedy = service.clients["greedy"]
    item = greedy.item(1, digits_model.X[0])
    with contextlib.ExitStack() as streams:
        for _ in range(ROWS):
            before = service.arrived
            streams.enter_context(greedy.conversation()).send(item)
            wait_until(lambda before=before: service.arrived > before)  # type: ignore[misc]
        answer = service.asks("clinic")
        assert answer.done() is (way == "as it was")
        service.engine.end()
        if way == "as it was":
            assert isinstance(answer.exception(), QuotaExceededError)
        else:
            assert_scores(answer.result(HANG_SECONDS), digits_model.scores[0])
