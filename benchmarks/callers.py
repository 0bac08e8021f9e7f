"""Callers: what one process answers when more and more of them ask at once, and how long they wait.

The service has a core of its own, and what loads it another one, if there are two. Its model is
random, of 784 features and 10 classes. Loads take turns, in rounds: a machine that others use too
is faster at one time than at another. Prints tables, and writes callers.json into build/bench:

- closed: callers of rows, each in a call of its own or on a stream of its own, who ask again as
  soon as they have their answer, or after the retry delay if they were refused. The items are
  replayed (`sealserve bench --replay`).
- fair: the p99 of 64 callers beside their fair share, which is 64 over what is answered a second,
  with --max-wait 2.
- open: four times as many rows as are answered at best, whatever becomes of them.
- client: threads that share a Client, and tasks that share an AsyncClient, from rows to labels.
"""

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import grpc
import grpc.aio
import numpy as np
from tqdm import tqdm

from benchmarks.report import OUTPUT, described_run, percent, render
from benchmarks.scaling import CLASSES, FEATURES, RandomModel
from sealserve._rpc.retry import BUSY, delay_seconds
from sealserve._rpc.status import typed_error
from sealserve.aio import AsyncClient
from sealserve.client import Client
from sealserve.loadtest.items import random_rows
from sealserve.v1 import prediction_pb2
from tests.support.programs import Program

MODES, KINDS = ("private", "open"), ("calls", "streams")
CALLERS = 1, 8, 64, 256
THREADS, TASKS = (1, 8, 64, 256), (8, 64, 500)
FAIR_CALLERS, FAIR_MAX_WAIT_SECONDS = 64, 2.0
OVERLOAD = 4.0
_IN_FLIGHT = 256
_WARM_UP_SECONDS = 0.5
_STREAM = "/sealserve.v1.PredictionService/StreamPredict"

T = TypeVar("T")
Load = Callable[[Program, int, float], dict[str, float]]


