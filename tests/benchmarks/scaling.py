"""`make bench` (rows) and `make bench-full` (all axes): how time grows, one axis at a time, and how it should.

Every point is a service of its own on loopback with a random model. Beside what is measured stands a model of its cost
(`cost_model`), and below the table where they part most. Writes scaling.json and scaling.png into build/bench.
"""

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from tqdm import tqdm

from sealserve._load_driver import LoadDriver
from sealserve._load_items import LoadCall, LoadItems, random_rows
from sealserve._session import LayoutChoice
from sealserve.client import Client
from sealserve.errors import ParameterError
from sealserve.load import Ledger
from tests.benchmarks.cost_model import column_server_seconds, row_server_seconds
from tests.benchmarks.report import OUTPUT, described_run, render
from tests.programs import Program, serve

FEATURES, CLASSES = 784, 10
LAYOUTS: tuple[LayoutChoice, ...] = ("row", "column")
_SECONDS = 2.0
_ITEMS = {"row": 40, "column": 3}


@dataclass(frozen=True)
class Point:
    """A measurement and what the model says.

    Attributes:
        series: what is measured, with its unit.
        resident_mb: of the service; 0 where that is not looked at.
    """

    axis: str
    series: str
    x: int
    measured: float
    modelled: float
    resident_mb: float = 0.0


@contextlib.contextmanager
def _served(features: int, classes: int, *options: str) -> Iterator[Program]:
    generator = np.random.default_rng(features + classes)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "model.npz"
        coefficients = generator.normal(size=(classes if classes > 2 else 1, features)) / features
        np.savez(path, coef=coefficients, intercept=np.zeros(len(coefficients)), classes=np.arange(classes))
        with serve(f"--model={path}", "--input-range=0,1", *options) as program:
            yield program


def _server_points(axis: str, x: int, features: int, classes: int) -> Iterator[Point]:
    """Measure the server's time for an item of either layout."""
    with _served(features, classes) as program:
        for layout in LAYOUTS:
            with Client(program.address, layout=layout) as client, client._connections.use(0) as channel:
                try:
                    offer = client.offer()
                except ParameterError as error:  # beyond what the planner can prove, or what the service will hold
                    print(f"{axis} {x}: {error}", file=sys.stderr)
                    continue
                items = LoadItems(client._exchange(1), 1 if layout == "row" else offer.rows_per_item)
                call = LoadCall(items, channel, 600.0)
                call()
                measured = median(call().server_seconds for _ in range(_ITEMS[layout]))
                model = row_server_seconds if layout == "row" else column_server_seconds
                modelled = model(offer, client.model.output.score_count)
                series = f"{layout}: server, ms an item"
                yield Point(axis, series, x, 1e3 * measured, 1e3 * modelled, program.resident_bytes / 1e6)


def features(values: Sequence[int]) -> Iterator[Point]:
    """Features of the model."""
    for value in values:
        yield from _server_points("features", value, value, CLASSES)


def classes(values: Sequence[int]) -> Iterator[Point]:
    """Classes of the model."""
    for value in values:
        yield from _server_points("classes", value, FEATURES, value)


