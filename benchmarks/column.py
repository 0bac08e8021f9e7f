"""The column layout on MNIST: one client, one serving process, loopback.

The service alone is measured with batches that were encrypted beforehand and are sent over and
over. Two other servers take turns with it: one drops the same messages, the other scores the same
rows in plaintext. Then the whole way is measured, with fresh encryption. Prints tables, and writes
column.json and column.png into build/bench.
"""

import argparse
import itertools
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from benchmarks import plain_server
from benchmarks.report import OUTPUT, described_run, render, undisturbed
from sealserve.client import Client
from sealserve.loadtest.items import LoadItems
from sealserve.protocol.wire import error_from_proto
from sealserve.v1 import prediction_pb2
from sealserve_service.engines.linear.column import ColumnEngine, ColumnScoring
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.models.loading import load_model
from sealserve_service.planning.column import ColumnPlan
from sealserve_service.planning.grid import input_ranges
from tests.support import mnist
from tests.support.plans import served_plans
from tests.support.programs import serve

WANTED_ERRORS = (None, 0.01)
STREAM = "/sealserve.v1.PredictionService/StreamPredict"
IN_FLIGHT = 4  # items, of which the service works on one while the others are on their way
CLASSES = 10
OTHERS = {"drained": "server that drops messages", "plain": "server of plaintext rows"}
STAGES = ("receive", "parse", "check", "convert", "multiply", "reduce")


def served_rate(channel: grpc.Channel, items: LoadItems, seconds: float) -> tuple[float, float]:
    """Send items on one stream, as the SDK does; return rows a second and bytes a reply.

    Several concurrent calls of one item each would compete for the service and get less from it.

    Raises:
        ServiceError: an item has failed.
    """
    (item,), row_count = items.items, items.row_count
    room, start = threading.Semaphore(IN_FLIGHT), time.perf_counter()

    def requests() -> Iterator[bytes]:
        for item_id in itertools.count(1):
            room.acquire()
            if time.perf_counter() > start + seconds:
                return
            # On one stream each item has an id of its own: of two in a message, the last counts.
            own_id = prediction_pb2.StreamPredictRequest(item_id=item_id).SerializeToString()
            for body in item.requests:
                yield body + own_id

    call: Any = channel.stream_stream(STREAM, bytes, prediction_pb2.StreamPredictResponse.FromString)(requests())
    done = reply_bytes = 0
    for response in call:
        if response.HasField("error"):
            raise error_from_proto(response.error)
        reply_bytes += response.ByteSize()
        if response.HasField("done"):
            done += 1
            room.release()
    return done * row_count / (time.perf_counter() - start), reply_bytes / done


def repeated(bodies: list[bytes], seconds: float) -> Iterator[bytes]:
    """Yield messages over and over for some seconds, each as often as the others."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        yield from bodies


def plain_rate(channel: grpc.Channel, rows: NDArray[np.float32], seconds: float) -> float:
    """Score rows in plaintext messages of about a megabyte; return rows a second."""
    per_message = (1 << 20) // rows[0].nbytes
    bodies = [rows[first : first + per_message].tobytes() for first in range(0, len(rows), per_message)]
    start = time.perf_counter()
    replies = channel.stream_stream(plain_server.SCORE, bytes, bytes)(repeated(bodies, seconds))
    scored = sum(map(len, replies)) // (4 * CLASSES)
    assert scored % len(rows) == 0
    return scored / (time.perf_counter() - start)


def drained_rate(channel: grpc.Channel, items: LoadItems, seconds: float) -> float:
    """Send an item's messages to the server that drops them; return rows a second."""
    bodies = list(items.items[0].requests)
    start = time.perf_counter()
    (received,) = channel.stream_stream(plain_server.DRAIN, bytes, bytes)(repeated(bodies, seconds))
    count, rest = divmod(int(received), sum(map(len, bodies)))
    assert rest == 0
    return count * items.row_count / (time.perf_counter() - start)


def served_rates(
    address: str, plain_address: str, items: LoadItems, rows: NDArray[np.float64], turns: int, seconds: float
) -> dict[str, Any]:
    """Measure the service and the two other servers by turns; medians, and the service's spread.

    Args:
        address: of the service.
        plain_address: of the two other servers.
        items: for the service, and for who drops them.
        rows: for who scores them in plaintext.
        turns: of each.
        seconds: a turn.
    """
    floats = rows.astype(np.float32)
    samples: dict[str, list[float]] = {"served": [], "drained": [], "plain": []}
    with grpc.insecure_channel(address) as channel, grpc.insecure_channel(plain_address) as plain:
        served_rate(channel, items, 0.1)  # warm
        for _ in tqdm(range(turns), desc="server", unit="turn", leave=False):
            served, reply_bytes = served_rate(channel, items, seconds)
            samples["served"].append(served)
            samples["drained"].append(drained_rate(plain, items, seconds))
            samples["plain"].append(plain_rate(plain, floats, seconds))
    return {
        "server_rows_per_second": median(samples["served"]),
        "server_rows_per_second_least": min(samples["served"]),
        "server_rows_per_second_most": max(samples["served"]),
        "drained_rows_per_second": median(samples["drained"]),
        "plain_rows_per_second": median(samples["plain"]),
        "undisturbed": {name: 1 / undisturbed([1 / rate for rate in rates]) for name, rates in samples.items()},
        "request_bytes_a_row": sum(map(len, items.items[0].requests)) / items.row_count,
        "reply_bytes_a_row": reply_bytes / items.row_count,
    }


