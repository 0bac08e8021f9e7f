"""Private weights beside open ones on MNIST: one client, one serving process of each, loopback.

All services are asked by turns: for rows one after the other, for rows with a rest before each, in
which zeros become ready, for rows beside those of another client, and for batches of columns that
were encrypted beforehand. Prints a table, and writes private.json into build/bench.
"""

import argparse
import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.report import OUTPUT, described_run, render, undisturbed
from benchmarks.row import latency, message_bytes
from benchmarks.server_time import with_server_seconds
from sealserve.client import Client, EncryptedReply
from sealserve.he.layouts import polynomial_groups
from sealserve.loadtest.items import LoadItems
from sealserve_service.engines.linear.rerandomizer import Rerandomizer
from sealserve_service.engines.linear.zero_encryptor import ZeroEncryptor
from sealserve_service.models.loading import load_model
from sealserve_service.planning.column import ColumnPlan
from sealserve_service.planning.grid import input_ranges
from sealserve_service.planning.row import RowPlan
from tests.support import mnist
from tests.support.metrics import free_address, scraped
from tests.support.plans import served_plans
from tests.support.programs import Program, serve

ROUNDS, ROWS_A_ROUND = 5, 60
RESTED_ROWS_A_ROUND, REST_SECONDS = 30, 0.03
BESIDE_SECONDS = 1.0  # a round
COLUMN_SECONDS = 0.8  # a round
TIMEOUT_SECONDS = 60.0
# Name, what serves it, and what the planner makes of it on MNIST.
SERVICES: dict[str, tuple[str, ...]] = {
    "open": ("--weights=open",),
    "private": ("--weights=private",),
    "private, no ready zeros": ("--weights=private", "--ready-zeros=0"),
    "private, error 0.01": ("--weights=private", "--max-score-error=0.01"),
}


@dataclass(frozen=True)
class Service:
    """A running service, with a client of each layout; the client's key, if any, is registered."""

    program: Program
    metrics_address: str
    row: Client
    column: Client


def first_call_ms(address: str, row: NDArray[np.float64]) -> float:
    """Time a new client's first prediction, key generation and registration included.

    The client knows the model already.
    """
    with Client(address, layout="row") as client:
        _ = client.model
        start = time.perf_counter()
        client.predict(row)
        return 1e3 * (time.perf_counter() - start)


def rows(services: dict[str, Service], images: NDArray[np.float64]) -> dict[str, dict[str, float]]:
    """Measure single rows at all services by turns.

    Returns:
        For each service the medians of the rounds' medians, and the undisturbed times.
    """
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in services}
    for number in range(ROUNDS):
        some = images[number * ROWS_A_ROUND : (number + 1) * ROWS_A_ROUND]
        for name, service in services.items():
            found, seconds = with_server_seconds(service.metrics_address, "row", partial(latency, service.row, some))
            server_ms = 1e3 * seconds
            wire_ms = found["wire_ms"] + found["server_ms"] - server_ms
            rounds[name].append(found | {"server_ms": server_ms, "wire_ms": wire_ms})
    return {name: summed_up(found) for name, found in rounds.items()}


def rested_rows(services: dict[str, Service], images: NDArray[np.float64]) -> dict[str, dict[str, float]]:
    """Measure single rows with a rest before each, at all services by turns, as `rows` does."""

    def ask(client: Client, some: NDArray[np.float64]) -> float:
        seconds = list[float]()
        for row in some[:, None]:
            time.sleep(REST_SECONDS)
            start = time.perf_counter()
            client.predict(row)
            seconds.append(time.perf_counter() - start)
        return median(seconds)

    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in services}
    for number in range(ROUNDS):
        some = images[number * RESTED_ROWS_A_ROUND : (number + 1) * RESTED_ROWS_A_ROUND]
        for name, service in services.items():
            predict, server = with_server_seconds(service.metrics_address, "row", partial(ask, service.row, some))
            rounds[name].append({"rested_predict_ms": 1e3 * predict, "rested_server_ms": 1e3 * server})
    return {name: summed_up(found) for name, found in rounds.items()}


def ask_for(seconds: float, address: str, images: NDArray[np.float64], rest_seconds: float) -> list[float]:
    """Ask a service for rows, each after a rest; return how long each took, in seconds."""
    found = list[float]()
    with Client(address, layout="row") as client:
        client.predict(images[:1])
        end = time.perf_counter() + seconds
        while (start := time.perf_counter()) < end:
            client.predict(images[len(found) % len(images), None])
            found.append(time.perf_counter() - start)
            time.sleep(rest_seconds)
    return found


