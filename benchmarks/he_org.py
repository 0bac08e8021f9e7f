"""The workload "ML inference" of HomomorphicEncryption.org, through the live service.

MNIST in batches of 1, 15, 1,000 and 10,000 images; the phases of the workload are timed apart.
Source: https://github.com/fhe-benchmarking/ml-inference. Two models are served, each with open and
with private weights: the Azure ML guide's linear model, and seeded convolutions, which clients
compute by the model's published steps (see `convolutions`).

The linear model was trained on other images. Of the 10,000 test images the convolutions' head has
seen 8,000: it is asked for the other 2,000, which larger batches repeat.

Prints a table beside published rows, and bounds, and writes he_org.json into build/bench.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers import three_digits
from benchmarks.report import OUTPUT, described_run, render
from benchmarks.server_time import with_server_seconds
from benchmarks.trained_models import Trained, UnavailableError, trained
from sealserve.client import Client
from sealserve_service.models.loading import load_model
from tests.support import mnist
from tests.support.metrics import free_address
from tests.support.programs import serve

BATCHES = (1, 15, 1_000, 10_000)
TIMES = {1: 30, 15: 10, 1_000: 3, 10_000: 2}  # that a batch is sent; medians count
TIMEOUT_SECONDS = 120.0
CONVOLUTIONS = "MNIST, convolutions"
# The bounds of private convolutions, seconds of a whole batch and bytes of keys.
MAX_SECONDS = {1: 0.012, 1_000: 2.2, 10_000: 7.0}
MAX_KEY_BYTES = 400_000
MIN_ACCURACY = 0.97
PHASES = ("keys", "input", "encryption", "server", "decryption", "labels", "whole")
# Rows that others have published for the workload: images, seconds, and what is known of them.
PUBLISHED = (
    ("OpenFHE, reference, CPU", 1, 7.63, "96.6 to 98.9 %", "1 GB of keys"),
    ("OpenFHE, reference, CPU", 1_000, 6_516.0, "96.6 to 98.9 %", "1 GB of keys"),
    ("GPU, the faster", 1_000, 0.42, "96.6 to 98.9 %", "243 to 490 MB up"),
    ("GPU, the slower", 1_000, 2.52, "96.6 to 98.9 %", "243 to 490 MB up"),
    ("GPU, the faster", 10_000, 0.48, "96.6 to 98.9 %", "243 to 490 MB up"),
    ("GPU, the slower", 10_000, 6.22, "96.6 to 98.9 %", "243 to 490 MB up"),
)
CONDITIONS = (
    "Seconds of a batch. Keys: a new client generates its secret key and, for private weights, registers a public one. "
    "Input: published steps, and rounding onto the grid. Server: checks and arithmetic. Whole: one call of predict, "
    "from images to labels, with gRPC; phases overlap in it, and keys are there already. The service's preparation of "
    "the model is its whole start: Python, loading, planning and transforming the weights. No image was seen in "
    "training. The convolutions are asked for 2,000: larger batches repeat them."
)
T = TypeVar("T")


@dataclass(frozen=True)
class Workload:
    """A model of the workload, as options of `serve`, and unseen images.

    Attributes:
        images: (images, 784), with what they show.
        expected: the labels that the plaintext model gives them.
    """

    name: str
    options: tuple[str, ...]
    images: NDArray[np.float64]
    labels: NDArray[Any]
    expected: NDArray[Any]

    def part(self, count: int) -> NDArray[np.intp]:
        """Numbers of the first images, from the first again after the last."""
        return np.arange(count) % len(self.images)


def workloads() -> Iterator[Workload]:
    """Yield the models.

    Raises:
        UnavailableError: the images or the guide's model are not here.
    """
    images, labels, path = mnist.images(), mnist.labels(), mnist.find(mnist.MODEL)
    if images is None or labels is None or path is None:
        raise UnavailableError(
            f"MNIST or the guide's model is not here: run `make data`, or set SEALSERVE_DATA ({mnist.MODEL})"
        )
    model = load_model(path, trust_pickle=True)
    expected = model.output.predict(model.decision(images))
    yield Workload("linear", (f"--model=model={path}", "--trust-pickle", "--input-range=0,1"), images, labels, expected)
    found: Trained = trained(CONVOLUTIONS)
    yield Workload("convolutions", found.options, found.X, found.y, found.expected)


def timed(work: Callable[..., T], *arguments: Any, **named: Any) -> tuple[T, float]:
    """Do some work; return what it returns, and the seconds that it took."""
    start = time.perf_counter()
    return work(*arguments, **named), time.perf_counter() - start


@dataclass
class Round:
    """What a batch took, phase by phase: seconds, bytes, and the labels that it came to."""

    seconds: dict[str, float]
    labels: NDArray[Any]
    request_bytes: int = 0
    reply_bytes: int = 0


def by_phases(client: Client, images: NDArray[np.float64], metrics_address: str) -> Round:
    """Have images predicted by a new client, one phase after the other."""
    count = len(images)
    model, contact = timed(lambda: client.model)
    _, keys = timed(client.register_key, count)
    features, of_steps = timed(client.features, images)
    quantized, rounding = timed(model.grid.quantize, features)
    found = Round({"contact": contact, "keys": keys, "steps": of_steps, "input": of_steps + rounding}, np.empty(0))
    seconds = found.seconds | dict.fromkeys(("encryption", "server", "decryption"), 0.0)
    scores, offer = list[NDArray[np.float64]](), client.offer(count)
    for first in range(0, count, offer.rows_per_item):
        part = quantized.integers[first : first + offer.rows_per_item]
        item, encryption = timed(client.encrypt_quantized, part, keep=True)
        reply, server = with_server_seconds(metrics_address, offer.layout.name, partial(client.send, item), "model")
        scored, decryption = timed(client.decrypt, reply)
        scores.append(np.asarray(scored.scores))
        for phase, took in (("encryption", encryption), ("server", server), ("decryption", decryption)):
            seconds[phase] += took
        found.request_bytes += reply.request_bytes
        found.reply_bytes += reply.reply_bytes
    found.labels, seconds["labels"] = timed(model.output.predict, np.concatenate(scores))
    found.seconds = seconds
    return found


def measure_batch(workload: Workload, address: str, metrics_address: str, count: int) -> dict[str, Any]:
    """Send a batch of images, phase by phase and as a whole."""
    chosen = workload.part(count)
    images, rounds = workload.images[chosen], list[Round]()
    with Client(address) as asking:
        offer, model = asking.offer(count), asking.model
    for _ in range(TIMES[count]):
        with Client(address, layout=offer.layout.name, timeout_seconds=TIMEOUT_SECONDS) as client:
            rounds.append(by_phases(client, images, metrics_address))
            labels, rounds[-1].seconds["whole"] = timed(client.predict, images)
    last = rounds[-1]
    return {
        "model": workload.name,
        "weights": "private" if offer.private_weights else "open",
        "images": count,
        "unseen": min(count, len(workload.images)),
        "layout": offer.layout.name,
        "parameter_set": offer.parameters.parameter_set.name,
        "features": model.grid.feature_count,
        **{f"{phase}_seconds": median(one.seconds[phase] for one in rounds) for phase in last.seconds},
        "key_bytes": offer.cost.key_bytes,
        "steps_bytes": model.steps_bytes,
        "request_bytes": last.request_bytes,
        "reply_bytes": last.reply_bytes,
        "accuracy": float(np.mean(labels == workload.labels[chosen])),
        "agreement": float(np.mean(labels == workload.expected[chosen])),
        "equal_by_phases": float(np.mean(labels == last.labels)),
    }


def measure(workload: Workload, weights: str, batches: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """Serve a model, and yield what each batch took."""
    metrics_address = free_address()
    start = time.perf_counter()
    with serve(*workload.options, f"--weights={weights}", f"--metrics-address={metrics_address}") as program:
        ready = time.perf_counter() - start
        for count in batches:
            yield measure_batch(workload, program.address, metrics_address, count) | {"service_seconds": ready}


def bounds(results: list[dict[str, Any]]) -> Iterator[tuple[str, str, bool]]:
    """Yield what is promised of private convolutions, what was measured, and whether it holds."""
    for result in results:
        if result["model"] != "convolutions" or result["weights"] != "private":
            continue
        count, seconds = result["images"], result["whole_seconds"]
        images = f"{count:,} images" if count > 1 else "an image"
        if count in MAX_SECONDS:
            limit = MAX_SECONDS[count]
            yield f"{images} in {limit:g} s", f"{three_digits(seconds)} s", seconds <= limit
        yield (
            f"{images}: keys of 400 KB",
            f"{result['key_bytes']:,} bytes",
            result["key_bytes"] <= MAX_KEY_BYTES,
        )
        if count >= 1_000:
            accuracy = result["accuracy"]
            yield f"{images}: accuracy {MIN_ACCURACY:.0%}", f"{accuracy:.2%}", accuracy >= MIN_ACCURACY


def table(results: list[dict[str, Any]]) -> str:
    """Render the results: a line a batch, then what others have published, and the bounds."""
    head = "key bytes,bytes up,bytes down,accuracy,labels equal"
    lines = [["model", "weights", "images", *PHASES, *head.split(",")]]
    for result in results:
        lines.append(
            [
                result["model"],
                result["weights"],
                f"{result['images']:,}",
                *(three_digits(result[f"{phase}_seconds"]) for phase in PHASES),
                *(f"{result[name]:,}" for name in ("key_bytes", "request_bytes", "reply_bytes")),
                f"{result['accuracy']:.2%}",
                f"{result['agreement']:.2%}",
            ]
        )
    others = [("published by others", "images", "seconds", "accuracy", "")]
    others += [
        (name, f"{count:,}", f"{seconds:,g}", accuracy, note) for name, count, seconds, accuracy, note in PUBLISHED
    ]
    ready = ", ".join(
        f"{result['model']} {result['weights']} {result['service_seconds']:.1f} s"
        for result in results
        if result["images"] == results[0]["images"]
    )
    said = [render(lines), f"{CONDITIONS} {ready}.", render(others)]
    checked = [(promise, found, "pass" if holds else "miss") for promise, found, holds in bounds(results)]
    if checked:
        said.append(render([("bound", "measured", ""), *checked]))
    return "\n\n".join(said)


def main() -> None:
    """Run the workload."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.he_org", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, action="append", choices=BATCHES, help="only this batch (default: all)")
    parser.add_argument("--model", choices=("linear", "convolutions"), help="only this model (default: both)")
    arguments = parser.parse_args()
    run, batches, results = described_run(), tuple(arguments.images or BATCHES), list[dict[str, Any]]()
    try:
        for workload in workloads():
            if arguments.model in (None, workload.name):
                for weights in ("open", "private"):
                    results += measure(workload, weights, batches)
    except UnavailableError as error:
        sys.exit(str(error))
    (OUTPUT / "he_org.json").write_text(json.dumps(run | {"he_org": results}, indent=2) + "\n")
    print(table(results))
    print(f"\nwritten: {OUTPUT / 'he_org.json'}")


if __name__ == "__main__":
    main()
