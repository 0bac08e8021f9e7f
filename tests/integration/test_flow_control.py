"""Flow control from end to end: the slower end slows the other, and nothing piles up.

What is given up is released.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing, closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from sealserve.aio import AsyncClient
from sealserve.client import Client
from sealserve.errors import DeadlineError, QuotaExceededError
from sealserve.protocol.item import EncryptedScores, ItemHeader
from sealserve.protocol.model import Offer
from sealserve_service.catalog.registry import ModelRegistry, ServedModel
from sealserve_service.engines.base import Engine, Scoring
from sealserve_service.settings import Settings
from sealserve_service.telemetry.metrics import Telemetry
from tests.support.digits import Digits
from tests.support.serving import HANG_SECONDS, running_server, served, with_limits

MAX_RESULTS = 64  # that wait for the caller


@dataclass
class Gate:
    """Lets work through while it is open; counts those that wait."""

    opened: threading.Event = field(default_factory=threading.Event)
    waiting: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def pass_through(self) -> None:
        """Wait until it is open."""
        self.waiting.release()
        assert self.opened.wait(HANG_SECONDS)


@dataclass(eq=False)
class GatedEngine:
    """An engine whose items wait at a gate."""

    engine: Engine
    gate: Gate

    @property
    def offer(self) -> Offer:
        """The engine's."""
        return self.engine.offer

    @property
    def holds_gil(self) -> bool:
        """The engine's."""
        return self.engine.holds_gil

    def begin(self, header: ItemHeader, owner: str) -> Scoring:
        """Begin an item, behind the gate."""
        return GatedScoring(self.engine.begin(header, owner), self.gate)


@dataclass
class GatedScoring:
    """An item that waits."""

    scoring: Scoring
    gate: Gate

    def add(self, ciphertexts: Sequence[bytes]) -> None:
        """Wait, then take them."""
        self.gate.pass_through()
        self.scoring.add(ciphertexts)

    def finish(self) -> Iterator[EncryptedScores]:
        """Go on as the engine does."""
        return self.scoring.finish()


class Source:
    """Rows without an end; counts those that were taken."""

    def __init__(self, rows: Any) -> None:
        self._rows = rows
        self.taken = 0

    def __iter__(self) -> Iterator[Any]:
        while True:
            self.taken += 1
            yield self._rows[self.taken % len(self._rows)]


@contextmanager
def service(digits_model: Digits, settings: Settings, gate: Gate | None = None) -> Iterator[tuple[str, Telemetry]]:
    """A service of the digits model and what it counts."""
    found, telemetry = served("digits", digits_model.estimator, input_step=1 / 16, limits=settings.limits), Telemetry()
    if gate is not None:
        found = ServedModel(found.model, tuple(GatedEngine(engine, gate) for engine in found.engines))
    with running_server(ModelRegistry([found]), settings, telemetry=telemetry) as address:
        yield address, telemetry


def gauges(telemetry: Telemetry) -> tuple[float, float]:
    """Items in flight, and bytes held for them."""
    samples = {sample.name: sample.value for family in telemetry.registry.collect() for sample in family.samples}
    return samples["sealserve_items_in_flight"], samples["sealserve_held_bytes"]


def settled(number: Callable[[], float]) -> float:
    """Wait until a number has not changed for a while."""
    end, quiet = time.monotonic() + HANG_SECONDS, 0
    last = number()
    while quiet < 10:
        assert time.monotonic() < end, "it never comes to rest"
        time.sleep(0.05)
        quiet, last = (quiet + 1, last) if number() == last else (0, number())
    return last


