"""Overload: four times more requests than the server can answer, of a model that takes 20 ms a row.

One encrypted-inference request for MNIST is replayed in an open loop: each call is sent at its
time, whatever became of those before it. Calls without load and overload take turns, because a
machine that others use too is faster at one time and slower at another. Prints a table, and writes
overload.json into build/bench.
"""

import argparse
import gc
import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
from tqdm import tqdm

from benchmarks.report import OUTPUT, described_run, percent, render
from sealserve.ei import EIClient
from sealserve.protocol.item import ItemHeader
from sealserve.protocol.wire import header_to_proto
from sealserve_service.scoring.admission import DEFAULT_MAX_WAIT_SECONDS
from tests.support import mnist
from tests.support.ei_user import EIUser
from tests.support.programs import serve
from tests.support.raw import Request

METHOD = "/sealserve.v1.PredictionService/Predict"
TIMEOUT_SECONDS = 30.0
OVERLOAD = 4.0
ROUNDS = 5


def latencies(call: Callable[[], Any], count: int) -> list[float]:
    """Call one after the other; returns seconds."""
    samples = []
    for _ in tqdm(range(count), desc="unloaded", unit="call", leave=False):
        start = time.perf_counter()
        call()
        samples.append(time.perf_counter() - start)
    return samples


def flood(predict: Any, request: bytes, rate: float, seconds: float) -> dict[str, list[float]]:
    """Send requests at a rate; returns the seconds of each, from its due time, by status."""
    ends: dict[str, list[float]] = {}
    lock, count = threading.Lock(), int(rate * seconds)
    over = threading.Semaphore(0)
    start = time.perf_counter()
    for number in tqdm(range(count), desc=f"{rate:.0f} requests/s", unit="call", leave=False):
        due = start + number / rate
        time.sleep(max(0.0, due - time.perf_counter()))

        def ended(future: Any, due: float = due) -> None:
            with lock:
                ends.setdefault(future.code().name, []).append(time.perf_counter() - due)
            over.release()

        predict.future(request, timeout=TIMEOUT_SECONDS).add_done_callback(ended)
    for _ in range(count):
        over.acquire()
    return ends


def measure(calls: int, seconds: float) -> dict[str, Any]:
    """Serve the model, find its capacity, and ask for more, in ROUNDS."""
    images, path = mnist.images(), mnist.find(mnist.MODEL)
    if images is None or path is None:
        sys.exit(f"MNIST or the guide's model is not here: run `make data`, or set SEALSERVE_DATA ({mnist.MODEL})")
    user = EIUser()
    options = [f"--model=mnist={path}", "--trust-pickle", "--input-range=0,1"]
    with (
        serve(*options) as program,
        EIClient(program.address, client=user.client, evaluation_keys=user.evaluation_keys) as client,
    ):
        ciphertexts, model = user.encrypt(images[0]), client.model
        header = ItemHeader(
            model=model.name,
            config_id=model.config_id,
            layout=model.offers[-1].layout,
            parameter_set="ei-8192",
            row_count=1,
            ciphertext_count=len(ciphertexts),
            key_id=client.register_keys().key_id,
        )
        request = Request(header=header_to_proto(header), ciphertexts=ciphertexts).SerializeToString()
        size = [("grpc.max_receive_message_length", -1)]
        with grpc.insecure_channel(program.address, options=size) as channel:
            predict = channel.unary_unary(METHOD, bytes, bytes)
            # A pass of the garbage collector over all that is imported here takes 0.1 s. Nothing is
            # sent or received meanwhile, and that time must not be taken for the service's.
            gc.collect()
            gc.freeze()
            unloaded, ends = list[float](), dict[str, list[float]]()
            for _ in range(ROUNDS):
                unloaded += latencies(lambda: predict(request, timeout=TIMEOUT_SECONDS), calls // ROUNDS)
                capacity = 1 / float(np.median(unloaded))
                for status, samples in flood(predict, request, OVERLOAD * capacity, seconds / ROUNDS).items():
                    ends.setdefault(status, []).extend(samples)
    sent, accepted, refused = sum(map(len, ends.values())), ends.pop("OK", []), ends.pop("RESOURCE_EXHAUSTED", [])
    p99, accepted_p99 = np.quantile(unloaded, 0.99), np.quantile(accepted, 0.99)
    return {
        "capacity_per_second": capacity,
        "offered_per_second": sent / seconds,
        "accepted_per_second": len(accepted) / seconds,
        "refused": len(refused),
        "other_ends": {status: len(samples) for status, samples in ends.items()},
        "unloaded_p99_ms": 1e3 * float(p99),
        "accepted_p99_ms": 1e3 * float(accepted_p99),
        "ratio": float(accepted_p99 / p99),
        "refused_p95_ms": 1e3 * float(np.quantile(refused, 0.95)),
        "refused_p99_ms": 1e3 * float(np.quantile(refused, 0.99)),
        "share_of_capacity": len(accepted) / seconds * float(np.median(unloaded)),
        "items_beyond_max_wait": (float(accepted_p99) - DEFAULT_MAX_WAIT_SECONDS) / float(np.median(unloaded)),
    }


def ratios(result: dict[str, Any]) -> dict[str, float]:
    """How many times as long as without load an accepted request takes, at the p99."""
    return {"p99 of the accepted over that without load": result["ratio"]}


def table(result: dict[str, Any]) -> str:
    """Render the result."""
    rows = [
        ("overload of encrypted-inference requests", "MNIST"),
        ("answered one after the other, per second", f"{result['capacity_per_second']:.1f}"),
        ("offered per second", f"{result['offered_per_second']:.1f}"),
        ("accepted per second", f"{result['accepted_per_second']:.1f}"),
        ("ends that are neither OK nor RESOURCE_EXHAUSTED", str(result["other_ends"] or "none")),
        ("p99 without load, ms", f"{result['unloaded_p99_ms']:.0f}"),
        ("p99 of the accepted, ms", f"{result['accepted_p99_ms']:.0f}"),
        ("the latter over the former", f"{result['ratio']:.2f}"),
        ("p95 of refusals, ms", f"{result['refused_p95_ms']:.0f}"),
    ]
    if "share_of_capacity" in result:  # results that were published before it do not have it
        rows += [
            ("p99 of refusals, ms", f"{result['refused_p99_ms']:.0f}"),
            ("accepted, of what is answered one after the other", percent(result["share_of_capacity"])),
            ("p99 of the accepted beyond --max-wait, in items", f"{result['items_beyond_max_wait']:.1f}"),
        ]
    return render(rows)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=300, help="calls without load (%(default)s)")
    parser.add_argument("--seconds", type=float, default=15.0, help="how long the overload lasts (%(default)g)")
    arguments = parser.parse_args()
    result = measure(arguments.calls, arguments.seconds)
    (OUTPUT / "overload.json").write_text(json.dumps(described_run() | {"overload": result}, indent=2) + "\n")
    print(table(result))
    print(f"written: {OUTPUT / 'overload.json'}")


if __name__ == "__main__":
    main()
