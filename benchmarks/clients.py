"""The clients in Go and TypeScript beside the Python SDK: calls of a row and a batch, in one run.

The service runs in processes of its own. The model has the shape of MNIST's: 784 features and 10
classes. All clients make the same calls in turns, the one in TypeScript in Node, which compiles
during the first ones. Prints a table, and writes clients.json into build/bench.
"""

import argparse
import json
import subprocess
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.report import OUTPUT, described_run, render
from sealserve.client import Client
from tests.support import go, node
from tests.support.programs import serve

FEATURES, CLASSES = 784, 10


def python_seconds(address: str, rows: int, calls: int) -> list[float]:
    """Time calls of the SDK; the first one, which registers a key, does not count."""
    X, found = np.random.default_rng(0).integers(256, size=(rows, FEATURES)) / 255, list[float]()
    with Client(address) as client:
        for _ in range(calls + 1):
            begin = time.perf_counter()
            client.scored(X)
            found.append(time.perf_counter() - begin)
    return found[1:]


def go_seconds(program: Path, address: str, rows: int, calls: int) -> list[float]:
    """Time calls of the Go client, in a process of its own."""
    command = [str(program), "-target", address, "-rows", str(rows), "-calls", str(calls)]
    return list(map(float, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()))


def node_seconds(address: str, rows: int, calls: int) -> list[float]:
    """Time calls of the TypeScript SDK in Node, in a process of its own."""
    return list(map(float, node.run(["benchmarks/times.ts", address, str(rows), str(calls)]).split()))


def measure(address: str, program: Path, *, rows: int, calls: int, rounds: int) -> dict[str, Any]:
    """Return the medians of all clients, in milliseconds."""
    seconds = defaultdict[str, list[float]](list)
    for _ in range(rounds):
        seconds["python_ms"] += python_seconds(address, rows, calls)
        seconds["go_ms"] += go_seconds(program, address, rows, calls)
        seconds["node_ms"] += node_seconds(address, rows, calls)
    return {name: 1e3 * median(values) for name, values in seconds.items()}


def main() -> None:
    """Measure, print, and write the file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clients", description=__doc__)
    parser.add_argument("--calls", type=int, default=150, help="calls of a row in a round (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each client (%(default)s)")
    parser.add_argument("--batch", type=int, default=1000, help="rows of a batch (%(default)s)")
    arguments = parser.parse_args()
    report, results = described_run(), list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as folder:
        program, model = Path(folder, "times"), Path(folder, "model.npz")
        built = go.run("build", "-o", str(program), "./internal/times")
        built.check_returncode()
        random = np.random.default_rng(0)
        np.savez(model, coef=random.normal(size=(CLASSES, FEATURES)), intercept=np.zeros(CLASSES))
        for weights in ("open", "private"):
            with serve(f"--model={model}", "--input-range=0,1", f"--weights={weights}") as service:
                for rows, calls in ((1, arguments.calls), (arguments.batch, max(2, arguments.calls // 50))):
                    found = measure(service.address, program, rows=rows, calls=calls, rounds=arguments.rounds)
                    results.append({"weights": weights, "rows": rows, **found})
    (OUTPUT / "clients.json").write_text(json.dumps(report | {"clients": results}, indent=2) + "\n")
    lines = [["weights", "rows", "Python, ms", "Go, ms", "of Python's", "Node, ms", "of Python's"]]
    for each in results:
        python, go_ms, node_ms = each["python_ms"], each["go_ms"], each["node_ms"]
        shares = [f"{go_ms:.2f}", f"{go_ms / python:.2f}", f"{node_ms:.2f}", f"{node_ms / python:.2f}"]
        lines.append([each["weights"], str(each["rows"]), f"{python:.2f}", *shares])
    print(render(lines))
    print(f"written: {OUTPUT / 'clients.json'}")


if __name__ == "__main__":
    main()