def eventually(condition: Callable[[], bool]) -> float:
    """Wait for a condition; returns for how long, in seconds."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() < start + HANG_SECONDS, "it did not happen"
        time.sleep(0.002)
    return time.monotonic() - start


# A slow server


@pytest.mark.parametrize("layout", ["row", "column"])
def test_a_slow_server_slows_the_source(digits_model: Digits, layout: Any) -> None:
    """No more items are in flight than the window takes.

    Only a few more rows than those are taken from the source.
    """
    gate, settings = Gate(), with_limits(window_bytes=600_000)
    with (
        service(digits_model, settings, gate) as (address, telemetry),
        Client(address, layout=layout, timeout_seconds=HANG_SECONDS, connections=1) as client,
    ):
        offer = client.offer()
        fitting = max(1, settings.limits.window_bytes // offer.cost.held_bytes)
        source = Source(digits_model.X)
        per_item = offer.rows_per_item if layout == "column" else 1
        results = client.stream(source)
        first = threading.Thread(target=next, args=(results,))
        first.start()
        assert gate.waiting.acquire(timeout=HANG_SECONDS)
        assert settled(lambda: source.taken) <= (fitting + 2) * per_item
        items, held_bytes = gauges(telemetry)
        assert items == 1, "what the server has not read, it has not begun"
        assert held_bytes == offer.cost.held_bytes
        gate.opened.set()
        first.join(HANG_SECONDS)
        assert next(results)[0] < source.taken
        results.close()
        eventually(lambda: gauges(telemetry) == (0, 0))


def test_the_window_is_obeyed(digits_model: Digits) -> None:
    """The server would refuse what is beyond it, and count that."""
    settings = with_limits(window_bytes=1_300_000, max_open_items=7)
    with (
        service(digits_model, settings) as (address, telemetry),
        Client(address, timeout_seconds=HANG_SECONDS, layout="column") as columns,
        Client(address, timeout_seconds=HANG_SECONDS, layout="row") as single,
    ):
        rows = np.tile(digits_model.X, (30, 1))
        assert len(dict(columns.stream(rows))) == len(rows)
        assert len(dict(single.stream(digits_model.X))) == len(digits_model.X)
        refusals = [
            sample
            for family in telemetry.registry.collect()
            if family.name == "sealserve_refusals"
            for sample in family.samples
        ]
        assert refusals == []


# A slow client


@pytest.mark.parametrize("connections", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_slow_caller_slows_everything(digits_model: Digits, connections: int) -> None:
    """Results wait, replies are on their way, and items fill the window.

    Then the source is not asked for more.
    """
    settings = with_limits(max_open_items=10)
    with (
        service(digits_model, settings) as (address, telemetry),
        Client(address, timeout_seconds=3.0, connections=connections) as client,
    ):
        source = Source(digits_model.X)
        results = client.stream(source)
        assert next(results)
        taken = settled(lambda: source.taken)
        assert taken <= MAX_RESULTS + connections * (10 + 3) + 1
        # Longer than an answer may take: but nobody waited for one.
        threading.Event().wait(3.5)
        indices = {next(results)[0] for _ in range(300)}
        assert len(indices) == 300
        assert source.taken > taken
        results.close()
        eventually(lambda: gauges(telemetry) == (0, 0))


@pytest.mark.slow
def test_a_slow_caller_slows_everything_in_asyncio(digits_model: Digits) -> None:
    settings = with_limits(max_open_items=10)

    async def act(address: str) -> None:
        source = Source(digits_model.X)
        async with (
            AsyncClient(address, timeout_seconds=3.0) as client,
            aclosing(client.stream(source)) as results,
        ):
            assert await anext(results)
            taken = await asyncio.to_thread(settled, lambda: source.taken)
            assert taken <= MAX_RESULTS + 14
            await asyncio.sleep(3.5)
            indices = {(await anext(results))[0] for _ in range(300)}
            assert len(indices) == 300

    with service(digits_model, settings) as (address, telemetry):
        asyncio.run(act(address))
        eventually(lambda: gauges(telemetry) == (0, 0))


def test_replies_come_as_items_finish(digits_model: Digits) -> None:
    """Long before the source's end."""
    with service(digits_model, with_limits()) as (address, _), Client(address, timeout_seconds=HANG_SECONDS) as client:
        source = Source(digits_model.X)
        with closing(client.stream(source)) as results:
            assert next(results)
            assert source.taken < 1000


# Giving up


def test_a_stream_that_is_closed_lets_go_of_its_items(digits_model: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of batches that were sent in part, and of one that is being scored."""
    monkeypatch.setattr("sealserve_service.rpc.server.core_count", lambda: 3)  # as many are scored at once
    gate = Gate()
    with (
        service(digits_model, with_limits(), gate) as (address, telemetry),
        Client(address, layout="column", timeout_seconds=HANG_SECONDS, connections=3) as client,
    ):
        results = client.stream(Source(digits_model.X))
        first = threading.Thread(target=next, args=(results,))
        first.start()
        for _ in range(3):
            assert gate.waiting.acquire(timeout=HANG_SECONDS)
        assert gauges(telemetry)[0] == 3
        gate.opened.set()
        first.join(HANG_SECONDS)
        results.close()
        eventually(lambda: gauges(telemetry) == (0, 0))
    assert not [thread for thread in threading.enumerate() if thread.name == "sealserve-reader"]


def test_an_answer_that_does_not_come_in_time(digits_model: Digits) -> None:
    gate = Gate()
    with (
        service(digits_model, with_limits(), gate) as (address, telemetry),
        Client(address, timeout_seconds=0.5) as client,
    ):
        try:
            with pytest.raises(DeadlineError):
                list(client.stream(digits_model.X[:3]))
            with pytest.raises(DeadlineError):
                client.predict(digits_model.X)
            with pytest.raises((DeadlineError, QuotaExceededError)):  # or it is told at once that it would be late
                client.predict(digits_model.X[:1])
        finally:
            gate.opened.set()
        eventually(lambda: gauges(telemetry) == (0, 0))


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["row", "column"])
def test_cancellation_frees_the_work_within_100_ms(digits_model: Digits, layout: Any) -> None:
    with (
        service(digits_model, with_limits()) as (address, telemetry),
        Client(address, layout=layout, timeout_seconds=HANG_SECONDS, connections=2) as client,
    ):
        seconds = list[float]()
        for _ in range(10):
            results = client.stream(Source(digits_model.X))
            assert next(results)
            eventually(lambda: gauges(telemetry)[0] > 0)
            start = time.monotonic()
            results.close()
            eventually(lambda: gauges(telemetry) == (0, 0))
            seconds.append(time.monotonic() - start)
    assert sorted(seconds)[5] < 0.1, seconds
