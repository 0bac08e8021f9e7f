"""A service under mixed load for minutes or hours: what grows, and how fast.

Private rows, private columns, registrations of keys and bad requests come at the same time. Each
second the resident memory, file descriptors and threads of the service are read. The first part of
the time warms up: pools and caches fill. Of the rest, each half has a slope, and growth that ends
has a smaller one in the second. Prints a table, and writes soak.json into build/bench. With --envoy
the load comes by the Envoy of deploy/envoy, whose memory and descriptors are read, too; the result
is soak_envoy.json.

The service keeps keys for 17 seconds, at most 16 MB in memory and 16 MB ready for use, so
that both are full soon. What `--key-memory-bytes` and `--key-cache-bytes` allow is no growth
without an end.
"""

import argparse
import contextlib
import json
import secrets
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.report import OUTPUT, described_run, render
from sealserve.client import Client
from sealserve.errors import SealserveError
from sealserve.he.layouts import LAYOUTS
from sealserve.secret_key import SecretKey
from tests.support import envoy, http2
from tests.support.programs import serve

FEATURES, CLASSES, BATCH = 64, 10, 2000
# Bad requests are to be read, however many they are.
SERVED = "--input-range=0,1", "--weights=private", "--empty-calls-per-minute=1e9"
KEY_BYTES = 16 << 20
KEY_DAYS = 0.0002  # 17 s
WARM_SHARE = 0.3
INTERVAL_SECONDS = 1.0
PREDICT = "/sealserve.v1.PredictionService/Predict"
QUANTITIES = {"resident_mb": "resident memory, MB", "descriptors": "file descriptors", "threads": "threads"}
OF_ENVOY = {"envoy_resident_mb": "resident memory of Envoy, MB", "envoy_descriptors": "file descriptors of Envoy"}


@dataclass(frozen=True)
class Load:
    """What one kind of caller does, again and again until it is time to end."""

    address: str
    weights: NDArray[np.float64]

    def rows(self, ended: threading.Event, count: "Counter[str]") -> None:
        """Ask for private rows; check each score."""
        self._predict("row", 1, ended, count)

    def columns(self, ended: threading.Event, count: "Counter[str]") -> None:
        """Ask for private batches; check each score."""
        self._predict("column", BATCH, ended, count)

    def registrations(self, ended: threading.Event, count: "Counter[str]") -> None:
        """Ask for one row with a new key, which is registered for it."""
        parameter_set = LAYOUTS["row"].private_parameter_sets[0]
        while not ended.wait(0.1):
            with Client(self.address, layout="row", secret_key=SecretKey.generate(parameter_set)) as client:
                client.predict(np.zeros((1, FEATURES)))
            count["keys registered"] += 1

    def bad_requests(self, ended: threading.Event, count: "Counter[str]") -> None:
        """Send what is no request, to methods that are none, and break connections off."""
        host, _, port = self.address.rpartition(":")
        with grpc.insecure_channel(self.address) as channel:
            calls = [channel.unary_unary(method, bytes, bytes) for method in (PREDICT, "/no/Method")]
            while not ended.wait(0.05):
                for call in calls:
                    with contextlib.suppress(grpc.RpcError):
                        call(secrets.token_bytes(secrets.randbelow(100_000)), timeout=10.0)
                with socket.create_connection((host, int(port))) as connection:
                    connection.sendall(http2.call(PREDICT.encode(), b"x")[: secrets.randbelow(200)])
                count["bad requests"] += 3

    def _predict(self, layout: str, row_count: int, ended: threading.Event, count: "Counter[str]") -> None:
        rows = np.random.default_rng(row_count).integers(0, 256, (row_count, FEATURES)) / 255
        expected = rows @ self.weights.T
        with Client(self.address, layout=layout) as client:
            bound = max(offer.score_error_bound for offer in client.model.offers)
            while not ended.is_set():
                if np.abs(client.predict(rows) - expected).max() > bound + 1e-9:
                    raise AssertionError("wrong scores")
                count[f"{layout} items"] += 1


