"""Real servers on real sockets: in this process or in a process of their own.

`python -m tests.support.serving` is that process: it serves the digits model and stops on SIGTERM.
"""

import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.linear_model import LogisticRegression

from sealserve.protocol.model import Limits
from sealserve.protocol.output import Output, Task
from sealserve_service.app import build_server
from sealserve_service.catalog.registry import ModelRegistry, ServedModel, prepare_model
from sealserve_service.engines.ei.slots import EiSlotsEngine
from sealserve_service.engines.offering import PrivateWeights
from sealserve_service.keys.registered_keys import RegisteredKeys
from sealserve_service.keys.stores.base import KeyStore, UploadSource
from sealserve_service.keys.stores.memory import MemoryKeyStore
from sealserve_service.models.folding import fold
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.planning.grid import input_ranges
from sealserve_service.settings import Settings
from sealserve_service.telemetry.metrics import Telemetry
from tests.support.digits import digits

if TYPE_CHECKING:
    from sealserve_service.telemetry.spans import Spans

ROOT = Path(__file__).parents[2]
HANG_SECONDS = 30.0  # nothing takes so long unless it hangs
# The tests of a module are one caller, and end within a minute. Many of their calls are meant to
# bring nothing.
SETTINGS = Settings(address="127.0.0.1:0", grace_seconds=10.0, empty_calls_per_minute=1e9)
LIMITS = SETTINGS.limits


def with_limits(**changes: Any) -> Settings:
    """The settings of a test server with some limits changed."""
    return SETTINGS.with_changes(**changes)


def served(
    name: str,
    model: object,
    input_range: tuple[float, float] = (0.0, 1.0),
    input_step: float | None = None,
    limits: Limits = LIMITS,
    keys: RegisteredKeys | None = None,
    hiding_bits: int | None = None,
) -> ServedModel:
    """Prepare a fitted estimator, or a LinearModel, to be served.

    With keys it is served to encrypted-inference clients too. With hiding_bits, which need keys, it
    is served in mode private, and not to those clients. Its verdict may be any: steps are coarse.
    """
    linear = model if isinstance(model, LinearModel) else fold(model)
    grid = input_ranges(linear, input_range=input_range, input_step=input_step)
    if keys is not None and hiding_bits is not None:
        private = PrivateWeights(hiding_bits, keys.zero_encryptor)
        return prepare_model(name, linear, grid, limits, private=private, accept_disagreement=True)
    if keys is None:
        return prepare_model(name, linear, grid, limits, accept_disagreement=True)
    loaded = keys.galois_keys
    return prepare_model(
        name,
        linear,
        grid,
        limits,
        ei_engine=lambda model, grid: EiSlotsEngine(model.weights, model.intercept, grid, loaded),
        accept_disagreement=True,
    )


def registered_keys(
    store: KeyStore | None = None, uploads: UploadSource | None = None, **changes: Any
) -> RegisteredKeys:
    """Registered keys, in memory by default."""
    sizes = {"max_key_bytes": LIMITS.max_key_bytes, "max_ttl_seconds": 3600.0, "cache_bytes": 100 << 20}
    return RegisteredKeys(store or MemoryKeyStore(64 << 20), uploads, **(sizes | changes))


def linear(weights: ArrayLike, intercept: ArrayLike | None = None) -> LinearModel:
    """A regression with weights (scores, features)."""
    rows = np.asarray(weights, np.float64)
    return LinearModel(
        rows, np.zeros(len(rows)) if intercept is None else np.asarray(intercept), Output(Task.REGRESSION, len(rows))
    )


def digits_registry(estimator: LogisticRegression, settings: Settings = SETTINGS) -> ModelRegistry:
    """The digits model, with a step that loses nothing in rounding."""
    return ModelRegistry([served("digits", estimator, input_step=1 / 16, limits=settings.limits)])


@dataclass(frozen=True)
class RunningServer:
    """A server; `begin_stop` starts its orderly end and returns a future of it."""

    address: str
    begin_stop: Callable[[], "Future[None]"]


@contextlib.contextmanager
def running(
    models: ModelRegistry,
    settings: Settings = SETTINGS,
    keys: RegisteredKeys | None = None,
    telemetry: Telemetry | None = None,
    spans: "Spans | None" = None,
) -> Iterator[RunningServer]:
    """Run a server in this process, on a free port."""
    server = build_server(settings, models, keys, telemetry, spans)
    port = server.start()
    stopper = ThreadPoolExecutor(1)
    try:
        yield RunningServer(f"127.0.0.1:{port}", lambda: stopper.submit(server.stop))
    finally:
        server.stop()
        stopper.shutdown()


@contextlib.contextmanager
def running_server(
    models: ModelRegistry,
    settings: Settings = SETTINGS,
    keys: RegisteredKeys | None = None,
    telemetry: Telemetry | None = None,
    spans: "Spans | None" = None,
) -> Iterator[str]:
    """Run a server in this process, on a free port; gives its address."""
    with running(models, settings, keys, telemetry, spans) as server:
        yield server.address


@contextlib.contextmanager
def server_process() -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Run a server of the digits model in a process of its own; give process and address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.serving"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    with process:
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.terminate()


def _serve_digits() -> None:
    server = build_server(SETTINGS, digits_registry(digits()[0]))
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    print(f"127.0.0.1:{server.start()}", flush=True)
    stop.wait()
    server.stop()
    print(*sorted(sys.modules), flush=True)


if __name__ == "__main__":
    _serve_digits()