def stages(items: LoadItems, plan: ColumnPlan, drained: float) -> dict[str, float]:
    """Take the service's work on an item apart, in this process: microseconds a row, medians."""
    engine, bodies, row_count = ColumnEngine(plan), list(items.items[0].requests), items.row_count
    parsed = list(map(prediction_pb2.StreamPredictRequest.FromString, bodies))
    ciphertexts = [bytes(ciphertext) for message in parsed for ciphertext in message.chunk.ciphertexts]
    residues = np.stack([engine.format.residues(ciphertext) for ciphertext in ciphertexts])
    limbs = residues.reshape(len(residues), -1).view(np.uint32)
    buffer, sums = np.empty((32, 8192)), np.zeros((engine.packing.score_count, limbs.shape[1]))
    scoring = ColumnScoring(engine, row_count, engine.writer)
    scoring.add(ciphertexts)

    def parse() -> None:
        for body in bodies:
            list(prediction_pb2.StreamPredictRequest.FromString(body).chunk.ciphertexts)

    def check() -> None:
        for first in range(0, len(ciphertexts), 32):
            engine.format.checked_residues(ciphertexts[first : first + 32])

    def convert() -> None:
        for first in range(0, len(limbs), 32):
            for start in range(0, limbs.shape[1], 8192):
                some = limbs[first : first + 32, start : start + 8192]
                buffer[: len(some)] = some

    def whole() -> None:
        engine.multiply(0, residues, sums)

    def reduce() -> None:
        for _ in engine.folds:
            scoring.fold()

    def seconds(work: Callable[[], None]) -> float:
        samples = []
        for _ in range(7):
            start = time.thread_time()
            work()
            samples.append(time.thread_time() - start)
        return median(samples)

    with threadpool_limits(1, user_api="blas"):
        found = {
            "parse": seconds(parse),
            "check": seconds(check),
            "convert": seconds(convert),
            "reduce": seconds(reduce),
        }
        found["multiply"] = seconds(whole) - found["convert"]
    micros = {stage: 1e6 * value / row_count for stage, value in found.items()}
    return {stage: (micros | {"receive": 1e6 / drained})[stage] for stage in STAGES}


def memory_bandwidth() -> float:
    """Measure how fast one core copies memory: bytes a second, read and written together."""
    source = np.ones(256 << 20, np.uint8)
    target = np.empty_like(source)
    samples = []
    for _ in range(5):
        start = time.perf_counter()
        np.copyto(target, source)
        samples.append(time.perf_counter() - start)
    return 2 * source.nbytes / median(samples)


def whole_way(client: Client, model: LinearModel, rows: NDArray[np.float64]) -> dict[str, float]:
    """Score rows with fresh encryption and compare with the plaintext model."""
    start = time.perf_counter()
    scores = client.decision_function(rows)
    seconds = time.perf_counter() - start
    expected = model.decision(rows)
    labels, expected_labels = model.output.predict(scores), model.output.predict(expected)
    return {
        "rows": len(rows),
        "rows_per_second": len(rows) / seconds,
        "labels_equal": int((labels == expected_labels).sum()),
        "observed_score_error": float(np.abs(scores - expected).max()),
    }


def measure(wanted: float | None, turns: int, seconds: float) -> dict[str, Any]:
    """Serve the model with a wanted error and measure everything."""
    rows, path = mnist.images(), mnist.find(mnist.MODEL)
    if rows is None or path is None:
        sys.exit(f"MNIST or the guide's model is not here: run `make data`, or set SEALSERVE_DATA ({mnist.MODEL})")
    model = load_model(path, trust_pickle=True)
    options = [f"--model=mnist={path}", "--trust-pickle", "--input-range=0,1"]
    options += [] if wanted is None else [f"--max-score-error={wanted}"]
    with (
        serve(*options) as program,
        plain_server.running(model.weights, model.intercept) as plain,
        Client(program.address, layout="column") as client,
    ):
        offer = client.offer()
        result: dict[str, Any] = {
            "parameter_set": offer.parameters.parameter_set.name,
            "rows_per_item": offer.rows_per_item,
            "score_error_bound": offer.weight_rounding_error_bound,
        }
        client.register_key()
        items = LoadItems(client, offer.rows_per_item, replay=1)
        result |= served_rates(program.address, plain.address, items, rows[: items.row_count], turns, seconds)
        result["end_to_end"] = whole_way(client, model, np.tile(rows, (3, 1)))
        result["server_rss_mb"] = program.resident_bytes / 1e6
        ranges = input_ranges(model, input_range=(0.0, 1.0))
        plan = served_plans(model, ranges, max_score_error=wanted)["column"]
        result["stages_us_a_row"] = stages(items, plan, result["drained_rows_per_second"])
    return result