@contextlib.contextmanager
def on_core(core: int) -> Iterator[None]:
    """Keep this thread, and the processes and threads that it starts meanwhile, on one core."""
    before = os.sched_getaffinity(0)
    cores = sorted(before)
    os.sched_setaffinity(0, {cores[core % len(cores)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def served(mode: str, *options: str) -> Iterator[Program]:
    """Serve the model from one process, on a core of its own; what follows runs on another one.

    All callers have one address, and stand for tenants of their own: as many streams may be open.
    """
    options = (*options, "--max-concurrent-calls=512", "--open-streams=512")
    with contextlib.ExitStack() as closing:
        with on_core(0):
            model = RandomModel.of(FEATURES, CLASSES)
            program = closing.enter_context(model.served(f"--weights={mode}", "--processes=1", *options))
        closing.enter_context(on_core(1))
        yield program


def benched(address: str, seconds: float, *options: str) -> dict[str, Any]:
    """Run `sealserve bench --replay` and return its figures."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "figures.json"
        command = [sys.executable, "-m", "sealserve.cli.main", "bench", "--replay", f"--address={address}"]
        command += [f"--seconds={seconds}", f"--warm-up={_WARM_UP_SECONDS}", f"--json={path}", *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        found: dict[str, Any] = json.loads(path.read_text())
    return found


def replayed(program: Program, seconds: float, *options: str) -> dict[str, float]:
    """Load a service with replayed items, and return rates and latencies."""
    found = benched(program.address, seconds, *options)
    return {
        "answered": found["answered_per_second"],
        "refused": sum(found["refused"].values()) / found["seconds"],
        "failed": sum(found["failed"].values()),
        "p99_ms": found["latency_ms"].get("p99", 0.0),
        "refusal_p99_ms": found["refusal_ms"].get("p99", 0.0),
    }


def calls(program: Program, callers: int, seconds: float) -> dict[str, float]:
    """Load the service with callers of rows, each in a call of its own."""
    return replayed(program, seconds, f"--concurrency={callers}")


def streams(program: Program, callers: int, seconds: float) -> dict[str, float]:
    """Load the service with callers that have a stream each, and one row on it at a time."""
    with Client(program.address, layout="row") as client:
        client.register_key()
        item = client.encrypt_quantized(random_rows(client.model.grid, 1, 0))
        chunk = prediction_pb2.Chunk(ciphertexts=item.ciphertexts)
        message = prediction_pb2.StreamPredictRequest(header=item.header_message, chunk=chunk).SerializeToString()
        return asyncio.run(_Streams(program.address, message, seconds).run(callers))


class _Streams:
    """Callers with a stream each.

    Args:
        address: of the service.
        message: of an item, without its id.
        seconds: for how long they are counted, after _WARM_UP_SECONDS.
    """

    def __init__(self, address: str, message: bytes, seconds: float) -> None:
        self._address = address
        self._message = message
        self._begin = time.perf_counter() + _WARM_UP_SECONDS
        self._end = self._begin + seconds
        self._latencies: list[float] = []
        self._refused = 0

    async def run(self, callers: int) -> dict[str, Any]:
        """Let them ask, and return the figures."""
        async with grpc.aio.insecure_channel(self._address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = channel.stream_stream(_STREAM, None, prediction_pb2.StreamPredictResponse.FromString)
            await asyncio.gather(*(self._ask(stub) for _ in range(callers)))
        seconds = self._end - self._begin
        return {
            "answered": len(self._latencies) / seconds,
            "refused": self._refused / seconds,
            "failed": 0,
            "p99_ms": 1e3 * float(np.quantile(self._latencies, 0.99)),
            "refusal_p99_ms": 0.0,
        }

    async def _ask(self, stub: Any) -> None:
        failures = 0
        while time.perf_counter() < self._end:
            try:
                await self._ask_on(stub())
            except grpc.RpcError as error:
                refusal = typed_error(error)
                if not isinstance(refusal, BUSY):
                    raise refusal from error
                failures += 1
                self._refused += time.perf_counter() > self._begin
                await asyncio.sleep(min(delay_seconds(refusal, failures), max(0.0, self._end - time.perf_counter())))

    async def _ask_on(self, call: Any) -> None:
        await call.read()  # the window
        item_id = 0
        while (sent := time.perf_counter()) < self._end:
            item_id += 1
            number = prediction_pb2.StreamPredictRequest(item_id=item_id).SerializeToString()
            await call.write(self._message + number)  # as protobuf joins messages
            while (response := await call.read()) and response.WhichOneof("end") is None:
                pass
            if response.WhichOneof("end") != "done":
                sys.exit(f"an item of a stream failed: {response.error}")
            if self._begin < sent and time.perf_counter() < self._end:
                self._latencies.append(time.perf_counter() - sent)
        call.cancel()


def threads_of_a_client(program: Program, count: int, seconds: float) -> float:
    """Return how many rows a second threads that share a Client predict."""
    answered, begin = [0] * count, time.perf_counter() + _WARM_UP_SECONDS
    with Client(program.address, layout="row") as client:
        row = np.random.default_rng(0).random((1, FEATURES))
        client.predict(row)

        def ask(number: int) -> None:
            while (now := time.perf_counter()) < begin + seconds:
                client.predict(row)
                answered[number] += begin < now and time.perf_counter() < begin + seconds

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return sum(answered) / seconds


def tasks_of_a_client(program: Program, count: int, seconds: float) -> float:
    """Return how many rows a second tasks that share an AsyncClient predict."""

    async def run() -> float:
        answered, begin = 0, time.perf_counter() + _WARM_UP_SECONDS
        async with AsyncClient(program.address, layout="row") as client:
            row = np.random.default_rng(0).random((1, FEATURES))
            await client.predict(row)

            async def ask() -> None:
                nonlocal answered
                while (now := time.perf_counter()) < begin + seconds:
                    await client.predict(row)
                    answered += begin < now and time.perf_counter() < begin + seconds

            await asyncio.gather(*(ask() for _ in range(count)))
        return answered / seconds

    return asyncio.run(run())


def in_rounds(
    cases: Sequence[T], rounds: int, measure: Callable[[T], dict[str, float]], title: str
) -> dict[T, dict[str, float]]:
    """Measure cases by turns, in rounds; return the medians of their figures."""
    several = defaultdict[T, list[dict[str, float]]](list)
    for case in tqdm([*cases] * rounds, desc=title, unit="load", leave=False, file=sys.stderr):
        several[case].append(measure(case))
    return {
        case: {name: median(figures[name] for figures in found) for name in found[0]} for case, found in several.items()
    }


def closed(rounds: int, seconds: float, most: int) -> dict[str, Any]:
    """Measure callers who ask again and again: by mode and kind, and by their number."""
    found: dict[str, Any] = {}
    for mode in MODES:
        with served(mode) as program:
            for kind, load in (("calls", calls), ("streams", streams)):

                def measure(count: int, load: Load = load, program: Program = program) -> dict[str, float]:
                    before = program.cpu_seconds
                    figures = load(program, count, seconds)
                    used = (program.cpu_seconds - before) / (seconds + _WARM_UP_SECONDS)
                    return figures | {"cpu_ms": 1e3 * used / figures["answered"]}

                title = f"{mode} rows, {kind}"
                found[title] = in_rounds([count for count in CALLERS if count <= most], rounds, measure, title)
    return found


def fair(rounds: int, seconds: float, most: int) -> dict[str, Any]:
    """Measure the p99 of callers who are never refused, beside their fair share."""
    found: dict[str, Any] = {}
    callers = min(FAIR_CALLERS, most)
    for mode in MODES:
        with served(mode, f"--max-wait={FAIR_MAX_WAIT_SECONDS}") as program:
            for kind, load in (("calls", calls), ("streams", streams)):

                def measure(count: int, load: Load = load, program: Program = program) -> dict[str, float]:
                    figures = load(program, count, seconds)
                    share = 1e3 * count / figures["answered"]
                    return {"share_ms": share, "p99_ms": figures["p99_ms"], "ratio": figures["p99_ms"] / share}

                found[f"{mode} rows, {kind}"] = in_rounds([callers], rounds, measure, f"{mode} {kind}, fair")[callers]
    return found


def overloaded(rounds: int, seconds: float) -> dict[str, Any]:
    """Measure four times as many rows as are answered by turns with 8 callers."""
    found: dict[str, Any] = {}
    for mode in MODES:
        with served(mode) as program:

            def measure(_: str, program: Program = program) -> dict[str, float]:
                capacity = calls(program, 8, seconds)["answered"]
                figures = replayed(program, seconds, f"--rate={OVERLOAD * capacity}", f"--in-flight={_IN_FLIGHT}")
                return figures | {"capacity": capacity, "share": figures["answered"] / capacity}

            found[f"{mode} rows"] = in_rounds([mode], rounds, measure, f"{mode} rows, overload")[mode]
    return found


def clients(rounds: int, seconds: float, most: int) -> dict[str, Any]:
    """Measure threads and tasks that share a client, by their number."""
    found: dict[str, Any] = {}
    for mode in MODES:
        with served(mode) as program:
            for kind, load, counts in (
                ("threads of a Client", threads_of_a_client, THREADS),
                ("tasks of an AsyncClient", tasks_of_a_client, TASKS),
            ):

                def measure(
                    count: int, load: Callable[..., float] = load, program: Program = program
                ) -> dict[str, float]:
                    return {"answered": load(program, count, seconds)}

                title = f"{mode} rows, {kind}"
                found[title] = in_rounds([count for count in counts if count <= most], rounds, measure, title)
    return found


def table(result: dict[str, Any]) -> str:
    """Render the parts that were measured."""
    return "\n\n".join(render(_ROWS[part](found)) for part, found in result.items())


def _closed_rows(found: dict[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        ("who ask again at once", "callers", "answered/s", "of the best", "refused/s", "CPU ms an answer", "p99, ms")
    ]
    for title, by_count in found.items():
        best = max(figures["answered"] for figures in by_count.values())
        rows += [
            (
                title,
                str(count),
                f"{figures['answered']:.0f}",
                percent(figures["answered"] / best),
                f"{figures['refused']:.0f}",
                f"{figures['cpu_ms']:.2f}",
                f"{figures['p99_ms']:.0f}",
            )
            for count, figures in by_count.items()
        ]
    return rows


def _fair_rows(found: dict[str, Any]) -> list[tuple[str, ...]]:
    head = f"{FAIR_CALLERS} callers who may wait for {FAIR_MAX_WAIT_SECONDS:g} s", "fair share, ms", "p99, ms", "ratio"
    return [
        head,
        *(
            (title, f"{figures['share_ms']:.0f}", f"{figures['p99_ms']:.0f}", f"{figures['ratio']:.2f}")
            for title, figures in found.items()
        ),
    ]


def _open_rows(found: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        ("four times what is answered", "capacity/s", "answered/s", "of capacity", "p99, ms", "p99 of refusals, ms"),
        *(
            (
                title,
                f"{figures['capacity']:.0f}",
                f"{figures['answered']:.0f}",
                percent(figures["share"]),
                f"{figures['p99_ms']:.0f}",
                f"{figures['refusal_p99_ms']:.0f}",
            )
            for title, figures in found.items()
        ),
    ]


def _client_rows(found: dict[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("who share a client", "number", "rows/s", "of the best")]
    for title, by_count in found.items():
        best = max(figures["answered"] for figures in by_count.values())
        rows += [
            (title, str(count), f"{figures['answered']:.0f}", percent(figures["answered"] / best))
            for count, figures in by_count.items()
        ]
    return rows


_ROWS: dict[str, Callable[[dict[str, Any]], list[tuple[str, ...]]]] = {
    "closed": _closed_rows,
    "fair": _fair_rows,
    "open": _open_rows,
    "client": _client_rows,
}
PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "closed": lambda asked: closed(asked.rounds, asked.seconds, asked.most),
    "fair": lambda asked: fair(asked.rounds, asked.seconds, asked.most),
    "open": lambda asked: overloaded(asked.rounds, asked.seconds),
    "client": lambda asked: clients(asked.rounds, asked.seconds, asked.most),
}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.callers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="which (all)")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each load (%(default)g)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is repeated (%(default)s)")
    parser.add_argument("--most", type=int, default=500, metavar="N", help="no more callers than that")
    parser.add_argument("--quick", action="store_true", help="one short round: only check that all parts work")
    asked = parser.parse_args()
    if asked.quick:
        asked.seconds, asked.rounds, asked.most = 1.0, 1, 8
    result = {part: PARTS[part](asked) for part in asked.parts}
    (OUTPUT / "callers.json").write_text(json.dumps(described_run() | {"callers": result}, indent=2) + "\n")
    print(table(result))
    print(f"written: {OUTPUT / 'callers.json'}")


if __name__ == "__main__":
    main()
