"""Scaling: how time and memory grow along one axis at a time, and how they should.

`make bench` has the axis of rows, `make bench-full` all axes. Every point is a service of its own
on loopback with a random model and open weights. Beside each measurement is what a model of its
cost says (`cost_model`). Below each table is where the two are furthest apart, and how straight the
line is. Along the axes of the model's size the planner may leave a large error, so that one
parameter set serves as much of an axis as possible: a larger set costs twice as much. Writes
scaling.json and scaling.png into build/bench.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.cost_model import column_server_seconds, row_server_seconds
from benchmarks.curves import plot, table
from benchmarks.report import OUTPUT, described_run, undisturbed
from sealserve.client import Client
from sealserve.errors import ParameterError
from sealserve.he.layouts import LAYOUTS
from sealserve.he.quantization import InputGrid
from sealserve.loadtest.driver import LoadDriver
from sealserve.loadtest.items import LoadItems, random_rows
from sealserve.loadtest.ledger import Ledger
from sealserve.protocol.model import Offer
from sealserve_service.planning.column import COLUMN_RULES
from sealserve_service.planning.row import ROW_RULES
from tests.support.affine_models import features_of
from tests.support.plans import cheapest_plan
from tests.support.programs import Program, serve

FEATURES, CLASSES = 784, 10
TIMED_LAYOUTS = ("row", "column")
_ALLOWED_ERROR = 2.0**-6  # of the range of scores
_SECONDS = 2.0
_ITEMS = 5, 100  # at least and at most, as many as take _SECONDS


@dataclass(frozen=True)
class Point:
    """A measurement and what the model says.

    Attributes:
        series: what is measured, with its unit.
        parameter_set: that the planner chose.
        resident_mb: of the service; 0 where that is not looked at.
        grown_mb: what it has more, at most, while it works.
        weights_mb: what it has for the model's weights, in the forms that the layouts multiply by.
    """

    axis: str
    series: str
    x: int
    measured: float
    modelled: float
    parameter_set: str
    resident_mb: float = 0.0
    grown_mb: float = 0.0
    weights_mb: float = 0.0


@dataclass(frozen=True)
class RandomModel:
    """Random weights (score_count, features), without intercepts, and the error that is allowed.

    Features are in 0..1.
    """

    weights: NDArray[np.float64]
    max_score_error: float | None = None

    @classmethod
    def of(cls, features: int, classes: int) -> "RandomModel":
        """Draw one; two classes have one score."""
        generator = np.random.default_rng(features + classes)
        return cls(generator.normal(size=(classes if classes > 2 else 1, features)) / features)

    def with_room(self) -> "RandomModel":
        """Allow an error of _ALLOWED_ERROR."""
        return RandomModel(self.weights, _ALLOWED_ERROR * float(np.abs(self.weights).sum(axis=1).max()))

    @contextlib.contextmanager
    def served(self, *options: str) -> Iterator[Program]:
        """Serve it."""
        with tempfile.TemporaryDirectory() as directory, serve(*self.options(Path(directory)), *options) as program:
            yield program

    def options(self, folder: Path) -> list[str]:
        """Write it into a folder, and return the options that serve it."""
        score_count, path = len(self.weights), folder / "model.npz"
        classes = np.arange(score_count if score_count > 1 else 2)
        np.savez(path, coef=self.weights, intercept=np.zeros(score_count), classes=classes)
        error = [f"--max-score-error={self.max_score_error!r}"] if self.max_score_error else []
        return [f"--model={path}", "--input-range=0,1", *error]

    def server_seconds(self, layout: str, grid: InputGrid) -> float:
        """Say what an item should take, by the model of the cost."""
        arguments = self.weights, np.zeros(len(self.weights)), grid
        if layout == "row":
            return row_server_seconds(cheapest_plan(ROW_RULES, *arguments, max_score_error=self.max_score_error))
        return column_server_seconds(cheapest_plan(COLUMN_RULES, *arguments, max_score_error=self.max_score_error))


def _weights_bytes(offer: Offer, weights: NDArray[np.float64]) -> int:
    """Return how many bytes an offer's weights have before its first request.

    They are NTT forms in rows, float64 otherwise.
    """
    if offer.layout is not LAYOUTS["row"]:
        return weights.nbytes
    polynomials = -(-len(weights) // offer.classes_per_polynomial)
    return polynomials * offer.ciphertexts_per_item * offer.parameters.parameter_set.polynomial_bytes


def _server_points(axis: str, x: int, model: RandomModel) -> Iterator[Point]:
    """Measure the server's time for a row of either layout.

    It is the undisturbed one: points of a line are minutes apart.
    """
    with model.served() as program:
        for layout in TIMED_LAYOUTS:
            with Client(program.address, layout=layout) as client:
                try:
                    offer = client.offer()
                except ParameterError as error:  # beyond what the planner can prove, or what the service will hold
                    print(f"{axis} {x}: {error}", file=sys.stderr)
                    continue
                rows = 1 if layout == "row" else offer.rows_per_item
                client.register_key()
                items = LoadItems(client, rows)
                items.send(600.0)
                start = time.perf_counter()
                items.send(600.0)
                count = int(np.clip(_SECONDS / (time.perf_counter() - start), *_ITEMS))
                resident = program.resident_bytes
                program.forget_peak()
                measured = undisturbed([items.send(600.0).server_seconds for _ in range(count)])
                modelled = model.server_seconds(layout, client.model.grid)
                yield Point(
                    axis,
                    f"{layout}: server, undisturbed, us a row",
                    x,
                    1e6 * measured / rows,
                    1e6 * modelled / rows,
                    offer.parameters.parameter_set.name,
                    program.resident_bytes / 1e6,
                    (program.peak_bytes - resident) / 1e6,
                    sum(_weights_bytes(offered, model.weights) for offered in client.model.offers) / 1e6,
                )


def features(values: Sequence[int], _: float) -> Iterator[Point]:
    """Features of the model."""
    for value in values:
        yield from _server_points("features", value, RandomModel.of(value, CLASSES).with_room())


def classes(values: Sequence[int], _: float) -> Iterator[Point]:
    """Classes of the model."""
    for value in values:
        yield from _server_points("classes", value, RandomModel.of(FEATURES, value).with_room())


def rows(values: Sequence[int], patience_seconds: float) -> Iterator[Point]:
    """Measure the rows of a call, from features to scores, in either layout.

    By the model the first item takes as long as a lone one, and each further item as long as the
    busier end computes.
    """
    with RandomModel.of(FEATURES, CLASSES).served() as program:
        for layout in TIMED_LAYOUTS:
            with Client(program.address, layout=layout) as client:
                offer = client.offer()
                grid, per_item = client.model.grid, offer.rows_per_item
                pool = features_of(grid, random_rows(grid, 4096, 0))

                def seconds(count: int, client: Client = client, pool: Any = pool) -> float:
                    some = pool[np.arange(count) % len(pool)]
                    start = time.perf_counter()
                    client.decision_function(some)
                    return time.perf_counter() - start

                seconds(1)
                repetitions = 200 if layout == "row" else 5
                own, service = psutil.Process().cpu_times(), program.cpu_seconds
                latency = median(seconds(per_item) for _ in range(repetitions))
                computed = psutil.Process().cpu_times()
                client_seconds = (computed.user + computed.system - own.user - own.system) / repetitions
                busier = max(client_seconds, (program.cpu_seconds - service) / repetitions)
                for value in values:
                    modelled = latency + (-(-value // per_item) - 1) * busier
                    if modelled > patience_seconds:
                        continue
                    resident = program.resident_bytes
                    program.forget_peak()
                    measured = median(seconds(value) for _ in range(max(1, min(30, round(1 / modelled)))))
                    yield Point(
                        "rows",
                        f"{layout}: rows/s",
                        value,
                        value / measured,
                        value / modelled,
                        offer.parameters.parameter_set.name,
                        program.resident_bytes / 1e6,
                        (program.peak_bytes - resident) / 1e6,
                    )


def clients(values: Sequence[int], _: float, processes: int = 1) -> Iterator[Point]:
    """Measure concurrent callers, each with one replayed row at a time.

    By the model they get what as many lone callers would. A process computes no more than one core
    does, and all together no more than the machine has.
    """
    with (
        RandomModel.of(FEATURES, CLASSES).served(f"--processes={processes}") as program,
        Client(program.address, layout="row") as client,
    ):
        client.register_key()
        items = LoadItems(client, 1, replay=16)
        calls = [partial(items.send, 60.0, number) for number in range(max(values))]

        def loaded(count: int) -> dict[str, Any]:
            ledger = Ledger()
            driver = LoadDriver(calls[:count], ledger, _SECONDS, warm_up_seconds=0.3)
            driver.wait(600)
            return ledger.summary(_SECONDS)

        loaded(1)
        own, service = time.process_time(), program.cpu_seconds
        alone = loaded(1)
        requests = alone["sent"] * (1 + 0.3 / _SECONDS)  # those that warmed up are computed, too
        caller_seconds = (time.process_time() - own) / requests
        service_seconds = (program.cpu_seconds - service) / requests
        most = min(
            1 / caller_seconds,
            processes / service_seconds,
            (os.cpu_count() or 1) / (caller_seconds + service_seconds),
        )
        for value in values:
            found = loaded(value)
            yield Point(
                "clients" if processes == 1 else f"clients of {processes} processes",
                f"{processes} process{'es' if processes > 1 else ''}: rows/s",
                value,
                found["rows_per_second"],
                min(value * alone["rows_per_second"], most),
                client.offer().parameters.parameter_set.name,
            )


Measure = Callable[[Sequence[int], float], Iterator[Point]]
AXES: dict[str, tuple[Measure, tuple[int, ...]]] = {
    "features": (features, (64, 256, 784, 2048, 4096, 16384, 65536)),
    "classes": (classes, (2, 10, 32, 100, 320, 1000)),
    "rows": (rows, (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536)),
    "clients": (clients, (1, 2, 4, 8, 16, 32, 64)),
    "clients-of-2": (lambda values, patience: clients(values, patience, 2), (1, 2, 4, 8, 16, 32, 64)),
}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES), help="which (all)")
    parser.add_argument("--most", type=int, metavar="N", help="no values beyond, on any axis")
    parser.add_argument(
        "--patience",
        type=float,
        default=600.0,
        metavar="SECONDS",
        help="leave out calls that take longer (%(default)g)",
    )
    arguments = parser.parse_args()
    description, points = described_run(), list[dict[str, Any]]()
    for axis in arguments.axes:
        measure, values = AXES[axis]
        some = measure([value for value in values if value <= (arguments.most or value)], arguments.patience)
        points += [asdict(point) for point in tqdm(some, desc=axis, unit="point", leave=False, file=sys.stderr)]
    (OUTPUT / "scaling.json").write_text(json.dumps(description | {"scaling": points}, indent=2) + "\n")
    plot(points, OUTPUT / "scaling.png")
    print(table(points))
    print(f"\nwritten: {OUTPUT / 'scaling.json'}, {OUTPUT / 'scaling.png'}")


if __name__ == "__main__":
    main()