def ratios(results: list[dict[str, Any]]) -> dict[str, float]:
    """How many times the service's rows a second the other two servers take."""
    return {
        f"{result['parameter_set']}: {title} over service": over_service(result, other)
        for result in results
        for other, title in OTHERS.items()
    }


def over_service(result: dict[str, Any], other: str) -> float:
    """Another server's rows a second over the service's, both undisturbed."""
    return float(result["undisturbed"][other] / result["undisturbed"]["served"])


def table(results: list[dict[str, Any]]) -> str:
    """Render the results: one column a plan."""
    flat = [
        result
        | {f"end_{name}": value for name, value in result["end_to_end"].items()}
        | {f"over_{other}": over_service(result, other) for other in OTHERS}
        for result in results
    ]
    lines = [
        ("parameter set", "parameter_set", "{}"),
        ("rows a batch", "rows_per_item", "{:,}"),
        ("proven score error (on the grid)", "score_error_bound", "{:.2g}"),
        ("labels equal to the plaintext model's, of 30,000", "end_labels_equal", "{}"),
        ("observed score error", "end_observed_score_error", "{:.2g}"),
        ("the service alone, rows/s", "server_rows_per_second", "{:,.0f}"),
        ("  the slowest turn", "server_rows_per_second_least", "{:,.0f}"),
        ("  the quickest turn", "server_rows_per_second_most", "{:,.0f}"),
        ("a server that drops the same messages, rows/s", "drained_rows_per_second", "{:,.0f}"),
        ("  times the service", "over_drained", "{:.2f}"),
        ("a server of plaintext rows, rows/s", "plain_rows_per_second", "{:,.0f}"),
        ("  times the service", "over_plain", "{:.1f}"),
        ("end to end, fresh encryption, rows/s", "end_rows_per_second", "{:,.0f}"),
        ("bytes up a row", "request_bytes_a_row", "{:,.0f}"),
        ("bytes down a row", "reply_bytes_a_row", "{:,.0f}"),
        ("server resident, MB", "server_rss_mb", "{:.0f}"),
    ]
    rows = [[title, *(pattern.format(result[key]) for result in flat)] for title, key, pattern in lines]
    for stage in STAGES:
        rows.append([f"{stage}, us a row", *(f"{result['stages_us_a_row'][stage]:.2f}" for result in results)])
    return render(rows)


def plot(results: list[dict[str, Any]], path: Any) -> None:
    """Draw where the service's time for a row goes."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 1.4 + 0.6 * len(results)), layout="constrained")
    names = [result["parameter_set"] for result in results]
    left = np.zeros(len(results))
    for stage, color in zip(STAGES, ("#b8b8b8", "#8c8c8c", "#3b6fb6", "#5aa469", "#d98c00", "#a44a3f"), strict=True):
        widths = np.array([result["stages_us_a_row"][stage] for result in results])
        axes.barh(names, widths, left=left, label=stage, color=color)
        left += widths
    axes.invert_yaxis()
    axes.set_xlabel("microseconds of one core, a row")
    axes.set_title("Where the service's time for one row of a batch goes (MNIST)")
    figure.legend(ncols=len(STAGES), loc="outside lower center", frameon=False)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=10, help="of each server (%(default)s)")
    parser.add_argument("--seconds", type=float, default=1.0, help="a turn (%(default)g)")
    arguments = parser.parse_args()
    results = []
    for wanted in WANTED_ERRORS:
        print(f"serving with max score error {wanted or 'default'} ...", file=sys.stderr)
        results.append(measure(wanted, arguments.turns, arguments.seconds))
    report = described_run() | {"memory_bytes_per_second": memory_bandwidth(), "column": results}
    (OUTPUT / "column.json").write_text(json.dumps(report, indent=2) + "\n")
    plot(results, OUTPUT / "column.png")
    print(table(results))
    print(f"\nmemory, copied by one core: {report['memory_bytes_per_second'] / 1e9:.1f} GB/s read and written")
    print(f"written: {OUTPUT / 'column.json'}, {OUTPUT / 'column.png'}")


if __name__ == "__main__":
    main()
