"""Streams survive while serving processes are killed and services restarted: no row is lost."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from sealserve import client as client_module
from sealserve._rpc.channel import open_channel
from sealserve.aio import AsyncClient
from sealserve.client import Client
from tests.support.service_processes import is_alive, running, workers
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

WEIGHTS = np.array([1.0, -2.0, 0.5, 3.0])
BATCHES = 100
ROWS = 10_000


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "line.npz"
    np.savez(path, coef=WEIGHTS, intercept=np.array(0.5))
    return path


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[grpc.Channel]:
    """The connections that clients open."""
    channels = list[grpc.Channel]()

    def counted(*arguments: Any) -> grpc.Channel:
        channels.append(open_channel(*arguments))
        return channels[-1]

    monkeypatch.setattr(client_module, "open_channel", counted)
    return channels


def random_rows(count: int) -> NDArray[np.float64]:
    """Rows within the model's range."""
    return np.random.default_rng(count).integers(0, 256, (count, len(WEIGHTS))) / 255


def assert_complete(client: Client, results: Iterable[tuple[int, Any]], rows: NDArray[np.float64]) -> None:
    """Check that every row has its own result, once."""
    indices, values = zip(*results, strict=True)
    assert np.array_equal(np.sort(indices), np.arange(len(rows))), "an index is missing, or came twice"
    scores = np.empty(len(rows))
    scores[list(indices)] = values
    assert np.abs(scores - (rows @ WEIGHTS + 0.5)).max() <= max(o.score_error_bound for o in client.model.offers)


def while_disturbed(
    results: Iterable[tuple[int, Any]], row_count: int, disturb: Callable[[], None], times: int = 3
) -> Iterable[tuple[int, Any]]:
    """Pass results on, and disturb at even distances."""
    moments = {(number + 1) * row_count // (times + 1) for number in range(times)}
    for count, result in enumerate(results):
        if count in moments:
            disturb()
        yield result


def kill_one_worker(supervisor: psutil.Process) -> None:
    """Kill one of two workers, once both are there, so that one always serves."""
    wait_until(lambda: len(workers(supervisor)) == 2)
    os.kill(min(workers(supervisor)), signal.SIGKILL)


@pytest.mark.parametrize("connections", [1, 2])
def test_batches_survive_the_death_of_a_process(model_path: Path, opened: list[grpc.Channel], connections: int) -> None:
    with (
        running(model_path, 2) as (address, supervisor),
        Client(address, layout="column", connections=connections, timeout_seconds=60) as client,
    ):
        per_batch = client.offer().rows_per_item
        rows = random_rows(BATCHES * per_batch - 5)
        results = while_disturbed(client.stream(rows), len(rows), lambda: kill_one_worker(supervisor))
        assert_complete(client, results, rows)
    assert len(opened) > connections, "no connection has died"


def test_single_rows_survive_the_death_of_a_process(model_path: Path, opened: list[grpc.Channel]) -> None:
    with running(model_path, 2) as (address, supervisor), Client(address, timeout_seconds=60) as client:
        rows = random_rows(ROWS)
        results = while_disturbed(client.stream(iter(rows)), len(rows), lambda: kill_one_worker(supervisor))
        assert_complete(client, results, rows)
    assert len(opened) > 2, "no connection has died"


@pytest.mark.parametrize("layout", ["row", "column"])
def test_streams_of_asyncio_survive_the_death_of_a_process(model_path: Path, layout: Any) -> None:
    async def results() -> list[tuple[int, Any]]:
        async with AsyncClient(address, layout=layout, timeout_seconds=60) as client:
            received = list[tuple[int, Any]]()
            async for result in client.stream(rows):
                received.append(result)
                if len(received) in (len(rows) // 3, len(rows) // 2):
                    kill_one_worker(supervisor)
            return received

    with running(model_path, 2) as (address, supervisor), Client(address, layout=layout, timeout_seconds=60) as client:
        rows = random_rows(3000 if layout == "row" else 30 * client.offer().rows_per_item)
        assert_complete(client, asyncio.run(results()), rows)


def test_calls_of_one_row_survive_the_death_of_a_process(model_path: Path) -> None:
    with running(model_path, 2) as (address, supervisor), Client(address, timeout_seconds=60) as client:
        rows = random_rows(300)
        labels = ((index, client.predict(row[None])[0]) for index, row in enumerate(rows))
        assert_complete(client, while_disturbed(labels, len(rows), lambda: kill_one_worker(supervisor)), rows)


def test_a_call_of_many_rows_survives_the_death_of_a_process(model_path: Path) -> None:
    with running(model_path, 2) as (address, supervisor), Client(address, layout="row", timeout_seconds=60) as client:
        rows = random_rows(200_000)
        victims = workers(supervisor)
        os.kill(min(victims), signal.SIGKILL)
        assert_complete(client, enumerate(client.predict(rows)), rows)


@pytest.mark.parametrize(
    ("layout", "end"), [("row", signal.SIGKILL), ("column", signal.SIGKILL), ("row", signal.SIGTERM)]
)
def test_a_stream_survives_the_restart_of_the_service(model_path: Path, layout: Any, end: signal.Signals) -> None:
    with running(model_path, 1) as (address, first), Client(address, layout=layout, timeout_seconds=60) as client:
        per_item = client.offer().rows_per_item
        rows = random_rows(40 * per_item)
        results = client.stream(rows, rows_per_item=per_item)
        seen = [next(results) for _ in range(10 * per_item)]
        first.send_signal(end)
        if end is signal.SIGKILL:
            wait_until(lambda: not is_alive(first))
            with running(model_path, 1, address):
                assert_complete(client, [*seen, *results], rows)
        else:
            # The old process stops in order: it ends the items that it has. The items that it
            # refuses wait for the new process, and so may the next result.
            with ThreadPoolExecutor(1) as reader:
                rest = reader.submit(list, results)
                wait_until(lambda: not is_alive(first))
                with running(model_path, 1, address):
                    assert_complete(client, [*seen, *rest.result(60)], rows)
