"""A client's memory, while it streams rows from an iterator that is longer than memory.

The memory measured is that of this process; the service is another process. Prints a table, and
writes client_memory.json into build/bench.
"""

import argparse
import gc
import itertools
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.report import OUTPUT, described_run, render
from sealserve.client import Client
from tests.support.programs import serve

CASES = ((16, 1_000_000), (784, 100_000))
WARM_SHARE = 5  # the first fifth of the rows warms allocators up


def endless(rows: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    """Yield rows for ever."""
    return itertools.chain.from_iterable(itertools.repeat(rows))


def resident_mb() -> float:
    """What this process has in memory."""
    gc.collect()
    return float(psutil.Process().memory_info().rss / 1e6)


def measure(features: int, count: int) -> dict[str, Any]:
    """Stream rows; compare the memory after a fifth of them with that at the end and at most."""
    generator = np.random.default_rng(7)
    weights, some = generator.normal(size=(10, features)), generator.integers(0, 256, (4096, features)) / 255
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "wide.npz"
        np.savez(path, coef=weights, intercept=np.zeros(10), classes=np.arange(10))
        with (
            serve(f"--model=wide={path}", "--input-range=0,1") as program,
            Client(program.address, layout="column") as client,
        ):
            rows, samples, start = itertools.islice(endless(some), count), list[float](), time.perf_counter()
            expected, bound = some @ weights.T, client.offer(count).weight_rounding_error_bound
            wrong = 0
            every = count // (2 * WARM_SHARE)
            results = client.stream(rows, method="decision_function")
            for number, (index, scores) in enumerate(tqdm(results, total=count, leave=False), 1):
                wrong += bool((np.abs(scores - expected[index % len(some)]) > bound).any())
                if number % every == 0:
                    samples.append(resident_mb())
            seconds = time.perf_counter() - start
    warm, *later = samples[1:]
    return {
        "features": features,
        "rows": count,
        "rows_per_second": count / seconds,
        "wrong_rows": wrong,
        "warm_mb": warm,
        "growth_mb": later[-1] - warm,
        "most_growth_mb": max(later) - warm,
    }


def table(results: list[dict[str, Any]]) -> str:
    """Render the results: one column a case."""
    lines = [
        ("features", "features", "{}"),
        ("rows from an iterator", "rows", "{:,}"),
        ("rows/s", "rows_per_second", "{:,.0f}"),
        ("rows with a score beyond the proven error", "wrong_rows", "{}"),
        ("client's memory after a fifth, MB", "warm_mb", "{:.0f}"),
        ("grown at the end, MB", "growth_mb", "{:.1f}"),
        ("grown at most, MB", "most_growth_mb", "{:.1f}"),
    ]
    return render([[title, *(pattern.format(result[key]) for result in results)] for title, key, pattern in lines])


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="of the rows (%(default)g)")
    arguments = parser.parse_args()
    results = [measure(features, round(arguments.share * count)) for features, count in CASES]
    (OUTPUT / "client_memory.json").write_text(
        json.dumps(described_run() | {"client_memory": results}, indent=2) + "\n"
    )
    print(table(results))
    print(f"written: {OUTPUT / 'client_memory.json'}")


if __name__ == "__main__":
    main()