def rows_beside(services: dict[str, Service], images: NDArray[np.float64]) -> dict[str, dict[str, float]]:
    """Measure the rows of a client while another one asks about twice as often, by turns.

    To make zeros for the one may delay the other. Each is in a process of its own.
    """
    found: dict[str, list[float]] = {name: [] for name in services}
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        for _ in range(ROUNDS):
            for name, service in services.items():
                address = service.program.address
                other = pool.submit(ask_for, BESIDE_SECONDS, address, images, REST_SECONDS / 6)
                found[name] += ask_for(BESIDE_SECONDS, address, images, REST_SECONDS / 2)
                other.result()
    return {name: {"beside_p99_ms": 1e3 * float(np.quantile(seconds, 0.99))} for name, seconds in found.items()}


def ready_mb(address: str) -> float:
    """Return the megabytes of ready zeros of a service that is asked no more."""
    time.sleep(REST_SECONDS)
    return scraped(f"http://{address}/metrics")("ready_zero_bytes") / 1e6


def summed_up(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Sum rounds up: the median of each figure, and the undisturbed value of each time."""
    medians = {key: median(one[key] for one in rounds) for key in rounds[0]}
    times = {key: undisturbed([one[key] for one in rounds]) for key in rounds[0] if key.endswith("_ms")}
    return medians | {f"undisturbed_{key}": value for key, value in times.items()}


def columns(services: dict[str, Service]) -> dict[str, dict[str, float]]:
    """Measure batches at all services by turns: medians of the rounds, and the undisturbed."""
    batches = {}
    for name, service in tqdm(services.items(), desc="encrypting batches", leave=False):
        service.column.register_key()
        batches[name] = LoadItems(service.column, service.column.offer().rows_per_item, replay=1)
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in services}

    def answered(items: LoadItems) -> tuple[list[EncryptedReply], float]:
        start, answers = time.perf_counter(), list[EncryptedReply]()
        while (seconds := time.perf_counter() - start) < COLUMN_SECONDS:
            answers.append(items.send(TIMEOUT_SECONDS))
        return answers, seconds

    for _ in range(2 * ROUNDS):
        for name, items in batches.items():
            service = services[name]
            cpu_seconds = service.program.cpu_seconds
            (answers, seconds), server_seconds = with_server_seconds(
                service.metrics_address, "column", partial(answered, items)
            )
            cpu_seconds = service.program.cpu_seconds - cpu_seconds
            row_count = answers[0].header.row_count
            rounds[name].append(
                {
                    "column_cpu_ms": 1e3 * cpu_seconds / len(answers),
                    "rows_per_second": len(answers) * row_count / seconds,
                    "column_row_ms": 1e3 * seconds / (len(answers) * row_count),
                    "column_server_ms": 1e3 * server_seconds,
                    "column_request_bytes": answers[0].request_bytes / row_count,
                    "column_reply_bytes": answers[0].reply_bytes / row_count,
                }
            )
    return {name: summed_up(found) for name, found in rounds.items()}


def hiding_ms(plan: RowPlan | ColumnPlan) -> float:
    """Time what hides the weights of a full reply, on one core.

    That is encryptions of zero, noise, and adding them.
    """
    if plan.noise_width is None:
        return 0.0
    parameter_set, packing = plan.parameters.parameter_set, plan.packing
    rerandomizer = Rerandomizer(parameter_set, plan.noise_width)
    zero_encryptor = ZeroEncryptor.under_a_random_key(parameter_set)
    c1 = np.zeros((len(parameter_set.data_primes), parameter_set.poly_modulus_degree), np.uint64)
    samples = []
    for _ in range(15):
        start = time.thread_time()
        for polynomials in polynomial_groups(packing):
            places = packing.places(packing.rows, len(packing.classes_in(polynomials.start))).ravel()
            some = np.broadcast_to(c1, (len(polynomials), *c1.shape))
            rerandomizer.rerandomize(zero_encryptor, some[..., places], some, places)
        samples.append(time.thread_time() - start)
    return 1e3 * median(samples)


def planned(path: Path, options: tuple[str, ...]) -> tuple[RowPlan, ColumnPlan]:
    """Plan as a service with these options does."""
    model = load_model(path, trust_pickle=True)
    wanted = 0.01 if "--max-score-error=0.01" in options else None
    bits = 40 if "--weights=private" in options else None
    ranges = input_ranges(model, input_range=(0.0, 1.0))
    plans = served_plans(model, ranges, max_score_error=wanted, hiding_bits=bits)
    return plans["row"], plans["column"]


def measure(path: Path, images: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Measure everything."""
    results: dict[str, dict[str, Any]] = {}
    with ExitStack() as stack:
        services: dict[str, Service] = {}
        for name, options in SERVICES.items():
            metrics_address = free_address()
            metrics = f"--metrics-address={metrics_address}"
            program = stack.enter_context(
                serve(f"--model=mnist={path}", "--trust-pickle", "--input-range=0,1", metrics, *options)
            )
            clients = [stack.enter_context(Client(program.address, layout=layout)) for layout in ("row", "column")]
            services[name] = Service(program, metrics_address, *clients)
            row, column = planned(path, options)
            results[name] = {
                "weights": name,
                "row_set": row.parameters.parameter_set.name,
                "row_bits": row.weight_bits,
                "column_set": column.parameters.parameter_set.name,
                "column_bits": column.weight_bits,
                "first_call_ms": median(first_call_ms(program.address, images[:1]) for _ in range(5)),
                "key_bytes": clients[0].model.offers[0].cost.key_bytes,
            }
            for client in clients:
                client.predict(images[:1])
            results[name] |= message_bytes(clients[0], images[:1])
        by_rows = rows(services, images), rested_rows(services, images), rows_beside(services, images)
        for measured in (*by_rows, columns(services)):
            for name, found in measured.items():
                results[name] |= found
        for name, service in services.items():
            results[name]["ready_mb"] = ready_mb(service.metrics_address)
        for name, options in SERVICES.items():
            row, column = planned(path, options)
            results[name] |= {"row_hiding_ms": hiding_ms(row), "column_hiding_ms": hiding_ms(column)}
    for result in results.values():
        result["column_hiding_share"] = result["column_hiding_ms"] / result["column_cpu_ms"]
    return list(results.values())


def ratios(results: list[dict[str, Any]]) -> dict[str, float]:
    """How many times what open weights cost private ones cost, for each service of the latter."""
    opened, *private = results
    measures = {"row: server's time": "server_ms", "column: a row": "column_row_ms"}
    return {
        f"{name}, {result['weights']} over open": result[f"undisturbed_{key}"] / opened[f"undisturbed_{key}"]
        for result in private
        for name, key in measures.items()
    }


def table(results: list[dict[str, Any]]) -> str:
    """Render the results: one column a service."""
    lines = [
        ("weights", "weights", "{}"),
        ("row: parameter set", "row_set", "{}"),
        ("row: bits of the weights", "row_bits", "{}"),
        ("row: server, ms", "server_ms", "{:.2f}"),
        ("row: of which hiding, ms", "row_hiding_ms", "{:.2f}"),
        ("row: whole predict, p50, ms", "predict_ms", "{:.2f}"),
        ("row after a rest: server, ms", "rested_server_ms", "{:.2f}"),
        ("row after a rest: whole predict, p50, ms", "rested_predict_ms", "{:.2f}"),
        ("row beside another client's: whole predict, p99, ms", "beside_p99_ms", "{:.1f}"),
        ("ready zeros, MB", "ready_mb", "{:.1f}"),
        ("row: bytes up", "request_bytes", "{}"),
        ("row: bytes down", "reply_bytes", "{}"),
        ("a new client's first call, ms", "first_call_ms", "{:.1f}"),
        ("bytes of its key, once", "key_bytes", "{}"),
        ("column: parameter set", "column_set", "{}"),
        ("column: bits of the weights", "column_bits", "{}"),
        ("column: rows/s", "rows_per_second", "{:.0f}"),
        ("column: server, ms a batch", "column_server_ms", "{:.1f}"),
        ("column: of which hiding, ms", "column_hiding_ms", "{:.1f}"),
        ("column: the process's CPU, ms a batch", "column_cpu_ms", "{:.1f}"),
        ("column: share of hiding in it", "column_hiding_share", "{:.1%}"),
        ("column: bytes up a row", "column_request_bytes", "{:.0f}"),
        ("column: bytes down a row", "column_reply_bytes", "{:.0f}"),
    ]
    measured = [line for line in lines if all(line[1] in result for result in results)]  # not all of it always was
    return render([[title, *(pattern.format(result[key]) for result in results)] for title, key, pattern in measured])


def main() -> None:
    """Run the benchmark."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    images, path = mnist.images(), mnist.find(mnist.MODEL)
    if images is None or path is None:
        sys.exit(f"MNIST or the guide's model is not here: run `make data`, or set SEALSERVE_DATA ({mnist.MODEL})")
    results = measure(path, images)
    (OUTPUT / "private.json").write_text(json.dumps(described_run() | {"private": results}, indent=2) + "\n")
    print(table(results))
    print(f"\nwritten: {OUTPUT / 'private.json'}")


if __name__ == "__main__":
    main()
