"""Two hundred clients at once against a container with 1 CPU and 1 GB.

Each client has a row in flight at all times.
"""

import collections
import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from sealserve.client import Client
from sealserve.errors import SealserveError
from tests.support.containers import PLAINTEXT, Container, running_container, wait_until
from tests.support.serving import HANG_SECONDS

pytestmark = pytest.mark.slow

CLIENTS = 200
REFUSED_WAIT_SECONDS = 0.2
FEATURES, CLASSES = 784, 10  # MNIST's


@pytest.fixture(scope="module")
def model() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights (classes, features) and intercept (classes,) of a model as large as MNIST's."""
    generator = np.random.default_rng(4)
    return generator.normal(0, 0.1, (CLASSES, FEATURES)), generator.normal(0, 1, CLASSES)


@pytest.fixture(scope="module")
def container(
    image: str, model: tuple[NDArray[np.float64], NDArray[np.float64]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Container]:
    """A container that serves the model and is healthy."""
    directory = tmp_path_factory.mktemp("models")
    directory.chmod(0o755)
    np.savez(directory / "wide.npz", coef=model[0], intercept=model[1], classes=np.arange(CLASSES))
    arguments = ("--model", "/models/wide.npz", "--input-range", "0,1", *PLAINTEXT)
    with running_container(image, *arguments, mounts={directory: "/models"}) as container:
        wait_until(lambda: container.run("sealserve", "health").returncode == 0, container)
        yield container


class Load:
    """What many clients saw."""

    def __init__(self, model: tuple[NDArray[np.float64], NDArray[np.float64]]) -> None:
        self.rows = collections.Counter[Client]()
        self.refused = 0
        self._weights, self._intercept = model
        self._lock = threading.Lock()

    def be_client(self, client: Client, end: float) -> None:
        """Score rows until the end, a time of `time.monotonic`.

        Raises what is neither a right score nor a refusal.
        """
        generator = np.random.default_rng(id(client))
        bound = client.model.offers[0].weight_rounding_error_bound
        while time.monotonic() < end:
            rows = generator.integers(0, 256, (1, FEATURES)) / 255
            try:
                scores = client.decision_function(rows)
            except SealserveError as error:
                if not _is_refusal(error):
                    raise
                with self._lock:
                    self.refused += 1
                time.sleep(REFUSED_WAIT_SECONDS)
                continue
            assert np.abs(scores - (rows @ self._weights.T + self._intercept)).max() <= bound
            with self._lock:
                self.rows[client] += 1


def _is_refusal(error: SealserveError) -> bool:
    cause = error.__cause__
    return isinstance(cause, grpc.RpcError) and cause.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("load_seconds", [60.0, pytest.param(1800.0, marks=pytest.mark.long)])
def test_two_hundred_clients(
    container: Container,
    model: tuple[NDArray[np.float64], NDArray[np.float64]],
    capsys: pytest.CaptureFixture[str],
    load_seconds: float,
) -> None:
    load = Load(model)
    process = container.state("Pid")
    with contextlib.ExitStack() as open_clients, ThreadPoolExecutor(CLIENTS) as threads:
        clients = [
            open_clients.enter_context(Client(container.address, timeout_seconds=HANG_SECONDS)) for _ in range(CLIENTS)
        ]
        assert len({client.model.name for client in clients}) == 1  # connected, with a key each
        end = time.monotonic() + load_seconds
        for ended in [threads.submit(load.be_client, client, end) for client in clients]:
            ended.result()
    total = load.rows.total()
    with capsys.disabled():
        print(
            f"\n{CLIENTS} clients, {load_seconds:.0f} s: {total / load_seconds:.0f} rows/s, all right, "
            f"{load.refused} refused; the container's peak is {container.peak_memory_bytes() >> 20} MiB, "
            f"the service's {container.resident_bytes() >> 20} MiB"
        )
    assert min(load.rows[client] for client in clients) > 0, "no client is starved"
    assert container.state("Status") == "running"
    assert container.state("Pid") == process
    assert container.state("OOMKilled") == "false"
    assert container.run("sealserve", "health").stdout == "SERVING\n"
