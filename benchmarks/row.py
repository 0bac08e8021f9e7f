"""The row layout on MNIST: one client, one serving process, loopback.

Prints a table, and writes row.json and row.png into build/bench.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.report import OUTPUT, described_run, render
from sealserve.client import Client
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.models.loading import load_model
from tests.support import mnist
from tests.support.programs import serve

LATENCY_ROWS = 300
# Wanted score errors. The planner chooses by them: the default, then sets that spend more for a
# smaller proven error.
WANTED_ERRORS = (None, 0.1, 1e-4)
STAGES = ("encrypt", "wire", "server", "decrypt")


def latency(client: Client, rows: NDArray[np.float64]) -> dict[str, float]:
    """Measure single rows: the whole `predict`, and its stages one by one; medians in ms."""
    samples: dict[str, list[float]] = {stage: [] for stage in (*STAGES, "predict")}
    for row in tqdm(rows[:, None], desc="latency", unit="row", leave=False):
        start = time.perf_counter()
        client.predict(row)
        samples["predict"].append(time.perf_counter() - start)
        for stage, seconds in _stages(client, row).items():
            samples[stage].append(seconds)
    result = {f"{stage}_ms": 1e3 * median(seconds) for stage, seconds in samples.items()}
    result["predict_p99_ms"] = 1e3 * float(np.quantile(samples["predict"], 0.99))
    return result


def message_bytes(client: Client, row: NDArray[np.float64]) -> dict[str, int]:
    """Measure the messages of one row."""
    reply = client.send(client.encrypt(row))
    return {"request_bytes": reply.request_bytes, "reply_bytes": reply.reply_bytes}


def _stages(client: Client, row: NDArray[np.float64]) -> dict[str, float]:
    times = [time.perf_counter()]
    item = client.encrypt(row, keep=True)
    times.append(time.perf_counter())
    reply = client.send(item)
    times.append(time.perf_counter())
    client.decrypt(reply)
    times.append(time.perf_counter())
    encrypt, call, decrypt = map(float, np.diff(times))
    return {"encrypt": encrypt, "wire": call - reply.server_seconds, "server": reply.server_seconds, "decrypt": decrypt}


def accuracy(client: Client, model: LinearModel, rows: NDArray[np.float64], labels: NDArray[Any]) -> dict[str, float]:
    """Score all rows and compare with the plaintext model."""
    start = time.perf_counter()
    scores = client.decision_function(rows)
    seconds = time.perf_counter() - start
    expected = model.decision(rows)
    predicted = model.output.predict(scores)
    return {
        "rows": len(rows),
        "rows_per_second": len(rows) / seconds,
        "observed_score_error": float(np.abs(scores - expected).max()),
        "labels_equal": int((predicted == model.output.predict(expected)).sum()),
        "accuracy": float(np.mean(predicted == labels)),
    }


def measure(path: Path, wanted: float | None, rows: NDArray[np.float64], labels: NDArray[Any]) -> dict[str, Any]:
    """Serve the model with a wanted error and measure everything."""
    model = load_model(path, trust_pickle=True)
    options = [f"--model=mnist={path}", "--trust-pickle", "--input-range=0,1"]
    if wanted is not None:
        options.append(f"--max-score-error={wanted}")
    with serve(*options) as program, Client(program.address, layout="row") as client:
        offer = client.offer()
        result: dict[str, Any] = {
            "max_score_error": wanted,
            "parameter_set": offer.parameters.parameter_set.name,
            "score_error_bound": offer.weight_rounding_error_bound,
            "packed_reply_bytes": offer.cost.reply_bytes,
        }
        client.predict(rows[:20])  # warm
        result |= message_bytes(client, rows[:1])
        result |= latency(client, rows[:LATENCY_ROWS])
        client.predict(rows[:2500])  # by then the allocator has what it needs
        before = program.resident_bytes
        result |= accuracy(client, model, rows, labels)
        after = program.resident_bytes
        result |= {"server_rss_mb": after / 1e6, "server_rss_growth_mb": (after - before) / 1e6}
    return result


def plaintext_ms(path: Path, rows: NDArray[np.float64]) -> float:
    """Time the plaintext model on single rows in this process: median milliseconds."""
    model = load_model(path, trust_pickle=True)
    samples = []
    for row in rows[:LATENCY_ROWS, None]:
        start = time.perf_counter()
        model.output.predict(model.decision(row))
        samples.append(time.perf_counter() - start)
    return 1e3 * median(samples)


def table(results: list[dict[str, Any]]) -> str:
    """Render the results: one column a plan."""
    lines = [
        ("parameter set", "parameter_set", "{}"),
        ("wanted score error", "max_score_error", "{}"),
        ("proven score error (on the grid)", "score_error_bound", "{:.2g}"),
        ("observed score error", "observed_score_error", "{:.2g}"),
        ("rows scored", "rows", "{}"),
        ("labels equal to the plaintext model's", "labels_equal", "{}"),
        ("accuracy", "accuracy", "{:.4f}"),
        ("encrypt, ms", "encrypt_ms", "{:.2f}"),
        ("wire, ms", "wire_ms", "{:.2f}"),
        ("server, ms", "server_ms", "{:.2f}"),
        ("decrypt, ms", "decrypt_ms", "{:.2f}"),
        ("whole predict, one row: p50, ms", "predict_ms", "{:.2f}"),
        ("whole predict, one row: p99, ms", "predict_p99_ms", "{:.2f}"),
        ("many rows, in this layout too: rows/s", "rows_per_second", "{:.0f}"),
        ("bytes up a row", "request_bytes", "{}"),
        ("bytes down a row", "reply_bytes", "{}"),
        ("bytes down a row, packed as for links below 1 Gbit/s", "packed_reply_bytes", "{}"),
        ("server resident, MB", "server_rss_mb", "{:.0f}"),
        ("server grown over all rows, MB", "server_rss_growth_mb", "{:.2f}"),
    ]
    rows = [[title, *(pattern.format(result[key]) for result in results)] for title, key, pattern in lines]
    rows[1][1] = "default"
    return render(rows)


def plot(results: list[dict[str, Any]], path: Path) -> None:
    """Draw where the time of one row goes."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 1.2 + 0.6 * len(results)), layout="constrained")
    names = [result["parameter_set"] for result in results]
    left = np.zeros(len(results))
    for stage, color in zip(STAGES, ("#3b6fb6", "#b8b8b8", "#d98c00", "#5aa469"), strict=True):
        widths = np.array([result[f"{stage}_ms"] for result in results])
        axes.barh(names, widths, left=left, label=stage, color=color)
        left += widths
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds, median of one row")
    axes.set_title("Where the time of one encrypted MNIST row goes")
    figure.legend(ncols=len(STAGES), loc="outside lower center", frameon=False)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000, help="test images to score for accuracy (default: all)")
    arguments = parser.parse_args()
    rows, labels, path = mnist.images(), mnist.labels(), mnist.find(mnist.MODEL)
    if rows is None or labels is None or path is None:
        sys.exit(f"MNIST or the guide's model is not here: run `make data`, or set SEALSERVE_DATA ({mnist.MODEL})")
    rows, labels = rows[: arguments.rows], labels[: arguments.rows]
    results = []
    for wanted in WANTED_ERRORS:
        print(f"serving with max score error {wanted or 'default'} ...", file=sys.stderr)
        # All rows under the default plan; of what spends more, fewer tell as much.
        count = len(rows) if wanted is None else len(rows) // 4
        results.append(measure(path, wanted, rows[:count], labels[:count]))
    report = described_run() | {"plaintext_ms": plaintext_ms(path, rows), "row": results}
    (OUTPUT / "row.json").write_text(json.dumps(report, indent=2) + "\n")
    plot(results, OUTPUT / "row.png")
    print(table(results))
    print(f"\nscikit-learn's arithmetic on the same row in process, in plaintext: {report['plaintext_ms']:.3f} ms")
    print(f"written: {OUTPUT / 'row.json'}, {OUTPUT / 'row.png'}")


if __name__ == "__main__":
    main()