def rows(values: Sequence[int]) -> Iterator[Point]:
    """Rows of a batch, from features to scores, in either layout."""
    with _served(FEATURES, CLASSES) as program:
        for layout in LAYOUTS:
            with Client(program.address, layout=layout) as client:
                grid, per_item = client.model.grid, client.offer().rows_per_item
                pool = random_rows(grid, 4096, 0)

                def seconds(count: int, client: Client = client, pool: Any = pool) -> float:
                    some = pool[np.arange(count) % len(pool)]
                    start = time.perf_counter()
                    client.decision_function(some)
                    return time.perf_counter() - start

                seconds(1)
                item = median(seconds(per_item) for _ in range(5))
                for value in values:
                    # 65,536 single rows take minutes, and the line is straight long before.
                    if layout == "row" and value > 4096:
                        continue
                    measured = median(seconds(value) for _ in range(3 if value < 4096 else 1))
                    modelled = item * -(-value // per_item)
                    resident = program.resident_bytes / 1e6
                    yield Point("rows", f"{layout}: rows/s", value, value / measured, value / modelled, resident)


def clients(values: Sequence[int], processes: int = 1) -> Iterator[Point]:
    """Concurrent callers, each with one row at a time, replayed.

    The model knows no more than a lone caller's latency and the server's own time: gRPC's work, and the callers', who
    share the cores, are what is between it and the points.
    """
    with (
        _served(FEATURES, CLASSES, f"--processes={processes}") as program,
        Client(program.address, layout="row") as client,
        contextlib.ExitStack() as stack,
    ):
        items = LoadItems(client._exchange(1), 1, replay=16)
        calls = [
            LoadCall(items, stack.enter_context(client._connections.use(number)), 60.0) for number in range(max(values))
        ]

        def loaded(count: int) -> dict[str, Any]:
            ledger = Ledger()
            driver = LoadDriver(calls[:count], ledger, _SECONDS, warm_up_seconds=0.3)
            driver.wait(600)
            return ledger.summary(_SECONDS)

        alone = loaded(1)
        latency, server = alone["latency_ms"]["p50"] / 1e3, alone["server_ms"]["p50"] / 1e3
        for value in values:
            found = loaded(value)
            modelled = min(value / latency, processes / server)
            series = f"{processes} process{'es' if processes > 1 else ''}: rows/s"
            yield Point("clients", series, value, found["rows_per_second"], modelled)


AXES: dict[str, tuple[Callable[[Sequence[int]], Iterator[Point]], tuple[int, ...]]] = {
    "features": (features, (64, 256, 784, 2048, 4096, 16384, 65536)),
    "classes": (classes, (2, 10, 32, 100, 320, 1000)),
    "rows": (rows, (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536)),
    "clients": (clients, (1, 2, 4, 8, 16, 32, 64)),
    "clients of two processes": (lambda values: clients(values, 2), (1, 2, 4, 8, 16, 32, 64)),
}


def table(points: list[dict[str, Any]]) -> str:
    """Render the points: a table an axis, and where measurement and model part most."""
    said = []
    for axis in dict.fromkeys(point["axis"] for point in points):
        some = [point for point in points if point["axis"] == axis]
        lines = [[axis, "", "measured", "by the model", "service, MB"]]
        for point in some:
            cells = (f"{point[key]:,.3g}" for key in ("measured", "modelled"))
            memory = f"{point['resident_mb']:.0f}" if point["resident_mb"] else ""
            lines.append([f"{point['x']:,}", point["series"], *cells, memory])
        said += [render(lines), *parting(some)]
    return "\n\n".join(said)


def parting(points: list[dict[str, Any]]) -> Iterator[str]:
    """Say of each series where it is furthest from its model."""
    for series in dict.fromkeys(point["series"] for point in points):
        some = [point for point in points if point["series"] == series]
        worst = max(some, key=lambda point: abs(np.log(point["measured"] / point["modelled"])))
        ratio = worst["measured"] / worst["modelled"]
        yield f"{series}: furthest from its model at {worst['x']:,} {worst['axis']}, {ratio:.2f} times as much."


def plot(points: list[dict[str, Any]], path: Path) -> None:
    """Draw each axis: what is measured as points, the model as a line."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    axes = list(dict.fromkeys(point["axis"] for point in points))
    figure, plots = plt.subplots(1, len(axes), figsize=(5.5 * len(axes), 4.2), layout="constrained", squeeze=False)
    for axis, place in zip(axes, plots[0], strict=True):
        some = [point for point in points if point["axis"] == axis]
        series = list(dict.fromkeys(point["series"] for point in some))
        for name, color in zip(series, ("#3b6fb6", "#d98c00", "#5aa469"), strict=False):
            own = [point for point in some if point["series"] == name]
            x = [point["x"] for point in own]
            place.plot(x, [point["measured"] for point in own], "o", color=color, label=name)
            place.plot(x, [point["modelled"] for point in own], "--", color=color)
        place.set_xscale("log", base=2)
        place.set_yscale("log")
        place.set_xlabel(axis)
        place.legend(frameon=False)
        place.grid(alpha=0.3)
    figure.suptitle("Measured (points), and by the model of the cost (lines)")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES), help="which (all)")
    parser.add_argument("--quick", action="store_true", help="the first three values of each: to see that it works")
    arguments = parser.parse_args()
    description, points = described_run(), list[dict[str, Any]]()
    for axis in arguments.axes:
        measure, values = AXES[axis]
        some = measure(values[:3] if arguments.quick else values)
        points += [asdict(point) for point in tqdm(some, desc=axis, unit="point", leave=False, file=sys.stderr)]
    (OUTPUT / "scaling.json").write_text(json.dumps(description | {"scaling": points}, indent=2) + "\n")
    plot(points, OUTPUT / "scaling.png")
    print(table(points))
    print(f"\nwritten: {OUTPUT / 'scaling.json'}, {OUTPUT / 'scaling.png'}")


if __name__ == "__main__":
    main()