def sampled(pid: int, seconds: float, failed: Callable[[], bool], envoy_pid: int = 0) -> dict[str, list[float]]:
    """Read quantities of a process with the times, for so long, or until a load has failed.

    Those of Envoy are read, too, if its process is given.
    """
    process, proxy, began = psutil.Process(pid), psutil.Process(envoy_pid or pid), time.monotonic()
    samples: dict[str, list[float]] = {name: [] for name in ("seconds", *QUANTITIES, *(OF_ENVOY if envoy_pid else ()))}
    with tqdm(total=round(seconds), unit="s", leave=False) as bar:
        while (now := time.monotonic() - began) < seconds and not failed():
            with process.oneshot():
                found = [now, process.memory_info().rss / 1e6, process.num_fds(), process.num_threads()]
            if envoy_pid:
                found += [proxy.memory_info().rss / 1e6, proxy.num_fds()]
            for values, value in zip(samples.values(), found, strict=True):
                values.append(float(value))
            bar.update(round(now) - bar.n)
            time.sleep(INTERVAL_SECONDS)
    return samples


def slope_per_hour(seconds: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    """Return the slope of the straight line that fits best."""
    return 3600 * float(np.polyfit(seconds, values, 1)[0])


def summary(samples: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Return, for each quantity, its values at times, and its slopes after the warm-up."""
    seconds = np.array(samples["seconds"])
    warm = int(WARM_SHARE * len(seconds))
    middle = (warm + len(seconds)) // 2
    found = {}
    for name in (name for name in samples if name != "seconds"):
        values = np.array(samples[name])
        found[name] = {
            "at_start": values[0],
            "after_warm_up": values[warm],
            "at_end": values[-1],
            "most": values.max(),
            "first_slope_per_hour": slope_per_hour(seconds[warm:middle], values[warm:middle]),
            "second_slope_per_hour": slope_per_hour(seconds[middle:], values[middle:]),
        }
    return found


def measure(
    minutes: float, options: tuple[str, ...] = (), *, with_envoy: bool = False
) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """Serve, load, by Envoy or directly, and sample; returns the result and the samples."""
    weights = np.random.default_rng(0).normal(size=(CLASSES, FEATURES))
    done, ended = Counter[str](), threading.Event()
    with tempfile.TemporaryDirectory() as directory:
        model = Path(directory) / "model.npz"
        np.savez(model, coef=weights, intercept=np.zeros(CLASSES))
        keys = f"--key-memory-bytes={KEY_BYTES}", f"--key-cache-bytes={KEY_BYTES}", f"--key-days={KEY_DAYS}"
        log = Path(directory) / "log"
        with (
            serve(f"--model={model}", *SERVED, *keys, *options, log=log) as program,
            envoy.running_proxy(program.address, Path(directory)) if with_envoy else nullcontext() as proxy,
            ThreadPoolExecutor(4) as pool,
        ):
            load = Load(proxy.address if proxy else program.address, weights)
            loads = load.rows, load.columns, load.registrations, load.bad_requests
            running = [pool.submit(one, ended, done) for one in loads]
            try:
                samples = sampled(
                    program.process.pid,
                    60 * minutes,
                    lambda: any(future.done() for future in running),
                    proxy.process.pid if proxy else 0,
                )
            finally:
                ended.set()
            for future in running:
                future.result()
            if program.process.poll() is not None:
                raise SealserveError("the service has ended")
            log_bytes = log.stat().st_size
    result = {"minutes": minutes, "done": dict(done), "log_bytes": log_bytes, "quantities": summary(samples)}
    return result, samples


def table(result: dict[str, Any]) -> str:
    """Render the result."""
    names = ("at start", "after warm-up", "at the end", "most", "slope an hour, first half", "second half")
    rows: list[tuple[str, ...]] = [(f"{result['minutes']:g} minutes", *names)]
    for name, title in (QUANTITIES | OF_ENVOY).items():
        if name in result["quantities"]:
            rows.append((title, *(f"{value:.1f}" for value in result["quantities"][name].values())))
    done = ", ".join(f"{count} {what}" for what, count in result["done"].items())
    return f"{render(rows)}\n\n{done}; {result['log_bytes']} bytes of log"


def main() -> None:
    """Run the soak."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0, help="how long (%(default)g)")
    parser.add_argument("--envoy", action="store_true", help="load the service by Envoy: `make envoy` installs it")
    arguments = parser.parse_args()
    name, report = "soak_envoy" if arguments.envoy else "soak", described_run()
    result, samples = measure(arguments.minutes, with_envoy=arguments.envoy)
    (OUTPUT / f"{name}.json").write_text(json.dumps(report | {name: result, "samples": samples}, indent=2) + "\n")
    print(table(result))
    print(f"written: {OUTPUT / f'{name}.json'}")


if __name__ == "__main__":
    main()
