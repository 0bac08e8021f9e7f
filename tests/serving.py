"""Real servers on real sockets: in this process, on a loop and a thread of their own, or in a process of their own.

`python -m tests.serving` is that process: it serves the digits model and stops on SIGTERM.
"""

import asyncio
import contextlib
import dataclasses
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from sealserve.model import Limits
from sealserve.output import Output, Task
from sealserve_service.app import build_server
from sealserve_service.models.folding import fold
from sealserve_service.models.input_grid import input_grid
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.models.registry import ModelRegistry, ServedModel, serve_model
from sealserve_service.settings import Settings

ROOT = Path(__file__).parents[1]
HANG_SECONDS = 30.0  # nothing takes so long unless it hangs
SETTINGS = Settings(address="127.0.0.1:0", grace_seconds=10.0)
LIMITS = SETTINGS.limits


def with_limits(**changes: Any) -> Settings:
    """The settings of a test server with some limits changed."""
    return dataclasses.replace(SETTINGS, limits=dataclasses.replace(LIMITS, **changes))


def served(
    name: str,
    model: object,
    input_range: tuple[float, float] = (0.0, 1.0),
    input_step: float | None = None,
    limits: Limits = LIMITS,
) -> ServedModel:
    """A fitted estimator, or a LinearModel, ready to be served."""
    linear = model if isinstance(model, LinearModel) else fold(model)
    return serve_model(name, linear, input_grid(linear, input_range=input_range, input_step=input_step), limits)


def linear(weights: ArrayLike, intercept: ArrayLike | None = None) -> LinearModel:
    """A regression with weights (scores, features)."""
    rows = np.asarray(weights, np.float64)
    return LinearModel(
        rows, np.zeros(len(rows)) if intercept is None else np.asarray(intercept), Output(Task.REGRESSION, len(rows))
    )


def digits() -> tuple[LogisticRegression, NDArray[np.float64]]:
    """A classifier of scikit-learn's digits, and their rows: 64 features, multiples of 1/16 in 0..1."""
    X, y = load_digits(return_X_y=True)
    return LogisticRegression(max_iter=1000).fit(X[:1000] / 16, y[:1000]), X / 16


def digits_registry(estimator: LogisticRegression, settings: Settings = SETTINGS) -> ModelRegistry:
    """The digits model, with a step that loses nothing in rounding."""
    return ModelRegistry([served("digits", estimator, input_step=1 / 16, limits=settings.limits)])


@dataclass(frozen=True)
class RunningServer:
    """A server; `begin_stop` starts its orderly end and returns a future of it."""

    address: str
    begin_stop: Callable[[], "Future[None]"]


@contextlib.contextmanager
def running(models: ModelRegistry, settings: Settings = SETTINGS) -> Iterator[RunningServer]:
    """Run a server in this process, on a free port."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="test-server", daemon=True)
    thread.start()

    def submitted(coroutine: Coroutine[Any, Any, Any]) -> "Future[Any]":
        return asyncio.run_coroutine_threadsafe(coroutine, loop)

    async def start() -> tuple[Any, int]:
        server = build_server(settings, models)
        return server, await server.start()

    server, port = submitted(start()).result(HANG_SECONDS)
    try:
        yield RunningServer(f"127.0.0.1:{port}", lambda: submitted(server.stop()))
    finally:
        submitted(server.stop()).result(HANG_SECONDS)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(HANG_SECONDS)
        loop.close()


@contextlib.contextmanager
def running_server(models: ModelRegistry, settings: Settings = SETTINGS) -> Iterator[str]:
    """Run a server in this process, on a free port; gives its address."""
    with running(models, settings) as server:
        yield server.address


@contextlib.contextmanager
def server_process() -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Run a server of the digits model in a process of its own; gives the process and the address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.serving"], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    with process:
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.terminate()


async def _serve_digits() -> None:
    server = build_server(SETTINGS, digits_registry(digits()[0]))
    print(f"127.0.0.1:{await server.start()}", flush=True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await server.stop()
    print(*sorted(sys.modules), flush=True)


if __name__ == "__main__":
    asyncio.run(_serve_digits())
