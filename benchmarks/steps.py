"""Models with published steps: trees, categories, texts and images, with private weights.

Each model is served over gRPC on loopback and asked for single rows. With --concrete-ml, the trees
and the network of Concrete ML are asked for rows of the same numbers, in a process each, without a
network. Prints a table, ratios and bounds, and writes steps.json into build/bench.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.peers import concrete_ml_python, spread, three_digits
from benchmarks.report import OUTPUT, described_run, render
from benchmarks.server_time import with_server_seconds
from benchmarks.systems import running_peer
from benchmarks.trained_models import MODELS, TRAINING_ROWS, Trained, UnavailableError, numbers, trained
from sealserve.client import Client
from tests.support.metrics import free_address
from tests.support.programs import serve

ROWS = 60
COMPARED_ROWS = 2_000
PEERS = {
    "Concrete ML, XGBoost": "concrete-ml-xgboost",
    "Concrete ML, random forest": "concrete-ml-forest",
    "Concrete ML, network": "concrete-ml-network",
}
# What is compared at the server: (numerator, denominator). All have learnt the same numbers.
COMPARED = (
    ("Concrete ML, XGBoost", "LightGBM, 100 x 31"),
    ("Concrete ML, XGBoost", "XGBoost, 100 x depth 6"),
    ("Concrete ML, random forest", "random forest, 100 x depth 8"),
    ("Concrete ML, network", "HistGradientBoosting, 100 x 31"),
)
MAX_WHOLE_MS = {"LightGBM, 100 x 31": 6.0}
ENSEMBLES = ("LightGBM, 100 x 31", "HistGradientBoosting, 100 x 31", "XGBoost, 100 x 31")
MAX_STEPS_MS = dict.fromkeys(ENSEMBLES, 0.1)
MIN_STEPS_ROWS_PER_SECOND = dict.fromkeys(ENSEMBLES, 10_000)
MIN_ACCURACY = {"MNIST, convolutions": 0.97}
MIN_AGREEMENT = 0.999
MIN_RATIO = 100.0
EQUAL_ACCURACY = 0.01  # two standard errors of a share of 2,000 rows
CONDITIONS = (
    "Weights are private. Times are medians of single rows; server is the mean of what checks and arithmetic take. "
    "Steps are what a client computes of a row before it encrypts, and are part of the whole. Rows a second are those "
    "of one call for many rows, which takes the layout that it likes. Labels are compared with the estimator's. A "
    "client fetches the steps once. Concrete ML has client and server in one process of one thread, without a network, "
    "and fewer and smaller trees; its times are the processor's."
)


def milliseconds(work: Callable[[Any], object], rows: Sequence[Any]) -> list[float]:
    """Time work on rows, one by one."""
    found = []
    for row in rows:
        start = time.perf_counter()
        work(row)
        found.append(1e3 * (time.perf_counter() - start))
    return found


def measure(model: Trained) -> dict[str, Any]:
    """Serve a model, and measure single rows and a call of many."""
    metrics_address = free_address()
    options = (*model.options, "--weights=private", f"--metrics-address={metrics_address}")
    singles = [model.X[number : number + 1] for number in range(ROWS)]
    with serve(*options) as program, Client(program.address, layout="row") as client:
        for row in singles[:3]:
            client.predict(row)
        whole, server_seconds = with_server_seconds(
            metrics_address, "row", lambda: milliseconds(client.predict, singles), "model"
        )
        of_steps = milliseconds(client.features, singles)
        reply, offer = client.send(client.encrypt(singles[0])), client.offer()
        with Client(program.address) as any_layout:
            any_layout.predict(model.X[:COMPARED_ROWS])  # registers a key, too
            start = time.perf_counter()
            predicted = any_layout.predict(model.X[:COMPARED_ROWS])
            seconds = time.perf_counter() - start
            start = time.perf_counter()
            any_layout.features(model.X[:COMPARED_ROWS])
            seconds_of_steps = time.perf_counter() - start
        return {
            "features": client.model.grid.feature_count,
            "steps_bytes": client.model.steps_bytes,
            "parameter_set": offer.parameters.parameter_set.name,
            "score_error_bound": offer.score_error_bound,
            "server_ms": 1e3 * server_seconds,
            "steps_ms": spread(of_steps),
            "steps_rows_per_second": len(predicted) / seconds_of_steps,
            "whole_ms": spread(whole),
            "request_bytes": reply.request_bytes,
            "reply_bytes": reply.reply_bytes,
            "key_bytes": offer.cost.key_bytes,
            "rows_per_second": len(predicted) / seconds,
            "accuracy": float(np.mean(predicted == model.y[: len(predicted)])),
            "agreement": float(np.mean(predicted == model.expected[: len(predicted)])),
            "rows_compared": len(predicted),
        }


def measure_peer(worker: str, python: str, row_count: int = 3) -> dict[str, Any]:
    """Have a peer learn the same numbers, and score a few rows: one may take a minute of a core."""
    X, y = numbers()
    seen = TRAINING_ROWS
    with running_peer(worker, python, X[seen:], X=X[:seen], y=y[:seen], test_y=y[seen:]) as peer:
        found = [peer.score(number) for number in range(row_count)]
    whole = [sum(took[step] for step in ("encrypt", "server", "decrypt")) for took in found]
    return {
        "version": peer.ready["version"],
        "parameters": peer.ready["parameters"],
        "server_ms": 1e3 * median(took["server"] for took in found),
        "whole_ms": spread([1e3 * seconds for seconds in whole]),
        "request_bytes": found[0]["request_bytes"],
        "reply_bytes": found[0]["reply_bytes"],
        "key_bytes": peer.ready["key_bytes"],
        "rows_per_second": 1 / median(whole),
        "accuracy": peer.ready["accuracy"],
        "rows_compared": len(y) - seen,
    }


def ratios(results: list[dict[str, Any]]) -> dict[str, float]:
    """Return how many times our server's time a peer's server takes for a row."""
    times = {result["name"]: result["server_ms"] for result in results if "server_ms" in result}
    return {
        f"server: {over} over {under}": times[over] / times[under]
        for over, under in COMPARED
        if over in times and under in times
    }


def bounds(results: list[dict[str, Any]]) -> Iterator[tuple[str, str, bool]]:
    """Yield what is promised, what was measured, and whether it holds."""
    accuracies = {result["name"]: result["accuracy"] for result in results if "server_ms" in result}
    for result in results:
        name = result["name"]
        if "server_ms" not in result:
            continue
        if name in MAX_WHOLE_MS:
            whole = result["whole_ms"]["median"]
            yield f"{name}: a whole row in {MAX_WHOLE_MS[name]:g} ms", f"{whole:.2f} ms", whole <= MAX_WHOLE_MS[name]
        if name in MAX_STEPS_MS:
            most, of_steps = MAX_STEPS_MS[name], result["steps_ms"]["median"]
            yield f"{name}: steps of a row in {most:g} ms", f"{three_digits(of_steps)} ms", of_steps <= most
        if name in MIN_STEPS_ROWS_PER_SECOND and (rate := result.get("steps_rows_per_second")) is not None:
            least = MIN_STEPS_ROWS_PER_SECOND[name]
            yield f"{name}: steps of {least:,} rows/s on a core", f"{rate:,.0f} rows/s", rate >= least
        if name in MIN_ACCURACY:
            accuracy = result["accuracy"]
            yield f"{name}: accuracy {MIN_ACCURACY[name]:.0%}", f"{accuracy:.2%}", accuracy >= MIN_ACCURACY[name]
        if "agreement" in result:
            agreement = result["agreement"]
            yield f"{name}: labels equal {MIN_AGREEMENT:.1%}", f"{agreement:.2%}", agreement >= MIN_AGREEMENT
    found = ratios(results)
    for over, under in COMPARED:
        if (ratio := found.get(f"server: {over} over {under}")) is not None:
            theirs, ours = accuracies[over], accuracies[under]
            yield (
                f"server: {over} over {under}: {MIN_RATIO:g} times, at equal accuracy",
                f"{three_digits(ratio)} times, {ours:.2%} beside {theirs:.2%}",
                ratio >= MIN_RATIO and ours >= theirs - EQUAL_ACCURACY,
            )


def table(results: list[dict[str, Any]]) -> str:
    """Render the results: a line a model, then ratios and bounds."""
    head = (
        "model,features,steps ms,server ms,whole ms,whole: least to most,rows/s,bytes up,bytes down,key bytes,"
        "steps bytes,proven error,accuracy,labels equal,of rows"
    )
    lines = [head.split(",")]
    for result in results:
        if "server_ms" not in result:
            lines.append([result["name"], result["why"], *[""] * (len(lines[0]) - 2)])
            continue
        whole, of_steps = result["whole_ms"], result.get("steps_ms")
        lines.append(
            [
                result["name"],
                f"{result['features']:,}" if "features" in result else "",
                three_digits(of_steps["median"]) if of_steps else "",
                three_digits(result["server_ms"]),
                three_digits(whole["median"]),
                f"{three_digits(whole['least'])} to {three_digits(whole['most'])}",
                three_digits(result["rows_per_second"]),
                f"{result['request_bytes']:,}",
                f"{result['reply_bytes']:,}",
                f"{result['key_bytes']:,}",
                f"{result['steps_bytes']:,}" if "steps_bytes" in result else "",
                f"{result['score_error_bound']:.2g}" if "score_error_bound" in result else "",
                f"{result['accuracy']:.2%}",
                f"{result['agreement']:.2%}" if "agreement" in result else "",
                f"{result['rows_compared']:,}",
            ]
        )
    said = [render(lines), CONDITIONS]
    checked = [(promise, found, "pass" if holds else "miss") for promise, found, holds in bounds(results)]
    if checked:
        said.append(render([("promise", "measured", ""), *checked]))
    return "\n\n".join(said)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="append", choices=MODELS, help="only this model (default: all)")
    parser.add_argument("--concrete-ml", action="store_true", help="Concrete ML too, in an environment of its own")
    arguments = parser.parse_args()
    run, results = described_run(), list[dict[str, Any]]()
    for name in tqdm(arguments.model or MODELS, unit="model", leave=False):
        try:
            results.append({"name": name} | measure(trained(name)))
        except UnavailableError as error:
            results.append({"name": name, "why": str(error)})
    if arguments.concrete_ml and (python := concrete_ml_python()):
        results += [{"name": name} | measure_peer(worker, python) for name, worker in PEERS.items()]
    (OUTPUT / "steps.json").write_text(json.dumps(run | {"steps": results}, indent=2) + "\n")
    print(table(results))
    print(f"\nwritten: {OUTPUT / 'steps.json'}")


if __name__ == "__main__":
    main()
